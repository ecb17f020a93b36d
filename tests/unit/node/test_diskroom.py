"""What is free on a disk, and what follows from it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from raftckpt import limits
from raftckpt.node.diskroom import DiskRoom, segment_bytes
from raftckpt.node.room import Room

MIB = limits.MIB
SEGMENT = 4 * MIB


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    told = SimpleNamespace(mib=1000, total=64)

    def statvfs(path: str) -> SimpleNamespace:
        if told.mib is None:
            raise OSError
        return SimpleNamespace(f_frsize=MIB, f_bavail=told.mib, f_blocks=told.total)

    monkeypatch.setattr(os, "statvfs", statvfs)
    return told


def test_segments_suit_the_disk(free: SimpleNamespace, tmp_path: Path) -> None:
    for total, mib in ((64, 4), (8, 1), (100, 6), (1 << 20, 64)):
        free.total = total
        assert segment_bytes(str(tmp_path / "not" / "there")) == mib * MIB


def test_a_disk_is_full_before_it_is_and_has_room_a_little_later(
    free: SimpleNamespace, tmp_path: Path
) -> None:
    disk = DiskRoom(str(tmp_path), SEGMENT)
    state = 20 * MIB
    for mib, full in ((100, False), (30, False), (29, True), (33, True), (34, False)):
        free.mib = mib
        disk.look(state, 0)
        assert disk.full is full, mib
        assert bool(disk.alarms()) is full
    free.mib = None
    disk.measure(state)
    assert not disk.full, "the next write tells"


def test_what_may_be_on_its_way_is_what_is_left(free: SimpleNamespace, tmp_path: Path) -> None:
    disk = DiskRoom(str(tmp_path), SEGMENT)
    for mib, allowed, short in ((1000, 64, False), (20, 12, False), (13, 5, False), (12, 4, True)):
        free.mib = mib
        disk.measure(0)
        assert (disk.allowance, disk.short) == (allowed * MIB, short)


def test_the_log_is_made_short_while_that_helps(free: SimpleNamespace, tmp_path: Path) -> None:
    disk = DiskRoom(str(tmp_path), SEGMENT)
    assert not disk.look(0, 100 * MIB), "there is room"
    free.mib = 25
    assert disk.look(0, 13 * MIB)
    assert not disk.look(0, 12 * MIB), "it is short"
    free.mib = 50
    assert not disk.look(40 * MIB, 15 * MIB), "a snapshot costs more than that"
    assert disk.look(40 * MIB, 21 * MIB)


def test_the_reserve_is_for_what_cannot_wait(free: SimpleNamespace, tmp_path: Path) -> None:
    disk = DiskRoom(str(tmp_path), MIB)
    journal = str(tmp_path / "journal" / "1")
    assert not disk.release(journal), "none was taken yet"
    disk.look(0, 0)
    reserve = tmp_path / "reserve"
    assert reserve.stat().st_blocks * 512 >= MIB
    assert not disk.release(str(tmp_path / "snapshots" / "1.tmp"))
    assert disk.release(journal)
    assert not reserve.exists()
    assert not disk.release(journal), "once"
    free.mib = 2
    disk.look(0, 0)
    assert not reserve.exists(), "there is no room for it"
    free.mib = 1000
    disk.look(0, 0)
    assert DiskRoom(str(tmp_path), MIB).release(journal), "that of a former start"
    reserve.touch()  # killed before it had its blocks
    disk = DiskRoom(str(tmp_path), MIB)
    assert not disk.release(journal)
    disk.look(0, 0)
    assert reserve.stat().st_blocks * 512 >= MIB
    assert disk.release(journal)


def test_a_snapshot_that_has_no_room_is_an_alarm(free: SimpleNamespace, tmp_path: Path) -> None:
    disk = DiskRoom(str(tmp_path), SEGMENT)
    free.mib = 23
    disk.look(20 * MIB, 0)
    assert not disk.fits(20 * MIB)
    assert "a snapshot has no room either" in disk.alarms()[1]


def test_a_snapshot_of_unknown_size_is_as_large_as_the_state(
    free: SimpleNamespace, tmp_path: Path
) -> None:
    disk = DiskRoom(str(tmp_path), SEGMENT)
    disk.look(20 * MIB, 0)
    for mib, fits in ((24, True), (23, False)):
        free.mib = mib
        assert disk.fits(0) is fits, "it is measured now"
        assert disk.fits(20 * MIB) is fits
    assert disk.fits(19 * MIB)


def test_room_that_is_taken_is_known_at_once(free: SimpleNamespace, tmp_path: Path) -> None:
    disk = DiskRoom(str(tmp_path), SEGMENT, 3 * MIB)
    room = Room(None, disk)
    disk.look(20 * MIB, 0)
    assert (room.disk_full, room.pending_bytes_max) == (False, 3 * MIB), "and never more"
    free.mib = 12
    disk.taken()
    assert (room.disk_full, room.pending_bytes_max) == (True, 2 * MIB)
    assert disk.short

"""The simulated disk must be as nasty as it claims: else the crash tests prove nothing."""

from __future__ import annotations

import random

import pytest

from raftckpt.storage import DiskFailed, DiskFull, InUse, Missing
from tests.directories import open_founded
from tests.sim.disk import SimCrash, SimDisk


def disk_of(seed: int = 1) -> SimDisk:
    disk = SimDisk(random.Random(seed))
    disk.fs.mkdir("/d")
    return disk


def written(disk: SimDisk, synced: bytes, unsynced: bytes) -> None:
    file = disk.fs.open("/d/f", create=True)
    file.write(0, [synced])
    file.sync()
    disk.fs.fsync_dir("/d")
    file.write(len(synced), [unsynced])


def test_what_was_synced_stays_and_the_rest_may_go():
    outcomes = set()
    for seed in range(200):
        disk = disk_of(seed)
        written(disk, b"s" * 700, b"u" * 2000)
        disk.power_loss()
        data = disk.content("/d/f")
        assert data[:700] == b"s" * 700
        outcomes.add(data[700:])
    assert b"" in outcomes
    assert b"u" * 2000 in outcomes
    assert any(o == b"u" * len(o) and 0 < len(o) < 2000 for o in outcomes)  # a prefix
    assert any(b"\0" in o and b"u" in o for o in outcomes)  # holes


def test_a_killed_process_loses_nothing():
    disk = disk_of()
    written(disk, b"s", b"u")
    disk.kill()
    assert disk.content("/d/f") == b"su"
    disk.power_loss("none")
    assert disk.content("/d/f") == b"s"


def test_names_need_a_sync_of_their_directory():
    disk = disk_of()
    file = disk.fs.open("/d/f", create=True)
    file.write(0, [b"x"])
    file.sync()
    disk.power_loss("none")
    with pytest.raises(Missing):
        disk.fs.open("/d/f")
    written(disk, b"1", b"")
    disk.fs.rename("/d/f", "/d/g")
    disk.fs.unlink("/d/g")
    disk.power_loss("none")
    assert disk.files("/d") == ["/d/f"]
    disk.fs.rename("/d/f", "/d/g")
    disk.fs.fsync_dir("/d")
    disk.power_loss("none")
    assert disk.files("/d") == ["/d/g"]


def test_a_failed_sync_loses_its_writes_for_ever():
    disk = disk_of()
    written(disk, b"s", b"u")
    file = disk.fs.open("/d/f")
    disk.fail_syncs = 1
    with pytest.raises(DiskFailed):
        file.sync()
    assert file.read(0, 9) == b"su"
    file.sync()  # succeeds, and means nothing
    disk.power_loss("all")
    assert disk.content("/d/f") == b"s"


def test_crashes_come_where_they_are_ordered_and_handles_die():
    disk = disk_of()
    fs = disk.fs
    file = fs.open("/d/f", create=True)
    disk.crash_at(call=2)
    file.write(0, [b"1"])
    with pytest.raises(SimCrash):
        file.write(1, [b"2"])
    for act in (
        lambda: file.read(0, 1),
        file.sync,
        lambda: fs.listdir("/d"),
        lambda: fs.open("/d/f"),
        lambda: fs.point("x"),
        lambda: fs.unlink("/d/f"),
        lambda: fs.mkdir("/e"),
    ):
        with pytest.raises(SimCrash):
            act()
    disk.kill()
    with pytest.raises(SimCrash):
        file.read(0, 1)
    assert disk.content("/d/f") == b"1"
    disk.crash_at(label="here", hit=2)
    disk.fs.point("here")
    with pytest.raises(SimCrash):
        disk.fs.point("here")
    assert disk.crashes == ["write", "here"]
    assert disk.points["here"] == 2


def test_tears_to_the_byte():
    for count in range(6):
        disk = disk_of()
        written(disk, b"s", b"abcde")
        assert disk.unsynced("/d/f") == 5
        disk.tear_exactly("/d/f", count)
        assert disk.content("/d/f") == b"s" + b"abcde"[:count]


def test_capacity_time_locks_and_wiping():
    disk = disk_of()
    disk.capacity = 10
    file = disk.fs.open("/d/f", create=True)
    with pytest.raises(DiskFull):
        file.write(0, [b"0123456789abc"])
    assert disk.content("/d/f") == b"0123456789"
    with pytest.raises(DiskFull):
        file.preallocate(11)
    disk.full = True
    with pytest.raises(DiskFull):
        disk.fs.open("/d/g", create=True)
    disk.take_busy_ns()
    file.sync()
    assert disk.take_busy_ns() == disk.sync_ns
    disk.fs.lock("/d/lock")
    with pytest.raises(InUse):
        disk.fs.lock("/d/lock")
    disk.kill()
    disk.fs.lock("/d/lock")
    disk.wipe()
    assert disk.files() == []


def test_the_same_seed_gives_the_same_disk():
    def run(seed: int) -> list[bytes]:
        disk = disk_of(seed)
        written(disk, b"s" * 100, bytes(range(256)) * 40)
        disk.power_loss()
        return [disk.fs.random_bytes(8), disk.content("/d/f")]

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_white_box_view_shows_only_what_is_durable():
    disk = SimDisk(random.Random(1))
    assert disk.durable_journal("/data") is None
    assert disk.durable_entries("/data") == []
    storage = open_founded(disk.fs, "/data", segment_bytes=8192)
    journal = storage.journal
    for index in range(1, 60):
        journal.append_entry(bytes(200), index, 1)
        assert len(disk.durable_entries("/data")) == index - 1
        journal.sync()
        assert disk.durable_entries("/data") == list(journal)
    journal.set_hard_state(5, "v")
    found = disk.durable_journal("/data")
    assert found is not None
    assert found.vote is None
    journal.sync()
    found = disk.durable_journal("/data")
    assert found is not None
    assert (found.term, found.vote) == (5, "v")
    assert disk.durable_journal("/data") is found  # cached
    calls = disk.calls
    disk.durable_entries("/data")
    assert disk.calls == calls

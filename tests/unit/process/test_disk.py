from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raftckpt.process.disk import DiskWatch
from tests.unit.node.fakes import LoneReplica


class RoomDouble:
    """What a disk room says."""

    def __init__(self) -> None:
        self.full = self.short = self.low = False
        self.allowance, self.free = 1000, 10**6
        self.measured = 0

    def look(self, state_bytes: int, log_bytes: int) -> bool:
        self.measure(state_bytes)
        return self.low

    def measure(self, state_bytes: int) -> None:
        self.measured += 1

    def fits(self, size: int) -> bool:
        return size <= self.free


class DiskScene:
    def __init__(self) -> None:
        self.world = LoneReplica()
        self.disk, self.syncs, self.compacted = RoomDouble(), 0, 0
        self.fs = SimpleNamespace(waiting=SimpleNamespace())
        self.storage = SimpleNamespace(
            journal=SimpleNamespace(bytes_on_disk=1, dirty=False, sync=self._sync),
            snapshots=SimpleNamespace(),
        )
        log: Any = self.world.log
        log.wait_for_disk = lambda waited_s: None
        log.compact = self._compact
        disk: Any = self.disk
        fs: Any = self.fs
        storage: Any = self.storage
        self.watch = DiskWatch(disk, fs, self.world.replica, storage)

    def _sync(self) -> None:
        self.syncs += 1

    def _compact(self) -> bool:
        self.compacted += 1
        return True


@pytest.fixture
def scene() -> DiskScene:
    return DiskScene()


def test_room_that_is_taken_is_known_at_once(scene) -> None:
    scene.disk.full, scene.disk.short, scene.disk.allowance = True, True, 7
    scene.fs.taken()
    room = scene.world.replica._room
    assert (room.disk_full, room.pending_bytes_max) == (True, 7)
    assert scene.storage.short


def test_a_low_disk_makes_the_log_short_and_a_full_one_syncs_what_nobody_writes(scene) -> None:
    scene.watch.look()
    assert (scene.compacted, scene.syncs) == (0, 0)
    scene.disk.low = scene.disk.full = True
    scene.watch.look()
    assert (scene.compacted, scene.syncs) == (1, 1)
    scene.storage.journal.dirty = True
    scene.watch.look()
    assert scene.syncs == 1


def test_a_full_disk_hands_leadership_over_once_in_ten_minutes(scene) -> None:
    scene.disk.full = True
    for _ in range(3):
        scene.watch.look()
    assert len(scene.world.log.transfers) == 1
    scene.world.clock.pass_by(601.0)
    scene.watch.look()
    assert len(scene.world.log.transfers) == 2
    scene.world.log.lead("n2")
    scene.world.clock.pass_by(601.0)
    scene.watch.look()
    assert len(scene.world.log.transfers) == 2, "it does not lead"


def test_a_snapshot_of_unknown_size_is_as_large_as_the_state(scene) -> None:
    fits = scene.storage.snapshots.fits
    scene.disk.free = scene.world.replica.machine.footprint
    assert fits(0)
    assert fits(scene.disk.free)
    assert not fits(scene.disk.free + 1)
    assert scene.disk.measured == 3

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
        self.allowance = 1000
        self.told: list[tuple[int, int]] = []
        self.taken_from = 0

    def look(self, state_bytes: int, log_bytes: int) -> bool:
        self.told.append((state_bytes, log_bytes))
        return self.low

    def taken(self) -> None:
        self.taken_from += 1


class DiskScene:
    def __init__(self) -> None:
        self.world = LoneReplica()
        self.disk, self.syncs, self.compacted = RoomDouble(), 0, 0
        self.journal = SimpleNamespace(bytes_on_disk=1, dirty=False, sync=self._sync)
        log: Any = self.world.log
        log.compact = self._compact
        disk: Any = self.disk
        journal: Any = self.journal
        self.watch = DiskWatch(disk, self.world.replica, journal)

    def _sync(self) -> None:
        self.syncs += 1

    def _compact(self) -> bool:
        self.compacted += 1
        return True


@pytest.fixture
def scene() -> DiskScene:
    return DiskScene()


def test_a_low_disk_makes_the_log_short_and_a_full_one_syncs_what_nobody_writes(scene) -> None:
    scene.watch.look()
    assert (scene.compacted, scene.syncs) == (0, 0)
    assert scene.disk.told == [(scene.world.replica.machine.footprint, 1)]
    scene.disk.low = scene.disk.full = True
    scene.watch.look()
    assert (scene.compacted, scene.syncs) == (1, 1)
    assert scene.disk.taken_from == 1, "what became free counts at once"
    scene.journal.dirty = True
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

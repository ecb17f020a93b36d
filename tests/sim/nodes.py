"""How a world makes its nodes and disks: the only module here that knows both."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raftckpt import limits
from raftckpt.raft import node, sending
from raftckpt.raft.engine import LogSeam
from raftckpt.raft.node import RaftConfig, RaftNode
from raftckpt.storage import DiskFailed, DiskFull, Storage
from tests.sim.disk import SimCrash, SimDisk, SimFileSystem
from tests.sim.process import DATA
from tests.sim.sabotage import NO_FSYNC

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World


class WatchedDisk(SimDisk):
    """Tells when a sync of the journal has returned; remembers which errors were ordered."""

    on_synced: Callable[[], None] | None = None
    errors_ordered = False

    def pass_point(self, fs: SimFileSystem, name: str) -> None:
        super().pass_point(fs, name)
        if name == "journal.sync.after" and self.on_synced is not None:
            self.on_synced()


class Tuning(NamedTuple):
    """Sizes of the sender, drawn small so that a few entries need many messages."""

    append_entries: int
    window_appends: int
    chunk_bytes: int
    apply_entries: int

    @classmethod
    def draw(cls, rng: random.Random) -> Tuning:
        return cls(
            rng.choice((1, 3, 512)),
            rng.choice((2, 256)),
            rng.choice((2048, 65_536)),
            rng.choice((2, 512)),
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put them in place of the constants, and the constants back."""
        places = (
            (sending, "APPEND_ENTRIES", self.append_entries),
            (sending, "WINDOW_APPENDS", self.window_appends),
            (sending, "SNAPSHOT_WINDOW_BYTES", 3 * self.chunk_bytes),
            (limits, "SNAPSHOT_CHUNK_BYTES", self.chunk_bytes),
            (node, "APPLY_ENTRIES", self.apply_entries),
        )
        former = [getattr(module, name) for module, name, _ in places]
        for module, name, drawn in places:
            setattr(module, name, drawn)
        try:
            yield
        finally:
            for (module, name, _), constant in zip(places, former, strict=True):
                setattr(module, name, constant)


class Clocks:
    """A process's clocks under the names the node uses."""

    def __init__(self, process: Process) -> None:
        self.monotonic = process.clock
        self._queue = process.world.queue

    def wall_ns(self) -> int:
        return int(self._queue.now * 1e9)


def make_disk(seed: int, name: str) -> WatchedDisk:
    return WatchedDisk(random.Random(f"{seed}/disk/{name}"))


def open_storage(world: World, process: Process) -> Storage:
    return Storage.open(
        process.disk.fs,
        DATA,
        "sim",
        process.name,
        new_ok=process.never_ran and not process.rejoin,
        rejoin=process.rejoin,
        fsync=world.sabotage != NO_FSYNC,
        segment_bytes=world.segment_bytes,
        journal_class=LogSeam,
    )


def build_node(
    world: World, process: Process, machine: Any, storage: Storage, rng: random.Random
) -> RaftNode:
    config = RaftConfig(
        process.name,
        sorted(world.processes),
        snapshot_entries=world.snapshot_entries,
        keep_entries=world.keep_entries,
    )
    return RaftNode(config, machine, storage, process.send, process.wake, Clocks(process), rng)


def crash_disk(disk: WatchedDisk, *, power: bool) -> None:
    if power:
        disk.power_loss()
    else:
        disk.kill()


def calm_disk(disk: WatchedDisk) -> None:
    """No fault is waiting any more."""
    disk.full = disk.fail_reads = disk.errors_ordered = False
    disk.fail_syncs = 0
    disk.crash_at()


def arm_crash(disk: WatchedDisk, rng: random.Random) -> None:
    """Kill the process at one of its next calls or at a crash point that it passes often."""
    points = sorted(disk.points)
    if points and rng.random() < 0.6:
        disk.crash_at(label=rng.choice(points), hit=rng.randint(1, 3))
    else:
        disk.crash_at(call=rng.randint(1, 30))


def arm_error(disk: WatchedDisk, rng: random.Random) -> None:
    """Let the disk fail under the process."""
    disk.errors_ordered = True
    kind = rng.choice(("sync", "sync", "full"))
    if kind == "sync":
        disk.fail_syncs = rng.randint(1, 3)
    else:
        disk.full = True


def disk_failed_on_purpose(process: Process, error: Exception) -> bool:
    return process.disk.errors_ordered and isinstance(error, (DiskFailed, DiskFull))


def describe(error: Exception) -> str:
    """An error with the innermost frames, for a report."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in reversed(frames))
    return f"{type(error).__name__}: {error} ({where})"


CRASH_TYPES: Final = (SimCrash,)

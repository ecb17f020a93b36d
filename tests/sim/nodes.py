"""How a world makes its nodes and disks: the only module here that knows both."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raftckpt import limits
from raftckpt.client import operations, parts
from raftckpt.node import comparisons
from raftckpt.protocol import contract
from raftckpt.raft import node, sending
from raftckpt.raft.configuration import ClusterMember, Configuration, encode_configuration
from raftckpt.raft.engine import open_log
from raftckpt.raft.node import RaftNode
from raftckpt.raft.settings import RaftConfig
from raftckpt.storage import DataDirectory, DiskFailed, DiskFull, Missing, Storage, StorageError
from raftckpt.storage.identity import checked_text
from tests.sim import crashpoints
from tests.sim.disk import SimCrash, SimDisk, SimFileSystem
from tests.sim.network import endpoint_of
from tests.sim.process import DATA
from tests.sim.sabotage import NO_FSYNC

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World


EPOCH_NS: Final = 1_700_000_000_000_000_000
"""What right wall clocks show when a world begins."""
INLINE_BYTES: Final = 1500
"""Larger writes are staged (small, so that simulated ones can be)."""


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
            (comparisons, "COMPARE_EVERY_S", 3.0),
            (operations, "_INLINE_MAX", INLINE_BYTES),
            (parts, "INLINE_WRITE_BYTES_MAX", INLINE_BYTES),
            (contract, "STAGE_CHUNK_BYTES", INLINE_BYTES // 2),
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
        self._process = process
        self._queue = process.world.queue

    def wall_ns(self) -> int:
        return EPOCH_NS + int((self._queue.now + self._process.wall_error_s) * 1e9)


def make_disk(seed: int, name: str) -> WatchedDisk:
    return WatchedDisk(random.Random(f"{seed}/disk/{name}"))


def open_directory(process: Process) -> DataDirectory:
    return DataDirectory.open(process.disk.fs, DATA, "sim", process.node_id, joins=process.joins)


def open_storage(world: World, process: Process) -> Storage:
    return open_log(
        process.directory,
        fsync=world.sabotage != NO_FSYNC,
        segment_bytes=world.segment_bytes,
    )


def raft_config(world: World, process: Process) -> RaftConfig:
    return RaftConfig(
        f"{process.name}:1",
        endpoint_of(process.name),
        process.levels,
        snapshot_entries=world.snapshot_entries,
        keep_entries=world.keep_entries,
    )


def build_node(
    world: World, process: Process, machine: Any, storage: Storage, rng: random.Random
) -> RaftNode:
    config = raft_config(world, process)
    return RaftNode(config, machine, storage, process.send, process.wake, Clocks(process), rng)


def found_at_once(processes: Sequence[Process], level: int) -> None:
    """Give new directories a complete founding of all of them, without a word on any link."""
    directories = [open_directory(process) for process in processes]
    members = tuple(
        sorted(
            ClusterMember(p.node_id, d.identity.directory, f"{p.name}:1", endpoint_of(p.name))
            for p, d in zip(processes, directories, strict=True)
        )
    )
    founding = "f" * 32
    record = encode_configuration(Configuration(founding, "sim", "", 0, level, False, members))
    for directory in directories:
        directory.note_complete(founding, record)
        directory.close()


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


def arm_crash(disk: WatchedDisk, rng: random.Random, points: Sequence[str]) -> None:
    """Kill the process at one of its next calls or at a crash point, a common or a rare one."""
    dice, common = rng.random(), sorted(disk.points)
    if dice < 0.6:
        disk.crash_at(label=rng.choice(points))
    elif dice < 0.8 and common:
        disk.crash_at(label=rng.choice(common), hit=rng.randint(1, 3))
    else:
        disk.crash_at(call=rng.randint(1, 30))


def arm_start_crash(disk: WatchedDisk, rng: random.Random) -> None:
    """Kill the process while it opens its data directory."""
    disk.crash_at(label=rng.choice(crashpoints.AT_START))


def arm_error(disk: WatchedDisk, rng: random.Random) -> None:
    """Let the disk fail under the process."""
    disk.errors_ordered = True
    kind = rng.choice(("sync", "sync", "full"))
    if kind == "sync":
        disk.fail_syncs = rng.randint(1, 3)
    else:
        disk.full = True


def flip_bits(process: Process, rng: random.Random) -> str:
    """Damage what a process that is down had synced; returns the path.

    Only what a start can tell from a torn write: the last group of the journal is told apart once
    the next one (or the idle node's confirmation) is on disk.
    """
    disk = process.disk
    newest = max((p for p in disk.files(f"{DATA}/journal") if p.endswith(".journal")), default="")
    places = []
    for path in disk.files(DATA):
        size = process.settled_bytes.get(path, 0) if path == newest else len(disk.content(path))
        if size and not path.endswith((".tmp", "/lock")):
            places.append((path, size))
    if not places:
        return ""
    path, size = rng.choice(places)
    for _ in range(rng.choice((1, 1, 3))):
        disk.flip_bit(path, rng.randrange(size), rng.randrange(8))
    return path


def refused_damage(process: Process, error: Exception) -> bool:
    return process.damaged and isinstance(error, StorageError)


def disk_failed_on_purpose(process: Process, error: Exception) -> bool:
    return process.disk.errors_ordered and isinstance(error, (DiskFailed, DiskFull))


def describe(error: Exception) -> str:
    """An error with the innermost frames, for a report."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in reversed(frames))
    return f"{type(error).__name__}: {error} ({where})"


CRASH_TYPES: Final = (SimCrash,)


def _peers_note(disk: WatchedDisk) -> dict[str, Any]:
    """The durable note of the peers met on a disk; empty if there is none."""
    try:
        return checked_text(disk.content(f"{DATA}/peers"))
    except (Missing, ValueError, KeyError):
        return {"starts": 0, "met": {}}


def starts_on(disk: WatchedDisk) -> int:
    """How often the directory on a disk was started."""
    starts: int = _peers_note(disk)["starts"]
    return starts


def met_start(disk: WatchedDisk, directory: str) -> int:
    """The latest start of ``directory`` that the one on ``disk`` has met."""
    met: int = _peers_note(disk)["met"].get(directory, ("", 0, ""))[1]
    return met

"""The state that a data directory holds: its snapshot, and the entries behind it applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raftckpt.model.machine import CheckpointMachine
from raftckpt.raft.configuration import (
    CONFIGURATION,
    REGULAR,
    Configuration,
    Configurations,
    decode_configuration,
)
from raftckpt.storage import Damaged, HeldDirectory, StorageError, Unsupported
from raftckpt.version import HIGHEST_LEVEL, LOWEST_LEVEL

__all__ = ["Point", "Replayed", "configuration_of", "replayed"]


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a history.

    Attributes:
        index: of the last entry before it.
        revision: of the state.
        time_ns: cluster time of the state.
    """

    index: int
    revision: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of it.

    Attributes:
        machine: the state behind the last entry.
        committed: the state behind the last entry known to be committed.
        last: the state behind the last entry.
        undecodable: entries that are no batch, which do nothing: (index, what is wrong).
    """

    machine: CheckpointMachine
    committed: Point
    last: Point
    undecodable: list[tuple[int, str]]


def configuration_of(held: HeldDirectory) -> Configuration | None:
    """The configuration in force: the last one in the log, committed or not.

    Raises:
        Damaged: what should be a configuration is none.
    """
    try:
        if held.journal is None:
            record = held.identity.record
            return decode_configuration(record) if record else None
        placed = held.snapshot.configuration if held.snapshot is not None else b""
        if not placed and not held.entries:
            return decode_configuration(held.identity.record)
        return Configurations(placed, held.entries).now.configuration
    except ValueError as error:
        raise _damaged(held, f"a configuration in its log is none: {error}") from error


def replayed(
    held: HeldDirectory, progress: Callable[[int], object] = lambda size: None
) -> Replayed:
    """Build the state.

    Arguments:
        held: the directory.
        progress: called with the bytes of entries done.

    Raises:
        Damaged: the image, or a configuration, cannot be read.
        Unsupported: the log is of a level that this version cannot.
    """
    configuration = configuration_of(held)
    if configuration is not None and not LOWEST_LEVEL <= configuration.level <= HIGHEST_LEVEL:
        raise Unsupported(
            f"reading the data directory {held.path} failed",
            f"its log is of level {configuration.level}; this version can levels {LOWEST_LEVEL} "
            f"to {HIGHEST_LEVEL}",
            "use the version of raftckpt that wrote it, or a later one",
        )
    machine = CheckpointMachine()
    if held.snapshot is not None:
        try:
            machine = CheckpointMachine.restore(held.image())
            placed = held.snapshot.configuration
            if placed:
                machine.level = Configurations(placed, []).now.configuration.level
        except ValueError as error:
            raise _damaged(held, f"the image of its snapshot: {error}") from error
    undecodable: list[tuple[int, str]] = []
    machine.undecodable = lambda index, why: undecodable.append((index, why))
    committed: Point | None = None
    index = held.snapshot.index if held.snapshot is not None else 0
    done = 0
    for payload, index, _ in held.entries:
        done += len(payload)
        progress(done)
        if committed is None and index > held.commit_index:
            committed = Point(index - 1, machine.revision, machine.now_ns)
        if payload[:1] == CONFIGURATION:  # what its entries mean may depend on it
            machine.level = decode_configuration(payload[1:]).level
        if payload[:1] == REGULAR:
            machine.apply(index, payload[1:])
            machine.changes = []
    last = Point(index, machine.revision, machine.now_ns)
    return Replayed(machine, committed or last, last, undecodable)


def _damaged(held: HeldDirectory, why: str) -> StorageError:
    return Damaged(
        f"reading the data directory {held.path} failed",
        why,
        "move it away and start with `raftckpt serve --rejoin` if the other replicas hold the "
        "data; else keep it and look at the directories of the others",
    )

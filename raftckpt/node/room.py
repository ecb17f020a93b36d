"""How much more the state may take on: what a leader admits, before anything is in the log.

Memory has an end, and a majority that reaches it would end with it, and again after every restart.
The limit of the state decides in ``apply`` (``model.bounds``). Until it is set, and on a leader
that has less memory than it says, it estimates what a command adds, holes in sections included, and
refuses data that has no room. Reads, deletes, closes and expiry go on. What a replica has is
its own business, so nothing of it may decide in ``apply``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from raftckpt import limits
from raftckpt.model.checkpoints import CHECKPOINT_BYTES, SECTION_BYTES
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.sessions import HANDLE_BYTES
from raftckpt.node.diskroom import DiskRoom
from raftckpt.protocol import operations as ops
from raftckpt.protocol.contract import SECTION_BYTES_MAX
from raftckpt.protocol.kinds import CREATE, PartKind

__all__ = ["REACHING", "Room"]

REACHING: Final = frozenset((ops.CheckpointWrite, ops.SectionChange, ops.CheckpointTransaction))
"""Commands that may add far more than their own bytes: they write behind the end of a section."""
_RESERVE_SHARE: Final = 8
"""One part of so many, on top, is for sessions and handles: who is to delete must get in."""


_BESIDE_BYTES: Final = CHECKPOINT_BYTES + HANDLE_BYTES + 2048
"""Most that a command adds beside its own bytes, if it is none of ``REACHING``: a checkpoint, its
handle, and a result that is kept."""


class Room:
    """What is left of the memory for data.

    Arguments:
        most: bytes; None: as many as there are.
        disk: where all of it is written; None: one that has room.
    """

    def __init__(self, most: int | None, disk: DiskRoom | None = None) -> None:
        self.most = most
        self._disk = disk
        self.marks: dict[int, int] = {}
        """id(command) -> what it adds beyond its own bytes, of those on their way."""
        self.reached = 0
        """The sum of them."""

    @property
    def disk_full(self) -> bool:
        """Whether no more is to be written than what makes room."""
        return self._disk is not None and self._disk.full

    @property
    def pending_bytes_max(self) -> int:
        """Of commands on their way to the disk."""
        return limits.PENDING_BYTES_MAX if self._disk is None else self._disk.allowance

    def decides(self, machine: CheckpointMachine) -> bool:
        """Whether this replica has less memory than the limit of the state, which decides else."""
        return self.most is not None and self.most < machine.bounds.memory

    def promised(self, machine: CheckpointMachine, pending_bytes: int, pending: int) -> int:
        """Upper bound of the memory used when all that is on its way has been applied."""
        return machine.used + self.reached + pending_bytes + pending * _BESIDE_BYTES

    def left(self, machine: CheckpointMachine) -> float:
        """Bytes that may be added to what is applied."""
        if self.disk_full:
            return 0.0
        if self.most is None:
            return float("inf")
        return self.most - machine.used - self.reached

    def crowded(self, machine: CheckpointMachine) -> bool:
        """Whether even sessions and handles have no room."""
        if self.most is None or self.disk_full:
            return False
        return -self.left(machine) > self.most // _RESERVE_SHARE

    def growth(self, machine: CheckpointMachine, session: int, command: Any) -> int:
        """Upper bound of what a command adds to the state."""
        estimate = _GROWTH.get(type(command))
        return 0 if estimate is None else estimate(machine, session, command)

    def writes(self, machine: CheckpointMachine, session: int, command: Any) -> bool:
        """Whether a command brings data: also what only replaces some is written to the log."""
        kind = type(command)
        if kind is ops.CheckpointOpen:
            return self.growth(machine, session, command) > 0
        if kind is ops.SectionChange:
            return bool(command.part[0] != PartKind.DELETE)
        if kind is ops.CheckpointTransaction:
            return any(part[0] != PartKind.DELETE for part in command.parts)
        return kind in _GROWTH

    def mark(self, command: Any, beyond: int) -> None:
        """Note what a command on its way adds beyond its own bytes."""
        self.marks[id(command)] = beyond
        self.reached += beyond

    def landed(self, commands: Iterable[object]) -> None:
        """These are no longer on their way."""
        for command in commands:
            self.reached -= self.marks.pop(id(command), 0)


def _length(machine: CheckpointMachine, session: int, handle: int, section_id: Any) -> int:
    """Bytes of a section as it is now; 0 if there is none."""
    record = machine.sessions.get(session)
    opened = None if record is None else record.handles.get(handle)
    section = None if opened is None else opened[0].sections.get(section_id)
    return 0 if section is None else len(section[0])


def _reach(machine: CheckpointMachine, session: int, handle: int, section_id: Any, end: int) -> int:
    """What a write that ends at ``end`` adds; nothing if it will be refused for its end."""
    record = machine.sessions.get(session)
    opened = None if record is None else record.handles.get(handle)
    if opened is None:  # unless an open on its way gives this handle to it
        opens = record is not None and handle >= record.next_handle
        return end if opens and end <= SECTION_BYTES_MAX else 0
    if end > opened[0].section_limit:
        return 0
    return max(0, end - _length(machine, session, handle, section_id))


def _size(data: Any) -> int:
    """Bytes that are new: those of a stage are counted already."""
    return 0 if type(data) is int else len(data)


def _replaced(machine: CheckpointMachine, session: int, command: Any) -> int:
    size = _size(command.data)
    length = _length(machine, session, command.handle, command.section_id)
    return size - length if length else size + SECTION_BYTES


def _vector(machine: CheckpointMachine, session: int, command: Any) -> int:
    return sum(
        _reach(machine, session, command.handle, section_id, offset + _size(data))
        for section_id, offset, data in command.vector
    )


def _part(machine: CheckpointMachine, session: int, handle: int, part: Any) -> int:
    kind, section_id, offset, data = part[:4]
    if kind == PartKind.DELETE:
        return 0
    if kind == PartKind.WRITE:
        return _reach(machine, session, handle, section_id, offset + _size(data))
    return _size(data) + SECTION_BYTES


def _opened(machine: CheckpointMachine, session: int, command: Any) -> int:
    new = command.flags & CREATE and command.name not in machine.names
    return CHECKPOINT_BYTES if new else 0


_GROWTH: Final[dict[type[Any], Callable[[CheckpointMachine, int, Any], int]]] = {
    ops.CheckpointOpen: _opened,
    ops.SectionCreate: lambda machine, session, c: _size(c.data) + SECTION_BYTES,
    ops.SectionPut: _replaced,
    ops.SectionOverwrite: _replaced,
    ops.StageChunk: lambda machine, session, c: len(c.data),
    ops.CheckpointWrite: _vector,
    ops.SectionChange: lambda machine, session, c: _part(machine, session, c.handle, c.part),
    ops.CheckpointTransaction: lambda machine, session, c: sum(
        _part(machine, session, c.handle, part) for part in c.parts
    ),
}
"""Of those that add anything."""

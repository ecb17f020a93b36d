"""Early acceptance of writes on asynchronous checkpoints.

The leader may answer before commit only what it can keep: the machine would accept the write now,
and nothing on its way to the log touches the structure of that checkpoint (creates, deletes,
expires, unlinks, makes active), so that the machine will accept it then, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from raftckpt.errors import SaAisError
from raftckpt.model.machine import CheckpointMachine
from raftckpt.node.liveness import Requester, SessionState
from raftckpt.protocol import contract
from raftckpt.protocol.operations import SectionPut

__all__ = ["CREATING_BYTES_MIN", "EarlyAcceptance"]

_ANY: Final = 0
"""In place of a uid: a structural command that may touch every checkpoint."""
_OK: Final = int(SaAisError.OK)
CREATING_BYTES_MIN: Final = 60
"""Least cost of what creates a section, in any checkpoint: so many sections at most are on their
way as this goes into the bytes that are."""


class EarlyAcceptance:
    """Knows the structural commands on their way (proposed or queued, not applied)."""

    def __init__(self) -> None:
        self.marks: dict[int, int] = {}
        """id(command) -> uid it changes; negative: it may create a section there."""
        self._structural: dict[int, int] = {}  # uid -> commands that change its structure
        self._creating: dict[int, int] = {}  # -uid -> puts that may create a section

    def consider(
        self,
        machine: CheckpointMachine,
        owner: Requester,
        state: SessionState,
        request: int,
        command: Any,
        new: bool,
        arriving: int = 0,
    ) -> bool:
        """Accept a command of ``operations.EARLY`` if it may be, and note what it may create.

        A repeat (not ``new``) is accepted only by its reply, but the first attempt may have been
        refused without using its number up: then this is the one that creates the section.
        One for which there may be no memory when its turn comes is given as a repeat, too. Nothing
        is accepted for which a quota of the checkpoint or of its space may have no room behind
        ``arriving``: bytes on their way, its own and all staged ones included.
        """
        uid = state.asynchronous.get(command.handle)
        if uid is None:
            uid = _asynchronous_uid(machine, state, command.handle)
            if uid is None:  # it will mean the checkpoint of an open on its way, whichever that is
                if type(command) is SectionPut:
                    self._mark(self._structural, command, _ANY)
                return False
        if not uid:
            return False
        creates, fits = True, False
        if new and uid not in self._structural and _ANY not in self._structural:
            code, early = machine.check(command)
            if code == _OK:
                creates = early.structural
                fits = arriving <= early.left
                if creates and fits:
                    fits = arriving // CREATING_BYTES_MIN <= early.sections_left
                    fits = fits and self._has_room(machine, uid)
                if fits:
                    owner.accepted(request)
        if creates and type(command) is SectionPut:
            self._mark(self._creating, command, -uid)
        return fits

    def asynchronous(self, machine: CheckpointMachine, state: SessionState, handle: int) -> bool:
        """Whether writes through a handle that is open may be accepted early."""
        uid = state.asynchronous.get(handle)
        return bool(_asynchronous_uid(machine, state, handle) if uid is None else uid)

    def _has_room(self, machine: CheckpointMachine, uid: int) -> bool:
        """Whether one more section fits even if every put on its way creates one."""
        checkpoint = machine.checkpoints[uid]
        to_come = self._creating.get(-uid, 0)
        return len(checkpoint.sections) + to_come < checkpoint.attributes.max_sections

    def structural(self, machine: CheckpointMachine, command: Any) -> None:
        """Note a command of ``operations.STRUCTURAL``."""
        self._mark(self._structural, command, machine.target_uid(command) or _ANY)

    def _mark(self, counts: dict[int, int], command: Any, key: int) -> None:
        self.marks[id(command)] = key
        counts[key] = counts.get(key, 0) + 1

    def landed(self, commands: Iterable[object]) -> None:
        """These are no longer on their way."""
        for command in commands:
            key = self.marks.pop(id(command), None)
            if key is not None:
                counts = self._creating if key < 0 else self._structural
                left = counts[key] - 1
                if left:
                    counts[key] = left
                else:
                    del counts[key]


def _asynchronous_uid(machine: CheckpointMachine, state: SessionState, handle: int) -> int | None:
    """Uid of the checkpoint behind a handle if its writes may be accepted early, else 0.

    None: the handle is not open yet, and the command may find it open when its turn comes. Only
    what an open handle means is remembered: it stays so until the handle is closed for good.
    """
    record = machine.sessions.get(state.id)
    if record is None:
        return 0
    opened = record.handles.get(handle)
    if opened is None:
        return None if handle >= record.next_handle else 0
    if len(state.asynchronous) >= contract.HANDLES_PER_SESSION_MAX:
        state.asynchronous.clear()  # those closed meanwhile
    checkpoint = opened[0]
    uid = state.asynchronous[handle] = checkpoint.uid if checkpoint.attributes.asynchronous else 0
    return uid

"""Early acceptance of writes on asynchronous checkpoints.

The leader may answer before commit only what it can keep: the machine would accept the write now,
and nothing on its way to the log touches the structure of that checkpoint (creates, deletes,
expires, unlinks, makes active), so that the machine will accept it then, too.
"""

from __future__ import annotations

from typing import Any, Final

from raftckpt.errors import SaAisError
from raftckpt.model.commands import Tag
from raftckpt.model.machine import STRUCTURAL_TAGS, CheckpointMachine
from raftckpt.node.liveness import Requester, SessionState

__all__ = ["EARLY_TAGS", "EarlyAcceptance"]

EARLY_TAGS: Final = frozenset(
    (int(Tag.SECTION_OVERWRITE), int(Tag.SECTION_PUT), int(Tag.CHECKPOINT_WRITE))
)
"""Commands that may be accepted early."""
_STRUCTURAL: Final = frozenset(int(tag) for tag in STRUCTURAL_TAGS)
_ANY: Final = 0
"""In place of a uid: a structural command that may touch every checkpoint."""
_OK: Final = int(SaAisError.OK)


class EarlyAcceptance:
    """Knows the structural commands on their way (proposed or queued, not applied)."""

    structural_tags: Final = _STRUCTURAL

    def __init__(self) -> None:
        self.marks: dict[int, int] = {}
        """id(command) -> uid whose structure it touches; the command lives until it has landed."""
        self._counts: dict[int, int] = {}

    def consider(
        self,
        machine: CheckpointMachine,
        owner: Requester,
        state: SessionState,
        request: int,
        command: list[Any],
    ) -> None:
        """Accept a new write of ``EARLY_TAGS`` early if it may be."""
        handle = command[4]
        uid = state.asynchronous.get(handle)
        if uid is None:
            uid = state.asynchronous[handle] = _asynchronous_uid(machine, state.id, handle)
        if not uid:
            return
        creates = True
        if uid not in self._counts and _ANY not in self._counts:
            code, early = machine.check(command)
            if code == _OK:
                owner.accepted(request)
                creates = early.structural
        if creates and command[0] == Tag.SECTION_PUT:
            # it may create: until it is applied nobody knows how many sections there are
            self._mark(command, uid)

    def structural(self, machine: CheckpointMachine, command: list[Any]) -> None:
        """Note a command of ``structural_tags``."""
        self._mark(command, machine.target_uid(command) or _ANY)

    def _mark(self, command: list[Any], uid: int) -> None:
        self.marks[id(command)] = uid
        self._counts[uid] = self._counts.get(uid, 0) + 1

    def landed(self, commands: list[list[Any]]) -> None:
        """These are no longer on their way."""
        for command in commands:
            uid = self.marks.pop(id(command), None)
            if uid is not None:
                left = self._counts[uid] - 1
                if left:
                    self._counts[uid] = left
                else:
                    del self._counts[uid]


def _asynchronous_uid(machine: CheckpointMachine, session: int, handle: int) -> int:
    """Uid of the checkpoint behind a handle if its writes may be accepted early, else 0."""
    record = machine.sessions.get(session)
    opened = record.handles.get(handle) if record is not None else None
    return opened[0].uid if opened is not None and opened[0].attributes.asynchronous else 0

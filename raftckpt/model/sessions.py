"""A session with the cluster: who the client is, its handles, reply table and staged data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raftckpt.errors import SaAisError
from raftckpt.model.access import NOBODY, READING, WRITING
from raftckpt.model.checkpoints import (
    FENCED,
    NO_READ,
    NO_WRITE,
    READ,
    WANTED,
    WRITE,
    Checkpoint,
)
from raftckpt.model.replies import ReplyTable
from raftckpt.model.types import Result, refuse
from raftckpt.model.values import PageBuilder, Value
from raftckpt.protocol.contract import (
    STAGED_BYTES_PER_SESSION_MAX,
    STAGES_PER_SESSION_MAX,
    WRITE_BYTES_MAX,
)

__all__ = ["HANDLE", "HANDLE_BYTES", "NO_SESSION", "SESSION_BYTES", "STAGE", "Session"]

SESSION_BYTES: Final = 2048
"""Rough memory of a session, in the model and where its leader watches it."""
HANDLE_BYTES: Final = 384
"""Rough memory of a handle, with its place among the openers of the checkpoint."""

HANDLE: Final = refuse(SaAisError.ERR_BAD_HANDLE, "handle")
NO_SESSION: Final = refuse(SaAisError.ERR_BAD_HANDLE, "session")
STAGE: Final = refuse(SaAisError.ERR_INVALID_PARAM, "stage")


class Session:
    """State of one session.

    Attributes:
        id: number given by the cluster, never used again.
        secret: 16 random bytes of the client; they prove that it owns the session.
        name: what the client calls itself.
        node: the client's node (placement of collocated checkpoints).
        timeout_ns: silence after which the leader ends the session.
        grace_ns: time it may go on without a connection that the client's side closed.
        replies: the reply table.
        principal: number of whom it belongs to; NOBODY: rights were off when it was opened.
        handles: handle -> (checkpoint, flags); handles are never used again. Flags are what may be
            done now; above ``WANTED`` bits those with which it was opened.
        next_handle: the handle the next open returns.
        stages: stage number -> chunks that arrived so far.
        staged_bytes: bytes in all stages.
        members: numbers of its components in service groups.
        fences: components of it that failed and have not answered that they know; while there
            are any, ``WRITE`` in the flags of its handles is replaced by ``FENCED``.
    """

    __slots__ = (
        "fences",
        "grace_ns",
        "handles",
        "id",
        "members",
        "name",
        "next_handle",
        "node",
        "principal",
        "replies",
        "secret",
        "staged_bytes",
        "stages",
        "timeout_ns",
    )

    def __init__(
        self, number: int, secret: bytes, name: str, node: str, timeout_ns: int, grace_ns: int
    ) -> None:
        self.id = number
        self.secret = secret
        self.name = name
        self.node = node
        self.timeout_ns = timeout_ns
        self.grace_ns = grace_ns
        self.principal = NOBODY
        self.replies = ReplyTable()
        self.handles: dict[int, tuple[Checkpoint, int]] = {}
        self.next_handle = 1
        self.stages: dict[int, PageBuilder] = {}
        self.staged_bytes = 0
        self.members: set[int] = set()
        self.fences = 0

    def fence(self) -> None:
        """Refuse its changes until :meth:`unfence`, as often as this was called."""
        self.fences += 1
        if self.fences == 1:
            self._flip(WRITE)

    def unfence(self) -> None:
        """Take one call of :meth:`fence` back."""
        self.fences -= 1
        if not self.fences:
            self._flip(FENCED)

    def _flip(self, flag: int) -> None:
        for handle, (checkpoint, flags) in self.handles.items():
            if flags & flag:
                self.handles[handle] = (checkpoint, flags ^ (WRITE | FENCED))

    def flags_for(self, wanted: int, rights: int) -> int:
        """Return the flags of a handle opened with ``wanted`` under these rights."""
        flags = wanted & ~(READ | WRITE)
        if not rights & READING:
            flags |= NO_READ
        elif wanted & READ:
            flags |= READ
        if not rights & WRITING:
            flags |= NO_WRITE
        elif wanted & WRITE:
            flags |= FENCED if self.fences else WRITE
        return flags | wanted << WANTED

    def cut(self, rights: Callable[[str], int]) -> None:
        """Bring its handles in line with the rights of its principal on the names."""
        for handle, (checkpoint, flags) in self.handles.items():
            granted = self.flags_for(flags >> WANTED, rights(checkpoint.name))
            if granted != flags:
                self.handles[handle] = (checkpoint, granted)

    @property
    def last_sequence(self) -> int:
        """Highest sequence that was applied."""
        return self.replies.last

    @property
    def answered(self) -> int:
        """Highest sequence up to which the client has seen every reply."""
        return self.replies.answered

    def stage_chunk(
        self, number: int, offset: int, data: bytes, staged_elsewhere: int, staged_max: int
    ) -> Result | None:
        """Append a chunk to a stage; None if it was taken.

        A refused chunk drops its stage: otherwise the command that refers to it would apply a
        value with its end or middle missing.

        Arguments:
            number: of the stage; offset 0 starts it.
            offset: must be the bytes staged so far.
            data: the chunk.
            staged_elsewhere: bytes staged by the other sessions.
            staged_max: bytes that all of them may stage.
        """
        stage = self.stages.get(number)
        if offset != (0 if stage is None else stage.size):
            refusal = STAGE
        elif offset + len(data) > WRITE_BYTES_MAX:
            refusal = refuse(SaAisError.ERR_NO_RESOURCES, "write_too_big", WRITE_BYTES_MAX)
        elif (
            self.staged_bytes + len(data) > STAGED_BYTES_PER_SESSION_MAX
            or staged_elsewhere + self.staged_bytes + len(data) > staged_max
        ):
            refusal = refuse(SaAisError.ERR_NO_RESOURCES, "limit", "staged bytes")
        elif stage is None and len(self.stages) >= STAGES_PER_SESSION_MAX:
            refusal = refuse(SaAisError.ERR_NO_RESOURCES, "limit", "stages")
        else:
            if stage is None:
                stage = self.stages[number] = PageBuilder()
            stage.append(data)
            self.staged_bytes += len(data)
            return None
        self.take_stage(number)
        return refusal

    def take_stage(self, number: int) -> Value | None:
        """Remove a stage and return its value; None if there is no such stage."""
        stage = self.stages.pop(number, None)
        if stage is None:
            return None
        self.staged_bytes -= stage.size
        return stage.value()

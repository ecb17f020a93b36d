"""The record of one call on its way: what to send, until when, what became of it.

A call is built by :mod:`raftckpt.client.operations`, driven by :class:`~raftckpt.client.core.
ClientCore` and waited for by a face. Only the core changes its state.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Any

from raftckpt.errors import CheckpointError
from raftckpt.protocol import contract
from raftckpt.protocol.operations import Query
from raftckpt.protocol.replies import CONSISTENCY_LOCAL

__all__ = ["Call", "Internal", "Needs", "Stage"]


class Needs(Enum):
    """What a call needs before it can be sent."""

    COMMAND = 1
    """A sequence number of the session: it changes the state."""
    ATTACHED = 2
    """A connection to the leader that the session is attached to (queries by handle)."""
    LEADER = 3
    """A connection to the leader."""
    LEADER_ONCE = 4
    """The same, but it is not repeated after a connection was lost (leadership transfer)."""
    ANY = 5
    """A connection to any replica."""
    BARRIER = 6
    """Nothing to send: it is done when every earlier accepted command is settled."""
    INTERNAL = 7
    """The core's own: hello, attach, keepalive."""


class Stage:
    """Large data on its way as chunks.

    Attributes:
        data: the bytes.
        offset: how many were sent.
        number: number of the stage, 0 before its first chunk was sent.
        tell: puts the stage's number into the final command.
    """

    __slots__ = ("data", "number", "offset", "tell")

    def __init__(self, data: bytes, tell: Callable[[int], None]) -> None:
        self.data = memoryview(data)
        self.offset = 0
        self.number = 0
        self.tell = tell


class Call:
    """One call of a user (or of the core itself).

    Arguments:
        name: name of the operation, for error messages.
        needs: when it can be sent.
        message: what to send; its leading fields are filled in when it is sent. None: nothing, it
            is done as soon as what it needs is there.
        subject: name of the checkpoint, for error messages.
        handle: handle it belongs to, for refusals found late (0: none).
        decode: turns the reply's value into what the user gets.
        bytes_: estimate of the encoded size.
        stages: large data to be staged first.
        by_name: the same query with the name of the checkpoint instead of a handle; used for local
            reads while no leader is known.
        written: a barrier that returns the revision of what was written since the last one.

    Attributes:
        done: whether the outcome is known (``value`` or ``error``).
        accepted: the replica took an asynchronous write; its final reply is outstanding.
        uncertain: a copy of it may have been executed, or may still be.
        plugged: a copy that only consumes its number was sent.
        unordered: a query that need not see the session's own accepted writes.
        wire_id: id of the copy in flight on the current connection, 0 if there is none.
        waiter: whatever the face waits on; the core does not touch it.
    """

    __slots__ = (
        "accepted",
        "by_name",
        "bytes_",
        "deadline",
        "decode",
        "done",
        "error",
        "handle",
        "message",
        "name",
        "needs",
        "parent",
        "plugged",
        "refusal",
        "sequence",
        "stages",
        "started",
        "subject",
        "uncertain",
        "unordered",
        "value",
        "waiter",
        "wire_id",
        "written",
    )

    def __init__(
        self,
        name: str,
        needs: Needs,
        message: Any,
        *,
        subject: str = "",
        handle: int = 0,
        decode: Callable[[Any], Any] | None = None,
        bytes_: int = 64,
        stages: list[Stage] | None = None,
        by_name: Any = None,
        written: bool = False,
        parent: Call | None = None,
    ) -> None:
        self.name = name
        self.needs = needs
        self.message = message
        self.subject = subject
        self.handle = handle
        self.decode = decode
        self.bytes_ = bytes_
        self.stages = stages
        self.by_name = by_name
        self.written = written
        self.parent = parent
        self.sequence = 0
        self.wire_id = 0
        self.deadline = inf
        self.started = 0.0
        self.done = False
        self.accepted = False
        self.plugged = False
        self.unordered = False
        self.uncertain = False
        self.refusal: tuple[str, Any] | None = None
        self.value: Any = None
        self.error: CheckpointError | None = None
        self.waiter: Any = None

    def __str__(self) -> str:
        return self.what

    @property
    def what(self) -> str:
        """The call in words: what failed, in an error message."""
        return f"{self.name} on checkpoint {self.subject!r}" if self.subject else self.name

    @property
    def local(self) -> bool:
        """Whether it is a query that any replica may answer from what it has applied."""
        message = self.message
        return isinstance(message, Query) and message.consistency == CONSISTENCY_LOCAL

    @property
    def abandoned(self) -> bool:
        """Nobody waits for its effect any more and nobody was promised it."""
        parent = self.parent
        if parent is not None:
            return parent.done and not parent.accepted
        return self.done and not self.accepted

    @property
    def staged_bytes(self) -> int:
        """Bytes that travel as chunks."""
        return sum(len(stage.data) for stage in self.stages or ())

    def next_chunk(self) -> tuple[Stage, memoryview] | None:
        """Return the next chunk to send, None after the last."""
        for stage in self.stages or ():
            if stage.offset < len(stage.data):
                end = stage.offset + contract.STAGE_CHUNK_BYTES
                return stage, stage.data[stage.offset : end]
        return None


class Internal(Call):
    """A message of the core's own, with what to do about its reply."""

    __slots__ = ("on_refused", "on_reply")

    def __init__(
        self,
        name: str,
        message: Any,
        on_reply: Callable[[Any], None],
        on_refused: Callable[[int, str, Any], None],
    ) -> None:
        super().__init__(name, Needs.INTERNAL, message)
        self.on_reply = on_reply
        self.on_refused = on_refused

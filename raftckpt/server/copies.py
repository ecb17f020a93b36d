"""Whole states on their way to clients, piece by piece (``snapshot save``).

A state is frozen when a client begins, and encoded as he asks for the pieces: he who reads slowly
costs no buffers, only the past state. Under load each piece is followed by a pause in which the
replica has its other work done; without it they follow each other as fast as the client reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from raftckpt import limits
from raftckpt.errors import SaAisError
from raftckpt.model.types import Result, success
from raftckpt.node.clock import Clock
from raftckpt.node.replica import Replica
from raftckpt.protocol import operations as ops
from raftckpt.version import IMAGE_VERSION

__all__ = ["Copies", "CopyReader"]

PAUSE: Final = 9.0
"""How many times as long as a piece took the next one waits, while entries are applied."""

FREEZE_PAUSE: Final = 19.0
"""How many times as long as freezing a state took nobody else may have one frozen: whoever begins
and goes away in a loop must not take the replica's time."""

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_NOT_EXIST: Final = int(SaAisError.ERR_NOT_EXIST)
_NO_RESOURCES: Final = int(SaAisError.ERR_NO_RESOURCES)


class CopyReader(Protocol):
    """A connection as it is seen here."""

    def deliver(self, request: int, result: Result) -> None:
        """Reply with a value that may be large."""

    def refuse(
        self, request: int, code: int, reason: str, detail: object = None, *, definite: bool = True
    ) -> None:
        """Reply that nothing was done."""


class _Copy:
    """A frozen state that a client reads."""

    __slots__ = (
        "asked",
        "begun_at",
        "index",
        "number",
        "owner",
        "pieces",
        "resume_at",
        "revision",
        "upcoming",
        "used_at",
    )

    def __init__(
        self, owner: CopyReader, pieces: Iterator[bytes], revision: int, now: float
    ) -> None:
        self.owner = owner
        self.revision = revision
        self.begun_at = now
        self.pieces = pieces
        self.upcoming = next(pieces)
        self.number = 0
        self.asked: deque[int] = deque()
        self.index = -1
        self.resume_at = self.used_at = now


class Copies:
    """All copies that are being read from a replica.

    Arguments:
        replica: whose state it is.
        clock: monotonic time.
        later: calls something after so many seconds.
    """

    def __init__(
        self, replica: Replica, clock: Clock, later: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self._replica = replica
        self._now = clock.monotonic
        self._later = later
        self._copies: dict[int, _Copy] = {}
        self._last = 0
        self._freeze_after = 0.0
        self._read_at: float | None = None
        self._read_revision = 0

    def newest(self) -> tuple[int, int] | None:
        """(age in seconds, revision) of the last one that was read to its end; None: none yet."""
        if self._read_at is None:
            return None
        return int(self._now() - self._read_at), self._read_revision

    def begin(self, owner: CopyReader, message: ops.SnapshotBegin) -> None:
        """Freeze the state."""
        machine = self._replica.machine
        begun = self._now()
        if len(self._copies) >= limits.COPIES_MAX:
            self._let_go(limits.COPY_YIELDS_SECONDS)
        if machine.revision < message.at_least:
            owner.refuse(message.request, _TRY_AGAIN, "behind", machine.revision)
        elif len(self._copies) >= limits.COPIES_MAX or begun < self._freeze_after:
            owner.refuse(message.request, _TRY_AGAIN, "busy")
        else:
            self._last += 1
            pieces = machine.freeze(secrets=False)
            self._copies[self._last] = _Copy(owner, pieces, machine.revision, begun)
            now = self._now()
            self._freeze_after = now + (now - begun) * FREEZE_PAUSE
            configuration = self._replica.log.status().configuration
            told = [
                self._last,
                configuration.cluster,
                configuration.founding,
                machine.revision,
                configuration.level,
                machine.now_ns,
                self._replica.node,
                machine.applied_index,
                IMAGE_VERSION,
            ]
            owner.deliver(message.request, success(told))

    def piece(self, owner: CopyReader, message: ops.SnapshotPiece) -> None:
        """Encode the next piece, now or when the replica had time for other things."""
        copy = self._copies.get(message.copy)
        if (
            copy is None
            or copy.owner is not owner
            or message.number != copy.number + len(copy.asked)
        ):
            owner.refuse(message.request, _NOT_EXIST, "copy", message.copy)
            return
        if len(copy.asked) >= limits.COPY_PIECES_ASKED_MAX:
            owner.refuse(message.request, _NO_RESOURCES, "limit", "pieces of a copy")
            return
        copy.asked.append(message.request)
        if len(copy.asked) == 1:
            self._go_on(message.copy)

    def _go_on(self, number: int) -> None:
        copy = self._copies.get(number)
        if copy is None or not copy.asked:
            return
        begun = self._now()
        if begun < copy.resume_at:
            self._later(copy.resume_at - begun, lambda: self._go_on(number))
            return
        piece = copy.upcoming
        copy.upcoming = next(copy.pieces, b"")
        last = not copy.upcoming
        copy.number += 1
        copy.owner.deliver(copy.asked.popleft(), success([last, piece]))
        copy.used_at = now = self._now()
        applied = self._replica.machine.applied_index
        copy.resume_at = now if applied == copy.index else now + (now - begun) * PAUSE
        copy.index = applied
        if last:
            del self._copies[number]
            self._read_at, self._read_revision = copy.begun_at, copy.revision
        elif copy.asked:
            self._later(max(0.0, copy.resume_at - now), lambda: self._go_on(number))

    def dropped(self, owner: object) -> None:
        """A connection is gone, and with it what it was reading."""
        if self._copies:
            self._copies = {n: copy for n, copy in self._copies.items() if copy.owner is not owner}

    def tick(self) -> None:
        """Let go what nobody reads any more."""
        if self._copies:
            self._let_go(limits.COPY_IDLE_SECONDS_MAX)

    def _let_go(self, idle_s: float) -> None:
        oldest = self._now() - idle_s
        self._copies = {
            n: copy for n, copy in self._copies.items() if copy.asked or copy.used_at > oldest
        }

"""What a client is sent, without the socket: replies go in, frames come out.

Replies that are small are *gathered* and leave at the next flush, in one frame. What is large, or
more than a frame, is *queued*: a frame of it leaves per turn of the loop, as long as the client
reads. Changes for trackers are pulled when nothing is queued. Who writes the frames, and when a
turn is, others decide.

Invariants: every request that is owed a reply gets exactly one final reply, or the outbox is
closed; at most one fragmented reply is under way; a client that does not read its replies costs
bounded memory; no mix of replies, however large, fails to be sent.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol
from weakref import ReferenceType

from raftckpt import limits
from raftckpt.errors import SaAisError
from raftckpt.model.types import Result
from raftckpt.protocol import contract
from raftckpt.protocol.frames import message_frames, reply_frames, try_pack
from raftckpt.protocol.replies import ReplyKind
from raftckpt.server.tracking import Subscription

__all__ = ["Outbox"]

_OK: Final = int(SaAisError.OK)
_MESSAGES_PER_REPLY_FRAME: Final = 256
"""Replies of one frame, which a client takes as a whole: the first does not wait for thousands (a
guess)."""
_REPLY_FRAME_BYTES: Final = limits.FRAGMENT_BYTES
"""Data that is sent at the next flush, and in one frame: what exceeds it waits for the client."""
_STREAM_ABOVE_BYTES: Final = contract.PAGE_BYTES
_TINY_BYTES: Final = limits.KIB
"""A reply that does not wait in the queue, even if the client does not read: see the flood."""
_LIST_FRAGMENT_BYTES: Final = 64 * limits.KIB
"""Fragments of replies with many small items: encoding one must not hold the loop."""
_PUSHES_PER_TURN: Final = 4
"""Small messages to trackers, written at once; then others have their turn."""
_ANSWERED: Final = "answered"
_NOT_GRANTED: Final = "not_granted"
_REPLY: Final = int(ReplyKind.REPLY)


class Replier(Protocol):
    """The connection as its outbox sees it."""

    def pump_soon(self) -> None:
        """There is something for a turn."""

    def audited(self, why: str) -> None:
        """Have it written down that it was refused."""


class Outbox:
    """Replies of one connection on their way out.

    Arguments:
        replier: whose they are; weak, so that a connection that is closed goes by itself.
        mark: told the replier when there is something to flush.
        pack: makes one frame of messages that others may get, too; None: they do not fit.
        refusals: counts what was refused, by reason.

    Attributes:
        owed: requests that were begun and whose final reply has not left.
        listings: numbers of those of them that are listings.
        reads: whether the client takes what is written.
        more: whether :meth:`turn` is to be called once more.
        gathered_bytes, queued_bytes: data that waits, but for the reply under way: that is only
            a view of the state.
    """

    def __init__(
        self,
        replier: ReferenceType[Replier],
        mark: Callable[[Any], None],
        pack: Callable[[list[Any]], bytes | None],
        refusals: Counter[str],
    ) -> None:
        self.owed = 0
        self.listings: list[int] = []
        self.reads = True
        self.more = False
        self.gathered_bytes = 0
        self.queued_bytes = 0
        self._replier = replier
        self._mark = mark
        self._pack = pack
        self._refusals = refusals
        self._closed = False
        self._replies: list[list[Any]] = []
        self._answered = 0
        self._queue: deque[tuple[list[Any], int]] = deque()
        self._stream: Iterator[bytes] | None = None
        self._streamed: list[list[Any]] = []

    @property
    def streams(self) -> bool:
        """Whether a reply of several frames is under way."""
        return self._stream is not None

    @property
    def waits(self) -> bool:
        """Whether there are replies that are not to leave in one go."""
        return self._stream is not None or bool(self._queue)

    def close(self) -> None:
        """Forget everything: nobody is there to take it."""
        self._closed = True
        self._replies = []
        self._queue.clear()
        self._stream = None
        self._streamed = []

    # --- replies in ---------------------------------------------------------------------------
    def answer(self, request: int, result: Result) -> None:
        """Reply with the outcome of a command."""
        if not self._replies:
            self._mark(self._replier())
        code, value = result
        if code == _OK:
            self._replies.append([0, request, 1, value])
        else:
            self._replies.append(self._refusal(request, code, value))
        self._answered += 1

    def answer_all(self, requests: list[int], results: list[Result]) -> None:
        """Reply with the outcomes of consecutive commands."""
        if not self._replies:
            self._mark(self._replier())
        self._replies += [
            [0, request, 1, value] if code == _OK else self._refusal(request, code, value)
            for request, (code, value) in zip(requests, results, strict=True)
        ]
        self._answered += len(requests)

    def _refusal(self, request: int, code: int, value: Any) -> list[Any]:
        """The message that tells a refusal."""
        if value[0] == _NOT_GRANTED and (replier := self._replier()) is not None:
            replier.audited(f"the right to {value[1]} is not granted")
        # the attempt answered here did nothing, but an earlier one under its number may have
        return [_REPLY, request, code, value, value[0] != _ANSWERED]

    def deliver(self, request: int, result: Result) -> None:
        """Reply with the outcome of a query; many or large ones wait until the client reads."""
        if self._closed:
            return
        size = _size(result.value)
        if (
            size < _STREAM_ABOVE_BYTES
            and self.gathered_bytes + size <= _REPLY_FRAME_BYTES
            and (size <= _TINY_BYTES or (self.reads and not self._queue))
        ):
            self.gathered_bytes += size
            self.answer(request, result)
            if self.listings:
                self._listed(request)
            return
        code, value = result
        if code == _OK:
            self._enqueue([_REPLY, request, code, value], size)
        else:
            self._enqueue(self._refusal(request, code, value), size)

    def accepted(self, request: int) -> None:
        """Tell that a command is accepted; its final reply follows."""
        if not self._replies:
            self._mark(self._replier())
        self._replies.append([1, request])

    def refuse(
        self, request: int, code: int, reason: str, detail: Any = None, *, definite: bool = True
    ) -> None:
        """Reply that nothing was done (or, not ``definite``, that it is unknown)."""
        if not self._replies:
            self._mark(self._replier())
        self._refusals[reason] += 1
        self._replies.append([0, request, int(code), [reason, detail, None], definite])
        self._answered += 1
        if self.listings:
            self._listed(request)

    def value(self, request: int, value: Any) -> None:
        """Reply with a value that is no result of the model."""
        self.answer(request, Result(_OK, value))

    def revoke(self, request: int) -> None:
        """Tell that what was begun under a number, and answered, is over for lack of a right."""
        if not self._replies:
            self._mark(self._replier())
        refusal = ["revoked", None, None]
        self._replies.append([_REPLY, request, int(SaAisError.ERR_ACCESS), refusal, True])

    def notice(self, kind: str, value: Any) -> None:
        """Tell something that nobody asked for."""
        if not self._replies:
            self._mark(self._replier())
        self._replies.append([2, kind, value])

    def _listed(self, request: int) -> None:
        """A request is answered for good: if it was a listing, another one may begin."""
        if request in self.listings:
            self.listings.remove(request)

    def _enqueue(self, message: list[Any], size: int) -> None:
        """Have a message sent when those before it are, and the client reads."""
        self._queue.append((message, size))
        self.queued_bytes += size
        if self._stream is None and (replier := self._replier()) is not None:
            replier.pump_soon()

    def pushable(self) -> None:
        """A tracker may have something to send."""
        if self.reads and self._stream is None and (replier := self._replier()) is not None:
            replier.pump_soon()

    # --- frames out ---------------------------------------------------------------------------
    def flush(self) -> list[bytes]:
        """Return what was gathered as one frame (more only beyond the frame's bounds)."""
        replies, self._replies = self._replies, []
        self.gathered_bytes = 0
        self.owed -= self._answered
        self._answered = 0
        frames: list[bytes] = []
        if self._closed:
            return frames
        for start in range(0, len(replies), _MESSAGES_PER_REPLY_FRAME):
            messages = replies[start : start + _MESSAGES_PER_REPLY_FRAME]
            frame = try_pack(messages)
            if frame is not None:
                frames.append(frame)
                continue
            for message in messages:  # long after all: there they are cut to fit
                self.owed += message[0] == _REPLY
                self._enqueue(message, _size(message))
        return frames

    def turn(self, changes: Subscription | None) -> Iterator[bytes]:
        """Yield what is to be written in this turn of the loop.

        That is one frame of what is queued or, when nothing is, some of the trackers' ``changes``.
        """
        self.more = False
        if self._stream is None and self._queue:
            self._stream = self._next_stream()
        if self._stream is None and changes is not None:
            yield from self._pushes(changes)
        if self._stream is not None:
            self.more = True
            frame = next(self._stream, None)
            if frame is None:
                self._stream = None
                self._sent()
            elif frame:  # else it only says that others may go first
                yield frame

    def _next_stream(self) -> Iterator[bytes]:
        """Begin with the next large reply, or with the next small ones that share a frame."""
        queue = self._queue
        message, size = queue.popleft()
        self.queued_bytes -= size
        self._streamed = messages = [message]
        if size >= _STREAM_ABOVE_BYTES:
            few = message[0] != _REPLY or _few(message[3])
            return reply_frames(message, limits.FRAGMENT_BYTES if few else _LIST_FRAGMENT_BYTES)
        while queue and len(messages) < _MESSAGES_PER_REPLY_FRAME:
            message, more = queue[0]
            size += more
            if more >= _STREAM_ABOVE_BYTES or size > _REPLY_FRAME_BYTES:
                break
            queue.popleft()
            self.queued_bytes -= more
            messages.append(message)
        return message_frames(messages)

    def _pushes(self, changes: Subscription) -> Iterator[bytes]:
        """Frames of what the trackers have; one that is large becomes the reply under way."""
        for _ in range(_PUSHES_PER_TURN):
            messages, size = changes.pull()
            if not messages:
                return
            self._streamed = messages
            if size >= _STREAM_ABOVE_BYTES and len(messages) == 1:
                self._stream = reply_frames(messages[0], _LIST_FRAGMENT_BYTES)
                return
            frame = self._pack(messages)
            if frame is None:
                self._stream = message_frames(messages)
                return
            yield frame
            self._sent()
            if not self.reads:
                return
        self.more = True

    def _sent(self) -> None:
        """All frames of what was taken from the queue are written."""
        streamed, self._streamed = self._streamed, []
        for message in streamed:
            if message[0] == _REPLY:
                self.owed -= 1
                if self.listings:
                    self._listed(message[1])


def _size(value: Any) -> int:
    """Approximate encoded size; not more exact than needed to tell small from large."""
    kind = type(value)
    if kind is bytes or kind is str:
        return len(value)
    if kind is int:
        return 8
    if hasattr(value, "rows"):
        return max(_STREAM_ABOVE_BYTES, 16 * len(value))  # not to be encoded in one go
    if isinstance(value, list | tuple):
        total = 0
        for item in value:
            total += 8 + _size(item)
            if total >= _STREAM_ABOVE_BYTES and len(value) > 64:
                return max(total, 8 * len(value))
        return total
    return len(value) if hasattr(value, "__len__") else 8


def _few(value: Any) -> bool:
    """Whether the reply consists of few, large items."""
    return not (
        isinstance(value, list | tuple)
        and len(value) == 2
        and (hasattr(value[1], "rows") or isinstance(value[1], list | tuple))
        and len(value[1]) > 1024
    )

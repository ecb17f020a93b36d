"""A client's connection: bytes in, messages to the dispatcher, replies gathered and flushed.

Owns the framing of one connection, its handshake, its bounds and its backpressure in both
directions. What a message means is the dispatcher's business.

Invariants: nothing but HELLO is accepted first; every request gets exactly one final reply, or the
connection is closed; at most one fragmented reply is under way; a client that does not read its
replies costs bounded memory, and its reading is stopped, nobody else's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from raftckpt import limits
from raftckpt.errors import SaAisError
from raftckpt.model.types import Result
from raftckpt.node.liveness import SessionState
from raftckpt.wire.frames import (
    FrameDecoder,
    FrameError,
    pack_messages,
    reply_frames,
    unpack_messages,
)
from raftckpt.wire.schema import COMMAND_TAGS, RequestTag, check_request

if TYPE_CHECKING:
    from raftckpt.server.listener import ClientListener

__all__ = ["Connection"]

_HELLO: Final = int(RequestTag.HELLO)
_OK: Final = int(SaAisError.OK)
_MESSAGES_PER_REPLY_FRAME: Final = 256
"""A reply that is not streamed has at most a few KiB: so many always fit into one frame."""
_STREAM_ABOVE_BYTES: Final = limits.PAGE_BYTES
_LIST_FRAGMENT_BYTES: Final = 64 * limits.KIB
"""Fragments of replies with many small items: encoding one must not hold the loop."""
_WRITE_HIGH_BYTES: Final = 512 * limits.KIB
_ANSWERED: Final = "answered"


class Connection(asyncio.Protocol):
    """Protocol of the client port; implements ``node.liveness.Requester``."""

    __slots__ = (
        "_answered",
        "_attaching",
        "_by_client",
        "_dirty",
        "_held",
        "_listener",
        "_out",
        "_reading",
        "_stream",
        "_streams",
        "_streams_bytes",
        "_transport",
        "_unpumped",
        "_writable",
        "broken",
        "client_name",
        "decoder",
        "gone",
        "greeted",
        "inflight",
        "inflight_bytes",
        "opened_at",
        "partial_since",
        "peer",
        "session",
    )

    def __init__(self, listener: ClientListener) -> None:
        self.session: SessionState | None = None
        self.inflight = 0
        self.inflight_bytes = 0
        self.greeted = False
        self.gone = False
        self.broken = False
        self.client_name = ""
        self.peer = "?"
        self.opened_at = listener.clock.monotonic()
        self.partial_since: float | None = None
        self.decoder = FrameDecoder()
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._out: list[list[Any]] = []
        self._answered = 0
        self._dirty = False
        self._reading = True
        self._writable = True
        self._by_client = False
        self._attaching = False
        self._held: list[Any] = []
        self._streams: deque[tuple[Iterator[bytes], int]] = deque()
        self._stream: Iterator[bytes] | None = None
        self._streams_bytes = 0
        self._unpumped = True

    # --- asyncio ------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; beyond the limit of connections it is closed at once."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        peer = transport.get_extra_info("peername")
        if peer:
            self.peer = f"{peer[0]}:{peer[1]}"
        if not self._listener.opened(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Decode and dispatch what arrived."""
        try:
            bodies = self.decoder.feed(data)
            for body in bodies:
                self._receive(unpack_messages(body))
                if self.broken:
                    return
        except FrameError as error:
            self.break_off(str(error))
            return
        now = self._listener.clock.monotonic()
        if self.session is not None:
            self.session.seen = now
        if not self.decoder.held_bytes:
            self.partial_since = None
        elif bodies or self.partial_since is None:
            self.partial_since = now
        if self._reading and self._overloaded():
            self._pause()

    def eof_received(self) -> bool:
        """The client's side closed: so do we, what it asked for goes on."""
        self._by_client = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those who must know; a reset is a close by the client's side, too."""
        by_client = self._by_client or isinstance(exc, ConnectionResetError | BrokenPipeError)
        self._transport = None
        self.gone = True
        self._out = []
        self._held = []
        self._stream = None
        self._streams.clear()
        self._listener.closed(self, by_client=by_client)

    def pause_writing(self) -> None:
        """The client reads too slowly: streams wait."""
        self._writable = False

    def resume_writing(self) -> None:
        """The client took something, which is a sign of life."""
        self._writable = True
        if self.session is not None:
            self.session.seen = self._listener.clock.monotonic()
        if self._stream is not None:
            self._pump_soon()
        self._maybe_resume()

    # --- in -----------------------------------------------------------------------------------
    def _receive(self, messages: list[Any]) -> None:
        self.inflight += len(messages)
        commands: list[list[Any]] = []
        listener = self._listener
        for position, message in enumerate(messages):
            if self._attaching:
                self._hold(messages[position:])
                return
            problem = check_request(message)
            if problem is None and self.greeted:
                if message[0] in COMMAND_TAGS:
                    commands.append(message)
                    continue
            elif not self._may_go_on(message, problem):
                return
            if commands:  # a query that follows its commands must find them submitted
                listener.replica.submit(self, commands)
                commands = []
            if problem is not None:
                code, reason, detail = problem
                self.refuse(message[1], code, reason, detail)
            else:
                listener.dispatcher.handle(self, message)
        if commands:
            listener.replica.submit(self, commands)

    def _may_go_on(self, message: Any, problem: Any) -> bool:
        """Close on what cannot be answered: no id to reply to, or no HELLO first."""
        if type(message) is not list or len(message) < 2 or type(message[1]) is not int:
            self.break_off("a message without tag and id")
        elif not self.greeted and (message[0] != _HELLO or problem is not None):
            self.break_off("the first message is not a well-formed HELLO")
        elif not -(1 << 63) <= message[1] < 1 << 63:
            self.break_off("an id out of range")
        else:
            return True
        return False

    def _hold(self, messages: list[Any]) -> None:
        """Keep what follows an ATTACH until it is answered: it belongs to that session."""
        self._held += messages
        self._pause()

    def attaching(self) -> None:
        """An ATTACH is under way."""
        self._attaching = True

    def _release_held(self) -> None:
        self._attaching = False
        held, self._held = self._held, []
        if held:
            self.inflight -= len(held)
            self._receive(held)
        self._maybe_resume()

    def break_off(self, why: str) -> None:
        """Close the connection for breaking the protocol; nobody else is disturbed."""
        self.broken = True
        if self._transport is not None:
            self._listener.protocol_error(self, why)
            self._transport.abort()

    # --- backpressure ---------------------------------------------------------------------------
    def _overloaded(self) -> bool:
        return (
            self.inflight >= limits.CONNECTION_INFLIGHT_MAX
            or self.inflight_bytes >= limits.CONNECTION_INFLIGHT_BYTES_MAX
            or self._unsent() >= limits.CONNECTION_SEND_BYTES_MAX
        )

    def _unsent(self) -> int:
        """Reply bytes that wait, but for the stream under way: it is only a view of the state."""
        buffered = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return buffered + self._streams_bytes

    def _pause(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _maybe_resume(self) -> None:
        if (
            not self._reading
            and not self._attaching
            and self._transport is not None
            and self.inflight * 2 <= limits.CONNECTION_INFLIGHT_MAX
            and self.inflight_bytes * 2 <= limits.CONNECTION_INFLIGHT_BYTES_MAX
            and self._unsent() * 2 <= limits.CONNECTION_SEND_BYTES_MAX
        ):
            self._reading = True
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # --- out ------------------------------------------------------------------------------------
    def answer(self, request: int, result: Result) -> None:
        """Reply with the outcome of a command."""
        code, value = result
        if code == _OK:
            self._out.append([0, request, 1, value])
        else:
            # the attempt answered here did nothing, but an earlier one under its number may have
            self._out.append([0, request, code, value, value[0] != _ANSWERED])
        self._answered += 1
        if not self._dirty:
            self._dirty = True
            self._listener.mark(self)

    def answer_all(self, requests: list[int], results: list[Result]) -> None:
        """Reply with the outcomes of consecutive commands."""
        self._out += [
            [0, request, 1, value]
            if code == _OK
            else [0, request, code, value, value[0] != _ANSWERED]
            for request, (code, value) in zip(requests, results, strict=True)
        ]
        self._answered += len(requests)
        if not self._dirty:
            self._dirty = True
            self._listener.mark(self)

    def deliver(self, request: int, result: Result) -> None:
        """Reply with the outcome of a query; a large one is streamed."""
        if self._transport is None:
            return
        size = _size(result.value) if result.code == _OK else 0
        if size < _STREAM_ABOVE_BYTES and self._streams_bytes + size < _STREAM_ABOVE_BYTES:
            self.answer(request, result)
            return
        fragment = limits.FRAGMENT_BYTES if _few(result.value) else _LIST_FRAGMENT_BYTES
        frames = reply_frames([0, request, 1, result.value], fragment)
        self._streams.append((frames, size))
        self._streams_bytes += size
        if self._stream is None:
            self._next_stream()

    def accepted(self, request: int) -> None:
        """Tell that a command is accepted; its final reply follows."""
        self._out.append([1, request])
        if not self._dirty:
            self._dirty = True
            self._listener.mark(self)

    def refuse(
        self, request: int, code: int, reason: str, detail: Any = None, *, definite: bool = True
    ) -> None:
        """Reply that nothing was done (or, not ``definite``, that it is unknown)."""
        self._out.append([0, request, int(code), [reason, detail, None], definite])
        self._answered += 1
        if not self._dirty:
            self._dirty = True
            self._listener.mark(self)

    def value(self, request: int, value: Any) -> None:
        """Reply with a value that is no result of the model."""
        self.answer(request, Result(_OK, value))

    def attached(self) -> None:
        """The ATTACH under way was answered (or refused): go on with what followed it."""
        if self._attaching:
            self._listener.soon(self._release_held)

    def notice(self, kind: str, value: Any) -> None:
        """Tell something that nobody asked for."""
        if self.greeted:
            self._out.append([2, kind, value])
            if not self._dirty:
                self._dirty = True
                self._listener.mark(self)

    def detached(self) -> None:
        """Another connection took the session over: close this one."""
        self.close()

    def close(self) -> None:
        """Send what is gathered and close."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def flush(self) -> None:
        """Send the replies gathered as one frame (more only beyond the frame's bounds)."""
        self._dirty = False
        out, self._out = self._out, []
        self.inflight -= self._answered
        self._answered = 0
        transport = self._transport
        if transport is None or not out:
            return
        if len(out) <= _MESSAGES_PER_REPLY_FRAME:
            transport.write(pack_messages(out))
        else:
            for start in range(0, len(out), _MESSAGES_PER_REPLY_FRAME):
                transport.write(pack_messages(out[start : start + _MESSAGES_PER_REPLY_FRAME]))
        if not self._reading:
            self._maybe_resume()

    # --- streams --------------------------------------------------------------------------------
    def _next_stream(self) -> None:
        if self._streams:
            self._stream, size = self._streams.popleft()
            self._streams_bytes -= size
            self._pump_soon()
        else:
            self._stream = None

    def _pump_soon(self) -> None:
        if self._unpumped:
            self._unpumped = False
            self._listener.soon(self._pump)

    def _pump(self) -> None:
        """Write one frame of the stream per iteration of the loop, as long as the client reads."""
        self._unpumped = True
        stream, transport = self._stream, self._transport
        if stream is None or transport is None or transport.is_closing() or not self._writable:
            return
        frame = next(stream, None)
        if frame is not None:
            transport.write(frame)
            self._pump_soon()
            return
        self.inflight -= 1
        self._next_stream()
        self._maybe_resume()


def _size(value: Any) -> int:
    """Approximate encoded size; not more exact than needed to tell small from large."""
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

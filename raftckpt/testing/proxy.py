"""A TCP proxy for a link: stall either direction, delay, slow down, slice, half-close, reset.

A stalled direction loses nothing: bytes wait, as they do in TCP while packets are dropped, and
arrive late when the link heals. That is what a real partition does to a connection, and stale
messages are exactly what consensus has to survive. ``reset`` breaks connections instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

__all__ = ["LinkProxy"]

_CHUNK_BYTES = 64 * 1024
_SLICED_BYTES_MAX = 4096
"""Chunks beyond are passed on whole: slicing is slow and would be a cut."""
_CHUNKS_HELD_MAX = 64
"""Chunks held per direction; then the sender feels back-pressure, as from a full socket."""

_EOF = b""


class _Direction:
    """State of one direction of a link."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.latency_s = 0.0
        self.bytes_per_s: float | None = None
        self.slice_bytes: int | None = None
        self.writers: set[asyncio.StreamWriter] = set()
        self.ended: set[asyncio.StreamWriter] = set()
        """Writers whose stream was ended though its other direction goes on."""


class LinkProxy:
    """Forwards connections from one process (the dialer) to another (the target).

    All methods must be called in the loop that runs :meth:`start`.

    Attributes:
        port: port on 127.0.0.1 that the dialer connects to.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._forward = _Direction()
        self._backward = _Direction()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and break every connection."""
        if self._server is not None:
            self._server.close()
        self.reset()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def stall(self, *, forward: bool | None = None, backward: bool | None = None) -> None:
        """Stall (True) or let flow (False) a direction; None leaves it as it is."""
        for direction, stalled in ((self._forward, forward), (self._backward, backward)):
            if stalled is not None:
                (direction.open.clear if stalled else direction.open.set)()

    def delay(self, *, forward_s: float | None = None, backward_s: float | None = None) -> None:
        """Delay each chunk of a direction by so many seconds; None leaves it as it is."""
        if forward_s is not None:
            self._forward.latency_s = forward_s
        if backward_s is not None:
            self._backward.latency_s = backward_s

    def slow(self, bytes_per_s: float | None) -> None:
        """Let so many bytes a second through, each way; None: as many as come."""
        self._forward.bytes_per_s = self._backward.bytes_per_s = bytes_per_s

    def slice(self, bytes_max: int | None) -> None:
        """Pass data on in pieces of at most so many bytes; None: as it comes."""
        self._forward.slice_bytes = self._backward.slice_bytes = bytes_max

    def half_close(self, *, forward: bool) -> None:
        """End one direction of every connection; the other one goes on.

        What the sender goes on sending in the ended direction is swallowed.
        """
        direction = self._forward if forward else self._backward
        for writer in direction.writers - direction.ended:
            direction.ended.add(writer)
            if writer.can_write_eof() and not writer.is_closing():
                with contextlib.suppress(OSError):  # it was reset a moment ago
                    writer.write_eof()

    def reset(self) -> None:
        """Break every connection at once (both ends see a reset)."""
        for writer in list(self._writers):
            transport = writer.transport
            raw = transport.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            # A connection needs both ways to come up: a stalled link answers nobody.
            await self._forward.open.wait()
            await self._backward.open.wait()
            other_reader, other = await asyncio.open_connection(*self._target)
            self._writers.add(other)
            for each in (writer, other):
                each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.gather(
                _pump(reader, other, self._forward), _pump(other_reader, writer, self._backward)
            )
        except OSError:
            pass
        finally:
            for end in (writer, other):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: _Direction
) -> None:
    loop = asyncio.get_running_loop()
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_HELD_MAX)

    async def read() -> None:
        data = b"?"
        while data:
            try:
                data = await reader.read(_CHUNK_BYTES)
            except OSError:
                data = _EOF
            await held.put((loop.time() + direction.latency_s, data))

    reading = asyncio.ensure_future(read())
    direction.writers.add(writer)
    try:
        while True:
            due, data = await held.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await direction.open.wait()  # the end of a connection is stalled like its data
            if data == _EOF:
                break
            if writer not in direction.ended:
                await _write(writer, data, direction)
    except OSError:
        pass
    finally:
        reading.cancel()
        direction.writers.discard(writer)
        direction.ended.discard(writer)
        writer.close()  # flushes, then ends the other direction as well


async def _write(writer: asyncio.StreamWriter, data: bytes, direction: _Direction) -> None:
    if direction.bytes_per_s is not None:
        await asyncio.sleep(len(data) / direction.bytes_per_s)
    step = direction.slice_bytes
    if step is None or len(data) > _SLICED_BYTES_MAX:
        writer.write(data)
        await writer.drain()
        return
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
        await writer.drain()
        await asyncio.sleep(0)  # each piece is a segment of its own

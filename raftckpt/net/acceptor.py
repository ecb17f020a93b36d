"""Listening sockets, and the loop that accepts from them; it outlives a lack of descriptors.

The event loop's own server tells of a connection only when its TLS handshake is through, and
counts nothing: a thousand silent ones would take every descriptor that the journal needs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

__all__ = ["Acceptor"]

_BACKLOG: Final = 1024
"""Of connections that nobody has accepted yet: a thousand clients that come back at once after an
election. The kernel takes less if its own bound is lower."""
_ACCEPTS_PER_TURN: Final = 32
"""Then the loop has its turn: a connection costs some tens of microseconds (a guess)."""
_PAUSE_S: Final = 0.2
"""Until the next attempt when the system has no descriptors or memory for a connection."""


class Acceptor:
    """Accepts connections, a few per turn of the loop.

    Arguments:
        loop: the event loop.
        arrived: gets each connection (not blocking), the IP address and the name of its peer.
        starved: told why none can be accepted for a while.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        arrived: Callable[[socket.socket, str, str], None],
        starved: Callable[[OSError], None],
    ) -> None:
        self._loop = loop
        self._arrived = arrived
        self._starved = starved
        self._sockets: list[socket.socket] = []
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Listen on every address of a host; returns the first one, with the port bound.

        Raises:
            OSError: one of them cannot be bound.
        """
        found = await self._loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                try:
                    sock = socket.socket(family, kind, protocol)
                except OSError:  # a family that this system does not have
                    continue
                self._sockets.append(sock)
                _bind(sock, address)
        except OSError:
            self.close()
            raise
        if not self._sockets:
            raise OSError(f"{host} has no address to listen on")
        for sock in self._sockets:
            self._watch(sock)
        bound = self._sockets[0].getsockname()
        return bound[0], bound[1]

    def close(self) -> None:
        """Listen no more."""
        sockets, self._sockets = self._sockets, []
        for timer in self._paused.values():
            timer.cancel()
        for sock in sockets:
            if sock not in self._paused:
                self._loop.remove_reader(sock)
            sock.close()
        self._paused.clear()

    def _watch(self, sock: socket.socket) -> None:
        self._paused.pop(sock, None)
        self._loop.add_reader(sock, self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                connection, peer = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: those who wait, wait
                self._loop.remove_reader(sock)
                self._paused[sock] = self._loop.call_later(_PAUSE_S, self._watch, sock)
                self._starved(error)
                return
            connection.setblocking(False)
            self._arrived(connection, peer[0], f"{peer[0]}:{peer[1]}")


def _bind(sock: socket.socket, address: tuple[object, ...]) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind(address)
    except OSError as error:
        text = f"cannot listen on {address[0]}:{address[1]}: {error.strerror}"
        raise OSError(error.errno, text) from None
    sock.setblocking(False)
    sock.listen(_BACKLOG)

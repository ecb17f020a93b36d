"""Second connections of a session, one to each replica.

When this process dies the kernel closes them all. A replica that is elected because the leader died
with us knows by its own that our session is over, and need not wait for its timeout. As closing one
says just that, they stay open as long as the session lives, whatever becomes of its components.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

from raftckpt.client.calls import Call, Needs
from raftckpt.client.core import ClientCore
from raftckpt.client.probe import Probe
from raftckpt.client.sync_driver import Wake, open_socket
from raftckpt.errors import CheckpointError
from raftckpt.protocol.operations import WitnessRequest

if TYPE_CHECKING:
    import ssl

__all__ = ["Witness", "witness_of"]

_CONNECT_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.1
_PAUSE_SECONDS_MAX: Final = 2.0
_ENDPOINTS_MAX: Final = 9
_IDLE_SECONDS: Final = 60.0
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
"""Nothing is ever said on these connections: let the kernel find out that a host is gone."""


class _Link:
    """The connection to one replica."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.sock: socket.socket | None = None
        self.probe: Probe | None = None
        self.retry_at = 0.0
        self.pause = _PAUSE_SECONDS

    def close(self) -> None:
        """Close it and wait a little longer each time before the next try."""
        if self.sock is not None:
            self.sock.close()
        self.sock = None
        self.retry_at = monotonic() + self.pause
        self.pause = min(2 * self.pause, _PAUSE_SECONDS_MAX)


class Witness:
    """Keeps them open, in a thread of its own."""

    def __init__(self, core: ClientCore, context: ssl.SSLContext | None) -> None:
        self._core = core
        self._context = context
        self._wake = Wake()
        self._links: dict[str, _Link] = {}
        self._would_block: tuple[type[OSError], ...] = (BlockingIOError, InterruptedError)
        if context is not None:
            import ssl

            self._would_block += (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._key = ("", f"witness {id(self)}")
        core.roles.serve(self._key, self._wake.notify)  # it calls at the end of the session, too
        self._thread = threading.Thread(target=self._loop, name="raftckpt-witness", daemon=True)
        self._thread.start()

    @property
    def bound(self) -> int:
        """To how many replicas the session is bound."""
        return sum(
            link.probe is not None and link.probe.answer is not None
            for link in list(self._links.values())
            if link.sock is not None
        )

    def _loop(self) -> None:
        while not self._core.roles.lost:
            now = monotonic()
            for endpoint in list(self._core.router.endpoints)[:_ENDPOINTS_MAX]:
                link = self._links.setdefault(endpoint, _Link(endpoint))
                if link.sock is None and link.retry_at <= now:
                    self._open(link)
            self._wait()
        with _sharing:
            _witnesses.pop(self._core, None)
        self._core.roles.forget(self._key)
        for link in self._links.values():
            link.close()

    def _open(self, link: _Link) -> None:
        config = self._core.config
        call = Call("witness", Needs.ANY, WitnessRequest(0, *self._core.credentials))
        probe = Probe(link.endpoint, call, config.client_name, config.token)
        try:
            link.sock = open_socket(link.endpoint, self._context, _CONNECT_SECONDS)
            with suppress(OSError):
                link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in _KEEPALIVE:
                    link.sock.setsockopt(socket.IPPROTO_TCP, option, value)
            link.sock.send(probe.data_to_send())
            link.probe = probe
        except (OSError, CheckpointError):
            link.close()

    def _wait(self) -> None:
        poller = select.poll()
        poller.register(self._wake.reading, select.POLLIN)
        links: dict[int, _Link] = {}
        until = monotonic() + _IDLE_SECONDS
        for link in self._links.values():
            if link.sock is None:
                until = min(until, link.retry_at)
            else:
                links[link.sock.fileno()] = link
                poller.register(link.sock, select.POLLIN)
        for descriptor, _ in poller.poll(max(0.0, until - monotonic()) * 1000):
            if descriptor in links:
                self._receive(links[descriptor])
            else:
                self._wake.drain()

    def _receive(self, link: _Link) -> None:
        """Take what arrived, all of it: what TLS holds back shows on no descriptor."""
        probe = link.probe
        while link.sock is not None and probe is not None:
            try:
                data = link.sock.recv(65536)
            except self._would_block:
                return
            except OSError:
                data = b""
            if not data:
                link.close()
            elif probe.feed(data) and probe.answer is not None:
                if probe.answer.error is not None:
                    link.close()
                else:
                    link.pause = _PAUSE_SECONDS


_sharing: Final = threading.Lock()
_witnesses: dict[ClientCore, Witness] = {}
"""Of the sessions that live; an entry goes with its session."""


def witness_of(core: ClientCore, context: ssl.SSLContext | None) -> Witness:
    """Return the witness of a session, made if there is none."""
    with _sharing:
        witness = _witnesses.get(core)
        if witness is None:
            witness = _witnesses[core] = Witness(core, context)
        return witness

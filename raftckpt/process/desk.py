"""What the admin port answers: a word from the first moment on, the rest once there is a state."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from raftckpt.events import EventLog
from raftckpt.node.clock import SystemClock
from raftckpt.node.config import Address, ClusterConfig
from raftckpt.node.tls import client_context
from raftckpt.raft.links import PeerTls
from raftckpt.server import page
from raftckpt.server.admin import AdminPort, Page
from raftckpt.server.gate import AdminGate
from raftckpt.server.metrics import Sources, details, exposition, readiness

__all__ = ["AdminDesk"]

log = EventLog("node")


class AdminDesk:
    """Owner of the admin port, if the configuration has one.

    Arguments:
        config: the cluster.
        node: which of its replicas.
        clock: ends of tokens are judged by it.
        stopping: whether the replica leaves.

    Raises:
        ConfigError: a certificate cannot be used.
    """

    def __init__(
        self, config: ClusterConfig, node: str, clock: SystemClock, stopping: Callable[[], bool]
    ) -> None:
        self._config = config
        self._stopping = stopping
        self._sources: Sources | None = None
        """Where its numbers come from; None: nothing is to be looked at yet."""
        self._port: AdminPort | None = None
        at = config.replicas[node]
        self._at = at.admin
        if at.admin is not None:
            self._port = AdminPort(
                self.word,
                self._metrics,
                frozenset(address.host.lower() for address in (at.admin, at.client, at.peer)),
                None if at.admin.loopback else client_context(config),
                self._pages(),
                AdminGate(lambda: self._sources, config.cluster, self._opened, clock),
            )

    async def open(self) -> None:
        """Answer probes, also while the founding is waited for.

        Raises:
            OSError: the address cannot be bound.
        """
        if self._port is not None and self._at is not None:
            host, port = await self._port.start(*self._at)
            log.info("admin", address=str(Address(host, port)))

    def show(self, sources: Sources) -> None:
        """There is a state: show it from now on."""
        self._sources = sources

    def take(
        self, config: ClusterConfig, peer: PeerTls | None, client: ssl.SSLContext | None
    ) -> None:
        """Take a configuration over, and the contexts of its certificates."""
        self._config = config
        if self._port is not None and self._port.tls is not None:
            self._port.tls = client

    def close(self) -> None:
        """Answer nobody any more."""
        if self._port is not None:
            self._port.stop()

    def word(self) -> str:
        """Whether this replica serves, in a word."""
        if self._stopping():
            return "stopping"
        return "founding" if self._sources is None else readiness(self._sources.replica)

    def _opened(self) -> frozenset[str]:
        """Paths of the admin port that are for everybody who reaches it, beside the words."""
        return frozenset({"/metrics"} if self._config.admin_open == "metrics" else ())

    def _metrics(self) -> bytes | None:
        return None if self._sources is None else exposition(self._sources)

    def _pages(self) -> dict[str, Callable[[], Page | None]]:
        """What there is to look at, once there is a state."""

        def made(make: Callable[[Sources], bytes]) -> Callable[[], Page | None]:
            return lambda: (
                None if self._sources is None else Page(200, make(self._sources), page.HTML)
            )

        style, script = page.style(), page.script()
        return {
            "/": made(page.page),
            "/status": lambda: None if self._sources is None else Page(200, details(self._sources)),
            "/now": made(page.parts),
            "/charts": made(page.charts),
            "/page.css": lambda: Page(200, style, "text/css; charset=utf-8"),
            "/page.js": lambda: Page(200, script, "text/javascript; charset=utf-8"),
        }

"""A replica as a process: opens the data directory, puts the parts together, runs, leaves.

The one place that knows all rooms. Order of a start: may we use the directory (founding), lock and
verify it, build the machine from snapshot and journal, listen, tell that we are ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
from collections.abc import Callable
from typing import Final

from raftckpt.errors import InvariantViolation
from raftckpt.node.clock import SystemClock
from raftckpt.node.config import ClusterConfig
from raftckpt.node.driver import Driver
from raftckpt.node.founding import Decision, Founding
from raftckpt.node.memory import Gardener, memory_for_data, tame_malloc
from raftckpt.node.peers import PeerNotes
from raftckpt.node.replica import Replica
from raftckpt.node.tls import client_context, peer_contexts
from raftckpt.raft.links import Hello, PeerLinks
from raftckpt.raft.node import RaftNode
from raftckpt.raft.port import Transferred
from raftckpt.raft.settings import RaftConfig
from raftckpt.server.dispatch import ReplicaInfo
from raftckpt.server.listener import ClientListener
from raftckpt.storage import Missing, RealFileSystem, Storage, StorageError
from raftckpt.storage.identity import IGNORED, IdentityState, read_identity
from raftckpt.version import VERSION

__all__ = ["ReplicaProcess"]

log = logging.getLogger("raftckpt.node")

_FOUNDING_POLL_S: Final = 0.05
_FOUNDING_TOLD_EVERY_S: Final = 10.0
_TRANSFER_SECONDS_MAX: Final = 3.0
_TRANSFER_POLL_S: Final = 0.02
_DRAIN_SECONDS_MAX: Final = 2.0
_DRAIN_POLL_S: Final = 0.005


class _FoundingHandler:
    """Listens to handshakes while there is no log yet."""

    def __init__(self, founding: Founding) -> None:
        self._founding = founding

    def met(self, hello: Hello) -> None:
        self._founding.met(hello)

    def connected(self, node: str) -> None: ...

    def disconnected(self, node: str, broken: bool) -> None: ...

    def receive(self, node: str, body: bytes) -> None: ...


class _RaftHandler:
    """Hands what links tell to the log; an unexpected exception stops the process."""

    def __init__(self, raft: RaftNode, driver: Driver) -> None:
        self._raft = raft
        self._driver = driver

    def met(self, hello: Hello) -> None: ...

    def connected(self, node: str) -> None:
        self._guard(lambda: self._raft.connected(node))

    def disconnected(self, node: str, broken: bool) -> None:
        self._guard(lambda: self._raft.disconnected(node, broken))

    def receive(self, node: str, body: bytes) -> None:
        self._raft.receive(node, body)  # raises PeerProtocolError: the link's business

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # a broken belief about the peers: do not go on
            self._driver.fail(error)


class ReplicaProcess:
    """One replica. ``await run()`` inside an event loop.

    Arguments:
        config: the cluster.
        node: which of its replicas.
        rejoin: the data directory was lost; come back without a voice.
        failed: told of what stops the replica; must not return to normal work.
    """

    def __init__(
        self,
        config: ClusterConfig,
        node: str,
        *,
        rejoin: bool = False,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._node = node
        self._rejoin = rejoin
        self._failed = failed
        self._fs = RealFileSystem()
        self._path = os.fspath(config.directory(node))
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._signals = 0

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            StorageError: the data directory cannot be used.
            OSError: a port cannot be bound.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_exception)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        tame_malloc()
        config, node = self._config, self._node
        notes = PeerNotes(self._fs, self._path)
        founding = Founding(node, list(config.replicas))
        links = PeerLinks(
            config.cluster,
            node,
            {name: (at.peer.host, at.peer.port) for name, at in config.replicas.items()},
            notes,
            _FoundingHandler(founding),
            peer_contexts(config),
        )
        listening = False
        new = not self._rejoin and self._is_new()
        if new and len(config.replicas) > 1:
            await links.start()
            listening = True
            if not await self._found(founding, links):
                await links.stop()
                return
        storage = Storage.open(
            self._fs,
            self._path,
            config.cluster,
            node,
            new_ok=new,
            rejoin=self._rejoin,
            fsync=config.fsync,
        )
        replica, raft, listener, driver = self._build(storage, links, notes)
        gc_tamed = Gardener()
        driver.tended_by(gc_tamed)
        links.handler = _RaftHandler(raft, driver)
        notes.adopt(storage.identity.uuid)
        addresses = config.replicas[node]
        await listener.start(*addresses.client)
        if not listening:
            await links.start()
        driver.start(raft)
        log.info(
            "ready client=%s peer=%s pid=%d version=%s data_dir=%s durability=%s",
            addresses.client,
            addresses.peer,
            os.getpid(),
            VERSION,
            self._path,
            config.durability,
        )
        await self._stop.wait()
        await self._leave(replica, raft, listener, links, driver)

    def _is_new(self) -> bool:
        """Whether the directory never held data (a first start cut short counts as new)."""
        identity = read_identity(self._fs, self._path)
        if identity is not None:
            return identity.state is IdentityState.FOUNDING
        return not [name for name in self._fs.listdir(self._path) if name not in IGNORED]

    async def _found(self, founding: Founding, links: PeerLinks) -> bool:
        """Wait until an empty directory may be used; False: asked to stop meanwhile."""
        told, told_at = "", 0.0
        while not self._stop.is_set():
            now = self._clock.monotonic()
            verdict = founding.verdict(now)
            if verdict.decision is Decision.REFUSE:
                await links.stop()
                raise Missing(
                    f"starting {self._node} with the empty data directory {self._path} failed",
                    verdict.why,
                    "check the path and the mount; if the disk was lost: raftckpt serve --rejoin",
                )
            if verdict.why != told or now - told_at > _FOUNDING_TOLD_EVERY_S:
                told, told_at = verdict.why, now
                log.info('founding decision=%s why="%s"', verdict.decision.value, verdict.why)
            if verdict.decision is Decision.START:
                return True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _FOUNDING_POLL_S)
        return False

    def _build(
        self, storage: Storage, links: PeerLinks, notes: PeerNotes
    ) -> tuple[Replica, RaftNode, ClientListener, Driver]:
        config, node, clock = self._config, self._node, self._clock
        endpoints = {name: str(at.client) for name, at in config.replicas.items()}
        driver: Driver

        def wake() -> None:
            driver.wake()

        def fail(error: BaseException) -> None:
            driver.fail(error)

        replica = Replica(
            node,
            endpoints,
            clock,
            wake,
            voters=len(config.replicas),
            data_bytes=config.limits.data_bytes or memory_for_data(),
            failed=fail,
        )
        info = ReplicaInfo(
            node,
            config.cluster,
            endpoints,
            config.durability,
            clock.monotonic(),
            storage.bytes_on_disk,
            lambda: storage.journal.syncs,
            lambda: driver.longest.value,
        )
        listener = ClientListener(replica, info, clock, client_context(config), edge=config.limits)
        driver = Driver(
            asyncio.get_running_loop(),
            replica,
            clock,
            listener.flush,
            self._on_failure,
            lambda: self._fs.sync_s,
        )
        timing = config.timing
        raft = RaftNode(
            RaftConfig(
                node,
                sorted(config.replicas),
                heartbeat_s=timing.heartbeat_ms / 1000,
                election_min_s=timing.election_min_ms / 1000,
                election_max_s=timing.election_max_ms / 1000,
                snapshot_entries=config.snapshot.entries,
                snapshot_bytes=config.snapshot.bytes,
            ),
            replica,
            storage,
            links.send,
            wake,
            clock,
            random.Random(),
        )
        replica.attach_log(raft)
        notes.log_is_empty = lambda: raft.status().last_index <= 1
        return replica, raft, listener, driver

    # --- leaving ------------------------------------------------------------------------------
    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            log.warning("stopping_now signal=%d", number)
            logging.shutdown()
            os._exit(128 + number)
        log.info("stopping signal=%d", number)
        self._stop.set()

    async def _leave(
        self,
        replica: Replica,
        raft: RaftNode,
        listener: ClientListener,
        links: PeerLinks,
        driver: Driver,
    ) -> None:
        """Hand leadership over, answer what is in flight, sync, close."""
        listener.stop_accepting()
        if replica.leading and len(self._config.replicas) > 1:
            await self._hand_over(replica, raft)
        for _ in range(int(_DRAIN_SECONDS_MAX / _DRAIN_POLL_S)):
            if not listener.inflight:
                break
            await asyncio.sleep(_DRAIN_POLL_S)
        listener.going_away()
        listener.stop()
        await asyncio.sleep(0)  # what was written leaves
        driver.stop()
        await links.stop()
        raft.close()
        log.info("stopped")

    async def _hand_over(self, replica: Replica, raft: RaftNode) -> None:
        """Transfer leadership, unless too few are left to lead (everybody is stopping)."""
        handed: asyncio.Future[Transferred] = asyncio.get_running_loop().create_future()

        def done(outcome: Transferred) -> None:
            if not handed.done():
                handed.set_result(outcome)

        replica.transfer(None, done)
        until = self._clock.monotonic() + _TRANSFER_SECONDS_MAX
        majority = len(self._config.replicas) // 2 + 1
        while not handed.done() and self._clock.monotonic() < until:
            if sum(peer.connected for peer in raft.status().peers) < majority:
                break  # without us they are no majority: nobody can take over
            await asyncio.wait([handed], timeout=_TRANSFER_POLL_S)
        outcome = handed.result().value if handed.done() else "given_up"
        log.info("transferred outcome=%s leader=%s", outcome, replica.leader)

    # --- failing ------------------------------------------------------------------------------
    def _on_failure(self, error: BaseException) -> None:
        self._failed(error)

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Judge what no protocol caught: a broken belief stops us, a broken connection does not.

        What a connection called of the replica was judged there: all of it stops us.
        """
        error = context.get("exception")
        if isinstance(error, InvariantViolation | StorageError | MemoryError):
            self._failed(error)
        elif isinstance(error, OSError):  # includes TLS errors
            log.debug("connection_error %s: %s", context.get("message"), error)
        elif isinstance(error, Exception):
            log.error("unexpected %s", context.get("message"), exc_info=error)
        else:
            log.error("unexpected %s", context.get("message"))

"""A replica as a process: opens the data directory, puts the parts together, runs, leaves.

The one place that knows all rooms. Order of a start: lock the directory, wait until its founding
is complete, verify what it holds, build the machine from snapshot and journal, listen, tell that we
are ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import Final

from raftckpt import limits
from raftckpt.errors import InvariantViolation
from raftckpt.events import EventLog
from raftckpt.node import logs
from raftckpt.node.clock import SystemClock
from raftckpt.node.config import Address, ClusterConfig, ConfigError, announced, parse_address
from raftckpt.node.cputime import CpuMeter
from raftckpt.node.descriptors import raise_descriptors
from raftckpt.node.diskroom import DiskRoom, log_bytes_max, segment_bytes
from raftckpt.node.driver import Driver
from raftckpt.node.health import Health, certificate_ends
from raftckpt.node.memory import Gardener, memory_for_data, memory_share, tame_malloc
from raftckpt.node.notify import Notifier
from raftckpt.node.reload import reloaded
from raftckpt.node.replica import Replica
from raftckpt.node.secret import peer_secret
from raftckpt.node.tls import check_certificates, client_context, peer_contexts
from raftckpt.raft.engine import open_log
from raftckpt.raft.founding import FoundingState, Verdict
from raftckpt.raft.links import PeerLinks
from raftckpt.raft.node import RaftNode
from raftckpt.raft.peering import Peering
from raftckpt.raft.port import Transferred
from raftckpt.raft.settings import RaftConfig
from raftckpt.server import page
from raftckpt.server.admin import AdminPort, Page
from raftckpt.server.gate import AdminGate
from raftckpt.server.lasthour import EVERY_S as RECORD_EVERY_S
from raftckpt.server.lasthour import LastHour
from raftckpt.server.listener import ClientListener
from raftckpt.server.metrics import Sources, details, exposition, readiness
from raftckpt.server.status import ReplicaInfo
from raftckpt.storage import DataDirectory, Missing, RealFileSystem, Storage, StorageError
from raftckpt.version import VERSION

__all__ = ["ReplicaProcess"]

log = EventLog("node")

_FOUNDING_TOLD_EVERY_S: Final = 10.0
_TRANSFER_SECONDS_MAX: Final = 3.0
_TRANSFER_POLL_S: Final = 0.02
_LOOK_AT_DISK_S: Final = 0.5
_STATUS_EVERY_S: Final = 2.0
_FIRST: Final = 1
"""Process id of the first process, of a machine or of a container."""
_REAP_EVERY_S: Final = 1.0
_HAND_OVER_EVERY_S: Final = 600.0
"""A leader whose disk is full tries once whether another one's is not."""
_DRAIN_SECONDS_MAX: Final = 2.0  # for answers in flight, when it stops
_DRAIN_POLL_S: Final = 0.005  # between looks whether they are out


class ReplicaProcess:
    """One replica. ``await run()`` inside an event loop.

    Arguments:
        config: the cluster.
        node: which of its replicas.
        joins: ``storage.REJOINS`` (its disk was lost) or the token of ``cluster add``.
        found: a list of one replica is a cluster.
        failed: told of what stops the replica; must not return to normal work.
        reread: reads the configuration again; None: it cannot be read again.
    """

    def __init__(
        self,
        config: ClusterConfig,
        node: str,
        *,
        joins: str = "",
        found: bool = False,
        failed: Callable[[BaseException], None],
        reread: Callable[[], ClusterConfig] | None = None,
    ) -> None:
        self._reread = reread
        self._notifier = Notifier()
        self._reloads: asyncio.Task[None] | None = None
        self._reload: Callable[[ClusterConfig], None] = lambda config: None
        """Has the parts take a configuration over."""
        self._config = config
        self._node = node
        self._joins = joins
        self._found = found
        self._failed = failed
        self._fs = RealFileSystem()
        self._path = os.fspath(config.directory(node))
        self._segment_bytes = segment_bytes(self._path)
        self._pending_bytes_max = memory_share(limits.PENDING_BYTES_MAX)
        self._disk = DiskRoom(self._path, self._segment_bytes)
        self._fs.relief = self._disk.release
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._signals = 0
        self._handed_over_at = float("-inf")
        self._driver: Driver | None = None
        self._health = Health(config, node)
        self._sources: Sources | None = None

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
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        if os.getpid() == _FIRST:
            self._reap()
        tame_malloc()
        config, node = self._config, self._node
        for fault in check_certificates(config, node):
            log.warning("certificate", setting=fault.setting, why=fault.why, fix=fault.fix)
        directory = DataDirectory.open(
            self._fs, self._path, config.cluster, node, joins=self._joins
        )
        at = config.replicas[node]
        links: PeerLinks | None = None
        cpu = CpuMeter(loop.call_soon)

        def send(to: str, body: bytes) -> None:
            if links is not None:
                links.send(to, body)

        def changed() -> None:
            if links is not None:
                links.dial(self._targets(peering))
            self._changed.set()

        def listening() -> None:
            cpu.working()
            if self._driver is not None:
                self._driver.hold()

        def listened() -> None:
            if self._driver is not None:
                self._driver.go_on()

        peering = Peering(
            directory,
            self._raft_config(),
            list(config.replicas),
            alone=self._found,
            founding_id=lambda: os.urandom(16).hex(),
            send=send,
            changed=changed,
            failed=self._on_failure,
        )
        links = PeerLinks(
            at.listens(at.peer),
            peering,
            peering,
            peer_contexts(config),
            secret=peer_secret(config),
            working=listening,
            worked=listened,
        )
        await links.start()
        admin = await self._open_admin()

        self._reload = lambda config: self._renew(config, links, None, admin)
        changed()
        verdict = await self._founded(peering)
        if verdict.outcome is not FoundingState.COMPLETE:
            await links.stop()
            directory.close()
            if admin is not None:
                admin.stop()
            if verdict.outcome is FoundingState.REFUSED:
                raise Missing(
                    f"starting {node} with the data directory {self._path} failed",
                    verdict.why,
                    verdict.remedy,
                )
            return
        storage = open_log(directory, fsync=config.fsync, segment_bytes=self._segment_bytes)
        replica, raft, listener, driver = self._build(storage, peering, links, cpu)
        gc_tamed = Gardener()
        driver.tended_by(gc_tamed)
        peering.hand_over(raft)
        self._look_at_disk(replica, raft, storage)
        if self._sources is not None:
            self._record(self._sources.recorder, replica)
        await listener.start(*at.listens(at.client))
        driver.start(raft)
        self._reload = lambda config: self._take(config, replica, raft, listener, links, admin)
        self._notifier.ready()
        self._tell_status()
        log.info(
            "ready",
            client=str(at.client),
            peer=str(at.peer),
            pid=os.getpid(),
            version=VERSION,
            data_dir=self._path,
            durability=config.durability,
        )
        await self._stop.wait()
        await self._leave(replica, raft, listener, links, driver)
        if admin is not None:
            admin.stop()
        self._notifier.close()

    async def _open_admin(self) -> AdminPort | None:
        """Answer probes from the first moment, also while the founding is waited for."""
        at = self._config.replicas[self._node]
        if at.admin is None:
            return None
        names = frozenset(address.host.lower() for address in (at.admin, at.client, at.peer))
        tls = None if at.admin.loopback else client_context(self._config)
        gate = AdminGate(lambda: self._sources, self._config.cluster, self._opened, self._clock)
        admin = AdminPort(self._word, self._metrics, names, tls, self._pages(), gate)
        host, port = await admin.start(*at.admin)
        log.info("admin", address=str(Address(host, port)))
        return admin

    def _opened(self) -> frozenset[str]:
        """Paths of the admin port that are for everybody who reaches it, beside the words."""
        return frozenset({"/metrics"} if self._config.admin_open == "metrics" else ())

    def _word(self) -> str:
        """Whether this replica serves, in a word."""
        if self._stop.is_set():
            return "stopping"
        return "founding" if self._sources is None else readiness(self._sources.replica)

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

    def _record(self, recorder: LastHour, replica: Replica) -> None:
        """Every second: keep what the page will tell of it."""
        if self._stop.is_set():
            return
        recorder.look(replica.log.status(), self._clock.wall_ns())
        asyncio.get_running_loop().call_later(RECORD_EVERY_S, self._record, recorder, replica)

    def _metrics(self) -> bytes | None:
        return None if self._sources is None else exposition(self._sources)

    def _raft_config(self) -> RaftConfig:
        config, timing = self._config, self._config.timing
        at = config.replicas[self._node]
        return RaftConfig(
            announced(at.peer),
            announced(at.client),
            memory=config.limits.data_bytes or memory_for_data(),
            heartbeat_s=timing.heartbeat_ms / 1000,
            election_min_s=timing.election_min_ms / 1000,
            election_max_s=timing.election_max_ms / 1000,
            snapshot_entries=config.snapshot.entries,
            # the log is in memory, too, from the last snapshot on
            snapshot_bytes=memory_share(config.snapshot.bytes),
            keep_bytes=memory_share(min(RaftConfig().keep_bytes, self._segment_bytes)),
            log_bytes_max=log_bytes_max(self._segment_bytes),
        )

    def _targets(self, peering: Peering) -> Iterator[tuple[str, tuple[str, int]]]:
        """What is dialled: the file, the configuration, what peers told; routes go before all."""
        config = self._config
        listed = {(node, str(at.peer)) for node, at in config.replicas.items()}
        for node, text in listed | peering.targets():
            address = config.routes.get(node) or _address(text)
            if node != self._node and address is not None:
                yield node, (address.host, address.port)

    async def _founded(self, peering: Peering) -> Verdict:
        """Wait until the founding is complete or refused, or until we are asked to stop."""
        told = ""
        while True:
            self._changed.clear()
            verdict = peering.verdict()
            if verdict.why != told or verdict.outcome is not FoundingState.WAIT:
                told = verdict.why
                self._notifier.status(f"founding: {verdict.why}")
                log.info("founding", outcome=verdict.outcome.value, why=verdict.why)
            if verdict.outcome is not FoundingState.WAIT or self._stop.is_set():
                return verdict
            try:
                await asyncio.wait_for(self._changed.wait(), _FOUNDING_TOLD_EVERY_S)
            except TimeoutError:
                told = ""

    def _build(
        self, storage: Storage, peering: Peering, links: PeerLinks, cpu: CpuMeter
    ) -> tuple[Replica, RaftNode, ClientListener, Driver]:
        config, node, clock = self._config, self._node, self._clock
        endpoints: dict[str, str] = {}
        driver: Driver
        recorder: LastHour

        def wake() -> None:
            driver.wake()

        def fail(error: BaseException) -> None:
            driver.fail(error)

        notes = storage.directory.notes

        def differs(index: int, own: str, leaders: str) -> None:
            log.error("state_differs", index=index, own=own, leaders=leaders)
            notes.differs(
                f"the state of {node} at entry {index} was not the leader's (digest {own[:16]}, "
                f"the leader's {leaders[:16]}): keep all data directories and report it; then "
                f"replace {node}, or clear this with raftckpt cluster clear {node}"
            )

        replica = Replica(
            node,
            endpoints,
            clock,
            wake,
            data_bytes=config.limits.data_bytes or memory_for_data(),
            failed=fail,
            configured=peering.configured,
            differs=differs,
        )
        info = ReplicaInfo(
            node,
            config.cluster,
            storage.identity.founding,
            storage.identity.directory,
            endpoints,
            config.durability,
            clock.monotonic(),
            storage.bytes_on_disk,
            lambda: storage.journal.syncs,
            lambda: peering.alarms() + replica.alarms + self._disk.alarms(),
            notes.clear,
            lambda: driver.longest.value,
            self._health.told,
            cpu,
            lambda: recorder.told(),
        )
        listener = ClientListener(
            replica,
            info,
            clock,
            client_context(config),
            edge=config.limits,
            working=cpu.working,
            history_bytes=memory_share(limits.HISTORY_BYTES_MAX),
        )
        driver = Driver(
            asyncio.get_running_loop(),
            replica,
            clock,
            listener.flush,
            self._on_failure,
            lambda: self._fs.sync_s,
            cpu.working,
        )
        raft = RaftNode(
            self._raft_config(),
            replica,
            storage,
            links.send,
            wake,
            clock,
            random.Random(),
        )
        replica.attach_log(raft)
        self._fs.synced = replica.meters.fsync.observe
        self._fs.waiting.meanwhile = raft.wait_for_disk
        alarms = {
            "consensus": lambda: raft.status().alarms,
            "peers": peering.alarms,
            "state": lambda: replica.alarms,
            "disk": self._disk.alarms,
        }
        recorder = LastHour(
            replica,
            listener.tracking.history,
            lambda: (text for told in alarms.values() for text in told()),
        )
        self._sources = Sources(
            replica,
            listener,
            info,
            self._health,
            lambda: self._disk.full,
            alarms,
            self._word,
            recorder,
        )
        self._fs.taken = lambda: self._room_taken(replica, storage)
        storage.snapshots.fits = lambda size: self._fits(size, replica)
        self._driver = driver
        return replica, raft, listener, driver

    def _look_at_disk(self, replica: Replica, raft: RaftNode, storage: Storage) -> None:
        """Now and then: what is free decides what is admitted."""
        if self._stop.is_set():
            return
        journal = storage.journal
        if self._disk.look(replica.machine.footprint, journal.bytes_on_disk):
            raft.compact()
        if (self._disk.full or self._disk.short) and not journal.dirty:
            journal.sync()  # nobody writes: what is left of files that are not needed goes now
        self._room_taken(replica, storage)
        now = self._clock.monotonic()
        if self._disk.full and replica.leading and now - self._handed_over_at > _HAND_OVER_EVERY_S:
            # perhaps another one has room; if none has, leadership does not go round and round
            self._handed_over_at = now
            log.warning("hands_over", why="disk_full")
            replica.transfer(None, lambda outcome: None)
        loop = asyncio.get_running_loop()
        loop.call_later(_LOOK_AT_DISK_S, self._look_at_disk, replica, raft, storage)

    def _fits(self, size: int, replica: Replica) -> bool:
        self._disk.measure(replica.machine.footprint)
        return self._disk.fits(size or replica.machine.footprint)

    def _room_taken(self, replica: Replica, storage: Storage) -> None:
        """A segment may have begun: what is taken on before the next look has to fit, too."""
        self._disk.measure(replica.machine.footprint)
        replica.disk_room(self._disk.full, min(self._disk.allowance, self._pending_bytes_max))
        storage.short = self._disk.short

    # --- leaving ------------------------------------------------------------------------------
    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            log.warning("stopping_now", signal=number)
            logging.shutdown()
            os._exit(128 + number)
        log.info("stopping", signal=number)
        self._notifier.stopping()
        self._stop.set()
        self._changed.set()

    # --- reloading ----------------------------------------------------------------------------
    def _on_hangup(self) -> None:
        """A terminal that closes, or somebody who wants files to be read again."""
        if self._reloads is None or self._reloads.done():
            self._reloads = asyncio.get_running_loop().create_task(self._read_again())

    async def _read_again(self) -> None:
        """Take over what can be; a file that is wrong changes nothing."""
        if self._reread is None:
            log.warning("hangup", why="this replica has no file that it could read again")
            return
        self._notifier.reloading()
        try:
            read = await asyncio.to_thread(self._reread)
            faults = await asyncio.to_thread(check_certificates, read, self._node, renewed=True)
            found = reloaded(self._config, read)
            self._reload(found.config)
        except (ConfigError, OSError) as error:
            log.error("reload_failed", why=f"nothing was changed: {error}")
        else:
            self._config = found.config
            logs.configure(self._node, found.config.log)
            log.info("reloaded", taken=" ".join([*found.taken, "certificates"]))
            for fault in faults:
                log.warning("certificate", setting=fault.setting, why=fault.why, fix=fault.fix)
            if found.left:
                log.warning("reload_incomplete", restart_for=" ".join(found.left))
        self._notifier.ready()

    def _renew(
        self,
        config: ClusterConfig,
        links: PeerLinks,
        listener: ClientListener | None,
        admin: AdminPort | None,
    ) -> None:
        """Connections made from now on have the certificates of the files as they are now.

        Raises:
            ConfigError: they cannot be used; nothing was changed.
        """
        peer, client = peer_contexts(config), client_context(config)
        links.tls = peer
        if listener is not None:
            listener.tls = client
        if admin is not None and admin.tls is not None:
            admin.tls = client
        self._health.certificates = certificate_ends(config)

    def _take(
        self,
        config: ClusterConfig,
        replica: Replica,
        raft: RaftNode,
        listener: ClientListener,
        links: PeerLinks,
        admin: AdminPort | None,
    ) -> None:
        """Have the parts take a configuration over; what may fail comes first.

        Raises:
            ConfigError: the certificates cannot be used; nothing was changed.
        """
        self._renew(config, links, listener, admin)
        raise_descriptors(config.limits.connections + limits.DESCRIPTORS_RESERVED)
        listener.limit(config.limits)
        replica.data_bytes_max = config.limits.data_bytes or memory_for_data()
        timing = config.timing
        raft.retime(
            timing.heartbeat_ms / 1000, timing.election_min_ms / 1000, timing.election_max_ms / 1000
        )

    def _tell_status(self) -> None:
        """Now and then: have the service manager know who leads."""
        if self._sources is None or self._stop.is_set():
            return
        replica = self._sources.replica
        role = "leads" if replica.leading else f"follows {replica.leader or 'nobody'}"
        self._notifier.status(f"{self._node} {role} ({self._word()})")
        asyncio.get_running_loop().call_later(_STATUS_EVERY_S, self._tell_status)

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
        if replica.leading and raft.voters() > 1:
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
        majority = raft.voters() // 2 + 1
        while not handed.done() and self._clock.monotonic() < until:
            if sum(peer.connected and peer.voter for peer in raft.status().peers) < majority:
                break  # without us they are no majority: nobody can take over
            await asyncio.wait([handed], timeout=_TRANSFER_POLL_S)
        outcome = handed.result().value if handed.done() else "given_up"
        log.info("transferred", outcome=outcome, leader=replica.leader)

    def _reap(self) -> None:
        """The first process of a container inherits orphans (of probes, say): bury them."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        asyncio.get_running_loop().call_later(_REAP_EVERY_S, self._reap)

    # --- failing ------------------------------------------------------------------------------
    def _on_failure(self, error: BaseException) -> None:
        if self._driver is not None:
            self._driver.stop()
        self._failed(error)

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Judge what no protocol caught: a broken belief stops us, a broken connection does not.

        What a connection called of the replica was judged there: all of it stops us.
        """
        error, what = context.get("exception"), str(context.get("message"))
        if isinstance(error, InvariantViolation | StorageError | MemoryError):
            self._failed(error)
        elif isinstance(error, OSError):  # includes TLS errors
            log.debug("connection_error", what=what, why=str(error))
        elif isinstance(error, Exception):
            log.error("unexpected", what=what, raised=error)
        else:
            log.error("unexpected", what=what)


def _address(text: str) -> Address | None:
    """Read what a peer told; None if it is no address."""
    try:
        return parse_address(text)
    except ValueError:
        return None

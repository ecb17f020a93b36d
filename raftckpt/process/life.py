"""The life of a replica as a process: it starts, serves until it is told to stop, and leaves.

Order of a start: lock the directory, wait until its founding is complete, verify what it holds,
build the machine from snapshot and journal, listen, tell that we are ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Final

from raftckpt.errors import InvariantViolation
from raftckpt.events import EventLog
from raftckpt.node.config import ClusterConfig
from raftckpt.node.memory import Gardener, tame_malloc
from raftckpt.node.replica import Replica
from raftckpt.node.tls import check_certificates
from raftckpt.process.assemble import Assembly, Groundwork, assemble
from raftckpt.process.desk import AdminDesk
from raftckpt.process.disk import LOOK_EVERY_S
from raftckpt.process.notify import Notifier
from raftckpt.process.reload import Reloading, tell_faults
from raftckpt.raft.founding import FoundingState, Verdict
from raftckpt.raft.peering import Peering
from raftckpt.raft.port import Transferred
from raftckpt.server.lasthour import EVERY_S as RECORD_EVERY_S
from raftckpt.storage import Missing, StorageError
from raftckpt.version import VERSION

__all__ = ["ReplicaProcess"]

log = EventLog("node")

_FOUNDING_TOLD_EVERY_S: Final = 10.0
"""Seldom enough for a log that a person reads while he starts the other hosts."""
_TRANSFER_SECONDS_MAX: Final = 3.0
"""Some elections; then it goes without handing over, and the others elect. Supervisors wait 10 s
and more."""
_TRANSFER_POLL_S: Final = 0.02
"""Who ends is not held up noticeably by looking whether the others have gone."""
_STATUS_EVERY_S: Final = 2.0
"""A line that people look at; it is sent when it has changed."""
_FIRST: Final = 1
"""Process id of the first process, of a machine or of a container."""
_REAP_EVERY_S: Final = 1.0
"""An orphan that ended holds a process id, and no more."""
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
        self._notifier = Notifier()
        self._reloading = Reloading(config, node, reread, self._notifier)
        self._node = node
        self._joins = joins
        self._found = found
        self._failed = failed
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
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
        loop.add_signal_handler(signal.SIGHUP, self._reloading.ask)
        if os.getpid() == _FIRST:
            self._now_and_every(_REAP_EVERY_S, _reap)
        tame_malloc()
        config, node = self._reloading.config, self._node
        tell_faults(check_certificates(config, node))
        ground = Groundwork(
            config,
            node,
            joins=self._joins,
            found=self._found,
            changed=self._changed.set,
            failed=self._failed,
        )
        desk = AdminDesk(config, node, ground.clock, self._stop.is_set)
        self._reloading.takers += [ground.take, desk.take]
        await ground.links.start()
        await desk.open()
        ground.redial()
        verdict = await self._founded(ground.peering)
        if verdict.outcome is not FoundingState.COMPLETE:
            await ground.close()
            desk.close()
            if verdict.outcome is FoundingState.REFUSED:
                raise Missing(
                    f"starting {node} with the data directory {ground.path} failed",
                    verdict.why,
                    verdict.remedy,
                )
            return
        assembly = assemble(ground, self._reloading.config, desk.word)
        self._reloading.takers.append(assembly.take)  # at once: what is read meanwhile is its, too
        await self._serve(ground, assembly, desk)
        await self._leave(ground, assembly)
        desk.close()
        self._notifier.close()

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

    async def _serve(self, ground: Groundwork, assembly: Assembly, desk: AdminDesk) -> None:
        """Have all parts run until we are asked to stop."""
        config, replica = self._reloading.config, assembly.replica
        at, recorder = config.replicas[self._node], assembly.sources.recorder
        desk.show(assembly.sources)
        gardener = Gardener()
        ground.peering.hand_over(replica.log)
        self._now_and_every(LOOK_EVERY_S, assembly.watch.look)
        self._now_and_every(
            RECORD_EVERY_S, lambda: recorder.look(replica.log.status(), ground.clock.wall_ns())
        )
        await assembly.listener.start(*at.listens(at.client))
        ground.driver.start(replica, assembly.listener.flush, gardener)
        self._notifier.ready()
        self._now_and_every(_STATUS_EVERY_S, lambda: self._tell_status(replica, desk.word()))
        log.info(
            "ready",
            client=str(at.client),
            peer=str(at.peer),
            pid=os.getpid(),
            version=VERSION,
            data_dir=ground.path,
            durability=config.durability,
        )
        await self._stop.wait()

    def _now_and_every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call now, and so often until we are asked to stop."""
        if not self._stop.is_set():
            call()
            asyncio.get_running_loop().call_later(seconds, self._now_and_every, seconds, call)

    def _tell_status(self, replica: Replica, word: str) -> None:
        """Have the service manager know who leads."""
        role = "leads" if replica.leading else f"follows {replica.leader or 'nobody'}"
        self._notifier.status(f"{self._node} {role} ({word})")

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

    async def _leave(self, ground: Groundwork, assembly: Assembly) -> None:
        """Hand leadership over, answer what is in flight, sync, close."""
        replica, listener = assembly.replica, assembly.listener
        listener.stop_accepting()
        if replica.leading and replica.log.voters() > 1:
            await _hand_over(replica)
        for _ in range(int(_DRAIN_SECONDS_MAX / _DRAIN_POLL_S)):
            if not listener.inflight:
                break
            await asyncio.sleep(_DRAIN_POLL_S)
        listener.going_away()
        listener.stop()
        await asyncio.sleep(0)  # what was written leaves
        ground.driver.stop()
        await ground.links.stop()
        replica.log.close()
        log.info("stopped")

    # --- failing ------------------------------------------------------------------------------
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


async def _hand_over(replica: Replica) -> None:
    """Transfer leadership, unless too few are left to lead (everybody is stopping)."""
    handed: asyncio.Future[Transferred] = asyncio.get_running_loop().create_future()

    def done(outcome: Transferred) -> None:
        if not handed.done():
            handed.set_result(outcome)

    replica.transfer(None, done)
    until = replica.monotonic() + _TRANSFER_SECONDS_MAX
    majority = replica.log.voters() // 2 + 1
    while not handed.done() and replica.monotonic() < until:
        if sum(peer.connected and peer.voter for peer in replica.log.status().peers) < majority:
            break  # without us they are no majority: nobody can take over
        await asyncio.wait([handed], timeout=_TRANSFER_POLL_S)
    outcome = handed.result().value if handed.done() else "given_up"
    log.info("transferred", outcome=outcome, leader=replica.leader)


def _reap() -> None:
    """The first process of a container inherits orphans (of probes, say): bury them."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass

"""Stages csa103: two components on a local cluster, kills in turn, a history for the verdict.

Who is active is the cluster's decision: the components form a service group. The director watches
their processes (a pidfd tells of a death at once) and starts the dead one again, as a standby. Gaps
are not measured here but from the components' own time stamps: all processes of a machine share
CLOCK_MONOTONIC.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from raftckpt.errors import CheckpointError
from raftckpt.testing import background
from raftckpt.testing.csa103.group_roles import GROUP
from raftckpt.testing.csa103.verdict import (
    Acknowledged,
    Begun,
    Event,
    Found,
    Killed,
    RunJudgement,
    judge,
)
from raftckpt.testing.local_cluster import LocalCluster
from raftckpt.testing.probe import ReplicaProbe, replica_digests

__all__ = ["KINDS", "Director", "Moment", "RunOutcome"]

KINDS = ("active", "leader", "node")
"""What can be killed: the active component, the leading replica, or a node with both on it."""

_RECOVERY_S_MAX = 40.0
_CALM_S = 0.7
"""Time for the eye between a recovery and the repair of what was killed."""


class Moment(NamedTuple):
    """Something worth telling. ``kind``: started, active, standby, number, kill, resumed, note."""

    at_s: float
    kind: str
    who: str
    text: str
    value: int | None = None


class RunOutcome(NamedTuple):
    """Result of a run: the judgement, and how the cluster stood at the end."""

    judgement: RunJudgement
    numbers_per_s: float
    digest_index: int
    digests: dict[str, str | None]


class _Component:
    def __init__(self, name: str, node: str) -> None:
        self.name = name
        self.node = node
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.state = "down"  # down, starting, standby, active
        self.partial = b""

    @property
    def instance(self) -> str:
        """Name of this incarnation."""
        return f"{self.name}[{self.process.pid if self.process else 0}]"


class Director:
    """Runs the play.

    Arguments:
        cluster: a ready cluster of at least three replicas.
        seconds: how long the counter runs, kills included (longer if recovery takes longer).
        kills: words of :data:`KINDS`, in order.
        interval: seconds between two numbers.
        tell: is told every :class:`Moment`.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        *,
        seconds: float,
        kills: Sequence[str],
        interval: float = 0.02,
        tell: Callable[[Moment], None],
    ) -> None:
        self._cluster = cluster
        self._seconds = seconds
        self._kills = kills
        self._interval = interval
        self._tell = tell
        self._components = [
            _Component(f"csa103CompI{number}", cluster.nodes[number]) for number in range(2)
        ]
        self._history: list[Event] = []
        self._selector = selectors.DefaultSelector()
        self._started_ns = time.monotonic_ns()

    def run(self) -> RunOutcome:
        """Run to the end and judge.

        Raises:
            RuntimeError: if a component cannot even start.
        """
        try:
            leader = self._cluster.leader()
            others = [node for node in self._cluster.nodes if node != leader]
            self._moment("started", leader, f"leads, {' and '.join(others)} follow")
            first_one, *rest = self._components
            self._start(first_one)
            self._until(lambda: first_one.state == "active")
            for component in rest:
                self._start(component)
            self._until(lambda: all(c.state == "standby" for c in rest))
            self._until(lambda: self._count(Acknowledged) > 0)
            begin = time.monotonic()
            first = self._count(Acknowledged)
            self._kill_all_in_turn(begin)
            self._pump_until(begin + self._seconds)
            rate = (self._count(Acknowledged) - first) / (time.monotonic() - begin)
            self._final_read()
            index, digests = self._digests()
            judgement = judge(self._history)
            unequal = len(set(digests.values())) != 1 or None in digests.values()
            if unequal:
                judgement.problems.append(f"the replicas differ at log index {index}: {digests}")
            return RunOutcome(judgement, rate, index, digests)
        finally:
            self._end()

    # --- the kills ---------------------------------------------------------------------------

    def _kill_all_in_turn(self, begin: float) -> None:
        for number, kind in enumerate(self._kills):
            self._pump_until(begin + self._seconds * (number + 1) / (len(self._kills) + 1))
            if kind == "active":
                self._kill(kind, components=[self._active()], nodes=[])
            elif kind == "leader":
                self._kill(kind, components=[], nodes=[self._cluster.leader()])
            else:
                active = self._active()
                self._lead_from(active.node)
                self._kill(kind, components=[active], nodes=[self._cluster.leader()])
            if not self._recover():
                return

    def _kill(self, kind: str, *, components: list[_Component], nodes: list[str]) -> None:
        self._pump(0.0)
        what = " and ".join([c.name for c in components] + [f"replica {node}" for node in nodes])
        last = next(
            (e.number for e in reversed(self._history) if isinstance(e, Acknowledged)), None
        )
        at_ns = time.monotonic_ns()
        for component in components:
            if component.process is not None:
                component.process.kill()
        if nodes:
            self._cluster.kill(*nodes)
        # Whatever the dead one still said belongs before the kill in the history only by its own
        # time stamps; in causal order it is read here, before anybody takes over.
        self._history.append(Killed(at_ns, kind, what))
        self._moment("kill", kind, what, last)

    def _recover(self) -> bool:
        at = max(i for i, e in enumerate(self._history) if isinstance(e, Killed))

        def resumed() -> bool:
            return judge(self._history[at:]).failovers[0].gap_ns is not None

        if not self._until(resumed, may_fail=True):
            self._moment("note", "", f"no number within {_RECOVERY_S_MAX:g} s")
            return False
        failover = judge(self._history).failovers[-1]
        gap_ms = (failover.gap_ns or 0) / 1e6
        self._moment("resumed", failover.component, f"{gap_ms:.0f}", failover.first_after)
        self._pump_until(time.monotonic() + _CALM_S)
        self._repair()
        return True

    def _repair(self) -> None:
        for node in self._cluster.nodes:
            if self._cluster.pid(node) is None:
                self._cluster.restart(node, wait=False)
                self._until(functools.partial(self._answers, node))
                self._moment("started", node, "restarted, follows the leader")
        for component in self._components:
            if component.state == "down":
                self._start(component)
        self._until(lambda: all(c.state in ("standby", "active") for c in self._components))
        self._cluster.wait_ready()
        self._moment("note", self._cluster.leader(), "leads")

    def _answers(self, node: str) -> bool:
        return self._cluster.status(node, 0.3) is not None

    def _lead_from(self, node: str) -> None:
        """Have the replica of ``node`` lead, so that killing a node takes both roles at once."""
        leader = self._cluster.leader()
        if leader == node:
            return
        try:
            with ReplicaProbe(self._cluster.endpoint(leader), timeout=5.0) as probe:
                probe.transfer(node)
            self._until(lambda: self._cluster.leader() == node)
            self._moment("note", node, "leads now (leadership handed over)")
        except CheckpointError as error:
            self._moment("note", leader, f"keeps leading: {error}")

    # --- components (the part of AMF) ----------------------------------------------------------

    def _active(self) -> _Component:
        self._until(lambda: any(c.state == "active" for c in self._components))
        return next(c for c in self._components if c.state == "active")

    def _start(self, component: _Component) -> None:
        own = self._cluster.endpoint(component.node)
        others = [e for e in self._cluster.endpoints.split(",") if e != own]
        with (self._cluster.data_dir / f"{component.name}.log").open("ab") as log:
            process = background.spawn(
                [
                    "-m",
                    "raftckpt.testing.csa103.component",
                    f"--endpoints={','.join([own, *others])}",
                    f"--node={component.node}",
                    f"--name={component.name}",
                    f"--interval={self._interval}",
                    "--output=json",
                    f"--group={GROUP}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        component.process, component.state, component.partial = process, "starting", b""
        component.pidfd = os.pidfd_open(process.pid)
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)
            self._selector.register(process.stdout, selectors.EVENT_READ, component)
        self._selector.register(component.pidfd, selectors.EVENT_READ, component)

    def _pump(self, wait_s: float) -> None:
        for key, _ in self._selector.select(wait_s):
            component: _Component = key.data
            if component.process is None:
                continue
            if key.fileobj == component.pidfd:
                self._died(component)
            else:
                self._listen(component)

    def _listen(self, component: _Component) -> None:
        process = component.process
        data = process.stdout.read() if process is not None and process.stdout else None
        *lines, component.partial = (component.partial + (data or b"")).split(b"\n")
        for line in lines:
            self._heard(component, *json.loads(line))

    def _heard(self, component: _Component, kind: str, *rest: Any) -> None:
        instance = component.instance
        if kind == "standby":
            component.state = "standby"
            self._moment("standby", component.name, f"on {component.node}")
        elif kind == "active":
            component.state = "active"
            self._history.append(Found(rest[0], instance, rest[1]))
            self._moment("active", component.name, f"on {component.node}", rest[1])
        elif kind == "begin":
            self._history.append(Begun(rest[0], instance, rest[1]))
        elif kind == "ack":
            self._history.append(Acknowledged(rest[0], instance, rest[1]))
            self._moment("number", component.name, f"Hello World! (seq={rest[1]})", rest[1])

    def _died(self, component: _Component) -> None:
        process = component.process
        if process is None:
            return
        process.wait()
        self._listen(component)  # the pipe still holds all it said
        self._forget(component)
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(self._why(component, process.returncode))

    def _why(self, component: _Component, code: int) -> str:
        """Why a component ended by itself: its last word, which names a lost session."""
        log = (self._cluster.data_dir / f"{component.name}.log").read_text("utf-8", "replace")
        words = [line for line in log.splitlines() if line.strip()]
        last = words[-1] if words else "without a word"
        told = [f"{component.name} ended with {code}: {last}"]
        for node in self._cluster.nodes:
            told += self._cluster.log(node, 1).splitlines()
        return "; ".join(told)

    def _forget(self, component: _Component) -> None:
        process = component.process
        self._selector.unregister(component.pidfd)
        os.close(component.pidfd)
        if process is not None and process.stdout is not None:
            self._selector.unregister(process.stdout)
            process.stdout.close()
        component.process, component.state = None, "down"

    # --- the end -----------------------------------------------------------------------------

    def _final_read(self) -> None:
        """Stop the counter, then read: all that was acknowledged must be there."""
        import raftckpt
        from raftckpt.testing.csa103.component import CHECKPOINT, SECTION

        self._active()
        with raftckpt.connect(self._cluster.endpoints, name="verdict") as service:
            checkpoint = service.open(CHECKPOINT)  # its retention is over with its last opener
            for component in sorted(self._components, key=lambda each: each.state == "active"):
                if component.process is not None:  # the standby first: it is not to take over
                    component.process.kill()
            self._until(lambda: all(each.state == "down" for each in self._components))
            checkpoint.active_replica_set()  # nobody is active any more, so nobody could read
            data = checkpoint.read(SECTION)
        value = int.from_bytes(data, "big")
        self._history.append(Found(time.monotonic_ns(), "the final read", value))
        self._moment("note", "", f"final linearizable read: {value}")

    def _digests(self) -> tuple[int, dict[str, str | None]]:
        endpoints = {node: self._cluster.endpoint(node) for node in self._cluster.nodes}
        return replica_digests(endpoints, self._cluster.leader())

    def _end(self) -> None:
        for component in self._components:
            if component.process is not None:
                component.process.kill()
                component.process.wait()
                self._forget(component)
        self._selector.close()

    # --- helpers -----------------------------------------------------------------------------

    def _moment(self, kind: str, who: str, text: str, value: int | None = None) -> None:
        at_s = (time.monotonic_ns() - self._started_ns) / 1e9
        self._tell(Moment(at_s, kind, who, text, value))

    def _count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self._history)

    def _pump_until(self, deadline: float) -> None:
        while (left := deadline - time.monotonic()) > 0:
            self._pump(min(left, 0.1))

    def _until(self, condition: Callable[[], bool], *, may_fail: bool = False) -> bool:
        deadline = time.monotonic() + _RECOVERY_S_MAX
        while not condition():
            if time.monotonic() > deadline:
                if may_fail:
                    return False
                raise RuntimeError(f"the play is stuck after {_RECOVERY_S_MAX:g} s")
            self._pump(0.05)
        return True

"""A world: replicas, network, clients and checks under one seed.

Same seed, same trace: nothing in here reads a clock, the environment or a hash order.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from raftckpt.raft.peering import StartRefused
from raftckpt.raft.port import Removal, Role
from raftckpt.version import HIGHEST_LEVEL, LOWEST_LEVEL
from tests.sim import crashpoints, nodes
from tests.sim.checks import Checks, Violation
from tests.sim.enginepatch import patched
from tests.sim.events import EventQueue, NodeClock, Trace
from tests.sim.faults import Faults
from tests.sim.machine import value
from tests.sim.network import Network
from tests.sim.process import Process, Write
from tests.sim.sabotage import planted

HEALED_WITHIN_S: Final = 12.0
"""After the last fault: one leader, everybody caught up, writes acknowledged."""
STEPS_PER_SECOND_MAX: Final = 20_000
"""Per node; more means that it spins."""


@dataclass(frozen=True)
class Outcome:
    """What a run was worth."""

    seed: int
    digest: str
    violation: str | None
    counters: dict[str, int]
    crashed: dict[str, int]
    """Crash point -> how often a process died there."""
    virtual_s: float
    tail: list[str]


class World:
    """One seed, one run. ``sabotage`` may spoil a node on purpose (negative tests)."""

    process_class = Process
    service = False
    crash_points = crashpoints.CONSENSUS

    def __init__(
        self,
        seed: int,
        *,
        seconds: float = 20.0,
        echo: bool = False,
        families: set[str] | None = None,
        size: int | None = None,
        sabotage: str = "",
        founded: bool | None = None,
    ) -> None:
        self.seed, self.seconds, self.sabotage = seed, seconds, sabotage
        rng = random.Random(f"{seed}/world")
        self.queue = EventQueue()
        self.trace = Trace(echo=echo)
        self.rng_disk = random.Random(f"{seed}/disk")
        self.rng_load = random.Random(f"{seed}/load")
        count = size or rng.choices((3, 5, 1, 2), (75, 15, 5, 5))[0]
        names = [f"n{i}" for i in range(1, count + 1)]
        self.checks = Checks()
        self.names: dict[str, str] = {}
        """Directory id -> the host it was last opened on."""
        self.levels = (LOWEST_LEVEL, HIGHEST_LEVEL)
        self.running: Process | None = None
        self.crash_types = nodes.CRASH_TYPES
        self.segment_bytes = rng.choice((16_384, 65_536, 262_144))
        self.snapshot_entries = rng.choice((30, 200, 100_000))
        self.keep_entries = rng.choice((0, 5, 100))
        self.tuning = nodes.Tuning.draw(rng)
        self.ballast = rng.choice((0, 0, 100_000, 700_000))
        self.value_bytes = rng.choice((16, 100, 5000))
        self.write_gap_s = rng.choice((0.01, 0.04, 0.2))
        self.read_gap_s = rng.choice((0.04, 0.2))
        self.processes: dict[str, Process] = {}
        self.lost_crashes: list[str] = []
        """Crash points hit on disks that were thrown away."""
        for name in names:
            clock = NodeClock(self.queue, rng.uniform(0, 1e5), 1.0)
            self.processes[name] = self.process_class(
                self, name, nodes.make_disk(seed, name), clock
            )
        self.network = Network(
            self.queue,
            self.trace,
            random.Random(f"{seed}/net"),
            list(self.processes.values()),
        )
        for process in self.processes.values():
            process.file = names
            process.says_found = count == 1
        self.network.admit = self._admits
        self.founded = rng.random() < 0.5 if founded is None else founded
        """Whether the cluster is there when the run begins; else it is founded in it."""
        self.majority_lost = False
        """A disk was lost in the moment of a change: what is left serves no more."""
        self.lost_at: dict[str, float] = {}
        """When a data directory was lost."""
        self.appended_at: dict[tuple[int, int], float] = {}
        """When a leader appended the configuration of a place (term, index)."""
        self.faults = Faults(self, random.Random(f"{seed}/faults"), families)
        self.note("world", seed, count, sorted(self.faults.families), self.ballast)
        self._numbers = 0
        self._loading = True

    def note(self, *words: object) -> None:
        self.trace.note(self.queue.now, *words)

    # --- running ----------------------------------------------------------------------------
    @contextmanager
    def _library(self) -> Iterator[None]:
        def now() -> float:
            return self.running.clock() if self.running is not None else self.queue.now

        dice = random.Random(f"{self.seed}/library")
        with (
            patched(now, dice),
            self.tuning.applied(),
            crashpoints.hooked(self._passing, service=self.service),
            planted(self.sabotage),
        ):
            yield

    def _passing(self, name: str) -> None:
        """The running process passes a crash point outside its disk."""
        if self.running is not None:
            disk = self.running.disk
            disk.pass_point(disk.fs, name)

    def run(self) -> Outcome:
        """Faults, then healing; stops at the first violation."""
        violation: str | None = None
        with self._library():
            try:
                self._run()
            except Violation as found:
                violation = str(found)
            if self.checks.violation is not None:
                violation = str(self.checks.violation)
        if violation is not None:
            self.note("VIOLATION", violation)
        counters = dict(self.checks.sometimes)
        counters["acknowledged"] = len(self.checks.acknowledged)
        counters["unknown"] = len(self.checks.unknown)
        counters["refused"] = len(self.checks.refused)
        counters["committed index"] = self.checks.committed
        counters["events"] = self.trace.count
        return Outcome(
            self.seed,
            self.trace.digest(),
            violation,
            counters,
            self._crashed(),
            self.queue.now,
            list(self.trace.tail),
        )

    def _crashed(self) -> dict[str, int]:
        crashed = Counter(self.lost_crashes)
        for process in self.processes.values():
            crashed.update(process.disk.crashes)
        return {name: crashed[name] for name in sorted(crashed) if "." in name}

    @contextmanager
    def scripted(self) -> Iterator[None]:
        """Start the nodes and leave the rest (faults, load, time) to a script."""
        with self._library():
            self.begin()
            yield
            if self.checks.violation is not None:
                raise self.checks.violation

    def begin(self) -> None:
        """Start all processes."""
        if self.founded:
            nodes.found_at_once(list(self.processes.values()), self.levels[1])
        for process in self.processes.values():
            process.start()

    def _admits(self, one: str, other: str) -> bool:
        """Both ends say who they are; who is told that it must not go on stops."""
        ends = [self.processes[name] for name in (one, other)]
        hellos = [process.peering.hello() for process in ends]
        for process, hello, speaker in zip(ends, reversed(hellos), reversed(ends), strict=True):
            node = process.node_id
            why, fatal = process.peering.objection(hello)
            if why is not None:
                if fatal:
                    speaker.guarded(partial(speaker.peering.refused, node, why))
                return False
        return True

    def _run(self) -> None:
        self.begin()
        self.load()
        self.faults.begin()
        self.advance(self.seconds)
        self.faults.end()
        self.note("heal")
        self.settle()

    def load(self) -> None:
        """Clients begin to write and read."""
        self._load()
        self._reads()

    def settle(self) -> None:
        """After the last fault: converge, stop the clients, look at everything once more."""
        limit = self.queue.now + HEALED_WITHIN_S
        while True:
            self.advance(0.25)
            why = self._unhealed()
            if why is None:
                break
            if self.queue.now > limit:
                self.checks.fail("heals", why)
        self._loading = False
        self.advance(3.0)
        self.final()

    def final(self) -> None:
        """Everything is quiet: nothing may be missing or open."""
        if self.majority_lost:
            furthest = max((p for p in self.processes.values() if p.up), key=lambda p: p.node.end)
            self.checks.final(furthest.name, furthest.machine.values)
            return
        for process in self.processes.values():
            assert process.machine is not None
            self.checks.final(process.name, process.machine.values)
            self.checks.expect(
                not process.pending and not process.reads_open and not process.transfers_open,
                "everything asked is answered",
                process.name,
                f"{len(process.pending)} writes, {process.reads_open} reads,",
                f"{process.transfers_open} transfers open",
            )

    def advance(self, seconds: float) -> None:
        """Let time pass; raises the first violation."""
        end = self.queue.now + seconds
        while self.queue.now < end:
            before = {p.name: p.steps for p in self.processes.values()}
            span = min(0.25, end - self.queue.now)
            self.queue.run_until(self.queue.now + span)
            if self.checks.violation is not None:
                raise self.checks.violation
            for process in self.processes.values():
                self.checks.expect(
                    process.steps - before[process.name] <= STEPS_PER_SECOND_MAX * 0.25,
                    "no spinning",
                    process.name,
                    process.steps - before[process.name],
                )
                if process.up:
                    process.look_at_sizes()

    def _unhealed(self) -> str | None:
        statuses = {n: p.status() if p.up else None for n, p in self.processes.items()}
        down = [n for n, s in statuses.items() if s is None]
        if down:
            return f"{down} are down: {[self.processes[n].stopped_because for n in down]}"
        serving = [s for s in statuses.values() if s is not None and s.leader == s.node]
        if not serving and self._lost_in_the_moment():
            return None
        if len(serving) != 1:
            return f"{len(serving)} serving leaders: {statuses}"
        lag = [
            (s.node, s.commit_index)
            for s in statuses.values()
            if s is not None and s.applied_index < serving[0].applied_index - 50
        ]
        if lag:
            return f"lagging {lag} behind {serving[0].applied_index}"
        if any(s is not None and s.role is Role.LEARNER for s in statuses.values()):
            return f"somebody still learns: {[s.waiting for s in statuses.values() if s]}"
        acknowledged = len(self.checks.acknowledged)
        self.advance(0.5)
        if len(self.checks.acknowledged) == acknowledged:
            return "no write is acknowledged"
        return None

    def _lost_in_the_moment(self) -> bool:
        """Whether a majority is gone as a disk was lost while a change came into force.

        A leader takes those for present that answered within the last election time-out: what no
        cluster can help (docs/concepts/guarantees), and case C of when-things-are-lost.
        """
        present = {p.id for p in self.processes.values() if not p.lost}
        for process in self.processes.values():
            if not process.up:
                continue
            now = process.node._configurations.now
            gone = now.voters - present
            appended = self.appended_at.get(now.place)
            if len(gone) * 2 >= len(now.voters) and appended is not None:
                recent = process.node._config.election_max_s
                if any(abs(self.lost_at.get(each, -1e9) - appended) <= recent for each in gone):
                    self.checks.sometimes["a disk lost in the moment of a change"] += 1
                    self.majority_lost, self._loading = True, False
                    return True
        return False

    # --- clients ----------------------------------------------------------------------------
    def _load(self) -> None:
        self.queue.after(self.rng_load.expovariate(1 / self.write_gap_s), self._load)
        if not self._loading:
            return
        rng = self.rng_load
        leaders = [p for p in self.processes.values() if p.up and p.leads]
        targets = leaders if leaders and rng.random() < 0.97 else list(self.processes.values())
        process = rng.choice(targets)
        if not process.up:
            return
        for _ in range(rng.choice((1, 1, 1, 4))):
            if process.up:
                process.propose(self.new_write(rng.randint(16, 16 + self.value_bytes)))

    def new_write(self, size: int) -> Write:
        """A write of a value that never was before."""
        self._numbers += 1
        return Write(value(self._numbers, size))

    def _reads(self) -> None:
        self.queue.after(self.rng_load.expovariate(1 / self.read_gap_s), self._reads)
        if not self._loading:
            return
        for process in self.processes.values():  # everybody who believes it leads
            if process.up and process.leads:
                process.read()
        if self.rng_load.random() < 0.1:
            process = self.rng_load.choice(list(self.processes.values()))
            if process.up:
                process.read()

    def leader_elected(self, process: Process) -> None:
        """Ask the new leader at once, before anybody else could have told it anything."""
        self.queue.after(0.0, lambda: process.up and process.read())

    # --- nodes ------------------------------------------------------------------------------
    def open_storage(self, process: Process) -> Any:
        return nodes.open_storage(self, process)

    def build_node(self, process: Process, machine: Any, storage: Any, rng: random.Random) -> Any:
        return nodes.build_node(self, process, machine, storage, rng)

    def crashed_inside(self, process: Process, crash: BaseException) -> None:
        """A simulated disk killed the process in the middle of a call."""
        self.checks.sometimes["crashes inside a disk call"] += 1
        self.faults.died(process, f"inside {crash}")

    def stopped_itself(self, process: Process, error: Exception) -> None:
        """The node raised: legal only if its disk failed under it, or the cluster removed it."""
        if isinstance(error, Violation):
            raise error
        if isinstance(error, Removal):
            self.faults.removed(process)
            return
        if isinstance(error, StartRefused) and process.set_back:
            self.checks.sometimes["a disk that was put back found out"] += 1
            self.network.host_died(process.name, silently=False)
            process.die("refused: it went back in time")
            nodes.crash_disk(process.disk, power=False)
            return
        if nodes.refused_damage(process, error):
            self.faults.refused_damage(process)
            return
        if nodes.disk_failed_on_purpose(process, error):
            self.checks.sometimes["stopped on a disk error"] += 1
            self.faults.died(process, f"stopped: {type(error).__name__}")
            return
        self.checks.fail(
            "the process does not stop by itself",
            process.name,
            nodes.describe(error),
        )

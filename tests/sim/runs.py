"""Sets of runs: one job per seed, and what a whole set must have reached.

A set in which a rare state never occurred has proved little about it, so the sums are part of the
verdict.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import Pool
from typing import Final, NamedTuple

from tests.sim import crashpoints
from tests.sim.life import LifeWorld
from tests.sim.service import ServiceWorld
from tests.sim.standbys import SilentWorld, StandbyWorld
from tests.sim.world import Outcome, World

CONSENSUS: Final = "consensus"
SERVICE: Final = "service"
STANDBYS: Final = "standbys"
SILENCES: Final = "silences"
LIFE: Final = "life"
WORLDS: Final[dict[str, type[World]]] = {
    CONSENSUS: World,
    SERVICE: ServiceWorld,
    STANDBYS: StandbyWorld,
    SILENCES: SilentWorld,
    LIFE: LifeWorld,
}
BOTH: Final = (CONSENSUS, SERVICE)

BOTH_SOMETIMES: Final = (
    "elections",
    "kills",
    "power losses",
    "power losses of all",
    "partitions",
    "one-way cuts",
    "resets",
    "clogs",
    "pauses",
    "frozen leaders",
    "crashes inside a disk call",
    "crashes while starting",
    "stopped on a disk error",
    "compactions",
    "snapshots installed",
    "truncations of a tail",
    "transfers done",
    "acknowledged",
    "wipes",
    "learners promoted",
    "bits flipped at rest",
    "damage found and refused",
    "disks read back",
)
SOMETIMES: Final = {
    CONSENSUS: (*BOTH_SOMETIMES, "writes abandoned", "reads confirmed", "reads refused"),
    SERVICE: (
        *BOTH_SOMETIMES,
        "client put done",
        "client put failed, definite",
        "client put failed, indefinite",
        "client read done",
        "client synchronize done",
        "writes accepted early",
        "batches abandoned",
    ),
    LIFE: (
        "elections",
        "kills",
        "power losses",
        "snapshots installed",
        "acknowledged",
        "foundings taken part in",
        "configurations appended",
        "AddMember done",
        "RemoveMember done",
        "learners promoted",
        "removed and told",
        "disks replaced",
        "disks lost before the founding",
        "impostors",
        "wrong files",
        "upgrades",
        "downgrades",
        "levels raised",
        "an old version refused the level",
    ),
    STANDBYS: (
        "elections",
        "kills",
        "partitions",
        "snapshots installed",
        "client put done",
        "tracked changes",
        "tracker images",
        "tracker resumes",
        "tracker begins anew",
        "tracker resyncs",
        "trackers frozen",
        "trackers saw the end",
        "role changes",
        "told ACTIVE",
        "fenced writes refused",
        "components hung",
    ),
    SILENCES: ("actives cut off", "took over from the silent", "everybody stood still"),
}
"""Rare states that a set of runs must have reached."""
ENOUGH_SEEDS: Final = 60
"""A smaller set is not asked for the rare states."""


class Job(NamedTuple):
    """One seed of one world."""

    world: str
    seed: int
    seconds: float
    sabotage: str = ""

    def build(self, *, echo: bool = False) -> World:
        kind = WORLDS[self.world]
        return kind(self.seed, seconds=self.seconds, sabotage=self.sabotage, echo=echo)

    @property
    def replay(self) -> str:
        """The command that shows this run again."""
        return (
            f"python -m tests.sim --replay {self.seed} --world {self.world} "
            f"--seconds {self.seconds:g}"
            + (f" --sabotage '{self.sabotage}'" if self.sabotage else "")
        )


class Run(NamedTuple):
    """A job that is done."""

    job: Job
    outcome: Outcome
    cpu_s: float


def perform(job: Job) -> Run:
    """Run one seed to its end."""
    began = time.process_time()
    outcome = job.build().run()
    return Run(job, outcome, time.process_time() - began)


def perform_all(jobs: list[Job], processes: int) -> Iterator[Run]:
    """Run the jobs, several at a time; they come back as they finish."""
    if processes <= 1:
        yield from map(perform, jobs)
        return
    with Pool(processes, maxtasksperchild=50) as pool:
        yield from pool.imap_unordered(perform, jobs)


class Totals:
    """The sums over a set of runs."""

    def __init__(self) -> None:
        self.counters: dict[str, Counter[str]] = {world: Counter() for world in WORLDS}
        self.crashed: Counter[str] = Counter()
        self.seeds: Counter[str] = Counter()
        self.virtual_s = self.cpu_s = 0.0
        self.failures: list[tuple[Job, str]] = []

    def add(
        self,
        job: Job,
        violation: str | None,
        virtual_s: float,
        cpu_s: float,
        counters: dict[str, int],
        crashed: dict[str, int],
    ) -> None:
        """Count one run."""
        self.seeds[job.world] += 1
        self.virtual_s += virtual_s
        self.cpu_s += cpu_s
        self.counters[job.world].update(counters)
        self.crashed.update(crashed)
        if violation is not None:
            self.failures.append((job, violation))

    def add_run(self, run: Run) -> None:
        """Count a run that was just done."""
        outcome = run.outcome
        self.add(
            run.job,
            outcome.violation,
            outcome.virtual_s,
            run.cpu_s,
            outcome.counters,
            outcome.crashed,
        )

    def never(self) -> list[str]:
        """Rare states that enough seeds did not reach."""
        return [
            f"{world}: {name}"
            for world, names in SOMETIMES.items()
            if self.seeds[world] >= ENOUGH_SEEDS
            for name in names
            if not self.counters[world][name]
        ]

    def points(self) -> tuple[str, ...]:
        """The crash points that these worlds have."""
        return crashpoints.SERVICE if self.seeds[SERVICE] else crashpoints.CONSENSUS

    def not_crashed_at(self) -> list[str]:
        """Crash points at which no process died."""
        return [name for name in self.points() if not self.crashed[name]]

    def lines(self) -> Iterator[str]:
        """The summary in words."""
        done = sum(self.seeds.values())
        by_world = ", ".join(f"{count} {world}" for world, count in sorted(self.seeds.items()))
        speed = self.virtual_s / self.cpu_s if self.cpu_s else 0.0
        yield (
            f"{done} seeds ({by_world}), {len(self.failures)} failed; "
            f"{self.virtual_s:.0f} virtual s in {self.cpu_s:.0f} CPU s ({speed:.0f} x per core)"
        )
        for world, counters in self.counters.items():
            if counters:
                words = "  ".join(f"{name}: {n}" for name, n in sorted(counters.items()))
                yield f"{world}: {words}"
        if done >= ENOUGH_SEEDS:
            missed = self.not_crashed_at()
            total = sum(self.crashed.values())
            yield (
                f"crash points: {len(self.points()) - len(missed)} of {len(self.points())} hit, "
                f"{total} crashes" + (f"; never crashed at: {', '.join(missed)}" if missed else "")
            )
        if never := self.never():
            yield f"never happened: {'; '.join(never)}"

    def table(self) -> Iterator[str]:
        """Every crash point with its hits."""
        yield "| crash point | crashes |"
        yield "|---|---|"
        for name in self.points():
            yield f"| `{name}` | {self.crashed[name]} |"

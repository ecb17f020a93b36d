"""``python -m tests.sim --seeds 1..200 --jobs 2``: run seeds, count rare states, report failures.

Every failure is one line that replays it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from typing import NamedTuple

from tests.sim.sabotage import SABOTAGES, SERVICE_SABOTAGES
from tests.sim.service import ServiceWorld
from tests.sim.world import Outcome, World

MUST_HAPPEN = (
    "elections",
    "kills",
    "power losses",
    "partitions",
    "one-way cuts",
    "resets",
    "pauses",
    "crashes inside a disk call",
    "compactions",
    "snapshots installed",
    "truncations of a tail",
    "writes abandoned",
    "reads confirmed",
    "reads refused",
    "transfers done",
    "acknowledged",
    "wipes",
    "rejoined",
)
"""Rare states that a set of runs must have reached, else it has proved little."""


SERVICE_MUST_HAPPEN = (
    "client put done",
    "client put failed, definite",
    "client put failed, indefinite",
    "client read done",
    "client synchronize done",
    "writes accepted early",
    "batches abandoned",
)


class Job(NamedTuple):
    """One seed to run."""

    seed: int
    seconds: float
    sabotage: str
    service: bool

    def world(self, *, echo: bool = False) -> World:
        kind = ServiceWorld if self.service else World
        return kind(self.seed, seconds=self.seconds, sabotage=self.sabotage, echo=echo)


def run_job(job: Job) -> Outcome:
    return job.world().run()


def planted_table(most: int, seconds: float) -> int:
    """Print how many seeds it takes to find each planted bug, as a table for the docs."""
    print("| bug | world | seeds | caught as |\n|---|---|---|---|")
    missed = 0
    for service, names in ((False, SABOTAGES), (True, SERVICE_SABOTAGES)):
        for name in names:
            found, seed = None, 0
            while found is None and seed < most:
                seed += 1
                found = Job(seed, seconds, name, service).world().run().violation
            missed += found is None
            row = (name, "service" if service else "consensus", seed, (found or "**missed**")[:90])
            print(f"| {' | '.join(str(field) for field in row)} |".replace("\n", " "), flush=True)
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", default="1..20", help="A..B, inclusive")
    parser.add_argument("--seconds", type=float, default=20.0, help="virtual seconds with faults")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--replay", type=int, help="run one seed and print its trace")
    parser.add_argument("--sabotage", default="", help="spoil the nodes on purpose")
    parser.add_argument("--service", action="store_true", help="whole service with clients")
    parser.add_argument("--planted", type=int, help="table: seeds each planted bug survives (most)")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    options = parser.parse_args()
    if options.planted is not None:
        return planted_table(options.planted, options.seconds)
    if options.replay is not None:
        job = Job(options.replay, options.seconds, options.sabotage, options.service)
        outcome = job.world(echo=True).run()
        print(outcome.digest, outcome.violation or "ok")
        return 1 if outcome.violation else 0
    first, _, last = options.seeds.partition("..")
    jobs = [
        Job(seed, options.seconds, options.sabotage, options.service)
        for seed in range(int(first), int(last or first) + 1)
    ]
    began = time.monotonic()
    totals: Counter[str] = Counter()
    virtual, failures, done = 0.0, 0, 0
    with multiprocessing.Pool(options.jobs, maxtasksperchild=50) as pool:
        for outcome in pool.imap_unordered(run_job, jobs):
            done += 1
            totals.update(outcome.counters)
            virtual += outcome.virtual_s
            if outcome.violation is not None:
                failures += 1
                print(f"FAIL seed {outcome.seed}: {outcome.violation[:600]}")
                print(
                    f"     replay: python -m tests.sim --replay {outcome.seed} "
                    f"--seconds {options.seconds:g}{' --service' * options.service}",
                    flush=True,
                )
            if (failures and options.stop) or time.monotonic() - began > 60 * options.minutes:
                pool.terminate()
                break
    took = time.monotonic() - began
    print(
        f"{done} seeds, {failures} failed, {virtual:.0f} virtual s in {took:.0f} s "
        f"({virtual / took:.0f} x real time, {options.jobs} jobs)"
    )
    print("  ".join(f"{name}: {count}" for name, count in sorted(totals.items())))
    wanted = SERVICE_MUST_HAPPEN if options.service else MUST_HAPPEN
    never = [name for name in wanted if not totals[name]]
    if never and done >= 50:
        print(f"never happened: {', '.join(never)}")
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.sim --seeds 1..200 --jobs 2``: run seeds, count rare states, report failures.

Every failure is one line that replays it. ``--campaign FILE`` keeps a line per seed and goes on
where it was stopped; ``--report FILE`` sums it up; ``--ci`` is the slice for every change.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.sim import campaign, planting
from tests.sim.runs import BOTH, CONSENSUS, WORLDS, Job, Totals, perform_all

CI_SEEDS = range(1, 76)
"""Of each world: 150 runs."""
CI_SECONDS = 60.0


def planted_table(most: int) -> int:
    """Print how many seeds it takes to find each planted bug, as a table for the docs."""
    missed = False
    for line in planting.table(most):
        missed |= "**missed**" in line
        print(line, flush=True)
    return 1 if missed else 0


def replay(job: Job) -> int:
    """Run one seed and print its trace."""
    outcome = job.build(echo=True).run()
    print(outcome.digest, outcome.violation or "ok")
    return 1 if outcome.violation else 0


def run_set(jobs: list[Job], processes: int, *, minutes: float, stop: bool) -> Totals:
    """Run the jobs; failures are printed as they come."""
    totals, until = Totals(), time.monotonic() + 60 * minutes
    for run in perform_all(jobs, processes):
        totals.add_run(run)
        if run.outcome.violation is not None:
            print(f"FAIL {run.job.replay}\n     {run.outcome.violation[:600]}", flush=True)
        if (totals.failures and stop) or time.monotonic() > until:
            break
    return totals


def verdict(totals: Totals, *, points: bool) -> int:
    """Print the summary; 1 if something failed or a rare state was missed."""
    for line in totals.lines():
        print(line)
    if points:
        for line in totals.table():
            print(line)
    for job, violation in totals.failures[:20]:
        print(f"failed: {job.replay}   {violation[:200]}")
    return 1 if totals.failures or totals.never() else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", default="1..20", help="A..B, inclusive")
    parser.add_argument("--seconds", type=float, default=20.0, help="virtual seconds with faults")
    parser.add_argument("--world", choices=[*WORLDS, "both"], default=None)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--replay", type=int, help="run one seed and print its trace")
    parser.add_argument("--sabotage", default="", help="spoil the nodes on purpose")
    parser.add_argument("--planted", type=int, help="table: seeds each planted bug survives (most)")
    parser.add_argument("--points", action="store_true", help="print the table of crash points")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    parser.add_argument("--campaign", type=Path, help="append to this file, skip what it has")
    parser.add_argument("--report", type=Path, help="sum up a campaign's file")
    parser.add_argument("--revision", default="", help="report: of this code only ('now': present)")
    parser.add_argument("--ci", action="store_true", help="150 runs of 60 s, the slice for CI")
    return parser.parse_args()


def main() -> int:
    options = _arguments()
    if options.planted is not None:
        return planted_table(options.planted)
    if options.report is not None:
        now = options.revision == "now"
        revision = campaign.code_revision() if now else options.revision
        return verdict(campaign.report(options.report, revision=revision), points=options.points)
    if options.replay is not None:
        world = options.world or CONSENSUS
        return replay(Job(world, options.replay, options.seconds, options.sabotage))
    first, _, last = options.seeds.partition("..")
    seeds, seconds = range(int(first), int(last or first) + 1), options.seconds
    if options.ci:
        seeds, seconds = CI_SEEDS, CI_SECONDS
    worlds = list(BOTH) if options.world in (None, "both") else [options.world]
    jobs = [Job(world, seed, seconds, options.sabotage) for seed in seeds for world in worlds]
    if options.campaign is not None:
        totals = campaign.run_campaign(options.campaign, jobs, options.jobs, options.minutes)
    else:
        totals = run_set(jobs, options.jobs, minutes=options.minutes, stop=options.stop)
    return verdict(totals, points=options.points)


if __name__ == "__main__":
    sys.exit(main())

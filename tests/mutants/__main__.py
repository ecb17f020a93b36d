"""``python -m tests.mutants``: plant small changes in the code, see whether the tests notice.

    python -m tests.mutants --rooms model storage --sample 200 --jobs 2
    python -m tests.mutants --minutes 30 --jobs 2        # goes on where the last one ended
    python -m tests.mutants --report                     # what is known so far; runs nothing

Ends with 1 if there are survivors that nobody has judged.

Rejected: *cosmic-ray* changes the files of the checkout in place, knows one test command and one
time limit for everything, and needs servers in clones made by hand for two jobs; *mutmut* keeps
results, works on a copy and knows which tests call a function, but not which run a line, has no
fair sample, no order of tests by nearness, changes nothing outside functions, and puts a call of
its own in front of every function: what is timed or hot is then something else. Both take
seconds of start for each mutant, where a fork of a process that has imported the libraries takes
tenths.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from tests.mutants import report, rooms, runs


def _arguments(project: rooms.Project, argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    present = [name for name, room in project.rooms.items() if room.modules(project.root)]
    parser.add_argument("--rooms", nargs="+", choices=present, default=present)
    parser.add_argument("--sample", type=int, default=0, help="so many, over all rooms chosen")
    parser.add_argument("--each", type=int, default=0, help="so many of each room, in turns")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of the order")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="run nothing, say what is known")
    parser.add_argument("--state", type=Path, default=project.root / ".mutants")
    parser.add_argument("--judged", type=Path, default=Path(__file__).with_name("judged.txt"))
    return parser.parse_args(argv)


def _told(task: runs.Task, entry: dict[str, Any]) -> None:
    if entry["status"] in runs.SURVIVED:
        print(*report.survivor(task, entry["status"]), "", sep="\n", flush=True)


def main(project: rooms.Project, argv: list[str] | None = None) -> int:
    """Run or report; 1 if somebody has to look."""
    options = _arguments(project, argv)
    tasks = runs.tasks_of(
        project, options.rooms, sample=options.sample, each=options.each, seed=options.seed
    )
    judged = report.judgements(options.judged)
    if not options.report:
        runs.run(
            project,
            tasks,
            options.state,
            jobs=options.jobs,
            minutes=options.minutes,
            judged=judged,
            told=_told,
        )
    known = runs.Known(options.state / "results.jsonl")
    outcome = report.Report(tasks, known, judged)
    for line in outcome.lines(runs.tasks_of(project, list(project.rooms))):
        print(line)
    return 1 if outcome.survivors else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # copies and workers go, too
    sys.exit(main(rooms.raftckpt()))

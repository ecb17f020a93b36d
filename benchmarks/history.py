"""The history of our speed, a line a run, and an alarm when it gets worse.

    python benchmarks/compare.py --only floor --no-plot --out benchmark-results
    python benchmarks/history.py benchmark-results/results.json --revision "$(git rev-parse HEAD)"

Machines differ, and so do their hours: what is kept of each row is its ratio to the floor of the
same run (floor.py). The median time of one request in units of the floor's for one write or read
("2.1": twice as long), and throughput as how often a request is answered while the floor writes
once. Of the floor's flavours the first that was measured counts, C before Python: `floor` says
which. The alarm is raised, by exit status 1 and a sentence, if a row is worse by more than a
quarter than the median of the last five runs with the same floor on as many processors: below that
two runs of one version differ, too. A run that raised it is kept: the next ones are compared with
what is true.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from compare import ROWS, median

FILE = Path(__file__).with_name("history.jsonl")
FLOORS = ("floor, C", "floor, Python")
LAST = 5
WORSE = 1.25


def line_of(whole: dict[str, Any], revision: str) -> dict[str, Any]:
    """What is kept of a run of compare.py."""
    results = whole["results"]
    first = results[ROWS[0].name]
    floor = next((name for name in FLOORS if name in first), None)
    if floor is None:
        raise SystemExit("the run has no floor: run compare.py with --only floor")
    write_us = median(first[floor], "p50_us")
    ratios = {}
    for row in ROWS:
        of_row = results.get(row.name, {})
        if "raftckpt" not in of_row:
            continue
        ours = median(of_row["raftckpt"], "p50_us" if floor in of_row else "ops_per_s")
        at = ours / median(of_row[floor], "p50_us") if floor in of_row else ours * write_us / 1e6
        ratios[row.name] = round(at, 3)
    machine = whole["machine"]
    return {
        "date": machine["date"],
        "revision": revision,
        "cpus": machine["cpus"],
        "load": round(machine["load_average"], 1),
        "floor": floor,
        "ratios": ratios,
    }


def alarms(now: dict[str, Any], before: list[dict[str, Any]]) -> list[str]:
    """A sentence for each row that became worse."""
    alike = [each for each in before if all(each[key] == now[key] for key in ("cpus", "floor"))]
    told = []
    for row in ROWS:
        known = [each["ratios"][row.name] for each in alike if row.name in each["ratios"]][-LAST:]
        if not known or row.name not in now["ratios"]:
            continue
        usual, found = statistics.median(known), now["ratios"][row.name]
        factor = found / usual if row.metric == "p50_us" else usual / found
        if factor > WORSE:
            told.append(f"{row.name}: {found:g} to the floor, was {usual:g}: {factor:.2f}x worse")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results.json of compare.py")
    parser.add_argument("--revision", required=True, help="what was measured")
    parser.add_argument("--file", type=Path, default=FILE)
    given = parser.parse_args()
    lines = given.file.read_text("utf-8").splitlines() if given.file.exists() else []
    now = line_of(json.loads(given.results.read_text("utf-8")), given.revision)
    worse = alarms(now, [json.loads(line) for line in lines])
    with given.file.open("a", encoding="utf-8") as file:
        file.write(json.dumps(now) + "\n")
    print(json.dumps(now, indent=1))
    for sentence in worse:
        print(sentence, file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())

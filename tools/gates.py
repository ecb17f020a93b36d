"""Hold each room to the share of its lines and branches that tests run: ``python -m tools.gates``.

Reads the data that ``coverage`` left in the folder. A room is named by prefixes of its files'
paths: when files move, a line of the table moves with them; a prefix without a file is an error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT = Path(__file__).parent.parent


class Gate(NamedTuple):
    """The least percentage of a room, lines and branches together."""

    room: str
    prefixes: tuple[str, ...]
    least: float


GATES: Final = (
    Gate("model", ("raftckpt/model/",), 99),
    Gate("protocol", ("raftckpt/protocol/",), 99),
    Gate("storage", ("raftckpt/storage/",), 99),
    Gate(
        "client core",
        tuple(
            f"raftckpt/client/{name}.py"
            for name in (
                "calls",
                "changes",
                "config",
                "core",
                "credentials",
                "endpoints",
                "greeting",
                "group_operations",
                "link",
                "operations",
                "outcomes",
                "parts",
                "requests",
                "roles",
                "routing",
                "search",
                "session",
                "staging",
                "tracking",
                "types",
                "waiting",
            )
        ),
        99,
    ),
    Gate("everything", ("raftckpt/", "cli/"), 84),
)


class Share(NamedTuple):
    """Lines and branches of a room: how many were run, how many there are."""

    run: int
    there: int

    @property
    def percent(self) -> float:
        """Of an empty room: everything."""
        return 100 * self.run / self.there if self.there else 100.0


def share_of(prefixes: tuple[str, ...], files: dict[str, Any]) -> Share:
    """Add up the files below the prefixes.

    Raises:
        LookupError: there is none below one of them: the room has moved.
    """
    for prefix in prefixes:
        if not any(path.startswith(prefix) for path in files):
            raise LookupError(f"no file below {prefix}: correct the table in tools/gates.py")
    sums = [file["summary"] for path, file in files.items() if path.startswith(prefixes)]
    return Share(
        sum(item["covered_lines"] + item["covered_branches"] for item in sums),
        sum(item["num_statements"] + item["num_branches"] for item in sums),
    )


def judged(gates: tuple[Gate, ...], files: dict[str, Any]) -> tuple[list[str], bool]:
    """A line per room, and whether all are good enough."""
    lines, good = [], True
    for gate in gates:
        percent = share_of(gate.prefixes, files).percent
        passed = percent >= gate.least
        good = good and passed
        verdict = "" if passed else "  TOO LITTLE"
        lines.append(f"{percent:6.2f} % of {gate.least:g} %  {gate.room}{verdict}")
    return lines, good


def main() -> int:
    """Print the shares; exit status 1 if one is too small."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "coverage.json"
        command = [sys.executable, "-m", "coverage", "json", "-q", "-o", str(report)]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603
        files = json.loads(report.read_text())["files"]
    lines, good = judged(GATES, files)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

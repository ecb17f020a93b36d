"""A long campaign: one JSON line per seed in a file; what the file has is not run again.

A line says which code was under test (a hash over the sources of product and simulator), so that
the report can tell what the present code has survived from what former code has.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.sim.runs import Job, Run, Totals, perform_all

_ROOMS: Final = ("model", "protocol", "client", "storage", "raft", "node", "server")
_SOURCES: Final = (
    "raftckpt/errors.py",
    "raftckpt/limits.py",
    *(f"raftckpt/{room}" for room in _ROOMS),
    "tests/sim",
)
"""The rooms that a run exercises; what else changes leaves its outcome as it is."""


def code_revision() -> str:
    """Hash of the code that the runs exercise; changes with every edit, committed or not."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for source in map(root.joinpath, _SOURCES):
        for path in [source] if source.is_file() else sorted(source.rglob("*.py")):
            if not path.name.startswith("test_"):
                digest.update(str(path.relative_to(root)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def lines_of(file: Path) -> Iterator[dict[str, Any]]:
    """Read a campaign file; a line that was cut short (the campaign was killed) is left out."""
    if not file.exists():
        return
    with file.open() as stream:
        for line in stream:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _line(run: Run, revision: str) -> dict[str, Any]:
    job, outcome = run.job, run.outcome
    return {
        "seed": job.seed,
        "world": job.world,
        "seconds": job.seconds,
        "ok": outcome.violation is None,
        "digest": outcome.digest,
        "revision": revision,
        "virtual_s": round(outcome.virtual_s, 3),
        "cpu_s": round(run.cpu_s, 3),
        "violation": outcome.violation,
        "counters": outcome.counters,
        "crashed": outcome.crashed,
    }


def run_campaign(file: Path, jobs: list[Job], processes: int, minutes: float) -> Totals:
    """Run the jobs that the file does not have yet and append a line for each."""
    known = {(line["world"], line["seed"], line["seconds"]) for line in lines_of(file)}
    missing = [job for job in jobs if (job.world, job.seed, job.seconds) not in known]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} runs are in {file} already", flush=True)
    revision, totals = code_revision(), Totals()
    until = time.monotonic() + 60 * minutes
    if file.exists() and file.read_bytes()[-1:] not in (b"\n", b""):
        with file.open("a") as stream:
            stream.write("\n")
    with file.open("a") as stream:
        for run in perform_all(missing, processes):
            totals.add_run(run)
            stream.write(json.dumps(_line(run, revision)) + "\n")
            stream.flush()
            if run.outcome.violation is not None:
                print(f"FAIL {run.job.replay}\n     {run.outcome.violation[:600]}", flush=True)
            if time.monotonic() > until:
                break
    return totals


def report(file: Path, *, revision: str = "") -> Totals:
    """Sum up a campaign file (only the lines of one code revision, if given)."""
    totals = Totals()
    for line in lines_of(file):
        if revision and line["revision"] != revision:
            continue
        job = Job(line["world"], line["seed"], line["seconds"])
        totals.add(
            job,
            line["violation"],
            line["virtual_s"],
            line["cpu_s"],
            line["counters"],
            line["crashed"],
        )
    return totals

"""From kill -9 to ACTIVE in the standby: 20 failovers of each kind, on a cluster on this machine.

    python benchmarks/failover.py [--times 20] [--only KIND,...] [--out DIR]

Kinds: ``active``: the active component is killed; ``active+leader``: it and the leading replica at
the same moment; ``node``: it and a replica that follows. The time runs from before the kill (which
is sent to the component first) to the first line of the standby's callback, both by
CLOCK_MONOTONIC, which all processes of a machine share. Replicas and a standby are complete and at
rest before each kill. Replicas sync to disk as configured by default.

Writes failover.json and failover.svg (share of the failovers done within a time).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import raftckpt
from raftckpt import ha
from raftckpt.bench.plots import Series, line_plot
from raftckpt.testing import LocalCluster

KINDS = ("active", "active+leader", "node")
PATIENCE_S = 30.0
REST_S = 0.5
GROUP = "failover"


def component(endpoints: str, name: str) -> None:
    """Be a component: print a line per assignment, stamped."""

    def told(assignment: ha.Assignment) -> None:
        now = time.monotonic_ns()
        print(assignment.state.name, now, flush=True)

    with ha.connect(endpoints, name=name, session_timeout=30.0) as service:
        ha.Component(service, GROUP, name, on_active=told, on_standby=told).run()


class Process:
    def __init__(self, cluster: LocalCluster, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--component", name, "--endpoints", cluster.endpoints],
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> tuple[str, int]:
        assert self.process.stdout is not None
        state, at = self.process.stdout.readline().split()
        return state, int(at)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def at_rest(cluster: LocalCluster) -> None:
    """Wait until all replicas are there and the standby has answered, and a little longer."""
    cluster.wait_ready(PATIENCE_S)
    with raftckpt.connect(cluster.endpoints) as service:
        deadline = time.monotonic() + PATIENCE_S
        while ha.Group(service, GROUP).status().ready < 1:
            if time.monotonic() > deadline:
                raise RuntimeError("no standby")
            time.sleep(0.02)
    time.sleep(REST_S)


def measure(cluster: LocalCluster, kind: str, times: int) -> list[float]:
    """Milliseconds of each failover."""
    found = []
    names = ("c0", "c1")
    active = Process(cluster, names[0])
    standby: Process | None = None
    try:
        assert active.line()[0] == "ACTIVE"
        for number in range(times):
            standby = Process(cluster, names[(number + 1) % 2])
            assert standby.line()[0] == "STANDBY"
            at_rest(cluster)
            leader = cluster.leader()
            victim = {
                "active": None,
                "active+leader": leader,
                "node": next(node for node in cluster.nodes if node != leader),
            }[kind]
            pid = None if victim is None else cluster.pid(victim)
            begin = time.monotonic_ns()
            os.kill(active.process.pid, 9)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            state, at = standby.line()
            assert state == "ACTIVE", state
            found.append((at - begin) / 1e6)
            active.end()
            active, standby = standby, None
            if victim is not None:
                cluster.wait_exit(victim)
                cluster.restart(victim)
    finally:
        active.end()
        if standby is not None:
            standby.end()
    with raftckpt.connect(cluster.endpoints) as service:
        deadline = time.monotonic() + PATIENCE_S
        while ha.Group(service, GROUP).status().members and time.monotonic() < deadline:
            time.sleep(0.02)
    return found


def summary(milliseconds: list[float]) -> dict[str, Any]:
    return {
        "median_ms": round(statistics.median(milliseconds), 2),
        "min_ms": round(min(milliseconds), 2),
        "max_ms": round(max(milliseconds), 2),
        "ms": [round(value, 2) for value in milliseconds],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--out", type=Path, default=None, help="directory for the results")
    parser.add_argument("--component", help=argparse.SUPPRESS)
    parser.add_argument("--endpoints", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.component:
        component(options.endpoints, options.component)
        return 0
    results: dict[str, Any] = {}
    for kind in options.only.split(","):
        if kind not in KINDS:
            parser.error(f"{kind} is not one of {', '.join(KINDS)}")
        with LocalCluster(3, faults=False) as cluster:
            results[kind] = summary(measure(cluster, kind, options.times))
        print(f"{kind}: median {results[kind]['median_ms']} ms", file=sys.stderr)
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} CPUs, {platform.platform()}, Python "
        f"{platform.python_version()}",
        "version": raftckpt.__version__,
        "load_1min": os.getloadavg()[0],
        "failovers": results,
    }
    print(json.dumps(report))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "failover.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        (options.out / "failover.svg").write_text(picture(results), "utf-8")
    return 0


def picture(results: dict[str, Any]) -> str:
    """Share of the failovers that were done within a time."""
    series = []
    for kind, result in results.items():
        ordered = sorted(result["ms"])
        points = [(value, 100 * (k + 1) / len(ordered)) for k, value in enumerate(ordered)]
        series.append(Series(f"{kind} (median {result['median_ms']} ms)", points))
    return line_plot(
        "kill -9 of the active to ACTIVE in the standby", "milliseconds", "% done", series
    )


if __name__ == "__main__":
    sys.exit(main())

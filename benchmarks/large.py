"""A million sections; 1 GiB: snapshots under load, restart; partial writes; what the clients cost.

    python benchmarks/large.py [sections] [snapshot] [restart] [partial] [faces]

Prints one line of JSON per measurement. Needs about 8 GiB of memory and 10 GiB of disk.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import statistics
import sys
import time
from typing import Any

import raftckpt
from raftckpt.bench.loads import Load
from raftckpt.bench.run import Measured, run
from raftckpt.testing import LocalCluster

MIB = 1 << 20
STATE_MIB = 1024
FORGOTTEN_S = 125.0
LOAD = Load(clients=8, outstanding=32, size=100, seconds=10.0, warmup=2.0)


def say(what: str, **values: Any) -> None:
    print(json.dumps({"what": what, **values}), flush=True)


def bench(cluster: LocalCluster, load: Load) -> Measured:
    return asyncio.run(run(cluster.endpoints, load, timeout=30.0))


def resident_mib(measured: Measured) -> list[int]:
    return [cost.rss_bytes // MIB for cost in measured.replicas]


def sections() -> None:
    """The write rate with a million sections, against that with ten thousand; memory."""
    rates = {}
    for count in (10_000, 1_000_000, 10_000, 1_000_000):
        with LocalCluster(3, faults=False) as cluster:
            measured = bench(cluster, dataclasses.replace(LOAD, sections=count))
            rates.setdefault(count, []).append(measured.ops_per_s)
            say(
                "sections",
                count=count,
                ops_per_s=round(measured.ops_per_s),
                resident_mib=resident_mib(measured),
                cpu_us_per_op=[
                    round(cost.cpu_s * 1e6 / max(1, measured.operations), 1)
                    for cost in measured.replicas
                ],
                errors=measured.errors,
            )
    say("sections", ratio=round(max(rates[1_000_000]) / max(rates[10_000]), 2))


def partial() -> None:
    """100 bytes into a section of 16 MiB, against replacing a section of 100 bytes."""
    small = dataclasses.replace(LOAD, clients=1, outstanding=1, seconds=4.0)
    into = dataclasses.replace(small, workload="partial", section_size=16 * MIB)
    with LocalCluster(3, faults=False) as cluster:
        for _ in range(3):
            for name, load in (("overwrite", small), ("partial", into)):
                p50 = bench(cluster, load).writes.percentile(50)
                say("partial", which=name, p50_us=p50)


def faces() -> None:
    """One write after the other: the clients of the product against the bare protocol."""
    found: dict[str, list[int]] = {}
    with LocalCluster(3, faults=False) as cluster:
        for _ in range(5):
            for face in ("raw", "aio", "sync"):
                load = Load(clients=1, outstanding=1, seconds=2.0, sections=64, face=face)
                found.setdefault(face, []).append(bench(cluster, load).writes.percentile(50))
    p50 = {face: statistics.median(values) for face, values in found.items()}
    ratios = {face: round(value / p50["raw"], 2) for face, value in p50.items()}
    say("faces", p50_us=p50, to_raw=ratios)


def fill(cluster: LocalCluster) -> None:
    data = os.urandom(MIB)
    with raftckpt.connect(cluster.endpoints, timeout=120.0) as service:
        checkpoint = service.open("large", create=raftckpt.Attributes(max_sections=STATE_MIB))
        for number in range(STATE_MIB):
            checkpoint.put(str(number), data[number:] + data[:number])


def snapshot() -> None:
    """Write rate, stalls and worst latency while a state of 1 GiB is written to snapshots."""
    settings = {"snapshot": {"bytes": 64 * MIB}}
    with LocalCluster(3, faults=False, settings=settings) as cluster:
        fill(cluster)
        time.sleep(FORGOTTEN_S)  # by then the longest step is none of the filling
        before = cluster.status(cluster.leader())
        measured = bench(cluster, dataclasses.replace(LOAD, seconds=60.0))
        after = cluster.status(cluster.leader())
        rates = sorted(rate for _, rate, _ in measured.timeline)
        # seconds, not tenths: a single slow sync is no dip
        seconds = [
            sum(rate for _, rate, _ in measured.timeline[first : first + 10]) / 10
            for first in range(0, len(measured.timeline), 10)
        ]
        say(
            "snapshot",
            state_mib=STATE_MIB,
            snapshots=[status and status["snapshot"] for status in (before, after)],
            ops_per_s=round(measured.ops_per_s),
            median_per_s=round(rates[len(rates) // 2]),
            worst_second_per_s=round(min(seconds)),
            longest_step_ms=[cost.longest_step_ms for cost in measured.replicas],
            p99_us=measured.writes.percentile(99),
            max_us=measured.writes.max_us,
            resident_mib=resident_mib(measured),
            elections=measured.elections,
        )


def restart() -> None:
    """From starting all replicas on 1 GiB to the first acknowledged write."""
    with LocalCluster(3, faults=False) as cluster:
        fill(cluster)
        for node in cluster.nodes:
            cluster.kill(node)
        begin = time.monotonic()
        cluster.start()
        with raftckpt.connect(cluster.endpoints, timeout=120.0) as service:
            service.open("large")["0"] = b"again"
        say("restart", state_mib=STATE_MIB, serving_after_s=round(time.monotonic() - begin, 1))


if __name__ == "__main__":
    for name in sys.argv[1:] or ["sections", "partial", "snapshot", "restart"]:
        {
            "sections": sections,
            "partial": partial,
            "snapshot": snapshot,
            "restart": restart,
            "faces": faces,
        }[name]()

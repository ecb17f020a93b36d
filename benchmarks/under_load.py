"""Trackers, huge writes, a killed leader, long full load: what the others feel meanwhile.

    python benchmarks/under_load.py [trackers] [huge] [leader] [soak] [--minutes 30]

* trackers: 2,000 writes/s of 100 B on one checkpoint, with 0 and with 20 trackers in two processes.
* huge: sections of 16 MiB are written one after the other, beside small writes of others.
* leader: kill -9 of the leading replica until the next acknowledged write, 20 times.
* soak: full load; elections, resident memory and files of each replica over the time.

Three replicas that sync to disk. Prints one line of JSON per measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import raftckpt
import raftckpt.aio
from raftckpt.bench.loads import Load
from raftckpt.bench.run import run
from raftckpt.testing import LocalCluster

MIB = 1 << 20
SMALL = Load(clients=4, outstanding=1, size=100, seconds=20.0, warmup=1.0)
FULL = Load(clients=8, outstanding=32, size=100)
WRITES_PER_S = 2000
KILLS = 20
SAMPLE_S = 15.0


def say(what: str, **values: Any) -> None:
    print(json.dumps({"what": what, **values}), flush=True)


@contextlib.contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do ``work`` in a thread until the block ends; it looks at the event now and then."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def percentile(values: list[float], share: float) -> float:
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share / 100))], 2)


# --- trackers ----------------------------------------------------------------------------------


async def follow(endpoints: str, count: int, seconds: float) -> None:
    """Be ``count`` trackers for a while: how long after its writing each change was delivered."""
    waited: list[float] = []

    async def one(service: raftckpt.aio.Service) -> None:
        tracker = await service.track("tracked", image=False)
        async for change in tracker:
            if change.data is not None:
                written = int(bytes(change.data[:20]))
                waited.append((time.monotonic_ns() - written) / 1e6)

    services = [await raftckpt.aio.connect(endpoints) for _ in range(count)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*map(one, services))
    print(json.dumps(waited), flush=True)


async def write_evenly(endpoints: str, seconds: float) -> list[float]:
    """2,000 stamped writes/s; latencies in ms from when each was due."""
    waited: list[float] = []
    loop = asyncio.get_running_loop()
    async with await raftckpt.aio.connect(endpoints) as service:
        checkpoint = await service.open("tracked", create=raftckpt.Attributes())

        async def put(number: int, due: float) -> None:
            stamp = b"%020d" % time.monotonic_ns()
            await checkpoint.put(str(number % 64), stamp + b"x" * 80)
            waited.append((loop.time() - due) * 1e3)

        begin = loop.time()
        writing: set[asyncio.Task[None]] = set()
        for number in range(int(WRITES_PER_S * seconds)):
            due = begin + number / WRITES_PER_S
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            task = loop.create_task(put(number, due))
            writing.add(task)
            task.add_done_callback(writing.discard)
        await asyncio.gather(*writing)
    return waited


def trackers() -> None:
    with LocalCluster(3, faults=False) as cluster:
        asyncio.run(write_evenly(cluster.endpoints, 2.0))
        for count in (0, 20, 0, 20):
            command = [sys.executable, __file__, "--follow", "10"]
            processes = [
                subprocess.Popen(
                    [*command, "--endpoints", cluster.endpoints], stdout=subprocess.PIPE
                )
                for _ in range(count // 10)
            ]
            time.sleep(3.0)
            writes = asyncio.run(write_evenly(cluster.endpoints, 10.0))
            delivered = [
                delay for process in processes for delay in json.loads(process.communicate()[0])
            ]
            found = {"deliveries": len(delivered)}
            if delivered:
                found |= {f"delivery_p{p}_ms": percentile(delivered, p) for p in (50, 99)}
            say(
                "trackers",
                count=count,
                writes=len(writes),
                write_p50_ms=percentile(writes, 50),
                write_p99_ms=percentile(writes, 99),
                **found,
            )


# --- huge writes -------------------------------------------------------------------------------


def huge() -> None:
    data = os.urandom(16 * MIB)
    with LocalCluster(3, faults=False) as cluster:
        alone = asyncio.run(run(cluster.endpoints, SMALL, timeout=30.0))
        say("huge", others_alone_p99_ms=alone.writes.percentile(99) / 1e3)
        took: list[float] = []

        def write(stop: threading.Event) -> None:
            with raftckpt.connect(cluster.endpoints, timeout=60.0) as service:
                checkpoint = service.open("huge", create=raftckpt.Attributes(max_sections=4))
                while not stop.is_set():
                    begin = time.monotonic()
                    checkpoint.put(str(len(took) % 4), data)
                    took.append(time.monotonic() - begin)

        with beside(write):
            others = asyncio.run(run(cluster.endpoints, SMALL, timeout=30.0))
        say(
            "huge",
            writes=len(took),
            median_mb_per_s=round(len(data) / 1e6 / statistics.median(took), 1),
            others_p50_ms=others.writes.percentile(50) / 1e3,
            others_p99_ms=others.writes.percentile(99) / 1e3,
            elections=others.elections,
        )


# --- the leader dies -----------------------------------------------------------------------------


def leader() -> None:
    gaps: list[float] = []
    with (
        LocalCluster(3, faults=False) as cluster,
        raftckpt.connect(cluster.endpoints, timeout=30.0) as service,
    ):
        checkpoint = service.open("failover", create=raftckpt.Attributes())
        for number in range(KILLS):
            cluster.wait_ready()
            rest = time.monotonic() + 1.0
            while time.monotonic() < rest:
                checkpoint.put("a", b"%d" % number)
            victim = cluster.leader()
            begin = time.monotonic()
            cluster.kill(victim)
            checkpoint.put("a", b"again")
            gaps.append((time.monotonic() - begin) * 1e3)
            cluster.restart(victim)
    say(
        "leader",
        kills=KILLS,
        median_ms=round(statistics.median(gaps), 1),
        worst_ms=round(max(gaps), 1),
        all_ms=[round(gap, 1) for gap in sorted(gaps)],
    )


# --- full load for long --------------------------------------------------------------------------


def resident(cluster: LocalCluster, node: str) -> int:
    text = Path(f"/proc/{cluster.pid(node)}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") // MIB


def on_disk(cluster: LocalCluster, node: str) -> int:
    total = 0
    for path in cluster.node_dir(node).rglob("*"):
        with contextlib.suppress(OSError):  # deleted meanwhile
            total += path.stat().st_size
    return total // MIB


def soak(minutes: float) -> None:
    with LocalCluster(3, faults=False) as cluster:
        load = dataclasses.replace(FULL, seconds=60 * minutes, warmup=2.0)
        samples: list[tuple[int, list[int], list[int]]] = []

        def sample(stop: threading.Event) -> None:
            begin = time.monotonic()
            while not stop.wait(SAMPLE_S):
                nodes = cluster.nodes
                at = int(time.monotonic() - begin)
                memory = [resident(cluster, node) for node in nodes]
                samples.append((at, memory, [on_disk(cluster, node) for node in nodes]))

        with beside(sample):
            measured = asyncio.run(run(cluster.endpoints, load, timeout=60.0))
        warm = [s for s in samples if s[0] >= min(300, 15 * minutes)]
        say(
            "soak",
            minutes=minutes,
            ops_per_s=round(measured.ops_per_s),
            errors=measured.errors,
            elections=measured.elections,
            p99_ms=measured.writes.percentile(99) / 1e3,
            max_ms=measured.writes.max_us / 1e3,
            resident_mib={str(s[0]): s[1] for s in samples[:: max(1, len(samples) // 12)]},
            growth=[
                round(statistics.median(late) / statistics.median(early), 3)
                for early, late in zip(
                    zip(*[s[1] for s in warm[: max(1, len(warm) // 5)]], strict=True),
                    zip(*[s[1] for s in warm[-max(1, len(warm) // 5) :]], strict=True),
                    strict=True,
                )
            ],
            most_on_disk_mib=[max(column) for column in zip(*[s[2] for s in samples], strict=True)],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", nargs="*", default=["trackers", "huge", "leader", "soak"])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--follow", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--endpoints", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.follow:
        asyncio.run(follow(options.endpoints, options.follow, 14.0))
        return
    for name in options.what:
        if name == "soak":
            soak(options.minutes)
        else:
            {"trackers": trackers, "huge": huge, "leader": leader}[name]()


if __name__ == "__main__":
    main()

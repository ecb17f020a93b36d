"""A tenant does his worst within his bounds: what another one feels of it.

    python benchmarks/tenant.py [writes] [reads] [comers] [mixed] [--rounds 5] [--seconds 8]

The other one writes and reads 100 times a second each, and follows his checkpoint with a tracker.
Rounds with the tenant and without him take turns on one cluster; medians of their p99 are told.

* writes: 16 sessions of the tenant keep 64 puts of 4 KiB on their way, each.
* reads: 16 connections of his list 20,000 sections, read all of them, and ask for statuses.
* comers: 16 sessions with trackers that come, take the image of those sections, and go.
* mixed: writes+reads+comers, a third of each; so can other kinds be put together.

The tenant's own process has the lowest priority, for want of a machine of its own. Three replicas
that sync to disk. Prints one line of JSON per measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

import raftckpt
import raftckpt.aio
from raftckpt.testing import LocalCluster

SESSIONS = 16
OUTSTANDING = 64
SECTIONS = 20_000
RATE_PER_S = 100
CALMS_S = 1.0


# --- the tenant --------------------------------------------------------------------------------


async def put_on(endpoints: str, number: int) -> None:
    async with raftckpt.aio.connect(endpoints) as service:
        mine = await service.open(f"tenant-{number}", create=raftckpt.Attributes(retention=0.0))
        data = bytes(4096)

        async def lane(lane: int) -> None:
            while True:
                with contextlib.suppress(raftckpt.CheckpointError):
                    await mine.put(f"s{lane}", data)

        await asyncio.gather(*map(lane, range(OUTSTANDING)))


async def read_on(endpoints: str, number: int) -> None:
    async with raftckpt.aio.connect(endpoints) as service:
        mine = await service.open("wide")
        while True:
            with contextlib.suppress(raftckpt.CheckpointError):
                await asyncio.gather(mine.read_all(), mine.sections(), service.cluster())


async def come_and_go(endpoints: str, number: int) -> None:
    while True:
        with contextlib.suppress(raftckpt.CheckpointError, OSError):
            async with (
                raftckpt.aio.connect(endpoints) as service,
                await service.track("wide") as tracker,
            ):
                await anext(aiter(tracker))


WORK = {"writes": put_on, "reads": read_on, "comers": come_and_go}
MIXED = "+".join(WORK)


async def be_the_tenant(endpoints: str, what: str, seconds: float) -> None:
    os.nice(19)  # he sits on another machine: here he only gets what the replicas leave
    works = [WORK[kind] for kind in (MIXED if what == "mixed" else what).split("+")]
    each = SESSIONS // len(works)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(work(endpoints, n) for work in works for n in range(each)))


# --- the other one -----------------------------------------------------------------------------


async def live(endpoints: str, seconds: float) -> dict[str, list[float]]:
    """Latencies in ms by what was done, from when it was due."""
    waited: dict[str, list[float]] = {"writes": [], "reads": [], "trackers": []}
    loop = asyncio.get_running_loop()
    async with raftckpt.aio.connect(endpoints, timeout=60) as service:
        mine = await service.open("other", create=raftckpt.Attributes())
        await mine.put("k0", b"%020d" % time.monotonic_ns())
        tracker = await service.track("other", image=False)

        async def follow() -> None:
            async for change in tracker:
                if change.data is not None:
                    written = int(bytes(change.data))
                    waited["trackers"].append((time.monotonic_ns() - written) / 1e6)

        async def put(number: int, due: float) -> None:
            await mine.put(f"k{number % 16}", b"%020d" % time.monotonic_ns())
            waited["writes"].append((loop.time() - due) * 1e3)

        async def read(number: int, due: float) -> None:
            await mine.read("k0")
            waited["reads"].append((loop.time() - due) * 1e3)

        following = loop.create_task(follow())
        doing: set[asyncio.Task[None]] = set()
        begin = loop.time()
        for number in range(int(RATE_PER_S * seconds)):
            due = begin + number / RATE_PER_S
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            for work in (put, read):
                task = loop.create_task(work(number, due))
                doing.add(task)
                task.add_done_callback(doing.discard)
        await asyncio.gather(*doing)
        await asyncio.sleep(CALMS_S)
        following.cancel()
        await tracker.close()
    return waited


def p99(values: list[float]) -> float:
    return round(sorted(values)[int(len(values) * 0.99)], 2)


def measure(what: str, rounds: int, seconds: float) -> None:
    found: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
    with LocalCluster(3, faults=False) as cluster:
        cluster.start()
        cluster.wait_ready()
        with raftckpt.connect(cluster.endpoints, timeout=60) as service:
            wide = service.open("wide", create=raftckpt.Attributes())
            for start in range(0, SECTIONS, 500):
                with wide.transaction() as all_of_them:
                    for number in range(start, start + 500):
                        all_of_them.put(f"s{number}", bytes(100))
        for _ in range(rounds):
            for with_him in (False, True):
                tenant = None
                if with_him:
                    command = [sys.executable, __file__, what, "--be", str(seconds + 3.0)]
                    command += ["--endpoints", cluster.endpoints]
                    tenant = subprocess.Popen(command, stderr=subprocess.DEVNULL)
                    time.sleep(2.0)
                for name, values in asyncio.run(live(cluster.endpoints, seconds)).items():
                    found[with_him].setdefault(name, []).append(p99(values))
                if tenant is not None:
                    tenant.wait()
        turns = [status["turn_cpu_ms"] for n in cluster.nodes if (status := cluster.status(n, 10))]
    for name in found[True]:
        without, beside = (statistics.median(found[which][name]) for which in (False, True))
        print(
            json.dumps(
                {
                    "tenant": what,
                    "other": name,
                    "p99_ms_without": found[False][name],
                    "p99_ms_with": found[True][name],
                    "median_without": without,
                    "median_with": beside,
                    "times": round(beside / without, 2),
                    "turn_cpu_ms": turns,
                }
            ),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", nargs="*", default=["writes", "reads", "comers", "mixed"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--be", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--endpoints", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.what:
        if options.be:
            asyncio.run(be_the_tenant(options.endpoints, name, options.be))
        else:
            measure(name, options.rounds, options.seconds)


if __name__ == "__main__":
    main()

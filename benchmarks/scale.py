"""What one group carries: how it changes with each thing that there can be more of.

    python benchmarks/scale.py [--out DIR] [--minutes 15] [--only sections,replicas] [--rounds 5]

Axes: sections, checkpoints, sessions, trackers, connections, bytes of a value, replicas. Along each
its points take turns (all of them are there at once; one is loaded at a time), round by round as
long as its share of the minutes lasts; medians. What is asked is how the points of an axis compare,
so the plots say it as multiples of the first point, and a machine that does other work beside it
is no great harm; the figures themselves are in table.md, with the load.

Three replicas that sync to disk, on this machine, with the generator and everything else. Loads:
*one* write of 100 B after the other, and *full*, 256 outstanding over 8 connections. *Restart*:
kill -9 of all replicas to the first acknowledged write. *Snapshot*: from its beginning to its end
on one replica, while the others take theirs. Writes results.json, table.md, and a plot per axis,
scale-AXIS.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import compare
import yaml

import raftckpt
from raftckpt.bench.generator import Counts, Generator
from raftckpt.bench.link import ClusterAccess, ReplicaLink
from raftckpt.bench.loads import Load
from raftckpt.bench.plots import Series, line_plot
from raftckpt.client.endpoints import parse_endpoints
from raftckpt.errors import CheckpointError
from raftckpt.limits import SECOND_NS
from raftckpt.model.types import CreationFlags, OpenFlags
from raftckpt.protocol.contract import SESSION_SECRET_BYTES
from raftckpt.protocol.operations import (
    CheckpointClose,
    CheckpointOpen,
    ReplicaStatusRequest,
    SessionOpen,
    Track,
)
from raftckpt.testing import LocalCluster

CALM = {"timing": {"election_min_ms": 1000, "election_max_ms": 2000}}
"""A machine that does much else is to have no elections while it is measured."""
CLIENTS = 8
OUTSTANDING = 32
TURN_S = 1.0
WARM_UP_S = 0.25
PREPARE_S = 120.0
RESTART_S = 180.0
IDLE_NS = 24 * 3600 * SECOND_NS
CHECKPOINT = "scale-{}"
PIPELINED = 1000
PACED_PER_S = 1000.0
ENTRIES_DUE = 200
BENDS = 1.5
"""Times worse than at the first point: there an axis is said to bend."""

MEASURES = {
    "one_p50_us": ("us, one write", "time of one write"),
    "full_per_s": ("writes/s, full", "writes/s, full"),
    "mb_per_s": ("MB/s, full", "MB/s, full"),
    "paced_p50_us": ("us, at 1,000/s", "time at 1,000/s"),
    "leader_cpu_us": ("leader, us of CPU a write", "CPU of the leader"),
    "all_cpu_us": ("all replicas, us of CPU a write", "CPU of all"),
    "resident_mib": ("leader, MiB resident", "memory"),
    "restart_s": ("s, restart", "restart"),
    "snapshot_s": ("s, snapshot", "snapshot"),
}
"""Column of the table, line of the plot."""
MORE_IS_BETTER = ("full_per_s", "mb_per_s")
Found = dict[str, float]


# --- a cluster and who loads it -------------------------------------------------------------------
class TurnLost(Exception):
    """What happened in a turn makes it none."""


class Crowd:
    """Clients of one load, who hold what they made.

    Arguments:
        access: where the cluster is.
        load: of all of them.
        first: number of the first one; other numbers mean other checkpoints and sections.
        shared: whether all open the same checkpoints; else each has its own.
    """

    def __init__(self, access: ClusterAccess, load: Load, first: int, shared: bool) -> None:
        self.load = load
        self.generators: list[Generator] = []
        self._access = access
        self._first = first
        self._shared = shared

    async def come(self) -> None:
        """Connect and make what there is to be, instead of those who were here."""
        former, waits = self.generators, asyncio.Semaphore(32)
        self.generators = [
            Generator(self.load, self._first + number, self._access)
            for number in range(self.load.clients)
        ]

        async def ready(number: int, generator: Generator) -> None:
            prefix = f"{self._first}" if self._shared else f"{self._first}-{number}"
            async with waits:
                await generator.prepare(
                    [CHECKPOINT.format(f"{prefix}-{each}") for each in range(self.load.checkpoints)]
                )

        await asyncio.gather(*(ready(*each) for each in enumerate(self.generators)))
        await self._part(former)

    async def leave(self) -> None:
        await self._part(self.generators)

    async def _part(self, generators: Sequence[Generator]) -> None:
        parting = (generator.close() for generator in generators)
        for error in await asyncio.gather(*parting, return_exceptions=True):
            if error is not None and not isinstance(error, AttributeError):  # it never got so far
                raise error


class Stand:
    """A cluster of one point, or of several, and who holds what it carries."""

    def __init__(self, replicas: int = 3) -> None:
        self.cluster = LocalCluster(replicas, faults=False, settings=CALM)
        self.crowds: list[Crowd] = []

    async def start(self) -> None:
        self.cluster.start()
        await asyncio.to_thread(self.cluster.wait_ready, RESTART_S)
        endpoints = parse_endpoints(self.cluster.endpoints)
        self.access = ClusterAccess(endpoints, None, None, "scale", PREPARE_S)

    async def stop(self) -> None:
        for crowd in self.crowds:
            await crowd.leave()
        await asyncio.to_thread(self.cluster.stop)

    async def hold(self, load: Load, first: int = 0, shared: bool = True) -> Crowd:
        """Have clients connect, open checkpoints and make sections, which stay."""
        crowd = Crowd(self.access, load, first, shared)
        self.crowds.append(crowd)
        await crowd.come()
        return crowd

    async def load(self, crowd: Crowd, first: int | None = None, **change: Any) -> Found:
        """Have them (or the first so many) write for a turn; a change of their load for it.

        Raises:
            TurnLost: the leader changed, or something was refused; they came again.
        """
        generators = crowd.generators[:first]
        for each in generators:
            each.counts, each._paced = Counts(), 0
            each._load = dataclasses.replace(crowd.load, clients=len(generators), **change)
        before = await self.statuses()
        begin = time.perf_counter() + WARM_UP_S
        parts = await asyncio.gather(*(each.measure(begin, begin + TURN_S) for each in generators))
        after = await self.statuses()
        total = Counts()
        for part in parts:
            total.merge(part.to_json())
        leader = next((node for node in after if after[node]["leader"] == node), "")
        if total.errors or leader not in before or not total.writes.count:
            await crowd.come()
            why = "nothing was written" if leader in before else "there was no leader"
            raise TurnLost(total.first_error or why)
        spent = {
            node: (after[node]["cpu_ms"] - before[node]["cpu_ms"]) * 1e3
            for node in after
            if node in before
        }
        written = total.writes.count / TURN_S * (TURN_S + WARM_UP_S)
        return {
            "per_s": total.writes.count / TURN_S,
            "p50_us": total.writes.percentile(50),
            "leader_cpu_us": spent[leader] / written,
            "all_cpu_us": sum(spent.values()) / written,
            "resident_mib": after[leader]["rss_bytes"] / (1 << 20),
        }

    async def one(self, crowd: Crowd) -> Found:
        found = await self.load(crowd, 1, outstanding=1)
        return {"one_p50_us": found["p50_us"]}

    async def full(self, crowd: Crowd, outstanding: int = OUTSTANDING) -> Found:
        found = await self.load(crowd, outstanding=outstanding)
        kept = ("leader_cpu_us", "all_cpu_us", "resident_mib")
        return {"full_per_s": found["per_s"], **{name: found[name] for name in kept}}

    async def statuses(self) -> dict[str, Any]:
        """Status of every replica, by node."""
        told = {}
        for endpoint in self.access.endpoints:
            with contextlib.suppress(CheckpointError):
                link = await ReplicaLink.to(endpoint, self.access)
                try:
                    status = await link.ask(ReplicaStatusRequest(0), 10.0)
                    told[status["node"]] = status
                finally:
                    link.close()
        return told

    # --- its state as a whole ---------------------------------------------------------------------
    async def restart(self) -> Found:
        """Kill all replicas; how long until the first write after that is acknowledged."""
        return {"restart_s": await asyncio.to_thread(self._restart)}

    def _restart(self) -> float:
        cluster = self.cluster
        cluster.kill()
        self._configure(timing={})
        begin = time.monotonic()
        cluster.start()
        with raftckpt.connect(cluster.endpoints, timeout=RESTART_S) as service:
            attributes = raftckpt.Attributes(retention=0)
            service.open("after-restart", create=attributes).put("key", b"value")
        return time.monotonic() - begin

    async def snapshot(self) -> Found:
        """Have the replicas take a snapshot; how long that takes one of them."""
        return {"snapshot_s": await asyncio.to_thread(self._snapshot)}

    def _snapshot(self) -> float:
        """Start again with a bound that a few writes exceed, and watch a directory."""
        cluster = self.cluster
        cluster.kill()
        self._configure(snapshot={"entries": ENTRIES_DUE})
        cluster.start()
        directory = cluster.node_dir(cluster.nodes[0]) / "snapshots"
        with ThreadPoolExecutor(1) as pool:
            writes = pool.submit(self._write, 2 * ENTRIES_DUE)
            until, begins = time.monotonic() + RESTART_S, 0.0
            while (now := time.monotonic()) < until:
                making = any(name.endswith(".tmp") for name in os.listdir(directory))
                if making and not begins:
                    begins = now
                elif begins and not making:
                    writes.result()
                    return now - begins
                time.sleep(0.0005)
        raise RuntimeError("no snapshot was taken")

    def _configure(self, **sections: dict[str, int]) -> None:
        path = self.cluster.config_path
        config = {**yaml.safe_load(path.read_text("utf-8")), **sections}
        path.write_text(yaml.safe_dump(config), "utf-8")

    def _write(self, count: int) -> None:
        with raftckpt.connect(self.cluster.endpoints, timeout=RESTART_S) as service:
            checkpoint = service.open("scale-due", create=raftckpt.Attributes(retention=0))
            for number in range(count):
                checkpoint.put("key", b"%d" % number)


# --- axes -----------------------------------------------------------------------------------------
class Point(NamedTuple):
    """A point of an axis: what is done in a turn, and once after all turns."""

    at: float
    turn: Callable[[], Awaitable[Found]]
    after: Callable[[], Awaitable[Found]] | None = None


Setup = Callable[[Sequence[int], contextlib.AsyncExitStack], AsyncIterator[Point]]


async def started(
    stack: contextlib.AsyncExitStack, points: Sequence[int] = (1,), replicas: Sequence[int] = ()
) -> list[Stand]:
    """A cluster for each point."""
    stands = [Stand(count) for count in replicas or [3] * len(points)]
    for stand in stands:
        stack.push_async_callback(stand.stop)
    await asyncio.gather(*(stand.start() for stand in stands))
    return stands


def both(stand: Stand, crowd: Crowd) -> Callable[[], Awaitable[Found]]:
    async def turn() -> Found:
        return {**await stand.one(crowd), **await stand.full(crowd)}

    return turn


def lasting(stand: Stand) -> Callable[[], Awaitable[Found]]:
    async def after() -> Found:
        return {**await stand.restart(), **await stand.snapshot()}

    return after


async def sections(counts: Sequence[int], stack: contextlib.AsyncExitStack) -> AsyncIterator[Point]:
    """So many sections of 100 B in one checkpoint, all of them written to."""
    for count, stand in zip(counts, await started(stack, counts), strict=True):
        crowd = await stand.hold(Load(clients=CLIENTS, sections=count))
        yield Point(count, both(stand, crowd), lasting(stand))


async def checkpoints(
    counts: Sequence[int], stack: contextlib.AsyncExitStack
) -> AsyncIterator[Point]:
    """So many checkpoints that nobody has open, beside eight that are written to."""
    for count, stand in zip(counts, await started(stack, counts), strict=True):
        crowd = await stand.hold(Load(clients=CLIENTS), shared=False)
        await lying_there(stand, count)
        yield Point(CLIENTS + count, both(stand, crowd), lasting(stand))


async def lying_there(stand: Stand, count: int) -> None:
    """Create checkpoints that stay, and close them."""
    link = await ReplicaLink.to_leader(stand.access)
    secret = os.urandom(SESSION_SECRET_BYTES)
    await link.ask(SessionOpen(0, 0, 0, secret, "away", "", IDLE_NS, IDLE_NS), PREPARE_S)
    attributes = (int(CreationFlags.WR_ALL_REPLICAS), 1 << 20, IDLE_NS, 16, 65_536, 64)
    flags = int(OpenFlags.WRITE | OpenFlags.CREATE)
    sequence = 0
    for first in range(0, count, PIPELINED):
        numbers = range(first, min(count, first + PIPELINED))
        opens = [
            CheckpointOpen(0, sequence + at, sequence, f"lying/{number}", flags, attributes)
            for at, number in enumerate(numbers, 1)
        ]
        opened = await asked(link, opens)
        sequence += len(opens)
        closes = [
            CheckpointClose(0, sequence + at, sequence, handle)
            for at, (handle, *_) in enumerate(opened, 1)
        ]
        await asked(link, closes)
        sequence += len(closes)
    link.close()


async def asked(link: ReplicaLink, commands: list[Any]) -> list[Any]:
    """Send commands in one frame; the values of their replies."""
    futures = []
    for command in commands:
        command.session = link.number()
        futures.append(asyncio.get_running_loop().create_future())
        link._waiting[command.session] = futures[-1]
    link.write(commands)
    return await asyncio.wait_for(asyncio.gather(*futures), PREPARE_S)


async def sessions(counts: Sequence[int], stack: contextlib.AsyncExitStack) -> AsyncIterator[Point]:
    """So many sessions whose clients are away, beside those that write."""
    for count, stand in zip(counts, await started(stack, counts), strict=True):
        crowd = await stand.hold(Load(clients=CLIENTS))
        waits = asyncio.Semaphore(32)

        async def begin(access: ClusterAccess, waits: asyncio.Semaphore = waits) -> None:
            async with waits:
                link = await ReplicaLink.to_leader(access)
                secret = os.urandom(SESSION_SECRET_BYTES)
                message = SessionOpen(0, 0, 0, secret, "away", "", IDLE_NS, IDLE_NS)
                await link.ask(message, PREPARE_S)
                link.close()

        access = stand.access._replace(endpoints=[stand.cluster.endpoint(stand.cluster.leader())])
        await asyncio.gather(*(begin(access) for _ in range(count)))
        yield Point(CLIENTS + count, both(stand, crowd), lasting(stand))


async def replicas(counts: Sequence[int], stack: contextlib.AsyncExitStack) -> AsyncIterator[Point]:
    """So many replicas."""
    for count, stand in zip(counts, await started(stack, replicas=counts), strict=True):
        crowd = await stand.hold(Load(clients=CLIENTS))
        yield Point(count, both(stand, crowd))


async def connections(
    counts: Sequence[int], stack: contextlib.AsyncExitStack
) -> AsyncIterator[Point]:
    """So many connections, each with one write on its way."""
    (stand,) = await started(stack)
    first = 0
    for count in counts:
        crowd = await stand.hold(Load(clients=count, sections=max(1024, count)), first)
        first += count

        async def turn(crowd: Crowd = crowd) -> Found:
            found = await stand.load(crowd, outstanding=1)
            kept = {name: found[name] for name in ("leader_cpu_us", "all_cpu_us")}
            return {"one_p50_us": found["p50_us"], "full_per_s": found["per_s"], **kept}

        yield Point(count, turn)


async def values(counts: Sequence[int], stack: contextlib.AsyncExitStack) -> AsyncIterator[Point]:
    """Values of so many bytes: one after the other, and 8 outstanding over 8 connections."""
    (stand,) = await started(stack)
    for number, size in enumerate(counts):
        load = Load(clients=CLIENTS, size=size, sections=2 * CLIENTS)
        crowd = await stand.hold(load, CLIENTS * number)

        async def turn(crowd: Crowd = crowd) -> Found:
            found = {**await stand.one(crowd), **await stand.full(crowd, 1)}
            del found["resident_mib"]  # of all sizes together
            return {**found, "mb_per_s": found["full_per_s"] * crowd.load.size / 1e6}

        yield Point(size, turn)


async def trackers(counts: Sequence[int], stack: contextlib.AsyncExitStack) -> AsyncIterator[Point]:
    """So many trackers in a process beside it, of a checkpoint that is written to."""
    (stand,) = await started(stack)
    crowd = await stand.hold(Load(clients=CLIENTS))

    def point(count: int) -> Point:
        async def turn() -> Found:
            async with followers(stand, count):
                found = await stand.one(crowd)
                paced = await stand.load(crowd, outstanding=OUTSTANDING, rate=PACED_PER_S)
            kept = {name: paced[name] for name in ("leader_cpu_us", "all_cpu_us")}
            return {**found, "paced_p50_us": paced["p50_us"], **kept}

        return Point(count, turn)

    for count in counts:
        yield point(count)


@contextlib.asynccontextmanager
async def followers(stand: Stand, count: int) -> AsyncIterator[None]:
    """So many trackers, connections of a process of their own that reads and counts the bytes."""
    command = [sys.executable, __file__, "--follow", str(count)]
    command += ["--endpoints", ",".join(stand.access.endpoints)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"follow\n", "the trackers did not get ready"
        yield
    finally:
        process.kill()
        await process.wait()


async def follow(endpoints: list[str], count: int) -> None:
    """Be trackers, spread over the replicas, until killed."""
    access = ClusterAccess(endpoints, None, None, "tracker", PREPARE_S)
    links = []
    for number in range(count):
        link = await ReplicaLink.to(endpoints[number % len(endpoints)], access)
        await link.ask(Track(0, CHECKPOINT.format("0-0"), None, False, 0))
        link.data_received = lambda data: None  # type: ignore[method-assign]
        links.append(link)
    print("follow", flush=True)
    await asyncio.to_thread(sys.stdin.read)


class Axis(NamedTuple):
    """What there is more and more of."""

    title: str
    setup: Setup
    counts: tuple[int, ...]
    shown: tuple[str, ...]
    """In its plot."""
    share: float = 1.0
    """Of the time."""


STATE = ("full_per_s", "one_p50_us", "resident_mib", "restart_s", "snapshot_s")
AXES = {
    "sections": Axis("sections", sections, (1000, 10_000, 100_000, 1_000_000), STATE, 2.5),
    "checkpoints": Axis(
        "checkpoints, most of them idle", checkpoints, (0, 1000, 10_000, 100_000), STATE, 2.0
    ),
    "sessions": Axis("sessions, most of them away", sessions, (0, 100, 1000, 10_000), STATE, 1.5),
    "trackers": Axis(
        "trackers of what is written", trackers, (1, 4, 16, 64, 256),
        ("one_p50_us", "paced_p50_us", "all_cpu_us"),
    ),
    "connections": Axis(
        "connections with one write each", connections, (1, 8, 64, 256, 1000),
        ("full_per_s", "one_p50_us", "leader_cpu_us"),
    ),
    "values": Axis(
        "bytes of a value", values, (100, 1024, 16_384, 65_536, 262_144, 1_048_576),
        ("full_per_s", "one_p50_us", "mb_per_s"),
    ),
    "replicas": Axis(
        "replicas on two processors", replicas, (1, 3, 5, 7),
        ("full_per_s", "one_p50_us", "all_cpu_us"), 1.5,
    ),
}  # fmt: skip


Results = dict[float, dict[str, list[float]]]


async def along(axis: Axis, counts: Sequence[int], rounds: int, until: float) -> Results:
    """Point -> measure -> what each round found. The first round is whole, whatever it takes."""
    results: Results = {}

    def note(point: Point, found: Found) -> None:
        for name, value in found.items():
            results.setdefault(point.at, {}).setdefault(name, []).append(value)
        shown = ", ".join(f"{name} {value:,.1f}" for name, value in found.items())
        print(f"{axis.title} {point.at:g}: {shown}", file=sys.stderr, flush=True)

    async with contextlib.AsyncExitStack() as stack:
        points = [point async for point in axis.setup(counts, stack)]
        reserve = sum(point.after is not None for point in points) * AFTER_S
        for number in range(rounds):
            if number and time.monotonic() + reserve > until:
                break
            turn = number % len(points)
            for point in points[turn:] + points[:turn]:
                try:
                    note(point, await point.turn())
                except TurnLost as why:
                    print(f"{axis.title} {point.at:g}: {why}", file=sys.stderr, flush=True)
        for point in points:
            if point.after is not None:
                note(point, await point.after())
    return dict(sorted(results.items()))


AFTER_S = 8.0
"""A guess of what restart and snapshot of a point take, kept back of an axis' time."""


# --- what is told ---------------------------------------------------------------------------------
def medians(results: Results, name: str) -> list[tuple[float, float]]:
    return [(at, statistics.median(found[name])) for at, found in results.items() if name in found]


def bends_at(points: Sequence[tuple[float, float]], more_is_better: bool) -> float | None:
    """The first point that is worse than the first of all by more than BENDS."""
    if not points or not points[0][1]:
        return None
    base = points[0][1]
    for at, value in points:
        if (base > BENDS * value) if more_is_better else (value > BENDS * base):
            return at
    return None


def plot(axis: Axis, results: Results) -> str:
    series = []
    for name in axis.shown:
        points = medians(results, name)
        if points and points[0][1]:
            line = [(at, value / points[0][1]) for at, value in points]
            series.append(Series(MEASURES[name][1], line))
    title = f"More {axis.title}: times the first point"
    return line_plot(title, axis.title, "times the first point", series, x_log=True, y_log=True)


def table(axis: Axis, results: Results) -> str:
    names = [name for name in MEASURES if medians(results, name)]
    rounds = max(len(values) for found in results.values() for values in found.values())
    lines = [f"| {axis.title} | " + " | ".join(MEASURES[name][0] for name in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for at, found in results.items():
        cells = [shown(statistics.median(found[name])) if name in found else "-" for name in names]
        lines.append(f"| {at:,.0f} | " + " | ".join(cells) + " |")
    bends = [bends_at(medians(results, name), name in MORE_IS_BETTER) for name in names]
    told = ["-" if at is None else f"{at:,.0f}" for at in bends]
    lines.append(f"| *{BENDS}x worse at* | " + " | ".join(told) + " |")
    return "\n".join(lines) + f"\n\n(Rounds: {rounds}.)\n"


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


async def run(options: argparse.Namespace) -> None:
    names = options.only.split(",") if options.only else list(AXES)
    shares = sum(AXES[name].share for name in names)
    begin = time.monotonic()
    whole: dict[str, Any] = {"machine": compare.describe_machine(), "axes": {}}
    texts = []
    options.out.mkdir(parents=True, exist_ok=True)
    due = 0.0
    for name in names:
        axis = AXES[name]
        counts = [each for each in axis.counts if each <= options.most]
        due += axis.share / shares * options.minutes * 60
        before = os.getloadavg()[0]
        results = await along(axis, counts, options.rounds, begin + due)
        load = f"{before:.1f} before, {os.getloadavg()[0]:.1f} after"
        told = {f"{at:.0f}": found for at, found in results.items()}
        whole["axes"][name] = {"load": load, "points": told}
        texts.append(f"### {axis.title}\n\n{table(axis, results)}\nLoad average {load}.\n")
        (options.out / f"scale-{name}.svg").write_text(plot(axis, results), "utf-8")
        (options.out / "table.md").write_text("\n".join(texts), "utf-8")
        (options.out / "results.json").write_text(json.dumps(whole, indent=1), "utf-8")
    print("\n".join(texts))
    print(f"{(time.monotonic() - begin) / 60:.1f} minutes")


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("scale-results"))
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help=f"axes, by name: {','.join(AXES)}")
    parser.add_argument(
        "--most", type=float, default=float("inf"), help="leave points above it out"
    )
    parser.add_argument("--follow", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--endpoints", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.follow is not None:
        uvloop.run(follow(options.endpoints.split(","), options.follow))
        return
    uvloop.run(run(options))


if __name__ == "__main__":
    main()

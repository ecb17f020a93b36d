"""Runs a load: starts the processes of the generator, asks the replicas, adds everything up."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from raftckpt import errors
from raftckpt.bench.generator import SLOT_S, Counts
from raftckpt.bench.histogram import Histogram
from raftckpt.bench.link import ClusterAccess, ReplicaLink
from raftckpt.bench.loads import Load
from raftckpt.bench.task import Task
from raftckpt.client.endpoints import parse_endpoints, tls_context
from raftckpt.client.types import TlsOptions
from raftckpt.errors import CheckpointError, InvalidParam, Unavailable
from raftckpt.protocol.contract import INLINE_WRITE_BYTES_MAX
from raftckpt.protocol.operations import ReplicaStatusRequest

__all__ = ["Measured", "ReplicaCost", "run"]

_PREPARE_SECONDS_MAX: Final = 600.0
"""To make sections: gigabytes on a slow disk take minutes. Who is not done by then is stuck."""
_FINISH_SECONDS_MAX: Final = 60.0
"""Beyond the end, for what is on its way: twice the time-out of a session."""
_LINE_BYTES_MAX: Final = 64 << 20
"""A result is one line of JSON, with histograms and the time line of a run: megabytes at most, and
the 64 KiB that asyncio would take are too few."""


@dataclass(frozen=True)
class ReplicaCost:
    """What one replica spent while the load was measured (its warm-up included)."""

    node: str
    role: str
    cpu_s: float
    rss_bytes: int
    fsyncs: int
    longest_step_ms: int | None
    """The longest step of its loop in the last minute or two, syncs not counted.

    None: the replica is of a version that does not tell.
    """
    entries: int
    """Raft entries that were committed: batches of operations."""


@dataclass(frozen=True)
class Measured:
    """What came of a load. Latencies in microseconds.

    Without a rate a latency runs from the moment a request was sent, and the next one is sent
    when an answer is in: a stall of the cluster delays requests that are then never measured as
    late (coordinated omission). With a rate it runs from the moment the request was *due*, so
    that every request a stall has kept waiting is counted with its waiting.
    """

    load: Load
    operations: int
    seconds: float
    errors: int
    first_error: str
    reads: Histogram
    writes: Histogram
    committed: Histogram
    generator_cpu_s: float
    replicas: list[ReplicaCost] = field(default_factory=list)
    elections: int = 0
    timeline: list[tuple[float, float, float]] = field(default_factory=list)
    """(seconds, operations/s, worst latency in seconds) of each tenth of a second."""

    @property
    def ops_per_s(self) -> float:
        """Acknowledged operations per second."""
        return self.operations / self.seconds

    @property
    def mb_per_s(self) -> float:
        """Data of the acknowledged operations, 10**6 bytes per second."""
        size = self.reads.count * self.load.size + self.writes.count * self.load.bytes_per_write
        return size / self.seconds / 1e6

    @property
    def all(self) -> Histogram:
        """Reads and writes together."""
        both = Histogram()
        both.merge(self.reads.to_json())
        both.merge(self.writes.to_json())
        return both


async def run(
    endpoints: str,
    load: Load,
    *,
    timeout: float = 10.0,
    tls: TlsOptions | None = None,
    token: str | None = None,
    name: str = "raftckpt-bench",
) -> Measured:
    """Put the load on the cluster and measure; the cluster keeps nothing of it.

    Arguments:
        endpoints: where the cluster is, see :func:`raftckpt.connect`.
        load: what to do.
        timeout: seconds for each step of the preparation.
        tls: see :func:`raftckpt.connect`.
        token: see :func:`raftckpt.connect`.
        name: what the replicas are told of who connects.

    Raises:
        CheckpointError: the cluster cannot be reached at all, or refuses the load.
    """
    if load.workload == "vector" and load.bytes_per_write > INLINE_WRITE_BYTES_MAX:
        raise InvalidParam(f"a vector write carries at most {INLINE_WRITE_BYTES_MAX} bytes")
    addresses = parse_endpoints(endpoints)
    unique = os.urandom(4).hex()
    names = [f"raftckpt-bench-{unique}-{number}" for number in range(load.checkpoints)]
    files = [tls.ca, tls.cert, tls.key] if tls is not None else None
    tasks = [
        Task(load, clients, names, addresses, files, token, name, timeout)
        for clients in (
            list(range(first, load.clients, load.processes)) for first in range(load.processes)
        )
        if clients
    ]
    access = ClusterAccess(addresses, tls_context(tls), token, name, timeout)
    workers = [await _Worker.start() for _ in tasks]
    try:
        for worker, task in zip(workers, tasks, strict=True):
            worker.tell(json.dumps(task.to_json()))
        await asyncio.gather(*(worker.said(_PREPARE_SECONDS_MAX) for worker in workers))
        before = await _statuses(access)
        for worker in workers:
            worker.tell("")
        most = load.warmup + load.seconds + _FINISH_SECONDS_MAX
        at_end = asyncio.create_task(_statuses_after(access, load.warmup + load.seconds))
        results = await asyncio.gather(*(worker.said(most) for worker in workers))
        after = await at_end
    finally:
        await asyncio.gather(*(worker.end() for worker in workers))
    return _measured(load, results, before, after)


async def _statuses_after(access: ClusterAccess, seconds: float) -> dict[str, Any]:
    await asyncio.sleep(seconds)
    return await _statuses(access)


class _Worker:
    """A process of the generator."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> _Worker:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "raftckpt.bench.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES_MAX,
            )
        )

    def tell(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line.encode() + b"\n")

    async def said(self, seconds: float) -> dict[str, Any]:
        """Return the next thing it says.

        Raises:
            CheckpointError: what stopped it.
        """
        output = self._process.stdout
        try:
            async with asyncio.timeout(seconds):
                line = await output.readline() if output is not None else b""
        except TimeoutError:
            raise Unavailable("the load generator did not get ready in time") from None
        if not line:
            raise Unavailable("a process of the load generator ended; its error is printed above")
        said: dict[str, Any] = json.loads(line)
        if "failed" in said:
            kind = getattr(errors, said["kind"], CheckpointError)
            raise kind(said["failed"])
        return said

    async def end(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def _statuses(access: ClusterAccess) -> dict[str, Any]:
    """Status of every replica that answers, by node."""

    async def ask(endpoint: str) -> dict[str, Any] | None:
        try:
            link = await ReplicaLink.to(endpoint, access._replace(timeout=2.0))
        except CheckpointError:
            return None
        try:
            status: dict[str, Any] = await link.ask(ReplicaStatusRequest(0), 5.0)
            return status
        except CheckpointError:
            return None
        finally:
            link.close()

    found = await asyncio.gather(*map(ask, access.endpoints))
    return {status["node"]: status for status in found if status is not None}


def _measured(
    load: Load,
    results: Sequence[Mapping[str, Any]],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Measured:
    total = Counts()
    for result in results:
        total.merge(result)
    replicas = [
        ReplicaCost(
            node,
            status["role"],
            (status["cpu_ms"] - before[node]["cpu_ms"]) / 1000,
            status["rss_bytes"],
            status["fsyncs"] - before[node]["fsyncs"],
            status.get("longest_step_ms"),
            status["commit"] - before[node]["commit"],
        )
        for node, status in sorted(after.items())
        if node in before and status["pid"] == before[node]["pid"]
    ]
    terms = [max((status["term"] for status in at.values()), default=0) for at in (before, after)]
    return Measured(
        load=load,
        operations=total.reads.count + total.writes.count,
        seconds=load.seconds,
        errors=total.errors,
        first_error=total.first_error,
        reads=total.reads,
        writes=total.writes,
        committed=total.committed,
        generator_cpu_s=sum(result["cpu_s"] for result in results),
        replicas=replicas,
        elections=terms[1] - terms[0],
        timeline=[
            (slot * SLOT_S, total.timeline.get(slot, [0, 0.0])[0] / SLOT_S, worst)
            for slot, worst in (
                (slot, total.timeline.get(slot, [0, 0.0])[1])
                for slot in range(int(load.seconds / SLOT_S))
            )
        ],
    )

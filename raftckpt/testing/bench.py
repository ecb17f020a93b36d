"""A load generator: so many clients, so many requests outstanding, for so long.

What counts is acknowledged operations. It shares the machine with what it measures when the
cluster is local; a single process generates the load, so above some rate it measures itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import time
from typing import Any, NamedTuple

import raftckpt
from raftckpt import aio

__all__ = ["Load", "Measured", "run"]

CHECKPOINT = "raftckpt-bench"
_SECTIONS_PER_WORKER = 16


class Load(NamedTuple):
    """What to do: clients (connections), requests outstanding on each, bytes, share of reads."""

    clients: int
    outstanding: int
    size: int
    reads: float
    seconds: float


class Measured(NamedTuple):
    """What came of it; latencies in microseconds."""

    operations: int
    errors: int
    seconds: float
    ops_per_s: float
    mb_per_s: float
    p50_us: float
    p99_us: float
    first_error: str


async def run(endpoints: str, load: Load, **connection: Any) -> Measured:
    """Put the load on the cluster and measure.

    Arguments:
        endpoints: where the cluster is.
        load: what to do.
        connection: more arguments of :func:`raftckpt.aio.connect`.

    The checkpoint it writes to is dropped at the end.

    Raises:
        CheckpointError: the cluster cannot be reached at all.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def connect() -> aio.Service:
            return await stack.enter_async_context(aio.connect(endpoints, **connection))

        owner = await connect()
        name = f"{CHECKPOINT}-{os.urandom(4).hex()}"
        await owner.open(name, create=raftckpt.Attributes(retention=0.0))
        checkpoints = [await (await connect()).open(name) for _ in range(load.clients)]
        workers = [
            _Worker(checkpoint, client * load.outstanding + number, load)
            for client, checkpoint in enumerate(checkpoints)
            for number in range(load.outstanding)
        ]
        if load.reads:
            await asyncio.gather(*(worker.prepare() for worker in workers))
        begin = time.perf_counter()
        await asyncio.gather(*(worker.work(begin + load.seconds) for worker in workers))
        seconds = time.perf_counter() - begin
    latencies = sorted(latency for worker in workers for latency in worker.latencies)
    errors = [error for worker in workers for error in worker.errors]
    count = len(latencies)
    return Measured(
        operations=count,
        errors=len(errors),
        seconds=seconds,
        ops_per_s=count / seconds,
        mb_per_s=count * load.size / seconds / 1e6,
        p50_us=latencies[count // 2] * 1e6 if count else 0.0,
        p99_us=latencies[min(count - 1, count * 99 // 100)] * 1e6 if count else 0.0,
        first_error=errors[0] if errors else "",
    )


class _Worker:
    """One outstanding request at a time, on sections of its own."""

    def __init__(self, checkpoint: aio.Checkpoint, number: int, load: Load) -> None:
        self.latencies: list[float] = []
        self.errors: list[str] = []
        self._checkpoint = checkpoint
        self._reads = load.reads
        self._data = os.urandom(load.size)
        self._ids = [b"w%d-%d" % (number, each) for each in range(_SECTIONS_PER_WORKER)]
        self._dice = random.Random(number)

    async def prepare(self) -> None:
        for section in self._ids:
            await self._checkpoint.put(section, self._data)

    async def work(self, until: float) -> None:
        checkpoint, data, reads, dice = self._checkpoint, self._data, self._reads, self._dice
        clock = time.perf_counter
        for section in itertools.cycle(self._ids):
            begin = clock()
            if begin >= until:
                return
            try:
                if reads and dice.random() < reads:
                    await checkpoint.read(section)
                else:
                    await checkpoint.put(section, data)
            except raftckpt.CheckpointError as error:
                self.errors.append(str(error))
            else:
                self.latencies.append(clock() - begin)

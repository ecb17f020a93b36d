"""A process of the load generator: reads what to do, prints what came of it. One JSON line each.

    in                                                   out
    {"load", "access", "names", "clients"}               {"ready": true} or {"failed", "kind"}
    an empty line: begin                                 {"reads", "writes", ...}

It ends when its standard input does, however its starter ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from time import perf_counter, process_time
from typing import Any

from raftckpt.bench.faces import run_aio, run_sync
from raftckpt.bench.generator import Counts, Generator
from raftckpt.bench.link import ClusterAccess
from raftckpt.bench.loads import Load
from raftckpt.bench.task import Starter, Task
from raftckpt.client.endpoints import tls_context
from raftckpt.errors import CheckpointError

__all__ = ["main"]


class _Stdin:
    """Begins on the word of the process that started this one, and takes the time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._cpu: list[float] = []

    async def begin(self) -> tuple[float, float]:
        """Say that all is prepared, wait for the word: (begin, end) of what is measured."""
        print(json.dumps({"ready": True}), flush=True)
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(None, sys.stdin.readline):
            raise SystemExit(1)
        warmup, seconds = self._load.warmup, self._load.seconds
        begin = perf_counter() + warmup
        for delay in (warmup, warmup + seconds):
            loop.call_later(delay, lambda: self._cpu.append(process_time()))
        return begin, begin + seconds

    @property
    def cpu_s(self) -> float:
        """CPU seconds of this process while it measured."""
        return self._cpu[1] - self._cpu[0] if len(self._cpu) == 2 else 0.0


async def _run_raw(task: Task, starter: Starter) -> list[Counts]:
    tls = tls_context(task.tls_options())
    access = ClusterAccess(task.endpoints, tls, task.token, task.name, task.timeout)
    generators = [Generator(task.load, client, access) for client in task.clients]
    for generator in generators:  # one after the other: a thousand at once would time out
        await generator.prepare(task.checkpoints)
    begin, end = await starter.begin()
    counts = await asyncio.gather(*(generator.measure(begin, end) for generator in generators))
    for generator in generators:
        await generator.close()
    return list(counts)


_RUNNERS = {"raw": _run_raw, "aio": run_aio, "sync": run_sync}


def _summary(counts: Iterable[Counts], cpu_s: float) -> dict[str, Any]:
    total = Counts()
    for each in counts:
        total.merge(each.to_json())
    return {**total.to_json(), "cpu_s": cpu_s}


def main() -> int:
    """Run one load."""
    task = Task.from_json(json.loads(sys.stdin.readline()))
    starter = _Stdin(task.load)
    work = _RUNNERS[task.load.face](task, starter)
    try:
        try:
            import uvloop
        except ImportError:
            counts = asyncio.run(work)
        else:
            counts = uvloop.run(work)
    except CheckpointError as error:
        print(json.dumps({"failed": str(error), "kind": type(error).__name__}), flush=True)
        return 1
    print(json.dumps(_summary(counts, starter.cpu_s)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The same loads through the clients of the product: what they cost on top of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import raftckpt
from raftckpt import aio
from raftckpt.bench.generator import Counts
from raftckpt.bench.loads import ClientPlan, Load
from raftckpt.bench.task import Starter, Task

__all__ = ["run_aio", "run_sync"]


def _creation(load: Load) -> raftckpt.Attributes:
    return raftckpt.Attributes(update="active" if load.asynchronous else "all", retention=0.0)


def _connection(task: Task) -> dict[str, Any]:
    return {
        "timeout": task.timeout,
        "disconnect_grace": 0.0,
        "tls": task.tls_options(),
        "token": task.token,
        "name": task.name,
    }


def _operation(checkpoints: list[Any], plan: ClientPlan) -> tuple[bool, Callable[[], Any]]:
    """(is a read, the call) of the next operation; both faces have the same names."""
    load = plan.load
    is_read, number, section = plan.turn()
    checkpoint = checkpoints[number]
    if is_read:
        consistency = "local" if load.local else "linearizable"
        return True, lambda: checkpoint.read(section, 0, load.size, consistency=consistency)
    if load.workload == "partial":
        offset = plan.offset()
        return False, lambda: checkpoint.write(section, plan.data, offset)
    if load.workload == "vector":
        vector = [(each, 0, plan.data) for each in plan.vector(number)]
        return False, lambda: checkpoint.write_many(vector)
    return False, lambda: checkpoint.put(section, plan.data)


async def run_aio(task: Task, starter: Starter) -> list[Counts]:
    """``raftckpt.aio``: a service per client, a coroutine per outstanding request."""
    load = task.load
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for client in task.clients:
            connecting = aio.connect(task.endpoints, **_connection(task))
            service = await stack.enter_async_context(connecting)
            opened = [await service.open(name, create=_creation(load)) for name in task.checkpoints]
            plan = ClientPlan(load, client)
            for first in range(0, len(plan.places), load.window):
                some = plan.places[first : first + load.window]
                await asyncio.gather(
                    *(opened[number].put(id_, plan.initial) for number, id_ in some)
                )
            clients.append((opened, plan))
        begin, end = await starter.begin()

        async def work(opened: list[Any], plan: ClientPlan) -> Counts:
            counts = Counts()
            while (at := perf_counter()) < end:
                is_read, call = _operation(opened, plan)
                try:
                    await call()
                except raftckpt.CheckpointError as error:
                    counts.failed(str(error))
                else:
                    if begin <= (now := perf_counter()) < end:
                        counts.note(is_read, at, now, begin)
            return counts

        all_counts = await asyncio.gather(
            *(work(*client) for client in clients for _ in range(load.outstanding))
        )
        if load.asynchronous:
            for opened, _ in clients:
                for checkpoint in opened:
                    await checkpoint.synchronize()
    return list(all_counts)


async def run_sync(task: Task, starter: Starter) -> list[Counts]:
    """``raftckpt``: a service per client, a thread per outstanding request."""
    load = task.load
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        clients = []
        for client in task.clients:
            service = stack.enter_context(raftckpt.connect(task.endpoints, **_connection(task)))
            opened = [service.open(name, create=_creation(load)) for name in task.checkpoints]
            plan = ClientPlan(load, client)
            for number, section in plan.places:
                opened[number].put(section, plan.initial)
            clients.append((opened, plan))
        begin, end = await starter.begin()

        def work(opened: list[Any], plan: ClientPlan) -> Counts:
            counts = Counts()
            while (at := perf_counter()) < end:
                is_read, call = _operation(opened, plan)
                try:
                    call()
                except raftckpt.CheckpointError as error:
                    counts.failed(str(error))
                else:
                    if begin <= (now := perf_counter()) < end:
                        counts.note(is_read, at, now, begin)
            return counts

        with ThreadPoolExecutor(len(clients) * load.outstanding) as pool:
            all_counts = await asyncio.gather(
                *(
                    loop.run_in_executor(pool, work, *client)
                    for client in clients
                    for _ in range(load.outstanding)
                )
            )
        if load.asynchronous:
            for opened, _ in clients:
                for checkpoint in opened:
                    checkpoint.synchronize()
    return list(all_counts)

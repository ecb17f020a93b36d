"""A storm of interruptions: ``python -m tests.e2e.storm --interruptions 100000``.

Exceptions are thrown into calls of all kinds, at random bytecodes of threads and by a signal
handler in the main thread; calls of an asyncio loop are cancelled. No fault is injected but this,
so that every call that is not interrupted must succeed: none may find its session wedged.
Afterwards what was acknowledged is there once, what was interrupted at most once, and the trackers
that were interrupted all the time have seen the same changes as one that was left alone.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import itertools
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import raftckpt
from raftckpt import Attributes, CheckpointError
from raftckpt.testing import LocalCluster

TIMEOUT_S = 20.0
GAP_S = 0.0007


class StormThrown(BaseException):
    """Out of nowhere, like KeyboardInterrupt."""


class Victim:
    """Somebody who calls all the time, and what he was told."""

    def __init__(self, storm: Storm, name: str) -> None:
        self.storm = storm
        self.log = f"log {name}"
        self.hits = 0
        self.done: set[int] = set()
        self.begun: set[int] = set()
        self.rng = random.Random(f"{storm.seed}/{name}")
        self.numbers = itertools.count(1)

    def run(self) -> None:
        """Go on after an interruption between two calls, where no call could catch it."""
        while True:
            try:
                self.work()
                return
            except StormThrown:
                self.hits += 1

    def work(self) -> None:
        """Call until it is over."""
        raise NotImplementedError

    def failed(self, error: BaseException) -> None:
        self.storm.failures.append(f"{self.log}: {error!r}")
        self.storm.over = True

    def judge(self, found: bytes) -> None:
        """Compare what the cluster has with what was told."""
        numbers = [int(word) for word in found.split()]
        self.storm.expect(len(numbers) == len(set(numbers)), f"{self.log}: twice")
        self.storm.expect(self.done <= set(numbers), f"{self.log}: lost")
        self.storm.expect(set(numbers) <= self.begun, f"{self.log}: invented")
        self.storm.expect(numbers == sorted(numbers), f"{self.log}: out of order")


class Caller(Victim):
    """Of the blocking face."""

    def __init__(self, storm: Storm, name: str) -> None:
        super().__init__(storm, name)
        self.ckpt = storm.service.open("storm")
        self.weak = storm.service.open("weak")
        self.kinds: list[Callable[[], object]] = [
            self.append, self.append, self.append, self.transaction, self.weakly, self.openly,
            lambda: self.ckpt.put("same", b"x"),
            lambda: self.ckpt.get("same"),
            lambda: self.ckpt.read_all(consistency="local"),
            lambda: self.weak.synchronize(),
            lambda: storm.service.checkpoints(),
            lambda: storm.service.cluster(),
        ]  # fmt: skip

    def append(self) -> None:
        number = next(self.numbers)
        self.begun.add(number)
        self.ckpt.append(self.log, b"%d " % number)
        self.done.add(number)

    def transaction(self) -> None:
        number = next(self.numbers)
        self.begun.add(number)
        with self.ckpt.transaction() as tx:
            tx.append(self.log, b"%d " % number)
            tx.put("same", b"y")
        self.done.add(number)

    def weakly(self) -> None:
        self.weak.put("same", b"z")

    def openly(self) -> None:
        with self.storm.service.open("other", create=Attributes()) as other:
            other.put("k", b"v")
            with other.track() as tracker:
                tracker.next(TIMEOUT_S)

    def work(self) -> None:
        """Call until it is over; an interruption ends one call and nothing else."""
        while not self.storm.over:
            try:
                if threading.current_thread() is threading.main_thread():
                    self.storm.begun = True
                self.rng.choice(self.kinds)()
            except StormThrown:
                self.hits += 1
            except CheckpointError as error:
                self.failed(error)


class Follower(Victim):
    """Takes changes and is interrupted at that."""

    def __init__(self, storm: Storm, name: str) -> None:
        super().__init__(storm, name)
        self.seen: list[int] = []
        self.got: Any = None
        self.tracker = storm.ckpt.track(from_revision=storm.since)

    def work(self) -> None:
        while not self.storm.quiet:
            try:
                if self.got is not None and (not self.seen or self.seen[-1] < self.got.revision):
                    self.seen.append(self.got.revision)
                self.got = None
                self.got = self.tracker.next(0.05)
            except raftckpt.Timeout:
                continue
            except StormThrown:
                self.hits += 1
            except CheckpointError as error:
                self.failed(error)


class Cancelled(Victim):
    """Calls of the asyncio face, that are cancelled."""

    async def main(self) -> None:
        async with raftckpt.aio.connect(self.storm.endpoints, timeout=TIMEOUT_S) as service:
            ckpt = await service.open("storm")
            tracker = await ckpt.track(from_revision=self.storm.since)
            self.seen: list[int] = []
            while not self.storm.over:
                kind = self.rng.choice((self.append, self.append, self.read, self.opening))
                task = asyncio.create_task(kind(service, ckpt))
                try:
                    async with asyncio.timeout(self.rng.uniform(0, 0.002)):
                        self.seen.append((await tracker.next()).revision)
                except TimeoutError:
                    pass
                if self.rng.random() < 0.7:
                    task.cancel()
                    self.hits += 1
                await asyncio.wait([task])
                if not task.cancelled() and task.exception() is not None:
                    self.failed(task.exception() or StormThrown())
            while not self.storm.quiet:
                try:
                    self.seen.append((await tracker.next(0.05)).revision)
                except raftckpt.Timeout:
                    continue
            await tracker.close()

    async def append(self, service: Any, ckpt: Any) -> None:
        number = next(self.numbers)
        self.begun.add(number)
        await ckpt.append(self.log, b"%d " % number)
        self.done.add(number)

    async def read(self, service: Any, ckpt: Any) -> None:
        await ckpt.read_all()

    async def opening(self, service: Any, ckpt: Any) -> None:
        async with await service.open("other", create=Attributes()) as other:
            await other.put("k", b"v")

    def work(self) -> None:
        try:
            asyncio.run(self.main())
        except CheckpointError as error:
            self.failed(error)


class Storm:
    """One run.

    Arguments:
        endpoints: of a cluster without faults.
        interruptions: how many, and one of everybody.
        seconds: or for so long.
        seed: of who is interrupted, and of what is called.
    """

    def __init__(self, endpoints: str, interruptions: int, seconds: float, seed: int) -> None:
        self.endpoints = endpoints
        self.seed = seed
        self.begun = self.over = self.quiet = False
        self.failures: list[str] = []
        self.service = raftckpt.connect(endpoints, timeout=TIMEOUT_S)
        self.ckpt = self.service.open("storm", create=Attributes())
        self.service.open("weak", create=Attributes(update="active"))
        self.since = self.ckpt.put("same", b"")
        self._end = time.monotonic() + seconds
        self._interruptions = interruptions
        self.follower = Follower(self, "follower")
        self.cancelled = Cancelled(self, "cancelled")
        self.callers = [Caller(self, "main"), Caller(self, "one"), Caller(self, "two")]
        self.victims: list[Victim] = [*self.callers, self.follower, self.cancelled]

    @property
    def hits(self) -> int:
        return sum(victim.hits for victim in self.victims)

    def _enough(self) -> bool:
        return self.hits >= self._interruptions and all(victim.hits for victim in self.victims)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.failures.append(what)

    def _throw(self, threads: list[threading.Thread]) -> None:
        rng = random.Random(self.seed)
        main = threading.main_thread().ident or 0
        while not (self._enough() or self.over) and time.monotonic() < self._end:
            thread = rng.choice([None, *threads])
            if thread is None:
                signal.pthread_kill(main, signal.SIGUSR1)
            elif thread.is_alive():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread.ident or 0), ctypes.py_object(StormThrown)
                )
            time.sleep(rng.uniform(0, GAP_S))
        self.over = True

    def run(self) -> int:
        """Run it in the main thread; returns how many interruptions arrived."""

        def thrown(*_: object) -> None:
            if self.begun and not self.over:
                raise StormThrown

        former = signal.signal(signal.SIGUSR1, thrown)
        calm = self.ckpt.track(from_revision=self.since)
        threads = [threading.Thread(target=victim.run) for victim in self.victims[1:4]]
        loop = threading.Thread(target=self.cancelled.run)
        thrower = threading.Thread(target=self._throw, args=(threads,))
        try:
            for thread in (*threads, loop, thrower):
                thread.start()
            self.callers[0].run()
            thrower.join()
            for thread in threads[:2]:
                thread.join(3 * TIMEOUT_S)
            last = self.ckpt.put("same", b"the end")  # nobody is wedged
            self._judge(calm, last, [*threads[2:], loop])
        finally:
            signal.signal(signal.SIGUSR1, former)
            self.over = self.quiet = True
            calm.close()
            self.follower.tracker.close()
            self.service.close()
        return self.hits

    def _judge(self, calm: Any, last: int, threads: list[threading.Thread]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        seen = []
        while not seen or seen[-1] < last:
            seen.append(calm.next(TIMEOUT_S).revision)
        for follower in (self.follower, self.cancelled):
            while not (follower.seen and follower.seen[-1] >= last) and not self.failures:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
        self.quiet = True
        for thread in threads:
            thread.join(3 * TIMEOUT_S)
        for follower in (self.follower, self.cancelled):
            missing = sorted(set(seen) - set(follower.seen))
            self.expect(not missing, f"{follower.log}: missed {missing[:5]}")
            self.expect(follower.seen == sorted(set(follower.seen)), f"{follower.log}: order")
        for victim in (*self.callers, self.cancelled):
            victim.judge(self.ckpt.get(victim.log, b""))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--interruptions", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    left, end, seed, total = options.interruptions, time.monotonic() + 60 * options.minutes, 0, 0
    while left > 0 and time.monotonic() < end:
        with LocalCluster(replicas=1, faults=False) as cluster:  # the logs must stay small
            storm = Storm(cluster.endpoints, min(left, 5_000), 120.0, options.seed + seed)
            hits = storm.run()
        left, seed, total = left - hits, seed + 1, total + hits
        print(f"{total} interruptions, seed {storm.seed}: {storm.failures or 'ok'}", flush=True)
        if storm.failures:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

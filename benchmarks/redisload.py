"""Load on Redis: raw RESP. Every connection sends its writes and one WAIT after them.

That is the most favourable way to have writes acknowledged by a majority: one WAIT covers all the
writes before it on the connection. A write counts when its WAIT is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
from time import perf_counter, process_time
from typing import Any

from raftckpt.bench.histogram import Histogram


def command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


class Connection(asyncio.Protocol):
    """Counts the lines of answers; each command here is answered by one line."""

    def __init__(self) -> None:
        self.lines = 0
        self.last = b""
        self.errors = 0
        self.wanted = 0
        self.arrived: asyncio.Future[None] | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        self.lines += len(lines)
        self.errors += sum(line[:1] == b"-" for line in lines)
        if lines:
            self.last = lines[-1]
        if self.lines >= self.wanted and self.arrived is not None and not self.arrived.done():
            self.arrived.set_result(None)

    async def ask(self, data: bytes, answers: int) -> bytes:
        self.wanted = self.lines + answers
        self.arrived = asyncio.get_running_loop().create_future()
        self.transport.write(data)  # type: ignore[attr-defined]
        await self.arrived
        return self.last


async def work(
    options: argparse.Namespace, number: int, begin: float, end: float, histogram: Histogram
) -> int:
    host, _, port = options.endpoint.rpartition(":")
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, host, int(port))
    value = os.urandom(options.size)
    dice = random.Random(number)
    wait = command(b"WAIT", b"%d" % options.replicas, b"0")
    while (now := perf_counter()) < end:
        writes = [
            command(b"SET", b"%d-%d" % (number, dice.randrange(options.keys)), value)
            for _ in range(options.outstanding)
        ]
        acknowledged = await connection.ask(b"".join([*writes, wait]), options.outstanding + 1)
        if int(acknowledged[1:]) < options.replicas:
            connection.errors += 1
        elif begin <= (answered := perf_counter()) < end:
            for _ in range(options.outstanding):
                histogram.record(answered - now)
    connection.transport.close()  # type: ignore[attr-defined]
    return connection.errors


def load_options() -> argparse.ArgumentParser:
    """The options of any load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--outstanding", type=int, default=8)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--keys", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warmup", type=float, default=0.5)
    return parser


def report(
    histogram: Histogram, options: argparse.Namespace, errors: int, cpu_s: float
) -> dict[str, Any]:
    """What compare.py reads: rate, times, and what the generator itself took."""
    rate = histogram.count / options.seconds
    return {
        "ops_per_s": rate,
        "mb_per_s": rate * options.size / 1e6,
        "p50_us": histogram.percentile(50),
        "p99_us": histogram.percentile(99),
        "max_us": histogram.max_us,
        "errors": errors,
        "operations": histogram.count,
        "generator_cpu_us_per_op": cpu_s * 1e6 / max(1, histogram.count),
    }


async def main() -> None:
    parser = load_options()
    parser.add_argument("--endpoint", default="127.0.0.1:6379")
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()
    histogram = Histogram()
    begin = perf_counter() + options.warmup
    end = begin + options.seconds
    cpu = process_time()
    errors = await asyncio.gather(
        *(work(options, number, begin, end, histogram) for number in range(options.clients))
    )
    print(json.dumps(report(histogram, options, sum(errors), process_time() - cpu)))


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())

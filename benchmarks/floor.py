"""The floor: the least that a replicated durable write costs on this machine, in C and in Python.

    python benchmarks/floor.py [--seconds 2] [--rounds 3] [--flavours c,python] [--json FILE]

Three replicas and a client, processes on loopback, that do what nobody can leave out and nothing
else: the client sends a request, the leader sends it on to both followers, writes and syncs it
(pwrite, fdatasync); so does each follower, which then acknowledges; with its own copy and the first
acknowledgement the leader replies. A *read* is a round that touches no disk, as one is confirmed
without leases. In C (floor.c, if a compiler is there: blocking calls and poll) and in Python on
uvloop, in turns.

Nothing is checked, decoded, elected or kept: this is no store, it is what a store is measured by.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
COLUMNS = 16
CLIENT_SENDS, LEADER_HAS, OWN_ON_DISK = range(3)
APPEND_LEFT, FOLLOWER_HAS, FOLLOWER_ON_DISK, ACK_LEFT = range(3, 7)
ACK_HERE, BY, COMMITTED, REPLY_LEFT, CLIENT_HAS = range(11, 16)
"""Columns of a row of stamps; BY says which follower's ack came first."""
EACH = 4
"""So much further are the columns of the second follower."""
FOLLOWERS = 2
ACK_BYTES = 32
FILE_BYTES = 16 << 20
OPERATIONS_MAX = 100_000
WARM_UP = 100
HEAD = struct.Struct("=II")


class Work(NamedTuple):
    """What is done again and again, with the sizes of raftckpt's frames for 100 bytes."""

    name: str
    writes: int
    """How many share a round; 0: a read."""

    @property
    def request_bytes(self) -> int:
        return 150 * self.writes or 60

    @property
    def reply_bytes(self) -> int:
        return 16 + 8 * self.writes if self.writes else 124


WORKS = [Work("sequential write", 1), Work("25 writes in a round", 25)]
WORKS += [Work("85 writes in a round", 85), Work("read, a round without disk", 0)]


class Hop(NamedTuple):
    """A part of an operation's way, in microseconds."""

    name: str
    p50: float
    p99: float


Row = Sequence[int]
"""The stamps of an operation (ns), columns as above."""


def hops_of(rows: Sequence[Row]) -> list[Hop]:
    """The way of an operation over the follower whose ack came first, hop by hop.

    Then what the leader did beside it until its own copy was on disk, then the whole.
    """

    def follower(row: Row, column: int) -> int:
        return row[column + EACH * row[BY]]

    stops: list[tuple[str, Callable[[Row], int]]] = [
        ("leader has the request", lambda row: row[LEADER_HAS]),
        ("the append has left", lambda row: follower(row, APPEND_LEFT)),
        ("the follower has it", lambda row: follower(row, FOLLOWER_HAS)),
        ("it is on that disk", lambda row: follower(row, FOLLOWER_ON_DISK)),
        ("the ack has left", lambda row: follower(row, ACK_LEFT)),
        ("leader has the ack", lambda row: row[ACK_HERE]),
        ("committed", lambda row: row[COMMITTED]),
        ("reply has left", lambda row: row[REPLY_LEFT]),
        ("client has it", lambda row: row[CLIENT_HAS]),
    ]
    hops = []
    former = [row[CLIENT_SENDS] for row in rows]
    for name, stop in stops:
        times = [stop(row) for row in rows]
        hops.append(hop_of(name, [at - before for at, before in zip(times, former, strict=True)]))
        former = times
    if rows and rows[0][OWN_ON_DISK]:
        own = [row[OWN_ON_DISK] - follower(row, APPEND_LEFT) for row in rows]
        hops.append(hop_of("(beside it: the leader's own copy)", own))
    hops.append(hop_of("the whole", [row[CLIENT_HAS] - row[CLIENT_SENDS] for row in rows]))
    return hops


def hop_of(name: str, nanoseconds: list[int]) -> Hop:
    ordered = sorted(nanoseconds)
    return Hop(name, ordered[len(ordered) // 2] / 1e3, ordered[len(ordered) * 99 // 100] / 1e3)


def whole_rows(data: memoryview) -> list[list[int]]:
    """Stamps of the operations that ended, but for the first ones."""
    numbers = data.cast("q")
    rows = []
    for start in range(WARM_UP * COLUMNS, len(numbers), COLUMNS):
        row = numbers[start : start + COLUMNS].tolist()
        if not row[CLIENT_HAS]:
            break
        rows.append(row)
    return rows


def flavours() -> list[str]:
    """Those that this machine can run."""
    found = ["c"] if shutil.which("cc") else []
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return found
    return [*found, "python"]


class Floor:
    """Runs the floor in a directory of the disk that is to be measured."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory.absolute()
        self._binary = self.directory / "floor"

    def measure(self, flavour: str, work: Work, seconds: float) -> list[list[int]]:
        """Stamps of what was done in so many seconds, one operation after the other."""
        stamps = self.directory / "stamps"
        arguments = [str(self.directory), str(stamps), str(OPERATIONS_MAX), str(seconds)]
        arguments += [str(work.request_bytes), str(work.reply_bytes), str(int(work.writes > 0))]
        if flavour == "c":
            if not self._binary.exists():
                source = str(HERE / "floor.c")
                subprocess.run(["cc", "-O2", "-o", str(self._binary), source], check=True)
            command = [str(self._binary)]
        else:
            command = [sys.executable, str(HERE / "floor.py"), "--run"]
        subprocess.run([*command, *arguments], check=True, timeout=seconds + 60)
        with stamps.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            view = memoryview(mapped)
            try:
                return whole_rows(view)
            finally:
                view.release()

    def p50_us(self, flavour: str, work: Work, seconds: float) -> float:
        """Median of the whole operation."""
        return hops_of(self.measure(flavour, work, seconds))[-1].p50


# --- the Python flavour ---------------------------------------------------------------------------
class _Peer(asyncio.Protocol):
    """Hands whole messages of a fixed size on."""

    def __init__(self, size: int, took: Callable[[_Peer, bytes], None]) -> None:
        self.transport: Any = None
        self.closed = asyncio.get_running_loop().create_future()
        self._size = size
        self._took = took
        self._held = b""

    def connection_made(self, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
            self._held = b""
        while len(data) >= self._size:
            self._took(self, data[: self._size])
            data = data[self._size :]
        self._held = data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


class _File:
    """Preallocated, written over from the beginning when it is full."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.pwrite(self._fd, bytes(FILE_BYTES), 0)
        os.fsync(self._fd)
        self._at = 0

    def keep(self, data: bytes) -> None:
        if self._at + len(data) > FILE_BYTES:
            self._at = 0
        os.pwrite(self._fd, data, self._at)
        os.fdatasync(self._fd)
        self._at += len(data)


class _Role:
    """What the four processes know before they part."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.directory, stamps = arguments[:2]
        self.operations, self.seconds = int(arguments[2]), float(arguments[3])
        self.request_bytes, self.reply_bytes = int(arguments[4]), int(arguments[5])
        self.syncs = arguments[6] == "1"
        file = os.open(stamps, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.ftruncate(file, self.operations * COLUMNS * 8)
        self.stamps = memoryview(mmap.mmap(file, 0)).cast("q")
        self.fronts = [socket.create_server(("127.0.0.1", 0)) for _ in range(FOLLOWERS + 1)]

    def file(self, number: int) -> Callable[[bytes], None]:
        if not self.syncs:
            return lambda data: None
        return _File(f"{self.directory}/floor-{number}").keep

    async def accepted(self, front: socket.socket, peer: _Peer) -> None:
        loop = asyncio.get_running_loop()
        front.setblocking(False)
        connection, _ = await loop.sock_accept(front)
        await loop.connect_accepted_socket(lambda: peer, connection)

    async def follow(self, number: int) -> None:
        keep, stamps, now, ack = (
            self.file(number + 1),
            self.stamps,
            _now,
            bytes(ACK_BYTES - HEAD.size),
        )

        def took(peer: _Peer, data: bytes) -> None:
            has = now()
            keep(data)
            on_disk = now()
            peer.transport.write(data[: HEAD.size] + ack)
            at = HEAD.unpack_from(data)[1] * COLUMNS + EACH * number
            stamps[at + ACK_LEFT] = now()
            stamps[at + FOLLOWER_HAS], stamps[at + FOLLOWER_ON_DISK] = has, on_disk

        peer = _Peer(self.request_bytes, took)
        await self.accepted(self.fronts[number], peer)
        await peer.closed

    async def lead(self) -> None:
        keep, stamps, now = self.file(0), self.stamps, _now
        loop, reply = asyncio.get_running_loop(), bytes(self.reply_bytes - HEAD.size)
        followers: list[_Peer] = []
        answered = -1

        def took(peer: _Peer, data: bytes) -> None:
            has, left = now(), []
            for follower in followers:
                follower.transport.write(data)
                left.append(now())
            keep(data)
            at = HEAD.unpack_from(data)[1] * COLUMNS
            stamps[at + OWN_ON_DISK], stamps[at + LEADER_HAS] = now(), has
            for number, stamp in enumerate(left):
                stamps[at + APPEND_LEFT + EACH * number] = stamp

        def acked(peer: _Peer, data: bytes) -> None:
            nonlocal answered
            has, number = now(), HEAD.unpack_from(data)[1]
            if number <= answered:
                return  # the slower one's
            answered = number
            client.transport.write(data[: HEAD.size] + reply)
            at = number * COLUMNS
            stamps[at + REPLY_LEFT] = now()
            stamps[at + ACK_HERE] = stamps[at + COMMITTED] = has
            stamps[at + BY] = followers.index(peer)

        for front in self.fronts[:FOLLOWERS]:
            follower = _Peer(ACK_BYTES, acked)
            await loop.create_connection(lambda peer=follower: peer, *front.getsockname())  # type: ignore[misc]
            followers.append(follower)
        client = _Peer(self.request_bytes, took)
        await self.accepted(self.fronts[FOLLOWERS], client)
        await client.closed
        for follower in followers:
            follower.transport.close()

    async def ask(self) -> None:
        stamps, now, loop = self.stamps, _now, asyncio.get_running_loop()
        rest = bytes(self.request_bytes - HEAD.size)
        until, done = 0, loop.create_future()

        def send(number: int) -> None:
            stamps[number * COLUMNS + CLIENT_SENDS] = now()
            client.transport.write(HEAD.pack(self.request_bytes, number) + rest)

        def took(peer: _Peer, data: bytes) -> None:
            nonlocal until
            has, number = now(), HEAD.unpack_from(data)[1]
            stamps[number * COLUMNS + CLIENT_HAS] = has
            until = until or has + int(self.seconds * 1e9)  # all are up now
            if has < until and number + 1 < self.operations:
                send(number + 1)
            else:
                done.set_result(None)

        client = _Peer(self.reply_bytes, took)
        at = self.fronts[FOLLOWERS].getsockname()
        await loop.create_connection(lambda: client, *at)
        send(0)
        await done
        client.transport.close()


def _now() -> int:
    return time.monotonic_ns()


def run_python(arguments: Sequence[str]) -> None:
    """Be the four processes of the Python flavour."""
    import uvloop

    role = _Role(arguments)
    children = []
    for work in [*(lambda n=n: role.follow(n) for n in range(FOLLOWERS)), role.lead]:
        child = os.fork()
        if not child:
            uvloop.run(work())
            os._exit(0)
        children.append(child)
    uvloop.run(role.ask())
    for child in children:
        os.waitpid(child, 0)


# --- the report -----------------------------------------------------------------------------------
def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        run_python(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flavours", default=",".join(flavours()))
    parser.add_argument("--json", type=Path, help="keep the figures of all rounds here")
    options = parser.parse_args()
    names = options.flavours.split(",")
    found: dict[str, dict[str, list[list[Hop]]]] = {}
    with tempfile.TemporaryDirectory(prefix="floor-", dir=".") as directory:
        floor = Floor(Path(directory))
        for work in WORKS:
            for _ in range(options.rounds):
                for name in names:
                    hops = hops_of(floor.measure(name, work, options.seconds))
                    found.setdefault(work.name, {}).setdefault(name, []).append(hops)
    print("| median of rounds | " + " | ".join(f"{name}: p50, p99 us" for name in names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for work in WORKS:
        cells = [_middle(found[work.name][name], -1) for name in names]
        print(f"| {work.name} | " + " | ".join(cells) + " |")
    for work in (WORKS[0], WORKS[-1]):
        print(f"\n| {work.name} | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
        for position, hop in enumerate(found[work.name][names[0]][0]):
            cells = [_middle(found[work.name][name], position) for name in names]
            print(f"| {hop.name} | " + " | ".join(cells) + " |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), "utf-8")


def _middle(rounds: list[list[Hop]], position: int) -> str:
    p50 = statistics.median(hops[position].p50 for hops in rounds)
    p99 = statistics.median(hops[position].p99 for hops in rounds)
    return f"{p50:,.0f}, {p99:,.0f}"


if __name__ == "__main__":
    main()

"""Processor time of each part of an operation's way, without sockets, syncs and other processes.

    python benchmarks/path.py [--batch 1] [--reads] [--operations 2000] [--cold KIB] [--profile ...]

Three replicas in one process: connection, dispatcher, replica, driver, consensus, links and journal
are the product's, run by a loop that is a queue; files are in memory (/dev/shm) and a sync returns
at once. So the parts can be measured alone, on a busy machine, too: the tenth percentile hardly
moves with it. What the kernel does between them, hops.py measures.

--cold walks over a buffer before each part, as other processes do that share the caches.
--profile prints cProfile's figures of a part: request, append, ack or second.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import os
import pstats
import random
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from raftckpt.bench.loads import ClientPlan, Load, Requests
from raftckpt.client.greeting import Introduction
from raftckpt.client.link import Contact
from raftckpt.model.types import CreationFlags, OpenFlags
from raftckpt.node.clock import SystemClock
from raftckpt.node.cputime import CpuMeter
from raftckpt.node.driver import Driver
from raftckpt.node.replica import Replica
from raftckpt.protocol import contract
from raftckpt.protocol.frames import FrameDecoder
from raftckpt.protocol.operations import CheckpointOpen, SessionOpen
from raftckpt.raft.engine import open_log
from raftckpt.raft.links import PeerLinks, _Link
from raftckpt.raft.node import RaftNode
from raftckpt.raft.port import PeerInfo, StateMachine
from raftckpt.raft.settings import RaftConfig
from raftckpt.server.connection import Connection
from raftckpt.server.listener import ClientListener
from raftckpt.server.status import ReplicaInfo
from raftckpt.storage import RealFileSystem, files
from tests.directories import found, founding_of, named_directory

NAMES = ("n1", "n2", "n3")
NEVER_S = 1e6
notes: list[tuple[str, float]] = []
"""What happened in the part under way, and when."""


def note(what: str) -> None:
    notes.append((what, time.perf_counter()))


class _NoTimer:
    def cancel(self) -> None:
        pass


class Queue:
    """A loop of which only ``call_soon`` is needed."""

    def __init__(self) -> None:
        self._ready: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self._ready.append((callback, arguments))

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> Any:
        return _NoTimer()

    def run(self) -> None:
        while self._ready:
            callback, arguments = self._ready.popleft()
            callback(*arguments)


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self, name: str) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.name = name
        self.out: list[bytes] = []

    def write(self, data: Any) -> None:
        self.out.append(data)
        note(self.name)

    def taken(self) -> bytes:
        data = b"".join(self.out)
        self.out.clear()
        return data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        raise RuntimeError("a connection was broken off")


class Node:
    """A replica."""

    def __init__(self, name: str, home: str) -> None:
        self.name, self.queue, clock = name, Queue(), SystemClock()
        self.directory = named_directory(
            RealFileSystem(), f"{home}/{name}", "path", name, name="", joins=""
        )
        found(self.directory, founding_of("path", NAMES, level=1))
        self.id = self.directory.identity.directory
        cpu = CpuMeter(self.queue.call_soon)
        self.driver = Driver(
            self.queue,  # type: ignore[arg-type]
            clock,
            _fail,
            working=cpu.working,
        )
        self.links = PeerLinks.__new__(PeerLinks)
        self.links._links, self.links._framed = {}, (b"", ())
        self.links.working = self.driver.hold
        self.links.worked = self.driver.go_on
        config = RaftConfig(
            f"{name}:1", f"{name}:2", (1, 1),
            heartbeat_s=NEVER_S / 100, election_min_s=NEVER_S, election_max_s=2 * NEVER_S,
        )  # fmt: skip

        def consensus(machine: StateMachine) -> RaftNode:
            self.raft = RaftNode(
                config,
                machine,
                open_log(self.directory),
                self.links.send,
                self.driver.wake,
                clock,
                random.Random(name),
            )
            return self.raft

        self.replica = Replica(
            name, {}, clock, self.driver.wake, consensus,
            answered=self.driver.answered, failed=_fail,
        )  # fmt: skip
        info = ReplicaInfo(
            name, "path", "f" * 32, self.id, {}, "fsync", 0.0, lambda: 0, lambda: 0
        )  # fmt: skip
        self.listener = ClientListener(self.replica, info, clock, working=cpu.working)
        self.listener._loop = self.queue  # type: ignore[assignment]
        self.links.handler = self.raft  # type: ignore[assignment]
        self.driver.start(self.replica, self.listener.flush)

    def link(self, other: Node) -> None:
        link = _Link.__new__(_Link)
        link.links, link.transport, link.live = self.links, Wire("peer"), True
        link.ended_by_us, link._decoder = False, FrameDecoder()
        identity, met = other.directory.identity, other.directory.notes
        info = PeerInfo(
            other.id, other.name, identity.joins, f"{other.name}:1", f"{other.name}:2", 1, 1,
            met.incarnation, met.run, *other.raft.end,
        )  # fmt: skip
        link.hello = info  # type: ignore[assignment]
        self.links._links[other.id] = link
        self.raft.connected(info)

    def wire(self, other: Node) -> Wire:
        transport = self.links._links[other.id].transport
        assert isinstance(transport, Wire)
        return transport

    def hears(self, other: Node) -> bool:
        """Take in what another one said; False: nothing."""
        data = other.wire(self).taken()
        if data:
            note("in")
            self.links._links[other.id].data_received(data)
            self.queue.run()
            note("idle")
        return bool(data)


def _fail(error: BaseException) -> None:
    raise error


class Cluster:
    """Three of them, and a client of the first, which leads."""

    def __init__(self, home: str, reads: bool) -> None:
        self.nodes = [Node(name, home) for name in NAMES]
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    node.link(other)
        self.leader, *self.followers = self.nodes
        self.settle()
        self.leader.raft._timer.fires_at = 0.0
        while not self.leader.replica.leading:
            self.leader.driver.wake()
            self.settle()
        self.connection, self.wire = Connection(self.leader.listener), Wire("reply")
        self.connection.connection_made(self.wire)
        self.contact = Contact()
        self.contact.greet(Introduction("path", None))
        self.say()
        secret = os.urandom(contract.SESSION_SECRET_BYTES)
        self.ask(SessionOpen(2, 0, 0, secret, "path", "", 30 * 10**9, 0))
        flags = int(OpenFlags.READ | OpenFlags.WRITE | OpenFlags.CREATE)
        kind = int(CreationFlags.WR_ALL_REPLICAS)
        attributes = (kind, 10**8, 0, 2048, 65536, 64)
        handle = self.ask(CheckpointOpen(3, 1, 0, "path", flags, attributes))[0]
        load = Load(clients=1, outstanding=1, reads=1.0 if reads else 0.0)
        requests = Requests(ClientPlan(load, 0), [handle])
        self.number, self.sequence, self.reads = 10, 1, False
        for messages in requests.initial():
            self.ask(self.numbered(messages[-1]))
        self.reads, self.endless = reads, requests.endless()

    def settle(self) -> None:
        for node in self.nodes:
            node.queue.run()
        while any([n.hears(o) for n in self.nodes for o in self.nodes if n is not o]):
            pass

    def numbered(self, message: Any) -> Any:
        self.number += 1
        if self.reads:
            message.request = self.number
        else:
            self.sequence += 1
            message.session, message.sequence = self.number, self.sequence
            message.answered = self.sequence - 1
        return message

    def say(self) -> None:
        note("in")
        self.connection.data_received(self.contact.data_to_send())
        self.leader.queue.run()
        note("idle")

    def said(self) -> list[Any]:
        return self.contact.receive(self.wire.taken())

    def ask(self, message: Any) -> Any:
        self.contact.send(message)
        self.say()
        self.settle()
        reply = next(each for each in self.said() if each[0] == 0)
        assert reply[2] == 1, reply
        return reply[3]


class Meter:
    """Parts of the way and how long each took, operation by operation."""

    def __init__(self, profiled: str | None, cold: int) -> None:
        self._others = b"." * cold  # not of zeros, which are one page
        self.parts: dict[str, list[float]] = {}
        self.profile = cProfile.Profile()
        self._profiled = profiled

    @contextmanager
    def part(self, name: str) -> Any:
        notes.clear()
        self._others.count(b"x")
        if name == self._profiled:
            self.profile.enable()
        yield
        self.profile.disable()

    def cut(self, *names: str) -> None:
        """The notes of the part, but for "in", end a piece each; if others came, none counts."""
        if len(notes) != len(names) + 1:
            return
        for name, former, latter in zip(names, notes, notes[1:], strict=False):
            self.parts.setdefault(name, []).append(latter[1] - former[1])


def operate(cluster: Cluster, meter: Meter, batch: int) -> None:
    """One round: its requests arrive in one frame."""
    for _ in range(batch):
        cluster.contact.send(cluster.numbered(next(cluster.endless)[-1]))
    with meter.part("request"):
        cluster.say()
    on_disk = ["its sync begins"] if not cluster.reads else []
    left = ["first append leaves", "second append leaves"]
    if cluster.reads:  # a majority is asked
        del left[1]
    meter.cut(*(f"leader: {name}" for name in (*left, *on_disk, "request over")))
    heard = []
    for follower in cluster.followers:
        with meter.part("append"):
            if follower.hears(cluster.leader):
                heard.append(follower)
        meter.cut(*(f"follower: {name}" for name in (*on_disk, "ack leaves", "append over")))
    for name, follower in zip(("ack", "second"), heard, strict=False):
        with meter.part(name):
            cluster.leader.hears(follower)
        replied = ["reply leaves"] if name == "ack" else []
        meter.cut(*(f"leader: {each}" for each in (*replied, f"{name} over")))
    cluster.settle()
    assert len(cluster.said()) == batch


PATH = ("first append leaves", "its sync begins", "ack leaves", "reply leaves")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--reads", action="store_true")
    parser.add_argument("--operations", type=int, default=2000)
    parser.add_argument("--profile", choices=("request", "append", "ack", "second"))
    parser.add_argument("--cold", type=int, default=0, metavar="KIB")
    options = parser.parse_args()
    files._RealFile.sync = lambda self: note("sync")  # type: ignore[method-assign]
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    home = tempfile.mkdtemp(prefix="path-", dir=shared)
    try:
        cluster = Cluster(home, options.reads)
        meter = Meter(options.profile, options.cold << 10)
        gc.collect()
        gc.freeze()
        gc.disable()
        for _ in range(options.operations // options.batch):
            operate(cluster, meter, options.batch)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print("| part, us | p10 | p50 |\n|---|---|---|")
    cpu, path = {"leader": 0.0, "follower": 0.0}, 0.0
    for name, times in meter.parts.items():
        if len(times) * 2 * options.batch < options.operations:
            continue  # of the beginning
        times.sort()
        p10, p50 = (times[len(times) * share // 100] * 1e6 for share in (10, 50))
        role, point = name.split(": ")
        cpu[role] += p10
        if point in PATH and (role, point) != ("leader", "its sync begins"):
            path += p10
        print(f"| {name} | {p10:.1f} | {p50:.1f} |")
    print(f"\non the way of the answer: {path:.0f} us; in all: " + ", ".join(
        f"{role} {spent:.0f} us" for role, spent in cpu.items()
    ))  # fmt: skip
    if options.profile:
        pstats.Stats(meter.profile).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()

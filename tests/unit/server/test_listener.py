"""The client port over real loopback sockets, on a one-node log."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from raftckpt import aio, limits
from raftckpt.copies.snapshots import load_snapshot
from raftckpt.errors import SaAisError
from raftckpt.limits import EdgeLimits
from raftckpt.node.driver import Driver
from raftckpt.protocol import contract
from raftckpt.protocol.frames import MessageStream, encode_frame, pack_messages
from raftckpt.server.connection import Connection
from raftckpt.server.dispatch import _NOT_MOVED
from raftckpt.server.listener import ClientListener, _doors
from raftckpt.server.status import ReplicaInfo
from tests.directories import FOUNDING
from tests.unit.node.fakes import ENDPOINTS, LoneReplica

TRY_AGAIN, INVALID = 6, 7


class Harness:
    """A replica behind its listener, driven by the loop; time is the world's."""

    def __init__(self, **options: Any) -> None:
        self.world = LoneReplica()
        self.options = options
        self.peers: list[Peer] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        world = self.world
        self.failures: list[BaseException] = []
        info = ReplicaInfo(
            "n1", "demo", "f1", "d1", ENDPOINTS, "fsync", 0.0, lambda: 17, lambda: 3,
            lambda: ["n4: another founding"],
        )  # fmt: skip
        clock = self.options.pop("clock", world.clock)
        self.listener = ClientListener(world.replica, info, clock, **self.options)
        driver = Driver(loop, world.clock, self.failures.append)
        world.woken, world.answered = driver.wake, driver.answered
        self.driver = driver
        self.address = await self.listener.start("127.0.0.1", 0)
        driver.start(world.replica, self.listener.flush)

    async def connect(self, *, hello: bool = True, **options: Any) -> Peer:
        reader, writer = await asyncio.open_connection(*self.address, **options)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        if hello:
            reply = await peer.call(200, [1], "test", None)
            assert reply[2] == 1
        return peer

    async def session(self, number: int = 0) -> Peer:
        peer = await self.connect()
        reply = await peer.call(1, 0, 0, bytes([number]) * 16, "test", "n1", 10**10, 10**9)
        assert reply[2] == 1, reply
        peer.session = reply[3][0]
        attributes = [1, 1 << 40, 0x7FFF_FFFF_FFFF_FFFF, 1 << 20, 1 << 26, 255]
        reply = await peer.command(10, "ckpt", 7, attributes)
        assert reply[2] == 1, reply
        peer.handle = reply[3][0]
        return peer


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.stream = MessageStream()
        self.inbox: list[Any] = []
        self.frames = 0
        self.number = self.sequence = 0
        self.session = self.handle = 0

    def send(self, *messages: list[Any]) -> None:
        self.writer.write(pack_messages(list(messages)))

    async def next(self, match: Any = None) -> Any:
        """The next message (that ``match`` likes), in time."""
        async with asyncio.timeout(10):
            while True:
                for position, message in enumerate(self.inbox):
                    if match is None or match(message):
                        return self.inbox.pop(position)
                data = await self.reader.read(1 << 20)
                if not data:
                    raise ConnectionError("closed")
                self.inbox += self.stream.feed(data)

    async def call(self, tag: int, *fields: Any) -> Any:
        self.number += 1
        number = self.number
        self.send([tag, number, *fields])
        return await self.next(lambda message: message[0] == 0 and message[1] == number)

    async def command(self, tag: int, *fields: Any) -> Any:
        self.sequence += 1
        return await self.call(tag, self.sequence, self.sequence - 1, *fields)

    async def closed(self) -> bool:
        """Whether the other side closes, in time."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                while await self.reader.read(1 << 16):
                    pass
        return True

    def close(self) -> None:
        self.writer.close()


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Harness]:
    harness = Harness(**options)
    await harness.start()
    try:
        yield harness
    finally:
        harness.driver.stop()
        harness.listener.stop()
        for peer in harness.peers:
            peer.writer.transport.abort()
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()
        assert harness.failures == []


def run(scenario: Any, **options: Any) -> None:
    async def whole() -> None:
        async with serving(**options) as harness:
            await scenario(harness)

    asyncio.run(whole())


# --- the protocol -------------------------------------------------------------------------
def test_hello_session_put_read():
    async def scenario(harness):
        peer = await harness.connect(hello=False)
        reply = await peer.call(200, [7, 1], "x", None)
        assert reply[3]["node"] == "n1"
        assert reply[3]["leader"] == "n1"
        assert reply[3]["endpoints"] == ENDPOINTS
        peer = await harness.session()
        reply = await peer.command(24, peer.handle, b"k", b"v" * 100)
        assert reply[2] == 1
        reply = await peer.call(100, 0, 0, peer.handle, [[b"k", 0, None]])
        assert reply[3][1] == [b"v" * 100]
        assert (await peer.call(202))[2] == 1
        peer.close()

    run(scenario)


def test_unknown_version_is_refused_and_closed():
    async def scenario(harness):
        peer = await harness.connect(hello=False)
        reply = await peer.call(200, [99], "x", None)
        assert reply[2] == 3
        assert reply[3][:2] == ["version", [1]]
        assert await peer.closed()

    run(scenario)


def test_a_token_is_refused_and_closed():
    """Nobody looks at it: who shows one must not believe that it protects anything."""

    async def scenario(harness):
        peer = await harness.connect(hello=False)
        reply = await peer.call(200, [1], "x", "secret")
        assert reply[2] == SaAisError.ERR_ACCESS
        assert reply[3] == ["token", None, None]
        assert reply[4] is True
        assert await peer.closed()
        assert harness.listener.protocol_errors == 0
        assert not any(c.client_name for c in harness.listener.connections)
        peer = await harness.connect(hello=False)
        assert (await peer.call(200, [1], "x", ""))[3][0] == "token"
        peer = await harness.connect(hello=False)
        assert (await peer.call(200, [99], "x", "secret"))[3][0] == "version"

    run(scenario)


def test_replies_of_one_iteration_share_a_frame():
    async def scenario(harness):
        peer = await harness.session()
        peer.send(*[[24, 100 + i, 2 + i, 1, peer.handle, b"k%d" % i, b"v"] for i in range(50)])
        async with asyncio.timeout(10):
            data = await peer.reader.read(1 << 20)
        length, _ = struct.unpack_from(">II", data)
        messages = msgpack.unpackb(data[9 : 8 + length])
        assert [message[1] for message in messages] == [100 + i for i in range(50)]

    run(scenario)


def test_commands_and_reads_in_one_frame_keep_their_order():
    async def scenario(harness):
        peer = await harness.session()
        peer.send(
            [24, 100, 2, 1, peer.handle, b"k", b"1"],
            [100, 101, 2, 0, peer.handle, [[b"k", 0, None]]],
            [24, 102, 3, 1, peer.handle, b"k", b"2"],
        )
        reply = await peer.next(lambda m: m[1] == 101)
        assert reply[2] == 1
        assert reply[3][1][0] in (b"1", b"2")  # at least what was sent before it
        assert (await peer.next(lambda m: m[1] == 102))[2] == 1

    run(scenario)


@pytest.mark.parametrize(
    "message",
    [
        [24, 5, 1, 0, 1, "k", b"v"],
        [24, 5, 1, 0, 1, b"k", 1.5],
        [24, 5, 1, 0, 1, b"k"],
        [24, 5, -1, 0, 1, b"k", b"v"],
        [24, 5, True, 0, 1, b"k", b"v"],
        [3, 5, 0, 0, [1]],
        [40, 5, 0, 0],
        [999, 5],
        [100, 5, 0, 2, "ckpt", [[b"k", 0, None]]],
        [100, 5, 0, 0, "ckpt", []],
        ["24", 5],
        [None, 5],
    ],
)
def test_wrong_types_are_refused_by_the_schema_and_the_connection_lives(message):
    async def scenario(harness):
        peer = await harness.session()
        peer.send(message)
        reply = await peer.next(lambda m: m[1] == 5 and m[0] == 0)
        assert reply[2] == INVALID
        assert reply[4] is True
        assert (await peer.call(202))[2] == 1

    run(scenario)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(64),
        struct.pack(">II", limits.FRAME_BYTES_MAX + 1, 0),
        struct.pack(">II", 5, 0) + b"\x00\x91\x92\x01\x01",
        encode_frame(b"\x00\xc1"),
        encode_frame(b"\x00\x90"),
        encode_frame(b"\x01\x91\x92\x01\x01"),
        encode_frame(b"\x07"),
        encode_frame(b"\x00" + b"\x91" * 5000 + b"\xc0"),
        encode_frame(b"\x00\xdd\xff\xff\xff\xff"),
        encode_frame(b"\x00\x91\xa3\xff\xff\xff"),
        pack_messages([5]),
        pack_messages([None]),
        pack_messages([[]]),
        pack_messages([[24]]),
        pack_messages([[24, "id"]]),
        pack_messages([{"a": 1}]),
        pack_messages([[202, 1]]),
        pack_messages([[24, 1, 1, 0, 1, b"k", b"v"]]),
        pack_messages([[200, 1, "versions", "x", None]]),
    ],
)
@pytest.mark.parametrize("greeted", [False, True])
def test_garbage_closes_that_connection_only(data, greeted, caplog):
    async def scenario(harness):
        neighbour = await harness.session()
        peer = await harness.connect(hello=greeted)
        peer.writer.write(data)
        if greeted and data in HARMLESS:
            return
        assert await peer.closed()
        assert (await neighbour.call(202))[2] == 1
        assert harness.listener.protocol_errors == 1

    with caplog.at_level(logging.WARNING):
        run(scenario)


HARMLESS = [
    pack_messages([[202, 1]]),
    pack_messages([[24, 1, 1, 0, 1, b"k", b"v"]]),
    pack_messages([[200, 1, "versions", "x", None]]),
]


def test_half_frames_byte_by_byte():
    async def scenario(harness):
        peer = await harness.connect(hello=False)
        for byte in pack_messages([[200, 1, [1], "x", None]]):
            peer.writer.write(bytes([byte]))
            await peer.writer.drain()
        assert (await peer.next())[2] == 1

    run(scenario)


def test_silence_before_hello_is_closed_in_time():
    async def scenario(harness):
        quiet = await harness.connect(hello=False)
        half = await harness.connect(hello=False)
        half.writer.write(pack_messages([[200, 1, [1], "x", None]])[:-3])
        neighbour = await harness.connect()
        for peer in (quiet, half):
            assert await peer.closed()
        assert (await neighbour.call(121))[2] == 1

    from raftckpt.node.clock import SystemClock

    run(scenario, handshake_s=0.2, clock=SystemClock())


def test_a_frame_that_never_ends_is_closed():
    async def scenario(harness):
        peer = await harness.connect()
        frame = pack_messages([[202, 9]])
        peer.writer.write(frame[:6])
        async with asyncio.timeout(5):
            while not any(c.inbound.partial_since for c in harness.listener.connections):
                await asyncio.sleep(0)
            harness.world.clock.pass_by(20)
            peer.writer.write(frame[6:8])  # dripping does not help
            await asyncio.sleep(0.01)
            harness.world.clock.pass_by(11)
            assert await peer.closed()

    run(scenario)


def test_too_many_connections_are_refused_not_served():
    async def scenario(harness):
        first = await harness.connect()
        second = await harness.connect()
        third = await harness.connect(hello=False)
        assert await third.closed()
        assert harness.listener.refused_connections == 1
        second.close()
        async with asyncio.timeout(5):
            while len(harness.listener.connections) > 1:
                await asyncio.sleep(0)
        fourth = await harness.connect()
        assert (await fourth.call(121))[2] == 1
        assert (await first.call(121))[2] == 1

    run(scenario, edge=EdgeLimits(connections=2, connections_per_address=2))


def test_silent_connections_make_room_for_those_who_speak():
    """A hundred that say nothing, and places for eight: who comes next is served at once."""

    async def scenario(harness):
        silent = [await harness.connect(hello=False) for _ in range(100)]
        peer = await harness.connect()
        assert (await peer.call(121))[2] == 1
        assert len(harness.listener.doors.guests) <= 8
        for other in silent[:90]:
            assert await other.closed()

    run(scenario, edge=EdgeLimits(connections=16, connections_per_address=16))


def test_a_lack_of_descriptors_ends_and_nothing_else():
    """The accept loop rests while the process may open nothing, and then goes on."""

    async def scenario(harness):
        first = await harness.connect()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        clients = [socket.socket() for _ in range(5)]
        used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
        filler = [os.dup(0) for _ in range(used - len(os.listdir("/proc/self/fd")) + 2)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(filler) + 1, hard))
        try:
            for client in clients:
                client.connect(harness.address)
            starved: Counter[int | None] = Counter()
            harness.listener._acceptor._starved = lambda error: starved.update([error.errno])
            async with asyncio.timeout(5):
                while not starved[errno.EMFILE]:
                    await asyncio.sleep(0)
            assert (await first.call(121))[2] == 1
            assert len(harness.listener.connections) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for number in filler:
                os.close(number)
        async with asyncio.timeout(5):
            while len(harness.listener.connections) < 6:
                await asyncio.sleep(0)
        for client in clients:
            client.close()

    run(scenario)


def test_frames_of_strangers_are_short():
    async def scenario(harness):
        stranger = await harness.connect(hello=False)
        stranger.writer.write(struct.pack(">II", limits.GREETING_BYTES_MAX + 1, 0))
        assert await stranger.closed()
        friend = await harness.connect()
        friend.writer.write(struct.pack(">II", limits.GREETING_BYTES_MAX + 1, 0))
        other = await harness.connect()
        assert (await other.call(121))[2] == 1
        assert len(harness.listener.connections) == 2

    run(scenario)


def test_complaints_are_rate_limited(caplog):
    async def scenario(harness):
        for _ in range(30):
            peer = await harness.connect(hello=False)
            peer.writer.write(bytes(16))
            assert await peer.closed()
        assert harness.listener.protocol_errors == 30

    with caplog.at_level(logging.WARNING, "raftckpt.server"):
        run(scenario)
    assert 1 <= len(caplog.records) <= 12


# --- sessions and connections -----------------------------------------------------------------
def test_close_by_the_client_starts_the_grace_and_ours_does_not():
    async def scenario(harness):
        peer = await harness.session()
        state = next(iter(harness.listener.connections)).session
        peer.close()
        async with asyncio.timeout(5):
            while state.owner is not None:
                await asyncio.sleep(0)
        assert state.eof_at < float("inf")
        again = await harness.connect()
        reply = await again.call(201, peer.session, bytes(16))
        assert reply[3][0] == 1
        assert state.eof_at == float("inf")
        next(iter(harness.listener.connections)).break_off("planted")
        async with asyncio.timeout(5):
            while state.owner is not None:
                await asyncio.sleep(0)
        assert state.eof_at == float("inf")

    run(scenario)


def test_connections_leave_no_cycles_behind():
    """The collector looks at a connection at most once: what is dead must go by itself."""

    def alive() -> int:
        return sum(type(item) is Connection for item in gc.get_objects())

    async def scenario(harness):
        peer = await harness.session()
        reply = await peer.command(24, peer.handle, b"k", b"v")
        assert reply[2] == 1
        peer.close()
        for leave in ("close", "reset", "garbage") * 5:
            peer = await harness.connect()
            assert (await peer.call(121))[2] == 1
            if leave == "garbage":
                peer.writer.write(b"garbage!" * 4)
                assert await peer.closed()
            elif leave == "reset":
                peer.writer.transport.abort()
            else:
                peer.close()
        async with asyncio.timeout(5):
            while alive():
                await asyncio.sleep(0.01)

    gc.collect()
    gc.disable()
    try:
        assert not alive()
        run(scenario)
    finally:
        gc.enable()


def test_reset_counts_as_a_close_by_the_client():
    async def scenario(harness):
        peer = await harness.session()
        state = next(iter(harness.listener.connections)).session
        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.writer.transport.abort()
        async with asyncio.timeout(5):
            while state.owner is not None:
                await asyncio.sleep(0)
        assert state.eof_at < float("inf")

    run(scenario)


def test_attach_takes_the_session_over_and_what_follows_waits_for_it():
    async def scenario(harness):
        old = await harness.session()
        new = await harness.connect()
        new.send(
            [201, 50, old.session, bytes(16)],
            [24, 51, 2, 1, old.handle, b"k", b"v"],
            [100, 52, 2, 0, old.handle, [[b"k", 0, None]]],
        )
        assert (await new.next(lambda m: m[1] == 50))[3] == [1, 10**10]
        assert (await new.next(lambda m: m[1] == 51))[2] == 1
        assert (await new.next(lambda m: m[1] == 52))[3][1] == [b"v"]
        assert await old.closed()

    run(scenario)


def test_a_refused_attach_goes_on():
    async def scenario(harness):
        peer = await harness.connect()
        peer.send([201, 50, 99, bytes(16)], [121, 51])
        assert (await peer.next(lambda m: m[1] == 50))[3][0] == "session"
        assert (await peer.next(lambda m: m[1] == 51))[2] == 1

    run(scenario)


def test_notices_of_leader_and_going_away():
    async def scenario(harness):
        peer = await harness.connect()
        harness.world.log.lose()
        notice = await peer.next(lambda m: m[0] == 2)
        assert notice == [2, "leader", {"leader": "n2", "endpoint": ENDPOINTS["n2"]}]
        reply = await peer.call(24, 1, 0, 1, b"k", b"v")
        assert reply[2] == TRY_AGAIN
        assert reply[3][:2] == ["not_leader", ENDPOINTS["n2"]]
        harness.listener.going_away()
        assert (await peer.next(lambda m: m[0] == 2))[1] == "going_away"

    run(scenario)


# --- admin ------------------------------------------------------------------------------------
def test_status_check_digest_transfer():
    async def scenario(harness):
        peer = await harness.connect()
        status = (await peer.call(121))[3]
        assert status["node"] == "n1"
        assert status["role"] == "leader"
        assert status["journal_bytes"] == 17
        assert status["connections"] == 1
        assert status["directory"] == "d1"
        assert status["founding"] == FOUNDING
        assert (status["level"], status["pinned"], status["config_index"]) == (2, False, 1)
        assert status["members"] == [
            {
                "node": "n1", "directory": "n1", "peer": "n1:1", "client": "n1:2",
                "voter": True, "promote": False, "replaces": "",
            }
        ]  # fmt: skip
        assert status["alarms"] == ["n4: another founding"]
        assert status["waiting"] == ""
        assert status["rss_bytes"] > 0
        assert status["longest_step_ms"] == 0  # nobody measures it here
        nonce, index = (await peer.call(124))[3]
        async with asyncio.timeout(5):
            while (reply := await peer.call(123, nonce))[2] != 1:
                assert reply[3][0] == "digest"
        assert reply[3][0] == index
        assert len(reply[3][1]) == 64
        assert (await peer.call(122, "n9"))[2] == INVALID
        assert (await peer.call(122, "n1"))[3] == "done"

    run(scenario)


# --- backpressure -----------------------------------------------------------------------------
def test_a_large_read_is_streamed_and_stalls_nobody():
    size = 24 * limits.MIB

    async def scenario(harness):
        peer = await harness.session()
        data = bytes(range(256)) * (size // 256)
        for offset in range(0, size, contract.STAGE_CHUNK_BYTES):
            chunk = data[offset : offset + contract.STAGE_CHUNK_BYTES]
            reply = await peer.command(26, 2, offset, chunk)
            assert reply[2] == 1, reply
        assert (await peer.command(24, peer.handle, b"big", 2))[2] == 1
        other = await harness.connect()
        # nobody reads the answer: it waits in bounded memory, others are served
        peer.send([100, 7000, 0, 0, peer.handle, [[b"big", 0, None]]], [121, 7001])
        await peer.writer.drain()
        for _ in range(20):
            assert (await other.call(121))[2] == 1
        buffered = max(c._transport.get_write_buffer_size() for c in harness.listener.connections)
        assert buffered <= limits.MIB
        small = await peer.next(lambda m: m[1] == 7001)
        assert small[2] == 1
        assert not any(m[1] == 7000 for m in peer.inbox), "a small reply overtakes a large one"
        reply = await peer.next(lambda m: m[1] == 7000)
        assert reply[3][1][0] == data

    run(scenario)


def test_a_list_of_many_sections_is_streamed():
    async def scenario(harness):
        peer = await harness.session()
        count = 20_000
        for start in range(0, count, 2000):
            commands = []
            for i in range(start, start + 2000):
                peer.sequence += 1
                commands.append([24, 0, peer.sequence, peer.sequence - 1, 1, b"%06d" % i, b"x"])
            for command in commands:
                peer.number += 1
                command[1] = peer.number
            peer.send(*commands)
            last = peer.number
            await peer.next(lambda m, last=last: m[1] == last)
            peer.inbox.clear()
        reply = await peer.call(101, 0, 0, peer.handle)
        assert len(reply[3][1]) == count
        assert reply[3][1][7] == [b"000007", b"x"]

    run(scenario)


def test_a_flood_of_requests_is_read_only_as_fast_as_answered(monkeypatch):
    monkeypatch.setattr(limits, "CONNECTION_INFLIGHT_MAX", 64)

    async def scenario(harness):
        harness.world.log.hold = True
        peer = await harness.session_held()
        sent = 3000
        for i in range(sent):
            peer.send([24, 100 + i, 2 + i, 0, peer.handle, b"k", b"x" * 1000])
        async with asyncio.timeout(5):
            while not any(not c._reading for c in harness.listener.connections):
                await asyncio.sleep(0)
        connection = next(c for c in harness.listener.connections if not c._reading)
        other = await harness.connect()
        for _ in range(5):
            await other.call(121)
        assert connection.outbox.owed < 64 + 600  # one read of the socket past the limit
        harness.world.log.hold = False
        harness.driver.wake()
        reply = await peer.next(lambda m: m[1] == 100 + sent - 1)
        assert reply[2] == 1
        assert connection.outbox.owed == 0
        assert connection.inflight_bytes == 0

    async def session_held(self):
        self.world.log.hold = False
        peer = await self.session()
        self.world.log.hold = True
        return peer

    monkeypatch.setattr(Harness, "session_held", session_held, raising=False)
    run(scenario)


def test_one_who_sends_all_he_can_leaves_room_for_others(monkeypatch):
    """Nothing is applied; still, who comes next finds as much room as the one before."""
    monkeypatch.setattr(limits, "PENDING_SHARED", 100)

    async def scenario(harness):
        peers = [await harness.session(number) for number in range(4)]
        harness.world.log.hold = True
        replica = harness.world.replica
        taken = []
        for peer in peers:
            before = replica.pending_commands
            peer.send(*[[24, 100 + i, 2 + i, 1, peer.handle, b"k", b"x"] for i in range(500)])
            other = await harness.connect()
            for _ in range(5):
                assert (await other.call(121))[2] == 1
            taken.append(replica.pending_commands - before)
        assert taken == [50, 25, 16, 16], "half of what is left, each, but never less than a few"
        harness.world.log.hold = False
        harness.driver.wake()
        for peer in peers:
            numbers = [(await peer.next(lambda m: m[0] == 0))[1] for _ in range(500)]
            assert numbers == list(range(100, 600))
        assert replica.pending_commands == 0

    run(scenario)


@pytest.mark.parametrize("per_frame", [500, 1])
def test_expensive_requests_of_one_read_do_not_hold_the_others(monkeypatch, per_frame):
    """By the clock a status takes longer than a turn: a few, then others have theirs."""

    async def scenario(harness):
        status, clock = harness.listener.status, harness.world.clock
        made = []
        told = {"leader": "n1"}
        monkeypatch.setattr(status, "describe", lambda: made.append(clock.pass_by(0.1)) or told)
        hog, other = await harness.connect(), await harness.connect()
        for start in range(0, 500, per_frame):
            hog.send(*[[121, 1000 + start + i] for i in range(per_frame)])
        await hog.next()
        assert (await other.call(121))[2] == 1
        assert len(made) < 100
        numbers = [(await hog.next())[1] for _ in range(499)]
        assert numbers == list(range(1001, 1500))

    run(scenario)


def test_a_status_is_told_again_for_a_while():
    async def scenario(harness):
        peer = await harness.connect()
        calls = []
        describe = harness.listener.status.describe
        harness.listener.status.describe = lambda: calls.append(1) or describe()
        for _ in range(10):
            assert (await peer.call(121))[3]["node"] == "n1"
        assert len(calls) == 1
        harness.world.clock.pass_by(0.06)
        await peer.call(121)
        assert len(calls) == 2
        harness.world.log.lose()
        assert (await peer.call(121))[3]["leader"] == "n2", "news are told at once"

    run(scenario)


def test_leadership_is_not_moved_without_end():
    async def scenario(harness):
        peer = await harness.connect()
        log = harness.world.log
        for number in range(4):
            peer.send([122, 60 + number, "n2"])
        assert (await peer.call(122, "n2"))[3] == [
            "transfer",
            "it was moved too often of late",
            None,
        ]
        assert len(log.transfers) == 4
        harness.world.clock.pass_by(8)
        peer.send([122, 70, "n2"])
        async with asyncio.timeout(5):
            while len(log.transfers) < 5:
                await asyncio.sleep(0)

    run(scenario)


def test_a_hand_over_that_was_not_begun_does_not_count():
    from raftckpt.raft.port import Transferred

    async def scenario(harness):
        peer, log = await harness.connect(), harness.world.log
        for number in range(9):
            peer.send([122, 60 + number, "n2"])
            async with asyncio.timeout(5):
                while len(log.transfers) <= number:
                    await asyncio.sleep(0)
            log.transfers[number][1](Transferred.REFUSED)
            assert "not connected" in (await peer.next(lambda m, n=number: m[1] == 60 + n))[3][1]

    run(scenario)


def test_half_frames_have_one_budget_for_all_connections():
    """Frames that lack their last bytes: who began first has to go, who ends is served."""

    async def scenario(harness):
        first, second, third = [await harness.connect() for _ in range(3)]
        frame = pack_messages([[121, 9], [24, 10, 1, 0, 1, b"k", bytes(500_000)]])
        for peer in (first, second):
            harness.world.clock.pass_by(0.1)
            held = harness.listener.receiving_bytes
            peer.writer.write(frame[:-1])
            async with asyncio.timeout(5):
                while harness.listener.receiving_bytes - held < len(frame) - 1:
                    if len(harness.listener.connections) < 3:
                        break
                    await asyncio.sleep(0)
        assert await first.closed()
        for peer in (second, third):
            peer.writer.write(frame[-1:] if peer is second else frame)
            assert (await peer.next(lambda m: m[1] == 9))[2] == 1
        assert harness.listener.receiving_bytes == 0

    run(scenario, edge=EdgeLimits(receive_bytes=800_000))


def test_those_who_do_not_read_have_one_budget():
    async def scenario(harness):
        owner = await harness.session()
        assert (await owner.command(24, owner.handle, b"k", bytes(1 << 20)))[2] == 1
        silent = [await harness.connect() for _ in range(3)]
        listener = harness.listener

        async def fill(peer):
            harness.world.clock.pass_by(0.1)
            peer.writer.transport.pause_reading()
            peer.send(*[[100, 50 + i, 0, 1, "ckpt", [[b"k", 0, None]]] for i in range(24)])
            async with asyncio.timeout(5):
                port = peer.writer.get_extra_info("sockname")[1]
                while not any(
                    c.peer.endswith(f":{port}") and c.stalled_at is not None
                    for c in listener.connections
                ):
                    await asyncio.sleep(0)

        for peer in silent:
            await fill(peer)
        stalled = [c for c in listener.connections if c.stalled_at is not None]
        waiting = {c.stalled_at for c in stalled}
        listener.edge = EdgeLimits(send_bytes=sum(c.buffered for c in stalled) - 1)
        listener._relieve(harness.world.clock.now)
        assert len(listener.connections) == 4, "not at once"
        harness.world.clock.pass_by(5)
        listener._relieve(harness.world.clock.now)
        async with asyncio.timeout(5):
            while len(listener.connections) > 3:
                await asyncio.sleep(0)
        left = {c.stalled_at for c in listener.connections if c.stalled_at is not None}
        assert left == waiting - {min(waiting)}, "who has not read for longest"

    run(scenario)


@pytest.mark.parametrize(("outcome", "code"), [("done", 1), ("refused", 6), ("timed_out", 6)])
def test_transfer_tells_its_outcome(outcome, code):
    from raftckpt.raft.port import Transferred

    async def scenario(harness):
        peer = await harness.connect()
        peer.send([122, 60, "n2"])
        async with asyncio.timeout(5):
            while not harness.world.log.transfers:
                await asyncio.sleep(0)
        node, done = harness.world.log.transfers[0]
        assert node == "n2"
        done(Transferred(outcome))
        reply = await peer.next(lambda m: m[1] == 60)
        assert reply[2] == code
        if code != 1:
            assert reply[3] == ["transfer", _NOT_MOVED[Transferred(outcome)], None]
            assert reply[4] is True
        harness.world.log.lose()
        assert (await peer.call(122, None))[3][0] == "not_leader"
        assert (await peer.call(124))[3][0] == "not_leader"

    run(scenario)


def test_storage_and_peers_keep_their_descriptors() -> None:
    doors = _doors(EdgeLimits(), 256)
    assert doors.connections_max == 256 - limits.DESCRIPTORS_RESERVED
    assert doors.per_address_max == doors.connections_max // 2, "in proportion"
    assert doors.strangers_max <= doors.connections_max // 2
    assert _doors(EdgeLimits(), 10).connections_max == 1
    assert _doors(EdgeLimits(), 100_000).connections_max == EdgeLimits().connections


# --- copies of the state ----------------------------------------------------------------------


def test_a_whole_state_is_read_by_pieces_and_goes_with_its_connection():
    async def scenario(harness):
        peer = await harness.session()
        for number in range(6):
            reply = await peer.command(24, peer.handle, b"%d" % number, b"x" * 200_000)
            assert reply[2] == 1
        machine = harness.world.replica.machine
        whole = b"".join(machine.freeze(secrets=False))
        copy, *head = (await peer.call(132, machine.revision))[3]
        assert head[2] == machine.revision
        image, number, last = b"", 0, False
        while not last:
            last, data = (await peer.call(133, copy, number))[3]
            image += data
            number += 1
        assert image == whole
        assert number > 3
        status = (await peer.call(121))[3]
        assert (status["copied_s"], status["copied_revision"]) == (0, machine.revision)
        for _ in range(2 * limits.COPIES_MAX):  # each is let go when its connection is closed
            other = await harness.connect()
            assert (await other.call(132, 0))[2] == 1
            other.close()
            await other.writer.wait_closed()
            async with asyncio.timeout(10):
                while harness.listener.copies._copies:
                    await asyncio.sleep(0.01)
        peer.close()

    run(scenario)


@pytest.mark.parametrize("consistency", ["linearizable", "local"])
def test_a_service_saves_it_to_a_file(tmp_path, consistency):
    async def scenario(harness):
        peer = await harness.session()
        for number in range(6):
            assert (await peer.command(24, peer.handle, b"%d" % number, b"x" * 200_000))[2] == 1
        machine = harness.world.replica.machine
        host, port = harness.address
        harness.world.replica.situation.endpoints.clear()  # those of the double are nowhere
        async with aio.connect(f"{host}:{port}", session=False, timeout=10) as service:
            saved = await service.snapshot(tmp_path / "saved", consistency=consistency)
        head, loaded = load_snapshot(str(tmp_path / "saved"))
        assert saved.revision == head.revision == loaded.revision == machine.revision
        assert saved.size == (tmp_path / "saved").stat().st_size
        assert b"".join(loaded.freeze()) == b"".join(machine.freeze(secrets=False))
        peer.close()

    run(scenario)

"""Requests of one frame: as many begin as the bounds allow, listings a few at a time."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest

from raftckpt import limits
from raftckpt.model.types import success
from raftckpt.protocol.frames import MessageStream, pack_messages
from raftckpt.server.connection import Connection
from raftckpt.server.turns import Turns
from tests.unit.node.fakes import LoneReplica
from tests.unit.server.test_listener import Harness, run


class Transport:
    """Takes everything, or (``full``) lets it wait as a socket nobody reads from does."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.reading = True

    def write(self, data: bytes) -> None:
        assert data, "an empty write"
        assert len(data) <= limits.FRAME_BYTES_MAX + 8
        self.frames.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Loop:
    """What a connection sees of its listener."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], None]] = deque()
        self.clock = self
        self.replica = LoneReplica().replica
        self.dispatcher: Any = None
        self.turns = Turns(self, self.soon, lambda seconds, callback: None)  # type: ignore[arg-type]
        self.refusals: Counter[str] = Counter()

    def receiving(self, more: int) -> None:
        pass

    def working(self) -> None:
        pass

    def monotonic(self) -> float:
        return 0.0

    def opened(self, connection: Connection) -> None: ...

    def packed(self, messages: list[Any]) -> bytes:
        return pack_messages(messages)

    def mark(self, connection: Connection) -> None:
        self.soon(connection.flush)

    def soon(self, callback: Callable[[], None]) -> None:
        self.calls.append(callback)

    def run(self) -> None:
        while self.calls:
            self.calls.popleft()()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def connection(loop: Loop) -> Connection:
    connection = Connection(loop)  # type: ignore[arg-type]
    connection.connection_made(Transport())  # type: ignore[arg-type]
    connection.greet()
    return connection


def received(connection: Connection) -> list[Any]:
    stream = MessageStream()
    return [message for frame in connection._transport.frames for message in stream.feed(frame)]


def test_who_does_not_read_is_sent_nothing_and_read_no_further(
    loop: Loop, connection: Connection
) -> None:
    connection.pause_writing()
    for number in range(1000):
        connection.deliver(number, success([1, [b"x" * 60_000]]))
        connection.flush()
        loop.run()
    assert connection._transport.frames == []
    assert connection.inbound.overloaded(connection)
    connection.resume_writing()
    loop.run()
    assert len(received(connection)) == 1000


# --- requests of one frame ----------------------------------------------------------------------
def the_connection(harness: Harness, peer: Any) -> Connection:
    port = peer.writer.get_extra_info("sockname")[1]
    (found,) = [c for c in harness.listener.connections if c.peer.endswith(f":{port}")]
    return found


@pytest.mark.parametrize("consistency", [0, 1])
def test_one_frame_of_reads_costs_bounded_memory(consistency: int) -> None:
    count, size = 1500, 60_000

    async def scenario(harness: Harness) -> None:
        peer = await harness.session()
        assert (await peer.command(24, peer.handle, b"k", b"v" * size))[2] == 1
        connection = the_connection(harness, peer)
        other = await harness.connect()
        tracemalloc.start()
        try:
            vector = [[b"k", 1, None]]  # not the section as it is: a copy each, if it were made
            peer.send(*[[100, 1000 + i, 0, consistency, peer.handle, vector] for i in range(count)])
            await peer.writer.drain()
            for _ in range(50):
                assert (await other.call(121))[2] == 1
            assert connection.unanswered > 0, "nobody reads: they cannot all be answered"
            if consistency:
                assert connection.unsent() < limits.CONNECTION_SEND_BYTES_MAX + size
                assert connection.inbound.requests
            # the requests themselves, decoded, are some hundred bytes each
            assert tracemalloc.get_traced_memory()[1] < 20 * limits.MIB
        finally:
            tracemalloc.stop()
        for number in range(count):
            reply = await peer.next()
            assert reply[0] == 0
            assert reply[3][1] == [b"v" * (size - 1)], number
        async with asyncio.timeout(5):
            while connection.unanswered or not connection._reading:
                await asyncio.sleep(0)

    run(scenario)


def test_more_requests_than_may_be_in_flight_in_one_frame() -> None:
    async def scenario(harness: Harness) -> None:
        peer = await harness.session()
        connection = the_connection(harness, peer)
        count = limits.MESSAGES_PER_FRAME_MAX
        peer.send(*[[202, 1000 + i] for i in range(count)])
        numbers = [(await peer.next())[1] for _ in range(count)]
        assert numbers == list(range(1000, 1000 + count)), "in order"
        assert connection.outbox.owed == 0

    run(scenario)


async def fill(peer: Any, count: int) -> None:
    for start in range(0, count, 2000):
        commands = []
        for i in range(start, min(start + 2000, count)):
            peer.sequence += 1
            peer.number += 1
            key = b"%06d" % i
            commands.append([24, peer.number, peer.sequence, peer.sequence - 1, 1, key, b"x"])
        peer.send(*commands)
        await peer.next(lambda m, last=peer.number: m[1] == last)
        peer.inbox.clear()


@pytest.mark.parametrize("consistency", [0, 1])
def test_listings_of_a_connection_go_on_a_few_at_a_time(consistency: int) -> None:
    count, listings = 30_000, 20

    async def scenario(harness: Harness) -> None:
        peer = await harness.session()
        await fill(peer, count)
        connection = the_connection(harness, peer)
        asked = [[106, 9000 + i, 0, consistency, 1] for i in range(listings)]
        after = [24, 9100, peer.sequence + 1, peer.sequence, 1, b"after", b"x"]
        peer.send(*asked, after)
        await peer.writer.drain()
        other = await harness.connect()
        most = 0
        for _ in range(30):
            most = max(most, len(connection.outbox.listings))
            assert (await other.call(121))[2] == 1
        assert 1 <= most <= 4
        replies = {}
        while 9100 not in replies:
            reply = await peer.next()
            replies[reply[1]] = reply[3]
            assert len(connection.outbox.listings) <= 4
        while len(replies) < listings + 1:
            reply = await peer.next()
            replies[reply[1]] = reply[3]
        expected = [b"%06d" % i for i in range(count)]
        assert all(replies[9000 + i][1][:count] == expected for i in range(listings))
        assert connection.outbox.owed == 0
        assert connection.outbox.listings == []
        # refused ones are over, too
        for number in range(10):
            assert (await peer.call(106, 0, consistency, 99))[2] == 9, number
        assert connection.outbox.listings == []

    run(scenario)


def test_wide_reads_count_as_listings() -> None:
    async def scenario(harness: Harness) -> None:
        peer = await harness.session()
        await fill(peer, 300)
        connection = the_connection(harness, peer)
        narrow, wide = ([[b"%06d" % i, 0, None] for i in range(n)] for n in (64, 65))
        peer.send(*[[100, 9000 + i, 0, 0, 1, wide if i else narrow] for i in range(10)])
        async with asyncio.timeout(5):
            while not connection.outbox.owed:
                await asyncio.sleep(0)
        assert connection.outbox.listings == [9001, 9002, 9003, 9004]
        assert connection.outbox.owed == 5
        for number in range(10):
            reply = await peer.next(lambda m, number=number: m[1] == 9000 + number)
            assert reply[3][1] == [b"x"] * (65 if number else 64)
        assert connection.outbox.listings == []

    run(scenario)


def test_an_attach_still_holds_what_follows() -> None:
    async def scenario(harness: Harness) -> None:
        old = await harness.session()
        await fill(old, 600)
        new = await harness.connect()
        new.writer.write(
            pack_messages(
                [
                    [201, 50, old.session, bytes(16)],
                    *[[106, 60 + i, 0, 0, old.handle] for i in range(9)],
                    [202, 70],
                ]
            )
        )
        for number in range(60, 69):
            reply = await new.next(lambda m, number=number: m[1] == number)
            assert len(reply[3][1]) == 600
        assert (await new.next(lambda m: m[1] == 70))[2] == 1

    run(scenario)


def test_a_connection_whose_replies_cannot_be_sent_harms_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is wrong with one client's replies, the replica and the others go on."""

    async def scenario(harness: Harness) -> None:
        good = await harness.connect()
        before = set(harness.listener.connections)
        bad = await harness.connect()
        [broken] = harness.listener.connections - before
        monkeypatch.setattr(Connection, "flush", _failing_for(broken, Connection.flush))
        bad.send([121, 1])
        assert await bad.closed()
        reply = await good.call(121)
        assert reply[2] == 1

    run(scenario)


def _failing_for(broken: Connection, flush: Callable[[Connection], None]) -> Callable[..., None]:
    def failing(connection: Connection) -> None:
        if connection is broken:
            raise ValueError("planted")
        flush(connection)

    return failing

"""A leader whose memory for data is used up: new data waits, everything else goes on."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from raftckpt.node import memory
from raftckpt.node.memory import memory_for_data, memory_share
from tests.unit.node.fakes import LoneReplica, NotingClient

MIB = 1 << 20
NEVER = 0x7FFF_FFFF_FFFF_FFFF
CREATE, PUT, OVERWRITE, WRITE, APPEND, DELETE = range(1, 7)


class Full:
    """A world with a megabyte of memory, three quarters of which a section takes."""

    def __init__(self) -> None:
        self.world = LoneReplica(data_bytes=MIB)
        self.client = self.world.open_session()
        attributes = [1, 0, NEVER, 1000, 1 << 30, 64]
        self.sequence = 0
        self.handle = self.done(10, "ckpt", 7, attributes)[0]
        self.done(24, self.handle, b"big", bytes(800_000))

    def ask(self, tag: int, *fields: Any) -> str:
        """Send a command; returns why it is to wait, or ""."""
        number = self.world.next()
        self.world.submit(self.client, [[tag, number, self.sequence + 1, self.sequence, *fields]])
        self.world.log.run()
        refused = self.client.refusals.get(number)
        if refused is None:
            self.sequence += 1
            self.value = self.client.reply(number)
            return ""
        assert refused[1], "definite"
        return refused[0]

    def done(self, tag: int, *fields: Any) -> Any:
        assert self.ask(tag, *fields) == ""
        return self.value


@pytest.fixture
def full() -> Full:
    return Full()


@pytest.mark.parametrize(
    "fields",
    [
        (24, b"new", bytes(300_000)),
        (24, b"big", bytes(1_045_000)),
        (20, b"new", bytes(300_000), NEVER, None),
        (25, [[b"big", 1_100_000, b"x"]]),
        (25, [[b"big", 0, b"x"], [b"big", 900_000, bytes(200_000)]]),
        (28, [PUT, b"new", 0, bytes(300_000), None, NEVER, None]),
        (28, [WRITE, b"big", 1_200_000, b"x", None, NEVER, None]),
        (29, [[PUT, b"%d" % i, 0, bytes(30_000), None, NEVER, None] for i in range(10)]),
    ],
)
def test_data_that_has_no_room_waits(full: Full, fields: tuple[Any, ...]) -> None:
    tag, *rest = fields
    assert full.ask(tag, full.handle, *rest) == "full"
    full.world.replica._room.most = 2 * MIB
    full.done(tag, full.handle, *rest)


def test_a_stage_is_data() -> None:
    full = Full()
    assert full.ask(26, 1, 0, bytes(100_000)) == ""
    assert full.ask(26, 1, 100_000, bytes(200_000)) == "full"
    full.done(24, full.handle, b"small", 1)  # what is staged has its room


def test_what_waits_behind_it_is_told_the_same(full: Full) -> None:
    """Chunks of a large value travel together: the first one is refused, and the others wait."""
    world, client = full.world, full.client
    for wave in range(2):
        numbers = [world.next() for _ in range(5)]
        chunks = [
            [26, number, full.sequence + 1 + i, full.sequence, 1, i * 100_000, bytes(100_000)]
            for i, number in enumerate(numbers)
        ]
        world.submit(client, chunks[:2] if wave else chunks[:3])
        world.submit(client, chunks[2:] if wave else chunks[3:])
        world.log.run()
        if not wave:
            full.sequence += 2  # two of them had room
            numbers = numbers[2:]
        assert [client.reason(number) for number in numbers] == ["full"] * len(numbers)
    full.done(21, full.handle, b"big")
    number = world.next()
    world.submit(client, [[26, number, full.sequence + 2, 1, 1, 0, b"x"]])
    assert client.reason(number) == "gap"


def test_what_adds_nothing_goes_on(full: Full) -> None:
    world, client, handle = full.world, full.client, full.handle
    full.world.replica._room.most = world.replica.machine.footprint - 1
    assert full.ask(24, handle, b"new", b"x") == "full"
    assert full.ask(10, "other", 7, [1, 0, NEVER, 1, 1, 8]) == "full"
    full.done(24, handle, b"big", bytes(700_000))
    world.replica._room.most = world.replica.machine.footprint - 1
    full.done(25, handle, [[b"big", 5, b"x"]])
    full.done(22, handle, b"big", NEVER, None)
    other = world.open_session(secret=b"o" * 16)
    again = full.done(10, "ckpt", 3, None)[0]
    number = world.read(client, again, b"big")
    world.log.run()
    assert client.reply(number)
    full.done(28, handle, [DELETE, b"big", 0, b"", None, NEVER, None])
    full.done(11, again)
    full.done(24, handle, b"new", b"x")
    assert other.session is not None


def test_the_reserve_has_an_end_too(full: Full) -> None:
    world = full.world
    world.replica._room.most = world.replica.machine.footprint // 2
    assert full.ask(10, "ckpt", 3, None) == "full"
    stranger = NotingClient()
    with pytest.raises(AssertionError):
        world.open_session(stranger, secret=b"o" * 16)
    assert [refusal[0] for refusal in stranger.refusals.values()] == ["full"]
    full.done(21, full.handle, b"big")


def test_holes_on_their_way_count(full: Full) -> None:
    """A hundred bytes each, and each alone would fit: not all of them together."""
    world, client = full.world, full.client
    world.replica._room.most = 4 * MIB
    world.log.hold = True
    numbers = []
    for position in range(10):
        number = world.next()
        numbers.append(number)
        sequence = full.sequence + 1 + position
        message = [25, number, sequence, full.sequence, full.handle, [[b"big", 1_700_000, b"x"]]]
        world.submit(client, [message])
    refused = [number for number in numbers if number in client.refusals]
    assert refused == numbers[3:]
    assert client.reason(numbers[3]) == "full"
    world.log.hold = False
    world.log.run()
    assert not world.replica._room.marks
    assert world.replica._room.reached == 0


def test_memory_for_data_is_a_share_of_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    real = resource.getrlimit

    def limited(which: int) -> tuple[int, int]:
        return (gib, gib) if which == resource.RLIMIT_AS else real(which)

    monkeypatch.setattr(memory.resource, "getrlimit", limited)
    assert memory_for_data() == (gib - (256 << 20)) // 3
    monkeypatch.setattr(memory.resource, "getrlimit", lambda which: (1 << 20, 1 << 20))
    assert memory_for_data() == (1 << 20) // 8
    assert memory_share(1 << 30) == (1 << 20) // 16
    monkeypatch.setattr(memory.resource, "getrlimit", lambda which: (512 << 20, 512 << 20))
    assert memory_for_data() == 256 * (1 << 20) // 3
    assert memory_share(1 << 20) == 1 << 20


@pytest.mark.parametrize(
    "fields",
    [
        (24, b"new", b"x"),
        (24, b"big", bytes(10)),  # less than before, and in the log all the same
        (25, [[b"big", 0, b"x"]]),
        (20, b"new", b"", NEVER, None),
        (28, [OVERWRITE, b"big", 0, b"x", None, NEVER, None]),
    ],
)
def test_a_full_disk_takes_no_data(full: Full, fields: tuple[Any, ...]) -> None:
    full.world.disk.full = True
    assert full.ask(fields[0], full.handle, *fields[1:]) == "full"
    full.world.disk.full = False


def test_a_full_disk_takes_what_makes_room(full: Full) -> None:
    full.world.disk.full = True
    full.done(10, "ckpt", 7, [1, 0, NEVER, 1000, 1 << 30, 64])
    assert full.ask(10, "another", 7, [1, 0, NEVER, 10, 100, 64]) == "full"
    full.done(21, full.handle, b"big")
    full.done(11, full.handle)
    full.world.open_session()

"""Bytes of a client become requests, in order, a frame and a few requests at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest

from raftckpt import limits
from raftckpt.protocol import operations as ops
from raftckpt.protocol.frames import FrameError, encode_frame, pack_messages, try_pack
from raftckpt.server.inbound import Inbound
from raftckpt.server.outbox import Outbox
from raftckpt.server.turns import Turns
from tests.unit.node.fakes import ManualClock

HELLO = [200, 1, [1], "name", None]
LOCAL, LINEARIZABLE = 1, 0


def write(number: int) -> list[Any]:
    return [24, number, number, number - 1, 1, b"k", b"v"]


def read(number: int, consistency: int, elements: int = 1) -> list[Any]:
    return [100, number, 0, consistency, 1, [[b"k", 0, None]] * elements]


def listing(number: int, consistency: int = LINEARIZABLE) -> list[Any]:
    return [106, number, 0, consistency, 1]


def keepalive(number: int) -> list[Any]:
    return [202, number]


class Asking:
    """A connection, the replica and the dispatcher: notes what begins, and in which order."""

    def __init__(self, *, greeted: bool = True) -> None:
        self.begun: list[str] = []
        self.inflight_bytes = self.pending_commands = self.pending_bytes = 0
        self.waiting_bytes = 0
        self.takes_s = 0.0
        self.clock = ManualClock()
        self.turns = Turns(self.clock, lambda callback: None, lambda seconds, callback: None)
        self.outbox = Outbox(ref(self), lambda _: None, try_pack, Counter())
        port: Any = self
        self.inbound = Inbound(self.outbox, port, port, self.turns)
        if greeted:
            self.inbound.welcome()

    def submit(self, asker: Any, commands: list[Any]) -> None:
        assert asker is self
        self.begun.append("+".join(f"w{command.session}" for command in commands))

    def query(self, asker: Any, query: Any) -> None:
        self.begun.append(f"q{query.request}")

    def handle(self, asker: Any, message: Any) -> None:
        self.begun.append(f"h{message.request}")
        self.clock.stand_still(self.takes_s)
        if type(message) is ops.HelloRequest:
            self.inbound.welcome()
        elif type(message) is ops.Attach:
            self.inbound.attaching = True

    def unsent(self) -> int:
        return self.waiting_bytes

    def hears(self, *messages: list[Any]) -> bool:
        """A frame of messages arrives; whether a later turn is to go on."""
        self.inbound.receive(pack_messages(list(messages)), self.clock.monotonic())
        return self.take()

    def take(self) -> bool:
        asker: Any = self
        return self.inbound.take(asker)

    def begins(self) -> str:
        """What began since it was last asked."""
        begun, self.begun = self.begun, []
        return " ".join(begun)

    def answered(self) -> None:
        """All that is owed is answered."""
        self.outbox.owed = 0
        self.outbox.listings.clear()


@pytest.fixture
def asking() -> Asking:
    return Asking()


# --- frames -------------------------------------------------------------------------------------
def test_strangers_send_short_frames_and_greet_first() -> None:
    with pytest.raises(FrameError, match="allowed are"):
        Asking(greeted=False).hears([*HELLO[:3], "n" * limits.GREETING_BYTES_MAX, None])
    for first in (write(2), keepalive(2), listing(2), [999, 2]):
        with pytest.raises(FrameError, match="the first message is not a well-formed HELLO"):
            Asking(greeted=False).hears(first, HELLO)
    asking = Asking(greeted=False)
    asking.hears(HELLO, write(2))
    assert asking.begins() == "h1 w2"
    asking.hears([*write(3)[:6], b"v" * limits.GREETING_BYTES_MAX])
    assert asking.begins() == "w3"


def test_a_hello_that_waited_for_its_turn_makes_frames_large_as_well() -> None:
    asking = Asking(greeted=False)
    asking.inbound.receive(pack_messages([HELLO]), 0.0)
    assert asking.begins() == ""
    asking.take()
    asking.hears([*write(2)[:6], b"v" * limits.GREETING_BYTES_MAX])
    assert asking.begins() == "h1 w2"


def test_what_is_held_of_a_frame_that_is_not_complete(asking: Asking) -> None:
    inbound, frame = asking.inbound, pack_messages([keepalive(1)])
    inbound.receive(frame[:10], 1.0)
    assert (inbound.held_bytes, inbound.partial_since) == (10, 1.0)
    inbound.receive(frame[10:11], 2.0)
    assert (inbound.held_bytes, inbound.partial_since) == (11, 1.0)
    inbound.receive(frame[11:] + frame[:3], 3.0)
    assert (inbound.held_bytes, inbound.partial_since) == (3, 3.0), "another one"
    inbound.receive(frame[3:], 4.0)
    assert (inbound.held_bytes, inbound.partial_since) == (0, None)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x00\xc1", "not msgpack"),
        (b"\x00\x90", "at least one message"),
        (b"\x00\x91\x01", "a message without tag and id"),
        (b"\x00\x91\x92\x01\xa1x", "a message without tag and id"),
        (b"\x00\x91\x92\xcd\x03\xe7\xcf" + b"\xff" * 8, "an id out of range"),
    ],
)
def test_what_cannot_be_answered_ends_the_connection(asking: Asking, body: bytes, why: str) -> None:
    asking.inbound.receive(encode_frame(body), 0.0)
    with pytest.raises(FrameError, match=why):
        asking.take()


def test_what_is_malformed_is_refused(asking: Asking) -> None:
    asking.hears(keepalive(1), [999, 2], keepalive(3))
    assert asking.begins() == "h1 h3"
    assert asking.outbox.owed == 3
    [frame] = asking.outbox.flush()
    assert b"unknown message 999" in frame
    assert asking.outbox.owed == 2


# --- order --------------------------------------------------------------------------------------
def test_commands_are_submitted_together_and_before_a_query_that_follows(asking: Asking) -> None:
    asking.hears(write(1), write(2), read(3, LINEARIZABLE), write(4), keepalive(5), write(6))
    assert asking.begins() == "w1+w2 q3 w4 h5 w6"
    assert asking.outbox.owed == 6


def test_what_follows_an_attach_waits_for_it(asking: Asking) -> None:
    asking.hears([201, 1, 7, bytes(16)], write(2))
    asking.hears(write(3))
    assert asking.begins() == "h1"
    asker: Any = asking
    assert not asking.inbound.may_go_on(asker)
    asking.inbound.attaching = False
    assert asking.inbound.may_go_on(asker)
    asking.take()
    assert asking.begins() == "w2 w3"


def test_a_frame_is_decoded_when_all_before_it_has_begun(asking: Asking) -> None:
    asking.outbox.owed = asking.pending_commands = limits.PENDING_SHARED
    asking.hears(write(1))
    asking.hears(write(2))
    assert asking.begins() == ""
    assert (len(asking.inbound.requests), len(asking.inbound.bodies)) == (1, 1)
    asking.outbox.owed = asking.pending_commands = 0
    asking.take()
    assert asking.begins() == "w1 w2"


def test_who_is_gone_begins_nothing_more(asking: Asking) -> None:
    asking.inbound.attaching = True
    asking.inbound.requests.append(None)
    asking.inbound.receive(pack_messages([write(3)]), 0.0)
    asking.inbound.close()
    asking.inbound.attaching = False
    assert not asking.take()
    assert asking.begins() == ""


# --- bounds -------------------------------------------------------------------------------------
def test_no_more_begin_than_others_find_room_for(asking: Asking) -> None:
    count = limits.PENDING_SHARED
    asking.hears(*[write(number) for number in range(1, count + 1)])
    assert asking.outbox.owed == count // 2
    asking.pending_commands = count // 2
    other = Asking()
    other.pending_commands = asking.pending_commands
    other.hears(*[write(number) for number in range(1, count + 1)])
    assert other.outbox.owed == count // 4


def test_no_connection_has_more_than_its_part_of_what_is_under_way(asking: Asking) -> None:
    asker: Any = asking
    asking.outbox.owed = 2000
    asking.pending_commands = -100_000
    assert not asking.inbound.overloaded(asker)
    asking.outbox.owed = limits.CONNECTION_INFLIGHT_MAX
    assert asking.inbound.overloaded(asker)


def test_bytes_of_others_leave_less_for_it(asking: Asking) -> None:
    asker: Any = asking
    asking.inflight_bytes = limits.MIB
    assert not asking.inbound.overloaded(asker)
    asking.pending_bytes = limits.PENDING_BYTES_MAX - limits.MIB
    assert asking.inbound.overloaded(asker)
    asking.inflight_bytes = 64 * limits.KIB - 1
    assert not asking.inbound.overloaded(asker), "a little everybody may have"


@pytest.mark.parametrize("make", [write, lambda n: read(n, LINEARIZABLE), keepalive])
def test_a_few_begin_however_many_others_there_are(
    asking: Asking, make: Callable[[int], list[Any]]
) -> None:
    asking.pending_commands = limits.PENDING_COMMANDS_MAX
    asking.hears(*[make(number) for number in range(1, 40)])
    assert asking.outbox.owed == 16


@pytest.mark.parametrize(
    ("where", "bound"),
    [
        ("outbox.owed", limits.PENDING_SHARED - 1),  # one is left for the others
        ("inflight_bytes", limits.CONNECTION_INFLIGHT_BYTES_MAX),
        ("waiting_bytes", limits.CONNECTION_SEND_BYTES_MAX),
    ],
)
def test_each_bound_stops_it_alone(asking: Asking, where: str, bound: int) -> None:
    asker: Any = asking
    path, _, what = where.rpartition(".")
    who = getattr(asking, path) if path else asking
    setattr(who, what, bound - 1)
    assert not asking.inbound.overloaded(asker)
    setattr(who, what, bound)
    assert asking.inbound.overloaded(asker)
    assert not asking.inbound.may_go_on(asker)
    setattr(who, what, bound // 3)
    assert asking.inbound.may_go_on(asker)


@pytest.mark.parametrize("consistency", [LOCAL, LINEARIZABLE])
def test_listings_begin_a_few_at_a_time(asking: Asking, consistency: int) -> None:
    wide = read(5, consistency, elements=65)
    asking.hears(*[listing(n, consistency) for n in range(1, 5)], read(9, consistency), wide)
    asking.hears(listing(6, consistency))
    assert asking.outbox.listings == [1, 2, 3, 4]
    assert asking.outbox.owed == 5, "a read of few elements is none"
    asking.outbox.listings.remove(2)
    asking.take()
    assert asking.outbox.listings == [1, 3, 4, 5]
    asking.answered()
    asking.take()
    assert asking.outbox.listings == [6]


def test_replies_that_are_not_read_stop_it_in_the_middle_of_a_frame(asking: Asking) -> None:
    asking.waiting_bytes = limits.CONNECTION_SEND_BYTES_MAX
    assert not asking.hears(*[keepalive(number) for number in range(1, 9)])
    assert asking.begins() == "h1"
    assert len(asking.inbound.requests) == 7


# --- time ---------------------------------------------------------------------------------------
def test_requests_have_a_slice_of_a_turn(asking: Asking) -> None:
    asking.takes_s = 0.0002
    assert asking.hears(*[keepalive(number) for number in range(1, 11)])
    assert asking.begins() == "h1 h2 h3 h4", "the time is looked at after each fourth"
    assert asking.take()
    assert asking.begins() == "h5 h6 h7 h8"
    assert not asking.take()
    assert asking.begins() == "h9 h10"


def test_the_time_is_looked_at_after_each_listing(asking: Asking) -> None:
    asking.takes_s = 0.001
    assert asking.hears(listing(1, LOCAL), listing(2, LOCAL))
    assert asking.begins() == "h1"


def test_the_next_frame_waits_for_the_next_turn(asking: Asking) -> None:
    asking.takes_s = 0.0025
    for first in (1, 3, 5):
        asking.inbound.receive(pack_messages([keepalive(first), keepalive(first + 1)]), 0.0)
    assert asking.take()
    assert asking.begins() == "h1 h2"
    assert len(asking.inbound.bodies) == 2
    assert asking.take(), "one frame more each time it is called"
    assert asking.begins() == "h3 h4"
    assert not asking.take()
    assert asking.begins() == "h5 h6"

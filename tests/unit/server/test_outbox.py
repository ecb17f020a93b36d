"""Replies of any size and number: gathered, queued, cut to frames, bounded while they wait."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any
from weakref import ref

import pytest

from raftckpt import limits
from raftckpt.model.types import Result, refuse, success
from raftckpt.model.values import Frozen, Listing, Pages
from raftckpt.protocol.frames import MessageStream, try_pack
from raftckpt.server.outbox import Outbox

NO_RESOURCES = 18


class Replies:
    """Who has an outbox: flushes it when it is told, gives it turns, keeps what leaves."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.marked = self.turns_due = 0
        self.refusals: Counter[str] = Counter()
        self.audit: list[str] = []
        self.changes: Any = None
        self.outbox = Outbox(ref(self), Replies.mark, try_pack, self.refusals)

    def mark(self) -> None:
        self.marked += 1

    def pump_soon(self) -> None:
        self.turns_due += 1

    def audited(self, why: str) -> None:
        self.audit.append(why)

    def flush(self) -> None:
        self.frames += self.outbox.flush()

    def turn(self) -> int:
        """How many frames leave in a turn."""
        before = len(self.frames)
        for frame in self.outbox.turn(self.changes):
            assert frame, "an empty write"
            assert len(frame) <= limits.FRAME_BYTES_MAX + 8
            self.frames.append(frame)
        return len(self.frames) - before

    def run(self) -> None:
        """Flush, then turns as long as there is something for one."""
        self.flush()
        while self.turns_due or self.outbox.more:
            self.turns_due = 0
            self.turn()

    def received(self) -> list[Any]:
        stream = MessageStream()
        return [message for frame in self.frames for message in stream.feed(frame)]

    def nothing_is_left(self) -> bool:
        outbox = self.outbox
        return not (outbox.owed or outbox.listings or outbox.gathered_bytes or outbox.queued_bytes)


@pytest.fixture
def replies() -> Replies:
    return Replies()


def page_rows(count: int) -> Listing:
    return Listing(Frozen({b"%d" % i: i for i in range(count)}), lambda key, _: key)


# --- gathered -----------------------------------------------------------------------------------
def test_nothing_waits_at_first(replies: Replies) -> None:
    assert replies.nothing_is_left()
    assert replies.outbox.flush() == []


def test_what_is_gathered_leaves_in_one_frame_and_is_told_once(replies: Replies) -> None:
    outbox = replies.outbox
    outbox.owed = 5
    outbox.accepted(1)
    outbox.answer(2, success([7]))
    outbox.answer_all([3, 4], [success([8]), refuse(NO_RESOURCES, "limit", "x")])
    outbox.refuse(5, NO_RESOURCES, "busy", definite=False)
    outbox.value(6, "v")
    outbox.notice("leader", None)
    assert replies.marked == 1
    assert outbox.owed == 5, "nothing left yet"
    replies.flush()
    assert len(replies.frames) == 1
    assert replies.received() == [
        [1, 1],
        [0, 2, 1, [7]],
        [0, 3, 1, [8]],
        [0, 4, NO_RESOURCES, ["limit", "x", None], True],
        [0, 5, NO_RESOURCES, ["busy", None, None], False],
        [0, 6, 1, "v"],
        [2, "leader", None],
    ]
    assert outbox.owed == 0, "that a command is accepted is no reply to it, a notice neither"
    assert replies.refusals == {"busy": 1}
    assert replies.outbox.flush() == []


@pytest.mark.parametrize(
    ("how", "arguments", "said"),
    [
        ("answer", (3, success([7])), [0, 3, 1, [7]]),
        ("answer_all", ([3], [success([7])]), [0, 3, 1, [7]]),
        ("deliver", (3, success([7])), [0, 3, 1, [7]]),
        ("value", (3, "v"), [0, 3, 1, "v"]),
        ("accepted", (3,), [1, 3]),
        ("refuse", (3, 18, "limit", "of it"), [0, 3, 18, ["limit", "of it", None], True]),
        ("revoke", (3,), [0, 3, 11, ["revoked", None, None], True]),
        ("notice", ("leader", None), [2, "leader", None]),
    ],
)
def test_each_reply_is_flushed_by_itself(
    replies: Replies, how: str, arguments: Any, said: list[Any]
) -> None:
    getattr(replies.outbox, how)(*arguments)
    assert replies.marked == 1
    replies.flush()
    assert replies.received() == [said]
    answers = said[0] == 0 and how != "revoke"
    assert replies.outbox.owed == -answers, "what is revoked was answered before"


def test_there_is_a_result_for_each_request(replies: Replies) -> None:
    with pytest.raises(ValueError, match="shorter"):
        replies.outbox.answer_all([1, 2], [success(None)])


def test_a_right_that_is_not_granted_is_audited(replies: Replies) -> None:
    replies.outbox.answer(1, refuse(8, "not_granted", "write"))
    assert replies.audit == ["the right to write is not granted"]


def test_an_attempt_that_comes_after_the_answer_is_not_definite(replies: Replies) -> None:
    replies.outbox.answer(1, refuse(8, "answered"))
    replies.flush()
    assert replies.received()[0][4] is False


# --- queued -------------------------------------------------------------------------------------
def test_many_replies_just_below_a_page(replies: Replies) -> None:
    replies.outbox.owed = 40
    for number in range(40):
        replies.outbox.deliver(number, success([1, [b"x" * 60_000]]))
    replies.flush()
    assert len(replies.frames) == 1
    assert len(replies.frames[0]) <= limits.FRAGMENT_BYTES + 1024
    replies.run()
    received = replies.received()
    assert sorted(message[1] for message in received) == list(range(40))
    assert all(message[2:] == [1, [1, [b"x" * 60_000]]] for message in received)
    assert len(replies.frames) < 15, "small replies share frames"
    assert replies.nothing_is_left()


def test_replies_that_share_a_frame_do_not_fill_more_than_one(replies: Replies) -> None:
    for number in range(60):
        replies.outbox.deliver(number, success([1, [b"x" * 30_000]]))
    replies.run()
    assert max(map(len, replies.frames)) <= limits.FRAGMENT_BYTES + 1024


def test_a_turn_writes_one_frame(replies: Replies) -> None:
    replies.outbox.deliver(1, success([1, [b"x" * 1_000_000]]))
    assert replies.turns_due == 1
    written = [replies.turn() for _ in range(5)]
    assert written == [1, 1, 1, 1, 0]
    assert replies.received()[0][1] == 1
    assert replies.outbox.more, "what comes next was not looked at"
    assert replies.turn() == 0
    assert not replies.outbox.more


MIXES: dict[str, list[tuple[str, Any]]] = {
    "long refusals": [("deliver", refuse(NO_RESOURCES, "limit", "y" * 20_000))] * 300,
    "command results": [("answer", success(b"r" * 60_000))] * 100,
    "huge results of commands": [("answer", success(b"r" * (3 << 20)))] * 3,
    "a huge refusal": [("refuse", "z" * (3 << 20)), ("deliver", success([1, [b"a"]]))],
    "pages below the limit": [("deliver", success([1, [Pages((b"p" * 50_000,), 40_000, 7)]]))] * 60,
    "many openers": [
        ("deliver", success([1, [(i, "name" * 20, "node", 1, 1) for i in range(9999)]]))
    ]
    * 9,
    "underestimated": [("deliver", success([1, "\N{SNOWMAN}" * 60_000]))] * 40,
    "a map": [("value", {str(i): "v" * 1000 for i in range(3000)})],
    "notices": [("notice", "n" * 30_000)] * 100,
    "listings": [("deliver", success([1, page_rows(5000)]))] * 5,
}


@pytest.mark.parametrize("names", [*[[name] for name in MIXES], list(MIXES)], ids="+".join)
def test_no_mix_of_replies_fails_to_be_sent(replies: Replies, names: list[str]) -> None:
    outbox = replies.outbox
    number = notices = 0
    for how, what in [item for name in names for item in MIXES[name]]:
        if how == "notice":
            notices += 1
            outbox.notice("leader", what)
            continue
        number += 1
        outbox.owed += 1
        if how == "refuse":
            outbox.refuse(number, NO_RESOURCES, "limit", what)
        else:
            getattr(outbox, how)(number, what)
    replies.run()
    received = replies.received()
    assert sorted(m[1] for m in received if m[0] == 0) == list(range(1, number + 1))
    assert sum(m[0] == 2 for m in received) == notices
    assert all(len(m) == (4 if m[2] == 1 else 5) for m in received if m[0] == 0)
    assert replies.nothing_is_left()


@pytest.mark.parametrize("how", ["gathered", "queued", "refused"])
def test_a_listing_ends_with_its_reply(replies: Replies, how: str) -> None:
    outbox = replies.outbox
    outbox.listings = [3, 4]
    outbox.owed = 4
    for number in (8, 4):  # the first is no listing
        if how == "refused":
            outbox.refuse(number, NO_RESOURCES, "limit")
        elif how == "gathered":
            outbox.deliver(number, success([1, []]))
        else:
            outbox.deliver(number, success([1, page_rows(5000)]))
            assert outbox.listings == [3, 4], "its rows have not left"
    replies.run()
    assert outbox.listings == [3]
    assert outbox.owed == 2


def test_long_listings_are_cut_to_shorter_frames_than_large_data(replies: Replies) -> None:
    replies.outbox.deliver(1, success([1, [b"%06d" % row for row in range(60_000)]]))
    replies.run()
    assert 60 * limits.KIB < max(map(len, replies.frames)) < 70 * limits.KIB
    replies.frames.clear()
    replies.outbox.deliver(2, success([1, [b"x" * 60_000] * 8]))
    replies.run()
    assert max(map(len, replies.frames)) > 200 * limits.KIB


# --- a client that does not read ----------------------------------------------------------------
def test_replies_wait_while_the_client_does_not_read(replies: Replies) -> None:
    replies.outbox.reads = False
    for number in range(1000):
        replies.outbox.deliver(number, Result(1, [1, [b"x" * 60_000]]))
        replies.flush()
    assert replies.frames == []
    assert replies.outbox.queued_bytes >= limits.CONNECTION_SEND_BYTES_MAX
    replies.outbox.reads = True
    replies.run()
    assert len(replies.received()) == 1000


def test_a_reply_waits_behind_those_that_are_queued_unless_it_is_tiny(replies: Replies) -> None:
    replies.outbox.deliver(1, success([1, [b"x" * 5000]]))
    replies.flush()
    assert [message[1] for message in replies.received()] == [1]
    for number, size in ((2, 300_000), (3, 5000), (4, 500)):
        replies.outbox.deliver(number, success([1, [b"x" * size]]))
    replies.run()
    assert [message[1] for message in replies.received()] == [1, 4, 2, 3]


def test_tiny_replies_do_not_wait_for_it(replies: Replies) -> None:
    replies.outbox.reads = False
    replies.outbox.deliver(1, success([1, [b"x" * 100]]))
    replies.flush()
    assert len(replies.received()) == 1


# --- trackers -----------------------------------------------------------------------------------
class Pushing:
    """A subscription with some changes, of a size each."""

    def __init__(self, *batches: list[Any], size: int = 10) -> None:
        self._batches = deque(batches)
        self._size = size

    def pull(self) -> tuple[list[Any], int]:
        return (self._batches.popleft(), self._size) if self._batches else ([], 0)


def changes(count: int) -> list[list[Any]]:
    return [[[3, 2, [], revision]] for revision in range(count)]


def test_a_few_small_changes_leave_per_turn(replies: Replies) -> None:
    replies.changes = Pushing(*changes(6))
    replies.outbox.pushable()
    assert replies.turns_due == 1
    assert replies.turn() == 4
    assert replies.outbox.more
    assert replies.turn() == 2
    assert not replies.outbox.more
    assert replies.received() == [message for batch in changes(6) for message in batch]


def test_changes_come_behind_replies(replies: Replies) -> None:
    replies.changes = Pushing(*changes(1))
    replies.outbox.deliver(9, success([1, [b"x" * 300_000]]))
    replies.run()
    assert [message[:2] for message in replies.received()] == [[0, 9], [3, 2]]


def test_a_large_change_is_cut_to_frames(replies: Replies) -> None:
    replies.changes = Pushing([[3, 2, [[b"d" * 200_000]], 8]], size=200_000)
    assert replies.turn() == 1
    assert replies.outbox.streams
    replies.outbox.pushable()
    assert not replies.turns_due, "a turn is due as it is"
    replies.run()
    assert replies.received() == [[3, 2, [[b"d" * 200_000]], 8]]


def test_no_change_is_pulled_for_a_client_that_stopped_reading(replies: Replies) -> None:
    outbox = replies.outbox
    replies.changes = Pushing(*changes(3))
    for frame in outbox.turn(replies.changes):
        replies.frames.append(frame)
        outbox.reads = False
    assert len(replies.frames) == 1
    outbox.pushable()
    assert not replies.turns_due
    outbox.reads = True
    outbox.pushable()
    replies.run()
    assert len(replies.received()) == 3


# --- the end ------------------------------------------------------------------------------------
def test_nothing_is_sent_to_nobody(replies: Replies) -> None:
    outbox = replies.outbox
    outbox.deliver(1, success([1, [b"x" * 300_000]]))
    replies.turn()
    outbox.answer(4, success(None))
    outbox.close()
    outbox.answer(2, success(None))
    outbox.deliver(3, success([1, [b"x" * 300_000]]))
    assert outbox.flush() == []
    assert list(outbox.turn(None)) == []
    assert not outbox.streams


def test_an_outbox_does_not_keep_its_connection_alive() -> None:
    replies = Replies()
    outbox, gone = replies.outbox, ref(replies)
    outbox.deliver(1, success([1, [b"x" * 300_000]]))
    del replies
    assert gone() is None
    assert outbox.queued_bytes

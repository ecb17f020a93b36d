"""What no replica has reason to say: by field, and by where the one who is told stands."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.raft import messages as m

TOP = (1 << 64) - 1
ACK = m.Ack(13, 5, 7, True, False, 11, 0)


def told(*messages: Any, leads: bool = True) -> str:
    return m.implausible(messages, term=5, sent_round=7 if leads else -1, last_index=10)


def test_what_follows_from_where_a_leader_stands() -> None:
    assert told(ACK) == ""
    assert "it answers round 8" in told(ACK._replace(round=8))
    assert "it holds entries to 11" in told(ACK._replace(next_index=12))
    assert told(ACK._replace(next_index=12, success=False, reset=True)) == ""
    assert told(ACK._replace(round=8, next_index=99), leads=False) == ""
    assert told(ACK._replace(term=4, round=8)) == "", "of another leadership"
    assert "round 9" in told(ACK, m.Echo(14, 5, 9, 0)), "each of several"
    assert "round 9" in told(m.ChunkAck(15, 5, 9, "s", 0, 0))


@pytest.mark.parametrize(
    "message",
    [
        m.TermIs(9, 5), m.Append(1, 5, 1, 0, 0, 0, []), m.VoteRequest(4, 5, 1, 1, False),
        m.VoteGrant(5, 5), m.PreVote(6, 5, 6, 1, 1), m.PreVoteAnswer(7, 5, 6, False),
        m.TimeoutNow(8, 5), m.Standing(16, 5, 1), m.Removed(17, 5, 1),
        m.Chunk(10, 5, 1, "s", 2, 1, 1, 0, 0, b"x"),
    ],
)  # fmt: skip
def test_nobody_is_so_many_elections_ahead(message: Any) -> None:
    name = message._fields[1]
    far = 5 + m.TERM_LEAP_MAX
    assert told(message._replace(**{name: far}), leads=False) == ""
    assert "it says term" in told(message._replace(**{name: far + 1}), leads=False)


def test_what_has_no_term_is_not_asked_for_one() -> None:
    notes = m.Noted(19, 1 << 32, b"", False), m.DiskPace(20, m.SYNC_US_MAX)
    assert told(m.NotLetIn(18, "why"), *notes) == ""


GOOD: dict[type, Any] = {
    m.Append: m.Append(1, 5, 1, 3, 2, 4, [[b"\x01", 3, 5]]),
    m.Ack: ACK,
    m.Echo: m.Echo(14, 5, 7, 1),
    m.VoteRequest: m.VoteRequest(4, 5, 9, 4, False),
    m.VoteGrant: m.VoteGrant(5, 5),
    m.PreVote: m.PreVote(6, 5, 6, 9, 5),
    m.PreVoteAnswer: m.PreVoteAnswer(7, 5, 6, True),
    m.TimeoutNow: m.TimeoutNow(8, 5),
    m.TermIs: m.TermIs(9, 5),
    m.Chunk: m.Chunk(10, 5, 1, "s", 9, 4, 8, 4, 1, b"data"),
    m.ChunkAck: m.ChunkAck(15, 5, 1, "s", 4, 1),
    m.Standing: m.Standing(16, 5, 9),
    m.Removed: m.Removed(17, 5, 9),
    m.NotLetIn: m.NotLetIn(18, "why"),
    m.Noted: m.Noted(19, 1, b"", False),
    m.DiskPace: m.DiskPace(20, 400_000),
}


def decoded(message: Any) -> Any:
    (body,) = m.join_bodies([m.encode(message)])
    (found,) = m.decode_body(body)
    return found


def test_every_message_has_a_good_one() -> None:
    assert set(GOOD) == set(m.KINDS)
    for message in GOOD.values():
        assert type(decoded(message)) is type(message)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (message, field)
        for message in GOOD.values()
        for field in message._fields[1:]
        if type(getattr(message, field)) is int
    ],
)
def test_every_number_has_an_end(message: Any, field: str) -> None:
    for number in (-1, TOP, 1 << 63):
        with pytest.raises(m.PeerProtocolError):
            decoded(message._replace(**{field: number}))


@pytest.mark.parametrize(
    "message",
    [
        GOOD[m.Append]._replace(prev_term=6),
        GOOD[m.VoteRequest]._replace(last_term=6),
        GOOD[m.PreVote]._replace(last_term=6),
        GOOD[m.Chunk]._replace(index_term=6),
        GOOD[m.Chunk]._replace(log_index=1),
        GOOD[m.Chunk]._replace(offset=5),
        GOOD[m.Chunk]._replace(snapshot="s" * 65),
        GOOD[m.ChunkAck]._replace(snapshot="s" * 65),
        GOOD[m.NotLetIn]._replace(why="w" * 501),
        GOOD[m.Noted]._replace(record=b"no record"),
    ],
)
def test_fields_that_contradict_each_other(message: Any) -> None:
    with pytest.raises(m.PeerProtocolError):
        decoded(message)

"""Peer messages: what is encoded is decoded, and nothing else is accepted."""

from __future__ import annotations

import random
from typing import NamedTuple

import msgpack
import pytest

from raftckpt import limits
from raftckpt.raft import messages as m
from raftckpt.raft.configuration import CONFIGURATION, encode_configuration
from tests.directories import founding_of

RECORD = encode_configuration(founding_of("c", ["n1", "n2"]))
SAMPLES = [
    m.Append(1, 3, 7, 2, 1, 0, [(b"\x00x", 2, 3)]),
    m.Append(1, 3, 7, 0, 0, 0, []),
    m.Append(1, 3, 7, 2, 1, 0, [(CONFIGURATION + RECORD, 2, 3)]),
    m.VoteRequest(4, 3, 9, 2, False),
    m.VoteGrant(5, 3),
    m.PreVote(6, 2, 3, 9, 2),
    m.PreVoteAnswer(7, 2, 3, True),
    m.TimeoutNow(8, 3),
    m.TermIs(9, 4),
    m.Chunk(10, 3, 7, "id", 50, 2, 1000, 0, 99, b"data"),
    m.Ack(13, 3, 7, True, False, 5, 123),
    m.Echo(14, 3, 7, 123),
    m.ChunkAck(15, 3, 7, "id", 100, 123),
    m.Standing(16, 3, 17),
    m.Removed(17, 3, 17),
    m.NotLetIn(18, "n2 is here with another data directory"),
    m.Noted(19, 2, RECORD, True),
    m.Noted(19, 0, b"", False),
    m.DiskPace(20, 400_000),
]


def body_of(*items):
    return b"\x00" + msgpack.packb(list(items))


def test_every_kind_survives_the_wire():
    bodies = list(m.join_bodies([m.encode(sample) for sample in SAMPLES]))
    assert len(bodies) == 1
    assert m.decode_body(bodies[0]) == SAMPLES
    assert {type(s) for s in SAMPLES} == set(m.KINDS)


def test_bodies_stay_below_the_frame_limit():
    big = m.encode(m.Append(1, 1, 1, 0, 1, 0, [(b"x" * limits.MIB, 2, 1)]))
    bodies = list(m.join_bodies([big, big, big]))
    assert len(bodies) == 3
    assert all(len(body) <= limits.FRAME_BYTES_MAX for body in bodies)
    many = list(m.join_bodies([m.encode(m.VoteGrant(5, 1))] * 3000))
    assert sum(len(m.decode_body(body)) for body in many) == 3000


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x01",
        b"\x00",
        b"\x00\xc1",
        b"\x00\x90",
        b"\x00\x93",
        body_of(5),
        body_of([]),
        body_of([99, 1]),
        body_of(["1", 1]),
        body_of([5]),
        body_of([5, 1, 2]),
        body_of([5, True]),
        body_of([5, -1]),
        body_of([5, "1"]),
        body_of([13, 3, 7, 1, 0, 5, 123]),
        body_of([13, 3, 7, True, False, 5, False, 123]),
        body_of([14, 3, 7, False, 123]),
        body_of([15, 3, 7, "id", 100, False, 123]),
        body_of([16, 3]),
        body_of([17, 3, -1]),
        body_of([18, b"why"]),
        body_of([18]),
        body_of([19, 2, RECORD, 1]),
        body_of([19, 2, "record", True]),
        body_of([19, 1 << 63, RECORD]),
        # said by replicas of peer protocol 1
        body_of([2, 3, 7, True, False, 5, False, 123]),
        body_of([3, 3, 7, False, 123]),
        body_of([11, 3, 7, "id", 100, False, 123]),
        body_of([12, 3, 50]),
        # entries that claim to be configurations
        body_of([1, 3, 7, 2, 1, 0, [[CONFIGURATION, 2, 3]]]),
        body_of([1, 3, 7, 2, 1, 0, [[CONFIGURATION + b"\x90", 2, 3]]]),
        body_of([1, 3, 7, 2, 1, 0, [[CONFIGURATION + RECORD[:-1], 2, 3]]]),
        body_of([1, 3, 7, 2, 1, 0, [[b"x", 3, 3]]]),
        body_of([1, 3, 7, 2, 1, 0, [[b"x", 2, 4]]]),
        body_of([1, 3, 7, 2, 1, 2, [[b"x", 2, 1]]]),
        body_of([1, 3, 7, 2, 1, 0, [[b"", 2, 3]]]),
        body_of([1, 3, 7, 2, 1, 0, [["x", 2, 3]]]),
        body_of([1, 3, 7, 2, 1, 0, [[b"x", 2]]]),
        body_of([1, 3, 7, 2, 1, 0, None]),
        body_of([10, 3, 7, 5, 50, 2, 1000, 0, 99, b"data"]),
    ],
)
def test_anything_else_is_a_protocol_error(bad):
    with pytest.raises(m.PeerProtocolError):
        m.decode_body(bad)


def test_random_corruption_never_escapes():
    rng = random.Random(7)
    [good] = m.join_bodies([m.encode(sample) for sample in SAMPLES])
    refused = 0
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        try:
            m.decode_body(bytes(bad[: rng.randint(1, len(bad))]))
        except m.PeerProtocolError:
            refused += 1
    assert refused > 2000


class Said(NamedTuple):
    kind: int
    term: int
    more: str


class SaidAgain(NamedTuple):
    kind: int
    term: int
    more: str
    still_more: str


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (1, m.VoteGrant(5, 7)),
        (2, Said(20, 7, "a")),
        (3, Said(20, 7, "a")),
        (4, SaidAgain(21, 7, "a", "b")),
    ],
)
def test_what_is_said_is_what_both_ends_can(monkeypatch, level, said):
    former = {
        Said: (2, lambda s: m.VoteGrant(m.KINDS[m.VoteGrant], s.term)),
        SaidAgain: (4, lambda s: Said(20, s.term, s.more)),
    }
    monkeypatch.setattr("raftckpt.raft.messages.FORMER", former)
    assert m.spoken(SaidAgain(21, 7, "a", "b"), level) == said
    assert m.spoken(m.Ack(13, 1, 2, True, False, 3, 4), level) == m.Ack(13, 1, 2, True, False, 3, 4)

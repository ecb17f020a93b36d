"""The first words on a link: strict where it counts, open at the end."""

from __future__ import annotations

import pytest

from raftckpt.protocol.frames import FrameDecoder, encode_frame, pack_messages
from raftckpt.raft.hello import HELLO, REFUSED, Hello, Refusal, objection_to, parse_hello
from raftckpt.raft.messages import PeerProtocolError
from raftckpt.raft.port import PeerInfo
from raftckpt.version import PEER_PROTOCOL

SAID = Hello([1, 2], PEER_PROTOCOL, "c", "n2", "d2", 3, "run", "f" * 32, "", "h2:1", "h2:2", 4, 17)


def body(*messages):
    (found,) = FrameDecoder().feed(pack_messages(list(messages)))
    return bytes(found)


def test_what_is_said_is_heard():
    hello = parse_hello(body([HELLO, *SAID]))
    assert hello == SAID
    assert hello.info == PeerInfo("d2", "n2", "", "h2:1", "h2:2", 1, 2, 3, "run", 4, 17)


@pytest.mark.parametrize("more", [[1], [None, "x"], [[1, [2, "x"]]], [b"\x00"] * 20])
def test_further_fields_are_ignored(more):
    assert parse_hello(body([HELLO, *SAID, *more])) == SAID


@pytest.mark.parametrize("more", [[], [1, "later"]])
def test_a_refusal_is_heard(more):
    heard = parse_hello(body([REFUSED, "go away" * 100, True, *more]))
    assert heard == Refusal(("go away" * 100)[:500], True)
    assert parse_hello(body([REFUSED, "later", False, *more])) == Refusal("later", False)


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_another_protocol_is_refused_by_its_number(version):
    """Its fields may be others: they are not looked at."""
    with pytest.raises(PeerProtocolError, match="it speaks peer protocol"):
        parse_hello(body([HELLO, [1, 1], version]))


def test_the_hello_of_before_is_refused():
    with pytest.raises(PeerProtocolError):
        parse_hello(body([HELLO, 1, "c", "n2", 1, "d2", True, False, False]))


WRONG = {
    "levels": [1, [], [1], [1, 2, 3], [1, "2"], [True, 2], None],
    "cluster": [1, b"c", None],
    "node": [2, b"n2"],
    "directory": [2, None],
    "incarnation": ["3", -1, True, 3.0],
    "run": [1, b"run"],
    "founding": [None, 0],
    "joins": [False, None],
    "peer": [1],
    "client": [80],
    "term": [None, -1, False],
    "last_index": ["17", -1, True],
}


def test_every_field_has_a_wrong_one():
    assert set(WRONG) == set(Hello._fields) - {"protocol"}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_malformed_field_is_refused(field, value):
    with pytest.raises(PeerProtocolError):
        parse_hello(body([HELLO, *SAID._replace(**{field: value})]))


@pytest.mark.parametrize(
    "data",
    [
        b"\x01" + body([HELLO, *SAID])[1:],
        b"\x00",
        b"\x00\xc1",
        body([HELLO, *SAID])[:-1],
        body([HELLO, *SAID], [HELLO, *SAID]),
        body([]),
        body(7),
        body(["300", *SAID]),
        body([HELLO + 2]),
        body([HELLO, *SAID[:-1]]),
        body([REFUSED, "why"]),
        body([REFUSED, b"why", True]),
        body([REFUSED, "why", 1]),
        body([HELLO, *SAID._replace(node="n" * 20_000)]),
    ],
)
def test_anything_else_is_no_handshake(data):
    with pytest.raises(PeerProtocolError):
        parse_hello(data)


def test_it_fits_into_one_frame():
    assert len(encode_frame(body([HELLO, *SAID]))) < 1000


# --- objections -------------------------------------------------------------------------------

OWN = SAID._replace(node="n1", directory="d1", incarnation=1, run="mine")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cluster": "other"}, "belongs to cluster 'other', this is 'c'"),
        ({"directory": "d1"}, "own data directory"),
        ({"directory": "d1", "node": "n1"}, "own data directory"),
        ({"node": "n1"}, "two processes share it"),
        ({"founding": "e" * 32}, "was founded twice: its founding is eeeeeeee, this one is fff"),
        ({"levels": [3, 3]}, "it can levels 3 to 3, the cluster is at level 2"),
        ({"levels": [1, 1]}, "start a version that can"),
    ],
)
def test_what_speaks_against_a_link(changes, why):
    assert why in (objection_to(SAID._replace(**changes), OWN, 2) or "")


@pytest.mark.parametrize(
    ("said", "own", "level"),
    [
        (SAID, OWN, 2),
        (SAID, OWN, 1),
        (SAID._replace(levels=[2, 5]), OWN, 2),
        (SAID._replace(levels=[3, 3]), OWN, 0),  # no level is in force yet
        (SAID._replace(founding=""), OWN, 2),  # it is not founded yet
        (SAID, OWN._replace(founding=""), 2),
        (SAID._replace(founding="e" * 32), OWN._replace(founding=""), 0),
        (SAID._replace(joins="rejoin", term=0, last_index=0), OWN, 2),
    ],
)
def test_what_does_not_speak_against_a_link(said, own, level):
    assert objection_to(said, own, level) is None

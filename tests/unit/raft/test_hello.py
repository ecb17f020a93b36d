"""The first words on a link: strict where it counts, open at the end."""

from __future__ import annotations

import pytest

from raftckpt.protocol.frames import FrameDecoder, encode_frame, pack_messages
from raftckpt.raft.hello import (
    HELLO,
    PROOF,
    READY,
    REFUSED,
    Handshake,
    Hello,
    Refusal,
    objection_to,
    parse_hello,
)
from raftckpt.raft.messages import PeerProtocolError
from raftckpt.raft.port import PeerInfo
from raftckpt.version import PEER_PROTOCOL
from tests.marks import Marks
from tests.messages import unpack_messages

SAID = Hello([1, 2], PEER_PROTOCOL, "c", "n2", "d2", 3, "run", "f" * 32, "", "h2:1", "h2:2", 4, 17)
A_NONCE = bytes(range(32))


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
    "levels": [1, [], [1], [1, 2, 3], [1, "2"], [True, 2], None, [0, 2], [2, 1], [1, 1 << 40]],
    "cluster": [1, b"c", None, "c\n", "c" * 301],
    "node": [2, b"n2", "", "n2\x1b[2J", "n" * 65, "n 2"],
    "directory": [2, None, "", "d\u202e"],
    "incarnation": ["3", -1, True, 3.0, 1 << 33],
    "run": [1, b"run", "\x00"],
    "founding": [None, 0, "f" * 301],
    "joins": [False, None, "j" * 301],
    "peer": [1, "h2:1 ", "h" * 301],
    "client": [80, "h2:2\n"],
    "term": [None, -1, False, 1 << 63, (1 << 56) + 1],
    "last_index": ["17", -1, True, 1 << 63],
    "nonce": [1, "", b"short", bytes(33)],
    "memory": ["1", None, -1, True, 1 << 63],
    "recognises": [1, 0, None, "yes"],
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
        body([HELLO, *SAID[: len(SAID) - 4]]),
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


# --- the whole of it ---------------------------------------------------------------------------


class Side:
    """One side of a handshake, and what it says."""

    def __init__(self, own, secret=b"", *, dialled, nonce=A_NONCE, keys=None):
        self.out = []
        self.handshake = Handshake(
            own, self.out.append, dialled=dialled, secret=secret, nonce=nonce, keys=keys
        )

    def hear(self, other):
        """Take what the other side said; a hello is accepted."""
        said, other.out[:] = list(other.out), []
        heard = [self.handshake.receive(body) for body in said]
        for what in heard:
            if isinstance(what, Hello):
                self.handshake.accept()
        return [what for what in heard if what is not None]


def pair(secret=b"", other=None):
    dials = Side(OWN, secret, dialled=True, nonce=bytes(32))
    answers = Side(SAID, secret if other is None else other, dialled=False)
    return dials, answers


@pytest.mark.parametrize("secret", [b"", b"s" * 32])
def test_both_sides_know_each_other_in_the_end(secret):
    dials, answers = pair(secret)
    for _ in range(3):
        answers.hear(dials)
        dials.hear(answers)
    for side, other in ((dials, SAID), (answers, OWN)):
        assert side.handshake.over
        assert side.handshake.hello._replace(nonce=b"") == other
    with pytest.raises(PeerProtocolError, match="a second handshake"):
        dials.handshake.receive(body([HELLO, *SAID]))


def test_nothing_is_judged_before_it_is_proved():
    dials, answers = pair(b"s" * 32)
    assert answers.hear(dials) == [], "its hello alone is worth nothing"
    assert dials.hear(answers) != []
    assert not dials.handshake.over, "the other side has the last word"
    assert answers.hear(dials) != []
    assert answers.handshake.over


@pytest.mark.parametrize("other", [b"t" * 32, b""])
def test_who_lacks_the_secret_is_told(other):
    for dials, answers in (pair(b"s" * 32, other), pair(other, b"s" * 32)):
        with pytest.raises(PeerProtocolError, match="secret"):  # noqa: PT012
            for _ in range(3):
                answers.hear(dials)
                dials.hear(answers)
        assert not dials.handshake.over
        assert not answers.handshake.over


def test_the_name_of_another_cluster_is_told_beside_the_secret():
    dials = Side(OWN._replace(cluster="other"), b"s" * 32, dialled=True)
    answers = Side(SAID, b"t" * 32, dialled=False)
    answers.hear(dials)
    with pytest.raises(PeerProtocolError, match="belongs to cluster 'c', this is 'other'"):
        dials.hear(answers)


def test_a_proof_is_good_for_one_handshake_and_one_side():
    """Neither its own proof nor that of another handshake opens a link."""
    dials, answers = pair(b"s" * 32)
    answers.hear(dials)
    said = list(answers.out)
    dials.hear(answers)
    proof = dials.out[0]
    again = Side(SAID, b"s" * 32, dialled=False, nonce=bytes([7]) * 32)
    again.handshake.receive(Side(OWN, b"s" * 32, dialled=True, nonce=bytes(32)).out[0])
    for wrong in (proof, said[1], again.out[1]):
        again.handshake.proven = False
        with pytest.raises(PeerProtocolError, match="does not have the secret"):
            again.handshake.receive(wrong)


@pytest.mark.parametrize("secret", [b"", b"s" * 32])
def test_a_fatal_word_counts_from_who_is_proven(secret):
    refusal = body([REFUSED, "go", True])
    dials, answers = pair(secret)
    assert dials.handshake.receive(refusal) == Refusal("go", not secret)
    answers.hear(dials)
    assert answers.handshake.receive(refusal) == Refusal("go", not secret)
    dials.hear(answers)
    assert dials.handshake.receive(refusal) == Refusal("go", True)


def test_an_objection_reaches_the_other_side_with_its_proof():
    dials, answers = pair(b"s" * 32)
    answers.hear(dials)
    for said in answers.out:
        dials.handshake.receive(said)
    dials.handshake.refuse("an older copy", fatal=True)
    assert answers.hear(dials) == [Refusal("an older copy", True)]


# --- marks ---------------------------------------------------------------------------------------


def meet(one, other, *, notes=True):
    """A handshake of two sides that know the secret, up to its end; both with what they heard."""
    secret = b"s" * 32
    dials = Side(OWN, secret, dialled=True, nonce=bytes(32), keys=one)
    answers = Side(SAID, secret, dialled=False, keys=other)
    for _ in range(3):
        answers.hear(dials)
        dials.hear(answers)
    assert dials.handshake.over
    assert answers.handshake.over
    if notes:
        for side, notebook in ((dials, one), (answers, other)):
            if notebook is not None:
                notebook.note(side.handshake)
    return dials.handshake, answers.handshake


@pytest.fixture
def books():
    return Marks(b"one"), Marks(b"other")


def test_keys_are_told_once_and_shown_from_then_on(books):
    one, other = books
    meet(one, other)
    assert one.key_of("d2") == other.own_key("d1")
    assert other.key_of("d1") == one.own_key("d2")
    for handshake in meet(one, other):
        assert handshake.key == b""
        assert not handshake.telling


def test_a_key_is_for_one_pair_of_directories(books):
    one, _ = books
    assert len({one.own_key(name) for name in ("d1", "d2", "d3")}) == 3


@pytest.mark.parametrize("poses", ["who dials", "who answers"])
def test_who_was_met_is_nobody_else(books, poses):
    one, other = books
    meet(one, other)
    third = Marks(b"has the secret")
    pair = (third, other) if poses == "who dials" else (one, third)
    with pytest.raises(PeerProtocolError, match=r"does not show the mark .* --rejoin"):
        meet(*pair)
    with pytest.raises(PeerProtocolError, match="does not show the mark"):
        meet(*(None if book is third else book for book in pair))
    assert third.keys == {}, "it learns no key by trying"


def test_what_was_told_and_forgotten_is_told_to_who_shows_its_mark(books):
    one, other = books
    meet(one, other)
    other.keys.clear()  # it ended before it was noted
    meet(one, other)
    assert other.key_of("d1") == one.own_key("d2")


def test_what_was_told_is_not_told_to_a_stranger(books):
    one, other = books
    meet(one, other)
    one.keys.clear()
    first, _ = meet(one, Marks(b"a stranger"), notes=False)
    assert not first.telling, "it was told before, and who asks now shows nothing"


@pytest.mark.parametrize("older", ["who dials", "who answers"])
def test_a_version_that_has_no_marks_is_met_as_before(books, older):
    one, other = books
    meet(*((None, other) if older == "who dials" else (one, None)))
    assert one.keys == other.keys == {}
    dials = Side(OWN, b"s" * 32, dialled=True, nonce=bytes(32))
    answers = Side(SAID, b"s" * 32, dialled=False, keys=other)
    answers.hear(dials)
    assert len(unpack_messages(answers.out[1])[0]) == 2, "it takes a proof that is longer for none"


def test_who_is_known_tells_no_other_key(books):
    one, other = books
    meet(one, other)
    dials, _ = meet(one, other)
    dials.receive(body([READY, bytes(32)]))
    assert dials.key == b""


@pytest.mark.parametrize("key", [b"short", "text", 1, None, bytes(33)])
def test_a_malformed_key_is_refused(books, key):
    one, other = books
    secret = b"s" * 32
    dials = Side(OWN, secret, dialled=True, nonce=bytes(32), keys=one)
    answers = Side(SAID, secret, dialled=False, keys=other)
    answers.hear(dials)
    dials.hear(answers)
    answers.hear(dials)
    with pytest.raises(PeerProtocolError, match="key in the handshake is malformed"):
        dials.handshake.receive(body([READY, key]))
    with pytest.raises(PeerProtocolError, match="second handshake"):
        dials.handshake.receive(body([READY, bytes(32), 1]))


@pytest.mark.parametrize("shown", [[], [b""], [None, False], ["text", True], [b"x" * 32, False]])
def test_a_malformed_mark_is_none(books, shown):
    one, other = books
    meet(one, other)
    dials = Side(OWN, b"s" * 32, dialled=True, nonce=bytes(32), keys=one)
    answers = Side(SAID, b"s" * 32, dialled=False, keys=other)
    answers.hear(dials)
    hello, proof = answers.out
    dials.handshake.receive(hello)
    mac = unpack_messages(proof)[0][1]
    with pytest.raises(PeerProtocolError, match="does not show the mark"):
        dials.handshake.receive(body([PROOF, mac, *shown]))


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

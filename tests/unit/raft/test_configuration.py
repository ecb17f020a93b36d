"""The configuration: its bytes, and which one of a log is in force."""

from __future__ import annotations

import random

import msgpack
import pytest

from raftckpt.errors import InvariantViolation
from raftckpt.raft.configuration import (
    CONFIGURATION,
    MEMBERS_MAX,
    NO_OP,
    REGULAR,
    ClusterMember,
    Configuration,
    Configurations,
    decode_configuration,
    encode_configuration,
    step_of,
)
from tests.directories import FOUNDING, founding_of

THREE = founding_of("c", ["n1", "n2", "n3"])
EVERYTHING = Configuration(
    FOUNDING, "c", "e" * 32, 17, 2, True,
    (
        ClusterMember("n1", "d1", "h1:1", "h1:2"),
        ClusterMember("n2", "d2", "h2:1", "h2:2", False, True, "d1"),
        ClusterMember("n3", "", "h3:1", "h3:2", False, False, "", "a" * 64),
        ClusterMember("ñ4", "d4", "[::1]:1", "", True, False, drained=True),
    ),
)  # fmt: skip


@pytest.mark.parametrize("configuration", [THREE, EVERYTHING, founding_of("ünï", ["n"], 1)])
def test_round_trip(configuration):
    data = encode_configuration(configuration)
    assert decode_configuration(data) == configuration
    assert encode_configuration(decode_configuration(data)) == data


def packed(**changes):
    """The three of n1, n2, n3 with other fields, as bytes."""
    fields = THREE._replace(**changes)
    if isinstance(fields.members, list | tuple):
        rows = [m[:-1] if isinstance(m, ClusterMember) else m for m in fields.members]
        fields = fields._replace(members=rows)
    return msgpack.packb([1, *fields])


def members(**changes):
    """The same with other fields of n2."""
    one, two, three = THREE.members
    return {"members": [one, two._replace(**changes), three]}


def test_what_the_malformed_ones_are_made_of_is_well_formed():
    assert decode_configuration(packed()) == THREE
    assert decode_configuration(packed(**members())) == THREE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x90",
        msgpack.packb([1]),
        msgpack.packb({"format": 1}),
        msgpack.packb(1),
        msgpack.packb([0, *THREE]),
        msgpack.packb([2, *THREE]),
        msgpack.packb([True, *THREE]),
        msgpack.packb([1, *THREE, "more"]),
        msgpack.packb([1, *THREE[:-1]]),
        packed() + b"\x00",
        packed()[:-1],
        packed(founding=b"f" * 32),
        packed(founding=""),
        packed(founding=None),
        packed(cluster=1),
        packed(parent=None),
        packed(base="0"),
        packed(base=-1),
        packed(base=True),
        packed(level=0),
        packed(level="1"),
        packed(pinned=0),
        packed(members={}),
        packed(members=[]),
        packed(members=["n1"]),
        packed(members=[m[:-2] for m in THREE.members]),
        packed(members=[[*m[:-1], 1] for m in THREE.members]),
        packed(members=[[*m[:-1], False] for m in THREE.members]),
        packed(members=[[*m, True] for m in THREE.members]),
        packed(
            members=[ClusterMember(f"n{i:02}", f"d{i}", "", "") for i in range(MEMBERS_MAX + 1)]
        ),
        packed(members=THREE.members[::-1]),
        packed(members=[THREE.members[0]] * 2),
        packed(members=[m._replace(voter=False) for m in THREE.members]),
        packed(**members(node="n1")),
        packed(**members(node="")),
        packed(**members(node=2)),
        packed(**members(node="n2" + "x" * 1024)),
        packed(**members(directory="n1")),
        packed(**members(directory="")),  # and a voter
        packed(**members(directory=b"n2")),
        packed(**members(peer=None)),
        packed(**members(peer="x" * 1025)),
        packed(**members(client=80)),
        packed(**members(client="x" * 1025)),
        packed(**members(voter=1)),
        packed(**members(promote=None)),
        packed(**members(replaces=0)),
        packed(**members(replaces="x" * 1025)),
        packed(**members(token=b"")),
        packed(**members(token="x" * 1025)),
    ],
)  # fmt: skip
def test_every_malformed_field_is_refused(data):
    with pytest.raises(ValueError):
        decode_configuration(data)


def test_random_corruption_is_refused_or_is_a_configuration():
    rng = random.Random(3)
    good = encode_configuration(EVERYTHING)
    refused = 0
    for _ in range(2000):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        try:
            found = decode_configuration(bytes(bad))
        except ValueError:
            refused += 1
        else:
            assert decode_configuration(encode_configuration(found)) == found
    assert refused > 500


def test_who_is_who():
    assert EVERYTHING.voters == {"d1", "d4"}
    assert EVERYTHING.directories == {"d1", "d2", "d4"}
    assert EVERYTHING.member("d2") == EVERYTHING.members[1]
    assert EVERYTHING.member("n2") is None
    assert EVERYTHING.member("") is None, "a kept place is nobody's"
    assert EVERYTHING.named("n3") == EVERYTHING.members[2]
    assert EVERYTHING.named("d3") is None


def test_others_in_place_of_one_are_sorted():
    one, two, three = THREE.members
    latter = THREE.replaced(two, two._replace(node="n9"), ClusterMember("n0", "", "", "", False))
    assert [m.node for m in latter.members] == ["n0", "n1", "n3", "n9"]
    assert THREE.replaced(two).members == (one, three)
    assert decode_configuration(encode_configuration(latter)) == latter


def test_a_step_is_how_many_votes_differ():
    one, two, _ = THREE.members
    assert step_of(THREE, THREE._replace(level=9)) == 0
    assert step_of(THREE, THREE.replaced(one)) == 1
    assert step_of(THREE, THREE.replaced(one, one._replace(voter=False))) == 1
    assert step_of(THREE, THREE.replaced(one, one._replace(directory="other"))) == 2
    assert step_of(THREE, THREE.with_members([two])) == 2


# --- in force ---------------------------------------------------------------------------------


def entry(index, term, number=None):
    """An entry; with ``number`` a configuration of that base."""
    if number is None:
        return (REGULAR + b"x", index, term)
    return (CONFIGURATION + encode_configuration(THREE._replace(base=number)), index, term)


LOG = [entry(1, 0, 0), entry(2, 1), entry(3, 1, 1), entry(4, 2), entry(5, 2, 3), entry(6, 3)]


def placed(index, term, number):
    return msgpack.packb([index, term, encode_configuration(THREE._replace(base=number))])


def bases(configurations):
    """(index, base) of the one in force."""
    now = configurations.now
    return now.index, now.configuration.base


def test_the_last_one_in_the_log_is_in_force():
    found = Configurations(b"", LOG)
    assert bases(found) == (5, 3)
    assert found.now.place == (2, 5)
    assert found.now.voters == {"n1", "n2", "n3"}
    assert found.now.majority == 2
    assert [found.at(i).index for i in range(1, 8)] == [1, 1, 3, 3, 5, 5, 5]


def test_a_snapshot_without_one_in_the_log():
    found = Configurations(placed(3, 1, 1), [(NO_OP, 8, 2), entry(9, 2)])
    assert bases(found) == (3, 1)
    assert found.at(9).index == 3


def test_of_snapshot_and_log_the_later_one_is_in_force():
    """The log is kept for a while behind the snapshot."""
    assert bases(Configurations(placed(3, 1, 1), LOG[1:])) == (5, 3)
    found = Configurations(placed(5, 2, 3), LOG[1:])
    assert bases(found) == (5, 3)
    assert [found.at(i).index for i in (5, 6)] == [5, 5]


def test_a_log_without_any_is_our_bug():
    with pytest.raises(InvariantViolation):
        Configurations(b"", [entry(1, 0)])


@pytest.mark.parametrize(
    ("at", "log"),
    [
        (placed(1, 0, 0)[:-1], []),
        (msgpack.packb([1, 0, b"x"]), []),
        (b"", [(CONFIGURATION + b"x", 1, 0)]),
    ],
)
def test_what_should_be_one_and_is_none_is_refused(at, log):
    with pytest.raises(ValueError):
        Configurations(at, log)


def test_appended_is_in_force_and_truncated_is_not_any_more():
    found = Configurations(b"", LOG)
    payload, index, term = entry(7, 3, 5)
    found.appended(payload, index, term)
    assert bases(found) == (7, 5)
    found.truncated(8)
    assert bases(found) == (7, 5)
    found.truncated(7)
    assert bases(found) == (5, 3)
    found.truncated(2)
    assert bases(found) == (1, 0)
    with pytest.raises(InvariantViolation):
        found.truncated(1)


def test_replaced_forgets_what_the_former_log_held():
    found = Configurations(b"", LOG)
    found.replaced(placed(3, 1, 1), [(NO_OP, 19, 4), entry(20, 4)])
    assert bases(found) == (3, 1)
    found.truncated(20)
    assert bases(found) == (3, 1)


@pytest.mark.parametrize(
    ("index", "known"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (99, 5)]
)
def test_compacted_keeps_the_one_of_the_first_entry_left(index, known):
    found = Configurations(b"", LOG)
    found.compacted(index)
    assert found.at(index).index == known
    assert bases(found) == (5, 3)
    assert found.at(1).index == known, "what is asked before it is the oldest one known"


@pytest.mark.parametrize(("index", "carried"), [(2, 1), (3, 3), (4, 3), (5, 5), (6, 5)])
def test_a_snapshot_carries_the_one_of_its_index(index, carried):
    """Not the one in force, which may be cut off again."""
    found = Configurations(b"", LOG)
    again = Configurations(found.placed(index), [])
    assert again.now.index == carried
    assert again.now.configuration == found.at(index).configuration
    assert again.now.term == found.at(index).term


def test_a_snapshot_of_what_was_forgotten_is_our_bug():
    found = Configurations(b"", LOG)
    found.compacted(5)
    with pytest.raises(InvariantViolation):
        found.placed(4)

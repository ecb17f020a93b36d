"""Open, close, unlink, retention, active replica, fencing, sessions, due work."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.model import lifecycle
from raftckpt.protocol import contract
from raftckpt.protocol.contract import SECTIONS_MAX

from .driver import (
    ACTIVE,
    ALL,
    COLLOCATED,
    CREATE,
    NEVER,
    READ,
    SECOND,
    WEAK,
    WRITE,
    DrivenMachine,
    DrivenSession,
    attributes,
    why,
)

MS = 10**6
INVALID, BAD_HANDLE, ACCESS, NOT_EXIST, EXIST = 7, 9, 11, 12, 14
NO_RESOURCES, BAD_OPERATION, BAD_FLAGS, TOO_BIG = 18, 20, 25, 26
LONGEST = contract.CHECKPOINT_NAME_BYTES_MAX


@pytest.fixture
def cluster() -> DrivenMachine:
    return DrivenMachine()


@pytest.fixture
def client(cluster: DrivenMachine) -> DrivenSession:
    return cluster.session()


# --- open: every check, in the order in which they apply ------------------------------------------

OPEN = [
    (("", 0, None), INVALID, "param", "name"),
    (("n" * (LONGEST + 1), 0, None), TOO_BIG, "limit", "name"),
    (("ä" * (LONGEST // 2 + 1), 0, None), TOO_BIG, "limit", "name"),
    (("x", 0, None), BAD_FLAGS, "flags", 0),
    (("x", 8, attributes(flags=0)), BAD_FLAGS, "flags", 8),
    (("x", -1, None), BAD_FLAGS, "flags", -1),
    (("x", READ | CREATE, None), INVALID, "attributes", "missing with CREATE"),
    (("x", READ, attributes(flags=0)), INVALID, "attributes", "given without CREATE"),
    (("x", 7, [1, 2, 3]), INVALID, "schema", "attributes"),
    (("x", 7, [1, 0, 0, 4, 100, True]), INVALID, "schema", "attributes"),
    (("x", 7, attributes(flags=0, sections=0)), INVALID, "flags", 0),
    (("x", 7, attributes(flags=COLLOCATED)), INVALID, "flags", 8),
    (("x", 7, attributes(flags=ALL | ACTIVE)), INVALID, "flags", 3),
    (("x", 7, attributes(flags=ALL | ACTIVE | WEAK)), INVALID, "flags", 7),
    (("x", 7, attributes(flags=ALL | 32)), INVALID, "flags", 33),
    (("x", 7, attributes(flags=-1)), INVALID, "flags", -1),
    (("x", 7, attributes(sections=0)), INVALID, "attributes", "max_sections"),
    (
        ("x", 7, attributes(sections=SECTIONS_MAX + 1)),
        INVALID,
        "attributes",
        "max_sections",
    ),
    (("x", 7, attributes(section=-1)), INVALID, "attributes", "max_section_size"),
    (("x", 7, attributes(section_id=0)), INVALID, "attributes", "max_section_id_size"),
    (("x", 7, attributes(section_id=-1)), INVALID, "attributes", "max_section_id_size"),
    (("x", 7, attributes(section_id=1025)), INVALID, "attributes", "max_section_id_size"),
    (("x", 7, attributes(size=401)), INVALID, "attributes", "size"),
    (("x", 7, attributes(size=-1)), INVALID, "attributes", "size"),
    (("x", 7, attributes(retention=-1)), INVALID, "attributes", "retention"),
    (("x", 7, attributes(retention=NEVER + 1)), INVALID, "attributes", "retention"),
    (("x", READ, None), NOT_EXIST, "checkpoint_missing", "x"),
]


@pytest.mark.parametrize(("fields", "code", "reason", "detail"), OPEN)
def test_open_refuses(
    client: DrivenSession, fields: Any, code: int, reason: str, detail: Any
) -> None:
    result = client.do(10, *fields)
    assert why(result) == (code, reason, None)
    assert result.value.detail == detail
    assert client.cluster.machine.revision == 0


@pytest.mark.parametrize(
    "fields",
    [
        ("x", 7, attributes(size=400)),
        ("n" * LONGEST, 7, attributes()),
        ("x", CREATE, attributes(retention=0)),
        ("x", 7, attributes(sections=1, section_id=0, section=0)),
        ("x", 7, attributes(sections=SECTIONS_MAX, section_id=1024)),
        ("x", 7, attributes(WEAK | COLLOCATED)),
        ("x", 7, attributes(ALL | COLLOCATED)),
    ],
)
def test_open_creates(client: DrivenSession, fields: Any) -> None:
    result = client.do(10, *fields)
    assert result.value == [1, 1, True, fields[2], 1]


def test_reopen_compares_all_but_retention(client: DrivenSession) -> None:
    client.open("x", fields=attributes(retention=5))
    result = client.do(10, "x", 7, attributes(retention=7))
    assert result.value == [2, 1, False, attributes(retention=5), 1]
    for changed, names in [
        (attributes(ACTIVE), ["update"]),
        (attributes(ALL | COLLOCATED), ["collocated"]),
        (attributes(WEAK | COLLOCATED, 1, 0, 5, 101, 9),
         ["update", "collocated", "size", "max_sections", "max_section_size",
          "max_section_id_size"]),
    ]:  # fmt: skip
        result = client.do(10, "x", 7, changed)
        assert why(result) == (EXIST, "attributes_differ", None)
        assert result.value.detail == names


def test_rights_of_a_handle_are_those_it_was_opened_with(client: DrivenSession) -> None:
    writer, reader, creator = (client.open("x", flags) for flags in (7, READ, CREATE))
    assert client.put(writer, b"a", b"1").ok
    for handle in (reader, creator):
        assert why(client.put(handle, b"a", b"2")) == (ACCESS, "no_right", None)
        assert why(client.do(13, handle, 0)) == (ACCESS, "no_right", None)
        assert why(client.do(14, handle, True)) == (ACCESS, "no_right", None)
    only_writer = client.open("x", WRITE)
    for handle in (creator, only_writer):
        for tag, args in [(100, [[[b"a", 0, 1]]]), (101, []), (102, []), (103, [5, 0]), (106, [])]:
            assert why(client.ask(tag, handle, *args)) == (ACCESS, "no_right", None)
    assert client.ask(100, reader, [[b"a", 0, None]]).value == [2, [b"1"]]
    for handle in (writer, reader, creator, only_writer):
        assert client.do(11, handle).ok
        assert why(client.do(11, handle)) == (BAD_HANDLE, "handle", None)


@pytest.mark.parametrize("word", ["checkpoints", "handles"])
def test_open_limits(client: DrivenSession, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    if word == "handles":
        monkeypatch.setattr(lifecycle, "HANDLES_PER_SESSION_MAX", 2)
    else:
        assert client.cluster.apply([70, 0, 0, 0, [[word, 2]], False])[0].ok
    client.open("x")
    client.open("y")
    result = client.do(10, "z", 7, attributes())
    assert why(result) == (NO_RESOURCES, "limit", None)
    assert result.value.detail == word
    assert client.cluster.names() == ["x", "y"]


# --- life of a checkpoint -------------------------------------------------------------------------


@pytest.mark.parametrize("retention", [0, 10, 10 * MS - 1])
def test_short_retention_drops_in_the_entry_of_the_last_close(
    cluster: DrivenMachine, retention: int
) -> None:
    one, two = cluster.session(), cluster.session()
    first = one.open("x", fields=attributes(retention=retention))
    second = two.open("x", READ)
    one.do(11, first)
    assert cluster.names() == ["x"]
    revision = cluster.machine.revision
    two.do(11, second)
    assert cluster.names() == []
    assert cluster.machine.revision == revision + 1
    assert cluster.machine.next_due_ns() is None


def test_retention_runs_from_the_last_close_and_a_reopen_cancels_it(cluster: DrivenMachine) -> None:
    client = cluster.session()
    handle = client.open("x", fields=attributes(retention=SECOND))
    client.put(handle, b"a", b"1")
    cluster.now += 5 * SECOND
    client.do(11, handle)
    (row,) = cluster.ask(104)
    assert row.retention_until_ns == cluster.machine.next_due_ns() == cluster.now + SECOND
    assert cluster.due(SECOND - 1) == 0
    handle = client.open("x", READ)
    (row,) = cluster.ask(104)
    assert row.retention_until_ns is None
    assert cluster.machine.next_due_ns() is None
    assert cluster.due(10 * SECOND) == 0
    assert client.all(handle) == {b"a": b"1"}
    client.do(11, handle)
    assert cluster.due(SECOND) == 1
    assert cluster.names() == []
    assert why(client.do(12, "x")) == (NOT_EXIST, "checkpoint_missing", None)
    assert client.do(10, "x", 7, attributes()).value[:3] == [3, 2, True]


def test_retention_for_ever(cluster: DrivenMachine) -> None:
    client = cluster.session()
    client.do(11, client.open("x"))
    (row,) = cluster.ask(104)
    assert row.retention_until_ns == NEVER
    assert cluster.machine.next_due_ns() is None
    assert cluster.due(10**18) == 0
    assert cluster.names() == ["x"]


def test_retention_set(client: DrivenSession) -> None:
    handle = client.open("x")
    assert why(client.do(13, 99, -1)) == (INVALID, "schema", None)
    assert why(client.do(13, handle, NEVER + 1)) == (INVALID, "schema", None)
    assert why(client.do(13, 99, 0)) == (BAD_HANDLE, "handle", None)
    assert client.do(13, handle, 0).value == 2
    assert client.ask(102, handle).value[1].attributes.retention_ns == 0
    client.do(11, handle)
    assert client.cluster.names() == []


def test_unlink_while_open(cluster: DrivenMachine) -> None:
    one, two = cluster.session(), cluster.session()
    old = one.open("x", fields=attributes(retention=NEVER))
    one.put(old, b"a", b"old")
    assert two.do(12, "x").value == 3
    assert why(two.do(12, "x")) == (NOT_EXIST, "checkpoint_missing", None)
    assert why(two.do(10, "x", READ, None)) == (NOT_EXIST, "checkpoint_missing", None)
    assert one.put(old, b"b", b"works").ok
    assert why(one.do(13, old, 0)) == (BAD_OPERATION, "unlinked", None)
    new = two.open("x", fields=attributes(sections=9))
    two.put(new, b"a", b"new")
    assert one.all(old) == {b"a": b"old", b"b": b"works"}
    assert two.all(new) == {b"a": b"new"}
    assert [(row.uid, row.unlinked) for row in cluster.ask(104)] == [(1, True), (2, False)]
    one.do(11, old)
    assert [row.uid for row in cluster.ask(104)] == [2]


def test_unlink_of_a_retained_checkpoint_destroys_it_at_once(cluster: DrivenMachine) -> None:
    client = cluster.session()
    client.do(11, client.open("x", fields=attributes(retention=SECOND)))
    assert client.do(12, "x").value == 2
    assert cluster.ask(104) == []
    assert cluster.machine.next_due_ns() is None


# --- sessions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "reason", "detail"),
    [
        ((b"s" * 15, "", "", SECOND, 0), INVALID, "schema", "secret"),
        ((b"s" * 16, "n" * 257, "", SECOND, 0), TOO_BIG, "limit", "name"),
        ((b"s" * 16, "", "n" * 65, SECOND, 0), TOO_BIG, "limit", "node"),
        (
            (b"s" * 16, "", "", contract.SESSION_TIMEOUT_NS_MIN - 1, 0),
            INVALID,
            "param",
            "timeout_ns",
        ),
        (
            (b"s" * 16, "", "", contract.SESSION_TIMEOUT_NS_MAX + 1, 0),
            INVALID,
            "param",
            "timeout_ns",
        ),
        ((b"s" * 16, "", "", SECOND, -1), INVALID, "param", "grace_ns"),
        (
            (b"s" * 16, "", "", SECOND, contract.SESSION_TIMEOUT_NS_MAX + 1),
            INVALID,
            "param",
            "grace_ns",
        ),
    ],
)
def test_session_open_refuses(
    cluster: DrivenMachine, fields: Any, code: int, reason: str, detail: str
) -> None:
    (result,) = cluster.apply([1, 0, 0, 0, *fields])
    assert why(result) == (code, reason, None)
    assert result.value.detail == detail
    assert not cluster.machine.sessions


def test_sessions_are_limited(cluster: DrivenMachine) -> None:
    assert cluster.apply([70, 0, 0, 0, [["sessions", 1]], False])[0].value == "done"
    first = cluster.session()
    command = [1, 0, 0, 0, b"t" * 16, "", "", SECOND, 0]
    assert why(cluster.apply(command)[0]) == (NO_RESOURCES, "limit", None)
    first.do(2)
    assert cluster.apply(command)[0].value == [2]  # numbers are never used again


@pytest.mark.parametrize("how", ["close", "expire"])
def test_end_of_a_session_is_an_implicit_finalize(cluster: DrivenMachine, how: str) -> None:
    one, two = cluster.session(), cluster.session()
    gone = one.open("gone", fields=attributes(retention=0))
    kept = one.open("kept", fields=attributes(retention=SECOND))
    one.open("kept")
    shared = one.open("shared", fields=attributes(retention=0))
    two.open("shared")
    one.do(26, 1, 0, b"staged")
    assert cluster.machine.staged_bytes == 6
    if how == "close":
        assert one.do(2).ok
    else:
        assert cluster.apply([3, 0, 0, 0, [one.id, 99, one.id]])[0].value == 1
    assert cluster.names() == ["kept", "shared"]
    assert cluster.machine.staged_bytes == 0
    assert cluster.machine.next_due_ns() == cluster.now + SECOND
    for handle in (gone, kept, shared):
        assert why(one.do(11, handle)) == (BAD_HANDLE, "session", None)
    assert why(one.ask(101, kept)) == (BAD_HANDLE, "session", None)
    assert cluster.due(SECOND) == 1
    assert cluster.names() == ["shared"]
    assert [o[0] for o in cluster.ask(102, "shared").openers] == [two.id]


def test_openers_count_handles_by_right(cluster: DrivenMachine) -> None:
    one, two = cluster.session("n1", "one"), cluster.session("n2", "two")
    handles = [two.open("x", flags) for flags in (7, READ, WRITE, CREATE)]
    one.open("x", READ)
    assert cluster.ask(102, "x").openers == [(1, "one", "n1", 1, 0), (2, "two", "n2", 2, 2)]
    two.do(11, handles[0])
    two.do(11, handles[3])
    assert cluster.ask(102, "x").openers == [(1, "one", "n1", 1, 0), (2, "two", "n2", 1, 1)]


# --- active replica -------------------------------------------------------------------------------


def all_content_calls(client: DrivenSession, handle: int) -> list[Any]:
    return [
        client.create(handle, b"new"),
        client.do(21, handle, b"a"),
        client.do(22, handle, b"a", NEVER, None),
        client.do(23, handle, b"a", b""),
        client.put(handle, b"a", b""),
        client.write(handle, [b"a", 0, b""]),
    ]


def all_reads(client: DrivenSession, handle: int) -> list[Any]:
    return [
        client.ask(100, handle, [[b"a", 0, 1]]),
        client.ask(101, handle),
        client.ask(102, handle),
        client.ask(103, handle, 5, 0),
        client.ask(105, handle, b"a"),
        client.ask(106, handle),
    ]


def test_collocated_asynchronous_has_no_active_replica_until_somebody_sets_it(
    cluster: DrivenMachine,
) -> None:
    one, two = cluster.session("n1"), cluster.session("n2")
    mine = one.open("x", fields=attributes(WEAK | COLLOCATED))
    theirs = two.open("x", READ | WRITE)
    for result in all_content_calls(one, mine) + all_reads(one, mine):
        assert why(result) == (NOT_EXIST, "no_active", None)
    assert cluster.ask(102, "x").active is None  # the operator sees it all the same
    assert one.do(14, mine, False).value == [1, 2]
    assert one.do(14, mine, False).value == [1, 2]  # idempotent
    assert one.put(mine, b"a", b"1").ok
    assert two.put(theirs, b"a", b"2").ok  # not exclusive: nobody is fenced
    assert two.do(14, theirs, False).value == [2, 5]
    assert cluster.ask(102, "x").active == (two.id, "n2")
    two.do(11, theirs)
    row = cluster.ask(102, "x")
    assert (row.active, row.epoch, row.revision) == (None, 2, 6)
    for result in all_content_calls(one, mine):
        assert why(result) == (NOT_EXIST, "no_active", None)


def test_active_stays_while_its_node_has_an_opener(cluster: DrivenMachine) -> None:
    one, two, far = cluster.session("n1"), cluster.session("n1"), cluster.session("n2")
    mine = one.open("x", fields=attributes(ACTIVE | COLLOCATED))
    again = one.open("x", READ)
    beside = two.open("x", READ | WRITE)
    far.open("x", READ)
    one.do(14, mine, False)
    one.do(11, mine)
    one.do(11, again)
    assert cluster.ask(102, "x").active == (one.id, "n1")
    assert two.put(beside, b"a", b"1").ok
    cluster.apply([3, 0, 0, 0, [two.id]])
    assert cluster.ask(102, "x").active is None


@pytest.mark.parametrize("flags", [ALL, ALL | COLLOCATED, ACTIVE, WEAK])
def test_only_collocated_asynchronous_has_to_be_set(client: DrivenSession, flags: int) -> None:
    handle = client.open("x", fields=attributes(flags))
    assert client.put(handle, b"a", b"1").ok
    assert why(client.do(14, 99, False)) == (BAD_HANDLE, "handle", None)
    assert why(client.do(14, handle, False)) == (BAD_OPERATION, "not_collocated", None)
    assert client.do(14, handle, True).value == [1, 3]


# --- fencing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [ALL, WEAK | COLLOCATED])
def test_takeover_fences_the_former_owner(cluster: DrivenMachine, flags: int) -> None:
    one, two = cluster.session("n1"), cluster.session("n2")
    mine = one.open("x", fields=attributes(flags))
    theirs = two.open("x", READ | WRITE)
    assert one.do(14, mine, True).value[0] == 1
    assert one.put(mine, b"a", b"1").ok
    assert two.do(14, theirs, True).value[0] == 2
    for result in [*all_content_calls(one, mine), one.do(13, mine, 0)]:
        assert why(result) == (ACCESS, "fenced", None)
        assert result.value.detail == 2
    assert all(result.ok for result in all_reads(one, mine))
    assert two.put(theirs, b"a", b"2").ok
    row = cluster.ask(102, "x")
    assert (row.exclusive, row.epoch, row.active) == (True, 2, (two.id, "n2"))
    cluster.apply([3, 0, 0, 0, [two.id]])  # the owner dies: still fenced
    for result in all_content_calls(one, mine):
        assert why(result) == (ACCESS, "fenced", None)
    assert one.do(14, mine, True).value[0] == 3
    assert one.put(mine, b"a", b"3").ok
    assert cluster.session().do(12, "x").ok  # unlink needs no right
    assert one.do(11, mine).ok


def test_non_exclusive_set_lifts_the_fence_of_a_collocated_checkpoint(
    cluster: DrivenMachine,
) -> None:
    one, two = cluster.session("n1"), cluster.session("n2")
    mine = one.open("x", fields=attributes(WEAK | COLLOCATED))
    theirs = two.open("x", READ | WRITE)
    one.do(14, mine, True)
    assert why(two.put(theirs, b"a", b"")) == (ACCESS, "fenced", None)
    assert one.do(14, mine, False).value[0] == 2
    assert two.put(theirs, b"a", b"").ok


# --- due work -------------------------------------------------------------------------------------


def test_due_is_bounded_and_first_things_come_first(
    cluster: DrivenMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "DUE_PER_ENTRY_MAX", 2)
    client = cluster.session()
    handle = client.open("x", fields=attributes(sections=9))
    for number, ttl in enumerate([30, 10, 20, 40]):
        client.create(handle, b"%d" % number, ttl=ttl * MS)
    client.do(11, client.open("y", fields=attributes(retention=15 * MS)))
    revision = cluster.machine.revision
    assert cluster.due(30 * MS) == 2
    assert (sorted(client.all(handle)), cluster.names()) == ([b"0", b"2", b"3"], ["x"])
    assert cluster.machine.revision == revision + 2  # one each
    assert cluster.due() == 2
    assert sorted(client.all(handle)) == [b"3"]
    assert cluster.due() == 0
    assert cluster.machine.next_due_ns() is not None


def test_what_is_due_stays_visible_until_the_entry_that_takes_it(cluster: DrivenMachine) -> None:
    client = cluster.session()
    handle = client.open("x")
    client.create(handle, b"a", b"1", ttl=10 * MS)
    cluster.now += SECOND
    assert client.put(handle, b"b", b"").ok  # a later stamp alone changes nothing
    assert client.all(handle) == {b"a": b"1", b"b": b""}
    assert cluster.due() == 1
    assert client.all(handle) == {b"b": b""}


def test_cluster_time_never_goes_back(cluster: DrivenMachine) -> None:
    client = cluster.session()
    now = cluster.now
    handle = client.open("x")
    cluster.now -= 100 * SECOND
    client.put(handle, b"a", b"")
    assert cluster.machine.now_ns == now
    (row,) = client.ask(103, handle, 5, 0).value[1]
    assert row.updated_ns == now


def test_check_remembers_the_entry(cluster: DrivenMachine) -> None:
    for number in range(20):
        assert cluster.apply([41, 0, 0, 0, b"%d" % number])[0].ok
    assert list(cluster.machine.check_nonces)[-1] == (b"19", 20)
    assert len(cluster.machine.check_nonces) == 8


def test_a_destroyed_checkpoint_is_freed_little_by_little(cluster: DrivenMachine) -> None:
    client = cluster.session()
    handle = client.open("x", fields=attributes(sections=10_000, retention=0))
    for number in range(100):
        client.create(handle, b"%d" % number, ttl=SECOND)
    client.do(11, handle)
    machine = cluster.machine
    client.open("big", fields=attributes(sections=10_000, retention=0))
    checkpoint = machine.names["big"]
    checkpoint.sections.update({b"%d" % n: (b"", NEVER, 0, 1) for n in range(9_000)})
    client.do(11, 2)
    assert machine.sweep(1000)
    assert machine.sweep(1000)
    assert not machine.sweep(100_000)
    assert not machine.sweep(1)

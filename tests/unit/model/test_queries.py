"""Queries: values, filters, refusals in order, malformed arguments."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.model.queries import EAGER_ROWS, image_rows
from raftckpt.model.values import Pages
from raftckpt.protocol.contract import PAGE_BYTES
from tests.messages import QUERY_TAGS, ask

from .driver import (
    ACTIVE,
    COLLOCATED,
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

INVALID, BAD_HANDLE, ACCESS, NOT_EXIST, EXIST, NO_RESOURCES = 7, 9, 11, 12, 14, 18
NOT_SUPPORTED, BAD_OPERATION = 19, 20
B01 = 16


@pytest.fixture
def client() -> DrivenSession:
    """Handle 1 of "x" with a = 12345, b empty; 2 of it for writing only."""
    client = DrivenMachine().session()
    client.open("x", fields=attributes(sections=9, section=3 * PAGE_BYTES))
    client.open("x", WRITE)
    client.put(1, b"a", b"12345")
    client.put(1, b"b", b"")
    return client


@pytest.mark.parametrize("target", [1, "x"])
def test_values(client: DrivenSession, target: Any) -> None:
    def ask(tag: int, *args: Any) -> Any:
        result = client.ask(tag, target, *args)
        assert result.ok, result
        return result.value

    vector = [[b"a", 0, None], [b"a", 1, 2], [b"a", 3, 99], [b"a", 5, None], [b"b", 0, 0]]
    assert ask(100, vector) == [3, [b"12345", b"23", b"45", b"", b""]]
    assert ask(101) == [3, [[b"a", b"12345"], [b"b", b""]]]
    assert ask(105, b"a") == [2, b"12345"]
    assert ask(106) == [3, [b"a", b"b"]]
    now = client.cluster.now
    assert ask(103, 5, 0) == [3, [(b"a", NEVER, 5, 1, now, 2), (b"b", NEVER, 0, 1, now, 3)]]
    revision, row = ask(102)
    assert revision == 3
    assert (row.uid, row.name, row.sections, row.memory_used) == (1, "x", 2, 5)
    assert (row.created_ns, row.revision, row.retention_until_ns) == (now, 3, None)
    assert client.ask(104).value == [3, [row]]


def test_large_data_is_not_joined(client: DrivenSession) -> None:
    data = bytes(k % 251 for k in range(3 * PAGE_BYTES))
    client.put(1, b"a", data)
    _, (whole, part, small) = client.ask(
        100, 1, [[b"a", 0, None], [b"a", 100, 2 * PAGE_BYTES], [b"a", 9, PAGE_BYTES]]
    ).value
    assert isinstance(whole, Pages)
    assert isinstance(part, Pages)
    assert [len(whole), len(part)] == [3 * PAGE_BYTES, 2 * PAGE_BYTES]
    assert b"".join(whole.pieces()) == data
    assert b"".join(part.pieces()) == data[100 : 100 + 2 * PAGE_BYTES]
    assert small == data[9 : 9 + PAGE_BYTES]
    assert client.ask(101, 1).value[1][0][1] is whole
    client.write(1, [b"a", 0, b"later"])
    assert bytes(whole) == data  # what was read stays what it was


READS = [
    (([7],), INVALID, "schema", None),
    (([[b"a", 0, 1], ["a", 0, 1]],), INVALID, "schema", None),
    (([[b"a", -1, 1]],), INVALID, "schema", None),
    (([[b"a", 0, -1]],), INVALID, "schema", None),
    (([[b"z", 3 * PAGE_BYTES, 1]],), INVALID, "section_too_big", 0),
    (([[b"a", 0, 1], [b"z", 0, 1]],), NOT_EXIST, "section_missing", 1),
    (([[b"a", 6, None]],), INVALID, "offset", 0),
    (([[b"a", 0, 1]] * 4097,), NO_RESOURCES, "limit", None),
]


@pytest.mark.parametrize(("args", "code", "reason", "position"), READS)
def test_read_refuses(
    client: DrivenSession, args: Any, code: int, reason: str, position: int | None
) -> None:
    assert why(client.ask(100, 1, *args)) == (code, reason, position)


@pytest.mark.parametrize("more", [0, EAGER_ROWS])
def test_rows_of_an_image(client: DrivenSession, more: int) -> None:
    client.open("y", fields=attributes(sections=more + 2))
    client.create(3, b"a", b"data", ttl=SECOND)
    for number in range(more):
        client.create(3, b"%d" % number, b"x")
    state = client.cluster.machine
    (checkpoint,) = (c for c in state.checkpoints.values() if c.name == "y")
    found = image_rows(state, checkpoint)
    if more:  # of many sections a row is made when it is asked for
        for _ in found.prepare():
            pass
        found = found.rows()
    rows = [list(row) for row in found]
    assert rows[0] == [b"a", b"data", client.cluster.now + SECOND]
    assert rows[1:] == [[b"%d" % number, b"x", NEVER] for number in range(more)]


def test_targets_refuse(client: DrivenSession) -> None:
    assert why(client.ask(101, "none")) == (NOT_EXIST, "checkpoint_missing", None)
    assert why(client.ask(101, 9)) == (BAD_HANDLE, "handle", None)
    assert why(client.ask(101, 2)) == (ACCESS, "no_right", None)
    assert why(client.ask(105, 1, b"z")) == (NOT_EXIST, "section_missing", None)
    machine = client.cluster.machine
    for session in (None, 99):
        assert why(ask(machine, session, 101, 1)) == (BAD_HANDLE, "session", None)


@pytest.mark.parametrize("tag", sorted(QUERY_TAGS))
@pytest.mark.parametrize(
    "args", [[7.0], [None, None, 1], [1, 2, 3, 4], [1.5], [True], [[], []], [1, "x", 1]]
)
def test_malformed_queries_are_refused(client: DrivenSession, tag: int, args: Any) -> None:
    assert why(ask(client.cluster.machine, 1, tag, *args)) == (INVALID, "schema", None)


def test_iteration_filters(client: DrivenSession) -> None:
    now = client.cluster.now
    client.create(1, b"soon", expiration=now + SECOND)
    client.create(1, b"late", expiration=now + 9 * SECOND)

    def ids(chosen: int, time: int) -> list[bytes]:
        return [row.section_id for row in client.ask(103, 1, chosen, time).value[1]]

    forever = [b"a", b"b"]
    assert ids(1, 0) == forever
    assert ids(2, now + SECOND) == [b"soon"]
    assert ids(2, now + SECOND - 1) == []
    assert ids(2, NEVER) == [*forever, b"soon", b"late"]
    assert ids(3, now + 2 * SECOND) == [*forever, b"late"]
    assert ids(3, now + 9 * SECOND) == [*forever, b"late"]
    assert ids(4, 0) == []
    assert ids(5, 0) == [*forever, b"soon", b"late"]
    for chosen, time, reason in [
        (0, 0, "param"),
        (6, 0, "param"),
        (5, -1, "schema"),
        (5, NEVER + 1, "schema"),
    ]:
        assert why(client.ask(103, 1, chosen, time)) == (INVALID, reason, None)


def test_default_section_is_never_found_by_leq(client: DrivenSession) -> None:
    handle = client.open("one", READ | 4, attributes(sections=1))
    found = [bool(client.ask(103, handle, chosen, NEVER).value[1]) for chosen in range(1, 6)]
    assert found == [True, False, True, False, True]


def test_where_tracking_begins(client: DrivenSession) -> None:
    machine = client.cluster.machine
    assert client.ask(113, None).value == [machine.revision, 0]
    uid = machine.names["x"].uid
    assert client.ask(113, "x").value == client.ask(113, 1).value == [machine.revision, uid]
    assert why(client.ask(113, 2)) == (ACCESS, "no_right", None)
    assert why(client.ask(113, "none")) == (NOT_EXIST, "checkpoint_missing", None)


def test_tracking_needs_no_active_replica() -> None:
    client = DrivenMachine().session()
    handle = client.open(fields=attributes(flags=ACTIVE | COLLOCATED))
    assert why(client.ask(102, handle)) == (NOT_EXIST, "no_active", None)
    assert client.ask(113, handle).ok


# --- what the SA Forum library asks -----------------------------------------------------------


def test_statuses_of_named_sections(client: DrivenSession) -> None:
    client.create(1, b"x", b"123")
    rows = client.ask(108, 1, [b"x", b"gone", b"x"]).value[1]
    assert [(row.section_id, row.size) for row in rows] == [(b"x", 3), (b"x", 3)]
    assert why(client.ask(108, 1, [b"x"] * 4097)) == (NO_RESOURCES, "limit", None)


def test_synchronize_asks_for_right_option_and_active_replica() -> None:
    client = DrivenMachine().session()
    client.open("all")
    client.open("weak", fields=attributes(WEAK | COLLOCATED))
    client.open("weak", READ)
    assert why(client.ask(109, 9)) == (BAD_HANDLE, "handle", None)
    assert why(client.ask(109, 3)) == (ACCESS, "no_right", None)
    assert why(client.ask(109, 1)) == (BAD_OPERATION, "synchronous", None)
    assert why(client.ask(109, 2)) == (NOT_EXIST, "no_active", None)
    client.do(14, 2, False)
    assert client.ask(109, 2).ok


def test_handles_of_b01_need_no_right_to_look() -> None:
    client = DrivenMachine().session()
    client.open("x")
    blind = client.open("x", WRITE)
    old = client.open("x", WRITE | B01)
    for tag, args in [(102, []), (103, [5, 0]), (108, [[]])]:
        assert why(client.ask(tag, blind, *args)) == (ACCESS, "no_right", None)
        assert client.ask(tag, old, *args).ok
    assert why(client.ask(101, old)) == (ACCESS, "no_right", None)


def test_handles_of_b01_set_the_retention_without_a_right_and_match_it() -> None:
    client = DrivenMachine().session()
    client.open("x", fields=attributes(retention=SECOND))
    assert client.do(10, "x", 7, attributes(retention=2 * SECOND)).ok
    again = client.do(10, "x", 7 | B01, attributes(retention=2 * SECOND))
    assert why(again) == (EXIST, "attributes_differ", None)
    reader, old = client.open("x", READ), client.open("x", READ | B01)
    assert why(client.do(13, reader, 5)) == (ACCESS, "no_right", None)
    assert client.do(13, old, 2 * SECOND).ok
    assert client.do(10, "x", 7 | B01, attributes(retention=2 * SECOND)).ok

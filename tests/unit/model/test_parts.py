"""Conditions, appends and transactions: refusals in their order, all or nothing, what is told."""

from __future__ import annotations

from typing import Any, Final

import pytest

from raftckpt.model.changes import ChangeKind, replay
from raftckpt.model.image import digest
from raftckpt.model.queries import EAGER_ROWS
from raftckpt.model.values import Pages
from raftckpt.protocol.contract import (
    INLINE_WRITE_BYTES_MAX,
    PAGE_BYTES,
    STAGE_CHUNK_BYTES,
    VECTOR_ELEMENTS_MAX,
    WRITE_BYTES_MAX,
)
from raftckpt.protocol.operations import EARLY, STRUCTURAL, CheckpointTransaction, SectionChange
from tests.messages import command as record_of
from tests.messages import validate

from .driver import (
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

INVALID, BAD_HANDLE, ACCESS, NOT_EXIST, EXIST, NO_SPACE, NO_RESOURCES = 7, 9, 11, 12, 14, 15, 18
BAD_OPERATION: Final = 20
ONE, ALL = 28, 29
BIG = b"x" * 101


def create(
    section_id: bytes | None, data: Any = b"", at: int = NEVER, ttl: int | None = None
) -> list[Any]:
    return [1, section_id, 0, data, None, at, ttl]


def part(
    kind: int, section_id: bytes, data: Any = b"", offset: int = 0, if_revision: int | None = None
) -> list[Any]:
    return [kind, section_id, offset, data, if_revision, NEVER, None]


def put(section_id: bytes, data: Any = b"", if_revision: int | None = None) -> list[Any]:
    return part(2, section_id, data, 0, if_revision)


def overwrite(section_id: bytes, data: Any = b"", if_revision: int | None = None) -> list[Any]:
    return part(3, section_id, data, 0, if_revision)


def write(section_id: bytes, offset: int, data: Any, if_revision: int | None = None) -> list[Any]:
    return part(4, section_id, data, offset, if_revision)


def append(section_id: bytes, data: Any, if_revision: int | None = None) -> list[Any]:
    return part(5, section_id, data, 0, if_revision)


def delete(section_id: bytes, if_revision: int | None = None) -> list[Any]:
    return part(6, section_id, b"", 0, if_revision)


@pytest.fixture
def client() -> DrivenSession:
    """Handles: 1 "full" (a, b of 2) read-write, 2 reader of it, 3 without active, 4 default.

    5 "open" with x = "12345" at revision 6 and y empty at 7, room for four sections.
    """
    client = DrivenMachine().session()
    client.open("full", fields=attributes(sections=2))
    client.open("full", READ)
    client.open("idle", fields=attributes(WEAK | COLLOCATED))
    client.open("default", fields=attributes(sections=1))
    client.open("open")
    client.put(1, b"a", b"12345")
    client.put(1, b"b", b"")
    client.put(5, b"x", b"12345")
    client.put(5, b"y", b"")
    return client


def revision_of(client: DrivenSession, handle: int, section_id: bytes) -> int:
    result = client.ask(105, handle, section_id)
    return result.value[0] if result.ok else 0


def essence(client: DrivenSession) -> Any:
    """All that a refusal must leave alone: the state without numbers of commands and replies."""
    machine = client.cluster.machine
    return machine.revision, machine.staged_bytes, machine.next_due_ns(), [
        (c.uid, c.generated, c.memory_used, c.revision, c.corrupted, [*c.sections.items()])
        for c in machine.checkpoints.values()
    ]  # fmt: skip


def followed(client: DrivenSession, *commands: tuple[Any, ...]) -> list[Any]:
    """Do commands; what is told must replay to the state, and the image must hold it all."""
    machine = client.cluster.machine
    copies = {
        uid: {i: (row[0], row[1]) for i, row in checkpoint.sections.items()}
        for uid, checkpoint in machine.checkpoints.items()
    }
    told = []
    for tag, *fields in commands:
        result = client.do(tag, *fields)
        assert result.ok, result
        for change in machine.changes:
            replay(copies[change[0]], change)
        told += machine.changes
        for uid, checkpoint in machine.checkpoints.items():
            sections = checkpoint.sections
            assert [(i, bytes(c), due) for i, (c, due) in copies[uid].items()] == [
                (i, bytes(row[0]), row[1]) for i, row in sections.items()
            ]
            assert checkpoint.memory_used == sum(len(row[0]) for row in sections.values())
        assert digest(client.cluster.restored().freeze()) == digest(machine.freeze())
    return told


# --- the form: nothing that is accepted is ignored -----------------------------------------------

MALFORMED = [
    [0, b"a", 0, b"", None, NEVER, None],
    [7, b"a", 0, b"", None, NEVER, None],
    [2, None, 0, b"", None, NEVER, None],
    [2, b"a", 1, b"", None, NEVER, None],
    [2, b"a", 0, b"", None, 5, None],
    [2, b"a", 0, b"", None, NEVER, 5],
    [5, b"a", 1, b"x", None, NEVER, None],
    [6, b"a", 0, b"x", None, NEVER, None],
    [6, b"a", 0, 9, None, NEVER, None],
    [1, b"a", 1, b"", None, NEVER, None],
    [1, None, 0, b"", 0, NEVER, None],
    [1, b"a", 0, b"", None, 5, 5],
    [1, b"a", 0, b"", -1, NEVER, None],
    [1, b"a", -1, b"", None, NEVER, None],
    [1, b"a", 0, b"", None, -1, None],
    [1, b"a", 0, b"", None, NEVER],
    [1, "a", 0, b"", None, NEVER, None],
    [1, b"a", 0, b"", True, NEVER, None],
]


@pytest.mark.parametrize("wrong", MALFORMED)
def test_what_does_nothing_is_refused(client: DrivenSession, wrong: Any) -> None:
    before = essence(client)
    for refused in (validate([ONE, 1, 1, 0, 1, wrong]), validate([ALL, 1, 1, 0, 1, [wrong]])):
        assert refused is not None
        assert why(refused) == (INVALID, "schema", None)
    assert why(client.do(ALL, 5, [put(b"x"), wrong])) == (INVALID, "schema", None)
    assert essence(client) == before


def test_bounds_of_what_travels_in_it() -> None:
    half = bytes(INLINE_WRITE_BYTES_MAX // 2 + 1)
    assert validate([ALL, 1, 1, 0, 1, [put(b"a", half)]]) is None
    for parts, reason in (
        ([put(b"a", half), put(b"b", half)], "write_too_big"),
        ([put(b"a", half + half)], "write_too_big"),
        ([put(b"a")] * (VECTOR_ELEMENTS_MAX + 1), "limit"),
    ):
        refused = validate([ALL, 1, 1, 0, 1, parts])
        assert refused is not None
        assert why(refused) == (NO_RESOURCES, reason, None)
    empty = validate([ALL, 1, 1, 0, 1, []])
    assert empty is not None
    assert why(empty) == (INVALID, "param", None)


def test_they_are_never_accepted_early() -> None:
    assert not {SectionChange, CheckpointTransaction} & EARLY
    assert {SectionChange, CheckpointTransaction} <= STRUCTURAL


def test_early_acceptance_knows_what_they_are_about(client: DrivenSession) -> None:
    machine = client.cluster.machine
    for fields in ([ONE, client.id, 1, 0, 5, put(b"x")], [ALL, client.id, 1, 0, 5, [put(b"x")]]):
        assert machine.target_uid(record_of(fields)) == 4


# --- refusals in their order ---------------------------------------------------------------------

# (handle, part), code, reason; each also has what the later ones are refused for
REFUSALS: list[tuple[int, list[Any], int, str]] = [
    (9, put(b"a", BIG, 99), BAD_HANDLE, "handle"),
    (2, put(b"a", BIG, 99), ACCESS, "no_right"),
    (3, put(b"a", BIG, 99), NOT_EXIST, "no_active"),
    (1, put(b"a", BIG, 99), BAD_OPERATION, "conflict"),
    (1, put(b"z", BIG, 99), BAD_OPERATION, "conflict"),
    (1, put(b"a", BIG, 0), BAD_OPERATION, "conflict"),
    (1, put(b"z", BIG), INVALID, "section_too_big"),
    (1, put(b"123456789"), INVALID, "section_id"),
    (1, put(b""), INVALID, "section_id"),
    (1, put(b"z"), NO_SPACE, "sections_full"),
    (4, put(b"z"), NO_SPACE, "sections_full"),
    (4, create(b"z", BIG), INVALID, "section_too_big"),
    (4, create(b"123456789"), EXIST, "default_section"),
    (4, create(None), EXIST, "default_section"),
    (1, create(b"a"), EXIST, "section_exists"),
    (1, create(b"123456789"), INVALID, "section_id"),
    (1, create(b""), INVALID, "section_id"),
    (1, create(b"z"), NO_SPACE, "sections_full"),
    (1, create(None), NO_SPACE, "sections_full"),
    (1, overwrite(b"z", BIG), INVALID, "section_too_big"),
    (1, overwrite(b"z", b"", 0), NOT_EXIST, "section_missing"),
    (1, write(b"z", 0, BIG), INVALID, "section_too_big"),
    (1, write(b"z", 99, b"xx"), NOT_EXIST, "section_missing"),
    (1, write(b"a", 99, b"xx"), NO_RESOURCES, "section_too_big"),
    (1, write(b"a", (1 << 63) - 1, b""), NO_RESOURCES, "section_too_big"),
    (1, append(b"a", bytes(96)), NO_RESOURCES, "section_too_big"),
    (1, append(b"z", BIG), INVALID, "section_too_big"),
    (1, append(b"123456789", b""), INVALID, "section_id"),
    (1, append(b"z", b""), NO_SPACE, "sections_full"),
    (4, delete(b""), INVALID, "default_section"),
    (1, delete(b"z"), NOT_EXIST, "section_missing"),
    (1, delete(b""), NOT_EXIST, "section_missing"),
    (1, put(b"a", 7), INVALID, "stage"),
    (9, put(b"a", 7), INVALID, "stage"),
]


@pytest.mark.parametrize(("handle", "wrong", "code", "reason"), REFUSALS)
def test_refusals_leave_no_trace(
    client: DrivenSession, handle: int, wrong: Any, code: int, reason: str
) -> None:
    before = essence(client)
    assert why(client.do(ONE, handle, wrong)) == (code, reason, None)
    of_handle = reason in ("handle", "no_right", "no_active")
    assert why(client.do(ALL, handle, [wrong])) == (code, reason, None if of_handle else 0)
    good = [append(b"a", b"6"), put(b"a", b"12345")]
    if handle == 1:  # an execution part by part would leave these
        position = 0 if reason == "stage" else 2
        found = why(client.do(ALL, 1, [*good, wrong] if position else [wrong, *good]))
        assert found == (code, reason, position)
    assert essence(client) == before
    assert client.cluster.machine.changes == []


def test_a_refused_transaction_gives_generated_ids_back(client: DrivenSession) -> None:
    checkpoint = client.cluster.machine.checkpoints[4]
    refused = client.do(ALL, 5, [create(None), create(None), delete(b"z")])
    assert why(refused) == (NOT_EXIST, "section_missing", 2)
    assert checkpoint.generated == 0
    assert why(client.do(ONE, 1, create(None)))[1] == "sections_full"
    assert client.cluster.machine.checkpoints[1].generated == 0
    _, results = client.do(ALL, 5, [create(None), create(None)]).value
    assert results == [b"\0\0\0\0", b"\0\0\0\1"]
    assert checkpoint.generated == 2


def test_a_fence_and_a_deposed_session(client: DrivenSession) -> None:
    other = client.cluster.session("n2")
    other.open("open", WRITE)
    other.do(14, 1, True)
    assert why(client.do(ONE, 5, put(b"x", b"", 99))) == (ACCESS, "fenced", None)
    assert why(client.do(ALL, 5, [put(b"x")])) == (ACCESS, "fenced", None)
    assert other.do(ALL, 1, [put(b"x")]).ok


# --- conditions ----------------------------------------------------------------------------------


def test_a_condition_is_the_sections_own_revision(client: DrivenSession) -> None:
    found = revision_of(client, 5, b"x")
    client.put(5, b"y", b"other section")
    assert client.cluster.machine.revision != found
    refused = client.do(ONE, 5, put(b"x", b"", found - 1))
    assert why(refused) == (BAD_OPERATION, "conflict", None)
    assert refused.value.detail == found
    assert client.do(ONE, 5, put(b"new", b"", 7)).value.detail == 0
    assert client.do(ONE, 5, append(b"x", b"67", found)).ok
    assert client.do(ONE, 5, append(b"x", b"67", found)).value.detail == found + 3
    assert client.do(ONE, 5, put(b"new", b"n", 0)).ok
    assert why(client.do(ONE, 5, put(b"new", b"n", 0)))[1] == "conflict"
    for change in (overwrite, append, put):
        assert client.do(ONE, 5, change(b"x", b"1", revision_of(client, 5, b"x"))).ok
    assert client.do(ONE, 5, write(b"x", 1, b"2", revision_of(client, 5, b"x"))).ok
    assert client.all(5)[b"x"] == b"12"
    assert client.do(ONE, 5, delete(b"x", revision_of(client, 5, b"x"))).ok
    assert b"x" not in client.all(5)


@pytest.mark.parametrize("tag", [22, 27])
def test_every_change_of_a_section_counts(client: DrivenSession, tag: int) -> None:
    """A new expiration or a corruption: what was read is not what there is."""
    found = revision_of(client, 5, b"x")
    assert client.do(tag, 5, b"x", *([NEVER - 1, None] if tag == 22 else [])).ok
    assert why(client.do(ONE, 5, put(b"x", b"", found)))[1] == "conflict"


def test_conditions_are_judged_by_the_state_before_and_first(client: DrivenSession) -> None:
    x, y = revision_of(client, 5, b"x"), revision_of(client, 5, b"y")
    # the second condition would not hold behind the first part; the impossible part comes later
    parts = [put(b"x", b"1", x), append(b"x", b"2", x), put(b"n", b"3", 0), put(b"n", b"4", 0)]
    revision, results = client.do(ALL, 5, parts).value
    assert results == [None, 1, None, None]
    assert client.all(5) == {b"x": b"12", b"y": b"", b"n": b"4"}
    refused = client.do(ALL, 5, [delete(b"missing"), put(b"y", b"", y), put(b"x", b"", x)])
    assert why(refused) == (BAD_OPERATION, "conflict", 2)
    assert refused.value.detail == revision
    refused = client.do(ALL, 5, [put(b"y", b"", 1), put(b"x", b"", 1), put(b"z", BIG)])
    assert why(refused) == (BAD_OPERATION, "conflict", 0)
    assert refused.value.detail == y


# --- parts in their order ------------------------------------------------------------------------


def test_each_part_is_judged_by_what_those_before_made(client: DrivenSession) -> None:
    before = client.cluster.machine.revision
    parts = [
        create(b"n", b"abc"),
        append(b"n", b"def"),
        write(b"n", 1, b"X"),
        delete(b"x"),
        append(b"x", b"fresh"),
        put(b"m", b"1"),
        delete(b"m"),
        write(b"y", 3, b"z"),
        overwrite(b"n", b"over"),
        append(b"n", b"!"),
    ]
    (told,) = followed(client, (ALL, 5, parts))
    assert client.all(5) == {b"y": b"\0\0\0z", b"n": b"over!", b"x": b"fresh"}
    # x is another one than before, the youngest; the order of creation is that of the listing
    assert client.ask(106, 5).value[1] == [b"y", b"n", b"x"]
    assert told[:5] == (4, before + 1, ChangeKind.TRANSACTION, client.id, None)
    assert [row[:3] for row in told[5]] == [
        (2, b"n", 0), (3, b"n", 3), (3, b"n", 1), (5, b"x", 0), (2, b"x", 0), (2, b"m", 0),
        (5, b"m", 0), (3, b"y", 3), (4, b"n", 0), (3, b"n", 4),
    ]  # fmt: skip
    assert {revision_of(client, 5, i) for i in (b"y", b"n", b"x")} == {before + 1}


@pytest.mark.parametrize(
    ("parts", "reason", "position"),
    [
        ([delete(b"x"), overwrite(b"x")], "section_missing", 1),
        ([delete(b"x"), delete(b"x")], "section_missing", 1),
        ([delete(b"x"), write(b"x", 0, b"1")], "section_missing", 1),
        ([put(b"n"), create(b"n")], "section_exists", 1),
        ([put(b"n"), put(b"m"), put(b"o")], "sections_full", 2),
        ([append(b"x", bytes(95)), append(b"x", b"1")], "section_too_big", 1),
    ],
)
def test_and_refused_by_it(client: DrivenSession, parts: Any, reason: str, position: int) -> None:
    before = essence(client)
    refused = client.do(ALL, 5, parts)
    assert why(refused)[1:] == (reason, position)
    assert essence(client) == before


def test_one_alone_is_told_as_any_other_change(client: DrivenSession) -> None:
    told = followed(
        client,
        (ONE, 5, create(b"n", b"1", ttl=SECOND)),
        (ONE, 5, put(b"n", b"2")),
        (ONE, 5, overwrite(b"n", b"3")),
        (ONE, 5, write(b"n", 1, b"4")),
        (ONE, 5, append(b"n", b"5")),
        (ONE, 5, delete(b"n")),
        (ONE, 5, append(b"m", b"6")),
    )
    due = client.cluster.now + SECOND
    assert [change[2:] for change in told] == [
        (ChangeKind.CREATED, client.id, b"n", b"1", due),
        (ChangeKind.OVERWRITTEN, client.id, b"n", b"2", None),
        (ChangeKind.OVERWRITTEN, client.id, b"n", b"3", None),
        (ChangeKind.WRITTEN, client.id, None, [(b"n", 1, b"4")], None),
        (ChangeKind.WRITTEN, client.id, None, [(b"n", 2, b"5")], None),
        (ChangeKind.DELETED, client.id, b"n", None, None),
        (ChangeKind.CREATED, client.id, b"m", b"6", NEVER),
    ]
    assert client.all(5)[b"m"] == b"6"


def test_results(client: DrivenSession) -> None:
    before = client.cluster.machine.revision
    assert client.do(ONE, 5, append(b"x", b"6")).value == [before + 1, 5]
    assert client.do(ONE, 5, append(b"n", b"6")).value == [before + 2, 0]
    assert client.do(ONE, 5, create(None)).value == [before + 3, b"\0\0\0\0"]
    assert client.do(ONE, 5, put(b"x")).value == [before + 4, None]
    parts = [delete(b"n"), create(b"n"), append(b"x", b""), append(b"x", b"7"), append(b"x", b"8")]
    assert client.do(ALL, 5, parts).value == [before + 5, [None, None, 0, 0, 1]]


def test_the_default_section(client: DrivenSession) -> None:
    before = client.cluster.machine.revision
    parts = [append(b"", b"1"), overwrite(b"", b"22"), write(b"", 1, b"3"), put(b"", b"4"),
             append(b"", b"5")]  # fmt: skip
    followed(client, (ALL, 4, parts), (ONE, 4, append(b"", b"6", before + 1)))
    assert client.all(4) == {b"": b"456"}
    assert why(client.do(ONE, 4, put(b"", b"", 0)))[1] == "conflict"


# --- ids that are chosen -------------------------------------------------------------------------


def test_ids_of_one_byte_run_out(client: DrivenSession) -> None:
    """One transaction takes them all, and one more: it ends, and nothing happened."""
    handle = client.open("short", fields=attributes(sections=1000, section_id=1))
    everything = [create(None) for _ in range(256)]
    refused = client.do(ALL, handle, [*everything, create(None)])
    assert why(refused) == (NO_SPACE, "sections_full", 256)
    _, results = client.do(ALL, handle, everything).value
    assert sorted(results) == [bytes([n]) for n in range(256)]
    # one that is deleted is free again for those behind it
    _, results = client.do(ALL, handle, [delete(b"7"), create(None, b"again")]).value
    assert results == [None, b"7"]
    assert client.ask(106, handle).value[1][-1] == b"7"
    assert why(client.do(ONE, handle, create(None))) == (NO_SPACE, "sections_full", None)


def test_a_chosen_id_is_none_that_a_part_before_took(client: DrivenSession) -> None:
    taken = [create(b"\0\0\0\0"), create(None)]
    assert client.do(ALL, 5, taken).value[1] == [None, b"\0\0\0\1"]


# --- times ---------------------------------------------------------------------------------------


def test_sections_that_expire(client: DrivenSession) -> None:
    machine, now = client.cluster.machine, client.cluster.now
    followed(
        client,
        (ALL, 5, [create(b"ttl", b"1", ttl=2 * SECOND), create(b"at", b"2", now + SECOND)]),
        (ALL, 5, [append(b"at", b"2"), put(b"ttl", b"11")]),
    )
    assert machine.next_due_ns() == now + SECOND
    assert {i: row[1] - now for i, row in machine.checkpoints[4].sections.items() if row[1] < NEVER}
    followed(client, (ALL, 5, [delete(b"at"), put(b"at", b"for ever")]))
    assert machine.next_due_ns() == now + 2 * SECOND  # it is another section
    followed(client, (ONE, 5, delete(b"ttl")))
    assert machine.next_due_ns() is None
    followed(client, (ONE, 5, create(b"ttl", b"", ttl=NEVER)))
    assert machine.next_due_ns() is None
    followed(client, (ALL, 5, [delete(b"ttl"), create(b"ttl", b"", ttl=SECOND)]))
    assert client.cluster.due(SECOND) == 1
    assert sorted(client.all(5)) == [b"at", b"x", b"y"]


@pytest.mark.parametrize("tag", [ONE, ALL])
def test_a_past_time_expires_at_once(client: DrivenSession, tag: int) -> None:
    now = client.cluster.now
    new = create(b"n", b"1", now - 1)
    told = followed(client, (tag, 5, new if tag == ONE else [new, append(b"n", b"2")]))
    assert [change[2] for change in told][1:] == [ChangeKind.EXPIRED]
    assert told[1][1:5] == (told[0][1] + 1, ChangeKind.EXPIRED, 0, b"n")
    assert client.all(5) == {b"x": b"12345", b"y": b""}
    assert client.cluster.machine.next_due_ns() is None


def test_what_expires_at_once_expires_in_the_order_of_creation(client: DrivenSession) -> None:
    now = client.cluster.now
    parts = [delete(b"x"), create(b"n", b"", 0), create(b"x", b"", now), create(b"k", b"", now + 1)]
    told = followed(client, (ALL, 5, parts))
    assert [change[4] for change in told[1:]] == [b"n", b"x"]
    assert sorted(client.all(5)) == [b"k", b"y"]


def test_what_is_due_but_not_carried_out_yet_stays_until_it_is(client: DrivenSession) -> None:
    """As after any other write: only the cluster's own command ends what there was."""
    client.create(5, b"n", b"", ttl=SECOND)
    client.cluster.now += 2 * SECOND
    told = followed(client, (ALL, 5, [append(b"n", b"1")]))
    assert len(told) == 1
    assert client.all(5)[b"n"] == b"1"
    assert client.cluster.due() == 1
    assert b"n" not in client.all(5)


# --- corrupted sections --------------------------------------------------------------------------


def corrupted(client: DrivenSession) -> list[bytes]:
    return [row.section_id for row in client.ask(103, 5, 4, 0).value[1]]


def test_corrupted_sections(client: DrivenSession) -> None:
    client.do(27, 5, b"x")
    for wrong in (append(b"x", b"1"), write(b"x", 0, b"1")):
        for tag, fields in ((ONE, wrong), (ALL, [put(b"y"), wrong])):
            refused = client.do(tag, 5, fields)
            assert why(refused) == (BAD_OPERATION, "corrupted", None if tag == ONE else 1)
            assert refused.value.detail == b"x"
    assert corrupted(client) == [b"x"]
    followed(client, (ALL, 5, [put(b"x", b"new"), append(b"x", b"er")]))
    assert (corrupted(client), client.all(5)[b"x"]) == ([], b"newer")
    for mending in ([overwrite(b"x", b"1")], [delete(b"x"), append(b"x", b"2")], [delete(b"x")]):
        client.put(5, b"x", b"")
        client.do(27, 5, b"x")
        assert corrupted(client) == [b"x"]
        followed(client, (ALL, 5, mending))
        assert corrupted(client) == []
        assert not client.cluster.machine.checkpoints[4].guarded


def test_a_refused_one_mends_nothing(client: DrivenSession) -> None:
    client.do(27, 5, b"x")
    assert not client.do(ALL, 5, [put(b"x"), delete(b"z")]).ok
    assert corrupted(client) == [b"x"]


# --- staged data ---------------------------------------------------------------------------------


def stage(client: DrivenSession, number: int, data: bytes) -> None:
    for start in range(0, len(data), STAGE_CHUNK_BYTES):
        assert client.do(26, number, start, data[start : start + STAGE_CHUNK_BYTES]).ok


def test_staged_data(client: DrivenSession) -> None:
    machine = client.cluster.machine
    handle = client.open("large", fields=attributes(section=4 * PAGE_BYTES))
    data = bytes(k % 251 for k in range(3 * PAGE_BYTES))
    stage(client, 1, data)
    assert machine.staged_bytes == len(data)
    followed(client, (ONE, handle, append(b"one", 1)))
    assert machine.staged_bytes == 0
    stage(client, 1, data)
    stage(client, 2, b"tail")
    parts = [append(b"two", b"head"), append(b"two", 1), append(b"two", 2), put(b"three", b"3")]
    followed(client, (ALL, handle, parts))
    assert machine.staged_bytes == 0
    assert client.all(handle) == {
        b"one": data, b"two": b"head" + data + b"tail", b"three": b"3"
    }  # fmt: skip
    kept = machine.checkpoints[5].sections[b"one"][0]
    assert isinstance(kept, Pages)


def test_a_stage_that_is_missing_drops_the_others(client: DrivenSession) -> None:
    machine = client.cluster.machine
    for refusing in ([put(b"x", 1), put(b"y", 2)], [put(b"x", 1), put(b"y", 1)]):
        stage(client, 1, b"staged")
        assert why(client.do(ALL, 5, refusing)) == (INVALID, "stage", 1)
        assert machine.staged_bytes == 0
    assert why(client.do(ONE, 5, append(b"x", 1))) == (INVALID, "stage", None)
    for handle, refusing in ((9, [put(b"x", 1)]), (5, [put(b"x", 1, 99)])):
        stage(client, 1, b"staged")
        assert not client.do(ALL, handle, refusing).ok
        assert machine.staged_bytes == 0
    assert client.all(5) == {b"x": b"12345", b"y": b""}


def test_large_data_is_kept_once(client: DrivenSession) -> None:
    """What trackers are told of refers to the bytes that are kept."""
    handle = client.open("large", fields=attributes(section=4 * PAGE_BYTES))
    data = bytes(2 * PAGE_BYTES)
    machine = client.cluster.machine
    for tag, fields in ((ONE, put(b"a", data)), (ALL, [overwrite(b"a", data), create(b"b", data)])):
        assert client.do(tag, handle, fields).ok
        (change,) = machine.changes
        sections = machine.checkpoints[5].sections
        told = {row[1]: row[3] for row in change[5]} if tag == ALL else {change[4]: change[5]}
        for section_id, content in told.items():
            assert content is sections[section_id][0]


# --- limits --------------------------------------------------------------------------------------


def test_many_parts(client: DrivenSession) -> None:
    handle = client.open("many", fields=attributes(sections=5000))
    parts = [append(b"%d" % (n % 100), b"x") for n in range(VECTOR_ELEMENTS_MAX)]
    _, results = client.do(ALL, handle, parts).value
    assert results == [n // 100 for n in range(VECTOR_ELEMENTS_MAX)]


def test_bytes_in_all(client: DrivenSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftckpt.model.parts.WRITE_BYTES_MAX", 150)
    parts = [put(b"x", bytes(100)), put(b"y", bytes(50))]
    assert client.do(ALL, 5, parts).ok
    parts.append(append(b"y", b"1"))
    assert why(client.do(ALL, 5, parts)) == (NO_RESOURCES, "limit", None)
    parts[0][4] = 1  # a condition that does not hold is said first
    assert why(client.do(ALL, 5, parts)) == (BAD_OPERATION, "conflict", 0)


def test_the_limit_is_that_of_a_write() -> None:
    assert WRITE_BYTES_MAX == 64 << 20
    assert VECTOR_ELEMENTS_MAX == 4096


# --- pages ---------------------------------------------------------------------------------------


def rows_of(found: Any) -> list[Any]:
    if isinstance(found, list):
        return found
    steps = sum(1 for _ in found.prepare())
    assert steps
    rows = list(found.rows())
    assert len(rows) == len(found)
    return rows


@pytest.mark.parametrize("more", [0, EAGER_ROWS, 3 * 2048])
def test_pages_of_sections(client: DrivenSession, more: int) -> None:
    """In the order of the ids, whatever that of their creation was."""
    handle = client.open("paged", fields=attributes(sections=9000))
    ids = [b"u:%d" % (n * 7919 % 10_007) for n in range(more)]
    ids += [b"u:", b"u", b"v", b"u:\xff", b"t:zzz", b"u:1x"]
    for start in range(0, len(ids), 1000):
        assert client.do(ALL, handle, [put(i, i) for i in ids[start : start + 1000]]).ok
    client.do(27, handle, b"u:1x")
    wanted = sorted(i for i in ids if i.startswith(b"u:"))
    revision = client.cluster.machine.revision

    def page(tag: int, after: bytes | None, limit: int, prefix: bytes = b"u:") -> list[Any]:
        result = client.ask(tag, handle, prefix, after, limit)
        assert result.value[0] == revision
        return rows_of(result.value[1])

    assert page(125, None, 10_000) == wanted
    assert page(125, None, 3) == wanted[:3]
    assert page(125, b"u:1", 5) == [i for i in wanted if i > b"u:1"][:5]
    assert page(125, b"u:1y", 1) == [i for i in wanted if i > b"u:1y"][:1]
    assert page(125, b"v", 5) == []
    assert page(125, None, 1, b"") == [b"t:zzz"]
    assert page(125, b"t:", 10_000, b"") == sorted(ids)
    found, after = [], None
    while rows := page(125, after, 1000):
        found += rows
        after = rows[-1]
    assert found == wanted
    described = page(126, b"u:1", 5)
    assert [row.section_id for row in described] == [i for i in wanted if i > b"u:1"][:5]
    assert [row.size for row in described] == [len(row.section_id) for row in described]
    broken = page(126, None, 10_000, b"u:1x")
    assert [(row.section_id, row.state) for row in broken if row.state == 2] == [(b"u:1x", 2)]


def test_a_page_shows_the_state_as_it_was(client: DrivenSession) -> None:
    handle = client.open("paged", fields=attributes(sections=900))
    for n in range(300):
        client.put(handle, b"%03d" % n, b"")
    client.do(27, handle, b"007")
    _, ids = client.ask(125, handle, b"0", None, 10).value
    _, described = client.ask(126, handle, b"0", None, 10).value
    client.do(ALL, handle, [delete(b"000"), put(b"007", b"mended"), put(b"0", b"")])
    wanted = [b"%03d" % n for n in range(10)]
    assert rows_of(ids) == wanted
    found = rows_of(described)
    assert [row.section_id for row in found] == wanted
    assert [row.section_id for row in found if row.state == 2] == [b"007"]


def test_who_may_page(client: DrivenSession) -> None:
    client.open("open", WRITE)
    for tag in (125, 126):
        assert why(client.ask(tag, 9, b"", None, 5)) == (BAD_HANDLE, "handle", None)
        assert why(client.ask(tag, 6, b"", None, 5)) == (ACCESS, "no_right", None)
        assert why(client.ask(tag, 3, b"", None, 5)) == (NOT_EXIST, "no_active", None)
        assert client.ask(tag, "idle", b"", None, 5).ok
        assert why(client.ask(tag, "none", b"", None, 5)) == (
            NOT_EXIST, "checkpoint_missing", None
        )  # fmt: skip
        for limit in (0, 10_001):
            assert why(client.ask(tag, 1, b"", None, limit)) == (INVALID, "param", None)


def test_pages_of_checkpoints(client: DrivenSession) -> None:
    for name in ("app/é", "app/z", "app", "app/a", "app/gone"):
        client.open(name)
    client.do(12, "app/gone")  # it lives on without a name

    def names(prefix: str, after: str | None, limit: int = 100) -> list[str]:
        _, rows = client.ask(127, prefix, after, limit).value
        return [row.name for row in rows]

    assert names("app/", None) == ["app/a", "app/z", "app/é"]
    assert names("app/", "app/a", 1) == ["app/z"]
    assert names("app/", "app/é") == []
    assert names("", None, 2) == ["app", "app/a"]
    assert names("", "default") == ["full", "idle", "open"]
    _, (row,) = client.ask(127, "full", None, 9).value
    assert row == next(each for each in client.cluster.ask(104) if each.name == "full")
    assert why(client.ask(127, "", None, 0)) == (INVALID, "param", None)

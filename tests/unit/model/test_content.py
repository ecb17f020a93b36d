"""Sections and data: every refusal in the order of the checks, and what succeeds."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.limits import MIB
from raftckpt.model import sessions
from raftckpt.protocol import contract
from raftckpt.protocol.contract import PAGE_BYTES
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
BIG = b"x" * 101


@pytest.fixture
def client() -> DrivenSession:
    """Handles: 1 "full" (a, b of 2) read-write, 2 reader of it, 3 without active, 4 default."""
    client = DrivenMachine().session()
    client.open("full", fields=attributes(sections=2))
    client.open("full", READ)
    client.open("idle", fields=attributes(WEAK | COLLOCATED))
    client.open("default", fields=attributes(sections=1))
    client.put(1, b"a", b"12345")
    client.put(1, b"b", b"")
    return client


def past(client: DrivenSession) -> int:
    return client.cluster.now - 1


# (tag, fields after the handle), handle, code, reason, position; each list in order of precedence:
# every command also has what the later ones are refused for.
CREATE = [
    ((9, b"", b"x" * (MIB + 1), -1, None), INVALID, "section_id"),
    ((9, b"x" * 1025, BIG, -1, None), INVALID, "section_id"),
    ((9, b"123456789", b"x" * (MIB + 1), -1, None), NO_RESOURCES, "write_too_big"),
    ((9, b"123456789", BIG, -1, None), INVALID, "schema"),
    ((9, b"123456789", BIG, NEVER + 1, None), INVALID, "schema"),
    ((9, b"123456789", BIG, NEVER, -1), INVALID, "schema"),
    ((9, b"123456789", BIG, NEVER, None), BAD_HANDLE, "handle"),
    ((2, b"123456789", BIG, NEVER, None), ACCESS, "no_right"),
    ((3, b"123456789", BIG, NEVER, None), INVALID, "section_id"),
    ((3, b"a", BIG, NEVER, None), NOT_EXIST, "no_active"),
    ((4, b"a", BIG, NEVER, None), INVALID, "section_too_big"),
    ((4, b"a", b"", NEVER, None), EXIST, "default_section"),
    ((4, None, b"", NEVER, None), EXIST, "default_section"),
    ((1, b"a", b"", NEVER, None), EXIST, "section_exists"),
    ((1, b"c", b"", NEVER, None), NO_SPACE, "sections_full"),
    ((1, None, b"", NEVER, None), NO_SPACE, "sections_full"),
]
DELETE = [
    ((9, b""), INVALID, "param"),
    ((9, b"z"), BAD_HANDLE, "handle"),
    ((2, b"z"), ACCESS, "no_right"),
    ((3, b"z"), NOT_EXIST, "no_active"),
    ((4, b"z"), INVALID, "default_section"),
    ((1, b"z"), NOT_EXIST, "section_missing"),
]
EXPIRE = [
    ((9, b"z", -1, None), INVALID, "schema"),
    ((9, b"z", NEVER + 1, None), INVALID, "schema"),
    ((9, b"z", 0, -1), INVALID, "schema"),
    ((9, b"z", 5, None), BAD_HANDLE, "handle"),
    ((2, b"z", 5, None), ACCESS, "no_right"),
    ((3, b"z", 5, None), INVALID, "time_past"),
    ((3, b"z", NEVER, None), NOT_EXIST, "no_active"),
    ((4, b"", NEVER, None), INVALID, "default_section"),
    ((1, b"z", NEVER, None), NOT_EXIST, "section_missing"),
]
OVERWRITE = [
    ((9, b"z", BIG), BAD_HANDLE, "handle"),
    ((2, b"z", BIG), ACCESS, "no_right"),
    ((3, b"z", BIG), INVALID, "section_too_big"),
    ((3, b"z", b""), NOT_EXIST, "no_active"),
    ((1, b"z", b""), NOT_EXIST, "section_missing"),
    ((1, b"", b""), NOT_EXIST, "section_missing"),
    ((4, b"z", b""), NOT_EXIST, "section_missing"),
]
PUT = [
    *OVERWRITE[:4],
    ((1, b"", b""), INVALID, "section_id"),
    ((1, b"123456789", b""), INVALID, "section_id"),
    ((1, b"z", b""), NO_SPACE, "sections_full"),
    ((4, b"z", b""), NO_SPACE, "sections_full"),
]
TABLE = [
    (tag, fields, code, reason)
    for tag, rows in [(20, CREATE), (21, DELETE), (22, EXPIRE), (23, OVERWRITE), (24, PUT)]
    for fields, code, reason in rows
]


@pytest.mark.parametrize(("tag", "fields", "code", "reason"), TABLE)
def test_refusals(client: DrivenSession, tag: int, fields: Any, code: int, reason: str) -> None:
    before = client.all(1), client.cluster.machine.revision
    assert why(client.do(tag, *fields)) == (code, reason, None)
    assert (client.all(1), client.cluster.machine.revision) == before


OK = [b"a", 0, b"x"]
WRITES = [
    ((9, []), INVALID, "param", None),
    ((9, [OK] * 4097), NO_RESOURCES, "limit", None),
    ((9, [OK, [b"a", 0]]), INVALID, "schema", None),
    ((9, [OK, 7]), INVALID, "schema", None),
    ((9, [OK, [b"a", True, b""]]), INVALID, "schema", None),
    ((9, [OK, ["a", 0, b""]]), INVALID, "schema", None),
    ((9, [OK, [b"a", -1, b""]]), INVALID, "schema", None),
    ((9, [OK, [b"x" * 1025, 0, b""]]), INVALID, "section_id", None),
    ((9, [[b"a", 0, b"x" * MIB], OK]), NO_RESOURCES, "write_too_big", None),
    ((9, [OK, [b"z", 0, BIG]]), BAD_HANDLE, "handle", None),
    ((2, [OK, [b"z", 0, BIG]]), INVALID, "section_too_big", 1),
    ((2, [OK, [b"z", 0, b""]]), ACCESS, "no_right", None),
    ((3, [OK, [b"z", 0, b""]]), NOT_EXIST, "no_active", None),
    ((1, [OK, [b"z", 0, b""], [b"a", 99, b"xx"]]), NOT_EXIST, "section_missing", 1),
    ((1, [OK, [b"a", 99, b"xx"], [b"z", 0, b""]]), NO_RESOURCES, "section_too_big", 1),
    ((1, [OK, OK, [b"a", (1 << 63) - 1, b""]]), NO_RESOURCES, "section_too_big", 2),
    ((1, [OK, [b"a", 0, 1]]), INVALID, "stage", 1),
]


@pytest.mark.parametrize(("fields", "code", "reason", "position"), WRITES)
def test_vector_refusals_change_nothing(
    client: DrivenSession, fields: Any, code: int, reason: str, position: int | None
) -> None:
    before = client.all(1), client.cluster.machine.revision
    assert why(client.do(25, *fields)) == (code, reason, position)
    assert (client.all(1), client.cluster.machine.revision) == before


def test_write_limit_of_one_element(monkeypatch: pytest.MonkeyPatch) -> None:
    client = DrivenMachine().session()
    handle = client.open("x", fields=attributes(section=65 * MIB))
    chunk = bytes(contract.STAGE_CHUNK_BYTES)
    for offset in range(0, 64 * MIB, len(chunk)):
        assert client.do(26, 1, offset, chunk).ok
    refused = client.do(26, 1, 64 * MIB, b"x")
    assert why(refused) == (NO_RESOURCES, "write_too_big", None)
    assert client.cluster.machine.staged_bytes == 0
    checkpoint = client.cluster.machine.names["x"]
    assert why(checkpoint.refuse_size(64 * MIB + 1, 3)) == (  # type: ignore[arg-type]
        NO_RESOURCES,
        "write_too_big",
        3,
    )
    inline = client.put(handle, b"a", bytes(MIB + 1))
    assert why(inline) == (NO_RESOURCES, "write_too_big", None)


def test_no_section_grows_without_bound() -> None:
    client = DrivenMachine().session()
    handle = client.open("x", fields=attributes(section=1 << 50))
    client.put(handle, b"a", b"")
    refused = client.write(handle, [b"a", contract.SECTION_BYTES_MAX, b"x"])
    assert why(refused) == (NO_RESOURCES, "section_too_big", 0)
    assert client.write(handle, [b"a", contract.SECTION_BYTES_MAX - 1, b"x"]).ok


# --- what succeeds --------------------------------------------------------------------------------


def test_default_section_is_there_from_the_beginning(client: DrivenSession) -> None:
    assert client.all(4) == {b"": b""}
    assert client.do(23, 4, b"", b"data").ok
    assert client.put(4, b"", b"more").ok
    assert client.write(4, [b"", 2, b"--"]).ok
    assert client.all(4) == {b"": b"mo--"}
    row = client.ask(102, 4).value[1]
    assert (row.sections, row.memory_used) == (1, 4)
    assert len(client.cluster.restored().names["default"].sections) == 1


def test_overwrite_replaces_and_shrinks(client: DrivenSession) -> None:
    assert client.do(23, 1, b"a", b"1").value == client.cluster.machine.revision
    assert client.do(23, 1, b"b", b"").ok
    assert client.all(1) == {b"a": b"1", b"b": b""}
    assert client.ask(102, 1).value[1].memory_used == 1


def test_size_attribute_is_no_quota() -> None:
    client = DrivenMachine().session()
    handle = client.open("x", fields=attributes(size=1))
    assert client.put(handle, b"a", b"x" * 100).ok


def test_vector_is_one_change_with_elements_in_order(client: DrivenSession) -> None:
    revision = client.cluster.machine.revision
    result = client.write(1, [b"a", 1, b"__"], [b"b", 3, b"z"], [b"a", 2, b"!"], [b"a", 5, b""])
    assert result.value == revision + 1
    assert client.all(1) == {b"a": b"1_!45", b"b": b"\0\0\0z"}
    for section_id in (b"a", b"b"):
        assert client.ask(105, 1, section_id).value[0] == revision + 1


def test_generated_ids_are_new_and_short_enough() -> None:
    client = DrivenMachine().session()
    handle = client.open("x", fields=attributes(sections=1000, section_id=1))
    for taken in (0, 1, 5):
        client.put(handle, bytes([taken]), b"")
    ids = {client.create(handle, None).value[1] for _ in range(253)}
    assert {len(section_id) for section_id in ids} == {1}
    assert len(client.all(handle)) == 256
    assert why(client.create(handle, None)) == (NO_SPACE, "sections_full", None)
    client.do(21, handle, bytes([77]))
    assert client.create(handle, None).value[1] == bytes([77])


def test_generated_ids_are_the_same_after_a_restore() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    handle = client.open("x", fields=attributes(sections=1000))
    first = client.create(handle, None).value[1]
    client.do(21, handle, first)
    cluster.machine = cluster.restored()
    assert client.create(handle, None).value[1] == b"\0\0\0\x01"


# --- expiration -----------------------------------------------------------------------------------


def test_create_in_the_past_expires_at_once() -> None:
    client = DrivenMachine().session()
    handle = client.open("x")
    for expiration, ttl in [(past(client), None), (client.cluster.now, None), (0, 0)]:
        revision = client.cluster.machine.revision
        result = client.create(handle, b"a", b"1", expiration, ttl)
        assert result.value == [revision + 1, b"a"]
        assert client.cluster.machine.revision == revision + 2
        assert client.all(handle) == {}


def test_expiration_set_moves_and_cancels() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    handle = client.open("x")
    client.create(handle, b"a", ttl=SECOND)
    client.create(handle, b"b", expiration=cluster.now + SECOND)
    client.create(handle, b"c", ttl=NEVER)
    assert client.do(22, handle, b"a", NEVER, None).ok
    assert client.do(22, handle, b"b", 0, 3 * SECOND).ok
    assert client.do(22, handle, b"c", cluster.now + 2 * SECOND, None).ok
    assert why(client.do(22, handle, b"c", past(client), None)) == (INVALID, "time_past", None)
    assert client.do(22, handle, b"c", cluster.now, None).ok  # now is not past: due at once
    assert cluster.machine.next_due_ns() == cluster.now
    assert cluster.due() == 1
    assert cluster.due(SECOND) == 0
    assert sorted(client.all(handle)) == [b"a", b"b"]
    assert cluster.due(2 * SECOND) == 1
    assert sorted(client.all(handle)) == [b"a"]
    assert cluster.machine.next_due_ns() is None


def test_overwrite_keeps_the_expiration_and_delete_forgets_it() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    handle = client.open("x")
    client.create(handle, b"a", ttl=SECOND)
    client.put(handle, b"a", b"2")
    client.write(handle, [b"a", 1, b"3"])
    assert cluster.machine.next_due_ns() == cluster.now + SECOND
    client.do(21, handle, b"a")
    assert cluster.machine.next_due_ns() is None
    client.put(handle, b"a", b"new")
    assert cluster.due(5 * SECOND) == 0
    assert client.all(handle) == {b"a": b"new"}


# --- staged data ----------------------------------------------------------------------------------


@pytest.fixture
def big() -> DrivenSession:
    client = DrivenMachine().session()
    client.open("x", fields=attributes(section=10 * PAGE_BYTES))
    return client


def stage(client: DrivenSession, number: int, data: bytes, step: int = PAGE_BYTES + 77) -> None:
    for offset in range(0, len(data), step):
        assert client.do(26, number, offset, data[offset : offset + step]).ok


def test_staged_data_is_applied_as_one_change(big: DrivenSession) -> None:
    data = bytes(k % 251 for k in range(4 * PAGE_BYTES + 5))
    revision = big.cluster.machine.revision
    stage(big, 1, data)
    assert big.cluster.machine.revision == revision
    assert big.cluster.machine.staged_bytes == len(data)
    assert big.put(1, b"a", 1).value == revision + 1
    stage(big, 2, data)
    assert big.create(1, b"b", 2).value == [revision + 2, b"b"]
    stage(big, 3, b"x")
    assert big.do(23, 1, b"b", 3).ok
    stage(big, 4, data)
    stage(big, 5, b"small")
    assert big.write(1, [b"a", 7, 4], [b"b", 1, 5], [b"b", 0, b"inline"]).ok
    assert big.all(1) == {b"a": data[:7] + data, b"b": b"inline"}
    assert big.cluster.machine.staged_bytes == 0
    assert big.ask(102, 1).value[1].memory_used == len(data) + 13


@pytest.mark.parametrize("how", ["refused", "applied"])
def test_a_stage_is_dropped_by_the_command_that_refers_to_it(big: DrivenSession, how: str) -> None:
    for command in [
        (20, b"a", 1, NEVER, None),
        (23, b"a", 1),
        (24, b"a", 1),
        (25, [[b"a", 0, 1], [b"a", 0, b""]]),
    ]:
        stage(big, 1, b"data")
        handle = 1 if how == "applied" else 9
        assert big.do(command[0], handle, *command[1:]).ok == (how == "applied")
        assert big.cluster.machine.staged_bytes == 0
        again = big.do(command[0], 1, *command[1:])
        assert why(again) == (INVALID, "stage", 0 if command[0] == 25 else None)


def test_a_malformed_command_names_no_stage_which_goes_with_the_session(big: DrivenSession) -> None:
    stage(big, 1, b"data")
    assert not big.do(25, 1, [[b"a", -1, 1]]).ok
    assert big.cluster.machine.staged_bytes == 4
    assert big.do(2).ok
    assert big.cluster.machine.staged_bytes == 0


def test_a_refused_chunk_never_makes_a_truncated_value(big: DrivenSession) -> None:
    stage(big, 1, b"first")
    assert why(big.do(26, 1, 9, b"third")) == (INVALID, "stage", None)  # the second is missing
    assert why(big.do(26, 1, 5, b"second")) == (INVALID, "stage", None)
    assert why(big.put(1, b"a", 1)) == (INVALID, "stage", None)
    assert why(big.do(26, 1, 0, bytes(contract.STAGE_CHUNK_BYTES + 1))) == (
        NO_RESOURCES,
        "write_too_big",
        None,
    )
    assert why(big.do(26, 1, 0, b"")) == (INVALID, "schema", None)


def test_stages_are_limited(big: DrivenSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "STAGED_BYTES_PER_SESSION_MAX", 10)
    assert big.cluster.apply([70, 0, 0, 0, [["staged", 15]], False])[0].ok
    monkeypatch.setattr(sessions, "STAGES_PER_SESSION_MAX", 2)
    other = big.cluster.session()
    stage(big, 1, b"12345678")
    assert why(big.do(26, 2, 0, b"123")) == (NO_RESOURCES, "limit", None)
    assert why(other.do(26, 1, 0, b"12345678")) == (NO_RESOURCES, "limit", None)
    stage(other, 1, b"123456")
    stage(big, 2, b"9")
    assert why(big.do(26, 3, 0, b"9")) == (NO_RESOURCES, "limit", None)
    assert big.cluster.machine.staged_bytes == 15
    assert why(big.do(26, 1, 8, b"123")) == (NO_RESOURCES, "limit", None)
    assert big.cluster.machine.staged_bytes == 7


# --- may the leader accept early? -----------------------------------------------------------------


def test_check_agrees_with_apply_and_changes_nothing() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    client.open("full", fields=attributes(sections=2))
    client.open("full", READ)
    client.open("idle", fields=attributes(WEAK | COLLOCATED))
    client.open("async", WRITE | 4, attributes(WEAK))
    client.put(1, b"a", b"1")
    machine = cluster.machine
    commands: list[Any] = [[23, *f] for f, *_ in OVERWRITE] + [[24, *f] for f, *_ in PUT]
    commands += [[25, *f] for f, *_ in WRITES[:-1] if validate([25, 1, 1, 0, *f]) is None]
    commands += [[23, 1, b"a", b"2"], [24, 4, b"a", b"2"], [25, 1, [[b"a", 5, b"3"]]]]
    for tag, *fields in commands:
        before = machine.revision
        asked = machine.check(record_of([tag, client.id, 1, 0, *fields]))
        assert machine.revision == before
        result = client.do(tag, *fields)
        assert asked.ok == result.ok
        if asked.ok:
            assert asked.value.uid == machine.target_uid(record_of([tag, client.id, 1, 0, *fields]))
        else:
            assert asked == result


def test_check_tells_what_the_leader_must_know() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    handle = client.open("async", fields=attributes(WEAK))

    def check(fields: list[Any]) -> Any:
        return cluster.machine.check(record_of(fields))

    assert check([24, client.id, 1, 0, handle, b"a", b""]).value[:3] == (1, True, True)
    client.put(handle, b"a", b"")
    assert check([24, client.id, 1, 0, handle, b"a", b""]).value[:3] == (1, True, False)
    assert check([23, client.id, 1, 0, handle, b"a", b""]).value[:3] == (1, True, False)
    assert check([25, client.id, 1, 0, handle, [[b"a", 0, b"x"]]]).value[:3] == (1, True, False)
    client.open("sync")
    client.put(2, b"a", b"")
    assert check([23, client.id, 1, 0, 2, b"a", b""]).value[:3] == (2, False, False)


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ([24, 1, 1, 0, 1, b"a", 5], 6, "stage"),
        ([25, 1, 1, 0, 1, [[b"a", 0, 5]]], 6, "stage"),
        ([24, 7, 1, 0, 1, b"a", b""], BAD_HANDLE, "session"),
    ],
)
def test_check_refuses(fields: Any, code: int, reason: str) -> None:
    cluster = DrivenMachine()
    cluster.session().open("x")
    assert why(cluster.machine.check(record_of(fields))) == (code, reason, None)


def test_target_of_commands() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    client.open("x")
    handle = client.open("y")

    def target(fields: list[Any]) -> int | None:
        return cluster.machine.target_uid(record_of(fields))

    assert target([21, client.id, 1, 0, handle, b"a"]) == 2
    assert target([11, client.id, 1, 0, 9]) is None
    assert target([12, client.id, 1, 0, "x"]) == 1
    assert target([12, client.id, 1, 0, "none"]) is None
    assert target([40, 0, 0, 0]) is None
    assert target([2, client.id, 1, 0]) is None

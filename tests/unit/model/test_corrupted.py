"""Sections in the SA Forum state CORRUPTED, which only fault injection produces."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.model.image import digest
from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol.contract import CORRUPTED_SECTIONS_MAX
from raftckpt.protocol.operations import STRUCTURAL, SectionCorrupt
from tests.messages import command

from .driver import (
    ACTIVE,
    COLLOCATED,
    NEVER,
    READ,
    SECOND,
    WRITE,
    DrivenMachine,
    DrivenSession,
    attributes,
    why,
)

ACCESS, NOT_EXIST, NO_RESOURCES, BAD_OPERATION = 11, 12, 18, 20
REFUSED = (BAD_OPERATION, "corrupted", None)


@pytest.fixture
def client() -> DrivenSession:
    """Handle 1 of "x" with a = 12345 (CORRUPTED) and b = 6 (VALID)."""
    client = DrivenMachine().session()
    client.open("x", fields=attributes(sections=9))
    client.put(1, b"a", b"12345")
    client.put(1, b"b", b"6")
    assert client.do(27, 1, b"a").value == 4
    return client


def corrupted(client: DrivenSession) -> list[bytes]:
    return [row.section_id for row in client.ask(103, 1, 4, 0).value[1]]


def test_it_is_shown_by_descriptors_filter_and_status(client: DrivenSession) -> None:
    now = client.cluster.now
    a, b = (b"a", NEVER, 5, 2, now, 4), (b"b", NEVER, 1, 1, now, 3)
    assert client.ask(103, 1, 5, 0).value == [4, [a, b]]
    assert client.ask(103, 1, 4, 0).value == [4, [a]]
    assert client.ask(103, 1, 1, 0).value == [4, [a, b]]
    assert client.ask(102, 1).value[1].corrupted == 1
    assert client.ask(104).value[1][0].corrupted == 1
    assert client.ask(106, 1).value[1] == [b"a", b"b"]


def test_reads_and_writes_are_refused(client: DrivenSession) -> None:
    assert why(client.write(1, [b"b", 0, b"x"], [b"a", 0, b"x"])) == (BAD_OPERATION, "corrupted", 1)
    vector = [[b"b", 0, None], [b"a", 99, 1]]
    assert why(client.ask(100, 1, vector)) == (BAD_OPERATION, "corrupted", 1)
    assert why(client.ask(100, "x", [[b"a", 0, None]])) == (BAD_OPERATION, "corrupted", 0)
    for refused in (
        client.ask(101, 1),
        client.ask(105, 1, b"a"),
        client.do(22, 1, b"a", NEVER, None),
    ):
        assert why(refused) == REFUSED
        assert refused.value.detail == b"a"
    assert client.ask(100, 1, [[b"b", 0, None]]).value[1] == [b"6"]
    assert client.write(1, [b"b", 0, b"7"]).ok
    assert corrupted(client) == [b"a"]


@pytest.mark.parametrize("tag", [23, 24])
def test_an_overwrite_makes_it_valid(client: DrivenSession, tag: int) -> None:
    assert client.do(tag, 1, b"a", b"new").ok
    assert corrupted(client) == []
    assert client.all(1) == {b"a": b"new", b"b": b"6"}
    assert client.write(1, [b"a", 0, b"N"]).ok
    assert not client.cluster.machine.checkpoints[1].guarded


def test_an_overwrite_that_is_refused_does_not(client: DrivenSession) -> None:
    assert not client.do(23, 1, b"a", bytes(101)).ok
    assert not client.do(24, 1, b"a", bytes(101)).ok
    assert not client.do(23, 1, b"missing", b"").ok
    assert corrupted(client) == [b"a"]


def test_asking_ahead_changes_nothing(client: DrivenSession) -> None:
    """The dry run of early acceptance is no overwrite, and foresees what would be refused."""
    machine = client.cluster.machine
    before = digest(machine.freeze())
    assert machine.check(command([23, client.id, 9, 0, 1, b"a", b"new"])).ok
    assert machine.check(command([24, client.id, 9, 0, 1, b"a", b"new"])).ok
    refused = machine.check(command([25, client.id, 9, 0, 1, [[b"a", 0, b"x"]]]))
    assert why(refused) == (BAD_OPERATION, "corrupted", 0)
    assert digest(machine.freeze()) == before
    # and no write is accepted early while a corruption is on its way
    assert SectionCorrupt in STRUCTURAL
    assert machine.target_uid(command([27, client.id, 9, 0, 1, b"b"])) == 1


def test_delete_and_expiration_remove_it_for_good(client: DrivenSession) -> None:
    assert client.do(21, 1, b"a").ok
    client.create(1, b"a", b"again")
    client.create(1, b"ttl", b"", ttl=SECOND)
    client.do(27, 1, b"ttl")
    assert corrupted(client) == [b"ttl"]
    client.cluster.due(SECOND)
    client.put(1, b"ttl", b"again")
    assert corrupted(client) == []
    assert client.all(1)[b"a"] == b"again"


def test_who_may_corrupt(client: DrivenSession) -> None:
    assert why(client.do(27, 1, b"none")) == (NOT_EXIST, "section_missing", None)
    client.open("x", READ)
    assert why(client.do(27, 2, b"b")) == (ACCESS, "no_right", None)
    assert why(client.do(27, 9, b"b"))[1] == "handle"
    other = client.cluster.session("n2")
    other.open("x", WRITE)
    other.do(14, 1, True)
    assert why(client.do(27, 1, b"b")) == (ACCESS, "fenced", None)
    other.open("y", fields=attributes(ACTIVE | COLLOCATED))
    assert why(other.do(27, 2, b"b")) == (NOT_EXIST, "no_active", None)


def test_the_default_section_too() -> None:
    client = DrivenMachine().session()
    client.open("one", fields=attributes(sections=1))
    assert client.do(27, 1, b"").ok
    assert why(client.ask(100, 1, [[b"", 0, None]])) == (BAD_OPERATION, "corrupted", 0)
    assert corrupted(client) == [b""]
    assert client.do(23, 1, b"", b"new").ok
    assert corrupted(client) == []


def test_the_image_carries_it(client: DrivenSession) -> None:
    cluster = client.cluster
    before = digest(cluster.machine.freeze())
    again = DrivenSession(cluster, client.id, client.secret)
    again.sequence = client.sequence
    cluster.machine = cluster.restored()
    assert digest(cluster.machine.freeze()) == before
    assert corrupted(again) == [b"a"]
    assert why(again.write(1, [b"a", 0, b"x"])) == (BAD_OPERATION, "corrupted", 0)


def test_a_long_listing_shows_the_state_as_it_was() -> None:
    client = DrivenMachine().session()
    client.open("x", fields=attributes(sections=900))
    for number in range(600):
        client.put(1, b"%d" % number, b"")
    client.do(27, 1, b"7")
    every, some = client.ask(103, 1, 5, 0).value[1], client.ask(103, 1, 4, 0).value[1]
    client.put(1, b"7", b"mended")
    client.do(27, 1, b"8")
    assert [row.section_id for row in every.rows() if row.state == 2] == [b"7"]
    for _ in some.prepare():
        pass
    assert [row.section_id for row in some.rows()] == [b"7"]


def test_there_is_a_limit() -> None:
    client = DrivenMachine().session()
    client.open("x", fields=attributes(sections=2 * CORRUPTED_SECTIONS_MAX))
    results: list[Any] = []
    for number in range(CORRUPTED_SECTIONS_MAX + 1):
        client.put(1, b"%d" % number, b"")
        results.append(client.do(27, 1, b"%d" % number))
    assert all(result.ok for result in results[:-1])
    assert why(results[-1]) == (NO_RESOURCES, "limit", None)
    assert CheckpointMachine.restore(client.cluster.machine.freeze()).checkpoints[1].corrupted

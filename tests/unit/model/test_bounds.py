"""Limits of the state: they decide in apply, so what they refuse is refused everywhere."""

from __future__ import annotations

import random
from typing import Any

import pytest

from raftckpt.model.image import digest
from raftckpt.model.sessions import SESSION_BYTES
from tests.unit.model.driver import (
    ACTIVE,
    ALL,
    NEVER,
    SECOND,
    DrivenMachine,
    DrivenSession,
    attributes,
    why,
)
from tests.unit.model.test_footprint import change

INVALID, NO_SPACE, NO_RESOURCES = 7, 15, 18
CREATE, PUT, OVERWRITE, WRITE, APPEND, DELETE = range(1, 7)
QUOTA = 16
MEMORY = 100_000


def limit(cluster: DrivenMachine, *, first: bool = False, **values: int) -> Any:
    (result,) = cluster.apply([70, 0, 0, 0, list(values.items()), first])
    return result


def part(kind: int, section_id: bytes, data: bytes, offset: int = 0) -> list[Any]:
    return [kind, section_id, offset, data, None, NEVER, None]


class Limited:
    """A machine with a memory limit and a section that takes most of what may be used."""

    def __init__(self, flags: int = ALL) -> None:
        self.cluster = DrivenMachine()
        self.client = self.cluster.session()
        wide = attributes(flags, sections=1000, section=MEMORY)
        self.handle = self.client.open(fields=wide)
        self.bounds = self.cluster.machine.bounds
        assert limit(self.cluster, memory=MEMORY, high=80, low=50).ok
        free = MEMORY * 80 // 100 - self.cluster.machine.used - 384
        assert self.client.put(self.handle, b"big", bytes(free - 100)).ok
        assert not self.bounds.full

    def fill(self) -> None:
        """Cross the high mark."""
        assert self.client.put(self.handle, b"more", bytes(1000)).ok
        assert self.bounds.full


GROWING = [
    (24, b"new", b"x"),
    (23, b"big", bytes(90_000)),
    (20, b"new", b"", NEVER, None),
    (25, [[b"big", 90_000, b"x"]]),
    (25, [[b"big", 0, b"x"], [b"big", 85_000, b"x"]]),
    (28, part(PUT, b"new", b"x")),
    (28, part(APPEND, b"big", b"x")),
    (29, [part(OVERWRITE, b"big", b"x"), part(WRITE, b"big", b"x", 90_000)]),
]


@pytest.mark.parametrize("fields", GROWING)
def test_above_the_high_mark_new_data_is_refused(fields: tuple[Any, ...]) -> None:
    limited = Limited()
    limited.fill()
    machine = limited.cluster.machine
    before = machine.revision, machine.names["ckpt"].memory_used
    tag, *rest = fields
    result = limited.client.do(tag, limited.handle, *rest)
    assert why(result)[:2] == (NO_SPACE, "memory")
    assert result.value.detail == MEMORY
    assert (machine.revision, machine.names["ckpt"].memory_used) == before


def test_a_checkpoint_and_a_stage_are_data() -> None:
    limited = Limited()
    limited.fill()
    assert why(limited.client.do(10, "new", 7, attributes()))[:2] == (NO_SPACE, "memory")
    assert why(limited.client.do(26, 1, 0, b"chunk"))[:2] == (NO_SPACE, "memory")
    assert not limited.cluster.machine.sessions[1].stages


def test_everything_else_goes_on() -> None:
    limited = Limited()
    limited.fill()
    client, handle = limited.client, limited.handle
    assert client.put(handle, b"more", bytes(50)).ok  # shrinks
    assert client.write(handle, [b"big", 0, b"other"]).ok
    assert client.do(29, handle, [part(OVERWRITE, b"big", bytes(1000)), part(PUT, b"n", b"x")]).ok
    assert client.do(22, handle, b"big", NEVER, None).ok
    assert client.do(10, "ckpt", 3, None).ok
    assert client.all(handle)
    other = limited.cluster.session()
    assert other.do(2).ok
    assert client.do(21, handle, b"more").ok
    assert client.do(11, handle).ok


def test_marks_have_a_distance() -> None:
    """Full at ``high``, and data again only below ``low``: not to and fro at each write."""
    limited = Limited()
    limited.fill()
    client, handle, machine = limited.client, limited.handle, limited.cluster.machine
    size = len(machine.names["ckpt"].sections[b"big"][0])
    assert client.put(handle, b"big", bytes(size - 5000)).ok
    assert limited.bounds.full
    assert not client.put(handle, b"new", b"x").ok
    assert client.put(handle, b"more", bytes(1000)).ok  # and the refusal is forgotten
    above = machine.used - MEMORY // 2
    assert client.put(handle, b"big", bytes(size - 5000 - above + 1)).ok
    assert limited.bounds.full
    assert client.put(handle, b"big", bytes(size - 5000 - above)).ok
    assert not limited.bounds.full
    assert client.put(handle, b"new", b"x").ok


def test_a_write_that_is_too_large_shuts_out_nobody_else() -> None:
    limited = Limited()
    assert why(limited.client.put(limited.handle, b"huge", bytes(40_000)))[1] == "memory"
    assert not limited.bounds.full
    assert limited.client.put(limited.handle, b"small", b"x").ok


def test_what_may_have_been_accepted_early_has_a_reserve() -> None:
    limited = Limited(ACTIVE)
    limited.fill()
    client, handle, machine = limited.client, limited.handle, limited.cluster.machine
    assert client.put(handle, b"early", bytes(5000)).ok
    assert client.write(handle, [b"early", 4000, bytes(2000)]).ok
    assert not client.do(28, handle, part(PUT, b"late", b"x")).ok, "never accepted early"
    assert client.put(handle, b"more", bytes(1000)).ok  # the refusal is forgotten
    left = MEMORY - machine.used - 384
    assert why(client.put(handle, b"last", bytes(left + 1)))[1] == "memory"
    assert client.put(handle, b"more", bytes(1000)).ok
    assert client.put(handle, b"last", bytes(left)).ok
    assert machine.used == MEMORY


def test_what_is_staged_has_its_room() -> None:
    limited = Limited()
    client, handle = limited.client, limited.handle
    assert client.do(26, 1, 0, bytes(200)).ok
    assert why(client.do(26, 2, 0, bytes(10_000)))[1] == "memory"
    assert not limited.bounds.full, "who writes too much shuts out nobody else"
    limited.fill()
    assert why(client.do(26, 2, 0, b"x"))[1] == "memory"
    assert client.put(handle, b"more", bytes(900)).ok
    assert client.put(handle, b"more", 1).ok
    assert limited.cluster.machine.granted == 0
    assert limited.bounds.full
    assert why(client.put(handle, b"more", bytes(901)))[1] == "memory"


def test_expiry_makes_room() -> None:
    limited = Limited()
    client, cluster = limited.client, limited.cluster
    assert client.create(limited.handle, b"brief", bytes(10_000), ttl=SECOND).ok
    assert client.put(limited.handle, b"big", bytes(1000)).ok
    assert limit(cluster, memory=18_000).ok
    assert limited.bounds.full
    assert cluster.due(2 * SECOND) == 1
    assert not limited.bounds.full


def test_the_first_limit_is_set_once() -> None:
    cluster = DrivenMachine()
    assert limit(cluster, first=True, memory=5000).ok
    assert limit(cluster, first=True, memory=7000).ok
    assert cluster.machine.bounds.value("memory") == 5000
    assert limit(cluster, memory=0).ok
    assert limit(cluster, first=True, memory=7000).ok
    assert cluster.machine.bounds.value("memory") == 0, "no limit, because somebody said so"
    assert cluster.machine.bounds.memory > SESSION_BYTES


@pytest.mark.parametrize(
    "values",
    [{"low": 90}, {"high": 85}, {"high": 99}, {"other": 1}, {"sessions": 0}, {"groups": 10_001}],
)
def test_limits_that_cannot_be_are_refused(values: dict[str, int]) -> None:
    cluster = DrivenMachine()
    assert why(limit(cluster, memory=5000, **values))[:2] == (INVALID, "param")
    assert not cluster.machine.bounds.given


def test_groups_are_limited() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    assert limit(cluster, groups=1).ok
    assert client.do(50, "one", "c", 0, SECOND, 0).ok
    assert why(client.do(50, "two", "c", 0, SECOND, 0))[:2] == (NO_RESOURCES, "limit")


def test_a_quota_holds_and_a_size_alone_does_not() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    told = client.open("told", fields=attributes(size=10))
    assert client.put(told, b"a", bytes(100)).ok
    held = client.open("held", fields=attributes(ALL | QUOTA, size=10))
    assert client.put(held, b"a", bytes(6)).ok
    for fields in (
        (24, b"b", bytes(5)),
        (23, b"a", bytes(11)),
        (20, b"b", bytes(5), NEVER, None),
        (25, [[b"a", 10, b"x"]]),
        (28, part(APPEND, b"a", bytes(5))),
        (29, [part(PUT, b"b", bytes(3)), part(PUT, b"c", bytes(2))]),
    ):
        result = client.do(fields[0], held, *fields[1:])
        assert why(result)[:2] == (NO_SPACE, "checkpoint_full"), fields
        assert result.value.detail == 10
    assert client.do(29, held, [part(DELETE, b"a", b""), part(PUT, b"b", bytes(10))]).ok
    assert client.all(held) == {b"b": bytes(10)}
    assert cluster.restored().names["held"].size_limit == 10


def test_random_changes_within_limits_count_what_there_is() -> None:
    """The count equals a recount, the digest that of a restored state, whatever was refused."""
    refused = 0
    for seed in range(12):
        rng = random.Random(f"bounds/{seed}")
        cluster = DrivenMachine()
        client = cluster.session()
        memory = rng.choice([7000, 9000, 12_000])
        assert limit(cluster, memory=memory, high=70, low=60).ok
        for step in range(150):
            change(rng, cluster, client)
            machine = cluster.machine
            assert sum(each.footprint for each in machine.checkpoints.values()) <= memory
            if step % 25 == 24:
                again = cluster.restored()
                assert again.used == machine.used
                assert digest(again.freeze()) == digest(machine.freeze())
                assert (again.bounds.full, again.bounds.given) == (
                    machine.bounds.full,
                    machine.bounds.given,
                )
            kept = machine.sessions[client.id].replies.kept if client.id in machine.sessions else []
            refused += sum(result.code == NO_SPACE for result in list(kept)[-1:])
    assert refused > 100


def test_a_restored_state_goes_on_refusing() -> None:
    limited = Limited()
    limited.fill()
    again = DrivenMachine(limited.cluster.restored())
    client = DrivenSession(again, 1, b"")
    client.sequence = limited.client.sequence
    assert why(client.put(limited.handle, b"new", b"x"))[1] == "memory"

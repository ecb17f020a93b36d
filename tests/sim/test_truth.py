"""The judge of what clients were told is fair to what happens within one entry, and not blind."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.client.types import Attributes
from raftckpt.model import parts
from raftckpt.protocol.batch import encode_batch
from raftckpt.protocol.contract import SA_TIME_MAX
from raftckpt.protocol.kinds import PartKind
from tests.messages import Tag
from tests.sim.checks import Violation
from tests.sim.nodes import EPOCH_NS
from tests.sim.sabotage import planted
from tests.sim.service import ServiceWorld

TTL_NS = 10**9
DUE = [int(Tag.DUE), 0, 0, 0]


class Entries:
    """A log that is written by hand, with a session that has a checkpoint open."""

    def __init__(self) -> None:
        self.truth = ServiceWorld(1, families=set(), size=1).truth
        self._sequence = 0
        self.apply([int(Tag.SESSION_OPEN), 0, 0, 0, bytes(16), "c", "n1", 10**10, 10**9])
        self.apply(self.command(Tag.CHECKPOINT_OPEN, "c", 7, Attributes().to_wire()))

    def command(self, tag: Any, *fields: Any) -> list[Any]:
        self._sequence += 1
        return [int(tag), 1, self._sequence, self._sequence - 1, *fields]

    def apply(self, *commands: list[Any], at_ns: int = 0) -> int:
        """Commit one entry; returns the revision after it."""
        machine = self.truth.machine
        payload = encode_batch(EPOCH_NS + at_ns, commands)
        self.truth.applied(machine.applied_index + 1, payload)
        return machine.revision

    def create(self, expiration_ns: int, ttl_ns: int | None) -> list[Any]:
        (handle,) = self.truth.machine.sessions[1].handles
        return self.command(Tag.SECTION_CREATE, handle, b"s", b"old", expiration_ns, ttl_ns)

    def change(self, revision: int) -> list[Any]:
        (handle,) = self.truth.machine.sessions[1].handles
        part = [int(PartKind.PUT), b"s", 0, b"new", revision, SA_TIME_MAX, None]
        return self.command(Tag.SECTION_CHANGE, handle, part)

    def content(self) -> dict[bytes, bytes]:
        sections = self.truth.machine.names["c"].sections
        return {name: bytes(section[0]) for name, section in sections.items()}


@pytest.fixture
def entries() -> Entries:
    return Entries()


def test_what_expired_before_a_condition_in_the_same_entry_is_a_conflict(entries: Entries) -> None:
    """A refusal takes no revision: what was left when its turn came is known all the same."""
    revision = entries.apply(entries.create(SA_TIME_MAX, TTL_NS))
    entries.apply(DUE, entries.change(revision), at_ns=TTL_NS)
    assert entries.content() == {}


def test_what_expired_as_it_was_made_is_a_conflict_for_the_next_command(entries: Entries) -> None:
    revision = entries.truth.machine.revision + 1
    entries.apply(entries.create(1, None), entries.change(revision))
    assert entries.content() == {}


def test_what_expires_behind_a_condition_is_none(entries: Entries) -> None:
    revision = entries.apply(entries.create(SA_TIME_MAX, TTL_NS))
    entries.apply(entries.change(revision), DUE, entries.change(revision), at_ns=TTL_NS)
    assert entries.content() == {}


def test_a_conflict_where_the_condition_holds_is_noticed(
    entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = parts._planned

    def planned(checkpoint: Any, now_ns: int, rows: Any, **named: Any) -> Any:
        rows = [(*row[:4], row[4] + 1, *row[5:]) for row in rows]
        return original(checkpoint, now_ns, rows, **named)

    monkeypatch.setattr(parts, "_planned", planned)
    revision = entries.apply(entries.create(SA_TIME_MAX, TTL_NS))
    with pytest.raises(Violation, match="a condition that holds is no conflict"):
        entries.apply(entries.change(revision), DUE, at_ns=TTL_NS)


def test_a_condition_on_what_expired_before_must_not_hold(entries: Entries) -> None:
    revision = entries.apply(entries.create(SA_TIME_MAX, TTL_NS))
    with (
        planted("conditions are not looked at"),
        pytest.raises(Violation, match="a condition holds"),
    ):
        entries.apply(DUE, entries.change(revision), at_ns=TTL_NS)

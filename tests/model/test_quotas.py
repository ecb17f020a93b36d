"""Random quotas against a judge that adds up what there is before each change; equal digests."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftckpt.model.checkpoints import Checkpoint
from raftckpt.model.image import digest
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.quotas import SpaceQuotas
from raftckpt.model.state import State
from raftckpt.protocol.batch import encode_batch
from tests.messages import ask

NEVER = (1 << 63) - 1
QUOTAS = ["checkpoints", "sections", "bytes"]
SPACES = ["", "s/", "s/t", "s/t/"]
NAMES = ["x", "s/x", "s/t", "s/t/x", "s/tx"]
CREATE, PUT, OVERWRITE, WRITE, APPEND, DELETE = range(1, 7)

Sections = dict[bytes, bytes]


class Kept:
    """A checkpoint, as simply as it can be said."""

    def __init__(self, name: str, started: bool) -> None:
        self.name = name
        self.started = started
        self.sections: Sections = {b"": b""} if started else {}
        self.handles = 0
        self.linked = True


class QuotaJudge:
    """What is used and what has room, added up from nothing each time."""

    def __init__(self) -> None:
        self.spaces = {""}
        self.quotas: dict[str, dict[str, int]] = {}
        self.kept: list[Kept] = []

    def space_of(self, name: str) -> str:
        return max((space for space in self.spaces if name.startswith(space)), key=len)

    def used(self, space: str) -> dict[str, int]:
        kept = [each for each in self.kept if self.space_of(each.name) == space]
        return {
            "checkpoints": len(kept),
            "sections": sum(len(each.sections) for each in kept),
            "bytes": sum(len(data) for each in kept for data in each.sections.values()),
        }

    def lacks(self, name: str, **more: int) -> str:
        """The first quota that has no room; "" if all have."""
        space = self.space_of(name)
        given, used = self.quotas.get(space, {}), self.used(space)
        return next(
            (
                quota
                for quota in QUOTAS
                if quota in given and more.get(quota, 0) > 0
                and used[quota] + more[quota] > given[quota]
            ),
            "",
        )  # fmt: skip

    def told(self) -> dict[str, dict[str, tuple[int, int]]]:
        return {
            space: {name: (most, self.used(space)[name]) for name, most in given.items()}
            for space, given in self.quotas.items()
            if given
        }

    def named(self, name: str) -> Kept | None:
        return next((each for each in self.kept if each.linked and each.name == name), None)

    def tidy(self) -> None:
        self.kept = [each for each in self.kept if each.handles]


def after(kept: Kept, parts: list[tuple[int, bytes, int, bytes]]) -> Sections | None:
    """The sections as these leave them; None: they are refused, whatever the quotas."""
    sections = dict(kept.sections)
    for kind, section_id, offset, data in parts:
        there = section_id in sections
        if kept.started and kind in (CREATE, DELETE):
            return None
        if (kind == CREATE and there) or (kind in (OVERWRITE, WRITE, DELETE) and not there):
            return None
        if kind == DELETE:
            del sections[section_id]
        elif kind in (WRITE, APPEND) and there:
            old = sections[section_id]
            at = len(old) if kind == APPEND else offset
            sections[section_id] = old[:at].ljust(at, b"\0") + data + old[at + len(data) :]
        elif kept.started and not there:
            return None
        else:
            sections[section_id] = data
    return sections


class QuotaWorld:
    """Two machines that are told the same, one of them made of images now and then."""

    def __init__(self) -> None:
        self.machine, self.other = CheckpointMachine(), CheckpointMachine()
        self.judge = QuotaJudge()
        secret = b"s" * 16
        self.session = self.apply([1, 0, 0, 0, secret, "app", "n1", 10**10, 0]).value[0]
        self.sequence = 0
        self.handles: list[tuple[int, Kept]] = []
        self.lacked: list[str] = []

    def apply(self, command: list[Any]) -> Any:
        payload = encode_batch(10**18, [command])
        index = self.machine.applied_index + 1
        (one,), (two,) = self.machine.apply(index, payload), self.other.apply(index, payload)
        assert one == two
        return one

    def do(self, tag: int, *fields: Any) -> Any:
        self.sequence += 1
        return self.apply([tag, self.session, self.sequence, self.sequence - 1, *fields])

    def expect(self, result: Any, name: str, lacks: str) -> None:
        """What the judge says is what was answered."""
        if lacks:
            self.lacked.append(lacks)
            assert not result.ok, lacks
            space = self.judge.space_of(name)
            most = self.judge.quotas[space][lacks]
            assert result.value[:2] == ("space_quota", [lacks, most, space])
        else:
            assert result.ok, result

    def open(self, name: str, started: bool) -> None:
        attributes = [1, 0, 0, 1 if started else 50, 10_000, 0 if started else 8]
        kept = self.judge.named(name)
        if kept is None:
            kept = Kept(name, started)
            lacks = self.judge.lacks(name, checkpoints=1, sections=int(started))
        else:
            lacks, attributes[3], attributes[5] = "", *((1, 0) if kept.started else (50, 8))
        result = self.do(10, name, 7, attributes)
        self.expect(result, name, lacks)
        if result.ok:
            if not kept.handles:
                self.judge.kept.append(kept)
            kept.handles += 1
            self.handles.append((result.value[0], kept))

    def close(self, which: int) -> None:
        if self.handles:
            handle, kept = self.handles.pop(which % len(self.handles))
            assert self.do(11, handle).ok
            kept.handles -= 1
            self.judge.tidy()

    def unlink(self, name: str) -> None:
        kept = self.judge.named(name)
        assert self.do(12, name).ok == (kept is not None)
        if kept is not None:
            kept.linked = False

    def write(self, which: int, how: str, drawn: list[tuple[int, bytes, int, bytes]]) -> None:
        """Any change of sections; one alone goes by the command of its own where there is one."""
        if not self.handles:
            return
        handle, kept = self.handles[which % len(self.handles)]
        parts = [
            (kind, b"" if kept.started else section_id, offset, b"" if kind == DELETE else data)
            for kind, section_id, offset, data in drawn
        ]
        kind, section_id, offset, data = parts[0]
        alone = {
            CREATE: (20, section_id, data, NEVER, None),
            PUT: (24, section_id, data),
            OVERWRITE: (23, section_id, data),
            WRITE: (25, [[section_id, offset, data]]),
            DELETE: (21, section_id),
        }
        if how == "several":
            rows = [self.row(part) for part in parts]
            tag, fields = 29, [rows]
        elif how == "alone" and kind in alone:
            parts = parts[:1]
            tag, *fields = alone[kind]
        elif how == "staged" and kind == PUT and data:
            parts = parts[:1]
            assert self.do(26, 1, 0, data).ok
            tag, fields = 24, [section_id, 1]
        else:
            parts = parts[:1]
            tag, fields = 28, [self.row(parts[0])]
        sections = after(kept, parts)
        result = self.do(tag, handle, *fields)
        if sections is None:
            assert not result.ok
            assert result.value.reason != "space_quota"
            return
        more = sum(map(len, sections.values())) - sum(map(len, kept.sections.values()))
        lacks = self.judge.lacks(kept.name, sections=len(sections) - len(kept.sections), bytes=more)
        self.expect(result, kept.name, lacks)
        if result.ok:
            kept.sections = sections

    @staticmethod
    def row(part: tuple[int, bytes, int, bytes]) -> list[Any]:
        kind, section_id, offset, data = part
        return [kind, section_id, offset if kind == WRITE else 0, data, None, NEVER, None]

    def space(self, prefix: str) -> None:
        """Make it, or delete it if it is there."""
        judge = self.judge
        if prefix in judge.spaces:
            assert self.do(67, prefix, None).ok == (prefix != "")
            if prefix:
                judge.spaces.discard(prefix)
                judge.quotas.pop(prefix, None)
        else:
            assert self.do(64, prefix, None).ok
            judge.spaces.add(prefix)

    def quota(self, prefix: str, values: list[tuple[str, int]]) -> None:
        result = self.do(71, prefix, [list(each) for each in values], None)
        assert result.ok == (prefix in self.judge.spaces)
        if result.ok:
            given = self.judge.quotas.setdefault(prefix, {}) | dict(values)
            self.judge.quotas[prefix] = {name: most for name, most in given.items() if most}

    def compare(self) -> None:
        """Each machine tells what the judge adds up."""
        for machine in (self.machine, self.other):
            rows = ask(machine, None, 143).value[2]
            assert {row[0] for row in rows} == self.judge.spaces
            told = {
                row[0]: {name: (most, used) for name, most, used in row[2]}
                for row in rows
                if len(row) > 2
            }
            assert told == self.judge.told()
            for checkpoint in machine.checkpoints.values():
                assert checkpoint.memory_used == sum(
                    len(s[0]) for s in checkpoint.sections.values()
                )

    def image(self) -> None:
        self.other = CheckpointMachine.restore(self.machine.freeze())
        assert digest(self.other.freeze()) == digest(self.machine.freeze())


PART = st.tuples(
    st.integers(1, 6),
    st.sampled_from([b"a", b"b", b"c"]),
    st.integers(0, 30),
    st.sampled_from([b"", b"1", b"12345", b"x" * 20]),
)
WHICH = st.integers(0, 9)
WRITES = st.tuples(
    st.just("write"),
    WHICH,
    st.sampled_from(["alone", "alone", "part", "several", "staged"]),
    st.lists(PART, min_size=1, max_size=4),
)
MOST = st.sampled_from([0, 1, 2, 3, 5, 10, 30, 60, 10**12])
VALUES = st.lists(st.tuples(st.sampled_from(QUOTAS), MOST), min_size=1, max_size=3)
STEP = st.one_of(
    WRITES,
    WRITES,
    WRITES,
    st.tuples(st.just("open"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("open"), st.sampled_from(NAMES), st.just(False)),
    st.tuples(st.just("close"), WHICH),
    st.tuples(st.just("unlink"), st.sampled_from(NAMES)),
    st.tuples(st.just("space"), st.sampled_from(SPACES)),
    st.tuples(st.just("quota"), st.sampled_from(SPACES), VALUES),
    st.tuples(st.just("quota"), st.just(""), VALUES),
    st.just(("image",)),
)
EXAMPLES = int(os.environ.get("RAFTCKPT_FUZZ_EXAMPLES", "60"))


def play(steps: list[tuple[Any, ...]]) -> QuotaWorld:
    """Do the steps and compare after each."""
    world = QuotaWorld()
    for name, *fields in steps:
        getattr(world, name)(*fields)
        world.compare()
    world.image()
    return world


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_quotas_are_what_the_judge_says(steps: list[tuple[Any, ...]]) -> None:
    play(steps)


FULL: list[tuple[Any, ...]] = [
    ("space", "s/"),
    ("quota", "s/", [("checkpoints", 2), ("sections", 2), ("bytes", 20)]),
    ("open", "s/x", False),
    ("open", "s/t", False),
    ("open", "s/t/x", False),
    ("write", 0, "alone", [(PUT, b"a", 0, b"12345")]),
    ("write", 0, "alone", [(PUT, b"a", 0, b"12")]),
    ("write", 1, "part", [(APPEND, b"b", 0, b"x" * 20)]),
    ("write", 1, "several", [(PUT, b"b", 0, b"12345"), (WRITE, b"b", 13, b"12345")]),
    ("write", 0, "alone", [(CREATE, b"c", 0, b"")]),
    ("image",),
    ("unlink", "s/x"),
    ("write", 1, "alone", [(DELETE, b"b", 0, b"")]),
    ("write", 1, "staged", [(PUT, b"b", 0, b"12345")]),
    ("open", "s/x", False),
    ("close", 0),
    ("open", "s/x", False),
    ("space", "s/t"),
    ("space", "s/"),
    ("quota", "", [("bytes", 1)]),
    ("write", 0, "alone", [(WRITE, b"b", 5, b"1")]),
    ("image",),
]


def test_a_history_in_which_each_quota_is_full() -> None:
    assert set(play(FULL).lacked) == set(QUOTAS)


def _uncounted_sections(self: SpaceQuotas, checkpoints: int, sections: int, size: int) -> None:
    self.checkpoints += checkpoints
    self.bytes += size


def _without_its_space(self: Checkpoint, more: int, sections: int = 0) -> None:
    return None


@pytest.mark.parametrize(
    ("where", "name", "bug"),
    [
        (SpaceQuotas, "count", _uncounted_sections),
        (SpaceQuotas, "left", lambda self, name: NEVER),
        (Checkpoint, "refuse_more", _without_its_space),
        (State, "regroup", lambda self, prefix: None),
    ],
)
def test_planted_bugs_are_caught(
    where: Any, name: str, bug: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, bug)
    with pytest.raises(AssertionError):
        play(FULL)

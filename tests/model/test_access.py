"""Random principals, spaces and grants against a judge of sixty lines; equal digests of all."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from raftckpt.model.image import digest
from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol.batch import encode_batch
from tests.messages import ask

READ, WRITE, CREATE, DROP, OPERATE = 1, 2, 4, 8, 16
ATTRIBUTES = [1, 0, (1 << 63) - 1, 100, 1000, 64]
NEVER = (1 << 63) - 1
PRINCIPALS = ["a", "b", "c"]
NAMES = ["x", "s/x", "s/t/x", "s/t", "s/tt"]
SPACES = ["", "s/", "s/t", "s/t/", "s/tt"]
UNREACHED = [[["checkpoints", 10**6]], [["sections", 10**9]], [["bytes", 10**12]]]
"""Quotas that change nothing of what who may do; tests/model/test_quotas.py reaches them."""


class RightsJudge:
    """Who may do what, as simply as it can be said."""

    def __init__(self) -> None:
        self.on = False
        self.principals: set[str] = set()
        self.grants: dict[str, dict[str, set[int]]] = {"": {}}
        self.quotas: dict[str, dict[str, int]] = {}
        self.there: set[str] = set()
        self.opened: dict[str, dict[int, tuple[str, set[int]]]] = {}

    def rights(self, who: str, name: str) -> set[int]:
        if not self.on:
            return {READ, WRITE, CREATE, DROP, OPERATE}
        fitting = [space for space in self.grants if name.startswith(space)]
        return self.grants[max(fitting, key=len)].get(who, set())

    def operates(self, who: str) -> bool:
        return not self.on or OPERATE in self.grants[""].get(who, set())

    def operators(self) -> list[str]:
        return [who for who in self.principals if OPERATE in self.grants[""].get(who, set())]

    def may_open(self, who: str, name: str, wanted: set[int], creates: bool) -> str:
        rights = self.rights(who, name)
        seen = bool(rights & {READ, WRITE})
        if not (name in self.there and seen):
            if not creates:
                return "checkpoint_missing"
            if CREATE not in rights:
                return "not_granted"
        return "" if rights & wanted else "not_granted"

    def may_unlink(self, who: str, name: str) -> str:
        rights = self.rights(who, name)
        if DROP in rights:
            return "" if name in self.there else "checkpoint_missing"
        seen = bool(rights & {READ, WRITE})
        return "not_granted" if seen and name in self.there else "checkpoint_missing"

    def may_put(self, who: str, handle: int) -> str:
        name, wanted = self.opened[who][handle]
        if WRITE not in self.rights(who, name):
            return "not_granted"
        return "" if WRITE in wanted else "no_right"


class GrantsWorld:
    """Two machines that are told the same, one of them made of images now and then."""

    def __init__(self) -> None:
        self.machine, self.other = CheckpointMachine(), CheckpointMachine()
        self.judge = RightsJudge()
        self.sessions: dict[str, list[int]] = {}
        """Session and its last sequence."""
        self.tokens = 0
        for who in PRINCIPALS:
            self.principal(who)
        self.change(65, "", "a", OPERATE)
        self.change(60, True)

    def apply(self, command: list[Any]) -> Any:
        payload = encode_batch(10**18, [command])
        index = self.machine.applied_index + 1
        (one,), (two,) = self.machine.apply(index, payload), self.other.apply(index, payload)
        assert one == two
        return one

    def image(self) -> None:
        self.other = CheckpointMachine.restore(self.machine.freeze())
        assert digest(self.other.freeze()) == digest(self.machine.freeze())

    def session(self, who: str) -> list[int]:
        session = self.sessions.get(who)
        if session is None or session[0] not in self.machine.sessions:
            known = self.machine.access.by_name.get(who)
            secret = len(self.machine.sessions).to_bytes(8, "big") + self.tokens.to_bytes(8, "big")
            self.tokens += 1
            fields = [0, 0, 0, secret, who, "n1", 10**10, 0]
            command = [1, *fields] if not self.judge.on else [69, *fields, known.number]
            session = self.sessions[who] = [self.apply(command).value[0], 0]
            self.judge.opened[who] = {}
        return session

    def do(self, who: str, tag: int, *fields: Any) -> Any:
        session = self.session(who)
        session[1] += 1
        return self.apply([tag, session[0], session[1], session[1] - 1, *fields])

    def principal(self, who: str) -> None:
        self.tokens += 1
        by = self.judge.operators()[0] if self.judge.on else who
        self.do(by, 61, who, f"t{self.tokens}", b"d" * 32, NEVER, False, None)
        self.judge.principals.add(who)

    def change(self, tag: int, *fields: Any) -> None:
        """An operator's change, which the judge is told if it was made."""
        by = self.judge.operators()[0] if self.judge.on else "a"
        result, judge = self.do(by, tag, *fields, None), self.judge
        if not result.ok:
            return
        match tag, fields:
            case 60, (on,):
                judge.on = on
            case 64, (space,):
                judge.grants[space] = {}
            case 67, (space,):
                del judge.grants[space]
                judge.quotas.pop(space, None)
            case 71, (space, [[name, most]]):
                judge.quotas.setdefault(space, {})[name] = most
            case 65 | 66, (space, who, rights):
                bits = {bit for bit in (READ, WRITE, CREATE, DROP, OPERATE) if bit & rights}
                held = judge.grants[space].setdefault(who, set())
                held |= bits
                if tag == 66:
                    held -= bits
            case 63, (who,):
                judge.principals.discard(who)
                for grants in judge.grants.values():
                    grants.pop(who, None)

    def rotate(self, who: str) -> None:
        """Another token, which changes nothing of who may do what."""
        self.tokens += 1
        by = self.judge.operators()[0] if self.judge.on else "a"
        token = f"t{self.tokens}", b"d" * 32, NEVER
        result = self.do(by, 62, who, *token, 0, None)
        assert result.ok == (who in self.judge.principals)

    def limit(self, name: str, value: int) -> None:
        """Limits of the state that are never reached here: told as they were set."""
        if name == "memory":
            value <<= 40
        before = self.told_limits()
        result = self.apply([70, 0, 0, 0, [[name, value]], False])
        assert self.told_limits() == (before | {name: value} if result.ok else before)

    def told_limits(self) -> dict[str, int]:
        rows = ask(self.machine, None, 151).value[1]
        return {row[0]: row[1] for row in rows}

    def asked(self) -> None:
        """What operators are told is what the judge knows, and nobody else is told it."""
        judge = self.judge
        for who in sorted(judge.principals):
            number = self.machine.access.by_name[who].number
            on, operators = ask(self.machine, None, 140, principal=number).value[1::4]
            assert on == judge.on
            assert operators == len(judge.operators())
            assert ask(self.machine, None, 141, principal=number).value[1] == who
            allowed = not judge.on or who in judge.operators()
            principals = ask(self.machine, None, 142, principal=number)
            spaces = ask(self.machine, None, 143, principal=number)
            assert principals.ok == spaces.ok == allowed
            if allowed:
                assert {row[0] for row in principals.value[2]} == judge.principals
                assert {row[0] for row in spaces.value[2]} == judge.grants.keys()
                told = {
                    row[0]: {each[0]: each[1] for each in row[2]}
                    for row in spaces.value[2]
                    if row[2:]
                }
                assert told == {space: given for space, given in judge.quotas.items() if given}

    def check(self, who: str, name: str, wanted: int) -> None:
        """Ask everything of one principal about one name."""
        if who not in self.judge.principals:
            return
        judge, bits = self.judge, {bit for bit in (READ, WRITE) if bit & wanted}
        creates = bool(wanted & CREATE)
        self.session(who)
        expected = judge.may_open(who, name, bits or {READ, WRITE}, creates)
        result = self.do(who, 10, name, wanted, ATTRIBUTES if creates else None)
        assert (result.value.reason if not result.ok else "") == expected, (who, name, wanted)
        if result.ok:
            judge.there.add(name)
            judge.opened[who][result.value[0]] = (name, bits)
        for handle in list(judge.opened[who]):
            put = self.do(who, 24, handle, b"k", b"v")
            assert (put.value.reason if not put.ok else "") == judge.may_put(who, handle)
        number = self.machine.access.by_name[who].number
        seen = ask(self.machine, None, 104, principal=number).value[1]
        readable = {each for each in judge.there if READ in judge.rights(who, each)}
        assert {row.name for row in seen if not row.unlinked} == readable
        unlinks = judge.may_unlink(who, name)
        result = self.do(who, 12, name)
        assert (result.value.reason if not result.ok else "") == unlinks
        if result.ok:
            judge.there.discard(name)


grants = st.integers(1, 31)
changes = st.one_of(
    st.tuples(st.just(64), st.sampled_from(SPACES)),
    st.tuples(st.just(67), st.sampled_from(SPACES)),
    st.tuples(
        st.sampled_from([65, 65, 66]), st.sampled_from(SPACES), st.sampled_from(PRINCIPALS), grants
    ),
    st.tuples(st.just(60), st.booleans()),
    st.tuples(st.just(63), st.sampled_from(PRINCIPALS)),
    st.tuples(st.just(71), st.sampled_from(SPACES), st.sampled_from(UNREACHED)),
)
checks = st.tuples(
    st.just("check"), st.sampled_from(PRINCIPALS), st.sampled_from(NAMES), st.integers(1, 7)
)
again = st.tuples(st.just("again"), st.sampled_from(PRINCIPALS))
rotates = st.tuples(st.just("rotate"), st.sampled_from(PRINCIPALS))
limits = st.tuples(
    st.just("limits"), st.sampled_from(["memory", "high", "low", "groups"]), st.integers(0, 100)
)
STEP = st.one_of(changes, checks, again, rotates, limits, st.just(("asked",)), st.just(("image",)))


def play(chosen: list[tuple[Any, ...]]) -> None:
    """Do the steps and compare after each."""
    world = GrantsWorld()
    for step in chosen:
        match step:
            case ("check", who, name, wanted):
                world.check(who, name, wanted)
            case ("again", who):
                if who not in world.judge.principals:
                    world.principal(who)
            case ("rotate", who):
                world.rotate(who)
            case ("limits", name, value):
                world.limit(name, value)
            case ("asked",):
                world.asked()
            case ("image",):
                world.image()
            case (tag, *fields):
                world.change(tag, *fields)
    world.image()


@settings(max_examples=int(os.environ.get("RAFTCKPT_FUZZ_EXAMPLES", "30")), deadline=None)
@given(st.lists(STEP, max_size=40))
def test_rights_are_what_the_judge_says(chosen: list[tuple[Any, ...]]) -> None:
    play(chosen)

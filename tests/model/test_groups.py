"""Any history of a service group keeps what it promises, and its image tells all of it.

Components are modelled as they are: each learns its assignments late (``hear``), believes that it
is active from then until it has answered something else, and writes while it believes so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from raftckpt.model import assignments
from raftckpt.model.checkpoints import FENCED, WRITE
from raftckpt.model.groups import AdminState, HaState, Member, ServiceGroup
from raftckpt.model.image import digest
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.sessions import Session
from raftckpt.protocol.batch import encode_batch
from tests.messages import ask

SECOND = 10**9
GROUPS = ("g", "h")
HOLDING = (HaState.ACTIVE, HaState.QUIESCED, HaState.QUIESCING)

WHO = st.integers(0, 3)
STEP = st.one_of(
    st.tuples(st.just("join"), WHO, st.sampled_from(GROUPS), st.integers(0, 1)),
    st.tuples(st.just("hear"), WHO, st.sampled_from(GROUPS)),
    st.tuples(st.just("hear"), WHO, st.sampled_from(GROUPS)),
    st.tuples(
        st.just("answer"), WHO, st.sampled_from(GROUPS), st.sampled_from([True] * 6 + [False])
    ),
    st.tuples(st.just("answer"), WHO, st.sampled_from(GROUPS), st.just(True)),
    st.tuples(st.just("leave"), WHO, st.sampled_from(GROUPS), st.booleans()),
    st.tuples(
        st.just("admin"), st.sampled_from(GROUPS), st.integers(1, 6), st.one_of(st.none(), WHO)
    ),
    st.tuples(st.just("silent"), WHO, st.sampled_from(GROUPS), st.booleans()),
    st.tuples(st.just("die"), st.lists(WHO, min_size=1, max_size=2, unique=True)),
    st.tuples(st.just("bye"), WHO),
    st.tuples(st.just("stale"), WHO, st.sampled_from(GROUPS), st.integers(0, 40), st.booleans()),
    st.tuples(st.just("ask"), WHO, st.sampled_from(GROUPS)),
    st.tuples(st.just("restore")),
)


class GroupsRun:
    """A machine, its double that is restored again and again, and four sessions."""

    def __init__(self) -> None:
        self.machine = CheckpointMachine()
        self.double = CheckpointMachine()
        self.clients: list[list[int]] = []
        self.secret = 0
        self.heard: dict[tuple[int, str], int] = {}
        self.believes: set[tuple[int, str]] = set()
        self.numbers: dict[int, int] = {}
        self.newest = 0
        for who in range(4):
            self.clients.append([0, 0, 0])
            self.open(who)

    def apply(self, command: list[Any]) -> Any:
        payload = encode_batch(SECOND, [command])
        (result,) = self.machine.apply(self.machine.applied_index + 1, payload)
        (again,) = self.double.apply(self.double.applied_index + 1, payload)
        assert result == again
        self.look()
        return result

    def do(self, who: int, tag: int, *fields: Any) -> Any:
        client = self.clients[who]
        client[1] += 1
        return self.apply([tag, client[0], client[1], client[1] - 1, *fields])

    def open(self, who: int) -> None:
        self.secret += 1
        secret = self.secret.to_bytes(16, "big")
        number = self.apply([1, 0, 0, 0, secret, "c", f"n{who}", 10 * SECOND, 0]).value[0]
        self.clients[who] = [number, 0, 0]
        attributes = [1, 0, 2**63 - 1, 10, 100, 10]
        self.clients[who][2] = self.do(who, 10, "ckpt", 7, attributes).value[0]
        for group in GROUPS:
            self.heard.pop((who, group), None)
            self.believes.discard((who, group))

    def member(self, who: int, group: str) -> Member | None:
        record = self.machine.groups.by_name.get(group)
        if record is None:
            return None
        for member in (*record.members.values(), *record.removed.values()):
            if member.session == self.clients[who][0]:
                return member
        return None

    # --- steps --------------------------------------------------------------------------------
    def step(self, step: tuple[Any, ...]) -> None:
        getattr(self, "do_" + step[0])(*step[1:])

    def do_join(self, who: int, group: str, rank: int) -> None:
        if self.do(who, 50, group, f"c{who}", rank, SECOND, 0).ok:
            self.heard.pop((who, group), None)

    def do_hear(self, who: int, group: str) -> None:
        member = self.member(who, group)
        if member is not None:
            self.heard[who, group] = member.assignment
            if member.state == HaState.ACTIVE:
                self.believes.add((who, group))
            self.look_at_beliefs()

    def do_answer(self, who: int, group: str, ok: bool) -> None:
        member, number = self.member(who, group), self.heard.get((who, group))
        if member is None or number is None:
            return
        if number == member.assignment and member.state != HaState.ACTIVE and ok:
            self.believes.discard((who, group))  # it stopped before it says so
        self.do(who, 52, group, f"c{who}", number, ok)

    def do_stale(self, who: int, group: str, number: int, ok: bool) -> None:
        member = self.member(who, group)
        if member is None or number != member.assignment:
            assert not self.do(who, 52, group, f"c{who}", number, ok).ok

    def do_leave(self, who: int, group: str, failed: bool) -> None:
        believed = (who, group) in self.believes
        self.believes.discard((who, group))
        if not self.do(who, 51, group, f"c{who}", failed).ok and believed:
            self.believes.add((who, group))

    def do_admin(self, group: str, operation: int, target: int | None) -> None:
        self.apply_by_operator([group, operation, None if target is None else f"c{target}"])

    def apply_by_operator(self, fields: list[Any]) -> None:
        self.do(0, 53, *fields)

    def do_silent(self, who: int, group: str, health: bool) -> None:
        member = self.member(who, group)
        if member is not None:
            row = [member.number, 0 if health else member.assignment]
            self.apply([54, 0, 0, 0, [row]])

    def do_die(self, whos: list[int]) -> None:
        self.apply_deaths([self.clients[who][0] for who in whos], whos)
        for who in whos:
            self.open(who)

    def apply_deaths(self, sessions: list[int], whos: list[int]) -> None:
        for who in whos:  # the dead believe nothing
            self.believes -= {(who, group) for group in GROUPS}
        self.apply([3, 0, 0, 0, sessions])

    def do_bye(self, who: int) -> None:
        self.believes -= {(who, group) for group in GROUPS}
        self.do(who, 2)
        self.open(who)

    def do_ask(self, who: int, group: str) -> None:
        """What is told of a group is what there is, and the double tells the same."""
        for tag, *fields in ((115,), (116, group), (117,)):
            told = ask(self.machine, self.clients[who][0], tag, *fields)
            assert told == ask(self.double, self.clients[who][0], tag, *fields)
            assert told.ok == (tag != 116 or group in self.machine.groups.by_name)
            if tag == 115:
                assert len(told.value[1]) == len(self.machine.groups.by_name)

    def do_restore(self) -> None:
        assert digest(self.machine.freeze()) == digest(self.double.freeze())
        self.double = CheckpointMachine.restore(self.double.freeze())

    # --- what must hold -----------------------------------------------------------------------
    def look(self) -> None:
        for group in self.machine.groups.by_name.values():
            self.look_at(group)
        for number, member in self.machine.groups.told.items():
            assert member.assignment > self.newest, "numbers grow"
            assert member.revision <= self.machine.revision
            assert number == member.number
        if self.machine.groups.told:
            self.newest = max(member.assignment for member in self.machine.groups.told.values())
        for session in self.machine.sessions.values():
            self.look_at_session(session)
        self.look_at_beliefs()

    def look_at_beliefs(self) -> None:
        for group_name in GROUPS:
            unfenced = [
                who
                for who, group in self.believes
                if group == group_name and self.may_write(self.clients[who][0])
            ]
            assert len(unfenced) <= 1, "two components write as active ones"

    def may_write(self, number: int) -> bool:
        session = self.machine.sessions.get(number)
        return session is not None and any(flags & WRITE for _, flags in session.handles.values())

    def look_at(self, group: ServiceGroup) -> None:
        holders = [m.name for m in group.members.values() if m.state in HOLDING]
        assert holders == ([group.active] if group.active else [])
        if group.admin == AdminState.UNLOCKED:
            assert group.holder is not None or not group.members, "somebody serves"
            assert all(m.state != HaState.UNASSIGNED for m in group.members.values())
        elif group.holder is not None:
            wanted = {AdminState.SHUTTING_DOWN: HaState.QUIESCING}
            assert group.holder.state == wanted.get(AdminState(group.admin), HaState.QUIESCED)
            assert not group.holder.answered
        assert all(m.assignment for m in group.members.values()), "everybody was told"
        assert all(m.state == HaState.REMOVED for m in group.removed.values())

    def look_at_session(self, session: Session) -> None:
        members = [self.machine.groups.members[number] for number in session.members]
        assert session.fences == sum(m.state == HaState.REMOVED for m in members)
        for _, flags in session.handles.values():
            assert bool(flags & FENCED) == bool(session.fences)

    def settle(self) -> None:
        """When everybody hears and answers, every group comes to rest."""
        for _ in range(5):
            for who in range(4):
                for group in GROUPS:
                    self.do_hear(who, group)
                    self.do_answer(who, group, True)
        for group in self.machine.groups.by_name.values():
            states = sorted(member.state for member in group.members.values())
            assert all(member.answered for member in group.members.values())
            assert not group.removed
            if group.admin == AdminState.UNLOCKED:
                assert states == [1, *[2] * (len(states) - 1)][: len(states)]
            else:
                assert group.admin != AdminState.SHUTTING_DOWN
                assert set(states) <= {HaState.UNASSIGNED}


def play(steps: list[tuple[Any, ...]]) -> None:
    run = GroupsRun()
    for step in steps:
        run.step(step)
    run.settle()
    run.do_restore()
    for step in steps[:5]:
        run.step(step)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP, max_size=60))
def test_any_history(steps: list[tuple[Any, ...]]) -> None:
    play(steps)


# --- the checker catches what it is there for -----------------------------------------------------
OPENING = [
    *[("join", who, "g", 0) for who in range(3)],
    *[(word, who, "g", *rest) for who in range(3) for word, *rest in (["hear"], ["answer", True])],
]


def no_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_flip", lambda self, flag: None)


def no_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(state: Any, group: Any, holder: Any, successor: str) -> None:
        assignments._relieve(state, group, holder)

    monkeypatch.setattr(assignments, "swap", swap)


def no_heir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignments, "settle_ended", lambda state: None)
    monkeypatch.setattr("raftckpt.model.lifecycle.settle_ended", lambda state: None)


@pytest.mark.parametrize(
    ("sabotage", "steps"),
    [
        (no_fence, [("silent", 0, "g", True), ("hear", 1, "g")]),
        (no_asking, [("admin", "g", 4, None), ("hear", 1, "g")]),
        (no_heir, [("die", [0])]),
    ],
)
def test_the_checker_catches(
    sabotage: Callable[[pytest.MonkeyPatch], None],
    steps: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play([*OPENING, *steps])
    sabotage(monkeypatch)
    with pytest.raises(AssertionError):
        play([*OPENING, *steps])

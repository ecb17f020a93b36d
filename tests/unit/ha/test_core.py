"""A component without IO: what it asks for, in which order, and what it keeps for later."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.client.config import CoreConfig
from raftckpt.client.core import ClientCore
from raftckpt.errors import (
    BadOperation,
    Exist,
    Fenced,
    InvalidParam,
    NotExist,
    SessionLost,
    Timeout,
    TooBig,
    TryAgain,
)
from raftckpt.ha._core import Callbacks, Invoke, Membership, Pause, Run, Sync
from raftckpt.ha.types import LATER, Assignment
from raftckpt.model.groups import HaState
from raftckpt.protocol.check import array_of
from raftckpt.protocol.operations import ComponentAlive
from raftckpt.protocol.replies import CONSISTENCY_LOCAL

JOIN, LEAVE, RESPOND = 50, 51, 52


def role(number: int, state: int, reason: str = "first", **more: Any) -> dict[str, Any]:
    return {
        "group": "g", "component": "c", "member": 7, "assignment": number, "state": state,
        "reason": reason, "transition": 0, "previous": "", "active": "c", "rank": 0, "epoch": 3,
        "revision": 11, "answered": False, **more,
    }  # fmt: skip


class Face:
    """Does what the core asks for, as scripted, and notes it."""

    def __init__(self, **options: Any) -> None:
        config = CoreConfig(client_name="t", node=None, session_timeout_ns=10**10)
        self.core = ClientCore(config, ["127.0.0.1:1"], secret=b"s" * 16, jitter=lambda: 0.0)
        self.told: list[Assignment] = []
        self.verdict: Any = None
        self.wakes = 0
        self.did: list[Any] = []
        self.answers: list[Any] = []
        self.patience: list[float | None] = []
        self.now = 0.0
        callback = self.callback
        self.membership = Membership(
            self.core,
            "g",
            "c",
            Callbacks(callback, callback, callback, callback, callback),
            **{"rank": 0, "response_timeout": 10.0, "health_check": None, "rejoin": True} | options,
        )
        self.membership.serve(self.woken)

    def woken(self) -> None:
        self.wakes += 1

    def callback(self, assignment: Assignment) -> Any:
        self.told.append(assignment)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def clock(self) -> float:
        return self.now

    def do(self, step: Any) -> Any:
        if isinstance(step, Run):
            fields = array_of(step.call.message)
            self.patience.append(step.timeout)
            self.did.append((fields[0], *fields[6:8]))
            answer = self.answers.pop(0) if self.answers else [7, 1]
            if isinstance(answer, Exception):
                raise answer
            return answer
        if isinstance(step, Invoke):
            return step.callback(step.assignment)
        self.did.append(step)
        if isinstance(step, Pause):
            self.now += step.seconds
        return None

    def drive(self, steps: Any) -> Any:
        value, error = None, None
        while True:
            try:
                step = steps.throw(error) if error else steps.send(value)
            except StopIteration as stop:
                return stop.value
            value = error = None
            try:
                value = self.do(step)
            except Exception as raised:
                error = raised

    def work(self) -> Any:
        return self.drive(self.membership.work(self.clock, 5.0))

    def put(self, *fields: Any, **more: Any) -> None:
        self.core.roles.put(role(*fields, **more))


@pytest.fixture
def face() -> Face:
    return Face()


def test_changes_come_before_active_and_the_answer_after_it(face: Face) -> None:
    face.put(3, 1)
    assert face.wakes == 1
    assert face.work() == 1
    assert face.did == [Sync(11), (RESPOND, 3, True)]
    assert face.told[0].state is HaState.ACTIVE
    assert face.membership.current is face.told[0]
    assert face.work() == 0


def test_only_the_newest_is_carried_out_and_repeats_are_not(face: Face) -> None:
    face.put(3, 2)
    face.put(5, 1)
    face.put(4, 3)
    assert face.work() == 1
    assert [item.number for item in face.told] == [5]
    face.put(5, 1)
    face.put(5, 1, answered=True)
    face.put(6, 1, answered=True)
    assert face.work() == 0


def test_others_are_not_listened_to(face: Face) -> None:
    face.core.roles.put(role(3, 1) | {"component": "other"})
    assert face.wakes == 0
    assert face.work() == 0


def test_an_answer_that_cannot_be_taken_now_is_given_again(face: Face) -> None:
    face.answers = [TryAgain(), Timeout()]
    face.put(3, 2)
    face.work()
    assert face.membership.patience(0.0, 60.0) < 1.0
    face.work()
    face.work()
    assert face.did == [(RESPOND, 3, True)] * 3
    assert face.membership.patience(0.0, 60.0) == 60.0
    assert len(face.told) == 1


@pytest.mark.parametrize("error", [BadOperation(), NotExist(), SessionLost()])
def test_an_answer_to_something_old_is_dropped(face: Face, error: Exception) -> None:
    face.answers = [error]
    face.put(3, 2)
    face.work()
    face.work()
    assert face.did == [(RESPOND, 3, True)]


def test_a_callback_that_raises_says_no(face: Face) -> None:
    face.verdict = ZeroDivisionError()
    face.put(3, 2)
    with pytest.raises(ZeroDivisionError):
        face.work()
    assert face.did == [(RESPOND, 3, False)]


def test_a_tracker_that_cannot_catch_up_says_no(face: Face, monkeypatch: Any) -> None:
    do = face.do

    def stuck(step: Any) -> Any:
        if isinstance(step, Sync):
            raise Timeout("behind")
        return do(step)

    monkeypatch.setattr(face, "do", stuck)
    face.put(3, 1)
    with pytest.raises(Timeout):
        face.work()
    assert face.told == []
    assert face.did == [(RESPOND, 3, False)]


@pytest.mark.parametrize(
    ("state", "left", "patience"),
    [
        (HaState.ACTIVE, 5.0, 1.0),
        (HaState.ACTIVE, 0.25, 0.25),
        (HaState.ACTIVE, -0.25, 0.01),
        (HaState.QUIESCING, 0.25, 0.25),
        (HaState.STANDBY, 0.25, 1.0),
    ],
)
def test_who_works_waits_for_no_answer_beyond_the_time_it_is_to_be_told_that_it_is_cut_off(
    face: Face, state: HaState, left: float, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face.core, "safe_until", lambda: 100.0)
    face.verdict = LATER
    face.put(3, state)
    face.work()
    face.now = 100.0 - left
    face.drive(face.membership.respond(face.told[0], True))
    assert face.patience == [pytest.approx(patience)]


def test_what_was_told_is_not_begun_by_who_may_be_cut_off_by_now(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a program that was stopped in between, before its other thread has looked at the clock."""
    until = [100.0]
    monkeypatch.setattr(face.core, "safe_until", lambda: until[0])
    face.put(3, 1)
    face.now = 100.0
    wakes = face.wakes
    assert face.work() == 0
    assert face.wakes == wakes + 1, "it looks again, though nobody else wakes it"
    face.core.roles.isolate()
    assert face.work() == 0
    assert (face.told, face.did) == ([], [])
    face.core.roles.isolated, until[0] = False, 110.0
    face.core.roles.all_hold()
    assert face.work() == 1
    assert [each.state for each in face.told] == [HaState.ACTIVE]


def test_later_is_answered_by_the_program(face: Face) -> None:
    face.verdict = LATER
    face.put(3, 1)
    face.work()
    assert face.did == [Sync(11)]
    face.drive(face.membership.respond(face.told[0], True))
    assert face.did[-1] == (RESPOND, 3, True)


@pytest.mark.parametrize("rejoin", [True, False])
def test_removed_is_answered_even_if_its_callback_raises_and_joined_again(rejoin: bool) -> None:
    face = Face(rejoin=rejoin)
    face.put(3, 5, "health")
    face.work()
    expected = [(RESPOND, 3, True), *([(JOIN, 0, 10**10)] if rejoin else [])]
    assert face.did == expected
    face.verdict = ZeroDivisionError()
    face.put(9, 5, "health")
    with pytest.raises(ZeroDivisionError):
        face.work()
    assert face.did[-1] == (RESPOND, 9, True)


def test_a_join_waits_for_the_end_of_an_older_session(face: Face) -> None:
    taken = Exist("x", reason="component_exists")
    face.answers = [taken, taken, [7, 1]]
    face.drive(face.membership.join(10.0, face.clock))
    assert face.membership.member == 7
    assert [step for step in face.did if isinstance(step, Pause)] == [Pause(0.05), Pause(0.1)]
    face.answers = [taken] * 100
    with pytest.raises(Exist):
        face.drive(face.membership.join(face.now + 5.0, face.clock))
    face.answers = [Exist("x", reason="component_joined")]
    with pytest.raises(Exist):
        face.drive(face.membership.join(face.now + 5.0, face.clock))


def test_a_join_without_an_answer_was_carried_out(face: Face) -> None:
    """The next one begins anew, also by another object of the program in the same session."""
    face.answers = [Timeout(), Exist("x", reason="component_joined"), None, [8, 1]]
    with pytest.raises(Timeout):
        face.drive(face.membership.join(10.0, face.clock))
    face.core.roles.forget(("g", "c"))  # as the faces do
    face.drive(face.membership.join(20.0, face.clock))
    assert face.did[-3:] == [(JOIN, 0, 10**10), (LEAVE, False), (JOIN, 0, 10**10)]
    assert face.membership.member == 8
    face.answers = [Exist("x", reason="component_joined")]  # no doubt any more: joined twice
    with pytest.raises(Exist):
        face.drive(face.membership.join(20.0, face.clock))


def test_a_join_without_an_answer_was_carried_out_and_it_was_taken_out_of_service(
    face: Face,
) -> None:
    """It never answered, because nobody knew: the session must not stay fenced for good."""
    deposed = Fenced("x", reason="deposed")
    face.answers = [Timeout(), deposed]
    with pytest.raises(Timeout):
        face.drive(face.membership.join(10.0, face.clock))
    face.core.roles.forget(("g", "c"))
    face.put(3, 2)
    face.put(5, 5, "no_answer")
    face.drive(face.membership.join(20.0, face.clock))
    assert face.did[-2:] == [(RESPOND, 5, True), (JOIN, 0, 10**10)]
    # not told yet: wait for it; somebody else's failure in the session is not ours to answer
    for expected, answers in ((Timeout, [Timeout()]), (Fenced, [deposed] * 100)):
        face.answers = answers
        with pytest.raises(expected):
            face.drive(face.membership.join(face.now + 5.0, face.clock))
    other = Face()
    other.answers = [deposed]
    with pytest.raises(Fenced):
        other.drive(other.membership.join(10.0, other.clock))


def test_an_assignment_tells_the_number_that_a_lost_answer_did_not(face: Face) -> None:
    face.put(3, 2)
    face.work()
    assert face.membership.member == 7


def test_the_end_of_the_session_is_told_once_and_raised_always(face: Face) -> None:
    face.membership.member = 7
    face.core.roles.end("expired")
    assert face.wakes == 1
    for _ in range(2):
        with pytest.raises(SessionLost, match="expired"):
            face.work()
    assert [(item.state, item.reason) for item in face.told] == [(HaState.REMOVED, "session_lost")]
    assert face.membership.beat(0.0) is None


def test_signs_of_life_are_given_while_it_is_joined() -> None:
    face = Face(health_check=3.0)
    assert face.membership.beat(0.0) is None
    face.drive(face.membership.join(10.0, face.clock))
    assert face.membership.beat(5.0) is not None
    assert face.membership.beat(5.5) is None
    assert face.membership.patience(5.5, 60.0) == pytest.approx(0.5)
    call = face.membership.beat(6.1)
    assert call is not None
    assert call.message == ComponentAlive(0, 0, CONSISTENCY_LOCAL, 7)


def test_leaving_and_leaving_when_it_was_taken_out(face: Face) -> None:
    face.drive(face.membership.join(10.0, face.clock))
    face.drive(face.membership.leave(1.0, failed=True))
    assert face.did[-1] == (LEAVE, True)
    other = Face()
    other.drive(other.membership.join(10.0, other.clock))
    other.answers = [BadOperation("deposed")]
    other.put(9, 5, "health")
    other.drive(other.membership.leave(1.0))
    assert other.did[-1] == (RESPOND, 9, True)
    other.put(10, 1)
    assert other.work() == 0


@pytest.mark.parametrize(
    "options",
    [
        {"rank": -1},
        {"rank": True},
        {"response_timeout": 0.01},
        {"response_timeout": 10_000.0},
        {"health_check": 0.0},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParam):
        Face(**options)


@pytest.mark.parametrize(
    ("name", "error"), [("", InvalidParam), (b"x", InvalidParam), ("x" * 257, TooBig)]
)
def test_names(name: Any, error: type[Exception]) -> None:
    core = Face().core
    callbacks = Callbacks(print, print, None, None, None)
    options = {"rank": 0, "response_timeout": 1.0, "health_check": None, "rejoin": True}
    with pytest.raises(error):
        Membership(core, "g", name, callbacks, **options)
    with pytest.raises(error):
        Membership(core, name, "c", callbacks, **options)


def test_callbacks_are_functions() -> None:
    core = Face().core
    callbacks: Any = Callbacks("x", print, None, None, None)  # type: ignore[arg-type]
    with pytest.raises(InvalidParam):
        Membership(
            core, "g", "c", callbacks,
            rank=0, response_timeout=1.0, health_check=None, rejoin=True,
        )  # fmt: skip


# --- cut off ------------------------------------------------------------------------------------
ACTIVE = 1


def test_who_is_cut_off_is_suspended_and_gets_its_role_back(face: Face) -> None:
    face.put(3, ACTIVE)
    face.work()
    face.core.roles.isolate()
    assert face.work() == 1
    assert (face.told[-1].state, face.told[-1].reason) == (HaState.QUIESCED, "isolated")
    assert face.work() == 0  # once
    assert len([done for done in face.did if done[0] == RESPOND]) == 1  # it is nobody's but ours
    face.core.roles.isolated = False
    assert face.work() == 0  # whether the assignment holds is not known yet
    face.put(3, ACTIVE)
    assert face.work() == 1
    back = face.told[-1]
    assert (back.state, back.reason, back.epoch) == (HaState.ACTIVE, "reconnected", 3)
    face.put(3, ACTIVE)
    assert face.work() == 0


def test_who_was_replaced_meanwhile_gets_nothing_back(face: Face) -> None:
    face.put(3, ACTIVE)
    face.work()
    face.core.roles.isolate()
    face.work()
    face.core.roles.isolated = False
    face.put(4, 2, "swap")
    face.work()
    assert [told.state.name for told in face.told] == ["ACTIVE", "QUIESCED", "STANDBY"]


def test_a_leader_that_never_let_go_gives_the_role_back_without_a_word(face: Face) -> None:
    face.put(3, ACTIVE)
    face.work()
    face.core.roles.isolate()
    face.work()
    face.core.roles.isolated = False
    face.core.roles.all_hold()
    face.work()
    assert face.told[-1].reason == "reconnected"


def test_a_standby_that_is_cut_off_has_nothing_to_stop(face: Face) -> None:
    face.put(3, 2)
    face.work()
    face.core.roles.isolate()
    assert face.work() == 0
    assert len(face.told) == 1


def test_who_gave_no_callback_for_it_is_told_of_the_end_of_its_work() -> None:
    face = Face()
    face.membership._callbacks = face.membership._callbacks._replace(on_quiesced=None)
    face.put(3, ACTIVE)
    face.work()
    face.core.roles.isolate()
    face.work()
    assert face.told[-1].reason == "isolated"

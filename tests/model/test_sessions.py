"""Openers are counted right whoever is killed, clients and leaders in any order: a state machine.

Leaders follow each other with the state that was committed. Clients live as the product's do: they
attach to whoever leads, give signs of life, and are killed without a word.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.state import State
from raftckpt.node.liveness import Liveness, SessionState
from raftckpt.node.replica import Replica
from raftckpt.protocol.operations import Attach, Keepalive, SessionOpen
from tests.fuzz.profile import EXAMPLES
from tests.messages import record
from tests.unit.node.fakes import ENDPOINTS, ManualClock, NotingClient, OneNodeLog

TIMEOUT_S = 10.0
SIGN_S = 3.0
STEP_S = 0.25
ATTRIBUTES = [1, 1000, 10**9, 100, 1000, 64]  # retention 1 s


class Person:
    """A client process: a session, a connection, and when it was last heard of."""

    def __init__(self, number: int, grace_s: float) -> None:
        self.secret = number.to_bytes(16, "big")
        self.grace_s = grace_s
        self.connection = NotingClient()
        self.session = self.sequence = 0
        self.opened = False
        self.ends_by: float | None = None
        """When it is dead at the latest for the cluster; None: it lives."""


class Sessions(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock()
        self.entries: list[bytes] = []
        self.people: list[Person] = []
        self.requests = 0
        self.log: OneNodeLog
        self.lead(CheckpointMachine())

    def lead(self, machine: CheckpointMachine) -> None:
        """A replica with this state leads; nobody is attached to it yet."""
        self.log = Replica(
            "n1",
            dict(ENDPOINTS),
            self.clock,
            lambda: None,
            lambda replica: OneNodeLog(replica, self.clock),
            machine,
        ).log
        self.log.index = machine.applied_index + 1
        self.log.lead()
        self.log.run()

    @property
    def replica(self) -> Replica:
        return self.log.replica

    def next(self) -> int:
        self.requests += 1
        return self.requests

    def living(self) -> list[Person]:
        return [person for person in self.people if person.ends_by is None]

    def attach(self, person: Person) -> None:
        person.connection = NotingClient()
        number = self.next()
        self.replica.attach(person.connection, Attach(number, person.session, person.secret))
        self.log.run()
        assert person.connection.reply(number)[0] == person.sequence, "a living session was ended"

    def act(self, person: Person, tag: int, *fields: object) -> None:
        person.sequence += 1
        number = self.next()
        message = [tag, number, person.sequence, person.sequence - 1, *fields]
        self.replica.submit(person.connection, [record(message)])
        self.log.run()
        person.connection.reply(number)

    # --- what happens -------------------------------------------------------------------------
    @precondition(lambda self: len(self.people) < 12)
    @rule(grace_s=st.sampled_from([0.0, 0.5, 2.0]))
    def birth(self, grace_s: float) -> None:
        person = Person(len(self.people) + 1, grace_s)
        number = self.next()
        times = [int(TIMEOUT_S * 1e9), int(grace_s * 1e9)]
        self.replica.submit(
            person.connection, [SessionOpen(number, 0, 0, person.secret, "p", "n1", *times)]
        )
        self.log.run()
        person.session = person.connection.reply(number)[0]
        self.act(person, 10, "c", 7, ATTRIBUTES)
        person.opened = True
        self.people.append(person)

    @precondition(lambda self: self.living())
    @rule(data=st.data(), attached=st.booleans())
    def kill(self, data: st.DataObject, attached: bool) -> None:
        """Its kernel closes the connection; or nobody hears of it (the machine lost its power)."""
        person = data.draw(st.sampled_from(self.living()))
        now = self.clock.now
        if attached and person.connection.session is not None:
            person.connection.gone = True
            self.replica.closed(person.connection, by_client=True)
            person.ends_by = now + person.grace_s
        else:
            person.ends_by = now + TIMEOUT_S
        self.log.run()

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def goodbye(self, data: st.DataObject) -> None:
        person = data.draw(st.sampled_from(self.living()))
        self.act(person, 2)
        person.ends_by = self.clock.now

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def close_and_open(self, data: st.DataObject) -> None:
        person = data.draw(st.sampled_from(self.living()))
        if person.opened:
            handle = max(self.replica.machine.sessions[person.session].handles)
            self.act(person, 11, handle)
        else:
            self.act(person, 10, "c", 7, ATTRIBUTES)
        person.opened = not person.opened

    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        """The replica closes a connection: no clock starts, the client comes back."""
        if self.living():
            person = data.draw(st.sampled_from(self.living()))
            self.replica.closed(person.connection, by_client=False)
            self.log.run()
            self.attach(person)

    @precondition(lambda self: any(person.grace_s for person in self.living()))
    @rule(data=st.data())
    def reset_by_the_network(self, data: st.DataObject) -> None:
        """It looks like the client's close; the client comes back within its grace."""
        patient = [person for person in self.living() if person.grace_s]
        person = data.draw(st.sampled_from(patient))
        self.replica.closed(person.connection, by_client=True)
        self.log.run()
        self.pass_by(person.grace_s / 2)
        self.attach(person)

    @rule(image=st.booleans(), late_s=st.sampled_from([0.0, 0.0, 8.0]))
    def leader_dies(self, image: bool, late_s: float) -> None:
        """Another replica leads, with all that was committed; everybody gets a full timeout."""
        machine = self.replica.machine
        if image:
            machine = CheckpointMachine.restore(machine.freeze())
        self.lead(machine)
        for person in self.people:
            if person.ends_by is not None and person.ends_by > self.clock.now:
                person.ends_by = self.clock.now + TIMEOUT_S
        self.log.run()
        self.pass_by(late_s)
        for person in self.living():
            self.attach(person)

    @rule(seconds=st.sampled_from([0.0, 0.4, 1.0, SIGN_S, SIGN_S, 9.0]))
    def time_passes(self, seconds: float) -> None:
        """The living give signs of life all the time."""
        while seconds >= 0:
            step = min(seconds, SIGN_S)
            self.pass_by(step)
            for person in self.living():
                person.connection.session.seen = self.clock.now
                self.replica.keepalive(person.connection, Keepalive(self.next()))
            self.log.run()
            seconds -= step or 1

    def pass_by(self, seconds: float) -> None:
        """The replica steps all the time, as one does that does not stand still."""
        while seconds > 0:
            self.clock.pass_by(min(seconds, STEP_S))
            self.log.run()
            seconds -= STEP_S

    # --- what must be true --------------------------------------------------------------------
    @invariant()
    def counts_are_right(self) -> None:
        machine, now = self.replica.machine, self.clock.now
        for person in self.people:
            alive = person.session in machine.sessions
            if person.ends_by is None:
                assert alive, "the session of a living client was ended"
            elif now >= person.ends_by:
                assert not alive, "a dead client still has a session"
        openers = {
            session for checkpoint in machine.checkpoints.values() for session in checkpoint.openers
        }
        must = {person.session for person in self.living() if person.opened}
        may = {
            person.session
            for person in self.people
            if person.opened and (person.ends_by or now) >= now
        }
        assert must <= openers <= must | may
        assert machine.staged_bytes == 0

    def teardown(self) -> None:
        """Everybody dies: nothing is left, retention included."""
        for person in self.living():
            self.replica.closed(person.connection, by_client=True)
            person.ends_by = self.clock.now + person.grace_s
        self.pass_by(20.0)
        assert not self.replica.machine.sessions
        assert not self.replica.machine.checkpoints


def run(examples: int) -> None:
    run_state_machine_as_test(
        Sessions,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )


def test_openers_are_counted_right_whoever_is_killed() -> None:
    run(EXAMPLES or 50)


def _keep_grace(self: Liveness, state: SessionState, now: float) -> None:
    state.seen = now


def _forget_eof(self: Liveness, state: SessionState, now: float) -> None:
    return None


def _no_full_timeout(self: Liveness, now: float, sessions: Any) -> None:
    begin_liveness(self, now - 5.0, sessions)


def _leave_open(self: State, session: Any) -> None:
    del self.sessions[session.id]
    del self.by_secret[session.secret]


begin_liveness = Liveness.__init__
BUGS: list[tuple[Any, str, Any]] = [
    (Liveness, "resumed", _keep_grace),
    (Liveness, "closed_by_client", _forget_eof),
    (Liveness, "__init__", _no_full_timeout),
    (State, "end_session", _leave_open),
]


@pytest.mark.parametrize(("where", "name", "bug"), BUGS, ids=[n for _, n, _ in BUGS])
def test_planted_bugs_are_caught(
    where: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, bug)
    with pytest.raises(Exception):  # noqa: B017 - a wrong count, or a reply that makes no sense
        run(40)

"""The leader tells components their roles and judges who is silent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.messages import record
from tests.unit.node.fakes import SECOND, LoneReplica, NotingClient


class Component:
    def __init__(
        self,
        world: LoneReplica,
        name: str,
        *,
        health_s: float = 0,
        mode: int = 1,
        grace_s: float = 0,
    ) -> None:
        self.world = world
        self.name = name
        self.secret = name.encode().ljust(16, b"-")
        self.sequence = 0
        self.client = world.open_session(secret=self.secret, grace_s=grace_s, timeout_s=1000.0)
        self.session = self.client.session.id
        self.member, self.first = self.do(50, "g", name, 0, 10 * SECOND, int(health_s * 1e9))

    def send(self, tag: int, *fields: Any) -> int:
        self.sequence += 1
        number = self.world.next()
        self.world.submit(self.client, [[tag, number, self.sequence, 0, *fields]])
        return number

    def do(self, tag: int, *fields: Any) -> Any:
        number = self.send(tag, *fields)
        self.world.log.run()
        return self.client.reply(number)

    @property
    def roles(self) -> list[tuple[int, int, str]]:
        return [
            (value["assignment"], value["state"], value["reason"])
            for kind, value in self.client.notices
            if kind == "role"
        ]

    def answer(self) -> None:
        assert self.do(52, "g", self.name, self.roles[-1][0], True) is None

    def alive(self) -> int:
        number = self.world.next()
        self.world.replica.component_alive(self.client, record([118, number, 0, 1, self.member]))
        return number

    def attach(self) -> None:
        self.client = NotingClient()
        self.world.replica.attach(
            self.client, record([201, self.world.next(), self.session, self.secret])
        )
        self.world.log.run()


@pytest.fixture
def world() -> LoneReplica:
    return LoneReplica()


@pytest.fixture
def two(world: LoneReplica) -> tuple[Component, Component]:
    a, b = Component(world, "a"), Component(world, "b")
    a.answer()
    b.answer()
    return a, b


def test_a_role_is_told_with_the_entry_that_gives_it(world, two):
    a, b = two
    assert a.roles == [(a.first, 1, "first")]
    entries = len(world.log.payloads)
    world.replica.closed(a.client, by_client=True)
    assert world.replica.deadline() <= world.clock.now
    world.log.step()
    world.log.step()
    assert len(world.log.payloads) == entries + 1
    assert b.roles[-1][1:] == (1, "session_ended")


def test_present_assignments_are_told_again_after_an_attach(world, two):
    a, _ = two
    a.attach()
    assert a.roles == [(a.first, 1, "first")]
    assert a.client.notices[-1][1]["answered"]


def test_who_does_not_answer_in_time_is_replaced(world, two):
    _, b = two
    c = Component(world, "c")
    world.clock.pass_by(9.9)
    world.log.run()
    assert c.roles[-1][1] == 2
    assert world.replica.deadline() == pytest.approx(world.clock.now + 0.1, abs=0.01)
    world.clock.pass_by(0.2)
    world.log.run()
    assert c.roles[-1][1:] == (5, "no_answer")
    assert b.roles[-1][1] == 2
    world.clock.pass_by(0.2)
    world.log.run()
    assert world.replica.deadline() > world.clock.now + 1


def test_a_standstill_of_the_replica_is_nobodys_silence(world, two):
    a, b = two
    hung = Component(world, "hung", health_s=3.0)
    world.clock.pass_by(2.0)
    world.clock.stand_still(30.0)
    world.log.run()
    assert [each.roles[-1][1] for each in (a, b, hung)] == [1, 2, 2]
    world.clock.pass_by(1.1)
    world.log.run()
    assert hung.roles[-1][1:] == (5, "health")
    assert [each.roles[-1][1] for each in (a, b)] == [1, 2]


def test_a_verdict_that_was_lost_is_given_again(world, two):
    c = Component(world, "c")
    world.log.hold = True
    world.clock.pass_by(10.1)
    world.log.step()
    world.log.lose()
    world.log.hold = False
    world.log.lead()
    world.log.run()
    c.attach()
    assert c.roles[-1][1] == 2, "a new leader gives everybody the full time"
    world.clock.pass_by(10.1)
    world.log.accepts = False
    world.log.run()
    assert c.roles[-1][1] == 2
    world.log.accepts = True
    world.clock.pass_by(0.2)
    world.log.run()
    assert c.roles[-1][1] == 5


def test_a_hung_component_is_replaced(world, two):
    a, b = two
    c = Component(world, "c", health_s=1.0)
    c.answer()
    for _ in range(5):
        world.clock.pass_by(0.8)
        assert c.client.reply(c.alive()) == [world.replica.machine.revision]
        world.log.run()
    assert c.roles[-1][1] == 2
    world.clock.pass_by(1.1)
    world.log.run()
    assert c.roles[-1][1:] == (5, "health")
    assert [a.roles[-1][1], b.roles[-1][1]] == [1, 2]
    world.clock.pass_by(5.0)
    world.log.run()
    assert world.replica.situation.leadership.roles.deadline() == float("inf")


def test_signs_of_life_are_the_components_own(world, two):
    a, b = two
    number = world.next()
    world.replica.component_alive(a.client, record([118, number, 0, 1, b.member]))
    assert a.client.reason(number) == "component_missing"
    stranger = NotingClient()
    world.replica.component_alive(stranger, record([118, 1, 0, 1, a.member]))
    assert stranger.reason(1) == "not_leader"
    world.log.lead("n2")
    assert a.client.reason(a.alive()) == "not_leader"


def test_a_pile_of_old_answers_is_cleared_away(world, two):
    a, b = two
    for _ in range(1100):
        active = a if world.replica.machine.groups.by_name["g"].active == "a" else b
        active.client.notices.clear()
        active.do(53, "g", 4, None)
        active.answer()
        for part in (a, b):
            part.answer()
            part.client.replies.clear()
    assert len(world.replica.situation.leadership.roles._heap) < 1100


# --- second connections -------------------------------------------------------------------
def witness(world: LoneReplica, part: Component) -> NotingClient:
    second = NotingClient()
    world.replica.witness(second, record([119, 1, part.session, part.secret]))
    assert second.reply(1) == world.replica.leader
    return second


def test_a_session_deserted_before_the_election_ends_at_once(world, two):
    a, b = two
    second = witness(world, a)
    world.log.lead("n2")
    a.client.gone = True
    world.replica.closed(second, by_client=True)
    world.log.lead()
    world.log.run()
    assert a.session not in world.replica.machine.sessions
    b.attach()
    assert b.roles[-1][1:] == (1, "session_ended")


def test_a_session_that_came_back_elsewhere_is_not_deserted(world, two):
    a, b = two
    world.log.lead("n2")
    first, second = witness(world, a), witness(world, a)
    world.replica.closed(first, by_client=True)
    third = witness(world, b)
    world.replica.closed(third, by_client=False)
    world.log.lead()
    world.log.run()
    assert {a.session, b.session} <= set(world.replica.machine.sessions)
    world.replica.closed(second, by_client=True)
    world.log.run()
    assert a.session not in world.replica.machine.sessions


def test_a_second_connection_says_nothing_while_the_first_stands(world, two):
    a, _ = two
    world.replica.closed(witness(world, a), by_client=True)
    world.log.run()
    assert a.session in world.replica.machine.sessions
    world.log.lead("n2")
    witness(world, a)
    world.log.lead()
    world.log.run()
    assert a.session in world.replica.machine.sessions


def test_a_second_connection_needs_the_secret(world, two):
    a, b = two
    second = NotingClient()
    world.replica.witness(second, record([119, 1, 99, b"x" * 16]))
    assert second.reason(1) == "gap"
    world.replica.witness(second, record([119, 2, a.session, b"x" * 16]))
    assert second.reason(2) == "secret"
    world.replica.witness(second, record([119, 3, a.session, a.secret]))
    world.replica.witness(second, record([119, 4, b.session, b.secret]))
    assert second.reason(4) == "schema"


def test_ended_sessions_are_forgotten(world, two):
    a, _ = two
    world.log.lead("n2")
    for part in (a, a):
        world.replica.closed(witness(world, part), by_client=True)
    witnesses = world.replica._presence.witnesses
    witnesses.deserted.update(dict.fromkeys(range(10**6, 10**6 + 2000), 0.0))
    world.replica.closed(witness(world, a), by_client=True)
    assert set(witnesses.deserted) == {a.session}


# --- early acceptance ---------------------------------------------------------------------
@pytest.mark.parametrize("how", ["silent", "says no"])
def test_nothing_is_accepted_early_while_a_fence_may_be_on_its_way(world, two, how):
    c = Component(world, "c")
    attributes = [2, 100_000, 0x7FFF_FFFF_FFFF_FFFF, 100, 1000, 64]
    handle = c.do(10, "ckpt", 7, attributes)[0]
    assert c.do(24, handle, b"k", b"v") > 0
    early = c.send(24, handle, b"k", b"v")
    assert c.client.early[-1] == early
    world.log.run()
    world.log.hold = True
    if how == "silent":
        world.clock.pass_by(10.1)
        world.log.step()
        world.log.step()
    else:
        c.send(52, "g", "c", c.roles[-1][0], False)
    late = c.send(24, handle, b"k", b"v")
    assert late not in c.client.early
    world.log.hold = False
    world.log.run()
    assert c.client.reason(late) == "deposed"
    assert c.roles[-1][1] == 5
    c.answer()
    again = c.send(24, handle, b"k", b"v")
    world.log.run()
    assert c.client.reply(again) > 0

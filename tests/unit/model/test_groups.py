"""Service groups: who is given what, when, and what a deposed component may still do."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.model.groups import HaState
from raftckpt.model.image import digest
from raftckpt.protocol.contract import COMPONENTS_PER_GROUP_MAX
from raftckpt.protocol.operations import SectionPut
from tests.messages import ask

from .driver import SECOND, DrivenMachine, DrivenSession, attributes, why

UNASSIGNED, ACTIVE, STANDBY, QUIESCED, QUIESCING, REMOVED = range(6)
UNLOCK, LOCK, LOCK_INSTANTIATION, SWAP, SHUTDOWN, DELETE = range(1, 7)
ACCESS, NOT_EXIST, EXIST, BAD_OPERATION, NO_RESOURCES = 11, 12, 14, 20, 18


class Part:
    """A component with a session of its own."""

    def __init__(
        self, cluster: DrivenMachine, name: str, rank: int = 0, *, health: int = 0
    ) -> None:
        self.name = name
        self.client: DrivenSession = cluster.session(name=name)
        result = self.client.do(50, "g", name, rank, 10 * SECOND, health)
        assert result.ok, result
        self.number, self.first = result.value

    @property
    def role(self) -> dict[str, Any]:
        (role,) = self.client.ask(117).value[1]
        found: dict[str, Any] = role
        return found

    @property
    def state(self) -> tuple[int, str]:
        return self.role["state"], self.role["reason"]

    def answer(self, ok: bool = True) -> Any:
        return self.client.do(52, "g", self.name, self.role["assignment"], ok)

    def admin(self, operation: int, target: str | None = None) -> Any:
        return self.client.do(53, "g", operation, target)

    def die(self) -> None:
        assert self.client.cluster.apply([3, 0, 0, 0, [self.client.id]])[0].value == 1


@pytest.fixture
def cluster() -> DrivenMachine:
    return DrivenMachine()


@pytest.fixture
def two(cluster: DrivenMachine) -> tuple[Part, Part]:
    a, b = Part(cluster, "a"), Part(cluster, "b")
    assert a.answer().ok
    assert b.answer().ok
    return a, b


def fail(cluster: DrivenMachine, part: Part, assignment: int = 0) -> Any:
    return cluster.apply([54, 0, 0, 0, [[part.number, assignment]]])[0].value


def status(cluster: DrivenMachine) -> dict[str, Any]:
    found: dict[str, Any] = cluster.ask(116, "g")
    return found


def test_the_first_is_active_and_the_others_stand_by(cluster: DrivenMachine) -> None:
    a, b, c = (Part(cluster, name) for name in "abc")
    assert [part.state for part in (a, b, c)] == [
        (ACTIVE, "first"),
        (STANDBY, "join"),
        (STANDBY, "join"),
    ]
    role = a.role
    assert role["transition"] == 1
    assert role["previous"] == ""
    assert role["epoch"] == role["assignment"] == a.first
    assert b.role["active"] == "a"
    assert [b.role["rank"], c.role["rank"]] == [1, 2]
    summary = cluster.ask(115)[0]
    assert summary["components"] == 3
    assert summary["ready"] == 0


def test_the_next_in_rank_takes_over_in_the_entry_that_ends_the_session(
    cluster: DrivenMachine,
) -> None:
    a, b, c = Part(cluster, "a"), Part(cluster, "b", 5), Part(cluster, "c", 1)
    for part in (a, b, c):
        part.answer()
    before = a.role["epoch"]
    a.die()
    assert [member.name for member in cluster.machine.groups.told.values()] == ["c"]
    assert c.state == (ACTIVE, "session_ended")
    assert c.role["previous"] == "a"
    assert c.role["transition"] == 3
    assert c.role["epoch"] == c.role["assignment"] > before
    assert c.role["revision"] == cluster.machine.revision
    assert b.state == (STANDBY, "join")
    assert b.role["rank"] == 1


def test_one_that_answered_goes_before_one_that_did_not(cluster: DrivenMachine) -> None:
    a, b, c = (Part(cluster, name) for name in "abc")
    a.answer()
    c.answer()
    a.die()
    assert c.state[0] == ACTIVE
    c.die()
    assert b.state == (ACTIVE, "session_ended")


def test_sessions_that_end_together_name_the_last_real_active(cluster: DrivenMachine) -> None:
    a, b, c = (Part(cluster, name) for name in "abc")
    for part in (a, b, c):
        part.answer()
    cluster.apply([3, 0, 0, 0, [a.client.id, b.client.id]])
    assert c.state == (ACTIVE, "session_ended")
    assert c.role["previous"] == "a"


def test_one_that_restarts_stands_by_and_a_lone_one_learns_who_was_before(
    cluster: DrivenMachine, two: tuple[Part, Part]
) -> None:
    a, b = two
    a.die()
    again = Part(cluster, "a")
    assert again.state == (STANDBY, "join")
    b.die()
    again.die()
    late = Part(cluster, "z")
    assert late.state == (ACTIVE, "session_ended")
    assert late.role["previous"] == "a"


def test_leaving_hands_over_at_once(two: tuple[Part, Part]) -> None:
    a, b = two
    assert a.client.do(51, "g", "a", False).ok
    assert b.state == (ACTIVE, "left")
    assert b.role["transition"] == 2
    assert why(a.client.do(51, "g", "a", False)) == (NOT_EXIST, "component_missing", None)


def test_a_supervisor_that_saw_the_end_hands_over_at_once(two: tuple[Part, Part]) -> None:
    a, b = two
    assert a.client.do(51, "g", "a", True).ok
    assert b.state == (ACTIVE, "component_failed")
    assert b.role["transition"] == 3


def test_joining_twice_and_names_of_others(cluster: DrivenMachine, two: tuple[Part, Part]) -> None:
    a, b = two
    assert why(a.client.do(50, "g", "a", 0, SECOND, 0)) == (EXIST, "component_joined", None)
    assert why(b.client.do(50, "g", "a", 0, SECOND, 0)) == (EXIST, "component_exists", None)
    assert why(b.client.do(52, "g", "a", a.first, True)) == (NOT_EXIST, "component_missing", None)
    assert why(b.client.do(52, "h", "a", 1, True)) == (NOT_EXIST, "group_missing", None)
    assert a.state[0] == ACTIVE


def test_answers_count_once_and_only_for_the_newest_assignment(two: tuple[Part, Part]) -> None:
    a, b = two
    assert why(a.answer()) == (BAD_OPERATION, "assignment_answered", None)
    old = b.role["assignment"]
    a.die()
    assert why(b.client.do(52, "g", "b", old, True)) == (BAD_OPERATION, "assignment_old", None)
    assert why(b.client.do(52, "g", "b", 999, True)) == (BAD_OPERATION, "assignment_old", None)
    assert not b.role["answered"]
    assert b.answer().ok


def test_a_component_that_says_no_is_replaced_and_may_join_again(two: tuple[Part, Part]) -> None:
    a, b = two
    a.admin(SWAP)
    a.answer()
    assert b.state == (ACTIVE, "swap")
    b.answer(ok=False)
    assert b.state == (REMOVED, "component_failed")
    assert a.state == (ACTIVE, "component_failed")
    assert a.role["previous"] == "b"
    a.answer()
    late = Part(a.client.cluster, "late")
    late.answer()
    a.admin(SWAP)
    a.answer()
    assert late.role["previous"] == "a"
    late.answer()
    assert (a.state, a.role["previous"]) == ((STANDBY, "swap"), "")  # told only who takes over
    assert why(b.client.do(50, "g", "b", 0, SECOND, 0)) == (ACCESS, "deposed", None)
    assert b.answer().ok
    assert b.client.ask(117).value[1] == []
    assert b.client.do(50, "g", "b", 0, SECOND, 0).ok
    assert b.state == (STANDBY, "join")


def test_who_does_not_answer_in_time_is_replaced(
    cluster: DrivenMachine, two: tuple[Part, Part]
) -> None:
    a, b = two
    c = Part(cluster, "c")
    assert fail(cluster, a, a.first) == 0  # it did answer
    assert fail(cluster, c, c.first - 1) == 0  # an old one
    assert fail(cluster, c, c.first) == 1
    assert c.state == (REMOVED, "no_answer")
    assert fail(cluster, c, c.role["assignment"]) == 0
    assert fail(cluster, c) == 0
    assert fail(cluster, a) == 1
    assert a.state == (REMOVED, "health")
    assert b.state == (ACTIVE, "health")
    assert status(cluster)["failed"] == 2


def test_a_deposed_session_changes_nothing_until_it_answers(
    cluster: DrivenMachine, two: tuple[Part, Part]
) -> None:
    a, _ = two
    handle = a.client.open()
    reader = a.client.open(flags=1)
    assert a.client.create(handle, b"1", b"x").ok
    cluster.session("n2").open("other")
    fail(cluster, a)
    revision = cluster.machine.revision
    refused = (ACCESS, "deposed")
    later = a.client.open(flags=3)
    for writer in (handle, later):
        assert why(a.client.put(writer, b"1", b"y"))[:2] == refused
        assert why(a.client.do(23, writer, b"1", b"y"))[:2] == refused
        assert why(a.client.write(writer, [b"1", 0, b"y"]))[:2] == refused
        assert why(a.client.create(writer, b"2"))[:2] == refused
        assert why(a.client.do(21, writer, b"1"))[:2] == refused
        assert why(a.client.do(22, writer, b"1", 2**62, None))[:2] == refused
        assert why(a.client.do(13, writer, 5))[:2] == refused
        assert why(a.client.do(14, writer, True))[:2] == refused
        checked = cluster.machine.check(SectionPut(a.client.id, 1, 0, writer, b"1", b"y"))
        assert why(checked)[:2] == refused
    assert why(a.client.put(reader, b"1", b"y")) == (ACCESS, "no_right", None)
    assert why(a.client.do(12, "other"))[:2] == refused
    assert why(a.client.do(10, "new", 7, attributes()))[:2] == refused
    assert why(a.client.do(51, "g", "a", False))[:2] == refused
    assert cluster.machine.revision == revision
    assert a.client.all(handle) == {b"1": b"x"}
    assert a.answer().ok
    assert a.client.put(handle, b"1", b"y").ok
    assert a.client.put(later, b"1", b"y").ok
    assert not a.client.put(reader, b"1", b"y").ok
    row = next(row for row in cluster.ask(104) if row.name == "ckpt")
    assert row.openers == [(a.client.id, "a", "n1", 3, 2)]
    a.client.do(11, later)
    a.client.do(11, reader)
    a.client.do(11, handle)
    assert cluster.ask(102, "ckpt").openers == []


def test_a_swap_asks_the_active_first(cluster: DrivenMachine, two: tuple[Part, Part]) -> None:
    a, b = two
    assert a.admin(SWAP).value == 1
    assert a.state == (QUIESCED, "swap")
    assert b.state[0] == STANDBY
    assert why(a.admin(SWAP)) == (BAD_OPERATION, "handing_over", None)
    assert a.answer().ok
    assert b.state == (ACTIVE, "swap")
    assert b.role["transition"] == 2
    assert b.role["previous"] == "a"
    assert a.state == (STANDBY, "swap")


def test_a_swap_with_a_wish(cluster: DrivenMachine, two: tuple[Part, Part]) -> None:
    a, b = two
    c = Part(cluster, "c")
    assert why(a.admin(SWAP, "c")) == (BAD_OPERATION, "no_standby", None)
    assert why(a.admin(SWAP, "nobody")) == (BAD_OPERATION, "no_standby", None)
    c.answer()
    assert a.admin(SWAP, "a").ok
    assert a.state[0] == ACTIVE
    a.admin(SWAP, "c")
    a.answer()
    assert c.state == (ACTIVE, "swap")
    assert [b.state[0], a.state[0]] == [STANDBY, STANDBY]


def test_a_swap_whose_standby_dies_leaves_the_active(two: tuple[Part, Part]) -> None:
    a, b = two
    a.admin(SWAP)
    b.die()
    assert a.state == (QUIESCED, "swap")
    a.answer()
    assert a.state == (ACTIVE, "swap")
    assert a.role["transition"] == 4
    assert why(a.admin(SWAP)) == (BAD_OPERATION, "handing_over", None)
    a.answer()
    assert why(a.admin(SWAP)) == (BAD_OPERATION, "no_standby", None)


def test_an_active_that_does_not_quiesce_is_replaced(
    cluster: DrivenMachine, two: tuple[Part, Part]
) -> None:
    a, b = two
    a.admin(SWAP)
    assert fail(cluster, a, a.role["assignment"]) == 1
    assert b.state == (ACTIVE, "no_answer")
    assert b.role["transition"] == 3
    assert a.state == (REMOVED, "no_answer")


def test_lock_and_unlock(cluster: DrivenMachine, two: tuple[Part, Part]) -> None:
    a, b = two
    assert b.admin(LOCK).value == 2
    assert a.state == (QUIESCED, "lock")
    assert b.state[0] == STANDBY
    a.answer()
    assert [a.state, b.state] == [(UNASSIGNED, "lock")] * 2
    late = Part(cluster, "late")
    assert late.state == (UNASSIGNED, "lock")
    assert b.admin(LOCK).value == 2
    for part in (a, b, late):
        assert part.answer().ok
    assert why(a.admin(SWAP)) == (BAD_OPERATION, "group_locked", None)
    assert why(a.admin(SHUTDOWN)) == (BAD_OPERATION, "group_locked", None)
    assert a.admin(UNLOCK).value == 1
    assert a.state == (ACTIVE, "unlock")
    assert a.role["transition"] == 2
    assert [b.state, late.state] == [(STANDBY, "unlock")] * 2


def test_a_lock_called_off(two: tuple[Part, Part]) -> None:
    a, b = two
    a.admin(LOCK)
    a.admin(UNLOCK)
    assert a.state == (ACTIVE, "unlock")
    assert a.role["transition"] == 4
    assert b.state[0] == STANDBY


def test_a_lock_of_one_that_is_hung_or_dies(cluster: DrivenMachine, two: tuple[Part, Part]) -> None:
    a, b = two
    a.admin(LOCK)
    fail(cluster, a, a.role["assignment"])
    assert b.state == (UNASSIGNED, "lock")
    b.admin(UNLOCK)
    assert b.state[0] == ACTIVE


def test_lock_instantiation_is_told_apart(two: tuple[Part, Part]) -> None:
    a, b = two
    a.admin(LOCK_INSTANTIATION)
    assert a.state == (QUIESCED, "lock_instantiation")
    a.answer()
    assert [a.state, b.state] == [(UNASSIGNED, "lock_instantiation")] * 2
    a.admin(LOCK)
    assert [a.state, b.state] == [(UNASSIGNED, "lock")] * 2
    a.admin(LOCK_INSTANTIATION)
    assert a.state == (UNASSIGNED, "lock_instantiation")
    a.admin(UNLOCK)
    assert [a.state, b.state] == [(ACTIVE, "unlock"), (STANDBY, "unlock")]


def test_shutdown_ends_in_a_lock(cluster: DrivenMachine, two: tuple[Part, Part]) -> None:
    a, b = two
    assert a.admin(SHUTDOWN).value == 4
    assert a.admin(SHUTDOWN).value == 4
    assert a.state == (QUIESCING, "shutdown")
    assert Part(cluster, "late").state == (UNASSIGNED, "shutdown")
    a.answer()
    assert status(cluster)["admin"] == 2
    assert [a.state, b.state] == [(UNASSIGNED, "lock")] * 2


def test_a_lock_hurries_a_shutdown(two: tuple[Part, Part]) -> None:
    a, b = two
    a.admin(SHUTDOWN)
    a.admin(LOCK)
    assert a.state == (QUIESCED, "lock")
    a.answer()
    assert b.state == (UNASSIGNED, "lock")


def test_a_shutdown_whose_active_dies(two: tuple[Part, Part]) -> None:
    a, b = two
    a.admin(SHUTDOWN)
    a.die()
    assert b.state == (UNASSIGNED, "lock")


def test_groups_stay_until_they_are_deleted_and_numbers_grow_over_it(
    cluster: DrivenMachine,
) -> None:
    a = Part(cluster, "a")
    assert why(a.admin(DELETE)) == (BAD_OPERATION, "group_in_use", None)
    first = a.role["epoch"]
    a.die()
    assert [row["group"] for row in cluster.ask(115)] == ["g"]
    operator = cluster.session()
    assert operator.do(53, "g", DELETE, None).ok
    assert why(operator.do(53, "g", LOCK, None)) == (NOT_EXIST, "group_missing", None)
    assert why(ask(cluster.machine, None, 116, "g")) == (NOT_EXIST, "group_missing", None)
    b = Part(cluster, "b")
    assert b.state == (ACTIVE, "first")
    assert b.role["epoch"] > first


def test_a_group_has_a_limit(cluster: DrivenMachine) -> None:
    client = cluster.session()
    for number in range(COMPONENTS_PER_GROUP_MAX):
        assert client.do(50, "g", f"c{number}", 0, SECOND, 0).ok
    assert why(client.do(50, "g", "more", 0, SECOND, 0)) == (NO_RESOURCES, "limit", None)


def test_two_components_of_a_session_and_its_end(cluster: DrivenMachine) -> None:
    client = cluster.session()
    assert client.do(50, "g", "a", 0, SECOND, 0).ok
    assert client.do(50, "g", "b", 0, SECOND, 0).ok
    z = Part(cluster, "z")
    roles = client.ask(117).value[1]
    assert [role["component"] for role in roles] == ["a", "b"]
    cluster.apply([54, 0, 0, 0, [[role["member"], 0] for role in roles]])
    assert z.state[0] == ACTIVE
    assert cluster.machine.sessions[client.id].fences == 2
    client.do(2)
    assert not cluster.machine.groups.by_name["g"].removed
    assert set(cluster.machine.groups.members) == {z.number}


def test_roles_need_a_session(cluster: DrivenMachine) -> None:
    assert why(ask(cluster.machine, None, 117)) == (9, "session", None)


def test_an_image_keeps_all_of_it(cluster: DrivenMachine, two: tuple[Part, Part]) -> None:
    a, b = two
    handle = a.client.open()
    c = Part(cluster, "c", 3, health=SECOND)
    fail(cluster, a)
    c.answer()
    b.answer()
    b.admin(SWAP, "c")
    restored = cluster.restored()
    assert digest(restored.freeze()) == digest(cluster.machine.freeze())
    assert ask(restored, None, 116, "g") == ask(cluster.machine, None, 116, "g")
    cluster.machine = restored
    assert why(a.client.put(handle, b"1", b""))[:2] == (ACCESS, "deposed")
    assert a.answer().ok
    assert a.client.put(handle, b"1", b"").ok
    b.answer()
    assert c.state == (ACTIVE, "swap")
    assert HaState(b.state[0]) is HaState.STANDBY

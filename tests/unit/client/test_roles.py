"""Assignments arrive at least once and are taken once; what is asked of groups is checked here."""

from __future__ import annotations

import pytest

from raftckpt.client import group_operations as groups
from raftckpt.client.roles import RoleInbox
from raftckpt.errors import InvalidParam, TooBig
from raftckpt.model.groups import Operation
from raftckpt.protocol import contract
from raftckpt.protocol.operations import GroupAdmin

KEY = ("g", "c")


def role(number: int, component: str = "c") -> dict[str, object]:
    return {"group": "g", "component": component, "assignment": number}


@pytest.fixture
def woken() -> list[int]:
    return []


@pytest.fixture
def inbox(woken: list[int]) -> RoleInbox:
    inbox = RoleInbox()
    inbox.serve(KEY, lambda: woken.append(1))
    return inbox


def test_the_newest_is_taken_once(inbox: RoleInbox, woken: list[int]) -> None:
    assert inbox.take(KEY) is None
    inbox.put(role(1))
    inbox.put(role(3))
    inbox.put(role(3))  # a repeat
    inbox.put(role(2))  # overtaken
    inbox.put(role(9, "another"))
    assert len(woken) == 2
    assert inbox.take(KEY) == role(3)
    inbox.put(role(3))
    assert inbox.take(KEY) is None


def test_what_is_forgotten_is_not_kept(inbox: RoleInbox, woken: list[int]) -> None:
    inbox.put(role(3))
    inbox.forget(KEY)
    assert inbox.take(KEY) is None
    inbox.put(role(4))
    assert inbox.take(KEY) is None
    inbox.serve(KEY, lambda: woken.append(1))
    inbox.put(role(3))  # begins anew: numbers of before do not count
    assert inbox.take(KEY) == role(3)


def test_a_doubtful_one_is_kept_for_who_joins_again(inbox: RoleInbox, woken: list[int]) -> None:
    inbox.doubtful.add(KEY)
    inbox.forget(KEY)
    inbox.put(role(5))
    assert woken == []
    assert inbox.take(KEY) == role(5)


def test_the_end_wakes_everybody(inbox: RoleInbox, woken: list[int]) -> None:
    inbox.serve(("g", "d"), lambda: woken.append(2))
    inbox.end("expired")
    assert inbox.lost == "expired"
    assert sorted(woken) == [1, 2]


LONG = "g" * (contract.GROUP_NAME_BYTES_MAX + 1)


@pytest.mark.parametrize("name", ["", None, b"g", "\ud800"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidParam):
        groups.group_status(name)
    with pytest.raises(InvalidParam):
        groups.admin(name, Operation.SWAP)


def test_a_long_name_is_too_big() -> None:
    with pytest.raises(TooBig, match="at most 256 bytes"):
        groups.join(LONG, "c", 0, 1.0, None)


@pytest.mark.parametrize("rank", [-1, contract.COMPONENT_RANK_MAX + 1, True, "1"])
def test_a_rank_has_bounds(rank: int) -> None:
    with pytest.raises(InvalidParam, match="a rank is"):
        groups.join("g", "c", rank, 1.0, None)


@pytest.mark.parametrize("seconds", [0.05, 3601])
def test_silence_has_bounds(seconds: float) -> None:
    with pytest.raises(InvalidParam, match="response_timeout"):
        groups.join("g", "c", 0, seconds, None)
    with pytest.raises(InvalidParam, match="health_check"):
        groups.join("g", "c", 0, 1.0, seconds)


def test_a_swap_names_who_is_to_be_active() -> None:
    assert groups.admin("g", Operation.SWAP, "c").message == GroupAdmin(0, 0, 0, "g", 4, "c")
    assert groups.admin("g", Operation.LOCK_INSTANTIATION).message == GroupAdmin(
        0, 0, 0, "g", 3, None
    )
    assert "lock-instantiation" in groups.admin("g", Operation.LOCK_INSTANTIATION).what


def test_descriptions_are_the_second_field() -> None:
    for call in (groups.groups(), groups.group_status("g")):
        assert call.decode is not None
        assert call.decode([7, ["row"]]) == ["row"]

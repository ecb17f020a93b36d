"""Groups in an image: each contradiction is refused."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.model.groups import HaState
from raftckpt.model.machine import CheckpointMachine

from .driver import DrivenMachine
from .test_groups import Part
from .test_image import image_of, objects, refused, sealed

NUMBER, NAME, SESSION, NODE, RANK, RESPONSE, HEALTH, STATE, ASSIGNMENT, ANSWERED = range(10)
TRANSITION, EPOCH, REVISION = 11, 13, 14
ADMIN, ACTIVE, GROUP_EPOCH, GROUP_TRANSITION, MEMBERS, FAILED = 1, 2, 3, 6, 8, 9


def group_image() -> list[Any]:
    """Objects of an image whose last is a group: "a" is active, "b" stands by, "c" has failed."""
    cluster = DrivenMachine()
    a, b, c = (Part(cluster, name) for name in "abc")
    for part in (a, b):
        part.answer()
    c.answer(ok=False)
    parts = objects(image_of(cluster.machine))
    group = parts[-1]
    assert [row[NAME] for row in group[MEMBERS]] == ["a", "b"]
    assert [row[NAME] for row in group[FAILED]] == ["c"]
    return parts


CONTRADICTIONS = [
    ("no group", (), 7),
    ("empty name", (0,), ""),
    ("admin state", (ADMIN,), 99),
    ("transition", (GROUP_TRANSITION,), 99),
    ("epoch from the future", (GROUP_EPOCH,), 1 << 40),
    ("negative epoch", (GROUP_EPOCH,), -1),
    ("active of another name", (ACTIVE,), "b"),
    ("active that is no member", (ACTIVE,), "z"),
    ("nobody active", (ACTIVE,), ""),
    ("a member that failed", (MEMBERS, 1, STATE), int(HaState.REMOVED)),
    ("two active", (MEMBERS, 1, STATE), int(HaState.ACTIVE)),
    ("failed that has not", (FAILED, 0, STATE), int(HaState.STANDBY)),
    ("row", (MEMBERS, 0), [1, "a"]),
    ("number 0", (MEMBERS, 0, NUMBER), 0),
    ("number 0 of one that failed", (FAILED, 0, NUMBER), 0),
    ("number of another", (MEMBERS, 1, NUMBER), 1),
    ("order", (MEMBERS, 0, NUMBER), 3),
    ("a name twice", (MEMBERS, 1, NAME), "a"),
    ("session that is none", (MEMBERS, 0, SESSION), 99),
    ("node of another", (MEMBERS, 0, NODE), "n7"),
    ("rank", (MEMBERS, 0, RANK), -1 << 40),
    ("response", (MEMBERS, 0, RESPONSE), 0),
    ("health", (MEMBERS, 0, HEALTH), 1),
    ("state", (MEMBERS, 1, STATE), 99),
    ("assignment from the future", (MEMBERS, 0, ASSIGNMENT), 1 << 40),
    ("assignment before the number", (MEMBERS, 1, ASSIGNMENT), 1),
    ("answered", (MEMBERS, 0, ANSWERED), "yes"),
    ("transition of a member", (MEMBERS, 0, TRANSITION), 99),
    ("epoch of a member", (MEMBERS, 0, EPOCH), 1 << 40),
    ("negative epoch of a member", (MEMBERS, 0, EPOCH), -1),
    ("revision of a member", (MEMBERS, 0, REVISION), 1 << 40),
    ("negative revision of a member", (MEMBERS, 0, REVISION), -1),
]


@pytest.mark.parametrize(
    ("path", "value"), [row[1:] for row in CONTRADICTIONS], ids=[row[0] for row in CONTRADICTIONS]
)
def test_contradictions_are_refused(path: tuple[int, ...], value: Any) -> None:
    parts = group_image()
    assert CheckpointMachine.restore([sealed(parts)]).groups.by_name
    place, step = parts, len(parts) - 1
    for inner in path:
        place, step = place[step], inner
    assert place[step] != value
    place[step] = value
    with pytest.raises(ValueError):
        CheckpointMachine.restore([sealed(parts)])


def test_members_come_in_the_order_of_their_numbers() -> None:
    parts = group_image()
    parts[-1][MEMBERS].reverse()
    assert refused([sealed(parts)])


def test_a_group_twice_is_refused() -> None:
    parts = group_image()
    parts[0][5] = 2
    again = [*parts[-1][:MEMBERS], [], []]
    again[ACTIVE] = ""
    assert refused([sealed([*parts, again])])
    other = ["other", *again[1:]]
    assert len(CheckpointMachine.restore([sealed([*parts, other])]).groups.by_name) == 2

"""The ruler of benchmarks/: the floor runs, and its stamps become hops over the right follower."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.bench.programs import program


@pytest.fixture
def floor() -> Iterator[Any]:
    with program("floor") as module:
        yield module


def test_hops_go_over_the_follower_whose_ack_came_first(floor: Any) -> None:
    row = [0] * floor.COLUMNS
    row[floor.LEADER_HAS], row[floor.OWN_ON_DISK], row[floor.BY] = 1_000, 90_000, 1
    first = floor.APPEND_LEFT
    row[first : first + 4] = [2_000, 200_000, 300_000, 400_000]
    row[first + 4 : first + 8] = [3_000, 5_000, 50_000, 60_000]
    row[floor.ACK_HERE :] = [95_000, 1, 96_000, 98_000, 100_000]
    hops = {hop.name: hop.p50 for hop in floor.hops_of([row])}
    assert hops == {
        "leader has the request": 1.0,
        "the append has left": 2.0,
        "the follower has it": 2.0,
        "it is on that disk": 45.0,
        "the ack has left": 10.0,
        "leader has the ack": 35.0,
        "committed": 1.0,
        "reply has left": 2.0,
        "client has it": 2.0,
        "(beside it: the leader's own copy)": 87.0,
        "the whole": 100.0,
    }


@pytest.mark.parametrize("flavour", ["c", "python"])
def test_the_floor_runs(floor: Any, flavour: str, tmp_path: Path) -> None:
    if flavour not in floor.flavours():
        pytest.skip(f"this machine has not what the floor in {flavour} needs")
    floor.WARM_UP = 2
    rows = floor.Floor(tmp_path).measure(flavour, floor.WORKS[0], 0.1)
    assert rows
    for row in rows:
        client, has, own = row[floor.CLIENT_SENDS], row[floor.LEADER_HAS], row[floor.OWN_ON_DISK]
        assert client < has < own <= row[floor.ACK_HERE] <= row[floor.REPLY_LEFT]
        at = 4 * row[floor.BY]
        assert has < row[floor.FOLLOWER_HAS + at] < row[floor.FOLLOWER_ON_DISK + at]
        assert row[floor.FOLLOWER_ON_DISK + at] < row[floor.ACK_HERE] < row[floor.CLIENT_HAS]

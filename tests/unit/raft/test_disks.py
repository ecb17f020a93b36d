"""When a leader hands over because of its disk, and when it does not."""

from __future__ import annotations

import pytest

from raftckpt.raft.disks import FRESH_S, LOOKS, SETTLED_S, SYNCS_MIN, Disks
from raftckpt.raft.messages import KINDS, DiskPace
from tests.unit.raft.cluster import Clock


class Scene:
    """A leader's disks, with a clock that a test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.said: list[tuple[str, DiskPace]] = []
        self.disks = Disks(self.clock.monotonic, lambda to, told: self.said.append((to, told)))
        self.disks.leads()
        self.clock.now = self.disks.look_at

    def pass_seconds(self, own: float, others: dict[str, float], seconds: int = 1) -> str | None:
        """So long: ten syncs a second here, others tell, a look each second."""
        found = None
        for _ in range(seconds):
            for _ in range(10):
                self.clock.now += 0.1
                self.disks.synced(own)
            for name, mean in others.items():
                self.disks.heard(name, DiskPace(KINDS[DiskPace], int(mean * 1e6)))
            if self.clock.now >= self.disks.look_at:
                found = self.disks.faster(list(others)) or found
        return found


def test_a_leader_with_a_slow_disk_hands_over_to_the_fastest() -> None:
    scene = Scene()
    assert scene.pass_seconds(0.4, {"b": 0.02, "c": 0.01}, LOOKS - 1) is None
    assert scene.pass_seconds(0.4, {"b": 0.02, "c": 0.01}) == "c"


@pytest.mark.parametrize(
    ("own", "others"),
    [
        (0.4, {"b": 0.4, "c": 0.4}),  # all are slow
        (0.4, {"b": 0.11, "c": 0.2}),  # faster, but not by far
        (0.04, {"b": 0.001, "c": 0.001}),  # by far, but this one is not slow
        (0.4, {}),  # nobody told anything
    ],
)
def test_nobody_hands_over(own: float, others: dict[str, float]) -> None:
    assert Scene().pass_seconds(own, others, 100) is None


def test_one_slow_second_is_none() -> None:
    scene = Scene()
    for _ in range(20):
        assert scene.pass_seconds(0.4, {"b": 0.001}, 1) is None
        assert scene.pass_seconds(0.0005, {"b": 0.001}, 4) is None


def test_it_is_not_tried_again_at_once() -> None:
    scene = Scene()
    assert scene.pass_seconds(0.4, {"b": 0.001}, LOOKS) == "b"
    assert scene.pass_seconds(0.4, {"b": 0.001}, int(SETTLED_S) - 1) is None
    assert scene.pass_seconds(0.4, {"b": 0.001}, LOOKS + 1) == "b"


def test_old_news_do_not_count() -> None:
    scene = Scene()
    scene.disks.heard("b", DiskPace(KINDS[DiskPace], 1000))
    scene.clock.now += FRESH_S + 0.1
    for _ in range(SYNCS_MIN):
        scene.disks.synced(0.4)
    assert [scene.disks.faster(["b"]) for _ in range(LOOKS + 1)] == [None] * (LOOKS + 1)
    scene.clock.now += FRESH_S + 0.1
    assert scene.disks.mean is None
    scene.disks.synced(0.4)
    assert scene.disks.mean is None, "a few syncs say nothing"


def test_only_a_slow_leader_tells_the_others() -> None:
    scene = Scene()
    scene.pass_seconds(0.001, {"b": 0.001}, 5)
    assert scene.said == []
    scene.pass_seconds(0.4, {"b": 0.3}, 5)
    assert {to for to, _ in scene.said} == {"b"}
    assert scene.said[-1][1].sync_us == pytest.approx(400_000, rel=0.05)

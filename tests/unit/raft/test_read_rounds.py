"""A read asks no more of the others than a majority takes, and everybody when those are silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftckpt.raft.messages import Append, decode_body
from raftckpt.raft.node import ASK_ALL_AFTER_S
from tests.unit.raft.cluster import Cluster


class Asked:
    """A cluster with a leader at rest, and whom it sends rounds."""

    def __init__(self, path: Path, count: int = 3) -> None:
        self.cluster = cluster = Cluster(path, count)
        self.leader = cluster.write(2)
        assert cluster.run(1, until=cluster.settled)
        self.asked: list[str] = []
        self.silent: set[str] = set()
        self.outcomes: list[bool] = []
        cluster.on_message = self._on_message

    def _on_message(self, sender: str, to: str, body: bytes) -> bool:
        if sender == self.leader and any(type(m) is Append for m in decode_body(body)):
            self.asked.append(to)
        return sender not in self.silent

    def read(self) -> list[str]:
        """Who was asked, in the turn of a read."""
        del self.asked[:], self.outcomes[:]
        self.cluster.nodes[self.leader].read_index(self.outcomes.append)
        self.cluster.pump()
        return self.asked

    def rest(self) -> None:
        """Until a heartbeat has been answered, and the next is not due for long."""
        self.cluster.run(0.5, tick=0.005, until=self._just_beaten)
        self.cluster.pump()

    def _just_beaten(self) -> bool:
        node = self.cluster.nodes[self.leader]
        return node._engine.append_due - self.cluster.clock.now > 4 * ASK_ALL_AFTER_S


@pytest.mark.parametrize(("count", "asked"), [(3, 1), (5, 2)])
def test_a_read_asks_as_many_as_a_majority_takes(tmp_path: Path, count: int, asked: int) -> None:
    world = Asked(tmp_path, count)
    world.rest()
    assert len(world.read()) == asked
    assert world.outcomes == [True]


def test_who_is_silent_is_asked_no_more_and_the_read_goes_on_with_all(tmp_path: Path) -> None:
    world = Asked(tmp_path)
    world.rest()
    (first,) = world.read()
    world.silent.add(first)
    world.read()
    assert world.outcomes == []
    node = world.cluster.nodes[world.leader]
    assert node.deadline() <= world.cluster.clock.now + ASK_ALL_AFTER_S
    world.cluster.clock.now += ASK_ALL_AFTER_S
    world.cluster.pump()
    assert world.outcomes == [True], "of the other one, when all were asked"
    (second,) = world.read()
    assert second != first
    assert world.outcomes == [True]


def test_the_one_that_answers_first_is_asked(tmp_path: Path) -> None:
    """Of those that answered the same round: one may be far away."""
    world = Asked(tmp_path)
    world.rest()
    (former,) = world.read()
    (other,) = set(world.cluster.names) - {former, world.leader}
    node = world.cluster.nodes[world.leader]
    node.compact()  # and a round for all
    node._sender.must_send = True
    world.cluster._step(world.leader)
    for name in (other, former):
        world.cluster.clock.now += 0.001
        for sender, to in ((world.leader, name), (name, world.leader)):
            bodies, world.cluster.wires[sender, to] = world.cluster.wires[sender, to], []
            for body in bodies:
                world.cluster.nodes[to].receive(world.cluster.id_of(sender), body)
            world.cluster._step(to)
    assert world.read() == [other]


def test_heartbeats_of_those_that_are_not_asked_come_as_before(tmp_path: Path) -> None:
    world = Asked(tmp_path)
    world.rest()
    (asked,) = world.read()
    (other,) = set(world.cluster.names) - {asked, world.leader}
    node = world.cluster.nodes[world.leader]
    due = node._engine.append_due
    heard = []
    while world.cluster.clock.now <= due + 0.001:
        if other in world.read():
            heard.append(world.cluster.clock.now)
        world.cluster.clock.now += 0.0005
    assert len(heard) == 1
    assert due <= heard[0] < due + 0.001


def test_no_read_is_confirmed_by_fewer_than_a_majority(tmp_path: Path) -> None:
    world = Asked(tmp_path, 5)
    world.rest()
    first, second = world.read()
    world.silent |= set(world.cluster.names) - {world.leader, first}
    world.read()
    for _ in range(5):
        world.cluster.clock.now += ASK_ALL_AFTER_S
        world.cluster.pump()
    assert world.outcomes == []
    world.silent.remove(second)
    world.cluster.clock.now += ASK_ALL_AFTER_S
    world.cluster.pump()
    world.cluster.run(0.2)
    assert world.outcomes == [True]

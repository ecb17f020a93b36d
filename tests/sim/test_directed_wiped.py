"""A wiped replica among five voters: what its lost disk promised must neither count nor be broken.

Three voters forgive much: whoever is missing is a majority's last voice. With five, one replica can
have voted for a candidate, or acknowledged an entry, lost its disk, and be counted by a leader that
has a majority without it. Each scenario is played as is, and with the bug it is for planted.
"""

from __future__ import annotations

import pytest

from raftckpt.raft.port import Role
from tests.sim.checks import Violation
from tests.sim.nodes import Tuning
from tests.sim.process import Process
from tests.sim.test_directed import Stage

COUNTS_AFTER_A_MAJORITY = "rejoining counts after a majority"
LOST_ACKS_COUNT = "acks of a lost disk count"


def mute(s: Stage, process: Process, *others: Process) -> None:
    """What ``process`` sends to ``others`` waits on the way."""
    for other in others:
        s.world.network.clog(process.name, other.name)


def heard(s: Stage, process: Process, *others: Process) -> None:
    """What waited arrives."""
    for other in others:
        s.world.network.unclog(process.name, other.name)


def settled(s: Stage) -> None:
    """Everything heals: all have the same, and nothing acknowledged is missing."""
    s.heal()
    s.until(lambda: sum(p.leads for p in s.all) == 1)
    s.write(3)
    s.all_caught_up()
    s.until(lambda: not any(p.rejoining for p in s.all))
    s.world.final()


def vote_of_a_lost_disk(sabotage: str = "") -> None:
    """A candidate has the vote of a disk that is lost, and wins after its giver caught up again.

    Of five, the candidate has two votes, and nobody else hears it. The leader before it has a
    majority without the candidate and without the one that lost its disk. Were that one to count
    now, it would help to commit what the candidate lacks; but the vote it gave is still worth one,
    and with a third the candidate leads.
    """
    s = Stage(size=5, sabotage=sabotage)
    with s.world.scripted():
        s.write(5)
        s.all_caught_up()
        leader, term = s.leader(), s.leader().seen[1]
        candidate, lost, near, late = s.followers()
        mute(s, candidate, leader, near, late)
        mute(s, lost, leader, near, late)
        leader.transfer(candidate.name)  # so it asks at once, and nobody objects to a living leader
        s.until(lambda: s.world.checks.votes.get((lost.name, term + 1)) == candidate.name)
        s.run(0.01)
        assert candidate.seen[:2] == (Role.CANDIDATE, term + 1)

        s.lose_disk(lost)
        mute(s, candidate, lost)
        heard(s, lost, leader, near, late)
        s.restart(lost)
        s.until(lambda: lost.storage.journal[-1][1] == leader.storage.journal[-1][1])
        s.until(lambda: not leader.transfers_open)  # nothing came of it, in rounds enough
        assert leader.leads
        assert leader.seen[1] == term

        mute(s, leader, late)
        writes = s.propose(leader, 3)
        s.run(0.02)
        assert lost.storage.journal[-1][1] == leader.storage.journal[-1][1]
        assert near.storage.journal[-1][1] == leader.storage.journal[-1][1]
        heard(s, candidate, late)
        s.until(lambda: candidate.leads)
        assert candidate.seen[1] == term + 1  # with the vote of the lost disk
        settled(s)
        assert {w.outcome for w in writes} == {"unknown"}


def acks_of_a_lost_disk(sabotage: str = "") -> None:
    """What only a lost disk held beside the leader's is not on a majority with one more.

    One follower has acknowledged everything, the others next to nothing, when it loses its disk.
    It is told that it counts again as soon as it holds what is committed, which is little. Then
    one of the others catches up: with the old ack that would be three of five.
    """
    s = Stage(size=5, sabotage=sabotage)
    s.world.tuning = Tuning(3, 1, 2048, 512)  # three entries for each answer
    with s.world.scripted():
        s.write(5)
        s.all_caught_up()
        leader = s.leader()
        lost, near, *late = s.followers()
        for process in (near, *late):
            mute(s, process, leader)
        writes = s.propose(leader, 60)
        last = leader.storage.journal[-1][1]
        sender, engine = leader.node._sender, leader.node._engine
        s.until(lambda: engine.match_index(lost.name) == last, within=0.2, grain=1e-3)
        committed = engine.settled

        s.lose_disk(lost)
        s.restart(lost)
        s.until(lambda: sender.is_rejoining(lost.name), within=0.2, grain=1e-3)
        enough = committed + 6  # three more are on everybody's disk, and may be committed
        s.until(lambda: lost.storage.journal[-1][1] >= enough, within=0.1, grain=1e-4)
        mute(s, lost, leader)  # so it is sent no more
        mute(s, leader, *late)
        for process in (near, *late):
            heard(s, process, leader)
        s.until(lambda: not lost.rejoining, within=0.1, grain=1e-4)
        assert lost.storage.journal[-1][1] < last
        s.until(lambda: engine.match_index(near.name) == last, within=0.2, grain=1e-3)
        s.run(0.01)
        assert leader.leads
        s.kill(leader)
        s.cut_off(near)
        assert s.leader() in (lost, *late)
        s.write(1)
        s.restart(leader)
        settled(s)
        assert {w.outcome for w in writes} == {"acknowledged", "unknown"}


def test_wiped_node_does_not_count_while_a_candidate_has_its_old_vote() -> None:
    vote_of_a_lost_disk()


def test_old_acks_of_a_wiped_node_are_forgotten() -> None:
    acks_of_a_lost_disk()


def test_readmission_by_a_majority_is_caught() -> None:
    with pytest.raises(Violation, match="leader completeness"):
        vote_of_a_lost_disk(COUNTS_AFTER_A_MAJORITY)


def test_old_acks_that_count_are_caught() -> None:
    with pytest.raises(Violation, match="durable on a majority"):
        acks_of_a_lost_disk(LOST_ACKS_COUNT)

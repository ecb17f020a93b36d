"""A wiped replica among five voters: what its lost disk promised must neither count nor be broken.

Three voters forgive much: whoever is missing is a majority's last voice. With five, one replica can
have voted for a candidate, or acknowledged an entry, lost its disk, and be counted by a leader that
has a majority without it. It comes back as another directory: its old vote stays worth one to the
candidate that has it, its old acks are those of a directory that is gone, and the new one counts
only after an entry, committed without it, has let it in. Each scenario is played as is, and with
the bug it is for planted.
"""

from __future__ import annotations

import pytest

from raftckpt.raft import changes
from raftckpt.raft.changes import Changes
from raftckpt.raft.configuration import ClusterMember
from raftckpt.raft.engine import Engine
from raftckpt.raft.port import PeerInfo, Role
from tests.sim.checks import Violation
from tests.sim.nodes import Tuning
from tests.sim.process import Process
from tests.sim.test_directed import Stage


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
    s.until(lambda: all(p.up and not p.learns for p in s.all))
    s.world.final()


def let_in_at_once(patch: pytest.MonkeyPatch) -> None:
    """The bug: the new directory is a voter in the old one's place, whoever holds what."""
    taken = changes._taken

    def votes(place: ClusterMember, info: PeerInfo) -> ClusterMember:
        return taken(place, info)._replace(voter=True, promote=False)

    patch.setattr(changes, "_taken", votes)
    # which the look at the change itself would see at once: here its consequences are to show
    patch.setattr(Process, "_look_at_change", lambda self: None)
    patch.setattr(Changes, "against", lambda self, latter: "")
    patch.setattr(Changes, "_alive", lambda self, name, within_s: False)


def acks_are_inherited(patch: pytest.MonkeyPatch) -> None:
    """The bug: what the lost directory acknowledged counts for the one that comes for it."""
    reconfigure = Engine.reconfigure

    def inherits(self: Engine) -> None:
        known = self._SyncObj__raftMatchIndex
        former = dict(known)
        reconfigure(self)
        gone = [match for peer, match in former.items() if peer not in known]
        for peer in [p for p in known if p not in former]:
            known[peer] = max(gone, default=0)

    patch.setattr(Engine, "reconfigure", inherits)


def a_candidate_has_the_vote_of_a_lost_disk(s: Stage) -> tuple[Process, ...]:
    """Of five, it has two votes in the next term, and nobody else hears it."""
    s.write(5)
    s.all_caught_up()
    leader, term = s.leader(), s.leader().seen[1]
    candidate, lost, near, late = s.followers()
    mute(s, candidate, leader, near, late)
    mute(s, lost, leader, near, late)
    leader.transfer(candidate.name)  # so it asks at once, and nobody objects to a living leader
    s.until(lambda: s.world.checks.votes.get((lost.id, term + 1)) == candidate.id)
    s.run(0.01)
    assert candidate.seen[:2] == (Role.CANDIDATE, term + 1)
    s.lose_disk(lost)
    mute(s, candidate, lost)
    heard(s, lost, leader, near, late)
    return leader, candidate, lost, near, late


def vote_of_a_lost_disk() -> None:
    """The candidate wins with the third vote of one that has not heard of the new directory.

    Were the new directory a voter by then, it would help to commit what the candidate lacks.
    """
    s = Stage(size=5)
    with s.world.scripted():
        leader, candidate, lost, near, late = a_candidate_has_the_vote_of_a_lost_disk(s)
        term = leader.seen[1]
        s.until(lambda: not leader.transfers_open)
        mute(s, leader, late)
        s.restart(lost)
        s.until(lambda: lost.up, within=0.2)
        writes = s.propose(leader, 3)
        s.run(0.2)  # leader and near hold the entry that lets it in, and commit nothing
        heard(s, candidate, late)
        s.until(lambda: candidate.leads)
        assert candidate.seen[1] == term + 1  # with the vote of the lost disk
        settled(s)
        assert {w.outcome for w in writes} == {"unknown"}
        assert near.up


def acks_of_a_lost_disk() -> None:
    """What only a lost disk held beside the leader's is not on a majority with one more.

    One follower has acknowledged everything, the others next to nothing, when it loses its disk.
    Then one of the others catches up: with an old ack that is taken for the new directory's that
    would be three of five.
    """
    s = Stage(size=5)
    s.world.tuning = Tuning(3, 1, 2048, 512)  # three entries for each answer
    with s.world.scripted():
        s.write(5)
        s.all_caught_up()
        leader = s.leader()
        lost, near, *late = s.followers()
        old = lost.id
        for process in (near, *late):
            mute(s, process, leader)
        writes = s.propose(leader, 60)
        last = leader.storage.journal[-1][1]
        engine = leader.node._engine
        s.until(lambda: engine.match_index(old) == last, within=0.2, grain=1e-3)
        s.lose_disk(lost)
        mute(s, leader, lost, *late)
        s.restart(lost)
        s.until(lambda: lost.up, within=0.2)
        s.run(0.1)
        for process in (near, *late):
            heard(s, process, leader)
        s.until(lambda: engine.match_index(near.id) >= last, within=0.5, grain=1e-3)
        s.run(0.01)
        assert engine.match_index(lost.id) == 0
        s.kill(leader)
        s.cut_off(near)
        s.run(3.0)
        assert s.serving() is None  # two that lack it and a learner: rather no service
        s.restart(leader)
        settled(s)
        assert {w.outcome for w in writes} <= {"acknowledged", "unknown"}


def test_the_vote_of_a_lost_disk_is_worth_one_and_commits_nothing() -> None:
    vote_of_a_lost_disk()


def test_the_old_acks_of_a_wiped_replica_are_not_those_of_its_new_directory() -> None:
    acks_of_a_lost_disk()


def test_whoever_has_let_the_new_directory_in_does_not_elect_by_the_old_vote() -> None:
    """Three of the four that are left hold the entry that lets it in: the candidate lacks it."""
    s = Stage(size=5)
    with s.world.scripted():
        leader, candidate, lost, _near, late = a_candidate_has_the_vote_of_a_lost_disk(s)
        term = leader.seen[1]
        (old,) = candidate.voters - {p.id for p in s.all}
        s.until(lambda: not leader.transfers_open)
        s.restart(lost)
        s.until(lambda: lost.up and not lost.learns)
        assert leader.leads
        assert lost.id in leader.voters
        assert old not in leader.voters
        assert old in candidate.voters, "nobody tells it"
        s.write(3)
        heard(s, candidate, late)
        s.run(1.0)
        assert not candidate.leads
        assert s.world.checks.votes.get((late.id, term + 1)) != candidate.id
        settled(s)


def test_a_new_directory_that_votes_at_once_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    let_in_at_once(monkeypatch)
    with pytest.raises(Violation, match="leader completeness"):
        vote_of_a_lost_disk()


def test_old_acks_that_count_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    let_in_at_once(monkeypatch)
    acks_are_inherited(monkeypatch)
    with pytest.raises(Violation, match="durable on a majority"):
        acks_of_a_lost_disk()

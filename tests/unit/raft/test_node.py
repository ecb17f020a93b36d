"""A few nodes together: elections, commits, reads, snapshots, members. No sockets, no real time."""

from __future__ import annotations

import shutil

import pytest

from raftckpt.raft.disks import FRESH_S, LOOK_EVERY_S, SETTLED_S
from raftckpt.raft.node import SYNCS_MISSED
from raftckpt.raft.port import Removal, Role, Transferred
from raftckpt.storage import REJOINS, IdentityState
from tests.unit.raft.cluster import Cluster


def test_a_leader_is_elected_and_commits_everywhere(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(20)
    assert cluster.run(1, until=cluster.settled)
    assert len(cluster.machines[leader].contexts) == 20
    assert [s.role for s in (n.status() for n in cluster.nodes.values())].count(Role.LEADER) == 1


def test_one_node_is_a_cluster(tmp_path):
    cluster = Cluster(tmp_path, 1)
    cluster.write(5)
    outcomes = []
    cluster.nodes["n1"].read_index(outcomes.append)
    cluster.pump()
    assert outcomes == [True]
    cluster.kill("n1")
    cluster.start("n1")
    cluster.elect()
    assert len(cluster.machines["n1"].items) == 5


@pytest.mark.parametrize("count", [1, 3])
def test_a_leader_expects_of_others_what_its_own_disk_takes(tmp_path, count):
    """Of few syncs, too, and alone, for it may have others soon: who answers late is here."""
    cluster = Cluster(tmp_path, count)
    node = cluster.nodes[cluster.elect()]
    usual = node._engine.silence_s
    assert cluster.run(SETTLED_S + 1, until=lambda: False) is False
    log, sync = node._log, node._log.sync

    def slow():
        if log.dirty:
            cluster.clock.now += 0.4
        sync()

    log.sync = slow
    cluster.write(1)
    log.sync = sync
    for _ in range(3):
        cluster.run(LOOK_EVERY_S)
        assert node._engine.silence_s == pytest.approx(usual + SYNCS_MISSED * 0.4, rel=0.4)
    cluster.run(FRESH_S)
    assert node._engine.silence_s == usual


def test_followers_refuse_proposals_and_reads(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.elect()
    follower = next(n for n in cluster.names if n != leader)
    outcomes = []
    cluster.nodes[follower].read_index(outcomes.append)
    assert outcomes == [False]
    assert not cluster.nodes[follower].propose(b"x")


def test_a_broken_leader_link_elects_within_the_link_delay(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    before = cluster.clock.now
    cluster.kill(leader)
    assert cluster.run(2, tick=0.001, until=cluster.leader)
    assert cluster.clock.now - before < 0.2
    cluster.write(3, "w")
    cluster.start(leader)
    assert cluster.run(2, until=cluster.settled)


def test_a_partitioned_leader_commits_and_reads_nothing(tmp_path):
    cluster = Cluster(tmp_path)
    old = cluster.write(3)
    cluster.partition(old)
    outcomes = []
    assert cluster.nodes[old].propose(b"lost", "lost")
    cluster.nodes[old].read_index(outcomes.append)
    cluster.run(3)
    assert outcomes == [False]
    assert "lost" not in cluster.machines[old].contexts
    assert cluster.machines[old].abandoned == ["lost"]
    new = cluster.leader()
    assert new != old
    cluster.write(3, "w")
    cluster.heal()
    assert cluster.run(3, until=cluster.settled)
    assert b"lost" not in cluster.machines[old].items


def test_a_replica_alone_applies_nothing_that_is_not_on_its_disk(tmp_path):
    cluster = Cluster(tmp_path, count=1)
    name = cluster.elect()
    node, machine = cluster.nodes[name], cluster.machines[name]
    assert node.propose(b"first", "first")
    assert node._log.dirty
    node.take()
    assert b"first" not in machine.items, "applied before the sync"
    node.begin()
    assert not node._log.dirty
    assert b"first" in machine.items
    node.finish()


def test_what_is_proposed_after_the_acks_leaves_in_the_same_step(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    node = cluster.nodes[leader]
    follower = next(name for name in cluster.names if name != leader)
    cluster.pump()
    assert node.propose(b"first", "first")
    node.step()
    for body in cluster.wires[leader, follower]:
        cluster.nodes[follower].receive(leader, body)
    cluster.nodes[follower].step()
    for body in cluster.wires[follower, leader]:
        node.receive(follower, body)
    assert b"first" not in cluster.machines[leader].items
    node.take()
    assert b"first" in cluster.machines[leader].items
    assert node.propose(b"second", "second")
    cluster.wires[leader, follower].clear()
    node.begin()
    assert any(b"second" in body for body in cluster.wires[leader, follower])
    node.finish()


def test_a_flapping_follower_deposes_nobody(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    term = cluster.nodes[leader].status().term
    follower = next(n for n in cluster.names if n != leader)
    for _ in range(20):
        cluster.unlink(leader, follower)
        cluster.run(0.08)
        cluster.connect_all()
        cluster.run(0.05)
    assert cluster.nodes[leader].status().term == term
    assert cluster.leader() == leader


def test_a_follower_far_behind_catches_up_in_a_few_rounds(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.elect()
    follower = next(n for n in cluster.names if n != leader)
    cluster.kill(follower)
    cluster.write(3000)
    cluster.start(follower)
    before = cluster.clock.now
    assert cluster.run(2, until=cluster.settled)
    assert cluster.clock.now - before < 1.0


def test_catching_up_by_snapshot_while_writes_go_on(tmp_path):
    cluster = Cluster(tmp_path, snapshot_entries=100, keep_entries=10)
    leader = cluster.elect()
    follower = next(n for n in cluster.names if n != leader)
    cluster.kill(follower)
    cluster.write(1000)
    cluster.run(0.3)
    assert cluster.nodes[leader].status().first_index > 500
    cluster.start(follower)
    cluster.write(50, "w")
    assert cluster.run(3, until=cluster.settled)
    assert cluster.nodes[follower].status().snapshot_index > 0
    cluster.kill(follower)
    cluster.start(follower)
    assert cluster.run(3, until=cluster.settled)


def test_everything_survives_a_restart_of_all(tmp_path):
    cluster = Cluster(tmp_path, snapshot_entries=50, keep_entries=5)
    cluster.write(200)
    cluster.run(0.5)
    for name in list(cluster.nodes):
        cluster.kill(name)
    for name in cluster.names:
        cluster.start(name)
    cluster.elect()
    assert cluster.run(3, until=cluster.settled)
    assert len(cluster.machines["n1"].items) == 200


def test_transfer_hands_leadership_over(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(10)
    target = next(n for n in cluster.names if n != leader)
    outcomes = []
    cluster.nodes[leader].transfer(target, outcomes.append)
    assert not cluster.nodes[leader].propose(b"x"), "writes wait while leadership moves"
    assert cluster.run(1, until=lambda: cluster.leader() == target)
    cluster.run(0.1)
    assert outcomes == [Transferred.DONE]


def test_transfer_to_a_dead_node_is_refused_and_times_out(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    a, b = (n for n in cluster.names if n != leader)
    cluster.kill(a)
    outcomes = []
    cluster.nodes[leader].transfer(a, outcomes.append)
    assert outcomes == [Transferred.REFUSED]
    cluster.on_message = lambda sender, to, body: to != b or b"\x92\x08" not in body
    cluster.nodes[leader].transfer(b, outcomes.append, 0.5)
    cluster.run(1)
    assert outcomes[1:] == [Transferred.TIMED_OUT]
    cluster.write(1, "after")


def test_a_wiped_replica_is_another_member_and_rejoins_without_a_voice(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(30)
    wiped = next(n for n in cluster.names if n != leader)
    other = next(n for n in cluster.names if n not in (leader, wiped))
    cluster.kill(wiped)
    shutil.rmtree(tmp_path / wiped)
    cluster.kill(other)
    cluster.start(wiped, joins=REJOINS, directory="new")
    cluster.run(2)
    assert cluster.nodes[wiped].status().role is Role.LEARNER
    assert cluster.leader() is None, "a wiped voter must not make a majority"
    cluster.start(other)
    cluster.write(5, "w")
    assert cluster.run(5, until=lambda: cluster.nodes[wiped].status().role is Role.FOLLOWER)
    assert cluster.directories[wiped].identity.joins == ""
    members = cluster.configuration().members
    assert {m.directory for m in members} == {leader, other, "new"}
    assert not any(m.promote for m in members)
    assert cluster.run(3, until=cluster.settled)
    cluster.kill(other)
    cluster.write(5, "x")
    cluster.kill(wiped)
    cluster.start(wiped)
    assert cluster.nodes[wiped].status().role is Role.FOLLOWER
    cluster.write(5, "y")


def test_who_was_let_in_once_is_not_let_in_again_by_a_link_that_outlived_it(tmp_path):
    """A living member made room for a dead one, of which only the leader's link was left."""
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    third, other = (name for name in cluster.names if name != leader)

    def member() -> tuple[str, bool]:
        there = cluster.configuration().named(third)
        return there.directory, there.voter

    def rejoins(directory: str) -> None:
        shutil.rmtree(tmp_path / third)
        cluster.start(third, joins=REJOINS, directory=directory)

    def hand_over(to: str) -> None:
        cluster.nodes[cluster.leader()].transfer(to, lambda outcome: None)
        assert cluster.run(3, until=lambda: cluster.leader() == to)

    cluster.kill(third)
    rejoins("former")
    assert cluster.run(10, until=lambda: member() == (cluster.id_of(third), True))
    cluster.nodes.pop(third)._storage.close()  # the leader does not hear that it is gone
    cluster.unlink(other, third)
    rejoins("latter")
    hand_over(other)
    assert cluster.run(10, until=lambda: member() == (cluster.id_of(third), True))
    hand_over(leader)
    cluster.run(10)
    assert member()[0] == cluster.id_of(third)


def test_an_old_disk_of_a_member_that_rejoined_is_told_that_it_was_removed(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    wiped = next(n for n in cluster.names if n != leader)
    cluster.kill(wiped)
    (tmp_path / wiped).rename(tmp_path / "old")
    cluster.start(wiped, joins=REJOINS, directory="new")
    assert cluster.run(5, until=lambda: cluster.nodes[wiped].status().role is Role.FOLLOWER)
    cluster.kill(wiped)
    (tmp_path / wiped).rename(tmp_path / "current")
    (tmp_path / "old").rename(tmp_path / wiped)
    cluster.start(wiped)
    with pytest.raises(Removal, match=f"removed {wiped}"):
        cluster.run(2)
    assert cluster.directories[wiped].identity.state is IdentityState.REMOVED
    cluster.directories[wiped].close()


def test_a_node_at_a_higher_term_does_not_hang_the_cluster(tmp_path):
    """One vote for a candidate that died, then another node down: terms must spread."""
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    a, b = (n for n in cluster.names if n != leader)
    cluster.kill(leader)
    cluster.kill(b)
    cluster.nodes[a]._engine.adopt_term(50)
    cluster.pump()
    cluster.start(leader)
    cluster.write(3, "w")
    assert cluster.nodes[leader].status().term > 50


PIECE_S = 0.01


def _compacting(path, snapshot_entries):
    """One node that begins a snapshot, each piece of which takes ``PIECE_S``; and those made."""
    unhurried = {"heartbeat_s": 1.0, "election_min_s": 4.0, "election_max_s": 5.0}
    cluster = Cluster(path, 1, snapshot_entries=snapshot_entries, **unhurried)
    cluster.write(20)
    made = []
    image = cluster.machines["n1"].freeze

    def pieces():
        for piece in [b"", b"", b"", b"", b"", *image()]:
            cluster.clock.now += PIECE_S
            made.append(piece)
            yield piece

    cluster.machines["n1"].freeze = pieces
    node = cluster.nodes["n1"]
    assert node.compact()
    return cluster, node, made


def test_a_snapshot_leaves_most_of_the_time_to_others(tmp_path):
    cluster, node, made = _compacting(tmp_path, 1000)
    node.step()
    assert len(made) == 1
    paused_until = cluster.clock.now + 4 * PIECE_S
    cluster.clock.now = paused_until - 0.001
    node.step()
    assert len(made) == 1, "the pause was not kept"
    assert node.deadline() == pytest.approx(paused_until), "nobody would write the next slice"
    cluster.clock.now = paused_until + 1e-9
    node.step()
    assert len(made) == 2
    assert cluster.run(1, until=lambda: node.status().snapshot_index)


def test_a_snapshot_hurries_when_the_log_outgrows_it(tmp_path):
    _, node, made = _compacting(tmp_path, 30)
    for number in range(30):
        assert node.propose(b"more %d" % number)
    node.step()
    before = len(made)
    node.step()
    assert len(made) == before + 1, "it paused, although the next snapshot is due"


def test_the_tail_kept_behind_a_snapshot_is_bounded_in_bytes(tmp_path):
    cluster = Cluster(tmp_path, snapshot_entries=50, keep_entries=40, keep_bytes=1000)
    leader = cluster.elect()
    for i in range(60):
        assert cluster.nodes[leader].propose(b"%03d" % i + b"x" * 200, i)
    cluster.run(0.5)
    status = cluster.nodes[leader].status()
    assert 0 < status.snapshot_index - status.first_index <= 7
    cluster.settled()


def test_a_campaign_that_found_no_links_is_called_off(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    term = cluster.nodes[leader].status().term
    follower = next(n for n in cluster.names if n != leader)
    cluster.on_message = lambda sender, to, body: to != leader or sender != follower
    cluster.nodes[follower]._engine.campaign()
    cluster.partition(follower)
    cluster.on_message = None
    cluster.heal()
    cluster.run(0.25)
    assert cluster.leader() == leader
    assert cluster.nodes[leader].status().term == term


def test_a_transfer_that_is_refused_for_ever_does_not_hold_compaction(tmp_path):
    cluster = Cluster(tmp_path, snapshot_entries=50, keep_entries=5)
    leader = cluster.elect()
    away = next(n for n in cluster.names if n != leader)
    cluster.kill(away)
    cluster.write(300)
    cluster.start(away)
    cluster.nodes[away]._following._installer.take = lambda source, chunk: (0, None)
    cluster.run(1)
    before = cluster.nodes[leader].status().snapshot_index
    for _ in range(15):
        cluster.write(20, "w")
        cluster.run(1, tick=0.05)
    assert cluster.nodes[leader].status().snapshot_index > before + 100


def test_a_second_lost_disk_under_the_same_leader_starts_over(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(30)
    wiped, _other = (n for n in cluster.names if n != leader)
    for number in range(2):
        cluster.kill(wiped)
        shutil.rmtree(tmp_path / wiped)
        cluster.run(0.7)  # its former directory is silent: nobody holds it for alive
        cluster.start(wiped, joins=REJOINS, directory=f"new{number}")
        assert cluster.run(
            3, until=lambda n=number: cluster.configuration(leader).member(f"new{n}") is not None
        )
        assert cluster.leader() == leader
        assert cluster.configuration(leader).named(wiped).directory == f"new{number}"
        assert not cluster.configuration(leader).named(wiped).voter
    assert cluster.run(5, until=lambda: cluster.nodes[wiped].status().role is Role.FOLLOWER)
    cluster.write(3, "w")
    assert cluster.run(2, until=cluster.settled)


def test_a_snapshot_goes_on_where_an_earlier_leadership_of_the_sender_left_it(tmp_path):
    """The follower holds more than the leader thinks it sent: neither may wait for the other."""
    cluster = Cluster(tmp_path, snapshot_entries=10, keep_entries=2)
    leader = cluster.elect()
    away = next(n for n in cluster.names if n != leader)
    cluster.kill(away)
    for i in range(40):
        assert cluster.nodes[leader].propose(b"%02d" % i + b"x" * 100_000, i)
        cluster.run(0.02)
    cluster.run(0.5)
    cluster.start(away)
    transfers = []
    while not transfers or transfers[0].received < 1_000_000:
        cluster.pump(1)
        follower = cluster.nodes[leader]._sender._followers[away]
        transfers = [follower.transfer] if follower.transfer else []
        cluster.clock.now += 0.001
    held = cluster.nodes[away]._following._installer._received
    assert 0 < held < transfers[0].meta.size
    transfers[0].restart(cluster.clock.now)
    assert cluster.run(3, until=cluster.settled), "stuck until the stall time-out, or for ever"

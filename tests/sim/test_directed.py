"""Scenarios that random seeds do not reach, or not often enough, played out on whole clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from raftckpt.raft.port import Role
from tests.sim.nodes import Tuning
from tests.sim.process import Process, Write
from tests.sim.world import World


class Stage:
    """A calm world and the moves of a script."""

    def __init__(self, size: int = 3, seed: int = 1, sabotage: str = "") -> None:
        self.world = World(seed, families=set(), size=size, sabotage=sabotage, founded=True)
        self.world.ballast = 0
        self.world.tuning = Tuning(3, 4, 2048, 512)
        self.world.snapshot_entries = 100_000
        self.world.keep_entries = 0

    @property
    def all(self) -> list[Process]:
        return list(self.world.processes.values())

    def node(self, name: str) -> Process:
        return self.world.processes[name]

    def run(self, seconds: float) -> None:
        self.world.advance(seconds)

    def until(
        self, condition: Callable[[], bool], within: float = 5.0, grain: float = 0.005
    ) -> None:
        end = self.world.queue.now + within
        while not condition():
            assert self.world.queue.now < end, "\n".join(list(self.world.trace.tail)[-60:])
            self.run(grain)

    def serving(self) -> Process | None:
        for process in self.all:
            if process.up and not process.paused and process.leads:
                status = process.status()
                if status.leader == process.name:
                    return process
        return None

    def leader(self, *, other_than: str = "") -> Process:
        def found() -> bool:
            serving = self.serving()
            return serving is not None and serving.name != other_than

        self.until(found)
        serving = self.serving()
        assert serving is not None
        return serving

    def followers(self) -> list[Process]:
        leader = self.leader()
        return [p for p in self.all if p is not leader]

    def propose(self, process: Process, count: int = 1) -> list[Write]:
        writes = []
        for _ in range(count):
            writes.append(self.world.new_write(40))
            process.propose(writes[-1])
        return writes

    def write(self, count: int = 1) -> None:
        """Write through the leader and wait until all of it is acknowledged."""
        writes = self.propose(self.leader(), count)
        self.until(lambda: all(w.outcome == "acknowledged" for w in writes))

    def caught_up(self, process: Process, by: Process) -> bool:
        return process.up and process.status().applied_index == by.status().applied_index

    def all_caught_up(self) -> None:
        leader = self.leader()
        self.until(lambda: all(self.caught_up(p, leader) for p in self.all))

    def cut_off(self, process: Process) -> None:
        self.world.network.partition({process.name}, both_ways=True)

    def heal(self) -> None:
        self.world.network.heal()

    def kill(self, process: Process, *, power: bool = False) -> None:
        self.world.network.host_died(process.name, silently=power)
        process.die("killed by the script")
        if power:
            process.disk.power_loss()
        else:
            process.disk.kill()

    def lose_disk(self, process: Process, *, power: bool = False) -> None:
        """``process`` died and its disk is gone; what starts next has to rejoin."""
        self.kill(process, power=power)
        self.world.faults._replace_disk(process)

    def restart(self, process: Process) -> None:
        process.start()
        assert process.running, process.stopped_because


@contextmanager
def stage(size: int = 3, seed: int = 1) -> Iterator[Stage]:
    built = Stage(size, seed)
    with built.world.scripted():
        yield built


def test_failover_after_a_kill_is_fast() -> None:
    took = []
    for seed in range(1, 11):
        with stage(seed=seed) as s:
            s.write(5)
            s.run(1.0)
            dead = s.leader()
            s.kill(dead)
            began = s.world.queue.now
            s.leader(other_than=dead.name)
            took.append(s.world.queue.now - began)
    assert sorted(took)[5] < 0.1, took  # broken links, not time-outs
    assert max(took) < 1.5, took


def test_isolated_leader_steps_down_and_another_one_serves() -> None:
    with stage() as s:
        s.write(5)
        old = s.leader()
        s.cut_off(old)
        s.leader(other_than=old.name)
        s.write(5)
        s.until(lambda: not old.leads)
        s.heal()
        s.all_caught_up()


# --- (1) one node at a higher term while another one is down -------------------------------


def test_vote_for_a_candidate_that_died_then_one_node_down() -> None:
    """(1a) one survivor is a term ahead after voting for a candidate that is gone."""
    with stage() as s:
        s.write(3)
        s.all_caught_up()
        first, term = s.leader(), s.leader().seen[1]
        one, other = s.followers()
        s.kill(first)
        s.until(lambda: one.seen[1] > term and other.seen[1] > term, within=10, grain=1e-4)
        candidate, voter = (one, other) if one.seen[0] is Role.CANDIDATE else (other, one)
        assert candidate.seen[0] is Role.CANDIDATE
        s.kill(candidate, power=True)
        s.restart(first)
        assert voter.seen[1] > first.storage.journal.term
        s.leader(other_than=candidate.name)
        s.write(3)


def test_the_only_up_to_date_node_is_terms_behind() -> None:
    """(1b) the other one living is at a higher term, with an older log: neither may hang."""
    with stage() as s:
        s.write(3)
        ahead = s.leader()
        behind, third = s.followers()
        s.cut_off(behind)
        s.write(5)
        behind.guarded(lambda: behind.node._engine.adopt_term(40))
        s.run(0.5)
        s.kill(third)
        s.heal()
        s.until(lambda: ahead.seen[1] > 40 and s.serving() is ahead)
        s.write(3)


# --- (2) heartbeats and partial appends over a longer, conflicting tail ----------------------


@pytest.mark.parametrize("restarted", [False, True])
def test_longer_conflicting_tail_is_replaced(restarted: bool) -> None:
    with stage() as s:
        s.write(10)
        old = s.leader()
        s.cut_off(old)
        lost = s.propose(old, 60)
        s.run(0.05)
        assert old.status().last_index > 60
        s.leader(other_than=old.name)
        s.write(20)
        if restarted:
            s.kill(old)
            s.restart(old)
        s.heal()
        s.all_caught_up()
        assert {w.outcome for w in lost} == {"unknown"}
        assert s.world.checks.sometimes["truncations of a tail"] >= 1
        s.write(3)
        s.all_caught_up()


def test_follower_whose_longer_tail_is_equal_keeps_it() -> None:
    """A new leader probes below what a follower has acknowledged; nothing may be cut."""
    with stage(seed=3) as s:
        s.write(10)
        leader = s.leader()
        held, other = s.followers()
        s.cut_off(other)
        s.write(30)
        s.kill(leader)
        s.heal()
        s.leader(other_than=leader.name)
        s.write(3)
        s.restart(leader)
        s.all_caught_up()
        assert s.leader() is held
        assert not s.world.checks.sometimes["truncations of a tail"]


# --- (4) snapshots ------------------------------------------------------------------------


def test_snapshot_catches_up_a_node_that_was_away() -> None:
    with stage() as s:
        s.world.ballast = 20_000
        s.write(5)
        away = s.followers()[0]
        s.kill(away)
        s.write(60)
        leader = s.leader()
        leader.compact()
        s.until(lambda: leader.status().snapshot_index > 50)
        s.restart(away)
        s.all_caught_up()
        assert s.world.checks.sometimes["snapshots installed"] == 1


def test_snapshot_replaces_a_conflicting_tail() -> None:
    with stage() as s:
        s.write(5)
        old = s.leader()
        s.cut_off(old)
        s.propose(old, 80)
        s.leader(other_than=old.name)
        s.write(40)
        for process in s.all:
            if process is not old:
                process.compact()
        s.run(0.5)
        s.heal()
        s.all_caught_up()
        assert s.world.checks.sometimes["snapshots installed"] == 1
        s.kill(old, power=True)
        s.restart(old)
        s.all_caught_up()


def test_chunks_lost_at_reconnects_start_the_snapshot_over() -> None:
    with stage() as s:
        for process in s.all:
            assert process.machine is not None
            process.machine.ballast = 200_000  # about 100 chunks
        s.write(5)
        away = s.followers()[0]
        s.kill(away)
        s.write(30)
        leader = s.leader()
        leader.compact()
        s.until(lambda: leader.status().snapshot_index > 20)
        s.restart(away)
        for _ in range(6):
            s.run(0.025)
            s.world.network.reset(leader.name, away.name)
        s.all_caught_up()
        assert s.world.checks.sometimes["snapshots installed"] >= 1


# --- (5) crashes between snapshot publish, journal reset and sync -----------------------------

LABELS = (
    "snapshot.piece.written",
    "snapshot.sync.before",
    "snapshot.sync.after",
    "snapshot.rename.before",
    "snapshot.rename.after",
    "snapshot.durable",
    "snapshot.former.unlinked",
    "journal.write.before",
    "journal.sync.before",
    "journal.sync.after",
    "journal.rotate.before",
    "journal.segment.create",
    "journal.segment.rename.after",
    "journal.segment.durable",
    "journal.segment.continued",
    "journal.delete.before",
    "journal.delete.unlinked",
    "journal.delete.after",
)


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("label", LABELS)
def test_all_replicas_crash_inside_a_compaction(label: str, power: bool) -> None:
    with stage(seed=2) as s:
        s.world.segment_bytes = 4096
        s.write(40)
        s.all_caught_up()
        for process in s.all:
            process.compact()
        s.run(0.3)
        s.write(40)
        for process in s.all:
            process.disk.crash_at(label=label, hit=1)
            process.compact()
        s.run(0.2)
        for process in s.all:
            if process.up:
                s.kill(process, power=power)
        s.world.faults.end()
        s.until(lambda: all(p.up for p in s.all))
        s.write(3)
        s.all_caught_up()


@pytest.mark.parametrize("label", [lb for lb in LABELS if "rotate" not in lb])
def test_follower_crashes_inside_an_install(label: str) -> None:
    with stage(seed=4) as s:
        s.write(5)
        old = s.leader()
        s.cut_off(old)  # it has a conflicting tail as well
        s.propose(old, 20)
        s.leader(other_than=old.name)
        s.write(40)
        leader = s.leader(other_than=old.name)
        leader.compact()
        s.until(lambda: leader.status().snapshot_index > 30)
        old.disk.crash_at(label=label, hit=1)
        s.heal()
        s.run(0.5)
        s.world.faults.end()
        s.until(lambda: all(p.up for p in s.all))
        s.all_caught_up()
        s.write(3)
        s.all_caught_up()


# --- (6) a vote, a power loss, a second candidate ----------------------------------------------


@pytest.mark.parametrize("seed", range(1, 6))
def test_everybody_loses_power_in_the_middle_of_an_election(seed: int) -> None:
    with stage(size=5, seed=seed) as s:
        s.write(3)
        for _ in range(6):
            s.kill(s.leader())
            s.run(0.03)  # votes are on their way
            for process in s.all:
                if process.up:
                    s.kill(process, power=True)
            for process in s.all:
                s.restart(process)
            s.write(2)
        s.all_caught_up()


# --- (7) reads ---------------------------------------------------------------------------------


def test_frozen_leader_with_answers_in_its_inbox_serves_no_stale_read() -> None:
    with stage() as s:
        s.write(5)
        old = s.leader()
        old.read()
        s.run(0.0003)  # the round is on its way
        old.pause()
        s.run(0.002)  # the answers wait in its sockets
        s.cut_off(old)
        s.leader(other_than=old.name)
        s.write(5)
        old.read()
        confirmed = s.world.checks.sometimes["reads confirmed"]
        old.resume()
        s.run(1.0)
        assert s.world.checks.sometimes["reads confirmed"] <= confirmed + 1  # the first, at most
        assert s.world.checks.sometimes["reads refused"] >= 1


def test_read_at_a_leader_whose_noop_is_not_applied_waits_for_it() -> None:
    with stage(seed=5) as s:
        s.write(50)
        s.kill(s.leader())
        s.until(lambda: any(p.leads for p in s.all))
        fresh = next(p for p in s.all if p.leads)
        fresh.read()
        s.run(0.5)
        assert s.world.checks.sometimes["reads confirmed"] >= 1


def test_read_right_after_an_append_left_is_served() -> None:
    with stage() as s:
        s.write(1)
        leader = s.leader()
        before = s.world.checks.sometimes["reads confirmed"]
        for _ in range(50):
            s.propose(leader)
            s.run(0.0001)
            leader.read()
            s.run(0.0004)
        s.run(0.1)
        assert s.world.checks.sometimes["reads confirmed"] == before + 50


# --- (8) slow links ------------------------------------------------------------------------------


def test_snapshot_slower_than_compaction_arrives_at_last() -> None:
    """It takes several times as long as the log takes to grow by a snapshot's worth."""
    with stage() as s:
        s.world.snapshot_entries = 60
        for process in s.all:
            s.kill(process)
            s.restart(process)
            assert process.machine is not None
            process.machine.ballast = 50_000
        s.write(5)
        away = s.followers()[0]
        s.kill(away)
        s.write(60)
        leader = s.leader()
        s.world.network.extra_delay_s[leader.name, away.name] = 0.03
        s.world.network.extra_delay_s[away.name, leader.name] = 0.03
        s.restart(away)
        s.world.load()
        s.until(lambda: away.status().applied_index > 60, within=20)
        s.world.settle()


def test_no_reset_storm_on_a_slow_link() -> None:
    with stage() as s:
        s.write(5)
        far = s.followers()[0]
        s.cut_off(far)
        s.write(200)
        s.heal()
        leader = s.leader()
        s.world.network.extra_delay_s[leader.name, far.name] = 0.2
        s.world.network.extra_delay_s[far.name, leader.name] = 0.2
        s.world.network.reset(leader.name, far.name)
        before = s.world.network.bytes_sent
        s.until(lambda: s.caught_up(far, leader), within=30)
        assert s.world.network.bytes_sent - before < 200 * 200 * 4  # each entry once or twice


# --- (10) bad links ------------------------------------------------------------------------------


def test_flapping_follower_link_causes_no_election() -> None:
    with stage() as s:
        s.write(5)
        leader, term = s.leader(), s.leader().seen[1]
        follower = s.followers()[0]
        for _ in range(20):
            s.world.network.reset(leader.name, follower.name)
            s.run(0.2)
        assert s.leader() is leader
        assert leader.seen[1] == term


@pytest.mark.parametrize("to_leader", [True, False])
def test_one_way_deafness_leaves_the_cluster_serving(to_leader: bool) -> None:
    with stage() as s:
        s.write(5)
        leader, term = s.leader(), s.leader().seen[1]
        follower, other = s.followers()
        pair = (follower.name, leader.name) if to_leader else (leader.name, follower.name)
        s.world.network.cut_one(*pair)
        for _ in range(10):
            s.run(0.3)
            s.write(1)
        assert s.leader() is leader  # "other" hears it: nobody wins a PreVote
        assert leader.seen[1] == term
        s.heal()
        s.all_caught_up()
        assert other.up


def test_leader_that_feeds_a_long_snapshot_is_not_deposed() -> None:
    """CheckQuorum while the only follower left receives chunks: echoes must count."""
    with stage() as s:
        for process in s.all:
            assert process.machine is not None
            process.machine.ballast = 400_000
        s.write(5)
        first, second = s.followers()
        s.kill(first)
        s.write(40)
        leader = s.leader()
        leader.compact()
        s.until(lambda: leader.status().snapshot_index > 30)
        term = leader.seen[1]
        s.world.network.extra_delay_s[leader.name, first.name] = 0.02
        s.restart(first)
        s.run(0.2)
        s.kill(second)
        s.until(lambda: s.caught_up(first, leader), within=30)
        assert leader.leads
        assert leader.seen[1] == term


# --- transfer and rejoin --------------------------------------------------------------------------


def test_transfer_hands_over_without_an_outage() -> None:
    with stage() as s:
        s.write(5)
        leader = s.leader()
        target = s.followers()[0]
        leader.transfer(target.name)
        began = s.world.queue.now
        assert s.leader(other_than=leader.name) is target
        assert s.world.queue.now - began < 0.1
        s.write(1)
        assert s.world.checks.sometimes["transfers done"] == 1


def test_transfer_to_a_node_that_cannot_answer_times_out_and_writing_goes_on() -> None:
    with stage() as s:
        s.write(5)
        leader = s.leader()
        target = s.followers()[0]
        s.cut_off(target)
        leader.transfer(target.name)
        s.run(0.5)
        assert not leader.node.propose(b"0" * 16, None)  # handing over: refused, definite
        s.run(3.0)
        s.write(3)
        assert not leader.transfers_open


def test_wiped_node_rejoins_and_votes_again() -> None:
    with stage() as s:
        s.write(30)
        lost = s.followers()[0]
        former, before = lost.id, lost.voters
        s.lose_disk(lost, power=True)
        s.write(5)
        s.restart(lost)
        assert lost.id != former
        s.until(lambda: lost.learns)
        s.until(lambda: lost.up and not lost.learns)
        assert {lost.id} == lost.voters - before
        s.write(5)
        s.all_caught_up()
        leader = s.leader()
        s.kill(leader)
        s.leader(other_than=leader.name)
        s.write(5)


def test_wiped_node_does_not_help_to_elect_a_node_without_the_log() -> None:
    """A holds an acknowledged entry alone after the other holder lost its disk."""
    with stage() as s:
        s.write(5)
        holder = s.leader()
        lost, stale = s.followers()
        s.cut_off(stale)
        s.write(10)  # on holder and lost
        s.lose_disk(lost, power=True)
        s.kill(holder, power=True)
        s.restart(lost)
        s.heal()
        s.run(5.0)
        assert s.serving() is None  # rather no service than a forgotten write
        s.restart(holder)
        assert s.leader() is holder
        s.until(lambda: lost.up and not lost.learns)
        s.all_caught_up()


def test_one_node_cluster_serves_and_survives_power_losses() -> None:
    with stage(size=1) as s:
        (only,) = s.all
        for _ in range(5):
            s.write(20)
            only.compact()
            s.run(0.05)
            s.kill(only, power=True)
            s.restart(only)
        s.write(1)
        assert len(s.world.checks.acknowledged) == 101

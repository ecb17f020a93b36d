"""The election timer and its bookkeeping."""

from __future__ import annotations

import random

from raftckpt.raft.elections import BROKEN_LINK_DELAY_S, YIELDS, ElectionTimer
from raftckpt.raft.reads import Reads


class Now:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def timer_of():
    now = Now()
    return now, ElectionTimer(now, random.Random(3), 0.3, 0.6)


def test_fires_between_the_bounds():
    now, timer = timer_of()
    now.at += 0.299
    assert not timer.due()
    now.at += 0.302
    assert timer.due()


def test_broken_link_forgets_the_leader_and_fires_soon():
    now, timer = timer_of()
    timer.heard_leader()
    assert timer.leader_is_alive()
    timer.link_to_leader_broke()
    assert not timer.leader_is_alive()
    now.at += BROKEN_LINK_DELAY_S
    assert timer.due()


def test_a_heard_leader_cancels_the_round():
    _, timer = timer_of()
    assert not timer.ask(5, "n1", 2)
    timer.heard_leader()
    assert not timer.granted("n2", 5, 4, 2)


def test_who_is_drained_lets_others_go_first_but_not_for_ever():
    now, timer = timer_of()
    for _ in range(YIELDS):
        now.at += 0.6
        assert timer.due()
        assert timer.yields()
        assert not timer.due()
    assert not timer.yields()
    timer.heard_leader()
    assert timer.yields(), "from the beginning"


def test_grants_count_once_and_only_for_the_asked_term():
    _, timer = timer_of()
    assert not timer.ask(5, "n1", 3)
    assert not timer.granted("n2", 5, 4, 3)
    assert not timer.granted("n2", 5, 4, 3), "the same voter twice"
    assert not timer.granted("n3", 6, 5, 3), "another term"
    assert timer.granted("n3", 5, 4, 3)
    assert not timer.granted("n4", 5, 4, 3), "the majority is announced once"


def test_the_own_voice_is_a_majority_of_one_voter():
    _, timer = timer_of()
    assert timer.ask(5, "n1", 1)
    assert not timer.ask(6, "n1", 2)


def test_a_majority_is_that_of_the_moment_of_the_grant():
    """A configuration may have come since the round was opened."""
    _, timer = timer_of()
    assert not timer.ask(5, "n1", 2)
    assert not timer.granted("n2", 5, 4, 3)
    assert timer.granted("n3", 5, 4, 3)


def test_an_overtaken_term_voids_the_round():
    _, timer = timer_of()
    timer.ask(5, "n1", 2)
    assert not timer.granted("n2", 5, 7, 2)


def test_votes_are_counted_once_per_term_and_voter():
    _, timer = timer_of()
    assert timer.first_vote("n2", 4)
    assert not timer.first_vote("n2", 4)
    assert timer.first_vote("n3", 4)
    assert timer.first_vote("n2", 5)


def test_a_read_needs_a_round_that_began_after_it_and_its_index_applied():
    reads, outcomes = Reads(), []
    reads.add(outcomes.append)
    assert reads.number(last_round=7, commit=20)
    reads.settle(confirmed_round=7, applied=20)
    assert outcomes == [], "a round already in use when the read came"
    reads.settle(confirmed_round=8, applied=19)
    assert outcomes == [], "not applied yet"
    reads.settle(confirmed_round=8, applied=20)
    assert outcomes == [True]
    assert not reads.number(8, 20)


def test_lost_leadership_fails_reads_numbered_or_not():
    reads, outcomes = Reads(), []
    reads.add(outcomes.append)
    reads.number(1, 1)
    reads.add(outcomes.append)
    reads.fail()
    assert outcomes == [False, False]
    assert len(reads) == 0


def test_of_two_who_ask_at_once_exactly_one_steps_back():
    _, one = timer_of()
    _, other = timer_of()
    one.ask(5, "n1", 2)
    other.ask(5, "n2", 2)
    assert one.gives_way(5, asker_first=True)
    assert not other.gives_way(5, asker_first=False)
    assert not one.granted("n2", 5, 4, 2), "its own round is over"
    assert other.granted("n1", 5, 4, 2)


def test_split_votes_after_a_broken_link_are_retried_soon_but_not_for_ever():
    now, timer = timer_of()
    timer.link_to_leader_broke()
    waits = []
    for _ in range(5):
        timer.rearm()
        waits.append(timer.fires_at - now.at)
    assert max(waits[:3]) <= 0.15 < 0.3 <= min(waits[3:])
    timer.link_to_leader_broke()
    timer.heard_leader()
    timer.rearm()
    assert timer.fires_at - now.at >= 0.3

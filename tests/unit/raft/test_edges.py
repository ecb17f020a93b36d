"""What small changes of the code were not noticed by: borders, and what people are told."""

from __future__ import annotations

import logging
import re
from math import inf
from typing import Any

import pytest

from raftckpt.raft.configuration import REGULAR
from raftckpt.raft.messages import KINDS, Ack, Append, Chunk, ChunkAck
from raftckpt.raft.node import SLOW_SYNC_S, SLOW_SYNC_TOLD_EVERY_S
from raftckpt.raft.port import Role
from tests.sim.bench import OurBench
from tests.unit.raft.conftest import Make
from tests.unit.raft.test_holes_ours import chunks, follow


class SlowDisk:
    """Every sync of the bench's log takes so long."""

    def __init__(self, bench: OurBench, seconds: float) -> None:
        self.seconds = seconds
        journal = bench.storage.journal
        sync = journal.sync

        def slow() -> None:
            sync()
            bench.clock.now += self.seconds

        journal.sync = slow  # type: ignore[method-assign]


def slow_syncs(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int]]:
    """(milliseconds, how many since the last line) of the lines so far."""
    found = re.findall(r"slow_sync ms=(\d+) since_last=(\d+)", caplog.text)
    return [(int(took), int(count)) for took, count in found]


def test_slow_syncs_are_told_now_and_then_and_counted(bench: OurBench, caplog) -> None:
    caplog.set_level(logging.WARNING, "raftckpt.raft")
    disk = SlowDisk(bench, 0.75 * SLOW_SYNC_S)
    follow(bench, 1)
    assert slow_syncs(caplog) == []  # not slower than what is told
    disk.seconds = 1.25 * SLOW_SYNC_S
    number = bench.last
    for _ in range(5):
        number += 1
        bench.append("b", 1, (number - 1, 1), [(number, 1, number)], number - 1)
    assert slow_syncs(caplog) == [(125, 1)]
    bench.advance(SLOW_SYNC_TOLD_EVERY_S)
    number += 1
    bench.append("b", 1, (number - 1, 1), [(number, 1, number)], number - 1)
    told = slow_syncs(caplog)
    assert len(told) == 2
    assert told[1][1] >= 5


def test_what_came_on_a_link_that_broke_is_not_taken_in(bench: OurBench) -> None:
    """Its sender may have said something else since, on another link."""
    follow(bench, 1)
    last = bench.last
    entry = (REGULAR + b"x", last + 1, 1)
    append = Append(KINDS[Append], 1, bench.next_round(), last, last, 1, [entry])
    bench.inject("b", append)
    bench.disconnect("b")
    bench.settle()
    assert bench.last == last
    bench.connect("b")
    bench.inject("b", append)
    bench.settle()
    assert bench.last == last + 1


def test_an_ack_is_taken_in_when_it_comes_and_asks_for_a_step_only_if_it_commits(
    bench: OurBench,
) -> None:
    """The second ack of an entry changes nothing: it is noted, and that is all."""
    woken: list[None] = []
    bench.node._wake = lambda: woken.append(None)
    bench.lead()
    assert bench.propose("x")
    bench.tick()
    woken.clear()
    answered, entry = bench.node._sender.round, bench.last
    ack = Ack(KINDS[Ack], bench.term, answered, True, False, entry + 1, 0)
    bench.inject("b", ack)
    assert len(woken) == 1
    assert (
        bench.commit < entry
    )  # an ack alone commits nothing: our own copy counts from the sync on
    bench.settle()
    assert bench.values == ["x"]
    woken.clear()
    bench.inject("c", ack)
    assert woken == []
    assert bench.node._engine.match_index("c") == entry


def test_what_fails_between_two_steps_fails_the_next_one(
    bench: OurBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link would only close its connection; who takes the step stops the replica."""
    bench.lead()
    assert bench.propose("x")
    bench.tick()

    def broken(name: str, ack: Ack) -> None:
        raise KeyError(name)

    monkeypatch.setattr(bench.node._sender, "on_ack", broken)
    answered = bench.node._sender.round
    bench.inject("b", Ack(KINDS[Ack], bench.term, answered, True, False, bench.last + 1, 0))
    with pytest.raises(KeyError):
        bench.node.take()


def test_a_follower_tells_when_it_heard_from_the_leader_and_nothing_of_others(
    bench: OurBench,
) -> None:
    follow(bench, 3)
    bench.advance(0.25)
    silent = {peer.node: peer.silent_s for peer in bench.status.peers}
    assert silent["c"] == inf
    assert silent["b"] == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("skipped", [1, 2])
def test_a_chunk_that_does_not_follow_starts_the_snapshot_over(make: Make, skipped: int) -> None:
    image: list[Any] = chunks(make, 20, term=1, size=32)
    assert len(image) > 4
    bench = make()
    bench.inject("b", image[0])
    bench.tick()
    bench.inject("b", image[1 + skipped])
    bench.settle()
    received = [s.message.received for s in bench.sent(ChunkAck)]
    assert received == [32, 0]
    bench.inject("b", *image)
    bench.settle()
    assert bench.status.snapshot_index == 20
    assert isinstance(image[-1], Chunk)


def test_a_chunk_that_came_twice_changes_nothing(make: Make) -> None:
    image = chunks(make, 20, term=1, size=32)
    bench = make()
    bench.inject("b", image[0], image[1], image[0], image[1], *image[2:])
    bench.settle()
    assert bench.status.snapshot_index == 20


def test_who_never_led_keeps_its_election_timer_when_it_votes(bench: OurBench) -> None:
    """It became a candidate and a follower again, but nothing of a leader's is to be forgotten."""
    bench.campaign()
    fires_at, retries = bench.node._timer.fires_at, bench.node._timer._retries
    bench.request_vote("b", bench.term + 1, (0, 0))
    assert bench.status.role is Role.FOLLOWER
    assert (bench.node._timer.fires_at, bench.node._timer._retries) == (fires_at, retries)

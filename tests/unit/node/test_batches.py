"""Entries are cut within their limits; what is more than one is shared out between sessions."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from raftckpt import limits
from raftckpt.node.batches import CommandQueue, Proposal
from raftckpt.protocol import contract
from raftckpt.protocol.operations import StageChunk

KIB = limits.KIB


class Queued:
    """A queue, and what was put into it."""

    def __init__(self) -> None:
        self.queue = CommandQueue()
        self.owners: dict[int, Any] = {}
        self.put: list[Any] = []
        self.numbers: dict[int, int] = {}

    def arrive(self, session: int, *costs: int, accepts: float = 0.0) -> None:
        """Commands of a session, of which so many are accepted early where that may be."""
        queue, size = self.queue, 0
        for cost in costs:
            size += cost
            number = self.numbers[session] = self.numbers.get(session, 0) + 1
            accepted = accepts > random.random() and queue.next_has_room(size)
            command: Any = SimpleNamespace(
                session=session, number=number, place=len(self.put), accepted=accepted
            )
            self.put.append(command)
            queue.commands.append(command)
            queue.requests.append(number)
            queue.costs.append(cost)
            if accepted:
                queue.settled = len(queue.commands)
        owner = self.owners.setdefault(session, SimpleNamespace(inflight_bytes=0))
        queue.appended(owner, len(costs), size)

    def cut(self) -> list[Any]:
        proposal: Proposal = self.queue.cut()
        commands: list[Any] = proposal.commands  # type: ignore[assignment]
        assert commands
        assert len(commands) <= contract.BATCH_COMMANDS_MAX
        assert proposal.bytes <= limits.ENTRY_PAYLOAD_BYTES_MAX or len(commands) == 1
        assert proposal.bytes == sum(size for _, _, size in proposal.runs)
        assert proposal.requests == [command.number for command in commands]
        owners = [owner for owner, count, _ in proposal.runs for _ in range(count)]
        assert owners == [self.owners[command.session] for command in commands]
        return commands


def test_what_fits_leaves_as_it_came() -> None:
    waiting = Queued()
    waiting.arrive(1, 100, 100)
    waiting.arrive(2, 100)
    waiting.arrive(1, 100)
    assert [(each.session, each.number) for each in waiting.cut()] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (1, 3),
    ]
    assert not waiting.queue


@pytest.mark.parametrize("size", [4 * KIB, 1000 * KIB])
def test_who_wants_little_is_in_the_next_entry_whatever_waits(size: int) -> None:
    waiting = Queued()
    for session in range(16):
        waiting.arrive(session, *[size] * 64)
    waiting.cut()
    for _ in range(5):
        waiting.arrive(99, 100)
        assert waiting.queue.may_fly(0, 0, 0.0)
        assert [each.session for each in waiting.cut()].count(99) == 1
        for session in range(16):
            waiting.arrive(session, *[size] * 4)


def crowded() -> Queued:
    """Sixteen sessions that want much, and what was on its way before somebody else came."""
    waiting = Queued()
    for session in range(16):
        waiting.arrive(session, *[4 * KIB] * 64)
    assert waiting.queue.may_fly(0, limits.MIB, 0.0)
    assert len(waiting.cut()) > 200, "nobody wants little: each entry costs"
    return waiting


def test_entries_are_short_while_somebody_wants_little_beside_others_who_want_much() -> None:
    waiting = crowded()
    queue = waiting.queue
    waiting.arrive(99, 100)
    assert queue.may_fly(1, limits.MIB, 0.0), "who wants little waits for no room"
    cut = waiting.cut()
    assert len(cut) < 6
    assert 99 in [each.session for each in cut]
    assert not queue.may_fly(1, limits.MIB, 0.0)
    assert not queue.may_fly(1, 64 * KIB, 0.0), "one brief entry at a time"
    assert queue.may_fly(1, 16 * KIB, 0.0)
    assert len(waiting.cut()) < 18
    for _ in range(40):
        if len(queue) < 200:
            for session in range(16):
                waiting.arrive(session, *[4 * KIB] * 64)
        assert queue.may_fly(0, 0, 0.0)
        waiting.cut()
    assert queue.may_fly(1, limits.MIB, 0.0), "it was long ago"
    assert len(waiting.cut()) > 200


def test_who_wants_much_rests_after_a_brief_entry() -> None:
    """Twice as long as it took; who wants little does not wait for the end of it."""
    waiting = crowded()
    queue = waiting.queue
    waiting.arrive(99, 100)
    assert queue.may_fly(0, limits.MIB, 0.0)
    little = queue.cut()
    assert not little.brief
    assert queue.may_fly(0, 0, 1.0)
    brief = queue.cut()
    assert brief.brief
    brief.begun = 1.0
    assert queue.deadline(1.005) == math.inf
    queue.landed(brief, 1.01)
    assert queue.deadline(1.01) == pytest.approx(1.03)
    assert not queue.may_fly(0, 0, 1.029)
    waiting.arrive(99, 100)
    assert queue.may_fly(0, 0, 1.02)
    queue.cut()
    assert not queue.may_fly(0, 0, 1.029), "that changes nothing for the others"
    assert queue.may_fly(0, 0, 1.031)
    assert queue.deadline(1.031) == math.inf, "nobody is to be woken for what may leave"
    brief.begun = 2.0
    queue.landed(brief, 9.0)
    assert queue.deadline(9.0) == pytest.approx(9.05), "an election is no reason to rest"


def test_the_parts_of_a_large_write_do_not_rest() -> None:
    waiting = crowded()
    queue = waiting.queue
    while queue:
        waiting.cut()
    queue.commands.append(StageChunk(1, 1, 0, 7, 0, bytes(256 * KIB)))
    queue.requests.append(1)
    queue.costs.append(256 * KIB)
    queue.appended(SimpleNamespace(inflight_bytes=0), 1, 256 * KIB)  # type: ignore[arg-type]
    waiting.arrive(99, 100)
    assert queue.may_fly(0, limits.MIB, 0.0)
    queue.cut()
    assert queue.may_fly(0, 0, 0.0)
    large = queue.cut()
    assert [type(each) for each in large.commands] == [StageChunk]
    assert not large.brief


def test_many_who_all_want_little_are_not_slowed_down() -> None:
    waiting = Queued()
    for session in range(1000):
        waiting.arrive(session, 1000)
    assert waiting.queue.may_fly(0, limits.MIB, 0.0)
    assert len(waiting.cut()) > 700


def test_who_wants_little_among_others_who_do_makes_no_difference() -> None:
    waiting = Queued()
    for session in range(64):
        waiting.arrive(session, 1000)
    assert waiting.queue.may_fly(0, 0, 0.0)
    assert len(waiting.cut()) == 64


def test_shares_are_of_bytes_and_large_commands_have_theirs() -> None:
    waiting = Queued()
    had = dict.fromkeys((1, 2, 3), 0)
    for _ in range(40):
        waiting.arrive(1, *[1000 * KIB] * 2)
        waiting.arrive(2, *[50 * KIB] * 40)
        waiting.arrive(3, *[100] * 3000)
        for each in waiting.cut():
            had[each.session] += (0, 1000 * KIB, 50 * KIB, 100)[each.session]
    assert had[1] > 5000 * KIB
    assert had[2] > 5000 * KIB
    assert had[3] > 100 * KIB


@pytest.mark.parametrize("seed", range(20))
def test_order_of_sessions_and_of_what_was_accepted(seed: int) -> None:
    random.seed(seed)
    pick, waiting = random.Random(seed), Queued()
    left: list[Any] = []
    for _ in range(100):
        for _ in range(pick.randrange(6)):
            count = pick.choice((1, 1, 3, 70, 900))
            sizes = (60, 100, 4200) if count > 3 else (60, 4200, 66_000, 1_048_700)
            waiting.arrive(pick.randrange(8), *pick.choices(sizes, k=count), accepts=0.2)
        while waiting.queue and pick.random() < 0.7:
            left += waiting.cut()
    while waiting.queue:
        left += waiting.cut()
    assert not waiting.queue.bytes
    assert len(left) == len(waiting.put)
    for session, last in waiting.numbers.items():
        numbers = [each.number for each in left if each.session == session]
        assert numbers == [*range(1, last + 1)]
    latest = -1
    for each in left:
        assert not each.accepted or latest < each.place, "nothing later came before it"
        latest = max(latest, each.place)
    assert [each.place for each in left] != sorted(each.place for each in left)


def test_who_comes_back_at_once_has_no_more_than_who_waits() -> None:
    waiting = Queued()
    had = dict.fromkeys(range(16), 0)
    for session in had:
        waiting.arrive(session, *[4 * KIB] * 640)
    waiting.arrive(99, 100)
    assert waiting.queue.may_fly(0, 0, 0.0)
    waiting.cut()
    had[99] = 0
    for _ in range(48):
        if 99 not in waiting.queue.lanes:
            waiting.arrive(99, *[4 * KIB] * 8)
        for each in waiting.cut():
            had[each.session] += 1
    assert had[99] <= 2 * max(had[session] for session in range(16))


def test_what_sessions_had_is_forgotten_in_time() -> None:
    waiting = Queued()
    waiting.arrive(1, *[4 * KIB] * 2000)
    for session in range(2, 3000):
        waiting.arrive(1, *[4 * KIB] * 260)
        waiting.arrive(session, 100)
        waiting.cut()
    assert 1 in waiting.queue.lanes
    assert len(waiting.queue._had) < 1100

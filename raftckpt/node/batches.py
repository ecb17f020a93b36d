"""Commands that wait for the next entry, and the entries they become.

Per operation this is a few appends to parallel lists and nothing else: no object, no closure.
Who waits is kept per *run* of commands of one connection. As long as everything fits into one entry
there is no more to it; what does not is shared out between sessions.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Final

from raftckpt import limits
from raftckpt.node.liveness import Requester
from raftckpt.protocol import contract
from raftckpt.protocol.operations import AnyCommand, StageChunk

__all__ = ["ENTRY_BYTES_MAX", "CommandQueue", "Proposal", "Run"]

ENTRY_BYTES_MAX: Final = limits.ENTRY_PAYLOAD_BYTES_MAX + 192 * limits.KIB
"""Largest entry: a full payload plus the ids and headers of its commands."""

_FULL_BYTES: Final = limits.ENTRY_PAYLOAD_BYTES_MAX
_BRIEF_BYTES: Final = 64 * limits.KIB
"""Of an entry of those who want much while somebody wants little beside them: he waits for all that
is on its way. The price is that each entry costs a millisecond of processor time, or two."""
_BRIEF_ENTRIES: Final = 32
"""So many more after he was last seen."""
_LITTLE_BYTES: Final = 16 * limits.KIB  # a few requests of somebody who waits for each (a guess)
_BRIEF_FLYING_BYTES: Final = 2 * _LITTLE_BYTES
"""On its way meanwhile, before a brief entry leaves: one of them goes at a time."""
_REST_TIMES: Final = 2
"""After a brief entry those who want much rest so many times as long as it took. An entry keeps
processors and disks of all replicas busy, and what others ask waits for them on every hop: twice
is where that was within the double of what it is without them (measured with 1, 2 and 4)."""
_REST_S_MAX: Final = 0.05
"""An entry that took longer met an election or a slow disk, which rests do not help."""
_MUCH_BYTES: Final = 256 * limits.KIB  # more than a brief entry, so that he waits
_FLYING_MAX: Final = 8
"""Small entries on their way; while they are, commands gather (full ones may go on)."""
_FULL_FLYING_MAX: Final = 48
"""Full ones: 48 of a MiB are three quarters of PENDING_BYTES_MAX, so the log is never short of
work."""
_TURN_BYTES: Final = 32 * limits.KIB
"""For one session, before another one has its turn: replies and acks come in packets, too."""
_FORMER_MAX: Final = 1024
"""Sessions of which it is known what they had, beyond those that wait."""
_COMMAND_BYTES: Final = 256
"""What a command costs beside its bytes."""

Run = tuple[Requester | None, int, int]
"""(who waits, number of consecutive commands, their bytes)"""


class Proposal:
    """The context of an entry: its commands, decoded, and who waits for each result."""

    __slots__ = ("begun", "brief", "bytes", "commands", "now_ns", "requests", "runs", "special")

    def __init__(
        self,
        commands: list[AnyCommand],
        requests: list[int],
        runs: list[Run],
        size: int,
        special: bool,
    ) -> None:
        self.commands = commands
        self.requests = requests
        self.runs = runs
        self.bytes = size
        self.special = special
        self.now_ns = 0
        self.brief = False
        """Of those who want much, while somebody wants little: they rest after it."""
        self.begun = 0.0
        """Monotonic time at which it was proposed."""

    def waiting(self) -> Iterator[tuple[AnyCommand, int, Requester | None]]:
        """(command, its request number, who waits) of each command."""
        position = 0
        for owner, count, _ in self.runs:
            for command, request in zip(
                self.commands[position : position + count],
                self.requests[position : position + count],
                strict=True,
            ):
                yield command, request, owner
            position += count


class _Left:
    """A run of commands that is left for a later entry."""

    __slots__ = ("commands", "costs", "owner", "requests", "taken")

    def __init__(
        self,
        owner: Requester | None,
        commands: list[AnyCommand],
        requests: list[int],
        costs: list[int],
    ) -> None:
        self.owner = owner
        self.commands = commands
        self.requests = requests
        self.costs = costs
        self.taken = 0


class CommandQueue:
    """Commands until they are in an entry. What is more than one entry leaves in fair shares.

    Those of one session leave in the order of their arrival. So do all up to the last one that
    was accepted early: no other may come between it and what its acceptance counted on.

    Attributes:
        commands, requests, costs: parallel lists of what arrived; the replica appends to them.
        lanes: what was left when an entry was cut, by session.
        bytes: upper bound of the bytes that all of them take in entries; 0: there are none.
        entry_bytes: of an entry, as long as it is not one command that has more.
        rests_until: monotonic time before which no brief entry leaves.
        settled: so many of those that arrived leave before all others.
        special: whether one of them needs more than its result answered.
    """

    __slots__ = (
        "_apart",
        "_brief",
        "_greedy",
        "_had",
        "_now",
        "_places",
        "_turns",
        "_waiting",
        "bytes",
        "commands",
        "costs",
        "entry_bytes",
        "lanes",
        "requests",
        "rests_until",
        "runs",
        "settled",
        "special",
    )

    def __init__(self) -> None:
        self.commands: list[AnyCommand] = []
        self.requests: list[int] = []
        self.costs: list[int] = []
        self.runs: list[Run] = []
        self.lanes: dict[int, deque[_Left]] = {}
        self.bytes = 0
        self.entry_bytes = _FULL_BYTES
        self.rests_until = 0.0
        self.settled = 0
        self.special = False
        self._waiting = 0
        self._apart = False
        """The next entry is for who wants little alone."""
        self._brief = 0
        """So many more entries are brief."""
        self._greedy = 0
        """Somebody who wants much was here, up to so many entries ago."""
        self._turns: list[tuple[int, int, int]] = []
        """Heap of (what it had, its place, session) of each lane: who had least is next."""
        self._now = 0
        """What he had who had his turn last: who comes new counts as having had as much."""
        self._had: dict[int, int] = {}
        """Of who waits, or was here of late."""
        self._places = 0

    def __len__(self) -> int:
        return len(self.commands) + self._waiting

    def appended(self, owner: Requester | None, count: int, size: int) -> None:
        """Note that ``count`` commands of ``owner``, all of one session, were appended."""
        if count:
            self.runs.append((owner, count, size))
            self.bytes += size
            if owner is not None:
                owner.inflight_bytes += size
                if owner.inflight_bytes >= _LITTLE_BYTES:
                    self._greedy = _BRIEF_ENTRIES

    def may_fly(self, batches: int, flying_bytes: int, now: float) -> bool:
        """Whether one more entry may leave while so many, of so many bytes, are on their way.

        What is on its way, everybody waits for; what is not can be overtaken.
        """
        size = self.bytes
        much = flying_bytes + size > _MUCH_BYTES
        if (
            self._greedy
            and (self._brief or much)
            and any(owner and owner.inflight_bytes < _LITTLE_BYTES for owner, _, _ in self.runs)
        ):
            if much:
                self._brief = _BRIEF_ENTRIES
            self.entry_bytes, self._apart = _LITTLE_BYTES, True
            return batches < _FLYING_MAX
        self._apart = False
        if self._brief:
            self.entry_bytes = _BRIEF_BYTES
            if flying_bytes >= _BRIEF_FLYING_BYTES or now < self.rests_until:
                return False
        return batches < _FLYING_MAX or (
            batches < _FULL_FLYING_MAX
            and (
                size >= self.entry_bytes
                or len(self.commands) + self._waiting >= contract.BATCH_COMMANDS_MAX
            )
        )

    def landed(self, proposal: Proposal, now: float) -> None:
        """A brief entry is no longer on its way: those who want much rest."""
        self.rests_until = now + min(_REST_TIMES * (now - proposal.begun), _REST_S_MAX)

    def deadline(self, now: float) -> float:
        """Monotonic time at which a brief entry may leave that rests (inf: nothing rests)."""
        return self.rests_until if self.bytes and now < self.rests_until else math.inf

    def next_has_room(self, more: int) -> bool:
        """Whether a command behind so many bytes more, its own included, is in the next entry."""
        return (
            not self.lanes
            and self.bytes + more <= self.entry_bytes
            and len(self.commands) < contract.BATCH_COMMANDS_MAX
        )

    def cut(self) -> Proposal:
        """Take the commands of one entry; it keeps within the limits."""
        commands, self.commands = self.commands, []
        requests, self.requests = self.requests, []
        costs, self.costs = self.costs, []
        runs, self.runs = self.runs, []
        settled, self.settled = self.settled, 0
        if (
            self.bytes <= self.entry_bytes
            and len(commands) <= contract.BATCH_COMMANDS_MAX
            and not self.lanes
        ):
            proposal = Proposal(commands, requests, runs, self.bytes, self.special)
            self.bytes = 0
            self.special = False
            if self._greedy:
                self._count(proposal)
            return proposal
        proposal = Proposal([], [], [], 0, self.special)
        begin = 0
        for owner, count, _ in runs:
            end = begin + count
            run = _Left(owner, commands[begin:end], requests[begin:end], costs[begin:end])
            if begin < settled:
                _take(proposal, run, min(count, settled - begin))
            if run.taken < count:
                self._line_up(run)
            begin = end
        self._fill(proposal)
        self.bytes -= proposal.bytes
        if self._greedy:
            self._count(proposal)
        if not self.lanes:
            self.special = False
            self._had.clear()
        elif len(self._had) > _FORMER_MAX + len(self.lanes):
            now, lanes = self._now, self.lanes
            self._had = {each: had for each, had in self._had.items() if had > now or each in lanes}
        return proposal

    def _count(self, proposal: Proposal) -> None:
        """An entry leaves while somebody wants much; of brief ones those of little do not count.

        The parts of one large write do not have their sender rest: he waits for all of them.
        """
        self._greedy -= 1
        if self._brief and proposal.bytes > _LITTLE_BYTES:
            self._brief -= 1
            proposal.brief = any(type(each) is not StageChunk for each in proposal.commands)
        if not self._brief or not self._greedy:
            self._brief = 0
            self.entry_bytes = _FULL_BYTES
            self.rests_until = 0.0

    def _line_up(self, run: _Left) -> None:
        """Leave a run for its session's turn."""
        session = run.commands[0].session
        lane = self.lanes.get(session)
        if lane is None:
            lane = self.lanes[session] = deque()
            now = self._now
            had = self._had[session] = max(now, self._had.get(session, 0))
            # a turn is not cut up: who wants less has his first
            fresh = had < now + _TURN_BYTES
            self._queue_up(now if fresh else had, session, first=fresh)
        lane.append(run)
        self._waiting += len(run.commands) - run.taken

    def _queue_up(self, had: int, session: int, *, first: bool = False) -> None:
        """Have a session wait for its turn behind, or before, those who had as much."""
        self._places += 1
        heappush(self._turns, (had, -self._places if first else self._places, session))

    def _fill(self, proposal: Proposal) -> None:
        """Take what fits, in turns; one command at least."""
        turns, too_long = self._turns, []
        while turns and len(proposal.commands) < contract.BATCH_COMMANDS_MAX:
            now, _, session = turn = heappop(turns)
            lane = self.lanes[session]
            run, owner = lane[0], lane[0].owner
            if self._apart and proposal.commands and owner and owner.inflight_bytes > _LITTLE_BYTES:
                too_long.append(turn)
                break  # who wants little was before him
            most = contract.BATCH_COMMANDS_MAX - len(proposal.commands)
            room = self.entry_bytes - proposal.bytes
            count = cost = 0
            for each in islice(run.costs, run.taken, run.taken + most):
                if cost >= _TURN_BYTES or (each > room and (count or proposal.commands)):
                    break
                room -= each
                cost += each + _COMMAND_BYTES
                count += 1
            if not count:
                too_long.append(turn)  # and among the first of the next entry
                continue
            _take(proposal, run, count)
            self._waiting -= count
            if run.taken == len(run.commands):
                lane.popleft()
            self._now = now
            self._had[session] += cost
            if lane:
                self._queue_up(self._had[session], session)
            else:
                del self.lanes[session]
        for turn in too_long:
            heappush(turns, turn)


def _take(proposal: Proposal, run: _Left, count: int) -> None:
    """Move the next commands of a run into a proposal."""
    first, run.taken = run.taken, run.taken + count
    size = sum(run.costs[first : run.taken])
    proposal.commands += run.commands[first : run.taken]
    proposal.requests += run.requests[first : run.taken]
    proposal.runs.append((run.owner, count, size))
    proposal.bytes += size

"""Commands that wait for the next entry, and the entries they become.

Per operation this is a few appends to parallel lists and nothing else: no object, no closure.
Who waits is kept per *run* of commands of one connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from raftckpt import limits
from raftckpt.node.liveness import Requester
from raftckpt.protocol import contract
from raftckpt.protocol.operations import AnyCommand

__all__ = ["ENTRY_BYTES_MAX", "CommandQueue", "Proposal", "Run"]

ENTRY_BYTES_MAX: Final = limits.ENTRY_PAYLOAD_BYTES_MAX + 192 * limits.KIB
"""Largest entry: a full payload plus the ids and headers of its commands."""

Run = tuple[Requester | None, int, int]
"""(who waits, number of consecutive commands, their bytes)"""


class Proposal:
    """The context of an entry: its commands, decoded, and who waits for each result."""

    __slots__ = ("begun", "bytes", "commands", "now_ns", "requests", "runs", "special")

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


class CommandQueue:
    """Commands in the order of their arrival.

    Attributes:
        commands, requests, costs: parallel lists; the replica appends to them itself.
        bytes: upper bound of the bytes they take in entries.
        special: whether one of them needs more than its result answered.
    """

    __slots__ = ("bytes", "commands", "costs", "requests", "runs", "special")

    def __init__(self) -> None:
        self.commands: list[AnyCommand] = []
        self.requests: list[int] = []
        self.costs: list[int] = []
        self.runs: list[Run] = []
        self.bytes = 0
        self.special = False

    def __len__(self) -> int:
        return len(self.commands)

    def appended(self, owner: Requester | None, count: int, size: int) -> None:
        """Note that ``count`` commands of ``owner`` were appended."""
        if count:
            self.runs.append((owner, count, size))
            self.bytes += size
            if owner is not None:
                owner.inflight_bytes += size

    def full(self) -> bool:
        """Whether there is enough for a full entry."""
        return (
            self.bytes >= limits.ENTRY_PAYLOAD_BYTES_MAX
            or len(self.commands) >= contract.BATCH_COMMANDS_MAX
        )

    def cut(self) -> Proposal:
        """Take the commands of one entry; it keeps within the limits."""
        if (
            self.bytes <= limits.ENTRY_PAYLOAD_BYTES_MAX
            and len(self.commands) <= contract.BATCH_COMMANDS_MAX
        ):
            proposal = Proposal(self.commands, self.requests, self.runs, self.bytes, self.special)
            self.commands, self.requests, self.costs, self.runs = [], [], [], []
            self.bytes = 0
            self.special = False
            return proposal
        count = self._fitting()
        size = sum(self.costs[:count])
        proposal = Proposal(
            self.commands[:count], self.requests[:count], self._cut_runs(count), size, self.special
        )
        del self.commands[:count], self.requests[:count], self.costs[:count]
        self.bytes -= size
        return proposal

    def _fitting(self) -> int:
        """How many commands fit into one entry (at least one)."""
        total = 0
        most = min(len(self.commands), contract.BATCH_COMMANDS_MAX)
        for position, cost in enumerate(self.costs[:most]):
            total += cost
            if total > limits.ENTRY_PAYLOAD_BYTES_MAX and position:
                return position
        return most

    def _cut_runs(self, count: int) -> list[Run]:
        taken: list[Run] = []
        position = 0
        while position < count:
            owner, length, size = self.runs[0]
            if position + length <= count:
                taken.append(self.runs.pop(0))
                position += length
                continue
            part = sum(self.costs[position:count])
            taken.append((owner, count - position, part))
            self.runs[0] = (owner, position + length - count, size - part)
            position = count
        return taken

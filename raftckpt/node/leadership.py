"""What a replica has only while it leads: the sessions' lives, cluster time, roles, and its duties.

A duty is what the leader proposes without being asked: work that is due by cluster time, the death
of silent sessions, the failure of components. Of each kind one command is on its way at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from raftckpt.model.machine import CheckpointMachine
from raftckpt.node.liveness import Liveness
from raftckpt.node.roles import Roles, Witnesses
from raftckpt.node.stamps import ClusterTime
from raftckpt.protocol.operations import ClusterCommand, Due, GroupFail, LimitsSet, SessionExpire

__all__ = ["Leadership"]

_NEVER: Final = float("inf")
_EXPIRE_PER_ENTRY_MAX: Final = 1000
"""Sessions and components that one entry ends: an entry is applied in one go. The next has the
rest."""
_STANDSTILL_S: Final = 1.5
"""A guess: above the pauses of a busy machine, below a session's time-out (ha: 5 s), so that who is
dead is not forgiven again and again."""
_STANDSTILL_FACTOR: Final = 4.0
"""A leader steps at each heartbeat at the latest: one that did not for so long was stopped."""
_CADENCE_WEIGHT: Final = 1 / 16
"""Of the latest step in the usual one: sixteen steps are a second at most."""
_RETRY_S: Final = 0.05
"""Pause of the duties after the log refused (it hands leadership over, say)."""


class Leadership:
    """Of one term.

    Arguments:
        term: the term.
        now: monotonic time of its beginning.
        machine: the state; a leader's is never replaced.
        voters: tells how many replicas vote.
        wall_clocks: the clocks of those of them that were heard from lately.
        witnesses: tell who died before anybody led.
        memories: bytes that each of the voters has for data; none while that is not known of all.
    """

    def __init__(
        self,
        term: int,
        now: float,
        machine: CheckpointMachine,
        voters: Callable[[], int],
        wall_clocks: Callable[[], Sequence[int]],
        witnesses: Witnesses,
        memories: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self.term = term
        self.liveness = Liveness(now, machine.sessions)
        self.time = ClusterTime(machine.now_ns, now, voters, wall_clocks)
        self.roles = Roles(now, machine, self.liveness)
        self._machine = machine
        self._memories = memories
        self._flying: set[type[object]] = set()  # duties on their way
        self._resume_at = 0.0
        self._stepped_at = now
        self._cadence = 0.0
        witnesses.testify(self.liveness)

    def owed(self, now: float) -> list[ClusterCommand]:
        """Return the commands that are to be proposed now; they are on their way from here on."""
        self.stepped(now)
        commands: list[ClusterCommand] = []
        if now < self._resume_at:
            return commands
        if Due not in self._flying:
            due_ns = self._machine.next_due_ns()
            if due_ns is not None and due_ns <= self.time.stamp(now):
                commands.append(Due(0, 0, 0))
        if GroupFail not in self._flying and self.roles.deadline() <= now:
            overdue = self.roles.overdue(now, _EXPIRE_PER_ENTRY_MAX)
            if overdue:
                commands.append(GroupFail(0, 0, 0, overdue))
        if SessionExpire not in self._flying and self.liveness.deadline() <= now:
            dead = self.liveness.dead(now, _EXPIRE_PER_ENTRY_MAX)
            if dead:
                commands.append(SessionExpire(0, 0, 0, dead))
        if LimitsSet not in self._flying and "memory" not in self._machine.bounds.given:
            memories = self._memories()
            if memories:
                commands.append(LimitsSet(0, 0, 0, [("memory", min(memories))], True))
        self._flying.update(map(type, commands))
        return commands

    def stepped(self, now: float) -> None:
        """The replica is not stopped; if it was, who could not be heard was not silent."""
        gap, self._stepped_at = now - self._stepped_at, now
        most = max(_STANDSTILL_S, _STANDSTILL_FACTOR * self._cadence)
        if gap > most:
            self.liveness.stood_still(gap, now)
            self.roles.stood_still(gap, now)
        self._cadence += (min(gap, most) - self._cadence) * _CADENCE_WEIGHT

    def deadline(self, now: float) -> float:
        """Monotonic time at which :meth:`owed` is to be called at the latest (inf: never)."""
        flying = self._flying
        deadline = _NEVER if SessionExpire in flying else self.liveness.deadline()
        if GroupFail not in flying:
            deadline = min(deadline, self.roles.deadline())
        if Due not in flying:
            due_ns = self._machine.next_due_ns()
            if due_ns is not None:
                wait_ns = due_ns - self.time.stamp(now)
                deadline = min(deadline, now + max(0, wait_ns) / 1e9)
        return max(deadline, self._resume_at)

    def landed(self, commands: Iterable[object]) -> None:
        """These commands are no longer on their way, whatever became of them."""
        self._flying.difference_update(map(type, commands))
        for command in commands:
            if type(command) is SessionExpire:
                self.liveness.not_ending(command.sessions)

    def refused(self, now: float) -> None:
        """The log took nothing: the duties rest for a moment."""
        self._resume_at = now + _RETRY_S

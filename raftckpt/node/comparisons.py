"""Whether all replicas have the same state: checks in the log, digests, comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raftckpt.node.clock import Clock
from raftckpt.node.digests import DigestJobs
from raftckpt.node.flight import Flight
from raftckpt.node.leadership import Leadership
from raftckpt.node.situation import Situation
from raftckpt.protocol import operations as ops

__all__ = ["COMPARE_EVERY_S", "Comparisons"]

COMPARE_EVERY_S: Final = 600.0
"""How often replicas compare their states by themselves, if there is an idle moment."""
_IDLE_AGAIN_S: Final = 1.0
"""A second later it may be idle: of ten minutes it is nothing."""


class Comparisons:
    """Digests after checks, one comparison at a time that this leader began by itself.

    The digest of a check is of the state right after its entry.

    Arguments:
        situation: what this replica knows of itself and its cluster.
        flight: takes checks and comparisons.
        clock: monotonic time.
        differs: told that a comparison came out otherwise here: (index, own digest, the leader's).

    Attributes:
        digests: of the last checks.
        last: nonce and index of the last check that was noticed.
        under_way: nonce of the comparison that this leader began by itself; empty: there is none.
        next_at: monotonic time at which the next one may begin.
    """

    def __init__(
        self,
        situation: Situation,
        flight: Flight,
        clock: Clock,
        differs: Callable[[int, str, str], None],
    ) -> None:
        self.digests = DigestJobs(clock.monotonic)
        self.last: tuple[bytes, int] | None = None
        self.under_way = b""
        self.next_at = clock.monotonic() + COMPARE_EVERY_S
        self._situation = situation
        self._flight = flight
        self._clock = clock
        self._differs = differs
        self._revision = -1
        """Of the state that was compared last."""

    def checked(self, index: int) -> None:
        """The entry at ``index`` was applied, and there is another last check than before."""
        machine = self._situation.machine
        self.last = nonce, check_index = machine.check_nonces[-1]
        if check_index == index:
            self.digests.start(nonce, index, machine.freeze())

    def restored(self) -> None:
        """The state was replaced: its checks are not of entries applied here."""
        nonces = self._situation.machine.check_nonces
        self.last = nonces[-1] if nonces else None

    def stepped_down(self) -> None:
        """Whoever leads now begins its own."""
        self.under_way = b""

    def work(self) -> None:
        """Begin and end comparisons, and judge those that a leader told of. After each step."""
        leadership, compared = self._situation.leadership, self._situation.machine.compared
        if leadership is not None and (self.under_way or self._clock.monotonic() >= self.next_at):
            self._compare(leadership)
        while compared:
            self.digests.told(*compared.popleft())
        difference = self.digests.difference()
        if difference is not None:
            self._differs(*difference)

    def _compare(self, leadership: Leadership) -> None:
        """Now and then, at an idle moment, have all replicas compare their states."""
        now, revision = self._clock.monotonic(), self._situation.machine.revision
        if self.under_way:
            own = self.digests.get(self.under_way)
            if own is not None:
                told = ops.Compare(0, 0, 0, self.under_way, bytes.fromhex(own.hex))
                self._flight.enqueue(None, 0, told)
                self.under_way = b""
        elif self._flight.batches:
            self.next_at = now + _IDLE_AGAIN_S
        else:
            self.next_at = now + COMPARE_EVERY_S
            if revision == self._revision or ops.Compare in self._situation.above:
                return
            self._revision = revision
            self.under_way = b"compare-%d-%d" % (leadership.term, revision)
            self._flight.enqueue(None, 0, ops.Check(0, 0, 0, self.under_way))

"""Drives the step of the log from an event loop: input wakes it, a timer covers the rest.

Within one wake-up: take in what arrived (``take``) and reply, propose what gathered and let appends
leave (``begin``: the transports write at once, so that followers work while our disk does), make it
durable (``finish``). If commands wait to be proposed, their appends leave before the replies. If
an answer ended all that was under way, the step ends with the reply: the client waits for nothing
else, and its next request is not to wait for us. What a peer says has its step at once, what
clients ask in the next turn of the loop, together with what arrived beside it. A step is never
re-entered and no step runs after a failure: what went wrong is handed to ``failed`` once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from raftckpt.node.clock import Clock
from raftckpt.node.digests import DigestJobs
from raftckpt.node.memory import Gardener
from raftckpt.node.replica import Replica
from raftckpt.raft.port import ReplicatedLog

__all__ = ["Driver", "Longest"]

_DIGEST_SLICE_S: Final = 0.002  # of work on a digest at a time,
_DIGEST_PAUSE_S: Final = 0.004  # and twice as long for everybody else
_IDLE_S: Final = 5.0  # between looks when nothing is due
_TIMER_SLACK_S: Final = 0.001  # a timer that fires a hair too early would only be set again
_LOOK_AFTER_S: Final = 0.002
"""So much after an answer that ended all that was under way, what is due is looked at: by then the
client has mostly asked again. No deadline of ours is finer."""
_MINUTE_S: Final = 60.0  # the longest step is told of the last minute


class Longest:
    """The greatest value of the last minute or two."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._former = self._latter = 0.0

    def note(self, now: float, value: float) -> None:
        """Take a value in; ``now`` is of a monotonic clock, in seconds."""
        if now - self._since > _MINUTE_S:
            self._since, self._former, self._latter = now, self._latter, 0.0
        if value > self._latter:
            self._latter = value

    @property
    def value(self) -> float:
        """The greatest value."""
        return max(self._former, self._latter)


class _Driven(NamedTuple):
    """What is driven; see :meth:`Driver.start`."""

    replica: Replica
    log: ReplicatedLog
    flush: Callable[[], None]
    gardener: Gardener | None


class Driver:
    """Owner of the loop's turn. What wakes it before it is started has its step then.

    Arguments:
        loop: the event loop.
        clock: the clock the deadlines are of.
        failed: told of the first exception; nothing runs after it.
        sync_s: seconds that the disk was waited for so far.
        working: told that something begins in this turn of the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        failed: Callable[[BaseException], None],
        sync_s: Callable[[], float] = lambda: 0.0,
        working: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._sync_s = sync_s
        self._working = working
        self._clock = clock
        self._failed = failed
        self._driven: _Driven | None = None
        self._scheduled = False
        self._held = False
        self._woken = False
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._look_at = float("-inf")
        """When a whole step is due, whatever rests: heartbeats and time-outs are seen to there."""
        self._digesting = False
        self._busy_at = -1
        self.steps = 0
        self.longest = Longest()
        """The longest step of late, in seconds, without its syncs."""

    def start(
        self, replica: Replica, flush: Callable[[], None], gardener: Gardener | None = None
    ) -> None:
        """Begin to drive.

        Arguments:
            replica: flushed before and asked for work after each step of its log.
            flush: sends the replies gathered.
            gardener: has garbage collected between steps.
        """
        self._driven = _Driven(replica, replica.log, flush, gardener)
        self.wake()
        self._idle(self._driven)

    def answered(self) -> None:
        """Nobody's command is on its way any more: replies leave at once."""
        if self._driven is not None:
            self._driven.flush()

    def disk_waits(self, waited_s: float) -> None:
        """A sync takes long: consensus may say meanwhile that it is here."""
        if self._driven is not None:
            self._driven.log.wait_for_disk(waited_s)

    def stop(self) -> None:
        """Drive no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def wake(self) -> None:
        """A step is due."""
        self._woken = True
        if not (self._scheduled or self._held or self._stopped) and self._driven is not None:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def hold(self) -> None:
        """What a peer said is being taken in: who calls this calls :meth:`go_on` after it."""
        self._working()
        self._held = True

    def go_on(self) -> None:
        """Take the step that is due, if one is, in this turn of the loop.

        Peers say in one go what there is to say, and somebody waits for the answer; what clients
        ask is gathered until all that arrived together is read.
        """
        self._held = False
        if self._woken:
            self._step()

    def _turn(self) -> None:
        self._scheduled = False
        if self._woken:
            self._step()

    def fail(self, error: BaseException) -> None:
        """Stop for good and tell why, once."""
        if not self._stopped:
            self.stop()
            self._failed(error)

    def _step(self) -> None:
        driven = self._driven
        if self._stopped or driven is None:
            return
        replica, log, flush, gardener = driven
        self._working()
        begun, synced = self._clock.monotonic(), self._sync_s()
        replica.stepping = self._held = True  # what wakes us meanwhile is looked at in the end
        try:
            rests = False
            log.take()
            if not replica.proposes:
                flush()  # nobody waits for what else this step does
                rests = log.at_rest and not replica.asks and begun < self._look_at
            replica.flush()
            self._woken = False  # what woke us up to here is part of this step
            if not rests:
                log.begin()
                flush()
                log.finish()
                replica.work()
                flush()
        except Exception as error:  # whatever it is: the state can no longer be trusted
            self.fail(error)
            return
        finally:
            replica.stepping = self._held = False
        self.steps += 1
        if gardener is not None and not rests:
            gardener.tend(replica.situation.machine.revision)
        now = self._clock.monotonic()
        self.longest.note(now, now - begun - (self._sync_s() - synced))
        if self._woken:
            self.wake()
            return
        if rests:
            self._look_at = min(self._look_at, now + _LOOK_AFTER_S)
        else:
            self._look_at = min(log.deadline(), replica.deadline())
        self._arm(self._look_at)
        if not rests and replica.digests.busy and not self._digesting:
            self._digesting = True
            self._loop.call_soon(self._digest, replica.digests)

    def _arm(self, at: float) -> None:
        """Have the timer ring at the next deadline; one that rings too early is left as it is."""
        if self._timer is not None and self._timer_at <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        delay = max(0.0, at - self._clock.monotonic()) + _TIMER_SLACK_S
        self._timer = self._loop.call_later(min(delay, 3600.0), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.wake()

    def _digest(self, digests: DigestJobs) -> None:
        self._digesting = False
        self._working()
        if self._stopped:
            return
        try:
            digests.work(_DIGEST_SLICE_S)
        except Exception as error:
            self.fail(error)
            return
        if digests.busy:
            self._digesting = True
            self._loop.call_later(_DIGEST_PAUSE_S, self._digest, digests)

    def _idle(self, driven: _Driven) -> None:
        """Every few seconds: if nothing was applied meanwhile, tidy up."""
        if self._stopped:
            return
        applied = driven.replica.machine.applied_index
        if driven.gardener is not None and applied == self._busy_at:
            driven.gardener.tend_idle()
        self._busy_at = applied
        self._loop.call_later(_IDLE_S, self._idle, driven)

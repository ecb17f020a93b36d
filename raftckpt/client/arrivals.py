"""Changes on their way from a tracker's core to the application, in both faces.

A change leaves the queue by :meth:`Arrivals.take` and reaches the caller without a moment at which
Python looks for signals and thrown exceptions: an interrupted ``next`` loses none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from raftckpt.client.changes import Change
from raftckpt.client.io.wake import Wake
from raftckpt.client.tracking import Stage, TrackerCore

__all__ = ["Arrivals"]

_LET_IN_AT: Final = 64
"""So often who takes looks whether the engine stopped reading (a guess; it costs a microsecond)."""


class Arrivals:
    """What an engine fills; it does not keep the tracker alive.

    Attributes:
        core: what is filled from.
        ready: changes that can be taken.
        through: everything up to this revision was handed over.
        ended: whether nothing will come any more.
    """

    ring: Callable[[], object]
    """Have all who wait look again."""
    look: Callable[[], object]
    """Have the engine look at the core again."""

    def __init__(self, core: TrackerCore) -> None:
        self.core = core
        self.ready: deque[Change] = deque()
        self.wake: Wake | None = None
        self.watcher: Callable[[], object] | None = None
        self.ended = False
        self.through = -1
        self._pops = iter(self.ready.popleft, None)

    def settled(self) -> None:
        """Hand over what arrived (called by the engine)."""
        core = self.core
        changes = core.hand_over()
        self.ready.extend(changes)
        self.through = core.through or 0
        core.release(len(self.ready), monotonic())
        ended = core.stage is Stage.ENDED
        if changes or ended != self.ended:
            self.ended = ended
            with suppress(OSError):  # who waits looks now and then
                if self.wake is not None:
                    self.wake.notify()
                if self.watcher is not None:
                    self.watcher()
        self.ring()

    # --- taking ------------------------------------------------------------------------------

    def let_in(self) -> None:
        """Have the engine read on, if it stopped because too much waited here."""
        if not len(self.ready) % _LET_IN_AT and not self.core.hungry:
            self.look()

    def take(self) -> Change:
        """Take the next change.

        A ``for`` takes from an iterator, and a function returns, without looking for signals in
        between: nobody can be interrupted with a change in the hand.

        Raises:
            IndexError: none is there.
        """
        try:
            if len(self.ready) < 2 and self.wake is not None:
                self._lower(self.wake, 1)
            for change in self._pops:
                return change
        except IndexError:
            raise
        except BaseException:
            self.signal()
            raise
        raise IndexError

    def take_all(self) -> list[Change]:
        """Take every change that is there."""
        changes: list[Change] = []
        try:
            for _ in range(len(self.ready)):
                changes.append(self.take())
        except IndexError:  # another thread takes as well
            pass
        except BaseException:
            self.ready.extendleft(reversed(changes))
            raise
        if self.wake is not None:
            self._lower(self.wake, 0)
        self.let_in()
        return changes

    def signal(self) -> None:
        """Make the descriptor readable, if something can be taken."""
        if self.wake is not None and self.moved():
            self.wake.notify()

    def _lower(self, wake: Wake, about_to_take: int) -> None:
        """The descriptor is not readable any more, until something comes."""
        wake.drain()
        if self.ended or len(self.ready) > about_to_take:
            wake.notify()

    def descriptor(self) -> int:
        """Return a descriptor that is readable while something can be taken.

        Raises:
            NoResources: there is none left.
        """
        if self.wake is None:
            self.wake = Wake()
            self.signal()
        return self.wake.reading

    # --- conditions --------------------------------------------------------------------------

    def begun(self) -> bool:
        """Whether a replica serves it, or none ever will."""
        return self.core.started or self.ended

    def moved(self) -> bool:
        """Whether a change can be taken, or none ever will."""
        return bool(self.ready) or self.ended

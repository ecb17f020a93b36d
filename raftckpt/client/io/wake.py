"""Waking threads: by a pipe who polls, by a lock who waits."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from raftckpt.errors import NoResources

__all__ = ["Bell", "Wake", "no_resources", "poller_of"]

_WAIT_SECONDS_MAX: Final = 1e6
"""Eleven days: poll() takes milliseconds as a C int, which ends at 24."""
_RING: Final = (b"\0",)
_DRAINED_BYTES: Final = 4096
"""More wake-ups than wait at a time; what is left wakes once more."""
_LOOK_SECONDS: Final = 1.0
"""So often who waits looks whether those it waits for are still alive."""


def no_resources(error: Exception) -> NoResources:
    """Return the error for an operating system that gives no descriptor, or no thread."""
    return NoResources(
        f"the operating system has no resources left for this ({error}); nothing happened: raise "
        "the limit (ulimit -n, ulimit -u) or close what is not needed",
        reason="limit",
    )


class Wake:
    """A pipe that wakes a poller; closed when nobody can use it any more.

    Written and read as vectors: ``os.write`` and ``os.read`` of eventlet wait where these say at
    once that nothing can be written or read.

    Raises:
        NoResources: there is no descriptor left.
    """

    __slots__ = ("_identity", "reading", "writing")

    def __init__(self) -> None:
        self.reading = self.writing = -1
        try:
            self.reading, self.writing = os.pipe()
        except OSError as error:
            raise no_resources(error) from None
        os.set_blocking(self.reading, False)
        os.set_blocking(self.writing, False)
        self._identity = os.fstat(self.writing).st_ino

    def check(self) -> None:
        """See that both descriptors are still the pipe's.

        A program that closes what it did not open (to become a daemon) closes these too, and the
        numbers may stand for its own files by now.

        Raises:
            OSError: they are not.
        """
        if os.fstat(self.writing).st_ino != self._identity:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def notify(self) -> None:
        """Wake whoever polls.

        Raises:
            OSError: somebody closed the descriptors.
        """
        self.check()
        try:  # noqa: SIM105 - three calls fewer for each call of a user
            os.writev(self.writing, _RING)
        except BlockingIOError:  # it is full of wake-ups already
            pass

    def drain(self) -> None:
        """Forget the wake-ups so far."""
        self.check()
        try:  # noqa: SIM105
            os.readv(self.reading, [bytearray(_DRAINED_BYTES)])
        except BlockingIOError:
            pass

    def wait(self, seconds: float, *others: int) -> None:
        """Wait until somebody wakes, and forget the wake-ups so far.

        Arguments:
            seconds: at most.
            others: descriptors that end the waiting when they are readable.
        """
        poller = poller_of(self)
        for descriptor in others:
            poller.register(descriptor, select.POLLIN)
        poller.poll(min(seconds, _WAIT_SECONDS_MAX) * 1000)
        self.drain()

    def __del__(self) -> None:
        try:
            self.check()
        except OSError:  # never made, or not ours any more
            return
        os.close(self.reading)
        os.close(self.writing)


class _Selecting:
    """``select.poll`` for programs that took it away (eventlet does)."""

    def __init__(self) -> None:
        self._wants: dict[int, int] = {}

    def register(self, file: Any, events: int) -> None:
        self._wants[file if isinstance(file, int) else file.fileno()] = events

    modify = register

    def unregister(self, file: Any) -> None:
        self._wants.pop(file.fileno(), None)

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        reading = [item for item, events in self._wants.items() if events & select.POLLIN]
        writing = [item for item, events in self._wants.items() if events & select.POLLOUT]
        readable, writable, _ = select.select(reading, writing, [], milliseconds / 1000)
        return [(item, select.POLLIN) for item in readable] + [
            (item, select.POLLOUT) for item in writable
        ]


def poller_of(wake: Wake) -> Any:
    """Return a poller that hears a wake; it sleeps as the program's threads do, green or not."""
    poller = select.poll() if hasattr(select, "poll") else _Selecting()
    poller.register(wake.reading, select.POLLIN)
    return poller


class Bell:
    """Tells threads that something changed. Who waits may be interrupted anywhere."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()

    def ring(self) -> None:
        """Have all who wait look again; takes no lock."""
        waiting = self._waiting
        while waiting:
            waiting.popleft().release()

    def wait(
        self, condition: Callable[[], object], deadline: float, alive: Callable[[], object]
    ) -> bool:
        """Wait until a condition holds; False: the deadline has passed.

        Arguments:
            condition: must be preceded by a ring when it becomes true.
            deadline: monotonic time.
            alive: called now and then; raises if nobody is left to ring.
        """
        while not condition():
            waiter = threading.Lock()
            waiter.acquire()
            self._waiting.append(waiter)
            try:
                if condition():  # it may have rung before anybody could hear it
                    return True
                left = deadline - monotonic()
                if left <= 0:
                    return False
                alive()
                waiter.acquire(timeout=min(left, _LOOK_SECONDS))
            finally:
                with suppress(ValueError):
                    self._waiting.remove(waiter)
        return True

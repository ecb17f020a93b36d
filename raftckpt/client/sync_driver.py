"""Runs the calls of any number of threads: each waits, the engine's thread does the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Final

from raftckpt.client.calls import Call
from raftckpt.client.connecting import core_beside
from raftckpt.client.core import ClientCore
from raftckpt.client.io.threads import ThreadEngine, ThreadPort
from raftckpt.client.io.wake import Bell
from raftckpt.client.operations import decoded
from raftckpt.client.probe import Answer, Poll
from raftckpt.client.states import States
from raftckpt.errors import CheckpointError
from raftckpt.protocol.operations import CheckpointClose

__all__ = ["Driver"]

_LOOK_SECONDS: Final = 1.0
"""So often who waits looks whether the engine is still alive."""
_ASK_SECONDS_MAX: Final = 1e6
"""Eleven days: more than anybody waits, and less than a lock's time-out may be (292 years)."""


class Driver:
    """Runs calls over one client core.

    Arguments:
        core: the client core.
        engine: drives it.
        timeout: seconds a call may take unless it says otherwise.
    """

    outlived = False
    """Only a loop can end before its service does."""

    def __init__(self, core: ClientCore, engine: ThreadEngine, timeout: float) -> None:
        self.core = core
        self.engine = engine
        self.timeout = timeout
        self.states = States(core)
        self.companions: dict[type, Any] = {}
        """Peers that live as long as the service, by kind."""
        self._closed = False
        self._port = ThreadPort(core, self._hand_out, core.close)
        engine.add(self._port)

    # --- calls ---------------------------------------------------------------------------

    def run(self, call: Call, timeout: float | None = None) -> Any:
        """Run a call to its end.

        It may be interrupted anywhere, and be called anywhere: by signal handlers and finalizers,
        too.

        Arguments:
            call: built by :mod:`raftckpt.client.operations`.
            timeout: seconds; None: the driver's default.

        Raises:
            CheckpointError: what became of it.
        """
        engine = self.engine
        if type(call.message) is CheckpointClose and engine.inside:
            self._post(call, monotonic() + self.timeout)
            return None  # a finalizer's: nobody could wait for it here
        engine.check(call)
        waiter = call.waiter = threading.Lock()
        waiter.acquire()
        seconds = self.timeout if timeout is None else timeout
        try:
            self._post(call, monotonic() + seconds)
            while not call.done:
                engine.alive(call)
                waiter.acquire(timeout=_LOOK_SECONDS)
        except BaseException:
            # interrupted (Ctrl-C): nobody will wait for this call any more
            engine.post(self._port, lambda now: self.core.cancel(call, now))
            raise
        return decoded(call)

    def begin(self, call: Call, timeout: float | None = None) -> None:
        """Start a call, to be waited for by :meth:`end`; the arguments are those of :meth:`run`."""
        self.engine.check(call)
        call.waiter = threading.Lock()
        call.waiter.acquire()
        self._post(call, monotonic() + (self.timeout if timeout is None else timeout))

    def end(self, call: Call) -> Any:
        """Wait for the end of a call that was begun.

        Raises:
            CheckpointError: what became of it.
        """
        while not call.done:
            self.engine.alive(call)
            call.waiter.acquire(timeout=_LOOK_SECONDS)
        return decoded(call)

    def submit(
        self, call: Call, timeout: float, done: Callable[[Call], None] | None = None
    ) -> None:
        """Start a call and return at once.

        Arguments:
            call: built by :mod:`raftckpt.client.operations`.
            timeout: seconds.
            done: is called with it as soon as it is done, by the engine's thread: it must be quick
                and call nothing here. None: nobody waits for its end.

        Raises:
            BadHandle: after a fork.
            Library: the engine's thread died.
        """
        if not self.engine.inside:
            self.engine.check(call)
        call.waiter = done
        self._post(call, monotonic() + timeout)

    def _post(self, call: Call, deadline: float) -> None:
        def start(now: float) -> None:
            self.core.start(call, deadline, now)
            if deadline <= now:
                self.core.tick(now)

        self.engine.post(self._port, start)

    def accompany(self, peer: Any) -> Callable[[], None]:
        """Drive another peer as long as the service lives.

        Returns:
            A function that has it looked at again, to be called anywhere.
        """
        port = ThreadPort(peer, lambda: None, peer.close)
        self.engine.add(port)
        return lambda: self.engine.post(port, lambda now: None)

    def _hand_out(self) -> None:
        if self.states.told is not None:
            self.states.look()
        for call in self.core.take_completed():
            waiter = call.waiter
            if callable(waiter):
                waiter(call)
            elif waiter is not None:
                waiter.release()

    # --- without a session ---------------------------------------------------------------

    def ask_all(
        self,
        endpoints: list[str],
        make: Callable[[], Call],
        timeout: float,
        *,
        others: bool = False,
    ) -> list[Answer]:
        """Ask every endpoint the same on connections of their own, at the same time.

        Arguments:
            endpoints: "host:port" each.
            make: makes the question.
            timeout: seconds, for all together.
            others: ask also, as soon as one of them is told about, the replicas not among them.
        """
        self.engine.check("status")
        deadline = monotonic() + min(timeout, _ASK_SECONDS_MAX)
        poll = Poll(self.core, endpoints, make, deadline, others=others)
        bell = Bell()
        port = ThreadPort(poll, lambda: bell.ring() if poll.done else None, poll.close)
        try:
            self.engine.add(port)
            bell.wait(lambda: poll.done, inf, lambda: self.engine.alive("status"))
        finally:
            self.engine.remove(port)
        return poll.answers()

    def beside(self, endpoint: str) -> Driver:
        """Return a driver of calls without a session to one replica; :meth:`leave` it."""
        return Driver(core_beside(self.core, endpoint), self.engine, self.timeout)

    def leave(self) -> None:
        """End what :meth:`beside` began: its calls and its connection."""
        self.engine.post(self._port, lambda now: self.core.close())
        self.engine.remove(self._port)

    def aside(self, work: Callable[[], Any]) -> Any:
        """Do what waits for a disk."""
        return work()

    def pause(self, seconds: float) -> None:
        """Wait a little."""
        time.sleep(seconds)  # as it is now: it may have been patched for green threads

    # --- the end -------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called, or has nothing left to do: the thread died."""
        return self._closed or (self.engine.dead and not self.core.unsettled)

    def close(self) -> None:
        """End all calls, trackers and connections, and the thread. Idempotent."""
        if not self.closed:
            self.abandon()
            self.engine.join()

    def abandon(self) -> None:
        """End everything soon; may be called anywhere (for finalizers)."""
        self._closed = True
        with suppress(CheckpointError):
            self.engine.stop()

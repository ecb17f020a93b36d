"""Runs a program as a component: holds the session, starts it, restarts it, tells it its roles.

The program reads lines from the descriptor ``RAFTCKPT_ROLE_FD`` and writes lines to
``RAFTCKPT_ANSWER_FD``::

    role NUMBER STATE REASON EPOCH REVISION PREVIOUS     (to the program; PREVIOUS "-" for nobody)
    ok NUMBER | failed NUMBER | alive                    (from the program)

Names are percent-encoded, so that no field has a space in it. A program that knows nothing of this
is run only while its component is active: started for ACTIVE, ended for everything else.

Invariant: no program runs without a supervisor that holds its session: it is killed by the kernel
when the supervisor dies, and by the supervisor when the session is lost.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

from raftckpt.client.kit import Service, Wake
from raftckpt.errors import BadOperation, CheckpointError, NotExist, SessionLost
from raftckpt.ha._core import ISOLATED
from raftckpt.ha.sync import Component
from raftckpt.ha.types import LATER, Assignment
from raftckpt.model.groups import HaState

__all__ = ["Settings", "Start", "Supervisor", "dying_with_us"]

_PR_SET_PDEATHSIG: Final = 1  # of <linux/prctl.h>
_LINE_BYTES_MAX: Final = 4096
"""PIPE_BUF: what a program writes at once is not torn up to there; an answer has 30."""
# between starts: soon after a first end, and no load on a machine by what ends at each start
_RETRY_SECONDS_MIN: Final = 0.1
_RETRY_SECONDS_MAX: Final = 30.0
_STABLE_SECONDS: Final = 30.0
"""A program that ran so long is restarted without waiting longer than the last time."""
_POLL_SECONDS_MAX: Final = 60.0
"""Nothing depends on it: there is another one after it. What is new wakes it."""
_ANSWERS: Final = {b"ok": True, b"failed": False}


class Start(Enum):
    """When the program runs."""

    ALWAYS = "always"
    """It speaks the line protocol and answers its assignments itself."""
    ACTIVE = "active"
    """Only while its component is active."""


@dataclass(frozen=True)
class Settings:
    """What is supervised, and how.

    Attributes:
        group, name: the component.
        command: program and arguments.
        start: when it runs.
        rank: preferred order of promotion.
        response_timeout: seconds the program has for an answer.
        stop_timeout: seconds between SIGTERM and SIGKILL.
        health_check: seconds without a line from the program (``alive`` will do) after which it is
            killed; None: it is not watched. Only for programs that speak the line protocol.
        environment: of the program, beside what is inherited.
    """

    group: str
    name: str
    command: Sequence[str]
    start: Start = Start.ACTIVE
    rank: int = 0
    response_timeout: float = 10.0
    stop_timeout: float = 5.0
    health_check: float | None = None
    environment: Mapping[str, str] | None = None


def dying_with_us() -> Callable[[], None]:
    """Return what a forked child calls to be killed by the kernel when its parent dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    prctl, getppid, parent = libc.prctl, os.getppid, os.getpid()
    leave = os._exit

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if getppid() != parent:  # it died before this was set
            leave(1)

    return die_with_parent


class _Child:
    """A running program and its two pipes."""

    def __init__(self, settings: Settings, role: str) -> None:
        role_reading, self.roles = os.pipe()
        self.answers, answer_writing = os.pipe()
        environment = {
            **os.environ,
            **(settings.environment or {}),
            "RAFTCKPT_GROUP": settings.group,
            "RAFTCKPT_COMPONENT": settings.name,
            "RAFTCKPT_ROLE": role,
            "RAFTCKPT_ROLE_FD": str(role_reading),
            "RAFTCKPT_ANSWER_FD": str(answer_writing),
        }
        try:
            self.process = subprocess.Popen(  # noqa: S603 - to run a command is its purpose
                list(settings.command),
                env=environment,
                pass_fds=(role_reading, answer_writing),
                preexec_fn=dying_with_us(),
            )
        except BaseException:
            os.close(self.roles)
            os.close(self.answers)
            raise
        finally:
            os.close(role_reading)
            os.close(answer_writing)
        os.set_blocking(self.answers, False)
        os.set_blocking(self.roles, False)
        self.pidfd = os.pidfd_open(self.process.pid)
        self.started_at = self.heard_at = monotonic()
        self.silent = False
        self._unread = b""

    def tell(self, assignment: Assignment) -> bool:
        """Write a line; False: the program does not read."""
        previous = quote(assignment.previous_active, safe="") or "-"
        line = (
            f"role {assignment.number} {assignment.state.name} {assignment.reason} "
            f"{assignment.epoch} {assignment.revision} {previous}\n"
        )
        try:
            return os.write(self.roles, line.encode()) == len(line)
        except (BlockingIOError, BrokenPipeError):
            return False

    def lines(self) -> list[bytes]:
        """Return the complete lines that arrived."""
        try:
            data = os.read(self.answers, 65536)
        except BlockingIOError:
            return []
        if not data:
            self.silent = True  # it closed its end: nothing will come any more
        *lines, self._unread = (self._unread + data).split(b"\n")
        self._unread = self._unread[-_LINE_BYTES_MAX:]
        if lines:
            self.heard_at = monotonic()
        return lines

    def stop(self, seconds: float) -> None:
        """End it: SIGTERM, and SIGKILL when it does not go in time."""
        if seconds > 0:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        self.process.kill()
        self.process.wait()
        for descriptor in (self.roles, self.answers, self.pidfd):
            os.close(descriptor)


class Supervisor:
    """Keeps a program running as a component until :meth:`stop`.

    Arguments:
        connect: makes a service; called again when the session is lost.
        settings: what to run.
        tell: told in words what happens.
    """

    def __init__(
        self, connect: Callable[[], Service], settings: Settings, tell: Callable[[str], None]
    ) -> None:
        self._connect = connect
        self._settings = settings
        self._tell = tell
        self._wake = Wake()
        self._stopping = False
        self._child: _Child | None = None
        self._component: Component | None = None
        self._pending: Assignment | None = None
        self._retry_seconds = _RETRY_SECONDS_MIN

    def stop(self) -> None:
        """End the program and leave the group soon; may be called by a signal handler."""
        self._stopping = True
        self._wake.notify()

    def look(self) -> None:
        """Look at what its program left behind; may be called by a signal handler."""
        self._wake.notify()

    def run(self) -> None:
        """Supervise.

        Raises:
            CheckpointError: the cluster refuses the component for good, at the beginning.
            OSError: the program cannot be started.
        """
        first = True
        while not self._stopping:
            try:
                with self._connect() as service:
                    first = self._serve(service, first=first)
            except CheckpointError as error:
                if first:
                    raise
                self._tell(f"no session: {error}")
            finally:
                self._kill()
            if not self._stopping:
                self._rest()

    def _serve(self, service: Service, *, first: bool) -> bool:
        """Be a component of one session, life after life of the program; False: it began."""
        while not self._stopping:
            try:
                self._live(service)
            except SessionLost as error:
                self._tell(f"the session is lost: {error}")
                return False
            except (CheckpointError, OSError) as error:
                if first:
                    raise
                self._tell(str(error))
            first = False
            if not self._stopping:
                self._rest()
        return False

    def _live(self, service: Service) -> None:
        """Be a component until the program ends."""
        settings = self._settings
        callbacks: dict[str, Any] = {
            f"on_{word}": self._assigned
            for word in ("active", "standby", "quiesced", "unassigned", "removed")
        }
        ended = False
        # the program has its time, and the time to be stopped in
        response_timeout = settings.response_timeout + settings.stop_timeout
        component = self._component = Component(
            service,
            settings.group,
            settings.name,
            rank=settings.rank,
            response_timeout=response_timeout,
            stop_time=settings.stop_timeout,
            **callbacks,
        )
        try:
            while not self._stopping and not ended:
                ended = self._round(component)
        finally:
            self._pending = None
            if self._stopping and not ended:
                self._stop_child()
            else:
                self._kill()
            self._component = None
            component.close(failed=ended)

    # --- one round ----------------------------------------------------------------------------
    def _round(self, component: Component) -> bool:
        """Wait for what comes first and do it; True: the program has ended by itself."""
        poller = select.poll()
        poller.register(component, select.POLLIN)
        poller.register(self._wake.reading, select.POLLIN)
        child = self._child
        if child is not None:
            poller.register(child.pidfd, select.POLLIN)
            if not child.silent:
                poller.register(child.answers, select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(self._patience() * 1000)}
        self._wake.drain()
        self._reap()
        if child is not None:
            if child.answers in ready or child.pidfd in ready:
                for line in child.lines():
                    self._said(component, line)
            if child.pidfd in ready:
                self._ended(child)
                return True
            if self._hung(child):
                self._tell(f"no line for {self._settings.health_check:g} s: killed")
                child.process.kill()
        component.dispatch()
        return False

    def _patience(self) -> float:
        health_check, child = self._settings.health_check, self._child
        if health_check is None or child is None:
            return _POLL_SECONDS_MAX
        return max(0.01, min(_POLL_SECONDS_MAX, child.heard_at + health_check - monotonic()))

    def _hung(self, child: _Child) -> bool:
        health_check = self._settings.health_check
        return health_check is not None and monotonic() >= child.heard_at + health_check

    def _said(self, component: Component, line: bytes) -> None:
        """Take a line of the program; what makes no sense is told and ignored."""
        word, _, rest = line.strip().partition(b" ")
        if word == b"alive" and not rest:
            return
        pending = self._pending
        ok = _ANSWERS.get(word)
        if ok is None or not rest.isdigit():
            self._tell(f"a line that is no answer: {line[:80]!r}")
        elif pending is None or int(rest) != pending.number:
            self._tell(f"an answer to an assignment that is not open: {line[:80]!r}")
        else:
            self._pending = None
            with suppress(BadOperation, NotExist):  # a newer one took its place
                component.respond(pending, ok)

    def _ended(self, child: _Child) -> None:
        code = child.process.wait()
        self._tell(f"the program ended with {code}")
        if monotonic() - child.started_at >= _STABLE_SECONDS:
            self._retry_seconds = _RETRY_SECONDS_MIN

    # --- assignments --------------------------------------------------------------------------
    def _assigned(self, assignment: Assignment) -> Any:
        """Have the program carry an assignment out (called by ``dispatch``)."""
        self._tell(f"{assignment.state.name} ({assignment.reason})")
        self._pending = None
        if assignment.state is HaState.REMOVED:  # what did not answer is not asked to
            self._kill()
            return None
        if assignment.reason == ISOLATED or (
            assignment.reason == "lock_instantiation" and assignment.state is HaState.UNASSIGNED
        ):
            self._stop_child()  # cut off, it is not asked: it has to be gone in time
            return None
        if self._settings.start is Start.ACTIVE:
            if assignment.state is HaState.ACTIVE:
                if self._child is None:
                    self._start(assignment.state.name)
            elif assignment.state is not HaState.STANDBY or self._child is not None:
                self._stop_child()
            return None
        child = self._child or self._start(assignment.state.name)
        if not child.tell(assignment):
            raise BadOperation("the program does not read its roles")
        self._pending = assignment
        return LATER

    def _start(self, role: str) -> _Child:
        child = self._child = _Child(self._settings, role)
        self._tell(f"started {self._settings.command[0]} pid={child.process.pid}")
        return child

    def _stop_child(self) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            child.stop(self._settings.stop_timeout)

    def _kill(self) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            child.stop(0.0)

    def _reap(self) -> None:
        """As the first process, take leave of processes that nobody else will."""
        if os.getpid() != 1:
            return
        own = None if self._child is None else self._child.process.pid
        with suppress(ChildProcessError):
            while True:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None or ended.si_pid == own:  # its own end is told by its pidfd
                    return
                os.waitpid(ended.si_pid, os.WNOHANG)

    def _rest(self) -> None:
        """Wait before the next try, longer each time."""
        until = monotonic() + self._retry_seconds
        while not self._stopping and monotonic() < until:
            self._wake.wait(until - monotonic())
            self._reap()
        self._retry_seconds = min(2 * self._retry_seconds, _RETRY_SECONDS_MAX)

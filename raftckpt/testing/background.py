"""One helper thread with an asyncio loop, shared by everything in this room.

It owns the proxies between peers and starts the child processes. Children ask the kernel to be
killed when the *thread* that started them ends (Linux binds PR_SET_PDEATHSIG to the thread), so
they must come from a thread that lives as long as the process: this one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import IO, Any, TypeVar

__all__ = ["call", "run", "spawn"]

_T = TypeVar("_T")

_GUARD = (
    "import ctypes,os,sys;"
    "ctypes.CDLL(None).prctl(1,9,0,0,0);"  # PR_SET_PDEATHSIG, SIGKILL: also reaches a stopped child
    "os.getppid()==int(sys.argv[1]) or os._exit(1);"
    "os.execv(sys.executable,[sys.executable,*sys.argv[2:]])"
)

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_owner_pid = 0


def _helper_loop() -> asyncio.AbstractEventLoop:
    global _loop, _owner_pid
    with _lock:
        if _loop is None or _owner_pid != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="raftckpt-testing", daemon=True).start()
            _loop, _owner_pid = loop, os.getpid()
        return _loop


def run(work: Coroutine[Any, Any, _T], timeout: float = 10.0) -> _T:
    """Run a coroutine in the helper thread and wait for its result.

    Arguments:
        work: the coroutine.
        timeout: seconds to wait at most.

    Raises:
        TimeoutError: if it is not done in time.
    """
    return asyncio.run_coroutine_threadsafe(work, _helper_loop()).result(timeout)


def call(function: Callable[[], _T], timeout: float = 10.0) -> _T:
    """Call a plain function in the helper thread and wait for its result."""
    done: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def work() -> None:
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)

    _helper_loop().call_soon_threadsafe(work)
    return done.result(timeout)


def spawn(
    arguments: Sequence[str],
    *,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start ``python ARGUMENTS...`` as a child that dies with this process, whatever kills it.

    The child leads its own process group, so a Ctrl-C of the terminal reaches only the parent.
    ``prefix`` is a command that executes the rest of its arguments in place of itself.
    """
    command = [*prefix, sys.executable, "-S", "-E", "-c", _GUARD, str(os.getpid()), *arguments]
    return call(
        lambda: subprocess.Popen(  # noqa: S603  (our own interpreter and modules)
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, process_group=0
        )
    )

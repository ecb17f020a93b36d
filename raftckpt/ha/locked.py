"""Runs a command while a lock is had, and not a moment longer."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from raftckpt.client.kit import Service, Wake
from raftckpt.ha.supervisor import dying_with_us
from raftckpt.ha.sync import lease

__all__ = ["run_locked"]

_SIGNALLED = 128


def run_locked(
    service: Service,
    name: str,
    command: Sequence[str],
    *,
    wait: float | None,
    stop_timeout: float,
    environment: Mapping[str, str],
) -> int:
    """Run a command under a lock; the main thread's SIGTERM and SIGINT are passed on.

    Arguments:
        service: the lock lasts as long as its session.
        name: of the lock.
        command: program and arguments; it finds the token in RAFTCKPT_LOCK_TOKEN.
        wait: seconds to wait for the lock; None: as long as it takes.
        stop_timeout: seconds between SIGTERM and SIGKILL when the lock is lost.
        environment: of the command, beside what is inherited.

    Returns:
        The command's exit code; 128 and the number of the signal that ended it.

    Raises:
        Timeout: the lock was not had in time.
        OSError: the command cannot be run.
    """
    wake = Wake()
    with lease(service, name, wait, on_lost=wake.notify, stop_time=stop_timeout) as held:
        process = subprocess.Popen(  # noqa: S603 - to run a command is its purpose
            list(command),
            env={**os.environ, **environment, "RAFTCKPT_LOCK_TOKEN": str(held.token)},
            preexec_fn=dying_with_us(),
        )
        watcher = os.pidfd_open(process.pid)
        former: dict[int, Any] = {
            number: signal.signal(number, lambda number, _: process.send_signal(number))
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            while process.poll() is None:
                wake.wait(inf, watcher)
                if process.poll() is None and not held.held:
                    process.terminate()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(stop_timeout)
                    process.kill()
                    process.wait()
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
            process.kill()
            process.wait()
            os.close(watcher)
    code = process.returncode
    return code if code >= 0 else _SIGNALLED - code

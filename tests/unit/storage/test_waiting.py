"""A slow disk is waited for by another thread, so that this one can say something meanwhile."""

from __future__ import annotations

import threading
import time

import pytest

from raftckpt.storage import files
from raftckpt.storage.files import Waiting


class Disk:
    """Syncs take as long as a test says; notes in which thread they were made."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.threads: list[threading.Thread] = []
        self.error: OSError | None = None

    def sync(self, fd: int) -> None:
        self.threads.append(threading.current_thread())
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk() -> Disk:
    return Disk()


def calls_aside(disk: Disk) -> list[bool]:
    return [thread is not threading.current_thread() for thread in disk.threads]


def test_only_after_a_slow_one_and_until_many_were_fast(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SLOW_S", 0.05)
    monkeypatch.setattr(files, "_FAST_IN_A_ROW", 3)
    waits: list[float] = []
    waiting = Waiting(waits.append)
    waiting.call(disk.sync, 0)
    disk.seconds = 0.2
    assert waiting.call(disk.sync, 0) >= 0.2
    assert calls_aside(disk) == [False, False]
    assert waits == []
    assert waiting.call(disk.sync, 0) >= 0.2
    assert calls_aside(disk) == [False, False, True]
    assert waits
    assert waits == sorted(waits)
    disk.seconds = 0.0
    for _ in range(5):
        waiting.call(disk.sync, 0)
    assert calls_aside(disk)[3:] == [True, True, True, False, False]


def test_an_error_is_raised_where_it_is_waited_for(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SLOW_S", -1.0)
    waiting = Waiting()
    waiting.call(disk.sync, 0)
    disk.error = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        waiting.call(disk.sync, 0)
    assert calls_aside(disk) == [False, True]


def test_without_threads_it_is_waited_for_here(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(files, "_SLOW_S", -1.0)
    monkeypatch.setattr(threading.Thread, "start", refuses)
    waiting = Waiting()
    waiting.call(disk.sync, 0)
    waiting.call(disk.sync, 0)
    assert calls_aside(disk) == [False, False]

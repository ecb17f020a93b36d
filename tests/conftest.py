"""Fixtures of several rings."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftckpt.storage.files import File, RealFileSystem
from tests.rings import BROWSER, LONG, PURE, SLOW, ring_of
from tests.secured import KEPT, OWN_CREDENTIALS, secure
from tests.waiting import until

_running = ""
"""Ring of the test that runs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = str(__file__).rsplit("/tests/", 1)[0]
    for item in items:
        path = str(item.path).removeprefix(root + "/")
        item.add_marker(ring_of(path))
        if item.config.getoption("--secure") and path in OWN_CREDENTIALS:
            item.add_marker(pytest.mark.skip("it has credentials of its own"))
        if path in SLOW:
            item.add_marker("slow")
        if path in LONG:
            item.add_marker("long")
        if path.startswith(BROWSER):
            item.add_marker("browser")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    return (yield from _as(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    return (yield from _as(item))


def _as(item: pytest.Item) -> Iterator[None]:
    """Not while it is torn down: the fixtures of a whole session go with its last test."""
    global _running
    _running = PURE if item.get_closest_marker(PURE) else ""
    try:
        return (yield)
    finally:
        _running = ""


def _no_sockets(event: str, arguments: tuple[Any, ...]) -> None:
    """Hold a pure test to it: whoever opens a port is none."""
    if event in ("socket.bind", "socket.connect") and _running and type(arguments[1]) is tuple:
        raise AssertionError(f"{event} to {arguments[1]} in a pure test: see tests/rings.py")


sys.addaudithook(_no_sockets)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch) -> None:
    """A developer's own RAFTCKPT_* variables must not steer the tests."""
    for name in list(os.environ):
        if name.startswith("RAFTCKPT_") and name not in KEPT:
            monkeypatch.delenv(name)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        # what is measured are the tests' own processes, not replicas, which are killed anyway
        os.environ.pop("COVERAGE_PROCESS_START", None)
        # two threads that begin to be measured at once end one of them, in CPython 3.11
        threading.settrace(None)  # type: ignore[arg-type]
    if config.getoption("--secure"):
        config.add_cleanup(secure().cleanup)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--secure", action="store_true", help="all local clusters with TLS and rights on"
    )
    parser.addoption(
        "--rewrite", action="store_true", help="write what the stories of tests/scripts show"
    )


@pytest.fixture(autouse=True)
def _opened_files_are_closed(monkeypatch) -> Iterator[None]:
    """A journal that is deleted and still open keeps its 64 MiB of the disk until it is closed.

    Replicas within a test end without ceremony; of a process the kernel closes what it had open.
    """
    opened: list[File] = []
    plain = RealFileSystem.open

    def open_(fs: RealFileSystem, path: str, *, create: bool = False) -> File:
        opened.append(plain(fs, path, create=create))
        return opened[-1]

    monkeypatch.setattr(RealFileSystem, "open", open_)
    yield
    for file in opened:
        file.close()
    until(lambda: not _held(), "what is deleted is open no more")  # large files have a thread


def _held() -> list[str]:
    """Journals that this process has open, and nobody else will ever see."""
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").glob("*")]
    return sorted(path for path in links if path.endswith(".journal (deleted)"))


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """Commands that a test runs in this process set handlers, as a process of its own may."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)

"""Locks: one at a time, a token that grows, and a command that ends with its lock."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from raftckpt_cli import main as cli_main

import raftckpt
from raftckpt import ha
from raftckpt.client.core import ClientCore
from raftckpt.client.routing import Router
from raftckpt.ha.locked import run_locked
from raftckpt.testing import LocalCluster
from tests.e2e.link import Link
from tests.e2e.test_run import gone
from tests.waiting import until

PATIENCE = 60.0
MARGIN_S = 0.5
"""Between the end of what has the lock, by its own clock, and the end of its session."""


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def test_one_has_it_and_the_token_grows(cluster, name) -> None:
    held = threading.Lock()
    tokens: list[int] = []

    def work(service: raftckpt.Service) -> None:
        for _ in range(4):
            with ha.lease(service, name) as lease:
                assert held.acquire(blocking=False), "two have it"
                assert lease.held
                tokens.append(lease.token)
                held.release()
            assert not lease.held

    services = [ha.connect(cluster.endpoints, timeout=PATIENCE) for _ in range(3)]
    threads = [threading.Thread(target=work, args=(service,)) for service in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for service in services:
        service.close()
    assert len(tokens) == 12
    assert tokens == sorted(set(tokens))


def test_not_in_time_is_definite(cluster, name) -> None:
    with (
        ha.connect(cluster.endpoints, timeout=PATIENCE) as one,
        ha.connect(cluster.endpoints, timeout=PATIENCE) as two,
        ha.lease(one, name),
    ):
        for wait in (0.0, 0.3):
            with pytest.raises(raftckpt.Timeout, match="somebody else has it") as caught:
                ha.lease(two, name, wait).__enter__()
            assert caught.value.definite
        assert len(ha.Group(one, f"lease:{name}").status().members) == 1


def test_the_asyncio_face(cluster, name) -> None:
    async def main() -> None:
        async with (
            raftckpt.aio.connect(cluster.endpoints, timeout=PATIENCE) as one,
            raftckpt.aio.connect(cluster.endpoints, timeout=PATIENCE) as two,
        ):
            async with ha.aio.lease(one, name) as first:
                with pytest.raises(raftckpt.Timeout):
                    await ha.aio.lease(two, name, 0.3).__aenter__()
                assert first.held
            async with ha.aio.lease(two, name) as second:
                assert second.token > first.token
                assert not first.held

    asyncio.run(main())


class Lateness:
    """How late this machine wakes who sleeps: clocks cannot be kept to better than that."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sleep)

    def __enter__(self) -> Lateness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sleep(self) -> None:
        begun = time.monotonic()
        while not self._ended.wait(0.01):
            now = time.monotonic()
            self.worst, begun = max(self.worst, now - begun - 0.01), now


def test_it_is_lost_by_ones_own_clock_before_another_one_has_it(
    cluster, name, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(ClientCore, "learn", lambda self, members: None)
    monkeypatch.setattr(Router, "suggest", lambda self, endpoint: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # only for main threads
    for attempt in range(5):
        with Lateness() as lateness:
            events = cut_off_with_a_lock(cluster, f"{name}{attempt}", tmp_path / f"{attempt}")
        assert [event.split(",")[0] for event in events] == ["137", "another"]
        if lateness.worst < MARGIN_S / 4:  # what is done in it is done by four, one after the other
            break
    assert events == ["137", "another, True"]


def cut_off_with_a_lock(cluster: LocalCluster, name: str, started: Path) -> list[str]:
    """What became of its command, and whether that was over when somebody else had the lock."""
    links = [Link(cluster, node) for node in cluster.nodes]
    events: list[str] = []
    # it does not mind SIGTERM
    program = f"trap '' TERM; echo $$ > {started}.new; mv {started}.new {started}"
    stubborn = ["sh", "-c", f"{program}; while :; do sleep 0.05; done"]

    def locked() -> None:
        ways = ",".join(link.endpoint for link in links)
        with ha.connect(ways, timeout=PATIENCE, session_timeout=4.0) as service:
            options: Any = {"wait": None, "stop_timeout": 1.0, "environment": {}}
            events.append(str(run_locked(service, name, stubborn, **options)))

    def other() -> None:
        with (
            ha.connect(cluster.endpoints, timeout=PATIENCE) as service,
            ha.lease(service, name),
        ):
            events.append(f"another, {gone(int(started.read_text()))}")

    first = threading.Thread(target=locked)
    first.start()
    until(started.exists, "the command runs")
    second = threading.Thread(target=other)
    second.start()
    for link in links:
        link.cut(True)
    second.join(PATIENCE)
    for link in links:
        link.cut(False)
    first.join(PATIENCE)
    for link in links:
        link.close()
    return sorted(events)


def lock(cluster: Any, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "raftckpt_cli.main", "lock", "--endpoints", cluster.endpoints,
            *arguments,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_command_line(cluster, name, tmp_path: Path) -> None:
    there = tmp_path / "there"
    program = f"touch {there}; echo $RAFTCKPT_LOCK_TOKEN; exec sleep 1000"
    holding = lock(cluster, name, "--", "sh", "-c", program)
    until(there.exists, "the command runs")
    late = lock(cluster, "--wait", "0.2", name, "--", "true")
    assert late.wait(PATIENCE) == 1
    assert "somebody else has it" in late.communicate()[1]
    holding.send_signal(signal.SIGTERM)  # passed on
    assert holding.wait(PATIENCE) == 128 + signal.SIGTERM
    token = int(holding.communicate()[0])
    after = lock(cluster, name, "--", "sh", "-c", "echo $RAFTCKPT_LOCK_TOKEN; exit 7")
    assert after.wait(PATIENCE) == 7
    assert int(after.communicate()[0]) > token


def test_what_is_wrong_is_told(cluster, name, capsys) -> None:
    at = ["--endpoints", cluster.endpoints]
    assert cli_main.run(["lock", *at, name, "--", "/no/such/program"]) == 1
    assert cli_main.run(["lock", *at, "--session-timeout", "5", name, "--", "true"]) == 2
    assert "--session-timeout is at least 7" in capsys.readouterr().err

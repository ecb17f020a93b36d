from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from raftckpt.node import logs
from raftckpt.node.config import ClusterConfig, ConfigError, parse
from raftckpt.process.notify import Notifier
from raftckpt.process.reload import Reloading

FILE = """
cluster: demo
replicas:
  n1: {client: "127.0.0.1:7401", peer: "127.0.0.1:7501"}
"""


@pytest.fixture
def config(monkeypatch) -> ClusterConfig:
    monkeypatch.setattr(logs, "configure", lambda node, config: None)  # of the whole process
    return parse(FILE, "c.yaml")


def hang_up(config: ClusterConfig, *reads: Any) -> tuple[Reloading, list[ClusterConfig]]:
    """Have it ask once for each of what is read; returns what was taken over."""
    waiting, taken = list(reads), []

    def reread() -> ClusterConfig:
        read = waiting.pop(0)
        if isinstance(read, Exception):
            raise read
        return read

    reloading = Reloading(config, "n1", reread if reads else None, Notifier({}))
    reloading.takers.append(lambda config, peer, client: taken.append(config))

    async def ask() -> None:
        for _ in reads or (None,):
            reloading.ask()
            reloading.ask()  # which is being done already
            assert reloading._task is not None
            await reloading._task

    asyncio.run(ask())
    return reloading, taken


def test_what_can_be_taken_over_is_and_the_rest_waits_for_a_restart(config) -> None:
    read = dataclasses.replace(config, limits=dataclasses.replace(config.limits, connections=77))
    read = dataclasses.replace(read, cluster="other")
    reloading, taken = hang_up(config, read)
    assert [found.limits.connections for found in taken] == [77]
    assert reloading.config.cluster == "demo"
    assert reloading.config.limits.connections == 77


def test_what_cannot_be_read_changes_nothing(config) -> None:
    reloading, taken = hang_up(config, ConfigError("c.yaml", []), OSError("gone"))
    assert taken == []
    assert reloading.config is config


def test_who_has_no_file_changes_nothing(config) -> None:
    reloading, taken = hang_up(config)
    assert taken == []
    assert reloading.config is config

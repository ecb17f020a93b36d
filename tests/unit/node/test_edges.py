"""Edges that could move without a test noticing: found by planting mutants."""

from __future__ import annotations

import asyncio
import io
import logging
from types import SimpleNamespace

import pytest

from raftckpt.node import logs
from raftckpt.node.config import ConfigError, LogConfig, parse
from raftckpt.node.driver import Driver
from raftckpt.node.yamltext import DEPTH_MAX
from tests.unit.node.fakes import LoneReplica
from tests.unit.node.test_config import GOOD


@pytest.mark.parametrize(
    ("text", "size"),
    [("2000000", 2_000_000), ("2000000B", 2_000_000), ("4096 KiB", 4 << 20), ("2MiB", 2 << 20),
     ("1GiB", 1 << 30)],
)  # fmt: skip
def test_units_of_sizes(text: str, size: int) -> None:
    assert parse(GOOD + f"snapshot: {{bytes: {text}}}\n", "c.yaml").snapshot.bytes == size


@pytest.mark.parametrize("inside", ["", "1"])
def test_a_configuration_nested_too_deeply_is_told(inside: str) -> None:
    depth = DEPTH_MAX + (not inside)
    for deep, told in ((depth - 1, False), (depth, True)):
        with pytest.raises(ConfigError) as caught:
            parse(GOOD + f"snapshot: {'[' * deep}{inside}{']' * deep}\n", "c.yaml")
        assert told == ("nested too deeply" in str(caught.value))


def test_what_is_logged_is_logged_once(capsys) -> None:
    root, ours = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(root)
    loggers = [logging.getLogger(name) for name in ("raftckpt", "asyncio")]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    logging.getLogger().addHandler(handler)
    try:
        logs.configure("n1", LogConfig(), ours)
        for each in loggers:
            each.warning("said")
        assert ours.getvalue().count("said") == 2
        assert root.getvalue() == ""
    finally:
        logging.getLogger().removeHandler(handler)
        for each, (handlers, level, propagate) in zip(loggers, before, strict=True):
            each.handlers[:], each.propagate = handlers, propagate
            each.setLevel(level)


def test_replies_made_outside_of_a_step_are_sent_at_once() -> None:
    """Only within a step do they wait for its end."""
    stepping: list[bool] = []

    async def scenario() -> None:
        world = LoneReplica()
        assert not world.replica.stepping
        driver = Driver(asyncio.get_running_loop(), world.clock, world.failures.append)
        driver.start(world.replica, lambda: stepping.append(world.replica.stepping))
        async with asyncio.timeout(5):
            while not driver.steps:
                await asyncio.sleep(0)
        assert not world.replica.stepping
        driver.stop()

    asyncio.run(scenario())
    assert set(stepping) == {True}


def test_a_transfer_asked_for_is_begun_at_once() -> None:
    world = LoneReplica()
    wakes = world.wakes
    world.replica.transfer("n2", lambda outcome: None)
    assert [node for node, _ in world.log.transfers] == ["n2"]
    assert world.wakes > wakes


def test_what_is_wrong_outside_of_the_file_has_no_line_of_it() -> None:
    for given in ({"environ": {"RAFTCKPT_DURABILITY": "no"}}, {"overrides": {"durability": "no"}}):
        with pytest.raises(ConfigError) as caught:
            parse(GOOD, "c.yaml", **given)
        assert [problem.line for problem in caught.value.problems] == [0]


def test_what_is_left_behind_is_tended_between_steps() -> None:
    class Gardener:
        def __init__(self) -> None:
            self.told: list[int] = []

        def tend(self, changes: int) -> None:
            self.told.append(changes)

        def tend_idle(self) -> None:
            pass

    gardener = Gardener()

    async def scenario() -> None:
        world = LoneReplica()
        driver = Driver(asyncio.get_running_loop(), world.clock, lambda error: None)
        driver.start(world.replica, lambda: None, gardener)  # type: ignore[arg-type]
        async with asyncio.timeout(5):
            while driver.steps < 1:
                await asyncio.sleep(0)
        driver.stop()
        assert gardener.told == [world.replica.machine.revision] * driver.steps

    asyncio.run(scenario())


def test_a_home_that_does_not_exist_is_told() -> None:
    with pytest.raises(ConfigError, match="no home for ~nobody-of-this-name"):
        parse(GOOD + "data_dir: ~nobody-of-this-name/data\n", "c.yaml")


@pytest.mark.parametrize("busy", [False, True])
def test_only_who_applied_nothing_tidies_up(monkeypatch, busy: bool) -> None:
    monkeypatch.setattr("raftckpt.node.driver._IDLE_S", 0.0)
    tidied: list[int] = []

    async def scenario() -> None:
        world = LoneReplica()
        driver = Driver(asyncio.get_running_loop(), world.clock, lambda error: None)
        gardener = SimpleNamespace(
            tend=lambda changes: None,
            tend_idle=lambda: tidied.append(world.replica.machine.applied_index),
        )
        driver.start(world.replica, lambda: None, gardener)  # type: ignore[arg-type]
        for _ in range(20):
            world.replica.machine.applied_index += busy
            await asyncio.sleep(0)
        driver.stop()

    asyncio.run(scenario())
    assert bool(tidied) != busy


def test_replies_go_to_who_asked_however_many_asked_before() -> None:
    world = LoneReplica()
    clients = [world.open_session(secret=bytes([number]) * 16) for number in range(3)]
    handles = [world.open_checkpoint(client) for client in clients]
    asked: list[tuple[int, int]] = []
    for sequence in (2, 3):
        for number, (client, handle) in enumerate(zip(clients, handles, strict=True)):
            first = world.put(client, handle, 2 * sequence - 2)
            asked += [(number, first), (number, world.put(client, handle, 2 * sequence - 1))]
    world.log.run()
    for number, client in enumerate(clients):
        replied = {request for request, code, _ in client.replies if code == 1}
        assert {request for who, request in asked if who == number} <= replied
        assert not {request for who, request in asked if who != number} & replied

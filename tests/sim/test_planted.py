"""Each planted bug is found: a checker that has never failed checks nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from tests.sim.planting import (
    HUNTS,
    MEMBER_HUNTS,
    MEMBERS_SCRIPTED,
    SCRIPTED,
    SEEDS_MAX,
    SOON,
    first_catch,
    first_catch_of_members,
)
from tests.sim.sabotage import MEMBER_SABOTAGES, SABOTAGES, SERVICE_SABOTAGES, planted
from tests.sim.world import World

PLANTED = "TEST_PLANTED_BUG"


@pytest.mark.parametrize("bug", HUNTS)
def test_planted_bug_is_caught(bug: str) -> None:
    _, found = first_catch(bug, SEEDS_MAX, SOON.get(bug, 1))
    assert found is not None, f"{SEEDS_MAX} seeds did not find {bug!r}"
    assert HUNTS[bug].invariant in found


@pytest.mark.parametrize("bug", MEMBER_HUNTS)
def test_planted_bug_of_members_is_caught(bug: str) -> None:
    _, found = first_catch_of_members(bug, SEEDS_MAX)
    assert found is not None, f"{SEEDS_MAX} seeds did not find {bug!r}"


@pytest.mark.parametrize("bug", SCRIPTED | MEMBERS_SCRIPTED)
def test_planted_bug_fails_its_script(bug: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.sim.test_planted"]
    environment = os.environ | {PLANTED: bug}
    test = (SCRIPTED | MEMBERS_SCRIPTED)[bug]
    done = subprocess.run(
        [*command, test], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout[-2000:]


def pytest_configure(config: pytest.Config) -> None:
    """As a plugin: a run with the bug that the environment names."""
    if PLANTED in os.environ:
        stack = contextlib.ExitStack()
        stack.enter_context(planted(os.environ[PLANTED]))
        config.add_cleanup(stack.close)


def test_every_planted_bug_is_looked_for() -> None:
    assert {*MEMBER_HUNTS, *MEMBERS_SCRIPTED} == set(MEMBER_SABOTAGES)
    assert set(HUNTS) | set(SCRIPTED) == set(SABOTAGES) | set(SERVICE_SABOTAGES)
    assert not set(HUNTS) & set(SCRIPTED)


def test_planting_is_undone() -> None:
    before = World(5, seconds=1.0).run().digest
    with planted("commit by one less"):
        pass
    assert World(5, seconds=1.0).run().digest == before

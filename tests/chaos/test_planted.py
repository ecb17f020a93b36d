"""Bugs planted in real replicas: chaos must find each, or it proves nothing.

The faults are restricted to those that bring the bug out, so that a short run suffices.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from raftckpt.chaos.run import Plan, run
from tests.chaos.saboteur import VARIABLE

ROOT = Path(__file__).parents[2]


class Planted(NamedTuple):
    bug: str
    faults: tuple[str, ...]
    told: tuple[str, ...]
    """What at least one of the problems must be."""
    seconds: float = 8.0


MORE = [
    Planted(
        "reads come from a cache",
        ("transfer leadership",),
        ("stale read", "wrong content", "unfounded refusal", "went back"),
        4.0,
    ),
    Planted("vectors are torn", ("transfer leadership",), ("wrong content",), 4.0),
    Planted(
        "transactions are torn",
        ("transfer leadership",),
        ("wrong content", "impossible change"),
        4.0,
    ),
    Planted("conditions do not matter", ("transfer leadership",), ("impossible change",), 4.0),
    Planted("fence has gaps", ("transfer leadership",), ("impossible change",), 4.0),
    Planted("expires early", ("transfer leadership",), ("wrong content", "unfounded"), 4.0),
]
TABLE = [
    Planted(
        "repeats are executed",
        ("reset client links", "transfer leadership"),
        ("something was applied twice", "two changes", "wrong content", "impossible change"),
    ),
    # of ten seconds each, one after the other: all of them now and then
    *(pytest.param(each, marks=pytest.mark.long) for each in MORE),
]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("planted", TABLE, ids=lambda planted: planted.bug)
def test_planted_bug_is_caught(planted, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # replicas run in directories of their own
    monkeypatch.setenv(VARIABLE, planted.bug)
    plan = Plan(
        seconds=planted.seconds,
        seed=5,
        directory=tmp_path,
        clients=3,
        rate_min=0.0,
        judge_s=40.0,
        recovery_s=20.0,  # some bugs stop the cluster for good
        module="tests.chaos.saboteur",
        only=planted.faults,
    )
    report = run(plan, lambda text: None)
    problems = "\n".join(report.problems)
    assert report.verdict in ("violated", "diverged"), f"{report.verdict}: {problems}"
    assert any(each in problems for each in planted.told), problems

"""The same seed gives the same trace: again, and under another hash seed of Python."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.runs import SILENCES, WORLDS, Job

SECONDS = 4.0


EACH = [
    pytest.param(world, marks=[pytest.mark.long] * (world == SILENCES)) for world in WORLDS
]  # standbys, by and large, and twice as long


@pytest.mark.parametrize("world", EACH)
def test_same_seed_same_trace(world: str) -> None:
    expected = Job(world, 5, SECONDS).build().run().digest
    assert Job(world, 5, SECONDS).build().run().digest == expected
    assert Job(world, 6, SECONDS).build().run().digest != expected


@pytest.mark.parametrize("world", EACH)
def test_hash_seed_changes_nothing(world: str) -> None:
    """Sets, dictionaries of strings and ``hash()`` must not decide anything."""
    jobs = [Job(world, seed, SECONDS) for seed in (5, 7, 9)]
    expected = [job.build().run().digest for job in jobs]
    script = (
        "from tests.sim.runs import Job\n"
        f"for seed in (5, 7, 9): print(Job({world!r}, seed, {SECONDS}).build().run().digest)"
    )
    for hash_seed in ("0", "4711"):
        printed = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        ).stdout.split()
        assert printed == expected

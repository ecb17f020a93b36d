"""How long to fuzz: ``RAFTCKPT_FUZZ_EXAMPLES=N`` runs N examples of each test, else a few.

Always deterministic: the same number of examples is the same examples.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("RAFTCKPT_FUZZ_EXAMPLES", "0"))


def fuzzing(few: int) -> settings:
    """Settings of a Hypothesis test that runs ``few`` examples unless told otherwise."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def seeds(few: int, *, cost: int = 1) -> Iterator[random.Random]:
    """Sources of chance for a test without Hypothesis, one of ``cost`` examples each."""
    count = max(few, EXAMPLES // cost) if EXAMPLES else few
    return (random.Random(f"fuzz/{number}") for number in range(count))

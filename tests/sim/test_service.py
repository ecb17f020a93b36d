"""The whole service under faults: exactly once, in order, honest outcomes, linearizable reads."""

from __future__ import annotations

import pytest

from tests.sim.faults import FAMILIES
from tests.sim.service import ServiceWorld


@pytest.mark.parametrize("seed", range(1, 6))
def test_seed_holds_every_promise(seed: int) -> None:
    outcome = ServiceWorld(seed, seconds=6.0).run()
    assert outcome.violation is None, "\n".join([outcome.violation, *outcome.tail[-60:]])
    assert outcome.counters["client put done"] > 0
    assert outcome.counters["client read done"] > 0


def test_every_fault_at_once() -> None:
    outcome = ServiceWorld(78, seconds=6.0, families=set(FAMILIES), size=3).run()
    assert outcome.violation is None, "\n".join([outcome.violation, *outcome.tail[-60:]])

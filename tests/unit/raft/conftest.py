"""A bench for one node among puppets, and a disk that can kill its process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sim.bench import KillableDisk, OurBench
from tests.sim.enginepatch import patched
from tests.sim.plain import BenchClock, HalfDice

Make = Callable[..., OurBench]


@pytest.fixture
def clock() -> Iterator[BenchClock]:
    clock = BenchClock()
    with patched(clock, HalfDice()):
        yield clock


@pytest.fixture
def disk() -> KillableDisk:
    return KillableDisk()


@pytest.fixture
def make(clock: BenchClock, disk: KillableDisk, tmp_path: Path) -> Iterator[Make]:
    benches: list[OurBench] = []

    def build(name: str = "a", **config: Any) -> OurBench:
        benches.append(OurBench(clock, disk, str(tmp_path / name), **config))
        return benches[-1]

    yield build
    disk.kill_at("", 0)
    for bench in benches:
        bench.kill()


@pytest.fixture
def bench(make: Make) -> OurBench:
    return make()

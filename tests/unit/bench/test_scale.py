"""What becomes of the figures of benchmarks/scale.py, and that a point of each kind can be run."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.bench.programs import program


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("uvloop")
    with program("scale") as module:
        monkeypatch.setattr(module, "TURN_S", 0.3)
        yield module


def test_the_point_where_it_gets_worse_is_found(scale: Any) -> None:
    rates = [(1.0, 100.0), (10.0, 70.0), (100.0, 60.0), (1000.0, 90.0)]
    assert scale.bends_at(rates, True) == 100
    assert scale.bends_at(rates, False) is None
    times = [(1.0, 100.0), (10.0, 140.0), (100.0, 151.0)]
    assert scale.bends_at(times, False) == 100
    assert scale.bends_at(times, True) is None
    assert scale.bends_at([], True) is None


def test_medians_over_the_rounds_are_plotted_as_multiples_of_the_first_point(scale: Any) -> None:
    axis = scale.AXES["connections"]
    results = {
        1: {"full_per_s": [10.0, 1000.0, 20.0], "one_p50_us": [500.0]},
        8: {"full_per_s": [200.0], "one_p50_us": [1000.0]},
    }
    assert scale.medians(results, "full_per_s") == [(1, 20.0), (8, 200.0)]
    rows = scale.table(axis, results).splitlines()
    assert rows[0] == "| connections with one write each | us, one write | writes/s, full |"
    assert rows[2:5] == ["| 1 | 500 | 20 |", "| 8 | 1,000 | 200 |", "| *1.5x worse at* | 8 | - |"]
    drawn = scale.plot(axis, results)
    assert "writes/s" in drawn
    assert drawn.count("<circle") == 4, "two lines of two points; nobody measured the third"


def test_rounds_end_with_the_time_but_the_first_is_whole(scale: Any) -> None:
    turns: list[int] = []

    async def setup(counts: Any, stack: Any) -> Any:
        for count in counts:

            async def turn(count: int = count) -> dict[str, float]:
                turns.append(count)
                if turns == [1, 2]:
                    raise scale.TurnLost("the leader changed")
                return {"full_per_s": float(count)}

            yield scale.Point(count, turn)

    axis = scale.AXES["connections"]._replace(setup=setup)
    results = asyncio.run(scale.along(axis, [1, 2], 5, time.monotonic() - 1))
    assert turns == [1, 2]
    assert results == {1: {"full_per_s": [1.0]}}, "a turn that was none is left out"
    results = asyncio.run(scale.along(axis, [1, 2], 3, time.monotonic() + 60))
    assert turns[2:] == [1, 2, 2, 1, 1, 2], "in turns"
    assert results[2] == {"full_per_s": [2.0] * 3}


def test_it_runs(scale: Any, tmp_path: Path) -> None:
    """Points of axes with a cluster for each, with one for all, and with trackers."""
    options = SimpleNamespace(
        out=tmp_path, minutes=0.0, rounds=1, only="sections,connections,trackers", most=4
    )
    small = scale.AXES["sections"]._replace(counts=(4,))
    scale.AXES["sections"] = small
    asyncio.run(scale.run(options))
    told = json.loads((tmp_path / "results.json").read_text())["axes"]
    points = {name: set(axis["points"]) for name, axis in told.items()}
    assert points == {"sections": {"4"}, "connections": {"1"}, "trackers": {"1", "4"}}
    assert {"restart_s", "snapshot_s", "full_per_s"} <= set(told["sections"]["points"]["4"])
    assert (tmp_path / "scale-trackers.svg").read_text().startswith("<svg")
    assert "### sections" in (tmp_path / "table.md").read_text()

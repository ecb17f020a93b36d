"""The alarm of the benchmarks' history."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.bench.programs import program

WRITE = "sequential write 100 B"
MANY = "256 outstanding writes 100 B over 8 connections"


@pytest.fixture
def history() -> Iterator[Any]:
    with program("history") as module:
        yield module


def run(write_us: float, many: float, floor_us: float = 300.0, cpus: int = 2) -> dict[str, Any]:
    """What compare.py leaves behind."""
    return {
        "machine": {"date": "2026-11-30", "cpus": cpus, "load_average": 0.5},
        "results": {
            WRITE: {
                "raftckpt": [{"p50_us": write_us, "ops_per_s": 1e6 / write_us}],
                "floor, C": [{"p50_us": floor_us, "ops_per_s": 1e6 / floor_us}],
            },
            MANY: {"raftckpt": [{"p50_us": 9.0, "ops_per_s": many}]},
        },
    }


def record(history: Any, tmp_path: Path, found: dict[str, Any]) -> int:
    results = tmp_path / "results.json"
    results.write_text(json.dumps(found))
    words = [str(results), "--revision", "abc", "--file", str(tmp_path / "history.jsonl")]
    sys.argv[1:] = words
    return int(history.main())


def test_alarm_only_for_what_got_worse_beside_the_floor(
    history, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(sys, "argv", ["history.py"])
    assert record(history, tmp_path, run(600, 20_000)) == 0
    assert record(history, tmp_path, run(1200, 10_000, floor_us=600)) == 0, "a slower machine"
    assert record(history, tmp_path, run(700, 17_000)) == 0, "within what runs differ by"
    capsys.readouterr()
    assert record(history, tmp_path, run(900, 20_000)) == 1
    assert "sequential write 100 B: 3 to the floor, was 2:" in capsys.readouterr().err
    assert record(history, tmp_path, run(600, 12_000)) == 1
    assert MANY in capsys.readouterr().err
    assert record(history, tmp_path, run(900, 1_000, cpus=8)) == 0, "another machine"
    kept = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert len(kept) == 6
    assert kept[0]["ratios"] == {WRITE: 2.0, MANY: 6.0}


def test_a_run_without_the_floor_is_none(history, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["history.py"])
    found = run(600, 20_000)
    del found["results"][WRITE]["floor, C"]
    with pytest.raises(SystemExit):
        record(history, tmp_path, found)

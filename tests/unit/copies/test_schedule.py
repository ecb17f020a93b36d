"""Snapshot files in a directory: when the next one is due, and which may go."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raftckpt.copies.schedule import SnapshotDirectory, seconds_of
from raftckpt.storage import Damaged
from tests.golden.play import SNAPSHOT

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC).timestamp()


def kept(path: Path, keep: int = 3) -> SnapshotDirectory:
    return SnapshotDirectory(str(path), "prod", 3600, keep)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("2d", 172_800)]
)
def test_periods(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "0s", "-1h", "1.5h", "1 h", "1w", "99999999s"])
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(ValueError, match="is no period"):
        seconds_of(text)


def test_the_next_one_is_due_a_period_after_the_newest_was_begun(tmp_path: Path) -> None:
    directory = kept(tmp_path)
    assert directory.due_in(NOW) == 0.0
    path = directory.next_path(NOW)
    assert os.path.basename(path) == "prod-20260501T120000Z.snapshot"
    Path(path).touch()
    assert directory.due_in(NOW) == 3600.0
    assert directory.due_in(NOW + 3000) == 600.0
    assert directory.due_in(NOW + 9999) == 0.0
    assert directory.due_in(NOW - 60) == 0.0, "a clock that went back: do not wait for it"


def test_the_oldest_go_and_nobody_elses(tmp_path: Path) -> None:
    directory = kept(tmp_path)
    others = [
        "other-20260501T120000Z.snapshot",
        "prod-of-others-20260501T120000Z.snapshot",
        "prod-20260501T120000Z.snapshot.part",
        "prod-latest.snapshot",
        "notes",
    ]
    for name in others:
        (tmp_path / name).touch()
    paths = [directory.next_path(NOW + 3600 * hour) for hour in range(5)]
    for path in paths:
        Path(path).write_bytes(SNAPSHOT.read_bytes())
    found, gone = directory.settle(paths[-1])
    assert found.head.cluster == "golden"
    assert gone == paths[:2]
    assert directory.files() == paths[2:]
    assert set(others) < set(os.listdir(tmp_path))


def test_nothing_goes_for_one_that_is_not_whole(tmp_path: Path) -> None:
    directory = kept(tmp_path, keep=1)
    old, new = directory.next_path(NOW), directory.next_path(NOW + 3600)
    Path(old).write_bytes(SNAPSHOT.read_bytes())
    Path(new).write_bytes(SNAPSHOT.read_bytes()[:-1])
    with pytest.raises(Damaged):
        directory.settle(new)
    assert directory.files() == [old, new]

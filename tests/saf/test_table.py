"""Each call x rule, and each pair of rules: the one that is checked first gives the code."""

from __future__ import annotations

import pytest

from raftckpt import saf

from .env import Library
from .table import CALLS, Row, rows

ROWS = list(rows())


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_row(row: Row, libraries: dict[str, Library]) -> None:
    given = dict(row.call.given)
    for breach in reversed(row.breaches):  # where both say it, the one checked first decides
        creation = {**given.get("creation", {}), **breach.changes.get("creation", {})}
        given.update(breach.changes)
        if creation:
            given["creation"] = creation
        given["index"] = breach.changes.get("index")
    assert row.call.make(libraries, row.version, given) == row.code


def test_every_call_has_rows() -> None:
    named = {name for name in saf.__all__ if name.startswith("saCkpt")}
    assert len(named) == 24 + 5  # B.02.02, and what B.02.03 adds
    others = {"saCkptFinalize", "saCkptCheckpointTrack", "saCkptCheckpointTrackStop"}
    assert named - {call.name for call in CALLS} == others
    ids = [row.id for row in ROWS]
    assert len(ids) == len(set(ids))
    assert len(ROWS) > 500

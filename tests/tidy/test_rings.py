"""The table of what tests need, and the gates of coverage: both notice when they are outdated."""

from __future__ import annotations

import socket

import pytest

from tests.rings import LONG, RINGS, SLOW, ring_of
from tests.tidy.source import ROOT
from tools.gates import GATES, Gate, judged, share_of


def test_every_place_in_the_table_exists() -> None:
    assert [path for path in (*RINGS, *SLOW, *LONG) if not (ROOT / path).exists()] == []


def test_the_longest_path_counts() -> None:
    assert ring_of("tests/unit/client/test_core.py") == "pure"
    assert ring_of("tests/unit/client/test_aio.py") == "loopback"
    assert ring_of("tests/e2e/test_kill.py") == ring_of("tests/new/test_new.py") == "processes"


def test_a_test_has_its_ring(request: pytest.FixtureRequest) -> None:
    marks = {mark.name for mark in request.node.iter_markers()}
    assert "pure" in marks
    assert not marks & {"loopback", "processes"}


def test_a_pure_test_opens_no_port() -> None:
    with socket.socket() as sock:
        with pytest.raises(AssertionError, match="in a pure test"):
            sock.bind(("127.0.0.1", 0))
        with pytest.raises(AssertionError, match="in a pure test"):
            sock.connect(("127.0.0.1", 9))
    left, right = socket.socketpair()  # a loop has one
    left.close(), right.close()


FILES = {
    path: {
        "summary": {
            "covered_lines": lines,
            "num_statements": 10,
            "covered_branches": 0,
            "num_branches": branches,
        }
    }
    for path, lines, branches in [("a/x.py", 10, 0), ("a/y.py", 9, 10), ("b.py", 10, 0)]
}


def test_a_room_below_its_gate_fails() -> None:
    assert share_of(("a/",), FILES) == (19, 30)
    assert share_of(("a/x.py", "b.py"), FILES) == (20, 20)
    _, good = judged((Gate("a", ("a/",), 63.3), Gate("b", ("b.py",), 100)), FILES)
    assert good
    lines, good = judged((Gate("a", ("a/",), 63.4), Gate("b", ("b.py",), 100)), FILES)
    assert not good
    assert ["TOO LITTLE" in line for line in lines] == [True, False]


def test_a_room_that_moved_is_noticed() -> None:
    with pytest.raises(LookupError, match="no file below c/"):
        share_of(("a/", "c/"), FILES)
    for gate in GATES:
        assert all((ROOT / prefix).exists() for prefix in gate.prefixes), gate.room

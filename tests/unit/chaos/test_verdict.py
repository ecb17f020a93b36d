"""The verdict: the worst that was found, and never ok by default."""

from __future__ import annotations

import pytest

from raftckpt.chaos.audit import Audit
from raftckpt.chaos.linearizability import Judgement
from raftckpt.chaos.order import Violation
from raftckpt.chaos.run import Plan, Report, _verdict

GOOD = Judgement([], [], 10, 0, 0.0)


@pytest.fixture
def report(tmp_path) -> Report:
    report = Report(Plan(seconds=1, seed=1, directory=tmp_path))
    report.seconds = 1.0
    report.acknowledged_under_faults = 1000
    report.faults = {"kill leader": 1}
    report.audit = Audit(audited=10, digests={"n1": "a", "n2": "a", "n3": "a"})
    return report


def test_ok(report) -> None:
    assert _verdict(report, GOOD) == "ok"
    assert report.problems == []


def test_lost_write(report) -> None:
    report.audit.lost = ["put of k"]
    report.acknowledged_under_faults = 0
    assert _verdict(report, GOOD) == "violated"


def test_not_linearizable(report) -> None:
    violated = GOOD._replace(violations=[Violation("stale read", 1, ("a", "b"))])
    assert _verdict(report, violated) == "violated"
    assert "stale read" in report.problems[0]


def test_replicas_that_differ(report) -> None:
    report.audit.digests["n2"] = "b"
    assert _verdict(report, GOOD) == "diverged"


def test_replica_that_gave_no_digest(report) -> None:
    report.audit.digests["n2"] = None
    assert _verdict(report, GOOD) == "diverged"


def test_undecided(report) -> None:
    assert _verdict(report, GOOD._replace(undecided=["k"])) == "undecided"


def test_something_failed(report) -> None:
    report.problems.append("client c1 ended with 1")
    assert _verdict(report, GOOD) == "failed"


def test_too_slow(report) -> None:
    report.acknowledged_under_faults = 10
    assert _verdict(report, GOOD) == "idle"


@pytest.mark.parametrize("what", ["no audit", "no faults"])
def test_nothing_happened(report, what) -> None:
    if what == "no audit":
        report.audit = Audit()
    else:
        report.faults = {}
    assert _verdict(report, GOOD) == "idle"


def test_violation_outweighs_what_is_undecided(report) -> None:
    both = GOOD._replace(violations=[Violation("x", 1, ())], undecided=["k"])
    assert _verdict(report, both) == "violated"

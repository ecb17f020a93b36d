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
    nodes = ["n1", "n2", "n3"]
    report.audit = Audit(audited=10, audited_on=nodes, digests=dict.fromkeys(nodes, "a"))
    report.judgement = GOOD
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
    """It is missed and named; that is no difference, and no agreement either."""
    report.audit.digests["n2"] = None
    report.audit.audited_on.remove("n2")
    report.audit.not_audited["n2"] = "it does not run"
    assert _verdict(report, GOOD) == "failed"
    assert report.problems == ["n2 was not audited: it does not run"]
    said = report.as_json()
    assert said["replicas_equal"] is None
    assert said["lost"] == 0
    assert said["audited_on"] == ["n1", "n3"]
    assert said["not_audited"] == {"n2": "it does not run"}


def test_replicas_that_differ_while_another_says_nothing(report) -> None:
    report.audit.digests |= {"n1": None, "n2": "b"}
    report.audit.not_audited["n1"] = "it does not run"
    assert _verdict(report, GOOD) == "diverged"


@pytest.mark.parametrize(
    "nothing",
    [Audit(), Audit(digests={"n1": "a"}, audited_on=["n1"]), Audit(digests={"n1": None})],
    ids=["not begun", "no writes", "no replica"],
)
def test_nothing_is_not_none_lost(report, nothing) -> None:
    report.audit = nothing
    assert _verdict(report, GOOD) != "ok"
    assert report.as_json()["lost"] is None


def test_what_was_found_lost_is_counted_even_if_the_replica_ended_meanwhile(report) -> None:
    report.audit.audited_on.clear()
    report.audit.lost = ["put of k"]
    assert report.as_json()["lost"] == 1


def test_undecided(report) -> None:
    report.judgement = GOOD._replace(undecided=["k"])
    assert _verdict(report, report.judgement) == "undecided"
    assert report.as_json()["linearizable"] is None


def test_failure_outweighs_what_is_undecided(report) -> None:
    report.problems.append("replica n2 ended by itself with 70")
    assert _verdict(report, GOOD._replace(undecided=["k"])) == "failed"


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

"""The picture is well-formed SVG and shows what the report says."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from raftckpt.chaos.audit import Audit
from raftckpt.chaos.linearizability import Judgement
from raftckpt.chaos.nemesis import Mark
from raftckpt.chaos.picture import draw, save
from raftckpt.chaos.run import Plan, Report
from raftckpt.chaos.stage import Sample

SECOND = 1_000_000_000


@pytest.fixture
def report(tmp_path) -> Report:
    report = Report(Plan(seconds=10, seed=1, directory=tmp_path), verdict="ok")
    report.begin, report.end = 5 * SECOND, 15 * SECOND
    report.seconds = 10.0
    report.answers = [(5 * SECOND + at * SECOND // 100, at % 4 != 0) for at in range(1000)]
    report.samples = [
        Sample(5 * SECOND + at * SECOND // 5, node, role, 3)
        for at in range(50)
        for node, role in (("n1", "leader"), ("n2", "follower"), ("n3", "" if at > 9 else "x"))
    ]
    report.marks = [Mark(7 * SECOND, 9 * SECOND, 0, "kill leader")]
    report.faults = {"kill leader": 1}
    report.skipped = {"full disk": "there is no <unshare> command"}
    report.audit = Audit(audited=750, audited_on=["n1", "n2"], digests={"n1": "a", "n2": "a"})
    report.judgement = Judgement([], [], 1000, 0, 0.1)
    return report


def texts(svg: str) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter() if each.text]


def test_it_shows_what_happened(report) -> None:
    said = " ".join(texts(draw(report)))
    for expected in ("raftckpt chaosok", "n1", "n3", "kill leader", "<unshare>", "lost of 750"):
        assert expected in said
    assert "kill leader, 2.0 s" in said


def test_a_run_that_never_began_can_be_drawn(tmp_path) -> None:
    report = Report(Plan(seconds=1, seed=1, directory=Path("x")))
    path = tmp_path / "x.svg"
    save(report, path)
    said = texts(path.read_text("utf-8"))
    assert "not judged" in said
    assert "unknown" in said  # what was not looked for is not "0 lost"


def test_report_as_json(report) -> None:
    said = report.as_json()
    assert said["verdict"] == "ok"
    assert said["linearizable"]
    assert said["lost"] == said["undecided"] == 0
    assert said["replicas_equal"]
    assert said["faults"] == {"kill leader": 1}

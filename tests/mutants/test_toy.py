"""Whole runs on a toy: what is planted is caught or survives as it should, and is known after."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from tests.mutants.rooms import Project
from tests.mutants.runs import Known, fingerprint, run, tasks_of
from tests.mutants.toy import TESTS, toy_project


@pytest.fixture
def toy(tmp_path: Path) -> Project:
    return toy_project(tmp_path / "project")


def results(state: Path) -> list[dict[str, str]]:
    lines = (state / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_and_the_next_one(toy: Project, tmp_path: Path, capsys) -> None:
    state = tmp_path / "state"
    before = fingerprint(toy.root, ["."])
    # Only a part: as if the time had been over.
    tasks = tasks_of(toy, ["toy"])
    seen = [task for task in tasks if "loops" not in task.mutant.scope]
    run(toy, seen[:4], state)
    begun = results(state)
    assert len(begun) == 4
    # All of the rest, the four are not run again.
    run(toy, seen, state, jobs=2)
    assert results(state)[:4] == begun
    assert sorted(entry["key"] for entry in results(state)) == sorted(task.key for task in seen)
    assert "fails without any change, is left out: tests/test_code.py::test_fails_always" in (
        capsys.readouterr().out
    )
    # Nothing but the copies was touched.
    assert fingerprint(toy.root, ["."]) == before
    assert not list(toy.root.rglob("__pycache__"))

    status = {entry["change"].partition("  ->  ")[2]: entry for entry in results(state)}
    assert status["return not (count < LIMIT)"]["status"] == "caught"
    assert status["return not (count < LIMIT)"]["by"].startswith("tests/test_code.py::test_")
    assert status["return count <= LIMIT"]["status"] == "survived"  # the planted hole
    assert status["LIMIT = 4"]["status"] == "survived"
    assert status["return count - 1"]["status"] == "unseen"

    # With a test for the hole the survivors are run again; what is caught is not.
    code = toy.root / "tests" / "test_code.py"
    code.write_text(TESTS + "\ndef test_edge():\n    assert not allowed(LIMIT)\n")
    run(toy, seen, state)
    again = results(state)[len(seen) :]
    assert {entry["status"] for entry in again} == {"caught", "survived", "unseen"}
    assert [e["by"] for e in again if e["status"] == "caught"] == ["tests/test_code.py::test_edge"]


def test_who_is_waiting_comes_first_and_what_is_judged_waits(toy: Project, tmp_path: Path) -> None:
    tasks = [t for t in tasks_of(toy, ["toy"]) if t.mutant.scope != "loops"]
    first, second, *_ = (t for t in tasks[::-1] if t.mutant.scope in ("allowed", "unseen"))
    known = Known(tmp_path / "results.jsonl")
    for task in (first, second):
        known.add({"key": task.key, "status": "survived", "against": "other tests"})
    run(toy, tasks, tmp_path, judged={second.mutant.ident})
    order = [entry["key"] for entry in results(tmp_path)][2:]
    assert order[0] == first.key
    assert sorted(order) == sorted(task.key for task in tasks if task is not second)


@pytest.mark.long
def test_a_run_that_is_interrupted_leaves_nothing(
    toy: Project, tmp_path: Path, monkeypatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    with pytest.raises(KeyboardInterrupt):
        run(toy, tasks_of(toy, ["toy"]), tmp_path, jobs=2, told=interrupt)
    assert results(tmp_path)
    assert list(copies.iterdir()) == []


@pytest.mark.long
def test_what_hangs_dies_or_cannot_be_imported_is_caught(toy: Project, tmp_path: Path) -> None:
    code = toy.root / "toy" / "code.py"
    code.write_text(
        "import os, signal\n"
        "class A: pass\n"
        "A.b = 1\n"
        "c = A.b\n"
        "d = 1\n"
        "if d > 1: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (toy.root / "tests" / "test_code.py").write_text(
        "def test_it():\n    import toy.code\n    assert toy.code.c\n"
    )
    state = tmp_path / "state"
    run(toy, tasks_of(toy, ["toy"]), state)
    status = {e["change"].partition("  ->  ")[2]: (e["status"], e["by"]) for e in results(state)}
    assert status["d = 2"] == ("caught", "the process died")
    assert status["pass"][0] == "caught"
    assert status["A.b = 2"][0] == "survived"

    (toy.root / "tests" / "test_code.py").write_text(
        "from toy.code import c\ndef test_it():\n    assert c\n"
    )
    run(toy, tasks_of(toy, ["toy"]), tmp_path / "other")
    status = {e["change"].partition("  ->  ")[2]: e["status"] for e in results(tmp_path / "other")}
    assert status["pass"] == "broken"


@pytest.mark.long
def test_a_hanging_test_is_a_timeout(toy: Project, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.mutants.runs.START_S", 3.0)
    monkeypatch.setattr("tests.mutants.runs.SLOWER", 0.0)
    monkeypatch.setattr("tests.mutants.runs.LIMIT_S", 30.0)
    tasks = [t for t in tasks_of(toy, ["toy"]) if t.mutant.after == "count += 1"]
    assert len(tasks) == 1
    run(toy, tasks, tmp_path)
    assert [entry["status"] for entry in results(tmp_path)] == ["timeout"]


def test_tests_that_run_something_else_are_refused(toy: Project, tmp_path: Path) -> None:
    (toy.root / "tests" / "test_code.py").write_text("def test_it():\n    pass\n")
    with pytest.raises(SystemExit, match="do not run its copy"):
        run(toy, tasks_of(toy, ["toy"]), tmp_path)


def test_the_time_is_kept(toy: Project, tmp_path: Path) -> None:
    run(toy, tasks_of(toy, ["toy"]), tmp_path, minutes=0)
    assert not (tmp_path / "results.jsonl").exists()

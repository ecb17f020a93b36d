"""Samples, the file of what is known, and what is reported of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.__main__ import main
from tests.mutants.operators import mutants
from tests.mutants.rooms import Project
from tests.mutants.runs import Known, Map, Task, fingerprint, tasks_of
from tests.mutants.toy import toy_project


@pytest.fixture
def toy(tmp_path: Path) -> Project:
    return toy_project(tmp_path / "project")


def arguments(state: Path, *more: str) -> list[str]:
    return ["--state", str(state), "--judged", str(state / "judged.txt"), *more]


def test_a_sample_is_the_same_again_and_the_beginning_of_a_larger_one(toy: Project) -> None:
    small, large = (tasks_of(toy, ["toy"], sample=n, seed=5) for n in (3, 6))
    assert large[:3] == small
    assert tasks_of(toy, ["toy"], seed=6) != tasks_of(toy, ["toy"], seed=5)
    assert sorted(tasks_of(toy, ["toy"], seed=6)) == sorted(tasks_of(toy, ["toy"], seed=5))


def test_rooms_take_turns_until_one_is_over(toy: Project) -> None:
    room = toy.rooms["toy"]
    two = toy._replace(rooms={"large": room, "small": room})
    large, small = (tasks_of(two, [name], seed=5) for name in two.rooms)
    assert tasks_of(two, ["large", "small"], each=2, seed=5) == [
        large[0], small[0], large[1], small[1],
    ]  # fmt: skip
    rest = tasks_of(two, ["large", "small"], each=10**6, seed=5)
    assert sorted(rest) == sorted(large + small)


def test_what_runs_in_processes_of_its_own_has_tests_by_name(toy: Project) -> None:
    mutant = mutants("toy/code.py", b"def f():\n    return 1\n")[0]
    found = {
        "tests": [["tests/test_code.py::test_slow", 2.0], ["tests/test_code.py::test_quick", 1.0]],
        "failed": [],
        "lines": {"toy/code.py": {}},
    }
    room = toy.rooms["toy"]
    assert Map(room, toy.root, found).tests(mutant) == []
    room = room._replace(apart=(("toy/code.py", "tests/test_code.py::test_slow"),))
    assert Map(room, toy.root, found).tests(mutant) == [("tests/test_code.py::test_slow", 2.0)]


def test_a_state_that_was_cut_short_is_read(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text('{"key": "a", "status": "caught"}\n{"key": "b", "sta')
    known = Known(file)
    mutant = mutants("m.py", b"a = 1")[0]
    known.add({"key": "c", "status": "survived", "against": "these tests"})
    tasks = [Task("toy", mutant, key) for key in "abc"]
    for tests, settled in {
        "these tests": [True, False, True],
        "others": [True, False, False],
    }.items():
        assert [Known(file).settled(task, tests) for task in tasks] == settled


def test_reports_and_judgements(toy: Project, tmp_path: Path, capsys) -> None:
    state = tmp_path / "state"
    tasks = {task.mutant.after: task for task in tasks_of(toy, ["toy"])}
    known = Known(state / "results.jsonl")
    tests = fingerprint(toy.root, ["tests/test_code.py"])
    for after, status in {
        "return count <= LIMIT": "survived",
        "LIMIT = 4": "survived",
        "return count - 1": "unseen",
        "while False:": "caught",
    }.items():
        known.add({"key": tasks[after].key, "status": status, "against": tests})

    assert main(toy, arguments(state, "--report")) == 1
    shown = capsys.readouterr().out
    assert "toy/code.py:6 allowed: comparison\n  - return count < LIMIT\n" in shown
    assert "toy/code.py:10 unseen: +/- (no test runs it)" in shown
    assert "while" not in shown
    row = [word for line in shown.splitlines() if line.startswith("toy ") for word in line.split()]
    assert row == ["toy", str(len(tasks_of(toy, ["toy"]))), "1", "0", "0", "2", "1", "0",
                   str(len(tasks_of(toy, ["toy"])) - 4)]  # fmt: skip

    idents = [tasks[after].mutant.ident for after in ("return count <= LIMIT", "LIMIT = 4")]
    (state / "judged.txt").write_text(
        "# what was said\n"
        f"{idents[0]} hole nobody counts to three\n"
        f"{idents[1]} equivalent the same constant on both sides\n"
        f"{tasks['return count - 1'].mutant.ident} hole nothing calls it\n"
        f"{tasks['while False:'].mutant.ident} cost it is only slower\n"
        "0123456789 equivalent of code that is gone\n"
    )
    assert main(toy, arguments(state, "--report")) == 0
    shown = capsys.readouterr().out
    assert "judged: 2 hole, 1 equivalent" in shown or "judged: 1 equivalent, 2 hole" in shown
    assert "return count" not in shown
    assert "judged, but no such mutant: 0123456789 equivalent of code that is gone" in shown
    assert f"judged cost, but caught: {tasks['while False:'].mutant.ident}" in shown

    (state / "judged.txt").write_text(f"{idents[0]} fine\n")
    with pytest.raises(SystemExit, match=r"judged\.txt:1: not"):
        main(toy, arguments(state, "--report"))

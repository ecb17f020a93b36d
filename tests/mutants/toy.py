"""A project of one module and one file of tests, for the tests of the runs."""

from __future__ import annotations

from pathlib import Path

from tests.mutants.rooms import Project, Room

TOY = """
LIMIT = 3


def allowed(count: int) -> bool:
    return count < LIMIT


def unseen(count):
    return count + 1


def loops(count):
    while count > 0:
        count -= 1
"""
TESTS = """
from toy.code import LIMIT, allowed, loops

def test_no():
    assert not allowed(LIMIT + 2)

def test_yes():
    assert allowed(0)

def test_loops():
    loops(3)

def test_fails_always():
    assert False
"""


def toy_project(root: Path) -> Project:
    """Write the project; its test paths are one that is not there, and one that is."""
    (root / "toy").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (root / "toy" / "__init__.py").write_text("")
    (root / "toy" / "code.py").write_text(TOY)
    (root / "tests" / "test_code.py").write_text(TESTS)
    return Project(root, {"toy": Room(("toy",), ("tests/none", "tests/test_code.py"))}, (".",))

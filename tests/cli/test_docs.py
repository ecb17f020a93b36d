"""What the documents say must be so."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest

from raftckpt import errors, limits
from raftckpt.protocol import contract
from tools import changelog, references, site

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_every_reason_is_documented() -> None:
    text = (ROOT / "docs/reference/errors.md").read_text("utf-8").partition("## Reasons")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    assert rows == {reason: said for reason, (_, said) in errors.REASONS.items()}


def test_every_error_class_is_documented() -> None:
    text = (ROOT / "docs/reference/errors.md").read_text("utf-8")
    classes = [
        name
        for name in errors.__all__
        if isinstance(kind := getattr(errors, name), type)
        and issubclass(kind, errors.CheckpointError)
    ]
    assert [name for name in classes if f"`{name}`" not in text and name not in text] == []


@pytest.mark.parametrize("module", [contract, limits], ids=["contract", "limits"])
def test_every_limit_is_documented(module: ModuleType) -> None:
    text = (ROOT / "docs/reference/limits.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", text, re.MULTILINE))
    units = {"KIB", "MIB", "GIB", "MILLISECOND_NS", "SECOND_NS"}
    names = {name for name, value in vars(module).items() if isinstance(value, int)} - units
    assert {name: rows.get(name) for name in names if not rows.get(name)} == {}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_tests_named_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    named = re.findall(r"\[`(\w+)`\]\((tests/[^)]+\.py)\)", text)
    assert len(named) >= 8
    for function, file in named:
        assert f"def {function}(" in (ROOT / file).read_text("utf-8"), (function, file)


# --- navigation and references --------------------------------------------------------------------
def test_every_page_is_in_the_navigation() -> None:
    """A page is reached from docs/index.md by index pages: what the site shows, too."""
    assert site.missing() == []


def test_a_page_that_nobody_names_is_missing(monkeypatch, tmp_path) -> None:
    (tmp_path / "index.md").write_text("# Home\n[part](part/index.md)\n")
    (tmp_path / "part").mkdir()
    (tmp_path / "part/index.md").write_text("# Part\n[named](named.md)\n")
    (tmp_path / "part/named.md").write_text("# Named\n")
    (tmp_path / "part/lost.md").write_text("# Lost\n")
    monkeypatch.setattr(site, "DOCS", tmp_path)
    monkeypatch.setattr(site.navigation, "__defaults__", (tmp_path / "index.md",))
    assert site.missing() == ["part/lost.md"]


def test_references_are_as_they_would_be_made() -> None:
    """Else: python -m tools.references --write."""
    old = [
        name
        for name, make in references.PAGES.items()
        if (references.REFERENCE / name).read_text("utf-8") != make()
    ]
    assert old == []


def test_every_setting_has_its_meaning() -> None:
    assert references.settings().keys() == references.MEANINGS.keys()


def test_names_of_the_walk_exist() -> None:
    named = re.findall(
        r"^\| `([\w/]+\.py)::([\w.]+)`", (ROOT / "docs/inside/walk.md").read_text("utf-8"), re.M
    )
    assert len(named) > 20
    assert [place for place in named if not defines(ROOT / place[0], place[1])] == []


def defines(file: Path, name: str) -> bool:
    """Whether a file defines a function, or a method of a class, of this dotted name."""
    body: list[ast.stmt] = ast.parse(file.read_text("utf-8")).body
    for part in name.split("."):
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = [node for node in body if isinstance(node, kinds) and node.name == part]
        if not found:
            return False
        body = found[0].body
    return True


# --- the changelog --------------------------------------------------------------------------------
def test_fragments_can_be_collected() -> None:
    assert [
        (path.name, why)
        for path in changelog.fragments()
        if (why := changelog.wrong(path.read_text("utf-8")))
    ] == []


def test_fragments_join_the_newest_section() -> None:
    before = "# Changelog\n\n## 0.2.0 (unreleased)\n* one\n\n## 0.1.0\n* old\n"
    after = changelog.collected(before, ["* two\n  more of it\n"])
    assert after == (
        "# Changelog\n\n## 0.2.0 (unreleased)\n* one\n* two\n  more of it\n\n## 0.1.0\n* old\n"
    )
    assert changelog.wrong("* two\n  more of it\n") == ""
    assert all(map(changelog.wrong, ("two\n", "* two\nmore\n", "")))

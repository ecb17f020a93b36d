"""What the documents say must be so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raftckpt import errors

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_every_reason_is_documented() -> None:
    text = (ROOT / "docs/errors.md").read_text("utf-8").partition("## Reasons")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    assert rows == {reason: said for reason, (_, said) in errors.REASONS.items()}


def test_every_error_class_is_documented() -> None:
    text = (ROOT / "docs/errors.md").read_text("utf-8")
    classes = [
        name
        for name in errors.__all__
        if isinstance(kind := getattr(errors, name), type)
        and issubclass(kind, errors.CheckpointError)
    ]
    assert [name for name in classes if f"`{name}`" not in text and name not in text] == []


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

"""What the documents say must be so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from raftckpt import errors
from tests import waiting

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


def test_python_of_the_readme_runs(raftckpt_cluster, capsys) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    endpoints = "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403"
    for block in blocks:
        code = block.replace(endpoints, raftckpt_cluster.endpoints)
        # run() would go on for ever: dispatch until the component was told that it is active
        code = code.replace("component.run()", "until_told(component)")
        names: dict[str, Any] = {"until_told": until_told}
        exec(code, names)
        if "test_my_component_survives" in names:
            names["test_my_component_survives"](raftckpt_cluster)
    assert "go on from {}" in capsys.readouterr().out


def test_python_of_the_page_on_changes_runs(raftckpt_cluster, capsys) -> None:
    text = (ROOT / "docs/guides/changes.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    endpoints = "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403"
    exec("".join(blocks).replace(endpoints, raftckpt_cluster.endpoints), {})
    assert capsys.readouterr().out == "7 [None, 14, None, None]\n"


def until_told(component: Any) -> None:
    waiting.until(lambda: component.dispatch(1.0), "the component is told its role", 30.0)
    component.close()

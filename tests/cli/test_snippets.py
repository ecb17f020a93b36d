"""What README and docs tell a reader to type is run, in the order in which he reads it.

One cluster for all pages, so names must not collide. A block is run here, or it says who runs it,
or why nobody does, in a comment above it:

``<!-- run -->``                      console: typed; what is shown below a command must be seen
``<!-- file: NAME -->``               python: kept as a file
``<!-- run in the background -->``    console: started twice; the first is killed, the other goes on
``<!-- cluster -->``                  console: the cluster that is there already
``<!-- recipe: ... -->``              ``tests/e2e/test_recipes.py``
``<!-- demo -->``, ``<!-- tests -->`` ``tests/cli/test_long.py``, ``.ci/full``
``<!-- not run: WHY -->``
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import click
import pytest
from raftckpt_cli.main import cli

import raftckpt
from raftckpt import ha
from raftckpt.testing import LocalCluster
from tests import waiting
from tests.programs import Program
from tools import references, site

ROOT = Path(__file__).resolve().parents[2]
ENDPOINTS = "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403"
ELSEWHERE = {
    "docs/guides/saf.md": "tests/saf/test_documents.py",
    "docs/operate/when-things-are-lost.md": "tests/e2e/test_when_lost.py",
}
"""Pages that a test of their own runs."""
SAID = ".swap("
"""Of methods whose example is in words: it would need a second program."""
HOSTS = re.compile(r"docs/operate/")
"""Pages whose commands are for several hosts: only their words are checked here."""
BLOCK = re.compile(r"(?:<!-- ([^\n]*?) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
KNOWN = r"run|run in the background|cluster|demo|tests|(file|recipe|not run): .+"


class Block(NamedTuple):
    page: str
    said: str
    language: str
    text: str


def pages() -> list[Path]:
    """Documents in the order of a reader: README, then the navigation."""
    named = [ROOT / "docs" / path for path in site._named(site.navigation())]
    return [ROOT / "README.md", *named]


def blocks(page: Path) -> list[Block]:
    name = str(page.relative_to(ROOT))
    found = BLOCK.findall(page.read_text("utf-8"))
    wanted = [Block(name, *each) for each in found]
    return [block for block in wanted if block.language in ("python", "console", "sh")]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A cluster and a directory; pages are read one after the other."""
    with LocalCluster(3, tmp_path_factory.mktemp("cluster")) as cluster:
        environment = {**os.environ, "RAFTCKPT_ENDPOINTS": cluster.endpoints}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        yield SimpleNamespace(
            cluster=cluster, env=environment, cwd=tmp_path_factory.mktemp("reader"), file=None
        )


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, reader: SimpleNamespace) -> None:
    names: dict[str, Any] = helpers(reader.cluster)
    for block in blocks(page):
        if block.page in ELSEWHERE:
            continue
        assert not block.said or re.fullmatch(KNOWN, block.said), block.said
        if block.said.startswith("file: "):
            reader.file = reader.cwd / block.said.removeprefix("file: ")
            reader.file.write_text(block.text, "utf-8")
        elif block.said == "run in the background":
            goes_on(reader, block.text)
        elif block.said == "run":
            typed(reader, block.text)
        elif not block.said and block.language == "python":
            code = block.text.replace(ENDPOINTS, reader.cluster.endpoints)
            for before, after in INSTEAD.items():
                code = code.replace(before, after)
            with contextlib.chdir(reader.cwd):
                exec(compile(code, block.page, "exec"), names)
            for test in [name for name in names if name.startswith("test_")]:
                names.pop(test)(reader.cluster)
        elif not block.said and not HOSTS.match(block.page):
            raise AssertionError(f"nobody runs this block of {block.page}:\n{block.text}")


@pytest.mark.parametrize(
    "kind",
    [
        *(raftckpt.Service, raftckpt.Checkpoint, raftckpt.View, raftckpt.Transaction),
        *(raftckpt.Tracker, raftckpt.Change, ha.Component, ha.Group),
    ],
)
def test_every_method_has_an_example_that_runs(kind: type) -> None:
    text = "".join(
        block.text
        for page in pages()
        for block in blocks(page)
        if block.language == "python" and not block.said.startswith("not run")
    )
    names = {shown.partition("(")[0] for shown, _ in references._public(kind)}
    assert {name for name in names if not re.search(rf"\.{name}\b", text + SAID)} == set()


# --- commands -------------------------------------------------------------------------------------
def typed(reader: SimpleNamespace, text: str) -> None:
    """Type the commands; what is shown below one must be among what is seen."""
    for command, shown in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
        done = subprocess.run(
            ["bash", "-c", command],
            env=reader.env,
            cwd=reader.cwd,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stderr)
        for line in filter(None, shown.splitlines()):
            assert line in done.stdout, (command, line, done.stdout)


def goes_on(reader: SimpleNamespace, text: str) -> None:
    """Start a counter twice, kill the first: the other one counts on."""
    command = shlex.split(text.removeprefix("$ "))
    number = r"^(\d+)$"
    with Program(*command, env=reader.env, cwd=reader.cwd) as first:
        first.until_said("active")
        with Program(*command, env=reader.env, cwd=reader.cwd) as second:
            second.until_said("standby")
            first.until(lambda: len(first.numbers(number)) >= 5, "it counts")
            first.end()
            second.until(lambda: len(second.numbers(number)) >= 3, "the other one goes on")
            last = first.numbers(number)[-1]
            assert second.numbers(number)[0] in (last + 1, last + 2)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_words_that_exist(page: Path) -> None:
    """Also those that are not run: every verb and option is one of today's."""
    for line in page.read_text("utf-8").splitlines():
        found = re.match(r"(?:    |\$ )\s*(?:\w+=\S+ )*(raftckpt .+)", line)
        if found is not None:
            check_words(re.split(r"[|#;&]|  |>", found[1])[0], line)


def check_words(command: str, line: str) -> None:
    try:
        words = shlex.split(command)[1:]
    except ValueError:  # a quotation that goes on in the next line
        return
    group: click.Command = cli
    options: set[str] = {"--help", "-h", "--version"}
    for word in words:
        if word == "--":
            break
        if word.startswith("-") and len(word) > 1:
            options |= {name for p in group.params for name in (*p.opts, *p.secondary_opts)}
            assert word.partition("=")[0] in options, f"no option {word}: {line}"
        elif isinstance(group, click.Group):
            if not re.fullmatch(r"[a-z-]+", word):
                break  # a placeholder, or several words for one
            command_named = group.get_command(click.Context(group), word)
            assert command_named is not None, f"no command {word}: {line}"
            group = command_named


# --- python ---------------------------------------------------------------------------------------
INSTEAD = {
    "component.run()": "until_told(component)",
    "for change in tracker:  # waits": "for change in some(tracker, checkpoint):  # waits",
    "with LocalCluster(3) as cluster:": "with a_cluster() as cluster:",
}
"""What goes on for ever, or takes what there is already."""


def helpers(cluster: LocalCluster) -> dict[str, Any]:
    """Names that a page takes from its readers' programs."""
    return {
        "__name__": "snippet",
        "until_told": until_told,
        "some": some,
        "a_cluster": lambda: AsItIs(cluster),
        "storage": SimpleNamespace(write=lambda data, fence: None),
        "data": b"",
        "service": None,
        "state": {b"n": b"1"},
        "known": {b"n": b"7"},
        "raftckpt": raftckpt,
    }


class AsItIs:
    """The cluster that is there, in a ``with`` that does not end it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    def __enter__(self) -> LocalCluster:
        self._cluster.start()
        self._cluster.wait_ready()
        return self._cluster

    def __exit__(self, *_: object) -> None:
        self._cluster.wait_ready()


def until_told(component: Any) -> None:
    waiting.until(lambda: component.dispatch(1.0), "the component is told its role")
    component.close()


def some(tracker: Any, checkpoint: Any) -> Iterator[Any]:
    """The image and one change, which somebody makes meanwhile."""
    threading.Thread(target=checkpoint.put, args=("k", b"v")).start()
    for change in tracker:
        yield change
        if not change.is_image:
            return


# --- the test itself ------------------------------------------------------------------------------
def test_wrong_words_are_found() -> None:
    for line in (
        "raftckpt section write --no-such a b",
        "raftckpt secton list",
        "raftckpt run -x",
    ):
        with pytest.raises(AssertionError, match="no "):
            check_words(line, line)
    check_words("raftckpt section write c k v --if-revision 9", "")


def test_a_block_that_nobody_runs_is_found(tmp_path, reader, monkeypatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ raftckpt version\n```\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    with pytest.raises(AssertionError, match="nobody runs"):
        test_page(page, reader)


def test_what_is_shown_must_be_seen(reader) -> None:
    typed(reader, "$ echo one\none\n")
    with pytest.raises(AssertionError):
        typed(reader, "$ echo one\ntwo\n")

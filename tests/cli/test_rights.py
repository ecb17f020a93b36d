"""Every command of docs/operate/rights.md, typed in its order, says what the page says."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from raftckpt_cli import main as cli_main
from raftckpt_cli.output import ExitCode

from raftckpt.testing import LocalCluster

PAGE = Path(__file__).resolve().parents[2] / "docs/operate/rights.md"
TYPED = 10
"""Commands from nothing to two tenants."""


@pytest.fixture(scope="module")
def secured() -> Iterator[LocalCluster]:
    with LocalCluster(1, faults=False, auth=True) as cluster:
        yield cluster


def commands(block: str) -> Iterator[tuple[str, str]]:
    """(command, what it says) of each line behind a prompt."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, _, said = part.partition("\n")
        yield line, said.rstrip("\n")


def test_the_page_is_true(
    raftckpt_cluster: LocalCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(list(commands(blocks[0]))) == TYPED
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAFTCKPT_ENDPOINTS", raftckpt_cluster.endpoints)
    monkeypatch.setenv("RAFTCKPT_TIMEOUT", "60")
    for line, said in [each for block in blocks for each in commands(block)]:
        if line.startswith("export "):
            monkeypatch.setenv(*line.removeprefix("export ").split("=", 1))
            continue
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        code = cli_main.run(sys.argv[1:])
        out, err = capsys.readouterr()
        if not said:
            assert code == 0, (line, err)
            continue
        assert bool(code) == said.startswith("error:"), (line, err)
        pattern = re.escape(said).replace("ID", "[0-9a-f]{12}")
        pattern = pattern.replace("TIME", r"\d{4}-[-0-9:. +]+")
        assert re.fullmatch(pattern, (err if code else out).rstrip("\n")), (line, out, err)
    assert (tmp_path / "shop.token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["principal", "create", "a b"], ExitCode.REFUSED, "letters, digits"),
        (["principal", "create", "x", "--no-token"], ExitCode.USAGE, "--no-token needs"),
        (["principal", "create", "x", "--ends-in", "soon"], ExitCode.USAGE, "is no duration"),
        (["principal", "create", "x", "--token-out", "/no/such/x"], ExitCode.REFUSED, "No such"),
        (["principal", "rotate", "nobody"], ExitCode.NOT_FOUND, "no principal nobody"),
        (["principal", "revoke", "nobody", "--yes"], ExitCode.NOT_FOUND, "no principal"),
        (["principal", "revoke", "nobody"], ExitCode.USAGE, "--yes"),
        (["space", "grant", "none/", "ops"], ExitCode.NOT_FOUND, "no space"),
        (["space", "grant", "", "ops", "fly"], ExitCode.REFUSED, "rights are of read"),
        (["space", "delete", "", "--yes"], ExitCode.REFUSED, "cannot be deleted"),
        (["space", "show", "none/"], ExitCode.NOT_FOUND, "no space"),
        (["space", "create", "x/", "--if-revision", "99"], ExitCode.REFUSED, "changed meanwhile"),
        (["space", "quota", "", "bytes=1", "--if-revision", "99"], ExitCode.REFUSED, "meanwhile"),
        (["space", "quota", "none/", "bytes=1"], ExitCode.NOT_FOUND, "no space"),
        (["space", "quota", "", "sessions=1"], ExitCode.REFUSED, "no quota sessions"),
        (["space", "quota", "", "=1"], ExitCode.REFUSED, "no quota ''"),
        (["space", "quota", "", "bytes=lots"], ExitCode.USAGE, "is no size"),
        (["space", "quota", "", "bytes"], ExitCode.USAGE, "is no size"),
        (["space", "quota", "", "sections=1KiB"], ExitCode.USAGE, "is no quota"),
        (["space", "quota", ""], ExitCode.USAGE, "QUOTA=MOST"),
    ],
)
def test_what_is_wrong_is_said(
    secured: LocalCluster,
    arguments: list[str],
    code: ExitCode,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli_main.run([*arguments, *_of(secured)]) == code
    assert says in capsys.readouterr().err


def _of(cluster: LocalCluster) -> list[str]:
    return ["--endpoints", cluster.endpoints, "--token-file", str(cluster.token_path)]


def test_json_of_the_verbs(secured: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    endpoints = [*_of(secured), "-o", "json"]

    def told(*arguments: str) -> object:
        assert cli_main.run([*arguments, *endpoints]) == 0
        return json.loads(capsys.readouterr().out)

    made = told("principal", "create", "robot")
    assert isinstance(made, dict)
    assert made["token"].startswith(f"rck1.{made['token_id']}.")
    told("space", "create", "robot/")
    told("space", "grant", "robot/", "robot", "read")
    robot = {"prefix": "robot/", "grants": {"robot": ["read"]}, "quotas": {}}
    assert told("space", "show", "robot/") == robot
    told("space", "quota", "robot/", "bytes=1KiB", "sections=5", "checkpoints=none")
    robot["quotas"] = {"sections": {"most": 5, "used": 0}, "bytes": {"most": 1024, "used": 0}}
    assert told("space", "show", "robot/") == robot
    spaces = told("space", "list")
    assert isinstance(spaces, dict)
    assert robot in spaces["spaces"]
    told("space", "revoke", "robot/", "robot", "read")
    told("space", "delete", "robot/", "--yes")
    found = told("auth", "status")
    assert isinstance(found, dict)
    assert told("principal", "revoke", "robot", "--yes") == {"revision": found["revision"] + 1}

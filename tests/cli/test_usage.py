"""Parsing, precedence, exit codes and three-line errors; no cluster needed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from raftckpt_cli import main as cli_main
from raftckpt_cli.options import token_option
from raftckpt_cli.output import ExitCode, exit_code_of, explain, progress

from raftckpt import errors, version
from raftckpt.process.main import main as serve

COMMANDS = [
    ["serve"],
    ["dev"],
    ["demo"],
    ["checkpoint", "list"],
    ["checkpoint", "create"],
    ["checkpoint", "show"],
    ["checkpoint", "unlink"],
    ["checkpoint", "export"],
    ["checkpoint", "import"],
    ["section", "list"],
    ["section", "read"],
    ["section", "write"],
    ["section", "append"],
    ["section", "create"],
    ["section", "delete"],
    ["section", "expire"],
    ["group", "list"],
    ["group", "show"],
    ["group", "lock"],
    ["group", "unlock"],
    ["group", "lock-instantiation"],
    ["group", "swap"],
    ["group", "shutdown"],
    ["group", "delete"],
    ["run"],
    ["lock"],
    ["auth", "enable"],
    ["auth", "disable"],
    ["auth", "status"],
    ["auth", "whoami"],
    ["principal", "create"],
    ["principal", "rotate"],
    ["principal", "revoke"],
    ["principal", "list"],
    ["space", "create"],
    ["space", "grant"],
    ["space", "revoke"],
    ["space", "quota"],
    ["space", "list"],
    ["space", "show"],
    ["space", "delete"],
    ["cluster", "status"],
    ["cluster", "transfer"],
    ["cluster", "drain"],
    ["top"],
    ["cluster", "check"],
    ["cluster", "limits", "show"],
    ["cluster", "limits", "set"],
    ["snapshot", "save"],
    ["snapshot", "inspect"],
    ["snapshot", "restore"],
    ["data", "inspect"],
    ["data", "verify"],
    ["data", "dump"],
    ["data", "recover"],
    ["doctor"],
    ["bench"],
    ["config", "check"],
    ["completion"],
    ["version"],
]


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def three_lines(text: str) -> list[str]:
    lines = text.strip().splitlines()
    assert lines[0].startswith("error: ")
    assert any(line.startswith("  why: ") for line in lines)
    assert lines[-1].startswith("  try: ")
    return lines


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str], capsys) -> None:
    assert cli_main.run([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage: raftckpt " + " ".join(command) in out
    if command not in (["version"],):
        assert "Example" in out


@pytest.mark.parametrize("seconds", [0.2, 1.4])
def test_who_waits_longer_than_a_second_says_for_whom(seconds: float, capsys) -> None:
    there = nobody()
    arguments = ["checkpoint", "list", "--endpoints", there, "--timeout", str(seconds)]
    assert cli_main.run(arguments) == ExitCode.UNAVAILABLE
    said = f"raftckpt: waiting for {there}, at most {seconds:g} s" in capsys.readouterr().err
    assert said == (seconds > 1.0)


def test_top_level_help_names_every_command_and_imports_none(capsys) -> None:
    assert cli_main.run(["--help"]) == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert command[0] in out


def test_import_of_the_command_line_stays_small() -> None:
    code = (
        "import sys, raftckpt_cli.main as m; m.run(['version'])\n"
        "bad = {'asyncio', 'raftckpt.server', 'raftckpt.node.replica', 'pysyncobj', 'uvloop',"
        " 'yaml'}\n"
        "print(sorted(bad & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["checkpoint", "nonsense"],
        ["serve"],
        ["version", "-o", "xml"],
        ["checkpoint", "list", "--timeout", "never"],
        ["checkpoint", "list", "--endpoints", "a:1", "--config", "cluster.yaml"],
        ["demo", "--kill", "everybody"],
        ["completion", "tcsh"],
        ["section", "list", "c", "--endpoints", "a:1", "--limit", "0"],
        ["section", "list", "c", "--endpoints", "a:1", "--hex", "--after", "zz"],
        ["section", "write", "c", "k", "x", "--endpoints", "a:1", "--ttl", "1", "--offset", "0"],
        ["section", "write", "c", "k", "x", "--endpoints", "a:1", "--if-revision", "-1"],
        ["section", "delete", "c", "k", "--endpoints", "a:1", "--if-revision", "0"],
        ["cluster", "add", "n4", "--peer", "a:1", "--client", "a:2", "--token=-abcdefgh"],
        ["cluster", "replace", "n3", "--by", "n4", "--peer", "a:1", "--client", "a:2", "--token=x"],
        ["snapshot", "restore", __file__, "--config", "c", "--node", "n1", "--token", "rejoin"],
        ["data", "recover", "/", "/"],
        ["data", "verify", "/does/not/exist"],
        ["snapshot", "restore", "/does/not/exist", "--config", "c", "--node", "n1"],
        ["section", "append", "c", "k", "@/does/not/exist", "--endpoints", "a:1"],
        ["section", "create", "c", "k", "@/", "--endpoints", "a:1"],
        ["section", "create", "c", "k", "@", "--endpoints", "a:1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_three_lines(arguments: list[str], capsys) -> None:
    assert cli_main.run(arguments) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    three_lines(captured.err)


def test_whatever_is_drawn_for_a_host_that_comes_can_be_typed_there(tmp_path, monkeypatch) -> None:
    """One in 64 began with "-" once, and `serve --join` took it for an option."""
    drawn: list[str] = []
    command = click.command()(token_option("it")(lambda token: drawn.append(token)))
    nothing = ["--config", str(tmp_path / "none.yaml"), "--node", "n4"]
    for first in range(256):
        monkeypatch.setattr(secrets, "token_bytes", lambda n, first=first: bytes([first]) * n)
        command.main([], standalone_mode=False)
        assert serve([*nothing, "--join", drawn[-1]]) == ExitCode.USAGE, "no such file"
    assert len(set(drawn)) == 256


def test_no_endpoints_is_2_and_says_where_they_come_from(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli_main.run(["checkpoint", "list"]) == ExitCode.USAGE
    text = "\n".join(three_lines(capsys.readouterr().err))
    for word in ("--endpoints", "--config", "RAFTCKPT_ENDPOINTS", "cluster.yaml"):
        assert word in text


def test_missing_config_is_2(tmp_path, capsys) -> None:
    arguments = ["cluster", "status", "--config", str(tmp_path / "no.yaml")]
    assert cli_main.run(arguments) == ExitCode.USAGE
    assert "no such file" in capsys.readouterr().err


def test_flag_beats_environment(monkeypatch, capsys) -> None:
    monkeypatch.setenv("RAFTCKPT_CONFIG", "/does/not/exist.yaml")
    arguments = ["cluster", "status", "--endpoints", nobody(), "--timeout", "1"]
    assert cli_main.run(arguments) == ExitCode.UNAVAILABLE
    monkeypatch.setenv("RAFTCKPT_ENDPOINTS", nobody())
    arguments = ["cluster", "status", "--config", "/does/not/exist.yaml"]
    assert cli_main.run(arguments) == ExitCode.USAGE
    capsys.readouterr()


def test_environment_and_working_directory_name_the_cluster(tmp_path, monkeypatch, capsys) -> None:
    address = nobody()
    (tmp_path / "cluster.yaml").write_text(
        f"cluster: x\nreplicas:\n  n1: {{client: '{address}', peer: '{nobody()}'}}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert cli_main.run(["cluster", "status", "-o", "json"]) == ExitCode.UNAVAILABLE
    shown = json.loads(capsys.readouterr().out)
    assert [(r["node"], r["endpoint"], r["reachable"]) for r in shown["replicas"]] == [
        ("n1", address, False)
    ]
    monkeypatch.setenv("RAFTCKPT_ENDPOINTS", other := nobody())
    assert cli_main.run(["cluster", "status", "-o", "json"]) == ExitCode.UNAVAILABLE
    assert json.loads(capsys.readouterr().out)["replicas"][0]["endpoint"] == other


def test_nobody_there_is_4(capsys) -> None:
    arguments = ["checkpoint", "list", "--endpoints", nobody(), "--timeout", "0.5"]
    assert cli_main.run(arguments) == ExitCode.UNAVAILABLE
    three_lines(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotExist("x"), 5),
        (errors.SectionNotExist("x"), 5),
        (errors.NoActiveReplica("x"), 1),
        (errors.Exist("x"), 1),
        (errors.NoSpace("x"), 1),
        (errors.Conflict("x"), 1),
        (errors.InvalidParam("x"), 1),
        (errors.Fenced("x"), 6),
        (errors.Access("x"), 6),
        (errors.Unavailable("x"), 4),
        (errors.TryAgain("x"), 4),
        (errors.Timeout("x"), 3),
        (errors.Timeout("x", definite=True), 4),
        (errors.SessionLost("x", definite=False), 3),
        (errors.Library("x"), 1),
    ],
)
def test_exit_code_of_every_kind_of_error(error: errors.CheckpointError, code: int) -> None:
    assert exit_code_of(error) == code
    told, lines = explain(error)
    assert told == code
    three_lines("\n".join(lines))
    assert ("outcome unknown" in lines[0]) == (not error.definite)


def test_bug_keeps_its_traceback() -> None:
    assert explain(ZeroDivisionError("x")) == (None, [])


def test_version(capsys) -> None:
    assert cli_main.run(["version"]) == 0
    assert version.VERSION in capsys.readouterr().out
    assert cli_main.run(["version", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == version.VERSION


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys) -> None:
    assert cli_main.run(["completion", shell]) == 0
    assert "_RAFTCKPT_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("raftckpt che", "plain,checkpoint"),
        ("raftckpt section app", "plain,append"),
        ("raftckpt section append --if-r", "plain,--if-revision"),
        ("raftckpt section list --pre", "plain,--prefix"),
        ("raftckpt checkpoint list --aft", "plain,--after"),
    ],
)
def test_completion_completes(words: str, completed: str) -> None:
    env = {**os.environ, "_RAFTCKPT_COMPLETE": "bash_complete"}
    env |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    code = "from raftckpt_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30
    )
    assert done.stdout.strip() == completed


def test_config_check(tmp_path, capsys) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("cluster: x\nreplicas:\n  n1: {client: '127.0.0.1:1', peer: '127.0.0.1:2'}\n")
    assert cli_main.run(["config", "check", str(path), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    path.write_text(path.read_text() + "durabilty: fsync\n")
    assert cli_main.run(["config", "check", str(path), "-o", "json"]) == ExitCode.USAGE
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"] is False
    assert shown["problems"][0]["line"] == 4
    assert cli_main.run(["config", "check", str(path)]) == ExitCode.USAGE
    assert f"{path}:4: unknown key durabilty" in capsys.readouterr().err


def test_the_shipped_configuration_is_valid(capsys) -> None:
    assert cli_main.run(["config", "check", "cluster.yaml"]) == 0
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_130(tmp_path) -> None:
    # A port that accepts and never answers keeps the command waiting.
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        command = ["checkpoint", "list", "--endpoints", address, "--timeout", "60"]
        code = "from raftckpt_cli.main import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *command], stderr=subprocess.PIPE, text=True
        )
        server.settimeout(20)
        connection, _ = server.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in told


@pytest.mark.parametrize("arguments", [["--help"], ["config", "check", "cluster.yaml"]])
def test_a_reader_that_left_is_a_good_end(arguments) -> None:
    """``raftckpt ... | head -1`` is no error, and nobody is told of a broken pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "raftckpt_cli.main", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=root,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("unit", "total", "shown"),
    [
        ("MiB", 0, "reading: 3 MiB, "),
        ("MiB", 8 << 20, "reading: 3 of 8 MiB, "),
        ("sections", 0, "reading: 3145728 sections, "),
    ],
)
def test_progress_is_told_on_a_terminal_only(monkeypatch, capsys, unit, total, shown) -> None:
    monkeypatch.setattr("raftckpt_cli.output._SHOW_EVERY_S", 0.0)
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        with progress("reading", total, unit) as tell:
            time.sleep(0.001)
            tell(3 << 20)
        told = capsys.readouterr().err
        assert (shown in told) is terminal
        assert bool(told) is terminal

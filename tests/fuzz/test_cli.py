"""The command line given anything: an exit code of the table and three lines, never a traceback."""

from __future__ import annotations

import io
import os
import random
import socket
import subprocess
import sys

import pytest
from raftckpt_cli import main as cli_main

from tests.fuzz.profile import seeds

VERBS = [
    ["checkpoint", "list"], ["checkpoint", "create"], ["checkpoint", "show"],
    ["checkpoint", "unlink"], ["section", "list"], ["section", "read"], ["section", "write"],
    ["section", "create"], ["section", "delete"], ["section", "expire"], ["track"],
    ["group", "list"], ["group", "show"], ["group", "lock"], ["group", "swap"],
    ["cluster", "status"], ["cluster", "transfer"], ["cluster", "check"], ["config", "check"],
    ["config"], ["completion"], ["version"], ["checkpoint"], ["section"], ["cluster"], [],
    ["no-such-verb"], ["serve", "--config", "missing.yaml"], ["bench", "--endpoints", "x"],
]  # fmt: skip
WORDS = [
    "", "-", "--", "---", "x", "csa103", "1", "-1", "0", "1e999", "nan", "inf", "-inf", "9" * 400,
    "0x10", "\u00fc\u202e\U0001f600", "a" * 5000, "a\nb", "%s%n", "$(true)",
    "../..", "/", "~", "[::1]:1", "127.0.0.1:0", "127.0.0.1:99999", "localhost", ":", ",", "@file",
    "\x1b[0m", "127.0.0.1:" + "9" * 5000, "2026-13-45", "2026-01-01T00:00:00", "99999999999-01-01",
]  # fmt: skip
OPTIONS = [
    "--endpoints", "--config", "--timeout", "-o", "--output", "--token-file", "--ca", "--cert",
    "--key", "--retention", "--update", "--max-sections", "--max-section-size", "--size",
    "--collocated", "--offset", "--ttl", "--at", "--hex", "--base64", "--yes", "--dry-run",
    "--local", "--from", "--help", "--no-such-option", "--limit", "--node", "--prefix",
]  # fmt: skip


@pytest.fixture(scope="module")
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def arguments(rng: random.Random, nobody: str) -> list[str]:
    words = [*rng.choice(VERBS)]
    if words and words[0] != "config" and rng.random() < 0.7:
        words += ["--endpoints", nobody, "--timeout", "0.02"]
    for _ in range(rng.randrange(6)):
        if rng.random() < 0.4:
            words.append(rng.choice(OPTIONS))
        words.append(rng.choice(WORDS))
    return words


def judge(code: int, error: str, words: list[str]) -> None:
    assert code in (0, 1, 2, 4, 5), (code, words, error)
    assert "Traceback" not in error
    if code:
        lines = error.strip().splitlines()
        assert lines, words
        assert len(lines) >= 2 or "Usage" in error or "; fix: " in error, (words, error)


def test_any_arguments(
    nobody: str, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("RAFTCKPT_")]:
        if name != "RAFTCKPT_FUZZ_EXAMPLES":
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    codes = set()
    for rng in seeds(250):
        words = arguments(rng, nobody)
        code = cli_main.run(words)  # what is no error of the user's is raised
        judge(code, capsys.readouterr().err, words)
        codes.add(code)
    assert {0, 2, 4} <= codes


def test_any_environment(
    nobody: str, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["ENDPOINTS", "CONFIG", "TIMEOUT", "OUTPUT", "TOKEN_FILE", "CA"]
    for rng in seeds(60):
        with monkeypatch.context() as patch:
            for name in rng.sample(names, rng.randint(1, 3)):
                word = rng.choice(WORDS).replace("\0", "")
                patch.setenv(f"RAFTCKPT_{name}", word)
            if rng.random() < 0.6:
                patch.setenv("RAFTCKPT_ENDPOINTS", nobody)
                patch.setenv("RAFTCKPT_TIMEOUT", "0.02")
            words = rng.choice(
                [["checkpoint", "list"], ["cluster", "status"], ["section", "list", "c"]]
            )
            judge(cli_main.run(words), capsys.readouterr().err, words)


@pytest.mark.parametrize("encoding", ["C", "C.UTF-8", "POSIX"])
def test_bytes_that_are_no_text(encoding: str, nobody: str) -> None:
    """As a process: arguments and environment are bytes there, and output has an encoding."""
    for words in ([b"checkpoint", b"show", b"\xff\xfe"], [b"section", b"read", b"c\xc3", b"\x80"],
                  [b"\xff"], [b"checkpoint", b"create", "ü".encode("latin-1")]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "raftckpt_cli.main", *words],
            env={
                **os.environ,
                "LC_ALL": encoding,
                "PYTHONCOERCECLOCALE": "0",
                "PYTHONUTF8": "0",
                "RAFTCKPT_ENDPOINTS": nobody,
                "RAFTCKPT_TIMEOUT": "0.02",
            },
            capture_output=True,
            timeout=60,
        )
        judge(done.returncode, done.stderr.decode("utf-8", "replace"), [repr(words)])

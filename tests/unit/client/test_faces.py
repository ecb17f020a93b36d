"""The two faces have the same names, and the interface promised has them all."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import raftckpt
from raftckpt.client import _unasync, aio, sync

CLIENT = Path(_unasync.__file__).parent

SERVICE = [
    "open",
    "unlink",
    "checkpoints",
    "cluster",
    "close",
    "transfer_leadership",
    "check",
    "snapshot",
    "track",
]
CHECKPOINT = [
    *("put", "get", "exists", "count", "ids", "create", "overwrite", "write", "write_many"),
    *("read", "read_many", "read_versioned", "read_all", "delete", "set_expiration", "sections"),
    *(
        "append",
        "synchronize",
        "active_replica_set",
        "status",
        "set_retention",
        "close",
        "unlink",
        "track",
    ),
]


def test_the_blocking_face_is_what_the_generator_makes(tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    made = tmp_path / "sync.py"
    made.write_text(_unasync.blocking_face((CLIENT / "aio.py").read_text("utf-8")), "utf-8")
    root = CLIENT.parent.parent
    for command in (["check", "--quiet", "--select", "I", "--fix"], ["format", "--quiet"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", str(root / "pyproject.toml"),
             str(made)],
            check=True,
            cwd=root,
        )  # fmt: skip
    assert made.read_text("utf-8") == (CLIENT / "sync.py").read_text("utf-8")


@pytest.mark.parametrize(("kind", "names"), [("Service", SERVICE), ("Checkpoint", CHECKPOINT)])
def test_both_faces_offer_the_same(kind: str, names: list[str]) -> None:
    awaitable, blocking = getattr(aio, kind), getattr(sync, kind)
    for name in names:
        one, two = getattr(awaitable, name), getattr(blocking, name)
        assert inspect.iscoroutinefunction(one)
        assert not inspect.iscoroutinefunction(two)
        assert inspect.signature(one) == inspect.signature(two)
        assert inspect.getdoc(one) == inspect.getdoc(two)
        assert "timeout" in inspect.signature(one).parameters


def test_connect_is_the_same_for_both() -> None:
    one = inspect.signature(raftckpt.connect).parameters
    two = inspect.signature(raftckpt.aio.connect).parameters
    assert one == two
    assert list(one) == [
        "endpoints", "timeout", "session_timeout", "disconnect_grace", "node", "tls", "token",
        "name", "session",
    ]  # fmt: skip
    defaults = {name: parameter.default for name, parameter in one.items()}
    assert (defaults["timeout"], defaults["session_timeout"]) == (10.0, 10.0)
    assert defaults["disconnect_grace"] == 2.0

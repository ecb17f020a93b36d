"""The two faces have the same names, and the interface promised has them all."""

from __future__ import annotations

import inspect

import pytest

import raftckpt
from raftckpt.client import aio, sync
from tools import faces

SERVICE = [
    "open",
    "unlink",
    "checkpoints",
    "cluster",
    "members",
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


def test_the_blocking_faces_are_what_the_generator_makes() -> None:
    pytest.importorskip("ruff")
    assert faces.main(["--check"]) == 0


def test_the_generator_refuses_a_rule_that_matches_nothing(monkeypatch, capsys) -> None:
    face = faces.FACES[-1]
    idle = face._replace(rules=(*face.rules, (r"nobody wrote this", "")))
    monkeypatch.setattr(faces, "FACES", (*faces.FACES[:-1], idle))
    assert faces.main(["--check"]) == 1
    assert "nobody wrote this" in capsys.readouterr().err
    monkeypatch.setattr(faces, "FACES", faces.FACES[:1])  # no iterator is left
    assert faces.main(["--check"]) == 1
    assert "Async" in capsys.readouterr().err


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

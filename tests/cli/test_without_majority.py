"""Reading when nobody leads: two of three replicas are gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from raftckpt_cli import main as cli_main
from raftckpt_cli.output import ExitCode

import raftckpt
from raftckpt.testing import LocalCluster
from tests.waiting import until


@pytest.fixture(scope="module")
def lone() -> Iterator[str]:
    """Endpoint of the replica that is left; it has applied all of it."""
    with LocalCluster(3, faults=False) as cluster:
        with raftckpt.connect(cluster.endpoints) as service:
            checkpoint = service.open("kept", create=raftckpt.Attributes())
            checkpoint["a"] = b"alpha"
            checkpoint["b"] = b"beta"
        leader = cluster.leader()
        left = next(node for node in cluster.nodes if node != leader)
        last = cluster.status(leader)["applied"]
        until(lambda: cluster.status(left)["applied"] >= last, "the follower has applied it")
        cluster.kill(*(node for node in cluster.nodes if node != left))
        yield cluster.endpoint(left)


def run(lone: str, capfdbinary, *arguments: str) -> tuple[int, bytes]:
    code = cli_main.run([*arguments, "--endpoints", lone, "--timeout", "3"])
    return code, capfdbinary.readouterr().out


LOCAL = ("--consistency", "local")


def test_everything_can_be_listed_and_read(lone: str, capfdbinary) -> None:
    code, out = run(lone, capfdbinary, "checkpoint", "list", *LOCAL, "-o", "json")
    assert (code, [each["name"] for each in json.loads(out)]) == (0, ["kept"])
    code, out = run(lone, capfdbinary, "checkpoint", "show", "kept", *LOCAL, "-o", "json")
    assert (code, [each["id"] for each in json.loads(out)["sections"]]) == (0, ["a", "b"])
    code, out = run(lone, capfdbinary, "section", "list", "kept", *LOCAL, "--prefix", "b")
    assert code == 0
    assert b"beta" not in out
    assert out.count(b"\n") == 2
    assert run(lone, capfdbinary, "section", "read", "kept", "a", *LOCAL) == (0, b"alpha")
    code, out = run(lone, capfdbinary, "section", "read", "kept", "a", *LOCAL, "-o", "json")
    assert (code, json.loads(out)["revision"]) == (0, 2)


def test_what_is_not_there_is_not_found(lone: str, capfdbinary) -> None:
    arguments = ("section", "read", "missing", "a", *LOCAL)
    assert run(lone, capfdbinary, *arguments)[0] == ExitCode.NOT_FOUND
    arguments = ("section", "read", "kept", "missing", *LOCAL)
    assert run(lone, capfdbinary, *arguments)[0] == ExitCode.NOT_FOUND


def test_without_asking_for_it_nothing_is_read(lone: str, capfdbinary) -> None:
    for arguments in (("checkpoint", "list"), ("section", "read", "kept", "a")):
        code = cli_main.run([*arguments, "--endpoints", lone, "--timeout", "0.5"])
        assert code == ExitCode.UNAVAILABLE
    capfdbinary.readouterr()


def test_a_program_reads_by_name(lone: str) -> None:
    with raftckpt.connect(lone, session=False, timeout=3) as service:
        view = service.view("kept")
        assert view.read_all(consistency="local") == {b"a": b"alpha", b"b": b"beta"}
        assert view.count(consistency="local") == 2
        with pytest.raises(raftckpt.TryAgain):
            view.read("a", timeout=0.3)

    async def alike() -> bytes:
        async with raftckpt.aio.connect(lone, session=False, timeout=3) as service:
            return await service.view("kept").read("b", consistency="local")

    assert asyncio.run(alike()) == b"beta"

"""``raftckpt snapshot`` against real replicas: save, inspect, what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from raftckpt_cli import main as cli_main
from raftckpt_cli.output import ExitCode

import raftckpt
from raftckpt.copies.snapshots import load_snapshot
from raftckpt.storage import Unsupported
from raftckpt.testing import LocalCluster
from tests.golden.product import read_snapshot_file, snapshot_file
from tests.waiting import until


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, faults=False) as cluster:
        yield cluster


@pytest.fixture
def run(cluster, capsys, monkeypatch) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("RAFTCKPT_ENDPOINTS", cluster.endpoints)

    def run_(*arguments: str) -> tuple[int, str]:
        code = cli_main.run(["snapshot", *arguments])
        captured = capsys.readouterr()
        return code, captured.out if code == 0 else captured.err

    return run_


def written(cluster: LocalCluster, name: str, sections: int = 20, size: int = 100_000) -> int:
    with raftckpt.connect(cluster.endpoints) as service:
        checkpoint = service.open(name, create=raftckpt.Attributes())
        for number in range(sections):
            revision = checkpoint.put(str(number), os.urandom(size))
    assert revision is not None
    return revision


def test_what_was_acknowledged_is_in_it_and_it_is_read_from_a_follower(
    run, cluster, tmp_path
) -> None:
    file = str(tmp_path / "one.snapshot")
    revision = written(cluster, "one")
    code, out = run("save", file, "-o", "json")
    assert code == 0, out
    saved: dict[str, Any] = json.loads(out)
    assert saved["revision"] >= revision
    assert saved["node"] != cluster.leader()
    assert os.listdir(tmp_path) == ["one.snapshot"]
    assert Path(file).stat().st_mode & 0o777 == 0o600
    code, out = run("inspect", file, "-o", "json")
    told = json.loads(out)
    assert {key: told[key] for key in saved} == {**saved, "file": file}
    _, machine = load_snapshot(file)
    with raftckpt.connect(cluster.endpoints) as service, service.open("one") as checkpoint:
        held = machine.names["one"].sections
        assert {key: bytes(section[0]) for key, section in held.items()} == checkpoint.read_all()
    code, out = run("save", file)  # replaces it, and says so to people
    assert code == 0
    assert f"revision {saved['revision']} of cluster" in out


def test_both_faces_save_the_same(cluster, tmp_path) -> None:
    written(cluster, "faces", 3)
    sizes: list[int] = []
    with raftckpt.connect(cluster.endpoints, session=False) as service:
        one = service.snapshot(tmp_path / "one", progress=sizes.append)
    assert sizes
    assert sizes == sorted(sizes)
    assert one.size == (tmp_path / "one").stat().st_size

    async def alike() -> raftckpt.SavedSnapshot:
        async with raftckpt.aio.connect(cluster.endpoints, session=False) as service:
            return await service.snapshot(tmp_path / "two", consistency="local")

    two = asyncio.run(alike())
    assert (one.revision, one.founding, one.level) == (two.revision, two.founding, two.level)
    assert load_snapshot(str(tmp_path / "two"))[1].revision == two.revision


def test_a_replica_that_dies_is_replaced_by_another_one(cluster, tmp_path) -> None:
    written(cluster, "dies", 200)
    killed: list[str] = []
    with raftckpt.connect(cluster.endpoints, session=False) as service:

        def kill(size: int) -> None:
            if not killed and size > 5_000_000:
                killed.append(next(n for n in cluster.nodes if n != cluster.leader()))
                # whichever of the two followers is read from, it dies
                killed.append(
                    next(n for n in cluster.nodes if n not in (*killed, cluster.leader()))
                )
                cluster.kill(*killed)
                cluster.start(killed[1])
                cluster.wait_ready(nodes=[killed[1], cluster.leader()])

        saved = service.snapshot(tmp_path / "one", progress=kill)
    cluster.start()
    cluster.wait_ready()
    assert killed
    assert os.listdir(tmp_path) == ["one"]
    assert load_snapshot(str(tmp_path / "one"))[1].revision == saved.revision


def test_who_is_killed_leaves_no_file_of_that_name_and_the_next_one_begins_anew(
    cluster, tmp_path
) -> None:
    written(cluster, "killed", 300)
    code = (
        "import raftckpt, sys, os, signal\n"
        "def die(size):\n"
        "    if size > 3_000_000: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with raftckpt.connect(sys.argv[1], session=False) as service:\n"
        "    service.snapshot(sys.argv[2], progress=die)\n"
    )
    file = str(tmp_path / "one")
    ran = subprocess.run([sys.executable, "-c", code, cluster.endpoints, file], timeout=60)
    assert ran.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["one.part"]
    with raftckpt.connect(cluster.endpoints, session=False) as service:
        service.snapshot(file)
    assert os.listdir(tmp_path) == ["one"]
    load_snapshot(file)


def test_one_replica_is_enough_for_a_local_one(cluster, tmp_path) -> None:
    revision = written(cluster, "local", 2)
    left = next(node for node in cluster.nodes if node != cluster.leader())
    until(lambda: cluster.status(left)["revision"] >= revision, "the follower follows")
    cluster.kill(*(node for node in cluster.nodes if node != left))
    with raftckpt.connect(cluster.endpoint(left), session=False, timeout=2) as service:
        saved = service.snapshot(tmp_path / "one", consistency="local")
        assert (saved.node, saved.revision) == (left, revision)
        with pytest.raises(raftckpt.CheckpointError) as failed:
            service.snapshot(tmp_path / "two", timeout=0.5)
        assert failed.value.definite
    assert os.listdir(tmp_path) == ["one"]
    cluster.start()
    cluster.wait_ready()


def test_what_cannot_be_written_is_refused_and_nothing_is_left(run, cluster, tmp_path) -> None:
    code, said = run("save", str(tmp_path / "missing" / "file"))
    assert code == ExitCode.REFUSED
    assert "No such file or directory" in said
    (tmp_path / "there").mkdir()
    with (
        raftckpt.connect(cluster.endpoints, session=False) as service,
        pytest.raises(IsADirectoryError),
    ):
        service.snapshot(tmp_path / "there")
    assert os.listdir(tmp_path) == ["there"]


def test_damaged_later_and_newer_ones_are_refused_with_a_sentence(run, cluster, tmp_path) -> None:
    file = tmp_path / "one"
    with raftckpt.connect(cluster.endpoints, session=False) as service:
        service.snapshot(file)
    good = file.read_bytes()
    for bad in (good[:-1], good[:100], b"", good[:50] + b"\0" + good[51:]):
        file.write_bytes(bad)
        code, said = run("inspect", str(file))
        assert code == ExitCode.REFUSED
        assert "why:" in said
    head, blocks = read_snapshot_file(good)
    file.write_bytes(snapshot_file([*head[:3], 99, *head[4:]], blocks))
    assert run("inspect", str(file))[0] == 0  # what it is can be told
    with pytest.raises(Unsupported, match="level 99"):
        load_snapshot(str(file))
    file.write_bytes(good[:8] + b"\x02" + good[9:])
    assert "checksum of its head" in run("inspect", str(file))[1]


def test_saved_again_and_again_the_oldest_go_and_status_tells_the_age(
    run, cluster, tmp_path, capsys
) -> None:
    code = "from raftckpt_cli.main import main; main()"
    command = [sys.executable, "-c", code, "snapshot", "save", str(tmp_path), "--every", "1s"]
    command += ["--keep", "2", "--endpoints", cluster.endpoints, "-o", "json"]
    saving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert saving.stdout is not None
        told = [json.loads(saving.stdout.readline()) for _ in range(3)]
    finally:
        saving.send_signal(signal.SIGINT)
        _, said = saving.communicate(timeout=30)
    assert saving.returncode == ExitCode.INTERRUPTED, said
    assert told[0]["removed"] == told[1]["removed"] == []
    assert told[2]["removed"] == [told[0]["file"]]
    assert sorted(os.listdir(tmp_path))[-2:][0] >= os.path.basename(told[1]["file"])
    assert cli_main.run(["cluster", "status", "-o", "json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert 0 <= status["copied_s"] < 60
    assert status["copied_revision"] == told[2]["revision"]
    assert cli_main.run(["cluster", "status"]) == 0
    assert "last snapshot saved: " in capsys.readouterr().out


def test_a_period_and_a_directory_must_be_ones(run, tmp_path) -> None:
    for arguments in (["/does/not/exist", "--every", "1h"], [str(tmp_path), "--every", "often"]):
        assert run("save", *arguments)[0] == ExitCode.USAGE
    assert run("save", str(tmp_path / "one"), "--keep", "3")[0] == ExitCode.USAGE
    assert os.listdir(tmp_path) == []


def test_restoring_is_refused_with_a_sentence_and_leaves_nothing(run, cluster, tmp_path) -> None:
    file, config = tmp_path / "one", tmp_path / "cluster.yaml"
    with raftckpt.connect(cluster.endpoints, session=False) as service:
        saved = service.snapshot(file)
    text = cluster.config_path.read_text("utf-8")
    arguments = ("restore", str(file), "--config", str(config), "--node", "n1")

    config.write_text(text, "utf-8")
    code, said = run(*arguments)
    assert code == ExitCode.REFUSED
    assert "answers at" in said

    spare = LocalCluster(3, tmp_path / "spare", faults=False)
    text = spare.config_path.read_text("utf-8")
    spare.stop()
    config.write_text(text, "utf-8")
    code, said = run(*arguments)
    assert code == ExitCode.REFUSED
    assert f"it is of cluster '{saved.cluster}'" in said
    assert run(*arguments[:-1], "n9")[0] == ExitCode.USAGE

    good = file.read_bytes()
    for bad in (good[:-1], good[: len(good) // 2] + b"\xff" + good[len(good) // 2 + 1 :]):
        file.write_bytes(bad)
        assert run(*arguments, "--of", saved.cluster)[0] == ExitCode.REFUSED
    assert sorted(os.listdir(tmp_path)) == ["cluster.yaml", "one", "spare"]

    file.write_bytes(good)
    code, out = run(*arguments, "--of", saved.cluster)
    assert code == 0
    assert out.count("--join ") == 2
    assert sorted(os.listdir(tmp_path)) == ["cluster.yaml", "n1", "one", "spare"]
    code, said = run(*arguments, "--of", saved.cluster)
    assert code == ExitCode.REFUSED
    assert "there is something already" in said

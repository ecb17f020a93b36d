"""Replicas as processes: first starts, lost disks, signals, refusals. Real processes, loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import raftckpt
from raftckpt.errors import CheckpointError
from raftckpt.process.main import EXIT_FAILED, EXIT_NOT_NOW, EXIT_REFUSED
from raftckpt.testing import LocalCluster
from raftckpt.testing.probe import ReplicaProbe
from tests.waiting import PATIENCE, until

COMMAND = [sys.executable, "-m", "raftckpt.process"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(3, tmp_path / "cluster", faults=False)
    yield cluster
    cluster.kill()
    cluster.stop()


def put(cluster: LocalCluster, data: bytes) -> None:
    with raftckpt.connect(cluster.endpoints, timeout=PATIENCE) as service:
        service.open("ckpt", create=raftckpt.Attributes()).put("k", data)


def get(cluster: LocalCluster) -> bytes:
    with raftckpt.connect(cluster.endpoints, timeout=PATIENCE) as service:
        return service.open("ckpt", mode="r").read("k")


def role(cluster: LocalCluster, node: str) -> str | None:
    status = cluster.status(node)
    return None if status is None else str(status["role"])


def until_logged(cluster: LocalCluster, node: str, text: str) -> None:
    until(lambda: text in cluster.log(node), f"{text!r} in {cluster.log(node)}")


def test_start_write_stop_all_start_read(cluster):
    cluster.start()
    put(cluster, b"one")
    for node in cluster.nodes:
        os.kill(cluster.pid(node), signal.SIGTERM)
    assert [cluster.wait_exit(node, PATIENCE) for node in cluster.nodes] == [0, 0, 0]
    cluster.start()
    assert get(cluster) == b"one"
    cluster.kill()
    cluster.start("n1", "n3")
    assert get(cluster) == b"one"


def test_sigterm_hands_leadership_over(cluster):
    cluster.start()
    put(cluster, b"one")
    leader = cluster.leader(PATIENCE)
    assert cluster.terminate(leader, PATIENCE) == 0
    assert "transferred outcome=done" in cluster.log(leader)
    assert get(cluster) == b"one"


def status_of(cluster: LocalCluster, node: str) -> dict[str, Any]:
    return cluster.status(node) or {}


def test_a_first_start_waits_for_every_replica_of_the_file(cluster):
    cluster.start("n1", "n3")
    until_logged(cluster, "n1", "waiting for n2")
    assert not (cluster.node_dir("n1") / "journal").exists()
    cluster.start("n2")
    put(cluster, b"one")
    foundings = {status_of(cluster, node)["founding"] for node in cluster.nodes}
    assert len(foundings) == 1
    assert len(foundings.pop()) == 32
    cluster.kill("n1")
    assert get(cluster) == b"one"


def test_a_lost_disk_is_refused_until_the_operator_says_rejoin(cluster):
    cluster.start()
    put(cluster, b"one")
    lost = status_of(cluster, "n2")["directory"]
    cluster.kill("n2")
    shutil.rmtree(cluster.node_dir("n2"))
    cluster.start("n2")
    assert cluster.wait_exit("n2", PATIENCE) == 1
    assert "founded without this data directory" in cluster.log("n2")
    assert "--rejoin" in cluster.log("n2")
    cluster.restart("n2", rejoin=True, timeout=PATIENCE)
    until(lambda: role(cluster, "n2") in ("follower", "leader"), "n2 votes")
    status = status_of(cluster, "n2")
    members = {m["node"]: m for m in status["members"]}
    assert members["n2"]["directory"] == status["directory"] != lost
    assert members["n2"]["voter"]
    cluster.kill("n1")
    assert get(cluster) == b"one"


def test_the_old_disk_does_not_come_back_after_a_rejoin(cluster, tmp_path):
    cluster.start()
    put(cluster, b"one")
    cluster.kill("n2")
    (cluster.node_dir("n2")).rename(tmp_path / "old")
    cluster.restart("n2", rejoin=True, timeout=PATIENCE)
    until(lambda: role(cluster, "n2") in ("follower", "leader"), "n2 is back")
    cluster.kill("n2")
    shutil.rmtree(cluster.node_dir("n2"))
    (tmp_path / "old").rename(cluster.node_dir("n2"))
    cluster.start("n2")
    assert cluster.wait_exit("n2", PATIENCE) == 0, "a removal is no failure"
    assert "the cluster removed n2" in cluster.log("n2")
    cluster.start("n2")
    assert cluster.wait_exit("n2", PATIENCE) == EXIT_REFUSED
    assert get(cluster) == b"one"


def test_a_lost_disk_waits_while_nobody_can_tell(cluster):
    cluster.start()
    put(cluster, b"one")
    cluster.kill()
    shutil.rmtree(cluster.node_dir("n2"))
    cluster.start("n2")
    until_logged(cluster, "n2", "waiting for n1 and n3")
    cluster.start("n1")
    assert cluster.wait_exit("n2", PATIENCE) == 1
    cluster.start("n3")
    assert get(cluster) == b"one"


def test_a_data_directory_that_was_set_back_stops_and_says_why(cluster, tmp_path):
    cluster.start()
    put(cluster, b"one")
    cluster.kill("n2")
    shutil.copytree(cluster.node_dir("n2"), tmp_path / "copy")
    for _ in range(2):
        cluster.start("n2")
        until(lambda: status_of(cluster, "n2").get("leader"), "n2 follows")
        put(cluster, b"two")
        cluster.kill("n2")
    shutil.rmtree(cluster.node_dir("n2"))
    (tmp_path / "copy").rename(cluster.node_dir("n2"))
    cluster.start("n2")
    assert cluster.wait_exit("n2", PATIENCE) == EXIT_REFUSED
    assert "went back in time" in cluster.log("n2")
    for _ in range(4):  # each start counts: a supervisor must not make it pass for new
        cluster.start("n2")
        assert cluster.wait_exit("n2", PATIENCE) == EXIT_REFUSED
    assert get(cluster) == b"two"


def test_a_list_of_one_is_founded_only_when_told_so(tmp_path):
    cluster = LocalCluster(1, tmp_path, faults=False)
    log = tmp_path / "not_told.log"
    with log.open("wb") as said:
        waiting = subprocess.Popen(
            [*COMMAND, "--config", str(cluster.config_path), "--node", "n1"],
            stdout=said, stderr=said,
        )  # fmt: skip
    try:
        until(lambda: "serve --found" in log.read_text(), "it says what it waits for")
        assert not (cluster.node_dir("n1") / "journal").exists()
    finally:
        waiting.kill()
        waiting.wait()
    try:
        cluster.start()  # with the word
        put(cluster, b"one")
        assert get(cluster) == b"one"
    finally:
        cluster.stop()


def test_kill_during_first_start_wedges_nothing(cluster):
    for round_number in range(3):
        cluster.start()
        time.sleep(0.25 + 0.05 * round_number)  # some way into it, never the same
        cluster.kill()
        cluster.start("n1", "n2")
        time.sleep(0.3)
        cluster.kill("n1", "n2")
    cluster.start()
    put(cluster, b"one")
    assert get(cluster) == b"one"


def test_two_processes_on_one_directory(cluster):
    cluster.start()
    put(cluster, b"one")
    result = subprocess.run(
        [*COMMAND, "--config", str(cluster.config_path), "--node", "n1"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert result.returncode == EXIT_NOT_NOW
    assert "in use" in result.stderr
    assert get(cluster) == b"one"


def test_a_second_process_with_the_same_id_and_an_empty_directory(cluster, tmp_path):
    cluster.start()
    put(cluster, b"one")
    config = yaml.safe_load(cluster.config_path.read_text())
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        client, peer = (f"127.0.0.1:{sock.getsockname()[1]}" for sock in (a, b))
    config["replicas"]["n3"] = {"client": client, "peer": peer}
    twin = tmp_path / "twin.yaml"
    secret = {"peer_secret_file": str(cluster.data_dir / "peer.secret")}
    twin.write_text(yaml.safe_dump({**config, "data_dir": "twin"} | secret))
    process = subprocess.Popen(
        [*COMMAND, "--config", str(twin), "--node", "n3"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = []
        while not any("founded without this data directory" in line for line in lines):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    term = cluster.status("n1")["term"]
    put(cluster, b"two")
    assert cluster.status("n1")["term"] == term


def test_what_a_request_raises_ends_the_process_what_breaks_a_connection_does_not(tmp_path):
    with LocalCluster(1, tmp_path, faults=False, module="tests.unit.process.broken") as cluster:
        host, _, port = cluster.endpoint("n1").rpartition(":")
        for garbage in (b"\xff" * 64, b"\0\0\0\x10" + b"x" * 20):
            with socket.create_connection((host, int(port)), 2.0) as broken:
                broken.sendall(garbage)
                linger = struct.pack("ii", 1, 0)
                broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # a reset
        with ReplicaProbe(cluster.endpoint("n1")) as probe:
            probe.call(1, 0, 0, os.urandom(16), "t", "n1", 10**10, 0)
            attributes = [2, 10**6, 0x7FFF_FFFF_FFFF_FFFF, 1000, 1000, 64]
            handle = probe.call(10, 1, 0, "ckpt", 7, attributes)[0]
            with pytest.raises(CheckpointError):
                probe.call(24, 2, 1, handle, b"k", b"v")
        assert cluster.wait_exit("n1", PATIENCE) == EXIT_FAILED
        assert "LookupError: planted" in cluster.log("n1")
        assert "stopped itself" in cluster.log("n1")


def test_usage_and_configuration_errors(cluster, tmp_path):
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            env={**os.environ, **env},
        )

    assert run("--config", str(cluster.config_path)).returncode == 2
    result = run("--config", str(cluster.config_path), "--node", "n9")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 3
    bad = tmp_path / "bad.yaml"
    text = cluster.config_path.read_text()
    bad.write_text(text + "durabilty: os\n")
    result = run("--config", str(bad), "--node", "n1")
    assert result.returncode == 2
    line = text.count("\n") + 1
    assert f"{bad}:{line}: unknown key durabilty" in result.stderr
    taken = socket.create_server(("127.0.0.1", 0))
    busy = tmp_path / "busy.yaml"
    busy.write_text(
        "cluster: c\nreplicas:\n"
        f'  n1: {{client: "127.0.0.1:{taken.getsockname()[1]}", peer: "127.0.0.1:9"}}\n'
    )
    result = run("--config", str(busy), "--node", "n1", "--found")
    taken.close()
    assert result.returncode == EXIT_NOT_NOW
    assert "starting n1 failed" in result.stderr

"""Garbage on the ports, wrong directories, wrong configuration: refused; nobody else suffers."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys

import pytest
import yaml

import raftckpt
from raftckpt.testing import LocalCluster
from raftckpt.testing.probe import ReplicaProbe
from tests.waiting import until

GARBAGE = [
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00" * 64,
    b"\xff" * 64,
    b"\x80\x04\x95cposix\nsystem\n",
    (1 << 20).to_bytes(4, "big") + b"\x00" * 200,
    random.Random(1).randbytes(100_000),
]


def ended(endpoint: str, data: bytes) -> bool:
    """Send garbage; whether the other side closed the connection."""
    host, _, port = endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass
        except TimeoutError:
            return False
    return True


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: repr(data[:12]))
@pytest.mark.parametrize("port", ["client", "peer"])
def test_garbage_disturbs_nobody(cluster, data: bytes, port: str) -> None:
    pids = [cluster.pid(node) for node in cluster.nodes]
    term = cluster.status(cluster.leader())["term"]
    with raftckpt.connect(cluster.endpoints) as service:
        checkpoint = service.open("garbage", create=raftckpt.Attributes())
        for node in cluster.nodes:
            at = cluster.endpoint(node) if port == "client" else cluster.peer_endpoint(node)
            assert ended(at, data)
        checkpoint.put("k", data[:100])
        assert checkpoint.read("k") == data[:100]
    assert [cluster.pid(node) for node in cluster.nodes] == pids
    assert cluster.status(cluster.leader())["term"] == term


def test_silent_connections_are_closed_and_hold_nobody_up(cluster) -> None:
    host, _, port = cluster.endpoint(cluster.leader()).rpartition(":")
    silent = [socket.create_connection((host, int(port)), 5) for _ in range(50)]
    try:
        with raftckpt.connect(cluster.endpoints) as service:
            service.open("silent", create=raftckpt.Attributes()).put("k", b"v")
        silent[0].settimeout(10)
        assert silent[0].recv(1) == b""
    finally:
        for each in silent:
            each.close()


def test_client_that_does_not_read_costs_bounded_memory(cluster) -> None:
    leader = cluster.leader()
    with raftckpt.connect(cluster.endpoints) as service:
        checkpoint = service.open("deaf", create=raftckpt.Attributes())
        checkpoint.put("big", b"x" * (1 << 20))
        before = cluster.status(leader)["rss_bytes"]
        with ReplicaProbe(cluster.endpoint(leader)) as deaf:
            deaf.socket.settimeout(0.5)
            for _ in range(500):
                try:
                    deaf.send(100, 0, 1, "deaf", [[b"big", 0, None]])
                except raftckpt.Unavailable:
                    break
            checkpoint.put("k", b"others go on")
            assert cluster.status(leader)["rss_bytes"] - before < 200 << 20


def run_replica(config, node: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a replica that is expected to refuse."""
    command = [sys.executable, "-m", "raftckpt.process", "--config", str(config), "--node", node]
    return subprocess.run([*command, *more], capture_output=True, text=True, timeout=20)


def test_second_replica_of_the_same_node_is_refused(cluster) -> None:
    node = cluster.nodes[0]
    second = run_replica(cluster.config_path, node)
    assert second.returncode not in (0, -9)
    assert "Traceback" not in second.stderr
    assert "in use" in second.stderr
    assert str(cluster.pid(node)) in second.stderr
    cluster.wait_ready()


def test_second_replica_of_the_same_node_with_its_own_directory(cluster, tmp_path) -> None:
    node = cluster.nodes[0]
    second = run_replica(cluster.config_path, node, "--data-dir", str(tmp_path))
    assert second.returncode not in (0, -9)
    assert "Traceback" not in second.stderr
    assert cluster.endpoint(node).rpartition(":")[2] in second.stderr
    cluster.wait_ready()


def test_data_directory_of_another_cluster_is_refused(cluster, tmp_path) -> None:
    node = next(n for n in cluster.nodes if n != cluster.leader())
    cluster.terminate(node)
    copy = tmp_path / node
    shutil.copytree(cluster.node_dir(node), copy)
    config = yaml.safe_load(cluster.config_path.read_text())
    config["cluster"] = "another"
    other = tmp_path / "cluster.yaml"
    other.write_text(yaml.safe_dump(config))
    refused = run_replica(other, node, "--data-dir", str(tmp_path))
    assert refused.returncode not in (0, -9)
    assert "Traceback" not in refused.stderr
    assert "another" in refused.stderr
    cluster.restart(node)


def test_data_directory_of_another_node_is_refused(cluster, tmp_path) -> None:
    one, two = cluster.nodes[:2]
    cluster.terminate(one)
    shutil.copytree(cluster.node_dir(one), tmp_path / two)
    refused = run_replica(cluster.config_path, two, "--data-dir", str(tmp_path))
    assert refused.returncode not in (0, -9)
    assert "Traceback" not in refused.stderr
    assert one in refused.stderr
    cluster.restart(one)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.update(durabilty="fsync"), "durabilty"),
        (lambda c: c.update(durability="maybe"), "maybe"),
        (
            lambda c: c["replicas"].update(n1={"client": "nowhere", "peer": "x"}),
            "replicas.n1.client",
        ),
        (lambda c: c["replicas"].update(n1=c["replicas"]["n2"].copy()), "already"),
        (lambda c: c.update(timing={"heartbeat_ms": 500, "election_min_ms": 100}), "election"),
    ],
)
def test_wrong_configuration_is_told_with_its_line(cluster, tmp_path, change, told) -> None:
    config = yaml.safe_load(cluster.config_path.read_text())
    change(config)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    refused = run_replica(path, "n1")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert told in refused.stderr
    assert f"{path}:" in refused.stderr


def test_broken_yaml(tmp_path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("cluster: x\nreplicas: {n1: [\n")
    refused = run_replica(path, "n1")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert "not valid YAML" in refused.stderr


def test_unknown_node(cluster) -> None:
    refused = run_replica(cluster.config_path, "n9")
    assert refused.returncode == 2
    assert "n9" in refused.stderr
    assert "Traceback" not in refused.stderr


def can_mount_tmpfs() -> bool:
    probe = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and not subprocess.run(probe).returncode


@pytest.mark.long
def test_one_small_disk_holds_up_nobody(tmp_path) -> None:
    """Its replica leads no more and lags; with room it catches up. It never ends."""
    if not can_mount_tmpfs():
        pytest.skip("no unprivileged user and mount namespaces on this machine")
    (tmp_path / "n1").mkdir()
    mount = 'mount -t tmpfs -o size=96m tmpfs "$0" && exec "$@"'
    wrap = {"n1": ["unshare", "-Urm", "sh", "-c", mount, str(tmp_path / "n1")]}
    with (
        LocalCluster(3, tmp_path, settings={"snapshot": {"bytes": "32MiB"}}, wrap=wrap) as cluster,
        raftckpt.connect(cluster.endpoints, timeout=60) as service,
    ):
        checkpoint = service.open("full", create=raftckpt.Attributes())
        pid = cluster.pid("n1")
        for number in range(300):
            checkpoint.put(f"k{number}", os.urandom(1 << 19))
        assert "disk_full" in cluster.log("n1")
        assert cluster.leader() in ("n2", "n3")
        larger = f"nsenter -t {pid} -U -m --preserve-credentials mount -o remount,size=1g"
        subprocess.run([*larger.split(), str(tmp_path / "n1")], check=True)

        def caught_up() -> bool:
            found = [cluster.status(node) for node in ("n1", cluster.leader())]
            applied = {status["applied"] if status is not None else None for status in found}
            return len(applied) == 1 and None not in applied

        until(caught_up, "n1 has caught up")
        assert checkpoint.count() == 300
        assert cluster.pid("n1") == pid
        assert "Traceback" not in cluster.log("n1")

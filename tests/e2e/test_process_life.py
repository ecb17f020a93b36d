"""The life of a replica as a process: what it tells its supervisor, how it ends, SIGHUP."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import raftckpt
from raftckpt.process.main import (
    EXIT_CONFIG,
    EXIT_DISK,
    EXIT_NOT_NOW,
    EXIT_REFUSED,
)
from raftckpt.testing import LocalCluster
from tests.authority import Authority
from tests.waiting import PATIENCE, until

UNIT = Path(__file__).parents[2] / "operate/raftckpt.service"


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(1, tmp_path / "cluster", faults=False)
    yield cluster
    cluster.kill()
    cluster.stop()


def serve(cluster: LocalCluster, *prefix: str) -> subprocess.CompletedProcess[str]:
    """Run a replica that ends by itself."""
    command = [*prefix, sys.executable, "-m", "raftckpt", "serve", "--found"]
    return subprocess.run(
        [*command, "--config", str(cluster.config_path), "--node", "n1"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def edit(cluster: LocalCluster, **changes: Any) -> None:
    text = yaml.safe_load(cluster.config_path.read_text("utf-8")) | changes
    cluster.config_path.write_text(yaml.safe_dump(text), "utf-8")


def edit_replica(cluster: LocalCluster, **changes: str) -> None:
    text = yaml.safe_load(cluster.config_path.read_text("utf-8"))
    edit(cluster, replicas={"n1": text["replicas"]["n1"] | changes})


def hang_up(cluster: LocalCluster, said: str) -> None:
    """Have it read its file again, and wait for what it says to that."""
    before = cluster.log("n1").count(said)
    os.kill(cluster.pid("n1") or 0, signal.SIGHUP)
    until(lambda: cluster.log("n1").count(said) > before, said)


# --- exit codes -----------------------------------------------------------------------------------
def test_what_may_pass_by_itself_is_no_refusal(lone) -> None:
    port = int(lone.endpoint("n1").rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        done = serve(lone)
        assert (done.returncode, "cannot listen" in done.stderr) == (EXIT_NOT_NOW, True)
    edit(lone, insecure=True)
    right = yaml.safe_load(lone.config_path.read_text("utf-8"))["replicas"]["n1"]["peer"]
    for host, said in (("no-such-name.invalid", "resolved"), ("192.0.2.7", "of this host")):
        edit_replica(lone, peer=f"{host}:7501")
        done = serve(lone)
        assert done.returncode == EXIT_NOT_NOW, done.stderr
        assert said in done.stderr
    edit_replica(lone, peer=right)
    lone.start()
    lone.wait_ready()
    done = serve(lone)
    assert done.returncode == EXIT_NOT_NOW
    assert "in use by pid" in done.stderr


def test_refusals_stay_refusals(lone) -> None:
    lone.start()
    lone.wait_ready()
    lone.kill("n1")
    identity = lone.node_dir("n1") / "identity"
    identity.write_bytes(identity.read_bytes()[:-3] + b"xxx")
    assert serve(lone).returncode == EXIT_REFUSED
    edit(lone, durability="perhaps")
    assert serve(lone).returncode == EXIT_CONFIG


def test_a_disk_that_is_full_at_the_start_may_have_room_later(lone) -> None:
    path = lone.node_dir("n1")
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "raftckpt-test", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems may not be mounted here")
    try:
        done = serve(lone)
        assert done.returncode == EXIT_DISK, done.stderr
        assert "disk space" in done.stderr
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


# --- the supervisor -------------------------------------------------------------------------------
class Supervisor:
    """Takes the datagrams that a replica sends to its service manager."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.settimeout(PATIENCE)
        self.said: list[str] = []

    def hears(self, pattern: str) -> str:
        """The next datagram that begins so; the others are kept in ``said``."""
        while True:
            self.said.append(self.sock.recv(4096).decode())
            if re.match(pattern, self.said[-1]):
                return self.said[-1]


def test_the_service_manager_is_told(tmp_path, monkeypatch) -> None:
    supervisor = Supervisor(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    cluster = LocalCluster(1, tmp_path / "cluster", faults=False)
    try:
        cluster.start()
        supervisor.hears("READY=1")
        assert supervisor.said[0].startswith("STATUS=founding: ")
        assert "WATCHDOG=1" not in supervisor.said
        supervisor.hears("STATUS=n1 leads .ok.")
        for _ in range(5):
            supervisor.hears("WATCHDOG=1")
        os.kill(cluster.pid("n1") or 0, signal.SIGHUP)
        assert re.search(r"MONOTONIC_USEC=\d+$", supervisor.hears("RELOADING=1"))
        supervisor.hears("READY=1")
        cluster.pause("n1")  # one that hangs is not alive
        supervisor.sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            supervisor.hears("never")
        cluster.resume("n1")
        supervisor.sock.settimeout(PATIENCE)
        os.kill(cluster.pid("n1") or 0, signal.SIGTERM)
        supervisor.hears("STOPPING=1")
        assert cluster.wait_exit("n1", PATIENCE) == 0
    finally:
        cluster.kill()
        cluster.stop()
        supervisor.sock.close()


def test_a_reload_before_it_serves_is_not_taken_for_being_ready(tmp_path, monkeypatch) -> None:
    supervisor = Supervisor(tmp_path / "notify")
    cluster = LocalCluster(3, tmp_path / "cluster", faults=False)
    try:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        cluster.start("n1")
        monkeypatch.delenv("NOTIFY_SOCKET")  # of the others
        supervisor.hears("STATUS=founding: ")
        os.kill(cluster.pid("n1") or 0, signal.SIGHUP)
        until(lambda: "reloaded" in cluster.log("n1"), "the file was read again")
        cluster.start()
        supervisor.hears("STATUS=n1 ")
        notices = [said for said in supervisor.said if not said.startswith("STATUS=")]
        assert notices == ["READY=1"], "it is ready once, when it serves"
    finally:
        cluster.stop()
        supervisor.sock.close()


def test_nobody_to_tell_harms_nobody(lone, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    lone.start()
    lone.wait_ready()


def test_the_unit_is_well_formed_and_restarts_what_it_should(tmp_path) -> None:
    text = UNIT.read_text("utf-8")
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    never = {int(code) for code in unit["Service"]["RestartPreventExitStatus"].split()}
    assert never == {EXIT_REFUSED, EXIT_CONFIG}
    assert unit["Service"]["Type"] == "notify"
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    copy = tmp_path / "raftckpt.service"
    copy.write_text(text.replace("/opt/raftckpt/bin/raftckpt", sys.executable), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "raftckpt" in line]
    assert ours == []


# --- at rest --------------------------------------------------------------------------------------
@pytest.mark.parametrize("asked", [False, True], ids=["nobody asks", "after a write and a read"])
def test_a_cluster_at_rest_keeps_its_leader(asked: bool) -> None:
    """Heartbeats go on when nothing else does: no election in two of its time-outs."""
    timing = {"heartbeat_ms": 200, "election_min_ms": 2000, "election_max_ms": 2500}
    with LocalCluster(3, settings={"timing": timing}, faults=False) as cluster:
        if asked:
            with raftckpt.connect(cluster.endpoints) as service:
                checkpoint = service.open("c", create=raftckpt.Attributes())
                checkpoint.put("k", b"v")
                assert checkpoint.read("k") == b"v"
        before = cluster.status(cluster.leader())
        time.sleep(5.5)
        after = cluster.status(cluster.leader())
        assert (after["term"], after["leader"]) == (before["term"], before["leader"])


# --- SIGHUP ---------------------------------------------------------------------------------------
def test_a_hangup_takes_over_what_it_can_and_tells_the_rest(lone) -> None:
    lone.start()
    lone.wait_ready()
    pid = lone.pid("n1")
    timing = {"heartbeat_ms": 100, "election_min_ms": 1000, "election_max_ms": 2000}
    edit(
        lone, log={"level": "debug", "format": "json"}, timing=timing, limits={"connections": 2},
        durability="os",
    )  # fmt: skip
    hang_up(lone, '"event": "reloaded"')
    (line,) = [line for line in lone.log("n1").splitlines() if '"event": "reloaded"' in line]
    told = json.loads(line)
    assert told["taken"] == "timing limits log certificates"
    left = next(line for line in lone.log("n1").splitlines() if "reload_incomplete" in line)
    assert json.loads(left)["restart_for"] == "durability"
    status = lone.status("n1")
    assert status is not None
    assert (status["durability"], status["pid"]) == ("fsync", pid)
    with raftckpt.connect(lone.endpoints) as service:
        service.open("c", create=raftckpt.Attributes()).put("k", b"v")
        port = int(lone.endpoint("n1").rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as first,
            socket.create_connection(("127.0.0.1", port), PATIENCE),
        ):
            assert first.recv(1) == b""  # two are too many now, and it said nothing


def test_a_file_that_is_wrong_changes_nothing(lone) -> None:
    lone.start()
    lone.wait_ready()
    edit(lone, log={"level": "loud"})
    hang_up(lone, "reload_failed")
    assert "log.level must be one of" in lone.log("n1")
    assert "nothing was changed" in lone.log("n1")
    edit(lone, log={"level": "info"})
    hang_up(lone, "reloaded taken=")


def test_a_renewed_certificate_is_shown_after_a_hangup(tmp_path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("replica", "n1", dns=["localhost"])
    cluster = LocalCluster(
        1, tmp_path / "cluster", faults=False, settings={"tls": {"client": files}}
    )
    client = authority.issue("client", "somebody")
    context = ssl.create_default_context(cafile=client["ca"])
    context.load_cert_chain(client["cert"], client["key"])
    port = int(cluster.endpoint("n1").rpartition(":")[2])

    def shown() -> Any:
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as secured,
        ):
            return (secured.getpeercert() or {})["serialNumber"]

    try:
        cluster.start()
        until(lambda: "leader=n1" in cluster.log("n1"), "it leads")
        before = shown()
        authority.issue("replica", "n1", dns=["localhost"])
        assert shown() == before
        hang_up(cluster, "reloaded taken=")
        after = shown()
        assert after != before
        Path(files["cert"]).write_text("no certificate", "utf-8")
        hang_up(cluster, "reload_failed")
        assert shown() == after
    finally:
        cluster.kill()
        cluster.stop()


def test_it_listens_elsewhere_than_where_it_is_reached(lone) -> None:
    edit(lone, insecure=True)
    edit_replica(lone, bind="0.0.0.0")
    lone.start()
    lone.wait_ready()
    port = int(lone.endpoint("n1").rpartition(":")[2])
    for host in ("127.0.0.1", "127.0.0.2"):
        with raftckpt.connect(f"{host}:{port}", session=False) as service:
            (replica,) = service.cluster().replicas
            assert replica.detail["members"][0]["client"] == f"127.0.0.1:{port}"

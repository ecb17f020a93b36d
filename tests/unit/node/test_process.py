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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raftckpt.errors import CheckpointError
from raftckpt.node.main import EXIT_FAILED, EXIT_REFUSED
from raftckpt.testing.probe import Probe, replica_status

COMMAND = [sys.executable, "-m", "raftckpt.node"]
BROKEN = """
import sys
from raftckpt.node.early import EarlyAcceptance
from raftckpt.node.main import main

def consider(*arguments):
    raise LookupError("planted")

EarlyAcceptance.consider = consider
sys.exit(main())
"""


class Cluster:
    def __init__(self, root: Path, count: int = 3) -> None:
        self.root = root
        self.nodes = [f"n{i + 1}" for i in range(count)]
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2 * count)]
        ports = [sock.getsockname()[1] for sock in sockets]
        for sock in sockets:
            sock.close()
        self.endpoints = {n: f"127.0.0.1:{ports[2 * i]}" for i, n in enumerate(self.nodes)}
        lines = [f"cluster: t{ports[0]}", "replicas:"]
        for i, node in enumerate(self.nodes):
            peer = f"127.0.0.1:{ports[2 * i + 1]}"
            lines.append(f'  {node}: {{client: "{self.endpoints[node]}", peer: "{peer}"}}')
        self.config = root / "cluster.yaml"
        self.config.write_text("\n".join(lines) + "\n")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *nodes: str, flags: tuple[str, ...] = (), program: str = "") -> None:
        command = [sys.executable, "-c", program] if program else COMMAND
        for node in nodes or self.nodes:
            with (self.root / f"{node}.log").open("ab") as log:
                self.processes[node] = subprocess.Popen(
                    [*command, "--config", str(self.config), "--node", node, *flags],
                    stderr=log,
                    stdout=log,
                )

    def kill(self, *nodes: str) -> None:
        for node in nodes or self.nodes:
            self.processes[node].kill()
            self.processes[node].wait()

    def log(self, node: str) -> str:
        return (self.root / f"{node}.log").read_text()

    def leader(self) -> str | None:
        """Leader that serves, as it says itself."""
        for node in self.nodes:
            status = replica_status(self.endpoints[node], timeout=0.5)
            if status is not None and status["leader"] == node:
                return node
        return None

    def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {n}\n{self.log(n)}" for n in self.processes)
                pytest.fail(f"not in {seconds} s\n{logs}")
            time.sleep(0.01)
        return found

    def until_exit(self, node: str) -> int:
        self.until(lambda: self.processes[node].poll() is not None)
        code: int = self.processes[node].returncode
        return code

    def put(self, text: bytes) -> None:
        """Write through the leader, whoever it is."""

        def attempt() -> bool:
            leader = self.leader()
            if leader is None:
                return False
            try:
                with Probe(self.endpoints[leader]) as probe:
                    probe.call(1, 0, 0, os.urandom(16), "t", "n1", 10**10, 0)
                    attributes = [1, 10**6, 0x7FFF_FFFF_FFFF_FFFF, 1000, 1000, 64]
                    handle = probe.call(10, 1, 0, "ckpt", 7, attributes)[0]
                    probe.call(24, 2, 1, handle, b"k", text)
            except CheckpointError:
                return False
            return True

        self.until(attempt)

    def get(self) -> bytes:
        def attempt() -> bytes | None:
            leader = self.leader()
            if leader is None:
                return None
            try:
                with Probe(self.endpoints[leader]) as probe:
                    data: bytes = probe.call(100, 0, 0, "ckpt", [[b"k", 0, None]])[1][0]
                    return data
            except CheckpointError:
                return None

        found: bytes = self.until(attempt)
        return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    for process in cluster.processes.values():
        if process.poll() is None:
            process.kill()
        process.wait()


def test_start_write_stop_all_start_read(cluster):
    cluster.start()
    cluster.put(b"one")
    for process in cluster.processes.values():
        process.send_signal(signal.SIGTERM)
    assert [cluster.until_exit(node) for node in cluster.nodes] == [0, 0, 0]
    cluster.start()
    assert cluster.get() == b"one"
    cluster.kill()
    cluster.start("n1", "n3")
    assert cluster.get() == b"one"


def test_sigterm_hands_leadership_over(cluster):
    cluster.start()
    cluster.put(b"one")
    leader = cluster.until(cluster.leader)
    cluster.processes[leader].send_signal(signal.SIGTERM)
    assert cluster.until_exit(leader) == 0
    assert "transferred outcome=done" in cluster.log(leader)
    assert cluster.get() == b"one"


def status_of(cluster: Cluster, node: str) -> dict[str, Any]:
    return replica_status(cluster.endpoints[node], timeout=0.5) or {}


def test_a_first_start_waits_for_every_replica_of_the_file(cluster):
    cluster.start("n1", "n3")
    cluster.until(lambda: "waiting for n2" in cluster.log("n1"))
    assert cluster.leader() is None
    assert not (cluster.root / "data" / "n1" / "journal").exists()
    cluster.start("n2")
    cluster.put(b"one")
    foundings = {status_of(cluster, node)["founding"] for node in cluster.nodes}
    assert len(foundings) == 1
    assert len(foundings.pop()) == 32
    cluster.kill("n1")
    assert cluster.get() == b"one"


def test_a_lost_disk_is_refused_until_the_operator_says_rejoin(cluster):
    cluster.start()
    cluster.put(b"one")
    lost = status_of(cluster, "n2")["directory"]
    cluster.kill("n2")
    shutil.rmtree(cluster.root / "data" / "n2")
    cluster.start("n2")
    assert cluster.until_exit("n2") == 1
    assert "founded without this data directory" in cluster.log("n2")
    assert "--rejoin" in cluster.log("n2")
    cluster.start("n2", flags=("--rejoin",))
    cluster.until(lambda: status_of(cluster, "n2").get("role") in ("follower", "leader"))
    status = status_of(cluster, "n2")
    members = {m["node"]: m for m in status["members"]}
    assert members["n2"]["directory"] == status["directory"] != lost
    assert members["n2"]["voter"]
    cluster.kill("n1")
    assert cluster.get() == b"one"


def test_the_old_disk_does_not_come_back_after_a_rejoin(cluster):
    cluster.start()
    cluster.put(b"one")
    cluster.kill("n2")
    (cluster.root / "data" / "n2").rename(cluster.root / "old")
    cluster.start("n2", flags=("--rejoin",))
    cluster.until(lambda: status_of(cluster, "n2").get("role") in ("follower", "leader"))
    cluster.kill("n2")
    shutil.rmtree(cluster.root / "data" / "n2")
    (cluster.root / "old").rename(cluster.root / "data" / "n2")
    cluster.start("n2")
    assert cluster.until_exit("n2") == 0, "a removal is no failure"
    assert "the cluster removed n2" in cluster.log("n2")
    cluster.start("n2")
    assert cluster.until_exit("n2") == EXIT_REFUSED
    assert cluster.get() == b"one"


def test_a_lost_disk_waits_while_nobody_can_tell(cluster):
    cluster.start()
    cluster.put(b"one")
    cluster.kill()
    shutil.rmtree(cluster.root / "data" / "n2")
    cluster.start("n2")
    cluster.until(lambda: "waiting for n1 and n3" in cluster.log("n2"))
    cluster.start("n1")
    assert cluster.until_exit("n2") == 1
    cluster.start("n3")
    assert cluster.get() == b"one"


def test_a_data_directory_that_was_set_back_stops_and_says_why(cluster):
    cluster.start()
    cluster.put(b"one")
    cluster.kill("n2")
    shutil.copytree(cluster.root / "data" / "n2", cluster.root / "copy")
    for _ in range(2):
        cluster.start("n2")
        cluster.until(lambda: status_of(cluster, "n2").get("leader"))
        cluster.put(b"two")
        cluster.kill("n2")
    shutil.rmtree(cluster.root / "data" / "n2")
    (cluster.root / "copy").rename(cluster.root / "data" / "n2")
    cluster.start("n2")
    assert cluster.until_exit("n2") == EXIT_REFUSED
    assert "went back in time" in cluster.log("n2")
    assert cluster.get() == b"two"


def test_a_list_of_one_is_founded_only_when_told_so(tmp_path):
    cluster = Cluster(tmp_path, 1)
    try:
        cluster.start()
        cluster.until(lambda: "serve --found" in cluster.log("n1"))
        assert cluster.leader() is None
        cluster.kill()
        cluster.start(flags=("--found",))
        cluster.put(b"one")
        cluster.kill()
        cluster.start()  # it is founded: the word is not needed any more
        assert cluster.get() == b"one"
    finally:
        cluster.kill()


def test_kill_during_first_start_wedges_nothing(cluster):
    for round_number in range(3):
        cluster.start()
        time.sleep(0.25 + 0.05 * round_number)  # some way into it, never the same
        cluster.kill()
        cluster.start("n1", "n2")
        time.sleep(0.3)
        cluster.kill("n1", "n2")
    cluster.start()
    cluster.put(b"one")
    assert cluster.get() == b"one"


def test_two_processes_on_one_directory(cluster):
    cluster.start()
    cluster.put(b"one")
    result = subprocess.run(
        [*COMMAND, "--config", str(cluster.config), "--node", "n1"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert result.returncode == 1
    assert "in use" in result.stderr
    assert cluster.get() == b"one"


def test_a_second_process_with_the_same_id_and_an_empty_directory(cluster, tmp_path):
    cluster.start()
    cluster.put(b"one")
    twin = tmp_path / "twin.yaml"
    text = cluster.config.read_text()
    own = next(line for line in text.splitlines() if line.startswith("  n3"))
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        ports = a.getsockname()[1], b.getsockname()[1]
    twin.write_text(
        text.replace(
            own,
            f'  n3: {{client: "127.0.0.1:{ports[0]}", peer: "127.0.0.1:{ports[1]}"}}\n'
            f"data_dir: twin",
        )
    )
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
    term = replica_status(cluster.endpoints["n1"], timeout=1)["term"]
    cluster.put(b"two")
    assert replica_status(cluster.endpoints["n1"], timeout=1)["term"] == term


def test_what_a_request_raises_ends_the_process_what_breaks_a_connection_does_not(tmp_path):
    cluster = Cluster(tmp_path, 1)
    try:
        cluster.start(program=BROKEN, flags=("--found",))
        cluster.until(cluster.leader)
        host, _, port = cluster.endpoints["n1"].rpartition(":")
        for garbage in (b"\xff" * 64, b"\0\0\0\x10" + b"x" * 20):
            with socket.create_connection((host, int(port)), 2.0) as broken:
                broken.sendall(garbage)
                linger = struct.pack("ii", 1, 0)
                broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # a reset
        with Probe(cluster.endpoints["n1"]) as probe:
            probe.call(1, 0, 0, os.urandom(16), "t", "n1", 10**10, 0)
            attributes = [2, 10**6, 0x7FFF_FFFF_FFFF_FFFF, 1000, 1000, 64]
            handle = probe.call(10, 1, 0, "ckpt", 7, attributes)[0]
            with pytest.raises(CheckpointError):
                probe.call(24, 2, 1, handle, b"k", b"v")
        assert cluster.until_exit("n1") == EXIT_FAILED
        assert "LookupError: planted" in cluster.log("n1")
        assert "stopped itself" in cluster.log("n1")
    finally:
        cluster.kill()


def test_usage_and_configuration_errors(cluster, tmp_path):
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            env={**os.environ, **env},
        )

    assert run("--config", str(cluster.config)).returncode == 2
    result = run("--config", str(cluster.config), "--node", "n9")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 3
    bad = tmp_path / "bad.yaml"
    bad.write_text(cluster.config.read_text() + "durabilty: os\n")
    result = run("--config", str(bad), "--node", "n1")
    assert result.returncode == 2
    assert f"{bad}:6: unknown key durabilty" in result.stderr
    taken = socket.create_server(("127.0.0.1", 0))
    busy = tmp_path / "busy.yaml"
    busy.write_text(
        "cluster: c\nreplicas:\n"
        f'  n1: {{client: "127.0.0.1:{taken.getsockname()[1]}", peer: "127.0.0.1:9"}}\n'
    )
    result = run("--config", str(busy), "--node", "n1", "--found")
    taken.close()
    assert result.returncode == 1
    assert "starting n1 failed" in result.stderr

"""The public test helper itself: same ports again, no orphans, honest messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import raftckpt
from raftckpt.rights import Rights
from raftckpt.testing import LocalCluster
from raftckpt.testing.local_cluster import ClusterNotReady
from tests.authority import Authority
from tests.waiting import until


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_fixture_gives_a_ready_cluster(raftckpt_cluster) -> None:
    leader = raftckpt_cluster.leader()
    assert leader in raftckpt_cluster.nodes == ["n1", "n2", "n3"]
    assert len(raftckpt_cluster.endpoints.split(",")) == 3


def test_directory_keeps_ports_and_identity(tmp_path) -> None:
    with LocalCluster(1, tmp_path, faults=False) as cluster:
        endpoints = cluster.endpoints
        first = cluster.status("n1")
    with LocalCluster(3, tmp_path, faults=False) as again:
        assert again.nodes == ["n1"]
        assert again.endpoints == endpoints
        second = again.status("n1")
    assert second["cluster"] == first["cluster"]
    assert second["term"] > first["term"]


def test_directory_in_use_is_refused(tmp_path) -> None:
    with (
        LocalCluster(1, tmp_path, faults=False),
        pytest.raises(ClusterNotReady, match=f"in use by pid {os.getpid()}"),
    ):
        LocalCluster(1, tmp_path)


def test_all_processes_end_with_the_block(tmp_path) -> None:
    with LocalCluster(3, tmp_path) as cluster:
        pids = [cluster.pid(node) for node in cluster.nodes]
        cluster.pause("n1")
    assert not [pid for pid in pids if pid is not None and alive(pid)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphans_when_the_parent_is_killed(how) -> None:
    code = (
        "from raftckpt.testing import LocalCluster\n"
        "cluster = LocalCluster(3); cluster.start(); cluster.wait_ready(); cluster.pause('n1')\n"
        "print(*[cluster.pid(node) for node in cluster.nodes], cluster.data_dir, flush=True)\n"
        "input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        *pids, data_dir = parent.stdout.readline().split()
        assert all(alive(int(pid)) for pid in pids)
        parent.send_signal(how)
        parent.wait(10)
        until(lambda: not any(alive(int(pid)) for pid in pids), "children are gone")
    finally:
        parent.kill()
        parent.communicate()
        subprocess.run(["rm", "-rf", data_dir], check=True)


def test_replica_that_cannot_start_is_told_with_its_log(tmp_path) -> None:
    cluster = LocalCluster(1, tmp_path, settings={"durabilty": "fsync"})
    with pytest.raises(ClusterNotReady, match="unknown key durabilty"):
        cluster.__enter__()


def test_replicas_whose_settings_speak_tls_get_ready(tmp_path) -> None:
    """It shows what they show, unless it is told what to show."""
    files = Authority(tmp_path).issue("replica", "n1", addresses=["10.9.9.9"])
    settings = {"tls": {"client": files}}
    with LocalCluster(1, tmp_path / "c", faults=False, settings=settings) as cluster:
        assert cluster.leader() == "n1"
        with cluster.connect() as service:
            service.open("c", create=raftckpt.Attributes())
    with LocalCluster(1, tmp_path / "c", faults=False) as again, again.connect() as service:
        assert [each.name for each in service.checkpoints()] == ["c"]
    other = Authority(tmp_path, "others").issue("other", "x")
    tls = raftckpt.TlsOptions(other["ca"], other["cert"], other["key"])
    cluster = LocalCluster(1, tmp_path / "d", faults=False, settings=settings, tls=tls)
    try:
        with pytest.raises(ClusterNotReady, match=r"asked over TLS, with .*another tls="):
            cluster.start().wait_ready(2.0)
    finally:
        cluster.kill()
        cluster.stop()


def test_all_of_it_over_tls(tmp_path) -> None:
    """Certificates for replicas, spares and clients; its file tells clients what to show."""
    with LocalCluster(1, tmp_path, faults=False, tls=True) as cluster:
        endpoints = cluster.endpoints
    with LocalCluster(1, tmp_path, spares=1, auth=True) as cluster:
        assert cluster.endpoints == endpoints
        assert cluster.add() == "n2"
        for node in cluster.nodes:
            with pytest.raises(raftckpt.Unavailable):
                raftckpt.connect(cluster.endpoint(node), timeout=1.0)
        with raftckpt.connect(str(cluster.config_path)) as service:
            assert Rights(service).whoami().principal == "operator"
            service.open("c", create=raftckpt.Attributes())


def test_faults_need_proxies() -> None:
    with (
        LocalCluster(1, faults=False) as cluster,
        pytest.raises(RuntimeError, match="faults=False"),
    ):
        cluster.block("n1", "n2")

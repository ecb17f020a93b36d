"""Wrong files, wrong disks, copies: refused or waiting, with a sentence; no second history."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import raftckpt
from raftckpt.process.main import EXIT_REFUSED
from raftckpt.testing import LocalCluster
from tests.waiting import PATIENCE, until


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(3, tmp_path / "cluster", faults=False)
    yield cluster
    cluster.kill()
    cluster.stop()


@contextmanager
def file_of(cluster: LocalCluster, nodes: Iterable[str]) -> Iterator[None]:
    """What is started meanwhile reads a file that lists these."""
    right = cluster.config_path
    config = yaml.safe_load(right.read_text("utf-8"))
    config["replicas"] = {node: address_of(cluster, node) for node in nodes}
    cluster.config_path = right.with_name(f"{'-'.join(nodes)}.yaml")
    cluster.config_path.write_text(yaml.safe_dump(config), "utf-8")
    try:
        yield
    finally:
        cluster.config_path = right


def address_of(cluster: LocalCluster, node: str) -> dict[str, str]:
    listed = yaml.safe_load(cluster.config_path.read_text("utf-8"))["replicas"]
    return dict(listed.get(node) or free_addresses())


def free_addresses() -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        client, peer = (f"127.0.0.1:{sock.getsockname()[1]}" for sock in (a, b))
    return {"client": client, "peer": peer}


def serve(path: Path, node: str) -> subprocess.CompletedProcess[str]:
    """Run a replica that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "raftckpt.process", "--config", str(path), "--node", node],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def put(cluster: LocalCluster, data: bytes) -> None:
    with raftckpt.connect(cluster.endpoints, timeout=PATIENCE) as service:
        service.open("ckpt", create=raftckpt.Attributes()).put("k", data)


def get(cluster: LocalCluster) -> bytes:
    with raftckpt.connect(cluster.endpoints, timeout=PATIENCE) as service:
        return service.open("ckpt", mode="r").read("k")


def status_of(cluster: LocalCluster, node: str) -> dict[str, Any]:
    return cluster.status(node) or {}


def until_logged(cluster: LocalCluster, node: str, text: str) -> None:
    until(lambda: text in cluster.log(node), f"{text!r} in {cluster.log(node)}")


def wipe(cluster: LocalCluster, *nodes: str) -> None:
    for node in nodes:
        shutil.rmtree(cluster.node_dir(node))


def test_a_file_that_lists_others_makes_no_other_cluster(cluster):
    """Whatever the file says, the configuration in the data decides who is a majority."""
    cluster.start("n1", "n2", "n3")
    put(cluster, b"one")
    cluster.kill("n1", "n2", "n3")
    with file_of(cluster, ["n3"]):
        cluster.start("n3")
    until(lambda: status_of(cluster, "n3").get("role") == "follower", "n3 is up")
    with pytest.raises(raftckpt.CheckpointError):
        raftckpt.connect(cluster.endpoint("n3"), timeout=2).open("ckpt")
    assert status_of(cluster, "n3")["leader"] is None
    with file_of(cluster, ["n1", "n2"]):
        cluster.start("n1", "n2")  # they have the votes of two of three, and go on
        put(cluster, b"two")
    until(lambda: status_of(cluster, "n3").get("leader"), "n3 follows them")
    cluster.kill("n1")
    assert get(cluster) == b"two"


def test_two_empty_disks_wait_for_the_third(cluster):
    cluster.start("n1", "n2", "n3")
    put(cluster, b"one")
    cluster.kill("n1", "n2", "n3")
    wipe(cluster, "n1", "n2")
    cluster.start("n1", "n2")
    until_logged(cluster, "n1", "waiting for n3")
    assert not (cluster.node_dir("n1") / "journal").exists()
    cluster.start("n3")
    for node in ("n1", "n2"):
        assert cluster.wait_exit(node, PATIENCE) == EXIT_REFUSED
        assert "founded without this data directory" in cluster.log(node)
    assert status_of(cluster, "n3")["leader"] is None


def test_two_empty_disks_with_a_file_of_their_own_are_another_cluster_and_told_so(cluster):
    """Nobody can know better while the third is away; its data stay, and both sides say it."""
    cluster.start("n1", "n2", "n3")
    put(cluster, b"one")
    former = status_of(cluster, "n3")["founding"]
    cluster.kill("n1", "n2", "n3")
    wipe(cluster, "n1", "n2")
    with file_of(cluster, ["n1", "n2"]):
        cluster.start("n1", "n2")
        put(cluster, b"of another cluster")
    cluster.start("n3")
    until_logged(cluster, "n3", "founded twice")
    status = status_of(cluster, "n3")
    assert (status["founding"], status["leader"]) == (former, None)
    until(
        lambda: any("founded twice" in told for told in status_of(cluster, "n1")["alarms"]),
        "n1 says it, too",
    )
    with raftckpt.connect(f"{cluster.endpoint('n1')},{cluster.endpoint('n2')}") as service:
        assert service.open("ckpt", mode="r").read("k") == b"of another cluster"


def test_who_is_only_in_the_file_is_no_member(cluster):
    cluster.start("n1", "n2", "n3")
    put(cluster, b"one")
    with file_of(cluster, ["n1", "n2", "n3", "n4"]):
        cluster.kill("n1")
        cluster.start("n1")
        done = serve(cluster.config_path, "n4")
    assert done.returncode == EXIT_REFUSED
    assert "raftckpt cluster add" in done.stderr
    until(lambda: status_of(cluster, "n1").get("leader"), "n1 is up")
    assert {m["node"] for m in status_of(cluster, "n1")["members"]} == {"n1", "n2", "n3"}
    cluster.kill("n2")
    put(cluster, b"two")


def test_two_files_found_nothing_until_they_are_the_same(cluster):
    cluster.start("n1", "n3")
    with file_of(cluster, ["n1", "n2"]):
        cluster.start("n2")
    until_logged(cluster, "n2", "give all replicas the same file")
    for node in ("n1", "n2", "n3"):
        assert not (cluster.node_dir(node) / "journal").exists()
    cluster.kill("n2")
    cluster.start("n2")
    put(cluster, b"one")
    founded = {status_of(cluster, node)["founding"] for node in ("n1", "n2", "n3")}
    assert len(founded) == 1


def test_of_five_two_were_never_started(tmp_path):
    cluster = LocalCluster(5, tmp_path, faults=False)
    try:
        cluster.start("n1", "n2", "n3")
        until_logged(cluster, "n1", "waiting for n4 and n5")
        assert status_of(cluster, "n1").get("leader") is None
        cluster.start("n4", "n5")
        put(cluster, b"one")
        until(lambda: len(status_of(cluster, "n5").get("members", ())) == 5, "n5 is up")
    finally:
        cluster.kill()
        cluster.stop()


def test_a_copied_directory_on_a_second_host_is_told_and_disturbs_nobody(cluster, tmp_path):
    cluster.start("n1", "n2", "n3")
    put(cluster, b"one")
    cluster.kill("n2")
    shutil.copytree(cluster.node_dir("n2"), tmp_path / "copy" / "n2")
    shutil.copy(cluster.data_dir / "peer.secret", tmp_path / "copy")
    cluster.start("n2")
    until(lambda: status_of(cluster, "n2").get("leader"), "n2 follows")
    config = yaml.safe_load(cluster.config_path.read_text("utf-8"))
    config["replicas"]["n2"] = free_addresses()
    twin = tmp_path / "twin.yaml"
    twin.write_text(yaml.safe_dump({**config, "data_dir": str(tmp_path / "copy")}), "utf-8")
    done = serve(twin, "n2")
    assert done.returncode == EXIT_REFUSED, done.stderr
    assert "another start" in done.stderr or "copy" in done.stderr
    put(cluster, b"two")
    cluster.kill("n1")
    assert get(cluster) == b"two", "n2 itself goes on"


def test_a_name_that_is_used_again_while_one_disk_has_the_former_cluster(cluster):
    cluster.start("n1", "n2", "n3")
    put(cluster, b"one")
    cluster.kill("n1", "n2", "n3")
    wipe(cluster, "n1", "n2")
    cluster.start("n1", "n2", "n3")
    for node in ("n1", "n2"):
        assert cluster.wait_exit(node, PATIENCE) == EXIT_REFUSED
    assert status_of(cluster, "n3")["leader"] is None
    wipe_and_found = ("n1", "n2", "n3")
    cluster.kill("n3")
    wipe(cluster, *wipe_and_found)
    cluster.start(*wipe_and_found)
    put(cluster, b"a new one")

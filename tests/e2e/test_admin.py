"""The admin port of real replicas, and the alarm drill: each condition is made, seen, and goes."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from raftckpt_cli import main as cli_main

import raftckpt
from raftckpt.testing import LocalCluster
from tests.admin import get, metric, with_admin
from tests.chaos.saboteur import VARIABLE
from tests.waiting import until

MIB = 1 << 20
ROOT = Path(__file__).parent.parent.parent


def log_of(cluster: LocalCluster, node: str) -> list[str]:
    return cluster.log(node).splitlines()


def findings(cluster: LocalCluster, capfd: pytest.CaptureFixture[str]) -> str:
    capfd.readouterr()
    cli_main.run(["cluster", "status", "-o", "json", "--endpoints", cluster.endpoints])
    shown = json.loads(capfd.readouterr().out)
    return "\n".join(shown["findings"] + shown["warnings"])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = with_admin(LocalCluster(3, tmp_path / "cluster", faults=False))
    yield cluster
    cluster.kill()
    cluster.stop()


def test_from_the_first_moment_to_the_last(cluster) -> None:
    cluster.start("n1")
    until(lambda: get(cluster, "n1", "/livez") == (200, "ok\n"), "it is alive")
    assert get(cluster, "n1", "/readyz") == (503, "founding\n")
    assert get(cluster, "n1", "/metrics") == (503, "founding\n")
    cluster.start()
    cluster.wait_ready()
    until(lambda: get(cluster, "n1", "/readyz") == (200, "ok\n"), "it is ready")
    with raftckpt.connect(cluster.endpoints) as service:
        checkpoint = service.open("told", create=raftckpt.Attributes())
        for number in range(20):
            checkpoint.put("k", b"%d" % number)
        checkpoint.read("k")
    leader = cluster.leader()
    assert metric(cluster, leader, "raftckpt_commands_total") >= 21
    assert metric(cluster, leader, "raftckpt_commit_seconds_count") >= 21
    assert metric(cluster, leader, "raftckpt_fsync_seconds_count") >= 21
    assert metric(cluster, leader, 'raftckpt_reads_total{consistency="linearizable"}') >= 1
    follower = next(node for node in cluster.nodes if node != leader)
    assert metric(cluster, follower, "raftckpt_commands_total") == 0
    assert metric(cluster, follower, "raftckpt_apply_seconds_count") >= 21
    assert f'data-node="{leader}"' in get(cluster, follower, "/")[1]
    cluster.kill(leader)  # the page of one that lives shows it, as soon as it asks for itself again
    until(lambda: f'data-node="{leader}"' not in get(cluster, follower, "/")[1],
          "the page tells of another leader")  # fmt: skip
    assert ">down<" in get(cluster, follower, "/")[1]
    cluster.kill(*(node for node in cluster.nodes if node != follower))
    lost = {(503, "no-leader\n"), (503, "cut-off\n")}
    until(lambda: get(cluster, follower, "/readyz") in lost, "it says so")
    assert get(cluster, follower, "/livez") == (200, "ok\n")


def test_drill_a_member_that_is_missing(cluster, capfd) -> None:
    cluster.start()
    cluster.wait_ready()
    leader = cluster.leader()
    missing = next(node for node in cluster.nodes if node != leader)
    until(lambda: metric(cluster, leader, "raftckpt_peers_connected") == 2, "all links")
    cluster.kill(missing)
    until(lambda: metric(cluster, leader, "raftckpt_peers_connected") == 1, "it is seen")
    assert f"{missing} does not answer" in findings(cluster, capfd)
    assert ">down<" in get(cluster, leader, "/now")[1]
    assert f"disconnected peer={missing}" in cluster.log(leader)
    # what happened is looked at once a second
    until(lambda: f"{missing} is not connected" in get(cluster, leader, "/now")[1],
          "the page tells that it went")  # fmt: skip
    cluster.start(missing)
    until(lambda: metric(cluster, leader, "raftckpt_peers_connected") == 2, "it is back")
    until(lambda: findings(cluster, capfd) == "", "nothing is wrong")
    page = until(
        lambda: ">down<" not in (found := get(cluster, leader, "/now")[1]) and found,
        "the page shows no link that is down",
    )  # fmt: skip
    assert f"{missing} is not connected" in page  # what happened stays told


@pytest.fixture
def small_disks(cluster) -> Iterator[LocalCluster]:
    """Each replica on a file system of its own."""
    mounted: list[Path] = []
    try:
        for node in cluster.nodes:
            path = cluster.node_dir(node)
            path.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", "size=64m", "raftckpt-test", str(path)]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                pytest.skip("file systems may not be mounted here")
            mounted.append(path)
        yield cluster
    finally:
        cluster.kill()
        for path in mounted:
            subprocess.run(["umount", "-l", str(path)], check=False)


def test_drill_a_full_disk(small_disks, capfd) -> None:
    cluster = small_disks
    cluster.start()
    cluster.wait_ready()
    node = next(node for node in cluster.nodes if node != cluster.leader())
    sample = 'raftckpt_alarms{source="disk"}'
    assert metric(cluster, node, sample) == 0
    filler = cluster.node_dir(node) / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(MIB if file.tell() < 32 * MIB else 4096))
    until(lambda: metric(cluster, node, sample) >= 1, "the alarm is raised")
    assert metric(cluster, node, "raftckpt_disk_full") == 1
    assert metric(cluster, node, "raftckpt_disk_free_bytes") < 16 * MIB
    assert f"{node} says: the disk below" in findings(cluster, capfd)
    assert 'role="alert">the disk below' in get(cluster, node, "/now")[1]
    assert "error n" in (
        said := next(line for line in log_of(cluster, node) if "disk_full" in line)
    )
    assert re.search(r" disk_full free=\d+ needed=\d+$", said)
    # what happened is looked at once a second: an alarm over by then is not among it
    until(lambda: "alarm</span>" in get(cluster, node, "/now")[1], "it has happened")
    filler.unlink()
    until(lambda: metric(cluster, node, sample) == 0, "the alarm is gone")
    assert metric(cluster, node, "raftckpt_disk_full") == 0
    until(lambda: "says" not in findings(cluster, capfd), "status says nothing")
    assert "No alarms." in get(cluster, node, "/now")[1]
    assert any("disk_has_room" in line for line in log_of(cluster, node))
    until(lambda: "over</span>" in get(cluster, node, "/now")[1], "the end is told")


def test_drill_a_state_that_differs(tmp_path, monkeypatch, capfd) -> None:
    """A replica executes something otherwise, which no version should: told, and kept in mind."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # replicas run in directories of their own
    plants = dict.fromkeys(("n1", "n3"), "none, but compares every second")
    wrap = {
        node: ["env", f"{VARIABLE}={plant}"]
        for node, plant in {**plants, "n2": "puts otherwise"}.items()
    }
    bad = LocalCluster(3, tmp_path / "c", faults=False, wrap=wrap, module="tests.chaos.saboteur")
    with with_admin(bad) as cluster:
        sample = 'raftckpt_alarms{source="consensus"}'
        if cluster.leader() == "n2":
            with raftckpt.connect(cluster.endpoints) as service:
                service.transfer_leadership("n1")
        assert metric(cluster, "n2", sample) == 0
        with raftckpt.connect(cluster.endpoints) as service:
            service.open("c", create=raftckpt.Attributes()).put("k", b"v")
        until(lambda: metric(cluster, "n2", sample) == 1, "the alarm is raised")
        assert "the state of n2 at entry" in findings(cluster, capfd)
        assert "the state of n2 at entry" in get(cluster, "n2", "/now")[1]
        assert " state_differs index=" in cluster.log("n2")
        cluster.restart("n2")
        cluster.wait_ready()
        assert metric(cluster, "n2", sample) == 1, "it is kept in mind"
        words = ["cluster", "clear", "n2", "--endpoints", cluster.endpoints]
        assert cli_main.run(words) == 0
        until(lambda: metric(cluster, "n2", sample) == 0, "the alarm is gone")
        until(  # a status is told again for a moment
            lambda: "the state of n2" not in findings(cluster, capfd), "status"
        )


def test_drill_two_foundings(cluster, capfd) -> None:
    """Two lost disks and a file without the third found a second cluster; the third says so."""
    cluster.start()
    cluster.wait_ready()
    cluster.kill("n1", "n2", "n3")
    for node in ("n1", "n2"):
        shutil.rmtree(cluster.node_dir(node))
    right = cluster.config_path.read_text("utf-8")
    wrong = yaml.safe_load(right)
    third = wrong["replicas"].pop("n3")
    cluster.config_path.write_text(yaml.safe_dump(wrong), "utf-8")
    cluster.start("n1", "n2")
    until(lambda: get(cluster, "n1", "/readyz") == (200, "ok\n"), "they serve")
    wrong["replicas"]["n3"] = third
    cluster.config_path.write_text(yaml.safe_dump(wrong), "utf-8")
    cluster.start("n3")
    sample = 'raftckpt_alarms{source="peers"}'
    until(lambda: metric(cluster, "n3", sample) >= 1, "the alarm is raised")
    assert "founded twice" in findings(cluster, capfd)
    assert "founded twice" in get(cluster, "n3", "/now")[1]
    assert "founded twice" in cluster.log("n3")
    cluster.kill("n1", "n2", "n3")
    cluster.start("n3")  # an alarm of peers lasts until they are met no more
    until(lambda: metric(cluster, "n3", sample) == 0, "the alarm is gone")


def test_drill_logs_that_contradict(cluster, tmp_path, capfd) -> None:
    """Old copies of two disks are put back and serve on; the third replica knows what they lost."""

    def write(count: int, *nodes: str) -> None:
        cluster.start(*nodes)
        cluster.wait_ready()
        with raftckpt.connect(cluster.endpoints) as service:
            checkpoint = service.open("c", create=raftckpt.Attributes())
            for number in range(count):
                checkpoint.put("k", b"%d" % number)
        cluster.stop()

    write(1)
    for node in ("n1", "n2"):
        shutil.copytree(cluster.node_dir(node), tmp_path / node)
    write(100)
    for node in ("n1", "n2"):
        shutil.rmtree(cluster.node_dir(node))
        shutil.copytree(tmp_path / node, cluster.node_dir(node))
    for _ in range(4):  # of copies so old, two starts later nobody sees any more that they are
        write(1, "n1", "n2")
    write(200, "n1", "n2")
    cluster.start()
    sample = 'raftckpt_alarms{source="consensus"}'

    def alarmed() -> list[str]:
        return [node for node in cluster.nodes if metric(cluster, node, sample) >= 1]

    # who finds it out is who follows: the terms of the two histories say who that is, unless they
    # are the same; so many starts are more than the elections of the other one
    node = until(alarmed, "the alarm is raised")[0]
    said = "contradicts what is committed here"
    until(lambda: said in findings(cluster, capfd), "status tells it")
    assert said in get(cluster, node, "/now")[1]
    assert " contradiction peer=" in cluster.log(node)
    cluster.restart(node, wait=False)  # it follows none that contradicts it
    until(lambda: node in alarmed(), "it is kept in mind")
    cluster.kill("n3")  # the others agree with each other: what the alarm says is done
    cluster.node_dir("n3").rename(tmp_path / "n3")
    cluster.restart("n3", rejoin=True)
    cluster.wait_ready()
    until(lambda: alarmed() == [], "the alarm is gone")
    until(lambda: said not in findings(cluster, capfd), "status too")

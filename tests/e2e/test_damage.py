"""Lost and damaged data directories: the replica refuses and says what to do; the others go on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import raftckpt
from raftckpt.testing import LocalCluster
from tests.e2e.load import Writers, assert_equal_replicas
from tests.waiting import until

SNAPSHOT_ENTRIES = 200


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, settings={"snapshot": {"entries": SNAPSHOT_ENTRIES}}) as cluster:
        yield cluster


def write_some(cluster: LocalCluster, count: int, name: str = "damage") -> None:
    with raftckpt.connect(cluster.endpoints, timeout=20) as service:
        checkpoint = service.open(name, create=raftckpt.Attributes())
        for number in range(count):
            checkpoint.put(f"k{number % 50}", f"{number} ".encode() * 20)


def follower(cluster: LocalCluster) -> str:
    return next(node for node in cluster.nodes if node != cluster.leader())


def files(cluster: LocalCluster, node: str, what: str) -> list[Path]:
    found = [p for p in cluster.node_dir(node).rglob("*") if p.is_file() and what in p.name]
    return sorted(found, key=lambda path: path.name)


def refuses(cluster: LocalCluster, node: str) -> str:
    """Start a replica that must refuse; what it said."""
    before = len(cluster.log(node))
    cluster.restart(node, wait=False)
    assert cluster.wait_exit(node, 20) not in (0, -9)
    said = cluster.log(node)[before:]
    assert "Traceback" not in said
    return said


def bring_back(cluster: LocalCluster, node: str) -> None:
    """What an operator does with a damaged replica: throw its data away, re-admit it."""
    shutil.rmtree(cluster.node_dir(node), ignore_errors=True)
    cluster.restart(node, rejoin=True)
    until(lambda: (cluster.status(node) or {}).get("role") == "follower", "re-admitted as voter")


def test_lost_directory_is_refused_and_readmitted_by_rejoin_only(cluster) -> None:
    write_some(cluster, 50)
    node = follower(cluster)
    cluster.kill(node)
    shutil.rmtree(cluster.node_dir(node))
    said = refuses(cluster, node)
    assert "--rejoin" in said
    write_some(cluster, 50)
    bring_back(cluster, node)
    assert_equal_replicas(cluster)
    # It is a full voter again: with it, the cluster survives the loss of another one.
    other = next(n for n in cluster.nodes if n not in (node, cluster.leader()))
    cluster.kill(other)
    write_some(cluster, 10)


def test_torn_tail_of_the_journal_is_cut(cluster) -> None:
    write_some(cluster, 50)
    node = follower(cluster)
    cluster.kill(node)
    journal = files(cluster, node, "journal")[-1]
    size = journal.stat().st_size
    content = journal.read_bytes().rstrip(b"\0")
    journal.write_bytes(content[:-3].ljust(size, b"\0"))  # the last record is half written
    cluster.restart(node)
    assert_equal_replicas(cluster)


def test_flipped_byte_in_the_journal_is_refused(cluster) -> None:
    write_some(cluster, 50)
    node = follower(cluster)
    cluster.kill(node)
    journal = files(cluster, node, "journal")[-1]
    content = bytearray(journal.read_bytes())
    used = len(content.rstrip(b"\0"))
    content[4096 + (used - 4096) // 2] ^= 0x10
    journal.write_bytes(content)
    said = refuses(cluster, node)
    assert "damage" in said.lower()
    assert str(journal) in said
    assert "--rejoin" in said
    write_some(cluster, 20)
    bring_back(cluster, node)
    assert_equal_replicas(cluster)


def test_truncated_snapshot_is_refused(cluster) -> None:
    node = follower(cluster)
    write_some(cluster, 3 * SNAPSHOT_ENTRIES)
    until(lambda: (cluster.status(node) or {}).get("snapshot", 0) > 100, "a snapshot")
    cluster.kill(node)
    snapshot = files(cluster, node, "snapshot")[-1]
    snapshot.write_bytes(snapshot.read_bytes()[:-20])
    said = refuses(cluster, node)
    assert str(snapshot) in said
    assert "--rejoin" in said
    write_some(cluster, 20)
    bring_back(cluster, node)
    assert_equal_replicas(cluster)


def test_missing_journal_is_refused(cluster) -> None:
    write_some(cluster, 20)
    node = follower(cluster)
    cluster.kill(node)
    for path in files(cluster, node, "journal"):
        path.unlink()
    assert "--rejoin" in refuses(cluster, node)
    bring_back(cluster, node)
    assert_equal_replicas(cluster)


def test_replica_away_for_many_entries_catches_up_by_snapshot(cluster) -> None:
    node = follower(cluster)
    had = cluster.status(node)["last"]
    cluster.kill(node)
    with Writers(cluster, 8) as writers:
        until(  # what the replica lacks is no longer in the log
            lambda: cluster.status(cluster.leader())["first"] > had + 1, "compaction"
        )
    goal = cluster.status(cluster.leader())["applied"]
    cluster.restart(node)
    until(lambda: (cluster.status(node) or {}).get("applied", 0) >= goal, "caught up")
    assert cluster.status(node)["first"] > had + 1, "it did not get a snapshot"
    writers.verify()
    assert_equal_replicas(cluster)


def test_whole_cluster_restarts_from_snapshots(cluster) -> None:
    write_some(cluster, 3 * SNAPSHOT_ENTRIES, "whole")
    cluster.kill()
    cluster.start()
    cluster.wait_ready()
    with raftckpt.connect(cluster.endpoints, timeout=20) as service:
        checkpoint = service.open("whole", mode="r")
        for number in range(3 * SNAPSHOT_ENTRIES - 50, 3 * SNAPSHOT_ENTRIES):
            assert checkpoint.read(f"k{number % 50}") == f"{number} ".encode() * 20
    assert_equal_replicas(cluster)

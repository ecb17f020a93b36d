"""Replicas on slow disks, under load: nobody is deposed for it, and a faster disk comes to lead."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import raftckpt
from raftckpt.testing import LocalCluster
from tests.waiting import until

pytestmark = pytest.mark.long
NODES = ("n1", "n2", "n3")


class Disks:
    """How long a sync takes on each host."""

    def __init__(self, path: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler (cc) on this machine")
        self.path, self.shim = path, path / "slowsync.so"
        source = Path(__file__).with_name("slowsync.c")
        flags = ["-shared", "-fPIC", "-Wall", "-Werror", "-o", str(self.shim)]
        subprocess.run([compiler, *flags, str(source), "-ldl"], check=True, timeout=60)

    def take(self, **ms: int) -> None:
        for node, each in ms.items():
            self.path.joinpath(f"{node}.ms").write_text(str(each))

    def wrap(self, node: str) -> list[str]:
        slow = f"SLOW_SYNC_MS={self.path / f'{node}.ms'}"
        return ["env", f"LD_PRELOAD={self.shim}", slow]


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path)


@contextmanager
def cluster_on(disks: Disks) -> Iterator[LocalCluster]:
    wrap = {node: disks.wrap(node) for node in NODES}
    with LocalCluster(3, wrap=wrap) as cluster:
        yield cluster


@contextmanager
def written(cluster: LocalCluster) -> Iterator[list[int]]:
    """Four writers, for as long as this lasts; how many writes each has had acknowledged."""
    done, counts, failed = threading.Event(), [0] * 4, []

    def write(number: int) -> None:
        with raftckpt.connect(cluster.endpoints, timeout=30.0) as service:
            checkpoint = service.open("load", create=raftckpt.Attributes())
            while not done.is_set():
                try:
                    checkpoint.put(f"{number}", b"%d" % counts[number])
                except raftckpt.CheckpointError as error:
                    failed.append(error)
                    return
                counts[number] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        done.set()
        for thread in threads:
            thread.join(60.0)
    assert failed == []


def leadership(cluster: LocalCluster) -> tuple[str | None, int]:
    with raftckpt.connect(cluster.endpoints, timeout=30.0) as service:
        status = service.cluster()
        return status.leader, status.term


def test_slow_disks_everywhere_cost_no_election(disks: Disks) -> None:
    with cluster_on(disks) as cluster, written(cluster) as counts:
        until(lambda: all(counts), "everybody has written")
        disks.take(n1=400, n2=400, n3=400)
        time.sleep(5.0)
        former, before = leadership(cluster), list(counts)
        time.sleep(25.0)
        assert leadership(cluster) == former
        assert all(now > then for now, then in zip(counts, before, strict=True))


def test_who_has_a_slow_disk_does_not_lead_for_long(disks: Disks) -> None:
    with cluster_on(disks) as cluster, written(cluster) as counts:
        until(lambda: all(counts), "everybody has written")
        slow = cluster.leader()
        disks.take(**{slow: 300})
        until(lambda: leadership(cluster)[0] not in (slow, None), "another one leads")
        former, before = leadership(cluster), sum(counts)
        time.sleep(20.0)
        assert leadership(cluster) == former
        assert sum(counts) - before > 100, "writes wait for the slow disk all the same"

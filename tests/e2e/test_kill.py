"""kill -9, SIGTERM and long absence with real processes: nothing acknowledged is lost."""

from __future__ import annotations

import signal
import statistics
import threading
import time

import pytest

import raftckpt
from tests.e2e.load import Writers, assert_equal_replicas
from tests.waiting import until


def test_kill_all_at_once_under_load_loses_nothing_acknowledged(cluster) -> None:
    with Writers(cluster) as writers:
        for round_ in range(1, 3):
            until(lambda r=round_: writers.total > 300 * r, "writes")
            cluster.kill()
            cluster.start()
            cluster.wait_ready()
        before = writers.total
        until(lambda: writers.total > before + 100, "writes after the last kill")
    writers.verify()
    assert_equal_replicas(cluster)


def test_kill_leader_under_load_is_invisible_but_for_a_pause(cluster) -> None:
    with Writers(cluster) as writers:
        until(lambda: writers.total > 100, "writes")
        leader = cluster.leader()
        before = writers.total
        cluster.kill(leader)
        until(lambda: writers.total > before + 100, "writes under the new leader")
        assert cluster.leader() != leader
        cluster.restart(leader)
    assert writers.unknown == [[], [], [], []]
    writers.verify()
    assert_equal_replicas(cluster)


def test_sigterm_leaves_cleanly_and_loses_nothing(cluster) -> None:
    with Writers(cluster) as writers:
        until(lambda: writers.total > 100, "writes")
        for node in cluster.nodes:
            before = writers.total
            assert cluster.terminate(node) == 0, cluster.log(node, 20)
            until(lambda b=before: writers.total > b + 20, f"writes without {node}")
            cluster.restart(node)
    assert writers.unknown == [[], [], [], []]
    writers.verify()
    assert_equal_replicas(cluster)


def test_paused_leader_is_replaced_and_comes_back_as_follower(cluster) -> None:
    with Writers(cluster) as writers:
        until(lambda: writers.total > 100, "writes")
        old = cluster.leader()
        before = writers.total
        cluster.pause(old)
        until(lambda: writers.total > before + 100, "writes without the paused leader")
        cluster.resume(old)
        until(lambda: (cluster.status(old) or {}).get("leader") not in (None, old), "follows")
    writers.verify()
    assert_equal_replicas(cluster)


def test_two_of_three_dead_acknowledges_nothing(cluster) -> None:
    with raftckpt.connect(cluster.endpoints, timeout=2) as service:
        checkpoint = service.open("minority", create=raftckpt.Attributes())
        checkpoint.put("k", b"before")
        survivor = cluster.leader()
        others = [node for node in cluster.nodes if node != survivor]
        cluster.kill(*others)
        with pytest.raises((raftckpt.Timeout, raftckpt.TryAgain, raftckpt.Unavailable)) as raised:
            checkpoint.put("k", b"after")
        with pytest.raises((raftckpt.Timeout, raftckpt.TryAgain, raftckpt.Unavailable)):
            checkpoint.read("k")
        cluster.start()
        cluster.wait_ready()
        allowed = [b"before"] if raised.value.definite else [b"before", b"after"]
        assert checkpoint.read("k", timeout=20) in allowed


def test_second_sigterm_is_immediate(cluster) -> None:
    node = cluster.leader()
    others = [other for other in cluster.nodes if other != node]
    cluster.kill(*others)
    cluster._signal(node, signal.SIGTERM)  # it has nobody to hand leadership to
    cluster._signal(node, signal.SIGTERM)
    cluster.wait_exit(node, 5)


def test_write_of_64_mib_delays_nobody(cluster) -> None:
    big = bytes(range(256)) * (64 * 1024 * 1024 // 256)
    waits: list[float] = []
    done = threading.Event()
    with raftckpt.connect(cluster.endpoints, timeout=30) as service:
        small = service.open("small", create=raftckpt.Attributes())

        def write_small() -> None:
            while not done.is_set():
                begin = time.monotonic()
                small.put("k", b"v")
                waits.append(time.monotonic() - begin)

        writer = threading.Thread(target=write_small)
        writer.start()
        try:
            with raftckpt.connect(cluster.endpoints, timeout=60) as other:
                large = other.open("large", create=raftckpt.Attributes(retention=0.0))
                large.put("big", big)
                assert large.read("big") == big
        finally:
            done.set()
            writer.join(30)
    # A write of this size as one entry would hold everybody up for its whole duration.
    assert len(waits) > 20
    assert statistics.median(waits) < 0.25
    assert max(waits) < 3.0

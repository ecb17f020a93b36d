"""Partitions through the proxies: a deposed leader acknowledges nothing, serves nothing stale."""

from __future__ import annotations

import pytest

import raftckpt
from raftckpt.model.types import OpenFlags
from raftckpt.testing.probe import ReplicaProbe
from tests.e2e.load import Writers, assert_equal_replicas
from tests.messages import Tag
from tests.waiting import until

NOT_DONE = (raftckpt.TryAgain, raftckpt.Timeout, raftckpt.Unavailable)


def test_isolated_leader_acknowledges_nothing_and_serves_no_linearizable_read(cluster) -> None:
    with raftckpt.connect(cluster.endpoints) as service:
        checkpoint = service.open("part", create=raftckpt.Attributes())
        checkpoint.put("k", b"old")
    old = cluster.leader()
    rest = [node for node in cluster.nodes if node != old]
    # Raw connections: a client would find the new leader by itself.
    with ReplicaProbe(cluster.endpoint(old), timeout=3) as probe:
        probe.call(Tag.SESSION_OPEN, 0, 0, b"s" * 16, "probe", "here", 10**10, 10**10)
        handle = probe.call(Tag.CHECKPOINT_OPEN, 1, 0, "part", OpenFlags.WRITE, None)[0]
        cluster.partition(old)
        # At once, while it still believes that it leads:
        early = [probe.send(Tag.READ, 0, 0, "part", [[b"k", 0, None]]) for _ in range(3)]
        early.append(probe.send(Tag.SECTION_PUT, 2, 1, handle, b"k", b"never"))
        endpoints = ",".join(cluster.endpoint(node) for node in rest)
        with raftckpt.connect(endpoints, timeout=20) as service:
            service.open("part").put("k", b"new")
        for request in early:
            with pytest.raises(NOT_DONE):
                probe.reply(request)
        with pytest.raises(NOT_DONE):
            probe.call(Tag.READ, 0, 0, "part", [[b"k", 0, None]])
        with pytest.raises(NOT_DONE):
            probe.call(Tag.SECTION_PUT, 2, 1, handle, b"k", b"never")
        # A local read is served, and is old: that is what the caller asked for.
        local = probe.call(Tag.READ, 0, 1, "part", [[b"k", 0, None]])
        assert local[1] == [b"old"]
    cluster.heal()
    with raftckpt.connect(cluster.endpoints) as service:
        assert service.open("part", mode="r").read("k") == b"new"
    assert_equal_replicas(cluster)


def test_majority_goes_on_and_the_rest_catches_up(cluster) -> None:
    with Writers(cluster) as writers:
        until(lambda: writers.total > 100, "writes")
        for _ in range(2):
            cluster.partition(cluster.leader())
            before = writers.total
            until(lambda b=before: writers.total > b + 100, "writes in the majority")
            cluster.heal()
    writers.verify()
    assert_equal_replicas(cluster)


@pytest.mark.parametrize("deaf", [True, False], ids=["leader hears nobody", "leader is not heard"])
def test_one_way_partition_of_the_leader(cluster, deaf: bool) -> None:
    with Writers(cluster) as writers:
        until(lambda: writers.total > 100, "writes")
        old = cluster.leader()
        for node in cluster.nodes:
            if node != old:
                cluster.block(*((node, old) if deaf else (old, node)))
        before = writers.total
        until(lambda: writers.total > before + 100, "writes despite the one-way cut")
        cluster.heal()
    writers.verify()
    assert_equal_replicas(cluster)


def test_resets_and_latency_lose_nothing(cluster) -> None:
    cluster.latency(0.005)
    with Writers(cluster) as writers:
        for number in range(1, 6):
            until(lambda n=number: writers.total > 30 * n, "writes")
            cluster.reset_links()
    cluster.heal()
    writers.verify()
    assert_equal_replicas(cluster)

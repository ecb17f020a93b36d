"""What a client can do to others: real replicas, little room, somebody who goes on working.

The table of docs/inside/attacks.md says what is expected of each.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

import raftckpt
from raftckpt.protocol.frames import MessageStream, pack_messages
from raftckpt.testing import LocalCluster
from raftckpt.testing.probe import ReplicaProbe
from tests.waiting import until

SMALL = {"snapshot": {"entries": 300}}


def address(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host, int(port)


TURN_CPU_MS_MAX = 250
"""Five times what is promised: processor time grows, too, where many share caches and threads."""


def limited(option: str, most: int) -> dict[str, list[str]]:
    """Put a shell's limit before each replica."""
    command = ["sh", "-c", f'ulimit {option} {most}; exec "$@"', "sh"]
    return {node: command for node in ("n1", "n2", "n3")}


@contextlib.contextmanager
def attacked(
    *, restarts: bool = False, **options: Any
) -> Iterator[tuple[LocalCluster, raftckpt.Checkpoint]]:
    """A cluster, and the checkpoint of somebody who is there before the attack.

    No replica ends; those of a test that ``restarts`` them are there at the end.
    """
    with LocalCluster(3, faults=False, **options) as cluster:
        cluster.start()
        cluster.wait_ready()
        pids = [cluster.pid(node) for node in cluster.nodes]
        with raftckpt.connect(cluster.endpoints, timeout=30) as service:
            yield cluster, service.open("others", create=raftckpt.Attributes())
            turns_are_short(service)
        after = [cluster.pid(node) for node in cluster.nodes]
        assert all(after) if restarts else after == pids, "a replica ended"
        for node in cluster.nodes:
            assert "Traceback" not in cluster.log(node)


def turns_are_short(service: raftckpt.Service) -> None:
    """No turn of a replica's loop took much processor time, as it counted itself."""
    for each in service.cluster().replicas:
        if each.reachable:
            print(f"turn_cpu_ms {each.node} {each.detail['turn_cpu_ms']}")
            assert each.detail["turn_cpu_ms"] < TURN_CPU_MS_MAX, each.node


def descriptors(cluster: LocalCluster, node: str) -> int:
    return len(os.listdir(f"/proc/{cluster.pid(node)}/fd"))


def snapshots(cluster: LocalCluster) -> list[int]:
    found = [cluster.status(node, 10) for node in cluster.nodes]
    return [status["snapshot"] for status in found if status is not None]


def test_silent_connections_take_no_descriptor_that_the_disk_needs() -> None:
    """Four hundred that say nothing, 256 descriptors: snapshots are written, others get in."""
    with (
        attacked(settings=SMALL, wrap=limited("-n", 256)) as (cluster, checkpoint),
        contextlib.ExitStack() as silent,
    ):
        for node in cluster.nodes:
            for _ in range(400):
                sock = silent.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(address(cluster.endpoint(node)))
        before = snapshots(cluster)
        assert len(before) == 3
        for number in range(700):
            checkpoint.put("k", b"%d" % number)
        assert all(descriptors(cluster, node) < 256 - 64 for node in cluster.nodes)
        until(
            lambda: all(b > a for a, b in zip(before, snapshots(cluster), strict=True)),
            "a snapshot of each replica",
        )
        with raftckpt.connect(cluster.endpoints, timeout=10) as late:
            assert late.open("others").read("k") == b"699"


def test_an_address_that_is_full_leaves_places_for_another_one() -> None:
    """Twenty greeted connections of one address and twenty places for it; another one gets in."""
    edge = {"connections": 40, "connections_per_address": 20}
    with attacked(settings={"limits": edge}) as (cluster, checkpoint):
        node = next(node for node in cluster.nodes if node != cluster.leader())
        host, port = address(cluster.endpoint(node))
        with contextlib.ExitStack() as there:
            probes = []
            with pytest.raises(raftckpt.Unavailable):  # noqa: PT012
                while len(probes) < 30:
                    probes.append(there.enter_context(ReplicaProbe(cluster.endpoint(node))))
            assert 15 < len(probes) <= 20
            sock = there.enter_context(
                socket.create_connection((host, port), 10, source_address=("127.0.0.2", 0))
            )
            sock.sendall(pack_messages([[200, 1, [1], "another", None]]))
            assert MessageStream().feed(sock.recv(1 << 16))[0][2] == 1
            checkpoint.put("k", b"v")


def test_who_fills_the_memory_is_refused_and_everything_else_goes_on() -> None:
    """A tenant writes sections of 4 MiB for as long as he can; then others read and delete."""
    with (
        attacked(settings={"limits": {"data_bytes": "64MiB"}}) as (cluster, checkpoint),
        raftckpt.connect(cluster.endpoints, timeout=10) as service,
    ):
        checkpoint.put("k", b"before")
        filling = service.open("filling", create=raftckpt.Attributes())
        written = 0
        with pytest.raises(raftckpt.NoSpace, match="a limit of 67108864 bytes") as refused:  # noqa: PT012
            while written < 40:
                filling.put(f"s{written}", bytes(4 << 20))
                written += 1
        assert refused.value.definite
        assert 8 <= written < 16
        assert checkpoint.read("k") == b"before"
        checkpoint.put("k", b"after!")  # no byte more than before
        with ReplicaProbe(cluster.endpoint(cluster.leader())) as probe:
            probe.transfer()  # whoever leads now judges alike
        with pytest.raises(raftckpt.NoSpace):
            filling.put("more", bytes(4 << 20))
        filling.delete("s0")
        filling.delete("s1")
        filling.put("more", bytes(4 << 20))
        assert checkpoint.read("k") == b"after!"


def test_holes_are_data() -> None:
    """A request of 300 bytes that makes 20 GiB of the next snapshot is refused."""
    with (
        attacked(settings=SMALL | {"limits": {"data_bytes": "256MiB"}}) as (cluster, _),
        raftckpt.connect(cluster.endpoints, timeout=30) as service,
    ):
        attributes = raftckpt.Attributes(max_section_size=1 << 30)
        sparse = service.open("sparse", create=attributes)
        for number in range(20):
            sparse.put(f"s{number}", b"")
        elements = [(f"s{number}", (1 << 30) - 1, b"x") for number in range(20)]
        with pytest.raises(raftckpt.NoSpace):
            sparse.write_many(elements)
        sparse.write("s0", b"x", offset=100 << 20)
        with pytest.raises(raftckpt.NoSpace):
            sparse.write("s1", b"x", offset=200 << 20)
        assert sparse.status().memory_used < 128 << 20

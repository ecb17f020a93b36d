"""Attacks that take their time: memory that has an end, tables that are filled, full queues."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import raftckpt
from raftckpt.protocol.frames import MessageStream, pack_messages
from raftckpt.testing import LocalCluster
from raftckpt.testing.probe import ReplicaProbe
from tests.e2e.test_attacks import attacked, limited
from tests.e2e.test_attacks_disk import fill, fill_and_make_room, small_disks
from tests.waiting import until

NEVER = 2**63 - 1
DAY_NS = 24 * 3600 * 10**9
MIB = 1 << 20


class Tenant:
    """A session by hand."""

    def __init__(self, endpoint: str) -> None:
        self.probe = ReplicaProbe(endpoint, timeout=30)
        self.stream = MessageStream()
        self.call(1, 0, 0, os.urandom(16), "tenant", "n1", DAY_NS, 0)
        self.sequence = 1
        attributes = [1, 0, NEVER, 1 << 20, 1 << 20, 1024]
        self.handle = self.call(10, 1, 0, "tenants", 7, attributes)[0]

    def call(self, tag: int, *fields: Any) -> Any:
        return self.probe.call(tag, *fields)

    def pipeline(self, tag: int, answered: int, rows: list[list[Any]]) -> list[Any]:
        """Send commands at once; returns their replies."""
        first = self.sequence + 1
        self.sequence += len(rows)
        messages = [
            [tag, 10**6 + first + i, first + i, answered, *row] for i, row in enumerate(rows)
        ]
        sock = self.probe.socket
        sock.settimeout(60)
        sock.sendall(pack_messages(messages))
        replies: list[Any] = []
        while len(replies) < len(rows):
            data = sock.recv(1 << 20)
            assert data, "the replica closed the connection"
            replies += [message for message in self.stream.feed(data) if message[0] == 0]
        return replies


@pytest.mark.parametrize("kib", [600_000, 1_000_000])
def test_memory_has_an_end_and_a_majority_stands_before_it(kib: int) -> None:
    """``ulimit -v``: the data a replica takes on is what it has the memory for."""
    with (
        attacked(restarts=True, wrap=limited("-v", kib)) as (cluster, checkpoint),
        raftckpt.connect(cluster.endpoints, timeout=20) as service,
    ):
        checkpoint.put("k", b"before")
        filling = service.open("filling", create=raftckpt.Attributes())
        written = 0
        with pytest.raises(raftckpt.NoSpace):  # noqa: PT012
            while written < 60:
                filling.put(f"s{written}", bytes(8 * MIB))
                written += 1
        assert written >= 10
        assert checkpoint.read("k") == b"before"
        for node in cluster.nodes:  # what was taken on can be loaded again
            cluster.kill(node)
        cluster.start()
        cluster.wait_ready()
        assert len(filling.read("s0")) == 8 * MIB
        for number in range(written):
            filling.delete(f"s{number}")
        filling.put("more", bytes(8 * MIB))


@contextlib.contextmanager
def caged(bytes_max: int) -> Iterator[dict[str, list[str]]]:
    """A memory control group for each replica: the commands that put it there."""
    made: dict[str, Path] = {}
    wrap: dict[str, list[str]] = {}
    try:
        for node in ("n1", "n2", "n3"):
            group = Path(f"/sys/fs/cgroup/memory/raftckpt-test-{os.getpid()}-{node}")
            try:
                group.mkdir()
                made[node] = group
                (group / "memory.limit_in_bytes").write_text(str(bytes_max))
            except OSError:
                pytest.skip("control groups may not be made here")
            enter = f'echo $$ > {group}/cgroup.procs; exec "$@"'
            wrap[node] = ["sh", "-c", enter, "sh"]
        yield wrap
    finally:
        for group in made.values():
            until(lambda group=group: _dropped(group), f"{group} is empty")


def _dropped(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def test_a_small_control_group_ends_no_replica() -> None:
    """256 MiB for each: the limit of the state is made for it; with room made all goes on."""
    with (
        caged(256 * MIB) as wrap,
        attacked(wrap=wrap) as (cluster, checkpoint),
        raftckpt.connect(cluster.endpoints, timeout=20) as service,
    ):
        limit = service.limits().limits["memory"].value
        assert 0 < limit < 128 * MIB
        filling = service.open("filling", create=raftckpt.Attributes())
        for _ in range(3):
            written = 0
            with pytest.raises(raftckpt.NoSpace):  # noqa: PT012
                while written * MIB < 256 * MIB:
                    filling.put(f"s{written}", os.urandom(MIB))
                    written += 1
            for number in range(0, written, 3):
                filling.put(f"s{number}", bytes(MIB))  # no byte more than before
            checkpoint.read_all()
            for number in range(written):
                filling.delete(f"s{number}")
        checkpoint.put("k", b"after")
        assert service.check().consistent


def test_disks_of_200_mib_are_filled_and_go_on() -> None:
    fill_and_make_room(200, least=30, most=190)


def test_small_disks_outlive_what_is_overwritten_and_a_start_when_they_are_full() -> None:
    """More entries than the disk is large, a few at a time; then nothing is free at the start."""
    with (
        small_disks(64, restarts=True) as cluster,
        raftckpt.connect(cluster.endpoints, timeout=60) as service,
    ):
        checkpoint = service.open("c", create=raftckpt.Attributes())
        for number in range(150):
            checkpoint.put("k", bytes([number]) * MIB)
        assert any(refused_when_full(cluster, checkpoint, bytes([149]) * MIB) for _ in range(5))
        checkpoint.put("k", b"again")


def refused_when_full(cluster: LocalCluster, checkpoint: raftckpt.Checkpoint, held: bytes) -> bool:
    """Whether new data is refused after such a start; deletes are done.

    A leader that made its log short in the meantime has room again: then what it takes on waits for
    the others, which have none.
    """
    reserves = [cluster.node_dir(node) / "reserve" for node in cluster.nodes]
    until(
        lambda: all(reserve.exists() and reserve.stat().st_size for reserve in reserves),
        "what cannot wait has its reserve",
    )
    cluster.kill()
    fillers = [fill(cluster.node_dir(node)) for node in cluster.nodes]
    cluster.start()
    cluster.wait_ready()
    assert checkpoint.read("k") == held
    refused = False
    try:
        checkpoint.put("more", bytes(MIB), timeout=3)
    except raftckpt.TryAgain as error:
        refused = "no disk" in str(error)
        checkpoint.delete("k")
    except raftckpt.Timeout:
        pass
    for filler in fillers:
        filler.unlink()
    checkpoint.put("more", b"")
    return refused


def test_tables_of_replies_that_nobody_acknowledges_stay_small() -> None:
    """Fifteen sessions, 4,094 refusals each that name an id of a kilobyte."""
    with attacked() as (cluster, checkpoint):
        leader = cluster.leader()
        tenants = [Tenant(cluster.endpoint(leader)) for _ in range(15)]
        executed = waiting = 0
        for tenant in tenants:
            for _ in range(8):
                rows = [[tenant.handle, os.urandom(1020)] for _ in range(500)]
                replies = tenant.pipeline(21, 1, rows)
                reasons = Counter(reply[3][0] for reply in replies)
                assert set(reasons) <= {"section_missing", "window", "gap"}
                executed += reasons["section_missing"]
                waiting += reasons["window"]
        assert 15 * 500 < executed < 15 * 1100, "the tables are full long before the window is"
        assert waiting
        checkpoint.put("k", b"v")
        for tenant in tenants:
            tenant.probe.close()


def test_twenty_sessions_that_send_all_they_can_let_another_one_work() -> None:
    with attacked() as (cluster, checkpoint):
        stop = threading.Event()
        tenants = [Tenant(cluster.endpoint(cluster.leader())) for _ in range(20)]

        def flood(tenant: Tenant) -> None:
            while not stop.is_set():
                rows = [[tenant.handle, b"k", bytes(1000)] for _ in range(2000)]
                tenant.pipeline(24, tenant.sequence, rows)

        threads = [threading.Thread(target=flood, args=(tenant,)) for tenant in tenants]
        for thread in threads:
            thread.start()
        try:
            until = time.monotonic() + 5
            done = 0
            while time.monotonic() < until or done < 20:
                checkpoint.put("k", b"%d" % done, timeout=10)
                done += 1
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        for tenant in tenants:
            tenant.probe.close()

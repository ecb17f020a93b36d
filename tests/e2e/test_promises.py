"""Exactly once, honest outcomes, fencing, own writes: across failovers, with real processes."""

from __future__ import annotations

import signal
import struct
import sys
import threading

import pytest

import raftckpt
from tests.e2e.load import assert_equal_replicas
from tests.programs import Program
from tests.waiting import until


def test_retries_across_failovers_happen_exactly_once(cluster) -> None:
    """A repeated ``create`` would raise Exist; each change takes exactly one revision."""
    made: list[int] = []
    errors: list[BaseException] = []
    stop = threading.Event()
    with raftckpt.connect(cluster.endpoints, timeout=30) as service:
        checkpoint = service.open("once", create=raftckpt.Attributes())
        before = service.open("once").status().revision

        def create() -> None:
            try:
                while not stop.is_set():
                    checkpoint.create(f"{threading.get_ident()}-{len(made)}")
                    made.append(1)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=create) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            goal = len(made) + 50
            until(lambda g=goal: len(made) > g or errors, "sections made")
            leader = cluster.leader()
            cluster.kill(leader)
            cluster.restart(leader)
        stop.set()
        for thread in threads:
            thread.join(40)
        assert errors == []
        assert checkpoint.count() == len(made)
        assert checkpoint.status().revision == before + len(made)
    assert_equal_replicas(cluster)


def test_partial_writes_are_applied_once_and_in_order(cluster) -> None:
    with raftckpt.connect(cluster.endpoints, timeout=30) as service:
        checkpoint = service.open("order", create=raftckpt.Attributes(update="active"))
        checkpoint.create("log", b"")
        for number in range(2000):
            checkpoint.write("log", struct.pack("!I", number), offset=4 * number)
            if number in (500, 1500):
                leader = cluster.leader()
                cluster.kill(leader)
                cluster.restart(leader, wait=False)
        assert checkpoint.synchronize() > 0
        assert checkpoint.read("log") == struct.pack("!2000I", *range(2000))


def test_one_reads_ones_own_accepted_writes(cluster) -> None:
    with raftckpt.connect(cluster.endpoints, timeout=30) as service:
        checkpoint = service.open("own", create=raftckpt.Attributes(update="active"))
        for number in range(300):
            checkpoint.put("k", b"%d" % number)
            assert checkpoint.read("k") == b"%d" % number
            if number == 150:
                leader = cluster.leader()
                cluster.kill(leader)
                cluster.restart(leader, wait=False)


def test_deposed_writer_is_refused_also_after_a_failover(cluster) -> None:
    with (
        raftckpt.connect(cluster.endpoints, timeout=20) as first,
        raftckpt.connect(cluster.endpoints, timeout=20) as second,
    ):
        old = first.open("fence", create=raftckpt.Attributes())
        one = old.active_replica_set(exclusive=True)
        old.put("k", b"old")
        new = second.open("fence")
        assert new.active_replica_set(exclusive=True) > one
        leader = cluster.leader()
        cluster.kill(leader)
        with pytest.raises(raftckpt.Fenced) as refused:
            old.put("k", b"deposed")
        assert refused.value.definite
        assert old.read("k") == b"old"
        new.put("k", b"new")
        cluster.restart(leader)
        assert old.read("k") == b"new"


def test_component_that_dies_is_no_opener_any_more(cluster) -> None:
    """The kernel closes the connection of a killed process; its session ends after the grace."""
    code = (
        "import raftckpt, sys\n"
        f"service = raftckpt.connect({cluster.endpoints!r}, disconnect_grace=0.0, name='victim')\n"
        "checkpoint = service.open('dies', create=raftckpt.Attributes())\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with Program(sys.executable, "-c", code) as victim:
        victim.expect("open")
        with raftckpt.connect(cluster.endpoints) as service:
            checkpoint = service.open("dies")
            assert [o.name for o in checkpoint.status().openers if o.name == "victim"]
            victim.signal(signal.SIGKILL)
            until(
                lambda: not [o for o in checkpoint.status().openers if o.name == "victim"],
                "the opener is gone",
            )


def test_idle_client_survives_a_failover_silently(cluster) -> None:
    with raftckpt.connect(cluster.endpoints, session_timeout=2.0, timeout=20) as service:
        checkpoint = service.open("idle", create=raftckpt.Attributes())
        session = checkpoint.status().openers[0].session
        for _ in range(2):
            leader = cluster.leader()
            cluster.kill(leader)
            cluster.leader()
            cluster.restart(leader)
        assert [o.session for o in checkpoint.status().openers] == [session]
        checkpoint.put("k", b"v")

"""Small disks that are filled, by tenants and by others: file systems in memory, where root may."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import raftckpt
from raftckpt.testing import LocalCluster
from tests.waiting import until

MIB = 1 << 20


@contextlib.contextmanager
def small_disks(mib: int, *, restarts: bool = False) -> Iterator[LocalCluster]:
    """A cluster of three, each replica on a file system of its own; none of them ends."""
    cluster = LocalCluster(3, faults=False)
    mounted: list[Path] = []
    try:
        for node in cluster.nodes:
            path = cluster.node_dir(node)
            path.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "raftckpt-test", str(path)]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                pytest.skip("file systems may not be mounted here")
            mounted.append(path)
        cluster.start()
        cluster.wait_ready()
        pids = [cluster.pid(node) for node in cluster.nodes]
        yield cluster
        after = [cluster.pid(node) for node in cluster.nodes]
        assert all(after) if restarts else after == pids, "a replica ended"
    except Exception as error:
        error.add_note("\n".join(cluster.log(node, 15) for node in cluster.nodes))
        raise
    finally:
        cluster.kill()
        for path in mounted:
            subprocess.run(["umount", "-l", str(path)], check=False)
        cluster.stop()


def fill(path: Path) -> Path:
    """Somebody else's file takes all there is."""
    filler = path / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(MIB if file.tell() < 32 * MIB else 4096))
    return filler


def test_a_disk_that_others_fill_ends_no_replica() -> None:
    """New data is refused for certain; reads, deletes, opens go on; with room all goes on."""
    with (
        small_disks(64) as cluster,
        raftckpt.connect(cluster.endpoints, timeout=20) as service,
    ):
        checkpoint = service.open("others", create=raftckpt.Attributes())
        for number in range(8):
            checkpoint.put(f"s{number}", bytes(MIB))
        fillers = [fill(cluster.node_dir(node)) for node in cluster.nodes]
        for node in cluster.nodes:
            until(lambda node=node: "disk_full" in cluster.log(node), f"{node} looked")

        def refused() -> bool:  # while leadership is handed over another reason may be the last
            with pytest.raises(raftckpt.TryAgain) as error:
                checkpoint.put("s0", bytes(MIB), timeout=2)
            assert error.value.definite
            return "no disk" in str(error.value)

        until(refused, "all leaders are full")
        status = cluster.status(cluster.leader(), 10)
        assert status is not None
        assert "no new data is admitted" in str(status["alarms"])
        assert len(checkpoint.read("s0")) == MIB
        for number in range(4):
            checkpoint.delete(f"s{number}")
        with raftckpt.connect(cluster.endpoints, timeout=10) as late:
            assert len(late.open("others").read("s7")) == MIB
        for filler in fillers:
            filler.unlink()
        checkpoint.put("s0", bytes(MIB), timeout=30)


def test_a_tenant_who_fills_small_disks_is_refused_and_can_make_room() -> None:
    """Twice as much as there is of new data, then deletes, then data again."""
    fill_and_make_room(64, least=8, most=60)


def fill_and_make_room(mib: int, *, least: int, most: int) -> None:
    """Write MiB by MiB into disks of so many until that is refused, then make room."""
    with (
        small_disks(mib) as cluster,
        raftckpt.connect(cluster.endpoints, timeout=20) as service,
    ):
        filling = service.open("filling", create=raftckpt.Attributes())
        written = 0
        with pytest.raises(raftckpt.TryAgain, match="no disk"):  # noqa: PT012
            while written < 2 * mib:
                filling.put(f"s{written}", bytes(MIB), timeout=4)
                written += 1
        assert least <= written < most
        for number in range(written):
            assert len(filling.read(f"s{number}")) == MIB
        for number in range(written):
            filling.delete(f"s{number}")
        filling.put("again", bytes(MIB), timeout=30)

"""Data directories damaged on disk, and a real replica started on them.

It refuses with a message and an exit code of its own, or serves everything that was acknowledged.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import raftckpt
from raftckpt.testing import LocalCluster
from raftckpt.testing.local_cluster import ClusterNotReady
from tests.fuzz.profile import seeds

SETTINGS = {"snapshot": {"entries": 1000}}
WRITES = 2500


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a single replica: a snapshot, entries behind it, a clean end or none."""
    where = tmp_path_factory.mktemp("written")
    with LocalCluster(1, where, settings=SETTINGS) as cluster:
        with raftckpt.connect(cluster.endpoints, timeout=60) as service:
            checkpoint = service.open("c", create=raftckpt.Attributes())
            for number in range(WRITES):
                checkpoint.put(f"k{number % 50}", str(number).encode())
        cluster.kill()
    return where


def expected() -> dict[bytes, bytes]:
    return {f"k{n % 50}".encode(): str(n).encode() for n in range(WRITES - 50, WRITES)}


def files_of(node: Path) -> list[Path]:
    return sorted(
        p for p in node.rglob("*") if p.is_file() and p.stat().st_size and p.name != "lock"
    )


def damage(rng: random.Random, node: Path) -> str:
    """Do one kind of harm; returns what."""
    files = files_of(node)
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    used = len(data.rstrip(b"\0")) or 1
    at = rng.randrange(used)
    match rng.randrange(8):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
            what = f"bit {at}"
        case 1:
            del data[at:]
            what = f"cut at {at}"
        case 2:
            data[at : at + 512] = bytes(512)
            what = f"zeros at {at}"
        case 3:
            other = rng.randrange(used)
            data[at : at + 200] = data[other : other + 200]
            what = f"spliced at {at}"
        case 4:
            data[at:at] = rng.randbytes(100)
            what = f"inserted at {at}"
        case 5:
            path.unlink()
            return f"{path.name} removed"
        case 6:
            other_path = rng.choice(files)
            alien = other_path.read_bytes()
            other_path.write_bytes(data)
            data = bytearray(alien)
            what = f"swapped with {other_path.name}"
        case _:
            data = bytearray(rng.randbytes(used))
            what = "noise"
    path.write_bytes(data)
    return f"{path.name}: {what}"


def start(config: Path, data_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "raftckpt.process", "--config", str(config), "--node", "n1",
         "--data-dir", str(data_dir)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_damaged_directories_are_refused_or_served_whole(written: Path, tmp_path: Path) -> None:
    endpoint = yaml.safe_load((written / "cluster.yaml").read_text())["replicas"]["n1"]["client"]
    refused = served = 0
    for number, rng in enumerate(seeds(10, cost=20)):
        node = tmp_path / f"{number}" / "n1"
        shutil.copytree(written / "n1", node)
        what = damage(rng, node) if number else "nothing"
        process = start(written / "cluster.yaml", node.parent)
        try:
            image = None
            deadline = time.monotonic() + 60
            while process.poll() is None and image is None:
                assert time.monotonic() < deadline, f"{what}: it neither serves nor ends"
                try:
                    with raftckpt.connect(endpoint, timeout=1) as service:
                        image = dict(service.open("c", mode="r").read_all())
                except (raftckpt.Unavailable, raftckpt.TryAgain, raftckpt.Timeout):
                    continue
        finally:
            process.kill()
            error = process.communicate()[1]
        shutil.rmtree(node.parent)
        print(what, "->", "served" if image is not None else error.strip().splitlines()[-1])
        assert "Traceback" not in error, what
        if image is None:
            refused += 1
            assert process.returncode > 0, what
            assert len(error.strip()) > 20, f"{what}: refused without a reason"
        else:
            served += 1
            assert image == expected(), f"{what}: acknowledged writes are missing"
    assert refused
    assert served


def test_the_writes_are_there_without_damage(written: Path, tmp_path: Path) -> None:
    """The check itself: a lost write would be seen."""
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    with LocalCluster(1, copy) as cluster, raftckpt.connect(cluster.endpoints) as service:
        image = dict(service.open("c", mode="r").read_all())
        assert image == expected()
        service.open("c").delete("k7")
        assert dict(service.open("c").read_all()) != expected()


def test_an_empty_directory_of_a_used_replica_is_refused(written: Path, tmp_path: Path) -> None:
    """Everything gone but the identity: it must not begin anew."""
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    for path in files_of(copy / "n1"):
        if "journal" in str(path.relative_to(copy / "n1")) or "snapshot" in path.parent.name:
            path.unlink()
    with pytest.raises(ClusterNotReady), LocalCluster(1, copy):
        pass

"""Snapshot files as a whole: read, restored, refused."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from raftckpt.client.saving import Appearing, SnapshotSink, sources
from raftckpt.client.types import ClusterStatus, ReplicaStatus
from raftckpt.copies.rebirth import FAR_ABOVE, Place
from raftckpt.copies.replay import configuration_of, replayed
from raftckpt.copies.restore import refuse_answering, restore
from raftckpt.copies.snapshots import inspect_snapshot, load_snapshot
from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol.snapshotfile import FileHead
from raftckpt.storage import Damaged, DiskFailed, Foreign, InUse, Unsupported, reading
from raftckpt.version import HIGHEST_LEVEL, IMAGE_VERSION
from tests.unit.model.driver import DrivenMachine

OWN = Place("n1", "h1:1", "h1:2")
OTHERS = (Place("n2", "h2:1", "h2:2"),)


def head_of(machine: CheckpointMachine, **fields: object) -> FileHead:
    head = FileHead(
        "prod", "f" * 32, machine.revision, HIGHEST_LEVEL, machine.now_ns, "n2",
        machine.applied_index, IMAGE_VERSION,
    )  # fmt: skip
    return head._replace(**fields)  # type: ignore[arg-type]


def saved(path: Path, **fields: object) -> CheckpointMachine:
    driven = DrivenMachine()
    session = driven.session()
    handle = session.open("c")
    session.put(handle, b"a", b"alpha")
    session.put(handle, b"b", b"beta")
    with SnapshotSink(path, head_of(driven.machine, **fields)) as sink:
        for piece in driven.machine.freeze(secrets=False):
            assert not sink.write(piece)
        sink.sync()
        sink.commit()
    assert sink.saved().size == path.stat().st_size
    return driven.machine


def test_it_is_verified_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    machine = saved(path)
    image = b"".join(machine.freeze(secrets=False))
    sizes: list[int] = []
    found = inspect_snapshot(str(path), sizes.append)
    assert found.head == head_of(machine)
    assert (found.size, found.image_bytes) == (path.stat().st_size, len(image))
    assert found.digest == hashlib.sha256(image).hexdigest()
    assert sizes[-1] == found.size
    head, loaded = load_snapshot(str(path))
    assert head == found.head
    assert loaded.level == HIGHEST_LEVEL
    assert b"".join(loaded.freeze()) == image


def test_every_truncation_and_every_flipped_bit_of_a_file_is_refused(tmp_path: Path) -> None:
    path, bad = tmp_path / "file", tmp_path / "bad"
    saved(path)
    good = path.read_bytes()
    files = [good[:size] for size in range(len(good))]
    for position in range(len(good)):
        for bit in range(8):
            flipped = bytes((good[position] ^ 1 << bit,))
            files.append(good[:position] + flipped + good[position + 1 :])
    for data in files:
        bad.write_bytes(data)
        with pytest.raises((Damaged, Unsupported)):
            inspect_snapshot(str(bad))
        with pytest.raises((Damaged, Unsupported)):
            load_snapshot(str(bad))


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"level": HIGHEST_LEVEL + 1}, Unsupported, "at level"),
        ({"level": 0}, Unsupported, "at level"),
        ({"image_version": IMAGE_VERSION + 1}, Unsupported, "its image is of format"),
        ({"revision": 4711}, Damaged, "its head is of another state"),
        ({"entry": 4711}, Damaged, "its head is of another state"),
        ({"time_ns": 4711}, Damaged, "its head is of another state"),
    ],
)
def test_what_this_version_cannot_make_a_state_of(tmp_path, fields, error, said) -> None:
    saved(tmp_path / "file", **fields)
    inspect_snapshot(str(tmp_path / "file"))
    with pytest.raises(error, match=said):
        load_snapshot(str(tmp_path / "file"))


def test_a_later_format_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"rckptsav" + (9).to_bytes(4, "little") + bytes(4) + bytes.fromhex("00000000"))
    with pytest.raises(Damaged, match="checksum of its head"):
        inspect_snapshot(str(path))
    with pytest.raises(DiskFailed, match="No such file"):
        inspect_snapshot(str(path) + "2")


def test_a_cluster_of_one_is_founded_on_it(tmp_path: Path) -> None:
    path = str(tmp_path / "n1")
    machine = saved(tmp_path / "file")
    made = restore(str(tmp_path / "file"), path, "prod", OWN, OTHERS, "token")
    assert made.state.revision == machine.revision + FAR_ABOVE
    with reading(path) as held:
        configuration = configuration_of(held)
        assert configuration is not None
        assert (configuration.founding, configuration.parent) == (made.founding, "f" * 32)
        learner = configuration.named("n2")
        assert learner is not None
        assert learner.token == hashlib.sha256(b"token").hexdigest()
        found = replayed(held).machine
    assert {k: bytes(v[0]) for k, v in found.names["c"].sections.items()} == {
        b"a": b"alpha",
        b"b": b"beta",
    }


def test_it_is_founded_in_no_place_that_is_taken_and_of_no_other_cluster(tmp_path: Path) -> None:
    file, path = str(tmp_path / "file"), tmp_path / "n1"
    saved(tmp_path / "file")
    with pytest.raises(Foreign, match="it is of cluster 'prod', not of 'other'"):
        restore(file, str(path), "other", OWN, (), "token")
    assert not path.exists()
    path.write_bytes(b"")
    with pytest.raises(Foreign, match="something already"):
        restore(file, str(path), "prod", OWN, (), "token")
    path.unlink()
    path.mkdir()
    (path / "x").touch()
    with pytest.raises(Foreign, match="something already"):
        restore(file, str(path), "prod", OWN, (), "token")
    (path / "x").unlink()
    restore(file, str(path), "other", OWN, (), "token", of="prod")
    assert sorted(os.listdir(tmp_path)) == ["file", "n1"]


def test_whoever_answers_keeps_it_from_being_founded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with pytest.raises(InUse, match=f"n2 answers at 127.0.0.1:{port}"):
            refuse_answering([("n2", host, port)])
    refuse_answering([("n2", host, port)])


def test_a_follower_is_read_before_the_leader_and_who_has_most_if_anybody_will_do() -> None:
    def replica(node: str, role: str, revision: int, reachable: bool = True) -> ReplicaStatus:
        return ReplicaStatus(node, f"{node}:1", reachable, role=role, revision=revision)

    status = ClusterStatus.of(
        [
            replica("n1", "leader", 9),
            replica("n2", "follower", 7),
            replica("n3", "follower", 8),
            replica("n4", "follower", 10, reachable=False),
        ]
    )
    assert sources(status, "linearizable") == ["n3:1", "n2:1", "n1:1"]
    assert sources(status, "local") == ["n1:1", "n3:1", "n2:1"]


def test_a_file_appears_when_it_is_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"former")
    with Appearing(path) as file:
        file.append(b"la")
        assert path.read_bytes() == b"former"
        with pytest.raises(BlockingIOError):
            Appearing(path)
        file.append(b"tter")
        assert file.unsynced == 6
        file.sync()
        assert file.unsynced == 0
        file.commit()
    assert path.read_bytes() == b"latter"
    broken = Appearing(path)
    broken.append(b"half")
    broken.close()
    assert path.read_bytes() == b"latter"
    assert os.listdir(tmp_path) == ["file"]

"""Reading a data directory: what a start would find, and that nothing is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from raftckpt.errors import InvariantViolation
from raftckpt.storage import (
    Damaged,
    DataDirectory,
    DiskFailed,
    Foreign,
    InUse,
    Missing,
    RealFileSystem,
    reading,
)
from raftckpt.storage.reading import ReadOnlyFileSystem
from tests.directories import written_directory


def test_the_file_system_cannot_change_anything(tmp_path: Path) -> None:
    fs = ReadOnlyFileSystem()
    path = str(tmp_path / "file")
    Path(path).write_bytes(b"content")
    file = fs.open(path)
    assert file.read(0, 100) == b"content"
    with pytest.raises(DiskFailed):
        file.write(0, [b"x"])
    file.close()
    for change in (
        lambda: fs.open(path + "2", create=True),
        lambda: fs.mkdir(path + "2"),
        lambda: fs.rename(path, path + "2"),
        lambda: fs.unlink(path),
        lambda: fs.fsync_dir(str(tmp_path)),
    ):
        with pytest.raises(InvariantViolation):
            change()
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(Missing):
        fs.open(path + "2")


def test_the_lock_is_shared_among_readers_and_is_not_made(tmp_path: Path) -> None:
    fs, path = ReadOnlyFileSystem(), str(tmp_path / "lock")
    none = fs.lock(path)
    none.release()
    assert os.listdir(tmp_path) == []
    RealFileSystem().lock(path).release()
    one, two = fs.lock(path), fs.lock(path)
    with pytest.raises(InUse):
        RealFileSystem().lock(path)
    one.release()
    two.release()
    two.release()  # idempotent
    held = RealFileSystem().lock(path)
    with pytest.raises(InUse, match="in use by pid"):
        fs.lock(path)
    held.release()
    os.unlink(path)
    os.symlink(path, path)
    with pytest.raises(DiskFailed):
        fs.lock(path)


def test_a_lock_that_the_file_system_cannot_take(tmp_path: Path, monkeypatch) -> None:
    path = str(tmp_path / "lock")
    Path(path).touch()

    def no_locks(fd: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(DiskFailed, match="No locks available"):
        ReadOnlyFileSystem().lock(path)


@pytest.mark.parametrize("snapshot", [False, True])
def test_what_a_start_would_find_is_told(tmp_path: Path, snapshot: bool) -> None:
    path = str(tmp_path / "n1")
    written_directory(tmp_path / "n1", snapshot=snapshot, committed=5)
    with reading(path) as held:
        assert (held.last_index, held.last_term) == (7, 1)
        assert held.commit_index == (7 if snapshot else 5)
        assert len(held.entries) == (0 if snapshot else 7)
        assert bool(b"".join(held.image())) is snapshot
        assert [name for name, _ in held.slots] == (
            ["00000000000000000007.snapshot"] if snapshot else []
        )
        assert all(size >= 64 * 1024 for _, size in held.segments)


def test_a_snapshot_that_is_further_than_the_log_takes_its_place(tmp_path: Path) -> None:
    written_directory(tmp_path / "far", sections=5, snapshot=True)
    written_directory(tmp_path / "n1", sections=1)
    shutil.rmtree(tmp_path / "n1" / "snapshots")
    shutil.copytree(tmp_path / "far" / "snapshots", tmp_path / "n1" / "snapshots")
    with reading(str(tmp_path / "n1")) as held:
        assert held.entries == []
        assert (held.last_index, held.commit_index) == (9, 9)


def spoil(path: Path, what: str) -> None:
    peers, slot = path / "peers", next((path / "snapshots").iterdir())
    if what == "peers":
        peers.write_bytes(peers.read_bytes().replace(b'"starts": 1', b'"starts": 2'))
    elif what == "journal":
        shutil.rmtree(path / "journal")
    elif what == "renamed":
        slot.rename(slot.with_name("00000000000000000008.snapshot"))
    elif what == "cut":
        slot.write_bytes(slot.read_bytes()[:-1])
    elif what == "identity":
        (path / "identity").unlink()


@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        ("peers", Damaged, "note of the peers met is damaged"),
        ("journal", Missing, "has no journal"),
        ("renamed", Damaged, "it holds the snapshot of entry 7"),
        ("cut", Damaged, "before its trailer"),
        ("identity", Missing, "no identity file"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused(tmp_path, what, error, said) -> None:
    written_directory(tmp_path / "n1", snapshot=True)
    spoil(tmp_path / "n1", what)
    with pytest.raises(error, match=said), reading(str(tmp_path / "n1")):
        pass
    RealFileSystem().lock(str(tmp_path / "n1" / "lock")).release()


def test_a_note_that_is_gone_is_told(tmp_path: Path) -> None:
    written_directory(tmp_path / "n1")
    (tmp_path / "n1" / "peers").unlink()
    with reading(str(tmp_path / "n1")) as held:
        assert held.peers is None


def test_a_snapshot_of_another_founding_is_foreign(tmp_path: Path) -> None:
    written_directory(tmp_path / "n1", snapshot=True)
    directory = DataDirectory.open(RealFileSystem(), str(tmp_path / "n1"), "golden", "n1")
    directory._write(founding="e" * 32)
    directory.close()
    with (
        pytest.raises(Foreign, match="it belongs to another cluster"),
        reading(str(tmp_path / "n1")),
    ):
        pass


def test_an_image_that_is_spoilt_meanwhile_is_noticed(tmp_path: Path) -> None:
    written_directory(tmp_path / "n1", snapshot=True)
    with reading(str(tmp_path / "n1")) as held:
        slot = next((tmp_path / "n1" / "snapshots").iterdir())
        data = bytearray(slot.read_bytes())
        data[-40] ^= 1
        slot.write_bytes(bytes(data))
        with pytest.raises(Damaged):
            list(held.image())

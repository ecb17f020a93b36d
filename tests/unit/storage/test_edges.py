"""What small changes of the code were not noticed by: numbers and borders of the disk."""

from __future__ import annotations

import errno
import os
import random

import pytest

from raftckpt.storage import DiskFull, Journal, RealFileSystem, SnapshotStore
from raftckpt.storage import _records as rec
from tests.sim.disk import SimDisk

DIR = "/j"
OWNER = b"o" * 16


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk(random.Random(1))


def open_(disk: SimDisk) -> Journal:
    return Journal.open(disk.fs, DIR, None, owner=OWNER, segment_bytes=64 * 1024)


def grow(journal: Journal, groups: int, size: int = 8_000) -> None:
    for _ in range(groups):
        index = journal[-1][1] + 1 if journal else 1
        journal.append_entry(b"x" * size, index, 1)
        journal.sync()


def files(disk: SimDisk) -> list[str]:
    return [name for name in disk.fs.listdir(DIR) if name.endswith(".journal")]


def test_syncs_are_counted_one_by_one(disk):
    journal = open_(disk)
    before = journal.syncs
    grow(journal, 5)
    journal.sync()  # nothing is to be written
    assert journal.syncs == before + 5


def test_a_segment_goes_when_nothing_in_it_is_kept_and_not_before(disk):
    journal = open_(disk)
    grow(journal, 30)
    assert len(files(disk)) > 3
    second = journal._segments[1].first_index
    count = len(files(disk))
    journal.compact_to(second - 1)  # the last entry of the first segment is still wanted
    grow(journal, 1, size=10)
    assert len(files(disk)) == count
    journal.compact_to(second)
    grow(journal, 1, size=10)
    assert len(files(disk)) == count - 1


def test_after_a_restart_a_segment_is_kept_as_long_as_before(disk):
    journal = open_(disk)
    grow(journal, 30)
    journal.close()
    journal = open_(disk)
    count = len(files(disk))
    grow(journal, 2, size=10)
    assert len(files(disk)) == count
    assert [index for _, index, _ in journal] == list(range(1, 33))
    journal.close()
    assert [index for _, index, _ in open_(disk)] == list(range(1, 33))


def test_after_a_reset_the_segments_before_it_go(disk):
    journal = open_(disk)
    grow(journal, 30)
    journal.reset_to([(b"a", 100, 1), (b"b", 101, 1)])
    for _ in range(12):
        grow(journal, 1)
    assert len(files(disk)) <= 3
    assert journal[0][1] == 100


@pytest.mark.parametrize("at", [8, 40, 200, rec.HEADER_BYTES - 1])
def test_the_whole_header_of_a_segment_is_under_its_checksum(at):
    header = rec.SegmentHeader(OWNER, 3, 7, 1, 2, 3, 4, 5, "n1", 6, 7, 8)
    block = bytearray(rec.pack_segment_header(header))
    assert rec.unpack_segment_header(bytes(block)) == (rec.JOURNAL_VERSION, header)
    block[at] ^= 1
    with pytest.raises(ValueError, match=r"checksum|header"):
        rec.unpack_segment_header(bytes(block))


@pytest.mark.parametrize("beyond", [0, 1, 100])
def test_nothing_behind_the_image_is_read(disk, beyond):
    store = SnapshotStore(disk.fs, "/s", OWNER)
    writer = store.create(5, 3, b"payload", 2)
    writer.write(b"image" * 1000)
    meta = writer.commit()
    whole = store.read(meta, 0, meta.size)
    (name,) = [name for name in disk.fs.listdir("/s") if "snapshot" in name]
    file = disk.fs.open(f"/s/{name}")
    file.write(meta.size, [b"what a larger one left behind" * 10])
    file.close()
    assert store.read(meta, 0, meta.size + 10_000) == whole
    assert store.read(meta, meta.size - 3, 10_000) == whole[-3:]
    assert store.read(meta, meta.size + beyond, 10) == b""


def test_a_snapshot_that_finds_no_room_at_its_end_leaves_nothing(disk, monkeypatch):
    store = SnapshotStore(disk.fs, "/s", OWNER)
    writer = store.create(5, 3, b"payload", 2)
    writer.write(b"image" * 1000)

    def full() -> None:
        raise DiskFull("syncing failed", "no room", "make room")

    monkeypatch.setattr(writer._opened(), "sync", full)
    with pytest.raises(DiskFull):
        writer.commit()
    assert disk.fs.listdir("/s") == []
    again = store.create(6, 3, b"payload", 2)
    again.write(b"image")
    assert again.commit() == store.latest()


@pytest.mark.parametrize("call", ["pwritev", "posix_fallocate"])
@pytest.mark.parametrize("relieved", [True, False])
def test_what_finds_no_room_is_tried_again_when_there_is_some(
    tmp_path, monkeypatch, call, relieved
):
    """The reserve is given up for it, once."""
    asked: list[str] = []
    fs = RealFileSystem(lambda path: asked.append(path) or relieved)  # type: ignore[func-returns-value]
    file = fs.open(str(tmp_path / "file"), create=True)
    real, failed = getattr(os, call), []

    def full_once(*args: object) -> object:
        if not failed:
            failed.append(args)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    monkeypatch.setattr(os, call, full_once)

    def use() -> None:
        if call == "pwritev":
            file.write(0, [b"data"])
        else:
            file.preallocate(4096)

    if relieved:
        use()
        assert file.size() >= 4
    else:
        with pytest.raises(DiskFull):
            use()
    assert asked == [str(tmp_path / "file")]
    file.close()

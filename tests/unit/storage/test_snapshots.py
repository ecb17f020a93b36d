"""Snapshot slots: whole, checked and durable, or not there."""

from __future__ import annotations

import random

import pytest
from google_crc32c import value

from raftckpt.errors import InvariantViolation
from raftckpt.storage import (
    BadTransfer,
    Damaged,
    DiskFailed,
    DiskFull,
    Foreign,
    Missing,
    SnapshotMeta,
    SnapshotReceiver,
    SnapshotStore,
    SnapshotWriter,
    StaleSnapshot,
    Unsupported,
)
from raftckpt.storage import snapshots as module
from tests.sim.disk import SimCrash, SimDisk

DIR = "/s"


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk(random.Random(1))


def store_of(disk: SimDisk, owner: bytes = b"c" * 16) -> SnapshotStore:
    return SnapshotStore(disk.fs, DIR, owner)


def make(store: SnapshotStore, index: int, image: bytes = b"image", term: int = 3) -> SnapshotMeta:
    writer = store.create(index, term, b"payload", term - 1)
    for start in range(0, len(image), 70_000):
        writer.write(image[start : start + 70_000])
    return writer.commit()


def image_of(store: SnapshotStore, meta: SnapshotMeta) -> bytes:
    return b"".join(store.pieces(meta))


def finish(slot: SnapshotReceiver | SnapshotWriter, data: bytes) -> None:
    slot.write(data)
    slot.commit()


def raw(store: SnapshotStore, meta: SnapshotMeta) -> bytes:
    return store.read(meta, 0, meta.size)


@pytest.mark.parametrize("size", [0, 1, 70_000, 262_144, 1_000_000, 5_000_000])
def test_comes_back_as_it_was_written(disk, size):
    store = store_of(disk)
    assert store.latest() is None
    assert store.latest_index() == 0
    assert store.bytes_on_disk() == 0
    image = random.Random(size).randbytes(size)
    meta = make(store, 5, image)
    assert meta == store.latest()
    assert (meta.index, meta.term, meta.payload, meta.prev_term) == (5, 3, b"payload", 2)
    assert store.bytes_on_disk() == meta.size >= size
    assert image_of(store, meta) == image
    disk.power_loss("none")
    again = store_of(disk)
    assert again.latest() == meta
    assert image_of(again, meta) == image


def test_a_huge_piece_is_split(disk, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_BYTES_MAX", 1000)
    store = store_of(disk)
    writer = store.create(5, 1, b"", 1)
    image = bytes(300_000)
    writer.write(image)
    assert image_of(store, writer.commit()) == image


def test_the_index_only_grows(disk):
    store = store_of(disk)
    early, late = store.create(5, 1, b"", 1), store.create(9, 1, b"", 1)
    late.commit()
    with pytest.raises(StaleSnapshot):
        early.commit()
    with pytest.raises(StaleSnapshot):
        make(store, 9)
    assert store.latest_index() == 9
    assert len(disk.files(DIR)) == 1


def test_misuse_is_our_bug(disk):
    store = store_of(disk)
    with pytest.raises(InvariantViolation):
        store.create(1, 1, b"", 1)
    with pytest.raises(InvariantViolation):
        store.create(5, 1, b"", 2)
    writer = store.create(5, 1, b"", 1)
    writer.abort()
    writer.abort()
    with pytest.raises(InvariantViolation):
        writer.commit()
    assert disk.files(DIR) == []


def test_the_former_slot_can_be_read_to_its_end(disk):
    store = store_of(disk)
    first, second = make(store, 5, b"1"), make(store, 6, b"2")
    assert store.holds(first)
    assert image_of(store, first) == b"1"
    third = make(store, 7, b"3")
    assert not store.holds(first)
    with pytest.raises(Missing):
        store.read(first, 0, 10)
    assert image_of(store, second) == b"2"
    assert image_of(store, third) == b"3"
    assert len(disk.files(DIR)) == 1


# --- damage -----------------------------------------------------------------------------


def slot(disk: SimDisk) -> str:
    (path,) = disk.files(DIR)
    return path


def test_every_damaged_byte_refuses(disk):
    make(store_of(disk), 5, b"image of the state")
    disk.kill()
    size = len(disk.content(slot(disk)))
    for offset in range(size):
        disk.flip_bit(slot(disk), offset, offset % 8)
        with pytest.raises(Damaged) as caught:
            store_of(disk)
        assert "rejoin" in caught.value.remedy
        disk.flip_bit(slot(disk), offset, offset % 8)
    assert store_of(disk).latest_index() == 5


def test_every_truncation_refuses(disk):
    make(store_of(disk), 5, b"image of the state")
    disk.kill()
    path = slot(disk)
    data = disk.content(path)
    for size in range(len(data)):
        disk.put(path, data[:size])
        with pytest.raises(Damaged):
            store_of(disk)
    disk.put(path, data + b"\0")
    with pytest.raises(Damaged, match="behind the trailer"):
        store_of(disk)


def test_never_falls_back_to_an_older_slot(disk):
    store = store_of(disk)
    make(store, 5)
    old = disk.content(slot(disk))
    old_path = slot(disk)
    make(store, 6)
    disk.kill()
    new_path = slot(disk)
    disk.put(old_path, old)
    disk.flip_bit(new_path, 100)
    with pytest.raises(Damaged):
        store_of(disk)
    assert disk.files(DIR) == [old_path, new_path]  # nothing was touched
    disk.flip_bit(new_path, 100)
    assert store_of(disk).latest_index() == 6
    assert disk.files(DIR) == [new_path]


def test_a_renamed_slot_refuses(disk):
    make(store_of(disk), 5)
    disk.kill()
    disk.put(f"{DIR}/{7:020d}.snapshot", disk.content(slot(disk)))
    with pytest.raises(Damaged, match="entry 5"):
        store_of(disk)


def test_other_names_are_nobodys_business(disk):
    disk.fs.mkdir(DIR)
    others = ["notes.snapshot", "notes", "5.snapshot", f"{5:020d}", "x" * 20 + ".snapshot"]
    for name in others:
        disk.put(f"{DIR}/{name}", b"?")
    assert store_of(disk).latest() is None
    assert len(disk.files(DIR)) == len(others)


def test_foreign_and_unknown_versions_refuse(disk, monkeypatch):
    make(store_of(disk), 5)
    disk.kill()
    with pytest.raises(Foreign, match="another cluster"):
        store_of(disk, b"x" * 16)
    monkeypatch.setattr(module, "SNAPSHOT_VERSION", 1)
    with pytest.raises(Unsupported, match="format version 2, this program reads versions 1 to 1"):
        store_of(disk)


def first_version(data: bytes, payload: bytes) -> bytes:
    """The same snapshot as a file of version 1, which had no configuration."""
    size = int.from_bytes(data[12:16], "little")
    head = bytearray(data[: 68 + len(payload)])
    head[8:12] = (1).to_bytes(4, "little")
    head[12:16] = (len(head) + 4).to_bytes(4, "little")
    blocks = data[size:-28]
    trailer = bytearray(data[-28:-4])
    trailer[4:8] = value(bytes(head) + blocks).to_bytes(4, "little")
    return (
        bytes(head) + value(bytes(head)).to_bytes(4, "little") + blocks
        + bytes(trailer) + value(bytes(trailer)).to_bytes(4, "little")
    )  # fmt: skip


def test_a_file_of_version_one_is_read_and_has_no_configuration(disk):
    store = store_of(disk)
    writer = store.create(5, 3, b"payload", 2, b"who was a member")
    writer.write(b"image")
    meta = writer.commit()
    disk.put(slot(disk), first_version(disk.content(slot(disk)), b"payload"))
    disk.kill()
    again = store_of(disk)
    found = again.latest()
    assert found is not None
    assert (found.index, found.term, found.payload, found.prev_term) == (5, 3, b"payload", 2)
    assert (found.id, found.configuration) == (meta.id, b"")
    assert image_of(again, found) == b"image"


@pytest.mark.parametrize("version", [0, 3])
def test_a_file_of_another_version_is_refused(disk, version):
    make(store_of(disk), 5)
    data = bytearray(disk.content(slot(disk)))
    data[8:12] = version.to_bytes(4, "little")
    size = int.from_bytes(data[12:16], "little")
    data[size - 4 : size] = value(bytes(data[: size - 4])).to_bytes(4, "little")
    disk.put(slot(disk), bytes(data))
    disk.kill()
    with pytest.raises(Unsupported, match=f"format version {version}"):
        store_of(disk)


@pytest.mark.parametrize("configuration", [b"", b"c", bytes(range(256)) * 40])
def test_the_configuration_of_its_index_travels_with_it(disk, configuration):
    store = store_of(disk)
    writer = store.create(5, 3, b"payload", 2, configuration)
    writer.write(b"image")
    meta = writer.commit()
    assert meta.configuration == configuration
    disk.power_loss("none")
    assert store_of(disk).latest() == meta
    other = store_of(SimDisk(random.Random(2)))
    receiver = other.receive(meta.index, meta.term, meta.size, meta.crc, meta.id)
    finish(receiver, raw(store_of(disk), meta))
    assert other.latest() == meta


def test_a_configuration_larger_than_a_snapshot_may_carry_is_our_bug(disk):
    with pytest.raises(InvariantViolation):
        store_of(disk).create(5, 1, b"", 1, bytes(module._PAYLOAD_BYTES_MAX))


def test_right_checksums_over_wrong_content_refuse(disk):
    store = store_of(disk)
    meta = make(store, 5)
    path, data = slot(disk), disk.content(slot(disk))
    disk.kill()
    head = len(data) - 28 - 8 - len(b"image") - 4
    assert head == 68 + len(b"payload") + 4
    wrong = bytearray(data[:head])
    wrong[64:68] = (3).to_bytes(4, "little")  # the payload's length
    disk.put(path, bytes(wrong) + value(bytes(wrong)).to_bytes(4, "little") + data[head + 4 :])
    with pytest.raises(Damaged, match="contradicts itself"):
        store_of(disk)
    wrong[64:68] = len(b"payload").to_bytes(4, "little")
    wrong[head - 4] = 1  # the configuration's length
    disk.put(path, bytes(wrong) + value(bytes(wrong)).to_bytes(4, "little") + data[head + 4 :])
    with pytest.raises(Damaged, match="contradicts itself"):
        store_of(disk)
    wrong[head - 4] = 0
    wrong[68] ^= 1  # the payload itself
    disk.put(path, bytes(wrong) + value(bytes(wrong)).to_bytes(4, "little") + data[head + 4 :])
    with pytest.raises(Damaged, match="trailer does not match"):
        store_of(disk)
    trailer = bytearray(data[-28:-4])
    trailer[8] = 7  # the number of blocks
    disk.put(path, data[:-28] + bytes(trailer) + value(bytes(trailer)).to_bytes(4, "little"))
    with pytest.raises(Damaged, match="trailer does not match"):
        store_of(disk)
    disk.put(path, data)
    assert store_of(disk).latest() == meta


def test_damage_that_comes_later_is_found_while_reading(disk):
    store = store_of(disk)
    image = bytes(range(256)) * 10_000
    meta = make(store, 5, image)
    offset = meta.size - 1000
    disk.flip_bit(slot(disk), offset)
    pieces = store.pieces(meta)
    good: list[bytes] = []
    with pytest.raises(Damaged):
        good.extend(pieces)
    assert image.startswith(b"".join(good))  # nothing wrong was handed out
    disk.flip_bit(slot(disk), offset)
    disk.put(slot(disk), disk.content(slot(disk)))
    assert image_of(store, meta) == image


def test_a_slot_replaced_by_another_good_one_is_noticed(disk):
    store = store_of(disk)
    meta = make(store, 5)
    other = SimDisk(random.Random(9))
    make(store_of(other), 5)
    inode = disk.names[slot(disk)]
    inode.volatile[:] = other.content(slot(other))
    with pytest.raises(Damaged, match="not the snapshot"):
        image_of(store, meta)


def test_foreign_bytes_while_reading_are_damage(disk):
    store = store_of(disk)
    meta = make(store, 5)
    other = SimDisk(random.Random(9))
    make(store_of(other, b"x" * 16), 5)
    disk.names[slot(disk)].volatile[:] = other.content(slot(other))
    with pytest.raises(Damaged):
        image_of(store, meta)


# --- transfer ---------------------------------------------------------------------------


@pytest.fixture
def sender() -> tuple[SnapshotStore, SnapshotMeta]:
    store = store_of(SimDisk(random.Random(2)))
    return store, make(store, 50, random.Random(3).randbytes(600_000))


def receiver_of(store: SnapshotStore, meta: SnapshotMeta):
    return store.receive(meta.index, meta.term, meta.size, meta.crc, meta.id)


@pytest.mark.parametrize("chunk", [1000, 262_144, 1_000_000])
def test_travels_in_chunks_of_any_size(disk, sender, chunk):
    source, meta = sender
    store = store_of(disk)
    receiver = receiver_of(store, meta)
    for offset in range(0, meta.size, chunk):
        receiver.write(source.read(meta, offset, chunk))
    assert receiver.offset == meta.size
    assert receiver.commit() == meta
    assert source.read(meta, meta.size, 10) == b""
    disk.power_loss("none")
    assert image_of(store_of(disk), meta) == image_of(source, meta)


def test_a_damaged_chunk_never_becomes_a_slot(disk, sender):
    source, meta = sender
    data = raw(source, meta)
    rng = random.Random(4)
    for offset in [0, 9, 40, 60, len(data) - 1, *(rng.randrange(len(data)) for _ in range(20))]:
        store = store_of(disk)
        receiver = receiver_of(store, meta)
        bad = bytearray(data)
        bad[offset] ^= 1 << rng.randrange(8)
        with pytest.raises(BadTransfer):
            finish(receiver, bytes(bad))
        receiver.abort()
        assert disk.files(DIR) == []
        assert store.latest() is None


def test_incomplete_too_long_or_not_as_announced(disk, sender):
    source, meta = sender
    data = raw(source, meta)
    store = store_of(disk)
    receiver = receiver_of(store, meta)
    receiver.write(data[:-1])
    with pytest.raises(BadTransfer, match="ends after"):
        receiver.commit()
    receiver = receiver_of(store, meta)
    with pytest.raises(BadTransfer, match="more than"):
        receiver.write(data + b"\0")
    receiver.abort()
    for index, term, size, crc, id in [
        (51, meta.term, meta.size, meta.crc, None),
        (50, 9, meta.size, meta.crc, None),
        (50, meta.term, meta.size + 1, meta.crc, None),
        (50, meta.term, meta.size, meta.crc ^ 1, None),
        (50, meta.term, meta.size, meta.crc, "f" * 16),
    ]:
        receiver = store.receive(index, term, size, crc, id)
        receiver.write(data)
        with pytest.raises(BadTransfer, match="announced"):
            receiver.commit()
    assert disk.files(DIR) == []
    good = store.receive(50, meta.term, meta.size, meta.crc)
    good.write(data)
    assert good.commit() == meta


def test_a_foreign_cluster_cannot_send_us_its_state(disk, sender):
    source, meta = sender
    receiver = receiver_of(store_of(disk, b"x" * 16), meta)
    with pytest.raises(BadTransfer, match="another cluster"):
        receiver.write(raw(source, meta))


def test_an_old_snapshot_is_dropped(disk, sender):
    source, meta = sender
    store = store_of(disk)
    make(store, 60)
    receiver = receiver_of(store, meta)
    receiver.write(raw(source, meta))
    with pytest.raises(StaleSnapshot):
        receiver.commit()
    assert store.latest_index() == 60
    assert len(disk.files(DIR)) == 1


# --- crashes and failures ---------------------------------------------------------------


@pytest.mark.parametrize("tear", ["none", "prefix", "sectors", "all"])
def test_a_crash_at_every_call_leaves_the_old_or_the_new(tear):
    call = 1
    while True:
        disk = SimDisk(random.Random(call))
        store = store_of(disk)
        old = make(store, 5, b"old" * 1000)
        disk.crash_at(call=call)
        try:
            new = make(store, 6, b"new" * 100_000)
            break
        except SimCrash:
            disk.power_loss(tear)
        store = store_of(disk)
        latest = store.latest()
        assert latest is not None
        image = image_of(store, latest)
        assert image == (b"old" * 1000 if latest.index == 5 else b"new" * 100_000)
        assert len(disk.files(DIR)) == 1
        if latest.index == 5:
            assert latest == old
            make(store, 6)
        call += 1
    assert call > 6
    assert new.index == 6


def test_once_committed_it_stays(disk):
    store = store_of(disk)
    make(store, 5)
    meta = make(store, 6)
    disk.power_loss("none")
    assert store_of(disk).latest() == meta


@pytest.mark.parametrize("fault", ["sync", "full", "half full"])
def test_a_failing_disk_is_told(disk, fault):
    store = store_of(disk)
    old = make(store, 5)
    writer = store.create(6, 3, b"", 3)
    writer.write(bytes(300_000))
    if fault == "sync":
        disk.fail_syncs = 1
    elif fault == "full":
        disk.full = True
    else:
        disk.capacity = disk.used() + 100
    with pytest.raises(DiskFailed if fault == "sync" else DiskFull):
        finish(writer, bytes(300_000))
    disk.full, disk.capacity = False, None
    assert store.latest() == old
    disk.power_loss()
    assert store_of(disk).latest() == old


def test_syncs_along_the_way(disk, monkeypatch):
    monkeypatch.setattr(module, "_SYNC_BYTES", 1_000_000)
    store = store_of(disk)
    writer = store.create(5, 1, b"", 1)
    disk.take_busy_ns()
    for _ in range(12):
        writer.write(bytes(300_000))
    assert disk.take_busy_ns() == 3 * disk.sync_ns
    writer.commit()


def test_close_is_idempotent(disk):
    store = store_of(disk)
    make(store, 5)
    store.close()
    store.close()

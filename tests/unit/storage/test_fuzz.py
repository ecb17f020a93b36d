"""Hostile bytes: only StorageError may come out, and never wrong data."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftckpt.storage import BadTransfer, DataDirectory, SnapshotStore, Storage, StorageError
from raftckpt.storage import _records as rec
from tests.directories import open_founded
from tests.sim.disk import SimDisk

PATH = "/data"
ENTRIES = [(random.Random(i).randbytes(i * 13 % 300), i, 1 + i // 20) for i in range(1, 61)]


@pytest.fixture(scope="module")
def template() -> dict[str, bytes]:
    """A directory with a snapshot at 10, several segments and every kind of record."""
    disk = SimDisk(random.Random(1))
    storage = open_founded(disk.fs, PATH, segment_bytes=8192)
    journal = storage.journal
    journal.set_hard_state(9, "vote")
    for payload, index, term in ENTRIES:
        if index == 30:
            journal.append_entry(b"to be cut", index, term)
            journal.truncate_from(index)
        journal.append_entry(payload, index, term)
        if index % 3 == 0:
            journal.sync()
        if index == 40:
            journal.reset_to(list(journal))
    writer = storage.snapshots.create(10, ENTRIES[9][2], ENTRIES[9][0], ENTRIES[8][2])
    writer.write(b"image" * 200)
    writer.commit()
    storage.close()
    files = {path: disk.content(path) for path in disk.files(PATH)}
    files["confirmation"] = files[last_segment(files)][
        journal._offset - rec.RECORD_HEADER_BYTES : journal._offset
    ]
    return files


def check(files: dict[str, bytes]) -> bool:
    disk = SimDisk(random.Random(3))
    for name in ("", "/journal", "/snapshots"):
        disk.fs.mkdir(PATH + name)
    for path, data in files.items():
        if path.startswith(PATH):
            disk.put(path, data)
    refusal = ""
    try:
        storage = Storage.open(DataDirectory.open(disk.fs, PATH, "c", "n"), segment_bytes=8192)
        meta = storage.snapshots.latest()
        if meta is not None:
            assert b"".join(storage.snapshots.pieces(meta)) == b"image" * 200
    except StorageError as error:
        refusal = str(error)
    if refusal:
        assert len(refusal.splitlines()) == 3
        return False
    journal = storage.journal
    first = journal[0][1]
    assert first <= 10
    expected = ENTRIES[first - 1 :]
    if list(journal) == expected and (journal.term, journal.vote) == (9, "vote"):
        return True
    # All was synced, and confirmed by the close. Only where the confirmation went as well (and
    # zeros took its place) may damage look like a torn write: then the rest must be a prefix.
    assert files["confirmation"] not in files[last_segment(files)]
    assert list(journal) == expected[: len(journal)]
    return True


def last_segment(files: dict[str, bytes]) -> str:
    return max(path for path in files if path.endswith(".journal"))


def test_the_template_opens(template):
    assert len(template) >= 5
    assert check(template)


def damage(rng: random.Random, files: dict[str, bytes]) -> dict[str, bytes]:
    files = dict(files)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        paths = [p for p in files if p.startswith(PATH) and not p.endswith("lock")]
        if not paths:
            break
        path = rng.choice(paths)
        data = bytearray(files[path])
        size = len(data)
        where, other = rng.randrange(size + 1), rng.randrange(size + 1)
        match rng.randrange(9):
            case 0 if size:
                data[where % size] ^= 1 << rng.randrange(8)
            case 1:
                del data[where:]
            case 2:
                del data[where : where + rng.randrange(100)]
            case 3:
                data[where:where] = rng.randbytes(rng.randrange(100))
            case 4:
                data[where : where + rng.randrange(600)] = bytes(rng.randrange(600))
            case 5:
                data[where:where] = data[other : other + rng.randrange(400)]
            case 6:
                alien = files[rng.choice(list(files))]
                data[where:] = alien[where:]
            case 7:
                length = rng.randrange(1, 600)
                data[where : where + length] = data[other : other + length]
            case _:
                del files[path]
                continue
        files[path] = bytes(data)
    return files


@pytest.mark.parametrize("seed", range(8))
def test_damaged_directories_refuse_or_are_whole(template, seed):
    rng = random.Random(seed)
    opened = sum(check(damage(rng, template)) for _ in range(150))
    assert opened < 150


@given(st.binary(max_size=300), st.integers(0, 120))
@settings(max_examples=200, deadline=None)
def test_arbitrary_records(data, offset):
    record = rec.read_record(data, offset, 0)
    assert record is None or record.stop > offset
    rec.claims_synced(data, offset, 0, 5)
    for decode in (rec.unpack_reset, rec.unpack_vote, rec.unpack_segment_header):
        try:
            decode(data)
        except ValueError:
            continue


@given(
    st.lists(
        st.tuples(st.binary(max_size=50), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
        min_size=1,
    )
)
@settings(max_examples=100, deadline=None)
def test_reset_round_trip(entries):
    assert rec.unpack_reset(rec.pack_reset(entries)) == entries


def deliver(receiver, data):
    receiver.write(data)
    receiver.commit()


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
def test_arbitrary_transfers(data):
    store = SnapshotStore(SimDisk(random.Random(1)).fs, "/s")
    receiver = store.receive(5, 1, len(data), 0)
    with pytest.raises(BadTransfer):
        deliver(receiver, data)
    receiver.abort()
    assert store.latest() is None


def test_torn_shapes_are_never_refused_and_complete_ones_are():
    """looks_torn must accept every prefix and every subset of sectors of a write."""
    rng = random.Random(5)
    for _ in range(300):
        start = rng.randrange(2000)
        size = rng.randrange(1, 3000)
        full = bytes(start) + bytes(rng.randrange(1, 256) for _ in range(size))
        cut = start + rng.randrange(size)
        assert rec.looks_torn(full[:cut] + bytes(size), start, start + size)
        assert rec.looks_torn(full[:cut], start, start + size)
        assert not rec.looks_torn(full, start, start + size)
        sectors = sorted({offset // 512 for offset in range(start, start + size)})
        lost = rng.choice(sectors) * 512
        holed = bytearray(full)
        holed[lost : lost + 512] = bytes(len(holed[lost : lost + 512]))
        assert rec.looks_torn(bytes(holed), start, start + size)

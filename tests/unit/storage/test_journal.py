"""The journal: each recovery rule and each refusal."""

from __future__ import annotations

import random
import struct

import pytest
from google_crc32c import value

from raftckpt.errors import InvariantViolation
from raftckpt.storage import (
    Damaged,
    DiskFailed,
    DiskFull,
    Foreign,
    Journal,
    Missing,
    SnapshotMeta,
    StorageError,
    Unsupported,
)
from raftckpt.storage import _records as rec
from raftckpt.storage.journal import PLACEHOLDER
from tests.sim.disk import SimCrash, SimDisk

DIR = "/j"
FIRST = f"{DIR}/{1:020d}.journal"
OWNER = b"o" * 16


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk(random.Random(1))


def open_(disk: SimDisk, snapshot: SnapshotMeta | None = None, **options) -> Journal:
    options.setdefault("owner", OWNER)
    options.setdefault("segment_bytes", 64 * 1024)
    return Journal.open(disk.fs, DIR, snapshot, **options)


def fill(journal: Journal, count: int, term: int = 1, size: int = 10) -> None:
    start = journal[-1][1] + 1 if journal else 1
    for index in range(start, start + count):
        journal.append_entry(bytes([index % 255 + 1]) * size, index, term)


def fill_synced(journal: Journal, count: int) -> None:
    for _ in range(count):
        fill(journal, 1, size=800)
        journal.sync()


def synced(disk: SimDisk, groups: int = 3, size: int = 600) -> int:
    """Three synced groups of one entry, then a kill; returns the number of bytes of a record."""
    journal = open_(disk, segment_bytes=8192)
    for _ in range(groups):
        fill(journal, 1, size=size)
        journal.sync()
    disk.kill()
    return rec.RECORD_HEADER_BYTES + size


def meta(index: int, term: int, prev_term: int, payload: bytes = b"s") -> SnapshotMeta:
    return SnapshotMeta(index, term, payload, prev_term, 1, 1, "0" * 16)


# --- life without accidents -------------------------------------------------------------


def test_remembers_everything_over_a_restart(disk):
    journal = open_(disk)
    journal.set_hard_state(3, "n1", 2**64 - 1)
    journal.append_entry(b"", 1, 2)
    journal.append_entry(b"x" * 100_000, 2, 3)
    assert journal.dirty
    journal.sync()
    assert not journal.dirty
    journal.close()
    again = open_(disk)
    assert list(again) == [(b"", 1, 2), (b"x" * 100_000, 2, 3)]
    assert (again.term, again.vote, again.extra) == (3, "n1", 2**64 - 1)
    assert isinstance(again[0], tuple)
    assert again[0:1] == [(b"", 1, 2)]


def test_unsynced_changes_are_only_buffered(disk):
    journal = open_(disk)
    before = disk.calls
    fill(journal, 10)
    journal.truncate_from(5)
    journal.set_hard_state(1, None)
    assert disk.calls == before
    disk.power_loss()
    assert list(open_(disk)) == []


@pytest.mark.parametrize("vote", [None, "", "n1", "ж" * 32])
def test_votes_survive(disk, vote):
    journal = open_(disk)
    journal.set_hard_state(1, vote)
    journal.sync()
    disk.power_loss("none")
    assert open_(disk).vote == vote


def test_the_owners_number_stays_unless_given(disk):
    journal = open_(disk)
    assert (journal.term, journal.vote, journal.extra) == (0, None, 0)
    journal.set_hard_state(1, "a", 7)
    journal.set_hard_state(2, None)
    assert journal.extra == 7
    journal.sync()
    journal.set_hard_state(2, None, 7)
    assert not journal.dirty


def test_truncation_and_new_entries(disk):
    journal = open_(disk)
    fill(journal, 10, term=1)
    journal.sync()
    journal.truncate_from(11)  # nothing there
    assert not journal.dirty
    journal.truncate_from(4)
    journal.append_entry(b"new", 4, 2)
    expected = list(journal)
    journal.sync()
    disk.power_loss("none")
    assert list(open_(disk)) == expected
    assert [index for _payload, index, _term in expected] == [1, 2, 3, 4]


def test_after_a_truncation_terms_go_on_from_what_is_left(disk):
    journal = open_(disk)
    fill(journal, 2, term=2)
    fill(journal, 2, term=5)
    journal.truncate_from(3)
    with pytest.raises(InvariantViolation):
        journal.append_entry(b"", 3, 1)
    journal.sync()
    disk.kill()
    journal = open_(disk)
    with pytest.raises(InvariantViolation):
        journal.append_entry(b"", 3, 1)
    journal.append_entry(b"", 3, 2)
    journal.truncate_from(1)
    journal.append_entry(b"", 1, 1)  # nothing is left that it could contradict


def test_reset_replaces_everything_at_once(disk):
    journal = open_(disk)
    fill(journal, 10)
    journal.sync()
    journal.reset_to([(b"a", 20, 3), (b"b", 21, 4)])
    assert list(journal) == [(b"a", 20, 3), (b"b", 21, 4)]
    journal.append_entry(b"c", 22, 4)
    journal.sync()
    disk.power_loss("none")
    assert list(open_(disk, meta(21, 4, 3, b"b")))[-1] == (b"c", 22, 4)


def test_segments_rotate_and_go_only_when_compacted(disk):
    journal = open_(disk, segment_bytes=8192)
    journal.set_hard_state(7, "me", 5)
    for _ in range(100):
        fill(journal, 1, term=7, size=500)
        journal.sync()
    assert len(disk.files(DIR)) > 5
    assert journal.bytes_on_disk > 100 * 500
    journal.compact_to(90)
    assert journal[0][1] == 90
    for _ in range(20):
        fill(journal, 1, term=7, size=10)
        journal.sync()
    assert len(disk.files(DIR)) <= 3
    expected = list(journal)
    disk.power_loss("none")
    again = open_(disk, meta(91, 7, 7, expected[1][0]))
    assert list(again) == expected
    assert (again.term, again.vote, again.extra) == (7, "me", 5)


def test_old_segments_go_even_if_every_sync_fills_one(disk):
    journal = open_(disk, segment_bytes=8192)
    for number in range(1, 30):
        fill(journal, 1, size=9_000)
        journal.sync()
        journal.compact_to(max(1, number - 3))
    assert len(disk.files(DIR)) <= 6
    expected = list(journal)
    disk.power_loss("none")
    assert list(open_(disk, meta(27, 1, 1, expected[1][0]))) == expected


def test_a_group_larger_than_a_segment(disk):
    journal = open_(disk, segment_bytes=8192)
    fill(journal, 3, size=20_000)
    journal.sync()
    fill(journal, 3, size=20_000)
    journal.sync()
    expected = list(journal)
    disk.power_loss("none")
    assert list(open_(disk)) == expected


def test_restarts_do_not_pile_up_empty_segments(disk):
    for term in range(1, 30):
        journal = open_(disk)
        journal.set_hard_state(term, None)
        journal.sync()
        disk.power_loss("none")
    assert open_(disk).term == 29
    assert len(disk.files(DIR)) <= 4


def test_a_subclass_may_take_over_the_object(disk):
    class Seam(Journal):
        pass

    journal = open_(disk)
    journal.__class__ = Seam
    assert isinstance(Seam.open(disk.fs, "/other", None), Seam)


# --- misuse is our bug ------------------------------------------------------------------


def test_refuses_what_does_not_follow(disk):
    journal = open_(disk)
    fill(journal, 3, term=2)
    for payload, index, term in [(b"", 5, 2), (b"", 3, 2), (b"", 4, 1), (bytearray(), 4, 2)]:
        with pytest.raises(InvariantViolation):
            journal.append_entry(payload, index, term)
    with pytest.raises(InvariantViolation):
        journal.reset_to([])
    with pytest.raises(InvariantViolation):
        journal.reset_to([(b"", 5, 2), (b"", 7, 2)])
    with pytest.raises(InvariantViolation):
        journal.reset_to([(b"", 5, 2), (b"", 6, 1)])
    with pytest.raises(InvariantViolation):
        journal.compact_to(4)
    with pytest.raises(InvariantViolation):
        journal.truncate_from(0)
    journal.set_hard_state(2, "a")
    with pytest.raises(InvariantViolation):
        journal.set_hard_state(1, "a")
    for vote in ("b", None):
        with pytest.raises(InvariantViolation):
            journal.set_hard_state(2, vote)
    with pytest.raises(InvariantViolation):
        journal.set_hard_state(3, "x" * 1000)
    assert len(journal) == 3


def test_compaction_needs_a_snapshot_that_covers_it(disk):
    journal = open_(disk, guard=lambda: 5)
    fill(journal, 10)
    journal.sync()
    with pytest.raises(InvariantViolation):
        journal.compact_to(5)
    journal.compact_to(4)
    assert journal[0][1] == 4


@pytest.mark.parametrize(
    "name", ["append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"]
)
def test_list_mutators_refuse(disk, name):
    with pytest.raises(InvariantViolation):
        getattr(open_(disk), name)()


def test_list_operators_refuse(disk):
    journal = open_(disk)
    fill(journal, 2)
    with pytest.raises(InvariantViolation):
        journal[0] = (b"", 1, 1)
    with pytest.raises(InvariantViolation):
        del journal[0]
    with pytest.raises(InvariantViolation):
        journal += [(b"", 3, 1)]


# --- disk failures ----------------------------------------------------------------------


def test_after_a_failed_sync_nothing_is_written_again(disk):
    journal = open_(disk)
    fill(journal, 1)
    journal.sync()
    fill(journal, 1)
    disk.fail_syncs = 1
    with pytest.raises(DiskFailed):
        journal.sync()
    before = disk.calls
    for attempt in (
        journal.sync,
        lambda: journal.append_entry(b"", 3, 1),
        lambda: journal.set_hard_state(9, None),
        lambda: journal.truncate_from(1),
        lambda: journal.reset_to([(b"", 1, 1)]),
        lambda: journal.compact_to(1),
        journal.confirm,
    ):
        with pytest.raises(DiskFailed):
            attempt()
    journal.close()
    assert disk.calls == before
    disk.power_loss("all")
    # what the failed sync lost was never durable, whatever a later one would have said
    assert [index for _payload, index, _term in open_(disk)] == [1]


def test_any_failure_is_final(disk):
    journal = open_(disk)
    fill(journal, 1)
    disk.crash_at(label="journal.write.before")
    with pytest.raises(SimCrash):
        journal.sync()
    with pytest.raises(DiskFailed, match="SimCrash"):
        journal.sync()


def test_after_a_failed_sync_and_a_kill_the_truth_is_read_from_the_disk(disk):
    journal = open_(disk)
    fill(journal, 2)
    disk.fail_syncs = 1
    with pytest.raises(DiskFailed):
        journal.sync()
    disk.kill()
    assert list(open_(disk)) == []


def test_full_disk(disk):
    journal = open_(disk)
    fill(journal, 1)
    journal.sync()
    disk.full = True
    fill(journal, 1)
    with pytest.raises(DiskFull) as caught:
        journal.sync()
    assert str(caught.value).count("\n") == 2
    with pytest.raises(DiskFull):
        journal.append_entry(b"", 3, 1)
    disk.full = False
    disk.kill()
    assert len(open_(disk)) == 1


def test_full_disk_at_rotation(disk):
    journal = open_(disk, segment_bytes=8192)
    disk.capacity = disk.used() + 4000
    with pytest.raises(DiskFull):
        fill_synced(journal, 10)
    disk.capacity = None
    disk.power_loss("none")
    assert len(open_(disk)) >= 5


def test_read_error(disk):
    synced(disk)
    disk.fail_reads = True
    with pytest.raises(DiskFailed):
        open_(disk)


def test_a_closed_journal_refuses(disk):
    journal = open_(disk)
    journal.close()
    journal.close()
    with pytest.raises(StorageError):
        journal.append_entry(b"", 1, 1)


# --- torn or damaged --------------------------------------------------------------------


def test_a_torn_tail_is_cut(disk):
    journal = open_(disk)
    fill(journal, 2)
    journal.sync()
    fill(journal, 2)
    disk.crash_at(label="journal.sync.before")
    with pytest.raises(SimCrash):
        journal.sync()
    disk.tear_exactly(FIRST, 70)  # one record of 58 bytes and a bit
    assert len(open_(disk)) == 3
    disk.kill()
    assert len(open_(disk)) == 3


def test_a_file_cut_short_refuses(disk):
    """A torn write leaves zeros in a preallocated file; it never makes the file shorter."""
    size = synced(disk)
    data = disk.content(FIRST)
    for stop in (rec.HEADER_BYTES, rec.HEADER_BYTES + size, len(data) - 1):
        disk.put(FIRST, data[:stop])
        with pytest.raises(Damaged, match="cut short"):
            open_(disk)


def test_damage_before_a_later_group_refuses(disk):
    size = synced(disk)
    for record in range(2):
        for offset in (0, 5, 30, 47, 48, size - 1):
            position = rec.HEADER_BYTES + record * size + offset
            disk.flip_bit(FIRST, position)
            before = {path: disk.content(path) for path in disk.files()}
            with pytest.raises(Damaged) as caught:
                open_(disk)
            assert "rejoin" in caught.value.remedy
            assert {path: disk.content(path) for path in disk.files()} == before
            disk.flip_bit(FIRST, position)
    assert len(open_(disk)) == 3


def test_a_zeroed_sector_before_a_later_group_refuses(disk):
    size = synced(disk)
    start = rec.HEADER_BYTES + size
    data = bytearray(disk.content(FIRST))
    data[start : start + 512] = bytes(512)
    disk.put(FIRST, bytes(data))
    with pytest.raises(Damaged, match="later one proves"):
        open_(disk)


def test_damage_in_the_last_group_refuses_if_it_cannot_be_a_torn_write(disk):
    size = synced(disk)
    for offset in (4, 20, 46, 48, 300, size - 1):
        position = rec.HEADER_BYTES + 2 * size + offset
        disk.flip_bit(FIRST, position, 3)
        with pytest.raises(Damaged, match="written completely"):
            open_(disk)
        disk.flip_bit(FIRST, position, 3)


def test_what_looks_like_a_torn_write_in_the_last_group_is_cut_unless_confirmed(disk):
    """The undecidable case, and what :meth:`Journal.confirm` does about it."""
    size = synced(disk)
    start = rec.HEADER_BYTES + 2 * size
    data = bytearray(disk.content(FIRST))
    data[start : start + size] = bytes(size)
    disk.put(FIRST, bytes(data))
    assert len(open_(disk)) == 2

    confirmed = SimDisk(random.Random(1))
    journal = open_(confirmed, segment_bytes=8192)
    fill(journal, 3, size=600)
    journal.sync()
    journal.confirm()
    assert journal.dirty
    journal.sync()
    journal.confirm()
    assert not journal.dirty  # there is nothing new to confirm
    confirmed.kill()
    data = bytearray(confirmed.content(FIRST))
    data[start : start + size] = bytes(size)
    confirmed.put(FIRST, bytes(data))
    with pytest.raises(Damaged):
        open_(confirmed)


def test_close_confirms(disk):
    journal = open_(disk)
    fill(journal, 1)
    journal.close()
    disk.kill()
    data = bytearray(disk.content(FIRST))
    data[4096 : 4096 + 58] = bytes(58)
    disk.put(FIRST, bytes(data))
    with pytest.raises(Damaged):
        open_(disk)


def test_a_payload_that_looks_like_a_later_record_is_not_taken_for_one(disk):
    journal = open_(disk)
    fill(journal, 1)
    journal.sync()
    forged = rec.record_header(rec.ENTRY, b"", 50, 49, 9, 9, 0)  # anybody may know the format
    journal.append_entry(b"\1" * 600 + forged * 20 + b"\1" * 600, 2, 1)
    disk.crash_at(label="journal.sync.before")
    with pytest.raises(SimCrash):
        journal.sync()
    end = rec.HEADER_BYTES + 58 + 48
    disk.tear_exactly(FIRST, 48 + 600 + 48 * 20)
    assert forged in disk.content(FIRST)[end:]
    assert len(open_(disk)) == 1


def test_without_fsync_nothing_claims_to_be_durable(disk):
    journal = open_(disk, fsync=False)
    for _ in range(3):
        fill(journal, 1)
        journal.sync()
    journal.confirm()
    assert not journal.dirty
    path = FIRST
    disk.tear_exactly(path, 60)
    assert len(open_(disk, fsync=False)) == 1


def test_without_fsync_segments_are_synced_when_they_are_closed(disk):
    journal = open_(disk, segment_bytes=8192, fsync=False)
    fill_synced(journal, 12)
    assert journal.synced_sequence >= 5
    assert len(disk.files(DIR)) > 1
    disk.power_loss("none")
    assert 5 <= len(open_(disk, fsync=False)) < 12


@pytest.mark.parametrize("fsync", [True, False])
def test_a_closed_segment_is_on_the_disk_before_the_next_one_exists(disk, fsync):
    journal = open_(disk, segment_bytes=8192, fsync=fsync)
    disk.crash_at(label="journal.segment.rename.before")
    with pytest.raises(SimCrash):
        fill_synced(journal, 12)
    assert disk.files(DIR) == [FIRST, f"{DIR}/{2:020d}.journal.tmp"]
    assert disk.unsynced(FIRST) == 0


def test_damage_in_an_older_segment_refuses(disk):
    journal = open_(disk, segment_bytes=8192)
    fill_synced(journal, 10)
    disk.kill()
    data = disk.content(FIRST)
    disk.put(FIRST, data[:7000])
    with pytest.raises(Damaged):
        open_(disk)
    disk.put(FIRST, data)
    disk.flip_bit(FIRST, 5000)
    with pytest.raises(Damaged):
        open_(disk)
    disk.flip_bit(FIRST, 5000)
    assert len(open_(disk)) == 10


def segments(disk: SimDisk) -> list[str]:
    journal = open_(disk, segment_bytes=8192)
    fill_synced(journal, 20)
    disk.kill()
    files = disk.files(DIR)
    assert len(files) >= 3
    return files


def test_a_missing_segment_refuses(disk):
    files = segments(disk)
    data = disk.content(files[1])
    disk.remove(files[1])
    with pytest.raises(Missing, match=r"put the file back"):
        open_(disk)
    disk.put(files[1], data)
    assert len(open_(disk)) == 20


def test_a_missing_last_segment_refuses(disk):
    files = segments(disk)
    disk.remove(files[-1])
    with pytest.raises(Missing, match="continued in"):
        open_(disk)


def test_a_missing_first_segment_refuses(disk):
    files = segments(disk)
    disk.remove(files[0])
    with pytest.raises(Damaged, match="there is no snapshot"):
        open_(disk)


def test_no_segment_at_all_refuses_where_there_was_one(disk):
    with pytest.raises(Missing, match="rejoin"):
        open_(disk, new_ok=False)
    with pytest.raises(Missing):
        open_(disk, meta(5, 1, 1))


def test_swapped_and_copied_segments_refuse(disk):
    files = segments(disk)
    data = [disk.content(path) for path in files]
    disk.put(files[0], data[1])
    with pytest.raises(Damaged, match="renamed or copied"):
        open_(disk)
    disk.put(files[0], data[0])
    other = SimDisk(random.Random(2))  # same content, another life of the same node
    for path, alien in zip(segments(other), other.files(DIR), strict=True):
        assert path == alien
    disk.put(files[1], other.content(files[1]))
    with pytest.raises(Damaged, match="does not continue"):
        open_(disk)


def test_a_foreign_journal_refuses(disk):
    synced(disk)
    with pytest.raises(Foreign):
        open_(disk, owner=b"x" * 16)


def rewritten(data: bytes, offset: int, part: bytes) -> bytes:
    """Change the segment header and make its checksum right again."""
    block = bytearray(data[: rec.HEADER_BYTES])
    block[offset : offset + len(part)] = part
    block[-4:] = struct.pack("<I", value(bytes(block[:-4])))
    return bytes(block) + data[rec.HEADER_BYTES :]


def test_another_version_refuses(disk):
    synced(disk)
    disk.put(FIRST, rewritten(disk.content(FIRST), 8, struct.pack("<I", 2)))
    with pytest.raises(Unsupported, match="version 2"):
        open_(disk)


def test_a_header_that_lies_refuses(disk):
    synced(disk)
    good = disk.content(FIRST)
    disk.put(FIRST, rewritten(good, 92, b"\3abc"))  # a malformed vote
    with pytest.raises(Damaged):
        open_(disk)
    disk.put(FIRST, rewritten(good, 36, struct.pack("<Q", 9)))  # first sequence
    with pytest.raises(Damaged):
        open_(disk)
    disk.put(FIRST, good[:100])
    with pytest.raises(Damaged):
        open_(disk)
    disk.put(FIRST, b"")
    with pytest.raises(Damaged):
        open_(disk)


@pytest.mark.parametrize(
    ("kind", "payload", "number", "term"),
    [
        (rec.ENTRY, b"", 3, 1),  # a hole
        (rec.ENTRY, b"", 2, 0),  # the term falls
        (rec.STATE, b"", 0, 0),  # the term falls
        (rec.STATE, b"abc", 0, 9),  # malformed vote
        (rec.STATE, b"=\xff", 0, 9),  # not UTF-8
        (rec.TRUNCATE, b"", 7, 1),  # beyond the end
        (rec.TRUNCATE, b"", 0, 1),
        (rec.RESET, b"", 0, 1),
        (rec.RESET, b"abc", 0, 1),
        (rec.RESET, struct.pack("<QQI", 5, 1, 100), 0, 1),
        (rec.RESET, struct.pack("<QQI", 5, 1, 0) + struct.pack("<QQI", 7, 1, 0), 0, 1),
        (rec.CONTINUED, b"", 2, 0),
        (rec.ENTRY | 0x7F, b"", 2, 1),  # unknown kind
    ],
)
def test_a_valid_record_that_makes_no_sense_refuses(disk, kind, payload, number, term):
    journal = open_(disk)
    journal.set_hard_state(1, None)
    fill(journal, 1)
    journal._record(kind, payload, number, term)
    journal.sync()
    disk.kill()
    with pytest.raises((Damaged, Missing, Unsupported)):
        open_(disk)


def test_a_footer_before_the_end_refuses(disk):
    journal = open_(disk, segment_bytes=8192)
    fill(journal, 1)
    journal._record(rec.CONTINUED, b"", 2, 0)
    fill_synced(journal, 10)
    disk.kill()
    with pytest.raises(Damaged, match="before the next one begins"):
        open_(disk)


def test_a_record_out_of_place_refuses(disk):
    journal = open_(disk)
    fill(journal, 1)
    journal._sequence += 1
    fill(journal, 1)
    journal.sync()
    disk.kill()
    with pytest.raises(Damaged, match="has number"):
        open_(disk)


def test_an_absurdly_large_file_refuses_without_reading_it(disk, monkeypatch):
    synced(disk)
    from raftckpt.storage import _recovery

    monkeypatch.setattr(_recovery, "_SEGMENT_FILE_BYTES_MAX", 1000)
    with pytest.raises(Damaged, match="never written"):
        open_(disk)


def test_half_made_segments_are_tidied_up(disk):
    journal = open_(disk)
    disk.put(f"{DIR}/{9:020d}.journal.tmp", b"half")
    journal.close()
    open_(disk)
    assert not [path for path in disk.files() if path.endswith(".tmp")]


# --- the snapshot and the journal -------------------------------------------------------


def log_of(disk: SimDisk, terms: list[int]) -> None:
    journal = open_(disk)
    journal.set_hard_state(max(terms, default=0), "v")
    for index, term in enumerate(terms, 1):
        journal.append_entry(b"%d.%d" % (index, term), index, term)
    journal.sync()
    disk.kill()


def test_a_journal_that_holds_the_snapshot_keeps_its_tail(disk):
    log_of(disk, [1, 1, 2, 2, 2])
    journal = open_(disk, meta(3, 2, 1, b"3.2"))
    assert list(journal) == [(b"2.1", 2, 1), (b"3.2", 3, 2), (b"4.2", 4, 2), (b"5.2", 5, 2)]


def test_a_journal_that_ends_below_the_snapshot_is_replaced(disk):
    log_of(disk, [1, 1])
    expected = [(PLACEHOLDER, 4, 2), (b"s", 5, 3)]
    journal = open_(disk, meta(5, 3, 2))
    assert list(journal) == expected
    assert (journal.term, journal.vote) == (3, None)  # the vote was given in an older term
    disk.power_loss("none")
    assert list(open_(disk, meta(5, 3, 2))) == expected


def test_an_empty_journal_is_replaced_too(disk):
    open_(disk)
    disk.kill()
    assert [i for _p, i, _t in open_(disk, meta(5, 3, 2))] == [4, 5]


def test_a_conflicting_entry_takes_its_tail_with_it(disk):
    log_of(disk, [1, 1, 1, 1, 1])
    journal = open_(disk, meta(3, 2, 1))
    assert list(journal) == [(PLACEHOLDER, 2, 1), (b"s", 3, 2)]


def test_a_journal_above_the_snapshot_refuses(disk):
    log_of(disk, [1] * 10)
    open_(disk, meta(8, 1, 1, b"8.1"))
    disk.kill()
    # entries 1..6 are still in a segment; take them away as compaction would
    journal = open_(disk, meta(8, 1, 1, b"8.1"))
    journal.reset_to(list(journal))
    journal.append_entry(b"", 11, 1)
    journal.sync()
    disk.kill()
    with pytest.raises(Damaged, match="newer snapshot is gone"):
        open_(disk, meta(7, 1, 1, b"7.1"))
    with pytest.raises(Damaged, match="there is no snapshot"):
        open_(disk)
    assert open_(disk, meta(8, 1, 1, b"8.1"))[-1][1] == 11


def test_a_snapshot_that_contradicts_the_journal_refuses(disk):
    log_of(disk, [1, 1, 2])
    with pytest.raises(Damaged, match="differs"):
        open_(disk, meta(3, 2, 1, b"other"))
    with pytest.raises(Damaged, match="differs"):
        open_(disk, meta(3, 2, 2, b"3.2"))


# --- speed ------------------------------------------------------------------------------


def test_appending_copies_no_payload(disk):
    journal = open_(disk)
    payload = bytes(1 << 20)
    journal.append_entry(payload, 1, 1)
    assert journal[0][0] is payload
    assert any(buffer is payload for buffer in journal._buffers)


def test_one_write_and_one_sync_per_group(disk):
    journal = open_(disk)
    fill(journal, 100)
    before = disk.calls
    journal.sync()
    assert disk.calls - before == 2

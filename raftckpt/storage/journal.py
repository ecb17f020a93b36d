"""The journal: entries, term and vote in one checksummed order, durable after :meth:`Journal.sync`.

Owns: the segment files of its directory and the list of live entries. Does not own: what an entry
means, snapshots, when to sync. Invariants:

* Every change is one record; records are written in the order of the calls. After a crash the
  state is the synced one plus any prefix of the later records, nothing else.
* Indices of the list are contiguous, terms never fall.
* A segment is synced before its successor exists, and deleted only when neither a live entry nor
  the hard state depends on it (each segment's header carries the hard state).
* After one failed write or sync nothing is ever written again: a second fsync may report success
  for pages that the first one lost.
* Each start begins a new segment: a torn tail is never written over, so that no stale record can
  be taken for a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn, Self

from google_crc32c import extend, value

from raftckpt.errors import InvariantViolation, ensure
from raftckpt.limits import JOURNAL_SEGMENT_BYTES, KIB
from raftckpt.protocol.contract import NODE_ID_BYTES_MAX
from raftckpt.storage import _records as rec
from raftckpt.storage._recovery import (
    REJOIN,
    Entry,
    Recovered,
    Segment,
    damaged,
    recover,
    segment_name,
)
from raftckpt.storage.files import DiskFailed, File, FileSystem, Missing, StorageError, join
from raftckpt.storage.snapshots import SnapshotMeta

__all__ = ["PLACEHOLDER", "Journal"]

PLACEHOLDER: Final = b""
"""Payload of the entry below a snapshot's last when only its term is known. It is applied on every
replica already, so that nobody ever looks at its payload."""

_ZERO_AHEAD: Final = bytes(256 * KIB)
_SMALL_GROUP_BYTES: Final = 64 * KIB
"""Where writing zeros first costs less than the blocks' first write (a guess)."""

_list_append = list.append
_ENTRY = rec.ENTRY
_pack_record = rec._pack_record
_pack_crc = rec._pack_crc


def _no_owner() -> bytes:
    return bytes(rec.OWNER_BYTES)


class Journal(list[Entry]):
    """The live entries ``(payload, index, term)`` as a list, kept on disk.

    Change it by its own methods only; the list's mutators refuse. Any :class:`StorageError` of a
    changing call is final: the process must stop.

    Attributes:
        term: current term.
        vote: who got this replica's vote in ``term``.
        extra: a number that the owner keeps with term and vote (0..2**64-1).
        syncs: groups of changes made durable since the start.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        owner: bytes,
        *,
        fsync: bool,
        segment_bytes: int,
        guard: Callable[[], int] | None,
    ) -> None:
        """Use :meth:`open`."""
        super().__init__()
        self._fs = fs
        self._directory = directory
        self._owner = owner
        self._fsync = fsync
        self._segment_bytes = segment_bytes
        self._guard = guard
        self._segments: list[Segment] = []
        self._buffers: list[bytes] = []
        self._pending = 0
        self._failure: BaseException | None = None
        self._sequence = 0  # of the last record
        self._claim = 0  # the highest sequence known durable
        self._crc = 0
        self._salt = 0
        self._offset = 0
        self._zeroed = 0
        self._unconfirmed = False
        self._next_index = 1
        self._last_term = 0
        self._first_kept = 1
        self.term = 0
        self.vote: str | None = None
        self.extra = 0
        self.syncs = 0
        self._file: File

    # --- opening --------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        fs: FileSystem,
        directory: str,
        snapshot: SnapshotMeta | None,
        *,
        fsync: bool = True,
        segment_bytes: int = JOURNAL_SEGMENT_BYTES,
        owner: bytes = b"",
        new_ok: bool = True,
        guard: Callable[[], int] | None = None,
    ) -> Self:
        """Open or create the journal, cut a torn tail, align it with the latest snapshot.

        Arguments:
            fs: the file system.
            directory: the journal's own directory; it is made.
            snapshot: the latest durable snapshot, already verified.
            fsync: False leaves durability to the page cache (a killed process loses nothing, a
                power loss does).
            segment_bytes: size at which a segment is closed.
            owner: 16 bytes that tell whose journal it is; empty for tests.
            new_ok: whether it may be created.
            guard: returns the index of the latest durable snapshot; compaction above it is refused.

        Raises:
            Damaged: something that was durable is wrong or gone; nothing was changed.
            Missing: there is no journal and ``new_ok`` is False, or a segment is gone.
            Foreign: another node's journal.
            Unsupported: written by another version.
            DiskFull: no room for a segment.
            DiskFailed: a system call failed.
        """
        owner = owner or _no_owner()
        ensure(len(owner) == rec.OWNER_BYTES, "the owner hash has 16 bytes")
        fs.mkdir(directory)
        found = recover(fs, directory, owner)
        if found is None:
            if not new_ok or snapshot is not None:
                raise Missing(
                    f"opening the journal {directory} failed",
                    "the data directory has no journal, but it had one",
                    f"put the files back if they were moved; else {REJOIN}",
                )
            found = Recovered([], 0, None, 0, 0, 0, 1, [], 0, 0)
        keep = _aligned(directory, found, snapshot)
        # Everything is checked: from here on the directory may be changed.
        journal = cls(fs, directory, owner, fsync=fsync, segment_bytes=segment_bytes, guard=guard)
        journal._resume(found)
        if snapshot is not None:
            if keep:
                journal._drop_below(snapshot.index - 1)
            else:
                journal._reset_under(snapshot)
            journal.sync()
        return journal

    def _resume(self, found: Recovered) -> None:
        fs = self._fs
        for name in fs.listdir(self._directory):
            if name.endswith(".tmp"):  # a segment whose creation was cut short
                fs.unlink(join(self._directory, name))
        list.extend(self, found.entries)
        self.term, self.vote, self.extra = found.term, found.vote, found.extra
        self._next_index = found.last_index + 1
        self._last_term = found.last_term
        self._first_kept = found.entries[0][1] if found.entries else self._next_index
        self._sequence = self._claim = found.next_sequence - 1
        self._segments = found.segments
        self._salt, self._crc = found.salt, found.crc
        former: File | None = None
        if found.segments:
            former = fs.open(join(self._directory, segment_name(found.segments[-1].number)))
        fs.fsync_dir(self._directory)  # a name that a killed process made may not be durable yet
        self._start_segment(former)

    def _reset_under(self, snapshot: SnapshotMeta) -> None:
        self.reset_to(
            [
                (PLACEHOLDER, snapshot.index - 1, snapshot.prev_term),
                (snapshot.payload, snapshot.index, snapshot.term),
            ]
        )
        if snapshot.term > self.term:
            self.set_hard_state(snapshot.term, None, self.extra)

    # --- changes (buffered until sync) ------------------------------------------------------

    def append_entry(self, payload: bytes, index: int, term: int) -> None:
        """Append an entry; durable after :meth:`sync`. The payload is not copied.

        Raises:
            StorageError: an earlier write or sync failed.
            InvariantViolation: the index does not follow, the term falls, not ``bytes``.
        """
        if self._failure is not None:
            self._refuse()
        if index != self._next_index or term < self._last_term or payload.__class__ is not bytes:
            self._misuse(payload, index, term)
        self._record(_ENTRY, payload, index, term)
        self._next_index = index + 1
        self._last_term = term
        _list_append(self, (payload, index, term))

    def truncate_from(self, index: int) -> None:
        """Drop the entries from ``index`` on; nothing happens if there are none.

        Raises:
            StorageError: an earlier write or sync failed.
            InvariantViolation: ``index`` lies below the first entry.
        """
        if self._failure is not None:
            self._refuse()
        if index >= self._next_index:
            return
        ensure(len(self) > 0 and index >= self[0][1], f"truncation from {index} below the log")
        position = index - self[0][1]
        self._last_term = self[position - 1][2] if position else 0
        self._next_index = index
        list.__delitem__(self, slice(position, None))
        for segment in self._segments:
            segment.first_index = min(segment.first_index, index)
        self._record(rec.TRUNCATE, b"", index, self._last_term)

    def reset_to(self, entries: list[Entry]) -> None:
        """Replace the whole log by exactly these entries, as one record (all or nothing).

        Raises:
            StorageError: an earlier write or sync failed.
            InvariantViolation: no entries, or indices and terms do not follow.
        """
        if self._failure is not None:
            self._refuse()
        ensure(entries, "a journal is never reset to nothing")
        last_index, last_term = entries[0][1] - 1, 0
        for payload, index, term in entries:
            if index != last_index + 1 or term < last_term or payload.__class__ is not bytes:
                raise InvariantViolation(f"reset: entry ({index}, {term}) after {last_index}")
            last_index, last_term = index, term
        list.__delitem__(self, slice(None))
        list.extend(self, [(payload, index, term) for payload, index, term in entries])
        self._next_index = last_index + 1
        self._last_term = last_term
        self._first_kept = entries[0][1]
        for segment in self._segments:
            segment.first_index = self._first_kept
        self._record(rec.RESET, rec.pack_reset(entries), last_index, last_term)

    def compact_to(self, index: int) -> None:
        """Drop the entries below ``index`` from memory, and later the segments that held them.

        Files go at the end of the following syncs, one at a time. Only after a snapshot of
        ``index`` or above is durable.

        Raises:
            StorageError: an earlier write or sync failed.
            InvariantViolation: beyond the end of the log, or no durable snapshot covers it.
        """
        if self._failure is not None:
            self._refuse()
        if self._guard is not None:
            ensure(
                index < self._guard(), f"compaction to {index} without a snapshot that covers it"
            )
        self._drop_below(index)

    def _drop_below(self, index: int) -> None:
        ensure(index < self._next_index, f"compaction to {index} beyond the log")
        if len(self) and index > self[0][1]:
            list.__delitem__(self, slice(0, index - self[0][1]))
            self._first_kept = index

    def set_hard_state(self, term: int, vote: str | None, extra: int | None = None) -> None:
        """Set term, vote and the owner's number; durable after :meth:`sync`.

        Arguments:
            term: never falls.
            vote: in the same term it can be given once and not taken back.
            extra: None keeps it.

        Raises:
            StorageError: an earlier write or sync failed.
            InvariantViolation: the term falls, or the vote of a term changes.
        """
        if self._failure is not None:
            self._refuse()
        if extra is None:
            extra = self.extra
        if term == self.term and vote == self.vote and extra == self.extra:
            return
        ensure(term >= self.term, f"the term falls from {self.term} to {term}")
        ensure(
            term > self.term or vote == self.vote or self.vote is None,
            f"the vote of term {term} changes from {self.vote} to {vote}",
        )
        data = rec.pack_vote(vote)
        ensure(len(data) <= NODE_ID_BYTES_MAX + 1, "node id too long")
        self.term, self.vote, self.extra = term, vote, extra
        self._record(rec.STATE, data, extra, term)

    def note_extra(self, extra: int) -> None:
        """Set the owner's number alone; durable after :meth:`sync`.

        Raises:
            StorageError: an earlier write or sync failed.
        """
        if self._failure is not None:
            self._refuse()
        self.extra = extra
        self._record(rec.STATE, rec.pack_vote(self.vote), extra, self.term)

    def confirm(self) -> None:
        """Record that everything synced so far is durable (buffered; call it when idle, then sync).

        Without it a later start cannot tell damage in the very last synced group from a torn
        write. Nothing happens if there is nothing new to confirm.
        """
        if self._failure is not None:
            self._refuse()
        if self._unconfirmed and not self._buffers and self._fsync:
            self._record(rec.CONFIRM, b"", 0, 0)

    def _record(self, kind: int, payload: bytes, index: int, term: int) -> None:
        sequence = self._sequence = self._sequence + 1
        size = len(payload)
        # record_header() by hand: it comes twice with every write, and the checksum is kept
        head = _pack_record(kind, size, value(payload), sequence, self._claim, index, term)
        crc = self._crc = extend(self._salt, head)
        self._buffers.append(head + _pack_crc(crc))
        if payload:
            self._buffers.append(payload)
        self._pending += rec.RECORD_HEADER_BYTES + size

    # --- durability -------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether there are changes that :meth:`sync` has not made durable yet."""
        return bool(self._buffers)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes in use in all segments (preallocated space not counted)."""
        return sum(segment.size for segment in self._segments[:-1]) + self._offset

    @property
    def synced_sequence(self) -> int:
        """Number of the last durable record (for inspection)."""
        return self._claim

    def sync(self) -> None:
        """Write and fdatasync all changes. Nothing that depends on them may leave before.

        Raises:
            StorageError: it failed, now or earlier; the journal is unusable from then on.
        """
        if self._failure is not None:
            self._refuse()
        try:
            if self._buffers:
                self._flush()
            if self._offset >= self._segment_bytes:
                self._rotate()
            if len(self._segments) > 1 and self._segments[1].first_index <= self._first_kept:
                self._delete_oldest()
        except BaseException as error:
            self._failure = error
            raise

    def _flush(self) -> None:
        fs, file, buffers, pending = self._fs, self._file, self._buffers, self._pending
        sequence = self._sequence
        self._buffers, self._pending = [], 0
        end = self._offset + pending
        self._unconfirmed = sequence > self._claim + 1 or not rec.is_confirm(buffers[0])
        fs.point("journal.write.before")
        if self._fsync:
            if pending < _SMALL_GROUP_BYTES and end > self._zeroed:
                # First writes to preallocated blocks change metadata, which makes the sync dear:
                # do it for many small groups at once.
                ahead = max(0, min(len(_ZERO_AHEAD), self._segment_bytes - end))
                buffers.append(_ZERO_AHEAD[:ahead])
                self._zeroed = end + ahead
            file.write(self._offset, buffers)
            fs.point("journal.sync.before")
            file.sync()
            self.syncs += 1
            fs.point("journal.sync.after")
            # Only a real sync may claim durability: a false claim would turn a torn tail into
            # "damage" later.
            self._claim = sequence
        else:
            file.write(self._offset, buffers)
        self._offset = end

    def _rotate(self) -> None:
        fs = self._fs
        ensure(not self._buffers, "a segment is closed between two groups")
        fs.point("journal.rotate.before")
        if not self._fsync:
            self._file.sync()  # the rule "only the last segment can be torn" holds always
        self._segments[-1].size = self._offset
        self._claim = self._sequence
        self._start_segment(self._file)
        fs.point("journal.rotate.after")

    def _start_segment(self, former: File | None) -> None:
        """Create the next segment durably, then note in the former one that it exists."""
        fs, directory = self._fs, self._directory
        number = self._segments[-1].number + 1 if self._segments else 1
        salt = int.from_bytes(fs.random_bytes(4), "little")
        header = rec.SegmentHeader(
            self._owner, number, self._sequence + 1, salt, self._salt, self._crc,
            self._segment_bytes, self.term, self.vote, self.extra, self._next_index - 1,
            self._last_term,
        )  # fmt: skip
        path = join(directory, segment_name(number))
        fs.point("journal.segment.create")
        file = fs.open(path + ".tmp", create=True)
        file.preallocate(self._segment_bytes)
        file.write(0, [rec.pack_segment_header(header)])
        fs.point("journal.segment.header.written")
        file.sync()
        fs.point("journal.segment.rename.before")
        fs.rename(path + ".tmp", path)
        fs.point("journal.segment.rename.after")
        fs.fsync_dir(directory)
        fs.point("journal.segment.durable")
        if former is not None:
            self._continue_in(former, number)
        self._segments.append(Segment(number, self._next_index, rec.HEADER_BYTES))
        self._file, self._salt = file, salt
        self._offset = self._zeroed = rec.HEADER_BYTES
        self._unconfirmed = False

    def _continue_in(self, former: File, number: int) -> None:
        """Cut the torn tail of the former segment, if any, and write a footer instead.

        The footer is there so that losing the newest segment file is noticed. It has the sequence
        of the next segment's first record: readers that know the next segment never look at it.
        """
        size = self._segments[-1].size
        footer = rec.record_header(
            rec.CONTINUED, b"", self._sequence + 1, self._claim, number, 0, self._salt
        )
        former.truncate(size)
        self._fs.point("journal.segment.cut")
        former.write(size, [footer])
        former.sync()
        former.close()
        self._fs.point("journal.segment.continued")

    def _delete_oldest(self) -> None:
        # One name per directory sync: a gap between segments would look like damage.
        fs, oldest = self._fs, self._segments[0]
        fs.point("journal.delete.before")
        fs.unlink(join(self._directory, segment_name(oldest.number)))
        fs.point("journal.delete.unlinked")
        fs.fsync_dir(self._directory)
        fs.point("journal.delete.after")
        del self._segments[0]

    def close(self) -> None:
        """Sync, confirm and close; a journal that failed is only closed.

        Raises:
            StorageError: the last sync failed.
        """
        try:
            if self._failure is None:
                self.sync()
                self.confirm()
                self.sync()
        finally:
            if self._failure is None:
                self._failure = DiskFailed(
                    f"writing the journal {self._directory} failed", "it is closed", "open it again"
                )
            self._file.close()

    # --- refusals ---------------------------------------------------------------------------

    def _refuse(self) -> NoReturn:
        first = self._failure
        if isinstance(first, StorageError):
            raise type(first)(first.what, first.why, first.remedy) from first
        raise DiskFailed(
            f"writing the journal {self._directory} failed", repr(first), "start the replica again"
        ) from first

    def _misuse(self, payload: Any, index: int, term: int) -> NoReturn:
        raise InvariantViolation(
            f"entry ({type(payload).__name__}, {index}, {term}) does not follow "
            f"({self._next_index - 1}, {self._last_term})"
        )

    def _mutator(self, *_args: Any, **_named: Any) -> NoReturn:
        raise InvariantViolation("a journal is changed by its own methods only")

    append = extend = insert = pop = remove = clear = sort = reverse = _mutator
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _mutator


def _aligned(directory: str, found: Recovered, snapshot: SnapshotMeta | None) -> bool:
    """Decide what the latest snapshot means for the journal.

    Returns:
        True: keep the entries from the one below the snapshot's on. False: replace them all.

    Raises:
        Damaged: the two cannot belong together.
    """
    start = found.entries[0][1] if found.entries else found.last_index + 1
    if snapshot is None:
        if start > 1:
            raise damaged(directory, f"it starts at entry {start} and there is no snapshot")
        return True
    index = snapshot.index
    if found.last_index < index:
        return False
    if start > index - 1:
        raise damaged(
            directory,
            f"it starts at entry {start}, above the latest snapshot ({index}): a newer snapshot "
            "is gone",
        )
    position = index - start
    if found.entries[position][2] != snapshot.term:
        return False
    if (
        found.entries[position][0] != snapshot.payload
        or found.entries[position - 1][2] != snapshot.prev_term
    ):
        raise damaged(directory, f"entry {index} differs from the snapshot's")
    return True

"""Reading a journal back: what is the state, where does it end, is it damaged.

Reads only, so that a refusal leaves the directory as it was found. The rules:

* Segments are numbered without gaps, belong to us, and each names the last record of its former.
* In every segment but the last, each record before the next segment's first sequence must be
  intact: a segment is synced before its successor exists.
* In the last segment the first bad record ends the log, *if* it can be a torn write: no later
  record says that it was durable, it has the shape of a write cut short, and the file is not
  shorter than it was made. Otherwise: damage.

What stays undecidable: a synced group that nothing follows (no later group, no confirmation) and
whose damage looks like zeros. :meth:`Journal.confirm` and a clean close narrow that window.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

from raftckpt.limits import MIB
from raftckpt.storage import _records as rec
from raftckpt.storage.files import Damaged, File, FileSystem, Foreign, Missing, Unsupported, join
from raftckpt.version import JOURNAL_VERSION

__all__ = [
    "REJOIN",
    "Entry",
    "Recovered",
    "Segment",
    "damaged",
    "recover",
    "segment_name",
    "segment_number",
]

Entry = tuple[bytes, int, int]
"""(payload, index, term)"""

REJOIN: Final = (
    "move the data directory away and start with `raftckpt serve --rejoin`: "
    "the other replicas hold the data"
)
_SUFFIX: Final = ".journal"
_SEGMENT_FILE_BYTES_MAX: Final = 2048 * MIB
"""What a segment of 64 MiB never reaches by one group more."""


class Segment:
    """A segment file of which the journal keeps track."""

    __slots__ = ("first_index", "number", "size")

    def __init__(self, number: int, first_index: int, size: int) -> None:
        self.number = number
        self.first_index = first_index
        """Live entries below this index were recorded in former segments."""
        self.size = size
        """Bytes in use."""


class Recovered(NamedTuple):
    """The state that a journal's files hold."""

    entries: list[Entry]
    term: int
    vote: str | None
    extra: int
    last_index: int
    last_term: int
    next_sequence: int
    segments: list[Segment]
    salt: int
    """Of the last segment."""
    crc: int
    """Header checksum of the last record (0: none)."""


def segment_name(number: int) -> str:
    """Return the file name of a segment."""
    return f"{number:020d}{_SUFFIX}"


def segment_number(name: str) -> int | None:
    """Return the number in a segment's file name; None if it is not one."""
    stem = name.removesuffix(_SUFFIX)
    if stem == name or len(stem) != 20 or not (stem.isascii() and stem.isdigit()):
        return None
    return int(stem)


def damaged(path: str, why: str) -> Damaged:
    """Build the refusal of a damaged journal."""
    return Damaged(f"recovering the journal {path} failed", why, REJOIN)


def recover(
    fs: FileSystem, directory: str, owner: bytes, *, settle: bool = True
) -> Recovered | None:
    """Read the journal in ``directory``.

    Arguments:
        fs: where.
        directory: the journal's own directory.
        owner: whose journal it must be.
        settle: make what is found durable first (off for mere inspection).

    Returns:
        The state; None if there is no segment at all.

    Raises:
        Damaged: bytes that were durable are wrong or gone.
        Missing: a segment in the middle is gone.
        Foreign: another node's or cluster's journal.
        Unsupported: another version's.
    """
    numbers = [n for n in map(segment_number, fs.listdir(directory)) if n is not None]
    if not numbers:
        return None
    numbers.sort()
    for former, number in pairwise(numbers):
        if number != former + 1:
            raise Missing(
                f"recovering the journal {directory} failed",
                f"segment {segment_name(former + 1)} is missing between its neighbours",
                f"put the file back if it was moved; else {REJOIN}",
            )
    headers = [_read_header(fs, directory, number, owner) for number in numbers]
    replay = _Replay(headers[0])
    for position, header in enumerate(headers):
        path = join(directory, segment_name(header.number))
        following = headers[position + 1] if position + 1 < len(headers) else None
        file = fs.open(path)
        try:
            if following is None and settle:
                # A killed process leaves bytes in the page cache that were never synced. They
                # become part of the state now, so they must not vanish in a later power loss.
                file.settle()
            data = _read_all(file, path)
        finally:
            file.close()
        replay.segment(path, data, header, following)
    return replay.result()


def _read_header(fs: FileSystem, directory: str, number: int, owner: bytes) -> rec.SegmentHeader:
    path = join(directory, segment_name(number))
    file = fs.open(path)
    try:
        block = file.read(0, rec.HEADER_BYTES)
    finally:
        file.close()
    try:
        version, header = rec.unpack_segment_header(block)
    except ValueError as error:
        raise damaged(path, str(error)) from error
    if header is None:
        raise Unsupported(
            f"reading the journal segment {path} failed",
            f"format version {version}, this program reads version {JOURNAL_VERSION}",
            "start the version of raftckpt that wrote it",
        )
    if header.owner != owner:
        raise Foreign(
            f"reading the journal segment {path} failed",
            "it belongs to another cluster or node",
            "put the right data directory in place",
        )
    if header.number != number:
        raise damaged(path, f"the file holds segment {header.number}: it was renamed or copied")
    return header


def _read_all(file: File, path: str) -> bytes:
    size = file.size()
    if size > _SEGMENT_FILE_BYTES_MAX:
        raise damaged(path, f"a segment of {size} bytes was never written by this program")
    return file.read(0, size)


class _Replay:
    """The state after the records read so far."""

    def __init__(self, first: rec.SegmentHeader) -> None:
        self.entries: list[Entry] = []
        self.term = first.term
        self.vote = first.vote
        self.extra = first.extra
        self.last_index = first.last_index
        self.last_term = first.last_term
        self.sequence = first.first_sequence
        self.segments: list[Segment] = []
        self.salt = first.former_salt
        self.crc = first.former_crc

    def result(self) -> Recovered:
        return Recovered(
            self.entries, self.term, self.vote, self.extra, self.last_index, self.last_term,
            self.sequence, self.segments, self.salt, self.crc,
        )  # fmt: skip

    def segment(
        self,
        path: str,
        data: bytes,
        header: rec.SegmentHeader,
        following: rec.SegmentHeader | None,
    ) -> None:
        self._continues(path, header)
        if following is None and len(data) < header.reserved:
            raise damaged(
                path, f"the file has {len(data)} bytes, it had {header.reserved}: it was cut short"
            )
        self.salt = header.salt
        segment = Segment(header.number, self.last_index + 1, rec.HEADER_BYTES)
        self.segments.append(segment)
        until = None if following is None else following.first_sequence
        offset = rec.HEADER_BYTES
        while self.sequence != until:
            record = rec.read_record(data, offset, header.salt)
            if record is None or record.payload is None:
                if following is not None:
                    raise damaged(path, f"the record at byte {offset} is damaged")
                self._check_torn(path, data, offset, record)
                break
            if record.sequence != self.sequence:
                raise damaged(
                    path,
                    f"the record at byte {offset} has number {record.sequence} "
                    f"instead of {self.sequence}",
                )
            if record.kind == rec.CONTINUED:
                self._check_continued(path, record, following)
                break
            self._apply(path, offset, record, record.payload)
            offset = record.stop
            self.sequence += 1
            self.crc = record.crc
        segment.size = offset

    def _continues(self, path: str, header: rec.SegmentHeader) -> None:
        mine = rec.SegmentHeader(
            header.owner, header.number, self.sequence, header.salt, self.salt, self.crc,
            header.reserved, self.term, self.vote, self.extra, self.last_index, self.last_term,
        )  # fmt: skip
        if header != mine:
            raise damaged(path, "the segment does not continue its former one")

    def _check_torn(self, path: str, data: bytes, offset: int, record: rec.Record | None) -> None:
        """Accept the bad record at ``offset`` as the torn end of the log, or refuse."""
        if rec.claims_synced(data, offset, self.salt, self.sequence):
            raise damaged(
                path, f"the record at byte {offset} is damaged (a later one proves it was durable)"
            )
        if record is None:
            start, stop = offset, offset + rec.RECORD_HEADER_BYTES
        else:
            start, stop = offset + rec.RECORD_HEADER_BYTES, record.stop
        if not rec.looks_torn(data, start, stop):
            raise damaged(
                path, f"the record at byte {offset} was written completely and is damaged"
            )

    def _check_continued(
        self, path: str, record: rec.Record, following: rec.SegmentHeader | None
    ) -> None:
        if following is None:
            raise Missing(
                f"recovering the journal {path} failed",
                f"it says that it is continued in {segment_name(record.number)}, which is missing",
                f"put the file back if it was moved; else {REJOIN}",
            )
        raise damaged(path, "the segment ends before the next one begins")

    def _apply(self, path: str, offset: int, record: rec.Record, payload: bytes) -> None:
        index, term = record.number, record.term
        try:
            if record.kind == rec.ENTRY:
                self._entry(payload, index, term)
            elif record.kind == rec.STATE:
                if term < self.term:
                    raise ValueError(f"the term falls from {self.term} to {term}")
                self.term, self.vote, self.extra = term, rec.unpack_vote(payload), index
            elif record.kind == rec.TRUNCATE:
                self._truncate(index, term)
            elif record.kind == rec.RESET:
                self._reset(rec.unpack_reset(payload))
            elif record.kind != rec.CONFIRM:
                raise Unsupported(
                    f"reading the journal segment {path} failed",
                    f"the record at byte {offset} is of the unknown kind {record.kind & 255}",
                    "start the version of raftckpt that wrote it",
                )
        except ValueError as error:
            raise damaged(path, f"the record at byte {offset}: {error}") from error

    def _entry(self, payload: bytes, index: int, term: int) -> None:
        if index != self.last_index + 1:
            raise ValueError(f"entry {index} follows entry {self.last_index}")
        if term < self.last_term:
            raise ValueError(f"entry {index} has term {term} after term {self.last_term}")
        self.entries.append((payload, index, term))
        self.last_index, self.last_term = index, term

    def _truncate(self, index: int, term: int) -> None:
        if not 1 <= index <= self.last_index:
            raise ValueError(f"truncation from {index} in a log that ends at {self.last_index}")
        if self.entries:
            del self.entries[max(0, index - self.entries[0][1]) :]
        self.last_index, self.last_term = index - 1, term
        for segment in self.segments:
            segment.first_index = min(segment.first_index, index)

    def _reset(self, entries: list[Entry]) -> None:
        self.entries = []
        self.last_index, self.last_term = entries[0][1] - 1, 0
        for segment in self.segments:
            segment.first_index = entries[0][1]
        for payload, index, term in entries:
            self._entry(payload, index, term)

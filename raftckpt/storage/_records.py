"""The journal's bytes: segment header, record header, and what a torn write looks like.

Owns the format; knows nothing of files or of the order of records. A segment is one header block
followed by records. All integers are little endian.

Segment header, one block of 4 KiB, so that a torn record can never share a page with it::

    magic 8, version u32, owner 16, number u64, first sequence u64, salt u32, former's salt u32,
    former's last checksum u32, reserved bytes u64, term u64, extra u64, last index u64,
    last term u64, vote (u8 length+1 or 0 for none, bytes), zeros, and in the last 4 bytes the
    CRC32C of all that

Record, 48 bytes of header and the payload::

    word u32 (kind and magic), payload length u32, CRC32C of the payload u32, sequence u64,
    synced u64, index u64, term u64, CRC32C of the header u32 (seeded with the segment's salt)

``synced`` is the highest sequence known durable when the record was written: proof, for a later
reader, that a bad record at or below it is damage and not a torn write. The salt keeps a payload
that looks like a record (a client may write one) from being taken for one.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from google_crc32c import extend, value

from raftckpt.version import JOURNAL_VERSION

__all__ = [
    "CONFIRM",
    "CONTINUED",
    "ENTRY",
    "HEADER_BYTES",
    "OWNER_BYTES",
    "RECORD_HEADER_BYTES",
    "RESET",
    "STATE",
    "TRUNCATE",
    "Record",
    "SegmentHeader",
    "claims_synced",
    "is_confirm",
    "looks_torn",
    "pack_reset",
    "pack_segment_header",
    "pack_vote",
    "read_record",
    "record_header",
    "unpack_reset",
    "unpack_segment_header",
    "unpack_vote",
]

_MAGIC: Final = b"rckptjnl"
HEADER_BYTES: Final = 4096  # a page
OWNER_BYTES: Final = 16  # a hash cut to 128 bits
_HEADER: Final = Struct("<8sI16sQQIIIQQQQQ")
_CRC: Final = Struct("<I")
_SECTOR: Final = 512  # what a disk writes whole, or not at all

# how records begin: bytes that no text has, and zeros are none of them
_WORD: Final = 0xC54A5200
_WORD_TAIL: Final = b"RJ\xc5"
# kinds of records
ENTRY: Final = _WORD | 1
STATE: Final = _WORD | 2
TRUNCATE: Final = _WORD | 3
RESET: Final = _WORD | 4
CONFIRM: Final = _WORD | 5
CONTINUED: Final = _WORD | 6

_RECORD: Final = Struct("<IIIQQQQ")
_RECORD_ALL: Final = Struct("<IIIQQQQI")
RECORD_HEADER_BYTES: Final = _RECORD_ALL.size
_RESET_ITEM: Final = Struct("<QQI")

_pack_record = _RECORD.pack
_pack_crc = _CRC.pack


class SegmentHeader(NamedTuple):
    """What a segment says about itself and about everything before it."""

    owner: bytes
    """Hash of cluster and node: whose journal this is."""
    number: int
    first_sequence: int
    salt: int
    former_salt: int
    former_crc: int
    """Header checksum of the last record before this segment (0: there is none)."""
    reserved: int
    """Size that the file had, durably, before the first record: it is never shorter while it is
    the last segment, so that a file cut short is noticed."""
    term: int
    vote: str | None
    extra: int
    last_index: int
    last_term: int


class Record(NamedTuple):
    """A record whose header is intact; ``payload`` is None if the payload is not."""

    kind: int
    sequence: int
    synced: int
    number: int
    """The entry's index, or what stands in its place for the other kinds."""
    term: int
    payload: bytes | None
    stop: int
    """Offset of the byte behind the record."""
    crc: int


def pack_segment_header(header: SegmentHeader) -> bytes:
    """Encode the header block of a segment."""
    fixed = _HEADER.pack(
        _MAGIC,
        JOURNAL_VERSION,
        header.owner,
        header.number,
        header.first_sequence,
        header.salt,
        header.former_salt,
        header.former_crc,
        header.reserved,
        header.term,
        header.extra,
        header.last_index,
        header.last_term,
    )
    vote = pack_vote(header.vote)
    body = (fixed + bytes((len(vote),)) + vote).ljust(HEADER_BYTES - _CRC.size, b"\0")
    return body + _pack_crc(value(body))


def unpack_segment_header(block: bytes) -> tuple[int, SegmentHeader | None]:
    """Decode the header block of a segment.

    Returns:
        The format version and the header (None if the version is not ours).

    Raises:
        ValueError: it is damaged.
    """
    if len(block) < HEADER_BYTES or block[:8] != _MAGIC:
        raise ValueError("no segment header")
    body = block[: HEADER_BYTES - _CRC.size]
    if _CRC.unpack_from(block, len(body))[0] != value(body):
        raise ValueError("the checksum of the segment header is wrong")
    fields = _HEADER.unpack_from(body)
    if fields[1] != JOURNAL_VERSION:
        return fields[1], None
    size = body[_HEADER.size]
    vote = unpack_vote(body[_HEADER.size + 1 : _HEADER.size + 1 + size])
    (
        owner, number, first, salt, former_salt, former_crc, reserved, term, extra, last_index,
        last_term,
    ) = fields[2:]  # fmt: skip
    return JOURNAL_VERSION, SegmentHeader(
        owner, number, first, salt, former_salt, former_crc, reserved, term, vote, extra,
        last_index, last_term,
    )  # fmt: skip


def pack_vote(vote: str | None) -> bytes:
    """Encode a vote; None and "" differ."""
    return b"" if vote is None else b"=" + vote.encode()


def unpack_vote(data: bytes) -> str | None:
    """Decode a vote.

    Raises:
        ValueError: it is malformed.
    """
    if not data:
        return None
    if data[:1] != b"=":
        raise ValueError("malformed vote")
    return data[1:].decode()


def pack_reset(entries: list[tuple[bytes, int, int]]) -> bytes:
    """Encode the entries of a reset record."""
    return b"".join(
        _RESET_ITEM.pack(index, term, len(payload)) + payload for payload, index, term in entries
    )


def unpack_reset(data: bytes) -> list[tuple[bytes, int, int]]:
    """Decode the entries of a reset record.

    Raises:
        ValueError: it is malformed.
    """
    entries: list[tuple[bytes, int, int]] = []
    offset = 0
    while offset < len(data):
        if offset + _RESET_ITEM.size > len(data):
            raise ValueError("malformed reset")
        index, term, size = _RESET_ITEM.unpack_from(data, offset)
        offset += _RESET_ITEM.size
        if offset + size > len(data):
            raise ValueError("malformed reset")
        entries.append((data[offset : offset + size], index, term))
        offset += size
    if not entries:
        raise ValueError("empty reset")
    return entries


def record_header(
    kind: int, payload: bytes, sequence: int, synced: int, index: int, term: int, salt: int
) -> bytes:
    """Encode the header of a record; the payload follows it on disk as it is."""
    head = _pack_record(kind, len(payload), value(payload), sequence, synced, index, term)
    return head + _pack_crc(extend(salt, head))


def is_confirm(header: bytes) -> bool:
    """Whether this is the header of a confirmation."""
    return header[0] == CONFIRM & 0xFF


def read_record(data: bytes, offset: int, salt: int) -> Record | None:
    """Decode the record at ``offset``; None if there is no intact header."""
    start = offset + RECORD_HEADER_BYTES
    if start > len(data):
        return None
    kind, size, payload_crc, sequence, synced, index, term, crc = _RECORD_ALL.unpack_from(
        data, offset
    )
    if kind & 0xFFFFFF00 != _WORD or extend(salt, data[offset : start - _CRC.size]) != crc:
        return None
    stop = start + size
    payload: bytes | None = data[start:stop]
    if stop > len(data) or value(payload) != payload_crc:
        payload = None
    return Record(kind, sequence, synced, index, term, payload, stop, crc)


def claims_synced(data: bytes, offset: int, salt: int, sequence: int) -> bool:
    """Whether an intact record header behind ``offset`` proves that ``sequence`` was durable."""
    position = data.find(_WORD_TAIL, offset)
    while position >= 0:
        if position > offset:
            record = read_record(data, position - 1, salt)
            if record is not None and record.synced >= sequence:
                return True
        position = data.find(_WORD_TAIL, position + 1)
    return False


def looks_torn(data: bytes, start: int, stop: int) -> bool:
    """Whether the bad bytes ``start..stop`` can come from a write that was cut short.

    What was not written reads as zeros (a fresh or preallocated file), or lies behind the end. So
    a write that stopped early, or of which a sector is missing, leaves zeros at its end or for a
    whole sector. Bad bytes without such a hole were written completely and damaged afterwards.
    """
    if stop > len(data) or data[stop - 1] == 0:
        return True
    while start < stop:
        edge = min(stop, start - start % _SECTOR + _SECTOR)
        if data.count(0, start, edge) == edge - start:
            return True
        start = edge
    return False

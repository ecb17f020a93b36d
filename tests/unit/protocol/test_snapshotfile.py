"""Snapshot files: what is written is read, and nothing else is."""

from __future__ import annotations

from struct import pack, pack_into

import msgpack
import pytest
from google_crc32c import value

from raftckpt.errors import InvariantViolation
from raftckpt.protocol.snapshotfile import FileHead, NewerFile, SnapshotPacker, SnapshotUnpacker

HEAD = FileHead("prod", "f" * 32, 4711, 2, 1_700_000_000_000_000_000, "n2", 99, 1)
PIECES = [b"first", bytes(300), b"the last one"]


def written(head: FileHead = HEAD, pieces: list[bytes] = PIECES) -> bytes:
    packer = SnapshotPacker(head)
    blocks = [buffer for piece in pieces for buffer in packer.block(piece)]
    return b"".join([packer.head, *blocks, packer.trailer()])


def read(data: bytes, step: int = 1 << 20) -> tuple[FileHead, list[bytes]]:
    unpacker = SnapshotUnpacker()
    for at in range(0, len(data), step):
        unpacker.feed(data[at : at + step])
    return unpacker.finish(), unpacker.blocks


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_what_is_written_is_read(step: int) -> None:
    assert read(written(), step) == (HEAD, PIECES)
    assert read(written(pieces=[]), step) == (HEAD, [])


def test_every_truncation_is_refused() -> None:
    data = written()
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"it ends|it does not begin"):
            read(data[:size])
    with pytest.raises(ValueError, match="behind its end"):
        read(data + b"\0")


def test_every_flipped_bit_is_refused() -> None:
    data = bytearray(written())
    for position in range(len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            with pytest.raises(ValueError):
                read(bytes(data))
            data[position] ^= 1 << bit
    assert read(bytes(data)) == (HEAD, PIECES)


def test_blocks_that_change_places_are_refused() -> None:
    packer = SnapshotPacker(HEAD)
    one, two = packer.block(b"same size"), packer.block(b"size same")
    data = b"".join([packer.head, *two, *one, packer.trailer()])
    with pytest.raises(ValueError, match="block 0 is damaged"):
        read(data)


def head_of(version: int, fields: list[object]) -> bytes:
    packed = msgpack.packb(fields)
    plain = b"rckptsav" + pack("<II", version, len(packed)) + packed
    return plain + pack("<I", value(plain))


def test_a_later_format_says_so() -> None:
    with pytest.raises(NewerFile, match="it is of format 2"):
        read(head_of(2, ["whatever"]))


def test_a_head_may_grow_at_its_end_and_not_shrink() -> None:
    unpacker = SnapshotUnpacker()
    unpacker.feed(head_of(1, [*HEAD, "something new", 5]))
    assert unpacker.head == HEAD
    for fields in ([*HEAD][:-1], [*HEAD[:2], -1, *HEAD[3:]], [*HEAD[:2], "1", *HEAD[3:]], []):
        with pytest.raises(ValueError, match="its head is malformed"):
            read(head_of(1, fields))


def test_impossible_lengths_do_not_take_memory() -> None:
    data = bytearray(written())
    start = len(SnapshotPacker(HEAD).head)
    pack_into("<I", data, start, (4 << 20) + 1)
    with pytest.raises(ValueError, match="impossible length"):
        read(bytes(data))
    pack_into("<I", data, 12, 1 << 30)
    with pytest.raises(ValueError, match="impossible length"):
        read(bytes(data))


def test_an_empty_block_would_be_the_end() -> None:
    with pytest.raises(InvariantViolation):
        SnapshotPacker(HEAD).block(b"")


def test_what_begins_otherwise_is_refused_at_its_first_byte() -> None:
    with pytest.raises(ValueError, match="does not begin"):
        SnapshotUnpacker().feed(b"P")
    SnapshotUnpacker().feed(b"rckp")


def test_a_trailer_of_another_file_is_refused() -> None:
    one, two = written(), written(pieces=[b"other"])
    trailer = len(SnapshotPacker(HEAD).trailer())
    with pytest.raises(ValueError, match="does not match the rest"):
        read(one[:-trailer] + two[-trailer:])

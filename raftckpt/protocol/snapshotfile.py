"""The file that ``snapshot save`` writes: a state at one revision, to be kept for years.

All integers are little endian::

    head     magic 8, version u32, length of what follows without the checksum u32,
             msgpack [cluster, founding, revision, level, time, node, entry, image version],
             CRC32C of all that u32
    block*   length u32 (> 0), CRC32C u32 (seeded with the block's number), bytes
    trailer  0 u32, CRC32C of head (without its own) and blocks u32, blocks u64, body bytes u64,
             CRC32C u32

The body, blocks joined, is an image (:mod:`raftckpt.model.image`) in which the secrets of sessions
are their numbers. Magic, version, length and checksum of the head stand where they are in every
version, and the array only grows at its end. Every truncation and every flipped bit is noticed.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

import msgpack
from google_crc32c import extend, value

from raftckpt.errors import ensure
from raftckpt.limits import KIB, MIB
from raftckpt.protocol.check import decode_plain

__all__ = [
    "SNAPSHOT_FILE_VERSION",
    "FileHead",
    "NewerFile",
    "SnapshotPacker",
    "SnapshotUnpacker",
]

SNAPSHOT_FILE_VERSION: Final = 1
"""The first format; what reads it asks for exactly this (docs/reference/formats.md)."""

_MAGIC: Final = b"rckptsav"
_HEAD: Final = Struct("<8sII")
_BLOCK: Final = Struct("<II")
_TRAILER: Final = Struct("<IIQQI")
_CRC: Final = Struct("<I")
_HEAD_BYTES_MAX: Final = 64 * KIB
"""Names and a few numbers: some hundred bytes. A damaged length is not allocated."""
_BLOCK_BYTES_MAX: Final = 4 * MIB
"""As in a replica's own snapshots (``storage/snapshots.py``); a damaged length is not allocated."""


class NewerFile(ValueError):
    """The file is of a format that this version does not know."""


class FileHead(NamedTuple):
    """What a snapshot file says of itself."""

    cluster: str
    founding: str
    """Founding id of the cluster that it is of."""
    revision: int
    level: int
    """Of the cluster: who restores it must be able to do it."""
    time_ns: int
    """Cluster time of the state, ns since the epoch."""
    node: str
    """Whose state was read."""
    entry: int
    """Last entry of the log that the state contains."""
    image_version: int


_TYPES: Final = (str, str, int, int, int, str, int, int)


class SnapshotPacker:
    """Makes the bytes of a file: :attr:`head`, then :meth:`block` each, then :meth:`trailer`.

    Arguments:
        head: what it says of itself.
    """

    def __init__(self, head: FileHead) -> None:
        fields = msgpack.packb(list(head), use_bin_type=True)
        ensure(len(fields) <= _HEAD_BYTES_MAX, "the head of a snapshot file is too long")
        plain = _HEAD.pack(_MAGIC, SNAPSHOT_FILE_VERSION, len(fields)) + fields
        self._crc = value(plain)
        self._blocks = 0
        self._body = 0
        self.head = plain + _CRC.pack(self._crc)

    def block(self, data: bytes) -> list[bytes]:
        """Return the buffers that a piece of the body becomes."""
        ensure(0 < len(data) <= _BLOCK_BYTES_MAX, "a block has 1 byte to 4 MiB")
        data = bytes(data)
        head = _BLOCK.pack(len(data), extend(self._blocks & 0xFFFFFFFF, data))
        self._crc = extend(extend(self._crc, head), data)
        self._blocks += 1
        self._body += len(data)
        return [head, data]

    def trailer(self) -> bytes:
        """Return the end of the file."""
        plain = _TRAILER.pack(0, self._crc, self._blocks, self._body, 0)[: -_CRC.size]
        return plain + _CRC.pack(value(plain))


class SnapshotUnpacker:
    """Checks a file that is fed in pieces of any size, and collects its blocks.

    Attributes:
        head: as soon as it was read.
        blocks: the pieces of the body that were verified; who takes them, clears the list.
        body_bytes: bytes in all blocks so far.
    """

    def __init__(self) -> None:
        self.head: FileHead | None = None
        self.blocks: list[bytes] = []
        self.body_bytes = 0
        self._buffer = bytearray()
        self._size = 0
        self._crc = 0
        self._count = 0
        self._over = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            NewerFile: it is of a later format.
            ValueError: they are wrong.
        """
        self._size += len(data)
        buffer = self._buffer
        buffer += data
        position = 0
        while True:
            if self._over:
                if len(buffer) > position:
                    raise ValueError("there are bytes behind its end")
                break
            used = (self._block if self.head is not None else self._header)(buffer, position)
            if not used:
                break
            position += used
        del buffer[:position]

    def finish(self) -> FileHead:
        """Return the head of a file that is complete.

        Raises:
            ValueError: it ends too early.
        """
        if self.head is None or not self._over:
            raise ValueError(f"it ends after {self._size} bytes, before its trailer")
        return self.head

    def _header(self, buffer: bytearray, position: int) -> int:
        if len(buffer) < _HEAD.size:
            if not _MAGIC.startswith(bytes(buffer[: len(_MAGIC)])):
                raise ValueError("it does not begin like a snapshot file")
            return 0
        magic, version, length = _HEAD.unpack_from(buffer)
        if magic != _MAGIC:
            raise ValueError("it does not begin like a snapshot file")
        if length > _HEAD_BYTES_MAX:
            raise ValueError("its head has an impossible length")
        size = _HEAD.size + length + _CRC.size
        if len(buffer) < size:
            return 0
        plain = bytes(buffer[: size - _CRC.size])
        self._crc = value(plain)
        if _CRC.unpack_from(buffer, len(plain))[0] != self._crc:
            raise ValueError("the checksum of its head is wrong")
        if version != SNAPSHOT_FILE_VERSION:
            raise NewerFile(
                f"it is of format {version}; this version of raftckpt reads format "
                f"{SNAPSHOT_FILE_VERSION}"
            )
        fields = decode_plain(plain[_HEAD.size :])
        known = fields[: len(_TYPES)] if type(fields) is list else []
        if tuple(map(type, known)) != _TYPES or any(
            type(field) is int and not 0 <= field < 1 << 63 for field in known
        ):
            raise ValueError("its head is malformed")
        self.head = FileHead._make(known)
        return int(size)

    def _block(self, buffer: bytearray, position: int) -> int:
        if len(buffer) - position < _BLOCK.size:
            return 0
        length, crc = _BLOCK.unpack_from(buffer, position)
        if length == 0:
            return self._trailer(buffer, position)
        if length > _BLOCK_BYTES_MAX:
            raise ValueError(f"block {self._count} has an impossible length")
        start = position + _BLOCK.size
        if len(buffer) < start + length:
            return 0
        data = bytes(buffer[start : start + length])
        if extend(self._count & 0xFFFFFFFF, data) != crc:
            raise ValueError(f"block {self._count} is damaged")
        self._crc = extend(extend(self._crc, bytes(buffer[position:start])), data)
        self._count += 1
        self.body_bytes += length
        self.blocks.append(data)
        return _BLOCK.size + int(length)

    def _trailer(self, buffer: bytearray, position: int) -> int:
        if len(buffer) - position < _TRAILER.size:
            return 0
        _zero, crc, blocks, body, own = _TRAILER.unpack_from(buffer, position)
        if own != value(bytes(buffer[position : position + _TRAILER.size - _CRC.size])):
            raise ValueError("the checksum of its trailer is wrong")
        if (crc, blocks, body) != (self._crc, self._count, self.body_bytes):
            raise ValueError("its trailer does not match the rest")
        self._over = True
        return _TRAILER.size

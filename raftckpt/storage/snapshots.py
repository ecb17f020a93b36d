"""Snapshots in atomic slots: complete, checksummed and durable, or not there at all.

Owns the snapshot directory. Does not own what an image means, nor when one is made. Invariants:

* A slot appears under its name only when all of it is verified and durable (write, fsync, rename,
  fsync of the directory); its index is above that of every slot before it.
* The latest slot is read in full when the store is opened; a bad one refuses the start. There is no
  fall-back to an older one: the journal's entries between the two are gone.

A slot file, little endian::

    header   magic 8, version u32, header length u32, owner 16 (hash of the founding), id 8,
             index u64, term u64, previous term u64, payload length u32, payload,
             configuration length u32, configuration, CRC32C u32
    block*   length u32 (> 0), CRC32C u32 (seeded with the block's number), bytes
    trailer  0 u32, CRC32C of header (without its own) and blocks u32, blocks u64, body bytes u64,
             CRC32C u32

Version 1 had no configuration. The file is what travels to other replicas, so that the receiver
can verify every byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from google_crc32c import extend, value

from raftckpt.errors import InvariantViolation, ensure
from raftckpt.limits import KIB, MIB
from raftckpt.storage.files import (
    Damaged,
    DiskFull,
    File,
    FileSystem,
    Foreign,
    Missing,
    StorageError,
    Unsupported,
    join,
)

__all__ = [
    "SNAPSHOT_VERSION",
    "BadTransfer",
    "SnapshotMeta",
    "SnapshotReceiver",
    "SnapshotStore",
    "SnapshotWriter",
    "StaleSnapshot",
]

SNAPSHOT_VERSION: Final = 2
"""2: with the configuration as of its entry; 1 is read, too."""

_MAGIC: Final = b"rckptsnp"
_HEAD: Final = Struct("<8sII16s8sQQQI")
_BLOCK: Final = Struct("<II")
_TRAILER: Final = Struct("<IIQQI")
_CRC: Final = Struct("<I")
_LENGTH: Final = Struct("<I")
_BLOCK_BYTES: Final = 256 * KIB
"""Small pieces are written as blocks of so much: a check sum each, and a millisecond of the
loop."""
_BLOCK_BYTES_MAX: Final = 4 * MIB
"""Larger pieces are cut; a damaged length is not allocated."""
_PAYLOAD_BYTES_MAX: Final = 16 * MIB
"""Of its entry (a MiB and a quarter at most) with the configuration; a damaged length is not
allocated."""
_SYNC_BYTES: Final = 8 * MIB
"""A writer syncs this often, so that commit does not have gigabytes left to flush."""
_OWNER_BYTES: Final = 16  # a hash of founding and directory, cut to 128 bits
_SUFFIX: Final = ".snapshot"
_REMEDY: Final = (
    "move the data directory away and start with `raftckpt serve --rejoin`: "
    "the other replicas hold the data"
)


class StaleSnapshot(Exception):
    """A snapshot of the same or a higher index is there already; this one was dropped."""


class BadTransfer(Exception):
    """A received snapshot is not what was announced; it was dropped. Ask for it again."""


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """A complete, durable snapshot."""

    index: int
    """Last entry that the image contains."""
    term: int
    payload: bytes
    """Payload of entry ``index``."""
    prev_term: int
    """Term of entry ``index - 1``."""
    size: int
    """Bytes of the slot file."""
    crc: int
    """CRC32C of the slot file: of its header (without the header's own) and its blocks."""
    id: str
    """Tells two snapshots of the same index apart (16 hexadecimal digits)."""
    configuration: bytes = b""
    """Who was a member as of entry ``index``; opaque here (``raft.configuration``)."""


class _Verifier:
    """Checks a slot file that is fed in pieces of any size; collects body blocks if asked to."""

    def __init__(self, owner: bytes, *, keep: bool = False) -> None:
        self._owner = owner
        self._keep = keep
        self._buffer = bytearray()
        self._crc = 0
        self._size = 0
        self._blocks = 0
        self._body = 0
        self._head: tuple[int, int, int, str, bytes, bytes] | None = None
        self.blocks: list[bytes] = []
        self.meta: SnapshotMeta | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            ValueError: they are wrong.
            Foreign: the snapshot belongs to another cluster.
            Unsupported: it is of another version.
        """
        self._size += len(data)
        buffer = self._buffer
        buffer += data
        position = 0
        while True:
            if self.meta is not None:
                if len(buffer) > position:
                    raise ValueError("there are bytes behind the trailer")
                break
            used = (self._block if self._head is not None else self._header)(buffer, position)
            if not used:
                break
            position += used
        del buffer[:position]

    def finish(self) -> SnapshotMeta:
        """Return what was verified.

        Raises:
            ValueError: the file ends too early.
        """
        if self.meta is None:
            raise ValueError(f"it ends after {self._size} bytes, before its trailer")
        return self.meta

    def _header(self, buffer: bytearray, position: int) -> int:
        if len(buffer) < _HEAD.size:
            return 0
        magic, version, size, owner, number, index, term, prev_term, length = _HEAD.unpack_from(
            buffer
        )
        if magic != _MAGIC:
            raise ValueError("it does not begin like a snapshot")
        if not _HEAD.size + _CRC.size <= size <= _HEAD.size + _CRC.size + _PAYLOAD_BYTES_MAX:
            raise ValueError("the header has an impossible length")
        if len(buffer) < size:
            return 0
        head = bytes(buffer[: size - _CRC.size])
        if _CRC.unpack_from(buffer, len(head))[0] != value(head):
            raise ValueError("the checksum of the header is wrong")
        if not 1 <= version <= SNAPSHOT_VERSION:
            raise Unsupported(
                "reading a snapshot failed",
                f"format version {version}, this program reads versions 1 to {SNAPSHOT_VERSION}",
                "start the version of raftckpt that wrote it",
            )
        payload, rest = head[_HEAD.size : _HEAD.size + length], head[_HEAD.size + length :]
        configuration = rest[_LENGTH.size :]
        told = b"" if version == 1 else _LENGTH.pack(len(configuration))
        if len(payload) != length or rest[: _LENGTH.size] != told:
            raise ValueError("the header contradicts itself")
        if owner != self._owner:
            raise Foreign(
                "reading a snapshot failed",
                "it belongs to another cluster",
                "put the right data directory in place",
            )
        self._head = (index, term, prev_term, number.hex(), payload, configuration)
        # Without the header's own checksum: a CRC over data and their CRC is a constant.
        self._crc = value(head)
        return int(size)

    def _block(self, buffer: bytearray, position: int) -> int:
        if len(buffer) - position < _BLOCK.size:
            return 0
        length, crc = _BLOCK.unpack_from(buffer, position)
        if length == 0:
            return self._trailer(buffer, position)
        if length > _BLOCK_BYTES_MAX:
            raise ValueError(f"block {self._blocks} has an impossible length")
        stop = position + _BLOCK.size + length
        if len(buffer) < stop:
            return 0
        data = bytes(buffer[position + _BLOCK.size : stop])
        if extend(self._blocks & 0xFFFFFFFF, data) != crc:
            raise ValueError(f"block {self._blocks} is damaged")
        self._crc = extend(
            extend(self._crc, bytes(buffer[position : position + _BLOCK.size])), data
        )
        self._blocks += 1
        self._body += length
        if self._keep:
            self.blocks.append(data)
        return _BLOCK.size + int(length)

    def _trailer(self, buffer: bytearray, position: int) -> int:
        if len(buffer) - position < _TRAILER.size:
            return 0
        _zero, crc, blocks, body, own = _TRAILER.unpack_from(buffer, position)
        if own != value(bytes(buffer[position : position + _TRAILER.size - _CRC.size])):
            raise ValueError("the checksum of the trailer is wrong")
        if (crc, blocks, body) != (self._crc, self._blocks, self._body):
            raise ValueError("the trailer does not match the file")
        if self._head is None:
            raise InvariantViolation("a trailer follows a header")
        index, term, prev_term, number, payload, configuration = self._head
        size = self._size - len(buffer) + position + _TRAILER.size
        self.meta = SnapshotMeta(index, term, payload, prev_term, size, crc, number, configuration)
        return _TRAILER.size


class _Slot:
    """A temporary file on its way to becoming a slot."""

    def __init__(self, store: SnapshotStore, name: str) -> None:
        self._store = store
        self._fs = store._fs
        self._path = join(store._directory, name)
        self._fs.unlink(self._path)
        self._file: File | None = self._fs.open(self._path, create=True)
        self._synced = 0
        self.offset = 0
        """Bytes taken so far."""

    def _opened(self) -> File:
        if self._file is None:
            raise InvariantViolation("the snapshot is finished or given up")
        return self._file

    def _append(self, buffers: list[bytes]) -> None:
        file = self._opened()
        file.write(self.offset, buffers)
        size = sum(map(len, buffers))
        file.start_writeback(self.offset, size)
        self.offset += size
        self._fs.point("snapshot.piece.written")
        if self.offset - self._synced >= _SYNC_BYTES:
            file.sync()
            self._synced = self.offset

    def _publish(self, meta: SnapshotMeta) -> None:
        file, self._file = self._opened(), None
        fs = self._fs
        try:
            fs.point("snapshot.sync.before")
            file.sync()
            fs.point("snapshot.sync.after")
            self._store._publish(self._path, meta, file)
        except DiskFull:  # who wants to go on needs the room
            file.close()
            fs.unlink(self._path)
            raise
        except BaseException:
            file.close()
            raise

    def abort(self) -> None:
        """Give up; the temporary file goes. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
            self._fs.unlink(self._path)


class SnapshotWriter(_Slot):
    """Writes a snapshot of this replica's own state."""

    def __init__(
        self,
        store: SnapshotStore,
        index: int,
        term: int,
        payload: bytes,
        prev_term: int,
        configuration: bytes,
    ) -> None:
        """Use :meth:`SnapshotStore.create`."""
        number = store._fs.random_bytes(8)
        self._id = number.hex()
        super().__init__(store, f"own-{self._id}.tmp")
        self._index = index
        self._term = term
        self._payload = payload
        self._prev_term = prev_term
        self._configuration = configuration
        rest = payload + _LENGTH.pack(len(configuration)) + configuration
        ensure(len(rest) <= _PAYLOAD_BYTES_MAX, "the snapshot's entry is too large")
        head = _HEAD.pack(
            _MAGIC,
            SNAPSHOT_VERSION,
            _HEAD.size + len(rest) + _CRC.size,
            store._owner,
            number,
            index,
            term,
            prev_term,
            len(payload),
        )
        head += rest
        self._crc = value(head)
        head += _CRC.pack(self._crc)
        self._blocks = 0
        self._body = 0
        self._small: list[bytes] = []
        self._small_bytes = 0
        self._append([head])

    def write(self, piece: bytes) -> None:
        """Append a piece of the image (any size).

        Raises:
            StorageError: it failed; call :meth:`abort`.
        """
        self._small.append(piece)
        self._small_bytes += len(piece)
        if self._small_bytes >= _BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = self._small[0] if len(self._small) == 1 else b"".join(self._small)
        data = bytes(data)
        self._small, self._small_bytes = [], 0
        for start in range(0, len(data), _BLOCK_BYTES_MAX):
            part = data[start : start + _BLOCK_BYTES_MAX]
            head = _BLOCK.pack(len(part), extend(self._blocks & 0xFFFFFFFF, part))
            self._crc = extend(extend(self._crc, head), part)
            self._blocks += 1
            self._body += len(part)
            self._append([head, part])

    def commit(self) -> SnapshotMeta:
        """Make the snapshot durable and the latest one.

        Raises:
            StaleSnapshot: one of the same or a higher index came first; this one is dropped.
            StorageError: it failed; the replica must stop.
        """
        self._store._check_grows(self, self._index)
        if self._small_bytes:
            self._flush()
        trailer = _TRAILER.pack(0, self._crc, self._blocks, self._body, 0)[: -_CRC.size]
        self._append([trailer + _CRC.pack(value(trailer))])
        meta = SnapshotMeta(
            self._index, self._term, self._payload, self._prev_term, self.offset, self._crc,
            self._id, self._configuration,
        )  # fmt: skip
        self._publish(meta)
        return meta


class SnapshotReceiver(_Slot):
    """Takes the slot file of another replica in chunks, in order, and verifies all of it."""

    def __init__(
        self, store: SnapshotStore, index: int, term: int, size: int, crc: int, id: str | None
    ) -> None:
        """Use :meth:`SnapshotStore.receive`."""
        super().__init__(store, f"received-{store._fs.random_bytes(8).hex()}.tmp")
        self._announced = (index, term, size, crc, id)
        self._total = size
        self._verifier = _Verifier(store._owner)

    def write(self, chunk: bytes) -> None:
        """Append the next chunk of the file.

        Raises:
            BadTransfer: it is damaged or too long; call :meth:`abort`.
            StorageError: the disk failed; the replica must stop.
        """
        if self.offset + len(chunk) > self._total:
            raise BadTransfer(f"more than the announced {self._total} bytes")
        try:
            self._verifier.feed(chunk)
        except (ValueError, Foreign, Unsupported) as error:
            raise BadTransfer(str(error)) from error
        self._append([chunk])

    def finish(self) -> SnapshotMeta:
        """Verify that it is complete and as announced; :meth:`commit` comes next.

        Raises:
            BadTransfer: it is not; the temporary file is gone.
            StaleSnapshot: one of the same or a higher index came first; this one is dropped.
        """
        try:
            meta = self._verifier.finish()
            id = self._announced[4] or meta.id
            if (meta.index, meta.term, meta.size, meta.crc, id) != (*self._announced[:4], meta.id):
                raise ValueError("it is not the snapshot that was announced")
            if meta.index < 2 or meta.prev_term > meta.term or not meta.payload:
                raise ValueError("it ends at no entry that there could be")
        except ValueError as error:
            self.abort()
            raise BadTransfer(str(error)) from error
        self._store._check_grows(self, meta.index)
        return meta

    def settle(self) -> None:
        """Have it on the disk: what is left to do takes no room.

        Raises:
            StorageError: it failed; call :meth:`abort`.
        """
        self._opened().sync()

    def pieces(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """Yield the image of what :meth:`finish` returned, before it replaces anything.

        Raises:
            Damaged: the file is not what was written.
        """
        return self._store._pieces(self._opened().read, meta, self._path)

    def commit(self) -> SnapshotMeta:
        """Make the snapshot durable and the latest one, if it is complete and as announced.

        Raises:
            BadTransfer: it is not; the temporary file is gone.
            StaleSnapshot: one of the same or a higher index came first; this one is dropped.
            StorageError: the disk failed; the replica must stop.
        """
        meta = self.finish()
        self._publish(meta)
        return meta


class SnapshotStore:
    """The slots in a directory, and their only owner."""

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        owner: bytes = b"",
        *,
        fits: Callable[[int], bool] = lambda size: True,
    ) -> None:
        """Open the store and verify the latest slot in full.

        Arguments:
            fs: the file system.
            directory: the store's own directory; it is made.
            owner: 16 bytes that tell which cluster's; empty for tests.
            fits: whether a snapshot of so many bytes has room; 0: one of the own state.

        Raises:
            Damaged: the latest slot is.
            Foreign: it belongs to another cluster.
            Unsupported: it is of another version.
            DiskFailed: a system call failed.
        """
        self._fs = fs
        self._directory = directory
        self._owner = owner or bytes(_OWNER_BYTES)
        ensure(len(self._owner) == _OWNER_BYTES, "the owner hash has 16 bytes")
        self._latest: SnapshotMeta | None = None
        self._open: dict[str, tuple[SnapshotMeta, File]] = {}
        self.fits = fits
        fs.mkdir(directory)
        self._recover()

    def _recover(self) -> None:
        fs = self._fs
        names = fs.listdir(self._directory)
        slots = sorted((index, name) for name in names if (index := _slot_index(name)) is not None)
        if slots:
            index, name = slots[-1]
            path = join(self._directory, name)
            file = fs.open(path)
            try:
                file.settle()
                meta = self._verified(file, path)
                if _slot_name(meta) != name:
                    raise _damaged(path, f"it holds the snapshot of entry {meta.index}")
            except BaseException:
                file.close()
                raise
            self._latest = meta
            self._open[meta.id] = (meta, file)
        # Everything is checked: from here on the directory may be changed.
        old = [name for _index, name in slots[:-1]]
        for name in old + [name for name in names if name.endswith(".tmp")]:
            fs.point("snapshot.tidy")
            fs.unlink(join(self._directory, name))
        fs.fsync_dir(self._directory)  # a name that a killed process made may not be durable yet

    def _verified(self, file: File, path: str) -> SnapshotMeta:
        verifier = _Verifier(self._owner)
        offset = 0
        try:
            while data := file.read(offset, _BLOCK_BYTES_MAX):
                offset += len(data)
                verifier.feed(data)
            return verifier.finish()
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        except (Foreign, Unsupported) as error:
            raise type(error)(f"reading the snapshot {path} failed", error.why, error.remedy) from (
                error
            )

    def latest(self) -> SnapshotMeta | None:
        """Return the latest durable snapshot; None if there never was one."""
        return self._latest

    def latest_index(self) -> int:
        """Return the index of the latest durable snapshot, 0 if there is none."""
        return self._latest.index if self._latest is not None else 0

    def create(
        self, index: int, term: int, payload: bytes, prev_term: int, configuration: bytes = b""
    ) -> SnapshotWriter:
        """Begin a snapshot of this replica's state as of entry ``index``.

        Arguments:
            index: last applied entry, at least 2.
            term: its term.
            payload: its payload.
            prev_term: term of the entry before it.
            configuration: who was a member as of that entry.

        Raises:
            StorageError: the temporary file could not be made.
        """
        ensure(index >= 2, "a snapshot ends at entry 2 or later")
        ensure(prev_term <= term, "terms never fall")
        return SnapshotWriter(self, index, term, bytes(payload), prev_term, configuration)

    def receive(
        self, index: int, term: int, size: int, crc: int, id: str | None = None
    ) -> SnapshotReceiver:
        """Begin to receive the slot file of another replica's snapshot.

        The arguments are the sender's :class:`SnapshotMeta`; all are checked against the file.

        Arguments:
            index: last entry of the snapshot.
            term: its term.
            size: bytes of the file.
            crc: checksum of the file.
            id: its id; None if it was not told.

        Raises:
            StorageError: the temporary file could not be made.
        """
        return SnapshotReceiver(self, index, term, size, crc, id)

    def holds(self, meta: SnapshotMeta) -> bool:
        """Whether :meth:`read` can serve it: the latest one, and the one before it."""
        return meta.id in self._open

    def read(self, meta: SnapshotMeta, offset: int, size: int) -> bytes:
        """Read raw bytes of a slot file, to send them to another replica.

        Raises:
            Missing: two newer snapshots have replaced it; start over with the latest.
            DiskFailed: the read failed.
        """
        if meta.id not in self._open:
            raise Missing(
                f"reading the snapshot of entry {meta.index} failed",
                "newer snapshots have replaced it",
                "send the latest one",
            )
        return self._open[meta.id][1].read(offset, max(0, min(size, meta.size - offset)))

    def pieces(self, meta: SnapshotMeta) -> Iterator[bytes]:
        """Yield the image, each piece verified; use it only if the iteration ends normally.

        Raises:
            Damaged: the file is not what it was when it was written.
            Missing: newer snapshots have replaced it.
        """
        path = join(self._directory, _slot_name(meta))
        return self._pieces(lambda offset, size: self.read(meta, offset, size), meta, path)

    def _pieces(
        self, read: Callable[[int, int], bytes], meta: SnapshotMeta, path: str
    ) -> Iterator[bytes]:
        verifier = _Verifier(self._owner, keep=True)
        offset = 0
        try:
            while data := read(offset, _BLOCK_BYTES):
                offset += len(data)
                verifier.feed(data)
                blocks, verifier.blocks = verifier.blocks, []
                yield from blocks
            if verifier.finish() != meta:
                raise _damaged(path, "it is not the snapshot that was written")
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        except (Foreign, Unsupported) as error:
            raise _damaged(path, error.why) from error

    def close(self) -> None:
        """Close the files."""
        for _meta, file in self._open.values():
            file.close()
        self._open.clear()

    def bytes_on_disk(self) -> int:
        """Return the size of the latest slot."""
        return self._latest.size if self._latest is not None else 0

    def _check_grows(self, slot: _Slot, index: int) -> None:
        if index <= self.latest_index():
            slot.abort()
            raise StaleSnapshot(
                f"snapshot of entry {index} after one of entry {self.latest_index()}"
            )

    def _publish(self, temporary: str, meta: SnapshotMeta, file: File) -> None:
        fs = self._fs
        fs.point("snapshot.rename.before")
        fs.rename(temporary, join(self._directory, _slot_name(meta)))
        fs.point("snapshot.rename.after")
        fs.fsync_dir(self._directory)
        fs.point("snapshot.durable")
        former, self._latest = self._latest, meta
        self._open[meta.id] = (meta, file)
        if former is not None:
            # Still readable through its open file: somebody may be in the middle of sending it.
            fs.unlink(join(self._directory, _slot_name(former)))
            fs.point("snapshot.former.unlinked")
        for number in [n for n in self._open if n not in (meta.id, former and former.id)]:
            self._open.pop(number)[1].close()


def _slot_name(meta: SnapshotMeta) -> str:
    return f"{meta.index:020d}{_SUFFIX}"


def _slot_index(name: str) -> int | None:
    stem = name.removesuffix(_SUFFIX)
    if stem == name or len(stem) != 20 or not (stem.isascii() and stem.isdigit()):
        return None
    return int(stem)


def _damaged(path: str, why: str) -> StorageError:
    return Damaged(f"reading the snapshot {path} failed", why, _REMEDY)

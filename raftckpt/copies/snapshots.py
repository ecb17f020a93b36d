"""Snapshot files: read as a whole and verified, whatever they are used for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Final, NamedTuple

from raftckpt.limits import KIB
from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol.snapshotfile import FileHead, NewerFile, SnapshotUnpacker
from raftckpt.storage import Damaged, DiskFailed, StorageError, Unsupported
from raftckpt.version import HIGHEST_LEVEL, IMAGE_VERSION, LOWEST_LEVEL

__all__ = ["Inspected", "check_readable", "inspect_snapshot", "load_snapshot"]

_READ_BYTES: Final = 256 * KIB
"""A system call is nothing beside the check sum of so much. A quarter or four times would do."""
_KEPT: Final = "take another copy: raftckpt snapshot inspect tells which are good"


class Inspected(NamedTuple):
    """What a file holds."""

    head: FileHead
    size: int
    """Bytes of the file."""
    image_bytes: int
    digest: str
    """SHA-256 (hex) of the image."""


def inspect_snapshot(path: str, progress: Callable[[int], object] = lambda size: None) -> Inspected:
    """Read all of a file and verify every byte of it; takes no memory to speak of.

    Arguments:
        path: of the file.
        progress: called with the bytes read so far.

    Raises:
        Damaged: it is not as it was written.
        Unsupported: it is of a later format.
        DiskFailed: it cannot be read.
    """
    unpacker, total, size = SnapshotUnpacker(), sha256(), 0
    for block in _blocks(path, unpacker, progress):
        total.update(block)
        size += len(block)
    return Inspected(unpacker.finish(), os.path.getsize(path), size, total.hexdigest())


def load_snapshot(
    path: str, progress: Callable[[int], object] = lambda size: None
) -> tuple[FileHead, CheckpointMachine]:
    """Read a file and make its state of it, which takes the memory of the state.

    Raises:
        Damaged: it is not as it was written.
        Unsupported: this version can neither its format nor its level.
        DiskFailed: it cannot be read.
    """
    unpacker = SnapshotUnpacker()
    try:
        machine = CheckpointMachine.restore(_readable(path, unpacker, progress))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    head = unpacker.finish()
    machine.level = head.level
    if (machine.revision, machine.now_ns, machine.applied_index) != (
        head.revision,
        head.time_ns,
        head.entry,
    ):
        raise _damaged(path, "its head is of another state than its image")
    return head, machine


def _readable(
    path: str, unpacker: SnapshotUnpacker, progress: Callable[[int], object]
) -> Iterator[bytes]:
    for block in _blocks(path, unpacker, progress):
        if unpacker.head is not None:
            check_readable(path, unpacker.head)
        yield block


def check_readable(path: str, head: FileHead) -> None:
    """Refuse what this version cannot make a state of.

    Raises:
        Unsupported: it cannot.
    """
    if not LOWEST_LEVEL <= head.level <= HIGHEST_LEVEL:
        raise Unsupported(
            f"reading the snapshot {path} failed",
            f"it is of a cluster at level {head.level}; this version can levels {LOWEST_LEVEL} to "
            f"{HIGHEST_LEVEL}",
            "use the version of raftckpt that wrote it, or a later one",
        )
    if head.image_version != IMAGE_VERSION:
        raise Unsupported(
            f"reading the snapshot {path} failed",
            f"its image is of format {head.image_version}; this version reads {IMAGE_VERSION}",
            "use the version of raftckpt that wrote it, or a later one",
        )


def _blocks(
    path: str, unpacker: SnapshotUnpacker, progress: Callable[[int], object]
) -> Iterator[bytes]:
    read = 0
    try:
        with open(path, "rb") as file:
            while data := file.read(_READ_BYTES):
                read += len(data)
                unpacker.feed(data)
                progress(read)
                blocks, unpacker.blocks = unpacker.blocks, []
                yield from blocks
        unpacker.finish()
    except NewerFile as error:
        raise Unsupported(
            f"reading the snapshot {path} failed",
            str(error),
            "use the version of raftckpt that wrote it, or a later one",
        ) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise DiskFailed(
            f"reading the snapshot {path} failed", error.strerror or str(error), "name another file"
        ) from error


def _damaged(path: str, why: str) -> StorageError:
    return Damaged(f"reading the snapshot {path} failed", why, _KEPT)

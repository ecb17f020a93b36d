"""Data directories for tests: named, founded and opened without a word on any link."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol import operations as ops
from raftckpt.protocol.batch import encode_batch
from raftckpt.raft.configuration import (
    CONFIGURATION,
    NO_OP,
    REGULAR,
    ClusterMember,
    Configuration,
    Configurations,
    encode_configuration,
)
from raftckpt.storage import DataDirectory, FileSystem, Journal, RealFileSystem, Storage
from raftckpt.storage.identity import write_identity
from raftckpt.version import HIGHEST_LEVEL

__all__ = [
    "FOUNDING",
    "found",
    "founding_of",
    "named_directory",
    "open_founded",
    "written_directory",
]

FOUNDING = "f" * 32


def founding_of(cluster: str, nodes: Iterable[str], level: int = HIGHEST_LEVEL) -> Configuration:
    """A founding whose data directories have the names of their nodes."""
    members = tuple(ClusterMember(n, n, f"{n}:1", f"{n}:2") for n in sorted(nodes))
    return Configuration(FOUNDING, cluster, "", 0, level, False, members)


def named_directory(
    fs: FileSystem, path: str, cluster: str, node: str, *, name: str = "", joins: str = ""
) -> DataDirectory:
    """Open a data directory; a new one gets the id ``name`` (that of the node) for readability."""
    directory = DataDirectory.open(fs, path, cluster, node, joins=joins)
    if not directory.identity.record and len(directory.identity.directory) == 32:
        directory.identity = directory.identity._replace(directory=name or node)
        write_identity(fs, path, directory.identity)
    return directory


def found(directory: DataDirectory, record: Configuration) -> None:
    """Note a complete founding."""
    directory.note_complete(record.founding, encode_configuration(record))


def open_founded(
    fs: FileSystem, path: str, cluster: str = "c", node: str = "n", **options: Any
) -> Storage:
    """Open the data directory of a cluster of one, and found it if it is new."""
    directory = named_directory(fs, path, cluster, node)
    if not directory.founded:
        found(directory, founding_of(cluster, [node]))
    return Storage.open(directory, **{"journal_class": Journal, **options})


def written_directory(
    path: Path,
    *,
    node: str = "n1",
    sections: int = 3,
    snapshot: bool = False,
    committed: int | None = None,
    term: int = 1,
    terms: dict[int, int] | None = None,
    level: int = HIGHEST_LEVEL,
    pinned: bool = False,
    nodes: Iterable[str] = ("n1", "n2", "n3"),
) -> CheckpointMachine:
    """Write what a member has on disk after a session put sections into the checkpoint "c".

    Entry 1 is the founding, 2 a no-op, 3 opens a session, 4 the checkpoint, 5 and on are the puts.
    All are of ``term`` but those that ``terms`` names.

    Returns:
        The state.
    """
    directory = named_directory(RealFileSystem(), str(path), "golden", node)
    found(directory, founding_of("golden", nodes, level)._replace(pinned=pinned))
    storage = Storage.open(directory, segment_bytes=64 * 1024)
    journal, machine = storage.journal, CheckpointMachine()
    founding = CONFIGURATION + directory.identity.record
    opening = ops.SessionOpen(0, 0, 0, bytes(range(16)), "me", node, 10**9, 0)
    made = ops.CheckpointOpen(1, 1, 0, "c", 7, (1, 0, 60 * 10**9, 1000, 1 << 20, 255))
    puts = [ops.SectionPut(1, 2 + n, 1 + n, 1, b"%d" % n, b"x" * 100) for n in range(sections)]
    payloads = [founding, NO_OP]
    payloads += [
        REGULAR + encode_batch(10**18 + n, [command])
        for n, command in enumerate((opening, made, *puts))
    ]
    for index, payload in enumerate(payloads, 1):
        at = (terms or {}).get(index, term)
        journal.append_entry(payload, index, at if index > 1 else 0)
        if payload[:1] == REGULAR:
            results = machine.apply(index, payload[1:])
            assert all(result.ok for result in results), results
    last = len(payloads)
    journal.set_hard_state(
        max(term, journal[-1][2]), node, last if committed is None else committed
    )
    journal.sync()
    if snapshot:
        placed = Configurations(b"", list(journal)).placed(last)
        writer = storage.snapshots.create(last, term, payloads[-1], term, placed)
        for piece in machine.freeze():
            writer.write(piece)
        writer.commit()
        journal.compact_to(last - 1)
        journal.sync()
    storage.close()
    return machine

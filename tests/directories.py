"""Data directories for tests: named, founded and opened without a word on any link."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raftckpt.raft.configuration import ClusterMember, Configuration, encode_configuration
from raftckpt.storage import DataDirectory, FileSystem, Journal, Storage
from raftckpt.storage.identity import write_identity
from raftckpt.version import HIGHEST_LEVEL

__all__ = ["FOUNDING", "found", "founding_of", "named_directory", "open_founded"]

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

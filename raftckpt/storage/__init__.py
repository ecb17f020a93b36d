"""Storage: what must survive a crash. Journal, snapshots, identity, and the file system's port."""

from raftckpt.storage.directory import DataDirectory, Storage
from raftckpt.storage.files import (
    Damaged,
    DiskFailed,
    DiskFull,
    File,
    FileSystem,
    Foreign,
    InUse,
    Lock,
    Missing,
    RealFileSystem,
    StorageError,
    Unsupported,
)
from raftckpt.storage.identity import REJOINS, Identity, IdentityState, read_identity
from raftckpt.storage.journal import PLACEHOLDER, Journal
from raftckpt.storage.notes import Contradiction, PeerNotes
from raftckpt.storage.reading import HeldDirectory, reading
from raftckpt.storage.snapshots import (
    BadTransfer,
    SnapshotMeta,
    SnapshotReceiver,
    SnapshotStore,
    SnapshotWriter,
    StaleSnapshot,
)

__all__ = [
    "PLACEHOLDER",
    "REJOINS",
    "BadTransfer",
    "Contradiction",
    "Damaged",
    "DataDirectory",
    "DiskFailed",
    "DiskFull",
    "File",
    "FileSystem",
    "Foreign",
    "HeldDirectory",
    "Identity",
    "IdentityState",
    "InUse",
    "Journal",
    "Lock",
    "Missing",
    "PeerNotes",
    "RealFileSystem",
    "SnapshotMeta",
    "SnapshotReceiver",
    "SnapshotStore",
    "SnapshotWriter",
    "StaleSnapshot",
    "Storage",
    "StorageError",
    "Unsupported",
    "read_identity",
    "reading",
]

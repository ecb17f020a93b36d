"""Storage: what must survive a crash. Journal, snapshots, identity, and the file system's port."""

from raftckpt.storage.directory import Storage
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
from raftckpt.storage.identity import Identity
from raftckpt.storage.journal import Journal
from raftckpt.storage.snapshots import (
    BadTransfer,
    SnapshotMeta,
    SnapshotReceiver,
    SnapshotStore,
    SnapshotWriter,
    StaleSnapshot,
)

__all__ = [
    "BadTransfer",
    "Damaged",
    "DiskFailed",
    "DiskFull",
    "File",
    "FileSystem",
    "Foreign",
    "Identity",
    "InUse",
    "Journal",
    "Lock",
    "Missing",
    "RealFileSystem",
    "SnapshotMeta",
    "SnapshotReceiver",
    "SnapshotStore",
    "SnapshotWriter",
    "StaleSnapshot",
    "Storage",
    "StorageError",
    "Unsupported",
]

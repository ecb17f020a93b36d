"""Raft-replicated checkpoint store with the semantics of the SA Forum Checkpoint Service.

Example::

    with raftckpt.connect("127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403") as service:
        with service.open("counter", create=raftckpt.Attributes()) as ckpt:
            ckpt["1"] = b"data"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftckpt.client.blocking import Checkpoint, Service, connect
from raftckpt.client.changes import Change
from raftckpt.client.parts import Appended
from raftckpt.client.sync import Transaction, View
from raftckpt.client.sync_tracking import Tracker
from raftckpt.client.types import (
    Attributes,
    CheckpointStatus,
    CheckReport,
    ClusterLimits,
    ClusterStatus,
    Image,
    Lately,
    LimitStatus,
    MemberRecord,
    Opener,
    ReplicaStatus,
    SavedSnapshot,
    SectionStatus,
    TlsOptions,
)
from raftckpt.errors import (
    Access,
    BadFlags,
    BadHandle,
    BadOperation,
    CheckpointError,
    Conflict,
    Exist,
    Fenced,
    InvalidParam,
    Library,
    NoActiveReplica,
    NoMemory,
    NoResources,
    NoSections,
    NoSpace,
    NotExist,
    NotSupported,
    SaAisError,
    SectionNotExist,
    SessionLost,
    Timeout,
    TooBig,
    TryAgain,
    Unavailable,
    VersionMismatch,
)
from raftckpt.version import VERSION

if TYPE_CHECKING:
    from raftckpt import aio, ha

__all__ = [
    "Access",
    "Appended",
    "Attributes",
    "BadFlags",
    "BadHandle",
    "BadOperation",
    "Change",
    "CheckReport",
    "Checkpoint",
    "CheckpointError",
    "CheckpointStatus",
    "Client",
    "ClusterLimits",
    "ClusterStatus",
    "Conflict",
    "Exist",
    "Fenced",
    "Image",
    "InvalidParam",
    "Lately",
    "Library",
    "LimitStatus",
    "MemberRecord",
    "NoActiveReplica",
    "NoMemory",
    "NoResources",
    "NoSections",
    "NoSpace",
    "NotExist",
    "NotSupported",
    "Opener",
    "ReplicaStatus",
    "SaAisError",
    "SavedSnapshot",
    "SectionNotExist",
    "SectionStatus",
    "Service",
    "SessionLost",
    "Timeout",
    "TlsOptions",
    "TooBig",
    "Tracker",
    "Transaction",
    "TryAgain",
    "Unavailable",
    "VersionMismatch",
    "View",
    "__version__",
    "aio",
    "connect",
    "ha",
]

__version__ = VERSION

Client = Service


def __getattr__(name: str) -> Any:
    if name == "aio":  # not before somebody asks: asyncio takes longer to import than all of this
        import raftckpt.aio

        return raftckpt.aio
    if name == "ha":
        import raftckpt.ha

        return raftckpt.ha
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What other rooms may build on: calls by hand, engines, trackers, the second connections.

``saf`` and ``ha`` stand on this module and on the faces, and on nothing else of the room
(``lint-imports`` sees to it): what is not named here may change any day.
"""

from __future__ import annotations

from raftckpt.client import group_operations, operations
from raftckpt.client.calls import Call
from raftckpt.client.changes import Change
from raftckpt.client.connecting import Options, make_core
from raftckpt.client.core import ClientCore
from raftckpt.client.credentials import credentials
from raftckpt.client.endpoints import cluster_file, is_cluster_file
from raftckpt.client.io.threads import ThreadEngine
from raftckpt.client.io.wake import Wake
from raftckpt.client.operations import Opened, decoded
from raftckpt.client.sync import Checkpoint, Service
from raftckpt.client.sync_driver import Driver
from raftckpt.client.sync_tracking import Tracker, open_tracker
from raftckpt.client.tracking import target_of, track_point
from raftckpt.client.types import Nanoseconds, TlsOptions
from raftckpt.client.witness import Witness, witness_of

__all__ = [
    "Call",
    "Change",
    "Checkpoint",
    "ClientCore",
    "Driver",
    "Nanoseconds",
    "Opened",
    "Options",
    "Service",
    "ThreadEngine",
    "TlsOptions",
    "Tracker",
    "Wake",
    "Witness",
    "cluster_file",
    "credentials",
    "decoded",
    "group_operations",
    "is_cluster_file",
    "make_core",
    "open_tracker",
    "operations",
    "target_of",
    "track_point",
    "witness_of",
]

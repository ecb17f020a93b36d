"""Versions of everything that outlives a process or crosses a wire."""

from __future__ import annotations

__all__ = [
    "BATCH_VERSION",
    "CLIENT_PROTOCOL",
    "IMAGE_VERSION",
    "JOURNAL_VERSION",
    "PEER_PROTOCOL",
    "VERSION",
]

VERSION = "0.1.0"

CLIENT_PROTOCOL = 1
"""Version of the protocol between clients and replicas (docs/protocol.md)."""

PEER_PROTOCOL = 1
"""Version of the protocol between replicas."""

BATCH_VERSION = 1
"""Version of the batch of commands that one Raft entry carries."""

JOURNAL_VERSION = 1
"""Version of the journal's segment format."""

IMAGE_VERSION = 1
"""Version of the state machine's snapshot image."""

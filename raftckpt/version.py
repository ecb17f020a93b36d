"""Versions of everything that outlives a process or crosses a wire."""

from __future__ import annotations

__all__ = [
    "BATCH_VERSION",
    "CLIENT_PROTOCOL",
    "HIGHEST_LEVEL",
    "IMAGE_VERSION",
    "JOURNAL_VERSION",
    "LOWEST_LEVEL",
    "PEER_PROTOCOL",
    "VERSION",
]

VERSION = "0.1.0"

CLIENT_PROTOCOL = 1
"""Version of the protocol between clients and replicas (docs/reference/protocol.md)."""

PEER_PROTOCOL = 2
"""Version of the protocol between replicas (1: by node id, without a founding)."""

LOWEST_LEVEL = 1
HIGHEST_LEVEL = 2
"""Levels of what a log may hold that this version can read and propose."""

BATCH_VERSION = 1
"""Version of the batch of commands that one Raft entry carries."""

JOURNAL_VERSION = 1
"""Version of the journal's segment format."""

IMAGE_VERSION = 1
"""Version of the state machine's snapshot image."""

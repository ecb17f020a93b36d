"""How patient a client is, and the states of its connection."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from raftckpt import limits
from raftckpt.client.greeting import Introduction

__all__ = ["CoreConfig", "Link"]


class Link(IntEnum):
    """State of the one connection the core works with."""

    NONE = 0
    CONNECTING = 1
    GREETING = 2
    """HELLO is on its way."""
    GREETED = 3
    """A replica that does not lead, or none leads."""
    ATTACHING = 4
    """SESSION_OPEN or ATTACH is on its way to the leader."""
    READY = 5
    """The leader, with the session attached if there is one."""


class CoreConfig(NamedTuple):
    """What a client is and how patient; times in seconds unless named otherwise."""

    client_name: str = ""
    node: str | None = None
    """Node id of the client; None: that of the replica first connected to."""
    session_timeout_ns: int = 10 * limits.SECOND_NS
    disconnect_grace_ns: int = 2 * limits.SECOND_NS
    token: str | None = None
    encrypted: bool = False
    """Whether its connections are TLS."""
    connect_timeout: float = 1.0
    """For a connection and for each step of the handshake; doubled in later rounds."""
    probe_after: float = 0.5
    """Silence on a connection with requests open, after which it is probed; twice: suspected."""
    retry_min: float = 0.005
    retry_max: float = 0.2

    @property
    def introduction(self) -> Introduction:
        """What is said about the client on each of its connections."""
        return Introduction(self.client_name, self.token)

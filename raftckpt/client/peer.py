"""What an engine drives: a peer without IO that says which connections it wants.

A client, a tracker, a witness and a poll of all replicas are peers; engines are threads
(:mod:`raftckpt.client.io.threads`) and an asyncio loop (:mod:`raftckpt.client.io.loop`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

__all__ = ["IT_CLOSED", "SOON_SECONDS", "AnyPeer"]

SOON_SECONDS: Final = 0.25
"""After so long without an answer the next address, or replica, is tried beside (RFC 8305)."""
IT_CLOSED: Final = "it closed the connection"


class AnyPeer(Protocol):
    """Inputs are method calls that carry the time; outputs are read off afterwards."""

    def wanted(self) -> Mapping[int, str]:
        """Return the endpoints of the connections that should exist, by number.

        A number that is new asks for a connection, one that is gone for its end. None comes twice.
        The same object says that nothing has changed.
        """

    def hears(self, number: int) -> bool:
        """Whether what arrives on this connection is to be read."""

    def data_to_send(self, number: int) -> bytes:
        """Return the bytes to send on a connection that is up, b"" if there are none."""

    def next_deadline(self) -> float:
        """Return the time at which :meth:`tick` must be called at the latest."""

    def tick(self, now: float) -> None:
        """Do what is due."""

    def connected(self, number: int, now: float) -> None:
        """The connection is up."""

    def connection_lost(self, number: int, why: str, now: float) -> None:
        """The connection is gone, or could not be made."""

    def data_received(self, number: int, data: bytes, now: float) -> None:
        """Bytes arrived."""

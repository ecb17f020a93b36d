"""What replicas recognise each other by, without a disk."""

from __future__ import annotations

import hmac

from raftckpt.raft.hello import Handshake

__all__ = ["Marks"]


class Marks:
    """What a directory keeps of those it met; the product's is tested with its disk.

    Arguments:
        seed: what its keys are made of.
    """

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self.keys: dict[str, bytes] = {}
        self.have_told: set[str] = set()

    def own_key(self, directory: str) -> bytes:
        return hmac.digest(self.seed, directory.encode(), "sha256")

    def key_of(self, directory: str) -> bytes:
        return self.keys.get(directory, b"")

    def told(self, directory: str) -> bool:
        return directory in self.have_told

    def note(self, handshake: Handshake) -> None:
        """As it is done when a link goes live."""
        assert handshake.hello is not None
        if handshake.key:
            self.keys[handshake.hello.directory] = handshake.key
        if handshake.telling:
            self.have_told.add(handshake.hello.directory)

"""A small state machine for consensus alone: a log of unique values."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgpack

from raftckpt.raft.configuration import Configuration
from raftckpt.raft.port import RaftStatus


class Observer(Protocol):
    """Hears what the machine of one process does (the checks of the world)."""

    def applied(self, index: int, term: int, payload: bytes, chain: int, context: Any) -> None: ...
    def abandoned(self, contexts: list[Any]) -> None: ...
    def restored(self, index: int, chain: int) -> None: ...
    def configured(self, configuration: Configuration) -> None: ...
    def role_changed(self, status: RaftStatus) -> None: ...


class ListMachine:
    """Remembers the order of all payloads; ``chain`` is a checksum over the whole history.

    ``ballast`` pads the image, so that it travels in several chunks.
    """

    def __init__(self, observer: Observer, *, ballast: int = 0) -> None:
        self.observer = observer
        self.ballast = ballast
        self.index = 0
        self.chain = 0
        self.values: list[bytes] = []

    def apply(self, index: int, term: int, payload: bytes, context: Any) -> None:
        self.chain = zlib.crc32(payload, self.chain)
        self.values.append(payload[:16])
        self.index = index
        self.observer.applied(index, term, payload, self.chain, context)

    def abandon(self, contexts: list[Any]) -> None:
        self.observer.abandoned(contexts)

    def freeze(self) -> Iterator[bytes]:
        head = msgpack.packb([self.index, self.chain, len(self.values), self.ballast])
        values = list(self.values)  # now; what follows is read while the state goes on changing
        return self._encode(head, values)

    def _encode(self, head: bytes, values: list[bytes]) -> Iterator[bytes]:
        yield len(head).to_bytes(4, "big") + head
        for start in range(0, len(values), 32):  # small pieces: an image takes many steps
            yield b"".join(values[start : start + 32])
        yield bytes(self.ballast)

    def restore(self, pieces: Iterable[bytes]) -> None:
        image = b"".join(pieces)
        size = int.from_bytes(image[:4], "big")
        self.index, self.chain, count, ballast = msgpack.unpackb(image[4 : 4 + size])
        start = 4 + size
        assert len(image) == start + 16 * count + ballast, "a torn image was handed over"
        self.values = [image[i : i + 16] for i in range(start, start + 16 * count, 16)]
        self.observer.restored(self.index, self.chain)

    def configured(self, configuration: Configuration) -> None:
        self.observer.configured(configuration)

    def role_changed(self, status: RaftStatus) -> None:
        self.observer.role_changed(status)


def value(number: int, size: int) -> bytes:
    """The payload of write ``number``: a unique head of 16 bytes and some filler."""
    return b"%016d" % number + bytes(max(0, size - 16))

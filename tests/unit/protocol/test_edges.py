"""Edges that could move without a test noticing: found by planting mutants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from raftckpt.protocol.frames import (
    FRAGMENT,
    FRAGMENT_LAST,
    FrameError,
    MessageStream,
    encode_frame,
    pack_pieces,
)
from tests.messages import check_request


class Rows:
    """A listing of numbers."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def prepare(self) -> Iterator[None]:
        return iter(())

    def rows(self) -> Iterator[Any]:
        return iter(range(self._count))


@pytest.mark.parametrize("count", [0, 15, 16, 0xFFFF, 0x10000])
def test_listings_of_every_size_are_arrays(count: int) -> None:
    assert msgpack.unpackb(b"".join(pack_pieces([Rows(count)]))) == [list(range(count))]


def fragments(*bodies: bytes) -> bytes:
    kinds = [FRAGMENT] * (len(bodies) - 1) + [FRAGMENT_LAST]
    return b"".join(
        encode_frame(bytes((kind,)) + body) for kind, body in zip(kinds, bodies, strict=True)
    )


def test_each_message_of_fragments_may_be_as_long_as_the_limit() -> None:
    packed = msgpack.packb([[b"x" * 80]])
    stream = MessageStream(len(packed))
    for _ in range(3):
        assert stream.feed(fragments(packed[:50], packed[50:])) == [[b"x" * 80]]
    with pytest.raises(FrameError, match="more than"):
        MessageStream(len(packed) - 1).feed(fragments(packed[:50], packed[50:]))


def test_what_is_wrong_with_a_message_is_said() -> None:
    unknown, short = check_request([99, 1]), check_request([24, 1])
    assert unknown is not None
    assert unknown[2] == "unknown message 99"
    assert short is not None
    assert short[2] == "SECTION_PUT has 7 fields, not 2"

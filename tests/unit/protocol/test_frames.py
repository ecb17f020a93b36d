from __future__ import annotations

import struct
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

import google_crc32c
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftckpt import limits
from raftckpt.errors import InvariantViolation
from raftckpt.protocol import frames
from raftckpt.protocol.check import read_requests
from raftckpt.protocol.frames import (
    FrameDecoder,
    FrameError,
    LargeValue,
    MessageStream,
    encode_frame,
    frames_for_pieces,
    pack_messages,
    pack_pieces,
    reply_frames,
)
from tests.messages import record, unpack_messages

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)
MESSAGES = st.lists(st.lists(VALUES, min_size=1, max_size=6), min_size=1, max_size=5)


class FakePages:
    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def pieces(self) -> Any:
        return iter(self._pieces)


def frame(body: bytes, checksum: int | None = None) -> bytes:
    crc = google_crc32c.value(body) if checksum is None else checksum
    return struct.pack(">II", len(body), crc) + body


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@given(st.lists(MESSAGES, max_size=4), st.lists(st.integers(0, 2000)))
def test_messages_survive_any_cutting(batches: list[list[Any]], cuts: list[int]) -> None:
    stream = b"".join(pack_messages(batch) for batch in batches)
    decoder = FrameDecoder()
    bodies = [body for part in split(stream, cuts) for body in decoder.feed(part)]
    assert [unpack_messages(body) for body in bodies] == batches
    assert decoder.held_bytes == 0


@given(MESSAGES, MESSAGES)
def test_byte_by_byte(first: list[Any], second: list[Any]) -> None:
    stream = MessageStream()
    data = pack_messages(first) + pack_messages(second)
    got = [message for byte in data for message in stream.feed(bytes([byte]))]
    assert got == first + second


@given(st.binary(max_size=200), st.lists(st.integers(0, 300)))
def test_garbage_raises_only_frame_errors(data: bytes, cuts: list[int]) -> None:
    stream = MessageStream()
    with suppress(FrameError):
        for part in split(data, cuts):
            stream.feed(part)


@given(MESSAGES, st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(messages: list[Any], place: int, flip: int) -> None:
    data = bytearray(pack_messages(messages))
    place %= len(data)
    data[place] ^= flip
    decoder = FrameDecoder()
    try:
        bodies = decoder.feed(bytes(data))
    except FrameError:
        return
    assert bodies == []  # the length grew: it waits for the rest
    assert place < 4


@given(st.binary(min_size=1, max_size=100))
def test_bodies_of_garbage_raise_only_frame_errors(payload: bytes) -> None:
    for body in (payload, b"\x00" + payload):
        with suppress(FrameError):
            assert isinstance(read_requests(body), list)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_accepts_any_buffer(kind: Any) -> None:
    data = pack_messages([[1, b"x"]])
    assert FrameDecoder().feed(kind(data)) == [data[8:]]
    decoder = FrameDecoder()
    assert decoder.feed(kind(data[:5])) == []
    assert decoder.feed(kind(data[5:])) == [data[8:]]


@pytest.mark.parametrize("length", [0, limits.FRAME_BYTES_MAX + 1, 0xFFFF_FFFF])
def test_a_bad_length_is_refused_before_anything_is_buffered(length: int) -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameError, match="allowed are"):
        decoder.feed(struct.pack(">II", length, 0))
    with pytest.raises(FrameError, match="before"):
        decoder.feed(pack_messages([[1]]))


def test_a_bad_checksum_is_refused_for_good() -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameError, match="checksum"):
        decoder.feed(frame(b"\x00\x90", checksum=1))
    with pytest.raises(FrameError):
        decoder.feed(b"")


def test_the_limit_is_the_decoders_own() -> None:
    assert FrameDecoder(10).feed(frame(b"\x00" * 10)) == [b"\x00" * 10]
    with pytest.raises(FrameError):
        FrameDecoder(10).feed(frame(b"\x00" * 11))


def test_big_frames_in_small_chunks_cost_linear_time() -> None:
    data = frame(b"\x00" + bytes(limits.FRAME_BYTES_MAX - 1))
    decoder = FrameDecoder()
    started = time.process_time()
    bodies = []
    for position in range(0, len(data), 512):
        bodies += decoder.feed(data[position : position + 512])
        assert decoder.held_bytes <= limits.FRAME_BYTES_MAX + 8
    assert len(bodies) == 1
    assert time.process_time() - started < 1.0  # quadratic would be 4 GB of copying


def test_encode_frame_refuses_what_nobody_would_accept() -> None:
    assert encode_frame(b"\x00") == frame(b"\x00")
    with pytest.raises(InvariantViolation):
        encode_frame(b"")
    with pytest.raises(InvariantViolation):
        encode_frame(bytes(limits.FRAME_BYTES_MAX + 1))
    with pytest.raises(InvariantViolation):
        pack_messages([bytes(limits.FRAME_BYTES_MAX)])


@pytest.mark.parametrize(
    "body",
    [
        b"\x00",  # nothing
        b"\x00\x90",  # no message
        b"\x00\x01",  # no array
        b"\x00\x91\x91",  # cut off
        b"\x00\x91\x91\x01\x01",  # more than one object
        b"\x00\x91\x91\xc1",  # a byte msgpack never uses
        b"\x00\x91\x91\xa1\xff",  # text that is not UTF-8
        b"\x00\x91\x81\x90\x01",  # a map with an unhashable key
        b"\x00" + b"\x91" * 5000,  # deep
        b"\x01\x91\x91\x01",  # a fragment, where none is allowed
        b"\x02\x91\x91\x01",
        b"\x07\x91\x91\x01",
    ],
)
def test_malformed_bodies_of_a_client(body: bytes) -> None:
    with pytest.raises(FrameError):
        read_requests(body)


def test_a_small_frame_cannot_announce_a_huge_array() -> None:
    body = b"\x00\xdd\x00\x1f\xff\xff" * 1000
    started = time.process_time()
    with pytest.raises(FrameError):
        read_requests(body.ljust(limits.FRAME_BYTES_MAX, b"\x00"))
    assert time.process_time() - started < 0.5
    many = [[0]] * (limits.MESSAGES_PER_FRAME_MAX + 1)
    with pytest.raises(FrameError):
        read_requests(b"\x00" + msgpack.packb(many))
    assert len(read_requests(b"\x00" + msgpack.packb(many[:-1]))) == len(many) - 1


def test_large_bodies_decode_too() -> None:
    messages = [[26, 1, 1, 0, 1, 0, b"x" * 100_000]]
    assert read_requests(pack_messages(messages)[8:]) == [record(messages[0])]
    assert MessageStream().feed(pack_messages(messages)) == messages


# --- fragments -----------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.binary(max_size=60), max_size=4), max_size=5),
    st.integers(16, 80),
    st.lists(st.integers(0, 3000)),
)
@settings(deadline=None)
def test_streams_of_pieces_come_back_whole(
    groups: list[list[bytes]], fragment_bytes: int, cuts: list[int]
) -> None:
    message = [0, 7, 1, [3, [FakePages(*group) for group in groups]]]
    data = b"".join(reply_frames(message, fragment_bytes))
    stream = MessageStream()
    got = [item for part in split(data, cuts) for item in stream.feed(part)]
    assert got == [[0, 7, 1, [3, [b"".join(group) for group in groups]]]]


@given(VALUES)
def test_pieces_of_anything_are_msgpack(value: Any) -> None:
    joined = b"".join(pack_pieces([value]))
    assert msgpack.unpackb(joined, strict_map_key=False) == [value]


def test_pieces_of_large_and_small_items() -> None:
    value = [1, [[b"a", b"b"], [b"c", b"d" * 20_000], (b"e", FakePages(b"f", b"g"))], None, "t"]
    joined = b"".join(pack_pieces(value))
    assert msgpack.unpackb(joined) == [
        1,
        [[b"a", b"b"], [b"c", b"d" * 20_000], [b"e", b"fg"]],
        None,
        "t",
    ]
    assert len(list(pack_pieces([[[b"id", b"data"]] * 20]))) == 22  # one piece per small item
    assert isinstance(FakePages(), LargeValue)


def test_fragments_are_of_the_size_asked_for() -> None:
    pieces = [b"x" * 700] * 10
    parts = list(frames_for_pieces(b"\x91\xc6" + (7000).to_bytes(4, "big"), pieces, 1000))
    bodies = [FrameDecoder().feed(part)[0] for part in parts]
    assert [body[0] for body in bodies] == [1] * 7 + [2]
    assert {len(body) for body in bodies[:-1]} == {1001}
    # exactly full: no empty fragment follows
    exact = list(frames_for_pieces(b"", [b"y" * 1000], 1000))
    assert len(exact) == 1
    assert exact[0][8] == 0


def test_the_stream_is_lazy() -> None:
    taken = []

    def pieces() -> Any:
        for number in range(10):
            taken.append(number)
            yield bytes(1000)

    stream = frames_for_pieces(b"", pieces(), 1000)
    next(stream)
    assert len(taken) <= 2


def test_whole_frames_may_stand_between_fragments() -> None:
    parts = list(reply_frames([0, 1, 1, [b"z" * 300]], 100))
    assert len(parts) > 2
    stream = MessageStream()
    got = []
    for part in parts:
        got += stream.feed(part)
        if part is not parts[-1]:
            got += stream.feed(pack_messages([[1, 2]]))
    assert got == [[1, 2]] * (len(parts) - 1) + [[0, 1, 1, [b"z" * 300]]]


def test_fragments_are_limited_in_sum() -> None:
    stream = MessageStream(message_bytes_max=150)
    stream.feed(frame(b"\x01" + b"x" * 100))
    with pytest.raises(FrameError, match="add up"):
        stream.feed(frame(b"\x01" + b"x" * 100))


def test_unknown_first_byte() -> None:
    with pytest.raises(FrameError, match="0x03"):
        MessageStream().feed(frame(b"\x03\x90"))


def test_a_reply_may_be_a_longer_array_than_a_request() -> None:
    ids = list(range(limits.MESSAGES_PER_FRAME_MAX + 5))
    assert MessageStream().feed(pack_messages([[0, 1, 1, ids]])) == [[0, 1, 1, ids]]
    with pytest.raises(FrameError):
        read_requests(pack_messages([[0, 1, 1, ids]])[8:])


def test_nothing_here_knows_a_socket_or_a_clock() -> None:
    names = set(vars(frames))
    assert not names & {"socket", "time", "os", "asyncio", "threading", "random", "logging"}

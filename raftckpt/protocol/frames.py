"""Framing of both ports: length and checksum around a body, fragments, lists of messages.

A frame is ``length:u32 crc32c:u32 body`` (big endian). The first byte of a body says what follows:
``0x00`` a msgpack array of messages, ``0x01`` a fragment of such an array with more to come,
``0x02`` its last fragment. Owns no socket and no clock; bytes in, bodies or messages out.

Invariants: a decoder holds at most one frame and the chunk it was fed; every byte is copied a
constant number of times however it was cut up; after an error it stays broken, because the place
of the next frame is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from struct import Struct
from typing import Any, Final, Protocol, runtime_checkable

import google_crc32c
import msgpack
import msgspec

from raftckpt import limits
from raftckpt.errors import ensure

__all__ = [
    "FRAGMENT",
    "FRAGMENT_LAST",
    "HEADER_BYTES",
    "MESSAGES",
    "FrameDecoder",
    "FrameError",
    "LargeValue",
    "MessageStream",
    "encode_frame",
    "frame_parts",
    "frames_for_pieces",
    "message_frames",
    "no_extension",
    "no_map",
    "pack_messages",
    "pack_pieces",
    "payload_of",
    "reply_frames",
    "try_pack",
]

# length and check sum, 4 bytes each; then the first byte of a body says what it is
HEADER_BYTES: Final = 8
MESSAGES: Final = 0x00
FRAGMENT: Final = 0x01
FRAGMENT_LAST: Final = 0x02

_HEADER: Final = Struct(">II")
_MESSAGES_HEADER: Final = Struct(">IIB")
_MESSAGES_BYTE: Final = b"\x00"
_MESSAGES_CRC: Final[int] = google_crc32c.value(_MESSAGES_BYTE)
_COPY_BELOW: Final = 4096
"""A slice of a small body is cheaper than a view of it."""
_JOIN_BELOW: Final = 16 * limits.KIB
"""Shorter values are copied into one piece with their neighbours: a copy costs less than a piece of
its own (a guess, about where)."""
_ROWS_PER_PIECE: Final = 16
"""Packed in one call, if all are short: the call is shared by so many, and few are packed one by
one for a long one among them."""
_PIECES_PER_STEP: Final = 32
"""Of rows of a listing, then the loop has its turn: about a millisecond."""
_ROW_ITEMS_MAX: Final = 16
"""Of a row that is packed in one go: the fields of a descriptor. What has more is packed item by
item."""
_ROW_DEPTH_MAX: Final = 3
"""Of a checkpoint's descriptor: it has a list of openers, each with some fields."""


class FrameError(ValueError):
    """The other side broke the framing: the connection cannot go on."""


@runtime_checkable
class LargeValue(Protocol):
    """A large value kept in pieces; what the model returns for a section of several pages."""

    def __len__(self) -> int:
        """Bytes in all."""

    def pieces(self) -> Iterator[bytes]:
        """The bytes in order."""


class LongListing(Protocol):
    """Many rows, each made when it is asked for; what the model returns for long answers."""

    def __len__(self) -> int:
        """Rows, once ``prepare`` is through; the most there can be before."""

    def prepare(self) -> Iterator[None]:
        """Find out how many rows there are, in short steps."""

    def rows(self) -> Iterator[Any]:
        """The rows in order."""


class FrameDecoder:
    r"""Cuts a stream of bytes into frame bodies.

    Example:
        >>> FrameDecoder().feed(encode_frame(b"\x00\x90"))
        [b'\x00\x90']
    """

    __slots__ = ("_broken", "_checksum", "_head", "_length", "_limit", "_missing", "_parts")

    def __init__(self, limit: int = limits.FRAME_BYTES_MAX) -> None:
        self._limit = limit
        self._broken = False
        self._head = b""  # of an incomplete header
        # of an incomplete body, whose parts are joined only when it is whole
        self._parts: list[bytes | bytearray | memoryview] = []
        self._length = 0
        self._missing = 0
        self._checksum = 0

    def allow(self, limit: int) -> None:
        """Take frames up to this size from the next one on."""
        self._limit = limit

    @property
    def held_bytes(self) -> int:
        """Bytes of an incomplete frame that wait for the rest."""
        if self._missing:
            return HEADER_BYTES + self._length - self._missing
        return len(self._head)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take what arrived and return the bodies that are now complete, in order.

        Raises:
            FrameError: length or checksum is wrong; so does every later call.
        """
        if self._broken:
            raise FrameError("the stream was broken before")
        if type(data) is not bytes:
            data = bytes(data)
        bodies: list[bytes] = []
        position = 0
        if self._missing:
            position = min(self._missing, len(data))
            self._hold(data if position == len(data) else memoryview(data)[:position])
            if self._missing:
                return bodies
            parts, self._parts = self._parts, []
            bodies.append(self._verified(b"".join(parts), self._checksum))
        elif self._head:
            data = self._head + data
            self._head = b""
        size = len(data)
        while size - position >= HEADER_BYTES:
            length, checksum = _HEADER.unpack_from(data, position)
            if not 0 < length <= self._limit:
                self._broken = True
                raise FrameError(f"frame of {length} bytes; allowed are 1..{self._limit}")
            position += HEADER_BYTES
            if size - position < length:
                self._length = self._missing = length
                self._checksum = checksum
                if position < size:
                    self._hold(memoryview(data)[position:])
                return bodies
            bodies.append(self._verified(data[position : position + length], checksum))
            position += length
        self._head = data[position:]
        return bodies

    def _verified(self, body: bytes, checksum: int) -> bytes:
        if google_crc32c.value(body) != checksum:
            self._broken = True
            raise FrameError(f"checksum of a frame of {len(body)} bytes does not match")
        return body

    def _hold(self, part: bytes | memoryview) -> None:
        """Keep a part of a body: a large one as it is, small ones in one growing buffer."""
        self._missing -= len(part)
        parts = self._parts
        if len(part) >= _COPY_BELOW:
            parts.append(part)
        elif parts and type(parts[-1]) is bytearray:
            parts[-1] += part
        else:
            parts.append(bytearray(part))


class MessageStream:
    """Turns a stream of bytes into messages, putting fragments together (the client's side).

    Arguments:
        message_bytes_max: most bytes that fragments may add up to.
    """

    __slots__ = ("_decoder", "_fragment_bytes", "_fragments", "_limit")

    def __init__(self, message_bytes_max: int = limits.REPLY_BYTES_MAX) -> None:
        self._decoder = FrameDecoder()
        self._fragments: list[bytes] = []
        self._fragment_bytes = 0
        self._limit = message_bytes_max

    def feed(self, data: bytes | bytearray | memoryview) -> list[Any]:
        """Take what arrived and return the messages that are now complete, in order.

        Raises:
            FrameError: framing, first byte or msgpack is wrong, or fragments exceed the limit.
        """
        messages: list[Any] = []
        for body in self._decoder.feed(data):
            kind = body[0]
            if kind == MESSAGES:
                messages += _unpack(payload_of(body))
            elif kind in (FRAGMENT, FRAGMENT_LAST):
                self._fragment_bytes += len(body) - 1
                if self._fragment_bytes > self._limit:
                    raise FrameError(f"fragments add up to more than {self._limit} bytes")
                self._fragments.append(body)
                if kind == FRAGMENT_LAST:
                    joined = b"".join([memoryview(part)[1:] for part in self._fragments])
                    self._fragments = []
                    self._fragment_bytes = 0
                    messages += _unpack(joined)
            else:
                raise FrameError(f"unknown first byte {kind:#04x} of a frame body")
        return messages


def encode_frame(body: bytes) -> bytes:
    """Put a header before ``body``.

    Raises:
        InvariantViolation: the body is empty or over the limit: the sender's bug.
    """
    ensure(0 < len(body) <= limits.FRAME_BYTES_MAX, "frame body out of bounds")
    return _HEADER.pack(len(body), google_crc32c.value(body)) + body


def frame_parts(body: bytes) -> tuple[bytes, ...]:
    """What :func:`encode_frame` returns, in parts if it is large: nothing is copied to write it."""
    if len(body) < _JOIN_BELOW:
        return (encode_frame(body),)
    ensure(len(body) <= limits.FRAME_BYTES_MAX, "frame body out of bounds")
    return (_HEADER.pack(len(body), google_crc32c.value(body)), body)


def pack_messages(messages: list[Any]) -> bytes:
    """Pack messages into one frame.

    Raises:
        InvariantViolation: they do not fit: the sender must split them.
    """
    frame = try_pack(messages)
    ensure(frame is not None, "messages do not fit into one frame")
    return frame or b""


def try_pack(messages: list[Any]) -> bytes | None:
    """Pack messages, with values of :class:`LargeValue`, into one frame; None: they do not fit."""
    payload = _encode(messages)
    length = len(payload) + 1
    if length > limits.FRAME_BYTES_MAX:
        return None
    checksum = google_crc32c.extend(_MESSAGES_CRC, payload)
    return _MESSAGES_HEADER.pack(length, checksum, MESSAGES) + payload


def _joined(value: Any) -> bytes:
    if isinstance(value, LargeValue):
        return b"".join(value.pieces())
    raise TypeError(f"cannot send a {type(value).__name__}")


_encode: Final = msgspec.msgpack.Encoder(enc_hook=_joined).encode


def message_frames(messages: list[Any]) -> Iterator[bytes]:
    """Pack messages into as few frames as they fit into, lazily.

    What does not fit into one alone is sent in fragments: no other fragments may be under way.
    """
    frame = try_pack(messages)
    if frame is not None:
        yield frame
    elif len(messages) == 1:
        yield from reply_frames(messages[0])
    else:
        middle = len(messages) // 2
        yield from message_frames(messages[:middle])
        yield from message_frames(messages[middle:])


def payload_of(body: bytes) -> bytes | memoryview:
    """Return the msgpack of a whole (not fragmented) body: what a replica accepts from a client.

    Raises:
        FrameError: the first byte is wrong.
    """
    if body[0] != MESSAGES:
        raise FrameError(f"first byte {body[0]:#04x} of a frame body; expected 0x00")
    return body[1:] if len(body) < _COPY_BELOW else memoryview(body)[1:]


def _unpack(payload: bytes | memoryview) -> list[Any]:
    """Decode what a replica says: keys of maps are texts or bytes, whose hashes are keyed."""
    try:
        messages = msgpack.unpackb(
            payload,
            raw=False,
            use_list=True,
            max_array_len=len(payload),
            max_ext_len=0,
            ext_hook=no_extension,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise FrameError(f"not msgpack: {type(error).__name__}: {error}") from None
    if type(messages) is not list or not messages:
        raise FrameError("a frame body carries an array of at least one message")
    return messages


def no_map(pairs: Any) -> Any:
    """Hook of decoders: refuse. A map costs what the hashes of its keys make it cost.

    Raises:
        ValueError: always.
    """
    raise ValueError("a map, which no message has")


def no_extension(code: int, data: bytes) -> Any:
    """Hook of decoders: refuse.

    Raises:
        ValueError: always.
    """
    raise ValueError("an extension type, which no message has")


def frames_for_pieces(
    head: bytes, pieces: Iterable[bytes], fragment_bytes: int = limits.FRAGMENT_BYTES
) -> Iterator[bytes]:
    """Stream one long array of messages as frames, lazily.

    What fits into one fragment becomes a whole frame. At most one such stream may be under way
    per connection; whole frames may be sent between its frames. An empty piece becomes empty
    bytes here: nothing to send yet, but time for others to have their turn.

    Arguments:
        head: first bytes of the msgpack array of messages.
        pieces: the bytes that follow.
        fragment_bytes: a frame is closed when it has this many bytes.
    """
    buffer = bytearray(b"\x00")
    sent = False
    for piece in chain((head,) if head else (), pieces):
        if not piece:
            yield b""
            continue
        position = 0
        while position < len(piece):
            if len(buffer) > fragment_bytes:
                # only now is it sure that more follows
                buffer[0] = FRAGMENT
                yield encode_frame(bytes(buffer))
                sent = True
                buffer = bytearray(b"\x00")
            room = fragment_bytes + 1 - len(buffer)
            buffer += memoryview(piece)[position : position + room]
            position += room
    if sent:
        buffer[0] = FRAGMENT_LAST
    yield encode_frame(bytes(buffer))


def pack_pieces(value: Any) -> Iterator[bytes]:
    """Encode a value as msgpack in pieces.

    :class:`LargeValue` inside lists become one bin each, a :class:`LongListing` becomes an array.
    While its rows are counted and made, an empty piece now and then says that others may go first.
    """
    if hasattr(value, "rows"):
        yield from _pack_listing(value)
    elif isinstance(value, (list, tuple)):
        yield _array_header(len(value))
        for item in value:
            if isinstance(item, (list, tuple)) and len(item) <= 8 and all(map(_is_small, item)):
                # an item such as [id, data] of a million: one piece, not four
                yield msgpack.packb(item, use_bin_type=True)
            else:
                yield from pack_pieces(item)
    elif isinstance(value, bytes) and len(value) >= _JOIN_BELOW:
        yield _bin_header(len(value))
        yield value
    elif hasattr(value, "pieces"):
        yield _bin_header(len(value))
        yield from value.pieces()
    else:
        yield msgpack.packb(value, use_bin_type=True)


def _pack_listing(listing: LongListing) -> Iterator[bytes]:
    for _ in listing.prepare():
        yield b""
    yield _array_header(len(listing))
    rows = iter(listing.rows())
    pack = msgpack.Packer(use_bin_type=True).pack
    pieces = 0
    while some := list(islice(rows, _ROWS_PER_PIECE)):
        if all(map(_is_short, some)):
            yield pack(some)[len(_array_header(len(some))) :]
        else:
            for item in some:
                yield from pack_pieces(item)
        pieces += 1
        if not pieces % _PIECES_PER_STEP:
            yield b""


def _is_short(value: Any, depth: int = _ROW_DEPTH_MAX) -> bool:
    """Whether it is to be packed in one go: few values, none of them large."""
    if value is None or type(value) is bool or _is_small(value):
        return True
    if not depth or not isinstance(value, (list, tuple)) or len(value) > _ROW_ITEMS_MAX:
        return False
    if all(map(_is_small, value)):
        return True
    return all([_is_short(item, depth - 1) for item in value])


def reply_frames(
    message: list[Any], fragment_bytes: int = limits.FRAGMENT_BYTES
) -> Iterator[bytes]:
    """Stream one message, whose values may be :class:`LargeValue`, as frames, lazily."""
    return frames_for_pieces(b"\x91", pack_pieces(message), fragment_bytes)


def _is_small(value: Any) -> bool:
    kind = type(value)
    return kind is int or ((kind is bytes or kind is str) and len(value) < _JOIN_BELOW)


def _array_header(count: int) -> bytes:
    if 15 < count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big") if count > 15 else bytes((0x90 | count,))


def _bin_header(size: int) -> bytes:
    return b"\xc6" + size.to_bytes(4, "big")

"""What comes from outside has no maps and no extension types, whoever decodes it.

A map costs what the hashes of its keys make it cost, and whoever sends it chooses them: time
stamps of msgpack hash by a function without a key. So none is built, wherever it stands.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgpack
import pytest

from raftckpt.model.image import load_image
from raftckpt.model.state import State
from raftckpt.protocol.batch import decode_batch
from raftckpt.protocol.check import Malformed, decode_plain, read_requests
from raftckpt.protocol.frames import FrameError, MessageStream, encode_frame
from raftckpt.raft.hello import parse_hello
from raftckpt.raft.messages import PeerProtocolError, decode_body
from raftckpt.version import BATCH_VERSION, IMAGE_VERSION

_MASK = (1 << 64) - 1
_PRIMES = 11400714785074694791, 14029467366897019727, 2870177450012600261
"""Of the hash of tuples, which is the hash of a time stamp: (seconds, nanoseconds)."""


def equal_hashes(count: int) -> list[bytes]:
    """Time stamps as msgpack whose hashes are the same, up to the last step of the hash.

    Each step of it can be undone: for every number of nanoseconds there are seconds that lead to
    the state wanted.
    """
    first, second, start = _PRIMES
    undo_first, undo_second = pow(first, -1, 1 << 64), pow(second, -1, 1 << 64)
    found: list[bytes] = []
    nanoseconds = 0
    while len(found) < count:
        state = ((0x0123456789ABCDEF - nanoseconds * second) * undo_first) & _MASK
        state = ((state >> 31) | (state << 33)) & _MASK
        seconds = ((state - start) * undo_second) & _MASK
        seconds -= (seconds >> 63) << 64
        if abs(seconds) < (1 << 61) - 1 and seconds != -1:  # its hash is itself
            found.append(struct.pack(">BBbIq", 0xC7, 12, -1, nanoseconds, seconds))
        nanoseconds += 1
    return found


def map_of(keys: list[bytes]) -> bytes:
    return b"\xdf" + struct.pack(">I", len(keys)) + b"".join(key + b"\xc0" for key in keys)


FLOOD = map_of(equal_hashes(16_000))
MAPS = {
    "time stamps of equal hash": FLOOD,
    "an empty map": b"\x80",
    "texts": b"\x81\xa1a\x01",
    "bytes": b"\x81\xc4\x01a\x01",
    "numbers": b"\x81\x05\x01",
    "no keys": b"\x81\x90\x01",
    "a map of 4 G": b"\xdf\xff\xff\xff\xff",
}
EXTENSIONS = {
    "an extension": b"\xd4\x05\x00",
    "an empty extension": b"\xc7\x00\x05",
    "a long extension": b"\xc8\x01\x00\x05" + bytes(256),
    "a time stamp": b"\xd6\xff\x00\x00\x00\x01",
    "a long time stamp": struct.pack(">BBbIq", 0xC7, 12, -1, 1, 2),
    "an empty time stamp": b"\xc7\x00\xff",
}


@pytest.fixture(autouse=True)
def hashed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Time stamps that were hashed: none must be, however few there are and whatever is raised."""
    found: list[Any] = []
    plain = msgpack.Timestamp.__hash__

    def noting(stamp: Any) -> int:
        found.append(stamp)
        return plain(stamp)

    monkeypatch.setattr(msgpack.Timestamp, "__hash__", noting)
    yield found
    assert not found


def test_the_flood_is_one(hashed: list[Any]) -> None:
    assert 240_000 < len(FLOOD) < 400_000
    stamps = [msgpack.unpackb(key) for key in equal_hashes(200)]
    assert len(set(stamps)) == 200
    assert len({hash(stamp) for stamp in stamps}) == 1
    hashed.clear()
    built = msgpack.unpackb(map_of(equal_hashes(20)), strict_map_key=False)
    assert len(built) == 20
    assert len(hashed) == 20, "a decoder that builds it is noticed"
    hashed.clear()


def array(*items: bytes) -> bytes:
    return bytes((0x90 | len(items),)) + b"".join(items)


def pack(value: Any) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


PLACES: dict[str, Callable[[bytes], bytes]] = {
    "in the place of all": lambda bad: bad,
    "of a message": lambda bad: array(bad),
    "of a tag": lambda bad: array(array(bad, b"\x01")),
    "of an id": lambda bad: array(array(pack(202), bad)),
    "too many": lambda bad: array(array(pack(202), b"\x01", bad)),
    "of a text": lambda bad: array(array(pack(200), b"\x01", array(b"\x01"), bad, b"\xc0")),
    "of a number": lambda bad: array(
        array(pack(24), b"\x01", b"\x01", b"\x00", bad, pack(b"k"), pack(b"v"))
    ),
    "of data": lambda bad: array(
        array(pack(24), b"\x01", b"\x01", b"\x00", b"\x01", pack(b"k"), bad)
    ),
    "of a vector": lambda bad: array(array(pack(25), b"\x01", b"\x01", b"\x00", b"\x01", bad)),
    "of an element": lambda bad: array(
        array(pack(25), b"\x01", b"\x01", b"\x00", b"\x01", array(bad))
    ),
    "in an element": lambda bad: array(
        array(pack(25), b"\x01", b"\x01", b"\x00", b"\x01", array(array(pack(b"k"), bad, b"\x00")))
    ),
    "of a target": lambda bad: array(array(pack(101), b"\x01", b"\x00", b"\x00", bad)),
    "of attributes": lambda bad: array(
        array(pack(10), b"\x01", b"\x01", b"\x00", pack("n"), b"\x07", bad)
    ),
    "of an unknown message": lambda bad: array(array(pack(999), b"\x01", bad)),
    "after a good message": lambda bad: array(array(pack(202), b"\x01"), bad),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", [*MAPS, *EXTENSIONS])
def test_requests(what: str, place: str) -> None:
    payload = PLACES[place]((MAPS | EXTENSIONS)[what])
    with pytest.raises(FrameError):
        read_requests(b"\x00" + payload)
    with pytest.raises(ValueError):
        decode_plain(payload)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", [*MAPS, *EXTENSIONS])
def test_entries(what: str, place: str) -> None:
    commands = PLACES[place]((MAPS | EXTENSIONS)[what])
    entry = array(pack(BATCH_VERSION), b"\x01", commands)
    with pytest.raises(ValueError):
        decode_batch(entry)


@pytest.mark.parametrize("what", [*MAPS, *EXTENSIONS])
def test_entries_as_a_whole(what: str) -> None:
    bad = (MAPS | EXTENSIONS)[what]
    for entry in (
        bad,
        array(bad, b"\x01", b"\x90"),
        array(pack(BATCH_VERSION), bad, b"\x90"),
        array(pack(BATCH_VERSION), b"\x01", b"\x90", bad),
    ):
        with pytest.raises(ValueError):
            decode_batch(entry)
    assert decode_batch(array(pack(BATCH_VERSION), b"\x01", b"\x90")).commands == []
    (found,) = decode_batch(array(pack(BATCH_VERSION), b"\x01", array(array(b"\x05")))).commands
    assert type(found) is Malformed


@pytest.mark.parametrize("what", [*MAPS, *EXTENSIONS])
def test_peers(what: str) -> None:
    bad = (MAPS | EXTENSIONS)[what]
    append = [pack(value) for value in (1, 3, 7, 2, 1, 0)]
    for body in (
        bad,
        array(bad),
        array(array(bad)),
        array(array(b"\x05", bad)),
        array(array(*append, bad)),
        array(array(*append, array(bad))),
        array(array(*append, array(array(bad, b"\x02", b"\x03")))),
        array(array(pack(99), bad)),
    ):
        with pytest.raises(PeerProtocolError):
            decode_body(b"\x00" + body)


@pytest.mark.parametrize("what", [*MAPS, *EXTENSIONS])
def test_handshakes_of_peers(what: str) -> None:
    bad = (MAPS | EXTENSIONS)[what]
    hello = [pack(value) for value in (300, 1, "demo", "n1", 5, "d" * 16, True, False, True)]
    for body in (
        bad,
        array(bad),
        array(array(bad)),
        array(array(pack(300), bad)),
        array(array(pack(301), bad)),
        *[array(array(*hello[:at], bad, *hello[at + 1 :])) for at in range(len(hello))],
    ):
        with pytest.raises(PeerProtocolError):
            parse_hello(b"\x00" + body)


def test_small_floods_do_not_pass_as_handshakes_either() -> None:
    with pytest.raises(PeerProtocolError, match="msgpack"):
        parse_hello(b"\x00" + array(array(pack(300), map_of(equal_hashes(100)))))


@pytest.mark.parametrize("what", [*MAPS, *EXTENSIONS])
def test_images(what: str) -> None:
    bad = (MAPS | EXTENSIONS)[what]
    counters = pack([1, 0, 0, 0, 1, 1, 0])
    head = [pack("raftckpt image"), pack(IMAGE_VERSION), counters, b"\x00", b"\x00", b"\x00"]
    good = array(*head)
    for image in (
        bad,
        array(bad),
        array(*head[:2], bad, *head[3:]),
        array(*head[:3], bad, *head[4:]),
        array(*head[:3], b"\x01", *head[4:]) + bad,  # in the place of a checkpoint
        array(*head[:3], b"\x01", *head[4:]) + array(b"\x01", bad),
        array(*head[:4], b"\x01", *head[5:]) + bad,  # of a session
        array(*head[:5], b"\x01") + bad,  # of a group
        good + bad,  # of the trailer
    ):
        trailer = pack(["end", sha256(image).digest()])
        with pytest.raises(ValueError):
            load_image(State(), [image + trailer])
    load_image(State(), [good + pack(["end", sha256(good).digest()])])


# --- the other way round --------------------------------------------------------------------


def replies(payload: bytes) -> list[Any]:
    """What a client makes of it; whole and in fragments it is the same."""
    found = MessageStream().feed(encode_frame(b"\x00" + payload))
    middle = len(payload) // 2
    fragments = encode_frame(b"\x01" + payload[:middle]) + encode_frame(b"\x02" + payload[middle:])
    assert MessageStream().feed(fragments) == found
    return found


def test_replies_have_maps_with_texts_as_keys() -> None:
    value = {"node": "n1", "endpoints": {"n1": "a:1"}, "": None}
    assert replies(pack([[0, 1, 1, value]])) == [[0, 1, 1, value]]
    assert replies(pack([[0, 1, 1, {}]])) == [[0, 1, 1, {}]]


@pytest.mark.parametrize(
    "what", ["time stamps of equal hash", "numbers", "no keys", "a map of 4 G"]
)
def test_replies_have_no_other_maps(what: str) -> None:
    for bad in (MAPS[what], b"\x81\xa1a" + MAPS[what]):
        with pytest.raises(FrameError):
            replies(array(array(b"\x00", b"\x01", b"\x01", bad)))


@pytest.mark.parametrize("key", [0, 2**63, None, True, 1.5, datetime(2026, 1, 1, tzinfo=UTC)])
def test_keys_of_replies(key: Any) -> None:
    with pytest.raises(FrameError):
        replies(msgpack.packb([[0, 1, 1, {key: 1}]], datetime=True))


@pytest.mark.parametrize("what", EXTENSIONS)
def test_replies_have_no_extension_types(what: str) -> None:
    bad = EXTENSIONS[what]
    for value in (bad, array(bad), b"\x81\xa1a" + bad, b"\x81" + bad + b"\x01"):
        with pytest.raises(FrameError):
            replies(array(array(b"\x00", b"\x01", b"\x01", value)))

"""Hostile bytes: msgpack nobody should send, messages almost right, frames cut and mixed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import google_crc32c
import msgpack

from tests.unit.protocol.test_operations import GOOD

PACK = msgpack.Packer(use_bin_type=True, autoreset=True).pack
HOSTILE: dict[str, bytes] = {
    "deep arrays": b"\x91" * 200_000 + b"\xc0",
    "deep maps": b"\x81\xa1k" * 60_000 + b"\xc0",
    "an array of 4 G": b"\xdd\xff\xff\xff\xff",
    "a map of 4 G": b"\xdf\xff\xff\xff\xff",
    "bytes of 4 G": b"\xc6\xff\xff\xff\xff",
    "text of 4 G": b"\xdb\xff\xff\xff\xff",
    "an extension of 4 G": b"\xc9\xff\xff\xff\xff\x01",
    "not a number": b"\x91\x94\x18" + b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00" + b"\x01\x01",
    "infinite": b"\x91\x92\xcc\xca\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    "an extension": b"\x91\x92\xcc\xca\xd4\x01\x00",
    "a time stamp": b"\x91\x92\xcc\xca\xd6\xff\x00\x00\x00\x00",
    "a key twice": b"\x91\x92\xcc\xca\x82\xa1a\x01\xa1a\x02",
    "a key that is no key": b"\x91\x92\xcc\xca\x81\x91\x01\x02",
    "text that is none": b"\x91\x95\xcc\xc8\x01\x91\x01\xa2\xff\xfe\xc0",
    "the byte that is never used": b"\xc1",
    "nothing": b"\x90",
    "no array": b"\x01",
    "a negative id": b"\x91\x92\xcc\xca\xff",
    "a huge id": b"\x91\x92\xcc\xca\xcf" + b"\xff" * 8,
    "more than one object": b"\x91\x92\xcc\xca\x01" * 2,
    "many empty messages": b"\xdc\x40\x00" + b"\x90" * 0x4000,
}
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 2**63 - 1, 2**63, -(2**63), 1.5, float("nan"), b"", b"x",
    b"x" * 2000, "", "x", "ü" * 2000, [], [[]], [None], {}, {"a": 1}, [b"a", 0, b"x"], 10**9, "\0",
    [[b"a", 0, b"x"]] * 300, msgpack.ExtType(5, b"x"), [[[[[[[[[[]]]]]]]]]],
]  # fmt: skip


def frame(body: bytes) -> bytes:
    """Put a right header before a body that may be anything."""
    return struct.pack(">II", len(body), google_crc32c.value(body)) + body


def spoiled_message(rng: random.Random) -> Any:
    """A message of the protocol with something wrong in it (or right: then it is answered)."""
    message: Any = [*rng.choice(list(GOOD.values()))]
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        match rng.randrange(6):
            case 0 if len(message) > 1:
                message[rng.randrange(1, len(message))] = rng.choice(ODD)
            case 1:
                message.append(rng.choice(ODD))
            case 2 if len(message) > 1:
                message.pop()
            case 3:
                message[0] = rng.choice([*GOOD, *range(60), *range(95, 130), 300, -1, 2**40])
            case 4 if message and isinstance(message[-1], list):
                message[-1] = [*message[-1], rng.choice(ODD)]
            case _:
                rng.shuffle(message)
        if not message:
            break
    return message


def spoiled_stream(rng: random.Random, good: Callable[[], bytes]) -> bytes:
    """Frames that were cut, mixed, flipped or announced wrongly."""
    parts = [good() for _ in range(rng.randint(1, 4))]
    data = bytearray(b"".join(parts))
    match rng.randrange(7):
        case 0:
            del data[rng.randrange(len(data)) :]
        case 1:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 2:
            other = bytearray(good())
            at, cut = rng.randrange(len(data)), rng.randrange(len(other))
            data[at:at] = other[cut:]
        case 3:
            data[0:4] = struct.pack(">I", rng.choice([0, 1, 2**21 + 1, 2**31, 2**32 - 1]))
        case 4:
            data = bytearray(frame(rng.choice([b"\x01", b"\x02", b"\x03", b"\xff"]) + data[9:]))
        case 5:
            data = bytearray(frame(b"\x00" + rng.choice(list(HOSTILE.values()))))
        case _:
            data = bytearray(rng.randbytes(rng.randrange(1, 3000)))
    return bytes(data)

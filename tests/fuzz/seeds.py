"""What the guided search begins with, beside the kept corpus."""

from __future__ import annotations

import msgpack

from raftckpt.protocol.batch import encode_batch
from tests.fuzz.hostile import HOSTILE, PACK, frame
from tests.fuzz.test_config import GOOD as CONFIG
from tests.fuzz.test_config import SPECIAL
from tests.golden.books import HERE, read
from tests.golden.play import SNAPSHOT, SNAPSHOT_HEAD
from tests.unit.model.driver import DrivenMachine
from tests.unit.protocol.test_operations import GOOD

__all__ = ["seeds_of"]

_ONE = bytes([0, 1, 1, 0, 1, 3]) + b"one"
_RESET = (5).to_bytes(8, "little") + (1).to_bytes(8, "little") + (1).to_bytes(4, "little") + b"x"


def _small_image() -> bytes:
    cluster = DrivenMachine()
    client = cluster.session()
    handle = client.open()
    client.put(handle, b"k", b"v")
    client.create(handle, b"e", b"x", cluster.now + 10**9)
    client.do(27, handle, b"k")
    client.do(26, 1, 0, b"staged")
    client.do(30, "group", "name", 1, 10**9, 10**9)
    whole = b"".join(cluster.machine.freeze())
    return whole[: -len(msgpack.packb(["end", bytes(32)], use_bin_type=True))]


def seeds_of(target: str) -> list[bytes]:
    """Some good input of each kind, and some that is hostile."""
    messages = [PACK([list(message)]) for message in GOOD.values()]
    if target == "frames":
        return [frame(b"\x00" + message) for message in messages[:10]]
    if target in ("requests", "port"):
        return messages + [data for data in HOSTILE.values() if len(data) < 4096]
    if target == "batch":
        return [
            encode_batch(10**12 + n, [list(m)]) for n, m in enumerate(GOOD.values()) if m[0] < 100
        ]
    if target == "image":
        return [_small_image()]
    if target == "snapshot":
        return [SNAPSHOT.read_bytes()[:2000], PACK(SNAPSHOT_HEAD), PACK([*SNAPSHOT_HEAD, "more"])]
    if target == "peers":
        lines = [entry.lines[0] for entry in read("peers")]
        return [bytes.fromhex(line)[8:] for line in lines if not line.startswith("sha256")]
    if target == "export":
        lines = (HERE / "exports" / "first.ndjson").read_bytes().splitlines(keepends=True)
        return [b"".join(lines[:-1]), lines[0], b"[" * 100_000, b'{"format": 1}', b"{}", b"1"]
    if target == "journal":
        return [
            _ONE + bytes([0, 2, 1, 0, 1, 3]) + b"two" + bytes([4, 0, 0, 3, 1, 0]),
            bytes([1, 0, 2, 0, 1, 2]) + b"=n" + _ONE,
            _ONE + bytes([2, 1, 1, 0, 1, 0]) + _ONE,
            _ONE + bytes([3, 0, 0, 0, 1, 21]) + _RESET,
            bytes([255]) + bytes(60),
        ]
    if target == "slot":
        return [bytes(16 + 8 + 32), bytes(16) + b"12345678" + bytes(32) + b"block" * 40]
    if target == "settings":
        return [text.encode("utf-8", "replace")[:4000] for text in (CONFIG, *SPECIAL.values())]
    return [b"a\0--help", b"\x02\0name\0-o\0json", b"\x06\0c\0k\0@x\0--ttl\x005s"]

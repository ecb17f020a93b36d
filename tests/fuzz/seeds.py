"""What the guided search begins with, beside the kept corpus."""

from __future__ import annotations

import msgpack

from raftckpt.protocol.batch import encode_batch
from tests.fuzz.hostile import HOSTILE, PACK, frame
from tests.golden.books import HERE, read
from tests.golden.play import SNAPSHOT, SNAPSHOT_HEAD
from tests.unit.model.driver import DrivenMachine
from tests.unit.protocol.test_operations import GOOD

__all__ = ["seeds_of"]


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
    return [b"a\0--help", b"\x02\0name\0-o\0json", b"\x06\0c\0k\0@x\0--ttl\x005s"]

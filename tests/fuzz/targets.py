"""What is fuzzed: each target takes any bytes, and raises only if the product is wrong.

Used by the replay of the kept corpus (``test_corpus.py``) and by the guided search
(``python -m tests.fuzz.guided``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable
from unittest import mock

import google_crc32c
import msgpack
from raftckpt_cli import main as cli_main

from raftckpt.copies.export import lines_of, read_export
from raftckpt.errors import CheckpointError
from raftckpt.model.image import digest
from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol.check import Malformed, array_of, read_requests
from raftckpt.protocol.frames import FrameDecoder, FrameError, MessageStream
from raftckpt.protocol.snapshotfile import SnapshotUnpacker
from raftckpt.raft.hello import Handshake, Hello
from raftckpt.raft.messages import (
    PeerProtocolError,
    decode_body,
    encode,
    implausible,
    join_bodies,
)
from raftckpt.version import PEER_PROTOCOL
from tests.fuzz.disks import FILES
from tests.fuzz.hostile import PACK, frame
from tests.golden.product import GoldenPort
from tests.unit.model.driver import DrivenMachine

__all__ = ["TARGETS"]

_END = len(msgpack.packb(["end", bytes(32)], use_bin_type=True))
_VERBS = (
    ("checkpoint", "list"), ("checkpoint", "create"), ("checkpoint", "show"),
    ("checkpoint", "unlink"), ("section", "list"), ("section", "read"), ("section", "write"),
    ("section", "create"), ("section", "delete"), ("section", "append"), ("group", "list"),
    ("group", "show"), ("cluster", "status"), ("cluster", "transfer"), ("version",),
)  # fmt: skip
_HELLO = frame(b"\x00" + PACK([[200, 1, [1], "fuzz", None]]))
_SESSION = frame(b"\x00" + PACK([[1, 2, 0, 0, bytes(16), "fuzz", "n1", 10**10, 10**9]]))
_ATTRIBUTES = [1, 0, 2**63 - 1, 1000, 1 << 20, 64]
_OPEN = frame(b"\x00" + PACK([[10, 3, 1, 0, "ckpt", 7, _ATTRIBUTES], [24, 4, 2, 1, 1, b"k", b"v"]]))


def frames(data: bytes) -> None:
    """However a stream is cut, the same bodies come out, or the same refusal."""
    found = []
    for step in (len(data) or 1, 1, 1 + len(data) % 7):
        decoder = FrameDecoder()
        bodies: list[bytes] = []
        error = ""
        try:
            for start in range(0, len(data), step):
                bodies += decoder.feed(data[start : start + step])
        except FrameError as refused:
            error = str(refused)
        if not error:
            assert sum(8 + len(body) for body in bodies) + decoder.held_bytes == len(data)
        found.append(error or bodies)
    assert found[0] == found[1] == found[2] or any(isinstance(one, str) for one in found)
    assert len({isinstance(one, str) for one in found}) == 1
    with contextlib.suppress(FrameError):
        MessageStream(1 << 20).feed(data)


def requests(data: bytes) -> None:
    """A body is refused, or becomes records that mean the same when they are written again."""
    try:
        messages = read_requests(b"\x00" + data)
    except FrameError:
        return
    for message in messages:
        if type(message) is not Malformed:
            (again,) = read_requests(b"\x00" + PACK([array_of(message)]))
            assert again == message


def port(data: bytes) -> None:
    """A client with a session sends a frame: every request is answered, or the line is closed."""
    replica = GoldenPort()
    for part in (_HELLO, _SESSION, _OPEN, frame(b"\x00" + data)):
        replica.send("c", part)
    machine = replica._world.replica.machine
    again = CheckpointMachine.restore(machine.freeze())
    assert again.footprint == machine.footprint
    assert digest(again.freeze()) == digest(machine.freeze())


def batch(data: bytes) -> None:
    """An entry of the log is executed whatever it says; what is no batch does nothing."""
    cluster = DrivenMachine()
    client = cluster.session()
    handle = client.open()
    client.put(handle, b"k", b"v")
    machine = cluster.machine
    machine.apply(machine.applied_index + 1, data)
    again = CheckpointMachine.restore(machine.freeze())
    assert again.footprint == machine.footprint
    assert digest(again.freeze()) == digest(machine.freeze())


def image(data: bytes) -> None:
    """An image with a right check sum is refused, or is the image of the state it makes."""
    whole = data + msgpack.packb(["end", hashlib.sha256(data).digest()], use_bin_type=True)
    try:
        machine = CheckpointMachine.restore([whole])
    except ValueError:
        return
    again = CheckpointMachine.restore(machine.freeze())
    assert again.footprint == machine.footprint
    assert digest(again.freeze()) == digest(machine.freeze())


def snapshot(data: bytes) -> None:
    """A snapshot file is refused, however it is cut; so is a head with a right check sum."""
    found = []
    for step in (len(data) or 1, 1 + len(data) % 7):
        unpacker = SnapshotUnpacker()
        try:
            for start in range(0, len(data), step):
                unpacker.feed(data[start : start + step])
            found.append(str(unpacker.finish()))
        except ValueError as error:
            found.append(type(error).__name__)
    assert found[0] == found[1]
    plain = b"rckptsav" + (1).to_bytes(4, "little") + len(data).to_bytes(4, "little") + data
    unpacker = SnapshotUnpacker()
    with contextlib.suppress(ValueError):
        unpacker.feed(plain + google_crc32c.value(plain).to_bytes(4, "little"))
        assert unpacker.head is not None


def export(data: bytes) -> None:
    """Lines with a right last line are an export, or are refused."""
    lines = data if data.endswith(b"\n") else data + b"\n"
    end = {"end": lines.count(b"\n") - 1, "sha256": hashlib.sha256(lines).hexdigest()}
    with contextlib.suppress(CheckpointError):
        found = read_export(io.BytesIO(lines + json.dumps(end).encode() + b"\n"))
        sections = list(found.sections)
        assert len(sections) == found.count
        found.attributes.to_wire()
        again = b"".join(lines_of(dataclasses.replace(found, sections=sections)))
        assert list(read_export(io.BytesIO(again)).sections) == sections


def arguments(data: bytes) -> None:
    """Any words behind a verb, and nowhere to go: an exit code, and never a traceback."""
    verb, _, rest = data.partition(b"\0")
    words = [*_VERBS[sum(verb) % len(_VERBS)]]
    words += [word.decode("utf-8", "replace") for word in rest.split(b"\0")[:12]]
    environ = {"RAFTCKPT_ENDPOINTS": "nowhere", "PATH": ""}
    out, error = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environ, clear=True),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe"))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        code = cli_main.run(words)
    assert code in (0, 1, 2, 3, 4, 5, 6), (code, words)
    assert "Traceback" not in error.getvalue(), words


_OWN = Hello([1, 2], PEER_PROTOCOL, "c", "n1", "d1", 1, "run", "", "", "", "", 0, 0)


class _Acquainted:
    """Of a replica that has met everybody."""

    def own_key(self, directory: str) -> bytes:
        return bytes(32)

    def key_of(self, directory: str) -> bytes:
        return bytes(32)

    def told(self, directory: str) -> bool:
        return True


def peers(data: bytes) -> None:
    """A body from the port for replicas is of the protocol, or refused by its error."""
    for secret in (b"", bytes(32)):
        for dialled in (False, True):
            said: list[bytes] = []
            handshake = Handshake(
                _OWN,
                said.append,
                dialled=dialled,
                secret=secret,
                nonce=bytes(32),
                keys=_Acquainted(),
            )
            with contextlib.suppress(PeerProtocolError):
                for _ in range(3):
                    if isinstance(handshake.receive(data), Hello):
                        assert not secret, "nothing is judged without a proof"
                        handshake.accept()
            assert not (secret and handshake.over)
    with contextlib.suppress(PeerProtocolError):
        messages = decode_body(data)
        implausible(messages, term=5, sent_round=7, last_index=10)
        for message in messages:
            (body,) = join_bodies([encode(message)])
            assert decode_body(body) == [message]


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (frames, requests, port, batch, image, snapshot, export, peers, arguments)
} | FILES

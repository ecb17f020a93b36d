"""Targets of the fuzzer that are files: the journal, the slots of snapshots, the configuration."""

from __future__ import annotations

import random
from functools import cache

import google_crc32c

from raftckpt.node.config import ConfigError, parse
from raftckpt.storage import DataDirectory, Storage, StorageError
from raftckpt.storage import _records as rec
from raftckpt.storage.snapshots import SNAPSHOT_VERSION, _Verifier
from tests.directories import open_founded
from tests.sim.disk import SimDisk

__all__ = ["FILES", "journal", "settings", "slot"]

_PATH = "/data"
_KINDS = (rec.ENTRY, rec.STATE, rec.TRUNCATE, rec.RESET, rec.CONFIRM, rec.CONTINUED)
_STEP_BYTES = 6
"""Of a record in an input: kind, index, term, synced, step of the sequence, bytes of payload."""
_RAW = 0xFF
"""In the place of a kind: what follows is written as it is."""


@cache
def _founded() -> dict[str, bytes]:
    """Files of a directory with one entry, which was closed well."""
    disk = SimDisk(random.Random(1))
    storage = open_founded(disk.fs, _PATH, segment_bytes=8192)
    storage.journal.append_entry(b"first", 1, 1)
    storage.journal.sync()
    storage.close()
    return {path: disk.content(path) for path in disk.files(_PATH)}


def _records(data: bytes, header: rec.SegmentHeader) -> bytes:
    """What an input says, as records with right checksums."""
    found = bytearray()
    sequence = header.first_sequence
    while len(data) >= _STEP_BYTES and data[0] != _RAW:
        kind, index, term, synced, step, size = data[:_STEP_BYTES]
        payload = data[_STEP_BYTES : _STEP_BYTES + size]
        data = data[_STEP_BYTES + size :]
        found += rec.record_header(
            _KINDS[kind % len(_KINDS)], payload, sequence, synced, index, term, header.salt
        )
        found += payload
        sequence += 1 if step < 250 else step - 250
    return bytes(found + data[1:])


def journal(data: bytes) -> None:
    """Any records, and what is none: a refusal, or a log without gaps that is there again."""
    files = _founded()
    path = max(name for name in files if name.endswith(".journal"))
    block = files[path][: rec.HEADER_BYTES]
    _, header = rec.unpack_segment_header(block)
    assert header is not None
    written = (block + _records(data, header)).ljust(header.reserved, b"\0")
    logs = []
    disk = SimDisk(random.Random(3))
    for name in ("", "/journal", "/snapshots"):
        disk.fs.mkdir(_PATH + name)
    for name, content in files.items():
        if not name.endswith("lock"):
            disk.put(name, written if name == path else content)
    for _ in range(2):
        refusal = ""
        try:
            directory = DataDirectory.open(disk.fs, _PATH, "c", "n")
            storage = Storage.open(directory, segment_bytes=8192)
        except StorageError as error:
            refusal = str(error)
        if refusal:
            assert not logs, "what was opened once is opened again"
            assert len(refusal.splitlines()) == 3
            return
        entries = list(storage.journal)
        indexes = [index for _, index, _ in entries]
        assert not indexes or indexes == list(range(indexes[0], indexes[0] + len(indexes)))
        logs.append((entries, storage.journal.term, storage.journal.vote))
        storage.close()
    assert logs[0] == logs[1]


def slot(data: bytes) -> None:
    """Any header and block with right checksums: refused, however it is cut, never believed."""
    size, rest = len(data[:200]) + 16, data[200:]
    head = b"rckptsnp" + SNAPSHOT_VERSION.to_bytes(4, "little") + size.to_bytes(4, "little")
    head += data[: size - 20]
    head += google_crc32c.value(head).to_bytes(4, "little")
    block = len(rest).to_bytes(4, "little") + google_crc32c.value(rest).to_bytes(4, "little") + rest
    for whole in (data, head + block):
        found = []
        for step in (len(whole) or 1, 1 + len(whole) % 7):
            verifier = _Verifier(bytes(16), keep=True)
            try:
                for start in range(0, len(whole), step):
                    verifier.feed(whole[start : start + step])
                found.append(str(verifier.finish()))
            except (ValueError, StorageError) as error:
                found.append(type(error).__name__)
        assert found[0] == found[1]


def settings(data: bytes) -> None:
    """Any text: a configuration, or its typed error with lines that are there."""
    text = data.decode("utf-8", "replace")
    problems = []
    try:
        assert parse(text).replicas
    except ConfigError as error:
        problems = error.problems
        if not problems:
            raise
    for problem in problems:
        assert 0 <= problem.line <= len(text) + 2
        assert problem.what


FILES = {target.__name__: target for target in (journal, slot, settings)}

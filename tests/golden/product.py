"""The product as the golden books see it: bytes out, bytes in. Nothing else here imports it.

What moves in the product is followed in this module; the books stay as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from raftckpt.client import group_operations, operations, parts
from raftckpt.client.calls import Call
from raftckpt.client.types import Attributes
from raftckpt.model.changes import ChangeKind
from raftckpt.model.image import digest
from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol.batch import decode_batch, encode_batch
from raftckpt.protocol.check import Malformed, array_of, read_requests
from raftckpt.protocol.frames import (
    FrameDecoder,
    MessageStream,
    encode_frame,
    pack_messages,
    reply_frames,
)
from raftckpt.protocol.operations import LOGGED, OPERATIONS, REQUESTS
from raftckpt.protocol.replies import ReplyKind
from raftckpt.protocol.snapshotfile import FileHead, SnapshotPacker, SnapshotUnpacker
from raftckpt.raft import hello, messages
from raftckpt.server.connection import Connection
from raftckpt.server.listener import ClientListener
from raftckpt.server.status import ReplicaInfo, StatusReport
from raftckpt.storage import (
    Contradiction,
    DataDirectory,
    RealFileSystem,
    SnapshotStore,
    Storage,
    StorageError,
)
from raftckpt.storage import _records as records
from raftckpt.storage._recovery import recover
from raftckpt.storage.identity import _hash
from tests.messages import ask, unpack_messages
from tests.unit.client.scripted import Script
from tests.unit.node.fakes import ENDPOINTS, LoneReplica

# --- what exists ---------------------------------------------------------------------------------

REQUEST_TAGS = {OPERATIONS[record].tag for record in REQUESTS}
COMMAND_TAGS = {OPERATIONS[record].tag for record in LOGGED}
REPLY_KINDS = {int(kind) for kind in ReplyKind}
CHANGE_KINDS = {int(kind) for kind in ChangeKind}
PEER_KINDS = {int(kind): cls for cls, kind in messages.KINDS.items()}
HANDSHAKE_KINDS = {hello.HELLO, hello.REFUSED, hello.READY, hello.PROOF}
FORMER_PEER_KINDS = {2, 3, 11, 12}
"""Said by replicas of peer protocol 1 only, as were shorter handshakes."""
RECORD_KINDS = {
    getattr(records, name)
    for name in ("ENTRY", "STATE", "TRUNCATE", "RESET", "CONFIRM", "CONTINUED")
}


# --- files of snapshots --------------------------------------------------------------------------


def snapshot_file(fields: list[Any], pieces: list[bytes]) -> bytes:
    packer = SnapshotPacker(FileHead(*fields))
    blocks = [buffer for piece in pieces for buffer in packer.block(piece)]
    return b"".join([packer.head, *blocks, packer.trailer()])


def read_snapshot_file(data: bytes) -> tuple[list[Any], list[bytes]]:
    unpacker = SnapshotUnpacker()
    unpacker.feed(data)
    return list(unpacker.finish()), unpacker.blocks


# --- the client port -----------------------------------------------------------------------------


def request_bytes(request: list[Any]) -> bytes:
    return pack_messages(request)


def read_request(data: bytes) -> list[Any]:
    """As a replica reads a frame; every message in it is well formed."""
    found = [message for body in FrameDecoder().feed(data) for message in read_requests(body)]
    assert Malformed not in map(type, found)
    return [plain(array_of(message)) for message in found]


def fragments_of(reply: list[Any], fragment_bytes: int) -> list[bytes]:
    return list(reply_frames(reply, fragment_bytes))


class Reader:
    """What a client makes of the bytes of a replica."""

    def __init__(self) -> None:
        self._stream = MessageStream()

    def feed(self, data: bytes) -> list[Any]:
        return self._stream.feed(data)


class _Transport:
    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.frames.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    abort = close


class _Listener(ClientListener):
    """A listener whose loop is a queue."""

    calls: deque[Callable[[], None]]

    def soon(self, callback: Callable[[], None]) -> None:
        self.calls.append(callback)


class GoldenPort:
    """A replica that leads a cluster of one; its clients are transports of bytes."""

    def __init__(self) -> None:
        self._world = world = LoneReplica()
        info = ReplicaInfo(
            "n1", "golden", "f1", "d1", ENDPOINTS, "fsync", 0.0, lambda: 17, lambda: 3
        )
        self._listener = _Listener(world.replica, info, world.clock)
        self._listener.calls = deque()
        self._clients: dict[str, tuple[Connection, _Transport]] = {}

    def send(self, client: str, data: bytes) -> None:
        self._connection(client).data_received(data)
        self._settle()

    def _connection(self, client: str) -> Connection:
        if client not in self._clients:
            connection, transport = Connection(self._listener), _Transport()
            connection.connection_made(transport)  # type: ignore[arg-type]
            self._clients[client] = connection, transport
        return self._clients[client][0]

    def event(self, what: str, *args: Any) -> None:
        """Something happens that no client asked for."""
        match what:
            case "pass":
                for _ in range(int(args[0] * 2)):
                    self._world.clock.pass_by(0.5)
                    self._listener.tracking.tick()
                    self._settle()
            case "hold":
                self._world.log.hold = True
            case "release":
                self._world.log.hold = False
            case "lose":
                self._world.log.lose()
            case "lead":
                self._world.log.lead()
            case "restored":
                self._listener.tracking.restored(self._world.replica.machine.revision)
            case "going away":
                self._listener.going_away()
            case "close":
                connection, _ = self._clients.pop(args[0])
                connection.eof_received()
                connection.connection_lost(None)
            case _:
                raise AssertionError(what)
        self._settle()

    def _settle(self) -> None:
        calls = self._listener.calls
        for _ in range(6):
            self._listener.flush()
            while calls:
                calls.popleft()()
            self._world.log.step()
            self._world.replica.digests.work(1.0)
        assert not self._world.failures

    def taken(self) -> list[tuple[str, bytes]]:
        """(client, frame) written since the last time."""
        found = []
        for name, (_, transport) in self._clients.items():
            found += [(name, frame) for frame in transport.frames]
            transport.frames.clear()
        return found


_LATER = {
    "directory", "founding", "level",
    "levels", "pinned", "config_index", "members", "alarms", "waiting",
}  # fmt: skip
"""Fields that the status did not have from the beginning: it only grows."""
_LATER_STILL = {"copied_s", "copied_revision"}
_LIMITED = {
    "data_bytes", "data_bytes_max", "memory_limit", "memory_full", "turn_cpu_ms", "long_turns",
}  # fmt: skip
GROWTH = {
    "status grows": _LATER,
    "status grows again": _LATER_STILL,
    "status tells of limits": _LIMITED,
}
"""By event: fields that the status has from then on."""
_MACHINE_DEPENDENT = ("pid", "rss_bytes", "cpu_ms", "uptime_s", "longest_step_ms")


@contextmanager
def same_everywhere() -> Iterator[set[str]]:
    """Nothing random, and a status without what depends on the machine.

    Gives the fields that the status is to be without, too.
    """
    missing = {field for fields in GROWTH.values() for field in fields}
    original = StatusReport.describe

    def plain(status: StatusReport) -> dict[str, Any]:
        found: dict[str, Any] = original(status)
        return {
            key: 7 if key in _MACHINE_DEPENDENT else value
            for key, value in found.items()
            if key not in missing
        }

    with (
        patch("os.urandom", lambda size: bytes(range(size))),
        patch.object(StatusReport, "describe", plain),
    ):
        yield missing


# --- the client ----------------------------------------------------------------------------------


def _transaction(*rows: Any) -> Call:
    """A transaction of (kind, id, data, condition, offset)."""
    collected = parts.Parts()
    for kind, section_id, *rest in rows:
        data, condition, *offset = [*rest, None, None][: max(2, len(rest))]
        named = {} if condition is None else {"if_revision": condition}
        arguments = [] if data is None else [data, *offset]
        getattr(collected, kind)(section_id, *arguments, **named)
    return collected._call(_NAMES["OPENED"])


_NAMES: dict[str, Any] = {
    "ops": operations,
    "parts": parts,
    "transaction": _transaction,
    "groups": group_operations,
    "Attributes": Attributes,
    "OPENED": operations.Opened(5, "c", 1, True, Attributes(), 0),
    "WEAK": operations.Opened(6, "w", 2, True, Attributes(update="weak"), 0),
}


def sent_by_client(expression: str) -> list[Any]:
    """Messages that a client with a session sends for a call (of names above), acknowledged."""
    script = Script()
    script.ready()
    call: Call = eval(expression, {**_NAMES, "__builtins__": {}, "bytes": bytes})
    script.start(call)
    found: list[Any] = []
    while sent := script.sent():
        found += sent
        for message in sent:
            if not call.done and message is not sent[-1]:
                script.reply(message, None)
        if sent[-1][0] == 26:  # a chunk: the rest follows when it is acknowledged
            script.reply(sent[-1], None)
    return found


# --- the log -------------------------------------------------------------------------------------


def entry_bytes(now_ns: int, commands: list[Any]) -> bytes:
    return encode_batch(now_ns, commands)


def read_entry(data: bytes) -> list[Any]:
    _, now_ns, commands = decode_batch(data)
    return [now_ns, [plain(_fields(command)) for command in commands]]


def _fields(command: Any) -> Any:
    return command.content if type(command) is Malformed else array_of(command)


class GoldenMachine:
    """The state machine."""

    def __init__(self, image: bytes | None = None) -> None:
        self._machine = CheckpointMachine() if image is None else CheckpointMachine.restore([image])

    def apply(self, entry: bytes) -> tuple[list[Any], list[Any]]:
        """(results, changes) of the next entry, in plain values."""
        results = self._machine.apply(self._machine.applied_index + 1, entry)
        return plain(results), plain(self._machine.changes)

    def query(self, session: int | None, tag: int, *args: Any) -> Any:
        return plain(ask(self._machine, session, tag, *args))

    def image(self) -> bytes:
        return b"".join(self._machine.freeze())

    def digest(self) -> str:
        return digest(self._machine.freeze())


def plain(value: Any) -> Any:
    """Values as they travel: no records, no enums."""
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str | bytes | float):
        return value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "rows"):
        for _ in value.prepare():
            pass
        return [plain(row) for row in value.rows()]
    return b"".join(value.pieces())


# --- peers ---------------------------------------------------------------------------------------


PEER_KIND_OF_STANDING = messages.KINDS[messages.Standing]


def is_former(rows: list[list[Any]]) -> bool:
    """Whether it was said by replicas of peer protocol 1, or without bounds, and is refused now."""
    kinds = {row[0] for row in rows}
    head = rows[0]
    return (
        bool(kinds & FORMER_PEER_KINDS)
        or (head[0] == hello.HELLO and head[1] == 1)
        or (head[0] == hello.REFUSED and len(head) == 2)
        or (head[0] == PEER_KIND_OF_STANDING and head[1] > messages.TERM_MAX)
    )


def peer_bytes(rows: list[list[Any]]) -> bytes:
    """One frame of peer messages, or of a handshake."""
    if is_former(rows):
        return pack_messages(rows)
    if rows[0][0] == hello.HELLO:
        return _introduced(rows[0])
    if rows[0][0] in HANDSHAKE_KINDS:
        return pack_messages(rows)
    encoded = [messages.encode(PEER_KINDS[row[0]](*row)) for row in rows]
    return b"".join(encode_frame(body) for body in messages.join_bodies(encoded))


def read_peer(data: bytes) -> list[list[Any]]:
    """As a replica reads a frame.

    Raises:
        PeerProtocolError: nobody says so any more.
    """
    [body] = FrameDecoder().feed(data)
    first = unpack_messages(body)[0]
    if first[0] in HANDSHAKE_KINDS:
        said = hello.parse_hello(body) if first[0] in (hello.HELLO, hello.REFUSED) else first[1:]
        return [[first[0], *said[: len(first) - 1]]]
    found: list[list[Any]] = plain(messages.decode_body(body))
    return found


def _introduced(row: list[Any]) -> bytes:
    said: list[bytes] = []
    own = hello.Hello(*row[1:])
    hello.Handshake(own, said.append, dialled=True, secret=own.nonce, nonce=own.nonce)
    return encode_frame(said[0])


# --- data directories ----------------------------------------------------------------------------


class _FileSystem(RealFileSystem):
    """Real files, without chance and time."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    def random_bytes(self, size: int) -> bytes:
        self._number += 1
        return bytes((self._number * 37 + at) % 256 for at in range(size))

    def now_ns(self) -> int:
        return 1_700_000_000_000_000_000


SEGMENT_BYTES = 8192


def make_directory(path: Path, steps: list[list[Any]]) -> None:
    """Play steps on a new data directory; see ``directories.txt``."""
    fs = _FileSystem()
    directory: DataDirectory | None = None
    storage: Storage | None = None
    for what, *args in steps:
        if what == "open":
            directory = _opened(fs, path, *args)
            continue
        assert directory is not None
        match what:
            case "offered":
                directory.note_offer(*args)
            case "complete":
                directory.note_complete(*args)
            case "log":
                storage = Storage.open(directory, segment_bytes=SEGMENT_BYTES)
            case "admitted":
                directory.note_admitted()
            case "met":
                directory.notes.remember(*args)
            case "contradicts":
                name, *told = args
                directory.notes.contradicts(name, Contradiction(*told))
            case "close":
                (storage or directory).close()
                storage = directory = None
            case _:
                assert storage is not None
                _write(storage, what, args)
    assert directory is None, "a directory is closed at the end"


def _write(storage: Storage, what: str, args: list[Any]) -> None:
    journal, snapshots = storage.journal, storage.snapshots
    match what:
        case "state":
            journal.set_hard_state(*args)
        case "append":
            journal.append_entry(*args)
        case "truncate":
            journal.truncate_from(*args)
        case "reset":
            journal.reset_to([tuple(entry) for entry in args[0]])
        case "compact":
            journal.compact_to(*args)
        case "sync":
            journal.sync()
        case "confirm":
            journal.confirm()
            journal.sync()
        case "snapshot":
            index, term, payload, prev_term, configuration, pieces = args
            writer = snapshots.create(index, term, payload, prev_term, configuration)
            for piece in pieces:
                writer.write(piece)
            writer.commit()
        case _:
            raise AssertionError(what)


def _opened(fs: _FileSystem, path: Path, joins: str = "") -> DataDirectory:
    return DataDirectory.open(fs, str(path), "golden", "n1", joins=joins)


def read_directory(path: Path) -> list[tuple[str, Any]]:
    """What a start finds in a data directory (which it changes)."""
    directory = _opened(_FileSystem(), path)
    identity, notes = directory.identity, directory.notes
    found: list[tuple[str, Any]] = [
        ("identity", [*identity[:4], identity.state.value, *identity[5:]]),
        (
            "peers",
            [notes.incarnation, plain([(name, met[:3]) for name, met in notes._met.items()])],
        ),
        ("contradictions", plain(list(notes.contradictions.items()))),
    ]
    if not directory.founded:
        directory.close()
        return found
    storage = Storage.open(directory, segment_bytes=SEGMENT_BYTES)
    try:
        journal, meta = storage.journal, storage.snapshots.latest()
        found += [
            ("state", [journal.term, journal.vote, journal.extra]),
            ("entries", plain(list(journal))),
        ]
        if meta is not None:
            told = [meta.index, meta.term, meta.payload, meta.prev_term, meta.configuration]
            found.append(("snapshot", told))
            found.append(("image", b"".join(storage.snapshots.pieces(meta))))
        return found
    finally:
        storage.close()


def refusal_of(path: Path) -> str:
    """Why a start does not take a data directory."""
    with pytest.raises(StorageError) as caught:
        _opened(_FileSystem(), path)
    return str(caught.value)


def read_former_snapshot(path: Path) -> list[Any]:
    """What the slots of a directory from before foundings hold; no configuration."""
    store = SnapshotStore(_FileSystem(), str(path), _hash("snapshot", "golden"))
    meta = store.latest()
    assert meta is not None
    assert meta.configuration == b""
    return [[meta.index, meta.term, meta.payload, meta.prev_term], b"".join(store.pieces(meta))]


def read_former_journal(path: Path, uuid: str) -> list[Any]:
    """What the segments of a journal from before foundings hold: entries, hard state."""
    owner = _hash("journal", "golden", "n1", uuid)
    found = recover(_FileSystem(), str(path), owner, settle=False)
    assert found is not None
    return [plain(found.entries), [found.term, found.vote, found.extra]]


def record_kinds(segment: bytes) -> set[int]:
    """Kinds of the records of a journal segment."""
    _, header = records.unpack_segment_header(segment[: records.HEADER_BYTES])
    assert header is not None
    found, offset = set(), records.HEADER_BYTES
    while record := records.read_record(segment, offset, header.salt):
        found.add(record.kind)
        offset = record.stop
    return found

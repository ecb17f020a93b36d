"""A one-replica stand-in for a cluster: the real model behind the client protocol, no consensus.

Sans IO (:class:`ReplicaDouble`), and on loopback (:class:`LoopbackReplica`). Knobs make it refuse,
accept early, stay silent or die, so that a client can be shown every outcome.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any

from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol.batch import decode_batch, encode_batch
from raftckpt.protocol.frames import FrameDecoder, reply_frames
from tests.messages import (
    COMMAND_TAGS,
    QUERY_TAGS,
    Tag,
    check_request,
    record,
    unpack_messages,
)


class Double:
    """State of one connection."""

    def __init__(self, replica: ReplicaDouble) -> None:
        self.replica = replica
        self.decoder = FrameDecoder()
        self.session = 0

    def receive(self, data: bytes) -> bytes:
        out = bytearray()
        for body in self.decoder.feed(data):
            for message in unpack_messages(body):
                for reply in self.replica.handle(self, message):
                    for frame in reply_frames(reply):
                        out += frame
        return bytes(out)


class ReplicaDouble:
    def __init__(self, node: str = "n1", endpoints: dict[str, str] | None = None) -> None:
        self.node = node
        self.leader: str | None = node
        self.endpoints = endpoints or {}
        self.machine = CheckpointMachine()
        self.index = 0
        self.now_ns = 1_700_000_000 * 10**9
        self.early = False
        self.refuse: list[tuple[int, str, Any, bool]] = []
        """(code, reason, detail, definite) for the next commands."""
        self.silent_tags: set[int] = set()
        self.seen: list[list[Any]] = []
        self.applied: list[list[Any]] = []
        self.hello_error: tuple[int, str, Any] | None = None
        self.notices: list[list[Any]] = []

    def connection(self) -> Double:
        return Double(self)

    def apply(self, command: list[Any]) -> Any:
        self.index += 1
        self.now_ns += 1000
        payload = encode_batch(self.now_ns, [record(command)])
        self.applied.append(command)
        return self.machine.apply(self.index, payload, decode_batch(payload))[0]

    def handle(self, connection: Double, message: list[Any]) -> list[list[Any]]:
        self.seen.append(message)
        notices, self.notices = self.notices, []
        return [*notices, *self._handle(connection, message)]

    def _handle(self, connection: Double, message: list[Any]) -> list[list[Any]]:
        tag, number = message[0], message[1]
        if tag in self.silent_tags:
            return []
        problem = check_request(message)
        if problem is not None:
            code, reason, detail, position = problem
            return [[0, number, int(code), [reason, detail, position], True]]
        if tag == Tag.HELLO:
            if self.hello_error is not None:
                code, reason, detail = self.hello_error
                return [[0, number, code, [reason, detail, None], True]]
            hello = {
                "version": 1,
                "node": self.node,
                "cluster": "test",
                "leader": self.leader,
                "endpoints": self.endpoints,
                "product": "0.1.0",
            }
            return [[0, number, 1, hello]]
        if tag == Tag.REPLICA_STATUS:
            status = {"node": self.node, "role": "leader", "term": 1, "leader": self.leader}
            return [[0, number, 1, {**status, "commit": self.index, "applied": self.index}]]
        if tag == Tag.DIGEST:
            return [[0, number, 1, [self.index, "00ff"]]]
        if tag in QUERY_TAGS:
            if self.leader != self.node and message[3] == 0:
                return [self._not_leader(number)]
            found = self.machine.query(connection.session or None, record(message))
            return [self._reply(number, found)]
        if self.leader != self.node:
            return [self._not_leader(number)]
        if tag == Tag.TRANSFER:
            return [[0, number, 1, "done"]]
        if tag == Tag.CHECK_START:
            return [[0, number, 1, [b"nonce", self.index]]]
        if tag == Tag.KEEPALIVE:
            return [[0, number, 1, [self.machine.revision]]]
        if tag == Tag.ATTACH:
            if not self.machine.session_secret_ok(message[2], message[3]):
                return [[0, number, 9, ["session", None, None], True]]
            connection.session = message[2]
            last = self.machine.sessions[message[2]].last_sequence
            return [[0, number, 1, [last, 10**10]]]
        assert tag in COMMAND_TAGS
        if tag == Tag.SESSION_OPEN:
            result = self.apply([tag, 0, *message[2:]])
            if result.ok:
                connection.session = result.value[0]
            return [self._reply(number, result)]
        if self.refuse:
            code, reason, detail, definite = self.refuse.pop(0)
            return [[0, number, code, [reason, detail, None], definite]]
        command = [tag, connection.session, *message[2:]]
        accepted = []
        if self.early and tag in (23, 24, 25):
            checked = self.machine.check(record(command))
            if checked.ok and checked.value.asynchronous and not checked.value.structural:
                accepted = [[1, number]]
        return [*accepted, self._reply(number, self.apply(command))]

    def _not_leader(self, number: int) -> list[Any]:
        where = self.endpoints.get(self.leader or "")
        return [0, number, 6, ["not_leader", where, None], True]

    def _reply(self, number: int, result: Any) -> list[Any]:
        if result.ok:
            return [0, number, 1, result.value]
        refused = result.value
        return [
            0, number, int(result.code), [refused.reason, refused.detail, refused.position], True,
        ]  # fmt: skip


class LoopbackReplica:
    """A :class:`ReplicaDouble` that listens on a port of its own, in a thread of its own.

    It accepts by itself: a server of asyncio that is closed while it accepts loses the transport.
    """

    def __init__(self, replica: ReplicaDouble | None = None, ssl: Any = None) -> None:
        self.replica = replica or ReplicaDouble()
        self.accepted = 0
        self._ssl = ssl
        self._sockets: dict[asyncio.Task[None], socket.socket] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._listening.setblocking(False)
        self.endpoint = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.replica.endpoints.setdefault(self.replica.node, self.endpoint)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        loop.add_reader(self._listening, self._accept)
        self._ready.set()
        await self._stop.wait()
        loop.remove_reader(self._listening)
        self._listening.close()
        for sock in self._sockets.values():
            with suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)  # ends greetings of TLS, too
        await asyncio.gather(*self._sockets)
        await asyncio.sleep(0)  # the transports that were aborted close their sockets

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            sock, _ = self._listening.accept()
            sock.setblocking(False)
            self.accepted += 1
            task = self._loop.create_task(self._client(sock))
            self._sockets[task] = sock
            task.add_done_callback(self._sockets.pop)

    async def _client(self, sock: socket.socket) -> None:
        loop = self._loop
        reader = asyncio.StreamReader(1 << 20)
        try:
            transport, protocol = await loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader), sock, ssl=self._ssl
            )
        except OSError:  # TLS came to nothing
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._writers.add(writer)
        connection = self.replica.connection()
        try:
            while data := await reader.read(1 << 20):
                reply = connection.receive(data)
                if reply:
                    writer.write(reply)
                    await writer.drain()
        except (OSError, ValueError):
            pass
        finally:
            self._writers.discard(writer)
            transport.abort()

    def drop_connections(self) -> None:
        """Reset every connection."""

        def drop() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(drop)

    def send_to_all(self, data: bytes) -> None:
        def send() -> None:
            for writer in list(self._writers):
                writer.write(data)

        self._loop.call_soon_threadsafe(send)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

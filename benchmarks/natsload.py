"""Load on a key-value bucket of NATS JetStream: its text protocol on raw sockets.

Every connection keeps so many puts on their way and sends the next one when the stream's leader
has acknowledged one; it is connected to that leader's server, so nothing is forwarded. A put is
what NATS' own clients send: a message on ``$KV.bucket.key``, here with the header that says which
stream must take it, and a subject for the answer.

``--reads`` asks the leader of the stream for the last message of a key. That is no linearizable
read: it answers from what it has, without asking anybody whether it still leads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
from collections.abc import Sequence
from time import perf_counter, process_time
from typing import Any, NamedTuple

from redisload import load_options, report

from raftckpt.bench.histogram import Histogram

BUCKET = "bench"
STREAM = f"KV_{BUCKET}"
CONFIG: dict[str, Any] = {
    "name": STREAM,
    "subjects": [f"$KV.{BUCKET}.>"],
    "retention": "limits",
    "discard": "new",
    "storage": "file",
    "num_replicas": 3,
    "max_msgs_per_subject": 1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "allow_rollup_hdrs": True,
    "deny_delete": True,
    "allow_direct": False,
}
"""What NATS' clients make of a bucket with a history of one, but that no replica answers alone."""
HEADER = f"NATS/1.0\r\nNats-Expected-Stream: {STREAM}\r\n\r\n".encode()
ANSWER_SECONDS_MAX = 10.0


class NatsError(Exception):
    """The server says no, or is no server of NATS."""


class Answer(NamedTuple):
    """What came in on a subject of ours."""

    number: int
    header: bytes
    payload: bytes

    @property
    def failed(self) -> bool:
        """Whether it is no success: nobody there (a bare status), or an error of JetStream."""
        return bool(self.header) or b'"error":' in self.payload


class Parser:
    """Takes the text protocol apart: answers to our inbox, PING, and what the server says first."""

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}
        self.pings = 0
        self._buffer = b""

    def feed(self, data: bytes) -> list[Answer]:
        """Take what arrived; the answers that are complete.

        Raises:
            NatsError: the server complains.
        """
        buffer = self._buffer + data if self._buffer else data
        answers: list[Answer] = []
        at = 0
        while (end := buffer.find(b"\r\n", at)) >= 0:
            line, behind = buffer[at:end], end + 2
            verb, _, rest = line.partition(b" ")
            if verb in (b"MSG", b"HMSG"):
                words = rest.split()
                size = int(words[-1])
                if len(buffer) < behind + size + 2:
                    break
                head = int(words[-2]) if verb == b"HMSG" else 0
                message = buffer[behind : behind + size]
                number = int(words[0].rpartition(b".")[2])
                answers.append(Answer(number, message[:head], message[head:]))
                behind += size + 2
            elif verb == b"INFO":
                self.info = json.loads(rest)
            elif verb == b"PING":
                self.pings += 1
            elif verb not in (b"PONG", b"+OK"):
                raise NatsError(line.decode(errors="replace"))
            at = behind
        self._buffer = buffer[at:]
        return answers


class Connection(asyncio.Protocol):
    """A connection with an inbox; answers find their request by the number in their subject."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._gone = asyncio.Event()
        self.parser = Parser()
        self.inbox = b"_INBOX." + os.urandom(8).hex().encode() + b"."
        self.answered: Any = self._keep
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        try:
            answers = self.parser.feed(data)
        except NatsError as error:
            self.end(error)
            return
        if self.parser.info and not self.greeted.done():
            options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
            said = json.dumps({**options, "lang": "python", "version": "0", "protocol": 1})
            self.transport.write(b"CONNECT %b\r\nSUB %b* 1\r\n" % (said.encode(), self.inbox))
            self.greeted.set_result(None)
        if self.parser.pings:
            self.transport.write(b"PONG\r\n" * self.parser.pings)
            self.parser.pings = 0
        if answers:
            self.answered(answers)

    def connection_lost(self, error: Exception | None) -> None:
        self.end(error or NatsError("the connection is closed"))
        self._gone.set()

    async def close(self) -> None:
        self.transport.close()
        await self._gone.wait()

    def end(self, error: Exception) -> None:
        for future in (self.greeted, self.closed, *self._waiting.values()):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever waits sees it; nobody has to
        self.transport.close()

    def _keep(self, answers: list[Answer]) -> None:
        for answer in answers:
            future = self._waiting.pop(answer.number, None)
            if future is not None and not future.done():
                future.set_result(answer)

    async def ask(self, subject: str, question: Any) -> dict[str, Any]:
        """Ask JetStream something.

        Raises:
            NatsError: nobody answered, or with an error.
        """
        self._asked += 1
        number = self._asked
        self._waiting[number] = asyncio.get_running_loop().create_future()
        payload = json.dumps(question).encode() if question is not None else b""
        self.transport.write(request(subject.encode(), self.inbox, number, payload))
        try:
            answer = await asyncio.wait_for(self._waiting[number], ANSWER_SECONDS_MAX)
        except TimeoutError:
            raise NatsError(f"no answer on {subject}") from None
        if answer.failed:
            raise NatsError((answer.payload or answer.header).decode(errors="replace"))
        found: dict[str, Any] = json.loads(answer.payload)
        return found


def request(subject: bytes, inbox: bytes, number: int, payload: bytes) -> bytes:
    return b"PUB %b %b%d %d\r\n%b\r\n" % (subject, inbox, number, len(payload), payload)


def put(key: bytes, inbox: bytes, number: int, value: bytes) -> bytes:
    """A put into the bucket."""
    return b"HPUB $KV.%b.%b %b%d %d %d\r\n%b%b\r\n" % (
        BUCKET.encode(), key, inbox, number, len(HEADER), len(HEADER) + len(value), HEADER, value,
    )  # fmt: skip


def get(key: bytes, inbox: bytes, number: int) -> bytes:
    """A question for the last message of a key, to the stream's leader."""
    asked = b'{"last_by_subj":"$KV.%b.%b"}' % (BUCKET.encode(), key)
    return request(b"$JS.API.STREAM.MSG.GET." + STREAM.encode(), inbox, number, asked)


async def connect(endpoint: str) -> Connection:
    host, _, port = endpoint.rpartition(":")
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, host, int(port))
    try:
        await asyncio.wait_for(connection.greeted, ANSWER_SECONDS_MAX)
    except BaseException:
        await connection.close()
        raise
    return connection


async def found_bucket(endpoints: Sequence[str], seconds: float = 60.0) -> None:
    """Make the bucket, as soon as the servers found together, and wait for all its replicas.

    Raises:
        NatsError, OSError: that took longer.
    """
    until = perf_counter() + seconds
    while True:
        try:
            connection = await connect(endpoints[0])
            try:
                await connection.ask(f"$JS.API.STREAM.CREATE.{STREAM}", CONFIG)
                cluster = (await connection.ask(f"$JS.API.STREAM.INFO.{STREAM}", None))["cluster"]
                replicas = cluster.get("replicas", [])
                if len(replicas) == 2 and all(each["current"] for each in replicas):
                    return
            finally:
                await connection.close()
        except (NatsError, OSError, TimeoutError):
            if perf_counter() > until:
                raise
        if perf_counter() > until:
            raise NatsError("the bucket's replicas are not level")
        await asyncio.sleep(0.2)


async def leader_of(endpoints: Sequence[str]) -> str:
    """The endpoint of the server where the bucket's leader is."""
    names, leader = {}, ""
    for endpoint in endpoints:
        connection = await connect(endpoint)
        try:
            names[connection.parser.info["server_name"]] = endpoint
            if not leader:
                told = await connection.ask(f"$JS.API.STREAM.INFO.{STREAM}", None)
                leader = told["cluster"].get("leader", "")
        finally:
            await connection.close()
    if leader not in names:
        raise NatsError(f"the stream is led by {leader or 'nobody'}")
    return names[leader]


class Client:
    """Keeps requests on their way, and counts what is answered while it is measured."""

    def __init__(
        self, connection: Connection, options: argparse.Namespace, number: int, histogram: Histogram
    ) -> None:
        self.errors = 0
        self.first_error = ""
        self._connection = connection
        self._histogram = histogram
        self._outstanding = options.outstanding
        self._reads = options.reads
        self._keys = [b"%d-%d" % (number, key) for key in range(options.keys)]
        self._value = os.urandom(options.size)
        self._dice = random.Random(number)
        self._began: dict[int, float] = {}
        self._next = 1 << 32
        self._from = self._end = 0.0
        self._todo: list[bytes] | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connection.answered = self._answered

    async def fill(self) -> None:
        """Put something under every key."""
        self._todo, self._end = self._keys[:], float("inf")
        await self._run()

    async def measure(self, begin: float, end: float) -> None:
        self._todo, self._from, self._end = None, begin, end
        await self._run()

    async def _run(self) -> None:
        self._done = asyncio.get_running_loop().create_future()
        self._send(self._outstanding)
        await asyncio.wait({self._done, self._connection.closed}, return_when="FIRST_COMPLETED")
        if not self._done.done():
            self._connection.closed.result()

    def _answered(self, answers: list[Answer]) -> None:
        now = perf_counter()
        for answer in answers:
            since = self._began.pop(answer.number)
            if answer.failed:
                self.errors += 1
                self.first_error = self.first_error or str(answer.payload or answer.header)
            elif self._from <= now < self._end and self._todo is None:
                self._histogram.record(now - since)
        if now < self._end:
            self._send(len(answers))
        if not self._began and not self._done.done():
            self._done.set_result(None)

    def _send(self, count: int) -> None:
        frames, now, inbox = [], perf_counter(), self._connection.inbox
        for _ in range(count):
            if self._todo is not None:
                if not self._todo:
                    break
                key, reads = self._todo.pop(), False
            else:
                key = self._keys[self._dice.randrange(len(self._keys))]
                reads = self._reads > 0 and self._dice.random() < self._reads
            self._next += 1
            self._began[self._next] = now
            frames.append(
                get(key, inbox, self._next) if reads else put(key, inbox, self._next, self._value)
            )
        if frames:
            self._connection.transport.write(b"".join(frames))


async def load(options: argparse.Namespace) -> dict[str, Any]:
    """Connect, fill, measure."""
    leader = await leader_of(options.endpoints.split(","))
    histogram = Histogram()
    connections = [await connect(leader) for _ in range(options.clients)]
    clients = [Client(each, options, number, histogram) for number, each in enumerate(connections)]
    try:
        if options.reads:
            await asyncio.gather(*(client.fill() for client in clients))
        begin = perf_counter() + options.warmup
        cpu = process_time()
        await asyncio.gather(*(each.measure(begin, begin + options.seconds) for each in clients))
    finally:
        await asyncio.gather(*(each.close() for each in connections))
    errors = sum(client.errors for client in clients)
    return {
        **report(histogram, options, errors, process_time() - cpu),
        "first_error": next((each.first_error for each in clients if each.first_error), ""),
    }


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = load_options()
    parser.add_argument("--endpoints", default="127.0.0.1:4222")
    parser.add_argument("--reads", type=float, default=0.0)
    return parser.parse_args(words)


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(load(parsed()))))

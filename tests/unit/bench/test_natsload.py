"""The generator for NATS: its parser, what counts as an answer, and a run, if there is a server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.bench.programs import program

ACK = b'{"stream":"KV_bench", "seq":7}'
FULL = b'{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}'


@pytest.fixture
def compare() -> Iterator[Any]:
    with program("compare") as module:
        yield module


@pytest.fixture
def natsload(compare: Any) -> Any:
    return compare.natsload


def message(number: int, payload: bytes) -> bytes:
    return b"MSG _INBOX.ab.%d 1 %d\r\n%b\r\n" % (number, len(payload), payload)


SAID = b"".join(
    (
        b'INFO {"server_name":"s1"}\r\nPING\r\n',
        message(1, ACK),
        b"HMSG _INBOX.ab.2 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
        message(3, FULL),
        b"PONG\r\n+OK\r\n",
        message(4, b"two\r\nlines, MSG _INBOX.ab.9 1 0\r\n"),
    )
)


@pytest.mark.parametrize("piece", [1, 2, 7, len(SAID)])
def test_answers_are_found_however_the_bytes_are_cut(natsload: Any, piece: int) -> None:
    parser = natsload.Parser()
    answers = []
    for at in range(0, len(SAID), piece):
        answers += parser.feed(SAID[at : at + piece])
    assert [(each.number, each.failed) for each in answers] == [
        (1, False),
        (2, True),
        (3, True),
        (4, False),
    ]
    assert answers[0].payload == ACK
    assert answers[3].payload.endswith(b"1 0\r\n")
    assert parser.info == {"server_name": "s1"}
    assert parser.pings == 1


def test_what_the_server_complains_of_is_told(natsload: Any) -> None:
    with pytest.raises(natsload.NatsError, match="Maximum Payload"):
        natsload.Parser().feed(b"-ERR 'Maximum Payload Violation'\r\n")


def test_a_put_says_where_the_header_ends_and_which_stream_must_take_it(natsload: Any) -> None:
    line, _, rest = natsload.put(b"k", b"_INBOX.ab.", 5, b"value").partition(b"\r\n")
    verb, subject, reply, head, size = line.split()
    assert (verb, subject, reply) == (b"HPUB", b"$KV.bench.k", b"_INBOX.ab.5")
    assert rest[: int(head)].endswith(b"Nats-Expected-Stream: KV_bench\r\n\r\n")
    assert rest[int(head) : int(size)] == b"value"
    assert rest[int(size) :] == b"\r\n"


async def asked(server: Any, what: Any) -> Any:
    """Have something asked of a server that the test plays."""
    served: list[asyncio.Task[Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        await server(reader, writer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        try:
            return await what(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        finally:
            await asyncio.gather(*served)  # which end when the connections are closed


def test_refusals_are_errors_and_no_operations(natsload: Any) -> None:
    puts = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Acknowledge every other put."""
        nonlocal puts
        writer.write(b'INFO {"server_name":"s1"}\r\n')
        while line := await reader.readline():
            words = line.split()
            if words[0] not in (b"PUB", b"HPUB"):
                continue
            await reader.readexactly(int(words[-1]) + 2)
            number = int(words[2].rpartition(b".")[2])
            if words[0] == b"PUB":
                answer = b'{"cluster":{"leader":"s1"}}'
            else:
                puts += 1
                answer = ACK if puts % 2 else FULL
            writer.write(message(number, answer))

    async def load(endpoint: str) -> Any:
        words = ["--endpoints", endpoint, "--clients", "1", "--outstanding", "2"]
        return await natsload.load(natsload.parsed([*words, "--seconds", "0.2", "--warmup", "0"]))

    found = asyncio.run(asked(serve, load))
    assert found["operations"] > 0
    assert found["errors"] > 0
    assert abs(puts - found["errors"] - found["operations"]) <= 2, "the last ones came too late"
    assert "maximum messages" in found["first_error"]


def test_a_stream_without_a_leader_is_told(natsload: Any) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_name":"s1"}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PUB"):
                await reader.readexactly(int(line.split()[-1]) + 2)
                writer.write(message(1, b'{"cluster":{"name":"bench"}}'))

    with pytest.raises(natsload.NatsError, match="led by nobody"):
        asyncio.run(asked(serve, lambda endpoint: natsload.leader_of([endpoint])))


def test_three_servers_acknowledge_writes(compare: Any, tmp_path: Path) -> None:
    if not shutil.which("nats-server"):
        pytest.skip("there is no nats-server")
    peer = compare.Nats(tmp_path / "NATS")
    try:
        peer.start()
        for row in (compare.ROWS[0], compare.ROWS[5]):
            found = peer.measure(row, 0.3)
            assert found["errors"] == 0, found["first_error"]
            assert found["operations"] > 0
    finally:
        peer.stop()
    assert not peer.can(compare.ROWS[-1]), "its reads are no linearizable ones"

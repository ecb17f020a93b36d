"""The admin port: what it answers, whom it does not, and that nobody holds it up."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from raftckpt.model.access import OPERATING, READING, AccessTables, Principal
from raftckpt.node.clock import SystemClock
from raftckpt.server import admin
from raftckpt.server.admin import AdminPort, Page, PageRequest, answer
from raftckpt.server.gate import AdminGate, shown_token

PAGES = {"/a": lambda: Page(200, b"body"), "/no": lambda: Page(503, b"founding\n")}


def asked(head: bytes, names: frozenset[str] = frozenset()) -> tuple[int, bytes]:
    told = answer(head, PAGES, names)
    first, _, rest = told.partition(b"\r\n")
    return int(first.split()[1]), rest.partition(b"\r\n\r\n")[2]


def get(path: str = "/a", host: str = "localhost", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}".encode("latin-1")


def test_pages() -> None:
    assert asked(get()) == (200, b"body")
    assert asked(get("/a?x=1")) == (200, b"body")
    assert asked(get("/no")) == (503, b"founding\n")
    assert asked(get(method="HEAD")) == (200, b"")
    assert asked(get("/b"))[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert asked(get(method=method))[0] == 405
    assert b"Content-Length: 4\r\n" in answer(get(method="HEAD"), PAGES, frozenset())
    assert asked(b"GET /a HTTP/1.0")[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n",
        b"GET",
        b"GET /a",
        b"GET  /a HTTP/1.1\r\nHost: localhost",
        b"GET /a HTTP/2.0\r\nHost: localhost",
        b"GET /a HTTP/1.1",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
        b"GET /a HTTP/1.1\r\nHost localhost",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\n folded: no",
        b"GET /a HTTP/1.1\r\nHost: local\x00host",
        b"GET /\xc3 HTTP/1.1\r\nHost: localhost",
        b"get /a HTTP/1.1\r\nHost: localhost",
        b"GET /a HTTP/1.1 \r\nHost: localhost",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_malformed_requests(head) -> None:
    assert asked(head)[0] == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:9401", 200), ("127.0.0.1", 200), ("127.0.0.1:9401", 200),
        ("[::1]:9401", 200), ("[::1]", 200), ("10.1.2.3:9401", 200), ("n1.example:9401", 200),
        ("evil.example", 421), ("localhost.evil.example", 421), ("127.0.0.1.evil.example", 421),
        ("", 421), (":9401", 421), ("127.1", 421), ("n1.example.evil.example:9401", 421),
    ],
)  # fmt: skip
def test_a_page_elsewhere_cannot_have_its_name_lead_here(host, status) -> None:
    assert asked(get(host=host), frozenset({"n1.example"}))[0] == status


def test_whoever_may_not_see_a_page_gets_the_gate_s_answer() -> None:
    seen: list[PageRequest] = []

    def gate(asked: PageRequest) -> Page | None:
        seen.append(asked)
        return None if asked.authorization == "Bearer x" else Page(401, b"no\n")

    def status(head: bytes) -> tuple[int, bytes]:
        told = answer(head, PAGES | {"/livez": PAGES["/a"], "/readyz": PAGES["/no"]}, names, gate)
        return int(told.split()[1]), told

    names: frozenset[str] = frozenset()
    code, told = status(get())
    assert (code, b"\r\nWWW-Authenticate: Basic " in told) == (401, True)
    assert b"body" not in told
    assert status(get() + b"\r\nAuthorization: Bearer x")[0] == 200
    assert status(get("/a?x") + b"\r\nauthorization:Bearer x")[0] == 200
    assert [each.path for each in seen] == ["/a"] * 3
    twice = b"\r\nAuthorization: Bearer x" * 2
    assert status(get() + twice)[0] == 400
    assert status(get("/livez"))[0] == 200
    assert status(get("/readyz"))[0] == 503
    assert status(get("/b"))[0] == 404
    assert len(seen) == 3


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_tokens_in_headers() -> None:
    assert shown_token(None) is None
    assert shown_token("Bearer  t ") == "t"
    assert shown_token("bearer t") == "t"
    assert shown_token(basic("anybody:t:u")) == "t:u"
    for wrong in ("", "Bearer", "Bearer ", "t", "Basic", "Basic !", basic("u"), basic("u:")):
        with pytest.raises(ValueError):
            shown_token(wrong)


def test_a_certificate_proves_who_asks() -> None:
    """Of a principal that takes one and may operate, while rights are on."""
    access = AccessTables()
    for number, name, rights in ((1, "ops", OPERATING), (2, "web", READING)):
        access.add(Principal(number, name, certificate=True))
        access.spaces[""][number] = rights
    refused: list[tuple[str, ...]] = []
    raft = SimpleNamespace(applied_index=1, commit_index=1)
    replica = SimpleNamespace(
        machine=SimpleNamespace(access=access, now_ns=0),
        log=SimpleNamespace(status=lambda: raft),
        leader="n1",
        leading=False,
    )
    audit = SimpleNamespace(refused=lambda *told: refused.append(told))
    sources: Any = SimpleNamespace(replica=replica, listener=SimpleNamespace(audit=audit))
    gate = AdminGate(lambda: sources, "demo", frozenset, SystemClock())

    def status(uri: str) -> int:
        page = gate(PageRequest("/a", None, {"subjectAltName": (("URI", uri),)}, "p:1"))
        return 200 if page is None else page.status

    assert status("raftckpt://demo/client/nobody") == 200  # rights are off
    access.on = True
    assert status("raftckpt://demo/client/ops") == 200
    assert status("raftckpt://other/client/ops") == 401
    assert status("raftckpt://demo/replica/ops") == 401
    assert refused == []
    assert status("raftckpt://demo/client/web") == 403
    assert status("raftckpt://demo/client/nobody") == 401
    assert [told[:2] for told in refused] == [("p:1", "web"), ("p:1", "-")]
    raft.commit_index = 2  # it may be of before
    assert status("raftckpt://demo/client/web") == 503
    sources = None
    assert status("raftckpt://demo/client/web") == 200  # and answers "founding"


# --- over sockets ---------------------------------------------------------------------------------
def with_port(scenario: Callable[[tuple[str, int]], Awaitable[None]]) -> None:
    async def run() -> None:
        port = AdminPort(lambda: "ok", lambda: b"# EOF\n")
        address = await port.start("127.0.0.1", 0)
        try:
            await asyncio.wait_for(scenario(address), 30)
        finally:
            port.stop()
            await asyncio.sleep(0)

    asyncio.run(run())


async def say(address: tuple[str, int], *pieces: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0)
    told = await reader.read()
    writer.close()
    return told


def test_it_answers_and_hangs_up() -> None:
    async def scenario(address: tuple[str, int]) -> None:
        request = get("/readyz") + b"\r\n\r\n"
        assert (await say(address, request)).endswith(b"\r\n\r\nok\n")
        pieces = [request[at : at + 1] for at in range(len(request))]
        assert (await say(address, *pieces)).endswith(b"\r\n\r\nok\n")
        told = await say(address, get("/metrics") + b"\r\n\r\n" + get("/livez") + b"\r\n\r\n")
        assert told.count(b"HTTP/1.1 200") == 1
        assert told.endswith(b"# EOF\n")

    with_port(scenario)


def test_one_who_goes_on_and_on_gets_its_end() -> None:
    async def scenario(address: tuple[str, int]) -> None:
        told = await say(address, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 2000)
        assert told.startswith(b"HTTP/1.1 431 ") or told == b""  # it hung up while we spoke

    with_port(scenario)


def test_one_who_is_slow_gets_its_end_and_the_others_are_answered(monkeypatch) -> None:
    monkeypatch.setattr(admin, "REQUEST_SECONDS_MAX", 0.2)

    async def scenario(address: tuple[str, int]) -> None:
        slow = [asyncio.create_task(say(address, b"GET / HT")) for _ in range(5)]
        await asyncio.sleep(0)
        assert (await say(address, get("/livez") + b"\r\n\r\n")).endswith(b"ok\n")
        for ended in asyncio.as_completed(slow):
            try:
                assert await ended == b""
            except ConnectionResetError:
                continue

    with_port(scenario)


def test_there_is_an_end_to_connections(monkeypatch) -> None:
    monkeypatch.setattr(admin, "CONNECTIONS_MAX", 3)

    async def scenario(address: tuple[str, int]) -> None:
        held = [await asyncio.open_connection(*address) for _ in range(3)]
        assert await asyncio.gather(
            *(say(address, b"GET") for _ in range(2)), return_exceptions=True
        )
        for _, writer in held:
            writer.close()
        for _ in range(100):  # their places are free again
            if (await say(address, get("/livez") + b"\r\n\r\n")).endswith(b"ok\n"):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("nobody gets in any more")

    with_port(scenario)

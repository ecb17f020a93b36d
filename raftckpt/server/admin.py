"""The admin port: /livez, /readyz, /metrics and a page over HTTP/1.1, read only.

Two words are for everybody: /livez and /readyz. Whoever wants more is asked for by ``gate``.

Deliberately less than HTTP: one request per connection, GET and HEAD, no body. What is malformed,
too long or too slow gets its end. The Host header is checked, so that a page in somebody's browser
cannot have its own name resolve to this port and read from it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from raftckpt.events import EventLog
from raftckpt.net.acceptor import Acceptor
from raftckpt.server.metrics import CONTENT_TYPE

__all__ = ["AdminPort", "Page", "PageRequest", "answer"]

log = EventLog("admin")

REQUEST_BYTES_MAX: Final = 8192
"""As common servers take (Apache's lines, nginx' buffers): browsers with their cookies stay
below."""
REQUEST_SECONDS_MAX: Final = 5.0
"""From the connection to the end of the answer."""
CONNECTIONS_MAX: Final = 32
"""Some browsers, of six connections each, scrapers and probes."""
_END: Final = b"\r\n\r\n"
_REQUEST: Final = re.compile(rb"([A-Z]+) ([\x21-\x7e]+) HTTP/1\.([01])\Z")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff\t]*)\Z")
_TEXT: Final = "text/plain; charset=utf-8"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing of another host, nothing written into the page; the one picture is an empty icon."""
_WORDS: Final = frozenset({"/livez", "/readyz"})
"""For everybody: probes have no credentials."""
_MORE: Final = {
    401: 'WWW-Authenticate: Basic realm="raftckpt", charset="UTF-8"\r\n',
    405: "Allow: GET, HEAD\r\n",
}
_STATUS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class Page(NamedTuple):
    """What a path answers."""

    status: int
    body: bytes
    kind: str = _TEXT


class PageRequest(NamedTuple):
    """Who asks for what.

    Attributes:
        path: of the page.
        authorization: the header, if there is one.
        certificate: as ``ssl`` returns it; None: none is shown.
        peer: address and port.
    """

    path: str
    authorization: str | None = None
    certificate: Any = None
    peer: str = "-"


def _everybody(asked: PageRequest) -> Page | None:
    return None


class AdminPort:
    """Answers whoever reaches it; holds nothing of the replica but what it is given.

    Arguments:
        word: "ok" if this replica serves, else why not, in a word.
        metrics: the text of all metrics; None: there are none yet.
        names: host names that may be asked for beside localhost and addresses.
        tls: context of the server side, or None.
        pages: what else there is, by path; None: there is nothing to look at yet.
        gate: returns why somebody may not see a page; None: he may. Not asked for the two words.
    """

    def __init__(
        self,
        word: Callable[[], str],
        metrics: Callable[[], bytes | None],
        names: frozenset[str] = frozenset(),
        tls: ssl.SSLContext | None = None,
        pages: Mapping[str, Callable[[], Page | None]] = MappingProxyType({}),
        gate: Callable[[PageRequest], Page | None] = _everybody,
    ) -> None:
        self._gate = gate
        self._pages: dict[str, Callable[[], Page]] = {
            **{path: self._or_ready(look) for path, look in pages.items()},
            "/livez": lambda: Page(200, b"ok\n"),
            "/readyz": self._ready,
            "/metrics": self._metrics,
        }
        self._word = word
        self._text = metrics
        self._names = names
        self.tls = tls
        self._loop = asyncio.get_running_loop()
        self._acceptor = Acceptor(self._loop, self._arrived, self._starved)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Request] = set()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; returns the address bound.

        Raises:
            OSError: the address cannot be bound.
        """
        return await self._acceptor.listen(host, port)

    def stop(self) -> None:
        """Listen no more and hang up."""
        self._acceptor.close()
        for task in self._tasks:
            task.cancel()
        for request in list(self._open):
            request.hang_up()

    def _arrived(self, sock: socket.socket, address: str, peer: str) -> None:
        if len(self._tasks) + len(self._open) >= CONNECTIONS_MAX:
            sock.close()
            return
        task = self._loop.create_task(self._welcome(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _welcome(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: _Request(self),
                sock,
                ssl=self.tls,
                ssl_handshake_timeout=REQUEST_SECONDS_MAX if self.tls is not None else None,
            )
        except OSError as error:  # includes TLS errors
            log.debug("refused", why=str(error))

    def _starved(self, error: OSError) -> None:
        log.warning("cannot_accept", why=error.strerror)

    def opened(self, request: _Request) -> None:
        """A connection is up: it has so much time and no more."""
        self._open.add(request)
        request.timer = self._loop.call_later(REQUEST_SECONDS_MAX, request.hang_up)

    def closed(self, request: _Request) -> None:
        """A connection is gone."""
        self._open.discard(request)

    def answer(self, head: bytes, certificate: Any, peer: str) -> bytes:
        """Return the answer to the head of a request."""

        def gate(asked: PageRequest) -> Page | None:
            return self._gate(asked._replace(certificate=certificate, peer=peer))

        return answer(head, self._pages, self._names, gate)

    def _or_ready(self, look: Callable[[], Page | None]) -> Callable[[], Page]:
        return lambda: look() or self._ready()

    def _ready(self) -> Page:
        word = self._word()
        return Page(200 if word == "ok" else 503, f"{word}\n".encode())

    def _metrics(self) -> Page:
        text = self._text()
        if text is None:
            return self._ready()
        return Page(200, text, CONTENT_TYPE)


class _Request(asyncio.Protocol):
    """One connection, and the one request on it."""

    def __init__(self, port: AdminPort) -> None:
        self.timer: asyncio.TimerHandle | None = None
        self._port = port
        self._head = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._port.opened(self)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._head += data
        if len(self._head) > REQUEST_BYTES_MAX:
            transport.write(_response(Page(431, b"the request is too long\n"), body=True))
        elif (end := self._head.find(_END)) >= 0:
            certificate = transport.get_extra_info("peercert")
            peer = transport.get_extra_info("peername")
            told = f"{peer[0]}:{peer[1]}" if peer else "-"
            transport.write(self._port.answer(bytes(self._head[:end]), certificate, told))
        else:
            return
        transport.close()  # what was written leaves first, within the time there is

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self._transport = None
        self._port.closed(self)

    def hang_up(self) -> None:
        """Its time is over."""
        if self._transport is not None:
            self._transport.abort()


def answer(
    head: bytes,
    pages: dict[str, Callable[[], Page]],
    names: frozenset[str],
    gate: Callable[[PageRequest], Page | None] = _everybody,
) -> bytes:
    """Return the answer to the head of a request (without the empty line at its end)."""
    line, *rest = head.split(b"\r\n")
    request = _REQUEST.match(line)
    fields = [_FIELD.match(field) for field in rest]
    if request is None or not all(fields):
        return _response(Page(400, b"malformed\n"), body=True)
    method, target, minor = request.groups()
    body = method != b"HEAD"
    hosts, shown = _named(fields, b"host"), _named(fields, b"authorization")
    if len(hosts) > 1 or (minor == b"1" and not hosts):
        return _response(Page(400, b"one Host is needed\n"), body=body)
    if hosts and not _meant(hosts[0].decode("latin-1"), names):
        return _response(Page(421, b"this is not the host asked for\n"), body=body)
    if method not in (b"GET", b"HEAD"):
        return _response(Page(405, b"read only\n"), body=True)
    path = target.decode("ascii").partition("?")[0]
    page = pages.get(path)
    if page is None:
        listed = " ".join(pages)
        return _response(Page(404, f"there are {listed}\n".encode()), body=body)
    if path not in _WORDS:
        if len(shown) > 1:
            return _response(Page(400, b"one Authorization is enough\n"), body=body)
        refused = gate(PageRequest(path, shown[0].decode("latin-1") if shown else None))
        if refused is not None:
            return _response(refused, body=body)
    return _response(page(), body=body)


def _named(fields: list[re.Match[bytes] | None], name: bytes) -> list[bytes]:
    return [found[2].strip() for found in fields if found and found[1].lower() == name]


def _meant(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header can only come from who meant this port.

    An address is nobody's name: no page of a browser can make its own name one.
    """
    name = host.rpartition(":")[0] if re.search(r":\d*\Z", host) else host
    if name.lower() == "localhost" or name.lower() in names:
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _response(page: Page, *, body: bool) -> bytes:
    more = _MORE.get(page.status, "")
    head = (
        f"HTTP/1.1 {page.status} {_STATUS[page.status]}\r\n"
        f"Content-Type: {page.kind}\r\nContent-Length: {len(page.body)}\r\n{more}"
        f"Content-Security-Policy: {_POLICY}\r\nReferrer-Policy: no-referrer\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (page.body if body else b"")

"""The first words on a link: who is there, the proof of it, and what speaks against it. Pure.

``[300, [lowest, highest], protocol, cluster, node, directory, incarnation, run, founding, joins,
peer, client, term, last_index, nonce, memory]``: an array that only grows at its end, the range of
levels first, for ever; what follows the fields known is ignored. A side that objects says
``[301, why, fatal]``, one that goes on ``[302]``.

Where the replicas share a secret, each side proves that it has it before anything that it says
counts: ``[303, HMAC-SHA256(secret, who of the two, both first words)]``, with a nonce of each side
in those words. Then the one that was dialled has the last word:

    dialling:  300 -------->
               <-------- 300, 303
               303, 302 --->              (or 303, 301)
               <-------- 302              (or 301)

Without a secret (mutual TLS, ``insecure: true``) the dialling side has it:

    dialling:  300 -------->
               <-------- 300              (or 301)
               302 -------->              (or 301)
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

import msgpack

from raftckpt import limits
from raftckpt.plain import plain
from raftckpt.protocol.check import decode_plain
from raftckpt.protocol.contract import NODE_ID_BYTES_MAX
from raftckpt.raft.messages import INDEX_MAX, TERM_MAX, WHOLE, PeerProtocolError
from raftckpt.raft.port import PeerInfo
from raftckpt.version import PEER_PROTOCOL

__all__ = [
    "HELLO",
    "PROOF",
    "READY",
    "REFUSED",
    "Handshake",
    "Hello",
    "Refusal",
    "objection_to",
    "parse_hello",
]

# kinds of the handshake's parts, which no message has
HELLO: Final = 300
REFUSED: Final = 301
READY: Final = 302
PROOF: Final = 303
NONCE_BYTES: Final = 32  # 256 bits: nobody meets one twice
HELLO_BYTES_MAX: Final = 16 * limits.KIB
"""Names, addresses and a token of their greatest lengths, several times."""
_WORD: Final = re.compile(r"[ -~]*\Z")
_NODE: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NODE_ID_BYTES_MAX - 1}}}\Z")
_ADDRESS: Final = re.compile(r"[A-Za-z0-9.:\[\]-]*\Z")
_LEVEL_MAX: Final = 1 << 16  # beyond what will be: a lie is refused
_STARTS_MAX: Final = 1 << 32  # one a second for a century
_MEMORY_MAX: Final = (1 << 63) - 1  # what 64 bits hold
_TEXT_MAX: Final = 500  # of what is shown of a refusal


class Hello(NamedTuple):
    """What a replica says of itself when a link begins."""

    levels: list[int]
    protocol: int
    cluster: str
    node: str
    directory: str
    incarnation: int
    run: str
    founding: str
    joins: str
    peer: str
    client: str
    term: int
    last_index: int
    nonce: bytes = b""
    """Of a side that has a secret to prove, never used twice; else it is not said, or empty."""
    memory: int = 0
    """Bytes that it has for data; 0: it is not said."""

    @property
    def info(self) -> PeerInfo:
        """What consensus wants to know of it."""
        lowest, highest = self.levels
        return PeerInfo(
            self.directory, self.node, self.joins, self.peer, self.client, lowest, highest,
            self.incarnation, self.run, self.term, self.last_index, self.memory,
        )  # fmt: skip


_TYPES: Final = (list, int, str, str, str, int, str, str, str, str, str, int, int)


class Refusal(NamedTuple):
    """The other side objects; ``fatal``: this start must not go on."""

    why: str
    fatal: bool


def parse_hello(body: bytes) -> Hello | Refusal:
    """Decode the first message strictly; a refusal of the other side comes as its text."""
    message = _message(body)
    if message[:1] == [REFUSED]:
        return _refusal(message)
    if len(message) >= 3 and message[0] == HELLO and message[2] != PEER_PROTOCOL:
        raise PeerProtocolError(f"it speaks peer protocol {message[2]!r}, not {PEER_PROTOCOL}"[:80])
    fields = message[1 : len(_TYPES) + 1]
    if not message or message[0] != HELLO or tuple(map(type, fields)) != _TYPES:
        raise PeerProtocolError("the handshake is malformed")
    nonce = message[len(_TYPES) + 1] if len(message) > len(_TYPES) + 1 else b""
    if type(nonce) is not bytes or len(nonce) not in (0, NONCE_BYTES):
        raise PeerProtocolError("the nonce of the handshake is malformed")
    memory = message[len(_TYPES) + 2] if len(message) > len(_TYPES) + 2 else 0
    if type(memory) is not int:
        raise PeerProtocolError("the memory in the handshake is malformed")
    hello = Hello._make((*fields, nonce, memory))
    _check(hello)
    return hello


def _message(body: bytes) -> list[Any]:
    if body[:1] != WHOLE or len(body) > HELLO_BYTES_MAX:
        raise PeerProtocolError("the first frame is no handshake")
    try:
        messages = decode_plain(body[1:], 64)
    except ValueError as error:
        raise PeerProtocolError(f"the handshake is not msgpack: {error}") from None
    if type(messages) is not list or len(messages) != 1 or type(messages[0]) is not list:
        raise PeerProtocolError("the first frame is no handshake")
    return messages[0]


def _refusal(message: list[Any]) -> Refusal:
    if tuple(map(type, message[:3])) != (int, str, bool):
        raise PeerProtocolError("the refusal is malformed")
    return Refusal(plain(message[1][:_TEXT_MAX]), message[2])


def _check(hello: Hello) -> None:
    """Every field within its bounds: some of it is put into the log, and into the logs."""
    if len(hello.levels) != 2 or any(type(level) is not int for level in hello.levels):
        raise PeerProtocolError("the handshake has no range of levels")
    lowest, highest = hello.levels
    bounds = (
        1 <= lowest <= highest <= _LEVEL_MAX
        and 0 <= hello.incarnation <= _STARTS_MAX
        and 0 <= hello.term <= TERM_MAX
        and 0 <= hello.last_index <= INDEX_MAX
        and 0 <= hello.memory <= _MEMORY_MAX
    )
    if not bounds:
        raise PeerProtocolError("number out of range in the handshake")
    words = (hello.cluster, hello.directory, hello.run, hello.founding)
    if (
        not _NODE.match(hello.node)
        or not hello.directory
        or len(hello.joins) > limits.ADDRESS_BYTES_MAX
        or any(len(word) > limits.ADDRESS_BYTES_MAX or not _WORD.match(word) for word in words)
        or any(
            len(address) > limits.ADDRESS_BYTES_MAX or not _ADDRESS.match(address)
            for address in (hello.peer, hello.client)
        )
    ):
        raise PeerProtocolError("a name or address in the handshake is none")


class Handshake:
    """One side of the first words on a link: bodies in, messages out.

    Arguments:
        dialled: whether this side dialled.
        own: what it says of itself; the nonce is put in here.
        secret: what the replicas share; empty: nothing is to be proved.
        nonce: random bytes, ``NONCE_BYTES`` of them.
        write: called with each frame body to be sent.

    Attributes:
        hello: what the other side said of itself.
        proven: it has shown that it has the secret, or need not.
        accepted: nothing spoke against its hello once.
        over: the link may be used.
    """

    def __init__(
        self,
        own: Hello,
        write: Callable[[bytes], None],
        *,
        dialled: bool,
        secret: bytes = b"",
        nonce: bytes = b"",
    ) -> None:
        self.hello: Hello | None = None
        self.accepted = self.over = False
        self._me = own
        said: tuple[Any, ...] = own._replace(nonce=nonce if secret else b"")
        if not own.memory:
            said = said[:-1] if secret else said[:-2]
        self._own = _body([HELLO, *said])
        self._theirs = b""
        self._dialled = dialled
        self._secret = secret
        self._write = write
        self._introduced = dialled
        self._proved = self.proven = not secret
        if dialled:
            write(self._own)

    def receive(self, body: bytes) -> Hello | Refusal | None:
        """Take a frame body.

        Returns:
            A hello that is to be judged now: :meth:`accept` or :meth:`refuse`. A refusal of the
            other side (fatal only from one that is proven). None: more is to come.

        Raises:
            PeerProtocolError: close the connection; the other side has been told, if it helps.
        """
        message = _message(body)
        if message[:1] == [REFUSED]:
            why, fatal = _refusal(message)
            return Refusal(why, fatal and self.proven)
        if self.hello is None:
            return self._greeted(body)
        if not self.proven:
            return self._shown(message)
        if message != [READY]:
            raise PeerProtocolError("a second handshake on one link")
        return self.hello

    def _greeted(self, body: bytes) -> Hello | None:
        hello = parse_hello(body)
        if isinstance(hello, Refusal):
            raise PeerProtocolError("the handshake is malformed")
        self.hello, self._theirs = hello, body
        if self.proven:
            return hello
        if not hello.nonce:
            self._fail("it shows no secret, and this cluster's replicas share one")
        if not self._dialled:
            self._introduce()
            self._prove()
        return None

    def _shown(self, message: list[Any]) -> Hello | None:
        proof = message[1] if len(message) == 2 and message[0] == PROOF else None
        expected = self._mac(dialled=not self._dialled)
        if type(proof) is not bytes or not hmac.compare_digest(proof, expected):
            self._fail("it does not have the secret that this cluster's replicas share")
        self.proven = True
        return self.hello if self._dialled else None

    def _fail(self, why: str) -> NoReturn:
        if self.hello is not None and self.hello.cluster != self._me.cluster:
            why = f"{objection_to(self.hello, self._me, 0)}, and {why}"
        self._write(_body([REFUSED, why, False]))
        raise PeerProtocolError(
            f"{why}: give replicas of one machine the same data_dir, others the same "
            "peer_secret_file"
        )

    def accept(self) -> None:
        """Nothing speaks against the hello that :meth:`receive` returned: go on, or be done."""
        self.accepted = True
        if not self._introduced:
            self._introduce()
            return
        if not self._proved:  # dialled: the other side has the last word
            self._prove()
            self._write(READY_BODY)
            return
        if bool(self._secret) != self._dialled:  # ours is the last word
            self._write(READY_BODY)
        self.over = True

    def refuse(self, why: str, *, fatal: bool) -> None:
        """Tell the other side what speaks against it."""
        if self._introduced and not self._proved:
            self._prove()  # else a fatal one would not count
        self._write(_body([REFUSED, why, fatal]))

    def _introduce(self) -> None:
        self._introduced = True
        self._write(self._own)

    def _prove(self) -> None:
        self._proved = True
        self._write(_body([PROOF, self._mac(dialled=self._dialled)]))

    def _mac(self, *, dialled: bool) -> bytes:
        """What the side that dialled, or the other one, has to show."""
        first, second = (self._own, self._theirs) if self._dialled else (self._theirs, self._own)
        said = hashlib.sha256(first).digest() + hashlib.sha256(second).digest()
        return hmac.digest(self._secret, (b"dialled" if dialled else b"accepted") + said, "sha256")


def _body(message: list[Any]) -> bytes:
    return WHOLE + msgpack.packb([message], use_bin_type=True)  # type: ignore[no-any-return]


READY_BODY: Final = _body([READY])


def objection_to(hello: Hello, own: Hello, level: int) -> str | None:
    """Why a link with who says ``hello`` must not be; None: nothing speaks against it."""
    if hello.cluster != own.cluster:
        return f"it belongs to cluster {hello.cluster!r}, this is {own.cluster!r}"
    if hello.directory == own.directory:
        return "it runs on this replica's own data directory: a copy of it, or a wrong address"
    if hello.node == own.node:
        return f"{own.node!r} is this replica's own node id: two processes share it"
    if hello.founding and own.founding and hello.founding != own.founding:
        return (
            f"the cluster {own.cluster!r} was founded twice: its founding is "
            f"{hello.founding[:8]}, this one is {own.founding[:8]}; one of the two has to go"
        )
    lowest, highest = hello.levels
    if level and not lowest <= level <= highest:
        return (
            f"it can levels {lowest} to {highest}, the cluster is at level {level}: start a "
            "version that can"
        )
    return None

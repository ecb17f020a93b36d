"""The first words on a link: who is there, the proof of it, and what speaks against it. Pure.

``[300, [lowest, highest], protocol, cluster, node, directory, incarnation, run, founding, joins,
peer, client, term, last_index, nonce, memory, recognises]``: an array that only grows at its end,
the range of levels first, for ever; what follows the fields known is ignored. A side that objects
says ``[301, why, fatal]``, one that goes on ``[302]``.

Where the replicas share a secret, each side proves that it has it before anything that it says
counts: ``[303, HMAC-SHA256(secret, who of the two, both first words)]``, with a nonce of each side
in those words. Then the one that was dialled has the last word:

    dialling:  300 -------->
               <-------- 300, 303
               303, 302 --->              (or 303, 301)
               <-------- 302              (or 301)

Who has the secret is *some* replica. Which one is said by a *mark*: every directory tells each
other one a key when they meet first (``[302, key]``), another one to each, and shows from then on
that it has it: ``[303, proof, HMAC-SHA256(key, as above), whether it knows the other's key]``. So
the secret alone poses as nobody who was met, and neither does another replica. A key is told again
only to who shows its own mark: what one of the two forgot is mended, and a stranger learns nothing.

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
from typing import Any, Final, NamedTuple, NoReturn, Protocol

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
    "Keys",
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
KEY_BYTES: Final = 32  # of HMAC-SHA256: what comes out of it, and what goes in best
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
    recognises: bool = False
    """It shows its mark and asks for that of others: it is of a version that can."""

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
    later = message[len(_TYPES) + 1 : len(Hello._fields) + 1]  # one that is not said is its default
    for value, (name, default) in zip(later, Hello._field_defaults.items(), strict=False):
        if type(value) is not type(default):
            raise PeerProtocolError(f"the {name} in the handshake is malformed")
    hello = Hello(*fields, *later)
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
    if len(hello.nonce) not in (0, NONCE_BYTES):
        raise PeerProtocolError("the nonce in the handshake is malformed")
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


class Keys(Protocol):
    """What directories recognise each other by."""

    def own_key(self, directory: str) -> bytes:
        """What this directory shows to ``directory``, and to nobody else."""

    def key_of(self, directory: str) -> bytes:
        """What ``directory`` told when it was met first (empty: nothing yet)."""

    def told(self, directory: str) -> bool:
        """Whether ``directory`` was told our key for it."""


class Handshake:
    """One side of the first words on a link: bodies in, messages out.

    Arguments:
        dialled: whether this side dialled.
        own: what it says of itself; the nonce is put in here.
        secret: what the replicas share; empty: nothing is to be proved.
        nonce: random bytes, ``NONCE_BYTES`` of them.
        write: called with each frame body to be sent.
        keys: marks are shown and asked for; None: the secret is all there is.

    Attributes:
        hello: what the other side said of itself.
        proven: it has shown that it has the secret, or need not.
        accepted: nothing spoke against its hello once.
        over: the link may be used.
        key: what the other side told to be recognised by from now on (empty: nothing new).
        telling: our key was told to it.
    """

    def __init__(
        self,
        own: Hello,
        write: Callable[[bytes], None],
        *,
        dialled: bool,
        secret: bytes = b"",
        nonce: bytes = b"",
        keys: Keys | None = None,
    ) -> None:
        self.hello: Hello | None = None
        self.accepted = self.over = self.telling = False
        self.key = b""
        self._keys = keys if secret else None
        self._known = self._lacks = False
        self._me = own
        if secret:
            own = own._replace(nonce=nonce, recognises=own.recognises or keys is not None)
        said: list[Any] = [*own] if secret else [*own._replace(nonce=b"", recognises=False)]
        while len(said) > len(_TYPES) and not said[-1]:
            said.pop()
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
        if message[:1] != [READY] or len(message) > 2:
            raise PeerProtocolError("a second handshake on one link")
        if len(message) > 1:
            if type(message[1]) is not bytes or len(message[1]) != KEY_BYTES:
                raise PeerProtocolError("the key in the handshake is malformed")
            if self._keys is not None and not self._keys.key_of(self.hello.directory):
                self.key = message[1]
        return self.hello

    def _greeted(self, body: bytes) -> Hello | None:
        hello = parse_hello(body)
        if isinstance(hello, Refusal):
            raise PeerProtocolError("the handshake is malformed")
        self.hello, self._theirs = hello, body
        if self.proven:
            return hello
        if not hello.nonce:
            self._fail("it shows no secret, and this cluster's replicas share one", _SAME)
        if not self._dialled:
            self._introduce()
            self._prove()
        return None

    def _shown(self, message: list[Any]) -> Hello | None:
        proof = message[1] if len(message) >= 2 and message[0] == PROOF else None
        expected = self._mac(self._secret, dialled=not self._dialled)
        if type(proof) is not bytes or not hmac.compare_digest(proof, expected):
            self._fail("it does not have the secret that this cluster's replicas share", _SAME)
        if self._keys is not None and self.hello is not None:
            self._recognise(self._keys.key_of(self.hello.directory), message[2:])
        self.proven = True
        return self.hello if self._dialled else None

    def _recognise(self, key: bytes, shown: list[Any]) -> None:
        """Compare the mark with what was told at the first meeting, if there was one."""
        mark, known = shown[:2] if len(shown) >= 2 else (b"", True)
        if key:
            expected = self._mac(key, dialled=not self._dialled)
            if type(mark) is not bytes or not hmac.compare_digest(mark, expected):
                self._fail(
                    "it does not show the mark of the data directory that it says it runs on",
                    "somebody else uses its name, or its directory was put together by hand: "
                    "move that away and start with `raftckpt serve --rejoin`",
                )
        self._known, self._lacks = bool(key), known is False

    def _fail(self, why: str, remedy: str) -> NoReturn:
        if self.hello is not None and self.hello.cluster != self._me.cluster:
            why = f"{objection_to(self.hello, self._me, 0)}, and {why}"
        self._write(_body([REFUSED, why, False]))
        raise PeerProtocolError(f"{why}: {remedy}")

    def accept(self) -> None:
        """Nothing speaks against the hello that :meth:`receive` returned: go on, or be done."""
        self.accepted = True
        if not self._introduced:
            self._introduce()
            return
        if not self._proved:  # dialled: the other side has the last word
            self._prove()
            self._be_ready()
            return
        if bool(self._secret) != self._dialled:  # ours is the last word
            self._be_ready()
        self.over = True

    def refuse(self, why: str, *, fatal: bool) -> None:
        """Tell the other side what speaks against it."""
        if self._introduced and not self._proved:
            self._prove()  # else a fatal one would not count
        self._write(_body([REFUSED, why, fatal]))

    def _be_ready(self) -> None:
        keys, hello, body = self._keys, self.hello, READY_BODY
        if keys is not None and hello is not None and self._lacks:
            self.telling = self._known or not keys.told(hello.directory)
            if self.telling:
                body = _body([READY, keys.own_key(hello.directory)])
        self._write(body)

    def _introduce(self) -> None:
        self._introduced = True
        self._write(self._own)

    def _prove(self) -> None:
        self._proved = True
        said = [PROOF, self._mac(self._secret, dialled=self._dialled)]
        hello = self.hello
        if self._keys is not None and hello is not None and hello.recognises:
            key = self._keys.own_key(hello.directory)
            mark = self._mac(key, dialled=self._dialled)
            said += [mark, bool(self._keys.key_of(hello.directory))]
        self._write(_body(said))

    def _mac(self, key: bytes, *, dialled: bool) -> bytes:
        """What the side that dialled, or the other one, has to show."""
        first, second = (self._own, self._theirs) if self._dialled else (self._theirs, self._own)
        said = hashlib.sha256(first).digest() + hashlib.sha256(second).digest()
        return hmac.digest(key, (b"dialled" if dialled else b"accepted") + said, "sha256")


def _body(message: list[Any]) -> bytes:
    return WHOLE + msgpack.packb([message], use_bin_type=True)  # type: ignore[no-any-return]


READY_BODY: Final = _body([READY])
_SAME: Final = "give replicas of one machine the same data_dir, others the same peer_secret_file"


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

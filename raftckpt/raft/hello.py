"""The first words on a link: who is there, and what speaks against it.

``[300, [lowest, highest], protocol, cluster, node, directory, incarnation, run, founding, joins,
peer, client, term, last_index]``: an array that only grows at its end, the range of levels first,
for ever; what follows the fields known is ignored. A side that objects says ``[301, why, fatal]``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from raftckpt import limits
from raftckpt.protocol.check import decode_plain
from raftckpt.raft.messages import WHOLE, PeerProtocolError
from raftckpt.raft.port import PeerInfo
from raftckpt.version import PEER_PROTOCOL

__all__ = ["HELLO", "REFUSED", "Hello", "Refusal", "objection_to", "parse_hello", "refusal_in"]

HELLO: Final = 300
REFUSED: Final = 301
_HELLO_BYTES_MAX: Final = 16 * limits.KIB


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

    @property
    def info(self) -> PeerInfo:
        """What consensus wants to know of it."""
        lowest, highest = self.levels
        return PeerInfo(
            self.directory, self.node, self.joins, self.peer, self.client, lowest, highest,
            self.incarnation, self.run, self.term, self.last_index,
        )  # fmt: skip


_TYPES: Final = (list, int, str, str, str, int, str, str, str, str, str, int, int)


class Refusal(NamedTuple):
    """The other side objects; ``fatal``: this start must not go on."""

    why: str
    fatal: bool


def parse_hello(body: bytes) -> Hello | Refusal:
    """Decode the first message strictly; a refusal of the other side comes as its text."""
    if body[:1] != WHOLE or len(body) > _HELLO_BYTES_MAX:
        raise PeerProtocolError("the first frame is no handshake")
    try:
        messages = decode_plain(body[1:], 64)
    except ValueError as error:
        raise PeerProtocolError(f"the handshake is not msgpack: {error}") from None
    if type(messages) is not list or len(messages) != 1 or type(messages[0]) is not list:
        raise PeerProtocolError("the first frame is no handshake")
    message = messages[0]
    if message[:1] == [REFUSED] and tuple(map(type, message[:3])) == (int, str, bool):
        return Refusal(message[1][:500], message[2])
    if len(message) >= 3 and message[0] == HELLO and message[2] != PEER_PROTOCOL:
        raise PeerProtocolError(f"it speaks peer protocol {message[2]!r}, not {PEER_PROTOCOL}")
    fields = message[1 : len(_TYPES) + 1]
    if not message or message[0] != HELLO or tuple(map(type, fields)) != _TYPES:
        raise PeerProtocolError("the handshake is malformed")
    levels = fields[0]
    if len(levels) != 2 or any(type(level) is not int for level in levels):
        raise PeerProtocolError("the handshake has no range of levels")
    if any(type(field) is int and not 0 <= field < 1 << 64 for field in fields):
        raise PeerProtocolError("number out of range in the handshake")
    return Hello._make(fields)


def refusal_in(body: bytes) -> Refusal:
    """What else than READY may follow a hello: the other side objects to ours.

    Raises:
        PeerProtocolError: it is something else.
    """
    said = parse_hello(body)
    if isinstance(said, Refusal):
        return said
    raise PeerProtocolError("a second handshake on one link")


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

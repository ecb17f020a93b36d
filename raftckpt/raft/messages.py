"""What replicas say to each other: the closed set of peer messages and their strict decoding.

A frame body holds a msgpack array of messages; each message is an array whose first field is its
kind. Nothing is ever unpickled. A peer that breaks the schema gets :class:`PeerProtocolError` and
loses its connection, nothing else. So does one that says what no replica has reason to say: every
field has bounds, and :func:`implausible` knows those that depend on where this replica stands.
Nothing that one peer says in one message may end this replica, or be of lasting harm to it.

Every message carries the sender's ``term`` as of the moment the consensus code sent it, and every
answer echoes the ``round`` (heartbeat number) of the append or chunk it answers: an answer counts
only in the term it was given, and a read only trusts rounds that began after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Final, NamedTuple, TypeAlias, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from raftckpt import limits
from raftckpt.protocol.check import decode_plain
from raftckpt.protocol.contract import SA_TIME_MAX
from raftckpt.raft.configuration import CONFIGURATION, decode_configuration

__all__ = [
    "INDEX_MAX",
    "SYNC_US_MAX",
    "TERM_LEAP_MAX",
    "TERM_MAX",
    "WHOLE",
    "Ack",
    "Append",
    "Chunk",
    "ChunkAck",
    "DiskPace",
    "Echo",
    "NotLetIn",
    "Noted",
    "PeerMessage",
    "PeerProtocolError",
    "PreVote",
    "PreVoteAnswer",
    "Removed",
    "Standing",
    "TermIs",
    "TimeoutNow",
    "VoteGrant",
    "VoteRequest",
    "decode_body",
    "encode",
    "implausible",
    "join_bodies",
    "spoken",
]


TERM_MAX: Final = 1 << 56  # room for many leaps, and sums fit into 64 bits
INDEX_MAX: Final = 1 << 56  # a million entries a second for 2,000 years
_ROUND_MAX: Final = (1 << 63) - 1  # what 64 bits hold
_Term: TypeAlias = Annotated[int, Meta(ge=0, le=TERM_MAX)]
_Index: TypeAlias = Annotated[int, Meta(ge=0, le=INDEX_MAX)]
_Round: TypeAlias = Annotated[int, Meta(ge=0, le=_ROUND_MAX)]
_Wall: TypeAlias = Annotated[int, Meta(ge=0, le=SA_TIME_MAX)]


class PeerProtocolError(ValueError):
    """A peer sent something that is not of the protocol; its connection must be closed."""


class Append(NamedTuple):
    """Entries (or none: heartbeat) that follow ``prev_index``; from the leader of ``term``.

    ``prev_index`` 0: a bare heartbeat that says nothing about the log (a snapshot is on its way).
    """

    kind: int
    term: int
    round: int
    commit: int
    prev_index: int
    prev_term: int
    entries: list[Any]
    """[payload, index, term] each, contiguous."""


class Ack(NamedTuple):
    """Answer to an :class:`Append` or to a finished snapshot.

    ``success``: the log matches the leader's below ``next_index``; ``reset``: it does not, go on
    from ``next_index``.
    """

    kind: int
    term: _Term
    round: _Round
    success: bool
    reset: bool
    next_index: _Index
    wall_ns: _Wall


class Echo(NamedTuple):
    """The append or chunk of ``round`` was accepted (it has no other answer)."""

    kind: int
    term: int
    round: int
    wall_ns: int


class VoteRequest(NamedTuple):
    """RequestVote; ``transfer``: the leader itself asked for this election."""

    kind: int
    term: int
    last_index: int
    last_term: int
    transfer: bool


class VoteGrant(NamedTuple):
    """A granted vote (a refused one is silence)."""

    kind: int
    term: int


class PreVote(NamedTuple):
    """Would you vote for me in ``asked_term``? Changes nothing anywhere."""

    kind: int
    term: int
    asked_term: int
    last_index: int
    last_term: int


class PreVoteAnswer(NamedTuple):
    """Answer to :class:`PreVote`; ``term`` is the voter's."""

    kind: int
    term: int
    asked_term: int
    granted: bool


class TimeoutNow(NamedTuple):
    """Leadership transfer: start an election at once."""

    kind: int
    term: int


class TermIs(NamedTuple):
    """You are behind: my term is ``term``."""

    kind: int
    term: int


class Chunk(NamedTuple):
    """Part of snapshot ``snapshot`` (a unique id), which stands for the log up to
    ``log_index``.
    """

    kind: int
    term: int
    round: int
    snapshot: str
    log_index: int
    index_term: int
    total: int
    offset: int
    crc: int
    data: bytes


class ChunkAck(NamedTuple):
    """The receiver holds the first ``received`` bytes of ``snapshot``."""

    kind: int
    term: int
    round: int
    snapshot: str
    received: int
    wall_ns: int


class Standing(NamedTuple):
    """The configuration in force at the sender, said when a link begins and when it changes."""

    kind: int
    config_term: int
    config_index: int


class Removed(NamedTuple):
    """You are no member any more: the committed configuration at this place lacks you."""

    kind: int
    config_term: int
    config_index: int


class NotLetIn(NamedTuple):
    """Why you are not let in yet, for people."""

    kind: int
    why: str


class DiskPace(NamedTuple):
    """How long a sync of the sender's journal takes of late, on average (microseconds)."""

    kind: int
    sync_us: int


class Noted(NamedTuple):
    """A founding: the record that the sender has written down, and whether it is complete."""

    kind: int
    number: int
    record: bytes
    complete: bool


PeerMessage: TypeAlias = (
    Append
    | Ack
    | Echo
    | VoteRequest
    | VoteGrant
    | PreVote
    | PreVoteAnswer
    | TimeoutNow
    | TermIs
    | Chunk
    | ChunkAck
    | Standing
    | Removed
    | NotLetIn
    | Noted
    | DiskPace
)

KINDS: Final[dict[type[Any], int]] = {
    Append: 1,
    VoteRequest: 4,
    VoteGrant: 5,
    PreVote: 6,
    PreVoteAnswer: 7,
    TimeoutNow: 8,
    TermIs: 9,
    Chunk: 10,
    Ack: 13,
    Echo: 14,
    ChunkAck: 15,
    Standing: 16,
    Removed: 17,
    NotLetIn: 18,
    Noted: 19,
    DiskPace: 20,
}
"""2, 3, 11 and 12 were said by replicas of peer protocol 1 only."""
FORMER: Final[dict[type[Any], tuple[int, Callable[[Any], Any]]]] = {}
"""Messages that came with a level above the lowest: that level, and how to say it below it.

A kind never changes its fields: what a later version has to say more is another kind.
"""
_CLASSES: Final = {kind: cls for cls, kind in KINDS.items()}
_TYPES: Final[dict[int, tuple[type, ...]]] = {
    kind: tuple(get_origin(hint) or hint for hint in get_type_hints(cls).values())
    for kind, cls in _CLASSES.items()
}
TERM_LEAP_MAX: Final = 1 << 32
"""Nobody is so many elections ahead: one message must not use up the terms there are."""
_SNAPSHOT_BYTES_MAX: Final = 1 << 50  # a PiB, beyond any memory
_OFFERS_MAX: Final = 1 << 32  # one for each start
_ID_MAX: Final = 64  # NODE_ID_BYTES_MAX is as long
SYNC_US_MAX: Final = 1 << 40  # twelve days
_WHY_MAX: Final = 500  # some lines for people
_MOST: Final[dict[str, int]] = {
    "kind": 1 << 16,
    "term": TERM_MAX,
    "prev_term": TERM_MAX,
    "last_term": TERM_MAX,
    "index_term": TERM_MAX,
    "asked_term": TERM_MAX,
    "config_term": TERM_MAX,
    "commit": INDEX_MAX,
    "prev_index": INDEX_MAX,
    "last_index": INDEX_MAX,
    "next_index": INDEX_MAX,
    "log_index": INDEX_MAX,
    "config_index": INDEX_MAX,
    "round": _ROUND_MAX,
    "wall_ns": SA_TIME_MAX,
    "total": _SNAPSHOT_BYTES_MAX,
    "offset": _SNAPSHOT_BYTES_MAX,
    "received": _SNAPSHOT_BYTES_MAX,
    "crc": (1 << 32) - 1,
    "number": _OFFERS_MAX,
    "sync_us": SYNC_US_MAX,
    "snapshot": _ID_MAX,
    "why": _WHY_MAX,
}
"""By field: the greatest number, or the longest text."""
_BOUNDS: Final[dict[int, tuple[tuple[int, int], ...]]] = {
    kind: tuple(
        (position, _MOST[name])
        for position, (name, hint) in enumerate(get_type_hints(cls).items())
        if hint is int
    )
    for kind, cls in _CLASSES.items()
}
_FREQUENT: Final = frozenset((Append, Ack, Echo))
"""Messages that have nothing more to be looked at."""
_ANSWERS: Final = frozenset((Ack, Echo, ChunkAck))
_WITHOUT_TERM: Final = frozenset((NotLetIn, Noted, DiskPace))
"""The others say one first, their own or that of a configuration."""
WHOLE: Final = b"\x00"
"""First byte of a frame body: a peer frame is never fragmented."""


class _AppendFields(NamedTuple):
    kind: int
    term: _Term
    round: _Round
    commit: _Index
    prev_index: _Index
    prev_term: _Term
    entries: list[tuple[bytes, int, int]]


_ONE: Final = WHOLE + b"\x91"
_ONE_ACK: Final = b"\x00\x91\x97\x0d"
_ONE_APPEND: Final = b"\x00\x91\x97\x01"
"""How a body begins that holds nothing but one message of a kind that comes all the time."""
_decode_ack: Final = msgspec.msgpack.Decoder(tuple[Ack]).decode
_decode_append: Final = msgspec.msgpack.Decoder(tuple[_AppendFields]).decode


def _check(message: Any) -> PeerMessage:
    if type(message) is not list or not message or type(message[0]) is not int:
        raise PeerProtocolError("a peer message is an array that starts with its kind")
    types = _TYPES.get(message[0])
    if types is None:
        raise PeerProtocolError(f"unknown peer message kind {message[0]}")
    if tuple(map(type, message)) != types:
        raise PeerProtocolError(f"malformed peer message of kind {message[0]}")
    for position, most in _BOUNDS[message[0]]:
        if not 0 <= message[position] <= most:
            raise PeerProtocolError("number out of range in a peer message")
    cls: Any = _CLASSES[message[0]]
    if cls is Append:
        message[6] = _entries(message)
    found: PeerMessage = cls._make(message)
    if cls not in _FREQUENT and not _consistent(found):
        raise PeerProtocolError(f"a peer message of kind {message[0]} contradicts itself")
    return found


def _consistent(message: PeerMessage) -> bool:
    """Whether the fields of a message fit each other."""
    match message:
        case VoteRequest() | PreVote():
            return message.last_term <= message.term
        case Chunk():
            return (
                message.log_index >= 2
                and message.index_term <= message.term
                and message.offset + len(message.data) <= message.total
                and len(message.snapshot) <= _MOST["snapshot"]
            )
        case ChunkAck():
            return len(message.snapshot) <= _MOST["snapshot"]
        case NotLetIn():
            return len(message.why) <= _MOST["why"]
        case Noted():
            return not message.record or _is_configuration(message.record)
    return True


def implausible(
    messages: Iterable[PeerMessage], *, term: int, sent_round: int, last_index: int
) -> str:
    """What no replica has reason to say to one that stands here ("": nothing).

    Arguments:
        messages: what a peer said.
        term: own term.
        sent_round: number of the last round sent, by a leader; else -1.
        last_index: end of the own log.
    """
    furthest = term + TERM_LEAP_MAX
    message: Any
    for message in messages:
        kind = type(message)
        if kind in _WITHOUT_TERM:
            continue
        said = message[1]
        if said > furthest:
            return f"it says term {said}, and this replica is at {term}"
        if kind in _ANSWERS and said == term and sent_round >= 0:
            if message.round > sent_round:
                return f"it answers round {message.round}, and the last one was {sent_round}"
            if kind is Ack and message.success and message.next_index > last_index + 1:
                return f"it holds entries to {message.next_index - 1}, and the last is {last_index}"
    return ""


def _entries(message: list[Any]) -> list[tuple[bytes, int, int]]:
    _, term, _, _, index, former, raw = message
    if former > term:
        raise PeerProtocolError("an append after an entry of a later term")
    entries = []
    for item in raw:
        index += 1
        if type(item) is not list or len(item) != 3:
            raise PeerProtocolError("an entry is [payload, index, term]")
        payload, entry_index, entry_term = item
        if (
            type(payload) is not bytes
            or not payload
            or entry_index != index
            or type(entry_term) is not int
            or not former <= entry_term <= term
        ):
            raise PeerProtocolError("entries are not contiguous, or their terms fall")
        if payload[:1] == CONFIGURATION:
            _configuration(payload)
        former = entry_term
        entries.append((payload, entry_index, entry_term))
    return entries


def _configuration(payload: bytes) -> None:
    try:
        decode_configuration(payload[1:])
    except ValueError as error:
        raise PeerProtocolError(str(error)) from None


def _is_configuration(record: bytes) -> bool:
    try:
        decode_configuration(record)
    except ValueError:
        return False
    return True


def spoken(message: PeerMessage, level: int) -> PeerMessage:
    """``message`` as it is said on a link whose two ends can ``level`` at the most."""
    while (former := FORMER.get(type(message))) is not None and former[0] > level:
        message = former[1](message)
    return message


encode: Final[Callable[[PeerMessage], bytes]] = msgspec.msgpack.Encoder().encode
"""Encodes one message (without the frame around it)."""


def join_bodies(encoded: list[bytes]) -> Iterable[bytes]:
    """Put encoded messages into as few frame bodies as the limits allow, in order."""
    return [_ONE + encoded[0]] if len(encoded) == 1 else _joined(encoded)


def _joined(encoded: list[bytes]) -> Iterator[bytes]:
    start, size = 0, 0
    for position, message in enumerate(encoded):
        if position > start and (
            size + len(message) > limits.FRAME_BYTES_MAX // 2 or position - start >= 1024
        ):
            yield _body(encoded[start:position])
            start, size = position, 0
        size += len(message)
    if start < len(encoded):
        yield _body(encoded[start:])


def _body(encoded: list[bytes]) -> bytes:
    count = len(encoded)
    head = bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return b"".join((WHOLE, head, *encoded))


def _decode_frequent(body: bytes, head: bytes) -> PeerMessage | None:
    """Decode and check one ack or append in one go; None: look at it closely."""
    try:
        if head == _ONE_ACK:
            return _decode_ack(memoryview(body)[1:])[0]
        fields = _decode_append(memoryview(body)[1:])[0]
    except msgspec.MsgspecError:
        return None
    index, former, term = fields.prev_index, fields.prev_term, fields.term
    for payload, entry_index, entry_term in fields.entries:
        index += 1
        if (
            entry_index != index
            or not former <= entry_term <= term
            or not payload
            or payload[:1] == CONFIGURATION
        ):
            return None
        former = entry_term
    return None if former > term else Append._make(fields)


def decode_body(body: bytes) -> list[PeerMessage]:
    """Decode a frame body (with its first byte) into messages.

    Raises:
        PeerProtocolError: if anything in it is not of the protocol.
    """
    head = body[:4]
    if head in (_ONE_ACK, _ONE_APPEND):
        frequent = _decode_frequent(body, head)
        if frequent is not None:
            return [frequent]
    if body[:1] != WHOLE:
        raise PeerProtocolError("a peer frame is never fragmented")
    try:
        messages = decode_plain(memoryview(body)[1:])
    except ValueError as error:
        raise PeerProtocolError(f"not msgpack: {error}") from error
    if type(messages) is not list or not messages:
        raise PeerProtocolError("a peer frame holds an array of messages")
    return [_check(message) for message in messages]

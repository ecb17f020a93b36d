"""The closed union of commands (they change the state) and queries (they read it).

A command is a named tuple whose first four fields are ``tag, session, sequence, answered``;
it travels and is logged as a msgpack array. ``session`` 0 marks commands of the cluster itself.
The client sends the same array with its request number in the place of ``session`` (the connection
knows the session), so a command is decoded once and never re-built on its way to the log.

``data`` fields hold bytes, or the int number of a stage whose chunks were logged before.
``answered`` = n says: the client has seen the replies of every request up to n, without gaps.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = [
    "COMMANDS",
    "ActiveReplicaSet",
    "Batch",
    "Check",
    "CheckpointClose",
    "CheckpointOpen",
    "CheckpointUnlink",
    "CheckpointWrite",
    "Command",
    "Data",
    "Due",
    "GroupAdmin",
    "GroupFail",
    "GroupJoin",
    "GroupLeave",
    "GroupRespond",
    "RetentionSet",
    "SectionCorrupt",
    "SectionCreate",
    "SectionDelete",
    "SectionExpirationSet",
    "SectionOverwrite",
    "SectionPut",
    "SessionClose",
    "SessionExpire",
    "SessionOpen",
    "StageChunk",
    "Tag",
    "Unknown",
    "command_from",
]

Data: TypeAlias = "bytes | int"


class Tag(IntEnum):
    """Numbers of the commands on the wire and in the log; never re-used."""

    SESSION_OPEN = 1
    SESSION_CLOSE = 2
    SESSION_EXPIRE = 3
    CHECKPOINT_OPEN = 10
    CHECKPOINT_CLOSE = 11
    CHECKPOINT_UNLINK = 12
    RETENTION_SET = 13
    ACTIVE_REPLICA_SET = 14
    SECTION_CREATE = 20
    SECTION_DELETE = 21
    SECTION_EXPIRATION_SET = 22
    SECTION_OVERWRITE = 23
    SECTION_PUT = 24
    CHECKPOINT_WRITE = 25
    STAGE_CHUNK = 26
    SECTION_CORRUPT = 27
    DUE = 40
    CHECK = 41
    GROUP_JOIN = 50
    GROUP_LEAVE = 51
    GROUP_RESPOND = 52
    GROUP_ADMIN = 53
    GROUP_FAIL = 54


class SessionOpen(NamedTuple):
    """Create a session -> [session id]. Repeated with the same secret it returns the same id.

    ``session`` is 0. Times in nanoseconds.
    """

    tag: int
    session: int
    sequence: int
    answered: int
    secret: bytes
    name: str
    node: str
    timeout_ns: int
    grace_ns: int


class SessionClose(NamedTuple):
    """Goodbye of a client: implicit Finalize -> None."""

    tag: int
    session: int
    sequence: int
    answered: int


class SessionExpire(NamedTuple):
    """The leader declares sessions dead -> number of sessions that ended. ``session`` is 0."""

    tag: int
    session: int
    sequence: int
    answered: int
    sessions: list[int]


class CheckpointOpen(NamedTuple):
    """saCkptCheckpointOpen -> [handle, uid, created, attributes, revision].

    ``flags``: OpenFlags; ``attributes``: Attributes as a list, exactly when CREATE is set.
    """

    tag: int
    session: int
    sequence: int
    answered: int
    name: str
    flags: int
    attributes: list[int] | None


class CheckpointClose(NamedTuple):
    """saCkptCheckpointClose -> None."""

    tag: int
    session: int
    sequence: int
    answered: int
    handle: int


class CheckpointUnlink(NamedTuple):
    """saCkptCheckpointUnlink -> revision."""

    tag: int
    session: int
    sequence: int
    answered: int
    name: str


class RetentionSet(NamedTuple):
    """saCkptCheckpointRetentionDurationSet -> revision."""

    tag: int
    session: int
    sequence: int
    answered: int
    handle: int
    retention_ns: int


class ActiveReplicaSet(NamedTuple):
    """saCkptActiveReplicaSet -> [epoch, revision]; ``exclusive`` also fences other writers."""

    tag: int
    session: int
    sequence: int
    answered: int
    handle: int
    exclusive: bool


class SectionCreate(NamedTuple):
    """saCkptSectionCreate -> [revision, section id]; ``section_id`` None: generated.

    ``expiration_ns`` absolute (SA_TIME_MAX: never) or ``ttl_ns`` from the time of apply.
    """

    tag: int
    session: int
    sequence: int
    answered: int
    handle: int
    section_id: bytes | None
    data: Data
    expiration_ns: int
    ttl_ns: int | None


class SectionDelete(NamedTuple):
    """saCkptSectionDelete -> revision."""

    tag: int
    session: int
    sequence: int
    answered: int
    handle: int
    section_id: bytes


class SectionExpirationSet(NamedTuple):
    """saCkptSectionExpirationTimeSet -> revision. Absolute ``expiration_ns`` or ``ttl_ns``."""

    tag: int
    session: int
    sequence: int
    answered: int
    handle: int
    section_id: bytes
    expiration_ns: int
    ttl_ns: int | None


class SectionOverwrite(NamedTuple):
    """saCkptSectionOverwrite -> revision."""

    tag: int
    session: int
    sequence: int
    answered: int
    handle: int
    section_id: bytes
    data: Data


class SectionPut(NamedTuple):
    """Overwrite, or create without expiration if missing -> revision."""

    tag: int
    session: int
    sequence: int
    answered: int
    handle: int
    section_id: bytes
    data: Data


class CheckpointWrite(NamedTuple):
    """saCkptCheckpointWrite -> revision. ``vector``: [[section id, offset, data], ...], atomic."""

    tag: int
    session: int
    sequence: int
    answered: int
    handle: int
    vector: list[list[Any]]


class StageChunk(NamedTuple):
    """Append a chunk to stage ``stage`` of the session -> None.

    Chunks arrive in order: ``offset`` must equal the bytes staged so far. A stage is dropped by
    the command that refers to it, applied or refused, and with the session.
    """

    tag: int
    session: int
    sequence: int
    answered: int
    stage: int
    offset: int
    data: bytes


class SectionCorrupt(NamedTuple):
    """Fault injection for tests: put a section into the state CORRUPTED -> revision.

    Its contents stay as they are, but nobody gets at them: only an overwrite (or put) or a delete
    is accepted. Nothing in the service itself ever does this.
    """

    tag: int
    session: int
    sequence: int
    answered: int
    handle: int
    section_id: bytes


class Due(NamedTuple):
    """Carry out what is due at the batch's stamp (expirations, retentions) -> number done."""

    tag: int
    session: int
    sequence: int
    answered: int


class Check(NamedTuple):
    """Have every replica compute the digest of its state after exactly this entry -> None."""

    tag: int
    session: int
    sequence: int
    answered: int
    nonce: bytes


class GroupJoin(NamedTuple):
    """A component joins a service group -> [member number, assignment].

    ``rank``: the smaller, the earlier it is promoted; ``response_ns``: time for an answer;
    ``health_ns``: longest time without a sign of life of the component itself, 0: not watched.
    """

    tag: int
    session: int
    sequence: int
    answered: int
    group: str
    component: str
    rank: int
    response_ns: int
    health_ns: int


class GroupLeave(NamedTuple):
    """A component leaves its group -> None; ``failed``: because it came to an end by itself."""

    tag: int
    session: int
    sequence: int
    answered: int
    group: str
    component: str
    failed: bool


class GroupRespond(NamedTuple):
    """A component answers an assignment: it carried it out, or (not ``ok``) it failed -> None."""

    tag: int
    session: int
    sequence: int
    answered: int
    group: str
    component: str
    assignment: int
    ok: bool


class GroupAdmin(NamedTuple):
    """An operator's wish about a group -> administrative state; ``operation``: groups.Operation.

    ``component``: who is to be active after a swap; None: the next in rank.
    """

    tag: int
    session: int
    sequence: int
    answered: int
    group: str
    operation: int
    component: str | None


class GroupFail(NamedTuple):
    """The leader declares components failed -> number taken out. ``session`` is 0.

    ``members``: [[member, assignment it did not answer, 0: it gave no sign of life], ...].
    """

    tag: int
    session: int
    sequence: int
    answered: int
    members: list[list[int]]


class Unknown(NamedTuple):
    """A command of a newer version: refused, the same way on every replica."""

    tag: int
    session: int
    sequence: int
    answered: int


Command: TypeAlias = (
    SessionOpen
    | SessionClose
    | SessionExpire
    | CheckpointOpen
    | CheckpointClose
    | CheckpointUnlink
    | RetentionSet
    | ActiveReplicaSet
    | SectionCreate
    | SectionDelete
    | SectionExpirationSet
    | SectionOverwrite
    | SectionPut
    | CheckpointWrite
    | StageChunk
    | SectionCorrupt
    | Due
    | Check
    | GroupJoin
    | GroupLeave
    | GroupRespond
    | GroupAdmin
    | GroupFail
    | Unknown
)

COMMANDS: Final[dict[int, type[Any]]] = {
    Tag.SESSION_OPEN: SessionOpen,
    Tag.SESSION_CLOSE: SessionClose,
    Tag.SESSION_EXPIRE: SessionExpire,
    Tag.CHECKPOINT_OPEN: CheckpointOpen,
    Tag.CHECKPOINT_CLOSE: CheckpointClose,
    Tag.CHECKPOINT_UNLINK: CheckpointUnlink,
    Tag.RETENTION_SET: RetentionSet,
    Tag.ACTIVE_REPLICA_SET: ActiveReplicaSet,
    Tag.SECTION_CREATE: SectionCreate,
    Tag.SECTION_DELETE: SectionDelete,
    Tag.SECTION_EXPIRATION_SET: SectionExpirationSet,
    Tag.SECTION_OVERWRITE: SectionOverwrite,
    Tag.SECTION_PUT: SectionPut,
    Tag.CHECKPOINT_WRITE: CheckpointWrite,
    Tag.STAGE_CHUNK: StageChunk,
    Tag.SECTION_CORRUPT: SectionCorrupt,
    Tag.DUE: Due,
    Tag.CHECK: Check,
    Tag.GROUP_JOIN: GroupJoin,
    Tag.GROUP_LEAVE: GroupLeave,
    Tag.GROUP_RESPOND: GroupRespond,
    Tag.GROUP_ADMIN: GroupAdmin,
    Tag.GROUP_FAIL: GroupFail,
}


class Batch(NamedTuple):
    """What one Raft entry carries: msgpack ``[version, now_ns, [command, ...]]``.

    ``now_ns`` is the cluster time (ns since the epoch) stamped by the proposing leader.
    """

    version: int
    now_ns: int
    commands: list[Any]


def command_from(fields: list[Any]) -> Command:
    """Make the record of a decoded array; an unknown tag or arity becomes :class:`Unknown`.

    Raises:
        ValueError: if there are not even the four leading fields.
    """
    cls = COMMANDS.get(fields[0] if fields else -1)
    if cls is not None and len(fields) == len(cls._fields):
        command: Command = cls._make(fields)
        return command
    return Unknown._make(fields[:4])

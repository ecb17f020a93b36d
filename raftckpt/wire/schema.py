"""What a client may send to a replica: one table of messages, checked strictly.

:data:`MESSAGES` describes every message a client may send; :func:`check_request` judges a decoded
message by it. The replica calls it before anything else looks at a message; the client calls it
before a request gets a sequence number, so that a malformed one never leaves a hole in a session.

Only what can be judged without state is judged here; attributes, rights, names that do not exist
are the model's to refuse. Types are exact: a bool is not an int.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

from raftckpt import limits
from raftckpt.errors import REASONS, SaAisError
from raftckpt.model.commands import Tag

__all__ = [
    "COMMAND_TAGS",
    "CONSISTENCY_LINEARIZABLE",
    "CONSISTENCY_LOCAL",
    "MESSAGES",
    "QUERY_TAGS",
    "Problem",
    "ReplyKind",
    "RequestTag",
    "Shape",
    "check_request",
]

CONSISTENCY_LINEARIZABLE: Final = 0
CONSISTENCY_LOCAL: Final = 1

Problem: TypeAlias = tuple[SaAisError, str, Any]
"""(code, reason, detail) of a refusal."""


class RequestTag(IntEnum):
    """Numbers of the messages of a client that are no commands; never re-used."""

    READ = 100
    READ_ALL = 101
    STATUS = 102
    SECTIONS = 103
    CHECKPOINTS = 104
    READ_VERSIONED = 105
    SECTION_IDS = 106
    SECTION_STATUSES = 108
    SYNCHRONIZE = 109
    TRACK = 110
    TRACK_SYNC = 111
    TRACK_STOP = 112
    TRACK_POINT = 113
    GROUPS = 115
    GROUP_STATUS = 116
    ROLES = 117
    COMPONENT_ALIVE = 118
    WITNESS = 119
    REPLICA_STATUS = 121
    TRANSFER = 122
    DIGEST = 123
    CHECK_START = 124
    HELLO = 200
    ATTACH = 201
    KEEPALIVE = 202


class ReplyKind(IntEnum):
    """First field of the messages of a replica."""

    REPLY = 0
    ACCEPTED = 1
    NOTICE = 2
    CHANGES = 3


COMMAND_TAGS: Final = frozenset(
    {1, 2, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 25, 26, 27, 50, 51, 52, 53}
)
"""Commands a client may send (the others are the replicas' own)."""

QUERY_TAGS: Final = frozenset({*range(100, 107), 108, 109, 113, 115, 116, 117})

_INT_MAX: Final = 0x7FFF_FFFF_FFFF_FFFF
_SA_TIME_MAX: Final = limits.SA_TIME_MAX
_ID_MAX: Final = limits.SECTION_ID_BYTES_MAX
_INLINE_MAX: Final = limits.INLINE_WRITE_BYTES_MAX
_OPEN_FLAGS: Final = 0x7
_B01: Final = 0x10

_Check: TypeAlias = Callable[[Any], Problem | bool]
"""True: well formed. False: malformed. A tuple: the refusal."""


class Shape(NamedTuple):
    """Fields of a message after its tag: names with their checks."""

    name: str
    fields: tuple[tuple[str, _Check], ...]


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _INT_MAX


def _optional_natural(value: Any) -> bool:
    return value is None or _natural(value)


def _time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _SA_TIME_MAX


def _optional_time(value: Any) -> bool:
    return value is None or _time(value)


def _boolean(value: Any) -> bool:
    return type(value) is bool


def _text(low: int, high: int, too_long: Problem) -> _Check:
    def check(value: Any) -> Problem | bool:
        if type(value) is not str:
            return False
        # a surrogate cannot arrive (it is not UTF-8) but a client could be given one
        size = len(value.encode("utf-8", "surrogatepass"))
        if size > high:
            return too_long
        return size >= low and (size == len(value) or not _has_surrogates(value))

    return check


def _has_surrogates(value: str) -> bool:
    return any(0xD800 <= ord(character) <= 0xDFFF for character in value)


_name = _text(
    1,
    limits.CHECKPOINT_NAME_BYTES_MAX,
    (
        SaAisError.ERR_TOO_BIG,
        "limit",
        f"a checkpoint name has 1..{limits.CHECKPOINT_NAME_BYTES_MAX} bytes",
    ),
)


def _checkpoint_name(value: Any) -> Problem | bool:
    if value == "" and type(value) is str:
        return SaAisError.ERR_INVALID_PARAM, "param", "the name of a checkpoint is not empty"
    return _name(value)


def _label(high: int) -> _Check:
    return _text(
        0, high, (SaAisError.ERR_TOO_BIG, "limit", f"a name of a session or node has <= {high} B")
    )


def _secret(value: Any) -> bool:
    return type(value) is bytes and len(value) == limits.SESSION_SECRET_BYTES


def _section_id(value: Any) -> Problem | bool:
    """Empty is the default section."""
    if type(value) is not bytes:
        return False
    if len(value) > _ID_MAX:
        return SaAisError.ERR_INVALID_PARAM, "section_id", _ID_MAX
    return True


def _new_section_id(value: Any) -> Problem | bool:
    if value is None:
        return True
    if value == b"" and type(value) is bytes:
        return SaAisError.ERR_INVALID_PARAM, "section_id", _ID_MAX
    return _section_id(value)


def _data(value: Any) -> Problem | bool:
    kind = type(value)
    if kind is bytes:
        if len(value) > _INLINE_MAX:
            return SaAisError.ERR_NO_RESOURCES, "write_too_big", _INLINE_MAX
        return True
    return kind is int and 0 < value <= _INT_MAX  # number of a stage


def _chunk(value: Any) -> Problem | bool:
    if type(value) is not bytes or not value:
        return False
    if len(value) > limits.STAGE_CHUNK_BYTES:
        return SaAisError.ERR_NO_RESOURCES, "write_too_big", limits.STAGE_CHUNK_BYTES
    return True


def _open_flags(value: Any) -> Problem | bool:
    if type(value) is not int:
        return False
    if not value & _OPEN_FLAGS or value & ~(_OPEN_FLAGS | _B01):
        return SaAisError.ERR_BAD_FLAGS, "flags", value
    return True


def _attributes(value: Any) -> bool:
    if value is None:
        return True
    return type(value) is list and len(value) == 6 and all(type(item) is int for item in value)


def _vector(value: Any) -> Problem | bool:
    if type(value) is not list:
        return False
    if not value:
        return SaAisError.ERR_INVALID_PARAM, "param", "the I/O vector is empty"
    if len(value) > limits.VECTOR_ELEMENTS_MAX:
        return (
            SaAisError.ERR_NO_RESOURCES,
            "limit",
            f"an I/O vector has 1..{limits.VECTOR_ELEMENTS_MAX} elements",
        )
    inline = 0
    for element in value:
        if type(element) is not list or len(element) != 3 or not _natural(element[1]):
            return False
        for problem in (_section_id(element[0]), _data(element[2])):
            if problem is not True:
                return problem
        if type(element[2]) is bytes:
            inline += len(element[2])
    if inline > _INLINE_MAX:
        return SaAisError.ERR_NO_RESOURCES, "write_too_big", _INLINE_MAX
    return True


def _section_ids(value: Any) -> Problem | bool:
    if type(value) is not list:
        return False
    if len(value) > limits.VECTOR_ELEMENTS_MAX:
        return (
            SaAisError.ERR_NO_RESOURCES,
            "limit",
            f"at most {limits.VECTOR_ELEMENTS_MAX} section ids",
        )
    for section_id in value:
        problem = _section_id(section_id)
        if problem is not True:
            return problem
    return True


def _read_vector(value: Any) -> Problem | bool:
    if type(value) is not list:
        return False
    if not value:
        return SaAisError.ERR_INVALID_PARAM, "param", "the I/O vector is empty"
    if len(value) > limits.VECTOR_ELEMENTS_MAX:
        return (
            SaAisError.ERR_NO_RESOURCES,
            "limit",
            f"an I/O vector has 1..{limits.VECTOR_ELEMENTS_MAX} elements",
        )
    for element in value:
        if (
            type(element) is not list
            or len(element) != 3
            or not _natural(element[1])
            or not (element[2] is None or _natural(element[2]))
        ):
            return False
        problem = _section_id(element[0])
        if problem is not True:
            return problem
    return True


def _target(value: Any) -> Problem | bool:
    return _natural(value) if type(value) is int else _checkpoint_name(value)


def _optional_target(value: Any) -> Problem | bool:
    return value is None or _target(value)


def _consistency(value: Any) -> bool:
    return type(value) is int and value in (CONSISTENCY_LINEARIZABLE, CONSISTENCY_LOCAL)


def _chosen(value: Any) -> Problem | bool:
    if type(value) is not int:
        return False
    if not 1 <= value <= 5:
        return SaAisError.ERR_INVALID_PARAM, "param", "sections chosen: 1..5"
    return True


def _versions(value: Any) -> bool:
    return type(value) is list and 0 < len(value) <= 64 and all(map(_natural, value))


def _optional_text(high: int) -> _Check:
    text = _label(high)
    return lambda value: value is None or text(value)


_group_text = _text(
    1,
    limits.GROUP_NAME_BYTES_MAX,
    (
        SaAisError.ERR_TOO_BIG,
        "limit",
        f"a name of a group or component has 1..{limits.GROUP_NAME_BYTES_MAX} bytes",
    ),
)


def _group_name(value: Any) -> Problem | bool:
    if value == "" and type(value) is str:
        return SaAisError.ERR_INVALID_PARAM, "param", "the name of a group is not empty"
    return _group_text(value)


def _optional_group_name(value: Any) -> Problem | bool:
    return value is None or _group_name(value)


def _session_time(value: Any) -> Problem | bool:
    if type(value) is not int:
        return False
    if not limits.SESSION_TIMEOUT_NS_MIN <= value <= limits.SESSION_TIMEOUT_NS_MAX:
        return (
            SaAisError.ERR_INVALID_PARAM,
            "param",
            f"session timeout: {limits.SESSION_TIMEOUT_NS_MIN}..{limits.SESSION_TIMEOUT_NS_MAX} ns",
        )
    return True


def _nonce(value: Any) -> bool:
    return type(value) is bytes and 0 < len(value) <= 64


def _positive(value: Any) -> bool:
    return type(value) is int and 0 < value <= _INT_MAX


def _zero(value: Any) -> bool:
    return type(value) is int and value == 0


_ID: Final = ("id", _natural)
_OF_SESSION: Final = (_ID, ("sequence", _positive), ("answered", _natural))
_QUERY: Final = (_ID, ("after_sequence", _natural), ("consistency", _consistency))
_HANDLE: Final = ("handle", _natural)
_GROUP: Final = ("group", _group_name)
_COMPONENT: Final = ("component", _group_name)
_TARGET: Final = ("target", _target)
_SECTION: Final = ("section_id", _section_id)
_EXPIRY: Final = (("expiration_ns", _time), ("ttl_ns", _optional_time))

MESSAGES: Final[dict[int, Shape]] = {
    Tag.SESSION_OPEN: Shape(
        "SESSION_OPEN",
        (
            _ID,
            ("sequence", _zero),
            ("answered", _zero),
            ("secret", _secret),
            ("name", _label(limits.SESSION_NAME_BYTES_MAX)),
            ("node", _label(limits.NODE_ID_BYTES_MAX)),
            ("timeout_ns", _session_time),
            ("grace_ns", _time),
        ),
    ),
    Tag.SESSION_CLOSE: Shape("SESSION_CLOSE", _OF_SESSION),
    Tag.CHECKPOINT_OPEN: Shape(
        "CHECKPOINT_OPEN",
        (
            *_OF_SESSION,
            ("name", _checkpoint_name),
            ("flags", _open_flags),
            ("attributes", _attributes),
        ),
    ),
    Tag.CHECKPOINT_CLOSE: Shape("CHECKPOINT_CLOSE", (*_OF_SESSION, _HANDLE)),
    Tag.CHECKPOINT_UNLINK: Shape("CHECKPOINT_UNLINK", (*_OF_SESSION, ("name", _checkpoint_name))),
    Tag.RETENTION_SET: Shape("RETENTION_SET", (*_OF_SESSION, _HANDLE, ("retention_ns", _time))),
    Tag.ACTIVE_REPLICA_SET: Shape(
        "ACTIVE_REPLICA_SET", (*_OF_SESSION, _HANDLE, ("exclusive", _boolean))
    ),
    Tag.SECTION_CREATE: Shape(
        "SECTION_CREATE",
        (*_OF_SESSION, _HANDLE, ("section_id", _new_section_id), ("data", _data), *_EXPIRY),
    ),
    Tag.SECTION_DELETE: Shape("SECTION_DELETE", (*_OF_SESSION, _HANDLE, _SECTION)),
    Tag.SECTION_EXPIRATION_SET: Shape(
        "SECTION_EXPIRATION_SET", (*_OF_SESSION, _HANDLE, _SECTION, *_EXPIRY)
    ),
    Tag.SECTION_OVERWRITE: Shape(
        "SECTION_OVERWRITE", (*_OF_SESSION, _HANDLE, _SECTION, ("data", _data))
    ),
    Tag.SECTION_PUT: Shape("SECTION_PUT", (*_OF_SESSION, _HANDLE, _SECTION, ("data", _data))),
    Tag.CHECKPOINT_WRITE: Shape("CHECKPOINT_WRITE", (*_OF_SESSION, _HANDLE, ("vector", _vector))),
    Tag.STAGE_CHUNK: Shape(
        "STAGE_CHUNK", (*_OF_SESSION, ("stage", _positive), ("offset", _natural), ("data", _chunk))
    ),
    Tag.SECTION_CORRUPT: Shape("SECTION_CORRUPT", (*_OF_SESSION, _HANDLE, _SECTION)),
    Tag.GROUP_JOIN: Shape(
        "GROUP_JOIN",
        (
            *_OF_SESSION,
            _GROUP,
            _COMPONENT,
            ("rank", _natural),
            ("response_ns", _time),
            ("health_ns", _time),
        ),
    ),
    Tag.GROUP_LEAVE: Shape("GROUP_LEAVE", (*_OF_SESSION, _GROUP, _COMPONENT, ("failed", _boolean))),
    Tag.GROUP_RESPOND: Shape(
        "GROUP_RESPOND",
        (*_OF_SESSION, _GROUP, _COMPONENT, ("assignment", _positive), ("ok", _boolean)),
    ),
    Tag.GROUP_ADMIN: Shape(
        "GROUP_ADMIN",
        (*_OF_SESSION, _GROUP, ("operation", _positive), ("component", _optional_group_name)),
    ),
    RequestTag.READ: Shape("READ", (*_QUERY, _TARGET, ("vector", _read_vector))),
    RequestTag.READ_ALL: Shape("READ_ALL", (*_QUERY, _TARGET)),
    RequestTag.STATUS: Shape("STATUS", (*_QUERY, _TARGET)),
    RequestTag.SECTIONS: Shape(
        "SECTIONS", (*_QUERY, _TARGET, ("chosen", _chosen), ("expiration_ns", _time))
    ),
    RequestTag.CHECKPOINTS: Shape("CHECKPOINTS", _QUERY),
    RequestTag.READ_VERSIONED: Shape("READ_VERSIONED", (*_QUERY, _TARGET, _SECTION)),
    RequestTag.SECTION_IDS: Shape("SECTION_IDS", (*_QUERY, _TARGET)),
    RequestTag.SECTION_STATUSES: Shape(
        "SECTION_STATUSES", (*_QUERY, _TARGET, ("section_ids", _section_ids))
    ),
    RequestTag.SYNCHRONIZE: Shape("SYNCHRONIZE", (*_QUERY, _TARGET)),
    RequestTag.TRACK_POINT: Shape("TRACK_POINT", (*_QUERY, ("target", _optional_target))),
    RequestTag.TRACK: Shape(
        "TRACK",
        (
            _ID,
            ("target", _target),
            ("from_revision", _optional_natural),
            ("image", _boolean),
            ("at_least", _natural),
        ),
    ),
    RequestTag.TRACK_SYNC: Shape(
        "TRACK_SYNC", (_ID, ("tracker", _natural), ("revision", _natural))
    ),
    RequestTag.TRACK_STOP: Shape("TRACK_STOP", (_ID, ("tracker", _natural))),
    RequestTag.GROUPS: Shape("GROUPS", _QUERY),
    RequestTag.GROUP_STATUS: Shape("GROUP_STATUS", (*_QUERY, _GROUP)),
    RequestTag.ROLES: Shape("ROLES", _QUERY),
    RequestTag.COMPONENT_ALIVE: Shape("COMPONENT_ALIVE", (*_QUERY, ("member", _positive))),
    RequestTag.WITNESS: Shape("WITNESS", (_ID, ("session", _positive), ("secret", _secret))),
    RequestTag.REPLICA_STATUS: Shape("REPLICA_STATUS", (_ID,)),
    RequestTag.TRANSFER: Shape(
        "TRANSFER", (_ID, ("node", _optional_text(limits.NODE_ID_BYTES_MAX)))
    ),
    RequestTag.DIGEST: Shape("DIGEST", (_ID, ("nonce", _nonce))),
    RequestTag.CHECK_START: Shape("CHECK_START", (_ID,)),
    RequestTag.HELLO: Shape(
        "HELLO",
        (
            _ID,
            ("versions", _versions),
            ("client_name", _label(limits.SESSION_NAME_BYTES_MAX)),
            ("token", _optional_text(4096)),
        ),
    ),
    RequestTag.ATTACH: Shape("ATTACH", (_ID, ("session", _positive), ("secret", _secret))),
    RequestTag.KEEPALIVE: Shape("KEEPALIVE", (_ID,)),
}


def check_request(message: Any) -> Problem | None:
    """Judge a decoded message of a client.

    Returns:
        None if it is well formed, else (code, reason of ``errors.REASONS``, detail). A refusal by
        this function leaves the sequence number of a command unused.
    """
    if type(message) is list:
        size = len(message)
        if (size == 7 and _is_small_write(message)) or (size == 6 and _is_plain_read(message)):
            return None
    return _check_by_table(message)


def _is_small_write(message: list[Any]) -> bool:
    """Recognise the messages that make up the load; only a yes counts, the table says why not."""
    tag, number, sequence, answered, handle, section_id, data = message
    return (
        (tag == 24 or tag == 23)
        and type(data) is bytes
        and type(section_id) is bytes
        and type(tag) is type(number) is type(sequence) is type(answered) is type(handle) is int
        and 0 <= number <= _INT_MAX
        and 0 < sequence <= _INT_MAX
        and 0 <= answered <= _INT_MAX
        and 0 <= handle <= _INT_MAX
        and len(section_id) <= _ID_MAX
        and len(data) <= _INLINE_MAX
    )


def _is_plain_read(message: list[Any]) -> bool:
    """Recognise a read of one element through a handle; as above."""
    tag, number, after, consistency, handle, vector = message
    if (
        tag != 100
        or type(vector) is not list
        or len(vector) != 1
        or type(vector[0]) is not list
        or len(vector[0]) != 3
    ):
        return False
    section_id, offset, size = vector[0]
    return (
        type(section_id) is bytes
        and type(tag) is type(number) is type(after) is type(handle) is type(offset) is int
        and type(consistency) is int
        and 0 <= number <= _INT_MAX
        and 0 <= after <= _INT_MAX
        and 0 <= consistency <= 1
        and 0 <= handle <= _INT_MAX
        and 0 <= offset <= _INT_MAX
        and (size is None or (type(size) is int and 0 <= size <= _INT_MAX))
        and len(section_id) <= _ID_MAX
    )


def _check_by_table(message: Any) -> Problem | None:
    if type(message) is not list or not message:
        return SaAisError.ERR_INVALID_PARAM, "schema", "a message is an array [tag, id, ...]"
    tag = message[0]
    shape = MESSAGES.get(tag) if type(tag) is int else None
    if shape is None:
        return SaAisError.ERR_INVALID_PARAM, "schema", f"unknown message {_shown(tag)}"
    fields = shape.fields
    if len(message) != len(fields) + 1:
        return (
            SaAisError.ERR_INVALID_PARAM,
            "schema",
            f"{shape.name} has {len(fields) + 1} fields, not {len(message)}",
        )
    for (name, check), value in zip(fields, message[1:], strict=True):
        verdict = check(value)
        if verdict is True:
            continue
        if type(verdict) is tuple:
            return _before_the_log(verdict) if tag in COMMAND_TAGS else verdict
        return SaAisError.ERR_INVALID_PARAM, "schema", f"{shape.name}.{name} = {_shown(value)}"
    return None


def _before_the_log(problem: Problem) -> Problem:
    """Reword the refusal of a command that never gets into the log.

    The state machine refuses with the same reasons, and then the sequence number is used; here it
    is not. The client must be able to tell: "schema" never comes from the log.
    """
    code, reason, detail = problem
    return code, "schema", REASONS[reason][1].format(detail)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, (int, bool, type(None), float)) else ""
    return text[:40] if text else f"a {type(value).__name__}"

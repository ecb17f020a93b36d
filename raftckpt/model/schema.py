"""What a well-formed command looks like: types of its fields, and limits that need no state.

The types of all fields together are one key of one dictionary, so that a single look-up checks
them and finds the handler. ``bool`` is not an ``int`` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, Final, TypeAlias

from raftckpt.errors import SaAisError
from raftckpt.limits import (
    CHECKPOINT_NAME_BYTES_MAX,
    COMPONENT_RANK_MAX,
    COMPONENT_SILENCE_NS_MAX,
    COMPONENT_SILENCE_NS_MIN,
    GROUP_NAME_BYTES_MAX,
    INLINE_WRITE_BYTES_MAX,
    NODE_ID_BYTES_MAX,
    SA_TIME_MAX,
    SECTION_ID_BYTES_MAX,
    SECTIONS_MAX,
    SESSION_NAME_BYTES_MAX,
    SESSION_SECRET_BYTES,
    SESSION_TIMEOUT_NS_MAX,
    SESSION_TIMEOUT_NS_MIN,
    VECTOR_ELEMENTS_MAX,
    WRITE_BYTES_MAX,
)
from raftckpt.model.checkpoints import B01, CREATE, READ, WRITE
from raftckpt.model.commands import COMMANDS, Tag
from raftckpt.model.groups import Operation
from raftckpt.model.types import Attributes, CreationFlags, Result, refuse

__all__ = [
    "SIGNATURES",
    "STATIC",
    "UNKNOWN",
    "attributes_of",
    "has_types",
    "invalid",
    "refuse_malformed",
    "refuse_times",
    "schema_refusal",
    "signature",
    "validate",
]

Signature: TypeAlias = tuple[Any, ...]
"""(tag, type of the tag, types of the fields ...)."""

_NONE: Final = type(None)
_INT: Final = (int,)
_STR: Final = (str,)
_BYTES: Final = (bytes,)
_LIST: Final = (list,)
_DATA: Final = (bytes, int)
_TTL: Final = (int, _NONE)
_ELEMENTS: Final = frozenset({(bytes, int, bytes), (bytes, int, int)})
_OPERATIONS: Final = len(Operation)
_ENTRY_SLACK_BYTES: Final = 4096
"""Room for ids and names beside INLINE_WRITE_BYTES_MAX of data."""

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "answered": _INT,
    "assignment": _INT,
    "attributes": (list, _NONE),
    "component": _STR,
    "data": _DATA,
    "exclusive": (bool,),
    "expiration_ns": _INT,
    "failed": (bool,),
    "flags": _INT,
    "grace_ns": _INT,
    "group": _STR,
    "handle": _INT,
    "health_ns": _INT,
    "members": _LIST,
    "name": _STR,
    "node": _STR,
    "nonce": _BYTES,
    "offset": _INT,
    "ok": (bool,),
    "operation": _INT,
    "rank": _INT,
    "response_ns": _INT,
    "retention_ns": _INT,
    "secret": _BYTES,
    "section_id": _BYTES,
    "sequence": _INT,
    "session": _INT,
    "sessions": _LIST,
    "stage": _INT,
    "tag": _INT,
    "timeout_ns": _INT,
    "ttl_ns": _TTL,
    "vector": _LIST,
}
_EXCEPTIONS: Final = {
    (Tag.SECTION_CREATE, "section_id"): (bytes, _NONE),
    (Tag.STAGE_CHUNK, "data"): _BYTES,
    (Tag.GROUP_ADMIN, "component"): (str, _NONE),
}

UNKNOWN: Final = refuse(SaAisError.ERR_NOT_SUPPORTED, "unknown")


def _kinds(tag: int) -> list[tuple[type, ...]]:
    fields = COMMANDS[tag]._fields
    return [_EXCEPTIONS.get((Tag(tag), field), _KINDS[field]) for field in fields]


def _signatures() -> Iterator[tuple[Signature, int]]:
    for tag in COMMANDS:
        for types in product(*_kinds(tag)):
            yield (int(tag), *types), int(tag)


SIGNATURES: Final[dict[Signature, int]] = dict(_signatures())
"""Every legal signature -> tag."""


def signature(command: Sequence[Any]) -> Signature:
    """Return the key of a command in :data:`SIGNATURES`.

    Raises:
        TypeError, LookupError: it is nothing that could have one.
    """
    return (command[0], *map(type, command))


def has_types(values: Any, *kinds: tuple[type, ...]) -> bool:
    """Whether ``values`` is a list of exactly these kinds (not for hot paths: 1.5 us)."""
    return (
        type(values) is list
        and len(values) == len(kinds)
        and all(type(value) in kind for value, kind in zip(values, kinds, strict=True))
    )


def schema_refusal(what: str) -> Result:
    """INVALID_PARAM: a field is not of its type."""
    return refuse(SaAisError.ERR_INVALID_PARAM, "schema", what)


def invalid(what: str, position: int | None = None) -> Result:
    """INVALID_PARAM: a parameter is outside its range."""
    return refuse(SaAisError.ERR_INVALID_PARAM, "param", what, position)


def refuse_malformed(command: Any) -> Result:
    """Say what is wrong with a command that has no legal signature."""
    if type(command) is not list or len(command) < 4:
        return schema_refusal("command")
    for name, value in zip(("tag", "session", "sequence", "answered"), command, strict=False):
        if type(value) is not int:
            return schema_refusal(name)
    record = COMMANDS.get(command[0])
    if record is None or len(record._fields) != len(command):
        return UNKNOWN
    for name, kind, value in zip(record._fields, _kinds(command[0]), command, strict=True):
        if type(value) not in kind:
            return schema_refusal(name)
    return schema_refusal("command")  # pragma: no cover - then it had a legal signature


def _utf8_size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# --- limits that need no state: in the order of the standard, before the handle is looked up -----


def _session_open(c: Sequence[Any]) -> Result | None:
    _, _, _, _, secret, name, node, timeout_ns, grace_ns = c
    if len(secret) != SESSION_SECRET_BYTES:
        return invalid("secret")
    if _utf8_size(name) > SESSION_NAME_BYTES_MAX:
        return invalid("name")
    if _utf8_size(node) > NODE_ID_BYTES_MAX:
        return invalid("node")
    if not SESSION_TIMEOUT_NS_MIN <= timeout_ns <= SESSION_TIMEOUT_NS_MAX:
        return invalid("timeout_ns")
    if not 0 <= grace_ns <= SESSION_TIMEOUT_NS_MAX:
        return invalid("grace_ns")
    return None


def _session_expire(c: Sequence[Any]) -> Result | None:
    if any(type(number) is not int for number in c[4]):
        return schema_refusal("sessions")
    return None


def _name(name: str) -> Result | None:
    """An empty name INVALID_PARAM, a long one TOO_BIG."""
    if not name:
        return invalid("name")
    if _utf8_size(name) > CHECKPOINT_NAME_BYTES_MAX:
        return refuse(SaAisError.ERR_TOO_BIG, "limit", "name")
    return None


def attributes_of(fields: list[int]) -> Attributes:
    """Make the record of a validated list of creation attributes."""
    return Attributes._make(fields)


def _attributes(fields: list[Any]) -> Result | None:
    """Exactly one update option, no unknown flag, sizes that are possible."""
    if not has_types(fields, *([_INT] * len(Attributes._fields))):
        return schema_refusal("attributes")
    flags, size, retention_ns, max_sections, max_section_size, max_section_id_size = fields
    updates = flags & ~int(CreationFlags.COLLOCATED)
    if updates not in (1, 2, 4):
        return refuse(SaAisError.ERR_INVALID_PARAM, "flags", flags)
    wrong = ""
    if not 1 <= max_sections <= SECTIONS_MAX:
        wrong = "max_sections"
    elif max_section_size < 0:
        wrong = "max_section_size"
    elif not (max_sections == 1 or max_section_id_size) or not (
        0 <= max_section_id_size <= SECTION_ID_BYTES_MAX
    ):
        wrong = "max_section_id_size"
    elif not 0 <= size <= max_sections * max_section_size:
        wrong = "size"
    elif not 0 <= retention_ns <= SA_TIME_MAX:
        wrong = "retention"
    return refuse(SaAisError.ERR_INVALID_PARAM, "attributes", wrong) if wrong else None


def _checkpoint_open(c: Sequence[Any]) -> Result | None:
    _, _, _, _, name, flags, attributes = c
    refusal = _name(name)
    if refusal is not None:
        return refusal
    if not flags & (READ | WRITE | CREATE) or flags & ~(READ | WRITE | CREATE | B01):
        return refuse(SaAisError.ERR_BAD_FLAGS, "flags", flags)
    if attributes is None:
        if flags & CREATE:
            return refuse(SaAisError.ERR_INVALID_PARAM, "attributes", "missing with CREATE")
        return None
    if not flags & CREATE:
        return refuse(SaAisError.ERR_INVALID_PARAM, "attributes", "given without CREATE")
    return _attributes(attributes)


def _checkpoint_unlink(c: Sequence[Any]) -> Result | None:
    return _name(c[4])


def _retention_set(c: Sequence[Any]) -> Result | None:
    return None if 0 <= c[5] <= SA_TIME_MAX else invalid("retention_ns")


def _times(expiration_ns: int, ttl_ns: int | None) -> Result | None:
    if not 0 <= expiration_ns <= SA_TIME_MAX:
        return invalid("expiration_ns")
    if ttl_ns is not None and ttl_ns < 0:
        return invalid("ttl_ns")
    return None


def _section_create(c: Sequence[Any]) -> Result | None:
    if type(c[6]) is not int and len(c[6]) > WRITE_BYTES_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "write_too_big", WRITE_BYTES_MAX)
    return None


def _section_delete(c: Sequence[Any]) -> Result | None:
    return None if c[5] else invalid("section_id")


def _section_expiration_set(c: Sequence[Any]) -> Result | None:
    return _times(c[6], c[7])


def _checkpoint_write(c: Sequence[Any]) -> Result | None:
    vector = c[5]
    if not vector:
        return invalid("vector")
    if len(vector) > VECTOR_ELEMENTS_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "vector elements")
    for position, element in enumerate(vector):
        if type(element) is not list or tuple(map(type, element)) not in _ELEMENTS:
            return refuse(SaAisError.ERR_INVALID_PARAM, "schema", "vector", position)
        if element[1] < 0:
            return invalid("offset", position)
    return None


def _stage_chunk(c: Sequence[Any]) -> Result | None:
    return None if len(c[6]) <= INLINE_WRITE_BYTES_MAX else invalid("data")


def _group_names(c: Sequence[Any]) -> Result | None:
    """Names of a group and a component have 1..GROUP_NAME_BYTES_MAX bytes."""
    for name, what in zip(c[4:6], ("group", "component"), strict=False):
        if type(name) is not str:
            continue
        if not name:
            return invalid(what)
        if _utf8_size(name) > GROUP_NAME_BYTES_MAX:
            return refuse(SaAisError.ERR_TOO_BIG, "limit", what)
    return None


def _group_join(c: Sequence[Any]) -> Result | None:
    refusal = _group_names(c)
    if refusal is not None:
        return refusal
    if not 0 <= c[6] <= COMPONENT_RANK_MAX:
        return invalid("rank")
    if not COMPONENT_SILENCE_NS_MIN <= c[7] <= COMPONENT_SILENCE_NS_MAX:
        return invalid("response_ns")
    if c[8] and not COMPONENT_SILENCE_NS_MIN <= c[8] <= COMPONENT_SILENCE_NS_MAX:
        return invalid("health_ns")
    return None


def _group_admin(c: Sequence[Any]) -> Result | None:
    if not 1 <= c[5] <= _OPERATIONS:
        return invalid("operation")
    return _group_names([*c[:5], c[6]])


def _group_fail(c: Sequence[Any]) -> Result | None:
    if any(not has_types(row, _INT, _INT) for row in c[4]):
        return schema_refusal("members")
    return None


STATIC: Final[dict[int, Callable[[Sequence[Any]], Result | None]]] = {
    Tag.SESSION_OPEN: _session_open,
    Tag.SESSION_EXPIRE: _session_expire,
    Tag.CHECKPOINT_OPEN: _checkpoint_open,
    Tag.CHECKPOINT_UNLINK: _checkpoint_unlink,
    Tag.RETENTION_SET: _retention_set,
    Tag.SECTION_CREATE: _section_create,
    Tag.SECTION_DELETE: _section_delete,
    Tag.SECTION_EXPIRATION_SET: _section_expiration_set,
    Tag.CHECKPOINT_WRITE: _checkpoint_write,
    Tag.STAGE_CHUNK: _stage_chunk,
    Tag.GROUP_JOIN: _group_join,
    Tag.GROUP_LEAVE: _group_names,
    Tag.GROUP_RESPOND: _group_names,
    Tag.GROUP_ADMIN: _group_admin,
    Tag.GROUP_FAIL: _group_fail,
}
"""Checks per tag; apply makes them too, so that it survives a proposer that did not."""


def refuse_times(expiration_ns: int, ttl_ns: int | None) -> Result | None:
    """INVALID_PARAM for a negative or overlong time."""
    return _times(expiration_ns, ttl_ns)


def _inline_bytes(command: Sequence[Any]) -> int:
    fields = list(command[4:])
    if command[0] == Tag.CHECKPOINT_WRITE:
        fields += [field for element in command[5] if type(element) is list for field in element]
    return sum(len(field) for field in fields if type(field) in (bytes, str))


def validate(command: Any) -> Result | None:
    """Check what must never reach the log; None if the command may be proposed.

    That is: fields of a wrong type, an unknown command, more data than one entry takes. Refusals of
    well-formed commands (an empty name, a negative time ...) are left to apply on purpose: they
    must be recorded and consume the sequence number, which a refusal before the log cannot do.
    Never raises, whatever ``command`` is.
    """
    try:
        tag = SIGNATURES.get(signature(command))
    except (TypeError, LookupError):
        tag = None
    if tag is None:
        return refuse_malformed(command)
    check = STATIC.get(tag)
    refusal = check(command) if check is not None else None
    if refusal is not None and refusal.value.reason == "schema":
        return refusal
    if _inline_bytes(command) > INLINE_WRITE_BYTES_MAX + _ENTRY_SLACK_BYTES:
        return schema_refusal("more data than one entry takes")
    return None

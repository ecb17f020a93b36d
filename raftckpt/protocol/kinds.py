"""What the fields of messages may hold: one kind for one idea, with bounds and words of refusal.

A kind is a type annotation. ``msgspec.Meta`` in it bounds what a decoder takes; :class:`Field` says
what msgspec cannot: bounds in bytes of text, sums over a list, and with which code and words a
value of the right type but out of bounds is refused. :func:`judge` derives the verdict on any
value from the annotation alone. Types are exact: a bool is no int.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from enum import IntEnum, IntFlag
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from raftckpt import limits
from raftckpt.errors import SaAisError
from raftckpt.protocol import contract

__all__ = [
    "B01",
    "CREATE",
    "READ",
    "SCHEMA",
    "WRITE",
    "After",
    "AfterName",
    "AttributeFields",
    "Chosen",
    "Chunk",
    "ComponentName",
    "Consistency",
    "Credential",
    "Data",
    "Element",
    "Field",
    "Flag",
    "Grace",
    "Grant",
    "Grants",
    "GroupName",
    "GroupOperation",
    "Handle",
    "HostPort",
    "LimitValues",
    "MaybeComponent",
    "MaybeNatural",
    "MaybeNode",
    "MaybeTarget",
    "MaybeTime",
    "MaybeTokenId",
    "MemberName",
    "Name",
    "NamePrefix",
    "Natural",
    "NewSectionId",
    "NodeName",
    "Nonce",
    "OpenFlags",
    "PageRows",
    "Part",
    "PartKind",
    "Parts",
    "Positive",
    "Prefix",
    "PrincipalName",
    "Problem",
    "QuotaValues",
    "Rank",
    "ReadVector",
    "Response",
    "Secret",
    "SectionId",
    "SectionIds",
    "SessionIds",
    "SessionName",
    "SessionTime",
    "Silence",
    "Silent",
    "Target",
    "Time",
    "TokenDigest",
    "TokenHash",
    "TokenId",
    "Vector",
    "Versions",
    "Zero",
    "fits",
    "has_types",
    "judge",
    "kind_of",
    "own_check",
]

INT_MAX: Final = 0x7FFF_FFFF_FFFF_FFFF  # of a signed integer of 64 bits, as an SaTimeT
# of SaCkptCheckpointOpenFlagsT
READ: Final = 0x1
WRITE: Final = 0x2
CREATE: Final = 0x4
B01: Final = 0x10
"""Bits of SaCkptCheckpointOpenFlagsT, and one of ours (the handle lives by version B.01)."""

SCHEMA: Final = "schema"
"""Reason of what is malformed; it never comes out of the log for a well-formed command."""

Problem: TypeAlias = tuple[SaAisError, str, Any, int | None]
"""(code, reason of ``errors.REASONS``, detail, position in a vector) of a refusal."""

_SCHEMA: Final[Problem] = (SaAisError.ERR_INVALID_PARAM, SCHEMA, None, None)


class PartKind(IntEnum):
    """What one part of a transaction does to a section."""

    CREATE = 1
    PUT = 2
    OVERWRITE = 3
    WRITE = 4
    APPEND = 5
    DELETE = 6


class Grant(IntFlag):
    """What a principal may do with what a space names."""

    READ = 0x1
    WRITE = 0x2
    CREATE = 0x4
    DROP = 0x8
    OPERATE = 0x10
    """Groups and fault injection; in the space of all names also whatever concerns the cluster."""


class Field(msgspec.Struct, frozen=True):
    """What a type cannot say about a field.

    Attributes:
        examples: values that fit, for tests of everything that is built from the table.
        code, reason, detail: refusal of a value of the right type that is out of bounds.
        check: bounds that need a computation; None: within them.
        low: refusal below the lower bound, if it is another one.
        size: expression for the bytes of ``{}`` in an entry beyond its head, "" for a number.
    """

    examples: tuple[Any, ...]
    code: SaAisError = SaAisError.ERR_INVALID_PARAM
    reason: str = SCHEMA
    detail: Any = None
    check: Callable[[Any], Problem | None] | None = None
    low: Problem | None = None
    size: str = ""

    def problem(self, value: Any) -> Problem:
        """Return the refusal of a value that is out of bounds."""
        if self.low is not None and not value:
            return self.low
        return self.code, self.reason, self.detail if self.detail is not None else value, None


# --- bounds that need a computation ----------------------------------------------------------


def _utf8_bytes(text: str) -> int:
    """Bytes of a text; a surrogate cannot arrive, but a client could be given one."""
    return len(text.encode("utf-8", "surrogatepass"))


def _text(high: int, says: str) -> Callable[[Any], Problem | None]:
    too_long: Problem = (SaAisError.ERR_TOO_BIG, "limit", says, None)

    def check(value: Any) -> Problem | None:
        if value is None or value.isascii():
            return None  # its characters are its bytes, and those were counted
        if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
            return _SCHEMA
        return too_long if _utf8_bytes(value) > high else None

    return check


def _text_kind(high: int, says: str, *examples: Any, empty: str = "") -> Field:
    return Field(
        examples,
        SaAisError.ERR_TOO_BIG,
        "limit",
        says,
        check=_text(high, says),
        size="4 * len({})",
        low=(SaAisError.ERR_INVALID_PARAM, "param", empty, None) if empty else None,
    )


def _open_flags(value: int) -> Problem | None:
    if value & (READ | WRITE | CREATE) and not value & ~(READ | WRITE | CREATE | B01):
        return None
    return SaAisError.ERR_BAD_FLAGS, "flags", value, None


def _inline(vector: list[Any]) -> Problem | None:
    """Data that travels in a vector, all of it, fits into one entry."""
    inline = sum([len(data) for _, _, data in vector if type(data) is bytes])
    if inline <= contract.INLINE_WRITE_BYTES_MAX:
        return None
    return _WRITE_TOO_BIG


def _part(part: Any) -> Problem | None:
    """What a kind of change does not look at is not given: nothing accepted is ignored."""
    kind, section_id, offset, data, if_revision, expiration_ns, ttl_ns = part
    expires = expiration_ns != contract.SA_TIME_MAX
    if kind != PartKind.CREATE and (section_id is None or ttl_ns is not None or expires):
        return _SCHEMA
    if (section_id is None and if_revision is not None) or (ttl_ns is not None and expires):
        return _SCHEMA
    if (offset and kind != PartKind.WRITE) or (data != b"" and kind == PartKind.DELETE):
        return _SCHEMA
    return None


def _identifier(says: str) -> Callable[[Any], Problem | None]:
    """Text that stands in a token, a certificate or a command line as it is."""
    wrong: Problem = (SaAisError.ERR_INVALID_PARAM, "param", says, None)
    return lambda value: None if value is None or _IDENTIFIER.fullmatch(value) else wrong


_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def _parts(parts: list[Any]) -> Problem | None:
    """Each by itself, and the data that travels in them fits into one entry."""
    wrong = next(filter(None, map(_part, parts)), None)
    return wrong or _inline([(None, None, part[3]) for part in parts])


_PART_SIZE: Final = "80 + len({0}[1] or b'') + (len({0}[3]) if type({0}[3]) is bytes else 9)"


def _target(value: int | str | None) -> Problem | None:
    return _checkpoint_name(value) if type(value) is str else None


_WRITE_TOO_BIG: Final[Problem] = (
    SaAisError.ERR_NO_RESOURCES,
    "write_too_big",
    contract.INLINE_WRITE_BYTES_MAX,
    None,
)
_NAME_SAYS: Final = f"a checkpoint name has 1..{contract.CHECKPOINT_NAME_BYTES_MAX} bytes"
_NAME_EMPTY: Final = "the name of a checkpoint is not empty"
_GROUP_SAYS: Final = f"a name of a group or component has 1..{contract.GROUP_NAME_BYTES_MAX} bytes"
_SESSION_SAYS: Final = (
    f"session timeout: {contract.SESSION_TIMEOUT_NS_MIN}..{contract.SESSION_TIMEOUT_NS_MAX} ns"
)
_VECTOR_SAYS: Final = f"an I/O vector has 1..{contract.VECTOR_ELEMENTS_MAX} elements"
_VECTOR_EMPTY: Final[Problem] = (
    SaAisError.ERR_INVALID_PARAM,
    "param",
    "the I/O vector is empty",
    None,
)
_checkpoint_name: Final = _text(contract.CHECKPOINT_NAME_BYTES_MAX, _NAME_SAYS)


def _label(high: int, *examples: Any) -> Field:
    return _text_kind(high, f"a name of a session or node has <= {high} B", *examples)


_limit_name_bytes: Final = _text(contract.LIMIT_NAME_BYTES_MAX, "a limit's name is short")


def _limit_names(values: Any) -> Problem | None:
    return next((found for name, _ in values if (found := _limit_name_bytes(name))), None)


# --- numbers -----------------------------------------------------------------------------------

Natural: TypeAlias = Annotated[int, Meta(ge=0, le=INT_MAX), Field((1, 0))]
MaybeNatural: TypeAlias = Annotated[Natural | None, Field((None, 5))]
Positive: TypeAlias = Annotated[int, Meta(ge=1, le=INT_MAX), Field((1, 7))]
Zero: TypeAlias = Annotated[int, Meta(ge=0, le=0), Field((0,))]
Handle: TypeAlias = Annotated[int, Meta(ge=0, le=INT_MAX), Field((5,))]
Time: TypeAlias = Annotated[
    int, Meta(ge=0, le=contract.SA_TIME_MAX), Field((contract.SA_TIME_MAX, 0))
]
"""Nanoseconds since 1970, or of a duration; SA_TIME_MAX is never, or for ever."""
MaybeTime: TypeAlias = Annotated[Time | None, Field((None, 10))]
Flag: TypeAlias = Annotated[bool, Field((True, False))]
Consistency: TypeAlias = Annotated[int, Meta(ge=0, le=1), Field((0, 1))]
Chosen: TypeAlias = Annotated[
    int, Meta(ge=1, le=5), Field((5,), reason="param", detail="sections chosen: 1..5")
]
OpenFlags: TypeAlias = Annotated[
    int,
    Meta(ge=-INT_MAX - 1, le=INT_MAX),
    Field((7,), SaAisError.ERR_BAD_FLAGS, "flags", check=_open_flags),
]
SessionTime: TypeAlias = Annotated[
    int,
    Meta(ge=contract.SESSION_TIMEOUT_NS_MIN, le=contract.SESSION_TIMEOUT_NS_MAX),
    Field(
        (10**10,),
        reason="param",
        detail=_SESSION_SAYS,
    ),
]
Grace: TypeAlias = Annotated[
    int,
    Meta(ge=0, le=contract.SESSION_TIMEOUT_NS_MAX),
    Field((0,), reason="param", detail="grace_ns"),
]
Rank: TypeAlias = Annotated[
    int, Meta(ge=0, le=contract.COMPONENT_RANK_MAX), Field((0,), reason="param", detail="rank")
]
_SILENCE: Final = Meta(ge=contract.COMPONENT_SILENCE_NS_MIN, le=contract.COMPONENT_SILENCE_NS_MAX)
Response: TypeAlias = Annotated[
    int, _SILENCE, Field((10**9,), reason="param", detail="response_ns")
]
Silence: TypeAlias = Annotated[
    int,
    Meta(ge=0, le=contract.COMPONENT_SILENCE_NS_MAX),
    Field(
        (0, 10**9),
        reason="param",
        detail="health_ns",
        check=lambda value: (
            None
            if not value or value >= contract.COMPONENT_SILENCE_NS_MIN
            else (SaAisError.ERR_INVALID_PARAM, "param", "health_ns", None)
        ),
    ),
]
"""0: not watched."""
GroupOperation: TypeAlias = Annotated[
    int, Meta(ge=1, le=6), Field((4,), reason="param", detail="operation")
]

# --- texts and bytes ---------------------------------------------------------------------------

Name: TypeAlias = Annotated[
    str,
    Meta(min_length=1, max_length=contract.CHECKPOINT_NAME_BYTES_MAX),
    _text_kind(contract.CHECKPOINT_NAME_BYTES_MAX, _NAME_SAYS, "name", empty=_NAME_EMPTY),
]
"""Of a checkpoint."""
_GROUP: Final = Meta(min_length=1, max_length=contract.GROUP_NAME_BYTES_MAX)
GroupName: TypeAlias = Annotated[
    str,
    _GROUP,
    _text_kind(
        contract.GROUP_NAME_BYTES_MAX,
        _GROUP_SAYS,
        "group",
        empty="the name of a group is not empty",
    ),
]
ComponentName: TypeAlias = Annotated[
    str,
    _GROUP,
    _text_kind(
        contract.GROUP_NAME_BYTES_MAX,
        _GROUP_SAYS,
        "component",
        empty="the name of a group is not empty",
    ),
]
MaybeComponent: TypeAlias = Annotated[
    ComponentName | None, Field((None, "component"), size="4 * len({} or '')")
]
SessionName: TypeAlias = Annotated[
    str,
    Meta(max_length=contract.SESSION_NAME_BYTES_MAX),
    _label(contract.SESSION_NAME_BYTES_MAX, "client", ""),
]
NodeName: TypeAlias = Annotated[
    str, Meta(max_length=contract.NODE_ID_BYTES_MAX), _label(contract.NODE_ID_BYTES_MAX, "n1", "")
]
MaybeNode: TypeAlias = Annotated[NodeName | None, Field((None, "n2"), size="4 * len({} or '')")]
_MEMBER: Final = Meta(min_length=1, max_length=contract.NODE_ID_BYTES_MAX)
MemberName: TypeAlias = Annotated[str, _MEMBER, _label(contract.NODE_ID_BYTES_MAX, "n4")]
HostPort: TypeAlias = Annotated[
    str,
    Meta(min_length=1, max_length=limits.ADDRESS_BYTES_MAX),
    _label(limits.ADDRESS_BYTES_MAX, "127.0.0.1:7404"),
]
TokenHash: TypeAlias = Annotated[
    str, Meta(min_length=64, max_length=64), _label(64, hashlib.sha256(b"token").hexdigest())
]
_PRINCIPAL_SAYS: Final = (
    f"a principal has 1..{contract.PRINCIPAL_NAME_BYTES_MAX} letters, digits, '.', '_', '-', "
    "the first a letter or digit"
)
PrincipalName: TypeAlias = Annotated[
    str,
    Meta(min_length=1, max_length=contract.PRINCIPAL_NAME_BYTES_MAX),
    Field(
        ("billing",),
        reason="param",
        detail=_PRINCIPAL_SAYS,
        check=_identifier(_PRINCIPAL_SAYS),
        size="len({})",
    ),
]
_TOKEN_ID_SAYS: Final = f"the id of a token has 1..{contract.TOKEN_ID_BYTES_MAX} letters or digits"
TokenId: TypeAlias = Annotated[
    str,
    Meta(min_length=1, max_length=contract.TOKEN_ID_BYTES_MAX),
    Field(
        ("4f1c",),
        reason="param",
        detail=_TOKEN_ID_SAYS,
        check=_identifier(_TOKEN_ID_SAYS),
        size="len({})",
    ),
]
MaybeTokenId: TypeAlias = Annotated[
    TokenId | None, Field(("4f1c", None), check=_identifier(_TOKEN_ID_SAYS), size="len({} or '')")
]
_DIGEST_BYTES: Final = 32  # of SHA-256
TokenDigest: TypeAlias = Annotated[
    bytes,
    Meta(max_length=_DIGEST_BYTES),
    Field(
        (hashlib.sha256(b"token").digest(), b""),
        check=lambda value: None if len(value) in (0, _DIGEST_BYTES) else _SCHEMA,
        size="len({})",
    ),
]
"""SHA-256 of a token; empty without one."""
Grants: TypeAlias = Annotated[
    int,
    Meta(ge=1, le=sum(Grant)),
    Field((1, 3), reason="param", detail="rights: read 1, write 2, create 4, drop 8, operate 16"),
]
Credential: TypeAlias = Annotated[
    Annotated[str, Meta(max_length=limits.TOKEN_BYTES_MAX), _label(limits.TOKEN_BYTES_MAX, "t")]
    | None,
    Field((None,)),
]
Secret: TypeAlias = Annotated[
    bytes,
    Meta(min_length=contract.SESSION_SECRET_BYTES, max_length=contract.SESSION_SECRET_BYTES),
    Field((b"s" * contract.SESSION_SECRET_BYTES,), size="len({})"),
]
Nonce: TypeAlias = Annotated[
    bytes, Meta(min_length=1, max_length=64), Field((b"nonce",), size="len({})")
]
SectionId: TypeAlias = Annotated[
    bytes,
    Meta(max_length=contract.SECTION_ID_BYTES_MAX),
    Field((b"id", b""), reason="section_id", detail=contract.SECTION_ID_BYTES_MAX, size="len({})"),
]
"""Empty: the default section."""
_NamedId: TypeAlias = Annotated[
    bytes,
    Meta(min_length=1, max_length=contract.SECTION_ID_BYTES_MAX),
    Field((b"id",), reason="section_id", detail=contract.SECTION_ID_BYTES_MAX),
]
NewSectionId: TypeAlias = Annotated[_NamedId | None, Field((b"id", None), size="len({} or b'')")]
"""None: the service chooses one."""
_InlineData: TypeAlias = Annotated[
    bytes,
    Meta(max_length=contract.INLINE_WRITE_BYTES_MAX),
    Field(
        (b"data",), SaAisError.ERR_NO_RESOURCES, "write_too_big", contract.INLINE_WRITE_BYTES_MAX
    ),
]
Data: TypeAlias = Annotated[
    _InlineData | Positive, Field((b"data", 9), size="(len({0}) if type({0}) is bytes else 9)")
]
"""Bytes, or the number of a stage whose chunks were logged before."""
Chunk: TypeAlias = Annotated[
    bytes,
    Meta(min_length=1, max_length=contract.STAGE_CHUNK_BYTES),
    Field(
        (b"chunk",),
        SaAisError.ERR_NO_RESOURCES,
        "write_too_big",
        contract.STAGE_CHUNK_BYTES,
        low=_SCHEMA,
        size="len({})",
    ),
]
Target: TypeAlias = Annotated[
    Natural
    | Annotated[
        str,
        Meta(min_length=1, max_length=contract.CHECKPOINT_NAME_BYTES_MAX),
        _text_kind(contract.CHECKPOINT_NAME_BYTES_MAX, _NAME_SAYS, "name", empty=_NAME_EMPTY),
    ],
    Field((5, "name"), check=_target),
]
"""A handle of the attached session, or the name of a checkpoint."""
MaybeTarget: TypeAlias = Annotated[Target | None, Field((None, 5, "name"))]

# --- lists -------------------------------------------------------------------------------------

AttributeFields: TypeAlias = Annotated[
    tuple[int, int, int, int, int, int] | None, Field(((1, 4, 0, 2, 2, 4), None), size="60")
]
"""[flags, size, retention_ns, max_sections, max_section_size, max_section_id_size]."""
Element: TypeAlias = tuple[SectionId, Natural, Data]
"""(section id, offset, data)."""
Vector: TypeAlias = Annotated[
    list[Element],
    Meta(min_length=1, max_length=contract.VECTOR_ELEMENTS_MAX),
    Field(
        ([(b"id", 0, b"data")], [(b"id", 0, b"data"), (b"", 7, 3)]),
        SaAisError.ERR_NO_RESOURCES,
        "limit",
        _VECTOR_SAYS,
        check=_inline,
        low=_VECTOR_EMPTY,
        size="sum([24 + len(i) + (len(d) if type(d) is bytes else 9) for i, _, d in {}])",
    ),
]
ReadVector: TypeAlias = Annotated[
    list[tuple[SectionId, Natural, MaybeNatural]],
    Meta(min_length=1, max_length=contract.VECTOR_ELEMENTS_MAX),
    Field(
        ([(b"id", 0, None)], [(b"id", 0, None), (b"id", 1, 2)]),
        SaAisError.ERR_NO_RESOURCES,
        "limit",
        _VECTOR_SAYS,
        low=_VECTOR_EMPTY,
    ),
]
"""(section id, offset, size or None: to its end)."""
SectionIds: TypeAlias = Annotated[
    list[SectionId],
    Meta(max_length=contract.VECTOR_ELEMENTS_MAX),
    Field(
        ([b"id", b""], []),
        SaAisError.ERR_NO_RESOURCES,
        "limit",
        f"at most {contract.VECTOR_ELEMENTS_MAX} section ids",
    ),
]
Part: TypeAlias = Annotated[
    tuple[
        Annotated[int, Meta(ge=1, le=len(PartKind)), Field((5,))],
        Annotated[SectionId | None, Field((b"id",))],
        Natural,
        Data,
        MaybeNatural,
        Time,
        MaybeTime,
    ],
    Field(
        (
            (5, b"id", 0, b"data", None, contract.SA_TIME_MAX, None),
            (2, b"id", 0, 9, 7, contract.SA_TIME_MAX, None),
        ),
        size=_PART_SIZE.format("{0}"),
        check=_part,
    ),
]
"""(kind, section id, offset, data, revision the section must have or None, expiration, ttl)."""
Parts: TypeAlias = Annotated[
    list[Part],
    Meta(min_length=1, max_length=contract.VECTOR_ELEMENTS_MAX),
    Field(
        (
            [(6, b"id", 0, b"", 7, contract.SA_TIME_MAX, None)],
            [
                (1, None, 0, b"data", None, contract.SA_TIME_MAX, 10),
                (4, b"id", 3, 9, 0, contract.SA_TIME_MAX, None),
            ],
        ),
        SaAisError.ERR_NO_RESOURCES,
        "limit",
        f"a transaction has 1..{contract.VECTOR_ELEMENTS_MAX} parts",
        check=_parts,
        low=(SaAisError.ERR_INVALID_PARAM, "param", "the transaction is empty", None),
        size=f"sum([{_PART_SIZE.format('p')} for p in {{}}])",
    ),
]
Prefix: TypeAlias = Annotated[
    bytes, Meta(max_length=contract.SECTION_ID_BYTES_MAX), Field((b"", b"user:"))
]
After: TypeAlias = Annotated[Prefix | None, Field((None, b"user:7"))]
"""Id behind which a page begins."""
NamePrefix: TypeAlias = Annotated[
    str,
    Meta(max_length=contract.CHECKPOINT_NAME_BYTES_MAX),
    _text_kind(contract.CHECKPOINT_NAME_BYTES_MAX, _NAME_SAYS, "", "app/"),
]
AfterName: TypeAlias = Annotated[NamePrefix | None, Field((None, "app/x"))]
PageRows: TypeAlias = Annotated[
    int,
    Meta(ge=1, le=limits.PAGE_ROWS_MAX),
    Field((100,), reason="param", detail=f"a page has 1..{limits.PAGE_ROWS_MAX} rows"),
]
_NamedValues: TypeAlias = Annotated[
    list[
        tuple[
            Annotated[
                str,
                Meta(min_length=1, max_length=contract.LIMIT_NAME_BYTES_MAX),
                _label(contract.LIMIT_NAME_BYTES_MAX, "memory"),
            ],
            Natural,
        ]
    ],
    Meta(min_length=1, max_length=contract.LIMITS_PER_CHANGE_MAX),
]


def _named_values(says: str, *examples: Any) -> Field:
    return Field(
        examples,
        reason="param",
        detail=f"1..{contract.LIMITS_PER_CHANGE_MAX} {says} are set at once",
        check=_limit_names,
        size="sum([20 + 4 * len(n) for n, _ in {}])",
    )


LimitValues: TypeAlias = Annotated[
    _NamedValues, _named_values("limits", [("memory", 1 << 30)], [("high", 90), ("low", 80)])
]
"""(name of a limit, its value)."""
QuotaValues: TypeAlias = Annotated[
    _NamedValues,
    _named_values("quotas", [("bytes", 1 << 30)], [("checkpoints", 5), ("sections", 0)]),
]
"""(name of a quota, the most it allows; 0: it is taken away)."""
Versions: TypeAlias = Annotated[list[Natural], Meta(min_length=1, max_length=64), Field(([1],))]
SessionIds: TypeAlias = Annotated[
    list[Natural], Meta(max_length=contract.SESSIONS_MAX), Field(([1, 2],), size="10 * len({})")
]
Silent: TypeAlias = Annotated[
    list[tuple[Natural, Natural]],
    Meta(max_length=contract.GROUPS_MAX * contract.COMPONENTS_PER_GROUP_MAX),
    Field(([(1, 2), (1, 0)],), size="20 * len({})"),
]
"""(member, assignment it did not answer; 0: it gave no sign of life)."""


# --- the verdict -------------------------------------------------------------------------------


def kind_of(annotation: Any) -> Field:
    """Return the :class:`Field` of a field's annotation (the outermost)."""
    for item in reversed(getattr(annotation, "__metadata__", ())):
        if isinstance(item, Field):
            return item
    return Field(())


def own_check(annotation: Any) -> Callable[[Any], Problem | None] | None:
    """Return what a decoder by this annotation leaves to be checked, None if nothing."""
    checks = [item.check for item in _kinds(annotation) if item.check is not None]
    return checks[0] if checks else None


def _kinds(annotation: Any) -> list[Field]:
    """The kinds of an annotation and of the members of its unions, outermost first."""
    found = [item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Field)]
    found.reverse()
    base = get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
    if get_origin(base) in (Union, UnionType):
        for member in get_args(base):
            found += _kinds(member)
    return found


def judge(annotation: Any, value: Any) -> Problem | bool:
    """Judge any value by an annotation.

    Returns:
        True: it fits. False: it is malformed. Else the refusal of what is out of bounds.
    """
    base = annotation
    metadata: list[Any] = []
    if hasattr(annotation, "__metadata__"):
        base, *metadata = get_args(annotation)
    origin = get_origin(base)
    if origin in (Union, UnionType):
        verdict = _judge_union(get_args(base), value)
    elif origin in (list, tuple):
        verdict = type(value) is list or (origin is tuple and type(value) is tuple)
    else:
        verdict = type(value) is (NoneType if base is None else base)
    if verdict is not True:
        return verdict
    kind = kind_of(annotation)
    if not all(_within(item, value) for item in metadata if isinstance(item, Meta)):
        return _spoken(kind.problem(value))
    if origin is list:
        verdict = _first(judge(get_args(base)[0], item) for item in value)
    elif origin is tuple:
        verdict = len(value) == len(get_args(base)) and _first(map(judge, get_args(base), value))
    if verdict is not True or kind.check is None:
        return verdict
    problem = kind.check(value)
    return True if problem is None else _spoken(problem)


def fits(annotation: Any, value: Any) -> bool:
    """Whether a value is of a kind and within its bounds."""
    return judge(annotation, value) is True


def has_types(values: Any, *types: tuple[type, ...]) -> bool:
    """Whether ``values`` is a list of exactly these types (not for hot paths: 1.5 us)."""
    return (
        type(values) is list
        and len(values) == len(types)
        and all(type(value) in wanted for value, wanted in zip(values, types, strict=True))
    )


def _spoken(problem: Problem) -> Problem | bool:
    return False if problem[1] == SCHEMA else problem


def _judge_union(members: tuple[Any, ...], value: Any) -> Problem | bool:
    verdicts = [judge(member, value) for member in members]
    if True in verdicts:
        return True
    return next((verdict for verdict in verdicts if verdict is not False), False)


def _first(verdicts: Iterable[Problem | bool]) -> Problem | bool:
    """The first verdict that is no yes."""
    return next((verdict for verdict in verdicts if verdict is not True), True)


def _within(meta: Meta, value: Any) -> bool:
    if meta.ge is not None and value < meta.ge:
        return False
    if meta.le is not None and value > meta.le:
        return False
    if meta.min_length is not None and len(value) < meta.min_length:
        return False
    return meta.max_length is None or len(value) <= meta.max_length

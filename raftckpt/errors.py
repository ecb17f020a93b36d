"""The error tree: one class per SA Forum code, and whether the thing happened.

Every error is *definite* (it did not happen: retry freely) or *indefinite* (it may have happened).
A refusal by the state machine is the pair ``(code, reason)``; the reason is a word of
:data:`REASONS`, so that the replicated state never contains prose.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, TypeVar

__all__ = [
    "REASONS",
    "Access",
    "BadFlags",
    "BadHandle",
    "BadOperation",
    "CheckpointError",
    "Exist",
    "Fenced",
    "InvalidParam",
    "InvariantViolation",
    "Library",
    "NoActiveReplica",
    "NoMemory",
    "NoResources",
    "NoSections",
    "NoSpace",
    "NotExist",
    "NotSupported",
    "SaAisError",
    "SectionNotExist",
    "SessionLost",
    "Timeout",
    "TooBig",
    "TryAgain",
    "Unavailable",
    "VersionMismatch",
    "ensure",
    "error_for",
    "present",
]

_T = TypeVar("_T")


class SaAisError(IntEnum):
    """SaAisErrorT of AIS B.02 (the values are part of the standard's ABI)."""

    OK = 1
    ERR_LIBRARY = 2
    ERR_VERSION = 3
    ERR_INIT = 4
    ERR_TIMEOUT = 5
    ERR_TRY_AGAIN = 6
    ERR_INVALID_PARAM = 7
    ERR_NO_MEMORY = 8
    ERR_BAD_HANDLE = 9
    ERR_BUSY = 10
    ERR_ACCESS = 11
    ERR_NOT_EXIST = 12
    ERR_NAME_TOO_LONG = 13
    ERR_EXIST = 14
    ERR_NO_SPACE = 15
    ERR_INTERRUPT = 16
    ERR_NAME_NOT_FOUND = 17
    ERR_NO_RESOURCES = 18
    ERR_NOT_SUPPORTED = 19
    ERR_BAD_OPERATION = 20
    ERR_FAILED_OPERATION = 21
    ERR_MESSAGE_ERROR = 22
    ERR_QUEUE_FULL = 23
    ERR_QUEUE_NOT_AVAILABLE = 24
    ERR_BAD_FLAGS = 25
    ERR_TOO_BIG = 26
    ERR_NO_SECTIONS = 27
    ERR_NO_OP = 28
    ERR_REPAIR_PENDING = 29
    ERR_NO_BINDINGS = 30
    ERR_UNAVAILABLE = 31


class InvariantViolation(AssertionError):
    """Something we believe is false: our bug. The process must stop, not limp on."""


def ensure(condition: object, message: str) -> None:
    """Stop on a broken belief; unlike ``assert`` it survives ``python -O``.

    Raises:
        InvariantViolation: if ``condition`` is false.
    """
    if not condition:
        raise InvariantViolation(message)


def present(value: _T | None, message: str) -> _T:
    """Return a value that is believed to be there.

    Raises:
        InvariantViolation: it is None.
    """
    if value is None:
        raise InvariantViolation(message)
    return value


class CheckpointError(Exception):
    """Base of every error the product raises to its users.

    Attributes:
        code: the SA Forum code.
        definite: True if the operation certainly did not happen.
        reason: the word of :data:`REASONS` that says why ("" if none).
        index: index of the offending I/O vector element, if any (erroneousVectorIndex).
        detail: names, sizes or fields that belong to the reason.
    """

    code: SaAisError = SaAisError.ERR_LIBRARY

    def __init__(
        self,
        message: str = "",
        *,
        definite: bool = True,
        reason: str = "",
        index: int | None = None,
        detail: Any = None,
    ) -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        self.definite = definite
        self.reason = reason
        self.index = index
        self.detail = detail

    def __str__(self) -> str:  # KeyError would print a repr
        return self.message


_E = TypeVar("_E", bound=type[CheckpointError])
_BY_CODE: dict[SaAisError, type[CheckpointError]] = {}


def _code(code: SaAisError) -> Callable[[_E], _E]:
    def register(cls: _E) -> _E:
        cls.code = code
        _BY_CODE[code] = cls
        return cls

    return register


@_code(SaAisError.ERR_LIBRARY)
class Library(CheckpointError):
    """An unexpected problem inside the library or the replica."""


@_code(SaAisError.ERR_VERSION)
class VersionMismatch(CheckpointError):
    """The other side speaks no version of the protocol that this side speaks."""


@_code(SaAisError.ERR_TIMEOUT)
class Timeout(CheckpointError, TimeoutError):
    """The deadline passed; the operation may or may not have happened."""

    def __init__(self, message: str = "", *, definite: bool = False, **rest: Any) -> None:
        super().__init__(message, definite=definite, **rest)


@_code(SaAisError.ERR_TRY_AGAIN)
class TryAgain(CheckpointError):
    """The service cannot do it now; nothing was done."""


@_code(SaAisError.ERR_INVALID_PARAM)
class InvalidParam(CheckpointError, ValueError):
    """A parameter is not valid."""


@_code(SaAisError.ERR_NO_MEMORY)
class NoMemory(CheckpointError):
    """Out of memory."""


@_code(SaAisError.ERR_BAD_HANDLE)
class BadHandle(CheckpointError):
    """The handle is closed or was never valid."""


class SessionLost(BadHandle):
    """The session with the cluster ended; its handles are closed."""


@_code(SaAisError.ERR_ACCESS)
class Access(CheckpointError, PermissionError):
    """The handle or the identity lacks the right."""


class Fenced(Access):
    """Another session owns this checkpoint exclusively (fencing epoch)."""


@_code(SaAisError.ERR_NOT_EXIST)
class NotExist(CheckpointError, LookupError):
    """The checkpoint, section or active replica named does not exist."""


class SectionNotExist(NotExist, KeyError):
    """The section does not exist in the checkpoint."""


class NoActiveReplica(NotExist):
    """The checkpoint has no active replica: call active_replica_set() on the node that writes."""


@_code(SaAisError.ERR_EXIST)
class Exist(CheckpointError):
    """It exists already (or with other creation attributes)."""


@_code(SaAisError.ERR_NO_SPACE)
class NoSpace(CheckpointError):
    """A checkpoint or space holds all that it may, or the memory for data is used up."""


@_code(SaAisError.ERR_NO_RESOURCES)
class NoResources(CheckpointError):
    """A limit of the service is reached."""


@_code(SaAisError.ERR_NOT_SUPPORTED)
class NotSupported(CheckpointError):
    """This version of the service does not support it."""


@_code(SaAisError.ERR_BAD_OPERATION)
class BadOperation(CheckpointError):
    """The operation is not allowed on this checkpoint."""


class Conflict(BadOperation):
    """The section does not have the revision that ``if_revision`` asked for: nothing was done.

    Attributes:
        section: id of the section.
        revision: what it has; 0: it does not exist.
    """

    section: bytes | None = None

    @property
    def revision(self) -> int:
        """Revision that was found; 0: there is no such section."""
        return self.detail if type(self.detail) is int else 0


@_code(SaAisError.ERR_BAD_FLAGS)
class BadFlags(CheckpointError, ValueError):
    """The open flags are not valid."""


@_code(SaAisError.ERR_TOO_BIG)
class TooBig(CheckpointError):
    """A name or value is larger than the service allows."""


@_code(SaAisError.ERR_NO_SECTIONS)
class NoSections(CheckpointError):
    """No further section matches."""


@_code(SaAisError.ERR_UNAVAILABLE)
class Unavailable(CheckpointError, ConnectionError):
    """No replica could be reached, or none that can serve."""


REASONS: Final[dict[str, tuple[type[CheckpointError] | None, str]]] = {
    # reason: (more specific class than the code's, text; {0} is the detail)
    "change": (None, "the members do not change: {0}"),
    "not_local": (
        None,
        "members, levels and rights are changed over loopback or TLS only while rights are off",
    ),
    "level": (None, "the cluster is not at level {0} yet, which this operation needs"),
    "checkpoint_missing": (None, "no checkpoint of this name exists"),
    "checkpoint_destroyed": (None, "the checkpoint no longer exists"),
    "attributes_differ": (None, "the checkpoint exists with other creation attributes: {0}"),
    "section_missing": (SectionNotExist, "section {0} does not exist"),
    "section_exists": (None, "section {0} exists already"),
    "default_section": (None, "the default section cannot be created, deleted or expired"),
    "sections_full": (None, "the checkpoint holds its maximum of {0} sections"),
    "checkpoint_full": (None, "the checkpoint has a quota of {0} bytes (its size)"),
    "space_quota": (None, "the space {0[2]!r} has a quota of {0[1]} {0[0]}"),
    "memory": (
        None,
        "the cluster has a limit of {0} bytes for data, and is near it: delete some, let it "
        "expire, or raise the limit (raftckpt cluster limits)",
    ),
    "section_too_big": (None, "more than max_section_size ({0} bytes)"),
    "section_id": (None, "a section id has 1..{0} bytes (max_section_id_size)"),
    "offset": (None, "the offset lies beyond the end of the section ({0} bytes)"),
    "write_too_big": (None, "more than {0} bytes in one write"),
    "entry_too_big": (None, "with its ids the write has more than {0} bytes; split it"),
    "no_active": (
        NoActiveReplica,
        "the checkpoint has no active replica; remedy: "
        "active_replica_set() by the session that writes",
    ),
    "no_right": (None, "the handle was not opened for {0}"),
    "fenced": (Fenced, "another session took over exclusively (fencing epoch {0})"),
    "deposed": (
        Fenced,
        "a component of this session was taken out of service and has not answered that it knows",
    ),
    "handle": (None, "the handle is closed or was never valid"),
    "session": (SessionLost, "the session ended"),
    "secret": (None, "the session's secret does not match"),
    "token": (None, "rights are off here, and tokens are not looked at: connect without one"),
    "credentials": (
        None,
        "nobody is known by what was shown: it needs a token of this cluster that has not ended, "
        "or a certificate of one of its principals",
    ),
    "not_granted": (None, "the right to {0} is not granted to this principal here"),
    "revoked": (None, "the right was revoked"),
    "access_changed": (None, "the rights were changed meanwhile: they have revision {0} now"),
    "no_operator": (
        None,
        "rights are switched on only when a principal with a working credential may operate the "
        "cluster: nobody could switch them off again",
    ),
    "last_operator": (None, "nobody else could operate the cluster"),
    "principal_exists": (None, "there is a principal {0} already"),
    "principal_missing": (None, "there is no principal {0}"),
    "token_exists": (None, "there is a token of id {0} already"),
    "space_exists": (None, "there is a space {0!r} already"),
    "space_missing": (None, "there is no space {0!r}"),
    "space_of_all": (None, "the space of all names cannot be deleted"),
    "unlinked": (None, "the checkpoint is unlinked"),
    "flags": (None, "the open or creation flags are not valid: {0}"),
    "attributes": (None, "the creation attributes are not valid: {0}"),
    "param": (None, "a parameter is not valid: {0}"),
    "conflict": (
        Conflict,
        "the section has revision {0}, not the one asked for (0: there is none)",
    ),
    "corrupted": (None, "section {0} is corrupted; overwrite or delete it"),
    "time_past": (None, "the time lies in the past"),
    "synchronous": (None, "the checkpoint is synchronous: there is nothing to wait for"),
    "not_collocated": (None, "the checkpoint is not collocated and asynchronous"),
    "group_missing": (None, "no service group {0} exists"),
    "group_locked": (None, "the service group {0} is not unlocked"),
    "group_in_use": (None, "the service group still has {0} components"),
    "component_missing": (None, "this session has no component {0} in the service group"),
    "component_joined": (None, "component {0} has joined the service group already"),
    "component_exists": (None, "another session has a component {0} in the service group"),
    "assignment_old": (None, "another assignment took the place of this one (now {0})"),
    "assignment_answered": (None, "assignment {0} was answered before"),
    "handing_over": (None, "the service group {0} has no active component that could hand over"),
    "no_standby": (None, "no such component of service group {0} is ready to take over"),
    "ending": (None, "the cluster took the client for dead, and the session may be over soon"),
    "gap": (None, "an earlier request of this session has not arrived yet"),
    "answered": (None, "the request was answered before and its reply is forgotten"),
    "window": (None, "too many unanswered requests in this session"),
    "limit": (None, "a limit of the service is reached: {0}"),
    "stage": (None, "the staged chunks are missing or incomplete"),
    "unknown": (None, "the command belongs to a newer version of the service"),
    "not_leader": (None, "this replica does not lead; the leader is {0}"),
    "busy": (None, "the replica is overloaded"),
    "full": (None, "there is no memory for more data, or no disk: delete some, or let it expire"),
    "leadership_lost": (None, "leadership was lost before the outcome was known"),
    "transfer": (None, "leadership was not handed over: {0}"),
    "digest": (None, "the digest is not known here, or not computed yet"),
    "version": (None, "this replica speaks only the protocol versions {0}"),
    "behind": (None, "this replica is behind: it has applied revision {0}"),
    "tracker": (None, "there is no tracker {0} on this connection"),
    "copy": (None, "no copy {0} of the state is being read on this connection, or not this piece"),
    "stopping": (None, "the replica is stopping"),
    "schema": (None, "the request is malformed: {0}"),
}


def error_for(
    code: int,
    reason: str = "",
    detail: Any = None,
    *,
    definite: bool = True,
    index: int | None = None,
    message: str = "",
) -> CheckpointError:
    """Build the exception for a refusal as it travelled over the wire.

    Arguments:
        code: SA Forum code; an unknown one becomes :class:`Library`.
        reason: word of :data:`REASONS`, may be unknown to this version.
        detail: what the reason's text refers to.
        definite: whether the operation certainly did not happen.
        index: offending I/O vector element.
        message: overrides the text of the reason.
    """
    try:
        cls = _BY_CODE.get(SaAisError(code), Library)
    except ValueError:
        cls = Library
    special, text = REASONS.get(reason, (None, ""))
    try:
        text = text.format(detail)
    except (LookupError, TypeError):  # the detail is not what this version knows it as
        text = ""
    if special is not None and issubclass(special, cls):
        cls = special
    return cls(
        message or text or reason,
        definite=definite,
        reason=reason,
        index=index,
        detail=detail,
    )

"""What clients asked and saw: the records that are judged, and how they are written down.

A client writes a line before it sends an operation and a line when it knows the outcome, so that
what a killed client had asked is known. Times are of the machine's monotonic clock, which all
processes share. Contents are named by tag and size and made by :func:`payload`; what a read saw is
kept as bytes while it is short, else as a digest.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = [
    "ABSENT",
    "DIRECTORY",
    "Asked",
    "Content",
    "ContentDigest",
    "Kind",
    "Operation",
    "Outcome",
    "Recorder",
    "SectionPart",
    "load",
    "payload",
    "seen_of",
    "show",
]

DIRECTORY: Final = 0
"""Unit of the operations on names: its sections are the names, their contents the uids."""

_SHORT_BYTES: Final = 64
"""Above it a digest (32 bytes and a length) stands for the content; shorter ones are better to
read."""


class Kind(StrEnum):
    """What was asked."""

    PUT = "put"
    OVERWRITE = "overwrite"
    WRITE = "write"
    CREATE = "create"
    DELETE = "delete"
    EXPIRATION = "set_expiration"
    APPEND = "append"
    TRANSACTION = "transaction"
    FENCE = "active_replica_set"
    OPEN = "open"
    UNLINK = "unlink"
    READ = "read"
    READ_ALL = "read_all"

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self in (Kind.READ, Kind.READ_ALL)


class Outcome(StrEnum):
    """What became of it."""

    OK = "ok"
    REFUSED = "refused"
    """It did not happen and never will."""
    UNKNOWN = "unknown"
    """It may have happened, or may still: nobody was told."""


class _Absent:
    """There is no such section."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()


class ContentDigest(NamedTuple):
    """Stands for a content that was too long to keep."""

    size: int
    hash: str

    @classmethod
    def of(cls, data: bytes) -> ContentDigest:
        """Make the digest of a content."""
        return cls(len(data), hashlib.blake2b(data, digest_size=12).hexdigest())

    def __repr__(self) -> str:
        return f"{self.size} bytes #{self.hash[:8]}"


Content: TypeAlias = bytes | ContentDigest | _Absent


class SectionPart(NamedTuple):
    """A section an operation is about: the data to be written, or what was seen.

    Attributes:
        section: its id.
        offset: where the data is to be written.
        data: that, or what was seen.
        kind: of a part of a transaction: what it does.
        revision: of a change: what the section must have had (0: it must not have been there);
            of a read: what it had. None: that did not matter, or was not told.
    """

    section: str
    offset: int = 0
    data: Content = b""
    kind: Kind | None = None
    revision: int | None = None


class Asked(NamedTuple):
    """A part of a change as it is written down: its content by name."""

    section: str
    offset: int = 0
    tag: str = ""
    size: int = 0
    kind: Kind | None = None
    revision: int | None = None

    @property
    def data(self) -> bytes:
        """The content."""
        return payload(self.tag, self.size)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one session.

    Attributes:
        session: who asked.
        number: counts the operations of the history; names it in reports.
        kind: what was asked.
        unit: uid of the checkpoint's generation, or :data:`DIRECTORY`.
        parts: of a change: what is written where; of a read that succeeded: what was seen.
        invoked: when it was asked, ns.
        returned: when the outcome was told, None: never.
        outcome: what became of it.
        revision: of the change, or of the state that was read; None: not told.
        accepted: when an asynchronous write was accepted.
        reason: of a refusal.
        index: element of a vector, or part of a transaction, that was refused.
        ttl_ns: life that was asked for the section.
        value: of a FENCE: the epoch; of an OPEN: whether it created; of a refused condition: the
            revision that was found.
        results: what was told about each part of an APPEND or a TRANSACTION: offsets of appends.
        replica: of a local read: which incarnation of which replica answered. Empty: linearizable.
    """

    session: str
    number: int
    kind: Kind
    unit: int
    parts: tuple[SectionPart, ...] = ()
    invoked: int = 0
    returned: int | None = None
    outcome: Outcome = Outcome.OK
    revision: int | None = None
    accepted: int | None = None
    reason: str = ""
    index: int | None = None
    ttl_ns: int | None = None
    value: int | None = None
    results: tuple[int | None, ...] = ()
    replica: str = ""

    @property
    def changes(self) -> bool:
        """Whether it is a change that took a revision."""
        if self.outcome is not Outcome.OK or self.kind.reads:
            return False
        return self.kind is not Kind.OPEN or bool(self.value)

    @property
    def possible(self) -> bool:
        """Whether it is a change that may or may not have happened."""
        return self.outcome is Outcome.UNKNOWN and not self.kind.reads


def payload(tag: str, size: int) -> bytes:
    """Make the content called ``tag`` of ``size`` bytes."""
    unit = f"{tag}|".encode("ascii")
    return (unit * (size // len(unit) + 1))[:size]


def seen_of(data: bytes) -> bytes | ContentDigest:
    """Return what a history keeps of a content that was read."""
    return data if len(data) <= _SHORT_BYTES else ContentDigest.of(data)


def show(content: Content) -> str:
    """Describe a content in a few characters."""
    if isinstance(content, bytes):
        if len(content) > _SHORT_BYTES:
            start = content[:24].decode("ascii", "replace")
            return f"{start!r}... ({len(content)} bytes)"
        return repr(content.decode("ascii", "replace"))
    return repr(content)


# --- on disk -------------------------------------------------------------------------------


class Recorder:
    """Appends to a history file; a line is with the kernel before the method returns."""

    def __init__(self, path: str | Path) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  (lives as long as the client)
        self._next = 0
        self._lock = threading.Lock()  # local reads are made in a thread

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def begin(
        self,
        session: str,
        kind: Kind,
        unit: int,
        parts: Iterable[Asked],
        now: int,
        **more: Any,
    ) -> int:
        """Note that an operation is about to be sent."""
        with self._lock:
            self._next += 1
            number = self._next
        self._line([number, session, kind.value, unit, list(map(_plain, parts)), now, more])
        return number

    def accept(self, number: int, now: int) -> None:
        """Note that an asynchronous write was accepted."""
        self._line([-number, now, "accepted", {}])

    def end(self, number: int, outcome: Outcome, now: int, **more: Any) -> None:
        """Note the outcome: revision, reason, index, value, results, unit, seen."""
        self._line([-number, now, outcome.value, more])

    def _line(self, fields: list[Any]) -> None:
        self._file.write(json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n")


def _plain(part: Asked) -> list[Any]:
    """A part without what most have not."""
    return list(part if any(each is not None for each in part[4:]) else part[:4])


def load(paths: Iterable[Path]) -> list[Operation]:
    """Read history files; the numbers of the operations are made unique over all of them."""
    operations: list[Operation] = []
    for path in paths:
        begun: dict[int, list[Any]] = {}
        ended: dict[int, list[Any]] = {}
        accepted: dict[int, int] = {}
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                continue  # the client died in the middle of it: it had not sent anything yet
            fields = json.loads(line)
            if fields[0] > 0:
                begun[fields[0]] = fields
            elif fields[2] == "accepted":
                accepted[-fields[0]] = fields[1]
            else:
                ended[-fields[0]] = fields
        operations += [
            _operation(len(operations) + at, fields, ended.get(number), accepted.get(number))
            for at, (number, fields) in enumerate(begun.items())
        ]
    return operations


def _operation(
    number: int, begun: list[Any], ended: list[Any] | None, accepted: int | None
) -> Operation:
    _, session, kind, unit, parts, invoked, first = begun
    returned, outcome, last = ended[1:] if ended is not None else (None, "unknown", {})
    more: Mapping[str, Any] = {**first, **last}
    seen = more.get("seen")
    return Operation(
        session=session,
        number=number,
        kind=Kind(kind),
        unit=more.get("unit", unit),
        parts=tuple(_asked(*part) for part in parts)
        if seen is None
        else tuple(
            SectionPart(section, 0, _seen(content), None, *revision)
            for section, content, *revision in seen
        ),
        invoked=invoked,
        returned=None if outcome == "unknown" else returned,
        outcome=Outcome(outcome),
        revision=more.get("revision"),
        accepted=accepted,
        reason=more.get("reason", ""),
        index=more.get("index"),
        ttl_ns=more.get("ttl_ns"),
        value=more.get("value"),
        results=tuple(more.get("results", ())),
        replica=more.get("replica", ""),
    )


def _asked(
    section: str,
    offset: int,
    tag: str,
    size: int,
    kind: str | None = None,
    revision: int | None = None,
) -> SectionPart:
    return SectionPart(section, offset, payload(tag, size), Kind(kind) if kind else None, revision)


def _seen(content: Any) -> Content:
    if content is None:
        return ABSENT
    if isinstance(content, str):
        return content.encode("latin-1")
    return ContentDigest(*content)

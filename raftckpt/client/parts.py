"""Changes under a condition, appends and transactions: arguments in, a call out.

They are never accepted early: in every update mode they answer after they were applied, behind all
earlier writes of the session.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

from raftckpt.client.calls import Call, Stage
from raftckpt.client.operations import (
    MESSAGE_BYTES_MAX,
    Opened,
    data_of,
    expiry_of,
    first_of,
    natural_of,
    on_checkpoint,
    section_id_of,
    stage,
)
from raftckpt.errors import BadOperation, InvalidParam, NoResources
from raftckpt.protocol import operations as ops
from raftckpt.protocol.contract import (
    INLINE_WRITE_BYTES_MAX,
    SA_TIME_MAX,
    VECTOR_ELEMENTS_MAX,
    WRITE_BYTES_MAX,
)
from raftckpt.protocol.kinds import PartKind

__all__ = ["Appended", "Parts", "appended", "change", "new_part"]

_DATA: Final = 3  # place of the data in a part on the wire
# Of a part on the wire, beside its id and its data: more than it ever is
_OVERHEAD_BYTES: Final = 96


class Appended(NamedTuple):
    """Where an append went, and the revision it made."""

    offset: int
    revision: int


def new_part(
    kind: PartKind,
    section_id: bytes | str | None,
    data: Any = b"",
    *,
    offset: int = 0,
    if_revision: int | None = None,
    expires: float | datetime | None = None,
    ttl: float | None = None,
) -> list[Any]:
    """Build one part, as it travels.

    Raises:
        InvalidParam, NoResources: an argument is not valid.
    """
    chosen = section_id is None and kind == PartKind.CREATE
    key = None if chosen else section_id_of(section_id)  # type: ignore[arg-type]
    if kind == PartKind.CREATE and key == b"":
        raise InvalidParam("a section id has at least one byte", reason="section_id")
    return [
        int(kind),
        key,
        natural_of(offset, "an offset"),
        data_of(data),
        None if if_revision is None else natural_of(if_revision, "if_revision"),
        *(expiry_of(expires, ttl, "expires") if kind == PartKind.CREATE else (SA_TIME_MAX, None)),
    ]


def change(
    name: str, opened: Opened, part: list[Any], decode: Callable[[Any], Any] = first_of
) -> Call:
    """Build one change under a condition, or an append -> revision."""
    return _call(name, opened, ops.SectionChange(0, 0, 0, opened.handle, part), [part], decode)  # type: ignore[arg-type]


def appended(value: Any) -> Appended:
    """Decode the success of an append."""
    revision, offset = value
    return Appended(offset, revision)


def _call(
    name: str,
    opened: Opened,
    message: Any,
    parts: list[list[Any]],
    decode: Callable[[Any], Any],
) -> Call:
    inline = sum(len(part[_DATA]) for part in parts)
    beside = sum(_OVERHEAD_BYTES + len(part[1] or b"") for part in parts)
    inline_max = min(INLINE_WRITE_BYTES_MAX, MESSAGE_BYTES_MAX - beside)
    stages: list[Stage] = []
    for part in sorted(parts, key=lambda part: -len(part[_DATA])):
        if inline <= inline_max or not part[_DATA]:
            break
        inline -= len(part[_DATA])
        stages.append(Stage(part[_DATA], partial(part.__setitem__, _DATA)))
        part[_DATA] = 0
    if inline > inline_max:
        raise NoResources("the ids of the transaction are too many bytes", reason="limit")
    call = on_checkpoint(name, opened, message, inline + beside)
    call.decode = decode
    if stages:
        stage(call, stages)
    return call


class Parts:
    """The changes of a transaction, collected and not sent yet.

    Conditions (``if_revision``: the revision the section has, 0: it does not exist) are judged by
    the state before the transaction, each part by what the parts before it made of that.

    Attributes:
        revision: of the transaction, when it is committed.
        results: what each part returned: the id of a ``create`` without one, the offset of an
            ``append``, else None; when it is committed.
    """

    def __init__(self) -> None:
        self.revision: int | None = None
        self.results: list[Any] = []
        self._parts: list[list[Any]] = []
        self._bytes = 0
        self._over = False

    def __len__(self) -> int:
        return len(self._parts)

    def create(
        self,
        id: bytes | str | None = None,
        data: Any = b"",
        *,
        expires: float | datetime | None = None,
        ttl: float | None = None,
    ) -> None:
        """Create a section; ``expires`` or ``ttl`` in seconds, as :meth:`Checkpoint.create`."""
        self._add(new_part(PartKind.CREATE, id, data, expires=expires, ttl=ttl))

    def put(self, id: bytes | str, data: Any, *, if_revision: int | None = None) -> None:
        """Replace the content of a section; create the section if it is missing."""
        self._add(new_part(PartKind.PUT, id, data, if_revision=if_revision))

    def overwrite(self, id: bytes | str, data: Any, *, if_revision: int | None = None) -> None:
        """Replace the content of a section that exists."""
        self._add(new_part(PartKind.OVERWRITE, id, data, if_revision=if_revision))

    def write(
        self, id: bytes | str, data: Any, offset: int = 0, *, if_revision: int | None = None
    ) -> None:
        """Write into a section at ``offset``."""
        self._add(new_part(PartKind.WRITE, id, data, offset=offset, if_revision=if_revision))

    def append(self, id: bytes | str, data: Any, *, if_revision: int | None = None) -> None:
        """Write at the end of a section; create the section if it is missing."""
        self._add(new_part(PartKind.APPEND, id, data, if_revision=if_revision))

    def delete(self, id: bytes | str, *, if_revision: int | None = None) -> None:
        """Delete a section."""
        self._add(new_part(PartKind.DELETE, id, if_revision=if_revision))

    def _add(self, part: list[Any]) -> None:
        if self._over:
            raise BadOperation("the transaction is over: begin another one")
        size = self._bytes + len(part[_DATA])
        if len(self._parts) == VECTOR_ELEMENTS_MAX or size > WRITE_BYTES_MAX:
            raise NoResources(
                f"a transaction has at most {VECTOR_ELEMENTS_MAX} parts and {WRITE_BYTES_MAX} "
                "bytes of data",
                reason="limit",
                detail="a transaction",
            )
        self._bytes = size
        self._parts.append(part)

    def _call(self, opened: Opened) -> Call:
        """Build the command of all parts."""
        parts = self._parts
        message = ops.CheckpointTransaction(0, 0, 0, opened.handle, parts)  # type: ignore[arg-type]
        return _call("transaction", opened, message, parts, self._committed)

    def _committed(self, value: Any) -> int:
        revision, results = value
        self.revision, self.results = revision, results
        return int(revision)

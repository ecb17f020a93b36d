"""From bytes to checked messages, in one step; and what is wrong with those that are none.

Everything that a client sends, and everything that stands in the log, is decoded by the types of
:mod:`raftckpt.protocol.operations`: what comes out is within its bounds. Only if that fails is
every message looked at alone, and a malformed one becomes a :class:`Malformed` that says what to
refuse it with. Nothing here accepts maps or extension types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgpack
import msgspec
from msgspec import Meta, Struct, ValidationError

from raftckpt import limits
from raftckpt.errors import REASONS, SaAisError
from raftckpt.protocol.frames import FrameError, no_extension, no_map, payload_of
from raftckpt.protocol.kinds import SCHEMA, Problem, judge, own_check
from raftckpt.protocol.operations import LOGGED, OPERATIONS, REQUESTS, OperationSpec, Route, union

__all__ = [
    "Malformed",
    "Reader",
    "array_of",
    "command_reader",
    "decode_plain",
    "read_requests",
    "request_reader",
    "shown",
]

_Check: TypeAlias = Callable[[Any], Problem | None]


class Malformed(Struct, frozen=True):
    """What came in the place of a message.

    Attributes:
        content: as it was decoded.
        problem: what to refuse it with.
    """

    content: Any
    problem: Problem


def decode_plain(payload: bytes | memoryview, array_max: int = -1) -> Any:
    """Decode msgpack from outside without knowing what it should be: no maps, no extensions.

    Raises:
        ValueError: anything is wrong with it.
    """
    try:
        return msgpack.unpackb(
            payload,
            raw=False,
            use_list=True,
            max_array_len=array_max if array_max >= 0 else len(payload),
            max_map_len=0,
            max_ext_len=0,
            object_pairs_hook=no_map,
            ext_hook=no_extension,
        )
    except ValueError:
        raise
    except Exception as error:  # msgpack raises what the bytes provoke
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _checks(record: type[Any]) -> tuple[tuple[str, _Check], ...]:
    checks = ((name, own_check(hint)) for name, hint in OPERATIONS[record].fields.items())
    return tuple((name, found) for name, found in checks if found is not None)


_OWN: Final = {record: checks for record in OPERATIONS if (checks := _checks(record))}
"""By record: what the decoder leaves to be checked."""
_AS_THEY_ARE: Final = (bytes, bytearray, memoryview)
"""Else a text would be taken for bytes in base64."""
_LEADING: Final = ("tag", "session", "sequence", "answered")
_NAMED: Final = frozenset((SCHEMA, "param", "limit"))
"""Reasons whose detail is the field, in the log."""
_UNKNOWN: Final[Problem] = (SaAisError.ERR_NOT_SUPPORTED, "unknown", None, None)


class Reader:
    """Turns decoded or encoded arrays into records of some operations.

    Arguments:
        records: what may come.
        logged: whether it comes from the log. There an unknown command is one of a newer version,
            and a refusal is recorded under the command's number. What is refused before the log
            leaves its number unused: its reason is "schema", which tells the client so.
    """

    def __init__(self, records: frozenset[type[Any]], *, logged: bool) -> None:
        self.union = union(records)
        self._by_tag: dict[Any, OperationSpec] = {
            row.tag: row for record, row in OPERATIONS.items() if record in records
        }
        self._logged = logged
        self._checked = frozenset(record for record in records if record in _OWN)
        several: Any = list.__class_getitem__(self.union)
        self._decode = msgspec.msgpack.Decoder(
            Annotated[several, Meta(max_length=limits.MESSAGES_PER_FRAME_MAX)]
        ).decode

    def decode(self, payload: bytes | memoryview) -> list[Any]:
        """Decode an array of messages; what is malformed is a :class:`Malformed` in its place.

        Raises:
            ValueError: it is no msgpack array, or one with too many items.
        """
        try:
            messages: list[Any] = self._decode(payload)
        except msgspec.MsgspecError:
            plain = decode_plain(payload, limits.MESSAGES_PER_FRAME_MAX)
            if type(plain) is not list:
                raise ValueError("an array of messages was expected") from None
            return [self.record(fields) for fields in plain]
        return self.checked(messages)

    def checked(self, messages: list[Any]) -> list[Any]:
        """Check what the decoder could not, in place."""
        if not self._checked.isdisjoint(map(type, messages)):
            for position, message in enumerate(messages):
                if type(message) in self._checked:
                    messages[position] = self._own(message, message)
        return messages

    def record(self, fields: Any) -> Any:
        """Make the record of one decoded array, or a :class:`Malformed`."""
        try:
            return self._own(
                msgspec.convert(fields, self.union, builtin_types=_AS_THEY_ARE), fields
            )
        except (ValidationError, UnicodeError):  # a surrogate, which cannot arrive but be given
            return Malformed(fields, self._problem(fields))

    def _own(self, message: Any, fields: Any) -> Any:
        row = OPERATIONS[type(message)]
        for name, own in _OWN.get(row.record, ()):
            problem = own(getattr(message, name))
            if problem is not None:
                content = fields if fields is not message else array_of(message)
                return Malformed(content, self._refusal(row, name, getattr(message, name), problem))
        return message

    def _refusal(
        self, row: OperationSpec, name: str, value: Any, verdict: Problem | Literal[False]
    ) -> Problem:
        """Word the verdict on a field. What the log remembers of it is short."""
        code, reason, detail, position = verdict or _schema(name)
        if self._logged:
            return code, reason, name if reason in _NAMED else detail, position
        if reason == SCHEMA:
            return _schema(f"{row.name}.{name} = {shown(value)}")
        if row.route is Route.SESSION:
            return code, SCHEMA, REASONS[reason][1].format(detail), position
        return code, reason, detail, position

    def _unknown(self, fields: list[Any]) -> Problem:
        """A command of a newer version, if it has at least the leading fields of one."""
        if len(fields) < len(_LEADING):
            return _schema("command")
        for name, value in zip(_LEADING, fields, strict=False):
            if type(value) is not int:
                return _schema(name)
        return _UNKNOWN

    def _problem(self, fields: Any) -> Problem:
        """Say what is wrong with what is no record."""
        if type(fields) is not list or not fields:
            return _schema("command" if self._logged else "a message is an array [tag, id, ...]")
        tag = fields[0]
        row = self._by_tag.get(tag) if type(tag) is int else None
        names = row.record.__struct_fields__ if row is not None else ()
        if row is None or len(fields) != len(names) + 1:
            if self._logged:
                return self._unknown(fields)
            if row is None:
                return _schema(f"unknown message {shown(tag)}")
            return _schema(f"{row.name} has {len(names) + 1} fields, not {len(fields)}")
        hints = _hints(row.record)
        for name, value in zip(names, fields[1:], strict=True):
            verdict = judge(hints[name], value)
            if verdict is not True:
                return self._refusal(row, name, value, verdict)
        return _schema(f"{row.name} is malformed")


def _hints(record: type[Any]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(record)}


def array_of(message: Any) -> list[Any]:
    """Return the array that a record is on the wire."""
    return [OPERATIONS[type(message)].tag, *msgspec.structs.astuple(message)]


def _schema(what: str) -> Problem:
    return SaAisError.ERR_INVALID_PARAM, SCHEMA, what, None


def shown(value: Any) -> str:
    """A value in a few words, whatever it is."""
    text = repr(value) if isinstance(value, (int, bool, type(None), float)) else ""
    return text[:40] if text else f"a {type(value).__name__}"


request_reader: Final = Reader(REQUESTS, logged=False)
"""Of what a client sends."""
command_reader: Final = Reader(LOGGED, logged=True)
"""Of what stands in the log."""


def read_requests(body: bytes) -> list[Any]:
    """Decode the body of a client's frame into records, or :class:`Malformed` in their place.

    Raises:
        FrameError: first byte, msgpack or the number of messages is wrong.
    """
    try:
        messages = request_reader.decode(payload_of(body))
    except FrameError:
        raise
    except ValueError as error:
        raise FrameError(f"not msgpack: {error}") from None
    if not messages:
        raise FrameError("a frame body carries an array of at least one message")
    return messages

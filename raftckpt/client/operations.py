"""The operations, once for both faces: arguments in, a call out, its reply decoded.

Arguments are checked here, before a command can get a number: what this module builds, the schema
of the wire accepts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

from raftckpt import limits
from raftckpt.client.calls import Call, Needs, Stage
from raftckpt.client.types import (
    Attributes,
    CheckpointStatus,
    ClusterLimits,
    Image,
    Lately,
    SectionStatus,
    duration_ns,
    time_ns,
)
from raftckpt.errors import BadFlags, InvalidParam, Library, NoResources, TooBig
from raftckpt.model.types import Chosen, OpenFlags
from raftckpt.protocol import contract
from raftckpt.protocol import operations as ops
from raftckpt.protocol.operations import Query
from raftckpt.protocol.snapshotfile import FileHead

__all__ = [
    "MESSAGE_BYTES_MAX",
    "Opened",
    "active_replica_set",
    "add_member",
    "check_start",
    "checkpoint_page",
    "checkpoints",
    "clear_alarms",
    "close_checkpoint",
    "close_session",
    "corrupt_section",
    "count",
    "create",
    "data_of",
    "decoded",
    "delete",
    "drain_member",
    "expiry_of",
    "first_of",
    "lately",
    "limits_now",
    "may_synchronize",
    "named",
    "natural_of",
    "on_checkpoint",
    "open_checkpoint",
    "open_raw",
    "overwrite",
    "pin_level",
    "put",
    "read",
    "read_all",
    "read_many",
    "read_versioned",
    "ready",
    "remove_member",
    "revision_now",
    "section_id_of",
    "section_id_page",
    "section_ids",
    "section_page",
    "section_statuses",
    "sections",
    "set_expiration",
    "set_limits",
    "set_retention",
    "snapshot_begin",
    "snapshot_piece",
    "stage",
    "status",
    "synchronize",
    "transfer",
    "unlink",
    "write",
    "write_many",
]

_COMMAND: Final = Needs.COMMAND
_INLINE_MAX: Final = contract.INLINE_WRITE_BYTES_MAX
_ID_MAX: Final = contract.SECTION_ID_BYTES_MAX
MESSAGE_BYTES_MAX: Final = limits.ENTRY_PAYLOAD_BYTES_MAX + 128 * limits.KIB
"""Most bytes of a command beside its stages: more does not fit into an entry."""
_MODES: Final[dict[str, int]] = {
    "r": int(OpenFlags.READ),
    "w": int(OpenFlags.WRITE),
    "rw": int(OpenFlags.READ | OpenFlags.WRITE),
}
_CHOSEN: Final[dict[str, int]] = {
    "forever": Chosen.FOREVER,
    "expiring_by": Chosen.LEQ_EXPIRATION_TIME,
    "expiring_from": Chosen.GEQ_EXPIRATION_TIME,
    "corrupted": Chosen.CORRUPTED,
    "any": Chosen.ANY,
}
_JOIN_TOKEN_MIN: Final = 8
"""Characters: what a person types without a look at it, and nobody guesses in the minutes that a
place is open. The word ``rejoin`` has fewer."""
_JOIN_TOKEN: Final = re.compile(f"(?!-)[!-~]{{{_JOIN_TOKEN_MIN},{limits.ADDRESS_BYTES_MAX}}}")
_CONSISTENCIES: Final[dict[str, int]] = {"linearizable": 0, "local": 1}


class Opened(NamedTuple):
    """An open checkpoint, as the faces keep it."""

    handle: int
    """0: it is only named."""
    name: str
    uid: int
    created: bool
    attributes: Attributes
    revision: int

    @property
    def asynchronous(self) -> bool:
        """Whether writes return before they are committed."""
        return self.attributes.update != "all"


# --- arguments -----------------------------------------------------------------------------


def section_id_of(value: bytes | str) -> bytes:
    """Return a section id as bytes; text is taken as UTF-8.

    Raises:
        InvalidParam: it is too long, or neither bytes nor text.
    """
    if type(value) is not bytes:
        if isinstance(value, str):
            value = _utf8(value, "a section id")
        elif isinstance(value, (bytes, bytearray, memoryview)):
            value = bytes(value)
        else:
            raise InvalidParam(f"a section id is bytes or str, not {type(value).__name__}")
    if len(value) > _ID_MAX:
        raise InvalidParam(f"a section id has at most {_ID_MAX} bytes", reason="section_id")
    return value


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidParam(f"{what} has characters that are none: {text!r}") from None


def data_of(value: Any, index: int | None = None) -> bytes:
    """Return data as bytes.

    Raises:
        InvalidParam: it is nothing of that kind.
        NoResources: it is more than one write takes.
    """
    if type(value) is not bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise InvalidParam(f"data is bytes, not {type(value).__name__}", index=index)
        value = bytes(value)
    if len(value) > contract.WRITE_BYTES_MAX:
        raise NoResources(
            f"more than {contract.WRITE_BYTES_MAX} bytes in one write",
            reason="write_too_big",
            detail=contract.WRITE_BYTES_MAX,
            index=index,
        )
    data: bytes = value
    return data


def natural_of(value: Any, what: str, index: int | None = None) -> int:
    """Check a number that is not negative.

    Raises:
        InvalidParam: it is none.
    """
    if type(value) is not int or not 0 <= value <= contract.SA_TIME_MAX:
        raise InvalidParam(f"{what} is an int >= 0, not {value!r}", index=index)
    return value


def _consistency(value: str) -> int:
    try:
        return _CONSISTENCIES[value]
    except (KeyError, TypeError):
        raise InvalidParam(f'consistency is "linearizable" or "local", not {value!r}') from None


def checkpoint_name_of(name: str | bytes) -> str:
    """Return the name of a checkpoint as text; bytes are taken as UTF-8.

    Raises:
        InvalidParam: it is empty or no text.
        TooBig: it is too long.
    """
    try:
        if isinstance(name, bytes):
            name = name.decode("utf-8")
        size = len(name.encode("utf-8"))
    except (UnicodeError, AttributeError):
        raise InvalidParam(f"the name of a checkpoint is text, not {name!r}") from None
    if not name:
        raise InvalidParam("the name of a checkpoint is not empty", reason="param")
    if size > contract.CHECKPOINT_NAME_BYTES_MAX:
        raise TooBig(
            f"the name of a checkpoint has at most {contract.CHECKPOINT_NAME_BYTES_MAX} bytes"
        )
    return name


def expiry_of(
    expires: float | datetime | None, ttl: float | None, what: str
) -> tuple[int, int | None]:
    """Return (expiration, ttl) in nanoseconds, as they travel.

    Raises:
        InvalidParam: both are given, or one is no time.
    """
    if ttl is not None:
        if expires is not None:
            raise InvalidParam(f"give {what} or ttl, not both")
        return contract.SA_TIME_MAX, duration_ns(ttl, "ttl")
    return time_ns(expires, what), None


# --- decoders ------------------------------------------------------------------------------


def _nothing(value: Any) -> None:
    return None


def first_of(value: Any) -> Any:
    """Decode a success whose first item is what the user gets."""
    return value[0]


def _second(value: Any) -> Any:
    return value[1]


def _only_data(value: Any) -> bytes:
    data: bytes = value[1][0]
    return data


def _data_and_revision(value: Any) -> tuple[bytes, int]:
    return value[1], value[0]


def _image(value: Any) -> Image:
    return Image(value[1], revision=value[0])


def _checkpoint_status(value: Any) -> CheckpointStatus:
    return CheckpointStatus.from_wire(value[1])


def _checkpoint_statuses(value: Any) -> list[CheckpointStatus]:
    return [CheckpointStatus.from_wire(item) for item in value[1]]


def _section_statuses(value: Any) -> list[SectionStatus]:
    return [SectionStatus.from_wire(item) for item in value[1]]


def _section_count(value: Any) -> int:
    return CheckpointStatus.from_wire(value[1]).sections


def decoded(call: Call) -> Any:
    """Return the user's result of a call that is done.

    Raises:
        CheckpointError: the call failed, or the reply makes no sense (:class:`Library`).
    """
    if call.error is not None:
        raise call.error
    if call.decode is None or call.accepted:
        return call.value
    try:
        return call.decode(call.value)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise Library(
            f"{call.what}: the replica's reply cannot be understood ({error!r}); it may have "
            "happened",
            definite=call.needs is not _COMMAND,
        ) from error


# --- service -------------------------------------------------------------------------------


def ready() -> Call:
    """Build the call that is done when the session is attached."""
    return Call("connect", Needs.ATTACHED, None)


def open_checkpoint(name: str | bytes, create: Attributes | None, mode: str) -> Call:
    """Build saCkptCheckpointOpen."""
    text = checkpoint_name_of(name)
    flags = _MODES.get(mode)
    if flags is None:
        raise BadFlags(f'mode is "r", "w" or "rw", not {mode!r}')
    attributes = None
    if create is not None:
        if not isinstance(create, Attributes):
            raise InvalidParam(f"create is Attributes(...) or None, not {create!r}")
        attributes = create.to_wire()
        flags |= OpenFlags.CREATE
    return open_raw(text, int(flags), attributes)


def open_raw(text: str, flags: int, attributes: list[int] | None) -> Call:
    """Build saCkptCheckpointOpen of a checked name, flags and attributes as they travel."""

    def decode(value: Any) -> Opened:
        handle, uid, created, fields, revision = value
        return Opened(handle, text, uid, created, Attributes.from_wire(fields), revision)

    message = ops.CheckpointOpen(0, 0, 0, text, flags, attributes)  # type: ignore[arg-type]
    bytes_ = 4 * len(text) + 128
    return Call("open", _COMMAND, message, subject=text, decode=decode, bytes_=bytes_)


def named(name: str | bytes) -> Opened:
    """Stand for a checkpoint that is only named: its queries need neither an open nor a session."""
    return Opened(0, checkpoint_name_of(name), 0, False, Attributes(), 0)


def unlink(name: str | bytes) -> Call:
    """Build saCkptCheckpointUnlink -> revision."""
    text = checkpoint_name_of(name)
    message = ops.CheckpointUnlink(0, 0, 0, text)
    return Call("unlink", _COMMAND, message, subject=text, bytes_=4 * len(text) + 64)


def checkpoints(consistency: str) -> Call:
    """Build the listing of all checkpoints."""
    message = ops.Checkpoints(0, 0, _consistency(consistency))
    return Call("list checkpoints", Needs.LEADER, message, decode=_checkpoint_statuses)


def close_session() -> Call:
    """Build the goodbye."""
    return Call("close", _COMMAND, ops.SessionClose(0, 0, 0))


def synchronize(opened: Opened | None) -> Call:
    """Build the wait for everything this session wrote -> revision."""
    if opened is None:
        return Call("close", Needs.BARRIER, None, handle=-1)
    return Call(
        "synchronize",
        Needs.BARRIER,
        None,
        subject=opened.name,
        handle=opened.handle,
        written=opened.asynchronous,
    )


def transfer(node: str | None) -> Call:
    """Build the hand-over of leadership."""
    if node is not None and (
        type(node) is not str or len(_utf8(node, "a node id")) > contract.NODE_ID_BYTES_MAX
    ):
        raise InvalidParam(f"a node id has at most {contract.NODE_ID_BYTES_MAX} bytes: {node!r}")
    message = ops.Transfer(0, node)
    return Call("transfer leadership", Needs.LEADER_ONCE, message, decode=_nothing)


def join_token(text: str) -> str:
    """Return what a new member is to show, as it is.

    Raises:
        InvalidParam: it cannot be typed after ``serve --join``, or is soon guessed.
    """
    if not _JOIN_TOKEN.fullmatch(text):
        raise InvalidParam(
            f"a token has {_JOIN_TOKEN_MIN} to {limits.ADDRESS_BYTES_MAX} visible ASCII characters "
            'and does not begin with "-", as an option does'
        )
    return text


def add_member(
    node: str, peer: str, client: str, token: str, learner: bool, replaces: str | None
) -> Call:
    """Build the place for a new member."""
    digest = hashlib.sha256(join_token(token).encode()).hexdigest()
    message = ops.MemberAdd(0, node, peer, client, digest, not learner, replaces)
    return Call("add a member", Needs.LEADER, message, decode=_nothing)


def remove_member(node: str) -> Call:
    """Build the end of a membership."""
    return Call("remove a member", Needs.LEADER, ops.MemberRemove(0, node), decode=_nothing)


def drain_member(node: str, drained: bool) -> Call:
    """Build what has a member lead no more, or again."""
    message = ops.MemberDrain(0, node, drained)
    return Call("drain a member", Needs.LEADER, message, decode=_nothing)


def lately() -> Call:
    """Build a question for what whichever replica answers saw of late."""
    return Call("what happened of late", Needs.ANY, ops.LatelyRequest(0), decode=Lately.from_wire)


def pin_level(pinned: bool) -> Call:
    """Build the pin of the level."""
    return Call("pin the level", Needs.LEADER, ops.LevelPin(0, pinned), decode=_nothing)


def limits_now(consistency: str) -> Call:
    """Build the question for the limits of the state -> ClusterLimits."""
    message = ops.LimitsRequest(0, 0, _consistency(consistency))
    return Call("limits", Needs.LEADER, message, decode=ClusterLimits.from_wire)


def set_limits(values: Mapping[str, int]) -> Call:
    """Build a change of limits of the state."""
    rows = []
    for name, value in values.items():
        if type(value) is not int or not 0 <= value <= contract.SA_TIME_MAX:
            raise InvalidParam(f"the limit {name} is a number >= 0, not {value!r}")
        if len(_utf8(name, "the name of a limit")) > contract.LIMIT_NAME_BYTES_MAX:
            raise InvalidParam(f"there is no limit {name!r}")
        rows.append((name, value))
    if not rows:
        raise InvalidParam("name the limits that are to be set")
    return Call("set limits", Needs.LEADER, ops.LimitsChange(0, rows), decode=_nothing)


def clear_alarms() -> Call:
    """Build the end of an alarm of whichever replica answers."""
    return Call("clear alarms", Needs.ANY, ops.AlarmClear(0), decode=_nothing)


def check_start() -> Call:
    """Build the start of a comparison of the replicas' states -> [nonce, index]."""
    return Call("check", Needs.LEADER, ops.CheckStart(0))


def revision_now() -> Call:
    """Build the question how far the state is now, at the leader -> revision."""
    return Call("snapshot", Needs.LEADER, ops.TrackPoint(0, 0, 0, None), decode=first_of)


def snapshot_begin(at_least: int) -> Call:
    """Build the freezing of a whole state -> (number of the copy, head of its file)."""

    def decode(value: Any) -> tuple[int, FileHead]:
        return value[0], FileHead._make(value[1:9])

    return Call("snapshot", Needs.ANY, ops.SnapshotBegin(0, at_least), decode=decode)


def snapshot_piece(copy: int, number: int) -> Call:
    """Build the read of the next piece of a frozen state -> (last, bytes)."""

    def decode(value: Any) -> tuple[bool, bytes]:
        last, data = value
        return last, data

    return Call("snapshot", Needs.ANY, ops.SnapshotPiece(0, copy, number), decode=decode)


# --- checkpoint: changes -------------------------------------------------------------------


def close_checkpoint(opened: Opened) -> Call:
    """Build saCkptCheckpointClose."""
    message = ops.CheckpointClose(0, 0, 0, opened.handle)
    return Call("close", _COMMAND, message, subject=opened.name, decode=_nothing)


def put(opened: Opened, section_id: bytes | str, data: Any) -> Call:
    """Build overwrite-or-create -> revision."""
    return _data_write("put", ops.SectionPut, opened, section_id, data)


def overwrite(opened: Opened, section_id: bytes | str, data: Any) -> Call:
    """Build saCkptSectionOverwrite -> revision."""
    return _data_write("overwrite", ops.SectionOverwrite, opened, section_id, data)


def _data_write(
    name: str,
    record: type[ops.SectionPut | ops.SectionOverwrite],
    opened: Opened,
    section_id: bytes | str,
    data: Any,
) -> Call:
    key = section_id_of(section_id)
    data = data_of(data)
    message = record(0, 0, 0, opened[0], key, data)
    call = on_checkpoint(name, opened, message, len(data) + len(key) + 64)
    return _staged(call, data) if len(data) > _INLINE_MAX else call


def write_many(opened: Opened, writes: Iterable[tuple[bytes | str, int, Any]]) -> Call:
    """Build saCkptCheckpointWrite of (id, offset, data) -> revision."""
    vector: list[list[Any]] = []
    inline = size = 0
    for index, (section_id, offset, data) in enumerate(writes):
        element: list[Any] = [
            section_id_of(section_id),
            natural_of(offset, "an offset", index),
            data_of(data, index),
        ]
        inline += len(element[2])
        size += len(element[0]) + 32
        vector.append(element)
    _check_vector(vector)
    stages: list[Stage] = []
    if inline > _INLINE_MAX:
        for element in sorted(vector, key=lambda element: -len(element[2])):
            if inline <= _INLINE_MAX:
                break
            inline -= len(element[2])
            stages.append(Stage(element[2], partial(element.__setitem__, 2)))
            element[2] = 0
    message = ops.CheckpointWrite(0, 0, 0, opened.handle, vector)  # type: ignore[arg-type]
    call = on_checkpoint("write", opened, message, inline + size + 64)
    _check_message(call)
    if stages:
        stage(call, stages)
    return call


def _check_vector(vector: list[list[Any]]) -> None:
    if not vector:
        raise InvalidParam("an I/O vector has at least one element", reason="param")
    if len(vector) > contract.VECTOR_ELEMENTS_MAX:
        raise NoResources(
            f"an I/O vector has at most {contract.VECTOR_ELEMENTS_MAX} elements", reason="limit"
        )


def _check_message(call: Call) -> None:
    if call.bytes_ > MESSAGE_BYTES_MAX:
        raise NoResources("the ids of the I/O vector are too many bytes", reason="limit")


def write(opened: Opened, section_id: bytes | str, data: Any, offset: int) -> Call:
    """Build saCkptCheckpointWrite of one element -> revision."""
    return write_many(opened, ((section_id, offset, data),))


def create(
    opened: Opened,
    section_id: bytes | str | None,
    data: Any,
    expires: float | datetime | None,
    ttl: float | None,
) -> Call:
    """Build saCkptSectionCreate -> section id."""
    wanted = None if section_id is None else section_id_of(section_id)
    if wanted is not None and not wanted:
        raise InvalidParam("a section id has at least one byte", reason="section_id")
    data = data_of(data)
    expiry = expiry_of(expires, ttl, "expires")
    message = ops.SectionCreate(0, 0, 0, opened.handle, wanted, data, *expiry)
    call = on_checkpoint("create", opened, message, len(data) + len(wanted or b"") + 96)
    call.decode = _second
    return _staged(call, data) if len(data) > _INLINE_MAX else call


def _staged(call: Call, data: bytes) -> Call:
    """Let the data of a command travel as chunks."""
    message = call.message
    call.bytes_ -= len(data)
    message.data = 0
    stage(call, [Stage(data, partial(setattr, message, "data"))])
    return call


def stage(call: Call, stages: list[Stage]) -> None:
    """Let data that was taken out of a command travel as chunks."""
    call.stages = stages
    staged = call.staged_bytes
    if staged > contract.STAGED_BYTES_PER_SESSION_MAX:
        raise NoResources(
            f"{call.what}: more than {contract.STAGED_BYTES_PER_SESSION_MAX} bytes in one write",
            reason="limit",
            detail="bytes of one I/O vector",
        )


def delete(opened: Opened, section_id: bytes | str) -> Call:
    """Build saCkptSectionDelete -> revision."""
    message = ops.SectionDelete(0, 0, 0, opened.handle, section_id_of(section_id))
    return on_checkpoint("delete", opened, message)


def set_expiration(
    opened: Opened, section_id: bytes | str, at: float | datetime | None, ttl: float | None
) -> Call:
    """Build saCkptSectionExpirationTimeSet -> revision."""
    message = ops.SectionExpirationSet(
        0, 0, 0, opened.handle, section_id_of(section_id), *expiry_of(at, ttl, "at")
    )
    return on_checkpoint("set_expiration", opened, message)


def corrupt_section(opened: Opened, section_id: bytes | str) -> Call:
    """Build the fault injection of :func:`raftckpt.testing.corrupt_section` -> revision."""
    message = ops.SectionCorrupt(0, 0, 0, opened.handle, section_id_of(section_id))
    return on_checkpoint("corrupt_section", opened, message)


def set_retention(opened: Opened, seconds: float | None) -> Call:
    """Build saCkptCheckpointRetentionDurationSet -> revision."""
    message = ops.RetentionSet(0, 0, 0, opened.handle, duration_ns(seconds, "the retention"))
    return on_checkpoint("set_retention", opened, message)


def active_replica_set(opened: Opened, exclusive: bool) -> Call:
    """Build saCkptActiveReplicaSet -> epoch."""
    message = ops.ActiveReplicaSet(0, 0, 0, opened.handle, bool(exclusive))
    call = on_checkpoint("active_replica_set", opened, message)
    call.decode = first_of
    return call


def on_checkpoint(name: str, opened: Opened, message: Any, bytes_: int = 1152) -> Call:
    """Build a command on an open checkpoint -> revision."""
    decode = None if opened.attributes.update == "all" else _nothing
    return Call(
        name,
        _COMMAND,
        message,
        subject=opened.name,
        handle=opened.handle,
        decode=decode,
        bytes_=bytes_,
    )


# --- checkpoint: queries -------------------------------------------------------------------


def _query(
    name: str,
    record: Callable[..., Query],
    opened: Opened,
    fields: Iterable[Any],
    consistency: str,
    decode: Any,
) -> Call:
    local = _consistency(consistency)
    if not opened.handle:
        message = record(0, 0, local, opened.name, *fields)
        return Call(name, Needs.LEADER, message, subject=opened.name, decode=decode)
    return Call(
        name,
        Needs.ATTACHED,
        record(0, 0, local, opened.handle, *fields),
        subject=opened.name,
        decode=decode,
        by_name=record(0, 0, local, opened.name, *fields) if local else None,
    )


def read(
    opened: Opened, section_id: bytes | str, offset: int, size: int | None, consistency: str
) -> Call:
    """Build saCkptCheckpointRead of one element -> bytes."""
    if size is not None:
        natural_of(size, "size")
    vector = [[section_id_of(section_id), natural_of(offset, "an offset"), size]]
    return _query("read", ops.Read, opened, [vector], consistency, _only_data)


def read_many(
    opened: Opened, reads: Iterable[tuple[bytes | str, int, int | None]], consistency: str
) -> Call:
    """Build saCkptCheckpointRead -> list of bytes."""
    vector: list[list[Any]] = []
    bytes_ = 0
    for index, (section_id, offset, size) in enumerate(reads):
        if size is not None:
            natural_of(size, "size", index)
        vector.append([section_id_of(section_id), natural_of(offset, "an offset", index), size])
        bytes_ += len(vector[-1][0]) + 32
    _check_vector(vector)
    call = _query("read", ops.Read, opened, [vector], consistency, _second)
    call.bytes_ = bytes_ + 64
    _check_message(call)
    return call


def read_versioned(opened: Opened, section_id: bytes | str, consistency: str) -> Call:
    """Build the read of a whole section -> (bytes, revision of its last change)."""
    fields = [section_id_of(section_id)]
    decode = _data_and_revision
    return _query("read_versioned", ops.ReadVersioned, opened, fields, consistency, decode)


def read_all(opened: Opened, consistency: str) -> Call:
    """Build the read of all sections -> Image."""
    return _query("read_all", ops.ReadAll, opened, [], consistency, _image)


def section_ids(opened: Opened, consistency: str) -> Call:
    """Build the listing of the section ids."""
    return _query("ids", ops.SectionIds, opened, [], consistency, _second)


def section_id_page(
    opened: Opened, prefix: bytes | str, after: bytes | str | None, limit: int, consistency: str
) -> Call:
    """Build a page of section ids -> list of ids."""
    fields = _page_of(prefix, after, limit)
    return _query("ids", ops.SectionIdPage, opened, fields, consistency, _second)


def section_page(
    opened: Opened, prefix: bytes | str, after: bytes | str | None, limit: int, consistency: str
) -> Call:
    """Build a page of sections -> list of SectionStatus."""
    fields = _page_of(prefix, after, limit)
    return _query("sections", ops.SectionPage, opened, fields, consistency, _section_statuses)


def _page_of(prefix: bytes | str, after: bytes | str | None, limit: int) -> tuple[Any, ...]:
    behind = None if after is None else section_id_of(after)
    return section_id_of(prefix), behind, _rows(limit)


def _rows(limit: int) -> int:
    if type(limit) is not int or not 1 <= limit <= limits.PAGE_ROWS_MAX:
        raise InvalidParam(f"limit is 1..{limits.PAGE_ROWS_MAX}, not {limit!r}")
    return limit


def checkpoint_page(prefix: str, after: str | None, limit: int, consistency: str) -> Call:
    """Build a page of the checkpoints that have a name -> list of CheckpointStatus."""
    for text, what in ((prefix, "a prefix"), (after or "", "after")):
        if type(text) is not str:
            raise InvalidParam(f"{what} is text, not {text!r}")
        if text:
            checkpoint_name_of(text)
    message = ops.CheckpointPage(0, 0, _consistency(consistency), prefix, after, _rows(limit))
    return Call("list checkpoints", Needs.LEADER, message, decode=_checkpoint_statuses)


def sections(
    opened: Opened, which: str, expiration: float | datetime | None, consistency: str
) -> Call:
    """Build the listing of the sections -> list of SectionStatus."""
    chosen = _CHOSEN.get(which)
    if chosen is None:
        raise InvalidParam(f"which is one of {', '.join(_CHOSEN)}, not {which!r}")
    fields = [int(chosen), time_ns(expiration, "expiration")]
    return _query("sections", ops.Sections, opened, fields, consistency, _section_statuses)


def status(opened: Opened, consistency: str) -> Call:
    """Build saCkptCheckpointStatusGet -> CheckpointStatus."""
    return _query("status", ops.Status, opened, [], consistency, _checkpoint_status)


def section_statuses(opened: Opened, section_ids: list[bytes]) -> Call:
    """Build the description of sections -> rows of those that exist, as they travel."""
    call = _query("sections", ops.SectionStatuses, opened, [section_ids], "linearizable", _second)
    call.bytes_ = sum(map(len, section_ids)) + 16 * len(section_ids) + 64
    return call


def may_synchronize(opened: Opened) -> Call:
    """Build the question whether the checkpoint can be synchronized now (has an active replica).

    It does not wait for what was written before, the synchronization itself does that.
    """
    call = _query("synchronize", ops.Synchronize, opened, [], "local", _nothing)
    call.by_name = None
    call.unordered = True
    return call


def count(opened: Opened, consistency: str) -> Call:
    """Build the count of the sections."""
    return _query("count", ops.Status, opened, [], consistency, _section_count)

"""The replicated state machine: total, pure, deterministic.

``apply`` executes one committed batch. Every command has a result, legal or not; a refusal is a
result. Nothing here looks at a clock: time is the stamp of the batch. An exception out of ``apply``
is our bug or a damaged log, and the replica must stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hmac import compare_digest
from typing import Any, Final, NamedTuple

import google_crc32c

from raftckpt.errors import SaAisError, ensure
from raftckpt.model import content, group_commands, lifecycle, queries
from raftckpt.model.batch import decode_batch, normal_form
from raftckpt.model.commands import Batch, Tag
from raftckpt.model.express import plain_overwrite
from raftckpt.model.image import encode_image, load_image
from raftckpt.model.schema import (
    SIGNATURES,
    STATIC,
    refuse_malformed,
    schema_refusal,
    signature,
)
from raftckpt.model.sessions import NO_SESSION, STAGE, Session
from raftckpt.model.state import State
from raftckpt.model.types import Result, refuse, success

__all__ = ["STRUCTURAL_TAGS", "CheckpointMachine", "Early"]

_SWEEP_PER_BATCH: Final = 2048

_ClusterHandler = Callable[[State, Sequence[Any]], Result]
_Handler = Callable[[State, Session, Sequence[Any]], Result]

_CLUSTER: Final[dict[int, _ClusterHandler]] = {
    Tag.SESSION_OPEN: lifecycle.session_open,
    Tag.SESSION_EXPIRE: lifecycle.session_expire,
    Tag.DUE: lifecycle.due,
    Tag.CHECK: lifecycle.check,
    Tag.GROUP_FAIL: group_commands.group_fail,
}
_BY_TAG: Final[dict[int, _Handler]] = {
    Tag.SESSION_CLOSE: lifecycle.session_close,
    Tag.CHECKPOINT_OPEN: lifecycle.checkpoint_open,
    Tag.CHECKPOINT_CLOSE: lifecycle.checkpoint_close,
    Tag.CHECKPOINT_UNLINK: lifecycle.checkpoint_unlink,
    Tag.RETENTION_SET: lifecycle.retention_set,
    Tag.ACTIVE_REPLICA_SET: lifecycle.active_replica_set,
    Tag.SECTION_CREATE: content.section_create,
    Tag.SECTION_DELETE: content.section_delete,
    Tag.SECTION_EXPIRATION_SET: content.section_expiration_set,
    Tag.SECTION_OVERWRITE: content.section_overwrite,
    Tag.SECTION_PUT: content.section_put,
    Tag.CHECKPOINT_WRITE: content.checkpoint_write,
    Tag.STAGE_CHUNK: lifecycle.stage_chunk,
    Tag.SECTION_CORRUPT: content.section_corrupt,
    Tag.GROUP_JOIN: group_commands.group_join,
    Tag.GROUP_LEAVE: group_commands.group_leave,
    Tag.GROUP_RESPOND: group_commands.group_respond,
    Tag.GROUP_ADMIN: group_commands.group_admin,
}
_DATA_FIELD: Final[dict[int, int]] = {
    Tag.SECTION_CREATE: 6,
    Tag.SECTION_OVERWRITE: 6,
    Tag.SECTION_PUT: 6,
}
_DRY: Final[dict[int, Callable[[State, Session, Sequence[Any], bool], Result]]] = {
    Tag.SECTION_OVERWRITE: content.section_overwrite,
    Tag.SECTION_PUT: content.section_put,
    Tag.CHECKPOINT_WRITE: content.checkpoint_write,
}

STRUCTURAL_TAGS: Final = frozenset(
    {
        Tag.SESSION_CLOSE,
        Tag.SESSION_EXPIRE,
        Tag.CHECKPOINT_CLOSE,
        Tag.CHECKPOINT_UNLINK,
        Tag.ACTIVE_REPLICA_SET,
        Tag.SECTION_CREATE,
        Tag.SECTION_DELETE,
        Tag.SECTION_EXPIRATION_SET,
        Tag.SECTION_CORRUPT,
        Tag.DUE,
        Tag.GROUP_RESPOND,  # one that says no fences the session
        Tag.GROUP_FAIL,
    }
)
"""Commands that may change what a data write on a checkpoint is answered.

While one of them is proposed and not applied, its checkpoint (``target_uid``; None: every
checkpoint) takes no early acceptance. So does a SectionPut that creates (:class:`Early`).
"""


class Early(NamedTuple):
    """Value of :meth:`CheckpointMachine.check`."""

    uid: int
    asynchronous: bool
    """Whether the checkpoint's update option allows to answer before commit."""
    structural: bool
    """Whether the command itself changes the structure (a put that creates)."""


def _with_static(tag: int, handler: _Handler) -> _Handler:
    """Put the limits that need no state before the handler, if the command has any."""
    static = STATIC.get(tag)
    if static is None:
        return handler

    def checked(state: State, session: Session, c: Sequence[Any]) -> Result:
        refusal = static(c)
        return handler(state, session, c) if refusal is None else refusal

    return checked


def _with_stage(tag: int, handler: _Handler) -> _Handler:
    """Replace the stage number by what was staged; the stage is gone, whatever the result."""
    at = _DATA_FIELD[tag]

    def staged(state: State, session: Session, c: Sequence[Any]) -> Result:
        value = _take(state, session, c[at])
        if value is None:
            return STAGE
        return handler(state, session, [*c[:at], value, *c[at + 1 :]])

    return staged


def _take(state: State, session: Session, number: int) -> Any:
    before = session.staged_bytes
    value = session.take_stage(number)
    state.staged_bytes += session.staged_bytes - before
    return value


def _checkpoint_write(state: State, session: Session, c: Sequence[Any]) -> Result:
    """Resolve the stages of a vector, then check and write it."""
    vector = c[5]
    missing = None
    resolved: dict[int, Any] = {}
    for position, element in enumerate(vector):
        if type(element) is list and len(element) == 3 and type(element[2]) is int:
            value = _take(state, session, element[2])
            if value is None and missing is None:
                missing = position
            resolved[position] = value
    refusal = STATIC[Tag.CHECKPOINT_WRITE](c)
    if refusal is not None:
        return refusal
    if missing is not None:
        return refuse(SaAisError.ERR_INVALID_PARAM, "stage", None, missing)
    if resolved:
        vector = [[e[0], e[1], resolved.get(i, e[2])] for i, e in enumerate(vector)]
        c = [*c[:5], vector]
    return content.checkpoint_write(state, session, c)


def _handlers() -> Iterable[tuple[tuple[Any, ...], _Handler]]:
    for key, tag in SIGNATURES.items():
        handler = _BY_TAG.get(tag)
        if handler is None:
            continue
        if tag == Tag.CHECKPOINT_WRITE:
            handler = _checkpoint_write
        else:
            handler = _with_static(tag, handler)
            if tag in _DATA_FIELD and key[1 + _DATA_FIELD[tag]] is int:
                handler = _with_stage(tag, handler)
        yield key, handler


_HANDLERS: Final[dict[tuple[Any, ...], _Handler]] = dict(_handlers())
"""Signature of a session's command -> what executes it."""


class CheckpointMachine(State):
    """The state, and everything that can be done with it."""

    # --- changing it --------------------------------------------------------------------------

    def apply(self, index: int, payload: bytes, batch: Batch | None = None) -> list[Result]:
        """Execute a committed batch.

        Arguments:
            index: its log index; grows from call to call.
            payload: the entry as it stands in the log.
            batch: the decoded payload, if the caller still has it.

        Returns:
            One result per command.

        Raises:
            ValueError: the payload is no batch (damage or a bug; nothing was changed).
        """
        ensure(index > self.applied_index, "entries are applied once, in order")
        if batch is None:
            batch = decode_batch(payload)
        if self.groups.told:
            self.groups.told.clear()
        self.applied_index = index
        self.changes = []  # a new list: the former one may have been taken
        self.chain = google_crc32c.extend(self.chain, payload)
        if batch.now_ns > self.now_ns:
            self.now_ns = batch.now_ns
        find_handler = _HANDLERS.get
        find_session = self.sessions.get
        results = []
        for command in batch.commands:
            result = plain_overwrite(self, command)
            if result is not None:
                results.append(result)
                continue
            try:
                handler = find_handler((command[0], *map(type, command)))
            except (TypeError, LookupError):  # not an array, an empty one, or a strange tag
                handler = None
            if handler is None:
                results.append(self._irregular(command))
                continue
            session = find_session(command[1])
            if session is None:
                results.append(NO_SESSION)
                continue
            replies = session.replies
            result = replies.admit(command[2], command[3])
            if result is None:
                result = handler(self, session, command)
                replies.remember(result)
            results.append(result)
        if self._garbage:
            self.sweep(_SWEEP_PER_BATCH)
        return results

    def _irregular(self, command: Any) -> Result:
        """Execute a command of the cluster, or one that did not come as the wire makes it."""
        try:
            command = normal_form(command)
            key = signature(command)
            tag = SIGNATURES.get(key)
        except (TypeError, ValueError, LookupError, OverflowError):
            tag = None
        if tag in _CLUSTER:
            static = STATIC.get(tag)
            refusal = static(command) if static is not None else None
            if command[1]:
                refusal = schema_refusal("session")
            return _CLUSTER[tag](self, command) if refusal is None else refusal
        refusal = refuse_malformed(command) if tag is None else None
        if type(command) is not list or len(command) < 4:
            return schema_refusal("command")
        if any(type(field) is not int for field in command[:4]):
            return refusal or schema_refusal("command")
        if refusal is not None and not command[1]:
            return refusal
        session = self.sessions.get(command[1])
        if session is None:
            return NO_SESSION
        result = session.replies.admit(command[2], command[3])
        if result is None:
            result = refusal or _HANDLERS[key](self, session, command)
            session.replies.remember(result)
        return result

    # --- asking it ----------------------------------------------------------------------------

    def check(self, command: Sequence[Any]) -> Result:
        """Dry-run a data write (tags 23, 24, 25) on the applied state, whatever its sequence.

        Returns:
            Success with an :class:`Early`, or the refusal that apply would give now. A write of
            staged data is TRY_AGAIN "stage": its chunks may not be applied yet.
        """
        try:
            key = signature(command)
        except (TypeError, LookupError):
            return schema_refusal("command")
        dry = _DRY.get(SIGNATURES.get(key, -1))
        if dry is None:
            return schema_refusal("command")
        session = self.sessions.get(command[1])
        if session is None:
            return NO_SESSION
        static = STATIC.get(command[0])
        refusal = static(command) if static is not None else None
        if refusal is not None:
            return refusal
        if _is_staged(command):
            return refuse(SaAisError.ERR_TRY_AGAIN, "stage")
        result = dry(self, session, command, True)
        if not result.ok:
            return result
        checkpoint = session.handles[command[4]][0]
        creates = command[0] == Tag.SECTION_PUT and command[5] not in checkpoint.sections
        return success(Early(checkpoint.uid, checkpoint.attributes.asynchronous, creates))

    def target_uid(self, command: Sequence[Any]) -> int | None:
        """Return the uid of the checkpoint a well-formed command is about, on the applied state.

        None: none that is known, or (for a structural command) possibly every checkpoint.
        """
        tag = command[0]
        if tag == Tag.CHECKPOINT_UNLINK:
            checkpoint = self.names.get(command[4])
            return None if checkpoint is None else checkpoint.uid
        session = self.sessions.get(command[1])
        if session is None or tag not in _HANDLE_TAGS:
            return None
        opened = session.handles.get(command[4])
        return None if opened is None else opened[0].uid

    def query(self, session: int | None, tag: int, args: list[Any]) -> Result:
        """Answer a query (``queries.QUERY_TAGS`` of the client protocol) from the applied state.

        Arguments:
            session: id of the attached session, for targets that are handles.
            tag: number of the query.
            args: its fields after ``consistency``.

        Returns:
            Success with the value the protocol defines; data may be :class:`Pages`. Never raises.
        """
        return queries.answer(self, session, tag, args)

    def session_secret_ok(self, number: int, secret: bytes) -> bool:
        """Whether ``secret`` is the secret of a living session."""
        session = self.sessions.get(number)
        return session is not None and compare_digest(session.secret, secret)

    def next_due_ns(self) -> int | None:
        """Cluster time at which a Due command will find work; None if nothing is scheduled."""
        entry = self.due.first()
        return None if entry is None else entry[0]

    # --- keeping it ---------------------------------------------------------------------------

    def freeze(self) -> Iterator[bytes]:
        """Freeze the state as it is now and return an iterator that encodes it in small pieces.

        The freezing is done before this returns; the machine may go on changing meanwhile.
        """
        return encode_image(self)

    @classmethod
    def restore(cls, pieces: Iterable[bytes]) -> CheckpointMachine:
        """Make a machine from an image, cut into pieces anywhere.

        Raises:
            ValueError: malformed, truncated, too long, contradictory or of an unknown version.
        """
        machine = cls()
        load_image(machine, pieces)
        return machine


_HANDLE_TAGS: Final = frozenset(
    {
        Tag.CHECKPOINT_CLOSE,
        Tag.RETENTION_SET,
        Tag.ACTIVE_REPLICA_SET,
        Tag.SECTION_CREATE,
        Tag.SECTION_DELETE,
        Tag.SECTION_EXPIRATION_SET,
        Tag.SECTION_OVERWRITE,
        Tag.SECTION_PUT,
        Tag.CHECKPOINT_WRITE,
        Tag.SECTION_CORRUPT,
    }
)


def _is_staged(command: Sequence[Any]) -> bool:
    if command[0] == Tag.CHECKPOINT_WRITE:
        return any(type(element[2]) is int for element in command[5])
    return type(command[6]) is int

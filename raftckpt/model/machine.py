"""The replicated state machine: total, pure, deterministic.

``apply`` executes one committed batch. Every command has a result, legal or not; a refusal is a
result. An entry that is no batch does nothing, on all replicas alike, and is told. Nothing here
looks at a clock: time is the stamp of the batch. An exception out of ``apply`` is our bug, and the
replica must stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hmac import compare_digest
from typing import Any, Final, NamedTuple

import google_crc32c
from msgspec.structs import replace

from raftckpt.errors import SaAisError, ensure
from raftckpt.model import access_commands, content, group_commands, lifecycle, parts, queries
from raftckpt.model.access import NOBODY
from raftckpt.model.asking import asking
from raftckpt.model.express import plain_overwrite
from raftckpt.model.image import encode_image, load_image
from raftckpt.model.sessions import NO_SESSION, STAGE, Session
from raftckpt.model.state import State
from raftckpt.model.types import Result, refuse, success
from raftckpt.protocol import operations as ops
from raftckpt.protocol.batch import Batch, decode_batch
from raftckpt.protocol.check import Malformed
from raftckpt.protocol.contract import SA_TIME_MAX
from raftckpt.protocol.kinds import SCHEMA
from raftckpt.protocol.operations import OPERATIONS, Command, Query
from raftckpt.version import BATCH_VERSION

__all__ = ["CheckpointMachine", "Early"]

_SWEEP_PER_BATCH: Final = 2048
"""Records freed after a batch: of a million, which take 0.2 s at once, half a millisecond."""

_ClusterHandler = Callable[[State, Any], Result]
_Handler = Callable[[State, Session, Any], Result]

_CLUSTER: Final[dict[type[Any], _ClusterHandler]] = {
    ops.SessionOpen: lifecycle.session_open,
    ops.SessionAdmit: lifecycle.session_admit,
    ops.SessionExpire: lifecycle.session_expire,
    ops.Due: lifecycle.due,
    ops.Check: lifecycle.check,
    ops.Compare: lifecycle.compare,
    ops.GroupFail: group_commands.group_fail,
    ops.LimitsSet: lifecycle.limits_set,
}
_OF_SESSION: Final[dict[type[Any], _Handler]] = {
    ops.SessionClose: lifecycle.session_close,
    ops.CheckpointOpen: lifecycle.checkpoint_open,
    ops.CheckpointClose: lifecycle.checkpoint_close,
    ops.CheckpointUnlink: lifecycle.checkpoint_unlink,
    ops.RetentionSet: lifecycle.retention_set,
    ops.ActiveReplicaSet: lifecycle.active_replica_set,
    ops.SectionCreate: content.section_create,
    ops.SectionDelete: content.section_delete,
    ops.SectionExpirationSet: content.section_expiration_set,
    ops.SectionOverwrite: content.section_overwrite,
    ops.SectionPut: content.section_put,
    ops.CheckpointWrite: content.checkpoint_write,
    ops.StageChunk: lifecycle.stage_chunk,
    ops.SectionCorrupt: content.section_corrupt,
    ops.SectionChange: parts.section_change,
    ops.CheckpointTransaction: parts.transaction,
    ops.GroupJoin: group_commands.group_join,
    ops.GroupLeave: group_commands.group_leave,
    ops.GroupRespond: group_commands.group_respond,
    ops.GroupAdmin: group_commands.group_admin,
    ops.AuthSet: access_commands.auth_set,
    ops.PrincipalCreate: access_commands.principal_create,
    ops.PrincipalRotate: access_commands.principal_rotate,
    ops.PrincipalRevoke: access_commands.principal_revoke,
    ops.SpaceCreate: access_commands.space_create,
    ops.SpaceGrant: access_commands.space_grant,
    ops.SpaceRevoke: access_commands.space_revoke,
    ops.SpaceDelete: access_commands.space_delete,
    ops.SpaceQuota: access_commands.space_quota,
}
ensure({*_CLUSTER, *_OF_SESSION} == ops.LOGGED, "every command has what executes it")

_DRY: Final[dict[type[Any], Callable[[State, Session, Any, bool], Result]]] = {
    ops.SectionOverwrite: content.section_overwrite,
    ops.SectionPut: content.section_put,
    ops.CheckpointWrite: content.checkpoint_write,
}
ensure(set(_DRY) == ops.EARLY, "what may be accepted early can be tried")

_HANDLE: Final = frozenset(
    record for record in ops.COMMANDS if "handle" in OPERATIONS[record].fields
)
"""Commands about the checkpoint of a handle."""


class Early(NamedTuple):
    """Value of :meth:`CheckpointMachine.check`."""

    uid: int
    asynchronous: bool
    """Whether the checkpoint's update option allows to answer before commit."""
    structural: bool
    """Whether the command itself changes the structure (a put that creates)."""
    left: int
    """Bytes that the quotas of the checkpoint and of its space have room for."""
    sections_left: int
    """Sections that the quotas of the space have room for."""


def _with_stage(field: str, handler: _Handler) -> _Handler:
    """Replace a stage's number by what was staged; the stage is gone, whatever the result."""

    def staged(state: State, session: Session, c: Any) -> Result:
        value = getattr(c, field)
        if type(value) is int:
            value = _take(state, session, value)
            if value is None:
                return STAGE
            c = replace(c, **{field: value})
            return _granted(state, len(value), handler, session, c)
        return handler(state, session, c)

    return staged


def _with_stages(field: str, at: int, handler: _Handler) -> _Handler:
    """The same for a tuple, or a list of them, with data at a place."""

    def staged(state: State, session: Session, c: Any) -> Result:
        missing, size = None, 0
        value = getattr(c, field)
        rows = [value] if type(value) is tuple else list(value)
        for position, row in enumerate(rows):
            if type(row[at]) is int:
                data = _take(state, session, row[at])
                if data is None and missing is None:
                    missing = position
                size += 0 if data is None else len(data)
                rows[position] = (*row[:at], data, *row[at + 1 :])
        if type(value) is tuple:
            if missing is not None:
                return STAGE
            return _granted(state, size, handler, session, replace(c, **{field: rows[0]}))
        if missing is not None:
            return refuse(SaAisError.ERR_INVALID_PARAM, "stage", None, missing)
        return _granted(state, size, handler, session, replace(c, **{field: rows}))

    return staged


def _granted(state: State, size: int, handler: _Handler, session: Session, c: Any) -> Result:
    """Execute a command with data that had its room as a stage."""
    state.granted = size
    try:
        return handler(state, session, c)
    finally:
        state.granted = 0


def _take(state: State, session: Session, number: int) -> Any:
    before = session.staged_bytes
    value = session.take_stage(number)
    state.staged_bytes += session.staged_bytes - before
    return value


_DATA_AT: Final = {"vector": 2, "part": 3, "parts": 3}
"""Where the rows of these fields have their data."""


def _handlers() -> Iterator[tuple[type[Any], _Handler]]:
    for record, function in _OF_SESSION.items():
        handler = asking(record, function)
        field = OPERATIONS[record].data
        if field in _DATA_AT:
            yield record, _with_stages(field, _DATA_AT[field], handler)
        else:
            yield record, _with_stage(field, handler) if field else handler


_HANDLERS: Final[dict[type[Any], _Handler]] = dict(_handlers())
"""What executes a session's command."""


def _nobody_is_told(index: int, why: str) -> None:
    """Nobody asked."""


class CheckpointMachine(State):
    """The state, and everything that can be done with it.

    Attributes:
        undecodable: told of an entry that is no batch: its index, and what is wrong with it.
    """

    undecodable: Callable[[int, str], None] = staticmethod(_nobody_is_told)

    # --- changing it --------------------------------------------------------------------------

    def apply(self, index: int, payload: bytes, batch: Batch | None = None) -> list[Result]:
        """Execute a committed batch.

        Arguments:
            index: its log index; grows from call to call.
            payload: the entry as it stands in the log.
            batch: the decoded payload, if the caller still has it.

        Returns:
            One result per command.
        """
        ensure(index > self.applied_index, "entries are applied once, in order")
        if batch is None:
            try:
                batch = decode_batch(payload)
            except ValueError as error:
                # Its bytes are the same everywhere: so is what they do. Stopping for it would end
                # all replicas, and again after each start.
                batch = Batch(BATCH_VERSION, self.now_ns, [])
                self.undecodable(index, str(error))
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
            handler = find_handler(type(command))
            if handler is None:
                results.append(self._irregular(command))
                continue
            session = find_session(command.session)
            if session is None:
                results.append(NO_SESSION)
                continue
            replies = session.replies
            held = replies.bytes
            result = replies.admit(command.sequence, command.answered)
            if replies.bytes != held:
                self.footprint += replies.bytes - held
                held = replies.bytes
            if result is None:
                result = handler(self, session, command)
                replies.remember(result)
                if replies.bytes != held and command.session in self.sessions:
                    self.footprint += replies.bytes - held
            results.append(result)
        self.bounds.judge(self.footprint + self.staged_bytes)
        if self._garbage:
            self.sweep(_SWEEP_PER_BATCH)
        return results

    def _irregular(self, command: Any) -> Result:
        """Execute a command of the cluster, or refuse one that is malformed."""
        if type(command) is not Malformed:
            if command.session:
                return refuse(SaAisError.ERR_INVALID_PARAM, SCHEMA, "session")
            return _CLUSTER[type(command)](self, command)
        refusal = refuse(*command.problem)
        head = command.content[:4] if type(command.content) is list else []
        if [type(field) for field in head] != [int] * 4 or not head[1]:
            return refusal
        _, number, sequence, answered = head
        session = self.sessions.get(number)
        if session is None:
            return NO_SESSION
        before = session.replies.bytes
        result = session.replies.admit(sequence, answered)
        if result is None:
            result = refusal
            session.replies.remember(result)
        self.footprint += session.replies.bytes - before
        return result

    # --- asking it ----------------------------------------------------------------------------

    def check(self, command: Any) -> Result:
        """Dry-run a command of ``operations.EARLY`` on the applied state, whatever its sequence.

        Returns:
            Success with an :class:`Early`, or the refusal that apply would give now. A write of
            staged data is TRY_AGAIN "stage": its chunks may not be applied yet.
        """
        session = self.sessions.get(command.session)
        if session is None:
            return NO_SESSION
        if _is_staged(command):
            return refuse(SaAisError.ERR_TRY_AGAIN, "stage")
        result = _DRY[type(command)](self, session, command, True)
        if not result.ok:
            return result
        checkpoint = session.handles[command.handle][0]
        creates = type(command) is ops.SectionPut and command.section_id not in checkpoint.sections
        left, sections_left = checkpoint.size_limit - checkpoint.memory_used, SA_TIME_MAX
        quotas = checkpoint.quotas
        if quotas is not None:
            left, sections_left = min(left, quotas.left("bytes")), quotas.left("sections")
        asynchronous = checkpoint.attributes.asynchronous
        return success(Early(checkpoint.uid, asynchronous, creates, left, sections_left))

    def target_uid(self, command: Any) -> int | None:
        """Return the uid of the checkpoint a command is about, on the applied state.

        None: none that is known, or (for a structural command) possibly every checkpoint.
        """
        if type(command) is ops.CheckpointUnlink:
            checkpoint = self.names.get(command.name)
            return None if checkpoint is None else checkpoint.uid
        session = self.sessions.get(command.session)
        if session is None or type(command) not in _HANDLE:
            return None
        opened = session.handles.get(command.handle)
        return None if opened is None else opened[0].uid

    def query(self, session: int | None, query: Query, principal: int = NOBODY) -> Result:
        """Answer a query of ``operations.QUERIES`` from the applied state.

        Arguments:
            session: id of the attached session, for targets that are handles.
            query: what is asked; its leading fields do not matter here.
            principal: who asks, for targets that are names.

        Returns:
            Success with the value the protocol defines; data may be :class:`Pages`. Never raises.
        """
        return queries.answer(self, session, query, principal)

    def session_secret_ok(self, number: int, secret: bytes, principal: int = NOBODY) -> bool:
        """Whether ``secret`` is that of a living session, and the session this principal's."""
        session = self.sessions.get(number)
        return (
            session is not None
            and compare_digest(session.secret, secret)
            and (not self.access.on or session.principal == principal)
        )

    def next_due_ns(self) -> int | None:
        """Cluster time at which a Due command will find work; None if nothing is scheduled."""
        entry = self.due.first()
        return None if entry is None else entry[0]

    # --- keeping it ---------------------------------------------------------------------------

    def freeze(self, *, secrets: bool = True) -> Iterator[bytes]:
        """Freeze the state as it is now and return an iterator that encodes it in small pieces.

        The freezing is done before this returns; the machine may go on changing meanwhile.
        Without ``secrets`` those of sessions are left out, for files that leave the cluster.
        """
        return encode_image(self, secrets=secrets)

    @classmethod
    def restore(cls, pieces: Iterable[bytes]) -> CheckpointMachine:
        """Make a machine from an image, cut into pieces anywhere.

        Raises:
            ValueError: malformed, truncated, too long, contradictory or of an unknown version.
        """
        machine = cls()
        load_image(machine, pieces)
        return machine


def _is_staged(command: Command) -> bool:
    data = getattr(command, OPERATIONS[type(command)].data)
    if type(data) is list:
        return any(type(element[2]) is int for element in data)
    return type(data) is int

"""Commands about sessions and checkpoints: open, close, unlink, retention, active, due work.

Each function is ``(state, session, command) -> Result``; the fields of the command are within their
bounds. Checks are made in the order of OpenSAF.
"""

from __future__ import annotations

from typing import Final

from raftckpt.errors import SaAisError
from raftckpt.model.access import CREATING, NOBODY, READING, VISIBLE, WRITING, not_granted
from raftckpt.model.assignments import end_components, settle_ended
from raftckpt.model.changes import ChangeKind
from raftckpt.model.checkpoints import (
    B01,
    CHECKPOINT_BYTES,
    CREATE,
    DEPOSED,
    FENCED,
    NO_WRITE,
    READ,
    WRITE,
    Checkpoint,
)
from raftckpt.model.expiry import RETENTION
from raftckpt.model.sessions import HANDLE, HANDLE_BYTES, SESSION_BYTES, Session
from raftckpt.model.state import State
from raftckpt.model.types import CreationAttributes, CreationFlags, Result, refuse, success
from raftckpt.protocol import operations as ops
from raftckpt.protocol.contract import (
    DUE_PER_ENTRY_MAX,
    HANDLES_PER_SESSION_MAX,
    SA_TIME_MAX,
    SECTION_ID_BYTES_MAX,
    SECTIONS_MAX,
)

__all__ = [
    "active_replica_set",
    "check",
    "checkpoint_close",
    "checkpoint_open",
    "checkpoint_unlink",
    "due",
    "end_session",
    "limits_set",
    "refuse_attributes",
    "retention_set",
    "session_admit",
    "session_close",
    "session_expire",
    "session_open",
    "stage_chunk",
]

_FREE: Final = int(CreationFlags.COLLOCATED | CreationFlags.QUOTA)
"""Creation flags that go with any other."""
_CREATED: Final = int(ChangeKind.CREATED)
_EXPIRED: Final = int(ChangeKind.EXPIRED)
_RETENTION_SET: Final = int(ChangeKind.RETENTION_SET)
_UNLINKED: Final = int(ChangeKind.UNLINKED)
_NO_CREDENTIAL: Final = refuse(SaAisError.ERR_ACCESS, "credentials")
_SECRET: Final = refuse(SaAisError.ERR_ACCESS, "secret")


# --- commands of the cluster itself --------------------------------------------------------------


def session_open(state: State, c: ops.SessionOpen) -> Result:
    """Create a session, or find the one a former attempt of the same client created."""
    if state.access.on:  # it was switched on while this was on its way
        return _NO_CREDENTIAL
    return _open(state, c, NOBODY)


def session_admit(state: State, c: ops.SessionAdmit) -> Result:
    """Create a session of a principal."""
    if state.access.on and c.principal not in state.access.by_number:
        return _NO_CREDENTIAL
    return _open(state, c, c.principal)


def _open(state: State, c: ops.SessionOpen | ops.SessionAdmit, principal: int) -> Result:
    known = state.by_secret.get(c.secret)
    if known is not None:
        if state.sessions[known].principal != principal:
            return _SECRET
        return success([known])
    if len(state.sessions) >= state.bounds.sessions:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "sessions")
    session = Session(state.next_session, c.secret, c.name, c.node, c.timeout_ns, c.grace_ns)
    session.principal = principal
    state.next_session += 1
    state.sessions[session.id] = session
    state.footprint += SESSION_BYTES
    state.by_secret[c.secret] = session.id
    return success([session.id])


def session_expire(state: State, c: ops.SessionExpire) -> Result:
    """End sessions that the leader found dead; those that ended meanwhile are not counted."""
    ended = 0
    for number in c.sessions:
        session = state.sessions.get(number)
        if session is not None:
            end_session(state, session)
            ended += 1
    settle_ended(state)
    return success(ended)


def end_session(state: State, session: Session) -> None:
    """End a session; ``settle_ended`` must follow when all that end together have ended."""
    state.end_session(session)
    if session.members:
        end_components(state, session)


def due(state: State, c: ops.Due) -> Result:
    """Carry out what is due at the stamp of the batch, first things first, so many per entry."""
    done = 0
    while done < DUE_PER_ENTRY_MAX:
        entry = state.due.first()
        if entry is None or entry[0] > state.now_ns:
            break
        _, uid, section_id = entry
        checkpoint = state.checkpoints[uid]
        if section_id == RETENTION:
            state.destroy(checkpoint, 0)
        else:
            state.remove_section(checkpoint, section_id, _EXPIRED, 0)
        done += 1
    return success(done)


def compare(state: State, c: ops.Compare) -> Result:
    """Keep the leader's digest of a check, for this replica to compare its own with."""
    state.compared.append((c.nonce, c.digest))
    return success(None)


def limits_set(state: State, c: ops.LimitsSet) -> Result:
    """Set limits of the state, or leave a memory limit that there is already."""
    if c.first and "memory" in state.bounds.given:
        return success("done")
    return state.bounds.change(c.values) or success("done")


def check(state: State, c: ops.Check) -> Result:
    """Remember that the digest of the state after exactly this entry is wanted."""
    state.check_nonces.append((c.nonce, state.applied_index))
    return success()


# --- commands of a session -----------------------------------------------------------------------


def session_close(state: State, session: Session, c: ops.SessionClose) -> Result:
    """``saCkptFinalize``."""
    end_session(state, session)
    settle_ended(state)
    return success()


def checkpoint_open(state: State, session: Session, c: ops.CheckpointOpen) -> Result:
    """``saCkptCheckpointOpen``."""
    name, flags = c.name, c.flags
    refusal = refuse_attributes(flags, c.attributes)
    if refusal is not None:
        return refusal
    checkpoint = state.names.get(name)
    rights = state.access.rights(session.principal, name)
    refusal = _refuse_open(c, checkpoint, rights)
    if refusal is not None:
        return refusal
    attributes = None if c.attributes is None else CreationAttributes._make(c.attributes)
    if checkpoint is None:
        if len(state.checkpoints) >= state.bounds.checkpoints:
            return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "checkpoints")
        refusal = _refuse_new(state, name, attributes or CreationAttributes())
        if refusal is not None:
            return refusal
    elif attributes is not None:
        names = checkpoint.differences(attributes, retention=bool(flags & B01))
        if names:
            return refuse(SaAisError.ERR_EXIST, "attributes_differ", names)
    if len(session.handles) >= HANDLES_PER_SESSION_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "handles")
    if session.fences and checkpoint is None:
        return DEPOSED
    created = checkpoint is None
    if checkpoint is None:
        checkpoint = _create(state, session, name, attributes or CreationAttributes())
    handle = session.next_handle
    session.next_handle += 1
    flags = session.flags_for(flags, rights)
    session.handles[handle] = (checkpoint, flags)
    state.footprint += HANDLE_BYTES
    checkpoint.enter(session.id, session.node, flags)
    if checkpoint.retention_until_ns is not None:
        checkpoint.retention_until_ns = None
        state.due.cancel(checkpoint.uid, RETENTION)
    return success([handle, checkpoint.uid, created, list(checkpoint.attributes), state.revision])


def _refuse_new(state: State, name: str, attributes: CreationAttributes) -> Result | None:
    """NO_SPACE if the space of the name, or the memory, has no room for another checkpoint."""
    quotas = state.access.quotas_of(name)
    default = int(attributes.max_sections == 1)  # its section is there from the beginning
    refusal = None if quotas is None else quotas.refuse(1, default, 0)
    return refusal or state.refuse_growth(CHECKPOINT_BYTES)


def _refuse_open(
    c: ops.CheckpointOpen, checkpoint: Checkpoint | None, rights: int
) -> Result | None:
    """Something of what is wanted is granted, else it is as if there were nothing of the name.

    Who may create is told whether a name is taken. To others a name on which they have no right
    looks the same whether there is something or not.
    """
    wanted = c.flags & (READ | WRITE) or READ | WRITE
    granted = (READ if rights & READING else 0) | (WRITE if rights & WRITING else 0)
    if checkpoint is None or not rights & VISIBLE:
        if c.attributes is None:
            return refuse(SaAisError.ERR_NOT_EXIST, "checkpoint_missing", c.name)
        if not rights & CREATING:
            return not_granted(CREATING)
    if not wanted & granted:
        return not_granted(READING if wanted & READ else WRITING)
    return None


def refuse_attributes(flags: int, fields: tuple[int, ...] | None) -> Result | None:
    """Attributes come exactly with CREATE; one update option, no unknown flag, possible sizes."""
    if fields is None or not flags & CREATE:
        if fields is None and not flags & CREATE:
            return None
        what = "missing with CREATE" if fields is None else "given without CREATE"
        return refuse(SaAisError.ERR_INVALID_PARAM, "attributes", what)
    creation, size, retention_ns, max_sections, max_section_size, max_section_id_size = fields
    if creation & ~_FREE not in (1, 2, 4):
        return refuse(SaAisError.ERR_INVALID_PARAM, "flags", creation)
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


def _create(
    state: State, session: Session, name: str, attributes: CreationAttributes
) -> Checkpoint:
    state.revision += 1
    checkpoint = Checkpoint(state.next_uid, name, attributes, state.now_ns, state.revision)
    state.next_uid += 1
    state.names[name] = checkpoint
    state.order.add(name)
    if checkpoint.has_default_section:
        checkpoint.add_default_section(state.now_ns)
        change = (checkpoint.uid, state.revision, _CREATED, session.id, b"", b"", SA_TIME_MAX)
        state.changes.append(change)
    state.take_on(checkpoint)
    return checkpoint


def checkpoint_close(state: State, session: Session, c: ops.CheckpointClose) -> Result:
    """``saCkptCheckpointClose``."""
    if c.handle not in session.handles:
        return HANDLE
    state.close_handle(session, c.handle)
    return success()


def checkpoint_unlink(state: State, session: Session, c: ops.CheckpointUnlink) -> Result:
    """``saCkptCheckpointUnlink``: needs neither a right nor a handle."""
    if session.fences:
        return DEPOSED
    checkpoint = state.names.pop(c.name, None)
    if checkpoint is None:
        return refuse(SaAisError.ERR_NOT_EXIST, "checkpoint_missing", c.name)
    state.order.remove(c.name)
    checkpoint.unlinked = True
    revision = state.revise(checkpoint, _UNLINKED, session.id)
    if not checkpoint.openers:
        state.destroy(checkpoint, session.id)
    return success(revision)


def retention_set(state: State, session: Session, c: ops.RetentionSet) -> Result:
    """``saCkptCheckpointRetentionDurationSet``."""
    opened = session.handles.get(c.handle)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    if flags & B01 and not flags & (FENCED | NO_WRITE):
        flags |= WRITE  # B.01 asks for no right
    refusal = checkpoint.refuse_change(flags, session.id)
    if refusal is not None:
        return refusal
    if checkpoint.unlinked:
        return refuse(SaAisError.ERR_BAD_OPERATION, "unlinked")
    checkpoint.attributes = checkpoint.attributes._replace(retention_ns=c.retention_ns)
    return success(state.revise(checkpoint, _RETENTION_SET, session.id, detail=c.retention_ns))


def active_replica_set(state: State, session: Session, c: ops.ActiveReplicaSet) -> Result:
    """``saCkptActiveReplicaSet``, with fencing of other writers if exclusive.

    Setting again what is set changes nothing. Any other set is a takeover: it bumps the epoch,
    also against the will of an exclusive owner, who may be dead.
    """
    opened = session.handles.get(c.handle)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    exclusive = c.exclusive
    refusal = checkpoint.refuse_writer(flags)
    if refusal is not None:
        return refusal
    if not exclusive and not checkpoint.needs_active:
        return refuse(SaAisError.ERR_BAD_OPERATION, "not_collocated")
    active = (session.id, session.node)
    if checkpoint.active != active or checkpoint.exclusive != exclusive:
        checkpoint.active = active
        checkpoint.owner = session.id
        checkpoint.exclusive = exclusive
        checkpoint.epoch += 1
        checkpoint.regard()
        state.revise_active(checkpoint, session.id)
    return success([checkpoint.epoch, checkpoint.revision])


def stage_chunk(state: State, session: Session, c: ops.StageChunk) -> Result:
    """Take a chunk of a large value."""
    before = session.staged_bytes
    elsewhere = state.staged_bytes - before
    bounds, more = state.bounds, len(c.data)
    # no stage alone brings the state to its mark: one write too large would shut out everybody
    refusal = state.refuse_growth(more if state.used + more < bounds.high else bounds.memory + 1)
    if refusal is not None:
        session.take_stage(c.stage)
    else:
        refusal = session.stage_chunk(c.stage, c.offset, c.data, elsewhere, state.bounds.staged)
    state.staged_bytes += session.staged_bytes - before
    return success() if refusal is None else refusal

"""The whole replicated state and the few operations everything else is made of.

Invariants:

* nothing here depends on a clock, chance, hash order or the environment: equal histories make
  equal states (and equal images);
* every change of a checkpoint takes the next revision; refusals and session traffic take none;
* ``checkpoints`` and ``sessions`` are in the order of their numbers.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from raftckpt.errors import SaAisError
from raftckpt.model.access import AccessTables
from raftckpt.model.bounds import Bounds
from raftckpt.model.changes import Change, ChangeKind
from raftckpt.model.checkpoints import SECTION_BYTES, Checkpoint
from raftckpt.model.expiry import RETENTION, DueIndex
from raftckpt.model.groups import Groups
from raftckpt.model.order import SortedNames
from raftckpt.model.quotas import SpaceQuotas
from raftckpt.model.sessions import HANDLE_BYTES, SESSION_BYTES, Session
from raftckpt.model.types import Result, refuse
from raftckpt.protocol.contract import RETENTION_IMMEDIATE_NS, SA_TIME_MAX
from raftckpt.version import LOWEST_LEVEL

__all__ = ["State"]

_ACTIVE_CHANGED: Final = int(ChangeKind.ACTIVE_CHANGED)
_DESTROYED: Final = int(ChangeKind.DESTROYED)
_GONE_MAX: Final = 1024
"""So many names are remembered for trackers that come back and are to be told of the end: those of
minutes, in what a connection may be away."""


class State:
    """Everything that influences what the machine will answer.

    Attributes:
        now_ns: cluster time of the last batch; never goes back.
        revision: of the last change.
        applied_index: log index of the last batch.
        chain: CRC32C over all batches so far: differs if histories differ.
        sessions: id -> session.
        by_secret: secret -> session id.
        checkpoints: uid -> checkpoint, unlinked ones included.
        names: name -> linked checkpoint.
        order: the names, in order.
        due: expirations and retentions to come.
        groups: the service groups.
        access: principals, spaces, and whether rights are asked for.
        gone: uid -> name of the last checkpoints that were destroyed; not part of the image.
        staged_bytes: bytes staged by all sessions.
        footprint: rough bytes of memory that all else takes; holes in sections count as bytes.
        bounds: limits of all that, and whether the memory is used up.
        granted: bytes of a stage that a command brings into a section: they were counted.
        level: of the cluster, as of the last entry; told with the configuration, not part of the
            image. A number of the contract that a later level changes is looked up by it.
        check_nonces: (nonce, index) of the last Check entries; not part of the image.
        compared: (nonce, digest) that leaders told of their states; not part of the image.
        changes: what the last batch changed, in the order of the revisions; not part of the image.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self.revision = 0
        self.applied_index = 0
        self.chain = 0
        self.next_session = 1
        self.next_uid = 1
        self.sessions: dict[int, Session] = {}
        self.by_secret: dict[bytes, int] = {}
        self.checkpoints: dict[int, Checkpoint] = {}
        self.names: dict[str, Checkpoint] = {}
        self.order = SortedNames()
        self.due = DueIndex()
        self.groups = Groups()
        self.access = AccessTables()
        self.gone: dict[int, str] = {}
        self.staged_bytes = 0
        self.footprint = 0
        self.bounds = Bounds()
        self.granted = 0
        self.level = LOWEST_LEVEL
        self.check_nonces: deque[tuple[bytes, int]] = deque(maxlen=8)
        self.compared: deque[tuple[bytes, bytes]] = deque(maxlen=8)
        self.changes: list[Change] = []
        self._garbage: list[dict[Any, Any]] = []

    @property
    def used(self) -> int:
        """Bytes that count against the memory limit."""
        return self.footprint + self.staged_bytes

    def refuse_growth(
        self, more: int, *, promised: bool = False, position: int | None = None
    ) -> Result | None:
        """NO_SPACE if there is no memory for so many bytes more; None if they are none.

        Arguments:
            more: bytes, the records of new sections included.
            promised: a leader may have accepted the command before it was in the log.
            position: element of a vector or transaction.
        """
        if more <= self.granted:
            return None
        bounds = self.bounds
        if (bounds.full and not promised) or self.used + more > bounds.memory:
            return refuse(SaAisError.ERR_NO_SPACE, "memory", bounds.memory, position)
        return None

    def revise(
        self,
        checkpoint: Checkpoint,
        kind: int,
        session: int,
        section_id: bytes | None = None,
        data: Any = None,
        detail: Any = None,
    ) -> int:
        """Take the next revision for a change of ``checkpoint``, and tell of it."""
        revision = self.revision = checkpoint.revision = self.revision + 1
        self.changes.append((checkpoint.uid, revision, kind, session, section_id, data, detail))
        return revision

    def revise_active(self, checkpoint: Checkpoint, session: int) -> int:
        """Take the next revision for a change of the active replica or the fence."""
        detail = [checkpoint.active, checkpoint.epoch, checkpoint.exclusive, checkpoint.owner]
        return self.revise(checkpoint, _ACTIVE_CHANGED, session, detail=detail)

    def close_handle(self, session: Session, handle: int) -> None:
        """Close a handle the session has (``saCkptCheckpointClose``)."""
        checkpoint, flags = session.handles.pop(handle)
        self.footprint -= HANDLE_BYTES
        lost_active = checkpoint.leave(session.id, session.node, flags)
        if not checkpoint.openers:
            retention_ns = checkpoint.attributes.retention_ns
            if checkpoint.unlinked or retention_ns < RETENTION_IMMEDIATE_NS:
                self.destroy(checkpoint, session.id)
                return
            until = min(self.now_ns + retention_ns, SA_TIME_MAX)
            checkpoint.retention_until_ns = until
            if until < SA_TIME_MAX:
                self.due.schedule(until, checkpoint.uid, RETENTION)
        if lost_active:
            self.revise_active(checkpoint, session.id)

    def take_on(self, checkpoint: Checkpoint) -> None:
        """Count a checkpoint that is new here, with the sections it has."""
        self.checkpoints[checkpoint.uid] = checkpoint
        self.footprint += checkpoint.footprint
        self._count_in(checkpoint, self.access.quotas_of(checkpoint.name))

    def grow(self, checkpoint: Checkpoint, more: int, sections: int = 0) -> None:
        """Count what sections take more, or (negative) less: the one place where it is done."""
        checkpoint.memory_used += more
        self.footprint += more + SECTION_BYTES * sections
        if checkpoint.quotas is not None:
            checkpoint.quotas.count(0, sections, more)

    def regroup(self, prefix: str) -> None:
        """Count the checkpoints of a prefix where they belong by what spaces and quotas are now."""
        quotas_of = self.access.quotas_of
        if len(self.names) < len(self.checkpoints):  # unlinked ones are not in the order
            for checkpoint in self.checkpoints.values():
                if checkpoint.unlinked and checkpoint.name.startswith(prefix):
                    self._count_in(checkpoint, quotas_of(checkpoint.name))
        for name in self.order.begin(prefix):
            if not name.startswith(prefix):
                break
            self._count_in(self.names[name], quotas_of(name))

    def _count_in(self, checkpoint: Checkpoint, quotas: SpaceQuotas | None) -> None:
        """Count a checkpoint in these quotas, and no longer in those it was in."""
        former = checkpoint.quotas
        if former is quotas:
            return
        sections, size = len(checkpoint.sections), checkpoint.memory_used
        if former is not None:
            former.count(-1, -sections, -size)
        checkpoint.quotas = quotas
        if quotas is not None:
            quotas.count(1, sections, size)

    def destroy(self, checkpoint: Checkpoint, session: int) -> None:
        """Drop a checkpoint nobody has open; its memory is freed little by little."""
        self.revise(checkpoint, _DESTROYED, session)
        self.footprint -= checkpoint.footprint
        self._count_in(checkpoint, None)
        del self.checkpoints[checkpoint.uid]
        if not checkpoint.unlinked:
            del self.names[checkpoint.name]
            self.order.remove(checkpoint.name)
        self.gone[checkpoint.uid] = checkpoint.name
        if len(self.gone) > _GONE_MAX:
            del self.gone[next(iter(self.gone))]
        self._garbage += [checkpoint.sections, self.due.cancel_all(checkpoint.uid)]

    def remove_section(
        self, checkpoint: Checkpoint, section_id: bytes, kind: int, session: int
    ) -> int:
        """Delete or expire a section that exists; returns the revision."""
        self.drop_section(checkpoint, section_id)
        return self.revise(checkpoint, kind, session, section_id)

    def drop_section(self, checkpoint: Checkpoint, section_id: bytes) -> None:
        """Take a section out, as part of a change that somebody else tells of."""
        section = checkpoint.sections.pop(section_id)
        self.grow(checkpoint, -len(section[0]), -1)
        if section[1] < SA_TIME_MAX:
            self.due.cancel(checkpoint.uid, section_id)
        if checkpoint.corrupted:
            checkpoint.mend(section_id)

    def end_session(self, session: Session) -> None:
        """Close all handles, drop what was staged, forget the session (implicit Finalize).

        Its components are ``assignments``' to end.
        """
        for handle in list(session.handles):
            self.close_handle(session, handle)
        self.staged_bytes -= session.staged_bytes
        self.footprint -= SESSION_BYTES + session.replies.bytes
        del self.sessions[session.id]
        del self.by_secret[session.secret]

    def sweep(self, limit: int) -> bool:
        """Free at most ``limit`` records of destroyed checkpoints; True if any are left.

        Dropping a table of a million sections at once would hold the loop for 0.2 s.
        """
        while self._garbage and limit > 0:
            table = self._garbage[-1]
            count = min(limit, len(table))
            for _ in range(count):
                table.popitem()
            limit -= count
            if not table:
                self._garbage.pop()
        return bool(self._garbage)

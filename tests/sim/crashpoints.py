"""The named places at which a simulated process may die, and how the code is made to pass them.

Storage names its own (``FileSystem.point``). The places inside consensus and the replica have no
product code: :func:`hooked` puts a passage before or after the methods below while a world runs.
A name stays what it is when code moves; a place that nothing passes any more fails the sweep in
``test_crashpoints.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, NamedTuple

from raftckpt.node.flight import Flight
from raftckpt.node.reads import WaitingReads
from raftckpt.node.replica import Replica
from raftckpt.raft.elections import Voting
from raftckpt.raft.engine import Engine, LogSeam
from raftckpt.raft.following import Following
from raftckpt.raft.node import RaftNode
from raftckpt.raft.snapshotting import Snapshotter
from raftckpt.storage import DataDirectory, PeerNotes
from raftckpt.storage.journal import Journal
from raftckpt.storage.snapshots import SnapshotReceiver, SnapshotStore
from tests.messages import Tag

STORAGE: Final = (
    "directory.clear",
    "identity.create",
    "identity.sync.before",
    "identity.rename.before",
    "identity.rename.after",
    "identity.durable",
    "peers.create",
    "peers.sync.before",
    "peers.rename.before",
    "peers.rename.after",
    "peers.durable",
    "journal.write.before",
    "journal.sync.before",
    "journal.sync.after",
    "journal.rotate.before",
    "journal.rotate.after",
    "journal.segment.create",
    "journal.segment.header.written",
    "journal.segment.rename.before",
    "journal.segment.rename.after",
    "journal.segment.durable",
    "journal.segment.cut",
    "journal.segment.continued",
    "journal.delete.before",
    "journal.delete.unlinked",
    "journal.delete.after",
    "snapshot.piece.written",
    "snapshot.sync.before",
    "snapshot.sync.after",
    "snapshot.rename.before",
    "snapshot.rename.after",
    "snapshot.durable",
    "snapshot.former.unlinked",
    "snapshot.tidy",
)
"""Passed by the product itself."""


class Hook(NamedTuple):
    """A method and the names of the places around it (empty: none)."""

    owner: type
    method: str
    before: str = ""
    after: str = ""


_HOOKS: Final = (
    # the step: what left, what is durable, what was told
    Hook(RaftNode, "begin", "step.begin", "step.begun"),
    Hook(RaftNode, "finish", "step.finish", "step.finished"),
    Hook(RaftNode, "_sync_and_release", "step.sync", "step.released"),
    Hook(RaftNode, "propose", "", "entry.proposed"),
    Hook(RaftNode, "engine_applies", "apply.begin", "apply.done"),
    Hook(RaftNode, "engine_changes_state", "", "role.changed"),
    Hook(RaftNode, "transfer", "", "transfer.begun"),
    Hook(RaftNode, "connected", "", "link.up"),
    Hook(RaftNode, "disconnected", "", "link.down"),
    # elections
    Hook(Engine, "campaign", "election.campaign", ""),
    Hook(Voting, "on_request", "", "vote.answered"),
    Hook(Voting, "on_grant", "", "vote.counted"),
    # following
    Hook(Following, "on_append", "follow.append", "follow.appended"),
    Hook(Following, "on_chunk", "install.chunk", "install.chunk.taken"),
    Hook(SnapshotReceiver, "commit", "install.verify", "install.published"),
    Hook(Engine, "installed", "install.log.reset", "install.done"),
    # members
    Hook(LogSeam, "add", "", "entry.added"),
    Hook(RaftNode, "_append", "configuration.append", "configuration.appended"),
    Hook(RaftNode, "_configured", "configuration.apply", "configuration.applied"),
    Hook(DataDirectory, "note_offer", "founding.offer", "founding.offered"),
    Hook(DataDirectory, "note_complete", "founding.complete", "founding.completed"),
    Hook(DataDirectory, "note_admitted", "member.admitted", ""),
    Hook(DataDirectory, "note_removed", "member.removed", ""),
    Hook(PeerNotes, "remember", "peer.met", "peer.remembered"),
    # compaction
    Hook(Snapshotter, "start", "", "compact.frozen"),
    Hook(Snapshotter, "_write_slice", "", "compact.slice"),
    Hook(Snapshotter, "_publish", "compact.publish", "compact.trimmed"),
    # the journal's records, before they are written
    Hook(Journal, "truncate_from", "", "journal.truncated"),
    Hook(Journal, "reset_to", "", "journal.reset"),
    Hook(Journal, "set_hard_state", "", "journal.hard_state"),
    Hook(Journal, "confirm", "", "journal.confirmed"),
    # opening a data directory
    Hook(SnapshotStore, "__init__", "start.identified", "start.snapshots"),
    Hook(Journal, "_resume", "start.checked", "start.resumed"),
)
_SERVICE_HOOKS: Final = (
    Hook(Flight, "propose", "batch.cut", "batch.proposed"),
    Hook(WaitingReads, "_attach", "", "session.attached"),
    Hook(Replica, "_step_down", "", "replica.stepped.down"),
)
APPLIED: Final = {
    int(tag): f"applied.{tag.name.lower()}"
    for tag in (
        Tag.SESSION_OPEN,
        Tag.SESSION_EXPIRE,
        Tag.CHECKPOINT_OPEN,
        Tag.CHECKPOINT_UNLINK,
        Tag.ACTIVE_REPLICA_SET,
        Tag.SECTION_PUT,
        Tag.CHECKPOINT_WRITE,
        Tag.STAGE_CHUNK,
        Tag.DUE,
    )
}
"""Places right after a command of a kind was applied, before anybody is answered."""


def _names(hooks: tuple[Hook, ...]) -> tuple[str, ...]:
    return tuple(name for hook in hooks for name in (hook.before, hook.after) if name)


AT_START: Final = (
    "start.identified",
    "start.snapshots",
    "start.checked",
    "start.resumed",
    "directory.clear",
    "identity.create",
    "identity.sync.before",
    "identity.rename.before",
    "identity.rename.after",
    "identity.durable",
    "peers.create",
    "peers.sync.before",
    "peers.rename.before",
    "peers.rename.after",
    "peers.durable",
    "journal.segment.create",
    "journal.segment.header.written",
    "journal.segment.rename.before",
    "journal.segment.rename.after",
    "journal.segment.durable",
    "journal.segment.cut",
    "snapshot.tidy",
)
"""What a process passes while it opens its data directory."""
CONSENSUS: Final = STORAGE + _names(_HOOKS)
SERVICE: Final = CONSENSUS + _names(_SERVICE_HOOKS) + tuple(APPLIED.values())


@contextmanager
def hooked(passing: Callable[[str], None], *, service: bool) -> Iterator[None]:
    """Call ``passing`` with the name of each place that is passed."""
    undo = []
    for hook in _HOOKS + (_SERVICE_HOOKS if service else ()):
        original = hook.owner.__dict__[hook.method]
        undo.append((hook.owner, hook.method, original))
        setattr(hook.owner, hook.method, _wrapped(original, hook, passing))
    try:
        yield
    finally:
        for owner, method, original in reversed(undo):
            setattr(owner, method, original)


def _wrapped(original: Callable[..., Any], hook: Hook, passing: Callable[[str], None]) -> Any:
    before, after = hook.before, hook.after

    @wraps(original)
    def method(self: Any, *args: Any, **named: Any) -> Any:
        if before:
            passing(before)
        result = original(self, *args, **named)
        if after:
            passing(after)
        return result

    return method

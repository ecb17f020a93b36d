"""A state becomes that of a new cluster: sessions ended, numbers far above, a founding of its own.

What the old cluster gave out after the copy was made is unknown. So nothing that identifies
something to a client may be given out twice: revisions, epochs, session ids, uids and the numbers
that lock tokens are made of go on at :data:`FAR_ABOVE` beyond those of the copy.

The new log begins at a snapshot whose entry nobody else can have: a replica that joins with an
empty directory holds the founding record alone, and must be sent the snapshot, not the entries.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Final

from raftckpt.errors import ensure
from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol import operations as ops
from raftckpt.protocol.batch import encode_batch
from raftckpt.protocol.contract import SA_TIME_MAX
from raftckpt.raft.configuration import (
    CONFIGURATION,
    NO_OP,
    ClusterMember,
    Configuration,
    Configurations,
    encode_configuration,
)
from raftckpt.storage import (
    PLACEHOLDER,
    DataDirectory,
    DiskFailed,
    Foreign,
    RealFileSystem,
    Storage,
    StorageError,
    read_identity,
)

__all__ = ["FAR_ABOVE", "Place", "Reborn", "make_directory", "reborn", "settle_directory"]

FAR_ABOVE: Final = 1 << 32
"""Above what the old cluster gave out after the copy, as long as that was fewer than four billion
changes: five days of 10,000 a second."""
_FIRST_INDEX: Final = 16
"""At least 3: see above."""
_TERM: Final = 1  # the first; the election of the new cluster makes it 2


@dataclass(frozen=True, slots=True)
class Reborn:
    """What became of a state.

    Attributes:
        sessions: how many were ended.
        dropped: checkpoints that nobody had open any more and that are not kept.
        revision: of the state that the new cluster begins with.
        time_ns: its cluster time, at which retention begins.
    """

    sessions: int
    dropped: int
    revision: int
    time_ns: int


def reborn(machine: CheckpointMachine, wall_ns: int, *, rights_off: bool = False) -> Reborn:
    """Make a state that of a new cluster.

    Arguments:
        machine: the state; it is changed.
        wall_ns: the wall clock: what is open is kept for its retention from now on.
        rights_off: switch rights off, for who has no operator's credential any more; principals
            and spaces stay.
    """
    sessions, before = list(machine.sessions), len(machine.checkpoints)
    if sessions:
        stamp = min(max(machine.now_ns, wall_ns), SA_TIME_MAX)
        batch = encode_batch(stamp, [ops.SessionExpire(0, 0, 0, sessions)])
        results = machine.apply(machine.applied_index + 1, batch)
        ensure(all(result.ok for result in results), "sessions can be ended")
    ensure(not machine.sessions and not machine.groups.members, "sessions and components are gone")
    if rights_off and machine.access.on:
        machine.access.on = False
        machine.access.revision += 1
    machine.changes = []
    machine.revision += FAR_ABOVE
    machine.next_session += FAR_ABOVE
    machine.next_uid += FAR_ABOVE
    machine.groups.last += FAR_ABOVE
    for checkpoint in machine.checkpoints.values():
        checkpoint.epoch += FAR_ABOVE
        # Who follows it may have seen changes of the old cluster that are not in the copy: to him
        # it must not look as if nothing had happened.
        checkpoint.revision = machine.revision
    machine.applied_index = max(machine.applied_index, _FIRST_INDEX)
    return Reborn(
        len(sessions), before - len(machine.checkpoints), machine.revision, machine.now_ns
    )


@dataclass(frozen=True, slots=True)
class Place:
    """A replica of the new cluster: node id, and host:port for peers and for clients."""

    node: str
    peer: str
    client: str


def make_directory(
    path: str,
    cluster: str,
    own: Place,
    machine: CheckpointMachine,
    *,
    level: int,
    pinned: bool = False,
    parent: str = "",
    others: tuple[Place, ...] = (),
    token: str = "",
) -> Configuration:
    """Write the data directory of the one voter that a new cluster begins with.

    Arguments:
        path: of the directory, which must not exist or is what an interrupted call left.
        cluster: its name.
        own: the voter.
        machine: what :func:`reborn` made.
        level: that it begins at.
        pinned: whether it stays there until an operator says otherwise.
        parent: founding id of the cluster whose state it is.
        others: for whom places are kept.
        token: SHA-256 (hex) of the token that opens them.

    Returns:
        The founding record.

    Raises:
        StorageError: it cannot be written.
    """
    fs = RealFileSystem()
    _clear(fs, path, own.node)
    directory = DataDirectory.open(fs, path, cluster, own.node)
    voter = ClusterMember(own.node, directory.identity.directory, own.peer, own.client)
    learners = [
        ClusterMember(each.node, "", each.peer, each.client, False, True, "", token)
        for each in others
    ]
    members = tuple(sorted([voter, *learners]))
    founding = Configuration(fs.random_bytes(16).hex(), cluster, parent, 0, level, pinned, members)
    record = encode_configuration(founding)
    directory.note_complete(founding.founding, record)
    storage = Storage.open(directory)
    try:
        _write(storage, record, machine)
    finally:
        storage.close()
    return founding


def _clear(fs: RealFileSystem, path: str, node: str) -> None:
    """Remove what an interrupted call left; a directory of another node is none."""
    former = read_identity(fs, path)
    if former is not None and former.node != node:
        raise refuse_occupied(path)
    shutil.rmtree(path, ignore_errors=True)


def _write(storage: Storage, record: bytes, machine: CheckpointMachine) -> None:
    index = machine.applied_index
    placed = Configurations(b"", [(CONFIGURATION + record, 1, 0)]).placed(index)
    writer = storage.snapshots.create(index, _TERM, NO_OP, _TERM, placed)
    try:
        for piece in machine.freeze():
            writer.write(piece)
    except BaseException:
        writer.abort()
        raise
    writer.commit()
    storage.journal.reset_to([(PLACEHOLDER, index - 1, _TERM), (NO_OP, index, _TERM)])
    storage.journal.set_hard_state(_TERM, None, index)
    storage.journal.sync()


def settle_directory(made: str, path: str) -> None:
    """Give a directory that was made its place; there is nothing, or an empty directory.

    Raises:
        Foreign: something is there.
        DiskFailed: it cannot be moved.
    """
    fs = RealFileSystem()
    try:
        if os.path.lexists(path):
            if not os.path.isdir(path) or os.listdir(path):
                raise refuse_occupied(path)
            os.rmdir(path)
        os.rename(made, path)
    except OSError as error:
        raise DiskFailed(
            f"moving {made} to {path} failed",
            f"{error.strerror or error}; what was made is complete, and stays there",
            "move it yourself, or make room and repeat",
        ) from error
    fs.fsync_dir(os.path.dirname(os.path.abspath(path)))


def refuse_occupied(path: str) -> StorageError:
    """Build the refusal of a place that is taken."""
    return Foreign(
        f"making the data directory {path} failed",
        "there is something already",
        "move it away first: nothing is ever written over",
    )

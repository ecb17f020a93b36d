"""Whose data directory this is, and whether it may be used at all.

Owns the identity file and the decision what an empty, foreign or incomplete directory means. The
identity file is text (so that an operator can read it) with a checksum line, replaced atomically.

The danger this module guards against: a replica that lost its disk looks exactly like one that
starts for the first time. If it voted and acknowledged with an empty log, a majority could forget
what was acknowledged. Nothing on the empty disk can tell the two apart, so the operator must: by
founding a cluster (``new_ok``) or by ``rejoin``. A directory remembers in its ``state``:

* ``founding`` / ``joining``: its files are being made; nothing was ever acknowledged on it.
* ``member``: it may hold acknowledged data; everything must be there.
* ``rejoining``: like member, but its votes and acks do not count yet.
"""

from __future__ import annotations

import hashlib
import json
from enum import Enum
from typing import Any, Final, NamedTuple

from google_crc32c import value

from raftckpt.errors import ensure
from raftckpt.limits import KIB
from raftckpt.storage.files import (
    Damaged,
    FileSystem,
    Foreign,
    Missing,
    StorageError,
    Unsupported,
    join,
)

__all__ = [
    "IDENTITY_VERSION",
    "Identity",
    "IdentityState",
    "check_identity",
    "read_identity",
    "write_identity",
]

IDENTITY_VERSION: Final = 1

_NAME: Final = "identity"
_TEMPORARY: Final = "identity.tmp"
_BYTES_MAX: Final = 64 * KIB
IGNORED: Final = frozenset({"lock", "lost+found", "peers", "peers.tmp", _TEMPORARY})
"""Names that do not make a directory "not empty"."""


class IdentityState(Enum):
    """How far a data directory has come."""

    FOUNDING = "founding"
    JOINING = "joining"
    MEMBER = "member"
    REJOINING = "rejoining"


class Identity(NamedTuple):
    """Content of the identity file."""

    cluster: str
    node: str
    uuid: str
    """Random; another one under the same node id means another disk."""
    created_ns: int
    """Wall clock of the first start, for people only."""
    state: IdentityState
    version: int = IDENTITY_VERSION

    @property
    def journal_owner(self) -> bytes:
        """Return the 16 bytes that mark this node's journal."""
        return _hash("journal", self.cluster, self.node, self.uuid)

    @property
    def snapshot_owner(self) -> bytes:
        """Return the 16 bytes that mark the cluster's snapshots (they travel between nodes)."""
        return _hash("snapshot", self.cluster)


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()[:16]


def read_identity(fs: FileSystem, directory: str) -> Identity | None:
    """Read the identity file; None if there is none.

    Raises:
        Damaged: it is malformed.
        Unsupported: it is of another version.
    """
    path = join(directory, _NAME)
    try:
        file = fs.open(path)
    except Missing:
        return None
    try:
        data = file.read(0, _BYTES_MAX)
    finally:
        file.close()
    try:
        body, _, check = data.removesuffix(b"\n").rpartition(b"\ncrc32c ")
        if not data.endswith(b"\n") or check != b"%08x" % value(body):
            raise ValueError("its checksum is wrong")
        fields: dict[str, Any] = json.loads(body)
        if fields.get("version") != IDENTITY_VERSION:
            raise Unsupported(
                f"reading {path} failed",
                f"format version {fields.get('version')}, this program reads {IDENTITY_VERSION}",
                "start the version of raftckpt that wrote it",
            )
        return Identity(
            str(fields["cluster"]),
            str(fields["node"]),
            str(fields["uuid"]),
            int(fields["created_ns"]),
            IdentityState(fields["state"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(
            f"reading {path} failed",
            f"the identity file is damaged ({error})",
            "move the data directory away and start with `raftckpt serve --rejoin`: "
            "the other replicas hold the data",
        ) from error


def write_identity(fs: FileSystem, directory: str, identity: Identity) -> None:
    """Write the identity file, atomically and durably.

    Raises:
        StorageError: a system call failed; the former file is still there.
    """
    fields = {
        "cluster": identity.cluster,
        "node": identity.node,
        "state": identity.state.value,
        "uuid": identity.uuid,
        "created_ns": identity.created_ns,
        "version": identity.version,
    }
    body = json.dumps(fields, indent=1, ensure_ascii=False).encode()
    temporary = join(directory, _TEMPORARY)
    fs.unlink(temporary)
    fs.point("identity.create")
    file = fs.open(temporary, create=True)
    try:
        file.write(0, [body + b"\ncrc32c %08x\n" % value(body)])
        fs.point("identity.sync.before")
        file.sync()
    finally:
        file.close()
    fs.point("identity.rename.before")
    fs.rename(temporary, join(directory, _NAME))
    fs.point("identity.rename.after")
    fs.fsync_dir(directory)
    fs.point("identity.durable")


def check_identity(
    fs: FileSystem, directory: str, cluster: str, node: str, *, new_ok: bool, rejoin: bool
) -> Identity:
    """Decide whether the (locked) directory may be used, and found it if it is empty and may be.

    Arguments:
        fs: the file system.
        directory: the data directory.
        cluster: the cluster it must belong to.
        node: the node it must belong to.
        new_ok: an empty directory is founded as that of a voter of a *new* cluster.
        rejoin: an empty directory is that of a voter that lost its disk.

    Returns:
        The identity. In the states FOUNDING and JOINING the caller makes the files (afresh) and
        then writes the identity again as MEMBER or REJOINING.

    Raises:
        Missing: it is empty and nobody said that it may be; or it has data and no identity.
        Foreign: it belongs to another cluster or node; or ``rejoin`` of a directory with data.
        Damaged: the identity file is.
        Unsupported: it was written by another version.
    """
    ensure(not (new_ok and rejoin), "a replica founds a cluster or rejoins one, not both")
    identity = read_identity(fs, directory)
    # A process killed between rename and sync left a name that a power failure would still take
    # back: a MEMBER could become FOUNDING again, and lose what it acknowledged meanwhile.
    fs.fsync_dir(directory)
    others = [name for name in fs.listdir(directory) if name != _NAME and name not in IGNORED]
    if identity is None:
        return _found(fs, directory, cluster, node, others, new_ok=new_ok, rejoin=rejoin)
    if (identity.cluster, identity.node) != (cluster, node):
        raise Foreign(
            f"opening the data directory {directory} failed",
            f"it belongs to node {identity.node!r} of cluster {identity.cluster!r}, "
            f"not to node {node!r} of cluster {cluster!r}",
            "correct the configuration, or give this replica its own data directory",
        )
    if rejoin and (not others or identity.state is IdentityState.FOUNDING):
        # The operator removed the data and left the identity, or the first start was cut short:
        # as good as empty. What he says now counts.
        return _new(fs, directory, cluster, node, IdentityState.JOINING)
    if rejoin and identity.state is IdentityState.MEMBER:
        raise Foreign(
            f"rejoining with the data directory {directory} failed",
            "it holds the data of a member: rejoining is for a replica that lost its disk",
            "start without --rejoin; if the data are damaged, move the directory away first",
        )
    return identity


def _found(
    fs: FileSystem,
    directory: str,
    cluster: str,
    node: str,
    others: list[str],
    *,
    new_ok: bool,
    rejoin: bool,
) -> Identity:
    what = f"opening the data directory {directory} failed"
    if others:
        raise Missing(
            what,
            f"it is not empty (it holds {', '.join(others[:3])}) and has no identity file",
            "put the identity file back if it was moved, or name an empty directory",
        )
    if not new_ok and not rejoin:
        raise no_data(what)
    state = IdentityState.JOINING if rejoin else IdentityState.FOUNDING
    return _new(fs, directory, cluster, node, state)


def no_data(what: str) -> StorageError:
    """Build the refusal of an empty directory."""
    return Missing(
        what,
        "it is empty: a voter that forgot what it acknowledged could lose the cluster's data",
        "check the path and the mount; if the disk was lost, `raftckpt serve --rejoin`; "
        "only if the whole cluster is new, found it",
    )


def _new(fs: FileSystem, directory: str, cluster: str, node: str, state: IdentityState) -> Identity:
    identity = Identity(cluster, node, fs.random_bytes(16).hex(), fs.now_ns(), state)
    write_identity(fs, directory, identity)
    return identity

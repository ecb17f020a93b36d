"""Whose data directory is it, to which founding does it belong, and how far has it come?

An empty directory may belong to a replica of a new cluster or to one whose disk was replaced
unnoticed. If it voted and acknowledged with an empty log, a majority could forget what was
acknowledged. Nothing on the empty disk can tell the two apart; the others can (``raft.founding``).
A directory remembers in its ``state``:

* ``new``: it was named, and takes part in nothing yet.
* ``offered``: an offer of a founding is written down, not complete.
* ``founded``: the founding is complete; the files are being made, nothing was acknowledged on it.
* ``member``: it may hold acknowledged data; everything must be there.
* ``removed``: the cluster took it out; it never takes part again.

``joins`` says that it wants to be let in by an entry (``serve --rejoin`` or the token of ``cluster
add``) and has not seen itself in a configuration yet.
"""

from __future__ import annotations

import hashlib
import json
from enum import Enum
from typing import Any, Final, NamedTuple

from google_crc32c import value

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
    "IGNORED",
    "REJOINS",
    "Identity",
    "IdentityState",
    "check_identity",
    "checked_text",
    "read_identity",
    "replace_text",
    "write_identity",
]

IDENTITY_VERSION: Final = 2
"""2: with the founding; 1 was from before there were foundings, and is refused."""

REJOINS: Final = "rejoin"
"""``Identity.joins`` of a directory that replaces a lost one of the same node id."""

_NAME: Final = "identity"
_TEMPORARY: Final = "identity.tmp"
_BYTES_MAX: Final = 1024 * KIB
"""With all that is written down of a founding it has kilobytes: what is longer is none."""
IGNORED: Final = frozenset({"lock", "lost+found", "peers", "peers.tmp", "reserve", _TEMPORARY})
"""Names that do not make a directory "not empty"."""


class IdentityState(Enum):
    """How far a data directory has come."""

    NEW = "new"
    OFFERED = "offered"
    FOUNDED = "founded"
    MEMBER = "member"
    REMOVED = "removed"


class Identity(NamedTuple):
    """Content of the identity file."""

    cluster: str
    node: str
    directory: str
    """Random; another one under the same node id means another disk."""
    created_ns: int
    """Wall clock of the first start, for people only."""
    state: IdentityState
    joins: str = ""
    """``REJOINS``, the token of ``cluster add``, or nothing: let in already, or a founder."""
    number: int = 0
    """The highest number of an offer written down."""
    founding: str = ""
    """Founding id of ``record`` (32 hexadecimal digits)."""
    record: bytes = b""
    """The founding record, offered or complete; opaque here (``raft.configuration``)."""

    @property
    def journal_owner(self) -> bytes:
        """Return the 16 bytes that mark this directory's journal."""
        return _hash("journal", self.founding, self.directory)

    @property
    def snapshot_owner(self) -> bytes:
        """Return the 16 bytes that mark the founding's snapshots (they travel between nodes)."""
        return _hash("snapshot", self.founding)


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
        fields = checked_text(data)
        version = fields.get("version")
        if version == 1:
            raise Unsupported(
                f"reading {path} failed",
                "it is of a version from before clusters had a founding id: nothing in it says "
                "which cluster its data belong to",
                "copy the data out with the version that wrote it, and found a new cluster",
            )
        if version != IDENTITY_VERSION:
            raise Unsupported(
                f"reading {path} failed",
                f"format version {version}, this program reads {IDENTITY_VERSION}",
                "start the version of raftckpt that wrote it",
            )
        return Identity(
            str(fields["cluster"]),
            str(fields["node"]),
            str(fields["directory"]),
            int(fields["created_ns"]),
            IdentityState(fields["state"]),
            str(fields["joins"]),
            int(fields["number"]),
            str(fields["founding"]),
            bytes.fromhex(fields["record"]),
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
    fields = identity._asdict() | {
        "state": identity.state.value,
        "record": identity.record.hex(),
        "version": IDENTITY_VERSION,
    }
    replace_text(fs, directory, _NAME, fields)


def checked_text(data: bytes) -> dict[str, Any]:
    """Read what :func:`replace_text` wrote.

    Raises:
        ValueError: it is not that.
    """
    body, _, check = data.removesuffix(b"\n").rpartition(b"\ncrc32c ")
    if not data.endswith(b"\n") or check != b"%08x" % value(body):
        raise ValueError("its checksum is wrong")
    fields = json.loads(body)
    if type(fields) is not dict:
        raise ValueError("it is no object")
    return fields


def replace_text(fs: FileSystem, directory: str, name: str, fields: dict[str, Any]) -> None:
    """Write a small file of JSON with a checksum, atomically and durably.

    Raises:
        StorageError: a system call failed; the former file is still there.
    """
    body = json.dumps(fields, indent=1, ensure_ascii=False).encode()
    temporary = join(directory, name + ".tmp")
    fs.unlink(temporary)
    fs.point(f"{name}.create")
    file = fs.open(temporary, create=True)
    try:
        file.write(0, [body + b"\ncrc32c %08x\n" % value(body)])
        fs.point(f"{name}.sync.before")
        file.sync()
    finally:
        file.close()
    fs.point(f"{name}.rename.before")
    fs.rename(temporary, join(directory, name))
    fs.point(f"{name}.rename.after")
    fs.fsync_dir(directory)
    fs.point(f"{name}.durable")


def check_identity(
    fs: FileSystem, directory: str, cluster: str, node: str, joins: str = ""
) -> Identity:
    """Decide whether the (locked) directory may be used, and name it if it is empty.

    Arguments:
        fs: the file system.
        directory: the data directory.
        cluster: the cluster it must belong to.
        node: the node it must belong to.
        joins: ``REJOINS`` or a token: an empty directory is to be let in by the cluster.

    Raises:
        Missing: it has data and no identity.
        Foreign: it belongs to another cluster or node, it was removed, or ``joins`` of a directory
            with data.
        Damaged: the identity file is.
        Unsupported: it was written by another version.
    """
    identity = read_identity(fs, directory)
    # A process killed between rename and sync left a name that a power failure would still take
    # back: a MEMBER could become FOUNDED again, and lose what it acknowledged meanwhile.
    fs.fsync_dir(directory)
    others = [name for name in fs.listdir(directory) if name != _NAME and name not in IGNORED]
    what = f"opening the data directory {directory} failed"
    if identity is None:
        if others:
            raise Missing(
                what,
                f"it is not empty (it holds {', '.join(others[:3])}) and has no identity file",
                "put the identity file back if it was moved, or name an empty directory",
            )
        return _named(fs, directory, cluster, node, joins)
    if (identity.cluster, identity.node) != (cluster, node):
        raise Foreign(
            what,
            f"it belongs to node {identity.node!r} of cluster {identity.cluster!r}, "
            f"not to node {node!r} of cluster {cluster!r}",
            "correct the configuration, or give this replica its own data directory",
        )
    if identity.state is IdentityState.REMOVED:
        raise removed(what)
    let_in = identity.state is IdentityState.MEMBER and not identity.joins
    if not joins or joins == identity.joins or (let_in and joins != REJOINS):
        return identity  # a token that has done its work stays in many a unit file
    if not others or identity.state in (IdentityState.NEW, IdentityState.OFFERED):
        # The operator removed the data and left the identity, or a founding did not come about:
        # as good as empty. What he says now counts; what was said under the old id does not.
        return _named(fs, directory, cluster, node, joins)
    if identity.joins:  # another token than last time
        identity = identity._replace(joins=joins)
        write_identity(fs, directory, identity)
        return identity
    raise Foreign(
        f"rejoining with the data directory {directory} failed",
        "it holds the data of a member: rejoining is for a replica that lost its disk",
        "start without --rejoin; if the data are damaged, move the directory away first",
    )


def removed(what: str) -> StorageError:
    """Build the refusal of a directory that the cluster took out."""
    return Foreign(
        what,
        "the cluster removed this replica: its data directory does not count any more",
        "destroy it; to let the host in again: raftckpt cluster add, with an empty directory",
    )


def _named(fs: FileSystem, directory: str, cluster: str, node: str, joins: str) -> Identity:
    name = fs.random_bytes(16).hex()
    identity = Identity(cluster, node, name, fs.now_ns(), IdentityState.NEW, joins)
    write_identity(fs, directory, identity)
    return identity

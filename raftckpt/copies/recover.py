"""A majority of the directories is gone for good: one that is left becomes a cluster of its own.

Which one: that with the newest log, by (term of the last entry, last index), among those that hold
everything that *any* directory at hand knows to be committed. The newest log alone is not enough
when fewer than a majority are left: an entry of a leader that got nothing committed may be of a
later term than one that a majority had.

Everything acknowledged up to the last entry known to be committed is in it. What was acknowledged
behind that may be in it, or only in the directories that are gone: nobody can tell.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from raftckpt.copies.rebirth import Place, Reborn, make_directory, reborn
from raftckpt.copies.replay import Point, configuration_of, replayed
from raftckpt.errors import ensure
from raftckpt.raft.configuration import ClusterMember, Configuration
from raftckpt.storage import (
    DiskFailed,
    Foreign,
    HeldDirectory,
    Missing,
    RealFileSystem,
    StorageError,
    reading,
)

__all__ = ["Compared", "Comparison", "RecoveredCluster", "compare", "recover"]

# RENAME_EXCHANGE of <linux/fs.h>, AT_FDCWD of <fcntl.h>
_EXCHANGE: Final = 2
_AT_CWD: Final = -100


@dataclass(frozen=True, slots=True)
class Compared:
    """A directory among others.

    Attributes:
        path: of it.
        node: node id.
        directory: its id.
        state: how far it has come; "": it cannot be read.
        founding: founding id.
        cluster: name of the cluster.
        last_term: of the last entry.
        last_index: of the last entry.
        committed: the state behind the last entry that it knows to be committed.
        last: the state behind its last entry.
        lacks: why it does not hold all that is known to be committed ("": it does).
        problem: why it cannot be read ("": it can).
    """

    path: str
    node: str = ""
    directory: str = ""
    state: str = ""
    founding: str = ""
    cluster: str = ""
    last_term: int = 0
    last_index: int = 0
    committed: Point | None = None
    last: Point | None = None
    lacks: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of them.

    Attributes:
        directories: in the order in which they were named.
        best: the one to recover.
        committed: everything acknowledged up to here is in it.
        voters: how many voters its configuration has.
        here: how many of them can be read.
    """

    directories: tuple[Compared, ...]
    best: Compared
    committed: Point
    voters: int
    here: int


def compare(
    paths: Sequence[str], progress: Callable[[int], object] = lambda size: None
) -> Comparison:
    """Find the directory that goes furthest; reads only.

    Arguments:
        paths: of the directories.
        progress: called with the bytes of entries done of the one that is read.

    Raises:
        StorageError: none can be read, or they are of different clusters.
    """
    found: list[Compared] = []
    terms: dict[str, dict[int, int]] = {}
    voters: dict[str, frozenset[str]] = {}
    for path in paths:
        try:
            with reading(path) as held:
                row, terms[path], voters[path] = _looked_at(held, progress)
        except StorageError as error:
            row = Compared(path, problem=f"{error.what}: {error.why}")
        found.append(row)
    usable = [row for row in found if row.committed is not None]
    if not usable:
        raise Missing(
            "comparing the directories failed",
            "none of them holds a log that can be read: "
            + "; ".join(f"{row.path}: {row.problem or row.state}" for row in found),
            "name the data directories of the replicas that are left: data_dir/NODE",
        )
    if len({row.founding for row in usable}) > 1:
        raise Foreign(
            "comparing the directories failed",
            "they are of different foundings: "
            + ", ".join(f"{row.path} {row.founding[:8]}" for row in usable),
            "compare those of one cluster",
        )
    furthest = max(usable, key=lambda row: _known(row).index)
    index = _known(furthest).index
    judged: dict[str, str] = {}
    for row in usable:
        held_term = terms[row.path].get(index)
        if row.last_index < index:
            judged[row.path] = f"it ends at entry {row.last_index}; {index} is committed"
        elif held_term is not None and held_term != terms[furthest.path].get(index, held_term):
            judged[row.path] = (
                f"its entry {index} is another one than the committed one in {furthest.path}"
            )
    rows = tuple(
        row if row.path not in judged else replace(row, lacks=judged[row.path]) for row in found
    )
    best = max(
        (row for row in rows if row.committed is not None and not row.lacks),
        key=lambda row: (row.last_term, row.last_index),
    )
    here = {row.directory for row in usable} & voters[best.path]
    return Comparison(rows, best, _known(furthest), len(voters[best.path]), len(here))


def _known(row: Compared) -> Point:
    ensure(row.committed is not None, "a directory that can be used knows what is committed")
    return row.committed  # type: ignore[return-value]


def _looked_at(
    held: HeldDirectory, progress: Callable[[int], object]
) -> tuple[Compared, dict[int, int], frozenset[str]]:
    """The row of a directory, the terms of its entries, and who votes by its configuration."""
    identity = held.identity
    row = Compared(
        held.path,
        identity.node,
        identity.directory,
        identity.state.value,
        identity.founding,
        identity.cluster,
        held.last_term,
        held.last_index,
    )
    terms = {index: term for _, index, term in held.entries}
    if held.snapshot is not None:
        terms[held.snapshot.index] = held.snapshot.term
    if held.journal is None:
        return row, terms, frozenset()
    state = replayed(held, progress)
    configuration = configuration_of(held)
    row = replace(row, committed=state.committed, last=state.last)
    return row, terms, configuration.voters if configuration is not None else frozenset()


@dataclass(frozen=True, slots=True)
class RecoveredCluster:
    """What was made.

    Attributes:
        path: the directory, which is a new one.
        aside: where the former one is now.
        node: node id.
        cluster: name of the cluster.
        founding: id of the new cluster.
        parent: that of the former one.
        committed: everything acknowledged up to here is in it.
        last: the last state of the former directory, which is that of the new cluster.
        state: what became of it.
        others: members that the former configuration had beside this one.
    """

    path: str
    aside: str
    node: str
    cluster: str
    founding: str
    parent: str
    committed: Point
    last: Point
    state: Reborn
    others: tuple[ClusterMember, ...]


def recover(
    path: str,
    progress: Callable[[int], object] = lambda size: None,
    *,
    rights_off: bool = False,
) -> RecoveredCluster:
    """Make a directory that is left the only voter of a new cluster; the former one is kept aside.

    Arguments:
        path: of the directory.
        progress: called with the bytes of entries done.
        rights_off: whether rights are off in it, whatever they were.

    Raises:
        StorageError: it cannot be used; nothing was changed.
    """
    path = os.path.abspath(path)
    with reading(path) as held:
        identity = held.identity
        if held.journal is None:
            raise Foreign(
                f"recovering the data directory {path} failed",
                f"it holds no log: it is {identity.state.value}",
                "raftckpt data recover --compare names the directory to recover",
            )
        configuration = configuration_of(held)
        state = replayed(held, progress)
        if configuration is None:
            raise Missing(
                f"recovering the data directory {path} failed",
                "no configuration is in it",
                "raftckpt data recover --compare names the directory to recover",
            )
        own, others = _place_in(configuration, identity.directory, identity.node)
        newborn = reborn(state.machine, time.time_ns(), rights_off=rights_off)
        made = f"{path}.recovering"
        founding = make_directory(
            made,
            identity.cluster,
            own,
            state.machine,
            level=configuration.level,
            pinned=configuration.pinned,
            parent=identity.founding,
        )
        aside = _free_name(f"{path}.before-{founding.founding[:8]}")
        _swap(made, path, aside)
    return RecoveredCluster(
        path, aside, identity.node, identity.cluster, founding.founding, identity.founding,
        state.committed, state.last, newborn, others,
    )  # fmt: skip


def _place_in(
    configuration: Configuration, directory: str, node: str
) -> tuple[Place, tuple[ClusterMember, ...]]:
    """Where this directory's replica is, and who else is a member."""
    own = configuration.member(directory) or configuration.named(node)
    others = tuple(member for member in configuration.members if member != own)
    if own is None:
        return Place(node, "", ""), others
    return Place(node, own.peer, own.client), others


def _free_name(name: str) -> str:
    number, found = 1, name
    while os.path.lexists(found):
        number += 1
        found = f"{name}-{number}"
    return found


def _swap(made: str, path: str, aside: str) -> None:
    """Put ``made`` in the place of ``path``, which goes ``aside``: at once, if the system can."""
    fs = RealFileSystem()
    try:
        if _exchanged(made, path):
            os.rename(made, aside)  # that is the former one now
        else:
            os.rename(path, aside)
            os.rename(made, path)
    except OSError as error:
        raise DiskFailed(
            f"putting {made} in the place of {path} failed",
            error.strerror or str(error),
            f"the recovered directory is the one whose raftckpt data inspect tells a parent: "
            f"rename it to {path}",
        ) from error
    fs.fsync_dir(os.path.dirname(path))


def _exchanged(one: str, two: str) -> bool:
    """Exchange two names; False if the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    done = renameat2(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(two), _EXCHANGE)
    return bool(done == 0)

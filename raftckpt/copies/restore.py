"""A snapshot file becomes a cluster of one, with places kept for the others."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from raftckpt.copies.rebirth import (
    Place,
    Reborn,
    make_directory,
    reborn,
    refuse_occupied,
    settle_directory,
)
from raftckpt.copies.snapshots import load_snapshot
from raftckpt.protocol.snapshotfile import FileHead
from raftckpt.storage import Foreign, InUse

__all__ = ["Restored", "refuse_answering", "restore"]

_ANSWER_S: Final = 1.0
"""A host that lives takes or refuses a connection in a round trip; where nothing comes back, each
address costs so long."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was made.

    Attributes:
        path: of the data directory.
        founding: id of the new cluster.
        head: of the file.
        state: what became of its state.
    """

    path: str
    founding: str
    head: FileHead
    state: Reborn


def refuse_answering(addresses: Iterable[tuple[str, str, int]]) -> None:
    """Refuse if somebody listens where a replica of the cluster would serve clients.

    A replica opens its client port when it belongs to a founding, and that is another one.

    Arguments:
        addresses: (node, host, port) each.

    Raises:
        InUse: somebody answers.
    """
    for node, host, port in addresses:
        try:
            socket.create_connection((host, port), _ANSWER_S).close()
        except OSError:
            continue
        raise InUse(
            "restoring failed",
            f"{node} answers at {host}:{port}: a cluster serves there, which this would be a "
            "second one of",
            "stop all replicas of the file first; if it is something else, give the replica "
            "another address",
        )


def restore(
    file: str,
    path: str,
    cluster: str,
    own: Place,
    others: Sequence[Place],
    token: str,
    *,
    of: str = "",
    rights_off: bool = False,
    progress: Callable[[int], object] = lambda size: None,
) -> Restored:
    """Found a cluster of one on a snapshot file.

    Arguments:
        file: the snapshot file.
        path: data directory that is made; it must not exist, or be empty.
        cluster: name of the cluster.
        own: its one voter.
        others: replicas for which places are kept.
        token: opens the places.
        of: name of the cluster that the file is of; "": the same.
        rights_off: whether rights are off in it, whatever the file says.
        progress: called with the bytes read of the file.

    Raises:
        StorageError: the file or the directory cannot be used; nothing was changed.
    """
    if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise refuse_occupied(path)
    head, machine = load_snapshot(file, progress)
    if head.cluster != (of or cluster):
        raise Foreign(
            f"restoring {file} failed",
            f"it is of cluster {head.cluster!r}, not of {of or cluster!r}",
            f"name the right file; to make another cluster of it on purpose: --of {head.cluster}",
        )
    state = reborn(machine, time.time_ns(), rights_off=rights_off)
    made = f"{path}.restoring"
    digest = hashlib.sha256(token.encode()).hexdigest()
    founding = make_directory(
        made,
        cluster,
        own,
        machine,
        level=head.level,
        parent=head.founding,
        others=tuple(others),
        token=digest,
    )
    settle_directory(made, path)
    return Restored(path, founding.founding, head, state)

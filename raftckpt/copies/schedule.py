"""Snapshot files of a cluster in a directory: when the next one is due, and which may go.

A file is named after its cluster and the time at which it was begun, in UTC. Files of other names
are nobody's business here and are never touched.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import Final

from raftckpt.copies.snapshots import Inspected, inspect_snapshot

__all__ = ["SnapshotDirectory", "seconds_of"]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIME: Final = "%Y%m%dT%H%M%SZ"


def seconds_of(text: str) -> int:
    """Seconds of a period such as ``90s``, ``30m``, ``1h``, ``1d``.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if found is None:
        raise ValueError(f"{text!r} is no period: 90s, 30m, 1h, 1d")
    return int(found[1]) * _UNITS[found[2]]


class SnapshotDirectory:
    """A directory with the snapshot files of a cluster.

    Arguments:
        path: of the directory, which must exist.
        cluster: name of the cluster.
        every_s: period.
        keep: how many files are kept, at least 1.
    """

    def __init__(self, path: str, cluster: str, every_s: int, keep: int) -> None:
        self._path = path
        self._cluster = cluster
        self._every_s = every_s
        self._keep = keep
        self._name = re.compile(re.escape(cluster) + r"-([0-9]{8}T[0-9]{6}Z)\.snapshot")

    def files(self) -> list[str]:
        """Paths of the files of this cluster, the oldest first."""
        names = sorted(name for name in os.listdir(self._path) if self._name.fullmatch(name))
        return [os.path.join(self._path, name) for name in names]

    def due_in(self, now: float) -> float:
        """Seconds until the next one is due (0: it is); ``now``: seconds since the epoch."""
        files = self.files()
        if not files:
            return 0.0
        found = self._name.fullmatch(os.path.basename(files[-1]))
        begun = datetime.strptime(found[1], _TIME).replace(tzinfo=UTC) if found else None
        if begun is None or begun.timestamp() > now:  # a clock went back: do not wait for it
            return 0.0
        return max(0.0, begun.timestamp() + self._every_s - now)

    def next_path(self, now: float) -> str:
        """Where the file that is begun now goes."""
        time = datetime.fromtimestamp(now, UTC).strftime(_TIME)
        return os.path.join(self._path, f"{self._cluster}-{time}.snapshot")

    def settle(self, path: str) -> tuple[Inspected, list[str]]:
        """Verify the file that was written, then remove the oldest that are too many.

        Returns:
            What is in the file, and which were removed.

        Raises:
            StorageError: it is not as it was written; nothing was removed.
        """
        found = inspect_snapshot(path)
        gone = [each for each in self.files()[: -self._keep] if each != path]
        for each in gone:
            os.unlink(each)
        return found, gone

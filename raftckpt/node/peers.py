"""The note ``peers`` in the data directory: how often it was started, and whom it met in use.

It names the data directories of each peer, so that one that was given up cannot come back.

``node.founding`` says what it is for. Text with a checksum, replaced atomically, at each start and
when another replica is met in use for the first time; never on the path of a write.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import google_crc32c

from raftckpt.limits import KIB
from raftckpt.storage import Damaged, FileSystem, Missing
from raftckpt.storage.files import join

__all__ = ["PeerNotes"]

_NAME: Final = "peers"
_BYTES_MAX: Final = 64 * KIB
_DIRECTORIES_MAX: Final = 16
"""Data directories remembered per node."""


class PeerNotes:
    """Implements ``raft.links.LocalIdentity``; not in use until :meth:`adopt`."""

    def __init__(self, fs: FileSystem, path: str) -> None:
        """Take the directory ``path``; nothing is read or written yet."""
        self._fs = fs
        self._path = path
        self._epoch = 0
        self._directory = ""
        self._used = False
        self._known: dict[str, list[str]] = {}  # node -> ids of its data directories, latest last
        self.log_is_empty: Callable[[], bool] = lambda: True

    @property
    def epoch(self) -> int:
        """Number of this start on the data directory."""
        return self._epoch

    @property
    def directory(self) -> str:
        """Id of the data directory."""
        return self._directory

    @property
    def used(self) -> bool:
        """Whether the data directory is complete and in use."""
        return self._used

    @property
    def virgin(self) -> bool:
        """Whether the log is still empty."""
        return self.log_is_empty()

    def adopt(self, directory: str) -> None:
        """The data directory with the id ``directory`` is open and locked: count this start.

        Raises:
            Damaged: the note cannot be trusted.
            StorageError: it cannot be read or written.
        """
        self._directory = directory
        self._read()
        self._epoch += 1
        self._write()
        self._used = True

    def knows(self, node: str) -> bool:
        """Whether ``node`` was met in use before."""
        return node in self._known

    def remember(self, node: str, directory: str) -> None:
        """Note durably that ``node`` was met in use.

        Raises:
            StorageError: it cannot be written; the replica must stop.
        """
        directories = self._known.setdefault(node, [])
        if not directories or directories[-1] != directory:
            self._known[node] = [*directories[1 - _DIRECTORIES_MAX :], directory]
            self._write()

    def superseded(self, node: str, directory: str) -> bool:
        """Whether ``node`` came back with another data directory since it had this one.

        The old disk of a replica that rejoined has forgotten what the new one promised.
        """
        return directory in self._known.get(node, ())[:-1]

    def _read(self) -> None:
        path = join(self._path, _NAME)
        try:
            file = self._fs.open(path)
        except Missing:
            return
        try:
            data = file.read(0, _BYTES_MAX)
        finally:
            file.close()
        try:
            body, _, check = data.removesuffix(b"\n").rpartition(b"\ncrc32c ")
            if check != b"%08x" % google_crc32c.value(body):
                raise ValueError("its checksum is wrong")
            fields: dict[str, Any] = json.loads(body)
            self._epoch = int(fields["starts"])
            self._known = {
                str(node): [str(directory) for directory in directories]
                for node, directories in fields["known"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Damaged(
                f"reading {path} failed",
                f"the note of the peers met is damaged ({error})",
                "move the data directory away and start with `raftckpt serve --rejoin`: "
                "the other replicas hold the data",
            ) from error

    def _write(self) -> None:
        fields = {"starts": self._epoch, "known": dict(sorted(self._known.items()))}
        body = json.dumps(fields, indent=1, ensure_ascii=False).encode()
        temporary = join(self._path, _NAME + ".tmp")
        self._fs.unlink(temporary)
        file = self._fs.open(temporary, create=True)
        try:
            file.write(0, [body + b"\ncrc32c %08x\n" % google_crc32c.value(body)])
            file.sync()
        finally:
            file.close()
        self._fs.rename(temporary, join(self._path, _NAME))
        self._fs.fsync_dir(self._path)

"""The note ``peers`` in a data directory: how often it was started, whom it met, who contradicts.

*Incarnation*: how many times the directory was started. *Run id*: drawn at each start. Of every
directory met the highest incarnation and its run id are noted durably before anything that it says
counts: one that comes with less was set back to an older copy, and has forgotten what it promised.

Text with a checksum, replaced atomically, at each start and when a peer has started anew; never on
the path of a write.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from raftckpt.limits import KIB
from raftckpt.storage.files import Damaged, FileSystem, Foreign, Missing, join
from raftckpt.storage.identity import checked_text, replace_text

__all__ = ["Contradiction", "Met", "PeerNotes"]

_NAME: Final = "peers"
_BYTES_MAX: Final = 256 * KIB
"""A KiB for each directory below: what is longer is none of ours."""
_DIRECTORIES_MAX: Final = 256
"""Directories remembered; the one met first goes first."""


class Met(NamedTuple):
    """What is known of a directory."""

    node: str
    incarnation: int
    run: str


class Contradiction(NamedTuple):
    """An append or snapshot of ``directory`` contradicted what is committed here."""

    node: str
    founding: str
    entry: int
    """Index of our committed entry."""
    term: int
    """Its term here."""
    their_term: int
    seen_ns: int
    """Wall clock, for people."""


class PeerNotes:
    """The note of one data directory, which must be locked.

    Attributes:
        incarnation: number of this start.
        run: id of this start.
        contradictions: by directory.
        difference: a sentence about a state that was not the leader's ("": none).
        set_back: what a member said of this directory: it went back in time ("": nobody did).
    """

    def __init__(self, fs: FileSystem, path: str, *, new_ok: bool) -> None:
        """Read the note and count this start, durably.

        Arguments:
            fs: the file system.
            path: the data directory.
            new_ok: there need not be a note yet: nothing was met.

        Raises:
            Missing: the note is gone.
            Damaged: the note cannot be trusted.
            Foreign: it went back in time, and was told so.
            StorageError: it cannot be read or written.
        """
        self._fs = fs
        self._path = path
        self.incarnation = 0
        self.run = fs.random_bytes(8).hex()
        self._met: dict[str, Met] = {}
        self.contradictions: dict[str, Contradiction] = {}
        self.difference = ""
        self.set_back = ""
        self._read(new_ok)
        if self.set_back:
            raise Foreign(
                f"opening the data directory {path} failed",
                self.set_back,
                "move it away and start with `raftckpt serve --rejoin`: the others hold the data",
            )
        self.incarnation += 1
        self._write()

    def objection(self, directory: str, incarnation: int, run: str) -> str | None:
        """Why this start of ``directory`` must not count; None: it may."""
        met = self._met.get(directory)
        if met is None or incarnation > met.incarnation or (incarnation, run) == met[1:]:
            return None
        return (
            f"its data directory went back in time: this is start {incarnation} of it, and start "
            f"{met.incarnation} was met; an old copy has forgotten what it promised. Move it away "
            "and start with `raftckpt serve --rejoin`"
        )

    def remember(self, node: str, directory: str, incarnation: int, run: str) -> None:
        """Note durably that this start of ``directory`` was met.

        Raises:
            StorageError: it cannot be written; the replica must stop.
        """
        met = Met(node, incarnation, run)
        if self._met.get(directory) == met:
            return
        self._met.pop(directory, None)
        self._met[directory] = met
        while len(self._met) > _DIRECTORIES_MAX:
            del self._met[next(iter(self._met))]
        self._write()

    def went_back(self, sentence: str) -> None:
        """Note durably that a member met a later start of this very directory.

        Each start counts: without this, one that is started again and again would pass for new.

        Raises:
            StorageError: it cannot be written; the replica must stop.
        """
        self.set_back = sentence
        self._write()

    def contradicts(self, directory: str, what: Contradiction) -> None:
        """Note durably that ``directory`` contradicts what is committed here.

        Raises:
            StorageError: it cannot be written; the replica must stop.
        """
        if directory not in self.contradictions:
            self.contradictions[directory] = what
            self._write()

    def differs(self, sentence: str) -> None:
        """Note durably that the state here was not the leader's, until :meth:`clear`.

        Raises:
            StorageError: it cannot be written; the replica must stop.
        """
        if not self.difference:
            self.difference = sentence
            self._write()

    def clear(self) -> None:
        """An operator has looked at the difference."""
        if self.difference:
            self.difference = ""
            self._write()

    def settle(self, members: frozenset[str]) -> None:
        """Forget the contradictions of directories that are no members any more."""
        gone = [directory for directory in self.contradictions if directory not in members]
        for directory in gone:
            del self.contradictions[directory]
        if gone:
            self._write()

    def _read(self, new_ok: bool) -> None:
        path = join(self._path, _NAME)
        try:
            file = self._fs.open(path)
        except Missing:
            if new_ok:
                return
            raise Missing(
                f"reading {path} failed",
                "the note of the peers met is gone, and with it how often this was started",
                "put it back if it was moved; else move the data directory away and start with "
                "`raftckpt serve --rejoin`: the other replicas hold the data",
            ) from None
        try:
            data = file.read(0, _BYTES_MAX)
        finally:
            file.close()
        try:
            fields = checked_text(data)
            self.difference = str(fields.get("difference", ""))
            self.set_back = str(fields.get("set_back", ""))
            self.incarnation = int(fields["starts"])
            for directory, (node, incarnation, run) in fields["met"].items():
                self._met[str(directory)] = Met(str(node), int(incarnation), str(run))
            for directory, told in fields["contradictions"].items():
                node, founding, *numbers = told
                self.contradictions[str(directory)] = Contradiction(
                    str(node), str(founding), *map(int, numbers)
                )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Damaged(
                f"reading {path} failed",
                f"the note of the peers met is damaged ({error})",
                "move the data directory away and start with `raftckpt serve --rejoin`: "
                "the other replicas hold the data",
            ) from error

    def _write(self) -> None:
        fields: dict[str, object] = {
            "starts": self.incarnation,
            "met": self._met,
            "contradictions": self.contradictions,
            "difference": self.difference,
        }
        if self.set_back:
            fields["set_back"] = self.set_back
        replace_text(self._fs, self._path, _NAME, fields)

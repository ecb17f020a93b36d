"""The note ``peers`` in a data directory: how often it was started, whom it met, who contradicts.

*Incarnation*: how many times the directory was started. *Run id*: drawn at each start. Of every
directory met the highest incarnation and its run id are noted durably before anything that it says
counts: one that comes with less was set back to an older copy, and has forgotten what it promised.
*Seed*: drawn once; of it come the keys that this directory is recognised by, another one for each
that it meets. What they told for that is noted with whom it met.

Text with a checksum, replaced atomically, at each start and when a peer has started anew; never on
the path of a write.
"""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple

from raftckpt.limits import KIB
from raftckpt.storage.files import Damaged, FileSystem, Foreign, Missing, join
from raftckpt.storage.identity import checked_text, replace_text

__all__ = ["Contradiction", "Met", "PeerNotes"]

_NAME: Final = "peers"
_BYTES_MAX: Final = 256 * KIB
"""A KiB for each directory below: what is longer is none of ours."""
_DIRECTORIES_MAX: Final = 256
"""Directories remembered; of those that are no members the one met first goes first."""
_SEED_BYTES: Final = 32  # 256 bits: nobody guesses one


class Met(NamedTuple):
    """What is known of a directory."""

    node: str
    incarnation: int
    run: str
    key: str = ""
    """Hexadecimal: what it shows to be recognised ("": it has not told)."""
    told: bool = False
    """It was told what we show."""


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

    def __init__(self, fs: FileSystem, path: str, directory: str, *, new_ok: bool) -> None:
        """Read the note and count this start, durably.

        Arguments:
            fs: the file system.
            path: the data directory.
            directory: its id: what was told to be recognised by holds between two of these.
            new_ok: there need not be a note yet: nothing was met.

        Raises:
            Missing: the note is gone.
            Damaged: the note cannot be trusted.
            Foreign: it went back in time, and was told so.
            StorageError: it cannot be read or written.
        """
        self._fs = fs
        self._path = path
        self._directory = directory
        self.incarnation = 0
        self.run = fs.random_bytes(8).hex()
        self._seed = b""
        self._met: dict[str, Met] = {}
        self._members: frozenset[str] = frozenset()
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
        if met is None or incarnation > met.incarnation or (incarnation, run) == met[1:3]:
            return None
        return (
            f"its data directory went back in time: this is start {incarnation} of it, and start "
            f"{met.incarnation} was met; an old copy has forgotten what it promised. Move it away "
            "and start with `raftckpt serve --rejoin`"
        )

    def remember(
        self,
        node: str,
        directory: str,
        incarnation: int,
        run: str,
        *,
        key: bytes = b"",
        told: bool = False,
    ) -> None:
        """Note durably that this start of ``directory`` was met.

        Arguments:
            node: whose it is.
            directory: which one.
            incarnation: number of its start.
            run: id of its start.
            key: what it told to be recognised by from now on (empty: nothing new).
            told: it was told our key for it.

        Raises:
            StorageError: it cannot be written; the replica must stop.
        """
        before = self._met.get(directory)
        if before is not None:
            key, told = key or bytes.fromhex(before.key), told or before.told
        met = Met(node, incarnation, run, key.hex(), told)
        if before == met:
            return
        self._met.pop(directory, None)
        self._met[directory] = met
        while len(self._met) > _DIRECTORIES_MAX:  # a host of strangers makes no member forgotten
            del self._met[next(each for each in self._met if each not in self._members)]
        self._write()

    def own_key(self, directory: str) -> bytes:
        """What this directory shows to ``directory``, and to nobody else.

        Raises:
            StorageError: its seed cannot be written; the replica must stop.
        """
        if not self._seed:
            self._seed = self._fs.random_bytes(_SEED_BYTES)
            self._write()  # before anybody hears of it: another seed would be a stranger's
        return hmac.digest(self._seed, directory.encode("utf-8"), "sha256")

    def key_of(self, directory: str) -> bytes:
        """What ``directory`` told when it was met first (empty: nothing)."""
        met = self._met.get(directory)
        return bytes.fromhex(met.key) if met is not None else b""

    def told(self, directory: str) -> bool:
        """Whether ``directory`` was told our key for it."""
        met = self._met.get(directory)
        return met is not None and met.told

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
        """These are the members: what contradicted and is none any more is forgotten."""
        self._members = members
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
            known_as, seed = fields.get("marks", ("", ""))
            self._seed = bytes.fromhex(seed) if known_as == self._directory else b""
            for directory, (node, incarnation, run, *more) in fields["met"].items():
                key, told = more if more and self._seed else ("", False)
                self._met[str(directory)] = Met(
                    str(node), int(incarnation), str(run), bytes.fromhex(key).hex(), bool(told)
                )
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
            "met": {
                directory: met if met.key or met.told else met[:3]
                for directory, met in self._met.items()
            },
            "contradictions": self.contradictions,
            "difference": self.difference,
        }
        if self._seed:
            fields["marks"] = [self._directory, self._seed.hex()]
        if self.set_back:
            fields["set_back"] = self.set_back
        replace_text(self._fs, self._path, _NAME, fields)

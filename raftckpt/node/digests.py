"""Digests of the state after a Check entry: frozen at once, computed in small slices of time."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Digest", "DigestJobs"]

KEPT_MAX = 4


class Digest(NamedTuple):
    """sha256 over the canonical image after the entry ``at``."""

    at: int
    hex: str


class _Job:
    __slots__ = ("hash", "index", "pieces")

    def __init__(self, index: int, pieces: Iterator[bytes]) -> None:
        self.index = index
        self.pieces = pieces
        self.hash = hashlib.sha256()


class DigestJobs:
    """The last few checks asked for; a fifth drops the oldest, finished or not."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._jobs: OrderedDict[bytes, _Job | Digest] = OrderedDict()
        self._leaders: dict[bytes, str] = {}
        self.last_index = 0

    def told(self, nonce: bytes, digest: bytes) -> None:
        """A leader tells its digest of a check."""
        if nonce in self._jobs:
            self._leaders[nonce] = digest.hex()

    def difference(self) -> tuple[int, str, str] | None:
        """(index, own digest, the leader's) of a check that came out otherwise here; told once."""
        for nonce, theirs in list(self._leaders.items()):
            own = self.get(nonce)
            if own is not None or nonce not in self._jobs:
                del self._leaders[nonce]
            if own is not None and own.hex != theirs:
                return own.at, own.hex, theirs
        return None

    def start(self, nonce: bytes, index: int, pieces: Iterator[bytes]) -> None:
        """Begin the digest of a frozen state."""
        self._jobs[nonce] = _Job(index, pieces)
        self._jobs.move_to_end(nonce)
        while len(self._jobs) > KEPT_MAX:
            self._jobs.popitem(last=False)

    def get(self, nonce: bytes) -> Digest | None:
        """The digest, or None if it is unknown here or not finished yet."""
        entry = self._jobs.get(nonce)
        return entry if isinstance(entry, Digest) else None

    @property
    def busy(self) -> bool:
        """Whether :meth:`work` has something to do."""
        return any(isinstance(entry, _Job) for entry in self._jobs.values())

    def work(self, seconds: float) -> None:
        """Digest for about ``seconds`` (a piece is never split)."""
        until = self._monotonic() + seconds
        for nonce, job in list(self._jobs.items()):
            if not isinstance(job, _Job):
                continue
            for piece in job.pieces:
                job.hash.update(piece)
                if self._monotonic() >= until:
                    return
            self._jobs[nonce] = Digest(job.index, job.hash.hexdigest())
            self.last_index = max(self.last_index, job.index)

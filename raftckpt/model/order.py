"""Keys in their order, kept as they come and go: a page of a million costs what the page costs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

__all__ = ["SortedNames", "beyond"]

_CHUNK: Final = 512
"""Keys of a chunk; with twice as many it is cut in two."""


class SortedNames:
    """A set of texts, in order."""

    __slots__ = ("_chunks", "_lasts")

    def __init__(self, names: Iterable[str] = ()) -> None:
        keys = iter(sorted(names))
        self._chunks: list[list[str]] = []
        while chunk := list(islice(keys, _CHUNK)):
            self._chunks.append(chunk)
        self._lasts = [chunk[-1] for chunk in self._chunks]

    def add(self, name: str) -> None:
        """Add a text that is not in it."""
        chunks, lasts = self._chunks, self._lasts
        at = bisect_left(lasts, name)
        if at == len(chunks):
            if not chunks:
                chunks.append([])
                lasts.append(name)
            else:
                at -= 1
        chunk = chunks[at]
        insort(chunk, name)
        if len(chunk) > 2 * _CHUNK:
            chunks.insert(at + 1, chunk[_CHUNK:])
            lasts.insert(at + 1, chunk[-1])
            del chunk[_CHUNK:]
        lasts[at] = chunk[-1]

    def remove(self, name: str) -> None:
        """Take a text out that is in it."""
        at = bisect_left(self._lasts, name)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, name)]
        if chunk:
            self._lasts[at] = chunk[-1]
        else:
            del self._chunks[at], self._lasts[at]

    def begin(self, first: str) -> Iterator[str]:
        """Yield the texts from ``first`` on."""
        at = bisect_left(self._lasts, first)
        for number in range(at, len(self._chunks)):
            chunk = self._chunks[number]
            yield from chunk[bisect_left(chunk, first) :] if number == at else chunk


def beyond(prefix: bytes) -> bytes | None:
    """Return the first key behind all those that begin with ``prefix``; None: there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None

"""Make an append safe for PySyncObj, which truncates on any append below its last index.

Pure: a log and an append in, the append to deliver instead out. The rules, with ``settled`` = the
highest index known to be committed or applied here:

1. An append that begins below our first entry loses what is settled and begins at ``settled``.
2. Entries that are held already, with the same term, are skipped: nothing is truncated for them.
3. The commit index is bounded by what this append has shown to match.
4. If nothing is left, the append becomes a heartbeat at our last entry, and the answer claims only
   what matched.

A difference at or below ``settled`` is another history: :class:`Contradicts`, and nothing of it is
taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from raftckpt.raft.messages import Append

__all__ = ["Contradicts", "Entry", "Fitted", "fit"]

Entry: TypeAlias = "tuple[bytes, int, int]"


class Contradicts(Exception):
    """An append says otherwise than what is known to be committed here."""

    def __init__(self, index: int, term: int, their_term: int) -> None:
        super().__init__(f"entry {index} is of term {term} here and {their_term} there")
        self.index = index
        self.term = term
        self.their_term = their_term


class Fitted(NamedTuple):
    """The append to deliver, and what to say in the success answer."""

    prev_index: int
    prev_term: int
    entries: Sequence[Any]
    commit: int
    matched: int | None
    """Highest index shown to match; None: the append does not fit and will be refused."""


def fit(log: Sequence[Entry], settled: int, append: Append) -> Fitted:
    """Fit ``append`` to ``log`` (contiguous, ``log[0]`` is the oldest entry kept)."""
    first, last = log[0][1], log[-1][1]
    prev, prev_term, entries = append.prev_index, append.prev_term, append.entries
    skip = 0
    if prev < first:
        skip = min(settled - prev, len(entries))
        prev = settled
        prev_term = log[prev - first][2]
    elif prev > last or log[prev - first][2] != prev_term:
        if prev <= settled:
            raise Contradicts(prev, log[prev - first][2], prev_term)
        return Fitted(prev, prev_term, entries, append.commit, None)
    matched = prev
    count = len(entries)
    while skip < count and matched < last:
        held = log[matched + 1 - first][2]
        if held != entries[skip][2]:
            if matched + 1 <= settled:
                raise Contradicts(matched + 1, held, entries[skip][2])
            break
        matched += 1
        skip += 1
    left = entries[skip:] if skip else entries
    commit = min(append.commit, matched + len(left))
    if left or matched == last:
        return Fitted(matched, log[matched - first][2], left, commit, matched + len(left))
    return Fitted(last, log[-1][2], (), commit, matched)

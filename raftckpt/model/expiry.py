"""The due index: what happens next by cluster time (section expirations, retentions).

A heap with lazy deletion. An entry is live as long as the table names *this very tuple* for its
key, so a time that is set back and forth leaves dead entries but never two live ones. When more
than half is dead the heap is rebuilt, a few entries at each change (cutting the end off a heap
leaves a heap), because rebuilding a million at once would hold the loop for a second.

The order in which live entries come out is the total order of ``(due, uid, section id)``, whatever
the heap's inside looks like: an index rebuilt from an image behaves like the one it replaces.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, TypeAlias

__all__ = ["RETENTION", "DueIndex", "Entry"]

RETENTION: Final = b""
"""Stands in the place of the section id for the retention of the checkpoint itself.

The only section with that id is the default section, which never expires.
"""

Entry: TypeAlias = tuple[int, int, bytes]
"""(due in ns, uid of the checkpoint, section id or RETENTION)."""

_SLACK: Final = 256  # below so many entries a heap is never rebuilt
# More than one, so that a rebuild ends; few, so that no change waits for it
_MOVES_PER_CHANGE: Final = 4


class DueIndex:
    """At most one due time per (uid, section id)."""

    __slots__ = ("_heap", "_live", "_old", "count")

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._old: list[Entry] = []
        self._live: dict[int, dict[bytes, Entry]] = {}
        self.count = 0

    def __len__(self) -> int:
        """Entries in memory, dead ones included (``count`` has only the live ones)."""
        return len(self._heap) + len(self._old)

    def schedule(self, due_ns: int, uid: int, section_id: bytes) -> None:
        """Set the due time of a section or retention, replacing the former one."""
        entry = (due_ns, uid, section_id)
        table = self._live.setdefault(uid, {})
        self.count += section_id not in table
        table[section_id] = entry
        heappush(self._heap, entry)
        self._tidy()

    def cancel(self, uid: int, section_id: bytes) -> None:
        """Forget the due time of a section or retention, if it has one."""
        table = self._live.get(uid)
        if table is None or table.pop(section_id, None) is None:
            return
        self.count -= 1
        if not table:
            del self._live[uid]
        self._tidy()

    def cancel_all(self, uid: int) -> dict[bytes, Entry]:
        """Forget everything about a checkpoint; the caller frees the returned table at leisure."""
        table = self._live.pop(uid, {})
        self.count -= len(table)
        return table

    def first(self) -> Entry | None:
        """Return the live entry that is due first."""
        heap, old = self._top(self._heap), self._top(self._old)
        if heap is None or old is None:
            return heap or old
        return min(heap, old)

    def pop(self) -> None:
        """Remove the entry that :meth:`first` returned."""
        entry = self.first()
        if entry is not None:
            self.cancel(entry[1], entry[2])

    def _is_live(self, entry: Entry) -> bool:
        table = self._live.get(entry[1])
        return table is not None and table.get(entry[2]) is entry

    def _top(self, heap: list[Entry]) -> Entry | None:
        while heap and not self._is_live(heap[0]):
            heappop(heap)
        return heap[0] if heap else None

    def _tidy(self) -> None:
        """Pay a little of the debt at every change, so that nobody pays all of it at once."""
        heap, old = self._heap, self._old
        for _ in range(_MOVES_PER_CHANGE):
            if not heap or self._is_live(heap[0]):
                break
            heappop(heap)
        if not old:
            if len(self._heap) > 2 * self.count + _SLACK:
                self._old, self._heap = self._heap, old
            return
        for _ in range(min(_MOVES_PER_CHANGE, len(old))):
            entry = old.pop()
            if self._is_live(entry):
                heappush(self._heap, entry)

"""The latest changes of all checkpoints, on every replica, shared by all trackers.

Fed by committed entries only. Without trackers it costs a list per entry: what the machine told is
kept as it is. For a checkpoint that is tracked there is a :class:`Trail`, an index of its changes;
a tracker is a position in it, so a slow one holds nothing of its own. Bounded in bytes and in
number; what falls off the old end is lost, and whoever still needed it gets an image instead.

Invariant: all changes with a revision above ``floor`` and up to ``revision`` are here; a trail has
all of its checkpoint above its ``since``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from random import random
from typing import Any, Final

from raftckpt import limits
from raftckpt.model.changes import Change, ChangeKind

__all__ = ["OVERHEAD_BYTES", "History", "Trail", "cost"]

_WRITTEN: Final = int(ChangeKind.WRITTEN)
_TRANSACTION: Final = int(ChangeKind.TRANSACTION)
OVERHEAD_BYTES: Final = 256
"""What a change takes beside its data: tuple, numbers, id."""
_TIDY_FROM: Final = 1024  # fewer than so many that are gone are not worth a copy of the others


def _revision(change: Change) -> int:
    return change[1]


def cost(change: Change) -> int:
    """Approximate bytes of a change, in memory as on the wire."""
    data = change[5]
    if data is None:
        return OVERHEAD_BYTES
    if change[2] == _WRITTEN:
        return OVERHEAD_BYTES + sum([OVERHEAD_BYTES + len(part[2]) for part in data])
    if change[2] == _TRANSACTION:
        return OVERHEAD_BYTES + sum([OVERHEAD_BYTES + len(part[3]) for part in data])
    return OVERHEAD_BYTES + len(data)


class Trail:
    """The changes of one checkpoint that are in the history.

    Positions are numbers that stay the same while the old end is cut off.

    Attributes:
        uid: the checkpoint.
        since: all of its changes above this revision are here.
        first: position of the oldest change here.
        followers: who wants to hear of new ones.
    """

    __slots__ = ("_changes", "_head", "_taken", "first", "followers", "since", "uid")

    def __init__(self, uid: int, since: int) -> None:
        self.uid = uid
        self.since = since
        self.first = 0
        self.followers: dict[Any, None] = {}
        self._changes: list[Change] = []
        self._head = 0
        self._taken: tuple[int, int, tuple[list[Change], int]] = (0, -1, ([], 0))

    @property
    def end(self) -> int:
        """Position behind the newest change."""
        return self.first + len(self._changes) - self._head

    def position(self, revision: int) -> int:
        """Position of the first change above ``revision`` (at least ``since``)."""
        return (
            self.first
            + bisect_right(self._changes, revision, self._head, key=_revision)
            - (self._head)
        )

    def take(self, position: int, most_bytes: int) -> tuple[list[Change], int]:
        """Changes from ``position`` on, at least one if there is one; and their cost.

        Who asks the same as the last one gets the same list: most trackers are equally far.
        """
        if self._taken[0] == position and self._taken[1] == self.end:
            return self._taken[2]
        changes = self._changes
        start = at = self._head + position - self.first
        size = 0
        while at < len(changes):
            size += cost(changes[at])
            if size > most_bytes and at > start:
                size -= cost(changes[at])
                break
            at += 1
        taken = changes[start:at], size
        if size <= most_bytes:  # a large one must not be kept alive by this
            self._taken = position, self.end, taken
        return taken

    def append(self, change: Change) -> None:
        """Take the newest change."""
        self._changes.append(change)

    def drop(self, revision: int) -> None:
        """Forget the change of this revision, the oldest (it may not be here)."""
        self.since = max(self.since, revision)
        head = self._head
        if head == len(self._changes) or self._changes[head][1] > revision:
            return
        self._head = head = head + 1
        self.first += 1
        if head >= _TIDY_FROM and head * 2 >= len(self._changes):
            del self._changes[:head]
            self._head = 0

    def extend_back(self, changes: list[Change], since: int) -> None:
        """Take older changes: all above ``since`` up to those that are here."""
        self._taken = (0, -1, ([], 0))
        self._changes[: self._head] = changes
        self.first -= len(changes)
        self._head = 0
        self.since = since

    def reset(self, revision: int) -> None:
        """Forget everything: no position given out before is valid any more."""
        self.first = self.end + 1
        self._taken = (0, -1, ([], 0))
        self.since = revision
        self._changes = []
        self._head = 0


class History:
    """The changes of the last entries.

    Arguments:
        bytes_max: bound of their cost; the newest entry is kept whatever it costs.
        changes_max: bound of their number, likewise.

    Attributes:
        bytes_max: as given.
        floor: changes up to this revision are gone.
        revision: of the state that the last entry led to.
    """

    def __init__(
        self,
        bytes_max: int = limits.HISTORY_BYTES_MAX,
        changes_max: int = limits.HISTORY_CHANGES_MAX,
    ) -> None:
        self.floor = 0
        self.revision = 0
        self.bytes = 0
        self.count = 0
        self.trails: dict[int, Trail] = {}
        self.bytes_max = bytes_max
        self._changes_max = changes_max
        self._entries: deque[tuple[list[Change], int]] = deque()

    def add(self, changes: list[Change], revision: int) -> Iterable[Trail]:
        """Take the changes of a committed entry; returns the trails that grew."""
        self.revision = revision
        if not changes:
            return ()
        size = OVERHEAD_BYTES * len(changes)
        for change in changes:
            data = change[5]
            if data is not None:
                size += len(data) if change[2] != _WRITTEN else cost(change)
        self._entries.append((changes, size))
        self.bytes += size
        self.count += len(changes)
        grown: dict[int, Trail] = {}
        if self.trails:
            find = self.trails.get
            for change in changes:
                trail = find(change[0])
                if trail is not None:
                    trail.append(change)
                    grown[trail.uid] = trail
        while (self.bytes > self.bytes_max or self.count > self._changes_max) and len(
            self._entries
        ) > 1:
            self._drop_oldest()
        return grown.values()

    def sample(self, since: int, changes: int, most: int) -> Iterator[Change]:
        """Some of the ``changes`` changes above a revision, by chance: about ``most``, or all.

        Those that are no longer here are left out. Costs what ``most`` says, however many entries
        they came in.
        """
        stride = -(-changes // most)
        at = 0  # steps are by chance: a stride would keep step with a program that has one, too
        for looked, (entry, _) in enumerate(reversed(self._entries)):
            if entry[-1][1] <= since or looked >= most:
                return
            if stride == 1:
                yield from (change for change in entry if change[1] > since)
                continue
            while at < len(entry):
                if entry[at][1] > since:
                    yield entry[at]
                at += 1 + int(random() * (2 * stride - 1))
            at -= len(entry)

    def _drop_oldest(self) -> None:
        changes, size = self._entries.popleft()
        self.bytes -= size
        self.count -= len(changes)
        self.floor = changes[-1][1]
        if self.trails:
            for change in changes:
                trail = self.trails.get(change[0])
                if trail is not None:
                    trail.drop(change[1])

    def trail(self, uid: int, since: int) -> Trail | None:
        """Trail of a checkpoint that reaches back to ``since``; None: it is too long ago."""
        trail = self.trails.get(uid)
        if trail is not None and trail.since <= since:
            return trail
        if since < self.floor:
            return None
        known = self.revision if trail is None else trail.since
        older: list[list[Change]] = []
        for changes, _ in reversed(self._entries):
            if changes[-1][1] <= since:
                break
            older.append(
                [change for change in changes if change[0] == uid and since < change[1] <= known]
            )
        found = [change for changes in reversed(older) for change in changes]
        if trail is None:
            trail = self.trails[uid] = Trail(uid, since)
        trail.extend_back(found, since)
        return trail

    def release(self, trail: Trail) -> None:
        """Forget a trail nobody follows."""
        if not trail.followers and self.trails.get(trail.uid) is trail:
            del self.trails[trail.uid]

    def reset(self, revision: int) -> None:
        """Begin anew: the state was replaced by an image of this revision."""
        self._entries.clear()
        self.bytes = self.count = 0
        self.floor = self.revision = revision
        for trail in self.trails.values():
            trail.reset(revision)

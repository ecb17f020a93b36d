"""What a replica remembers of its last hour: rates and latencies, and which checkpoints matter.

Looks once a second, for a fraction of a millisecond, whatever the state holds and however much is
written: of the changes of a second it looks at a sample, and it goes over the checkpoints in
slices. So who asks (page, metrics) finds numbers that exist already.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappush, heapreplace
from itertools import islice
from math import nan
from typing import Any, Final, NamedTuple

from raftckpt.events import EventLog
from raftckpt.node.chronicle import Chronicle
from raftckpt.node.meters import Buckets
from raftckpt.node.replica import Replica
from raftckpt.raft.port import RaftStatus
from raftckpt.server.history import OVERHEAD_BYTES, History, cost

__all__ = ["EVERY_S", "POINT_S", "SHOWN_MAX", "Busy", "LastHour", "QuarterMinute", "quantile"]

log = EventLog("server")

# looks, and points of the charts: fifteen looks each
EVERY_S: Final = 1.0
POINT_S: Final = 15.0
_POINTS: Final = 240
"""An hour of them: 240 x 7 doubles are 13 kB. More are no wider than a pixel each."""
_RECENT: Final = 120
"""Seconds of single values beside the hour."""
_SAMPLE: Final = 600
"""Changes looked at in a second: 2 ms measured. The rate of who has a tenth of them is then right
within a ninth, 95 times of 100."""
_SLICE: Final = 500
"""Checkpoints looked at in a second, for their sizes: 0.6 ms measured."""
_WEIGHT: Final = 0.3
"""Of the latest second in a rate: nine tenths of it are of the last six seconds."""
_BUSY_MAX: Final = 256
"""Rates kept: a dozen times what is shown, so that who becomes busy is among them in time."""
SHOWN_MAX: Final = 20
"""Checkpoints that are told of, the busiest and the largest each."""
_FORGOTTEN: Final = 0.01
"""Changes a second; who has less is not busy."""


class QuarterMinute(NamedTuple):
    """Fifteen seconds.

    Attributes:
        at: their end, in seconds of a monotonic clock.
        changes: changes applied, per second.
        reads: reads taken, per second.
        commit_p50, commit_p99: seconds from the proposal to the results; NaN where nothing was
            proposed.
        sync_p99: seconds of a sync of the disk; NaN without one.
        behind: entries committed, as this replica knows, and not applied here.
    """

    at: float
    changes: float
    reads: float
    commit_p50: float
    commit_p99: float
    sync_p99: float
    behind: float


class Busy:
    """How much a checkpoint is changed: smoothed, per second."""

    __slots__ = ("bytes", "changes")

    def __init__(self) -> None:
        self.changes = 0.0
        self.bytes = 0.0


class _Counts:
    """Counters at a moment, for differences."""

    __slots__ = ("commit", "reads", "revision", "sync")

    def __init__(self, replica: Replica) -> None:
        meters = replica.meters
        self.revision = replica.machine.revision
        self.reads = sum(meters.reads.values())
        self.commit = meters.commit.counts()
        self.sync = meters.fsync.counts()


class LastHour:
    """Of one replica since it was started.

    Arguments:
        replica: what is recorded.
        history: its latest changes.
        alarms: sentences of what is wrong now.

    Attributes:
        busy: uid -> how much it is changed, of the busiest.
        largest: names of the largest checkpoints, the largest first, as of the last time round.
        recent: changes and reads of each of the last 120 seconds.
    """

    def __init__(
        self, replica: Replica, history: History, alarms: Callable[[], Iterable[str]]
    ) -> None:
        self.busy: dict[int, Busy] = {}
        self.largest: list[str] = []
        self.recent: deque[tuple[float, float]] = deque(maxlen=_RECENT)
        self.begun_at = replica.monotonic()
        self.drawn: tuple[object, str] = (None, "")
        """A picture of it, and what it was made from."""
        self.looks = 0
        """How often it looked."""
        self.spent_s = 0.0
        """How long that took."""
        self._replica = replica
        self._history = history
        self._alarms = alarms
        self._columns = tuple(array("d") for _ in QuarterMinute._fields)
        self._looked_at = self._pointed_at = self.begun_at
        self._last = self._point = _Counts(replica)
        self._told_alarms: set[str] = set()
        self._links: dict[str, bool] = {}
        self._members: tuple[tuple[str, bool], ...] = ()
        self._drained: set[str] = set()
        self._after = ""
        self._round: list[tuple[int, str]] = []

    @property
    def chronicle(self) -> Chronicle:
        """What happened of late."""
        return self._replica.meters.chronicle

    def monotonic(self) -> float:
        """The clock of :attr:`begun_at`, in seconds."""
        return self._replica.monotonic()

    def points(self) -> list[QuarterMinute]:
        """The last hour, oldest first."""
        return [QuarterMinute(*row) for row in zip(*self._columns, strict=True)]

    def look(self, raft: RaftStatus, wall_ns: int) -> None:
        """Take note of the time since the last look; to be called about once a second."""
        now = self._replica.monotonic()
        passed = now - self._looked_at
        if passed <= 0:
            return
        self.looks += 1
        last, latest = self._last, _Counts(self._replica)
        changes = max(0, latest.revision - last.revision)  # an image may have less, after a loss
        self.recent.append((changes / passed, (latest.reads - last.reads) / passed))
        self._note_busy(last.revision, changes, passed)
        self._note_sizes()
        self._note_happenings(raft, wall_ns)
        self._looked_at, self._last = now, latest
        if now - self._pointed_at >= POINT_S - EVERY_S / 2:
            self._note_point(now, latest, raft)
        self.spent_s += self._replica.monotonic() - now

    def _note_point(self, now: float, latest: _Counts, raft: RaftStatus) -> None:
        since, passed, meters = self._point, now - self._pointed_at, self._replica.meters
        point = QuarterMinute(
            now,
            max(0, latest.revision - since.revision) / passed,
            (latest.reads - since.reads) / passed,
            quantile(meters.commit, since.commit, latest.commit, 0.5),
            quantile(meters.commit, since.commit, latest.commit, 0.99),
            quantile(meters.fsync, since.sync, latest.sync, 0.99),
            max(0, raft.commit_index - raft.applied_index),
        )
        for column, value in zip(self._columns, point, strict=True):
            if len(column) >= _POINTS:
                del column[: len(column) - _POINTS + 1]
            column.append(value)
        self._pointed_at, self._point = now, latest

    # --- checkpoints ------------------------------------------------------------------------------
    def _note_busy(self, since: int, changes: int, passed: float) -> None:
        for busy in self.busy.values():
            busy.changes *= 1 - _WEIGHT
            busy.bytes *= 1 - _WEIGHT
        if changes:
            sample = list(self._history.sample(since, changes, _SAMPLE))
            share = _WEIGHT * changes / (passed * len(sample)) if sample else 0.0
            for change in sample:
                found = self.busy.get(change[0])
                if found is None:
                    found = self.busy[change[0]] = Busy()
                found.changes += share
                found.bytes += share * max(0, cost(change) - OVERHEAD_BYTES)
        if len(self.busy) > _BUSY_MAX or not changes:
            kept = sorted(self.busy.items(), key=lambda item: -item[1].changes)[:_BUSY_MAX]
            self.busy = {uid: busy for uid, busy in kept if busy.changes > _FORGOTTEN}

    def busiest(self) -> list[tuple[int, Busy]]:
        """(uid, how much it is changed) of those that are changed most, the most first."""
        return sorted(self.busy.items(), key=lambda item: -item[1].changes)[:SHOWN_MAX]

    def told(self) -> list[Any]:
        """What LATELY answers: whole numbers, texts, lists of them; see docs/reference/protocol.md.

        Rates of the last seconds (changes and reads in a thousand seconds, latencies in
        microseconds or None), checkpoints, groups, happenings.
        """
        machine = self._replica.machine
        last = list(self.recent)[-3:]
        rates: list[int | None] = [
            round(1000 * sum(row[at] for row in last) / max(1, len(last))) for at in (0, 1)
        ]
        for point in self.points()[-1:]:
            rates += [
                None if value != value else round(value * 1e6)
                for value in (point.commit_p50, point.commit_p99, point.sync_p99)
            ]
        busy = dict(self.busiest())
        chosen = {uid: machine.checkpoints[uid] for uid in busy if uid in machine.checkpoints}
        for name in self.largest:
            if (found := machine.names.get(name)) is not None:
                chosen.setdefault(found.uid, found)
        rows = [
            [
                each.name,
                round(1000 * busy[uid].changes) if uid in busy else 0,
                round(busy[uid].bytes) if uid in busy else 0,
                each.memory_used,
                len(each.sections),
                len(each.openers),
            ]
            for uid, each in chosen.items()
        ]
        groups = [
            [group.name, group.active, group.holder.node if group.holder else "",
             len(group.members), group.epoch]
            for group in islice(machine.groups.by_name.values(), SHOWN_MAX)
        ]  # fmt: skip
        happened = [*self.chronicle.happenings][-SHOWN_MAX:]
        return [rates, rows, groups, [[each.at_ms, each.kind, each.fields] for each in happened]]

    def _note_sizes(self) -> None:
        """Go on with the time round; what is found counts when it is complete."""
        machine, found = self._replica.machine, self._round
        name = ""
        count = 0
        for name in islice(machine.order.begin(self._after), _SLICE):
            count += 1
            row = machine.names[name].memory_used, name
            if len(found) < SHOWN_MAX:
                heappush(found, row)
            elif row > found[0]:
                heapreplace(found, row)
        if count == _SLICE:
            self._after = name + "\0"  # the next name there may be
            return
        self.largest = [name for _, name in sorted(found, reverse=True)]
        self._after, self._round = "", []

    # --- what happens -----------------------------------------------------------------------------
    def _note_happenings(self, raft: RaftStatus, wall_ns: int) -> None:
        note = self.chronicle.note
        alarms = set(self._alarms())
        for text in sorted(alarms - self._told_alarms):
            note(wall_ns, "alarm", raised=True, text=text)
            log.error("alarm", why=text)
        for text in sorted(self._told_alarms - alarms):
            note(wall_ns, "alarm", raised=False, text=text)
            log.info("alarm_over", why=text)
        self._told_alarms = alarms
        links = {peer.node: peer.connected for peer in raft.peers}
        for node, up in sorted(links.items()):
            if up != self._links.get(node, False):
                note(wall_ns, "link", node=node, up=up)
        self._links = links
        members = tuple((each.node, each.voter) for each in raft.configuration.members)
        drained = {each.node for each in raft.configuration.members if each.drained}
        for node in sorted(drained ^ self._drained):
            note(wall_ns, "drain", node=node, drained=node in drained)
        self._drained = drained
        if members != self._members:
            if self._members:
                told = ", ".join(node if votes else f"{node} (learner)" for node, votes in members)
                note(wall_ns, "members", members=told)
            self._members = members


def quantile(buckets: Buckets, since: list[int], until: list[int], share: float) -> float:
    """The value that ``share`` of those observed between two counts do not exceed, about.

    Within a bucket they are taken to lie evenly; NaN without any. Values above the highest bound
    are told as that bound.
    """
    counts = [after - before for before, after in zip(since, until, strict=True)]
    wanted = share * sum(counts)
    if not wanted:
        return nan
    low, upto = 0.0, 0
    for bound, count in zip(buckets.bounds, counts, strict=False):
        upto += count
        if upto >= wanted:
            return low + (bound - low) * (1 - (upto - wanted) / count)
        low = bound
    return low

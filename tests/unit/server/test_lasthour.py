"""What a replica remembers of its last hour, and what remembering costs."""

from __future__ import annotations

from math import isnan, nan

import pytest

from raftckpt.model.changes import Change, ChangeKind
from raftckpt.node.chronicle import Chronicle
from raftckpt.node.meters import Buckets
from raftckpt.server.history import History
from raftckpt.server.lasthour import POINT_S, SHOWN_MAX, LastHour, quantile
from tests.unit.node.fakes import EPOCH_NS, LoneReplica
from tests.unit.server.costs import calls_of, with_checkpoints

WRITTEN = int(ChangeKind.OVERWRITTEN)


def change(uid: int, revision: int, size: int = 100) -> Change:
    return (uid, revision, WRITTEN, 1, b"k", bytes(size), None)


class Recorded:
    """A replica whose changes are made by hand."""

    def __init__(self) -> None:
        self.world = LoneReplica()
        self.history = History()
        self.alarms: list[str] = []
        self.recorder = LastHour(self.world.replica, self.history, lambda: self.alarms)

    def second(self, *entries: list[Change]) -> None:
        machine = self.world.replica.machine
        for entry in entries:
            machine.revision = entry[-1][1]
            self.history.add(entry, machine.revision)
        self.world.clock.pass_by(1.0)
        self.recorder.look(self.world.log.status(), self.world.clock.wall_ns())

    def told(self, kind: str) -> list[dict]:
        happenings = self.recorder.chronicle.happenings
        return [each.fields for each in happenings if each.kind == kind]


def test_rates_and_latencies_of_a_quarter_of_a_minute() -> None:
    r = Recorded()
    for number in range(15):
        r.world.replica.meters.commit.observe(0.004)
        r.world.replica.meters.reads["local"] += 3
        r.second([change(1, 10 * number + position + 1) for position in range(10)])
    (point,) = r.recorder.points()
    assert point.changes == pytest.approx(10)
    assert point.reads == pytest.approx(3)
    assert 0.0025 < point.commit_p50 < point.commit_p99 <= 0.005
    assert isnan(point.sync_p99)
    assert list(r.recorder.recent)[-1] == pytest.approx((10, 3))


def test_an_hour_is_kept_and_no_more() -> None:
    r = Recorded()
    for _ in range(2 * 3600):
        r.second()
    points = r.recorder.points()
    assert len(points) == 3600 / POINT_S
    assert points[-1].at - points[0].at == pytest.approx(3600 - POINT_S)
    assert len(r.recorder.recent) == 120


def test_the_busiest_are_told_and_forgotten_again() -> None:
    r = Recorded()
    revision = 0
    for _ in range(20):
        entry = []
        for uid, count in ((1, 30), (2, 10), (3, 1)):
            for _ in range(count):
                revision += 1
                entry.append(change(uid, revision, 100 * uid))
        r.second(entry)
    busiest = r.recorder.busiest()
    assert [uid for uid, _ in busiest] == [1, 2, 3]
    assert [busy.changes for _, busy in busiest] == pytest.approx([30, 10, 1], rel=0.01)
    assert [busy.bytes for _, busy in busiest] == pytest.approx([3000, 2000, 300], rel=0.01)
    for _ in range(60):
        r.second()
    assert r.recorder.busiest() == []


def test_of_very_many_changes_a_sample_is_looked_at() -> None:
    r = Recorded()
    revision = 0
    for _ in range(20):
        entries = []
        for _ in range(100):
            entry = []
            for position in range(300):
                revision += 1
                entry.append(change(1 + (position % 3 == 0), revision))
            entries.append(entry)
        r.second(*entries)
    told = {uid: busy.changes for uid, busy in r.recorder.busiest()}
    assert told == pytest.approx({1: 20_000, 2: 10_000}, rel=0.15)
    before = calls_of(lambda: list(r.history.sample(revision - 2000, 2000, 2000)))
    assert calls_of(lambda: list(r.history.sample(revision - 30_000, 30_000, 2000))) < 2 * before


def test_many_checkpoints_of_all_kinds_stay_bounded() -> None:
    r = Recorded()
    revision = 0
    for _ in range(5):
        entry = []
        for uid in range(3000):
            revision += 1
            entry.append(change(uid, revision))
        r.second(entry)
    assert len(r.recorder.busy) <= 256
    assert len(r.recorder.busiest()) == SHOWN_MAX


def test_the_largest_of_a_hundred_thousand_are_found_in_slices() -> None:
    r = Recorded()
    with_checkpoints(r.world.replica.machine, 100_000)
    worst = 0
    for _ in range(201):
        r.world.clock.pass_by(1.0)
        status = r.world.log.status()
        worst = max(worst, calls_of(lambda status=status: r.recorder.look(status, EPOCH_NS)))
    assert r.recorder.largest[:2] == ["many/1099999", "many/1099998"]
    assert len(r.recorder.largest) == SHOWN_MAX
    assert worst < 3000  # of about 0.1 microseconds each


def test_what_happens_is_told_once() -> None:
    r = Recorded()
    r.second()
    r.alarms.append("the disk is full")
    r.second()
    r.second()
    r.alarms.clear()
    r.second()
    assert r.told("alarm") == [
        {"raised": True, "text": "the disk is full"},
        {"raised": False, "text": "the disk is full"},
    ]
    assert r.told("leader") == [{"term": 1, "leader": "n1"}]


def test_leaders_and_the_time_without_one() -> None:
    chronicle = Chronicle()
    for at, term, leader in ((1, 1, None), (2, 1, "n1"), (3, 1, "n1"), (4, 2, None), (5, 2, None)):
        chronicle.led(at * 1_000_000, term, leader)
    chronicle.led(6_000_000, 3, "n2")
    assert [(h.at_ms, h.fields["leader"]) for h in chronicle.happenings] == [
        (2, "n1"), (4, None), (6, "n2"),
    ]  # fmt: skip
    for number in range(10_000):
        chronicle.note(0, "alarm", raised=True, text=str(number) * 1000)
    assert len(chronicle.happenings) == 256
    assert len(str(chronicle.happenings[-1].fields["text"])) == 300


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, nan),
        ([0.5], 1.0, 1.0),
        ([0.5] * 99 + [3.0], 0.5, 0.505),
        ([0.5] * 98 + [3.0] * 2, 0.99, 3.0),
        ([9.0], 0.99, 4.0),
    ],
)
def test_quantiles_lie_within_their_bucket(values, share, expected) -> None:
    buckets = Buckets((1.0, 2.0, 4.0))
    buckets.observe(1.5)
    since = buckets.counts()
    for value in values:
        buckets.observe(value)
    found = quantile(buckets, since, buckets.counts(), share)
    assert found == pytest.approx(expected, nan_ok=True, rel=0.01)

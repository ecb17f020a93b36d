"""Trackers without IO: order, completeness, resume on another replica, resync, bounds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from raftckpt import limits
from raftckpt.model.changes import ChangeKind, replay
from raftckpt.server.history import History, Trail, cost
from tests.messages import record
from tests.unit.model.driver import NEVER, attributes
from tests.unit.server.trackers import Line, TrackedLog, TrackingReplica, opened

TRY_AGAIN, INVALID, NOT_EXIST, NO_RESOURCES = 6, 7, 12, 18
IMAGE, CREATED, OVERWRITTEN, DESTROYED, RESYNC = 1, 2, 4, 11, 12


@pytest.fixture
def log() -> TrackedLog:
    return TrackedLog()


def changes(messages: list[list[Any]]) -> list[tuple[int, int]]:
    return [(c[2], c[1]) for m in messages if m[0] == 3 for c in m[2]]


def test_an_image_then_every_change_with_its_data(log: TrackedLog) -> None:
    client, handle = opened(log)
    client.put(handle, b"a", b"0")
    replica = TrackingReplica()
    log.feed(replica)
    line = replica.track("ckpt")
    start, image = line.pull()
    assert start == [0, 5, 1, [1, None, 2]]
    active = [None, 0, False, 0]
    assert image == [
        3,
        5,
        [(1, 2, IMAGE, 0, None, [[b"a", b"0", NEVER]], [active, NEVER, False])],
        2,
    ]
    client.put(handle, b"a", b"1")
    client.write(handle, [b"a", 1, b"x"], [b"a", 2, b"y"])
    client.create(handle, b"b", b"new", ttl=7)
    log.feed(replica)
    (push,) = line.pull()
    assert push == [
        3, 5,
        [
            (1, 3, OVERWRITTEN, 1, b"a", b"1", None),
            (1, 4, 3, 1, None, [(b"a", 1, b"x"), (b"a", 2, b"y")], None),
            (1, 5, CREATED, 1, b"b", b"new", log.now + 7),
        ],
        5,
    ]  # fmt: skip
    assert line.pull() == []


def test_from_now_on_without_an_image(log: TrackedLog) -> None:
    client, handle = opened(log)
    client.put(handle, b"a", b"0")
    replica = TrackingReplica()
    log.feed(replica)
    line = replica.track(1, None, False)
    assert line.pull() == [[0, 5, 1, [1, 2, 2]]]
    client.put(handle, b"a", b"1")
    log.feed(replica)
    assert changes(line.pull()) == [(OVERWRITTEN, 3)]


def test_nothing_is_sent_before_the_replica_has_seen_what_the_client_saw(log: TrackedLog) -> None:
    client, handle = opened(log)
    client.put(handle, b"a", b"0")
    client.put(handle, b"a", b"1")
    replica = TrackingReplica()
    log.feed(replica, 3)
    lines = [replica.track("ckpt", at=3), replica.track(1, 3), replica.track(1, 2, at=3)]
    assert [line.pull() for line in lines] == [[], [], []]
    log.feed(replica)
    assert [changes(line.pull()) for line in lines] == [[(IMAGE, 3)], [], [(OVERWRITTEN, 3)]]


def test_a_replica_that_stays_behind_says_so(log: TrackedLog) -> None:
    client, handle = opened(log)
    client.put(handle, b"a", b"0")
    replica = TrackingReplica()
    log.feed(replica)
    late = replica.track(1, 3)
    line = replica.track(1, 2)
    replica.tracking.sync(line, record([111, 6, 5, 9]))
    assert line.pull() == [[0, 5, 1, [1, 2, 2]]]
    replica.now = limits.TRACK_WAIT_SECONDS_MAX
    replica.tracking.tick()
    refusal = [TRY_AGAIN, ["behind", 2, None], True]
    assert late.pull() == [[0, 5, *refusal]]
    assert line.pull() == [[0, 6, *refusal]]
    log.apply()
    client.put(handle, b"a", b"1")
    log.feed(replica)
    assert changes(line.pull()) == [(OVERWRITTEN, 3)]
    assert late.pull() == []


def test_a_replica_that_is_cut_off_says_so_once(log: TrackedLog) -> None:
    opened(log)
    replica = TrackingReplica()
    log.feed(replica)
    line = replica.track(1, None, False)
    line.pull()
    for cut_off, told in ((False, []), (True, [[2, "cut_off", None]]), (True, []), (False, [])):
        replica.cut_off = cut_off
        replica.tracking.tick()
        assert line.pull() == told
    replica.cut_off = True
    replica.tracking.tick()
    assert line.pull() == [[2, "cut_off", None]]


def test_a_sync_is_answered_behind_what_it_waits_for(log: TrackedLog) -> None:
    client, handle = opened(log)
    replica = TrackingReplica()
    log.feed(replica)
    line = replica.track(1, None, False)
    line.pull()
    replica.tracking.sync(line, record([111, 7, 5, 3]))
    replica.tracking.sync(line, record([111, 6, 5, 1]))
    assert line.pull() == [[0, 6, 1, 1]]
    client.put(handle, b"a", b"0")
    client.put(handle, b"a", b"1")
    log.feed(replica, -1)
    assert changes(line.pull()) == [(CREATED, 2)]
    log.feed(replica)
    push, reply = line.pull()
    assert (changes([push]), reply) == ([(OVERWRITTEN, 3)], [0, 7, 1, 3])
    # changes of others count, too: they take revisions
    other = client.open("other")
    replica.tracking.sync(line, record([111, 8, 5, 5]))
    client.put(other, b"x", b"")
    log.feed(replica)
    assert line.pull() == [[0, 8, 1, 5]]


def test_the_end(log: TrackedLog) -> None:
    client, handle = opened(log)
    replica = TrackingReplica()
    log.feed(replica)
    line = replica.track(1)
    line.pull()
    replica.tracking.sync(line, record([111, 6, 5, 99]))
    client.do(12, "ckpt")
    client.do(11, handle)
    client.open("ckpt")
    log.feed(replica)
    push, reply = line.pull()
    assert changes([push]) == [(10, 2), (DESTROYED, 3)]
    assert reply == [0, 6, 1, 4]
    assert replica.tracking.count == 0
    assert replica.tracking.history.trails == {}
    replica.tracking.sync(line, record([111, 7, 5, 0]))
    assert line.pull() == [[0, 7, NOT_EXIST, ["tracker", 5, None], True]]
    # who comes back later is told, from the history or without it, and who asks from there on, too
    assert changes(replica.track(1, 1).pull()) == [(10, 2), (DESTROYED, 3)]
    assert changes(replica.track(1, 3).pull()) == [(DESTROYED, 4)]
    fresh = TrackingReplica()
    fresh.install(replica.machine)
    assert changes(fresh.track(1, 1).pull()) == [(DESTROYED, 4)]
    assert fresh.track(1).pull() == [[0, 5, NOT_EXIST, ["checkpoint_missing", 1, None], True]]
    assert fresh.track(7, 0).pull() == [[0, 5, NOT_EXIST, ["checkpoint_missing", 7, None], True]]
    assert fresh.track("no").pull() == [[0, 5, NOT_EXIST, ["checkpoint_missing", "no", None], True]]


def test_what_fell_off_the_history_is_replaced_by_an_image(log: TrackedLog) -> None:
    client, handle = opened(log)
    replica = TrackingReplica(changes_max=3)
    log.feed(replica)
    line = replica.track(1, None, False)
    line.pull()
    for number in range(5):
        client.put(handle, b"a", b"%d" % number)
        log.feed(replica)
    assert replica.tracking.history.floor == 3
    (push,) = line.pull()
    assert changes([push]) == [(RESYNC, 6)]
    assert push[2][0][5] == [[b"a", b"4", NEVER]]
    assert changes(replica.track(1, 2).pull()) == [(RESYNC, 6)]
    assert changes(replica.track(1, 3).pull()) == [
        (OVERWRITTEN, 4),
        (OVERWRITTEN, 5),
        (OVERWRITTEN, 6),
    ]
    client.put(handle, b"a", b"5")
    log.feed(replica)
    assert changes(line.pull()) == [(OVERWRITTEN, 7)]


def test_nothing_missed_means_no_image_however_long_ago_it_was(log: TrackedLog) -> None:
    client, handle = opened(log)
    client.put(handle, b"a", b"0")
    other = client.open("other")
    replica = TrackingReplica(changes_max=3)
    log.feed(replica)
    line = replica.track(1, 2)
    line.pull()
    for number in range(9):
        client.put(other, b"x", b"%d" % number)
    log.feed(replica)
    assert replica.tracking.history.floor > 2
    assert line.pull() == []
    assert replica.track(1, 2).pull() == [[0, 5, 1, [1, 2, 12]]]
    fresh = TrackingReplica()
    fresh.install(replica.machine)
    assert fresh.track(1, 2).pull() == [[0, 5, 1, [1, 2, 12]]]
    replica.install(replica.machine)
    assert line.pull() == []
    client.put(handle, b"a", b"1")
    log.feed(replica)
    assert changes(line.pull()) == [(OVERWRITTEN, 13)]


def test_an_installed_snapshot_that_moved_the_checkpoint_resyncs(log: TrackedLog) -> None:
    client, handle = opened(log)
    replica, ahead = TrackingReplica(), TrackingReplica()
    log.feed(replica)
    line = replica.track(1, None, False)
    waiting = replica.track(1, 3)
    line.pull()
    client.put(handle, b"a", b"0")
    client.put(handle, b"a", b"1")
    client.put(handle, b"a", b"2")
    log.feed(ahead)
    replica.install(ahead.machine)
    assert changes(line.pull()) == [(RESYNC, 4)]
    assert changes(waiting.pull()) == [(RESYNC, 4)]
    client.put(handle, b"a", b"3")
    log.feed(replica)
    assert changes(line.pull()) == [(OVERWRITTEN, 5)]


def test_a_change_larger_than_the_history_is_kept_until_the_next(log: TrackedLog) -> None:
    client, handle = opened(log)
    replica = TrackingReplica(bytes_max=1000)
    log.feed(replica)
    line = replica.track(1, None, False)
    line.pull()
    client.put(handle, b"a", bytes(5000))
    log.feed(replica)
    assert changes(line.pull()) == [(CREATED, 2)]
    client.put(handle, b"a", b"")
    log.feed(replica)
    assert changes(line.pull()) == [(OVERWRITTEN, 3)]
    assert replica.tracking.history.bytes < 1000


def test_limits(log: TrackedLog) -> None:
    opened(log)
    replica = TrackingReplica()
    log.feed(replica)
    tracking, line = replica.tracking, Line()
    for request in range(limits.TRACKERS_PER_CONNECTION_MAX + 1):
        tracking.track(line, record([110, request, 1, None, False, 99 if request % 2 else 0]))
    assert line.got[-1][:4] == [0, 64, NO_RESOURCES, ["limit", "trackers of a connection", None]]
    for request in (0, 1):  # one runs, one waits
        tracking.track(line, record([110, request, 1, None, False, 0]))
        assert line.got[-1][1:3] == [request, INVALID]
    for request in range(100, 101 + limits.TRACKER_SYNCS_MAX):
        tracking.sync(line, record([111, request, 0, 99]))
    assert line.got[-1][:4] == [0, 164, NO_RESOURCES, ["limit", "syncs of a tracker", None]]
    tracking.stop(line, record([112, 200, 0]))
    assert line.got[-1] == [0, 200, 1, None]
    assert len(line.got) == 4 + limits.TRACKER_SYNCS_MAX + 1 + 1  # the TRACK it interrupts as well
    tracking.stop(line, record([112, 201, 0]))
    assert line.got[-1] == [0, 201, NOT_EXIST, ["tracker", 0, None], True]
    tracking.dropped(line)
    tracking.dropped(line)
    assert tracking.count == 0
    assert not tracking._starting
    assert not tracking._syncing
    assert tracking.history.trails == {}


def test_a_slow_reader_holds_nothing_and_images_take_turns(
    log: TrackedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TRACK_IMAGES_MAX", 2)
    client = log.session()
    handle = client.open("ckpt", fields=attributes(sections=1000))
    for number in range(300):
        client.create(handle, b"%d" % number, b"x")
    replica = TrackingReplica()
    log.feed(replica)
    lines = [replica.track(1) for _ in range(5)]
    first = [line.pull(2) for line in lines]
    assert [len(got) for got in first] == [2, 2, 1, 1, 1]  # the others wait for their image
    assert len(list(first[0][1][2][0][5].rows())) == 300
    lines[0].pull()  # it has been sent
    lines[4].stalled_at = 0.0
    assert changes(lines[2].pull(1)) == [(IMAGE, 301)]
    assert lines[3].pull() == []
    lines[1].stalled_at = 0.0
    replica.now = limits.TRACK_STALL_SECONDS_MAX + 1
    replica.tracking.tick()
    assert [bool(line.broken) for line in lines] == [False, True, False, False, False]
    replica.tracking.dropped(lines[1])
    client.put(handle, b"0", b"y")
    log.feed(replica)
    assert changes(lines[3].pull(1)) == [(IMAGE, 302)]
    replica.tracking.dropped(lines[3])
    assert changes(lines[4].pull()) == [(IMAGE, 302)]
    lines[2].pull()
    assert replica.tracking._imaging == {}
    assert replica.tracking._image_waiting == {}


def test_trackers_of_one_connection_take_turns(log: TrackedLog) -> None:
    client, handle = opened(log)
    replica = TrackingReplica()
    log.feed(replica)
    line = Line()
    for request in (1, 2):
        replica.tracking.track(line, record([110, request, 1, None, False, 0]))
    line.pull()
    for number in range(4):
        client.put(handle, b"a", bytes([number]) * 40_000)
    log.feed(replica)
    pushes = line.pull()
    assert [push[1] for push in pushes] == [1, 2] * 4
    assert [push[3] for push in pushes[::2]] == [2, 3, 4, 5]


def test_trail_positions_stay_true() -> None:
    rng = random.Random(3)
    history = History(changes_max=3000)
    told: list[tuple[int, int]] = []
    position = 0
    trail: Trail | None = None
    revision = 0
    for _ in range(3000):
        batch = []
        for _ in range(rng.randrange(1, 9)):
            revision += 1
            batch.append((rng.choice([1, 1, 2]), revision, OVERWRITTEN, 1, b"", b"", None))
        told += [(change[0], change[1]) for change in batch]
        history.add(batch, revision)
        assert history.count <= 3000
        assert sum(1 for entry in history._entries for _ in entry[0]) == history.count <= 3000 + 8
        if rng.random() < 0.01:
            since = max(history.floor, revision - rng.randrange(4000))
            trail = history.trail(1, since)
            assert trail is not None
            position = trail.position(since)
            mine = [r for uid, r in told if uid == 1 and r > since]
            assert [c[1] for c in trail.take(position, 10**9)[0]] == mine
            if trail.since >= history.floor:  # it may know that it missed nothing of its own
                assert history.trail(1, history.floor - 1) is None
        elif trail is not None and position >= trail.first:
            some, size = trail.take(position, rng.choice([1, 256, 3000, 10**6]))
            assert size == sum(map(cost, some))
            at = [r for uid, r in told if uid == 1 and r > since][: len(some)]
            assert [c[1] for c in some] == at
            if at:
                position, since = position + len(at), at[-1]


class Standby:
    """A client that follows with its copy, at whatever replica."""

    def __init__(self, replicas: list[TrackingReplica], rng: random.Random) -> None:
        self.replicas = replicas
        self.rng = rng
        self.line: Line | None = None
        self.at: TrackingReplica | None = None
        self.through: int | None = None
        self.copy: dict[bytes, Any] = {}
        self.kinds: set[int] = set()

    def step(self) -> None:
        if self.line is None:
            self.at = self.rng.choice(self.replicas)
            self.line = self.at.track(1, self.through)
        for message in self.line.pull(self.rng.randrange(4)):
            if message[0] == 0 and message[1] == 5:
                if message[2] != 1:
                    assert message[2] == TRY_AGAIN
                    self.line = None
                    return
                assert message[3][1] in (None, self.through)
            elif message[0] == 3:
                self.take(message)
        if self.rng.random() < 0.1:
            assert self.at is not None
            self.at.tracking.dropped(self.line)
            self.line = None

    def take(self, message: list[Any]) -> None:
        for change in message[2]:
            if change[2] in (IMAGE, RESYNC):
                change = (*change[:5], rows(change[5]), change[6])
            else:
                assert self.through is not None
                assert change[1] > self.through
            replay(self.copy, change)
            self.through = change[1]
            self.kinds.add(change[2])
        assert message[3] >= (self.through or 0)
        self.through = message[3]


def rows(data: Any) -> Any:
    return list(data.rows()) if hasattr(data, "rows") else data


@pytest.mark.parametrize("seed", range(12))
def test_standbys_hold_the_state_whatever_happens_to_them(seed: int) -> None:
    """Small histories, replicas that lag and install snapshots, clients that come and go."""
    rng = random.Random(seed)
    log = TrackedLog()
    client, handle = opened(log)
    replicas = [TrackingReplica(changes_max=rng.choice([4, 40, 4000])) for _ in range(3)]
    standbys = [Standby(replicas, rng) for _ in range(4)]
    for replica in replicas:
        log.feed(replica)
    for _ in range(400):
        name = rng.choice([b"a", b"b", b"c"])
        draw = rng.randrange(10)
        if draw < 5:
            client.put(handle, name, rng.randbytes(rng.randrange(30)))
        elif draw < 7:
            client.write(handle, [name, rng.randrange(9), b"xy"], [name, 0, b"z"])
        elif draw < 8:
            client.do(21, handle, name)
        elif draw < 9:
            client.do(22, handle, name, NEVER, rng.choice([1000, NEVER]))
        else:
            log.due(rng.randrange(900))
        for replica in replicas:
            if rng.random() < 0.6:
                log.feed(replica, replica.machine.applied_index + rng.randrange(6))
            elif rng.random() < 0.02:
                ahead = max((r.machine for r in replicas), key=lambda m: m.applied_index)
                if ahead.applied_index > replica.machine.applied_index:
                    replica.install(ahead)
            if rng.random() < 0.05:
                replica.now += 3
                replica.tracking.tick()
        for standby in standbys:
            standby.step()
    for replica in replicas:
        log.feed(replica)
    kinds: set[int] = set()
    for standby in standbys:
        for _ in range(2000):
            if standby.through == log.machine.revision:
                break
            standby.step()
        sections = log.machine.checkpoints[1].sections
        assert standby.copy == {i: (s[0], s[1]) for i, s in sections.items()}
        kinds |= standby.kinds
    assert {CREATED, OVERWRITTEN, int(ChangeKind.WRITTEN), IMAGE} <= kinds

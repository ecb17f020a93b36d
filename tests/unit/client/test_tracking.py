"""The tracker without IO: scripted replies, then real trackers of replicas behind a bad network."""

from __future__ import annotations

import random
from typing import Any

import pytest

from raftckpt import limits
from raftckpt.client.changes import Change, Part, change_from_wire
from raftckpt.client.core import ClientCore, CoreConfig
from raftckpt.client.greeting import Introduction
from raftckpt.client.operations import Opened
from raftckpt.client.tracking import (
    Stage,
    Target,
    TrackerCore,
    not_started,
    target_of,
    track_point,
    tracker_core,
)
from raftckpt.client.types import Attributes
from raftckpt.errors import (
    Access,
    InvalidParam,
    Library,
    NotExist,
    SectionNotExist,
    SessionLost,
    TryAgain,
    Unavailable,
)
from raftckpt.protocol.frames import FrameDecoder, message_frames, reply_frames
from raftckpt.protocol.operations import TrackPoint
from raftckpt.server.history import History, Trail
from raftckpt.server.tracking import Tracking
from tests.messages import check_request, record, unpack_messages
from tests.unit.model.driver import NEVER
from tests.unit.server.trackers import Line, TrackedLog, TrackingReplica, opened

MEMBERS = {"n1": "h:1", "n2": "h:2", "n3": "h:3"}
STATE = [[None, 0, False, 0], NEVER, False]


def make(
    since: int | None = None, image: bool = True, endpoints: str = "h:1 h:2 h:3"
) -> TrackerCore:
    core = TrackerCore(
        Target(1, "c", since, image, 7),
        endpoints.split(),
        introduction=Introduction("me"),
        connect_timeout=1.0,
        jitter=lambda: 0.5,
    )
    core.seek(10.0)
    return core


class Script:
    """A core whose other side is the test."""

    def __init__(self, core: TrackerCore) -> None:
        self.core = core
        self.now = 10.0
        self.decoder = FrameDecoder()

    def sent(self) -> list[Any]:
        data = self.core.data_to_send()
        messages = [m for body in self.decoder.feed(data) for m in unpack_messages(body)]
        for message in messages:
            assert check_request(message) is None
        return messages

    def send(self, *messages: Any) -> None:
        target = self.core.target()
        assert target is not None
        for frame in message_frames(list(messages)):
            self.core.data_received(target[0], frame, self.now)

    def up(
        self,
        leader: str | None = "n1",
        members: dict[str, str] = MEMBERS,
        founding: str = "f" * 32,
    ) -> None:
        """Connect and greet; TRACK is on its way."""
        target = self.core.target()
        assert target is not None
        self.decoder = FrameDecoder()
        self.core.connected(target[0], self.now)
        assert self.sent() == [[200, 1, [1], "me", None]]
        node = next((n for n, at in members.items() if at == target[1]), "n9")
        hello = {
            "version": 1, "node": node, "founding": founding, "leader": leader,
            "endpoints": members,
        }  # fmt: skip
        self.send([0, 1, 1, hello])

    def run(self, goes_on: int | None, revision: int = 7) -> list[Any]:
        """Connect, and have the replica begin."""
        self.up()
        sent = self.sent()
        self.send([0, 2, 1, [1, goes_on, revision]])
        assert self.core.stage is Stage.RUNNING
        return sent

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(1000):
            if self.core.next_deadline() > end:
                self.now = end
                return
            self.now = max(self.now, self.core.next_deadline())
            self.core.tick(self.now)
        raise AssertionError("the core asks for ticks without end")

    def cut(self) -> None:
        target = self.core.target()
        assert target is not None
        self.core.connection_lost(target[0], "cut", self.now)

    def taken(self) -> list[Change]:
        found = []
        while (change := self.core.take(self.now)) is not None:
            found.append(change)
        return found


def put(revision: int, data: bytes = b"d") -> list[Any]:
    return [1, revision, 4, 3, b"s", data, None]


def image(revision: int, kind: int = 1) -> list[Any]:
    return [1, revision, kind, 0, None, [[b"s", b"d", NEVER], [b"t", b"", 10**9]], STATE]


def test_another_founding_gets_no_track_and_all_of_them_end_the_tracker() -> None:
    script = Script(make())
    script.run(None)
    script.send([3, 2, [image(8)], 8])
    asked = 0
    script.cut()
    while script.core.stage is not Stage.ENDED:
        if script.core.stage is Stage.CONNECTING:
            script.up(founding="a" * 32)
            asked += 1
        else:
            script.advance(0.1)
        assert script.sent() == []
        assert asked <= 6
    assert asked == len(script.core.router.endpoints)
    assert isinstance(script.core.error, SessionLost)
    assert script.core.error.reason == "founding"
    assert [change.revision for change in script.taken()] == [8]


def test_image_then_changes_then_resume() -> None:
    script = Script(make())
    assert script.run(None) == [[110, 2, 1, None, True, 7]]
    assert script.core.started
    script.send([3, 2, [image(8)], 8], [3, 2, [put(9), put(11)], 12])
    found = script.taken()
    assert [(c.kind, c.revision) for c in found] == [
        ("image", 8),
        ("overwritten", 9),
        ("overwritten", 11),
    ]
    assert found[0].image == {b"s": b"d", b"t": b""}
    assert found[0].expirations == {b"t": 1.0}
    assert found[1].session == 3
    first = script.core.target()
    script.cut()
    assert script.core.target() != first
    assert script.run(12) == [[110, 2, 1, 12, False, 7]]
    assert script.core.node == "n2"
    script.send([3, 2, [put(13)], 13])
    assert [c.revision for c in script.taken()] == [13]


def test_an_image_that_did_not_arrive_is_asked_for_again() -> None:
    script = Script(make())
    script.run(None)
    script.cut()
    assert script.run(None) == [[110, 2, 1, None, True, 7]]


def test_from_now_on_is_kept_from_the_first_reply() -> None:
    script = Script(make(image=False))
    assert script.run(7) == [[110, 2, 1, None, False, 7]]
    script.cut()
    assert script.run(7) == [[110, 2, 1, 7, False, 7]]


@pytest.mark.parametrize(
    "messages",
    [
        [[0, 2, 1, [1, 6, 7]]],  # goes on from elsewhere
        [[0, 2, 1, [2, 5, 7]]],  # another checkpoint
        [[0, 2, 1, [1, None, 7]], [3, 2, [put(6)], 6]],  # no image where one must come
        [[0, 2, 1, [1, 5, 7]], [3, 2, [put(5)], 5]],  # again
        [[0, 2, 1, [1, 5, 7]], [3, 2, [put(7), put(6)], 7]],  # out of order
        [[0, 2, 1, [1, 5, 7]], [3, 2, [image(4, 12)], 7]],
        [[0, 2, 1, [1, 5, 7]], [3, 2, [put(7)], 6]],
        [[0, 2, 1, [1, 5, 7]], [3, 2, [[2, *put(7)[1:]]], 7]],
        [[0, 2, 1, [1, 5, 7]], [3, 2, [[1, 7]], 7]],
        [[0, 2, 1, [1, 5, 7]], [3, 2, [[1, 7, 3, 1, None, [[b"s"]], None]], 7]],
        [[0, 2, 1, 9]],
        [[]],
    ],
)
def test_whoever_breaks_the_order_is_left_and_nothing_wrong_is_told(messages: list[Any]) -> None:
    script = Script(make(since=5))
    script.up()
    number = script.core.target()
    script.send(*messages)
    assert script.core.target() != number
    assert all(change.revision > 5 for change in script.taken())
    assert "protocol error" in (script.core.problem or "")


def test_the_end_is_the_end() -> None:
    script = Script(make(since=5))
    script.run(5)
    sync = script.core.sync(99, script.now)
    script.send([3, 2, [put(6), [1, 7, 11, 0, None, None, None]], 7])
    assert script.core.stage is Stage.ENDED
    assert script.core.target() is None
    assert sync.done
    assert [c.kind for c in script.taken()] == ["overwritten", "destroyed"]
    assert script.core.error is None
    assert script.core.sync(100, script.now).done
    assert script.core.problem == "it has ended"


def test_refusals_that_pass_and_those_that_stay() -> None:
    script = Script(make(since=5))
    script.up()
    script.send([0, 2, 6, ["behind", 3, None], True])
    assert script.core.target() == (2, "h:2")
    script.up()
    script.send([0, 2, 18, ["limit", "trackers of a replica", None], True])
    script.up()
    script.send([0, 2, 6, ["behind", 3, None], True])
    assert script.core.stage is Stage.WAITING  # a pause after a round
    assert script.core.target() is None
    failure = not_started(script.core, Target(1, "c", 5, True, 7), 1.0)
    assert isinstance(failure, TryAgain)
    assert "revision 3" in str(failure)
    script.advance(1.0)
    script.up()
    script.send([0, 2, 12, ["checkpoint_missing", 1, None], True])
    assert isinstance(script.core.error, NotExist)
    assert isinstance(not_started(script.core, Target(1, "c", 5, True, 7), 1.0), NotExist)
    assert script.core.error is not None
    assert script.core.problem == script.core.error.message


def test_who_waits_in_vain_is_told_what_a_replica_said_last() -> None:
    script = Script(make(since=5))
    script.up()
    script.send([0, 2, 6, ["behind", 4, None], True])
    assert script.core.error is None
    refusal = not_started(script.core, Target(1, "c", 5, True, 7), 1.0)
    assert isinstance(refusal, TryAgain)
    assert "revision 4" in str(refusal)


def test_a_greeting_refused() -> None:
    script = Script(make())
    target = script.core.target()
    assert target is not None
    script.core.connected(target[0], script.now)
    script.send([0, 1, 11, ["no_right", "reading", None], True])
    assert isinstance(script.core.error, Access)


def test_nobody_there() -> None:
    script = Script(make())
    for _ in range(3):
        script.cut()
    assert script.core.stage is Stage.WAITING
    failure = not_started(script.core, Target(1, "c", None, True, 7), 2.0)
    assert isinstance(failure, Unavailable)
    assert "h:1: cut" in str(failure)
    script.advance(1.0)
    assert script.core.stage is Stage.CONNECTING
    script.advance(1.1)  # no answer in time
    assert script.core.router.problems["h:1"] == "no answer in time"


def test_silence_is_questioned_and_then_left() -> None:
    script = Script(make(since=5))
    script.run(5)
    script.advance(2.1)
    assert script.sent() == [[202, 3]]
    script.send([0, 3, 6, ["not_leader", None, None], True])
    script.advance(2.0)
    assert script.sent() == [[202, 3]]
    number = script.core.target()
    script.advance(2.1)
    assert script.core.target() != number
    assert script.core.router.problems["h:1"] == "it is silent"


def test_a_replica_without_leader_is_left_and_one_that_stops() -> None:
    script = Script(make(since=5))
    script.run(5)
    script.send([2, "leader", {"leader": None, "endpoint": None}])
    script.advance(1.0)
    script.send([2, "leader", {"leader": "n2", "endpoint": "h:2"}])
    script.advance(1.0)
    assert script.core.stage is Stage.RUNNING
    script.send([2, "leader", {"leader": None, "endpoint": None}])
    script.advance(1.6)
    assert script.core.router.problems["h:1"] == "it knows no leader"
    script.run(5)
    script.send([2, "going_away", None], [2, "whatever", 1])
    assert script.core.router.problems["h:2"] == "it stops"
    assert script.core.target() == (3, "h:3")
    script.run(5)
    script.send([2, "cut_off", None])
    assert script.core.router.problems["h:3"] == "it is cut off from the leader"
    alone = Script(make(since=5, endpoints="h:1"))
    alone.up(members={"n1": "h:1"})
    alone.send([0, 2, 1, [1, 5, 7]], [2, "cut_off", None])
    assert alone.core.stage is Stage.RUNNING


def test_a_sync_is_sent_again_until_it_is_true() -> None:
    script = Script(make(since=5))
    sync = script.core.sync(9, script.now)  # not connected yet
    script.run(5)
    assert script.sent() == [[111, 16, 2, 9]]
    script.send([0, 16, 6, ["behind", 8, None], True])
    script.advance(0.1)
    assert script.sent() == [[111, 17, 2, 9]]
    script.cut()
    script.run(5)
    assert script.sent() == [[111, 18, 2, 9]]
    script.send([3, 2, [put(8)], 8], [0, 18, 1, 9])
    assert sync.done
    assert script.core.through == 9
    assert script.core.sync(9, script.now).done
    late = script.core.sync(12, script.now)
    script.core.give_up(late)
    script.send([3, 2, [put(13)], 13])
    assert not late.done
    soon = script.core.sync(14, script.now)
    script.send([3, 2, [put(14)], 14])  # no reply is needed
    assert soon.done


def test_it_stops_reading_when_the_application_does_not_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "TRACKER_BUFFER_CHANGES_MAX", 4)
    script = Script(make(since=5))
    script.run(5)
    script.send([3, 2, [put(r) for r in range(6, 12)], 11])
    assert not script.core.hungry
    script.advance(60.0)  # that is no silence of the replica
    assert script.core.stage is Stage.RUNNING
    assert script.sent() == []
    sync = script.core.sync(12, script.now)
    assert script.core.hungry  # who waits does not take
    script.core.give_up(sync)
    assert not script.core.hungry
    for _ in range(4):
        script.core.take(script.now)
    assert script.core.hungry
    script.advance(1.0)
    assert script.core.stage is Stage.RUNNING
    script.send([3, 2, [put(r) for r in range(12, 20)], 19])
    script.cut()
    assert script.core.hungry  # a new connection must be greeted
    script.run(19)
    assert not script.core.hungry
    assert [c.revision for c in script.taken()] == list(range(10, 20))


def test_less_than_was_sent_is_a_lie() -> None:
    script = Script(make(since=5))
    script.run(5)
    script.core.sync(9, script.now)
    assert script.sent() == [[111, 16, 2, 9]]
    script.send([0, 16, 1, 4])
    assert "less has been sent" in (script.core.problem or "")


def test_what_comes_of_former_connections_is_ignored() -> None:
    script = Script(make(since=5))
    script.run(5)
    number, _ = script.core.target() or (0, "")
    script.core.connected(number, script.now)  # it is up already
    script.core.connection_lost(number - 1, "late", script.now)
    script.send([3, 99, [put(6)], 6], [7, "a kind of a later version"])
    assert script.core.stage is Stage.RUNNING
    assert script.core.waiting == 0
    sync = script.core.sync(9, script.now)
    script.core.give_up(sync)
    script.core.give_up(sync)
    script.core.close()
    script.core.connection_lost(number, "closed", script.now)
    assert script.core.problem == "it has ended"


def test_a_tracker_begins_with_the_replica_on_its_node() -> None:
    client = ClientCore(
        CoreConfig(client_name="me", node="n3"), ["h:1"], secret=b"s" * 16, jitter=lambda: 0.5
    )
    client.members.update(MEMBERS)
    core = tracker_core(client, Target(1, "c", None, True, 7), lambda: 0.5)
    core.seek(1.0)
    core.tick(1.0)
    assert (core.target() or (0, ""))[1] == "h:3"


def test_close() -> None:
    script = Script(make(since=5))
    script.run(5)
    script.core.close()
    assert script.core.target() is None
    assert script.core.next_deadline() == float("inf")
    script.core.tick(99.0)
    script.core.close(Library("too late to be the reason"))
    assert script.core.error is None
    broken = make()
    broken.close(Library("why"))
    assert isinstance(broken.error, Library)


def test_arguments() -> None:
    assert target_of("c", [7, 1], 7, True) == Target(1, "c", 7, True, 7)
    for wrong in (8, -1, True, 1.5, "1"):
        with pytest.raises(InvalidParam, match="from_revision is None or 0"):
            target_of("c", [7, 1], wrong, True)  # type: ignore[arg-type]
    assert track_point("c").message == TrackPoint(0, 0, 0, "c")
    assert track_point(None).message == TrackPoint(0, 0, 0, None)
    opened = Opened(5, "c", 1, True, Attributes(), 0)
    assert track_point(opened).message == TrackPoint(0, 0, 0, 5)
    with pytest.raises(InvalidParam):
        track_point("")


def test_changes_as_users_meet_them() -> None:
    def of(kind: int, section: Any = None, data: Any = None, detail: Any = None) -> Change:
        return change_from_wire([1, 9, kind, 2, section, data, detail])

    copy = {b"s": b"abc"}
    steps = [
        (of(2, b"t", b"x", 5 * 10**9), {b"s": b"abc", b"t": b"x"}),
        (of(3, None, [[b"s", 1, b"_"], [b"t", 3, b"!"]]), {b"s": b"a_c", b"t": b"x\0\0!"}),
        (of(3, None, [[b"s", 2, b"ZZ"]]), {b"s": b"a_ZZ", b"t": b"x\0\0!"}),
        (of(4, b"s", b"new"), {b"s": b"new", b"t": b"x\0\0!"}),
        (of(7, b"s", None, NEVER), {b"s": b"new", b"t": b"x\0\0!"}),
        (of(6, b"t"), {b"s": b"new"}),
        (of(8, None, None, [[2, "n1"], 3, True, 2]), {b"s": b"new"}),
        (of(9, None, None, 10**9), {b"s": b"new"}),
        (of(10), {b"s": b"new"}),
        (of(5, b"s"), {}),
        (of(12, None, [[b"z", b"", NEVER]], STATE), {b"z": b""}),
        (of(11), {}),
    ]
    for change, expected in steps:
        change.apply_to(copy)
        assert copy == expected, change
        assert (change.revision, change.session) == (9, 2)
        assert repr(change).startswith(f"Change(kind='{change.kind}', revision=9, session=2")
    changes = [change for change, _ in steps]
    assert changes[0].expires == 5.0
    assert changes[1].section is None
    assert changes[1].parts == (Part(b"s", 1, b"_"), Part(b"t", 3, b"!"))
    assert (changes[2].section, changes[2].offset, changes[2].data) == (b"s", 2, b"ZZ")
    assert (changes[4].expires, changes[4].section) == (None, b"s")
    active = changes[6]
    assert (active.active, active.epoch, active.exclusive, active.owner) == ((2, "n1"), 3, True, 2)
    assert changes[7].retention == 1.0
    assert changes[8].unlinked
    assert of(99).kind == "unknown_99"
    assert len(repr(of(4, b"s", bytes(10_000)))) < 300


# --- the whole way, without sockets ---------------------------------------------------------------


class Port(Line):
    """A connection to a replica: what the listener and its connections do, in short."""

    def __init__(self, replica: TrackingReplica, number: int) -> None:
        super().__init__()
        self.replica = replica
        self.number = number
        self.decoder = FrameDecoder()
        self.wire: list[bytes] = []
        self.open = True

    def receive(self, data: bytes) -> None:
        for body in self.decoder.feed(data):
            for message in unpack_messages(body):
                assert check_request(message) is None, message
                if message[0] == 200:
                    hello = {"version": 1, "node": "n", "leader": "n1", "endpoints": MEMBERS}
                    self.got.append([0, 1, 1, hello])
                elif message[0] == 202:
                    self.refuse(message[1], 6, "not_leader")
                elif message[0] == 110:
                    self.replica.tracking.track(self, record(message))
                else:
                    self.replica.tracking.sync(self, record(message))

    def flow(self, times: int) -> None:
        for message in self.pull(times):
            self.wire += reply_frames(message, 40) if message[0] == 3 else message_frames([message])


def follow(seed: int) -> None:
    """Cuts, laggards, snapshots, short histories, an application that does not take."""
    rng = random.Random(seed)
    log = TrackedLog()
    writer, handle = opened(log)
    replicas = [TrackingReplica(changes_max=rng.choice([5, 50, 5000])) for _ in range(3)]
    for replica in replicas:
        log.feed(replica)
    core = make(0 if seed % 2 else None)
    core._target = core._target._replace(at_least=1)
    now, copy, seen, kinds = 10.0, dict[bytes, bytes](), -1, set[str]()
    port: Port | None = None
    sync = None

    def step(calm: bool = False) -> None:
        nonlocal now, port, seen, sync
        now += rng.choice([0.0, 0.01, 0.3])
        if now >= core.next_deadline():
            core.tick(now)
        target = core.target()
        if port is not None and (target is None or target[0] != port.number):
            port.replica.tracking.dropped(port)
            port = None
        if port is None and target is not None:
            port = Port(replicas[int(target[1][-1]) - 1], target[0])
            core.connected(target[0], now)
        if port is not None:
            port.receive(core.data_to_send())
            port.flow(rng.randrange(4))
            if core.hungry:
                for _ in range(min(len(port.wire), rng.randrange(6))):
                    core.data_received(port.number, port.wire.pop(0), now)
            if not calm and rng.random() < 0.02:
                core.connection_lost(port.number, "cut", now)
        if sync is None and rng.random() < 0.05:
            sync = (core.sync(log.machine.revision, now), log.machine.revision)
        if sync is not None and sync[0].done:
            assert (core.through or 0) >= sync[1]
            sync = None
        while (calm or rng.random() < 0.5) and (change := core.take(now)) is not None:
            assert change.revision > seen or change.is_image
            change.apply_to(copy)
            seen = change.revision
            kinds.add(change.kind)

    for _ in range(400):
        name = rng.choice([b"a", b"b", b"c"])
        draw = rng.randrange(8)
        if draw < 4:
            writer.put(handle, name, rng.randbytes(rng.randrange(60)))
        elif draw < 6:
            writer.write(handle, [name, rng.randrange(9), b"xy"], [name, 0, b"z"])
        elif draw < 7:
            writer.do(21, handle, name)
        for position, replica in enumerate(replicas):
            if rng.random() < (0.2 if position == seed % 3 else 0.6):  # one is lazy
                log.feed(replica, replica.machine.applied_index + rng.randrange(4))
            elif rng.random() < 0.06:
                ahead = max((r.machine for r in replicas), key=lambda m: m.applied_index)
                if ahead.applied_index > replica.machine.applied_index:
                    replica.install(ahead)
            replica.now = now
            replica.tracking.tick()
        step()
    for replica in replicas:
        log.feed(replica)
    last = core.sync(log.machine.revision, now)
    for _ in range(5000):
        if last.done and not core.waiting:
            break
        step(calm=True)
        for replica in replicas:
            replica.now = now
            replica.tracking.tick()
    assert last.done
    sections = log.machine.checkpoints[1].sections
    assert copy == {i: bytes(s[0]) for i, s in sections.items()}
    assert core.error is None


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_that_follows_is_the_state_whatever_the_network_does(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TRACKER_BUFFER_CHANGES_MAX", 8)
    follow(seed)


# --- the checker checked: each of these bugs must be caught ---------------------------------------


def _on_as_if_nothing_were_lost(self: Tracking, tracker: Any) -> None:
    tracker.position = tracker.trail.first


def _position_behind(self: Trail, revision: int) -> int:
    return min(self.end, position(self, revision) + 1)


def _skip_one(self: Trail, at: int, most: int) -> Any:
    changes, size = take(self, at, most)
    return (changes[1:] if len(changes) > 3 else changes), size


def _resume_further(self: TrackerCore, why: str) -> None:
    lost(self, why)
    self.through = self.through and self.through + 1


def _no_look_at_the_state(self: History, changes: Any, revision: int) -> Any:
    grown = add(self, changes, revision)
    self.revision = revision + 1
    return grown


position, take, lost, add = Trail.position, Trail.take, TrackerCore._lost, History.add
BUGS: list[tuple[Any, str, Any]] = [
    (Tracking, "_fell_behind", _on_as_if_nothing_were_lost),
    (Trail, "position", _position_behind),
    (Trail, "take", _skip_one),
    (Trail, "reset", lambda self, revision: None),
    (TrackerCore, "_lost", _resume_further),
    (History, "add", _no_look_at_the_state),
    (History, "reset", lambda self, revision: None),
    (Change, "apply_to", lambda self, sections: sections.update()),
]


@pytest.mark.parametrize(
    ("where", "name", "bug"), BUGS, ids=[f"{w.__name__}.{n}" for w, n, _ in BUGS]
)
def test_planted_bugs_are_caught(
    where: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TRACKER_BUFFER_CHANGES_MAX", 8)
    monkeypatch.setattr(where, name, bug)

    def histories() -> None:
        for seed in range(20):
            follow(seed)

    with pytest.raises(Exception):  # noqa: B017 - a wrong copy or a broken invariant
        histories()


def test_changes_that_were_handed_over_count_until_they_are_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "TRACKER_BUFFER_CHANGES_MAX", 4)
    script = Script(make(since=5))
    (number,) = script.core.wanted()
    script.run(5)
    script.send([3, 2, [put(r) for r in range(6, 12)], 11])
    assert [c.revision for c in script.core.hand_over()] == list(range(6, 12))
    assert script.core.hand_over() == []
    assert not script.core.hears(number)
    script.core.release(3, script.now)
    assert not script.core.hears(number)
    script.core.release(2, script.now)
    assert script.core.hears(number)
    script.core.close()
    assert script.core.wanted() == {}


# --- copies that are the caller's own -----------------------------------------------------------
def test_a_change_of_a_copy_that_lost_a_section_is_refused_as_a_whole() -> None:
    """The caller owns the copy, and may have taken something out of it."""
    copy = {b"b": b"old"}
    change = Change(
        "transaction",
        7,
        parts=(
            Part(b"b", 0, b"", "deleted"),
            Part(b"c", 0, b"new", "created"),
            Part(b"a", 1, b"x", "written"),
        ),
    )
    with pytest.raises(SectionNotExist, match=r"revision 7 .*b'a'.*begin with an image") as caught:
        change.apply_to(copy)
    assert caught.value.definite
    assert caught.value.reason == "section_missing"
    assert copy == {b"b": b"old"}
    with pytest.raises(KeyError):
        Change("written", 8, parts=(Part(b"b", 0, b"y"), Part(b"a", 0, b"x"))).apply_to(copy)
    assert copy == {b"b": b"old"}


@pytest.mark.parametrize("kind", ["deleted", "expired"])
def test_what_goes_may_be_gone_from_the_copy(kind: str) -> None:
    copy = {b"b": b"old"}
    Change(kind, 7, section=b"a").apply_to(copy)
    assert copy == {b"b": b"old"}


def test_parts_of_a_transaction_build_on_each_other() -> None:
    copy = {b"a": b"12"}
    Change(
        "transaction",
        7,
        parts=(
            Part(b"a", 3, b"x", "written"),
            Part(b"a", 0, b"9", "written"),
            Part(b"b", 0, b"", "created"),
            Part(b"b", 0, b"", "deleted"),
            Part(b"b", 0, b"new", "created"),
            Part(b"b", 0, b"N", "written"),
        ),
    ).apply_to(copy)
    assert copy == {b"a": b"92\0x", b"b": b"New"}

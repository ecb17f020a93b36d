"""Trackers of real replicas: nothing missed, nothing twice, in order, with the data."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import raftckpt
from raftckpt import limits
from raftckpt.client.core import ClientCore
from raftckpt.client.routing import Router
from raftckpt.protocol.frames import MessageStream, pack_messages
from raftckpt.testing import LocalCluster
from tests.e2e.link import Link
from tests.waiting import until

MIB = 1024 * 1024


class Numbers:
    """A thread that puts 1, 2, 3, ... into one section, as fast as it can."""

    def __init__(self, cluster: LocalCluster, name: str, count: int) -> None:
        self.done = 0
        self.errors: list[BaseException] = []
        self._cluster, self._name, self._count = cluster, name, count
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with raftckpt.connect(self._cluster.endpoints, timeout=30) as service:
                checkpoint = service.open(self._name)
                for number in range(1, self._count + 1):
                    checkpoint.put("n", b"%d" % number)
                    self.done = number
        except BaseException as error:
            self.errors.append(error)

    def reach(self, number: int) -> None:
        until(lambda: self.done >= number or self.errors, f"{number} writes")
        assert self.errors == []

    def join(self) -> None:
        self._thread.join(90)
        assert not self._thread.is_alive()
        assert self.errors == []


def numbers(tracker: Any, last: int, timeout: float = 60.0) -> list[int]:
    """Take up to the change that carries ``last``."""
    found: list[int] = []
    while not found or found[-1] != last:
        change = tracker.next(timeout)
        assert change.kind in ("created", "overwritten"), change
        assert (change.section, change.offset) == (b"n", 0)
        found.append(int(change.data))
    return found


def track_at(node: str, track: Any) -> Any:
    """Track at the client's own node (one that has just started may be passed over at first)."""

    def attempt() -> Any:
        tracker = track()
        if tracker.node == node:
            return tracker
        tracker.close()
        return None

    return until(attempt, f"a tracker at {node}")


def test_two_thousand_writes_across_three_kills_of_the_leader(cluster) -> None:
    with raftckpt.connect(cluster.endpoints) as service:
        checkpoint = service.open("kills", create=raftckpt.Attributes())
        with checkpoint.track() as tracker:
            assert tracker.next(10).kind == "image"
            writer = Numbers(cluster, "kills", 2000)
            for reached in (400, 900, 1400):
                writer.reach(reached)
                leader = cluster.leader()
                cluster.kill(leader)
                writer.reach(reached + 100)
                cluster.restart(leader)
            writer.join()
            assert numbers(tracker, 2000) == list(range(1, 2001))
            assert tracker.problem is None
            with pytest.raises(raftckpt.Timeout):
                tracker.next(0)


def test_the_replica_that_serves_is_killed(cluster) -> None:
    with raftckpt.connect(cluster.endpoints, node="n2") as service:
        checkpoint = service.open("served", create=raftckpt.Attributes())
        with track_at("n2", lambda: checkpoint.track(image=False)) as tracker:
            writer = Numbers(cluster, "served", 600)
            writer.reach(200)
            cluster.kill("n2")
            until(lambda: tracker.node not in (None, "n2"), "another replica")
            writer.join()
            assert numbers(tracker, 600) == list(range(1, 601))


def test_a_replica_cut_off_from_the_others_is_left(cluster) -> None:
    leader = cluster.leader()
    lonely = next(node for node in cluster.nodes if node != leader)
    with raftckpt.connect(cluster.endpoints, node=lonely) as service:
        checkpoint = service.open("cut", create=raftckpt.Attributes())
        with track_at(lonely, lambda: checkpoint.track(image=False)) as tracker:
            cluster.partition({lonely}, set(cluster.nodes) - {lonely})
            revision = checkpoint.put("n", b"1")
            assert tracker.sync(revision, timeout=40) >= revision
            assert tracker.node != lonely
            assert numbers(tracker, 1) == [1]


def test_sync_means_that_everything_is_there(cluster) -> None:
    """On each replica, however far it lags behind the one that acknowledged."""
    with raftckpt.connect(cluster.endpoints) as service, contextlib.ExitStack() as stack:
        checkpoint = service.open("sync", create=raftckpt.Attributes())
        trackers = []
        for node in cluster.nodes:
            other = stack.enter_context(raftckpt.connect(cluster.endpoints, node=node))
            tracker = track_at(node, lambda other=other: other.track("sync", image=False))
            trackers.append(stack.enter_context(tracker))
        for number in range(1, 101):
            revision = checkpoint.put("n", b"%d" % number)
            for tracker in trackers:
                assert tracker.sync(revision) == tracker.revision >= revision
                assert [change.data for change in tracker.drain()] == [b"%d" % number]
        checkpoint.put("n", b"last")
        for tracker in trackers:
            tracker.sync()  # everything acknowledged so far
            (change,) = tracker.drain()
            assert change.data == b"last"
            assert change.session == service._driver.core.session != tracker.session


def test_kinds_and_the_end(cluster) -> None:
    attributes = raftckpt.Attributes(update="active", collocated=True, retention=30.0)
    with raftckpt.connect(cluster.endpoints, node="n1") as service:
        checkpoint = service.open("kinds", create=attributes)
        with checkpoint.track() as tracker, raftckpt.connect(cluster.endpoints) as other:
            copy: dict[bytes, bytes] = {}
            tracker.next(10).apply_to(copy)  # nobody is active yet: a standby may track
            epoch = checkpoint.active_replica_set()
            checkpoint.put("big", bytes(3 * MIB))
            checkpoint.write_many([("big", 1, b"ab"), ("big", 3 * MIB + 2, b"c")])
            checkpoint.create("soon", b"x", ttl=0.2)
            checkpoint.synchronize()
            kinds = ["active_changed", "created", "written", "created", "expired"]
            changes = [tracker.next(20) for _ in kinds]
            assert [change.kind for change in changes] == kinds
            for change in changes:
                change.apply_to(copy)
            assert copy == checkpoint.read_all()
            assert changes[0].epoch == epoch
            assert changes[0].active == (tracker.session, "n1")
            assert [change.session for change in changes] == [tracker.session] * 4 + [0]
            other.open("kinds").set_retention(0)
            other.unlink("kinds")
            assert tracker.next(10).kind == "retention_set"
            assert tracker.next(10).kind == "unlinked"
            checkpoint.close()
            other.close()
            assert [change.kind for change in tracker] == ["destroyed"]
            with pytest.raises(StopIteration):
                tracker.next()
        with pytest.raises(raftckpt.NotExist):
            service.track("kinds")
        write_only = service.open("write only", create=raftckpt.Attributes(), mode="w")
        with pytest.raises(raftckpt.Access):
            write_only.track()
        with pytest.raises(raftckpt.InvalidParam):
            service.track("write only", from_revision=1 << 40)


def test_selectable_and_goes_on_without_its_session(cluster) -> None:
    with raftckpt.connect(cluster.endpoints, session_timeout=2.0) as service:
        checkpoint = service.open("select", create=raftckpt.Attributes())
        with checkpoint.track(image=False) as tracker, raftckpt.connect(cluster.endpoints) as other:
            writer = other.open("select")
            assert select.select([tracker.fileno()], [], [], 0) == ([], [], [])
            writer.put("n", b"1")
            assert select.select([tracker.fileno()], [], [], 20)[0]
            assert tracker.next(0).data == b"1"
            assert select.select([tracker.fileno()], [], [], 0) == ([], [], [])
            checkpoint.close()
            writer.put("n", b"2")
            assert tracker.next(20).data == b"2"
        assert select.select([], [], [], 0) == ([], [], [])
        assert tracker.closed
    again = raftckpt.connect(cluster.endpoints)
    tracker = again.track("select")
    again.close()  # the service's trackers end with it
    tracker.next(0)
    with pytest.raises(StopIteration):
        tracker.next(5)


def test_the_asyncio_face(cluster) -> None:
    async def follow() -> None:
        async with raftckpt.aio.connect(cluster.endpoints, node="n3") as service:
            checkpoint = await service.open("aio", create=raftckpt.Attributes())
            async with await checkpoint.track() as tracker:
                assert (await tracker.next(10)).kind == "image"
                served = tracker.node
                for number in range(1, 301):
                    await checkpoint.put("n", b"%d" % number)
                    if number == 100:
                        await asyncio.to_thread(cluster.kill, served)
                await tracker.sync(timeout=30)
                assert [int(c.data) for c in await tracker.drain()] == list(range(1, 301))
                assert tracker.node != served
                with pytest.raises(raftckpt.Timeout):
                    await tracker.next(0.01)
                await checkpoint.unlink()
                await checkpoint.close()
                assert [c.kind async for c in tracker] == ["unlinked", "destroyed"]

    asyncio.run(follow())


# --- cut off for a while ------------------------------------------------------------------------


@pytest.fixture
def link(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """A link to the leader; clients know no other way."""
    monkeypatch.setattr(ClientCore, "learn", lambda self, members: None)
    monkeypatch.setattr(Router, "learn", lambda self, endpoints: None)
    link = Link(cluster, cluster.leader())
    yield link
    link.close()


@pytest.mark.slow
@pytest.mark.long
def test_two_thousand_writes_while_disconnected_for_ten_seconds(cluster, link) -> None:
    with raftckpt.connect(cluster.endpoints) as service:
        service.open("away", create=raftckpt.Attributes())
    with (
        raftckpt.connect(link.endpoint, session=False) as service,
        service.track("away") as tracker,
    ):
        assert tracker.next(10).kind == "image"
        healed = threading.Event()

        def heal() -> None:
            link.cut(False)
            healed.set()

        link.cut(True)
        timer = threading.Timer(10.0, heal)
        timer.start()
        Numbers(cluster, "away", 2000).join()
        until(lambda: tracker.problem is not None or healed.is_set(), "the tracker noticed")
        assert healed.wait(30)
        assert numbers(tracker, 2000) == list(range(1, 2001))
        timer.join()


@pytest.mark.slow
def test_away_for_too_long_means_resync_and_never_a_gap(cluster, link) -> None:
    with (
        raftckpt.connect(cluster.endpoints, timeout=60) as service,
        raftckpt.connect(link.endpoint, session=False) as far,
        service.open("long away", create=raftckpt.Attributes()) as checkpoint,
        far.track("long away") as tracker,
    ):
        assert tracker.next(10).kind == "image"
        checkpoint.put("first", b"1")
        assert tracker.next(10).data == b"1"
        link.cut(True)
        # more than the history keeps, beside what sockets and proxy hold
        for number in range(limits.HISTORY_BYTES_MAX // MIB + 40):
            checkpoint.put("n", number.to_bytes(4, "big") * (MIB // 4))
        link.cut(False)
        copy: dict[bytes, bytes] = {}
        resynced = tracker.next(60)
        while resynced.kind != "resync":  # what was on its way when the link was cut
            resynced = tracker.next(60)
        resynced.apply_to(copy)
        checkpoint.put("n", b"end")
        revision = resynced.revision
        while copy[b"n"] != b"end":
            change = tracker.next(60)
            assert change.revision == revision + 1  # nobody else writes
            revision = change.revision
            change.apply_to(copy)
        assert copy == checkpoint.read_all()
        for node in cluster.nodes:
            status = cluster.status(node)
            assert status is not None
            assert status["history_bytes"] <= limits.HISTORY_BYTES_MAX
        checkpoint.delete("n")


# --- slow readers ---------------------------------------------------------------------------------


def deaf(endpoint: str, name: str) -> socket.socket:
    """A tracker that never reads what it is told."""
    host, port = endpoint.rsplit(":", 1)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(10)
    sock.connect((host, int(port)))
    sock.sendall(pack_messages([[200, 1, [1], "deaf", None], [110, 2, name, None, False, 0]]))
    stream, replies = MessageStream(), 0
    while replies < 2:
        replies += len([m for m in stream.feed(sock.recv(4096)) if m[0] == 0])
    return sock


@pytest.mark.slow
@pytest.mark.long
def test_twenty_trackers_of_which_two_never_read(cluster) -> None:
    node = cluster.leader()
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(raftckpt.connect(cluster.endpoints, node=node))
        checkpoint = service.open("crowd", create=raftckpt.Attributes())
        checkpoint.put("n", b"0")
        for _ in range(2):
            stack.callback(deaf(cluster.endpoint(node), "crowd").close)
        listening = stack.enter_context(raftckpt.connect(cluster.endpoints, node=node))
        trackers = [stack.enter_context(listening.track("crowd", image=False)) for _ in range(18)]
        status = cluster.status(node)
        assert status is not None
        assert status["trackers"] == 20
        before = status["rss_bytes"]
        # far more than sockets and buffers hold, and more than the history keeps
        count, size = 750, 100_000
        for number in range(1, count + 1):
            checkpoint.put("n", b"%06d" % number + bytes(size))
            for tracker in trackers:
                for change in tracker.drain():
                    assert int((change.data or b"")[:6]) <= number
        status = cluster.status(node)
        assert status is not None
        assert status["trackers"] == 20
        assert status["history_bytes"] <= limits.HISTORY_BYTES_MAX
        # the history, what the log keeps of its own, and nothing for the two who do not read
        assert status["rss_bytes"] - before < limits.HISTORY_BYTES_MAX + 200 * MIB
        revision = checkpoint.put("n", b"end")
        for tracker in trackers:
            tracker.sync(revision, timeout=60)
            assert tracker.drain()[-1].data == b"end"
            assert tracker.problem is None
        checkpoint.delete("n")

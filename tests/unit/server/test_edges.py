"""Edges that could move without a test noticing: found by planting mutants."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raftckpt import limits
from raftckpt.model.changes import ChangeKind
from raftckpt.model.types import success
from raftckpt.protocol.frames import pack_messages
from raftckpt.server.connection import Connection
from raftckpt.server.history import cost
from raftckpt.server.listener import ClientListener
from tests.messages import record
from tests.unit.server.test_connection import Loop, Transport, received
from tests.unit.server.test_outbox import Pushing
from tests.unit.server.trackers import TrackedLog, TrackingReplica, opened


def test_a_sync_waits_until_its_time_is_over() -> None:
    log = TrackedLog()
    opened(log)
    replica = TrackingReplica()
    log.feed(replica)
    line = replica.track(1, None, False)
    line.pull()
    replica.tracking.sync(line, record([111, 7, 5, 1000]))
    replica.now += limits.TRACK_WAIT_SECONDS_MAX - 0.1
    replica.tracking.tick()
    assert line.pull() == []
    replica.now += 0.2
    replica.tracking.tick()
    (reply,) = line.pull()
    assert reply[:2] == [0, 7]
    assert reply[2] != 1


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def connection(loop: Loop) -> Connection:
    made = Connection(loop)  # type: ignore[arg-type]
    made.connection_made(Transport())  # type: ignore[arg-type]
    made.greet()
    return made


@pytest.mark.parametrize("error", [None, OSError("lost afterwards")])
def test_a_client_that_ended_its_side_closed_whatever_comes_after(
    loop: Loop, connection: Connection, monkeypatch, error: Exception | None
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(
        Loop, "closed", lambda _, who, *, by_client: told.append(by_client), raising=False
    )
    assert not connection.eof_received()
    connection.connection_lost(error)
    assert told == [True]


def test_a_connection_that_fails_was_not_closed_by_the_client(
    loop: Loop, connection: Connection, monkeypatch
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(
        Loop, "closed", lambda _, who, *, by_client: told.append(by_client), raising=False
    )
    connection.connection_lost(OSError("no route"))
    assert told == [False]


def test_who_owes_too_much_is_not_read_any_further(connection: Connection) -> None:
    connection.outbox.owed = limits.CONNECTION_INFLIGHT_MAX
    connection.data_received(b"\0")
    assert not connection._reading


def test_what_a_tracker_has_is_sent_when_it_is_told(loop: Loop, connection: Connection) -> None:
    first, second = [3, 2, [], 8], [3, 2, [], 9]
    connection.subscription = Pushing([first], [second])  # type: ignore[assignment]
    connection.pause_writing()
    connection.pushable()
    loop.run()
    assert received(connection) == []
    connection.outbox.reads = True
    connection.pushable()
    loop.run()
    assert received(connection) == [first, second]


def test_the_same_changes_are_packed_once_for_all_who_get_them() -> None:
    listener: Any = SimpleNamespace(_last_push=None)
    changes: list[Any] = [[1, 8, 4, 3, b"s", b"d", None]]
    packed = ClientListener.packed(listener, [[3, 2, changes, 8]])
    assert packed == pack_messages([[3, 2, changes, 8]])
    assert ClientListener.packed(listener, [[3, 2, changes, 8]]) is packed
    for other in ([3, 2, changes, 9], [3, 4, changes, 8], [3, 2, [], 8]):
        assert ClientListener.packed(listener, [other]) == pack_messages([other])


def test_a_transaction_costs_what_its_parts_cost() -> None:
    parts = [(4, b"a", 0, b"x" * 1000, None), (3, b"b", 5, b"y" * 500, None)]
    transaction, empty = ([1, 8, ChangeKind.TRANSACTION, 3, None, p] for p in (parts, []))
    single = [1, 8, ChangeKind.OVERWRITTEN, 3, b"a", b"x" * 1000]
    assert 1500 <= cost(transaction) - cost(empty) < 3000
    assert cost(transaction) > cost(single) > 1000


def test_who_owes_less_than_half_is_read_again(connection: Connection) -> None:
    connection.outbox.owed = limits.CONNECTION_INFLIGHT_MAX
    connection.data_received(b"\0")
    half = next(n for n in range(limits.PENDING_SHARED) if n > (limits.PENDING_SHARED - n) // 2)
    for inflight, reading in ((half + 1, False), (half, True)):
        connection.outbox.owed = inflight
        connection.answer(1, success(None))
        connection.flush()
        assert connection._reading == reading


def test_a_checkpoint_that_is_destroyed_while_its_image_waits() -> None:
    log = TrackedLog()
    client, handle = opened(log)
    client.put(handle, b"a", b"0")
    replica = TrackingReplica()
    log.feed(replica)
    line = replica.track(1)
    assert client.do(12, "ckpt").ok
    assert client.do(11, handle).ok
    log.feed(replica)
    told = [change for message in line.pull() if message[0] == 3 for change in message[2]]
    assert [change[2] for change in told] == [ChangeKind.DESTROYED]

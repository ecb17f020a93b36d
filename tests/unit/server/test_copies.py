"""Copies of the state: pieces in order, once each, by turns with the replica's other work."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raftckpt import limits
from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol import operations as ops
from raftckpt.server.copies import PAUSE, Copies
from tests.directories import FOUNDING
from tests.unit.model.driver import DrivenMachine, attributes
from tests.unit.node.fakes import LoneReplica, NotingClient


class Place:
    """A replica with a state of several pieces; time stands still."""

    def __init__(self) -> None:
        world = LoneReplica()
        self.clock = world.clock
        self.driven = DrivenMachine()
        self.session = self.driven.session()
        self.handle = self.session.open("big", fields=attributes(sections=1000, section=1 << 20))
        for number in range(8):
            assert self.session.put(self.handle, b"%d" % number, b"x" * 200_000).ok
        world.replica.situation.machine = self.driven.machine
        self.waiting: list[tuple[float, Callable[[], None]]] = []
        self.copies = Copies(world.replica, self.clock, self._later)
        self.requests = 0

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.waiting.append((seconds, call))

    def begin(self, client: NotingClient, at_least: int = 0) -> int:
        self.requests += 1
        self.copies.begin(client, ops.SnapshotBegin(self.requests, at_least))
        return self.requests

    def copy(self, client: NotingClient) -> int:
        number: int = client.reply(self.begin(client))[0]
        return number

    def piece(self, client: NotingClient, copy: int, number: int) -> int:
        self.requests += 1
        self.copies.piece(client, ops.SnapshotPiece(self.requests, copy, number))
        return self.requests

    def answered(self, client: NotingClient, request: int) -> bool:
        return any(reply[0] == request for reply in client.replies)

    def rest(self, client: NotingClient, copy: int) -> bytes:
        image, number, last = b"", 0, False
        while not last:
            request = self.piece(client, copy, number)
            while not self.answered(client, request):
                self.ring()
            last, data = client.reply(request)
            image += data
            number += 1
        assert number > 4, "a state of one piece shows nothing"
        return image

    def ring(self) -> None:
        seconds, call = self.waiting.pop(0)
        self.clock.now += seconds
        call()


@pytest.fixture
def place() -> Place:
    return Place()


def test_the_pieces_are_the_state_as_it_was_whatever_happens_meanwhile(place: Place) -> None:
    machine = place.driven.machine
    before, revision = b"".join(machine.freeze(secrets=False)), machine.revision
    client = NotingClient()
    told = client.reply(place.begin(client))
    assert told[1:] == [
        "test", FOUNDING, revision, 2, machine.now_ns, "n1", machine.applied_index, 1,
    ]  # fmt: skip
    place.session.put(place.handle, b"0", b"later")
    assert place.rest(client, told[0]) == before
    assert CheckpointMachine.restore([before]).revision == revision < machine.revision


def test_secrets_of_sessions_do_not_leave(place: Place) -> None:
    place.driven.secrets = 76
    secret = place.driven.session().secret
    client = NotingClient()
    image = place.rest(client, place.copy(client))
    restored = CheckpointMachine.restore([image])
    assert secret in place.driven.machine.by_secret
    assert secret not in image
    assert restored.by_secret == {n.to_bytes(16, "big"): n for n in place.driven.machine.sessions}


def test_a_replica_that_is_behind_says_so(place: Place) -> None:
    client, revision = NotingClient(), place.driven.machine.revision
    assert client.reason(place.begin(client, revision + 1)) == "behind"
    assert client.reply(place.begin(client, revision))[3] == revision


def test_pieces_come_once_in_order_and_to_whom_they_belong(place: Place) -> None:
    client, other = NotingClient(), NotingClient()
    copy = place.copy(client)
    assert client.reason(place.piece(client, copy, 1)) == "copy"
    assert other.reason(place.piece(other, copy, 0)) == "copy"
    assert client.reason(place.piece(client, copy + 1, 0)) == "copy"
    assert place.answered(client, place.piece(client, copy, 0))
    assert client.reason(place.piece(client, copy, 0)) == "copy"


def test_pieces_may_be_asked_for_ahead_within_a_limit(place: Place) -> None:
    client = NotingClient()
    copy = place.copy(client)
    place.piece(client, copy, 0)
    place.clock.now -= 1.0  # the next piece is not due yet
    asked = [place.piece(client, copy, 1 + n) for n in range(limits.COPY_PIECES_ASKED_MAX)]
    assert client.reason(place.piece(client, copy, 1 + len(asked))) == "limit"
    while place.waiting:
        place.ring()
    lasts = [client.reply(request)[0] for request in asked if place.answered(client, request)]
    assert lasts[0] is False
    assert lasts[-1] is True


def test_under_load_a_piece_is_followed_by_a_pause_and_without_it_by_none(
    place: Place, monkeypatch
) -> None:
    client = NotingClient()
    copy = place.copy(client)

    def a_piece(number: int, *, load: bool) -> float:
        """Seconds that the piece behind this one has to wait; a piece takes a second."""
        if load:
            place.driven.due()
        deliver = client.deliver

        def slow(request: int, result: object) -> None:
            place.clock.now += 1.0
            deliver(request, result)  # type: ignore[arg-type]

        monkeypatch.setattr(client, "deliver", slow)
        place.piece(client, copy, number)
        while place.waiting:
            place.ring()
        monkeypatch.setattr(client, "deliver", deliver)
        return place.copies._copies[copy].resume_at - place.clock.now

    a_piece(0, load=False)
    assert a_piece(1, load=False) == 0.0
    assert a_piece(2, load=True) == PAUSE
    begun = place.clock.now
    assert a_piece(3, load=False) == 0.0
    assert place.clock.now - begun == PAUSE + 1.0


def test_the_age_of_the_newest_one_counts_from_when_it_was_frozen(place: Place) -> None:
    client = NotingClient()
    assert place.copies.newest() is None
    revision = place.driven.machine.revision
    copy = place.copy(client)
    place.session.put(place.handle, b"0", b"later")
    place.clock.now += 5
    place.rest(client, copy)
    assert place.copies.newest() == (5, revision)
    place.copy(client)  # one that is not read to its end is none
    place.clock.now += 2
    assert place.copies.newest() == (7, revision)


def test_who_hardly_reads_has_to_go_when_another_wants_to_begin(place: Place) -> None:
    lazy = [NotingClient() for _ in range(limits.COPIES_MAX)]
    copies = [place.copy(client) for client in lazy]
    place.clock.now += limits.COPY_YIELDS_SECONDS + 1
    assert place.answered(lazy[0], place.piece(lazy[0], copies[0], 0))
    place.copies.tick()
    assert len(place.copies._copies) == limits.COPIES_MAX, "nobody else wants to"
    place.copy(NotingClient())
    assert copies[0] in place.copies._copies
    assert copies[1] not in place.copies._copies


def test_who_begins_and_goes_in_a_loop_does_not_take_the_replicas_time(
    place: Place, monkeypatch
) -> None:
    machine = place.driven.machine
    freeze = machine.freeze

    def slow(*, secrets: bool) -> object:
        place.clock.now += 0.1
        return freeze(secrets=secrets)

    monkeypatch.setattr(machine, "freeze", slow)
    begun, frozen = place.clock.now, 0
    while place.clock.now < begun + 10.0:
        client = NotingClient()
        request = place.begin(client)
        frozen += place.answered(client, request) and request not in client.refusals
        place.copies.dropped(client)
        place.clock.now += 0.01
    assert 4 <= frozen <= 5, "a twentieth of the time"


def test_only_so_many_at_once_and_whoever_leaves_or_sleeps_makes_room(place: Place) -> None:
    clients = [NotingClient() for _ in range(limits.COPIES_MAX)]
    copies = [place.copy(client) for client in clients]
    late = NotingClient()
    assert late.reason(place.begin(late)) == "busy"
    place.copies.dropped(clients[0])
    assert clients[0].reason(place.piece(clients[0], copies[0], 0)) == "copy"
    place.copy(late)
    place.clock.now += limits.COPY_IDLE_SECONDS_MAX - 1
    place.copies.tick()
    assert place.answered(clients[1], place.piece(clients[1], copies[1], 0))
    place.clock.now += 2
    place.copies.tick()
    assert list(place.copies._copies) == [copies[1]], "only the one that was read lately is left"
    place.rest(late, place.copy(late))
    assert list(place.copies._copies) == [copies[1]], "what is read to its end is let go"

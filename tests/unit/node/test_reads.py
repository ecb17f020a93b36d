from __future__ import annotations

import pytest

from tests.messages import record
from tests.unit.node.fakes import ASYNC, ENDPOINTS, SECOND, NotingClient


def test_attach_waits_for_a_confirmed_leader_and_takes_the_session_over(world, client, handle):
    session = client.session.id
    other = NotingClient()
    world.log.hold_reads = True
    number = world.attach(other, session)
    world.log.step()
    assert not other.replies
    world.log.hold_reads = False
    world.log.step()
    assert other.reply(number) == [1, 10 * SECOND]
    assert other.attaches_over == 1
    assert client.was_detached
    assert client.session is None
    put = world.put(other, handle, 2)
    world.log.step()
    assert other.reply(put)


@pytest.mark.parametrize(
    ("session", "secret", "reason"), [(77, b"s" * 16, "session"), (1, b"x" * 16, "secret")]
)
def test_attach_refused(world, client, session, secret, reason):
    other = NotingClient()
    number = world.attach(other, session, secret)
    world.log.step()
    assert other.reason(number) == reason
    assert other.session is None
    assert other.attaches_over == 1


def test_attach_after_leadership_came_back_knows_the_last_sequence(world, client, handle):
    session = client.session.id
    world.put(client, handle, 2)
    world.log.run()
    world.log.lose()
    world.log.lead()
    number = world.put(client, handle, 3)
    assert client.refusals[number] == ("not_leader", True, ENDPOINTS["n1"])
    again = world.attach(client, session)
    world.log.step()
    assert client.reply(again)[0] == 2
    put = world.put(client, handle, 3)
    world.log.step()
    assert client.reply(put)


def test_unconfirmed_attach_is_not_leader(world, client):
    number = world.attach(NotingClient(), 1)
    other = NotingClient()
    number = world.attach(other, 1)
    world.replica.flush()
    world.log.lose()
    assert other.reason(number) == "not_leader"
    assert other.attaches_over == 1


def test_a_linearizable_read_waits_for_its_round(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.log.hold_reads = True
    number = world.read(client, handle)
    world.log.step()
    assert number not in [reply[0] for reply in client.replies]
    world.log.hold_reads = False
    world.log.step()
    assert client.reply(number)[1] == [b"v"]


def test_one_round_serves_all_waiting_reads(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.log.hold_reads = True
    for _ in range(10):
        world.read(client, handle)
    world.replica.flush()
    assert len(world.log.reads) == 1


def test_reads_there_is_no_time_for_are_answered_in_turns(world, client, handle, monkeypatch):
    """Somebody asks for a thousand expensive reads; another one's read does not wait for them."""
    world.put(client, handle, 2)
    world.log.run()
    answer, answered = world.replica._reads._answer, []

    def expensive(owner, query):
        world.clock.pass_by(0.001)
        answered.append(owner)
        answer(owner, query)

    monkeypatch.setattr(world.replica._reads, "_answer", expensive)
    hog, other = world.open_session(secret=b"h" * 16), world.open_session(secret=b"o" * 16)
    asked = [world.read(hog, "ckpt") for _ in range(1000)]
    world.log.step()
    assert len(answered) == 8, "a few, then others may go first"
    number = world.read(other, "ckpt")
    woken = world.wakes
    world.log.step()
    world.log.step()
    assert other.reply(number)[1] == [b"v"]
    assert len(answered) < 40
    assert world.wakes > woken, "it goes on without being asked"
    while world.replica._reads.late:
        world.log.step()
    assert [reply[0] for reply in hog.replies[1:]] == asked, "in order, each once"


def test_reads_that_wait_for_a_write_cost_nothing_until_it_is_applied(world, client, monkeypatch):
    """Of thousands behind one write, each entry of others looks at one."""
    handle = world.open_checkpoint(client, flags=2)  # accepted early
    other = world.open_session(secret=b"o" * 16)
    theirs = world.open_checkpoint(other, flags=2)
    world.log.hold = True
    world.put(client, handle, 2)
    numbers = [world.read(client, handle, after=2) for _ in range(500)]
    world.log.step()
    assert len(world.replica._reads.blocked[client]) == 500
    looks = []
    caught_up = world.replica._reads._caught_up
    monkeypatch.setattr(
        world.replica._reads, "_caught_up", lambda *args: looks.append(1) or caught_up(*args)
    )
    held, world.log.waiting = world.log.waiting, []
    world.put(other, theirs, 2)
    world.log.hold = False
    world.log.step()
    assert len(looks) == 1
    assert not client.replies[2:]
    world.log.waiting = held
    world.log.run()
    assert not world.replica._reads.blocked
    assert [reply[0] for reply in client.replies if reply[0] in numbers] == numbers


def test_confirmed_reads_are_refused_with_leadership(world, client, handle, monkeypatch):
    world.put(client, handle, 2)
    world.log.run()
    monkeypatch.setattr(
        world.replica._reads,
        "_answer",
        lambda owner, query: world.clock.pass_by(0.01),
        raising=True,
    )
    numbers = [world.read(client, "ckpt") for _ in range(20)]
    world.log.step()
    world.log.lose()
    assert [client.reason(number) for number in numbers[8:]] == ["not_leader"] * 12


def test_a_read_that_came_during_a_round_waits_for_a_later_one(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.log.hold_reads = True
    numbers = []
    for _ in range(4):
        numbers.append(world.read(client, handle))
        world.log.step()
    assert len(world.log.reads) == 2  # two rounds under way, the rest waits
    first = world.log.reads.pop(0)
    first(True)
    answered = [reply[0] for reply in client.replies]
    assert [number in answered for number in numbers] == [True, False, False, False]


def test_reads_of_ones_own_accepted_writes_wait_for_them(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC)
    world.put(client, handle, 2, b"k", b"old")
    world.log.run()
    world.log.hold = True
    world.put(client, handle, 3, b"k", b"new")
    for local in (0, 1):
        number = world.read(client, handle, after=3, local=local)
        world.log.step()
        assert number not in [reply[0] for reply in client.replies]
    world.log.hold = False
    world.log.step()
    assert client.reply(number)[1] == [b"new"]
    assert client.reply(number - 1)[1] == [b"new"]


def test_a_read_after_a_sequence_nobody_sent_is_a_gap(world, client, handle):
    number = world.read(client, handle, after=9)
    assert client.reason(number) == "gap"


def test_a_local_read_needs_no_leader_and_no_session(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.log.lose()
    stranger = NotingClient()
    number = world.read(stranger, "ckpt", local=1)
    assert stranger.reply(number)[1] == [b"v"]
    number = world.read(stranger, "ckpt")
    assert stranger.reason(number) == "not_leader"


def test_keepalive(world, client):
    world.replica.keepalive(client, record([202, 70]))
    world.log.step()
    assert client.reply(70) == [world.replica.machine.revision]
    other = NotingClient()
    world.replica.keepalive(other, record([202, 71]))
    world.log.step()
    assert other.reason(71) == "not_leader"
    world.log.lose()
    world.replica.keepalive(client, record([202, 72]))
    assert client.reason(72) == "not_leader"


def test_a_leader_that_was_deposed_unknowingly_proves_nobody_alive(world, client):
    world.log.hold_reads = True
    world.replica.keepalive(client, record([202, 70]))
    world.log.step()
    assert not client.replies[1:]
    world.log.lose()
    assert client.reason(70) == "not_leader"


def test_nobody_is_proven_alive_while_its_end_is_on_its_way(world, client):
    """It would believe that nobody else can be active, and the entry may be applied any time."""
    session = client.session.id
    world.log.hold = True
    world.clock.pass_by(10.1)
    world.log.step()
    world.log.step()
    other = NotingClient()
    number = world.attach(other, session)
    world.replica.keepalive(client, record([202, 70]))
    world.log.step()
    assert client.reason(70) == other.reason(number) == "ending"
    assert other.session is None
    contexts = [context for _, context in world.log.waiting]
    world.log.waiting.clear()
    world.replica.abandon(contexts)  # it was cut off
    number = world.attach(other, session)
    world.log.step()
    assert other.reply(number)[1] == 10 * SECOND


def test_blocked_reads_of_a_lost_session_are_told(world, client):
    handle = world.open_checkpoint(client, flags=ASYNC)
    world.log.hold = True
    world.put(client, handle, 2)
    number = world.read(client, handle, after=2)
    world.log.step()
    world.replica.closed(client, by_client=True)
    world.log.hold = False
    world.log.run()
    assert client.reason(number) == "not_leader"

from __future__ import annotations

import pytest

from tests.unit.node.fakes import SECOND, LoneReplica, NotingClient


def alive(world: LoneReplica) -> int:
    return len(world.replica.machine.sessions)


def test_a_silent_session_is_expired(world, client):
    world.clock.pass_by(9.9)
    world.log.run()
    assert alive(world) == 1
    assert world.replica.deadline() == pytest.approx(world.clock.now + 0.1, abs=0.01)
    world.clock.pass_by(0.2)
    world.log.run()
    assert alive(world) == 0
    assert client.notices == [("session_lost", "expired")]
    assert client.session is None


@pytest.mark.parametrize("seconds", [2.0, 12.0, 3600.0])
def test_a_standstill_of_the_replica_ends_no_session(world, client, seconds):
    world.clock.pass_by(5.0)
    world.clock.stand_still(seconds)
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(4.9)  # it has the time that it had before, and no more
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(0.3)
    world.log.run()
    assert alive(world) == 0


def test_a_close_before_a_standstill_leaves_the_rest_of_the_grace(world, client):
    world.replica.closed(client, by_client=True)
    world.log.run()
    world.clock.stand_still(60.0)
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(2.1)
    world.log.run()
    assert alive(world) == 0


def test_a_close_after_a_standstill_is_not_put_off_by_it(world, client):
    world.clock.stand_still(60.0)
    world.replica.closed(client, by_client=True)
    world.log.run()
    world.clock.pass_by(2.1)
    world.log.run()
    assert alive(world) == 0


def test_signs_of_life_keep_a_session(world, client):
    for _ in range(5):
        world.clock.pass_by(8.0)
        client.session.seen = world.clock.now
        world.log.run()
    assert alive(world) == 1


def test_a_close_by_the_client_leaves_only_the_grace(world, client):
    world.replica.closed(client, by_client=True)
    world.clock.pass_by(1.9)
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(0.2)
    world.log.run()
    assert alive(world) == 0


def test_a_close_by_our_side_starts_no_clock(world, client):
    world.replica.closed(client, by_client=False)
    world.clock.pass_by(5.0)
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(5.1)
    world.log.run()
    assert alive(world) == 0


def test_coming_back_within_the_grace_saves_the_session(world, client, handle):
    session = client.session.id
    world.replica.closed(client, by_client=True)
    world.clock.pass_by(1.0)
    other = NotingClient()
    world.attach(other, session)
    world.log.run()
    world.clock.pass_by(8.0)
    world.log.run()
    assert alive(world) == 1


def test_a_connection_that_closed_before_its_attach_binds_nothing(world, client, handle):
    other = NotingClient()
    world.attach(other, client.session.id)
    other.gone = True
    world.log.run()
    assert client.session is not None
    assert not client.was_detached
    stranger = NotingClient()
    world.submit(stranger, [[1, 900, 0, 0, b"t" * 16, "a", "b", 10**11, 10**9]])
    stranger.gone = True
    world.log.run()
    assert alive(world) == 2
    world.clock.pass_by(1.1)
    world.log.run()
    assert alive(world) == 1


def test_zero_grace_expires_at_once(world):
    client = world.open_session(grace_s=0)
    world.replica.closed(client, by_client=True)
    world.log.run()
    assert alive(world) == 0


def test_a_new_leader_gives_everybody_a_full_timeout(world, client):
    world.replica.closed(client, by_client=True)
    world.log.lose()
    world.clock.pass_by(60.0)
    world.log.lead()
    world.log.run()
    world.clock.pass_by(9.9)
    world.log.run()
    assert alive(world) == 1
    world.clock.pass_by(0.2)
    world.log.run()
    assert alive(world) == 0


def test_only_one_expiry_is_on_its_way(world, client):
    world.clock.pass_by(11)
    world.log.hold = True
    for _ in range(5):
        world.log.step()
        world.clock.pass_by(1)
    assert len(world.log.waiting) == 1


def test_goodbye_ends_the_session(world, client):
    number = world.next()
    world.submit(client, [[2, number, 1, 0]])
    world.log.run()
    assert client.reply(number) is None
    assert alive(world) == 0
    assert client.session is None


def test_who_is_back_in_time_lives_while_the_leader_makes_sure_that_it_leads(world, client):
    session = client.session.id
    world.replica.closed(client, by_client=True)
    world.clock.pass_by(1.9)
    world.log.hold_reads = True
    other = NotingClient()
    number = world.attach(other, session)
    world.clock.pass_by(1.9)
    world.log.run()
    assert alive(world) == 1
    world.log.hold_reads = False
    world.log.run()
    assert other.reply(number)[1] == 10 * SECOND


def test_a_stranger_who_knows_no_secret_keeps_no_session_alive(world, client):
    world.replica.closed(client, by_client=True)
    world.clock.pass_by(1.9)
    world.attach(NotingClient(), 1, b"x" * 16)
    world.clock.pass_by(0.2)
    world.log.run()
    assert alive(world) == 0

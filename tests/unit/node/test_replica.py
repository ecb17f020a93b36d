from __future__ import annotations

import pytest

from raftckpt.protocol.batch import decode_batch
from raftckpt.raft.port import Transferred
from tests.directories import founding_of
from tests.messages import record
from tests.unit.node.fakes import EPOCH_NS, SECOND, LoneReplica, NotingClient


@pytest.mark.parametrize("call", ["query", "attach"])
def test_what_reads_raise_is_told_too(world, client, call):
    def broken():
        raise LookupError("planted")

    world.woken = broken
    message = [201, 900, 1, b"s" * 16] if call == "attach" else [104, 900, 0, 0]
    with pytest.raises(LookupError):
        getattr(world.replica, call)(client, record(message))
    assert [type(error) for error in world.failures] == [LookupError]


def test_expirations_are_proposed_when_due(world, client, handle):
    number = world.next()
    world.submit(
        client, [[20, number, 2, 0, handle, b"e", b"x", 0x7FFF_FFFF_FFFF_FFFF, 5 * SECOND]]
    )
    world.log.run()
    client.reply(number)
    assert world.replica.deadline() == pytest.approx(world.clock.now + 5, abs=0.01)
    entries = len(world.log.payloads)
    world.clock.pass_by(4.9)
    client.session.seen = world.clock.now
    world.log.run()
    assert len(world.log.payloads) == entries
    world.clock.pass_by(0.2)
    world.log.run()
    assert len(world.log.payloads) == entries + 1
    number = world.next()
    world.replica.query(client, record([106, number, 0, 1, handle]))
    assert client.reply(number)[1] == []


def test_stamps_never_go_back_and_one_bad_clock_moves_nothing():
    world = LoneReplica(voters=3)
    client = world.open_session()
    handle = world.open_checkpoint(client)
    stamps = []
    sequence = 1
    for walls in (
        [EPOCH_NS, EPOCH_NS, EPOCH_NS],
        [EPOCH_NS + 10**15, EPOCH_NS, EPOCH_NS],
        [EPOCH_NS - 10**15] * 3,
    ):
        world.log.walls = walls
        world.clock.now += 1.0
        sequence += 1
        world.put(client, handle, sequence)
        world.log.run()
        stamps.append(decode_batch(world.log.payloads[-1]).now_ns)
    assert stamps == sorted(stamps)
    assert stamps[1] - stamps[0] == pytest.approx(SECOND, abs=1000)
    assert stamps[2] - stamps[1] == pytest.approx(SECOND, abs=1000)


def test_duties_pause_while_the_log_refuses(world, client, handle):
    create = [20, world.next(), 2, 0, handle, b"ttl", b"", 0x7FFF_FFFF_FFFF_FFFF, SECOND]
    world.submit(client, [create])
    world.log.run()
    world.clock.pass_by(5.0)
    world.log.accepts = False  # it hands leadership over
    wakes = world.wakes
    world.log.run()
    assert world.log.refused == 1
    assert world.wakes == wakes + 1
    assert world.replica.deadline() > world.clock.now
    for _ in range(10):
        world.clock.pass_by(max(0.0, world.replica.deadline() - world.clock.now))
        world.log.run()
    assert world.log.refused == 11
    world.log.accepts = True
    world.clock.pass_by(max(0.0, world.replica.deadline() - world.clock.now))
    world.log.run()
    number = world.read(client, handle, b"ttl")
    world.log.run()
    assert client.reason(number) == "section_missing"


def test_deaths_of_silent_sessions_pause_too_and_are_not_forgotten(world, client):
    world.clock.pass_by(10.5)
    world.log.accepts = False
    world.log.run()
    assert world.log.refused == 1
    assert client.session is not None
    world.log.accepts = True
    for _ in range(10):
        world.clock.pass_by(max(0.0, world.replica.deadline() - world.clock.now))
        world.log.run()
        if client.session is None:
            break
    assert client.notices == [("session_lost", "expired")]


def test_transfer_goes_to_the_log(world):
    seen = []
    world.replica.transfer("n2", seen.append)
    node, done = world.log.transfers[0]
    done(Transferred.DONE)
    assert (node, seen) == ("n2", [Transferred.DONE])


def test_restore_replaces_the_state(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    image = list(world.replica.freeze())
    other = LoneReplica(lead=False)
    other.replica.restore(image)
    stranger = NotingClient()
    number = other.read(stranger, "ckpt", local=1)
    assert stranger.reply(number)[1] == [b"v"]


def test_leadership_lost_and_won_between_two_announcements(world, client, handle):
    world.log.hold = True
    queued = world.put(client, handle, 2)
    world.replica.role_changed(world.log.status()._replace(term=2))
    assert client.reason(queued) == "not_leader"
    assert client.session is None
    world.log.hold = False
    again = NotingClient()
    number = world.attach(again, 1)
    world.log.run()
    assert again.reply(number)[0] == 1
    put = world.put(again, handle, 2)
    world.log.run()
    assert again.reply(put)


def test_redirects_follow_the_configuration(world):
    configuration = founding_of("test", ["n1", "n4", "n5"])
    one, four, five = configuration.members
    world.replica.configured(configuration.with_members([one, four, five._replace(client="")]))
    assert world.replica.situation.endpoints == {"n1": "n1:2", "n4": "n4:2"}
    world.log.lead("n4")
    assert world.replica.leader_endpoint == "n4:2"
    world.log.lead("n5")
    assert world.replica.leader_endpoint is None
    world.log.told["n5"] = "told:2"
    assert world.replica.leader_endpoint == "told:2", "what it says of itself"

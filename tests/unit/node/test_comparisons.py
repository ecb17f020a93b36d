from __future__ import annotations

from tests.unit.node.fakes import LoneReplica


def test_check_freezes_the_state_of_its_entry(world, client, handle):
    world.put(client, handle, 2)
    world.log.run()
    world.replica.start_check(client, 500, b"nonce")
    world.log.run()
    nonce, index = client.reply(500)
    assert world.replica.digest(nonce) is None
    world.put(client, handle, 3, b"k", b"later")
    world.log.run()
    world.replica.digests.work(1.0)
    digest = world.replica.digest(nonce)
    assert digest is not None
    assert digest.at == index
    again = LoneReplica()
    other = again.open_session()
    again.put(other, again.open_checkpoint(other), 2)
    again.log.run()
    again.replica.start_check(other, 500, b"nonce")
    again.log.run()
    again.replica.digests.work(1.0)
    assert again.replica.digest(b"nonce").hex == digest.hex
    again.put(other, 1, 3, b"k", b"changed")
    again.replica.start_check(other, 501, b"another")
    again.log.run()
    again.replica.digests.work(1.0)
    assert again.replica.digest(b"another").hex != digest.hex

"""A leader and the limits of the state: it sets the first one, and promises what will have room."""

from __future__ import annotations

import random
from typing import Any

from raftckpt.errors import SaAisError
from raftckpt.protocol.operations import LimitsSet
from tests.unit.node.fakes import LoneReplica, NotingClient

NEVER = 0x7FFF_FFFF_FFFF_FFFF
ACTIVE = 2
NO_SPACE = int(SaAisError.ERR_NO_SPACE)


def test_the_first_limit_is_the_smallest_that_the_voters_have() -> None:
    world = LoneReplica()
    bounds = world.replica.machine.bounds
    world.log.run()
    assert not bounds.given, "not all have said it"
    world.log.told_memories = [700_000, 500_000, 900_000]
    world.log.run()
    assert bounds.memory == 500_000
    entries = world.log.index
    world.log.told_memories = [300_000]
    world.log.run()
    assert (bounds.memory, world.log.index) == (500_000, entries), "it is said once"


def test_a_first_limit_that_the_log_did_not_take_is_proposed_again() -> None:
    world = LoneReplica()
    world.log.told_memories = [500_000]
    world.log.accepts = False
    world.log.step()
    assert not world.replica.machine.bounds.given
    world.log.accepts = True
    world.clock.now += 1
    world.log.run()
    assert world.replica.machine.bounds.memory == 500_000


class Crowd:
    """Clients of asynchronous and synchronous checkpoints, and a log that can be held."""

    def __init__(self, memory: int) -> None:
        self.world = LoneReplica()
        self.clients: list[tuple[NotingClient, int]] = []
        self.sequences: list[int] = []
        self.asynchronous: list[int] = []
        for number, flags in enumerate((ACTIVE, ACTIVE, 1)):
            client = self.world.open_session(secret=bytes([number]) * 16)
            request = self.world.next()
            attributes = [flags, 0, NEVER, 50, 4000, 64]
            command = [10, request, 1, 0, f"ckpt{number}", 7, attributes]
            self.world.submit(client, [command])
            self.world.log.step()
            self.clients.append((client, client.reply(request)[0]))
            self.sequences.append(1)
        self.limit(memory)

    @property
    def bounds(self) -> Any:
        return self.world.replica.machine.bounds

    def limit(self, memory: int) -> None:
        request = self.world.next()
        client = NotingClient()
        self.world.replica.set_limits(client, request, [("memory", memory)])
        self.world.log.run()
        assert client.reply(request) == "done"

    def send(self, who: int, tag: int, *fields: Any) -> int:
        client, handle = self.clients[who]
        request = self.world.next()
        sequence = self.sequences[who] + 1
        command = [tag, request, sequence, max(0, sequence - 200), handle, *fields]
        self.world.submit(client, [command])
        if request not in client.refusals:
            self.sequences[who] = sequence
        return request


def test_what_was_accepted_early_is_never_refused() -> None:
    """Random writes of all kinds against a limit, with entries that take their time."""
    early = refused = at_the_door = 0
    for seed in range(8):
        rng = random.Random(f"limits/{seed}")
        crowd = Crowd(120_000)
        log = crowd.world.log
        for _ in range(300):
            who = rng.randrange(3)
            key = b"%d" % rng.randrange(40)
            data = bytes(rng.choice([10, 500, 2000, 4000]))
            match rng.randrange(8):
                case 0:
                    crowd.send(who, 21, key)
                case 1:
                    crowd.send(who, 25, [[key, rng.randrange(3000), data[:900]]])
                case 2:
                    crowd.send(who, 23, key, data)
                case _:
                    crowd.send(who, 24, key, data)
            log.hold = rng.random() < 0.7
            log.step()
        log.hold = False
        log.run()
        assert crowd.world.replica.machine.used <= crowd.bounds.memory + 10_000
        for client, _ in crowd.clients:
            promised = set(client.early)
            early += len(promised)
            for request, (reason, definite, _) in client.refusals.items():
                assert definite
                assert not (request in promised and reason in ("memory", "full")), reason
                refused += reason == "memory"
                at_the_door += reason == "full"
    assert early > 50
    assert refused > 50
    assert at_the_door > 5


def test_a_full_state_takes_no_asynchronous_data_at_the_door() -> None:
    crowd = Crowd(40_000)
    client, _ = crowd.clients[0]
    for number in range(12):
        crowd.send(0, 24, b"%d" % number, bytes(4000))
        crowd.world.log.run()
    assert crowd.bounds.full
    request = crowd.send(0, 24, b"new", b"x")
    assert client.refusals[request][:2] == ("full", True)
    assert (request, NO_SPACE, "full") in client.replies
    shrinks = crowd.send(0, 24, b"0", b"x")
    crowd.world.log.run()
    assert client.reply(shrinks)
    assert shrinks not in client.early, "nothing is promised above the mark"
    crowd.limit(400_000)
    again = crowd.send(0, 24, b"new", b"x")
    assert again in client.early


def test_while_a_limit_is_on_its_way_nothing_is_promised() -> None:
    crowd = Crowd(400_000)
    client, _ = crowd.clients[0]
    crowd.world.log.hold = True
    crowd.world.replica.set_limits(NotingClient(), crowd.world.next(), [("memory", 1)])
    crowd.world.log.step()
    request = crowd.send(0, 24, b"new", b"x")
    assert request not in client.early
    assert any(type(command) is LimitsSet for command in _flying(crowd.world))


def _flying(world: LoneReplica) -> list[Any]:
    return [command for _, proposal in world.log.waiting for command in proposal.commands]


def test_a_quota_counts_what_is_on_its_way() -> None:
    world = LoneReplica()
    client = world.open_session()
    request = world.next()
    attributes = [ACTIVE | 16, 1000, NEVER, 50, 4000, 64]
    world.submit(client, [[10, request, 1, 0, "ckpt", 7, attributes]])
    world.log.step()
    handle = client.reply(request)[0]
    world.log.hold = True
    requests = [
        world.put(client, handle, 2 + number, b"%d" % number, bytes(300)) for number in range(4)
    ]
    assert 1 <= len(client.early) <= 3
    assert set(client.early) <= set(requests[:3])
    world.log.hold = False
    world.log.run()
    assert client.reason(requests[3]) == "checkpoint_full"

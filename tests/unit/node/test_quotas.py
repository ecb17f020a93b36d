"""A leader and the quotas of spaces: it promises only what will have room when its turn comes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from raftckpt.node.early import CREATING_BYTES_MIN
from raftckpt.protocol import operations as ops
from raftckpt.protocol.costs import COST
from tests.unit.node.fakes import LoneReplica, NotingClient

NEVER = 0x7FFF_FFFF_FFFF_FFFF
ALL, ACTIVE, QUOTA = 1, 2, 16
PUT, WRITE, APPEND = 2, 4, 5


def part(kind: int, section_id: bytes, data: Any, offset: int = 0) -> list[Any]:
    return [kind, section_id, offset, data, None, NEVER, None]


class Tenants:
    """Clients with a checkpoint each in one space, asynchronous but the last, and an operator."""

    def __init__(self, flags: tuple[int, ...] = (ACTIVE, ACTIVE, ALL), size: int = 0) -> None:
        self.world = LoneReplica()
        self.log = self.world.log
        self.clients: list[NotingClient] = []
        self.handles: list[int] = []
        self.sequences: list[int] = []
        for number, each in enumerate(flags):
            attributes = [each, size, NEVER, 200, 50_000, 64]
            self.clients.append(self.world.open_session(secret=bytes([number]) * 16))
            self.sequences.append(0)
            opened = self.send(number, 10, f"q/{number}", 7, attributes)
            self.log.run()
            self.handles.append(self.clients[number].reply(opened)[0])
        self.clients.append(self.world.open_session(secret=b"operator" * 2))
        self.sequences.append(0)
        self.operate(64, "q/", None)

    @property
    def machine(self) -> Any:
        return self.world.replica.machine

    def send(self, who: int, tag: int, *fields: Any) -> int:
        client, request = self.clients[who], self.world.next()
        sequence = self.sequences[who] + 1
        command = [tag, request, sequence, max(0, sequence - 200), *fields]
        self.world.submit(client, [command])
        if request not in client.refusals:
            self.sequences[who] = sequence
        return request

    def operate(self, tag: int, *fields: Any) -> int:
        return self.send(len(self.clients) - 1, tag, *fields)

    def quota(self, prefix: str = "q/", **values: int) -> None:
        self.operate(71, prefix, list(values.items()), None)
        self.log.run()
        assert self.machine.access.quotas[prefix].given

    def promised(self, who: int, request: int) -> bool:
        return request in self.clients[who].early

    def broken(self) -> list[Any]:
        """What was promised and refused."""
        return [
            (who, request, refusal)
            for who, client in enumerate(self.clients)
            for request, refusal in client.refusals.items()
            if request in client.early
        ]


@pytest.mark.parametrize(
    "quotas", [{"bytes": 30_000}, {"sections": 60}, {"bytes": 20_000, "sections": 90}]
)
def test_what_was_accepted_early_is_never_refused(quotas: dict[str, int]) -> None:
    """Random writes of all kinds by all of a space, with entries that take their time."""
    early = refused = 0
    for seed in range(10):
        rng = random.Random(f"quotas/{seed}")
        tenants = Tenants()
        tenants.quota(**quotas)
        for _ in range(300):
            step(rng, tenants)
            tenants.log.hold = rng.random() < 0.8
            tenants.log.step()
        tenants.log.hold = False
        tenants.log.run()
        assert tenants.broken() == []
        early += sum(len(client.early) for client in tenants.clients)
        for client in tenants.clients:
            reasons = [reason for reason, definite, _ in client.refusals.values() if definite]
            refused += reasons.count("space_quota")
    assert early > 100
    assert refused > 100


def step(rng: random.Random, tenants: Tenants) -> None:
    who = rng.randrange(3)
    handle = tenants.handles[who]
    key = b"%d" % rng.randrange(40)
    data = bytes(rng.choice([1, 10, 500, 2000]))
    match rng.randrange(24):
        case 0:
            tenants.send(who, 21, handle, key)
        case 1 | 2:
            tenants.send(who, 25, handle, [[key, rng.randrange(3000), data[:900]]])
        case 3 | 4:
            tenants.send(who, 23, handle, key, data)
        case 5 | 6:
            stage = rng.randrange(1, 4)
            tenants.send(who, 26, stage, 0, bytes(rng.choice([10, 3000])))
            if rng.random() < 0.5:
                tenants.log.hold = False
                tenants.log.run()
            tenants.send(who, 24, handle, key, stage)
        case 7:
            tenants.send(2, 29, tenants.handles[2], [part(PUT, b"%d" % n, b"") for n in range(9)])
        case 8:
            tenants.send(2, 28, tenants.handles[2], part(APPEND, key, data))
        case 9:
            name = f"q/new{rng.randrange(20)}"
            tenants.send(who, 10, name, 7, [ALL, 0, NEVER, 1, 10_000, 8])
        case 10 if rng.random() < 0.3:
            most = rng.choice([20_000, 40_000])
            tenants.operate(71, "q/", [["bytes", most]], None)
        case 11 if rng.random() < 0.3:
            tenants.operate(rng.choice([64, 67]), "q/0", None)
        case 12 if rng.random() < 0.3:
            tenants.operate(71, "q/0", [["bytes", 9000], ["sections", 20]], None)
        case _:
            tenants.send(who, 24, handle, key, data)


def test_bytes_on_their_way_to_any_checkpoint_count() -> None:
    tenants = Tenants()
    tenants.quota(bytes=2000)
    tenants.log.hold = True
    assert tenants.promised(0, tenants.send(0, 24, tenants.handles[0], b"a", bytes(900)))
    late = tenants.send(2, 24, tenants.handles[2], b"a", bytes(900))
    more = tenants.send(1, 24, tenants.handles[1], b"a", bytes(500))
    assert not tenants.promised(1, more)
    tenants.log.hold = False
    tenants.log.run()
    assert tenants.clients[2].reply(late)
    assert tenants.clients[1].reason(more) == "space_quota"
    assert tenants.promised(1, tenants.send(1, 24, tenants.handles[1], b"a", b""))
    assert not tenants.broken()


@pytest.mark.parametrize("size", [0, 2000])
def test_staged_bytes_on_their_way_count(size: int) -> None:
    """A command that names a stage is short, and may fill all that is left."""
    flags = ACTIVE | QUOTA if size else ACTIVE
    tenants = Tenants((flags,), size)
    if not size:
        tenants.quota(bytes=2000)
    handle = tenants.handles[0]
    other = tenants.world.open_session(secret=b"o" * 16)
    tenants.clients.insert(1, other)
    tenants.sequences.insert(1, 0)
    opened = tenants.send(1, 10, "q/0", 7, [flags, size, NEVER, 200, 50_000, 64])
    tenants.log.run()
    again = other.reply(opened)[0]
    assert tenants.send(0, 26, 1, 0, bytes(1900))
    tenants.log.run()
    tenants.log.hold = True
    tenants.send(0, 24, handle, b"staged", 1)
    promised = tenants.send(1, 24, again, b"plain", bytes(150))
    assert not tenants.promised(1, promised)
    tenants.log.hold = False
    tenants.log.run()
    assert other.reason(promised) == ("checkpoint_full" if size else "space_quota")


def test_sections_on_their_way_to_any_checkpoint_count() -> None:
    tenants = Tenants()
    tenants.quota(sections=10)
    tenants.log.hold = True
    parts = [part(PUT, b"%d" % number, b"") for number in range(10)]
    tenants.send(2, 29, tenants.handles[2], parts)
    new = tenants.send(0, 24, tenants.handles[0], b"new", b"")
    assert not tenants.promised(0, new)
    tenants.log.hold = False
    tenants.log.run()
    assert tenants.clients[0].reason(new) == "space_quota"
    tenants.send(2, 21, tenants.handles[2], b"0")
    tenants.log.run()
    assert not tenants.promised(0, tenants.send(0, 24, tenants.handles[0], b"longer id", bytes(70)))
    tenants.send(
        2, 29, tenants.handles[2], [[6, b"%d" % n, 0, b"", None, NEVER, None] for n in (1, 2)]
    )
    tenants.log.run()
    assert tenants.promised(0, tenants.send(0, 24, tenants.handles[0], b"id", b"x"))
    tenants.log.run()
    assert tenants.promised(0, tenants.send(0, 24, tenants.handles[0], b"id", b"y")), "it is there"
    assert not tenants.broken()


def test_a_far_write_through_a_handle_that_is_being_opened_counts() -> None:
    tenants = Tenants()
    section = tenants.send(2, 24, tenants.handles[2], b"a", b"x")
    tenants.quota(bytes=20_000)
    assert tenants.clients[2].reply(section)
    tenants.log.hold = True
    tenants.send(2, 10, "q/2", 3, None)
    following = tenants.machine.sessions[3].next_handle
    tenants.send(2, 25, following, [[b"a", 19_000, bytes(900)]])
    request = tenants.send(0, 24, tenants.handles[0], b"b", bytes(500))
    assert not tenants.promised(0, request)
    tenants.log.hold = False
    tenants.log.run()
    assert tenants.clients[0].reason(request) == "space_quota"


@pytest.mark.parametrize(
    "change",
    [
        (71, "q/", [["bytes", 1]], None),
        (71, "", [["bytes", 1]], None),
        (64, "q/0", None),
        (67, "q/", None),
    ],
)
def test_while_quotas_or_spaces_change_nothing_is_promised(change: tuple[Any, ...]) -> None:
    tenants = Tenants()
    tenants.log.hold = True
    tenants.operate(*change)
    assert not tenants.promised(0, tenants.send(0, 24, tenants.handles[0], b"a", b"x"))
    tenants.log.hold = False
    tenants.log.run()
    assert not tenants.broken()
    tenants.send(0, 24, tenants.handles[0], b"a", b"x")
    tenants.log.run()
    assert tenants.promised(0, tenants.send(0, 24, tenants.handles[0], b"a", b"")) == (
        change[:2] != (71, "q/")
    )


def test_what_creates_a_section_costs_as_much_as_is_believed() -> None:
    attributes = (1, 0, NEVER, 1, 9, 9)
    assert COST[ops.SectionPut](ops.SectionPut(1, 1, 0, 1, b"a", b"")) >= CREATING_BYTES_MIN
    created = ops.SectionCreate(1, 1, 0, 1, None, b"", NEVER, None)
    assert COST[ops.SectionCreate](created) >= CREATING_BYTES_MIN
    opened = ops.CheckpointOpen(1, 1, 0, "a", 7, attributes)
    assert COST[ops.CheckpointOpen](opened) >= CREATING_BYTES_MIN
    one = (PUT, b"a", 0, b"", None, NEVER, None)
    assert COST[ops.SectionChange](ops.SectionChange(1, 1, 0, 1, one)) >= CREATING_BYTES_MIN
    for count in (1, 2, 100):
        several = ops.CheckpointTransaction(1, 1, 0, 1, [one] * count)
        assert COST[ops.CheckpointTransaction](several) >= CREATING_BYTES_MIN * count

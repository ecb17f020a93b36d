"""Totality, determinism, unknown and malformed commands, batches, schema."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest

from raftckpt.errors import REASONS, InvariantViolation, SaAisError
from raftckpt.model.image import digest
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.types import CreationAttributes, CreationFlags, OpenFlags
from raftckpt.protocol.batch import Batch, decode_batch, encode_batch
from raftckpt.protocol.contract import BATCH_COMMANDS_MAX
from raftckpt.protocol.operations import LOGGED, CheckpointOpen, Due, SectionPut, SessionOpen
from tests.messages import tag_of, validate

from .driver import NEVER, SECOND, DrivenMachine, DrivenSession, attributes, why

INVALID, NOT_SUPPORTED = 7, 19

STRANGE: list[Any] = [
    None, True, -1, 2**64 - 1, -(2**63), 1.5, float("nan"), "", "x", b"", b"\xff" * 9, [], [[]],
    [None], [[b"a", 0, b"x"]], [1] * 6,
]  # fmt: skip
GOOD: dict[int, list[Any]] = {
    1: [b"q" * 16, "app", "n1", SECOND, 0],
    2: [],
    3: [[1]],
    10: ["ckpt", 7, attributes()],
    11: [1],
    12: ["ckpt"],
    13: [1, 5],
    14: [1, True],
    20: [1, b"n", b"", NEVER, None],
    21: [1, b"a"],
    22: [1, b"a", NEVER, None],
    23: [1, b"a", b"x"],
    24: [1, b"a", b"x"],
    25: [1, [[b"a", 0, b"x"]]],
    26: [1, 0, b"x"],
    27: [1, b"a"],
    28: [1, [5, b"a", 0, b"x", None, NEVER, None]],
    29: [1, [[6, b"a", 0, b"", None, NEVER, None], [1, None, 0, b"x", None, NEVER, 5]]],
    40: [],
    41: [b"nonce"],
    42: [b"nonce", b"digest"],
    50: ["group", "c1", 0, SECOND, 0],
    51: ["group", "c1", True],
    52: ["group", "c1", 2, True],
    53: ["group", 4, None],
    54: [[[1, 2], [1, 0]]],
    60: [False, None],
    61: ["who", "id", b"d" * 32, NEVER, True, None],
    62: ["who", "id", b"d" * 32, NEVER, 0, None],
    63: ["who", None],
    64: ["space/", None],
    65: ["", "who", 3, None],
    66: ["", "who", 1, 0],
    67: ["space/", None],
    69: [b"p" * 16, "app", "n1", SECOND, 0, 1],
    70: [[["sessions", 5]], False],
    71: ["", [["sections", 5], ["bytes", 0]], None],
}

OF_CLUSTER = (1, 3, 40, 41, 42, 54, 69, 70)


@pytest.fixture
def client() -> DrivenSession:
    client = DrivenMachine().session()
    client.open("ckpt")
    client.put(1, b"a", b"data")
    return client


def test_there_is_a_good_example_of_every_command() -> None:
    assert set(GOOD) == {tag_of(kind) for kind in LOGGED}
    for tag, fields in GOOD.items():
        sequence = 0 if tag in OF_CLUSTER else 1
        assert validate([tag, 0, sequence, 0, *fields]) is None


@pytest.mark.parametrize("tag", sorted(GOOD))
def test_any_field_may_be_anything(client: DrivenSession, tag: int) -> None:
    """Apply survives, and refuses what validate refuses with the same words."""
    session = 0 if tag in OF_CLUSTER else client.id
    for place in range(-4, len(GOOD[tag])):
        for strange in STRANGE:
            sequence = 0 if tag in OF_CLUSTER else client.sequence + 1
            command = [tag, session, sequence, 0, *GOOD[tag]]
            command[place + 4] = strange
            asked = validate(command)
            machine = client.cluster.restored()
            (result,) = machine.apply(machine.applied_index + 1, encode_batch(1, [command]))
            assert SaAisError(result.code)
            if not result.ok:
                assert result.value.reason in REASONS
            if asked is not None and place >= 0:
                assert result == asked


def test_any_object_may_stand_for_a_command(client: DrivenSession) -> None:
    for strange in [
        *STRANGE,
        [24],
        [24, 1],
        [24, 1, 1, 1],
        [[], 1, 1, 1],
        [24, 1, 1, 1, 2, 3, 4, 5],
    ]:
        (result,) = client.cluster.apply(strange)
        assert not result.ok
        assert validate(strange) is not None


def test_noise_never_raises_and_never_differs() -> None:
    rng = random.Random(3)
    one, two = DrivenMachine(), DrivenMachine()
    for cluster in (one, two):
        cluster.session().open("ckpt")
    for _ in range(3000):
        tag = rng.choice([*GOOD, 99])
        fields = [rng.choice(STRANGE) if rng.random() < 0.2 else f for f in GOOD.get(tag, [1])]
        last = max((s.last_sequence for s in one.machine.sessions.values()), default=0)
        head = [tag, rng.choice([0, 1, 1, 1, 2]), rng.choice([last + 1, last + 1, 0, 9]), 0]
        assert one.apply(head + fields) == two.apply(head + fields)
    assert digest(one.machine.freeze()) == digest(two.machine.freeze())
    assert one.machine.chain == two.machine.chain


def test_schema_refusals_name_the_field_and_are_recorded(client: DrivenSession) -> None:
    refused = client.do(24, 1, "text", b"x")
    assert why(refused) == (INVALID, "schema", None)
    assert refused.value.detail == "section_id"
    assert client.do(24, 1, b"a", b"x").ok  # the sequence was consumed


def test_unknown_commands_are_recorded(client: DrivenSession) -> None:
    assert why(client.do(99, "whatever", [1])) == (NOT_SUPPORTED, "unknown", None)
    assert why(client.do(24, 1, b"a", b"x", "one field more")) == (NOT_SUPPORTED, "unknown", None)
    (again,) = client.cluster.apply([99, client.id, client.sequence, 0])
    assert why(again) == (NOT_SUPPORTED, "unknown", None)
    assert client.do(24, 1, b"a", b"x").ok
    assert why(client.cluster.apply([99, 0, 0, 0])[0]) == (NOT_SUPPORTED, "unknown", None)


def test_cluster_commands_belong_to_no_session(client: DrivenSession) -> None:
    for command in ([40, 1, 3, 0], [3, 1, 3, 0, [1]], [41, 1, 3, 0, b""]):
        assert why(client.cluster.apply(command)[0]) == (INVALID, "schema", None)


def test_records_and_enums_are_judged_like_what_they_become_on_the_wire() -> None:
    """A leader applies the records it made; the followers decode them."""
    commands = [
        SessionOpen(0, 0, 0, b"s" * 16, "app", "n1", 10 * SECOND, 0),
        CheckpointOpen(
            1, 1, 0, "x", OpenFlags.WRITE | OpenFlags.CREATE,
            CreationAttributes(flags=CreationFlags.WR_ALL_REPLICAS),
        ),
        SectionPut(1, 2, 1, 1, b"a", b"x"),
        Due(0, 0, 0),
    ]  # fmt: skip
    payload = encode_batch(5, commands)
    leader, follower = CheckpointMachine(), CheckpointMachine()
    results = leader.apply(1, payload, Batch(1, 5, commands))
    assert results == follower.apply(1, payload)
    assert all(result.ok for result in results)
    assert digest(leader.freeze()) == digest(follower.freeze())


def test_too_deep_to_encode_is_refused(client: DrivenSession) -> None:
    deep: list[Any] = []
    for _ in range(600):
        deep = [deep]
    body = b"\x91" * 600 + b"\x90"
    payload = b"\x93\x01\x01\x91" + body
    (result,) = client.cluster.machine.apply(99, payload)
    assert why(result) == (INVALID, "schema", None)


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x90",
        msgpack.packb([1, 0]),
        msgpack.packb([2, 0, []]),
        msgpack.packb([1, -1, []]),
        msgpack.packb([1, NEVER + 1, []]),
        msgpack.packb([1, 0, [0] * (BATCH_COMMANDS_MAX + 1)]),
        msgpack.packb([1, 0.5, []]),
        msgpack.packb({}),
        msgpack.packb([1, 0, []]) + b"\0",
        msgpack.packb([1, 0, [[24]]])[:-1],
        b"\x93\x01\x00\x91\x81\x90\x01",  # a map with an array as key
        msgpack.packb([1, 0, [[24, 1, 1, 0, {}]]]),
        msgpack.packb([1, 0, [{b"k": 1}]]),
        msgpack.packb([1, 0, [msgpack.ExtType(5, b"z")]]),
        msgpack.packb([1, 0, [msgpack.Timestamp(1)]]),
        b"\x93\x01\x00\x91\xa1\xff",  # text that is no UTF-8
    ],
)
def test_what_is_no_batch_does_nothing_and_is_told(payload: bytes) -> None:
    with pytest.raises(ValueError):
        decode_batch(payload)
    told: list[tuple[int, str]] = []
    machines = CheckpointMachine(), CheckpointMachine()
    for machine in machines:
        machine.undecodable = lambda index, why: told.append((index, why))
        machine.apply(1, encode_batch(7, []))
        assert machine.apply(2, payload) == []
        assert (machine.applied_index, machine.now_ns, machine.revision) == (2, 7, 0)
    assert [index for index, _ in told] == [2, 2]
    assert b"".join(machines[0].freeze()) == b"".join(machines[1].freeze())


def test_encode_checks_what_decode_checks() -> None:
    assert decode_batch(encode_batch(7, [Due(0, 0, 0)])) == Batch(1, 7, [Due(0, 0, 0)])
    for now, commands in [(-1, []), (NEVER + 1, []), (0, [0] * (BATCH_COMMANDS_MAX + 1))]:
        with pytest.raises(InvariantViolation):
            encode_batch(now, commands)


def test_entries_are_applied_in_order() -> None:
    machine = CheckpointMachine()
    machine.apply(5, encode_batch(0, []))
    for index in (5, 4):
        with pytest.raises(InvariantViolation):
            machine.apply(index, encode_batch(0, []))
    machine.apply(9, encode_batch(0, []))
    assert machine.applied_index == 9


def test_chain_differs_if_histories_differ() -> None:
    chains = set()
    for order in ([1, 2, 3], [1, 3, 2], [1, 2], []):
        machine = CheckpointMachine()
        for index, now in enumerate(order, 1):
            machine.apply(index, encode_batch(now, []))
        chains.add(machine.chain)
    assert len(chains) == 4

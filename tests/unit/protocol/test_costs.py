"""What a command is said to take of an entry is never less than what it takes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftckpt.protocol import contract
from raftckpt.protocol.batch import encode_batch
from raftckpt.protocol.costs import COST
from raftckpt.protocol.operations import LOGGED, OPERATIONS
from tests.messages import command
from tests.unit.protocol.values import records

BY_TAG = sorted(LOGGED, key=lambda kind: OPERATIONS[kind].tag)
BIG = (1 << 63) - 1
HEAD_BYTES = len(encode_batch(contract.SA_TIME_MAX, []))


def assert_bounded(made: Any) -> None:
    size = len(msgspec.msgpack.encode(made))
    assert size <= COST[type(made)](made)
    assert len(encode_batch(contract.SA_TIME_MAX, [made])) == HEAD_BYTES + size


def test_every_command_has_a_cost() -> None:
    assert set(COST) == LOGGED


@pytest.mark.parametrize("kind", BY_TAG)
def test_of_every_example(kind: type[Any]) -> None:
    for made in OPERATIONS[kind].examples():
        assert_bounded(made)


@pytest.mark.parametrize("kind", BY_TAG)
def test_of_any_well_formed_command(kind: type[Any]) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(records(kind), st.sampled_from([None, BIG]))
    def check(made: Any, number: int | None) -> None:
        if number is not None:
            made.session = number
        assert_bounded(made)

    check()


@pytest.mark.parametrize(
    "fields",
    [
        [24, BIG, BIG, BIG, BIG, b"i" * 1024, b"d" * contract.INLINE_WRITE_BYTES_MAX],
        [23, BIG, BIG, BIG, BIG, b"", BIG],
        [26, BIG, BIG, BIG, BIG, BIG, b"d" * contract.STAGE_CHUNK_BYTES],
        [25, BIG, BIG, BIG, BIG, [[b"i" * 1024, BIG, b"d" * 5000], [b"", BIG, BIG]] * 200],
        [25, BIG, BIG, BIG, BIG, [[b"i" * 1024, BIG, b"d" * 256]] * contract.VECTOR_ELEMENTS_MAX],
        [25, BIG, BIG, BIG, BIG, [[b"i" * 1024, BIG, BIG]] * contract.VECTOR_ELEMENTS_MAX],
        [20, BIG, BIG, BIG, BIG, b"i" * 1024, b"d" * 70_000, BIG, BIG],
        [22, BIG, BIG, BIG, BIG, b"i" * 1024, BIG, BIG],
        [10, BIG, BIG, BIG, "é" * 1024, 7, [BIG] * 6],
        [10, BIG, BIG, BIG, "\N{GRINNING FACE}" * 512, 7, [-BIG] * 6],
        [12, BIG, BIG, BIG, "é" * 1024],
        [1, 0, 0, 0, b"s" * 16, "é" * 128, "é" * 32, contract.SESSION_TIMEOUT_NS_MAX, 10**10],
        [3, 0, 0, 0, [BIG] * 1000],
        [54, 0, 0, 0, [[BIG, BIG]] * 1000],
        [41, 0, 0, 0, b"n" * 64],
        [53, BIG, BIG, BIG, "é" * 128, 4, "é" * 128],
    ],
    ids=lambda fields: str(fields[0]),
)
def test_of_the_largest(fields: list[Any]) -> None:
    made = command(fields)
    assert type(made) in LOGGED
    assert_bounded(made)

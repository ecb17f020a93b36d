"""Second connections, without IO."""

from __future__ import annotations

import pytest

from raftckpt.client.config import CoreConfig
from raftckpt.client.core import ClientCore
from raftckpt.client.witness import Witness


@pytest.mark.parametrize("down_s", [1.0, 30.0])
def test_a_replica_that_was_down_is_bound_again_soon(down_s: float) -> None:
    """It may be elected soon after; then it must know by its own that we died."""
    core = ClientCore(CoreConfig(), ["h:1", "h:2"], secret=b"s" * 16, jitter=lambda: 0.0)
    witness = Witness(core)
    now = 0.0
    while now < down_s:
        witness.tick(now)
        for number, endpoint in witness.wanted().items():
            if endpoint == "h:1":
                witness.connection_lost(number, "refused", now)
        now = max(now + 0.001, min(witness.next_deadline(), now + 0.2))
    up = now
    while "h:1" not in witness.wanted().values():
        now = max(now + 0.001, witness.next_deadline())
        witness.tick(now)
    assert now - up <= 0.2


def test_it_ends_with_the_session() -> None:
    core = ClientCore(CoreConfig(), ["h:1"], secret=b"s" * 16, jitter=lambda: 0.0)
    witness = Witness(core)
    witness.tick(0.0)
    assert witness.wanted() == {1: "h:1"}
    core.roles.end("expired")
    assert witness.wanted() == {}
    assert witness.next_deadline() == float("inf")
    assert witness.bound == 0


def test_a_connection_that_was_asked_on_is_never_closed_by_the_living() -> None:
    """A slow replica may take up the question later: the close behind it would be our death."""
    core = ClientCore(CoreConfig(), ["h:1"], secret=b"s" * 16, jitter=lambda: 0.0)
    witness = Witness(core)
    witness.tick(0.0)
    witness.connected(1, 0.1)
    assert witness.data_to_send(1)
    now = 0.1
    while now < 60.0:  # it does not answer; others are tried beside, a few
        now = max(now + 0.1, witness.next_deadline())
        witness.tick(now)
        for number in witness.wanted():
            witness.connected(number, now)
    wanted = witness.wanted()
    assert 1 in wanted
    assert 2 <= len(wanted) <= 5
    assert witness.data_to_send(1) == b""  # it was asked once
    witness.connection_lost(1, "reset", now)
    assert 1 not in witness.wanted()


def test_a_connection_that_was_never_up_is_given_up() -> None:
    core = ClientCore(CoreConfig(), ["h:1"], secret=b"s" * 16, jitter=lambda: 0.0)
    witness = Witness(core)
    witness.tick(0.0)
    witness.tick(2.0)
    assert witness.wanted() == {}

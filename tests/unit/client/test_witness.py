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

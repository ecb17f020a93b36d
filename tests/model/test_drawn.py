"""Every operation there is, is drawn by a Hypothesis machine of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol import operations as ops
from raftckpt.protocol.batch import decode_batch
from raftckpt.protocol.check import Malformed
from raftckpt.protocol.operations import LOGGED, QUERIES

from . import test_access, test_against_naive, test_groups, test_sessions

NOT_DRAWN: Final[dict[type[Any], str]] = {
    ops.Compare: "kept for the replica alone; simulated replicas compare all the time",
}
"""Operations that no machine needs to draw, and why."""


def drawn(monkeypatch: pytest.MonkeyPatch) -> set[type[Any]]:
    """Records that reach a machine well formed while each strategy is played for a while."""
    seen: set[type[Any]] = set()
    apply, query = CheckpointMachine.apply, CheckpointMachine.query

    def noting_apply(self: CheckpointMachine, index: int, payload: bytes, batch: Any = None) -> Any:
        seen.update(map(type, (batch or decode_batch(payload)).commands))
        return apply(self, index, payload, batch)

    def noting_query(
        self: CheckpointMachine, session: int | None, asked: Any, principal: int = 0
    ) -> Any:
        seen.add(type(asked))
        return query(self, session, asked, principal)

    monkeypatch.setattr(CheckpointMachine, "apply", noting_apply)
    monkeypatch.setattr(CheckpointMachine, "query", noting_query)
    _play(
        test_against_naive.STEP,
        lambda steps: test_against_naive.drive(test_against_naive.ContentRun(), steps),
    )
    _play(test_groups.STEP, test_groups.play)
    _play(test_access.STEP, test_access.play)
    test_sessions.run(5)
    return seen - {Malformed}


def _play(step: st.SearchStrategy[Any], play: Callable[[list[Any]], None]) -> None:
    @settings(
        max_examples=80,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(step, min_size=20, max_size=40))
    def history(steps: list[Any]) -> None:
        play(steps)

    history()


def test_every_operation_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = drawn(monkeypatch)
    missing = (LOGGED | QUERIES) - seen - set(NOT_DRAWN)
    assert not missing, "drawn by no Hypothesis machine of tests/model"
    assert not seen & set(NOT_DRAWN), "no exception any more"

"""Journal and snapshots against a list, as a state machine: a failure shrinks to its core.

``tests/unit/storage/test_journal_crashes.py`` owns the naive replica and crashes it at every call
of fixed scripts; here Hypothesis chooses operations, crash points and tears together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from raftckpt.storage import Journal
from raftckpt.storage import _records as rec
from tests.fuzz.profile import EXAMPLES
from tests.sim.disk import TEARS, SimCrash
from tests.unit.storage.test_journal_crashes import Replica

ACTIONS = ["append", "append", "append", "sync", "sync", "truncate", "hard_state", "snapshot",
           "install", "confirm", "reopen"]  # fmt: skip


class JournalAgainstList(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 20))
    def begin(self, seed: int) -> None:
        self.replica = Replica(seed)
        self.replica.open()

    @rule(action=st.sampled_from(ACTIONS))
    def act(self, action: str) -> None:
        getattr(self.replica, action)()

    @rule(
        actions=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=6),
        call=st.integers(1, 25),
        again=st.integers(0, 22),
        power=st.booleans(),
        tear=st.sampled_from([None, *TEARS]),
    )
    def crash_within(
        self, actions: list[str], call: int, again: int, power: bool, tear: str | None
    ) -> None:
        """Crash before the ``call``-th write, sync or rename of these actions, if they have it."""
        self.replica.disk.crash_at(call=call)
        try:
            for action in actions:
                getattr(self.replica, action)()
        except SimCrash:
            pass
        self.recover(again, power, tear)

    def recover(self, again: int, power: bool, tear: str | None) -> None:
        """Open what is left, perhaps with another crash on the way; ``open`` compares."""
        replica = self.replica
        for crash in (again, 0):
            if power:
                replica.disk.power_loss(tear)
            else:
                replica.disk.kill()
            if crash:
                replica.disk.crash_at(call=crash)
            try:
                replica.open()
                break
            except SimCrash:
                continue
        replica.disk.crash_at()


def run(examples: int) -> None:
    run_state_machine_as_test(
        JournalAgainstList,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )


def test_nothing_synced_is_lost_wherever_it_crashes() -> None:
    run(EXAMPLES or 150)


def _sync_nothing(self: Journal, *args: Any, **named: Any) -> None:
    return None


def _never_torn(*args: Any) -> bool:
    return False


BUGS: list[tuple[Any, str, Callable[..., Any]]] = [
    (Journal, "sync", _sync_nothing),
    (rec, "looks_torn", _never_torn),
]


@pytest.mark.parametrize(("where", "name", "bug"), BUGS, ids=[name for _, name, _ in BUGS])
def test_planted_bugs_are_caught(
    where: Any, name: str, bug: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, bug)
    with pytest.raises(Exception):  # noqa: B017 - lost entries, or a refusal to open
        run(60)

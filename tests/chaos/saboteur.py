"""``python -m tests.chaos.saboteur``: a replica with a bug planted in it.

Which one says the environment variable ``CHAOS_SABOTAGE``. The product knows nothing of this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from raftckpt.model import content, machine, parts, queries
from raftckpt.model.checkpoints import Checkpoint
from raftckpt.node import comparisons
from raftckpt.process.main import main
from raftckpt.protocol import operations as ops
from tests.sim import sabotage

VARIABLE = "CHAOS_SABOTAGE"


def _executed_otherwise(record: type[Any], spoil: Callable[[Any, Any], Any]) -> None:
    """Let a command be another one when it is executed, as the state is then."""
    original = machine._HANDLERS[record]

    def execute(state: Any, session: Any, c: Any) -> Any:
        return original(state, session, spoil(state, c))

    machine._HANDLERS[record] = execute


def _vectors_are_torn() -> None:
    _executed_otherwise(
        ops.CheckpointWrite,
        lambda state, c: c if state.revision % 7 else replace(c, vector=c.vector[:1]),
    )


def _transactions_are_torn() -> None:
    original = parts._carry_out

    def carry_out(state: Any, plan: Any, revision: int) -> None:
        if len(plan.content) > 1 and revision % 3 == 0:
            plan.content.popitem()
        original(state, plan, revision)

    parts._carry_out = carry_out


def _conditions_do_not_matter() -> None:
    def unconditional(part: Any) -> Any:
        return (*part[:4], None, *part[5:])

    _executed_otherwise(ops.SectionChange, lambda state, c: replace(c, part=unconditional(c.part)))
    _executed_otherwise(
        ops.CheckpointTransaction,
        lambda state, c: replace(c, parts=list(map(unconditional, c.parts))),
    )


def _fence_has_gaps() -> None:
    original = Checkpoint.refuse_change

    def refuse_change(self: Any, flags: int, session: int) -> Any:
        refused = original(self, flags, session)
        return None if refused is not None and self.revision % 3 == 0 else refused

    Checkpoint.refuse_change = refuse_change  # type: ignore[method-assign]


def _expires_early() -> None:
    original = content._due

    def due(state: Any, c: Any) -> int:
        return original(state, replace(c, ttl_ns=c.ttl_ns and c.ttl_ns // 10))

    content._due = due


def _reads_come_from_a_cache() -> None:
    original = queries.answer
    cache: dict[str, Any] = {}

    def answer(state: Any, session: Any, query: Any, principal: int) -> Any:
        key = f"{session} {principal} {replace(query, request=0, after_sequence=0, consistency=0)}"
        cached = cache.pop(key, None)
        if cached is not None:  # every other answer is the one before
            return cached
        cache[key] = original(state, session, query, principal)
        return cache[key]

    queries.answer = answer


def _compares_every_second() -> None:
    comparisons.COMPARE_EVERY_S = 1.0  # type: ignore[misc]


def _puts_otherwise() -> None:
    _compares_every_second()
    _executed_otherwise(ops.SectionPut, lambda state, c: replace(c, data=c.data + b"!"))


PLANTS = {
    "none, but compares every second": _compares_every_second,
    "puts otherwise": _puts_otherwise,
    "reads come from a cache": _reads_come_from_a_cache,
    "vectors are torn": _vectors_are_torn,
    "transactions are torn": _transactions_are_torn,
    "conditions do not matter": _conditions_do_not_matter,
    "fence has gaps": _fence_has_gaps,
    "expires early": _expires_early,
}


if __name__ == "__main__":
    name = os.environ[VARIABLE]
    if name in PLANTS:
        PLANTS[name]()
        sys.exit(main())
    with sabotage.planted(name):
        sys.exit(main())

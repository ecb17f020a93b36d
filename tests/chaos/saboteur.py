"""``python -m tests.chaos.saboteur``: a replica with a bug planted in it.

Which one says the environment variable ``CHAOS_SABOTAGE``. The product knows nothing of this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from raftckpt.model import content, queries
from raftckpt.model.checkpoints import Checkpoint
from raftckpt.node.main import main
from tests.sim import sabotage

VARIABLE = "CHAOS_SABOTAGE"


def _vectors_are_torn() -> Iterator[tuple[Any, str, Any]]:
    original = content.checkpoint_write

    def torn(state: Any, session: Any, c: Any, dry: bool = False) -> Any:
        if not dry and state.revision % 7 == 0:
            c = [*c[:5], c[5][:1]]
        return original(state, session, c, dry)

    yield content, "checkpoint_write", torn


def _fence_has_gaps() -> Iterator[tuple[Any, str, Any]]:
    original = Checkpoint.refuse_change

    def refuse_change(self: Any, flags: int, session: int) -> Any:
        refused = original(self, flags, session)
        return None if refused is not None and self.revision % 3 == 0 else refused

    yield Checkpoint, "refuse_change", refuse_change


def _expires_early() -> Iterator[tuple[Any, str, Any]]:
    original = content._due

    def due(state: Any, expiration_ns: int, ttl_ns: Any) -> int:
        return original(state, expiration_ns, ttl_ns and ttl_ns // 10)

    yield content, "_due", due


def _reads_come_from_a_cache() -> Iterator[tuple[Any, str, Any]]:
    original = queries.answer
    cache: dict[str, Any] = {}

    def answer(state: Any, session: Any, tag: int, args: Any) -> Any:
        key = f"{session} {tag} {args}"
        cached = cache.pop(key, None)
        if cached is not None:  # every other answer is the one before
            return cached
        cache[key] = original(state, session, tag, args)
        return cache[key]

    yield queries, "answer", answer


PLANTS = {
    "reads come from a cache": _reads_come_from_a_cache,
    "vectors are torn": _vectors_are_torn,
    "fence has gaps": _fence_has_gaps,
    "expires early": _expires_early,
}


if __name__ == "__main__":
    name = os.environ[VARIABLE]
    if name in PLANTS:
        for owner, attribute, spoiled in PLANTS[name]():
            setattr(owner, attribute, spoiled)
        sys.exit(main())
    with sabotage.planted(name):
        sys.exit(main())

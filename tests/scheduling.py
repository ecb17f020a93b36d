"""How ``pytest -n`` divides the tests among its workers: by what they need, then by file."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

from tests.rings import PURE, ring_of

__all__ = ["RingScheduling", "scope_of"]


def scope_of(test: str) -> str:
    """Tests of one scope run in one worker, one after the other."""
    path = test.partition("::")[0]
    return path if ring_of(path) == PURE else "not pure"


class RingScheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

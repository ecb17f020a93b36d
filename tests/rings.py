"""What each test needs, in one table: the longest path that fits a test counts.

pure        a processor and a scratch directory; no sockets, no replicas
loopback    sockets on loopback, in the test's own process
processes   replicas, programs or a compiler, as processes of their own

Each test gets its ring as a marker. With ``-n 2`` a file is run by one worker, and two clusters may
share two processors: no test may depend on the time that something takes. Each worker has ports of
its own.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BROWSER", "LONG", "LOOPBACK", "PROCESSES", "PURE", "RINGS", "SLOW", "ring_of"]

PURE: Final = "pure"
LOOPBACK: Final = "loopback"
PROCESSES: Final = "processes"

RINGS: Final = {
    "tests": PROCESSES,
    "tests/cli/test_data.py": PURE,
    "tests/fuzz/test_config.py": PURE,
    "tests/fuzz/test_corpus.py": PURE,
    "tests/golden": PURE,
    "tests/model": PURE,
    "tests/scripts": PURE,
    "tests/sim": PURE,
    "tests/tidy": PURE,
    "tests/unit": PURE,
    "tests/unit/bench/test_floor.py": PROCESSES,
    "tests/unit/bench/test_native.py": PROCESSES,
    "tests/unit/bench/test_natsload.py": PROCESSES,
    "tests/unit/bench/test_scale.py": PROCESSES,
    "tests/unit/client/test_aio.py": LOOPBACK,
    "tests/unit/client/test_double.py": LOOPBACK,
    "tests/unit/client/test_examples.py": PROCESSES,
    "tests/unit/client/test_interrupted.py": LOOPBACK,
    "tests/unit/client/test_parts.py": LOOPBACK,
    "tests/unit/client/test_resolving.py": LOOPBACK,
    "tests/unit/client/test_sync.py": LOOPBACK,
    "tests/unit/copies/test_snapshots.py": LOOPBACK,
    "tests/unit/process/test_life.py": PROCESSES,
    "tests/unit/process/test_operator_errors.py": PROCESSES,
    "tests/unit/raft/test_links.py": LOOPBACK,
    "tests/unit/server/test_admin.py": LOOPBACK,
    "tests/unit/server/test_connection.py": LOOPBACK,
    "tests/unit/server/test_listener.py": LOOPBACK,
    "tests/unit/server/test_tls.py": LOOPBACK,
    "tests/unit/testing/test_probe.py": LOOPBACK,
    "tests/unit/testing/test_proxy.py": LOOPBACK,
}

LONG: Final = frozenset({"tests/e2e/test_attacks_long.py"})
"""Files that get the marker ``long`` as a whole: ``.ci/long`` runs them."""

BROWSER: Final = "tests/browser/"
"""What below it gets the marker ``browser``: ``.ci/browser`` runs it."""

SLOW: Final = frozenset(
    {
        "tests/sim/test_crashpoints.py",
        "tests/sim/test_determinism.py",
        "tests/sim/test_planted.py",
        "tests/sim/test_sim.py",
        "tests/sim/test_standbys.py",
    }
)
"""Files that get the marker ``slow`` as a whole, with nine tenths of what the simulator takes."""


def ring_of(path: str) -> str:
    """Ring of the tests in a file; those that the table does not know need everything."""
    parts = path.split("/")
    return next(
        RINGS[prefix]
        for count in range(len(parts), 0, -1)
        if (prefix := "/".join(parts[:count])) in RINGS
    )

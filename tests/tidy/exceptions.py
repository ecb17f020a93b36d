"""What is not tidy yet. These tables only shrink: an entry that is no longer needed fails, too."""

from __future__ import annotations

__all__ = ["BARE_TAGS", "CLASS_NAMES", "TEST_CLASS_NAMES", "UNUSED"]

UNUSED: dict[str, set[str]] = {}
"""Names that nothing in the product reads."""

CLASS_NAMES = {
    "Checkpoint": {
        "raftckpt/client/aio.py",
        "raftckpt/client/sync.py",
        "raftckpt/model/checkpoints.py",
    },
    "Driver": {
        "raftckpt/client/aio_driver.py",
        "raftckpt/client/sync_driver.py",
        "raftckpt/node/driver.py",
    },
    "Library": {"raftckpt/errors.py", "raftckpt/saf/initialization.py"},
    "Operation": {"raftckpt/chaos/history.py", "raftckpt/model/groups.py"},
    "Settings": {"raftckpt/ha/supervisor.py", "raftckpt/saf/settings.py"},
    "Stage": {"raftckpt/client/calls.py", "raftckpt/client/tracking.py"},
    "Sync": {"raftckpt/client/tracking.py", "raftckpt/ha/_core.py"},
    "_Transfer": {"raftckpt/raft/node.py", "raftckpt/raft/sending.py"},
}
"""Class names with more than one meaning."""

TEST_CLASS_NAMES = {
    "Clocks": {"tests/sim/bench.py", "tests/sim/nodes.py"},
    "Payload": {"tests/unit/raft/test_holes_ours.py", "tests/unit/raft/test_holes_plain.py"},
    "Script": {"tests/unit/client/scripted.py", "tests/unit/client/test_tracking.py"},
    "Seam": {"tests/unit/storage/test_directory.py", "tests/unit/storage/test_journal.py"},
    "Sent": {"tests/sim/bench.py", "tests/sim/plain.py"},
}
"""The same in the tests."""

BARE_TAGS = {
    "raftckpt/chaos/history.py": {"fields[0] > 0"},
}
"""Comparisons of a tag or kind with a number that should have a name."""

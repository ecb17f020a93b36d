"""Public test helpers: a real cluster on loopback for one's own tests, and fault injection.

Loaded lazily: whoever corrupts a section needs no cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftckpt.testing.corruption import corrupt_section
    from raftckpt.testing.local_cluster import LocalCluster

__all__ = ["LocalCluster", "corrupt_section"]


def __getattr__(name: str) -> Any:
    if name == "LocalCluster":
        from raftckpt.testing.local_cluster import LocalCluster

        return LocalCluster
    if name == "corrupt_section":
        from raftckpt.testing.corruption import corrupt_section

        return corrupt_section
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

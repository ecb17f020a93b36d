"""Pytest plugin (loaded by its entry point): the fixture ``raftckpt_cluster``.

pytest loads it in every run wherever raftckpt is installed. It is a module beside the package, so
that a run which does not use the fixture imports nothing of raftckpt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from raftckpt.testing.local_cluster import LocalCluster

__all__ = ["raftckpt_cluster"]


@pytest.fixture
def raftckpt_cluster() -> Iterator[LocalCluster]:
    """Three real replica processes on loopback, ready, in a directory of their own.

    Example::

        def test_my_component(raftckpt_cluster):
            with raftckpt.connect(raftckpt_cluster.endpoints) as service:
                ...
                raftckpt_cluster.kill(raftckpt_cluster.leader())
    """
    from raftckpt.testing.local_cluster import LocalCluster

    with LocalCluster() as cluster:
        yield cluster

"""Keeps the replicas of a run alive, and tells of each that ended though nothing was done to it.

A replica is killed, stopped, or its disk gets full: whoever did that has it started again here. Any
other end is a problem, even if the replica comes back: nobody would hear of it otherwise.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Protocol

from raftckpt.process.main import EXIT_DISK, EXIT_REFUSED
from raftckpt.testing.local_cluster import ClusterNotReady

__all__ = ["ENDS_MAX", "Keeper", "Replicas", "state_of"]

ENDS_MAX: Final = 3
"""So often a replica may end by itself; then it is left alone, for it would do so for ever."""

_ASKED: Final = frozenset({0, -signal.SIGTERM, -signal.SIGKILL})
_OF_A_FULL_DISK: Final = frozenset({EXIT_DISK, EXIT_REFUSED})
_RETRY_S: Final = 0.2
"""Between two tries: those of one that is not ready yet take longer themselves."""
_LOG_LINES: Final = 5
"""The three lines of an error and two of what was before."""


class Replicas(Protocol):
    """What is needed of :class:`raftckpt.testing.LocalCluster`."""

    @property
    def nodes(self) -> list[str]:
        """Node ids."""

    def exit_code(self, node: str) -> int | None:
        """Exit code of a replica that ended (negative: signal), None if it runs or never ran."""

    def log(self, node: str, lines: int | None = None) -> str:
        """Return the end of its log."""

    def status(self, node: str, timeout: float = 1.0) -> dict[str, Any] | None:
        """Return what it tells about itself, None if it does not answer."""

    def restart(self, node: str, *, wait: bool = True) -> None:
        """Start it again."""

    def wait_ready(self, timeout: float = 20.0, nodes: Sequence[str] | None = None) -> None:
        """Wait until ``nodes`` answer and agree on a leader; raises ClusterNotReady."""


def state_of(cluster: Replicas, node: str) -> str:
    """Say what a replica that cannot be asked is doing instead."""
    code = cluster.exit_code(node)
    if code is not None:
        return f"it does not run: it ended with {code}: {cluster.log(node, _LOG_LINES)}"
    status = cluster.status(node)
    if status is None:
        return "it runs and does not answer"
    return f"it is {status['role']}, its leader is {status['leader']}, applied {status['applied']}"


class Keeper:
    """Starts again what does not run.

    Arguments:
        cluster: the replicas, started once.
        small: the one whose disk may get full.
    """

    def __init__(self, cluster: Replicas, small: str) -> None:
        self.problems: list[str] = []
        """Ends that nobody caused, in words."""
        self._cluster = cluster
        self._small = small
        self.leaving: set[str] = set()
        """Members that are being replaced: they end by themselves and are not started again."""
        self._may_die = False
        self._ends: Counter[str] = Counter()

    def disk_filled(self) -> None:
        """The small disk is full: its replica may end of that, once, however late."""
        self._may_die = True

    def restart(self) -> None:
        """Start every replica that does not run, unless it would only end once more."""
        for node in self._cluster.nodes:
            code = self._cluster.exit_code(node)
            if code is None or node in self._given_up or node in self.leaving:
                continue
            if not self._caused(node, code):
                self._ends[node] += 1
                said = self._cluster.log(node, _LOG_LINES)
                self.problems.append(f"replica {node} ended by itself with {code}: {said}")
            if node not in self._given_up:
                self._cluster.restart(node, wait=False)

    def recover(self, timeout: float) -> bool:
        """Start what does not run until all answer and agree on a leader, or the time is over.

        Whoever is not back by then is not waited for; it is missed when it is asked something.

        Returns:
            Whether everybody is back.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.restart()
            left = deadline - time.monotonic()
            nodes = [
                node
                for node in self._cluster.nodes
                if node not in self._given_up and node not in self.leaving
            ]
            if left <= 0 or not nodes:
                return False
            with contextlib.suppress(ClusterNotReady):  # one ended meanwhile, or time is over
                self._cluster.wait_ready(left, nodes)
                return not self._given_up
            time.sleep(min(_RETRY_S, left))

    @property
    def _given_up(self) -> set[str]:
        return {node for node, ends in self._ends.items() if ends >= ENDS_MAX}

    def _caused(self, node: str, code: int) -> bool:
        """Whether what the run did to it explains that it ended."""
        if node == self._small and self._may_die and code in _OF_A_FULL_DISK:
            self._may_die = False
            return True
        return code in _ASKED

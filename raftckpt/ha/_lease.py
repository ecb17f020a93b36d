"""What is known of a lease, without IO: told by the callbacks of a component."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Final

from raftckpt.client.kit import ClientCore
from raftckpt.errors import CheckpointError, Timeout
from raftckpt.ha.types import Assignment
from raftckpt.model.groups import LEASES

__all__ = ["LEASE_PREFIX", "Holding", "holder_name"]

LEASE_PREFIX: Final = LEASES
"""Of the names of their groups."""


class Holding:
    """What is known of a lease.

    Attributes:
        name: of the lock.
        token: fencing epoch with which it was had, 0: it was not.
    """

    _core: ClientCore

    def __init__(
        self, name: str, wait: float | None, on_lost: Callable[[], object] | None, stop_time: float
    ) -> None:
        self.name = name
        self.token = 0
        self._wait = inf if wait is None else wait
        self._on_lost = on_lost
        self._has = self._over = False
        self._failure: CheckpointError | None = None
        self._options: dict[str, Any] = {
            "on_active": self._had,
            "on_standby": self._not_had,
            "on_quiesced": self._not_had,
            "on_unassigned": self._not_had,
            "on_removed": self._not_had,
            "rejoin": False,
            "stop_time": stop_time,
        }

    @property
    def held(self) -> bool:
        """Whether it is had, for sure: our own clock says so, too."""
        return self._has and monotonic() < self._core.safe_until()

    def _changed(self) -> None:
        """Somebody waits for it."""
        raise NotImplementedError

    def _had(self, assignment: Assignment) -> None:
        if not self._over:  # what was lost once is not had again: its work was stopped
            self.token = assignment.epoch
            self._has = True
            self._changed()

    def _not_had(self, assignment: Assignment) -> None:
        self._lose()

    def _lose(self, failure: CheckpointError | None = None) -> None:
        had, self._has = self._has, False
        self._failure = self._failure or failure
        self._over = self._over or had or failure is not None
        self._changed()
        if had and self._on_lost is not None:
            self._on_lost()

    def _decided(self) -> bool:
        return self._has or self._over

    def _error(self) -> CheckpointError:
        return self._failure or Timeout(
            f"lease {self.name!r}: somebody else has it, for {self._wait:g} s now; wait longer, or "
            f"see who: raftckpt group show {LEASE_PREFIX}{self.name}",
            definite=True,
        )


def holder_name() -> str:
    """Return a name for a component that no other one ever had."""
    return f"{os.getpid()}-{os.urandom(8).hex()}"

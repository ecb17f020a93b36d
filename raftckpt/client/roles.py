"""Where the assignments of a session's components arrive, until somebody takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Key", "RoleInbox"]

Key: TypeAlias = tuple[str, str]
"""(service group, component)"""


class RoleInbox:
    """The newest assignment of each component that is served here, once.

    An older one is void as soon as there is a newer one: a reader that was slow misses nothing that
    still matters, and what is kept is bounded. Notices come at least once; numbers grow, so a
    repeated one is known by its number.
    """

    def __init__(self) -> None:
        self._wakes: dict[Key, Callable[[], None]] = {}
        self._newest: dict[Key, dict[str, Any]] = {}
        self._numbers: dict[Key, int] = {}
        self.doubtful: set[Key] = set()
        """Those that joined, perhaps: nobody was told whether."""
        self.lost = ""
        """Why the session ended; "": it did not."""

    def serve(self, key: Key, wake: Callable[[], None]) -> None:
        """Begin to keep what is told to a component.

        Arguments:
            key: whose.
            wake: called, from any thread, when there is something to take; must not block.
        """
        self._wakes[key] = wake

    def forget(self, key: Key) -> None:
        """Keep nothing for it any more, unless it is doubtful: then it is needed to join again."""
        if key in self.doubtful:
            self._wakes[key] = _nobody
            return
        self._wakes.pop(key, None)
        self._newest.pop(key, None)
        self._numbers.pop(key, None)

    def put(self, role: dict[str, Any]) -> None:
        """Take a notice of a replica."""
        key = (role["group"], role["component"])
        number = role["assignment"]
        wake = self._wakes.get(key)
        if wake is not None and number > self._numbers.get(key, 0):
            self._numbers[key] = number
            self._newest[key] = role
            wake()

    def take(self, key: Key) -> dict[str, Any] | None:
        """Return an assignment that nobody took yet."""
        return self._newest.pop(key, None)

    def end(self, why: str) -> None:
        """The session ended: whoever waits must know."""
        self.lost = why
        for wake in list(self._wakes.values()):
            wake()


def _nobody() -> None:
    """Nobody waits."""

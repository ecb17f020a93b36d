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
        self.margin: float | None = None
        """Seconds before the session may be over at which components are to stop working."""
        self.isolated = False
        """Whether the session may be over, by our own clock."""
        self.back: set[Key] | None = None
        """Those whose last assignment holds after an isolation; None: there was none."""

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
        if wake is None:
            return
        if number > self._numbers.get(key, 0):
            self._numbers[key] = number
            self._newest[key] = role
            wake()
        elif self.back is not None and number == self._numbers[key]:  # told again: it holds
            self.back.add(key)
            wake()

    def take(self, key: Key) -> dict[str, Any] | None:
        """Return an assignment that nobody took yet."""
        return self._newest.pop(key, None)

    def watch(self, margin: float) -> None:
        """Have components told in time that the session may be over.

        Arguments:
            margin: seconds that they need to stop working.
        """
        self.margin = max(margin, self.margin or 0.0)

    def isolate(self) -> None:
        """No leader was heard from: the cluster may make another one active soon."""
        self.isolated = True
        self.back = set()
        for wake in list(self._wakes.values()):
            wake()

    def all_hold(self) -> None:
        """A leader that never let go of us was heard again: every assignment holds."""
        self.back = set(self._wakes)
        for wake in list(self._wakes.values()):
            wake()

    def end(self, why: str) -> None:
        """The session ended: whoever waits must know."""
        self.lost = why
        for wake in list(self._wakes.values()):
            wake()


def _nobody() -> None:
    """Nobody waits."""

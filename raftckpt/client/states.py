"""Tells a program how its client fares: connected, searching, isolated, closed."""

from __future__ import annotations

from collections.abc import Callable

from raftckpt.client.core import ClientCore
from raftckpt.events import EventLog

__all__ = ["States"]

_log = EventLog("client")


class States:
    """Watches the state of a core.

    Attributes:
        told: is called with each new state.
    """

    def __init__(self, core: ClientCore) -> None:
        self.told: Callable[[str], object] | None = None
        self._core = core
        self._last = ""

    def look(self) -> None:
        """Tell the state, if it is another one (called by the engine after each change)."""
        state = self._core.state
        if state != self._last and self.told is not None:
            self._last = state
            try:
                self.told(state)
            except Exception as error:  # whoever reads for the client must go on
                _log.error("on_state_failed", raised=error, state=state)

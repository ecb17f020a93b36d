"""What the blocking face of components waits and works with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from raftckpt.client.kit import Wake
from raftckpt.errors import CheckpointError

__all__ = ["Alarm", "Serving", "called"]


class Alarm:
    """Wakes one thread, or somebody else's loop; rung by any thread and by signal handlers."""

    def __init__(self) -> None:
        self._wake = Wake()
        self._stopped = threading.Event()
        self.ring = self._wake.notify
        self.wait = self._wake.wait

    def fileno(self) -> int:
        """Descriptor that is readable when it rang."""
        return self._wake.reading

    def ring_every(self, seconds: float) -> None:
        """Somebody else's loop learns from the descriptor that a sign of life is due."""
        threading.Thread(
            target=self._remind, args=(seconds,), name="raftckpt-beat", daemon=True
        ).start()

    def _remind(self, seconds: float) -> None:
        while not self._stopped.wait(seconds):
            with suppress(OSError):
                self._wake.notify()

    def stop(self) -> None:
        """Ring by itself no more."""
        self._stopped.set()


class Serving:
    """A component that works beside its caller."""

    def __init__(self, run: Callable[[], None], failed: Callable[[CheckpointError], None]) -> None:
        self._run, self._failed = run, failed
        threading.Thread(target=self._serve, name="raftckpt-lease", daemon=True).start()

    def _serve(self) -> None:
        try:
            self._run()
        except CheckpointError as error:
            self._failed(error)

    def end(self) -> None:
        """It ends by itself when its component is closed."""


def called(callback: Callable[[Any], Any], argument: Any) -> Any:
    """Call back."""
    return callback(argument)

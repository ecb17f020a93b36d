"""What the blocking face does beside its calls: closing, finalizing, timing.

Made from ``aio_extras.py`` by ``tools/faces.py``: do not edit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from raftckpt.client.habits import MappingHabits
from raftckpt.errors import CheckpointError

if TYPE_CHECKING:
    from raftckpt.client.sync_driver import Driver

__all__ = ["CheckpointExtras", "ServiceExtras"]

_S = TypeVar("_S", bound="_Closing")


class _Closing:
    def close(self, *, timeout: float | None = None) -> None:
        raise NotImplementedError

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(CheckpointError):  # the error of the block is the one that matters
                self.close(timeout=1.0)


class ServiceExtras(_Closing):
    """Closing, finalizing and timing of a service."""

    _driver: Driver

    def _seconds(self, timeout: float | None) -> float:
        return self._driver.timeout if timeout is None else timeout

    def _rounds(self, timeout: float | None) -> Iterator[None]:
        """Go on until the timeout has passed, at least once."""
        deadline = monotonic() + self._seconds(timeout)
        yield
        while monotonic() < deadline:
            yield

    def __del__(self) -> None:
        driver: Any = getattr(self, "_driver", None)
        if driver is not None and (driver.outlived or not driver.closed):
            driver.abandon()
            warnings.warn(
                "a raftckpt service was not closed: use 'with' or close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


class CheckpointExtras(MappingHabits, _Closing):
    """Closing of a checkpoint."""

    _closed = False

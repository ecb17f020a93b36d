"""What the asyncio face does beside its calls: closing, finalizing, timing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from raftckpt.errors import CheckpointError

if TYPE_CHECKING:
    from raftckpt.client.aio_driver import Driver

__all__ = ["CheckpointExtras", "ServiceExtras"]

_S = TypeVar("_S", bound="_Closing")


class _Closing:
    async def close(self, *, timeout: float | None = None) -> None:
        raise NotImplementedError

    async def __aenter__(self: _S) -> _S:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.close()
        else:
            with suppress(CheckpointError):  # the error of the block is the one that matters
                await self.close(timeout=1.0)


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
                "a raftckpt service was not closed: use 'async with' or close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


class CheckpointExtras(_Closing):
    """Closing of a checkpoint."""

    _closed = False

"""What only the blocking face has: ``with``, and the habits of a mapping."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from raftckpt.errors import CheckpointError

if TYPE_CHECKING:
    from raftckpt.client.sync_driver import Driver
    from raftckpt.client.types import SectionId

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
        if driver is not None and not driver.closed:
            driver.abandon()
            warnings.warn(
                "a raftckpt service was not closed: use 'with' or close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


class CheckpointExtras(_Closing):
    """A checkpoint used like a dictionary of sections."""

    _closed = False

    if TYPE_CHECKING:
        put: Any
        read: Any
        delete: Any
        exists: Any
        count: Any
        ids: Any

    def __getitem__(self, id: SectionId) -> bytes:
        data: bytes = self.read(id)
        return data

    def __setitem__(self, id: SectionId, data: Any) -> None:
        self.put(id, data)

    def __delitem__(self, id: SectionId) -> None:
        self.delete(id)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, (bytes, str)) and bool(self.exists(id))

    def __len__(self) -> int:
        return int(self.count())

    def __bool__(self) -> bool:
        """An open checkpoint is true, however many sections it has."""
        return True

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.ids())

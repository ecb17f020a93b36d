"""The habits of a mapping: a checkpoint used like a dictionary of sections (blocking only)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftckpt.client.types import SectionId

__all__ = ["MappingHabits"]


class MappingHabits:
    """A checkpoint used like a dictionary of sections."""

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

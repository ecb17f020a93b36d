"""A queue of several owners who are served in turns, however much one of them has in it."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

_Owner = TypeVar("_Owner")
_Item = TypeVar("_Item")


class FairQueue(Generic[_Owner, _Item]):
    """Items leave one of each owner in turn; those of one owner in the order they came."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: dict[_Owner, deque[_Item]] = {}

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self._items)

    def push(self, owner: _Owner, item: _Item) -> None:
        """Add an item."""
        mine = self._items.get(owner)
        if mine is None:
            mine = self._items[owner] = deque()
        mine.append(item)

    def pop(self) -> tuple[_Owner, _Item]:
        """Take the next item; the queue is not empty."""
        owner = next(iter(self._items))
        mine = self._items.pop(owner)
        item = mine.popleft()
        if mine:
            self._items[owner] = mine
        return owner, item

    def drain(self) -> list[tuple[_Owner, _Item]]:
        """Take everything."""
        items, self._items = self._items, {}
        return [(owner, item) for owner, mine in items.items() for item in mine]

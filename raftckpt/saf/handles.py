"""The handles of this process: 64-bit numbers that are never used again, by kind.

A forked child inherits none: its parent's session is not its own. The objects stay alive there,
untouched, so that nothing of theirs is closed or said over the parent's connections.
"""

from __future__ import annotations

import itertools
import os
import secrets
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

__all__ = ["find", "new_handle", "new_table"]

_tables: Final[list[dict[int, Any]]] = []
_inherited: Final[list[Any]] = []


def _counter() -> itertools.count[int]:
    # begins anywhere: a handle that strayed from another process is not taken for one of ours
    return itertools.count((secrets.randbits(30) + 1) << 32)


_numbers = _counter()


def new_table() -> dict[int, Any]:
    """Return a table of handles of one kind, which a forked child finds empty."""
    _tables.append({})
    return _tables[-1]


def new_handle() -> int:
    """Return a handle that was never given out."""
    return next(_numbers)


def find(table: dict[int, _T], handle: Any) -> _T | None:
    """Return what a handle stands for, None if it stands for nothing (whatever its type)."""
    try:
        return table.get(handle)
    except TypeError:
        return None


def _forget_after_fork() -> None:
    global _numbers
    for table in _tables:
        _inherited.append(dict(table))
        table.clear()
    _numbers = _counter()


os.register_at_fork(after_in_child=_forget_after_fork)

"""What a command takes of an entry: an upper bound of its bytes, by its kinds alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raftckpt.protocol.kinds import kind_of
from raftckpt.protocol.operations import LOGGED, OPERATIONS

__all__ = ["COST"]

_HEAD_BYTES: Final = 30
"""Of the array, its tag and three leading numbers of nine bytes."""
_FIELD_BYTES: Final = 10
"""Of a number, or of the head of what is longer."""


def _cost(record: type[Any]) -> Callable[[Any], int]:
    """Compile the cost of a record: it is asked for every command that arrives."""
    fields = OPERATIONS[record].fields
    sizes = [kind_of(hint).size.format(f"c.{name}") for name, hint in fields.items()]
    terms = [str(_HEAD_BYTES + _FIELD_BYTES * len(fields)), *filter(None, sizes)]
    compiled: Callable[[Any], int] = eval(f"lambda c: {' + '.join(terms)}")  # noqa: S307
    return compiled


COST: Final[dict[type[Any], Callable[[Any], int]]] = {record: _cost(record) for record in LOGGED}
"""By record: upper bound of the bytes it takes in an entry."""

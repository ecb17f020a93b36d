"""Quotas of a space: what the checkpoints whose names it decides on may hold, and what they do.

They are limits of the state and decide in ``apply``, whether rights are on or off. Only growth is
refused: a quota below what is used takes nothing away. A checkpoint counts until it is destroyed,
unlinked or not, in the space that decides on its name now. What is used is counted where it changes
(``State.grow``) and only for spaces that have quotas; ``State.regroup`` counts anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from raftckpt.errors import SaAisError
from raftckpt.model.types import Result, refuse
from raftckpt.protocol.contract import SA_TIME_MAX

__all__ = ["QUOTAS", "SpaceQuotas", "in_order"]

QUOTAS: Final = ("checkpoints", "sections", "bytes")
"""By name, in the order in which they are told, kept and asked. Bytes are those of the content;
holes are content."""


class SpaceQuotas:
    """The quotas of a space that has any.

    Attributes:
        prefix: of the space.
        given: what was set, by name, in the order of ``QUOTAS``; never empty.
        checkpoints, sections, bytes: what is used.
    """

    __slots__ = ("bytes", "checkpoints", "given", "prefix", "sections")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.given: dict[str, int] = {}
        self.checkpoints = 0
        self.sections = 0
        self.bytes = 0

    def used(self, name: str) -> int:
        """What is used of a quota."""
        found: int = getattr(self, name)
        return found

    def left(self, name: str) -> int:
        """Room that is left, negative if more is used; ``SA_TIME_MAX`` without such a quota."""
        most = self.given.get(name)
        return SA_TIME_MAX if most is None else most - self.used(name)

    def count(self, checkpoints: int, sections: int, size: int) -> None:
        """Count what comes, or (negative) goes."""
        self.checkpoints += checkpoints
        self.sections += sections
        self.bytes += size

    def refuse(self, checkpoints: int, sections: int, size: int) -> Result | None:
        """NO_SPACE if something grows for which there is no room."""
        for name, more in zip(QUOTAS, (checkpoints, sections, size), strict=True):
            if more > 0 and more > self.left(name):
                detail = [name, self.given[name], self.prefix]
                return refuse(SaAisError.ERR_NO_SPACE, "space_quota", detail)
        return None


def in_order(values: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Quotas by name in the order of ``QUOTAS``; 0 is none."""
    wanted = dict(values)
    return {name: wanted[name] for name in QUOTAS if wanted.get(name)}

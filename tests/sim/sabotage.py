"""Planted bugs: what the checks of a world must catch."""

from __future__ import annotations

from typing import Any, Final

SABOTAGES: Final = ("no_fsync",)


def spoil(node: Any, sabotage: str) -> None:
    """Plant the bug called ``sabotage`` in a fresh node."""

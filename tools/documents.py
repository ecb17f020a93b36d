"""Documents with tables that are made from the code: written anew, or said to be old."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["keep"]


def keep(document: Path, rewritten: Callable[[str], str], command: str) -> int:
    """Write the document (``--write``), or say that it is old; returns the exit code.

    Arguments:
        document: where it is.
        rewritten: makes of its text what it is to be.
        command: the module that makes it, for people.
    """
    text = document.read_text("utf-8")
    made = rewritten(text)
    if "--write" in sys.argv[1:]:
        document.write_text(made, "utf-8")
    elif made != text:
        print(f"{document.name} is old: python -m {command} --write", file=sys.stderr)
        return 1
    return 0

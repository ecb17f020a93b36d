"""Golden books: text files of entries, each an input written by people and what came of it.

::

    # a comment
    name of the entry | input, a Python expression of plain values
      what the product made of it, line by line

The lines below an entry were written once, by ``python -m tests.golden``, when the entry was new.
They are never written again: a program of today reads the bytes of yesterday, or it is broken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["HERE", "Entry", "fill", "read"]

HERE = Path(__file__).parent


class Entry(NamedTuple):
    name: str
    input: Any
    lines: list[str]


def value_of(text: str) -> Any:
    """Plain values; ``bytes(9)``, ``b"x" * 70000`` and the like may stand for long ones."""
    return eval(text, {"__builtins__": {}, "bytes": bytes, "range": range})


def read(book: str) -> list[Entry]:
    entries: list[Entry] = []
    for line in (HERE / f"{book}.txt").read_text().splitlines():
        if line.startswith("  "):
            entries[-1].lines.append(line[2:])
        elif line and not line.startswith("#"):
            name, bar, text = line.partition(" | ")
            assert bar, f"{book}: no input: {line}"
            entries.append(Entry(name, value_of(text), []))
    names = [entry.name for entry in entries]
    doubles = {name for name in names if names.count(name) > 1}
    assert not doubles, f"{book}: names used twice: {doubles}"
    return entries


def fill(book: str, found: list[list[str]]) -> tuple[list[str], list[str]]:
    """Write what was found below the entries that have nothing yet.

    Returns:
        Names of the entries filled, and of those whose lines are not what was found: if there are
        any, nothing was written.
    """
    entries = read(book)
    pairs = list(zip(entries, found, strict=True))
    wrong = [entry.name for entry, lines in pairs if entry.lines and entry.lines != lines]
    new = {entry.name: lines for entry, lines in pairs if not entry.lines}
    if wrong or not new:
        return [], wrong
    path = HERE / f"{book}.txt"
    text: list[str] = []
    for line in path.read_text().splitlines():
        text.append(line)
        if not line.startswith(("  ", "#")):
            text += [f"  {made}" for made in new.get(line.partition(" | ")[0], ())]
    path.write_text("\n".join(text) + "\n")
    return list(new), []

"""Text of others, made safe to show: in logs, tables, and errors. The one place that does it."""

from __future__ import annotations

from typing import Final

__all__ = ["plain", "shown"]

_SHOWN_MAX: Final = 60  # characters of a wrong value in an error
_BITS_MAX: Final = 256  # an int that is longer is no number of ours, and takes long to print


def plain(text: str) -> str:
    """Text that can neither steer a terminal nor pass for another line.

    Control characters, line and paragraph separators, marks that turn the direction of writing and
    halves of characters are written as Python escapes.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """A value as it was given, for an error about it: short, whatever it is."""
    if isinstance(value, int) and value.bit_length() > _BITS_MAX:  # too long to be written out
        return f"a number of {value.bit_length()} bits"
    text = plain(repr(value[: _SHOWN_MAX + 1] if isinstance(value, str) else value))
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."

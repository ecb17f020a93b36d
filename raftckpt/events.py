"""Events for the log: a name and fields, kept as they are until somebody writes them down.

The one way to log. A handler of the standard library that knows nothing of it gets the line of
text (``str`` of the record's message); ``node.logs`` writes text or JSON, where numbers are
numbers. Nothing that somebody else said can end a line, begin a field or steer a terminal.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from raftckpt.plain import plain

__all__ = ["EventLog", "LogEvent", "Value"]

Value = str | int | float | bool | None
_QUOTED: Final = frozenset(' "=\\')
"""What makes a text one that is written in quotes."""


class LogEvent:
    """What happened; the message of a log record."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: Mapping[str, Value]) -> None:
        self.name = name
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.name} {self.told(**self.fields)}" if self.fields else self.name

    @staticmethod
    def told(**fields: Value) -> str:
        """Fields as text."""
        return " ".join(f"{key}={_text(value)}" for key, value in fields.items())


class EventLog:
    """A logger of the standard library that takes events.

    Arguments:
        room: who speaks: the logger is ``raftckpt.ROOM``.

    Example:
        >>> log = EventLog("node")
        >>> log.info("ready", pid=12, why="all is well")
        >>> str(LogEvent("ready", {"pid": 12, "why": "all is well"}))
        'ready pid=12 why="all is well"'
    """

    __slots__ = ("_logger",)

    def __init__(self, room: str) -> None:
        self._logger = logging.getLogger(f"raftckpt.{room}")

    def debug(self, event: str, /, **fields: Value) -> None:
        """Log what only matters to who looks for a fault."""
        self.log(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Value) -> None:
        """Log a change of state."""
        self.log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Value) -> None:
        """Log what somebody should look at when there is time."""
        self.log(logging.WARNING, event, fields)

    def error(self, event: str, /, *, raised: BaseException | None = None, **fields: Value) -> None:
        """Log what somebody should look at now, with the traceback of what was raised."""
        self.log(logging.ERROR, event, fields, raised)

    def log(
        self,
        level: int,
        event: str,
        fields: Mapping[str, Value],
        raised: BaseException | None = None,
    ) -> None:
        """Log at a level of the standard library."""
        if self._logger.isEnabledFor(level):
            # two frames up is who logs: the record's file and line say so
            self._logger.log(level, LogEvent(event, fields), exc_info=raised, stacklevel=3)


def _text(value: Value) -> str:
    if isinstance(value, str):
        text = plain(value)
        if text and _QUOTED.isdisjoint(text):
            return text
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)

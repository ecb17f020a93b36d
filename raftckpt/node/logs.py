"""Logs of a replica on stderr: one event a line, as text (``event key=value``) or as JSON.

The audit stream (``server.audit``) has a level of its own and, if wanted, a file of its own, which
is opened again when somebody moved it away (logrotate needs no signal).
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from raftckpt.events import LogEvent, Value
from raftckpt.node.config import LOG_ROOMS, LogConfig
from raftckpt.plain import plain

__all__ = ["configure"]

_AUDIT: Final = "raftckpt.audit"
_AUDIT_MODE: Final = 0o640
"""Of the file: who is named in it is nobody's business but the operators'."""
_OWN: Final = frozenset({"time", "level", "node", "room", "event", "traceback"})
"""Members of a line of JSON; a field of that name gets an underscore."""


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _TextFormatter(logging.Formatter):
    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        room = record.name.removeprefix("raftckpt.")
        line = f"{_stamp(record)} {record.levelname.lower()} {self._node} {room} "
        line += plain(record.getMessage())
        if record.exc_info:
            line += " " + LogEvent.told(traceback=self.formatException(record.exc_info))
        return line


class _JsonFormatter(logging.Formatter):
    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        said: object = record.msg
        entry: dict[str, Any] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "node": self._node,
            "room": record.name.removeprefix("raftckpt."),
        }
        if isinstance(said, LogEvent):
            entry["event"] = said.name
            for key, value in said.fields.items():
                entry[f"{key}_" if key in _OWN else key] = _json(value)
        else:  # of a library
            entry["event"] = record.getMessage()
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _json(value: Value) -> Value:
    """What JSON has no number for is text: no reader has to know more than JSON."""
    return str(value) if isinstance(value, float) and not abs(value) < float("inf") else value


class _AuditFile(logging.handlers.WatchedFileHandler):
    """Appends to a file; what cannot be written there goes to stderr rather than nowhere."""

    def _open(self) -> Any:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return open(os.open(self.baseFilename, flags, _AUDIT_MODE), "a", encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # opening it again failed
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        self.stream = None  # the next line tries to open it again
        sys.stderr.write(self.format(record) + "\n")


def configure(node: str, config: LogConfig, stream: TextIO | None = None) -> None:
    """Send the logs of the product (and of asyncio) to ``stream``; may be done again.

    Arguments:
        node: this replica's node id, part of each line.
        config: levels, format, and where the audit stream goes.
        stream: where to (default: stderr).

    Raises:
        OSError: the file of the audit stream cannot be opened; nothing was changed.
    """
    formatter = _JsonFormatter(node) if config.format == "json" else _TextFormatter(node)
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    audit: list[logging.Handler] = [_AuditFile(config.audit)] if config.audit is not None else []
    for each in (handler, *audit):
        each.setFormatter(formatter)
    for name, level, takes in (
        ("raftckpt", config.level, [handler]),
        ("asyncio", "warning", [handler]),
        (_AUDIT, config.audit_level, audit),
    ):
        logger = logging.getLogger(name)
        former, logger.handlers[:] = logger.handlers[:], takes
        logger.setLevel(level.upper())
        logger.propagate = not takes
        for each in former:
            each.close()
    for room in LOG_ROOMS:
        level = config.rooms.get(room, "notset")  # that of the others
        logging.getLogger(f"raftckpt.{room}").setLevel(level.upper())
    logging.raiseExceptions = False  # a full pipe must not stop a replica

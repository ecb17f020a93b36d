"""Logs of a replica on stderr: ``event key=value`` as text, or one JSON object per line."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from raftckpt.plain import plain

__all__ = ["configure"]

_PAIR = re.compile(r"(\w+)=(\"[^\"]*\"|\S+)")


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
            line += "\n" + self.formatException(record.exc_info)
        return line


class _JsonFormatter(logging.Formatter):
    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        entry: dict[str, Any] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "node": self._node,
            "room": record.name.removeprefix("raftckpt."),
            "event": message,
        }
        for key, value in _PAIR.findall(message):
            entry.setdefault(key, value.strip('"'))
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure(node: str, level: str, form: str, stream: TextIO | None = None) -> None:
    """Send the logs of the product (and of asyncio) to ``stream`` (default: stderr).

    Arguments:
        node: this replica's node id, part of each line.
        level: debug, info, warning or error.
        form: text or json.
        stream: where to.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_JsonFormatter(node) if form == "json" else _TextFormatter(node))
    for name in ("raftckpt", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper() if name == "raftckpt" else "WARNING")
        logger.propagate = False
    logging.raiseExceptions = False  # a full pipe must not stop a replica

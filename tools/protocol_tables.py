"""The tables of messages in docs/reference/protocol.md, made from the table of operations.

``python -m tools.protocol_tables --write`` puts them between their markers; without ``--write`` it
says whether the document is what would be made. What tables cannot say stands in the document.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raftckpt.protocol import operations as ops
from raftckpt.protocol.operations import COMMANDS, OPERATIONS, OperationSpec, Query
from tools.documents import keep

__all__ = ["DOCUMENT", "TABLES", "rewritten"]

DOCUMENT = Path(__file__).parent.parent / "docs" / "reference" / "protocol.md"


def _message(row: OperationSpec) -> str:
    return f"{row.name}: `{', '.join(row.fields)}`" if row.fields else row.name


def _success(row: OperationSpec) -> str:
    return row.reply if isinstance(row.reply, str) else f"[{', '.join(row.reply)}]"


_COLUMNS: dict[str, Callable[[OperationSpec], str]] = {
    "tag": lambda row: str(row.tag),
    "message": _message,
    "success": _success,
    "right": lambda row: row.needs.value,
    "level": lambda row: str(row.since),
    "early": lambda row: "yes" if row.early else "",
    "served by": lambda row: row.route.value,
    "meaning": lambda row: row.description.replace("``", "`"),
}
_LOG = ("tag", "message", "success", "right", "level", "early", "meaning")
_STATE = ("tag", "message", "success", "right", "level", "meaning")
_REPLICA = ("tag", "message", "success", "right", "level", "served by", "meaning")

TABLES: dict[str, tuple[tuple[str, ...], Callable[[type[Any]], bool]]] = {
    "handshake": (
        _REPLICA,
        {ops.HelloRequest, ops.Attach, ops.Keepalive}.__contains__,
    ),
    "commands": (_LOG, COMMANDS.__contains__),
    "queries": (_STATE, lambda record: issubclass(record, Query)),
    "tracking": (_REPLICA, {ops.Track, ops.TrackSync, ops.TrackStop}.__contains__),
    "administration": (
        _REPLICA,
        {
            ops.ReplicaStatusRequest,
            ops.Transfer,
            ops.DigestRequest,
            ops.CheckStart,
            ops.MemberAdd,
            ops.MemberRemove,
            ops.LevelPin,
            ops.MemberDrain,
            ops.LimitsChange,
            ops.LatelyRequest,
            ops.LimitsChange,
            ops.AlarmClear,
            ops.SnapshotBegin,
            ops.SnapshotPiece,
        }.__contains__,
    ),
    "witness": (_REPLICA, {ops.WitnessRequest}.__contains__),
}
"""By the name in the markers: columns, and which operations. All that a client may send are in
exactly one, or a test fails."""


def table(name: str) -> str:
    """Return a table of the document."""
    columns, wanted = TABLES[name]
    found = [row for record, row in OPERATIONS.items() if wanted(record)]
    rows = sorted(found, key=lambda row: row.tag)
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[_COLUMNS[column](row) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rewritten(text: str) -> str:
    """Return the document with the tables as they are to be.

    Raises:
        KeyError: it has a marker of no table.
    """
    pattern = r"(<!-- table: (\w+) -->\n)(?:\|.*\n)*"
    return re.sub(pattern, lambda found: found[1] + table(found[2]), text)


if __name__ == "__main__":
    sys.exit(keep(DOCUMENT, rewritten, "tools.protocol_tables"))

"""Messages as arrays, as they travel: what tests write down, made what the product works with."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgpack

from raftckpt.model.types import Result, refuse
from raftckpt.protocol.check import Malformed, array_of, command_reader, request_reader
from raftckpt.protocol.frames import payload_of
from raftckpt.protocol.kinds import Problem
from raftckpt.protocol.operations import COMMANDS, OPERATIONS, QUERIES, REQUESTS

__all__ = [
    "COMMAND_TAGS",
    "QUERY_TAGS",
    "REQUEST_TAGS",
    "Tag",
    "ask",
    "check_request",
    "command",
    "record",
    "tag_of",
    "unpack_messages",
    "validate",
]


def record(fields: Any) -> Any:
    """The record of a request that is well formed."""
    made = request_reader.record(fields)
    assert type(made) is not Malformed, made
    return made


def command(fields: Any) -> Any:
    """The record of a command as it stands in the log, or a Malformed."""
    return command_reader.record(fields)


def tag_of(kind: type[Any]) -> int:
    """The number of an operation."""
    return OPERATIONS[kind].tag


def check_request(message: Any) -> Problem | None:
    """What a replica has against a message that arrives; None: nothing."""
    made = message if type(message) in OPERATIONS else request_reader.record(message)
    if type(made) in OPERATIONS:
        made = request_reader.record(array_of(made))
    return made.problem if type(made) is Malformed else None


def validate(fields: Any) -> Result | None:
    """What apply refuses a command with for its form alone; None: it is well formed."""
    made = command(fields)
    return refuse(*made.problem) if type(made) is Malformed else None


def ask(machine: Any, session: int | None, tag: int, *args: Any, principal: int = 0) -> Result:
    """Ask a machine as a client would; a malformed query is refused as a replica refuses it."""
    head = [0, 0] if tag in QUERY_TAGS else []
    made = request_reader.record([tag, 0, *head, *args])
    if type(made) is Malformed:
        return refuse(*made.problem)
    result: Result = machine.query(session, made, principal)
    return result


def unpack_messages(body: bytes) -> list[Any]:
    """The arrays in a whole frame body, whatever they are."""
    messages: list[Any] = msgpack.unpackb(
        payload_of(body), raw=False, strict_map_key=False, max_array_len=1 << 20
    )
    return messages


Tag = IntEnum("Tag", {row.name: row.tag for row in OPERATIONS.values()})
"""Numbers of the operations by name."""
COMMAND_TAGS = frozenset(OPERATIONS[kind].tag for kind in COMMANDS)
QUERY_TAGS = frozenset(OPERATIONS[kind].tag for kind in QUERIES)
REQUEST_TAGS = frozenset(OPERATIONS[kind].tag for kind in REQUESTS)

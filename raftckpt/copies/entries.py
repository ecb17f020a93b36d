"""Entries of the log in words: the names of operations and of their fields."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import asdict

from raftckpt.protocol.batch import decode_batch
from raftckpt.protocol.check import Malformed
from raftckpt.protocol.operations import OPERATIONS
from raftckpt.raft.configuration import (
    CONFIGURATION,
    NO_OP,
    REGULAR,
    ClusterMember,
    Configuration,
    decode_configuration,
)
from raftckpt.storage import PLACEHOLDER

__all__ = ["ToldEntry", "configuration_told", "member_told", "plain", "told"]

_SECRET: Final = frozenset({"secret"})
"""Fields that are told to nobody: who knows a session's secret has the session."""


@dataclass(frozen=True, slots=True)
class ToldEntry:
    """An entry of the log, decoded.

    Attributes:
        index: its place.
        term: of the leader that made it.
        kind: "batch", "configuration", "no-op", "placeholder" (only its term is known), or
            "undecodable" (it is none of these, and does nothing).
        size: bytes of its payload.
        time_ns: stamp of a batch, else None.
        commands: of a batch: (operation, {field: value}).
        configuration: of a configuration.
    """

    index: int
    term: int
    kind: str
    size: int
    time_ns: int | None = None
    commands: tuple[tuple[str, dict[str, Any]], ...] = ()
    configuration: Configuration | None = None


def told(payload: bytes, index: int, term: int) -> ToldEntry:
    """Decode an entry, whatever it is."""
    kind = payload[:1]
    size = len(payload)
    if payload == PLACEHOLDER:
        return ToldEntry(index, term, "placeholder", size)
    if kind == NO_OP:
        return ToldEntry(index, term, "no-op", size)
    try:
        if kind == CONFIGURATION:
            configuration = decode_configuration(payload[1:])
            return ToldEntry(index, term, "configuration", size, configuration=configuration)
        batch = decode_batch(payload[1:]) if kind == REGULAR else None
    except ValueError:
        batch = None
    if batch is None:
        return ToldEntry(index, term, "undecodable", size)
    commands = tuple(map(_command, batch.commands))
    return ToldEntry(index, term, "batch", size, batch.now_ns, commands)


def _command(command: Any) -> tuple[str, dict[str, Any]]:
    if type(command) is Malformed:
        return "MALFORMED", {"content": command.content, "why": command.problem[1]}
    fields = asdict(command)
    for name in _SECRET & fields.keys():
        fields[name] = None
    return OPERATIONS[type(command)].name, fields


def plain(value: Any, *, data: bool) -> Any:
    """A value as JSON takes it: bytes as text or base64, long ones (without ``data``) as a size."""
    if isinstance(value, (bytes, memoryview)):
        content = bytes(value)
        if len(content) > 64 and not data:
            return {"bytes": len(content)}
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(content).decode("ascii")}
    if isinstance(value, (list, tuple)):
        return [plain(item, data=data) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item, data=data) for key, item in value.items()}
    return value


def member_told(member: ClusterMember) -> dict[str, Any]:
    """A member in words."""
    fields = member._asdict()
    del fields["token"]
    return fields


def configuration_told(configuration: Configuration) -> dict[str, Any]:
    """A configuration in words."""
    members = [member_told(member) for member in configuration.members]
    return {**configuration._asdict(), "members": members}

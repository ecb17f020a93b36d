"""Batches: what one Raft entry carries, msgpack ``[version, now_ns, [command, ...]]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from raftckpt.errors import ensure
from raftckpt.protocol.check import command_reader, decode_plain
from raftckpt.protocol.contract import BATCH_COMMANDS_MAX, SA_TIME_MAX
from raftckpt.version import BATCH_VERSION

__all__ = ["Batch", "decode_batch", "encode_batch"]


class Batch(NamedTuple):
    """The commands of an entry.

    Attributes:
        version: of the format.
        now_ns: cluster time (ns since the epoch) stamped by the proposing leader.
        commands: records of ``operations.LOGGED``, or :class:`~raftckpt.protocol.check.Malformed`.
    """

    version: int
    now_ns: int
    commands: list[Any]


_commands: Final[Any] = list.__class_getitem__(command_reader.union)
_decode: Final = msgspec.msgpack.Decoder(
    tuple[
        Annotated[int, Meta(ge=BATCH_VERSION, le=BATCH_VERSION)],
        Annotated[int, Meta(ge=0, le=SA_TIME_MAX)],
        Annotated[_commands, Meta(max_length=BATCH_COMMANDS_MAX)],
    ]
).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def encode_batch(now_ns: int, commands: Sequence[Any]) -> bytes:
    """Encode commands for the log.

    Arguments:
        now_ns: cluster time of the proposing leader.
        commands: records.
    """
    ensure(len(commands) <= BATCH_COMMANDS_MAX, "a batch within its limit")
    ensure(0 <= now_ns <= SA_TIME_MAX, "a stamp within the range of time")
    return _encode((BATCH_VERSION, now_ns, commands))


def decode_batch(payload: bytes) -> Batch:
    """Decode an entry; a command that is malformed is one that says so.

    Raises:
        ValueError: not a batch of a version we know. Whoever proposed it was no leader, or has a
            bug of ours.
    """
    try:
        version, now_ns, commands = _decode(payload)
    except msgspec.MsgspecError:
        return _decode_each(payload)
    return Batch(version, now_ns, command_reader.checked(commands))


def _decode_each(payload: bytes) -> Batch:
    """Decode a batch that has something wrong in it."""
    fields = decode_plain(payload)
    if type(fields) is not list or [type(field) for field in fields] != [int, int, list]:
        raise ValueError("not a batch: [version, now_ns, commands] expected")
    version, now_ns, commands = fields
    if version != BATCH_VERSION:
        raise ValueError(f"batch of version {version}; this replica knows {BATCH_VERSION}")
    if not 0 <= now_ns <= SA_TIME_MAX or len(commands) > BATCH_COMMANDS_MAX:
        raise ValueError("not a batch: out of range")
    return Batch(version, now_ns, [command_reader.record(command) for command in commands])

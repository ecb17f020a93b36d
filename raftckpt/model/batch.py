"""Batches: what one Raft entry carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from raftckpt.errors import ensure
from raftckpt.limits import BATCH_COMMANDS_MAX, SA_TIME_MAX
from raftckpt.model.commands import Batch
from raftckpt.version import BATCH_VERSION

__all__ = ["decode_batch", "encode_batch", "normal_form"]


def encode_batch(now_ns: int, commands: Sequence[Any]) -> bytes:
    """Encode commands for the log.

    Arguments:
        now_ns: cluster time of the proposing leader.
        commands: arrays as they came over the wire (with the session in its place), or records.
    """
    ensure(len(commands) <= BATCH_COMMANDS_MAX, "a batch within its limit")
    ensure(0 <= now_ns <= SA_TIME_MAX, "a stamp within the range of time")
    payload: bytes = msgpack.packb((BATCH_VERSION, now_ns, commands), use_bin_type=True)
    return payload


def decode_batch(payload: bytes) -> Batch:
    """Decode an entry; its commands may still be anything.

    Raises:
        ValueError: not a batch of a version we know. The leader made it, so it is damage or our
            bug, and the replica must stop.
    """
    try:
        fields = msgpack.unpackb(payload, raw=False, strict_map_key=False, use_list=True)
    except ValueError:
        raise
    except Exception as error:  # msgpack raises what the bytes provoke, TypeError for example
        raise ValueError(f"not a batch: {error}") from error
    if type(fields) is not list or [type(field) for field in fields] != [int, int, list]:
        raise ValueError("not a batch: [version, now_ns, commands] expected")
    version, now_ns, commands = fields
    if version != BATCH_VERSION:
        raise ValueError(f"batch of version {version}; this replica knows {BATCH_VERSION}")
    if not 0 <= now_ns <= SA_TIME_MAX or len(commands) > BATCH_COMMANDS_MAX:
        raise ValueError("not a batch: out of range")
    return Batch(version, now_ns, commands)


def normal_form(command: Any) -> Any:
    """Return the command as every other replica decodes it (lists and ints, no records, no enums).

    The leader applies what it proposed without decoding it again; records made by code rather than
    by the wire must not be judged differently there.
    """
    packed = msgpack.packb(command, use_bin_type=True)
    return msgpack.unpackb(packed, raw=False, strict_map_key=False, use_list=True)

"""The model: a pure, total, deterministic state machine of checkpoints, sections and sessions."""

from __future__ import annotations

from raftckpt.model.batch import decode_batch, encode_batch
from raftckpt.model.image import digest
from raftckpt.model.machine import STRUCTURAL_TAGS, CheckpointMachine, Early
from raftckpt.model.queries import QUERY_TAGS
from raftckpt.model.schema import validate
from raftckpt.model.values import Pages, Value

__all__ = [
    "QUERY_TAGS",
    "STRUCTURAL_TAGS",
    "CheckpointMachine",
    "Early",
    "Pages",
    "Value",
    "decode_batch",
    "digest",
    "encode_batch",
    "validate",
]

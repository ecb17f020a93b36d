"""Faults against a cluster of real processes, and the judge of what its clients saw."""

from raftckpt.chaos.history import ABSENT, Digest, Kind, Operation, Outcome, Part
from raftckpt.chaos.linearizability import Judgement, Violation, judge

__all__ = [
    "ABSENT",
    "Digest",
    "Judgement",
    "Kind",
    "Operation",
    "Outcome",
    "Part",
    "Violation",
    "judge",
]

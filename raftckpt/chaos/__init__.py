"""Faults against a cluster of real processes, and the judge of what its clients saw."""

from raftckpt.chaos.history import ABSENT, ContentDigest, Kind, Operation, Outcome, SectionPart
from raftckpt.chaos.linearizability import Judgement, Violation, judge

__all__ = [
    "ABSENT",
    "ContentDigest",
    "Judgement",
    "Kind",
    "Operation",
    "Outcome",
    "SectionPart",
    "Violation",
    "judge",
]

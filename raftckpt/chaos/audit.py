"""The end of a run: does every replica hold every acknowledged write, each looked for by itself?"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from raftckpt.chaos.history import Kind, Operation, Outcome, Part, seen_of
from raftckpt.chaos.worker import LASTING_NAMES, LEDGERS
from raftckpt.model.types import Chosen
from raftckpt.protocol import operations as ops
from raftckpt.protocol.replies import CONSISTENCY_LOCAL
from raftckpt.testing.local_cluster import LocalCluster
from raftckpt.testing.probe import Probe, replica_digests

__all__ = ["Audit", "audit"]

_TIMEOUT_S = 30.0


@dataclass
class Audit:
    """What was found.

    Attributes:
        audited: acknowledged changes that were looked for on every replica.
        lost: those that are missing somewhere, in words.
        digests: of the replicas' states after the same entry.
        reads: the local reads it made, for the judge.
        problems: what could not be done.
    """

    audited: int = 0
    lost: list[str] = field(default_factory=list)
    digests: dict[str, str | None] = field(default_factory=dict)
    reads: list[Operation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether all replicas gave the same digest."""
        return None not in self.digests.values() and len(set(self.digests.values())) == 1


def audit(cluster: LocalCluster, operations: Sequence[Operation]) -> Audit:
    """Look for every acknowledged change on every replica.

    Arguments:
        cluster: healed, and nobody writes any more.
        operations: the history.

    Raises:
        CheckpointError: a replica does not answer.
        ClusterNotReady: there is no leader.
    """
    found = Audit()
    endpoints = {node: cluster.endpoint(node) for node in cluster.nodes}
    # the digests come first: they wait until every replica has applied the same entry
    _, found.digests = replica_digests(endpoints, cluster.leader(30.0), timeout=60.0)
    behind = [node for node, digest in found.digests.items() if digest is None]
    if behind:
        found.problems.append(f"did not catch up in time: {', '.join(behind)}")
        return found
    changes: dict[int, list[Operation]] = defaultdict(list)
    for op in operations:
        if not op.kind.reads and op.parts and op.outcome is not Outcome.REFUSED:
            changes[op.unit].append(op)
    lost: dict[int, str] = {}
    audited: set[int] = set()
    for node, endpoint in endpoints.items():
        with Probe(endpoint, timeout=_TIMEOUT_S) as probe:
            for name in LASTING_NAMES:
                _audit_one(probe, node, name, changes, found, lost, audited)
    found.audited = len(audited)
    found.lost = list(lost.values())
    return found


def _audit_one(
    probe: Probe,
    node: str,
    name: str,
    changes: dict[int, list[Operation]],
    found: Audit,
    lost: dict[int, str],
    audited: set[int],
) -> None:
    def ask(record: type[Any], *args: Any) -> Any:
        return probe.call(record, 0, CONSISTENCY_LOCAL, name, *args)

    uid = ask(ops.Status)[1][0]
    begin = time.monotonic_ns()
    revision, rows = ask(ops.ReadAll)
    end = time.monotonic_ns()
    contents = {bytes(section).decode("ascii"): bytes(data) for section, data in rows}
    listed = ask(ops.Sections, int(Chosen.ANY), 0)[1]
    revisions = {bytes(each[0]).decode("ascii"): each[5] for each in listed}
    found.reads.append(
        Operation(
            session=f"audit of {node}",
            number=-1 - len(found.reads),
            kind=Kind.READ_ALL,
            unit=uid,
            parts=tuple(Part(section, 0, seen_of(data)) for section, data in contents.items()),
            invoked=begin,
            returned=end,
            revision=revision,
            replica=f"{node}:audit",
        )
    )
    mortal = _mortal(changes[uid])
    for op in changes[uid]:
        if op.outcome is not Outcome.OK or op.revision is None:
            continue
        audited.add(op.number)
        for part in op.parts:
            known = revisions.get(part.section)
            if known is None:
                there = op.kind is Kind.DELETE or part.section in mortal
            else:
                there = known >= op.revision
            if there and name in LEDGERS:
                there = contents.get(part.section) == part.data
            if not there:
                what = "is missing" if known is None else f"has revision {known} or other content"
                lost[op.number] = (
                    f"{op.kind.value} of {part.section} in {name} by {op.session}, revision "
                    f"{op.revision}: on {node} the section {what}"
                )


def _mortal(operations: Iterable[Operation]) -> set[str]:
    """Sections that something may have removed; whether rightly so the judge says."""
    return {
        part.section
        for op in operations
        if op.kind is Kind.DELETE or op.ttl_ns is not None
        for part in op.parts
    }

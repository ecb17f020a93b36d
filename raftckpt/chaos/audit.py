"""The end of a run: does every replica hold every acknowledged write, each looked for by itself?

A replica that cannot be asked says nothing: it is named, and no loss and no difference is made of
that. The others are looked at all the same.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final, Protocol

from raftckpt.chaos.history import Kind, Operation, Outcome, SectionPart, seen_of
from raftckpt.chaos.keeper import Replicas, state_of
from raftckpt.chaos.worker import LASTING_NAMES, LEDGERS, LOGS
from raftckpt.errors import CheckpointError
from raftckpt.model.types import Chosen
from raftckpt.protocol import operations as ops
from raftckpt.protocol.replies import CONSISTENCY_LOCAL
from raftckpt.testing.local_cluster import ClusterNotReady
from raftckpt.testing.probe import ReplicaProbe, replica_digests

__all__ = ["Audit", "audit"]

# an answer takes milliseconds: one that took so long on a machine that does much else is a
# finding
_TIMEOUT_S: Final = 30.0
_LEADER_S: Final = 30.0
_DIGESTS_S: Final = 60.0


class Audited(Replicas, Protocol):
    """What is needed of :class:`raftckpt.testing.LocalCluster`."""

    def endpoint(self, node: str) -> str:
        """``host:port`` of a replica's client port."""

    def leader(self, timeout: float = 10.0) -> str:
        """Return who leads; raises ClusterNotReady."""


@dataclass
class Audit:
    """What was found.

    Attributes:
        audited: acknowledged changes that were looked for on every replica that could be asked.
        audited_on: those replicas.
        not_audited: the others, and why.
        lost: changes that are missing somewhere, in words.
        digests: of the replicas' states after the same entry; None: not told.
        reads: the local reads it made, for the judge.
    """

    audited: int = 0
    audited_on: list[str] = field(default_factory=list)
    not_audited: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    digests: dict[str, str | None] = field(default_factory=dict)
    reads: list[Operation] = field(default_factory=list)

    @property
    def lost_count(self) -> int | None:
        """How many are missing; None: nothing was looked for, so nobody knows."""
        looked = bool(self.audited and self.audited_on)
        return len(self.lost) if looked or self.lost else None

    @property
    def equal(self) -> bool | None:
        """Whether all replicas gave the same digest; None: those that gave one did."""
        told = set(self.digests.values())
        if len(told - {None}) > 1:
            return False
        return None if None in told or not told else True


def audit(cluster: Audited, operations: Sequence[Operation]) -> Audit:
    """Look for every acknowledged change on every replica that can be asked.

    Arguments:
        cluster: healed, and nobody writes any more.
        operations: the history.
    """
    found = Audit(digests=dict.fromkeys(cluster.nodes))
    running = {
        node: cluster.endpoint(node) for node in cluster.nodes if cluster.exit_code(node) is None
    }
    # the digests come first: they wait until a replica has applied everything acknowledged
    index = 0
    try:
        index, told = replica_digests(running, cluster.leader(_LEADER_S), timeout=_DIGESTS_S)
        found.digests |= told
    except (CheckpointError, ClusterNotReady) as error:
        why = f"no check could be started ({str(error).partition(chr(10))[0]})"
        found.not_audited = {node: f"{why}: {state_of(cluster, node)}" for node in cluster.nodes}
        return found
    changes: dict[int, list[Operation]] = defaultdict(list)
    for op in operations:
        if not op.kind.reads and op.parts and op.outcome is not Outcome.REFUSED:
            changes[op.unit].append(op)
    lost: dict[int, str] = {}
    audited: set[int] = set()
    for node, digest in found.digests.items():
        if digest is None:
            found.not_audited[node] = f"no digest as of entry {index}: {state_of(cluster, node)}"
            continue
        try:
            with ReplicaProbe(running[node], timeout=_TIMEOUT_S) as probe:
                for name in LASTING_NAMES:
                    _audit_one(probe, node, name, changes, found, lost, audited)
            found.audited_on.append(node)
        except CheckpointError as error:
            found.not_audited[node] = f"{error}; {state_of(cluster, node)}"
    found.audited = len(audited)
    found.lost = list(lost.values())
    return found


def _audit_one(
    probe: ReplicaProbe,
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
            parts=tuple(
                SectionPart(section, 0, seen_of(data)) for section, data in contents.items()
            ),
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
        for part, offset in zip_longest(op.parts, op.results[: len(op.parts)]):
            known = revisions.get(part.section)
            there = part.section in mortal if known is None else known >= op.revision
            if there and name in LEDGERS:
                there = contents.get(part.section) == part.data
            if there and name in LOGS and offset is not None and isinstance(part.data, bytes):
                there = contents[part.section].startswith(part.data, offset)
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
        for part in op.parts
        if (part.kind or op.kind) is Kind.DELETE or op.ttl_ns is not None
    }

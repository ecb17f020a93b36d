"""Every metric of a replica, one line each, and the text of them for a scraper (OpenMetrics).

A reader looks at numbers that exist already; none goes over checkpoints, sessions or sections, so
that a scrape costs the same whatever the state holds. docs/operate/metrics.md is made from here.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from raftckpt import limits
from raftckpt.model.bounds import BOUNDS
from raftckpt.node.health import Health
from raftckpt.node.meters import Buckets
from raftckpt.node.replica import Replica
from raftckpt.plain import plain
from raftckpt.raft.port import PeerStatus, RaftStatus, Role
from raftckpt.server.lasthour import Busy, LastHour
from raftckpt.server.listener import ClientListener, cut_off
from raftckpt.server.status import ReplicaInfo, resident_bytes
from raftckpt.version import VERSION

__all__ = [
    "CONTENT_TYPE",
    "METRICS",
    "Metric",
    "MetricKind",
    "Seen",
    "Sources",
    "details",
    "exposition",
    "readiness",
]

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_PREFIX: Final = "raftckpt_"
_LABELS_MAX: Final = 128
"""Of one metric: reasons, peers and settings are fewer."""


@dataclass(frozen=True)
class Sources:
    """Where the numbers of a replica come from."""

    replica: Replica
    listener: ClientListener
    info: ReplicaInfo
    health: Health
    disk_full: Callable[[], bool]
    alarms: Mapping[str, Callable[[], list[str]]]
    """Sentences of what is wrong, by who says so."""
    word: Callable[[], str]
    """The word of /readyz."""
    recorder: LastHour


class Seen:
    """The sources at one moment."""

    def __init__(self, sources: Sources) -> None:
        self.of = sources
        self.replica = sources.replica
        self.listener = sources.listener
        self.meters = sources.replica.meters
        self.raft: RaftStatus = sources.replica.log.status()
        self.free, self.size = sources.health.disk()
        self.uptime = sources.replica.monotonic() - sources.info.started_at
        self.copied = sources.listener.copies.newest()

    def peers(self, value: Callable[[PeerStatus], float]) -> dict[str, float]:
        """A number of each other member, by node id; only where it leads and knows."""
        leads = self.raft.role is Role.LEADER
        return {peer.node: value(peer) for peer in self.raft.peers if leads}

    def used(self) -> dict[str, float]:
        """What of each limit is taken."""
        machine = self.replica.machine
        return {
            "connections": len(self.listener.connections),
            "receive_bytes": self.listener.receiving_bytes,
            "data_bytes": machine.footprint + machine.staged_bytes,
            "pending_commands": self.replica.pending_commands,
            "pending_bytes": self.replica.pending_bytes,
            "trackers": self.listener.tracking.count,
            "history_bytes": self.listener.tracking.history.bytes,
        }

    def busiest(self) -> list[tuple[str, Busy]]:
        """Names of the checkpoints that are changed most, with how much."""
        found, checkpoints = self.of.recorder.busiest(), self.replica.machine.checkpoints
        return [(checkpoints[uid].name, busy) for uid, busy in found if uid in checkpoints]

    def largest(self) -> dict[str, float]:
        """Sizes of the largest checkpoints, by name."""
        names = self.replica.machine.names
        found = self.of.recorder.largest
        return {name: names[name].memory_used for name in found if name in names}

    def limits(self) -> dict[str, float]:
        """The limits that :meth:`used` is of; those that have no end are left out."""
        found = {
            "connections": self.listener.doors.connections_max,
            "receive_bytes": self.listener.edge.receive_bytes,
            "data_bytes": self.replica.data_bytes_max or 0,
            "pending_commands": limits.PENDING_COMMANDS_MAX,
            "pending_bytes": limits.PENDING_BYTES_MAX,
            "trackers": limits.TRACKERS_MAX,
            "history_bytes": self.listener.tracking.history.bytes_max,
        }
        return {name: value for name, value in found.items() if value}


class MetricKind(Enum):
    """Type of a metric."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    INFO = "info"


class Metric(NamedTuple):
    """A metric.

    Attributes:
        name: without the prefix of the product; ends with the unit if it has one.
        kind: its type.
        unit: "seconds", "bytes" or "".
        label: name of its label, "" if it has none.
        help: one sentence.
        read: returns a number, a number by label, a histogram, or (INFO) texts by label; None:
            there is nothing to tell now.
    """

    name: str
    kind: MetricKind
    unit: str
    label: str
    help: str
    read: Callable[[Seen], Any]

    def samples(self) -> list[str]:
        """Names of the samples that a scrape may show."""
        name = _PREFIX + self.name
        return {
            MetricKind.GAUGE: [name],
            MetricKind.COUNTER: [f"{name}_total"],
            MetricKind.INFO: [f"{name}_info"],
            MetricKind.HISTOGRAM: [f"{name}_bucket", f"{name}_count", f"{name}_sum"],
        }[self.kind]


_G, _C, _H, _I = MetricKind.GAUGE, MetricKind.COUNTER, MetricKind.HISTOGRAM, MetricKind.INFO
METRICS: Final = tuple(Metric(*row) for row in (
    ("build", _I, "", "", "Version, node, cluster, durability.", lambda s: {"version": VERSION, "node": s.of.info.node, "cluster": s.of.info.cluster, "durability": s.of.info.durability}),
    ("uptime_seconds", _G, "seconds", "", "Since this replica was started.", lambda s: s.uptime),
    ("ready", _G, "", "", "1 if /readyz says ok.", lambda s: s.of.word() == "ok"),
    ("role", _G, "", "role", "1 for the role in the consensus: leader, follower, candidate, learner.", lambda s: {role.value: role is s.raft.role for role in Role}),
    ("has_leader", _G, "", "", "1 if a leader that can serve is known.", lambda s: s.raft.leader is not None),
    ("term", _G, "", "", "Term of the consensus.", lambda s: s.raft.term),
    ("leader_changes", _C, "", "", "How often another leader became known.", lambda s: s.meters.leader_changes),
    ("elections_won", _C, "", "", "How often this replica became the leader.", lambda s: s.meters.elections_won),
    ("log_index", _G, "", "what", "Index of the log: first, last, commit, applied, snapshot.", lambda s: {"first": s.raft.first_index, "last": s.raft.last_index, "commit": s.raft.commit_index, "applied": s.raft.applied_index, "snapshot": s.raft.snapshot_index}),
    ("revision", _G, "", "", "Revision of the applied state; each change adds one.", lambda s: s.replica.machine.revision),
    ("level", _G, "", "", "Level of what the log may hold.", lambda s: s.raft.configuration.level),
    ("members", _G, "", "kind", "Members of the cluster: voters and learners.", lambda s: {kind: sum(m.voter is votes for m in s.raft.configuration.members) for kind, votes in (("voter", True), ("learner", False))}),
    ("peers_connected", _G, "", "", "Other members to which there is a link.", lambda s: sum(peer.connected for peer in s.raft.peers)),
    ("peers", _G, "", "", "Other members.", lambda s: len(s.raft.peers)),
    ("peer_behind_entries", _G, "", "peer", "Entries that a member lacks of the log, as the leader knows.", lambda s: s.peers(lambda p: max(0, s.raft.last_index - p.match_index))),
    ("peer_silent_seconds", _G, "seconds", "peer", "Since a member last answered the leader; +Inf: never in this term.", lambda s: s.peers(lambda p: p.silent_s)),
    ("commands", _C, "", "", "Commands of clients answered with a result by this replica as the leader.", lambda s: s.replica.applied_commands),
    ("reads", _C, "", "consistency", "Queries taken.", lambda s: s.meters.reads),
    ("refused", _C, "", "reason", "Requests refused before they were in the log, by the reason of docs/reference/errors.md.", lambda s: s.listener.refusals),
    ("refused_connections", _C, "", "", "Connections of clients turned away.", lambda s: s.listener.refused_connections),
    ("protocol_errors", _C, "", "", "Connections closed for what they sent.", lambda s: s.listener.protocol_errors),
    ("commit_seconds", _H, "seconds", "", "From the proposal of a batch to its results, on the leader.", lambda s: s.meters.commit),
    ("fsync_seconds", _H, "seconds", "", "Each sync of a file or directory of the data directory.", lambda s: s.meters.fsync),
    ("apply_seconds", _H, "seconds", "", "Applying one entry, its replies included.", lambda s: s.meters.apply),
    ("batch_commands", _H, "", "", "Commands of each batch proposed.", lambda s: s.meters.batch_commands),
    ("batch_bytes", _H, "bytes", "", "Bytes of each batch proposed.", lambda s: s.meters.batch_bytes),
    ("longest_step_seconds", _G, "seconds", "", "Longest step of the last minute or two, syncs not counted.", lambda s: s.of.info.longest_step_s()),
    ("turn_cpu_seconds", _G, "seconds", "", "Most processor time of a turn of the loop in the last minute or two.", lambda s: None if s.of.info.cpu is None else s.of.info.cpu.of_late.value),
    ("long_turns", _C, "", "", "Turns of the loop that took more than 50 ms of processor time.", lambda s: None if s.of.info.cpu is None else s.of.info.cpu.long),
    ("connections", _G, "", "", "Connections of clients.", lambda s: len(s.listener.connections)),
    ("sessions", _G, "", "", "Sessions of the state.", lambda s: len(s.replica.machine.sessions)),
    ("checkpoints", _G, "", "", "Checkpoints of the state.", lambda s: len(s.replica.machine.checkpoints)),
    ("trackers", _G, "", "", "Trackers served by this replica.", lambda s: s.listener.tracking.count),
    ("checkpoint_changes_per_second", _G, "", "checkpoint", "Changes of the busiest checkpoints, of the last seconds; estimated where there are thousands.", lambda s: {name: busy.changes for name, busy in s.busiest()}),
    ("checkpoint_written_bytes_per_second", _G, "", "checkpoint", "Bytes written to them, likewise.", lambda s: {name: busy.bytes for name, busy in s.busiest()}),
    ("largest_checkpoint_bytes", _G, "bytes", "checkpoint", "Size of the largest checkpoints.", lambda s: s.largest()),
    ("tracker_behind_changes", _G, "", "", "Changes that the tracker which is furthest behind was not sent yet.", lambda s: s.listener.tracking.furthest_behind()),
    ("groups", _G, "", "", "Service groups of the state.", lambda s: len(s.replica.machine.groups.by_name)),
    ("components", _G, "", "", "Components of all service groups.", lambda s: len(s.replica.machine.groups.members)),
    ("activations", _C, "", "reason", "How often a component became active, by the reason of docs/guides/ha.md; since this replica was started.", lambda s: s.meters.chronicle.failovers),
    ("recorder_seconds", _C, "seconds", "", "Time taken to keep the last hour of the page.", lambda s: s.of.recorder.spent_s),
    ("limit", _G, "", "limit", "What this replica takes on.", lambda s: s.limits()),
    ("limit_used", _G, "", "limit", "What of it is taken.", lambda s: s.used()),
    ("state_limit", _G, "", "limit", "Limits of the state, equal on all replicas; memory 0: none.", lambda s: {name: s.replica.machine.bounds.value(name) for name in BOUNDS}),
    ("state_used_bytes", _G, "bytes", "", "Of the memory limit: data, records, staged parts of large writes.", lambda s: s.replica.machine.used),
    ("state_full", _G, "", "", "1 if new data is refused because of the memory limit.", lambda s: s.replica.machine.bounds.full),
    ("alarms", _G, "", "source", "Alarms raised: consensus, peers, state, disk, certificates. 0: all is well.", lambda s: {source: len(told()) for source, told in s.of.alarms.items()}),
    ("drained", _G, "", "", "1 if this replica is drained: it leads only while nobody else can.", lambda s: s.of.info.directory in s.raft.configuration.drained),
    ("waiting", _G, "", "", "1 if this replica waits to become a member, or a change of members is held up.", lambda s: bool(s.raft.waiting)),
    ("disk_full", _G, "", "", "1 if the disk has no room for new data.", lambda s: s.of.disk_full()),
    ("disk_free_bytes", _G, "bytes", "", "Free for this replica on the disk of its data directory.", lambda s: s.free),
    ("disk_bytes", _G, "bytes", "", "Size of that disk.", lambda s: s.size),
    ("journal_bytes", _G, "bytes", "", "Of the journal on disk.", lambda s: s.of.info.journal_bytes()),
    ("entries_since_snapshot", _G, "", "", "Entries that a restart applies again.", lambda s: s.raft.applied_index - s.raft.snapshot_index),
    ("copy_age_seconds", _G, "seconds", "", "Since a client last read the whole state from here (raftckpt snapshot save); absent: not since the start.", lambda s: None if s.copied is None else s.copied[0]),
    ("certificate_end_timestamp_seconds", _G, "seconds", "setting", "When the certificates of the configuration end, since the epoch.", lambda s: s.of.health.certificates),
    ("clock_timestamp_seconds", _G, "seconds", "", "Wall clock of this replica, since the epoch.", lambda s: time.time()),
    ("cpu_seconds", _C, "seconds", "", "Processor time taken.", lambda s: time.process_time()),
    ("resident_bytes", _G, "bytes", "", "Resident memory.", lambda s: resident_bytes()),
    ("open_files_max", _G, "", "", "Files that this process may have open.", lambda s: resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ("pid", _G, "", "", "Process id.", lambda s: os.getpid()),
))  # fmt: skip
"""All there are. A metric is added here and nowhere else."""


def readiness(replica: Replica) -> str:
    """Whether a replica serves, in a word: "ok", "no-leader", "cut-off", "behind"."""
    if replica.leader is None:
        return "no-leader"
    if cut_off(replica):
        return "cut-off"
    raft = replica.log.status()
    return "behind" if raft.commit_index - raft.applied_index > limits.BEHIND_ENTRIES_MAX else "ok"


def details(sources: Sources) -> bytes:
    """Return the word of /readyz and what is behind it: a line each."""
    replica = sources.replica
    raft = replica.log.status()
    lines = [
        sources.word(),
        f"node {sources.info.node}",
        f"leader {replica.leader or 'nobody'}",
        f"term {raft.term}",
        f"commit {raft.commit_index}",
        f"applied {raft.applied_index}",
        *(f"alarm {plain(text)}" for told in sources.alarms.values() for text in told()),
    ]
    return ("\n".join(lines) + "\n").encode("utf-8")


def exposition(sources: Sources) -> bytes:
    """Return what a scraper gets."""
    seen = Seen(sources)
    lines: list[str] = []
    for metric in METRICS:
        value = metric.read(seen)
        if value is not None:
            lines += _lines(metric, value)
    lines.append("# EOF\n")
    return "\n".join(lines).encode("utf-8")


def _lines(metric: Metric, value: Any) -> Iterator[str]:
    name = _PREFIX + metric.name
    yield f"# TYPE {name} {metric.kind.value}"
    if metric.unit:
        yield f"# UNIT {name} {metric.unit}"
    yield f"# HELP {name} {metric.help}"
    if isinstance(value, Buckets):
        counts = value.cumulative()
        for bound, count in zip((*value.bounds, float("inf")), counts, strict=True):
            yield f'{name}_bucket{{le="{_number(bound)}"}} {count}'
        yield f"{name}_count {counts[-1]}"
        yield f"{name}_sum {_number(value.sum)}"
    elif metric.kind is MetricKind.INFO:
        labels = ",".join(f'{key}="{_quoted(text)}"' for key, text in value.items())
        yield f"{name}_info{{{labels}}} 1"
    else:
        sample = metric.samples()[0]
        if not metric.label:
            yield f"{sample} {_number(value)}"
            return
        for key, number in sorted(value.items())[:_LABELS_MAX]:
            yield f'{sample}{{{metric.label}="{_quoted(key)}"}} {_number(number)}'


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return repr(float(value)) if isinstance(value, float) else str(int(value))


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

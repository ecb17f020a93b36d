"""What a replica tells about itself: REPLICA_STATUS."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from raftckpt.node.clock import Clock
from raftckpt.node.cputime import CpuMeter
from raftckpt.node.replica import Replica
from raftckpt.protocol import operations as ops
from raftckpt.raft.configuration import ClusterMember
from raftckpt.raft.port import PeerStatus
from raftckpt.server.copies import Copies
from raftckpt.server.tracking import Subscriber, Tracking
from raftckpt.version import HIGHEST_LEVEL, LOWEST_LEVEL, VERSION

__all__ = ["ReplicaInfo", "StatusReport", "resident_bytes"]

_STATUS_SECONDS: Final = 0.05
"""For so long a status is told again: making one costs as much as fifty reads."""


@dataclass(frozen=True)
class ReplicaInfo:
    """What a replica tells about itself beside its consensus."""

    node: str
    cluster: str
    founding: str
    directory: str
    endpoints: Mapping[str, str]
    durability: str
    started_at: float
    journal_bytes: Callable[[], int]
    fsyncs: Callable[[], int]
    alarms: Callable[[], list[str]] = list
    """Sentences of what is wrong outside the consensus."""
    clear_alarms: Callable[[], None] = lambda: None
    longest_step_s: Callable[[], float] = lambda: 0.0
    """Longest step of the last minute or two, its syncs not counted."""
    health: Callable[[], dict[str, Any]] = dict
    """Disk, clock, certificates."""
    cpu: CpuMeter | None = None
    lately: Callable[[], list[Any]] = list
    """What LATELY answers."""


class StatusReport:
    """Describes a replica to whoever asks.

    Arguments:
        replica, info, tracking, copies: what there is to tell of.
        clock: monotonic time.
        connections: how many clients there are.
    """

    def __init__(
        self,
        replica: Replica,
        info: ReplicaInfo,
        clock: Clock,
        tracking: Tracking,
        copies: Copies,
        connections: Callable[[], int],
    ) -> None:
        self._replica = replica
        self._info = info
        self._clock = clock
        self._tracking = tracking
        self._copies = copies
        self._connections = connections
        self._told_at = float("-inf")
        self._last: dict[str, Any] = {}

    def tell(self, asker: Subscriber, message: ops.ReplicaStatusRequest) -> None:
        """Answer REPLICA_STATUS."""
        now = self._clock.monotonic()
        if now - self._told_at >= _STATUS_SECONDS or self._last["leader"] != self._replica.leader:
            self._told_at, self._last = now, self.describe()
        asker.value(message.request, self._last)

    def describe(self) -> dict[str, Any]:
        """Describe this replica; plain values only."""
        replica, info = self._replica, self._info
        raft = replica.log.status()
        machine = replica.machine
        copied = self._copies.newest()
        return {
            "node": info.node,
            "cluster": info.cluster,
            "role": raft.role.value,
            "term": raft.term,
            "leader": raft.leader,
            "commit": raft.commit_index,
            "applied": raft.applied_index,
            "first": raft.first_index,
            "last": raft.last_index,
            "snapshot": raft.snapshot_index,
            "pid": os.getpid(),
            "version": VERSION,
            "durability": info.durability,
            "uptime_s": int(self._clock.monotonic() - info.started_at),
            "sessions": len(machine.sessions),
            "connections": self._connections(),
            "checkpoints": len(machine.checkpoints),
            "data_bytes": machine.used,
            "data_bytes_max": replica.data_bytes_max or 0,
            "memory_limit": machine.bounds.value("memory"),
            "memory_full": machine.bounds.full,
            "revision": machine.revision,
            "trackers": self._tracking.count,
            "history_from": self._tracking.history.floor,
            "history_bytes": self._tracking.history.bytes,
            "directory": info.directory,
            "founding": raft.configuration.founding,
            "level": raft.configuration.level,
            "levels": [LOWEST_LEVEL, HIGHEST_LEVEL],
            "pinned": raft.configuration.pinned,
            "config_index": raft.configuration_index,
            "members": [_member(member) for member in raft.configuration.members],
            "alarms": raft.alarms + info.alarms(),
            "waiting": raft.waiting,
            "digest_index": replica.digests.last_index,
            "peers": [_peer(peer) for peer in raft.peers],
            "rss_bytes": resident_bytes(),
            "journal_bytes": info.journal_bytes(),
            "fsyncs": info.fsyncs(),
            "longest_step_ms": int(info.longest_step_s() * 1000),
            "turn_cpu_ms": 0 if info.cpu is None else round(info.cpu.most * 1000, 1),
            "long_turns": 0 if info.cpu is None else info.cpu.long,
            "cpu_ms": int(time.process_time() * 1000),
            "commands": replica.applied_commands,
            "copied_s": None if copied is None else copied[0],
            "copied_revision": None if copied is None else copied[1],
            **info.health(),
        }


def _peer(peer: PeerStatus) -> dict[str, Any]:
    silent = peer.silent_s
    return {
        "node": peer.node,
        "connected": peer.connected,
        "match": peer.match_index,
        "next": peer.next_index,
        "silent_ms": None if silent == float("inf") else int(silent * 1000),
        "directory": peer.directory,
        "voter": peer.voter,
        "levels": list(peer.levels) if peer.levels is not None else None,
    }


def _member(member: ClusterMember) -> dict[str, Any]:
    return {
        "node": member.node,
        "directory": member.directory,
        "peer": member.peer,
        "client": member.client,
        "voter": member.voter,
        "promote": member.promote,
        "replaces": member.replaces,
        **({"drained": True} if member.drained else {}),
    }


def resident_bytes() -> int:
    """Resident memory of this process (its peak where /proc does not tell)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

"""What the messages of a client mean that are no commands: greeting, queries, admin."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from raftckpt.errors import SaAisError
from raftckpt.node.clock import Clock
from raftckpt.node.liveness import Requester
from raftckpt.node.replica import Replica
from raftckpt.raft.port import PeerStatus, Transferred
from raftckpt.server.tracking import Subscriber, Tracking
from raftckpt.version import CLIENT_PROTOCOL, VERSION
from raftckpt.wire.schema import QUERY_TAGS, RequestTag

__all__ = ["Client", "Dispatcher", "ReplicaInfo"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_INVALID: Final = int(SaAisError.ERR_INVALID_PARAM)
_NONCE_BYTES: Final = 16


class Client(Requester, Subscriber, Protocol):
    """A connection as the dispatcher sees it."""

    greeted: bool
    client_name: str

    def value(self, request: int, value: Any) -> None:
        """Reply with a value."""

    def attaching(self) -> None:
        """An ATTACH begins: hold what follows it."""

    def close(self) -> None:
        """Send what is gathered and close."""


@dataclass(frozen=True)
class ReplicaInfo:
    """What a replica tells about itself beside its consensus."""

    node: str
    cluster: str
    endpoints: Mapping[str, str]
    durability: str
    started_at: float
    journal_bytes: Callable[[], int]
    fsyncs: Callable[[], int]
    longest_step_s: Callable[[], float] = lambda: 0.0
    """Longest step of the last minute or two, its syncs not counted."""


class Dispatcher:
    """Answers everything but commands, which connections hand to the replica themselves."""

    def __init__(
        self,
        replica: Replica,
        info: ReplicaInfo,
        clock: Clock,
        connections: Callable[[], int],
        tracking: Tracking,
    ) -> None:
        self._replica = replica
        self._info = info
        self._clock = clock
        self._connections = connections
        self._tracking = tracking
        self._handlers: dict[int, Callable[[Client, list[Any]], None]] = {
            RequestTag.HELLO: self._hello,
            RequestTag.ATTACH: self._attach,
            RequestTag.KEEPALIVE: self._keepalive,
            RequestTag.COMPONENT_ALIVE: self._replica.component_alive,
            RequestTag.WITNESS: self._replica.witness,
            RequestTag.REPLICA_STATUS: self._status,
            RequestTag.TRANSFER: self._transfer,
            RequestTag.CHECK_START: self._check_start,
            RequestTag.DIGEST: self._digest,
            RequestTag.TRACK: tracking.track,
            RequestTag.TRACK_SYNC: tracking.sync,
            RequestTag.TRACK_STOP: tracking.stop,
        }

    def handle(self, client: Client, message: list[Any]) -> None:
        """Handle a well-formed message that is no command."""
        tag = message[0]
        if tag in QUERY_TAGS:
            self._replica.query(client, tag, message)
        else:
            self._handlers[tag](client, message)

    def _hello(self, client: Client, message: list[Any]) -> None:
        _, request, versions, name, _token = message
        if CLIENT_PROTOCOL not in versions:
            client.greeted = True  # so that the refusal can leave
            client.refuse(request, SaAisError.ERR_VERSION, "version", [CLIENT_PROTOCOL])
            client.close()
            return
        client.greeted = True
        client.client_name = name
        client.value(
            request,
            {
                "version": CLIENT_PROTOCOL,
                "node": self._info.node,
                "cluster": self._info.cluster,
                "leader": self._replica.leader,
                "endpoints": dict(self._info.endpoints),
                "product": VERSION,
            },
        )

    def _attach(self, client: Client, message: list[Any]) -> None:
        client.attaching()
        self._replica.attach(client, message)

    def _keepalive(self, client: Client, message: list[Any]) -> None:
        self._replica.keepalive(client, message[1])

    def _transfer(self, client: Client, message: list[Any]) -> None:
        _, request, node = message
        if node is not None and node not in self._info.endpoints:
            client.refuse(request, _INVALID, "param", f"no replica {node}")
        elif not self._replica.leading:
            self._replica.refuse_not_leader(client, request)
        elif node == self._info.node:
            client.value(request, "done")
        else:

            def done(outcome: Transferred) -> None:
                if outcome is Transferred.DONE:
                    client.value(request, "done")
                else:
                    client.refuse(request, _TRY_AGAIN, "transfer", outcome.value)

            self._replica.transfer(node, done)

    def _check_start(self, client: Client, message: list[Any]) -> None:
        self._replica.start_check(client, message[1], os.urandom(_NONCE_BYTES))

    def _digest(self, client: Client, message: list[Any]) -> None:
        _, request, nonce = message
        digest = self._replica.digest(nonce)
        if digest is None:
            client.refuse(request, _TRY_AGAIN, "digest")
        else:
            client.value(request, [digest.at, digest.hex])

    def _status(self, client: Client, message: list[Any]) -> None:
        client.value(message[1], self.status())

    def status(self) -> dict[str, Any]:
        """Describe this replica (REPLICA_STATUS); plain values only."""
        replica, info = self._replica, self._info
        raft = replica.log.status()
        machine = replica.machine
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
            "revision": machine.revision,
            "trackers": self._tracking.count,
            "history_from": self._tracking.history.floor,
            "history_bytes": self._tracking.history.bytes,
            "digest_index": replica.digests.last_index,
            "peers": [_peer(peer) for peer in raft.peers],
            "rss_bytes": resident_bytes(),
            "journal_bytes": info.journal_bytes(),
            "fsyncs": info.fsyncs(),
            "longest_step_ms": int(info.longest_step_s() * 1000),
            "cpu_ms": int(time.process_time() * 1000),
            "commands": replica.applied_commands,
        }


def _peer(peer: PeerStatus) -> dict[str, Any]:
    silent = peer.silent_s
    return {
        "node": peer.node,
        "connected": peer.connected,
        "match": peer.match_index,
        "next": peer.next_index,
        "silent_ms": None if silent == float("inf") else int(silent * 1000),
        "rejoining": peer.rejoining,
    }


def resident_bytes() -> int:
    """Resident memory of this process (its peak where /proc does not tell)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

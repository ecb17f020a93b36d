"""What the messages of a client mean that are no commands: greeting, queries, admin."""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from raftckpt.errors import SaAisError, ensure
from raftckpt.node.clock import Clock
from raftckpt.node.config import announceable
from raftckpt.node.liveness import Requester
from raftckpt.node.replica import Replica
from raftckpt.protocol import operations as ops
from raftckpt.raft.configuration import ClusterMember
from raftckpt.raft.port import (
    AddMember,
    Change,
    Changed,
    PeerStatus,
    RemoveMember,
    SetDrain,
    SetPin,
    Transferred,
)
from raftckpt.server.audit import audit
from raftckpt.server.copies import Copies
from raftckpt.server.tracking import Subscriber, Tracking
from raftckpt.version import CLIENT_PROTOCOL, HIGHEST_LEVEL, LOWEST_LEVEL, VERSION

__all__ = ["Client", "Dispatcher", "ReplicaInfo"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_INVALID: Final = int(SaAisError.ERR_INVALID_PARAM)
_NONCE_BYTES: Final = 16
_STATUS_SECONDS: Final = 0.05
"""For so long a status is told again: making one costs as much as fifty reads."""
_TRANSFERS_AT_ONCE: Final = 4
_TRANSFER_SECONDS: Final = 2.0
"""After so long one more may be asked for: each costs everybody the time of an election."""


class Client(Requester, Subscriber, Protocol):
    """A connection as the dispatcher sees it."""

    greeted: bool
    client_name: str
    private: bool
    """Nobody listens in and nobody from elsewhere speaks: loopback, or TLS."""

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
    lately: Callable[[], list[Any]] = list
    """What LATELY answers."""


class Dispatcher:
    """Answers everything but commands, which connections hand to the replica themselves."""

    def __init__(
        self,
        replica: Replica,
        info: ReplicaInfo,
        clock: Clock,
        connections: Callable[[], int],
        tracking: Tracking,
        copies: Copies,
    ) -> None:
        self._replica = replica
        self._info = info
        self._clock = clock
        self._connections = connections
        self._tracking = tracking
        self._copies = copies
        self._status_at = float("-inf")
        self._last_status: dict[str, Any] = {}
        self._transfers: deque[float] = deque(maxlen=_TRANSFERS_AT_ONCE)
        self._handlers: dict[type[Any], Callable[[Client, Any], None]] = {
            ops.HelloRequest: self._hello,
            ops.Attach: self._attach,
            ops.Keepalive: replica.keepalive,
            ops.ComponentAlive: replica.component_alive,
            ops.WitnessRequest: replica.witness,
            ops.ReplicaStatusRequest: self._status,
            ops.Transfer: self._transfer,
            ops.MemberAdd: self._change,
            ops.MemberRemove: self._change,
            ops.LevelPin: self._change,
            ops.MemberDrain: self._change,
            ops.LatelyRequest: self._lately,
            ops.AlarmClear: self._clear,
            ops.CheckStart: self._check_start,
            ops.DigestRequest: self._digest,
            ops.Track: tracking.track,
            ops.TrackSync: tracking.sync,
            ops.TrackStop: tracking.stop,
            ops.SnapshotBegin: copies.begin,
            ops.SnapshotPiece: copies.piece,
        }
        ensure(
            {*self._handlers, *ops.QUERIES, *ops.COMMANDS} == ops.REQUESTS,
            "every request has who answers it",
        )

    def handle(self, client: Client, message: Any) -> None:
        """Handle a message that is no command."""
        handler = self._handlers.get(type(message))
        if handler is None:
            self._replica.query(client, message)
        else:
            handler(client, message)

    def _hello(self, client: Client, message: ops.HelloRequest) -> None:
        client.greeted = True  # also if it is refused, so that the refusal can leave
        if CLIENT_PROTOCOL not in message.versions:
            client.refuse(message.request, SaAisError.ERR_VERSION, "version", [CLIENT_PROTOCOL])
            client.close()
            return
        if message.token is not None:  # whoever shows one believes that it is looked at
            client.refuse(message.request, SaAisError.ERR_ACCESS, "token")
            client.close()
            return
        client.client_name = message.client_name
        client.value(
            message.request,
            {
                "version": CLIENT_PROTOCOL,
                "node": self._info.node,
                "cluster": self._info.cluster,
                "founding": self._info.founding,
                "leader": self._replica.leader,
                "endpoints": dict(self._info.endpoints),
                "product": VERSION,
            },
        )

    def _attach(self, client: Client, message: ops.Attach) -> None:
        client.attaching()
        self._replica.attach(client, message)

    def _transfer(self, client: Client, message: ops.Transfer) -> None:
        request, node = message.request, message.node
        if node is not None and node not in self._info.endpoints:
            client.refuse(request, _INVALID, "param", f"no replica {node}")
        elif not self._replica.leading:
            self._replica.refuse_not_leader(client, request)
        elif node == self._info.node:
            client.value(request, "done")
        elif self._drained(node):
            why = f"{node} is drained: raftckpt cluster drain {node} --off"
            client.refuse(request, _INVALID, "param", why)
        elif not self._may_transfer():
            client.refuse(request, _TRY_AGAIN, "transfer", "it was moved too often of late")
        else:

            def done(outcome: Transferred) -> None:
                if outcome is Transferred.DONE:
                    client.value(request, "done")
                else:
                    client.refuse(request, _TRY_AGAIN, "transfer", outcome.value)

            self._replica.transfer(node, done)

    def _drained(self, node: str | None) -> bool:
        found = self._replica.log.status().configuration.named(node or "")
        return found is not None and found.drained

    def _lately(self, client: Client, message: ops.LatelyRequest) -> None:
        client.value(message.request, self._info.lately())

    def _change(self, client: Client, message: Any) -> None:
        """Change members or level; the answer comes when it is committed, or refused."""
        request, replica = message.request, self._replica
        if not client.private:
            client.refuse(request, SaAisError.ERR_ACCESS, "not_local")
            return
        if not replica.leading:
            replica.refuse_not_leader(client, request)
            return

        if isinstance(message, ops.MemberAdd):
            for address in (message.peer, message.client):
                wrong = announceable(address)
                if wrong:
                    client.refuse(request, _INVALID, "param", wrong)
                    return

        def done(outcome: Changed) -> None:
            if outcome.done:
                client.value(request, "done")
            elif outcome.why == "not_leader":
                replica.refuse_not_leader(client, request)
            elif outcome.again or not outcome.definite:
                client.refuse(request, _TRY_AGAIN, "change", outcome.why, definite=outcome.definite)
            else:
                client.refuse(request, SaAisError.ERR_BAD_OPERATION, "change", outcome.why)

        match message:
            case ops.MemberAdd():
                change: Change = AddMember(
                    message.node,
                    message.peer,
                    message.client,
                    message.token_hash,
                    message.promote,
                    message.replaces or "",
                )
            case ops.MemberRemove():
                change = RemoveMember(message.node)
            case ops.MemberDrain():
                change = SetDrain(message.node, message.drained)
                word = "drain" if message.drained else "undrain"
                audit(word, member=message.node, client=client.client_name, address=client.address)
            case _:
                change = SetPin(message.pinned)
        replica.change(change, done)

    def _clear(self, client: Client, message: ops.AlarmClear) -> None:
        if not client.private:
            client.refuse(message.request, SaAisError.ERR_ACCESS, "not_local")
            return
        self._info.clear_alarms()
        client.value(message.request, "done")

    def _may_transfer(self) -> bool:
        """Whether leadership has not been handed over from here too often of late."""
        now, former = self._clock.monotonic(), self._transfers
        if len(former) == _TRANSFERS_AT_ONCE and now - former[0] < (
            _TRANSFER_SECONDS * _TRANSFERS_AT_ONCE
        ):
            return False
        former.append(now)
        return True

    def _check_start(self, client: Client, message: ops.CheckStart) -> None:
        self._replica.start_check(client, message.request, os.urandom(_NONCE_BYTES))

    def _digest(self, client: Client, message: ops.DigestRequest) -> None:
        digest = self._replica.digest(message.nonce)
        if digest is None:
            client.refuse(message.request, _TRY_AGAIN, "digest")
        else:
            client.value(message.request, [digest.at, digest.hex])

    def _status(self, client: Client, message: ops.ReplicaStatusRequest) -> None:
        now, leader = self._clock.monotonic(), self._replica.leader
        if now - self._status_at >= _STATUS_SECONDS or self._last_status["leader"] != leader:
            self._status_at, self._last_status = now, self.status()
        client.value(message.request, self._last_status)

    def status(self) -> dict[str, Any]:
        """Describe this replica (REPLICA_STATUS); plain values only."""
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

"""Puts the parts of a replica together: what founds a cluster with others, then what serves it."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

from raftckpt import limits
from raftckpt.events import EventLog
from raftckpt.node.clock import SystemClock
from raftckpt.node.config import Address, ClusterConfig, announced, parse_address
from raftckpt.node.cputime import CpuMeter
from raftckpt.node.descriptors import raise_descriptors
from raftckpt.node.diskroom import DiskRoom, log_bytes_max, segment_bytes
from raftckpt.node.driver import Driver
from raftckpt.node.health import Health, certificate_ends
from raftckpt.node.memory import memory_for_data, memory_share
from raftckpt.node.meters import Meters
from raftckpt.node.replica import Replica
from raftckpt.node.secret import peer_secret
from raftckpt.node.tls import client_context, peer_contexts
from raftckpt.process.disk import DiskWatch
from raftckpt.raft.engine import open_log
from raftckpt.raft.links import PeerLinks, PeerTls
from raftckpt.raft.node import RaftNode
from raftckpt.raft.peering import Peering
from raftckpt.raft.port import StateMachine
from raftckpt.raft.settings import RaftConfig
from raftckpt.server.history import History
from raftckpt.server.lasthour import LastHour
from raftckpt.server.listener import ClientListener
from raftckpt.server.metrics import Sources
from raftckpt.server.status import ReplicaInfo
from raftckpt.storage import DataDirectory, RealFileSystem

__all__ = ["Assembly", "Groundwork", "assemble"]

log = EventLog("node")


class Groundwork:
    """What a replica has from its first moment on: its directory, and links with its peers.

    Arguments:
        config: the cluster.
        node: which of its replicas.
        joins: ``storage.REJOINS`` (its disk was lost) or the token of ``cluster add``.
        found: a list of one replica is a cluster.
        changed: told when there may be another verdict about the founding.
        failed: told of what stops the replica.

    Raises:
        StorageError: the data directory cannot be used.
        ConfigError: a certificate or the secret cannot be used.
    """

    def __init__(
        self,
        config: ClusterConfig,
        node: str,
        *,
        joins: str,
        found: bool,
        changed: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        loop, at = asyncio.get_running_loop(), config.replicas[node]
        self.node = node
        self.path = os.fspath(config.directory(node))
        self.segment_bytes = segment_bytes(self.path)
        self.clock = SystemClock()
        self.cpu = CpuMeter(loop.call_soon)
        self.health = Health(config, node)
        self.meters = Meters()
        self.disk = DiskRoom(self.path, self.segment_bytes, memory_share(limits.PENDING_BYTES_MAX))
        syncs = self.meters.fsync
        self.driver = Driver(loop, self.clock, failed, lambda: syncs.sum, self.cpu.working)
        fs = RealFileSystem(
            self.disk.release,
            taken=self.disk.taken,
            synced=syncs.observe,
            meanwhile=self.driver.disk_waits,
        )
        self.directory = DataDirectory.open(fs, self.path, config.cluster, node, joins=joins)
        self._config = config
        self._changed = changed
        self.peering = Peering(
            self.directory,
            raft_config(config, node, self.segment_bytes),
            list(config.replicas),
            alone=found,
            founding_id=lambda: os.urandom(16).hex(),
            send=self._send,
            changed=self.redial,
            failed=self.driver.fail,
        )
        self.links = PeerLinks(
            at.listens(at.peer),
            self.peering,
            self.peering,
            peer_contexts(config),
            secret=peer_secret(config),
            working=self.driver.hold,
            worked=self.driver.go_on,
        )

    def _send(self, to: str, body: bytes) -> None:
        self.links.send(to, body)

    def redial(self) -> None:
        """The targets or the verdict may be other ones."""
        self.links.dial(self._targets())
        self._changed()

    def _targets(self) -> Iterator[tuple[str, tuple[str, int]]]:
        """What is dialled: the file, the configuration, what peers told; routes go before all."""
        config = self._config
        listed = {(node, str(at.peer)) for node, at in config.replicas.items()}
        for node, text in listed | self.peering.targets():
            address = config.routes.get(node) or _address(text)
            if node != self.node and address is not None:
                yield node, (address.host, address.port)

    def take(
        self, config: ClusterConfig, peer: PeerTls | None, client: ssl.SSLContext | None
    ) -> None:
        """Take a configuration over, and the contexts of its certificates."""
        self.links.tls = peer
        self.health.certificates = certificate_ends(config)

    async def close(self) -> None:
        """Leave without having served."""
        await self.links.stop()
        self.directory.close()


class Assembly(NamedTuple):
    """What serves clients once the founding is complete."""

    replica: Replica
    listener: ClientListener
    watch: DiskWatch
    sources: Sources

    def take(
        self, config: ClusterConfig, peer: PeerTls | None, client: ssl.SSLContext | None
    ) -> None:
        """Take a configuration over, and the contexts of its certificates."""
        self.listener.tls = client
        raise_descriptors(config.limits.connections + limits.DESCRIPTORS_RESERVED)
        self.listener.limit(config.limits)
        self.replica.data_bytes_max = config.limits.data_bytes or memory_for_data()
        timing = config.timing
        self.replica.log.retime(
            timing.heartbeat_ms / 1000, timing.election_min_ms / 1000, timing.election_max_ms / 1000
        )


def assemble(ground: Groundwork, config: ClusterConfig, word: Callable[[], str]) -> Assembly:
    """Make what serves, of what the data directory holds; nothing of it runs yet.

    Arguments:
        ground: its founding is complete.
        config: the cluster, as it is now.
        word: says whether this replica serves.

    Raises:
        StorageError: the data directory cannot be used.
    """
    node, clock, disk, peering = ground.node, ground.clock, ground.disk, ground.peering
    driver = ground.driver
    storage = open_log(
        ground.directory, fsync=config.fsync, segment_bytes=ground.segment_bytes, space=disk
    )
    endpoints: dict[str, str] = {}
    notes = storage.directory.notes

    def differs(index: int, own: str, leaders: str) -> None:
        log.error("state_differs", index=index, own=own, leaders=leaders)
        notes.differs(
            f"the state of {node} at entry {index} was not the leader's (digest {own[:16]}, "
            f"the leader's {leaders[:16]}): keep all data directories and report it; then "
            f"replace {node}, or clear this with raftckpt cluster clear {node}"
        )

    def consensus(machine: StateMachine) -> RaftNode:
        return RaftNode(
            raft_config(config, node, ground.segment_bytes),
            machine,
            storage,
            ground.links.send,
            driver.wake,
            clock,
            random.Random(),
        )

    replica = Replica(
        node,
        endpoints,
        clock,
        driver.wake,
        consensus,
        data_bytes=config.limits.data_bytes or memory_for_data(),
        disk=disk,
        meters=ground.meters,
        answered=driver.answered,
        failed=driver.fail,
        configured=peering.configured,
        differs=differs,
    )
    alarms = {
        "consensus": lambda: replica.log.status().alarms,
        "peers": peering.alarms,
        "state": lambda: replica.alarms,
        "disk": disk.alarms,
        "certificates": ground.health.alarms,
    }
    history = History(memory_share(limits.HISTORY_BYTES_MAX))
    recorder = LastHour(
        replica, history, lambda: (text for told in alarms.values() for text in told())
    )
    info = ReplicaInfo(
        node,
        config.cluster,
        storage.identity.founding,
        storage.identity.directory,
        endpoints,
        config.durability,
        clock.monotonic(),
        storage.bytes_on_disk,
        lambda: storage.journal.syncs,
        lambda: peering.alarms() + replica.alarms + disk.alarms(),
        notes.clear,
        lambda: driver.longest.value,
        ground.health.told,
        ground.cpu,
        recorder.told,
    )
    listener = ClientListener(
        replica,
        info,
        clock,
        client_context(config),
        edge=config.limits,
        working=ground.cpu.working,
        history=history,
    )
    sources = Sources(
        replica, listener, info, ground.health, lambda: disk.full, alarms, word, recorder
    )
    watch = DiskWatch(disk, replica, storage.journal)
    return Assembly(replica, listener, watch, sources)


def raft_config(config: ClusterConfig, node: str, segment: int) -> RaftConfig:
    """What consensus is told of a configuration; ``segment``: bytes of a journal segment."""
    timing, at = config.timing, config.replicas[node]
    return RaftConfig(
        announced(at.peer),
        announced(at.client),
        memory=config.limits.data_bytes or memory_for_data(),
        heartbeat_s=timing.heartbeat_ms / 1000,
        election_min_s=timing.election_min_ms / 1000,
        election_max_s=timing.election_max_ms / 1000,
        snapshot_entries=config.snapshot.entries,
        # the log is in memory, too, from the last snapshot on
        snapshot_bytes=memory_share(config.snapshot.bytes),
        keep_bytes=memory_share(min(RaftConfig().keep_bytes, segment)),
        log_bytes_max=log_bytes_max(segment),
    )


def _address(text: str) -> Address | None:
    """Read what a peer told; None if it is no address."""
    try:
        return parse_address(text)
    except ValueError:
        return None

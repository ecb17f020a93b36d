"""A cluster in one process: real RaftNodes on real files, messages passed by hand, a fake clock."""

from __future__ import annotations

import json
import random

from raftckpt.raft.configuration import Configuration
from raftckpt.raft.engine import open_log
from raftckpt.raft.node import RaftNode
from raftckpt.raft.port import PeerInfo, Removal
from raftckpt.raft.settings import RaftConfig
from raftckpt.storage import DataDirectory, RealFileSystem
from tests.directories import found, founding_of, named_directory


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ns(self) -> int:
        return int(self.now * 1e9)


class Machine:
    """Appends payloads to a list."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.contexts: list[object] = []
        self.abandoned: list[object] = []
        self.roles: list[object] = []
        self.configurations: list[Configuration] = []

    def configured(self, configuration):
        self.configurations.append(configuration)

    def apply(self, index, term, payload, context):
        self.items.append(payload)
        if context is not None:
            self.contexts.append(context)

    def abandon(self, contexts):
        self.abandoned.extend(contexts)

    def freeze(self):
        frozen = list(self.items)
        return iter([json.dumps([item.decode() for item in frozen]).encode()])

    def restore(self, pieces):
        self.items = [item.encode() for item in json.loads(b"".join(pieces))]

    def role_changed(self, status):
        self.roles.append(status)


class Cluster:
    """``pump`` delivers everything; ``run`` lets time pass; ``cut`` pairs are deaf.

    A data directory has the name of its node, or the one given to ``start``; links, wires and
    messages go by node.
    """

    def __init__(self, path, count=3, *, clock=None, **config) -> None:
        self.path = path
        self.clock = clock or Clock()
        self.names = [f"n{i + 1}" for i in range(count)]
        self.founding_nodes = tuple(self.names)
        self.founding = founding_of("test", self.names, level=1)
        self.config = config
        self.nodes: dict[str, RaftNode] = {}
        self.directories: dict[str, DataDirectory] = {}
        self.infos: dict[str, PeerInfo] = {}
        self.machines: dict[str, Machine] = {}
        self.wires: dict[tuple[str, str], list[bytes]] = {}
        self.links: set[frozenset[str]] = set()
        self.cut: set[frozenset[str]] = set()
        self.on_message = None
        self.lets_go = False
        """Whether who is removed ends, as its process would."""
        for name in self.names:
            self.start(name)

    def start(self, name, *, joins="", directory="", levels=(1, 1)):
        opened = named_directory(
            RealFileSystem(), str(self.path / name), "test", name, name=directory, joins=joins
        )
        if not opened.founded:
            found(opened, self.founding)
        self.directories[name] = opened
        storage = open_log(opened, fsync=False)
        self.machines[name] = Machine()
        if name not in self.names:
            self.names.append(name)
        config = RaftConfig(f"{name}:1", f"{name}:2", levels, **self.config)
        self.nodes[name] = node = RaftNode(
            config,
            self.machines[name],
            storage,
            lambda to, body, name=name: self._send(name, to, body),
            lambda: None,
            self.clock,
            random.Random(name),
        )
        identity, notes = opened.identity, opened.notes
        self.infos[name] = PeerInfo(
            identity.directory, name, identity.joins, config.peer, config.client, *levels,
            notes.incarnation, notes.run, *node.end,
        )  # fmt: skip
        self.connect_all()

    def id_of(self, name):
        return self.directories[name].identity.directory

    def node_of(self, directory):
        return next((n for n in self.nodes if self.id_of(n) == directory), None)

    def connect_all(self):
        for one in self.nodes:
            for other in self.nodes:
                pair = frozenset((one, other))
                if one < other and pair not in self.links and pair not in self.cut:
                    self.links.add(pair)
                    self.wires[one, other] = []
                    self.wires[other, one] = []
                    self.nodes[one].connected(self._info(other))
                    self.nodes[other].connected(self._info(one))

    def _info(self, name):
        joins = self.directories[name].identity.joins
        term, last_index = self.nodes[name].end
        return self.infos[name]._replace(joins=joins, term=term, last_index=last_index)

    def _send(self, sender, to, body):
        to = self.node_of(to)
        if frozenset((sender, to)) in self.links:
            self.wires[sender, to].append(body)

    def unlink(self, one, other, broken=True):
        pair = frozenset((one, other))
        if pair in self.links:
            self.links.remove(pair)
            self.wires[one, other] = []
            self.wires[other, one] = []
            for name, peer in ((one, other), (other, one)):
                if name in self.nodes:
                    self.nodes[name].disconnected(self.id_of(peer), broken)

    def partition(self, name):
        for other in self.names:
            if other != name:
                self.cut.add(frozenset((name, other)))
                self.unlink(name, other)

    def heal(self):
        self.cut.clear()
        self.connect_all()

    def kill(self, name):
        node = self.nodes.pop(name)
        node._storage.close()  # the kernel would close the files and release the lock
        for other in self.names:
            if other != name:
                self.unlink(name, other)

    def pump(self, rounds=50):
        for _ in range(rounds):
            for name in list(self.nodes):
                self._step(name)
            moved = False
            for (sender, to), wire in list(self.wires.items()):
                bodies, self.wires[sender, to] = wire, []
                for body in bodies:
                    moved = True
                    if to in self.nodes and (
                        self.on_message is None or self.on_message(sender, to, body)
                    ):
                        self.nodes[to].receive(self.id_of(sender), body)
            if not moved:
                return

    def _step(self, name):
        try:
            self.nodes[name].step()
        except Removal:
            if not self.lets_go:
                raise
            self.kill(name)

    def run(self, seconds, tick=0.01, until=None):
        for _ in range(int(seconds / tick)):
            self.pump(4)
            if until is not None and until():
                return True
            self.clock.now += tick
        return until is None

    def leader(self):
        leaders = [n for n, node in self.nodes.items() if node.status().leader == n]
        return max(leaders, key=lambda n: self.nodes[n].status().term, default=None)

    def elect(self):
        assert self.run(5, until=self.leader)
        return self.leader()

    def write(self, count, prefix="v"):
        leader = self.elect()
        for i in range(count):
            assert self.nodes[leader].propose(f"{prefix}{i}".encode(), (prefix, i))
        assert self.run(5, until=lambda: (prefix, count - 1) in self.machines[leader].contexts)
        return leader

    def configuration(self, name=None):
        """In force at a node (at the leader)."""
        return self.nodes[name or self.leader()].status().configuration

    def settled(self):
        return len({tuple(self.machines[n].items) for n in self.nodes}) == 1

"""What a chaos run happens on: replicas, client processes, and a proxy for each way between them.

Every client has ways of its own to every replica, so that a partition can take a minority of the
clients along. All processes end with this one, however it ends.
"""

from __future__ import annotations

import contextlib
import functools
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from raftckpt.chaos.disk import MIB_MIN, SmallDisk
from raftckpt.chaos.keeper import Keeper
from raftckpt.chaos.worker import Spec, arguments
from raftckpt.client.blocking import connect
from raftckpt.errors import CheckpointError
from raftckpt.testing import LocalCluster, background
from raftckpt.testing.probe import ReplicaProbe
from raftckpt.testing.proxy import LinkProxy

__all__ = ["ChaosStage", "ClientProcess", "Sample"]

SETTINGS: Final = {"snapshot": {"entries": 250}}
"""Snapshots are taken, sent and trimmed all the time."""

_SAMPLE_S = 0.2
_TIMEOUT_S = 8.0


class Sample(NamedTuple):
    """What a replica said of itself at a time (monotonic ns); no role: it did not answer."""

    time: int
    node: str
    role: str
    term: int


class ClientProcess:
    """A client process and its ways to the replicas."""

    def __init__(self, name: str, directory: Path, cluster: LocalCluster) -> None:
        self.name = name
        self.history = directory / f"{name}.jsonl"
        self.counter = directory / f"{name}.count"
        self.log = directory / f"{name}.log"
        self.ways: dict[str, LinkProxy] = {}
        for node in cluster.hosts:
            host, _, port = cluster.endpoint(node).rpartition(":")
            self.ways[node] = LinkProxy(host, int(port))
            background.run(self.ways[node].start())
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: LocalCluster, dice: random.Random, writers: int, pace: float) -> None:
        """Start the process."""
        spec = Spec(
            name=self.name,
            seed=dice.randrange(1 << 32),
            book={
                cluster.endpoint(node): f"127.0.0.1:{way.port}" for node, way in self.ways.items()
            },
            history=str(self.history),
            counter=str(self.counter),
            writers=writers,
            pace=pace,
            timeout=_TIMEOUT_S,
            local=True,
        )
        with self.log.open("ab") as log:
            self.process = background.spawn(arguments(spec), stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        if self.process is not None:
            self.process.send_signal(number)

    @property
    def acknowledged(self) -> int:
        """Changes acknowledged to it so far."""
        try:
            return int(self.counter.read_bytes() or b"0")
        except (FileNotFoundError, ValueError):
            return 0

    def each_way(self, work: Callable[[LinkProxy], None], node: str | None = None) -> None:
        """Do something to its ways (to its way to ``node``)."""
        for target, way in self.ways.items():
            if node is None or node == target:
                background.call(functools.partial(work, way))

    def heal(self) -> None:
        """Let everything through again."""
        self.each_way(_healed)

    def end(self) -> None:
        """End the process and the ways."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for way in self.ways.values():
            background.run(way.close())
        self.ways.clear()


def _healed(way: LinkProxy) -> None:
    way.stall(forward=False, backward=False)
    way.delay(forward_s=0.0, backward_s=0.0)
    way.slow(None)
    way.slice(None)


class ChaosStage:
    """Replicas and clients of a run.

    Arguments:
        directory: everything is kept here.
        replicas: how many.
        clients: client processes.
        dice: decides what clients do.
        module: what replicas run.
        pace: changes a second all clients together aim at.
        spares: hosts that may become members.
        other_version: command put before that of a replica that runs as the other version.
        disk_mib: size of the disk that gets full.
    """

    def __init__(
        self,
        directory: Path,
        replicas: int,
        clients: int,
        dice: random.Random,
        *,
        module: str = "raftckpt.process",
        pace: float = 1200.0,
        spares: int = 0,
        other_version: Sequence[str] = (),
        disk_mib: int = MIB_MIN,
    ) -> None:
        self.dice = dice
        self.disk: SmallDisk | None = None
        self.no_disk = ""
        self.disk_node = f"n{replicas}"
        self.samples: list[Sample] = []
        self._latest: dict[str, Sample] = {}
        self.clients: list[ClientProcess] = []
        self.gone: list[ClientProcess] = []
        self._directory = directory
        self._pace = pace / clients
        self._started = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        where = directory / "cluster"
        (where / self.disk_node).mkdir(parents=True)
        (directory / "small").mkdir()
        try:
            self.disk = SmallDisk(directory / "small", where / self.disk_node, disk_mib)
        except OSError as error:
            self.no_disk = str(error)
        self.other_version = other_version
        self._other: set[str] = set()
        wrap = {self.disk_node: self.disk.wrap} if self.disk is not None else {}
        self.cluster = LocalCluster(
            replicas, where, settings=SETTINGS, wrap=wrap, module=module, spares=spares
        )
        self.keeper = Keeper(self.cluster, self.disk_node)
        self._wanted = clients

    @property
    def nodes(self) -> list[str]:
        """Node ids."""
        return self.cluster.nodes

    @property
    def majority(self) -> int:
        """Replicas that make a majority."""
        return len(self.nodes) // 2 + 1

    @property
    def acknowledged(self) -> int:
        """Changes acknowledged to all clients so far."""
        return sum(client.acknowledged for client in (*self.clients, *self.gone))

    def start(self, timeout: float = 60.0) -> None:
        """Start replicas, then clients, then watch the replicas."""
        self.cluster.start()
        self.cluster.wait_ready(timeout)
        if self.other_version:  # else the level rises, and there is no way back
            with connect(self.cluster.endpoints, session=False, timeout=timeout) as service:
                service.pin_level(True)
        for _ in range(self._wanted):
            self.add_client()
        for node in self.cluster.hosts:
            thread = threading.Thread(target=self._watch, args=(node,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def add_client(self) -> None:
        """Start one more client process."""
        self._started += 1
        client = ClientProcess(f"c{self._started}", self._directory, self.cluster)
        self.clients.append(client)
        client.start(self.cluster, self.dice, 8, self._pace)

    def switch_version(self, node: str) -> None:
        """Have a replica be the other version from its next start on, or the first one again."""
        self._other ^= {node}
        disk = self.disk.wrap if self.disk is not None and node == self.disk_node else ()
        self.cluster.wrap(node, [*disk, *(self.other_version if node in self._other else ())])

    def replace(self, client: ClientProcess) -> None:
        """Kill a client process and start another in its place."""
        client.signal(signal.SIGCONT)
        client.end()
        self.clients.remove(client)
        self.gone.append(client)
        self.add_client()

    def leader(self) -> str | None:
        """The leader, as far as the replicas themselves last told."""
        leaders = [
            (each.term, each.node) for each in self._latest.values() if each.role == "leader"
        ]
        return max(leaders)[1] if leaders else None

    def running(self) -> list[str]:
        """Replicas whose process is there."""
        return [node for node in self.nodes if self.cluster.pid(node) is not None]

    def heal(self) -> None:
        """Undo every fault: nothing is cut, paused, full or dead any more."""
        if self.disk is not None:
            self.disk.empty()
        self.cluster.heal()
        for client in self.clients:
            client.heal()
            client.signal(signal.SIGCONT)
        self.keeper.restart()

    def stop_clients(self, timeout: float) -> list[str]:
        """Let all clients finish; returns what is wrong with them."""
        for client in self.clients:
            client.signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout
        wrong = []
        for client in self.clients:
            if client.process is None:
                continue
            try:
                code = client.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                wrong.append(f"client {client.name} does not end")
            else:
                if code:
                    text = client.log.read_text("utf-8", "replace")[-2000:]
                    wrong.append(f"client {client.name} ended with {code}: {text}")
        return wrong

    def histories(self) -> Sequence[Path]:
        """Files of the histories."""
        return [each.history for each in (*self.clients, *self.gone) if each.history.exists()]

    def end(self) -> None:
        """End everything that was started. Idempotent."""
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)
        for client in self.clients:
            client.end()
        self.cluster.stop(5.0)
        if self.disk is not None:
            self.disk.close()
            self.disk = None

    def _watch(self, node: str) -> None:
        endpoint = self.cluster.endpoint(node)
        probe: ReplicaProbe | None = None
        while not self._stop.is_set():
            role, term = "", 0
            try:
                if probe is None:
                    probe = ReplicaProbe(endpoint, timeout=0.5)
                status = probe.status()
                role, term = str(status["role"]), int(status["term"])
            except (CheckpointError, OSError):
                if probe is not None:
                    probe.close()
                    probe = None
            self._latest[node] = sample = Sample(time.monotonic_ns(), node, role, term)
            self.samples.append(sample)
            self._stop.wait(_SAMPLE_S)
        if probe is not None:
            with contextlib.suppress(OSError):
                probe.close()

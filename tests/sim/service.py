"""The whole service in one world: client cores, connections, replicas, consensus, disks.

Client and server run the code of the product (``ClientCore``, ``Connection``, ``Dispatcher``,
``Replica``); only sockets and loops are simulated. A reference machine applies every committed
entry once, in order: it is the truth that replies, reads and final states are compared with.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from raftckpt.node.replica import Replica
from raftckpt.raft.port import RaftStatus
from raftckpt.server.connection import Connection
from raftckpt.server.listener import ClientListener
from raftckpt.server.status import ReplicaInfo
from tests.sim import crashpoints
from tests.sim.clients import SimClient
from tests.sim.nodes import Clocks
from tests.sim.process import Process
from tests.sim.truth import Truth
from tests.sim.world import World

FLYING_MAX: Final = 48
"""Batches of one replica on their way, and no more."""


class WatchedReplica(Replica):
    """A replica whose state machine calls are checked."""

    def __init__(self, process: ReplicaProcess, *args: Any, **options: Any) -> None:
        self.process = process
        super().__init__(*args, **options)

    def apply(self, index: int, term: int, payload: bytes, context: Any) -> None:
        super().apply(index, term, payload, context)
        world, name = self.process.world, self.process.name
        world.note("apply", name, index, term, len(payload), "own" if context else "")
        world.checks.applied_entry(name, index, term, payload, self.machine.chain)
        for tag in world.truth.applied(index, payload):
            if tag in crashpoints.APPLIED:
                world._passing(crashpoints.APPLIED[tag])
        if context is not None:
            world.checks.acknowledged_entry(name, index, term, self.process.voters)

    def abandon(self, contexts: list[Any]) -> None:
        self.process.world.checks.sometimes["batches abandoned"] += len(contexts)
        super().abandon(contexts)

    def restore(self, pieces: Iterable[bytes]) -> None:
        super().restore(pieces)
        self.process.restored(self.machine.applied_index, self.machine.chain)

    def role_changed(self, status: RaftStatus) -> None:
        super().role_changed(status)
        self.process.role_changed(status)


class SimListener(ClientListener):
    """The client port of a simulated process: its loop is the world's queue."""

    process: ReplicaProcess

    def mark(self, connection: Connection) -> None:
        self._dirty.append(connection)
        self.soon(self.flush)

    def soon(self, callback: Callable[[], None]) -> None:
        self.process.later(callback)

    def leader_changed(self, leader: str | None) -> None:
        value = {"leader": leader, "endpoint": self.replica.leader_endpoint}
        for pipe in self.process.pipes:  # in the order of their opening, not of a set
            if pipe.server in self.connections:
                pipe.server.notice("leader", value)


class ReplicaProcess(Process):
    """A process that serves clients."""

    world: ServiceWorld
    pipes: list[Pipe]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.pipes = []

    def make_machine(self, build: Callable[[Any], Any]) -> tuple[Any, Any]:
        self.pipes = []
        endpoints: dict[str, str] = {}
        clocks = Clocks(self)
        replica = WatchedReplica(
            self,
            self.node_id,
            endpoints,
            clocks,
            self.wake,
            build,
            configured=self.configured,
            differs=self.differs,
        )
        info = ReplicaInfo(
            self.node_id,
            "sim",
            self.directory.identity.founding,
            self.id,
            endpoints,
            "fsync",
            0.0,
            lambda: 0,
            lambda: 0,
        )
        self.listener = SimListener(replica, info, clocks)
        self.listener.process = self
        return replica, replica.log

    def differs(self, index: int, own: str, leaders: str) -> None:
        self.world.checks.fail("equal digests", self.name, index, own, leaders)

    def look_at_sizes(self) -> None:
        super().look_at_sizes()
        replica = self.machine
        staged = sum(s.staged_bytes for s in replica.machine.sessions.values())
        self.world.checks.expect(
            replica._flight.batches <= FLYING_MAX and staged == replica.machine.staged_bytes,
            "queues stay within limits", self.name,
            replica._flight.batches, staged, replica.machine.staged_bytes,
        )  # fmt: skip

    def begin(self) -> None:
        self.node.take()
        self.machine.flush()
        self.node.begin()

    def finish(self) -> None:
        self.node.finish()
        self.machine.digests.work(1.0)  # as the driver does between steps
        self.machine.work()

    def deadline(self) -> float:
        return float(min(self.node.deadline(), self.machine.deadline()))

    def later(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn of the process's loop."""
        self.world.queue.after(2e-6, self._hand_in_quietly, self.incarnation, callback)

    def _hand_in_quietly(self, incarnation: int, callback: Callable[[], None]) -> None:
        if not self.up or incarnation != self.incarnation:
            return
        if self.paused:
            self._held.append(lambda: self._hand_in_quietly(incarnation, callback))
        else:
            self.guarded(callback)

    def die(self, why: str) -> None:
        pipes = self.pipes
        self.pipes = []
        super().die(why)
        for pipe in pipes:
            pipe.server_died(silently=why in ("power", "wiped"))


class Pipe(asyncio.Transport):
    """One client connection, seen by the server as its transport. FIFO both ways."""

    def __init__(self, client: SimClient, number: int, process: ReplicaProcess) -> None:
        super().__init__()
        self.client, self.number, self.process = client, number, process
        self.life = client.life
        self.world = client.world
        self.incarnation = process.incarnation
        self.client_open = self.server_open = True
        self._arrival = {"up": 0.0, "down": 0.0}
        self._waiting: dict[str, deque[tuple[Any, ...]]] = {"up": deque(), "down": deque()}
        self._reading = True
        self._unread: deque[Callable[[], None]] = deque()
        self.server = Connection(process.listener)
        process.pipes.append(self)
        process.guarded(lambda: self.server.connection_made(self))

    def _travel(self, way: str, call: Callable[..., None], *args: Any) -> None:
        waiting = self._waiting[way]
        waiting.append((call, *args))
        if len(waiting) == 1:
            self._go_on(way)

    def _go_on(self, way: str) -> None:
        waiting = self._waiting[way]
        while waiting:
            delay = self.world.client_delay(self.client.name, self.process.name)
            if delay is None:  # cut: held until it heals, in order
                self.world.queue.after(0.05, self._go_on, way)
                return
            self._arrival[way] = max(self._arrival[way], self.world.queue.now + delay)
            self.world.queue.at(self._arrival[way], *waiting.popleft())

    # --- client side ------------------------------------------------------------------------
    def send_up(self, data: bytes) -> None:
        self._travel("up", self._arrive_up, lambda: self.server.data_received(data))

    def client_closes(self) -> None:
        if self.client_open:
            self.client_open = False
            self._travel("up", self._arrive_up, self._eof)

    def _eof(self) -> None:
        self.server.eof_received()
        self._server_closes()

    def _arrive_up(self, call: Callable[[], None]) -> None:
        if not self._serving():
            return
        if not self._reading:
            self._unread.append(call)
            return

        def run() -> None:
            if self._serving():
                self.process.guarded(call)

        if self.process.paused:
            self.process._held.append(run)
        else:
            run()

    def _serving(self) -> bool:
        return self.server_open and self.process.up and self.process.incarnation == self.incarnation

    # --- server side: asyncio.Transport -----------------------------------------------------
    def write(self, data: bytes) -> None:  # type: ignore[override]
        self._travel("down", self._arrive_down, bytes(data))

    def _arrive_down(self, data: bytes) -> None:
        if self.client_open:
            self.client.received(self, self.life, data)

    def close(self) -> None:
        self._server_closes()

    abort = close

    def _server_closes(self) -> None:
        if not self.server_open:
            return
        self.server_open = False
        self.process.later(lambda: self.server.connection_lost(None))
        self._travel("down", self._lost_down)

    def server_died(self, *, silently: bool) -> None:
        self.server_open = False
        if silently:  # no FIN: the client finds out by itself, or from a reset much later
            self.world.queue.after(5.0, self._lost_down)
        else:
            self._travel("down", self._lost_down)

    def _lost_down(self) -> None:
        if self.client_open:
            self.client_open = False
            self.client.lost(self, self.life)

    def is_closing(self) -> bool:
        return not self.server_open

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.process.later(self._read_on)

    def _read_on(self) -> None:
        while self._reading and self._unread and self._serving():
            self._unread.popleft()()

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class ServiceWorld(World):
    """Replicas that serve clients, under the same faults."""

    process_class = ReplicaProcess
    service = True
    crash_points = crashpoints.SERVICE

    def __init__(self, seed: int, *, clients: int | None = None, **options: Any) -> None:
        super().__init__(seed, **options)
        rng = random.Random(f"{seed}/service")
        self.truth = Truth(self)
        self.calling = True
        self.call_gap_s = rng.choice((0.02, 0.05, 0.2))
        self.client_cuts: set[tuple[str, str]] = set()
        self._calm = rng.random() < 0.3
        self._clients = clients or rng.choice((1, 3, 6))
        self._client_rng = rng
        self.clients: list[SimClient] = []
        self._uniques = 0

    def unique(self) -> bytes:
        self._uniques += 1
        return b"v%d" % self._uniques

    def client_delay(self, client: str, node: str) -> float | None:
        if (client, node) in self.client_cuts:
            return None
        return self._client_rng.uniform(0.0001, 0.001)

    def load(self) -> None:
        for i in range(self._clients):
            self.clients.append(SimClient(self, f"c{i}", calm=self._calm))
        self._client_faults()

    def _client_faults(self) -> None:
        rng = self._client_rng
        if self.faults.active or not self.queue.now:
            self.queue.after(rng.expovariate(1.0), self._client_faults)
        if not self.faults.active:
            return
        client = rng.choice(self.clients)
        node = rng.choice(sorted(self.processes))
        dice = rng.random()
        if dice < 0.08:
            client.die()
        elif dice < 0.2:
            client.freeze(rng.choice((0.5, 2.0, 6.0)))
        elif dice < 0.6 and (pipe := client.connection) is not None:
            client.reset(pipe)
        else:
            self.client_cuts.add((client.name, node))
            self.queue.after(rng.expovariate(1.0), self.client_cuts.discard, (client.name, node))

    def pipe(self, client: SimClient, number: int, process: Process) -> Pipe:
        assert isinstance(process, ReplicaProcess)
        return Pipe(client, number, process)

    def leader_elected(self, process: Process) -> None:
        pass

    def settle(self) -> None:
        self.client_cuts.clear()
        super().settle()

    def final(self) -> None:
        self.calling = False
        if self.majority_lost:
            return  # nobody is left to answer, nor to compare with
        self.advance(9.0)
        self.checks.expect(not any(c.running for c in self.clients), "everything asked is answered")
        self.truth.final()
        for process in self.processes.values():
            machine = process.machine.machine
            self.checks.expect(
                machine.chain == self.truth.machine.chain
                and machine.revision == self.truth.machine.revision,
                "equal applied index => equal state",
                process.name,
                machine.applied_index,
                self.truth.machine.applied_index,
            )

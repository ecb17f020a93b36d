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
from typing import Any

from raftckpt.client import operations
from raftckpt.client.calls import Call
from raftckpt.client.config import CoreConfig
from raftckpt.client.core import ClientCore
from raftckpt.client.operations import Opened
from raftckpt.client.types import Attributes
from raftckpt.errors import CheckpointError, SessionLost
from raftckpt.node.replica import Replica
from raftckpt.raft.port import RaftStatus
from raftckpt.server.connection import Connection
from raftckpt.server.dispatch import ReplicaInfo
from raftckpt.server.listener import ClientListener
from tests.sim.events import Timer
from tests.sim.nodes import Clocks
from tests.sim.process import Process
from tests.sim.truth import Key, Pending, Truth
from tests.sim.world import World


class WatchedReplica(Replica):
    """A replica whose state machine calls are checked."""

    process: ReplicaProcess

    def apply(self, index: int, term: int, payload: bytes, context: Any) -> None:
        super().apply(index, term, payload, context)
        world, name = self.process.world, self.process.name
        world.note("apply", name, index, term, len(payload), "own" if context else "")
        world.checks.applied_entry(name, index, term, payload, self.machine.chain)
        world.truth.applied(index, payload)
        if context is not None:
            world.checks.acknowledged_entry(name, index, term)

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

    def make_machine(self) -> Any:
        self.pipes: list[Pipe] = []
        endpoints = {name: endpoint_of(name) for name in sorted(self.world.processes)}
        clocks = Clocks(self)
        replica = WatchedReplica(self.name, endpoints, clocks, self.wake)
        replica.process = self
        info = ReplicaInfo(self.name, "sim", endpoints, "fsync", 0.0, lambda: 0, lambda: 0)
        self.listener = SimListener(replica, info, clocks)
        self.listener.process = self
        return replica

    def attach_machine(self) -> None:
        self.machine.attach_log(self.node)

    def begin(self) -> None:
        self.machine.flush()
        self.node.begin()

    def finish(self) -> None:
        self.node.finish()
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


def endpoint_of(name: str) -> str:
    return f"{name}:7000"


class Pipe(asyncio.Transport):
    """One client connection, seen by the server as its transport. FIFO both ways."""

    def __init__(self, client: SimClient, number: int, process: ReplicaProcess) -> None:
        super().__init__()
        self.client, self.number, self.process = client, number, process
        self.world = client.world
        self.incarnation = process.incarnation
        self.client_open = self.server_open = True
        self._arrival = {"up": 0.0, "down": 0.0}
        self._reading = True
        self._unread: deque[Callable[[], None]] = deque()
        self.server = Connection(process.listener)
        process.pipes.append(self)
        process.guarded(lambda: self.server.connection_made(self))

    def _travel(self, way: str, call: Callable[..., None], *args: Any) -> None:
        delay = self.world.client_delay(self.client.name, self.process.name)
        if delay is None:  # cut: held until it heals
            self.world.queue.after(0.05, self._travel, way, call, *args)
            self._arrival[way] = max(self._arrival[way], self.world.queue.now + 0.05)
            return
        self._arrival[way] = max(self._arrival[way], self.world.queue.now + delay)
        self.world.queue.at(self._arrival[way], call, *args)

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
            self.client.received(self, data)

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
            self.client.lost(self)

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


class SimClient:
    """A user of the product's client core: opens checkpoints, writes, reads, synchronizes."""

    def __init__(self, world: ServiceWorld, name: str) -> None:
        self.world, self.name = world, name
        self.rng = random.Random(f"{world.seed}/{name}")
        self._connection: Pipe | None = None
        self._asked = 0
        self._timer: Timer | None = None
        self._life = 0
        self._begin_session()
        self._next()

    def _begin_session(self) -> None:
        self._life += 1
        names = sorted(self.world.processes)
        self.rng.shuffle(names)
        self.core = ClientCore(
            CoreConfig(client_name=self.name, session_timeout_ns=4_000_000_000),
            [endpoint_of(n) for n in names],
            secret=self.rng.randbytes(16),
            jitter=self.rng.random,
        )
        self.opened: dict[str, Opened] = {}
        self.running: dict[int, Pending] = {}
        self.accepted: dict[int, list[bytes]] = {}
        self._asked = 0
        self._connection = None
        for checkpoint in ("all", "async"):
            update: Any = "all" if checkpoint == "all" else "active"
            call = operations.open_checkpoint(checkpoint, Attributes(update=update), "rw")
            self.run(call, "open", None)

    # --- calls ------------------------------------------------------------------------------
    def run(self, call: Call, kind: str, data: bytes | None, key: Key = (0, b"")) -> None:
        now = self.world.queue.now
        truth = self.world.truth
        pending = Pending(call, kind, data, truth.floor)
        pending.key = key
        pending.own = list(self.accepted.get(key[0], ()))
        self.running[id(call)] = pending
        deadline = now + self.rng.choice((0.15, 0.6, 2.0, 8.0))
        self.world.queue.at(deadline + 0.2, self._must_be_done, call)
        self.core.start(call, deadline, now)
        self.settle()

    def _must_be_done(self, call: Call) -> None:
        self.world.checks.expect(
            call.done, "every call is answered by its deadline", self.name, call.name
        )

    def _next(self) -> None:
        gap = self.rng.expovariate(1 / self.world.call_gap_s)
        self.world.queue.after(gap, self._next)
        if not self.world.calling:
            return
        if self.core.lost is not None:
            if not self.running:
                self._begin_session()
            return
        if len(self.running) > 30 or not self.opened:
            return
        opened = self.opened[self.rng.choice(sorted(self.opened))]
        section = b"s%d" % self.rng.randrange(4)
        key = (opened.uid, section)
        dice = self.rng.random()
        if dice < 0.6:
            data = self.world.unique()
            self.run(operations.put(opened, section, data), "put", data, key)
        elif dice < 0.65:
            self.run(operations.delete(opened, section), "delete", None, key)
        elif dice < 0.9:
            self.run(operations.read(opened, section, 0, None, "linearizable"), "read", None, key)
        else:
            self.run(operations.synchronize(opened), "synchronize", None, key)

    # --- driving the core -------------------------------------------------------------------
    def settle(self) -> None:
        """Carry out what the core wants, as a face does."""
        core, now = self.core, self.world.queue.now
        target = core.target()
        number = 0 if target is None else target[0]
        pipe = self._connection
        if pipe is not None and pipe.number != number:
            self._connection = None
            if not core.keeps(pipe.number):
                pipe.client_closes()
            else:
                self.world.queue.after(1.0, pipe.client_closes)
            pipe = None
        if pipe is not None:
            data = core.data_to_send()
            if data:
                pipe.send_up(data)
        elif target is not None and self._asked != number:
            self._asked = number
            self.world.queue.after(
                self.rng.uniform(0.0002, 0.001), self._dial, self._life, number, target[1]
            )
        for call in core.take_completed():
            self._completed(call)
        deadline = core.next_deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline < float("inf"):
            self._timer = self.world.queue.at(max(deadline, now + 1e-5), self._tick, self._life)

    def _tick(self, life: int) -> None:
        if life == self._life:
            self.core.tick(self.world.queue.now)
            self.settle()

    def _dial(self, life: int, number: int, endpoint: str) -> None:
        if life != self._life:
            return
        target = self.core.target()
        if target is None or target[0] != number:
            return
        process = self.world.processes[endpoint.partition(":")[0]]
        now = self.world.queue.now
        if self.world.client_delay(self.name, process.name) is None:
            return  # no answer at all: the core's own patience ends it
        if not process.up:
            self.core.connection_lost(number, "Connection refused", now)
        else:
            self._connection = Pipe(self, number, process)
            self.core.connected(number, now)
        self.settle()

    def received(self, pipe: Pipe, data: bytes) -> None:
        self.core.data_received(pipe.number, data, self.world.queue.now)
        self.settle()

    def lost(self, pipe: Pipe) -> None:
        if pipe is self._connection:
            self._connection = None
        self.core.connection_lost(pipe.number, "it closed the connection", self.world.queue.now)
        self.settle()

    # --- what became of it ------------------------------------------------------------------
    def _completed(self, call: Call) -> None:
        pending = self.running.pop(id(call), None)
        if pending is None:
            return
        world = self.world
        try:
            value = operations.decoded(call)
        except CheckpointError as error:
            world.note("failed", self.name, pending.kind, type(error).__name__, error.definite)
            self._failed(pending, error)
            return
        world.note("done", self.name, pending.kind, call.accepted)
        world.checks.sometimes[f"client {pending.kind} done"] += 1
        self._succeeded(pending, call, value)

    def _failed(self, pending: Pending, error: CheckpointError) -> None:
        world = self.world
        how = "definite" if error.definite else "indefinite"
        world.checks.sometimes[f"client {pending.kind} failed, {how}"] += 1
        if pending.kind == "put" and error.definite:
            assert pending.data is not None
            world.truth.refused(self.name, pending.data)
        if pending.kind == "open" and not isinstance(error, SessionLost):
            update: Any = "all" if pending.call.subject == "all" else "active"
            call = operations.open_checkpoint(pending.call.subject, Attributes(update=update), "rw")
            world.queue.after(0.1, self._again, self._life, call)

    def _again(self, life: int, call: Call) -> None:
        if life == self._life and self.core.lost is None:
            self.run(call, "open", None)

    def _succeeded(self, pending: Pending, call: Call, value: Any) -> None:
        truth = self.world.truth
        match pending.kind:
            case "open":
                self.opened[value.name] = value
            case "put" if call.accepted:
                assert pending.data is not None
                self.world.checks.sometimes["writes accepted early"] += 1
                self.accepted.setdefault(pending.key[0], []).append(pending.data)
                if self.rng.random() < 0.2:  # at once: it is on its way, not yet applied
                    self.world.queue.after(0.0, self._read_own, self._life, pending)
            case "put":
                assert pending.data is not None
                truth.acknowledged(self.name, pending.data, call.value)
            case "delete":
                truth.saw(call.value)
            case "read":
                revision, (data,) = call.value
                truth.read(self.name, pending, revision, bytes(data))
            case "synchronize":
                for data in pending.own:
                    truth.must_exist(self.name, data)
                if isinstance(value, int):
                    truth.saw(value)

    def _read_own(self, life: int, written: Pending) -> None:
        if life == self._life and self.core.lost is None:
            handle, section = written.call.args[:2]
            for opened in self.opened.values():
                if opened.handle == handle:
                    call = operations.read(opened, section, 0, None, "linearizable")
                    self.run(call, "read", None, written.key)


class ServiceWorld(World):
    """Replicas that serve clients, under the same faults."""

    process_class = ReplicaProcess

    def __init__(self, seed: int, *, clients: int | None = None, **options: Any) -> None:
        super().__init__(seed, **options)
        rng = random.Random(f"{seed}/service")
        self.truth = Truth(self)
        self.calling = True
        self.call_gap_s = rng.choice((0.02, 0.05, 0.2))
        self.client_cuts: set[tuple[str, str]] = set()
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
        self.clients = [SimClient(self, f"c{i}") for i in range(self._clients)]
        self._client_faults()

    def _client_faults(self) -> None:
        rng = self._client_rng
        if self.faults.active or not self.queue.now:
            self.queue.after(rng.expovariate(1.0), self._client_faults)
        if not self.faults.active:
            return
        client = rng.choice(self.clients)
        node = rng.choice(sorted(self.processes))
        if rng.random() < 0.5 and client._connection is not None:
            self.note("client reset", client.name)
            pipe = client._connection
            pipe._server_closes() if pipe.process.up else None
        else:
            self.client_cuts.add((client.name, node))
            self.queue.after(rng.expovariate(1.0), self.client_cuts.discard, (client.name, node))

    def leader_elected(self, process: Process) -> None:
        pass

    def settle(self) -> None:
        self.client_cuts.clear()
        super().settle()

    def final(self) -> None:
        self.calling = False
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

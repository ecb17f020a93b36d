"""Users of a service world: the product's client core, driven by what applications do.

Writes whole and in part, vectors, appends, writes under a condition, transactions, large staged
values, reads, deletes, sections that expire, checkpoints that outlive their users or not, unlink
and re-create, active replicas and fences; clients that freeze past their session's time-out, or die
without a word.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from raftckpt.client import operations
from raftckpt.client.calls import Call
from raftckpt.client.config import CoreConfig, Link
from raftckpt.client.core import ClientCore
from raftckpt.client.operations import Opened
from raftckpt.client.parts import Parts, appended, change, new_part
from raftckpt.client.types import Attributes
from raftckpt.errors import CheckpointError, Conflict, Library, SessionLost
from raftckpt.protocol.kinds import PartKind
from tests.sim.events import Timer
from tests.sim.network import endpoint_of
from tests.sim.truth import Id, Key, Pending

if TYPE_CHECKING:
    from tests.sim.service import Pipe, ServiceWorld

CHECKPOINTS: Final = {
    "all": Attributes(),
    "async": Attributes(update="active"),
    "collocated": Attributes(update="active", collocated=True, retention=1.0),
    "brief": Attributes(retention=0.5, max_sections=6),
}
SESSION_TIMEOUT_S: Final = 4.0
GRACE_S: Final = 1.0
RUNNING_MAX: Final = 30
ANSWER_SLACK_S: Final = 0.2
"""A call must be done that long after its deadline at the latest."""

ACTIONS: Final = {
    "put": 42,
    "read": 22,
    "write": 8,
    "synchronize": 7,
    "delete": 4,
    "overwrite": 3,
    "create": 3,
    "big": 2,
    "expire": 2,
    "list": 2,
    "active": 2,
    "reopen": 1,
    "unlink": 1,
    "retain": 1,
    "append": 5,
    "conditional": 5,
    "transaction": 5,
}
"""What an application does next, with weights."""
CALM: Final = ("put", "read", "delete", "synchronize")
_CONDITIONAL: Final = (PartKind.PUT, PartKind.PUT, PartKind.OVERWRITE, PartKind.WRITE,
                       PartKind.APPEND, PartKind.DELETE)  # fmt: skip
_NAMES, _WEIGHTS = tuple(ACTIONS), tuple(ACTIONS.values())


@dataclass
class Break:
    """A connection broke: when for its replica, and when the client knew (inf: not yet)."""

    at: float
    pipe: Pipe
    heard_at: float = math.inf


class SimClient:
    """A user of the product's client core."""

    pace = 1.0
    """Seconds of its own clock in a second."""

    def __init__(self, world: ServiceWorld, name: str, *, calm: bool) -> None:
        self.world, self.name = world, name
        self.rng = random.Random(f"{world.seed}/{name}")
        self.frozen = False
        self.breaks: list[Break] = []
        """Of connections that its session is, or may be, attached to."""
        self.core_secret = b""
        self._calm = calm
        self._held: list[Callable[[], None]] = []
        self._pipes: dict[int, Pipe] = {}
        self._asked: set[int] = set()
        self._timer: Timer | None = None
        self._life = 0
        self._begin_session()
        self._next()

    def clock(self) -> float:
        """Its own monotonic clock, which may run fast or slow."""
        return self.world.queue.now * self.pace

    @property
    def connection(self) -> Pipe | None:
        target = self.core.target()
        return None if target is None else self._pipes.get(target[0])

    def _begin_session(self) -> None:
        self._life += 1
        if self._timer is not None:  # it is the former life's, and would not wake this one
            self._timer.cancel()
            self._timer = None
        names = sorted(self.world.processes)
        self.rng.shuffle(names)
        self.core_secret = self.rng.randbytes(16)
        self.core = ClientCore(
            CoreConfig(
                client_name=self.name,
                session_timeout_ns=int(SESSION_TIMEOUT_S * 1e9),
                disconnect_grace_ns=int(GRACE_S * 1e9),
            ),
            [endpoint_of(n) for n in names],
            secret=self.core_secret,
            jitter=self.rng.random,
        )
        self.opened: dict[str, Opened] = {}
        self.running: dict[int, Pending] = {}
        self.accepted: dict[int, list[Id]] = {}
        """Uid -> early accepted writes that a read must see (or that were refused)."""
        self.unconfirmed: dict[int, list[Id]] = {}
        """Handle -> early accepted writes that the next synchronize vouches for."""
        self._asked = set()
        self._pipes = {}
        self.breaks = []
        for name in CHECKPOINTS if not self._calm else ("all", "async"):
            self._open(name)

    # --- what happens to the client itself ----------------------------------------------------
    def die(self) -> None:
        """Its process is killed; another one begins, with a session of its own."""
        self.world.checks.sometimes["clients killed"] += 1
        self.world.note("client dies", self.name)
        for pipe in self._pipes.values():
            pipe.client_closes()
        self.frozen = False
        self._held.clear()
        self._begin_session()

    def reset(self, pipe: Pipe) -> None:
        """A connection breaks: its replica knows at once, it itself when word gets through."""
        self.world.note("client reset", self.name)
        if not pipe.process.up or not pipe.server_open:
            return
        if self.core._attached or self.core.link is Link.ATTACHING:
            self.breaks.append(Break(self.world.queue.now, pipe))
        pipe._server_closes()

    def freeze(self, seconds: float) -> None:
        """Its process is stopped for a while, perhaps past its session's time-out."""
        if not self.frozen:
            self.world.checks.sometimes["clients frozen"] += 1
            self.world.note("client freezes", self.name)
            self.frozen = True
            self.world.queue.after(seconds, self._thaw, self._life)

    def _thaw(self, life: int) -> None:
        if life != self._life:
            return
        self.frozen = False
        held, self._held = self._held, []
        for call in held:
            call()

    def _awake(self, call: Callable[..., None], *args: Any) -> bool:
        """False (and the call is kept for later) while the process is stopped."""
        if self.frozen:
            self._held.append(lambda: call(*args))
            return False
        return True

    # --- calls ------------------------------------------------------------------------------
    def run(self, call: Call, kind: str, key: Key = (0, b"")) -> None:
        now = self.clock()
        pending = Pending(call, kind, self.core_secret, self.world.truth.floor)
        pending.key = key
        if kind == "synchronize":
            pending.own = list(self.unconfirmed.get(call.handle, ()))
        elif kind == "read":
            pending.own = list(self.accepted.get(key[0], ()))
        self.running[id(call)] = pending
        deadline = now + self.rng.choice((0.15, 0.6, 2.0, 8.0))
        must_be_done_at = deadline / self.pace + ANSWER_SLACK_S
        self.world.queue.at(must_be_done_at, self._must_be_done, self._life, call)
        self.core.start(call, deadline, now)
        self.settle()

    def _must_be_done(self, life: int, call: Call) -> None:
        if life == self._life and self._awake(self._check_soon, life, call):
            self.world.checks.expect(
                call.done, "every call is answered by its deadline", self.name, call.name
            )

    def _check_soon(self, life: int, call: Call) -> None:
        self.world.queue.after(ANSWER_SLACK_S, self._must_be_done, life, call)

    def _open(self, name: str) -> None:
        self.run(operations.open_checkpoint(name, CHECKPOINTS[name], "rw"), "open")

    def _next(self) -> None:
        gap = self.rng.expovariate(1 / self.world.call_gap_s)
        self.world.queue.after(gap, self._next)
        if self.frozen:
            return
        if self.core.lost is not None:
            if not self.running:
                self.world.checks.sometimes["client sessions lost"] += 1
                self._begin_session()
            return
        if not self.world.calling or len(self.running) > RUNNING_MAX or not self.opened:
            return
        opened = self.opened[self.rng.choice(sorted(self.opened))]
        kind = self.rng.choices(_NAMES, _WEIGHTS)[0]
        if self._calm and kind not in CALM:
            kind = "put"
        action: Callable[[Opened], None] = getattr(self, f"_{kind}")
        action(opened)

    def _section(self) -> bytes:
        return b"s%d" % self.rng.randrange(5)

    def _put(self, opened: Opened) -> None:
        self.run(operations.put(opened, self._section(), self.world.unique()), "put")

    def _big(self, opened: Opened) -> None:
        data = self.world.unique() + bytes(self.rng.randrange(1500, 6000))
        self.run(operations.put(opened, self._section(), data), "big put")

    def _overwrite(self, opened: Opened) -> None:
        self.run(operations.overwrite(opened, self._section(), self.world.unique()), "overwrite")

    def _write(self, opened: Opened) -> None:
        """A vector of partial writes; now and then large, so that elements are staged."""
        size = self.rng.choice((0, 0, 0, 2000))
        vector = [
            (self._section(), self.rng.randrange(12), self.world.unique() + bytes(size))
            for _ in range(self.rng.randint(1, 3))
        ]
        self.run(operations.write_many(opened, vector), "write")

    def _create(self, opened: Opened) -> None:
        section = self.rng.choice((None, b"t%d" % self.rng.randrange(3)))
        ttl = self.rng.choice((None, 0.05, 1.0))
        call = operations.create(opened, section, self.world.unique(), None, ttl)
        self.run(call, "create")

    def _append(self, opened: Opened) -> None:
        data = self.world.unique() + bytes(self.rng.choice((0, 0, 0, 2000)))
        part = new_part(PartKind.APPEND, self._section(), data, if_revision=None)
        self.run(change("append", opened, part, appended), "append")

    def _condition(self, opened: Opened, section: bytes) -> int:
        """What the section had a moment ago, or something else."""
        found = self.world.truth.revision_of((opened.uid, section))
        return self.rng.choice((found, found, found, 0, max(found - 1, 0)))

    def _conditional(self, opened: Opened) -> None:
        kind, section = self.rng.choice(_CONDITIONAL), self._section()
        data = b"" if kind == PartKind.DELETE else self.world.unique()
        part = new_part(kind, section, data, if_revision=self._condition(opened, section))
        self.run(change("conditional", opened, part), "conditional")

    def _transaction(self, opened: Opened) -> None:
        """Some parts, most of which can be done; now and then large, so that they are staged."""
        parts = Parts()
        for _ in range(self.rng.randint(1, 4)):
            section, data = self._section(), self.world.unique()
            data += bytes(self.rng.choice((0, 0, 0, 2000)))
            dice = self.rng.random()
            wanted = self._condition(opened, section) if dice < 0.2 else None
            match self.rng.choice(("put", "put", "append", "append", "write", "delete", "create")):
                case "put":
                    parts.put(section, data, if_revision=wanted)
                case "append":
                    parts.append(section, data, if_revision=wanted)
                case "write":
                    parts.write(section, data, self.rng.randrange(12), if_revision=wanted)
                case "delete":
                    parts.delete(section, if_revision=wanted)
                case _:
                    parts.create(None, data, ttl=self.rng.choice((None, 0.0, 0.05)))
        self.run(parts._call(opened), "transaction")

    def _delete(self, opened: Opened) -> None:
        section = self.rng.choice((b"s%d", b"t%d")) % self.rng.randrange(3)
        self.run(operations.delete(opened, section), "delete")

    def _expire(self, opened: Opened) -> None:
        ttl = self.rng.choice((0.05, 0.5, None))
        self.run(operations.set_expiration(opened, self._section(), None, ttl), "set expiration")

    def _read(self, opened: Opened) -> None:
        section = self._section()
        call = operations.read(opened, section, 0, None, "linearizable")
        self.run(call, "read", (opened.uid, section))

    def _list(self, opened: Opened) -> None:
        build = self.rng.choice((operations.status, operations.section_ids, operations.read_all))
        self.run(build(opened, "linearizable"), "list")

    def _synchronize(self, opened: Opened) -> None:
        self.run(operations.synchronize(opened), "synchronize")

    def _active(self, opened: Opened) -> None:
        call = operations.active_replica_set(opened, self.rng.random() < 0.3)
        self.run(call, "set active")

    def _retain(self, opened: Opened) -> None:
        call = operations.set_retention(opened, self.rng.choice((0.0, 0.5, 2.0)))
        self.run(call, "set retention")

    def _reopen(self, opened: Opened) -> None:
        """Close; the completion opens it again. The last close starts the retention."""
        del self.opened[opened.name]
        self.run(operations.close_checkpoint(opened), "close")

    def _unlink(self, opened: Opened) -> None:
        """The name is free at once; handles go on with the old generation until closed."""
        self.run(operations.unlink(opened.name), "unlink")
        self._reopen(opened)

    # --- driving the core -------------------------------------------------------------------
    def settle(self) -> None:
        """Carry out what the core wants, as a face does."""
        core, now = self.core, self.world.queue.now
        wanted = core.wanted()
        for number in [number for number in self._pipes if number not in wanted]:
            pipe = self._pipes.pop(number)
            self._knows_end_of(pipe)
            pipe.client_closes()
        for number, endpoint in wanted.items():
            if number in self._pipes:
                data = core.data_to_send(number)
                if data:
                    self._pipes[number].send_up(data)
            elif number not in self._asked:
                self._asked.add(number)
                self.world.queue.after(
                    self.rng.uniform(0.0002, 0.001), self._dial, self._life, number, endpoint
                )
        for call in core.take_completed():
            self._completed(call)
        deadline = core.next_deadline()
        timer = self._timer
        if deadline == float("inf"):
            if timer is not None:
                timer.cancel()
                self._timer = None
            return
        at = max(deadline / self.pace, now + 1e-5)
        if timer is None or timer.call is None or timer.at > at or timer.at <= now:
            if timer is not None:
                timer.cancel()
            self._timer = self.world.queue.at(at, self._tick, self._life)

    def _tick(self, life: int) -> None:
        if life != self._life or not self._awake(self._tick, life):
            return
        self._timer = None
        self.core.tick(self.clock())
        self.settle()

    def _dial(self, life: int, number: int, endpoint: str) -> None:
        if life != self._life or not self._awake(self._dial, life, number, endpoint):
            return
        if number not in self.core.wanted():
            return
        process = self.world.processes[endpoint.partition(":")[0]]
        now = self.clock()
        if self.world.client_delay(self.name, process.name) is None:
            return  # no answer at all: the core's own patience ends it
        if not process.up:
            self.core.connection_lost(number, "Connection refused", now)
        else:
            self._pipes[number] = self.world.pipe(self, number, process)
            self.core.connected(number, now)
        self.settle()

    def received(self, pipe: Pipe, life: int, data: bytes) -> None:
        if life == self._life and self._awake(self.received, pipe, life, data):
            self.core.data_received(pipe.number, data, self.clock())
            self.settle()

    def lost(self, pipe: Pipe, life: int) -> None:
        if life != self._life or not self._awake(self.lost, pipe, life):
            return
        self._pipes.pop(pipe.number, None)
        self._knows_end_of(pipe)
        self.core.connection_lost(pipe.number, "it closed the connection", self.clock())
        self.settle()

    def _knows_end_of(self, pipe: Pipe) -> None:
        for each in self.breaks:
            if each.pipe is pipe:
                each.heard_at = self.world.queue.now

    @property
    def life(self) -> int:
        return self._life

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
        world.checks.expect(
            not isinstance(error, Library), "client and replica understand each other",
            self.name, pending.kind, error,
        )  # fmt: skip
        if error.definite:
            world.truth.refused(self.name, pending)
        if isinstance(error, Conflict):
            world.checks.sometimes["conditions that did not hold"] += 1
            world.checks.expect(error.definite, "a conflict is definite", self.name, error)
        if pending.kind == "synchronize" and error.definite:
            # it reports that accepted writes were refused when they were replayed
            self.world.checks.sometimes["accepted writes refused, and reported"] += 1
            handle = pending.call.handle
            left = self.unconfirmed.get(handle, ())
            self.unconfirmed[handle] = [i for i in left if not world.truth.was_refused(i)]
        if pending.kind in ("open", "close") and not isinstance(error, SessionLost):
            world.queue.after(0.1, self._again, self._life, pending.call.subject)

    def _again(self, life: int, name: str) -> None:
        if life == self._life and self.core.lost is None and self._awake(self._again, life, name):
            self._open(name)

    def _succeeded(self, pending: Pending, call: Call, value: Any) -> None:
        truth = self.world.truth
        match pending.kind:
            case "read":
                revision, (data,) = call.value
                truth.read(self.name, pending, revision, bytes(data))
            case "synchronize":
                self._synchronized(pending)
                if isinstance(value, int):
                    truth.saw(value)
            case "list":
                truth.saw(call.value[0])
            case _ if call.accepted:
                self.world.checks.sometimes["writes accepted early"] += 1
                self._accepted(pending)
            case _:
                truth.acknowledged(self.name, pending)
        if pending.kind == "open":
            self.opened[value.name] = value
        elif pending.kind == "close":
            self._open(call.subject)

    def _synchronized(self, pending: Pending) -> None:
        left = self.unconfirmed.get(pending.call.handle, [])
        own = set(pending.own)
        for ident in left:  # but for those that another synchronize reported as refused meanwhile
            if ident in own:
                self.world.truth.must_exist(self.name, ident)
        self.unconfirmed[pending.call.handle] = [i for i in left if i not in own]
        for uid, accepted in self.accepted.items():
            self.accepted[uid] = [i for i in accepted if i not in own]

    def _accepted(self, pending: Pending) -> None:
        handle = pending.call.message.handle
        for opened in self.opened.values():
            if opened.handle == handle:
                self.accepted.setdefault(opened.uid, []).append(pending.id)
                self.unconfirmed.setdefault(handle, []).append(pending.id)
                if pending.kind == "put" and self.rng.random() < 0.2:
                    # at once: it is on its way, not yet applied
                    self.world.queue.after(
                        0.0, self._read_own, self._life, opened, pending.call.message.section_id
                    )

    def _read_own(self, life: int, opened: Opened, section: bytes) -> None:
        if life == self._life and self.core.lost is None and not self.frozen:
            call = operations.read(opened, section, 0, None, "linearizable")
            self.run(call, "read", (opened.uid, section))

"""One replica process of a world: a real node on a simulated disk, clock and network."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from raftckpt.raft.configuration import Configuration
from raftckpt.raft.engine import CANDIDATE, FOLLOWER, LEADER
from raftckpt.raft.hello import Hello
from raftckpt.raft.messages import Noted, decode_body
from raftckpt.raft.peering import Peering
from raftckpt.raft.port import Change, Changed, RaftStatus, Role, Transferred
from raftckpt.storage._recovery import segment_name
from tests.sim import nodes
from tests.sim.events import NodeClock, Timer
from tests.sim.machine import ListMachine

if TYPE_CHECKING:
    from tests.sim.world import World

_ROLES: Final = {FOLLOWER: Role.FOLLOWER, CANDIDATE: Role.CANDIDATE, LEADER: Role.LEADER}
DATA: Final = "/data"
DISK_READ_EVERY: Final = 64
INBOX_MAX: Final = 5000
"""Messages that wait for the step of a running node: what windows and heartbeats allow."""
LOOK_UP_S: Final = 0.02
STEP_DELAY_S: Final = 20e-6
"""From a wake-up to the step: what arrives meanwhile belongs to the same step."""


class Write:
    """One value somebody proposed; its outcome settles at most once."""

    __slots__ = ("outcome", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.outcome = "pending"

    @property
    def head(self) -> bytes:
        return self.payload[:16]


class Process:
    """Starts, steps, pauses, dies and restarts; implements ``Host`` and ``Observer``."""

    def __init__(
        self, world: World, name: str, disk: Any, clock: NodeClock, node_id: str = ""
    ) -> None:
        self.world, self.name, self.disk, self.clock = world, name, disk, clock
        self.node_id = node_id or name
        self.joins = ""
        """What the operator says at the next start: rejoin, or a token."""
        self.file: list[str] = []
        """Node ids that its cluster.yaml lists."""
        self.levels = world.levels
        self.directory: Any = None
        self.peering: Any = None
        self.id = ""
        """Of its data directory."""
        self.removed = False
        self.idle = False
        """Nobody uses the host."""
        self.set_back = False
        """Its disk is an older copy of itself."""
        self.ever_founded = False
        self.lost = False
        """Its disk is damaged, though nobody has looked yet."""
        self.members: Configuration | None = None
        """The last configuration it applied."""
        self.counts: frozenset[str] = frozenset()
        """The voters by the configuration that was in force here at the last look."""
        self.says_found = False
        """The operator says that a list of one is a cluster."""
        self.links: dict[str, str] = {}  # directory -> name of the host it is on
        self._opening = False
        self._changed_at = 0
        self.node: Any = None
        self.machine: Any = None
        self.storage: Any = None
        self.incarnation = 0
        self.started_at = 0.0
        self.paused = False
        self.sync_s = (0.0001, 0.0005)
        self.pending: set[Write] = set()
        self.reads_open = 0
        self.transfers_open = 0
        self.stopped_because: str | None = None
        self.wall_error_s = 0.0
        self.wall_bad_until = -1.0
        self.damaged = False
        """Bits of its disk were flipped while it was down."""
        self.settled_bytes: dict[str, int] = {}
        """Journal segment -> bytes that a later group confirms (or that make its head)."""
        self._synced_end: tuple[str, int] = ("", 0)
        self.steps = 0
        self._syncs = 0
        self._sync_takes = 0.0
        self._held: deque[Callable[[], None]] = deque()
        self._step_timer: Timer | None = None
        self._in_step = self._woken = False
        self.seen: tuple[Role | None, int, int] = (None, 0, 0)
        """Role, term and commit index at the last look."""
        self._rng = random.Random(f"{world.seed}/{name}")

    # --- life -------------------------------------------------------------------------------
    @property
    def up(self) -> bool:
        """It has a log; before the founding is complete it only runs."""
        return self.node is not None

    @property
    def running(self) -> bool:
        return self.peering is not None

    def reachable(self) -> bool:
        return self.peering is not None

    def start(self) -> None:
        """Open the disk and run; refuses (stays down) when the disk kills it on the way."""
        self.incarnation += 1
        self.started_at = self.world.queue.now
        self.stopped_because = None
        self.world.note("start", self.name, self.incarnation, self.joins)
        self.guarded(self._open)
        if self.running:
            if self.damaged:
                self.damaged = False
                self.world.checks.sometimes["damage where nothing was"] += 1
            self.joins = ""  # what it was told is on its disk
        if self.up:
            self.wake()

    def _open(self) -> None:
        world = self.world
        self.directory = directory = nodes.open_directory(self)
        self.id = directory.identity.directory
        world.checks.opened(self.id)
        world.names[self.id] = self.name
        self.links = {}
        self._opening = False
        self.peering = Peering(
            directory,
            nodes.raft_config(world, self),
            self.file,
            alone=self.says_found,
            founding_id=lambda: self._rng.randbytes(16).hex(),
            send=self.send,
            changed=self._changed,
            failed=self._failed,
        )
        if self.peering.founded:
            self._open_log()

    def _changed(self) -> None:
        if self.running and not self.up and not self._opening and self.peering.founded:
            self._opening = True
            self.world.queue.after(0.0, self._open_soon, self.incarnation)

    def _open_soon(self, incarnation: int) -> None:
        if incarnation != self.incarnation or not self.running or self.up:
            return
        if self.paused:
            self._held.append(lambda: self._open_soon(incarnation))
            return
        self.world.checks.sometimes["foundings taken part in"] += 1
        self.guarded(self._open_log)
        if self.up:
            self.wake()

    @staticmethod
    def _failed(error: BaseException) -> None:
        raise error

    def configured(self, configuration: Configuration) -> None:
        self.ever_founded = True
        self.members = configuration
        self.world.checks.founded(configuration, self.id)
        self.peering.configured(configuration)

    def _open_log(self) -> None:
        world = self.world
        storage = world.open_storage(self)
        self.storage = storage
        meta = storage.snapshots.latest()
        journal = storage.journal
        world.checks.restarted(
            self.id, list(journal), journal.term, journal.vote, meta.index if meta else 0
        )
        self._note_durable()  # opening made all that it found durable
        self.disk.on_synced = self._journal_synced
        rng = random.Random(self._rng.random())
        self.machine, self.node = self.make_machine(
            lambda machine: world.build_node(self, machine, storage, rng)
        )
        self._measures_its_disk()
        self.peering.hand_over(self.node)

    def _measures_its_disk(self) -> None:
        """Time goes on between the halves of a step, not inside: tell what a sync would take."""
        disks = self.node._disks
        synced = disks.synced
        disks.synced = lambda _took: synced(self._sync_takes)

    def make_machine(self, build: Callable[[Any], Any]) -> tuple[Any, Any]:
        """Make the state machine and the node of it."""
        machine = ListMachine(self, ballast=self.world.ballast)
        return machine, build(machine)

    def _journal_synced(self) -> None:
        self._note_durable()
        self._syncs += 1
        if self._syncs % DISK_READ_EVERY == 0:
            self._read_disk()

    def _read_disk(self) -> None:
        """Now and then do not believe the journal: read what a power loss would leave."""
        found = self.disk.durable_journal(DATA)
        journal = self.storage.journal
        held = found.entries if found is not None else []
        self.world.checks.sometimes["disks read back"] += 1
        self.world.checks.expect(
            found is not None
            and (found.term, found.vote) == (journal.term, journal.vote)
            and bool(held)
            and held[-1][1:] == journal[-1][1:]
            and held[-len(journal) :] == list(journal)[-len(held) :],
            "synced => on the disk",
            self.name,
            held[-1][1:] if held else None,
            journal[-1][1:],
        )

    def _note_durable(self) -> None:
        journal = self.storage.journal
        path = f"{DATA}/journal/{segment_name(journal._segments[-1].number)}"
        former, end = self._synced_end
        if (former, end) != (path, journal._offset):
            self.settled_bytes = {path: end} if former == path else {}
            self._synced_end = (path, journal._offset)
        meta = self.storage.snapshots.latest()
        self.world.checks.synced(
            self.id,
            journal,
            journal.term,
            journal.vote,
            (meta.index, meta.term) if meta else (0, 0),
        )

    def die(self, why: str) -> None:
        """The process is gone, with everything in its memory."""
        self.world.note("dies", self.name, why)
        self.node = self.machine = self.storage = self.peering = self.directory = None
        self.seen = (None, 0, 0)
        self.stopped_because = why
        self.disk.on_synced = None
        self.paused = False
        self._held.clear()
        self._in_step = False
        self._cancel_timer()
        for write in self.pending:
            write.outcome = "unknown"
            self.world.checks.unknown.add(write.head)
        self.pending.clear()
        self.reads_open = self.transfers_open = 0

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        while self._held and not self.paused and self.running:
            self._held.popleft()()
        self._held.clear()
        if self.up:
            self.wake()

    def guarded(self, call: Callable[[], Any]) -> Any:
        """Run code of the node with its clock; an injected crash ends the process here."""
        world = self.world
        world.running = self
        try:
            return call()
        except world.crash_types as crash:
            world.crashed_inside(self, crash)
        except Exception as error:
            world.stopped_itself(self, error)
        finally:
            world.running = None
        return None

    # --- the driver -------------------------------------------------------------------------
    def wake(self) -> None:
        """Something is to be done: step soon."""
        if self._in_step:
            self._woken = True
        else:
            self._schedule(self.world.queue.now + STEP_DELAY_S)

    def _schedule(self, at: float) -> None:
        if self._step_timer is not None and self._step_timer.at <= at:
            return
        self._cancel_timer()
        self._step_timer = self.world.queue.at(at, self._step, self.incarnation)

    def _cancel_timer(self) -> None:
        if self._step_timer is not None:
            self._step_timer.cancel()
            self._step_timer = None

    def _step(self, incarnation: int) -> None:
        self._step_timer = None
        if incarnation != self.incarnation or not self.up or self._in_step:
            return
        if self.paused:
            return  # resume() wakes it
        self.steps += 1
        self._in_step, self._woken = True, False
        self.guarded(self.begin)
        if self.up:
            self.look()
            took = self._sync_takes = self.world.rng_disk.uniform(*self.sync_s)
            self.world.queue.after(took, self._finish, incarnation)
            self._wait_for_disk(incarnation, self.steps, 0.0)

    def _wait_for_disk(self, incarnation: int, step: int, waited: float) -> None:
        """What a node may do while its disk syncs, after a first slow sync."""
        if incarnation != self.incarnation or not self._in_step or step != self.steps:
            return
        if waited and not self.paused:
            self.guarded(lambda: self.node.wait_for_disk(waited))
        if waited + LOOK_UP_S < self._sync_takes:
            self.world.queue.after(
                LOOK_UP_S, self._wait_for_disk, incarnation, step, waited + LOOK_UP_S
            )

    def _finish(self, incarnation: int) -> None:
        if incarnation != self.incarnation or not self.up:
            return
        if self.paused:
            self._held.append(lambda: self._finish(incarnation))
            return
        self.guarded(self.finish)
        self._in_step = False
        if not self.up:
            return
        self.look()
        soon = self.world.queue.now + STEP_DELAY_S
        deadline = soon if self._woken else self.clock.true_time(self.guarded(self.deadline))
        self._schedule(max(deadline, soon))

    def begin(self) -> None:
        self.node.take()
        self.node.begin()

    def finish(self) -> None:
        self.node.finish()

    def deadline(self) -> float:
        deadline: float = self.node.deadline()
        return deadline

    def look(self) -> None:
        """Compare the node's own view with the checks."""
        engine = self.node._engine  # status() would cost more than the step
        role = _ROLES[engine.role] if engine.votes else Role.LEARNER
        term, commit = engine.term, engine.settled
        self.counts = self.voters
        if role is Role.LEADER:
            self._look_at_change()
        former_role, former_term, former_commit = self.seen
        if (role, term, commit) == self.seen:
            return
        self.seen = (role, term, commit)
        checks = self.world.checks
        log = self.storage.journal
        if commit > former_commit:
            checks.commit_moved(self.id, log, commit, self.voters)
            if role is former_role is Role.LEADER and term == former_term:
                checks.committed_by(self.name, term, commit)
        if former_role is Role.LEARNER is not role:
            checks.sometimes["learners promoted"] += 1
        if role is Role.LEADER and (former_term != term or former_role is not Role.LEADER):
            self.world.note("leads", self.name, term)
            checks.leads(self.name, self.incarnation, term, log)

    def _look_at_change(self) -> None:
        """A configuration that this leader appended: it must not wait for anybody, nor outrun."""
        now = self.node._configurations.now
        if now.index <= self._changed_at or now.term != self.node._engine.term:
            return
        former, self._changed_at = self.node._configurations.at(now.index - 1), now.index
        checks = self.world.checks
        checks.sometimes["configurations appended"] += 1
        self.world.appended_at[now.place] = self.world.queue.now
        checks.expect(
            len(now.voters ^ former.voters) <= 1 and now.configuration.base == former.index,
            "one vote at a time",
            self.name,
            now.configuration,
            former.configuration,
        )
        holders = [d for d in now.voters if checks.holds_all(d)]
        checks.expect(
            former.index <= self.node._engine.commit
            and (len(holders) >= now.majority or checks.outdated(now.term)),
            "a majority of the new voters holds what is committed",
            self.name,
            now.configuration,
            holders,
        )
        if now.configuration.level > former.configuration.level:
            checks.sometimes["levels raised"] += 1
            hosts = [p for p in self.world.processes.values() if p.id in now.directories]
            checks.expect(
                all(p.levels[1] >= now.configuration.level or self._could(p) for p in hosts),
                "the level rises when all can",
                self.name,
                [(p.name, p.levels) for p in hosts],
            )

    def _could(self, other: Process) -> bool:
        """Whether a host may pass for what it was: it answered, and is another only now."""
        recent = 1.1 * self.node._config.election_max_s  # clocks drift
        engine = self.node._engine
        heard = engine.last_heard(other.id)
        return not other.running or (
            heard is not None
            and engine.match_index(other.id) > 0
            and self.node._now() - heard <= recent
            and self.world.queue.now - other.started_at <= recent
        )

    def look_at_sizes(self) -> None:
        """What grows has a limit."""
        node = self.node
        waiting = len(node._inbox)
        self.world.checks.expect(
            waiting <= INBOX_MAX and len(node._contexts) <= len(self.storage.journal),
            "queues stay within limits", self.name, waiting, len(node._contexts),
        )  # fmt: skip

    @property
    def leads(self) -> bool:
        return self.seen[0] is Role.LEADER

    @property
    def learns(self) -> bool:
        """It has a log and no vote."""
        return self.up and not self.node._engine.votes

    @property
    def voters(self) -> frozenset[str]:
        """Directories that vote by the configuration in force here."""
        found: frozenset[str] = self.node._configurations.now.voters
        return found

    def status(self) -> RaftStatus:
        status: RaftStatus = self.guarded(self.node.status)
        return status

    # --- Host -------------------------------------------------------------------------------
    def _hand_in(self, call: Callable[..., None], *args: Any) -> None:
        incarnation = self.incarnation

        def run() -> None:
            if self.running and incarnation == self.incarnation:
                self.guarded(lambda: call(*args))
                if self.up:
                    self.wake()

        if self.paused:
            self._held.append(run)
        else:
            run()

    def link_up(self, peer: str) -> None:
        there = self.world.processes[peer]
        if there.running:  # it may have died of meeting us
            self._hand_in(self._meet, peer, there.peering.hello())

    def _meet(self, peer: str, hello: Hello) -> None:
        for directory in [d for d, name in self.links.items() if name == peer]:
            if directory != hello.directory:
                self._part(peer, broken=True)
        self.peering.remember(hello)
        self.links[hello.directory] = peer
        self.peering.connected(hello.info)

    def link_down(self, peer: str, *, broken: bool) -> None:
        self._hand_in(lambda: self._part(peer, broken=broken))

    def _part(self, peer: str, *, broken: bool) -> None:
        for directory in [d for d, name in self.links.items() if name == peer]:
            del self.links[directory]
            self.peering.disconnected(directory, broken)

    def deliver(self, peer: str, body: bytes) -> None:
        self._hand_in(self._take, peer, body)

    def _take(self, peer: str, body: bytes) -> None:
        for directory in [d for d, name in self.links.items() if name == peer]:
            self.peering.receive(directory, body)

    def send(self, directory: str, body: bytes) -> None:
        """What the node releases: check every message, then put it on the wire."""
        to = self.links.get(directory)
        if to is None:
            return
        for message in decode_body(body):
            other = self.world.processes[to]
            leading = (
                not isinstance(message, Noted)
                and other.up
                and other.leads
                and other.seen[1] == getattr(message, "term", -1)
            )
            log = other.storage.journal if leading else None
            self.world.checks.released(self.id, directory, message, log)
            self.world.note("send", self.name, to, *self._brief(message))
        self.world.network.send(self.name, to, body)

    @staticmethod
    def _brief(message: Any) -> tuple[object, ...]:
        return (
            type(message).__name__,
            *(f if not isinstance(f, (bytes, list)) else f"[{len(f)}]" for f in message[1:]),
        )

    # --- Observer ---------------------------------------------------------------------------
    def applied(self, index: int, term: int, payload: bytes, chain: int, context: Any) -> None:
        self.world.note("apply", self.name, index, term, payload[:16].decode())
        checks = self.world.checks
        checks.applied(self.name, index, term, payload, chain)
        if context is not None:
            checks.expect(
                context.outcome == "pending" and context.payload == payload,
                "a proposal settles once, with its own entry",
                self.name, index, context.outcome, context.head,
            )  # fmt: skip
            context.outcome = "acknowledged"
            self.pending.discard(context)
            checks.acknowledge(self.name, context.head, index, term, self.voters)

    def abandoned(self, contexts: list[Any]) -> None:
        for write in contexts:
            self.world.note("abandon", self.name, write.head.decode())
            self.world.checks.expect(
                write.outcome == "pending",
                "a proposal settles once, with its own entry",
                self.name,
                write.outcome,
            )
            write.outcome = "unknown"
            self.pending.discard(write)
            self.world.checks.unknown.add(write.head)
            self.world.checks.sometimes["writes abandoned"] += 1

    def restored(self, index: int, chain: int) -> None:
        self.world.note("restore", self.name, index)
        self.world.checks.restored(self.name, index, chain)
        if self.node is not None:
            self.world.checks.sometimes["snapshots installed"] += 1

    def role_changed(self, status: RaftStatus) -> None:
        self.world.note("role", self.name, status.role.value, status.term, status.leader)
        if status.leader == self.name:
            self.world.leader_elected(self)

    # --- what clients ask -------------------------------------------------------------------
    def propose(self, write: Write) -> None:
        checks = self.world.checks

        def run() -> None:
            self.pending.add(write)
            if not self.node.propose(write.payload, write):
                self.pending.discard(write)
                write.outcome = "refused"
                checks.refused.add(write.head)

        self.world.note("propose", self.name, write.head.decode())
        self._ask(run)

    def read(self) -> None:
        checks = self.world.checks
        floor = checks.floor
        incarnation = self.incarnation
        answers: list[bool] = []

        def done(confirmed: bool) -> None:
            if incarnation != self.incarnation:
                return
            answers.append(confirmed)
            checks.expect(len(answers) == 1, "a read is answered once", self.name)
            self.reads_open -= 1
            self.world.note("read", self.name, confirmed, floor)
            if confirmed and self.machine is not None:
                checks.read(self.name, floor, self.node._engine.applied)
                checks.sometimes["reads confirmed"] += 1
            else:
                checks.sometimes["reads refused"] += 1

        def run() -> None:
            self.reads_open += 1
            self.node.read_index(done)

        self._ask(run)

    def transfer(self, to: str | None) -> None:
        incarnation = self.incarnation

        def done(outcome: Transferred) -> None:
            if incarnation != self.incarnation:
                return
            self.transfers_open -= 1
            self.world.note("transfer", self.name, outcome.value)
            self.world.checks.sometimes[f"transfers {outcome.value}"] += 1

        def run() -> None:
            self.transfers_open += 1
            self.node.transfer(to, done)

        self._ask(run)

    def change(self, change: Change) -> None:
        incarnation = self.incarnation

        def done(outcome: Changed) -> None:
            if incarnation == self.incarnation:
                word = "done" if outcome.done else outcome.why or "refused"
                self.world.note("changed", self.name, type(change).__name__, word)
                kind = "done" if outcome.done else "refused" if outcome.definite else "unknown"
                self.world.checks.sometimes[f"{type(change).__name__} {kind}"] += 1

        self.world.note("change", self.name, repr(change))
        self._ask(lambda: self.node.change(change, done))

    def compact(self) -> None:
        def run() -> None:
            if self.node.compact():
                self.world.checks.sometimes["compactions"] += 1

        self._ask(run)

    def _ask(self, run: Callable[[], None]) -> None:
        if self.paused:
            self._held.append(lambda: self.guarded(run))
        elif self.up:
            self.guarded(run)
            if self.up:
                self.wake()

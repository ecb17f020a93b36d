"""The replica: one state machine, one replicated log, and everybody who waits for an outcome.

Puts together those who answer clients (admission, flight, reads, presence, comparisons) and is the
state machine that the log knows: entries, images, configurations and roles arrive here and go to
whom they concern, in this order. Knows nothing of sockets, files, asyncio: the driver calls
:meth:`Replica.flush` before each step of the log and waits until :meth:`Replica.deadline` at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, Final, ParamSpec, Protocol

from raftckpt.events import EventLog
from raftckpt.model.changes import Change
from raftckpt.model.machine import CheckpointMachine
from raftckpt.node.admission import Admission
from raftckpt.node.clock import Clock
from raftckpt.node.comparisons import Comparisons
from raftckpt.node.digests import Digest
from raftckpt.node.diskroom import DiskRoom
from raftckpt.node.flight import Flight
from raftckpt.node.leadership import Leadership
from raftckpt.node.liveness import Requester
from raftckpt.node.meters import Meters
from raftckpt.node.presence import Presence
from raftckpt.node.reads import WaitingReads
from raftckpt.node.room import Room
from raftckpt.node.situation import Situation
from raftckpt.raft.configuration import Configuration
from raftckpt.raft.port import Change as MembersChange
from raftckpt.raft.port import Changed, RaftStatus, ReplicatedLog, StateMachine, Transferred

__all__ = ["Feed", "Listener", "Replica"]

log = EventLog("node")

_NEVER: Final = float("inf")
_ALARMS_MAX: Final = 16
"""One is told to whoever looks; a log with more such entries needs no list of them."""

_P = ParamSpec("_P")


class Listener(Protocol):
    """Who wants to hear of leadership."""

    def leader_changed(self, leader: str | None) -> None:
        """Another leader (or none) is known."""

    def rights_changed(self) -> None:
        """Principals or spaces changed, or rights were switched on or off."""

    def operates(self, owner: Requester, operation: str) -> None:
        """A client asks for something that needs the right to operate."""


class Feed(Protocol):
    """Who wants to hear of every change, as soon as it is applied."""

    def applied(self, changes: list[Change], revision: int) -> None:
        """An entry was applied: its changes, and the revision of the state after it."""

    def restored(self, revision: int) -> None:
        """The state was replaced by an image of this revision."""


def _or_fail(
    method: Callable[_P, None], failed: Callable[[BaseException], None]
) -> Callable[_P, None]:
    """Stop the replica if what a connection called raises.

    An event loop closes the connection whose callback raised and goes on. Here that would leave
    half a request behind, and replies to whom they do not belong.
    """

    @wraps(method)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:
            failed(error)
            raise

    return guarded


class Replica:
    """Owner of the state machine; implements ``raft.port.StateMachine``.

    Arguments:
        node: this replica's node id.
        endpoints: client address of each node, for redirects; follows the configuration.
        clock: monotonic time.
        wake: called when a step of the log is due because there is new work.
        consensus: makes the log of this state machine; it may restore and configure it meanwhile.
        machine: the state to begin with (default: empty).
        configured: told of each configuration as it is applied.
        differs: told that a comparison came out otherwise here: (index, own digest, the leader's).
        data_bytes: memory for the state, above which no new data is admitted; None: no end.
        disk: what may be written; None: there is room.
        meters: where it counts; others may count there, too.
        answered: called when nobody's command is on its way any more: replies may leave at once.
        failed: told of an exception out of a request, which ends this replica; it may be called
            again. (Exceptions out of a step are the driver's to see.)

    Attributes:
        situation: what it knows of itself and its cluster.
        log: the replicated log.
        listener, feed: who hears of leadership and rights, and of changes.
        stepping: whether a step is being taken: replies made meanwhile are sent by who takes it.
        alarms: sentences of what is wrong with what was applied.
        submit, start_check, set_limits: of :class:`Admission`.
        query, attach, keepalive: of :class:`WaitingReads`.
        closed, witness, component_alive: of :class:`Presence`.
    """

    def __init__(
        self,
        node: str,
        endpoints: dict[str, str],
        clock: Clock,
        wake: Callable[[], None],
        consensus: Callable[[StateMachine], ReplicatedLog],
        machine: CheckpointMachine | None = None,
        *,
        configured: Callable[[Configuration], None] = lambda configuration: None,
        differs: Callable[[int, str, str], None] = lambda index, own, leaders: None,
        data_bytes: int | None = None,
        disk: DiskRoom | None = None,
        meters: Meters | None = None,
        answered: Callable[[], None] = lambda: None,
        failed: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.node = node
        self.listener: Listener | None = None
        self.feed: Feed | None = None
        self.stepping = False
        self.alarms: list[str] = []
        self.applied_commands = 0
        self.meters = meters if meters is not None else Meters()
        self._tell_answered = answered
        self._tell_configured = configured
        self._clock = clock
        self._wake = wake
        self.situation = situation = Situation(
            node,
            endpoints,
            machine if machine is not None else CheckpointMachine(),
            lambda node: self.log.client_address(node),
        )
        situation.machine.undecodable = self._undecodable
        self._rights_revision = situation.machine.access.revision
        self._room = room = Room(data_bytes, disk)
        self._presence = presence = Presence(situation, clock, wake)
        self._flight = flight = Flight(situation, room, presence, self.meters, clock, wake)
        self._admission = admission = Admission(situation, flight, room, self._operates, wake)
        self._reads = reads = WaitingReads(situation, presence, self.meters, clock, wake)
        self._comparisons = Comparisons(situation, flight, clock, differs)
        self.digests = self._comparisons.digests
        self.submit = _or_fail(admission.submit, failed)
        self.start_check = _or_fail(admission.start_check, failed)
        self.set_limits = _or_fail(admission.set_limits, failed)
        self.query = _or_fail(reads.query, failed)
        self.attach = _or_fail(reads.attach, failed)
        self.keepalive = _or_fail(reads.keepalive, failed)
        self.closed = _or_fail(presence.closed, failed)
        self.witness = _or_fail(presence.witness, failed)
        self.component_alive = _or_fail(presence.component_alive, failed)
        self.transfer = _or_fail(self._transfer, failed)
        self.change = _or_fail(self._change, failed)
        self.refuse_not_leader = situation.refuse_not_leader
        self.log = consensus(self)

    @property
    def machine(self) -> CheckpointMachine:
        """The state."""
        return self.situation.machine

    @property
    def leader(self) -> str | None:
        """Node id of who leads, if that is known."""
        return self.situation.leader

    @property
    def leading(self) -> bool:
        """Whether this replica leads, and has applied all that came before."""
        return self.situation.leadership is not None

    @property
    def leader_endpoint(self) -> str | None:
        """Client address of the leader, if known."""
        return self.situation.leader_endpoint

    @property
    def pending_commands(self) -> int:
        """Commands that are not applied yet, of all connections."""
        return len(self._flight.queue) + self._flight.commands

    @property
    def pending_bytes(self) -> int:
        """Upper bound of the bytes they take in entries."""
        return self._flight.queue.bytes + self._flight.bytes

    @property
    def proposes(self) -> bool:
        """Whether commands have gathered."""
        return bool(self._flight.queue.bytes)

    @property
    def asks(self) -> bool:
        """Whether reads wait for a round to begin, or for time to be answered."""
        return bool(self._reads.waiting or self._reads.late)

    @property
    def data_bytes_max(self) -> int | None:
        """Memory for the state, above which no new data is admitted; None: no end."""
        return self._room.most

    @data_bytes_max.setter
    def data_bytes_max(self, most: int | None) -> None:
        self._room.most = most

    def monotonic(self) -> float:
        """The replica's monotonic clock, seconds."""
        return self._clock.monotonic()

    def digest(self, nonce: bytes) -> Digest | None:
        """Digest of a check, None while it is unknown or being computed."""
        return self.digests.get(nonce)

    def _transfer(self, node: str | None, done: Callable[[Transferred], None]) -> None:
        """Hand leadership over."""
        self.log.transfer(node, done)
        self._wake()

    def _change(self, change: MembersChange, done: Callable[[Changed], None]) -> None:
        """Change the members or the level's pin."""
        self.log.change(change, done)
        self._wake()

    def _operates(self, owner: Requester, operation: str) -> None:
        if self.listener is not None:
            self.listener.operates(owner, operation)

    # --- the step -------------------------------------------------------------------------------
    def flush(self) -> None:
        """Propose what gathered and start a round for the reads that wait. Before each step."""
        reads, leadership = self._reads, self.situation.leadership
        if reads.late:
            reads.answer_late()
        if leadership is None:
            return
        if self._flight.queue.bytes:
            self._flight.propose(leadership, self.log)
        if reads.waiting:
            reads.begin_round(self.log)

    def work(self) -> None:
        """Propose what the leader owes: due work, death of silent sessions. After each step."""
        leadership = self.situation.leadership
        if leadership is not None:
            for command in leadership.owed(self._clock.monotonic()):
                self._flight.enqueue(None, 0, command)
        self._comparisons.work()

    def deadline(self) -> float:
        """Monotonic time at which a step is due at the latest (inf: never)."""
        leadership, comparisons = self.situation.leadership, self._comparisons
        if leadership is None:
            return _NEVER
        now = self._clock.monotonic()
        due = min(leadership.deadline(now), self._flight.queue.deadline(now))
        return due if comparisons.under_way else min(due, comparisons.next_at)

    # --- StateMachine -----------------------------------------------------------------------------
    def apply(self, index: int, term: int, payload: bytes, context: Any) -> None:
        """Apply a committed entry and answer those who wait for it."""
        begun = self._clock.monotonic()
        machine = self.situation.machine
        if context is None:
            machine.apply(index, payload)
        else:
            self._flight.apply(index, payload, context)
            self.applied_commands += len(context.commands)
            if not self._flight.batches:
                self._tell_answered()
        if self.feed is not None:
            self.feed.applied(machine.changes, machine.revision)
        if machine.groups.told:
            self.meters.chronicle.assigned(machine, machine.groups.told.values())
            if self.situation.leadership is not None:
                self.situation.leadership.roles.tell(self._clock.monotonic())
        nonces = machine.check_nonces
        if nonces and nonces[-1] != self._comparisons.last:
            self._comparisons.checked(index)
        if machine.access.revision != self._rights_revision:
            self._rights_changed()
        if self._reads.blocked:
            self._reads.retry_blocked()
        now = self._clock.monotonic()
        self.meters.apply.observe(now - begun)
        if context is not None:
            self.meters.commit.observe(now - context.begun)

    def abandon(self, contexts: list[Any]) -> None:
        """Entries proposed here were cut off: nobody knows whether they will commit."""
        self._flight.abandon(contexts)

    def freeze(self) -> Iterator[bytes]:
        """Freeze the state for a snapshot."""
        return self.situation.machine.freeze()

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replace the state by an image.

        Raises:
            ValueError: it is no image; nothing was changed.
        """
        machine = self.situation.machine = CheckpointMachine.restore(pieces)
        machine.undecodable = self._undecodable
        self._comparisons.restored()
        if self.feed is not None:
            self.feed.restored(machine.revision)
        self._rights_changed()
        if self._reads.blocked:
            self._reads.retry_blocked()

    def configured(self, configuration: Configuration) -> None:
        """Another configuration holds from here on: its members, its level."""
        self.situation.configured(configuration)
        self._admission.level_changed()
        self._tell_configured(configuration)

    def role_changed(self, status: RaftStatus) -> None:
        """Leadership was won, lost, or another leader became known."""
        situation = self.situation
        leading = status.leader == status.node
        leader_before, situation.leader = situation.leader, status.leader
        former = situation.leadership
        if former is not None and (not leading or status.term != former.term):
            self._step_down(former)  # also if it was lost and won again before anybody told us
        if leading and situation.leadership is None:
            now = self._clock.monotonic()
            self.meters.elections_won += 1
            situation.leadership = Leadership(
                status.term,
                now,
                situation.machine,
                self.log.voters,
                self.log.wall_clocks,
                self._presence.witnesses,
                self.log.memories,
            )
            self._wake()
        self.meters.chronicle.led(self._clock.wall_ns(), status.term, situation.leader)
        if situation.leader != leader_before:
            self.meters.leader_changes += situation.leader is not None
            if self.listener is not None:
                self.listener.leader_changed(situation.leader)

    def _step_down(self, former: Leadership) -> None:
        self.situation.leadership = None
        self._comparisons.stepped_down()
        self._presence.stepped_down(former)
        self._flight.stepped_down()
        self._reads.stepped_down()

    def _rights_changed(self) -> None:
        """Sessions may have ended, and connections may be nobody's any more."""
        self._rights_revision = self.situation.machine.access.revision
        self._presence.rights_changed()
        if self.listener is not None:
            self.listener.rights_changed()

    def _undecodable(self, index: int, why: str) -> None:
        """A committed entry is no batch: somebody posed as a leader, or it is our bug."""
        log.error("undecodable", index=index, why=why)
        if len(self.alarms) < _ALARMS_MAX:
            self.alarms.append(
                f"entry {index} of the log could not be read, and nothing was done for it on any "
                "replica: look who can pose as a replica, and report it"
            )

"""PySyncObj, hardened: the SyncObj subclass and the seams around it. All private names live here.

What stays PySyncObj's: terms, votes, the roles, the log and its conflict rules, counting matches,
committing, applying. What we replace, and why (each is a way the library as shipped loses data,
stalls or trusts its peers):

* the journal (nothing is synced, compaction rewrites in place) by ``storage.Journal``;
* the transport (pickle, no terms in acks) by a queue that the node releases after the sync;
* sending of appends (unbounded, restarts from scratch, chunks with a wrong bound) by a windowed
  sender, with snapshots beside it;
* dumps (forked, unverified, swallowed errors) by the node's own snapshots;
* applying (a raising apply is repeated for ever) by one that stops the process;
* the election timer (no PreVote) by one that only the node may fire;
* membership (changed when it commits, by addresses) by :meth:`Engine.reconfigure`, which sets the
  library's sets of voters and learners to what ``raft.configuration`` says is in force.

The module never reads a clock of its own: :meth:`Engine.use_clock` points the library's clock to
the node's before each entry into the library.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import pysyncobj.syncobj as library
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from raftckpt.errors import ensure
from raftckpt.raft.configuration import CONFIGURATION, Configurations
from raftckpt.storage import DataDirectory, Journal, Storage

__all__ = [
    "CANDIDATE",
    "FOLLOWER",
    "LEADER",
    "Engine",
    "EngineHooks",
    "LogSeam",
    "Peer",
    "open_log",
]

# roles as PySyncObj numbers them (_RAFT_STATE)
FOLLOWER: Final = 0
CANDIDATE: Final = 1
LEADER: Final = 2
_NEVER: Final = float("inf")

_RELIED_ON: Final = (
    # private names of SyncObj that the room reads, writes or overrides
    "_SyncObj__applyLogEntries",
    "_SyncObj__connectedToAnyone",
    "_SyncObj__deleteEntriesFrom",
    "_SyncObj__doApplyCommand",
    "_SyncObj__generateRaftTimeout",
    "_SyncObj__loadDumpFile",
    "_SyncObj__onBecomeLeader",
    "_SyncObj__onMessageReceived",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__sendNextNodeIdx",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__setState",
    "_SyncObj__tryLogCompaction",
    "_checkCommandsToApply",
)
_RELIED_ON_FIELDS: Final = (
    "_SyncObj__connectedNodes",
    "_SyncObj__lastResponseTime",
    "_SyncObj__leaderCommitIndex",
    "_SyncObj__needLoadDumpFile",
    "_SyncObj__newAppendEntriesTime",
    "_SyncObj__noopIDx",
    "_SyncObj__otherNodes",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__raftCurrentTerm",
    "_SyncObj__raftElectionDeadline",
    "_SyncObj__raftLastApplied",
    "_SyncObj__raftLeader",
    "_SyncObj__raftLog",
    "_SyncObj__raftMatchIndex",
    "_SyncObj__raftNextIndex",
    "_SyncObj__raftState",
    "_SyncObj__readonlyNodes",
    "_SyncObj__serializer",
    "_SyncObj__transferInProgress",
    "_poller",
)


class Peer(Node):  # type: ignore[misc]
    """A data directory as PySyncObj sees it.

    Its hash is the same in every process (sets are iterated).
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, stable_hash=zlib.crc32(name.encode()))

    def __hash__(self) -> int:
        return self.stable_hash  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Peer) and self.id == other.id)


class LogSeam(Journal):
    """The journal under the names PySyncObj calls.

    The library's own durable commit index is not kept: it may lie beyond the journal's end. The
    node keeps one in the journal's order, as ``extra``.

    Attributes:
        configurations: what the log holds of them; follows every change of the log.
        reconfigured: called when the one in force may be another.
    """

    configurations: Configurations
    reconfigured: Callable[[], None]

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry."""
        self.append_entry(command, idx, term)
        if command[:1] == CONFIGURATION:
            self.configurations.appended(command, idx, term)
            self.reconfigured()

    def truncate_from(self, index: int) -> None:
        """Drop the entries from ``index`` on, and what they configured."""
        super().truncate_from(index)
        if index <= self.configurations.now.index:
            self.configurations.truncated(index)
            self.reconfigured()

    def install(self, entries: list[tuple[bytes, int, int]], placed: bytes) -> None:
        """Replace the whole log by what a snapshot with the configuration ``placed`` stands for."""
        self.reset_to(entries)
        self.configurations.replaced(placed, self)
        self.reconfigured()

    def deleteEntriesFrom(self, entry_from: int) -> None:
        """Truncate from list position ``entry_from``."""
        self.truncate_from(self[entry_from][1])

    def deleteEntriesTo(self, entry_to: int) -> None:
        """Never called: the node compacts."""
        raise AssertionError("compaction belongs to the node")

    def setRaftCommitIndex(self, index: int) -> None:
        """Forget it."""

    def getRaftCommitIndex(self) -> int:
        """Return the first index; the node raises it to the snapshot's."""
        return 1

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:
        """Log term and vote."""
        self.set_hard_state(term, voted_for, self.extra)

    def getCurrentTerm(self) -> int:
        """Return the logged term."""
        return self.term

    def getVotedForNodeId(self) -> str | None:
        """Return the logged vote."""
        return self.vote

    def onOneSecondTimer(self) -> None:
        """Do nothing."""

    def _destroy(self) -> None:
        pass


def open_log(directory: DataDirectory, **options: Any) -> Storage:
    """Open what a founded data directory holds, the journal as the library wants it.

    The options and errors are those of :meth:`raftckpt.storage.Storage.open`.
    """
    return Storage.open(directory, journal_class=LogSeam, **options)


class _QueueTransport(Transport):  # type: ignore[misc]
    """Hands what PySyncObj sends to the node, which releases it when it is safe to."""

    def __init__(self, engine: Engine, self_node: Node, others: Any) -> None:
        super().__init__(engine, self_node, others)
        self._hooks = engine.hooks

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        self._hooks.engine_sends(node.id, message)
        return True

    def deliver(self, node: Node, message: dict[str, Any]) -> None:
        self._onMessageReceived(node, message)

    def link(self, node: Node, up: bool) -> None:
        (self._onNodeConnected if up else self._onNodeDisconnected)(node)


class _NoPoller:
    """The node is driven by its owner; polling would cost a system call per tick."""

    def poll(self, timeout: float) -> None:
        pass


class _NoSerializer:
    """Stands where dumps were written by fork and pickle; nobody may come here."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"PySyncObj's serializer was asked for {name}")


class EngineHooks:
    """What the engine asks of the node that owns it."""

    def engine_sends(self, node: str, message: dict[str, Any]) -> None:
        """PySyncObj wants ``message`` to go to ``node``."""
        raise NotImplementedError

    def engine_rearms_election(self) -> None:
        """PySyncObj re-armed its election timer: re-arm the node's."""
        raise NotImplementedError

    def engine_sends_appends(self) -> None:
        """The leader is due to send appends to everybody."""
        raise NotImplementedError

    def engine_applies(self) -> None:
        """The commit index moved: apply up to it (or a slice)."""
        raise NotImplementedError

    def engine_changes_state(self, old: int, new: int) -> None:
        """Role changed between FOLLOWER, CANDIDATE and LEADER."""
        raise NotImplementedError


class Engine(SyncObj):  # type: ignore[misc]
    """SyncObj with our seams in place. Only the node in this room may own one."""

    _SyncObj__newAppendEntriesTime = 0.0  # SyncObj's constructor looks at every property

    def __init__(
        self,
        own: str,
        log: LogSeam,
        hooks: EngineHooks,
        monotonic: Callable[[], float],
        *,
        heartbeat_s: float,
        election_min_s: float,
        election_max_s: float,
        first_applied: int,
        committed: int,
    ) -> None:
        for name in _RELIED_ON:
            ensure(hasattr(SyncObj, name), f"PySyncObj has no {name}: this version is not 0.3.17")
        self.hooks = hooks
        self._monotonic = monotonic
        self.transport_seam: _QueueTransport
        self.own = own
        self.log = log
        self._peers: dict[str, Peer] = {}
        self._linked: set[str] = set()
        conf = SyncObjConf(
            autoTick=False,
            useFork=False,
            dynamicMembershipChange=False,
            commandsWaitLeader=False,
            appendEntriesUseBatch=True,
            password=None,
            journalFile=None,
            fullDumpFile=None,
            appendEntriesPeriod=heartbeat_s,
            raftMinTimeout=election_min_s,
            raftMaxTimeout=election_max_s,
            connectionTimeout=election_max_s + 1.0,
            leaderFallbackTimeout=election_max_s,
            onStateChanged=hooks.engine_changes_state,
        )
        former = library.createJournal
        library.createJournal = lambda _path: log
        try:
            self.use_clock()
            super().__init__(Peer(own), [], conf, transportClass=self._seam)
        finally:
            library.createJournal = former
        for name in _RELIED_ON_FIELDS:
            ensure(hasattr(self, name), f"PySyncObj has no {name}: this version is not 0.3.17")
        self._poller = _NoPoller()
        self._SyncObj__serializer = _NoSerializer()
        self._SyncObj__needLoadDumpFile = False  # the snapshot was verified and loaded by the node
        self._SyncObj__raftLastApplied = first_applied
        self._SyncObj__raftCommitIndex = max(first_applied, committed)
        self.reconfigure()

    def retime(self, heartbeat_s: float, election_min_s: float, election_max_s: float) -> None:
        """Take other timings from now on."""
        conf = self.conf
        conf.appendEntriesPeriod = heartbeat_s
        conf.raftMinTimeout, conf.raftMaxTimeout = election_min_s, election_max_s
        conf.connectionTimeout = election_max_s + 1.0
        conf.leaderFallbackTimeout = election_max_s

    def _seam(self, engine: Engine, self_node: Node, others: Any) -> _QueueTransport:
        self.transport_seam = _QueueTransport(engine, self_node, others)
        return self.transport_seam

    def use_clock(self) -> None:
        """Point the library's clock to the node's: its own is another clock than time.monotonic."""
        library.monotonicTime = self._monotonic

    # --- what PySyncObj calls, replaced ------------------------------------------------------

    def _SyncObj__generateRaftTimeout(self) -> float:
        self.hooks.engine_rearms_election()
        return _NEVER

    def _SyncObj__sendAppendEntries(self) -> None:
        self.hooks.engine_sends_appends()

    def _SyncObj__applyLogEntries(self) -> bool:
        self.hooks.engine_applies()
        return False

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        raise AssertionError("entries are applied by the node")

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        raise AssertionError("snapshots are installed by the node")

    def _SyncObj__tryLogCompaction(self) -> None:
        pass  # the node compacts

    def _SyncObj__deleteEntriesFrom(self, from_index: int) -> None:
        ensure(
            from_index > self.settled,
            f"asked to truncate the log from {from_index}, but {self.settled} is committed",
        )
        self.log.truncate_from(from_index)

    def _checkCommandsToApply(self) -> None:
        pass  # proposals go straight into the log of the leader; nothing is ever forwarded

    # --- plain names for what the node reads and writes ----------------------------------------

    @property
    def role(self) -> int:
        """FOLLOWER, CANDIDATE or LEADER."""
        return self._SyncObj__raftState  # type: ignore[no-any-return]

    @property
    def term(self) -> int:
        """Current term."""
        return self._SyncObj__raftCurrentTerm  # type: ignore[no-any-return]

    @property
    def leader(self) -> str | None:
        """Node believed to lead the current term."""
        node = self._SyncObj__raftLeader
        return None if node is None else node.id

    @property
    def commit(self) -> int:
        """Commit index; may lag behind the applied index after an install."""
        return self._SyncObj__raftCommitIndex

    @property
    def applied(self) -> int:
        """Index of the last applied entry."""
        return self._SyncObj__raftLastApplied

    @applied.setter
    def applied(self, index: int) -> None:
        self._SyncObj__raftLastApplied = index

    @property
    def settled(self) -> int:
        """Highest index that is certainly committed: never truncate at or below it."""
        commit: int = self._SyncObj__raftCommitIndex
        applied: int = self._SyncObj__raftLastApplied
        return commit if commit > applied else applied

    @property
    def noop_index(self) -> int | None:
        """Index of the no-op of our leadership."""
        return self._SyncObj__noopIDx  # type: ignore[no-any-return]

    # --- members -----------------------------------------------------------------------------

    def peer(self, directory: str) -> Peer:
        """The library's object for ``directory``, member or not."""
        found = self._peers.get(directory)
        if found is None:
            found = self._peers[directory] = Peer(directory)
        return found

    @property
    def others(self) -> list[str]:
        """Directories of all other members, voters and learners, sorted."""
        return sorted(self.log.configurations.now.directories - {self.own})

    @property
    def votes(self) -> bool:
        """Whether this directory is a voter."""
        return self.own in self.log.configurations.now.voters

    def reconfigure(self) -> None:
        """Follow the configuration in force: who counts, and who is only sent entries.

        The library counts itself always: what is no voter never campaigns and never leads.
        """
        now = self.log.configurations.now
        voters = {self.peer(name) for name in sorted(now.voters - {self.own})}
        learners = {self.peer(name) for name in sorted(now.directories - now.voters - {self.own})}
        known = self._SyncObj__raftMatchIndex
        following = self.log[-1][1] + 1
        for peer in sorted(voters | learners, key=str):
            if peer not in known:
                known[peer] = 0
                self._SyncObj__raftNextIndex[peer] = following
                # as at the beginning of a leadership: it has one time-out to answer
                self._SyncObj__lastResponseTime[peer] = self._monotonic()
        for peer in [p for p in known if p not in voters and p not in learners]:
            del known[peer]
            self._SyncObj__raftNextIndex.pop(peer, None)
            self._SyncObj__lastResponseTime.pop(peer, None)
        for mine, members in (
            (self._SyncObj__otherNodes, voters),
            (self._SyncObj__readonlyNodes, learners),
        ):
            mine.clear()
            mine.update(members)

    def disown(self, directory: str) -> None:
        """What ``directory`` said as a leader, or answered, does not count."""
        if self.leader == directory:
            self._SyncObj__raftLeader = None
        peer = self.peer(directory)
        if peer in self._SyncObj__raftMatchIndex:
            self._SyncObj__raftMatchIndex[peer] = 0

    def next_index(self, node: str) -> int:
        """Next entry to send to ``node``."""
        return self._SyncObj__raftNextIndex[self._peers[node]]  # type: ignore[no-any-return]

    def set_next_index(self, node: str, index: int) -> None:
        """Go on sending to ``node`` from ``index``."""
        self._SyncObj__raftNextIndex[self._peers[node]] = index

    def match_index(self, node: str) -> int:
        """Highest entry known to be on the disk of ``node``; 0 if it is no member."""
        return self._SyncObj__raftMatchIndex.get(self._peers.get(node), 0)  # type: ignore[no-any-return]

    def holds(self, node: str, following: int) -> int:
        """Do what :meth:`deliver` does with an answer, of our term, that ``node`` holds what lies
        below ``following``; but what was sent beyond it is not sent again.

        It comes twice with every write, so it does nothing else; a test compares the two.

        Returns:
            Next entry to send to it.
        """
        peer = self._peers[node]
        match, nexts = self._SyncObj__raftMatchIndex, self._SyncObj__raftNextIndex
        if match[peer] < following - 1:
            match[peer] = following - 1
        if nexts[peer] < following:
            nexts[peer] = following
        return nexts[peer]  # type: ignore[no-any-return]

    def heard_from(self, node: str, now: float) -> None:
        """``node`` answered in our term: CheckQuorum counts it."""
        self._SyncObj__lastResponseTime[self._peers[node]] = now

    def last_heard(self, node: str) -> float | None:
        """When ``node`` last answered in our term."""
        return self._SyncObj__lastResponseTime.get(self.peer(node))  # type: ignore[no-any-return]

    @property
    def append_due(self) -> float:
        """When the leader must send its next heartbeat."""
        return self._SyncObj__newAppendEntriesTime

    @append_due.setter
    def append_due(self, at: float) -> None:
        self._SyncObj__newAppendEntriesTime = at

    @property
    def silence_s(self) -> float:
        """How long a leader goes on without answers from a majority."""
        return self.conf.leaderFallbackTimeout  # type: ignore[no-any-return]

    @silence_s.setter
    def silence_s(self, seconds: float) -> None:
        self.conf.leaderFallbackTimeout = seconds

    def is_connected(self, node: str) -> bool:
        """Whether a connection with ``node`` is up."""
        return node in self._linked

    def link(self, node: str, up: bool) -> None:
        """A connection with ``node`` came or went."""
        (self._linked.add if up else self._linked.discard)(node)
        self.transport_seam.link(self.peer(node), up)

    @property
    def linked(self) -> list[str]:
        """Directories with a connection, sorted."""
        return sorted(self._linked)

    def campaign(self) -> None:
        """Let PySyncObj start an election in its next tick."""
        self._SyncObj__raftElectionDeadline = 0.0

    @property
    def campaigns(self) -> bool:
        """Whether the next tick is to start an election: all that a follower's tick is for."""
        return self._SyncObj__raftElectionDeadline != _NEVER

    def call_off(self) -> None:
        """Forget an election that was asked for and could not start yet."""
        self._SyncObj__raftElectionDeadline = _NEVER
        self._SyncObj__transferInProgress = False

    def deliver(self, node: str, message: dict[str, Any]) -> None:
        """Hand a (filtered) message to PySyncObj."""
        self.transport_seam.deliver(self.peer(node), message)

    def follows(self, node: str) -> bool:
        """Whether ``node`` is the leader that is followed here, and nobody else is to take over."""
        leader = self._SyncObj__raftLeader
        return (
            leader is not None
            and leader.id == node
            and self._SyncObj__raftState == FOLLOWER
            and not self._SyncObj__transferInProgress
        )

    def extend(self, entries: Iterable[tuple[bytes, int, int]], commit: int) -> None:
        """Do what :meth:`deliver` does with an append of who is followed, of our term, at our end.

        It comes with every write, so it does nothing else; a test compares the two. The answer is
        the caller's.
        """
        self.hooks.engine_rearms_election()
        self._SyncObj__raftElectionDeadline = _NEVER
        self._SyncObj__leaderCommitIndex = commit
        log = self.log
        for payload, index, term in entries:
            log.add(payload, index, term)
        last = log[-1][1]
        committed = min(commit, last)
        if self._SyncObj__raftCommitIndex > last:
            self._SyncObj__raftCommitIndex = last
        if committed > self._SyncObj__raftCommitIndex:
            self._SyncObj__raftCommitIndex = committed

    def adopt_term(self, term: int) -> None:
        """Step down to ``term`` without granting anything: a vote request nobody can win."""
        self.transport_seam.deliver(
            self.peer(""),
            {"type": "request_vote", "term": term, "last_log_term": -1, "last_log_index": -1},
        )

    def installed(self, index: int) -> None:
        """A snapshot up to ``index`` replaced state and log."""
        self._SyncObj__raftLastApplied = index
        self._SyncObj__raftCommitIndex = max(self._SyncObj__raftCommitIndex, index)

"""What the rest of the program believes about consensus: the ReplicatedLog port.

The room behind the port knows PySyncObj; nobody else does. Everything is single-threaded and
driven from outside: the owner feeds messages and link events, takes a step (``take``, ``begin``,
``finish``) when it was woken or the deadline has come, and sends what the step released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from raftckpt.raft.configuration import Configuration

__all__ = [
    "AddMember",
    "Change",
    "Changed",
    "Clock",
    "PeerInfo",
    "PeerStatus",
    "RaftStatus",
    "Removal",
    "RemoveMember",
    "ReplicatedLog",
    "Role",
    "SetDrain",
    "SetPin",
    "StateMachine",
    "Transferred",
]


class Role(Enum):
    """Raft role of a replica."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"
    LEARNER = "learner"
    """Gets entries and counts for nothing: added or re-admitted, and not promoted yet."""


class Clock(Protocol):
    """Two clocks that must never be mixed up."""

    def monotonic(self) -> float:
        """Seconds that only go forward; for time-outs and liveness."""

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch; may jump. Only ever one voice among the voters' clocks."""


class PeerInfo(NamedTuple):
    """What a replica says of itself when a link begins."""

    directory: str
    node: str
    joins: str = ""
    """``storage.REJOINS`` or a token: it is no member yet and wants to be let in."""
    peer: str = ""
    client: str = ""
    lowest: int = 1
    highest: int = 1
    """The levels that it can."""
    incarnation: int = 0
    run: str = ""
    term: int = 0
    last_index: int = 0
    """Its term and the end of its log when the link began."""
    memory: int = 0
    """Bytes that it has for data; 0: it does not say."""


class PeerStatus(NamedTuple):
    """A leader's view of another member (a follower knows only ``connected``, and its leader)."""

    node: str
    directory: str
    voter: bool
    connected: bool
    match_index: int
    next_index: int
    silent_s: float
    """Seconds since it last answered in this term, or since this leader was heard (inf: never)."""
    levels: tuple[int, int] | None
    """The levels it can, while it has a link."""


class RaftStatus(NamedTuple):
    """State of a replica's consensus."""

    node: str
    role: Role
    term: int
    leader: str | None
    """Known leader; this replica itself when it leads *and its no-op is applied* (it can serve)."""
    commit_index: int
    applied_index: int
    first_index: int
    last_index: int
    snapshot_index: int
    peers: list[PeerStatus]
    configuration: Configuration
    """In force."""
    configuration_index: int
    alarms: list[str]
    """Sentences for people; empty: all is well."""
    waiting: str
    """Why this replica is no member yet, or what holds a change of members up ("": nothing)."""


class AddMember(NamedTuple):
    """Keep a place for a new member; whoever has the token takes it."""

    node: str
    peer: str
    client: str
    token: str
    """SHA-256 of the token, hexadecimal."""
    promote: bool = True
    replaces: str = ""
    """Node id of the member that leaves for it."""


class RemoveMember(NamedTuple):
    """Take a member out."""

    node: str


class SetPin(NamedTuple):
    """Hold the level where it is, or let it rise again."""

    pinned: bool


class SetDrain(NamedTuple):
    """Have a member lead only while nobody else can, or as any other again."""

    node: str
    drained: bool


Change = AddMember | RemoveMember | SetPin | SetDrain
"""A change of the configuration that an operator asks for; asking again is harmless."""


class Changed(NamedTuple):
    """Outcome of a change."""

    done: bool
    """The configuration that was asked for is committed."""
    definite: bool = True
    """If not done: it will not happen either."""
    again: bool = False
    """It may be asked again soon, of whoever leads then."""
    why: str = ""


class Removal(Exception):
    """The cluster took this replica out; the process is to stop, with success."""


class Transferred(Enum):
    """Outcome of a leadership transfer."""

    DONE = "done"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"


class StateMachine(Protocol):
    """What the replica gives to consensus. Nothing here may raise; a raise stops the process."""

    def apply(self, index: int, term: int, payload: bytes, context: Any) -> None:
        """Apply a committed entry. ``context`` is what was proposed with it here, else None."""

    def abandon(self, contexts: list[Any]) -> None:
        """Entries proposed here were cut off by a leader change: their outcome is unknown."""

    def freeze(self) -> Iterator[bytes]:
        """Freeze the state as of the last applied entry, cheaply; the iterator encodes it in small
        pieces, later, while the state goes on changing.
        """

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Replace the state by an image that :meth:`freeze` made (already verified)."""

    def configured(self, configuration: Configuration) -> None:
        """What is applied from here on is of this configuration (its level, its members)."""

    def role_changed(self, status: RaftStatus) -> None:
        """Leadership was won (``leader == node``), lost, or another leader became known."""


class ReplicatedLog(Protocol):
    """A Raft node."""

    def propose(self, payload: bytes, context: Any = None) -> bool:
        """Queue an entry for the next step.

        Returns:
            False if this replica does not lead, is not ready or hands leadership over: nothing
            happened (definite). True: ``apply`` or ``abandon`` will be called with ``context``.
        """

    def read_index(self, done: Callable[[bool], None]) -> None:
        """Call ``done(True)`` once a read of the applied state is linearizable (ReadIndex), or
        ``done(False)`` if leadership is not confirmed (definite, retry elsewhere).
        """

    def transfer(
        self, node: str | None, done: Callable[[Transferred], None], timeout_s: float = 2.0
    ) -> None:
        """Hand leadership to ``node`` (None: the most caught-up follower)."""

    def change(self, change: Change, done: Callable[[Changed], None]) -> None:
        """Change the configuration; ``done`` is called once, when it is committed or refused."""

    def receive(self, directory: str, body: bytes) -> None:
        """Take a frame body that arrived from ``directory`` on its current connection."""

    def connected(self, peer: PeerInfo) -> None:
        """A connection with a directory is up (a former one with it is gone)."""

    def disconnected(self, directory: str, broken: bool) -> None:
        """The connection with it is gone; ``broken``: closed or reset by the other side."""

    def take(self) -> None:
        """Begin a step: deliver what arrived, apply what it commits; then is when to propose."""

    @property
    def at_rest(self) -> bool:
        """Whether, after :meth:`take`, the rest of a step would only look at what is due."""

    def begin(self) -> None:
        """First half: tick, and let appends leave."""

    def finish(self) -> None:
        """Second half: persist, hand released frames to the sender, apply as a follower."""

    def wait_for_disk(self, waited_s: float) -> None:
        """Called while a sync of :meth:`finish` takes long; nothing else may be called then."""

    def deadline(self) -> float:
        """Time (the clock of the constructor) at which a step must be taken at the latest."""

    def retime(self, heartbeat_s: float, election_min_s: float, election_max_s: float) -> None:
        """Take other timings (seconds) from now on; nothing that is safe depends on them."""

    def objection(self, peer: PeerInfo) -> str | None:
        """Why there must be no connection with a directory, by what it told in a former run."""

    @property
    def end(self) -> tuple[int, int]:
        """(term, index of the last entry), as they are on disk or soon will be."""

    def status(self) -> RaftStatus:
        """Describe the current state."""

    def voters(self) -> int:
        """How many vote, by the configuration in force."""

    def client_address(self, node: str) -> str | None:
        """Where clients reach ``node``."""

    def wall_clocks(self) -> Sequence[int]:
        """Estimated wall clocks of the voters heard from lately, this one's first (ns)."""

    def memories(self) -> Sequence[int]:
        """Bytes that each voter has for data, this one's first; none unless all say it now."""

    def compact(self) -> bool:
        """Start a snapshot now (it proceeds in steps). False if one is already on its way."""

    def close(self) -> None:
        """Sync and close the files."""

"""Who is a member: the configuration, which is an entry of the log and nothing beside it.

A member *is* its data directory: whatever is counted is counted by directory id, and a node id is
a name for people. The founding record is entry 1 and the first configuration; each later one is an
entry of its own that holds the whole of it, so that any leader can go on with what was begun.

In force is the last configuration in the log, committed or not, else the one of the snapshot: it
is computed when the log is opened, appended to, truncated or replaced, and kept in no other place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from raftckpt.errors import ensure
from raftckpt.protocol.check import decode_plain

__all__ = [
    "CONFIGURATION",
    "NO_OP",
    "REGULAR",
    "ClusterMember",
    "Configuration",
    "Configurations",
    "InForce",
    "decode_configuration",
    "decode_placed",
    "encode_configuration",
    "step_of",
]

REGULAR: Final = b"\x00"
NO_OP: Final = b"\x01"
CONFIGURATION: Final = b"\x02"
"""First byte of an entry's payload."""

MEMBERS_MAX: Final = 32  # seven voters, those that replace them, and learners; bounds what is read
_TEXT_MAX: Final = 1024  # of a name, an address, a token's digest
_FORMAT: Final = 1  # of the record


class ClusterMember(NamedTuple):
    """A member, or a place kept for one (``directory`` is "")."""

    node: str
    directory: str
    peer: str
    """host:port for replicas."""
    client: str
    """host:port for clients."""
    voter: bool = True
    promote: bool = False
    """A learner that becomes a voter by itself once it has kept up."""
    replaces: str = ""
    """Directory of the member that leaves when this one has come."""
    token: str = ""
    """SHA-256 (hexadecimal) of the token that opens the place."""
    drained: bool = False
    """It leads only while nobody else can. Not written where it is False: most are never."""


class Configuration(NamedTuple):
    """Who is a member and what members may propose."""

    founding: str
    cluster: str
    parent: str
    """Founding id of the cluster that this one was recovered from, or whose snapshot it was made of
    ("": none)."""
    base: int
    """Index of the configuration entry that it follows (0: it is the founding record)."""
    level: int
    pinned: bool
    members: tuple[ClusterMember, ...]
    """Sorted by node id."""

    def member(self, directory: str) -> ClusterMember | None:
        """The member that ``directory`` is."""
        return next((m for m in self.members if m.directory == directory and directory), None)

    def named(self, node: str) -> ClusterMember | None:
        """The member with the node id ``node``."""
        return next((m for m in self.members if m.node == node), None)

    @property
    def voters(self) -> frozenset[str]:
        """Directories that vote."""
        return frozenset(m.directory for m in self.members if m.voter)

    @property
    def drained(self) -> frozenset[str]:
        """Directories of those that are to lead only while nobody else can."""
        return frozenset(m.directory for m in self.members if m.drained)

    @property
    def directories(self) -> frozenset[str]:
        """Directories of all members."""
        return frozenset(m.directory for m in self.members if m.directory)

    def with_members(self, members: Iterable[ClusterMember]) -> Configuration:
        """The same with other members."""
        return self._replace(members=tuple(sorted(members)))

    def replaced(self, former: ClusterMember, *latter: ClusterMember) -> Configuration:
        """The same with ``latter`` in place of ``former``."""
        return self.with_members([*(m for m in self.members if m != former), *latter])


def encode_configuration(configuration: Configuration) -> bytes:
    """Encode it: the founding record's bytes are the same everywhere."""
    rows = [member if member.drained else member[:-1] for member in configuration.members]
    return msgpack.packb(  # type: ignore[no-any-return]
        [_FORMAT, *configuration[:-1], rows], use_bin_type=True
    )


def decode_configuration(data: bytes) -> Configuration:
    """Decode strictly.

    Raises:
        ValueError: it is no configuration, or one that contradicts itself.
    """
    fields = decode_plain(data)
    if type(fields) is not list or len(fields) < 2 or fields[0] != _FORMAT:
        raise ValueError("it is no configuration of a format that this version reads")
    types = (int, str, str, str, int, int, bool, list)
    if tuple(map(type, fields)) != types or not 0 < len(fields[7]) <= MEMBERS_MAX:
        raise ValueError("a configuration is malformed")
    configuration = Configuration._make((*fields[1:7], tuple(map(_member, fields[7]))))
    _check(configuration)
    return configuration


def _member(raw: Any) -> ClusterMember:
    types: tuple[type, ...] = (str, str, str, str, bool, bool, str, str)
    if type(raw) is list and len(raw) == len(types) + 1 and raw[-1] is True:
        types = (*types, bool)
    if type(raw) is not list or tuple(map(type, raw)) != types:
        raise ValueError("a member is malformed")
    if any(type(field) is str and len(field) > _TEXT_MAX for field in raw):
        raise ValueError("a name or address of a member is too long")
    return ClusterMember(*raw)


def _check(configuration: Configuration) -> None:
    members = configuration.members
    nodes = [m.node for m in members]
    directories = [m.directory for m in members if m.directory]
    if list(members) != sorted(members) or len(set(nodes)) < len(nodes) or "" in nodes:
        raise ValueError("the members of a configuration are not in order, or share a name")
    if len(set(directories)) < len(directories):
        raise ValueError("two members of a configuration share a data directory")
    if any(m.voter and not m.directory for m in members) or not configuration.voters:
        raise ValueError("a configuration has voters, and each has a data directory")
    if configuration.level < 1 or configuration.base < 0 or not configuration.founding:
        raise ValueError("a configuration names its founding, base and level")


def step_of(former: Configuration, latter: Configuration) -> int:
    """How many votes differ between two configurations (a step may change one)."""
    return len(former.voters ^ latter.voters)


class InForce:
    """A configuration at its place in the log, with what is asked of it all the time."""

    __slots__ = ("configuration", "directories", "drained", "index", "majority", "term", "voters")

    def __init__(self, index: int, term: int, configuration: Configuration) -> None:
        self.index = index
        self.term = term
        self.configuration = configuration
        self.voters = configuration.voters
        self.directories = configuration.directories
        self.drained = configuration.drained
        self.majority = len(self.voters) // 2 + 1

    @property
    def place(self) -> tuple[int, int]:
        """(term, index): of two the higher one is the newer."""
        return self.term, self.index


def decode_placed(placed: bytes) -> InForce:
    """Decode what :meth:`Configurations.placed` made for a snapshot.

    Raises:
        ValueError: it is no configuration at its place.
    """
    fields = decode_plain(placed)
    if type(fields) is not list or tuple(map(type, fields)) != (int, int, bytes):
        raise ValueError("it is no configuration at its place in the log")
    index, term, data = fields
    return InForce(index, term, decode_configuration(data))


class Configurations:
    """The configurations that a log and its snapshot hold. ``now`` is the one in force."""

    def __init__(self, placed: bytes, log: Sequence[tuple[bytes, int, int]]) -> None:
        """Arguments:
        placed: what :meth:`placed` made for the snapshot below the log; empty without one.
        log: the live entries.

        Raises:
            ValueError: what should be a configuration is none.
        """
        self._all: list[InForce] = []
        self.now: InForce
        self.replaced(placed, log)

    def replaced(self, placed: bytes, log: Sequence[tuple[bytes, int, int]]) -> None:
        """The whole log was replaced, as by an installed snapshot."""
        self._all.clear()
        if placed:
            self._all.append(decode_placed(placed))
        for payload, index, term in log:
            if payload[:1] == CONFIGURATION and not (self._all and index <= self._all[-1].index):
                self.appended(payload, index, term)
        ensure(self._all, "a log without a configuration")
        self.now = self._all[-1]

    def appended(self, payload: bytes, index: int, term: int) -> None:
        """An entry of a configuration was appended: it is in force."""
        self.now = InForce(index, term, decode_configuration(payload[1:]))
        self._all.append(self.now)

    def truncated(self, index: int) -> None:
        """The entries from ``index`` on are gone."""
        while len(self._all) > 1 and self._all[-1].index >= index:
            self._all.pop()
        ensure(self._all[-1].index < index, "the founding record was truncated")
        self.now = self._all[-1]

    def compacted(self, index: int) -> None:
        """Nobody asks for what was in force before entry ``index`` any more."""
        while len(self._all) > 1 and self._all[1].index <= index:
            del self._all[0]

    def at(self, index: int) -> InForce:
        """What entry ``index`` and those before it hold."""
        for placed in reversed(self._all):
            if placed.index <= index:
                return placed
        return self._all[0]

    def may_hold(self, directory: str, settled: int) -> bool:
        """Whether a configuration that may turn out to be in force has ``directory``.

        Arguments:
            directory: of whom.
            settled: what is known to be committed: each later configuration may be cut off.
        """
        for placed in reversed(self._all):
            if directory in placed.directories:
                return True
            if placed.index <= settled:
                return False
        return False

    def placed(self, index: int) -> bytes:
        """What a snapshot of entry ``index`` carries."""
        found = self.at(index)
        ensure(found.index <= index, "the configuration of a snapshot was forgotten")
        return msgpack.packb(  # type: ignore[no-any-return]
            [found.index, found.term, encode_configuration(found.configuration)],
            use_bin_type=True,
        )

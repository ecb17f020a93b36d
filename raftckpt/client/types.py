"""Records users meet: attributes, statuses, images. Durations and times are seconds (float)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Literal, TypeAlias

from raftckpt import limits
from raftckpt.errors import InvalidParam, TryAgain
from raftckpt.model import types as model
from raftckpt.protocol import contract

__all__ = [
    "Attributes",
    "BusyCheckpoint",
    "CheckReport",
    "CheckpointStatus",
    "ClusterLimits",
    "ClusterStatus",
    "Consistency",
    "GroupGlance",
    "Image",
    "Lately",
    "LimitStatus",
    "MemberRecord",
    "Nanoseconds",
    "Opener",
    "ReplicaStatus",
    "SavedSnapshot",
    "SectionId",
    "SectionStatus",
    "TlsOptions",
    "Update",
    "duration_ns",
    "seconds_or_none",
    "time_ns",
]

Update: TypeAlias = Literal["all", "active", "weak"]
Consistency: TypeAlias = Literal["linearizable", "local"]
SectionId: TypeAlias = bytes | str

_UPDATE_FLAGS: Final[dict[str, int]] = {
    "all": int(model.CreationFlags.WR_ALL_REPLICAS),
    "active": int(model.CreationFlags.WR_ACTIVE_REPLICA),
    "weak": int(model.CreationFlags.WR_ACTIVE_REPLICA_WEAK),
}
_UPDATES: Final[dict[int, Update]] = {1: "all", 2: "active", 4: "weak"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  (3.11 spelling is longer)


class Nanoseconds(int):
    """An exact time or duration where seconds are expected: a float is too coarse for times."""

    __slots__ = ()


def duration_ns(seconds: float | None, what: str) -> int:
    """Convert a duration; None (or inf) is for ever.

    Raises:
        InvalidParam: it is negative or no number.
    """
    if seconds is None:
        return contract.SA_TIME_MAX
    if type(seconds) is Nanoseconds and 0 <= seconds <= contract.SA_TIME_MAX:
        return int(seconds)
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds >= 0:
        raise InvalidParam(f"{what} is a number of seconds >= 0 or None, not {seconds!r}")
    nanoseconds = seconds * limits.SECOND_NS
    return contract.SA_TIME_MAX if nanoseconds >= contract.SA_TIME_MAX else round(nanoseconds)


def time_ns(when: float | datetime | None, what: str) -> int:
    """Convert an absolute time (aware datetime or seconds since the epoch); None is never.

    Raises:
        InvalidParam: it is negative, naive or no time at all.
    """
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise InvalidParam(f"{what} needs a datetime with a time zone, not {when!r}")
        nanoseconds = (when - _EPOCH) // timedelta(microseconds=1) * 1000  # exact
        if nanoseconds < 0:
            raise InvalidParam(f"{what} lies before 1970")
        return min(nanoseconds, contract.SA_TIME_MAX)
    return duration_ns(when, what)


def seconds_or_none(nanoseconds: int | None) -> float | None:
    """Convert a time or duration; SA_TIME_MAX is None."""
    if nanoseconds is None or nanoseconds >= contract.SA_TIME_MAX:
        return None
    return nanoseconds / limits.SECOND_NS


@dataclass(frozen=True, slots=True)
class Attributes:
    """Creation attributes of a checkpoint.

    Attributes:
        update: "all": a write returns when it is durable on a majority; "active" or "weak": when
            the leader accepted it, ``synchronize()`` waits for the rest.
        collocated: the writer makes itself active by ``active_replica_set()``.
        size: bytes of all sections; None: max_sections x max_section_size. Told, as by the
            standard's checkpointSize, and held if ``quota`` says so.
        retention: seconds the checkpoint outlives its last opener; None: for ever.
        max_sections: most sections.
        max_section_size: most bytes of a section.
        max_section_id_size: most bytes of a section id.
        quota: what would make the sections larger than ``size`` is refused (NoSpace).
    """

    update: Update = "all"
    collocated: bool = False
    size: int | None = None
    retention: float | None = None
    max_sections: int = contract.DEFAULT_MAX_SECTIONS
    max_section_size: int = contract.DEFAULT_MAX_SECTION_SIZE
    max_section_id_size: int = contract.DEFAULT_MAX_SECTION_ID_SIZE
    quota: bool = False

    def to_wire(self) -> list[int]:
        """Return the attributes as they travel.

        Raises:
            InvalidParam: a value has the wrong type or cannot be represented.
        """
        flags = _UPDATE_FLAGS.get(self.update)
        if flags is None:
            raise InvalidParam(f'update is "all", "active" or "weak", not {self.update!r}')
        if self.collocated:
            flags |= model.CreationFlags.COLLOCATED
        if self.quota:
            flags |= model.CreationFlags.QUOTA
        numbers = (self.max_sections, self.max_section_size, self.max_section_id_size)
        size = self.max_sections * self.max_section_size if self.size is None else self.size
        for name, value in zip(
            ("max_sections", "max_section_size", "max_section_id_size", "size"),
            (*numbers, size),
            strict=True,
        ):
            if type(value) is not int or not 0 <= value <= contract.SA_TIME_MAX:
                raise InvalidParam(f"{name} is a number of bytes or sections, not {value!r}")
        return [int(flags), size, duration_ns(self.retention, "retention"), *numbers]

    @classmethod
    def from_wire(cls, fields: list[int]) -> Attributes:
        """Make the record from what travelled."""
        flags, size, retention_ns, sections, section_size, id_size = fields
        return cls(
            _UPDATES.get(flags & 7, "all"),
            bool(flags & model.CreationFlags.COLLOCATED),
            size,
            seconds_or_none(retention_ns),
            sections,
            section_size,
            id_size,
            bool(flags & model.CreationFlags.QUOTA),
        )


@dataclass(frozen=True, slots=True)
class Opener:
    """A session that has a checkpoint open; how many of its handles may read and write."""

    session: int
    name: str
    node: str
    readers: int
    writers: int


@dataclass(frozen=True, slots=True)
class CheckpointStatus:
    """Description of a checkpoint.

    Attributes:
        uid: number of this generation of the name; never used again.
        created: seconds since the epoch.
        revision: revision of its last change.
        active: (session, node) that made itself active, if any.
        epoch: fencing epoch.
        unlinked: the name is gone, open handles go on working.
        retention_until: when it will be dropped because nobody has it open; None while open.
        corrupted: sections in the state CORRUPTED (fault injection only).
    """

    name: str
    uid: int
    attributes: Attributes
    sections: int
    memory_used: int
    created: float
    revision: int
    openers: tuple[Opener, ...]
    active: tuple[int, str] | None
    epoch: int
    exclusive: bool
    unlinked: bool
    retention_until: float | None
    corrupted: int = 0

    @classmethod
    def from_wire(cls, fields: list[Any]) -> CheckpointStatus:
        """Make the record from a checkpoint descriptor that travelled."""
        found = model.CheckpointDescriptor._make(fields)
        return cls(
            name=found.name,
            uid=found.uid,
            attributes=Attributes.from_wire(list(found.attributes)),
            sections=found.sections,
            memory_used=found.memory_used,
            created=found.created_ns / limits.SECOND_NS,
            revision=found.revision,
            openers=tuple(Opener(*opener) for opener in found.openers),
            active=None if found.active is None else (found.active[0], found.active[1]),
            epoch=found.epoch,
            exclusive=found.exclusive,
            unlinked=found.unlinked,
            retention_until=seconds_or_none(found.retention_until_ns),
            corrupted=found.corrupted,
        )


@dataclass(frozen=True, slots=True)
class SectionStatus:
    """Description of a section.

    Attributes:
        expires: seconds since the epoch, None: never.
        state: "valid" or "corrupted".
        updated: seconds since the epoch.
        revision: revision of its last change.
    """

    id: bytes
    expires: float | None
    size: int
    state: str
    updated: float
    revision: int

    @classmethod
    def from_wire(cls, fields: list[Any]) -> SectionStatus:
        """Make the record from a section descriptor that travelled."""
        found = model.SectionDescriptor._make(fields)
        return cls(
            id=found.section_id,
            expires=seconds_or_none(found.expiration_ns),
            size=found.size,
            state="valid" if found.state == model.SectionState.VALID else "corrupted",
            updated=found.updated_ns / limits.SECOND_NS,
            revision=found.revision,
        )


class Image(dict[bytes, bytes]):
    """All sections of a checkpoint in one consistent state.

    Attributes:
        revision: of the state that was read.
    """

    __slots__ = ("revision",)

    def __init__(self, sections: Any = (), *, revision: int = 0) -> None:
        super().__init__(sections)
        self.revision = revision


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """A limit of the state, equal on all replicas.

    Attributes:
        value: in force; memory 0: none.
        used: what of it is taken; None: it is not of that kind.
        least: what may be set at least.
        most: what may be set at most.
        unit: "bytes", "percent" (of the memory), or "" for a number of things.
    """

    value: int
    used: int | None
    least: int
    most: int
    unit: str


@dataclass(frozen=True, slots=True)
class ClusterLimits:
    """The limits of the state by name: memory, high, low, staged, sessions, checkpoints, groups.

    Attributes:
        full: ``high`` per cent of the memory were used, and not less than ``low`` per cent since.
    """

    limits: Mapping[str, LimitStatus]
    full: bool

    @classmethod
    def from_wire(cls, value: Any) -> ClusterLimits:
        """Make the record from a reply to LIMITS."""
        _, rows, full = value
        return cls({name: LimitStatus(*row) for name, *row in rows}, full)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What one replica says about itself; only ``endpoint`` and ``problem`` if unreachable."""

    node: str
    endpoint: str
    reachable: bool
    role: str | None = None
    term: int | None = None
    leader: str | None = None
    commit: int | None = None
    applied: int | None = None
    revision: int | None = None
    pid: int | None = None
    version: str | None = None
    durability: str | None = None
    problem: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Everything the replica said."""
    cause: str = ""
    """Why it could not be reached, in a word: refused, silent, unreachable, resolver, tls,
    certificate, authority, name (its certificate is for another one), closed, protocol."""

    @classmethod
    def from_wire(cls, endpoint: str, said: Mapping[str, Any]) -> ReplicaStatus:
        """Make the record from a reply to REPLICA_STATUS."""
        told: dict[str, Any] = {name: said.get(name) for name in _TOLD}
        return cls(said["node"], endpoint, True, detail=dict(said), **told)


_TOLD: Final = [
    "role",
    "term",
    "leader",
    "commit",
    "applied",
    "revision",
    "pid",
    "version",
    "durability",
]
"""What a replica says about itself under the same name."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """What the replicas say about themselves; ``leader`` is what the highest term knows."""

    leader: str | None
    term: int
    replicas: tuple[ReplicaStatus, ...]

    @classmethod
    def of(cls, replicas: list[ReplicaStatus]) -> ClusterStatus:
        """Put the answers of the replicas together."""
        by_node: dict[str, ReplicaStatus] = {}
        for replica in replicas:
            known = by_node.get(replica.node)
            if known is None or (replica.reachable and not known.reachable):
                by_node[replica.node] = replica
        term = max((replica.term or 0 for replica in by_node.values()), default=0)
        leaders = [
            replica.leader
            for replica in by_node.values()
            if replica.term == term and replica.leader is not None
        ]
        return cls(
            leader=leaders[0] if leaders else None,
            term=term,
            replicas=tuple(by_node[node] for node in sorted(by_node)),
        )


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A member of the cluster, by the configuration in force.

    Attributes:
        node: its node id.
        client: "host:port" where clients reach it.
        peer: "host:port" where the other replicas reach it.
        role: "voter" or "learner".
        directory: id of its data directory; "": its place is kept, it has not come yet.
    """

    node: str
    client: str
    peer: str
    role: Literal["voter", "learner"]
    directory: str

    @classmethod
    def all_in(cls, status: ClusterStatus) -> tuple[MemberRecord, ...]:
        """Return what the leader says.

        Raises:
            TryAgain: nobody leads, or the leader could not be asked.
        """
        for replica in status.replicas:
            if replica.reachable and replica.node == status.leader:
                return tuple(
                    cls(
                        row["node"],
                        row["client"],
                        row["peer"],
                        "voter" if row["voter"] else "learner",
                        row["directory"],
                    )
                    for row in replica.detail["members"]
                )
        raise TryAgain("members: nobody leads now, or the leader could not be asked; try again")


@dataclass(frozen=True, slots=True)
class BusyCheckpoint:
    """A checkpoint that is changed much, or is large.

    Attributes:
        name: its name.
        changes_per_s: changes a second, of the last seconds; estimated where there are thousands.
        written_per_s: bytes written a second, likewise.
        size: bytes in all sections.
        sections: how many.
        openers: sessions that have it open.
    """

    name: str
    changes_per_s: float
    written_per_s: float
    size: int
    sections: int
    openers: int


@dataclass(frozen=True, slots=True)
class GroupGlance:
    """A service group at a glance: its active component ("": none) and where it is."""

    name: str
    active: str
    node: str
    components: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Lately:
    """What a replica saw of late.

    Attributes:
        changes_per_s: changes applied a second.
        reads_per_s: reads that it took, a second.
        commit_p50_s: half of its commits took at most so long, in seconds; None: it led nothing.
        commit_p99_s: 99 of 100 of them.
        sync_p99_s: 99 of 100 syncs of its disk.
        checkpoints: the busiest and the largest, twenty of each at most.
        groups: the first twenty.
        happenings: (milliseconds since the epoch, kind, fields), oldest first.
    """

    changes_per_s: float
    reads_per_s: float
    commit_p50_s: float | None
    commit_p99_s: float | None
    sync_p99_s: float | None
    checkpoints: Sequence[BusyCheckpoint]
    groups: Sequence[GroupGlance]
    happenings: Sequence[tuple[int, str, Mapping[str, Any]]]

    @classmethod
    def from_wire(cls, said: Sequence[Any]) -> Lately:
        """Make the record from a reply to LATELY."""
        rates, checkpoints, groups, happenings = said
        times = [None if each is None else each / 1e6 for each in [*rates[2:5], None, None, None]]
        return cls(
            rates[0] / 1000,
            rates[1] / 1000,
            times[0],
            times[1],
            times[2],
            [
                BusyCheckpoint(row[0], row[1] / 1000, float(row[2]), *row[3:6])
                for row in checkpoints
            ],
            [GroupGlance(*row[:5]) for row in groups],
            [(row[0], row[1], dict(row[2])) for row in happenings],
        )


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Digests of the replicas' states after the same entry.

    Attributes:
        index: of the entry in the log.
        digests: by node; None: the replica did not answer in time.
        problems: by node, why there is no digest.
    """

    index: int
    digests: Mapping[str, str | None]
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def consistent(self) -> bool:
        """Whether all digests that were given are equal, and at least one was."""
        return len({digest for digest in self.digests.values() if digest is not None}) == 1


@dataclass(frozen=True, slots=True)
class SavedSnapshot:
    """A snapshot file that was written.

    Attributes:
        path: where it is.
        size: bytes of the file.
        node: replica whose state was read.
        cluster: name of the cluster.
        founding: founding id of the cluster.
        revision: of the state.
        level: of the cluster.
        time: cluster time of the state, seconds since the epoch.
    """

    path: str
    size: int
    node: str
    cluster: str
    founding: str
    revision: int
    level: int
    time: float


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Paths of PEM files for TLS, and whether the replica's name is checked.

    Attributes:
        ca: certificates that sign the replicas'.
        cert: the client's own certificate, if replicas ask for one.
        key: its key; None: it is in ``cert``.
        check_hostname: whether the certificate must name the host of the endpoint.
    """

    ca: str
    cert: str | None = None
    key: str | None = None
    check_hostname: bool = True

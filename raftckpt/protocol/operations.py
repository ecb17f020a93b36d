"""Every operation of the client port and of the log, each declared once.

A record is what travels: a msgpack array that starts with the tag. Its class says tag, fields and
bounds; :func:`operation` adds what else there is to know: since which level it exists, which right
it needs, who serves it, what its success is, whether it may be accepted early, whether it may
change what writes of others are answered, which field is its data. From here everything else is
derived: checks, sets of tags, costs, revision positions, the tables of docs/reference/protocol.md,
examples.

The first field of a command has two lives: a client puts the number of its request there; the
replica takes that out and puts the id of the connection's session in, and so it is logged.

``answered`` = n says: the client has seen the replies of every request up to n, without gaps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum
from functools import reduce
from operator import or_
from typing import Annotated, Any, Final, TypeAlias, TypeVar, get_type_hints

from msgspec import Struct

from raftckpt.errors import ensure
from raftckpt.protocol import kinds as k
from raftckpt.protocol.kinds import Field

__all__ = [
    "COMMANDS",
    "EARLY",
    "LOGGED",
    "OPERATIONS",
    "QUERIES",
    "REQUESTS",
    "STRUCTURAL",
    "ActiveReplicaSet",
    "Attach",
    "AuthSet",
    "AuthStatus",
    "Check",
    "CheckStart",
    "CheckpointClose",
    "CheckpointOpen",
    "CheckpointPage",
    "CheckpointTransaction",
    "CheckpointUnlink",
    "CheckpointWrite",
    "Checkpoints",
    "Command",
    "ComponentAlive",
    "DigestRequest",
    "Due",
    "GroupAdmin",
    "GroupFail",
    "GroupJoin",
    "GroupLeave",
    "GroupRespond",
    "GroupStatusRequest",
    "GroupsRequest",
    "HelloRequest",
    "Keepalive",
    "LimitsChange",
    "LimitsRequest",
    "LimitsSet",
    "OperationSpec",
    "PrincipalCreate",
    "PrincipalRevoke",
    "PrincipalRotate",
    "PrincipalsRequest",
    "Query",
    "Read",
    "ReadAll",
    "ReadVersioned",
    "ReplicaStatusRequest",
    "Request",
    "RetentionSet",
    "Right",
    "RolesRequest",
    "Route",
    "SectionChange",
    "SectionCorrupt",
    "SectionCreate",
    "SectionDelete",
    "SectionExpirationSet",
    "SectionIdPage",
    "SectionIds",
    "SectionOverwrite",
    "SectionPage",
    "SectionPut",
    "SectionStatuses",
    "Sections",
    "SessionAdmit",
    "SessionClose",
    "SessionExpire",
    "SessionOpen",
    "SnapshotBegin",
    "SnapshotPiece",
    "SpaceCreate",
    "SpaceDelete",
    "SpaceGrant",
    "SpaceQuota",
    "SpaceRevoke",
    "SpacesRequest",
    "StageChunk",
    "Status",
    "Synchronize",
    "Track",
    "TrackPoint",
    "TrackStop",
    "TrackSync",
    "Transfer",
    "WhoAmI",
    "WitnessRequest",
]


class Right(Enum):
    """What a principal needs to have an operation carried out."""

    PUBLIC = "public"
    SESSION = "session"
    READ = "read"
    WRITE = "write"
    CREATE = "create"
    DROP = "drop"
    OPERATE = "operate"
    CLUSTER = "cluster"
    """Of the replicas themselves: no client may send it."""


class Route(Enum):
    """Who serves an operation, and from what."""

    SESSION = "session"
    """The log, as a numbered command of a session."""
    CLUSTER = "cluster"
    """The log, proposed by the leader itself."""
    STATE = "state"
    """The applied state of the leader, or of any replica if the client asks for local."""
    LEADER = "leader"
    """The leader, outside the log."""
    LEADER_ONCE = "leader, once"
    """The same; not repeated after a connection was lost."""
    ANY = "any replica"


class OperationSpec(Struct, frozen=True):
    """What is declared of an operation, beside its fields.

    Attributes:
        tag: its number on the wire and in the log; never used again for another one.
        name: as in docs/reference/protocol.md.
        record: its class.
        since: level of the cluster from which on it may be proposed.
        needs: right.
        route: who serves it.
        reply: names of the fields of its success; a text: the success is that alone.
        early: the leader may accept it before it is committed.
        structural: it may change what a data write on a checkpoint is answered. While it is on its
            way, its checkpoint takes no early acceptance.
        data: field that holds its data, "" for none.
        fields: annotation of each field after the leading ones.
    """

    tag: int
    name: str
    record: type[Any]
    since: int
    needs: Right
    route: Route
    reply: tuple[str, ...] | str
    early: bool
    structural: bool
    data: str
    fields: dict[str, Any]

    @property
    def revision_at(self) -> int | None:
        """Where the revision stands in the list that its success is, None: nowhere."""
        reply = self.reply
        return reply.index("revision") if type(reply) is tuple and "revision" in reply else None

    @property
    def description(self) -> str:
        """First line of its record's docstring."""
        return (self.record.__doc__ or "").strip().splitlines()[0]

    def examples(self) -> Iterator[Any]:
        """Good records: one with the first example of each field, one for each further example."""
        hints = get_type_hints(self.record, include_extras=True)
        choices = {name: k.kind_of(hints[name]).examples for name in hints}
        first = {name: examples[0] for name, examples in choices.items()}
        yield self.record(**first)
        for name, examples in choices.items():
            for example in examples[1:]:
                yield self.record(**{**first, name: example})


OPERATIONS: Final[dict[type[Any], OperationSpec]] = {}
"""By record, in the order of declaration."""
_R = TypeVar("_R", bound=type[Any])


class Request(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What a client sends that is neither command nor query: ``[tag, request, ...]``."""

    request: k.Natural


class Command(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What changes the state: ``[tag, session, sequence, answered, ...]``; session: see above."""

    session: k.Natural
    sequence: Annotated[k.Positive, Field((1,))]
    answered: k.Natural


class Query(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What reads the state: ``[tag, request, after_sequence, consistency, ...]``.

    It is answered when the attached session's command ``after_sequence`` is applied.
    """

    request: k.Natural
    after_sequence: Annotated[k.Natural, Field((0, 7))]
    consistency: k.Consistency


class ClusterCommand(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A command of no session: its leading fields are 0, but for a client's request number."""

    session: k.Natural
    sequence: k.Zero
    answered: k.Zero


def operation(
    needs: Right,
    reply: tuple[str, ...] | str,
    *,
    since: int = 1,
    route: Route | None = None,
    early: bool = False,
    structural: bool = False,
    data: str = "",
) -> Callable[[_R], _R]:
    """Declare the record below as an operation; see :class:`OperationSpec`."""

    def declare(record: _R) -> _R:
        tag = record.__struct_config__.tag
        ensure(type(tag) is int, "an operation has a number")
        ensure(all(tag != other.tag for other in OPERATIONS.values()), f"tag {tag} twice")
        ensure(bool(record.__doc__), f"operation {tag} says what it does")
        name = record.__name__.removesuffix("Request")
        fields = get_type_hints(record, include_extras=True)
        leading = getattr(record.__base__, "__struct_fields__", ())
        ensure(not data or data in fields, f"the data of operation {tag} is one of its fields")
        OPERATIONS[record] = OperationSpec(
            tag=tag,
            name=re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper(),
            record=record,
            since=since,
            needs=needs,
            route=route or (Route.STATE if issubclass(record, Query) else Route.SESSION),
            reply=reply,
            early=early,
            structural=structural,
            data=data,
            fields={name: hint for name, hint in fields.items() if name not in leading},
        )
        return record

    return declare


# --- sessions ------------------------------------------------------------------------------------


@operation(Right.PUBLIC, ("session",))
class SessionOpen(ClusterCommand, tag=1):
    """Create a session; repeated with the same secret it returns the same one."""

    secret: k.Secret
    name: k.SessionName
    node: k.NodeName
    timeout_ns: k.SessionTime
    grace_ns: k.Grace


@operation(Right.SESSION, "None", structural=True)
class SessionClose(Command, tag=2):
    """Goodbye of a client: implicit Finalize."""


@operation(Right.CLUSTER, "count", route=Route.CLUSTER, structural=True)
class SessionExpire(ClusterCommand, tag=3):
    """The leader declares sessions dead; how many of them ended."""

    sessions: k.SessionIds


# --- checkpoints ---------------------------------------------------------------------------------


@operation(Right.READ, ("handle", "uid", "created", "attributes", "revision"))
class CheckpointOpen(Command, tag=10):
    """saCkptCheckpointOpen; ``attributes`` exactly when CREATE is among the flags."""

    name: k.Name
    flags: k.OpenFlags
    attributes: k.AttributeFields


@operation(Right.SESSION, "None", structural=True)
class CheckpointClose(Command, tag=11):
    """saCkptCheckpointClose."""

    handle: k.Handle


@operation(Right.DROP, "revision", structural=True)
class CheckpointUnlink(Command, tag=12):
    """saCkptCheckpointUnlink."""

    name: k.Name


@operation(Right.WRITE, "revision")
class RetentionSet(Command, tag=13):
    """saCkptCheckpointRetentionDurationSet."""

    handle: k.Handle
    retention_ns: k.Time


@operation(Right.WRITE, ("epoch", "revision"), structural=True)
class ActiveReplicaSet(Command, tag=14):
    """saCkptActiveReplicaSet; ``exclusive`` also fences other writers."""

    handle: k.Handle
    exclusive: k.Flag


# --- sections ------------------------------------------------------------------------------------


@operation(Right.WRITE, ("revision", "section id"), structural=True, data="data")
class SectionCreate(Command, tag=20):
    """saCkptSectionCreate; id None: generated; ttl None: the expiration, else from apply on."""

    handle: k.Handle
    section_id: k.NewSectionId
    data: k.Data
    expiration_ns: k.Time
    ttl_ns: k.MaybeTime


@operation(Right.WRITE, "revision", structural=True)
class SectionDelete(Command, tag=21):
    """saCkptSectionDelete."""

    handle: k.Handle
    section_id: k.SectionId


@operation(Right.WRITE, "revision", structural=True)
class SectionExpirationSet(Command, tag=22):
    """saCkptSectionExpirationTimeSet; ttl None: the expiration, else from apply on."""

    handle: k.Handle
    section_id: k.SectionId
    expiration_ns: k.Time
    ttl_ns: k.MaybeTime


@operation(Right.WRITE, "revision", early=True, data="data")
class SectionOverwrite(Command, tag=23):
    """saCkptSectionOverwrite."""

    handle: k.Handle
    section_id: k.SectionId
    data: k.Data


@operation(Right.WRITE, "revision", early=True, data="data")
class SectionPut(Command, tag=24):
    """Overwrite, or create without expiration if missing."""

    handle: k.Handle
    section_id: k.SectionId
    data: k.Data


@operation(Right.WRITE, "revision", early=True, data="vector")
class CheckpointWrite(Command, tag=25):
    """saCkptCheckpointWrite: 1..4096 of [section id, offset, data], atomic."""

    handle: k.Handle
    vector: k.Vector


@operation(Right.SESSION, "None")
class StageChunk(Command, tag=26):
    """Append a chunk to a stage of the session, which grows without holes from offset 0.

    A stage is dropped by the command that names it, applied or refused, and with the session.
    """

    stage: k.Positive
    offset: k.Natural
    data: k.Chunk


@operation(Right.OPERATE, "revision", structural=True)
class SectionCorrupt(Command, tag=27):
    """Fault injection for tests: the section is in the state CORRUPTED until it is replaced."""

    handle: k.Handle
    section_id: k.SectionId


@operation(Right.WRITE, ("revision", "result"), since=2, structural=True, data="part")
class SectionChange(Command, tag=28):
    """One change of a section under a condition, or an append; result: the offset of an append."""

    handle: k.Handle
    part: k.Part


@operation(Right.WRITE, ("revision", "results"), since=2, structural=True, data="parts")
class CheckpointTransaction(Command, tag=29):
    """Several changes of a checkpoint, all or nothing, one revision; conditions are judged first.

    Each part is [kind, section id, offset, data, condition, expiration, ttl]; kinds: 1 create
    (result: the id that was chosen for None), 2 put, 3 overwrite, 4 write, 5 append (result: its
    offset), 6 delete. A condition is the revision the section must have, 0: it must not exist.
    """

    handle: k.Handle
    parts: k.Parts


# --- the cluster's own ---------------------------------------------------------------------------


@operation(Right.CLUSTER, "count", route=Route.CLUSTER, structural=True)
class Due(ClusterCommand, tag=40):
    """Carry out what is due at the batch's stamp (expirations, retentions); how much it was."""


@operation(Right.CLUSTER, "None", route=Route.CLUSTER)
class Check(ClusterCommand, tag=41):
    """Have every replica compute the digest of its state after exactly this entry."""

    nonce: k.Nonce


@operation(Right.CLUSTER, "None", since=2, route=Route.CLUSTER)
class Compare(ClusterCommand, tag=42):
    """The leader's digest of a check: whoever has another one raises an alarm."""

    nonce: k.Nonce
    digest: k.Nonce


@operation(Right.CLUSTER, "done", route=Route.CLUSTER, structural=True)
class LimitsSet(ClusterCommand, tag=70):
    """Set limits of the state: [name, value] each, all or none.

    ``first``: only if the memory has no limit yet; a leader that knows of all voters how much they
    have sets the smallest.
    """

    values: k.LimitValues
    first: k.Flag


# --- service groups ------------------------------------------------------------------------------


@operation(Right.WRITE, ("member", "assignment"))
class GroupJoin(Command, tag=50):
    """A component joins a service group; health_ns 0: no health check.

    ``rank``: the smaller, the earlier it is promoted; ``response_ns``: time for an answer;
    ``health_ns``: longest time without a sign of life of the component itself.
    """

    group: k.GroupName
    component: k.ComponentName
    rank: k.Rank
    response_ns: k.Response
    health_ns: k.Silence


@operation(Right.SESSION, "None")
class GroupLeave(Command, tag=51):
    """A component leaves its group; failed: it came to an end by itself."""

    group: k.GroupName
    component: k.ComponentName
    failed: k.Flag


@operation(Right.SESSION, "None", structural=True)  # an answer that says no fences the session
class GroupRespond(Command, tag=52):
    """A component answers an assignment: it carried it out, or (not ``ok``) it failed."""

    group: k.GroupName
    component: k.ComponentName
    assignment: k.Positive
    ok: k.Flag


@operation(Right.OPERATE, "administrative state")
class GroupAdmin(Command, tag=53):
    """An operator's wish: 1 unlock, 2 lock, 3 lock-instantiation, 4 swap, 5 shutdown, 6 delete.

    ``component``: who is to be active after a swap; None: the next in rank.
    """

    group: k.GroupName
    operation: k.GroupOperation
    component: k.MaybeComponent


@operation(Right.CLUSTER, "count", route=Route.CLUSTER, structural=True)
class GroupFail(ClusterCommand, tag=54):
    """The leader declares components failed; how many were taken out."""

    members: k.Silent


# --- identities and rights -----------------------------------------------------------------------
# ``expected``: revision of the tables that the change was made for; None: whatever it is.


@operation(Right.OPERATE, "access revision", structural=True)
class AuthSet(Command, tag=60):
    """Switch rights on or off; on: sessions of nobody end."""

    on: k.Flag
    expected: k.MaybeNatural


@operation(Right.OPERATE, "access revision", structural=True)
class PrincipalCreate(Command, tag=61):
    """Make a principal, known by a token (id None: by none), by its certificate, or by both."""

    principal: k.PrincipalName
    token_id: k.MaybeTokenId
    token_digest: k.TokenDigest
    ends_ns: k.Time
    certificate: k.Flag
    expected: k.MaybeNatural


@operation(Right.OPERATE, "access revision", structural=True)
class PrincipalRotate(Command, tag=62):
    """Give a principal another token; those it has end after a time at the latest."""

    principal: k.PrincipalName
    token_id: k.TokenId
    token_digest: k.TokenDigest
    ends_ns: k.Time
    keep_ns: k.Time
    expected: k.MaybeNatural


@operation(Right.OPERATE, "access revision", structural=True)
class PrincipalRevoke(Command, tag=63):
    """Forget a principal, its credentials and its grants; its sessions end."""

    principal: k.PrincipalName
    expected: k.MaybeNatural


@operation(Right.OPERATE, "access revision", structural=True)
class SpaceCreate(Command, tag=64):
    """Make a space: from now on it decides on all names with its prefix that no longer one has."""

    space: k.NamePrefix
    expected: k.MaybeNatural


@operation(Right.OPERATE, "access revision", structural=True)
class SpaceGrant(Command, tag=65):
    """Give a principal rights on a space."""

    space: k.NamePrefix
    principal: k.PrincipalName
    rights: k.Grants
    expected: k.MaybeNatural


@operation(Right.OPERATE, "access revision", structural=True)
class SpaceRevoke(Command, tag=66):
    """Take rights on a space away: from open handles, components and trackers as well."""

    space: k.NamePrefix
    principal: k.PrincipalName
    rights: k.Grants
    expected: k.MaybeNatural


@operation(Right.OPERATE, "access revision", structural=True)
class SpaceDelete(Command, tag=67):
    """Forget a space: the next shorter prefix decides on its names."""

    space: k.NamePrefix
    expected: k.MaybeNatural


@operation(Right.OPERATE, "access revision", structural=True)
class SpaceQuota(Command, tag=71):
    """Set quotas of a space: [name, most] each of checkpoints, sections, bytes; 0: none.

    All or none. They hold for the checkpoints on whose names the space decides; one below what is
    used takes nothing away.
    """

    space: k.NamePrefix
    values: k.QuotaValues
    expected: k.MaybeNatural


@operation(Right.CLUSTER, ("session",), route=Route.CLUSTER)
class SessionAdmit(ClusterCommand, tag=69):
    """SESSION_OPEN with the principal that its connection proved to be; the leader puts it in."""

    secret: k.Secret
    name: k.SessionName
    node: k.NodeName
    timeout_ns: k.SessionTime
    grace_ns: k.Grace
    principal: k.Positive


# --- queries -------------------------------------------------------------------------------------


@operation(Right.READ, ("revision", "data"))
class Read(Query, tag=100):
    """saCkptCheckpointRead: of [section id, offset, size or None: to the end], one state."""

    target: k.Target
    vector: k.ReadVector


@operation(Right.READ, ("revision", "sections"))
class ReadAll(Query, tag=101):
    """All sections: [section id, data] each."""

    target: k.Target


@operation(Right.READ, ("revision", "descriptor"))
class Status(Query, tag=102):
    """saCkptCheckpointStatusGet."""

    target: k.Target


@operation(Right.READ, ("revision", "descriptors"))
class Sections(Query, tag=103):
    """Section iteration: 1 forever, 2 expiring by, 3 expiring from, 4 corrupted, 5 any."""

    target: k.Target
    chosen: k.Chosen
    expiration_ns: k.Time


@operation(Right.SESSION, ("revision", "descriptors"))
class Checkpoints(Query, tag=104):
    """Describe all checkpoints."""


@operation(Right.READ, ("revision", "data"))
class ReadVersioned(Query, tag=105):
    """A whole section, with the revision of its last change."""

    target: k.Target
    section_id: k.SectionId


@operation(Right.READ, ("revision", "section ids"))
class SectionIds(Query, tag=106):
    """Ids of the sections."""

    target: k.Target


@operation(Right.READ, ("revision", "descriptors"))
class SectionStatuses(Query, tag=108):
    """Describe those of the sections named that exist."""

    target: k.Target
    section_ids: k.SectionIds


@operation(Right.WRITE, ("revision",))
class Synchronize(Query, tag=109):
    """Whether saCkptCheckpointSynchronize may be done: right, asynchronous, an active replica."""

    target: k.Target


@operation(Right.READ, ("revision", "uid"))
class TrackPoint(Query, tag=113):
    """How far the state is, and which generation of the checkpoint it has (None: 0)."""

    target: k.MaybeTarget


@operation(Right.SESSION, ("revision", "summaries"))
class GroupsRequest(Query, tag=115):
    """All service groups."""


@operation(Right.READ, ("revision", "summary"))
class GroupStatusRequest(Query, tag=116):
    """A service group with its members."""

    group: k.GroupName


@operation(Right.SESSION, ("revision", "assignments"))
class RolesRequest(Query, tag=117):
    """Assignments of the attached session's components."""


@operation(Right.SESSION, ("revision",), route=Route.LEADER)
class ComponentAlive(Query, tag=118):
    """Sign of life of a component; its consistency does not matter."""

    member: k.Positive


@operation(Right.READ, ("revision", "section ids"), since=2)
class SectionIdPage(Query, tag=125):
    """Ids that begin with a prefix, in their order, from behind one on."""

    target: k.Target
    prefix: k.Prefix
    after: k.After
    limit: k.PageRows


@operation(Right.READ, ("revision", "descriptors"), since=2)
class SectionPage(Query, tag=126):
    """Describe sections whose ids begin with a prefix, in the order of the ids, behind one."""

    target: k.Target
    prefix: k.Prefix
    after: k.After
    limit: k.PageRows


@operation(Right.SESSION, ("revision", "descriptors"), since=2)
class CheckpointPage(Query, tag=127):
    """Describe checkpoints whose names begin with a prefix, in the order of the names."""

    prefix: k.NamePrefix
    after: k.AfterName
    limit: k.PageRows


@operation(
    Right.SESSION, ("revision", "on", "access revision", "principals", "spaces", "operators")
)
class AuthStatus(Query, tag=140):
    """Whether rights are on; how many principals, spaces and operators with credentials."""


@operation(Right.SESSION, ("revision", "principal", "grants"))
class WhoAmI(Query, tag=141):
    """The principal of this connection ("": nobody) and [space, rights] of its grants."""


@operation(Right.OPERATE, ("revision", "access revision", "principals"))
class PrincipalsRequest(Query, tag=142):
    """All principals: [name, number, certificate, [[token id, ends_ns], ...]] each."""


@operation(Right.OPERATE, ("revision", "access revision", "spaces"))
class SpacesRequest(Query, tag=143):
    """All spaces: [prefix, [[principal, rights], ...], if any: [[quota, most, used], ...]] each."""


@operation(Right.SESSION, ("revision", "limits", "full"))
class LimitsRequest(Query, tag=151):
    """Limits of the state: [name, value, used, least, most, unit] each; whether it is full."""


# --- tracking ------------------------------------------------------------------------------------


@operation(Right.READ, ("uid", "from", "through"), route=Route.ANY)
class Track(Request, tag=110):
    """Follow the changes of a checkpoint."""

    target: k.Target
    from_revision: k.MaybeNatural
    image: k.Flag
    at_least: k.Natural


@operation(Right.READ, "through", route=Route.ANY)
class TrackSync(Request, tag=111):
    """Answered behind every change up to a revision."""

    tracker: k.Natural
    revision: k.Natural


@operation(Right.READ, "None", route=Route.ANY)
class TrackStop(Request, tag=112):
    """End a tracker; a message already begun may still come."""

    tracker: k.Natural


# --- the replica itself --------------------------------------------------------------------------


@operation(Right.SESSION, "leader", route=Route.ANY)
class WitnessRequest(Request, tag=119):
    """Bind the session to a second connection; TRY_AGAIN while the replica does not know it."""

    session: k.Positive
    secret: k.Secret


@operation(Right.OPERATE, "done", route=Route.LEADER)
class MemberAdd(Request, tag=128):
    """Keep a place for a new member: whoever comes with the token takes it."""

    node: k.MemberName
    peer: k.HostPort
    client: k.HostPort
    token_hash: k.TokenHash
    promote: k.Flag
    replaces: k.MaybeNode


@operation(Right.OPERATE, "done", route=Route.LEADER)
class MemberRemove(Request, tag=129):
    """Take a member out; a leader hands over first."""

    node: k.MemberName


@operation(Right.OPERATE, "done", route=Route.LEADER)
class LevelPin(Request, tag=130):
    """Hold the level where it is, or let it rise again."""

    pinned: k.Flag


@operation(Right.OPERATE, "done", route=Route.LEADER)
class LimitsChange(Request, tag=150):
    """Set limits of the state: the leader puts it into the log. Asking again is harmless."""

    values: k.LimitValues


@operation(Right.OPERATE, "done", route=Route.LEADER)
class MemberDrain(Request, tag=160):
    """Have a member lead only while nobody else can, or as any other again."""

    node: k.MemberName
    drained: k.Flag


@operation(Right.OPERATE, ("rates", "busiest", "groups", "happenings"), route=Route.ANY)
class LatelyRequest(Request, tag=161):
    """What this replica saw of late: checkpoints, service groups, elections and fail-overs."""


@operation(Right.OPERATE, "done", route=Route.ANY)
class AlarmClear(Request, tag=131):
    """Forget that the state of this replica once differed from the leader's."""


@operation(
    Right.OPERATE,
    ("copy", "cluster", "founding", "revision", "level", "time", "node", "entry", "image version"),
    route=Route.ANY,
)
class SnapshotBegin(Request, tag=132):
    """Freeze the whole state, which SNAPSHOT_PIECE then reads; TRY_AGAIN until it is so far."""

    at_least: k.Natural
    """Revision that the replica must have applied."""


@operation(Right.OPERATE, ("last", "data"), route=Route.ANY)
class SnapshotPiece(Request, tag=133):
    """Read the next piece of a frozen state, from 0 on, each once; it ends with the connection."""

    copy: k.Positive
    number: k.Natural


@operation(Right.SESSION, "status", route=Route.ANY)
class ReplicaStatusRequest(Request, tag=121):
    """What the replica tells about itself."""


@operation(Right.OPERATE, "done", route=Route.LEADER_ONCE)
class Transfer(Request, tag=122):
    """Hand leadership to a node; None: whoever is furthest."""

    node: k.MaybeNode


@operation(Right.OPERATE, ("index", "digest"), route=Route.ANY)
class DigestRequest(Request, tag=123):
    """Digest of a check; TRY_AGAIN while it is computed."""

    nonce: k.Nonce


@operation(Right.OPERATE, ("nonce", "index"), route=Route.LEADER)
class CheckStart(Request, tag=124):
    """Have all replicas compute a digest after the same entry."""


@operation(Right.PUBLIC, "welcome", route=Route.ANY)
class HelloRequest(Request, tag=200):
    """The first message; its answer says who leads and where the replicas are."""

    versions: k.Versions
    client_name: k.SessionName
    token: k.Credential


@operation(Right.SESSION, ("last sequence", "session timeout"), route=Route.LEADER)
class Attach(Request, tag=201):
    """Bind a session to this connection."""

    session: k.Positive
    secret: k.Secret


@operation(Right.SESSION, ("revision",), route=Route.ANY)
class Keepalive(Request, tag=202):
    """A sign of life."""


# --- derived -------------------------------------------------------------------------------------


def _of(*routes: Route) -> frozenset[type[Any]]:
    return frozenset(record for record, row in OPERATIONS.items() if row.route in routes)


COMMANDS: Final = _of(Route.SESSION)
"""Records of the log that a client may send."""
LOGGED: Final = _of(Route.SESSION, Route.CLUSTER)
"""All records of the log."""
QUERIES: Final = _of(Route.STATE)
REQUESTS: Final = frozenset(OPERATIONS) - _of(Route.CLUSTER)
"""All records that a client may send."""
EARLY: Final = frozenset(record for record, row in OPERATIONS.items() if row.early)
STRUCTURAL: Final = frozenset(record for record, row in OPERATIONS.items() if row.structural)

AnyCommand: TypeAlias = Command | ClusterCommand


def union(records: frozenset[type[Any]]) -> Any:
    """Return the type that a decoder takes for any of ``records``."""
    return reduce(or_, sorted(records, key=lambda record: OPERATIONS[record].tag))

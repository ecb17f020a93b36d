"""Queries: they read the applied state and change nothing.

A target is a handle of the attached session, with its rights and the rule that an asynchronous
collocated checkpoint without an active replica refuses, or a checkpoint's name: an
administrative read that needs neither an open nor a session and always shows what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from operator import attrgetter
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from raftckpt.errors import SaAisError, ensure
from raftckpt.model import access_commands, group_commands
from raftckpt.model.access import NOBODY, READING, VISIBLE, not_granted
from raftckpt.model.asking import RIGHTS
from raftckpt.model.bounds import BOUNDS
from raftckpt.model.checkpoints import B01, NO_READ, Checkpoint, Section
from raftckpt.model.express import plain_read
from raftckpt.model.order import beyond
from raftckpt.model.sessions import HANDLE, NO_SESSION
from raftckpt.model.state import State
from raftckpt.model.types import (
    CheckpointDescriptor,
    Chosen,
    Result,
    SectionDescriptor,
    SectionState,
    refuse,
    success,
)
from raftckpt.model.values import Frozen, Listing, PageOf, share
from raftckpt.protocol import operations as ops
from raftckpt.protocol.contract import SA_TIME_MAX
from raftckpt.protocol.operations import OPERATIONS, Query

__all__ = ["EAGER_ROWS", "allowed", "answer", "describe", "image_rows"]

_VALID: Final = int(SectionState.VALID)
_CORRUPTED: Final = int(SectionState.CORRUPTED)
EAGER_ROWS: Final = 256
"""A longer answer is frozen by one copy of the dict and its rows are made while it is sent."""
_ALL_CHECKPOINTS: Final = 0
"""In the place of a uid, less the number of a principal; uids begin with 1."""

_shared: WeakKeyDictionary[State, WeakValueDictionary[tuple[int, int], Any]] = WeakKeyDictionary()
"""What listings under way were frozen from, by (uid, revision): a hundred pipelined listings of an
unchanged checkpoint share one copy, which goes with the last of them. It decides nothing."""


def answer(state: State, session: int | None, query: Query, principal: int) -> Result:
    """Answer a query whose fields are within their bounds.

    While rights are on, a name is read with the rights of ``principal``.
    """
    kind = type(query)
    if isinstance(query, ops.Read):
        read = plain_read(state, session, query)
        if read is not None:
            return read
    of_group = group_commands.QUERIES.get(kind)
    if of_group is not None:
        return of_group(state, session, query, principal)
    of_access = access_commands.QUERIES.get(kind)
    if of_access is not None:
        return of_access(state, principal, query)
    if kind is ops.Checkpoints:
        return success([state.revision, _checkpoints(state, principal)])
    if kind is ops.LimitsRequest:
        return success([state.revision, _limits(state), state.bounds.full])
    if isinstance(query, ops.CheckpointPage):
        return success([state.revision, _checkpoint_page(state, query, principal)])
    function, refuse_handle = _QUERIES[kind]
    target_of: Any = query
    if target_of.target is None:
        return success([state.revision, 0])
    target = _target(state, session, target_of.target, refuse_handle, principal, _RIGHTS[kind])
    if isinstance(target, Result):
        return target
    if function is _status:  # the one that tells different things to different people
        return success(_status(state, target, principal))
    result = function(state, target, query)
    return result if isinstance(result, Result) else success(result)


_RefuseHandle = Callable[[Checkpoint, int], Result | None]
"""What a query asks of a handle: (checkpoint, flags of the handle)."""


def _tracking(checkpoint: Checkpoint, flags: int) -> Result | None:
    """A standby tracks before anybody is active: only the right is asked for."""
    return checkpoint.refuse_reader(flags)


def _reading(checkpoint: Checkpoint, flags: int) -> Result | None:
    return checkpoint.refuse_reader(flags) or checkpoint.refuse_inactive()


def _looking(checkpoint: Checkpoint, flags: int) -> Result | None:
    """Status and iteration: B.01 asks for no right."""
    free = flags & B01 and not flags & NO_READ
    refusal = None if free else checkpoint.refuse_reader(flags)
    return refusal or checkpoint.refuse_inactive()


def _synchronizing(checkpoint: Checkpoint, flags: int) -> Result | None:
    refusal = checkpoint.refuse_writer(flags)
    if refusal is None and not checkpoint.attributes.asynchronous:
        refusal = refuse(SaAisError.ERR_BAD_OPERATION, "synchronous")
    return refusal or checkpoint.refuse_inactive()


def allowed(state: State, name: str, principal: int, right: int) -> Checkpoint | Result:
    """Find the checkpoint of a name on which a right is granted; what may not be seen is none."""
    checkpoint = state.names.get(name)
    rights = state.access.rights(principal, name)
    if checkpoint is None or not rights & VISIBLE:
        return refuse(SaAisError.ERR_NOT_EXIST, "checkpoint_missing", name)
    return checkpoint if rights & right else not_granted(right)


def _target(
    state: State,
    number: int | None,
    target: int | str,
    refuse_handle: _RefuseHandle,
    principal: int,
    right: int,
) -> Checkpoint | Result:
    """Find the checkpoint; check session, handle, right and active replica, in this order."""
    if isinstance(target, str):
        return allowed(state, target, principal, right)
    session = state.sessions.get(number) if number is not None else None
    if session is None:
        return NO_SESSION
    opened = session.handles.get(target)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    return refuse_handle(checkpoint, flags) or checkpoint


def _missing(section_id: bytes, position: int | None = None) -> Result:
    return refuse(SaAisError.ERR_NOT_EXIST, "section_missing", section_id, position)


def _read(state: State, checkpoint: Checkpoint, query: ops.Read) -> Any:
    """``saCkptCheckpointRead``: all elements of one state."""
    values = []
    for position, element in enumerate(query.vector):
        value = _read_element(checkpoint, element, position)
        if isinstance(value, Result):
            return value
        values.append(value)
    return [state.revision, values]


def _read_element(checkpoint: Checkpoint, element: Any, position: int) -> Any:
    section_id, offset, size = element
    largest = checkpoint.attributes.max_section_size
    if offset + (size or 0) > largest:
        return refuse(SaAisError.ERR_INVALID_PARAM, "section_too_big", largest, position)
    section = checkpoint.sections.get(section_id)
    if section is None:
        return _missing(section_id, position)
    if checkpoint.corrupted:
        refusal = checkpoint.refuse_corrupted(section_id, position)
        if refusal is not None:
            return refusal
    length = len(section[0])
    if offset > length:
        return refuse(SaAisError.ERR_INVALID_PARAM, "offset", length, position)
    return share(section[0], offset, length if size is None else size)


def _read_all(state: State, checkpoint: Checkpoint, query: ops.ReadAll) -> Any:
    """Every section, or a refusal that names a corrupted one: never an image with holes."""
    for section_id in sorted(checkpoint.corrupted):
        return checkpoint.refuse_corrupted(section_id)
    return _listing(state, checkpoint, lambda section_id, section: [section_id, section[0]])


def _listing(
    state: State,
    checkpoint: Checkpoint,
    row: Callable[[bytes, Section], Any],
    choose: Callable[[bytes, Section], bool] | None = None,
) -> list[Any]:
    sections = checkpoint.sections
    if len(sections) <= EAGER_ROWS:
        items = sections.items()
        return [state.revision, [row(*item) for item in items if not choose or choose(*item)]]
    return [state.revision, Listing(_frozen(state, checkpoint), row, choose)]


def _frozen(state: State, checkpoint: Checkpoint) -> Frozen:
    """The sections as they are; several listings of one state share a copy."""
    copies = _copies(state)
    frozen: Frozen | None = copies.get((checkpoint.uid, checkpoint.revision))
    if frozen is None:
        frozen = copies[checkpoint.uid, checkpoint.revision] = Frozen(checkpoint.sections.copy())
    return frozen


def _copies(state: State) -> WeakValueDictionary[tuple[int, int], Any]:
    copies = _shared.get(state)
    if copies is None:
        copies = _shared[state] = WeakValueDictionary()
    return copies


def image_rows(state: State, checkpoint: Checkpoint) -> Any:
    """All sections as [id, data, expiration]; rows of many are made while they are sent."""
    return _listing(state, checkpoint, lambda section_id, row: [section_id, row[0], row[1]])[1]


def _track_point(state: State, checkpoint: Checkpoint, query: ops.TrackPoint) -> Any:
    """Which generation of the name it is, and how far the state has come."""
    return [state.revision, checkpoint.uid]


def _read_versioned(state: State, checkpoint: Checkpoint, query: ops.ReadVersioned) -> Any:
    section = checkpoint.sections.get(query.section_id)
    if section is None:
        return _missing(query.section_id)
    return checkpoint.refuse_corrupted(query.section_id) or [section[3], section[0]]


def _section_ids(state: State, checkpoint: Checkpoint, query: ops.SectionIds) -> Any:
    return _listing(state, checkpoint, lambda section_id, _: section_id)


def _sections(state: State, checkpoint: Checkpoint, query: ops.Sections) -> Any:
    """``saCkptSectionIterationInitialize`` and Next, all at once."""
    chosen = query.chosen
    corrupted = checkpoint.corrupted  # as it is now: the rows are made later
    if chosen == Chosen.CORRUPTED and not corrupted:
        return [state.revision, []]
    row = _describer(corrupted)
    if chosen == Chosen.ANY:
        return _listing(state, checkpoint, row)
    if chosen == Chosen.CORRUPTED:
        return _listing(state, checkpoint, row, lambda section_id, _: section_id in corrupted)
    choose = _CHOOSE[chosen]
    return _listing(
        state,
        checkpoint,
        row,
        lambda section_id, section: choose(section_id, section, query.expiration_ns),
    )


def _page(
    state: State,
    checkpoint: Checkpoint,
    query: ops.SectionIdPage | ops.SectionPage,
    row: Callable[[bytes, Section], Any],
) -> list[Any]:
    """The sections of a page, in the order of their ids."""
    prefix, after = query.prefix, query.after
    first = prefix if after is None else max(prefix, after + b"\0")
    page = PageOf(_frozen(state, checkpoint), row, first, beyond(prefix), query.limit)
    if len(checkpoint.sections) > EAGER_ROWS:
        return [state.revision, page]
    for _ in page.prepare():
        pass
    return [state.revision, list(page.rows())]


def _section_id_page(state: State, checkpoint: Checkpoint, query: ops.SectionIdPage) -> Any:
    return _page(state, checkpoint, query, lambda section_id, _: section_id)


def _section_page(state: State, checkpoint: Checkpoint, query: ops.SectionPage) -> Any:
    return _page(state, checkpoint, query, _describer(checkpoint.corrupted))


def _checkpoint_page(state: State, query: ops.CheckpointPage, principal: int) -> list[Any]:
    """Checkpoints by name: those that have one, which the unlinked have not."""
    after, prefix = query.after, query.prefix
    first = prefix if after is None else max(prefix, after + "\0")
    names: Iterator[str] = takewhile(lambda name: name.startswith(prefix), state.order.begin(first))
    if state.access.on:
        rights = state.access.rights_of(principal)
        names = filter(lambda name: rights(name) & READING, names)
    chosen = islice(names, query.limit)
    return [describe(state, state.names[name], principal) for name in chosen]


def _describer(corrupted: frozenset[bytes]) -> Callable[[bytes, Section], SectionDescriptor]:
    """Return what describes a section of a checkpoint with these corrupted ones."""
    if not corrupted:
        return _descriptor

    def describe(section_id: bytes, section: Section) -> SectionDescriptor:
        descriptor = _descriptor(section_id, section)
        return descriptor._replace(state=_CORRUPTED) if section_id in corrupted else descriptor

    return describe


def _descriptor(section_id: bytes, section: Section) -> SectionDescriptor:
    return SectionDescriptor(
        section_id, section[1], len(section[0]), _VALID, section[2], section[3]
    )


def _section_statuses(state: State, checkpoint: Checkpoint, query: ops.SectionStatuses) -> Any:
    """Describe those of the sections named that exist, in the order of the names."""
    rows = []
    describe_section = _describer(checkpoint.corrupted)
    for section_id in query.section_ids:
        section = checkpoint.sections.get(section_id)
        if section is not None:
            rows.append(describe_section(section_id, section))
    return [state.revision, rows]


def _synchronize(state: State, checkpoint: Checkpoint, query: ops.Synchronize) -> Any:
    """``saCkptCheckpointSynchronize``, what only the state can tell: may it be done at all?"""
    return [state.revision]


def _leq(section_id: bytes, section: Section, time_ns: int) -> bool:
    """Expiration <= t; never the default section (as OpenSAF does)."""
    return section[1] <= time_ns and section_id != b""


_CHOOSE: Final[dict[int, Callable[[bytes, Section, int], bool]]] = {
    Chosen.FOREVER: lambda _, section, time_ns: section[1] == SA_TIME_MAX,
    Chosen.LEQ_EXPIRATION_TIME: _leq,
    Chosen.GEQ_EXPIRATION_TIME: lambda _, section, time_ns: section[1] >= time_ns,
    Chosen.CORRUPTED: lambda _, section, time_ns: False,
    Chosen.ANY: lambda _, section, time_ns: True,
}


_HEAD: Final = attrgetter(
    "uid",
    "name",
    "attributes",
    "memory_used",
    "created_ns",
    "revision",
    "active",
    "epoch",
    "exclusive",
    "unlinked",
    "retention_until_ns",
    "corrupted",
)


def describe(state: State, checkpoint: Checkpoint, principal: int = NOBODY) -> CheckpointDescriptor:
    """``saCkptCheckpointStatusGet`` and what an operator wants to know beside it.

    Names of sessions and nodes of other principals are for operators.
    """
    return _describe(
        _HEAD(checkpoint), len(checkpoint.sections), _openers(state, checkpoint, principal)
    )


def _openers(
    state: State, checkpoint: Checkpoint, principal: int
) -> list[tuple[int, str, str, int, int]]:
    sessions = state.sessions
    if state.access.operates(principal, checkpoint.name):
        return [
            (number, sessions[number].name, sessions[number].node, counts[1], counts[2])
            for number, counts in checkpoint.openers.items()
        ]
    return [
        (number, session.name, session.node, counts[1], counts[2])
        if (session := sessions[number]).principal == principal
        else (number, "", "", counts[1], counts[2])
        for number, counts in checkpoint.openers.items()
    ]


def _describe(
    head: tuple[Any, ...], sections: int, openers: list[tuple[int, str, str, int, int]]
) -> CheckpointDescriptor:
    uid, name, attributes, memory_used, created_ns, revision, *rest = head
    active, epoch, exclusive, unlinked, retention_until_ns, corrupted = rest
    return CheckpointDescriptor(
        uid,
        name,
        attributes,
        sections,
        memory_used,
        created_ns,
        revision,
        sorted(openers),
        active,
        epoch,
        exclusive,
        unlinked,
        retention_until_ns,
        len(corrupted),
    )


def _status(state: State, checkpoint: Checkpoint, principal: int) -> Any:
    return [state.revision, describe(state, checkpoint, principal)]


class _Checkpoints:
    """What describes every checkpoint, all at one index of the log; rows are made when asked for.

    Only what may change is taken at once, by calls that loop in C: a descriptor costs several
    times as much, and describing the checkpoints one after another would mix states.
    """

    __slots__ = ("__weakref__", "_heads", "_openers", "_sections")

    def __init__(self, state: State, principal: int) -> None:
        checkpoints = list(state.checkpoints.values())
        if state.access.on:
            rights = state.access.rights_of(principal)
            checkpoints = [each for each in checkpoints if rights(each.name) & READING]
        self._heads = list(map(_HEAD, checkpoints))
        self._sections = [len(checkpoint.sections) for checkpoint in checkpoints]
        if state.access.on:
            self._openers = [_openers(state, each, principal) for each in checkpoints]
            return
        sessions = state.sessions
        self._openers = [
            [
                (number, sessions[number].name, sessions[number].node, counts[1], counts[2])
                for number, counts in checkpoint.openers.items()
            ]
            for checkpoint in checkpoints
        ]

    def __len__(self) -> int:
        return len(self._heads)

    def prepare(self) -> Iterator[None]:
        """Nothing is to be done before the first row."""
        return iter(())

    def rows(self) -> Iterator[CheckpointDescriptor]:
        """Yield the rows in the order of creation."""
        return map(_describe, self._heads, self._sections, self._openers)


def _checkpoints(state: State, principal: int) -> list[CheckpointDescriptor] | _Checkpoints:
    """Every checkpoint that may be read, in the order of creation, unlinked ones included."""
    if len(state.checkpoints) <= EAGER_ROWS:
        return list(_Checkpoints(state, principal).rows())
    copies = _copies(state)
    # opening and closing take no revision, but they are entries of the log
    key = _ALL_CHECKPOINTS - principal if state.access.on else _ALL_CHECKPOINTS
    found = copies.get((key, state.applied_index))
    if not isinstance(found, _Checkpoints):
        found = copies[key, state.applied_index] = _Checkpoints(state, principal)
    return found


def _limits(state: State) -> list[list[Any]]:
    """[name, value, used, least, most, unit] of each limit of the state; used: None if none is."""
    used = {
        "memory": state.used,
        "staged": state.staged_bytes,
        "sessions": len(state.sessions),
        "checkpoints": len(state.checkpoints),
        "groups": len(state.groups.by_name),
    }
    return [
        [name, state.bounds.value(name), used.get(name), bound.least, bound.most, bound.unit]
        for name, bound in BOUNDS.items()
    ]


_Function = Callable[[State, Checkpoint, Any], Any]

_QUERIES: Final[dict[type[Any], tuple[_Function, _RefuseHandle]]] = {
    ops.Read: (_read, _reading),
    ops.ReadAll: (_read_all, _reading),
    ops.Status: (_status, _looking),
    ops.Sections: (_sections, _looking),
    ops.ReadVersioned: (_read_versioned, _reading),
    ops.SectionIds: (_section_ids, _reading),
    ops.SectionStatuses: (_section_statuses, _looking),
    ops.SectionIdPage: (_section_id_page, _reading),
    ops.SectionPage: (_section_page, _looking),
    ops.Synchronize: (_synchronize, _synchronizing),
    ops.TrackPoint: (_track_point, _tracking),
}
"""What answers a query about a checkpoint, and what it asks of a handle."""
_RIGHTS: Final = {kind: RIGHTS[OPERATIONS[kind].needs] for kind in _QUERIES}
"""What is to be granted on its name: as it is declared."""

_WHOLE: Final = (ops.Checkpoints, ops.CheckpointPage, ops.LimitsRequest)
"""Queries about all there is."""

ensure(
    {*_QUERIES, *group_commands.QUERIES, *access_commands.QUERIES, *_WHOLE} == ops.QUERIES,
    "every query has what answers it",
)

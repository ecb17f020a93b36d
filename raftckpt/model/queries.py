"""Queries: they read the applied state and change nothing.

A target is a handle of the attached session, with its rights and the rule that an asynchronous
collocated checkpoint without an active replica refuses, or a checkpoint's name: an
administrative read that needs neither an open nor a session and always shows what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from raftckpt.errors import SaAisError
from raftckpt.limits import SA_TIME_MAX, VECTOR_ELEMENTS_MAX
from raftckpt.model import group_commands
from raftckpt.model.checkpoints import B01, Checkpoint, Section
from raftckpt.model.express import plain_read
from raftckpt.model.schema import invalid, schema_refusal
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
from raftckpt.model.values import Frozen, Listing, share

__all__ = ["EAGER_ROWS", "QUERY_TAGS", "answer", "describe", "image_rows"]

_NONE: Final = type(None)
_VALID: Final = int(SectionState.VALID)
_CORRUPTED: Final = int(SectionState.CORRUPTED)
_TARGET: Final = (int, str)
EAGER_ROWS: Final = 256
"""A longer answer is frozen by one copy of the dict and its rows are made while it is sent."""
_TRACK_POINT: Final = 113
_ALL_CHECKPOINTS: Final = 0
"""In the place of a uid; uids begin with 1."""

_shared: WeakKeyDictionary[State, WeakValueDictionary[tuple[int, int], Any]] = WeakKeyDictionary()
"""What listings under way were frozen from, by (uid, revision): a hundred pipelined listings of an
unchanged checkpoint share one copy, which goes with the last of them. It decides nothing."""
_ELEMENTS: Final = frozenset({(bytes, int, int), (bytes, int, _NONE)})


def answer(state: State, session: int | None, tag: int, args: Any) -> Result:
    """Answer a query; total."""
    if tag == 100 and type(tag) is int and type(args) is list and len(args) == 2:
        read = plain_read(state, session, args[0], args[1])
        if read is not None:
            return read
    if type(tag) is int and tag in group_commands.QUERIES:
        kinds_of_group, _ = group_commands.QUERIES[tag]
        if type(args) is not list or tuple(map(type, args)) != kinds_of_group:
            return schema_refusal("query")
        return group_commands.answer(state, session, tag, args)
    row = _QUERIES.get(tag) if type(tag) is int else None
    if row is None:
        return refuse(SaAisError.ERR_NOT_SUPPORTED, "unknown")
    kinds, function, refuse_handle = row
    if type(args) is not list or len(args) != len(kinds):
        return schema_refusal("query")
    for value, kind in zip(args, kinds, strict=True):
        if type(value) not in kind:
            return schema_refusal("query")
    if not kinds:
        return success([state.revision, _checkpoints(state)])
    if args[0] is None:
        return success([state.revision, 0])
    target = _target(state, session, args[0], refuse_handle)
    if isinstance(target, Result):
        return target
    result = function(state, target, args[1:])
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
    refusal = None if flags & B01 else checkpoint.refuse_reader(flags)
    return refusal or checkpoint.refuse_inactive()


def _synchronizing(checkpoint: Checkpoint, flags: int) -> Result | None:
    refusal = checkpoint.refuse_writer(flags)
    if refusal is None and not checkpoint.attributes.asynchronous:
        refusal = refuse(SaAisError.ERR_BAD_OPERATION, "synchronous")
    return refusal or checkpoint.refuse_inactive()


def _target(
    state: State, number: int | None, target: int | str, refuse_handle: _RefuseHandle
) -> Checkpoint | Result:
    """Find the checkpoint; check session, handle, right and active replica, in this order."""
    if isinstance(target, str):
        checkpoint = state.names.get(target)
        if checkpoint is None:
            return refuse(SaAisError.ERR_NOT_EXIST, "checkpoint_missing", target)
        return checkpoint
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


def _read(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    """``saCkptCheckpointRead``: all elements of one state."""
    elements = args[0]
    if len(elements) > VECTOR_ELEMENTS_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "vector elements")
    values = []
    for position, element in enumerate(elements):
        value = _read_element(checkpoint, element, position)
        if isinstance(value, Result):
            return value
        values.append(value)
    return [state.revision, values]


def _read_element(checkpoint: Checkpoint, element: Any, position: int) -> Any:
    if type(element) is not list or tuple(map(type, element)) not in _ELEMENTS:
        return refuse(SaAisError.ERR_INVALID_PARAM, "schema", "vector", position)
    section_id, offset, size = element
    if offset < 0 or (size is not None and size < 0):
        return invalid("offset" if offset < 0 else "size", position)
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


def _read_all(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
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
    copies = _copies(state)
    frozen = copies.get((checkpoint.uid, checkpoint.revision))
    if frozen is None:
        frozen = copies[checkpoint.uid, checkpoint.revision] = Frozen(sections.copy())
    return [state.revision, Listing(frozen, row, choose)]


def _copies(state: State) -> WeakValueDictionary[tuple[int, int], Any]:
    copies = _shared.get(state)
    if copies is None:
        copies = _shared[state] = WeakValueDictionary()
    return copies


def image_rows(state: State, checkpoint: Checkpoint) -> Any:
    """All sections as [id, data, expiration]; rows of many are made while they are sent."""
    return _listing(state, checkpoint, lambda section_id, row: [section_id, row[0], row[1]])[1]


def _track_point(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    """Which generation of the name it is, and how far the state has come."""
    return [state.revision, checkpoint.uid]


def _read_versioned(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    section = checkpoint.sections.get(args[0])
    if section is None:
        return _missing(args[0])
    return checkpoint.refuse_corrupted(args[0]) or [section[3], section[0]]


def _section_ids(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    return _listing(state, checkpoint, lambda section_id, _: section_id)


def _sections(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    """``saCkptSectionIterationInitialize`` and Next, all at once."""
    chosen, expiration_ns = args
    if chosen not in _CHOOSE:
        return invalid("chosen")
    if not 0 <= expiration_ns <= SA_TIME_MAX:
        return invalid("expiration_ns")
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
        lambda section_id, section: choose(section_id, section, expiration_ns),
    )


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


def _section_statuses(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    """Describe those of the sections named that exist, in the order of the names."""
    section_ids = args[0]
    if len(section_ids) > VECTOR_ELEMENTS_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "vector elements")
    rows = []
    describe_section = _describer(checkpoint.corrupted)
    for section_id in section_ids:
        if type(section_id) is not bytes:
            return schema_refusal("query")
        section = checkpoint.sections.get(section_id)
        if section is not None:
            rows.append(describe_section(section_id, section))
    return [state.revision, rows]


def _synchronize(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
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


def describe(state: State, checkpoint: Checkpoint) -> CheckpointDescriptor:
    """``saCkptCheckpointStatusGet`` and what an operator wants to know beside it."""
    sessions = state.sessions
    openers = [
        (number, sessions[number].name, sessions[number].node, counts[1], counts[2])
        for number, counts in checkpoint.openers.items()
    ]
    return _describe(_HEAD(checkpoint), len(checkpoint.sections), openers)


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


def _status(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    return [state.revision, describe(state, checkpoint)]


class _Checkpoints:
    """What describes every checkpoint, all at one index of the log; rows are made when asked for.

    Only what may change is taken at once, by calls that loop in C: a descriptor costs several
    times as much, and describing the checkpoints one after another would mix states.
    """

    __slots__ = ("__weakref__", "_heads", "_openers", "_sections")

    def __init__(self, state: State) -> None:
        checkpoints = state.checkpoints.values()
        self._heads = list(map(_HEAD, checkpoints))
        self._sections = [len(checkpoint.sections) for checkpoint in checkpoints]
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


def _checkpoints(state: State) -> list[CheckpointDescriptor] | _Checkpoints:
    """Every checkpoint in the order of creation, unlinked ones included."""
    if len(state.checkpoints) <= EAGER_ROWS:
        return [describe(state, checkpoint) for checkpoint in state.checkpoints.values()]
    copies = _copies(state)
    # opening and closing take no revision, but they are entries of the log
    found = copies.get((_ALL_CHECKPOINTS, state.applied_index))
    if not isinstance(found, _Checkpoints):
        found = copies[_ALL_CHECKPOINTS, state.applied_index] = _Checkpoints(state)
    return found


_Query = Callable[[State, Checkpoint, list[Any]], Any]

_QUERIES: Final[dict[int, tuple[tuple[tuple[type, ...], ...], _Query, _RefuseHandle]]] = {
    100: ((_TARGET, (list,)), _read, _reading),
    101: ((_TARGET,), _read_all, _reading),
    102: ((_TARGET,), _status, _looking),
    103: ((_TARGET, (int,), (int,)), _sections, _looking),
    104: ((), _status, _reading),
    105: ((_TARGET, (bytes,)), _read_versioned, _reading),
    106: ((_TARGET,), _section_ids, _reading),
    108: ((_TARGET, (list,)), _section_statuses, _looking),
    109: ((_TARGET,), _synchronize, _synchronizing),
    _TRACK_POINT: (((int, str, _NONE),), _track_point, _tracking),
}

QUERY_TAGS: Final = frozenset(_QUERIES) | frozenset(group_commands.QUERIES)
"""Numbers of the queries in the client protocol."""

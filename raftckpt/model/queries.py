"""Queries: they read the applied state and change nothing.

A target is a handle of the attached session, with its rights and the rule that an asynchronous
collocated checkpoint without an active replica refuses, or a checkpoint's name: an
administrative read that needs neither an open nor a session and always shows what there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raftckpt.errors import SaAisError
from raftckpt.limits import SA_TIME_MAX, VECTOR_ELEMENTS_MAX
from raftckpt.model.checkpoints import Checkpoint, Section
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
from raftckpt.model.values import Listing, cut

__all__ = ["QUERY_TAGS", "answer", "describe"]

_NONE: Final = type(None)
_VALID: Final = int(SectionState.VALID)
_TARGET: Final = (int, str)
_EAGER_ROWS: Final = 256
"""A longer answer is frozen by one copy of the dict and its rows are made while it is sent."""
_ELEMENTS: Final = frozenset({(bytes, int, int), (bytes, int, _NONE)})


def answer(state: State, session: int | None, tag: int, args: Any) -> Result:
    """Answer a query; total."""
    row = _QUERIES.get(tag) if type(tag) is int else None
    if row is None:
        return refuse(SaAisError.ERR_NOT_SUPPORTED, "unknown")
    kinds, function = row
    if type(args) is not list or len(args) != len(kinds):
        return schema_refusal("query")
    for value, kind in zip(args, kinds, strict=True):
        if type(value) not in kind:
            return schema_refusal("query")
    if not kinds:
        return success([state.revision, _checkpoints(state)])
    target = _target(state, session, args[0])
    if isinstance(target, Result):
        return target
    result = function(state, target, args[1:])
    return result if isinstance(result, Result) else success(result)


def _target(state: State, number: int | None, target: int | str) -> Checkpoint | Result:
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
    return checkpoint.refuse_reader(flags) or checkpoint.refuse_inactive() or checkpoint


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
    length = len(section[0])
    if offset > length:
        return refuse(SaAisError.ERR_INVALID_PARAM, "offset", length, position)
    return cut(section[0], offset, length if size is None else size)


def _read_all(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    return _listing(state, checkpoint, lambda section_id, section: [section_id, section[0]])


def _listing(
    state: State, checkpoint: Checkpoint, row: Callable[[bytes, Section], Any]
) -> list[Any]:
    sections = checkpoint.sections
    if len(sections) <= _EAGER_ROWS:
        return [state.revision, [row(*item) for item in sections.items()]]
    return [state.revision, Listing(sections.copy(), row)]


def _read_versioned(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    section = checkpoint.sections.get(args[0])
    return _missing(args[0]) if section is None else [section[3], section[0]]


def _section_ids(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    return _listing(state, checkpoint, lambda section_id, _: section_id)


def _sections(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    """``saCkptSectionIterationInitialize`` and Next, all at once."""
    chosen, expiration_ns = args
    if chosen not in _CHOOSE:
        return invalid("chosen")
    if not 0 <= expiration_ns <= SA_TIME_MAX:
        return invalid("expiration_ns")
    if chosen == Chosen.ANY:
        return _listing(state, checkpoint, _descriptor)
    choose = _CHOOSE[chosen]
    return [
        state.revision,
        [
            _descriptor(section_id, section)
            for section_id, section in checkpoint.sections.items()
            if choose(section_id, section, expiration_ns)
        ],
    ]


def _descriptor(section_id: bytes, section: Section) -> SectionDescriptor:
    return SectionDescriptor(
        section_id, section[1], len(section[0]), _VALID, section[2], section[3]
    )


def _leq(section_id: bytes, section: Section, time_ns: int) -> bool:
    """Expiration <= t; never the default section (as OpenSAF does)."""
    return section[1] <= time_ns and section_id != b""


_CHOOSE: Final[dict[int, Callable[[bytes, Section, int], bool]]] = {
    Chosen.FOREVER: lambda _, section, time_ns: section[1] == SA_TIME_MAX,
    Chosen.LEQ_EXPIRATION_TIME: _leq,
    Chosen.GEQ_EXPIRATION_TIME: lambda _, section, time_ns: section[1] >= time_ns,
    Chosen.CORRUPTED: lambda _, section, time_ns: False,  # WEAK never corrupts here
    Chosen.ANY: lambda _, section, time_ns: True,
}


def describe(state: State, checkpoint: Checkpoint) -> CheckpointDescriptor:
    """``saCkptCheckpointStatusGet`` and what an operator wants to know beside it."""
    openers = []
    for number in sorted(checkpoint.openers):
        session = state.sessions[number]
        _, reads, writes = checkpoint.openers[number]
        openers.append((number, session.name, session.node, reads, writes))
    return CheckpointDescriptor(
        checkpoint.uid,
        checkpoint.name,
        checkpoint.attributes,
        len(checkpoint.sections),
        checkpoint.memory_used,
        checkpoint.created_ns,
        checkpoint.revision,
        openers,
        checkpoint.active,
        checkpoint.epoch,
        checkpoint.exclusive,
        checkpoint.unlinked,
        checkpoint.retention_until_ns,
    )


def _status(state: State, checkpoint: Checkpoint, args: list[Any]) -> Any:
    return [state.revision, describe(state, checkpoint)]


def _checkpoints(state: State) -> list[CheckpointDescriptor]:
    """Every checkpoint in the order of creation, unlinked ones included."""
    return [describe(state, checkpoint) for checkpoint in state.checkpoints.values()]


_Query = Callable[[State, Checkpoint, list[Any]], Any]

_QUERIES: Final[dict[int, tuple[tuple[tuple[type, ...], ...], _Query]]] = {
    100: ((_TARGET, (list,)), _read),
    101: ((_TARGET,), _read_all),
    102: ((_TARGET,), _status),
    103: ((_TARGET, (int,), (int,)), _sections),
    104: ((), _status),
    105: ((_TARGET, (bytes,)), _read_versioned),
    106: ((_TARGET,), _section_ids),
}

QUERY_TAGS: Final = frozenset(_QUERIES)
"""Numbers of the queries in the client protocol."""

"""Commands ask for the right that their declaration says they need, all of them here.

What is named by a handle asks the flags of the handle, which were cut when it was opened: that is
the function's own, so the hot path asks nothing more. What is named otherwise is wrapped, by its
declaration alone: a new command cannot forget it. Whoever may not see a name gets the answer that
there is nothing of that name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raftckpt.errors import SaAisError, ensure
from raftckpt.model.access import (
    CREATING,
    DROPPING,
    OPERATING,
    READING,
    VISIBLE,
    WRITING,
    not_granted,
)
from raftckpt.model.groups import name_in_spaces
from raftckpt.model.sessions import Session
from raftckpt.model.state import State
from raftckpt.model.types import Result, refuse
from raftckpt.protocol import operations as ops
from raftckpt.protocol.operations import OPERATIONS, Right

__all__ = ["RIGHTS", "asking"]

_Handler = Callable[[State, Session, Any], Result]

RIGHTS: Final = {
    Right.READ: READING,
    Right.WRITE: WRITING,
    Right.CREATE: CREATING,
    Right.DROP: DROPPING,
    Right.OPERATE: OPERATING,
}
"""What is to be granted for what an operation needs; nothing for what only needs a session."""


def asking(record: type[Any], handler: _Handler) -> _Handler:
    """Return what executes a command of a session, with the question for its right before it."""
    row = OPERATIONS[record]
    right, fields = RIGHTS.get(row.needs), row.fields
    if right is None or record is ops.CheckpointOpen:  # which cuts what it is asked for
        return handler
    if "handle" in fields:
        return _operating_handle(handler) if right == OPERATING else handler
    if right == OPERATING:
        return _operating_group(handler) if "group" in fields else _operating(handler)
    if record is ops.GroupJoin:  # it makes the group if there is none
        return _joining(handler)
    ensure(right == DROPPING and "name" in fields, f"{row.name} says whom it asks for its right")
    return _dropping(handler)


def _operating(handler: _Handler) -> _Handler:
    """The right over the cluster."""

    def ask(state: State, session: Session, c: Any) -> Result:
        if state.access.operates(session.principal):
            return handler(state, session, c)
        return not_granted(OPERATING)

    return ask


def _operating_handle(handler: _Handler) -> _Handler:
    """The right over what a handle stands for, beside what its flags say."""

    def ask(state: State, session: Session, c: Any) -> Result:
        opened = session.handles.get(c.handle)
        if opened is None or state.access.operates(session.principal, opened[0].name):
            return handler(state, session, c)
        return not_granted(OPERATING)

    return ask


def _operating_group(handler: _Handler) -> _Handler:
    def ask(state: State, session: Session, c: Any) -> Result:
        access, name = state.access, name_in_spaces(c.group)
        if access.operates(session.principal, name):
            return handler(state, session, c)
        if access.rights(session.principal, name) & VISIBLE and c.group in state.groups.by_name:
            return not_granted(OPERATING)
        return refuse(SaAisError.ERR_NOT_EXIST, "group_missing", c.group)

    return ask


def _joining(handler: _Handler) -> _Handler:
    def ask(state: State, session: Session, c: Any) -> Result:
        if state.access.rights(session.principal, name_in_spaces(c.group)) & WRITING:
            return handler(state, session, c)
        return not_granted(WRITING)

    return ask


def _dropping(handler: _Handler) -> _Handler:
    def ask(state: State, session: Session, c: Any) -> Result:
        rights = state.access.rights(session.principal, c.name)
        if rights & DROPPING:
            return handler(state, session, c)
        if rights & VISIBLE and c.name in state.names:
            return not_granted(DROPPING)
        return refuse(SaAisError.ERR_NOT_EXIST, "checkpoint_missing", c.name)

    return ask

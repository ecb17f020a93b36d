"""The operations on service groups: arguments in, a call out."""

from __future__ import annotations

from typing import Any, Final

from raftckpt.client.calls import Call, Needs
from raftckpt.client.types import duration_ns
from raftckpt.errors import InvalidParam, TooBig
from raftckpt.model.groups import Operation
from raftckpt.protocol import contract
from raftckpt.protocol import operations as ops
from raftckpt.protocol.replies import CONSISTENCY_LOCAL

__all__ = ["admin", "alive", "group_status", "groups", "join", "leave", "name_of", "respond"]

_COMMAND: Final = Needs.COMMAND


def name_of(value: str, what: str) -> str:
    """Check the name of a group or component.

    Raises:
        InvalidParam: it is empty or no text.
        TooBig: it is too long.
    """
    if not isinstance(value, str) or not value:
        raise InvalidParam(f"{what} is a text that is not empty, not {value!r}", reason="param")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidParam(f"{what} is no valid text: {value!r}", reason="param") from None
    if size > contract.GROUP_NAME_BYTES_MAX:
        raise TooBig(f"{what} has at most {contract.GROUP_NAME_BYTES_MAX} bytes", reason="limit")
    return value


def silence_ns(seconds: float, what: str) -> int:
    """Check a time of silence.

    Raises:
        InvalidParam: it is out of range.
    """
    low, high = contract.COMPONENT_SILENCE_NS_MIN, contract.COMPONENT_SILENCE_NS_MAX
    time_ns = duration_ns(seconds, what)
    if not low <= time_ns <= high:
        raise InvalidParam(f"{what} is {low / 1e9:g}..{high / 1e9:g} seconds, not {seconds!r}")
    return time_ns


def join(
    group: str, component: str, rank: int, response_timeout: float, health_check: float | None
) -> Call:
    """Build the join of a component -> [member number, assignment]."""
    if type(rank) is not int or not 0 <= rank <= contract.COMPONENT_RANK_MAX:
        raise InvalidParam(f"a rank is 0..{contract.COMPONENT_RANK_MAX}, not {rank!r}")
    message = ops.GroupJoin(
        0,
        0,
        0,
        name_of(group, "the name of a group"),
        name_of(component, "the name of a component"),
        rank,
        silence_ns(response_timeout, "response_timeout"),
        0 if health_check is None else silence_ns(health_check, "health_check"),
    )
    return Call(f"join group {group!r} as {component!r}", _COMMAND, message)


def leave(group: str, component: str, *, failed: bool) -> Call:
    """Build the leave of a component; ``failed``: it came to an end by itself."""
    what = f"leave group {group!r} as {component!r}"
    return Call(what, _COMMAND, ops.GroupLeave(0, 0, 0, group, component, failed))


def respond(group: str, component: str, assignment: int, ok: bool) -> Call:
    """Build the answer to an assignment."""
    what = f"answer assignment {assignment} of group {group!r}"
    return Call(what, _COMMAND, ops.GroupRespond(0, 0, 0, group, component, assignment, ok))


def alive(member: int) -> Call:
    """Build a sign of life."""
    message = ops.ComponentAlive(0, 0, CONSISTENCY_LOCAL, member)
    return Call("sign of life", Needs.ATTACHED, message)


def admin(group: str, operation: Operation, component: str | None = None) -> Call:
    """Build an operator's wish about a group."""
    word = operation.name.lower().replace("_", "-")
    message = ops.GroupAdmin(
        0,
        0,
        0,
        name_of(group, "the name of a group"),
        int(operation),
        None if component is None else name_of(component, "the name of a component"),
    )
    return Call(f"{word} group {group!r}", _COMMAND, message)


def groups() -> Call:
    """Build the listing of all groups."""
    return Call("list groups", Needs.LEADER, ops.GroupsRequest(0, 0, 0), decode=_second)


def group_status(group: str) -> Call:
    """Build the description of a group."""
    message = ops.GroupStatusRequest(0, 0, 0, name_of(group, "the name of a group"))
    return Call(f"show group {group!r}", Needs.LEADER, message, decode=_second)


def _second(value: Any) -> Any:
    return value[1]

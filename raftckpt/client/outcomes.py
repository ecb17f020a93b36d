"""What a caller is told: the error for a refusal, a passed deadline, a lost session.

The one rule: an error is definite only if it is certain that the call had and will have no effect.
"""

from __future__ import annotations

from typing import Any

from raftckpt.client.calls import Call, Needs
from raftckpt.errors import (
    REASONS,
    CheckpointError,
    Conflict,
    SessionLost,
    Timeout,
    TryAgain,
    Unavailable,
    error_for,
)
from raftckpt.protocol.operations import CheckpointTransaction

__all__ = ["at_deadline", "interrupted", "lost", "recorded", "refused"]

_NOT_RECORDED = frozenset(
    {
        "schema",
        "entry_too_big",
        "level",
        "session",
        "secret",
        "answered",
        "stopping",
        "not_local",
        "full",
    }
)
"""Reasons of refusals that the replica gives without the state machine having consumed the
sequence number of the command. (Neither does any TRY_AGAIN.)
"""


def recorded(reason: str) -> bool:
    """Whether a refusal (other than TRY_AGAIN) is the remembered outcome of its number."""
    return reason not in _NOT_RECORDED


def refused(
    call: Call, code: int, reason: str, detail: Any, index: int | None, definite: bool
) -> CheckpointError:
    """Return the error for a final refusal."""
    if call.uncertain and not recorded(reason):
        definite = False  # this copy was refused, an earlier one may have been executed
    error = error_for(code, reason, detail, definite=definite, index=index)
    text = f"{call.what}: {error.message}"
    if index is not None:
        word = "part" if isinstance(call.message, CheckpointTransaction) else "vector element"
        text += f" ({word} {index})"
    if code == 2 and reason not in REASONS:
        text += "; the replica's log may tell more"
    error.message = text
    error.args = (text,)
    error.reason = reason
    if isinstance(error, Conflict):
        error.section = _section(call.message, index or 0)
    return error


def _section(message: Any, position: int) -> bytes | None:
    """Id of the section that a part of a command is about."""
    parts = message.parts if isinstance(message, CheckpointTransaction) else [message.part]
    section_id: bytes | None = parts[position][1] if position < len(parts) else None
    return section_id


def at_deadline(call: Call, *, reached: bool, where: str) -> CheckpointError:
    """Return the error for a call whose deadline has passed.

    Arguments:
        call: the call.
        reached: whether any replica answered at all while it waited.
        where: endpoints and what is known about them, in words.
    """
    seconds = f"{round(call.deadline - call.started, 3):g} s"
    if call.uncertain or call.wire_id or call.accepted:
        if call.needs in (Needs.COMMAND, Needs.LEADER_ONCE):
            return Timeout(
                f"{call.what}: no answer within {seconds} ({where}); it may or may not have "
                "happened: read the state before repeating it"
            )
        return Timeout(
            f"{call.what}: no answer within {seconds} ({where}); repeat it, with a longer timeout",
            definite=True,
        )
    if call.needs is Needs.BARRIER:
        return Timeout(
            f"{call.what}: earlier writes were not confirmed within {seconds} ({where}); "
            "they go on being repeated: call synchronize() again"
        )
    if call.refusal is not None:
        reason, detail = call.refusal
        text = error_for(6, reason if reason in REASONS else "", detail).message
        return TryAgain(
            f"{call.what}: not done within {seconds}: {text} ({where}); nothing happened: "
            "repeat it later",
            reason=reason,
            detail=detail,
        )
    if reached:
        return TryAgain(
            f"{call.what}: not done within {seconds}: no replica was ready to take it ({where}); "
            "nothing happened: repeat it later or allow more time"
        )
    return Unavailable(
        f"{call.what}: no replica could be reached within {seconds} ({where}); nothing happened: "
        "check that the cluster runs and the endpoints are right"
    )


def lost(call: Call, why: str) -> SessionLost:
    """Return the error for a call that was pending when the session ended."""
    uncertain = call.uncertain or bool(call.wire_id) or call.accepted
    definite = call.needs is not Needs.BARRIER and not (uncertain and call.needs is Needs.COMMAND)
    outcome = "nothing happened" if definite else "it may or may not have happened"
    return SessionLost(
        f"{call.what}: the session ended ({why}); {outcome}; connect again",
        definite=definite,
        reason="session",
    )


def interrupted(call: Call, where: str) -> Timeout:
    """Return the error for a call that must not be repeated and whose connection broke."""
    return Timeout(
        f"{call.what}: the connection was lost before the answer came ({where}); it may or may "
        "not have happened: look at the cluster's status"
    )

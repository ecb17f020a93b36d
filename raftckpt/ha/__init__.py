"""Roles for programs: one active, ranked standbys, moved by the cluster within milliseconds.

Example::

    with ha.connect("127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403") as service:
        component = ha.Component(service, "counters", "c1", on_active=work, on_standby=wait)
        component.run()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftckpt.ha.sync import Component, Group, Lease, connect, groups, lease
from raftckpt.ha.types import LATER, Assignment, GroupStatus, GroupSummary, MemberStatus
from raftckpt.model.groups import AdminState, HaState, Transition

if TYPE_CHECKING:
    from raftckpt.ha import aio

__all__ = [
    "LATER",
    "AdminState",
    "Assignment",
    "Component",
    "Group",
    "GroupStatus",
    "GroupSummary",
    "HaState",
    "Lease",
    "MemberStatus",
    "Transition",
    "aio",
    "connect",
    "groups",
    "lease",
]


def __getattr__(name: str) -> Any:
    if name == "aio":
        import raftckpt.ha.aio

        return raftckpt.ha.aio
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What operators do with service groups; blocking. The asyncio face is in ``ha.aio``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftckpt.client import group_operations
from raftckpt.client.blocking import Service
from raftckpt.client.calls import Call
from raftckpt.ha.types import GroupStatus, GroupSummary
from raftckpt.model.groups import AdminState, Operation

__all__ = ["Group", "groups"]


def groups(service: Service, *, timeout: float | None = None) -> list[GroupSummary]:
    """List the service groups."""
    rows = service._driver.run(group_operations.groups(), timeout)
    return [GroupSummary.from_wire(row) for row in rows]


class Group:
    """A service group, for operators.

    Every change returns when it is decided; the components carry it out after that, which
    :meth:`status` shows. All of them may be repeated.

    Raises:
        NotExist: no component ever joined a group of this name.
    """

    def __init__(self, service: Service, name: str) -> None:
        self.name = group_operations.name_of(name, "the name of a group")
        self._run: Callable[[Call, float | None], Any] = service._driver.run

    def status(self, *, timeout: float | None = None) -> GroupStatus:
        """Describe the group and its components."""
        return GroupStatus.from_wire(self._run(group_operations.group_status(self.name), timeout))

    def _admin(self, operation: Operation, timeout: float | None, target: str | None = None) -> Any:
        return self._run(group_operations.admin(self.name, operation, target), timeout)

    def unlock(self, *, timeout: float | None = None) -> AdminState:
        """Let components be active and stand by."""
        return AdminState(self._admin(Operation.UNLOCK, timeout))

    def lock(self, *, timeout: float | None = None) -> AdminState:
        """Have the active quiesce at once, then take all assignments away; components stay."""
        return AdminState(self._admin(Operation.LOCK, timeout))

    def lock_instantiation(self, *, timeout: float | None = None) -> AdminState:
        """Lock, and have supervisors (``raftckpt run``) end the components."""
        return AdminState(self._admin(Operation.LOCK_INSTANTIATION, timeout))

    def shutdown(self, *, timeout: float | None = None) -> AdminState:
        """Have the active finish what it is at, then lock.

        Raises:
            BadOperation: the group is not unlocked.
        """
        return AdminState(self._admin(Operation.SHUTDOWN, timeout))

    def swap(self, to: str | None = None, *, timeout: float | None = None) -> None:
        """Hand ACTIVE over in an orderly way.

        Arguments:
            to: name of the standby that is to get it; None: the next in rank.
            timeout: seconds.

        Raises:
            BadOperation: nobody is active or ready, or a hand-over is under way.
        """
        self._admin(Operation.SWAP, timeout, to)

    def delete(self, *, timeout: float | None = None) -> None:
        """Forget a group without components.

        Raises:
            BadOperation: it has some.
        """
        self._admin(Operation.DELETE, timeout)

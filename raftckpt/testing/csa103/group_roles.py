"""Roles by a service group: the cluster itself says who is active, and keeps the standby hot.

The component tracks the checkpoint while it stands by. When it is told to be active it was sent
every number the previous active got committed, and goes on without a read.
"""

from __future__ import annotations

import struct
from typing import Protocol

from raftckpt import Change, ha
from raftckpt.testing.csa103.checkpoint_fns import CKPT_NAME, CKPT_SID_NAME

__all__ = ["GROUP", "GroupRoles", "Roled"]

GROUP = "csa103SGI0"


class Roled(Protocol):
    """Who is given a role."""

    def activate(self, known: int | None, /) -> None:
        """Be active, and go on after the number that is known."""

    def deactivate(self) -> None:
        """Be active no more."""


class GroupRoles:
    """Takes the place of standard input in the component's loop; joins when the loop begins.

    Arguments:
        endpoints: "host:port,..." or the path of a cluster.yaml.
        node: node id this component counts as; None: that of the replica first connected to.
        name: of the component.
        group: service group.
    """

    def __init__(self, endpoints: str, node: str | None, name: str, group: str = GROUP) -> None:
        self._endpoints = endpoints
        self._node = node
        self._name = name
        self._group = group
        self._known: dict[bytes, bytes] = {}
        self._ha: ha.Component | None = None
        self._component: Roled | None = None

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to dispatch."""
        if self._ha is None:
            self._ha = self._join()
        return self._ha.fileno()

    def dispatch(self, component: Roled) -> bool:
        """Take changes and assignments; it goes on for ever."""
        self._component = component
        if self._ha is not None:
            self._ha.dispatch()
        return True

    def _join(self) -> ha.Component:
        service = ha.connect(self._endpoints, node=self._node, name=f"{self._name} (roles)")
        joined = ha.Component(
            service,
            self._group,
            self._name,
            on_active=self._active,
            on_standby=self._idle,
            on_quiesced=self._idle,
            on_unassigned=self._idle,
            on_removed=self._idle,
        )
        joined.track(CKPT_NAME, self._changed)
        return joined

    def _changed(self, change: Change) -> None:
        change.apply_to(self._known)

    def _active(self, assignment: ha.Assignment) -> None:
        data = self._known.get(CKPT_SID_NAME)
        if self._component is not None:
            self._component.activate(None if data is None else int(struct.unpack("!I", data)[0]))

    def _idle(self, assignment: ha.Assignment) -> None:
        if self._component is not None:
            self._component.deactivate()

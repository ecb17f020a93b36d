"""What programs of other implementations are used to and the standard does not have: opt-in.

``Settings.compat`` names the implementations whose habits count, for everybody in the process. Each
function returns what a program meant by an argument; without the opt-in that is what it said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from raftckpt.limits import SECOND_NS
from raftckpt.model.types import CreationFlags
from raftckpt.protocol.contract import SA_TIME_MAX
from raftckpt.saf.initialization import OpenCheckpoint
from raftckpt.saf.settings import Settings, current_rules
from raftckpt.saf.types import SaCkptCheckpointCreationAttributesT

__all__ = ["attributes_meant", "open_timeout_meant", "time_meant", "time_meant_for"]

_FOR_EVER: Final = -1  # how programs for SAFplus write a time without end
_SAFPLUS_FLAGS: Final = 0x1F0
"""CL_CKPT_DISTRIBUTED, _WR_ALL_SAFE, _ALL_OPEN_ARE_REPLICAS, _PEER_TO_PEER_REPLICA, _CACHE_DISABLE:
all is replicated, and told to who wants to know, without them."""
_UPDATE_OPTIONS: Final = int(
    CreationFlags.WR_ALL_REPLICAS
    | CreationFlags.WR_ACTIVE_REPLICA
    | CreationFlags.WR_ACTIVE_REPLICA_WEAK
)


def time_meant(time: Any, settings: Settings) -> Any:
    """SAFplus: -1 is for ever, as a time, a timeout and a retention."""
    return SA_TIME_MAX if time == _FOR_EVER and "safplus" in settings.compat else time


def time_meant_for(checkpoint: OpenCheckpoint | None, time: Any) -> Any:
    """As :func:`time_meant`, by the rules of a checkpoint's client."""
    if time != _FOR_EVER:
        return time
    return time_meant(time, current_rules() if checkpoint is None else checkpoint.owner.settings)


def open_timeout_meant(timeout: Any, settings: Settings) -> Any:
    """Openais looks at no timeout of an open: 0 waits, as calls do that have none."""
    if timeout == 0 and "openais" in settings.compat:
        return round(settings.timeout * SECOND_NS)
    return time_meant(timeout, settings)


def attributes_meant(attributes: Any, settings: Settings) -> Any:
    """SAFplus has flags of its own, and what has no update option is asynchronous."""
    known = isinstance(attributes, SaCkptCheckpointCreationAttributesT)
    if not known or "safplus" not in settings.compat:
        return attributes
    flags, retention = attributes.creationFlags, attributes.retentionDuration
    if isinstance(flags, int) and flags & _SAFPLUS_FLAGS:
        flags &= ~_SAFPLUS_FLAGS
        if not flags & _UPDATE_OPTIONS:
            flags |= CreationFlags.WR_ACTIVE_REPLICA
    return replace(
        attributes, creationFlags=flags, retentionDuration=time_meant(retention, settings)
    )

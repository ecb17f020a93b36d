"""SIGHUP: what of a changed cluster.yaml holds at once, and what needs a restart."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

from raftckpt.node.config import ClusterConfig

__all__ = ["Reloaded", "reloaded"]

_AT_ONCE: Final = frozenset({"admin_open", "log", "timing", "limits", "tls_peer", "tls_client"})
_NOTHING: Final = frozenset({"path", "warnings", "insecure"})
"""They only say what is allowed, which was looked at when the file was read."""
_SETTING: Final = {"tls_peer": "tls.peer", "tls_client": "tls.client"}


class Reloaded(NamedTuple):
    """A configuration that takes over what it can of another one.

    Attributes:
        config: what holds from now on.
        taken: settings that changed and hold.
        left: settings that changed and do not hold before a restart.
    """

    config: ClusterConfig
    taken: list[str]
    left: list[str]


def reloaded(former: ClusterConfig, read: ClusterConfig) -> Reloaded:
    """Take of the file as it was read now what can be taken.

    Certificates are read again whether or not their paths changed; to begin or to end with TLS
    needs a restart.
    """
    taken: dict[str, object] = {}
    left: list[str] = []
    for field in dataclasses.fields(ClusterConfig):
        before, after = getattr(former, field.name), getattr(read, field.name)
        if before == after or field.name in _NOTHING:
            continue
        if field.name in _AT_ONCE and (before is None) == (after is None):
            taken[field.name] = after
        else:
            left.append(_SETTING.get(field.name, field.name))
    config = dataclasses.replace(former, **taken)  # type: ignore[arg-type]
    return Reloaded(config, [_SETTING.get(name, name) for name in taken], left)

"""SIGHUP: what of a changed cluster.yaml holds at once, and what needs a restart."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from raftckpt.events import EventLog
from raftckpt.node import logs
from raftckpt.node.config import ClusterConfig, ConfigError
from raftckpt.node.tls import CertificateFault, check_certificates, client_context, peer_contexts
from raftckpt.process.notify import Notifier
from raftckpt.raft.links import PeerTls

__all__ = ["Reloaded", "Reloading", "reloaded", "tell_faults"]

log = EventLog("node")

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


_Taker = Callable[[ClusterConfig, PeerTls | None, ssl.SSLContext | None], None]


class Reloading:
    """Reads the files again when a terminal closes or somebody wants it (SIGHUP).

    Arguments:
        config: what holds at the start.
        node: which replica.
        reread: reads the configuration again; None: it cannot be read again.
        notifier: the service manager hears of it.

    Attributes:
        config: what holds.
        takers: told of a configuration that holds from now on, and of the contexts of its
            certificates; what may fail was done before.
    """

    def __init__(
        self,
        config: ClusterConfig,
        node: str,
        reread: Callable[[], ClusterConfig] | None,
        notifier: Notifier,
    ) -> None:
        self.config = config
        self.takers: list[_Taker] = []
        self._node = node
        self._reread = reread
        self._notifier = notifier
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Begin, unless it is being done."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._read_again())

    async def _read_again(self) -> None:
        """Take over what can be; a file that is wrong changes nothing."""
        if self._reread is None:
            log.warning("hangup", why="this replica has no file that it could read again")
            return
        self._notifier.reloading()
        try:
            read = await asyncio.to_thread(self._reread)
            faults = await asyncio.to_thread(check_certificates, read, self._node, renewed=True)
            found = reloaded(self.config, read)
            peer, client = peer_contexts(found.config), client_context(found.config)
            for take in self.takers:
                take(found.config, peer, client)
        except (ConfigError, OSError) as error:
            log.error("reload_failed", why=f"nothing was changed: {error}")
        else:
            self.config = found.config
            logs.configure(self._node, found.config.log)
            log.info("reloaded", taken=" ".join([*found.taken, "certificates"]))
            tell_faults(faults)
            if found.left:
                log.warning("reload_incomplete", restart_for=" ".join(found.left))
        self._notifier.reloaded()


def tell_faults(faults: Iterable[CertificateFault]) -> None:
    """Have what is wrong with certificates logged."""
    for fault in faults:
        log.warning("certificate", setting=fault.setting, why=fault.why, fix=fault.fix)

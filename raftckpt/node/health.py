"""What a replica knows of its surroundings: its disk, its clock, the ends of its certificates."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any, Final

from raftckpt.limits import CERTIFICATE_DAYS_NOW
from raftckpt.net.inspection import ends_at
from raftckpt.node.config import ClusterConfig

__all__ = ["Health", "certificate_ends"]

_DAY_S: Final = 86_400  # 24 hours


class Health:
    """Tells what ``cluster status`` shows beside the consensus.

    Arguments:
        config: the cluster; its certificates are looked at now, for it is now that they are read.
        node: which replica.
    """

    def __init__(self, config: ClusterConfig, node: str) -> None:
        self._node = node
        self._path = config.directory(node)
        self.certificates = certificate_ends(config)

    def told(self) -> dict[str, Any]:
        """Members of the status: plain values."""
        free, size = self.disk()
        return {
            "clock_ms": time.time_ns() // 1_000_000,
            "disk_free_bytes": free,
            "disk_bytes": size,
            "certificates": dict(self.certificates),
        }

    def alarms(self) -> list[str]:
        """Sentences about certificates that end within ``CERTIFICATE_DAYS_NOW``, or have."""
        soon = time.time() + CERTIFICATE_DAYS_NOW * _DAY_S
        return [
            f"{setting} of {self._node} ends at {datetime.fromtimestamp(end, UTC).isoformat()}: "
            "renew it, then send the replica SIGHUP"
            for setting, end in self.certificates.items()
            if end < soon
        ]

    def disk(self) -> tuple[int, int]:
        """Bytes free for this replica and of the whole disk; (0, 0) if nobody can tell."""
        try:
            found = os.statvfs(self._path)
        except OSError:
            return 0, 0
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def certificate_ends(config: ClusterConfig) -> dict[str, int]:
    """When the certificates of a configuration end.

    Returns:
        Seconds since the epoch by setting ("tls.peer.cert"), of the one in the file that ends
        first. What cannot be read is left out: the start says so.
    """
    ends: dict[str, int] = {}
    for port, files in (("peer", config.tls_peer), ("client", config.tls_client)):
        if files is None:
            continue
        for what, path in (("cert", files.cert), ("ca", files.ca)):
            end = ends_at(path) if path is not None else None
            if end is not None:
                ends[f"tls.{port}.{what}"] = end
    return ends

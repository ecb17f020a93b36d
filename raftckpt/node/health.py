"""What a replica knows of its surroundings: its disk, its clock, the ends of its certificates."""

from __future__ import annotations

import calendar
import os
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from raftckpt.node.config import ClusterConfig

__all__ = ["Health", "certificate_ends"]

_PEM: Final = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17


class Health:
    """Tells what ``cluster status`` shows beside the consensus.

    Arguments:
        config: the cluster; its certificates are looked at now, for it is now that they are read.
        node: which replica.
    """

    def __init__(self, config: ClusterConfig, node: str) -> None:
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
            found = list(_ends(path)) if path is not None else []
            if found:
                ends[f"tls.{port}.{what}"] = min(found)
    return ends


def _ends(path: Path) -> Iterator[int]:
    try:
        text = path.read_text("ascii", "replace")
    except OSError:
        return
    for match in _PEM.finditer(text):
        try:
            yield _end(ssl.PEM_cert_to_DER_cert(match[0]))
        except (ValueError, IndexError):
            continue


def _end(der: bytes) -> int:
    """Return notAfter of a certificate (RFC 5280), which ``ssl`` tells of a peer's only."""
    begin, _ = _inside(der, 0)  # Certificate
    at, _ = _inside(der, begin)  # TBSCertificate
    if der[at] == _VERSION:
        _, at = _inside(der, at)
    for _ in range(3):  # serial number, signature, issuer
        _, at = _inside(der, at)
    if der[at] != _SEQUENCE:
        raise ValueError("no validity")
    at, _ = _inside(der, at)
    _, at = _inside(der, at)  # notBefore
    kind = der[at]
    begin, end = _inside(der, at)
    text = der[begin:end].decode("ascii")
    if kind == _UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))


def _inside(der: bytes, at: int) -> tuple[int, int]:
    """Begin and end of the content of the element at a position."""
    length, at = der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(der[at : at + count], "big"), at + count
    return at, at + length

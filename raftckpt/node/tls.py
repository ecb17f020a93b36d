"""TLS contexts of both ports, from the files of the configuration."""

from __future__ import annotations

import ssl

from raftckpt.node.config import ClusterConfig, ConfigError, Problem, TlsFiles
from raftckpt.raft.links import PeerTls

__all__ = ["client_context", "peer_contexts"]


def _context(files: TlsFiles, purpose: int, where: str, path: str) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # names in certificates are node ids, checked after the greeting
    try:
        context.load_cert_chain(files.cert, files.key)
        if files.ca is not None:
            context.load_verify_locations(files.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        problem = Problem(0, f"{where}: {error}", "give PEM files that belong together")
        raise ConfigError(path, [problem]) from error
    return context


def peer_contexts(config: ClusterConfig) -> PeerTls | None:
    """Contexts of the links between replicas; both sides demand a certificate of the CA.

    Raises:
        ConfigError: the files cannot be used.
    """
    files = config.tls_peer
    if files is None:
        return None
    return PeerTls(
        _context(files, ssl.PROTOCOL_TLS_SERVER, "tls.peer", config.path),
        _context(files, ssl.PROTOCOL_TLS_CLIENT, "tls.peer", config.path),
    )


def client_context(config: ClusterConfig) -> ssl.SSLContext | None:
    """Context of the client port; with a ``ca`` clients must present a certificate of it.

    Raises:
        ConfigError: the files cannot be used.
    """
    if config.tls_client is None:
        return None
    return _context(config.tls_client, ssl.PROTOCOL_TLS_SERVER, "tls.client", config.path)

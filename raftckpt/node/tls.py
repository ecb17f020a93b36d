"""TLS contexts of both ports, from the files of the configuration."""

from __future__ import annotations

import ssl
from pathlib import Path

from raftckpt.net.certificates import replica_name
from raftckpt.node.config import ClusterConfig, ConfigError, Problem, TlsFiles
from raftckpt.raft.links import PeerTls

__all__ = ["check_certificates", "client_context", "peer_contexts"]


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
    server = _context(files, ssl.PROTOCOL_TLS_SERVER, "tls.peer", config.path)
    return PeerTls(
        server,
        _context(files, ssl.PROTOCOL_TLS_CLIENT, "tls.peer", config.path),
        names_count=not _signs_clients(config, server),
    )


def check_certificates(config: ClusterConfig, node: str) -> None:
    """Look whether the other replicas will take the certificate of this one.

    Raises:
        ConfigError: they will not, or a file cannot be used.
    """
    contexts, files = peer_contexts(config), config.tls_peer
    if contexts is None or files is None or contexts.names_count:
        return
    wanted = replica_name(config.cluster, node)
    if wanted.encode() not in _der(files.cert):  # a URI stands in it as it is
        what = (
            f"tls.peer and tls.client have one authority, and {files.cert} does not say that "
            f"it is a replica's: a client's certificate that says CN={node} would be one"
        )
        fix = f"issue it with the alternative name URI:{wanted}, or have two authorities"
        raise ConfigError(config.path, [Problem(0, what, fix)])


def _signs_clients(config: ClusterConfig, peer: ssl.SSLContext) -> bool:
    """Whether an authority of the replicas is one of clients, too."""
    client = client_context(config)
    return client is not None and bool(
        set(peer.get_ca_certs(binary_form=True)) & set(client.get_ca_certs(binary_form=True))
    )


def _der(path: Path) -> bytes:
    """The first certificate of a PEM file, decoded."""
    end = "-----END CERTIFICATE-----"
    text = path.read_text("ascii", "replace")
    begin = text.find("-----BEGIN CERTIFICATE-----")
    try:
        return ssl.PEM_cert_to_DER_cert(text[begin : text.index(end, begin) + len(end)])
    except ValueError:
        return b""


def client_context(config: ClusterConfig) -> ssl.SSLContext | None:
    """Context of the client port; with a ``ca`` clients must present a certificate of it.

    Raises:
        ConfigError: the files cannot be used.
    """
    if config.tls_client is None:
        return None
    return _context(config.tls_client, ssl.PROTOCOL_TLS_SERVER, "tls.client", config.path)

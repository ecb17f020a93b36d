"""TLS contexts of both ports, from the files of the configuration; what is wrong with those files.

The one place that judges certificates against a configuration: ``config check``, ``certs check``,
``doctor``, the start of a replica and SIGHUP all ask here.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any, NamedTuple

from raftckpt.net.certificates import no_client, no_replica, replica_name
from raftckpt.net.inspection import looked_at, wrong_host
from raftckpt.node.config import ClusterConfig, ConfigError, Problem, TlsFiles
from raftckpt.raft.links import PeerTls

__all__ = [
    "CertificateFault",
    "certificate_faults",
    "check_certificates",
    "client_context",
    "peer_contexts",
]


class CertificateFault(NamedTuple):
    """What is wrong with a certificate of the configuration.

    Attributes:
        setting: that names it.
        why: what is wrong.
        fix: what to do.
        grave: whoever connects will not take it; else some clients will not.
        lasting: no time and no clock heals it.
    """

    setting: str
    why: str
    fix: str
    grave: bool = True
    lasting: bool = False


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


def client_context(config: ClusterConfig) -> ssl.SSLContext | None:
    """Context of the client port; with a ``ca`` clients must present a certificate of it.

    Raises:
        ConfigError: the files cannot be used.
    """
    if config.tls_client is None:
        return None
    return _context(config.tls_client, ssl.PROTOCOL_TLS_SERVER, "tls.client", config.path)


def check_certificates(
    config: ClusterConfig, node: str, *, renewed: bool = False
) -> list[CertificateFault]:
    """Look whether the other replicas will take the certificate of this one.

    Arguments:
        config: the cluster.
        node: which replica.
        renewed: they replace others, which may be better: nothing grave is let pass.

    Returns:
        What is wrong and may be healed while the replica runs.

    Raises:
        ConfigError: they will not take it, or a file cannot be used.
    """
    peer_contexts(config)
    client_context(config)
    faults = list(certificate_faults(config, node))
    stops = [fault for fault in faults if fault.lasting or (renewed and fault.grave)]
    if stops:
        problems = [Problem(0, f"{each.setting}: {each.why}", each.fix) for each in stops]
        raise ConfigError(config.path, problems)
    return faults


def certificate_faults(config: ClusterConfig, node: str | None) -> Iterator[CertificateFault]:
    """Find out what is wrong with the certificates of a configuration.

    Arguments:
        config: the cluster.
        node: whose they are; None: of the replica that they name.
    """
    if config.tls_peer is not None:
        yield from _peer_faults(config, config.tls_peer, node)
    if config.tls_client is not None:
        yield from _client_faults(config, config.tls_client, node)


def _renew(config: ClusterConfig, node: str | None) -> str:
    name = replica_name(config.cluster, node or "NODE")
    return f"raftckpt certs renew, or issue it with the alternative name URI:{name}"


def _peer_faults(
    config: ClusterConfig, files: TlsFiles, node: str | None
) -> Iterator[CertificateFault]:
    for client in (False, True):  # a replica is dialled, and dials
        seen = looked_at(files.cert, files.key, files.ca, client=client)
        if seen.certificate is None:
            yield CertificateFault("tls.peer.cert", seen.why, _renew(config, node))
            return
    own = _context(files, ssl.PROTOCOL_TLS_SERVER, "tls.peer", config.path)
    names_count = not _signs_clients(config, own)
    nodes = config.replicas if node is None else [node]
    told = [
        no_replica(seen.certificate, config.cluster, each, names_count=names_count)
        for each in nodes
    ]
    if all(told):
        fix = _renew(config, node) + ("" if names_count else ", or have two authorities")
        yield CertificateFault("tls.peer.cert", told[0], fix, lasting=True)


def _client_faults(
    config: ClusterConfig, files: TlsFiles, node: str | None
) -> Iterator[CertificateFault]:
    """Who signs replicas is known to the clients only: their authority is not looked at."""
    seen = looked_at(files.cert, files.key, None)
    if seen.certificate is None:
        yield CertificateFault("tls.client.cert", seen.why, _renew(config, node))
        return
    why = no_client(seen.certificate, config.cluster)
    if why:
        yield CertificateFault("tls.client.cert", why, _renew(config, node))
        return
    for host in _hosts_missing(config, files, node or _named(config, seen.certificate)):
        yield CertificateFault(
            "tls.client.cert",
            f"it is not for {host}, where clients reach the replica: those that check names, as "
            "they do unless told otherwise, will not take it",
            f"issue it with the alternative name {host}",
            grave=False,
        )


def _named(config: ClusterConfig, certificate: Any) -> str | None:
    """The only replica of the configuration that a certificate is for."""
    found = [
        node
        for node in config.replicas
        if not no_replica(certificate, config.cluster, node, names_count=True)
    ]
    return found[0] if len(found) == 1 else None


def _hosts_missing(config: ClusterConfig, files: TlsFiles, node: str | None) -> Iterator[str]:
    at = None if node is None else config.replicas.get(node)
    if at is None:
        return
    admin = at.admin if at.admin is not None and not at.admin.loopback else None
    for host in dict.fromkeys(each.host for each in (at.client, admin) if each is not None):
        if wrong_host(files.cert, files.key, host):
            yield host


def _signs_clients(config: ClusterConfig, peer: ssl.SSLContext) -> bool:
    """Whether an authority of the replicas is one of clients, too."""
    client = client_context(config)
    return client is not None and bool(
        set(peer.get_ca_certs(binary_form=True)) & set(client.get_ca_certs(binary_form=True))
    )

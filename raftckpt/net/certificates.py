"""What a certificate says of its holder, and why a TLS handshake failed, in words.

A certificate names role, cluster and holder in a URI among its alternative names:
``raftckpt://CLUSTER/replica/NODE`` or ``raftckpt://CLUSTER/client/NAME``. One that has such names
is good for them and for nothing else. One without is an older one: it is good for the node that its
common name or a DNS name says, and only where the authority of the replicas signs no clients.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "client_name",
    "client_uri",
    "handshake_failure",
    "no_client",
    "no_replica",
    "replica_name",
]

_SCHEME: Final = "raftckpt://"
_REASONS: Final = {
    "HTTP_REQUEST": "it speaks HTTP",
    "WRONG_VERSION_NUMBER": "it speaks no TLS: this port does",
    "UNSUPPORTED_PROTOCOL": "it speaks an older TLS than this port takes",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate: give it one of {ca}",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not one of {ca}, or not valid now",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who signed our certificate: give it the authority",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take our certificate",
}
"""Why handshakes fail, by the word of OpenSSL, and what is to be done about it."""
_HUNG_UP: Final = "it hung up in the handshake: it may not know who signed our certificate"


def handshake_failure(error: OSError, ca: str) -> str:
    """Why a handshake failed; ``ca`` is the setting that names who signs the others."""
    reason = _REASONS.get(getattr(error, "reason", ""), str(error) or _HUNG_UP)
    return reason.format(ca=ca) if "{ca}" in reason else reason


def replica_name(cluster: str, node: str) -> str:
    """The name of a replica in its certificate."""
    return f"{_SCHEME}{cluster}/replica/{node}"


def client_uri(cluster: str, name: str) -> str:
    """The name of a client in its certificate."""
    return f"{_SCHEME}{cluster}/client/{name}"


def no_replica(certificate: Any, cluster: str, node: str, *, names_count: bool) -> str:
    """Why a certificate is not that of replica ``node`` ("": it is).

    Arguments:
        certificate: as ``ssl`` returns it.
        cluster: name of the cluster.
        node: node id.
        names_count: common and DNS names count: the authority signs replicas only.
    """
    uris = _uris(certificate)
    wanted = replica_name(cluster, node)
    if uris:
        return "" if wanted in uris else f"its certificate is for {_list(uris)}, not for {wanted}"
    names = _names(certificate)
    if not names_count:
        return (
            f"its certificate does not say {wanted}, and the authority of tls.peer signs clients, "
            "too: issue certificates that say who is a replica"
        )
    return "" if node in names else f"its certificate is for {_list(names) or 'nobody'}"


def client_name(certificate: Any, cluster: str) -> str | None:
    """The client of ``cluster`` that a verified certificate is for; None: of none, or several."""
    prefix = client_uri(cluster, "")
    names = {uri.removeprefix(prefix) for uri in _uris(certificate) if uri.startswith(prefix)}
    return names.pop() if len(names) == 1 else None


def no_client(certificate: Any, cluster: str) -> str:
    """Why a certificate is none for clients of ``cluster`` ("": it is; replicas may, too)."""
    uris = _uris(certificate)
    if not uris or any(uri.startswith(f"{_SCHEME}{cluster}/") for uri in uris):
        return ""
    return f"its certificate is for {_list(uris)}, this is the cluster {cluster}"


def _uris(certificate: Any) -> set[str]:
    """The names of ours in a certificate."""
    return {uri for uri in _alternatives(certificate, "URI") if uri.startswith(_SCHEME)}


def _names(certificate: Any) -> set[str]:
    """Common and DNS names."""
    names = _alternatives(certificate, "DNS")
    if isinstance(certificate, dict):
        for group in certificate.get("subject", ()):
            names |= {value for key, value in group if key == "commonName"}
    return names


def _alternatives(certificate: Any, kind: str) -> set[str]:
    if not isinstance(certificate, dict):
        return set()
    return {value for found, value in certificate.get("subjectAltName", ()) if found == kind}


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))

"""Looks at certificates in files the way the other side of a handshake will: by shaking hands.

What a certificate is good for is decided by OpenSSL, in memory, with the settings of the ports; so
what is found here is what replicas and clients would meet. When one ends is read from the file:
one that has ended is not taken apart by ``ssl``.
"""

from __future__ import annotations

import calendar
import os
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["ShownCertificate", "ends_at", "looked_at", "pem_certificates", "wrong_host"]

_PEM: Final = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# tags of DER (X.690), and what X509_verify_cert says (<openssl/x509_vfy.h>)
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_ENDED: Final = 10
_NOT_YET: Final = 9
_OTHER_HOST: Final = frozenset({62, 64})
"""X509_V_ERR_...: of names and of IP addresses."""
_FLIGHTS: Final = 10
"""More than any handshake takes."""


class ShownCertificate(NamedTuple):
    """What the other side sees of a certificate.

    Attributes:
        certificate: as ``ssl`` returns it; None if it is not taken.
        why: why it is not taken ("": it is).
    """

    certificate: Any
    why: str


def looked_at(
    cert: str | os.PathLike[str],
    key: str | os.PathLike[str],
    ca: str | os.PathLike[str] | None,
    *,
    client: bool = False,
    hostname: str = "",
) -> ShownCertificate:
    """Show a certificate to somebody who trusts an authority.

    Arguments:
        cert: certificate, with those between it and the authority.
        key: its key.
        ca: whom the other side trusts; None: whoever signed it.
        client: a client shows it, else a server does.
        hostname: name or address by which the server was reached; "": that is not looked at.
    """
    holder = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if client else ssl.PROTOCOL_TLS_SERVER)
    holder.check_hostname = False
    holder.verify_mode = ssl.CERT_NONE
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if client else ssl.PROTOCOL_TLS_CLIENT)
    other.check_hostname = bool(hostname)
    try:
        holder.load_cert_chain(cert, key)
        if client:
            other.load_cert_chain(cert, key)  # a server must have one
    except (OSError, ValueError) as error:
        return ShownCertificate(None, _unusable(error, cert, key))
    try:
        other.load_verify_locations(cert if ca is None else ca)
    except (OSError, ValueError) as error:
        return ShownCertificate(None, f"{ca} is no authority: {error}")
    other.verify_mode = ssl.CERT_REQUIRED
    if ca is None:
        other.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return _shaken(holder, other, ca, client=client, hostname=hostname)


def wrong_host(
    cert: str | os.PathLike[str], key: str | os.PathLike[str], hostname: str
) -> bool | None:
    """Whether clients that reach a server by ``hostname`` would not take its certificate for it.

    None: it is not taken for another reason.
    """
    plain = looked_at(cert, key, None)
    if plain.certificate is None:
        return None
    return looked_at(cert, key, None, hostname=hostname).certificate is None


def _shaken(
    holder: ssl.SSLContext,
    other: ssl.SSLContext,
    ca: str | os.PathLike[str] | None,
    *,
    client: bool,
    hostname: str,
) -> ShownCertificate:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    name = hostname or None
    ours = holder.wrap_bio(back, there, server_side=not client)
    theirs = other.wrap_bio(there, back, server_side=client, server_hostname=name)
    ready: set[ssl.SSLObject] = set()
    for _ in range(_FLIGHTS):
        for side in (ours, theirs):
            try:
                side.do_handshake()
                ready.add(side)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                return ShownCertificate(None, _not_taken(error, ca))
            except ssl.SSLError as error:
                return ShownCertificate(
                    None, f"no handshake comes about with it: {error.reason or error}"
                )
        if len(ready) == 2:
            return ShownCertificate(theirs.getpeercert(), "")
    return ShownCertificate(None, "no handshake comes about with it")


def _unusable(error: Exception, cert: str | os.PathLike[str], key: str | os.PathLike[str]) -> str:
    reason = getattr(error, "reason", "") or ""
    if "MISMATCH" in reason:
        return f"the key {key} is not that of {cert}"
    return f"{cert} and {key} cannot be used: {error}"


def _not_taken(error: ssl.SSLCertVerificationError, ca: object) -> str:
    if error.verify_code == _ENDED:
        return "it has ended, or who signed it has"
    if error.verify_code == _NOT_YET:
        return "it is not valid yet: is the clock right?"
    if error.verify_code in _OTHER_HOST:
        return str(error.verify_message)
    return f"it is foreign: not of {ca} ({error.verify_message})"


def pem_certificates(path: str | os.PathLike[str]) -> list[bytes]:
    """The certificates of a PEM file, decoded; what cannot be read is left out."""
    try:
        text = Path(path).read_text("ascii", "replace")
    except OSError:
        return []
    found = []
    for match in _PEM.finditer(text):
        try:
            found.append(ssl.PEM_cert_to_DER_cert(match[0]))
        except ValueError:
            continue
    return found


def ends_at(path: str | os.PathLike[str]) -> int | None:
    """When the certificate of a file ends that ends first, in seconds since the epoch.

    None: there is none that can be read.
    """
    return min(_ends(path), default=None)


def _ends(path: str | os.PathLike[str]) -> Iterator[int]:
    for der in pem_certificates(path):
        try:
            yield _end(der)
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

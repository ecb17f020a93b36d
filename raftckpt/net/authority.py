"""An authority: signs certificates that say who holds them. The one place that makes keys.

Bytes in, bytes out; files are somebody else's. Only here is ``cryptography`` imported (the extra
``certs``): replicas and clients need it for nothing.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["NotUsable", "SigningAuthority", "Written"]

_COMMON_NAME_CHARACTERS_MAX: Final = 64
"""RFC 5280, ub-common-name."""
_AGO: Final = datetime.timedelta(hours=1)
"""Valid since so long: clocks of hosts differ."""
_SERVES: Final = ExtendedKeyUsageOID.SERVER_AUTH
_CALLS: Final = ExtendedKeyUsageOID.CLIENT_AUTH


class NotUsable(ValueError):
    """A certificate or key cannot be read, or does not belong to the other."""


class Written(NamedTuple):
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class SigningAuthority:
    """A certificate that signs others, with its key.

    Arguments:
        written: both, as :meth:`founded` made them.

    Raises:
        NotUsable: they cannot be used.
    """

    def __init__(self, written: Written) -> None:
        try:
            self._certificate = x509.load_pem_x509_certificate(written.certificate)
        except ValueError as error:
            raise NotUsable(f"the certificate of the authority: {error}") from None
        self._key = _key(written.key)
        if self._certificate.public_key() != self._key.public_key():
            raise NotUsable("the key of the authority is not that of its certificate")

    @property
    def ends(self) -> datetime.datetime:
        """When its own certificate ends, and all that it signs."""
        return self._certificate.not_valid_after_utc

    @classmethod
    def founded(cls, name: str, days: float, now: datetime.datetime) -> Written:
        """Make an authority that signs itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        usage = _usage(signs=True)
        certificate = (
            _begun(subject, subject, key, now, now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        return _written(certificate, key)

    def signed(
        self,
        name: str,
        uri: str,
        hosts: Iterable[str],
        days: float,
        now: datetime.datetime,
        key: bytes | None = None,
    ) -> Written:
        """Make a certificate; with hosts it is for a server that is a client, too.

        Arguments:
            name: common name, for people.
            uri: who holds it.
            hosts: names and addresses by which it is reached.
            days: until it ends; never after the authority.
            now: time of day, with its zone.
            key: PEM of the key it is for; None: a new one is made.

        Raises:
            NotUsable: the key cannot be read.
        """
        own = ec.generate_private_key(ec.SECP256R1()) if key is None else _key(key)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
        names += [_host(host) for host in hosts]
        uses = [_SERVES, _CALLS] if len(names) > 1 else [_CALLS]
        issuer = self._certificate.subject
        ends = min(now + datetime.timedelta(days=days), self.ends)
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _begun(_subject(name), issuer, own, now, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(above, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _written(certificate, own)


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise NotUsable(f"a key cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NotUsable("a key is of another kind than those that are made here")
    return key


def _subject(name: str) -> x509.Name:
    short = name[:_COMMON_NAME_CHARACTERS_MAX]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, short)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    ends: datetime.datetime,
) -> x509.CertificateBuilder:
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends) - _AGO)
        .not_valid_after(ends)
        .add_extension(own, critical=False)
    )


def _written(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Written:
    return Written(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )

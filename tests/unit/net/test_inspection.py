"""Certificates are looked at as the other side of a handshake will."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from raftckpt.net.authority import NotUsable, SigningAuthority, Written
from raftckpt.net.inspection import ends_at, looked_at, pem_certificates, wrong_host

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
URI = "raftckpt://demo/replica/n1"


class _Files:
    """An authority and what it signs, as files."""

    def __init__(self, directory: Path, name: str = "ca", now: datetime.datetime = NOW) -> None:
        self.directory = directory
        self.written = SigningAuthority.founded(name, 100, now)
        self.authority = SigningAuthority(self.written)
        self.ca = directory / f"{name}.pem"
        self.ca.write_bytes(self.written.certificate)

    def sign(
        self,
        name: str,
        hosts: tuple[str, ...] = ("127.0.0.1",),
        days: float = 10,
        now: datetime.datetime = NOW,
    ) -> tuple[Path, Path]:
        made = self.authority.signed(name, URI, hosts, days, now)
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        cert.write_bytes(made.certificate)
        key.write_bytes(made.key)
        return cert, key


def test_one_that_is_good(tmp_path: Path) -> None:
    files = _Files(tmp_path)
    cert, key = files.sign("n1", ("10.0.0.1", "node1.example"))
    for client in (False, True):
        seen = looked_at(cert, key, files.ca, client=client)
        assert seen.why == ""
        assert ("URI", URI) in seen.certificate["subjectAltName"]
    assert looked_at(cert, key, None).certificate is not None
    assert not wrong_host(cert, key, "10.0.0.1")
    assert not wrong_host(cert, key, "node1.example")
    assert wrong_host(cert, key, "10.0.0.2")
    assert wrong_host(cert, key, "node2.example")


def test_a_client_s_certificate_serves_nobody(tmp_path: Path) -> None:
    files = _Files(tmp_path)
    cert, key = files.sign("app", ())
    assert looked_at(cert, key, files.ca, client=True).why == ""
    assert "purpose" in looked_at(cert, key, files.ca).why


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    files, others = _Files(tmp_path), _Files(tmp_path, "other")
    cert, key = files.sign("n1")
    assert "is foreign" in looked_at(cert, key, others.ca).why
    _, stranger = files.sign("n2")
    assert "is not that of" in looked_at(cert, stranger, files.ca).why
    assert "cannot be used" in looked_at(tmp_path / "none.pem", key, files.ca).why
    assert "is no authority" in looked_at(cert, key, tmp_path / "none.pem").why
    old, its = files.sign("old", days=1, now=NOW - datetime.timedelta(days=2))
    for client in (False, True):
        assert looked_at(old, its, files.ca, client=client).why.startswith("it has ended")
    assert looked_at(old, its, None).why.startswith("it has ended")
    assert wrong_host(old, its, "127.0.0.1") is None
    early, its = files.sign("early", now=NOW + datetime.timedelta(days=2))
    assert "not valid yet" in looked_at(early, its, files.ca).why


def test_when_they_end(tmp_path: Path) -> None:
    files = _Files(tmp_path)
    cert, _ = files.sign("n1", days=10)
    long, _ = files.sign("long", days=1000)
    assert ends_at(cert) == (NOW + datetime.timedelta(days=10)).timestamp()
    assert ends_at(long) == files.authority.ends.timestamp()  # never after its authority
    both = tmp_path / "both.pem"
    both.write_bytes(long.read_bytes() + cert.read_bytes() + b"-----BEGIN CERTIFICATE-----\n")
    assert len(pem_certificates(both)) == 2
    assert ends_at(both) == ends_at(cert)
    assert ends_at(tmp_path / "none") is None
    later = SigningAuthority.founded("for long", 365 * 60, NOW)  # written otherwise from 2050 on
    both.write_bytes(later.certificate)
    assert ends_at(both) == (NOW + datetime.timedelta(days=365 * 60)).timestamp()


def test_an_authority_is_its_certificate_and_its_key(tmp_path: Path) -> None:
    one, other = (SigningAuthority.founded("x", 10, NOW) for _ in range(2))
    with pytest.raises(NotUsable, match="is not that of its certificate"):
        SigningAuthority(Written(one.certificate, other.key))
    with pytest.raises(NotUsable, match="certificate of the authority"):
        SigningAuthority(Written(b"", one.key))
    with pytest.raises(NotUsable, match="key cannot be read"):
        SigningAuthority(Written(one.certificate, b"-"))


def test_a_certificate_may_be_made_for_a_key_that_there_is(tmp_path: Path) -> None:
    authority = SigningAuthority(SigningAuthority.founded("x", 10, NOW))
    first = authority.signed("n1", URI, ("h",), 5, NOW)
    second = authority.signed("n1", URI, ("h",), 6, NOW, first.key)
    assert second.key == first.key
    (tmp_path / "c").write_bytes(second.certificate)
    (tmp_path / "k").write_bytes(first.key)
    assert looked_at(tmp_path / "c", tmp_path / "k", None).why == ""

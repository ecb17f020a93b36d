"""The directory of certificates, and what is said of it."""

from __future__ import annotations

import datetime
import itertools
import os
import shutil
from pathlib import Path

import pytest

from raftckpt.client.credentials import credentials
from raftckpt.client.endpoints import parse_endpoints
from raftckpt.client.types import TlsOptions
from raftckpt.errors import InvalidParam
from raftckpt.net.inspection import looked_at, pem_certificates
from raftckpt.node.config import ConfigError, load
from raftckpt.node.issuing import CertificateStore, Issued, Spans
from raftckpt.node.tls import certificate_faults, check_certificates

TEXT = """\
cluster: prod
replicas:
  n1: { client: "10.0.0.1:7401", peer: "10.0.0.1:7501", admin: "node1:9401" }
  n2: { client: "[fd00::2]:7401", peer: "node2.example:7501" }
"""
DAY = datetime.timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    (tmp_path / "cluster.yaml").write_text(TEXT, "utf-8")
    store = CertificateStore(tmp_path / "certs")
    store.found(str(tmp_path / "cluster.yaml"), ["ops"], Spans())
    return store


def faults(store: CertificateStore) -> dict[str, tuple[str, ...]]:
    return {each.whose: each.faults for each in store.look() if each.faults}


def named(made: list[Issued]) -> list[str]:
    return [each.whose for each in made]


def said(store: CertificateStore, node: str, whose: str | None) -> list[str]:
    return [
        f"{each.setting}: {each.why}" for each in certificate_faults(configured(store, node), whose)
    ]


def configured(store: CertificateStore, node: str):
    return load(store.path / "hosts" / node / "cluster.yaml", environ={})


def test_all_that_hosts_and_clients_need(store: CertificateStore) -> None:
    assert [each.whose for each in store.look()] == [
        "authority", "replica n1", "replica n2", "client ops",
    ]  # fmt: skip
    assert not faults(store)
    for node in ("n1", "n2"):
        config = configured(store, node)
        assert not config.warnings[1:]  # two replicas are even
        assert said(store, node, node) == said(store, node, None) == []
        assert check_certificates(config, node, renewed=True) == []
    client = store.path / "clients/ops"
    shown = credentials(str(client / "cluster.yaml"))
    assert shown.tls == TlsOptions(
        str(client / "authority.pem"), str(client / "client.pem"), str(client / "client.key")
    )


def test_keys_are_their_owner_s_alone(store: CertificateStore) -> None:
    keys = [path for path in store.path.rglob("*.key")]
    assert len(keys) == 4
    for path in keys:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o077 == 0


def test_nothing_is_overwritten_unasked(store: CertificateStore, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in store.path.rglob("*.*")}
    with pytest.raises(FileExistsError):
        store.found(str(tmp_path / "cluster.yaml"), [], Spans())
    with pytest.raises(FileExistsError):
        store.issue_client("ops", Spans())
    assert store.renew(Spans()) == []
    assert {path: path.read_bytes() for path in store.path.rglob("*.*")} == before
    store.issue_client("ops", Spans(), replace=True)
    key = store.path / "clients/ops/client.key"
    assert key.read_bytes() != before[key]


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "x" * 65])
def test_a_client_is_named_as_a_principal(store: CertificateStore, name: str) -> None:
    with pytest.raises(InvalidParam):
        store.issue_client(name, Spans())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("replicas: {}", "cluster is missing"),
        ("cluster: x", "replicas is missing"),
        (TEXT + "typo: 1\n", "unknown key typo"),
        (TEXT + "tls: { peer: { cert: a, key: b, ca: c } }\n", "tls.client.cert is missing"),
        (TEXT + "durability: maybe\n", "durability"),
        (TEXT + "peer_secret_file: none\n", "no file"),
    ],
)
def test_a_file_that_is_wrong_leaves_nothing(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "cluster.yaml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=why):
        CertificateStore(tmp_path / "certs").found(str(tmp_path / "cluster.yaml"), [], Spans())
    assert os.listdir(tmp_path) == ["cluster.yaml"]


@pytest.mark.parametrize("path", ["/etc/x.pem", "../x.pem", "~/x.pem"])
def test_files_lie_below_the_directory_of_a_host(tmp_path: Path, path: str) -> None:
    section = "{ cert: a.pem, key: a.key, ca: ca.pem }"
    text = f"{TEXT}tls:\n  peer: {section}\n  client: {section.replace('a.pem', path, 1)}\n"
    (tmp_path / "cluster.yaml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match="elsewhere"):
        CertificateStore(tmp_path / "certs").found(str(tmp_path / "cluster.yaml"), [], Spans())


def test_a_section_of_one_s_own_says_where_files_are(tmp_path: Path) -> None:
    text = (
        f"{TEXT}tls:\n  peer: {{ cert: p/c.pem, key: p/k.pem, ca: ca.pem }}\n"
        "  client: { cert: c/c.pem, key: c/k.pem, ca: ca.pem }\n"
    )
    (tmp_path / "cluster.yaml").write_text(text, "utf-8")
    store = CertificateStore(tmp_path / "certs")
    store.found(str(tmp_path / "cluster.yaml"), [], Spans())
    assert (store.path / "hosts/n1/cluster.yaml").read_text("utf-8") == text
    assert not faults(store)


def test_renewing_keeps_authority_and_keys(store: CertificateStore) -> None:
    def read(name: str) -> bytes:
        return (store.path / name).read_bytes()

    config = str(store.path.parent / "cluster.yaml")
    store = CertificateStore(store.path.parent / "old", store.now - 336 * DAY)
    store.found(config, ["ops"], Spans())
    files = ("authority/authority.pem", "authority/authority.key", "hosts/n1/tls/replica.key")
    before = [read(name) for name in files]
    certificate = read("hosts/n1/tls/replica.pem")
    store = CertificateStore(store.path)
    assert named(store.renew(Spans())) == ["replica n1", "replica n2", "client ops"]
    assert [read(name) for name in files] == before
    assert read("hosts/n1/tls/replica.pem") != certificate
    assert store.renew(Spans()) == []
    assert named(store.renew(Spans(), everything=True, new_keys=True)) == [
        "replica n1", "replica n2", "client ops",
    ]  # fmt: skip
    assert [read(name) for name in files[:2]] == before[:2]
    assert read(files[2]) != before[2]
    assert not faults(store)


def test_what_is_wrong_is_told_and_renewed(store: CertificateStore, tmp_path: Path) -> None:
    other = CertificateStore(tmp_path / "others")
    other.found(str(tmp_path / "cluster.yaml"), ["ops", "app"], Spans())

    def swap(source: Path, target: str) -> None:
        (store.path / target).write_bytes(source.read_bytes())

    tls = store.path / "hosts/n2/tls"
    for told, source, target in (
        ("is foreign", other.path / "hosts/n1/tls", "hosts/n1/tls"),
        ("not for raftckpt://prod/replica/n1", tls, "hosts/n1/tls"),
    ):
        for name in ("replica.pem", "replica.key"):
            swap(source / name, f"{target}/{name}")
        assert told in str(faults(store)["replica n1"])
        assert told in str(said(store, "n1", "n1"))
        with pytest.raises(ConfigError, match=told):
            check_certificates(configured(store, "n1"), "n1", renewed=True)
        assert named(store.renew(Spans())) == ["replica n1"]
        assert not faults(store)

    swap(other.path / "hosts/n1/tls/replica.key", "hosts/n1/tls/replica.key")
    assert "is not that of" in str(faults(store)["replica n1"])
    assert "is not that of" in str(said(store, "n1", None))
    assert named(store.renew(Spans())) == ["replica n1"]

    swap(other.path / "authority/authority.pem", "hosts/n1/tls/authority.pem")
    assert "its authority is not that of this directory" in faults(store)["replica n1"]
    assert named(store.renew(Spans())) == ["replica n1"]

    swap(other.path / "clients/app/client.pem", "clients/ops/client.pem")
    swap(other.path / "clients/app/client.key", "clients/ops/client.key")
    assert "is foreign" in str(faults(store)["client ops"])
    assert named(store.renew(Spans())) == ["client ops"]
    store.issue_client("app", Spans())
    swap(store.path / "clients/app/client.pem", "clients/ops/client.pem")
    swap(store.path / "clients/app/client.key", "clients/ops/client.key")
    assert faults(store) == {"client ops": ("it does not say raftckpt://prod/client/ops",)}
    assert named(store.renew(Spans())) == ["client ops"]

    (store.path / "hosts/n2/tls/replica.pem").unlink()
    assert "no file" in str(faults(store)["replica n2"])
    assert named(store.renew(Spans())) == ["replica n2"]
    assert not faults(store)


def test_one_that_has_ended_may_start_and_may_not_be_taken_for_a_better_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "cluster.yaml").write_text(TEXT, "utf-8")
    store = CertificateStore(tmp_path / "certs", datetime.datetime.now(datetime.UTC) - 2 * DAY)
    store.found(str(tmp_path / "cluster.yaml"), ["ops"], Spans(certificate=1))
    store = CertificateStore(store.path)
    config = configured(store, "n1")
    told = check_certificates(config, "n1")
    assert [each.setting for each in told] == ["tls.peer.cert", "tls.client.cert"]
    assert all("it has ended" in each.why for each in told)
    with pytest.raises(ConfigError, match="it has ended"):
        check_certificates(config, "n1", renewed=True)
    assert set(faults(store)) == {"replica n1", "replica n2", "client ops"}
    store.renew(Spans())
    assert not faults(store)


def test_a_host_that_is_added_or_moved(store: CertificateStore) -> None:
    text = (store.path / "cluster.yaml").read_text("utf-8")
    line = '  n3: { client: "10.0.0.3:7401", peer: "10.0.0.3:7501" }\n'
    moved = text.replace("10.0.0.1:7401", "10.0.0.9:7401").replace("tls:\n", line + "tls:\n")
    (store.path / "cluster.yaml").write_text(moved, "utf-8")
    all_of_it = ["replica n1", "replica n2", "replica n3", "client ops"]
    assert sorted(faults(store)) == sorted(all_of_it)
    assert named(store.renew(Spans())) == all_of_it
    assert not faults(store)
    assert "10.0.0.3:7401" in parse_endpoints(str(store.path / "clients/ops/cluster.yaml"))


def test_clients_that_check_names_are_thought_of(store: CertificateStore) -> None:
    path = store.path / "hosts/n1/cluster.yaml"
    path.write_text(path.read_text("utf-8").replace("10.0.0.1:7401", "10.0.0.9:7401"), "utf-8")
    (told,) = certificate_faults(configured(store, "n1"), "n1")
    assert "it is not for 10.0.0.9" in told.why
    assert not told.grave
    assert check_certificates(configured(store, "n1"), "n1", renewed=True) == [told]


def test_nothing_of_private_files_is_written_in_passing(store: CertificateStore) -> None:
    assert len(pem_certificates(store.path / "hosts/n1/tls/replica.pem")) == 1
    assert not [path for path in store.path.rglob(".*")]


def test_an_authority_is_exchanged_in_three_rounds(store: CertificateStore, tmp_path: Path) -> None:
    """Whoever has gone a round ahead takes whoever has not, and the other way round."""
    new = CertificateStore(tmp_path / "new")
    new.found(str(tmp_path / "cluster.yaml"), ["ops"], Spans())
    old_anchor, new_anchor = (
        (each.path / "authority/authority.pem").read_bytes() for each in (store, new)
    )

    def handed_out(of: CertificateStore, anchor: bytes, to: str) -> Path:
        (of.path / "authority/authority.pem").write_bytes(anchor)
        assert len(of.renew(Spans(), everything=True)) == 3
        assert not faults(of)
        return shutil.copytree(of.path / "hosts/n1/tls", tmp_path / to)

    rounds = [
        shutil.copytree(store.path / "hosts/n1/tls", tmp_path / "round0"),
        handed_out(store, old_anchor + new_anchor, "round1"),
        handed_out(new, new_anchor + old_anchor, "round2"),
        handed_out(new, new_anchor, "round3"),
    ]
    for before, after in itertools.pairwise(rounds):
        for one, other in ((before, after), (after, before)):
            ca = other / "authority.pem"
            assert looked_at(one / "replica.pem", one / "replica.key", ca).why == ""
    first, last = rounds[0], rounds[-1]
    assert looked_at(first / "replica.pem", first / "replica.key", last / "authority.pem").why

"""Certificates of a cluster that serves: all of them renewed under load."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml
from raftckpt_cli import main as cli_main

import raftckpt
from raftckpt.node.issuing import CertificateStore, Spans
from raftckpt.testing.local_cluster import _free_ports
from tests.e2e.hosts import LOOPBACK, NODES, Hosts, on_hosts
from tests.waiting import until

PATIENCE = 60.0
LINES = 30


class _Appender(threading.Thread):
    """Appends 1, 2, 3, ... until it is told to stop."""

    def __init__(self, checkpoint: raftckpt.Checkpoint) -> None:
        super().__init__(daemon=True)
        self.checkpoint = checkpoint
        self.acknowledged = 0
        self.error: Exception | None = None
        self.ending = threading.Event()

    def run(self) -> None:
        try:
            while not self.ending.is_set():
                self.checkpoint.append("log", b"%d\n" % (self.acknowledged + 1))
                self.acknowledged += 1
        except Exception as error:
            self.error = error

    def goes_on(self) -> None:
        seen = self.acknowledged
        until(lambda: self.error or self.acknowledged >= seen + LINES, "writes go on")
        assert self.error is None, self.error


def _tls(store: CertificateStore) -> raftckpt.TlsOptions:
    client = store.path / "clients/ops"
    return raftckpt.TlsOptions(
        str(client / "authority.pem"), str(client / "client.pem"), str(client / "client.key")
    )


def _serial(node: int, tls: raftckpt.TlsOptions) -> str:
    """Of the certificate that a replica shows now."""
    context = ssl.create_default_context(cafile=tls.ca)
    context.load_cert_chain(tls.cert or "", tls.key)
    host = f"{LOOPBACK}{node}"
    with (
        socket.create_connection((host, 7401), PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname=host) as secured,
    ):
        return str((secured.getpeercert() or {})["serialNumber"])


def _start(hosts: Hosts, store: CertificateStore, node: str) -> None:
    config = str(store.path / "hosts" / node / "cluster.yaml")
    command = [sys.executable, "-m", "raftckpt", "serve", "--config", config, "--node", node]
    hosts.serve(node, command)


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    replicas = {
        node: {"client": f"{LOOPBACK}{number}:7401", "peer": f"{LOOPBACK}{number}:7501"}
        for number, node in enumerate(NODES, 1)
    }
    text = json.dumps(replicas)
    timing = "{ heartbeat_ms: 200, election_min_ms: 2000, election_max_ms: 4000 }"
    config = tmp_path / "cluster.yaml"
    config.write_text(f"cluster: renewed\nreplicas: {text}\ntiming: {timing}\n", "utf-8")
    store = CertificateStore(tmp_path / "certs")
    store.found(str(config), ["ops"], Spans())
    return store


def test_all_certificates_are_renewed_under_load(store: CertificateStore, tmp_path: Path) -> None:
    """No write is lost, no link ends, nobody is elected; then a replica that comes back is linked.

    Elections take seconds here, so that a slow machine makes none of its own.
    """
    endpoints = ",".join(f"{LOOPBACK}{number}:7401" for number in (1, 2, 3))
    with on_hosts(tmp_path, namespaces=False) as hosts:
        for node in NODES:
            _start(hosts, store, node)
        for node in NODES:
            hosts.logged(node, " ready ")
        with raftckpt.connect(endpoints, tls=_tls(store), timeout=PATIENCE) as service:
            checkpoint = service.open("c", create=raftckpt.Attributes())
            appender = _Appender(checkpoint)
            appender.start()
            appender.goes_on()
            before = service.cluster(timeout=PATIENCE)
            links = [hosts.log(node).count("connected peer") for node in NODES]
            serials = [_serial(number, _tls(store)) for number in (1, 2, 3)]

            for turn, new_keys in enumerate((True, False), 1):
                renewed = store.renew(Spans(), everything=True, new_keys=new_keys)
                assert [each.name for each in renewed] == [*NODES, "ops"]
                for node in NODES:
                    hosts.signal(node, signal.SIGHUP)
                    if new_keys:  # first one after the other, then all at once
                        hosts.logged(node, " reloaded ", turn)
                        appender.goes_on()
                for node in NODES:
                    hosts.logged(node, " reloaded ", turn)
                appender.goes_on()
                shown = [_serial(number, _tls(store)) for number in (1, 2, 3)]
                assert not set(shown) & set(serials)
                serials += shown

            after = service.cluster(timeout=PATIENCE)
            assert (after.term, after.leader) == (before.term, before.leader)
            assert [hosts.log(node).count("connected peer") for node in NODES] == links

            follower = next(node for node in NODES if node != after.leader)
            hosts.kill(follower)
            _start(hosts, store, follower)
            hosts.logged(follower, " ready ", 2)
            for node in NODES:
                assert "certificate" not in hosts.log(node).replace("certificates", "")
            appender.goes_on()
            appender.ending.set()
            appender.join(PATIENCE)
            assert appender.error is None
            lines = checkpoint.read("log").split()
            assert lines == [b"%d" % number for number in range(1, appender.acknowledged + 1)]
            assert service.cluster(timeout=PATIENCE).term == before.term


def test_what_peers_would_refuse_is_not_taken(store: CertificateStore, tmp_path: Path) -> None:
    """A foreign certificate, then one of another node: the reload fails, what was there stays."""
    other = CertificateStore(tmp_path / "others")
    other.found(str(tmp_path / "cluster.yaml"), [], Spans())
    with on_hosts(tmp_path, namespaces=False) as hosts:
        for node in NODES:
            _start(hosts, store, node)
        hosts.logged("n1", " ready ")
        before = _serial(1, _tls(store))
        tls = store.path / "hosts/n1/tls"
        sources = (other.path / "hosts/n1/tls", "is foreign"), (
            store.path / "hosts/n2/tls", "not for raftckpt://renewed/replica/n1",
        )  # fmt: skip
        for turn, (source, why) in enumerate(sources, 1):
            for name in ("replica.key", "replica.pem"):
                (tls / name).write_bytes((source / name).read_bytes())
            hosts.signal("n1", signal.SIGHUP)
            hosts.logged("n1", "reload_failed", turn)
            assert why in hosts.log("n1")
            assert _serial(1, _tls(store)) == before
        store.renew(Spans())
        hosts.signal("n1", signal.SIGHUP)
        hosts.logged("n1", " reloaded ")
        assert _serial(1, _tls(store)) != before


def test_drill_a_certificate_that_ends(store: CertificateStore, tmp_path: Path, capfd) -> None:
    """Two days before its end: metric, page, status and log tell it; a renewed one, and it goes."""
    store.renew(Spans(certificate=1.5), everything=True)
    admin = f"127.0.0.1:{_free_ports(1)[0]}"
    for node in NODES:
        config = store.path / "hosts" / node / "cluster.yaml"
        settings = yaml.safe_load(config.read_text("utf-8"))
        settings["replicas"]["n1"]["admin"] = admin
        settings["admin_open"] = "metrics"
        config.write_text(yaml.safe_dump(settings), "utf-8")

    def shown(path: str) -> str:
        with urllib.request.urlopen(f"http://{admin}{path}", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    tls = _tls(store)
    words = ["cluster", "status", "-o", "json", "--endpoints", f"{LOOPBACK}1:7401"]
    words += ["--ca", tls.ca, "--cert", tls.cert or "", "--key", tls.key or ""]

    def status() -> str:
        capfd.readouterr()
        cli_main.run(words)
        told = json.loads(capfd.readouterr().out)
        return "\n".join(told["findings"] + told["warnings"])

    with on_hosts(tmp_path, namespaces=False) as hosts:
        for node in NODES:
            _start(hosts, store, node)
        for node in NODES:
            hosts.logged(node, " ready ")
        hosts.logged("n1", " alarm ")
        said = "tls.peer.cert of n1 ends "
        assert said + "at 20" in hosts.log("n1")
        assert 'raftckpt_alarms{source="certificates"} 2' in shown("/metrics")
        assert f'role="alert">{said}' in shown("/now")
        assert said + "in " in status()
        assert "ends" in status()
        store.renew(Spans(), everything=True)
        for node in NODES:
            hosts.signal(node, signal.SIGHUP)
        hosts.logged("n1", " alarm_over ")
        assert 'raftckpt_alarms{source="certificates"} 0' in shown("/metrics")
        assert "No alarms." in shown("/now")
        assert said not in status()

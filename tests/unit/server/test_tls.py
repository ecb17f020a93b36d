"""TLS on the client port, with and without client certificates."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

import pytest
import trustme

from raftckpt.limits import EdgeLimits
from raftckpt.node.config import ConfigError, parse
from raftckpt.node.tls import check_certificates, client_context, peer_contexts
from tests.authority import Authority
from tests.unit.server.test_listener import run, serving

YAML = """\
cluster: demo
replicas:
  n1: {client: "127.0.0.1:7401", peer: "127.0.0.1:7501"}
tls:
"""


@pytest.fixture
def ca(tmp_path):
    ca = trustme.CA()
    server = ca.issue_cert("n1")
    server.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    server.private_key_pem.write_to_path(tmp_path / "server.key")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return ca


def server_context(tmp_path, *, verify: bool) -> ssl.SSLContext:
    line = "  client: {cert: server.pem, key: server.key" + (", ca: ca.pem}" if verify else "}")
    context = client_context(parse(YAML + line + "\n", str(tmp_path / "cluster.yaml")))
    assert context is not None
    return context


def client(ca: trustme.CA, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    ca.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def test_tls_encrypts_and_serves(tmp_path, ca):
    async def scenario(harness):
        peer = await harness.connect(ssl=client(ca))
        assert (await peer.call(121))[2] == 1

    run(scenario, tls=server_context(tmp_path, verify=False))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_killed_client_starts_the_grace_though_it_says_no_goodbye(tmp_path, ca, loop):
    """The kernel closes a dead process's TCP connection without the end that TLS prescribes."""
    factory = (
        asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip(loop).new_event_loop
    )

    async def whole() -> None:
        async with serving(tls=server_context(tmp_path, verify=False)) as harness:
            peer = await harness.connect(ssl=client(ca))
            reply = await peer.call(1, 0, 0, bytes(16), "test", "n1", 10**10, 10**9)
            assert reply[2] == 1
            state = next(iter(harness.listener.connections)).session
            peer.writer.transport.abort()
            async with asyncio.timeout(10):
                while state.owner is not None:
                    await asyncio.sleep(0)
            assert state.eof_at < float("inf")
            # while a close by our side still starts no clock
            again = await harness.connect(ssl=client(ca))
            assert (await again.call(201, reply[3][0], bytes(16)))[2] == 1
            next(iter(harness.listener.connections)).close()
            async with asyncio.timeout(10):
                while state.owner is not None:
                    await asyncio.sleep(0)
            assert state.eof_at == float("inf")

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(whole())


def test_plain_clients_are_turned_away(tmp_path, ca):
    async def scenario(harness):
        peer = await harness.connect(hello=False)
        peer.send([200, 1, [1], "x", None])
        assert await peer.closed()
        assert not peer.inbox

    run(scenario, tls=server_context(tmp_path, verify=False))


def test_only_certified_clients_are_served(tmp_path, ca):
    async def scenario(harness):
        peer = await harness.connect(ssl=client(ca, ca.issue_cert("app")))
        assert (await peer.call(121))[2] == 1
        for context in (client(ca), client(ca, trustme.CA().issue_cert("app"))):
            with pytest.raises(OSError):
                await harness.connect(ssl=context)
        assert len(harness.listener.connections) == 1

    run(scenario, tls=server_context(tmp_path, verify=True))


def test_files_that_do_not_belong_together_are_told(tmp_path, ca):
    other = ca.issue_cert("n2")
    other.private_key_pem.write_to_path(tmp_path / "server.key")
    with pytest.raises(ConfigError, match=r"tls\.client"):
        server_context(tmp_path, verify=True)


def test_no_files_no_tls():
    assert client_context(parse(YAML.replace("tls:\n", ""))) is None


def test_silent_connections_are_counted_before_their_handshake(tmp_path, ca):
    """Nobody hears of a TLS connection before its handshake: there must be a place for it yet."""

    async def scenario(harness):
        silent = []
        for _ in range(60):
            silent.append((await asyncio.open_connection(*harness.address))[1])
        peer = await harness.connect(ssl=client(ca))
        assert (await peer.call(121))[2] == 1
        assert len(harness.listener.doors.guests) <= 8
        for writer in silent:
            writer.close()

    edge = EdgeLimits(connections=16, connections_per_address=16)
    run(scenario, tls=server_context(tmp_path, verify=False), edge=edge)


def test_a_refused_handshake_is_told_with_address_reason_and_remedy(tmp_path, ca, caplog):
    async def scenario(harness):
        peer = await harness.connect(hello=False)
        peer.send([200, 1, [1], "x", None])
        assert await peer.closed()
        for context in (
            client(ca),
            client(ca, trustme.CA().issue_cert("app")),
            client(trustme.CA(), ca.issue_cert("app")),
        ):
            with pytest.raises(OSError):
                await harness.connect(ssl=context)
        async with asyncio.timeout(5):
            while len(caplog.messages) < 4:
                await asyncio.sleep(0)
        assert not harness.listener.doors.guests

    with caplog.at_level(logging.WARNING, "raftckpt.server"):
        run(scenario, tls=server_context(tmp_path, verify=True))
    assert all(message.startswith("refused peer=127.0.0.1:") for message in caplog.messages)
    whys = " ".join(caplog.messages)
    for word in ("speaks no TLS", "shows no certificate", "not one of", "know who signed"):
        assert word in whys


def test_a_handshake_that_never_comes_ends_in_time(tmp_path, ca, caplog):
    async def scenario(harness):
        reader, writer = await asyncio.open_connection(*harness.address)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
            while harness.listener.doors.guests:
                await asyncio.sleep(0)
        writer.close()

    with caplog.at_level(logging.WARNING, "raftckpt.server"):
        run(scenario, tls=server_context(tmp_path, verify=False), handshake_s=0.2)
    assert [message.split()[0] for message in caplog.messages] == ["refused"]


def test_a_certificate_of_another_cluster_is_refused(tmp_path, caplog):
    authority = Authority(tmp_path)
    files = authority.issue("replica", "n1")
    (tmp_path / "server.pem").write_text(Path(files["cert"]).read_text())
    (tmp_path / "server.key").write_text(Path(files["key"]).read_text())
    (tmp_path / "ca.pem").write_text(authority.path.read_text())

    def shown(name, *uris):
        made = authority.issue(name, name, uris=uris)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(made["ca"])
        context.load_cert_chain(made["cert"], made["key"])
        return context

    async def scenario(harness):
        own = f"raftckpt://{harness.listener._cluster}/client/app"
        peer = await harness.connect(ssl=shown("app", own))
        assert (await peer.call(121))[2] == 1
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError, AssertionError)):
            await harness.connect(ssl=shown("other", "raftckpt://another/client/app"))

    with caplog.at_level(logging.WARNING):
        run(scenario, tls=server_context(tmp_path, verify=True))
    assert "its certificate is for raftckpt://another/client/app" in caplog.text


SHARED = """\
  peer: {cert: all.pem, key: all.key, ca: authority.pem}
  client: {cert: all.pem, key: all.key, ca: authority.pem}
"""


def test_one_authority_for_all_needs_certificates_that_say_who_is_a_replica(tmp_path):
    authority = Authority(tmp_path)
    authority.issue("all", "n1", dns=["n1"])
    config = parse(YAML + SHARED, str(tmp_path / "cluster.yaml"))
    with pytest.raises(ConfigError, match="URI:raftckpt://demo/replica/n1"):
        check_certificates(config, "n1")
    contexts = peer_contexts(config)
    assert contexts is not None
    assert not contexts.names_count
    authority.issue("all", "n1", uris=["raftckpt://demo/replica/n1"])
    check_certificates(config, "n1")
    with pytest.raises(ConfigError):
        check_certificates(config, "n2")


def test_two_authorities_leave_hosts_names_as_they_were(tmp_path):
    Authority(tmp_path).issue("all", "n1", dns=["n1"])
    Authority(tmp_path, "clients")
    text = YAML + SHARED.replace("authority.pem}\n  client", "clients.pem}\n  client")
    config = parse(text, str(tmp_path / "cluster.yaml"))
    check_certificates(config, "n1")
    contexts = peer_contexts(config)
    assert contexts is not None
    assert contexts.names_count

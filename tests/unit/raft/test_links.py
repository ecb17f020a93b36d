"""Links between replicas over real loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trustme

from raftckpt import limits
from raftckpt.node.config import TlsFiles
from raftckpt.node.tls import _context
from raftckpt.protocol.frames import FrameDecoder, encode_frame, pack_messages
from raftckpt.raft.links import Hello, PeerLinks, PeerTls
from raftckpt.raft.messages import PeerProtocolError
from raftckpt.version import PEER_PROTOCOL
from tests.messages import unpack_messages


class Identity:
    def __init__(
        self, epoch: int = 1, directory: str = "d", *, used: bool = True, virgin: bool = False
    ) -> None:
        self.epoch, self.directory, self.used, self.virgin = epoch, directory, used, virgin
        self.known: dict[str, str] = {}
        self.given_up: set[tuple[str, str]] = set()

    def knows(self, node: str) -> bool:
        return node in self.known

    def superseded(self, node: str, directory: str) -> bool:
        return (node, directory) in self.given_up

    def remember(self, node: str, directory: str) -> None:
        self.known[node] = directory


class Notes:
    """A handler that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.hellos: list[Hello] = []
        self.raises: Exception | None = None

    def connected(self, node: str) -> None:
        self.events.append(("up", node))

    def disconnected(self, node: str, broken: bool) -> None:
        self.events.append(("down", node, broken))

    def receive(self, node: str, body: bytes) -> None:
        if self.raises is not None:
            raise self.raises
        self.events.append(("body", node, body))

    def met(self, hello: Hello) -> None:
        self.hellos.append(hello)


def free_addresses(*nodes: str) -> dict[str, tuple[str, int]]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in nodes]
    addresses = {node: sock.getsockname()[:2] for node, sock in zip(nodes, sockets, strict=True)}
    for sock in sockets:
        sock.close()
    return addresses


class Net:
    def __init__(self, *nodes: str) -> None:
        self.addresses = free_addresses(*nodes)
        self.links: list[PeerLinks] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def node(
        self,
        node: str,
        identity: Identity | None = None,
        *,
        cluster: str = "c",
        addresses: dict[str, tuple[str, int]] | None = None,
        tls: PeerTls | None = None,
    ) -> tuple[PeerLinks, Notes]:
        notes = Notes()
        links = PeerLinks(
            cluster,
            node,
            addresses or self.addresses,
            identity or Identity(),
            notes,
            tls,
            random.Random(1),
        )
        await links.start()
        self.links.append(links)
        return links, notes

    async def link(self, node: str, message: list[Any]) -> RawPeer:
        """Dial by hand and complete the handshake."""
        peer = await self.raw(node, message)
        answer = await peer.message()
        assert answer[0] == 300, answer
        peer.writer.write(pack_messages([[302]]))
        return peer

    async def raw(self, node: str, *messages: list[Any]) -> RawPeer:
        reader, writer = await asyncio.open_connection(*self.addresses[node])
        self.writers.append(writer)
        if messages:
            writer.write(pack_messages(list(messages)))
        return RawPeer(reader, writer)


class RawPeer:
    """A hand-made peer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = FrameDecoder()

    async def message(self) -> list[Any]:
        async with asyncio.timeout(5):
            while True:
                bodies = self.decoder.feed(await self.reader.read(65536) or b"")
                if bodies:
                    message: list[Any] = unpack_messages(bodies[0])[0]
                    return message

    async def closed(self) -> bool:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(8):
                while await self.reader.read(65536):
                    pass
        return True


@contextlib.asynccontextmanager
async def network(*nodes: str) -> AsyncIterator[Net]:
    net = Net(*nodes)
    try:
        yield net
    finally:
        for links in net.links:
            await links.stop()
        for writer in net.writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await asyncio.sleep(0.01)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(8):
        while not condition():
            await asyncio.sleep(0.002)


def run(scenario: Callable[[Net], Any], *nodes: str) -> None:
    async def whole() -> None:
        async with network(*(nodes or ("n1", "n2", "n3"))) as net:
            await scenario(net)

    asyncio.run(whole())


def hello(node: str, epoch: int = 1, directory: str = "d", **rest: Any) -> list[Any]:
    fields = {"protocol": PEER_PROTOCOL, "cluster": "c", "used": True, "virgin": False} | rest
    return [
        300, fields["protocol"], fields["cluster"], node, epoch, directory,
        fields["used"], fields["virgin"], False,
    ]  # fmt: skip


def test_one_link_per_pair_and_bodies_arrive_in_order():
    async def scenario(net):
        nodes = {name: await net.node(name) for name in ("n1", "n2", "n3")}
        await until(lambda: all(len(links.connected) == 2 for links, _ in nodes.values()))
        for _, notes in nodes.values():
            assert sorted(event[0] for event in notes.events) == ["up", "up"]
        for number in range(100):
            nodes["n1"][0].send("n3", b"\x00%d" % number)
            nodes["n3"][0].send("n1", b"\x00%d" % number)
        for name, other in (("n1", "n3"), ("n3", "n1")):
            notes = nodes[name][1]
            await until(lambda notes=notes: len(notes.events) == 102)
            assert [e for e in notes.events if e[0] == "body"] == [
                ("body", other, b"\x00%d" % number) for number in range(100)
            ]

    run(scenario)


def test_the_same_body_to_all_is_framed_once_and_arrives_whole():
    async def scenario(net):
        nodes = {name: await net.node(name) for name in ("n1", "n2", "n3")}
        await until(lambda: len(nodes["n1"][0].connected) == 2)
        await until(lambda: all(links.connected for links, _ in nodes.values()))
        body = b"\x00" + bytes(limits.MIB)
        for name in ("n2", "n3"):
            nodes["n1"][0].send(name, body)
        for name in ("n2", "n3"):
            notes = nodes[name][1]
            await until(lambda notes=notes: ("body", "n1", body) in notes.events)

    run(scenario)


def test_a_dead_peer_is_seen_as_broken_and_dialled_again():
    async def scenario(net):
        one, notes = await net.node("n1")
        two, _ = await net.node("n2")
        await until(lambda: one.connected)
        await two.stop()
        await until(lambda: ("down", "n2", True) in notes.events)
        await net.node("n2", Identity(epoch=2))
        await until(lambda: notes.events[-1] == ("up", "n2"))

    run(scenario, "n1", "n2")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (hello("n2", cluster="other"), "belongs to cluster 'other'"),
        (hello("n9"), "no replica of that name"),
        (hello("n1"), "own node id"),
        (hello("n0"), "does not dial"),
    ],
)
def test_strangers_are_refused_with_a_reason(message, why, caplog):
    async def scenario(net):
        _, notes = await net.node("n1")
        peer = await net.raw("n1", message)
        answer = await peer.message()
        assert answer[0] == 301
        assert why in answer[1]
        assert await peer.closed()
        assert notes.events == []

    with caplog.at_level(logging.WARNING):
        run(scenario, "n0", "n1", "n2")
    assert why in caplog.text


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        encode_frame(b"\x01"),
        encode_frame(b"\x00\xc1"),
        encode_frame(b"\x00" + bytes(5000)),
        pack_messages([[300, 99, "c", "n2"]]),
        pack_messages([[300]]),
        pack_messages([[300, 1, "c", "n2", 1, "d", 1, 0, 0]]),
        pack_messages([[300, 1, "c", "n2", 1, "d", True, False]]),
        pack_messages([hello("n2"), hello("n2")]),
        pack_messages([7]),
    ],
)
def test_garbage_is_closed_and_does_no_harm(data):
    async def scenario(net):
        links, notes = await net.node("n1")
        peer = await net.raw("n1")
        peer.writer.write(data)
        assert await peer.closed()
        assert notes.events == []
        await net.node("n2")
        await until(lambda: links.connected)

    run(scenario, "n1", "n2")


def test_half_a_handshake_is_closed_in_time(monkeypatch):
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS_MAX", 0.1)

    async def scenario(net):
        await net.node("n1")
        quiet = await net.raw("n1")
        half = await net.raw("n1")
        half.writer.write(pack_messages([hello("n2")])[:-1])
        assert await quiet.closed()
        assert await half.closed()

    run(scenario, "n1", "n2")


def test_nothing_is_reported_until_the_dialling_side_accepts():
    async def scenario(net):
        links, notes = await net.node("n1")
        early = await net.raw("n1", hello("n2"))
        assert (await early.message())[0] == 300
        early.writer.write(encode_frame(b"\x00x"))
        assert await early.closed()
        assert links.connected == []
        assert notes.events == []

    run(scenario, "n1", "n2")


def test_a_body_the_log_rejects_closes_the_link():
    async def scenario(net):
        links, notes = await net.node("n1")
        notes.raises = PeerProtocolError("planted")
        peer = await net.link("n1", hello("n2"))
        await until(lambda: links.connected)
        peer.writer.write(encode_frame(b"\x00\x90"))
        await until(lambda: ("down", "n2", False) in notes.events)

    run(scenario, "n1", "n2")


def test_a_restart_replaces_a_half_open_link():
    async def scenario(net):
        links, notes = await net.node("n1")
        old = await net.link("n1", hello("n2", epoch=1))
        await until(lambda: links.connected)
        new = await net.link("n1", hello("n2", epoch=2))
        await until(lambda: len(notes.events) == 3)
        assert notes.events == [("up", "n2"), ("down", "n2", True), ("up", "n2")]
        assert await old.closed()
        new.writer.write(encode_frame(b"\x00x"))
        await until(lambda: ("body", "n2", b"\x00x") in notes.events)

    run(scenario, "n1", "n2")


@pytest.mark.parametrize(
    ("epoch", "directory", "why"),
    [(1, "d", "a later start"), (5, "other", "another data directory")],
)
def test_a_second_process_of_the_same_id_disturbs_nobody(epoch, directory, why):
    async def scenario(net):
        links, notes = await net.node("n1")
        old = await net.link("n1", hello("n2", epoch=2))
        await until(lambda: links.connected)
        false = await net.raw("n1", hello("n2", epoch=epoch, directory=directory))
        assert why in (await false.message())[1]
        assert await false.closed()
        old.writer.write(encode_frame(b"\x00x"))
        await until(lambda: ("body", "n2", b"\x00x") in notes.events)
        assert notes.events == [("up", "n2"), ("body", "n2", b"\x00x")]
        old.writer.close()
        await until(lambda: ("down", "n2", True) in notes.events)
        await net.link("n1", hello("n2", epoch=epoch, directory=directory))
        await until(lambda: notes.events[-1] == ("up", "n2"))

    run(scenario, "n1", "n2")


def test_the_old_disk_of_a_rejoined_node_is_refused():
    async def scenario(net):
        identity = Identity()
        identity.given_up.add(("n2", "old"))
        links, notes = await net.node("n1", identity)
        ghost = await net.raw("n1", hello("n2", directory="old"))
        assert "given up" in (await ghost.message())[1]
        assert notes.events == []
        await net.link("n1", hello("n2", directory="new"))
        await until(lambda: links.connected)

    run(scenario, "n1", "n2")


def test_unused_directories_meet_but_never_link():
    async def scenario(net):
        empty = Identity(0, "", used=False, virgin=True)
        one, notes = await net.node("n1", empty)
        two_identity = Identity()
        two_identity.known["n1"] = "lost"
        two, other = await net.node("n2", two_identity)
        await until(lambda: len(notes.hellos) >= 2)
        assert notes.hellos[0].knows
        assert not other.hellos[0].used
        assert notes.events == other.events == []
        assert two_identity.known.get("n1") != ""
        empty.used, empty.directory = True, "new"
        await until(lambda: one.connected and two.connected)
        assert two_identity.known["n1"] == "new"
        assert empty.known["n2"] == "d"

    run(scenario, "n1", "n2")


def test_a_peer_is_remembered_before_it_is_reported():
    async def scenario(net):
        identity = Identity()
        _links, notes = await net.node("n1", identity)
        seen = []
        notes.connected = lambda node: seen.append(identity.knows(node))
        await net.link("n1", hello("n2"))
        await until(lambda: seen)
        assert seen == [True]

    run(scenario, "n1", "n2")


def test_a_peer_that_does_not_read_is_cut_off(monkeypatch, caplog):
    monkeypatch.setattr(limits, "PEER_QUEUE_BYTES_MAX", 4 * limits.MIB)

    async def scenario(net):
        links, notes = await net.node("n1")
        await net.link("n1", hello("n2"))
        await until(lambda: links.connected)
        body = b"\x00" + bytes(limits.MIB)
        for _ in range(40):
            links.send("n2", body)
            await asyncio.sleep(0)
        await until(lambda: ("down", "n2", False) in notes.events)
        links.send("n2", body)  # dropped

    with caplog.at_level(logging.WARNING):
        run(scenario, "n1", "n2")
    assert "queue_full peer=n2" in caplog.text


# --- TLS ----------------------------------------------------------------------------------------
def tls(tmp_path, ca: trustme.CA, name: str, *, common_name: str | None = None) -> PeerTls:
    import ssl

    certificate = ca.issue_cert(common_name=common_name) if common_name else ca.issue_cert(name)
    paths = {part: tmp_path / f"{name}-{common_name}.{part}" for part in ("cert", "key", "ca")}
    certificate.cert_chain_pems[0].write_to_path(paths["cert"])
    certificate.private_key_pem.write_to_path(paths["key"])
    ca.cert_pem.write_to_path(paths["ca"])
    files = TlsFiles(paths["cert"], paths["key"], paths["ca"])
    return PeerTls(
        _context(files, ssl.PROTOCOL_TLS_SERVER, "tls.peer", "c"),
        _context(files, ssl.PROTOCOL_TLS_CLIENT, "tls.peer", "c"),
    )


def test_mutual_tls_with_the_node_id_in_the_certificate(tmp_path):
    ca = trustme.CA()

    async def scenario(net):
        one, _notes = await net.node("n1", tls=tls(tmp_path, ca, "n1"))
        await net.node("n2", tls=tls(tmp_path, ca, "n2", common_name="n2"))
        await until(lambda: one.connected == ["n2"])
        one.send("n2", b"\x00x")

    run(scenario, "n1", "n2")


def test_wrong_certificates_are_refused(tmp_path, caplog):
    ca, other = trustme.CA(), trustme.CA()

    async def scenario(net):
        _, notes = await net.node("n1", tls=tls(tmp_path, ca, "n1"))
        await net.node("n2", tls=tls(tmp_path, ca, "n3"))  # says n2, certified as n3
        await until(lambda: "certificate is for n3" in caplog.text)
        _, foreign = await net.node("n3", tls=tls(tmp_path, other, "n3"))
        await until(lambda: "peer=n1 cannot connect" in caplog.text)
        plain = await net.raw("n1", hello("n2"))
        assert await plain.closed()
        await asyncio.sleep(0.1)
        assert notes.events == foreign.events == []
        assert notes.hellos == []

    with caplog.at_level(logging.WARNING):
        run(scenario)

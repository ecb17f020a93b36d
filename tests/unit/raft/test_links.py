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
from raftckpt.raft import links as links_module
from raftckpt.raft.hello import HELLO, Hello, Keys, objection_to
from raftckpt.raft.links import PeerLinks, PeerTls
from raftckpt.raft.messages import PeerProtocolError
from raftckpt.raft.port import PeerInfo
from raftckpt.storage import PeerNotes
from raftckpt.version import PEER_PROTOCOL
from tests.messages import unpack_messages
from tests.sim.disk import SimDisk


class Identity:
    """What a replica tells and remembers: the product's notes on a simulated disk."""

    def __init__(self, node: str, **told: Any) -> None:
        self._told = told
        self._node = node
        self.level = 0
        self.restart()

    def restart(self) -> None:
        disk = SimDisk(random.Random(str((self._node, self._told))))
        disk.fs.mkdir("/d")
        self.notes = PeerNotes(disk.fs, "/d", self._node, new_ok=True)
        self.run = self.notes.run

    def hello(self) -> Hello:
        return Hello(*hello(self._node, **{"incarnation": 1, "run": self.run, **self._told})[1:])

    def objection(self, hello: Hello) -> tuple[str | None, bool]:
        why = objection_to(hello, self.hello(), self.level)
        if why is not None:
            return why, False
        why = self.notes.objection(hello.directory, hello.incarnation, hello.run)
        return why, why is not None

    @property
    def keys(self) -> Keys:
        return self.notes

    def remember(self, hello: Hello, key: bytes, *, told: bool) -> None:
        self.notes.remember(
            hello.node, hello.directory, hello.incarnation, hello.run, key=key, told=told
        )


class Notes:
    """A handler that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.refusals: list[str] = []
        self.raises: Exception | None = None

    def connected(self, peer: PeerInfo) -> None:
        self.events.append(("up", peer.directory))

    def disconnected(self, directory: str, broken: bool) -> None:
        self.events.append(("down", directory, broken))

    def receive(self, directory: str, body: bytes) -> None:
        if self.raises is not None:
            raise self.raises
        self.events.append(("body", directory, body))

    def refused(self, node: str, why: str) -> None:
        self.refusals.append(why)


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
        dials: bool = True,
        tls: PeerTls | None = None,
        secret: bytes = b"",
    ) -> tuple[PeerLinks, Notes]:
        notes = Notes()
        links = PeerLinks(
            self.addresses[node],
            identity or Identity(node),
            notes,
            tls,
            random.Random(1),
            secret=secret,
        )
        await links.start()
        if dials:
            links.dial([item for item in self.addresses.items() if item[0] != node])
        self.links.append(links)
        return links, notes

    async def link(self, node: str, message: list[Any]) -> RawPeer:
        """Dial by hand and complete the handshake."""
        peer = await self.raw(node, message)
        answer = await peer.message()
        assert answer[0] == HELLO, answer
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
        message: list[Any] = unpack_messages(await self.body())[0]
        return message

    async def body(self) -> bytes:
        async with asyncio.timeout(5):
            while True:
                bodies = self.decoder.feed(await self.reader.read(65536) or b"")
                if bodies:
                    return bytes(bodies[0])

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


def hello(node: str, **fields: Any) -> list[Any]:
    """A hello as it goes over the wire; a directory has the name of its node unless told."""
    told = {
        "levels": [1, 2], "protocol": PEER_PROTOCOL, "cluster": "c", "node": node,
        "directory": node, "incarnation": 1, "run": "run", "founding": "", "joins": "",
        "peer": "", "client": "", "term": 0, "last_index": 0,
    } | fields  # fmt: skip
    return [HELLO, *(told[name] for name in Hello._fields if name in told)]


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


def test_after_a_large_read_others_have_their_turn():
    class PeerTransport(asyncio.Transport):
        """A socket in which there is always more to read."""

        def __init__(self) -> None:
            super().__init__()
            self.told: list[str] = []

        def pause_reading(self) -> None:
            self.told.append("pause")

        def resume_reading(self) -> None:
            self.told.append("resume")

        def is_closing(self) -> bool:
            return False

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return None

    async def scenario(net):
        links, notes = await net.node("n1", dials=False)
        peer = await net.link("n1", hello("n2"))
        await until(lambda: links.connected)
        (link,) = links._links.values()
        always, real = PeerTransport(), link.transport
        link.transport, told = always, always.told
        link.data_received(encode_frame(bytes(1000)))
        await asyncio.sleep(0)
        assert told == [], "which costs a little: not for a small one"
        link.data_received(encode_frame(bytes(100 * limits.KIB)))
        assert told == ["pause"]
        asyncio.get_running_loop().call_soon(told.append, "others")
        await asyncio.sleep(0)
        assert told == ["pause", "resume", "others"], "what was read is there in the next turn"
        assert len(notes.events) == 3
        link.transport = real
        assert peer.writer is not None

    run(scenario)


def test_a_dead_peer_is_seen_as_broken_and_dialled_again():
    async def scenario(net):
        one, notes = await net.node("n1")
        two, _ = await net.node("n2")
        await until(lambda: one.connected)
        await two.stop()
        await until(lambda: ("down", "n2", True) in notes.events)
        await net.node("n2", Identity("n2", incarnation=2))
        await until(lambda: notes.events[-1] == ("up", "n2"))

    run(scenario, "n1", "n2")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (hello("n2", cluster="other"), "belongs to cluster 'other'"),
        (hello("n1"), "own data directory"),
        (hello("n1", directory="other"), "own node id"),
        (hello("n2", directory="n1"), "own data directory"),
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
        encode_frame(b"\x00" + bytes(20_000)),
        pack_messages([[300, 1, "c", "n2", 1, "d", True, False, False]]),
        pack_messages([[300]]),
        pack_messages([[301, "go away", False], [301]]),
        pack_messages([hello("n2", incarnation="1")]),
        pack_messages([hello("n2")[:-1]]),
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


def test_a_link_that_is_up_outlives_the_time_for_handshakes_and_speaks_at_once(monkeypatch):
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS_MAX", 0.1)

    async def scenario(net):
        nodes = [await net.node(name) for name in ("n1", "n2")]
        await until(lambda: all(links.connected for links, _ in nodes))
        quiet = await net.raw("n1")  # begun after the others: when it is cut, their time is over
        assert await quiet.closed()
        assert [event[0] for _, notes in nodes for event in notes.events] == ["up", "up"]
        for links, _ in nodes:
            (link,) = links._links.values()
            options = link.transport.get_extra_info("socket")
            assert options.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert options.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

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
        old = await net.link("n1", hello("n2", incarnation=1, run="one"))
        await until(lambda: links.connected)
        new = await net.link("n1", hello("n2", incarnation=2, run="two"))
        await until(lambda: len(notes.events) == 3)
        assert notes.events == [("up", "n2"), ("down", "n2", True), ("up", "n2")]
        assert await old.closed()
        new.writer.write(encode_frame(b"\x00x"))
        await until(lambda: ("body", "n2", b"\x00x") in notes.events)

    run(scenario, "n1", "n2")


def test_the_same_run_again_is_a_reconnect_and_nobody_broke():
    async def scenario(net):
        links, notes = await net.node("n1")
        old = await net.link("n1", hello("n2"))
        await until(lambda: links.connected)
        await net.link("n1", hello("n2"))
        await until(lambda: len(notes.events) == 3)
        assert notes.events == [("up", "n2"), ("down", "n2", False), ("up", "n2")]
        assert await old.closed()

    run(scenario, "n1", "n2")


@pytest.mark.parametrize(("incarnation", "run_id"), [(1, "one"), (2, "another")])
def test_a_directory_that_went_back_in_time_is_told_and_disturbs_nobody(incarnation, run_id):
    async def scenario(net):
        links, notes = await net.node("n1")
        old = await net.link("n1", hello("n2", incarnation=2, run="two"))
        await until(lambda: links.connected)
        false = await net.raw("n1", hello("n2", incarnation=incarnation, run=run_id))
        kind, why, fatal = await false.message()
        assert (kind, fatal) == (301, True)
        assert "went back in time" in why
        assert await false.closed()
        old.writer.write(encode_frame(b"\x00x"))
        await until(lambda: ("body", "n2", b"\x00x") in notes.events)
        assert notes.events == [("up", "n2"), ("body", "n2", b"\x00x")]
        old.writer.close()
        await until(lambda: ("down", "n2", True) in notes.events)
        again = await net.raw("n1", hello("n2", incarnation=incarnation, run=run_id))
        assert (await again.message())[2] is True
        await net.link("n1", hello("n2", incarnation=3, run="three"))
        await until(lambda: notes.events[-1] == ("up", "n2"))

    run(scenario, "n1", "n2")


def test_whom_a_replica_met_it_knows_again():
    """With a secret each notes what the other told, and neither listens to somebody else."""

    async def scenario(net):
        known = {node: Identity(node) for node in ("n1", "n2")}
        for node, identity in known.items():
            await net.node(node, identity, secret=b"s" * 32)
        one, two = (identity.notes for identity in known.values())
        await until(lambda: one.key_of("n2") and two.key_of("n1"))
        assert one.key_of("n2") == two.own_key("n1")
        assert two.key_of("n1") == one.own_key("n2")
        assert one.told("n2")
        assert two.told("n1")
        await net.links.pop().stop()
        another = Identity("n2", incarnation=9)  # of the same names, and with another seed
        links, notes = await net.node("n2", another, secret=b"s" * 32)
        await until(lambda: "n1" in links._complaints)
        assert "mark" in " ".join(links._complaints["n1"])
        assert notes.events == []

    run(scenario, "n1", "n2")


def test_nothing_is_left_open_when_it_stops():
    """Also if a peer takes nothing more of what was said to it."""

    async def scenario(net):
        links, _ = await net.node("n1", dials=False)
        peer = await net.link("n1", hello("n2"))
        await until(lambda: links.connected)
        peer.writer.transport.pause_reading()
        for _ in range(16):
            links.send("n2", bytes(limits.MIB))
        (link,) = links._links.values()
        await links.stop()
        assert link.transport is None

    run(scenario, "n1")


def test_who_is_told_something_fatal_hears_of_it():
    async def scenario(net):
        known = Identity("n2")
        known.notes.remember("n1", "n1", 7, "a later start")
        _, notes = await net.node("n1")
        _, other = await net.node("n2", known)
        await until(lambda: notes.refusals)
        assert "this is start 1 of it, and start 7 was met" in notes.refusals[0]
        assert notes.events == other.events == other.refusals == []

    run(scenario, "n1", "n2")


def test_a_refusal_that_is_not_fatal_stops_nobody():
    async def scenario(net):
        _, notes = await net.node("n1", Identity("n1", cluster="other"))
        _, other = await net.node("n2")
        peer = await net.raw("n1", hello("n3"))
        kind, _why, fatal = await peer.message()
        assert (kind, fatal) == (301, False)
        await net.raw("n1", [301, "go away", False])
        await net.link("n2", hello("n3"))
        await until(lambda: other.events)
        assert notes.events == notes.refusals == other.refusals == []

    run(scenario, "n1", "n2")


def test_two_directories_of_one_node_id_have_links_of_their_own():
    """A member is its directory; who of two is meant is for the log to say."""

    async def scenario(net):
        links, notes = await net.node("n1", dials=False)
        one = await net.link("n1", hello("n2", directory="old"))
        await until(lambda: notes.events == [("up", "old")])
        two = await net.link("n1", hello("n2", directory="new"))
        await until(lambda: notes.events == [("up", "old"), ("up", "new")])
        assert links.connected == ["n2", "n2"]
        one.writer.write(encode_frame(b"\x00one"))
        await until(lambda: ("body", "old", b"\x00one") in notes.events)
        two.writer.write(encode_frame(b"\x00two"))
        await until(lambda: ("body", "new", b"\x00two") in notes.events)
        links.send("new", b"\x00to new")
        links.send("old", b"\x00to old")
        links.send("n2", b"\x00to nobody: links are with directories")
        assert [await one.body(), await two.body()] == [b"\x00to old", b"\x00to new"]
        one.writer.close()
        await until(lambda: ("down", "old", True) in notes.events)
        assert links.connected == ["n2"]

    run(scenario, "n1")


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"founding": "e" * 32}, "was founded twice"),
        ({"levels": [3, 4]}, "it can levels 3 to 4, the cluster is at level 2"),
        ({"levels": [1, 1]}, "it can levels 1 to 1, the cluster is at level 2"),
    ],
)
def test_another_founding_or_level_is_refused_with_the_sentence(told, why):
    async def scenario(net):
        identity = Identity("n1", founding="f" * 32)
        identity.level = 2
        _, notes = await net.node("n1", identity)
        peer = await net.raw("n1", hello("n2", **told))
        kind, said, fatal = await peer.message()
        assert (kind, fatal) == (301, False)
        assert why in said
        assert notes.events == []
        await net.link("n1", hello("n2", founding="f" * 32))
        await until(lambda: notes.events)

    run(scenario, "n1", "n2")


def test_who_is_not_founded_yet_links_with_whoever_is():
    async def scenario(net):
        one, notes = await net.node("n1", Identity("n1", founding="f" * 32))
        two, other = await net.node("n2", Identity("n2"))
        await until(lambda: one.connected and two.connected)
        assert (notes.events, other.events) == ([("up", "n2")], [("up", "n1")])

    run(scenario, "n1", "n2")


def test_who_sorts_first_dials_too_after_a_second(monkeypatch):
    monkeypatch.setattr(links_module, "_ORDER_S", 0.05)

    async def scenario(net):
        one, _ = await net.node("n1")
        await net.node("n2", dials=False)
        await until(lambda: one.connected)

    run(scenario, "n1", "n2")


def test_nobody_dials_who_is_no_target_any_more():
    async def scenario(net):
        two, _ = await net.node("n2", dials=False)
        target = ("n1", net.addresses["n1"])
        two.dial([target, ("n2", net.addresses["n2"])])
        assert set(two._dialers) == {target}, "it dials itself"
        two.dial([])
        one, _ = await net.node("n1", dials=False)
        await net.link("n1", hello("n3"))
        await until(lambda: one.connected == ["n3"])
        assert two.connected == []

    run(scenario, "n1", "n2")


def test_a_known_node_is_found_at_another_address():
    """Targets are dialled for who is there: the address that an old file gives is one of them."""

    async def scenario(net):
        net.addresses["elsewhere"] = free_addresses("x")["x"]
        one, _ = await net.node("n1", dials=False)
        two, _ = await net.node("n2", dials=False)
        two.dial([("n1", net.addresses["elsewhere"]), ("n1", net.addresses["n1"])])
        await until(lambda: one.connected == ["n2"] and two.connected == ["n1"])

    run(scenario, "n1", "n2")


def test_a_peer_is_remembered_before_it_is_reported():
    async def scenario(net):
        identity = Identity("n1")
        _links, notes = await net.node("n1", identity)
        seen = []

        def connected(peer):
            seen.append(identity.notes.objection(peer.directory, 0, "older"))

        notes.connected = connected
        await net.link("n1", hello("n2"))
        await until(lambda: seen)
        assert "start 1 was met" in seen[0]

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


# --- doors --------------------------------------------------------------------------------------
def test_replicas_that_share_a_secret_link_and_others_do_not(caplog):
    async def scenario(net):
        one, _ = await net.node("n1", secret=b"s" * 32)
        two, _ = await net.node("n2", secret=b"s" * 32)
        await until(lambda: one.connected == ["n2"] and two.connected == ["n1"])
        for liar in (b"t" * 32, b""):
            three, notes = await net.node("n3", secret=liar)
            await until(lambda: "refused by the peer: it" in caplog.text)
            await asyncio.sleep(0.1)
            assert notes.events == []
            await three.stop()
            net.addresses["n3"] = free_addresses("n3")["n3"]
        assert one.connected == ["n2"]
        body = b"\x00" + bytes(limits.MIB)  # right behind the last word of a handshake
        one.send("n2", body)

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert "does not have the secret" in caplog.text
    assert "peer_secret_file" in caplog.text


def test_strangers_make_room_and_links_stay(monkeypatch, caplog):
    monkeypatch.setattr(limits, "PEER_STRANGERS_MAX", 4)

    async def scenario(net):
        one, notes = await net.node("n1")
        await net.node("n2")
        await until(lambda: one.connected)
        silent = [await net.raw("n1") for _ in range(12)]
        assert [await peer.closed() for peer in silent[:8]] == [True] * 8
        assert len(one._doors.guests) <= 5
        await net.link("n1", hello("n3"))
        await until(lambda: one.connected == ["n2", "n3"])
        assert all(event[0] == "up" for event in notes.events)

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert caplog.text.count("no handshake, and others wait") == 1


def test_links_have_an_end_and_large_frames_wait_for_one(monkeypatch):
    monkeypatch.setattr(limits, "PEER_LINKS_MAX", 2)

    async def scenario(net):
        one, _ = await net.node("n1", dials=False)
        for node in ("n2", "n3"):
            await net.link("n1", hello(node))
        await until(lambda: len(one.connected) == 2)
        late = await net.raw("n1", hello("n4"))
        assert "there are 2 links" in (await late.message())[1]
        large = await net.raw("n1")
        large.writer.write(encode_frame(b"\x00" + bytes(20_000)))
        assert await large.closed()

    run(scenario, "n1")


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


def test_a_renewed_certificate_is_shown_when_it_dials_again(tmp_path, caplog):
    ca, other = trustme.CA(), trustme.CA()

    async def scenario(net):
        one, notes = await net.node("n1", tls=tls(tmp_path, ca, "n1"), dials=False)
        two, _ = await net.node("n2", tls=tls(tmp_path, other, "n2"))
        await until(lambda: 'peer=n1 why="cannot connect' in caplog.text)
        two.tls = tls(tmp_path, ca, "n2")
        await until(lambda: two.connected == ["n1"])
        one.tls = tls(tmp_path, other, "n1")  # a link that is up goes on, whatever is renewed
        two.send("n1", b"\x00x")
        await until(lambda: ("body", "n2", b"\x00x") in notes.events)
        assert [event[0] for event in notes.events] == ["up", "body"]

    with caplog.at_level(logging.WARNING):
        run(scenario, "n1", "n2")


def test_wrong_certificates_are_refused(tmp_path, caplog):
    ca, other = trustme.CA(), trustme.CA()

    async def scenario(net):
        _, notes = await net.node("n1", tls=tls(tmp_path, ca, "n1"))
        await net.node("n2", tls=tls(tmp_path, ca, "n3"))  # says n2, certified as n3
        await until(lambda: "certificate is for n3" in caplog.text)
        _, foreign = await net.node("n3", tls=tls(tmp_path, other, "n3"))
        await until(lambda: 'peer=n1 why="cannot connect' in caplog.text)
        plain = await net.raw("n1", hello("n2"))
        assert await plain.closed()
        await asyncio.sleep(0.1)
        assert notes.events == foreign.events == []

    with caplog.at_level(logging.WARNING):
        run(scenario)

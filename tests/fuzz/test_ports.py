"""Both ports of real replicas under hostile bytes: refusals or a closed connection, nothing else.

Whatever is sent, the process lives on with bounded memory, its log shows no traceback, and others
are served as if nothing were.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator

import msgpack
import pytest

import raftckpt
from raftckpt.protocol.frames import FrameError, MessageStream
from raftckpt.raft.messages import PeerProtocolError, decode_body, encode, join_bodies
from raftckpt.testing import LocalCluster
from tests.fuzz.hostile import HOSTILE, ODD, PACK, frame, spoiled_message, spoiled_stream
from tests.fuzz.profile import seeds
from tests.unit.raft.test_messages import SAMPLES as PEER_MESSAGES

HELLO = frame(b"\x00" + PACK([[200, 1, [1], "fuzz", None]]))
SECRET = bytes(range(16))
MEMORY_BYTES_MAX = 150 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3) as cluster:
        yield cluster


class Others:
    """Somebody else who goes on working, and looks at the replicas afterwards."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.leader = cluster.leader()
        self.pids = [cluster.pid(node) for node in cluster.nodes]
        self.memory = self._memory()
        self.service = raftckpt.connect(cluster.endpoints, timeout=30)
        self.checkpoint = self.service.open("others", create=raftckpt.Attributes())
        self.written = 0

    def _memory(self) -> list[int]:
        found = [self.cluster.status(node, 10) for node in self.cluster.nodes]
        return [status["rss_bytes"] for status in found if status is not None]

    def work(self) -> None:
        self.written += 1
        self.checkpoint.put("k", str(self.written).encode())
        assert self.checkpoint.read("k") == str(self.written).encode()

    def finish(self) -> None:
        self.work()
        self.service.close()
        assert [self.cluster.pid(node) for node in self.cluster.nodes] == self.pids
        memory = self._memory()
        assert len(memory) == 3
        assert all(b - a < MEMORY_BYTES_MAX for a, b in zip(self.memory, memory, strict=True))
        for node in self.cluster.nodes:
            assert "Traceback" not in self.cluster.log(node)


def exchange(endpoint: str, data: bytes) -> list[object]:
    """Send, hang up, and return what came back until the end (which comes in time)."""
    host, _, port = endpoint.rpartition(":")
    stream, messages = MessageStream(), []
    with socket.create_connection((host, int(port)), 10) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                messages += stream.feed(piece)
        except TimeoutError:
            pytest.fail("the replica neither answers nor closes")
        except OSError as error:  # it was closed at once
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
    return messages


def assert_honest(messages: list[object]) -> None:
    """Every message of a replica is one of the protocol's; every refusal has a code and a word."""
    for message in messages:
        assert isinstance(message, list)
        assert message[0] in (0, 1, 2, 3)
        if message[0] == 0 and message[2] != 1:
            assert 2 <= message[2] <= 31
            assert isinstance(message[3][0], str)


@pytest.mark.parametrize("greeted", [False, True], ids=["first", "after HELLO"])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_msgpack(cluster: LocalCluster, what: str, greeted: bool) -> None:
    others = Others(cluster)
    data = (HELLO if greeted else b"") + frame(b"\x00" + HOSTILE[what])
    assert_honest(exchange(cluster.endpoint(others.leader), data))
    exchange(cluster.peer_endpoint(others.leader), data)
    others.finish()


def test_messages_that_are_almost_right(cluster: LocalCluster) -> None:
    others = Others(cluster)
    for rng in seeds(60):
        messages = [spoiled_message(rng) for _ in range(20)]
        session = frame(b"\x00" + PACK([[1, 2, 0, 0, rng.randbytes(16), "fuzz", "n1", 10**9, 0]]))
        data = HELLO + (session if rng.random() < 0.7 else b"")
        for message in messages:
            try:
                data += frame(b"\x00" + PACK([message]))
            except (OverflowError, ValueError):
                continue
        node = rng.choice([others.leader, *cluster.nodes])
        assert_honest(exchange(cluster.endpoint(node), data))
        others.work()
    others.finish()


def test_frames_that_are_spoiled(cluster: LocalCluster) -> None:
    others = Others(cluster)
    for rng in seeds(80):

        def good(rng: random.Random = rng) -> bytes:
            return frame(b"\x00" + PACK([[24, 5, 1, 0, 1, b"id", rng.randbytes(30)], [202, 6]]))

        data = (HELLO if rng.random() < 0.8 else b"") + spoiled_stream(rng, good)
        assert_honest(exchange(cluster.endpoint(others.leader), data))
    others.finish()


def peer_body(rng: random.Random) -> bytes:
    messages = [list(rng.choice(PEER_MESSAGES)) for _ in range(rng.randint(1, 3))]
    for message in messages:
        if rng.random() < 0.5:
            message[rng.randrange(len(message))] = rng.choice(ODD)
    try:
        return b"\x00" + PACK(messages)
    except (OverflowError, ValueError):
        return b"\x00\x91\xc0"


def test_peer_messages_that_are_almost_right_raise_only_protocol_errors() -> None:
    passed = 0
    for rng in seeds(2000):
        body = peer_body(rng)
        if rng.random() < 0.2:
            body = spoiled_stream(rng, lambda b=body: frame(b))[8:]
        try:
            for message in decode_body(body):
                passed += 1
                assert list(join_bodies([encode(message)]))
        except PeerProtocolError:
            continue
    assert passed > 0
    for hostile in HOSTILE.values():
        with pytest.raises(PeerProtocolError):
            decode_body(b"\x00" + hostile)


def test_the_peer_port_serves_only_peers(cluster: LocalCluster) -> None:
    """Handshakes of strangers, of a wrong cluster, of a node that is there, and no handshakes."""
    others = Others(cluster)
    for rng in seeds(60):
        hello = [
            300,
            1,
            "local",
            rng.choice(["n1", "n2", "n9", ""]),
            5,
            "d" * 16,
            True,
            False,
            True,
        ]
        if rng.random() < 0.7:
            hello[rng.randrange(len(hello))] = rng.choice(ODD)
        try:
            data = frame(b"\x00" + PACK([hello]))
        except (OverflowError, ValueError):
            continue
        data += frame(peer_body(rng))
        if rng.random() < 0.3:
            data = spoiled_stream(rng, lambda d=data: d)
        exchange(cluster.peer_endpoint(rng.choice(cluster.nodes)), data)
    others.finish()
    assert cluster.leader() == others.leader, "the leader was disturbed"


def test_what_a_replica_sends_cannot_hurt_a_client_either() -> None:
    """The same bytes in the other direction raise frame errors, or decode to values."""
    for rng in seeds(500):
        data = spoiled_stream(rng, lambda r=rng: frame(b"\x00" + PACK([[0, 1, 1, r.random()]])))
        try:
            MessageStream(1 << 22).feed(data)
        except FrameError:
            continue
    for hostile in HOSTILE.values():
        try:
            MessageStream(1 << 22).feed(frame(b"\x00" + hostile))
        except FrameError:
            continue


def test_the_examples_are_what_they_claim() -> None:
    for name in ("an extension", "not a number", "a time stamp", "infinite"):
        assert msgpack.unpackb(HOSTILE[name], strict_map_key=False), name

"""A replica that is none: it speaks the protocol of the peer port, with or without the secret."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import time
from typing import Any

import msgpack
import yaml

from raftckpt.protocol.frames import FrameDecoder, encode_frame
from raftckpt.raft.hello import READY_BODY, Handshake, Hello, Refusal
from raftckpt.raft.messages import WHOLE
from raftckpt.testing import LocalCluster
from raftckpt.version import PEER_PROTOCOL
from tests.marks import Marks

__all__ = ["ForgedReplica", "member", "name_of", "secret_of"]


def secret_of(cluster: LocalCluster) -> bytes:
    """What the replicas of a cluster share, as whoever may read their files knows it."""
    return hashlib.sha256((cluster.data_dir / "peer.secret").read_bytes().strip()).digest()


def member(cluster: LocalCluster, node: str) -> dict[str, Any]:
    """What a hello in the name of a member says, and what its mark is made of."""
    text = (cluster.node_dir(node) / "identity").read_text("utf-8")
    told = json.loads(text.rpartition("}")[0] + "}")
    text = (cluster.node_dir(node) / "peers").read_text("utf-8")
    _, seed = json.loads(text.rpartition("}")[0] + "}").get("marks", ("", ""))
    return {
        "node": node,
        "directory": told["directory"],
        "founding": told["founding"],
        "seed": bytes.fromhex(seed),
    }


def name_of(cluster: LocalCluster) -> str:
    """Name of a cluster."""
    return str(yaml.safe_load(cluster.config_path.read_text("utf-8"))["cluster"])


class ForgedReplica:
    """A connection with the peer port of a replica.

    Arguments:
        endpoint: ``host:port``.
        cluster: name of the cluster.
        secret: what it proves to have; empty: nothing.
        seed: what its marks are made of.
        tls: context, if TLS is spoken there.
        told: fields of its hello.
    """

    def __init__(
        self,
        endpoint: str,
        cluster: str,
        *,
        secret: bytes = b"",
        seed: bytes = b"none of those",
        tls: ssl.SSLContext | None = None,
        **told: Any,
    ) -> None:
        host, _, port = endpoint.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 10)
        self.socket.settimeout(10)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket)
        self._decoder = FrameDecoder()
        fields: dict[str, Any] = {
            "levels": [1, 2], "protocol": PEER_PROTOCOL, "cluster": cluster, "node": "n3",
            "directory": os.urandom(16).hex(), "incarnation": 1, "run": os.urandom(8).hex(),
            "founding": "", "joins": "", "peer": "", "client": "", "term": 0, "last_index": 0,
        }  # fmt: skip
        self.handshake = Handshake(
            Hello(**(fields | told)),
            self.say_body,
            dialled=True,
            secret=secret,
            nonce=os.urandom(32),
            keys=Marks(seed),
        )

    def say_body(self, body: bytes) -> None:
        self.socket.sendall(encode_frame(body))

    def say(self, *messages: list[Any]) -> None:
        self.say_body(WHOLE + msgpack.packb(list(messages), use_bin_type=True))

    def ready(self) -> None:
        """Say that nothing speaks against the other side, whatever was proved."""
        self.say_body(READY_BODY)

    def hear(self) -> list[bytes]:
        """Bodies that came; none: the connection is closed."""
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionError:
                return []
            if not data:
                return []
            bodies = self._decoder.feed(data)
            if bodies:
                return bodies

    def link(self) -> Refusal | None:
        """Complete the handshake; returns what the other side has against it."""
        while not self.handshake.over:
            bodies = self.hear()
            if not bodies:
                return Refusal("closed", False)
            for body in bodies:
                if self.handshake.over:
                    break
                said = self.handshake.receive(body)
                if isinstance(said, Refusal):
                    return said
                if said is not None:
                    self.handshake.accept()
        return None

    def drain(self, seconds: float) -> None:
        """Take what comes for a while, or until the other side closes."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.hear():
                    return
            except TimeoutError:
                return

    def closed(self) -> bool:
        """Wait until the other side closes."""
        while self.hear():
            pass
        return True

    def __enter__(self) -> ForgedReplica:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

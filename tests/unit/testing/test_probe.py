"""Digests of several replicas: one that is stuck does not use up the time of the others."""

from __future__ import annotations

import socket
import socketserver
import threading

import pytest

from raftckpt.protocol.frames import MessageStream, pack_messages
from raftckpt.testing.probe import replica_digests


class _Answering(socketserver.BaseRequestHandler):
    """Replies to whatever is asked with a pair: nonce and index, or index and digest."""

    def handle(self) -> None:
        stream = MessageStream()
        while data := self.request.recv(1 << 16):
            for _, number, *_ in stream.feed(data):
                self.request.sendall(pack_messages([[0, number, 1, [7, 8]]]))


@pytest.fixture
def answering():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Answering) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def stuck():
    """Takes connections and never says a word, as a process that is stopped does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_the_digests_of_the_others_are_told_while_one_is_stuck(answering, stuck) -> None:
    endpoints = {"n1": stuck, "n2": answering, "n3": answering}
    index, digests = replica_digests(endpoints, "n2", timeout=1.0)
    assert index == 8
    assert digests == {"n1": None, "n2": "8", "n3": "8"}

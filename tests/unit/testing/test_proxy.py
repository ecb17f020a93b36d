"""The proxy must really hold, delay, release and break what it forwards."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import pytest

from raftckpt.testing import background
from raftckpt.testing.proxy import LinkProxy


@pytest.fixture
def link():
    """A proxy, the dialer's socket and the target's accepted socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        proxy = LinkProxy(*server.getsockname())
        background.run(proxy.start())
        with socket.create_connection(("127.0.0.1", proxy.port), 5) as dialer:
            dialer.sendall(b"?")
            target, _ = server.accept()
            with target:
                target.settimeout(5)
                assert target.recv(1) == b"?"
                yield proxy, dialer, target
        background.run(proxy.close())


def silent(sock: socket.socket) -> bool:
    sock.settimeout(0.05)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(5)
    return False


def test_forwards_both_ways(link) -> None:
    _, dialer, target = link
    dialer.sendall(b"a")
    target.sendall(b"b")
    assert target.recv(1) == b"a"
    assert dialer.recv(1) == b"b"


def test_stalled_direction_holds_bytes_and_releases_them(link) -> None:
    proxy, dialer, target = link
    background.call(lambda: proxy.stall(forward=True))
    dialer.sendall(b"held")
    target.sendall(b"free")
    assert dialer.recv(4) == b"free"
    assert silent(target)
    background.call(lambda: proxy.stall(forward=False))
    assert target.recv(4) == b"held"


def test_end_of_connection_is_stalled_too(link) -> None:
    proxy, dialer, target = link
    background.call(lambda: proxy.stall(forward=True))
    dialer.close()
    assert silent(target)
    background.call(lambda: proxy.stall(forward=False))
    assert target.recv(1) == b""


def test_delay(link) -> None:
    proxy, dialer, target = link
    background.call(lambda: proxy.delay(forward_s=0.05))
    begin = time.monotonic()
    dialer.sendall(b"x")
    assert target.recv(1) == b"x"
    assert time.monotonic() - begin >= 0.05


def test_reset_breaks_both_ends(link) -> None:
    proxy, dialer, target = link
    background.call(proxy.reset)
    for end in (dialer, target):
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_close_of_one_end_closes_the_other(link) -> None:
    _, dialer, target = link
    target.close()
    assert dialer.recv(1) == b""


def test_much_data_arrives_whole(link) -> None:
    _, dialer, target = link
    data = bytes(range(256)) * 40_000
    sender = threading.Thread(target=dialer.sendall, args=(data,))
    sender.start()
    got = bytearray()
    while len(got) < len(data):
        got += target.recv(1 << 20)
    sender.join()
    assert bytes(got) == data


def test_half_closed_stream_still_flows_the_other_way(link) -> None:
    proxy, dialer, target = link
    background.call(lambda: proxy.half_close(forward=True))
    assert target.recv(1) == b""
    dialer.sendall(b"swallowed")
    target.sendall(b"still here")
    assert dialer.recv(10) == b"still here"
    target.close()
    assert dialer.recv(1) == b""


def test_half_closing_what_was_reset_a_moment_ago_is_no_error(link) -> None:
    proxy, dialer, target = link

    def both() -> None:  # in one go: the proxy's loop has not seen the reset yet
        target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        target.close()
        proxy.half_close(forward=True)

    background.call(both)
    with contextlib.suppress(ConnectionError):
        assert dialer.recv(1) == b""


def test_sliced_stream_arrives_whole(link) -> None:
    proxy, dialer, target = link
    background.call(lambda: proxy.slice(3))
    sent = bytes(range(256)) * 4
    dialer.sendall(sent)
    received = target.recv(2048)
    while len(received) < len(sent):
        received += target.recv(2048)
    assert received == sent


def test_slow_link_takes_its_time(link) -> None:
    proxy, dialer, target = link
    background.call(lambda: proxy.slow(10_000.0))
    begin = time.monotonic()
    dialer.sendall(bytes(1000))
    received = 0
    while received < 1000:
        received += len(target.recv(1000))
    assert time.monotonic() - begin >= 0.1
    background.call(lambda: proxy.slow(None))

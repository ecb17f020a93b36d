"""The stand-in for a replica leaves nothing behind for later tests to be blamed for."""

from __future__ import annotations

import gc
import socket
import ssl
import warnings

import pytest

from .replica_double import LoopbackReplica


@pytest.mark.parametrize("secure", [False, True])
def test_closing_while_clients_connect_leaks_nothing(secure: bool) -> None:
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(10):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if secure else None
            loopback = LoopbackReplica(ssl=context)
            host, _, port = loopback.endpoint.partition(":")
            clients = [socket.create_connection((host, int(port))) for _ in range(3)]
            loopback.close()
            for client in clients:
                client.close()
        gc.collect()
    assert [str(warning.message) for warning in caught] == []

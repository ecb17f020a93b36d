"""Names and addresses: a silent resolver, a silent address, a silent replica cost nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import raftckpt
from raftckpt import Attributes
from raftckpt.client.io.resolving import Resolver

from .replica_double import LoopbackReplica
from .test_sync import unused_endpoint, wait_for


class Names:
    """A resolver that knows some names; others it does not answer for, until it is let go."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.answering = threading.Event()
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if not str(host).endswith(".test"):
            return self._real(host, port, *args, **options)
        self.asked.append(host)
        if host not in self.known:
            self.answering.wait()
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return [
            row
            for address in self.known[host]
            for row in self._real(address, port, *args, **options)
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.answering.set()


@pytest.fixture
def replica() -> Iterator[LoopbackReplica]:
    loopback = LoopbackReplica()
    yield loopback
    loopback.close()


def port_of(replica: LoopbackReplica) -> str:
    return replica.endpoint.rpartition(":")[2]


def test_a_silent_resolver_keeps_nobody_from_the_others(
    names: Names, replica: LoopbackReplica
) -> None:
    with raftckpt.connect(["n9.test:1", "n8.test:1", replica.endpoint], timeout=5.0) as service:
        service.open("c", create=Attributes()).put("a", b"x")
        answers = service.cluster(timeout=0.3).replicas
        assert [answer.reachable for answer in answers].count(False) == 2
    assert sorted(set(names.asked)) == ["n8.test", "n9.test"]
    assert names.asked.count("n9.test") == 1  # one question at a time, however often it is tried


def test_a_deadline_holds_for_a_silent_resolver(names: Names) -> None:
    with pytest.raises(raftckpt.Unavailable, match=r"n9\.test") as caught:
        raftckpt.connect("n9.test:1", timeout=0.3)
    assert caught.value.definite
    assert not names.answering.is_set()  # it returned without it


def test_the_asyncio_face_does_not_wait_for_it_either(
    names: Names, replica: LoopbackReplica
) -> None:
    async def main() -> None:
        async with raftckpt.aio.connect(["n9.test:1", replica.endpoint], timeout=5.0) as service:
            await service.open("c", create=Attributes())
        with pytest.raises(raftckpt.Unavailable):
            await raftckpt.aio.connect("n9.test:1", timeout=0.3)

    asyncio.run(main())  # its end waits for the threads of the loop: this is none of them
    assert not names.answering.is_set()


def test_addresses_that_are_known_are_used_while_the_resolver_is_silent(
    names: Names, replica: LoopbackReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftckpt.client.io.resolving._FRESH_SECONDS", 0.0)
    names.known["n1.test"] = ["127.0.0.1"]
    endpoint = f"n1.test:{port_of(replica)}"
    with raftckpt.connect(endpoint, timeout=5.0) as service:
        ckpt = service.open("c", create=Attributes())
        del names.known["n1.test"]
        for _ in range(3):
            replica.drop_connections()
            assert ckpt.put("a", b"x") > 0
        assert names.asked.count("n1.test") == 2  # the second question is still open


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_every_address_of_a_name_is_tried(
    names: Names, replica: LoopbackReplica, monkeypatch: pytest.MonkeyPatch, face: str
) -> None:
    """The first refuses, the second is silent; the third is tried beside it."""
    silent = socket.create_server(("127.0.0.3", 0), backlog=0)
    port = int(port_of(replica))
    names.known["n1.test"] = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
    real = socket.create_connection
    hanging = threading.Event()

    def connect(address: Any, *args: Any, **options: Any) -> Any:
        if address[0] == "127.0.0.3":
            hanging.wait(20)
            raise TimeoutError
        return real(address, *args, **options)

    monkeypatch.setattr(socket, "create_connection", connect)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        making = loop.create_connection

        async def make(factory: Any, host: str, *args: Any, **options: Any) -> Any:
            if host == "127.0.0.3":
                await asyncio.sleep(20)
            return await making(factory, host, *args, **options)

        loop.create_connection = make  # type: ignore[method-assign]
        async with raftckpt.aio.connect(f"n1.test:{port}", timeout=5.0) as service:
            await service.open("c", create=Attributes())

    if face == "asyncio":
        asyncio.run(main())
    else:
        with raftckpt.connect(f"n1.test:{port}", timeout=5.0) as service:
            service.open("c", create=Attributes())
    assert not hanging.is_set()
    hanging.set()
    silent.close()


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_a_name_that_has_no_address_is_no_reason_to_wait(names: Names, face: str) -> None:
    names.known["n1.test"] = []

    def connect() -> None:
        if face == "blocking":
            raftckpt.connect("n1.test:1", timeout=0.2)
        else:
            asyncio.run(raftckpt.aio.connect("n1.test:1", timeout=0.2)._connect())

    with pytest.raises(raftckpt.Unavailable, match="has no address"):
        connect()


def test_a_replica_that_accepts_and_says_nothing(replica: LoopbackReplica) -> None:
    """The next one is tried beside it, within the patience for one."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoints = [f"127.0.0.1:{silent.getsockname()[1]}", replica.endpoint]
        with raftckpt.connect(endpoints, timeout=0.9) as service:
            service.open("c", create=Attributes())


def test_no_thread_for_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    told: list[Any] = []
    monkeypatch.setattr(threading.Thread, "start", start)
    resolver = Resolver()
    assert resolver.find("n1.test", 1, lambda *answer: told.append(answer)) is None
    assert told == [([], "can't start new thread")]
    assert resolver.find("::1", 1, lambda *answer: None) == [("::1", 1)]


def test_the_end_of_a_service_waits_for_no_resolver(names: Names) -> None:
    service = raftckpt.connect(f"n9.test:1,{unused_endpoint()}", session=False)
    status = threading.Thread(target=lambda: service.cluster(timeout=0.2))
    status.start()
    wait_for(lambda: names.asked)
    status.join()
    service.close()
    assert not service._driver.engine._thread.is_alive()
    assert not names.answering.is_set()

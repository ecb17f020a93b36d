"""Death of a process ends its session, and nothing else does: clients and replicas are killed."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from typing import Any

import pytest

import raftckpt
from raftckpt.testing import LocalCluster
from tests.e2e.load import assert_equal_replicas
from tests.e2e.session_clients import ATTRIBUTES, Opener
from tests.waiting import until


def openers(service: raftckpt.Service, name: str) -> dict[str, tuple[int, int]]:
    """Session name -> (readers, writers), by a linearizable read."""
    for status in service.checkpoints():
        if status.name == name:
            assert len({o.name for o in status.openers}) == len(status.openers)
            return {o.name: (o.readers, o.writers) for o in status.openers}
    return {}


def counted(clients: list[Opener], name: str) -> dict[str, tuple[int, int]]:
    """What the living processes have open."""
    return {client.name: client.counts(name) for client in clients if any(client.counts(name))}


@pytest.mark.parametrize("load", [(), ("busy",)], ids=["idle", "busy"])
def test_kill_9_counts_the_openers_down(cluster: LocalCluster, load: tuple[str, ...]) -> None:
    """With grace 0, long before the session's timeout (10 s) could do it."""
    name = f"killed-{len(load)}"
    with raftckpt.connect(cluster.endpoints, name="me", timeout=30) as service:
        checkpoint = service.open(name, create=ATTRIBUTES)
        client = Opener(cluster.endpoints, "victim", f"{name}:r,{name}:rw", more=load).wait_ready()
        assert openers(service, name) == {"me": (1, 1), "victim": (2, 1)}
        client.end()
        until(lambda: openers(service, name) == {"me": (1, 1)}, "openers are counted down")
        checkpoint.close()
        until(lambda: not openers(service, name), "retention destroys it")


def socket_of(service: raftckpt.Service) -> socket.socket:
    (stream,) = service._driver._port.streams.values()
    sock: socket.socket = stream.sock
    return sock


def test_a_killed_client_that_left_replies_unread(cluster: LocalCluster) -> None:
    """The kernel resets such a connection instead of ending it."""
    with raftckpt.connect(cluster.endpoints, name="me", timeout=30) as service:
        service.open("reset", create=ATTRIBUTES).put("big", bytes(1 << 20))
        victim = raftckpt.connect(cluster.endpoints, name="victim", disconnect_grace=0.0)
        victim.open("reset")
        assert set(openers(service, "reset")) == {"me", "victim"}
        sock = socket_of(victim)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        victim._driver.close()  # as if the process were gone: nobody reconnects
        until(lambda: set(openers(service, "reset")) == {"me"}, "the reset counts as death")


@pytest.mark.slow
def test_idle_clients_keep_their_session_when_their_replica_dies(cluster: LocalCluster) -> None:
    async def idle() -> None:
        options: Any = {"disconnect_grace": 0.0, "session_timeout": 4.0, "timeout": 60}
        with raftckpt.connect(cluster.endpoints, name="blocking", **options) as blocking:
            async with await raftckpt.aio.connect(
                cluster.endpoints, name="asyncio", **options
            ) as awaitable:
                one = blocking.open("idle", create=ATTRIBUTES)
                two = await awaitable.open("idle")
                for how in (cluster.kill, cluster.terminate, cluster.kill):
                    leader = cluster.leader()
                    how(leader)
                    await asyncio.to_thread(cluster.restart, leader)
                # longer than any session could be silent: only keepalives are sent meanwhile
                await asyncio.sleep(5)
                assert set(openers(blocking, "idle")) == {"blocking", "asyncio"}
                assert one.put("k", b"v") > 0
                assert await two.read("k") == b"v"

    asyncio.run(idle())


def test_a_reset_network_is_survived_within_the_grace(cluster: LocalCluster) -> None:
    """Not the process died but its connection: it comes back as the same session."""
    with raftckpt.connect(cluster.endpoints, name="me", timeout=30) as service:
        checkpoint = service.open("network", create=ATTRIBUTES)
        for _ in range(3):
            socket_of(service).shutdown(socket.SHUT_RDWR)
            checkpoint.put("k", b"v")
        assert openers(service, "network") == {"me": (1, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_counts_are_right_whoever_is_killed(cluster: LocalCluster, seed: int) -> None:
    """Clients and replicas are killed in any order; what counts is who lives at the end."""
    rng = random.Random(seed)
    clients: list[Opener] = []
    name = f"counts{seed}"
    names = [f"{name}-x", f"{name}-y"]
    born = 0

    def start() -> Opener:
        nonlocal born
        born += 1
        handles = ",".join(
            f"{rng.choice(names)}:{rng.choice(['r', 'w', 'rw'])}" for _ in range(rng.randint(1, 3))
        )
        return Opener(cluster.endpoints, f"client{born}", handles, grace=rng.choice([0.0, 0.5]))

    try:
        clients += [start() for _ in range(4)]
        for client in clients:
            client.wait_ready()
        down: str | None = None
        for _ in range(14):
            what = rng.choice(["client", "client", "replica", "replica", "both", "birth", "bye"])
            if what in ("client", "both") and clients:
                clients.pop(rng.randrange(len(clients))).end()
            if what in ("replica", "both"):
                if down is not None:
                    cluster.restart(down)
                    down = None
                else:
                    down = rng.choice([cluster.leader(), *cluster.nodes])
                    rng.choice([cluster.kill, cluster.terminate])(down)
            if what == "bye" and clients:
                assert clients.pop(rng.randrange(len(clients))).leave(90) == 0
            if what == "birth" or len(clients) < 2:
                clients.append(start().wait_ready())
        if down is not None:
            cluster.restart(down)
        assert all(client.running for client in clients), "a client died of its own"
        with raftckpt.connect(cluster.endpoints, timeout=60) as service:
            for checkpoint in names:
                wanted = counted(clients, checkpoint)
                until(lambda n=checkpoint, w=wanted: openers(service, n) == w, str(wanted))
            for client in clients:
                client.signal(signal.SIGKILL)
            for client in clients:
                client.end()
            clients.clear()
            left = lambda: {s.name for s in service.checkpoints()} & set(names)  # noqa: E731
            until(lambda: not left(), "retention destroys what nobody has open")
        assert_equal_replicas(cluster)
    finally:
        for client in clients:
            client.end()

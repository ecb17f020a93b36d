from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

import raftckpt
from raftckpt import Attributes
from raftckpt.client.aio import Checkpoint, Service
from raftckpt.protocol.frames import pack_messages

from .replica_double import LoopbackReplica, ReplicaDouble


@pytest.fixture
def replica() -> Iterator[LoopbackReplica]:
    loopback = LoopbackReplica()
    yield loopback
    loopback.close()


def channel_of(service: Service) -> Any:
    (channel,) = service._driver._port._channels.values()
    return channel


def play(
    replica: LoopbackReplica, story: Callable[[Service, Checkpoint], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> None:
        async with raftckpt.aio.connect(replica.endpoint, timeout=5.0) as service:
            ckpt = await service.open("c", create=Attributes())
            await story(service, ckpt)

    asyncio.run(main())


def test_the_operations(replica: LoopbackReplica) -> None:
    async def story(service: Service, ckpt: Checkpoint) -> None:
        first = await ckpt.put("a", b"12345678")
        assert await ckpt.write("a", b"xx", offset=1) == first + 1  # type: ignore[operator]
        await ckpt.overwrite("a", b"87654321")
        await ckpt.write_many([("a", 0, b"-"), ("a", 7, b"+")])
        assert await ckpt.read("a") == b"-765432+"
        assert await ckpt.read_many([("a", 0, 1), ("a", 7, None)]) == [b"-", b"+"]
        assert await ckpt.read_versioned("a") == (b"-765432+", await ckpt.synchronize())
        assert await ckpt.get("b", 5) == 5
        assert await ckpt.get("a") == b"-765432+"
        assert await ckpt.create("b", b"x", ttl=1000.0) == b"b"
        assert await ckpt.exists("b")
        assert not await ckpt.exists("c")
        assert sorted(await ckpt.ids()) == [b"a", b"b"]
        assert await ckpt.count() == 2
        assert (await ckpt.read_all()).revision > 0
        assert len(await ckpt.sections("any")) == 2
        await ckpt.set_expiration("b")
        await ckpt.set_retention(5)
        await ckpt.delete("b")
        assert (await ckpt.status()).sections == 1
        assert await ckpt.active_replica_set(exclusive=True) > 0
        with pytest.raises(raftckpt.SectionNotExist):
            await ckpt.read("b")
        assert [found.name for found in await service.checkpoints()] == ["c"]
        assert (await service.cluster()).leader == "n1"
        assert (await service.check()).consistent
        await service.transfer_leadership()
        async with await service.open("d", create=Attributes()) as other:
            await other.unlink()
        await service.unlink("c")
        await ckpt.close()
        with pytest.raises(raftckpt.BadHandle):
            await ckpt.read("a")

    play(replica, story)
    assert not replica.replica.machine.sessions


@pytest.mark.parametrize("update", ["all", "weak"])
def test_synchronize_without_writes_tells_the_last_revision_known(
    replica: LoopbackReplica, update: Any
) -> None:
    async def story(service: Service, ckpt: Checkpoint) -> None:
        async with await service.open("s", create=Attributes(update=update)) as mine:
            opened = await mine.synchronize()
            assert opened > 0
            await mine.create("1", b"x")
            created = await mine.synchronize()
            assert created == (await mine.read_versioned("1"))[1] > opened
            assert await mine.synchronize() == created
            assert await mine.synchronize() < await ckpt.put("a", b"")  # type: ignore[operator]

    play(replica, story)


@pytest.mark.parametrize("session", [False, True])
def test_one_endpoint_is_enough_to_ask_all(replica: LoopbackReplica, session: bool) -> None:
    second, dead = LoopbackReplica(ReplicaDouble("n2")), "127.0.0.1:1"
    known = replica.replica.endpoints
    known.update(n2=second.endpoint, n3=dead, n4="nonsense")
    second.replica.endpoints = known
    second.replica.leader = "n1"

    async def main() -> None:
        async with raftckpt.aio.connect(second.endpoint, session=session) as service:
            status = await service.cluster(timeout=2.0)
            assert status.leader == "n1"
            assert [(each.node, each.endpoint, each.reachable) for each in status.replicas] == [
                ("n1", replica.endpoint, True),
                ("n2", second.endpoint, True),
                ("n3", dead, False),
                ("n4", "nonsense", False),
            ]
            report = await service.check()
            assert report.digests == {"n1": "00ff", "n2": "00ff", "n3": None, "n4": None}

    asyncio.run(main())
    second.close()


def test_a_silent_replica_does_not_hide_the_others(replica: LoopbackReplica) -> None:
    silent, third = LoopbackReplica(ReplicaDouble("n2")), LoopbackReplica(ReplicaDouble("n3"))
    replica.replica.endpoints.update(n2=silent.endpoint, n3=third.endpoint)
    silent.replica.silent_tags = set(range(256))

    async def main() -> None:
        endpoints = [silent.endpoint, replica.endpoint]
        async with raftckpt.aio.connect(endpoints, session=False) as service:
            replicas = (await service.cluster(timeout=0.5)).replicas
            assert [each.reachable for each in replicas] == [True, False, True]
            assert replicas[1].node == "n2"
            assert "no answer in time" in (replicas[1].problem or "")

    asyncio.run(main())
    silent.close()
    third.close()


def test_calls_of_one_round_share_a_frame(replica: LoopbackReplica) -> None:
    frames: list[int] = []
    handle = replica.replica.handle

    def counting(connection: Any, message: Any) -> Any:
        frames.append(id(connection.decoder))
        return handle(connection, message)

    async def story(service: Service, ckpt: Checkpoint) -> None:
        writes = 0
        transport = channel_of(service).transport
        original = transport.write

        def write(data: bytes) -> None:
            nonlocal writes
            writes += 1
            original(data)

        channel_of(service).transport = type("T", (), {"write": staticmethod(write)})()
        await asyncio.gather(*(ckpt.put("a", b"%d" % number) for number in range(50)))
        assert writes <= 2
        channel_of(service).transport = transport
        assert await ckpt.read("a") == b"49"

    replica.replica.handle = counting  # type: ignore[method-assign]
    play(replica, story)


def test_reconnecting(replica: LoopbackReplica) -> None:
    async def story(service: Service, ckpt: Checkpoint) -> None:
        for number in range(5):
            replica.drop_connections()
            await ckpt.put("a", b"%d" % number)
            assert await ckpt.read("a") == b"%d" % number

    play(replica, story)
    assert replica.accepted > 3


def test_large_values(replica: LoopbackReplica) -> None:
    async def story(service: Service, ckpt: Checkpoint) -> None:
        data = os.urandom(3_000_000)
        await ckpt.put("a", data)
        assert await ckpt.read("a") == data

    play(replica, story)


def test_deadlines_and_cancellation(replica: LoopbackReplica) -> None:
    async def story(service: Service, ckpt: Checkpoint) -> None:
        replica.replica.silent_tags = {24}
        with pytest.raises(raftckpt.Timeout) as caught:
            await ckpt.put("a", b"", timeout=0.1)
        assert not caught.value.definite
        task = asyncio.create_task(ckpt.put("a", b""))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        replica.replica.silent_tags = set()
        assert await ckpt.count() == 0

    play(replica, story)


def test_a_cancelled_open_leaves_no_opener(replica: LoopbackReplica) -> None:
    async def story(service: Service, ckpt: Checkpoint) -> None:
        for delay in range(6):
            task = asyncio.create_task(service.open("c"))
            for _ in range(delay):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await (await task).close()
        deadline = time.monotonic() + 5
        while (await ckpt.status()).openers[0].readers > 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    play(replica, story)


def test_nothing_there() -> None:
    async def main() -> None:
        with pytest.raises(raftckpt.Unavailable):
            await raftckpt.aio.connect("127.0.0.1:1", timeout=0.2)
        async with raftckpt.aio.connect("127.0.0.1:1", timeout=0.2, session=False) as service:
            (status,) = (await service.cluster()).replicas
            assert not status.reachable
            assert (await service.cluster()).leader is None
            with pytest.raises(raftckpt.Unavailable):
                await service.check()

    asyncio.run(main())


def test_a_replica_that_stays_silent(replica: LoopbackReplica) -> None:
    replica.replica.silent_tags = set(range(256))

    async def main() -> None:
        async with raftckpt.aio.connect(replica.endpoint, timeout=0.3, session=False) as service:
            (status,) = (await service.cluster()).replicas
            assert "no answer in time" in (status.problem or "")
            with pytest.raises((raftckpt.Unavailable, raftckpt.TryAgain)):
                await service.open("a")

    asyncio.run(main())


def test_awaiting_connect_and_closing_by_hand(replica: LoopbackReplica) -> None:
    async def main() -> None:
        service = await raftckpt.aio.connect(replica.endpoint)
        assert await service.checkpoints() == []
        await service.close()
        await service.close()
        with pytest.raises(raftckpt.BadHandle):
            await service.checkpoints()
        with pytest.raises(ZeroDivisionError):
            async with raftckpt.aio.connect(replica.endpoint):
                raise ZeroDivisionError

    asyncio.run(main())
    assert not replica.replica.machine.sessions


def test_closing_fails_what_is_under_way(replica: LoopbackReplica) -> None:
    async def main() -> None:
        service = await raftckpt.aio.connect(replica.endpoint)
        ckpt = await service.open("a", create=Attributes())
        replica.replica.silent_tags = {24}
        task = asyncio.create_task(ckpt.put("a", b""))
        await asyncio.sleep(0.05)
        await service._driver.close()
        with pytest.raises(raftckpt.BadHandle):
            await task
        await ckpt.close()

    asyncio.run(main())


def test_a_forgotten_service_is_reported(replica: LoopbackReplica) -> None:
    async def main() -> None:
        service = await raftckpt.aio.connect(replica.endpoint)
        driver = service._driver
        with pytest.warns(ResourceWarning, match="not closed"):  # noqa: PT031
            del service
            gc.collect()
        await asyncio.sleep(0)
        assert driver.closed
        await driver.close()
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_service_that_outlives_its_loop_is_reported_and_ends(replica: LoopbackReplica) -> None:
    kept: list[Any] = []

    async def main() -> None:
        service = await raftckpt.aio.connect(replica.endpoint)
        kept.append(await service.open("c", create=Attributes()))
        kept.append(channel_of(service).transport)

    gc.collect()
    asyncio.run(main())
    assert kept.pop()._sock is None
    with pytest.warns() as caught:  # noqa: PT031
        kept.clear()
        gc.collect()
    assert ["a raftckpt service was not closed" in str(each.message) for each in caught] == [True]


def test_a_suspected_leader_is_kept_until_another_is_found(replica: LoopbackReplica) -> None:
    """The silent connection is held open, unread, until the session is attached again."""
    other = LoopbackReplica()
    other.replica.machine = replica.replica.machine
    other.replica.handle = replica.replica.handle  # type: ignore[method-assign]

    async def main() -> None:
        endpoints = [replica.endpoint, other.endpoint]
        async with raftckpt.aio.connect(endpoints, session_timeout=0.6) as service:
            ckpt = await service.open("a", create=Attributes())
            replica.replica.silent_tags = {24, 121, 202}
            task = asyncio.create_task(ckpt.put("a", b"x"))
            while len(service._driver.core.wanted()) < 2:
                await asyncio.sleep(0.01)
            replica.replica.silent_tags = set()
            await task
            assert len(service._driver.core.wanted()) == 1
            assert other.accepted

    asyncio.run(main())
    other.close()


def test_a_lost_session(replica: LoopbackReplica) -> None:
    async def story(service: Service, ckpt: Checkpoint) -> None:
        replica.send_to_all(pack_messages([[2, "session_lost", "expired"]]))
        with pytest.raises(raftckpt.SessionLost):  # noqa: PT012
            for _ in range(1000):
                await ckpt.put("a", b"")
                await asyncio.sleep(0.002)

    play(replica, story)


def test_tls(tmp_path: Any) -> None:
    trustme = pytest.importorskip("trustme")
    import ssl

    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    mine = authority.issue_cert("client")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "me.pem")
    loopback = LoopbackReplica(ssl=server)
    options = raftckpt.TlsOptions(ca=str(tmp_path / "ca.pem"), cert=str(tmp_path / "me.pem"))

    async def main() -> None:
        async with raftckpt.aio.connect(loopback.endpoint, tls=options) as service:
            ckpt = await service.open("a", create=Attributes())
            await ckpt.put("x", b"y")
            assert await ckpt.read("x") == b"y"
            assert (await service.cluster()).replicas[0].reachable

    asyncio.run(main())
    loopback.close()


def test_a_program_is_told_how_its_client_fares(replica: LoopbackReplica) -> None:
    states: list[str] = []

    async def story(service: Service, ckpt: Checkpoint) -> None:
        service.on_state = states.append
        await ckpt.put("a", b"1")
        replica.drop_connections()
        while "searching" not in states:
            await asyncio.sleep(0.001)
        await ckpt.put("a", b"2")
        service.on_state = None

    play(replica, story)
    assert states == ["connected", "searching", "connected"]

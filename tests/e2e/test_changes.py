"""append, if_revision and transactions with real processes: once, whole, in order, through kills.

Every client is written once, as a coroutine, and speaks either face: half of them call the asyncio
face, half the blocking one.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import random
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

import raftckpt
from raftckpt.client.core import ClientCore
from raftckpt.client.routing import Router
from raftckpt.protocol.contract import MIB, WRITE_BYTES_MAX
from raftckpt.testing import LocalCluster
from tests.chaos.saboteur import VARIABLE
from tests.e2e.link import Link
from tests.e2e.load import assert_equal_replicas
from tests.waiting import until

ROOT = Path(__file__).parents[2]
FACES: dict[str, Callable[..., Any]] = {
    "blocking": raftckpt.connect,
    "asyncio": raftckpt.aio.connect,
}
IMPATIENT_S = 0.05
"""Shorter than a failover: some outcomes become unknown."""

faces = pytest.mark.parametrize("face", FACES)


async def told(value: Any) -> Any:
    """What a method of either face returned."""
    return await value if inspect.isawaitable(value) else value


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    """A ``with`` block of either face."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


async def committed(transaction: Any, error: BaseException | None = None) -> None:
    """End a transaction, by an exception if one is given."""
    async with entered(transaction):
        if error is not None:
            raise error


class Clients:
    """Threads with a session each, by turns of either face; they work until they are stopped."""

    def __init__(
        self,
        cluster: LocalCluster,
        count: int,
        work: Callable[[Any, int], Awaitable[None]],
        endpoints: str = "",
    ) -> None:
        self.stopped = threading.Event()
        self.done = [0] * count
        self.errors: list[BaseException] = []
        self._cluster = cluster
        self._endpoints = endpoints or cluster.endpoints
        self._work = work
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        assert self.errors == [] or error is not None

    def _run(self, number: int) -> None:
        connect = list(FACES.values())[number % 2]

        async def work() -> None:
            async with entered(connect(self._endpoints, timeout=30)) as service:
                await self._work(service, number)

        try:
            asyncio.run(work())
        except BaseException as error:
            self.errors.append(error)

    def reach(self, more: int) -> None:
        """Wait until ``more`` has been done, in sum."""
        goal = sum(self.done) + more
        until(lambda: sum(self.done) >= goal or self.errors, f"{more} more")
        assert self.errors == []

    def through_kills(self, kills: int = 2, each: int = 60) -> None:
        """Kill whoever leads, again and again; work goes on under the next one."""
        for _ in range(kills):
            self.reach(each)
            leader = self._cluster.leader()
            self._cluster.kill(leader)
            self.reach(each)
            self._cluster.restart(leader)


def timeout_of(number: int) -> float | None:
    """Every other pair of clients does not wait for the outcome."""
    return IMPATIENT_S if number // 2 % 2 else None


def is_unknown(error: raftckpt.CheckpointError) -> bool:
    """Whether it may have happened; a session must not be lost."""
    if isinstance(error, raftckpt.SessionLost):
        raise error
    return not error.definite


# --- appends -------------------------------------------------------------------------------------


class Appends:
    """Clients that append records to two sections, and what they were told."""

    def __init__(
        self, cluster: LocalCluster, name: str, update: str = "all", endpoints: str = ""
    ) -> None:
        self._attributes = raftckpt.Attributes(update=update)  # type: ignore[arg-type]
        self._cluster, self._name = cluster, name
        self.acknowledged: dict[str, dict[bytes, raftckpt.Appended]] = {"log0": {}, "log1": {}}
        self.unknown: set[bytes] = set()
        self.clients = Clients(cluster, 4, self._append, endpoints)

    async def _append(self, service: Any, number: int) -> None:
        checkpoint = await told(service.open(self._name, create=self._attributes))
        for count in itertools.count():
            if self.clients.stopped.is_set():
                return
            section = f"log{count % 2}"
            record = b"<%d-%d%s>" % (number, count, b"." * (count % 50))
            try:
                found = await told(checkpoint.append(section, record, timeout=timeout_of(number)))
            except raftckpt.CheckpointError as error:
                if is_unknown(error):
                    self.unknown.add(record)
            else:
                self.acknowledged[section][record] = found
                self.clients.done[number] += 1

    def verify(self) -> None:
        """Find every acknowledged record once, at its offset; of the others the unknown at most."""
        with raftckpt.connect(self._cluster.endpoints) as service:
            logs = service.open(self._name, mode="r").read_all()
        for section, acknowledged in self.acknowledged.items():
            content = logs[section.encode()]
            records = re.findall(rb"<[^<>]*>", content)
            assert b"".join(records) == content
            assert len(records) == len(set(records)), "a record was appended twice"
            assert set(records) - set(acknowledged) <= self.unknown, "refused, yet there"
            for record, found in acknowledged.items():
                assert content.startswith(record, found.offset), (record, found)
            revisions = [found.revision for found in sorted(acknowledged.values())]
            assert revisions == sorted(set(revisions)), "offsets and revisions differ in order"


@pytest.mark.parametrize("update", ["all", "weak"])
def test_appends_through_kills_of_leaders_are_there_exactly_once(cluster, update) -> None:
    appends = Appends(cluster, f"appends-{update}", update)
    with appends.clients as clients:
        clients.through_kills()
    appends.verify()
    assert_equal_replicas(cluster)


# --- compare and set -----------------------------------------------------------------------------


def test_counters_lose_no_update_through_kills_of_leaders(cluster) -> None:
    """A counter holds its value, and how much of it each client added."""
    known = [{"a": 0, "b": 0} for _ in range(4)]
    conflicts: list[tuple[raftckpt.Conflict, bytes, int]] = []

    async def increment(service: Any, number: int) -> None:
        checkpoint = await told(service.open("counters", create=raftckpt.Attributes()))
        mine = known[number]
        while not clients.stopped.is_set():
            section = "ab"[clients.done[number] % 2]
            try:
                data, revision = await told(checkpoint.read_versioned(section))
            except raftckpt.SectionNotExist:
                data, revision = b'{"value": 0}', 0
            counter = json.loads(data)
            tally = counter.get(str(number), 0)
            if tally == mine[section] + 1:  # the one whose outcome was unknown has happened
                mine[section] = tally
                continue
            assert tally == mine[section]
            counter["value"] += 1
            counter[str(number)] = tally + 1
            new = json.dumps(counter).encode()
            try:
                made = await told(
                    checkpoint.put(section, new, if_revision=revision, timeout=timeout_of(number))
                )
            except raftckpt.Conflict as conflict:
                conflicts.append((conflict, section.encode(), revision))
            except raftckpt.CheckpointError as error:
                is_unknown(error)
            else:
                assert made > revision
                mine[section] += 1
                clients.done[number] += 1
        # an unknown outcome of the end is told by the state once its session is over

    with Clients(cluster, 4, increment) as clients:
        clients.through_kills()
    assert conflicts
    for conflict, key, revision in conflicts:
        assert conflict.definite
        assert conflict.section == key
        assert conflict.revision > revision, "it had the revision that was asked for"
    with raftckpt.connect(cluster.endpoints) as service:
        for section, data in service.open("counters", mode="r").read_all().items():
            counter = json.loads(data)
            value = counter.pop("value")
            assert value == sum(counter.values())
            for number, mine in enumerate(known):
                more = counter.get(str(number), 0) - mine[section.decode()]
                assert more in ((0, 1) if timeout_of(number) else (0,))
    assert_equal_replicas(cluster)


# --- transactions --------------------------------------------------------------------------------

ACCOUNTS = [f"account{number}" for number in range(6)]
START = 100


def total(sections: Any) -> int:
    return sum(int(data) for section, data in sections.items() if section.startswith(b"account"))


class Bank:
    """Clients that move amounts between sections, and others that watch them do it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.acknowledged: dict[bytes, tuple[int, int]] = {}
        """Entry of the journal -> revision and offset."""
        self.unknown: set[bytes] = set()
        self.conflicts: list[raftckpt.Conflict] = []
        self.reads = 0
        self.feeds: list[list[raftckpt.Change]] = [[], []]
        self.copies: list[dict[bytes, bytes]] = [{}, {}]
        with raftckpt.connect(cluster.endpoints) as service:
            checkpoint = service.open("bank", create=raftckpt.Attributes())
            with checkpoint.transaction() as transaction:
                for account in ACCOUNTS:
                    transaction.create(account, b"%d" % START)
                transaction.create("journal")
        self.movers = Clients(cluster, 4, self._move)
        self.readers = Clients(cluster, 2, self._read)
        self.followers = Clients(cluster, 2, self._follow)

    async def _move(self, service: Any, number: int) -> None:
        dice = random.Random(number)
        checkpoint = await told(service.open("bank"))
        for count in itertools.count():
            if self.movers.stopped.is_set():
                return
            entry = b"<%d-%d>" % (number, count)
            amount = dice.randint(1, 20)
            source, target = dice.sample(ACCOUNTS, 2)
            less, seen = await told(checkpoint.read_versioned(source))
            more, seen_too = await told(checkpoint.read_versioned(target))
            transaction = checkpoint.transaction(timeout=timeout_of(number))
            try:
                async with entered(transaction):
                    transaction.put(source, b"%d" % (int(less) - amount), if_revision=seen)
                    transaction.append("journal", entry)
                    transaction.put(target, b"%d" % (int(more) + amount), if_revision=seen_too)
            except raftckpt.Conflict as conflict:
                self.conflicts.append(conflict)
            except raftckpt.CheckpointError as error:
                if is_unknown(error):
                    self.unknown.add(entry)
            else:
                offset = transaction.results[1]
                assert transaction.results == [None, offset, None]
                assert transaction.revision is not None
                self.acknowledged[entry] = transaction.revision, offset
                self.movers.done[number] += 1

    async def _read(self, service: Any, number: int) -> None:
        checkpoint = await told(service.open("bank", mode="r"))
        while not self.readers.stopped.is_set():
            for consistency in ("linearizable", "local"):
                image = await told(checkpoint.read_all(consistency=consistency))
                if image:  # who has just started may not have heard of it
                    assert total(image) == START * len(ACCOUNTS)
                    self.readers.done[number] += 1

    async def _follow(self, service: Any, number: int) -> None:
        async with entered(await told(service.track("bank"))) as tracker:
            while not self.followers.stopped.is_set():
                try:
                    self._saw(number, await told(tracker.next(0.2)))
                except raftckpt.Timeout:
                    continue
            await told(tracker.sync(timeout=30))
            for change in await told(tracker.drain()):
                self._saw(number, change)

    def _saw(self, number: int, change: raftckpt.Change) -> None:
        change.apply_to(self.copies[number])
        assert total(self.copies[number]) == START * len(ACCOUNTS)
        self.feeds[number].append(change)
        self.followers.done[number] += 1

    def verify(self) -> None:
        """Compare the journal, what movers were told, and what followers saw."""
        with raftckpt.connect(self._cluster.endpoints) as service:
            image = service.open("bank", mode="r").read_all()
        assert total(image) == START * len(ACCOUNTS)
        content = image[b"journal"]
        entries = re.findall(rb"<[^<>]*>", content)
        assert b"".join(entries) == content
        assert len(entries) == len(set(entries))
        assert set(entries) >= set(self.acknowledged)
        assert set(entries) - set(self.acknowledged) <= self.unknown
        for entry, (_, offset) in self.acknowledged.items():
            assert content.startswith(entry, offset)
        for copy, (first, *changes) in zip(self.copies, self.feeds, strict=True):
            assert copy == image
            assert first.kind == "image"
            assert {change.kind for change in changes} == {"transaction"}
            assert [self._entry(change) for change in changes] == entries, "a gap, or a repeat"
            revisions = {self._entry(change): change.revision for change in changes}
            for entry, (revision, _) in self.acknowledged.items():
                assert revisions[entry] == revision

    def _entry(self, change: raftckpt.Change) -> bytes:
        put, append, put_too = change.parts
        assert (put.kind, append.kind, put_too.kind) == ("overwritten", "written", "overwritten")
        assert append.section == b"journal"
        return append.data


def test_transactions_through_kills_of_leaders_are_whole_for_everybody(cluster) -> None:
    bank = Bank(cluster)
    with bank.followers as followers, bank.readers as readers:
        followers.reach(2)  # images: whoever follows sees everything from now on
        with bank.movers as movers:
            movers.through_kills()
        readers.reach(2)
    bank.verify()
    assert bank.conflicts
    assert {conflict.index for conflict in bank.conflicts} <= {0, 2}
    assert_equal_replicas(cluster)


@faces
def test_refused_transaction_leaves_no_trace(cluster, face) -> None:
    async def work() -> None:
        async with entered(FACES[face](cluster.endpoints)) as service:
            checkpoint = await told(service.open(f"traces-{face}", create=raftckpt.Attributes()))
            seen = await told(checkpoint.put("k", b"1"))
            async with entered(await told(checkpoint.track(image=False))) as tracker:
                transaction = checkpoint.transaction()
                transaction.append("k", bytes(2 * MIB))  # in stages
                transaction.put("new", b"", if_revision=seen)
                with pytest.raises(raftckpt.Conflict) as conflict:
                    await committed(transaction)
                assert (conflict.value.section, conflict.value.revision) == (b"new", 0)
                assert (conflict.value.index, transaction.revision) == (1, None)
                transaction = checkpoint.transaction()
                transaction.delete("k", if_revision=seen)
                transaction.overwrite("k", b"2")
                with pytest.raises(raftckpt.SectionNotExist) as missing:
                    await committed(transaction)
                assert missing.value.index == 1
                transaction = checkpoint.transaction()
                transaction.put("k", b"2")
                with pytest.raises(ZeroDivisionError):
                    await committed(transaction, ZeroDivisionError())
                assert await told(checkpoint.read_versioned("k")) == (b"1", seen)
                found = await told(checkpoint.append("k", b"2", if_revision=seen))
                assert found == (1, seen + 1)
                await told(tracker.sync())
                assert [each.revision for each in await told(tracker.drain())] == [seen + 1]
            await told(checkpoint.delete("k", if_revision=seen + 1))

    asyncio.run(work())


@pytest.mark.long
@faces
def test_transaction_of_64_mib_is_one_change_through_a_kill(cluster, face) -> None:
    half = bytes(range(256)) * (WRITE_BYTES_MAX // 512)

    async def work() -> None:
        async with entered(FACES[face](cluster.endpoints, timeout=60)) as service:
            checkpoint = await told(
                service.open(f"large-{face}", create=raftckpt.Attributes(retention=0.0))
            )
            await told(checkpoint.put("b", b"start"))
            leader = cluster.leader()
            before = cluster.status(leader)["applied"]

            def kill() -> None:
                """In the middle: each stage is an entry of its own."""
                until(lambda: cluster.status(leader)["applied"] > before + 20, "stages")
                cluster.kill(leader)

            killer = threading.Thread(target=kill)
            killer.start()
            async with entered(await told(checkpoint.track(image=False))) as tracker:
                async with entered(checkpoint.transaction()) as transaction:
                    transaction.put("a", half)
                    transaction.append("b", half[1:])
                    transaction.create("c", b"x")
                    with pytest.raises(raftckpt.NoResources):
                        transaction.put("d", b"xy")
                killer.join(60)
                assert transaction.results == [None, 5, None]
                change = await told(tracker.next(30))
                assert (change.kind, change.revision) == ("transaction", transaction.revision)
                kinds = [(part.kind, part.section, part.offset) for part in change.parts]
                assert kinds == [("created", b"a", 0), ("written", b"b", 5), ("created", b"c", 0)]
                copy = {b"b": b"start"}
                change.apply_to(copy)
                assert copy == {b"a": half, b"b": b"start" + half[1:], b"c": b"x"}
                assert copy == await told(checkpoint.read_all())

    asyncio.run(work())
    cluster.start()
    cluster.wait_ready()
    assert_equal_replicas(cluster, 60)


# --- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("face", "update"),
    [("blocking", "weak"), pytest.param("asyncio", "active", marks=pytest.mark.long)],
)
def test_they_stand_behind_writes_accepted_before(cluster, face, update) -> None:
    """Writes are accepted and not waited for; a tracker sees what was asked, in that order."""
    asked: list[tuple[str, bytes, bytes]] = []
    answered: dict[bytes, int] = {}
    name = f"order-{update}-{face}"

    async def work() -> None:
        async with entered(FACES[face](cluster.endpoints, timeout=30)) as service:
            attributes = raftckpt.Attributes(update=update)
            checkpoint = await told(service.open(name, create=attributes))
            await told(checkpoint.create("k"))
            seen = None
            async with entered(await told(checkpoint.track(image=False))) as tracker:
                for number in range(600):
                    data = b"%d;" % number
                    match number % 20:
                        case 5:
                            found = await told(checkpoint.append("log", data))
                            asked.append(("log", b"append", data))
                            answered[data] = seen = found.revision
                            assert await told(checkpoint.read("log", found.offset)) == data
                        case 6:
                            made = await told(checkpoint.put("log", data, if_revision=seen))
                            asked.append(("log", b"put", data))
                            answered[data] = made
                        case 13:
                            async with entered(checkpoint.transaction()) as transaction:
                                transaction.append("k", data)
                                transaction.append("k", data)
                            asked.append(("k", b"transaction", data))
                            # what was accepted before is what it found
                            assert transaction.results == [len(data), 2 * len(data)], transaction
                            answered[data] = transaction.revision
                        case _:
                            assert await told(checkpoint.put("k", data)) is None
                            asked.append(("k", b"put", data))
                    if number in (205, 413):  # unanswered writes behind it or before it
                        leader = cluster.leader()
                        cluster.kill(leader)
                        await asyncio.to_thread(cluster.restart, leader, wait=False)
                await told(checkpoint.synchronize())
                await told(tracker.sync(timeout=30))
                changes = await told(tracker.drain())
        assert [each.parts[-1].data for each in changes] == [data for _, _, data in asked]
        for change, (section, what, data) in zip(changes, asked, strict=True):
            assert change.parts[-1].section == section.encode()
            assert (change.kind == "transaction") == (what == b"transaction")
            assert answered.get(data, change.revision) == change.revision

    asyncio.run(work())


@faces
def test_deposed_writer_is_refused_whatever_it_asks(cluster, face) -> None:
    async def work() -> None:
        async with (
            entered(FACES[face](cluster.endpoints, timeout=20)) as first,
            entered(FACES[face](cluster.endpoints, timeout=20)) as second,
        ):
            old = await told(first.open(f"fence-{face}", create=raftckpt.Attributes()))
            await told(old.active_replica_set(exclusive=True))
            assert await told(old.append("k", b"old")) == (0, await seen_by(old))
            seen = await seen_by(old)
            new = await told(second.open(old.name))
            await told(new.active_replica_set(exclusive=True))
            leader = cluster.leader()
            cluster.kill(leader)

            transaction = old.transaction()
            transaction.append("k", b"deposed")
            transaction.create("deposed")
            for ask in (
                lambda: old.append("k", b"deposed"),
                lambda: old.put("k", b"deposed", if_revision=seen),
                lambda: old.put("k", b"deposed", if_revision=seen + 1),  # the fence comes first
                lambda: old.delete("k", if_revision=seen),
                lambda: committed(transaction),
            ):
                with pytest.raises(raftckpt.Fenced) as refused:
                    await told(ask())
                assert refused.value.definite
            assert await told(old.read_versioned("k")) == (b"old", seen)
            assert (await told(new.append("k", b"new"))).offset == 3
            await asyncio.to_thread(cluster.restart, leader)
            assert await told(old.read_all()) == {b"k": b"oldnew"}

    async def seen_by(checkpoint: Any) -> int:
        revision: int = (await told(checkpoint.read_versioned("k")))[1]
        return revision

    asyncio.run(work())


# --- answers that are lost -----------------------------------------------------------------------


@pytest.fixture
def one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients know no other way than the one they were given."""
    monkeypatch.setattr(ClientCore, "learn", lambda self, members: None)
    monkeypatch.setattr(Router, "learn", lambda self, endpoints: None)


def repeat_everything(cluster: LocalCluster, face: str) -> None:
    """Lose the answers: the client asks again, and is to be told what came of the first time."""
    with (
        raftckpt.connect(cluster.endpoints) as other,
        other.open(f"repeats-{face}", create=raftckpt.Attributes()) as watched,
        closing(Link(cluster, cluster.leader())) as link,
    ):
        lost = 0

        def lose(before: int) -> None:
            nonlocal lost
            try:
                until(lambda: watched.status().revision > before, "it was applied")
                lost += 1
            finally:
                link.lose_answers()

        async def twice(ask: Callable[[], Any]) -> Any:
            link.hold_answers()
            losing = threading.Thread(target=lose, args=(watched.status().revision,))
            losing.start()
            found = await told(ask())
            losing.join(30)
            return found

        async def work() -> None:
            async with entered(FACES[face](link.endpoint, timeout=30)) as service:
                checkpoint = await told(service.open(watched.name))
                first = await twice(lambda: checkpoint.append("log", b"<1>"))
                assert first.offset == 0
                second = await twice(
                    lambda: checkpoint.append("log", b"<2>", if_revision=first.revision)
                )
                assert second == (3, first.revision + 1)
                made = await twice(lambda: checkpoint.put("k", b"1", if_revision=0))
                transaction = checkpoint.transaction()
                transaction.append("log", b"<3>")
                transaction.put("k", b"2", if_revision=made)
                await twice(lambda: committed(transaction))
                assert transaction.results == [6, None]
                assert transaction.revision == made + 1 == watched.status().revision
                assert await told(checkpoint.read_all()) == {b"log": b"<1><2><3>", b"k": b"2"}

        asyncio.run(work())
        assert lost == 4


@faces
def test_what_is_asked_again_is_told_what_came_of_it(cluster, one_way, face) -> None:
    repeat_everything(cluster, face)


@pytest.fixture
def sabotaged(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """Replicas that execute what is asked again once more."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # replicas run in directories of their own
    monkeypatch.setenv(VARIABLE, "repeats are executed")
    with LocalCluster(3, module="tests.chaos.saboteur") as cluster:
        yield cluster


def test_repeats_that_are_executed_are_caught(sabotaged, one_way) -> None:
    with pytest.raises(AssertionError, match=r"Appended\(offset=3"):
        repeat_everything(sabotaged, "blocking")
    with (
        raftckpt.connect(sabotaged.endpoints) as service,
        service.open("caught", create=raftckpt.Attributes()) as watched,
        closing(Link(sabotaged, sabotaged.leader())) as link,
    ):
        appends = Appends(sabotaged, "caught", endpoints=link.endpoint)
        with appends.clients as clients:
            clients.reach(20)
            link.hold_answers()
            revision = watched.status().revision
            until(lambda: watched.status().revision > revision, "one is applied")
            link.lose_answers()
            clients.reach(20)
    with pytest.raises(AssertionError, match="twice"):
        appends.verify()

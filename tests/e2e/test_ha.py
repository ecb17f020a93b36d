"""Service groups on real replicas: who takes over, when, and what a deposed one can still do."""

from __future__ import annotations

import asyncio
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import raftckpt
from raftckpt import Fenced, SessionLost, ha
from raftckpt.ha import AdminState, HaState
from tests.programs import Program
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).parents[2]


class ThreadComponent:
    """A component in a thread; its assignments arrive in a queue."""

    def __init__(self, cluster: Any, group: str, name: str, **options: Any) -> None:
        self.told: queue.Queue[ha.Assignment] = queue.Queue()
        self.error: BaseException | None = None
        self.service = ha.connect(cluster.endpoints, timeout=PATIENCE, session_timeout=60.0)
        note = self.told.put
        callbacks = {f"on_{word}": note for word in ("active", "standby", "quiesced", "unassigned")}
        self.component = ha.Component(
            self.service, group, name, **{**callbacks, "on_removed": note, **options}
        )
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.component.run()
        except BaseException as error:
            self.error = error

    def expect(self, state: HaState, reason: str) -> ha.Assignment:
        found = self.told.get(timeout=PATIENCE)
        assert (found.state, found.reason) == (state, reason), found
        return found

    def end(self) -> None:
        self.component.stop()
        self.thread.join(PATIENCE)
        self.component.close()
        self.service.close()


@pytest.fixture
def group(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def parts(cluster, group):
    made: list[Any] = []

    def make(name: str, **options: Any) -> ThreadComponent:
        part = ThreadComponent(cluster, group, name, **options)
        made.append(part)
        return part

    yield make
    for part in made:
        part.end()


@pytest.fixture
def processes(cluster, group):
    made: list[Program] = []

    def make(name: str, *rest: str) -> Program:
        """A component in a process; it tells what it is told."""
        command = [sys.executable, "-m", "tests.e2e.ha_component", cluster.endpoints, group, name]
        made.append(Program(*command, *rest, cwd=ROOT))
        return made[-1]

    yield make
    for process in made:
        process.end()


def ready(service: raftckpt.Service, group: str, standbys: int) -> None:
    until(
        lambda: (
            (status := ha.Group(service, group).status()).ready == standbys
            and all(member.answered for member in status.members)
        ),
        f"{standbys} standbys",
    )


def test_the_standby_is_active_when_the_active_is_killed(processes, group, cluster) -> None:
    a = processes("a")
    a.expect("told ACTIVE first -")
    b = processes("b")
    b.expect("told STANDBY join")
    a.process.kill()
    b.expect("told ACTIVE session_ended a")
    again = processes("a2")
    again.expect("told STANDBY join")


def test_active_and_leader_killed_together(processes, group, cluster) -> None:
    a = processes("a")
    a.expect("told ACTIVE")
    b = processes("b")
    b.expect("told STANDBY")
    with raftckpt.connect(cluster.endpoints) as service:
        ready(service, group, 1)
    leader = cluster.leader()
    a.signal(signal.SIGSTOP)  # so that the leader is gone before it can see the process die
    cluster.kill(leader)
    a.process.kill()
    b.expect("told ACTIVE session_ended a")  # the sessions' timeout is 60 s
    cluster.restart(leader)


def test_a_paused_active_is_replaced_and_its_writes_are_refused(processes, group) -> None:
    a = processes("a", "1.0")
    a.expect("told ACTIVE")
    b = processes("b", "1.0")
    b.expect("told STANDBY")
    a.signal(signal.SIGSTOP)
    b.expect("told ACTIVE health a")
    a.signal(signal.SIGCONT)
    assert a.expect("refused") == "refused Fenced deposed True"
    a.expect("told REMOVED health")
    a.expect("told STANDBY join")


def test_a_hot_standby_knows_every_committed_change_when_it_is_told(
    processes, parts, cluster, group
) -> None:
    """It tracks; in its callback nothing may be missing of what a read then finds."""
    a = processes("a")
    a.expect("told ACTIVE")
    known: dict[bytes, bytes] = {}
    found: list[tuple[dict[bytes, bytes], dict[bytes, bytes]]] = []

    def active(assignment: ha.Assignment) -> None:
        found.append((dict(known), dict(ckpt.read_all())))

    b = parts("b", on_active=active)
    ckpt = b.service.open("counter")
    b.component.track(ckpt, lambda change: change.apply_to(known))
    b.component._alarm.ring()
    b.expect(HaState.STANDBY, "join")
    ready(b.service, group, 1)
    for turn in range(3):
        written = until(lambda: known.get(b"a"), "the first number")
        until(lambda w=written: known.get(b"a") != w, "progress")
        a.process.kill()
        until(lambda t=turn: len(found) > t, "b is active")
        tracked, read = found[-1]
        assert tracked == read
        if turn < 2:
            known.pop(b"a")
            a = processes("a")
            a.expect("told STANDBY")
            ready(b.service, group, 1)
            ha.Group(b.service, group).swap()
            a.expect("told ACTIVE swap b")


def test_a_change_of_leader_changes_no_role(parts, cluster) -> None:
    a, b = parts("a", health_check=5.0), parts("b", health_check=5.0)
    a.expect(HaState.ACTIVE, "first")
    b.expect(HaState.STANDBY, "join")
    for _ in range(2):
        leader = cluster.leader()
        cluster.kill(leader)
        cluster.restart(leader)
        cluster.wait_ready()
    a.component.close()
    b.expect(HaState.ACTIVE, "left")
    assert a.told.empty()


def test_swap_lock_and_unlock(parts, group, cluster) -> None:
    a, b = parts("a"), parts("b")
    a.expect(HaState.ACTIVE, "first")
    b.expect(HaState.STANDBY, "join")
    with raftckpt.connect(cluster.endpoints) as service:
        operator = ha.Group(service, group)
        ready(service, group, 1)
        operator.swap()
        a.expect(HaState.QUIESCED, "swap")
        new = b.expect(HaState.ACTIVE, "swap")
        assert new.previous_active == "a"
        assert new.transition is ha.Transition.QUIESCED
        a.expect(HaState.STANDBY, "swap")
        assert operator.lock() is AdminState.LOCKED
        b.expect(HaState.QUIESCED, "lock")
        for part in (a, b):
            part.expect(HaState.UNASSIGNED, "lock")
        assert operator.unlock() is AdminState.UNLOCKED
        a.expect(HaState.ACTIVE, "unlock")
        b.expect(HaState.STANDBY, "unlock")
        assert operator.shutdown() is AdminState.SHUTTING_DOWN
        a.expect(HaState.QUIESCING, "shutdown")
        a.expect(HaState.UNASSIGNED, "lock")
        found = next(row for row in ha.groups(service) if row.group == group)
        assert found.admin is AdminState.LOCKED
        assert found.components == 2


def test_a_callback_that_raises_fails_the_component_only(parts, group, cluster) -> None:
    def broken(assignment: ha.Assignment) -> None:
        raise ZeroDivisionError("no such luck")

    a = parts("a", on_active=broken)
    b = parts("b")
    a.thread.join(PATIENCE)
    assert isinstance(a.error, ZeroDivisionError)
    found = b.told.get(timeout=PATIENCE)
    if found.state is HaState.STANDBY:
        found = b.told.get(timeout=PATIENCE)
    assert (found.state, found.reason, found.previous_active) == (
        HaState.ACTIVE,
        "component_failed",
        "a",
    )
    # it goes on only if the program does
    until(lambda: a.component.dispatch(0.1) or a.told.qsize() == 2, "a joins again")
    until(lambda: a.component.dispatch(0.1) or a.told.qsize() == 2, "a joins again")
    a.expect(HaState.REMOVED, "component_failed")
    a.expect(HaState.STANDBY, "join")


def test_one_that_never_answers_is_replaced_and_fenced(parts, group, cluster) -> None:
    a = parts(
        "a",
        on_active=lambda assignment: ha.LATER,
        on_removed=lambda assignment: ha.LATER,
        response_timeout=0.5,
    )
    b = parts("b")
    b.expect(HaState.STANDBY, "join")
    b.expect(HaState.ACTIVE, "no_answer")
    with pytest.raises(Fenced) as caught:
        a.service.open("of a", create=raftckpt.Attributes())
    assert caught.value.definite
    until(lambda: a.component.state is HaState.REMOVED, "a knows")
    a.component.respond(a.component.assignment)
    a.service.open("of a", create=raftckpt.Attributes()).close()


def test_answers_given_later_and_twice(parts, group, cluster) -> None:
    a = parts("a", on_active=lambda assignment: ha.LATER)
    until(lambda: a.component.state is HaState.ACTIVE, "a is told")
    assignment = a.component.assignment
    with raftckpt.connect(cluster.endpoints) as service:
        assert not ha.Group(service, group).status().members[0].answered
        a.component.respond(assignment)
        assert ha.Group(service, group).status().members[0].answered
    with pytest.raises(raftckpt.BadOperation):
        a.component.respond(assignment)


def test_joining_twice_is_refused_and_names_are_free_again(parts, group, cluster) -> None:
    a = parts("a")
    a.expect(HaState.ACTIVE, "first")
    nothing = {"on_active": print, "on_standby": print}
    with pytest.raises(raftckpt.Exist), raftckpt.connect(cluster.endpoints) as service:
        ha.Component(service, group, "a", timeout=0.2, **nothing)
    with pytest.raises(raftckpt.InvalidParam):
        ha.Component(a.service, group, "", **nothing)
    a.component.close()
    parts("a").expect(HaState.ACTIVE, "left")


def test_a_lost_session_is_told_and_raised(parts, group, cluster) -> None:
    a = parts("a")
    a.expect(HaState.ACTIVE, "first")
    a.service.close()
    removed = a.told.get(timeout=PATIENCE)
    assert (removed.state, removed.reason) == (HaState.REMOVED, "session_lost")
    a.thread.join(PATIENCE)
    assert isinstance(a.error, SessionLost)


def test_the_loop_of_somebody_else(cluster, group) -> None:
    told: list[HaState] = []

    def note(assignment: ha.Assignment) -> None:
        told.append(assignment.state)

    with ha.connect(cluster.endpoints) as service:
        made = {"on_active": note, "on_standby": note, "on_quiesced": note, "health_check": 2.0}
        a, b = (ha.Component(service, group, name, **made) for name in "ab")
        poller = select.poll()
        for component in (a, b):
            poller.register(component, select.POLLIN)
        by_number = {component.fileno(): component for component in (a, b)}

        def turn(most: int) -> bool:
            for descriptor, _ in poller.poll(1000):
                by_number[descriptor].dispatch()
            return len(told) >= most

        until(lambda: turn(2), "both roles")
        assert told == [HaState.ACTIVE, HaState.STANDBY]
        ready(service, group, 1)
        ha.Group(service, group).swap()
        until(lambda: turn(5), "a swap")
        assert sorted(told[2:]) == [HaState.ACTIVE, HaState.STANDBY, HaState.QUIESCED]
        a.close()
        b.close()


def test_asyncio_components(cluster, group) -> None:
    async def scenario() -> list[tuple[str, HaState, str]]:
        told: asyncio.Queue[tuple[str, HaState, str]] = asyncio.Queue()

        async def note(assignment: ha.Assignment) -> None:
            await told.put((assignment.component, assignment.state, assignment.reason))

        async with raftckpt.aio.connect(cluster.endpoints, disconnect_grace=0) as service:
            callbacks = {"on_active": note, "on_standby": note, "on_quiesced": note}
            found = []
            async with (
                ha.aio.Component(service, group, "a", **callbacks) as a,
                ha.aio.Component(service, group, "b", **callbacks, health_check=5.0) as b,
                asyncio.TaskGroup() as tasks,
                asyncio.timeout(PATIENCE),
            ):
                tasks.create_task(a.run())
                tasks.create_task(b.run())
                for _ in range(2):
                    found.append(await told.get())
                operator = ha.aio.Group(service, group)
                while (await operator.status()).ready < 1:
                    await asyncio.sleep(0.01)
                await operator.swap(to="b")
                for _ in range(3):
                    found.append(await told.get())
                await b.close()
                found.append(await told.get())
                a.stop()
                assert [row.group for row in await ha.aio.groups(service)].count(group) == 1
        return found

    found = asyncio.run(scenario())
    assert found[:3] == [
        ("a", HaState.ACTIVE, "first"),
        ("b", HaState.STANDBY, "join"),
        ("a", HaState.QUIESCED, "swap"),
    ]
    assert set(found[3:5]) == {
        ("b", HaState.ACTIVE, "swap"),
        ("a", HaState.STANDBY, "swap"),
    }
    assert found[5] == ("a", HaState.ACTIVE, "left")


def test_a_hundred_groups_of_five(cluster) -> None:
    """Twenty components per session; a session with the actives of twenty groups ends."""

    async def scenario() -> None:
        told: list[ha.Assignment] = []
        tasks: dict[int, list[asyncio.Task[None]]] = {}

        async def start(services: list[raftckpt.aio.Service], group: int, place: int) -> None:
            number = group % 5 * 5 + place
            component = ha.aio.Component(
                services[number],
                f"many {group:02}",
                f"c{place}",
                rank=place,
                on_active=told.append,
                on_standby=told.append,
                response_timeout=600.0,
            )
            await component.join()
            tasks.setdefault(number, []).append(asyncio.create_task(component.run()))

        async def groups() -> list[ha.GroupSummary]:
            rows = await ha.aio.groups(services[1])
            many = [row for row in rows if row.group.startswith("many")]
            return sorted(many, key=lambda row: row.group)

        async def settled(ready: int) -> list[ha.GroupSummary]:
            while True:
                rows = await groups()
                active = all(row.active_state is HaState.ACTIVE for row in rows)
                if active and sum(row.ready for row in rows) == ready:
                    return rows
                await asyncio.sleep(0.1)

        services = [
            await raftckpt.aio.connect(cluster.endpoints, timeout=90, session_timeout=60)
            for _ in range(25)
        ]
        async with asyncio.timeout(100):
            for place in range(5):
                await asyncio.gather(*(start(services, group, place) for group in range(100)))
            rows = await settled(400)
            assert len(rows) == 100
            assert {row.active for row in rows} == {"c0"}
            assert len(told) == 500
            for task in tasks.pop(0):
                task.cancel()
            await services[0].close()
            rows = await settled(380)
            assert [row.active for row in rows] == [
                "c1" if k % 5 == 0 else "c0" for k in range(100)
            ]
            assert len(told) == 520
            assert {item.previous_active for item in told[500:]} == {"c0"}
        for running in tasks.values():
            for task in running:
                task.cancel()
        for service in services:
            await service.close()

    asyncio.run(scenario())


def test_a_session_outlives_its_components_and_a_change_of_leader(cluster, group) -> None:
    """The second connections stay: closing them would say that the process is dead."""
    nothing: dict[str, Any] = {"on_active": print, "on_standby": print}
    with ha.connect(cluster.endpoints, timeout=PATIENCE) as service:
        component = ha.Component(service, group, "a", **nothing)
        until(lambda: component._witness.bound == 3, "three second connections")
        component.close()
        leader = cluster.leader()
        cluster.kill(leader)
        cluster.restart(leader)
        cluster.wait_ready()
        service.open("still here", create=raftckpt.Attributes()).close()
        ha.Component(service, group, "a", **nothing).close()
        witness = component._witness
    until(lambda: not witness.bound, "they end with the session")


@pytest.mark.slow
def test_a_standstill_of_all_replicas_ends_no_session(cluster, group) -> None:
    """Longer than the session's time-out: nobody loses a role, nobody gets one."""
    told: list[tuple[str, int, int]] = []

    def note(assignment: ha.Assignment) -> None:
        if assignment.number:  # what the cluster said
            told.append((assignment.component, int(assignment.state), assignment.epoch))

    options: dict[str, Any] = {"on_active": note, "on_standby": note, "on_removed": note}
    with (
        ha.connect(cluster.endpoints, timeout=60, session_timeout=2.0) as one,
        ha.connect(cluster.endpoints, timeout=60, session_timeout=2.0) as two,
    ):
        components = [
            ha.Component(one, group, "a", **options),
            ha.Component(two, group, "b", **options),
        ]
        runners = [threading.Thread(target=each.run) for each in components]
        for runner in runners:
            runner.start()
        until(lambda: len(told) == 2, "both have their roles")
        before = list(told)
        sessions = [service._driver.core.session for service in (one, two)]
        for node in cluster.nodes:
            cluster.pause(node)
        time.sleep(4.0)
        for node in cluster.nodes:
            cluster.resume(node)
        one.open(group, create=raftckpt.Attributes()).close()
        two.open(group).close()
        status = ha.Group(one, group).status()
        assert [service._driver.core.session for service in (one, two)] == sessions
        assert (status.active, status.epoch) == ("a", before[0][2])
        assert [member.state.name for member in status.members] == ["ACTIVE", "STANDBY"]
        for component in components:
            component.stop()
        for runner in runners:
            runner.join()
        assert {item[2] for item in told if item[1] == int(ha.HaState.ACTIVE)} == {before[0][2]}


def test_an_asyncio_hot_standby(cluster, group) -> None:
    async def scenario() -> None:
        known: dict[bytes, bytes] = {}
        found: asyncio.Queue[dict[bytes, bytes]] = asyncio.Queue()

        async def active(assignment: ha.Assignment) -> None:
            await found.put(dict(known))

        def nothing(assignment: ha.Assignment) -> None:
            pass

        async with (
            raftckpt.aio.connect(cluster.endpoints, timeout=PATIENCE) as service,
            ha.aio.Component(service, group, "a", on_active=nothing, on_standby=nothing) as a,
            ha.aio.Component(service, group, "b", on_active=active, on_standby=nothing) as b,
            asyncio.TaskGroup() as tasks,
        ):
            ckpt = await service.open(group, create=raftckpt.Attributes())
            await b.track(group, lambda change: change.apply_to(known))
            tasks.create_task(a.run())
            tasks.create_task(b.run())
            operator = ha.aio.Group(service, group)
            for turn in range(3):
                for number in range(300):  # more than is taken ahead
                    await ckpt.put(str(number % 7), f"{turn} {number}".encode())
                await asyncio.gather(*(ckpt.put("last", b"%d" % k) for k in range(200)))
                while not all(member.answered for member in (await operator.status()).members):
                    await asyncio.sleep(0.01)
                await operator.swap(to="b")
                assert await asyncio.wait_for(found.get(), PATIENCE) == await ckpt.read_all()
                while (await operator.status()).ready < 1:
                    await asyncio.sleep(0.01)
                while not all(member.answered for member in (await operator.status()).members):
                    await asyncio.sleep(0.01)
                await operator.swap(to="a")
            a.stop()
            b.stop()

    asyncio.run(scenario())


def test_the_example_of_the_outer_loop(cluster) -> None:
    """Its session is lost while it is stopped; it connects again and goes on counting."""
    program = Path(__file__).parents[2] / "examples" / "outer_loop.py"
    with subprocess.Popen(
        [sys.executable, str(program), cluster.endpoints, "a", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "active 0\n"
        with raftckpt.connect(cluster.endpoints, timeout=PATIENCE) as service:
            ckpt = service.open("counter")
            until(lambda: int(ckpt.get("n", b"0")) > 3, "it counts")
            process.send_signal(signal.SIGSTOP)
            group = ha.Group(service, "counters")
            until(lambda: not group.status().active, "its session is over")
            stopped_at = int(ckpt.read("n"))
            process.send_signal(signal.SIGCONT)
            told = [process.stdout.readline()]
            while not told[-1].startswith("active"):
                told.append(process.stdout.readline())
            assert told[-1] == f"active {stopped_at}\n"
            until(lambda: int(ckpt.read("n")) > stopped_at, "it goes on")
        process.kill()

"""Liveness at scale, stamps, digests, logs, driver."""

from __future__ import annotations

import asyncio
import hashlib
import resource
from types import SimpleNamespace

import pytest

from raftckpt.errors import InvariantViolation
from raftckpt.node.descriptors import raise_descriptors
from raftckpt.node.digests import DigestJobs
from raftckpt.node.driver import Driver, Longest
from raftckpt.node.liveness import Liveness
from raftckpt.node.stamps import ClusterTime, trusted_clock
from tests.unit.node.fakes import LoneReplica, ManualClock


def machine_sessions(count: int, timeout_s: float = 10.0) -> dict[int, SimpleNamespace]:
    record = SimpleNamespace(last_sequence=0, timeout_ns=int(timeout_s * 1e9), grace_ns=0)
    return dict.fromkeys(range(1, count + 1), record)


def test_many_sessions_are_adopted_in_slices_and_all_die():
    liveness = Liveness(0.0, machine_sessions(5000))
    calls = 0
    while liveness.deadline() == 0.0:
        assert liveness.dead(0.0, 1000) == []
        calls += 1
    assert calls > 1
    dead = set()
    while liveness.deadline() <= 10.0:
        found = liveness.dead(10.0, 1000)
        assert len(found) <= 1000
        dead |= set(found)
    assert dead == set(range(1, 5001))


def test_heap_does_not_grow_with_signs_of_life_or_reconnects():
    liveness = Liveness(0.0, machine_sessions(1))
    liveness.dead(0.0, 10)
    state = liveness.state(1)
    now = 0.0
    for _ in range(1000):
        now += 1.0
        liveness.closed_by_client(state, now)
        liveness.resumed(state, now, "")
        assert liveness.dead(now, 10) == []
    assert len(liveness._heap) <= 12


@pytest.mark.parametrize(
    ("voters", "clocks", "trusted"),
    [
        (1, [5], 5),
        (3, [9, 1, 5], 5),
        (3, [9, 1], 1),
        (3, [9], None),
        (5, [9, 8, 1], 1),
        (5, [9, 8, 1, 2], 2),
        (5, [9, 8, 1, 2, 3], 3),
        (5, [1, 2], None),
        (2, [9, 1], 1),
        (4, [9, 1, 8, 2], 2),
        (1, [], None),
    ],
)
def test_the_trusted_clock_is_never_later_than_a_right_one(voters, clocks, trusted):
    assert trusted_clock(clocks, voters) == trusted


def test_two_clocks_of_five_move_nothing_however_few_are_heard():
    right, year = 10**18, 365 * 86_400 * 10**9
    clocks = [right + year, right, right + year]
    time = ClusterTime(right, 5.0, lambda: 5, lambda: clocks)
    assert time.stamp(5.0) == right
    assert time.stamp(6.0) == right + 10**9
    clocks.remove(right)
    assert time.stamp(7.0) == right + 2 * 10**9


def test_cluster_time_of_three_is_the_median_of_one_the_clock():
    assert ClusterTime(0, 5.0, lambda: 3, lambda: [900, 500, 700]).stamp(5.0) == 700
    assert ClusterTime(0, 5.0, lambda: 1, lambda: [900]).stamp(5.0) == 900


def test_cluster_time_without_clocks_follows_monotonic_time():
    time = ClusterTime(1000, 5.0, lambda: 1, list)
    assert time.stamp(5.0) == 1000
    assert time.stamp(6.0) == 1_000_001_000
    assert time.stamp(5.5) == 1_000_001_000


def test_digest_in_slices_keeps_the_last_few():
    clock = ManualClock()

    def pieces():
        for part in (b"ab", b"cd", b"ef"):
            clock.now += 1.0
            yield part

    jobs = DigestJobs(clock.monotonic)
    jobs.start(b"1", 7, pieces())
    jobs.work(0.5)
    assert jobs.get(b"1") is None
    assert jobs.busy
    while jobs.busy:
        jobs.work(0.5)
    assert jobs.get(b"1") == (7, hashlib.sha256(b"abcdef").hexdigest())
    for number in range(4):
        jobs.start(b"n%d" % number, 8, iter([b""]))
    jobs.work(100)
    assert jobs.get(b"1") is None
    assert jobs.last_index == 8


def test_driver_steps_on_wake_and_timer_and_stops_on_failure():
    async def scenario():
        loop = asyncio.get_running_loop()
        world = LoneReplica()
        failures = []
        driver = Driver(loop, world.clock, failures.append)
        world.woken = driver.wake
        driver.start(world.replica, lambda: None)
        client = world.open_session()
        handle = world.open_checkpoint(client)
        number = world.put(client, handle, 2)
        async with asyncio.timeout(5):
            while number not in [reply[0] for reply in client.replies]:
                await asyncio.sleep(0)
        steps = driver.steps
        async with asyncio.timeout(5):
            while driver.steps == steps:  # the timer alone
                world.clock.pass_by(1.0)
                await asyncio.sleep(0.01)

        def broken():
            raise InvariantViolation("planted")

        world.log.begin = broken
        driver.wake()
        async with asyncio.timeout(5):
            while not failures:
                await asyncio.sleep(0)
        steps = driver.steps
        driver.wake()
        await asyncio.sleep(0.01)
        assert driver.steps == steps
        assert len(failures) == 1
        assert isinstance(failures[0], InvariantViolation)

    asyncio.run(scenario())


def test_a_step_that_leaves_nothing_to_do_ends_with_its_replies_and_what_is_due_comes_soon():
    async def scenario():
        world = LoneReplica()
        driver = Driver(asyncio.get_running_loop(), world.clock, lambda error: None)
        begun = []
        world.log.begin = lambda: begun.append(driver.steps)
        world.log.finish = lambda: None
        world.log.take = lambda: None
        driver.start(world.replica, lambda: None)
        async with asyncio.timeout(5):
            while not begun:
                await asyncio.sleep(0)
            world.log.at_rest = True
            steps, whole = driver.steps, len(begun)
            driver.wake()
            while driver.steps == steps:
                await asyncio.sleep(0)
            assert len(begun) == whole
            while len(begun) == whole:  # nothing wakes it but the timer, and all is at rest
                world.clock.pass_by(0.001)
                await asyncio.sleep(0.001)
            world.replica._reads.waiting.append(None)  # a read waits for a round
            whole = len(begun)
            world.replica.flush = lambda: None
            driver.wake()
            while len(begun) == whole:
                await asyncio.sleep(0)
        driver.stop()

    asyncio.run(scenario())


def test_it_passes_on_what_files_and_the_replica_tell_it_once_it_drives():
    """They are made before, and what it drives is made of them."""

    async def scenario():
        world = LoneReplica()
        driver = Driver(asyncio.get_running_loop(), world.clock, lambda error: None)
        waits, flushes = [], []
        world.log.wait_for_disk = waits.append
        world.answered = driver.answered
        driver.disk_waits(0.1)
        driver.answered()
        assert waits == []
        driver.start(world.replica, lambda: flushes.append(applying[-1:]))
        driver.disk_waits(0.2)
        assert waits == [0.2]
        apply, applying = world.replica.apply, []

        def noted(*entry):
            applying.append("applies")
            apply(*entry)
            applying.pop()

        world.replica.apply = noted
        world.open_session()
        async with asyncio.timeout(5):
            while not flushes:
                await asyncio.sleep(0)
        assert ["applies"] in flushes, "replies leave as soon as all have theirs"
        driver.stop()

    asyncio.run(scenario())


def test_the_longest_step_does_not_count_its_syncs():
    async def scenario():
        world = LoneReplica()
        synced = [0.0]
        driver = Driver(
            asyncio.get_running_loop(), world.clock, lambda error: None, lambda: synced[0]
        )
        finish = world.log.finish

        def slow():
            finish()
            world.clock.pass_by(5.0)
            synced[0] += 3.0

        world.log.finish = slow
        driver.start(world.replica, lambda: None)
        async with asyncio.timeout(5):
            while not driver.steps:
                await asyncio.sleep(0)
        assert driver.longest.value == pytest.approx(2.0)

    asyncio.run(scenario())


def test_the_longest_is_forgotten_after_two_minutes():
    longest = Longest()
    longest.note(1000.0, 7.0)
    longest.note(1050.0, 3.0)
    assert longest.value == 7.0
    longest.note(1070.0, 2.0)
    assert longest.value == 7.0, "of the last minute or two"
    longest.note(1131.0, 1.0)
    assert longest.value == 2.0


def test_what_a_request_raises_stops_the_driver(monkeypatch):
    from raftckpt.node.early import EarlyAcceptance

    async def scenario():
        world = LoneReplica()
        failures = []
        driver = Driver(asyncio.get_running_loop(), world.clock, failures.append)
        world.woken, world.failed = driver.wake, driver.fail
        client = world.open_session()
        handle = world.open_checkpoint(client, flags=2)
        driver.start(world.replica, lambda: None)

        def broken(*arguments):
            raise LookupError("planted")

        monkeypatch.setattr(EarlyAcceptance, "consider", broken)
        with pytest.raises(LookupError):
            world.put(client, handle, 2)
        assert [type(error) for error in failures] == [LookupError]
        driver.wake()
        await asyncio.sleep(0.01)
        assert driver.steps == 0

    asyncio.run(scenario())


def test_gardener_freezes_what_many_changes_left_behind(monkeypatch):
    """A collection that looked at all of it would hold the loop for a tenth of a second."""
    import gc

    from raftckpt.node import memory

    collected = []
    try:
        gardener = memory.Gardener()
        monkeypatch.setattr(memory, "_YOUNG_MAX", 1 << 40)
        monkeypatch.setattr(gc, "collect", lambda *generation: collected.append(generation))
        state = [[number] for number in range(1000)]
        gardener.tend(memory._YOUNG_CHANGES_MAX - 1)
        assert any(item is state[0] for item in gc.get_objects())
        gardener.tend(memory._YOUNG_CHANGES_MAX)
        assert not any(item is state[0] for item in gc.get_objects())
        assert not collected
    finally:
        gc.unfreeze()
        gc.enable()


def test_no_collection_is_made_where_nobody_waits_for_it_to_end(monkeypatch):
    """At the start peers are to be heard; later on a state of some size would take too long."""
    import gc

    from raftckpt.node import memory

    collected = []
    monkeypatch.setattr(gc, "collect", lambda *generation: collected.append(generation))
    try:
        gardener = memory.Gardener()
        state = [[number] for number in range(memory._FULL_OBJECTS_MAX)]
        gc.freeze()
        gardener.tend_idle()
        assert len(state) == memory._FULL_OBJECTS_MAX
        assert not collected
    finally:
        gc.unfreeze()
        gc.enable()


def test_gardener_freezes_what_survives_and_finds_cycles_when_idle(monkeypatch):
    import gc
    import weakref

    from raftckpt.node import memory

    class Knot:
        pass

    try:
        gardener = memory.Gardener()
        assert not gc.isenabled()
        knot = Knot()
        knot.self = knot
        seen = weakref.ref(knot)
        monkeypatch.setattr(memory, "_YOUNG_MAX", 0)
        gardener.tend(0)  # the knot is alive: frozen
        del knot
        gardener.tend(0)
        assert seen() is not None
        gardener.tend_idle()  # too little grew since the last time
        assert seen() is not None
        # frozen objects of the tests before may have gone meanwhile: "at once", whatever the count
        monkeypatch.setattr(memory, "_FULL_AFTER_OBJECTS", -(1 << 40))
        monkeypatch.setattr(memory, "_FULL_OBJECTS_MAX", 1 << 40)
        gardener.tend_idle()
        assert seen() is None
    finally:
        gc.unfreeze()
        gc.enable()


# --- descriptors ------------------------------------------------------------------------
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert raise_descriptors(300) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)
        assert raise_descriptors(200) == 300, "never less"
        if hard != resource.RLIM_INFINITY:
            assert raise_descriptors(hard + 1) == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

"""Every named crash point is hit, and nothing acknowledged is missing after the restart.

One sweep per world: for each point, some replica is armed to die exactly there, the load goes on
and is helped to pass the place, the dead come back, and everybody must catch up. The white-box
checks run all the time; the end compares what was acknowledged with what is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import raftckpt
from raftckpt.raft.port import RemoveMember, SetPin
from raftckpt.raft.sending import STALL_S
from tests.sim import crashpoints, nodes
from tests.sim.process import Process
from tests.sim.service import ServiceWorld
from tests.sim.world import World

AT_FIRST_START = ("directory.clear", *(n for n in crashpoints.STORAGE if n.startswith("identity")))
AT_FOUNDING = ("founding.offer", "founding.offered", "founding.complete", "founding.completed")
AT_REMOVAL = ("member.removed",)
TRIES = 12


class Sweep:
    """A calm world in which replicas die at ordered places."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.snapshot_entries, world.keep_entries = 100_000, 0
        world.segment_bytes = 16_384
        world.ballast = 6000
        world.tuning = nodes.Tuning(3, 4, 2048, 512)
        world.call_gap_s = 0.02  # type: ignore[attr-defined]

    @property
    def all(self) -> list[Process]:
        return list(self.world.processes.values())

    def until(self, condition: Callable[[], bool], within: float) -> bool:
        end = self.world.queue.now + within
        while not condition():
            if self.world.queue.now >= end:
                return False
            self.world.advance(0.02)
        return True

    def leader(self) -> Process | None:
        return next((p for p in self.all if p.up and p.leads and not p.paused), None)

    def settled(self) -> bool:
        if not all(p.up and not p.learns for p in self.all):
            return False
        leader = self.leader()
        return leader is not None and all(
            p.status().applied_index >= leader.status().applied_index - 20 for p in self.all
        )

    def crash_at(self, name: str) -> bool:
        """Let somebody die at ``name`` and everybody recover; whether it happened."""
        for attempt in range(TRIES):
            assert self.until(self.settled, 15.0), f"before {name}: {list(self.world.trace.tail)}"
            before = self.crashes(name)
            for process in self.all:
                process.disk.crash_at(label=name)
            self._provoke(name, attempt)
            self.until(partial(self._crashed_since, name, before), 2.0)
            for process in self.all:
                nodes.calm_disk(process.disk)
            self.world.network.heal()
            if self.crashes(name) > before:
                return True
        return False

    def _crashed_since(self, name: str, before: int) -> bool:
        return self.crashes(name) > before

    def crashes(self, name: str) -> int:
        return self.world._crashed().get(name, 0)

    def _provoke(self, name: str, attempt: int) -> None:
        """Bring about what leads through the place."""
        if name == "snapshot.tidy":
            self._leave_half_a_snapshot(name)
        elif name.startswith(
            ("compact", "snapshot", "journal.segment.continued", "journal.delete")
        ):
            self._compact()
        elif name.startswith(("install", "journal.reset")):
            self._let_one_fall_behind()
        elif name.startswith(("identity", "directory")):
            self._replace_disk(name)
        elif name.startswith(("configuration", "member")) and (leader := self.leader()):
            leader.change(SetPin(attempt % 2 == 0))
        elif name.startswith("transfer") and (leader := self.leader()):
            leader.transfer(None)
        elif (
            name.startswith(("vote", "election", "role", "replica", "session", "link"))
            or name == "journal.hard_state"
        ):
            self._depose(attempt)
        elif name.startswith("applied.session") and isinstance(self.world, ServiceWorld):
            self.world.clients[attempt % len(self.world.clients)].die()
        elif name.startswith("journal.truncated"):
            self._depose(2)
        elif name.startswith(("start", "peer")) or name == "journal.segment.cut":
            self._restart(name)
        elif name == "journal.confirmed":
            self._be_idle(name)

    def _compact(self) -> None:
        for process in self.all:
            if process.up:
                process.compact()

    def _leave_half_a_snapshot(self, name: str) -> None:
        victim = next(p for p in self.all if p.up)
        victim.disk.crash_at(label="snapshot.sync.before")
        victim.compact()
        if not self.until(lambda: not victim.up, 1.0):
            return  # it had nothing to write: once more
        victim.disk.crash_at(label=name)
        victim.start()

    def _let_one_fall_behind(self) -> None:
        leader = self.leader()
        assert leader is not None
        behind = next(p for p in self.all if p is not leader)
        self.world.network.partition({behind.name}, both_ways=True)
        self.world.advance(STALL_S + 0.5)  # until then the log is kept for it
        if leader.up:
            leader.compact()
        self.world.advance(0.3)
        self.world.network.heal()

    def _depose(self, attempt: int) -> None:
        leader = self.leader()
        assert leader is not None
        if attempt % 3 == 0:
            leader.transfer(None)
        elif attempt % 3 == 1:
            self._kill(leader, power=False)
        else:
            self.world.network.partition({leader.name}, both_ways=True)
            self.world.advance(1.5)
            self.world.network.heal()

    def _kill(self, process: Process, *, power: bool) -> None:
        self.world.faults.died(process, "by the sweep", power=power)

    def _restart(self, name: str) -> None:
        """Start with the order to die on the way (what faults do with ``arm_start_crash``)."""
        victim = next(p for p in self.all if p.up)
        self._kill(victim, power=name == "journal.segment.cut")
        victim.disk.crash_at(label=name)
        victim.start()

    def _replace_disk(self, name: str) -> None:
        victim = next(p for p in self.all if p.up)
        self._kill(victim, power=True)
        self.world.faults._replace_disk(victim)
        if name in AT_FIRST_START:
            if name == "directory.clear":  # a first start that was cut short leaves files
                victim.disk.crash_at(label="journal.segment.durable")
                victim.start()
                assert self.until(lambda: not victim.running, 2.0)
            victim.disk.crash_at(label=name)
            victim.start()
        else:
            victim.start()
            victim.disk.crash_at(label=name)

    def _be_idle(self, name: str) -> None:
        """A node that hears heartbeats only notes that its last group is durable."""
        self.world._loading = False
        self.world.calling = False  # type: ignore[attr-defined]
        self.world.advance(2.5)
        self.world._loading = True
        self.world.calling = True  # type: ignore[attr-defined]


def _sweep(world: World, names: tuple[str, ...]) -> None:
    sweep = Sweep(world)
    world.write_gap_s = 0.05
    with world.scripted():
        world.faults.down_s = 0.2
        world.load()
        missed = [name for name in names if not sweep.crash_at(name)]
        world.settle()
    assert not missed
    assert world.checks.acknowledged


def test_every_crash_point_of_consensus_and_storage() -> None:
    world = World(1, families=set(), size=3, founded=True)
    elsewhere = {*AT_FOUNDING, *AT_REMOVAL}
    _sweep(world, tuple(n for n in crashpoints.CONSENSUS if n not in elsewhere))


@pytest.mark.parametrize("name", AT_FOUNDING)
@pytest.mark.parametrize("victim", ["n1", "n2", "n3"])
@pytest.mark.parametrize("power", [False, True])
def test_every_crash_point_of_a_founding(name: str, victim: str, power: bool) -> None:
    """Whoever dies wherever: there is one founding in the end, and all take part in it."""
    world = World(1, families=set(), size=3, founded=False)
    sweep = Sweep(world)
    with world.scripted():
        world.faults.down_s = 0.2
        process = world.processes[victim]
        process.disk.crash_at(label=name)
        assert sweep.until(lambda: sweep.crashes(name) > 0, 5.0)
        assert not process.running
        if power:
            process.disk.power_loss()
        world.load()
        world.settle()
    assert world.checks.acknowledged


def test_a_removed_replica_that_dies_before_it_noted_it_is_told_again() -> None:
    (name,) = AT_REMOVAL
    world = World(1, families=set(), size=3, founded=True)
    sweep = Sweep(world)
    with world.scripted():
        world.faults.down_s = 0.2
        world.load()
        assert sweep.until(sweep.settled, 15.0)
        leader = sweep.leader()
        assert leader is not None
        victim = next(p for p in sweep.all if p is not leader)
        victim.disk.crash_at(label=name)
        leader.change(RemoveMember(victim.node_id))
        assert sweep.until(lambda: sweep.crashes(name) > 0, 5.0)
        assert not victim.removed
        assert sweep.until(lambda: victim.removed, 5.0)
        assert not victim.running
        before = len(world.checks.acknowledged)
        assert sweep.until(lambda: len(world.checks.acknowledged) > before + 5, 5.0)


def test_every_crash_point_of_the_service() -> None:
    own = tuple(n for n in crashpoints.SERVICE if n not in crashpoints.CONSENSUS)
    _sweep(ServiceWorld(1, families=set(), size=3, clients=4, founded=True), own)


def test_the_registry_names_what_the_product_passes() -> None:
    root = Path(raftckpt.__file__).parent
    passed = {
        name
        for path in root.rglob("*.py")
        for name in re.findall(r"\.point\(\s*f?\"([a-z.{}]+)\"", path.read_text())
        for name in ([name.replace("{name}", file) for file in ("identity", "peers")])
    }
    assert passed == set(crashpoints.STORAGE)
    assert len(set(crashpoints.SERVICE)) == len(crashpoints.SERVICE) >= 45


@pytest.mark.parametrize("name", crashpoints.AT_START)
def test_places_at_start_exist(name: str) -> None:
    assert name in crashpoints.CONSENSUS

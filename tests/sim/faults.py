"""Fault families, switched on and off per seed, and the healing after them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tests.sim import nodes

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

FAMILIES: Final = (
    "kill",
    "power",
    "power_all",
    "crash_in_io",
    "partition",
    "one_way",
    "reset",
    "clog",
    "lag",
    "pause",
    "frozen_leader",
    "flap",
    "drift",
    "slow_disk",
    "disk_error",
    "transfer",
    "compact",
    "wipe",
)


class Faults:
    """Makes life hard for one world until :meth:`end`."""

    def __init__(self, world: World, rng: random.Random, families: set[str] | None) -> None:
        self.world, self.rng = world, rng
        if families is None:
            share = rng.choice((0.2, 0.4, 0.7))
            families = {f for f in FAMILIES if rng.random() < share}
        self.families = families
        self.gap_s = rng.choice((0.15, 0.4, 1.0))
        self.down_s = rng.choice((0.3, 2.0))
        self.active = False
        self._wiped: Process | None = None

    def begin(self) -> None:
        self.active = True
        if "drift" in self.families:
            for process in self._all():
                process.clock.set_rate(self.rng.uniform(0.95, 1.05))
        if "lag" in self.families:
            self.world.network.delay_s = (0.001, self.rng.choice((0.01, 0.05)))
        for process in self._all():
            if "slow_disk" in self.families and self.rng.random() < 0.5:
                process.sync_s = (0.001, self.rng.choice((0.01, 0.1)))
        self._next()

    def end(self) -> None:
        """Heal everything; what is down starts again."""
        self.active = False
        world = self.world
        world.network.heal()
        world.network.delay_s = (0.0002, 0.001)
        for process in self._all():
            process.sync_s = (0.0001, 0.0005)
            nodes.calm_disk(process.disk)
            if process.paused:
                process.resume()
            if not process.up:
                self._start(process)

    def died(self, process: Process, why: str, *, power: bool = False) -> None:
        """A process died; it comes back after a while."""
        world = self.world
        world.network.host_died(process.name, silently=power)
        process.die(why)
        nodes.crash_disk(process.disk, power=power)
        world.queue.after(self.rng.expovariate(1 / self.down_s), self._start, process)

    # --- inside -------------------------------------------------------------------------
    def _all(self) -> list[Process]:
        return list(self.world.processes.values())

    def _start(self, process: Process) -> None:
        if not process.up:
            nodes.calm_disk(process.disk)
            process.start()

    def _next(self) -> None:
        if not self.active:
            return
        self.world.queue.after(self.rng.expovariate(1 / self.gap_s), self._next)
        if "lag" in self.families and (pair := self._pair()) is not None:
            self.world.network.extra_delay_s[pair] = self.rng.choice((0.0, 0.0, 0.02, 0.2))
        happenings = sorted(self.families - {"drift", "lag"})
        if not happenings:
            return
        name = self.rng.choice(happenings)
        action: Callable[[], None] = getattr(self, f"_{name}")
        action()

    def _victim(self) -> Process | None:
        running = [p for p in self._all() if p.up]
        leaders = [p for p in running if p.leads]
        if leaders and self.rng.random() < 0.4:
            return self.rng.choice(leaders)
        return self.rng.choice(running) if running else None

    def _count(self, what: str, *detail: object) -> None:
        self.world.checks.sometimes[what] += 1
        self.world.note("fault", what, *detail)

    def _pair(self) -> tuple[str, str] | None:
        names = sorted(self.world.processes)
        if len(names) < 2:
            return None
        one, other = self.rng.sample(names, 2)
        return one, other

    def _kill(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._count("kills", victim.name)
            self.died(victim, "kill -9")

    def _power(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._count("power losses", victim.name)
            self.died(victim, "power", power=True)

    def _power_all(self) -> None:
        if self.rng.random() < 0.3:
            self._count("power losses of all")
            for process in self._all():
                if process.up:
                    self.died(process, "power", power=True)

    def _crash_in_io(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._count("crash points armed", victim.name)
            nodes.arm_crash(victim.disk, self.rng)

    def _disk_error(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._count("disk errors armed", victim.name)
            nodes.arm_error(victim.disk, self.rng)

    def _partition(self) -> None:
        names = sorted(self.world.processes)
        if len(names) < 2:
            return
        side = set(self.rng.sample(names, self.rng.randint(1, len(names) - 1)))
        self._count("partitions", sorted(side))
        self.world.network.partition(side, both_ways=True)
        self._heal_later()

    def _one_way(self) -> None:
        pair = self._pair()
        if pair is not None:
            self._count("one-way cuts", *pair)
            if self.rng.random() < 0.5:
                self.world.network.cut_one(*pair)
            else:
                self.world.network.partition({pair[0]}, both_ways=False)
            self._heal_later()

    def _heal_later(self) -> None:
        self.world.queue.after(self.rng.expovariate(1 / 1.5), self.world.network.heal)

    def _reset(self) -> None:
        pair = self._pair()
        if pair is not None:
            self._count("resets", *pair)
            self.world.network.reset(*pair)

    def _clog(self) -> None:
        pair = self._pair()
        if pair is not None:
            self._count("clogs", *pair)
            self.world.network.clog(*pair)
            seconds = self.rng.expovariate(1 / 0.4)
            self.world.queue.after(seconds, self.world.network.unclog, *pair)

    def _pause(self) -> None:
        victim = self._victim()
        if victim is not None and not victim.paused:
            self._count("pauses", victim.name)
            victim.pause()
            self.world.queue.after(self.rng.expovariate(1 / 0.7), victim.resume)

    def _frozen_leader(self) -> None:
        """The leader stops for a while with answers in its sockets; nobody tells it of the next."""
        leaders = [p for p in self._all() if p.up and p.leads and not p.paused]
        if not leaders:
            return
        leader = self.rng.choice(leaders)
        self._count("frozen leaders", leader.name)
        world = self.world
        frozen = self.rng.uniform(0.5, 2.0)
        leader.pause()
        world.queue.after(self.rng.uniform(0.0, 0.005), self._isolate, leader.name)
        world.queue.after(frozen, leader.resume)
        world.queue.after(frozen + self.rng.uniform(0.0, 0.5), world.network.heal)

    def _isolate(self, name: str) -> None:
        if self.active:
            self.world.network.partition({name}, both_ways=True)

    def _flap(self) -> None:
        """A link breaks and comes back many times."""
        pair = self._pair()
        if pair is not None:
            self._count("flapping links", *pair)
            for i in range(self.rng.randint(2, 8)):
                self.world.queue.after(0.1 * i, self.world.network.reset, *pair)

    def _slow_disk(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._count("slow disks", victim.name)
            victim.sync_s = (0.0001, self.rng.choice((0.0005, 0.02, 0.3)))

    def _transfer(self) -> None:
        for process in self._all():
            if process.up and process.leads:
                names = sorted(self.world.processes)
                self._count("transfers asked", process.name)
                process.transfer(self.rng.choice([None, *names]))

    def _compact(self) -> None:
        victim = self._victim()
        if victim is not None:
            victim.compact()

    def _wipe(self) -> None:
        """One node loses its disk; the next may only after it is a full voter again."""
        if len(self.world.processes) < 3 or self.rng.random() < 0.5:
            return
        if self._wiped is not None and (not self._wiped.up or self._wiped.rejoining):
            return
        victim = self._victim()
        if victim is None:
            return
        self._count("wipes", victim.name)
        self._wiped = victim
        self.died(victim, "wiped", power=True)
        victim.disk = nodes.make_disk(self.world.seed, f"{victim.name}/{victim.incarnation}")
        victim.rejoin = True
        self.world.checks.wiped(victim.name)

"""Fault families, switched on and off per seed, and the healing after them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from raftckpt.storage import REJOINS
from tests.sim import nodes

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

WALL_HEARD_S: Final = 12.0
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
    "rot",
    "wall_jump",
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
            process.wall_error_s = 0.0
            if process.paused:
                process.resume()
            if not process.running and not process.idle:
                self._start(process)

    def died(self, process: Process, why: str, *, power: bool = False) -> None:
        """A process died; it comes back after a while."""
        world = self.world
        world.network.host_died(process.name, silently=power)
        process.die(why)
        nodes.crash_disk(process.disk, power=power)
        world.queue.after(self.rng.expovariate(1 / self.down_s), self._start, process)

    def removed(self, process: Process) -> None:
        """The cluster took it out: its process ended, and stays down."""
        self._count("removed and told", process.name)
        self.world.network.host_died(process.name, silently=False)
        process.die("removed")
        nodes.crash_disk(process.disk, power=False)
        process.removed = True

    # --- inside -------------------------------------------------------------------------
    def _all(self) -> list[Process]:
        return list(self.world.processes.values())

    def _start(self, process: Process) -> None:
        if not process.running and not process.removed:
            nodes.calm_disk(process.disk)
            if self.active and "crash_in_io" in self.families and self.rng.random() < 0.2:
                nodes.arm_start_crash(process.disk, self.rng)
            process.start()
            if process.running:
                nodes.calm_disk(process.disk)
            elif process.stopped_because and process.stopped_because.startswith("inside"):
                self.world.checks.sometimes["crashes while starting"] += 1

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
        for victim in self._all():
            if victim.up and self.rng.random() < 0.6:
                self._count("crash points armed", victim.name)
                nodes.arm_crash(victim.disk, self.rng, self.world.crash_points)

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
        victim = self._may_lose_disk()
        if victim is None or self.rng.random() < 0.5:
            return
        self._count("wipes", victim.name)
        self.died(victim, "wiped", power=True)
        self._replace_disk(victim)

    def _may_lose_disk(self) -> Process | None:
        """A running voter whose loss leaves a majority of every configuration that is in force."""
        victim = self._victim()
        if victim is None or self.lost_with(victim.id):
            return None
        return victim

    def lost_with(self, directory: str) -> bool:
        """Whether the loss of ``directory`` (of any, for "") would be that of a majority."""
        present = {p.id for p in self._all() if p.id and not p.lost} - {directory}
        return any(
            not p.counts or len(p.counts & present) <= len(p.counts) // 2
            for p in self._all()
            if p.id
        )

    def _rot(self) -> None:
        """Bits flip on the disk of a node that is down; the start must tell."""
        victim = self._may_lose_disk()
        if victim is None or self.rng.random() < 0.5:
            return
        self.died(victim, "power", power=True)
        path = nodes.flip_bits(victim, self.rng)
        if path:
            self._count("bits flipped at rest", victim.name, path)
            victim.damaged = victim.lost = True
            self.world.lost_at[victim.id] = self.world.queue.now

    def refused_damage(self, process: Process) -> None:
        """It found the damage and does not start: the operator gives it an empty disk."""
        self._count("damage found and refused", process.name)
        process.damaged = False
        process.die("damaged")
        self._replace_disk(process)
        self.world.queue.after(self.rng.expovariate(1 / self.down_s), self._start, process)

    def _wall_jump(self) -> None:
        """The wall clock of a node jumps, and is set right after a while; a minority at once."""
        now, most = self.world.queue.now, (len(self.world.processes) - 1) // 2
        bad = [p for p in self._all() if p.wall_bad_until > now]
        victim = self.rng.choice(self._all())
        if victim not in bad and len(bad) >= most:
            return
        error_s = self.rng.choice((-1, 1)) * self.rng.choice((2.0, 60.0, 3600.0, 3e8))
        self._count("wall clocks jump", victim.name, error_s)
        victim.wall_error_s = error_s
        right_after_s = self.rng.expovariate(1 / 3.0)
        # what it told the others counts for a while longer
        victim.wall_bad_until = now + right_after_s + WALL_HEARD_S
        self.world.queue.after(right_after_s, self._wall_right, victim)

    def _wall_right(self, process: Process) -> None:
        process.wall_error_s = 0.0

    def _replace_disk(self, victim: Process) -> None:
        """An empty disk, and the operator's word that it is one: start with --rejoin."""
        self.world.lost_crashes += victim.disk.crashes
        self.world.lost_at.setdefault(victim.id, self.world.queue.now)
        victim.disk = nodes.make_disk(self.world.seed, f"{victim.name}/{victim.incarnation}")
        victim.id, victim.lost = "", False
        victim.joins = REJOINS

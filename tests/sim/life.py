"""The life of a cluster: founded, changed, upgraded, wiped, copied back, with all other faults on.

An operator who means well and errs now and then: he adds, removes and replaces members (1 to 7),
starts replicas under a wrong file or under somebody else's name, puts old disks back, upgrades and
downgrades single replicas. What he must not do (give up a majority and start it again out
of reach of all others) he does not do.
"""

from __future__ import annotations

import copy
import hashlib
import random
from typing import Final

from raftckpt.raft.configuration import Configuration
from raftckpt.raft.port import AddMember, RemoveMember, Role, SetPin
from raftckpt.storage import REJOINS, Foreign, Unsupported
from raftckpt.storage.files import Damaged
from tests.sim import nodes
from tests.sim.events import NodeClock
from tests.sim.network import endpoint_of
from tests.sim.process import Process
from tests.sim.world import World

VOTERS_MAX: Final = 7
HOSTS: Final = 9
NEXT_LEVELS: Final = (1, 3)
"""What the next version can."""


class LifeWorld(World):
    """A world whose members come and go."""

    def __init__(self, seed: int, **options: object) -> None:
        super().__init__(seed, **options)  # type: ignore[arg-type]
        self.operator = ClusterOperator(self, random.Random(f"{seed}/operator"))
        size = len(self.processes)
        rng = random.Random(f"{seed}/hosts")
        names = list(self.processes)
        for number in range(size + 1, HOSTS + 1):
            name = f"n{number}"
            clock = NodeClock(self.queue, rng.uniform(0, 1e5), 1.0)
            process = self.process_class(self, name, nodes.make_disk(seed, name), clock)
            process.file = [*names, name]
            process.idle = True
            self.processes[name] = process
            self.network.add(process)

    def begin(self) -> None:
        founders = [p for p in self.processes.values() if not p.idle]
        if self.founded:
            nodes.found_at_once(founders, self.levels[1])
        for process in founders:
            process.start()
        self.operator.begin()

    def _run(self) -> None:
        self.begin()
        self.load()
        self.faults.begin()
        self.advance(self.seconds)
        self.operator.end()
        self.faults.end()
        self.note("heal")
        self.settle()

    def members(self) -> set[str]:
        """Directories of the newest configuration that is committed anywhere."""
        newest = max(self._known(), key=lambda c: c.base, default=None)
        return set(newest.directories) if newest is not None else set()

    def _known(self) -> list[Configuration]:
        """What is committed somewhere, but for who is alone with a founding of its own."""
        known = [p.members for p in self.processes.values() if p.members is not None]
        return [c for c in known if not self.checks.cut_off(c.founding)]

    def _unhealed(self) -> str | None:
        members = self.members()
        there = {p.id for p in self.processes.values()}
        lost = members - there
        self.operator.rescue(members)
        statuses = {
            n: p.status() if p.up else None for n, p in self.processes.items() if p.id in members
        }
        down = [n for n, s in statuses.items() if s is None]
        if down:
            return f"{down} are down: {[self.processes[n].stopped_because for n in down]}"
        serving = [s for s in statuses.values() if s is not None and s.leader == s.node]
        if not serving and self._lost_in_the_moment():
            return None
        if len(serving) != 1:
            return f"{len(serving)} serving leaders: {statuses}"
        leader = serving[0]
        lag = [
            (s.node, s.commit_index)
            for s in statuses.values()
            if s is not None and s.applied_index < leader.applied_index - 50
        ]
        if lag:
            return f"lagging {lag} behind {leader.applied_index}"
        learners = [
            m.node for m in leader.configuration.members
            if m.promote and m.directory and m.directory not in lost
        ]  # fmt: skip
        if learners:
            return f"{learners} still learn: {leader.waiting}"
        acknowledged = len(self.checks.acknowledged)
        self.advance(0.5)
        if len(self.checks.acknowledged) == acknowledged:
            return "no write is acknowledged"
        return None

    def final(self) -> None:
        members = self.members()
        self.checks.sometimes[f"ended with {len(members)} members"] += 1
        for process in self.processes.values():
            if process.up and process.id in members and process.node._engine.votes:
                self.checks.final(process.name, process.machine.values)

    def stopped_itself(self, process: Process, error: Exception) -> None:
        if isinstance(error, Unsupported) and process.levels != NEXT_LEVELS:
            self.checks.sometimes["an old version refused the level"] += 1
            process.levels = NEXT_LEVELS  # the operator reads the sentence
            self.faults.died(process, "level")
            return
        if isinstance(error, Foreign) and process.set_back:
            self.checks.sometimes["a disk that was put back refused again"] += 1
            process.die("refused: it went back in time")
            return
        if isinstance(error, Foreign) and (
            process.removed or process.joins or process.id not in self.members()
        ):
            self.checks.sometimes["a given up directory refused"] += 1
            process.die("given up")
            process.idle = True
            return
        if isinstance(error, Damaged) and process.damaged:
            pass
        super().stopped_itself(process, error)


class ClusterOperator:
    """Changes the cluster at random until :meth:`end`."""

    def __init__(self, world: LifeWorld, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.gap_s = rng.choice((0.4, 1.0, 2.5))
        self.active = False
        self.upgrades = rng.random() < 0.5
        self.copies = rng.random() < 0.5
        self._copies: dict[str, nodes.WatchedDisk] = {}

    def begin(self) -> None:
        self.active = True
        self._next()

    def end(self) -> None:
        self.active = False

    def _next(self) -> None:
        if not self.active:
            return
        self.world.queue.after(self.rng.expovariate(1 / self.gap_s), self._next)
        moves = [self.add, self.add, self.remove, self.replace, self.rejoin, self.wrong_file,
                 self.pin, self.early_wipe, self.impostor]  # fmt: skip
        if self.upgrades:
            moves += [self.other_version] * 3
        if self.copies:
            moves += [self.copy_disk, self.put_back]
        self.rng.choice(moves)()

    # --- looking ---------------------------------------------------------------------------
    def _leader(self) -> Process | None:
        leaders = [p for p in self.world.processes.values() if p.up and not p.paused and p.leads]
        return self.rng.choice(leaders) if leaders else None

    def _idle(self) -> Process | None:
        idle = [p for p in self.world.processes.values() if p.idle and not p.running]
        return self.rng.choice(idle) if idle else None

    def _count(self, what: str, *detail: object) -> None:
        self.world.checks.sometimes[what] += 1
        self.world.note("operator", what, *detail)

    def _fresh(self, host: Process, node_id: str = "") -> None:
        """An empty disk in ``host``, and no history."""
        self.world.lost_crashes += host.disk.crashes
        host.disk = nodes.make_disk(self.world.seed, f"{host.name}/fresh/{host.incarnation}")
        host.id, host.removed, host.lost, host.damaged = "", False, False, False
        host.counts, host.members = frozenset(), None
        host.settled_bytes, host._synced_end = {}, ("", 0)
        host.node_id = node_id or host.name
        host.idle = False
        host.says_found = host.says_found and not host.ever_founded
        host.joins = ""

    # --- moves -----------------------------------------------------------------------------
    def add(self) -> None:
        leader, host = self._leader(), self._idle()
        if leader is None or host is None or leader.members is None:
            return
        if len(leader.members.members) >= VOTERS_MAX or leader.members.named(host.name):
            return
        self._count("adds", host.name)
        self._start_new(leader, host, replaces="")

    def _start_new(self, leader: Process, host: Process, replaces: str) -> None:
        token = f"token-{host.name}-{host.incarnation}"
        self._fresh(host)
        host.joins = token
        digest = hashlib.sha256(token.encode()).hexdigest()
        promote = bool(replaces) or self.rng.random() < 0.85
        leader.change(
            AddMember(host.name, f"{host.name}:1", endpoint_of(host.name), digest, promote,
                      replaces)
        )  # fmt: skip
        self.world.queue.after(self.rng.uniform(0.0, 0.5), self._start, host)

    def _start(self, host: Process) -> None:
        if not host.running and not host.idle:
            host.start()

    def remove(self) -> None:
        leader = self._leader()
        if leader is None or leader.members is None:
            return
        if not leader.members.voters <= {p.id for p in self.world.processes.values() if not p.lost}:
            return  # with one disk lost, one more that goes may be the last that holds it all
        node = self.rng.choice(leader.members.members).node
        self._count("removes", node)
        leader.change(RemoveMember(node))

    def replace(self) -> None:
        leader, host = self._leader(), self._idle()
        if leader is None or host is None or leader.members is None:
            return
        voters = [m.node for m in leader.members.members if m.voter]
        if leader.members.named(host.name) or len(leader.members.members) >= VOTERS_MAX:
            return
        node = self.rng.choice(voters)
        self._count("replaces", node, host.name)
        self._start_new(leader, host, replaces=node)

    def rejoin(self) -> None:
        """A host loses its disk and comes back under its name."""
        faults = self.world.faults
        victim = faults._may_lose_disk()
        if victim is None or victim.id not in self.world.members():
            return
        self._count("disks replaced", victim.name)
        faults.died(victim, "wiped", power=True)
        faults._replace_disk(victim)

    def early_wipe(self) -> None:
        """A disk is lost before any founding is complete: it only means another offer."""
        hosts = [p for p in self.world.processes.values() if p.running and not p.up]
        everybody = self.world.processes.values()
        if not hosts or any(p.ever_founded or p.joins for p in everybody):
            return
        victim = self.rng.choice(hosts)
        if victim.directory.identity.joins:
            return
        self._count("disks lost before the founding", victim.name)
        name = victim.node_id
        self.world.faults.died(victim, "wiped", power=True)
        self._fresh(victim, name)

    def impostor(self) -> None:
        """A host is started under the name of another one."""
        host = self._idle()
        others = [p for p in self.world.processes.values() if not p.idle and p is not host]
        if host is None or not others or host.id:
            return
        if any(p.node_id != p.name and not p.idle for p in self.world.processes.values()):
            # a majority of them, with empty disks, is another cluster (docs/concepts/guarantees)
            return
        target = self.rng.choice(others)
        self._count("impostors", host.name, target.node_id)
        self._fresh(host, target.node_id)
        host.file = list(target.file)
        host.start()
        self.world.queue.after(self.rng.uniform(0.2, 2.0), self._retire, host)

    def _retire(self, host: Process) -> None:
        """The operator sees his error and takes the host back, if it is no member."""
        if host.id in self.world.members() or host.id in self._counted():
            return
        if host.running:
            self.world.network.host_died(host.name, silently=False)
            host.die("retired")
            nodes.crash_disk(host.disk, power=False)
        self._fresh(host)
        host.idle = True

    def _counted(self) -> set[str]:
        """Directories that some configuration in force counts, or a founding under way."""
        counted: set[str] = set()
        for process in self.world.processes.values():
            counted |= process.counts
        return counted

    def wrong_file(self) -> None:
        """A host is restarted with a file that lists others."""
        running = [p for p in self.world.processes.values() if p.up]
        if not running:
            return
        host = self.rng.choice(running)
        names = list(self.world.processes)
        listed = {host.node_id, *self.rng.sample(names, self.rng.randint(0, 4))}
        host.file = sorted(listed)
        self._count("wrong files", host.name, host.file)
        self.world.faults.died(host, "restarted with another file")

    def pin(self) -> None:
        leader = self._leader()
        if leader is not None and self.upgrades:
            leader.change(SetPin(self.rng.random() < 0.3))

    def other_version(self) -> None:
        """Stop a host and start it as the next version, or as the former one again."""
        running = [p for p in self.world.processes.values() if p.running]
        if not running:
            return
        host = self.rng.choice(running)
        newer = host.levels != NEXT_LEVELS or self.rng.random() < 0.3
        self._count("upgrades" if newer else "downgrades", host.name)
        host.levels = NEXT_LEVELS if newer else self.world.levels
        self.world.faults.died(host, "another version")

    def copy_disk(self) -> None:
        """Copy the disk of a host that is down."""
        down = [p for p in self.world.processes.values() if not p.running and p.id]
        if down:
            host = self.rng.choice(down)
            if host.name not in self._copies:
                self._copies[host.name] = copy.deepcopy(host.disk)
                self._count("disks copied", host.name)

    def put_back(self) -> None:
        """Set the disk of a host that is down back to the copy.

        Only one host, and only if that is no majority of what counts: what it acknowledged since
        is lost with its disk, unless somebody finds it out.
        """
        down = [
            p for n, p in self.world.processes.items()
            if not p.running and n in self._copies and p.id and not p.lost
        ]  # fmt: skip
        if not down or any(p.set_back for p in self.world.processes.values()):
            return
        host = self.rng.choice(down)
        if self.world.faults.lost_with(host.id) or not self._would_be_found_out(host):
            return
        self._count("disks put back", host.name)
        host.disk = self._copies.pop(host.name)
        host.disk.kill()
        host.set_back = host.lost = True
        self.world.checks.set_back(host.id)

    def _would_be_found_out(self, host: Process) -> bool:
        """Whether it was started since the copy, and every other member has met a later start."""
        members = self.world.members()
        others = [p for p in self.world.processes.values() if p.id in members and p is not host]
        copied = self._copies[host.name]
        starts = nodes.starts_on(copied)
        return bool(others) and all(nodes.met_start(p.disk, host.id) > starts + 1 for p in others)

    def rescue(self, members: set[str]) -> None:
        """After the last fault: who is a member and refuses gets what its sentence says."""
        level = max(
            (p.members.level for p in self.world.processes.values() if p.members), default=1
        )
        for process in self.world.processes.values():
            if process.running and process.id in members and process.levels[1] < level:
                self._count("an old version got no link at the level")
                process.levels = NEXT_LEVELS
                self.world.faults.died(process, "level")
            if process.running or process.removed or process.idle:
                continue
            if process.stopped_because and process.stopped_because.startswith("refused"):
                process.set_back = process.lost = False
                self._fresh(process, process.node_id)
                process.joins = REJOINS
                process.start()

    @staticmethod
    def learns(process: Process) -> bool:
        return process.seen[0] is Role.LEARNER

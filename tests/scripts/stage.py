"""What the stories are played on: the whole service in the simulator, moved by words.

Real replicas, connections and client cores; simulated network, disks and time. Nothing is random:
the same story has the same output. The simulator's checks (see ``tests/sim/checks.py``) run along.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from raftckpt.client import operations
from raftckpt.client.calls import Call
from raftckpt.client.config import CoreConfig
from raftckpt.client.core import ClientCore
from raftckpt.client.operations import Opened
from raftckpt.client.types import Attributes
from raftckpt.errors import CheckpointError
from raftckpt.protocol.operations import ActiveReplicaSet
from tests.messages import ask
from tests.sim.clients import SimClient, endpoint_of
from tests.sim.nodes import Tuning
from tests.sim.process import Process
from tests.sim.service import ServiceWorld

GRAIN_S = 0.002
PATIENCE_S = 30.0
CALL_S = 10.0
ATTRIBUTES: dict[str, Callable[[str], Any]] = {
    "update": str,
    "collocated": lambda word: word == "yes",
    "retention": float,
    "max_sections": int,
    "max_section_size": int,
}


class Player(SimClient):
    """A client that does what the story says, and nothing else."""

    def __init__(self, world: ServiceWorld, name: str, options: dict[str, str]) -> None:
        self.options = options
        self.dead = False
        self.begun: Call | None = None
        super().__init__(world, name, calm=True)

    def _next(self) -> None:
        pass

    def _begin_session(self) -> None:
        self._life += 1
        self.core_secret = self.name.encode().ljust(16, b".")
        self.core = ClientCore(
            CoreConfig(
                client_name=self.name,
                node=self.options.get("node"),
                session_timeout_ns=int(float(self.options.get("timeout", "10")) * 1e9),
                disconnect_grace_ns=int(float(self.options.get("grace", "2")) * 1e9),
            ),
            [endpoint_of(name) for name in sorted(self.world.processes)],
            secret=self.core_secret,
            jitter=self.rng.random,
        )
        self.opened: dict[str, Opened] = {}
        self._asked = 0
        self._connection = None

    def _completed(self, call: Call) -> None:
        pass

    def begin(self, call: Call, seconds: float = CALL_S) -> Call:
        now = self.world.queue.now
        self.core.start(call, now + seconds, now)
        self.settle()
        return call

    def die(self) -> None:
        """kill -9: the kernel closes its connection."""
        self._life += 1
        self.dead = True
        if self._connection is not None:
            self._connection.client_closes()


class StoryStage:
    """The cluster, its clients, and the words that move them."""

    def __init__(self, world: ServiceWorld) -> None:
        self.world = world
        self.players: dict[str, Player] = {}
        self.down: list[Process] = []

    # --- running ------------------------------------------------------------------------------
    def play(self, line: str) -> str:
        """Do what a line says and return what is to be seen."""
        words = shlex.split(line)
        action = getattr(self, f"do_{words[0].replace('-', '_')}", None)
        if action is not None:
            return str(action(*words[1:]))
        return self._client(words[0], words[1:])

    def until(self, condition: Callable[[], Any], what: str) -> None:
        end = self.world.queue.now + PATIENCE_S
        while not condition():
            assert self.world.queue.now < end, f"it never comes that {what}"
            self.world.advance(GRAIN_S)

    def serving(self) -> Process | None:
        found = [p for p in self.world.processes.values() if p.up and not p.paused and p.leads]
        found = [p for p in found if p.status().leader == p.name and not self._alone(p)]
        return found[0] if len(found) == 1 else None

    def _alone(self, process: Process) -> bool:
        others = set(self.world.processes) - {process.name}
        return all((process.name, other) in self.world.network.cut for other in others)

    def leader(self) -> Process:
        self.until(lambda: self.serving() is not None, "a leader serves")
        leader = self.serving()
        assert leader is not None
        return leader

    def _node(self, word: str) -> Process:
        if word == "leader":
            return self.leader()
        if word == "follower":
            leader = self.leader()
            return next(p for p in self.world.processes.values() if p is not leader and p.up)
        return self.world.processes[word]

    # --- the cluster --------------------------------------------------------------------------
    def do_leader(self) -> str:
        """Wait until a leader serves."""
        self.leader()
        return "a leader serves"

    def do_kill(self, what: str) -> str:
        """``kill leader|follower|CLIENT``: as kill -9 does."""
        if what in self.players:
            self.players[what].die()
            return f"{what} is dead"
        process = self._node(what)
        self.world.network.host_died(process.name, silently=False)
        process.die("killed by the story")
        process.disk.kill()
        self.down.append(process)
        return f"the {what} is dead"

    def do_restart(self) -> str:
        """Start every replica that is down."""
        for process in self.down:
            process.start()
            assert process.up, process.stopped_because
        count = len(self.down)
        self.down.clear()
        self.leader()
        return f"{count} restarted"

    def do_cut_off(self, what: str) -> str:
        """``cut-off leader``: its links to the other replicas; its clients still reach it."""
        self.world.network.partition({self._node(what).name}, both_ways=True)
        return f"the {what} is cut off from the others"

    def do_heal(self) -> str:
        """End every partition."""
        self.world.network.heal()
        return "healed"

    def do_transfer(self) -> str:
        """Hand leadership over, in good order."""
        before = self.leader()
        before.transfer(None)
        self.until(lambda: self.serving() not in (None, before), "another one leads")
        return "another one leads"

    def do_pass(self, seconds: str) -> str:
        """Let so many seconds go by."""
        self.world.advance(float(seconds))
        return f"{seconds} s later"

    def do_freeze(self, name: str, seconds: str) -> str:
        """``freeze CLIENT S``: its process is stopped for so long; its connection stays."""
        self.players[name].freeze(float(seconds))
        return f"{name} is frozen"

    def do_show(self, name: str) -> str:
        """``show CHECKPOINT``: what the cluster says about it."""
        machine = self.leader().machine.machine
        result = ask(machine, None, 102, name)
        if not result.ok:
            return f"there is no checkpoint {name}"
        status = result.value[1]
        sections = ask(machine, None, 101, name).value[1]
        lines = [" ".join([f"{i.decode()}={bytes(d).decode()}" for i, d in sections]) or "empty"]
        openers = [f"{row[1]}({'r' * bool(row[3])}{'w' * bool(row[4])})" for row in status.openers]
        lines.append(f"open by {' '.join(openers)}" if openers else "open by nobody, kept for now")
        if status.active is not None or status.epoch:
            active = "nobody" if status.active is None else status.active[1]
            fenced = ", fenced" if status.exclusive else ""
            lines.append(f"active on {active}, epoch {status.epoch}{fenced}")
        return "\n".join(lines)

    # --- clients ------------------------------------------------------------------------------
    def do_client(self, name: str, *options: str) -> str:
        """``client NAME [node=n1] [timeout=S] [grace=S]``: a process begins a session."""
        player = Player(self.world, name, dict(word.split("=", 1) for word in options))
        self.players[name] = player
        return self._outcome(player, player.begin(operations.ready()), "a session begins")

    def do_begin(self, name: str, *words: str) -> str:
        """``begin CLIENT ...``: do not wait for the outcome; ``await CLIENT`` does."""
        player = self.players[name]
        player.begun = player.begin(self._call(player, list(words)))
        return "under way"

    def do_await(self, name: str) -> str:
        player = self.players[name]
        assert player.begun is not None, "nothing was begun"
        return self._outcome(player, player.begun)

    def _client(self, name: str, words: list[str]) -> str:
        player = self.players[name]
        return self._outcome(player, player.begin(self._call(player, words)))

    def _call(self, player: Player, words: list[str]) -> Call:
        verb, checkpoint, *rest = words
        plain = [word for word in rest if "=" not in word]
        named = dict(word.split("=", 1) for word in rest if "=" in word)
        if verb in ("open", "create"):
            given = {key: ATTRIBUTES[key](value) for key, value in named.items() if key != "mode"}
            create = Attributes(**given) if verb == "create" else None
            return operations.open_checkpoint(checkpoint, create, named.get("mode", "rw"))
        if verb == "unlink":
            return operations.unlink(checkpoint)
        opened = player.opened[checkpoint]
        match verb:
            case "put":
                return operations.put(opened, plain[0], plain[1].encode())
            case "write":
                offset = int(named.get("offset", "0"))
                return operations.write(opened, plain[0], plain[1].encode(), offset)
            case "add":
                ttl = float(named["ttl"]) if "ttl" in named else None
                return operations.create(opened, plain[0], plain[1].encode(), None, ttl)
            case "delete":
                return operations.delete(opened, plain[0])
            case "read":
                where = named.get("consistency", "linearizable")
                return operations.read(opened, plain[0], 0, None, where)
            case "synchronize":
                return operations.synchronize(opened)
            case "retain":
                return operations.set_retention(opened, float(plain[0]))
            case "active":
                return operations.active_replica_set(opened, "exclusive" in plain)
            case "close":
                return operations.close_checkpoint(opened)
        raise AssertionError(f"no such verb: {verb}")

    def _outcome(self, player: Player, call: Call, good: str = "") -> str:
        self.until(lambda: call.done, "the call ends")
        try:
            value = operations.decoded(call)
        except CheckpointError as error:
            how = "did not happen" if error.definite else "may have happened"
            return f"{type(error).__name__} {error.reason or '-'}: {how}"
        if isinstance(value, Opened):
            player.opened[value.name] = value
            return "created" if value.created else "opened"
        if good:
            return good
        if call.accepted and value is None:
            return "accepted"
        match value:
            case bytes():
                return value.decode()
            case None:
                return "ok"
            case int():
                word = "epoch" if type(call.message) is ActiveReplicaSet else "revision"
                return f"{word} {value}"
        return repr(value)


def new_world() -> ServiceWorld:
    """A calm world of three replicas."""
    world = ServiceWorld(1, families=set(), size=3, clients=1)
    world.ballast = 0
    world.tuning = Tuning(3, 4, 2048, 512)
    world.snapshot_entries = 100_000
    world.keep_entries = 0
    return world

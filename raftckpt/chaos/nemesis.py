"""The faults: a table of small scripts, and two lanes that play them at the same time.

A script does something, yields how long it is to last, and undoes it. One lane breaks replicas and
the links between them, the other what surrounds them: clients, their ways, the quality of links.
Each lane goes through its scripts in random order, all of them before any again.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from raftckpt.chaos.stage import ChaosStage, ClientProcess
from raftckpt.client.blocking import connect
from raftckpt.errors import CheckpointError
from raftckpt.testing import background
from raftckpt.testing.local_cluster import ClusterNotReady
from raftckpt.testing.probe import ReplicaProbe
from raftckpt.testing.proxy import LinkProxy

__all__ = ["LANES", "Mark", "Nemesis"]

Script: TypeAlias = Callable[[ChaosStage, random.Random], Iterator[float]]


class Mark(NamedTuple):
    """A fault that was played: when (monotonic ns), which, on what."""

    begin: int
    end: int
    lane: int
    name: str


class _Skip(Exception):
    """Nothing to do that to at the moment."""


def _leader(stage: ChaosStage) -> str:
    leader = stage.leader()
    if leader is None or stage.cluster.pid(leader) is None:
        raise _Skip
    return leader


def _follower(stage: ChaosStage, dice: random.Random) -> str:
    leader = _leader(stage)
    others = [node for node in stage.running() if node != leader]
    if not others:
        raise _Skip
    return dice.choice(others)


def _some_clients(stage: ChaosStage, dice: random.Random, count: int) -> list[ClientProcess]:
    return dice.sample(stage.clients, min(count, len(stage.clients)))


# --- replicas --------------------------------------------------------------------------------


def _kill_leader(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    stage.cluster.kill(_leader(stage))
    yield dice.uniform(0.2, 2.5)
    stage.keeper.restart()


def _kill_follower(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    stage.cluster.kill(_follower(stage, dice))
    yield dice.uniform(0.2, 4.0)
    stage.keeper.restart()


def _kill_minority(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    count = len(stage.nodes) - stage.majority
    stage.cluster.kill(*dice.sample(stage.nodes, count))
    yield dice.uniform(0.5, 3.0)
    stage.keeper.restart()


def _kill_all(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    stage.cluster.kill()
    yield dice.uniform(0.0, 0.5)
    stage.keeper.restart()
    yield 1.5


def _restart_storm(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """Kill a replica in whatever phase of its start it happens to be."""
    node = _follower(stage, dice) if dice.random() < 0.5 else _leader(stage)
    for _ in range(dice.randrange(2, 5)):
        stage.cluster.kill(node)
        stage.keeper.restart()
        yield dice.uniform(0.05, 0.8)


def _stop_leader(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """Ask it to leave: it hands over first."""
    stage.cluster.terminate(_leader(stage), 20.0)
    yield dice.uniform(0.1, 1.0)
    stage.keeper.restart()


def _pause_leader(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    node = _leader(stage)
    stage.cluster.pause(node)
    yield dice.uniform(0.3, 3.0)
    stage.cluster.resume(node)


def _pause_follower(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    node = _follower(stage, dice)
    stage.cluster.pause(node)
    yield dice.uniform(0.3, 4.0)
    stage.cluster.resume(node)


def _pause_all(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    for node in stage.running():
        stage.cluster.pause(node)
    yield dice.uniform(0.3, 1.5)
    for node in dice.sample(stage.nodes, len(stage.nodes)):
        stage.cluster.resume(node)
        yield dice.uniform(0.0, 0.3)


def _transfer(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    for _ in range(dice.randrange(1, 4)):
        try:
            with ReplicaProbe(stage.cluster.endpoint(_leader(stage)), timeout=3.0) as probe:
                probe.transfer()
        except CheckpointError:  # refused, or the answer was lost: the history judges
            pass
        yield dice.uniform(0.1, 0.8)


def _full_disk(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    if stage.disk is None:
        raise _Skip
    stage.keeper.disk_filled()
    stage.disk.fill()
    yield dice.uniform(1.0, 3.0)
    stage.disk.empty()
    stage.keeper.restart()
    yield 0.5
    stage.keeper.restart()  # it may have died of it only now


# --- links between replicas --------------------------------------------------------------------


def _isolate_leader(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """Cut the leader off, together with a minority of the clients."""
    leader = _leader(stage)
    others = [node for node in stage.nodes if node != leader]
    with_it = _some_clients(stage, dice, 1)
    stage.cluster.partition(leader)
    for client in stage.clients:
        for node in others if client in with_it else [leader]:
            client.each_way(lambda way: way.stall(forward=True, backward=True), node)
    yield dice.uniform(1.0, 4.0)
    stage.cluster.partition()
    for client in stage.clients:
        client.heal()


def _isolate_follower(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    stage.cluster.partition(_follower(stage, dice))
    yield dice.uniform(0.5, 4.0)
    stage.cluster.partition()


def _split(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """Cut a minority with the leader off, or a random one."""
    group = dice.sample(stage.nodes, len(stage.nodes) - stage.majority)
    stage.cluster.partition(group)
    yield dice.uniform(0.5, 3.0)
    stage.cluster.partition()


def _one_way(
    stage: ChaosStage, dice: random.Random, *, deaf: bool, leader: bool
) -> Iterator[float]:
    """Let a replica hear nothing, or let nobody hear it; the other direction goes on."""
    node = _leader(stage) if leader else _follower(stage, dice)
    others = [other for other in stage.nodes if other != node]
    pairs = [(other, node) if deaf else (node, other) for other in others]
    for source, target in pairs:
        stage.cluster.block(source, target)
    yield dice.uniform(0.5, 3.0)
    for source, target in pairs:
        stage.cluster.block(source, target, blocked=False)


def _flapping(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """Cut and mend random links."""
    for _ in range(dice.randrange(4, 10)):
        source, target = dice.sample(stage.nodes, 2)
        stage.cluster.block(source, target)
        yield dice.uniform(0.05, 0.6)
        stage.cluster.block(source, target, blocked=False)


# --- what surrounds them -----------------------------------------------------------------------


def _peer_latency(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    stage.cluster.latency(dice.uniform(0.005, 0.06))
    yield dice.uniform(1.0, 3.0)
    stage.cluster.latency(0.0)


def _peers(stage: ChaosStage, work: Callable[[LinkProxy], None], node: str | None = None) -> None:
    for _, proxy in stage.cluster.links(node):
        background.call(partial(work, proxy))


def _slow_links(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    node = _leader(stage) if dice.random() < 0.6 else _follower(stage, dice)
    speed = dice.choice([100_000.0, 400_000.0])
    _peers(stage, lambda proxy: proxy.slow(speed), node)
    yield dice.uniform(1.0, 3.0)
    _peers(stage, lambda proxy: proxy.slow(None), node)


def _slices(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """Pass everything on in pieces of a few bytes."""
    size = dice.choice([1, 7, 64])
    ways = [client for client in stage.clients if dice.random() < 0.5]
    _peers(stage, lambda proxy: proxy.slice(size))
    for client in ways:
        client.each_way(lambda way: way.slice(size))
    yield dice.uniform(0.5, 2.0)
    _peers(stage, lambda proxy: proxy.slice(None))
    for client in ways:
        client.each_way(lambda way: way.slice(None))


def _reset_peers(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    for _ in range(dice.randrange(1, 8)):
        _peers(stage, LinkProxy.reset, dice.choice([None, *stage.nodes]))
        yield dice.uniform(0.02, 0.4)


def _reset_clients(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    for _ in range(dice.randrange(1, 8)):
        for client in stage.clients:
            if dice.random() < 0.7:
                client.each_way(LinkProxy.reset)
        yield dice.uniform(0.02, 0.4)


def _half_close(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """End one direction of streams whose other direction goes on."""
    forward = dice.random() < 0.5
    if dice.random() < 0.5:
        _peers(stage, lambda proxy: proxy.half_close(forward=forward), dice.choice(stage.nodes))
    else:
        for client in _some_clients(stage, dice, 2):
            client.each_way(lambda way: way.half_close(forward=forward))
    yield dice.uniform(0.3, 1.0)


def _deaf_clients(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """Let requests through and hold the replies back, or the other way round."""
    requests = dice.random() < 0.3
    chosen = _some_clients(stage, dice, 2)
    for client in chosen:
        client.each_way(lambda way: way.stall(forward=requests, backward=not requests))
    yield dice.uniform(0.3, 2.0)
    for client in chosen:
        client.heal()


def _slow_clients(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    chosen = _some_clients(stage, dice, 2)
    delay = dice.uniform(0.01, 0.1)
    for client in chosen:
        client.each_way(lambda way: way.delay(forward_s=delay, backward_s=delay))
    yield dice.uniform(0.5, 2.0)
    for client in chosen:
        client.heal()


def _kill_client(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    stage.replace(dice.choice(stage.clients))
    yield dice.uniform(0.1, 1.0)


def _pause_client(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    client = dice.choice(stage.clients)
    client.signal(signal.SIGSTOP)
    yield dice.uniform(0.3, 3.0)
    client.signal(signal.SIGCONT)


# --- members -----------------------------------------------------------------------------------


def _replace_member(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """Replace a member by a spare host, whatever else happens to either meanwhile."""
    others = [node for node in stage.nodes if node != stage.disk_node]
    if not stage.cluster.spares or not others:
        raise _Skip
    node, leaves = dice.choice(stage.cluster.spares), dice.choice(others)
    yield from _let_in(stage, node, leaves)
    yield from _has_left(stage, leaves)
    yield dice.uniform(0.2, 2.0)


def _add_and_remove(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """One more member for a while; then any of them goes, the leader perhaps."""
    if not stage.cluster.spares:
        raise _Skip
    yield from _let_in(stage, dice.choice(stage.cluster.spares), None)
    yield dice.uniform(0.2, 3.0)
    leaves = dice.choice([node for node in stage.nodes if node != stage.disk_node])
    stage.keeper.leaving.add(leaves)
    for _ in _patience():
        with (
            contextlib.suppress(CheckpointError),  # asked again: harmless
            connect(stage.cluster.endpoints, session=False, timeout=2.0) as service,
        ):
            service.remove_member(leaves)
            break
        yield 0.3
    yield from _has_left(stage, leaves)
    yield dice.uniform(0.2, 2.0)


def _switch_version(stage: ChaosStage, dice: random.Random) -> Iterator[float]:
    """Upgrade a replica, or go back to the version before: one by one, as an operator does."""
    if not stage.other_version:
        raise _Skip
    staying = [node for node in stage.running() if node not in stage.keeper.leaving]
    if not staying:
        raise _Skip
    node = dice.choice(staying)
    stage.switch_version(node)
    stage.cluster.resume(node)  # another lane may have it stand still
    stage.cluster.terminate(node, 20.0)
    yield dice.uniform(0.0, 0.5)
    stage.keeper.restart()
    yield dice.uniform(0.5, 2.0)


def _let_in(stage: ChaosStage, node: str, leaves: str | None) -> Iterator[float]:
    token = os.urandom(8).hex()
    if leaves is not None:
        stage.keeper.leaving.add(leaves)
    for _ in _patience():
        try:
            stage.cluster.ask_add(node, token, replaces=leaves, timeout=2.0)
            break
        except CheckpointError:  # asked again with the same token: harmless
            yield 0.3
    stage.cluster.start_added(node, token)
    for _ in _patience():
        if stage.cluster.arrived(node, replaces=leaves):
            return
        yield 0.3


def _has_left(stage: ChaosStage, node: str) -> Iterator[float]:
    """It ends when it is told, which may take until the faults of other lanes are over."""
    for _ in _patience():
        if stage.cluster.exit_code(node) is not None:
            break
        yield 0.3
    stage.cluster.forget(node)
    stage.keeper.leaving.discard(node)


def _patience() -> Iterator[None]:
    """Go on for a while; raises ClusterNotReady when it is over."""
    until = time.monotonic() + _CHANGE_S
    while time.monotonic() < until:
        yield
    raise ClusterNotReady(f"a change of members took more than {_CHANGE_S:g} s")


MEMBERS: Final[dict[str, Script]] = {
    "replace member": _replace_member,
    "add and remove member": _add_and_remove,
    "switch version": _switch_version,
}
"""One more lane, with ``--members`` or another version."""
_CHANGE_S: Final = 120.0  # a change of members that takes longer is a problem, and told as one
LANES: Final[tuple[dict[str, Script], ...]] = (
    {
        "kill leader": _kill_leader,
        "kill follower": _kill_follower,
        "kill minority": _kill_minority,
        "kill all at once": _kill_all,
        "restart storm": _restart_storm,
        "stop leader (SIGTERM)": _stop_leader,
        "pause leader": _pause_leader,
        "pause follower": _pause_follower,
        "pause all": _pause_all,
        "transfer leadership": _transfer,
        "full disk": _full_disk,
        "isolate leader with clients": _isolate_leader,
        "isolate follower": _isolate_follower,
        "split": _split,
        "leader deaf": partial(_one_way, deaf=True, leader=True),
        "leader mute": partial(_one_way, deaf=False, leader=True),
        "follower deaf": partial(_one_way, deaf=True, leader=False),
        "follower mute": partial(_one_way, deaf=False, leader=False),
        "flapping links": _flapping,
    },
    {
        "latency between replicas": _peer_latency,
        "slow links": _slow_links,
        "byte slices": _slices,
        "reset replica links": _reset_peers,
        "reset client links": _reset_clients,
        "half-closed streams": _half_close,
        "one-way client links": _deaf_clients,
        "latency of clients": _slow_clients,
        "kill client": _kill_client,
        "pause client": _pause_client,
    },
)
_CALM_S: Final = ((0.6, 1.8), (0.3, 1.2), (1.0, 4.0))
_PATIENCE_S: Final = 15.0
"""Two dozen elections: a fault that leaves none to lead is healed, or the run goes on without."""


class Nemesis:
    """Plays faults until it is told to stop.

    Arguments:
        stage: whom to trouble.
        seed: decides which fault comes when and how.
        tell: is called with a line for each fault as it begins.
        only: names of faults to restrict it to; empty: all.
        members: whether members come and go, too.
    """

    def __init__(
        self,
        stage: ChaosStage,
        seed: int,
        tell: Callable[[str], None],
        only: tuple[str, ...] = (),
        *,
        members: bool = False,
    ) -> None:
        self.marks: list[Mark] = []
        self.problems: list[str] = []
        self._stage = stage
        self._tell = tell
        self._stop = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._threads = []
        lanes = (*LANES, MEMBERS) if members or stage.other_version else LANES
        for lane, scripts in enumerate(lanes):
            chosen = {name: each for name, each in scripts.items() if not only or name in only}
            if chosen:
                dice = random.Random(f"{seed} {lane}")
                thread = threading.Thread(target=self._play, args=(lane, chosen, dice), daemon=True)
                self._threads.append(thread)

    @property
    def counts(self) -> dict[str, int]:
        """How often each fault was played."""
        return dict(sorted(Counter(mark.name for mark in self.marks).items()))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the fault under way and return when all is undone."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_CHANGE_S)

    def _play(self, lane: int, scripts: dict[str, Script], dice: random.Random) -> None:
        bag: list[str] = []
        try:
            while not self._stop.wait(dice.uniform(*_CALM_S[lane])):
                if not bag:
                    bag = dice.sample(list(scripts), len(scripts))
                self._perform(lane, bag.pop(), scripts, dice)
                if lane == 0:
                    self._until_led()
        except Exception as error:
            self._problem(f"the nemesis failed: {error!r}")

    def _perform(
        self, lane: int, name: str, scripts: dict[str, Script], dice: random.Random
    ) -> None:
        begin = time.monotonic_ns()
        script = scripts[name](self._stage, dice)
        told = False
        try:
            while True:
                # the steps of the two lanes exclude each other, not what lasts between them
                with self._one_at_a_time:
                    seconds = next(script, None)
                if seconds is None:
                    break
                if not told:
                    told = True
                    self._tell(name)
                self._stop.wait(seconds)
        except _Skip:
            pass
        except ClusterNotReady as error:
            self._problem(f"{name}: {error}")
        finally:
            script.close()  # type: ignore[attr-defined]
        if told:
            self.marks.append(Mark(begin, time.monotonic_ns(), lane, name))

    def _problem(self, what: str) -> None:
        """It ends the run: whoever looks on sees why at once, not after the judge has spoken."""
        self._tell(f"ends early: {what}")
        self.problems.append(what)

    def _until_led(self) -> None:
        """Wait for a leader: what hits a cluster without one teaches little. Not for ever."""
        deadline = time.monotonic() + _PATIENCE_S
        with contextlib.suppress(ProcessLookupError):
            while self._stage.leader() is None and time.monotonic() < deadline:
                if self._stop.wait(0.05):
                    return

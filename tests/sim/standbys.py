"""A service world with those who follow it: trackers on any replica, and service groups.

Replicas keep a short history in some worlds and clients a short buffer, so that the ways out of
both are taken often.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from raftckpt import limits
from raftckpt.client.roles import RoleInbox
from raftckpt.model import assignments
from raftckpt.model.sessions import Session
from raftckpt.node.liveness import Liveness
from raftckpt.server.history import History, Trail
from tests.sim.components import GroupTruth, Operator, SimComponent
from tests.sim.process import Process
from tests.sim.service import ReplicaProcess, ServiceWorld
from tests.sim.trackers import SimTracker, WatchedTracking

SWEEP_S: Final = 0.5
_CUT_OFF_AT_S: Final = 4.0
_CUT_OFF_S: Final = 7.0
_FRESH_S: Final = 0.01
_STANDSTILLS_AT_S: Final = (14.0, 24.0, 34.0)
_SILENCES_S: Final = 42.0
"""Until the last of them is over."""
_STANDSTILL_S: Final = 6.0
"""Longer than a session lives in silence (4 s); each begins when the one before is over."""


class StandbyProcess(ReplicaProcess):
    """A replica whose trackers are watched, with the listener's sweeper."""

    world: StandbyWorld

    def make_machine(self, build: Callable[[Any], Any]) -> tuple[Any, Any]:
        made = super().make_machine(build)
        tracking = self.listener.tracking
        tracking.__class__ = WatchedTracking
        tracking.world, tracking.name = self.world, self.name
        if self.world.history_changes:
            tracking.history._changes_max = self.world.history_changes
        self.world.queue.after(SWEEP_S, self._sweep, self.incarnation)
        return made

    def _sweep(self, incarnation: int) -> None:
        if self.up and incarnation == self.incarnation:
            if not self.paused:
                self.guarded(self.listener._sweep)
            self.world.queue.after(SWEEP_S, self._sweep, incarnation)


def _skipped_change() -> tuple[Any, str, Any]:
    """A trail forgets every fortieth change."""
    append, seen = Trail.append, [0]

    def forgetful(self: Trail, change: Any) -> None:
        seen[0] += 1
        if seen[0] % 40:
            append(self, change)

    return Trail, "append", forgetful


def _history_across_images() -> tuple[Any, str, Any]:
    """A replica whose state was replaced goes on as if nothing had been left out."""

    def reset(self: History, revision: int) -> None:
        self.revision = revision

    return History, "reset", reset


def _no_takeover_revision() -> tuple[Any, str, Any]:
    """Who takes over is told of too old a revision."""
    give = assignments._give

    def forgetful(state: Any, group: Any, member: Any, ha_state: int, reason: str) -> None:
        give(state, group, member, ha_state, reason)
        member.revision = 0

    return assignments, "_give", forgetful


def _fence_off() -> tuple[Any, str, Any]:
    """Whoever was deposed goes on writing through the handles it has."""
    return Session, "fence", lambda self: setattr(self, "fences", self.fences + 1)


def _gap_not_given() -> tuple[Any, str, Any]:
    """A leader that stood still holds that against those it could not hear."""
    return Liveness, "stood_still", lambda self, gap, now: None


def _margin_missing() -> tuple[Any, str, Any]:
    """Components stop working when their session may be over, not before."""
    return RoleInbox, "watch", lambda self, margin: setattr(self, "margin", 0.0)


def _isolated_not_told() -> tuple[Any, str, Any]:
    """Nobody tells components that no leader is heard from."""
    return RoleInbox, "isolate", lambda self: None


PLANTS: Final[dict[str, Callable[[], tuple[Any, str, Any]]]] = {
    "trackers miss a change": _skipped_change,
    "history across images": _history_across_images,
    "takeover without a revision": _no_takeover_revision,
    "fence off": _fence_off,
}
"""Planted bugs that this world must find."""

SILENCE_PLANTS: Final[dict[str, Callable[[], tuple[Any, str, Any]]]] = {
    "gap not given": _gap_not_given,
    "margin missing": _margin_missing,
    "isolated not told": _isolated_not_told,
}
"""Those that it must find when components are cut off and everybody stands still."""


class StandbyWorld(ServiceWorld):
    """Replicas, their clients, trackers and components, under the same faults.

    With ``silences`` instead: clocks of components run up to a hundredth fast or slow, one that
    works is cut off, and later everybody stands still, for longer than a session may be silent.
    (Operators and health checks would move its role before.)
    """

    process_class = StandbyProcess

    def __init__(
        self,
        seed: int,
        *,
        trackers: int | None = None,
        service_groups: int | None = None,
        silences: bool = False,
        sabotage: str = "",
        **options: Any,
    ) -> None:
        self.silences = silences
        self._plant = (PLANTS | SILENCE_PLANTS).get(sabotage)
        super().__init__(seed, sabotage="" if self._plant else sabotage, **options)
        rng = self._tracker_rng = random.Random(f"{seed}/trackers")
        self.truth: GroupTruth = GroupTruth(self)
        self.history_changes = rng.choice((0, 0, 20, 100))
        self._buffer_changes = rng.choice((8, 64, limits.TRACKER_BUFFER_CHANGES_MAX))
        self._tracker_count = trackers or rng.choice((2, 5))
        self.trackers: list[SimTracker] = []
        self.components: list[SimComponent] = []
        self._standstills: list[tuple[float, float]] = []
        self.group_names = [
            f"g{i}"
            for i in range(rng.choice((0, 1, 3)) if service_groups is None else service_groups)
        ]
        self._group_sizes = [rng.randint(2, 4) for _ in self.group_names]

    @contextmanager
    def _library(self) -> Iterator[None]:
        places = [(limits, "TRACKER_BUFFER_CHANGES_MAX", self._buffer_changes)]
        if self._plant is not None:
            places.append(self._plant())
        former = [getattr(owner, name) for owner, name, _ in places]
        for owner, name, value in places:
            setattr(owner, name, value)
        try:
            with super()._library():
                yield
        finally:
            for (owner, name, _), value in zip(places, former, strict=True):
                setattr(owner, name, value)

    def load(self) -> None:
        super().load()
        for i in range(self._tracker_count):
            self.trackers.append(SimTracker(self, f"t{i}"))
        for group, size in zip(self.group_names, self._group_sizes, strict=True):
            for i in range(size):
                component = SimComponent(self, f"{group}c{i}", group)
                self.clients.append(component)
                self.components.append(component)
                self.trackers.append(component.follower)
        if self.group_names and not self.silences:
            self.clients.append(Operator(self, "operator"))
        if self.silences:
            self.queue.at(_CUT_OFF_AT_S, self._cut_off)
            for at in _STANDSTILLS_AT_S:
                self.queue.at(at, self._stand_still)
        else:
            self._tracker_faults()

    def _client_faults(self) -> None:
        if not self.silences:
            super()._client_faults()

    def _cut_off(self) -> None:
        """No replica hears from a component that works, or it from them; nothing tells it.

        It begins just after a sign of life was answered: then its margin is all that is left.
        """
        for each in self.components:
            if each.working and not each.frozen and each.proven_for() < _FRESH_S:
                each.cut_off(_CUT_OFF_S)
                return
        self.queue.after(_FRESH_S / 2, self._cut_off)

    def _stand_still(self) -> None:
        """Everybody is stopped (the host was paused), and goes on at the same time."""
        up = [process for process in self.processes.values() if process.up and not process.paused]
        if len(up) < len(self.processes):
            return
        self.checks.sometimes["everybody stood still"] += 1
        self.note("everybody stands still")
        self._standstills.append((self.queue.now, self.queue.now + _STANDSTILL_S))
        for client in self.clients:
            client.freeze(_STANDSTILL_S)
        for process in up:
            process.pause()
            self.queue.after(_STANDSTILL_S, self._go_on, process, process.incarnation)

    def _go_on(self, process: Process, incarnation: int) -> None:
        if process.up and process.paused and process.incarnation == incarnation:
            process.resume()

    def stood_still_since(self, at: float) -> float:
        """For how long everybody stood still since then."""
        now = self.queue.now
        spans = ((max(at, begin), min(now, end)) for begin, end in self._standstills)
        return sum(max(0.0, end - begin) for begin, end in spans)

    def _tracker_faults(self) -> None:
        rng = self._tracker_rng
        if not (self.faults.active or not self.queue.now):
            return
        self.queue.after(rng.expovariate(1.5), self._tracker_faults)
        tracker = rng.choice(self.trackers)
        dice = rng.random()
        if dice < 0.1:
            tracker.die()
        elif dice < 0.35:
            tracker.freeze(rng.choice((0.3, 2.0, 6.0)))
        elif dice < 0.75:
            tracker.reset()
        else:
            cut = tracker.name, rng.choice(sorted(self.processes))
            self.client_cuts.add(cut)
            self.queue.after(rng.expovariate(1.0), self.client_cuts.discard, cut)

    def settle(self) -> None:
        for tracker in self.trackers:
            tracker.hurry()
        super().settle()

    def leader_elected(self, process: Process) -> None:
        self.checks.sometimes["leaders"] += 1

    def final(self) -> None:
        super().final()
        self.truth.groups_final()
        for tracker in self.trackers:
            tracker.final()


class SilentWorld(StandbyWorld):
    """Calm but for silences: somebody who works is cut off, later everybody stands still."""

    def __init__(
        self, seed: int, *, seconds: float, sabotage: str = "", echo: bool = False
    ) -> None:
        super().__init__(
            seed,
            seconds=max(seconds, _SILENCES_S),
            sabotage=sabotage,
            echo=echo,
            service_groups=1,
            trackers=1,
            clients=1,
            size=3,
            founded=True,
            families=set(),
            silences=True,
        )

"""Breaks of which a component hears late or never: what it makes of them, and what the judge asks.

A connection that is cut off breaks for its replica alone, which gives the session its grace from
then on. Word of it reaches the component when it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from raftckpt.client.core import ClientCore
from tests.sim.checks import Violation
from tests.sim.clients import GRACE_S, Break
from tests.sim.components import SimComponent
from tests.sim.standbys import StandbyWorld

INVARIANT = "who is silent has stopped"


class Cables:
    """A hand at the cables of whoever is active, in a calm world with one service group."""

    def __init__(self) -> None:
        self.world = StandbyWorld(
            1,
            families=set(),
            size=3,
            founded=True,
            clients=1,
            trackers=1,
            service_groups=1,
            silences=True,  # nothing else moves roles, and these begin later
        )

    def until(self, condition: Callable[[], bool], within: float) -> None:
        end = self.world.queue.now + within
        while not condition():
            assert self.world.queue.now < end, "\n".join(list(self.world.trace.tail)[-60:])
            self.world.advance(0.001)

    @property
    def took_over(self) -> int:
        return self.world.checks.sometimes["took over from the silent"]

    def active(self) -> SimComponent:
        """Who works, and has got writes committed."""
        components = self.world.components
        self.until(lambda: any(each.working for each in components), 2.0)
        self.world.advance(0.3)
        (active,) = (each for each in components if each.working)
        return active

    def cut(self, component: SimComponent) -> None:
        self.world.client_cuts.update((component.name, node) for node in self.world.processes)

    def broken(self) -> tuple[SimComponent, Break]:
        """The active one is cut off, and then its connection breaks for the replica."""
        active = self.active()
        self.cut(active)
        self.world.advance(0.3)
        pipe = active.connection
        assert pipe is not None
        active.reset(pipe)
        (broke,) = active.breaks
        return active, broke

    def heard(self, component: SimComponent, broke: Break, after: float) -> None:
        """Word of the break gets through after so many seconds, and nothing else."""
        self.world.advance(after)
        self.world.client_cuts.clear()
        self.until(lambda: broke.heard_at < float("inf"), 0.1)
        self.cut(component)


@contextmanager
def stage() -> Iterator[Cables]:
    built = Cables()
    with built.world._library():
        built.world.begin()
        built.world.load()
        yield built


def word_comes(s: Cables, after: float) -> None:
    """Word of the break comes after so many seconds; then another one takes over."""
    active, broke = s.broken()
    s.heard(active, broke, after)
    s.until(lambda: bool(s.took_over), 1.0)


def no_word_comes(s: Cables, *, told: bool = False) -> SimComponent:
    """Another one takes over; the judge takes it for ``told`` of the break."""
    active, broke = s.broken()
    if told:
        broke.heard_at = broke.at
    s.until(lambda: bool(s.took_over), 2.0)
    return active


@pytest.mark.parametrize("after", [0.6, 0.8])
def test_a_break_that_is_heard_of_late_counts_from_the_silence_before(after: float) -> None:
    with stage() as s:
        active, broke = s.broken()
        s.heard(active, broke, after)
        s.until(lambda: not active.working, 0.05)
        assert s.world.queue.now < broke.at + GRACE_S
        assert not s.took_over
        s.until(lambda: bool(s.took_over), 1.0)
        assert not s.world.checks.sometimes["breaks that only the replica saw"]
        assert s.world.checks.violation is None


def test_who_counts_from_when_it_heard_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientCore, "_silent_since", lambda self: float("inf"))
    with stage() as s, pytest.raises(Violation, match=INVARIANT):
        word_comes(s, 0.8)


def test_a_break_that_only_the_replica_saw_is_left_to_the_fence() -> None:
    with stage() as s:
        active = no_word_comes(s)
        assert active.working
        assert s.world.checks.sometimes["breaks that only the replica saw"] == 1
        s.world.client_cuts.clear()
        s.until(lambda: active.core.lost is not None, 0.2)
        assert s.world.checks.violation is None


def test_who_was_told_of_the_break_has_no_excuse() -> None:
    with stage() as s, pytest.raises(Violation, match=INVARIANT):
        no_word_comes(s, told=True)

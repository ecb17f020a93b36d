"""Edges that could move without a test noticing: found by planting mutants."""

from __future__ import annotations

from raftckpt.client.changes import Change
from tests.unit.client import test_tracking
from tests.unit.client.scripted import Script


def test_a_change_of_a_section_unlinks_nothing() -> None:
    assert not Change("overwritten", 7).unlinked


def test_what_was_given_up_before_it_could_be_sent_is_never_sent() -> None:
    script = Script()
    script.ready()
    script.lost()
    given_up, kept = script.put(b"given up"), script.put(b"kept")
    script.core.cancel(given_up, script.now)
    script.advance(1.0)
    script.attach()
    assert [message[6] for message in script.sent()] == [b"kept"]
    assert not kept.done


def test_a_tracker_rests_from_the_moment_it_lost_its_connection() -> None:
    script = test_tracking.Script(test_tracking.make(endpoints="h:1"))
    for _ in range(2):
        assert script.core.target() is not None
        script.now += 0.9
        script.cut()
        begun = script.now
        while script.core.target() is None:
            script.advance(0.01)
        assert script.now > begun + 0.01

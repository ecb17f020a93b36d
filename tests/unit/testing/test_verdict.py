"""The verdict of the demo must be able to fail: planted losses, doubles and holes."""

from __future__ import annotations

import pytest

from raftckpt.testing.csa103.verdict import (
    Acknowledged,
    Begun,
    Event,
    Found,
    Killed,
    judge,
)


class Story:
    """Writes a history with a clock of its own, one microsecond per event."""

    def __init__(self) -> None:
        self.now = 0
        self.events: list[Event] = []

    def add(self, kind, *fields) -> Story:
        self.now += 1000
        self.events.append(kind(self.now, *fields))
        return self

    def found(self, who: str, value: int | None) -> Story:
        return self.add(Found, who, value)

    def begun(self, who: str, number: int) -> Story:
        return self.add(Begun, who, number)

    def count(self, who: str, first: int, last: int) -> Story:
        for number in range(first, last + 1):
            self.begun(who, number).add(Acknowledged, who, number)
        return self

    def killed(self, kind: str = "active", what: str = "A") -> Story:
        return self.add(Killed, kind, what)

    def judge(self):
        return judge(self.events)


def test_takeover_after_last_acknowledged_is_ok() -> None:
    story = Story().found("A", None).count("A", 0, 5).killed()
    judgement = story.found("B", 5).count("B", 6, 9).found("final", 9).judge()
    assert judgement.problems == []
    assert judgement.verdict == "ok"
    assert judgement.written == 10


def test_takeover_after_number_in_flight_is_ok() -> None:
    story = Story().found("A", None).count("A", 0, 5).begun("A", 6).killed()
    assert story.found("B", 6).count("B", 7, 9).found("final", 9).judge().verdict == "ok"


def test_number_in_flight_may_also_be_missing() -> None:
    story = Story().found("A", None).count("A", 0, 5).begun("A", 6).killed()
    assert story.found("B", 5).count("B", 6, 9).found("final", 9).judge().verdict == "ok"


def test_first_number_in_flight_may_be_missing_altogether() -> None:
    story = Story().found("A", None).begun("A", 0).killed()
    assert story.found("B", None).count("B", 0, 3).found("final", 3).judge().verdict == "ok"


def test_gap_starts_at_the_kill_and_ends_at_a_number_begun_after_it() -> None:
    story = Story().found("A", None).count("A", 0, 2).begun("A", 3).killed("leader", "n1")
    story.add(Acknowledged, "A", 3)  # was on its way: does not count
    failover = story.count("A", 4, 4).found("final", 4).judge().failovers[0]
    assert failover.gap_ns == 3000
    assert (failover.last_before, failover.first_after) == (2, 4)


@pytest.mark.parametrize(
    ("value", "word"), [(4, "lost"), (None, "lost"), (6, "invented"), (700, "invented")]
)
def test_wrong_value_after_takeover(value: int | None, word: str) -> None:
    story = Story().found("A", None).count("A", 0, 5).killed().found("B", value)
    after = 0 if value is None else value + 1
    judgement = story.count("B", after, after + 3).found("final", after + 3).judge()
    assert judgement.verdict == "lost"
    assert judgement.problems[0].startswith(word)


def test_value_beyond_the_one_in_flight() -> None:
    story = Story().found("A", None).count("A", 0, 5).begun("A", 6).killed()
    assert story.found("B", 7).count("B", 8, 9).found("final", 9).judge().verdict == "lost"


def test_lost_number_seen_only_by_the_final_read() -> None:
    judgement = Story().found("A", None).count("A", 0, 5).found("final", 4).judge()
    assert judgement.problems[0].startswith("lost")


def test_duplicate_number() -> None:
    story = Story().found("A", None).count("A", 0, 5).killed().found("B", 5)
    judgement = story.count("B", 5, 8).found("final", 8).judge()
    assert judgement.problems[0].startswith("duplicate")


def test_hole() -> None:
    story = Story().found("A", None).count("A", 0, 5).killed().found("B", 5)
    judgement = story.count("B", 7, 8).found("final", 8).judge()
    assert judgement.problems[0].startswith("hole")


def test_former_active_that_goes_on_writing() -> None:
    story = Story().found("A", None).count("A", 0, 5).found("B", 5).count("A", 6, 6)
    assert "without being active" in story.found("final", 6).judge().problems[0]


def test_acknowledgement_of_another_number() -> None:
    story = Story().found("A", None).begun("A", 0).add(Acknowledged, "A", 1)
    assert story.found("final", 1).judge().verdict == "lost"


def test_nothing_after_a_kill_is_no_success() -> None:
    story = Story().found("A", None).count("A", 0, 5).killed().found("final", 5)
    judgement = story.judge()
    assert judgement.verdict == "lost"
    assert judgement.failovers[0].gap_ns is None


def test_recovery_from_a_later_kill_does_not_excuse_an_earlier_one() -> None:
    story = Story().found("A", None).count("A", 0, 5).killed().killed("leader", "n1")
    judgement = story.count("A", 6, 7).found("final", 7).judge()
    assert [failover.gap_ns is None for failover in judgement.failovers] == [True, False]
    assert judgement.verdict == "lost"


@pytest.mark.parametrize("history", [[], [Begun(1, "A", 0)], [Found(1, "A", None)]])
def test_history_that_proves_nothing(history: list[Event]) -> None:
    assert judge(history).verdict == "lost"

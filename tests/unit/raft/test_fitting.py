"""The append filter: whatever arrives, nothing committed is truncated and nothing false is said."""

from __future__ import annotations

import itertools
import random

import pytest

from raftckpt.raft.fitting import Contradicts, fit
from raftckpt.raft.messages import KINDS, Append


def entry(index, term):
    return (f"{index}/{term}".encode(), index, term)


def append(prev, prev_term, terms, *, term=9, commit=0):
    entries = [entry(prev + 1 + i, t) for i, t in enumerate(terms)]
    return Append(KINDS[Append], term, 1, commit, prev, prev_term, entries)


def log_of(terms, first=1):
    return [entry(first + i, t) for i, t in enumerate(terms)]


def stock_follower(log, fitted):
    """What PySyncObj 0.3.17 does with an append that it delivers."""
    first = log[0][1]
    if fitted.prev_index > log[-1][1] or log[fitted.prev_index - first][2] != fitted.prev_term:
        return None
    return log[: fitted.prev_index + 1 - first] + list(fitted.entries)


def test_late_heartbeat_truncates_nothing():
    log = log_of([0, 1, 1, 1])
    fitted = fit(log, 2, append(2, 1, [], commit=2))
    assert stock_follower(log, fitted) == log
    assert fitted.matched == 2  # and the ack claims no more than the append showed
    assert fitted.commit == 2


def test_late_partial_append_truncates_nothing():
    log = log_of([0, 1, 1, 1, 1])
    fitted = fit(log, 1, append(1, 0, [1, 1], commit=5))
    assert stock_follower(log, fitted) == log
    assert fitted.matched == 3
    assert fitted.commit == 3


def test_conflicting_tail_is_replaced():
    log = log_of([0, 1, 1, 1])
    fitted = fit(log, 2, append(2, 1, [2]))
    assert stock_follower(log, fitted) == [*log_of([0, 1]), entry(3, 2)]
    assert fitted.matched == 3


def test_append_that_begins_below_a_compacted_log():
    log = log_of([3, 3, 3], first=10)
    fitted = fit(log, 11, append(7, 2, [3, 3, 3, 3, 3, 3], commit=13))
    assert stock_follower(log, fitted) == [*log, entry(13, 3)]
    assert fitted.matched == 13


def test_append_that_ends_below_a_compacted_log():
    log = log_of([3, 3, 3], first=10)
    fitted = fit(log, 11, append(7, 2, [3]))
    assert stock_follower(log, fitted) == log
    assert fitted.matched == 11


@pytest.mark.parametrize(("prev", "prev_term"), [(5, 1), (3, 2)])
def test_what_does_not_fit_is_left_to_be_refused(prev, prev_term):
    log = log_of([0, 1, 1, 1])
    fitted = fit(log, 1, append(prev, prev_term, [2]))
    assert fitted.matched is None
    assert stock_follower(log, fitted) is None


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (append(2, 2, []), (2, 1, 2)),
        (append(1, 0, [2]), (2, 1, 2)),
        (append(1, 1, [1]), (1, 0, 1)),
        (append(1, 0, [1, 3, 3]), (3, 1, 3)),
    ],
)
def test_what_contradicts_the_committed_is_told_and_not_taken(message, place):
    log = log_of([0, 1, 1])
    with pytest.raises(Contradicts) as caught:
        fit(log, 3, message)
    assert (caught.value.index, caught.value.term, caught.value.their_term) == place
    assert log == log_of([0, 1, 1])


def test_a_difference_above_what_is_committed_contradicts_nothing():
    fitted = fit(log_of([0, 1, 1]), 2, append(2, 1, [2]))
    assert fitted.matched == 3


def test_random_legal_appends_keep_raft_s_promises():
    """A leader's log, a follower that shares a committed prefix, appends cut from anywhere."""
    rng = random.Random(1)
    seen = set()
    for _ in range(3000):
        shared = [0, *sorted(rng.choices(range(1, 4), k=rng.randint(0, 4)))]
        settled = rng.randint(1, len(shared))
        ours = shared + sorted(rng.choices(range(4, 6), k=rng.randint(0, 3)))
        theirs = shared + sorted(rng.choices(range(6, 8), k=rng.randint(0, 4)))
        full = log_of(ours)
        first = rng.randint(1, settled)
        log = full[first - 1 :]
        prev = rng.randint(1, len(theirs))
        count = rng.randint(0, len(theirs) - prev)
        commit = rng.randint(settled, len(shared))
        message = append(prev, theirs[prev - 1], theirs[prev : prev + count], commit=commit)
        fitted = fit(log, settled, message)
        after = stock_follower(log, fitted)
        if fitted.matched is None:
            assert after is None
            seen.add("refused")
            continue
        assert after is not None
        assert after[: settled + 1 - first] == log[: settled + 1 - first]
        leader = log_of(theirs)
        held = {e[1]: e for e in after}
        for index in range(first, fitted.matched + 1):
            assert held[index] == leader[index - 1], "claimed a match that is none"
        assert fitted.commit <= fitted.matched
        if len(after) < len(log):
            seen.add("truncated")
            lost = log[len(after) :]
            assert all(e not in leader for e in lost) or any(
                a != b for a, b in itertools.zip_longest(after, log)
            )
        seen.add("kept" if after == log else "grew")
    assert seen >= {"refused", "kept", "grew"}

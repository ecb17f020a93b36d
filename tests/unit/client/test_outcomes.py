"""Refusals that this version does not know are told as they are."""

from __future__ import annotations

from raftckpt.client import operations, outcomes
from raftckpt.client.calls import Call
from raftckpt.errors import Library, NotExist


def call() -> Call:
    return operations.unlink("c")


def test_a_reason_with_braces_of_a_newer_replica() -> None:
    error = outcomes.refused(call(), 12, "gone {where} {0}", None, None, True)
    assert isinstance(error, NotExist)
    assert "gone {where} {0}" in str(error)
    assert error.definite


def test_the_log_of_the_replica_tells_more_of_an_unknown_failure() -> None:
    error = outcomes.refused(call(), 2, "apply", None, 3, True)
    assert isinstance(error, Library)
    assert "(vector element 3); the replica's log may tell more" in str(error)


def test_what_is_not_recorded_leaves_an_earlier_copy_in_doubt() -> None:
    doubtful = call()
    doubtful.uncertain = True
    assert not outcomes.refused(doubtful, 7, "schema", "x", None, True).definite
    assert outcomes.refused(doubtful, 12, "checkpoint_missing", "c", None, True).definite


def test_seconds_are_told_as_they_were_asked_for() -> None:
    late = call()
    late.started, late.deadline = 7.00005, 12.0
    assert "within 5 s" in str(outcomes.at_deadline(late, reached=True, where="nobody"))

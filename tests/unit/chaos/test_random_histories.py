"""Histories of executions that are right by construction are accepted; spoiled ones are not."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from raftckpt.chaos.history import ABSENT, Kind, Operation, Outcome, SectionPart
from raftckpt.chaos.linearizability import judge
from tests.unit.chaos.histories import Execution, changed

seeds = st.integers(0, 1 << 32)
steps = st.integers(1, 40)


def accepted(operations: list[Operation]) -> bool:
    judgement = judge(operations)
    assert judgement.undecided == []
    return judgement.linearizable


def spoiled(execution: Execution, at: int, **more: object) -> list[Operation]:
    operations = list(execution.book.operations)
    operations[at] = changed(operations[at], **more)
    return operations


@given(seeds, steps)
@settings(deadline=None, max_examples=150)
def test_what_everybody_was_told_is_accepted(seed, count) -> None:
    judgement = judge(Execution(seed, count).book.operations)
    assert judgement.linearizable, "\n".join(map(str, judgement.violations))


@given(seeds, steps, st.sampled_from([0.1, 0.3]), st.sampled_from([0.0, 0.2]))
@settings(deadline=None, max_examples=150)
def test_troubled_executions_are_accepted(seed, count, trouble, quiet) -> None:
    execution = Execution(seed, count, trouble=trouble, quiet=quiet)
    judgement = judge(execution.book.operations)
    assert judgement.undecided == []
    assert judgement.linearizable, "\n".join(map(str, judgement.violations))


@given(seeds, st.integers(1, 30), st.sampled_from([0.0, 0.1]), st.sampled_from([0.0, 0.1]))
@settings(deadline=None, max_examples=200)
def test_appends_conditions_and_transactions_are_accepted(seed, count, trouble, quiet) -> None:
    """Nothing replaces what was appended, so many of unknown outcome are as many states as orders.

    Hence fewer of them than above: with three in ten the search is not over in minutes.
    """
    execution = Execution(seed, count, trouble=trouble, quiet=quiet, conditions=True)
    judgement = judge(execution.book.operations)
    assert judgement.undecided == []
    assert judgement.linearizable, "\n".join(map(str, judgement.violations))


@given(seeds, st.integers(10, 40), st.data())
@settings(deadline=None, max_examples=100)
def test_another_offset_is_rejected(seed, count, data) -> None:
    execution = Execution(seed, count, conditions=True)
    told = [op for op in execution.book.operations if any(at is not None for at in op.results)]
    assume(told)
    append = data.draw(st.sampled_from(told))
    more = data.draw(st.sampled_from([-1, 1, 2]))
    results = tuple(None if at is None else at + more for at in append.results)
    assert not accepted(spoiled(execution, append.number, results=results))


@given(seeds, st.integers(10, 40), st.data())
@settings(deadline=None, max_examples=100)
def test_another_revision_of_a_section_is_rejected(seed, count, data) -> None:
    """Of a condition that held, of one that did not (what was found), and of a versioned read."""
    execution = Execution(seed, count, conditions=True)
    told = [
        op
        for op in execution.book.operations
        if op.reason == "conflict"
        or (op.outcome is Outcome.OK and any(part.revision is not None for part in op.parts))
    ]
    assume(told)
    op = data.draw(st.sampled_from(told))
    if op.reason == "conflict":  # what the section never had: it may have been told of any other
        section = op.parts[op.index or 0].section
        had = {
            other.revision
            for other in execution.book.operations
            if any(part.section == section for part in other.parts)
        }
        never = st.integers(1, execution.revision).filter(lambda at: at not in had)
        assume(len(had) < execution.revision)
        assert not accepted(spoiled(execution, op.number, value=data.draw(never)))
        return
    at = next(at for at, part in enumerate(op.parts) if part.revision is not None)
    known = op.parts[at].revision
    other = data.draw(st.integers(0, execution.revision).filter(lambda at: at != known))
    parts = (*op.parts[:at], op.parts[at]._replace(revision=other), *op.parts[at + 1 :])
    assert not accepted(spoiled(execution, op.number, parts=parts))


@given(seeds, st.integers(10, 40), st.data())
@settings(deadline=None, max_examples=100)
def test_a_part_of_a_transaction_that_is_missing_is_rejected(seed, count, data) -> None:
    """Its content is looked at by what reads the section at that revision."""
    execution = Execution(seed, count, conditions=True)
    operations = execution.book.operations
    done = [op for op in operations if op.kind is Kind.TRANSACTION and op.changes]
    assume(done)
    op = data.draw(st.sampled_from(done))
    at = data.draw(st.integers(0, len(op.parts) - 1))
    part = op.parts[at]
    assume(part.kind is not Kind.DELETE)
    assume(all(other.section != part.section for other in op.parts[at + 1 :]))
    read = changed(
        op,
        number=len(operations),
        session="reader",
        kind=Kind.READ,
        parts=(SectionPart(part.section, 0, b"without it"),),
        results=(),
    )
    assert not accepted([*operations, read])


@given(seeds, steps, st.data())
@settings(deadline=None, max_examples=100)
def test_content_that_nobody_wrote_is_rejected(seed, count, data) -> None:
    execution = Execution(seed, count, trouble=0.1)
    reads = [op for op in execution.book.operations if op.kind is Kind.READ]
    assume(reads)
    read = data.draw(st.sampled_from(reads))
    forged = (SectionPart(read.parts[0].section, 0, b"forged"), *read.parts[1:])
    assert not accepted(spoiled(execution, read.number, parts=forged))


@given(seeds, steps, st.data())
@settings(deadline=None, max_examples=100)
def test_another_content_is_rejected_when_nothing_is_unknown(seed, count, data) -> None:
    execution = Execution(seed, count)
    reads = [op for op in execution.book.operations if op.kind is Kind.READ]
    assume(reads)
    read = data.draw(st.sampled_from(reads))
    first, *rest = read.parts
    others = [b"v1", b"v2", ABSENT]
    seen = data.draw(st.sampled_from([each for each in others if each != first.data]))
    parts = (SectionPart(first.section, 0, seen), *rest)
    assert not accepted(spoiled(execution, read.number, parts=parts))


@given(seeds, steps, st.data())
@settings(deadline=None, max_examples=100)
def test_a_change_that_is_taken_back_is_rejected(seed, count, data) -> None:
    execution = Execution(seed, count)
    changes = [op for op in execution.book.operations if op.changes and op.kind is not Kind.OPEN]
    assume(len(changes) > 1)
    change = data.draw(st.sampled_from(changes[:-1]))  # the last one's revision would be unused
    assert not accepted(
        spoiled(execution, change.number, outcome=Outcome.REFUSED, reason="limit", revision=None)
    )


@given(seeds, steps, st.data())
@settings(deadline=None, max_examples=100)
def test_one_revision_too_many_is_rejected(seed, count, data) -> None:
    execution = Execution(seed, count)
    changes = [op for op in execution.book.operations if op.changes and op.kind is not Kind.OPEN]
    assume(changes)
    at = data.draw(st.sampled_from(changes)).revision
    operations = [
        changed(op, revision=op.revision + 1)
        if op.revision is not None and op.revision >= at
        else op
        for op in execution.book.operations
    ]
    assert not accepted(operations)


@given(seeds, st.integers(5, 40), st.data())
@settings(deadline=None, max_examples=100)
def test_swapped_changes_that_did_not_overlap_are_rejected(seed, count, data) -> None:
    execution = Execution(seed, count)
    changes = [op for op in execution.book.operations if op.changes and op.kind is not Kind.OPEN]
    pairs = [
        (one, two)
        for one in changes
        for two in changes
        if one.returned is not None and one.returned < two.invoked
    ]
    assume(pairs)
    one, two = data.draw(st.sampled_from(pairs))
    operations = spoiled(execution, one.number, revision=two.revision)
    operations[two.number] = changed(two, revision=one.revision)
    assert not accepted(operations)


@given(seeds, st.integers(5, 40), st.data())
@settings(deadline=None, max_examples=100)
def test_a_read_of_the_state_before_is_rejected(seed, count, data) -> None:
    execution = Execution(seed, count, trouble=0.1)
    operations = execution.book.operations
    pairs = [
        (change, read)
        for change in operations
        if change.changes
        for read in operations
        if read.kind is Kind.READ and change.returned is not None
        if change.returned < read.invoked
    ]
    assume(pairs)
    change, read = data.draw(st.sampled_from(pairs))
    assert not accepted(spoiled(execution, read.number, revision=change.revision - 1))

"""The judge on histories known to be good and known to be bad: the classic kinds, by hand."""

from __future__ import annotations

import pytest

from raftckpt.chaos import search
from raftckpt.chaos.history import ABSENT, DIRECTORY, ContentDigest, Kind, Outcome, payload
from raftckpt.chaos.linearizability import judge
from raftckpt.chaos.order import CLOCK_SLACK_NS
from tests.unit.chaos.histories import UNIT, Book, changed


def good(book: Book) -> None:
    judgement = judge(book.operations)
    assert judgement.linearizable, "\n".join(map(str, judgement.violations))


def bad(book: Book, kind: str) -> str:
    judgement = judge(book.operations)
    assert not judgement.undecided
    told = "\n".join(map(str, judgement.violations))
    assert kind in told, told or "it was accepted"
    assert len(judgement.violations[0].lines) <= 8
    return told


@pytest.fixture
def book() -> Book:
    book = Book()
    book.open("c0", "name", UNIT, (0, 5), 1, made=True)
    return book


# --- good ------------------------------------------------------------------------------------


def test_nothing_at_all_is_fine() -> None:
    good(Book())


def test_sequential(book) -> None:
    book.read("a", (6, 7), 1, k=None)
    book.put("a", "k", "1", (10, 20), 2)
    book.read("b", (21, 22), 2, k="1")
    book.read_all("b", (23, 24), 2, k="1")

    good(book)


def test_overlapping_operations_may_take_either_order(book) -> None:
    book.put("a", "k", "1", (10, 50), 3)
    book.put("b", "k", "2", (20, 40), 2)
    book.read("c", (60, 70), 3, k="1")
    good(book)


def test_a_read_may_overtake_a_write_under_way(book) -> None:
    book.put("a", "k", "1", (10, 50), 2)
    book.read("b", (20, 30), 2, k="1")
    book.read("c", (15, 45), 1, k=None)
    good(book)


def test_unknown_write_may_have_happened_or_not(book) -> None:
    book.maybe("a", "k", "1", 10)
    book.maybe("b", "j", "1", 10)
    book.read("c", (20, 30), 2, k="1", j=None)
    good(book)


def test_unknown_write_may_come_late(book) -> None:
    book.maybe("a", "k", "late", 10)
    book.put("b", "k", "2", (20, 30), 2)
    book.read("c", (40, 50), 2, k="2")
    book.read("c", (60, 70), 3, k="late")
    good(book)


def test_unknown_partial_write_below_a_known_one(book) -> None:
    book.put("a", "k", "aaaaaa", (10, 20), 2)
    book.lost("b", Kind.WRITE, [("k", 0, b"bbbb")], 30)
    book.add("c", Kind.WRITE, [("k", 0, b"cc")], (40, 50), revision=4)
    book.read("d", (60, 70), 4, k="ccbbaa")
    good(book)


def test_vector_write_is_seen_whole(book) -> None:
    book.put("a", "j", "0", (10, 11), 2)
    book.put("a", "k", "0", (12, 13), 3)
    book.add("b", Kind.WRITE, [("j", 0, b"1"), ("k", 0, b"1")], (20, 30), revision=4)
    book.read("c", (21, 29), 3, j="0", k="0")
    book.read("c", (22, 29), 4, j="1", k="1")
    good(book)


def test_local_reads_may_be_old(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("a", "k", "2", (30, 40), 3)
    book.read("b", (50, 51), 2, replica="n2:1", k="1")
    book.read("b", (52, 53), 2, replica="n2:1", k="1")
    book.read("b", (54, 55), 3, replica="n2:1", k="2")
    good(book)


def test_different_replicas_may_go_back_and_forth(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.read("b", (30, 31), 2, replica="n1:1", k="1")
    book.read("b", (32, 33), 1, replica="n2:1", k=None)
    book.read("b", (34, 35), 1, replica="n1:2", k=None)  # restarted
    good(book)


def test_local_reads_under_way_together_may_answer_in_any_order(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.read("b", (30, 40), 2, replica="n1:1", k="1")
    book.read("c", (31, 39), 1, replica="n1:1", k=None)
    good(book)


def test_unknown_read_says_nothing(book) -> None:
    book.add("a", Kind.READ, [("k", 0, b"")], (10, None), outcome=Outcome.UNKNOWN)
    good(book)


def test_expiry(book) -> None:
    parts = [("k", 0, b"1")]
    book.add("a", Kind.CREATE, parts, (10, 20), revision=2, ttl_ns=CLOCK_SLACK_NS)
    book.read("b", (30, 40), 2, k="1")
    book.read("b", (50, 60), 3, k=None)
    good(book)


def _looks(book: Book, cycles: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Configurations looked at: of each section nobody knows whether it expired or was deleted."""
    for number in range(cycles):
        at, revision = (10 + number) * 10**9, 2 + 2 * number
        parts = [("k", 0, b"%d" % number)]
        lives = {"revision": revision, "ttl_ns": CLOCK_SLACK_NS}
        book.add("a", Kind.CREATE, parts, (at, at + 10), **lives)
        book.lost("b", Kind.DELETE, [("k",)], at + 20)
        book.read("c", (at + 10**8, at + 10**8 + 1), revision + 1, k=None)
    looked = 0
    add = search._Table.add

    def counted(table: search._Table, new: search._Configuration) -> bool:
        nonlocal looked
        looked += 1
        return add(table, new)

    with monkeypatch.context() as patched:
        patched.setattr(search._Table, "add", counted)
        good(book)
    return looked


def test_what_expired_long_ago_does_not_make_the_search_longer(monkeypatch) -> None:
    counts = []
    for cycles in (8, 16):
        book = Book()
        book.open("c0", "name", UNIT, (0, 5), 1, made=True)
        counts.append(_looks(book, cycles, monkeypatch))
    assert counts[1] < 6 * counts[0], counts  # 2**8 and more times before


def test_expiry_that_was_called_off(book) -> None:
    parts = [("k", 0, b"1")]
    book.add("a", Kind.CREATE, parts, (10, 20), revision=2, ttl_ns=10**9)
    book.add("a", Kind.EXPIRATION, [("k",)], (30, 40), revision=3)
    book.put("a", "k", "2", (10**10, 10**10 + 1), 4)
    book.read("b", (2 * 10**10, 2 * 10**10 + 1), 4, k="2")
    good(book)


def test_refusals_that_are_founded(book) -> None:
    book.refused("a", Kind.OVERWRITE, "k", "section_missing", (10, 20))
    book.put("a", "k", "1", (30, 40), 2)
    book.refused("b", Kind.CREATE, "k", "section_exists", (35, 60))
    book.add("a", Kind.DELETE, [("k",)], (50, 70), revision=3)
    book.refused("b", Kind.DELETE, "k", "section_missing", (65, 80))
    good(book)


def test_asynchronous_write_without_revision(book) -> None:
    book.put("a", "k", "1", (10, 20), None)
    book.read("b", (30, 40), 2, k="1")
    good(book)


def test_names_unlinked_and_made_again(book) -> None:
    book.open("c1", "name", UNIT, (10, 20), 1, made=False)
    book.add("c1", Kind.UNLINK, [("name",)], (30, 40), revision=2, unit=DIRECTORY)
    book.open("c2", "name", UNIT + 1, (45, 55), 3, made=True)
    book.read("c1", (60, 70), 3, k=None)  # by its old handle
    good(book)


def test_name_made_by_an_open_without_answer(book) -> None:
    parts = [("other", 0, b"")]
    book.lost("c1", Kind.OPEN, parts, 10, unit=DIRECTORY, value=1)
    book.open("c2", "other", UNIT + 1, (20, 30), 2, made=False)
    book.open("c3", "other", UNIT + 1, (40, 50), 2, made=False)
    good(book)


def test_dropping_an_unlinked_checkpoint_takes_a_revision(book) -> None:
    book.add("c1", Kind.UNLINK, [("name",)], (30, 40), revision=2, unit=DIRECTORY)
    book.open("c2", "name", UNIT + 1, (45, 55), 4, made=True)
    good(book)


def test_fenced_writers(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.add("b", Kind.FENCE, [], (30, 40), revision=3, value=1)
    book.refused("a", Kind.PUT, "k", "fenced", (35, 50))
    book.put("b", "k", "2", (60, 70), 4)
    book.maybe("a", "k", "3", 32)
    book.read("c", (80, 90), 4, k="2")
    good(book)


def test_owner_that_sets_itself_again_changes_nothing(book) -> None:
    book.add("b", Kind.FENCE, [], (30, 40), revision=2, value=1)
    book.put("b", "k", "1", (50, 60), 3)
    book.put("c", "j", "x", (60, 65), 4)  # refused by nothing: another checkpoint
    book.operations[-1] = changed(book.operations[-1], unit=UNIT + 1)
    book.add("b", Kind.FENCE, [], (70, 80), revision=3, value=1)
    good(book)


def test_many_refusals_at_once_are_decided_fast(book) -> None:
    book.add("b", Kind.FENCE, [], (30, 40), revision=2, value=1)
    for number in range(200):
        book.refused("a", Kind.PUT, "k", "fenced", (35 + number % 7, 400 - number))
        book.put("b", "j", f"{number}", (50 + 2 * number, 51 + 2 * number), 3 + number)
    good(book)


def test_refusals_that_wait_for_different_states(book) -> None:
    """The first can only be explained after the next set, the second only before it."""
    book.add("b", Kind.FENCE, [], (30, 40), revision=2, value=1)
    book.put("d", "j", "1", (45, 46), 3)
    book.put("d", "j", "2", (55, 56), 4)
    book.operations[-2:] = [changed(op, unit=UNIT + 1) for op in book.operations[-2:]]
    book.refused("b", Kind.PUT, "k", "fenced", (50, 95))
    book.refused("c", Kind.PUT, "k", "fenced", (60, 70))
    book.add("c", Kind.FENCE, [], (80, 90), revision=5, value=2)
    book.put("c", "k", "1", (100, 110), 6)
    good(book)


def test_large_contents_are_compared_by_digest(book) -> None:
    big = payload("c1-1", 100_000)
    book.add("a", Kind.PUT, [("k", 0, big)], (10, 20), revision=2)
    book.add("a", Kind.WRITE, [("k", 50_000, b"xyz")], (30, 40), revision=3)
    seen = big[:50_000] + b"xyz" + big[50_003:]
    book.add("b", Kind.READ, [("k", 0, ContentDigest.of(seen))], (50, 60), revision=3)
    good(book)
    book.add("b", Kind.READ, [("k", 0, ContentDigest.of(big))], (70, 80), revision=3)
    bad(book, "wrong content")


# --- bad -------------------------------------------------------------------------------------


def test_stale_read(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("a", "k", "2", (30, 40), 3)
    book.read("b", (50, 60), 2, k="1")
    told = bad(book, "stale read")
    assert "'1'" in told
    assert "'2'" in told


def test_stale_content_under_a_new_revision(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("a", "k", "2", (30, 40), 3)
    book.read("b", (50, 60), 3, k="1")
    told = bad(book, "wrong content")
    assert "there could be: k = '2'" in told
    assert "what it saw was written by: a: put k = '1'" in told


def test_lost_update(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.read("b", (30, 40), 2, k=None)
    bad(book, "wrong content")


def test_lost_update_of_another_section_changes_nothing_here(book) -> None:
    book.put("a", "j", "1", (10, 20), 2)
    book.put("a", "k", "1", (30, 40), 3)
    book.read_all("b", (50, 60), 3, k="1")
    bad(book, "wrong content")


def test_two_changes_with_one_revision(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("b", "j", "1", (10, 20), 2)
    bad(book, "two changes with one revision")


def test_double_apply_brings_an_old_content_back(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("b", "k", "2", (30, 40), 3)
    book.put("b", "j", "x", (50, 60), 5)  # 4: the repeat of a's
    book.read("c", (70, 80), 5, k="1")
    bad(book, "wrong content")


def test_double_apply_that_changes_nothing_takes_a_revision(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("a", "k", "2", (30, 40), 4)
    told = bad(book, "something was applied twice")
    assert "3" in told


def test_read_of_a_refused_write(book) -> None:
    book.refused("a", Kind.PUT, "k", "limit", (10, 20))
    book.read("b", (30, 40), 1, k="refused-a")
    bad(book, "read of a refused write")


def test_read_of_what_nobody_wrote(book) -> None:
    book.maybe("a", "k", "1", 10)
    book.read("b", (30, 40), 2, k="other")
    bad(book, "wrong content")


def test_changes_against_real_time(book) -> None:
    book.put("a", "k", "1", (10, 20), 3)
    book.put("b", "k", "2", (30, 40), 2)
    bad(book, "changes in the wrong order")


def test_torn_vector_write(book) -> None:
    book.put("a", "j", "0", (10, 11), 2)
    book.put("a", "k", "0", (12, 13), 3)
    book.add("b", Kind.WRITE, [("j", 0, b"1"), ("k", 0, b"1")], (20, 30), revision=4)
    book.read("c", (35, 40), 4, j="1", k="0")
    bad(book, "wrong content")


def test_torn_vector_write_of_unknown_outcome(book) -> None:
    book.put("a", "j", "0", (10, 11), 2)
    book.put("a", "k", "0", (12, 13), 3)
    book.lost("b", Kind.WRITE, [("j", 0, b"1"), ("k", 0, b"1")], 20)
    book.read("c", (35, 40), 4, j="1", k="0")
    bad(book, "wrong content")


def test_torn_over_two_reads(book) -> None:
    book.put("a", "j", "0", (10, 11), 2)
    book.put("a", "k", "0", (12, 13), 3)
    book.lost("b", Kind.WRITE, [("j", 0, b"1"), ("k", 0, b"1")], 20)
    book.read("c", (35, 40), 4, j="1")
    book.read("c", (45, 50), 4, k="0")
    bad(book, "wrong content")


def test_read_from_the_future(book) -> None:
    book.read("b", (10, 20), 2, k="1")
    book.put("a", "k", "1", (30, 40), 2)
    bad(book, "read from the future")


def test_local_read_from_the_future(book) -> None:
    book.read("b", (10, 20), 2, replica="n1:1", k="1")
    book.put("a", "k", "1", (30, 40), 2)
    bad(book, "read from the future")


def test_unknown_write_cannot_be_seen_before_it_was_asked_for(book) -> None:
    book.read("b", (10, 20), 2, k="1")
    book.maybe("a", "k", "1", 30)
    bad(book, "wrong content")


def test_unknown_write_happens_at_most_once(book) -> None:
    book.maybe("a", "k", "1", 6)
    book.read("b", (10, 20), 2, k="1")
    book.put("c", "k", "2", (30, 40), 3)
    book.read("b", (50, 60), 4, k="1")
    bad(book, "wrong content")


def test_unknown_write_needs_a_free_revision(book) -> None:
    book.maybe("a", "k", "1", 6)
    book.put("c", "j", "2", (30, 40), 2)
    book.read("b", (50, 60), 2, k="1")
    bad(book, "wrong content")


def test_seen_then_gone(book) -> None:
    book.maybe("a", "k", "1", 6)
    book.read("b", (10, 20), 2, k="1")
    book.read("b", (30, 40), 2, k=None)
    bad(book, "wrong content")


def test_replica_that_goes_back(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.read("b", (30, 31), 2, replica="n1:1", k="1")
    book.read("b", (32, 33), 1, replica="n1:1", k=None)
    bad(book, "a replica went back")


def test_local_read_of_a_state_that_never_was(book) -> None:
    book.put("a", "j", "1", (10, 20), 2)
    book.put("a", "k", "1", (30, 40), 3)
    book.read("b", (50, 51), 3, replica="n1:1", j=None, k="1")
    bad(book, "wrong content")


def test_unfounded_refusals(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.refused("b", Kind.OVERWRITE, "k", "section_missing", (30, 40))
    bad(book, "unfounded refusal")


def test_unfounded_refusal_of_a_create(book) -> None:
    book.refused("b", Kind.CREATE, "k", "section_exists", (30, 40))
    book.put("a", "k", "1", (50, 60), 2)
    bad(book, "unfounded refusal")


def test_create_that_succeeds_twice(book) -> None:
    book.add("a", Kind.CREATE, [("k", 0, b"1")], (10, 20), revision=2)
    book.add("b", Kind.CREATE, [("k", 0, b"2")], (30, 40), revision=3)
    bad(book, "impossible change")


def test_expiry_too_early(book) -> None:
    parts = [("k", 0, b"1")]
    book.add("a", Kind.CREATE, parts, (10, 20), revision=2, ttl_ns=60 * 10**9)
    book.read("b", (50, 60), 3, k=None)
    bad(book, "wrong content")


def test_expiry_that_was_called_off_and_came(book) -> None:
    parts = [("k", 0, b"1")]
    book.add("a", Kind.CREATE, parts, (10, 20), revision=2, ttl_ns=10**9)
    book.add("a", Kind.EXPIRATION, [("k",)], (30, 40), revision=3)
    book.read("b", (10**10, 10**10 + 1), 4, k=None)
    bad(book, "wrong content")


def test_own_accepted_write_is_not_seen(book) -> None:
    book.add("a", Kind.PUT, [("k", 0, b"1")], (10, 60), revision=2, accepted=12)
    book.read("a", (20, 30), 1, k=None)
    bad(book, "stale read: against order of a session")


def test_acknowledged_write_without_revision_is_lost(book) -> None:
    book.put("a", "k", "1", (10, 20), None)
    book.read("b", (30, 40), 2, k=None)
    bad(book, "lost change")


def test_write_of_a_fenced_session(book) -> None:
    book.add("b", Kind.FENCE, [], (30, 40), revision=2, value=1)
    book.put("a", "k", "1", (50, 60), 3)
    bad(book, "impossible change")


def test_late_write_of_a_fenced_session(book) -> None:
    book.maybe("a", "k", "late", 10)
    book.add("b", Kind.FENCE, [], (30, 40), revision=2, value=1)
    book.put("b", "k", "2", (50, 60), 3)
    book.read("c", (70, 80), 4, k="late")
    bad(book, "wrong content")


def test_unfounded_fence(book) -> None:
    book.refused("a", Kind.PUT, "k", "fenced", (10, 20))
    book.add("b", Kind.FENCE, [], (30, 40), revision=2, value=1)
    bad(book, "unfounded refusal")


def test_two_owners_with_one_epoch(book) -> None:
    book.add("b", Kind.FENCE, [], (30, 40), revision=2, value=1)
    book.add("c", Kind.FENCE, [], (50, 60), revision=3, value=1)
    bad(book, "impossible change")


def test_former_owner_that_is_told_it_owns(book) -> None:
    book.add("b", Kind.FENCE, [], (30, 40), revision=2, value=1)
    book.add("c", Kind.FENCE, [], (50, 60), revision=3, value=2)
    book.add("b", Kind.FENCE, [], (70, 80), revision=3, value=1)
    bad(book, "unfounded refusal")


def test_name_that_leads_to_another_generation(book) -> None:
    book.open("c1", "name", UNIT + 1, (10, 20), 1, made=False)
    bad(book, "impossible change")


def test_unlinked_name_that_is_still_there(book) -> None:
    book.add("c1", Kind.UNLINK, [("name",)], (30, 40), revision=2, unit=DIRECTORY)
    book.open("c2", "name", UNIT, (45, 55), 2, made=False)
    bad(book, "impossible change")


def test_what_is_not_decided_is_not_fine(book) -> None:
    for number in range(60):
        book.lost("a", Kind.WRITE, [("k", number, b"%d" % (number % 10))], 6 + number)
    book.put("a", "k", "", (4, 5), 2)
    book.put("b", "j", "x", (200, 201), 100)
    book.read("b", (210, 220), 100, k="nothing like that")
    judgement = judge(book.operations, budget_s=0.05)
    assert judgement.undecided == [f"checkpoint {UNIT}: k"]
    assert not judgement.linearizable


def test_absent_is_no_content() -> None:
    assert repr(ABSENT) == "absent"

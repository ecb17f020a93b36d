"""The judge on appends, conditions and transactions: histories known to be good and to be bad."""

from __future__ import annotations

from typing import Any

import pytest

from raftckpt.chaos.history import Kind, Outcome, SectionPart
from tests.unit.chaos.histories import UNIT, Book
from tests.unit.chaos.test_linearizability import bad, good


class Conditions(Book):
    """Parts are (section, data) or (section, data, revision); transactions name what each does."""

    def append(self, who: str, data: str, at: Any, revision: int | None, offset: int) -> None:
        parts = [("k", 0, data.encode())]
        self.add(who, Kind.APPEND, parts, at, revision=revision, results=(offset,))

    def set(self, who: str, data: str, at: Any, revision: int, wanted: int) -> None:
        parts = [("k", 0, data.encode(), None, wanted)]
        self.add(who, Kind.PUT, parts, at, revision=revision)

    def maybe_set(self, who: str, data: str, start: int, wanted: int) -> None:
        self.lost(who, Kind.PUT, [("k", 0, data.encode(), None, wanted)], start)

    def conflict(self, who: str, at: Any, wanted: int, found: int) -> None:
        parts = [("k", 0, b"never", None, wanted)]
        refused = {"outcome": Outcome.REFUSED, "reason": "conflict", "value": found}
        self.add(who, Kind.PUT, parts, at, **refused)

    def versioned(self, who: str, at: Any, content: str, had: int) -> None:
        self.add(who, Kind.READ, [("k", 0, content.encode(), None, had)], at)

    def transact(self, who: str, at: Any, revision: int | None, *parts: Any, **more: Any) -> None:
        self.add(
            who, Kind.TRANSACTION, [_part(*part) for part in parts], at, revision=revision, **more
        )

    def undone(self, who: str, at: Any, reason: str, index: int, *parts: Any, **more: Any) -> None:
        refused = {"outcome": Outcome.REFUSED, "reason": reason, "index": index}
        self.transact(who, at, None, *parts, **refused, **more)


def _part(kind: Kind, section: str, data: str = "", revision: int | None = None) -> SectionPart:
    return SectionPart(section, 0, data.encode(), kind, revision)


PUT, APPEND, DELETE, CREATE = Kind.PUT, Kind.APPEND, Kind.DELETE, Kind.CREATE
OVERWRITE = Kind.OVERWRITE


@pytest.fixture
def book() -> Conditions:
    book = Conditions()
    book.open("c0", "name", UNIT, (0, 5), 1, made=True)
    return book


# --- appends -------------------------------------------------------------------------------------


def test_appends_one_after_the_other(book) -> None:
    book.append("a", "<1>", (10, 20), 2, 0)
    book.append("b", "<22>", (15, 40), 3, 3)
    book.read("c", (50, 60), 3, k="<1><22>")
    book.append("a", "<3>", (60, 70), 4, 7)
    good(book)


def test_append_of_unknown_outcome_may_have_happened(book) -> None:
    book.append("a", "<1>", (10, 20), 2, 0)
    book.lost("b", APPEND, [("k", 0, b"<2>")], 30)
    book.lost("c", APPEND, [("k", 0, b"<3>")], 30)
    book.append("a", "<4>", (40, 50), 4, 6)
    book.read("d", (60, 70), 4, k="<1><3><4>")
    good(book)


def test_append_at_another_offset(book) -> None:
    book.append("a", "<1>", (10, 20), 2, 0)
    book.append("b", "<2>", (30, 40), 3, 0)
    bad(book, "impossible change")


def test_append_that_was_made_twice(book) -> None:
    book.append("a", "<1>", (10, 20), 2, 0)
    book.append("b", "<2>", (30, 40), 4, 6)
    told = bad(book, "impossible change")
    assert "something was applied twice" in told


def test_append_that_is_not_there(book) -> None:
    book.append("a", "<1>", (10, 20), 2, 0)
    book.append("b", "<2>", (30, 40), 3, 3)
    book.read("c", (50, 60), 3, k="<1>")
    bad(book, "wrong content")


def test_append_that_overwrote(book) -> None:
    book.put("a", "k", "old", (10, 20), 2)
    book.append("b", "<2>", (30, 40), 3, 3)
    book.read("c", (50, 60), 3, k="<2>")
    bad(book, "wrong content")


def test_unknown_append_happens_at_most_once(book) -> None:
    book.lost("b", APPEND, [("k", 0, b"<2>")], 6)
    book.put("a", "j", "x", (10, 20), 4)
    book.read("d", (60, 70), 4, k="<2><2>")
    bad(book, "wrong content")


def test_append_that_overtakes_a_write_accepted_before(book) -> None:
    book.add("a", PUT, [("k", 0, b"1")], (10, 60), revision=3, accepted=12)
    book.append("a", "<2>", (20, 30), 2, 0)
    bad(book, "against order of a session")


# --- compare and set -----------------------------------------------------------------------------


def test_conditions_that_held(book) -> None:
    book.set("a", "1", (10, 20), 2, 0)
    book.versioned("b", (21, 22), "1", 2)
    book.set("b", "2", (30, 40), 3, 2)
    book.add("b", DELETE, [("k", 0, b"", None, 3)], (50, 60), revision=4)
    book.set("a", "3", (70, 80), 5, 0)
    good(book)


def test_condition_on_a_change_of_unknown_outcome(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.maybe_set("b", "2", 30, 2)
    book.versioned("c", (40, 50), "2", 3)
    book.set("c", "3", (60, 70), 4, 3)
    book.read("d", (80, 90), 4, k="3")
    good(book)


def test_conflicts_that_are_founded(book) -> None:
    book.conflict("b", (6, 8), 7, 0)
    book.put("a", "k", "1", (10, 50), 2)
    book.conflict("b", (20, 30), 1, 0)
    book.conflict("b", (25, 60), 0, 2)
    book.maybe_set("c", "2", 65, 2)
    book.put("a", "j", "x", (70, 75), 4)
    book.conflict("b", (80, 90), 2, 3)
    good(book)


def test_lost_update(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.versioned("b", (21, 29), "1", 2)
    book.versioned("c", (21, 29), "1", 2)
    book.set("b", "2", (30, 40), 3, 2)
    book.set("c", "3", (30, 50), 4, 2)
    told = bad(book, "impossible change")
    assert "k = '3' if it has 2" in told
    assert "k = '2' of revision 3" in told


def test_condition_on_a_section_that_is_there(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.set("b", "2", (30, 40), 3, 0)
    bad(book, "impossible change")


def test_condition_on_a_section_that_is_not_there(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.add("a", DELETE, [("k",)], (30, 40), revision=3)
    book.set("b", "2", (50, 60), 4, 2)
    bad(book, "impossible change")


def test_condition_on_a_revision_of_another_section(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("a", "j", "1", (30, 40), 3)
    book.set("b", "2", (50, 60), 4, 3)
    bad(book, "impossible change")


def test_condition_on_a_revision_that_a_change_of_unknown_outcome_cannot_have(book) -> None:
    book.maybe("a", "k", "1", 6)
    book.put("b", "j", "x", (10, 20), 3)
    book.versioned("c", (30, 40), "1", 2)
    book.set("c", "2", (50, 60), 4, 3)
    bad(book, "impossible change")


def test_versioned_read_of_a_revision_that_was_not_taken_yet(book) -> None:
    for section in "kxyz":
        book.maybe("a", section, "1", 6)
    book.versioned("c", (10, 20), "1", 5)
    book.put("b", "j", "x", (30, 40), 4)
    book.put("b", "j", "y", (50, 60), 6)
    bad(book, "wrong content")


def test_unknown_change_whose_condition_cannot_have_held(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("a", "k", "2", (30, 40), 3)
    book.maybe_set("b", "lost update", 50, 2)
    book.read("c", (60, 70), 4, k="lost update")
    bad(book, "wrong content")


def test_versioned_read_of_another_revision(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("a", "j", "1", (30, 40), 3)
    book.versioned("b", (50, 60), "1", 3)
    told = bad(book, "wrong content")
    assert "k = '1' of revision 2" in told


def test_versioned_read_that_is_stale(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("a", "k", "2", (30, 40), 3)
    book.versioned("b", (50, 60), "1", 2)
    bad(book, "wrong content")


def test_conflict_that_found_what_was_asked_for(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.conflict("b", (30, 40), 2, 2)
    bad(book, "unfounded refusal")


def test_conflict_that_found_what_was_not_there_any_more(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.put("a", "k", "2", (30, 40), 3)
    book.conflict("b", (50, 60), 1, 2)
    bad(book, "unfounded refusal")


def test_conflict_that_found_what_was_not_there_yet(book) -> None:
    book.conflict("b", (10, 20), 0, 2)
    book.put("a", "k", "1", (30, 40), 2)
    bad(book, "unfounded refusal")


def test_conflict_that_found_nothing_where_something_was(book) -> None:
    book.put("a", "k", "1", (10, 20), 2)
    book.conflict("b", (30, 40), 7, 0)
    bad(book, "unfounded refusal")


# --- transactions --------------------------------------------------------------------------------


def test_transaction_is_seen_whole(book) -> None:
    book.put("a", "j", "10", (10, 11), 2)
    book.put("a", "k", "10", (12, 13), 3)
    parts = (PUT, "j", "9", 2), (APPEND, "log", "<1>"), (PUT, "k", "11", 3)
    book.transact("b", (20, 30), 4, *parts, results=(None, 0, None))
    book.read("c", (21, 29), 3, j="10", k="10", log=None)
    book.read("c", (22, 29), 4, j="9", k="11", log="<1>")
    book.read_all("c", (40, 50), 4, j="9", k="11", log="<1>")
    good(book)


def test_each_part_finds_what_those_before_it_made(book) -> None:
    parts = (CREATE, "k", "a"), (APPEND, "k", "b", 0), (DELETE, "k"), (PUT, "k", "c", 0)
    book.transact("a", (10, 20), 2, *parts, results=(None, 1, None, None))
    book.read("b", (30, 40), 2, k="c")
    book.undone("a", (50, 60), "section_missing", 1, (DELETE, "k"), (OVERWRITE, "k", "d"))
    book.undone("a", (50, 60), "section_exists", 1, (PUT, "x", "1"), (CREATE, "k", "d"))
    good(book)


def test_transaction_of_unknown_outcome(book) -> None:
    book.put("a", "j", "1", (10, 11), 2)
    parts = [_part(PUT, "j", "2", 2), _part(PUT, "k", "2", 0)]
    book.lost("b", Kind.TRANSACTION, parts, 20)
    book.lost("c", Kind.TRANSACTION, [_part(PUT, "k", "3", 2)], 20)
    book.read("d", (30, 40), 3, j="2", k="2")
    good(book)


@pytest.mark.parametrize("seen", [{"j": "2", "k": None}, {"j": "1", "k": "2"}])
@pytest.mark.parametrize("known", [True, False])
def test_torn_transaction(book, seen, known) -> None:
    book.put("a", "j", "1", (10, 11), 2)
    parts = (PUT, "j", "2", 2), (PUT, "k", "2")
    if known:
        book.transact("b", (20, 30), 3, *parts)
    else:
        book.lost("b", Kind.TRANSACTION, [_part(*part) for part in parts], 20)
    book.read("c", (35, 40), 3, **seen)
    bad(book, "wrong content")


def test_transaction_of_which_one_condition_did_not_hold(book) -> None:
    book.put("a", "j", "1", (10, 11), 2)
    book.put("a", "j", "2", (12, 13), 3)
    book.transact("b", (20, 30), 4, (PUT, "k", "3", 0), (PUT, "j", "3", 2))
    bad(book, "impossible change")


def test_condition_that_an_earlier_part_made_hold(book) -> None:
    """Conditions are about the state before: there was a section."""
    book.put("a", "k", "1", (10, 11), 2)
    book.transact("b", (20, 30), 3, (DELETE, "k"), (PUT, "k", "2", 0))
    bad(book, "impossible change")


def test_append_of_a_transaction_at_another_offset(book) -> None:
    book.put("a", "k", "1", (10, 11), 2)
    book.transact("b", (20, 30), 3, (PUT, "j", "2"), (APPEND, "k", "2"), results=(None, 0))
    bad(book, "impossible change")


def test_transaction_that_was_told_about_fewer_parts(book) -> None:
    book.transact("b", (20, 30), 2, (PUT, "j", "2"), (APPEND, "k", "2"), results=(None,))
    bad(book, "impossible change")


def test_refused_transaction_that_was_done_in_part(book) -> None:
    parts = (PUT, "k", "refused"), (OVERWRITE, "j", "2")
    book.undone("a", (10, 20), "section_missing", 1, *parts)
    book.read("b", (30, 40), 1, k="refused")
    bad(book, "read of a refused write")


def test_transaction_refused_for_a_part_that_was_there(book) -> None:
    book.undone("a", (10, 20), "section_missing", 1, (CREATE, "k", "1"), (OVERWRITE, "k", "2"))
    bad(book, "unfounded refusal")


def test_transaction_refused_for_a_condition_that_held(book) -> None:
    book.put("a", "j", "1", (10, 11), 2)
    parts = (PUT, "k", "2", 0), (PUT, "j", "2", 2)
    book.undone("b", (20, 30), "conflict", 1, *parts, value=2)
    bad(book, "unfounded refusal")


def test_transaction_refused_for_a_condition_behind_another_that_did_not_hold(book) -> None:
    book.put("a", "j", "1", (10, 11), 2)
    parts = (PUT, "j", "2", 7), (PUT, "j", "3", 8)
    book.undone("b", (20, 30), "conflict", 1, *parts, value=2)
    bad(book, "unfounded refusal")


def test_transaction_refused_for_a_part_though_a_condition_did_not_hold(book) -> None:
    book.put("a", "j", "1", (10, 11), 2)
    parts = (OVERWRITE, "k", "2"), (PUT, "k", "3", 7)
    book.undone("b", (20, 30), "section_missing", 0, *parts)
    bad(book, "unfounded refusal")


def test_transaction_of_a_fenced_session(book) -> None:
    book.add("b", Kind.FENCE, [], (30, 40), revision=2, value=1)
    book.transact("a", (50, 60), 3, (PUT, "k", "1"))
    bad(book, "impossible change")

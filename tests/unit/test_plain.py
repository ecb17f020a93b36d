"""Text of others: nothing in it steers a terminal, and none of it is a line of its own."""

from __future__ import annotations

import pytest

from raftckpt.plain import plain, shown


@pytest.mark.parametrize("mark", ["\n", "\r", "\x1b", "\x9b", "\x85", "\u2028", "\u202e", "\u2066"])
def test_what_steers_a_terminal_is_written_out(mark: str) -> None:
    found = plain(f"a{mark}b")
    assert found.isprintable()
    assert found.startswith("a\\")
    assert plain("plain text, é, 検") == "plain text, é, 検"


def test_a_half_of_a_character_can_be_encoded() -> None:
    plain("a\udcff").encode()


def test_values_are_shown_short() -> None:
    assert shown(5) == "5"
    assert shown(True) == "True"
    assert shown("a") == "'a'"
    assert shown(None) == "None"
    assert shown(1 << 400_000) == "a number of 400001 bits"
    assert len(shown("x" * 10**6)) < 100
    assert shown("\x1b[2J") == "'\\x1b[2J'"

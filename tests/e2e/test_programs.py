"""The harness of programs: who waits for what never comes is told why."""

from __future__ import annotations

import sys

import pytest

from tests import waiting
from tests.programs import Program

ECHO = """
import sys
print("ready")
for line in sys.stdin:
    print("heard", line, end="", flush=True)
print("bye", file=sys.stderr)
"""


def test_lines_come_in_order_and_the_last_ones_count() -> None:
    with Program(sys.executable, "-u", "-c", ECHO) as program:
        program.expect("ready")
        program.tell("1")
        program.tell("2")
        assert program.expect("heard") == "heard 1"
        assert program.expect("heard") == "heard 2"
        assert program.numbers(r"heard (\d)") == [1, 2]
        assert program.leave() == 0
        program.until_said("bye")
        with pytest.raises(AssertionError, match="ended with 0, and never: a line 'heard'") as told:
            program.expect("heard")
    assert "bye" in told.value.__notes__[0]


def test_what_never_comes_is_not_waited_for_for_ever(monkeypatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)
    with (
        Program(sys.executable, "-u", "-c", ECHO) as program,
        pytest.raises(AssertionError, match=r"'never' was said \(load .*, a sync takes .* ms"),
    ):
        program.until_said("never")
    assert not program.running

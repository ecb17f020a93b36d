"""Each operator on a small text, and what is left alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants import operators


def changed(text: str, operator: str) -> list[str]:
    """The texts that an operator makes of a module."""
    source = text.encode()
    found = [m for m in operators.mutants("m.py", source) if m.operator == operator]
    return [mutant.applied(source).decode() for mutant in found]


@pytest.mark.parametrize(
    ("operator", "before", "after"),
    [
        ("comparison", "x = a < b", ["x = a <= b"]),
        ("comparison", "x = a <= b", ["x = a < b"]),
        ("comparison", "x = a > b", ["x = a >= b"]),
        ("comparison", "x = a >= b", ["x = a > b"]),
        ("comparison", "x = a == b", ["x = a != b"]),
        ("comparison", "x = a != b", ["x = a == b"]),
        ("comparison", "x = a is None", ["x = a is not None"]),
        ("comparison", "x = a is  not None", ["x = a is None"]),
        ("comparison", "x = 0 < (a) <= b", ["x = 0 <= (a) <= b", "x = 0 < (a) < b"]),
        ("comparison", "x = a in b", []),
        ("off by one", "x = f(7)[-1]", ["x = f(8)[-1]", "x = f(7)[-2]"]),
        ("off by one", "x: Final = 0x10", ["x: Final = 17"]),
        ("bool", "x = True", ["x = False"]),
        ("bool", "f(strict=False)", ["f(strict=True)"]),
        ("and/or", "x = a and b and c", ["x = a or b and c", "x = a and b or c"]),
        ("and/or", "x = a or b", ["x = a and b"]),
        ("not", "x = not a.b(c)", ["x = (a.b(c))"]),
        ("condition", "if a: b", ["if False: b", "if True: b"]),
        ("condition", "while a: b", ["while False: b"]),
        ("condition", "while True: b", []),
        ("condition", "x = a if b else c", ["x = a if False else c", "x = a if True else c"]),
        ("condition", "[a for a in b if c]", ["[a for a in b if False]", "[a for a in b if True]"]),
        ("returned", "def f(): return a", ["def f(): return None"]),
        ("returned", "def f() -> bool: return a or b", ["def f() -> bool: return not (a or b)"]),
        ("returned", "def f(): return None", []),
        ("bool", "def f(): return True", ["def f(): return False"]),
        ("deleted", "a.b(c)", ["pass"]),
        ("deleted", "async def f(): await a()", ["async def f(): pass"]),
        ("deleted", "a.b = c[d] = e", ["pass"]),
        ("deleted", "a.b, c.d = e", ["pass"]),
        ("deleted", "a.b: int = c", ["pass"]),
        ("deleted", "a = b.c = d", []),
        ("deleted", "a += b", ["pass"]),
        ("deleted", "del a[b]", ["pass"]),
        ("min/max", "x = min(a, max(b))", ["x = max(a, max(b))", "x = min(a, min(b))"]),
        ("+/-", "x = (a) + b - c", ["x = (a) - b - c", "x = (a) + b + c"]),
        ("+/-", "a -= b", ["a += b"]),
        ("+/-", "x = a + 'text' + b", []),
        ("break/continue", "for a in b: break", ["for a in b: continue"]),
        ("break/continue", "for a in b: continue", ["for a in b: break"]),
    ],
)  # fmt: skip
def test_an_operator(operator: str, before: str, after: list[str]) -> None:
    assert changed(before, operator) == after
    for text in after:
        compile(text, "m.py", "exec")


@pytest.mark.parametrize(
    "text",
    [
        '"""Of 3 words."""',
        "x = 'text'\n'''One of 2 things.'''",
        "log.info('a=%d', a + 1)",
        "self._logger.warning('a', 1)",
        "raise Refused(f'{a + 1} is more than', 5)",
        "x = f'{a < 1}'",
        "def __repr__(self): return 1",
        "x: Literal[1]",
        "def f(a: Annotated[int, 3]) -> Literal[4]: ...",
        "@dataclass(frozen=True)\nclass A: ...",
        "if TYPE_CHECKING:\n    x = 1",
        "if __name__ == '__main__':\n    main(1)",
        "__all__ = ['a'] + ['b']",
        "assert a < 1",
        "ensure(a < 1, 'small')",
        "from a import b",
    ],
)
def test_what_is_left_alone(text: str) -> None:
    assert operators.mutants("m.py", text.encode()) == []


def test_guards_of_cases_are_conditions() -> None:
    text = "match a:\n  case b if {}:\n    c"
    assert changed(text.format("d"), "condition") == [text.format("False"), text.format("True")]


def test_a_log_of_entries_is_no_logger() -> None:
    assert changed("self._log.append(a)", "deleted") == ["pass"]


def test_a_place_is_told_by_name_line_and_statement() -> None:
    text = "class A:\n  def f(self):\n    if (self.a and\n        b < 1):\n      c()\n"
    found = {m.operator: m for m in operators.mutants("m.py", text.encode())}
    assert found["comparison"].scope == "A.f"
    assert found["comparison"].line == 4
    assert found["comparison"].lines == range(3, 5)  # the head: not what stands in the block
    assert found["comparison"].before == "b < 1):"
    assert found["comparison"].after == "b <= 1):"
    assert found["deleted"].lines == range(5, 6)


def test_letters_of_several_bytes_shift_nothing() -> None:
    assert changed("x = {'ä': a < b}", "comparison") == ["x = {'ä': a <= b}"]


def test_names_of_mutants_survive_edits_elsewhere_and_are_distinct() -> None:
    text = b"def f():\n    a(1)\n    a(1)\n"
    names = [m.ident for m in operators.mutants("m.py", text)]
    assert len(set(names)) == len(names) == 4
    assert [m.ident for m in operators.mutants("m.py", b"b = c\n\n" + text)] == names


def test_every_change_of_real_modules_is_one_and_compiles() -> None:
    source = Path(operators.__file__).read_bytes()
    was = ast.dump(ast.parse(source))
    found = operators.mutants("m.py", source)
    assert len(found) > 100
    for mutant in found[::7]:
        assert ast.dump(ast.parse(mutant.applied(source))) != was, mutant

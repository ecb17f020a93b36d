"""Every ``Final`` number of a module says where it comes from, in words beside it.

A docstring below it, a comment on its line, or a comment above the unbroken lines that it is one of
(tags of a format, pixels of a picture). The line that heads a part of a file is none of these.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from itertools import pairwise

from tests.tidy.source import ROOT, product

HEADING = re.compile(r"# -{3}")


def is_number(value: ast.expr | None) -> bool:
    """Whether a figure stands there, alone or in a calculation."""
    match value:
        case ast.Constant(value=int() | float() as figure):
            return not isinstance(figure, bool)
        case ast.BinOp(left=left, right=right):
            return is_number(left) or is_number(right)
        case ast.UnaryOp(operand=operand):
            return is_number(operand)
    return False


def silent(text: str) -> Iterator[str]:
    """Names of the numbers of a module that say nothing."""
    comments = {
        token.start[0]: token.line.lstrip().startswith("#") and not HEADING.match(token.string)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    said = False  # above the lines of which this one is one
    last = -1
    for node, after in pairwise([*ast.parse(text).body, ast.Pass()]):
        if not (isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation)):
            continue
        if node.lineno != last + 1:
            said = comments.get(node.lineno - 1, False)
        last = node.end_lineno or node.lineno
        below = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        beside = any(line in comments for line in range(node.lineno, last + 1))
        if is_number(node.value) and not (said or below or beside):
            yield ast.unparse(node.target)


def test_numbers_say_where_they_come_from() -> None:
    found = {
        source.path: names
        for source in product()
        if (names := list(silent((ROOT / source.path).read_text("utf-8"))))
    }
    assert found == {}


def test_a_silent_number_is_found() -> None:
    text = """\
# --- a part of the file ---
A: Final = 1
B: Final = 2
'''why'''
C: Final[float] = -3.0

# tags of a format
D: Final = 1 << 4
E: Final = 2

F: Final = 3 * D
G: Final = 4  # a byte
H: Final = "text"
I: Final = J
K: int = 5
"""
    assert list(silent(text)) == ["A", "C", "F"]

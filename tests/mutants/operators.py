"""The small changes: from the text of a module to the mutants of it.

Pure: text in, mutants out. A mutant is one replaced span of bytes, so that its diff shows the code
as it is written. Left alone is what no test should have an opinion on: log lines, ``__repr__``,
texts of errors, annotations, docstrings, ``__all__`` - and ``assert`` and ``ensure``, because what
they guard against does not happen in right code and no test can tell whether they are there.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

COMPARISONS: Final[dict[type[ast.cmpop], tuple[bytes, bytes]]] = {
    ast.Lt: (rb"<", b"<="),
    ast.LtE: (rb"<=", b"<"),
    ast.Gt: (rb">", b">="),
    ast.GtE: (rb">=", b">"),
    ast.Eq: (rb"==", b"!="),
    ast.NotEq: (rb"!=", b"=="),
    ast.Is: (rb"\bis\b", b"is not"),
    ast.IsNot: (rb"\bis\s+not\b", b"is"),
}
JOINTS: Final[dict[type[ast.boolop], tuple[bytes, bytes]]] = {
    ast.And: (rb"\band\b", b"or"),
    ast.Or: (rb"\bor\b", b"and"),
}
SUMS: Final[dict[type[ast.operator], tuple[bytes, bytes]]] = {
    ast.Add: (rb"\+", b"-"),
    ast.Sub: (rb"-", b"+"),
}
EXTREMES: Final = {"min": b"max", "max": b"min"}
_LOG_CALLS: Final = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_LOGGERS: Final = {"log", "logger", "logging"}
_UNSEEN: Final = {"__repr__", "__str__"}
_SEQUENCES: Final = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)


class Mutant(NamedTuple):
    """One change of one module."""

    path: str
    scope: str
    operator: str
    line: int
    lines: range
    """Of the statement: what runs one of them may notice."""
    start: int
    end: int
    new: bytes
    before: str
    after: str
    ident: str
    """Survives edits elsewhere in the file: what is judged is found again."""

    def applied(self, source: bytes) -> bytes:
        """The module with the change."""
        return source[: self.start] + self.new + source[self.end :]


class _Place(NamedTuple):
    """Where the walk is."""

    scope: tuple[str, ...] = ()
    lines: range = range(0)
    returns_bool: bool = False


class _Change(NamedTuple):
    operator: str
    start: int
    end: int
    new: bytes
    place: _Place


def mutants(path: str, source: bytes) -> list[Mutant]:
    """All mutants of a module, in the order of its text."""
    walk = _Walk(source)
    changes = sorted(walk.visit(ast.parse(source), _Place()), key=lambda c: (c.start, c.end, c.new))
    counts: Counter[tuple[str, ...]] = Counter()
    found = []
    for change in changes:
        first = source.rfind(b"\n", 0, change.start) + 1
        last = source.find(b"\n", change.end)
        last = len(source) if last < 0 else last
        after = source[first : change.start] + change.new + source[change.end : last]
        texts = [_one_line(source[first:last]), _one_line(after)]
        what = (path, ".".join(change.place.scope), change.operator, *texts)
        counts[what] += 1
        name = "\0".join((*what, str(counts[what])))
        found.append(
            Mutant(
                path,
                what[1],
                change.operator,
                source.count(b"\n", 0, change.start) + 1,
                change.place.lines,
                change.start,
                change.end,
                change.new,
                texts[0],
                texts[1],
                hashlib.sha256(name.encode()).hexdigest()[:10],
            )
        )
    return found


def _one_line(text: bytes) -> str:
    return " ".join(text.decode().split())


class _Walk:
    """Looks for what can be changed; yields changes, the outer before the inner."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._starts = [0]
        for line in source.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def visit(self, node: ast.AST, place: _Place) -> Iterator[_Change]:
        """Changes of the node and of what is in it."""
        if _left_alone(node):
            return
        place = _entered(node, place)
        yield from self._own(node, place)
        for name, field in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            for child in field if isinstance(field, list) else [field]:
                if isinstance(child, ast.AST):
                    yield from self.visit(child, place)

    def _own(self, node: ast.AST, place: _Place) -> Iterator[_Change]:
        match node:
            case ast.Compare():
                operands = [node.left, *node.comparators]
                for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
                    yield from self._token("comparison", left, COMPARISONS, op, right, place)
            case ast.BoolOp():
                for left, right in zip(node.values, node.values[1:], strict=False):
                    yield from self._token("and/or", left, JOINTS, node.op, right, place)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield self._replace("not", node, b"(" + self._text(operand) + b")", place)
            case ast.BinOp() if not (_sequence(node.left) or _sequence(node.right)):
                yield from self._token("+/-", node.left, SUMS, node.op, node.right, place)
            case ast.Constant(value=bool()):
                yield self._replace("bool", node, str(not node.value).encode(), place)
            case ast.Constant(value=int() as number):
                yield self._replace("off by one", node, str(number + 1).encode(), place)
            case ast.Call(func=ast.Name(id=name) as func) if name in EXTREMES:
                yield self._replace("min/max", func, EXTREMES[name], place)
            case ast.Break():
                yield self._replace("break/continue", node, b"continue", place)
            case ast.Continue():
                yield self._replace("break/continue", node, b"break", place)
            case ast.Return(value=ast.expr() as value):
                yield from self._returned(value, place)
            case ast.stmt() if _deletable(node):
                yield self._replace("deleted", node, b"pass", place)
                if isinstance(node, ast.AugAssign) and not _sequence(node.value):
                    yield from self._token("+/-", node.target, SUMS, node.op, node.value, place)
            case ast.While(test=test) if not isinstance(test, ast.Constant):
                yield self._replace("condition", test, b"False", place)
            case (
                ast.If(test=test) | ast.IfExp(test=test) | ast.match_case(guard=ast.expr() as test)
            ):
                yield from self._forced(test, place)
            case ast.comprehension(ifs=tests):
                for test in tests:
                    yield from self._forced(test, place)

    def _text(self, node: ast.expr) -> bytes:
        start, end = self._span(node)
        return self._source[start:end]

    def _replace(self, what: str, node: ast.expr | ast.stmt, new: bytes, place: _Place) -> _Change:
        return _Change(what, *self._span(node), new, place)

    def _token(
        self,
        what: str,
        left: ast.expr,
        table: dict[type, tuple[bytes, bytes]],
        op: ast.AST,
        right: ast.expr,
        place: _Place,
    ) -> Iterator[_Change]:
        """Swap the operator between two operands, if the table has another for it."""
        if type(op) in table:
            token, new = table[type(op)]
            found = re.compile(token).search(
                self._source, self._span(left)[1], self._span(right)[0]
            )
            assert found is not None
            yield _Change(what, *found.span(), new, place)

    def _forced(self, test: ast.expr, place: _Place) -> Iterator[_Change]:
        if not isinstance(test, ast.Constant):
            yield self._replace("condition", test, b"True", place)
            yield self._replace("condition", test, b"False", place)

    def _returned(self, value: ast.expr, place: _Place) -> Iterator[_Change]:
        if isinstance(value, ast.Constant) and (
            value.value is None or value.value in (True, False)
        ):
            return  # nothing to drop, or flipped as any other bool is
        if place.returns_bool:
            yield self._replace("returned", value, b"not (" + self._text(value) + b")", place)
        else:
            yield self._replace("returned", value, b"None", place)


def _left_alone(node: ast.AST) -> bool:
    match node:
        case ast.Assert() | ast.Raise() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Name(id="ensure"))):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=attr, value=value))):
            return attr in _LOG_CALLS and ast.unparse(value).split(".")[-1].strip("_") in _LOGGERS
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.FunctionDef(name=name):
            return name in _UNSEEN
    return False


def _entered(node: ast.AST, place: _Place) -> _Place:
    """The place inside the node: names of scopes, lines of the statement (of its head)."""
    match node:
        case ast.ClassDef():
            place = place._replace(scope=(*place.scope, node.name), returns_bool=False)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            truth = isinstance(node.returns, ast.Name) and node.returns.id == "bool"
            place = place._replace(scope=(*place.scope, node.name), returns_bool=truth)
        case ast.Lambda():
            place = place._replace(returns_bool=False)
    first = getattr(node.pattern if isinstance(node, ast.match_case) else node, "lineno", 0)
    match node:
        case ast.ExceptHandler(body=[then, *_]) | ast.match_case(body=[then, *_]):
            return place._replace(lines=range(first, max(first + 1, then.lineno)))
        case ast.Match(cases=[case, *_]):
            return place._replace(lines=range(first, max(first + 1, case.pattern.lineno)))
        case ast.stmt():
            body = getattr(node, "body", None)
            end = max(first + 1, body[0].lineno) if body else (node.end_lineno or first) + 1
            return place._replace(lines=range(first, end))
    return place


def _deletable(node: ast.stmt) -> bool:
    """Whether the statement is there only for what it does."""
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Delete():
            return True
        case ast.Assign(targets=targets):
            return all(map(_place_in_object, targets))
        case ast.AnnAssign(target=target, value=ast.expr()):
            return _place_in_object(target)
    return False


def _place_in_object(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple):
        return all(map(_place_in_object, target.elts))
    return isinstance(target, (ast.Attribute, ast.Subscript))


def _sequence(node: ast.expr) -> bool:
    """Whether ``-`` would certainly fail: no question for a test."""
    if isinstance(node, ast.BinOp):
        return _sequence(node.left) or _sequence(node.right)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (str, bytes))
    return isinstance(node, _SEQUENCES)

"""The source of the product as trees, and what the tidy tests look for in it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

__all__ = ["ROOT", "Source", "modules_of", "product"]

ROOT = Path(__file__).parent.parent.parent
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BY_NAME = ("cast", "TypeVar", "getattr", "hasattr", "setattr", "attrgetter")
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)


class Source:
    """One module."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.tree = ast.parse(text)

    @cached_property
    def exported(self) -> list[str]:
        """Names in ``__all__``."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and _is_name(node.targets[0], "__all__"):
                return [str(name) for name in ast.literal_eval(node.value)]
        return []

    @cached_property
    def defined(self) -> dict[str, int]:
        """Names bound at the top of the module, with their lines; imported ones, too."""
        found: dict[str, int] = {}
        for node in _top(self.tree.body):
            for name in _bound(node):
                found[name] = node.lineno
        return found

    def own_names(self) -> Iterator[tuple[str, int]]:
        """Names that the module makes itself and nothing registers: somebody should use them."""
        for node in _top(self.tree.body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, _DEFINITIONS) and node.decorator_list and _registers(node):
                continue
            for name in _bound(node):
                if not name.startswith("__") and name != "_":
                    yield name, node.lineno

    def private_methods(self) -> Iterator[tuple[str, int]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    if isinstance(item, _FUNCTIONS) and re.match(r"_[^_]", item.name):
                        yield item.name, item.lineno

    @cached_property
    def used(self) -> Counter[str]:
        """Every name that is read, as a name, an attribute, an import or in a quoted type."""
        found: Counter[str] = Counter()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                found[node.id] += 1
            elif isinstance(node, ast.Attribute):
                found[node.attr] += isinstance(node.ctx, ast.Load)
            elif isinstance(node, ast.ImportFrom):
                found.update(alias.name for alias in node.names)
            for part in _may_quote(node):
                found.update(_quoted_names(part))
        return found

    def classes(self) -> Iterator[str]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef):
                yield node.name

    def asserts(self) -> Iterator[int]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assert):
                yield node.lineno

    def bare_tags(self) -> Iterator[tuple[int, str]]:
        """Comparisons of something that is a tag or kind with numbers; ``x[0]`` is taken for one.

        Also ``match``ed numbers of one.
        """
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                if any(map(_is_tag, sides)) and any(map(_is_number, sides)):
                    yield node.lineno, ast.unparse(node)
            elif isinstance(node, ast.Match) and _is_tag(node.subject):
                for case in node.cases:
                    for part in ast.walk(case.pattern):
                        if isinstance(part, ast.MatchValue) and _is_number(part.value):
                            yield case.pattern.lineno, ast.unparse(case.pattern)


def product() -> list[Source]:
    """All modules of raftckpt/ and cli/."""
    return [*modules_of("raftckpt"), *modules_of("cli")]


def modules_of(folder: str) -> list[Source]:
    """All modules below a folder of the project."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [Source(str(path.relative_to(ROOT)), path.read_text()) for path in paths]


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, also those under ``if`` and ``try``."""
    for node in body:
        if isinstance(node, ast.If | ast.Try | ast.With):
            for name in ("body", "orelse", "finalbody"):
                yield from _top(getattr(node, name, []))
            for handler in getattr(node, "handlers", []):
                yield from _top(handler.body)
        else:
            yield node


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, _DEFINITIONS):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Name):
                    yield part.id


def _registers(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """A decorator that is more than a wrapper hands the function to somebody."""
    wrappers = {"contextmanager", "asynccontextmanager", "cache", "lru_cache", "dataclass"}
    wrappers |= {"runtime_checkable", "overload", "final"}
    names = [part for item in node.decorator_list for part in ast.walk(item)]
    return not any(getattr(part, "id", getattr(part, "attr", "")) in wrappers for part in names)


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_tag(node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == 0
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return bool(re.search(r"(\A|_)(tag|kind)\Z", name))


def _is_number(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(map(_is_number, node.elts))
    return isinstance(node, ast.Constant) and type(node.value) is int


def _may_quote(node: ast.AST) -> Iterator[ast.expr | None]:
    """Expressions of a node in which a string is not a text but code."""
    if isinstance(node, ast.arg):
        yield node.annotation
    elif isinstance(node, ast.AnnAssign):
        yield node.annotation
        yield node.value if "TypeAlias" in ast.unparse(node.annotation) else None
    elif isinstance(node, _FUNCTIONS):
        yield node.returns
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in _BY_NAME:
        yield from node.args


def _quoted_names(node: ast.expr | None) -> Iterator[str]:
    for part in ast.walk(node) if node is not None else ():
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield from re.findall(r"\w+", part.value)

"""No module needs one that needs it, not even for a type: a circle is one idea in two files."""

from __future__ import annotations

import ast

from .source import Source, product


def modules(sources: list[Source]) -> dict[str, Source]:
    found = {}
    for source in sources:
        dotted = source.path.removesuffix(".py").replace("/", ".").removeprefix("cli.")
        found[dotted.removesuffix(".__init__")] = source
    return found


def needs(sources: list[Source]) -> dict[str, set[str]]:
    """Module -> modules it imports, wherever the import stands. The package itself is a front."""
    known = modules(sources)
    graph: dict[str, set[str]] = {}
    for name, source in known.items():
        found = set()
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= inner & known.keys() or {node.module}
        graph[name] = (found & known.keys()) - {name, "raftckpt"}
    return graph


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that can come back to themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*graph[start]]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += graph[name]
        return seen

    return sorted(name for name in graph if name in reached(name))


def test_there_are_no_circles() -> None:
    assert circles(needs(product())) == []


def test_a_circle_is_found() -> None:
    sources = [
        Source("raftckpt/a.py", "from typing import TYPE_CHECKING\nfrom raftckpt.b import x\n"),
        Source("raftckpt/b.py", "if TYPE_CHECKING:\n    from raftckpt import a\nx = 1\n"),
        Source("raftckpt/c.py", "from raftckpt.b import x\n"),
    ]
    assert circles(needs(sources)) == ["raftckpt.a", "raftckpt.b"]

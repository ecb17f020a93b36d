"""YAML with positions: every value knows its line, and what YAML forgives is an error here.

PyYAML silently keeps the last of two equal keys and expands aliases; a configuration in which
somebody pasted a replica twice must not start half a cluster, so both are refused.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import yaml

from raftckpt.limits import KIB

__all__ = ["Mapping", "Node", "Problem", "Scalar", "Sequence", "parse"]

TEXT_BYTES_MAX = 256 * KIB
DEPTH_MAX = 16
VALUE_CHARACTERS_MAX = 4096
KEY_CHARACTERS_MAX = 256
NODES_MAX = 5000
"""Keys, values, and beginnings of lists and mappings: 32 replicas take some 200."""


class Problem(NamedTuple):
    """One thing wrong with a file: line (1-based, 0: the whole file), what, and the fix."""

    line: int
    what: str
    fix: str


class Scalar(NamedTuple):
    """A plain value: python value as YAML resolves it, its text, its line."""

    value: str | int | float | bool | None
    text: str
    line: int


class Sequence(NamedTuple):
    """A list and the line it starts in."""

    items: list[Node]
    line: int


class Mapping(NamedTuple):
    """A mapping; ``keys`` holds the line of each key."""

    items: dict[str, Node]
    keys: dict[str, int]
    line: int


Node: TypeAlias = Scalar | Sequence | Mapping


class _YamlReader:
    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._constructor = yaml.constructor.SafeConstructor()

    def node(self, node: yaml.Node, depth: int = 0) -> Node:
        line = node.start_mark.line + 1
        if depth > DEPTH_MAX:
            self._problems.append(Problem(line, "nested too deeply", "flatten it"))
            return Scalar(None, "", line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, line, depth)
        if isinstance(node, yaml.SequenceNode):
            return Sequence([self.node(item, depth + 1) for item in node.value], line)
        return self._scalar(node, line)

    def _scalar(self, node: yaml.Node, line: int) -> Scalar:
        if len(node.value) > VALUE_CHARACTERS_MAX:
            what = f"a value of {len(node.value)} characters"
            self._problems.append(Problem(line, what, "this is no cluster file"))
            return Scalar(None, "", line)
        try:
            value = self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError):
            value = None
            self._problems.append(
                Problem(line, f"the tag {node.tag[:60]} is not allowed", "write a plain value")
            )
        if not isinstance(value, str | int | float | bool | None):
            value = str(node.value)  # dates and the like: we have no such setting
        return Scalar(value, str(node.value), line)

    def _mapping(self, node: yaml.MappingNode, line: int, depth: int) -> Mapping:
        items: dict[str, Node] = {}
        keys: dict[str, int] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.append(Problem(key_line, "a key must be a name", "use a plain word"))
                continue
            key = str(key_node.value)
            if len(key) > KEY_CHARACTERS_MAX:
                what = f"a key of {len(key)} characters"
                self._problems.append(Problem(key_line, what, "this is no cluster file"))
                continue
            if key_node.tag != "tag:yaml.org,2002:str":
                self._problems.append(
                    Problem(key_line, f"the key {key} is not text", f'quote it: "{key}"')
                )
            if key in items:
                self._problems.append(
                    Problem(
                        key_line,
                        f"{key} is given twice (first in line {keys[key]})",
                        "remove one of the two",
                    )
                )
                continue
            keys[key] = key_line
            items[key] = self.node(value_node, depth + 1)
        return Mapping(items, keys, line)


def parse(text: str, problems: list[Problem]) -> Node | None:
    """Parse a YAML document; what is wrong goes into ``problems``.

    Returns:
        The document with positions, or None if there is nothing to go on with.
    """
    if len(text) > TEXT_BYTES_MAX:
        problems.append(
            Problem(0, f"larger than {TEXT_BYTES_MAX} bytes", "this is no cluster file")
        )
        return None
    try:
        depth = nodes = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.AliasEvent):
                problems.append(
                    Problem(
                        line, f"the alias *{str(event.anchor)[:60]} is not allowed", "write it out"
                    )
                )
                return None
            nodes += isinstance(event, yaml.NodeEvent)
            if nodes > NODES_MAX:
                what = f"more than {NODES_MAX} keys and values"
                problems.append(Problem(line, what, "this is no cluster file"))
                return None
            # the library composes by recursion, and is slow beyond reason on deep brackets
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH_MAX + 1:
                problems.append(Problem(line, "nested too deeply", "flatten it"))
                return None
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "cannot be parsed"
        problems.append(
            Problem(mark.line + 1 if mark else 0, f"not valid YAML: {what}", "mend the syntax")
        )
        return None
    except yaml.YAMLError as error:
        problems.append(Problem(0, f"not valid YAML: {error}", "mend the syntax"))
        return None
    if root is None:
        problems.append(Problem(0, "the file is empty", "start from the cluster.yaml shipped"))
        return None
    return _YamlReader(problems).node(root)

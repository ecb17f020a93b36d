"""Values for the fields of messages, made from their annotations: fitting ones and strange ones."""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgpack
import msgspec
from hypothesis import strategies as st

from raftckpt.protocol.kinds import fits, kind_of
from raftckpt.protocol.operations import OPERATIONS

_SIZES = (0, 1, 31, 255, 256, 4096, 65_535, 65_536)
_ITEMS_MAX = 5000
"""Bounds of lists above it are for tests of their own."""
_CHARACTERS = ("x", "é", "\N{SNOWMAN}", "\N{GRINNING FACE}")


def hints_of(kind: type[Any]) -> dict[str, Any]:
    """Annotation of every field of a record, in the order of the wire."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name] for name in kind.__struct_fields__}


def plain(message: Any) -> list[Any]:
    """A record as a decoder that knows nothing of it sees it."""
    fields: list[Any] = msgpack.unpackb(msgspec.msgpack.encode(message))
    return fields


def bounds(annotation: Any) -> dict[str, int]:
    found = {}
    for item in getattr(annotation, "__metadata__", ()):
        for name in ("ge", "le", "min_length", "max_length"):
            bound = getattr(item, name, None)
            if bound is not None:
                found[name] = bound
    return found


def _base(annotation: Any) -> tuple[Any, Any]:
    base = get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
    return base, get_origin(base)


def fitting(annotation: Any) -> st.SearchStrategy[Any]:
    """Well-formed values, those of the largest encoding among them."""
    base, origin = _base(annotation)
    bound = bounds(annotation)
    low, high = bound.get("min_length", 0), bound.get("max_length", 1 << 20)
    sizes = sorted({low, *(size for size in _SIZES if low <= size <= high)})
    if high <= 1 << 14:
        sizes.append(high)
    if origin in (Union, UnionType):
        made = st.one_of([fitting(member) for member in get_args(base)])
    elif origin is list:
        made = st.lists(fitting(get_args(base)[0]), min_size=low, max_size=min(high, 12))
    elif origin is tuple:
        made = st.tuples(*map(fitting, get_args(base)))
    elif base in (None, NoneType):
        made = st.none()
    elif base is bool:
        made = st.booleans()
    elif base is int:
        ge, le = bound.get("ge", -(1 << 63)), bound.get("le", (1 << 63) - 1)
        made = st.sampled_from([ge, le]) | st.integers(ge, le) | st.integers(0, 9)
    elif base is bytes:
        made = st.sampled_from(sizes).map(bytes)
    else:
        assert base is str, annotation
        made = st.builds(lambda size, char: char * size, st.sampled_from(sizes), _characters())
    examples = kind_of(annotation).examples
    if examples:
        made |= st.sampled_from(examples)
    return made.filter(lambda value: fits(annotation, value))


def _characters() -> st.SearchStrategy[str]:
    return st.sampled_from(_CHARACTERS)


@cache
def records(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Well-formed records of an operation."""
    return st.builds(kind, **{name: fitting(hint) for name, hint in hints_of(kind).items()})


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 8),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1.0, 0.0, -0.0, 1.5, 2.0**53]),
    st.floats(),
    st.binary(max_size=20),
    st.text(max_size=5),
    st.sampled_from(["5", "1.0", "true", "null", "\0", "\ud800", "2020-01-01T00:00:00Z"]),
)
STRANGE = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
"""Anything that travels in a message (but texts with surrogates, which cannot)."""


def near(annotation: Any) -> st.SearchStrategy[Any]:
    """Values about an annotation's bounds, on both sides, as they travel."""
    base, origin = _base(annotation)
    bound = bounds(annotation)
    lengths = [
        length + step
        for length in (bound.get("min_length", 1), bound.get("max_length", 9))
        for step in (-1, 0, 1)
        if length + step >= 0
    ]
    choices = [STRANGE]
    examples = [plain_value(example) for example in kind_of(annotation).examples]
    if examples:
        choices.append(st.sampled_from(examples))
    if origin in (Union, UnionType):
        choices += [near(member) for member in get_args(base)]
    elif origin is list:
        item = near(get_args(base)[0])
        choices.append(st.lists(item, max_size=4))
        if examples:
            repeated = [
                example[:1] * length
                for example in examples
                for length in lengths
                if length <= _ITEMS_MAX
            ]
            choices.append(st.sampled_from(repeated))
    elif origin is tuple:
        items = [near(item) for item in get_args(base)]
        choices.append(st.tuples(*items).map(list))
        choices.append(st.tuples(*items[:-1]).map(list))
        choices.append(st.tuples(*items, SCALARS).map(list))
    elif base is int:
        edges = [edge for name in ("ge", "le") if (edge := bound.get(name)) is not None]
        around = [edge + step for edge in edges for step in (-1, 0, 1)]
        choices.append(st.sampled_from([n for n in around if -(1 << 63) <= n < 1 << 64] or [0]))
    elif base is bytes:
        choices.append(st.sampled_from(lengths).map(bytes))
    elif base is str:
        widths = {
            characters
            for length in lengths
            for width in (1, 2, 3, 4)
            for characters in (length // width, -(-length // width))
        }
        choices.append(
            st.builds(lambda n, char: char * n, st.sampled_from(sorted(widths)), _characters())
        )
    return st.one_of(choices)


def plain_value(value: Any) -> Any:
    """A value as it comes out of msgpack: lists, no tuples."""
    return msgpack.unpackb(msgpack.packb(value))


def packed(value: Any) -> bytes:
    """As msgpack, texts that are no UTF-8 included."""
    data: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return data


def _annotations() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in OPERATIONS:
        for name, hint in hints_of(kind).items():
            if hint not in found.values():
                found[f"{kind.__name__}.{name}"] = hint
    return found


ANNOTATIONS = _annotations()
"""Every kind of field there is, by a field that has it."""

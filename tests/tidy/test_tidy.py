"""The source is tidy: nothing unused, one meaning per name, no bare tags, no bare assertions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pysyncobj
import pytest

from tests.tidy import exceptions
from tests.tidy.source import ROOT, Source, modules_of, product
from tools import lines

Found = dict[str, set[str]]


@cache
def sources() -> tuple[Source, ...]:
    return tuple(product())


def unused(modules: Iterable[Source], names: set[str], methods: set[str]) -> Found:
    """Module-level names and private methods that nothing reads, by file.

    What the ``__init__`` of a package exports is for users; ``names`` and ``methods`` are read by
    others.
    """
    modules = list(modules)
    used: Counter[str] = Counter()
    for source in modules:
        used.update(source.used)
        if source.path.endswith("__init__.py"):
            used.update(source.exported)
    found: Found = {}
    for source in modules:
        idle = {name for name, _ in source.own_names() if name not in names}
        idle |= {name for name, _ in source.private_methods() if name not in methods}
        idle -= (+used).keys()
        if idle:
            found[source.path] = idle
    return found


def words_of(paths: Iterable[Path]) -> set[str]:
    return {word for path in paths for word in re.findall(r"\w+", path.read_text())}


def read_by_c() -> set[str]:
    return words_of((ROOT / "raftckpt/capi").rglob("*.[ch]"))


def called_by_pysyncobj() -> set[str]:
    words = words_of(Path(pysyncobj.__file__).parent.glob("*.py"))
    return words | {f"_SyncObj{word}" for word in words if word.startswith("__")}


def doubles(modules: Iterable[Source]) -> Found:
    """Class names with more than one meaning: more than one module defines them.

    Twins have one: the asyncio face of a class, in a module ``aio*`` of its room, and the class.
    """
    found: Found = {}
    for source in modules:
        for name in source.classes():
            found.setdefault(name, set()).add(source.path)
    return {name: paths for name, paths in found.items() if len(paths - twins(paths)) > 1}


def twins(paths: set[str]) -> set[str]:
    """The asyncio faces among the modules, each the only one beside the only other of its room."""
    rooms: dict[Path, list[str]] = {}
    for path in map(Path, sorted(paths)):
        rooms.setdefault(path.parent, []).append(path.name)
    return {
        str(room / face)
        for room, pair in rooms.items()
        if len(pair) == 2
        for face, other in (pair, pair[::-1])
        if face.startswith("aio") and not other.startswith("aio")
    }


def bare_tags(modules: Iterable[Source]) -> Found:
    return {
        source.path: texts
        for source in modules
        if (texts := {text for _, text in source.bare_tags()})
    }


def compared(found: Found, table: Found) -> list[str]:
    """What is found and not in the table, and what is in the table and not found."""
    lines = []
    for key in sorted(found.keys() | table.keys()):
        here, there = found.get(key, set()), table.get(key, set())
        lines += [f"{key}: {item}" for item in sorted(here - there)]
        lines += [f"{key}: {item}: remove it from the exceptions" for item in sorted(there - here)]
    return lines


def test_every_name_is_used() -> None:
    assert compared(unused(sources(), read_by_c(), called_by_pysyncobj()), exceptions.UNUSED) == []


def test_a_class_name_has_one_meaning() -> None:
    assert compared(doubles(sources()), exceptions.CLASS_NAMES) == []


def test_a_class_name_has_one_meaning_in_the_tests() -> None:
    """Who reads ``Cluster`` in a test should not have to look which of six it is."""
    assert compared(doubles(modules_of("tests")), exceptions.TEST_CLASS_NAMES) == []


def test_tags_have_names() -> None:
    assert compared(bare_tags(sources()), exceptions.BARE_TAGS) == []


def test_beliefs_are_ensured() -> None:
    """``python -O`` removes assert statements."""
    assert [f"{source.path}:{line}" for source in sources() for line in source.asserts()] == []


def test_what_is_exported_exists() -> None:
    missing = [
        f"{source.path}: {name}"
        for source in sources()
        for name in source.exported
        if name not in source.defined
    ]
    assert missing == []


# --- the tests can fail --------------------------------------------------------------------------

UNTIDY = '''
"""``unused_in_a_text`` does not count."""
__all__ = ["exported_and_unused", "missing"]
UNUSED = 1
_UNUSED: int = 2
class Untidy:
    def _unused(self): return self._used()
    def _used(self): return __dunder__
def exported_and_unused(): ...
@cache
def wrapped_and_unused(): ...
@command()
def registered(): ...
def quoted(): ...
def uses(x: "quoted"): assert x[0] == 24; return Untidy, tag in (1, 2)
match kind:
    case 3: ...
if tag == OTHER or count == 5 or x[1] == 5: uses
'''


def test_what_is_unused_is_found() -> None:
    found = unused([Source("a.py", UNTIDY)], {"_UNUSED", "_unused"}, set())
    assert found == {"a.py": {"UNUSED", "_unused", "exported_and_unused", "wrapped_and_unused"}}
    user = Source("b.py", "from a import UNUSED as A, wrapped_and_unused\nx._unused()")
    assert unused([Source("a.py", UNTIDY), user], set(), {"_unused"}) == {
        "a.py": {"_UNUSED", "exported_and_unused"}
    }
    package = Source("p/__init__.py", '__all__ = ["exported_and_unused"]')
    assert (
        "exported_and_unused" not in unused([Source("a.py", UNTIDY), package], set(), set())["a.py"]
    )


def test_doubles_bare_tags_and_assertions_are_found() -> None:
    source = Source("a.py", UNTIDY)
    assert doubles([source, Source("b.py", "class Untidy: ...")]) == {"Untidy": {"a.py", "b.py"}}
    assert bare_tags([source]) == {"a.py": {"x[0] == 24", "tag in (1, 2)", "3"}}
    assert len(list(source.asserts())) == 1
    assert [name for name in source.exported if name not in source.defined] == ["missing"]


@pytest.mark.parametrize(
    ("paths", "alike"),
    [
        ("room/aio.py room/sync.py", True),
        ("room/aio_x.py room/x.py", True),
        ("room/aio.py other/sync.py", False),
        ("room/aio.py room/aio_x.py", False),
        ("room/aio.py room/sync.py room/x.py", False),
        ("room/aio.py room/sync.py other/x.py", False),
        ("room/aio/x.py room/x.py", False),
    ],
)
def test_only_the_faces_of_one_room_are_twins(paths: str, alike: bool) -> None:
    found = doubles(Source(path, "class X: ...") for path in paths.split())
    assert found == ({} if alike else {"X": set(paths.split())})


@pytest.mark.parametrize(("found", "table"), [({"a": {"x"}}, {}), ({}, {"a": {"x"}})])
def test_a_table_is_exact(found: Found, table: Found) -> None:
    assert len(compared(found, table)) == 1
    assert compared(found, found) == []


def test_lines_of_code_are_counted() -> None:
    text = '"""Docs\nof two lines."""\n\n# why\nx = """a\nb"""  # text in code\n"""about x"""\n'
    assert lines.code_lines(text) == 2
    assert lines.code_lines('def f(\n    a,\n):\n    "docs"\n    return a\n') == 4
    assert lines.room_of("raftckpt/model/machine.py") == "raftckpt/model"
    assert lines.room_of("raftckpt/errors.py") == "raftckpt/errors.py"
    assert all((ROOT / path).exists() for path in lines.GENERATED)

"""Names in order, as they come and go, and pages of them; ids that begin with a prefix."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import pytest

from raftckpt.model import order, queries
from raftckpt.model.order import SortedNames, beyond
from tests.unit.model.driver import DrivenMachine, attributes


def test_random_names_against_sorting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_CHUNK", 4)
    for seed in range(50):
        rng = random.Random(f"order/{seed}")
        there = {f"{rng.randrange(300):03}" for _ in range(rng.choice([0, 1, 30]))}
        names = SortedNames(there)
        for _ in range(300):
            name = f"{rng.randrange(300):03}"
            if name in there:
                names.remove(name)
                there.remove(name)
            else:
                names.add(name)
                there.add(name)
            first = f"{rng.randrange(320):03}"[: rng.randrange(4)]
            wanted = sorted(name for name in there if name >= first)
            assert list(islice(names.begin(first), 20)) == wanted[:20]
        assert list(names.begin("")) == sorted(there)
        assert all(map(len, names._chunks)), "no chunk is empty"
        assert max(map(len, names._chunks), default=0) <= 8


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"", None), (b"a", b"b"), (b"a\xff", b"b"), (b"\xff\xff", None)]
)
def test_what_begins_with_a_prefix_lies_before(prefix: bytes, end: bytes | None) -> None:
    assert beyond(prefix) == end
    for some in (b"", b"\x00", b"\xff\xff\xff"):
        assert end is None or prefix + some < end


def page(cluster: DrivenMachine, tag: int, *fields: Any) -> list[Any]:
    rows = cluster.ask(tag, *fields)
    if not hasattr(rows, "rows"):
        return list(rows)
    for _ in rows.prepare():
        pass
    assert len(rows) == len(list(rows.rows()))
    return list(rows.rows())


def test_pages_of_many_sections_are_those_of_sorting_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "EAGER_ROWS", 4)
    rng = random.Random("pages")
    cluster = DrivenMachine()
    client = cluster.session()
    handle = client.open(fields=attributes(sections=1 << 20))
    ids = [rng.choice([b"", b"a", b"\xff", b"b\xff"]) + b"%04d" % n for n in range(5000)]
    rng.shuffle(ids)
    for section_id in ids:
        assert client.put(handle, section_id, b"").ok
    for prefix in (b"", b"a", b"\xff", b"b\xff", b"a12", b"none"):
        for after in (None, b"", b"a1", b"b\xff2", b"\xff\xff\xff"):
            for limit in (1, 7, 3000, 10_000):
                wanted = sorted(
                    i for i in ids if i.startswith(prefix) and (after is None or i > after)
                )
                found = page(cluster, 125, "ckpt", prefix, after, limit)
                assert found == wanted[:limit], (prefix, after, limit)


def test_pages_of_checkpoints_survive_unlinks_and_restarts() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    names = [f"{kind}{number:02}" for number in range(20) for kind in "ab"]
    handles = {name: client.open(name) for name in names}
    client.do(12, "a03")  # unlinked, and still open
    client.do(12, "a05")
    client.do(11, handles["a05"])
    client.do(12, "a03")  # there is none any more
    client.open("a05")
    left = [name for name in sorted(names) if name != "a03"]
    for machine in (cluster.machine, cluster.restored()):
        other = DrivenMachine(machine)

        def asked(*fields: Any, cluster: DrivenMachine = other) -> list[str]:
            return [row.name for row in page(cluster, 127, *fields)]

        assert asked("", None, 100) == left
        assert asked("a", "a04", 3) == ["a05", "a06", "a07"]
        assert asked("b", "a04", 2) == ["b00", "b01"]
        assert asked("c", None, 2) == []

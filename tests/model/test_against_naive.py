"""Our machine and the naive one are given the same histories; both must answer the same.

Beside it runs a third machine that is replaced by the restoration of its own image again and again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from raftckpt.model import content, image, lifecycle, parts
from raftckpt.model.changes import ChangeKind, replay
from raftckpt.model.checkpoints import Checkpoint
from raftckpt.model.expiry import DueIndex
from raftckpt.model.image import digest
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.replies import ReplyTable
from raftckpt.model.sessions import Session
from raftckpt.model.state import State
from raftckpt.model.types import Result
from raftckpt.model.values import Pages, store
from raftckpt.protocol.batch import encode_batch
from raftckpt.protocol.contract import PAGE_BYTES, SA_TIME_MAX
from raftckpt.protocol.kinds import PartKind
from tests.fuzz.profile import EXAMPLES
from tests.messages import ask

from .naive import Naive

MS = 1_000_000
IDS = st.sampled_from([b"a", b"b", b"c", b"long id", b""])
NAMES = st.sampled_from(["x", "y"])
SHAPES = st.sampled_from(
    [
        [1, 0, SA_TIME_MAX, 3, 40, 4],
        [1, 0, 50 * MS, 3, 3 * PAGE_BYTES, 4],
        [2, 0, 5 * MS, 1, 40, 4],
        [10, 0, 50 * MS, 2, 40, 4],
        [12, 0, 0, 3, 3 * PAGE_BYTES, 4],
    ]
)
DATA = st.one_of(
    st.binary(max_size=45),
    st.builds(
        lambda fill, size: bytes([fill]) * size,
        st.integers(0, 255),
        st.sampled_from([PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 2 * PAGE_BYTES + 7]),
    ),
)
STAGE = st.integers(1, 2)
HANDLE = st.sampled_from([1, 1, 1, 2, 2, 3, 9])
OFFSETS = st.one_of(st.integers(0, 50), st.integers(PAGE_BYTES - 3, 3 * PAGE_BYTES))
EXPIRATION = st.one_of(st.just(SA_TIME_MAX), st.integers(-1, 300).map(lambda ms: ms * MS))
TTL = st.one_of(st.none(), st.none(), st.integers(-1, 100).map(lambda ms: ms * MS))


def command(tag: int, *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.tuples(st.just(tag), *fields).map(list)


FLAGS = st.sampled_from([7, 7, 7, 5, 6, 4])
OPEN = st.tuples(NAMES, FLAGS, SHAPES).map(lambda o: [10, o[0], o[1], o[2]])
REOPEN = st.tuples(NAMES, st.sampled_from([1, 2, 3])).map(lambda o: [10, o[0], o[1], None])
ELEMENT = st.tuples(IDS, OFFSETS, st.one_of(DATA, STAGE)).map(list)
NOW = "now"
"""In the place of a condition: the revision that the section has."""
NEWEST = -1
"""In the place of a handle: the last one that the session opened."""
CONDITION = st.sampled_from([None, None, None, NOW, NOW, 0, 3])
PART = st.one_of(
    st.tuples(st.just(1), st.one_of(st.none(), IDS), st.just(0), DATA, st.none(), EXPIRATION, TTL),
    st.tuples(
        st.sampled_from([2, 3, 5]), IDS, st.just(0), st.one_of(DATA, DATA, STAGE), CONDITION,
        st.just(SA_TIME_MAX), st.none(),
    ),
    st.tuples(
        st.just(4), IDS, OFFSETS, st.one_of(DATA, DATA, STAGE), CONDITION, st.just(SA_TIME_MAX),
        st.none(),
    ),
    st.tuples(
        st.just(6), IDS, st.just(0), st.just(b""), CONDITION, st.just(SA_TIME_MAX), st.none()
    ),
).map(list)  # fmt: skip
CONTENT = st.one_of(
    command(20, HANDLE, IDS, st.one_of(DATA, STAGE), EXPIRATION, TTL),
    command(21, HANDLE, IDS),
    command(22, HANDLE, IDS, EXPIRATION, TTL),
    command(23, HANDLE, IDS, st.one_of(DATA, DATA, STAGE)),
    command(24, HANDLE, IDS, st.one_of(DATA, DATA, STAGE)),
    command(24, HANDLE, IDS, st.binary(max_size=45)),
    command(25, HANDLE, st.lists(ELEMENT, max_size=3)),
    command(26, STAGE, st.sampled_from([0, 0, 5, PAGE_BYTES]), DATA),
    command(27, HANDLE, IDS),
    command(28, HANDLE, PART),
    command(29, HANDLE, st.lists(PART, max_size=5)),
)
PREFIX = st.sampled_from([b"", b"", b"a", b"l", b"z"])
AFTER = st.sampled_from([None, None, b"", b"a", b"b"])
SIZES = st.one_of(st.none(), st.integers(0, 50), st.just(3 * PAGE_BYTES))
QUERY = st.one_of(
    command(100, HANDLE, st.lists(st.tuples(IDS, OFFSETS, SIZES).map(list), max_size=3)),
    command(101, HANDLE),
    command(103, HANDLE, st.integers(1, 5), st.integers(0, 300).map(lambda ms: ms * MS)),
    command(106, HANDLE),
    command(102, HANDLE),
    command(105, HANDLE, IDS),
    command(108, HANDLE, st.lists(IDS, max_size=3)),
    command(109, HANDLE),
    command(113, HANDLE),
    command(125, HANDLE, PREFIX, AFTER, st.integers(1, 4)),
    command(126, HANDLE, PREFIX, AFTER, st.integers(1, 4)),
    command(127, st.sampled_from(["", "x"]), st.sampled_from([None, "x"]), st.integers(1, 2)),
)
LIFE = st.one_of(
    OPEN,
    OPEN,
    REOPEN,
    command(11, HANDLE),
    command(12, NAMES),
    command(13, HANDLE, st.sampled_from([-1, 0, 20 * MS, SA_TIME_MAX])),
    command(14, HANDLE, st.booleans()),
    command(14, HANDLE, st.just(False)),
)
CALL = st.one_of(CONTENT, CONTENT, CONTENT, LIFE, LIFE, command(2))
STEP = st.one_of(
    st.tuples(st.just("call"), st.integers(0, 2), CALL, st.sampled_from([0] * 8 + [-1, 1])),
    st.tuples(st.just("call"), st.integers(0, 2), CALL, st.just(0)),
    st.tuples(st.just("call"), st.integers(0, 2), CALL, st.just(0)),
    st.tuples(st.just("ask"), st.integers(0, 2), QUERY),
    st.tuples(st.just("due"), st.integers(-10, 80)),
    st.tuples(st.just("expire"), st.integers(0, 2)),
    st.tuples(st.just("check")),
    st.tuples(st.just("restore")),
)


class Born(NamedTuple):
    uid: int
    created: int


class ContentRun:
    """Three machines side by side."""

    def __init__(self, seen: set[tuple[int, str]] | None = None) -> None:
        self.seen = set() if seen is None else seen
        self.ours = CheckpointMachine()
        self.restored = CheckpointMachine()
        self.naive = Naive()
        self.corruptions: set[int] = set()
        self.now = 100 * MS
        self.copies: dict[int, dict[bytes, Any]] = {}  # what a tracker holds, by uid
        self.told = 0
        self.uids = 1
        self.ends: dict[int, tuple[Any, ...]] = {}
        self.kinds: set[int] = set()
        self.clients: list[list[int]] = []
        for k in range(3):
            self.reopen(k)
        for k in range(3):  # a fruitful start: everybody has both names open
            self.call(k, [10, "x", 7, [1, 0, 50 * MS, 3, 3 * PAGE_BYTES, 4]], 0)
            self.call(k, [10, "y", 7, [10, 0, 50 * MS, 2, 40, 4]], 0)

    def reopen(self, k: int) -> None:
        secret = bytes([k, len(self.clients)]) + self.now.to_bytes(14, "big")
        number = self.both([1, 0, 0, 0, secret, "app", f"n{k % 2}", 10**10, 0])[1][0]
        if k < len(self.clients):
            self.clients[k] = [number, 0]
        else:
            self.clients.append([number, 0])

    def both(self, c: list[Any]) -> Any:
        payload = encode_batch(self.now, [c])
        (mine,) = self.ours.apply(self.ours.applied_index + 1, payload)
        (again,) = self.restored.apply(self.restored.applied_index + 1, payload)
        (expected,) = self.naive.apply(self.now, [c])
        assert plain(mine) == expected, c
        assert self.ours.changes == self.restored.changes
        if c[0] == 27 and mine.value == self.ours.revision:
            self.corruptions.add(mine.value)
        self.follow()
        assert plain(again) == expected, c
        self.seen.add((c[0], "ok" if expected[0] == 1 else expected[1]))
        return expected

    def follow(self) -> None:
        """Do as a tracker does: each revision is told once, in order, and replay is enough."""
        changes = self.ours.changes
        told = [change[1] for change in changes]
        assert told == sorted(set(told))
        assert all(revision > self.told for revision in told)
        missing = set(range(self.told + 1, self.ours.revision + 1)) - set(told)
        # the creation of a checkpoint may be missing: nobody can have tracked it before;
        # and a corruption on purpose: it changes no content
        untold = {row.created for row in self.born()} | self.corruptions
        assert missing <= untold, (missing, untold)
        self.told = self.ours.revision
        for change in changes:
            uid, revision, kind, session, _, _, detail = change
            self.kinds.add(kind)
            assert uid not in self.ends, "a change behind the end"
            copy = self.copies.setdefault(uid, {})
            replay(copy, change)
            if kind == ChangeKind.DESTROYED:
                assert uid not in self.ours.checkpoints
                self.ends[uid] = change
                del self.copies[uid]
            elif kind == ChangeKind.ACTIVE_CHANGED and revision == self.ours.revision:
                checkpoint = self.ours.checkpoints[uid]
                assert detail == [
                    checkpoint.active, checkpoint.epoch, checkpoint.exclusive, checkpoint.owner,
                ]  # fmt: skip
            elif kind == ChangeKind.RETENTION_SET and revision == self.ours.revision:
                assert detail == self.ours.checkpoints[uid].attributes.retention_ns
            if kind in (ChangeKind.WRITTEN, ChangeKind.OVERWRITTEN, ChangeKind.DELETED):
                assert session in [client[0] for client in self.clients]
            if kind == ChangeKind.EXPIRED:
                assert session == 0

    def born(self) -> list[Any]:
        """Checkpoints this step created, with the revision of their creation."""
        known, self.uids = self.uids, self.ours.next_uid
        return [Born(uid, self.told + 1) for uid in range(known, self.uids)]

    def call(self, k: int, call: list[Any], skew: int) -> None:
        number, last = self.clients[k]
        sequence = last + 1 + skew
        if call[1:2] == [NEWEST]:
            handles = self.naive.sessions.get(number, {"handles": ()})["handles"]
            call = [call[0], max(handles, default=9), *call[2:]]
        if call[0] in (28, 29):
            rows = [call[2]] if call[0] == 28 else call[2]
            rows = [self.conditioned(number, call[1], row) for row in rows]
            call = [*call[:2], rows[0] if call[0] == 28 else rows]
        result = self.both([call[0], number, sequence, max(0, sequence - 3), *call[1:]])
        if result[0] == 9 and result[1] == "session":
            self.reopen(k)
        elif skew == 0:
            self.clients[k][1] = sequence

    def conditioned(self, number: int, handle: int, part: list[Any]) -> list[Any]:
        """A part with a revision in the place of ``NOW``."""
        if part[4] != NOW:
            return part
        handles = self.naive.sessions.get(number, {"handles": {}})["handles"]
        c, _ = handles.get(handle, ({"sections": {}}, 0))
        revision = c["sections"].get(part[1], {"revision": 0})["revision"]
        return [*part[:4], revision, *part[5:]]

    def ask(self, k: int, query: list[Any]) -> None:
        number = self.clients[k][0]
        expected = self.naive.ask(number, *query)
        for machine in (self.ours, self.restored):
            result = ask(machine, number, *query)
            found = plain(result)
            if result.ok:
                found = (1, told_by(query[0], result.value))
                if query[0] == 101:
                    found[1][1].sort()
            assert found == expected, query
        self.seen.add((query[0], "ok" if expected[0] == 1 else expected[1]))

    def compare(self) -> None:
        assert digest(self.ours.freeze()) == digest(self.restored.freeze())
        assert self.ours.revision == self.naive.revision
        rows = ask(self.ours, None, 104).value[1]
        assert [row.uid for row in rows] == [c["uid"] for c in self.naive.checkpoints]
        for row, c in zip(rows, self.naive.checkpoints, strict=True):
            openers = [s["id"] for s in self.naive.openers(c)]
            assert (
                row.name, list(row.attributes), row.active, row.epoch, row.exclusive,
                row.unlinked, row.retention_until_ns, row.revision, [o[0] for o in row.openers],
            ) == (
                c["name"], c["attributes"], c["active"], c["epoch"], c["exclusive"],
                c["unlinked"], c["until"], c["revision"], openers,
            )  # fmt: skip
            assert row.memory_used == sum(len(s["data"]) for s in c["sections"].values())
            assert row.corrupted == sum(s.get("corrupted", False) for s in c["sections"].values())
            sections = self.ours.checkpoints[row.uid].sections
            copy = self.copies.get(row.uid, {})
            assert {i: (bytes(data), due) for i, (data, due) in copy.items()} == {
                i: (bytes(section[0]), section[1]) for i, section in sections.items()
            }
            assert [
                (section_id, bytes(data), due, at, revision)
                for section_id, (data, due, at, revision) in sections.items()
            ] == [
                (section_id, s["data"], s["due"], s["at"], s["revision"])
                for section_id, s in c["sections"].items()
            ]


def plain(result: Result) -> Any:
    if result.ok:
        return (1, result.value)
    return (result.code, result.value.reason, result.value.position)


def told_by(tag: int, value: Any) -> Any:
    """What a query was told, as the naive model tells it."""
    if tag in (109, 113):
        return value
    revision, told = value
    if tag == 102:
        return [revision, [told.uid, told.name, told.sections, told.memory_used, told.revision]]
    if tag == 105:
        return [revision, bytes(told)]
    return [revision, [row.name if tag == 127 else rows_of(row) for row in told]]


def rows_of(row: Any) -> Any:
    """Plain lists and bytes."""
    if isinstance(row, bytes):
        return row
    if isinstance(row, Pages):
        return bytes(row)
    return [bytes(field) if isinstance(field, Pages) else field for field in row]


def drive(run: ContentRun, steps: Iterable[Any]) -> None:
    for kind, *rest in steps:
        if kind == "call":
            run.call(*rest)
        elif kind == "ask":
            run.ask(*rest)
        elif kind == "due":
            run.now += rest[0] * MS
            run.both([40, 0, 0, 0])
        elif kind == "expire":
            run.both([3, 0, 0, 0, [run.clients[rest[0]][0], 77]])
            run.reopen(rest[0])
        elif kind == "check":
            run.both([41, 0, 0, 0, b"nonce"])
        else:
            run.compare()
            run.restored = CheckpointMachine.restore(run.restored.freeze())
    run.compare()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(STEP, min_size=10, max_size=40))
def test_answers_what_the_naive_model_answers(steps: list[Any]) -> None:
    """Few and short histories, but a failure shrinks to its core."""
    drive(ContentRun(), steps)


# --- the same by the thousand: no shrinking, and rare outcomes must have happened ---------------


def random_data(rng: random.Random) -> bytes:
    size = rng.choice([0, 3, 20, 41, PAGE_BYTES, PAGE_BYTES + 1, 2 * PAGE_BYTES + 7])
    return bytes([rng.randrange(256)]) * size


def random_part(rng: random.Random) -> list[Any]:
    section_id = rng.choice([b"a", b"a", b"b", b"c", b"d", b"", b"long id"])
    data = rng.choice([random_data(rng), b"small", b"small", b"small", rng.randrange(1, 3)])
    wanted = rng.choice([None, None, None, None, NOW, NOW, 0, 3])
    offset = rng.choice([0, 1, 30, PAGE_BYTES - 1, 150_000])
    at = rng.choice([SA_TIME_MAX, SA_TIME_MAX, rng.randrange(-1, 900) * MS])
    ttl = rng.choice([None, None, rng.randrange(-1, 100) * MS])
    kind = rng.choice([1, 2, 2, 3, 4, 5, 5, 6])
    if kind == 1:
        return [1, rng.choice([section_id, None]), 0, data, None, at, ttl]
    if kind == 6:
        data = b""
    return [kind, section_id, offset if kind == 4 else 0, data, wanted, SA_TIME_MAX, None]


def random_call(rng: random.Random) -> list[Any]:
    handle = rng.choice([1, 1, 1, 2, 2, 2, 3, 4, 5])
    section_id = rng.choice([b"a", b"a", b"b", b"c", b"d", b"", b"long id"])
    data = rng.choice([random_data(rng), b"small", b"small", rng.randrange(1, 3)])
    at = rng.choice([SA_TIME_MAX, SA_TIME_MAX, rng.randrange(-1, 900) * MS])
    ttl = rng.choice([None, None, rng.randrange(-1, 100) * MS])
    name = rng.choice("xy")
    vector = [
        [rng.choice([b"a", b"b", b""]), rng.choice([0, 1, 30, PAGE_BYTES - 1, 150_000]), data],
        [b"a", rng.randrange(40), b"piece"],
    ][: rng.choice([0, 1, 2, 2, 2])]
    shape = rng.choice(
        [
            [1, 0, 50 * MS, 3, 3 * PAGE_BYTES, 4],
            [10, 0, 50 * MS, 2, 40, 4],
            [2, 0, 5 * MS, 1, 40, 4],
            [12, 0, 0, 3, 3 * PAGE_BYTES, 4],
            [1, 0, SA_TIME_MAX, 3, 40, 4],
        ]
    )
    return rng.choice(
        [
            [10, name, rng.choice([7, 7, 5, 6]), shape],
            [10, name, rng.choice([7, 7, 5, 6]), shape],
            [10, name, rng.choice([1, 2, 3]), None],
            [11, handle],
            [12, name],
            [13, handle, rng.choice([-1, 0, 20 * MS, SA_TIME_MAX])],
            [14, handle, rng.random() < 0.3],
            [14, handle, False],
            [20, handle, section_id, data, at, ttl],
            [20, handle, section_id, data, at, ttl],
            [21, handle, section_id],
            [22, handle, section_id, at, ttl],
            [22, handle, section_id, at, ttl],
            [23, handle, section_id, data],
            [23, handle, section_id, data],
            [24, handle, section_id, data],
            [24, handle, section_id, data],
            [25, handle, vector],
            [25, handle, vector],
            [26, rng.randrange(1, 3), rng.choice([0, 0, 20, PAGE_BYTES]), random_data(rng)],
            [26, rng.randrange(1, 3), 0, b"staged"],
            [27, handle, section_id],
            [27, handle, b"a"],
            [28, handle, random_part(rng)],
            [28, handle, random_part(rng)],
            [29, handle, [random_part(rng) for _ in range(rng.randrange(5))]],
            [29, handle, [random_part(rng) for _ in range(rng.randrange(5))]],
        ]
    )


def random_query(rng: random.Random) -> list[Any]:
    handle = rng.choice([1, 1, 1, 2, 2, 2, 3, 4, 5])
    offset = rng.choice([0, 0, 1, 30, PAGE_BYTES, 3 * PAGE_BYTES])
    vector = [
        [rng.choice([b"a", b"b", b""]), offset, rng.choice([None, 0, 10, PAGE_BYTES])],
        [b"a", 0, None],
    ][: rng.choice([0, 1, 1, 2])]
    prefix, after = rng.choice([b"", b"", b"a", b"l"]), rng.choice([None, None, b"", b"a", b"b"])
    section_id = rng.choice([b"a", b"a", b"b", b""])
    return rng.choice(
        [
            [102, handle],
            [105, handle, section_id],
            [105, handle, section_id],
            [108, handle, [b"b", section_id, b"z"]],
            [109, handle],
            [113, handle],
            [125, handle, prefix, after, rng.randrange(1, 5)],
            [126, handle, prefix, after, rng.randrange(1, 5)],
            [127, rng.choice(["", "x"]), rng.choice([None, "x"]), rng.randrange(1, 3)],
            [100, handle, vector],
            [100, handle, vector],
            [101, handle],
            [103, handle, rng.randrange(1, 6), rng.randrange(0, 900) * MS],
            [106, handle],
        ]
    )


def random_step(rng: random.Random) -> tuple[Any, ...]:
    draw = rng.randrange(100)
    if draw < 16:
        return ("ask", rng.randrange(3), random_query(rng))
    if draw < 90:
        return ("call", rng.randrange(3), random_call(rng), rng.choice([0] * 20 + [-1, -2, -9, 1]))
    if draw < 96:
        return ("due", rng.randrange(-10, 60))
    if draw < 97:
        return ("call", rng.randrange(3), [2], 0)
    return ("expire", rng.randrange(3)) if draw < 98 else (rng.choice(["restore", "check"]),)


def random_steps(rng: random.Random) -> Iterable[tuple[Any, ...]]:
    for _ in range(400):
        yield random_step(rng)
        if rng.random() < 0.04:
            yield from after_corruption(rng)
        if rng.random() < 0.03:
            yield from together(rng)


def together(rng: random.Random) -> Iterable[tuple[Any, ...]]:
    """Transactions most of whose parts can be done; of those drawn one by one few are."""
    k = rng.randrange(3)
    yield ("call", k, [24, NEWEST, b"a", b"before"], 0)
    likely = [
        [2, b"a", 0, b"put", NOW, SA_TIME_MAX, None],
        [5, b"a", 0, b"append", None, SA_TIME_MAX, None],
        [5, b"a", 0, b"more", NOW, SA_TIME_MAX, None],
        [2, b"b", 0, random_data(rng)[:20], NOW, SA_TIME_MAX, None],
        [4, b"b", rng.randrange(9), b"write", None, SA_TIME_MAX, None],
        [6, b"b", 0, b"", NOW, SA_TIME_MAX, None],
        [1, None, 0, random_data(rng), None, SA_TIME_MAX, rng.choice([None, 0, 20 * MS])],
    ]
    yield ("call", k, [29, NEWEST, [rng.choice(likely) for _ in range(rng.randrange(2, 5))]], 0)
    yield ("call", k, [28, NEWEST, rng.choice(likely)], 0)


def after_corruption(rng: random.Random) -> Iterable[tuple[Any, ...]]:
    """What is tried on a corrupted section; by chance alone it is rarely the same one."""
    k, handle = rng.randrange(3), rng.choice([1, 2, 3])
    yield ("call", k, [27, handle, b"a"], 0)
    yield rng.choice(
        [
            ("call", k, [22, handle, b"a", SA_TIME_MAX, None], 0),
            ("call", k, [25, handle, [[b"a", 0, b"x"]]], 0),
            ("call", k, [28, handle, [5, b"a", 0, b"x", None, SA_TIME_MAX, None]], 0),
            ("call", k, [29, handle, [[4, b"a", 0, b"x", NOW, SA_TIME_MAX, None]]], 0),
            ("ask", k, [105, handle, b"a"]),
            ("ask", k, [100, handle, [[b"a", 0, None]]]),
            ("ask", k, [101, handle]),
        ]
    )
    yield rng.choice(
        [
            ("call", k, [21, handle, b"a"], 0),
            ("call", k, [23, handle, b"a", b"mended"], 0),
            ("call", k, [24, handle, b"a", b"mended"], 0),
            ("ask", k, [103, handle, 4, 0]),
        ]
    )


OUTCOMES = {
    10: "ok checkpoint_missing attributes_differ gap answered",
    11: "ok handle",
    12: "ok checkpoint_missing",
    13: "ok handle schema no_right fenced unlinked",
    14: "ok handle no_right not_collocated",
    20: "ok handle no_right fenced section_id schema no_active section_too_big default_section "
    "section_exists sections_full stage",
    21: "ok handle param no_right fenced no_active default_section section_missing",
    22: "ok handle schema no_right fenced no_active default_section section_missing time_past "
    "corrupted",
    23: "ok handle no_right fenced no_active section_missing section_too_big stage",
    24: "ok handle no_right fenced no_active sections_full section_too_big stage section_id",
    25: "ok handle no_right fenced no_active section_missing section_too_big stage param corrupted",
    26: "ok stage schema",
    27: "ok handle no_right fenced no_active section_missing",
    28: "ok handle schema no_right fenced no_active conflict section_too_big section_id "
    "sections_full section_exists section_missing default_section corrupted stage",
    29: "ok handle schema no_right fenced no_active conflict section_too_big section_id "
    "sections_full section_exists section_missing default_section corrupted stage param",
    100: "ok handle param no_right no_active section_missing section_too_big offset corrupted",
    101: "ok handle no_right no_active corrupted",
    103: "ok handle no_right no_active",
    106: "ok handle no_right no_active",
    102: "ok handle no_right no_active",
    105: "ok handle no_right no_active section_missing corrupted",
    108: "ok handle no_right no_active",
    109: "ok handle no_right no_active synchronous",
    113: "ok handle no_right",
    125: "ok handle no_right no_active",
    126: "ok handle no_right no_active",
    127: "ok",
}


def test_long_histories_reach_every_outcome() -> None:
    seen: set[tuple[int, str]] = set()
    kinds: set[int] = set()
    for seed in range(max(40, EXAMPLES)):
        rng = random.Random(seed)
        run = ContentRun(seen)
        drive(run, random_steps(rng))
        kinds |= run.kinds
    assert kinds == set(ChangeKind) - {ChangeKind.IMAGE, ChangeKind.RESYNC}
    wanted = {(tag, word) for tag, words in OUTCOMES.items() for word in words.split()}
    assert sorted(wanted - seen) == []


# --- the checker checked: each of these bugs must be caught ---------------------------------------


def _no_dedup(self: ReplyTable, sequence: int, answered: int) -> None:
    return None


def _forget_cancel(self: DueIndex, uid: int, section_id: bytes) -> None:
    return None


def _no_dead_staging(self: Session, number: int) -> Any:
    stage = self.stages.get(number)
    return None if stage is None else stage.value()


def _write_short(value: Any, offset: int, data: Any) -> Any:
    joined = bytes(value)[:offset].ljust(offset, b"\0") + bytes(data)
    return store(joined)


def _keep_active(self: Checkpoint, session: int, node: str, flags: int) -> bool:
    active = self.active
    leave(self, session, node, flags)
    self.active = active
    self.regard()
    return False


def _image_without_generation(state: Any, reader: Any) -> None:
    load_checkpoint(state, reader)
    checkpoint = state.checkpoints[max(state.checkpoints)]
    checkpoint.sections = dict(sorted(checkpoint.sections.items()))


def _tell_nobody_of_expiry(self: State, *args: Any, **rest: Any) -> int:
    revision = revise(self, *args, **rest)
    if args[1] == ChangeKind.EXPIRED:
        self.changes.pop()
    return revision


def _no_conditions(checkpoint: Any, now_ns: int, rows: Any, **named: Any) -> Any:
    return planned(checkpoint, now_ns, [(*row[:4], None, *row[5:]) for row in rows], **named)


def _keep_half(state: Any, session: Any, handle: int, rows: Any, **named: Any) -> Any:
    plan = begin(state, session, handle, rows, **named)
    some = begin(state, session, handle, rows[:-1], **named) if isinstance(plan, Result) else plan
    if rows[:-1] and isinstance(plan, Result) and not isinstance(some, Result):
        revision = state.revise(
            some.checkpoint, ChangeKind.TRANSACTION, session.id, None, some.told
        )
        parts._carry_out(state, some, revision)
    return plan


def _append_to_what_was_before(plan: Any, part: Any) -> Any:
    old = plan.checkpoint.sections.get(part[1])
    if old is None or plan.find(part[1]) is None:
        return parts._append(plan, part)
    plan.write(part[1], len(old[0]), part[3])
    return len(old[0])


def _a_revision_for_each(state: Any, plan: Any, revision: int) -> None:
    carry_out(state, plan, revision)
    for section_id in list(plan.content)[1:]:
        row = plan.checkpoint.sections.get(section_id)
        if row is not None:
            state.revision = plan.checkpoint.revision = state.revision + 1
            plan.checkpoint.sections[section_id] = (*row[:3], state.revision)


planned, begin, carry_out = parts._planned, parts._begin, parts._carry_out
revise = State.revise
leave = Checkpoint.leave
load_checkpoint = image._load_checkpoint
BUGS: list[tuple[Any, str, Any]] = [
    (ReplyTable, "admit", _no_dedup),
    (DueIndex, "cancel", _forget_cancel),
    (Session, "take_stage", _no_dead_staging),
    (content, "write_at", _write_short),
    (Checkpoint, "leave", _keep_active),
    (Checkpoint, "refuse_inactive", lambda self: None),
    (Checkpoint, "refuse_change", lambda self, flags, session: self.refuse_writer(flags)),
    (Checkpoint, "refuse_size", lambda self, size, position=None: None),
    (Checkpoint, "differences", lambda self, other: []),
    (Checkpoint, "regard", lambda self: None),
    (content, "_refuse_more", lambda checkpoint: None),
    (image, "_load_checkpoint", _image_without_generation),
    (State, "sweep", lambda self, limit: self.sessions.clear()),
    (lifecycle, "RETENTION", b"other"),
    (Checkpoint, "mend", lambda self, section_id: None),
    (Checkpoint, "refuse_corrupted", lambda self, section_id, position=None: None),
    (State, "revise", _tell_nobody_of_expiry),
    (lifecycle, "_EXPIRED", int(ChangeKind.DELETED)),
    (content, "_WRITTEN", int(ChangeKind.OVERWRITTEN)),
    (parts, "_planned", _no_conditions),
    (parts, "_begin", _keep_half),
    (parts, "_PARTS", {**parts._PARTS, PartKind.APPEND: _append_to_what_was_before}),
    (parts, "_carry_out", _a_revision_for_each),
    (parts, "store", lambda data: data),
]


@pytest.mark.parametrize(
    ("where", "name", "bug"), BUGS, ids=[f"{w.__name__}.{n}" for w, n, _ in BUGS]
)
def test_planted_bugs_are_caught(
    where: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, bug)

    def histories() -> None:
        for seed in range(40):
            rng = random.Random(seed)
            drive(ContentRun(), random_steps(rng))

    with pytest.raises(Exception):  # noqa: B017 - wrong answers or a broken invariant
        histories()

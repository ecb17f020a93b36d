"""What is accepted of a client, what is refused, and how; one table, whichever way it is asked."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftckpt.errors import REASONS
from raftckpt.protocol import contract
from raftckpt.protocol.check import (
    Malformed,
    Reader,
    array_of,
    command_reader,
    read_requests,
    request_reader,
)
from raftckpt.protocol.frames import pack_messages
from raftckpt.protocol.kinds import SCHEMA, judge, own_check
from raftckpt.protocol.operations import (
    COMMANDS,
    EARLY,
    LOGGED,
    OPERATIONS,
    QUERIES,
    REQUESTS,
    STRUCTURAL,
    ClusterCommand,
    Command,
    Query,
    Request,
    SessionExpire,
)
from tests.messages import COMMAND_TAGS, REQUEST_TAGS, check_request
from tests.unit.protocol.values import (
    ANNOTATIONS,
    STRANGE,
    hints_of,
    near,
    packed,
    plain,
    plain_value,
)

GOOD: dict[int, list[Any]] = {
    row.tag: plain(next(row.examples())) for kind, row in OPERATIONS.items() if kind in REQUESTS
}
"""One good message of each kind that a client may send, as it travels."""


def test_every_message_has_good_examples() -> None:
    assert set(GOOD) == REQUEST_TAGS
    for kind, row in OPERATIONS.items():
        readers = [request_reader] * (kind in REQUESTS) + [command_reader] * (kind in LOGGED)
        assert readers
        for made in row.examples():
            for reader in readers:
                fields = plain(made)
                assert reader.record(fields) == made
                assert reader.decode(msgspec.msgpack.encode([made])) == [made]
                assert plain(array_of(made)) == fields


def test_the_sets_and_the_leading_fields_agree() -> None:
    assert COMMANDS | QUERIES < REQUESTS
    assert COMMANDS < LOGGED
    assert not QUERIES & LOGGED
    assert set(OPERATIONS) == REQUESTS | LOGGED
    assert {OPERATIONS[kind].tag for kind in LOGGED - COMMANDS} == {3, 40, 41, 42, 54, 69, 70}
    assert EARLY | STRUCTURAL < LOGGED
    assert not EARLY & STRUCTURAL
    assert len({row.name for row in OPERATIONS.values()}) == len(OPERATIONS)
    for kind, row in OPERATIONS.items():
        (base,) = [b for b in (Request, Command, Query, ClusterCommand) if issubclass(kind, b)]
        leading = list(base.__struct_fields__)
        assert [*leading, *row.fields] == list(kind.__struct_fields__), row.name
        assert row.data == "" or row.data in row.fields
        assert issubclass(kind, Command | ClusterCommand) == (kind in LOGGED)


@pytest.mark.parametrize("tag", sorted({3, 40, 41, 54, 0, 99, 107, 120, 203, -1, 2**70}))
def test_tags_that_no_client_may_send(tag: int) -> None:
    problem = check_request([tag, 1, 1, 0])
    assert problem is not None
    assert problem[:2] == (7, "schema")


@pytest.mark.parametrize("message", [None, 5, b"", {}, [], [None], [True, 1], [b"x"], [[1]], [1.0]])
def test_what_is_no_message(message: Any) -> None:
    problem = check_request(message)
    assert problem is not None
    assert problem[1] == "schema"


@pytest.mark.parametrize("tag", sorted(GOOD))
def test_wrong_arity(tag: int) -> None:
    for message in (GOOD[tag][:-1], [*GOOD[tag], 0]):
        problem = check_request(message)
        assert problem is not None
        assert problem[:2] == (7, "schema")


@pytest.mark.parametrize("tag", sorted(GOOD))
def test_a_bool_is_no_int_and_types_are_exact(tag: int) -> None:
    for place, good in enumerate(GOOD[tag]):
        if place == 0:
            continue
        for bad in (1.5, {}, object(), True if type(good) is not bool else 1):
            message = [*GOOD[tag][:place], bad, *GOOD[tag][place + 1 :]]
            problem = check_request(message)
            assert problem is not None, (message, place)
            assert problem[1] in REASONS
    for place in [i for i, value in enumerate(GOOD[tag]) if type(value) is int and i]:
        for bad in (-1, 2**63):
            assert check_request([*GOOD[tag][:place], bad, *GOOD[tag][place + 1 :]]) is not None


@pytest.mark.parametrize(
    ("tag", "place", "value", "code", "reason"),
    [
        (1, 2, 1, 7, "schema"),
        (1, 4, b"short", 7, "schema"),
        (1, 5, "x" * 257, 26, "limit"),
        (1, 6, "n" * 65, 26, "limit"),
        (1, 7, contract.SESSION_TIMEOUT_NS_MIN - 1, 7, "param"),
        (1, 7, contract.SESSION_TIMEOUT_NS_MAX + 1, 7, "param"),
        (2, 2, 0, 7, "schema"),
        (10, 4, "", 7, "param"),
        (10, 4, "x" * 2049, 26, "limit"),
        (10, 4, "ü" * 1025, 26, "limit"),
        (10, 4, "\ud800", 7, "schema"),
        (10, 5, 0, 25, "flags"),
        (10, 5, 8, 25, "flags"),
        (10, 6, [1, 2, 3], 7, "schema"),
        (10, 6, [1, 2, 3, 4, 5, True], 7, "schema"),
        (20, 5, b"", 7, "section_id"),
        (20, 5, b"x" * 1025, 7, "section_id"),
        (20, 6, b"x" * (contract.INLINE_WRITE_BYTES_MAX + 1), 18, "write_too_big"),
        (23, 5, b"x" * 1025, 7, "section_id"),
        (23, 6, b"x" * (contract.INLINE_WRITE_BYTES_MAX + 1), 18, "write_too_big"),
        (24, 6, 0, 7, "schema"),
        (24, 6, "text", 7, "schema"),
        (25, 5, [], 7, "param"),
        (25, 5, [[b"id", 0, b""]] * 4097, 18, "limit"),
        (25, 5, [[b"id", -1, b""]], 7, "schema"),
        (25, 5, [[b"id", 0]], 7, "schema"),
        (25, 5, [["id", 0, b""]], 7, "schema"),
        (25, 5, [[b"x" * 1025, 0, b""]], 7, "section_id"),
        (25, 5, [[b"i", 0, b"x" * 600_000]] * 2, 18, "write_too_big"),
        (26, 6, b"", 7, "schema"),
        (26, 6, b"x" * (contract.STAGE_CHUNK_BYTES + 1), 18, "write_too_big"),
        (50, 4, "", 7, "param"),
        (51, 5, "x" * 257, 26, "limit"),
        (53, 6, "", 7, "param"),
        (100, 3, 2, 7, "schema"),
        (100, 4, "", 7, "param"),
        (100, 5, [], 7, "param"),
        (100, 5, [[b"id", 0, None]] * 4097, 18, "limit"),
        (100, 5, [[b"id", 0, -1]], 7, "schema"),
        (100, 5, [[b"x" * 1025, 0, None]], 7, "section_id"),
        (103, 5, 6, 7, "param"),
        (103, 5, 0, 7, "param"),
        (122, 2, "n" * 65, 26, "limit"),
        (123, 2, b"", 7, "schema"),
        (123, 2, b"x" * 65, 7, "schema"),
        (200, 2, [], 7, "schema"),
        (200, 2, [1] * 65, 7, "schema"),
        (200, 2, [True], 7, "schema"),
        (200, 4, "t" * 5000, 26, "limit"),
    ],
)
def test_what_is_refused_and_how(tag: int, place: int, value: Any, code: int, reason: str) -> None:
    message = [*GOOD[tag][:place], value, *GOOD[tag][place + 1 :]]
    problem = check_request(message)
    assert problem is not None
    if tag in COMMAND_TAGS:
        # refused before the log: the number is unused, and only "schema" says so
        assert problem[:2] == (code, "schema")
        if reason != "schema":
            assert problem[2].startswith(REASONS[reason][1].split("{")[0])
    else:
        assert problem[:2] == (code, reason)
    assert reason in REASONS


def test_limits_are_inclusive() -> None:
    for tag, place, value in [
        (10, 4, "x" * 2048),
        (10, 4, "ü" * 1024),
        (23, 5, b"x" * 1024),
        (23, 6, b"x" * contract.INLINE_WRITE_BYTES_MAX),
        (25, 5, [[b"id", 0, b""]] * 4096),
        (26, 6, b"x" * contract.STAGE_CHUNK_BYTES),
        (1, 5, "x" * 256),
        (11, 4, 2**63 - 1),
    ]:
        assert check_request([*GOOD[tag][:place], value, *GOOD[tag][place + 1 :]]) is None


# --- one verdict, however it is come by ---------------------------------------------------------


def accepted(annotation: Any, decode: Any, value: Any) -> bool:
    """Whether the decoder and what it leaves to be checked take a value that travels."""
    try:
        decoded = decode(packed(value))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    own = own_check(annotation)
    return own is None or own(decoded) is None


@pytest.mark.parametrize("field", ANNOTATIONS)
def test_the_judge_agrees_with_the_decoder(field: str) -> None:
    annotation = ANNOTATIONS[field]
    decode = msgspec.msgpack.Decoder(annotation).decode

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(near(annotation))
    def check(value: Any) -> None:
        verdict = judge(annotation, value)
        assert (verdict is True) == accepted(annotation, decode, value)
        if type(verdict) is tuple:
            assert verdict[1] in REASONS
            assert verdict[1] != SCHEMA
        else:
            assert type(verdict) is bool

    check()


def test_the_judge_agrees_about_the_longest_list() -> None:
    annotation = hints_of(SessionExpire)["sessions"]
    decode = msgspec.msgpack.Decoder(annotation).decode
    for count in (contract.SESSIONS_MAX, contract.SESSIONS_MAX + 1):
        value = [1] * count
        good = count <= contract.SESSIONS_MAX
        assert accepted(annotation, decode, value) == good
        assert (judge(annotation, value) is True) == good


@pytest.mark.parametrize("reader", [request_reader, command_reader], ids=["client", "log"])
@pytest.mark.parametrize("kind", sorted(OPERATIONS, key=lambda kind: OPERATIONS[kind].tag))
def test_a_message_is_the_same_decoded_in_one_step_or_by_the_table(
    kind: type[Any], reader: Reader
) -> None:
    row = OPERATIONS[kind]
    hints = hints_of(kind)
    records = REQUESTS if reader is request_reader else LOGGED
    fields = st.tuples(*map(st.sampled_from, zip_examples(kind)))
    spoiled = st.tuples(
        fields.map(list),
        st.dictionaries(st.integers(0, len(hints) - 1), st.integers(0), max_size=2).flatmap(
            lambda places: st.fixed_dictionaries(
                {place: near(list(hints.values())[place]) for place in places}
            )
        ),
        st.sampled_from([0, 0, 0, 0, 0, -1, 1]),
    )

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(spoiled)
    def check(parts: Any) -> None:
        values, changes, arity = parts
        for place, value in changes.items():
            values[place] = value
        values = [*values, None] if arity > 0 else values[: len(values) + arity]
        message = [row.tag, *values]
        try:
            (decoded,) = reader.decode(packed([message]))
        except ValueError:
            assert r"\ud800" in repr(message), "only what is no msgpack text"
            return
        made = reader.record(message)
        assert type(decoded) is type(made)
        good = (
            kind in records
            and len(values) == len(hints)
            and all(judge(hint, v) is True for hint, v in zip(hints.values(), values, strict=True))
        )
        assert (type(made) is kind) == good
        if type(made) is Malformed:
            assert repr(decoded.problem) == repr(made.problem)
            assert repr(plain_value(decoded.content)) == repr(message)
        else:
            assert decoded == made
            assert plain(made) == message

    check()


def zip_examples(kind: type[Any]) -> list[Any]:
    """By field: what the examples of a record have there."""
    rows = [plain(made)[1:] for made in OPERATIONS[kind].examples()]
    return [list(column) for column in zip(*rows, strict=True)]


@given(st.recursive(STRANGE, lambda inner: st.lists(inner, max_size=9), max_leaves=30))
def test_it_never_raises(message: Any) -> None:
    problem = check_request(message)
    assert problem is None or problem[1] in REASONS


def test_it_is_cheap_for_the_load() -> None:
    messages = [
        [24, 123_456 + n, 123_456 + n, 123_450, 7, b"section", b"x" * 100] for n in range(100)
    ]
    body = pack_messages(messages)[8:]
    best = min(_seconds(body) for _ in range(5))
    assert best / 100 < 20e-6  # only catches a lost fast path


def _seconds(body: bytes) -> float:
    started = time.process_time()
    for _ in range(20):
        read_requests(body)
    return (time.process_time() - started) / 20

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftckpt import errors
from raftckpt.client import operations
from raftckpt.client.calls import Call, Needs
from raftckpt.client.operations import Opened
from raftckpt.client.parts import Parts, change, new_part
from raftckpt.client.types import (
    Attributes,
    CheckpointStatus,
    CheckReport,
    ClusterStatus,
    Image,
    Nanoseconds,
    ReplicaStatus,
    SectionStatus,
    duration_ns,
    time_ns,
)
from raftckpt.model.types import CheckpointDescriptor, CreationAttributes, SectionDescriptor
from raftckpt.protocol import contract
from raftckpt.protocol.kinds import PartKind
from raftckpt.protocol.operations import StageChunk
from tests.messages import check_request

UTC = timezone.utc  # noqa: UP017
OPENED = Opened(5, "c", 1, True, Attributes(), 0)
IDS = st.one_of(st.binary(max_size=1100), st.text(max_size=20), st.integers(), st.none())
DATA = st.one_of(
    st.binary(max_size=50), st.sampled_from([bytes(2_000_000), "text", None, bytearray(b"x")])
)
NUMBERS = st.one_of(st.integers(-5, 2**65), st.booleans(), st.none(), st.floats())
TEXTS = st.one_of(
    st.text(max_size=30), st.binary(max_size=30), st.none(), st.just("x" * 3000), st.just("\ud800")
)
TIMES = st.one_of(NUMBERS, st.datetimes(), st.datetimes(timezones=st.just(UTC)), st.text())
CHOICE = st.sampled_from(["linearizable", "local", "any", "forever", "x", None])


def messages_of(call: Call) -> list[Any]:
    """Everything the core would send for ``call``."""
    message = call.message
    if message is None:
        return []
    found: list[Any] = []
    while (chunk := call.next_chunk()) is not None:
        stage, data = chunk
        stage.number = stage.number or 1
        stage.tell(stage.number)
        found.append(StageChunk(1, 1, 0, stage.number, stage.offset, bytes(data)))
        stage.offset += len(data)
    if call.needs is Needs.COMMAND:
        message.session, message.sequence, message.answered = 1, 1, 0
        return [*found, message]
    messages = [message] if call.by_name is None else [message, call.by_name]
    for query in messages:
        query.request = 1
    return messages


def changed(kind: PartKind, section_id: Any, data: Any, offset: Any, if_revision: Any) -> Call:
    """As the faces make it: only a write has an offset."""
    at = {"offset": offset} if kind == PartKind.WRITE else {}
    return change("x", OPENED, new_part(kind, section_id, data, if_revision=if_revision, **at))


def together(rows: list[tuple[Any, ...]]) -> Call:
    parts = Parts()
    for name, *arguments in rows:
        getattr(parts, name)(*arguments)
    return parts._call(OPENED)


BUILDERS = st.one_of(
    st.tuples(st.just(operations.put), st.just(OPENED), IDS, DATA),
    st.tuples(st.just(operations.overwrite), st.just(OPENED), IDS, DATA),
    st.tuples(st.just(operations.write), st.just(OPENED), IDS, DATA, NUMBERS),
    st.tuples(
        st.just(operations.write_many),
        st.just(OPENED),
        st.lists(st.tuples(IDS, NUMBERS, DATA), max_size=3),
    ),
    st.tuples(st.just(operations.create), st.just(OPENED), IDS, DATA, TIMES, NUMBERS),
    st.tuples(st.just(operations.delete), st.just(OPENED), IDS),
    st.tuples(st.just(operations.corrupt_section), st.just(OPENED), IDS),
    st.tuples(st.just(operations.set_expiration), st.just(OPENED), IDS, TIMES, NUMBERS),
    st.tuples(st.just(operations.set_retention), st.just(OPENED), NUMBERS),
    st.tuples(st.just(operations.active_replica_set), st.just(OPENED), st.booleans()),
    st.tuples(st.just(operations.read), st.just(OPENED), IDS, NUMBERS, NUMBERS, CHOICE),
    st.tuples(
        st.just(operations.read_many),
        st.just(OPENED),
        st.lists(st.tuples(IDS, NUMBERS, NUMBERS), max_size=3),
        CHOICE,
    ),
    st.tuples(st.just(operations.read_versioned), st.just(OPENED), IDS, CHOICE),
    st.tuples(st.just(operations.read_all), st.just(OPENED), CHOICE),
    st.tuples(st.just(operations.section_ids), st.just(OPENED), CHOICE),
    st.tuples(st.just(operations.sections), st.just(OPENED), CHOICE, TIMES, CHOICE),
    st.tuples(st.just(operations.status), st.just(OPENED), CHOICE),
    st.tuples(st.just(operations.count), st.just(OPENED), CHOICE),
    st.tuples(st.just(operations.checkpoints), CHOICE),
    st.tuples(
        st.just(operations.open_checkpoint),
        TEXTS,
        st.one_of(st.none(), st.builds(Attributes, size=NUMBERS, retention=NUMBERS)),
        st.sampled_from(["r", "w", "rw", "", "x", None]),
    ),
    st.tuples(st.just(operations.unlink), TEXTS),
    st.tuples(st.just(operations.transfer), TEXTS),
    st.tuples(
        st.just(changed),
        st.sampled_from([PartKind.PUT, PartKind.OVERWRITE, PartKind.WRITE, PartKind.APPEND]),
        IDS,
        DATA,
        NUMBERS,
        NUMBERS,
    ),
    st.tuples(
        st.just(together),
        st.lists(
            st.one_of(
                st.tuples(st.just("create"), IDS, DATA),
                st.tuples(st.sampled_from(["put", "overwrite", "write", "append"]), IDS, DATA),
                st.tuples(st.just("delete"), IDS),
            ),
            min_size=1,
            max_size=4,
        ),
    ),
    st.tuples(st.just(operations.section_id_page), st.just(OPENED), IDS, IDS, NUMBERS, CHOICE),
    st.tuples(st.just(operations.section_page), st.just(OPENED), IDS, IDS, NUMBERS, CHOICE),
    st.tuples(st.just(operations.checkpoint_page), TEXTS, TEXTS, NUMBERS, CHOICE),
)


@given(BUILDERS)
@settings(max_examples=600, deadline=None)
def test_what_is_built_the_schema_accepts(made: tuple[Any, ...]) -> None:
    """Else a command would get a number and be refused without using it."""
    builder, *arguments = made
    messages = []
    with suppress(errors.CheckpointError):
        messages = messages_of(builder(*arguments))
    for message in messages:
        assert check_request(message) is None


def test_the_fixed_calls_pass_the_schema_too() -> None:
    for call in (
        operations.close_checkpoint(OPENED),
        operations.close_session(),
        operations.check_start(),
        operations.ready(),
        operations.synchronize(OPENED),
    ):
        for message in messages_of(call):
            assert check_request(message) is None


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: operations.put(OPENED, 5, b""), errors.InvalidParam),  # type: ignore[arg-type]
        (lambda: operations.put(OPENED, b"x" * 1025, b""), errors.InvalidParam),
        (lambda: operations.put(OPENED, b"x", "text"), errors.InvalidParam),
        (lambda: operations.write_many(OPENED, []), errors.InvalidParam),
        (lambda: operations.write_many(OPENED, [(b"x", 0, b"")] * 4097), errors.NoResources),
        (lambda: operations.write_many(OPENED, [(b"x" * 1000, 0, b"")] * 4000), errors.NoResources),
        (
            lambda: operations.write_many(OPENED, [(b"x", 0, bytes(50 << 20))] * 3),
            errors.NoResources,
        ),
        (lambda: operations.read_many(OPENED, [], "local"), errors.InvalidParam),
        (
            lambda: operations.read_many(OPENED, [(b"x", 0, 1)] * 4097, "local"),
            errors.NoResources,
        ),
        (lambda: operations.create(OPENED, b"", b"", None, None), errors.InvalidParam),
        (lambda: operations.create(OPENED, b"x", b"", 5.0, 5.0), errors.InvalidParam),
        (lambda: operations.transfer("n" * 65), errors.InvalidParam),
        (lambda: operations.checkpoint_name_of(b"\xff"), errors.InvalidParam),
        (lambda: operations.sections(OPENED, "some", None, "local"), errors.InvalidParam),
    ],
)
def test_what_is_refused_before_it_is_sent(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        make()
    assert caught.value.definite  # type: ignore[attr-defined]


def test_the_offending_element_is_named() -> None:
    with pytest.raises(errors.InvalidParam) as caught:
        operations.write_many(OPENED, [(b"a", 0, b""), (b"b", -1, b"")])
    assert caught.value.index == 1


def test_replies_that_make_no_sense() -> None:
    call = operations.create(OPENED, b"x", b"", None, None)
    call.done = True
    call.value = 5
    with pytest.raises(errors.Library) as caught:
        operations.decoded(call)
    assert not caught.value.definite
    query = operations.read_all(OPENED, "local")
    query.value = [1]
    with pytest.raises(errors.Library) as caught:
        operations.decoded(query)
    assert caught.value.definite


# --- records -------------------------------------------------------------------------------


def test_durations_and_times() -> None:
    assert duration_ns(None, "x") == contract.SA_TIME_MAX
    assert duration_ns(float("inf"), "x") == contract.SA_TIME_MAX
    assert duration_ns(1e-8, "x") == 10
    assert duration_ns(2, "x") == 2 * 10**9
    for bad in (-1, float("nan"), "5", b"", [1]):
        with pytest.raises(errors.InvalidParam):
            duration_ns(bad, "x")  # type: ignore[arg-type]
    exact = datetime(2031, 5, 17, 3, 4, 5, 678901, tzinfo=UTC)
    assert time_ns(exact, "x") == 1936753445678901000
    elsewhere = exact.astimezone(timezone(timedelta(hours=-7)))
    assert time_ns(elsewhere, "x") == time_ns(exact, "x")
    assert time_ns(None, "x") == contract.SA_TIME_MAX
    assert time_ns(datetime(2263, 1, 1, tzinfo=UTC), "x") == contract.SA_TIME_MAX
    with pytest.raises(errors.InvalidParam, match="time zone"):
        time_ns(datetime(2031, 1, 1), "x")
    with pytest.raises(errors.InvalidParam, match="1970"):
        time_ns(datetime(1969, 1, 1, tzinfo=UTC), "x")


def test_attributes_travel_both_ways() -> None:
    assert Attributes().to_wire() == list(CreationAttributes())
    for attributes in (
        Attributes(size=1 << 46),
        Attributes("weak", True, 4, 1e-8, 2, 4, 64),
        Attributes("active", False, 100, 60.0, 1, 100, 1),
    ):
        assert Attributes.from_wire(attributes.to_wire()) == attributes
    assert Attributes("weak", True, 4, 1e-8, 2, 4, 64).to_wire() == [12, 4, 10, 2, 4, 64]
    for bad in (
        Attributes("sometimes"),  # type: ignore[arg-type]
        Attributes(max_sections=-1),
        Attributes(max_section_size=2.5),  # type: ignore[arg-type]
        Attributes(size=True),
        Attributes(max_sections=1 << 40, max_section_size=1 << 40),
        Attributes(retention=-1),
    ):
        with pytest.raises(errors.InvalidParam):
            bad.to_wire()


def test_descriptors_become_records() -> None:
    fields = CheckpointDescriptor(
        9, "c", CreationAttributes(), 2, 30, 5 * 10**9, 7, [(1, "me", "n1", 2, 1)], (1, "n1"), 3,
        True, False, 10**10, 1,
    )  # fmt: skip
    status = CheckpointStatus.from_wire(list(fields))
    assert (status.uid, status.created, status.active) == (9, 5.0, (1, "n1"))
    assert (status.retention_until, status.corrupted) == (10.0, 1)
    assert status.openers[0].writers == 1
    section = SectionStatus.from_wire(list(SectionDescriptor(b"i", 5 * 10**8, 3, 2, 10**9, 4)))
    assert (section.expires, section.state, section.updated) == (0.5, "corrupted", 1.0)
    image = Image([[b"a", b"b"]], revision=4)
    assert (dict(image), image.revision) == ({b"a": b"b"}, 4)


def test_cluster_status_takes_the_highest_term() -> None:
    status = ClusterStatus.of(
        [
            ReplicaStatus("n2", "b:1", True, term=3, leader="n2"),
            ReplicaStatus("n1", "a:1", True, term=2, leader="n1"),
            ReplicaStatus("n3", "c:1", False, problem="refused"),
            ReplicaStatus("n1", "a:2", False),
            ReplicaStatus("n2", "b:1", True, term=3, leader="n2"),
        ]
    )
    assert (status.leader, status.term) == ("n2", 3)
    assert [replica.node for replica in status.replicas] == ["n1", "n2", "n3"]
    assert status.replicas[0].reachable
    assert ClusterStatus.of([]).leader is None
    said = {"node": "n1", "role": "leader", "term": 4, "pid": 5, "rss_bytes": 6}
    assert ReplicaStatus.from_wire("a:1", said).detail["rss_bytes"] == 6


def test_check_reports() -> None:
    assert CheckReport(5, {"n1": "a", "n2": "a", "n3": None}).consistent
    assert not CheckReport(5, {"n1": "a", "n2": "b"}).consistent
    assert not CheckReport(5, {"n1": None}).consistent


def test_times_and_ids_of_exact_types() -> None:
    assert duration_ns(Nanoseconds(7), "x") == 7
    assert operations.delete(OPENED, memoryview(b"id")).message.section_id == b"id"  # type: ignore[arg-type]
    assert operations.delete(OPENED, bytearray(b"id")).message.section_id == b"id"  # type: ignore[arg-type]

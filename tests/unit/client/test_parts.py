"""Conditions, appends, transactions and pages: what travels, what comes of it, in both faces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import raftckpt
from raftckpt import Attributes
from raftckpt.client import aio, operations, sync
from raftckpt.client.calls import Call
from raftckpt.client.operations import MESSAGE_BYTES_MAX
from raftckpt.client.parts import Parts, change, new_part
from raftckpt.errors import (
    BadOperation,
    Conflict,
    Exist,
    InvalidParam,
    NoResources,
    SectionNotExist,
    SessionLost,
    Timeout,
    TryAgain,
)
from raftckpt.limits import MIB
from raftckpt.protocol.contract import (
    INLINE_WRITE_BYTES_MAX,
    SA_TIME_MAX,
    VECTOR_ELEMENTS_MAX,
    WRITE_BYTES_MAX,
)
from raftckpt.protocol.kinds import PartKind
from tests.messages import Tag

from .replica_double import LoopbackReplica
from .scripted import OPENED, WEAK, Script, a_transaction, appending

LARGE = INLINE_WRITE_BYTES_MAX + 1


def error_of(call: Call) -> Any:
    assert call.done
    assert call.error is not None
    return call.error


def ready(**config: Any) -> Script:
    script = Script(**config)
    script.ready()
    return script


# --- what travels -----------------------------------------------------------------------------


def test_an_append_and_a_condition() -> None:
    script = ready()
    call = script.start(appending(b"x"))
    (sent,) = script.sent()
    assert sent == [28, sent[1], 1, 0, 5, [5, b"id", 0, b"x", None, SA_TIME_MAX, None]]
    script.reply(sent, [7, 3])
    assert operations.decoded(call) == (3, 7)
    part = new_part(PartKind.WRITE, "é", b"x", offset=4, if_revision=0)
    call = script.start(change("write", OPENED, part))
    (sent,) = script.sent()
    assert sent[5] == [4, "é".encode(), 4, b"x", 0, SA_TIME_MAX, None]
    script.reply(sent, [9, None])
    assert operations.decoded(call) == 9


def test_a_transaction() -> None:
    parts = Parts()
    parts.create(data=b"1", ttl=2.0)
    parts.create("at", expires=5.0)
    parts.put("p", b"2", if_revision=7)
    parts.overwrite("o", bytearray(b"3"))
    parts.write("w", memoryview(b"4"), 8)
    parts.append("a", b"5")
    parts.delete("d", if_revision=8)
    assert len(parts) == 7
    assert parts.revision is None
    script = ready()
    call = script.start(parts._call(OPENED))
    (sent,) = script.sent()
    never = [SA_TIME_MAX, None]
    assert sent[0] == 29
    assert sent[5] == [
        [1, None, 0, b"1", None, SA_TIME_MAX, 2 * 10**9],
        [1, b"at", 0, b"", None, 5 * 10**9, None],
        [2, b"p", 0, b"2", 7, *never],
        [3, b"o", 0, b"3", None, *never],
        [4, b"w", 8, b"4", None, *never],
        [5, b"a", 0, b"5", None, *never],
        [6, b"d", 0, b"", 8, *never],
    ]
    results = [b"id", None, None, None, None, 5, None]
    script.reply(sent, [31, results])
    assert operations.decoded(call) == 31
    assert (parts.revision, parts.results) == (31, results)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda parts: parts.put(None, b""),
        lambda parts: parts.put("a", "text"),
        lambda parts: parts.put("a", b"", if_revision=-1),
        lambda parts: parts.put("a", b"", if_revision=True),
        lambda parts: parts.write("a", b"", -1),
        lambda parts: parts.create("", b""),
        lambda parts: parts.create("a", b"", expires=1.0, ttl=1.0),
        lambda parts: parts.create("a", b"", ttl=-1.0),
        lambda parts: parts.delete(None),
        lambda parts: parts.append(5, b""),
    ],
)
def test_bad_arguments_are_refused_at_once(wrong: Callable[[Parts], None]) -> None:
    parts = Parts()
    with pytest.raises(InvalidParam) as refused:
        wrong(parts)
    assert refused.value.definite
    assert len(parts) == 0


def test_limits_of_a_transaction() -> None:
    parts = Parts()
    for _ in range(VECTOR_ELEMENTS_MAX):
        parts.put("a", b"")
    with pytest.raises(NoResources, match="at most 4096 parts"):
        parts.put("a", b"")
    assert len(parts) == VECTOR_ELEMENTS_MAX
    half = bytes(WRITE_BYTES_MAX // 2)
    parts = Parts()
    parts.put("a", half)
    with pytest.raises(NoResources):
        parts.put("b", half + b"!")
    parts.put("b", half)  # what was refused does not count
    with pytest.raises(NoResources):
        parts.append("b", b"!")
    assert len(parts) == 2


# --- outcomes ----------------------------------------------------------------------------------


def test_a_conflict_says_where_and_what_was_found() -> None:
    script = ready()
    part = new_part(PartKind.PUT, b"id", b"", if_revision=4)
    call = script.start(change("put", OPENED, part))
    script.refuse(script.sent()[0], 20, "conflict", 6)
    error = error_of(call)
    assert isinstance(error, Conflict)
    assert isinstance(error, BadOperation)
    assert (error.definite, error.section, error.revision, error.index) == (True, b"id", 6, None)
    assert "has revision 6, not the one" in error.message
    call = script.start(a_transaction(b"x", b"y", b"z"))
    (sent,) = script.sent()
    script.receive([0, sent[1], 20, ["conflict", 0, 2], True])
    error = error_of(call)
    assert isinstance(error, Conflict)
    assert (error.definite, error.section, error.revision, error.index) == (True, b"2", 0, 2)
    assert "(part 2)" in error.message


def test_a_position_that_is_none() -> None:
    """A replica may say what it likes."""
    script = ready()
    call = script.start(a_transaction(b"x"))
    (sent,) = script.sent()
    script.receive([0, sent[1], 20, ["conflict", None, 9], True])
    error = error_of(call)
    assert isinstance(error, Conflict)
    assert (error.section, error.revision) == (None, 0)


def test_a_conflict_after_a_lost_copy_is_the_remembered_answer() -> None:
    """The reply table gives what the first copy was answered: it stays definite."""
    script = ready()
    part = new_part(PartKind.PUT, b"id", b"", if_revision=4)
    call = script.start(change("put", OPENED, part))
    script.sent()
    script.lost()
    script.attach("n2")
    script.refuse(script.sent()[0], 20, "conflict", 6)
    assert error_of(call).definite


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("make", [appending, a_transaction])
def test_the_same_number_after_a_lost_connection(make: Callable[..., Call], large: bool) -> None:
    script = ready()
    call = script.start(make(bytes(LARGE) if large else b"x"))
    first = script.sent()
    script.lost()
    script.attach("n2")
    again = script.sent()
    assert [[m[0], *m[2:]] for m in again] == [[m[0], *m[2:]] for m in first]
    assert again[-1][2] == (6 if large else 1)
    for message in again[:-1]:
        script.reply(message, None)
    script.reply(again[-1], [3, 0 if make is appending else [None]])
    assert call.done
    assert call.error is None


def test_no_answer_is_indefinite() -> None:
    script = ready()
    call = script.start(appending(b"x"), timeout=0.5)
    script.sent()
    script.advance(0.6)
    assert isinstance(error_of(call), Timeout)
    assert not error_of(call).definite
    call = script.start(a_transaction(b"x"))
    script.sent()
    script.receive([2, "session_lost", "x"])
    assert isinstance(error_of(call), SessionLost)
    assert not error_of(call).definite


def test_asynchronous_checkpoints_do_not_hear_early() -> None:
    script = ready()
    early = script.put(opened=WEAK)
    late = script.start(a_transaction(b"x", opened=WEAK))
    put, sent = script.sent()
    assert (put[2], sent[2]) == (1, 2)  # behind the earlier write
    script.receive([1, put[1]])
    assert early.done
    assert not late.done
    script.reply(put, 3)
    script.reply(sent, [4, [None]])
    assert operations.decoded(late) == 4
    part = new_part(PartKind.PUT, b"id", b"", if_revision=4)
    call = script.start(change("put", WEAK, part))
    script.reply(script.sent()[0], [5, None])
    assert operations.decoded(call) == 5


# --- large data --------------------------------------------------------------------------------


def drain(script: Script, value: Any) -> list[Any]:
    everything = []
    while sent := script.sent():
        everything += sent
        for message in sent:
            script.reply(message, None if message[0] == 26 else value)
    return everything


def test_large_data_is_staged() -> None:
    script = ready()
    data = bytes(range(256)) * 4096 + b"!"
    call = script.start(appending(data))
    *chunks, last = drain(script, [3, 0])
    assert b"".join(chunk[6] for chunk in chunks) == data
    assert last[:1] + last[4:] == [28, 5, [5, b"id", 0, 1, None, SA_TIME_MAX, None]]
    assert call.done


def test_the_largest_parts_are_staged() -> None:
    script = ready()
    call = script.start(a_transaction(b"a" * 600_000, b"b" * 700_000, b"c"))
    *chunks, last = drain(script, [3, [None] * 3])
    assert b"".join(chunk[6] for chunk in chunks) == b"b" * 700_000
    assert [part[3] for part in last[5]] == [b"a" * 600_000, 1, b"c"]
    assert call.error is None


def test_many_parts_fit_into_an_entry() -> None:
    """Small data, too, is staged if thousands of parts would not leave room for it."""
    script = ready()
    parts = Parts()
    for number in range(VECTOR_ELEMENTS_MAX):
        parts.put(b"%06d" % number, bytes(256))
    call = script.start(parts._call(OPENED), 1000.0)
    assert call.bytes_ <= MESSAGE_BYTES_MAX
    sent = drain(script, [3, [None] * len(parts)])
    assert sum(len(m[6]) for m in sent if m[0] == 26) < MIB // 2
    assert call.error is None


def test_ids_that_do_not_fit() -> None:
    parts = Parts()
    for _ in range(VECTOR_ELEMENTS_MAX):
        parts.put(bytes(1024), b"data")
    with pytest.raises(NoResources, match="ids") as refused:
        parts._call(OPENED)
    assert refused.value.definite


@pytest.mark.parametrize("make", [appending, a_transaction])
def test_given_up_in_flight_it_is_plugged_with_its_stages(make: Callable[..., Call]) -> None:
    script = ready()
    call = script.start(make(bytes(LARGE)), timeout=0.2)
    *_, sent = script.sent()
    script.advance(0.2)
    assert isinstance(error_of(call), Timeout)
    script.lost()
    script.attach("n2")
    *chunks, plug = script.sent()
    assert {message[0] for message in chunks} == {11}
    assert plug[:1] + plug[2:4] == sent[:1] + sent[2:4]
    assert plug[4] == 0
    assert plug[5] == sent[5]  # it names the stage
    script.refuse(plug, 9, "handle")
    assert script.core._log.staging.bytes == 0


def test_given_up_half_way_it_never_happens() -> None:
    script = ready()
    call = script.start(appending(bytes(9 * MIB)), timeout=0.2)
    sent = script.sent()
    script.advance(0.2)
    assert isinstance(error_of(call), TryAgain)
    assert error_of(call).definite
    script.receive(*[[0, message[1], 1, None] for message in sent])
    (drop,) = script.sent()
    assert drop[:1] + drop[4:] == [23, 0, b"", 1]


# --- both faces ----------------------------------------------------------------------------------


@pytest.fixture
def replica() -> Iterator[LoopbackReplica]:
    loopback = LoopbackReplica()
    yield loopback
    loopback.close()


def tags(replica: LoopbackReplica) -> list[int]:
    return [message[0] for message in replica.replica.seen]


def play(
    replica: LoopbackReplica,
    story: Callable[[aio.Service, aio.Checkpoint], Coroutine[Any, Any, None]],
    update: Any = "all",
) -> None:
    async def main() -> None:
        async with raftckpt.aio.connect(replica.endpoint, timeout=5.0) as service:
            ckpt = await service.open("c", create=Attributes(update=update))
            await story(service, ckpt)

    asyncio.run(main())


@pytest.mark.parametrize("update", ["all", "active", "weak"])
def test_the_awaitable_face(replica: LoopbackReplica, update: Any) -> None:
    replica.replica.early = True

    async def story(service: aio.Service, ckpt: aio.Checkpoint) -> None:
        assert await ckpt.append("a", b"12") == (0, 2)
        assert await ckpt.append("a", b"345") == raftckpt.Appended(2, 3)
        await ckpt.put("b", b"")
        assert await ckpt.put("a", b"1", if_revision=3) == 5
        with pytest.raises(Conflict) as conflict:
            await ckpt.write("a", b"1", 1, if_revision=3)
        assert (conflict.value.section, conflict.value.revision) == (b"a", 5)
        with pytest.raises(Conflict):
            await ckpt.put("a", b"", if_revision=0)
        assert await ckpt.write("a", b"1", 1, if_revision=5) == 6
        assert await ckpt.overwrite("a", b"9", if_revision=6) == 7
        async with ckpt.transaction() as tx:
            tx.put("a", b"10", if_revision=7)
            tx.append("a", b"!")
            tx.create(data=b"made")
            assert tx.revision is None
        assert (tx.revision, tx.results) == (8, [None, 2, b"\0\0\0\0"])
        assert (await ckpt.read_all()) == {b"a": b"10!", b"b": b"", b"\0\0\0\0": b"made"}
        assert await ckpt.delete("a", if_revision=8) == 9
        await service.close()

    play(replica, story, update)


@pytest.mark.parametrize("update", ["all", "weak"])
def test_the_blocking_face(replica: LoopbackReplica, update: Any) -> None:
    replica.replica.early = True
    with raftckpt.connect(replica.endpoint, timeout=5.0) as service:
        ckpt = service.open("c", create=Attributes(update=update))
        assert ckpt.append("a", b"12") == (0, 2)
        assert ckpt.put("a", b"1", if_revision=2) == 3
        with pytest.raises(
            Conflict, match="'c': the section has revision 3, not the one"
        ) as conflict:
            ckpt.delete("a", if_revision=2)
        assert (conflict.value.section, conflict.value.revision) == (b"a", 3)
        with ckpt.transaction() as tx:
            tx.delete("a", if_revision=3)
            tx.put("a", b"new")
            tx.append("a", b"er")
        assert (tx.revision, tx.results) == (4, [None, None, 3])
        assert ckpt["a"] == b"newer"


def test_a_refused_transaction(replica: LoopbackReplica) -> None:
    with raftckpt.connect(replica.endpoint, timeout=5.0) as service:
        ckpt = service.open("c", create=Attributes())
        ckpt.put("a", b"1")
        with pytest.raises(Conflict) as conflict, ckpt.transaction() as tx:  # noqa: PT012
            tx.put("b", b"2")
            tx.put("a", b"2", if_revision=9)
        assert (conflict.value.section, conflict.value.revision) == (b"a", 2)
        assert (conflict.value.index, conflict.value.definite) == (1, True)
        assert tx.revision is None
        with pytest.raises(SectionNotExist) as missing, ckpt.transaction() as tx:  # noqa: PT012
            tx.put("b", b"2")
            tx.overwrite("z", b"")
        assert missing.value.index == 1
        with pytest.raises(Exist), ckpt.transaction() as tx:
            tx.create("a")
        assert ckpt.read_all() == {b"a": b"1"}


def test_nothing_is_sent_after_an_exception_or_without_parts(replica: LoopbackReplica) -> None:
    with raftckpt.connect(replica.endpoint, timeout=5.0) as service:
        ckpt = service.open("c", create=Attributes())
        with pytest.raises(ValueError, match="mine"), ckpt.transaction() as tx:  # noqa: PT012
            tx.put("a", b"1")
            raise ValueError("mine")
        assert tx.revision is None
        with pytest.raises(InvalidParam), ckpt.transaction() as other:  # noqa: PT012
            other.put("a", b"1")
            other.put("a", "no bytes")
        with ckpt.transaction() as empty:
            pass
        assert empty.revision is None
        assert Tag.CHECKPOINT_TRANSACTION not in tags(replica)
        assert len(ckpt) == 0
        for over in (tx, empty):
            with pytest.raises(BadOperation, match="over"):
                over.put("a", b"1")
            with pytest.raises(BadOperation, match="over"), over:
                pass

    async def story(service: aio.Service, ckpt: aio.Checkpoint) -> None:
        with pytest.raises(ValueError, match="mine"):  # noqa: PT012
            async with ckpt.transaction() as tx:
                tx.put("a", b"1")
                raise ValueError("mine")
        with pytest.raises(BadOperation, match="over"):
            async with tx:
                pass
        assert await ckpt.count() == 0

    play(replica, story)
    assert Tag.CHECKPOINT_TRANSACTION not in tags(replica)


def test_a_block_that_is_cancelled_sends_nothing(replica: LoopbackReplica) -> None:
    async def story(service: aio.Service, ckpt: aio.Checkpoint) -> None:
        entered = asyncio.Event()

        async def block() -> None:
            async with ckpt.transaction() as tx:
                tx.put("a", b"1")
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ckpt.count() == 0

    play(replica, story)
    assert Tag.CHECKPOINT_TRANSACTION not in tags(replica)


def test_without_a_condition_the_commands_are_those_of_old(replica: LoopbackReplica) -> None:
    with raftckpt.connect(replica.endpoint, timeout=5.0) as service:
        ckpt = service.open("c", create=Attributes())
        ckpt.put("a", b"1")
        ckpt.overwrite("a", b"1")
        ckpt.write("a", b"1")
        ckpt.delete("a")
    assert Tag.SECTION_CHANGE not in tags(replica)


def test_a_transaction_behind_accepted_writes(replica: LoopbackReplica) -> None:
    replica.replica.early = True
    with raftckpt.connect(replica.endpoint, timeout=5.0) as service:
        ckpt = service.open("c", create=Attributes(update="weak"))
        ckpt.create("a", b"")
        for number in range(50):
            assert ckpt.put("a", b"%d" % number) is None
        with ckpt.transaction(timeout=3.0) as tx:
            tx.append("a", b"!")
        assert tx.results == [2]
        assert tx.revision == ckpt.synchronize()
        assert ckpt["a"] == b"49!"


def test_large_parts_arrive(replica: LoopbackReplica) -> None:
    with raftckpt.connect(replica.endpoint, timeout=20.0) as service:
        ckpt = service.open("c", create=Attributes())
        data = bytes(range(256)) * 8192
        with ckpt.transaction() as tx:
            tx.put("a", data)
            tx.append("a", data)
            tx.put("b", b"small")
        assert ckpt.append("a", data).offset == 2 * len(data)
        assert ckpt["a"] == 3 * data
        assert ckpt["b"] == b"small"
    assert replica.replica.machine.staged_bytes == 0


# --- pages --------------------------------------------------------------------------------------


def test_pages(replica: LoopbackReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "PAGE_ROWS_MAX", 2)
    with raftckpt.connect(replica.endpoint, timeout=5.0) as service:
        ckpt = service.open("c", create=Attributes())
        for section in ("u2", "u1", "v", "u3", "u5", "u4"):
            ckpt.put(section, section.encode())
        wanted = [b"u1", b"u2", b"u3", b"u4", b"u5"]
        replica.replica.seen.clear()
        assert ckpt.ids(prefix="u") == wanted
        pages = [message[6:] for message in replica.replica.seen if message[0] == 125]
        assert pages == [[None, 2], [b"u2", 2], [b"u4", 2]]
        assert ckpt.ids(prefix="u", limit=3) == wanted[:3]
        assert ckpt.ids(prefix="u", limit=4) == wanted[:4]
        assert ckpt.ids(after="u3") == [b"u4", b"u5", b"v"]
        assert ckpt.ids(prefix=b"u", after=b"u3", limit=1) == [b"u4"]
        assert ckpt.ids(prefix="none") == []
        assert ckpt.ids() == [b"u2", b"u1", b"v", b"u3", b"u5", b"u4"]
        assert [row.id for row in ckpt.sections(prefix="u")] == wanted
        assert [row.id for row in ckpt.sections(after="u4", limit=9)] == [b"u5", b"v"]
        for name in ("app/b", "app/a", "b"):
            service.open(name, create=Attributes())
        assert [row.name for row in service.checkpoints(prefix="app/")] == ["app/a", "app/b"]
        assert [row.name for row in service.checkpoints(limit=1)] == ["app/a"]
        assert [row.name for row in service.checkpoints(after="app/b")] == ["b", "c"]
        assert len(service.checkpoints()) == 4
        for wrong in (0, -1, True, "5"):
            for listing in (ckpt.ids, ckpt.sections, service.checkpoints):
                with pytest.raises(InvalidParam, match="limit"):
                    listing(limit=wrong)


def test_pages_awaited(replica: LoopbackReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "PAGE_ROWS_MAX", 2)

    async def story(service: aio.Service, ckpt: aio.Checkpoint) -> None:
        for section in ("u2", "u1", "v", "u3"):
            await ckpt.put(section, b"")
        assert await ckpt.ids(prefix="u") == [b"u1", b"u2", b"u3"]
        assert [row.id for row in await ckpt.sections(after="u1")] == [b"u2", b"u3", b"v"]
        assert [row.name for row in await service.checkpoints(prefix="c", limit=5)] == ["c"]

    play(replica, story)

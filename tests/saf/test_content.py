"""What the calls do: content, sections, iteration, retention, expiration, limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import raftckpt
from raftckpt import saf as S
from raftckpt.testing import LocalCluster, corrupt_section

from .env import (
    ACTIVE,
    ALL,
    COLLOCATED,
    CREATE,
    MINUTE,
    READ,
    WAIT,
    WEAK,
    WRITE,
    Library,
    attributes,
    create,
    ids,
    new_name,
    read,
    sid,
)
from .rules import rule

OK = S.SA_AIS_OK
NOT_EXIST = S.SA_AIS_ERR_NOT_EXIST
Element = S.SaCkptIOVectorElementT


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def exists(library: Library, name: str) -> bool:
    rc, handle = S.saCkptCheckpointOpen(library.handle, name, None, READ, MINUTE)
    assert rc in (OK, NOT_EXIST)
    if rc == OK:
        assert S.saCkptCheckpointClose(handle) == OK
    return rc == OK


# --- write --------------------------------------------------------------------------------------


@rule(
    "saCkptCheckpointWrite",
    "elements apply in order, at offsets; sections grow, never shrink",
)
def test_write(library: Library) -> None:
    checkpoint = library.open()
    create(checkpoint, b"1", b"0123456789")
    create(checkpoint, b"2")
    vector = [
        Element(sid(b"1"), b"ab", 2, 0),
        Element(sid(b"2"), b"xyz"),
        Element(sid(b"1"), b"c", 1, 1),
        Element(sid(b"1"), b"end", 3, 9, readSize=7),
    ]
    assert S.saCkptCheckpointWrite(checkpoint, vector) == (OK, None)
    assert read(checkpoint, b"1") == b"ac2345678end"
    assert read(checkpoint, b"2") == b"xyz"


@rule("saCkptCheckpointWrite", "a gap beyond the old end reads as zeros")
def test_write_gap(library: Library) -> None:
    checkpoint = library.open()
    create(checkpoint, b"1", b"ab")
    assert S.saCkptCheckpointWrite(checkpoint, [Element(sid(b"1"), b"z", 1, 5)]) == (OK, None)
    assert read(checkpoint, b"1") == b"ab\0\0\0z"


@pytest.mark.parametrize("update", [ALL, ACTIVE, WEAK])
@rule("saCkptCheckpointWrite", "all elements or none; erroneousVectorIndex is the first at fault")
def test_write_is_atomic(library: Library, update: int) -> None:
    checkpoint = library.open(creationFlags=update)
    create(checkpoint, b"1", b"old")
    vector = [Element(sid(b"1"), b"new"), Element(sid(b"none"), b"x"), Element(sid(b"no"), b"x")]
    assert S.saCkptCheckpointWrite(checkpoint, vector) == (NOT_EXIST, 1)
    assert read(checkpoint, b"1") == b"old"


@rule("saCkptCheckpointWrite", "one element for a vector of one; more than a vector may hold")
def test_vectors(library: Library) -> None:
    checkpoint = library.open()
    create(checkpoint, b"1")
    assert S.saCkptCheckpointWrite(checkpoint, Element(sid(b"1"), b"x")) == (OK, None)
    many = [Element(sid(b"1"), b"x")] * 4097
    assert S.saCkptCheckpointWrite(checkpoint, many)[0] == S.SA_AIS_ERR_NO_RESOURCES


# --- overwrite, limits --------------------------------------------------------------------------


@rule("saCkptSectionOverwrite", "replaces the contents; the section may shrink, also to nothing")
def test_overwrite(library: Library) -> None:
    checkpoint = library.open()
    create(checkpoint, b"1", b"long contents")
    for data in (b"short", memoryview(b"view"), bytearray(b"array"), b""):
        assert S.saCkptSectionOverwrite(checkpoint, sid(b"1"), data) == OK
        assert read(checkpoint, b"1") == bytes(data)


@rule("saCkptSectionOverwrite", "25,600,000 bytes where checkpointSize is 4096: it is no quota")
def test_large_overwrite(library: Library) -> None:
    checkpoint = library.open(maxSectionSize=30_000_000, checkpointSize=4096, maxSections=2)
    create(checkpoint, b"1")
    data = bytes(range(256)) * 100_000
    assert S.saCkptSectionOverwrite(checkpoint, sid(b"1"), data) == OK
    assert read(checkpoint, b"1") == data
    element = Element(sid(b"1"), bytearray(8), 8, 25_599_996)
    assert S.saCkptCheckpointRead(checkpoint, [element]) == (OK, None)
    assert (element.readSize, element.dataBuffer[:4]) == (4, bytearray(b"\xfc\xfd\xfe\xff"))


# --- read ---------------------------------------------------------------------------------------


@rule("saCkptCheckpointRead", "fills the caller's buffers up to the section's end, sets readSize")
def test_read(library: Library) -> None:
    checkpoint = library.open()
    create(checkpoint, b"1", b"0123456789")
    create(checkpoint, b"2", b"")
    vector = [
        Element(sid(b"1"), bytearray(b"????"), 4, 3, readSize=99),
        Element(sid(b"1"), bytearray(b"????"), 4, 8),
        Element(sid(b"2"), bytearray(b"????"), 4, 0, readSize=99),
    ]
    assert S.saCkptCheckpointRead(checkpoint, vector) == (OK, None)
    assert [(bytes(e.dataBuffer), e.readSize) for e in vector] == [
        (b"3456", 4), (b"89??", 2), (b"????", 0),
    ]  # fmt: skip


@rule("saCkptCheckpointRead", "allocates a buffer for who gives none; dataSize is then ignored")
def test_read_allocates(library: Library) -> None:
    checkpoint = library.open()
    create(checkpoint, b"1", b"0123456789")
    element = Element(sid(b"1"), None, 3, 4)
    assert S.saCkptCheckpointRead(checkpoint, [element]) == (OK, None)
    assert (element.dataBuffer, element.readSize) == (bytearray(b"456789"), 6)
    assert S.saCkptIOVectorElementDataFree(checkpoint, element.dataBuffer) == OK


@rule("saCkptCheckpointRead", "sees this process's writes at once, in the asynchronous modes too")
def test_read_own_writes(library: Library) -> None:
    checkpoint = library.open(creationFlags=WEAK)
    create(checkpoint, b"1", b"")
    for number in range(30):
        data = b"%d" % number
        assert S.saCkptSectionOverwrite(checkpoint, sid(b"1"), data) == OK
        assert read(checkpoint, b"1") == data


# --- sections -----------------------------------------------------------------------------------


@rule("saCkptSectionCreate", "SA_CKPT_GENERATED_SECTION_ID: an id that is free, handed back")
def test_generated_ids(library: Library) -> None:
    checkpoint = library.open(maxSections=300, maxSectionIdSize=1, checkpointSize=0)
    create(checkpoint, b"\0")  # the first id that would be generated
    seen = set()
    for _ in range(255):
        asked = S.SaCkptSectionCreationAttributesT(S.SA_CKPT_GENERATED_SECTION_ID, S.SA_TIME_END)
        assert S.saCkptSectionCreate(checkpoint, asked, None) == OK
        assert asked.sectionId is not None
        assert asked.sectionId.idLen == 1
        seen.add(asked.sectionId.id)
    assert len(seen | {b"\0"}) == 256
    assert S.SA_CKPT_GENERATED_SECTION_ID.id is None, "the constant is nobody's variable"
    asked = S.SaCkptSectionCreationAttributesT(sid(None), S.SA_TIME_END)
    assert S.saCkptSectionCreate(checkpoint, asked, None) == S.SA_AIS_ERR_NO_SPACE


@rule("saCkptSectionIdFree", "takes the id that a create generated")
def test_id_free(library: Library) -> None:
    checkpoint = library.open()
    asked = S.SaCkptSectionCreationAttributesT(sid(None), S.SA_TIME_END)
    assert S.saCkptSectionCreate(checkpoint, asked, b"x") == OK
    assert asked.sectionId is not None
    assert S.saCkptSectionIdFree(checkpoint, asked.sectionId.id) == OK


@rule("saCkptSectionCreate", "the default section: there from creation, never expires, counts")
def test_default_section(library: Library) -> None:
    checkpoint = library.open(maxSections=1, checkpointSize=100)
    _, status = S.saCkptCheckpointStatusGet(checkpoint)
    assert status is not None
    assert (status.numberOfSections, status.memoryUsed) == (1, 0)
    assert S.saCkptSectionOverwrite(checkpoint, S.SA_CKPT_DEFAULT_SECTION_ID, b"data") == OK
    assert read(checkpoint, None) == b"data"
    _, iteration = S.saCkptSectionIterationInitialize(checkpoint, S.SA_CKPT_SECTIONS_ANY, 0)
    rc, found = S.saCkptSectionIterationNext(iteration)
    assert rc == OK
    assert (found.sectionId.idLen, found.expirationTime, found.sectionSize) == (0, S.SA_TIME_END, 4)
    assert ids(checkpoint, S.SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME, S.SA_TIME_END) == []


@rule("saCkptSectionDelete", "the section is gone, its space is free")
def test_delete(library: Library) -> None:
    checkpoint = library.open(maxSections=2, checkpointSize=0)
    create(checkpoint, b"1")
    create(checkpoint, b"2")
    assert S.saCkptSectionDelete(checkpoint, sid(b"1")) == OK
    assert S.saCkptSectionDelete(checkpoint, sid(b"1")) == NOT_EXIST
    create(checkpoint, b"3")
    assert sorted(ids(checkpoint)) == [b"2", b"3"]


@rule("saCkptSectionExpirationTimeSet", "an expired section vanishes for all; SA_TIME_END: never")
def test_expiration(library: Library) -> None:
    checkpoint = library.open(maxSections=2, checkpointSize=0)
    create(checkpoint, b"short")
    create(checkpoint, b"kept", expires=time.time_ns() + S.SA_TIME_ONE_HOUR)
    soon = time.time_ns() + 300 * S.SA_TIME_ONE_MILLISECOND
    assert S.saCkptSectionExpirationTimeSet(checkpoint, sid(b"short"), soon) == OK
    assert S.saCkptSectionExpirationTimeSet(checkpoint, sid(b"kept"), S.SA_TIME_END) == OK
    until(lambda: ids(checkpoint) == [b"kept"])
    assert ids(checkpoint, S.SA_CKPT_SECTIONS_FOREVER) == [b"kept"]
    create(checkpoint, b"free")


@rule("saCkptSectionCreate", "an expiration in the past is taken, and the section gone at once")
def test_created_expired(library: Library) -> None:
    checkpoint = library.open()
    create(checkpoint, b"1", expires=1)
    assert ids(checkpoint) == []


# --- iteration ----------------------------------------------------------------------------------


@rule("saCkptSectionIterationInitialize", "FOREVER, LEQ and GEQ, to the nanosecond; ANY")
def test_filters(library: Library) -> None:
    checkpoint = library.open()
    at = time.time_ns() // 1000 * 1000 + S.SA_TIME_ONE_HOUR + 123
    create(checkpoint, b"at", expires=at)
    create(checkpoint, b"later", expires=at + 1)
    create(checkpoint, b"never")
    by = {
        (S.SA_CKPT_SECTIONS_FOREVER, 0): [b"never"],
        (S.SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME, at - 1): [],
        (S.SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME, at): [b"at"],
        (S.SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME, S.SA_TIME_END): [b"at", b"later", b"never"],
        (S.SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME, at): [b"at", b"later", b"never"],
        (S.SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME, at + 1): [b"later", b"never"],
        (S.SA_CKPT_SECTIONS_CORRUPTED, 0): [],
        (S.SA_CKPT_SECTIONS_ANY, 0): [b"at", b"later", b"never"],
    }
    for (chosen, time_ns), expected in by.items():
        assert sorted(ids(checkpoint, chosen, time_ns)) == expected


@rule("saCkptSectionIterationNext", "the descriptor: size, state, exact times")
def test_descriptor(library: Library) -> None:
    checkpoint = library.open()
    expires = time.time_ns() + S.SA_TIME_ONE_HOUR
    before = time.time_ns()
    create(checkpoint, b"1", b"12345", expires)
    _, iteration = S.saCkptSectionIterationInitialize(checkpoint, S.SA_CKPT_SECTIONS_ANY, 0)
    rc, found = S.saCkptSectionIterationNext(iteration)
    assert rc == OK
    assert found.sectionId == sid(b"1")
    assert found.expirationTime == expires
    assert (found.sectionSize, found.sectionState) == (5, S.SA_CKPT_SECTION_VALID)
    assert abs(found.lastUpdate - before) < 10 * S.SA_TIME_ONE_MINUTE
    for _ in range(2):
        assert S.saCkptSectionIterationNext(iteration) == (S.SA_AIS_ERR_NO_SECTIONS, None)


@rule("saCkptSectionIterationNext", "under change: what stays comes exactly once, what went not")
def test_iteration_under_change(library: Library) -> None:
    name = new_name()
    checkpoint = library.open(name, maxSections=2000, checkpointSize=0)
    for number in range(600):
        create(checkpoint, b"%d" % number)
    _, iteration = S.saCkptSectionIterationInitialize(checkpoint, S.SA_CKPT_SECTIONS_ANY, 0)
    seen = []
    for number in range(600):
        if number % 3 == 0:
            rc = S.saCkptSectionDelete(checkpoint, sid(b"%d" % (599 - number)))
            assert rc == OK
            create(checkpoint, b"new%d" % number)
        rc, found = S.saCkptSectionIterationNext(iteration)
        if rc != OK:
            assert rc == S.SA_AIS_ERR_NO_SECTIONS
            break
        seen.append(found.sectionId.id)
    assert len(seen) == len(set(seen))
    stayed = {b"%d" % number for number in range(600) if number % 3 != 2}
    missing = stayed - set(seen)
    deleted_later = {b"%d" % (599 - number) for number in range(600) if number % 3 == 0}
    assert missing - deleted_later == set()
    # what was deleted before its turn does not come
    assert set(seen) & {b"599", b"596"} == set()


@rule("saCkptSectionIterationNext", "the descriptor shows what this process wrote since the begin")
def test_iteration_is_fresh(library: Library) -> None:
    checkpoint = library.open()
    create(checkpoint, b"1", b"x")
    create(checkpoint, b"2", b"x")
    _, iteration = S.saCkptSectionIterationInitialize(checkpoint, S.SA_CKPT_SECTIONS_ANY, 0)
    assert S.saCkptSectionOverwrite(checkpoint, sid(b"1"), b"123456") == OK
    _, found = S.saCkptSectionIterationNext(iteration)
    assert found.sectionSize == 6


@rule("saCkptSectionIterationInitialize", "CORRUPTED: sections in that state (fault injection)")
@rule("saCkptSectionOverwrite", "clears the state CORRUPTED; read and write are BAD_OPERATION")
@rule("saCkptSectionDelete", "a section in the state CORRUPTED can be deleted")
def test_corrupted(library: Library, saf_cluster: LocalCluster, monkeypatch) -> None:
    monkeypatch.setattr("raftckpt.saf.section._FRESH_SECONDS", 0.0)  # described by Next
    name = new_name()
    checkpoint = library.open(name, creationFlags=WEAK)
    for section_id in (b"1", b"2", b"3"):
        create(checkpoint, section_id, b"data")
    with raftckpt.connect(saf_cluster.endpoints) as service, service.open(name) as opened:
        corrupt_section(opened, b"1")
        corrupt_section(opened, b"2")
        opened.synchronize()
    chosen = S.SA_CKPT_SECTIONS_CORRUPTED
    assert sorted(ids(checkpoint, chosen)) == [b"1", b"2"]
    _, iteration = S.saCkptSectionIterationInitialize(checkpoint, S.SA_CKPT_SECTIONS_ANY, 0)
    states = {}
    while (answer := S.saCkptSectionIterationNext(iteration))[0] == OK:
        states[answer[1].sectionId.id] = answer[1].sectionState
    assert states == {b"1": 2, b"2": 2, b"3": 1}
    vector = [Element(sid(b"3")), Element(sid(b"1"))]
    bad = (S.SA_AIS_ERR_BAD_OPERATION, 1)
    assert S.saCkptCheckpointRead(checkpoint, vector) == bad
    vector = [Element(sid(b"3"), b"x"), Element(sid(b"1"), b"x")]
    assert S.saCkptCheckpointWrite(checkpoint, vector) == bad
    assert S.saCkptSectionOverwrite(checkpoint, sid(b"1"), b"new") == OK
    assert read(checkpoint, b"1") == b"new"
    assert S.saCkptSectionDelete(checkpoint, sid(b"2")) == OK
    assert ids(checkpoint, chosen) == []


# --- life of a checkpoint -----------------------------------------------------------------------


@pytest.mark.parametrize("retention", [0, 10, 9 * S.SA_TIME_ONE_MILLISECOND])
@rule("saCkptCheckpointClose", "a retention of 0, of 10 ns, below 10 ms: gone with its last opener")
def test_no_retention(library: Library, retention: int) -> None:
    name = new_name()
    one, two = (library.open(name, retentionDuration=retention) for _ in range(2))
    assert S.saCkptCheckpointClose(one) == OK
    assert exists(library, name) or not retention  # the other handle keeps it
    assert S.saCkptCheckpointClose(two) == OK
    assert not exists(library, name)


@rule("saCkptCheckpointClose", "retention runs from the last close; opened again, it is kept")
def test_retention(library: Library) -> None:
    name = new_name()
    checkpoint = library.open(name, retentionDuration=S.SA_TIME_ONE_MINUTE)
    create(checkpoint, b"1", b"kept")
    assert S.saCkptCheckpointClose(checkpoint) == OK
    _, again = S.saCkptCheckpointOpen(library.handle, name, None, READ | WRITE, MINUTE)
    assert read(again, b"1") == b"kept"
    short = 200 * S.SA_TIME_ONE_MILLISECOND
    assert S.saCkptCheckpointRetentionDurationSet(again, short) == OK
    _, status = S.saCkptCheckpointStatusGet(again)
    assert status.checkpointCreationAttributes.retentionDuration == short
    assert S.saCkptCheckpointClose(again) == OK
    until(lambda: S.saCkptCheckpointUnlink(library.handle, name) == NOT_EXIST)


@rule("saCkptCheckpointUnlink", "the name goes at once, handles go on, a new one is another")
def test_unlink(library: Library) -> None:
    name = new_name()
    checkpoint = library.open(name, retentionDuration=S.SA_TIME_END)
    create(checkpoint, b"1", b"old")
    assert S.saCkptCheckpointUnlink(library.handle, name) == OK
    assert not exists(library, name)
    another = library.open(name)
    assert read(checkpoint, b"1") == b"old"
    assert ids(another) == []
    assert S.saCkptSectionOverwrite(checkpoint, sid(b"1"), b"new") == OK
    assert S.saCkptCheckpointClose(checkpoint) == OK
    assert exists(library, name)
    assert S.saCkptCheckpointUnlink(library.handle, name) == OK
    assert S.saCkptCheckpointUnlink(library.handle, name) == NOT_EXIST


@rule("saCkptCheckpointUnlink", "of a retained checkpoint: destroyed at once")
def test_unlink_retained(library: Library) -> None:
    name = new_name()
    assert S.saCkptCheckpointClose(library.open(name, retentionDuration=S.SA_TIME_END)) == OK
    assert S.saCkptCheckpointUnlink(library.handle, name) == OK
    assert not exists(library, name)


@rule("saCkptCheckpointStatusGet", "creation attributes as given, sections, bytes used")
def test_status(library: Library) -> None:
    given = attributes(creationFlags=ACTIVE, retentionDuration=12345)
    rc, checkpoint = S.saCkptCheckpointOpen(library.handle, new_name(), given, 7, MINUTE)
    assert rc == OK
    create(checkpoint, b"1", b"123")
    create(checkpoint, b"2", b"45")
    _, status = S.saCkptCheckpointStatusGet(checkpoint)
    assert status == S.SaCkptCheckpointDescriptorT(given, 2, 5)


@rule("saCkptCheckpointOpen", "each open is a handle of its own, with its own rights")
def test_rights_by_handle(library: Library) -> None:
    name = new_name()
    maker = library.open(name)
    create(maker, b"1", b"x")
    reader = library.open(name, READ)
    writer = library.open(name, WRITE)
    neither = library.open(name, CREATE)
    for handle, may_read, may_write in [
        (maker, True, True), (reader, True, False), (writer, False, True), (neither, False, False),
    ]:  # fmt: skip
        access = S.SA_AIS_ERR_ACCESS
        found = S.saCkptCheckpointRead(handle, [Element(sid(b"1"))])[0]
        assert found == (OK if may_read else access)
        rc = S.saCkptSectionOverwrite(handle, sid(b"1"), b"y")
        assert rc == (OK if may_write else access)


@rule("saCkptCheckpointOpen", "the product of the sizes is taken as it is, above 64 bits too")
def test_large_product(library: Library) -> None:
    checkpoint = library.open(
        maxSections=1 << 32, maxSectionSize=1 << 62, checkpointSize=(1 << 64) - 1
    )
    create(checkpoint, b"1", b"x")
    assert read(checkpoint, b"1") == b"x"


@rule("saCkptCheckpointOpen", "a timeout of 0: done at once or not, no opener is left behind")
def test_open_without_time(library: Library) -> None:
    name = new_name()
    for _ in range(5):
        rc, handle = S.saCkptCheckpointOpen(library.handle, name, attributes(), 7, 0)
        assert rc in (OK, S.SA_AIS_ERR_TIMEOUT, S.SA_AIS_ERR_TRY_AGAIN)
        if rc == OK:
            assert S.saCkptCheckpointClose(handle) == OK
    # retention 0: while an opener were left, the name would stay
    until(lambda: not exists(library, name))


# --- active replica -----------------------------------------------------------------------------


def two_nodes(endpoints: str) -> Any:
    for node in ("a", "b"):
        S.configure(endpoints, node=node, timeout=60.0)
        yield Library()
    S.configure(endpoints, timeout=60.0)


@pytest.mark.parametrize("update", [ACTIVE, WEAK])
@rule("saCkptActiveReplicaSet", "none after creation; set by a node, gone with its last opener")
@rule("saCkptSectionIterationNext", "NOT_EXIST when the active replica went meanwhile")
def test_active_replica(saf_cluster, update: int, monkeypatch) -> None:
    monkeypatch.setattr("raftckpt.saf.section._FRESH_SECONDS", 0.0)
    one, two = two_nodes(saf_cluster.endpoints)
    name = new_name()
    mine = one.open(name, creationFlags=update | COLLOCATED)
    theirs = two.open(name, creationFlags=update | COLLOCATED)
    given = S.SaCkptSectionCreationAttributesT(sid(b"1"), S.SA_TIME_END)
    assert S.saCkptSectionCreate(mine, given, b"x") == NOT_EXIST
    for _ in range(2):  # idempotent
        assert S.saCkptActiveReplicaSet(mine) == OK
    assert S.saCkptSectionCreate(mine, given, b"x") == OK
    assert read(theirs, b"1") == b"x"
    _, iteration = S.saCkptSectionIterationInitialize(theirs, S.SA_CKPT_SECTIONS_ANY, 0)
    one.finalize()
    assert S.saCkptCheckpointRead(theirs, [Element(sid(b"1"))])[0] == NOT_EXIST
    assert S.saCkptCheckpointStatusGet(theirs)[0] == NOT_EXIST
    assert S.saCkptSectionIterationNext(iteration) == (NOT_EXIST, None)
    # the new active holds all that the old one had
    assert S.saCkptActiveReplicaSet(theirs) == OK
    assert read(theirs, b"1") == b"x"
    two.finalize()


@rule("saCkptActiveReplicaSet", "two processes of one node share its replica: it stays active")
def test_active_replica_shared(saf_cluster) -> None:
    S.configure(saf_cluster.endpoints, node="same", timeout=60.0)
    one, two = Library(), Library()
    name = new_name()
    mine = one.open(name, creationFlags=WEAK | COLLOCATED)
    theirs = two.open(name, creationFlags=WEAK | COLLOCATED)
    assert S.saCkptActiveReplicaSet(mine) == OK
    create(mine, b"1", b"x")
    one.finalize()
    assert read(theirs, b"1") == b"x"
    two.finalize()


@rule("saCkptActiveReplicaSet", "collocated and synchronous, and not collocated: none is needed")
def test_no_active_replica_needed(library: Library) -> None:
    for flags in (ALL | COLLOCATED, ALL, ACTIVE, WEAK):
        checkpoint = library.open(creationFlags=flags)
        create(checkpoint, b"1", b"x")
        assert read(checkpoint, b"1") == b"x"


# --- synchronize --------------------------------------------------------------------------------


@pytest.mark.parametrize("update", [ACTIVE, WEAK])
@rule("saCkptCheckpointSynchronize", "what was written before is on the replicas afterwards")
def test_synchronize(library: Library, update: int) -> None:
    checkpoint = library.open(creationFlags=update)
    create(checkpoint, b"1")
    for number in range(20):
        assert S.saCkptSectionOverwrite(checkpoint, sid(b"1"), b"%d" % number) == OK
    assert S.saCkptCheckpointSynchronize(checkpoint, S.SA_TIME_END) == OK
    assert S.saCkptCheckpointSynchronizeAsync(checkpoint, 3) == OK
    assert library.wait(3) == ("synchronize", 3, OK)


@rule("saCkptCheckpointSynchronizeAsync", "without a synchronize callback: INIT")
def test_synchronize_async_without_callback() -> None:
    library = Library(callbacks=False)
    checkpoint = library.open(creationFlags=WEAK)
    assert S.saCkptCheckpointSynchronizeAsync(checkpoint, 1) == S.SA_AIS_ERR_INIT
    library.finalize()


@rule("saCkptCheckpointSynchronizeAsync", "without an active replica: NOT_EXIST, synchronously")
def test_synchronize_async_without_active(library: Library) -> None:
    checkpoint = library.open(creationFlags=WEAK | COLLOCATED)
    assert S.saCkptCheckpointSynchronizeAsync(checkpoint, 1) == NOT_EXIST
    assert not library.readable()

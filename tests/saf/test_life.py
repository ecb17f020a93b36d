"""Initializations, selection objects, dispatch, handles: what is no refusal of one call."""

from __future__ import annotations

import logging
import os
import resource
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import pytest

from raftckpt import saf as S
from raftckpt.saf.initialization import CHECKPOINTS, ITERATIONS, LIBRARIES
from tests.waiting import until

from .env import (
    ACTIVE,
    B01,
    B02,
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
BAD_HANDLE = S.SA_AIS_ERR_BAD_HANDLE


def weak(library: Library, **changes: int) -> int:
    return library.open(creationFlags=WEAK, **changes)


# --- selection object ---------------------------------------------------------------------------


@rule("saCkptSelectionObjectGet", "the same descriptor on repeated calls")
def test_same_descriptor(library: Library) -> None:
    assert S.saCkptSelectionObjectGet(library.handle) == (OK, library.fd)
    assert not library.readable()


@rule("saCkptSelectionObjectGet", "valid also without callbacks; quiet, and ended by Finalize")
def test_descriptor_without_callbacks() -> None:
    library = Library(callbacks=False)
    assert not library.readable()
    os.fstat(library.fd)
    library.finalize()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(library.fd)


@rule("saCkptSelectionObjectGet", "readable (level) while at least one callback is pending")
def test_level_readable(library: Library) -> None:
    checkpoint = weak(library)
    for invocation in (1, 2):
        assert S.saCkptCheckpointSynchronizeAsync(checkpoint, invocation) == OK
    pending(library, 2)
    assert library.readable()
    assert library.readable()
    assert S.saCkptDispatch(library.handle, S.SA_DISPATCH_ONE) == OK
    assert library.heard == [("synchronize", 1, OK)]
    assert library.readable()
    assert S.saCkptDispatch(library.handle, S.SA_DISPATCH_ONE) == OK
    assert not library.readable()


def pending(library: Library, count: int) -> None:
    """Wait until so many callbacks wait for dispatch."""
    queue = LIBRARIES[library.handle]._queue
    deadline = time.monotonic() + WAIT
    while len(LIBRARIES[library.handle]._queue) < count:
        assert time.monotonic() < deadline, len(queue)
        time.sleep(0.002)


@rule("saCkptSelectionObjectGet", "obtained while something is pending it is readable at once")
def test_descriptor_made_late() -> None:
    rc, handle, _ = S.saCkptInitialize(S.SaCkptCallbacksT(lambda *_: None), S.SaVersionT())
    assert rc == OK
    name = new_name()
    assert S.saCkptCheckpointOpenAsync(handle, 1, name, attributes(), 7) == OK
    deadline = time.monotonic() + WAIT
    while not LIBRARIES[handle]._queue:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    _, descriptor = S.saCkptSelectionObjectGet(handle)
    assert select.select([descriptor], [], [], 0)[0]
    assert S.saCkptFinalize(handle) == OK


@rule("saCkptDispatch", "several libraries in one select loop, each with callbacks of its own")
def test_several_libraries_in_one_loop() -> None:
    made = [Library(version) for version in (B01, B02, B01)]
    checkpoints = [weak(library) for library in made]
    for number, checkpoint in enumerate(checkpoints):
        assert S.saCkptCheckpointSynchronizeAsync(checkpoint, number) == OK
    by_fd = {library.fd: library for library in made}
    deadline = time.monotonic() + WAIT
    while any(not library.heard for library in made):
        assert time.monotonic() < deadline
        for descriptor in select.select(list(by_fd), [], [], 1.0)[0]:
            assert S.saCkptDispatch(by_fd[descriptor].handle, S.SA_DISPATCH_ALL) == OK
    assert [library.heard for library in made] == [
        [("synchronize", number, OK)] for number in range(3)
    ]
    for library in made:
        library.finalize()


# --- dispatch -----------------------------------------------------------------------------------


@rule("saCkptDispatch", "ALL delivers everything pending, in order, on the calling thread")
def test_dispatch_all(library: Library) -> None:
    threads = []
    checkpoint = weak(library)
    LIBRARIES[library.handle].callbacks.saCkptCheckpointSynchronizeCallback = (
        lambda invocation, error: threads.append((invocation, threading.get_ident()))
    )
    for invocation in range(5):
        assert S.saCkptCheckpointSynchronizeAsync(checkpoint, invocation) == OK
    pending(library, 5)
    assert S.saCkptDispatch(library.handle, S.SA_DISPATCH_ALL) == OK
    assert threads == [(invocation, threading.get_ident()) for invocation in range(5)]
    assert not library.readable()


@rule("saCkptDispatch", "BLOCKING serves until Finalize, then returns OK")
def test_dispatch_blocking() -> None:
    library = Library()
    checkpoint = weak(library)
    returned: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: returned.append(S.saCkptDispatch(library.handle, S.SA_DISPATCH_BLOCKING))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for invocation in range(20):
        assert S.saCkptCheckpointSynchronizeAsync(checkpoint, invocation) == OK
    deadline = time.monotonic() + WAIT
    while len(library.heard) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert returned == []
    library.finalize()
    for thread in threads:
        thread.join(WAIT)
    assert returned == [OK, OK]
    assert sorted(entry[1] for entry in library.heard) == list(range(20))


@rule("saCkptDispatch", "a callback may call anything, also Finalize; ALL then stops with OK")
def test_finalize_in_a_callback() -> None:
    heard: list[int] = []

    def synchronized(invocation: int, error: int) -> None:
        heard.append(invocation)
        assert S.saCkptFinalize(handle) == OK

    _, handle, _ = S.saCkptInitialize(S.SaCkptCallbacksT(None, synchronized), S.SaVersionT())
    _, checkpoint = S.saCkptCheckpointOpen(
        handle, new_name(), attributes(creationFlags=WEAK), 7, MINUTE
    )
    for invocation in (1, 2):
        assert S.saCkptCheckpointSynchronizeAsync(checkpoint, invocation) == OK
    deadline = time.monotonic() + WAIT
    while len(LIBRARIES[handle]._queue) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert S.saCkptDispatch(handle, S.SA_DISPATCH_ALL) == OK
    assert heard == [1]
    assert S.saCkptDispatch(handle, S.SA_DISPATCH_ALL) == BAD_HANDLE


@rule("saCkptDispatch", "a callback that raises is logged; the others come")
def test_callback_that_raises(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = weak(library)
    heard = library.heard

    def synchronized(invocation: int, error: int) -> None:
        heard.append(invocation)
        if invocation == 1:
            raise ValueError("a bug of the application")

    LIBRARIES[library.handle].callbacks.saCkptCheckpointSynchronizeCallback = synchronized
    for invocation in (1, 2):
        assert S.saCkptCheckpointSynchronizeAsync(checkpoint, invocation) == OK
    pending(library, 2)
    with caplog.at_level(logging.ERROR, "raftckpt.saf"):
        assert S.saCkptDispatch(library.handle, S.SA_DISPATCH_ALL) == OK
    assert heard == [1, 2]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "a bug of the application" in str(record.exc_info[1])


@rule("saCkptDispatch", "who does not dispatch is told TRY_AGAIN at last; nothing was done")
def test_pending_callbacks_are_bounded(library: Library, monkeypatch) -> None:
    monkeypatch.setattr("raftckpt.limits.SAF_PENDING_CALLBACKS_MAX", 3)
    checkpoint = weak(library)
    answers = [S.saCkptCheckpointSynchronizeAsync(checkpoint, number) for number in range(5)]
    assert answers == [OK] * 3 + [S.SA_AIS_ERR_TRY_AGAIN] * 2
    pending(library, 3)
    assert S.saCkptDispatch(library.handle, S.SA_DISPATCH_ALL) == OK
    assert S.saCkptCheckpointSynchronizeAsync(checkpoint, 9) == OK
    assert library.wait(9) == ("synchronize", 9, OK)


# --- asynchronous opens -------------------------------------------------------------------------


@rule("saCkptCheckpointOpenAsync", "the callback's handle has the rights asked for, and works")
def test_open_async(library: Library) -> None:
    name = new_name()
    assert S.saCkptCheckpointOpenAsync(library.handle, 5, name, attributes(), WRITE | CREATE) == OK
    kind, invocation, checkpoint, error = library.wait(5)
    assert (kind, invocation, error) == ("open", 5, OK)
    create(checkpoint, b"1", b"x")
    element = S.SaCkptIOVectorElementT(sid(b"1"))
    assert S.saCkptCheckpointRead(checkpoint, [element])[0] == S.SA_AIS_ERR_ACCESS


@rule("saCkptCheckpointOpenAsync", "what the service refuses comes by the callback")
def test_open_async_refused(library: Library) -> None:
    assert S.saCkptCheckpointOpenAsync(library.handle, 6, new_name(), None, READ) == OK
    assert library.wait(6) == ("open", 6, 0, S.SA_AIS_ERR_NOT_EXIST)


@rule("saCkptCheckpointOpenAsync", "Finalize cancels it and leaves no opener behind")
def test_open_async_cancelled_by_finalize(library: Library) -> None:
    other = Library()
    name = new_name()
    assert S.saCkptCheckpointOpenAsync(other.handle, 7, name, attributes(), 7) == OK
    other.finalize()
    assert other.heard == []
    # retention 0: with its last opener it is gone
    rc, _ = S.saCkptCheckpointOpen(library.handle, name, None, READ, MINUTE)
    assert rc == S.SA_AIS_ERR_NOT_EXIST


# --- handles ------------------------------------------------------------------------------------


@rule("saCkptFinalize", "a second call, and any use of its handles, is BAD_HANDLE")
def test_finalize_ends_everything() -> None:
    library = Library()
    checkpoint = library.open()
    create(checkpoint, b"1")
    _, iteration = S.saCkptSectionIterationInitialize(checkpoint, S.SA_CKPT_SECTIONS_ANY, 0)
    assert S.saCkptFinalize(library.handle) == OK
    for handle in (library.handle, 0, 77, None, []):
        assert S.saCkptFinalize(handle) == BAD_HANDLE
    assert S.saCkptCheckpointClose(checkpoint) == BAD_HANDLE
    assert S.saCkptSectionIterationNext(iteration) == (BAD_HANDLE, None)
    assert S.saCkptSelectionObjectGet(library.handle)[0] == BAD_HANDLE
    assert checkpoint not in CHECKPOINTS
    assert iteration not in ITERATIONS


@rule("saCkptFinalize", "closes what was opened, by the rules of a last close")
def test_finalize_closes(library: Library) -> None:
    other = Library()
    kept, gone = new_name(), new_name()
    other.open(kept, retentionDuration=MINUTE)
    other.open(gone, retentionDuration=0)
    other.finalize()
    assert S.saCkptCheckpointOpen(library.handle, kept, None, READ, MINUTE)[0] == OK
    rc, _ = S.saCkptCheckpointOpen(library.handle, gone, None, READ, MINUTE)
    assert rc == S.SA_AIS_ERR_NOT_EXIST


@rule("saCkptFinalize", "does not touch the other initializations of the process")
def test_initializations_are_independent(library: Library, old: Library) -> None:
    checkpoint = old.open()
    library.finalize()
    create(checkpoint, b"1", b"still here")
    assert read(checkpoint, b"1") == b"still here"


@rule("saCkptInitialize", "after fork the handles are BAD_HANDLE; the parent goes on")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork(library: Library) -> None:
    checkpoint = library.open()
    create(checkpoint, b"1", b"mine")
    _, iteration = S.saCkptSectionIterationInitialize(checkpoint, S.SA_CKPT_SECTIONS_ANY, 0)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # what goes wrong here must not run the rest of the tests
        try:
            answers = [
                S.saCkptDispatch(library.handle, S.SA_DISPATCH_ALL),
                S.saCkptSelectionObjectGet(library.handle)[0],
                S.saCkptSectionOverwrite(checkpoint, sid(b"1"), b"child"),
                S.saCkptSectionIterationNext(iteration)[0],
                S.saCkptCheckpointClose(checkpoint),
                S.saCkptFinalize(library.handle),
            ]
            fresh = Library()  # a child can initialize for itself
            answers.append(S.saCkptFinalize(fresh.handle))
            os.write(writing, bytes(answers))
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert list(os.read(reading, 100)) == [BAD_HANDLE] * 6 + [OK]
    os.close(reading)
    assert read(checkpoint, b"1") == b"mine"
    assert S.saCkptSectionIterationNext(iteration)[0] == OK


@rule("saCkptInitialize", "handles are 64-bit numbers, never used again")
def test_handles_are_not_reused(library: Library) -> None:
    given = [library.open() for _ in range(5)]
    for checkpoint in given:
        assert S.saCkptCheckpointClose(checkpoint) == OK
    later = [library.open() for _ in range(5)]
    assert len({*given, *later}) == 10
    assert all(0 < handle < 1 << 63 for handle in [library.handle, *given, *later])


@rule("saCkptInitialize", "no cluster is configured: LIBRARY; it cannot be reached: TRY_AGAIN")
def test_initialize_without_a_cluster(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    S.configure()
    assert S.saCkptInitialize(None, S.SaVersionT())[0] == S.SA_AIS_ERR_LIBRARY
    S.configure("nonsense")
    assert S.saCkptInitialize(None, S.SaVersionT())[0] == S.SA_AIS_ERR_LIBRARY
    S.configure("127.0.0.1:1", timeout=0.5)
    assert S.saCkptInitialize(None, S.SaVersionT())[:2] == (S.SA_AIS_ERR_TRY_AGAIN, 0)


_INITIALIZATION_DESCRIPTORS_MIN = 6
"""What it uses, and what it holds back to look up names and to change replicas."""


@contextmanager
def _descriptors_left(count: int) -> Iterator[None]:
    """Let the process open so many more, whatever numbers are free below the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 64, hard))
        with suppress(OSError):
            while True:
                held.append(os.dup(held[0]))
        for _ in range(count):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


@rule("saCkptInitialize", "no descriptors or threads: NO_RESOURCES; what there is, goes on")
@pytest.mark.parametrize("count", range(12))
def test_no_descriptors(library: Library, count: int) -> None:
    checkpoint = library.open()
    create(checkpoint, b"s")
    with _descriptors_left(count):
        rc, other, _ = S.saCkptInitialize(None, S.SaVersionT(*B02))
        if count < _INITIALIZATION_DESCRIPTORS_MIN:
            assert (rc, other) == (S.SA_AIS_ERR_NO_RESOURCES, 0)
        else:
            assert rc == OK
            assert S.saCkptFinalize(other) == OK
        assert S.saCkptSectionOverwrite(checkpoint, sid(b"s"), b"data") == OK
        assert read(checkpoint, b"s") == b"data"


@rule("saCkptSelectionObjectGet", "no descriptors: NO_RESOURCES; with some it works")
def test_no_descriptor_for_a_selection_object() -> None:
    rc, handle, _ = S.saCkptInitialize(None, S.SaVersionT(*B02))
    assert rc == OK
    with _descriptors_left(1):
        assert S.saCkptSelectionObjectGet(handle) == (S.SA_AIS_ERR_NO_RESOURCES, -1)
    assert S.saCkptSelectionObjectGet(handle)[0] == OK
    assert S.saCkptFinalize(handle) == OK


@rule("immediate_consumption_register", "no descriptors: NO_RESOURCES; a former one goes on")
def test_no_descriptors_for_consumption(library: Library) -> None:
    name = new_name()
    checkpoint = library.open(name)
    other = Library()
    writer = other.open(name)
    create(writer, b"s")
    told: list[int] = []
    for callback in (told.append, print):
        with _descriptors_left(4) if callback is print else nullcontext():
            rc = S.immediate_consumption_register(
                checkpoint, lambda *given, tell=callback: tell(given[4].revision)
            )
        assert rc == (S.SA_AIS_ERR_NO_RESOURCES if callback is print else OK)
    assert S.saCkptSectionOverwrite(writer, sid(b"s"), b"data") == OK
    until(lambda: S.saCkptDispatch(library.handle, S.SA_DISPATCH_ALL) == OK and told, "a change")
    other.finalize()


@rule("saCkptInitialize", "no descriptors or threads: NO_RESOURCES; what there is, goes on")
def test_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        rc, handle, _ = S.saCkptInitialize(None, S.SaVersionT(*B02))
    assert (rc, handle) == (S.SA_AIS_ERR_NO_RESOURCES, 0)


@rule("saCkptInitialize", "RAFTCKPT_ENDPOINTS and RAFTCKPT_CONFIG say which cluster")
def test_initialize_by_environment(saf_cluster, monkeypatch) -> None:
    S.configure()
    for name, value in [
        ("RAFTCKPT_ENDPOINTS", saf_cluster.endpoints),
        ("RAFTCKPT_CONFIG", str(saf_cluster.config_path)),
    ]:
        monkeypatch.setenv(name, value)
        rc, handle, _ = S.saCkptInitialize(None, S.SaVersionT())
        assert rc == OK
        assert S.saCkptFinalize(handle) == OK
        monkeypatch.delenv(name)


# --- close and what it cancels ------------------------------------------------------------------


@rule("saCkptCheckpointClose", "cancels the pending callbacks of its handle, not those of others")
def test_close_cancels(library: Library) -> None:
    mine, other = weak(library), weak(library)
    assert S.saCkptCheckpointSynchronizeAsync(mine, 1) == OK
    assert S.saCkptCheckpointSynchronizeAsync(other, 2) == OK
    pending(library, 2)
    assert S.saCkptCheckpointClose(mine) == OK
    assert library.readable(), "a wake-up stays"
    assert S.saCkptDispatch(library.handle, S.SA_DISPATCH_ALL) == OK
    assert library.heard == [("synchronize", 2, OK)]
    assert not library.readable()


@rule("saCkptCheckpointClose", "after a cancelled callback the descriptor wakes once, for nothing")
def test_close_leaves_a_wake_up(library: Library) -> None:
    checkpoint = weak(library)
    assert S.saCkptCheckpointSynchronizeAsync(checkpoint, 1) == OK
    assert S.saCkptCheckpointClose(checkpoint) == OK
    assert library.readable(WAIT)
    assert S.saCkptDispatch(library.handle, S.SA_DISPATCH_ONE) == OK
    assert library.heard == []
    assert not library.readable()


@rule("saCkptCheckpointClose", "ends the handle's iterations; other handles of it go on")
def test_close_is_by_handle(library: Library) -> None:
    name = new_name()
    one, two = library.open(name), library.open(name, READ)
    create(one, b"1", b"x")
    _, iteration = S.saCkptSectionIterationInitialize(one, S.SA_CKPT_SECTIONS_ANY, 0)
    assert S.saCkptCheckpointClose(one) == OK
    assert S.saCkptSectionIterationNext(iteration)[0] == BAD_HANDLE
    assert read(two, b"1") == b"x"
    assert ids(two) == [b"1"]


# --- threads ------------------------------------------------------------------------------------


@rule("saCkptSectionOverwrite", "eight threads, on one handle and on one each")
def test_threads(library: Library) -> None:
    name = new_name()
    shared = library.open(name, maxSections=100)
    for number in range(8):
        create(shared, b"s%d" % number, b"")
        create(shared, b"o%d" % number, b"")
    failures: list[object] = []

    def work(number: int) -> None:
        own = library.open(name, READ | WRITE)
        for count in range(25):
            data = b"%d" % count
            for handle, section in ((shared, b"s%d"), (own, b"o%d")):
                rc = S.saCkptSectionOverwrite(handle, sid(section % number), data)
                found = read(handle, section % number)
                if rc != OK or found != data:
                    failures.append((rc, found, data))
        failures.extend([] if S.saCkptCheckpointClose(own) == OK else ["close"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert all(read(shared, b"s%d" % number) == b"24" for number in range(8))


# --- versions -----------------------------------------------------------------------------------


@rule("saCkptInitialize", "the version asked for decides the rules; B.02.01 is taken for old")
def test_version_decides(library: Library) -> None:
    older = Library(("B", 2, 1))
    name = new_name()
    older.open(name)
    blind = older.open(name, WRITE)
    assert S.saCkptCheckpointStatusGet(blind)[0] == OK
    assert S.saCkptCheckpointStatusGet(library.open(name, WRITE))[0] == S.SA_AIS_ERR_ACCESS
    older.finalize()


@rule("saCkptInitialize", "options: RDN names, and names no longer than SaNameT's")
def test_options(saf_cluster) -> None:
    S.configure(saf_cluster.endpoints, rdn_names=True, extended_names=False)
    library = Library()
    for name, code in [
        ("plain", S.SA_AIS_ERR_INVALID_PARAM),
        ("safCkpt=" + "n" * 249, S.SA_AIS_ERR_INVALID_PARAM),
        ("safCkpt=" + new_name(), OK),
    ]:
        rc, _ = S.saCkptCheckpointOpen(
            library.handle, name, attributes(creationFlags=ACTIVE | COLLOCATED), READ | CREATE,
            MINUTE,
        )  # fmt: skip
        assert rc == code
    library.finalize()

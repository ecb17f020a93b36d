"""Track callbacks of B.02.03: where something was written, through dispatch, without the data."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raftckpt import limits
from raftckpt import saf as S
from raftckpt.testing import LocalCluster

from .env import B02, B03, READ, WAIT, WEAK, WRITE, Library, create, new_name, sid
from .rules import rule
from .test_consumption import change_everything, until

OK = S.SA_AIS_OK
TRACK, STOP = "saCkptTrack", "saCkptTrackStop"
EVERYTHING = [(b"1", 0, 5), (b"1", 0, 6), (b"1", 1, 2), (b"1", 9, 1), (b"1", 0, 0)]
"""What ``change_everything`` does: (section, offset, size)."""


@pytest.fixture
def tracker(_configured: None) -> Iterator[Library]:
    made = Library(B03)
    assert S.saCkptTrack(made.handle) == OK
    yield made
    S.saCkptFinalize(made.handle)


@pytest.fixture
def other(_configured: None) -> Iterator[Library]:
    made = Library(B02)
    yield made
    S.saCkptFinalize(made.handle)


def told(library: Library, checkpoint: int) -> list[Any]:
    """Return what the callback was told about a checkpoint handle."""
    return [place for handle, places in library.tracked if handle == checkpoint for place in places]


def told_to_the_end(library: Library, checkpoint: int, writer: int) -> list[Any]:
    """Return all that was told before a last word of the writer."""
    create(writer, b"the end", b"!")
    until(library, lambda: (b"the end", 0, 1) in told(library, checkpoint))
    found = told(library, checkpoint)
    assert found.pop() == (b"the end", 0, 1)
    return found


@rule(TRACK, "writes, overwrites, creations with data and deletions, in order, without the data")
@rule(TRACK, "what is open for reading is tracked; a vector write is one call")
def test_what_is_told(tracker: Library, other: Library) -> None:
    name = new_name()
    writer = other.open(name, creationFlags=WEAK)
    reader, blind = tracker.open(name, READ), tracker.open(name, WRITE)
    create(writer, b"2")
    change_everything(writer, other)
    assert told_to_the_end(tracker, reader, writer) == EVERYTHING
    assert told(tracker, blind) == []
    assert [len(places) for _, places in tracker.tracked] == [1, 1, 2, 1, 1]


@rule(TRACK, "checkpoints open before it, opened after it, and opened asynchronously")
def test_all_checkpoints(other: Library) -> None:
    tracker, name = Library(B03), new_name()
    writer = other.open(name)
    before = tracker.open(name, READ)
    create(writer, b"1", b"not told")
    assert S.saCkptTrack(tracker.handle) == OK
    after = tracker.open(name, READ)
    assert S.saCkptCheckpointOpenAsync(tracker.handle, 5, name, None, READ) == OK
    _, _, later, rc = tracker.wait(5)
    assert rc == OK
    assert S.saCkptTrack(tracker.handle) == OK  # once more: as it is
    assert S.saCkptSectionOverwrite(writer, sid(b"1"), b"told") == OK
    create(writer, b"the end", b"!")
    for checkpoint in (before, after, later):
        until(tracker, lambda: told(tracker, checkpoint)[1:] == [(b"the end", 0, 1)])  # noqa: B023
        assert told(tracker, checkpoint)[0] == (b"1", 0, 4)
    assert S.saCkptCheckpointClose(before) == OK
    tracker.tracked.clear()
    assert S.saCkptSectionDelete(writer, sid(b"the end")) == OK
    assert told_to_the_end(tracker, after, writer) == [(b"the end", 0, 0)]
    assert told(tracker, before) == []
    tracker.finalize()


@rule(TRACK, "not what the same checkpoint handle did; what other handles of the same client did")
def test_own_changes(tracker: Library) -> None:
    name = new_name()
    mine = tracker.open(name, creationFlags=WEAK)
    reader = tracker.open(name, READ)
    change_everything(mine, tracker)
    generated = S.SaCkptSectionCreationAttributesT(sid(None))
    assert S.saCkptSectionCreate(mine, generated, b"named by the cluster") == OK
    assert S.saCkptSectionDelete(mine, sid(b"nowhere")) == S.SA_AIS_ERR_NOT_EXIST
    writer = tracker.open(name, WRITE)
    create(writer, b"3", b"by another handle")
    everything = [*EVERYTHING, (generated.sectionId.id, 0, 20), (b"3", 0, 17)]
    assert told_to_the_end(tracker, reader, writer) == everything
    until(tracker, lambda: (b"the end", 0, 1) in told(tracker, mine))
    assert told(tracker, mine) == [(b"3", 0, 17), (b"the end", 0, 1)]


@rule(TRACK, "a program that does not dispatch has the changes wait for it, all of them")
def test_many_changes(tracker: Library, other: Library) -> None:
    name, count = new_name(), 3 * limits.SAF_PENDING_CHANGES_MAX
    writer = other.open(name, creationFlags=WEAK)
    reader = tracker.open(name, READ)
    create(writer, b"1")
    for number in range(count):
        data = bytes(number % 100)
        assert S.saCkptSectionOverwrite(writer, sid(b"1"), data) == OK
    sizes = [(b"1", 0, number % 100) for number in range(count)]
    assert told_to_the_end(tracker, reader, writer) == sizes


@rule(TRACK, "who comes too late for what is kept is told all sections, as overwritten")
def test_too_late(tracker: Library, other: Library) -> None:
    name, mib = new_name(), 1 << 20
    writer = other.open(name, creationFlags=WEAK, maxSectionSize=mib)
    reader = tracker.open(name, READ)
    create(writer, b"1", b"x")
    create(writer, b"2", bytes(mib))
    for _ in range(limits.SAF_PENDING_CHANGES_MAX):  # as many wait here
        assert S.saCkptSectionOverwrite(writer, sid(b"1"), b"x") == OK
    for _ in range(130):  # some wait on their way, and 64 MiB are kept
        assert S.saCkptSectionOverwrite(writer, sid(b"2"), bytes(mib)) == OK
    assert S.saCkptSectionOverwrite(writer, sid(b"1"), b"last") == OK
    told_to_the_end(tracker, reader, writer)
    vectors = [places for _, places in tracker.tracked]
    resync = next(at for at, places in enumerate(vectors) if len(places) > 1)
    (one, two), rest = vectors[resync][:2], vectors[resync][2:]
    told_after = [*rest, *(place for places in vectors[resync + 1 :] for place in places)]
    changes = [(b"2", 0, mib)] * 130 + [(b"1", 0, 4), (b"the end", 0, 1)]
    assert told_after == changes[-len(told_after) :]  # it is the content of some time
    assert (one, two) == ((b"1", 0, 1 if (b"1", 0, 4) in told_after else 4), (b"2", 0, mib))
    assert len(told_after) + resync < limits.SAF_PENDING_CHANGES_MAX + 130


@rule(TRACK, "complete and in order when the leader dies")
def test_leader_dies(saf_cluster: LocalCluster, tracker: Library, other: Library) -> None:
    name = new_name()
    writer = other.open(name)
    reader = tracker.open(name, READ)
    create(writer, b"1")
    killed = saf_cluster.leader()
    for number in range(20):
        if number == 10:
            saf_cluster.kill(killed)
        assert S.saCkptSectionOverwrite(writer, sid(b"1"), bytes(number)) == OK
    try:
        found = told_to_the_end(tracker, reader, writer)
    finally:
        saf_cluster.restart(killed)
        saf_cluster.wait_ready()
    assert found == [(b"1", 0, number) for number in range(20)]


@rule(STOP, "nothing more is told, not even what waits for dispatch; tracking can begin again")
def test_stop(tracker: Library, other: Library) -> None:
    name = new_name()
    writer = other.open(name)
    reader = tracker.open(name, READ)
    create(writer, b"1", b"x")
    assert tracker.readable(WAIT)
    assert S.saCkptTrackStop(tracker.handle) == OK
    assert S.saCkptDispatch(tracker.handle, S.SA_DISPATCH_ALL) == OK
    create(writer, b"2", b"y")
    later = tracker.open(name, READ)
    assert S.saCkptTrack(tracker.handle) == OK
    assert told_to_the_end(tracker, reader, writer) == []
    until(tracker, lambda: told(tracker, later))
    assert told(tracker, later) == [(b"the end", 0, 1)]


@rule(STOP, "ends the threads of those who do not dispatch")
def test_stop_without_dispatch(tracker: Library, other: Library) -> None:
    name = new_name()
    writer = other.open(name, creationFlags=WEAK)
    tracker.open(name, READ)
    create(writer, b"1")
    for _ in range(2 * limits.SAF_PENDING_CHANGES_MAX):
        assert S.saCkptSectionOverwrite(writer, sid(b"1"), b"x") == OK

    def following() -> int:
        return sum(thread.name == "raftckpt-changes" for thread in threading.enumerate())

    assert tracker.readable(WAIT)
    assert following() == 1
    assert S.saCkptTrackStop(tracker.handle) == OK
    _in_the_end(lambda: following() == 0)


def _in_the_end(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@rule("saCkptCheckpointTrack", "NOT_SUPPORTED, whatever the handle")
@rule("saCkptCheckpointTrackStop", "NOT_SUPPORTED, whatever the handle")
def test_single_checkpoints(tracker: Library) -> None:
    for handle in (tracker.open(), tracker.handle, 0):
        assert S.saCkptCheckpointTrack(handle) == S.SA_AIS_ERR_NOT_SUPPORTED
        assert S.saCkptCheckpointTrackStop(handle) == S.SA_AIS_ERR_NOT_SUPPORTED


@rule("ncsCkptRegisterCkptArrivalCallback", "any version; it is told what a track callback is")
def test_arrival_callback(library: Library, other: Library) -> None:
    name = new_name()
    writer = other.open(name)
    reader = library.open(name, READ)
    register = S.ncsCkptRegisterCkptArrivalCallback
    assert register(library.handle, library.track) == OK
    change_everything(writer, other)
    assert told_to_the_end(library, reader, writer) == EVERYTHING
    heard: list[int] = []
    assert register(library.handle, lambda handle, vector, count: heard.append(handle)) == OK
    assert S.saCkptSectionOverwrite(writer, sid(b"the end"), b"?") == OK
    until(library, lambda: heard)
    assert heard == [reader]


@rule("ncsCkptRegisterCkptArrivalCallback", "no callback: INVALID_PARAM, then BAD_HANDLE")
def test_arrival_refusals(library: Library) -> None:
    register = S.ncsCkptRegisterCkptArrivalCallback
    assert register(0, None) == S.SA_AIS_ERR_INVALID_PARAM
    assert register(library.handle, None) == S.SA_AIS_ERR_INVALID_PARAM
    assert register(0, print) == S.SA_AIS_ERR_BAD_HANDLE

"""The calls while a leader is killed, and while nobody leads: outcomes are what they say."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raftckpt import saf as S
from raftckpt.saf.initialization import LIBRARIES
from raftckpt.testing import LocalCluster

from .env import (
    B01,
    B02,
    B03,
    COLLOCATED,
    MINUTE,
    READ,
    WAIT,
    WEAK,
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


@pytest.fixture
def cluster(saf_cluster: LocalCluster) -> Iterator[LocalCluster]:
    yield saf_cluster
    saf_cluster.heal()
    saf_cluster.start()
    saf_cluster.wait_ready()


def killing_the_leader(cluster: LocalCluster, call: Callable[[], Any]) -> Any:
    """Make a call that meets a paused leader, which is then killed."""
    leader = cluster.leader()
    cluster.pause(leader)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    thread.join(0.2)
    assert not answers, "it was to be in the middle of the call"
    cluster.kill(leader)
    thread.join(60)
    assert answers, "no answer"
    return answers[0]


def _open(library: Library, checkpoint: int) -> Any:
    name = new_name()
    rc, _ = S.saCkptCheckpointOpen(library.handle, name, attributes(), 7, S.SA_TIME_MAX)
    return rc


def _create(library: Library, checkpoint: int) -> Any:
    given = S.SaCkptSectionCreationAttributesT(sid(b"new"), S.SA_TIME_END)
    rc = S.saCkptSectionCreate(checkpoint, given, b"x")
    assert read(checkpoint, b"new") == b"x"
    return rc


def _generate(library: Library, checkpoint: int) -> Any:
    given = S.SaCkptSectionCreationAttributesT(sid(None), S.SA_TIME_END)
    rc = S.saCkptSectionCreate(checkpoint, given, b"x")
    assert given.sectionId is not None
    assert sorted(ids(checkpoint)) == sorted([b"s", given.sectionId.id])
    return rc


def _delete(library: Library, checkpoint: int) -> Any:
    rc = S.saCkptSectionDelete(checkpoint, sid(b"s"))  # a second try would say NOT_EXIST
    assert ids(checkpoint) == []
    return rc


def _write(library: Library, checkpoint: int) -> Any:
    rc, _ = S.saCkptCheckpointWrite(checkpoint, [S.SaCkptIOVectorElementT(sid(b"s"), b"X", 1, 1)])
    assert read(checkpoint, b"s") == b"dXta"
    return rc


def _overwrite(library: Library, checkpoint: int) -> Any:
    rc = S.saCkptSectionOverwrite(checkpoint, sid(b"s"), b"new")
    assert read(checkpoint, b"s") == b"new"
    return rc


def _read(library: Library, checkpoint: int) -> Any:
    assert read(checkpoint, b"s") == b"data"
    return OK


def _iterate(library: Library, checkpoint: int) -> Any:
    assert ids(checkpoint) == [b"s"]
    return OK


def _close(library: Library, checkpoint: int) -> Any:
    rc = S.saCkptCheckpointClose(checkpoint)
    assert S.saCkptCheckpointClose(checkpoint) == S.SA_AIS_ERR_BAD_HANDLE
    return rc


CALLS = {
    "saCkptCheckpointOpen": _open,
    "saCkptSectionCreate": _create,
    "saCkptSectionCreate (generated id)": _generate,
    "saCkptSectionDelete": _delete,
    "saCkptCheckpointWrite": _write,
    "saCkptSectionOverwrite": _overwrite,
    "saCkptCheckpointRead": _read,
    "saCkptSectionIterationInitialize": _iterate,
    "saCkptCheckpointClose": _close,
    "saCkptCheckpointStatusGet": lambda _, checkpoint: S.saCkptCheckpointStatusGet(checkpoint)[0],
    "saCkptCheckpointRetentionDurationSet": lambda _, checkpoint: (
        S.saCkptCheckpointRetentionDurationSet(checkpoint, 5)
    ),
}


@pytest.mark.parametrize("name", list(CALLS))
@rule("leader killed in the middle of the call", "the call succeeds, exactly once")
def test_leader_killed(cluster: LocalCluster, library: Library, name: str) -> None:
    checkpoint = library.open(retentionDuration=MINUTE)
    create(checkpoint, b"s", b"data")
    assert killing_the_leader(cluster, lambda: CALLS[name](library, checkpoint)) == OK


@pytest.mark.parametrize("form", ["synchronous", "asynchronous"])
@rule("leader killed in the middle of the call", "synchronize: all that was accepted survives")
def test_leader_killed_in_synchronize(cluster: LocalCluster, library: Library, form: str) -> None:
    checkpoint = library.open(creationFlags=WEAK | COLLOCATED)
    assert S.saCkptActiveReplicaSet(checkpoint) == OK
    create(checkpoint, b"s", b"data")

    def write_and_synchronize() -> Any:
        for number in range(50):
            assert S.saCkptSectionOverwrite(checkpoint, sid(b"s"), b"%d" % number) == OK
        if form == "synchronous":
            return S.saCkptCheckpointSynchronize(checkpoint, S.SA_TIME_END)
        assert S.saCkptCheckpointSynchronizeAsync(checkpoint, 5) == OK
        return library.wait(5)[-1]

    assert killing_the_leader(cluster, write_and_synchronize) == OK
    assert read(checkpoint, b"s") == b"49"


@rule("leader killed in the middle of the call", "an asynchronous open succeeds, by its callback")
def test_leader_killed_in_open_async(cluster: LocalCluster, library: Library) -> None:
    def open_() -> Any:
        name = new_name()
        assert S.saCkptCheckpointOpenAsync(library.handle, 6, name, attributes(), 7) == OK
        return library.wait(6)[-1]

    assert killing_the_leader(cluster, open_) == OK


@rule("no leader", "TIMEOUT says that it may have happened; a timed out open leaves no opener")
def test_timeouts(cluster: LocalCluster, library: Library) -> None:
    S.configure(cluster.endpoints, timeout=0.4, async_timeout=0.4)
    hasty = Library()
    checkpoint = hasty.open()
    create(checkpoint, b"s", b"data")
    name, other = new_name(), new_name()
    leader = cluster.leader()
    followers = [node for node in cluster.nodes if node != leader]
    for node in cluster.nodes:
        cluster.pause(node)
    unknown = (S.SA_AIS_ERR_TIMEOUT,)
    answers = [
        S.saCkptSectionOverwrite(checkpoint, sid(b"s"), b"perhaps"),
        S.saCkptCheckpointOpen(
            hasty.handle, name, attributes(), 7, 300 * S.SA_TIME_ONE_MILLISECOND
        )[0],
    ]
    assert S.saCkptCheckpointOpenAsync(hasty.handle, 9, other, attributes(), 7) == OK
    answers.append(hasty.wait(9)[-1])
    assert answers[0] in unknown
    # what was never sent is known not to have happened
    assert all(rc in (*unknown, S.SA_AIS_ERR_TRY_AGAIN) for rc in answers[1:])
    for node in [leader, *followers]:
        cluster.resume(node)
    cluster.wait_ready()
    deadline = time.monotonic() + WAIT
    for each in (name, other):  # retention 0: an opener left behind would keep it
        while True:
            rc, handle = S.saCkptCheckpointOpen(library.handle, each, None, READ, MINUTE)
            if rc == S.SA_AIS_ERR_NOT_EXIST:
                break
            assert (rc, S.saCkptCheckpointClose(handle)) == (OK, OK)
            assert time.monotonic() < deadline, "an opener was left behind"
    rc = S.saCkptSectionOverwrite(checkpoint, sid(b"s"), b"now")
    assert rc == OK
    assert read(checkpoint, b"s") == b"now"
    hasty.finalize()


@pytest.mark.parametrize(("version", "code"), [(B01, 9), (B02, 31), (B03, 31)])
@rule("session lost", "B.01 is told BAD_HANDLE, B.02 UNAVAILABLE; Finalize remains")
def test_session_lost(cluster: LocalCluster, version: Any, code: int) -> None:
    S.configure(cluster.endpoints, session_timeout=0.5, timeout=20.0)
    library = Library(version)
    checkpoint = library.open(retentionDuration=MINUTE)
    driver = LIBRARIES[library.handle].driver
    # what a replica says to a client it gave up
    driver.engine.post(driver._port, lambda now: driver.core._lose_session("session"))
    assert S.saCkptCheckpointStatusGet(checkpoint)[0] == code
    given = attributes()
    assert S.saCkptCheckpointOpen(library.handle, new_name(), given, 7, MINUTE)[0] == code
    assert S.saCkptDispatch(library.handle, S.SA_DISPATCH_ALL) == (OK if code == 9 else code)
    if version == B03:
        assert S.saCkptTrack(library.handle) == S.saCkptTrackStop(library.handle) == code
    assert S.saCkptFinalize(library.handle) == OK


_TO_BE_REPLACED = """
import sys, time
from raftckpt import saf as S
from raftckpt.client.witness import Witness
from raftckpt.saf.initialization import LIBRARIES

S.configure(sys.argv[1], session_timeout=300.0, disconnect_grace=0.0)
rc, library, _ = S.saCkptInitialize(None, S.SaVersionT())
assert rc == S.SA_AIS_OK, rc
attributes = S.SaCkptCheckpointCreationAttributesT(1, 10, 0, 1, 10, 1)
rc, _ = S.saCkptCheckpointOpen(library, sys.argv[2], attributes, 7, S.SA_TIME_ONE_MINUTE)
assert rc == S.SA_AIS_OK, rc
while LIBRARIES[library].driver.companions[Witness].bound < 3:
    time.sleep(0.01)
print("bound", flush=True)
time.sleep(1000)
"""


@rule("session lost", "disconnect_grace=0: finalized at once, also if the leader dies as well")
def test_process_and_leader_die_together(cluster: LocalCluster, library: Library) -> None:
    name = new_name()
    with subprocess.Popen(
        [sys.executable, "-c", _TO_BE_REPLACED, cluster.endpoints, name],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "bound\n"
            cluster.kill(cluster.leader())
        finally:
            process.kill()
    deadline = time.monotonic() + 100  # a third of what its session has without the second ones
    while True:
        rc, handle = S.saCkptCheckpointOpen(library.handle, name, None, READ, MINUTE)
        if rc == S.SA_AIS_ERR_NOT_EXIST:
            break
        assert rc == OK
        assert S.saCkptCheckpointClose(handle) == OK
        assert time.monotonic() < deadline
        time.sleep(0.05)

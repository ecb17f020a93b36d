"""The client in other people's programs: signals, finalizers, forks, closed descriptors."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import raftckpt
from raftckpt import Attributes
from raftckpt.client.io.threads import ThreadEngine
from raftckpt.client.io.wake import Wake

from .replica_double import LoopbackReplica
from .test_sync import wait_for

PUT = 24


@pytest.fixture
def replica() -> Iterator[LoopbackReplica]:
    loopback = LoopbackReplica()
    yield loopback
    loopback.close()


@pytest.fixture
def service(replica: LoopbackReplica) -> Iterator[raftckpt.Service]:
    with raftckpt.connect(replica.endpoint, timeout=5.0) as made:
        yield made


@pytest.fixture
def ckpt(service: raftckpt.Service) -> raftckpt.Checkpoint:
    return service.open("c", create=Attributes())


class Thrown(BaseException):
    """Out of a signal handler."""


@pytest.fixture
def handler() -> Iterator[Any]:
    """Sets what SIGUSR1 does."""
    former = signal.getsignal(signal.SIGUSR1)
    yield lambda function: signal.signal(signal.SIGUSR1, lambda *_: function())
    signal.signal(signal.SIGUSR1, former)


def signal_when(condition: Any) -> threading.Thread:
    def send() -> None:
        wait_for(condition)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_a_signal_handler_may_call_while_a_call_waits(
    replica: LoopbackReplica, ckpt: raftckpt.Checkpoint, handler: Any
) -> None:
    replica.replica.silent_tags = {PUT}
    found: list[Any] = []
    handler(lambda: found.append(ckpt.get("a", b"nothing")))
    sender = signal_when(lambda: any(message[0] == PUT for message in replica.replica.seen))
    with pytest.raises(raftckpt.Timeout):
        ckpt.put("a", b"x", timeout=1.0)
    sender.join()
    assert found == [b"nothing"]


def test_an_interrupted_call_is_lost_and_no_other(
    replica: LoopbackReplica, ckpt: raftckpt.Checkpoint, handler: Any
) -> None:
    def throw() -> None:
        raise Thrown

    handler(throw)
    replica.replica.silent_tags = {PUT}
    sender = signal_when(lambda: any(message[0] == PUT for message in replica.replica.seen))
    with pytest.raises(Thrown):
        ckpt.put("a", b"x")
    sender.join()
    replica.replica.silent_tags = set()
    replica.drop_connections()  # the silent one is sent again, as what consumes its number only
    assert ckpt.put("b", b"y") > 0
    assert list(ckpt) == [b"b"]


def test_an_interrupted_open_leaves_no_opener(
    replica: LoopbackReplica, service: raftckpt.Service, handler: Any
) -> None:
    def throw() -> None:
        raise Thrown

    service.open("o", create=Attributes())
    handler(throw)
    opening = 10
    replica.replica.silent_tags = {opening}
    before = len(replica.replica.seen)
    sender = signal_when(
        lambda: any(message[0] == opening for message in replica.replica.seen[before:])
    )
    with pytest.raises(Thrown):
        service.open("o")
    sender.join()
    replica.replica.silent_tags = set()
    replica.drop_connections()
    wait_for(lambda: service.checkpoints()[0].openers[0].readers == 1)


def test_a_finalizer_in_the_clients_own_thread_is_refused_at_once(
    service: raftckpt.Service, ckpt: raftckpt.Checkpoint
) -> None:
    """The collector runs where it likes to; a call there would wait for itself."""
    told: list[Any] = []

    class Dying:
        def __del__(self) -> None:
            try:
                ckpt.put("last", b"words")
            except raftckpt.CheckpointError as error:
                told.append(error)
            ckpt.close()  # nobody need wait for that

    engine = service._driver.engine
    engine.post(None, lambda now: told.append(Dying() and None))
    wait_for(lambda: len(told) == 2)
    refusal = next(item for item in told if item is not None)
    assert isinstance(refusal, raftckpt.BadOperation)
    assert refusal.definite
    wait_for(lambda: not service.checkpoints()[0].openers)


def test_finalizers_elsewhere_are_ordinary_callers(ckpt: raftckpt.Checkpoint) -> None:
    class Dying:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            ckpt.put("last", b"words")

    Dying()
    gc.collect()
    assert ckpt["last"] == b"words"


def test_a_call_at_exit_works(replica: LoopbackReplica) -> None:
    program = (
        "import atexit, raftckpt\n"
        f"service = raftckpt.connect({replica.endpoint!r})\n"
        "ckpt = service.open('a', create=raftckpt.Attributes())\n"
        "atexit.register(lambda: print(ckpt.put('x', b'y') > 0, service.close()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True None\n", "")


def test_a_closed_descriptor_is_told_at_once_and_for_ever(replica: LoopbackReplica) -> None:
    """What a program does that becomes a daemon without a fork; files get the same numbers."""
    program = (
        "import os, time, raftckpt\n"
        f"service = raftckpt.connect({replica.endpoint!r})\n"
        "ckpt = service.open('a', create=raftckpt.Attributes())\n"
        "os.closerange(3, 256)\n"
        "files = [os.open('/dev/null', os.O_RDWR) for _ in range(40)]\n"
        "start = time.monotonic()\n"
        "for call in (lambda: ckpt.put('x', b'y'), lambda: ckpt.count(), service.checkpoints,\n"
        "             service.cluster):\n"
        "    try:\n"
        "        call()\n"
        "    except raftckpt.Library as error:\n"
        "        assert 'closed its descriptors' in str(error), error\n"
        "        print(type(error).__name__)\n"
        "assert time.monotonic() - start < 4\n"
        "service.close()\n"
        "del ckpt, service, call\n"
        "import gc; gc.collect()\n"
        "for file in files: os.fstat(file)\n"
        "print('the files are open')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.stderr == ""
    assert done.stdout == "Library\n" * 4 + "the files are open\n"


def test_no_descriptors_left(replica: LoopbackReplica, service: raftckpt.Service) -> None:
    ckpt = service.open("c", create=Attributes())
    assert ckpt.put("a", b"1") > 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(used)]  # no gap is left below
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
    try:
        with pytest.raises(raftckpt.NoResources, match="no resources left") as caught:
            raftckpt.connect(replica.endpoint)
        assert caught.value.definite
        with pytest.raises(raftckpt.NoResources):
            Wake()
        assert ckpt.put("a", b"2") > 0  # what it has it keeps
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
    gc.collect()


def test_a_forked_child_does_not_hold_the_connection(
    replica: LoopbackReplica, service: raftckpt.Service
) -> None:
    """It would keep the replica from seeing that the parent died."""
    (stream,) = service._driver._port.streams.values()
    descriptor = stream.sock.fileno()
    child = os.fork()
    if child == 0:
        try:
            os.fstat(descriptor)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert service.checkpoints() == []


def test_the_thread_that_died_is_told_of(
    service: raftckpt.Service, ckpt: raftckpt.Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)

    def broken(now: float) -> None:
        raise ZeroDivisionError

    service._driver.engine.post(None, broken)
    started = time.monotonic()
    wait_for(lambda: service._driver.engine.dead)
    for _ in range(3):
        with pytest.raises(raftckpt.Library, match="ZeroDivisionError"):
            ckpt.put("a", b"")
    assert time.monotonic() - started < 4.0


def test_a_thread_that_ended_before_it_began_is_told_of(replica, monkeypatch) -> None:
    """A trace function of the program's threads may raise: nobody is left who would time out."""
    monkeypatch.setattr(ThreadEngine, "_run", lambda engine: None)
    with pytest.raises(raftckpt.Library, match="it never began") as caught:
        raftckpt.connect(replica.endpoint, timeout=60.0)
    assert caught.value.reason == "io_thread"


def test_threads_that_became_green_after_connect_are_refused_at_once(
    replica: LoopbackReplica, ckpt: raftckpt.Checkpoint, monkeypatch: Any
) -> None:
    """A green thread would wait for the client's, which is a real one, in vain."""
    monkeypatch.setattr(threading, "Lock", lambda: None)
    seen = len(replica.replica.seen)
    for call in (lambda: ckpt.put("a", b"x"), lambda: ckpt.track(), lambda: ckpt.get("a")):
        with pytest.raises(raftckpt.BadOperation, match=r"patch first, then connect") as caught:
            call()
        assert caught.value.definite
        assert caught.value.reason == "patched"
    assert len(replica.replica.seen) == seen
    monkeypatch.undo()
    ckpt.put("a", b"x")

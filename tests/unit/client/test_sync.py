from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import raftckpt
from raftckpt import Attributes
from raftckpt.protocol.frames import pack_messages
from tests.messages import Tag

from .replica_double import LoopbackReplica, ReplicaDouble


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
    return service.open("c", create=Attributes(max_sections=10, max_section_size=1000))


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


# --- the operations ------------------------------------------------------------------------


def test_sections_like_a_mapping(ckpt: raftckpt.Checkpoint) -> None:
    ckpt["1"] = b"one"
    ckpt[b"2"] = bytearray(b"two")
    assert ckpt["1"] == b"one"
    assert "1" in ckpt
    assert b"3" not in ckpt
    assert 5 not in ckpt
    assert len(ckpt) == 2
    assert sorted(ckpt) == [b"1", b"2"]
    del ckpt["1"]
    assert len(ckpt) == 1
    with pytest.raises(KeyError, match="'c': section b'1' does not exist"):
        ckpt["1"]
    assert ckpt


def test_changes_return_growing_revisions(ckpt: raftckpt.Checkpoint) -> None:
    revisions = [
        ckpt.put("a", b"1234"),
        ckpt.overwrite("a", b"12345678"),
        ckpt.write("a", b"xx", offset=2),
        ckpt.write_many([("a", 0, b"y"), ("a", 7, memoryview(b"zz"))]),
        ckpt.set_expiration("a", ttl=100),
        ckpt.set_expiration("a"),
        ckpt.set_retention(60.0),
        ckpt.delete("a"),
    ]
    assert all(isinstance(revision, int) for revision in revisions)
    assert revisions == sorted(set(revisions))  # type: ignore[type-var]
    assert ckpt.synchronize() == revisions[-1]


def test_reads(ckpt: raftckpt.Checkpoint) -> None:
    ckpt.put("a", b"0123456789")
    revision = ckpt.put("b", b"b")
    assert ckpt.read("a", 2, 3) == b"234"
    assert ckpt.read("a", 8) == b"89"
    assert ckpt.read("a", 8, 100) == b"89"
    assert ckpt.read("a", 10) == b""
    assert ckpt.read("a", consistency="local") == b"0123456789"
    assert ckpt.read_many([("a", 0, 2), ("b", 0, None)]) == [b"01", b"b"]
    assert ckpt.read_versioned("b") == (b"b", revision)
    image = ckpt.read_all()
    assert image == {b"a": b"0123456789", b"b": b"b"}
    assert image.revision == revision
    assert ckpt.get("zz") is None
    assert ckpt.get("zz", b"-") == b"-"
    assert ckpt.get("b") == b"b"
    assert ckpt.exists("a")
    assert not ckpt.exists("zz")
    assert ckpt.count() == 2
    assert sorted(ckpt.ids()) == [b"a", b"b"]
    with pytest.raises(raftckpt.InvalidParam) as caught:
        ckpt.read("a", 11)
    assert caught.value.definite
    assert isinstance(caught.value, ValueError)
    with pytest.raises(raftckpt.NotExist) as missing:
        ckpt.write_many([("a", 0, b""), ("zz", 0, b"")])
    assert missing.value.index == 1


def test_creation_and_expiration(ckpt: raftckpt.Checkpoint) -> None:
    generated = ckpt.create(data=b"x")
    assert ckpt[generated] == b"x"
    assert ckpt.create("named") == b"named"
    soon = datetime.now(timezone.utc) + timedelta(days=10_000)  # noqa: UP017
    assert ckpt.create("later", expires=soon) == b"later"
    sections = {section.id: section for section in ckpt.sections()}
    assert sections[b"later"].expires == pytest.approx(soon.timestamp())
    assert sections[b"named"].expires is None
    assert sections[b"named"].state == "valid"
    assert {section.id for section in ckpt.sections("forever")} == {generated, b"named"}
    assert [section.id for section in ckpt.sections("expiring_by", soon)] == [b"later"]
    with pytest.raises(raftckpt.Exist):
        ckpt.create("named")


def test_describing(service: raftckpt.Service, ckpt: raftckpt.Checkpoint) -> None:
    ckpt.put("a", b"12345")
    status = ckpt.status()
    assert (status.name, status.sections, status.memory_used) == ("c", 1, 5)
    assert status.attributes == ckpt.attributes
    assert ckpt.attributes.max_sections == 10
    assert ckpt.name == "c"
    assert ckpt.created
    assert not service.open("c").created
    (opener,) = service.checkpoints()[0].openers
    assert (opener.readers, opener.writers) == (2, 2)
    cluster = service.cluster()
    assert cluster.leader == "n1"
    assert cluster.replicas[0].reachable
    assert service.check().consistent
    service.transfer_leadership("n2")


def test_opening(service: raftckpt.Service) -> None:
    with pytest.raises(raftckpt.NotExist):
        service.open("none")
    with service.open("a", create=Attributes(max_sections=3)) as first:
        first.put("x", b"")
    with pytest.raises(raftckpt.Exist, match="max_sections"):
        service.open("a", create=Attributes(max_sections=4))
    with pytest.raises(raftckpt.BadFlags):
        service.open("a", mode="x")
    with pytest.raises(raftckpt.InvalidParam):
        service.open("")
    with pytest.raises(raftckpt.InvalidParam, match="Attributes"):
        service.open("b", create=True)
    with pytest.raises(raftckpt.TooBig):
        service.open("x" * 2049)
    reader = service.open(b"a", mode="r")
    with pytest.raises(raftckpt.Access):
        reader.put("x", b"")
    writer = service.open("a", mode="w")
    with pytest.raises(raftckpt.Access):
        writer.read("x")
    assert writer.unlink() > 0
    with pytest.raises(raftckpt.NotExist):
        service.unlink("a")
    writer.put("x", b"still works")


def test_asynchronous_checkpoints(replica: LoopbackReplica, service: raftckpt.Service) -> None:
    replica.replica.early = True
    weak = service.open("w", create=Attributes(update="weak", collocated=True))
    with pytest.raises(raftckpt.NoActiveReplica, match="active_replica_set"):
        weak.put("k", b"0")
    assert weak.active_replica_set() >= 0
    assert weak.put("k", b"1") is None
    assert weak.put("k", b"2") is None
    revision = weak.synchronize()
    assert weak.read_versioned("k") == (b"2", revision)
    assert weak.active_replica_set(exclusive=True) > 0
    assert weak.status().exclusive
    weak.close()


@pytest.mark.parametrize("update", ["all", "weak"])
def test_synchronize_without_writes_tells_the_last_revision_known(
    service: raftckpt.Service, update: Any
) -> None:
    with service.open("s", create=Attributes(update=update)) as ckpt:
        opened = ckpt.synchronize()
        assert opened > 0
        ckpt.create("1", b"x")
        created = ckpt.synchronize()
        assert created == ckpt.read_versioned("1")[1] > opened
        with service.open("other", create=Attributes()) as other:
            written = other.put("a", b"")
        assert ckpt.synchronize() == written


def test_closed_checkpoints(service: raftckpt.Service, ckpt: raftckpt.Checkpoint) -> None:
    ckpt.close()
    ckpt.close()
    with pytest.raises(raftckpt.BadHandle, match="open it again"):
        ckpt.put("a", b"")
    assert service.checkpoints()[0].openers == ()


def test_an_error_in_the_block_is_not_hidden(service: raftckpt.Service) -> None:
    with (  # noqa: PT012
        pytest.raises(ZeroDivisionError),
        service.open("a", create=Attributes()),
    ):
        service.close()
        raise ZeroDivisionError


def test_large_values(service: raftckpt.Service) -> None:
    ckpt = service.open("big", create=Attributes())
    data = os.urandom(3 * 1024 * 1024 + 17)
    ckpt["a"] = data
    assert ckpt["a"] == data
    ckpt.write_many([("a", 0, data[:1_500_000]), ("a", 100, data)])
    assert ckpt["a"] == data[:100] + data
    ckpt.create("b", data)
    assert ckpt.read("b", len(data) - 5) == data[-5:]
    with pytest.raises(raftckpt.NoResources):
        ckpt.put("a", bytes(64 * 1024 * 1024 + 1))


# --- connecting ----------------------------------------------------------------------------


def unused_endpoint() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def test_nothing_there() -> None:
    endpoint = unused_endpoint()
    started = time.monotonic()
    with pytest.raises(raftckpt.Unavailable, match=endpoint) as caught:
        raftckpt.connect(endpoint, timeout=0.3)
    assert caught.value.definite
    assert isinstance(caught.value, ConnectionError)
    assert time.monotonic() - started < 2.0


def test_bad_arguments() -> None:
    for bad in (
        {"endpoints": "nowhere"},
        {"endpoints": ""},
        {"endpoints": "/no/such/cluster.yaml"},
        {"session_timeout": 0.001},
        {"session_timeout": -1},
        {"timeout": "x"},
        {"name": 5},
        {"node": "n" * 65},
        {"token": b"x"},
        {"tls": {"ca": "/no/such/file"}},
        {"tls": {"nonsense": 1}},
    ):
        arguments: dict[str, Any] = {"endpoints": "127.0.0.1:1", **bad}
        with pytest.raises(raftckpt.InvalidParam):
            raftckpt.connect(**arguments)


def test_the_second_endpoint_will_do(replica: LoopbackReplica) -> None:
    endpoints = [unused_endpoint(), replica.endpoint]
    with raftckpt.connect(endpoints, node="here", name="tester") as service:
        service.open("a", create=Attributes())
        (opener,) = service.checkpoints()[0].openers
        assert (opener.node, opener.name) == ("here", "tester")
        statuses = service.cluster(timeout=2.0).replicas
        assert [status.reachable for status in statuses].count(False) == 1
        assert "refused" in next(s.problem or "" for s in statuses if not s.reachable)


def test_without_a_session(replica: LoopbackReplica) -> None:
    with raftckpt.connect(replica.endpoint, session=False) as service:
        assert service.checkpoints() == []
        assert not replica.replica.machine.sessions
        service.open("a", create=Attributes())
        assert replica.replica.machine.sessions
    assert not replica.replica.machine.sessions


@pytest.mark.parametrize("session", [False, True])
def test_one_endpoint_is_enough_to_ask_all(replica: LoopbackReplica, session: bool) -> None:
    second, dead = LoopbackReplica(ReplicaDouble("n2")), unused_endpoint()
    known = replica.replica.endpoints
    known.update(n2=second.endpoint, n3=dead)
    second.replica.endpoints = known
    second.replica.leader = "n1"
    with raftckpt.connect(second.endpoint, session=session) as service:
        status = service.cluster(timeout=2.0)
        assert status.leader == "n1"
        assert [(each.node, each.endpoint, each.reachable) for each in status.replicas] == [
            ("n1", replica.endpoint, True),
            ("n2", second.endpoint, True),
            ("n3", dead, False),
        ]
        report = service.check()
        assert report.digests == {"n1": "00ff", "n2": "00ff", "n3": None}
        assert replica.replica.machine.sessions.keys() == ({1} if session else set())
    second.close()


def test_endpoints_told_that_are_none(replica: LoopbackReplica) -> None:
    replica.replica.endpoints["n2"] = "nonsense"
    with raftckpt.connect(replica.endpoint, session=False) as service:
        first, second = service.cluster().replicas
        assert (first.node, first.reachable) == ("n1", True)
        assert (second.node, second.reachable) == ("n2", False)
        assert "nonsense" in (second.problem or "")


def test_a_cluster_file_names_replicas_that_cannot_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    endpoint = unused_endpoint()
    path.write_text(f"replicas: {{n7: {{client: '{endpoint}'}}}}")
    with raftckpt.connect(str(path), session=False) as service:
        (status,) = service.cluster(timeout=2.0).replicas
    assert (status.node, status.endpoint, status.reachable) == ("n7", endpoint, False)


def test_reconnecting_is_silent(replica: LoopbackReplica, ckpt: raftckpt.Checkpoint) -> None:
    for number in range(5):
        replica.drop_connections()
        ckpt.put("a", b"%d" % number)
        assert ckpt["a"] == b"%d" % number
    assert replica.accepted > 3


def test_an_idle_client_reconnects_and_stays_alive(replica: LoopbackReplica) -> None:
    with raftckpt.connect(replica.endpoint, session_timeout=0.3):
        seen = replica.replica.seen

        def keepalives() -> int:
            return [message[0] for message in seen].count(Tag.KEEPALIVE)

        wait_for(lambda: keepalives() >= 2)
        replica.drop_connections()
        before = keepalives()
        wait_for(lambda: Tag.ATTACH in [message[0] for message in seen])
        wait_for(lambda: keepalives() > before)


def test_a_lost_session(replica: LoopbackReplica, ckpt: raftckpt.Checkpoint) -> None:
    replica.send_to_all(pack_messages([[2, "session_lost", "expired"]]))
    with pytest.raises(raftckpt.SessionLost):  # noqa: PT012
        for _ in range(1000):
            ckpt.put("a", b"")
            time.sleep(0.002)


def test_tls() -> None:
    trustme = pytest.importorskip("trustme")
    import ssl
    import tempfile

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    loopback = LoopbackReplica(ssl=context)
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "ca.pem")
        authority.cert_pem.write_to_path(path)
        with raftckpt.connect(loopback.endpoint, tls=raftckpt.TlsOptions(ca=path)) as service:
            ckpt = service.open("a", create=Attributes())
            data = os.urandom(5_000_000)
            ckpt["x"] = data
            assert ckpt["x"] == data
            assert service.cluster().replicas[0].reachable
        other = trustme.CA()
        other.cert_pem.write_to_path(path)
        with pytest.raises(raftckpt.Unavailable, match="certificate"):
            raftckpt.connect(loopback.endpoint, tls={"ca": path}, timeout=0.5)
    loopback.close()


# --- waiting and giving up -----------------------------------------------------------------


def test_deadlines(replica: LoopbackReplica, ckpt: raftckpt.Checkpoint) -> None:
    replica.replica.silent_tags = {24}
    started = time.monotonic()
    with pytest.raises(raftckpt.Timeout) as caught:
        ckpt.put("a", b"", timeout=0.2)
    assert not caught.value.definite
    assert isinstance(caught.value, TimeoutError)
    assert 0.15 < time.monotonic() - started < 2.0
    replica.replica.silent_tags = set()
    assert ckpt.count() == 0


def test_try_again_is_retried_inside(replica: LoopbackReplica, ckpt: raftckpt.Checkpoint) -> None:
    replica.replica.refuse = [(6, "busy", None, True)] * 5
    assert ckpt.put("a", b"x")
    replica.replica.refuse = [(6, "busy", None, True)] * 1000
    with pytest.raises(raftckpt.TryAgain) as caught:
        ckpt.put("a", b"y", timeout=0.2)
    assert caught.value.definite
    replica.replica.refuse = []
    assert ckpt["a"] == b"x"
    assert ckpt.put("a", b"z")
    assert b"y" not in [command[-1] for command in replica.replica.applied]


def test_a_timeout_of_zero(replica: LoopbackReplica, ckpt: raftckpt.Checkpoint) -> None:
    with pytest.raises((raftckpt.Timeout, raftckpt.TryAgain)):
        ckpt.put("a", b"x", timeout=0)


def test_many_threads(ckpt: raftckpt.Checkpoint) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(60):
                ckpt.put(f"{number}", f"{turn}".encode())
                assert ckpt[f"{number}"] == f"{turn}".encode()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert ckpt.read_all() == {b"%d" % number: b"59" for number in range(8)}


def test_threads_time_out_on_their_own(replica: LoopbackReplica, ckpt: raftckpt.Checkpoint) -> None:
    replica.replica.silent_tags = {24}
    took: dict[float, float] = {}

    def work(timeout: float) -> None:
        started = time.monotonic()
        with pytest.raises(raftckpt.Timeout):
            ckpt.put("a", b"", timeout=timeout)
        took[timeout] = time.monotonic() - started

    timeouts = [0.6, 0.1, 0.3, 0.4]
    threads = [threading.Thread(target=work, args=(timeout,)) for timeout in timeouts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    for timeout in timeouts:
        assert timeout * 0.9 < took[timeout] < timeout + 0.5


def test_ctrl_c_leaves_the_client_usable(
    replica: LoopbackReplica, ckpt: raftckpt.Checkpoint
) -> None:
    replica.replica.silent_tags = {24}
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        ckpt.put("a", b"", timeout=5.0)
    timer.join()
    assert ckpt.count() == 0


def test_closing_ends_calls_of_other_threads(
    replica: LoopbackReplica, ckpt: raftckpt.Checkpoint, service: raftckpt.Service
) -> None:
    replica.replica.silent_tags = {24}
    caught: list[BaseException] = []

    def work() -> None:
        try:
            ckpt.put("a", b"", timeout=10.0)
        except raftckpt.CheckpointError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: any(message[0] == 24 for message in replica.replica.seen))
    service._driver.close()
    thread.join(5)
    assert isinstance(caught[0], raftckpt.BadHandle)
    assert not caught[0].definite
    with pytest.raises(raftckpt.BadHandle):
        ckpt.put("a", b"")
    ckpt.close()


def test_closing_waits_for_accepted_writes(replica: LoopbackReplica) -> None:
    service = raftckpt.connect(replica.endpoint)
    weak = service.open("w", create=Attributes(update="active"))
    weak.put("k", b"0")
    replica.replica.silent_tags = {24}
    core = service._driver.core
    done = threading.Thread(target=lambda: weak.put("k", b"1"))
    done.start()
    wait_for(lambda: core._requests.open)
    replica.send_to_all(pack_messages([[1, next(iter(core._requests.open))]]))
    done.join(10)
    with pytest.raises(raftckpt.Timeout) as caught:
        service.close(timeout=0.2)
    assert not caught.value.definite
    service.close()


def test_goodbye_is_said_and_nothing_leaks(replica: LoopbackReplica) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    with raftckpt.connect(replica.endpoint):
        pass
    gc.collect()
    before, threads = descriptors(), threading.active_count()
    for _ in range(5):
        with raftckpt.connect(replica.endpoint) as service:
            service.open("a", create=Attributes())
        with pytest.raises(raftckpt.BadHandle):
            service.checkpoints()
        del service
    gc.collect()
    wait_for(lambda: descriptors() <= before)
    assert threading.active_count() == threads
    assert not replica.replica.machine.sessions


def test_a_forgotten_service_is_reported_and_ends(replica: LoopbackReplica) -> None:
    service = raftckpt.connect(replica.endpoint)
    thread = service._driver.engine._thread
    with pytest.warns(ResourceWarning, match="not closed"):  # noqa: PT031
        del service
        gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_after_fork_the_child_must_connect_again(
    replica: LoopbackReplica, service: raftckpt.Service, ckpt: raftckpt.Checkpoint
) -> None:
    ckpt.put("a", b"parent")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ckpt.put("a", b"child")
        except raftckpt.BadHandle as error:
            if "fork" in str(error):
                service._driver.close()
                status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert ckpt["a"] == b"parent"  # the child's exit did not disturb the connection


def test_the_interpreter_can_exit_at_any_time(replica: LoopbackReplica) -> None:
    program = (
        "import raftckpt, threading, time\n"
        f"service = raftckpt.connect({replica.endpoint!r})\n"
        "ckpt = service.open('a', create=raftckpt.Attributes())\n"
        "def work():\n"
        "    while True: ckpt.put('x', b'y')\n"
        "for _ in range(3): threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "print('bye')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "bye\n"
    assert done.stderr == ""


def test_importing_is_light() -> None:
    program = (
        "import sys, raftckpt\n"
        "heavy = ['asyncio', 'ssl', 'yaml', 'click', 'uvloop', 'pysyncobj', 'raftckpt.server',\n"
        "         'raftckpt.process', 'raftckpt.node', 'raftckpt.raft', 'raftckpt.storage']\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "assert raftckpt.aio.connect\n"
        "assert not hasattr(raftckpt, 'nonsense')\n"
        "assert all(hasattr(raftckpt, name) for name in raftckpt.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    assert done.returncode == 0


def test_a_program_is_told_how_its_client_fares(
    service: raftckpt.Service, replica: LoopbackReplica, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[str] = []

    def told(state: str) -> None:
        states.append(state)
        raise ValueError("of the program")  # whoever reads for the client goes on

    service.on_state = told
    assert service.on_state is told
    ckpt = service.open("c", create=Attributes())
    replica.drop_connections()
    wait_for(lambda: "searching" in states)
    wait_for(lambda: states[-1] == "connected")
    ckpt.put("a", b"x")
    service.close()
    assert states == ["connected", "searching", "connected", "closed"]
    assert [record.message.split()[0] for record in caplog.records] == ["on_state_failed"] * 4
    assert service.state == "closed"

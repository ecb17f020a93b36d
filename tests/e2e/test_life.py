"""The life of a cluster with real processes under load: members come and go, versions change."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import raftckpt
from raftckpt import Attributes
from raftckpt.testing import LocalCluster
from tests.next_version import DOUBLE, environment, next_version

WITHIN_S = 60.0


class Load:
    """Writes one value after the other and remembers what was acknowledged."""

    def __init__(self, endpoints: str) -> None:
        self.acknowledged: list[int] = []
        self.pauses: list[tuple[float, float]] = []
        self._endpoints = endpoints
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.error: BaseException | None = None

    def _run(self) -> None:
        try:
            with raftckpt.connect(self._endpoints, timeout=30) as service:
                checkpoint = service.open("load", create=Attributes())
                brief = Attributes(retention=0.02)  # the next version has it end at once
                last, number = time.monotonic(), 0
                while not self._stop.is_set():
                    checkpoint.put(str(number), b"%d" % number)
                    if number % 8 == 0:
                        service.open("brief", create=brief).close()
                    now = time.monotonic()
                    self.pauses.append((now, now - last))
                    self.acknowledged.append(number)
                    last, number = now, number + 1
        except BaseException as error:
            self.error = error

    @contextmanager
    def running(self) -> Iterator[Load]:
        self._thread.start()
        try:
            self.grows()
            yield self
        finally:
            self._stop.set()
            self._thread.join(40)
        assert self.error is None, self.error

    def grows(self) -> None:
        """Wait until more is acknowledged: the cluster serves."""
        count, until = len(self.acknowledged), time.monotonic() + WITHIN_S
        while len(self.acknowledged) < count + 3:
            assert time.monotonic() < until, "nothing is acknowledged any more"
            time.sleep(0.01)


def nothing_is_lost(cluster: LocalCluster, load: Load) -> None:
    with raftckpt.connect(cluster.endpoints, timeout=30) as service:
        checkpoint = service.open("load")
        held = checkpoint.read_all()
        missing = [n for n in load.acknowledged if held.get(b"%d" % n) != b"%d" % n]
        assert not missing, missing[:5]
    all_agree(cluster)


def all_agree(cluster: LocalCluster) -> None:
    with raftckpt.connect(cluster.endpoints, session=False, timeout=30) as service:
        report = service.check(timeout=30)
    assert set(report.digests) == set(cluster.nodes)
    assert len(set(report.digests.values())) == 1, report


def test_three_become_five_and_three_others() -> None:
    with LocalCluster(3, spares=3) as cluster:
        with Load(cluster.endpoints).running() as load:
            cluster.add("n4")
            cluster.add("n5")
            assert len(cluster.nodes) == 5
            load.grows()
            for original in ("n1", "n2", "n3"):
                assert cluster.remove(original) == 0, cluster.log(original, 5)
                assert "removed" in cluster.log(original, 5)
                load.grows()
            cluster.add("n6")
            load.grows()
        assert cluster.nodes == ["n4", "n5", "n6"]
        nothing_is_lost(cluster, load)


def test_a_living_and_a_dead_member_are_replaced() -> None:
    with LocalCluster(3, spares=2) as cluster:
        with Load(cluster.endpoints).running() as load:
            living = cluster.leader()
            cluster.add(replaces=living)
            load.grows()
            dead = next(node for node in cluster.nodes if node != cluster.leader())
            cluster.kill(dead)
            cluster.add(replaces=dead)
            load.grows()
        assert len(cluster.nodes) == 3
        nothing_is_lost(cluster, load)


def doubled(cluster: LocalCluster, tree: object) -> str:
    """What the next version's client is told about the operation that only it knows."""
    ran = subprocess.run(
        [*environment(tree), sys.executable, "-c", DOUBLE, cluster.endpoints, "load"],  # type: ignore[arg-type]
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def level_of(cluster: LocalCluster) -> int:
    status = cluster.status(cluster.leader(), 5.0)
    assert status is not None
    return int(status["level"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return next_version(tmp_path_factory.mktemp("versions"))


def test_a_rolling_upgrade_and_the_way_back(tree) -> None:
    new, old = environment(tree), ()
    with LocalCluster(3) as cluster:
        level = level_of(cluster)
        with Load(cluster.endpoints).running() as load:
            for node in cluster.nodes[:2]:  # one by one, and not all yet
                cluster.wrap(node, new)
                cluster.restart(node)
                load.grows()
            assert level_of(cluster) == level
            all_agree(cluster)
            for leader, refusal in (
                ("n1", "ERR_VERSION level True"),
                ("n3", "ERR_INVALID_PARAM schema True"),  # an old one does not know it at all
            ):
                with raftckpt.connect(cluster.endpoints, session=False, timeout=30) as service:
                    service.transfer_leadership(leader)
                assert doubled(cluster, tree) == refusal
            cluster.wrap("n1", old)  # below the raised level one may go back
            cluster.restart("n1")
            load.grows()
            with raftckpt.connect(cluster.endpoints, session=False) as service:
                service.pin_level(True)
            for node in cluster.nodes:
                cluster.wrap(node, new)
                cluster.restart(node)
                load.grows()
            assert level_of(cluster) == level  # it is pinned
            with raftckpt.connect(cluster.endpoints, session=False) as service:
                service.pin_level(False)
            until(lambda: level_of(cluster) == level + 1, "the level does not rise")
            assert doubled(cluster, tree) == "done"
            load.grows()
            cluster.wrap("n3", old)  # too late: it says why, and the others go on
            cluster.restart("n3", wait=False)
            assert cluster.wait_exit("n3", 30) == 1
            assert "level 3" in cluster.log("n3", 3)
            load.grows()
            cluster.wrap("n3", new)
            cluster.restart("n3")
            load.grows()
        nothing_is_lost(cluster, load)

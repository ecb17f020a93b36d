"""csa103 on the library, as the tutorial's log shows it; component and node failure."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import raftckpt
from raftckpt.testing import LocalCluster

from .rules import rule

ROOT = Path(__file__).parents[2]
WAIT = 40.0


class Process:
    """A component with its log."""

    def __init__(self, cluster: LocalCluster, name: str, node: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "examples" / "csa103" / "component.py"),
                f"--endpoints={cluster.endpoints}",
                f"--node={node}",
                f"--name={name}",
                "--interval=0.02",
                *options,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.node = node
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line.rstrip())

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < deadline, "\n".join(self.lines)
            time.sleep(0.01)

    def says(self, text: str) -> bool:
        return any(text in line for line in list(self.lines))

    def activate(self) -> None:
        self.until(lambda: self.says("HA state : [Standby]"))
        assert self.process.stdin is not None
        self.process.stdin.write("ACTIVE\n")
        self.process.stdin.flush()

    def numbers(self, pattern: str) -> list[int]:
        found = (re.search(pattern, line) for line in list(self.lines))
        return [int(match.group(1)) for match in found if match]

    @property
    def hello(self) -> list[int]:
        return self.numbers(r"Hello World! \(seq=(\d+)\)")

    @property
    def synchronized(self) -> list[int]:
        return self.numbers(r"Checkpoint synchronize \[(\d+)\] completed")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(WAIT)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(WAIT)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def _unlink(cluster: LocalCluster) -> None:
    """A session that died with its replica keeps the checkpoint of the last test for a while."""
    with raftckpt.connect(cluster.endpoints) as service, suppress(raftckpt.NotExist):
        service.unlink("csa103Ckpt")


def _names(cluster: LocalCluster) -> list[str]:
    with raftckpt.connect(cluster.endpoints, session=False) as service:
        return [each.name for each in service.checkpoints() if not each.unlinked]


@pytest.fixture
def start(saf_cluster: LocalCluster) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []
    _unlink(saf_cluster)

    def start(name: str, node: str, *options: str) -> Process:
        started.append(Process(saf_cluster, name, node, *options))
        return started[-1]

    yield start
    for process in started:
        process.end()
    saf_cluster.start()
    saf_cluster.wait_ready()


@pytest.mark.parametrize("failure", ["component", "node"])
@rule("csa103", "the standby goes on with the number after the last synchronized one")
def test_takeover(saf_cluster: LocalCluster, start: Callable[..., Process], failure: str) -> None:
    leader = saf_cluster.leader()
    other = next(node for node in saf_cluster.nodes if node != leader)
    first, second = start("csa103CompI0", leader), start("csa103CompI1", other)
    first.activate()
    second.until(lambda: second.says("HA state : [Standby]"))
    first.until(lambda: len(first.synchronized) >= 10)
    if failure == "node":
        saf_cluster.kill(leader)
    first.kill()
    second.activate()
    second.until(lambda: len(second.synchronized) >= 10)
    # every number follows the one before; at most the one in flight was not told to be complete
    assert first.hello == list(range(len(first.hello)))
    assert first.synchronized == first.hello[: len(first.synchronized)]
    assert len(first.hello) - len(first.synchronized) in (0, 1)
    resumed = second.hello[0]
    assert resumed - 1 in (first.synchronized[-1], first.hello[-1])
    assert second.hello[:10] == list(range(resumed, resumed + 10))
    assert second.synchronized[:10] == list(range(resumed, resumed + 10))
    # what was killed comes back as standby, and does not count
    if failure == "node":
        saf_cluster.restart(leader)
    again = start("csa103CompI0", leader)
    again.until(lambda: again.says("HA state : [Standby]"))
    before = len(second.synchronized)
    second.until(lambda: len(second.synchronized) >= before + 5)
    assert again.hello == []
    assert again.says("Checkpoint service initialized (handle=0x")
    assert again.says("Checkpoint opened (handle=0x")


@rule("csa103", "when both components are gone, the counter begins at 0 again (retention 10 ns)")
def test_both_die(saf_cluster: LocalCluster, start: Callable[..., Process]) -> None:
    only = start("csa103CompI0", saf_cluster.nodes[0])
    only.activate()
    only.until(lambda: len(only.synchronized) >= 5)
    only.kill()
    only.until(lambda: "csa103Ckpt" not in _names(saf_cluster))
    fresh = start("csa103CompI0", saf_cluster.nodes[0])
    fresh.activate()
    fresh.until(lambda: fresh.hello)
    assert fresh.hello[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--sections=2",),
        ("--update=active",),
        ("--update=active", "--no-collocated"),
        ("--update=weak", "--no-collocated"),
        ("--update=all",),
        ("--update=all", "--no-collocated"),
    ],
)
@rule("csa103", "the tutorial's further experiments: more sections, the other modes")
def test_experiments(
    saf_cluster: LocalCluster, start: Callable[..., Process], options: tuple[str, ...]
) -> None:
    one, two = (start(f"csa103CompI{n}", saf_cluster.nodes[n], *options) for n in range(2))
    one.activate()
    one.until(lambda: len(one.hello) >= 10)
    two.until(lambda: two.says("HA state : [Standby]"))
    one.kill()
    two.activate()
    two.until(lambda: len(two.hello) >= 5)
    last = one.hello[-1]
    assert two.hello[0] in (last, last + 1)


@rule("csa103", "the end of its roles ends the component in good order")
def test_end(saf_cluster: LocalCluster, start: Callable[..., Process]) -> None:
    component = start("csa103CompI0", saf_cluster.nodes[0])
    component.until(lambda: component.says("HA state : [Standby]"))
    assert component.process.stdin is not None
    component.process.stdin.close()
    assert component.process.wait(WAIT) == 0

"""csa103 on the library, as the tutorial's log shows it; component and node failure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import raftckpt
from raftckpt.testing import LocalCluster
from tests.programs import Program
from tests.waiting import until

from .rules import rule

ROOT = Path(__file__).parents[2]


class Csa103(Program):
    """A component with its log."""

    def __init__(self, cluster: LocalCluster, name: str, node: str, *options: str) -> None:
        super().__init__(
            sys.executable,
            ROOT / "examples" / "csa103" / "component.py",
            f"--endpoints={cluster.endpoints}",
            f"--node={node}",
            f"--name={name}",
            "--interval=0.02",
            *options,
        )

    def until_standby(self) -> None:
        self.until_said("HA state : [Standby]")

    def activate(self) -> None:
        self.until_standby()
        self.tell("ACTIVE")

    @property
    def hello(self) -> list[int]:
        return self.numbers(r"Hello World! \(seq=(\d+)\)")

    @property
    def synchronized(self) -> list[int]:
        return self.numbers(r"Checkpoint synchronize \[(\d+)\] completed")

    def until_counted(self, more: int) -> None:
        """Until it said so many numbers more."""
        goal = len(self.hello) + more
        self.until(lambda: len(self.hello) >= goal, f"{more} more numbers")

    def until_synchronized(self, more: int) -> None:
        """Until so many numbers more are synchronized."""
        goal = len(self.synchronized) + more
        self.until(lambda: len(self.synchronized) >= goal, f"{more} more numbers are safe")


def _unlink(cluster: LocalCluster) -> None:
    """A session that died with its replica keeps the checkpoint of the last test for a while."""
    with raftckpt.connect(cluster.endpoints) as service, suppress(raftckpt.NotExist):
        service.unlink("csa103Ckpt")


def _names(cluster: LocalCluster) -> list[str]:
    with raftckpt.connect(cluster.endpoints, session=False) as service:
        return [each.name for each in service.checkpoints() if not each.unlinked]


@pytest.fixture
def start(saf_cluster: LocalCluster) -> Iterator[Callable[..., Csa103]]:
    started: list[Csa103] = []
    _unlink(saf_cluster)

    def start(name: str, node: str, *options: str) -> Csa103:
        started.append(Csa103(saf_cluster, name, node, *options))
        return started[-1]

    yield start
    for process in started:
        process.end()
    saf_cluster.start()
    saf_cluster.wait_ready()


@pytest.mark.parametrize("failure", ["component", "node"])
@rule("csa103", "the standby goes on with the number after the last synchronized one")
def test_takeover(saf_cluster: LocalCluster, start: Callable[..., Csa103], failure: str) -> None:
    leader = saf_cluster.leader()
    other = next(node for node in saf_cluster.nodes if node != leader)
    first, second = start("csa103CompI0", leader), start("csa103CompI1", other)
    first.activate()
    second.until_standby()
    first.until_synchronized(10)
    if failure == "node":
        saf_cluster.kill(leader)
    first.end()
    second.activate()
    second.until_synchronized(10)
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
    again.until_standby()
    second.until_synchronized(5)
    assert again.hello == []
    assert again.said("Checkpoint service initialized (handle=0x")
    assert again.said("Checkpoint opened (handle=0x")


@rule("csa103", "when both components are gone, the counter begins at 0 again (retention 10 ns)")
def test_both_die(saf_cluster: LocalCluster, start: Callable[..., Csa103]) -> None:
    only = start("csa103CompI0", saf_cluster.nodes[0])
    only.activate()
    only.until_synchronized(5)
    only.end()
    until(lambda: "csa103Ckpt" not in _names(saf_cluster), "nobody has it open")
    fresh = start("csa103CompI0", saf_cluster.nodes[0])
    fresh.activate()
    fresh.until_counted(1)
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
    saf_cluster: LocalCluster, start: Callable[..., Csa103], options: tuple[str, ...]
) -> None:
    one, two = (start(f"csa103CompI{n}", saf_cluster.nodes[n], *options) for n in range(2))
    one.activate()
    one.until_counted(10)
    two.until_standby()
    one.end()
    two.activate()
    two.until_counted(5)
    last = one.hello[-1]
    assert two.hello[0] in (last, last + 1)


@rule("csa103", "the end of its roles ends the component in good order")
def test_end(saf_cluster: LocalCluster, start: Callable[..., Csa103]) -> None:
    component = start("csa103CompI0", saf_cluster.nodes[0])
    component.until_standby()
    assert component.leave() == 0

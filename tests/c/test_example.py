"""The counter of examples/c: through the death of a leader and of the process that counts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftckpt.testing import LocalCluster
from tests.c.conftest import HERE, environment_with
from tests.programs import Program

_EXAMPLES = HERE.parent.parent / "examples" / "c"


class Counter(Program):
    """A process that runs the example."""

    def __init__(self, program: Path, env: dict[str, str]) -> None:
        super().__init__(program, "0.02", env=env)

    def counted(self) -> list[int]:
        return self.numbers(r"Hello World! \(seq=(\d+)\)")

    def synchronized(self) -> list[int]:
        return self.numbers(r"Checkpoint synchronize \[(\d+)\] completed")

    def until_counted(self, more: int) -> None:
        goal = len(self.counted()) + more
        self.until(lambda: len(self.counted()) >= goal, f"{more} more numbers")


@pytest.fixture
def counters(prefix: Path, cluster: LocalCluster, tmp_path: Path) -> Iterator[list[Counter]]:
    """Two processes of the example, both ready."""
    for name in ("Makefile", "counter.c"):
        shutil.copy(_EXAMPLES / name, tmp_path)
    subprocess.run(
        ["make", f"PKG_CONFIG_PATH={prefix / 'lib' / 'pkgconfig'}", "CFLAGS=-Wall -Werror"],
        cwd=tmp_path,
        check=True,
        timeout=60,
    )
    env = environment_with(RAFTCKPT_ENDPOINTS=cluster.endpoints)
    counters = [Counter(tmp_path / "counter", env) for _ in range(2)]
    try:
        for counter in counters:
            counter.until_said("Ready")
        yield counters
    finally:
        for counter in counters:
            counter.end()


def test_counter_survives_leader_and_active(counters: list[Counter], cluster: LocalCluster) -> None:
    first, second = counters
    first.tell("active")
    first.until_counted(10)
    leader = cluster.leader()
    cluster.kill(leader)
    first.until_counted(20)
    cluster.restart(leader)
    cluster.wait_ready()
    first.until(first.synchronized, "a synchronization")
    first.until_counted(5)

    first.end()
    assert first.counted() == list(range(len(first.counted())))
    second.tell("active")
    second.until_counted(10)
    said = second.counted()
    assert said == list(range(said[0], said[0] + len(said)))
    # what was synchronized or acknowledged is there; the next number may have been said already
    assert max(first.synchronized()) <= said[0]
    assert max(first.numbers(r"Checkpointed (\d+)")) <= said[0] <= first.counted()[-1] + 1

    second.tell("quit")
    assert second.wait() == 0, second.lines[-5:]

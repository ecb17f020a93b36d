"""The counter of examples/c: through the death of a leader and of the process that counts."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from raftckpt.testing import LocalCluster
from tests.c.conftest import HERE, environment_with
from tests.waiting import until

_EXAMPLES = HERE.parent.parent / "examples" / "c"


class Counter:
    """A process that runs the example."""

    def __init__(self, program: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [program, "0.02"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(
            target=lambda: self.lines.extend(self.process.stdout), daemon=True
        )
        self._reader.start()

    def say(self, word: str) -> None:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def numbers(self, pattern: str) -> list[int]:
        return [int(found[1]) for line in list(self.lines) if (found := re.match(pattern, line))]

    def said(self) -> list[int]:
        return self.numbers(r"Hello World! \(seq=(\d+)\)")

    def synchronized(self) -> list[int]:
        return self.numbers(r"Checkpoint synchronize \[(\d+)\] completed")

    def until_said(self, more: int) -> None:
        goal = len(self.said()) + more
        until(lambda: len(self.said()) >= goal or self.process.poll() is not None, "numbers", 60)
        assert self.process.poll() is None, self.lines[-5:]

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                stream.close()


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
            until(lambda c=counter: any("Ready" in line for line in c.lines), "both ready", 60)
        yield counters
    finally:
        for counter in counters:
            counter.end()


def test_counter_survives_leader_and_active(counters: list[Counter], cluster: LocalCluster) -> None:
    first, second = counters
    first.say("active")
    first.until_said(10)
    leader = cluster.leader()
    cluster.kill(leader)
    first.until_said(20)
    cluster.restart(leader)
    cluster.wait_ready()
    until(first.synchronized, "a synchronization", 60)
    first.until_said(5)

    first.process.send_signal(signal.SIGKILL)
    first.process.wait(10)
    first.end()
    assert first.said() == list(range(len(first.said())))
    second.say("active")
    second.until_said(10)
    said = second.said()
    assert said == list(range(said[0], said[0] + len(said)))
    # what was synchronized or acknowledged is there; the next number may have been said already
    assert max(first.synchronized()) <= said[0]
    assert max(first.numbers(r"Checkpointed (\d+)")) <= said[0] <= first.said()[-1] + 1

    second.say("quit")
    assert second.process.wait(30) == 0, second.lines[-5:]

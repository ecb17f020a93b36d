"""The csa103 examples resume at the next number when the active one is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .replica_double import LoopbackReplica

EXAMPLES = Path(__file__).parents[3] / "examples"


def start(name: str, endpoint: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), endpoint, "0.01"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def tell(process: subprocess.Popen[str], role: str) -> None:
    assert process.stdin is not None
    process.stdin.write(role + "\n")
    process.stdin.flush()


def number(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Hello World! (seq="), line
    return int(line.strip()[len("Hello World! (seq=") : -1])


@pytest.mark.parametrize("name", ["csa103_sync.py", "csa103_async.py"])
def test_the_counter_goes_on(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= 62
    replica = LoopbackReplica()
    replica.replica.early = True
    first, second = start(name, replica.endpoint), start(name, replica.endpoint)
    try:
        tell(first, "ACTIVE")
        tell(second, "STANDBY")
        assert [number(first) for _ in range(5)] == [0, 1, 2, 3, 4]
        first.kill()
        first.wait(10)
        assert first.stdout is not None
        printed = [line for line in first.stdout if line.endswith(")\n")]
        last = int(printed[-1].strip()[len("Hello World! (seq=") : -1]) if printed else 4
        tell(second, "ACTIVE")
        resumed = number(second)
        # the last one may have been saved and not printed
        assert resumed in (last + 1, last + 2)
        assert number(second) == resumed + 1
        assert second.stdin is not None
        second.stdin.close()
        assert second.wait(20) == 0
    finally:
        for process in (first, second):
            process.kill()
            process.wait(10)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
        replica.close()

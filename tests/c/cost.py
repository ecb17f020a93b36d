"""What a call costs from C and from Python, in turn on the same cluster.

Usage: RAFTCKPT_ENDPOINTS=... python tests/c/cost.py PROGRAM [CALLS [ROUNDS]], PROGRAM being cost.c
compiled. Prints the median over the rounds of microseconds per call, wall and CPU, and differences.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from raftckpt import saf


def _measure(calls: int, call: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.monotonic(), time.process_time()
    for _ in range(calls):
        call()
    return (time.monotonic() - wall) * 1e6 / calls, (time.process_time() - cpu) * 1e6 / calls


def from_python(calls: int) -> dict[str, tuple[float, float]]:
    rc, client, _ = saf.saCkptInitialize(None, saf.SaVersionT("B", 2, 2))
    assert rc == saf.SA_AIS_OK
    attributes = saf.SaCkptCheckpointCreationAttributesT(
        saf.SA_CKPT_WR_ALL_REPLICAS, 0, 0, 1, 1000, 0
    )
    rc, checkpoint = saf.saCkptCheckpointOpen(client, "c-cost", attributes, 7, 30 * 10**9)
    assert rc == saf.SA_AIS_OK
    section, data, found = saf.SaCkptSectionIdT(), bytes(100), bytearray(100)

    def overwrite() -> None:
        assert saf.saCkptSectionOverwrite(checkpoint, section, data) == saf.SA_AIS_OK

    def read() -> None:
        element = saf.SaCkptIOVectorElementT(section, found, 100, 0)
        assert saf.saCkptCheckpointRead(checkpoint, [element])[0] == saf.SA_AIS_OK

    overwrite()
    measured = {
        "dispatch": _measure(calls * 100, lambda: saf.saCkptDispatch(client, saf.SA_DISPATCH_ALL)),
        "overwrite": _measure(calls, overwrite),
        "read": _measure(calls, read),
    }
    assert saf.saCkptFinalize(client) == saf.SA_AIS_OK
    return measured


def from_c(program: str, calls: int) -> dict[str, tuple[float, float]]:
    done = subprocess.run([program, str(calls)], check=True, capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {name: (float(wall), float(cpu)) for name, wall, cpu in rows}


def main() -> None:
    program = sys.argv[1]
    calls = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    measured = [(from_python(calls), from_c(program, calls)) for _ in range(rounds)]
    print("call       wall: Python      C   more   CPU: Python      C   more   (us, medians)")
    for name in measured[0][0]:
        row = [name.ljust(10)]
        for which in (0, 1):
            python = statistics.median(py[name][which] for py, _ in measured)
            c = statistics.median(c[name][which] for _, c in measured)
            row.append(f"{python:12.1f} {c:6.1f} {c - python:6.1f}")
        print(" ".join(row))


if __name__ == "__main__":
    main()

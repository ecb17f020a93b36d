"""What a planned step costs who writes: the longest time without an acknowledged write.

    python benchmarks/planned.py [--rounds 5]

One client writes one value after the other, with a session that lives through everything, while
members are added, removed and replaced, replicas are restarted by SIGTERM (a rolling upgrade is
nothing else) and leadership is handed over, on a cluster of three on this machine with the timings
by default. A step is measured from its command to half a second after it is done. Sought: 300 ms a
step, moves of the leader included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import raftckpt
from raftckpt.testing import LocalCluster

SOUGHT_MS = 300
AFTER_S = 0.5
REST_S = 0.5
Step = Callable[[LocalCluster], object]


class Writer(threading.Thread):
    """Writes until it is told to stop; when which write was acknowledged."""

    def __init__(self, endpoints: str) -> None:
        super().__init__()
        self.endpoints = endpoints
        self.acknowledged: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        with raftckpt.connect(self.endpoints, timeout=60) as service:
            checkpoint = service.open("planned", create=raftckpt.Attributes())
            while not self.over.is_set():
                checkpoint.put("k", b"x" * 100)
                self.acknowledged.append(time.monotonic())

    def longest_ms(self, begin: float, end: float) -> float:
        """Longest time without an acknowledged write that touches the time between."""
        stamps = [each for each in self.acknowledged if each >= begin - 1]
        gaps = pairwise(stamps)
        return 1000 * max(b - a for a, b in gaps if b > begin and a < end)


def follower(cluster: LocalCluster) -> str:
    leader = cluster.leader()
    return next(node for node in cluster.nodes if node != leader)


def remove(cluster: LocalCluster, node: str) -> None:
    if cluster.remove(node) != 0:
        raise RuntimeError(cluster.log(node, 5))


def hand_over(cluster: LocalCluster) -> None:
    with raftckpt.connect(cluster.endpoints, session=False) as service:
        service.transfer_leadership(follower(cluster))


STEPS: dict[str, Step] = {
    "leadership is handed over": hand_over,
    "a follower is restarted": lambda cluster: cluster.restart(follower(cluster)),
    "the leader is restarted": lambda cluster: cluster.restart(cluster.leader()),
    "a member is added (3 to 4)": lambda cluster: cluster.add("n4"),
    "a member is added (4 to 5)": lambda cluster: cluster.add("n5"),
    "a follower is removed": lambda cluster: remove(cluster, follower(cluster)),
    "the leader is removed": lambda cluster: remove(cluster, cluster.leader()),
    "the leader is replaced": lambda cluster: cluster.add(replaces=cluster.leader()),
}


def measured() -> dict[str, float]:
    """Milliseconds of each step, one after the other on one cluster."""
    found = {}
    with LocalCluster(3, faults=False, spares=3) as cluster:
        writer = Writer(cluster.endpoints)
        writer.start()
        try:
            for name, step in STEPS.items():
                cluster.wait_ready()
                time.sleep(REST_S)
                begin = time.monotonic()
                step(cluster)
                end = time.monotonic() + AFTER_S
                time.sleep(AFTER_S)
                found[name] = writer.longest_ms(begin, end)
                print(f"{name}: {found[name]:.0f} ms", file=sys.stderr, flush=True)
        finally:
            writer.over.set()
            writer.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = [measured() for _ in range(parser.parse_args().rounds)]
    print("| step | median | longest |\n|---|---|---|")
    for name in STEPS:
        pauses = [each[name] for each in rounds]
        print(f"| {name} | {statistics.median(pauses):.0f} ms | {max(pauses):.0f} ms |")
    worst = max(max(each.values()) for each in rounds)
    print(f"\nSought: {SOUGHT_MS} ms. Load at the end: {os.getloadavg()[0]:.1f}.")
    return int(worst > SOUGHT_MS)


if __name__ == "__main__":
    sys.exit(main())

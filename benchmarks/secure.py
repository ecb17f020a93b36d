"""What TLS and rights cost: a plain cluster and a secured one, taking turns.

    python benchmarks/secure.py [--rounds 3] [--seconds 4] [--replicas 3]

Both run all the time, are made by the same command and differ in nothing but ``dev --tls --auth``:
all links and all clients speak TLS, clients are known by token, rights are on. Medians of the
rounds. Wanted: with TLS and rights at least 70 % of the throughput at 256 outstanding, and at most
1.3 times the p50 of one write after the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from typing import Any

from raftckpt.testing import LocalCluster

RATE_MIN, P50_MAX = 0.7, 1.3
LOADS = {
    "sequential write": ["--clients", "1", "--outstanding", "1"],
    "256 outstanding writes": ["--clients", "8", "--outstanding", "32"],
    "sequential read": ["--clients", "1", "--outstanding", "1", "--reads", "1"],
}


def measured(cluster: LocalCluster, load: list[str], seconds: float) -> dict[str, Any]:
    words = ["bench", *load, "--seconds", str(seconds), "-o", "json"]
    shown = ["--endpoints", cluster.endpoints]
    if cluster.token:
        client = cluster.data_dir / "certs/clients/operator"
        shown += ["--ca", str(client / "authority.pem"), "--cert", str(client / "client.pem")]
        shown += ["--key", str(client / "client.key"), "--token-file", str(cluster.token_path)]
    command = [sys.executable, "-m", "raftckpt_cli.main", *words, *shown]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--replicas", type=int, default=3)
    given = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(given.replicas, f"{directory}/plain", faults=False) as plain,
        LocalCluster(
            given.replicas, f"{directory}/secured", faults=False, tls=True, auth=True
        ) as secured,
    ):
        for turn in range(given.rounds):
            pairs = [("plain", plain), ("secured", secured)]
            for name, load in LOADS.items():
                for which, cluster in pairs[:: -1 if turn % 2 else 1]:
                    found[name, which].append(measured(cluster, load, given.seconds))
    print("| load | plain | TLS and rights | | wanted |\n|---|---|---|---|---|")
    misses = 0
    for name in LOADS:
        rate = [statistics.median(each["ops_per_s"] for each in found[name, which])
                for which in ("plain", "secured")]  # fmt: skip
        p50 = [statistics.median(each["p50_us"] for each in found[name, which])
               for which in ("plain", "secured")]  # fmt: skip
        if "256" in name:
            ratio, wanted, told = rate[1] / rate[0], f">= {RATE_MIN}x", "{:,.0f} /s"
            misses += ratio < RATE_MIN
            shown = rate
        else:
            ratio, wanted, told = p50[1] / p50[0], f"<= {P50_MAX}x", "{:,.0f} us p50"
            misses += ratio > P50_MAX
            shown = p50
        cells = " | ".join(told.format(each) for each in shown)
        print(f"| {name} | {cells} | {ratio:.2f}x | {wanted} |")
    errors = sum(each["errors"] for runs in found.values() for each in runs)
    print(f"\nerrors: {errors}")
    return int(bool(misses or errors))


if __name__ == "__main__":
    sys.exit(main())

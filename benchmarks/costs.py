"""What something costs: a plain cluster and one that has it, taking turns.

    python benchmarks/costs.py secure [--rounds 3] [--seconds 4] [--replicas 3]
    python benchmarks/costs.py metrics

Both clusters run all the time, are made by the same command and differ in one thing:

* secure: all links and all clients speak TLS, clients are known by token, rights are on. Wanted: at
  least 70 % of the throughput at 256 outstanding, at most 1.3 times the p50 of one write after the
  other.
* metrics: each replica has its admin port, and /metrics of each is read every second (Prometheus
  reads it every 15 by default). Wanted: at least 98 % of the throughput at 256 outstanding.

Medians of the rounds. "CPU" is what all replicas take per operation, which a busy machine changes
less than it changes times.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from raftckpt.testing import LocalCluster
from raftckpt.testing.local_cluster import _free_ports

SCRAPED_EVERY_S = 1.0
LOADS = {
    "sequential write": ["--clients", "1", "--outstanding", "1"],
    "256 outstanding writes": ["--clients", "8", "--outstanding", "32"],
    "sequential read": ["--clients", "1", "--outstanding", "1", "--reads", "1"],
}


class Wanted(NamedTuple):
    """The least share of the throughput at 256 outstanding, the most of the sequential p50."""

    rate_min: float
    p50_max: float


WANTED = {"secure": Wanted(0.7, 1.3), "metrics": Wanted(0.98, 1.02)}


@contextlib.contextmanager
def made(what: str, directory: str, replicas: int) -> Iterator[LocalCluster]:
    secure = what == "secure"
    cluster = LocalCluster(replicas, directory, faults=False, tls=secure or None, auth=secure)
    urls = []
    if what == "metrics":
        settings = yaml.safe_load(cluster.config_path.read_text("utf-8"))
        for replica, port in zip(settings["replicas"].values(), _free_ports(replicas), strict=True):
            replica["admin"] = f"127.0.0.1:{port}"
            urls.append(f"http://127.0.0.1:{port}/metrics")
        cluster.config_path.write_text(yaml.safe_dump(settings), "utf-8")
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPED_EVERY_S):
            for url in urls:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    answer.read()

    with cluster:
        scraper = threading.Thread(target=scrape)
        scraper.start()
        try:
            yield cluster
        finally:
            over.set()
            scraper.join()


def cpu_s(cluster: LocalCluster) -> float:
    """Processor time of all replicas so far."""
    ticks = 0
    for node in cluster.nodes:
        fields = (
            Path(f"/proc/{cluster.pid(node)}/stat").read_text("ascii").rsplit(")", 1)[1].split()
        )
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measured(cluster: LocalCluster, load: list[str], seconds: float) -> dict[str, Any]:
    words = ["bench", *load, "--seconds", str(seconds), "-o", "json"]
    shown = ["--endpoints", cluster.endpoints]
    if cluster.token:
        client = cluster.data_dir / "certs/clients/operator"
        shown += ["--ca", str(client / "authority.pem"), "--cert", str(client / "client.pem")]
        shown += ["--key", str(client / "client.key"), "--token-file", str(cluster.token_path)]
    command = [sys.executable, "-m", "raftckpt_cli.main", *words, *shown]
    before = cpu_s(cluster)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    found["cpu_us"] = (cpu_s(cluster) - before) * 1e6 / max(1.0, found["ops_per_s"] * seconds)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=WANTED)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--replicas", type=int, default=3)
    given = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as directory,
        made("plain", f"{directory}/plain", given.replicas) as plain,
        made(given.what, f"{directory}/{given.what}", given.replicas) as other,
    ):
        pairs = [("plain", plain), (given.what, other)]
        for turn in range(given.rounds):
            for name, load in LOADS.items():
                for which, cluster in pairs[:: -1 if turn % 2 else 1]:
                    found[name, which].append(measured(cluster, load, given.seconds))
    wanted = WANTED[given.what]
    print(f"| load | plain | {given.what} | | wanted | CPU |\n|---|---|---|---|---|---|")
    misses = 0
    for name in LOADS:

        def middle(key: str, name: str = name) -> list[float]:
            return [
                statistics.median(each[key] for each in found[name, which]) for which, _ in pairs
            ]

        if "256" in name:
            shown, told = middle("ops_per_s"), "{:,.0f} /s"
            ratio, bound = shown[1] / shown[0], f">= {wanted.rate_min}x"
            misses += ratio < wanted.rate_min
        else:
            shown, told = middle("p50_us"), "{:,.0f} us p50"
            ratio, bound = shown[1] / shown[0], f"<= {wanted.p50_max}x"
            misses += ratio > wanted.p50_max
        cpu = middle("cpu_us")
        cells = " | ".join(told.format(each) for each in shown)
        print(f"| {name} | {cells} | {ratio:.2f}x | {bound} | {cpu[1] / cpu[0]:.2f}x |")
    errors = sum(each["errors"] for runs in found.values() for each in runs)
    print(f"\nerrors: {errors}; 1-minute load at the end: {os.getloadavg()[0]:.1f}")
    return int(bool(misses or errors))


if __name__ == "__main__":
    sys.exit(main())

"""Side by side with the peers that are installed: same machine, same disk, alternating runs.

    python benchmarks/compare.py [--rounds 5] [--seconds 4] [--only NAME,...] [--out DIR]

Three nodes each on loopback, durable before acknowledged:

* raftckpt: as configured by default; its own load generator.
* etcd: its own Go client (benchmarks/etcdload, built if Go and the client's source are there),
  connected to the leader; limits of request and database size raised, else defaults.
* Redis: appendfsync always on all three, WAIT 1 (a majority has received it; what the replicas
  wrote is not waited for). It has neither elections nor linearizable reads.
* NATS: a bucket of JetStream with three replicas, sync_interval always; its text protocol on raw
  sockets (natsload.py), connected to the stream's leader. It has no linearizable reads: that
  leader answers without asking the others whether it still leads.
* the floor (floor.py), in the rows of one request after the other: what the same sends, writes and
  syncs take without a store.

Peers are those of the PATH; peers.sh unpacks newer ones beside what is installed. All clusters run
all the time and are idle unless it is their turn. A run with errors (an election meanwhile, say) is
kept and counted in the table. Writes results.json, table.md and plot.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import floor
import natsload

from raftckpt.bench.plots import Series, line_plot
from raftckpt.testing import LocalCluster
from raftckpt.testing.local_cluster import _free_ports as free_ports

HERE = Path(__file__).parent
STOP_SECONDS_MAX = 10.0


@dataclass(frozen=True)
class Row:
    """A workload, what is compared, and by which factor we want to be ahead of etcd."""

    name: str
    clients: int
    outstanding: int
    size: int
    metric: str = "ops_per_s"
    target: float = 1.0
    reads: float = 0.0


ROWS = [
    Row("sequential write 100 B", 1, 1, 100, "p50_us", 0.65),
    Row("64 outstanding writes 100 B over 8 connections", 8, 8, 100, target=5),
    Row("256 outstanding writes 100 B over 8 connections", 8, 32, 100, target=8),
    Row("64 connections with one write each", 64, 1, 100, target=4),
    Row("64 KiB x 8 outstanding", 8, 1, 65_536, "mb_per_s", 2.5),
    Row("1 MiB x 4 outstanding", 4, 1, 1_048_576, "mb_per_s", 4),
    Row("linearizable read, sequential", 1, 1, 100, "p50_us", 0.7, 1.0),
    Row("linearizable reads, 64 outstanding", 8, 8, 100, target=4, reads=1.0),
]
PLOTTED = [Row(f"{8 * each} outstanding", 8, each, 100) for each in (1, 2, 4, 8, 16, 32, 64)]


class Processes:
    """Processes of a peer that end with this one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.all: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: list[str]) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            self.all.append(subprocess.Popen(command, stdout=log, stderr=log))

    def check(self) -> None:
        """Complain about one that has ended: its peers would be waited for in vain."""
        for process in self.all:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args} ended: see the logs in {self.directory}")

    def stop(self) -> None:
        for process in self.all:
            process.terminate()
        for process in self.all:
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def measured(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, timeout=600)
    if not done.stdout:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.decode()[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Raftckpt:
    name = "raftckpt"

    def __init__(self, directory: Path) -> None:
        self.cluster = LocalCluster(3, directory, faults=False)

    def start(self) -> None:
        self.cluster.start()
        self.cluster.wait_ready()

    def stop(self) -> None:
        self.cluster.stop()

    def can(self, row: Row) -> bool:
        return True

    def measure(self, row: Row, seconds: float) -> dict[str, Any]:
        command = [sys.executable, "-m", "raftckpt_cli.main", "bench", "-o", "json"]
        command += ["--endpoints", self.cluster.endpoints, "--clients", str(row.clients)]
        command += ["--outstanding", str(row.outstanding), "--size", str(row.size)]
        return measured([*command, "--reads", str(row.reads), "--seconds", str(seconds)])


class Etcd:
    name = "etcd"

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.processes = Processes(directory)
        ports = free_ports(6)
        self.clients, self.peers = ports[:3], ports[3:]
        self.load = build_etcdload(directory)

    def start(self) -> None:
        initial = ",".join(f"e{n}=http://127.0.0.1:{port}" for n, port in enumerate(self.peers))
        for number, (client, peer) in enumerate(zip(self.clients, self.peers, strict=True)):
            client_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
            self.processes.start(
                f"e{number}",
                [
                    *("etcd", "--name", f"e{number}", "--initial-cluster", initial),
                    *("--data-dir", str(self.processes.directory / f"e{number}")),
                    *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
                    *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
                    *("--max-request-bytes", str(64 << 20), "--log-level", "error"),
                    *("--quota-backend-bytes", str(8 << 30), "--logger", "zap"),
                ],
            )
        self.measure(ROWS[0], 0.2)

    def stop(self) -> None:
        self.processes.stop()

    def can(self, row: Row) -> bool:
        return True

    def measure(self, row: Row, seconds: float) -> dict[str, Any]:
        endpoints = ",".join(f"127.0.0.1:{port}" for port in self.clients)
        command = [str(self.load), "-endpoints", endpoints, "-clients", str(row.clients)]
        command += ["-outstanding", str(row.outstanding), "-size", str(row.size)]
        command += ["-reads", str(row.reads), "-keys", str(1024 if row.size < 10_000 else 64)]
        return measured([*command, "-seconds", str(seconds)])


def build_etcdload(directory: Path) -> Path:
    given = os.environ.get("ETCDLOAD")
    if given:
        return Path(given)
    built = directory / "etcdload"
    environment = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", **os.environ}
    subprocess.run(
        ["go", "build", "-o", str(built), "."], cwd=HERE / "etcdload", env=environment, check=True
    )
    return built


class Redis:
    name = "Redis"

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.processes = Processes(directory)
        self.ports = free_ports(3)

    def start(self) -> None:
        for number, port in enumerate(self.ports):
            home = self.processes.directory / f"r{number}"
            home.mkdir()
            command = ["redis-server", "--port", str(port), "--dir", str(home), "--save", ""]
            command += ["--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always"]
            command += ["--repl-diskless-sync-delay", "0"]
            if number:
                command += ["--replicaof", "127.0.0.1", str(self.ports[0])]
            self.processes.start(f"r{number}", command)
        until = time.monotonic() + 60
        while not self._ready():
            if time.monotonic() > until:
                raise RuntimeError("Redis does not get its replicas")
            time.sleep(0.2)

    def _ready(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.ports[0]), 1) as s,
        ):
            s.sendall(b"INFO replication\r\n")
            time.sleep(0.05)
            return s.recv(1 << 16).count(b"state=online") == len(self.ports) - 1
        return False

    def stop(self) -> None:
        self.processes.stop()

    def can(self, row: Row) -> bool:
        return not row.reads

    def measure(self, row: Row, seconds: float) -> dict[str, Any]:
        command = [sys.executable, str(HERE / "redisload.py")]
        command += ["--endpoint", f"127.0.0.1:{self.ports[0]}", "--clients", str(row.clients)]
        command += ["--outstanding", str(row.outstanding), "--size", str(row.size)]
        command += ["--keys", str(1024 if row.size < 10_000 else 64)]
        return measured([*command, "--seconds", str(seconds)])


NATS_CONFIG = """\
server_name: {name}
listen: "127.0.0.1:{client}"
max_payload: 8MB
jetstream {{ store_dir: "{home}", sync_interval: always }}
cluster {{ name: bench, listen: "127.0.0.1:{peer}", routes: [{routes}] }}
"""


class Nats:
    name = "NATS"

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.processes = Processes(directory)
        ports = free_ports(6)
        self.clients, self.peers = ports[:3], ports[3:]
        self.endpoints = [f"127.0.0.1:{port}" for port in self.clients]

    def start(self) -> None:
        routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in self.peers)
        for number, (client, peer) in enumerate(zip(self.clients, self.peers, strict=True)):
            name, directory = f"s{number}", self.processes.directory
            config = directory / f"{name}.conf"
            config.write_text(
                NATS_CONFIG.format(
                    name=name, client=client, peer=peer, home=directory / name, routes=routes
                )
            )
            self.processes.start(name, ["nats-server", "-c", str(config)])
        try:
            asyncio.run(natsload.found_bucket(self.endpoints))
        finally:
            self.processes.check()

    def stop(self) -> None:
        self.processes.stop()

    def can(self, row: Row) -> bool:
        return not row.reads

    def measure(self, row: Row, seconds: float) -> dict[str, Any]:
        command = [sys.executable, str(HERE / "natsload.py")]
        command += ["--endpoints", ",".join(self.endpoints), "--clients", str(row.clients)]
        command += ["--outstanding", str(row.outstanding), "--size", str(row.size)]
        command += ["--keys", str(1024 if row.size < 10_000 else 64)]
        return measured([*command, "--seconds", str(seconds)])


class FloorPeer:
    """The floor of one flavour, as if it were a store."""

    flavour = ""
    name = ""

    def __init__(self, directory: Path) -> None:
        self.floor = floor.Floor(directory)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def can(self, row: Row) -> bool:
        return row.clients == row.outstanding == 1

    def measure(self, row: Row, seconds: float) -> dict[str, Any]:
        work = floor.WORKS[-1] if row.reads else floor.WORKS[0]
        whole = floor.hops_of(self.floor.measure(self.flavour, work, seconds))[-1]
        return {"p50_us": whole.p50, "p99_us": whole.p99, "ops_per_s": 1e6 / whole.p50, "errors": 0}


class FloorInC(FloorPeer):
    flavour, name = "c", "floor, C"


class FloorInPython(FloorPeer):
    flavour, name = "python", "floor, Python"


def installed() -> list[type[Any]]:
    found: list[type[Any]] = [Raftckpt]
    if shutil.which("etcd") and (shutil.which("go") or "ETCDLOAD" in os.environ):
        found.append(Etcd)
    if shutil.which("redis-server"):
        found.append(Redis)
    if shutil.which("nats-server"):
        found.append(Nats)
    return [
        *found,
        *(kind for kind in (FloorInC, FloorInPython) if kind.flavour in floor.flavours()),
    ]


def versions() -> dict[str, str]:
    """What the peers say of themselves."""
    told = {}
    for name in ("etcd", "redis-server", "nats-server"):
        if shutil.which(name):
            done = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=10)
            told[name] = done.stdout.splitlines()[0] if done.stdout else "?"
    return told


def run(peers: list[Any], rows: list[Row], rounds: int, seconds: float) -> dict[str, Any]:
    """Row -> peer -> the results of every round, in turns."""
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        for number in range(rounds):
            turn = peers[number % len(peers) :] + peers[: number % len(peers)]
            for peer in turn:
                if not peer.can(row):
                    continue
                result = peer.measure(row, seconds)
                results.setdefault(row.name, {}).setdefault(peer.name, []).append(result)
                shown = ", ".join(f"{k} {result[k]:.0f}" for k in ("ops_per_s", "p50_us", "errors"))
                print(f"{row.name} | {peer.name} | {shown}", file=sys.stderr, flush=True)
    return results


def median(results: list[dict[str, Any]], metric: str) -> float:
    return statistics.median(result[metric] for result in results)


def table(results: dict[str, Any], names: list[str]) -> str:
    units = {"p50_us": "us p50", "ops_per_s": "/s", "mb_per_s": "MB/s"}
    floors = [name for name in names if name.startswith("floor")]
    lines = [
        "| workload | " + " | ".join(names) + " | to etcd | target | met | to the floor | errors |",
        "|---" * (len(names) + 6) + "|",
    ]
    for row in ROWS:
        by_peer = results.get(row.name)
        if not by_peer:
            continue
        cells = [
            f"{median(by_peer[name], row.metric):,.0f} {units[row.metric]} "
            f"(p99 {median(by_peer[name], 'p99_us') / 1000:.1f} ms)"
            if name in by_peer
            else "-"
            for name in names
        ]
        ratio, met = "-", "-"
        if "etcd" in by_peer:
            factor = median(by_peer["raftckpt"], row.metric) / median(by_peer["etcd"], row.metric)
            ratio = f"{factor:.2f}x"
            lower = row.metric == "p50_us"
            met = "yes" if (factor <= row.target if lower else factor >= row.target) else "no"
        sign = "<=" if row.metric == "p50_us" else ">="
        ours = median(by_peer["raftckpt"], row.metric)
        errors = sum(result["errors"] for each in by_peer.values() for result in each)
        above = [
            f"{ours / median(by_peer[name], row.metric):.2f}x" for name in floors if name in by_peer
        ]
        lines.append(
            f"| {row.name} | {' | '.join(cells)} | {ratio} | {sign} {row.target:g}x | {met} "
            f"| {', '.join(above) or '-'} | {errors} |"
        )
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Any], names: list[str]) -> str:
    series = [
        Series(
            name,
            [
                (8 * row.outstanding, median(results[row.name][name], "ops_per_s"))
                for row in PLOTTED
                if name in results.get(row.name, {})
            ],
        )
        for name in names
    ]
    title = "Durable writes of 100 B over 8 connections, three nodes on one machine"
    return line_plot(title, "outstanding", "writes/s", series, x_log=True)


def describe_machine() -> dict[str, Any]:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpus": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "fdatasync_p50_us": fdatasync_us(),
        "peers": versions(),
    }


def fdatasync_us() -> float:
    """Median of writing 4 KiB over preallocated space and syncing it."""
    times = []
    with tempfile.NamedTemporaryFile(dir=".") as file:
        os.pwrite(file.fileno(), bytes(1 << 20), 0)
        os.fsync(file.fileno())
        for number in range(200):
            begin = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(4096), 4096 * number)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", help="peers beside raftckpt, by name; floor")
    parser.add_argument("--rows", help="numbers of the rows, 1,2,...")
    parser.add_argument("--no-plot", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    kinds = [
        kind
        for kind in installed()
        if options.only is None
        or kind.name.partition(",")[0] in ("raftckpt", *options.only.split(","))
    ]
    rows = [ROWS[int(number) - 1] for number in options.rows.split(",")] if options.rows else ROWS
    options.out = options.out.absolute()  # the load generator is built from another directory
    options.out.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="compare-", dir=options.out) as directory:
        peers = [kind(Path(directory) / kind.name) for kind in kinds]
        try:
            for peer in peers:
                peer.start()
            results = run(peers, rows, options.rounds, options.seconds)
            if not options.no_plot:
                results |= run(peers, PLOTTED, max(1, options.rounds // 2), options.seconds)
        finally:
            for peer in peers:
                peer.stop()
    names = [peer.name for peer in peers]
    told = "; ".join(machine["peers"].values())
    text = table(results, names) + f"\nPeers: {told or 'none installed'}.\n"
    whole = {"machine": machine, "command": sys.argv, "results": results}
    (options.out / "results.json").write_text(json.dumps(whole, indent=1), "utf-8")
    (options.out / "table.md").write_text(text, "utf-8")
    if not options.no_plot:
        (options.out / "plot.svg").write_text(plot(results, names), "utf-8")
    print(json.dumps(machine, indent=1))
    print(text)


if __name__ == "__main__":
    main()

"""The waterfall of one write and of one read through raftckpt, beside the floor's.

    python benchmarks/hops.py [--seconds 3] [--rounds 3] [--out DIR]

Three replicas of a LocalCluster and one client with one request at a time. Each process notes when
it passes the points below, on the one monotonic clock of the machine; afterwards the notes of all
are put together, operation by operation, over the follower whose ack the leader saw first. The
replicas' code knows nothing of it: this module wraps a few methods (``_wrap``) and then runs
``raftckpt.node``. A note costs 0.3 us. Between two hops of the table that are the same for the
floor there are finer ones (-).

Then, with replicas that are not wrapped: processor time, wake-ups (voluntary context switches) and
system calls per operation and role, the last where perf may count them.

Writes hops.md, hops.svg (of the writes) and hops.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import floor
from floor import Hop, Work

HERE = Path(__file__).parent
NOTES = "HOPS_NOTES"
(CLIENT_IN, REPLY_OUT, PEER_IN, PEER_OUT, STEP, SYNC_BEGINS, SYNCED, COMMITTED, ENTRY) = range(9)
"""What is noted; of PEER_IN and PEER_OUT the peer's number is added in steps of 16."""
_LATE_NS = 2_000_000
_now = time.monotonic_ns


# --- inside a replica -----------------------------------------------------------------------------
def replica() -> int:
    """Run a replica whose methods take notes; they are kept when it leaves."""
    from raftckpt.process.main import main

    notes = array("q")
    _wrap(notes)
    node = sys.argv[sys.argv.index("--node") + 1]
    code = main()
    Path(os.environ[NOTES], f"{node}.notes").write_bytes(notes.tobytes())
    return code


def _wrap(notes: array[int]) -> None:
    from raftckpt.node.driver import Driver
    from raftckpt.node.reads import WaitingReads
    from raftckpt.node.replica import Replica
    from raftckpt.raft.links import PeerLinks, _Link
    from raftckpt.server.connection import Connection
    from raftckpt.storage.files import _RealFile
    from raftckpt.storage.journal import Journal

    def around(
        owner: Any, name: str, before: int | None, after: int | None,
        of: Callable[..., int] = lambda *_: 0,
    ) -> None:  # fmt: skip
        inner = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            which = of(*arguments)
            if which < 0:
                return inner(*arguments, **named)
            if before is not None:
                notes.extend((before + 16 * which, _now()))
            result = inner(*arguments, **named)
            if after is not None:
                notes.extend((after + 16 * which, _now()))
            return result

        setattr(owner, name, wrapped)

    def number(link: Any) -> int:
        return int(link.node[1:]) if link is not None and link.live else -1

    around(Connection, "data_received", CLIENT_IN, None)
    around(Connection, "flush", None, REPLY_OUT, lambda self: 0 if self.outbox._replies else -1)
    around(_Link, "data_received", PEER_IN, None, lambda self, data: number(self))
    around(PeerLinks, "send", None, PEER_OUT, lambda self, to, body: number(self._links.get(to)))
    around(Driver, "_step", STEP, None)
    around(_RealFile, "sync", SYNC_BEGINS, SYNCED)
    around(Journal, "append_entry", None, ENTRY)
    around(Replica, "apply", COMMITTED, None)
    around(WaitingReads, "_confirmed", COMMITTED, None)


class Notes:
    """What a replica noted: times of each code, and of all."""

    def __init__(self, file: Path) -> None:
        self.number = int(file.stem[1:])
        data = array("q", file.read_bytes())
        self.times: dict[int, list[int]] = {}
        for code, at in zip(data[::2], data[1::2], strict=True):
            self.times.setdefault(code, []).append(at)
        self.peer_in = sorted(
            (at, code // 16) for code, times in self.times.items() for at in times
            if code % 16 == PEER_IN
        )  # fmt: skip

    def between_in(self, after: int, before: int) -> list[tuple[int, int]]:
        """(time, from whom) of what peers sent in between."""
        low, high = bisect_left(self.peer_in, (after, 0)), bisect_right(self.peer_in, (before, 99))
        return self.peer_in[low:high]

    def first(self, code: int, after: int, before: int) -> int:
        """The first time in between, or 0."""
        times = self.times.get(code, [])
        position = bisect_left(times, after)
        return times[position] if position < len(times) and times[position] <= before else 0

    def last(self, code: int, after: int, before: int) -> int:
        """The last time in between, or 0."""
        times = self.times.get(code, [])
        position = bisect_right(times, before) - 1
        return times[position] if position >= 0 and times[position] >= after else 0

    def count(self, code: int, after: int, before: int) -> int:
        """How many in between."""
        times = self.times.get(code, [])
        return bisect_right(times, before) - bisect_left(times, after)


# --- the load -------------------------------------------------------------------------------------
async def _ask(endpoints: str, seconds: float, reads: float) -> list[tuple[int, int]]:
    """Times of sending and of the answer, one request after the other."""
    from raftckpt.bench.generator import Generator
    from raftckpt.bench.link import ClusterAccess
    from raftckpt.bench.loads import Load

    sent, answered = array("q"), array("q")

    class Noting(Generator):
        def _fill(self) -> None:
            sent.append(_now())
            super()._fill()

        def _take(self, messages: list[Any]) -> None:
            answered.append(_now())
            super()._take(messages)

    load = Load(clients=1, outstanding=1, reads=reads, seconds=seconds, warmup=0)
    generator = Noting(load, 0, ClusterAccess(endpoints.split(",")))
    await generator.prepare(["hops"])
    del sent[:], answered[:]
    begin = time.perf_counter()
    await generator.measure(begin, begin + seconds)
    await generator.close()
    pairs = []
    for at in sent:
        position = bisect_right(answered, at)
        if position < len(answered):
            pairs.append((at, answered[position]))
    return pairs[floor.WARM_UP :]


def ask(endpoints: str, seconds: float, reads: float) -> list[tuple[int, int]]:
    """Run the load in this process."""
    import uvloop

    return uvloop.run(_ask(endpoints, seconds, reads))


# --- putting it together --------------------------------------------------------------------------
class Stop(NamedTuple):
    """A point on the way; ``fine``: the floor has no such point."""

    name: str
    at: int
    fine: bool = False


def way(
    sent: int, answered: int, leader: Notes, followers: dict[int, Notes], is_read: bool
) -> list[Stop] | None:
    """The way of an operation; None: something else came between, or it was the first of a kind."""
    has = leader.first(CLIENT_IN, sent, answered)
    committed = leader.last(COMMITTED, sent, answered)
    position = bisect_right(leader.peer_in, (committed, 99)) - 1
    if not has or not committed or position < 0:
        return None
    acked, by = leader.peer_in[position]
    other = followers.get(by)
    if other is None:
        return None
    # what is noted after a call may be late, if the other side was woken up first: hence min()
    late = answered + _LATE_NS
    received = min((at for at, _ in other.between_in(has, acked)), default=0)
    synced = received if is_read else other.first(SYNCED, received, acked)
    ack = min(other.first(PEER_OUT + 16 * leader.number, synced, late), acked)
    appended = min(leader.first(PEER_OUT + 16 * by, has, late), received)
    replied = min(leader.first(REPLY_OUT, committed, late), answered)
    stops = [
        Stop("client sends", sent),
        Stop("leader has the request", has),
        Stop("- its step begins", leader.first(STEP, has, appended), True),
        Stop("the append has left", appended),
        Stop("the follower has it", received),
    ]
    if not is_read:
        stops += [
            Stop("- its step begins", other.first(STEP, received, synced), True),
            Stop("- its sync begins", other.last(SYNC_BEGINS, received, synced), True),
        ]
    stops += [
        Stop("it is on that disk", synced),
        Stop("the ack has left", ack),
        Stop("leader has the ack", acked),
        Stop("committed", committed),
        Stop("reply has left", replied),
        Stop("client has it", answered),
    ]
    return None if any(stop.at == 0 for stop in stops) else stops


class Waterfall(NamedTuple):
    """Hops of one kind of operation."""

    hops: list[tuple[Hop, bool]]
    """Each with whether it is a fine one."""
    own_disk: Hop
    """What the leader did until its own copy was on disk, from the append's leaving on."""
    steps: dict[str, float]
    """Of the loop per operation and role."""
    entries: int
    operations: int
    left_out: int


def waterfall(
    pairs: list[tuple[int, int]], notes: dict[int, Notes], leader: int, is_read: bool
) -> Waterfall:
    """Put the notes together."""
    followers = {number: found for number, found in notes.items() if number != leader}
    ways, own = [], []
    for sent, answered in pairs:
        found = way(sent, answered, notes[leader], followers, is_read)
        if found is None:
            continue
        ways.append(found)
        left = next(stop.at for stop in found if stop.name == "the append has left")
        synced = notes[leader].first(SYNCED, left, answered)
        own.append(synced - left if synced else 0)
    hops = []
    coarse = 0
    for position in range(1, len(ways[0])):
        stop = ways[0][position]
        former = position - 1 if stop.fine else coarse
        hops.append(
            (
                floor.hop_of(stop.name, [each[position].at - each[former].at for each in ways]),
                stop.fine,
            )
        )
        if not stop.fine:
            coarse = position
    hops.append((floor.hop_of("the whole", [each[-1].at - each[0].at for each in ways]), False))
    begin, end = pairs[0][0], pairs[-1][1]
    steps = {"leader": notes[leader].count(STEP, begin, end) / len(pairs)}
    steps["follower"] = statistics.mean(
        each.count(STEP, begin, end) / len(pairs) for each in followers.values()
    )
    return Waterfall(
        hops,
        floor.hop_of("(beside it: the leader's own copy)", own),
        steps,
        notes[leader].count(ENTRY, begin, end),
        len(ways),
        len(pairs) - len(ways),
    )


def measured(directory: Path, seconds: float, reads: float) -> Waterfall:
    """One cluster whose replicas take notes, one load."""
    from raftckpt.testing import LocalCluster

    os.environ[NOTES] = str(directory)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    cluster = LocalCluster(3, directory / "cluster", faults=False, module="hops")
    cluster.start()
    try:
        cluster.wait_ready()
        leader = int(cluster.leader()[1:])
        pairs = ask(cluster.endpoints, seconds, reads)
    finally:
        cluster.stop()
    notes = {int(each.stem[1:]): Notes(each) for each in directory.glob("n*.notes")}
    return waterfall(pairs, notes, leader, reads > 0)


# --- costs ----------------------------------------------------------------------------------------
class Cost(NamedTuple):
    """Per operation and process."""

    cpu_us: float
    wake_ups: float
    calls: float
    """System calls; 0: perf cannot count them here."""


def costs(directory: Path, seconds: float, reads: float) -> dict[str, Cost]:
    """What an operation costs each role, of replicas as they are."""
    from raftckpt.testing import LocalCluster

    cluster = LocalCluster(3, directory / "costs", faults=False)
    cluster.start()
    try:
        cluster.wait_ready()
        leader = cluster.leader()
        pids = {node: cluster.pid(node) or 0 for node in cluster.nodes}
        before = {node: _spent(pid) for node, pid in pids.items()}
        done = len(ask(cluster.endpoints, seconds, reads)) + floor.WARM_UP
        spent = {
            node: [after - former for after, former in zip(_spent(pid), before[node], strict=True)]
            for node, pid in pids.items()
        }
        calls = {node: _calls(pid, cluster.endpoints, reads) for node, pid in pids.items()}
    finally:
        cluster.stop()
    found = {
        node: Cost(each[0] / 1e3 / done, each[1] / done, calls[node])
        for node, each in spent.items()
    }
    followers = [found[node] for node in found if node != leader]
    mean = Cost(*(statistics.mean(values) for values in zip(*followers, strict=True)))
    return {"leader": found[leader], "follower": mean}


def _spent(pid: int) -> tuple[int, int]:
    """(processor time in ns, voluntary context switches) of a process so far."""
    cpu = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    status = Path(f"/proc/{pid}/status").read_text()
    return cpu, int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


def _calls(pid: int, endpoints: str, reads: float) -> float:
    """System calls per operation of one process, counted by perf; 0: it may not."""
    if not shutil.which("perf"):
        return 0.0
    command = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", str(pid)]
    counter = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(0.3)
    done = len(ask(endpoints, 1.0, reads)) + floor.WARM_UP
    counter.send_signal(2)
    _, told = counter.communicate(timeout=10)
    try:
        return int(told.strip().splitlines()[-1].split(",")[0]) / done
    except (IndexError, ValueError):
        return 0.0


# --- the report -----------------------------------------------------------------------------------
def table(title: str, rounds: list[Waterfall], floors: dict[str, list[list[Hop]]]) -> str:
    """Median of rounds: p50 and p99 in us, the floor's beside them."""
    names = [name for name in floors if floors[name]]
    lines = [
        f"| {title} | raftckpt | " + " | ".join(f"floor, {name}" for name in names) + " |",
        "|---" * (len(names) + 2) + "|",
    ]

    def middle(hops: list[Hop]) -> str:
        p50, p99 = (
            statistics.median(getattr(hop, field) for hop in hops) for field in ("p50", "p99")
        )
        return f"{p50:,.0f}, {p99:,.0f}"

    for position, (hop, fine) in enumerate(rounds[0].hops):
        cells = [middle([each.hops[position][0] for each in rounds])]
        for name in names:
            same = [found for hops in floors[name] for found in hops if found.name == hop.name]
            cells.append(middle(same) if same and not fine else "")
        lines.append(f"| {hop.name} | " + " | ".join(cells) + " |")
    own = [middle([each.own_disk for each in rounds])]
    for name in names:
        own.append(middle([h for hops in floors[name] for h in hops if h.name.startswith("(")]))
    if rounds[0].own_disk.p50:
        lines.append(f"| {rounds[0].own_disk.name} | " + " | ".join(own) + " |")
    return "\n".join(lines) + "\n"


_COLOURS = (
    "#4477aa",
    "#66ccee",
    "#228833",
    "#ccbb44",
    "#ee6677",
    "#aa3377",
    "#999933",
    "#882255",
    "#bbbbbb",
)


def picture(title: str, bars: list[tuple[str, list[Hop]]]) -> str:
    """An SVG: a bar of hops for each, one below the other, on one scale."""
    width, left, height = 900, 120, 46
    most = max(sum(max(0.0, hop.p50) for hop in hops) for _, hops in bars) or 1.0
    scale = (width - left - 20) / most
    names = [hop.name for hop in bars[0][1]]
    legend = 60 + height * len(bars)
    end = legend + 22 * ((len(names) + 2) // 3)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {end}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(width / 2, 22, title, "middle"),
    ]
    for number, (name, hops) in enumerate(bars):
        x, y = float(left), 40 + height * number
        parts.append(_text(left - 8, y + 20, name, "end"))
        for position, hop in enumerate(hops):
            long = max(0.0, hop.p50) * scale
            parts.append(_box(x, y, long, 30, position))
            if long > 24:
                parts.append(_text(x + long / 2, y + 20, f"{hop.p50:.0f}", "middle", "#ffffff"))
            x += long
    for position, name in enumerate(names):
        x, y = left + 260 * (position % 3), legend + 22 * (position // 3)
        parts += [_box(x, y - 11, 14, 14, position), _text(x + 20, y, name, "start")]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(x: float, y: float, width: float, height: float, position: int) -> str:
    colour = _COLOURS[position % len(_COLOURS)]
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222222") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _coarse(rounds: list[list[Hop]]) -> list[Hop]:
    """Median over rounds of the hops of the way itself."""
    kept = []
    for position, hop in enumerate(rounds[0]):
        if hop.name.startswith("(") or hop.name == "the whole":
            continue
        p50 = statistics.median(hops[position].p50 for hops in rounds)
        kept.append(hop._replace(p50=p50))
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-costs", action="store_true")
    parser.add_argument("--flavours", default=",".join(floor.flavours()), help="of the floor; none")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = [name for name in options.flavours.split(",") if name != "none"]
    text, kept = "", {}
    for title, reads, work in (
        ("write of 100 B", 0.0, floor.WORKS[0]),
        ("read", 1.0, floor.WORKS[-1]),
    ):
        rounds: list[Waterfall] = []
        floors: dict[str, list[list[Hop]]] = {name: [] for name in names}
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="hops-", dir=options.out) as made:
                directory = Path(made).absolute()
                rounds.append(measured(directory, options.seconds, reads))
                for name in names:
                    floors[name].append(_floor(directory, name, work, options.seconds))
        text += table(f"{title}: p50, p99 us", rounds, floors) + "\n"
        last = rounds[-1]
        text += (
            f"{last.operations} operations in the last round ({last.left_out} left out); steps of "
            f"the loop per operation: leader {last.steps['leader']:.2f}, "
            f"follower {last.steps['follower']:.2f}\n\n"
        )
        if not options.no_costs:
            text += _cost_table(title, options.out, options.seconds, reads) + "\n"
        kept[title] = {"raftckpt": [each._asdict() for each in rounds], "floor": floors}
        if not reads:
            bars = [
                ("raftckpt", _coarse([[h for h, fine in each.hops if not fine] for each in rounds]))
            ]
            bars += [(f"floor, {name}", _coarse(floors[name])) for name in names]
            drawn = picture("One replicated durable write, hop by hop (p50, us)", bars)
            (options.out / "hops.svg").write_text(drawn, "utf-8")
    (options.out / "hops.md").write_text(text, "utf-8")
    (options.out / "hops.json").write_text(json.dumps(kept, indent=1), "utf-8")
    print(text)


def _floor(directory: Path, flavour: str, work: Work, seconds: float) -> list[Hop]:
    return floor.hops_of(floor.Floor(directory / "floor").measure(flavour, work, seconds))


def _cost_table(title: str, out: Path, seconds: float, reads: float) -> str:
    with tempfile.TemporaryDirectory(prefix="hops-", dir=out) as made:
        found = costs(Path(made).absolute(), seconds, reads)
    lines = [f"| {title}, each | cpu us | wake-ups | system calls |", "|---|---|---|---|"]
    lines += [
        f"| {role} | {cost.cpu_us:.0f} | {cost.wake_ups:.2f} | {cost.calls:.1f} |"
        for role, cost in found.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--node" in sys.argv:
        sys.exit(replica())
    main()

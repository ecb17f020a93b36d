"""Pictures of what happens, drawn from runs: ``python -m tools.pictures``.

A write and a failover are played in the simulator of the tests, which is the whole service on a
virtual clock: every message, sync and death is seen with its time, and the same run is the same
picture. The picture of a change of members is drawn from replicas as processes.
"""

from __future__ import annotations

import html
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import raftckpt
from raftckpt.protocol.check import read_requests
from raftckpt.protocol.frames import FrameDecoder
from raftckpt.protocol.operations import COMMANDS, Attach
from raftckpt.raft.messages import (
    Ack,
    Append,
    PreVote,
    PreVoteAnswer,
    VoteGrant,
    VoteRequest,
    decode_body,
)
from raftckpt.testing import LocalCluster
from tests.scripts.stage import StoryStage, new_world
from tests.sim.service import Pipe

__all__ = ["Arrow", "Mark", "Seen", "failover", "main", "sequence", "write"]

PLACE = Path(__file__).parents[1] / "docs/concepts"
WORDS = {
    PreVote: "would you vote?",
    PreVoteAnswer: "yes",
    VoteRequest: "vote for me",
    VoteGrant: "my vote",
}
COLOURS = {
    "write": "#1f6feb",
    "reply": "#1a7f37",
    "append": "#8250df",
    "ack": "#1a7f37",
    "fsync": "#bc4c00",
    "kill -9": "#cf222e",
}


class Arrow(NamedTuple):
    """A message: when and where it left, when and where it came."""

    sent: float
    frm: str
    came: float
    to: str
    word: str


class Mark(NamedTuple):
    """Something at one place."""

    at: float
    where: str
    word: str


class Seen(NamedTuple):
    """What was seen of a run."""

    arrows: list[Arrow]
    marks: list[Mark]


class Watcher:
    """Notes messages, syncs and ends of links of a stage, from now on."""

    def __init__(self, stage: StoryStage) -> None:
        self.seen = Seen([], [])
        self._world = stage.world
        self._sent: dict[tuple[str, str], deque[tuple[float, bytes]]] = {}
        self._said: dict[tuple[str, str], deque[tuple[float, str]]] = {}
        self._acked: dict[tuple[str, str], int] = {}
        self._asked: dict[tuple[str, str], str] = {}

    @property
    def now(self) -> float:
        return float(self._world.queue.now)

    def watch(self, stack: ExitStack) -> None:
        """Look on until the stack is left."""
        network = self._world.network
        stack.enter_context(mock.patch.object(network, "send", self._send(network.send)))
        stack.enter_context(mock.patch.object(network, "_arrive", self._arrive(network._arrive)))
        for name in ("send_up", "_arrive_up", "write", "_arrive_down"):
            wrapped = self._client(name, getattr(Pipe, name))
            stack.enter_context(mock.patch.object(Pipe, name, wrapped))
        for process in self._world.processes.values():
            synced = process.disk.on_synced
            if synced is not None:
                told = self._synced(process.name, synced)
                stack.enter_context(mock.patch.object(process.disk, "on_synced", told))

    def _send(self, send: Callable[..., None]) -> Callable[..., None]:
        def noted(frm: str, to: str, body: bytes) -> None:
            self._sent.setdefault((frm, to), deque()).append((self.now, body))
            send(frm, to, body)

        return noted

    def _arrive(self, arrive: Callable[..., None]) -> Callable[..., None]:
        def noted(connection: Any, frm: str, to: str, body: bytes) -> None:
            left = self._sent.get((frm, to), deque())
            while left:
                sent, former = left.popleft()
                if former is body:
                    for word in self._words(frm, to, body):
                        self.seen.arrows.append(Arrow(sent, frm, self.now, to, word))
                    break
            arrive(connection, frm, to, body)

        return noted

    def _client(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(pipe: Any, data: Any) -> Any:
            client, replica = pipe.client.name, pipe.process.name
            up = name.endswith("up")
            key = (client, replica) if up else (replica, client)
            if name == "send_up":
                self._asked[key] = asked(data)
                self._said.setdefault(key, deque()).append((self.now, self._asked[key]))
            elif name == "write":
                written = self._asked.get((client, replica)) == "write"
                word = "reply" if written else "answer"
                self._said.setdefault(key, deque()).append((self.now, word))
            elif self._said.get(key):
                sent, word = self._said[key].popleft()
                self.seen.arrows.append(Arrow(sent, key[0], self.now, key[1], word))
            return call(pipe, data)

        return noted

    def _words(self, frm: str, to: str, body: bytes) -> Iterator[str]:
        """What a frame between replicas says that is worth an arrow: nothing about heartbeats."""
        for message in decode_body(body):
            if isinstance(message, Append):
                if message.entries:
                    yield "append"
            elif isinstance(message, Ack):
                if message.next_index > self._acked.get((frm, to), 0):
                    self._acked[frm, to] = message.next_index
                    yield "ack"
            elif type(message) in WORDS:
                yield WORDS[type(message)]

    def _synced(self, name: str, synced: Callable[[], None]) -> Callable[[], None]:
        def noted() -> None:
            self.seen.marks.append(Mark(self.now, name, "fsync"))
            synced()

        return noted


def asked(data: bytes) -> str:
    """What a client says: a write, its session to a new connection, or else it looks about."""
    for body in FrameDecoder().feed(data):
        if any(type(message) in COMMANDS for message in read_requests(body)):
            return "write"
        if any(type(message) is Attach for message in read_requests(body)):
            return "my session"
    return "who leads?"


# --- the runs -----------------------------------------------------------------------------------
def _begun(stage: StoryStage, stack: ExitStack) -> tuple[str, Watcher]:
    for line in ("client app", "app create c"):
        stage.play(line)
    watcher = Watcher(stage)
    watcher.watch(stack)
    stage.play("app put c k before")
    stage.world.advance(0.2)
    watcher.seen.arrows.clear()
    watcher.seen.marks.clear()
    return stage.leader().name, watcher


def write() -> tuple[str, Seen]:
    """A write, from the call to its return; the leader's name, and what was seen."""
    world = new_world()
    with world.scripted(), ExitStack() as stack:
        stage = StoryStage(world)
        leader, watcher = _begun(stage, stack)
        stage.play("app put c k v")
        world.advance(0.004)
        return leader, watcher.seen


def failover() -> tuple[str, Seen]:
    """A leader that dies with a write under way."""
    world = new_world()
    with world.scripted(), ExitStack() as stack:
        stage = StoryStage(world)
        leader, watcher = _begun(stage, stack)
        stage.play("begin app put c k v")
        world.advance(0.0003)
        watcher.seen.marks.append(Mark(watcher.now, leader, "kill -9"))
        stage.play("kill leader")
        stage.play("await app")
        return leader, watcher.seen


# --- drawing ------------------------------------------------------------------------------------
def sequence(leader: str, seen: Seen, title: str, *, new_leader: str = "") -> str:
    """A sequence diagram: a column for each party, time goes down."""
    parties = ["app", leader, *sorted({"n1", "n2", "n3"} - {leader})]
    start = min([a.sent for a in seen.arrows if a.word == "write"])
    end = max([a.came for a in seen.arrows if a.word == "reply"])
    arrows = [a for a in seen.arrows if a.sent >= start and a.sent <= end]
    marks = [m for m in seen.marks if start <= m.at <= end]
    times = sorted({t for a in arrows for t in (a.sent, a.came)} | {m.at for m in marks})
    heights = _heights(times)
    x = {name: 110 + 190 * n for n, name in enumerate(parties)}
    width, height = 110 + 190 * len(parties), heights[times[-1]] + 50
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" '
        f'width="{width}" height="{height:.0f}" role="img" aria-label="{html.escape(title)}">',
        "<style>text{font:12px system-ui,sans-serif;fill:#1f2328}.t{fill:#656d76;font-size:11px}"
        ".p{font-weight:600;font-size:13px}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="#57606a"/></marker></defs>',
        f'<rect width="{width}" height="{height:.0f}" fill="#fff"/>',
    ]
    for name in parties:
        role = {leader: "leads", new_leader: "leads then"}.get(name, "follows")
        label = "application" if name == "app" else f"{name}, {role}"
        out.append(f'<text class="p" x="{x[name]}" y="24" text-anchor="middle">{label}</text>')
        out.append(
            f'<line x1="{x[name]}" y1="34" x2="{x[name]}" y2="{height - 16:.0f}" stroke="#d0d7de"/>'
        )
    shown = -99.0
    for at in times:
        if heights[at] - shown >= 16:
            shown = heights[at]
            out.append(
                f'<text class="t" x="8" y="{shown + 4:.0f}">{(at - start) * 1000:.1f} ms</text>'
            )
    drawn: set[tuple[str, str, str, int]] = set()
    for arrow in sorted(arrows):
        y1, y2 = heights[arrow.sent], heights[arrow.came]
        key = (arrow.frm, arrow.to, arrow.word, round(y1 / 12))
        if key in drawn:
            continue  # several in one frame
        drawn.add(key)
        x1, x2 = x[arrow.frm], x[arrow.to]
        colour = COLOURS.get(arrow.word, "#57606a")
        out.append(
            f'<line x1="{x1}" y1="{y1:.1f}" x2="{x2}" y2="{y2:.1f}" stroke="{colour}" '
            'stroke-width="1.4" marker-end="url(#a)"/>'
        )
        share = 0.5 if abs(x2 - x1) < 200 else 0.78
        out.append(
            f'<text x="{x1 + (x2 - x1) * share:.0f}" y="{y1 + (y2 - y1) * share - 5:.0f}" '
            f'text-anchor="middle" style="fill:{colour}">{html.escape(arrow.word)}</text>'
        )
    for mark in marks:
        y, colour = heights[mark.at], COLOURS.get(mark.word, "#57606a")
        out.append(
            f'<rect x="{x[mark.where] - 5}" y="{y - 5:.1f}" width="10" height="10" rx="2" '
            f'fill="{colour}"/><text x="{x[mark.where] + 10}" y="{y + 4:.0f}" '
            f'style="fill:{colour}">{mark.word}</text>'
        )
    return "\n".join([*out, "</svg>", ""])


def _heights(times: list[float]) -> dict[float, float]:
    """Where each time is drawn: long waits are shortened, what is close together is spread."""
    heights, y = {}, 52.0
    former = times[0]
    for at in times:
        y += min((at - former) * 60_000, 34)
        heights[at], former = y, at
    return heights


# --- members: replicas as processes ---------------------------------------------------------------
_AFTER_S = 0.5


class Look(NamedTuple):
    """How the leader saw the new member at a time."""

    at: float
    member: str
    """absent, learner or voter."""
    match: int
    last: int


def added() -> list[Look]:
    """A fourth replica is added to a cluster that holds something and goes on taking writes."""
    looks: list[Look] = []
    with LocalCluster(3, spares=1) as cluster, raftckpt.connect(cluster.endpoints) as service:
        ckpt = service.open("c", create=raftckpt.Attributes())
        for number in range(400):
            ckpt.put(str(number), bytes(20_000))
        leader, new = cluster.leader(), cluster.spares[0]
        work = threading.Thread(target=cluster.add, args=(new,))
        begun = time.monotonic()
        work.start()
        end = inf  # a while after it has a vote
        while time.monotonic() < end:
            ckpt.put("meanwhile", b"%d" % len(looks))
            status = cluster.status(leader)
            if status is not None:
                looks.append(_look(status, new, time.monotonic() - begun))
                if looks[-1].member == "voter" and end == inf:
                    end = time.monotonic() + _AFTER_S
        work.join()
    # until its process was started there is nothing to be seen
    first = max(0, next(n for n, look in enumerate(looks) if look.match) - 12)
    return [look._replace(at=look.at - looks[first].at) for look in looks[first:]]


def _look(status: dict[str, Any], new: str, at: float) -> Look:
    member = next((m for m in status["members"] if m["node"] == new), None)
    peer = next((p for p in status["peers"] if p["node"] == new), None)
    word = "absent" if member is None else "voter" if member["voter"] else "learner"
    return Look(at, word, peer["match"] if peer else 0, status["last"])


def curve(looks: list[Look], title: str) -> str:
    """What the new member holds of the log over time, and what it is."""
    width, left, top, tall = 870, 60, 70, 220
    length, most = looks[-1].at, max(look.last for look in looks)

    def x(at: float) -> float:
        return left + (width - left - 20) * at / length

    def y(index: int) -> float:
        return top + tall - tall * index / most

    def line(points: list[tuple[float, float]], colour: str) -> str:
        text = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="2"/>'

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + tall + 60}" '
        f'width="{width}" height="{top + tall + 60}" role="img" '
        f'aria-label="{html.escape(title)}">',
        "<style>text{font:12px system-ui,sans-serif;fill:#1f2328}</style>",
        f'<rect width="{width}" height="{top + tall + 60}" fill="#fff"/>',
    ]
    shades = {"absent": "#f6f8fa", "learner": "#fff8c5", "voter": "#dafbe1"}
    said = {"absent": "not a member", "learner": "learner: 3 vote", "voter": "voter: 4 vote"}
    start = 0
    for number, look in enumerate(looks):
        if number + 1 == len(looks) or looks[number + 1].member != look.member:
            end = looks[min(number + 1, len(looks) - 1)].at
            begin = looks[start].at if start else 0.0
            out.append(
                f'<rect x="{x(begin):.1f}" y="{top - 40}" width="{x(end) - x(begin):.1f}" '
                f'height="{tall + 40}" fill="{shades[look.member]}"/>'
            )
            out.append(f'<text x="{x(begin) + 6:.1f}" y="{top - 24}">{said[look.member]}</text>')
            start = number + 1
    out.append(line([(x(k.at), y(k.last)) for k in looks], "#8250df"))
    out.append(line([(x(k.at), y(k.match)) for k in looks], "#1a7f37"))
    out += [
        f'<text x="{left + 8}" y="{y(most) - 6:.0f}" style="fill:#8250df">end of the log</text>',
        f'<text x="{left + 8}" y="{y(0) - 8:.0f}" style="fill:#1a7f37">'
        "what the new replica holds of it</text>",
        f'<text x="{left}" y="{top + tall + 24}">0</text>',
        f'<text x="{width - 20}" y="{top + tall + 24}" text-anchor="end">{length:.2f} s</text>',
        f'<text x="8" y="{y(most) + 4:.0f}">{most}</text>',
        "</svg>",
        "",
    ]
    return "\n".join(out)


def main() -> None:
    """Draw them all."""
    leader, seen = write()
    (PLACE / "write.svg").write_text(sequence(leader, seen, "A write"), "utf-8")
    leader, seen = failover()
    grants = [a.to for a in seen.arrows if a.word == "my vote"]
    text = sequence(leader, seen, "A failover", new_leader=grants[-1] if grants else "")
    (PLACE / "failover.svg").write_text(text, "utf-8")
    (PLACE / "members.svg").write_text(curve(added(), "A replica is added"), "utf-8")


if __name__ == "__main__":
    main()

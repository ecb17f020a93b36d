"""What ``raftckpt top`` shows, and what its keys do: no terminal, no sockets; needs rich."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from raftckpt.plain import plain
from raftckpt_cli.diagnosis import Weight, diagnose, leader_of

if TYPE_CHECKING:
    from raftckpt import ClusterStatus, Lately, ReplicaStatus

__all__ = ["Screen"]

# what is left of 24 lines when replicas, rates and checkpoints have theirs
_GROUPS_MAX: Final = 3
_HAPPENINGS_MAX: Final = 4
_SAID_S: Final = 6.0
"""How long what a key came to stays."""
_OLD_S: Final = 3.0
"""Three looks (``top``'s) without an answer: one that is late is nothing to be red about."""
_UNITS: Final = ("B", "K", "M", "G", "T")
_SORTS: Final = {
    "changes/s": lambda each: (-each.changes_per_s, each.name),
    "written/s": lambda each: (-each.written_per_s, each.name),
    "size": lambda each: (-each.size, each.name),
    "open": lambda each: (-each.openers, each.name),
    "name": lambda each: (each.name,),
}


class Screen:
    """One picture after the other; filled by one thread and drawn by another.

    Attributes:
        over: somebody wants to leave.
    """

    def __init__(self, endpoints: str) -> None:
        self.over = False
        self._endpoints = endpoints
        self._lock = threading.Lock()
        self._found: ClusterStatus | None = None
        self._lately: Lately | None = None
        self._at = 0.0
        self._why = ""
        self._said: tuple[float, str] = (float("-inf"), "")
        self._sort = 0
        self._chosen = ""
        self._asking = ""
        self._held = False

    # --- what comes in ----------------------------------------------------------------------------
    def show(self, found: ClusterStatus, lately: Lately | None, now: float) -> None:
        """Take what the replicas say."""
        with self._lock:
            if not self._held:
                self._found, self._lately, self._at, self._why = found, lately, now, ""
                if self._chosen not in self._nodes():
                    self._chosen = next(iter(self._nodes()), "")

    def failed(self, why: str) -> None:
        """Nobody says anything."""
        with self._lock:
            self._why = why

    def say(self, text: str) -> None:
        """Show in the last line what came of a key."""
        with self._lock:
            self._said = time.monotonic(), text

    def pressed(self, key: str) -> str | None:
        """Do what a key is for; returns the node that leadership is to be handed to."""
        with self._lock:
            if self._asking:
                node, self._asking = self._asking, ""
                if key in "yY":
                    self._said = time.monotonic(), f"handing leadership to {node} ..."
                    return node
                self._said = time.monotonic(), "not handed over"
                return None
            match key:
                case "q" | "Q" | "\x03" | "\x04":
                    self.over = True
                case "s":
                    self._sort = (self._sort + 1) % len(_SORTS)
                case "p":
                    self._held = not self._held
                case "up" | "k" | "down" | "j":
                    self._move(-1 if key in ("up", "k") else 1)
                case "t":
                    self._ask()
        return None

    def _nodes(self) -> list[str]:
        return [each.node for each in self._found.replicas] if self._found is not None else []

    def _move(self, step: int) -> None:
        nodes = self._nodes()
        if nodes:
            at = nodes.index(self._chosen) if self._chosen in nodes else 0
            self._chosen = nodes[max(0, min(len(nodes) - 1, at + step))]

    def _ask(self) -> None:
        leader = leader_of(self._found) if self._found is not None else None
        if leader is not None and leader.node == self._chosen:
            self._said = time.monotonic(), f"{self._chosen} leads: choose another one (arrows)"
        elif self._chosen:
            self._asking = self._chosen

    # --- what is shown ----------------------------------------------------------------------------
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw as much as there is room for."""
        width, height = options.max_width, options.height or console.height
        with self._lock:
            lines = self._lines(console, width, height)
        yield Text("\n").join(lines[: height - 1] + [Text("")] * (height - 1 - len(lines)))
        with self._lock:
            yield self._last_line(width)

    def _lines(self, console: Console, width: int, height: int) -> list[Text]:
        found = self._found
        if found is None:
            why = self._why or f"asking {self._endpoints} ..."
            return [Text("raftckpt top", style="bold"), Text(""), Text(plain(why), style="red")]
        lines = [*self._head(found, width), *self._alarms(found, width)]
        lines += [Text(""), *_drawn(console, self._replicas(found), width)]
        tail = [*self._groups(width), *self._happenings(width)]
        room = height - 1 - len(lines) - len(tail) - 3
        lines += [Text(""), *_drawn(console, self._checkpoints(max(1, room)), width)]
        return lines + ([Text(""), *tail] if tail else [])

    def _head(self, found: ClusterStatus, width: int) -> list[Text]:
        up = sum(each.reachable for each in found.replicas)
        leader = leader_of(found)
        told = next((each for each in found.replicas if each.reachable), None)
        name = str(told.detail.get("cluster")) if told is not None else "?"
        head = Text("raftckpt top ", style="bold") + Text(plain(name))
        head.append("  ")
        if leader is None:
            head.append("no replica leads", style="bold red")
        else:
            head.append(leader.node, style="bold green")
            head.append(f" leads, term {leader.term}")
        all_up = up == len(found.replicas)
        head.append(f"  {up} of {len(found.replicas)} up", style="" if all_up else "bold yellow")
        line = Text("")
        if self._lately is not None:
            late = self._lately
            line.append(
                f"changes/s {_count(late.changes_per_s)}  reads/s {_count(late.reads_per_s)}"
            )
            line.append(f"  commit p50 {_time(late.commit_p50_s)} p99 {_time(late.commit_p99_s)}")
            line.append(f"  sync p99 {_time(late.sync_p99_s)}")
        stamp = Text(time.strftime("%H:%M:%S"), style="dim")
        gap = max(1, width - head.cell_len - stamp.cell_len)
        head = Text.assemble(head, " " * gap, stamp)
        return [_cut(head, width), _cut(line, width)]

    def _alarms(self, found: ClusterStatus, width: int) -> list[Text]:
        told = diagnose(found)
        wrong = [each.what for each in told if each.weight is not Weight.WARNING]
        return [
            _cut(Text(f"! {plain(text)}", style="red"), width)
            for text in (wrong if len(wrong) <= 2 else [wrong[0], f"{len(wrong) - 1} more: doctor"])
        ]

    def _replicas(self, found: ClusterStatus) -> Table:
        table = _table("replica", "role", "#behind", "#sessions", "#disk free", "#memory", "state")
        leader = leader_of(found)
        for each in found.replicas:
            chosen = each.node == self._chosen
            table.add_row(*_replica(each, leader, chosen=chosen), style="bold" if chosen else "")
        return table

    def _checkpoints(self, room: int) -> Table:
        names = list(_SORTS)
        by = names[self._sort]
        heads = ["checkpoint", "#changes/s", "#written/s", "#size", "#sections", "#open"]
        table = _table(
            *(h + " v" if h.lstrip("#") == by or (by, h) == ("name", "checkpoint") else h
              for h in heads)
        )  # fmt: skip
        rows = sorted(self._lately.checkpoints, key=_SORTS[by]) if self._lately is not None else []
        for each in rows[:room]:
            table.add_row(
                plain(each.name), _count(each.changes_per_s), _size(each.written_per_s),
                _size(each.size), f"{each.sections:,}", str(each.openers),
            )  # fmt: skip
        if not rows:
            table.add_row(Text("none yet" if self._lately else "not told", style="dim"))
        elif len(rows) > room:
            table.caption = f"{len(rows) - room} more"
        return table

    def _groups(self, width: int) -> list[Text]:
        groups = list(self._lately.groups) if self._lately is not None else []
        lines = []
        for group in groups[:_GROUPS_MAX]:
            line = Text.assemble("group ", (plain(group.name), "bold"), ": ")
            if group.active:
                line.append(plain(group.active), style="green")
                line.append(f" on {plain(group.node)} is active")
            else:
                line.append("nobody is active", style="yellow")
            line.append(f", {group.components} components, epoch {group.epoch}", style="dim")
            lines.append(_cut(line, width))
        return lines

    def _happenings(self, width: int) -> list[Text]:
        found = self._lately.happenings if self._lately is not None else []
        lines = []
        for at_ms, kind, fields in reversed(found[-_HAPPENINGS_MAX:]):
            stamp = time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))
            lines.append(_cut(Text.assemble((stamp, "dim"), " ", _happened(kind, fields)), width))
        return lines

    def _last_line(self, width: int) -> Text:
        now = time.monotonic()
        if self._asking:
            return _cut(
                Text(
                    f" hand leadership to {self._asking}? y, or any other key ", "black on yellow"
                ),
                width,
            )
        if now - self._said[0] < _SAID_S:
            return _cut(Text(f" {plain(self._said[1])}", "bold"), width)
        if self._found is not None and (self._why or (now - self._at > _OLD_S and not self._held)):
            why = plain(self._why) or "no answer"
            return _cut(Text(f" {now - self._at:.0f} s old: {why}", "bold red"), width)
        held = " HELD " if self._held else ""
        keys = "q quit  s sort  arrows choose  t transfer leadership  p hold"
        return _cut(Text.assemble((held, "black on yellow"), (f" {keys}", "dim")), width)


def _replica(each: ReplicaStatus, leader: ReplicaStatus | None, *, chosen: bool) -> list[Any]:
    mark = "> " if chosen else "  "
    if not each.reachable:
        return [mark + each.node, "-", "-", "-", "-", "-", Text(each.cause or "no answer", "red")]
    leads = leader is not None and leader.node == each.node
    behind = 0 if leader is None else max(0, (leader.commit or 0) - (each.applied or 0))
    members = (leader or each).detail.get("members") or ()
    drained = any(m["node"] == each.node and m.get("drained") for m in members)
    alarms = len(each.detail.get("alarms") or ())
    state = Text(f"{alarms} alarms", "red") if alarms else Text("ok", "green")
    if drained:
        state.append(", drained", "yellow")
    free, size = each.detail.get("disk_free_bytes") or 0, each.detail.get("disk_bytes") or 0
    return [
        mark + each.node,
        Text("leader" if leads else each.role or "?", "bold green" if leads else ""),
        f"{behind:,}",
        str(each.detail.get("sessions", "-")),
        f"{_size(free)} {100 * free // size} %" if size else "-",
        _size(each.detail.get("rss_bytes") or 0),
        state,
    ]


def _happened(kind: str, fields: Any) -> str:
    f = {key: plain(str(value)) for key, value in fields.items()}
    match kind:
        case "leader":
            known = fields.get("leader") is not None
            return f"{f['leader']} leads, term {f['term']}" if known else "no leader"
        case "failover":
            return f"{f['group']}: {f['active']} is active ({f['reason']}), epoch {f['epoch']}"
        case "link":
            return f"link to {f['node']} {'is up' if fields.get('up') else 'is down'}"
        case "alarm":
            return ("alarm: " if fields.get("raised") else "over: ") + f["text"]
        case "drain":
            return f"{f['node']} is {'drained' if fields.get('drained') else 'undrained'}"
        case _:
            return f"{kind}: " + ", ".join(f.values())


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, pad_edge=False, header_style="dim")
    for head in heads:
        table.add_column(
            head.lstrip("#"), justify="right" if head.startswith("#") else "left",
            no_wrap=True, overflow="ellipsis", ratio=None if head.startswith("#") else 1,
        )  # fmt: skip
    return table


def _drawn(console: Console, table: Table, width: int) -> list[Text]:
    """The lines of a table, as texts."""
    options = console.options.update(width=width, height=None)
    lines = console.render_lines(table, options, pad=False)
    return [Text.assemble(*((s.text, s.style or "") for s in line)) for line in lines]


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or not value else f"{value:.1f}"


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            return f"{count:.0f}{unit}" if unit == "B" or count >= 100 else f"{count:.3g}{unit}"
        count /= 1024
    return ""


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"

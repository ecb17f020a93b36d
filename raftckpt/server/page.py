"""The page on the admin port: what this replica sees of the cluster, and its last hour, for people.

Made here as HTML, part by part; ``page.js`` (on the same port, like ``page.css``) fetches the parts
anew every second and puts in those that changed, so that nothing is put together from data in a
browser. Without scripts the page asks for itself again. Everything is bounded: the busiest and the
largest checkpoints, the first groups, the latest happenings.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from heapq import nlargest
from html import escape
from importlib.resources import files
from itertools import islice
from math import isnan
from typing import Final

from raftckpt.model.checkpoints import Checkpoint
from raftckpt.model.groups import AdminState, HaState, Member, ServiceGroup
from raftckpt.node.chronicle import Happening
from raftckpt.plain import plain
from raftckpt.raft.configuration import ClusterMember
from raftckpt.raft.port import Role
from raftckpt.server.charts import Curve, Upright, chart, spark
from raftckpt.server.lasthour import POINT_S, SHOWN_MAX, Busy, LastHour, QuarterMinute
from raftckpt.server.metrics import Seen, Sources
from raftckpt.version import VERSION

__all__ = ["HTML", "charts", "page", "parts", "script", "style"]

HTML: Final = "text/html; charset=utf-8"
_HOUR_S: Final = 3600.0  # 60 minutes
_AXIS_S_MIN: Final = 300.0
"""A chart of a replica that has just begun is not one point that is as wide as all."""
# what a page shows before a person would rather ask the command line
_GROUPS_MAX: Final = 20
_COMPONENTS_MAX: Final = 12
_OPENERS_MAX: Final = 6
_HAPPENINGS_MAX: Final = 40
_BREAKS: Final = re.compile(r"([/._-])(?=\w)")
"""Where a long name may go on in the next line."""
_FULL_LOOK: Final = 0.7  # a guess; see below for the other
_FULL_WRONG: Final = 0.9
"""Of a limit: what is worth a look, and what is too much."""
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_ROLES: Final = {
    HaState.ACTIVE: "good",
    HaState.STANDBY: "plain",
    HaState.QUIESCING: "look",
    HaState.QUIESCED: "look",
    HaState.REMOVED: "wrong",
    HaState.UNASSIGNED: "plain",
}


def _static(name: str) -> bytes:
    return files("raftckpt.server").joinpath(name).read_bytes()


def script() -> bytes:
    """Return what keeps the page as it is now."""
    return _static("page.js")


def style() -> bytes:
    """Return how it looks."""
    return _static("page.css")


# --- words and numbers ----------------------------------------------------------------------------
def _text(value: object) -> str:
    return escape(plain(str(value)))


def _bytes(count: float) -> str:
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or not value else f"{value:.2g}"


def _seconds(value: float) -> str:
    """A latency."""
    if isnan(value) or not value:
        return "–" if value else "0"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _while(seconds: float) -> str:
    """A time that has passed."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _pill(word: object, look: str) -> str:
    return f'<span class="pill {look}">{_text(word)}</span>'


def _section(name: str, body: str, *, card: bool = True) -> str:
    return f'<section id="{name}"{" class=card" if card else ""}>{body}</section>'


def _table(headings: str, rows: Iterable[Iterable[str]]) -> str:
    """A table; a heading that begins with ``#`` is of numbers, with ``~`` of what phones lack."""
    looks: list[str] = []
    head = []
    for heading in headings.split("|"):
        word = heading.lstrip("#~")
        kinds = [kind for sign, kind in (("#", "n"), ("~", "wide")) if sign in heading]
        looks.append(f' class="{" ".join(kinds)}"' if kinds else "")
        head.append(f"<th{looks[-1]}>{word}</th>")
    looks[0] = ' class="name"'
    body = "".join(
        "<tr>" + "".join(f"<td{look}>{cell}</td>" for look, cell in zip(looks, row, strict=True))
        + "</tr>"
        for row in rows
    )  # fmt: skip
    return f'<div class="scroll"><table><tr>{"".join(head)}</tr>{body}</table></div>'


# --- the whole ------------------------------------------------------------------------------------
def page(sources: Sources) -> bytes:
    """Return the page as it is before any script ran."""
    whole = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<noscript><meta http-equiv="refresh" content="5"></noscript>'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="page.css">'
        f'<script src="page.js" defer></script>{_title(Seen(sources))}</head><body>'
        f'<div id="stale" role="alert" hidden>{_text(sources.info.node)} <span id="why">does not '
        'answer</span>. What is below is <span id="since"></span> old.</div>'
        f"{_parts(sources, _charts(sources))}</main><footer>raftckpt {_text(VERSION)}. The other "
        "replicas have a page of their own. <a href='metrics'>Metrics</a></footer></body></html>\n"
    )
    return whole.encode("utf-8")


def parts(sources: Sources) -> bytes:
    """Return everything but the charts, to be fetched every second."""
    return (_title(Seen(sources)) + _parts(sources) + "</main>").encode("utf-8")


def charts(sources: Sources) -> bytes:
    """Return the charts, to be fetched with each point of the hour."""
    return _charts(sources).encode("utf-8")


def _title(seen: Seen) -> str:
    alarms = sum(len(told()) for told in seen.of.alarms.values())
    leader = seen.raft.leader or "no leader"
    told = f"({alarms}) " if alarms else ""
    return f"<title>{told}{_text(seen.of.info.node)} · {_text(leader)} leads</title>".replace(
        "no leader leads", "no leader"
    )


def _parts(sources: Sources, charts: str = "") -> str:
    seen = Seen(sources)
    return (
        f"<header>{_section('head', _head(seen), card=False)}</header><main>"
        + _section("alarms", _alarms(seen), card=False)
        + _section("tiles", _tiles(seen), card=False)
        + charts
        + _section("members", _members(seen))
        + _section("checkpoints", _checkpoints(seen))
        + _section("groups", _groups(seen))
        + _section("timeline", _timeline(seen))
        + _section("limits", _limits(seen))
    )


def _head(seen: Seen) -> str:
    info, raft, word = seen.of.info, seen.raft, seen.of.word()
    ready = _pill("ready", "good") if word == "ok" else _pill(f"not ready: {word}", "wrong")
    leads = (
        "nobody is known to lead" if raft.leader is None
        else f"<b>{_text(raft.leader)}</b> leads"
    )  # fmt: skip
    return (
        f"<h1>{_text(info.node)} <small>of the cluster {_text(info.cluster)}</small> {ready}</h1>"
        f'<p class="dim"><span id="leader" data-node="{_text(raft.leader or "")}">{leads}</span>, '
        f"term {raft.term}. Seen by {_text(info.node)} ({raft.role.value}), "
        f"up for {_while(seen.uptime)}.</p>"
    )


def _alarms(seen: Seen) -> str:
    told = [text for source in seen.of.alarms.values() for text in source()]
    rows = [f'<div class="alarm" role="alert">{_text(text)}</div>' for text in told]
    if seen.raft.waiting:
        rows.append(f'<div class="alarm look">{_text(seen.raft.waiting)}</div>')
    return "".join(rows) or '<p class="dim">No alarms.</p>'


def _tiles(seen: Seen) -> str:
    recorder, machine = seen.of.recorder, seen.replica.machine
    recent = list(recorder.recent)
    last = recent[-3:]
    changes = sum(row[0] for row in last) / len(last) if last else 0.0
    reads = sum(row[1] for row in last) / len(last) if last else 0.0
    points = recorder.points()
    commit = points[-1].commit_p99 if points else float("nan")
    sync = points[-1].sync_p99 if points else float("nan")
    taken = 1 - seen.free / seen.size if seen.size else 0.0
    tiles = [
        ("changes a second", _number(changes), spark([row[0] for row in recent], 120)),
        ("reads a second, here", _number(reads), spark([row[1] for row in recent], 120)),
        (
            "commit, p99" if seen.raft.role is Role.LEADER else "sync of the disk, p99",
            _seconds(commit if seen.raft.role is Role.LEADER else sync),
            f"<span>of the last {POINT_S:.0f} s</span>",
        ),
        (
            "checkpoints",
            _number(len(machine.checkpoints)),
            f"<span>{_bytes(machine.footprint)} of memory</span>",
        ),
        (
            "sessions",
            _number(len(machine.sessions)),
            f"<span>{len(seen.listener.connections)} connections, {seen.listener.tracking.count} "
            "trackers here</span>",
        ),
        ("disk free, here", _bytes(seen.free), _share(taken)),
    ]
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><span>{name}</span><b>{value}</b>{more}</div>'
        for name, value, more in tiles
    ) + "</div>"  # fmt: skip


def _share(taken: float) -> str:
    """How full something is."""
    return (
        f'<meter min="0" max="1" low="{_FULL_LOOK}" high="{_FULL_WRONG}" optimum="0" '
        f'value="{taken:.3f}"></meter><span>{100 * taken:.0f} % taken</span>'
    )


def _members(seen: Seen) -> str:
    raft = seen.raft
    peers = {peer.directory: peer for peer in raft.peers}
    rows = []
    for member in raft.configuration.members:
        peer = peers.get(member.directory)
        own = member.directory == seen.of.info.directory
        leads = member.node == raft.leader
        link = (
            _pill("this one", "plain") if own
            else _pill("up", "good") if peer is not None and peer.connected
            else _pill("down", "wrong")
        )  # fmt: skip
        behind, silent = "–", "–"
        if own:
            behind = _number(raft.commit_index - raft.applied_index)
        elif peer is not None and raft.role is Role.LEADER:
            behind = _number(max(0, raft.last_index - peer.match_index))
            silent = "never" if peer.silent_s == float("inf") else _seconds(peer.silent_s)
        rows.append(
            (_text(member.node), _role(member, leads=leads), link, behind, silent,
             _text(member.client or "–"))
        )  # fmt: skip
    note = (
        ""
        if raft.role is Role.LEADER
        else "<small>how far others are behind, the leader knows</small>"
    )
    return f"<h2>Replicas{note}</h2>" + _table(
        "Replica|Role|Link|#Behind, entries|~#Heard before|~Clients reach it at", rows
    )


def _role(member: ClusterMember, *, leads: bool) -> str:
    role = _pill("leader", "good")
    if not leads:
        role = _pill("voter" if member.voter else "learner", "plain")
    return role + (" " + _pill("drained", "look") if member.drained else "")


# --- checkpoints ----------------------------------------------------------------------------------
def _checkpoints(seen: Seen) -> str:
    machine, recorder = seen.replica.machine, seen.of.recorder
    count = len(machine.checkpoints)
    if not count:
        return (
            "<h2>Checkpoints</h2><p class='dim'>There are none yet. One is made by "
            "<code>raftckpt checkpoint create NAME</code>, or by a program.</p>"
        )
    busy = dict(recorder.busiest())
    chosen = {uid: machine.checkpoints[uid] for uid in busy if uid in machine.checkpoints}
    for name in recorder.largest:
        found = machine.names.get(name)
        if found is not None:
            chosen.setdefault(found.uid, found)
    if not chosen:  # nobody looked yet
        chosen = dict(islice(machine.checkpoints.items(), SHOWN_MAX))
    rows = [_checkpoint(seen, each, busy.get(uid)) for uid, each in chosen.items()]
    note = "" if len(rows) == count else f"<small>the busiest and the largest of {count:,}</small>"
    return f"<h2>Checkpoints{note}</h2>" + _table(
        "Checkpoint|#Changes/s|#~Written/s|#Size|#~Sections|~Open in|~Active", rows
    )


def _checkpoint(seen: Seen, each: Checkpoint, busy: Busy | None) -> Iterator[str]:
    gone = " " + _pill("unlinked", "look") if each.unlinked else ""
    sessions = seen.replica.machine.sessions
    openers = [
        sessions[number] for number in islice(each.openers, _OPENERS_MAX) if number in sessions
    ]
    told = ", ".join(_text(f"{s.name or 'a client'} on {s.node}") for s in openers)
    more = len(each.openers) - len(openers)
    told = (told + (f", {more} more" if more > 0 else "")) or "nobody"
    name = _BREAKS.sub(r"\1<wbr>", _text(each.name))
    yield f'{name}{gone}<span class="narrow dim">open in {told}</span>'
    yield _number(busy.changes) if busy is not None and busy.changes >= 0.05 else "0"
    yield f"{_bytes(busy.bytes)}" if busy is not None and busy.bytes >= 0.5 else "0"
    yield _bytes(each.memory_used)
    yield f"{len(each.sections):,}"
    yield told if openers else f'<span class="dim">{told}</span>'
    yield _text(each.active[1]) if each.active is not None else '<span class="dim">–</span>'


# --- groups ---------------------------------------------------------------------------------------
def _groups(seen: Seen) -> str:
    groups = seen.replica.machine.groups.by_name
    if not groups:
        return "<h2>Service groups</h2><p class='dim'>No component has joined a group.</p>"
    last: dict[str, Happening] = {}
    times: dict[str, int] = {}
    for each in seen.of.recorder.chronicle.happenings:
        if each.kind == "failover":
            name = str(each.fields["group"])
            if each.fields["previous"]:
                times[name] = times.get(name, 0) + 1
                last[name] = each
    rows = [
        _group(group, times.get(name, 0), last.get(name))
        for name, group in islice(groups.items(), _GROUPS_MAX)
    ]
    note = f"<small>{_GROUPS_MAX} of {len(groups):,}</small>" if len(groups) > _GROUPS_MAX else ""
    return f"<h2>Service groups{note}</h2>" + _table("Group|Components|Last fail-over", rows)


def _group(group: ServiceGroup, times: int, last: Happening | None) -> Iterator[str]:
    admin = AdminState(group.admin)
    locked = "" if admin is AdminState.UNLOCKED else " " + _pill(admin.name.lower(), "look")
    yield _text(group.name) + locked
    shown = nlargest(
        _COMPONENTS_MAX,
        [*group.members.values(), *group.removed.values()],
        key=lambda member: (member.state == HaState.ACTIVE, -member.number),
    )
    more = len(group.members) + len(group.removed) - len(shown)
    cells = [_component(member) for member in shown]
    yield ("<br>".join(cells) + (f"<br>{more} more" if more > 0 else "")) or "none"
    if last is None:
        yield '<span class="dim">none known</span>'
    else:
        fields = last.fields
        ago = _while(time.time() - last.at_ms / 1000)
        yield (
            f"{ago} ago: {_text(fields['active'])} for {_text(fields['previous'])} "
            f'({_text(fields["reason"])})<br><span class="dim">epoch {fields["epoch"]}, '
            f"{times} since the start</span>"
        )


def _component(member: Member) -> str:
    state = HaState(member.state)
    waits = "" if member.answered else ' <span class="dim">(has not answered)</span>'
    return (
        f"{_pill(state.name.lower(), _ROLES[state])} {_text(member.name)} "
        f'<span class="dim">on {_text(member.node)}</span>{waits}'
    )


# --- what happened --------------------------------------------------------------------------------
def _timeline(seen: Seen) -> str:
    happenings = list(seen.of.recorder.chronicle.happenings)
    rows = []
    for number in range(len(happenings) - 1, max(-1, len(happenings) - 1 - _HAPPENINGS_MAX), -1):
        each = happenings[number]
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.at_ms // 1000))
        rows.append(f"<li><time>{stamp}</time><span>{_told(happenings, number)}</span></li>")
    note = "<small>since this replica was started; times are UTC</small>"
    empty = "<p class='dim'>Nothing yet.</p>"
    return f"<h2>What happened{note}</h2>" + (f"<ol>{''.join(rows)}</ol>" if rows else empty)


def _told(happenings: list[Happening], number: int) -> str:
    each = happenings[number]
    fields = {key: _text(value) for key, value in each.fields.items()}
    match each.kind:
        case "leader" if each.fields["leader"] is None:
            return _pill("no leader", "wrong") + f" in term {fields['term']}"
        case "leader":
            return (
                f"{_pill('leader', 'good')} <b>{fields['leader']}</b> leads, term {fields['term']}"
                + _gap(happenings, number)
            )
        case "failover":
            word = _pill("fail-over" if fields["previous"] else "active", "look")
            for_whom = f" for {fields['previous']}" if fields["previous"] else ""
            return (
                f"{word} in {fields['group']}: <b>{fields['active']}</b> on {fields['node']} is "
                f"active{for_whom} ({fields['reason']}, epoch {fields['epoch']})"
            )
        case "link":
            up = bool(each.fields["up"])
            word = _pill("link", "good" if up else "wrong")
            return f"{word} {fields['node']} {'is connected' if up else 'is not connected'}"
        case "alarm":
            word = _pill("alarm", "wrong") if each.fields["raised"] else _pill("over", "good")
            return f"{word} {fields['text']}"
        case "drain" if each.fields["drained"]:
            return f"{_pill('drained', 'look')} {fields['node']} leads only if nobody else can"
        case "drain":
            return f"{_pill('undrained', 'good')} {fields['node']} may lead again"
        case "members":
            return f"{_pill('members', 'plain')} {fields['members']}"
        case _:
            return _pill(each.kind, "plain") + " " + ", ".join(fields.values())


def _gap(happenings: list[Happening], number: int) -> str:
    """How long nobody was known to lead before."""
    for former in reversed(happenings[:number]):
        if former.kind == "leader":
            if former.fields["leader"] is not None:
                return ""
            gap_s = (happenings[number].at_ms - former.at_ms) / 1000
            return f' <span class="dim">after {_seconds(gap_s)} without a leader</span>'
    return ""


def _limits(seen: Seen) -> str:
    used = seen.used()
    rows = [
        (_text(name.replace("_", " ")), _share(used[name] / limit), _amount(name, used[name]),
         _amount(name, limit))
        for name, limit in seen.limits().items()
    ]  # fmt: skip
    return "<details data-is='limits'><summary>Limits, and how near</summary>" + _table(
        "Limit|Taken|#Now|#At most", rows
    ) + "</details>"  # fmt: skip


def _amount(name: str, value: float) -> str:
    return _bytes(value) if name.endswith("bytes") else f"{value:,.0f}"


# --- charts ---------------------------------------------------------------------------------------
def _charts(sources: Sources) -> str:
    recorder = sources.recorder
    points, happened = recorder.points(), [*recorder.chronicle.happenings][-1:]
    now = points[-1].at if points else recorder.begun_at
    if recorder.drawn[0] != (now, happened):  # it takes milliseconds: once for each point
        recorder.drawn = (now, happened), _drawn(recorder, points, now)
    return recorder.drawn[1]


def _drawn(recorder: LastHour, points: list[QuarterMinute], now: float) -> str:
    since = now - min(_HOUR_S, max(_AXIS_S_MIN, now - recorder.begun_at))
    begins_ms = time.time() * 1000 - (recorder.monotonic() - now) * 1000
    marks = [
        Upright(now + (each.at_ms - begins_ms) / 1000, f"{each.fields['leader']} leads")
        for each in recorder.chronicle.happenings
        if each.kind == "leader" and each.fields["leader"] is not None
    ]
    times = [point.at for point in points]
    drawn = []
    for title, unit, lines in (
        (
            "Changes and reads, per second",
            _number,
            (
                Curve("changes", [point.changes for point in points]),
                Curve("reads here", [point.reads for point in points]),
            ),
        ),
        (
            "Commit, where this replica led",
            _seconds,
            (
                Curve("p50", [point.commit_p50 for point in points]),
                Curve("p99", [point.commit_p99 for point in points]),
            ),
        ),
        (
            "Sync of this replica's disk",
            _seconds,
            (Curve("p99", [point.sync_p99 for point in points]),),
        ),
    ):
        key = "".join(
            f'<i class="k{number}">{line.name}</i>'
            for number, line in enumerate(lines)
        )  # fmt: skip
        picture = chart(times, lines, since=since, now=now, unit=unit, marks=marks, label=title)
        nothing = all(isnan(value) for line in lines for value in line.values)
        why = "nothing yet" if unit is not _seconds or "Sync" in title else "it has not led so far"
        empty = f'<p class="dim">{why}</p>' if nothing else ""
        drawn.append(f"<figure><figcaption>{title}{key}</figcaption>{picture}{empty}</figure>")
    span = _while(now - since)
    dashes = "<small><span class='dashes'></span>another leader begins</small>" if marks else ""
    body = f"<h2>The last {span}{dashes}</h2><div class='charts'>{''.join(drawn)}</div>"
    return _section("charts", body)

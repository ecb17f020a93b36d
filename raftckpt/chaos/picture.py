"""An SVG of a run: throughput, who led, and what was done to them, over one time axis.

Written by hand: a library that draws charts weighs more than everything that is installed with the
product.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from raftckpt.chaos.nemesis import LANES, Mark
from raftckpt.chaos.run import Report
from raftckpt.chaos.stage import Sample

__all__ = ["draw", "save"]

# a picture in pixels: as wide as a page of documents shows without a scroll bar, names on the
# left
_WIDTH: Final = 1280
_LEFT: Final = 214
_RIGHT: Final = 32
_PLOT_HEIGHT: Final = 200
_STRIP: Final = 18
_ROW: Final = 17
_BUCKET_NS: Final = 500_000_000
"""Rates are of half a second: of less they are noise, in more a pause does not show."""
_GAP_NS: Final = 1_000_000_000
"""Longer than that between two samples nothing is known."""
_COLOURS: Final = {
    "ink": "#1d2733",
    "soft": "#6b7785",
    "grid": "#e4e8ee",
    "write": "#2463eb",
    "read": "#94a3b8",
    "follower": "#d5deea",
    "candidate": "#f2c14e",
    "away": "#ffffff",
    "ok": "#16803c",
    "bad": "#c2261f",
    "0": "#d1495b",
    "1": "#e39b3b",
}
_STEPS: Final = (1.0, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_TICKS_S: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200, 36_000)
_LEADERS: Final = ("#0f766e", "#7c3aed", "#b45309", "#be185d", "#1d4ed8")


class _TimeAxis:
    """Time to x."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin = begin
        self.end = max(end, begin + 1)

    def x(self, time: int) -> float:
        inside = min(max(time, self.begin), self.end)
        share = (inside - self.begin) / (self.end - self.begin)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def save(report: Report, path: Path) -> None:
    """Write the picture of a run to a file."""
    path.write_text(draw(report), "utf-8")


def draw(report: Report) -> str:
    """Return the picture of a run as SVG."""
    times = [sample.time for sample in report.samples] or [report.begin, report.end]
    last = max([time for time, _ in report.answers if time <= times[-1]] or [report.end])
    axis = _TimeAxis(min(report.begin, times[0]), max(report.end, last))
    body: list[str] = []
    y = _heading(body, report)
    top = y
    y = _throughput(body, report, axis, y) + 44
    y = _leadership(body, report, axis, y) + 44
    y = _faults(body, report, axis, y) + 8
    _time_axis(body, axis, top, y)
    height = y + 34
    style = (
        "text{font-family:Inter,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif;"
        f"fill:{_COLOURS['ink']};font-size:12px}}"
        f".soft{{fill:{_COLOURS['soft']}}}.head{{font-size:13px;font-weight:600}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}">\n<style>{style}</style>\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


# --- parts -----------------------------------------------------------------------------------


def _heading(body: list[str], report: Report) -> int:
    colour = _COLOURS["ok" if report.verdict == "ok" else "bad"]
    faults = sum(report.faults.values())
    lost = report.audit.lost_count
    body.append(
        f'<text x="28" y="42" style="font-size:21px;font-weight:700">raftckpt chaos'
        f'<tspan dx="12" style="fill:{colour}">{escape(report.verdict)}</tspan></text>'
        f'<text x="{_WIDTH - _RIGHT}" y="42" text-anchor="end" class="soft">seed '
        f"{report.plan.seed} · {report.plan.replicas} replicas · {report.plan.clients} client "
        f"processes · {report.seconds:.0f} s under faults</text>"
    )
    linear = "not judged"
    if report.judgement is not None:
        linear = {True: "yes", False: "NO", None: "undecided"}[report.linearizable]
    facts = (
        (f"{report.acknowledged:,}", "acknowledged writes"),
        (f"{report.per_s:,.0f}/s", "while faults were played"),
        ("unknown" if lost is None else f"{lost}", f"lost of {report.audit.audited:,} audited"),
        (linear, "linearizable"),
        (f"{report.unknown:,}", "outcomes unknown"),
        (f"{faults}", f"faults of {len(report.faults)} kinds"),
    )
    step = (_WIDTH - 56) / len(facts)
    for number, (value, what) in enumerate(facts):
        x = round(28 + number * step)
        body.append(
            f'<text x="{x}" y="84" style="font-size:19px;font-weight:600">{escape(value)}</text>'
            f'<text x="{x}" y="103" class="soft">{escape(what)}</text>'
        )
    return 162


def _throughput(body: list[str], report: Report, axis: _TimeAxis, top: int) -> int:
    bottom = top + _PLOT_HEIGHT
    writes = _rates(report.answers, axis, changes=True)
    reads = _rates(report.answers, axis, changes=False)
    ceiling = _round_up(max([*writes, *reads, 1.0]) * 1.08)
    _label(body, "answers per second", top - 14)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = round(bottom - share * _PLOT_HEIGHT, 1)
        body.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" '
            f'stroke="{_COLOURS["grid"]}"/><text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end" '
            f'class="soft">{ceiling * share:,.0f}</text>'
        )
    for rates, colour, opacity in (
        (writes, _COLOURS["write"], 0.16),
        (reads, _COLOURS["read"], 0.0),
    ):
        points = [
            f"{axis.x(axis.begin + round((at + 0.5) * _BUCKET_NS))},"
            f"{bottom - rate / ceiling * _PLOT_HEIGHT:.1f}"
            for at, rate in enumerate(rates)
        ]
        if not points:
            continue
        line = " ".join(points)
        first, end = points[0].split(",")[0], points[-1].split(",")[0]
        if opacity:
            body.append(
                f'<polygon points="{first},{bottom} {line} {end},{bottom}" fill="{colour}" '
                f'opacity="{opacity}"/>'
            )
        body.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8" '
            'stroke-linejoin="round"/>'
        )
    for row, (colour, text) in enumerate(
        ((_COLOURS["write"], "acknowledged writes"), (_COLOURS["read"], "reads"))
    ):
        x, y = _LEFT + 176 * row, top - 14
        body.append(
            f'<line x1="{x}" x2="{x + 16}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" '
            f'stroke-width="3"/><text x="{x + 22}" y="{y}" class="soft">{text}</text>'
        )
    return bottom


def _rates(answers: Iterable[tuple[int, bool]], axis: _TimeAxis, *, changes: bool) -> list[float]:
    buckets = Counter(
        (time - axis.begin) // _BUCKET_NS
        for time, change in answers
        if change is changes and axis.begin <= time <= axis.end
    )
    count = math.ceil((axis.end - axis.begin) / _BUCKET_NS)
    # what is cut off by the end would look like a dip
    return [buckets[at] * 1e9 / _BUCKET_NS for at in range(max(count - 1, 1))]


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _STEPS if step * power >= value)


def _leadership(body: list[str], report: Report, axis: _TimeAxis, top: int) -> int:
    _label(body, "who leads", top - 12)
    nodes = sorted({sample.node for sample in report.samples})
    y = top
    for number, node in enumerate(nodes):
        y = top + number * (_STRIP + 6)
        own = [sample for sample in report.samples if sample.node == node]
        body.append(
            f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(node)}</text>'
            f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH - _LEFT - _RIGHT}" height="{_STRIP}" '
            f'fill="{_COLOURS["away"]}" stroke="{_COLOURS["grid"]}"/>'
        )
        for first, end in _spans(own):
            colour = {
                "leader": _LEADERS[number % len(_LEADERS)],
                "follower": _COLOURS["follower"],
                "": _COLOURS["away"],
            }.get(first.role, _COLOURS["candidate"])
            left, right = axis.x(first.time), axis.x(end)
            told = f"{node}: {first.role or 'no answer'}, term {first.term}"
            body.append(
                f'<rect x="{left}" y="{y}" width="{max(right - left, 0.8):.1f}" '
                f'height="{_STRIP}" fill="{colour}"><title>{escape(told)}</title></rect>'
            )
            if first.role == "leader" and right - left > 26:
                body.append(
                    f'<text x="{left + 4}" y="{y + 13}" style="fill:#fff;font-size:10.5px">'
                    f"{first.term}</text>"
                )
    bottom = y + _STRIP
    legend = (
        (_LEADERS[0], "leads (number: term)"),
        (_COLOURS["follower"], "follows"),
        (_COLOURS["away"], "no answer"),
    )
    x = _LEFT
    for colour, text in legend:
        body.append(
            f'<rect x="{x}" y="{top - 22}" width="11" height="11" fill="{colour}" '
            f'stroke="{_COLOURS["soft"]}" stroke-width="0.5"/>'
            f'<text x="{x + 17}" y="{top - 12}" class="soft">{text}</text>'
        )
        x += 34 + 7 * len(text)
    return bottom


def _spans(samples: Sequence[Sample]) -> Iterable[tuple[Sample, int]]:
    """Join samples that say the same: (the first of them, when that ended)."""
    first: Sample | None = None
    last: Sample | None = None
    for sample in samples:
        if first is None or last is None:
            first = last = sample
            continue
        gap = sample.time - last.time > _GAP_NS
        if gap or (sample.role, sample.term) != (first.role, first.term):
            yield first, last.time if gap else sample.time
            first = sample
        last = sample
    if first is not None and last is not None:
        yield first, last.time


def _faults(body: list[str], report: Report, axis: _TimeAxis, top: int) -> int:
    _label(body, "faults", top - 12)
    x = _LEFT
    for lane, text in enumerate(
        ("replicas and the links that cut them off", "what is around them")
    ):
        body.append(
            f'<rect x="{x}" y="{top - 22}" width="16" height="11" rx="2.5" '
            f'fill="{_COLOURS[str(lane)]}"/>'
            f'<text x="{x + 22}" y="{top - 12}" class="soft">{text}</text>'
        )
        x += 290
    order = [name for lane in LANES for name in lane]
    played = [name for name in order if report.faults.get(name)]
    for row, name in enumerate(played):
        y = top + row * _ROW
        marks = [mark for mark in report.marks if mark.name == name]
        if row % 2 == 0:
            body.append(
                f'<rect x="28" y="{y}" width="{_WIDTH - 28 - _RIGHT}" height="{_ROW}" '
                'fill="#f7f9fb"/>'
            )
        body.append(
            f'<text x="{_LEFT - 8}" y="{y + 12.5}" text-anchor="end" style="font-size:11px">'
            f"{escape(name)}</text>"
        )
        body += [_bar(mark, axis, y) for mark in marks]
    y = top + len(played) * _ROW
    for name, why in report.skipped.items():
        body.append(
            f'<text x="{_LEFT - 8}" y="{y + 12.5}" text-anchor="end" class="soft" '
            f'style="font-size:11px">{escape(name)}</text><text x="{_LEFT}" y="{y + 12.5}" '
            f'class="soft" style="font-size:11px">skipped: {escape(why[:150])}</text>'
        )
        y += _ROW
    return y


def _bar(mark: Mark, axis: _TimeAxis, y: int) -> str:
    left, right = axis.x(mark.begin), axis.x(mark.end)
    seconds = (mark.end - mark.begin) / 1e9
    return (
        f'<rect x="{left}" y="{y + 3}" width="{max(right - left, 2.5):.1f}" height="{_ROW - 6}" '
        f'rx="2.5" fill="{_COLOURS[str(mark.lane)]}"><title>{escape(mark.name)}, '
        f"{seconds:.1f} s</title></rect>"
    )


def _time_axis(body: list[str], axis: _TimeAxis, top: int, bottom: int) -> None:
    seconds = (axis.end - axis.begin) / 1e9
    step = next((each for each in _TICKS_S if seconds / each <= 16), 86_400)
    for at in range(0, math.floor(seconds) + 1, step):
        x = axis.x(axis.begin + at * 1_000_000_000)
        body.insert(
            0,
            f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke="{_COLOURS["grid"]}"/>',
        )
        body.append(
            f'<text x="{x}" y="{bottom + 16}" text-anchor="middle" class="soft">{at} s</text>'
        )


def _label(body: list[str], text: str, y: int) -> None:
    body.append(f'<text x="28" y="{y}" class="head">{text}</text>')

"""Small charts as SVG: lines over time, with units. Nothing of them is a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from math import floor, log10
from typing import Final, NamedTuple

__all__ = ["Curve", "Upright", "chart", "spark"]

# units of SVG: two charts beside each other on a page, room on the left for figures, below for
# times
_WIDTH: Final = 400
_HEIGHT: Final = 170
_LEFT: Final = 52
_RIGHT: Final = 8
_TOP: Final = 10
_BOTTOM: Final = 22
_LINES: Final = 4
"""Steps of the scale, at most."""


class Curve(NamedTuple):
    """One line: its name, and its values (NaN: a gap)."""

    name: str
    values: Sequence[float]


class Upright(NamedTuple):
    """Something that happened: when, and what."""

    at: float
    text: str


def _step(most: float) -> float:
    """A round step of a scale that reaches ``most``."""
    if most <= 0:
        return 1.0
    power = 10.0 ** floor(log10(most / _LINES))
    return next(power * f for f in (1.0, 2.0, 2.5, 5.0, 10.0) if power * f * _LINES >= most)


def chart(
    times: Sequence[float],
    series: Iterable[Curve],
    *,
    since: float,
    now: float,
    unit: Callable[[float], str],
    marks: Iterable[Upright] = (),
    label: str,
) -> str:
    """Draw lines over time.

    Arguments:
        times: of the values, ascending, on the clock of ``now``.
        series: the lines; the n-th has the class ``s<n>``.
        since: where the axis begins.
        now: where it ends.
        unit: writes a value of the scale.
        marks: drawn as upright lines.
        label: what it shows, for who does not see it.
    """
    lines = list(series)
    most = max([0.0, *(v for line in lines for v in line.values if v == v)])  # without NaN
    step = _step(most)
    top = step * max(1, -(-most // step))
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(at: float) -> float:
        return _LEFT + across * (at - since) / (now - since)

    def y(value: float) -> float:
        return _TOP + down * (1 - value / top)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">']
    value = 0.0
    while value <= top + step / 2:
        at = y(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="end" x="{_LEFT - 6}" y="{at + 4:.1f}">{escape(unit(value))}</text>'
        )
        value += step
    minutes = (now - since) / 60
    for share, anchor in ((0.0, ""), (0.5, "mid"), (1.0, "end")):
        text = "now" if share == 1.0 else f"{minutes * (1 - share):.3g} min ago"
        place = _LEFT + across * share
        parts.append(
            f'<text class="{anchor}" x="{place:.0f}" y="{_HEIGHT - 6}">{escape(text)}</text>'
        )
    for mark in marks:
        if mark.at >= since:
            parts.append(
                f'<line class="mark" x1="{x(mark.at):.1f}" x2="{x(mark.at):.1f}" y1="{_TOP}" '
                f'y2="{_TOP + down}"><title>{escape(mark.text)}</title></line>'
            )
    places = [f"{x(at):.1f}" for at in times]
    for number, line in enumerate(lines):
        for points in _pieces(places, [y(v) for v in line.values]):
            parts.append(f'<polyline class="s{number}" points="{points}"/>')
    return "".join(parts) + "</svg>"


def _pieces(across: Sequence[str], down: Sequence[float]) -> Iterator[str]:
    """Points without gaps between them; one alone becomes a dot, else nobody sees it."""
    piece: list[str] = []
    for place, value in zip(across, down, strict=True):
        if value == value:
            piece.append(f"{place},{value:.1f}")
        elif piece:
            yield " ".join(piece if len(piece) > 1 else 2 * piece)
            piece = []
    if piece:
        yield " ".join(piece if len(piece) > 1 else 2 * piece)


def spark(values: Sequence[float], most: int) -> str:
    """Draw the last ``most`` values without a scale, the newest at the right end."""
    top = max(values, default=0.0) or 1.0
    first = most - len(values)
    points = " ".join(
        f"{(first + at) * 120 / max(1, most - 1):.1f},{27 - 25 * value / top:.1f}"
        for at, value in enumerate(values)
    )
    return (
        '<svg class="spark" viewBox="0 0 120 28" preserveAspectRatio="none" aria-hidden="true">'
        f'<polyline class="s0" points="{points}"/></svg>'
    )

"""Line plots as SVG, without any library: series of points over two axes, linear or logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

__all__ = ["Series", "line_plot"]

# a picture in units of SVG: room on the left for figures, on the right for the legend
_WIDTH: Final = 640
_HEIGHT: Final = 400
_LEFT: Final = 76
_RIGHT: Final = 150
_TOP: Final = 40
_BOTTOM: Final = 56
_COLOURS: Final = ("#0b6fb8", "#d1495b", "#3a7d44", "#8e5ea2", "#b8860b", "#555555")
_TICKS: Final = 5
"""Lines of a scale, about: of twice as many the labels would touch."""


class Series(NamedTuple):
    """A named line."""

    name: str
    points: Sequence[tuple[float, float]]


class _Axis:
    """Maps values to positions and chooses round ticks."""

    def __init__(self, values: Sequence[float], low: int, high: int, log: bool) -> None:
        self._log = log
        self._low, self._high = low, high
        most = max(values, default=1.0) or 1.0
        if log:
            least = min((value for value in values if value > 0), default=1.0)
            first = math.floor(math.log10(least))
            last = max(math.ceil(math.log10(most)), first + 1)
            self._from, self._to = float(first), float(last)
            self.ticks = [10.0**power for power in range(first, last + 1)]
        else:
            step = _round_step(most / _TICKS)
            self._from, self._to = 0.0, step * math.ceil(most / step)
            self.ticks = [step * number for number in range(round(self._to / step) + 1)]

    def at(self, value: float) -> float:
        """Position of a value."""
        if self._log:
            value = math.log10(max(value, 10.0**self._from))
        return self._low + (value - self._from) / (self._to - self._from) * (self._high - self._low)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough)


def _label(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def line_plot(
    title: str,
    x_title: str,
    y_title: str,
    series: Sequence[Series],
    *,
    x_log: bool = False,
    y_log: bool = False,
) -> str:
    """Return an SVG document.

    Arguments:
        title: what it shows.
        x_title: what the values to the right are.
        y_title: what the values upwards are.
        series: the lines; a legend names them.
        x_log: a logarithmic axis to the right.
        y_log: a logarithmic axis upwards.
    """
    points = [point for line in series for point in line.points]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    x = _Axis([point[0] for point in points], _LEFT, right, x_log)
    y = _Axis([point[1] for point in points], bottom, _TOP, y_log)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_WIDTH / 2, 22, title, size=15),
        _text((_LEFT + right) / 2, _HEIGHT - 14, x_title),
        f'<g transform="rotate(-90 18 {(_TOP + bottom) / 2})">'
        + _text(18, (_TOP + bottom) / 2, y_title)
        + "</g>",
    ]
    for tick in x.ticks:
        parts.append(_line(x.at(tick), _TOP, x.at(tick), bottom))
        parts.append(_text(x.at(tick), bottom + 18, _label(tick)))
    for tick in y.ticks:
        parts.append(_line(_LEFT, y.at(tick), right, y.at(tick)))
        parts.append(_text(_LEFT - 8, y.at(tick) + 4, _label(tick), anchor="end"))
    for number, (name, line) in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [(x.at(a), y.at(b)) for a, b in line]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(places) <= 50:
            parts += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places
            ]
        height = _TOP + 12 + 20 * number
        parts.append(_line(right + 12, height, right + 32, height, colour, 2))
        parts.append(_text(right + 38, height + 4, name, anchor="start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="#222222">{escape(text)}</text>'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str = "#dddddd", width: int = 1
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )

"""A recording of the demo as a picture that moves: ``python -m tools.recording``.

Runs ``raftckpt demo`` and draws what it printed, each line when it came, as docs/start/demo.svg.
Who cannot play it, or wants no motion, sees all lines.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["drawn", "main", "recorded"]

PICTURE = Path(__file__).parents[1] / "docs/start/demo.svg"
COMMAND = "raftckpt demo"
COLUMNS, LINE_PX, LETTER_PX = 92, 19, 8.0
HOLD_S = 6.0
"""How long the end stands before it begins again."""
COLOURS = (
    (r" s  kill -9", "#ff7b72"),
    (r"is ACTIVE|goes on with|verdict: ok", "#7ee787"),
    (r"^KILLED|^\$", "#79c0ff"),
    (r"STANDBY", "#d2a8ff"),
)


def recorded(command: list[str]) -> list[tuple[float, str]]:
    """Seconds and line of everything that a command prints.

    Raises:
        CalledProcessError: it failed.
    """
    begun = time.monotonic()
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic() - begun, line.rstrip("\n")))
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return lines


def drawn(lines: list[tuple[float, str]]) -> str:
    """The picture of a recording."""
    lines = [(0.0, f"$ {COMMAND}"), *lines]
    length = lines[-1][0] + HOLD_S
    width, height = round(COLUMNS * LETTER_PX + 32), len(lines) * LINE_PX + 58
    rows, rules = [], []
    for number, (at, line) in enumerate(lines):
        line = line[:COLUMNS]
        colour = next((c for pattern, c in COLOURS if re.search(pattern, line)), "#e6edf3")
        y = 50 + number * LINE_PX
        share = 100 * at / length
        rows.append(
            f'<text class="l l{number}" x="16" y="{y}" fill="{colour}">{html.escape(line)}</text>'
        )
        if at > 0:
            rules.append(
                f"@keyframes k{number}{{0%,{share:.3f}%{{opacity:0}}{share + 0.01:.3f}%,100%"
                f"{{opacity:1}}}}.l{number}{{animation:k{number} {length:.2f}s linear infinite}}"
            )
    dots = "".join(
        f'<circle cx="{20 + 18 * n}" cy="18" r="5.5" fill="{colour}"/>'
        for n, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="A recording of raftckpt demo">\n'
        "<style>text{font:13.3px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;"
        "white-space:pre}\n@media (prefers-reduced-motion: no-preference){\n"
        + "\n".join(rules)
        + "\n}</style>\n"
        + f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>{dots}\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


def main() -> None:
    """Record and draw."""
    command = [sys.executable, "-u", "-m", "raftckpt_cli.main", *COMMAND.split()[1:]]
    lines = recorded(command)
    PICTURE.write_text(drawn([(at, line) for at, line in lines if "data and logs" not in line]))
    print(f"{PICTURE}: {len(lines)} lines, {lines[-1][0]:.1f} s")


if __name__ == "__main__":
    main()

"""A program in a terminal of 80 x 24: what is on its screen, and a picture of it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Callable

import pyte

from tests.waiting import PATIENCE, until

ROWS, COLUMNS = 24, 80


class Terminal:
    """A program in a terminal, whose screen can be read."""

    def __init__(self, *command: str) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": "", "LINES": "", "TZ": "UTC"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environ.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._ours = ours
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # the other side is closed
                return
            with self._lock:
                self._stream.feed(data)

    def lines(self) -> list[str]:
        with self._lock:
            return [line.rstrip() for line in self.screen.display]

    def text(self) -> str:
        return "\n".join(self.lines())

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, shown: Callable[[str], bool] | str, what: str = "") -> None:
        wanted = shown if callable(shown) else lambda text: shown in text
        try:
            until(lambda: wanted(self.text()), what or str(shown))
        except AssertionError as error:
            error.add_note(self.text())
            raise

    def cells(self) -> list[list[tuple[str, str, str, bool, bool]]]:
        """(character, foreground, background, bold, reverse) of each place."""
        with self._lock:
            return [
                [(c.data, c.fg, c.bg, c.bold, c.reverse)
                 for c in (self.screen.buffer[row][column] for column in range(COLUMNS))]
                for row in range(ROWS)
            ]  # fmt: skip

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._ours)
        self._thread.join(PATIENCE)


_COLOURS = {
    "default": "#d8dee9", "red": "#ff6b68", "green": "#5ac77a", "brown": "#e0b050",
    "black": "#11151b", "white": "#ffffff",
}  # fmt: skip


def drawn(cells: list[list[tuple[str, str, str, bool, bool]]]) -> str:
    """A screen as a picture for the documents."""
    across, down = 8.4, 18
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * across + 24:.0f} '
        f'{ROWS * down + 24}" font-family="ui-monospace,DejaVu Sans Mono,Menlo,monospace" '
        'font-size="14"><title>raftckpt top in a terminal of 80 x 24</title>'
        '<rect width="100%" height="100%" rx="8" fill="#11151b"/>'
    ]
    for row, line in enumerate(cells):
        at = 0
        while at < COLUMNS:
            look, begin = line[at][1:], at
            while at < COLUMNS and line[at][1:] == look:
                at += 1
            text = "".join(cell[0] for cell in line[begin:at])
            ink, back, bold, reverse = look
            ink = _COLOURS.get(ink, f"#{ink}" if len(ink) == 6 else _COLOURS["default"])
            back = "" if back == "default" else _COLOURS.get(back, f"#{back}")
            if reverse:
                ink, back = back or _COLOURS["black"], ink
            x, y = 12 + begin * across, 12 + row * down
            if back:
                parts.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{(at - begin) * across:.1f}" '
                    f'height="{down}" fill="{back}"/>'
                )
            if text.strip():
                safe = text.replace("&", "&amp;").replace("<", "&lt;").replace(" ", "\u00a0")
                weight = ' font-weight="600"' if bold else ""
                parts.append(
                    f'<text x="{x:.1f}" y="{y + 14}" fill="{ink}"{weight} '
                    f'textLength="{(at - begin) * across:.1f}">{safe}</text>'
                )
    return "".join(parts) + "</svg>\n"

"""``raftckpt top`` in a terminal of 80 x 24: what is on the screen, and what keys do."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import raftckpt
from raftckpt.testing import LocalCluster
from tests.programs import PATIENCE
from tests.waiting import until

pyte = pytest.importorskip("pyte")
MAIN = [sys.executable, "-c", "from raftckpt_cli.main import main; main()", "top"]
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "top.svg"
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
            until(lambda: wanted(self.text()), what or str(shown), PATIENCE)
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

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._ours)
        self._thread.join(PATIENCE)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(3, tmp_path / "cluster", faults=False)
    cluster.start()
    cluster.wait_ready()
    yield cluster
    cluster.kill()
    cluster.stop()


@pytest.fixture
def terminal(cluster) -> Iterator[Terminal]:
    terminal = Terminal(*MAIN, "--endpoints", cluster.endpoints)
    yield terminal
    terminal.end()


def test_what_is_seen_and_what_keys_do(cluster, terminal, request) -> None:
    leader = cluster.leader()
    with raftckpt.connect(cluster.endpoints, name="writer", timeout=PATIENCE) as service:
        for name, size in (("billing/sessions", 3000), ("routing/table", 90_000), ("x", 10)):
            opened = service.open(name, create=raftckpt.Attributes())
            for number in range(30 if name != "x" else 3):
                opened.put(b"%d" % number, bytes(size))
        busy = service.open("billing/sessions")
        over = threading.Event()

        def write() -> None:
            while not over.wait(0.02):
                busy.put("0", bytes(300))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            terminal.until(lambda text: "routing/table" in text and "3 of 3 up" in text)
            assert f"{leader} leads, term" in terminal.lines()[0]
            rows = [line for line in terminal.lines() if line.startswith(("  n", "> n"))]
            assert len(rows) == 3
            assert all(line == "" or len(line) <= COLUMNS for line in terminal.lines())
            assert "q quit" in terminal.lines()[ROWS - 1], terminal.text()
            terminal.until(lambda text: "changes/s v" in text, "sorted by changes")
            # the order of the rows follows the column
            terminal.press("ss")
            terminal.until(
                lambda text: (
                    "size v" in text
                    and -1 < text.find("routing/table") < text.find("billing/sessions")
                ),
                "the largest comes first",
            )
            terminal.press("sss")  # once round
            terminal.until(
                lambda text: (
                    "changes/s v" in text
                    and -1 < text.find("billing/sessions") < text.find("routing/table")
                ),
                "the busiest comes first",
            )
            if os.environ.get("RAFTCKPT_PICTURES"):
                PICTURE.write_text(drawn(terminal.cells()), "utf-8")
        finally:
            over.set()
            writer.join()
    # leadership, with a question
    follower = next(node for node in cluster.nodes if node != leader)
    terminal.press("kkk" + "j" * cluster.nodes.index(follower))
    terminal.until(f"> {follower}")
    terminal.press("t")
    terminal.until(f"hand leadership to {follower}?")
    terminal.press("n")
    terminal.until("not handed over")
    assert cluster.leader() == leader
    terminal.press("ty")
    terminal.until(f"{follower} leads, term")
    assert cluster.leader() == follower
    # what dies is seen
    cluster.kill(leader)
    terminal.until(lambda text: "2 of 3 up" in text and "refused" in text, "a dead one is seen")
    cluster.kill(*cluster.nodes)
    terminal.until(lambda text: "no replica leads" in text or " s old: " in text, "nobody is left")
    terminal.press("q")
    assert terminal.process.wait(PATIENCE) == 0


def test_without_a_terminal_and_without_the_package(cluster, tmp_path) -> None:
    where = ["--endpoints", cluster.endpoints]
    piped = subprocess.run([*MAIN, *where], capture_output=True, text=True, check=False)
    assert piped.returncode == 2
    assert "needs a terminal" in piped.stderr
    (tmp_path / "rich.py").write_text("raise ImportError\n", "utf-8")
    environ = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    without = subprocess.run(
        [*MAIN, *where], capture_output=True, text=True, check=False, env=environ
    )
    assert without.returncode == 2
    assert "pip install 'raftckpt[top]'" in without.stderr


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

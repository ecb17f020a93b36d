"""``raftckpt top`` in a terminal of 80 x 24: what is on the screen, and what keys do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import raftckpt
from raftckpt.testing import LocalCluster
from tests.terminal import COLUMNS, ROWS, Terminal
from tests.waiting import PATIENCE

MAIN = [sys.executable, "-c", "from raftckpt_cli.main import main; main()", "top"]


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
    terminal.close()


def test_what_is_seen_and_what_keys_do(cluster, terminal) -> None:
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

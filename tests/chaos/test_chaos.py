"""Chaos with real processes: the run an operator would make, short."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from raftckpt.chaos.history import load
from raftckpt.chaos.nemesis import LANES
from tests.waiting import until

MAIN = [sys.executable, "-c", "from raftckpt_cli.main import main; main()"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_chaos_run_is_judged_ok(tmp_path) -> None:
    report, picture, data = tmp_path / "report.json", tmp_path / "run.svg", tmp_path / "data"
    command = [*MAIN, "chaos", "--seconds", "20", "--seed", "11", "--min-rate", "20"]
    command += ["--report", str(report), "--picture", str(picture), "--data-dir", str(data)]
    done = subprocess.run([*command, "-o", "json"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == json.loads(report.read_text())
    assert said["verdict"] == "ok"
    assert said["seed"] == 11
    assert said["lost"] == said["undecided"] == 0
    assert said["linearizable"]
    assert said["replicas_equal"]
    assert said["acknowledged"] > 500
    assert 0 < said["audited"] <= said["acknowledged"]
    assert said["reads"] > 50
    assert sum(said["faults"].values()) >= 5
    assert set(said["faults"]) <= {name for lane in LANES for name in lane}
    root = ElementTree.fromstring(picture.read_text())
    assert root.tag.endswith("svg")
    kinds = Counter(op.kind.value for op in load(sorted(data.glob("*.jsonl"))))
    expected = {"put", "write", "create", "delete", "read", "read_all", "open", "set_expiration"}
    expected |= {"append", "transaction"}
    assert expected <= set(kinds)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_interrupted_run_leaves_nothing_behind(tmp_path) -> None:
    data = tmp_path / "data"
    process = subprocess.Popen(
        [*MAIN, "chaos", "--seconds", "100", "--data-dir", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: any(data.glob("c1.jsonl")), "clients")
        children = processes_of(data)
        assert len(children) >= 4
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, out + err
        assert "Traceback" not in err
    finally:
        process.kill()
        process.wait()
    until(lambda: not processes_of(data), "all processes to be gone")


def processes_of(directory: Path) -> list[int]:
    """Ids of the processes that were told about a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if b"chaos" not in command and any(str(directory).encode() in c for c in command):
                    found.append(int(entry.name))
    return found

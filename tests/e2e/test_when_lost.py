"""The page for the night: its sequences of commands, typed after a cluster has lost things."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import raftckpt
from raftckpt.testing import LocalCluster, background
from tests.waiting import until

PAGE = Path(__file__).resolve().parents[2] / "docs/operate/when-things-are-lost.md"
TEXT = PAGE.read_text("utf-8")
ALL = {b"alice": b'{"page": 3}', b"bob": b"x" * 1000}


def sequences(heading: str) -> list[list[str]]:
    """The blocks of commands below a heading."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (found,) = [part for part in section if part.startswith(heading)]
    blocks = re.findall(r"```console\n(.*?)```", found, re.DOTALL)
    return [[line[2:] for line in block.splitlines() if line.startswith("$ ")] for block in blocks]


class Night:
    """Hosts n1 to n3 on this machine; the paths and addresses of the page are theirs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cluster = LocalCluster(3, path, faults=False)
        self.token = ""
        self.said = ""
        self._served: list[subprocess.Popen[bytes]] = []
        self._names = {"/var/lib/raftckpt": str(path), "/backup": str(path)}
        for number, node in enumerate(self.cluster.nodes, 1):
            self._names[f"10.0.0.{number}:7501"] = self.cluster.peer_endpoint(node)
            self._names[f"10.0.0.{number}:7401"] = self.cluster.endpoint(node)

    def type(self, commands: list[str]) -> None:
        """Type commands as they stand on the page."""
        for command in commands:
            for name, here in self._names.items():
                command = command.replace(name, here)
            command = command.replace("TOKEN", self.token)
            if command.startswith("raftckpt serve"):
                self._serve(shlex.split(command)[1:])
            else:
                self._run(command)

    def _run(self, command: str) -> None:
        arguments = shlex.split(command)
        if arguments[0] == "raftckpt":
            arguments[:1] = [sys.executable, "-m", "raftckpt_cli.main"]
        if "recover" in arguments and "--compare" not in arguments:
            arguments.append("--yes")  # somebody answers y
        deadline = time.monotonic() + 60
        while True:  # who reads "nobody leads" a second after a start looks again
            ran = subprocess.run(
                arguments, cwd=self.path, env=environment(), capture_output=True, text=True,
                timeout=60,
            )  # fmt: skip
            if ran.returncode == 0 or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert ran.returncode == 0, (command, ran.stderr)
        self.said = ran.stdout
        tokens = re.findall(r"--join (\S+)", ran.stdout)
        self.token = tokens[-1] if tokens else self.token

    def _serve(self, arguments: list[str]) -> None:
        with (self.path / "served.log").open("ab") as log:
            self._served.append(
                background.spawn(
                    ["-m", "raftckpt.process", *arguments[1:]], stdout=log, stderr=log,
                    env=environment(), prefix=["env", "-C", str(self.path)],
                )
            )  # fmt: skip

    def voters(self, count: int = 3) -> None:
        """Wait until so many vote."""

        def there() -> bool:
            for node in self.cluster.nodes:
                status = self.cluster.status(node, 0.5)
                if status is not None and status["leader"] == node:
                    return sum(map(self._votes, status["members"])) == count
            return False

        until(there, f"{count} vote")

    def _votes(self, member: dict[str, Any]) -> bool:
        """Whether it is a voter, and the one that runs there."""
        status = self.cluster.status(member["node"], 0.5)
        return member["voter"] and status is not None and status["directory"] == member["directory"]

    def end(self) -> None:
        for process in self._served:
            process.kill()
            process.wait()
        self.cluster.stop()


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("RAFTCKPT_")}


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    """A cluster with data and a snapshot of them, stopped."""
    night = Night(tmp_path)
    try:
        night.cluster.start()
        night.cluster.wait_ready()
        with raftckpt.connect(night.cluster.endpoints) as service:
            checkpoint = service.open("sessions", create=raftckpt.Attributes())
            for key, data in ALL.items():
                checkpoint.put(key, data)
            last = service.snapshot(tmp_path / "prod.snapshot").revision
        for node in night.cluster.nodes:
            until(lambda n=node: night.cluster.status(n)["revision"] >= last, "all hold it")
        yield night
    finally:
        night.end()


def held(night: Night, name: str = "sessions") -> dict[bytes, bytes]:
    with raftckpt.connect(night.cluster.endpoints, timeout=30) as service:
        report = service.check(timeout=30)
        assert len(set(report.digests.values())) == 1, report
        return dict(service.view(name).read_all())


def test_the_page_has_no_sequence_that_is_not_run() -> None:
    counts = {name: len(sequences(f"{name}. ")) for name in "ABCDEF"}
    counts["First"] = len(sequences("First"))
    assert counts == {"A": 1, "B": 2, "C": 4, "D": 2, "E": 2, "F": 2, "First": 1}
    assert TEXT.count("```console") == sum(counts.values())


def test_a_one_disk_is_lost(night: Night) -> None:
    night.cluster.kill("n2")
    night.type(sequences("First")[0])
    (block,) = sequences("A. ")
    night.type(block)
    night.voters()
    night._run("raftckpt cluster members")
    assert "learner" not in night.said
    assert held(night) == ALL


def test_b_nobody_leads(night: Night) -> None:
    night.cluster.kill()
    start, verify = sequences("B. ")
    night.type(verify)
    assert "everything in it is as it was written" in night.said
    night.type(start)
    assert held(night) == ALL


def test_c_the_disks_of_a_majority_are_gone(night: Night) -> None:
    night.cluster.kill()
    for node in ("n1", "n3"):
        shutil.rmtree(night.cluster.node_dir(node))
    compare, recover, *others = sequences("C. ")
    night.type(compare)
    assert f"to recover: {night.cluster.node_dir('n2')}" in night.said
    night.type(recover)
    for number, block in enumerate(others, 2):
        night.type(block)
        night.voters(number)
    assert held(night) == ALL


def test_d_there_is_a_snapshot_file(night: Night) -> None:
    night.cluster.kill()
    for node in night.cluster.nodes:
        shutil.rmtree(night.cluster.node_dir(node))
    alone, others = sequences("D. ")
    night.type(alone)
    night.type(others)
    night.voters()
    assert held(night) == ALL


def test_e_a_checkpoint_was_deleted(night: Night) -> None:
    with raftckpt.connect(night.cluster.endpoints) as service:
        service.unlink("sessions")
    first, then = sequences("E. ")
    night.type(first)
    assert "alice" in night.said
    night.type(then)
    assert held(night) == held(night, "sessions-restored") == ALL


def test_f_read_what_is_left(night: Night) -> None:
    night.cluster.kill("n1", "n3")
    read, dump = sequences("F. ")
    night.type(read[:2])
    assert night.said == '{"page": 3}'
    night.type(read[2:])
    assert (night.path / "left.snapshot").stat().st_size > 0
    night.cluster.kill("n2")
    night.type(dump)
    assert "SECTION_PUT" in night.said


def test_the_file_of_the_page_is_that_of_the_operations_page() -> None:
    """The addresses that are replaced above are those of the example."""
    text = (PAGE.with_name("operations.md")).read_text("utf-8")
    (block,) = re.findall(r"^    cluster: prod\n(?:    .*\n)*", text, re.MULTILINE)
    replicas = yaml.safe_load(re.sub(r"^    ", "", block, flags=re.MULTILINE))["replicas"]
    assert replicas["n1"] == {"client": "10.0.0.1:7401", "peer": "10.0.0.1:7501"}

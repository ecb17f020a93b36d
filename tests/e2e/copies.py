"""Load whose acknowledged writes are remembered by revision, and judging copies by them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raftckpt_cli import main as cli_main

import raftckpt
from raftckpt.copies.rebirth import FAR_ABOVE
from raftckpt.model.machine import CheckpointMachine
from raftckpt.testing import LocalCluster
from tests.waiting import until

__all__ = ["History", "cli", "judge_cluster", "restored"]


class History:
    """Writers that never write a key twice; what was acknowledged is known by its revision."""

    def __init__(self, endpoints: str, writers: int = 2) -> None:
        self.acknowledged: dict[bytes, tuple[int, bytes]] = {}
        """By section: revision and data."""
        self.tried: dict[bytes, bytes] = {}
        """Everything that was ever sent."""
        self._endpoints = endpoints
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._services: list[raftckpt.Service] = []
        self._threads = [
            threading.Thread(target=self._write, args=(number,)) for number in range(writers)
        ]

    def _write(self, writer: int) -> None:
        try:
            with raftckpt.connect(self._endpoints, timeout=30, session_timeout=30) as service:
                self._services.append(service)
                checkpoint = service.open("load", create=raftckpt.Attributes())
                number = 0
                while not self._stop.is_set():
                    key = b"%d:%d" % (writer, number)
                    data = os.urandom(64) + key
                    self.tried[key] = data
                    try:
                        revision = checkpoint.put(key, data)
                    except raftckpt.CheckpointError:
                        if self._stop.is_set():  # nobody is left to acknowledge it
                            return
                        raise
                    self.acknowledged[key] = (revision or 0, data)
                    number += 1
        except BaseException as error:
            if not self._stop.is_set():
                self._errors.append(error)

    @contextmanager
    def running(self) -> Iterator[History]:
        for thread in self._threads:
            thread.start()
        try:
            self.grows()
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(60)
        assert not self._errors, self._errors

    def grows(self, by: int = 20) -> None:
        """Wait until more is acknowledged."""
        count = len(self.acknowledged)
        until(
            lambda: len(self.acknowledged) >= count + by or self._errors,
            "more is acknowledged",
        )

    def stop(self) -> None:
        """Write no more, and wait for no answer."""
        self._stop.set()
        for service in self._services:
            service._driver.abandon()

    def judge(self, held: dict[bytes, bytes], revision: int) -> None:
        """Nothing acknowledged up to ``revision`` is missing; nothing is there that never was."""
        missing = [
            (key, at)
            for key, (at, data) in self.acknowledged.items()
            if at <= revision and held.get(key) != data
        ]
        assert not missing, (revision, missing[:5])
        invented = [key for key, data in held.items() if self.tried.get(key) != data]
        assert not invented, invented[:5]


def cli(capsys: Any, *arguments: str) -> Any:
    """Run a command that succeeds, with JSON."""
    capsys.readouterr()
    code = cli_main.run([*arguments, "-o", "json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


@contextmanager
def restored(file: Path, path: Path, of: str, capsys: Any) -> Iterator[tuple[LocalCluster, Any]]:
    """Three new replicas: one with a restored directory, two that come empty."""
    cluster = LocalCluster(3, path, faults=False)
    try:
        made = cli(
            capsys, "snapshot", "restore", str(file), "--config", str(cluster.config_path),
            "--node", "n1", "--of", of,
        )  # fmt: skip
        cluster._start("n1")
        for node in ("n2", "n3"):
            cluster._start(node, "--join", made["token"])
        until(
            lambda: sum(member["voter"] for member in cluster._told_members()) == 3,
            "the others vote",
        )
        cluster.wait_ready()
        yield cluster, made
    except Exception as error:
        error.add_note(cluster._explain("state of the cluster that was made", cluster.nodes))
        raise
    finally:
        cluster.stop()


def judge_cluster(cluster: LocalCluster, machine: CheckpointMachine) -> None:
    """Each replica holds the state, checkpoint by checkpoint, section by section."""
    revision = machine.revision + FAR_ABOVE
    for node in cluster.nodes:
        until(lambda n=node: cluster.status(n)["revision"] >= revision, f"{node} holds the state")
        with raftckpt.connect(cluster.endpoint(node), session=False) as service:
            there = {each.name: each for each in service.checkpoints(consistency="local")}
            assert there.keys() == machine.names.keys()
            for name, checkpoint in machine.names.items():
                view = service.view(name)
                held = view.read_all(consistency="local")
                assert held.keys() == checkpoint.sections.keys(), node
                rows = {each.id: each for each in view.sections(consistency="local")}
                for key, (data, _, _, at) in checkpoint.sections.items():
                    assert held[key] == bytes(data), (node, key)
                    assert rows[key].revision == at, (node, key)
                assert there[name].attributes.max_sections == checkpoint.attributes.max_sections
    with raftckpt.connect(cluster.endpoints) as service:
        report = service.check(timeout=30)
        assert len(set(report.digests.values())) == 1, report

"""Copies of real clusters: saved under load and kills, restored on new hosts."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

import raftckpt
from raftckpt.copies.rebirth import FAR_ABOVE
from raftckpt.copies.snapshots import load_snapshot
from raftckpt.testing import LocalCluster
from tests.e2e.copies import History, cli, judge_cluster, restored
from tests.waiting import until


def test_saved_under_load_and_kills_of_leaders_and_restored_on_three_new_ones(
    tmp_path: Path, capsys
) -> None:
    file = tmp_path / "saved"
    ended = threading.Event()
    with LocalCluster(3, faults=False) as cluster:
        with raftckpt.connect(cluster.endpoints) as service:
            ballast = service.open("ballast", create=raftckpt.Attributes(max_sections=5000))
            for number in range(300):
                ballast.put(str(number), bytes(100_000))
        history = History(cluster.endpoints)

        def kill_leaders() -> None:
            while not ended.is_set():
                leader = cluster.leader(30)
                cluster.kill(leader)
                cluster.start(leader)
                cluster.wait_ready(60)
                ended.wait(0.5)

        with history.running():
            killer = threading.Thread(target=kill_leaders)
            killer.start()
            try:
                history.grows(5)
                before = max(revision for revision, _ in history.acknowledged.values())
                saved = cli(
                    capsys, "snapshot", "save", str(file), "--endpoints", cluster.endpoints,
                    "--timeout", "60",
                )  # fmt: skip
            finally:
                ended.set()
                killer.join(90)
            history.grows(5)
    assert saved["revision"] >= before, "what was acknowledged before it began is in it"
    head, machine = load_snapshot(str(file))
    assert machine.revision == saved["revision"]
    held = {key: bytes(data) for key, (data, *_) in machine.names["load"].sections.items()}
    history.judge(held, saved["revision"])
    with restored(file, tmp_path / "new", head.cluster, capsys) as (fresh, made):
        judge_cluster(fresh, machine)
        assert made["revision"] == machine.revision + FAR_ABOVE
        assert made["sessions_ended"] == len(machine.sessions) > 0
        with raftckpt.connect(fresh.endpoints) as service, service.open("load") as checkpoint:
            assert checkpoint.put("after", b"it goes on") > made["revision"]
        fresh.kill(fresh.leader())  # and without the one that was restored, or another
        with raftckpt.connect(fresh.endpoints, timeout=30) as service:
            assert service.open("load").read("after") == b"it goes on"


def test_clients_of_the_old_cluster_lose_their_sessions_and_trackers_begin_anew(
    tmp_path: Path, capsys
) -> None:
    """The new cluster serves at the addresses of the old one, which clients do not notice."""
    file = tmp_path / "saved"
    with LocalCluster(1, tmp_path / "c", faults=False) as cluster:
        service = raftckpt.connect(cluster.endpoints, timeout=20)
        checkpoint = service.open("c", create=raftckpt.Attributes())
        epoch = service.open(
            "owned", create=raftckpt.Attributes(update="weak", collocated=True)
        ).active_replica_set()
        checkpoint.put("a", b"saved")
        saved = cli(capsys, "snapshot", "save", str(file), "--endpoints", cluster.endpoints)
        tracker = checkpoint.track()
        assert next(tracker).kind == "image"
        checkpoint.put("a", b"later, and gone")
        until(lambda: tracker.waiting, "it arrives")
        session = service._driver.core.session
        cluster.kill()
        shutil.move(cluster.node_dir("n1"), tmp_path / "aside")
        cli(
            capsys, "snapshot", "restore", str(file), "--config", str(cluster.config_path),
            "--node", "n1",
        )  # fmt: skip
        cluster.start()
        cluster.wait_ready()
        with pytest.raises(raftckpt.SessionLost):
            checkpoint.put("a", b"never")
        seen = next(tracker)  # it had arrived before the kill
        with pytest.raises(raftckpt.SessionLost):
            next(tracker)
        with raftckpt.connect(cluster.endpoints, timeout=20) as again:
            opened = again.open("c")
            assert opened.read("a") == b"saved"
            assert again._driver.core.session > FAR_ABOVE > session
            assert again.open("owned").active_replica_set() > FAR_ABOVE > epoch
            assert opened.put("a", b"new") > FAR_ABOVE
            # who asks to go on from where he was in the old cluster is not told that he is there
            assert seen.revision > saved["revision"]
            with again.track("c", from_revision=seen.revision) as anew:
                resync = next(anew)
            replica: dict[bytes, bytes] = {b"a": b"later, and gone"}
            resync.apply_to(replica)
            assert (resync.kind, replica) == ("resync", {b"a": b"new"})
        tracker.close()
        service.close()

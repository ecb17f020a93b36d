"""Drills: every choice of survivors after kills and partitions, judged by what was acknowledged."""

from __future__ import annotations

import os
import random
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import raftckpt
from raftckpt.copies.rebirth import FAR_ABOVE
from raftckpt.copies.replay import replayed
from raftckpt.storage import reading
from raftckpt.testing import LocalCluster
from tests.e2e.copies import History, cli
from tests.waiting import until

MORE = int(os.environ.get("RAFTCKPT_DRILLS", "0"))
"""So many of each size beside those that are always held."""
DRILLS = [
    (3, 2),
    pytest.param(5, 3, marks=pytest.mark.long),
    *((size, seed) for seed in range(10, 10 + MORE) for size in (3, 5)),
]


def sections_of(path: Path) -> tuple[int, dict[bytes, bytes]]:
    """Revision, and what the checkpoint of the load holds."""
    with reading(str(path)) as held:
        machine = replayed(held).machine
    load = machine.names.get("load")
    held_here = {} if load is None else {k: bytes(v[0]) for k, v in load.sections.items()}
    return machine.revision, held_here


def wear_out(cluster: LocalCluster, history: History, seed: int, rounds: int) -> None:
    """Kill minorities and cut leaders off while clients write; kill all in the middle of it."""
    rng = random.Random(seed)
    minority = (len(cluster.nodes) - 1) // 2
    for _ in range(rounds):
        if rng.random() < 0.5:
            killed = rng.sample(cluster.nodes, rng.randint(1, minority))
            cluster.kill(*killed)
            history.grows(10)
            cluster.start(*killed)
        else:
            leader = cluster.leader(30)
            rest = [node for node in cluster.nodes if node != leader]
            cut = [leader, *rng.sample(rest, minority - 1)]
            cluster.partition(cut, [node for node in cluster.nodes if node not in cut])
            history.grows(10)
            cluster.heal()
        cluster.wait_ready(60)
    leader = cluster.leader(30)
    rest = [node for node in cluster.nodes if node != leader]
    cut = [leader, *rng.sample(rest, minority - 1)]
    cluster.partition(cut, [node for node in cluster.nodes if node not in cut])
    history.grows(10)
    cluster.kill()
    history.stop()


@pytest.mark.parametrize(("size", "seed"), DRILLS)
def test_nothing_acknowledged_up_to_the_revision_told_is_lost(
    size: int, seed: int, tmp_path: Path, capsys
) -> None:
    with LocalCluster(size, settings={"snapshot": {"entries": 150}}) as cluster:
        history = History(cluster.endpoints)
        with history.running():
            wear_out(cluster, history, seed, 4)
        kept: dict[str, dict[bytes, bytes]] = {}
        drills = 0
        newest = max(revision for revision, _ in history.acknowledged.values())
        for count in range(1, size + 1):
            for survivors in combinations(cluster.nodes, count):
                paths = [str(cluster.node_dir(node)) for node in survivors]
                told = cli(capsys, "data", "recover", "--compare", *paths)
                named = told["recover"]
                if named not in kept:
                    kept[named] = recovered(Path(named), tmp_path, capsys)
                history.judge(kept[named], told["committed"]["revision"])
                if count > size // 2:  # a majority: nothing at all is lost
                    history.judge(kept[named], newest)
                drills += 1
        assert drills == 2**size - 1


def recovered(path: Path, scratch: Path, capsys: Any) -> dict[bytes, bytes]:
    """What is in a cluster that is recovered from a copy of a directory."""
    copy = scratch / path.name
    shutil.copytree(path, copy)
    made = cli(capsys, "data", "recover", str(copy), "--yes")
    revision, held = sections_of(copy)
    assert revision == made["revision"] == made["last"]["revision"] + FAR_ABOVE
    assert sections_of(Path(made["aside"])) == (made["last"]["revision"], held)
    shutil.rmtree(copy)
    shutil.rmtree(made["aside"])
    return held


def test_the_last_one_serves_old_ones_are_refused_and_empty_ones_are_added(capsys) -> None:
    with LocalCluster(3, faults=False) as cluster:
        history = History(cluster.endpoints)
        with history.running():
            cluster.kill()
            history.stop()
        last = "n2"
        told = cli(capsys, "data", "recover", "--compare", str(cluster.node_dir(last)))
        made = cli(capsys, "data", "recover", str(cluster.node_dir(last)), "--yes")
        assert made["committed"] == told["committed"]
        cluster.start(last)
        until(lambda: (cluster.status(last) or {}).get("leader") == last, "it leads")

        def held() -> dict[bytes, bytes]:
            with raftckpt.connect(cluster.endpoint(last), session=False) as service:
                return dict(service.view("load").read_all())

        history.judge(held(), told["committed"]["revision"])
        with raftckpt.connect(cluster.endpoint(last)) as service:
            service.open("load").put("after", b"it goes on")
        history.tried[b"after"] = b"it goes on"
        for node in ("n1", "n3"):  # old directories, one by one
            cluster.start(node)
            until(
                lambda n=node: any(
                    each.startswith(n) and "that this one was made of" in each
                    for each in cluster.status(last)["alarms"]
                ),
                "the old one is told",
            )
            until(lambda n=node: "founded twice" in cluster.log(n), "and knows it")
            assert (cluster.status(node) or {}).get("leader") != node
            assert cluster.status(last)["leader"] == last
            history.judge(held(), told["committed"]["revision"])
            cluster.kill(node)
            shutil.rmtree(cluster.node_dir(node))
            with raftckpt.connect(cluster.endpoint(last), session=False, timeout=30) as service:
                service.add_member(
                    node,
                    peer=cluster.peer_endpoint(node),
                    client=cluster.endpoint(node),
                    token=f"token-of-{node}",
                )
            cluster._start(node, "--join", f"token-of-{node}")
            until(lambda n=node: cluster.arrived(n), f"{node} votes")
        cluster.wait_ready()
        with raftckpt.connect(cluster.endpoints) as service:
            report = service.check(timeout=30)
            assert set(report.digests) == {"n1", "n2", "n3"}
            assert len(set(report.digests.values())) == 1
            assert service.open("load").read("after") == b"it goes on"

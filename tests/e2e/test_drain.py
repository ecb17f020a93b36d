"""A member that is drained leads no more, whatever is restarted, unless nobody else can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from raftckpt_cli import main as cli_main

import raftckpt
from raftckpt.testing import LocalCluster
from tests.admin import get, metric, with_admin
from tests.waiting import PATIENCE, until


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = with_admin(LocalCluster(3, tmp_path / "cluster", faults=False))
    cluster.start()
    cluster.wait_ready()
    yield cluster
    cluster.kill()
    cluster.stop()


def said(capfd: pytest.CaptureFixture[str], cluster: LocalCluster, *words: str) -> tuple[int, str]:
    capfd.readouterr()
    code = cli_main.run(["cluster", *words, "--endpoints", cluster.endpoints, "--timeout", "20"])
    told = capfd.readouterr()
    return code, told.out + told.err


def test_it_leads_no_more_until_it_is_undrained(cluster, capfd) -> None:
    first = cluster.leader()
    with raftckpt.connect(cluster.endpoints, timeout=PATIENCE) as service:
        checkpoint = service.open("c", create=raftckpt.Attributes())
        code, told = said(capfd, cluster, "drain", first)
        assert (code, f"{first} is drained" in told) == (0, True)
        second = cluster.leader()
        assert second != first
        checkpoint.put("k", b"written under the next one")
        assert "drained" in said(capfd, cluster, "members")[1]
        assert f"{first} is drained" in said(capfd, cluster, "status")[1]
        assert "drained" in get(cluster, second, "/")[1]
        until(lambda: metric(cluster, first, "raftckpt_drained") == 1, "it is told")
        code, told = said(capfd, cluster, "transfer", first)
        assert code != 0
        assert f"cluster drain {first} --off" in told
        cluster.kill(*cluster.nodes)
        cluster.start()
        cluster.wait_ready()
        for _ in range(2):  # restarts, and the death of who leads, change nothing
            leader = cluster.leader()
            assert leader != first
            cluster.kill(leader)
            third = cluster.leader(PATIENCE)
            assert third not in (first, leader)
            cluster.start(leader)
            cluster.wait_ready()
        code, told = said(capfd, cluster, "drain", first, "--off")
        assert (code, "may lead again" in told) == (0, True)
        assert said(capfd, cluster, "transfer", first)[0] == 0
        assert cluster.leader() == first
        assert checkpoint.read("k") == b"written under the next one"


def test_nobody_is_drained_when_no_other_could_lead(cluster, capfd) -> None:
    leader = cluster.leader()
    others = [node for node in cluster.nodes if node != leader]
    code, told = said(capfd, cluster, "drain", "n9")
    assert (code, "n9 is no member" in told) == (1, True)
    for node in others:
        assert said(capfd, cluster, "drain", node)[0] == 0
    code, told = said(capfd, cluster, "drain", leader)
    assert code == 1
    assert "no other voter could lead" in told
    assert f"{others[0]} is drained" in told
    # should all the others fail, a drained one is better than none, until another one can
    cluster.kill(leader)
    last = cluster.leader(PATIENCE)
    assert last in others
    assert "nobody else can" in said(capfd, cluster, "status")[1]
    cluster.start(leader)
    until(lambda: cluster.leader(PATIENCE) == leader, "who is not drained leads again")


def test_who_has_no_vote_is_not_handed_leadership_and_told_why(cluster, capfd) -> None:
    leader = cluster.leader()
    with raftckpt.connect(cluster.endpoints, timeout=PATIENCE) as service:
        at = {"peer": "127.0.0.1:1", "client": "127.0.0.1:2"}
        service.add_member("n4", **at, token="secret-of-n4", learner=True)
    code, told = said(capfd, cluster, "transfer", "n4")
    assert code != 0
    assert "n4 is no voter" in told
    follower = next(node for node in cluster.nodes if node != leader)
    cluster.kill(follower)
    code, told = said(capfd, cluster, "transfer", follower)
    assert code != 0
    assert "not connected" in told
    assert cluster.leader() == leader

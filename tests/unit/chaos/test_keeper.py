"""Who is started again, who is told of, and who is left alone."""

from __future__ import annotations

import signal

import pytest

from raftckpt.chaos.keeper import ENDS_MAX, Keeper, state_of
from raftckpt.process.main import EXIT_DISK, EXIT_FAILED, EXIT_REFUSED
from tests.unit.chaos.fake_cluster import FakeCluster

KILLED = -signal.SIGKILL


@pytest.fixture
def cluster(monkeypatch) -> FakeCluster:
    monkeypatch.setattr("raftckpt.chaos.keeper._RETRY_S", 0.0)
    return FakeCluster()


@pytest.mark.parametrize("code", [KILLED, -signal.SIGTERM, 0])
def test_what_was_killed_or_stopped_is_started_again(cluster, code) -> None:
    keeper = Keeper(cluster, "n3")
    for _ in range(2 * ENDS_MAX):
        cluster.codes["n1"] = code
        keeper.restart()
    assert cluster.started == ["n1"] * 2 * ENDS_MAX
    assert keeper.problems == []


@pytest.mark.parametrize("code", [EXIT_FAILED, EXIT_DISK, EXIT_REFUSED, -signal.SIGSEGV])
def test_what_ended_by_itself_is_told_of_though_it_is_started_again(cluster, code) -> None:
    keeper = Keeper(cluster, "n3")
    cluster.codes["n1"] = code
    keeper.restart()
    assert cluster.started == ["n1"]
    assert keeper.problems == [f"replica n1 ended by itself with {code}: log of n1"]


@pytest.mark.parametrize("code", [EXIT_DISK, EXIT_REFUSED])
def test_a_full_disk_excuses_one_end_of_its_replica(cluster, code) -> None:
    keeper = Keeper(cluster, "n3")
    keeper.disk_filled()
    for problems in (0, 1):
        cluster.codes["n3"] = code
        keeper.restart()
        assert len(keeper.problems) == problems
    assert cluster.started == ["n3", "n3"]


@pytest.mark.parametrize(("node", "code"), [("n1", EXIT_DISK), ("n3", EXIT_FAILED)])
def test_a_full_disk_excuses_nothing_else(cluster, node, code) -> None:
    keeper = Keeper(cluster, "n3")
    keeper.disk_filled()
    cluster.codes[node] = code
    keeper.restart()
    assert len(keeper.problems) == 1


def test_what_died_late_is_started_and_waited_for(cluster) -> None:
    keeper = Keeper(cluster, "n3")
    keeper.disk_filled()
    cluster.fate["n3"] = [EXIT_DISK]  # after it was seen running
    assert keeper.recover(60.0)
    assert cluster.started == ["n3"]
    assert cluster.waited_for[-1] == ["n1", "n2", "n3"]
    assert keeper.problems == []


def test_what_never_runs_is_left_alone_and_the_others_are_waited_for(cluster) -> None:
    keeper = Keeper(cluster, "n3")
    cluster.fate["n2"] = [126] * 100
    assert not keeper.recover(60.0)
    assert len(keeper.problems) == ENDS_MAX
    assert cluster.waited_for[-1] == ["n1", "n3"]
    keeper.restart()
    assert len(cluster.started) == ENDS_MAX - 1
    assert len(keeper.problems) == ENDS_MAX


def test_nobody_is_waited_for_beyond_the_time(cluster) -> None:
    cluster.codes["n1"] = KILLED
    assert not Keeper(cluster, "n3").recover(0.0)
    assert cluster.started == ["n1"]
    assert cluster.waited_for == []


def test_the_state_of_what_cannot_be_asked(cluster) -> None:
    cluster.codes["n1"] = 126
    assert state_of(cluster, "n1") == "it does not run: it ended with 126: log of n1"
    assert state_of(cluster, "n2") == "it runs and does not answer"
    cluster.status = lambda node: {"role": "follower", "leader": None, "applied": 7}
    assert state_of(cluster, "n2") == "it is follower, its leader is None, applied 7"

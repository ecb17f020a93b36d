"""The audit of a cluster in which somebody cannot be asked: the others are, and it is named."""

from __future__ import annotations

import pytest

from raftckpt.chaos.audit import audit
from raftckpt.chaos.history import Kind, Operation, SectionPart
from raftckpt.chaos.worker import LASTING_NAMES, LEDGER, LOG
from raftckpt.errors import Timeout, Unavailable
from raftckpt.protocol import operations as ops
from tests.unit.chaos.fake_cluster import FakeCluster

UID = 100 + LASTING_NAMES.index(LEDGER)


def put(number: int, section: str) -> Operation:
    part = SectionPart(section, 0, section.encode())
    return Operation("c1.1", number, Kind.PUT, UID, (part,), revision=10 + number)


HISTORY = [put(1, "a"), put(2, "b")]


class AuditedCluster(FakeCluster):
    """Its replicas hold sections of the ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.held = {node: {"a": 11, "b": 12} for node in self.nodes}
        self.logs: dict[str, bytes] = {}
        self.silent: set[str] = set()
        self.breaks: set[str] = set()

    def digests(self, endpoints, leader, *, timeout):
        assert not set(endpoints) & set(self.codes)
        return 77, {
            node: None if node in self.silent else str(self.held[node]) for node in endpoints
        }


class FakeProbe:
    def __init__(self, cluster: AuditedCluster, node: str) -> None:
        self._cluster, self._node = cluster, node

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def call(self, record, _id, _consistency, name, *_args):
        if self._node in self._cluster.breaks and name == LASTING_NAMES[-1]:
            raise Unavailable("it went away")
        held = self._cluster.held[self._node] if name == LEDGER else {}
        if record is ops.Status:
            return None, [100 + LASTING_NAMES.index(name)]
        if name == LOG:
            held = {"log": 13}
        if record is ops.ReadAll:
            log = self._cluster.logs.get(self._node, b"<1><2>")
            return 20, [(s.encode(), log if s == "log" else s.encode()) for s in held]
        assert record is ops.Sections
        return None, [(s.encode(), 0, 0, 0, 0, revision) for s, revision in held.items()]


@pytest.fixture
def cluster(monkeypatch) -> AuditedCluster:
    built = AuditedCluster()
    monkeypatch.setattr("raftckpt.chaos.audit.replica_digests", built.digests)
    monkeypatch.setattr(
        "raftckpt.chaos.audit.ReplicaProbe", lambda endpoint, timeout: FakeProbe(built, endpoint)
    )
    return built


def test_everybody_has_everything(cluster) -> None:
    found = audit(cluster, HISTORY)
    assert (found.audited, found.lost_count, found.equal) == (2, 0, True)
    assert found.audited_on == ["n1", "n2", "n3"]
    assert found.not_audited == {}


def test_a_replica_that_does_not_run_is_named_and_the_others_are_audited(cluster) -> None:
    cluster.codes["n2"] = 126
    found = audit(cluster, HISTORY)
    assert (found.audited, found.lost_count, found.equal) == (2, 0, None)
    assert found.audited_on == ["n1", "n3"]
    assert list(found.not_audited) == ["n2"]
    assert "ended with 126: log of n2" in found.not_audited["n2"]


def test_a_replica_that_runs_and_tells_no_digest_is_named(cluster) -> None:
    cluster.silent.add("n1")
    found = audit(cluster, HISTORY)
    assert found.audited_on == ["n2", "n3"]
    assert found.equal is None
    assert found.not_audited == {
        "n1": "no digest as of entry 77: it runs and does not answer",
    }


def test_what_is_missing_on_the_others_is_found(cluster) -> None:
    cluster.codes["n2"] = 126
    del cluster.held["n3"]["b"]
    found = audit(cluster, HISTORY)
    assert found.lost_count == 1
    assert "on n3 the section is missing" in found.lost[0]
    assert found.equal is False


def test_a_replica_that_goes_away_during_its_audit_is_named(cluster) -> None:
    cluster.breaks.add("n1")
    found = audit(cluster, HISTORY)
    assert found.audited_on == ["n2", "n3"]
    assert "it went away" in found.not_audited["n1"]
    assert found.equal is True


@pytest.mark.parametrize("why", ["no leader", "no check", "nobody tells"])
def test_where_nothing_was_audited_nobody_knows_what_is_lost(cluster, why, monkeypatch) -> None:
    def refuse(*_args, **_named):
        raise Timeout("no check")

    if why == "no leader":
        cluster.led = False
    elif why == "no check":
        monkeypatch.setattr("raftckpt.chaos.audit.replica_digests", refuse)
    else:
        cluster.silent |= set(cluster.nodes)
    found = audit(cluster, HISTORY)
    assert (found.audited, found.lost_count, found.equal) == (0, None, None)
    assert list(found.not_audited) == cluster.nodes
    assert all(
        each.endswith(": it runs and does not answer") for each in found.not_audited.values()
    )


def test_appends_are_looked_for_where_they_were_told_to_be(cluster) -> None:
    uid = 100 + LASTING_NAMES.index(LOG)
    parts = SectionPart("log", 0, b"<1>"), SectionPart("log", 0, b"<2>")
    appends = [
        Operation("c1", at, Kind.APPEND, uid, (part,), revision=12 + at, results=(3 * at,))
        for at, part in enumerate(parts)
    ]
    found = audit(cluster, appends)
    assert (found.audited, found.lost_count) == (2, 0)
    cluster.logs["n2"] = b"<1>???"
    cluster.logs["n3"] = b"<1>"
    (lost,) = audit(cluster, appends).lost
    assert "append of log" in lost
    assert "on n3" in lost  # the last that was looked at


def test_sections_that_a_transaction_deleted_are_not_missed(cluster) -> None:
    uid = 100 + LASTING_NAMES.index(LOG)
    parts = SectionPart("a", 0, b"", Kind.DELETE), SectionPart("c", 0, b"", Kind.PUT)
    put = Operation("c1", 2, Kind.PUT, uid, (SectionPart("a"),), revision=12)
    transaction = Operation("c1", 3, Kind.TRANSACTION, uid, parts, revision=13)
    (lost,) = audit(cluster, [put, transaction]).lost
    assert "transaction of c" in lost

"""Whom a replica takes for a peer, and what it remembers of it. No links, no log."""

from __future__ import annotations

import pytest

from raftckpt.raft.configuration import encode_configuration
from raftckpt.raft.founding import FoundingState
from raftckpt.raft.hello import Hello
from raftckpt.raft.messages import KINDS, Echo, Noted, PeerProtocolError, encode, join_bodies
from raftckpt.raft.peering import Peering, StartRefused
from raftckpt.raft.port import PeerInfo
from raftckpt.raft.settings import RaftConfig
from raftckpt.storage import Foreign, RealFileSystem
from tests.directories import FOUNDING, found, founding_of, named_directory

NODES = ["n1", "n2", "n3"]


class Lone:
    """The peering of n1, and what it did."""

    def __init__(self, path, *, founded: bool = True) -> None:
        self.directory = named_directory(RealFileSystem(), str(path), "test", "n1")
        self.founding = founding_of("test", NODES, level=1)
        if founded and not self.directory.founded:
            found(self.directory, self.founding)
        self.sent: list[tuple[str, bytes]] = []
        self.failures: list[BaseException] = []
        self.changes = 0
        self.peering = Peering(
            self.directory,
            RaftConfig("n1:1", "n1:2", (1, 2)),
            NODES,
            alone=False,
            founding_id=lambda: FOUNDING,
            send=lambda to, body: self.sent.append((to, body)),
            changed=self._changed,
            failed=self.failures.append,
        )

    def _changed(self) -> None:
        self.changes += 1

    def hello(self, **fields: object) -> Hello:
        """What n2 says of itself."""
        said = Hello(
            [1, 2], self.peering.hello().protocol, "test", "n2", "n2", 3, "run of n2",
            self.directory.identity.founding, "", "n2:1", "n2:2", 4, 10,
        )  # fmt: skip
        return said._replace(**fields)


@pytest.fixture
def lone(tmp_path) -> Lone:
    return Lone(tmp_path)


def test_it_says_of_itself_what_is_on_its_disk(lone):
    said = lone.peering.hello()
    assert (said.cluster, said.node, said.directory) == ("test", "n1", "n1")
    assert (said.founding, said.joins, said.peer, said.client) == (FOUNDING, "", "n1:1", "n1:2")
    assert (said.incarnation, said.run) == (
        lone.directory.notes.incarnation,
        lone.directory.notes.run,
    )
    assert lone.peering.founded


def test_who_is_not_founded_says_no_founding(tmp_path):
    lone = Lone(tmp_path, founded=False)
    assert lone.peering.hello().founding == ""
    assert not lone.peering.founded
    assert lone.peering.verdict().outcome is not FoundingState.COMPLETE


def test_a_stranger_of_the_same_founding_gets_a_link(lone):
    """It may be a member of a configuration that has not come here yet."""
    lone.peering.configured(lone.founding)
    assert lone.peering.objection(lone.hello(node="n9", directory="n9")) == (None, False)


def test_a_member_does_not_speak_for_the_directory_of_another(lone):
    """Its certificate binds its name, and the configuration binds the name to a directory."""
    lone.peering.configured(lone.founding)
    why, fatal = lone.peering.objection(lone.hello(node="n3", incarnation=99))
    assert why == "its data directory is that of the member n2"
    assert not fatal
    assert lone.peering.objection(lone.hello()) == (None, False)


def test_another_founding_is_an_alarm_until_it_is_gone(lone):
    why, fatal = lone.peering.objection(lone.hello(founding="e" * 32))
    assert "founded twice" in why
    assert not fatal
    assert lone.peering.alarms() == [f"n2: {why}"]
    assert lone.peering.objection(lone.hello()) == (None, False)
    lone.peering.remember(lone.hello())
    assert lone.peering.alarms() == []


@pytest.mark.parametrize(
    "again", [{"incarnation": 2}, {"run": "another"}], ids=["an earlier start", "a copy"]
)
def test_a_start_that_went_back_must_stop(lone, again):
    lone.peering.remember(lone.hello())
    why, fatal = lone.peering.objection(lone.hello(**again))
    assert why
    assert fatal
    assert lone.peering.objection(lone.hello()) == (None, False)
    assert lone.peering.objection(lone.hello(incarnation=4, run="the next")) == (None, False)


def test_what_was_met_is_remembered_by_the_next_start(tmp_path):
    first = Lone(tmp_path)
    first.peering.remember(first.hello())
    first.directory.close()
    again = Lone(tmp_path)
    assert again.peering.objection(again.hello(incarnation=2))[1]


def test_members_and_linked_peers_are_dialled_where_they_say_they_are(lone):
    lone.peering.configured(lone.founding)
    assert lone.peering.targets() == {("n2", "n2:1"), ("n3", "n3:1")}
    lone.peering.connected(PeerInfo("n2", "n2", "", "moved:1", "moved:2", 1, 2))
    assert ("n2", "moved:1") in lone.peering.targets()
    assert lone.peering.level == 1


def test_before_the_log_is_open_only_the_founding_is_heard(tmp_path):
    lone = Lone(tmp_path, founded=False)
    lone.peering.connected(PeerInfo("n2", "n2", "", "n2:1", "n2:2", 1, 2))
    changes = lone.changes
    for body in join_bodies([encode(Echo(KINDS[Echo], 1, 1, 0))]):
        lone.peering.receive("n2", body)
    assert lone.changes == changes + 1
    assert lone.failures == []


def test_a_note_that_is_none_closes_the_link_and_stops_nobody(tmp_path):
    lone = Lone(tmp_path, founded=False)
    lone.peering.connected(PeerInfo("n2", "n2", "", "n2:1", "n2:2", 1, 2))
    (body,) = join_bodies([encode(Noted(KINDS[Noted], 1, b"nonsense", True))])
    with pytest.raises(PeerProtocolError):
        lone.peering.receive("n2", body)
    assert lone.failures == []
    assert not lone.peering.founded


def test_a_disk_that_fails_while_founding_stops_the_replica(tmp_path, monkeypatch):
    lone = Lone(tmp_path, founded=False)

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(lone.directory, "note_offer", fails)
    monkeypatch.setattr(lone.directory, "note_complete", fails)
    record = founding_of("test", NODES, level=1)
    others = [PeerInfo(n, n, "", f"{n}:1", f"{n}:2", 1, 2) for n in ("n2", "n3")]
    for info in others:
        lone.peering.connected(info)
    for info in others:
        note = Noted(KINDS[Noted], 1, encode_configuration(record), True)
        for body in join_bodies([encode(note)]):
            lone.peering.receive(info.directory, body)
    assert any(isinstance(error, OSError) for error in lone.failures)


def test_being_told_to_stop_stops(lone):
    lone.peering.configured(lone.founding)
    lone.peering.refused("n9", "a copy runs elsewhere")
    (failure,) = lone.failures
    assert isinstance(failure, StartRefused)
    assert str(failure) == "a copy runs elsewhere"
    assert lone.directory.notes.set_back == ""  # n9 is no member


def test_what_a_member_says_of_this_directory_is_never_forgotten(tmp_path):
    """Each start counts: started again and again, a copy would pass for the newest."""
    lone = Lone(tmp_path)
    lone.peering.configured(lone.founding)
    lone.peering.refused("n2", "its data directory went back in time")
    lone.directory.close()
    for _ in range(3):
        with pytest.raises(Foreign, match="n2 says: its data directory went back in time"):
            Lone(tmp_path)


def test_a_directory_of_the_cluster_that_this_one_was_made_of_is_told_so(tmp_path):
    lone = Lone(tmp_path, founded=False)
    parent = "a" * 32
    found(lone.directory, lone.founding._replace(parent=parent))
    why, fatal = lone.peering.objection(lone.hello(founding=parent))
    assert "of the cluster that this one was made of" in why
    assert "raftckpt cluster add n2" in why
    assert not fatal
    assert lone.peering.alarms() == [f"n2: {why}"]
    why, _ = lone.peering.objection(lone.hello(founding="b" * 32))
    assert "founded twice" in why
    why, _ = lone.peering.objection(lone.hello(founding=parent, cluster="other"))
    assert "it belongs to cluster 'other'" in why

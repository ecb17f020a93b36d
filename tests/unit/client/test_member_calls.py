"""Calls of an operator: members, level, alarms, as they go out."""

from __future__ import annotations

import hashlib

import pytest

from raftckpt.client import operations
from raftckpt.client.calls import Needs
from raftckpt.client.types import ClusterStatus, MemberRecord, ReplicaStatus
from raftckpt.errors import InvalidParam, TryAgain
from raftckpt.protocol import operations as ops


def test_a_place_carries_the_hash_of_its_token_only() -> None:
    call = operations.add_member("n4", "h:1", "h:2", "the-secret", learner=False, replaces="n2")
    message = call.message
    assert call.needs is Needs.LEADER
    assert isinstance(message, ops.MemberAdd)
    assert message.token_hash == hashlib.sha256(b"the-secret").hexdigest()
    assert (message.node, message.peer, message.client) == ("n4", "h:1", "h:2")
    assert (message.promote, message.replaces) == (True, "n2")
    learner = operations.add_member("n4", "h:1", "h:2", "the-secret", learner=True, replaces=None)
    assert isinstance(learner.message, ops.MemberAdd)
    assert not learner.message.promote


@pytest.mark.parametrize(
    "token",
    ["", "rejoin", "-starts-so", "with a space", "line\nfeeds", "gr\u00fcezi-zusammen", "t" * 301],
)
def test_what_cannot_be_typed_or_is_soon_guessed_is_no_token(token: str) -> None:
    with pytest.raises(InvalidParam, match="a token has 8 to 300 visible ASCII characters"):
        operations.add_member("n4", "h:1", "h:2", token, learner=False, replaces=None)
    assert operations.join_token("t" * 300)


def test_whom_the_others_ask() -> None:
    removal, pin, clear = (
        operations.remove_member("n2"),
        operations.pin_level(True),
        operations.clear_alarms(),
    )
    assert (removal.needs, removal.message) == (Needs.LEADER, ops.MemberRemove(0, "n2"))
    assert (pin.needs, pin.message) == (Needs.LEADER, ops.LevelPin(0, True))
    assert (clear.needs, clear.message) == (Needs.ANY, ops.AlarmClear(0))
    assert all(call.decode("done") is None for call in (removal, pin, clear))


def test_members_are_those_the_leader_has_in_force() -> None:
    row = {"node": "n1", "client": "h:1", "peer": "h:2", "voter": True, "directory": "d1"}
    place = {**row, "node": "n2", "voter": False, "directory": "", "promote": True}
    said = [
        ReplicaStatus("n1", "h:1", True, term=2, leader="n1", detail={"members": [row, place]}),
        ReplicaStatus("n2", "h:3", True, term=1, leader="n2", detail={"members": []}),
    ]
    assert MemberRecord.all_in(ClusterStatus.of(said)) == (
        MemberRecord("n1", "h:1", "h:2", "voter", "d1"),
        MemberRecord("n2", "h:1", "h:2", "learner", ""),
    )
    with pytest.raises(TryAgain, match="nobody leads"):
        MemberRecord.all_in(ClusterStatus.of([ReplicaStatus("n3", "h:4", True, term=3)]))
    gone = ReplicaStatus("n1", "h:1", False)
    follower = ReplicaStatus("n3", "h:4", True, term=3, leader="n1")
    with pytest.raises(TryAgain, match="could not be asked"):
        MemberRecord.all_in(ClusterStatus.of([gone, follower]))

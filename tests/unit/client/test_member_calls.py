"""Calls of an operator: members, level, alarms, as they go out."""

from __future__ import annotations

import hashlib

from raftckpt.client import operations
from raftckpt.client.calls import Needs
from raftckpt.protocol import operations as ops


def test_a_place_carries_the_hash_of_its_token_only() -> None:
    call = operations.add_member("n4", "h:1", "h:2", "secret", learner=False, replaces="n2")
    message = call.message
    assert call.needs is Needs.LEADER
    assert isinstance(message, ops.MemberAdd)
    assert message.token_hash == hashlib.sha256(b"secret").hexdigest()
    assert (message.node, message.peer, message.client) == ("n4", "h:1", "h:2")
    assert (message.promote, message.replaces) == (True, "n2")
    learner = operations.add_member("n4", "h:1", "h:2", "secret", learner=True, replaces=None)
    assert isinstance(learner.message, ops.MemberAdd)
    assert not learner.message.promote


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

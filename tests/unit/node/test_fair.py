"""Owners are served in turns, their items in order."""

from __future__ import annotations

from raftckpt.node.fair import FairQueue


def test_turns() -> None:
    queue: FairQueue[str, int] = FairQueue()
    for number in range(4):
        queue.push("many", number)
    queue.push("one", 7)
    assert [queue.pop() for _ in range(3)] == [("many", 0), ("one", 7), ("many", 1)]
    queue.push("one", 8)
    assert [queue.pop() for _ in range(2)] == [("many", 2), ("one", 8)]
    assert queue
    assert queue.drain() == [("many", 3)]
    assert not queue

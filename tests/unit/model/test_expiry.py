"""The due index against a sorted dict, and its bounds."""

from __future__ import annotations

import random

from raftckpt.model.expiry import RETENTION, DueIndex


def test_comes_out_in_order_whatever_happened() -> None:
    rng = random.Random(1)
    index, plain = DueIndex(), dict[tuple[int, bytes], int]()
    for _ in range(20_000):
        key = (rng.randrange(5), bytes([rng.randrange(40)]) if rng.random() < 0.9 else RETENTION)
        action = rng.randrange(100)
        if action < 55:
            due = rng.randrange(50)
            index.schedule(due, *key)
            plain[key] = due
        elif action < 85:
            index.cancel(*key)
            plain.pop(key, None)
        elif action < 86:
            gone = index.cancel_all(key[0])
            assert set(gone) == {section_id for uid, section_id in plain if uid == key[0]}
            plain = {k: due for k, due in plain.items() if k[0] != key[0]}
        else:
            first = min(((due, *k) for k, due in plain.items()), default=None)
            assert index.first() == first
            if first is not None and action < 95:
                index.pop()
                del plain[first[1:]]
        assert index.count == len(plain)


def test_dead_entries_do_not_pile_up() -> None:
    index = DueIndex()
    for section in range(1000):
        index.schedule(5, 1, section.to_bytes(2, "big"))
    for turn in range(60_000):  # also set back and forth between two times
        index.schedule(10 + turn % 2, 1, (turn % 1000).to_bytes(2, "big"))
        assert len(index) < 4 * index.count + 1024
    for section in range(1000):
        index.cancel(1, section.to_bytes(2, "big"))
    for _ in range(2000):
        index.schedule(7, 1, b"x")
        index.cancel(1, b"x")
    assert len(index) < 1024
    assert index.first() is None
    index.pop()
    assert index.count == 0

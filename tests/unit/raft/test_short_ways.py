"""What every write takes has a short way; it must lead where the long one does."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest

from raftckpt.raft import messages as m
from raftckpt.raft.configuration import CONFIGURATION, NO_OP, REGULAR
from raftckpt.raft.engine import Engine
from tests.sim.bench import OurBench
from tests.unit.raft.conftest import Make


def state_of(bench: OurBench) -> list[Any]:
    engine = bench.node._engine
    return [
        list(engine.log), engine.commit, engine.applied, engine.term, engine.role, engine.leader,
        engine._SyncObj__leaderCommitIndex, engine._SyncObj__raftElectionDeadline,
        engine.log.extra, bench.values,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_an_append_at_the_end_does_what_pysyncobj_does_with_it(
    make: Make, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    short, long = make("short"), make("long")
    extended = 0
    follows = Engine.follows

    def only_the_short(self: Engine, node: str) -> bool:
        nonlocal extended
        found = self is short.node._engine and follows(self, node)
        extended += found
        return found

    monkeypatch.setattr(Engine, "follows", only_the_short)
    dice = random.Random(seed)
    leader, term, last, commit, last_term = "b", 1, 1, 1, 0
    for _ in range(80):
        kind = dice.random()
        if kind < 0.1:  # another leader, who may not have all that is not committed
            leader, term = dice.choice("bc"), term + 1
            last = dice.randint(commit, last)
            log = short.node._log
            last_term = log[last - log[0][1]][2]
        count = dice.choice((0, 1, 1, 1, 3))
        entries = [(last + 1 + i, term, f"{last + 1 + i}/{term}") for i in range(count)]
        if kind > 0.95 and entries:
            entries[0] = (last + 1, term, None)
        says = dice.randint(commit, last + count + dice.choice((0, 0, 2)))
        lost = kind > 0.9  # one that came before it did not arrive
        prev = (short.last + 2, term) if lost else (last, last_term)
        for each in (short, long):
            each.append(leader, term, prev, [] if lost else entries, min(says, last))
        assert state_of(short) == state_of(long)
        assert [s[:2] for s in short.sent()] == [s[:2] for s in long.sent()]
        if not lost:
            commit = max(commit, min(says, last))
            last, last_term = last + count, term if count else last_term
    assert extended > 20


@pytest.mark.parametrize("seed", range(4))
def test_an_ack_does_what_pysyncobj_does_with_it(bench: OurBench, seed: int) -> None:
    """But for what was sent beyond it, which is not sent again."""
    bench.lead()
    engine, dice = bench.node._engine, random.Random(seed)
    match, nexts = engine._SyncObj__raftMatchIndex, engine._SyncObj__raftNextIndex
    peer = engine.peer("b")
    for _ in range(60):
        following, sent = dice.randint(2, 12), dice.randint(2, 12)
        held = dice.randint(0, sent - 1)
        found = []
        for short in (True, False):
            match[peer], nexts[peer] = held, sent
            if short:
                assert engine.holds("b", following) == nexts[peer]
            else:
                answer = {"next_node_idx": following, "reset": False, "success": True}
                engine.deliver("b", {"type": "next_node_idx", **answer})
                engine.set_next_index("b", max(nexts[peer], sent))
            found.append((match[peer], nexts[peer]))
        assert found[0] == found[1]


def body_of(message: Any) -> bytes:
    return b"\x00\x91" + msgpack.packb(message, use_bin_type=True)


def decoded(body: bytes) -> Any:
    try:
        return m.decode_body(body)
    except m.PeerProtocolError as error:
        return str(error)


ODD = [
    0, 1, -1, 2, 7, True, False, None, 1.0, "x", b"x", b"", [], [1], {}, m.TERM_MAX, m.TERM_MAX + 1,
    (1 << 63) - 1, 1 << 63, [[b"p", 6, 3]], [["p", 6, 3]], [[b"", 6, 3]], [[b"p", 5, 3]],
    [[b"p", 6, 9]], [[b"p", 6, 3], [b"q", 7, 2]], [[CONFIGURATION + b"?", 6, 3]],
    [[NO_OP, 6, 3, 1]],
]  # fmt: skip


@pytest.mark.parametrize(
    "sample",
    [
        [13, 3, 7, True, False, 5, 123],
        [1, 3, 7, 2, 5, 2, [[REGULAR + b"x", 6, 2], [REGULAR + b"y", 7, 3]]],
        [1, 3, 7, 2, 5, 2, []],
    ],
)
def test_what_is_decoded_in_one_go_is_what_is_decoded_piece_by_piece(
    sample: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = [sample, sample[:-1], [*sample, 0]]
    for position in range(1, len(sample)):
        spoiled += [[*sample[:position], odd, *sample[position + 1 :]] for odd in ODD]
    bodies = [body_of(message) for message in spoiled]
    bodies += [bodies[0] + b"\x00", bodies[0][:-1], body_of(sample) + body_of(sample)[2:]]
    at_once = [decoded(body) for body in bodies]
    monkeypatch.setattr(m, "_decode_frequent", lambda body, head: None)
    assert at_once == [decoded(body) for body in bodies]
    assert type(at_once[0]) is list
    assert sum(type(found) is str for found in at_once) > 50

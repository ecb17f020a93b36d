"""Scenarios on the whole service that random runs do not reach: what the log makes of old attempts.

The leader's own order check is by-passed: entries are proposed as a broken or former leader might
have, and the replicated machine alone must keep every request at most once and in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from raftckpt.client.types import Attributes
from raftckpt.errors import SaAisError
from raftckpt.protocol.batch import encode_batch
from tests.messages import Tag
from tests.sim.process import Process
from tests.sim.service import ServiceWorld

OK = int(SaAisError.OK)


class Log:
    """A calm service without clients, and a hand that writes into its log."""

    def __init__(self) -> None:
        self.world = ServiceWorld(1, families=set(), size=3)
        self.world.snapshot_entries = 100_000

    def leader(self) -> Process:
        end = self.world.queue.now + 5.0
        while True:
            for process in self.world.processes.values():
                if process.up and process.leads and process.machine.leading:
                    return process
            assert self.world.queue.now < end
            self.world.advance(0.01)

    def propose(self, *commands: list[Any]) -> None:
        """Commit one entry with these commands, past the replica's own checks."""
        leader = self.leader()
        truth = self.world.truth.machine
        before = truth.applied_index
        time = leader.machine.situation.leadership.time
        payload = encode_batch(time.stamp(leader.machine.monotonic()), commands)
        leader._ask(lambda: leader.node.propose(payload, None))
        end = self.world.queue.now + 5.0
        while truth.applied_index == before:
            assert self.world.queue.now < end
            self.world.advance(0.01)

    def session(self) -> tuple[int, int]:
        """A new session with a checkpoint open: (session, handle). Its next sequence is 2."""
        self.propose([int(Tag.SESSION_OPEN), 0, 0, 0, bytes(16), "old", "n1", 10**10, 10**9])
        session = next(iter(self.world.truth.machine.sessions))
        self.propose([int(Tag.CHECKPOINT_OPEN), session, 1, 0, "c", 7, Attributes().to_wire()])
        (handle,) = self.world.truth.machine.sessions[session].handles
        return session, handle

    def content(self) -> list[dict[bytes, bytes]]:
        """Sections of the checkpoint, on each replica."""
        self.world.advance(0.5)
        return [
            {key: bytes(s[0]) for key, s in p.machine.machine.names["c"].sections.items()}
            for p in self.world.processes.values()
        ]


@contextmanager
def log() -> Iterator[Log]:
    built = Log()
    with built.world.scripted():
        yield built


def put(session: int, sequence: int, answered: int, handle: int, data: bytes) -> list[Any]:
    return [int(Tag.SECTION_PUT), session, sequence, answered, handle, b"s", data]


def test_old_attempt_after_the_watermark_passed_it_does_nothing() -> None:
    """(9) the client saw reply 2 and said so; then a former leader's copy of it commits."""
    with log() as s:
        session, handle = s.session()
        s.propose(put(session, 2, 1, handle, b"two"))
        s.propose(put(session, 3, 2, handle, b"three"))
        revision = s.world.truth.machine.revision
        s.propose(put(session, 2, 1, handle, b"two"))
        assert s.world.truth.machine.revision == revision
        assert s.content() == [{b"s": b"three"}] * 3


@pytest.mark.parametrize("together", [False, True])
def test_replay_in_wrong_order_is_put_right(together: bool) -> None:
    """(9) 4 before 3: it is refused without being recorded, and done when its turn comes."""
    with log() as s:
        session, handle = s.session()
        two, three, four = (
            put(session, number, 1, handle, data)
            for number, data in ((2, b"two"), (3, b"three"), (4, b"four"))
        )
        orders = [[two, four, three, four]] if together else [[two], [four], [three], [four]]
        for commands in orders:
            s.propose(*commands)
        assert s.world.truth.machine.sessions[session].last_sequence == 4
        assert s.content() == [{b"s": b"four"}] * 3


def test_repeats_of_everything_change_nothing() -> None:
    """(9) a whole window replayed to the next leader: each request has had its effect."""
    with log() as s:
        session, handle = s.session()
        commands = [put(session, n, 1, handle, b"%d" % n) for n in range(2, 12)]
        s.propose(*commands)
        revision = s.world.truth.machine.revision
        s.leader().transfer(None)
        s.world.advance(1.0)
        s.propose(*commands)
        assert s.world.truth.machine.revision == revision
        assert s.content() == [{b"s": b"11"}] * 3

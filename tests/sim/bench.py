"""Our node on the lab bench of the stock one (:mod:`tests.sim.plain`): puppets, still clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgpack

from raftckpt.raft.configuration import NO_OP, REGULAR, Configuration
from raftckpt.raft.engine import open_log
from raftckpt.raft.messages import (
    KINDS,
    Ack,
    Append,
    PeerMessage,
    PreVote,
    PreVoteAnswer,
    VoteGrant,
    VoteRequest,
    decode_body,
    encode,
    join_bodies,
)
from raftckpt.raft.node import RaftNode
from raftckpt.raft.port import PeerInfo, RaftStatus, Role
from raftckpt.raft.settings import RaftConfig
from raftckpt.storage import FileSystem, RealFileSystem
from tests.directories import found, founding_of, named_directory
from tests.sim.plain import BenchClock


class Sent(NamedTuple):
    """One message that left the node, and whether everything was durable at that moment."""

    to: str
    message: PeerMessage
    durable: bool


class Clocks:
    """The bench clock under the names the node uses."""

    def __init__(self, clock: BenchClock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        return self._clock()

    def wall_ns(self) -> int:
        return int(self._clock.now * 1e9)


class BenchMachine:
    """A list of values; notes what happened to the contexts."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.contexts: list[tuple[str, Any]] = []
        self.on_apply: Callable[[Any], None] | None = None

    def apply(self, index: int, term: int, payload: bytes, context: Any) -> None:
        value = msgpack.unpackb(payload)
        self.values.append(value)
        if context is not None:
            self.contexts.append(("applied", context))
        if self.on_apply is not None:
            self.on_apply(value)

    def abandon(self, contexts: list[Any]) -> None:
        self.contexts.extend(("abandoned", context) for context in contexts)

    def freeze(self) -> Iterator[bytes]:
        image = msgpack.packb(self.values)
        return iter([image[i : i + 1000] for i in range(0, len(image), 1000)])

    def restore(self, pieces: Iterable[bytes]) -> None:
        self.values = msgpack.unpackb(b"".join(pieces))

    def configured(self, configuration: Configuration) -> None:
        pass

    def role_changed(self, status: RaftStatus) -> None:
        pass


class Died(Exception):
    """The process was killed at a crash point."""


class KillableDisk(RealFileSystem):
    """Kills the process at the n-th named point that contains ``word``."""

    def __init__(self) -> None:
        super().__init__()
        self.word = ""
        self.countdown = 0
        self.points: list[str] = []

    def kill_at(self, word: str, countdown: int = 1) -> None:
        self.word, self.countdown = word, countdown

    def point(self, name: str) -> None:
        self.points.append(name)
        if self.countdown and self.word in name:
            self.countdown -= 1
            if not self.countdown:
                raise Died(name)


class OurBench:
    """RaftNode "a" among puppets; the counterpart of ``PlainBench``."""

    def __init__(
        self,
        clock: BenchClock,
        fs: FileSystem,
        path: str,
        *,
        peers: Sequence[str] = ("b", "c"),
        joins: str = "",
        **config: Any,
    ) -> None:
        self._joins = joins
        self.clock, self.peers = clock, tuple(peers)
        self.fs, self.path = fs, path
        self._config = config
        self._round = 0
        self.start()

    # --- life ---------------------------------------------------------------------------
    def start(self) -> None:
        """Start (or restart, on what the disk holds) with every puppet connected."""
        self.outbox: list[Sent] = []
        self.machine = BenchMachine()
        name = "again" if self._joins else "a"
        directory = named_directory(self.fs, self.path, "bench", "a", name=name, joins=self._joins)
        if not directory.founded:
            found(directory, founding_of("bench", ["a", *self.peers]))
        self.storage = open_log(directory)
        config = RaftConfig(**self._config)
        self.node = RaftNode(
            config,
            self.machine,
            self.storage,
            self._send,
            lambda: None,
            Clocks(self.clock),
            random.Random(1),
        )
        self._joins = ""
        self.id = directory.identity.directory
        for peer in self.peers:
            self.connect(peer)

    def kill(self) -> None:
        """End the process without a goodbye; what is on disk stays."""
        storage = self.storage
        storage.journal._file.close()
        storage.snapshots.close()
        storage.directory.close()

    def restart(self) -> None:
        self.kill()
        self.start()

    def _send(self, to: str, body: bytes) -> None:
        durable = not self.storage.journal.dirty
        self.outbox.extend(Sent(to, message, durable) for message in decode_body(body))

    def connect(self, peer: str) -> None:
        self.node.connected(PeerInfo(peer, peer))

    def disconnect(self, peer: str) -> None:
        self.node.disconnected(peer, False)

    def tick(self) -> None:
        self.node.step()

    def settle(self, steps: int = 8) -> None:
        for _ in range(steps):
            self.node.step()

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds

    def sent(self, *kinds: type) -> list[Sent]:
        """Drain what left the node; with ``kinds`` only messages of those types."""
        outbox, self.outbox = self.outbox, []
        return [s for s in outbox if not kinds or isinstance(s.message, kinds)]

    # --- messages -----------------------------------------------------------------------
    def inject(self, frm: str, *messages: PeerMessage) -> None:
        for body in join_bodies([encode(m) for m in messages]):
            self.node.receive(frm, body)

    def next_round(self) -> int:
        self._round += 1
        return self._round

    def append(
        self,
        frm: str,
        term: int,
        prev: tuple[int, int],
        entries: Sequence[tuple[int, int, Any]] = (),
        commit: int = 1,
    ) -> None:
        """Append after ``prev`` = (index, term); value None is a no-op."""
        raw = [
            (NO_OP if value is None else REGULAR + msgpack.packb(value), index, entry_term)
            for index, entry_term, value in entries
        ]
        self.inject(frm, Append(KINDS[Append], term, self.next_round(), commit, *prev, raw))
        self.tick()

    def ack(
        self,
        frm: str,
        match: int,
        *,
        success: bool = True,
        reset: bool = False,
        term: int | None = None,
        answers: int | None = None,
    ) -> None:
        term = self.term if term is None else term
        answers = self.node._sender.round if answers is None else answers
        self.inject(frm, Ack(KINDS[Ack], term, answers, success, reset, match + 1, 0))
        self.tick()

    def request_vote(self, frm: str, term: int, last: tuple[int, int]) -> None:
        self.inject(frm, VoteRequest(KINDS[VoteRequest], term, *last, False))
        self.tick()

    def vote(self, frm: str, term: int) -> None:
        self.inject(frm, VoteGrant(KINDS[VoteGrant], term))
        self.tick()

    # --- shortcuts ----------------------------------------------------------------------
    def campaign(self) -> None:
        """Let the election timeout pass; everybody says yes to the PreVote."""
        self.advance(2.0)
        self.tick()
        for to, question in [(s.to, s.message) for s in self.sent(PreVote)]:
            assert isinstance(question, PreVote)
            answer = PreVoteAnswer(KINDS[PreVoteAnswer], self.term, question.asked_term, True)
            self.inject(to, answer)
        self.tick()

    def lead(self) -> None:
        """Win an election with the vote of the first peers and commit the no-op."""
        self.campaign()
        for peer in self.peers[: (len(self.peers) + 1) // 2]:
            self.vote(peer, self.term)
        for peer in self.peers:
            self.ack(peer, self.last)
        self.sent()

    def propose(self, value: Any, context: Any = None) -> bool:
        return self.node.propose(msgpack.packb(value), context)

    # --- state --------------------------------------------------------------------------
    @property
    def status(self) -> RaftStatus:
        return self.node.status()

    @property
    def term(self) -> int:
        return self.status.term

    @property
    def log(self) -> list[tuple[int, int]]:
        return [(index, term) for _, index, term in self.storage.journal]

    @property
    def last(self) -> int:
        return self.status.last_index

    @property
    def commit(self) -> int:
        return self.status.commit_index

    @property
    def applied(self) -> int:
        return self.status.applied_index

    @property
    def values(self) -> list[Any]:
        return self.machine.values

    @property
    def leads(self) -> bool:
        return self.status.role is Role.LEADER

"""Plain PySyncObj, exactly as shipped, on a lab bench.

:class:`PlainNode` is a stock ``SyncObj`` whose transport only queues copies of what was sent, so
that a script decides which message arrives when. :class:`PlainBench` is one such node with puppet
peers, a clock that stands still until told, and a typed way to feed it each message of the
protocol. ``tests/unit/raft`` runs the same scripts against it and against our own node.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.transport import Transport

from tests.sim.enginepatch import StableNode

for _name in ("pysyncobj", "raftckpt"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

REGULAR = b"\0"
NO_OP = b"\1"


class Sent(NamedTuple):
    """One message that left a node."""

    to: str
    message: dict[str, Any]


class BenchClock:
    """Stands still; ``per_reading`` makes each look at it cost time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.per_reading = 0.0

    def __call__(self) -> float:
        self.now += self.per_reading
        return self.now


class HalfDice:
    """Randomness of a bench: every election timeout is the middle of its range."""

    def random(self) -> float:
        return 0.5


class QueueTransport(Transport):
    """Queues deep copies, as a socket would: what is sent does not change afterwards."""

    def __init__(self) -> None:
        super().__init__(None, None, [])
        self.queue: list[Sent] = []

    def send(self, node: Any, message: dict[str, Any]) -> bool:
        self.queue.append(Sent(node.id, copy.deepcopy(message)))
        return True


class PlainNode(SyncObj):  # type: ignore[misc]
    """A stock node whose state machine is the list of values put into it."""

    def __init__(self, name: str, peers: Iterable[str], conf: SyncObjConf) -> None:
        self.wire = QueueTransport()
        self.on_put: Callable[[Any], None] | None = None
        super().__init__(
            StableNode(name), [StableNode(p) for p in peers], conf, transport=self.wire
        )
        self.values: list[Any] = []

    @replicated
    def put(self, value: Any) -> int:
        self.values.append(value)
        if self.on_put is not None:
            self.on_put(value)
        return len(self.values)

    def private(self, name: str) -> Any:
        return getattr(self, f"_SyncObj__{name}")

    def set_private(self, name: str, value: Any) -> None:
        setattr(self, f"_SyncObj__{name}", value)

    def command(self, value: Any) -> bytes:
        """The log payload of ``put(value)``."""
        method: int = self._methodToID["put_v0"]
        return REGULAR + pickle.dumps((method, (value,)), 2)


def plain_conf(directory: Path | None, **more: Any) -> SyncObjConf:
    """Configuration as a user would write it; ``directory`` holds journal and dump."""
    settings: dict[str, Any] = {
        "autoTick": False,
        "useFork": False,
        "commandsWaitLeader": False,
        "journalFile": str(directory / "journal") if directory else None,
        "fullDumpFile": str(directory / "dump") if directory else None,
    }
    return SyncObjConf(**(settings | more))


class PlainBench:
    """One stock node "a" among puppets; every ``LogEntry`` is (index, term, value)."""

    def __init__(
        self,
        clock: BenchClock,
        directory: Path | None = None,
        *,
        peers: Sequence[str] = ("b", "c"),
        **conf: Any,
    ) -> None:
        self.clock = clock
        self.peers = tuple(peers)
        self.directory = directory
        self._conf = conf
        self.start()

    # --- life ---------------------------------------------------------------------------
    def start(self) -> None:
        """Start (or restart, on what is left in the directory) with every puppet connected."""
        self.node = PlainNode("a", self.peers, plain_conf(self.directory, **self._conf))
        for peer in self.peers:
            self.connect(peer)

    def stop(self) -> None:
        """End the process; what plain PySyncObj wrote stays in the directory."""
        with contextlib.suppress(ValueError):  # stopped before
            self.node._doDestroy()
        for transmission in self.node.private("serializer")._Serializer__transmissions.values():
            if "file" in transmission:
                transmission["file"].close()

    def connect(self, peer: str) -> None:
        self.node.wire._onNodeConnected(StableNode(peer))

    def disconnect(self, peer: str) -> None:
        self.node.wire._onNodeDisconnected(StableNode(peer))

    def tick(self) -> None:
        self.node.doTick(0)

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds

    def sent(self, kind: str | None = None) -> list[Sent]:
        """Drain what left the node; with ``kind`` only messages of that type."""
        queue, self.node.wire.queue = self.node.wire.queue, []
        return [s for s in queue if kind is None or s.message["type"] == kind]

    # --- messages -----------------------------------------------------------------------
    def inject(self, frm: str, message: dict[str, Any]) -> None:
        self.node.wire._onMessageReceived(StableNode(frm), message)

    def append(
        self,
        frm: str,
        term: int,
        prev: tuple[int, int],
        entries: Sequence[tuple[int, int, Any]] = (),
        commit: int = 1,
    ) -> None:
        """append_entries after ``prev`` = (index, term); value None is a no-op."""
        raw = [
            (NO_OP if value is None else self.node.command(value), index, entry_term)
            for index, entry_term, value in entries
        ]
        self.inject(
            frm,
            {
                "type": "append_entries",
                "term": term,
                "commit_index": commit,
                "entries": raw,
                "prevLogIdx": prev[0],
                "prevLogTerm": prev[1],
            },
        )

    def ack(self, frm: str, match: int, *, success: bool = True, reset: bool = False) -> None:
        self.inject(
            frm,
            {
                "type": "next_node_idx",
                "next_node_idx": match + 1,
                "reset": reset,
                "success": success,
            },
        )

    def request_vote(self, frm: str, term: int, last: tuple[int, int]) -> None:
        self.inject(
            frm,
            {
                "type": "request_vote",
                "term": term,
                "last_log_index": last[0],
                "last_log_term": last[1],
            },
        )

    def vote(self, frm: str, term: int) -> None:
        self.inject(frm, {"type": "response_vote", "term": term})

    # --- shortcuts ----------------------------------------------------------------------
    def campaign(self) -> None:
        """Let the election timeout pass."""
        self.advance(2.0)
        self.tick()

    def lead(self) -> None:
        """Win an election with the vote of the first peers and commit the no-op."""
        self.campaign()
        for peer in self.peers[: (len(self.peers) + 1) // 2]:
            self.vote(peer, self.term)
        for peer in self.peers:
            self.ack(peer, self.last)
        self.tick()
        self.sent()

    # --- state --------------------------------------------------------------------------
    @property
    def term(self) -> int:
        return int(self.node.raftCurrentTerm)

    @property
    def log(self) -> list[tuple[int, int]]:
        """(index, term) of every entry held."""
        return [(index, term) for _, index, term in self.node.private("raftLog")[:]]

    @property
    def last(self) -> int:
        return self.log[-1][0]

    @property
    def commit(self) -> int:
        return int(self.node.raftCommitIndex)

    @property
    def applied(self) -> int:
        return int(self.node.raftLastApplied)

    @property
    def values(self) -> list[Any]:
        return self.node.values

    @property
    def leads(self) -> bool:
        return bool(self.node._isLeader())

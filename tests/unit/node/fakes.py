"""A trivial replicated log of one node, a clock set by hand, and a client that only takes notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from raftckpt import limits
from raftckpt.model.types import Result
from raftckpt.node.liveness import SessionState
from raftckpt.node.replica import Replica
from raftckpt.raft.port import Change, Changed, PeerInfo, RaftStatus, Role, Transferred
from tests.directories import founding_of
from tests.messages import record

SECOND = 1_000_000_000
EPOCH_NS = 1_700_000_000 * SECOND
ASYNC = 2
ENDPOINTS = {"n1": "127.0.0.1:7401", "n2": "127.0.0.1:7402", "n3": "127.0.0.1:7403"}


class ManualClock:
    def __init__(self) -> None:
        self.now = 100.0
        self.wall = EPOCH_NS
        self.heartbeat: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def wall_ns(self) -> int:
        return self.wall

    def pass_by(self, seconds: float) -> None:
        """Let time pass, with the heartbeats of a replica that is not stopped."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            self.heartbeat()
        self.wall += int(seconds * 1e9)

    def stand_still(self, seconds: float) -> None:
        """Let time pass for a replica that is stopped."""
        self.now += seconds
        self.wall += int(seconds * 1e9)


class OneNodeLog:
    """Entries commit at the next :meth:`step` unless held; reads are confirmed there, too."""

    def __init__(self, replica: Replica, clock: ManualClock, voters: int = 1) -> None:
        self.replica = replica
        self.clock = clock
        self.waiting: list[tuple[bytes, Any]] = []
        self.reads: list[Callable[[bool], None]] = []
        self.payloads: list[bytes] = []
        self.index = 1
        self.accepts = True
        self.hold = False
        self.hold_reads = False
        self.refused = 0
        self.leader: str | None = None
        self.walls: list[int] | None = None
        self.voting = voters
        self.told: dict[str, str] = {}
        """Client addresses that peers told of themselves."""
        self.changes: list[tuple[Change, Callable[[Changed], None]]] = []
        self.alarms: list[str] = []
        self.why_waiting = ""
        self.told_memories: list[int] = []
        self.at_rest = False
        self.transfers: list[tuple[str | None, Callable[[Transferred], None]]] = []

    def propose(self, payload: bytes, context: Any = None) -> bool:
        if not self.accepts:
            self.refused += 1
            return False
        self.waiting.append((payload, context))
        return True

    def read_index(self, done: Callable[[bool], None]) -> None:
        self.reads.append(done)

    def transfer(
        self, node: str | None, done: Callable[[Transferred], None], timeout_s: float = 2.0
    ) -> None:
        self.transfers.append((node, done))

    def step(self) -> None:
        self.replica.flush()
        if not self.hold:
            waiting, self.waiting = self.waiting, []
            for payload, context in waiting:
                self.index += 1
                self.payloads.append(payload)
                self.replica.apply(self.index, 1, payload, context)
        if not self.hold_reads:
            reads, self.reads = self.reads, []
            for done in reads:
                done(True)
        self.replica.work()

    def run(self) -> None:
        """Step until nothing is left to do."""
        for _ in range(50):
            self.step()

    def lead(self, leader: str | None = "n1") -> None:
        self.leader = leader
        self.replica.role_changed(self.status())

    def lose(self, *, abandon: bool = True) -> None:
        """Another node leads now; what was proposed and not committed is cut off."""
        contexts = [context for _, context in self.waiting]
        if abandon:
            self.waiting = []
            self.replica.abandon(contexts)
            reads, self.reads = self.reads, []
            for done in reads:
                done(False)
        self.lead("n2")

    def status(self) -> RaftStatus:
        role = Role.LEADER if self.leader == "n1" else Role.FOLLOWER
        configuration = founding_of("test", ["n1"])
        return RaftStatus(
            "n1", role, 1, self.leader, self.index, self.index, 1, self.index, 0, [],
            configuration, 1, list(self.alarms), self.why_waiting,
        )  # fmt: skip

    def voters(self) -> int:
        return self.voting

    def client_address(self, node: str) -> str | None:
        return self.told.get(node)

    def change(self, change: Change, done: Callable[[Changed], None]) -> None:
        self.changes.append((change, done))

    def wall_clocks(self) -> Sequence[int]:
        return self.walls if self.walls is not None else [self.clock.wall]

    def memories(self) -> Sequence[int]:
        return self.told_memories

    # the rest of the port, not used here
    def receive(self, directory: str, body: bytes) -> None:
        raise NotImplementedError

    def connected(self, peer: PeerInfo) -> None:
        raise NotImplementedError

    def disconnected(self, directory: str, broken: bool) -> None:
        raise NotImplementedError

    def deadline(self) -> float:
        return self.clock.now + 1.0

    def compact(self) -> bool:
        return False

    def close(self) -> None:
        pass

    # the half steps, for the driver
    def take(self) -> None:
        pass

    def begin(self) -> None:
        pass

    def finish(self) -> None:
        self.step()


class NotingClient:
    """A connection that keeps what it is told."""

    def __init__(self) -> None:
        self.session: SessionState | None = None
        self.address = ""
        self.inflight_bytes = 0
        self.witness = 0
        self.principal = 0
        self.private = True
        self.gone = False
        self.replies: list[tuple[int, int, Any]] = []
        self.refusals: dict[int, tuple[str, bool, Any]] = {}
        self.early: list[int] = []
        self.notices: list[tuple[str, Any]] = []
        self.was_detached = False
        self.attaches_over = 0

    def answer(self, request: int, result: Result) -> None:
        if result.code == 1:
            self.replies.append((request, 1, result.value))
        else:
            self.refuse(request, result.code, result.value.reason, result.value.detail)

    def answer_all(self, requests: list[int], results: list[Result]) -> None:
        for request, result in zip(requests, results, strict=True):
            self.answer(request, result)

    def deliver(self, request: int, result: Result) -> None:
        self.answer(request, result)

    def accepted(self, request: int) -> None:
        self.early.append(request)

    def refuse(
        self, request: int, code: int, reason: str, detail: Any = None, *, definite: bool = True
    ) -> None:
        assert request not in self.refusals, "answered twice"
        self.replies.append((request, int(code), reason))
        self.refusals[request] = (reason, definite, detail)

    def notice(self, kind: str, value: Any) -> None:
        self.notices.append((kind, value))

    def attached(self) -> None:
        self.attaches_over += 1

    def detached(self) -> None:
        self.was_detached = True

    def reply(self, request: int) -> Any:
        """Value of a success."""
        found = [(code, value) for number, code, value in self.replies if number == request]
        assert len(found) == 1, f"{len(found)} replies to {request}: {self.replies}"
        assert found[0][0] == 1, found[0]
        return found[0][1]

    def reason(self, request: int) -> str:
        return self.refusals[request][0]


class LoneReplica:
    """A replica that leads a cluster of one, with a clock."""

    def __init__(
        self, *, lead: bool = True, voters: int = 1, data_bytes: int | None = None
    ) -> None:
        self.clock = ManualClock()
        self.wakes = 0
        self.woken: Callable[[], None] = lambda: None
        """Called whenever a step is due."""
        self.answered: Callable[[], None] = lambda: None
        """Called when nobody's command is on its way any more."""
        self.disk: Any = SimpleNamespace(full=False, allowance=limits.PENDING_BYTES_MAX)
        self.failures: list[BaseException] = []
        self.failed: Callable[[BaseException], None] = self.failures.append
        self.replica = Replica(
            "n1",
            dict(ENDPOINTS),
            self.clock,
            self._wake,
            lambda replica: OneNodeLog(replica, self.clock, voters),
            data_bytes=data_bytes,
            disk=self.disk,
            answered=lambda: self.answered(),
            failed=lambda error: self.failed(error),
        )
        self.log = self.replica.log
        self.number = 0
        self.clock.heartbeat = self._heartbeat
        if lead:
            self.log.lead()

    def _wake(self) -> None:
        self.wakes += 1
        self.woken()

    def _heartbeat(self) -> None:
        if self.replica.situation.leadership is not None:
            self.replica.situation.leadership.stepped(self.clock.now)

    def next(self) -> int:
        self.number += 1
        return self.number

    def submit(self, client: NotingClient, messages: list[Any]) -> None:
        """Submit commands as a client writes them down."""
        self.replica.submit(client, [record(message) for message in messages])

    def open_session(
        self,
        client: NotingClient | None = None,
        *,
        secret: bytes = b"s" * 16,
        timeout_s: float = 10.0,
        grace_s: float = 2.0,
    ) -> NotingClient:
        client = client or NotingClient()
        number = self.next()
        command = [
            1, number, 0, 0, secret, "test", "n1", int(timeout_s * 1e9), int(grace_s * 1e9),
        ]  # fmt: skip
        self.submit(client, [command])
        self.log.step()
        client.reply(number)
        return client

    def attach(self, client: NotingClient, session: int, secret: bytes = b"s" * 16) -> int:
        """Ask for a session; returns the request number."""
        number = self.next()
        self.replica.attach(client, record([201, number, session, secret]))
        return number

    def open_checkpoint(
        self, client: NotingClient, sequence: int = 1, *, flags: int = 1, sections: int = 100
    ) -> int:
        number = self.next()
        attributes = [flags, sections * 1000, 0x7FFF_FFFF_FFFF_FFFF, sections, 1000, 64]
        self.submit(client, [[10, number, sequence, 0, "ckpt", 7, attributes]])
        self.log.step()
        handle: int = client.reply(number)[0]
        return handle

    def put(
        self,
        client: NotingClient,
        handle: int,
        sequence: int,
        key: bytes = b"k",
        data: bytes = b"v",
    ) -> int:
        """Submit a put; returns its request number."""
        number = self.next()
        self.submit(client, [[24, number, sequence, 0, handle, key, data]])
        return number

    def read(
        self,
        client: NotingClient,
        target: Any,
        key: bytes = b"k",
        *,
        after: int = 0,
        local: int = 0,
    ) -> int:
        number = self.next()
        message = [100, number, after, local, target, [[key, 0, None]]]
        self.replica.query(client, record(message))
        return number

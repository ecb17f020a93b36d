"""Replicas with their trackers, and the log that feeds them: no sockets, no clock."""

from __future__ import annotations

from typing import Any

from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol.batch import encode_batch
from raftckpt.server.history import History
from raftckpt.server.tracking import Subscription, Tracking
from tests.messages import record
from tests.unit.model.driver import DrivenMachine, DrivenSession, attributes


class Line:
    """A connection: pulls when it is told to, and keeps what it got."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.principal = 0
        self.subscription: Subscription | None = None
        self.stalled_at: float | None = None
        self.pushed = 0
        self.got: list[list[Any]] = []
        self.broken = ""

    def refuse(
        self, request: int, code: int, reason: str, detail: Any = None, *, definite: bool = True
    ) -> None:
        self.got.append([0, request, code, [reason, detail, None], definite])

    def revoke(self, request: int) -> None:
        self.got.append([0, request, 11, ["revoked", None, None], True])

    def value(self, request: int, value: Any) -> None:
        self.got.append([0, request, 1, value])

    def pushable(self) -> None:
        self.pushed += 1

    def notice(self, kind: str, value: Any) -> None:
        self.got.append([2, kind, value])

    def break_off(self, why: str) -> None:
        self.broken = why

    def pull(self, times: int = 1_000_000) -> list[list[Any]]:
        """Send what there is, and return what the client got since the last time."""
        while self.subscription is not None and times:
            messages, _ = self.subscription.pull()
            if not messages:
                break
            self.got += messages
            times -= 1
        got, self.got = self.got, []
        return got


class TrackingReplica:
    """A machine fed by a log, with its trackers."""

    def __init__(self, **bounds: int) -> None:
        self.now = 0.0
        self.machine = CheckpointMachine()
        self.cut_off = False
        self.tracking = Tracking(
            lambda: self.machine, lambda: self.now, History(**bounds), lambda: self.cut_off
        )

    def apply(self, payload: bytes) -> None:
        self.machine.apply(self.machine.applied_index + 1, payload)
        self.tracking.applied(self.machine.changes, self.machine.revision)

    def install(self, other: CheckpointMachine) -> None:
        self.machine = CheckpointMachine.restore(other.freeze())
        self.tracking.restored(self.machine.revision)

    def track(self, target: Any, since: int | None = None, image: bool = True, at: int = 0) -> Line:
        line = Line()
        self.tracking.track(line, record([110, 5, target, since, image, at]))
        return line


class TrackedLog(DrivenMachine):
    """The committed entries; replicas take them when they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[bytes] = []

    def apply(self, *commands: Any) -> Any:
        self.entries.append(encode_batch(self.now, commands))
        return super().apply(*commands)

    def feed(self, replica: TrackingReplica, until: int | None = None) -> None:
        for payload in self.entries[replica.machine.applied_index : until]:
            replica.apply(payload)


def opened(log: TrackedLog) -> tuple[DrivenSession, int]:
    client = log.session()
    return client, client.open("ckpt", fields=attributes(sections=9, section=1 << 20))

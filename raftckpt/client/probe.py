"""Questions to replicas on connections of their own, without a session. Sans IO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, NamedTuple

from raftckpt.client import outcomes
from raftckpt.client.calls import Call, Needs
from raftckpt.client.core import ClientCore
from raftckpt.client.greeting import GREETING_ID, GreetingRefused, Introduction
from raftckpt.client.link import Contact
from raftckpt.client.peer import IT_CLOSED
from raftckpt.client.reasons import Why
from raftckpt.client.routing import ENDPOINTS_MAX
from raftckpt.errors import CheckpointError, Unavailable
from raftckpt.protocol import operations as ops
from raftckpt.protocol.frames import FrameError
from raftckpt.protocol.replies import ReplyKind

__all__ = [
    "CHECK_ROUNDS_SILENT_MAX",
    "CHECK_ROUND_SECONDS",
    "Answer",
    "Poll",
    "Probe",
    "unreachable",
]

CHECK_ROUND_SECONDS: Final = 1.0
"""For a replica to apply the entry and tell the digest of its state; one that has none by then is
asked again. A guess: half would ask large states more often."""
CHECK_ROUNDS_SILENT_MAX: Final = 2
"""So often one that is silent is asked for its digest."""
_HUNG_UP: Final = {
    False: Why("it closed the connection: it may speak TLS", "closed"),
    True: Why(
        "it hung up: it may not take the certificate of this client, or want one", "certificate"
    ),
}
_TLS_ALERT: Final = b"\x15\x03"
"""So begins what a TLS server says to who does not speak it."""


class Answer(NamedTuple):
    """What came back from an endpoint: a value or an error."""

    endpoint: str
    node: str | None
    value: Any
    error: CheckpointError | None
    cause: str = ""
    """Why it could not be reached, in a word; see :class:`raftckpt.client.reasons.Why`."""


class Probe:
    """Greets a replica and asks it one thing.

    Arguments:
        endpoint: "host:port".
        call: the question; needs :attr:`Needs.ANY`.
        introduction: told to the replica.
    """

    def __init__(self, endpoint: str, call: Call, introduction: Introduction) -> None:
        self.answer: Answer | None = None
        self.endpoint = endpoint
        self._heard = 0
        self._call = call
        self._introduction = introduction
        self._contact = Contact()
        call.message.request = GREETING_ID + 1
        self._contact.send(call.message)

    @property
    def connected(self) -> bool:
        """Whether the connection is up."""
        return self._contact.up

    def connect(self) -> None:
        """The connection is up."""
        self._contact.greet(self._introduction)

    def data_to_send(self) -> bytes:
        """Return the greeting and the question, once."""
        return self._contact.data_to_send()

    def feed(self, data: bytes) -> bool:
        """Take bytes from the replica; True when the answer is there."""
        if self._heard == 0 and data.startswith(_TLS_ALERT):
            self.fail(Why("it speaks TLS: give --ca, --cert and --key", "tls"))
        self._heard += len(data)
        try:
            messages = self._contact.receive(data)
            for message in messages:
                if self.answer is None and message[0] == ReplyKind.REPLY:
                    self._take(message)
        except GreetingRefused as refusal:
            self._answered(None, refusal.error(self._call))
        except (FrameError, IndexError, KeyError, TypeError, ValueError) as error:
            self.fail(Why(f"protocol error: {error}", "protocol"))
        return self.answer is not None

    @property
    def members(self) -> dict[str, str]:
        """Endpoints of all replicas by node id, as soon as the greeting told."""
        welcome = self._contact.welcome
        return {} if welcome is None else welcome.endpoints

    def _take(self, message: Any) -> None:
        if message[2] == 1:
            self._answered(message[3], None)
        else:
            reason, detail, index = message[3]
            error = outcomes.refused(self._call, message[2], reason, detail, index, True)
            self._answered(None, error)

    def _answered(self, value: Any, error: CheckpointError | None) -> None:
        welcome = self._contact.welcome
        node = None if welcome is None else welcome.node
        self.answer = Answer(self.endpoint, node, value, error)

    def fail(self, why: str) -> None:
        """There will be no answer."""
        if self.answer is None:
            self.answer = unreachable(self.endpoint, why)

    def too_late(self) -> None:
        """There was no answer in time."""
        what = "no answer in time" if self.connected else "no connection in time"
        hint = "its process hangs, or is paused" if self.connected else "host or network is down"
        self.fail(Why(f"{what}: {hint}", "silent"))


class Poll:
    """A peer that asks many replicas the same at the same time.

    Arguments:
        client: whose name is told to them, and which learns of the replicas they tell about.
        endpoints: "host:port" each.
        make: makes the question.
        deadline: when those that have not answered will be given up.
        others: ask also, as soon as one of them is told about, the replicas not among them.
    """

    def __init__(
        self,
        client: ClientCore,
        endpoints: list[str],
        make: Callable[[], Call],
        deadline: float,
        *,
        others: bool,
    ) -> None:
        self._client = client
        self._make = make
        self._deadline = deadline
        self._others = others
        self._probes: dict[int, Probe] = {}
        for endpoint in endpoints:
            self._ask(endpoint)

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return all(probe.answer is not None for probe in self._probes.values())

    def answers(self) -> list[Answer]:
        """Return what came back from each endpoint."""
        return [probe.answer for probe in self._probes.values() if probe.answer is not None]

    def close(self, error: CheckpointError | None = None) -> None:
        """Nothing more will come."""
        self._give_up("the service was closed" if error is None else error.message)

    def _ask(self, endpoint: str) -> None:
        probe = Probe(endpoint, self._make(), self._client.config.introduction)
        self._probes[len(self._probes) + 1] = probe

    def _give_up(self, why: str) -> None:
        for probe in self._probes.values():
            probe.fail(why)

    # --- as a peer ----------------------------------------------------------------------------

    def wanted(self) -> Mapping[int, str]:
        """Return the connections to those that have not answered."""
        return {
            number: probe.endpoint for number, probe in self._probes.items() if probe.answer is None
        }

    def hears(self, number: int) -> bool:
        """All are heard."""
        return True

    def data_to_send(self, number: int) -> bytes:
        """Return the greeting and the question, once."""
        return self._probes[number].data_to_send()

    def next_deadline(self) -> float:
        """Return the deadline."""
        return inf if self.done else self._deadline

    def tick(self, now: float) -> None:
        """Give up, in time."""
        if now >= self._deadline:
            for probe in self._probes.values():
                probe.too_late()

    def connected(self, number: int, now: float) -> None:
        """The question is sent."""
        self._probes[number].connect()

    def connection_lost(self, number: int, why: str, now: float) -> None:
        """This one will not answer."""
        if why == IT_CLOSED:
            why = _HUNG_UP[self._client.config.encrypted]
        self._probes[number].fail(why)

    def data_received(self, number: int, data: bytes, now: float) -> None:
        """Take an answer, and what the greeting tells of the others."""
        probe = self._probes[number]
        probe.feed(data)
        self._client.learn(probe.members)
        asked = {item.endpoint for item in self._probes.values()}
        for endpoint in probe.members.values() if self._others else ():
            if endpoint not in asked and len(self._probes) < ENDPOINTS_MAX:
                self._ask(endpoint)


def unreachable(endpoint: str, why: str) -> Answer:
    """Return the answer of an endpoint that gave none."""
    cause = why.cause if isinstance(why, Why) else ""
    return Answer(endpoint, None, None, Unavailable(f"{endpoint}: {why}"), cause)


def replica_status() -> Call:
    """Build the question for a replica's status."""
    return Call("status", Needs.ANY, ops.ReplicaStatusRequest(0))


def digest(nonce: bytes) -> Call:
    """Build the question for a replica's digest."""
    return Call("check", Needs.ANY, ops.DigestRequest(0, nonce))

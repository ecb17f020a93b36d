"""A client core whose other side is the test itself, in fake time."""

from __future__ import annotations

from typing import Any

from raftckpt.client import operations
from raftckpt.client.calls import Call
from raftckpt.client.core import ClientCore, CoreConfig
from raftckpt.client.operations import Opened
from raftckpt.client.parts import Parts, appended, change, new_part
from raftckpt.client.types import Attributes
from raftckpt.protocol.frames import FrameDecoder, pack_messages
from raftckpt.protocol.kinds import PartKind
from tests.messages import check_request, unpack_messages

OPENED = Opened(5, "c", 1, True, Attributes(), 0)
WEAK = Opened(6, "w", 2, True, Attributes(update="weak"), 0)
ENDPOINTS = {"n1": "h:1", "n2": "h:2", "n3": "h:3"}


def appending(data: Any, opened: Opened = OPENED) -> Call:
    """An append to section "id"."""
    return change("append", opened, new_part(PartKind.APPEND, b"id", data), appended)


def a_transaction(*data: Any, opened: Opened = OPENED) -> Call:
    """A transaction that puts these."""
    parts = Parts()
    for number, each in enumerate(data or (b"d",)):
        parts.put(b"%d" % number, each)
    return parts._call(opened)


class Script:
    def __init__(self, endpoints: str = "h:1 h:2 h:3", **config: Any) -> None:
        self.now = 10.0
        self.core = ClientCore(
            CoreConfig(client_name="me", **config),
            endpoints.split(),
            secret=b"s" * 16,
            jitter=lambda: 0.5,
        )
        self.decoder = FrameDecoder()
        self.done: list[Call] = []

    # --- time and calls

    def start(self, call: Call, timeout: float = 10.0) -> Call:
        self.core.start(call, self.now + timeout, self.now)
        return call

    def put(self, data: Any = b"d", timeout: float = 10.0, opened: Opened = OPENED) -> Call:
        return self.start(operations.put(opened, b"id", data), timeout)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(10_000):
            deadline = self.core.next_deadline()
            if deadline > end:
                self.now = end
                return
            self.now = max(self.now, deadline)
            self.core.tick(self.now)
        raise AssertionError("the core asks for ticks without end")

    # --- connection

    @property
    def number(self) -> int:
        target = self.core.target()
        assert target is not None
        return target[0]

    @property
    def endpoint(self) -> str:
        target = self.core.target()
        assert target is not None
        return target[1]

    def connected(self) -> None:
        self.decoder = FrameDecoder()
        self.core.connected(self.number, self.now)

    def lost(self, why: str = "reset") -> None:
        self.core.connection_lost(self.number, why, self.now)

    def greet(self, node: str = "n1", leader: str | None = "n1", founding: str = "f" * 32) -> None:
        self.connected()
        hello = self.sent()[0]
        assert hello[0] == 200
        self.reply(
            hello,
            {
                "version": 1,
                "node": node,
                "cluster": "c",
                "founding": founding,
                "leader": leader,
                "endpoints": ENDPOINTS,
                "product": "0",
            },
        )

    def ready(self, session: int = 7) -> None:
        """Make a session at n1, as the first call does."""
        call = self.start(operations.ready())
        self.greet()
        (opening,) = self.sent()
        assert opening[0] == 1
        self.reply(opening, [session])
        assert call.done
        assert call.error is None
        self.core.take_completed()

    def attach(self, node: str = "n1") -> None:
        """Connect again, to a leader."""
        self.greet(node, node)
        (attach,) = self.sent()
        assert attach[0] == 201
        self.reply(attach, [0, 10])

    # --- messages

    def sent(self) -> list[Any]:
        messages = []
        for body in self.decoder.feed(self.core.data_to_send()):
            messages += unpack_messages(body)
        for message in messages:
            assert check_request(message) is None, message
        return messages

    def sent_on(self, number: int) -> list[Any]:
        """What is sent on a connection that is being made beside the present one."""
        messages: list[Any] = []
        for body in FrameDecoder().feed(self.core.data_to_send(number)):
            messages += unpack_messages(body)
        return messages

    def receive(self, *messages: Any) -> None:
        self.core.data_received(self.number, pack_messages(list(messages)), self.now)

    def reply(self, message: list[Any], value: Any) -> None:
        self.receive([0, message[1], 1, value])

    def refuse(
        self, message: list[Any], code: int, reason: str, detail: Any = None, definite: bool = True
    ) -> None:
        self.receive([0, message[1], code, [reason, detail, None], definite])

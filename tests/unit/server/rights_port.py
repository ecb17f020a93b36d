"""A client port with rights on: an operator, and tenants whose rights can be set."""

from __future__ import annotations

import hashlib
from typing import Any

from raftckpt.protocol.contract import SA_TIME_MAX
from raftckpt.protocol.frames import MessageStream, pack_messages
from raftckpt.protocol.operations import OPERATIONS, ClusterCommand, Command
from tests.golden.product import GoldenPort

ALL_RIGHTS = 31
NEVER = SA_TIME_MAX


def token_of(name: str) -> str:
    return f"rck1.{name}.{'s' * 43}"


class PortCaller:
    """A client: greeted, with a session if it opened one."""

    def __init__(self, port: RightsPort, name: str, token: str | None) -> None:
        self.port = port
        self.name = name
        self.request = 0
        self.sequence = 0
        self.session = 0
        self.secret = hashlib.sha256(name.encode()).digest()[:16]
        self.hello = self.say(200, [1], name, token)

    def say(self, tag: int, *fields: Any) -> list[Any]:
        """Send a message and return the last reply to it."""
        self.request += 1
        replies = self.port.told(self.name, [tag, self.request, *fields])
        mine = [reply for reply in replies if reply[0] == 0 and reply[1] == self.request]
        return list(mine[-1]) if mine else [0, self.request, 0, ["closed", None, None]]

    def open_session(self) -> list[Any]:
        reply = self.say(1, 0, 0, self.secret, self.name, "n1", 10 * 10**9, 0)
        if reply[2] == 1:
            self.session = reply[3][0]
        return reply

    def do(self, tag: int, *fields: Any) -> list[Any]:
        """Send the session's next command."""
        self.sequence += 1
        return self.say(tag, self.sequence, self.sequence - 1, *fields)

    def send(self, record: type[Any], fields: list[Any]) -> list[Any]:
        """Send any operation with the fields that are its own."""
        tag = OPERATIONS[record].tag
        if issubclass(record, Command):
            return self.do(tag, *fields)
        if issubclass(record, ClusterCommand):
            return self.say(tag, 0, 0, *fields)
        leading = len(record.__struct_fields__) - len(OPERATIONS[record].fields) - 1
        return self.say(tag, *[0] * leading, *fields)


class RightsPort(GoldenPort):
    """The port, with what a test wants to do to it."""

    def __init__(self) -> None:
        super().__init__()
        self._streams: dict[str, MessageStream] = {}
        self.heard: list[tuple[str, Any]] = []
        """What others were told meanwhile."""
        self.notices: list[tuple[str, Any]] = []
        first = self.caller("first", None)
        first.open_session()
        digest = hashlib.sha256(token_of("op").encode()).digest()
        assert first.do(61, "op", "op", digest, NEVER, False, None)[2] == 1
        assert first.do(65, "", "op", ALL_RIGHTS, None)[2] == 1
        assert first.do(60, True, None)[2] == 1
        self.operator = self.caller("operator", token_of("op"))
        assert self.operator.open_session()[2] == 1

    @property
    def machine(self) -> Any:
        return self._world.replica.machine

    @property
    def listener(self) -> Any:
        return self._listener

    @property
    def world(self) -> Any:
        return self._world

    def connection(self, name: str) -> Any:
        return self._connection(name)

    def caller(self, name: str, token: str | None) -> PortCaller:
        self._streams[name] = MessageStream()
        return PortCaller(self, name, token)

    def told(self, client: str, *messages: list[Any]) -> list[Any]:
        """Send messages, and return all that the client is told."""
        self.send(client, pack_messages([list(message) for message in messages]))
        found: list[Any] = []
        for name, frame in self.taken():
            for message in self._streams[name].feed(frame):
                if message[0] == 2:
                    self.notices.append((name, message[1:]))
                if name == client:
                    found.append(message)
                else:
                    self.heard.append((name, message))
        return found

    def tenant(self, name: str, space: str, mask: int) -> PortCaller:
        """A new principal with a space of its own, connected, with a session."""
        operator = self.operator
        digest = hashlib.sha256(token_of(name).encode()).digest()
        assert operator.do(61, name, name, digest, NEVER, False, None)[2] == 1
        if space not in self.machine.access.spaces:
            assert operator.do(64, space, None)[2] == 1
        if mask:
            assert operator.do(65, space, name, mask, None)[2] == 1
        tenant = self.caller(name, token_of(name))
        assert tenant.open_session()[2] == 1
        return tenant

    def allow(self, name: str, space: str, mask: int) -> None:
        """Have a principal have exactly these rights on a space."""
        operator = self.operator
        if mask:
            assert operator.do(65, space, name, mask, None)[2] == 1
        if ALL_RIGHTS & ~mask:
            assert operator.do(66, space, name, ALL_RIGHTS & ~mask, None)[2] == 1

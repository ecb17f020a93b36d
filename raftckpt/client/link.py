"""One connection to a replica, without IO: the greeting first, then messages."""

from __future__ import annotations

from math import inf
from typing import Any

from raftckpt.client.greeting import Introduction, Welcome, welcome_in
from raftckpt.protocol.frames import MessageStream, pack_messages

__all__ = ["Contact"]


class Contact:
    """A connection that is to be made, or is up.

    Attributes:
        number: its number at its peer.
        endpoint: "host:port".
        until: when it is given up if nothing happens.
        welcome: how the replica answered the greeting; None: it did not yet.
        messages: what is to be sent next.
    """

    __slots__ = ("_stream", "endpoint", "messages", "number", "until", "welcome")

    def __init__(self, number: int = 0, endpoint: str = "", until: float = inf) -> None:
        self.number = number
        self.endpoint = endpoint
        self.until = until
        self.welcome: Welcome | None = None
        self.messages: list[Any] = []
        self._stream: MessageStream | None = None

    @property
    def up(self) -> bool:
        """Whether it is made."""
        return self._stream is not None

    def greet(self, introduction: Introduction) -> None:
        """It is up: say who we are, in front of what is to be sent already."""
        self._stream = MessageStream()
        self.messages.insert(0, introduction.request())

    def data_to_send(self) -> bytes:
        """Return the bytes to send, b"" if there are none."""
        if not self.messages or self._stream is None:
            return b""
        messages, self.messages = self.messages, []
        return pack_messages(messages)

    def receive(self, data: bytes) -> list[Any]:
        """Return the messages that came, behind the answer to the greeting.

        Raises:
            GreetingRefused: the replica does not want to talk to us.
            FrameError, IndexError, KeyError, TypeError, ValueError: it is malformed.
        """
        if self._stream is None:
            return []
        messages = self._stream.feed(data)
        while self.welcome is None and messages:
            self.welcome = welcome_in(messages.pop(0))
        return messages

"""One connection to a replica, without IO: the greeting first, then messages."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, Final

from raftckpt import limits
from raftckpt.client.greeting import Introduction, Welcome, welcome_in
from raftckpt.protocol.frames import MessageStream, pack_messages

__all__ = ["Contact"]

_FRAME_BYTES: Final = 512 * limits.KIB
"""A frame gets no longer than this if it can be two: the replica answers the first meanwhile."""


class Contact:
    """A connection that is to be made, or is up.

    Attributes:
        number: its number at its peer.
        endpoint: "host:port".
        alone: the connection as a mapping, as peers name those they want.
        until: when it is given up if nothing happens.
        welcome: how the replica answered the greeting; None: it did not yet.
    """

    __slots__ = (
        "_bytes",
        "_messages",
        "_sizes",
        "_stream",
        "alone",
        "endpoint",
        "number",
        "until",
        "welcome",
    )

    def __init__(self, number: int = 0, endpoint: str = "", until: float = inf) -> None:
        self.number = number
        self.endpoint = endpoint
        self.alone: Mapping[int, str] = {number: endpoint}
        self.until = until
        self.welcome: Welcome | None = None
        self._messages: list[Any] = []
        self._sizes: list[int] = []
        self._bytes = 0
        self._stream: MessageStream | None = None

    @property
    def up(self) -> bool:
        """Whether it is made."""
        return self._stream is not None

    def greet(self, introduction: Introduction) -> None:
        """It is up: say who we are, in front of what is to be sent already."""
        self._stream = MessageStream()
        self._messages.insert(0, introduction.request())
        self._sizes.insert(0, 0)

    def send(self, message: Any, bytes_: int = 256) -> None:
        """Put a message into the next frame.

        Arguments:
            message: of :mod:`raftckpt.protocol.operations`.
            bytes_: estimate of its encoded size.
        """
        self._messages.append(message)
        self._sizes.append(bytes_)
        self._bytes += bytes_

    def forget(self) -> None:
        """Send nothing of what waits."""
        self._messages = []
        self._sizes = []
        self._bytes = 0

    def data_to_send(self) -> bytes:
        """Return the bytes to send, b"" if there are none."""
        messages, sizes = self._messages, self._sizes
        if not messages or self._stream is None:
            return b""
        small = self._bytes <= _FRAME_BYTES
        self.forget()
        if small:
            return pack_messages(messages)
        frames = []
        first = size = 0
        for position, bytes_ in enumerate(sizes):
            if size + bytes_ > _FRAME_BYTES and position > first:
                frames.append(pack_messages(messages[first:position]))
                first, size = position, 0
            size += bytes_
        return b"".join([*frames, pack_messages(messages[first:])])

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

"""Large data on its way as chunks in front of the command that is about it."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from msgspec.structs import replace

from raftckpt import limits
from raftckpt.client.calls import Call, Needs
from raftckpt.protocol import contract
from raftckpt.protocol import operations as ops

__all__ = ["FLIGHT_BYTES", "Staging", "plug"]

FLIGHT_BYTES: Final = 2 * limits.MIB
"""Bytes of unanswered commands above which no further chunk is sent: small writes need room."""


class Staging:
    """Room for staged data, and the calls that wait for it.

    Arguments:
        queue: where commands wait for their number.
    """

    def __init__(self, queue: deque[Call]) -> None:
        self.bytes = 0
        self.waiting: deque[Call] = deque()
        self._queue = queue

    def admit(self, call: Call) -> None:
        """Queue a call as soon as there is room for its data."""
        self.waiting.append(call)
        if self.waiting[0] is call:
            self._let_in()

    def _let_in(self) -> None:
        while self.waiting:
            call = self.waiting[0]
            size = call.staged_bytes
            if call.done:
                self.waiting.popleft()
            elif self.bytes and self.bytes + size > contract.STAGED_BYTES_PER_SESSION_MAX:
                return
            else:
                self.bytes += size
                self._queue.append(self.waiting.popleft())

    def next_part(self, call: Call, number: int) -> Call | None:
        """Return what is to be sent for ``call`` under the next number.

        Returns:
            A chunk, with the call queued again; the call itself, behind the last chunk; None: what
            was staged will be dropped, as nobody waits for it any more.
        """
        if call.done:
            self._drop(call)
            return None
        chunk = call.next_chunk()
        if chunk is None:
            return call
        stage, data = chunk
        if not stage.number:
            stage.number = number
            stage.tell(number)
        message = ops.StageChunk(0, 0, 0, stage.number, stage.offset, data)  # type: ignore[arg-type]
        stage.offset += len(data)
        self._queue.append(call)
        return _command(call, message, bytes_=len(data) + 64, parent=call)

    def _drop(self, call: Call) -> None:
        """Send a command that is refused and drops the stages."""
        for stage in call.stages or ():
            if stage.number:
                dropping = ops.SectionOverwrite(0, 0, 0, 0, b"", stage.number)
                self._queue.append(_command(call, dropping))
        self.over(call)

    def over(self, call: Call) -> None:
        """The call needs no room any more, if it needed any."""
        if call.stages is not None:
            self.bytes -= call.staged_bytes
            call.stages = None
            self._let_in()


def _command(call: Call, message: Any, **more: Any) -> Call:
    return Call(call.name, Needs.COMMAND, message, subject=call.subject, **more)


def plug(call: Call) -> Any:
    """Return a command that is refused, consumes the number of ``call`` and drops its stages."""
    if call.stages is not None:
        return replace(call.message, handle=0)
    return ops.CheckpointClose(0, 0, 0, 0)

"""The commands of a session: numbers, replay, acknowledgements. Without links and requests.

Invariants:

* A command gets its number when it is first sent; numbers have no gaps. A number stays in the
  window until a reply that the cluster remembers under it was seen; ``answered`` is the largest n
  such that every number up to n left the window.
* A command whose caller gave up is replaced on its next copy by a plug, a command that is refused
  but consumes the number: what was reported as not done is never done later, and what was reported
  as unknown is settled.
* While a number waits to be sent again, no new number is given out: it would only be refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import inf
from typing import Any, Final

from raftckpt import limits
from raftckpt.client import outcomes
from raftckpt.client.calls import Call, Needs
from raftckpt.client.staging import FLIGHT_BYTES, Staging, plug
from raftckpt.client.waiting import Barriers, WaitingCalls
from raftckpt.errors import CheckpointError
from raftckpt.protocol import contract
from raftckpt.protocol import operations as ops
from raftckpt.protocol.operations import OPERATIONS

__all__ = ["BYTES_MAX", "CommandLog", "Window", "copy_of"]

BYTES_MAX: Final = 8 * limits.MIB
"""Bytes of unanswered commands above which further commands wait."""
_COMMAND: Final = Needs.COMMAND
_REVISION_AT: Final = {
    record: row.revision_at for record, row in OPERATIONS.items() if row.revision_at is not None
}
"""Where the revision stands in replies that are not a revision alone."""


class Window:
    """Commands with a number, in order."""

    __slots__ = ("answered", "bytes", "calls", "last", "reached")

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.last = 0
        self.answered = 0
        self.bytes = 0
        self.reached = 0
        """Highest number whose caller was told that it is accepted or done."""

    @property
    def has_room(self) -> bool:
        """Whether another command may be numbered now."""
        return self.last - self.answered < contract.SEQUENCE_WINDOW and self.bytes < BYTES_MAX

    def add(self, call: Call) -> None:
        """Give ``call`` the next number."""
        self.last = call.sequence = self.last + 1
        self.calls[call.sequence] = call
        self.bytes += call.bytes_

    def settle(self, call: Call) -> None:
        """The outcome of ``call``'s number is known for good."""
        sequence = call.sequence
        calls = self.calls
        del calls[sequence]
        self.bytes -= call.bytes_
        if sequence > self.reached:
            self.reached = sequence
        answered = self.answered
        if sequence == answered + 1:
            last = self.last
            answered = sequence
            while answered < last and answered + 1 not in calls:
                answered += 1
            self.answered = answered


class CommandLog:
    """What a session asked to be changed, and has not been told of yet.

    Arguments:
        secret: makes the session this client's own.
        waiting: takes the outcomes.

    Attributes:
        id: of the session; 0: none is open yet.
        lost: why the session ended, if it did.
        wanted: whether some call needs a session.
        queue: commands without a number.
        holding: a number waits to be sent again.
        revision: highest that a reply told.
    """

    def __init__(self, secret: bytes, waiting: WaitingCalls) -> None:
        self.id = 0
        self.secret = secret
        self.lost: str | None = None
        self.wanted = False
        self.window = Window()
        self.queue: deque[Call] = deque()
        self.staging = Staging(self.queue)
        self.barriers = Barriers(waiting)
        self.holding = False
        self.revision = 0
        self._waiting = waiting

    # --- calls -------------------------------------------------------------------------------

    def refuses(self, call: Call) -> bool:
        """Fail a call that needs the session, if that has ended."""
        if self.lost is not None:
            self._waiting.fail(call, outcomes.lost(call, self.lost))
        return self.lost is not None

    def add(self, call: Call) -> None:
        """Take a command, to be sent when there is room."""
        self.wanted = True
        if call.stages is None:
            self.queue.append(call)
        else:
            self.staging.admit(call)

    def add_barrier(self, call: Call) -> None:
        """Take a barrier behind everything that was accepted."""
        if call.handle in self.barriers.refusals or call.handle < 0 or not self.refuses(call):
            self.barriers.add(self.window.reached, call)
            self.check_barriers()

    def check_barriers(self) -> None:
        """See which barriers are done."""
        if self.barriers.waiting:
            settled = inf if self.lost is not None else self.window.answered
            self.barriers.check(settled, self.revision)

    def numbered(self) -> Iterator[Call]:
        """Give out numbers, in order, as long as there is room; each is to be sent at once."""
        queue, window = self.queue, self.window
        large: list[Call] = []
        while queue and window.has_room:
            call = queue.popleft()
            if call.stages is not None:
                if window.bytes >= FLIGHT_BYTES and not call.done:
                    large.append(call)  # leave room for small writes
                    continue
                part = self.staging.next_part(call, window.last + 1)
                if part is None:
                    continue
                call = part
            elif call.done:
                continue
            window.add(call)
            yield call
        queue.extend(large)

    def stamp(self, call: Call, number: int) -> Any:
        """Return the next copy of a command with a number, as request ``number``."""
        message = call.message
        if (call.done or call.parent is not None) and call.abandoned:
            call.plugged = True
            message = plug(call)
        message.session = number
        message.sequence = call.sequence
        message.answered = self.window.answered
        return message

    def waiting_calls(self) -> list[Call]:
        """Return every command, barrier and chunk that is not settled, each once."""
        return [
            *self.window.calls.values(),
            *self.queue,
            *self.staging.waiting,
            *(call for _, call in self.barriers.waiting),
        ]

    def sweep(self) -> None:
        """Forget queued calls that are done; stages already begun still have to be dropped."""
        self.staging.waiting = deque(call for call in self.staging.waiting if not call.done)
        kept = [
            call
            for call in self.queue
            if not call.done or (call.stages is not None and self.lost is None)
        ]
        self.queue.clear()
        self.queue.extend(kept)
        self.barriers.waiting = [item for item in self.barriers.waiting if not item[1].done]

    # --- replies -----------------------------------------------------------------------------

    def accepted(self, call: Call) -> None:
        """An asynchronous write was taken; its final reply is outstanding."""
        call.accepted = True
        if call.sequence > self.window.reached:
            self.window.reached = call.sequence
        self._waiting.finish(call, None)

    def succeeded(self, call: Call, value: Any) -> None:
        """A command was applied."""
        self.window.settle(call)
        if type(value) is int:
            if value > self.barriers.written:
                self.barriers.written = value
                if value > self.revision:
                    self.revision = value
        else:
            kind = type(call.message)
            position = _REVISION_AT.get(kind)
            if position is not None:
                self.note_revision(value, position, change=kind is not ops.CheckpointOpen)
            if call.abandoned:
                self.undo(call, value)
        if not call.done:
            self._waiting.finish(call, value)
        if call.stages is not None:
            self.staging.over(call)
        if self.barriers.waiting:
            self.check_barriers()

    def refused(self, call: Call, error: CheckpointError) -> bool:
        """A command was refused for good.

        Returns:
            Whether its number is settled; else the next copy is a plug, to be sent soon.
        """
        settled = call.plugged or outcomes.recorded(error.reason)
        if settled:
            self.window.settle(call)
        else:
            self.holding = True
        parent = call.parent
        if parent is not None and not parent.done and not parent.sequence:
            self._waiting.fail(parent, copy_of(error, parent))
        elif parent is not None and parent.error is None:
            parent.error = copy_of(error, parent)
        if call.accepted:
            self.barriers.refusals.setdefault(call.handle, error)
        elif not call.done:
            self._waiting.fail(call, call.error or error)
        if settled:
            self.staging.over(call)
        self.check_barriers()
        return settled

    def note_revision(self, value: Any, position: int, *, change: bool = False) -> None:
        """Note the revision in a reply; one that makes no sense is for its decoder to refuse."""
        if type(value) is list and position < len(value):
            revision = value[position]
            if type(revision) is int:
                if revision > self.revision:
                    self.revision = revision
                if change and revision > self.barriers.written:
                    self.barriers.written = revision

    def undo(self, call: Call, value: Any) -> None:
        """Somebody gave up a call that happened after all: leave no opener behind."""
        if type(call.message) is ops.CheckpointOpen and type(value) in (list, tuple) and value:
            message = ops.CheckpointClose(0, 0, 0, value[0])
            self.queue.append(Call("close", _COMMAND, message, subject=call.subject))

    # --- the end -----------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """The cluster ended the session: everything that belongs to it ends, honestly."""
        self.lost = why
        self.wanted = self.holding = False
        for call in self.window.calls.values():
            if call.accepted:
                self.barriers.refusals.setdefault(call.handle, outcomes.lost(call, why))
        for call in self.waiting_calls():
            self._waiting.fail(call, outcomes.lost(call, why))
        self.window = Window()
        self.staging.bytes = 0
        self.clear()

    def clear(self) -> None:
        """Keep nothing that has no number."""
        self.barriers.waiting.clear()
        self.staging.waiting.clear()
        self.queue.clear()


def copy_of(error: CheckpointError, call: Call) -> CheckpointError:
    """Return the same error for another call (an exception object belongs to one raise)."""
    return type(error)(
        f"{call.what}: {error.message}" if call.what not in error.message else error.message,
        definite=error.definite,
        reason=error.reason,
        index=error.index,
        detail=error.detail,
    )

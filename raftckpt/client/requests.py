"""OpenRequests that are open on the present connection, and queries that wait for theirs."""

from __future__ import annotations

from collections import deque
from typing import Final

from raftckpt.client import outcomes
from raftckpt.client.calls import Call, Needs
from raftckpt.client.greeting import GREETING_ID
from raftckpt.client.link import Contact
from raftckpt.client.session import CommandLog
from raftckpt.client.waiting import WaitingCalls
from raftckpt.protocol import operations as ops
from raftckpt.protocol.operations import Query

__all__ = ["OpenRequests"]

_COMMAND: Final = Needs.COMMAND
_INTERNAL: Final = Needs.INTERNAL
_OPEN_QUERIES_MAX: Final = 1024
"""Queries that are open at a time; a replica serves no more of one connection (a guess)."""


class OpenRequests:
    """Copies of calls in flight, by the number under which the answer comes.

    Arguments:
        log: the commands of the session.
        waiting: takes the outcomes.

    Attributes:
        contact: the present connection.
        open: calls whose answer is outstanding.
        queries: calls without a sequence number that are not sent yet.
        later: queries that were told to try again.
        quiet_since: when something was heard last, or began to be awaited.
    """

    def __init__(self, log: CommandLog, waiting: WaitingCalls) -> None:
        self.contact = Contact()
        self.open: dict[int, Call] = {}
        self.queries: deque[Call] = deque()
        self.later: list[Call] = []
        self.quiet_since = 0.0
        self._log = log
        self._waiting = waiting
        self._number = GREETING_ID
        self._open_queries = 0

    def transmit(self, call: Call, now: float, *, attached: bool) -> None:
        """Put a copy of ``call`` into the next frame."""
        if not self.open:
            self.quiet_since = now
        self._number = number = self._number + 1
        self.open[number] = call
        call.wire_id = number
        message = call.message
        bytes_ = call.bytes_
        if call.needs is _COMMAND:
            message = self._log.stamp(call, number)
        elif isinstance(message, Query):
            after = 0
            if attached:
                if not call.unordered:
                    after = self._log.window.reached
            elif call.by_name is not None:
                message = call.by_name
            message.request = number
            message.after_sequence = after
        elif type(message) is ops.SessionOpen:
            message.session = number
        else:
            message.request = number
        self.contact.send(message, bytes_)

    def send_queries(self, now: float, *, attached: bool, ready: bool) -> None:
        """Send the queries that may be sent: attached to a leader, or ready to serve others."""
        waiting: list[Call] = []
        queries = self.queries
        while queries and self._open_queries < _OPEN_QUERIES_MAX:
            call = queries.popleft()
            if call.done:
                continue
            needs = call.needs
            if needs is Needs.ANY:
                allowed = True
            elif needs is Needs.ATTACHED:
                allowed = attached or (call.by_name is not None and call.local)
            else:
                allowed = ready or call.local
            if not allowed:
                waiting.append(call)
            elif call.message is None:
                self._waiting.finish(call, None)
            else:
                self._open_queries += 1
                self.transmit(call, now, attached=attached)
        if waiting:
            queries.extendleft(reversed(waiting))

    def answered(self, number: int) -> Call | None:
        """Return the call whose answer came, None if nobody waits for it."""
        call = self.open.pop(number, None)
        if call is not None:
            call.wire_id = 0
            if call.needs is not _COMMAND and call.needs is not _INTERNAL:
                self._open_queries -= 1
        return call

    def try_later(self) -> None:
        """What was told to try again may be sent now."""
        self.queries.extend(self.later)
        self.later.clear()

    def commands_in_flight(self) -> bool:
        """Whether the answer to a command is outstanding."""
        return any(call.needs is _COMMAND for call in self.open.values())

    def waiting_calls(self) -> list[Call]:
        """Return every query somebody waits for, each once."""
        sent = (call for call in self.open.values() if call.needs is not _COMMAND)
        calls = [*self.queries, *self.later, *sent]
        return [call for call in calls if call.needs is not _INTERNAL]

    def sweep(self) -> None:
        """Forget queries that are done."""
        self.queries = deque(call for call in self.queries if not call.done)
        self.later = [call for call in self.later if not call.done]

    def end_session(self) -> None:
        """No answer to a command matters any more."""
        for number, call in list(self.open.items()):
            if call.needs is _COMMAND:
                del self.open[number]
        self.sweep()

    def disconnected(self, where: str) -> None:
        """The connection is gone: what is open on it has to be sent again elsewhere.

        Arguments:
            where: what is known about the endpoints, in words.
        """
        again: list[Call] = []
        for call in self.open.values():
            call.wire_id = 0
            if call.needs is _COMMAND:
                call.uncertain = True
            elif call.needs is _INTERNAL or call.done:
                continue
            elif call.needs is Needs.LEADER_ONCE:
                self._waiting.fail(call, outcomes.interrupted(call, where))
            else:
                call.uncertain = True
                again.append(call)
        self.queries.extendleft(reversed(again + self.later))
        self.later.clear()
        self.open.clear()
        self._open_queries = 0
        self.contact.forget()

"""Calls on their way through one connection: queues, numbering, sending, replies, staging.

The lower half of the client core. It knows what may be sent when the link is in which state; the
upper half (:mod:`raftckpt.client.core`) moves the link and owns the session's life.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final

from msgspec.structs import astuple, replace

from raftckpt import limits
from raftckpt.client import outcomes
from raftckpt.client.calls import Call, Internal, Needs
from raftckpt.client.config import CoreConfig, Link
from raftckpt.client.window import Window
from raftckpt.errors import BadHandle, CheckpointError, SaAisError
from raftckpt.protocol import contract
from raftckpt.protocol import operations as ops
from raftckpt.protocol.frames import pack_messages
from raftckpt.protocol.operations import OPERATIONS, Query
from raftckpt.protocol.replies import ReplyKind

__all__ = ["MOVE_REASONS", "Pipeline"]

_COMMAND: Final = Needs.COMMAND
_ATTACHED: Final = Needs.ATTACHED
_OK: Final = int(SaAisError.OK)
_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_REPLY: Final = int(ReplyKind.REPLY)
_BAD_HANDLE: Final = int(SaAisError.ERR_BAD_HANDLE)
_REVISION_AT: Final = {
    record: row.revision_at for record, row in OPERATIONS.items() if row.revision_at is not None
}
"""Where the revision stands in replies that are not a revision alone."""
_OPEN_QUERIES_MAX: Final = 1024
_STAGED_FLIGHT_BYTES: Final = 2 * limits.MIB
"""Bytes of unanswered commands above which no further chunk is sent."""
_FRAME_BYTES: Final = 512 * limits.KIB

MOVE_REASONS: Final = frozenset({"not_leader", "leadership_lost", "stopping"})
"""Reasons of TRY_AGAIN that send the client to another replica."""


class Pipeline:
    """Queues, window and open requests of a client.

    Arguments:
        config: see :class:`CoreConfig`.
        jitter: returns a number in [0, 1); spreads retries.
    """

    def __init__(self, config: CoreConfig, jitter: Callable[[], float]) -> None:
        self.config = config
        self.lost: str | None = None
        """Why the session ended, if it did."""
        self.revision = 0
        """Highest revision that a reply told."""
        self._written = 0
        """Highest revision of this client's changes since the last successful synchronize."""
        self._jitter = jitter
        self._now = 0.0
        self._closed = False
        # what the upper half sets
        self._link = Link.NONE
        self._link_deadline = inf
        self._leave_at = inf
        self._attached = False
        self._wants_session = False
        self._reached_at = -inf
        self._quiet_since = 0.0
        self._tired = False
        # what is on its way
        self._wire_id = 0
        self._open: dict[int, Call] = {}
        self._open_queries = 0
        self._outgoing: list[Any] = []
        self._outgoing_bytes = 0
        self._window = Window()
        self._commands: deque[Call] = deque()
        self._queries: deque[Call] = deque()
        self._later: list[Call] = []
        """Queries that were told to try again."""
        self._barriers: list[tuple[int, Call]] = []
        self._holding = False
        """A number waits to be sent again: give out no new one, it would only be refused."""
        self._resend_at = inf
        self._retries = 0
        self._staged_bytes = 0
        self._stage_waiting: deque[Call] = deque()
        self._refusals: dict[int, CheckpointError] = {}
        """First refusal of an accepted write, by handle, until synchronize reports it."""
        self._completed: list[Call] = []
        self._deadline_hint = inf
        """No call's deadline is earlier."""

    # --- what the upper half does ----------------------------------------------------------

    def where(self) -> str:
        """Describe the endpoints, for error messages."""
        raise NotImplementedError

    def _note_leader(self, reason: str, detail: Any) -> None:
        raise NotImplementedError

    def _lose_session(self, why: str) -> None:
        raise NotImplementedError

    def _open_session(self) -> None:
        raise NotImplementedError

    def _leave_follower(self) -> None:
        """The replica does not lead and a leader is needed now: go on to the one that may."""
        raise NotImplementedError

    def _made_progress(self) -> None:
        raise NotImplementedError

    # --- outputs -----------------------------------------------------------------------------

    def _take_outgoing(self) -> bytes:
        outgoing = self._outgoing
        if not outgoing:
            return b""
        self._outgoing = []
        size, self._outgoing_bytes = self._outgoing_bytes, 0
        if size <= _FRAME_BYTES:
            return pack_messages(outgoing)
        frames = []
        first = 0
        size = 0
        for position, message in enumerate(outgoing):
            bytes_ = _message_bytes(astuple(message))
            if size + bytes_ > _FRAME_BYTES and position > first:
                frames.append(pack_messages(outgoing[first:position]))
                first, size = position, 0
            size += bytes_
        frames.append(pack_messages(outgoing[first:]))
        return b"".join(frames)

    def take_completed(self) -> list[Call]:
        """Return the calls that got done since the last time."""
        completed = self._completed
        if completed:
            self._completed = []
        return completed

    @property
    def unsettled(self) -> int:
        """Number of accepted commands whose outcome is not known yet."""
        return sum(1 for call in self._window.calls.values() if call.accepted)

    @property
    def commands_sent(self) -> int:
        """Number of the last command of the session that was sent."""
        return self._window.last

    @property
    def pending(self) -> int:
        """Number of commands that hold a number, for checks and displays."""
        return len(self._window.calls)

    # --- sending -----------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what may be sent now."""
        link = self._link
        if link is Link.READY:
            if self._leave_at < inf:
                return
            if self._wants_session and not self._attached and self.lost is None:
                self._open_session()
                return
            if self._commands and self._attached and not self._holding:
                self._send_commands()
        elif link is Link.GREETED:
            self._leave_follower()
        if self._queries and not self._holding and self._link >= Link.GREETED:
            self._send_queries()

    def _send_commands(self) -> None:
        commands = self._commands
        window = self._window
        large: list[Call] = []
        while commands and window.has_room:
            call = commands.popleft()
            if call.stages is not None:
                if window.bytes >= _STAGED_FLIGHT_BYTES and not call.done:
                    large.append(call)  # leave room for small writes
                    continue
                if not self._stage_step(call):
                    continue
            elif call.done:
                continue
            window.add(call)
            self._transmit(call)
        commands.extend(large)

    def _send_queries(self) -> None:
        waiting: list[Call] = []
        queries = self._queries
        while queries and self._open_queries < _OPEN_QUERIES_MAX:
            call = queries.popleft()
            if call.done:
                continue
            if not self._can_send(call):
                waiting.append(call)
            elif call.message is None:
                self._finish(call, None)
            else:
                self._open_queries += 1
                self._transmit(call)
        if waiting:
            queries.extendleft(reversed(waiting))

    def _can_send(self, call: Call) -> bool:
        if call.needs is Needs.ANY:
            return True
        if call.needs is _ATTACHED:
            return self._attached or (call.by_name is not None and call.local)
        return self._link is Link.READY or call.local

    def _transmit(self, call: Call) -> None:
        """Put a copy of ``call`` into the next frame."""
        if not self._open:
            self._quiet_since = self._now
        self._wire_id = number = self._wire_id + 1
        self._open[number] = call
        call.wire_id = number
        message = call.message
        if call.needs is _COMMAND:
            if (call.done or call.parent is not None) and call.abandoned:
                call.plugged = True
                message = _plug(call)
            message.session = number
            message.sequence = call.sequence
            message.answered = self._window.answered
            self._outgoing_bytes += call.bytes_
        elif isinstance(message, Query):
            after = 0
            if self._attached:
                if not call.unordered:
                    after = self._window.reached
            elif call.by_name is not None:
                message = call.by_name
            message.request = number
            message.after_sequence = after
            self._outgoing_bytes += call.bytes_
        elif type(message) is ops.SessionOpen:
            message.session = number
            self._outgoing_bytes += 256
        else:
            message.request = number
            self._outgoing_bytes += 256
        self._outgoing.append(message)

    def _resend(self) -> None:
        """Send every numbered command that has no copy in flight, in order; then go on."""
        self._resend_at = inf
        if self._link is Link.READY and self._attached:
            for call in self._window.calls.values():
                if not call.wire_id:
                    self._transmit(call)
        self._holding = False
        self._queries.extend(self._later)
        self._later.clear()
        self._pump()

    # --- replies -----------------------------------------------------------------------------

    def _take_reply(self, kind: int, message: Any) -> None:
        if kind == _REPLY:
            call = self._open.pop(message[1], None)
            if call is None:
                return
            call.wire_id = 0
            if call.needs is not _COMMAND and call.needs is not Needs.INTERNAL:
                self._open_queries -= 1
            code = message[2]
            if code == _OK:
                self._succeeded(call, message[3])
            else:
                reason, detail, index = message[3]
                self._refused(call, code, reason, detail, index, definite=message[4] is True)
        else:
            call = self._open.get(message[1])
            if call is not None and call.needs is _COMMAND and not call.done:
                call.accepted = True
                if call.sequence > self._window.reached:
                    self._window.reached = call.sequence
                self._finish(call, None)

    def _succeeded(self, call: Call, value: Any) -> None:
        needs = call.needs
        if needs is _COMMAND:
            self._window.settle(call)
            if self._retries or self._tired:
                self._made_progress()
            if type(value) is int:
                if value > self._written:
                    self._written = value
                    if value > self.revision:
                        self.revision = value
            else:
                kind = type(call.message)
                position = _REVISION_AT.get(kind)
                if position is not None:
                    self._note_revision(value, position, change=kind is not ops.CheckpointOpen)
                if call.abandoned:
                    self._undo(call, value)
            if not call.done:
                self._finish(call, value)
            if call.stages is not None:
                self._stage_done(call)
            if self._barriers:
                self._check_barriers()
        elif isinstance(call, Internal):
            call.on_reply(value)
        else:
            if self._retries or self._tired:
                self._made_progress()
            if isinstance(call.message, Query):
                self._note_revision(value, 0)
            if not call.done:
                self._finish(call, value)

    def _note_revision(self, value: Any, position: int, *, change: bool = False) -> None:
        """Note the revision in a reply; one that makes no sense is for its decoder to refuse."""
        if type(value) is list and position < len(value):
            revision = value[position]
            if type(revision) is int:
                if revision > self.revision:
                    self.revision = revision
                if change and revision > self._written:
                    self._written = revision

    def _refused(
        self, call: Call, code: int, reason: str, detail: Any, index: int | None, *, definite: bool
    ) -> None:
        if isinstance(call, Internal):
            call.on_refused(code, reason, detail)
        elif code == _TRY_AGAIN or (call.accepted and reason == "full"):
            # what a leader accepted, the next one puts in its place, if need be when there is room
            self._again(call, reason, detail, definite)
        elif code == _BAD_HANDLE and reason == "session":
            if call.needs is not _COMMAND and not call.done:
                self._later.append(call)
            self._lose_session(reason)
        else:
            self._refused_for_good(
                call, outcomes.refused(call, code, reason, detail, index, definite)
            )

    def _again(self, call: Call, reason: str, detail: Any, definite: bool) -> None:
        """A copy was refused for now: it is sent again later, here or elsewhere."""
        if not definite:
            call.uncertain = True
        if not call.done:
            call.refusal = (reason, detail)
        if call.needs is _COMMAND:
            self._holding = True
        elif call.needs is Needs.LEADER_ONCE and not definite:
            self._fail(call, outcomes.interrupted(call, self.where()))
        elif not call.done:
            self._later.append(call)
        if reason in MOVE_REASONS and call.needs is not Needs.ANY:
            self._note_leader(reason, detail)
        elif self._resend_at == inf and self._leave_at == inf:
            config = self.config
            pause = min(config.retry_max, config.retry_min * 2.0 ** min(self._retries, 16))
            self._retries += 1
            self._resend_at = self._now + pause * (0.5 + 0.5 * self._jitter())

    def _refused_for_good(self, call: Call, error: CheckpointError) -> None:
        if call.needs is _COMMAND:
            settled = call.plugged or outcomes.recorded(error.reason)
            if settled:
                self._window.settle(call)
                if self._retries or self._tired:
                    self._made_progress()
            else:
                # the number is unused: the next copy is a plug
                self._holding = True
                self._resend_at = min(self._resend_at, self._now)
            parent = call.parent
            if parent is not None and not parent.done and not parent.sequence:
                self._fail(parent, _copy_of(error, parent))
            elif parent is not None and parent.error is None:
                parent.error = _copy_of(error, parent)
            if call.accepted:
                self._refusals.setdefault(call.handle, error)
            elif not call.done:
                self._fail(call, call.error or error)
            if call.stages is not None and settled:
                self._stage_done(call)
            if self._barriers:
                self._check_barriers()
        elif not call.done:
            self._fail(call, error)

    def _undo(self, call: Call, value: Any) -> None:
        """Somebody gave up a call that happened after all: leave no opener behind."""
        if type(call.message) is ops.CheckpointOpen and type(value) in (list, tuple) and value:
            message = ops.CheckpointClose(0, 0, 0, value[0])
            self._commands.append(Call("close", _COMMAND, message, subject=call.subject))

    # --- barriers ----------------------------------------------------------------------------

    def _start_barrier(self, call: Call) -> None:
        if self._closed:
            self._fail(call, BadHandle(f"{call.what}: the service is closed"))
        elif self.lost is not None and call.handle >= 0 and call.handle not in self._refusals:
            self._refuse_at_once(call)
        else:
            self._barriers.append((self._window.reached, call))
            self._check_barriers()

    def _check_barriers(self) -> None:
        answered = self._window.answered
        written = self._written
        waiting: list[tuple[int, Call]] = []
        for sequence, call in self._barriers:
            if call.done:
                continue
            if sequence > answered and self.lost is None:
                waiting.append((sequence, call))
                continue
            handle = call.handle
            if handle < 0:  # all of them: the service is about to close
                handle = next(iter(self._refusals), 0)
            refusal = self._refusals.pop(handle, None)
            if refusal is not None:
                self._fail(call, refusal)
            elif call.written:  # if anything was
                self._written = 0
                self._finish(call, written or self.revision)
            else:
                self._finish(call, self.revision)
        self._barriers = waiting

    # --- staging -----------------------------------------------------------------------------

    def _stage_fits(self, call: Call) -> bool:
        """Reserve room for staged data; a call that must wait for it is put aside."""
        size = call.staged_bytes
        if self._staged_bytes and (
            self._staged_bytes + size > contract.STAGED_BYTES_PER_SESSION_MAX or self._stage_waiting
        ):
            self._stage_waiting.append(call)
            return False
        self._staged_bytes += size
        return True

    def _stage_step(self, call: Call) -> bool:
        """Send the next chunk of ``call``; True when the command itself is to be sent."""
        if call.done:
            return self._drop_stages(call)
        chunk = call.next_chunk()
        if chunk is None:
            return True
        stage, data = chunk
        if not stage.number:
            stage.number = self._window.last + 1
            stage.tell(stage.number)
        part = Call(
            call.name,
            _COMMAND,
            ops.StageChunk(0, 0, 0, stage.number, stage.offset, data),  # type: ignore[arg-type]
            subject=call.subject,
            bytes_=len(data) + 64,
            parent=call,
        )
        stage.offset += len(data)
        self._window.add(part)
        self._transmit(part)
        self._commands.append(call)
        return False

    def _drop_stages(self, call: Call) -> bool:
        """Nobody waits for the write: send a command that is refused and drops its stages."""
        for stage in call.stages or ():
            if stage.number:
                dropping = ops.SectionOverwrite(0, 0, 0, 0, b"", stage.number)
                self._commands.append(Call(call.name, _COMMAND, dropping, subject=call.subject))
        self._stage_done(call)
        return False

    def _stage_done(self, call: Call) -> None:
        self._staged_bytes -= call.staged_bytes
        call.stages = None
        while self._stage_waiting:
            waiting = self._stage_waiting.popleft()
            if waiting.done:
                continue
            size = waiting.staged_bytes
            if self._staged_bytes and (
                self._staged_bytes + size > contract.STAGED_BYTES_PER_SESSION_MAX
            ):
                self._stage_waiting.appendleft(waiting)
                return
            self._staged_bytes += size
            self._commands.append(waiting)

    # --- endings -----------------------------------------------------------------------------

    def _refuse_at_once(self, call: Call) -> bool:
        if self._closed:
            self._fail(call, BadHandle(f"{call.what}: the service is closed"))
        elif self.lost is not None:
            self._fail(call, outcomes.lost(call, self.lost))
        else:
            return False
        return True

    def _finish(self, call: Call, value: Any) -> None:
        call.value = value
        call.done = True
        self._completed.append(call)

    def _fail(self, call: Call, error: CheckpointError) -> None:
        if not call.done:
            call.error = error
            call.done = True
            self._completed.append(call)

    def _fail_unsent(self, error: CheckpointError, *, sessions_only: bool = False) -> None:
        calls = [*self._commands, *self._stage_waiting, *self._queries]
        for call in calls:
            if not call.uncertain and (not sessions_only or call.needs in (_COMMAND, _ATTACHED)):
                self._fail(call, _copy_of(error, call))
        self._sweep()

    def _living(self) -> list[Call]:
        """Every call somebody waits for, each once."""
        calls = [
            *self._window.calls.values(),
            *self._commands,
            *self._stage_waiting,
            *self._queries,
            *self._later,
            *(call for call in self._open.values() if call.needs is not _COMMAND),
            *(call for _, call in self._barriers),
        ]
        return [call for call in calls if not call.done and call.needs is not Needs.INTERNAL]

    def _expire(self) -> None:
        """Fail the calls whose deadline has come; find the next deadline."""
        now = self._now
        earliest = inf
        for call in self._living():
            if call.deadline <= now:
                reached = self._link >= Link.GREETED or self._reached_at >= call.started
                self._fail(call, outcomes.at_deadline(call, reached=reached, where=self.where()))
            elif call.deadline < earliest:
                earliest = call.deadline
        self._deadline_hint = earliest
        self._sweep()

    def _sweep(self) -> None:
        """Forget queued calls that are done; stages already begun still have to be dropped."""
        self._queries = deque(call for call in self._queries if not call.done)
        self._later = [call for call in self._later if not call.done]
        self._stage_waiting = deque(call for call in self._stage_waiting if not call.done)
        self._commands = deque(
            call
            for call in self._commands
            if not call.done or (call.stages is not None and self.lost is None)
        )
        self._barriers = [item for item in self._barriers if not item[1].done]

    def _commands_in_flight(self) -> bool:
        return any(call.needs is _COMMAND for call in self._open.values())


def _plug(call: Call) -> Any:
    """Return a command that is refused, consumes the number of ``call`` and drops its stages."""
    if call.stages is not None:
        return replace(call.message, handle=0)
    return ops.CheckpointClose(0, 0, 0, 0)


def _message_bytes(fields: Iterable[Any]) -> int:
    """Estimate the encoded size of a message (only needed when a frame gets long)."""
    size = 64
    for field in fields:
        if isinstance(field, (bytes, str, memoryview)):
            size += len(field)
        elif type(field) in (list, tuple):
            size += _message_bytes(field)
    return size


def _copy_of(error: CheckpointError, call: Call) -> CheckpointError:
    """Return the same error for another call (an exception object belongs to one raise)."""
    return type(error)(
        f"{call.what}: {error.message}" if call.what not in error.message else error.message,
        definite=error.definite,
        reason=error.reason,
        index=error.index,
        detail=error.detail,
    )

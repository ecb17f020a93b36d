"""One connection of the load generator: raw pipelining over the protocol, as cheap as it gets.

It does what a client must to be exact about what it counts (numbers requests, tells what it saw
answered, sends again after a gap) and nothing else: a leader that changes ends its measurement.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any, Final

from raftckpt import limits
from raftckpt.bench.histogram import Histogram
from raftckpt.bench.link import ClusterAccess, ReplicaLink
from raftckpt.bench.loads import ClientPlan, Load, Request, Requests
from raftckpt.errors import SaAisError, Unavailable, ensure
from raftckpt.model.types import CreationFlags, OpenFlags
from raftckpt.protocol import contract
from raftckpt.protocol.operations import (
    CheckpointOpen,
    Command,
    Keepalive,
    SessionClose,
    SessionOpen,
)
from raftckpt.protocol.replies import ReplyKind

__all__ = ["Counts", "Generator", "attributes"]

_OK: Final = int(SaAisError.OK)
_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_REPLY: Final = int(ReplyKind.REPLY)
_ACCEPTED: Final = int(ReplyKind.ACCEPTED)
_AGAIN: Final = frozenset(("busy", "gap"))
"""Refusals after which the same requests are sent again."""
_AGAIN_PAUSE_S: Final = 0.01
"""For a replica that is full: some rounds. Less would measure refusals, more would leave it
idle."""
_PACE_S: Final = 0.001
"""Between two looks at what a rate owes: shorter than the latencies that are measured, and long
enough for the clock of asyncio. What is late counts from when it was due."""
SLOT_S: Final = 0.1
"""Of the time line."""
_FRAME_BYTES: Final = 1 * limits.MIB
"""Of requests in one frame: half of what one may have (``limits.FRAME_BYTES_MAX``)."""
_KEEPALIVE_S: Final = 2.0
"""One in fifteen has to get through (see the session's time-out)."""
_SEQUENCES_MAX: Final = contract.SEQUENCE_WINDOW - 512
"""Below the window by what may be answered and not be acknowledged yet: a replica hears of it by
the next requests. Half of it would do; without it one would be refused now and then."""
_SESSION_TIMEOUT_NS: Final = 30 * limits.SECOND_NS
"""No session is to end in a measurement, however late a replica answers that is driven to its
limit."""
_NEVER: Final = float("inf")


class Counts:
    """What one connection measured."""

    def __init__(self) -> None:
        self.reads = Histogram()
        self.writes = Histogram()
        self.committed = Histogram()
        """Of asynchronous writes: until the final answer."""
        self.errors = 0
        self.first_error = ""
        self.timeline: dict[int, list[float]] = {}
        """Tenth of a second -> [answers, worst latency]."""

    def failed(self, why: str) -> None:
        """Count an error."""
        self.errors += 1
        self.first_error = self.first_error or why

    def note(self, is_read: bool, at: float, now: float, begin: float) -> None:
        """Note an operation that was due ``at`` and is acknowledged ``now``."""
        latency = now - at
        (self.reads if is_read else self.writes).record(latency)
        slot = int((now - begin) / SLOT_S)
        entry = self.timeline.get(slot)
        if entry is None:
            self.timeline[slot] = [1, latency]
        else:
            entry[0] += 1
            entry[1] = max(entry[1], latency)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for :meth:`merge` in another process."""
        return {
            "reads": self.reads.to_json(),
            "writes": self.writes.to_json(),
            "committed": self.committed.to_json(),
            "errors": self.errors,
            "first_error": self.first_error,
            "timeline": self.timeline,
        }

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what :meth:`to_json` of another one told."""
        self.reads.merge(other["reads"])
        self.writes.merge(other["writes"])
        self.committed.merge(other["committed"])
        self.errors += other["errors"]
        self.first_error = self.first_error or other["first_error"]
        for key, (answers, worst) in other["timeline"].items():
            entry = self.timeline.setdefault(int(key), [0, 0.0])
            entry[0] += answers
            entry[1] = max(entry[1], worst)


def attributes(load: Load) -> tuple[int, int, int, int, int, int]:
    """Creation attributes of the checkpoints: dropped as soon as nobody has them open."""
    flags = CreationFlags.WR_ACTIVE_REPLICA if load.asynchronous else CreationFlags.WR_ALL_REPLICAS
    sections = max(contract.DEFAULT_MAX_SECTIONS, 2 * load.sections)
    size = max(load.initial_bytes, load.size, contract.DEFAULT_MAX_SECTION_SIZE)
    return int(flags), sections * size, 0, sections, size, contract.DEFAULT_MAX_SECTION_ID_SIZE


class _Open:
    """A message on its way."""

    __slots__ = ("accepted", "at", "counts", "record", "sequence")

    def __init__(self, at: float, counts: bool, sequence: int, record: Any) -> None:
        self.at = at
        self.counts = counts  # False: a chunk that precedes the command that counts
        self.sequence = sequence  # 0: a read
        self.record = record
        self.accepted = False


class Generator:
    """Keeps the requests of one connection on their way and measures their answers.

    Arguments:
        load: what to do.
        client: number of the connection.
        access: how to reach the cluster.
    """

    def __init__(self, load: Load, client: int, access: ClusterAccess) -> None:
        self.counts = Counts()
        self._load = load
        self._client = client
        self._access = access
        self._loop = asyncio.get_running_loop()
        self._link: ReplicaLink
        self._requests: Iterator[Request] = iter(())
        self._endless: Iterator[Request] = iter(())
        self._window = 1
        self._on_their_way = 0  # requests neither accepted nor answered
        self._sequence = 0
        self._answered = 0
        self._seen: set[int] = set()
        self._open: dict[int, _Open] = {}
        self._again: list[_Open] = []
        self._paused = False  # until what was refused is sent again
        message_bytes = max(load.initial_bytes, load.bytes_per_write)
        self._per_frame = max(1, _FRAME_BYTES // (64 + min(message_bytes, _FRAME_BYTES)))
        self._begin = self._end = _NEVER
        self._rate = 0.0
        self._paced = 0
        self._paced_from = 0.0
        self._done: asyncio.Future[None]
        self._alive: asyncio.Task[None]

    # --- before, during, after --------------------------------------------------------------
    async def prepare(self, names: list[str]) -> None:
        """Find the leader, begin a session, open the checkpoints, make the sections.

        Raises:
            CheckpointError: the cluster is not there or refuses.
        """
        load, timeout = self._load, self._access.timeout
        link = self._link = await ReplicaLink.to_leader(self._access)
        secret = os.urandom(contract.SESSION_SECRET_BYTES)
        name = self._access.name
        await link.ask(SessionOpen(0, 0, 0, secret, name, "", _SESSION_TIMEOUT_NS, 0), timeout)
        flags = int(OpenFlags.READ | OpenFlags.WRITE | OpenFlags.CREATE)
        handles = []
        for name in names:
            self._sequence += 1
            message = CheckpointOpen(
                0, self._sequence, self._sequence - 1, name, flags, attributes(load)
            )
            handles.append((await link.ask(message, timeout))[0])
        self._answered = self._sequence
        link.take = self._take
        self._alive = self._loop.create_task(self._stay_alive())
        requests = Requests(ClientPlan(load, self._client), handles)
        await self._run(requests.initial(), load.window)
        if self.counts.errors:
            raise Unavailable(f"the sections could not be made: {self.counts.first_error}")
        self._endless = requests.endless()

    async def measure(self, begin: float, end: float) -> Counts:
        """Keep requests on their way until ``end``; what is answered from ``begin`` on counts.

        At the end everything accepted is waited for, as ``synchronize`` would.
        """
        self._begin, self._end = begin, end
        self._rate = self._load.rate / self._load.clients
        self._paced_from = perf_counter()
        await self._run(self._endless, self._load.outstanding)
        return self.counts

    async def _run(self, requests: Iterator[Request], window: int) -> None:
        self._requests, self._window = requests, window
        self._done = self._loop.create_future()
        self._go_on()
        await asyncio.wait([self._done, self._link.closed], return_when=asyncio.FIRST_COMPLETED)
        if not self._done.done():
            self.counts.failed("the connection was lost")

    async def _stay_alive(self) -> None:
        while True:
            await asyncio.sleep(_KEEPALIVE_S)
            self._link.write([Keepalive(self._link.number())])

    async def close(self) -> None:
        """End the session, which drops the checkpoints if it was the last one."""
        self._alive.cancel()
        number, sequence = self._link.number(), self._sequence + 1
        self._link.write([SessionClose(number, sequence, self._answered)])
        await asyncio.wait([self._link.closed], timeout=0.1)
        self._link.close()

    # --- out ----------------------------------------------------------------------------------
    def _go_on(self) -> None:
        if self._rate:
            self._pace()
        else:
            self._fill()

    def _fill(self) -> None:
        """Begin as many requests as the window allows."""
        now = perf_counter()
        if now < self._end:
            out: list[Any] = []
            while self._room() and self._begin_next(out, now):
                pass
            self._flush(out)
        self._finish_if_done()

    def _pace(self) -> None:
        """Begin what is due by the clock. What is late counts from the moment it was due."""
        if self._done.done():
            return
        now = perf_counter()
        due = int((min(now, self._end) - self._paced_from) * self._rate)
        out: list[Any] = []
        while self._paced < due and self._room():
            self._begin_next(out, self._paced_from + self._paced / self._rate)
            self._paced += 1
        self._flush(out)
        if now < self._end:
            self._loop.call_later(_PACE_S, self._pace)
        else:
            self._finish_if_done()

    def _room(self) -> bool:
        return (
            not self._paused
            and self._on_their_way < self._window
            and self._sequence - self._answered < _SEQUENCES_MAX
        )

    def _finish_if_done(self) -> None:
        if not self._open and not self._paused and not self._done.done():
            self._done.set_result(None)

    def _begin_next(self, out: list[Any], at: float) -> bool:
        messages = next(self._requests, None)
        if messages is None:
            return False
        for record in messages[:-1]:
            self._send(out, _Open(at, False, 1, record))
            self._flush(out)
        last = messages[-1]
        self._send(out, _Open(at, True, isinstance(last, Command), last))
        self._on_their_way += 1
        if len(out) >= self._per_frame:
            self._flush(out)
        return True

    def _send(self, out: list[Any], message: _Open) -> None:
        number = self._link.number()
        record = message.record
        self._open[number] = message
        if message.sequence:
            sequence = message.sequence = self._sequence = self._sequence + 1
            record.session, record.sequence, record.answered = number, sequence, self._answered
        else:
            record.request = number
        out.append(record)

    def _flush(self, out: list[Any]) -> None:
        if out:
            self._link.write(out)
            out.clear()

    # --- in -----------------------------------------------------------------------------------
    def _take(self, messages: list[Any]) -> None:
        now = perf_counter()
        for message in messages:
            if message[0] == _REPLY:
                entry = self._open.pop(message[1], None)
                if entry is not None:  # else it is a keepalive's
                    self._replied(entry, message, now)
            elif message[0] == _ACCEPTED:
                entry = self._open.get(message[1])
                if entry is not None and entry.counts:
                    entry.accepted = True
                    self._on_their_way -= 1
                    self._record(entry, now)
        if self._paused:
            self._send_again_if_quiet()
        elif not self._rate:
            self._fill()
        elif now >= self._end:
            self._finish_if_done()

    def _replied(self, entry: _Open, message: list[Any], now: float) -> None:
        code = message[2]
        if entry.sequence:
            if code == _TRY_AGAIN:
                self._refused(entry, message)
                return
            self._saw(entry.sequence)
        if code != _OK:
            self.counts.failed(f"{message[3][0]} {message[3][1]}")
        if entry.accepted:
            if self._begin <= now < self._end:
                self.counts.committed.record(now - entry.at)
        elif entry.counts:
            self._on_their_way -= 1
            if code == _OK:
                self._record(entry, now)

    def _record(self, entry: _Open, now: float) -> None:
        if self._begin <= now < self._end:
            self.counts.note(not entry.sequence, entry.at, now, self._begin)

    def _saw(self, sequence: int) -> None:
        """Note a final answer; ``answered`` has no gaps."""
        if sequence == self._answered + 1:
            self._answered = sequence
            if not self._seen:
                return
        else:
            self._seen.add(sequence)
        while self._answered + 1 in self._seen:
            self._answered += 1
            self._seen.remove(self._answered)

    # --- refused for now ------------------------------------------------------------------------
    def _refused(self, entry: _Open, message: list[Any]) -> None:
        """Send it again, with what follows it, unless the replica no longer leads."""
        if message[3][0] in _AGAIN:
            self._again.append(entry)
            self._paused = True
        else:
            self.counts.failed(f"{message[3][0]}: the leader changed, measure again")
            self._link.close()

    def _send_again_if_quiet(self) -> None:
        """When everything else is answered, number anew what was refused."""
        if not self._again or any(entry.sequence for entry in self._open.values()):
            return
        again = sorted(self._again, key=lambda entry: entry.sequence)
        self._again = []
        self._sequence = again[0].sequence - 1
        ensure(self._sequence == self._answered, "refused are the last numbers only")
        self._loop.call_later(_AGAIN_PAUSE_S, self._resend, again)

    def _resend(self, again: list[_Open]) -> None:
        self._paused = False
        out: list[Any] = []
        for entry in again:
            self._send(out, entry)
            if len(out) >= self._per_frame:
                self._flush(out)
        self._flush(out)
        self._go_on()

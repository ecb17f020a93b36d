"""What a load consists of: its parameters, and the requests each workload is made of."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

from raftckpt import limits
from raftckpt.protocol import contract
from raftckpt.protocol.operations import CheckpointWrite, Read, SectionPut, StageChunk
from raftckpt.protocol.replies import CONSISTENCY_LINEARIZABLE, CONSISTENCY_LOCAL

__all__ = ["ClientPlan", "Load", "Request", "Requests"]

_SECTIONS_PER_CONNECTION: Final = 1024
"""Arbitrary: more than requests on their way, so that two seldom meet in one section."""
_SECTION_BYTES_TOTAL: Final = 64 * limits.MIB
"""Sections by default are so few that their data takes no more than this."""
_WINDOW_BYTES: Final = 4 * limits.MIB
"""A quarter of what a connection may have on its way (``limits.CONNECTION_INFLIGHT_BYTES_MAX``)."""


@dataclass(frozen=True)
class Load:
    """What to do, and for how long.

    Attributes:
        workload: "put" overwrites whole sections, "partial" writes somewhere into them,
            "vector" into several at once.
        clients: connections, each with a session of its own.
        outstanding: requests on their way on each connection at once.
        size: bytes of each write (of each element of a vector).
        reads: share of reads, 0..1.
        local: the reads may be stale.
        seconds: how long is measured, after ``warmup`` seconds.
        sections: in all; 0: a fitting number.
        section_size: length of each section before the first write; 0: ``size``.
        elements: of each vector write.
        checkpoints: over which the sections are spread.
        asynchronous: writes are acknowledged when the leader accepted them; all is synchronized
            at the end.
        rate: operations per second, evenly spaced; 0: as fast as the answers come.
        face: who sends: "raw", the generator's own pipelining, or a client of the product, "aio" or
            "sync".
        processes: the connections are divided among so many.
    """

    workload: str = "put"
    clients: int = 4
    outstanding: int = 16
    size: int = 100
    reads: float = 0.0
    local: bool = False
    seconds: float = 5.0
    warmup: float = 0.5
    sections: int = 0
    section_size: int = 0
    elements: int = 16
    checkpoints: int = 1
    asynchronous: bool = False
    rate: float = 0.0
    face: str = "raw"
    processes: int = 1

    @property
    def initial_bytes(self) -> int:
        """Length of a section before it is measured."""
        if self.workload == "vector":
            return max(self.section_size, self.size)
        return self.section_size or self.size

    def sections_of(self, client: int) -> int:
        """How many sections a connection works on."""
        if not self.sections:
            fitting = _SECTION_BYTES_TOTAL // max(1, self.initial_bytes * self.clients)
            return max(1, min(_SECTIONS_PER_CONNECTION, fitting))
        return max(1, self.sections // self.clients + (client < self.sections % self.clients))

    @property
    def bytes_per_write(self) -> int:
        """Data of one write."""
        return self.size * (self.elements if self.workload == "vector" else 1)

    @property
    def window(self) -> int:
        """Requests on their way while the sections are made."""
        return max(1, min(256, _WINDOW_BYTES // max(1, self.initial_bytes)))


class ClientPlan:
    """What one client works on: its sections, its data, its dice.

    Arguments:
        load: what to do.
        client: number of the connection.
    """

    def __init__(self, load: Load, client: int) -> None:
        count = load.sections_of(client)
        self.load = load
        self.places = [
            (number % load.checkpoints, b"%d-%d" % (client, number)) for number in range(count)
        ]
        """(number of the checkpoint, section id) of every section."""
        self.data = os.urandom(load.size)
        self.initial = os.urandom(load.initial_bytes)
        self._dice = random.Random(client)
        shuffled = self.places[:]
        self._dice.shuffle(shuffled)
        self._turns = cycle(shuffled)
        self._beside: dict[int, list[bytes]] = {}
        for checkpoint, section in self.places:
            beside = self._beside.setdefault(checkpoint, [])
            if len(beside) < load.elements:
                beside.append(section)

    def turn(self) -> tuple[bool, int, bytes]:
        """(is a read, checkpoint, section) of the next operation."""
        checkpoint, section = next(self._turns)
        reads = self.load.reads
        return reads > 0 and (reads >= 1 or self._dice.random() < reads), checkpoint, section

    def offset(self) -> int:
        """Where the next partial write goes."""
        return self._dice.randrange(max(1, len(self.initial) - len(self.data) + 1))

    def vector(self, checkpoint: int) -> list[bytes]:
        """Sections of a vector write."""
        ids = self._beside[checkpoint]
        return [ids[number % len(ids)] for number in range(self.load.elements)]


Request = list[Any]
"""Its messages, not numbered yet; the last one counts."""


class Requests:
    """The requests of one connection as messages, in order.

    Arguments:
        plan: what it works on.
        handles: the open checkpoints.
    """

    def __init__(self, plan: ClientPlan, handles: list[int]) -> None:
        self._plan = plan
        self._handles = handles
        self._stages = 0

    def initial(self) -> Iterator[Request]:
        """Make every section, once."""
        for checkpoint, section in self._plan.places:
            yield self._put(self._handles[checkpoint], section, self._plan.initial)

    def endless(self) -> Iterator[Request]:
        """Yield what is measured."""
        plan, handles, load = self._plan, self._handles, self._plan.load
        consistency = CONSISTENCY_LOCAL if load.local else CONSISTENCY_LINEARIZABLE
        workload, data, size = load.workload, plan.data, load.size
        while True:
            is_read, checkpoint, section = plan.turn()
            handle = handles[checkpoint]
            if is_read:
                yield [Read(0, 0, consistency, handle, [(section, 0, size)])]
            elif workload == "put":
                yield self._put(handle, section, data)
            elif workload == "partial":
                yield self._partial(handle, section, plan.offset(), data)
            else:
                elements: list[Any] = [(each, 0, data) for each in plan.vector(checkpoint)]
                yield [CheckpointWrite(0, 0, 0, handle, elements)]

    def _put(self, handle: int, section: bytes, data: bytes) -> Request:
        return self._staged(data, lambda given: SectionPut(0, 0, 0, handle, section, given))

    def _partial(self, handle: int, section: bytes, offset: int, data: bytes) -> Request:
        return self._staged(
            data, lambda given: CheckpointWrite(0, 0, 0, handle, [(section, offset, given)])
        )

    def _staged(self, data: bytes, command: Callable[[Any], Any]) -> Request:
        if len(data) <= contract.INLINE_WRITE_BYTES_MAX:
            return [command(data)]
        self._stages += 1
        view, step = memoryview(data), contract.STAGE_CHUNK_BYTES
        chunks = [
            StageChunk(0, 0, 0, self._stages, offset, bytes(view[offset : offset + step]))
            for offset in range(0, len(data), step)
        ]
        return [*chunks, command(self._stages)]

"""A client process of a chaos run: ``python -m raftckpt.chaos.worker SPEC``.

It writes its history to a file and the number of its acknowledged changes into another, works until
SIGTERM and may be killed at any moment. What it does is drawn from its seed; what it writes is
unique: the tag of a content is the name of the client and a number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

from raftckpt.chaos.history import Asked, Kind, Outcome, Recorder
from raftckpt.chaos.witness import Cut, SessionWitness, Told, seen_rows
from raftckpt.client.operations import Opened
from raftckpt.client.types import Attributes
from raftckpt.errors import CheckpointError
from raftckpt.protocol.operations import ReadAll
from raftckpt.protocol.replies import CONSISTENCY_LOCAL
from raftckpt.testing.probe import ReplicaProbe

__all__ = ["LASTING_NAMES", "LEDGERS", "LOGS", "Spec", "arguments", "main"]

LEDGER = "chaos-ledger"
STREAM = "chaos-stream"
REGISTERS = "chaos-registers"
OWNED = "chaos-owned"
LARGE = "chaos-large"
LOG = "chaos-log"
COUNTERS = "chaos-counters"
BANK = "chaos-bank"
NAMES = ("chaos-g1", "chaos-g2")
"""Checkpoints that are unlinked and made again."""

LEDGERS = {LEDGER: "all", STREAM: "active"}
"""Every write makes a section of its own, so that each can be looked for at the end."""

LOGS = frozenset({LOG})
"""Sections only grow, so that each append can be looked for where it was told to be."""

_SHARED = {REGISTERS: "all", OWNED: "all", LARGE: "all", LOG: "weak", COUNTERS: "all", BANK: "all"}
LASTING_NAMES = (*LEDGERS, *_SHARED)

_REGISTERS = [f"r{number}" for number in range(16)]
_LASTING = [f"s{number}" for number in range(8)]
"""Registers that are never deleted, so that vector writes find them."""
_SHORT_LIVED = [f"t{number}" for number in range(4)]
_RENAMED_S = 120.0
"""Others take their place after so long: what nobody knows of a section makes it harder to judge
for ever, and after half an hour that is too much."""
_SLOT = 12
_SYNC_EVERY = 32
_COUNTERS = [f"v{number}" for number in range(4)]
_ACCOUNTS = [f"b{number}" for number in range(6)]
_START = 1000
_PER_LOG = 40
"""Appends of each client to a section, which would grow for ever."""
_W = TypeVar("_W")


@dataclass(frozen=True, slots=True)
class Spec:
    """What a client process does.

    Attributes:
        name: of the client; part of everything it writes.
        seed: of what it does.
        book: endpoint of each replica -> address to dial.
        history: file of the history.
        counter: file of the number of acknowledged changes.
        writers: tasks that write to the ledgers, each one change after the other.
        pace: changes a second all writers together aim at.
        timeout: seconds for each operation.
        local: whether it (also) reads at each replica what that has applied.
    """

    name: str
    seed: int
    book: dict[str, str]
    history: str
    counter: str
    writers: int
    pace: float
    timeout: float
    local: bool


def main() -> None:
    """Work as the specification in the first argument says."""
    spec = Spec(**json.loads(sys.argv[1]))
    asyncio.run(_Client(spec).run())


def arguments(spec: Spec) -> list[str]:
    """Return the arguments of the interpreter that start such a process."""
    return ["-m", "raftckpt.chaos.worker", json.dumps(asdict(spec))]


class _Client:
    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._dice = random.Random(spec.seed)
        self._recorder = Recorder(spec.history)
        self._counter = os.open(spec.counter, os.O_RDWR | os.O_CREAT, 0o600)
        self._stop = asyncio.Event()
        self._tags = 0
        self._appends = 0
        self._moves = 0
        self._before = 0
        self._fenced = True  # somebody has to begin
        self._witness: SessionWitness | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        counting = asyncio.create_task(self._count())
        session = 0
        while not self._stop.is_set():
            session += 1
            witness = SessionWitness(
                f"{self._spec.name}.{session}", self._spec.book, self._recorder, self._spec.timeout
            )
            self._witness = witness
            try:
                await witness.connect()
                await self._work(witness)
            except (Cut, CheckpointError):
                await self._rest(0.1)
            except BaseExceptionGroup as group:
                _, others = group.split(Cut)
                if others is not None:
                    raise
            finally:
                await witness.close(5.0)
                self._before += witness.acknowledged
                self._witness = None
        counting.cancel()
        self._tell()
        self._recorder.close()

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), max(0.0, seconds))

    async def _count(self) -> None:
        while True:
            self._tell()
            await asyncio.sleep(0.2)

    def _tell(self) -> None:
        now = self._before + (self._witness.acknowledged if self._witness is not None else 0)
        os.pwrite(self._counter, b"%-12d" % now, 0)

    def _tag(self) -> str:
        self._tags += 1
        return f"{self._spec.name}-{self._tags}"

    # --- what it does --------------------------------------------------------------------------

    async def _work(self, witness: SessionWitness) -> None:
        opened: dict[str, Opened] = {}
        for name, update in {**LEDGERS, **_SHARED}.items():
            while name not in opened:
                found = await witness.open(name, Attributes(update=update))  # type: ignore[arg-type]
                if found is not None:
                    opened[name] = found
                elif self._stop.is_set():
                    return
        spec = self._spec
        each = spec.writers / max(spec.pace, 0.001)
        async with asyncio.TaskGroup() as group:
            for number in range(spec.writers):
                asynchronous = number % 4 == 3
                book = opened[STREAM if asynchronous else LEDGER]
                work = self._stream if asynchronous else self._ledger
                group.create_task(self._paced(each, work, witness, book))
            for _ in range(2):
                group.create_task(self._paced(0.04, self._register, witness, opened[REGISTERS]))
            # who only reads is not held up by writes that wait for a majority
            group.create_task(self._paced(0.03, self._reading, witness, opened[REGISTERS]))
            group.create_task(self._paced(0.25, self._expiring, witness, opened[REGISTERS]))
            group.create_task(self._paced(0.1, self._owned, witness, opened[OWNED]))
            group.create_task(self._paced(1.5, self._large, witness, opened[LARGE]))
            group.create_task(self._paced(0.06, self._append, witness, opened[LOG]))
            group.create_task(self._paced(0.08, self._compare, witness, opened[COUNTERS]))
            group.create_task(self._paced(0.1, self._transact, witness, opened[BANK]))
            group.create_task(self._generations(witness))
            if spec.local:
                reading = _LocalReader(spec, self._recorder, opened[REGISTERS])
                group.create_task(self._paced(0.05, self._local, reading, opened[REGISTERS]))

    async def _paced(
        self,
        seconds: float,
        work: Callable[[_W, Opened], Awaitable[None]],
        witness: _W,
        opened: Opened,
    ) -> None:
        due = time.monotonic() + self._dice.random() * seconds
        while not self._stop.is_set():
            now = time.monotonic()
            if now < due:
                await asyncio.sleep(due - now)
            due = max(due, now - 1.0) + seconds  # catches up, a little
            await work(witness, opened)

    async def _write(
        self,
        witness: SessionWitness,
        kind: Kind,
        opened: Opened,
        places: list[tuple[str, int, int]],
        ttl: float | None = None,
    ) -> Told:
        """Write a content of its own to each place (section, offset, size)."""
        writes = [self._content(section, offset, size) for section, offset, size in places]
        return await witness.change(kind, opened, writes, ttl)

    def _content(
        self,
        section: str,
        offset: int = 0,
        size: int = 0,
        kind: Kind | None = None,
        revision: int | None = None,
        prefix: str = "",
    ) -> Asked:
        tag = prefix + self._tag()
        return Asked(section, offset, tag, size or len(tag) + 1, kind, revision)

    async def _ledger(self, witness: SessionWitness, opened: Opened) -> None:
        tag = self._tag()
        await witness.change(Kind.PUT, opened, [Asked(tag, 0, tag, 100)])

    async def _stream(self, witness: SessionWitness, opened: Opened) -> None:
        await self._ledger(witness, opened)
        if self._tags % _SYNC_EVERY == 0:
            await witness.synchronize(opened)

    async def _register(self, witness: SessionWitness, opened: Opened) -> None:
        dice = self._dice
        section = dice.choice(_REGISTERS)
        match dice.randrange(12):
            case 0 | 1:
                await self._write(witness, Kind.PUT, opened, [(section, 0, 0)])
            case 2:
                lasting = dice.sample(_LASTING, 2)
                places = [(each, _SLOT * dice.randrange(3), _SLOT) for each in lasting]
                told = await self._write(witness, Kind.WRITE, opened, places)
                if told.reason == "section_missing":
                    await self._write(witness, Kind.PUT, opened, [(lasting[0], 0, 0)])
                    await self._write(witness, Kind.PUT, opened, [(lasting[1], 0, 0)])
            case 3:
                places = [(section, _SLOT * dice.randrange(3), _SLOT)]
                await self._write(witness, Kind.WRITE, opened, places)
            case 4:
                await self._write(witness, Kind.OVERWRITE, opened, [(section, 0, 0)])
            case 5:
                await self._write(witness, Kind.CREATE, opened, [(section, 0, 0)])
            case 6:
                await self._write(witness, Kind.DELETE, opened, [(section, 0, 0)])
            case 7 | 8 | 9:
                await witness.read(opened, [section])
            case 10:
                await witness.read(opened, dice.sample(_LASTING, 2))
            case _:
                await witness.read_all(opened)

    async def _reading(self, witness: SessionWitness, opened: Opened) -> None:
        await witness.read(opened, [self._dice.choice(_LASTING)])

    async def _expiring(self, witness: SessionWitness, opened: Opened) -> None:
        dice = self._dice
        section = f"{dice.choice(_SHORT_LIVED)}.{int(time.time() // _RENAMED_S)}"
        match dice.randrange(4):
            case 0 | 1:
                life = dice.uniform(0.6, 3.0)
                await self._write(witness, Kind.CREATE, opened, [(section, 0, 0)], life)
            case 2:
                choice = dice.choice([None, 1.0, 2.0])
                await self._write(witness, Kind.EXPIRATION, opened, [(section, 0, 0)], choice)
            case _:
                await self._write(witness, Kind.DELETE, opened, [(section, 0, 0)])

    async def _owned(self, witness: SessionWitness, opened: Opened) -> None:
        dice = self._dice
        section = f"o{dice.randrange(2)}"
        if self._fenced and dice.random() < 0.1:
            await witness.change(Kind.FENCE, opened, [])
            self._fenced = False
        elif dice.random() < 0.3:
            await witness.read(opened, [section])
        else:
            told = await self._write(witness, Kind.PUT, opened, [(section, 0, 0)])
            self._fenced = self._fenced or told.reason == "fenced"

    async def _large(self, witness: SessionWitness, opened: Opened) -> None:
        dice = self._dice
        section = f"l{dice.randrange(2)}"
        if dice.random() < 0.4:
            await witness.read(opened, [section])
        else:
            size = dice.choice([200_000, 1_100_000, 2_500_000])
            await self._write(witness, Kind.PUT, opened, [(section, 0, size)])

    async def _append(self, witness: SessionWitness, opened: Opened) -> None:
        """Append to sections that others append to, too, behind writes that were accepted."""
        dice = self._dice
        self._appends += 1
        section = f"a{self._appends // _PER_LOG}"
        if dice.random() < 0.15:
            await witness.read(opened, [section])
        elif dice.random() < 0.15:
            await witness.change(Kind.PUT, opened, [self._content(f"p{dice.randrange(4)}")])
        else:
            await witness.change(Kind.APPEND, opened, [self._content(section)])

    async def _compare(self, witness: SessionWitness, opened: Opened) -> None:
        """Change what was read, if nobody has since; sometimes with a revision that is wrong."""
        dice = self._dice
        section = dice.choice(_COUNTERS)
        known = await witness.read_versioned(opened, section)
        if known is None:
            return
        _, revision = known
        if revision and dice.random() < 0.1:
            revision -= dice.choice([1, revision])  # another one, or: that there is none
        kinds = [Kind.PUT, Kind.PUT, Kind.APPEND]
        if revision:
            kinds += [Kind.OVERWRITE, Kind.WRITE]
            kinds += [Kind.DELETE] if dice.random() < 0.2 else []
        kind = dice.choice(kinds)
        offset = _SLOT * dice.randrange(3) if kind is Kind.WRITE else 0
        write = self._content(section, offset, revision=revision)
        await witness.change(kind, opened, [write])

    async def _transact(self, witness: SessionWitness, opened: Opened) -> None:
        """Move an amount from a section to another; a journal tells of it."""
        dice = self._dice
        if dice.random() < 0.1:
            await witness.read_all(opened)
            return
        source, target = dice.sample(_ACCOUNTS, 2)
        less = await witness.read_versioned(opened, source)
        more = await witness.read_versioned(opened, target)
        if less is None or more is None:
            return
        self._moves += 1
        amount = dice.randrange(100)
        writes = [
            self._amount(source, less, -amount),
            self._content(f"j{self._moves // _PER_LOG}", kind=Kind.APPEND),
            self._amount(target, more, amount),
        ]
        match dice.randrange(10):
            case 0:  # refused at its end, whatever was done before
                writes.append(self._content("nowhere", kind=Kind.OVERWRITE))
            case 1:  # gone as soon as it was there
                passing = f"x{dice.randrange(4)}"
                writes.append(self._content(passing, kind=Kind.CREATE))
                writes.append(Asked(passing, kind=Kind.DELETE))
            case 2:
                writes.append(self._content("note", kind=Kind.PUT))
            case _:
                pass
        await witness.change(Kind.TRANSACTION, opened, writes)

    def _amount(self, section: str, known: tuple[bytes, int], more: int) -> Asked:
        """What an account holds then, if it has not been changed since."""
        data, revision = known
        amount = int(data.partition(b".")[0]) if revision else _START
        return self._content(section, kind=Kind.PUT, revision=revision, prefix=f"{amount + more}.")

    async def _generations(self, witness: SessionWitness) -> None:
        dice = self._dice
        while not self._stop.is_set():
            name = dice.choice(NAMES)
            opened = await witness.open(name, Attributes())
            for _ in range(dice.randrange(1, 6) if opened is not None else 0):
                if opened is not None:
                    await self._write(witness, Kind.PUT, opened, [("k", 0, 0)])
                    await witness.read(opened, ["k"])
                await self._rest(0.1)
            if dice.random() < 0.3:
                await witness.unlink(name)
                if opened is not None:  # an unlinked checkpoint lives on for who has it open
                    await self._write(witness, Kind.PUT, opened, [("k", 0, 0)])
                    await witness.read(opened, ["k"])
            if opened is not None:
                await witness.release(opened)
            await self._rest(0.2)

    async def _local(self, reader: _LocalReader, opened: Opened) -> None:
        await asyncio.to_thread(reader.read)


class _LocalReader:
    """Asks the replicas in turn what they have applied, past the client core.

    The name of what it reads is never unlinked. A replica that restarts is another one: it may
    have applied less than before, until it is told again what is committed.
    """

    def __init__(self, spec: Spec, recorder: Recorder, opened: Opened) -> None:
        self._session = f"{spec.name}-local"
        self._recorder = recorder
        self._opened = opened
        self._endpoints = list(spec.book.values())
        self._probes: dict[str, tuple[ReplicaProbe, str]] = {}
        self._turn = 0

    def read(self) -> None:
        """Read everything at the next replica."""
        self._turn += 1
        endpoint = self._endpoints[self._turn % len(self._endpoints)]
        try:
            if endpoint not in self._probes:
                probe = ReplicaProbe(endpoint, timeout=0.5)
                status = probe.status()
                self._probes[endpoint] = probe, f"{status['node']}:{status['pid']}"
            probe, replica = self._probes[endpoint]
            number = self._recorder.begin(
                self._session,
                Kind.READ_ALL,
                self._opened.uid,
                [],
                time.monotonic_ns(),
                replica=replica,
            )
            revision, rows = probe.call(ReadAll, 0, CONSISTENCY_LOCAL, self._opened.name)
        except (CheckpointError, OSError):
            old = self._probes.pop(endpoint, None)
            if old is not None:
                old[0].close()
            return
        self._recorder.end(
            number,
            Outcome.OK,
            time.monotonic_ns(),
            revision=revision,
            seen=seen_rows(rows),
        )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

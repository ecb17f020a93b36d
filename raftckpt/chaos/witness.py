"""A client that writes down what it asks and what it is told.

It drives the product's client core; what is added: an address book (the replicas tell their own
addresses, but the way to them leads through a proxy), and the fate of asynchronous writes after
they were accepted, which the public face keeps to itself.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from raftckpt.chaos.history import Asked, Kind, Outcome, Recorder, seen_of
from raftckpt.client import operations
from raftckpt.client.aio_driver import Driver
from raftckpt.client.calls import Call
from raftckpt.client.connecting import Options
from raftckpt.client.core import ClientCore
from raftckpt.client.io.loop import LoopEngine
from raftckpt.client.operations import Opened
from raftckpt.client.parts import Parts, change, new_part
from raftckpt.client.types import Attributes
from raftckpt.errors import CheckpointError, Conflict, SessionLost
from raftckpt.protocol.contract import SESSION_SECRET_BYTES
from raftckpt.protocol.kinds import PartKind

__all__ = ["Cut", "SessionWitness", "Told", "seen_rows"]

_PARTS: Final = {
    Kind.CREATE: PartKind.CREATE,
    Kind.PUT: PartKind.PUT,
    Kind.OVERWRITE: PartKind.OVERWRITE,
    Kind.WRITE: PartKind.WRITE,
    Kind.APPEND: PartKind.APPEND,
    Kind.DELETE: PartKind.DELETE,
}


class Told(NamedTuple):
    """What the caller of a change was told."""

    outcome: Outcome
    reason: str = ""


class Cut(Exception):
    """The session is gone: connect again."""


_RESULTS: Final[dict[Kind, Callable[[Any], list[Any]]]] = {
    Kind.APPEND: lambda offset: [offset],
    Kind.TRANSACTION: list,
}


class _Core(ClientCore):
    """The client core, with an eye on what becomes of every change.

    Also of those whose caller was told that the outcome is unknown: if the answer comes after all,
    the history knows more than the caller.
    """

    recorder: Recorder
    acknowledged = 0

    def watch(self, recorder: Recorder) -> None:
        """Write the outcomes to ``recorder``."""
        self.recorder = recorder
        self.watched: dict[Call, tuple[int, Kind]] = {}

    def command_succeeded(self, call: Call, value: Any) -> None:
        found = self.watched.pop(call, None)
        if found is not None:
            number, kind = found
            now = time.monotonic_ns()
            self.acknowledged += 1
            if kind is Kind.FENCE:
                epoch, revision = value
                self.recorder.end(number, Outcome.OK, now, revision=revision, value=epoch)
            elif type(value) is int or value is None:
                self.recorder.end(number, Outcome.OK, now, revision=value)
            else:
                revision, result = value
                more = {} if kind not in _RESULTS else {"results": _RESULTS[kind](result)}
                self.recorder.end(number, Outcome.OK, now, revision=revision, **more)
        super().command_succeeded(call, value)

    def command_refused(self, call: Call, error: CheckpointError) -> None:
        if call.accepted:
            found = self.watched.pop(call, None)
            if found is not None:
                _note_error(self.recorder, found[0], error)
        super().command_refused(call, error)


class _Engine(LoopEngine):
    """Dials by an address book."""

    book: Mapping[str, str]

    def locate(self, endpoint: str) -> str:
        return self.book.get(endpoint, endpoint)


def _note_error(recorder: Recorder, number: int, error: CheckpointError) -> None:
    outcome = Outcome.REFUSED if error.definite else Outcome.UNKNOWN
    more = {"value": error.revision} if isinstance(error, Conflict) else {}
    recorder.end(
        number,
        outcome,
        time.monotonic_ns(),
        reason=error.reason or "",
        index=error.index,
        **more,
    )


class SessionWitness:
    """One session. Its methods record, and never raise but :class:`Cut` when it has ended.

    Arguments:
        name: of the session, unique in the history.
        book: endpoint of each replica -> address to dial.
        recorder: where to.
        timeout: seconds for each operation.
    """

    def __init__(
        self, name: str, book: Mapping[str, str], recorder: Recorder, timeout: float
    ) -> None:
        options = Options(list(book), timeout, 10.0, 1.0, None, None, None, name)
        core = _Core(
            options.config,
            options.endpoints,
            secret=os.urandom(SESSION_SECRET_BYTES),
            jitter=random.random,
        )
        core.watch(recorder)
        self.name = name
        self._core = core
        self._recorder = recorder
        engine = _Engine(None)
        engine.book = book
        self._driver = Driver(core, engine, timeout)

    @property
    def acknowledged(self) -> int:
        """Changes that were confirmed to this session."""
        return self._core.acknowledged

    async def connect(self) -> None:
        """Wait for the session.

        Raises:
            CheckpointError: there is none in time.
        """
        await self._driver.run(operations.ready())

    async def close(self, timeout: float) -> None:
        """Wait for accepted writes and say goodbye, if that is possible."""
        try:
            await self._driver.run(operations.synchronize(None), timeout)
            await self._driver.run(operations.close_session(), timeout)
        except CheckpointError:
            pass
        finally:
            await self._driver.close()

    async def open(self, name: str, attributes: Attributes) -> Opened | None:
        """Open a checkpoint, create it if it is not there."""
        call = operations.open_checkpoint(name, attributes, "rw")
        number = self._begin(Kind.OPEN, 0, [Asked(name)], value=1)
        try:
            opened: Opened = await self._driver.run(call)
        except CheckpointError as error:
            self._failed(number, error)
            return None
        self._recorder.end(
            number,
            Outcome.OK,
            time.monotonic_ns(),
            revision=opened.revision,
            value=int(opened.created),
            seen=[[name, str(opened.uid)]],
        )
        return opened

    async def unlink(self, name: str) -> None:
        """Unlink a name."""
        number = self._begin(Kind.UNLINK, 0, [Asked(name)])
        await self._change(number, Kind.UNLINK, operations.unlink(name))

    async def release(self, opened: Opened) -> None:
        """Close a handle."""
        try:
            await self._driver.run(operations.close_checkpoint(opened))
        except SessionLost as error:
            raise Cut from error
        except CheckpointError:
            pass

    async def change(
        self,
        kind: Kind,
        opened: Opened,
        writes: Sequence[Asked],
        ttl: float | None = None,
    ) -> Told:
        """Change a checkpoint."""
        more = {} if ttl is None else {"ttl_ns": round(ttl * 1e9)}
        first = writes[0] if writes else Asked("")
        section = first.section
        match kind:
            case Kind.TRANSACTION:
                call = _Parts(writes).call(opened)
            case _ if kind is Kind.APPEND or first.revision is not None:
                call = change(kind.value, opened, _part(first, kind))
            case Kind.PUT:
                call = operations.put(opened, section, first.data)
            case Kind.OVERWRITE:
                call = operations.overwrite(opened, section, first.data)
            case Kind.WRITE:
                vector = [(write.section, write.offset, write.data) for write in writes]
                call = operations.write_many(opened, vector)
            case Kind.CREATE:
                call = operations.create(opened, section, first.data, None, ttl)
            case Kind.DELETE:
                call = operations.delete(opened, section)
            case Kind.EXPIRATION:
                call = operations.set_expiration(opened, section, None, ttl)
            case Kind.FENCE:
                call = operations.active_replica_set(opened, True)
            case _:
                raise ValueError(kind)
        number = self._begin(kind, opened.uid, writes, **more)
        return await self._change(number, kind, call)

    async def synchronize(self, opened: Opened) -> bool:
        """Wait for the accepted writes."""
        try:
            await self._driver.run(operations.synchronize(opened))
        except SessionLost as error:
            raise Cut from error
        except CheckpointError:
            return False
        return True

    async def read(self, opened: Opened, sections: list[str]) -> None:
        """Read sections of one state."""
        call = operations.read_many(opened, [(each, 0, None) for each in sections], "linearizable")
        call.decode = None
        number = self._begin(Kind.READ, opened.uid, [Asked(each) for each in sections])
        try:
            revision, values = await self._driver.run(call)
        except CheckpointError as error:
            self._failed(number, error, read=True)
            return
        seen = [[each, _json(bytes(value))] for each, value in zip(sections, values, strict=True)]
        self._recorder.end(number, Outcome.OK, time.monotonic_ns(), revision=revision, seen=seen)

    async def read_versioned(self, opened: Opened, section: str) -> tuple[bytes, int] | None:
        """Read a section and the revision of its last change; (b"", 0): there is none.

        Which state it was is not told; None: nothing was.
        """
        call = operations.read_versioned(opened, section, "linearizable")
        number = self._begin(Kind.READ, opened.uid, [Asked(section)])
        try:
            data, revision = await self._driver.run(call)
        except CheckpointError as error:
            self._failed(number, error, read=True)
            return (b"", 0) if error.reason == "section_missing" else None
        seen = [[section, _json(bytes(data)), revision]]
        self._recorder.end(number, Outcome.OK, time.monotonic_ns(), seen=seen)
        return bytes(data), revision

    async def read_all(self, opened: Opened) -> None:
        """Read everything."""
        call = operations.read_all(opened, "linearizable")
        call.decode = None
        number = self._begin(Kind.READ_ALL, opened.uid, [])
        try:
            revision, rows = await self._driver.run(call)
        except CheckpointError as error:
            self._failed(number, error, read=True)
            return
        self._recorder.end(
            number, Outcome.OK, time.monotonic_ns(), revision=revision, seen=seen_rows(rows)
        )

    # --- inside --------------------------------------------------------------------------------

    def _begin(self, kind: Kind, unit: int, parts: Sequence[Asked], **more: Any) -> int:
        return self._recorder.begin(self.name, kind, unit, parts, time.monotonic_ns(), **more)

    async def _change(self, number: int, kind: Kind, call: Call) -> Told:
        call.decode = None
        watched = self._core.watched
        watched[call] = number, kind
        try:
            await self._driver.run(call)
        except CheckpointError as error:
            if error.definite:
                watched.pop(call, None)
                _note_error(self._recorder, number, error)
            if isinstance(error, SessionLost):
                raise Cut from error
            return Told(Outcome.REFUSED if error.definite else Outcome.UNKNOWN, error.reason or "")
        if call in watched:
            self._recorder.accept(number, time.monotonic_ns())
        return Told(Outcome.OK)

    def _failed(self, number: int, error: CheckpointError, *, read: bool = False) -> None:
        if read and error.reason != "section_missing":  # it says nothing then
            self._recorder.end(number, Outcome.UNKNOWN, time.monotonic_ns())
        else:
            _note_error(self._recorder, number, error)
        if isinstance(error, SessionLost):
            raise Cut from error


class _Parts(Parts):
    """A transaction of these parts."""

    def __init__(self, writes: Sequence[Asked]) -> None:
        super().__init__()
        for write in writes:
            self._add(_part(write, write.kind or Kind.PUT))

    def call(self, opened: Opened) -> Call:
        """Build the command."""
        return self._call(opened)


def _part(write: Asked, kind: Kind) -> list[Any]:
    data = b"" if kind is Kind.DELETE else write.data
    part = _PARTS[kind]
    return new_part(part, write.section, data, offset=write.offset, if_revision=write.revision)


def _json(data: bytes) -> Any:
    seen = seen_of(data)
    return seen.decode("latin-1") if isinstance(seen, bytes) else list(seen)


def seen_rows(rows: Any) -> list[Any]:
    """Return what a history keeps of a listing with contents."""
    return [[bytes(section).decode("ascii"), _json(bytes(data))] for section, data in rows]

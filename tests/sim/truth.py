"""What really happened in a service world, and what clients were told about it.

A machine of its own applies every committed entry once, in order. Beside it, an independent record
of a few lines per promise: each request has one effect, sections hold what the writes say, cluster
time never goes back and follows no single clock, a fence holds, what is due is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from raftckpt.client.calls import Call
from raftckpt.model.changes import ChangeKind
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.types import Result
from raftckpt.protocol.batch import Batch, decode_batch
from raftckpt.protocol.check import array_of
from raftckpt.protocol.kinds import PartKind
from tests.messages import Tag
from tests.sim.nodes import EPOCH_NS

if TYPE_CHECKING:
    from tests.sim.service import ServiceWorld

_OK: Final = 1
_TRY_AGAIN: Final = 6
_PUTS: Final = frozenset((int(Tag.SECTION_PUT), int(Tag.SECTION_OVERWRITE)))
_PARTS: Final = frozenset((int(Tag.SECTION_CHANGE), int(Tag.CHECKPOINT_TRANSACTION)))
_DATA: Final = _PARTS | frozenset(
    map(int, (*_PUTS, Tag.SECTION_CREATE, Tag.SECTION_DELETE, Tag.CHECKPOINT_WRITE))
)
_REVISED: Final = _DATA | {int(Tag.SECTION_EXPIRATION_SET)}
"""Commands whose result tells a revision that grows within a session."""
Key = tuple[int, bytes]
"""(uid of the checkpoint, section id)"""
Id = tuple[bytes, int]
"""(secret of the session, sequence number): what makes a request the same request."""
CLOCK_SLACK_S: Final = 0.5
DRIFT_MAX: Final = 0.06
DUE_WITHIN_S: Final = 3.0


class Pending:
    """A call of a client, and what the checks must remember of its beginning."""

    def __init__(self, call: Call, kind: str, secret: bytes, floor: int) -> None:
        self.call, self.kind, self.secret, self.floor = call, kind, secret, floor
        self.key: Key = (0, b"")
        self.own: list[Id] = []

    @property
    def id(self) -> Id:
        return self.secret, self.call.sequence


class Change(NamedTuple):
    """The content of a section from a revision on."""

    revision: int
    content: bytes | None


class Truth:
    """What really happened: every entry applied once, in order, by a machine of its own."""

    def __init__(self, world: ServiceWorld) -> None:
        self.world = world
        self.machine = CheckpointMachine()
        self.floor = 0
        """Highest revision that any client has seen."""
        self._secrets: dict[int, bytes] = {}
        self._handles: dict[tuple[int, int], int] = {}
        self._results: dict[Id, Result] = {}
        self._refused: set[Id] = set()
        self._history: dict[Key, list[Change]] = {}
        self._content: dict[Key, bytes] = {}
        self._revisions: dict[Key, int] = {}
        self._expired: list[tuple[int, Key]] = []
        """What the entry at hand let expire, and has not been taken yet."""
        self._touched: list[Key] = []
        """Sections that parts of the entry at hand are about, done or refused."""
        self._stages: dict[tuple[int, int], bytes] = {}
        self._owners: dict[int, int] = {}
        self._last: dict[int, tuple[int, int]] = {}
        self._reads: list[tuple[str, Pending, int, bytes]] = []
        self._tags: dict[int, tuple[int, ...]] = {}

    # --- the log ----------------------------------------------------------------------------
    def applied(self, index: int, payload: bytes) -> tuple[int, ...]:
        """Take an entry that some replica applied; returns the kinds of its commands."""
        if index <= self.machine.applied_index:
            return self._tags[index]
        batch = decode_batch(payload)
        self._look_at_time(batch)
        commands = [array_of(command) for command in batch.commands]
        uids = [self._uid(command) for command in commands]
        revisions: list[int] = []
        watched = batch._replace(commands=self._watched(batch.commands, revisions))
        results = self.machine.apply(index, payload, watched)
        self._expired = [
            (change[1], (change[0], change[4]))
            for change in self.machine.changes
            if change[2] == ChangeKind.EXPIRED and change[4] is not None
        ]
        for command, uid, result, revision in zip(commands, uids, results, revisions, strict=True):
            # a refusal tells no revision, but is about what was left when its turn came
            self._expire(revision + 1)
            self._happened(command, uid, result)
        self._expire(self.machine.revision + 1)
        self._look_at_parts()
        self._tags[index] = tuple(sorted({command[0] for command in commands}))
        return self._tags[index]

    def _watched(self, commands: list[Any], revisions: list[int]) -> Iterator[Any]:
        """Hand commands over one by one, noting the revision that each of them meets."""
        for command in commands:
            revisions.append(self.machine.revision)
            yield command

    def _look_at_time(self, batch: Batch) -> None:
        expect, now = self.world.checks.expect, self.world.queue.now
        expect(
            batch.now_ns >= self.machine.now_ns, "cluster time never goes back",
            self.machine.now_ns, "->", batch.now_ns,
        )  # fmt: skip
        ahead_s = (batch.now_ns - EPOCH_NS) / 1e9 - now
        if len(self.world.processes) > 2:
            expect(
                ahead_s <= CLOCK_SLACK_S + DRIFT_MAX * now, "one bad clock moves nothing",
                "cluster time is", ahead_s, "s ahead after", now,
            )  # fmt: skip

    def _uid(self, command: Any) -> int:
        """Which checkpoint a command is about; it may be opened in this very batch."""
        return self._handles.get((command[1], command[4]), 0) if command[0] in _REVISED else 0

    def _happened(self, command: Any, uid: int, result: Result) -> None:
        tag, session, sequence = command[:3]
        if not session:
            if tag == Tag.SESSION_OPEN and result.code == _OK:
                self._secrets[result.value[0]] = command[4]
            return
        secret = self._secrets.get(session)
        if secret is None:
            return
        ident = (secret, sequence)
        known = self._results.get(ident)
        expect = self.world.checks.expect
        if known is not None:
            expect(
                result.code != _OK or result.value == known.value,
                "at most one effect", command[:3], "had", known, "now", result,
            )  # fmt: skip
            if result.code != _OK or known.code == _OK:
                return  # an answer from the reply table, or the refusal of one that is gone
        if result.code == _TRY_AGAIN:
            return  # out of turn: it is not recorded, and may be done later
        self._results[ident] = result
        if tag in _PARTS:
            self._touched += [(uid, part[1]) for part in _parts(command) if part[1] is not None]
        if result.code != _OK:
            self._drop_stages(command)
            if tag in _PARTS and result.value.reason == "conflict":
                self._conflicted(command, uid, result)
            return
        expect(ident not in self._refused, "a definite failure never happens", command[:3])
        self._effect(command, uid, result)

    def _effect(self, command: Any, uid: int, result: Result) -> None:
        tag, session = command[:2]
        if tag == Tag.CHECKPOINT_OPEN:
            self._handles[session, result.value[0]] = result.value[1]
        elif tag == Tag.STAGE_CHUNK:
            stage = (session, command[4])
            self._stages[stage] = self._stages.get(stage, b"") + bytes(command[6])
        elif tag == Tag.ACTIVE_REPLICA_SET:
            self._owners[self._handles[session, command[4]]] = session if command[5] else 0
        elif tag in _REVISED:
            self._revised(command, uid or self._handles[session, command[4]], result)

    def _revised(self, command: Any, uid: int, result: Result) -> None:
        tag, session, sequence = command[:3]
        several = tag == Tag.SECTION_CREATE or tag in _PARTS
        revision = result.value[0] if several else result.value
        _, before = self._last.get(session, (0, 0))
        expect = self.world.checks.expect
        expect(revision > before, "a session's writes happen in its order", command[:4])
        self._last[session] = (sequence, revision)
        owner = self._owners.get(uid, 0)
        expect(owner in (0, session), "a fence holds", session, "wrote to", uid, "of", owner)
        if tag in _PUTS:
            self._set((uid, command[5]), revision, self._data(session, command[6]))
        elif tag == Tag.SECTION_CREATE:
            self._set((uid, result.value[1]), revision, self._data(session, command[6]))
        elif tag == Tag.SECTION_DELETE:
            self._set((uid, command[5]), revision, None)
        elif tag == Tag.CHECKPOINT_WRITE:
            for section, offset, data in command[5]:
                key, new = (uid, section), self._data(session, data)
                old = self._content.get(key, b"").ljust(offset, b"\0")
                self._set(key, revision, old[:offset] + new + old[offset + len(new) :])

        elif tag == Tag.SECTION_EXPIRATION_SET:
            self._revisions[uid, command[5]] = revision
        else:
            self._changed(command, uid, result)

    def _changed(self, command: Any, uid: int, result: Result) -> None:
        """Conditions held before, and all parts happened, one after the other."""
        expect, parts = self.world.checks.expect, _parts(command)
        for part in parts:
            expect(
                part[4] in (None, self._revisions.get((uid, part[1]), 0)),
                "a condition holds", command[:4], part[1], part[4],
                "but", self._revisions.get((uid, part[1]), 0),
            )  # fmt: skip
        revision, results = result.value
        for part, told in zip(
            parts, results if command[0] == Tag.CHECKPOINT_TRANSACTION else [results], strict=True
        ):
            kind, section, offset, data = part[:4]
            key = (uid, told if section is None else section)
            new = self._data(command[1], data)
            old = self._content.get(key, b"")
            if kind == PartKind.APPEND:
                expect(told == len(old), "an append goes to the end", command[:4], told, len(old))
                offset = told
            if kind in (PartKind.APPEND, PartKind.WRITE):
                old = old.ljust(offset, b"\0")
                new = old[:offset] + new + old[offset + len(new) :]
            self._set(key, revision, None if kind == PartKind.DELETE else new)
            self._touched.append(key)

    def _conflicted(self, command: Any, uid: int, result: Result) -> None:
        """The first condition that did not hold is told, with what was found."""
        code, value = result
        for position, part in enumerate(_parts(command)):
            found = self._revisions.get((uid, part[1]), 0)
            if part[4] not in (None, found):
                self.world.checks.expect(
                    (value.detail, value.position or 0) == (found, position),
                    "a conflict tells what there is", command[:4], code, value, found, position,
                )  # fmt: skip
                return
        self.world.checks.expect(False, "a condition that holds is no conflict", command[:4])

    def _look_at_parts(self) -> None:
        """Behind each entry: parts that were refused left nothing, the others left everything."""
        touched, self._touched = self._touched, []
        for key in touched:
            checkpoint = self.machine.checkpoints.get(key[0])
            if checkpoint is None:
                continue
            section = checkpoint.sections.get(key[1])
            real = None if section is None else (bytes(section[0]), section[3])
            due = (self._content[key], self._revisions[key]) if key in self._content else None
            self.world.checks.expect(
                real == due, "all or nothing",
                key, real and (real[0][:40], real[1]), "is not", due and (due[0][:40], due[1]),
            )  # fmt: skip

    def revision_of(self, key: Key) -> int:
        """Revision of a section, 0: there is none."""
        return self._revisions.get(key, 0)

    def _data(self, session: int, data: Any) -> bytes:
        return self._stages.pop((session, data)) if isinstance(data, int) else bytes(data)

    def _drop_stages(self, command: Any) -> None:
        if command[0] in _PARTS:
            places = [part[3] for part in _parts(command)]
        elif command[0] == Tag.CHECKPOINT_WRITE:
            places = [element[2] for element in command[5]]
        else:
            places = command[6:7] if command[0] in _DATA else []
        for place in places:
            if isinstance(place, int):
                self._stages.pop((command[1], place), None)

    def _set(self, key: Key, revision: int, content: bytes | None) -> None:
        self._history.setdefault(key, []).append(Change(revision, content))
        if content is None:
            self._content.pop(key, None)
            self._revisions.pop(key, None)
        else:
            self._content[key] = content
            self._revisions[key] = revision

    def _expire(self, before: int) -> None:
        """Take what the machine let expire before a revision."""
        while self._expired and self._expired[0][0] < before:
            revision, key = self._expired.pop(0)
            self.world.checks.sometimes["sections expired"] += 1
            self._set(key, revision, None)

    # --- what clients were told -------------------------------------------------------------
    def saw(self, revision: int) -> None:
        self.floor = max(self.floor, revision)

    def refused(self, name: str, pending: Pending) -> None:
        """A call failed for certain."""
        if not pending.call.sequence:
            return
        known = self._results.get(pending.id)
        self.world.checks.expect(
            known is None or known.code != _OK,
            "a definite failure never happens", name, pending.kind, pending.call.sequence, known,
        )  # fmt: skip
        self._refused.add(pending.id)

    def was_refused(self, ident: Id) -> bool:
        result = self._results.get(ident)
        return result is not None and result.code != _OK

    def acknowledged(self, name: str, pending: Pending) -> None:
        """A call succeeded: it happened, and what was returned is what came of it."""
        result = self.must_exist(name, pending.id)
        told = pending.call.value
        self.world.checks.expect(
            _plain(told) == _plain(result.value),
            "the reply tells the truth", name, pending.kind, told, "is not", result.value,
        )  # fmt: skip
        tag = array_of(pending.call.message)[0]
        if tag in _PARTS:
            self.saw(result.value[0])
        elif type(result.value) is int and tag in _REVISED:
            self.saw(result.value)

    def must_exist(self, name: str, ident: Id) -> Result:
        result = self._results.get(ident)
        self.world.checks.expect(
            result is not None and result.code == _OK,
            "acknowledged => it happened", name, ident[1], result,
        )  # fmt: skip
        assert result is not None
        self.world.checks.acknowledged[ident[0] + b"%d" % ident[1]] = self.machine.applied_index
        return result

    def read(self, name: str, pending: Pending, revision: int, data: bytes) -> None:
        self.world.checks.expect(
            revision >= pending.floor, "linearizable reads",
            name, "read as of", revision, "but", pending.floor, "was seen before",
        )  # fmt: skip
        for own in pending.own:
            result = self._results.get(own)
            self.world.checks.expect(
                result is not None and (type(result.value) is not int or result.value <= revision),
                "one reads one's own writes", name, own[1],
            )  # fmt: skip
        self.saw(revision)
        self._reads.append((name, pending, revision, data))

    # --- at the end -------------------------------------------------------------------------
    def final(self) -> None:
        """Reads saw the content of their revision; the state is what the writes add up to."""
        for name, pending, revision, data in self._reads:
            written = self._content_at(pending.key, revision)
            self.world.checks.expect(
                data == written, "reads see what was written",
                name, pending.key, revision, data[:40], "is not", written and written[:40],
            )  # fmt: skip
        for uid, checkpoint in self.machine.checkpoints.items():
            real = {section: bytes(s[0]) for section, s in checkpoint.sections.items()}
            due = {k[1]: content for k, content in self._content.items() if k[0] == uid}
            self.world.checks.expect(
                real == due, "sections hold what was written",
                uid, sorted(real.items() ^ due.items())[:2],
            )  # fmt: skip
        self._look_at_leftovers()

    def _content_at(self, key: Key, revision: int) -> bytes | None:
        content: bytes | None = None
        for change in self._history.get(key, ()):
            if change.revision > revision:
                break
            content = change.content
        return content

    def _look_at_leftovers(self) -> None:
        world, machine = self.world, self.machine
        next_due = machine.next_due_ns()
        late_s = world.queue.now - (next_due - EPOCH_NS) / 1e9 if next_due is not None else 0.0
        world.checks.expect(
            late_s <= DUE_WITHIN_S + DRIFT_MAX * world.queue.now, "what is due is done", late_s
        )
        living = {client.core_secret for client in world.clients}
        left = [s.name for s in machine.sessions.values() if s.secret not in living]
        world.checks.expect(not left, "sessions of dead clients end", left)


def _parts(command: Any) -> list[Any]:
    """Parts of a change under a condition, or of a transaction."""
    return list(command[5]) if command[0] == Tag.CHECKPOINT_TRANSACTION else [command[5]]


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return bytes(value) if isinstance(value, memoryview) else value

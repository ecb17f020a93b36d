"""What really happened in a service world, and what clients were told about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from raftckpt.client.calls import Call
from raftckpt.model.batch import decode_batch
from raftckpt.model.commands import Tag
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.types import Result

if TYPE_CHECKING:
    from tests.sim.service import ServiceWorld

_OK: Final = 1
_WRITES: Final = frozenset((int(Tag.SECTION_PUT), int(Tag.SECTION_DELETE)))
Key = tuple[int, bytes]
"""(uid of the checkpoint, section id)"""


class Pending:
    """A call of a client, and what the checks must remember of its beginning."""

    def __init__(self, call: Call, kind: str, data: bytes | None, floor: int) -> None:
        self.call, self.kind, self.data, self.floor = call, kind, data, floor
        self.key: Key = (0, b"")
        self.own: list[bytes] = []


class Truth:
    """What really happened: every entry applied once, in order, by a machine of its own."""

    def __init__(self, world: ServiceWorld) -> None:
        self.world = world
        self.machine = CheckpointMachine()
        self.floor = 0
        """Highest revision that any client has seen."""
        self._effects: dict[bytes, int] = {}
        self._history: dict[Key, list[tuple[int, bytes | None]]] = {}
        self._refused: set[bytes] = set()
        self._reads: list[tuple[str, Pending, int, bytes]] = []
        self._last: dict[int, tuple[int, int]] = {}

    def applied(self, index: int, payload: bytes) -> None:
        if index <= self.machine.applied_index:
            return
        commands = decode_batch(payload).commands
        keys = [self._key(command) for command in commands]
        results = self.machine.apply(index, payload)
        for command, key, result in zip(commands, keys, results, strict=True):
            if command[0] in _WRITES and result.code == _OK:
                self._effect(command, key, result)

    def _key(self, command: Any) -> Key | None:
        if command[0] not in _WRITES:
            return None
        session = self.machine.sessions.get(command[1])
        opened = session.handles.get(command[4]) if session is not None else None
        # the handle may be opened earlier in this very batch
        return (opened[0].uid if opened is not None else 0, command[5])

    def _effect(self, command: Any, key: Key | None, result: Result) -> None:
        revision = result.value
        data = command[6] if command[0] == Tag.SECTION_PUT else None
        sequence, before = self._last.get(command[1], (0, 0))
        expect = self.world.checks.expect
        if command[2] > sequence:
            self._last[command[1]] = (command[2], revision)
            expect(revision > before, "a session's writes happen in its order", command[:4])
        if data is not None:
            known = self._effects.setdefault(data, revision)
            expect(known == revision, "at most one effect", data, "at", known, revision)
            expect(data not in self._refused, "a definite failure never happens", data)
        assert key is not None
        history = self._history.setdefault(key, [])
        if not history or revision > history[-1][0]:
            history.append((revision, data))

    def saw(self, revision: int) -> None:
        self.floor = max(self.floor, revision)

    def refused(self, name: str, data: bytes) -> None:
        self.world.checks.expect(
            data not in self._effects, "a definite failure never happens", name, data
        )
        self._refused.add(data)

    def acknowledged(self, name: str, data: bytes, revision: int) -> None:
        self.must_exist(name, data)
        self.world.checks.expect(
            self._effects[data] == revision, "the reply tells the truth", name, data, revision
        )
        self.saw(revision)

    def must_exist(self, name: str, data: bytes) -> None:
        self.world.checks.expect(data in self._effects, "acknowledged => it happened", name, data)
        self.world.checks.acknowledged[data] = self._effects[data]

    def read(self, name: str, pending: Pending, revision: int, data: bytes) -> None:
        self.world.checks.expect(
            revision >= pending.floor, "linearizable reads",
            name, "read as of", revision, "but", pending.floor, "was seen before",
        )  # fmt: skip
        for own in pending.own:
            at = self._effects.get(own)
            self.world.checks.expect(
                at is not None and at <= revision, "one reads one's own writes", name, own
            )
        self.saw(revision)
        self._reads.append((name, pending, revision, data))

    def final(self) -> None:
        """Every read saw exactly the content of its revision."""
        for name, pending, revision, data in self._reads:
            content = None
            for changed, value in self._history.get(pending.key, ()):
                if changed > revision:
                    break
                content = value
            self.world.checks.expect(
                content == data, "reads see what was written", name, pending.key, revision, data,
                "is not", content,
            )  # fmt: skip

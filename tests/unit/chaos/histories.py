"""Histories for tests: by hand, and from executions that are right by construction."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from raftckpt.chaos.history import ABSENT, DIRECTORY, Kind, Operation, Outcome, SectionPart

UNIT = 7


class Book:
    """Writes operations down; times are small integers, revisions are given."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def add(self, session: str, kind: Kind, parts: Any, at: Any, **more: Any) -> Operation:
        start, end = at
        op = Operation(
            session=session,
            number=len(self.operations),
            kind=kind,
            unit=more.pop("unit", UNIT),
            parts=tuple(SectionPart(*part) for part in parts),
            invoked=start,
            returned=end,
            **more,
        )
        self.operations.append(op)
        return op

    def put(self, who: str, section: str, data: str, at: Any, revision: int | None) -> None:
        self.add(who, Kind.PUT, [(section, 0, data.encode())], at, revision=revision)

    def lost(self, who: str, kind: Kind, parts: Any, start: int, **more: Any) -> None:
        """A change whose outcome nobody was told."""
        self.add(who, kind, parts, (start, None), outcome=Outcome.UNKNOWN, **more)

    def maybe(self, who: str, section: str, data: str, start: int) -> None:
        self.lost(who, Kind.PUT, [(section, 0, data.encode())], start)

    def refused(self, who: str, kind: Kind, section: str, reason: str, at: Any) -> None:
        parts = [(section, 0, b"refused-" + who.encode())]
        self.add(who, kind, parts, at, outcome=Outcome.REFUSED, reason=reason)

    def read(self, who: str, at: Any, revision: int | None, replica: str = "", **seen: Any) -> None:
        parts = [
            (section, 0, ABSENT if content is None else content.encode())
            for section, content in seen.items()
        ]
        self.add(who, Kind.READ, parts, at, revision=revision, replica=replica)

    def read_all(self, who: str, at: Any, revision: int, replica: str = "", **seen: str) -> None:
        parts = [(section, 0, content.encode()) for section, content in seen.items()]
        self.add(who, Kind.READ_ALL, parts, at, revision=revision, replica=replica)

    def open(self, who: str, name: str, uid: int, at: Any, revision: int, made: bool) -> None:
        parts = [(name, 0, b"%d" % uid)]
        self.add(who, Kind.OPEN, parts, at, revision=revision, value=int(made), unit=DIRECTORY)


class Execution:
    """A cluster that does one thing after the other, and the history its clients would write.

    Arguments:
        seed: of everything random.
        trouble: share of changes whose outcome the client is not told.
        quiet: share of changes whose revision it is not told.
        conditions: whether there are appends, conditions and transactions, too.
    """

    def __init__(
        self,
        seed: int,
        steps: int,
        *,
        trouble: float = 0.0,
        quiet: float = 0.0,
        conditions: bool = False,
    ) -> None:
        self.more = ["append", "set", "transact", "versioned"] * 2 if conditions else []
        self.dice = random.Random(seed)
        self.book = Book()
        self.content: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        self.revision = 1  # the checkpoint was created
        self.now = 0
        self.trouble = trouble
        self.quiet = quiet
        self.busy: dict[str, int] = {}
        self.book.add(
            "c0",
            Kind.OPEN,
            [("name", 0, b"7")],
            (0, 1),
            revision=1,
            value=1,
            unit=DIRECTORY,
        )
        for number in range(steps):
            self.now += self.dice.randint(1, 10)
            self._step(number)

    def _step(self, number: int) -> None:
        dice = self.dice
        section = dice.choice("abc")
        data = b"v%d" % number
        kinds = ["put", "put", "write", "create", "delete", "read", "read", "all"]
        match dice.choice([*kinds, *self.more]):
            case "put":
                self.content[section] = data
                self._changed(Kind.PUT, [(section, 0, data)])
            case "write":
                sections = dice.sample("abc", 2)
                missing = [at for at, each in enumerate(sections) if each not in self.content]
                parts = [(each, dice.choice([0, 1, 3]), data) for each in sections]
                if missing:
                    self._refused(Kind.WRITE, parts, "section_missing", missing[0])
                    return
                for each, offset, _ in parts:
                    old = self.content[each].ljust(offset, b"\0")
                    self.content[each] = old[:offset] + data + old[offset + len(data) :]
                self._changed(Kind.WRITE, parts)
            case "create" if section in self.content:
                self._refused(Kind.CREATE, [(section, 0, data)], "section_exists")
            case "create":
                self.content[section] = data
                self._changed(Kind.CREATE, [(section, 0, data)])
            case "delete" if section not in self.content:
                self._refused(Kind.DELETE, [(section,)], "section_missing")
            case "delete":
                del self.content[section]
                self._changed(Kind.DELETE, [(section,)])
            case "read":
                sections = dice.sample("abc", dice.choice([1, 2]))
                seen = [(each, 0, self.content.get(each, ABSENT)) for each in sections]
                self._add(Kind.READ, seen, revision=self.revision)
            case "all":
                seen = [(each, 0, data) for each, data in self.content.items()]
                self._add(Kind.READ_ALL, seen, revision=self.revision)

            case "append":
                offset = len(self.content.get(section, b""))
                self.content[section] = self.content.get(section, b"") + data
                self._changed(Kind.APPEND, [(section, 0, data)], results=(offset,))
            case "set":
                found = self.versions.get(section, 0)
                wanted = dice.choice([found, found, found - 1 if found else self.revision])
                part = (section, 0, data, None, wanted)
                if wanted != found:
                    self._add(Kind.PUT, [part], **_CONFLICT, value=found)
                    return
                self.content[section] = data
                self._changed(Kind.PUT, [part])
            case "transact":
                self._transact(data)
            case "versioned" if section in self.content:
                seen = (section, 0, self.content[section], None, self.versions[section])
                self._add(Kind.READ, [seen])
            case "versioned":
                self._refused(Kind.READ, [(section,)], "section_missing")

    def _transact(self, data: bytes) -> None:
        """Several parts, each on what those before it made, the conditions on what was before."""
        dice = self.dice
        content = dict(self.content)
        parts: list[Any] = []
        results: list[int | None] = []
        refused: int | None = None
        for section in dice.choices("abc", k=dice.choice([2, 2, 3])):
            kind = dice.choice([Kind.PUT, Kind.APPEND, Kind.APPEND, Kind.OVERWRITE, Kind.DELETE])
            wanted = self.versions.get(section, 0) if dice.random() < 0.5 else None
            parts.append((section, 0, data, kind, wanted))
            results.append(len(content.get(section, b"")) if kind is Kind.APPEND else None)
            if refused is not None:
                continue
            if kind in (Kind.OVERWRITE, Kind.DELETE) and section not in content:
                refused = len(parts) - 1
            elif kind is Kind.DELETE:
                del content[section]
            else:
                old = content.get(section, b"") if kind is Kind.APPEND else b""
                content[section] = old + data
        at = dice.randrange(len(parts))
        section = parts[at][0]
        if dice.random() < 0.2:
            found = self.versions.get(section, 0)
            parts[at] = (*parts[at][:4], found + 1)
            self._add(Kind.TRANSACTION, parts, **_CONFLICT, value=found, index=at)
        elif refused is not None:
            self._refused(Kind.TRANSACTION, parts, "section_missing", refused)
        else:
            self.content = content
            self._changed(Kind.TRANSACTION, parts, results=tuple(results))

    def _changed(self, kind: Kind, parts: Any, **told: Any) -> None:
        self.revision += 1
        for section in {part[0] for part in parts}:
            self.versions[section] = self.revision
            if section not in self.content:
                del self.versions[section]
        chance = self.dice.random()
        if chance < self.trouble:
            self._add(kind, parts, outcome=Outcome.UNKNOWN)
        elif chance < self.trouble + self.quiet:
            self._add(kind, parts, **told)
        else:
            self._add(kind, parts, revision=self.revision, **told)
        if self.dice.random() < self.trouble:  # one that never happened
            never = [(part[0], *part[1:2], b"never", *part[3:]) for part in parts]
            self._add(kind, never, never=True)

    def _refused(self, kind: Kind, parts: Any, reason: str, index: int | None = None) -> None:
        self._add(kind, parts, outcome=Outcome.REFUSED, reason=reason, index=index)

    def _add(self, kind: Kind, parts: Any, *, never: bool = False, **more: Any) -> None:
        # a client asks one thing at a time: the point of effect lies within
        dice = self.dice
        start, end = self.now - dice.randint(0, 40), self.now + dice.randint(0, 40)
        if never:
            more["outcome"] = Outcome.UNKNOWN
        if more.get("outcome") is Outcome.UNKNOWN:
            end = None  # type: ignore[assignment]
        name = f"c{len(self.book.operations)}"
        self.book.add(name, kind, parts, (start, end), **more)


_CONFLICT: dict[str, Any] = {"outcome": Outcome.REFUSED, "reason": "conflict"}


def changed(operation: Operation, **more: Any) -> Operation:
    return replace(operation, **more)

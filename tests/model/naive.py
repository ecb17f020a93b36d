"""The machine once more, as plainly as it can be written: linear scans, whole copies, exceptions.

It shares no code with the product but the numbers of tags and codes, and it knows nothing of
pages, indices, images or reply queues. Results are ``(1, value)`` or ``(code, reason, position)``.
"""

from __future__ import annotations

from typing import Any

NEVER = 2**63 - 1
READ, WRITE, CREATE = 1, 2, 4
INVALID, BAD_HANDLE, ACCESS, NOT_EXIST, EXIST, NO_SPACE, NO_RES, BAD_OP = (
    7,
    9,
    11,
    12,
    14,
    15,
    18,
    20,
)


class No(Exception):
    pass


class Naive:
    def __init__(self) -> None:
        self.now = self.revision = self.uids = 0
        self.sessions: dict[int, Any] = {}
        self.ended = 0
        self.checkpoints: list[Any] = []

    def apply(self, now: int, commands: list[Any]) -> list[Any]:
        self.now = max(self.now, now)
        return [self.one(c) for c in commands]

    def one(self, c: list[Any]) -> Any:
        tag, number, sequence, answered, *args = c
        try:
            if number == 0:
                return (1, getattr(self, f"cluster_{tag}")(*args))
            if number not in self.sessions:
                raise No(BAD_HANDLE, "session", None)
            s = self.sessions[number]
            s["answered"] = max(s["answered"], min(answered, s["last"]))
            if sequence <= s["answered"]:
                raise No(2, "answered", None)
            if sequence in s["replies"]:
                return s["replies"][sequence]
            if sequence != s["last"] + 1:
                raise No(6, "gap", None)
        except No as refusal:
            return refusal.args
        try:
            result = (1, getattr(self, f"do_{tag}")(s, *args))
        except No as refusal:
            result = refusal.args
        s["last"] = sequence
        s["replies"][sequence] = result
        return result

    def step(self, c: Any) -> int:
        self.revision += 1
        c["revision"] = self.revision
        return self.revision

    # cluster
    def cluster_1(self, secret: bytes, name: str, node: str, timeout: int, grace: int) -> Any:
        for number, s in self.sessions.items():
            if s["secret"] == secret:
                return [number]
        number = len(self.sessions) + self.ended + 1
        self.sessions[number] = {
            "id": number, "secret": secret, "node": node, "last": 0, "answered": 0,
            "replies": {}, "handles": {}, "opens": 0, "stages": {},
        }  # fmt: skip
        return [number]

    def end(self, number: int) -> None:
        s = self.sessions[number]
        for handle in list(s["handles"]):
            self.close(s, handle)
        del self.sessions[number]
        self.ended += 1

    def cluster_3(self, numbers: list[int]) -> int:
        living = [n for n in dict.fromkeys(numbers) if n in self.sessions]
        for n in living:
            self.end(n)
        return len(living)

    def cluster_41(self, nonce: bytes) -> None:
        pass

    def cluster_40(self) -> int:
        done = 0
        while True:
            due = [
                (c["until"], c["uid"], b"", c) for c in self.checkpoints if c["until"] is not None
            ]
            for c in self.checkpoints:
                due += [(v["due"], c["uid"], k, c) for k, v in c["sections"].items()]
            due = [d for d in due if d[0] <= self.now and d[0] < NEVER]
            if not due:
                return done
            _, _, section_id, c = min(due, key=lambda d: d[:3])
            self.step(c)
            if section_id:
                del c["sections"][section_id]
            else:
                self.checkpoints.remove(c)
            done += 1

    # checkpoints
    def openers(self, c: Any) -> list[Any]:
        return [s for s in self.sessions.values() if any(h[0] is c for h in s["handles"].values())]

    def do_2(self, s: Any) -> None:
        self.end(s["id"])

    def do_10(self, s: Any, name: str, flags: int, attributes: Any) -> Any:
        found = [c for c in self.checkpoints if c["name"] == name and not c["unlinked"]]
        if not found:
            if not flags & CREATE:
                raise No(NOT_EXIST, "checkpoint_missing", None)
            self.uids += 1
            self.revision += 1
            c = {
                "uid": self.uids, "name": name, "attributes": list(attributes), "sections": {},
                "active": None, "owner": 0, "exclusive": False, "epoch": 0, "unlinked": False,
                "until": None, "revision": self.revision, "generated": 0,
            }  # fmt: skip
            if attributes[3] == 1:
                c["sections"][b""] = {
                    "data": b"",
                    "due": NEVER,
                    "at": self.now,
                    "revision": self.revision,
                }
            self.checkpoints.append(c)
        else:
            c = found[0]
            mine = [a for i, a in enumerate(c["attributes"]) if i != 2]
            if flags & CREATE and mine != [a for i, a in enumerate(attributes) if i != 2]:
                raise No(EXIST, "attributes_differ", None)
        s["opens"] += 1
        s["handles"][s["opens"]] = (c, flags)
        c["until"] = None
        return [s["opens"], c["uid"], not found, list(c["attributes"]), self.revision]

    def close(self, s: Any, handle: int) -> None:
        c, _ = s["handles"].pop(handle)
        openers = self.openers(c)
        lost = c["active"] is not None and c["active"][1] == s["node"]
        lost = lost and all(o["node"] != s["node"] for o in openers)
        if lost:
            c["active"] = None
        if not openers and (c["unlinked"] or c["attributes"][2] < 10_000_000):
            self.step(c)
            self.checkpoints.remove(c)
        else:
            if not openers:
                c["until"] = min(self.now + c["attributes"][2], NEVER)
            if lost:
                self.step(c)

    def handle(self, s: Any, handle: int) -> Any:
        if handle not in s["handles"]:
            raise No(BAD_HANDLE, "handle", None)
        return s["handles"][handle]

    def do_11(self, s: Any, handle: int) -> None:
        self.handle(s, handle)
        self.close(s, handle)

    def do_12(self, s: Any, name: str) -> int:
        for c in self.checkpoints:
            if c["name"] == name and not c["unlinked"]:
                c["unlinked"] = True
                revision = self.step(c)
                if not self.openers(c):
                    self.step(c)
                    self.checkpoints.remove(c)
                return revision
        raise No(NOT_EXIST, "checkpoint_missing", None)

    def change(self, s: Any, handle: int) -> Any:
        c, flags = self.handle(s, handle)
        if not flags & WRITE:
            raise No(ACCESS, "no_right", None)
        if c["exclusive"] and c["owner"] != s["id"]:
            raise No(ACCESS, "fenced", None)
        return c

    def active(self, c: Any) -> None:
        if c["attributes"][0] in (10, 12) and c["active"] is None:
            raise No(NOT_EXIST, "no_active", None)

    def do_13(self, s: Any, handle: int, retention: int) -> int:
        if retention < 0:
            raise No(INVALID, "schema", None)
        c = self.change(s, handle)
        if c["unlinked"]:
            raise No(BAD_OP, "unlinked", None)
        c["attributes"][2] = retention
        return self.step(c)

    def do_14(self, s: Any, handle: int, exclusive: bool) -> Any:
        c, flags = self.handle(s, handle)
        if not flags & WRITE:
            raise No(ACCESS, "no_right", None)
        if not exclusive and c["attributes"][0] not in (10, 12):
            raise No(BAD_OP, "not_collocated", None)
        if (c["active"], c["exclusive"]) != ((s["id"], s["node"]), exclusive):
            c.update(active=(s["id"], s["node"]), owner=s["id"], exclusive=exclusive)
            c["epoch"] += 1
            self.step(c)
        return [c["epoch"], c["revision"]]

    # sections
    def value(self, s: Any, data: Any) -> bytes:
        if isinstance(data, bytes):
            return data
        if data not in s["stages"]:
            raise No(INVALID, "stage", None)
        value: bytes = s["stages"].pop(data)
        return value

    def fits(self, c: Any, data: bytes, position: int | None = None) -> None:
        if len(data) > c["attributes"][4]:
            raise No(INVALID, "section_too_big", position)

    def new(self, c: Any, section_id: bytes, data: bytes, due: int) -> int:
        if len(c["sections"]) >= c["attributes"][3]:
            raise No(NO_SPACE, "sections_full", None)
        revision = self.step(c)
        c["sections"][section_id] = {"data": data, "due": due, "at": self.now, "revision": revision}
        return revision

    def do_20(self, s: Any, handle: int, section_id: bytes, data: Any, at: int, ttl: Any) -> Any:
        if not section_id:
            raise No(INVALID, "section_id", None)
        if at < 0 or (ttl or 0) < 0:
            raise No(INVALID, "schema", None)
        data = self.value(s, data)
        c = self.change(s, handle)
        if len(section_id) > c["attributes"][5]:
            raise No(INVALID, "section_id", None)
        self.active(c)
        self.fits(c, data)
        if c["attributes"][3] == 1:
            raise No(EXIST, "default_section", None)
        if section_id in c["sections"]:
            raise No(EXIST, "section_exists", None)
        due = at if ttl is None else self.now + ttl
        revision = self.new(c, section_id, data, due)
        if due <= self.now:
            self.step(c)
            del c["sections"][section_id]
        return [revision, section_id]

    def section(self, c: Any, section_id: bytes, position: int | None = None) -> Any:
        if section_id not in c["sections"]:
            raise No(NOT_EXIST, "section_missing", position)
        return c["sections"][section_id]

    def valid(self, c: Any, section_id: bytes, position: int | None = None) -> Any:
        section = self.section(c, section_id, position)
        if section.get("corrupted"):
            raise No(BAD_OP, "corrupted", position)
        return section

    def do_21(self, s: Any, handle: int, section_id: bytes) -> int:
        if not section_id:
            raise No(INVALID, "param", None)
        c = self.change(s, handle)
        self.active(c)
        if c["attributes"][3] == 1:
            raise No(INVALID, "default_section", None)
        self.section(c, section_id)
        del c["sections"][section_id]
        return self.step(c)

    def do_22(self, s: Any, handle: int, section_id: bytes, at: int, ttl: Any) -> int:
        if at < 0 or (ttl or 0) < 0:
            raise No(INVALID, "schema", None)
        c = self.change(s, handle)
        due = at if ttl is None else self.now + ttl
        if due < self.now:
            raise No(INVALID, "time_past", None)
        self.active(c)
        if c["attributes"][3] == 1:
            raise No(INVALID, "default_section", None)
        section = self.valid(c, section_id)
        section.update(due=due, revision=self.step(c))
        return self.revision

    def do_23(self, s: Any, handle: int, section_id: bytes, data: Any, create: bool = False) -> int:
        data = self.value(s, data)
        c = self.change(s, handle)
        self.fits(c, data)
        self.active(c)
        if create and section_id not in c["sections"]:
            if not 1 <= len(section_id) <= c["attributes"][5]:
                raise No(INVALID, "section_id", None)
            return self.new(c, section_id, data, NEVER)
        section = self.section(c, section_id)
        section.update(data=data, at=self.now, revision=self.step(c), corrupted=False)
        return self.revision

    def do_24(self, s: Any, handle: int, section_id: bytes, data: Any) -> int:
        return self.do_23(s, handle, section_id, data, create=True)

    def do_25(self, s: Any, handle: int, vector: list[Any]) -> int:
        values = [s["stages"].pop(e[2], None) if isinstance(e[2], int) else e[2] for e in vector]
        if not vector:
            raise No(INVALID, "param", None)
        if None in values:
            raise No(INVALID, "stage", values.index(None))
        c, _ = self.handle(s, handle)
        for position, value in enumerate(values):
            self.fits(c, value, position)
        self.change(s, handle)
        self.active(c)
        for position, (section_id, offset, _) in enumerate(vector):
            self.section(c, section_id, position)
            if offset + len(values[position]) > c["attributes"][4]:
                raise No(NO_RES, "section_too_big", position)
            self.valid(c, section_id, position)
        revision = self.step(c)
        for (section_id, offset, _), value in zip(vector, values, strict=True):
            section = c["sections"][section_id]
            old = section["data"].ljust(offset, b"\0")
            data = old[:offset] + value + old[offset + len(value) :]
            section.update(data=data, at=self.now, revision=revision)
        return revision

    def do_27(self, s: Any, handle: int, section_id: bytes) -> int:
        c = self.change(s, handle)
        self.active(c)
        self.section(c, section_id).update(corrupted=True, revision=self.step(c))
        return self.revision

    # several changes at once: on a copy, which is thrown away if one of them cannot be done
    def do_28(self, s: Any, handle: int, part: list[Any]) -> Any:
        revision, results = self.several(s, handle, [part], [None])
        return [revision, results[0]]

    def do_29(self, s: Any, handle: int, parts: list[Any]) -> Any:
        if not parts:
            raise No(INVALID, "param", None)
        return self.several(s, handle, parts, list(range(len(parts))))

    def several(self, s: Any, handle: int, parts: list[Any], positions: list[Any]) -> Any:
        for kind, section_id, offset, data, wanted, at, ttl in parts:
            ignored = kind != 1 and (section_id is None or at != NEVER or ttl is not None)
            ignored |= bool(offset and kind != 4) or (kind == 6 and data != b"")
            ignored |= (section_id is None and wanted is not None) or (
                at != NEVER and ttl is not None
            )
            if at < 0 or (ttl or 0) < 0 or ignored:
                raise No(INVALID, "schema", None)
        values = [s["stages"].pop(p[3], None) if isinstance(p[3], int) else p[3] for p in parts]
        if None in values:
            raise No(INVALID, "stage", positions[values.index(None)])
        c = self.change(s, handle)
        self.active(c)
        for position, (_, section_id, _, _, wanted, _, _) in zip(positions, parts, strict=True):
            section = c["sections"].get(section_id, {"revision": 0})
            if wanted not in (None, section["revision"]):
                raise No(BAD_OP, "conflict", position)
        before = c["sections"], c["generated"]
        c["sections"] = {k: dict(v, new=False) for k, v in c["sections"].items()}
        try:
            results = [
                self.part(c, part, value, position)
                for part, value, position in zip(parts, values, positions, strict=True)
            ]
        except No:
            c["sections"], c["generated"] = before
            raise
        revision = self.step(c)
        for section_id, section in list(c["sections"].items()):
            if section.pop("touched", False):
                section.update(at=self.now, revision=revision)
            if section.pop("new") and section["due"] <= self.now:
                self.step(c)
                del c["sections"][section_id]
        return [revision, results]

    def part(self, c: Any, part: list[Any], data: bytes, position: Any) -> Any:
        kind, section_id, offset, _, _, at, ttl = part
        sections, default = c["sections"], c["attributes"][3] == 1
        self.fits(c, data, position)
        if kind == 1 and default:
            raise No(EXIST, "default_section", position)
        if kind == 6 and default:
            raise No(INVALID, "default_section", position)
        result = None
        if section_id is None:
            while section_id is None or section_id in sections:
                section_id = c["generated"].to_bytes(4, "big")
                c["generated"] += 1
            result = section_id
        if kind == 1 and section_id in sections:
            raise No(EXIST, "section_exists", position)
        if section_id not in sections and kind in (1, 2, 5):
            if not 1 <= len(section_id) <= c["attributes"][5]:
                raise No(INVALID, "section_id", position)
            if len(sections) >= c["attributes"][3]:
                raise No(NO_SPACE, "sections_full", position)
            due = at if ttl is None else self.now + ttl
            sections[section_id] = {"data": data, "due": due, "new": True, "touched": True}
            return 0 if kind == 5 else result
        section = self.section(c, section_id, position)
        section["touched"] = True
        if kind == 6:
            del sections[section_id]
        elif kind in (2, 3):
            section.update(data=data, corrupted=False)
        else:
            old = self.valid(c, section_id, position)["data"]
            offset = len(old) if kind == 5 else offset
            if offset + len(data) > c["attributes"][4]:
                raise No(NO_RES, "section_too_big", position)
            old = old.ljust(offset, b"\0")
            section["data"] = old[:offset] + data + old[offset + len(data) :]
            return offset if kind == 5 else None
        return None

    # queries
    def ask(self, number: int, tag: int, *args: Any) -> Any:
        try:
            if tag == 127:
                return (1, [self.revision, self.ask_127(*args)])
            target, *args = args  # type: ignore[assignment]
            if tag == 100 and not args[0]:
                raise No(INVALID, "param", None)
            if number not in self.sessions:
                raise No(BAD_HANDLE, "session", None)
            c, flags = self.handle(self.sessions[number], target)
            if not flags & (WRITE if tag == 109 else READ):
                raise No(ACCESS, "no_right", None)
            if tag == 109 and c["attributes"][0] in (1, 9):
                raise No(BAD_OP, "synchronous", None)
            if tag != 113:
                self.active(c)
            if tag == 105:
                section = self.valid(c, *args)
                return (1, [section["revision"], section["data"]])
            if tag == 109:
                return (1, [self.revision])
            return (1, [self.revision, getattr(self, f"ask_{tag}")(c, *args)])
        except No as refusal:
            return refusal.args

    def ask_100(self, c: Any, vector: list[Any]) -> Any:
        found = []
        for position, (section_id, offset, size) in enumerate(vector):
            if offset + (size or 0) > c["attributes"][4]:
                raise No(INVALID, "section_too_big", position)
            data = self.valid(c, section_id, position)["data"]
            if offset > len(data):
                raise No(INVALID, "offset", position)
            found.append(data[offset:] if size is None else data[offset : offset + size])
        return found

    def ask_101(self, c: Any) -> Any:
        return [[k, self.valid(c, k)["data"]] for k in sorted(c["sections"])]

    def ask_102(self, c: Any) -> Any:
        used = sum(len(v["data"]) for v in c["sections"].values())
        return [c["uid"], c["name"], len(c["sections"]), used, c["revision"]]

    def described(self, c: Any, k: bytes) -> Any:
        v = c["sections"][k]
        state = 1 + v.get("corrupted", False)
        return [k, v["due"], len(v["data"]), state, v["at"], v["revision"]]

    def ask_103(self, c: Any, chosen: int, at: int) -> Any:
        rows = []
        for k, v in c["sections"].items():
            corrupted = v.get("corrupted", False)
            if (
                (chosen == 1 and v["due"] == NEVER)
                or (chosen == 2 and v["due"] <= at and k)
                or (chosen == 3 and v["due"] >= at)
                or (chosen == 4 and corrupted)
                or chosen == 5
            ):
                rows.append(self.described(c, k))
        return rows

    def ask_106(self, c: Any) -> Any:
        return list(c["sections"])

    def ask_108(self, c: Any, ids: list[bytes]) -> Any:
        return [self.described(c, k) for k in ids if k in c["sections"]]

    def ask_113(self, c: Any) -> Any:
        return c["uid"]

    def ask_125(self, c: Any, prefix: bytes, after: Any, limit: int) -> Any:
        found = [k for k in c["sections"] if k.startswith(prefix) and (after is None or k > after)]
        return sorted(found)[:limit]

    def ask_126(self, c: Any, prefix: bytes, after: Any, limit: int) -> Any:
        return [self.described(c, k) for k in self.ask_125(c, prefix, after, limit)]

    def ask_127(self, prefix: str, after: Any, limit: int) -> Any:
        names = [c["name"] for c in self.checkpoints if not c["unlinked"]]
        names = [n for n in names if n.startswith(prefix) and (after is None or n > after)]
        return sorted(names)[:limit]

    def do_26(self, s: Any, stage: int, offset: int, data: bytes) -> None:
        if not data:
            raise No(INVALID, "schema", None)
        if offset != len(s["stages"].get(stage, b"")):
            s["stages"].pop(stage, None)
            raise No(INVALID, "stage", None)
        s["stages"][stage] = s["stages"].get(stage, b"") + data

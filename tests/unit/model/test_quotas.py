"""Quotas of spaces: they decide in apply, count where something changes, and only hold growth."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest

from raftckpt.model.image import digest
from raftckpt.model.machine import CheckpointMachine
from tests.unit.model.driver import (
    ACTIVE,
    ALL,
    NEVER,
    SECOND,
    DrivenMachine,
    DrivenSession,
    attributes,
    why,
)
from tests.unit.model.test_footprint import change

INVALID, NOT_EXIST, NO_SPACE, CONFLICT = 7, 12, 15, 20
CREATE, PUT, OVERWRITE, WRITE, APPEND, DELETE = range(1, 7)
QUOTAS = ("checkpoints", "sections", "bytes")
WIDE = attributes(sections=100, section=10_000)
STARTED = attributes(sections=1, section=10_000)
"""With the default section."""


def part(kind: int, section_id: bytes | None, data: bytes = b"", offset: int = 0) -> list[Any]:
    return [kind, section_id, offset, data, None, NEVER, None]


class BoundedTenant:
    """A session with spaces, and a checkpoint in one of them that holds a section of ten bytes."""

    def __init__(self, flags: int = ALL) -> None:
        self.cluster = DrivenMachine()
        self.client = self.cluster.session()
        self.machine = self.cluster.machine
        self.space("t/")
        self.handle = self.client.open(
            "t/a", fields=attributes(flags, sections=100, section=10_000)
        )
        assert self.client.put(self.handle, b"old", b"0123456789").ok

    def space(self, prefix: str) -> None:
        assert self.client.do(64, prefix, None).ok

    def quota(self, prefix: str = "t/", **values: int) -> None:
        assert self.client.do(71, prefix, list(values.items()), None).ok

    def told(self) -> dict[str, dict[str, list[int]]]:
        """[most, used] by quota and prefix, as the listing of spaces tells it."""
        rows = self.client.ask(143).value[2]
        return {row[0]: {name: rest for name, *rest in row[2]} for row in rows if len(row) > 2}


def used(machine: CheckpointMachine) -> dict[str, list[int]]:
    """What is used by space, counted from nothing."""
    prefixes = sorted(machine.access.spaces, key=len)
    found = {prefix: [0, 0, 0] for prefix in machine.access.quotas}
    for checkpoint in machine.checkpoints.values():
        deciding = [each for each in prefixes if checkpoint.name.startswith(each)][-1]
        if deciding in found:
            sections = checkpoint.sections.values()
            more = 1, len(sections), sum(len(section[0]) for section in sections)
            found[deciding] = [a + b for a, b in zip(found[deciding], more, strict=True)]
    return found


def counted(machine: CheckpointMachine) -> dict[str, list[int]]:
    quotas = machine.access.quotas.items()
    return {prefix: [each.used(name) for name in QUOTAS] for prefix, each in quotas}


def full(result: Any) -> tuple[str, int, str]:
    """(quota, most, prefix) of a refusal."""
    code, reason, _ = why(result)
    assert (code, reason) == (NO_SPACE, "space_quota"), result
    name, most, prefix = result.value.detail
    return name, most, prefix


# --- every way of growing ------------------------------------------------------------------------

GROWING = {
    "put creates": (24, b"new", b"12345"),
    "put": (24, b"old", b"0123456789abcde"),
    "overwrite": (23, b"old", b"0123456789abcde"),
    "create": (20, b"new", b"12345", NEVER, None),
    "create with a chosen id": (20, None, b"12345", NEVER, None),
    "create what is past": (20, b"new", b"12345", 1, None),
    "write behind the end": (25, [[b"old", 12, b"123"]]),
    "two writes": (25, [[b"old", 10, b"12"], [b"old", 12, b"345"]]),
    "append": (28, part(APPEND, b"old", b"12345")),
    "append creates": (28, part(APPEND, b"new", b"12345")),
    "a put under a condition": (28, [PUT, b"new", 0, b"12345", 0, NEVER, None]),
    "a write of one part": (28, part(WRITE, b"old", b"12345", 10)),
    "transaction": (29, [part(PUT, b"new", b"12"), part(APPEND, b"old", b"345")]),
    "transaction that deletes": (29, [part(DELETE, b"old"), part(CREATE, None, b"x" * 15)]),
}
CREATING = {
    name: fields
    for name, fields in GROWING.items()
    if name.startswith(("put c", "create", "append c", "a put", "transaction"))
    and name != "transaction that deletes"
}


@pytest.mark.parametrize("fields", GROWING.values(), ids=GROWING)
@pytest.mark.parametrize("flags", [ALL, ACTIVE])
def test_bytes_are_held(fields: tuple[Any, ...], flags: int) -> None:
    """Each of them takes five bytes: fourteen are too few, fifteen are enough."""
    tenant = BoundedTenant(flags)
    client, machine = tenant.client, tenant.machine
    tenant.quota(bytes=14)
    before = machine.revision, digest_of_content(machine)
    result = client.do(fields[0], tenant.handle, *fields[1:])
    assert full(result) == ("bytes", 14, "t/")
    assert (machine.revision, digest_of_content(machine)) == before
    tenant.quota(bytes=15)
    assert client.do(fields[0], tenant.handle, *fields[1:]).ok
    assert counted(machine) == used(machine)


@pytest.mark.parametrize("fields", CREATING.values(), ids=CREATING)
@pytest.mark.parametrize("flags", [ALL, ACTIVE])
def test_sections_are_held(fields: tuple[Any, ...], flags: int) -> None:
    tenant = BoundedTenant(flags)
    tenant.quota(sections=1)
    result = tenant.client.do(fields[0], tenant.handle, *fields[1:])
    assert full(result) == ("sections", 1, "t/")
    assert len(tenant.machine.names["t/a"].sections) == 1
    tenant.quota(sections=2)
    assert tenant.client.do(fields[0], tenant.handle, *fields[1:]).ok
    assert counted(tenant.machine) == used(tenant.machine)


def digest_of_content(machine: CheckpointMachine) -> list[Any]:
    return [(each.uid, each.generated, each.sections) for each in machine.checkpoints.values()]


def test_checkpoints_are_held() -> None:
    tenant = BoundedTenant()
    client = tenant.client
    tenant.quota(checkpoints=1)
    assert full(client.do(10, "t/b", 7, WIDE)) == ("checkpoints", 1, "t/")
    assert client.do(10, "t/a", 7, WIDE).ok, "it is there"
    assert client.do(10, "else", 7, WIDE).ok
    tenant.quota(checkpoints=2)
    assert client.do(10, "t/b", 7, WIDE).ok
    assert tenant.told() == {"t/": {"checkpoints": [2, 2]}}


def test_the_default_section_is_a_section() -> None:
    tenant = BoundedTenant()
    client = tenant.client
    tenant.quota(sections=1)
    assert full(client.do(10, "t/b", 7, STARTED)) == ("sections", 1, "t/")
    assert client.do(10, "t/wide", 7, WIDE).ok
    tenant.quota(sections=2)
    assert client.do(10, "t/b", 7, STARTED).ok
    assert tenant.told() == {"t/": {"sections": [2, 2]}}


def test_what_is_staged_counts_when_it_comes_into_a_section() -> None:
    tenant = BoundedTenant()
    client, handle = tenant.client, tenant.handle
    tenant.quota(bytes=110)
    for stage in (1, 2, 3):
        assert client.do(26, stage, 0, bytes(101)).ok, "of no space yet"
    assert full(client.put(handle, b"new", 1)) == ("bytes", 110, "t/")
    vector = [part(DELETE, b"old"), [PUT, b"new", 0, 2, None, NEVER, None]]
    assert client.do(29, handle, vector).ok
    assert full(client.write(handle, [b"new", 10, 3])) == ("bytes", 110, "t/")
    assert tenant.told() == {"t/": {"bytes": [110, 101]}}


def test_all_of_a_space_count_together_whoever_writes() -> None:
    tenant = BoundedTenant()
    tenant.quota(bytes=20)
    other = tenant.cluster.session()
    handle = other.open("t/b", fields=WIDE)
    assert other.put(handle, b"x", bytes(10)).ok
    assert full(other.put(handle, b"y", b"1"))[0] == "bytes"
    assert full(tenant.client.put(tenant.handle, b"y", b"1"))[0] == "bytes"
    assert tenant.client.put(tenant.handle, b"old", b"1").ok
    assert other.put(handle, b"y", bytes(9)).ok


# --- what goes on --------------------------------------------------------------------------------


def test_a_quota_below_what_is_used_takes_nothing_and_shrinking_goes_on() -> None:
    tenant = BoundedTenant()
    client, handle = tenant.client, tenant.handle
    for name in (b"a", b"b", b"c", b"brief"):
        due = tenant.cluster.now + SECOND if name == b"brief" else NEVER
        assert client.create(handle, name, bytes(100), due).ok
    second = client.open("t/b", fields=attributes(retention=0))
    tenant.quota(checkpoints=1, sections=1, bytes=1)
    assert client.all(handle).keys() == {b"old", b"a", b"b", b"c", b"brief"}
    assert tenant.told() == {"t/": {"checkpoints": [1, 2], "sections": [1, 5], "bytes": [1, 410]}}
    assert full(client.put(handle, b"old", bytes(11)))[0] == "bytes"
    assert client.put(handle, b"old", bytes(10)).ok, "no more than it was"
    assert client.put(handle, b"old", bytes(9)).ok
    assert client.write(handle, [b"a", 50, bytes(50)]).ok
    assert client.do(28, handle, part(OVERWRITE, b"a", b"1")).ok
    assert client.do(29, handle, [part(DELETE, b"a"), part(PUT, b"d", b"1")]).ok
    assert (
        full(client.do(29, handle, [part(OVERWRITE, b"b", b""), part(PUT, b"e")]))[0] == "sections"
    )
    assert client.do(21, handle, b"b").ok
    assert client.do(22, handle, b"c", NEVER, None).ok
    assert tenant.cluster.due(2 * SECOND) == 1
    assert client.do(27, handle, b"c").ok
    assert client.put(handle, b"c", b"mended").ok
    assert client.do(11, second).ok, "and it is gone"
    assert client.do(12, "t/a").ok
    assert tenant.told()["t/"] == {"checkpoints": [1, 1], "sections": [1, 3], "bytes": [1, 16]}
    assert client.do(11, handle).ok
    assert tenant.told()["t/"] == {"checkpoints": [1, 0], "sections": [1, 0], "bytes": [1, 0]}
    handle = client.open("t/a", fields=WIDE)
    assert client.put(handle, b"a", b"1").ok


def test_what_is_unlinked_counts_until_it_is_destroyed() -> None:
    tenant = BoundedTenant()
    tenant.quota(checkpoints=1, bytes=10)
    assert tenant.client.do(12, "t/a").ok
    assert full(tenant.client.do(10, "t/a", 7, WIDE))[0] == "checkpoints"
    assert full(tenant.client.put(tenant.handle, b"x", b"1"))[0] == "bytes"
    assert counted(tenant.machine) == used(tenant.machine) == {"t/": [1, 1, 10]}
    assert counted(tenant.cluster.restored()) == {"t/": [1, 1, 10]}
    (result,) = tenant.cluster.apply([3, 0, 0, 0, [tenant.client.id]])
    assert result.value == 1
    assert counted(tenant.machine) == {"t/": [0, 0, 0]}


def test_retention_ends_what_counts() -> None:
    tenant = BoundedTenant()
    handle = tenant.client.open("t/kept", fields=attributes(retention=SECOND))
    tenant.quota(checkpoints=2)
    assert tenant.client.do(11, handle).ok
    assert counted(tenant.machine)["t/"][0] == 2
    assert tenant.cluster.due(2 * SECOND) == 1
    assert counted(tenant.machine)["t/"][0] == 1


# --- which space ---------------------------------------------------------------------------------


def test_the_longest_prefix_decides_alone() -> None:
    tenant = BoundedTenant()
    client = tenant.client
    tenant.space("t/deep/")
    tenant.quota("", checkpoints=1)
    tenant.quota("t/", checkpoints=1)
    assert full(client.do(10, "t/b", 7, WIDE)) == ("checkpoints", 1, "t/")
    assert client.do(10, "t/deep/a", 7, WIDE).ok, "a space without quotas has none"
    assert client.do(10, "t/deep/b", 7, WIDE).ok
    assert client.do(10, "other", 7, WIDE).ok
    assert full(client.do(10, "t", 7, WIDE)) == ("checkpoints", 1, "")
    assert tenant.told() == {"": {"checkpoints": [1, 1]}, "t/": {"checkpoints": [1, 1]}}


def test_spaces_that_come_and_go_take_what_is_theirs() -> None:
    tenant = BoundedTenant()
    client, machine = tenant.client, tenant.machine
    deep = client.open("t/deep/a", fields=WIDE)
    assert client.put(deep, b"x", bytes(7)).ok
    tenant.quota("t/", bytes=17)
    tenant.quota("", bytes=1)
    assert counted(machine) == {"t/": [2, 2, 17], "": [0, 0, 0]}
    tenant.space("t/deep/")
    assert counted(machine) == {"t/": [1, 1, 10], "": [0, 0, 0]}
    assert client.put(deep, b"x", bytes(700)).ok, "it has no quotas"
    tenant.quota("t/deep/", bytes=701)
    assert counted(machine)["t/deep/"] == [1, 1, 700]
    assert full(client.put(deep, b"x", bytes(702))) == ("bytes", 701, "t/deep/")
    assert client.do(67, "t/deep/", None).ok
    assert counted(machine) == {"t/": [2, 2, 710], "": [0, 0, 0]}
    assert full(client.put(deep, b"x", bytes(701))) == ("bytes", 17, "t/")
    assert client.do(67, "t/", None).ok
    assert counted(machine) == used(machine) == {"": [2, 2, 710]}
    assert full(client.put(deep, b"x", bytes(701))) == ("bytes", 1, "")
    tenant.quota("", bytes=0)
    assert counted(machine) == {}
    assert all(each.quotas is None for each in machine.checkpoints.values())
    assert client.put(deep, b"x", bytes(701)).ok
    assert client.do(64, "t/", None).ok
    assert client.put(deep, b"x", bytes(9000)).ok, "the quotas of one that was there before"


def test_they_hold_whether_rights_are_on_or_off() -> None:
    tenant = BoundedTenant()
    client, cluster = tenant.client, tenant.cluster
    tenant.quota(bytes=10)
    token = ["ops", "t1", b"d" * 32, NEVER, False, None]
    assert client.do(61, *token).ok
    assert client.do(65, "", "ops", 31, None).ok
    assert client.do(65, "t/", "ops", 31, None).ok
    assert client.do(60, True, None).ok
    (result,) = cluster.apply([69, 0, 0, 0, b"O" * 16, "ops", "n1", 10 * SECOND, 0, 1])
    ops = DrivenSession(cluster, result.value[0], b"O" * 16)
    handle = ops.open("t/a", 3, None)
    assert full(ops.put(handle, b"x", b"1")) == ("bytes", 10, "t/")
    assert ops.do(60, False, None).ok
    assert full(ops.put(handle, b"x", b"1")) == ("bytes", 10, "t/")


# --- setting them --------------------------------------------------------------------------------


def test_a_change_is_for_the_tables_it_was_made_for() -> None:
    tenant = BoundedTenant()
    client, access = tenant.client, tenant.machine.access
    revision = access.revision
    assert why(client.do(71, "t/", [["bytes", 5]], revision + 1)) == (
        CONFLICT,
        "access_changed",
        None,
    )
    assert client.do(71, "t/", [["bytes", 5], ["sections", 6]], revision).value == revision + 1
    assert client.do(71, "t/", [["bytes", 5]], None).value == revision + 1, "nothing changed"
    assert client.do(71, "t/", [["checkpoints", 0]], None).value == revision + 1
    assert client.do(71, "t/", [["bytes", 0]], None).value == revision + 2
    assert access.quotas["t/"].given == {"sections": 6}
    assert client.do(71, "t/", [["sections", 7], ["sections", 0]], None).ok, "the last one counts"
    assert access.quotas == {}
    assert why(client.do(71, "none/", [["bytes", 5]], None))[:2] == (NOT_EXIST, "space_missing")


@pytest.mark.parametrize("values", [[["sessions", 5]], [["bytes", 5], ["Bytes", 5]]])
def test_there_are_no_others(values: list[Any]) -> None:
    tenant = BoundedTenant()
    result = tenant.client.do(71, "t/", values, None)
    assert why(result)[:2] == (INVALID, "param")
    assert not tenant.machine.access.quotas, "all or none"


@pytest.mark.parametrize("values", [[], [["bytes", -1]], [["", 5]], [["x" * 33, 5]], [["bytes"]]])
def test_what_is_no_quota_is_refused_as_it_arrives(values: list[Any]) -> None:
    tenant = BoundedTenant()
    assert not tenant.client.do(71, "t/", values, None).ok
    assert not tenant.machine.access.quotas


# --- the way of plain writes, and early acceptance -----------------------------------------------


def test_the_express_lane_asks_and_counts() -> None:
    tenant = BoundedTenant()
    client, handle = tenant.client, tenant.handle
    tenant.quota(bytes=10)
    assert client.put(handle, b"old", b"9876543210").ok
    assert full(client.put(handle, b"old", b"0123456789x"))[0] == "bytes"
    assert client.do(11, client.open("t/a", 3, None)).ok  # and the refusal is forgotten
    assert client.put(handle, b"old", b"12").ok
    assert counted(tenant.machine) == {"t/": [1, 1, 2]}
    assert client.put(handle, b"old", b"1234567890").ok
    assert counted(tenant.machine) == {"t/": [1, 1, 10]}


def test_what_may_be_promised_is_the_least_that_is_left() -> None:
    from raftckpt.protocol.operations import SectionPut

    tenant = BoundedTenant(ACTIVE)
    machine = tenant.machine

    def early(section_id: bytes, data: bytes) -> Any:
        return machine.check(SectionPut(tenant.client.id, 1, 0, tenant.handle, section_id, data))

    assert early(b"old", b"x").value[3:] == (NEVER - 10, NEVER)
    tenant.quota(bytes=100, sections=3)
    assert early(b"old", b"x").value[3:] == (90, 2)
    assert early(b"new", b"x").value[3:] == (90, 2)
    tenant.quota(bytes=5, sections=1)
    assert early(b"old", b"x").value[3:] == (-5, 0)
    assert full(early(b"new", b"x"))[0] == "sections"
    assert full(early(b"old", bytes(11)))[0] == "bytes"


# --- images --------------------------------------------------------------------------------------


def test_an_image_has_them_and_one_without_is_as_before() -> None:
    tenant = BoundedTenant()
    before = b"".join(tenant.machine.freeze())
    tenant.quota(sections=9, bytes=99)
    restored = tenant.cluster.restored()
    assert counted(restored) == counted(tenant.machine) == {"t/": [1, 1, 10]}
    assert restored.access.quotas["t/"].given == {"sections": 9, "bytes": 99}
    assert digest(restored.freeze()) == digest(tenant.machine.freeze())
    other = DrivenMachine(restored)
    client = DrivenSession(other, tenant.client.id, tenant.client.secret)
    client.sequence = tenant.client.sequence
    assert full(client.put(tenant.handle, b"x", bytes(90)))[0] == "bytes"
    spaces = access_of(before)[4]
    assert spaces == [["", []], ["t/", []]]


def access_of(image: bytes) -> list[Any]:
    """The object of an image that says who may do what."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    unpacker.feed(image)
    found: list[Any] = [each for each in unpacker if type(each) is list][-2]
    return found


@pytest.mark.parametrize(
    "quotas",
    [
        [],
        None,
        5,
        "text",
        [["bytes", 0]],
        [["bytes", -1]],
        [["bytes", True]],
        [["bytes", "5"]],
        [["bytes"]],
        ["bytes"],
        [["sessions", 5]],
        [["bytes", 5], ["bytes", 5]],
        [["bytes", 5], ["sections", 5]],
        [["bytes", 1 << 63]],
    ],
)
def test_damaged_quotas_are_refused(quotas: Any) -> None:
    from raftckpt.model import image_access

    tenant = BoundedTenant()
    fields = list(image_access.frozen(tenant.machine) or ())
    fields[4] = [["", []], ["t/", [], quotas]]
    with pytest.raises((ValueError, TypeError, LookupError)):
        image_access.load(tenant.cluster.restored(), fields)
    for row in ["", []], ["t/", [], [["bytes", 5]], []], "text/":
        fields[4] = [["", []], row]
        with pytest.raises((ValueError, TypeError, LookupError)):
            image_access.load(tenant.cluster.restored(), fields)


# --- random --------------------------------------------------------------------------------------


def test_random_changes_within_quotas_count_what_there_is() -> None:
    """The count equals a recount in every step, the digest that of a restored state."""
    reasons: dict[str, int] = dict.fromkeys(QUOTAS, 0)
    for seed in range(25):
        rng = random.Random(f"quotas/{seed}")
        tenant = BoundedTenant()
        cluster, client = tenant.cluster, tenant.client
        told = cluster.apply

        def noted(*commands: Any, told: Any = told) -> Any:
            results = told(*commands)
            for result in results:
                if not result.ok and result.value.reason == "space_quota":
                    reasons[result.value.detail[0]] += 1
            return results

        cluster.apply = noted  # type: ignore[method-assign]
        for step in range(200):
            prefix = rng.choice(["", "", "x", "y"])
            match rng.randrange(20):
                case 0:
                    most = rng.choice([0, 1, 2, 2, 3, 100, 200])
                    client.do(71, prefix, [[rng.choice(QUOTAS), most]], None)
                case 1:
                    client.do(rng.choice([64, 64, 67]), prefix, None)
                case 2:
                    client.do(2)
                    client = cluster.session()
                    for name in ("x", "y", "xy"):
                        client.do(10, name, 7, attributes(retention=0))
                case _:
                    change(rng, cluster, client)
            assert counted(cluster.machine) == used(cluster.machine)
            for each in cluster.machine.checkpoints.values():
                assert each.quotas is cluster.machine.access.quotas_of(each.name)
            if step % 40 == 39:
                restored = cluster.restored()
                assert counted(restored) == counted(cluster.machine)
                assert digest(restored.freeze()) == digest(cluster.machine.freeze())
                assert restored.footprint == cluster.machine.footprint
    assert min(reasons.values()) > 10, reasons

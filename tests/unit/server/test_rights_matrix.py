"""Every operation of the table, with no right, each right and all, by handle, uid and name.

What each needs is read from its declaration. Who lacks it is refused, changes nothing, and whoever
may not see a name gets the answer that there is nothing of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raftckpt.model import content, lifecycle, machine, queries
from raftckpt.protocol import operations as ops
from raftckpt.protocol.operations import OPERATIONS, REQUESTS, Command, Right
from raftckpt.server import dispatch, tracking
from tests.unit.server.rights_port import ALL_RIGHTS, PortCaller, RightsPort

READ, WRITE, CREATE, DROP, OPERATE = 1, 2, 4, 8, 16
MASKS = {
    "nothing": 0, "read": READ, "write": WRITE, "create": CREATE, "drop": DROP,
    "operate": OPERATE, "all": ALL_RIGHTS,
}  # fmt: skip
NEEDED = {
    Right.READ: READ,
    Right.WRITE: WRITE,
    Right.CREATE: CREATE,
    Right.DROP: DROP,
    Right.OPERATE: OPERATE,
}
OF_THE_CONNECTION = {ops.TrackSync, ops.TrackStop}
"""They name a tracker of this connection, which was asked for its right when it began."""
DENIALS = {"not_granted", "checkpoint_missing", "group_missing"}
ATTRIBUTES = [1, 0, (1 << 63) - 1, 100, 1000, 64]
LAST = [ops.CheckpointUnlink, ops.CheckpointClose, ops.SessionClose]


def namings(record: type[Any], handle: int, uid: int) -> Iterator[tuple[str, list[Any]]]:
    """(kind of name, its own fields) of each way of saying what it is about."""
    spec = OPERATIONS[record]
    good = next(spec.examples())
    fields = {name: getattr(good, name) for name in spec.fields}
    ways: dict[str, dict[str, Any]] = {"nothing": {}}
    if "handle" in fields:
        ways = {"handle": {"handle": handle}}
    elif record is ops.Track:
        ways = {"uid": {"target": uid}, "name": {"target": "t/ckpt"}}
    elif "target" in fields:
        ways = {"handle": {"target": handle}, "name": {"target": "t/ckpt"}}
    elif "group" in fields:
        ways = {"name": {"group": "t/group"}}
    elif "name" in fields and issubclass(record, Command):
        ways = {"name": {"name": "t/ckpt"}}
    if record is ops.CheckpointOpen:
        ways["name"] |= {"flags": READ | WRITE, "attributes": None}
    if "operation" in fields:
        fields |= {"operation": 1, "component": None}
    for how, about in ways.items():
        yield how, [{**fields, **about}[name] for name in fields]


def may(record: type[Any], how: str, mask: int) -> bool:
    """Whether it is to be let through, by its declaration."""
    spec = OPERATIONS[record]
    needed = NEEDED.get(spec.needs)
    if needed is None or record in OF_THE_CONNECTION:
        return True
    if record is ops.CheckpointOpen:
        return bool(mask & (READ | WRITE))
    if needed == OPERATE:
        if how == "handle":  # fault injection is a write, too
            return mask & (OPERATE | WRITE) == OPERATE | WRITE
        return how == "name" and bool(mask & OPERATE)
    return bool(mask & needed)


def state_of(port: RightsPort) -> tuple[Any, ...]:
    found = port.machine
    groups = {name: len(group.members) for name, group in found.groups.by_name.items()}
    return found.revision, found.access.revision, len(found.checkpoints), groups


def _order(record: type[Any]) -> tuple[int, int]:
    """What takes away that which others are tried on comes last."""
    return LAST.index(record) + 1 if record in LAST else 0, OPERATIONS[record].tag


def _tells(record: type[Any], how: str, mask: int) -> bool:
    """Whether a refusal for lack of a right tells somebody of what he may not see."""
    if record is ops.GroupJoin:  # which would make the group: the answer is always this
        return False
    return how in ("uid", "name") and not mask & (READ | WRITE)


def violations(mask: int, records: list[type[Any]] | None = None) -> list[str]:
    """What is let through that must not be, or refused that must not be."""
    port = RightsPort()
    creator = port.tenant("creator", "t/", ALL_RIGHTS)
    creator.do(10, "t/ckpt", 7, ATTRIBUTES)
    creator.do(24, 1, b"id", b"data")
    creator.do(50, "t/group", "theirs", 0, 10**9, 0)
    uid = port.machine.names["t/ckpt"].uid
    found = []
    tenant: PortCaller | None = None
    chosen = sorted(records or REQUESTS, key=_order)
    for record in chosen:
        if record in (ops.HelloRequest, ops.SessionOpen, ops.Attach, ops.WitnessRequest):
            continue  # who one is: tests/unit/server/test_rights.py
        if tenant is None or tenant.session not in port.machine.sessions:
            tenant = port.tenant(f"tenant{len(found)}x{OPERATIONS[record].tag}", "t/", ALL_RIGHTS)
            tenant.do(10, "t/ckpt", READ | WRITE, None)
            port.allow(tenant.name, "t/", mask)
        for how, fields in namings(record, 1, uid):
            before = state_of(port)
            code, value = tenant.send(record, fields)[2:4]
            denied = code != 1 and value[0] in DENIALS
            what = f"{OPERATIONS[record].name} by {how} with {mask}: {code} {value!r:.60}"
            if OPERATIONS[record].needs is Right.SESSION:
                denied = denied and value[0] == "not_granted"
            if denied == may(record, how, mask):
                found.append(what)
            elif denied and state_of(port) != before:
                found.append(f"{what}, and it did something")
            elif denied and value[0] == "not_granted" and _tells(record, how, mask):
                found.append(f"{what}: it says that there is something")
    return found


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_each_operation_asks_for_the_right_that_it_needs(mask: int) -> None:
    assert violations(mask) == []


def _unasked_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine._HANDLERS, ops.CheckpointUnlink, lifecycle.checkpoint_unlink)


def _unasked_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine._HANDLERS, ops.SectionCorrupt, content.section_corrupt)


def _unasked_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "allowed", lambda state, name, *_: state.names[name])


def _unasked_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_OPERATING", dispatch._OPERATING - {ops.SnapshotBegin})


def _unasked_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_may_track", lambda *_: True)


@pytest.mark.parametrize(
    ("plant", "record", "mask"),
    [
        (_unasked_command, ops.CheckpointUnlink, READ),
        (_unasked_handle, ops.SectionCorrupt, READ | WRITE),
        (_unasked_query, ops.ReadAll, 0),
        (_unasked_request, ops.SnapshotBegin, ALL_RIGHTS),
        (_unasked_tracker, ops.Track, 0),
    ],
)
def test_an_operation_that_forgets_to_ask_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None],
    record: type[Any],
    mask: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    assert violations(mask, [record])

"""Replaying changes on what a tracker holds gives what the checkpoint holds."""

from __future__ import annotations

import pytest

from raftckpt.model.changes import Change, ChangeKind, replay

NEVER = 1 << 62


def change(kind: ChangeKind, section_id: bytes | None, data: object, detail: object) -> Change:
    return 1, 7, int(kind), 1, section_id, data, detail


HELD = {b"a": (b"one", NEVER), b"b": (b"two", 5)}


@pytest.mark.parametrize(
    ("kind", "section_id", "data", "detail", "after"),
    [
        (ChangeKind.IMAGE, None, [[b"c", b"x", 9]], None, {b"c": (b"x", 9)}),
        (ChangeKind.RESYNC, None, [], None, {}),
        (ChangeKind.CREATED, b"c", b"x", 9, {**HELD, b"c": (b"x", 9)}),
        (
            ChangeKind.WRITTEN,
            None,
            [[b"a", 1, b"N"], [b"b", 3, b"!"], [b"a", 2, b"E"]],
            None,
            {b"a": (b"oNE", NEVER), b"b": (b"two!", 5)},
        ),
        (ChangeKind.OVERWRITTEN, b"b", b"x", None, {**HELD, b"b": (b"x", 5)}),
        (ChangeKind.DELETED, b"a", None, None, {b"b": (b"two", 5)}),
        (ChangeKind.EXPIRED, b"b", None, None, {b"a": (b"one", NEVER)}),
        (ChangeKind.EXPIRATION_SET, b"a", None, 9, {**HELD, b"a": (b"one", 9)}),
        (ChangeKind.ACTIVE_CHANGED, None, None, [None, 1, False, 1], HELD),
        (ChangeKind.RETENTION_SET, None, None, 9, HELD),
        (ChangeKind.UNLINKED, None, None, None, HELD),
        (ChangeKind.DESTROYED, None, None, None, {}),
        (
            ChangeKind.TRANSACTION,
            None,
            [
                [ChangeKind.DELETED, b"b", 0, b"", None],
                [ChangeKind.CREATED, b"c", 0, b"x", 9],
                [ChangeKind.WRITTEN, b"c", 1, b"y", None],
                [ChangeKind.OVERWRITTEN, b"a", 0, b"z", None],
            ],
            None,
            {b"a": (b"z", NEVER), b"c": (b"xy", 9)},
        ),
    ],
)
def test_a_change_is_replayed(kind, section_id, data, detail, after) -> None:
    sections = dict(HELD)
    replay(sections, change(kind, section_id, data, detail))
    assert sections == after


def test_every_kind_is_replayed() -> None:
    marks = test_a_change_is_replayed.pytestmark  # type: ignore[attr-defined]
    assert {row[0] for row in marks[0].args[1]} == set(ChangeKind)

"""What changes of principals and spaces are refused for; nothing changes then."""

from __future__ import annotations

import pytest

from tests.model.test_access import NEVER, GrantsWorld

DIGEST = b"d" * 32


@pytest.mark.parametrize(
    ("tag", "fields", "reason"),
    [
        (60, (True, 10**6), "access_changed"),
        (61, ("x", "t9", DIGEST, NEVER, False, 10**6), "access_changed"),
        (61, ("x", None, b"", NEVER, False, None), "param"),
        (61, ("x", "t9", DIGEST, 1, False, None), "time_past"),
        (61, ("b", "t9", DIGEST, NEVER, False, None), "principal_exists"),
        (61, ("x", "t1", DIGEST, NEVER, False, None), "token_exists"),
        (62, ("b", "t9", DIGEST, NEVER, 0, 10**6), "access_changed"),
        (62, ("x", "t9", DIGEST, NEVER, 0, None), "principal_missing"),
        (62, ("b", "t1", DIGEST, NEVER, 0, None), "token_exists"),
        (62, ("b", "t9", b"", NEVER, 0, None), "param"),
        (62, ("b", "t9", DIGEST, 1, 0, None), "time_past"),
        (63, ("b", 10**6), "access_changed"),
        (63, ("x", None), "principal_missing"),
        (63, ("a", None), "last_operator"),
        (64, ("s/", 10**6), "access_changed"),
        (64, ("", None), "space_exists"),
        (65, ("s/", "b", 1, 10**6), "access_changed"),
        (65, ("s/", "b", 1, None), "space_missing"),
        (65, ("", "x", 1, None), "principal_missing"),
        (66, ("", "b", 1, 10**6), "access_changed"),
        (66, ("s/", "b", 1, None), "space_missing"),
        (66, ("", "x", 1, None), "principal_missing"),
        (66, ("", "a", 16, None), "last_operator"),
        (71, ("", [["bytes", 5]], 10**6), "access_changed"),
        (71, ("", [["sessions", 5]], None), "param"),
        (71, ("s/", [["bytes", 5]], None), "space_missing"),
        (67, ("s/", 10**6), "access_changed"),
        (67, ("s/", None), "space_missing"),
        (67, ("", None), "space_of_all"),
    ],
)
def test_it_is_refused(tag: int, fields: tuple[object, ...], reason: str) -> None:
    world = GrantsWorld()
    before = world.machine.access.revision
    result = world.do("a", tag, *fields)
    assert not result.ok
    assert result.value.reason == reason
    assert world.machine.access.revision == before
    world.image()

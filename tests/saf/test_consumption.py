"""The consumption callback: changes by others, with their data, through dispatch or directly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from raftckpt import saf as S

from .env import READ, WAIT, WEAK, WRITE, Library, create, new_name, sid
from .rules import rule

OK = S.SA_AIS_OK
CALL = "immediate_consumption_register"


def until(library: Library, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        if library.readable(0.02):
            assert S.saCkptDispatch(library.handle, S.SA_DISPATCH_ALL) == OK


def change_everything(writer: int, library: Library) -> None:
    create(writer, b"1", b"first")
    assert S.saCkptSectionOverwrite(writer, sid(b"1"), b"second") == OK
    vector = [
        S.SaCkptIOVectorElementT(sid(b"1"), b"AB", 2, 1),
        S.SaCkptIOVectorElementT(sid(b"1"), b"C", 1, 9),
    ]
    assert S.saCkptCheckpointWrite(writer, vector) == (OK, None)
    assert S.saCkptSectionDelete(writer, sid(b"1")) == OK


EXPECTED = [
    ("created", [(b"1", 0, b"first")]),
    ("overwritten", [(b"1", 0, b"second")]),
    ("written", [(b"1", 1, b"AB"), (b"1", 9, b"C")]),
    ("deleted", [(b"1", 0, None)]),
]


@rule(CALL, "own=True: what was written through the same initialization is told, too")
def test_own_changes(library: Library) -> None:
    name = new_name()
    writer = library.open(name, creationFlags=WEAK)
    reader = library.open(name, READ)
    heard: list[Any] = []

    def consume(handle: int, told: str, vector: Any, cookie: Any, change: Any) -> None:
        parts = [(e.sectionId.id, e.dataOffset, e.dataBuffer) for e in vector]
        heard.append((change.kind, parts))

    assert S.immediate_consumption_register(reader, consume, own=True) == OK
    change_everything(writer, library)
    until(library, lambda: len(heard) >= 4)
    assert heard == EXPECTED


@pytest.mark.parametrize("through_dispatch", [True, False])
@rule(CALL, "each committed change by others, in order, with its data")
def test_consumption(library: Library, through_dispatch: bool) -> None:
    name = new_name()
    other = Library()
    writer = other.open(name, creationFlags=WEAK)
    reader = library.open(name, READ | WRITE)
    heard: list[Any] = []

    def consume(handle: int, told: str, vector: Any, cookie: Any, change: Any) -> None:
        assert (handle, told, cookie) == (reader, name, "cookie")
        parts = [(e.sectionId.id, e.dataOffset, e.dataBuffer) for e in vector]
        heard.append((change.kind, parts))

    assert (
        S.immediate_consumption_register(
            reader, consume, "cookie", through_dispatch=through_dispatch
        )
        == OK
    )
    create(reader, b"mine", b"not told to myself")
    change_everything(writer, other)
    until(library, lambda: len(heard) >= 4)
    assert heard == EXPECTED
    assert S.saCkptCheckpointClose(reader) == OK
    create(writer, b"2", b"after the close")
    other.finalize()
    library.readable(0.1)
    assert S.saCkptDispatch(library.handle, S.SA_DISPATCH_ALL) == OK
    assert heard == EXPECTED


@rule(CALL, "begins with the content if asked; a later registration goes on where the former stood")
def test_image_and_replacement(library: Library) -> None:
    name = new_name()
    other = Library()
    writer = other.open(name)
    create(writer, b"1", b"x")
    reader = library.open(name, READ)
    heard: list[Any] = []

    def hear(who: str) -> Callable[..., None]:
        return lambda handle, told, vector, cookie, change: heard.append(
            (who, change.kind, [(e.sectionId.id, e.dataBuffer) for e in vector])
        )

    assert S.immediate_consumption_register(reader, hear("one"), image=True) == OK
    until(library, lambda: heard)
    assert S.immediate_consumption_register(reader, hear("two")) == OK
    assert S.saCkptSectionOverwrite(writer, sid(b"1"), b"y") == OK
    until(library, lambda: len(heard) >= 2)
    assert heard == [("one", "image", [(b"1", b"x")]), ("two", "overwritten", [(b"1", b"y")])]
    other.finalize()


@rule(CALL, "under SAFplus's name: its arguments, on a thread of the library")
def test_original_name(library: Library) -> None:
    name = new_name()
    other = Library()
    writer = other.open(name)
    reader = library.open(name, READ)
    heard: list[Any] = []
    rc = S.clCkptImmediateConsumptionRegister(reader, lambda *given: heard.append(given), 7)
    assert rc == OK
    create(writer, b"1", b"x")
    deadline = time.monotonic() + WAIT
    while not heard:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    handle, told, (element,), count, cookie = heard[0]
    assert (handle, told, count, cookie) == (reader, name, 1, 7)
    assert (element.sectionId.id, element.dataSize, element.dataBuffer) == (b"1", 1, b"x")
    other.finalize()


@rule(CALL, "no callback: INVALID_PARAM, then BAD_HANDLE, then ACCESS")
def test_refusals(library: Library) -> None:
    writer = library.open(flags=6)
    for register in (S.immediate_consumption_register, S.clCkptImmediateConsumptionRegister):
        assert register(0, None) == S.SA_AIS_ERR_INVALID_PARAM
        assert register(0, print) == S.SA_AIS_ERR_BAD_HANDLE
        assert register(writer, print) == S.SA_AIS_ERR_ACCESS


@rule(CALL, "a callback that raises is logged, the next changes come")
def test_callback_that_raises(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    name = new_name()
    other = Library()
    writer = other.open(name)
    reader = library.open(name, READ)
    heard: list[str] = []

    def consume(handle: int, told: str, vector: Any, cookie: Any, change: Any) -> None:
        heard.append(change.kind)
        raise ValueError("a bug")

    assert S.immediate_consumption_register(reader, consume, through_dispatch=False) == OK
    change_everything(writer, other)
    until(library, lambda: len(heard) >= 4)
    other.finalize()
    until(library, lambda: len(caplog.records) >= 4)
    assert all("callback_raised" in record.message for record in caplog.records)

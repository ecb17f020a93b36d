"""The same rules as methods and exceptions, in both faces of the Python client."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import raftckpt
from raftckpt import aio
from raftckpt.testing import LocalCluster

from .env import new_name
from .rules import rule

Attributes = raftckpt.Attributes
SMALL = Attributes(max_sections=2, max_section_size=10, max_section_id_size=4, retention=0)
WEAKLY = Attributes(update="weak", collocated=True, max_section_size=10, retention=0)
DEFAULT = Attributes(max_sections=1, max_section_size=10, retention=0)
Service = Any
Checkpoint = Any


async def _opened(service: Service, create: Attributes, mode: str = "rw") -> Checkpoint:
    name = new_name()
    checkpoint = await service.open(name, create=create)
    if create is SMALL:
        await checkpoint.create("s", b"data")
    return checkpoint if mode == "rw" else await service.open(name, mode=mode)


def on(
    create: Attributes, call: Callable[[Checkpoint], Awaitable[Any]], mode: str = "rw"
) -> Callable[[Service], Awaitable[Any]]:
    async def run(service: Service) -> Any:
        return await call(await _opened(service, create, mode))

    return run


async def _closed(service: Service) -> None:
    checkpoint = await _opened(service, SMALL)
    await checkpoint.close()
    await checkpoint.close()  # idempotent
    await checkpoint.read("s")


async def _differ(service: Service) -> None:
    name = new_name()
    await service.open(name, create=SMALL)
    await service.open(name, create=WEAKLY)


async def _unlinked(service: Service) -> None:
    checkpoint = await _opened(service, SMALL)
    await checkpoint.unlink()
    await checkpoint.set_retention(5)


async def _full(service: Service) -> None:
    checkpoint = await _opened(service, SMALL)
    await checkpoint.put("t", b"")
    await checkpoint.put("u", b"")


ROWS: list[tuple[str, Callable[[Service], Awaitable[Any]], type[Exception]]] = [
    ("open: an empty name", lambda s: s.open(""), raftckpt.InvalidParam),
    ("open: a name of 2049 bytes", lambda s: s.open("n" * 2049), raftckpt.TooBig),
    ("open: an unknown mode", lambda s: s.open("x", mode="a"), raftckpt.BadFlags),
    ("open: missing", lambda s: s.open(new_name()), raftckpt.NotExist),
    ("open: other attributes", _differ, raftckpt.Exist),
    ("open: a size above the product",
     lambda s: s.open("x", create=Attributes(size=11, max_sections=1, max_section_size=10)),
     raftckpt.InvalidParam),
    ("open: no section", lambda s: s.open("x", create=Attributes(max_sections=0)),
     raftckpt.InvalidParam),
    ("open: an unknown update option",
     lambda s: s.open("x", create=Attributes(update="some")),  # type: ignore[arg-type]
     raftckpt.InvalidParam),
    ("unlink: missing", lambda s: s.unlink(new_name()), raftckpt.NotExist),
    ("closed", _closed, raftckpt.BadHandle),
    ("set_retention: unlinked", _unlinked, raftckpt.BadOperation),
    ("set_retention: negative", on(SMALL, lambda c: c.set_retention(-1)), raftckpt.InvalidParam),
    ("create: exists", on(SMALL, lambda c: c.create("s")), raftckpt.Exist),
    ("create: default section", on(DEFAULT, lambda c: c.create("s")), raftckpt.Exist),
    ("create: id too long", on(SMALL, lambda c: c.create("12345")), raftckpt.InvalidParam),
    ("create: empty id", on(SMALL, lambda c: c.create("")), raftckpt.InvalidParam),
    ("create: data too long", on(SMALL, lambda c: c.create("t", bytes(11))), raftckpt.InvalidParam),
    ("put: as many sections as possible", _full, raftckpt.NoSpace),
    ("overwrite: missing", on(SMALL, lambda c: c.overwrite("t", b"")), raftckpt.SectionNotExist),
    ("overwrite: data too long", on(SMALL, lambda c: c.overwrite("s", bytes(11))),
     raftckpt.InvalidParam),
    ("write: beyond max_section_size", on(SMALL, lambda c: c.write("s", b"xx", 9)),
     raftckpt.NoResources),
    ("write_many: empty", on(SMALL, lambda c: c.write_many([])), raftckpt.InvalidParam),
    ("read: missing", on(SMALL, lambda c: c.read("t")), raftckpt.SectionNotExist),
    ("read: beyond the end", on(SMALL, lambda c: c.read("s", 5)), raftckpt.InvalidParam),
    ("delete: missing", on(SMALL, lambda c: c.delete("t")), raftckpt.SectionNotExist),
    ("delete: default section", on(DEFAULT, lambda c: c.delete("s")), raftckpt.InvalidParam),
    ("set_expiration: in the past", on(SMALL, lambda c: c.set_expiration("s", 1.0)),
     raftckpt.InvalidParam),
    ("set_expiration: missing", on(SMALL, lambda c: c.set_expiration("t", ttl=5)),
     raftckpt.SectionNotExist),
    ("set_expiration: default section", on(DEFAULT, lambda c: c.set_expiration("", ttl=5)),
     raftckpt.InvalidParam),
    ("sections: an unknown choice", on(SMALL, lambda c: c.sections("some")), raftckpt.InvalidParam),
    ("no right to write: overwrite", on(SMALL, lambda c: c.overwrite("s", b""), "r"),
     raftckpt.Access),
    ("no right to write: delete", on(SMALL, lambda c: c.delete("s"), "r"), raftckpt.Access),
    ("no right to write: set_retention", on(SMALL, lambda c: c.set_retention(1), "r"),
     raftckpt.Access),
    ("no right to read: read", on(SMALL, lambda c: c.read("s"), "w"), raftckpt.Access),
    ("no right to read: status", on(SMALL, lambda c: c.status(), "w"), raftckpt.Access),
    ("no right to read: sections", on(SMALL, lambda c: c.sections(), "w"), raftckpt.Access),
    ("active_replica_set: synchronous", on(SMALL, lambda c: c.active_replica_set()),
     raftckpt.BadOperation),
    ("no active replica: put", on(WEAKLY, lambda c: c.put("s", b"")), raftckpt.NoActiveReplica),
    ("no active replica: read", on(WEAKLY, lambda c: c.read("s")), raftckpt.NoActiveReplica),
    ("no active replica: status", on(WEAKLY, lambda c: c.status()), raftckpt.NoActiveReplica),
]  # fmt: skip


class _Awaited:
    """The blocking face behind ``await``, so that each row is written once."""

    def __init__(self, blocking: Any) -> None:
        self._blocking = blocking

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._blocking, name)

        async def call(*args: Any, **named: Any) -> Any:
            result = method(*args, **named)
            return _Awaited(result) if isinstance(result, raftckpt.Checkpoint) else result

        return call


@pytest.fixture(scope="module")
def blocking(saf_cluster: LocalCluster) -> Any:
    with raftckpt.connect(saf_cluster.endpoints, timeout=60) as service:
        yield service


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
@pytest.mark.parametrize(("what", "call", "error"), ROWS, ids=[row[0] for row in ROWS])
@rule("Python client", "the same rules as exceptions, blocking and asyncio (a row each)")
def test_exceptions(
    saf_cluster: LocalCluster,
    blocking: Any,
    face: str,
    what: str,
    call: Callable[[Service], Awaitable[Any]],
    error: type[Exception],
) -> None:
    async def run() -> None:
        if face == "blocking":
            await call(_Awaited(blocking))
        else:
            async with aio.connect(saf_cluster.endpoints, timeout=60) as service:
                await call(service)

    with pytest.raises(error) as caught:
        asyncio.run(run())
    assert type(caught.value) is error
    assert isinstance(caught.value, raftckpt.CheckpointError)
    assert caught.value.definite
    assert str(caught.value)


@rule("Python client", "a past expiration: create takes it and expires at once")
def test_created_expired(blocking: Any) -> None:
    checkpoint = blocking.open(new_name(), create=SMALL)
    checkpoint.create("t", b"x", expires=time.time() - 5)
    assert list(checkpoint) == []


@rule("Python client", "which element of a vector is at fault")
def test_index(blocking: Any) -> None:
    checkpoint = blocking.open(new_name(), create=SMALL)
    checkpoint["s"] = b"data"
    with pytest.raises(raftckpt.SectionNotExist) as caught:
        checkpoint.write_many([("s", 0, b"x"), ("no", 0, b"x")])
    assert caught.value.index == 1
    assert checkpoint["s"] == b"data"


@rule("Python client", "both faces have the same methods with the same arguments")
def test_faces_are_the_same() -> None:
    for mine, theirs in [(raftckpt.Service, aio.Service), (raftckpt.Checkpoint, aio.Checkpoint)]:
        for name, method in vars(theirs).items():
            if not name.startswith("_") and inspect.isfunction(method):
                other = getattr(mine, name)
                assert list(inspect.signature(other).parameters) == list(
                    inspect.signature(method).parameters
                )

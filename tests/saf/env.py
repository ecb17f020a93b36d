"""Libraries, checkpoints and sections for the tests, each in a line."""

from __future__ import annotations

import itertools
import select
import time
from typing import Any

from raftckpt import saf as S

READ, WRITE, CREATE = (
    S.SA_CKPT_CHECKPOINT_READ,
    S.SA_CKPT_CHECKPOINT_WRITE,
    S.SA_CKPT_CHECKPOINT_CREATE,
)
ALL, ACTIVE, WEAK, COLLOCATED = (
    S.SA_CKPT_WR_ALL_REPLICAS,
    S.SA_CKPT_WR_ACTIVE_REPLICA,
    S.SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    S.SA_CKPT_CHECKPOINT_COLLOCATED,
)
B01, B02, B03 = ("B", 1, 1), ("B", 2, 2), ("B", 2, 3)
WAIT = 20.0
MINUTE = S.SA_TIME_ONE_MINUTE

_numbers = itertools.count(1)


def attributes(**changes: Any) -> S.SaCkptCheckpointCreationAttributesT:
    fields = {
        "creationFlags": ALL,
        "checkpointSize": 1000,
        "retentionDuration": 0,
        "maxSections": 10,
        "maxSectionSize": 100,
        "maxSectionIdSize": 20,
        **changes,
    }
    return S.SaCkptCheckpointCreationAttributesT(**fields)


def sid(section_id: bytes | None) -> S.SaCkptSectionIdT:
    return S.SaCkptSectionIdT(section_id)


class Library:
    """One initialization.

    Attributes:
        heard: (kind, invocation, [handle,] error) of its callbacks.
        tracked: (handle, [(section, offset, size), ...]) that its track callback was told;
            from B.02.03 on there is one.
    """

    def __init__(self, version: tuple[str, int, int] = B02, *, callbacks: bool = True) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.tracked: list[tuple[int, list[tuple[bytes, int, int]]]] = []
        given = S.SaCkptCallbacksT_2(self.opened, self.synchronized, self.track)
        initialize = S.saCkptInitialize_2 if version >= B03 else S.saCkptInitialize
        asked = S.SaVersionT(*version)
        rc, self.handle, _ = initialize(given if callbacks else None, asked)
        assert rc == S.SA_AIS_OK, rc
        rc, self.fd = S.saCkptSelectionObjectGet(self.handle)
        assert rc == S.SA_AIS_OK

    def track(self, handle: int, vector: list[S.SaCkptIOVectorElementT], count: int) -> None:
        assert len(vector) == count
        assert all(element.dataBuffer is None and not element.readSize for element in vector)
        places = [(e.sectionId.id, e.dataOffset, e.dataSize) for e in vector]
        self.tracked.append((handle, places))

    def opened(self, invocation: int, checkpoint: int, error: int) -> None:
        self.heard.append(("open", invocation, checkpoint, error))

    def synchronized(self, invocation: int, error: int) -> None:
        self.heard.append(("synchronize", invocation, error))

    def readable(self, seconds: float = 0.0) -> bool:
        return bool(select.select([self.fd], [], [], seconds)[0])

    def wait(self, invocation: int, seconds: float = WAIT) -> tuple[Any, ...]:
        """Select and dispatch until the callback of this invocation came."""
        deadline = time.monotonic() + seconds
        while True:
            for entry in self.heard:
                if entry[1] == invocation:
                    self.heard.remove(entry)
                    return entry
            assert time.monotonic() < deadline, "no callback"
            if self.readable(1.0):
                assert S.saCkptDispatch(self.handle, S.SA_DISPATCH_ALL) == S.SA_AIS_OK

    def open(
        self, name: str | None = None, flags: int = READ | WRITE | CREATE, **changes: Any
    ) -> int:
        given = attributes(**changes) if flags & CREATE else None
        rc, handle = S.saCkptCheckpointOpen(self.handle, name or new_name(), given, flags, MINUTE)
        assert rc == S.SA_AIS_OK, rc
        return handle

    def finalize(self) -> None:
        assert S.saCkptFinalize(self.handle) == S.SA_AIS_OK


def new_name() -> str:
    return f"ckpt{next(_numbers)}"


def create(
    checkpoint: int, section_id: bytes, data: bytes = b"", expires: int = S.SA_TIME_END
) -> None:
    given = S.SaCkptSectionCreationAttributesT(sid(section_id), expires)
    rc = S.saCkptSectionCreate(checkpoint, given, data)
    assert rc == S.SA_AIS_OK, rc


def read(checkpoint: int, section_id: bytes | None) -> bytes:
    element = S.SaCkptIOVectorElementT(sid(section_id))
    rc, _ = S.saCkptCheckpointRead(checkpoint, [element])
    assert rc == S.SA_AIS_OK, rc
    assert element.readSize == len(element.dataBuffer)
    return bytes(element.dataBuffer)


def ids(checkpoint: int, chosen: int = S.SA_CKPT_SECTIONS_ANY, expiration: int = 0) -> list[bytes]:
    rc, iteration = S.saCkptSectionIterationInitialize(checkpoint, chosen, expiration)
    assert rc == S.SA_AIS_OK, rc
    found = []
    while True:
        rc, descriptor = S.saCkptSectionIterationNext(iteration)
        if rc == S.SA_AIS_ERR_NO_SECTIONS:
            break
        assert rc == S.SA_AIS_OK, rc
        found.append(descriptor.sectionId.id)
    assert S.saCkptSectionIterationFinalize(iteration) == S.SA_AIS_OK
    return found

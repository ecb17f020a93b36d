"""Fault injection: sections in the SA Forum state CORRUPTED.

The service never corrupts a section (a write is applied whole or not at all, also on WEAK
checkpoints), so an application can try its handling of the state only with this call.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, overload

from raftckpt.client import aio, operations, sync
from raftckpt.client.types import SectionId

__all__ = ["corrupt_section"]


@overload
def corrupt_section(
    checkpoint: sync.Checkpoint, id: SectionId, *, timeout: float | None = None
) -> int | None: ...


@overload
def corrupt_section(
    checkpoint: aio.Checkpoint, id: SectionId, *, timeout: float | None = None
) -> Coroutine[Any, Any, int | None]: ...


def corrupt_section(
    checkpoint: sync.Checkpoint | aio.Checkpoint, id: SectionId, *, timeout: float | None = None
) -> Any:
    """Put a section into the state CORRUPTED; for the asyncio face await the result.

    Reads and writes of the section, ``read_all`` and ``set_expiration`` then raise
    :class:`~raftckpt.BadOperation` with the reason ``"corrupted"``; ``overwrite`` and ``put``
    replace its contents and make it valid again, ``delete`` (and its expiration) removes it. It is
    replicated like any change and takes a revision; trackers are not told.

    Arguments:
        checkpoint: open for writing.
        id: of the section.
        timeout: seconds; None: the service's.

    Returns:
        The revision (None on an asynchronous checkpoint).

    Raises:
        NotExist: there is no such section.
        NoResources: too many sections of the checkpoint are corrupted.
        Access: the checkpoint is not open for writing, or another session fenced it.
    """
    return checkpoint._run(operations.corrupt_section(checkpoint._opened, id), timeout)

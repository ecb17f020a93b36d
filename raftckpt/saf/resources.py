"""What the process may run out of: descriptors, threads, memory of the kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from raftckpt.errors import NoResources

__all__ = ["CONSUMPTION_DESCRIPTORS", "INITIALIZATION_DESCRIPTORS", "needing"]

INITIALIZATION_DESCRIPTORS: Final = 3
"""A pipe that wakes its thread, and the connection."""
CONSUMPTION_DESCRIPTORS: Final = 3
"""A connection, and while it is made the one tried beside it."""
_SPARE: Final = 3
"""For a change of replicas, and to look up a name; all are probed in pairs."""

_EXHAUSTED: Final = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN)
)


@contextmanager
def needing(descriptors: int) -> Iterator[None]:
    """Make something that needs descriptors and a thread, or say that they are not to be had.

    Probed beforehand: a connection that finds no descriptor would try again until its deadline.

    Raises:
        NoResources: nothing was made.
    """
    try:
        _probe(descriptors + _SPARE)
        yield
    except OSError as error:
        if error.errno not in _EXHAUSTED:
            raise
        raise NoResources(f"no resources: {error}") from None
    except RuntimeError as error:  # what the threads of the standard library raise
        raise NoResources(f"no resources: {error}") from None


def _probe(descriptors: int) -> None:
    held: list[int] = []
    try:
        while len(held) < descriptors:
            held += os.pipe()
    finally:
        for descriptor in held:
            os.close(descriptor)

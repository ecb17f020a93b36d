"""How much memory there is for data; garbage collection and malloc, tamed.

A full collection of a big state would stop the world.

Reference counting frees nearly everything. The cyclic collector is switched off; now and then the
youngest objects are collected and the survivors, which are mostly the state, are frozen out of its
sight. Nothing of ours makes cycles (a test connects, writes and leaves, and looks); what others
make and was frozen is found when the process is idle and small enough.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
from collections.abc import Iterator
from typing import Final

__all__ = ["Gardener", "memory_for_data", "memory_share", "tame_malloc"]

_OWN_BYTES: Final = 256 * 1024 * 1024
"""Of a replica without data: the program, its history of changes, buffers, entries on their way."""
_SHARE: Final = 3
"""The state, what a snapshot under way keeps alive of its past, and an image that is installed."""
_LEAST_BYTES: Final = 64 * 1024 * 1024
"""So much a replica has for data if there is little memory: see below."""
_LEAST_PART: Final = 8
"""One part of so many at least, up to that: 32 MiB of 256, in which a replica was seen to live."""
_BUFFER_PART: Final = 16
"""One part of so many is the most that one kind of buffer may keep."""
_CGROUPS: Final = "/sys/fs/cgroup"

_YOUNG_MAX: Final = 25_000
"""Container objects more than at the last collection: about a millisecond of work."""
_YOUNG_CHANGES_MAX: Final = 8_000
"""Changes of the state until what they left behind, two objects each, is frozen without a look.

The collector's own count does not tell of them: what is freed of the old (the history of changes
drops one for each that is added) cancels out what came, until there are a million young objects
to look at, which took 0.1 s.
"""
_FULL_OBJECTS_MAX: Final = 80_000
"""A full collection of so many objects takes 28 to 42 ms, 20 to 38 of it for the program itself (of
160,000 it was up to 55); of more we do without."""
_FULL_AFTER_OBJECTS: Final = 20_000
"""Survivors since the last full collection that make another one worth its while."""
# of <malloc.h>
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MIB: Final = 1024 * 1024  # bytes


def memory_for_data() -> int:
    """Bytes that the state may take by the memory of the machine, its container and ``ulimit``."""
    end = min(_ends())
    return max(min(_LEAST_BYTES, end // _LEAST_PART), (end - _OWN_BYTES) // _SHARE)


def memory_share(most: int) -> int:
    """Bytes that one kind of buffer may take: ``most``, or less where there is little memory."""
    return min(most, min(_ends()) // _BUFFER_PART)


def _ends() -> Iterator[int]:
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft = resource.getrlimit(limit)[0]
        if soft != resource.RLIM_INFINITY:
            yield soft
    for path in _cgroup_files():
        with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
            yield int(file.read(32))  # "max" is no number


def _cgroup_files() -> Iterator[str]:
    """Where the limits of this process's control group and of those around it stand.

    Inside a container its own group may be shown at the root, so that is looked at, too.
    """
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    for line in ["0::/", "0:memory:/", *lines]:
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        if kinds and "memory" not in kinds.split(","):
            continue
        root, name = ("memory", "memory.limit_in_bytes") if kinds else ("", "memory.max")
        while True:
            yield os.path.join(_CGROUPS, root, path.lstrip("/"), name)
            if path in ("", "/"):
                break
            path = os.path.dirname(path)


def tame_malloc() -> None:
    """Keep blocks of around 1 MiB in the heap: mapping and unmapping them costs more than using."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, memory_share(32 * _MIB))
        libc.mallopt(_M_TRIM_THRESHOLD, memory_share(256 * _MIB))


class Gardener:
    """Collects little and often. One per process, from the moment the state is loaded."""

    def __init__(self) -> None:
        gc.disable()
        gc.freeze()  # without a look, which took 47 ms while peers were to be heard
        self._tidied = gc.get_freeze_count()
        self._tended_at = 0

    def tend(self, revision: int) -> None:
        """Collect the young if there are many. Call it after each step.

        Arguments:
            revision: of the state; it grows by one with each change.
        """
        if gc.get_count()[0] > _YOUNG_MAX:
            gc.collect(1)
        elif revision - self._tended_at < _YOUNG_CHANGES_MAX:
            return
        self._tended_at = revision
        gc.freeze()

    def tend_idle(self) -> None:
        """Look for cycles among all objects, if they are few. For moments of rest."""
        if self._tidied + _FULL_AFTER_OBJECTS < gc.get_freeze_count() <= _FULL_OBJECTS_MAX:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._tidied = gc.get_freeze_count()

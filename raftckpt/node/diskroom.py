"""How much room the disk has, and what is done before it has none.

Whatever a replica must write ends it if it cannot: a journal that does not take an entry cannot be
acknowledged. So a reserve is kept, a file of one journal segment that nobody else can take; while
what is free is less than a snapshot and a few segments, a leader admits no new data, and the log is
made short. Deletes, closes, expiry and elections go on, and use the reserve in the end.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Final

from raftckpt import limits

__all__ = ["DiskRoom", "segment_bytes"]

log = logging.getLogger("raftckpt.node")

_NAME: Final = "reserve"
_PARTS: Final = 16
"""A segment is at most one of so many parts of the disk."""
_SEGMENTS_FREE: Final = 2
"""Beside a snapshot: the segment that is begun next, and what arrives before we look again."""
_SEGMENTS_SHORT: Final = 6
"""With less than these the log is made short, before it is too late."""
_SHORTEN_EVERY_S: Final = 10.0
_SHORTEN_FULL_EVERY_S: Final = 2.0


def segment_bytes(directory: str) -> int:
    """Bytes of a journal segment that suit the disk; the directory, or one above it, exists."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    found = os.statvfs(directory)
    part = found.f_blocks * found.f_frsize // _PARTS
    return max(limits.MIB, min(limits.JOURNAL_SEGMENT_BYTES, part // limits.MIB * limits.MIB))


class DiskRoom:
    """Watches the disk of one data directory. Its reserve never ends a replica by itself.

    Arguments:
        directory: the data directory.
        segment: bytes of a journal segment.

    Attributes:
        full: no new data is to be admitted.
        free: bytes that were free when it was looked.
    """

    def __init__(self, directory: str, segment: int) -> None:
        self.full = False
        self.free = 0
        self._directory = directory
        self._path = os.path.join(directory, _NAME)
        self._segment = segment
        self._held = os.path.exists(self._path)
        self._shortened_at = float("-inf")
        self._unfitting = False

    def look(self, state_bytes: int, now: float) -> bool:
        """See what is free; whether the log is to be made short now.

        Arguments:
            state_bytes: of the state, as a snapshot of it is large.
            now: monotonic time.
        """
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return False  # the next write tells
        self.free = found.f_bavail * found.f_frsize
        enough = state_bytes + _SEGMENTS_FREE * self._segment
        was, self.full = self.full, self.free < enough + (self._segment if self.full else 0)
        if was != self.full:
            text = "disk_full free=%d needed=%d" if self.full else "disk_has_room free=%d needed=%d"
            log.log(logging.ERROR if self.full else logging.INFO, text, self.free, enough)
        if not self._held and self.free >= enough + 2 * self._segment:
            self._take()
        self._unfitting = not self.fits(state_bytes)
        short = self.free < enough + (_SEGMENTS_SHORT - _SEGMENTS_FREE) * self._segment
        every_s = _SHORTEN_FULL_EVERY_S if self.full else _SHORTEN_EVERY_S
        if not short or now - self._shortened_at < every_s:
            return False
        self._shortened_at = now
        return True

    def fits(self, state_bytes: int) -> bool:
        """Whether a snapshot of the state has room, and a segment beside it."""
        return self.free >= state_bytes + self._segment

    def alarms(self) -> list[str]:
        """Sentences for people."""
        if not self.full:
            return []
        told = [f"the disk below {self._directory} has {self.free >> 20} MiB left: no new data is "
                "admitted while this replica leads; make room, or delete data"]  # fmt: skip
        if self._unfitting:
            told.append("a snapshot has no room either: the log cannot be made shorter")
        return told

    def release(self, path: str) -> bool:
        """Give the reserve up for a file that has no room; False: it is gone already.

        A snapshot does not get it: it can wait.
        """
        if not self._held or f"{os.sep}snapshots{os.sep}" in path:
            return False
        self._held = False
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        log.error('reserve_used by="%s"', path)
        return True

    def _take(self) -> None:
        """Hold room back; without it we go on as well."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:
            return
        try:
            os.posix_fallocate(file, 0, self._segment)
            self._held = True
        except OSError as error:
            log.warning('no_reserve why="%s"', error.strerror)
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        finally:
            os.close(file)

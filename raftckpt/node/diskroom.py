"""How much room the disk has, and what is done before it has none.

Whatever a replica must write ends it if it cannot: a journal that does not take an entry cannot be
acknowledged. So a reserve is kept, a file of one journal segment that nobody else can take; while
what is free is less than a snapshot and a few segments, a leader admits no new data, and the log is
made short. Deletes, closes, expiry and elections go on, and use the reserve in the end.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from raftckpt import limits
from raftckpt.events import EventLog

__all__ = ["DiskRoom", "log_bytes_max", "segment_bytes"]

log = EventLog("node")

_NAME: Final = "reserve"
_PARTS: Final = 16
"""A segment is at most one of so many parts of the disk."""
_SEGMENTS_FREE: Final = 2
"""Beside a snapshot: the segment that is begun next, and what arrives before we look again."""
_COMMANDS_BYTES: Final = 2 * limits.MIB
"""So much of commands may always be on its way, or nothing would be admitted."""
_SEGMENTS_LOW: Final = 6
"""With less than these the log is made short, before it is too late."""
_SEGMENTS_KEPT: Final = 3
"""A log of so many is short."""
_SENT_AT_ONCE_BYTES: Final = 9 * limits.MIB
"""What a leader sends a follower without having heard of it, a little more."""


def segment_bytes(directory: str) -> int:
    """Bytes of a journal segment that suit the disk; the directory, or one above it, exists."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    found = os.statvfs(directory)
    part = found.f_blocks * found.f_frsize // _PARTS
    return max(limits.MIB, min(limits.JOURNAL_SEGMENT_BYTES, part // limits.MIB * limits.MIB))


def log_bytes_max(segment: int) -> int:
    """Bytes of log that may be kept for who catches up, on a disk with such segments."""
    small = segment < limits.JOURNAL_SEGMENT_BYTES
    return _SEGMENTS_KEPT * segment if small else limits.GIB


def _has(path: str, size: int) -> bool:
    """Whether a file has so many bytes: who was killed while he took them left fewer."""
    try:
        return os.stat(path).st_size >= size
    except OSError:
        return False


class DiskRoom:
    """Watches the disk of one data directory. Its reserve never ends a replica by itself.

    Arguments:
        directory: the data directory.
        segment: bytes of a journal segment.
        pending_bytes_max: of commands that may be on their way to any disk.

    Attributes:
        full: no new data is to be admitted.
        free: bytes that were free when it was measured.
        allowance: bytes of commands that may be on their way to the disk at once.
        short: there is no room for what a leader may send at once; small entries are taken.
    """

    def __init__(
        self, directory: str, segment: int, pending_bytes_max: int = limits.PENDING_BYTES_MAX
    ) -> None:
        self.full = False
        self.free = 0
        self.allowance = self._pending_bytes_max = pending_bytes_max
        self.short = False
        self._state_bytes = 0
        """Of the state when it was last told of."""
        self._directory = directory
        self._path = os.path.join(directory, _NAME)
        self._segment = segment
        self._held = _has(self._path, segment)
        self._unfitting = False

    def look(self, state_bytes: int, log_bytes: int) -> bool:
        """See what is free; whether the log is to be made short now.

        Arguments:
            state_bytes: of the state, as a snapshot of it is large.
            log_bytes: of the log.
        """
        enough = self.measure(state_bytes)
        if not self._held and self.free >= enough + 2 * self._segment:
            self._take()
        self._unfitting = not self._has_room_for(state_bytes)
        low = self.free < enough + (_SEGMENTS_LOW - _SEGMENTS_FREE) * self._segment
        return low and log_bytes > max(_SEGMENTS_KEPT * self._segment, state_bytes // 2)

    def measure(self, state_bytes: int) -> int:
        """See what is free; returns what is needed. Cheap: a system call."""
        self._state_bytes = state_bytes
        enough = state_bytes + _SEGMENTS_FREE * self._segment + _COMMANDS_BYTES
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return enough  # the next write tells
        self.free = found.f_bavail * found.f_frsize
        was, self.full = self.full, self.free < enough + (self._segment if self.full else 0)
        self.short = self.free < self._segment + _SENT_AT_ONCE_BYTES
        left = max(0, self.free - enough)
        self.allowance = min(self._pending_bytes_max, left + _COMMANDS_BYTES)
        if was != self.full:
            say, event = (log.error, "disk_full") if self.full else (log.info, "disk_has_room")
            say(event, free=self.free, needed=enough)
        return enough

    def taken(self) -> None:
        """Room was reserved, as for a segment: what is taken on before the next look has to fit."""
        self.measure(self._state_bytes)

    def fits(self, size: int) -> bool:
        """Whether a snapshot of so many bytes (0: of the state) has room, and a segment beside."""
        self.measure(self._state_bytes)
        return self._has_room_for(size or self._state_bytes)

    def _has_room_for(self, size: int) -> bool:
        return self.free >= size + self._segment

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
        log.error("reserve_used", by=path)
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
            log.warning("no_reserve", why=error.strerror)
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        finally:
            os.close(file)

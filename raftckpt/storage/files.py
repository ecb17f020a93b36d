"""The file system as storage sees it: a small port, the real one, and the errors of storage.

Owns: every system call on the data directory, and the translation of ``OSError`` into typed
errors. Knows nothing of records or formats. The port is small enough that a simulated disk (torn
writes, lost directory entries, failing syncs) can stand in for the kernel.

Beliefs: bytes are durable after :meth:`File.sync`; names (create, rename, unlink) are durable
after :meth:`FileSystem.fsync_dir` of their directory; nothing else is. A preallocated, never
written range reads as zeros.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = [
    "Damaged",
    "DiskFailed",
    "DiskFull",
    "File",
    "FileSystem",
    "Foreign",
    "InUse",
    "Lock",
    "Missing",
    "RealFileSystem",
    "StorageError",
    "Unsupported",
    "Waiting",
    "join",
]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_IOV_MAX = 1024
_JOIN_BYTES = 256 * 1024
"""Below this, one copy is cheaper than a long iovec."""
_FREED_ASIDE_BYTES = 16 * 1024 * 1024
"""A file of this size is freed by a thread: on ext4, 64 MiB took up to 22 ms, 1 GiB 135 ms."""
_SLOW_S = 0.1
"""A third of the shortest time after which followers miss a leader, by default."""
_FAST_IN_A_ROW = 256
"""So many fast calls before a disk is trusted to be fast again: a guess."""
_LOOK_UP_S = 0.01
"""A fifth of the default heartbeat."""


class StorageError(Exception):
    """The data directory cannot be used; the replica must not run on it.

    Attributes:
        what: what failed.
        why: the reason.
        remedy: what the operator can do.
    """

    def __init__(self, what: str, why: str, remedy: str) -> None:
        super().__init__(what, why, remedy)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  try: {self.remedy}"


class Damaged(StorageError):
    """Data that were durable are wrong or gone: going on could lose acknowledged writes."""


class Foreign(StorageError):
    """The data belong to another cluster or node."""


class Missing(StorageError):
    """Data that must exist do not."""


class Unsupported(StorageError):
    """The data were written by a version that this one does not understand."""


class InUse(StorageError):
    """Another process uses the data directory."""


class DiskFull(StorageError):
    """No space or quota is left."""


class DiskFailed(StorageError):
    """A read, write or sync failed: what is on disk is unknown until the next start."""


class File(Protocol):
    """An open file. Offsets and sizes in bytes; every call may raise :class:`StorageError`."""

    def write(self, offset: int, buffers: Sequence[bytes]) -> None:
        """Write all buffers one after the other from ``offset`` on, completely."""

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes; fewer only at the end of the file."""

    def sync(self) -> None:
        """Make content and size durable (fdatasync)."""

    def start_writeback(self, offset: int, size: int) -> None:
        """Have the system begin to write a range, without waiting: a later sync is short."""

    def settle(self) -> None:
        """Make content durable and have later reads come from the disk, not from a cache."""

    def truncate(self, size: int) -> None:
        """Cut or extend the file."""

    def preallocate(self, size: int) -> None:
        """Reserve space up to ``size``; the new range reads as zeros."""

    def size(self) -> int:
        """Return the size."""

    def close(self) -> None:
        """Close; idempotent."""


class Lock(Protocol):
    """An exclusive lock, held by this process until released."""

    def release(self) -> None:
        """Give the lock up; idempotent."""


class FileSystem(Protocol):
    """What storage needs of an operating system."""

    def point(self, name: str) -> None:
        """Pass a named crash point; only a simulated or instrumented disk does anything here."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing.

        Arguments:
            path: the file.
            create: make it (it must not exist) instead of opening an existing one.

        Raises:
            Missing: it does not exist.
            DiskFull: no space for it.
            DiskFailed: anything else.
        """

    def listdir(self, path: str) -> list[str]:
        """Return the sorted names in a directory; an empty list if there is no such directory."""

    def mkdir(self, path: str) -> None:
        """Make a directory and its parents, durably; one that exists is fine."""

    def rename(self, source: str, target: str) -> None:
        """Rename within a directory, replacing ``target``; durable after :meth:`fsync_dir`."""

    def unlink(self, path: str) -> None:
        """Remove a file; one that does not exist is fine. Durable after :meth:`fsync_dir`."""

    def fsync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""

    def lock(self, path: str) -> Lock:
        """Take the exclusive lock file ``path``.

        Raises:
            InUse: another process holds it.
        """

    def random_bytes(self, size: int) -> bytes:
        """Return bytes that nobody can guess."""

    def now_ns(self) -> int:
        """Return the wall clock (only ever shown to people)."""


def join(directory: str, name: str) -> str:
    """Join a directory and a name (POSIX)."""
    return f"{directory.rstrip('/')}/{name}"


def _translate(action: str, path: str, error: OSError) -> StorageError:
    what = f"{action} {path} failed"
    why = f"{error.strerror or error} (errno {error.errno})"
    if error.errno in _NO_ROOM:
        return DiskFull(what, why, "free or add disk space, then start the replica again")
    if error.errno == errno.ENOENT:
        return Missing(what, why, "check that the data directory is complete and mounted")
    if error.errno == errno.EROFS:
        return DiskFailed(
            what,
            why,
            "a file system turns read-only when its disk fails (dmesg, smartctl): repair or "
            "replace it, start again; if the data are lost: `raftckpt serve --rejoin`",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return DiskFailed(what, why, "give the replica's user write access to the data directory")
    return DiskFailed(
        what,
        why,
        "check the disk (dmesg, smartctl); replace it and `raftckpt serve --rejoin` if it is bad",
    )


class _RealFile:
    """A file of the operating system, used with explicit offsets."""

    __slots__ = ("_fd", "_fs", "_path")

    def __init__(self, fd: int, path: str, fs: RealFileSystem) -> None:
        self._fd = fd
        self._path = path
        self._fs = fs

    def _name(self) -> str:
        """Its name now, for errors: it may have been renamed since it was opened."""
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/self/fd/{self._fd}")
        return self._path

    def write(self, offset: int, buffers: Sequence[bytes]) -> None:
        try:
            total = sum(map(len, buffers))
            if len(buffers) > 1 and total <= _JOIN_BYTES:
                buffers = (b"".join(buffers),)
            for start in range(0, len(buffers), _IOV_MAX):
                part = buffers[start : start + _IOV_MAX]
                size = sum(map(len, part))
                written = self._pwritev(part, offset)
                if written != size:
                    self._write_rest(offset + written, memoryview(b"".join(part))[written:])
                offset += size
        except OSError as error:
            raise _translate("writing", self._name(), error) from error

    def _pwritev(self, part: Sequence[bytes | memoryview], offset: int) -> int:
        try:
            return os.pwritev(self._fd, part, offset)
        except OSError as error:
            if not self._fs.relieved(self._path, error):
                raise
            return os.pwritev(self._fd, part, offset)

    def _write_rest(self, offset: int, rest: memoryview) -> None:
        # A short write is legal (signal, almost full disk): go on until the kernel says why.
        while rest:
            written = self._pwritev([rest], offset)
            rest = rest[written:]
            offset += written

    def read(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._fd, size, offset)
            if len(data) == size or not data:
                return data
            parts = [data]
            have = len(data)
            while have < size:
                data = os.pread(self._fd, size - have, offset + have)
                if not data:
                    break
                parts.append(data)
                have += len(data)
            return b"".join(parts)
        except OSError as error:
            raise _translate("reading", self._name(), error) from error

    def sync(self) -> None:
        try:
            took = self._fs.waiting.call(os.fdatasync, self._fd)
        except OSError as error:
            raise _translate("syncing", self._name(), error) from error
        self._fs.synced(took)

    def start_writeback(self, offset: int, size: int) -> None:
        with contextlib.suppress(OSError):  # a hint; the sync that follows tells the truth
            os.posix_fadvise(self._fd, offset, size, os.POSIX_FADV_DONTNEED)

    def settle(self) -> None:
        try:
            os.fsync(self._fd)
            # After a failed fsync of a former process the page cache may show data as clean that
            # never reached the disk: read back what the disk really holds.
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise _translate("syncing", self._name(), error) from error

    def truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise _translate("truncating", self._name(), error) from error

    def preallocate(self, size: int) -> None:
        try:
            try:
                os.posix_fallocate(self._fd, 0, size)
            except OSError as error:
                if not self._fs.relieved(self._path, error):
                    raise
                os.posix_fallocate(self._fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
                raise _translate("reserving space for", self._name(), error) from error
            self.truncate(size)
        self._fs.taken()

    def size(self) -> int:
        try:
            return os.fstat(self._fd).st_size
        except OSError as error:
            raise _translate("reading the size of", self._name(), error) from error

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _let_go(fd)


def _let_go(fd: int) -> None:
    """Close a file; durability was sync's business, not close's.

    If that frees a large file, because its name is gone, the kernel takes 0.1 s per GiB for it:
    a thread waits for that.
    """
    with contextlib.suppress(OSError, RuntimeError):  # no more threads: then we wait ourselves
        status = os.fstat(fd)
        if status.st_nlink == 0 and status.st_blocks * 512 >= _FREED_ASIDE_BYTES:
            threading.Thread(target=_close, args=(fd,), name="free blocks", daemon=True).start()
            return
    _close(fd)


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


class _RealLock:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Waiting:
    """Waits for the disk: at once while it is fast, else so that something else can be done.

    A system call that does not return holds its thread. After a slow one another thread makes the
    next ones, and this one, while it waits, calls ``meanwhile`` every now and then. Handing over
    costs more than a fast sync (0.1 ms): after enough fast ones in a row this thread makes them.

    Arguments:
        meanwhile: called with the seconds waited so far, by the thread that waits.
    """

    def __init__(self, meanwhile: Callable[[float], None] = lambda waited_s: None) -> None:
        self._meanwhile = meanwhile
        self._aside = 0
        """So many more calls are made by another thread."""

    def call(self, wait: Callable[[int], None], fd: int) -> float:
        """Call ``wait(fd)`` and return how many seconds it took; raises what it raises."""
        begun = time.monotonic()
        if self._aside:
            self._aside -= 1
            self._call_aside(wait, fd, begun)
        else:
            wait(fd)
        took = time.monotonic() - begun
        if took > _SLOW_S:
            self._aside = _FAST_IN_A_ROW
        return took

    def _call_aside(self, wait: Callable[[int], None], fd: int, begun: float) -> None:
        failed: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                wait(fd)
            except BaseException as error:  # raised where it is waited for
                failed.append(error)
            finally:
                done.set()

        try:
            threading.Thread(target=run, name="sync", daemon=True).start()
        except RuntimeError:  # no more threads
            wait(fd)
            return
        while not done.wait(_LOOK_UP_S):
            self._meanwhile(time.monotonic() - begun)
        if failed:
            raise failed[0]


class RealFileSystem:
    """The operating system's file system.

    Arguments:
        relief: told which file has no room; returns whether it made some.
        taken: told that room was reserved for a file.
        synced: told how many seconds each sync of a file or directory took.
        meanwhile: told every now and then how many seconds a slow one takes already.
    """

    def __init__(
        self,
        relief: Callable[[str], bool] = lambda path: False,
        *,
        taken: Callable[[], None] = lambda: None,
        synced: Callable[[float], None] = lambda seconds: None,
        meanwhile: Callable[[float], None] = lambda waited_s: None,
    ) -> None:
        self.waiting = Waiting(meanwhile)
        self.taken = taken
        self.synced = synced
        self._relief = relief

    def relieved(self, path: str, error: OSError) -> bool:
        """Whether what failed for want of room may be tried again."""
        return error.errno in _NO_ROOM and self._relief(path)

    def point(self, name: str) -> None:
        """Do nothing: crash points are for simulated disks."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing; see :class:`FileSystem`."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        try:
            return _RealFile(os.open(path, flags, 0o640), path, self)
        except OSError as error:
            raise _translate("creating" if create else "opening", path, error) from error

    def listdir(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _translate("listing", path, error) from error

    def mkdir(self, path: str) -> None:
        """Make a directory and its parents, durably."""
        path = os.path.abspath(path)
        try:
            if os.path.isdir(path):
                return
            parent = os.path.dirname(path)
            self.mkdir(parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o750)
        except OSError as error:
            raise _translate("making the directory", path, error) from error
        self.fsync_dir(parent)

    def rename(self, source: str, target: str) -> None:
        """Rename within a directory."""
        try:
            os.rename(source, target)
        except OSError as error:
            raise _translate("renaming", source, error) from error

    def unlink(self, path: str) -> None:
        """Remove a file."""
        fd = -1
        with contextlib.suppress(OSError):  # held open, so that removing the name frees nothing yet
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _translate("removing", path, error) from error
        finally:
            if fd >= 0:
                _let_go(fd)

    def fsync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                took = self.waiting.call(os.fsync, fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _translate("syncing the directory", path, error) from error
        self.synced(took)

    def lock(self, path: str) -> Lock:
        """Take the exclusive lock file ``path``."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise _translate("opening the lock", path, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).strip().decode("ascii", "replace") or "unknown"
            os.close(fd)
            raise InUse(
                f"opening the data directory {os.path.dirname(path)} failed",
                f"in use by pid {holder}",
                "stop that replica first, or give this one its own data directory",
            ) from None
        except OSError as error:
            os.close(fd)
            raise _translate("locking", path, error) from error
        return _RealLock(fd)

    def random_bytes(self, size: int) -> bytes:
        """Return bytes that nobody can guess."""
        return os.urandom(size)

    def now_ns(self) -> int:
        """Return the wall clock."""
        return time.time_ns()

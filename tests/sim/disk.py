"""A simulated disk: what was not synced may be lost, torn or reordered at a power loss.

Model of a file: what programs see (volatile), what survives (durable), and a list of the writes in
between. A power loss keeps, per file, by choice: none of them, a prefix down to the byte, an
arbitrary subset of 512-byte sectors, or all. Names: an ordered list of pending changes per
directory, of which a power loss keeps a prefix. A failed sync loses its writes for good, though
programs still see them (that is what Linux does).

Everything is deterministic from the ``random.Random`` given.

    disk = SimDisk(random.Random(7))
    directory = DataDirectory.open(disk.fs, "/data", "c", "n1")
    disk.crash_at(label="journal.sync.before")          # raises SimCrash there
    ...
    disk.power_loss()                                   # or disk.kill(): page cache survives
    directory = DataDirectory.open(disk.fs, "/data", "c", "n1")  # always take disk.fs anew

After a crash every handle of the former process raises SimCrash.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from raftckpt.storage import _recovery
from raftckpt.storage.files import (
    DiskFailed,
    DiskFull,
    File,
    InUse,
    Lock,
    Missing,
    StorageError,
)
from raftckpt.storage.identity import Identity, read_identity

__all__ = ["DurableView", "SimCrash", "SimDisk", "SimFileSystem"]

SECTOR = 512
TEARS = ("none", "prefix", "sectors", "all")


class SimCrash(BaseException):
    """The simulated process is dead. Not an Exception: nobody may swallow it."""


Op = tuple[int, bytes | None]
"""(offset, data) of a write, or (size, None) of a truncation."""


class _Inode:
    __slots__ = ("durable", "pending", "version", "volatile")

    def __init__(self) -> None:
        self.volatile = bytearray()
        self.durable = bytearray()
        self.pending: list[Op] = []
        self.version = 0

    def change(self, op: Op) -> None:
        _perform(self.volatile, op)
        self.pending.append(op)

    def sync(self) -> None:
        if self.pending:
            for op in self.pending:
                _perform(self.durable, op)
            self.pending = []
            self.version += 1

    def survive(self, ops: list[Op]) -> None:
        for op in ops:
            _perform(self.durable, op)
        self.pending = []
        self.volatile = bytearray(self.durable)
        self.version += 1


def _perform(content: bytearray, op: Op) -> None:
    offset, data = op
    if data is None:
        if offset < len(content):
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class SimDisk:
    """One node's disk; its file system is :attr:`fs`.

    Attributes:
        fs: the file system of the running process; another object after each crash.
        sync_ns: virtual duration of a sync, added to what :meth:`take_busy_ns` returns.
        tears: what a power loss may do to unsynced writes; one is drawn per file.
        capacity: bytes until the disk is full (None: no limit).
        full: every write that needs space fails.
        fail_syncs: so many of the next syncs fail.
        fail_reads: every read fails.
        calls: mutating calls so far.
        points: how often each named crash point was passed.
        crashes: crash point or call kind of each injected crash.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        sync_ns: int = 200_000,
        tears: Sequence[str] = TEARS,
        capacity: int | None = None,
        wall_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        self.rng = rng
        self.sync_ns = sync_ns
        self.tears = tuple(tears)
        self.capacity = capacity
        self.full = False
        self.fail_syncs = 0
        self.fail_reads = False
        self.calls = 0
        self.points: Counter[str] = Counter()
        self.crashes: list[str] = []
        self.wall_ns = wall_ns
        self.names: dict[str, _Inode] = {}
        self.durable_names: dict[str, _Inode] = {}
        self.pending_names: dict[str, list[tuple[str, _Inode | None]]] = {}
        self.dirs: set[str] = {"/"}
        self.locked: set[str] = set()
        self.names_version = 0
        self._busy_ns = 0
        self._crash_call = 0
        self._crash_label: tuple[str, int] | None = None
        self._journal_cache: tuple[object, _recovery.Recovered | None] | None = None
        self.fs = SimFileSystem(self)

    # --- faults ---------------------------------------------------------------------------

    def crash_at(self, *, call: int = 0, label: str = "", hit: int = 1) -> None:
        """Raise SimCrash before the ``call``-th mutating call from now, or at a crash point."""
        self._crash_call = self.calls + call if call else 0
        self._crash_label = (label, self.points[label] + hit) if label else None

    def kill(self) -> None:
        """The process died; what it wrote is still in the page cache."""
        self.fs.dead = True
        self.locked.clear()
        self._crash_call, self._crash_label = 0, None
        self.fs = SimFileSystem(self)

    def power_loss(self, tear: str | None = None) -> None:
        """The machine died: unsynced writes and names may be lost.

        Arguments:
            tear: one of :data:`TEARS` for every file; drawn per file if None.
        """
        self.kill()
        for pending in self.pending_names.values():
            if tear == "all":
                kept = len(pending)
            elif tear == "none":
                kept = 0
            else:
                kept = self.rng.randint(0, len(pending))
            for path, inode in pending[:kept]:
                if inode is None:
                    self.durable_names.pop(path, None)
                else:
                    self.durable_names[path] = inode
        self.pending_names.clear()
        self.names = dict(self.durable_names)
        self.names_version += 1
        # a file can have two names here: rename is logged as link + unlink and may be cut between
        for inode in {id(i): i for i in self.names.values()}.values():
            inode.survive(self._surviving(inode, tear or self.rng.choice(self.tears)))

    def _surviving(self, inode: _Inode, tear: str) -> list[Op]:
        pending, rng = inode.pending, self.rng
        if tear == "none" or not pending:
            return []
        if tear == "all":
            return pending
        if tear == "prefix":
            total = sum(1 if data is None else len(data) for _offset, data in pending)
            return _prefix(pending, rng.randint(0, total))
        kept: list[Op] = []
        for offset, data in pending:
            if data is None:
                if rng.random() < 0.5:
                    kept.append((offset, None))
                continue
            start = 0
            while start < len(data):
                stop = min(len(data), start + SECTOR - (offset + start) % SECTOR)
                if rng.random() < 0.5:
                    kept.append((offset + start, data[start:stop]))
                start = stop
        return kept

    def tear_exactly(self, path: str, count: int) -> None:
        """Power loss that keeps exactly ``count`` unsynced bytes of one file and every name."""
        inode = self.names[path]
        kept = _prefix(inode.pending, count)
        for other in self.names.values():
            if other is not inode:
                other.sync()
        self.durable_names = dict(self.names)
        self.pending_names.clear()
        inode.survive(kept)
        self.kill()

    def unsynced(self, path: str) -> int:
        """Return the unsynced bytes of a file."""
        return sum(1 if data is None else len(data) for _offset, data in self.names[path].pending)

    def wipe(self) -> None:
        """Replace the disk by an empty one."""
        self.kill()
        self.names.clear()
        self.durable_names.clear()
        self.pending_names.clear()
        self.dirs = {"/"}
        self.names_version += 1

    def flip_bit(self, path: str, offset: int, bit: int = 0) -> None:
        """Damage a byte at rest."""
        inode = self.names[path]
        for content in (inode.volatile, inode.durable):
            if offset < len(content):
                content[offset] ^= 1 << bit
        inode.version += 1

    def take_busy_ns(self) -> int:
        """Return the virtual time the disk took since the last call."""
        busy, self._busy_ns = self._busy_ns, 0
        return busy

    # --- inspection -------------------------------------------------------------------------

    def files(self, below: str = "/") -> list[str]:
        """Return the sorted paths of all files below a directory."""
        return sorted(path for path in self.names if path.startswith(below))

    def content(self, path: str) -> bytes:
        """Return what programs see in a file."""
        return bytes(self.names[path].volatile)

    def put(self, path: str, data: bytes) -> None:
        """Plant a file, durably."""
        inode = _Inode()
        inode.change((0, data))
        inode.sync()
        self.names[path] = self.durable_names[path] = inode
        self.names_version += 1

    def remove(self, path: str) -> None:
        """Make a file vanish, durably."""
        self.names.pop(path, None)
        self.durable_names.pop(path, None)
        self.names_version += 1

    def durable_identity(self, data_directory: str) -> Identity | None:
        """Return the identity that is on disk."""
        return read_identity(DurableView(self), data_directory)

    def durable_journal(self, data_directory: str) -> _recovery.Recovered | None:
        """Return what the journal would recover if all unsynced bytes were lost now.

        For white-box checks: entries, term and vote that really are on this disk (not aligned with
        the snapshot). None if there is no journal yet.
        """
        directory = f"{data_directory.rstrip('/')}/journal"
        key = (
            directory,
            self.names_version,
            tuple(
                (path, inode.version)
                for path, inode in self.durable_names.items()
                if path.startswith(directory)
            ),
        )
        if self._journal_cache is not None and self._journal_cache[0] == key:
            return self._journal_cache[1]
        identity = self.durable_identity(data_directory)
        found = None
        if identity is not None:
            found = _recovery.recover(
                DurableView(self), directory, identity.journal_owner, settle=False
            )
        self._journal_cache = (key, found)
        return found

    def durable_entries(self, data_directory: str) -> list[tuple[bytes, int, int]]:
        """Return the entries ``(payload, index, term)`` that are on disk."""
        found = self.durable_journal(data_directory)
        return found.entries if found is not None else []

    def used(self) -> int:
        """Return the bytes in use."""
        return sum(len(i.volatile) for i in {id(i): i for i in self.names.values()}.values())

    # --- for the file system ------------------------------------------------------------------

    def call(self, fs: SimFileSystem, kind: str) -> None:
        if fs.dead:
            raise SimCrash("the process is dead")
        self.calls += 1
        if self.calls == self._crash_call:
            self.die(fs, kind)

    def pass_point(self, fs: SimFileSystem, name: str) -> None:
        if fs.dead:
            raise SimCrash("the process is dead")
        self.points[name] += 1
        if self._crash_label == (name, self.points[name]):
            self.die(fs, name)

    def die(self, fs: SimFileSystem, where: str) -> None:
        fs.dead = True
        self._crash_call, self._crash_label = 0, None
        self.crashes.append(where)
        raise SimCrash(where)

    def spend_sync(self, path: str) -> None:
        self._busy_ns += self.sync_ns
        if self.fail_syncs:
            self.fail_syncs -= 1
            raise DiskFailed(f"syncing {path} failed", "Input/output error (errno 5)", "check it")

    def change_name(self, path: str, inode: _Inode | None) -> None:
        if inode is None:
            self.names.pop(path, None)
        else:
            self.names[path] = inode
        self.pending_names.setdefault(_parent(path), []).append((path, inode))

    def room(self, wanted: int) -> int:
        if self.full:
            return 0
        return wanted if self.capacity is None else max(0, self.capacity - self.used())


def _prefix(pending: list[Op], count: int) -> list[Op]:
    kept: list[Op] = []
    for offset, data in pending:
        size = 1 if data is None else len(data)
        if count >= size:
            kept.append((offset, data))
        else:
            if data is not None and count:
                kept.append((offset, data[:count]))
            break
        count -= size
    return kept


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _no_space(path: str) -> DiskFull:
    return DiskFull(f"writing {path} failed", "No space left on device (errno 28)", "free some")


class SimFileSystem:
    """The FileSystem of one simulated process."""

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self.dead = False

    def point(self, name: str) -> None:
        self.disk.pass_point(self, name)

    def open(self, path: str, *, create: bool = False) -> File:
        disk = self.disk
        self._alive()
        if create:
            disk.call(self, "create")
            if path in disk.names:
                raise DiskFailed(f"creating {path} failed", "File exists (errno 17)", "?")
            if _parent(path) not in disk.dirs:
                raise Missing(f"creating {path} failed", "no such directory (errno 2)", "?")
            if disk.full:
                raise _no_space(path)
            disk.change_name(path, _Inode())
        elif path not in disk.names:
            raise Missing(f"opening {path} failed", "No such file or directory (errno 2)", "?")
        return _SimFile(self, path, disk.names[path])

    def listdir(self, path: str) -> list[str]:
        self._alive()
        path = path.rstrip("/") or "/"
        found = {p.rpartition("/")[2] for p in self.disk.names if _parent(p) == path}
        found |= {d.rpartition("/")[2] for d in self.disk.dirs if d != "/" and _parent(d) == path}
        return sorted(found)

    def mkdir(self, path: str) -> None:
        path = path.rstrip("/")
        if path in self.disk.dirs or not path:
            self._alive()
            return
        self.mkdir(_parent(path))
        self.disk.call(self, "mkdir")
        self.disk.dirs.add(path)

    def rename(self, source: str, target: str) -> None:
        disk = self.disk
        disk.call(self, "rename")
        inode = disk.names.get(source)
        if inode is None:
            raise Missing(f"renaming {source} failed", "No such file or directory (errno 2)", "?")
        disk.change_name(target, inode)
        disk.change_name(source, None)

    def unlink(self, path: str) -> None:
        if path not in self.disk.names:
            self._alive()
            return
        self.disk.call(self, "unlink")
        self.disk.change_name(path, None)

    def fsync_dir(self, path: str) -> None:
        disk = self.disk
        path = path.rstrip("/") or "/"
        disk.call(self, "fsync_dir")
        disk.spend_sync(path)
        for name, inode in disk.pending_names.pop(path, []):
            if inode is None:
                disk.durable_names.pop(name, None)
            else:
                disk.durable_names[name] = inode
        disk.names_version += 1

    def lock(self, path: str) -> Lock:
        self._alive()
        if path in self.disk.locked:
            raise InUse("opening the data directory failed", "in use by pid 1", "stop it")
        self.disk.locked.add(path)
        if path not in self.disk.names:
            self.disk.change_name(path, _Inode())
        return _SimLock(self, path)

    def random_bytes(self, size: int) -> bytes:
        return self.disk.rng.randbytes(size)

    def now_ns(self) -> int:
        return self.disk.wall_ns()

    def _alive(self) -> None:
        if self.dead:
            raise SimCrash("the process is dead")


class _SimLock:
    def __init__(self, fs: SimFileSystem, path: str) -> None:
        self._fs = fs
        self._path = path

    def release(self) -> None:
        if not self._fs.dead:
            self._fs.disk.locked.discard(self._path)


class _SimFile:
    def __init__(self, fs: SimFileSystem, path: str, inode: _Inode) -> None:
        self._fs = fs
        self._disk = fs.disk
        self._path = path
        self._inode = inode
        self._closed = False

    def _check(self) -> None:
        if self._fs.dead:
            raise SimCrash("the process is dead")
        assert not self._closed, f"{self._path} is closed"

    def write(self, offset: int, buffers: Sequence[bytes]) -> None:
        self._check()
        self._disk.call(self._fs, "write")
        data = b"".join(buffers)
        wanted = max(0, offset + len(data) - len(self._inode.volatile))
        room = self._disk.room(wanted)
        if self._disk.full or room < wanted:
            # overwriting may need space too (unwritten extents, copy on write)
            kept = data[: 0 if self._disk.full else len(data) - wanted + room]
            if kept:
                self._inode.change((offset, kept))
            raise _no_space(self._path)
        self._inode.change((offset, data))

    def read(self, offset: int, size: int) -> bytes:
        self._check()
        if self._disk.fail_reads:
            raise DiskFailed(f"reading {self._path} failed", "Input/output error (errno 5)", "?")
        return bytes(self._inode.volatile[offset : offset + size])

    def sync(self) -> None:
        self._check()
        self._disk.call(self._fs, "sync")
        try:
            self._disk.spend_sync(self._path)
        except StorageError:
            self._inode.pending = []  # visible, clean, and never to reach the disk
            raise
        self._inode.sync()

    def start_writeback(self, offset: int, size: int) -> None:
        pass

    def settle(self) -> None:
        self.sync()
        self._inode.volatile = bytearray(self._inode.durable)

    def truncate(self, size: int) -> None:
        self._check()
        if size != len(self._inode.volatile):
            self._disk.call(self._fs, "truncate")
            self._inode.change((size, None))

    def preallocate(self, size: int) -> None:
        self._check()
        if size > len(self._inode.volatile):
            wanted = size - len(self._inode.volatile)
            if self._disk.room(wanted) < wanted:
                raise _no_space(self._path)
            self.truncate(size)

    def size(self) -> int:
        self._check()
        return len(self._inode.volatile)

    def close(self) -> None:
        self._closed = True


class DurableView:
    """A read-only file system of what a power loss would leave at least."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk

    def point(self, name: str) -> None: ...

    def open(self, path: str, *, create: bool = False) -> File:
        inode = self._disk.durable_names.get(path)
        if inode is None or create:
            raise Missing(f"opening {path} failed", "not durable", "?")
        return _DurableFile(inode)

    def listdir(self, path: str) -> list[str]:
        path = path.rstrip("/") or "/"
        return sorted(p.rpartition("/")[2] for p in self._disk.durable_names if _parent(p) == path)

    def mkdir(self, path: str) -> None:
        raise AssertionError("read only")

    def rename(self, source: str, target: str) -> None:
        raise AssertionError("read only")

    def unlink(self, path: str) -> None:
        raise AssertionError("read only")

    def fsync_dir(self, path: str) -> None:
        raise AssertionError("read only")

    def lock(self, path: str) -> Lock:
        raise AssertionError("read only")

    def random_bytes(self, size: int) -> bytes:
        raise AssertionError("read only")

    def now_ns(self) -> int:
        return 0


class _DurableFile:
    def __init__(self, inode: _Inode) -> None:
        self._inode = inode

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._inode.durable[offset : offset + size])

    def size(self) -> int:
        return len(self._inode.durable)

    def close(self) -> None: ...

    def write(self, offset: int, buffers: Sequence[bytes]) -> None:
        raise AssertionError("read only")

    def sync(self) -> None:
        raise AssertionError("read only")

    def start_writeback(self, offset: int, size: int) -> None:
        raise AssertionError("read only")

    def settle(self) -> None:
        raise AssertionError("read only")

    def truncate(self, size: int) -> None:
        raise AssertionError("read only")

    def preallocate(self, size: int) -> None:
        raise AssertionError("read only")

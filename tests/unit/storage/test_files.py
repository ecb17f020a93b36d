"""The real file system: the same behaviour as the simulated one, and real errors."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest

from raftckpt.storage import (
    DiskFailed,
    DiskFull,
    FileSystem,
    InUse,
    Missing,
    RealFileSystem,
    StorageError,
    files,
)
from tests.directories import open_founded
from tests.sim.disk import SimDisk
from tests.waiting import until


@pytest.fixture(params=["real", "simulated"])
def place(request, tmp_path) -> tuple[FileSystem, str]:
    if request.param == "real":
        return RealFileSystem(), str(tmp_path)
    disk = SimDisk(random.Random(1))
    disk.fs.mkdir("/t")
    return disk.fs, "/t"


def test_files(place):
    fs, base = place
    path = f"{base}/f"
    with pytest.raises(Missing):
        fs.open(path)
    file = fs.open(path, create=True)
    with pytest.raises(DiskFailed):
        fs.open(path, create=True)
    file.write(0, [b"hello", b" ", b"world"])
    file.write(3, [b"L"])
    assert file.read(0, 100) == b"helLo world"
    assert file.read(6, 3) == b"wor"
    assert file.read(50, 3) == b""
    file.preallocate(5000)
    assert file.size() == 5000
    assert file.read(11, 10_000) == bytes(4989)
    file.preallocate(10)
    assert file.size() == 5000
    file.sync()
    file.settle()
    file.truncate(5)
    assert file.read(0, 100) == b"helLo"
    file.write(0, [])
    file.close()
    file.close()
    fs.fsync_dir(base)


def test_large_and_many_buffers(place):
    fs, base = place
    file = fs.open(f"{base}/f", create=True)
    buffers = [bytes([i % 251]) * (i % 700) for i in range(3000)] + [bytes(2_000_000)]
    file.write(7, buffers)
    data = b"".join(buffers)
    assert file.read(7, len(data) + 5) == data
    file.close()


def test_names(place):
    fs, base = place
    assert fs.listdir(f"{base}/no") == []
    fs.mkdir(f"{base}/a/b")
    fs.mkdir(f"{base}/a/b")
    fs.open(f"{base}/a/y", create=True).close()
    fs.open(f"{base}/a/x", create=True).close()
    assert fs.listdir(f"{base}/a") == ["b", "x", "y"]
    fs.rename(f"{base}/a/x", f"{base}/a/y")
    fs.unlink(f"{base}/a/x")
    assert fs.listdir(f"{base}/a") == ["b", "y"]
    fs.unlink(f"{base}/a/y")
    with pytest.raises(Missing):
        fs.rename(f"{base}/a/y", f"{base}/a/z")
    fs.point("anything")
    assert len(fs.random_bytes(9)) == 9
    assert fs.now_ns() >= 0


def test_lock(place):
    fs, base = place
    lock = fs.lock(f"{base}/lock")
    with pytest.raises(InUse):
        fs.lock(f"{base}/lock")
    lock.release()
    lock.release()
    fs.lock(f"{base}/lock").release()


def test_the_lock_names_its_holder(tmp_path):
    fs = RealFileSystem()
    lock = fs.lock(str(tmp_path / "lock"))
    with pytest.raises(InUse, match=f"in use by pid {os.getpid()}"):
        fs.lock(str(tmp_path / "lock"))
    lock.release()


def test_a_killed_process_leaves_no_lock(tmp_path):
    script = f"""
        from raftckpt.storage import *
        import os
        from tests.directories import open_founded
        open_founded(RealFileSystem(), {str(tmp_path)!r})
        os._exit(9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == 9
    open_founded(RealFileSystem(), str(tmp_path)).close()


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, at: real(fd, [b"".join(parts)[:7]], at))
    short = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: short(fd, data[:5], at))
    file = RealFileSystem().open(str(tmp_path / "f"), create=True)
    file.write(0, [b"0123456789" * 10])
    assert file.read(0, 1000) == b"0123456789" * 10
    file.close()


def test_short_reads_are_continued(tmp_path, monkeypatch):
    file = RealFileSystem().open(str(tmp_path / "f"), create=True)
    file.write(0, [b"0123456789" * 10])
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: real(fd, min(size, 7), at))
    assert file.read(0, 95) == (b"0123456789" * 10)[:95]
    assert file.read(0, 1000) == b"0123456789" * 10
    file.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EIO, DiskFailed),
        (errno.EROFS, DiskFailed),
        (errno.ENOENT, Missing),
    ],
)
@pytest.mark.parametrize(
    ("call", "act"),
    [
        ("pwritev", lambda fs, f, p: f.write(0, [b"x"])),
        ("pread", lambda fs, f, p: f.read(0, 1)),
        ("fdatasync", lambda fs, f, p: f.sync()),
        ("fsync", lambda fs, f, p: f.settle()),
        ("fsync", lambda fs, f, p: fs.fsync_dir(p)),
        ("ftruncate", lambda fs, f, p: f.truncate(1)),
        ("posix_fallocate", lambda fs, f, p: f.preallocate(1)),
        ("fstat", lambda fs, f, p: f.size()),
        ("rename", lambda fs, f, p: fs.rename(p + "/f", p + "/g")),
        ("mkdir", lambda fs, f, p: fs.mkdir(p + "/d")),
        ("open", lambda fs, f, p: fs.open(p + "/f")),
        ("open", lambda fs, f, p: fs.lock(p + "/l")),
    ],
)
def test_every_error_has_a_type_and_three_lines(tmp_path, monkeypatch, code, expected, call, act):
    fs = RealFileSystem()
    file = fs.open(str(tmp_path / "f"), create=True)

    def fail(*_args, **_named):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(expected) as caught:
            act(fs, file, str(tmp_path))
    assert isinstance(caught.value, StorageError)
    assert str(caught.value).count("\n") == 2
    file.close()


def test_the_time_of_syncs_is_counted(tmp_path, monkeypatch):
    took: list[float] = []
    fs = RealFileSystem(synced=took.append)
    file = fs.open(str(tmp_path / "f"), create=True)
    now = [0.0]
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    fdatasync, fsync = os.fdatasync, os.fsync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (fdatasync(fd), now.append(now.pop() + 2)))
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), now.append(now.pop() + 3)))
    file.write(0, [b"few"])
    assert took == []
    file.sync()
    assert took == [2.0]
    fs.fsync_dir(str(tmp_path))
    assert took == [2.0, 3.0]
    file.close()


def _is_held(path) -> bool:
    """Whether this process has the file open that had this name."""
    links = (os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
    return any(link.startswith(str(path)) for link in links)


@pytest.mark.parametrize("closed_last", [True, False])
def test_a_large_file_is_freed_aside(tmp_path, monkeypatch, closed_last):
    """Freeing gigabytes takes the kernel a while, which nobody shall wait for."""
    fs, path = RealFileSystem(), tmp_path / "large"
    file = fs.open(str(path), create=True)
    file.preallocate(files._FREED_ASIDE_BYTES)
    if not closed_last:
        file.close()
    may_free, closed_by = threading.Event(), []

    def close(fd: int) -> None:
        closed_by.append(threading.current_thread())
        assert may_free.wait(30)
        os.close(fd)

    monkeypatch.setattr(files, "_close", close)
    if closed_last:
        os.unlink(path)
        file.close()
    else:
        fs.unlink(str(path))
    assert not path.exists()
    assert _is_held(path)  # and yet we are here
    may_free.set()
    until(lambda: not _is_held(path), "the file is freed")
    assert closed_by != [threading.current_thread()]


def test_a_large_file_is_freed_here_if_there_are_no_threads_left(tmp_path, monkeypatch):
    def refuse(thread) -> None:
        raise RuntimeError("can't start new thread")

    fs, path = RealFileSystem(), tmp_path / "large"
    file = fs.open(str(path), create=True)
    file.preallocate(files._FREED_ASIDE_BYTES)
    file.close()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    fs.unlink(str(path))
    assert not path.exists()
    assert not _is_held(path)


def test_a_small_file_is_freed_at_once(tmp_path):
    fs, path = RealFileSystem(), tmp_path / "small"
    file = fs.open(str(path), create=True)
    file.write(0, [b"few"])
    file.close()
    fs.unlink(str(path))
    assert not path.exists()
    assert not _is_held(path)


def test_a_link_is_unlinked_and_not_followed(tmp_path):
    (tmp_path / "target").write_bytes(b"stays")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    RealFileSystem().unlink(str(tmp_path / "link"))
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"stays"


def test_other_errors_of_listing_unlinking_and_locking(tmp_path, monkeypatch):
    fs = RealFileSystem()
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(DiskFailed):
        fs.listdir(str(tmp_path / "f"))
    with pytest.raises(DiskFailed):
        fs.unlink(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", lambda fd, size: (_ for _ in ()).throw(OSError(5, "EIO")))
        with pytest.raises(DiskFailed):
            fs.lock(str(tmp_path / "l"))


def test_without_fallocate_the_file_is_only_extended(tmp_path, monkeypatch):
    def unsupported(*_args):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    file = RealFileSystem().open(str(tmp_path / "f"), create=True)
    file.preallocate(3000)
    assert file.size() == 3000
    file.close()


def test_a_storage_on_the_real_disk(tmp_path):
    fs = RealFileSystem()
    path = str(tmp_path / "data")
    storage = open_founded(fs, path, segment_bytes=20_000)
    journal = storage.journal
    journal.set_hard_state(1, "n")
    for index in range(1, 101):
        journal.append_entry(random.Random(index).randbytes(1000), index, 1)
        journal.sync()
    payload = journal[49][0]
    writer = storage.snapshots.create(50, 1, payload, 1)
    writer.write(b"state" * 100_000)
    meta = writer.commit()
    journal.compact_to(49)
    for _ in range(10):
        journal.sync()
    files = os.listdir(tmp_path / "data" / "journal")
    assert len(files) <= 5
    expected = list(journal)
    storage.close()
    again = open_founded(fs, path, segment_bytes=20_000)
    assert list(again.journal) == expected
    assert again.snapshots.latest() == meta
    assert b"".join(again.snapshots.pieces(meta)) == b"state" * 100_000
    again.close()


def test_what_a_killed_process_acknowledged_is_there(tmp_path):
    """A real process, a real kill -9 in the middle of its work."""
    script = """
        import sys
        from raftckpt.storage import *
        from tests.directories import open_founded
        storage = open_founded(RealFileSystem(), sys.argv[1], segment_bytes=30_000)
        journal, index = storage.journal, len(storage.journal)
        while True:
            for _ in range(3):
                index += 1
                journal.append_entry(b"%d" % index * 50, index, 0)
            journal.sync()
            print(index, flush=True)
    """
    acknowledged = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for _ in range(60):
                acknowledged = int(process.stdout.readline())
            process.kill()
            for line in process.stdout:
                acknowledged = int(line)
        storage = open_founded(RealFileSystem(), str(tmp_path), segment_bytes=30_000)
        found = [(b"%d" % index * 50, index, 0) for index in range(1, len(storage.journal) + 1)]
        assert list(storage.journal) == found
        assert len(found) >= acknowledged >= 180
        storage.close()


def test_full_disk_for_real(tmp_path):
    """A small tmpfs in a user namespace of our own."""
    script = """
        import sys
        from raftckpt.storage import *
        from tests.directories import open_founded
        fs, path = RealFileSystem(), sys.argv[1] + "/data"
        storage = open_founded(fs, path, segment_bytes=1 << 19)
        journal, synced = storage.journal, 0
        try:
            while True:
                for _ in range(5):
                    journal.append_entry(bytes(9) * 1000, synced + 1, 0)
                    synced += 1
                journal.sync()
        except DiskFull as error:
            failed = str(error)
        try:
            journal.sync()
        except DiskFull:
            print("poisoned", failed.splitlines()[1].strip())
        storage.close()
        import os
        os.truncate(sys.argv[1] + "/ballast", 0)
        storage = open_founded(fs, path, segment_bytes=1 << 19)
        # the group that failed may be there in part, everything before it is there
        print("kept", len(storage.journal) >= synced - 5, synced > 50)
        storage.close()
    """
    mount = tmp_path / "small"
    mount.mkdir()
    command = (
        f"mount -t tmpfs -o size=4m none {mount} && head -c 1m /dev/zero > {mount}/ballast && "
        f'exec "$0" -c "$1" {mount}'
    )
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command, sys.executable, textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "poisoned why: No space left on device (errno 28)" in done.stdout
    assert "kept True True" in done.stdout


def failing(number: int) -> Callable[[int], None]:
    def sync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    return sync


def test_errors_name_a_file_that_exists(tmp_path, monkeypatch) -> None:
    """A segment is written under another name before it is one: later errors name the segment."""
    fs = RealFileSystem()
    file = fs.open(str(tmp_path / "segment.tmp"), create=True)
    fs.rename(str(tmp_path / "segment.tmp"), str(tmp_path / "segment"))
    monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
    with pytest.raises(DiskFailed) as caught:
        file.sync()
    assert f"{tmp_path}/segment failed" in caught.value.what
    monkeypatch.undo()
    file.close()


def test_a_file_system_that_turned_read_only_is_a_failed_disk(tmp_path, monkeypatch) -> None:
    file = RealFileSystem().open(str(tmp_path / "f"), create=True)
    monkeypatch.setattr(os, "fdatasync", failing(errno.EROFS))
    with pytest.raises(DiskFailed) as caught:
        file.sync()
    assert "its disk fails" in caught.value.remedy
    assert "write access" not in caught.value.remedy
    monkeypatch.undo()
    file.close()

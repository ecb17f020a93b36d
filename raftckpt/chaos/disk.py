"""A disk that can be full for real: a small tmpfs in a namespace of its own.

A process that sleeps holds the namespace; a replica enters it when it starts, so its data outlive
it. Where unprivileged namespaces do not exist there is no such disk, and the run says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from raftckpt.limits import MIB
from raftckpt.testing import background

__all__ = ["MIB_MIN", "SmallDisk"]

MIB_MIN = 448
"""Three journal segments, snapshots and some room: it must get full only when it is filled."""
_START_S = 10.0
_HOLD = """
mount -t tmpfs -o size="$3"m tmpfs "$1" && mkdir "$1/data" && mount --bind "$1/data" "$2" || exit 1
shift 3
exec "$@"
"""


class SmallDisk:
    """A small file system, and a directory of it mounted over another, for those who enter.

    Arguments:
        mount: an empty directory for the file system.
        directory: where its directory ``data`` is to be seen.
        mib: its size.

    Raises:
        OSError: this machine does not allow it; the message says what was tried.
    """

    def __init__(self, mount: Path, directory: Path, mib: int = MIB_MIN) -> None:
        missing = [tool for tool in ("unshare", "nsenter") if shutil.which(tool) is None]
        if missing:
            raise OSError(f"there is no {missing[0]} command")
        self._mount = mount
        self._bytes = mib * MIB
        shell = ["sh", "-c", _HOLD, "sh", str(mount), str(directory), str(mib)]
        self._holder = background.spawn(
            ["-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            prefix=["unshare", "-Urm", *shell],
        )
        deadline = time.monotonic() + _START_S
        while f" {directory} " not in self._mounts():
            if self._holder.poll() is not None or time.monotonic() > deadline:
                self._holder.kill()
                _, told = self._holder.communicate()
                text = told.decode("utf-8", "replace").strip() or "no answer in time"
                raise OSError(f"unshare -Urm and mount: {text}")
            time.sleep(0.01)

    def _mounts(self) -> str:
        try:
            return Path(f"/proc/{self._holder.pid}/mounts").read_text("utf-8", "replace")
        except OSError:
            return ""

    @property
    def wrap(self) -> list[str]:
        """Command that runs the rest of its arguments where this disk is."""
        pid = str(self._holder.pid)
        return ["nsenter", "-t", pid, "-U", "-m", "--preserve-credentials", "--"]

    @property
    def _inside(self) -> Path:
        return Path(f"/proc/{self._holder.pid}/root{self._mount}")

    def fill(self) -> int:
        """Fill it up to the last byte; returns how many bytes that took."""
        written = 0
        with open(self._inside / "ballast", "ab", buffering=0) as file:
            for size in (MIB, 4096, 1):
                block = bytes(size)
                with contextlib.suppress(OSError):
                    while written < 2 * self._bytes:
                        written += file.write(block)
        return written

    def empty(self) -> None:
        """Make room again."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._inside / "ballast")

    def close(self) -> None:
        """Give it back."""
        self._holder.kill()
        self._holder.communicate()

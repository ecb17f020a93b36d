"""Client processes that hold checkpoints open until somebody kills them.

As a program: ``python -m tests.e2e.session_clients ENDPOINTS NAME GRACE HANDLES [busy]``, where
HANDLES is ``checkpoint:mode,...``. It prints "ready", goes on until it is killed, and says goodbye
when its standard input ends. A call that fails ends it with exit code 1.
"""

from __future__ import annotations

import os
import select
import sys

import raftckpt
from tests.programs import Program

ATTRIBUTES = raftckpt.Attributes(retention=0.3)


def main() -> None:
    endpoints, name, grace, handles, *more = sys.argv[1:]
    with raftckpt.connect(
        endpoints, name=name, disconnect_grace=float(grace), timeout=60
    ) as service:
        opened = [
            service.open(handle.partition(":")[0], create=ATTRIBUTES, mode=handle.partition(":")[2])
            for handle in handles.split(",")
        ]
        writable = [each for each, handle in zip(opened, handles.split(","), strict=True)
                    if "w" in handle.partition(":")[2]]  # fmt: skip
        print("ready", flush=True)
        number = 0
        while not select.select([sys.stdin], [], [], 0 if "busy" in more else 0.05)[0]:
            number += 1
            for checkpoint in writable:
                checkpoint.put(name, str(number).encode())


class Opener(Program):
    """Such a process, and what it has open."""

    def __init__(
        self,
        endpoints: str,
        name: str,
        handles: str,
        *,
        grace: float = 0.0,
        more: tuple[str, ...] = (),
    ) -> None:
        self.name, self.handles = name, handles
        super().__init__(
            sys.executable, "-m", __name__, endpoints, name, str(grace), handles, *more
        )

    def wait_ready(self) -> Opener:
        self.expect("ready")
        return self

    def counts(self, checkpoint: str) -> tuple[int, int]:
        """(handles that may read, handles that may write) of a checkpoint."""
        modes = [mode for name, _, mode in (h.partition(":") for h in self.handles.split(","))
                 if name == checkpoint]  # fmt: skip
        return sum("r" in mode for mode in modes), sum("w" in mode for mode in modes)


if __name__ == "__main__":
    try:
        main()
    except raftckpt.CheckpointError as error:
        print(f"pid {os.getpid()}: {error!r}", file=sys.stderr)
        sys.exit(1)

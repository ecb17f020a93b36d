"""A component of csa103: counts, checkpoints each number, and takes over where the other stopped.

Run as a process of its own by the director, which plays AMF: it writes the assignment (``ACTIVE``)
to standard input; the component says what it does on standard output, one JSON list per line,
stamped with CLOCK_MONOTONIC (one clock for all processes of a machine): ``["standby"]``,
``["active", ns, number read or null, epoch]``, ``["begin", ns, n]``, ``["ack", ns, n]``.

The order of calls is that of the tutorial: initialize and open in both components; on ACTIVE set
the active replica, read, then loop {overwrite, create the section if it is missing, synchronize}.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from typing import Any

import raftckpt

__all__ = ["CHECKPOINT", "SECTION", "attributes", "main"]

CHECKPOINT = "csa103Ckpt"
SECTION = b"1"
CALL_TIMEOUT_S = 30.0


def attributes() -> raftckpt.Attributes:
    """Creation attributes of the tutorial: two sections of four bytes, retention 10 ns."""
    return raftckpt.Attributes(
        update="weak",
        collocated=True,
        size=4,
        retention=10e-9,
        max_sections=2,
        max_section_size=4,
        max_section_id_size=64,
    )


def _say(*record: Any) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _read(checkpoint: raftckpt.Checkpoint) -> int | None:
    try:
        data = checkpoint.read(SECTION)
    except raftckpt.NotExist:
        return None
    return int(struct.unpack("!I", data)[0])


def _write(checkpoint: raftckpt.Checkpoint, number: int) -> None:
    data = struct.pack("!I", number)  # network byte order
    try:
        checkpoint.overwrite(SECTION, data)
    except raftckpt.NotExist:
        checkpoint.create(SECTION, data)
    checkpoint.synchronize()


def main(argv: list[str] | None = None) -> int:
    """Run the component until it is killed or its standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoints", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--interval", type=float, required=True, help="seconds between numbers")
    options = parser.parse_args(argv)
    with raftckpt.connect(
        options.endpoints,
        node=options.node,
        name=options.name,
        timeout=CALL_TIMEOUT_S,
        disconnect_grace=0.0,
    ) as service:
        checkpoint = service.open(CHECKPOINT, create=attributes())
        _say("standby")
        if sys.stdin.readline().strip() != "ACTIVE":
            return 0
        epoch = checkpoint.active_replica_set()
        value = _read(checkpoint)
        _say("active", time.monotonic_ns(), value, epoch)
        number = 0 if value is None else value + 1
        while True:
            _say("begin", time.monotonic_ns(), number)
            _write(checkpoint, number)
            _say("ack", time.monotonic_ns(), number)
            number += 1
            time.sleep(options.interval)


if __name__ == "__main__":
    sys.exit(main())

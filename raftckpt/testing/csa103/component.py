"""A component of csa103: counts, checkpoints each number, and takes over where the other stopped.

One select loop serves two libraries: the checkpoint service, and whoever assigns the roles. With
``--group`` that is a service group (:mod:`raftckpt.testing.csa103.group_roles`), else standard
input (a line ``ACTIVE`` makes the component active, the end of the input ends it); anything with a
descriptor and a ``dispatch`` can take their place (:class:`RoleSource`).

What it does, it says on standard output: as the tutorial's log, or (``--output json``) as records
for the director of the demo, one JSON list per line, stamped with CLOCK_MONOTONIC (one clock for
all processes of a machine): ``["standby"]``, ``["active", ns, number known or null]``,
``["begin", ns, n]``, ``["ack", ns, n]``.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import threading
import time
from datetime import datetime
from typing import Any, Protocol

from raftckpt import saf
from raftckpt.testing.csa103.checkpoint_fns import CKPT_NAME, CKPT_SID_NAME, UPDATES, CheckpointFns

__all__ = ["CHECKPOINT", "SECTION", "DemoComponent", "RoleSource", "StandardInput", "main"]

CHECKPOINT = CKPT_NAME
SECTION = CKPT_SID_NAME
CALL_TIMEOUT_S = 30.0


class RoleSource(Protocol):
    """Whoever tells the component what to be: AMF, or what plays it."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to dispatch."""
        ...

    def dispatch(self, component: DemoComponent) -> bool:
        """Tell the component; False when it is to end."""
        ...


class StandardInput:
    """Roles by lines on a descriptor: ``ACTIVE``; the end of the input is the end."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def dispatch(self, component: DemoComponent) -> bool:
        """Read what came; activate on ``ACTIVE``."""
        data = os.read(self._descriptor, 4096)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.strip() == b"ACTIVE":
                component.activate()
        return bool(data)


class DemoComponent:
    """The application: initialize, be standby, be active.

    Arguments:
        name: of the component.
        checkpoint: its checkpoint functions.
        interval: seconds between two numbers.
        voice: says what happens.
    """

    def __init__(
        self, name: str, checkpoint: CheckpointFns, interval: float, voice: _Voice
    ) -> None:
        self.name = name
        self._checkpoint = checkpoint
        self._interval = interval
        self._voice = voice
        self._active = False
        self._thread: threading.Thread | None = None

    def run(self, roles: RoleSource) -> None:
        """Serve the roles and the checkpoint service in one loop until the roles end it."""
        who = f"Component [{self.name}] : PID [{os.getpid()}]."
        self._voice.log(f"{who} Initializing")
        self._checkpoint.initialize()
        self._voice.standby()
        ckpt_dispatch_fd = self._checkpoint.selection_object()
        goes_on = True
        while goes_on:
            readable, _, _ = select.select([roles.fileno(), ckpt_dispatch_fd], [], [])
            if ckpt_dispatch_fd in readable:
                self._checkpoint.dispatch()
            if roles.fileno() in readable:
                goes_on = roles.dispatch(self)
        self._checkpoint.finalize()

    def activate(self, *known: int | None) -> None:
        """Become active: a thread counts from now on.

        Arguments:
            known: the last number, if the component knows it already (None: there is none).
        """
        if self._active:
            return
        self._active = True
        self._voice.log("HA state : [Active]")
        self._thread = threading.Thread(target=self._count_or_die, args=known, daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Stop counting; the number under way is finished."""
        if not self._active:
            return
        self._active = False
        self._voice.log("HA state : [Not active]")
        while self._thread is not None and self._thread.is_alive():
            # the answer to the last number comes by dispatch
            readable, _, _ = select.select([self._checkpoint.selection_object()], [], [], 0.01)
            if readable:
                self._checkpoint.dispatch()

    def _count_or_die(self, *known: int | None) -> None:
        try:
            self._count(*known)
        except BaseException as error:
            print(f"{self.name}: {error}", file=sys.stderr, flush=True)
            os._exit(1)  # a component that cannot count must be replaced, not linger

    def _count(self, *known: int | None) -> None:
        self._voice.log("Active thread has started")
        self._checkpoint.replica_activate()
        value = known[0] if known else self._checkpoint.read_seq()
        self._voice.active(value)
        seq = 0 if value is None else value + 1
        while self._active:
            self._voice.begin(seq)
            self._checkpoint.write_seq(seq)
            self._checkpoint.wait_synchronized(seq)
            self._voice.acknowledged(seq)
            seq += 1
            time.sleep(self._interval)


class _Voice:
    """Says what happens, as the tutorial's log does or as records."""

    def __init__(self, *, records: bool) -> None:
        self._records = records
        self._lock = threading.Lock()

    def log(self, text: str) -> None:
        if not self._records:
            now = datetime.now().astimezone().strftime("%a %b %d %H:%M:%S.%f")[:-3]
            self._print(f"{now} ({os.getpid()}) {text}")

    def standby(self) -> None:
        self.log("HA state : [Standby]")
        self._record("standby")

    def active(self, value: int | None) -> None:
        self._record("active", time.monotonic_ns(), value)

    def begin(self, seq: int) -> None:
        self.log(f"Hello World! (seq={seq})")
        self._record("begin", time.monotonic_ns(), seq)

    def acknowledged(self, seq: int) -> None:
        self._record("ack", time.monotonic_ns(), seq)

    def _record(self, *record: Any) -> None:
        if self._records:
            self._print(json.dumps(record))

    def _print(self, line: str) -> None:
        with self._lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    """Run the component until it is killed or its standard input ends."""
    parser = argparse.ArgumentParser(description="A component of csa103.")
    parser.add_argument("--endpoints", help="default: RAFTCKPT_ENDPOINTS or RAFTCKPT_CONFIG")
    parser.add_argument("--node", help="default: the node of the replica first connected to")
    parser.add_argument("--name", default="csa103CompI0")
    parser.add_argument("--group", help="service group that assigns roles (needs --endpoints)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between numbers")
    parser.add_argument("--update", choices=sorted(UPDATES), default="weak")
    parser.add_argument("--collocated", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--sections", type=int, choices=(1, 2), default=1)
    parser.add_argument("--output", choices=("log", "json"), default="log")
    options = parser.parse_args(argv)
    saf.configure(
        options.endpoints,
        node=options.node,
        name=options.name,
        timeout=CALL_TIMEOUT_S,
        async_timeout=CALL_TIMEOUT_S,
        disconnect_grace=0.0,  # what dies is finalized at once: the other takes over
    )
    voice = _Voice(records=options.output == "json")
    checkpoint = CheckpointFns(
        voice.log,
        update=options.update,
        collocated=options.collocated,
        sections=options.sections,
    )
    roles: RoleSource = StandardInput()
    if options.group is not None:
        from raftckpt.testing.csa103.group_roles import GroupRoles

        if options.endpoints is None:
            parser.error("--group needs --endpoints")
        roles = GroupRoles(options.endpoints, options.node, options.name, options.group)
    DemoComponent(options.name, checkpoint, options.interval, voice).run(roles)
    return 0


if __name__ == "__main__":
    sys.exit(main())

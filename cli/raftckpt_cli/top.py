"""``raftckpt top``: a cluster live in a terminal. What is shown is made in ``topview``."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import click

from raftckpt_cli.diagnosis import leader_of
from raftckpt_cli.options import ClusterTarget, cluster_options
from raftckpt_cli.output import ExitCode, Failure

if TYPE_CHECKING:
    from raftckpt import Client

__all__ = ["top"]

_EVERY_S: Final = 1.0
"""A replica counts once a second (server/lasthour.py): who looks more often sees the same twice."""
_KEYS_S: Final = 0.1
"""A key is taken before one notices a delay; ten looks a second cost nothing to speak of."""
_ANSWERS: Final = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down"}


class _Watch:
    """Asks the cluster in a thread of its own, so that keys are heard while nobody answers."""

    def __init__(self, target: ClusterTarget, screen: Any) -> None:
        self._target = target
        self._screen = screen
        self._over = threading.Event()
        self._wanted: str | None = None
        self._at_once = threading.Event()
        self._clients: dict[str, Client] = {}
        self.broken: Exception | None = None
        """Our bug, to be raised where it is seen."""
        self._thread = threading.Thread(target=self._run, name="raftckpt-top", daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._at_once.set()
        self._thread.join(2.0)

    def transfer(self, node: str) -> None:
        """Have leadership handed to a node as soon as may be."""
        self._wanted = node
        self._at_once.set()

    def _run(self) -> None:
        try:
            self._go_on_looking()
        except Exception as error:
            self.broken = error

    def _go_on_looking(self) -> None:
        from raftckpt import CheckpointError

        while not self._over.is_set():
            begun = time.monotonic()
            try:
                self._look()
            except CheckpointError as error:
                self._screen.failed(str(error))
            self._at_once.wait(max(0.05, _EVERY_S - (time.monotonic() - begun)))
            self._at_once.clear()
        for client in self._clients.values():
            with suppress(CheckpointError):
                client.close()

    def _client(self, endpoint: str | None = None) -> Client:
        key = endpoint or ""
        if key not in self._clients:
            import raftckpt

            self._clients[key] = raftckpt.connect(
                endpoint or self._target.endpoints,
                **{**self._target.connection("raftckpt top"), "timeout": self._target.patience},
                session=False,
            )
        return self._clients[key]

    def _look(self) -> None:
        from raftckpt import CheckpointError

        service = self._client()
        node, self._wanted = self._wanted, None
        if node is not None:
            try:
                service.transfer_leadership(node)
                self._screen.say(f"leadership handed to {node}")
            except CheckpointError as error:
                self._screen.say(f"not handed over: {error}")
        found = service.cluster(timeout=self._target.patience)
        leader = leader_of(found)
        told = leader or next((each for each in found.replicas if each.reachable), None)
        lately = None
        if told is not None:
            try:
                lately = self._client(told.endpoint).lately(timeout=self._target.patience)
            except CheckpointError as error:
                if not isinstance(error, _refused()):
                    self._clients.pop(told.endpoint).close()
        self._screen.show(found, lately, time.monotonic())


def _refused() -> tuple[type[Exception], ...]:
    """What a connection survives: it may not see it."""
    from raftckpt import Access

    return (Access,)


@click.command("top")
@cluster_options
def top(target: ClusterTarget) -> int:
    """A cluster live in a terminal, 80 x 24 and larger: leader, lag, disks, busy checkpoints.

    Keys: s sorts by another column, the arrows (or j, k) choose a replica, t hands leadership to it
    after a question, p stops the picture, q ends.

    \b
    Examples:
      raftckpt top
      ssh -t host raftckpt top --endpoints 10.0.0.1:7401,10.0.0.2:7401,10.0.0.3:7401
    """  # noqa: D301
    try:
        from rich.console import Console
        from rich.live import Live

        from raftckpt_cli.topview import Screen
    except ImportError:
        raise Failure(
            "raftckpt top needs a package that is not installed",
            "no module rich",
            "pip install 'raftckpt[top]'",
            ExitCode.USAGE,
        ) from None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure(
            "raftckpt top needs a terminal",
            "its input or output is none",
            "raftckpt cluster status -o json is for programs",
            ExitCode.USAGE,
        )
    screen = Screen(target.endpoints)
    console = Console()
    with (
        _unbuffered(sys.stdin.fileno()) as keys,
        _Watch(target, screen) as watch,
        Live(screen, console=console, screen=True, auto_refresh=False) as live,
    ):
        while not screen.over:
            for key in keys(_KEYS_S):
                node = screen.pressed(key)
                if node is not None:
                    watch.transfer(node)
            live.refresh()
            if watch.broken is not None:
                raise watch.broken
    return ExitCode.OK


@contextmanager
def _unbuffered(descriptor: int) -> Iterator[Any]:
    """Have keys without the end of a line; yields what waits for some."""
    import termios
    import tty

    before = termios.tcgetattr(descriptor)

    def keys(seconds: float) -> list[str]:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        if not ready:
            return []
        text = os.read(descriptor, 64).decode("utf-8", "replace")
        if not text:  # the terminal is gone
            return ["q"]
        if text in _ANSWERS:
            return [_ANSWERS[text]]
        return [] if text.startswith("\x1b") else list(text)

    try:
        tty.setcbreak(descriptor)
        yield keys
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

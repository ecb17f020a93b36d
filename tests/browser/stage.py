"""A cluster as one meets it: programs that write, a service group, somebody who tracks."""

from __future__ import annotations

import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import raftckpt
from raftckpt.testing import LocalCluster
from tests.admin import with_admin
from tests.programs import Program
from tests.waiting import PATIENCE

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NAMES = (
    "billing/sessions", "billing/balances", "routing/table", "calls/established", "calls/ringing",
    "alarms/active", "subscribers/cache", "config/running",
)  # fmt: skip


def browser_path() -> str | None:
    """A browser of this machine; none is fetched."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Traffic:
    """Writes and reads, more or less of them as time goes by, until it is ended."""

    def __init__(self, endpoints: str) -> None:
        self._endpoints = endpoints
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(len(NAMES))
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        rng = random.Random(number)
        kind = NAMES[number].partition("/")[0]
        with raftckpt.connect(self._endpoints, name=f"{kind}-{number + 1}", timeout=30) as service:
            mine = service.open(NAMES[number], create=raftckpt.Attributes())
            for section in range(10 * (number + 1)):
                mine.put(b"s%d" % section, rng.randbytes(100 << number))
            while not self._over.is_set():
                with suppress(raftckpt.CheckpointError):
                    mine.put(b"s%d" % rng.randrange(10), rng.randbytes(64 + 20 * number))
                    if rng.random() < 0.5:
                        mine.read(b"s0")
                wave = 1 + 0.8 * ((time.monotonic() / 40 + number) % 1)
                self._over.wait(0.006 * (1 << number) ** 0.7 * wave)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@dataclass
class Played:
    """What a test finds."""

    cluster: LocalCluster
    components: list[Program]
    service: raftckpt.Service
    attributes: raftckpt.Attributes


@contextmanager
def staged(directory: Path) -> Iterator[Played]:
    """Three replicas with admin ports, and those who use them."""
    with ExitStack() as stack:
        cluster = with_admin(LocalCluster(3, directory, faults=False))
        stack.callback(cluster.stop)
        cluster.start()
        cluster.wait_ready(PATIENCE)
        service = stack.enter_context(
            raftckpt.connect(cluster.endpoints, name="an operator", timeout=30)
        )
        stack.callback(Traffic(cluster.endpoints).end)
        components = []
        for name in ("caller-a", "caller-b", "caller-c"):
            command = ("tests.e2e.ha_component", cluster.endpoints, "call-control", name)
            components.append(Program(sys.executable, "-m", *command))
            stack.callback(components[-1].end)
            components[-1].expect("told")
        yield Played(cluster, components, service, raftckpt.Attributes())

"""Hosts for replicas that are not all on one address: network namespaces, or addresses of loopback.

``ADMIN`` is where the operator sits. In namespaces nothing of the machine's own network is touched.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.waiting import until

__all__ = [
    "ADMIN",
    "LOOPBACK",
    "NODES",
    "PREFIX",
    "SPARE",
    "Hosts",
    "namespaces_may_be_made",
    "on_hosts",
]

ADMIN = "admin"
PREFIX = "10.0.0."
LOOPBACK = "127.7.0."
NODES = ("n1", "n2", "n3")
SPARE = "n4"
"""A host that is there, and no member at first."""
BRIDGE_HOST = 100


@functools.cache
def namespaces_may_be_made() -> bool:
    if shutil.which("ip") is None:
        return False
    name = f"rckprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode:
        return False
    tried = [
        ["ip", "-n", name, "link", "add", "probe0", "type", "bridge"],
        ["ip", "-n", name, "link", "add", "v1", "type", "veth", "peer", "name", "v2"],
    ]
    able = all(not subprocess.run(c, capture_output=True, check=False).returncode for c in tried)
    subprocess.run(["ip", "netns", "del", name], check=True)
    return able


class Hosts:
    """Four hosts and one of the operator.

    Attributes:
        path: each host has a directory below it, as its ``/etc/raftckpt``.
        addresses: what stands for ``10.0.0.`` in commands and files.
    """

    def __init__(self, path: Path, *, namespaces: bool) -> None:
        self.path = path
        self.addresses = PREFIX if namespaces else LOOPBACK
        self._namespaces = namespaces
        self._tag = f"rck{os.getpid()}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def set_up(self) -> None:
        if not self._namespaces:
            return
        for name in (ADMIN, *NODES, SPARE):
            self._ip("netns", "add", self._name(name))
            self._ip("-n", self._name(name), "link", "set", "lo", "up")
        admin = self._name(ADMIN)
        self._ip("-n", admin, "link", "add", "br0", "type", "bridge")
        self._ip("-n", admin, "addr", "add", f"{PREFIX}{BRIDGE_HOST}/24", "dev", "br0")
        self._ip("-n", admin, "link", "set", "br0", "up")
        for number, node in enumerate((*NODES, SPARE), 1):
            there = self._name(node)
            ends = ("peer", "name", "eth0", "netns", there)
            self._ip("-n", admin, "link", "add", f"v{number}", "type", "veth", *ends)
            self._ip("-n", admin, "link", "set", f"v{number}", "master", "br0", "up")
            self._ip("-n", there, "addr", "add", f"{PREFIX}{number}/24", "dev", "eth0")
            self._ip("-n", there, "link", "set", "eth0", "up")

    def tear_down(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        if self._namespaces:
            for name in (ADMIN, *NODES, SPARE):
                self._ip("netns", "del", self._name(name))

    def run(
        self, host: str, command: Sequence[str], **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, to its end."""
        return subprocess.run(
            [*self._there(host), *command],
            capture_output=True, text=True, timeout=60, check=False, **options,
        )  # type: ignore[call-overload,no-any-return]  # fmt: skip

    def serve(self, node: str, command: Sequence[str]) -> None:
        """Start a replica on a host; its log is the host's."""
        with (self.path / f"{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [*self._there(node), *command], stdout=log, stderr=log, start_new_session=True
            )

    def signal(self, node: str, number: int) -> None:
        """``ip netns exec`` becomes the command, so its process is the replica."""
        self._processes[node].send_signal(number)

    def kill(self, node: str) -> None:
        self._processes[node].kill()
        self._processes[node].wait()

    def log(self, node: str) -> str:
        return (self.path / f"{node}.log").read_text("utf-8", "replace")

    def logged(self, node: str, what: str, times: int = 1) -> None:
        until(lambda: self.log(node).count(what) >= times, f"{node} logs {what}")

    def _name(self, host: str) -> str:
        return f"{self._tag}{host}"

    def _there(self, host: str) -> list[str]:
        return ["ip", "netns", "exec", self._name(host)] if self._namespaces else []

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def on_hosts(path: Path, *, namespaces: bool) -> Iterator[Hosts]:
    hosts = Hosts(path, namespaces=namespaces)
    try:
        hosts.set_up()
        yield hosts
    except Exception as error:
        for log in sorted(path.glob("*.log")):
            error.add_note(f"--- {log.name}:\n{log.read_text('utf-8', 'replace')}")
        raise
    finally:
        hosts.tear_down()

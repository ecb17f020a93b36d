"""Every command of docs/operate/tls.md on its host: namespaces, else addresses of loopback."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from raftckpt.net.authority import SigningAuthority, Written
from tests.e2e.hosts import ADMIN, NODES, PREFIX, Hosts, namespaces_may_be_made, on_hosts
from tests.waiting import until

PAGE = Path(__file__).resolve().parents[2] / "docs/operate/tls.md"
TYPED = 10
"""Commands from nothing to three hosts with TLS and two tenants."""
COPY = """#!/bin/bash
to="${3#root@}"; path="$HOSTS/${to%%:*}${to#*:}"
mkdir -p "$(dirname "$path")" && exec cp -pr "$2" "$path"
"""
"""What stands for ``scp -pr SOURCE root@HOST:PATH``: each host is a directory here."""


class Typed(NamedTuple):
    host: str
    command: str
    shown: list[str]


def commands(block: str) -> Iterator[Typed]:
    for part in re.split(r"^(?=\w+\$ )", block, flags=re.MULTILINE)[1:]:
        line, *shown = part.rstrip("\n").split("\n")
        host, command = line.split("$ ", 1)
        yield Typed(host, command, shown)


class PageTyper:
    """Somebody who types what the page says."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.cwd = hosts.path / ADMIN
        shims = hosts.path / "bin"
        for path in (self.cwd, shims):
            path.mkdir()
        (shims / "scp").write_text(COPY)
        (shims / "scp").chmod(0o755)
        self.env = {**os.environ, "HOSTS": str(hosts.path)}
        self.env["PATH"] = f"{shims}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.token = ""
        """The last that was printed."""

    def here(self, text: str) -> str:
        return text.replace(PREFIX, self.hosts.addresses)

    def type(self, typed: Typed) -> None:
        command = self.here(typed.command)
        if typed.host != ADMIN:
            self.on_a_host(typed.host, command)
        elif command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.env[name] = value
        else:
            self.on_admin(command, typed.shown)

    def on_a_host(self, node: str, command: str) -> None:
        if command == "systemctl reload raftckpt":
            self.hosts.signal(node, signal.SIGHUP)
            self.hosts.logged(node, " reloaded ")
            return
        words = shlex.split(command.replace("/etc/", f"{self.hosts.path / node}/etc/"))
        words = [self.token if word == "TOKEN" else word for word in words]
        assert words[:2] == ["raftckpt", "serve"]
        self.hosts.serve(node, [sys.executable, "-m", *words])

    def on_admin(self, command: str, shown: list[str]) -> None:
        done = self.hosts.run(
            ADMIN, ["bash", "-c", command], env=self.env, cwd=self.cwd, stdin=subprocess.DEVNULL
        )  # fmt: skip
        self.token = (re.findall(r"--join (\S+)", done.stdout) or [self.token])[-1]
        fails = bool(shown) and shown[0].startswith("error: ")
        assert (done.returncode != 0) is fails, (command, done.stdout, done.stderr)
        for line in map(self.here, filter(None, shown)):
            node, logs, text = line.partition(" logs: ")
            if logs:
                until(lambda n=node, t=text: t in self.hosts.log(n), line)
            else:
                said = line.removeprefix("error: ")
                assert said in done.stdout + done.stderr, (command, line, done)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[PageTyper]:
    with on_hosts(tmp_path, namespaces=namespaces_may_be_made()) as hosts:
        yield PageTyper(hosts)


def foreign(reader: PageTyper) -> None:
    """One of another authority that says all the same, and one that has ended."""
    now = datetime.datetime.now(datetime.UTC)
    mine = reader.cwd / "certs/authority"
    known = Written((mine / "authority.pem").read_bytes(), (mine / "authority.key").read_bytes())
    for name, written, days in (
        ("foreign", SigningAuthority.founded("prod authority", 10, now), 10),
        ("ended", known, -1),
    ):
        uri = "raftckpt://prod/client/ops"
        made = SigningAuthority(written).signed("ops", uri, (), days, now)
        (reader.cwd / f"{name}.pem").write_bytes(made.certificate)
        (reader.cwd / f"{name}.key").write_bytes(made.key)


def test_the_page_is_true(reader: PageTyper) -> None:
    text = PAGE.read_text("utf-8")
    (config,) = re.findall(r"<!-- file: cluster.yaml -->\n```yaml\n(.*?)```", text, re.DOTALL)
    config = config.replace("/var/lib/raftckpt", str(reader.hosts.path / "data"))
    (reader.cwd / "cluster.yaml").write_text(reader.here(config), "utf-8")
    found = [
        list(commands(block)) for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    ]
    begin, tenants, refused, check, renew, replace = found
    assert len(begin) == TYPED
    for typed in begin:
        if typed.command.startswith("raftckpt principal create ops"):
            for node in NODES:
                reader.hosts.logged(node, " ready ")
        reader.type(typed)
    foreign(reader)
    for typed in (*tenants, *refused, *check, *renew):
        reader.type(typed)
    reader.type(Typed(ADMIN, "raftckpt cluster status", []))
    for node in NODES:
        assert "disconnected" not in reader.hosts.log(node)
    *steps, members = replace
    for typed in steps:
        reader.type(typed)
    reader.hosts.logged("n3", "the cluster removed n3")
    reader.type(members)

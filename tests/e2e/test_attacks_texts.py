"""Files and texts that are made to mislead: what reads them says so, and shows no one's escapes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import raftckpt
from raftckpt.protocol.frames import pack_messages
from raftckpt.raft.hello import REFUSED
from tests.authority import Authority
from tests.e2e.test_attacks import address, attacked
from tests.waiting import until

MAIN = [sys.executable, "-c", "from raftckpt_cli.main import main; main()"]
LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00 (debug|info|warning|error) n\d \w+ ")
HOSTILE = "x\n2026-01-01T00:00:00.000+00:00 error n1 raft event=forged\r\x1b[2J\x9b2J\u202e\u2028y"
GOOD = 'cluster: demo\nreplicas:\n  n1: {client: "127.0.0.1:7401", peer: "127.0.0.1:7501"}\n'


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAFTCKPT_")} | environ
    return subprocess.run(
        [*MAIN, *words], capture_output=True, text=True, timeout=30, env=environment
    )


def test_a_hangup_ends_no_replica_and_is_told() -> None:
    with attacked() as (cluster, checkpoint):
        for node in cluster.nodes:
            os.kill(cluster.pid(node) or 0, signal.SIGHUP)
            until(lambda node=node: "reloaded taken=" in cluster.log(node), "it is told")
        checkpoint.put("k", b"v")


def test_nobody_forges_lines_of_a_log_or_steers_a_terminal() -> None:
    """What a stranger says on a dead replica's port, and names that tenants choose."""
    with attacked(restarts=True) as (cluster, _):
        cluster.kill("n3")
        with socket.create_server(address(cluster.peer_endpoint("n3"))) as trap:
            trap.settimeout(20)
            dialled, _ = trap.accept()
            with dialled:
                dialled.sendall(pack_messages([[REFUSED, HOSTILE, False]]))
                dialled.recv(1 << 16)
        until(
            lambda: any("event=forged" in cluster.log(node) for node in ("n1", "n2")),
            "the refusal is told",
        )
        with socket.create_connection(address(cluster.endpoint("n1")), 10) as client:
            client.sendall(pack_messages([[200, 2, [1], HOSTILE, None], [HOSTILE]]))
            client.recv(1 << 16)
        for node in ("n1", "n2"):
            for line in cluster.log(node).splitlines():
                assert LINE.match(line), line
                assert line.isprintable(), line
        cluster.restart("n3")
        with raftckpt.connect(cluster.endpoints, timeout=10) as service:
            service.open(HOSTILE, create=raftckpt.Attributes())
        where = ("--endpoints", cluster.endpoints)
        for words in (("checkpoint", "list"), ("checkpoint", "show", HOSTILE)):
            table = run(*words, *where)
            assert table.returncode == 0, table.stderr
            assert all(line.isprintable() for line in table.stdout.split("\n")), table.stdout
            told = run(*words, *where, "-o", "json")
            assert told.stdout.isascii()
            assert "\\u202e" in told.stdout
            json.loads(told.stdout)
        missing = run("checkpoint", "show", HOSTILE + "z", *where)
        assert missing.returncode == 5
        assert len(missing.stderr.splitlines()) == 3
        assert all(line.isprintable() for line in missing.stderr.splitlines())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("timing: {heartbeat_ms: 0x" + "f" * 200_000 + "}\n", "a value of 200002 characters"),
        ("timing: {heartbeat_ms: 0x" + "f" * 4000 + "}\n", "not a number of 16000 bits"),
        ("".join(f"k{number}: 1\n" for number in range(20_000)), "more than 5000 keys"),
        ("".join(f"k{number}: 1\n" for number in range(2000)), "1900 more problems"),
        ("x: [" + "1," * 120_000 + "]\n", "more than 5000 keys"),
        ("#" * 300_000 + "\n", "larger than"),
        ('"\\e[2J\\u202e": 1\n', "unknown key \\x1b[2J\\u202e"),
    ],
)
def test_a_file_that_is_none_is_refused_in_time(more: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(GOOD + more)
    for words in (("config", "check", str(path)), ("serve", "--config", str(path), "--node", "n1")):
        found = run(*words)
        assert found.returncode == 2
        assert said in found.stderr
        assert "Traceback" not in found.stderr
        assert len(found.stderr) < 50_000
        assert all(line.isprintable() for line in found.stderr.split("\n"))


def test_what_others_may_use_is_warned_of(tmp_path: Path) -> None:
    """Keys and secrets that others may read, directories they may write to, ``insecure``."""
    path = tmp_path / "cluster.yaml"
    tls = Authority(tmp_path).issue(
        "n1", "n1", uris=["raftckpt://demo/replica/n1"], addresses=["127.0.0.1"]
    )
    (tmp_path / "s").write_text("0123456789abcdef" * 2)
    for name in ("n1.key", "s"):
        (tmp_path / name).chmod(0o644)
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    path.write_text(GOOD + f"peer_secret_file: s\ntls: {{client: {json.dumps(tls)}}}\n")
    found = run("config", "check", str(path))
    assert found.returncode == 0
    for what in ("tls.client.key", "peer_secret_file", "other users may write to"):
        assert what in found.stderr
    path.write_text(GOOD)
    (tmp_path / "data").chmod(0o700)
    assert "warning" not in run("config", "check", str(path)).stderr
    warned = run("config", "check", str(path), RAFTCKPT_INSECURE="true")
    assert "RAFTCKPT_INSECURE: insecure" in warned.stderr

"""`cluster status`, `cluster check`, `doctor`: in time, and the truth about who is missing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from raftckpt_cli import main as cli_main
from raftckpt_cli.diagnosis import CHECKS, Weight, certificate_findings, diagnose
from raftckpt_cli.output import ExitCode

from raftckpt import ClusterStatus, ReplicaStatus
from raftckpt.node.config import load
from raftckpt.node.health import certificate_ends
from raftckpt.testing import LocalCluster
from tests.authority import Authority
from tests.waiting import PATIENCE, until

DAY_S = 86_400


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, faults=False) as cluster:
        yield cluster


@pytest.fixture
def run(capfd) -> Callable[..., tuple[int, str, str]]:
    def run_(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli_main.run(list(arguments))
        return code, *capfd.readouterr()

    return run_


@pytest.fixture
def silent(cluster) -> Iterator[str]:
    """A follower whose port takes connections and never says a word."""
    node = next(node for node in cluster.nodes if node != cluster.leader())
    cluster.kill(node)
    host, _, port = cluster.endpoint(node).rpartition(":")
    with socket.create_server((host, int(port))):
        yield node
    cluster.restart(node)
    cluster.wait_ready(PATIENCE)


def test_status_does_not_wait_for_one_that_is_silent(cluster, run, silent) -> None:
    took = []
    for _ in range(3):  # one slow moment of the machine proves nothing
        begun = time.monotonic()
        code, out, err = run("cluster", "status", "-o", "json", "--endpoints", cluster.endpoints)
        took.append(time.monotonic() - begun)
        assert code == ExitCode.OK, err
    shown = json.loads(out)
    assert {each["node"]: each["cause"] for each in shown["replicas"]} == {
        node: "silent" if node == silent else "" for node in cluster.nodes
    }
    assert any(silent in warning for warning in shown["warnings"])
    assert min(took) < 1.2
    assert " silent " in run("cluster", "status", "--endpoints", cluster.endpoints)[1]


def test_check_names_the_one_that_is_silent_and_no_other(cluster, run, silent) -> None:
    code, out, err = run("cluster", "check", "-o", "json", "--endpoints", cluster.endpoints)
    assert code == ExitCode.UNAVAILABLE
    shown = json.loads(out)
    assert shown["unreachable"] == [silent]
    assert list(shown["problems"]) == [silent]
    assert "no answer in time" in err
    assert sum(digest is not None for digest in shown["digests"].values()) == 2


def test_a_paused_and_a_dead_replica_are_told_apart(cluster, run) -> None:
    leader = cluster.leader()
    paused, dead = (node for node in cluster.nodes if node != leader)
    cluster.kill(dead)
    cluster.pause(paused)
    try:
        code, out, _ = run("doctor", "-o", "json", "--endpoints", cluster.endpoints)
        found = {each["what"].split()[0]: each for each in json.loads(out)["findings"]}
        assert code in (ExitCode.REFUSED, ExitCode.UNAVAILABLE)
        assert "hangs" in found[paused]["what"]
        assert "kill -CONT" in found[paused]["do"]
        assert "refused" in found[dead]["what"]
        assert "raftckpt serve" in found[dead]["do"]
    finally:
        cluster.resume(paused)
        cluster.restart(dead)
        cluster.wait_ready(PATIENCE)


def test_doctor_of_a_healthy_cluster(cluster, run) -> None:
    def healthy() -> bool:
        return run("doctor", "--config", str(cluster.config_path))[0] == ExitCode.OK

    until(healthy, "nothing is wrong")
    out = run("doctor", "-o", "json", "--config", str(cluster.config_path))[1]
    shown = json.loads(out)
    assert shown["checks"] == ["configuration", "this host", *CHECKS]
    assert [each for each in shown["findings"] if each["wrong"]] == []
    assert "copies" in {each["check"] for each in shown["findings"]}  # nobody saved one
    text = run("doctor", "--config", str(cluster.config_path))[1]
    assert "do:    raftckpt snapshot save" in text


def test_doctor_reads_the_file(run, tmp_path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("cluster: x\nreplicas:\n  n1: { client: '127.0.0.1:1' }\n", "utf-8")
    code, out, _ = run("doctor", "-o", "json", "--config", str(path))
    assert code == ExitCode.UNAVAILABLE
    first = json.loads(out)["findings"][0]
    assert (first["check"], first["wrong"]) == ("configuration", True)
    assert ":3:" in first["what"]
    assert first["do"] == 'peer: "host:port"'


# --- TLS ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[tuple[LocalCluster, Authority, Path]]:
    path = tmp_path_factory.mktemp("authority")
    authority = Authority(path)
    files = authority.issue("replica", "n1", dns=["localhost"])
    settings = {"tls": {"client": files}}
    with LocalCluster(1, path / "c", faults=False, settings=settings) as cluster:
        yield cluster, authority, path


def tls_of(files: dict[str, str], *names: str) -> list[str]:
    return [word for name in names for word in (f"--{name}", files[name])]


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        ("closed", "it may speak TLS"),
        ("authority", "not of the authority given"),
        ("name", "for another name"),
        ("certificate", "or want one"),
        ("unknown client", "it may not take the certificate"),
    ],
)
def test_why_a_tls_port_is_not_reachable(guarded, run, tmp_path, cause, sentence) -> None:
    cluster, authority, _ = guarded
    other = Authority(tmp_path, "other")
    client = authority.issue("client", "somebody")
    host = "127.0.0.1" if cause == "name" else "localhost"
    endpoint = f"{host}:{cluster.endpoint('n1').rpartition(':')[2]}"
    options = {
        "closed": [],
        "authority": ["--ca", str(other.path)],
        "name": tls_of(client, "ca", "cert", "key"),
        "certificate": tls_of(client, "ca"),
        "unknown client": [
            *tls_of(client, "ca"),
            *tls_of(other.issue("stranger", "stranger"), "cert", "key"),
        ],
    }[cause]
    arguments = ["cluster", "status", "-o", "json", "--timeout", "5", "--endpoints", endpoint]
    code, out, err = run(*arguments, *options)
    assert code == ExitCode.UNAVAILABLE
    (told,) = json.loads(out)["replicas"]
    assert sentence in told["problem"]
    assert told["cause"] == ("certificate" if cause == "unknown client" else cause)
    assert "no replica leads" in err


def test_ends_of_certificates_are_told(guarded, run) -> None:
    cluster, authority, _ = guarded
    ends = certificate_ends(load(cluster.config_path))
    assert set(ends) == {"tls.client.cert", "tls.client.ca"}
    for end in ends.values():
        assert 9 * DAY_S < end - time.time() < 11 * DAY_S
    client = authority.issue("operator", "operator")
    endpoint = f"localhost:{cluster.endpoint('n1').rpartition(':')[2]}"
    code, out, _ = run(
        "cluster", "status", "-o", "json", "--endpoints", endpoint, "--timeout", "5",
        *tls_of(client, "ca", "cert", "key"),
    )  # fmt: skip
    assert code == ExitCode.OK, out
    shown = json.loads(out)
    assert shown["replicas"][0]["certificates"] == ends
    assert "tls.client.cert of n1 ends in 9 days" in shown["warnings"]


def test_certificates_weigh_more_as_they_end() -> None:
    now = time.time()
    ends = {"a": now + 15 * DAY_S, "b": now + 13 * DAY_S, "c": now + DAY_S, "d": now - 1}
    found = {
        what.split()[0]: (weight, what) for weight, what, _ in certificate_findings("n1", ends)
    }
    assert {name: weight for name, (weight, _) in found.items()} == {
        "b": Weight.WARNING,
        "c": Weight.WRONG,
        "d": Weight.WRONG,
    }
    assert "has ended" in found["d"][1]


def test_files_without_certificates_tell_nothing(tmp_path) -> None:
    for name in ("cert", "key", "ca"):
        (tmp_path / name).write_text(
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "ascii"
        )
    files = {name: str(tmp_path / name) for name in ("cert", "key", "ca")}
    path = tmp_path / "cluster.yaml"
    at = {"client": "127.0.0.1:1", "peer": "127.0.0.1:2"}
    path.write_text(
        yaml.safe_dump({"cluster": "x", "replicas": {"n1": at}, "tls": {"peer": files}})
    )
    assert certificate_ends(load(path)) == {}


# --- each check, by itself ------------------------------------------------------------------------
def replica(node: str, **detail: Any) -> ReplicaStatus:
    """One that answers; what is not given is as it should be."""
    said = {
        "node": node, "role": "follower", "term": 5, "leader": "n1", "commit": 9, "applied": 9,
        "version": "1", "durability": "fsync", "founding": "f", "level": 2, "alarms": [],
        "waiting": "", "clock_ms": time.time_ns() // 1_000_000, "disk_bytes": 100 << 30,
        "disk_free_bytes": 50 << 30, "longest_step_ms": 3, "copied_s": 5, "certificates": {},
        "memory_limit": 1 << 30, "data_bytes": 1 << 20, "data_bytes_max": 2 << 30,
        "members": [
            {"node": name, "directory": name, "voter": True} for name in ("n1", "n2", "n3")
        ],
        "peers": [
            {"node": name, "directory": name, "connected": True, "voter": True}
            for name in ("n1", "n2", "n3") if name != node
        ],
    }  # fmt: skip
    return ReplicaStatus.from_wire("127.0.0.1:1", said | detail)


def judged(*replicas: ReplicaStatus) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in diagnose(ClusterStatus.of(list(replicas))):
        assert each.do
        found.setdefault(each.check, []).append(each.what)
    return found


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert judged(replica("n1", role="leader"), replica("n2"), replica("n3")) == {}


@pytest.mark.parametrize(
    ("check", "detail", "sentence"),
    [
        ("terms", {"leader": "n3"}, "two replicas lead the same term: n1 and n3"),
        ("terms", {"leader": "n3", "term": 4}, "two replicas lead: n1 in term 5 and n3 in term 4"),
        ("terms", {"leader": None, "term": 4}, "n3 is in term 4, n1 leads term 5"),
        ("agreement", {"founding": "g"}, "different foundings"),
        ("agreement", {"level": 1}, "different levels"),
        ("agreement", {"version": "2"}, "different versions"),
        ("agreement", {"durability": "os"}, "different durability"),
        ("alarms", {"alarms": ["fire"]}, "n3 says: fire"),
        ("alarms", {"waiting": "for godot"}, "n3 waits: for godot"),
        ("lag", {"applied": -20_000}, "n3 is 20009 entries behind"),
        ("lag", {"longest_step_ms": 2000}, "n3 stood still for 2000 ms"),
        ("clocks", {"clock_ms": 10**12}, "the clock of n3 is"),
        ("disks", {"disk_free_bytes": 1 << 30}, "the disk of n3 has 1024 MiB"),
        ("certificates", {"certificates": {"tls.peer.cert": 5}}, "tls.peer.cert of n3 has ended"),
    ],
)
def test_each_check_finds_what_it_is_for(check, detail, sentence) -> None:
    found = judged(replica("n1", role="leader"), replica("n2"), replica("n3", **detail))
    assert list(found) == [check]
    assert sentence in found[check][0]


def test_missing_voters_and_links_are_found() -> None:
    peers = [
        {"node": name, "directory": name, "connected": name == "n2", "voter": True}
        for name in ("n2", "n3")
    ]
    found = judged(replica("n1", role="leader", peers=peers), replica("n2"), replica("n3"))
    assert "n1, which leads, has no link to n3" in found["reachable"]
    assert found["votes"] == ["2 of 3 voters are here: one fewer and none leads"]
    gone = ReplicaStatus(
        "n3", "127.0.0.1:9", False, problem="127.0.0.1:9: refused", cause="refused"
    )
    assert "n3 does not answer: 127.0.0.1:9: refused" in judged(replica("n1"), gone)["reachable"]
    found = judged(replica("n1", leader=None), replica("n2", leader=None), gone)
    assert found["leader"] == ["no replica leads; answering: n1, n2 of 3"]


def test_copies_that_nobody_made_are_found() -> None:
    replicas = [replica(node, copied_s=None) for node in ("n1", "n2", "n3")]
    assert list(judged(*replicas)) == ["copies"]
    assert judged(replica("n1"), *replicas[1:]) == {}


def test_version_and_module() -> None:
    for arguments in (["-m", "raftckpt", "--version"], ["-m", "raftckpt_cli.main", "--version"]):
        ran = subprocess.run([sys.executable, *arguments], capture_output=True, timeout=PATIENCE)
        assert ran.returncode == 0
        assert ran.stdout.startswith(b"raftckpt 0.")

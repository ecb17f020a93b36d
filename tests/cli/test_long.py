"""The commands that run for a while: dev, demo, bench, serve with TLS."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
import yaml

import raftckpt
from raftckpt.testing.local_cluster import _free_ports
from tests.programs import Program
from tests.waiting import until

MAIN = [sys.executable, "-c", "from raftckpt_cli.main import main; main()"]


def running(*arguments: str) -> Program:
    return Program(*MAIN, *arguments)


def typed(*arguments: str) -> str:
    done = subprocess.run([*MAIN, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def voters(config: Path) -> list[str]:
    """Who votes, as far as a leader says so."""
    words = [*MAIN, "cluster", "members", "--config", str(config), "-o", "json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)["members"] if done.returncode == 0 else []
    return [each["node"] for each in told if each["voter"]]


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_dev_is_one_cluster_for_ever(tmp_path) -> None:
    data_dir = str(tmp_path / "dev")
    with running("dev", "--data-dir", data_dir, "-o", "json") as dev:
        dev.until_lines(1)
        told = json.loads(dev.lines[0])
        assert told["data_dir"] == data_dir
        assert [each["node"] for each in told["replicas"]] == ["n1", "n2", "n3"]
        assert told["endpoints"] == ",".join(each["client"] for each in told["replicas"])
        pids = [each["pid"] for each in told["replicas"]]
        assert all(alive(pid) for pid in pids)
        with raftckpt.connect(told["endpoints"]) as service:
            service.open("kept", create=raftckpt.Attributes()).put("k", b"v")
        os.kill(pids[0], signal.SIGKILL)
        dev.until_said("replica n1 died (signal 9)")
        with raftckpt.connect(told["endpoints"]) as service:  # it goes on
            assert service.open("kept", mode="r").read("k") == b"v"
        dev.signal(signal.SIGINT)
        assert dev.wait(20) == 0
        assert not any(alive(pid) for pid in pids)
    arguments = ["dev", "--data-dir", data_dir, "--restart", "-o", "json"]
    with running(*arguments) as dev:
        dev.until_lines(1)
        again = json.loads(dev.lines[0])
        assert again["endpoints"] == told["endpoints"]
        os.kill(again["replicas"][1]["pid"], signal.SIGKILL)
        dev.until_said("replica n2 restarted")
        with raftckpt.connect(told["endpoints"]) as service:
            assert service.open("kept", mode="r").read("k") == b"v"
            until(lambda: all(r.reachable for r in service.cluster().replicas), "n2 is back")
        dev.signal(signal.SIGTERM)
        assert dev.wait(20) == 0


def test_second_dev_on_the_same_directory_is_told_why(tmp_path) -> None:
    data_dir = str(tmp_path / "dev")
    with running("dev", "--data-dir", data_dir, "--replicas", "1") as dev:
        dev.until_said("endpoints:")
        second = subprocess.run(
            [*MAIN, "dev", "--data-dir", data_dir], capture_output=True, text=True, timeout=30
        )
        assert second.returncode == 4
        assert f"in use by pid {dev.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        dev.signal(signal.SIGINT)
        assert dev.wait(20) == 0
    other = subprocess.run(
        [*MAIN, "dev", "--data-dir", data_dir, "--replicas", "3"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert other.returncode == 2
    assert "holds a cluster of 1 replicas" in other.stderr


def test_a_member_of_dev_is_replaced_and_a_copy_restored_by_what_is_printed(tmp_path) -> None:
    data_dir = tmp_path / "dev"
    config = data_dir / "cluster.yaml"
    ports = zip(("client", "peer"), _free_ports(2), strict=True)
    at = {name: f"127.0.0.1:{port}" for name, port in ports}
    asked = ("--config", str(config))
    replace = ["cluster", "replace", "n3", "--by", "n4", *asked]
    replace += [word for name, address in at.items() for word in (f"--{name}", address)]
    with running("dev", "--data-dir", str(data_dir)) as dev:
        dev.until_said("endpoints:")
        lines = typed(*replace).splitlines()
        listed = "\n".join(line for line in lines if line.startswith(("replicas:", "  n")))
        (command,) = [line.split() for line in lines if "--join" in line]
        before, _, _ = config.read_text().partition("replicas:")
        config.write_text(before + listed + "\n")
        assert command[:4] == ["raftckpt", "serve", "--config", "cluster.yaml"]
        with running("serve", *asked, *command[4:]):
            dev.until_said("replica n3 ended (exit code 0)")
            dev.signal(signal.SIGINT)
            assert dev.wait(20) == 0
    snapshot = str(tmp_path / "state.snapshot")
    with running("dev", "--data-dir", str(data_dir), "-o", "json") as dev:
        dev.until_lines(1)
        replicas = json.loads(dev.lines[0])["replicas"]
        assert [each["node"] for each in replicas] == ["n1", "n2", "n4"]
        assert replicas[2]["client"] == at["client"]
        typed("snapshot", "save", snapshot, *asked)
        dev.signal(signal.SIGINT)
        assert dev.wait(20) == 0
    for node in ("n1", "n2", "n3", "n4"):
        (data_dir / node).rename(tmp_path / node)
    told = typed("snapshot", "restore", snapshot, *asked, "--node", "n1")
    commands = [line.split()[1:] for line in told.splitlines() if "raftckpt serve" in line]
    assert len(commands) == 3
    with contextlib.ExitStack() as terminals:
        for words in commands:
            terminals.enter_context(running(*words))
        until(lambda: voters(config) == ["n1", "n2", "n4"], "all vote")
    with running("dev", "--data-dir", str(data_dir)) as dev:
        dev.until_said("endpoints:")


def test_demo_ends_ok() -> None:
    done = subprocess.run(
        [*MAIN, "demo", "--seconds", "6", "-o", "json"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["verdict"] == "ok"
    assert [each["kind"] for each in result["failovers"]] == ["active", "leader", "node"]
    assert all(0 < each["gap_ms"] < 10_000 for each in result["failovers"])
    assert result["written"] > 60
    assert "kill -9 csa103CompI0" in done.stderr


@pytest.mark.long
def test_a_demo_that_fails_keeps_its_logs_and_says_why(tmp_path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with Program(*MAIN, "demo", "--seconds", "60", env=environment) as demo:
        demo.until_said("Hello World!")
        (component,) = children_of(demo.pid, "csa103CompI0")
        os.kill(component, signal.SIGSEGV)
        assert demo.wait(60) == 4
        assert demo.said("csa103CompI0 ended with -11")
        (kept,) = tmp_path.glob("raftckpt-demo-*")
        assert demo.said(f"logs and data are kept in {kept}")
        assert (kept / "cluster/csa103CompI0.log").exists()


def children_of(parent: int, word: str) -> list[int]:
    listed = subprocess.run(
        ["pgrep", "-P", str(parent), "-f", word], capture_output=True, text=True
    )
    return [int(line) for line in listed.stdout.split()]


def test_demo_interrupted_leaves_nothing_behind(tmp_path) -> None:
    with running("demo", "--seconds", "60", "--data-dir", str(tmp_path / "d")) as demo:
        demo.until_said("Hello World!")
        children = subprocess.run(["pgrep", "-P", str(demo.pid)], capture_output=True, text=True)
        pids = [int(pid) for pid in children.stdout.split()]
        assert len(pids) == 5
        demo.signal(signal.SIGINT)
        assert demo.wait(20) == 130
        until(lambda: not any(alive(pid) for pid in pids), "everything ended")
        assert not demo.said("Traceback")


def test_bench_measures(tmp_path) -> None:
    from raftckpt.testing import LocalCluster

    with LocalCluster(1, faults=False) as cluster:
        arguments = ["bench", "--endpoints", cluster.endpoints, "--seconds", "0.3"]
        arguments += ["--warmup", "0.1", "--sections", "16"]

        def bench(*more: str) -> bytes:
            done = subprocess.run([*MAIN, *arguments, *more], capture_output=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout

        for more in (
            [],
            ["--reads", "0.5", "--size", "70000"],
            ["--size", "3000000", "--clients", "1", "--outstanding", "1"],
            ["--workload", "partial", "--section-size", "2000000", "--clients", "1"],
            ["--async", "--processes", "2"],
            ["--reads", "1", "--local", "--face", "aio"],
            ["--face", "sync", "--clients", "2", "--outstanding", "2"],
        ):
            measured = json.loads(bench(*more, "-o", "json"))
            assert measured["errors"] == 0
            assert measured["ops_per_s"] > 0
            assert 0 < measured["p50_us"] <= measured["p99_us"] <= measured["max_us"]
            assert [replica["node"] for replica in measured["replicas"]] == ["n1"]
        plot = tmp_path / "plot.svg"
        table = bench("--sweep", "outstanding=1,8", "--plot", str(plot))
        assert len(table.splitlines()) == 3
        assert "throughput over outstanding" in plot.read_text("utf-8")
        with raftckpt.connect(cluster.endpoints) as service:
            assert service.checkpoints() == []


@pytest.fixture
def certificates(tmp_path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name in ("replica", "client"):
        made = authority.issue_cert("localhost", "127.0.0.1", common_name=name)
        made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    return tmp_path


def test_serve_with_tls(certificates: Path) -> None:
    client, peer = _free_ports(2)
    config = {
        "cluster": "tls",
        "replicas": {"n1": {"client": f"localhost:{client}", "peer": f"localhost:{peer}"}},
        "tls": {"client": {"cert": "replica.pem", "key": "replica.pem", "ca": "ca.pem"}},
    }
    path = certificates / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    with running("serve", "--config", str(path), "--node", "n1", "--found") as replica:
        replica.until_said("ready")
        files = {name: str(certificates / f"{name}.pem") for name in ("ca", "client")}
        good = ["--ca", files["ca"], "--cert", files["client"], "--key", files["client"]]
        at = ["--config", str(path), "--timeout", "2"]
        command = [*MAIN, "cluster", "status", "-o", "json", *at, *good]

        def leads() -> bool:
            status = subprocess.run(command, capture_output=True, timeout=30)
            return json.loads(status.stdout)["leader"] == "n1"

        until(leads, "it leads")
        for bad, code in (([], 1), (good[:2], 4)):  # told by the file alone; refused
            denied = subprocess.run(
                [*MAIN, "checkpoint", "list", *at, *bad], capture_output=True, timeout=30
            )
            assert denied.returncode == code
            assert b"Traceback" not in denied.stderr
        replica.signal(signal.SIGTERM)
        assert replica.wait(10) == 0

"""The commands against a real cluster: behaviour, exit codes, and JSON as a contract."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from raftckpt_cli import cluster as cluster_commands
from raftckpt_cli import main as cli_main
from raftckpt_cli.output import ExitCode

import raftckpt
from raftckpt.testing import LocalCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, faults=False) as cluster:
        yield cluster


class Ran(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def run(cluster, capfdbinary, monkeypatch) -> Callable[..., Ran]:
    """Run a command against the cluster, in this process."""
    monkeypatch.setenv("RAFTCKPT_ENDPOINTS", cluster.endpoints)

    def run_(*arguments: str) -> Ran:
        capfdbinary.readouterr()
        monkeypatch.setattr("sys.argv", ["raftckpt", *arguments])
        code = cli_main.run(list(arguments))
        captured = capfdbinary.readouterr()
        return Ran(code, captured.out, captured.err.decode())

    return run_


def as_process(
    cluster: LocalCluster, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    code = "from raftckpt_cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments, "--endpoints", cluster.endpoints]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=30)


def seen_in_terminal(cluster: LocalCluster, *arguments: str) -> bytes:
    code = "from raftckpt_cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments, "--endpoints", cluster.endpoints]
    master, slave = pty.openpty()
    try:
        subprocess.run(command, stdout=slave, check=True, timeout=30)
        return os.read(master, 65536)
    finally:
        os.close(master)
        os.close(slave)


def test_life_of_a_checkpoint(run) -> None:
    made = run("checkpoint", "create", "life", "--max-sections", "7", "-o", "json").json
    assert (made["name"], made["max_sections"], made["retention_s"]) == ("life", 7, None)
    again = run("checkpoint", "create", "life", "--max-sections", "7", "-o", "json").json
    assert again["uid"] == made["uid"]
    other = run("checkpoint", "create", "life", "--max-sections", "8")
    assert other.code == ExitCode.REFUSED
    assert "max_sections" in other.err
    assert "life" in [each["name"] for each in run("checkpoint", "list", "-o", "json").json]
    assert b"life" in run("checkpoint", "list").out
    would = run("checkpoint", "unlink", "life", "--dry-run")
    assert b"would unlink" in would.out
    asked = run("checkpoint", "unlink", "life")  # no terminal to ask on
    assert asked.code == ExitCode.USAGE
    assert "--yes" in asked.err
    assert run("checkpoint", "show", "life").code == 0
    assert run("checkpoint", "unlink", "life", "--yes", "-o", "json").json["unlinked"] is True
    assert run("checkpoint", "show", "life").code == ExitCode.NOT_FOUND
    assert run("checkpoint", "unlink", "life", "--yes").code == ExitCode.NOT_FOUND


def test_show_tells_what_an_operator_wants_to_know(run, cluster) -> None:
    attributes = raftckpt.Attributes(
        update="weak",
        collocated=True,
        retention=60.0,
        max_sections=2,
        max_section_size=4,
        max_section_id_size=64,
    )
    with raftckpt.connect(cluster.endpoints, node="n2", name="csa103CompI0") as service:
        checkpoint = service.open("shown", create=attributes)
        epoch = checkpoint.active_replica_set()
        checkpoint.create("1", b"\x00\x00\x00\x01")
        checkpoint.synchronize()
        shown = run("checkpoint", "show", "shown", "-o", "json").json
        text = run("checkpoint", "show", "shown").out.decode()
    assert {key: shown[key] for key in ("update", "collocated", "retention_s", "max_sections")} == {
        "update": "weak",
        "collocated": True,
        "retention_s": 60.0,
        "max_sections": 2,
    }
    (opener,) = shown["openers"]
    assert (opener["name"], opener["node"]) == ("csa103CompI0", "n2")
    assert (opener["read"], opener["write"]) == (1, 1)
    assert shown["active"] == {"session": opener["session"], "node": "n2"}
    assert shown["epoch"] == epoch
    assert shown["delete_pending"] is False
    assert shown["memory_used"] == 4
    (section,) = shown["sections"]
    assert (section["id"], section["size"], section["state"]) == ("1", 4, "valid")
    assert section["expires"] is None
    assert abs(section["updated"] - time.time()) < 60
    for word in ("csa103CompI0", "n2", "weak, collocated", "60 s", "never"):
        assert word in text


def test_pending_delete_is_shown(run, cluster) -> None:
    with raftckpt.connect(cluster.endpoints) as service:
        checkpoint = service.open("pending", create=raftckpt.Attributes())
        checkpoint.unlink()
        states = {
            each["name"]: each["delete_pending"]
            for each in run("checkpoint", "list", "-o", "json").json
        }
        assert states["pending"] is True
        assert b"delete pending" in run("checkpoint", "list").out


def test_sections(run, cluster) -> None:
    run("checkpoint", "create", "sect")
    wrote = run("section", "write", "sect", "k", "hello", "-o", "json").json
    assert wrote["size"] == 5
    assert run("section", "write", "sect", "k", "J", "--offset", "0").code == 0
    assert run("section", "read", "sect", "k") == Ran(0, b"Jello", "")
    assert run("section", "read", "sect", "k", "--offset", "1", "--size", "3").out == b"ell"
    assert seen_in_terminal(cluster, "section", "read", "sect", "k") == b"Jello\r\n"
    read = run("section", "read", "sect", "k", "-o", "json").json
    assert base64.b64decode(read["data_base64"]) == b"Jello"
    assert (read["id"], read["data"], read["size"]) == ("k", "Jello", 5)
    (listed,) = run("section", "list", "sect", "-o", "json").json
    assert (listed["id"], listed["size"]) == ("k", 5)
    assert listed["revision"] > wrote["revision"]
    missing = run("section", "write", "sect", "nope", "x", "--offset", "0")
    assert missing.code == ExitCode.NOT_FOUND
    beyond = run("section", "read", "sect", "k", "--offset", "99")
    assert beyond.code == ExitCode.REFUSED
    assert run("section", "read", "sect", "nope").code == ExitCode.NOT_FOUND
    assert run("section", "read", "nope", "k").code == ExitCode.NOT_FOUND


def test_append_tells_where_and_creates_what_is_missing(run) -> None:
    run("checkpoint", "create", "log", "--update", "active")  # it answers like the others
    first = run("section", "append", "log", "day", "one,", "-o", "json").json
    assert (first["offset"], first["size"]) == (0, 4)
    second = run("section", "append", "log", "day", "two", "-o", "json").json
    assert (second["offset"], second["size"]) == (4, 3)
    assert second["revision"] > first["revision"]
    assert run("section", "read", "log", "day").out == b"one,two"
    shown = run("section", "append", "log", "day", "", "--if-revision", str(second["revision"]))
    assert b"appended 0 bytes to section day at 7 (revision " in shown.out


CONFLICTS = [
    ["append", "k", "x", "--if-revision", "1"],
    ["write", "k", "x", "--if-revision", "1"],
    ["write", "k", "x", "--if-revision", "0"],
    ["write", "k", "x", "--if-revision", "1", "--offset", "0"],
    ["write", "k", "x", "--if-revision", "1", "--ttl", "60"],
    ["write", "k", "x", "--if-revision", "0", "--ttl", "60"],
    ["delete", "k", "--if-revision", "1", "--yes"],
    ["delete", "k", "--if-revision", "1", "--dry-run"],
]


@pytest.mark.parametrize("arguments", CONFLICTS, ids=" ".join)
def test_a_conflict_says_what_is_there_and_does_nothing(run, arguments: list[str]) -> None:
    run("checkpoint", "create", "conflict")
    revision = run("section", "write", "conflict", "k", "seen", "-o", "json").json["revision"]
    refused = run("section", arguments[0], "conflict", *arguments[1:])
    assert refused.code == ExitCode.REFUSED
    what, why, remedy = refused.err.splitlines()
    assert what == f"error: raftckpt section {arguments[0]}: failed"
    assert f"the section has revision {revision}, not the one asked for" in why
    assert remedy.startswith("  try: raftckpt section read CHECKPOINT ID -o json")
    read = run("section", "read", "conflict", "k", "-o", "json").json
    assert (read["data"], read["revision"]) == ("seen", revision)


def test_a_change_under_the_revision_that_was_read(run) -> None:
    run("checkpoint", "create", "cas")

    def revision() -> str:
        return str(run("section", "read", "cas", "k", "-o", "json").json["revision"])

    assert run("section", "write", "cas", "k", "one", "--if-revision", "0").code == 0
    assert run("section", "write", "cas", "k", "two", "--if-revision", revision()).code == 0
    patch = ["section", "write", "cas", "k", "T", "--offset", "0", "--if-revision", revision()]
    assert run(*patch).code == 0
    assert run(*patch).code == ExitCode.REFUSED
    assert run("section", "append", "cas", "k", "!", "--if-revision", revision()).code == 0
    assert run("section", "read", "cas", "k").out == b"Two!"
    part = run("section", "read", "cas", "k", "--size", "1", "-o", "json").json
    assert (part["data"], part["revision"]) == ("T", None)
    delete = ["section", "delete", "cas", "k", "--yes", "--if-revision"]
    assert run(*delete, revision()).code == 0
    assert run(*delete, "1").code == ExitCode.NOT_FOUND


@pytest.mark.parametrize("exists", [False, True])
def test_write_with_a_ttl_replaces_content_and_expiration_at_once(run, cluster, exists) -> None:
    name = f"ttl-{exists}"
    run("checkpoint", "create", name, "--max-sections", "2")
    run("section", "write", name, "other", "x")  # so that it is full with the section written
    if exists:
        run("section", "create", name, "k", "a longer one", "--at", "2100-01-01T00:00:00Z")
    with raftckpt.connect(cluster.endpoints) as service, service.track(name) as tracker:
        tracker.next(10)
        wrote = run("section", "write", name, "k", "new", "--ttl", "3600", "-o", "json").json
        change = tracker.next(10)
    assert (change.kind, change.revision) == ("transaction", wrote["revision"])
    (listed,) = run("section", "list", name, "--prefix", "k", "-o", "json").json
    assert (listed["size"], listed["revision"]) == (3, wrote["revision"])
    assert 3000 < listed["expires"] - time.time() < 4000
    assert run("section", "read", name, "k").out == b"new"
    kept = run("section", "write", name, "k", "newer", "-o", "json")
    assert kept.code == 0
    (again,) = run("section", "list", name, "--prefix", "k", "-o", "json").json
    assert again["expires"] == listed["expires"]


def test_data_from_a_file(run, tmp_path) -> None:
    data = bytes(range(256))
    (tmp_path / "data").write_bytes(data)
    run("checkpoint", "create", "files")
    file = f"@{tmp_path / 'data'}"
    assert run("section", "write", "files", "w", file).code == 0
    assert run("section", "append", "files", "w", file).code == 0
    assert run("section", "create", "files", "c", file).code == 0
    assert run("section", "read", "files", "w").out == data * 2
    assert run("section", "read", "files", "c").out == data
    assert run("section", "write", "files", "at", "@@home@").code == 0
    assert run("section", "read", "files", "at").out == b"@home@"


def test_more_data_than_a_write_may_have_is_refused_unread(run, tmp_path) -> None:
    run("checkpoint", "create", "endless")
    refused = run("section", "append", "endless", "k", "@/dev/zero")
    assert refused.code == ExitCode.REFUSED
    assert "in one write" in refused.err
    assert run("section", "list", "endless", "-o", "json").json == []


def test_listings_by_prefix_and_page(run) -> None:
    run("checkpoint", "create", "pages/a")
    run("checkpoint", "create", "pages/b")
    run("checkpoint", "create", "pagez")
    for name in ("user:2:1", "user:1:1", "user:1:3", "user:1:2", "other"):
        run("section", "create", "pages/a", name)

    def sections(*arguments: str) -> list[str]:
        listed = run("section", "list", "pages/a", *arguments, "-o", "json").json
        return [each["id"] for each in listed]

    assert sections("--prefix", "user:1") == ["user:1:1", "user:1:2", "user:1:3"]
    assert sections("--prefix", "user:1", "--limit", "2") == ["user:1:1", "user:1:2"]
    assert sections("--prefix", "user:1", "--after", "user:1:2", "--limit", "2") == ["user:1:3"]
    assert sections("--after", "user:1:3") == ["user:2:1"]
    assert sections("--hex", "--prefix", b"oth".hex(), "--after", "00") == ["other"]
    table = run("section", "list", "pages/a", "--prefix", "user:2").out
    assert b"user:2:1" in table
    assert b"user:1" not in table

    def checkpoints(*arguments: str) -> list[str]:
        return [each["name"] for each in run("checkpoint", "list", *arguments, "-o", "json").json]

    assert checkpoints("pages/") == ["pages/a", "pages/b"]
    assert checkpoints("pages/", "--limit", "1") == ["pages/a"]
    assert checkpoints("page", "--after", "pages/a") == ["pages/b", "pagez"]
    assert checkpoints("pages/", "--after", "pages/b") == []


def test_ids_and_data_need_not_be_text(run) -> None:
    run("checkpoint", "create", "binary")
    assert run("section", "create", "binary", "ff00", "--hex").code == 0
    (listed,) = run("section", "list", "binary", "-o", "json").json
    assert listed["id"] is None
    assert base64.b64decode(listed["id_base64"]) == b"\xff\x00"
    assert b"0xff00" in run("section", "list", "binary").out
    assert run("section", "read", "binary", "zz", "--hex").code == ExitCode.USAGE


def test_stdin_and_stdout_carry_any_bytes(run, cluster) -> None:
    data = bytes(range(256)) * 1000 + b"\n\r\n"
    run("checkpoint", "create", "pipe")
    wrote = as_process(cluster, "section", "write", "pipe", "k", "-", stdin=data)
    assert wrote.returncode == 0, wrote.stderr
    read = as_process(cluster, "section", "read", "pipe", "k")
    assert read.stdout == data
    as_json = json.loads(as_process(cluster, "section", "read", "pipe", "k", "-o", "json").stdout)
    assert as_json["data"] is None
    assert base64.b64decode(as_json["data_base64"]) == data


def test_expiration(run) -> None:
    run("checkpoint", "create", "expiry")
    assert run("section", "create", "expiry", "soon", "x", "--ttl", "0.2").code == 0
    assert run("section", "create", "expiry", "late", "x", "--at", "2100-01-01T00:00:00Z").code == 0
    by_id = {each["id"]: each for each in run("section", "list", "expiry", "-o", "json").json}
    assert by_id["late"]["expires"] == 4102444800.0
    deadline = time.monotonic() + 10
    while run("section", "read", "expiry", "soon").code != ExitCode.NOT_FOUND:
        assert time.monotonic() < deadline
    assert run("section", "expire", "expiry", "late", "--never").code == 0
    assert run("section", "list", "expiry", "-o", "json").json[0]["expires"] is None
    past = run("section", "expire", "expiry", "late", "--at", "1000")
    assert past.code == ExitCode.REFUSED
    assert "past" in past.err
    assert run("section", "expire", "expiry", "late").code == ExitCode.USAGE
    naive = run("section", "expire", "expiry", "late", "--at", "2100-01-01")
    assert naive.code == ExitCode.USAGE


def test_delete_asks_for_confirmation(run) -> None:
    run("checkpoint", "create", "deletion")
    run("section", "write", "deletion", "k", "data")
    assert b"4 bytes" in run("section", "delete", "deletion", "k", "--dry-run").out
    assert run("section", "delete", "deletion", "k").code == ExitCode.USAGE
    assert run("section", "read", "deletion", "k").out == b"data"
    assert run("section", "delete", "deletion", "k", "--yes").code == 0
    assert run("section", "read", "deletion", "k").code == ExitCode.NOT_FOUND


def test_writes_to_an_asynchronous_checkpoint_are_waited_for(run, cluster) -> None:
    run("checkpoint", "create", "async", "--update", "active")
    assert run("section", "write", "async", "k", "v", "-o", "json").json["revision"] > 0
    assert run("section", "read", "async", "k").out == b"v"


def test_collocated_checkpoint_without_active_says_what_to_do(run) -> None:
    run("checkpoint", "create", "noactive", "--update", "weak", "--collocated")
    refused = run("section", "write", "noactive", "k", "v")
    assert refused.code == ExitCode.REFUSED
    assert "active_replica_set" in refused.err


def test_fenced_is_denied(run, cluster) -> None:
    with raftckpt.connect(cluster.endpoints) as service:
        service.open("fence", create=raftckpt.Attributes()).active_replica_set(exclusive=True)
        denied = run("section", "write", "fence", "k", "v")
    assert denied.code == ExitCode.DENIED
    assert "took over" in denied.err


def test_cluster_status(run, cluster) -> None:
    shown = run("cluster", "status", "-o", "json").json
    assert shown["leader"] == cluster.leader()
    assert [each["node"] for each in shown["replicas"]] == ["n1", "n2", "n3"]
    for each in shown["replicas"]:
        names = {"node", "role", "reachable", "applied", "commit", "term", "pid", "version"}
        assert names <= set(each)
        assert each["reachable"] is True
        assert each["pid"] == cluster.pid(each["node"])
    assert b"leader" in run("cluster", "status").out


def test_one_endpoint_is_enough_to_see_all(run, cluster) -> None:
    one = cluster.endpoint("n2")
    shown = run("cluster", "status", "-o", "json", "--endpoints", one).json
    assert [each["node"] for each in shown["replicas"]] == ["n1", "n2", "n3"]


def test_config_file_names_the_cluster(run, cluster) -> None:
    shown = run("cluster", "status", "-o", "json", "--config", str(cluster.config_path)).json
    assert shown["leader"] is not None


def test_transfer(run, cluster) -> None:
    goal = next(node for node in cluster.nodes if node != cluster.leader())
    shown = run("cluster", "transfer", goal, "-o", "json").json
    assert shown["leader"] == goal == cluster.leader()
    assert run("cluster", "transfer", "n9").code == ExitCode.REFUSED


def test_check_and_status_with_a_dead_replica(run, cluster) -> None:
    shown = run("cluster", "check", "-o", "json").json
    assert shown["equal"] is True
    assert len(set(shown["digests"].values())) == 1
    assert b"same state at log index" in run("cluster", "check").out
    dead = next(node for node in cluster.nodes if node != cluster.leader())
    cluster.kill(dead)
    try:
        status = run("cluster", "status", "-o", "json").json
        reachable = {each["node"]: each["reachable"] for each in status["replicas"]}
        assert reachable == {node: node != dead for node in cluster.nodes}
        check = run("cluster", "check", "-o", "json", "--timeout", "3")
        assert check.code == ExitCode.UNAVAILABLE
        assert dead in check.err
        assert json.loads(check.out)["equal"] is False
    finally:
        cluster.restart(dead)


def test_without_a_majority_it_is_unavailable(run, cluster) -> None:
    dead = cluster.nodes[:2]
    cluster.kill(*dead)
    try:
        status = run("cluster", "status", "--timeout", "3")
        assert status.code == ExitCode.UNAVAILABLE
        assert "no replica leads" in status.err
        write = run("checkpoint", "create", "never", "--timeout", "1")
        assert write.code == ExitCode.UNAVAILABLE
    finally:
        cluster.start()
        cluster.wait_ready()


def test_cluster_check_tells_a_difference(run, monkeypatch) -> None:
    report = raftckpt.CheckReport(7, {"n1": "aa", "n2": "bb", "n3": "aa"})
    monkeypatch.setattr(raftckpt.Service, "check", lambda self: report)
    told = run("cluster", "check")
    assert told.code == ExitCode.REFUSED
    assert "differ at log index 7" in told.err


def test_the_file_of_who_comes_names_somebody_to_ask() -> None:
    at = {"peer": "h:2", "client": "h:1"}
    n1, n2, place = (
        {"node": node, "directory": directory, **at}
        for node, directory in (("n1", "aa"), ("n2", "bb"), ("n3", ""))
    )
    line = '{ client: "h:1", peer: "h:2" }'
    for members, leaves, listed in (
        ([n1, n2, place], "n1", ["n2", "n3"]),
        ([n1, n2, place], None, ["n1", "n2", "n3"]),
        ([n1, place], "n1", ["n1", "n3"]),
    ):
        lines = cluster_commands._replica_lines({"members": members}, leaves)
        assert lines == ["replicas:", *(f"  {node}: {line}" for node in listed)]


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1)])
def test_terminal_is_asked(run, cluster, answer: bytes, code: int) -> None:
    run("checkpoint", "create", "asked")
    master, slave = pty.openpty()
    try:
        main = "from raftckpt_cli.main import main; main()"
        command = [sys.executable, "-c", main, "checkpoint", "unlink", "asked"]
        process = subprocess.Popen(
            [*command, "--endpoints", cluster.endpoints], stdin=slave, stderr=slave, stdout=slave
        )
        os.write(master, answer)
        assert process.wait(20) == code
    finally:
        os.close(master)
        os.close(slave)
    exists = "asked" in [each["name"] for each in run("checkpoint", "list", "-o", "json").json]
    assert exists == (code != 0)


def test_arguments_that_are_no_text(run, cluster) -> None:
    run("checkpoint", "create", "raw")
    wrote = as_process(cluster, "section", "write", "raw", b"\xfe\xff", b"\x80data")
    assert wrote.returncode == 0, wrote.stderr
    assert run("section", "read", "raw", "feff", "--hex").out == b"\x80data"
    for verb in ("create", "show", "unlink"):
        refused = as_process(cluster, "checkpoint", verb, b"\xff")
        assert refused.returncode in (1, 5)
        assert b"Traceback" not in refused.stderr


@pytest.mark.parametrize("name", ["", "x" * 3000, "a\nb", "a\x1b[31mb"], ids=repr)
def test_strange_names_are_refused_or_harmless(run, name: str) -> None:
    made = run("checkpoint", "create", name)
    assert made.code in (0, 1)
    assert "Traceback" not in made.err
    if made.code == 0:
        listed = run("checkpoint", "list").out
        assert repr(name).strip("'").encode() in listed  # nothing that steers a terminal
        assert run("checkpoint", "show", name).code == 0
        assert run("checkpoint", "unlink", name, "--yes").code == 0

"""``raftckpt track``: lines as they happen, JSON as a contract, how it ends."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

import raftckpt
from raftckpt.testing import LocalCluster
from tests.programs import Program

MAIN = [sys.executable, "-c", "from raftckpt_cli.main import main; main()", "track"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(1, faults=False) as cluster:
        yield cluster


def track(cluster: LocalCluster, *arguments: str) -> Program:
    return Program(*MAIN, *arguments, "--endpoints", cluster.endpoints)


def test_lines_of_json_tell_every_change(cluster) -> None:
    attributes = raftckpt.Attributes(collocated=True, retention=60.0)
    with raftckpt.connect(cluster.endpoints, node="n1") as service:
        checkpoint = service.open("json", create=attributes)
        checkpoint.create("gone", b"\xff", ttl=3600)
        with track(cluster, "json", "-o", "json") as following:
            following.until_lines(1)
            revision = checkpoint.put("k", b"\x00\x80")
            checkpoint.write_many([("k", 0, b"ab"), ("k", 1, b"c")])
            checkpoint.set_expiration("gone", None)
            checkpoint.delete("gone")
            checkpoint.active_replica_set(exclusive=True)
            checkpoint.set_retention(0)
            session = service._driver.core.session
            checkpoint.unlink()
            checkpoint.close()
            assert following.wait(30) == 0
            lines = [json.loads(line) for line in following.lines]
    assert lines[0] == {
        "revision": revision - 1, "kind": "image", "session": 0,
        "parts": [{
            "section": "gone", "section_base64": "Z29uZQ==",
            "expires": lines[0]["parts"][0]["expires"],
            "size": 1, "data": None, "data_base64": base64.b64encode(b"\xff").decode(),
        }],
        "active": None, "epoch": 0, "exclusive": False, "owner": 0,
        "retention_s": 60.0, "unlinked": False,
    }  # fmt: skip
    assert lines[1] == {
        "revision": revision, "kind": "created", "session": session,
        "section": "k", "section_base64": "aw==", "offset": 0, "size": 2,
        "data": None, "data_base64": "AIA=", "expires": None,
    }  # fmt: skip
    assert [(line["kind"], line["revision"] - revision) for line in lines[2:]] == [
        ("written", 1),
        ("expiration_set", 2),
        ("deleted", 3),
        ("active_changed", 4),
        ("retention_set", 5),
        ("unlinked", 6),
        ("destroyed", 7),
    ]
    assert [part["data"] for part in lines[2]["parts"]] == ["ab", "c"]
    assert lines[3]["expires"] is None
    assert lines[5]["active"] == {"session": session, "node": "n1"}
    assert (lines[5]["epoch"], lines[5]["exclusive"], lines[5]["owner"]) == (1, True, session)
    assert lines[6]["retention_s"] == 0


def test_text_from_a_revision_until_ctrl_c(cluster) -> None:
    with raftckpt.connect(cluster.endpoints) as service:
        checkpoint = service.open("text", create=raftckpt.Attributes())
        first = checkpoint.put("k", b"one")
        checkpoint.put("k", b"x" * 100)
        with track(cluster, "text", "--from", str(first)) as following:
            following.until_lines(1)
            checkpoint.create("t", b"\x1b[31m", ttl=3600)
            lines = following.until_lines(2)
            following.signal(signal.SIGINT)
            assert following.wait(10) == 130
            assert "".join(following.errors) == "interrupted"
    assert f"{first + 1}  overwritten  k  {'x' * 64}... (100 B)  by session" in lines[0]
    assert "created  t  0x1b5b33316d  expires 2" in lines[1]
    assert len(lines) == 2


def test_a_transaction_is_one_change_with_all_its_parts(cluster) -> None:
    with raftckpt.connect(cluster.endpoints) as service:
        checkpoint = service.open("parts", create=raftckpt.Attributes())
        before = checkpoint.put("old", b"x")
        with checkpoint.transaction() as transaction:
            transaction.create("new", b"n", ttl=3600)
            transaction.append("new", b"!")
            transaction.put("old", b"y")
            transaction.delete("old")
        begin = ["parts", "--from", str(before), "--limit", "1"]
        with track(cluster, *begin, "-o", "json") as following:
            assert following.wait(30) == 0
            (line,) = [json.loads(line) for line in following.lines]
        with track(cluster, *begin) as following:
            assert following.wait(30) == 0
            head, *told = following.lines
    assert (line["kind"], line["revision"]) == ("transaction", transaction.revision)
    assert [(p["kind"], p["section"], p["offset"], p["data"]) for p in line["parts"]] == [
        ("created", "new", 0, "n"),
        ("written", "new", 1, "!"),
        ("overwritten", "old", 0, "y"),
        ("deleted", "old", 0, ""),
    ]
    assert ["expires" in part for part in line["parts"]] == [True, False, False, False]
    assert head.startswith(f"{transaction.revision}  transaction  4 parts  by session ")
    assert told[0].startswith("    created  new  n  expires 2")
    assert told[1:] == ["    written  new  at 1: !", "    overwritten  old  y", "    deleted  old"]


def test_image_limit_and_a_reader_that_leaves(cluster) -> None:
    with raftckpt.connect(cluster.endpoints) as service:
        service.open("image", create=raftckpt.Attributes()).put("k", b"v")
    with track(cluster, "image", "--limit", "1") as following:
        assert following.wait(30) == 0
        lines = following.lines
    assert lines[0].endswith("image  1 sections, nobody active, epoch 0")
    assert lines[1] == "    k  v"
    command = [*MAIN, "image", "--endpoints", cluster.endpoints]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"image" in process.stdout.readline()
        process.stdout.close()  # nothing more is written: it must notice all the same
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_what_cannot_be_tracked(cluster) -> None:
    with track(cluster, "missing") as following:
        assert following.wait(30) == 5
        assert following.said("no checkpoint of this name exists")
    with raftckpt.connect(cluster.endpoints) as service:
        service.open("future", create=raftckpt.Attributes())
    with track(cluster, "future", "--from", "999999") as following:
        assert following.wait(30) == 1
        assert following.said("from_revision")
    with track(cluster, "future", "--from", "-1") as following:
        assert following.wait(30) == 2

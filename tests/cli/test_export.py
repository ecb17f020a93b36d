"""``raftckpt checkpoint export|import``: what goes out comes in again, and nothing else does."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from raftckpt_cli import main as cli_main
from raftckpt_cli.output import ExitCode

import raftckpt
from raftckpt.copies import export
from raftckpt.copies.export import Exported, ExportedSection, lines_of, read_export
from raftckpt.testing import LocalCluster
from tests.golden.books import HERE

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(1, faults=False) as cluster:
        yield cluster


@pytest.fixture
def run(cluster, capsys, monkeypatch) -> Run:
    monkeypatch.setenv("RAFTCKPT_ENDPOINTS", cluster.endpoints)

    def run_(*arguments: str) -> tuple[int, str]:
        code = cli_main.run(["checkpoint", *arguments])
        captured = capsys.readouterr()
        return code, captured.out if code == 0 else captured.err

    return run_


@pytest.fixture
def service(cluster) -> Iterator[raftckpt.Service]:
    with raftckpt.connect(cluster.endpoints) as service:
        yield service


def made(service: raftckpt.Service, name: str) -> dict[bytes, bytes]:
    attributes = raftckpt.Attributes(max_sections=5000, retention=60.0, max_section_id_size=33)
    with service.open(name, create=attributes) as checkpoint:
        checkpoint.put("ü", b"text")
        checkpoint.put(b"\xff\x00", os.urandom(300_000))
        checkpoint.put("empty", b"")
        checkpoint.create("soon", b"x", ttl=1000)
        with checkpoint.transaction() as many:
            for number in range(1500):
                many.put(f"many {number}", b"%d" % number)
        return dict(checkpoint.read_all())


def test_what_goes_out_comes_in_again(run: Run, service, tmp_path: Path) -> None:
    file = str(tmp_path / "out.ndjson")
    sections = made(service, "out")
    code, out = run("export", "out", file)
    assert code == 0, out
    assert "1504 sections of out" in out
    assert os.listdir(tmp_path) == ["out.ndjson"]
    code, out = run("import", file, "--name", "in", "-o", "json")
    assert code == 0, out
    assert json.loads(out)["sections"] == 1504
    one, two = service.view("out"), service.view("in")
    assert dict(two.read_all()) == sections
    assert two.status().attributes == one.status().attributes
    mine = {row.id: row.expires for row in one.sections()}
    assert {row.id: row.expires for row in two.sections()} == pytest.approx(mine)
    # the same again, but for the name and the revision
    again = str(tmp_path / "again.ndjson")
    assert run("export", "in", again)[0] == 0
    first, second = (Path(path).read_bytes().splitlines()[1:-1] for path in (file, again))
    assert first == second


def test_it_goes_through_pipes(cluster, service, capsysbinary, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RAFTCKPT_ENDPOINTS", cluster.endpoints)
    made(service, "piped")
    capsysbinary.readouterr()
    assert cli_main.run(["checkpoint", "export", "piped"]) == 0
    data = capsysbinary.readouterr().out
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as source:
        monkeypatch.setattr("sys.stdin", type("In", (), {"buffer": source}))
        assert cli_main.run(["checkpoint", "import", "--name", "piped in"]) == 0
    assert service.view("piped in").read_all() == service.view("piped").read_all()


def test_a_checkpoint_that_exists_is_left_alone_unless_it_is_to_be_resumed(
    run: Run, service, tmp_path
) -> None:
    file = str(tmp_path / "out.ndjson")
    sections = made(service, "there")
    assert run("export", "there", file)[0] == 0
    with service.open("there") as checkpoint:
        checkpoint.put("ü", b"changed")
        checkpoint.delete("soon")
        checkpoint.put("own", b"stays")
        before = dict(checkpoint.read_all())
        code, said = run("import", file)
        assert code == ExitCode.REFUSED
        assert "exists" in said
        assert checkpoint.read_all() == before
        assert run("import", file, "--resume")[0] == 0
        assert checkpoint.read_all() == {**sections, b"own": b"stays"}


def test_what_is_not_as_it_was_written_is_refused_as_a_whole(run: Run, service, tmp_path) -> None:
    file = tmp_path / "out.ndjson"
    with service.open("small", create=raftckpt.Attributes(max_sections=3)) as checkpoint:
        checkpoint.put("a", b"alpha")
        checkpoint.put("b", b"beta")
    assert run("export", "small", str(file))[0] == 0
    good = file.read_bytes()
    bad = [good[:size] for size in range(len(good))]
    for position in range(0, len(good)):
        flipped = bytes((good[position] ^ 1 << position % 8,))
        bad.append(good[:position] + flipped + good[position + 1 :])
    for data in bad:
        file.write_bytes(data)
        with file.open("rb") as source, pytest.raises(raftckpt.InvalidParam):
            list(read_export(source).sections)
    file.write_bytes(good[:-2])
    code, said = run("import", str(file), "--name", "never")
    assert code == ExitCode.REFUSED
    assert "not complete" in said
    assert run("show", "never")[0] == ExitCode.NOT_FOUND


def test_a_file_of_before_is_read_and_written_again() -> None:
    kept = HERE / "exports" / "first.ndjson"
    attributes = raftckpt.Attributes("weak", True, 100, 1.5, 7, 8, 9)
    sections = [
        ExportedSection("ü".encode(), b"text", None),
        ExportedSection(b"\xff", bytes(range(20)), 1_900_000_000_123_456_789),
    ]
    lines = b"".join(lines_of(Exported("golden", attributes, 41, sections, 2)))
    assert lines == kept.read_bytes()
    with kept.open("rb") as source:
        found = read_export(source)
        assert (found.name, found.attributes, found.revision) == ("golden", attributes, 41)
        assert list(found.sections) == sections


def test_a_later_format_says_so(tmp_path) -> None:
    (tmp_path / "later").write_text(
        '{"format": 2, "checkpoint": "x", "revision": 1, "sections": 0, "attributes": {}}\n',
        "utf-8",
    )
    with (tmp_path / "later").open("rb") as source, pytest.raises(raftckpt.InvalidParam) as told:
        read_export(source)
    assert "it is of format 2; this version of raftckpt reads format 1" in str(told.value)


def test_sections_whose_time_has_come_are_left_out(run: Run, service, tmp_path) -> None:
    file = str(tmp_path / "out.ndjson")
    with service.open("short", create=raftckpt.Attributes()) as checkpoint:
        checkpoint.create("gone", b"x", ttl=1.2)
        checkpoint.put("stays", b"x")
        assert run("export", "short", file)[0] == 0
    time.sleep(0.3)
    code, out = run("import", file, "--name", "long", "-o", "json")
    assert code == 0
    told = json.loads(out)
    assert (told["sections"], told["expired"]) == (1, 1)


@pytest.mark.parametrize(
    "attributes",
    [
        raftckpt.Attributes(update="weak", collocated=True),
        raftckpt.Attributes(update="active"),
        raftckpt.Attributes(max_sections=1),
    ],
    ids=["collocated", "active", "one section"],
)
def test_every_kind_of_checkpoint_comes_in_again(run: Run, service, tmp_path, attributes) -> None:
    file, name = str(tmp_path / "out.ndjson"), f"kind {attributes}"
    with service.open(name, create=attributes) as checkpoint:
        if attributes.collocated:
            checkpoint.active_replica_set()
        key = "" if attributes.max_sections == 1 else "a"
        (checkpoint.overwrite if key == "" else checkpoint.put)(key, b"data")
        checkpoint.synchronize()
    assert run("export", name, file)[0] == 0
    assert run("import", file, "--name", name + " in")[0] == 0
    assert service.view(name + " in").read_all() == {key.encode(): b"data"}


def test_one_that_changes_all_the_time_is_exported_from_a_snapshot(
    run: Run, cluster, service, tmp_path
) -> None:
    stop = threading.Event()

    def write() -> None:
        with raftckpt.connect(cluster.endpoints) as own, own.open("busy") as checkpoint:
            while not stop.is_set():
                checkpoint.put("a", os.urandom(8))

    with service.open("busy", create=raftckpt.Attributes()) as checkpoint:
        checkpoint.put("a", b"")
    thread = threading.Thread(target=write)
    thread.start()
    try:
        service.snapshot(tmp_path / "saved")
        code, said = run("export", "busy", str(tmp_path / "out"))
        assert code in (0, ExitCode.UNAVAILABLE)  # a slow machine may find a quiet moment
        assert code == 0 or "from a snapshot" in said
    finally:
        stop.set()
        thread.join()
    assert run("export", "busy", str(tmp_path / "out"), "--from", str(tmp_path / "saved"))[0] == 0
    with (tmp_path / "out").open("rb") as source:
        (section,) = read_export(source).sections
    assert section.id == b"a"
    code, said = run("export", "none", "--from", str(tmp_path / "saved"))
    assert code == ExitCode.NOT_FOUND
    assert "it has busy" in said or "busy" in said


def test_an_import_that_was_interrupted_is_resumed(run: Run, service, tmp_path) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    file = str(tmp_path / "out.ndjson")
    sections = made(service, "whole")
    assert run("export", "whole", file)[0] == 0
    with Path(file).open("rb") as source:
        exported = read_export(source)
        with pytest.raises(KeyboardInterrupt):
            export.import_checkpoint(service, exported, "part", progress=interrupt)
    assert 0 < service.view("part").count() < len(sections)
    assert run("import", file, "--name", "part", "--resume")[0] == 0
    assert dict(service.view("part").read_all()) == sections


def test_large_sections_travel_in_pieces(run: Run, service, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "_PIECE_BYTES", 100_000)
    data = os.urandom(950_000)
    with service.open("large", create=raftckpt.Attributes()) as checkpoint:
        checkpoint.put("a", data)
        checkpoint.put("b", b"b")
    file = str(tmp_path / "out.ndjson")
    assert run("export", "large", file)[0] == 0
    assert run("import", file, "--name", "large in")[0] == 0
    assert service.view("large in").read_all() == {b"a": data, b"b": b"b"}

"""``raftckpt data``: what it tells of directories, that it changes nothing, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from raftckpt_cli import main as cli_main
from raftckpt_cli.output import ExitCode

from raftckpt.copies.entries import told as describe
from raftckpt.protocol import operations as ops
from raftckpt.protocol.batch import encode_batch
from raftckpt.storage import InUse, RealFileSystem, reading
from tests.directories import open_founded, written_directory
from tests.golden.books import HERE

GOLDEN = sorted((HERE / "directories").iterdir())


def content_of(path: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(path)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in path.rglob("*")
        if file.is_file()
    }


def run(capsys, *arguments: str) -> tuple[int, str]:
    code = cli_main.run(["data", *arguments])
    captured = capsys.readouterr()
    return code, captured.out if code == 0 else captured.err


def told(capsys, *arguments: str) -> Any:
    code, out = run(capsys, *arguments, "-o", "json")
    assert code == 0, out
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of a cluster of one: five entries, the last of them cut short on disk."""
    path = tmp_path / "n"
    storage = open_founded(RealFileSystem(), str(path), segment_bytes=8192)
    journal = storage.journal
    journal.append_entry(b"\x02" + storage.identity.record, 1, 0)
    journal.set_hard_state(3, "n", 3)
    for index in range(2, 6):
        journal.append_entry(b"\x01", index, 3)
    journal.sync()
    storage.snapshots.close()
    storage.directory.close()
    file = journal._directory + "/00000000000000000001.journal"
    with open(file, "r+b") as last:
        last.seek(journal._offset - 1)
        last.write(b"\x00")  # the payload of the last entry, as a write cut short leaves it
    return path


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_every_kind_of_directory_is_read_and_left_alone(path: Path, tmp_path) -> None:
    copy = tmp_path / path.name
    shutil.copytree(path, copy)
    before = content_of(copy)
    with reading(str(copy)) as held:  # what its entries say is made up
        assert held.identity.node == "n1"
        assert held.peers is not None
        image = b"".join(held.image())
        assert bool(image) == any((path / "snapshots").glob("*.snapshot"))
    assert content_of(copy) == before


def test_a_torn_tail_is_told_as_a_start_would_see_it_and_stays(directory: Path, capsys) -> None:
    before = content_of(directory)
    (found,) = told(capsys, "inspect", str(directory))
    assert (found["last"], found["last_term"], found["commit"], found["vote"]) == (4, 3, 3, "n")
    entries = told(capsys, "dump", str(directory))
    kinds = [(each["index"], each["kind"], each["committed"]) for each in entries]
    assert kinds == [
        (1, "configuration", True),
        (2, "no-op", True),
        (3, "no-op", True),
        (4, "no-op", False),
    ]
    assert content_of(directory) == before


def test_a_directory_in_use_is_refused_and_cannot_be_started_while_it_is_read(
    directory: Path, capsys
) -> None:
    lock = RealFileSystem().lock(str(directory / "lock"))
    code, said = run(capsys, "inspect", str(directory))
    assert code == ExitCode.REFUSED
    assert "in use by pid" in said
    lock.release()
    with reading(str(directory)), pytest.raises(InUse):
        RealFileSystem().lock(str(directory / "lock"))
    RealFileSystem().lock(str(directory / "lock")).release()


def test_every_damaged_byte_is_refused_or_changes_nothing(tmp_path: Path, capsys) -> None:
    path = tmp_path / "n"
    written_directory(path, sections=3, snapshot=True)
    (whole,) = told(capsys, "verify", str(path))
    slot = next((path / "snapshots").iterdir())
    good = slot.read_bytes()
    for position in range(len(good)):
        slot.write_bytes(
            good[:position] + bytes((good[position] ^ 1 << position % 8,)) + good[position + 1 :]
        )
        code, said = run(capsys, "verify", str(path))
        assert code == ExitCode.REFUSED, position
        assert "try:" in said
    slot.write_bytes(good)
    assert told(capsys, "verify", str(path)) == [whole]


def test_what_is_no_data_directory_is_refused(tmp_path: Path, capsys) -> None:
    code, said = run(capsys, "inspect", str(tmp_path))
    assert code == ExitCode.REFUSED
    assert "no identity file" in said
    assert list(tmp_path.iterdir()) == []
    assert run(capsys, "inspect", str(tmp_path / "missing"))[0] == ExitCode.USAGE


def test_operations_are_told_by_their_names(tmp_path: Path, capsys) -> None:
    written_directory(tmp_path / "n", sections=2)
    code, said = run(capsys, "dump", str(tmp_path / "n"))
    assert code == 0
    names = [line.split()[0] for line in said.splitlines() if line.startswith("    ")]
    assert names == ["level", "SESSION_OPEN", "CHECKPOINT_OPEN", "SECTION_PUT", "SECTION_PUT"]
    *_, last = told(capsys, "dump", str(tmp_path / "n"), "--data")
    assert last["commands"][0]["section_id"] == "1"
    assert last["commands"][0]["data"] == "x" * 100
    (short,) = told(capsys, "dump", str(tmp_path / "n"), "--from", "6")
    assert short["commands"][0]["data"] == {"bytes": 100}


def test_secrets_of_sessions_are_not_told(tmp_path: Path) -> None:
    opening = ops.SessionOpen(0, 0, 0, bytes(range(16)), "me", "n1", 10**9, 0)
    entry = describe(b"\x00" + encode_batch(5, [opening]), 7, 2)
    ((name, fields),) = entry.commands
    assert (name, fields["name"], fields["secret"]) == ("SESSION_OPEN", "me", None)
    for payload in (b"\x09", b"\x00no batch", b"\x02no configuration"):
        assert describe(payload, 7, 2).kind == "undecodable"

"""Today's product writes the bytes of the golden books and reads them as they were meant.

What is missing there is written by ``python -m tests.golden``; what is there is never changed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.golden import product
from tests.golden.books import HERE, read
from tests.golden.play import (
    BOOKS,
    DIRECTORIES,
    IMAGE,
    SNAPSHOT,
    SNAPSHOT_HEAD,
    files_of,
    image_now,
    images_now,
    new_files,
    parts_of,
    played,
)

ROOT = HERE.parent.parent


def lines_of(book: str, mark: str = "") -> list[str]:
    """Lines below the entries that begin with a mark, without it."""
    return [
        line.removeprefix(mark)
        for entry in read(book)
        for line in entry.lines
        if line.startswith(mark) and not line.startswith("sha256")
    ]


def literal(line: str) -> Any:
    return eval(line, {"__builtins__": {}})


# --- what is written is what was written ---------------------------------------------------------


@pytest.mark.parametrize("book", BOOKS)
def test_todays_product_does_what_the_book_says(book: str) -> None:
    for entry, lines in zip(read(book), played(book), strict=True):
        assert entry.lines, f"nothing is written down for {entry.name!r}: python -m tests.golden"
        assert lines == entry.lines, entry.name


def test_files_are_byte_by_byte_those_of_the_book(tmp_path: Path) -> None:
    made = new_files(tmp_path)
    kept = [path for path in DIRECTORIES.rglob("*") if path.is_file()]
    assert sorted(made) == sorted([IMAGE, SNAPSHOT, *images_now(), *kept])
    for path, data in made.items():
        assert data == path.read_bytes(), path


# --- and is understood ---------------------------------------------------------------------------


def test_requests_are_read_as_they_were_meant() -> None:
    for entry in read("requests"):
        if not entry.lines[0].startswith("sha256"):
            assert product.read_request(bytes.fromhex(entry.lines[0])) == entry.input, entry.name


def test_what_calls_send_is_well_formed() -> None:
    for line in lines_of("calls"):
        message = literal(line)
        assert product.read_request(product.request_bytes([message])) == [message]


def test_entries_of_the_log_are_read_as_they_were_meant() -> None:
    for entry in read("log"):
        assert product.read_entry(bytes.fromhex(entry.lines[0])) == entry.input, entry.name


def test_peer_messages_are_read_as_they_were_meant() -> None:
    for entry in read("peers"):
        if entry.lines[0].startswith("sha256"):
            continue
        data = bytes.fromhex(entry.lines[0])
        if product.is_former(entry.input):
            with pytest.raises(product.messages.PeerProtocolError):
                product.read_peer(data)
        else:
            assert product.read_peer(data) == entry.input, entry.name


def test_fragments_are_joined() -> None:
    for entry in read("fragments"):
        reply, _ = entry.input
        if not any(line.startswith("sha256") for line in entry.lines):
            reader = product.Reader()
            found = [
                message for line in entry.lines for message in reader.feed(bytes.fromhex(line))
            ]
            assert found == [reply], entry.name


@pytest.mark.parametrize("path", sorted((HERE / "images").iterdir()), ids=lambda path: path.stem)
def test_images_of_former_versions_are_restored_and_written_again(path: Path) -> None:
    image = path.read_bytes()
    assert product.GoldenMachine(image).image() == image


def test_the_image_is_restored_and_written_again() -> None:
    image = IMAGE.read_bytes()
    assert product.GoldenMachine(image).image() == image == image_now()


def test_a_restored_machine_goes_on_as_the_book_says() -> None:
    entries = read("state")
    at = [entry.input[0] for entry in entries].index("image")
    machine = product.GoldenMachine(IMAGE.read_bytes())
    assert f"digest {machine.digest()}" in entries[at].lines
    for entry in entries[at + 1 :]:
        if entry.input[0] == "ask":
            assert repr(machine.query(*entry.input[1:])) in entry.lines
        elif entry.input[0] == "image":
            assert f"digest {machine.digest()}" in entry.lines
        else:
            results, _ = machine.apply(product.entry_bytes(*entry.input))
            assert [f"result {result}" for result in results] == [
                line for line in entry.lines if line.startswith("result ")
            ]
            assert f"digest {machine.digest()}" in entry.lines


def test_the_snapshot_file_is_read_as_it_was_meant() -> None:
    head, blocks = product.read_snapshot_file(SNAPSHOT.read_bytes())
    assert head == SNAPSHOT_HEAD
    assert blocks == parts_of(IMAGE.read_bytes())


@pytest.mark.parametrize("path", sorted(SNAPSHOT.parent.iterdir()), ids=lambda path: path.stem)
def test_snapshot_files_of_former_versions_hold_an_image(path: Path) -> None:
    _, blocks = product.read_snapshot_file(path.read_bytes())
    image = b"".join(blocks)
    assert product.GoldenMachine(image).image() == image


FORMER = HERE / "directories_1"


@pytest.mark.parametrize("entry", read("directories_1"), ids=lambda entry: entry.name)
def test_directories_from_before_foundings_are_refused_and_hold_what_they_held(
    entry, tmp_path: Path
) -> None:
    path = tmp_path / entry.name
    shutil.copytree(FORMER / entry.name, path)
    _, why, remedy = product.refusal_of(path).splitlines()
    assert "before clusters had a founding id" in why
    assert "copy the data out with the version that wrote it" in remedy
    assert files_of(path) == files_of(FORMER / entry.name), "something in it was changed"
    said = dict(line.split(" ", 1) for line in entry.lines)
    uuid = literal(said["identity"])[2]
    entries, state = product.read_former_journal(path / "journal", uuid)
    if not said["entries"].startswith("sha256") and "snapshot" not in said:
        assert entries == literal(said["entries"])
    assert state == literal(said["state"])
    if "snapshot" in said:
        snapshot, image = product.read_former_snapshot(path / "snapshots")
        assert snapshot == literal(said["snapshot"])
        assert image.hex() == said["image"]


# --- nothing is forgotten ------------------------------------------------------------------------


def test_every_request_has_a_line() -> None:
    here = {message[0] for entry in read("requests") for message in entry.input}
    assert here == product.REQUEST_TAGS
    answered = {
        message[0]
        for entry in read("port")
        if entry.input[0] != "event"
        for message in entry.input[1:]
    }
    assert answered >= product.REQUEST_TAGS, "a request that the client port is never asked"


def test_every_kind_of_reply_has_a_line() -> None:
    said = [
        literal(line[4:])
        for line in lines_of("port")
        if line[2:4] == ": " and not line[4:].startswith("sha256")
    ]
    assert {message[0] for message in said} == product.REPLY_KINDS
    assert {message[1] for message in said if message[0] == 2} == notices()
    changes = {change[2] for message in said if message[0] == 3 for change in message[2]}
    assert changes == product.CHANGE_KINDS
    refusals = {message[4] for message in said if message[0] == 0 and len(message) == 5}
    assert refusals == {True, False}, "definite ones and others"


def notices() -> set[str]:
    """Kinds of notices that the product sends."""
    text = "".join(path.read_text() for path in (ROOT / "raftckpt").rglob("*.py"))
    return set(re.findall(r'\.notice\(\s*"(\w+)"', text))


def test_every_command_has_a_line() -> None:
    logged = {command[0] for entry in read("log") for command in entry.input[1]}
    assert logged >= product.COMMAND_TAGS
    outcomes: dict[int, set[bool]] = {}
    for entry in read("state"):
        if entry.input[0] in ("ask", "image"):
            continue
        results = [line for line in entry.lines if line.startswith("result ")]
        for command, result in zip(entry.input[1], results, strict=True):
            if type(command) is list and command:
                ok = literal(result.removeprefix("result "))[0] == 1
                outcomes.setdefault(command[0], set()).add(ok)
    accepted = {tag for tag, found in outcomes.items() if True in found}
    assert accepted >= product.COMMAND_TAGS
    refused = {tag for tag, found in outcomes.items() if False in found}
    assert refused >= product.COMMAND_TAGS


def test_every_peer_message_has_a_line() -> None:
    here = {row[0] for entry in read("peers") for row in entry.input}
    assert here == (set(product.PEER_KINDS) | product.HANDSHAKE_KINDS | product.FORMER_PEER_KINDS)


def test_every_kind_of_record_stands_in_a_journal() -> None:
    found = set()
    for path in DIRECTORIES.rglob("*.journal"):
        found |= product.record_kinds(path.read_bytes())
    assert found == product.RECORD_KINDS


def test_every_file_of_a_directory_is_there() -> None:
    names = {name.split("/")[0] for path in DIRECTORIES.iterdir() for name in files_of(path)}
    assert names == {"identity", "peers", "journal", "snapshots"}


# --- and nothing is rewritten --------------------------------------------------------------------


def test_the_command_refuses_to_change_a_line(tmp_path: Path, monkeypatch) -> None:
    from tests.golden import __main__ as command
    from tests.golden import books, play

    shutil.copytree(HERE, tmp_path / "golden")
    here = tmp_path / "golden"
    monkeypatch.setattr(books, "HERE", here)
    monkeypatch.setattr(command, "HERE", here)
    monkeypatch.setattr(play, "IMAGE", here / IMAGE.name)
    monkeypatch.setattr(play, "DIRECTORIES", here / DIRECTORIES.name)
    monkeypatch.setattr(play, "SNAPSHOT", here / SNAPSHOT.relative_to(HERE))
    log = here / "log.txt"
    former = log.read_text()
    log.write_text(former + "a new one | [5, [[40, 0, 0, 0]]]\n")
    assert command.main() == 0
    assert log.read_text() == former + "a new one | [5, [[40, 0, 0, 0]]]\n  930105919428000000\n"

    changed = former.replace("\n  93", "\n  92", 1) + "another | [6, []]\n"
    log.write_text(changed)
    assert command.main() == 1
    assert log.read_text() == changed

    log.write_text(former)
    (here / IMAGE.name).write_bytes(b"other")
    assert command.main() == 1
    assert (here / IMAGE.name).read_bytes() == b"other"

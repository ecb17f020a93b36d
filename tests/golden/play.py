"""What today's product makes of the inputs of each book."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.golden import product
from tests.golden.books import HERE, Entry, read

__all__ = [
    "BOOKS",
    "DIRECTORIES",
    "IMAGE",
    "SNAPSHOT",
    "SNAPSHOT_HEAD",
    "files_of",
    "new_files",
    "parts_of",
    "played",
]

DIRECTORIES = HERE / "directories"
IMAGE = HERE / "state.image"
SNAPSHOT = HERE / "snapshots" / "first.snapshot"
SNAPSHOT_HEAD = ["golden", "f" * 32, 30, 2, 1_700_000_000_000_000_000, "n2", 41, 1]

_SHOWN = 1500
"""Longer bytes and texts are written as their SHA-256."""

Lines = list[list[str]]


def shown(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else repr(value)
    if len(text) <= _SHOWN:
        return text
    data = value if isinstance(value, bytes) else text.encode()
    return f"sha256 {sha256(data).hexdigest()} of {len(data)} bytes"


def requests(entries: list[Entry]) -> Lines:
    return [[shown(product.request_bytes(entry.input))] for entry in entries]


def calls(entries: list[Entry]) -> Lines:
    found: Lines = []
    for entry in entries:
        sent = product.sent_by_client(entry.input)
        found.append([shown(message) for message in sent])
    return found


def fragments(entries: list[Entry]) -> Lines:
    return [[shown(frame) for frame in product.fragments_of(*entry.input)] for entry in entries]


def port(entries: list[Entry]) -> Lines:
    """Requests as they arrive and what is written because of them, client by client."""
    found: Lines = []
    with product.same_everywhere() as missing:
        side = product.GoldenPort()
        readers: dict[str, product.Reader] = {}
        for entry in entries:
            who, *rest = entry.input
            lines = []
            if who == "event" and rest[0] in product.GROWTH:
                missing -= set(product.GROWTH[rest[0]])
            elif who == "event":
                side.event(*rest)
            else:
                data = product.request_bytes(rest)
                lines.append(f"{who} > {shown(data)}")
                side.send(who, data)
            for client, frame in side.taken():
                lines.append(f"{client} < {shown(frame)}")
                reader = readers.setdefault(client, product.Reader())
                lines += [f"{client} : {shown(message)}" for message in reader.feed(frame)]
            found.append(lines or ["nothing"])
    return found


def log(entries: list[Entry]) -> Lines:
    return [[shown(product.entry_bytes(*entry.input))] for entry in entries]


def state(entries: list[Entry]) -> Lines:
    """A history: results and changes entry by entry, and what the state then is."""
    machine = product.GoldenMachine()
    found: Lines = []
    for entry in entries:
        what, *rest = entry.input
        if what == "image":
            image = machine.image()
            found.append([f"{len(image)} bytes", f"digest {machine.digest()}"])
        elif what == "ask":
            found.append([shown(machine.query(*rest))])
        else:
            results, changes = machine.apply(product.entry_bytes(*entry.input))
            lines = [f"result {shown(result)}" for result in results]
            lines += [f"change {shown(change)}" for change in changes]
            found.append([*lines, f"digest {machine.digest()}"])
    return found


def image_now() -> bytes:
    """The image at the place in the history where the file was written."""
    machine = product.GoldenMachine()
    for entry in read("state"):
        if entry.input[0] == "image":
            return machine.image()
        if entry.input[0] != "ask":
            machine.apply(product.entry_bytes(*entry.input))
    raise AssertionError("the history has no image")


def images_now() -> dict[Path, bytes]:
    """Images at those places in the history that name a file."""
    machine = product.GoldenMachine()
    found: dict[Path, bytes] = {}
    for entry in read("state"):
        what, *rest = entry.input
        if what == "image":
            found |= {HERE / "images" / f"{name}.image": machine.image() for name in rest}
        elif what != "ask":
            machine.apply(product.entry_bytes(*entry.input))
    return found


def peers(entries: list[Entry]) -> Lines:
    return [[shown(product.peer_bytes(entry.input))] for entry in entries]


def directories(entries: list[Entry]) -> Lines:
    """What a start finds in each directory; the files themselves are beside the book."""
    found: Lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for entry in entries:
            path = Path(scratch) / entry.name
            kept = DIRECTORIES / entry.name
            if kept.exists():
                shutil.copytree(kept, path)
            else:
                product.make_directory(path, entry.input)
            found.append([f"{what} {shown(value)}" for what, value in product.read_directory(path)])
    return found


def files_of(path: Path) -> dict[str, bytes]:
    """Files of a data directory but for the lock, which says a process id."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "lock"
    }


def parts_of(image: bytes) -> list[bytes]:
    return [image[at : at + 1000] for at in range(0, len(image), 1000)]


def new_files(scratch: Path) -> dict[Path, bytes]:
    """Files of today's product, by the place where they are kept."""
    image = image_now()
    found = {IMAGE: image, SNAPSHOT: product.snapshot_file(SNAPSHOT_HEAD, parts_of(image))}
    found |= images_now()
    for entry in read("directories"):
        product.make_directory(scratch / entry.name, entry.input)
        for name, data in files_of(scratch / entry.name).items():
            found[DIRECTORIES / entry.name / name] = data
    return found


BOOKS: dict[str, Callable[[list[Entry]], Lines]] = {
    "requests": requests,
    "calls": calls,
    "port": port,
    "fragments": fragments,
    "log": log,
    "state": state,
    "peers": peers,
    "directories": directories,
}


def played(book: str) -> Lines:
    return BOOKS[book](read(book))

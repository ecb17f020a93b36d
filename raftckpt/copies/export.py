"""One checkpoint as lines of JSON, for people and other programs: out and in.

The first line has the attributes, each of the next a section, the last one the count and the
SHA-256 of all before it. Data are base64. Nothing is imported of a file whose last line is missing
or does not match.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import IO, Any, Final, NamedTuple

from raftckpt.client.operations import checkpoint_name_of
from raftckpt.client.sync import Checkpoint, Service
from raftckpt.client.types import Attributes, Nanoseconds
from raftckpt.errors import Exist, InvalidParam, TryAgain
from raftckpt.limits import MIB, SECOND_NS
from raftckpt.model.machine import CheckpointMachine
from raftckpt.protocol.contract import SA_TIME_MAX

__all__ = [
    "EXPORT_VERSION",
    "Exported",
    "ExportedSection",
    "Imported",
    "exported_live",
    "exported_of",
    "import_checkpoint",
    "lines_of",
    "read_export",
]

EXPORT_VERSION: Final = 1
"""The first format; what reads it asks for exactly this (docs/reference/formats.md)."""

_LOOKS: Final = 20
"""How often a checkpoint is read that changes meanwhile."""
# of one transaction: well below what one may have (4,096 parts, 64 MiB), so that others get
# their turn
_BATCH_SECTIONS: Final = 1000
_BATCH_BYTES: Final = 4 * MIB
_PIECE_BYTES: Final = 32 * MIB
"""Of a section that is longer than one write may be."""
_SOON_NS: Final = SECOND_NS
"""A section that expires within it is not imported: it would be refused on its way."""


class ExportedSection(NamedTuple):
    """A section."""

    id: bytes
    data: bytes
    expires_ns: int | None
    """Nanoseconds since the epoch; None: never."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A checkpoint that is exported, or was.

    Attributes:
        name: its name.
        attributes: its creation attributes, with the retention that it had.
        revision: of the state that was read.
        sections: in the order in which they were made.
        count: of the sections.
    """

    name: str
    attributes: Attributes
    revision: int
    sections: Iterable[ExportedSection]
    count: int


# --- out -----------------------------------------------------------------------------------------


def exported_live(service: Service, name: str, consistency: Any) -> Exported:
    """Read a checkpoint of a cluster, in one state, which takes the memory of its data.

    Raises:
        NotExist: there is none of this name.
        TryAgain: it changes all the time.
    """
    view = service.view(name)
    for _ in range(_LOOKS):
        before = view.status(consistency=consistency)
        rows = view.sections(consistency=consistency)
        image = view.read_all(consistency=consistency)
        after = view.status(consistency=consistency)
        if (before.uid, before.revision) == (after.uid, after.revision):
            sections = [
                ExportedSection(
                    row.id,
                    image[row.id],
                    None if row.expires is None else round(row.expires * SECOND_NS),
                )
                for row in rows
            ]
            return Exported(name, before.attributes, image.revision, sections, len(sections))
    raise TryAgain(
        f"export of checkpoint {name!r}: it changes all the time; nothing was written: export it "
        "from a snapshot (raftckpt snapshot save, raftckpt checkpoint export --from)"
    )


def exported_of(machine: CheckpointMachine, name: str) -> Exported | None:
    """Take a checkpoint out of a state; None: it has none of this name."""
    checkpoint = machine.names.get(name)
    if checkpoint is None:
        return None
    sections = (
        ExportedSection(key, bytes(data), None if expires >= SA_TIME_MAX else expires)
        for key, (data, expires, _, _) in checkpoint.sections.items()
    )
    attributes = Attributes.from_wire(list(checkpoint.attributes))
    return Exported(name, attributes, machine.revision, sections, len(checkpoint.sections))


def lines_of(exported: Exported) -> Iterator[bytes]:
    """Yield the lines, each with its end."""
    total = sha256()
    attributes = exported.attributes
    head = {
        "checkpoint": exported.name,
        "format": EXPORT_VERSION,
        "revision": exported.revision,
        "sections": exported.count,
        "attributes": {
            "update": attributes.update,
            "collocated": attributes.collocated,
            "size": attributes.size,
            "retention_s": attributes.retention,
            "max_sections": attributes.max_sections,
            "max_section_size": attributes.max_section_size,
            "max_section_id_size": attributes.max_section_id_size,
            **({"quota": True} if attributes.quota else {}),
        },
    }
    for fields in (head, *map(_section_fields, exported.sections)):
        line = json.dumps(fields, ensure_ascii=False).encode() + b"\n"
        total.update(line)
        yield line
    yield json.dumps({"end": exported.count, "sha256": total.hexdigest()}).encode() + b"\n"


def _section_fields(section: ExportedSection) -> dict[str, Any]:
    fields: dict[str, Any] = {"id_base64": base64.b64encode(section.id).decode("ascii")}
    with suppress(UnicodeDecodeError):
        fields = {"id": section.id.decode("utf-8"), **fields}  # for people; the other one counts
    fields["expires_ns"] = section.expires_ns
    fields["data_base64"] = base64.b64encode(section.data).decode("ascii")
    return fields


# --- in ------------------------------------------------------------------------------------------


def read_export(file: IO[bytes]) -> Exported:
    """Verify a file as a whole, and return what is in it; its sections are read when asked for.

    Arguments:
        file: at its beginning, and able to go back there.

    Raises:
        InvalidParam: it is no export, of a later format, or not complete.
    """
    total, count = sha256(), -1
    head: dict[str, Any] = {}
    last = b""
    for line in file:
        if last:
            total.update(last)
            count += 1
        else:
            head = _head(line)
        last = line
    try:
        end = json.loads(last)
        complete = end == {"end": count, "sha256": total.hexdigest()} and last.endswith(b"\n")
    except (ValueError, RecursionError):
        complete = False
    if not complete or head["sections"] != count:
        raise InvalidParam("the file is not complete, or was changed: its last line does not match")
    file.seek(0)
    told = head["attributes"]
    try:
        attributes = Attributes(
            told["update"],
            told["collocated"],
            told["size"],
            told["retention_s"],
            told["max_sections"],
            told["max_section_size"],
            told["max_section_id_size"],
            told.get("quota", False) is True,
        )
        attributes.to_wire()
    except (KeyError, TypeError, OverflowError) as error:
        raise InvalidParam(f"the attributes in the file are malformed: {error!r}") from None
    name = checkpoint_name_of(head["checkpoint"])
    return Exported(name, attributes, head["revision"], _sections(file, count), count)


def _head(line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
        version = head["format"]
        types = [type(head[name]) for name in ("checkpoint", "revision", "sections", "attributes")]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidParam("it is no export of a checkpoint: the first line is another") from None
    if version != EXPORT_VERSION:
        raise InvalidParam(
            f"it is of format {version}; this version of raftckpt reads format {EXPORT_VERSION}"
        )
    if types != [str, int, int, dict]:
        raise InvalidParam("it is no export of a checkpoint: the first line is malformed")
    found: dict[str, Any] = head
    return found


def _sections(file: IO[bytes], count: int) -> Iterator[ExportedSection]:
    next(file)
    for number in range(count):
        try:
            fields = json.loads(next(file))
            expires = fields["expires_ns"]
            if expires is not None and (type(expires) is not int or expires < 0):
                raise ValueError("expires_ns is no time")
            yield ExportedSection(
                base64.b64decode(fields["id_base64"], validate=True),
                base64.b64decode(fields["data_base64"], validate=True),
                expires,
            )
        except (ValueError, KeyError, TypeError, StopIteration, RecursionError) as error:
            raise InvalidParam(f"section {number} in the file is malformed: {error}") from None


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        sections: that are in the checkpoint now.
        expired: that were left out because their time has come.
        revision: of the last change; None: there was none.
    """

    sections: int
    expired: int
    revision: int | None


def import_checkpoint(
    service: Service,
    exported: Exported,
    name: str,
    *,
    resume: bool = False,
    progress: Callable[[int], object] = lambda done: None,
) -> Imported:
    """Make a checkpoint of an export.

    Arguments:
        service: the cluster.
        exported: what :func:`read_export` found.
        name: of the checkpoint that is made.
        resume: it may exist already, with the same attributes: what is in the file replaces what
            is there.
        progress: called with the number of sections done.

    Raises:
        Exist: the checkpoint exists.
        CheckpointError: the cluster refused something, or does not answer; some sections may be
            there.
    """
    with service.open(name, create=exported.attributes) as checkpoint:
        if not checkpoint.created and not resume:
            raise Exist(f"checkpoint {name!r} exists")
        attributes = checkpoint.attributes
        if attributes.collocated and attributes.update != "all":
            checkpoint.active_replica_set()
        return _import(checkpoint, exported, replace=not checkpoint.created, progress=progress)


def _import(
    checkpoint: Checkpoint,
    exported: Exported,
    *,
    replace: bool,
    progress: Callable[[int], object],
) -> Imported:
    done, expired = 0, 0
    revision: int | None = None
    batch: list[ExportedSection] = []
    size = 0

    def write() -> None:
        nonlocal revision, size
        if not batch:
            return
        with checkpoint.transaction() as transaction:
            for section in batch:
                if section.id == b"":  # the section that such a checkpoint has always
                    transaction.overwrite(b"", section.data)
                    continue
                if replace:
                    transaction.put(section.id, b"")
                    transaction.delete(section.id)
                expires = section.expires_ns
                transaction.create(
                    section.id,
                    section.data,
                    expires=None if expires is None else Nanoseconds(expires),
                )
        revision = transaction.revision
        batch.clear()
        size = 0
        progress(done)

    for section in exported.sections:
        soon = time.time_ns() + _SOON_NS
        if section.expires_ns is not None and section.expires_ns <= soon:
            expired += 1
            continue
        done += 1
        rest = section.data[_PIECE_BYTES:]
        batch.append(section._replace(data=section.data[:_PIECE_BYTES]))
        size += len(batch[-1].data)
        if len(batch) == _BATCH_SECTIONS or size >= _BATCH_BYTES:
            write()
        for at in range(0, len(rest), _PIECE_BYTES):
            write()
            piece = rest[at : at + _PIECE_BYTES]
            checkpoint.write(section.id, piece, _PIECE_BYTES + at)
    write()
    if checkpoint.attributes.update != "all":
        revision = checkpoint.synchronize()
    return Imported(done, expired, revision)

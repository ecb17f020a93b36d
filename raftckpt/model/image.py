"""Images: the state as bytes, canonical and complete.

An image is a sequence of msgpack objects:

    header      ["raftckpt image", version, [now, revision, index, chain, next session, next uid,
                 last number of groups], checkpoints, sessions, groups], and if limits were set
                 [full, [[name, value], ...]]
    checkpoint  head, then its sections in groups [[id, data, expiration, update, revision], ...];
                data of more than one page is the number of its pages, which follow the group
    session     head, then results in groups [[code, value], ...], then for each stage its pages
    group       [name, admin, active, epoch, previous, cause, transition, successor,
                 components, failed components]
    access      [on, revision, last number, principals, spaces, [[session, principal], ...]], only
                if anybody ever changed it; the header says so by a seventh field, 1. A space is
                [prefix, grants], and if it has quotas [[name, most], ...]
    trailer     ["end", SHA-256 of everything before]

Canonical: equal histories make equal images, byte by byte, in every process. Checkpoints and
sessions come in the order of their numbers. Sections come newest first: the order of a dict is the
order of insertion, which is a function of history and which loading restores, while sorting a
million ids would hold the loop for a second. Newest first because then the frozen copy can be
taken apart from its end while it is encoded, and is gone when the image is finished.

What can be computed is not stored: opener counts, memory used, what is used of quotas, the due
index, fences, and what is left of the flags with which a handle was opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Final

import msgpack

from raftckpt.limits import KIB, MIB
from raftckpt.model import image_access, image_groups
from raftckpt.model.checkpoints import CREATE, WANTED, Checkpoint, Section
from raftckpt.model.expiry import RETENTION
from raftckpt.model.lifecycle import refuse_attributes
from raftckpt.model.order import SortedNames
from raftckpt.model.replies import ReplyTable
from raftckpt.model.sessions import HANDLE_BYTES, SESSION_BYTES, Session
from raftckpt.model.state import State
from raftckpt.model.types import CreationAttributes, Refused, Result
from raftckpt.model.values import PageBuilder, Pages, Value
from raftckpt.protocol import kinds as k
from raftckpt.protocol.contract import (
    CORRUPTED_SECTIONS_MAX,
    PAGE_BYTES,
    SA_TIME_MAX,
    SECTION_BYTES_MAX,
    SESSION_SECRET_BYTES,
)
from raftckpt.protocol.frames import no_extension, no_map
from raftckpt.protocol.kinds import fits, has_types
from raftckpt.version import IMAGE_VERSION

__all__ = ["digest", "encode_image", "load_image"]

_MAGIC: Final = "raftckpt image"
_END: Final = "end"
_PIECE_BYTES: Final = 128 * KIB
"""A group of sections is closed when it has this size."""
_ROW_BYTES: Final = 48
"""Rough cost of a section beside its id and data."""
_GROUP: Final = 64
"""Results per group; one may carry a checkpoint's name."""
_FEED_BYTES: Final = 256 * KIB
"""Also what is hashed and decoded before the loop has its turn. Half or double is the same work in
more turns or fewer."""
_OBJECT_BYTES_MAX: Final = 8 * MIB
"""Of one object in it, so that a damaged length is not allocated. The longest are the rights, whose
number is bounded so that they fit (``contract.GRANTS_MAX``)."""
_TRAILER_BYTES: Final = len(msgpack.packb([_END, bytes(32)], use_bin_type=True))

_INT: Final = (int,)
_STR: Final = (str,)
_BYTES: Final = (bytes,)
_BOOL: Final = (bool,)
_LIST: Final = (list,)
_NONE: Final = type(None)
_HEADER: Final = (_STR, _INT, _LIST, _INT, _INT, _INT)
_INLINE_ROW: Final = (bytes, bytes, int, int, int)
_PAGED_ROW: Final = (bytes, int, int, int, int)


def digest(pieces: Iterable[bytes]) -> str:
    """SHA-256 (hex) over an image; equal for equal states, however it is cut into pieces."""
    total = sha256()
    for piece in pieces:
        total.update(piece)
    return total.hexdigest()


# --- encoding ------------------------------------------------------------------------------------


def encode_image(state: State, *, secrets: bool = True) -> Iterator[bytes]:
    """Freeze ``state`` now; the returned iterator encodes it in pieces of at most 256 KiB.

    Without ``secrets``, for files that leave the cluster, those of sessions are their numbers.

    Freezing copies a dict per checkpoint and the small rest: about 15 ms for a million sections.
    """
    counters = [
        state.now_ns,
        state.revision,
        state.applied_index,
        state.chain,
        state.next_session,
        state.next_uid,
        state.groups.last,
    ]
    sizes = (len(state.checkpoints), len(state.sessions), len(state.groups.by_name))
    header = [_MAGIC, IMAGE_VERSION, counters, *sizes]
    access = image_access.frozen(state)
    if access is not None:
        header.append(1)
    if state.bounds.given:
        header.append([state.bounds.full, sorted(state.bounds.given.items())])
    checkpoints = [
        (_checkpoint_head(checkpoint), checkpoint.sections.copy())
        for checkpoint in state.checkpoints.values()
    ]
    sessions = [_freeze_session(session, secrets) for session in state.sessions.values()]
    groups = [image_groups.frozen(group) for group in state.groups.by_name.values()]
    return _encode(header, checkpoints, sessions, groups if access is None else [*groups, access])


def _checkpoint_head(checkpoint: Checkpoint) -> tuple[Any, ...]:
    return (
        checkpoint.uid,
        checkpoint.name,
        checkpoint.attributes,
        checkpoint.created_ns,
        checkpoint.revision,
        checkpoint.active,
        checkpoint.owner,
        checkpoint.epoch,
        checkpoint.exclusive,
        checkpoint.unlinked,
        checkpoint.retention_until_ns,
        checkpoint.generated,
        sorted(checkpoint.corrupted),
        len(checkpoint.sections),
    )


_Frozen = tuple[tuple[Any, ...], list[Result], list[tuple[bytes, ...]]]


def _freeze_session(session: Session, secrets: bool) -> _Frozen:
    handles = [
        (handle, opened[0].uid, opened[1] >> WANTED) for handle, opened in session.handles.items()
    ]
    stages = [(number, stage.frozen()) for number, stage in session.stages.items()]
    results = session.replies.results()
    head = (
        session.id,
        session.secret if secrets else session.id.to_bytes(SESSION_SECRET_BYTES, "big"),
        session.name,
        session.node,
        session.timeout_ns,
        session.grace_ns,
        session.next_handle,
        session.replies.last,
        session.replies.answered,
        handles,
        len(results),
        [(number, len(pages)) for number, pages in stages],
    )
    return head, results, [pages for _, pages in stages]


def _encode(
    header: list[Any],
    checkpoints: list[tuple[tuple[Any, ...], dict[bytes, Section]]],
    sessions: list[_Frozen],
    groups: list[tuple[Any, ...]],
) -> Iterator[bytes]:
    total = sha256()
    pack = msgpack.Packer(use_bin_type=True).pack
    pending = bytearray(pack(header))
    for part in _parts(pack, checkpoints, sessions, groups):
        if len(pending) + len(part) > _FEED_BYTES:
            piece = bytes(pending)
            total.update(piece)
            yield piece
            pending.clear()
        pending += part
    total.update(pending)
    yield bytes(pending) + pack([_END, total.digest()])


def _parts(
    pack: Callable[[Any], bytes],
    checkpoints: list[tuple[tuple[Any, ...], dict[bytes, Section]]],
    sessions: list[_Frozen],
    groups: list[tuple[Any, ...]],
) -> Iterator[bytes]:
    """Encode the objects; a frozen thing is let go as soon as it is encoded."""
    checkpoints.reverse()
    while checkpoints:
        head, sections = checkpoints.pop()
        yield pack(head)
        while sections:
            rows, paged = _take_rows(sections)
            yield pack(rows)
            for pages in paged:
                for page in pages:
                    yield pack(page)
    for head, results, stages in sessions:
        yield pack(head)
        for at in range(0, len(results), _GROUP):
            yield pack(results[at : at + _GROUP])
        for pages in stages:
            for page in pages:
                yield pack(page)
    for group in groups:
        yield pack(group)


def _take_rows(sections: dict[bytes, Section]) -> tuple[list[Any], list[tuple[bytes, ...]]]:
    """Remove the newest sections from a frozen table, about a piece of them."""
    rows: list[tuple[bytes, bytes | int, int, int, int]] = []
    paged: list[tuple[bytes, ...]] = []
    size = 0
    pop = sections.popitem
    while sections and size < _PIECE_BYTES:
        section_id, (data, expiration_ns, updated_ns, revision) = pop()
        if isinstance(data, Pages):
            paged.append(data.pages)
            rows.append((section_id, len(data.pages), expiration_ns, updated_ns, revision))
            size += _ROW_BYTES + len(section_id)
        else:
            rows.append((section_id, data, expiration_ns, updated_ns, revision))
            size += _ROW_BYTES + len(section_id) + len(data)
    return rows, paged


# --- decoding ------------------------------------------------------------------------------------


def _need(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(f"damaged image: {what}")


class _Reader:
    """The objects of an image, and the check of its trailer."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._total = sha256()
        self._held = b""
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=False,
            use_list=True,
            max_buffer_size=_OBJECT_BYTES_MAX,
            max_map_len=0,
            max_ext_len=0,
            object_pairs_hook=no_map,
            ext_hook=no_extension,
        )
        self._feed = self._chunks()

    def _chunks(self) -> Iterator[None]:
        """Feed the unpacker; the digest covers all but the last bytes, which are the trailer."""
        for piece in self._pieces:
            for at in range(0, len(piece), _FEED_BYTES):
                chunk = bytes(piece[at : at + _FEED_BYTES])
                data = self._held + chunk
                self._total.update(data[:-_TRAILER_BYTES])
                self._held = data[-_TRAILER_BYTES:]
                self._unpacker.feed(chunk)
                yield

    def object(self) -> Any:
        """Return the next object."""
        while True:
            try:
                return self._unpacker.unpack()
            except msgpack.OutOfData:
                _need(next(self._feed, self) is None, "it is truncated")

    def fields(self, *kinds: tuple[type, ...]) -> list[Any]:
        """Return the next object, an array of these kinds."""
        found: list[Any] = self.object()
        _need(has_types(found, *kinds), "an object of another kind was expected")
        return found

    def header(self) -> list[Any]:
        """Return the first object: six fields, whether access follows, and the limits (or None)."""
        found: Any = self.object()
        _need(type(found) is list and len(found) >= len(_HEADER), "a header was expected")
        bounds = found.pop() if type(found[-1]) is list else None
        access = 0
        if len(found) > len(_HEADER):
            access = found.pop()
            _need(access == 1, "a header was expected")
        _need(has_types(found, *_HEADER), "a header was expected")
        return [*found, access, bounds]

    def page(self, size: int | None = None) -> bytes:
        """Return the next object, a page."""
        found = self.object()
        _need(type(found) is bytes and 0 < len(found) <= PAGE_BYTES, "a page was expected")
        _need(size is None or len(found) == size, "a page inside a value is not full")
        page: bytes = found
        return page

    def finish(self) -> None:
        """Check the trailer and that nothing follows."""
        end, expected = self.fields(_STR, _BYTES)
        for _ in self._feed:
            pass
        found = self._total.digest()
        _need(self._held == msgpack.packb([_END, found], use_bin_type=True), "the digest differs")
        _need(end == _END and expected == found, "the trailer is not the end")


def load_image(state: State, pieces: Iterable[bytes]) -> None:
    """Fill the empty ``state`` from an image.

    Raises:
        ValueError: the image is malformed, truncated, longer than it says, contradicts itself or
            is of an unknown version. ``state`` is useless then.
    """
    try:
        _load(state, _Reader(pieces))
    except ValueError:
        raise
    except (TypeError, LookupError, OverflowError, msgpack.UnpackException) as error:
        raise ValueError(f"damaged image: {error}") from error


def _load(state: State, reader: _Reader) -> None:
    magic, version, counters, checkpoints, sessions, groups, access, bounds = reader.header()
    _need(magic == _MAGIC, "it is no image")
    if version != IMAGE_VERSION:
        raise ValueError(f"image of version {version}; this replica knows {IMAGE_VERSION}")
    _need(has_types(counters, *[_INT] * 7) and min(counters) >= 0, "counters")
    (
        state.now_ns,
        state.revision,
        state.applied_index,
        state.chain,
        state.next_session,
        state.next_uid,
        state.groups.last,
    ) = counters
    _need(state.now_ns <= SA_TIME_MAX and state.chain < 1 << 32, "counters")
    if bounds is not None:
        _load_bounds(state, bounds)
    before = 0
    for _ in range(checkpoints):
        before = _load_checkpoint(state, reader, before)
    state.order = SortedNames(state.names)
    before = 0
    for _ in range(sessions):
        before = _load_session(state, reader, before)
    for checkpoint in state.checkpoints.values():
        _need(
            bool(checkpoint.openers) == (checkpoint.retention_until_ns is None),
            "retention and openers of a checkpoint",
        )
    for _ in range(groups):
        image_groups.load(state, reader.object())
    if access:
        image_access.load(state, reader.object())
    reader.finish()


def _load_bounds(state: State, found: Any) -> None:
    _need(has_types(found, _BOOL, _LIST) and found[1], "the limits")
    full, rows = found
    _need(all(has_types(row, _STR, _INT) for row in rows), "the limits")
    names = [name for name, _ in rows]
    _need(names == sorted(set(names)) and state.bounds.change(rows) is None, "the limits")
    _need(not full or "memory" in names, "full without a limit")
    state.bounds.full = full


def _load_checkpoint(state: State, reader: _Reader, before: int) -> int:
    """Read the checkpoint that follows the one with uid ``before``; returns its uid."""
    fields = reader.fields(
        _INT, _STR, _LIST, _INT, _INT, (list, _NONE), _INT, _INT, _BOOL, _BOOL, (int, _NONE),
        _INT, _LIST, _INT,
    )  # fmt: skip
    uid, name, attributes, created_ns, revision, active = fields[:6]
    owner, epoch, exclusive, unlinked, retention_until_ns, generated, corrupted, count = fields[6:]
    _need(before < uid < state.next_uid, "order of checkpoints")
    _check_open([name, attributes])
    _need(unlinked or name not in state.names, "two checkpoints of one name")
    _need(0 < revision <= state.revision and created_ns >= 0, "a checkpoint's revision")
    _need(active is None or has_types(active, _INT, _STR), "an active replica")
    _need(min(owner, epoch, generated, count) >= 0, "a negative number")
    checkpoint = Checkpoint(uid, name, CreationAttributes._make(attributes), created_ns, revision)
    checkpoint.active = None if active is None else (active[0], active[1])
    checkpoint.owner = owner
    checkpoint.epoch = epoch
    checkpoint.exclusive = exclusive
    checkpoint.unlinked = unlinked
    checkpoint.retention_until_ns = retention_until_ns
    checkpoint.generated = generated
    _load_sections(state, checkpoint, reader, count)
    checkpoint.corrupted = frozenset(corrupted)
    _need(checkpoint.corrupted <= checkpoint.sections.keys(), "a corrupted section that is none")
    _need(
        len(corrupted) <= CORRUPTED_SECTIONS_MAX and corrupted == sorted(checkpoint.corrupted),
        "the corrupted sections",
    )
    checkpoint.regard()
    state.take_on(checkpoint)
    if not unlinked:
        state.names[name] = checkpoint
    if retention_until_ns is not None:
        _need(not unlinked and 0 <= retention_until_ns <= SA_TIME_MAX, "a retention")
        if retention_until_ns < SA_TIME_MAX:
            state.due.schedule(retention_until_ns, uid, RETENTION)
    return checkpoint.uid


def _check_open(fields: list[Any]) -> None:
    """Names and attributes obey the rules of the open that created the checkpoint."""
    name, attributes = fields
    _need(fits(k.Name, name) and fits(k.AttributeFields, attributes), "name or attributes")
    _need(refuse_attributes(CREATE, attributes) is None, "attributes")


def _load_sections(state: State, checkpoint: Checkpoint, reader: _Reader, count: int) -> None:
    """Read the sections; a million of them, so the checks of a row are one expression."""
    _need(count <= checkpoint.attributes.max_sections, "too many sections")
    default = checkpoint.has_default_section
    _need(count == 1 or not default, "the default section")
    shortest, longest = (0, 0) if default else (1, checkpoint.attributes.max_section_id_size)
    soonest = SA_TIME_MAX if default else 0
    now_ns, newest, limit = state.now_ns, state.revision, checkpoint.section_limit
    newest_first: list[tuple[bytes, Section]] = []
    while len(newest_first) < count:
        rows = reader.object()
        _need(type(rows) is list and rows, "sections were expected")
        for row in rows:
            kinds = tuple(map(type, row))
            inline = kinds == _INLINE_ROW
            if not (inline or kinds == _PAGED_ROW):
                raise ValueError("damaged image: a section was expected")
            section_id, value, expiration_ns, updated_ns, revision = row
            if not inline:
                value = _load_pages(reader, value)
            elif len(value) > PAGE_BYTES:
                raise ValueError("damaged image: a section without pages")
            if not (
                shortest <= len(section_id) <= longest
                and len(value) <= limit
                and soonest <= expiration_ns <= SA_TIME_MAX
                and 0 <= updated_ns <= now_ns
                and 0 < revision <= newest
            ):
                raise ValueError("damaged image: a section is out of range")
            newest_first.append((section_id, (value, expiration_ns, updated_ns, revision)))
            checkpoint.memory_used += len(value)
            if expiration_ns < SA_TIME_MAX:
                state.due.schedule(expiration_ns, checkpoint.uid, section_id)
    newest_first.reverse()
    checkpoint.sections = dict(newest_first)
    _need(len(checkpoint.sections) == count == len(newest_first), "number of sections")


def _load_pages(reader: _Reader, count: int) -> Value:
    _need(1 < count <= SECTION_BYTES_MAX // PAGE_BYTES, "number of pages")
    pages = [reader.page(PAGE_BYTES) for _ in range(count - 1)]
    pages.append(reader.page())
    return Pages(tuple(pages), sum(map(len, pages)))


def _load_session(state: State, reader: _Reader, before: int) -> int:
    """Read the session that follows the one numbered ``before``; returns its number."""
    fields = reader.fields(
        _INT, _BYTES, _STR, _STR, _INT, _INT, _INT, _INT, _INT, _LIST, _INT, _LIST
    )
    number, secret, name, node, timeout_ns, grace_ns = fields[:6]
    next_handle, last, answered, handles, results, stages = fields[6:]
    _need(before < number < state.next_session, "order of sessions")
    _need(len(secret) == SESSION_SECRET_BYTES, "a secret")
    _need(secret not in state.by_secret, "a secret twice")
    _need(fits(k.SessionName, name) and fits(k.NodeName, node), "names of a session")
    _need(fits(k.SessionTime, timeout_ns) and fits(k.Grace, grace_ns), "times of a session")
    _need(0 <= answered <= last and results == last - answered, "a reply table")
    session = Session(number, secret, name, node, timeout_ns, grace_ns)
    session.next_handle = next_handle
    _load_handles(state, session, handles)
    session.replies = ReplyTable(last, answered, _load_results(reader, results))
    for row in stages:
        _need(has_types(row, _INT, _INT) and row[0] not in session.stages, "a stage")
        session.stages[row[0]] = _load_stage(reader, row[1])
        session.staged_bytes += session.stages[row[0]].size
    state.staged_bytes += session.staged_bytes
    state.footprint += SESSION_BYTES + session.replies.bytes + HANDLE_BYTES * len(session.handles)
    state.sessions[number] = session
    state.by_secret[secret] = number
    return session.id


def _load_handles(state: State, session: Session, handles: Sequence[Any]) -> None:
    before = 0
    for row in handles:
        _need(has_types(row, _INT, _INT, _INT), "a handle")
        handle, uid, flags = row
        _need(before < handle < session.next_handle and flags & 7 and not flags & ~0x17, "a handle")
        before = handle
        checkpoint = state.checkpoints[uid]
        flags |= flags << WANTED
        session.handles[handle] = (checkpoint, flags)
        checkpoint.enter(session.id, session.node, flags)


def _load_results(reader: _Reader, count: int) -> list[Result]:
    results: list[Result] = []
    while len(results) < count:
        rows = reader.object()
        _need(type(rows) is list and rows, "results were expected")
        for row in rows:
            _need(type(row) is list and len(row) == 2 and type(row[0]) is int, "a result")
            code, value = row
            if code != 1:
                _need(has_types(value, _STR, (type(value[1]),), (int, _NONE)), "a refusal")
                value = Refused(*value)
            results.append(Result(code, value))
    _need(len(results) == count, "more results than announced")
    return results


def _load_stage(reader: _Reader, pages: int) -> PageBuilder:
    stage = PageBuilder()
    for number in range(pages):
        stage.append(reader.page(None if number == pages - 1 else PAGE_BYTES))
    return stage

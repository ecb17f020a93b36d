"""Contents of sections: plain bytes while small, immutable pages shared on write when large.

This module owns the representation and nothing else: no limits, no errors. Invariants:

* a stored value of at most ``PAGE_BYTES`` is ``bytes``, a longer one is :class:`Pages` of full
  pages and a last page of 1..``PAGE_BYTES`` bytes, so equal contents have equal representations
  and therefore equal images;
* nothing here is ever changed in place: a write makes new pages for what it touches and shares the
  rest, so a frozen state stays what it was and 100 bytes into 64 MiB cost one page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeAlias

from raftckpt.protocol.contract import PAGE_BYTES

__all__ = [
    "Frozen",
    "Listing",
    "PageBuilder",
    "PageOf",
    "Pages",
    "Value",
    "cut",
    "join",
    "share",
    "store",
    "write_at",
]

_ZERO_PAGE: Final = bytes(PAGE_BYTES)
_SHARE_FROM_BYTES: Final = 4096
"""A copy of less costs no more than what describes a cut that shares."""
_CHOSEN_PER_STEP: Final = 2048
"""Rows looked at, then the loop has its turn: about a millisecond."""


class Frozen:
    """Sections as they were: a copy of the dict that all listings of one state have in common.

    It can be referred to weakly, which a dict cannot.
    """

    __slots__ = ("__weakref__", "sections")

    def __init__(self, sections: Mapping[bytes, Any]) -> None:
        self.sections = sections


class Listing:
    """Rows of many sections, each made when it is asked for: a million would hold the loop.

    Arguments:
        frozen: the sections; nobody changes them any more.
        row: makes a row.
        choose: which sections have a row; None: all.
    """

    __slots__ = ("_choose", "_chosen", "_frozen", "_row")

    def __init__(
        self,
        frozen: Frozen,
        row: Callable[[bytes, Any], Any],
        choose: Callable[[bytes, Any], bool] | None = None,
    ) -> None:
        self._frozen = frozen
        self._row = row
        self._choose = choose
        self._chosen: list[bytes] | None = None

    def __len__(self) -> int:
        """Rows; the most there can be, as long as ``prepare`` is not through."""
        return len(self._frozen.sections if self._chosen is None else self._chosen)

    def prepare(self) -> Iterator[None]:
        """Choose, in short steps: the number of rows must be known before the first one."""
        choose = self._choose
        if choose is None:
            return
        chosen: list[bytes] = []
        items = iter(self._frozen.sections.items())
        while some := list(islice(items, _CHOSEN_PER_STEP)):
            chosen += [section_id for section_id, section in some if choose(section_id, section)]
            yield
        self._chosen = chosen

    def rows(self) -> Iterator[Any]:
        """Yield the rows, in the order of the sections."""
        row, sections = self._row, self._frozen.sections
        if self._chosen is None:
            for section_id, section in sections.items():
                yield row(section_id, section)
        else:
            for section_id in self._chosen:
                yield row(section_id, sections[section_id])


class PageOf(Listing):
    """The first rows behind an id, in the order of the ids, found in short steps.

    Arguments:
        frozen: the sections; nobody changes them any more.
        row: makes a row.
        first: the least id that may be on the page.
        beyond: what all its ids are less than; None: any may be on it.
        limit: most rows.
    """

    __slots__ = ("_beyond", "_first", "_limit")

    def __init__(
        self,
        frozen: Frozen,
        row: Callable[[bytes, Any], Any],
        first: bytes,
        beyond: bytes | None,
        limit: int,
    ) -> None:
        super().__init__(frozen, row)
        self._first = first
        self._beyond = beyond
        self._limit = limit

    def prepare(self) -> Iterator[None]:
        """Find the ids: the smallest of each step and of all before it."""
        page: list[bytes] = []
        first, beyond, limit = self._first, self._beyond, self._limit
        ids = iter(self._frozen.sections)
        while some := list(islice(ids, _CHOSEN_PER_STEP)):
            if beyond is None:
                found = [section_id for section_id in some if first <= section_id]
            else:
                found = [section_id for section_id in some if first <= section_id < beyond]
            if found:
                page += found
                page.sort()  # nearly sorted already
                del page[limit:]
                if len(page) == limit:
                    beyond = page[-1]  # what is not less has no chance any more
            yield
        self._chosen = page


class Pages:
    """An immutable value of more than ``PAGE_BYTES`` bytes, or a large cut of one.

    Attributes:
        pages: the pages; all are full but perhaps the last.
        start: bytes to skip in the first page (0 in stored values).
        size: length in bytes.
    """

    __slots__ = ("pages", "size", "start")

    def __init__(self, pages: tuple[bytes, ...], size: int, start: int = 0) -> None:
        self.pages = pages
        self.size = size
        self.start = start

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Pages):
            return self.size == other.size and bytes(self) == bytes(other)
        if isinstance(other, bytes):
            return self.size == len(other) and bytes(self) == other
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Pages({self.size} bytes)"

    def pieces(self) -> Iterator[bytes]:
        """Yield the contents in pieces of at most ``PAGE_BYTES``, without joining them."""
        start, left = self.start, self.size
        for page in self.pages:
            piece = page if not start and len(page) <= left else page[start : start + left]
            start = 0
            left -= len(piece)
            yield piece


Value: TypeAlias = bytes | Pages
"""What a section holds, and what a read returns."""


def store(data: Value) -> Value:
    """Bring ``data`` into the form in which it is kept."""
    if len(data) <= PAGE_BYTES or isinstance(data, Pages):
        return data
    builder = PageBuilder()
    builder.append(data)
    return builder.value()


def join(value: Value) -> bytes:
    """Return the contents as one bytes object (copies a large value)."""
    return bytes(value)


def cut(value: Value, offset: int, size: int) -> Value:
    """Return ``value[offset : offset + size]``; ``offset`` must lie within the value.

    A cut of more than ``PAGE_BYTES`` shares the pages of the value.
    """
    size = min(size, len(value) - offset)
    if isinstance(value, bytes):
        return value if size == len(value) else value[offset : offset + size]
    if size == value.size:
        return value
    first, start = divmod(offset, PAGE_BYTES)
    last = -(-(offset + size) // PAGE_BYTES)
    part = Pages(value.pages[first:last], size, start)
    return bytes(part) if size <= PAGE_BYTES else part


def share(value: Value, offset: int, size: int) -> Value:
    """Return what ``cut`` does, sharing the pages of ``value`` unless it is a matter of a few KiB.

    For answers: thousands of pipelined reads of one section cost no copy of it each.
    """
    size = min(size, len(value) - offset)
    if size < _SHARE_FROM_BYTES or size == len(value):
        return cut(value, offset, size)
    if isinstance(value, bytes):
        return Pages((value,), size, offset)
    first, start = divmod(offset, PAGE_BYTES)
    return Pages(value.pages[first : -(-(offset + size) // PAGE_BYTES)], size, start)


def write_at(value: Value, offset: int, data: Value) -> Value:
    """Return ``value`` with ``data`` written at ``offset``; a gap beyond the end is zero-filled.

    The result is never shorter than ``value``; it has at least ``offset + len(data)`` bytes.
    """
    size = len(value)
    end = offset + len(data)
    if isinstance(value, bytes) and isinstance(data, bytes) and size <= PAGE_BYTES >= end:
        if offset >= size:
            return value + bytes(offset - size) + data
        view = memoryview(value)
        return b"".join((view[:offset], data, view[end:]))
    pages = [value] if isinstance(value, bytes) else list(value.pages)
    if end > size:
        _grow(pages, end)
    at = offset
    for piece in (data,) if isinstance(data, bytes) else data.pieces():
        _write_piece(pages, at, piece)
        at += len(piece)
    return Pages(tuple(pages), max(size, end))


def _grow(pages: list[bytes], size: int) -> None:
    """Lengthen by zeros to ``size`` bytes (more than one page)."""
    count = -(-size // PAGE_BYTES)
    if len(pages) < count:
        pages[-1] += bytes(PAGE_BYTES - len(pages[-1]))
        pages += [_ZERO_PAGE] * (count - len(pages))
        pages[-1] = bytes(size - (count - 1) * PAGE_BYTES)
    else:
        pages[-1] += bytes(size - (count - 1) * PAGE_BYTES - len(pages[-1]))


def _write_piece(pages: list[bytes], offset: int, data: bytes) -> None:
    """Replace what ``data`` covers, which lies within the pages; whole pages are not copied."""
    view = memoryview(data)
    done = 0
    while done < len(data):
        number, at = divmod(offset + done, PAGE_BYTES)
        page = pages[number]
        part = view[done : done + len(page) - at]
        if len(part) == len(page):
            pages[number] = data if len(part) == len(data) else bytes(part)
        else:
            old = memoryview(page)
            pages[number] = b"".join((old[:at], part, old[at + len(part) :]))
        done += len(part)


class PageBuilder:
    """A value that arrives in chunks (a stage); only what is appended is copied, once."""

    __slots__ = ("pages", "size", "tail")

    def __init__(self) -> None:
        self.pages: list[bytes] = []
        self.tail = b""
        self.size = 0

    def append(self, data: Value) -> None:
        """Append a chunk."""
        chunk = bytes(data)
        self.size += len(chunk)
        start = 0
        if self.tail:
            start = PAGE_BYTES - len(self.tail)
            self.tail += chunk[:start]
            if len(self.tail) < PAGE_BYTES:
                return
            self.pages.append(self.tail)
        full = start + (len(chunk) - start) // PAGE_BYTES * PAGE_BYTES
        self.pages += [chunk[at : at + PAGE_BYTES] for at in range(start, full, PAGE_BYTES)]
        self.tail = chunk[full:]

    def frozen(self) -> tuple[bytes, ...]:
        """Return the pages so far as they are, the last one perhaps partial."""
        return (*self.pages, self.tail) if self.tail else tuple(self.pages)

    def value(self) -> Value:
        """Return what was appended, in the form in which it is kept."""
        if self.size <= PAGE_BYTES:
            return self.pages[0] if self.pages else self.tail
        return Pages(self.frozen(), self.size)

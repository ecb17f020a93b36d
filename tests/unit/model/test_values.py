"""Values against a bytearray."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from raftckpt.model.values import PageBuilder, Pages, Value, cut, join, store, write_at
from raftckpt.protocol.contract import PAGE_BYTES

P = PAGE_BYTES
SIZES = st.one_of(
    st.integers(0, 60),
    st.builds(lambda n, d: max(0, n * P + d), st.integers(0, 4), st.integers(-2, 2)),
)
BLOCKS = st.builds(lambda fill, size: bytes([fill]) * size, st.integers(1, 255), SIZES)


def canonical(value: Value) -> bool:
    if isinstance(value, bytes):
        return len(value) <= P
    full = all(len(page) == P for page in value.pages[:-1])
    return (
        full
        and value.start == 0
        and 0 < len(value.pages[-1]) <= P
        and sum(map(len, value.pages)) == len(value) > P
    )


@settings(max_examples=150, deadline=None)
@given(BLOCKS, st.lists(st.tuples(SIZES, BLOCKS), max_size=5))
def test_writes_as_a_bytearray_would(start: bytes, writes: list[tuple[int, bytes]]) -> None:
    value = store(start)
    plain = bytearray(start)
    history = [(value, bytes(plain))]
    for number, (offset, data) in enumerate(writes):
        value = write_at(value, offset, store(data) if number % 2 else data)
        if offset > len(plain):
            plain.extend(bytes(offset - len(plain)))
        plain[offset : offset + len(data)] = data
        assert canonical(value)
        history.append((value, bytes(plain)))
    for old, expected in history:  # nothing was changed in place
        assert join(old) == expected


@settings(max_examples=150, deadline=None)
@given(SIZES, SIZES, SIZES)
def test_cuts_as_a_slice_would(size: int, offset: int, length: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    offset = min(offset, size)
    part = cut(store(data), offset, length)
    expected = data[offset : offset + length]
    assert bytes(part) == expected
    assert len(part) == len(expected)
    assert isinstance(part, bytes) == (len(expected) <= P)
    if isinstance(part, Pages):
        assert all(len(piece) <= P for piece in part.pieces())


@settings(max_examples=100, deadline=None)
@given(st.lists(BLOCKS, max_size=5))
def test_builder_joins_chunks(chunks: list[bytes]) -> None:
    builder = PageBuilder()
    for chunk in chunks:
        builder.append(chunk)
    value = builder.value()
    assert bytes(value) == b"".join(chunks)
    assert builder.size == len(value)
    assert canonical(value)


def test_small_write_shares_all_other_pages() -> None:
    value = store(bytes(16 * P))
    assert isinstance(value, Pages)
    after = write_at(value, 3 * P + 5, b"x" * 100)
    assert isinstance(after, Pages)
    same = [a is b for a, b in zip(value.pages, after.pages, strict=True)]
    assert same == [k != 3 for k in range(16)]


def test_growth_by_zeros_shares_one_page() -> None:
    value = write_at(b"x", 100 * P, b"end")
    assert isinstance(value, Pages)
    assert len({id(page) for page in value.pages[1:-1]}) == 1


def test_pages_compare_by_content() -> None:
    data = bytes(range(256)) * 1024
    assert store(data) == data
    assert store(data) == store(data)
    assert cut(store(data), 256, P * 2) == store(data[: P * 2])
    assert store(data) != store(data + b"x")
    assert store(data) != data[:-1]
    assert store(data) != 7
    assert repr(store(data)) == "Pages(262144 bytes)"
    with pytest.raises(TypeError):
        hash(store(data))

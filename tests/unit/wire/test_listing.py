"""A long listing is encoded row by row and reads like the list it stands for."""

from __future__ import annotations

import msgpack
import pytest

from raftckpt.model.values import Frozen, Listing, store
from raftckpt.wire.frames import FrameDecoder, pack_pieces, reply_frames

SECTIONS = {b"%d" % i: (store(b"x" * (i % 7)), i) for i in range(5000)} | {
    b"large": (store(b"y" * 300_000), 1)
}


@pytest.mark.parametrize(
    ("row", "plain"),
    [
        (lambda key, section: key, list(SECTIONS)),
        (
            lambda key, section: [key, section[0]],
            [
                [k, s[0] if isinstance(s[0], bytes) else b"".join(s[0].pieces())]
                for k, s in SECTIONS.items()
            ],
        ),
    ],
)
def test_rows_become_one_array(row, plain):
    pieces = list(pack_pieces([7, Listing(Frozen(SECTIONS), row)]))
    assert msgpack.unpackb(b"".join(pieces), max_bin_len=1 << 20) == [7, plain]
    assert max(map(len, pieces)) <= 64 * 1024 + 16, "no piece holds the loop"


def test_a_listing_is_made_while_it_is_sent():
    made = []

    def row(key, section):
        made.append(key)
        return key

    frames = reply_frames([0, 1, 1, [7, Listing(Frozen(SECTIONS), row)]], 1024)
    FrameDecoder().feed(next(frames))
    assert 0 < len(made) < 1000

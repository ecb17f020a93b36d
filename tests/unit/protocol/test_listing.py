"""A long listing is encoded row by row and reads like the list it stands for."""

from __future__ import annotations

import weakref
from itertools import islice, pairwise

import msgpack
import pytest

from raftckpt.model import queries
from raftckpt.model.values import Frozen, Listing, Pages, share, store
from raftckpt.protocol.frames import (
    FrameDecoder,
    MessageStream,
    message_frames,
    pack_messages,
    pack_pieces,
    reply_frames,
    try_pack,
)
from tests.messages import ask
from tests.unit.model.driver import NEVER, SECOND, DrivenMachine, DrivenSession, attributes

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


# --- what the model makes of queries --------------------------------------------------------------
COUNT = 5000


@pytest.fixture
def client() -> DrivenSession:
    """A session with a checkpoint "x" (handle 1); every third of its sections expires."""
    client = DrivenMachine().session()
    client.open("x", fields=attributes(sections=2 * COUNT, section_id=16))
    for i in range(COUNT):
        expiration = client.cluster.now + (i + 1) * SECOND if not i % 3 else NEVER
        assert client.create(1, b"s%05d" % i, b"", expiration).ok
    return client


def unpacked(value):
    return msgpack.unpackb(b"".join(pack_pieces(value)), max_bin_len=1 << 20)


def test_listings_of_one_state_share_one_copy_that_goes_with_them(client):
    cluster = client.cluster
    values = [client.ask(tag, 1, *args).value[1] for tag, *args in KINDS]
    values += [ask(cluster.machine, None, 106, "x").value[1]]
    copies = {id(value._frozen): weakref.ref(value._frozen) for value in values}
    assert len(copies) == 1
    (copy,) = copies.values()
    client.put(1, b"s00000", b"changed")
    later = client.ask(101, 1).value[1]
    assert later._frozen is not values[0]._frozen
    assert [bytes(row[1]) for row in islice(later.rows(), 2)] == [b"changed", b""]
    assert [row for row in values[-1].rows()][:1] == [b"s00000"]
    del values
    assert copy() is None, "nobody sends it any more"


def test_states_do_not_mix(client):
    other = DrivenMachine().session()
    other.open("x", fields=attributes(sections=2 * COUNT, section_id=16))
    for i in range(COUNT):
        assert other.create(1, b"t%05d" % i, b"").ok
    mine, others = client.ask(106, 1).value, other.ask(106, 1).value
    assert mine[0] == others[0], "equal uid, equal revision"
    assert next(mine[1].rows()) == b"s00000"
    assert next(others[1].rows()) == b"t00000"


KINDS = [(101,), (103, 1, 0), (103, 2, NEVER), (103, 3, 1_900 * SECOND), (103, 5, 0), (106,)]


@pytest.mark.parametrize(("tag", "args"), [(kind[0], kind[1:]) for kind in KINDS])
def test_a_listing_is_what_the_state_was(client, tag, args):
    now = client.cluster.now
    value = client.ask(tag, 1, *args).value
    before = unpacked(client.ask(tag, 1, *args).value)
    for i in range(0, COUNT, 7):
        assert client.do(21, 1, b"s%05d" % i).ok
    assert unpacked(value) == before
    ids = [row if tag == 106 else row[0] for row in before[1]]
    expires = {b"s%05d" % i: NEVER if i % 3 else now + (i + 1) * SECOND for i in range(COUNT)}
    chosen = args[0] if args else 5
    assert ids == [
        key
        for key, at in expires.items()
        if {
            1: at == NEVER,
            2: at <= (args or (0, 0))[1],
            3: at >= (args or (0, 0))[1],
            5: True,
        }[chosen]
    ]


def test_choosing_and_counting_return_to_the_loop(client):
    value = client.ask(103, 1, 1, 0).value
    steps = list(pack_pieces(value))
    header = next(i for i, piece in enumerate(steps) if piece[:1] in (b"\xdc", b"\xdd"))
    assert steps[:header].count(b"") == 3, "two thousand sections at most between two of them"
    empty = [i for i, piece in enumerate(steps) if not piece]
    assert max(b - a for a, b in pairwise([*empty, len(steps)])) <= 34
    frames = [frame for frame in reply_frames([0, 1, 1, value], 1024) if frame]
    assert MessageStream().feed(b"".join(frames)) == [[0, 1, 1, unpacked(value)]]
    assert client.ask(103, 1, 4, 0).value[1] == []


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 255, 257, 600])
def test_any_number_of_rows(count):
    rows = {b"%d" % i: i for i in range(count)}
    for row, expected in [
        (lambda key, number: key, list(rows)),
        (lambda key, number: (key, number), [[key, number] for key, number in rows.items()]),
        (
            lambda key, number: (key, [number] * 20 if number % 16 == 3 else None),
            [[key, [n] * 20 if n % 16 == 3 else None] for key, n in rows.items()],
        ),
    ]:
        assert unpacked(Listing(Frozen(rows), row)) == expected
    odd = Listing(Frozen(rows), lambda key, number: number, lambda key, number: bool(number % 2))
    assert len(odd) == count
    assert unpacked(odd) == list(range(1, count, 2))
    assert len(odd) == count // 2


def test_the_list_of_checkpoints_is_of_one_state_and_made_while_it_is_sent():
    cluster = DrivenMachine()
    clients = [cluster.session(name=f"app{i}") for i in range(3)]
    for i in range(600):
        for client in clients[: 1 + i % 3]:
            client.open(f"c{i}")
    machine = cluster.machine
    value = ask(machine, None, 104).value
    assert ask(machine, None, 104).value[1] is value[1], "shared while nothing happens"
    before = unpacked([row for row in value[1].rows()])
    assert before == unpacked([queries.describe(machine, c) for c in machine.checkpoints.values()])
    for handle in range(1, 300):
        assert clients[0].put(handle, b"k", b"data").ok
        assert clients[2].do(11, handle).ok is (handle <= 200)
    assert ask(machine, None, 104).value[1] is not value[1]
    assert unpacked(value[1]) == before
    assert len(before) == len(value[1]) == 600
    frames = list(reply_frames([0, 1, 1, value], 1024))
    assert b"" in frames
    assert MessageStream().feed(b"".join(frames)) == [[0, 1, 1, [value[0], before]]]


def test_an_answer_shares_the_section_it_is_cut_from():
    data = bytes(range(256)) * 200
    for size, offset, shares in [(50_000, 100, True), (4096, 1, True), (4095, 1, False)]:
        part = share(data, offset, size)
        assert part == data[offset : offset + size]
        assert isinstance(part, Pages) is shares
    assert share(data, 0, 1 << 30) is data
    large = store(data * 10)
    part = share(large, 70_001, 60_000)
    assert isinstance(part, Pages)
    assert part == (data * 10)[70_001:130_001]
    assert share(large, 70_001, 100) == (data * 10)[70_001:70_101]
    assert unpackb_message([0, 1, 1, [1, [part]]]) == [0, 1, 1, [1, [bytes(part)]]]


def unpackb_message(message):
    (got,) = MessageStream().feed(pack_messages([message]))
    assert [got] == MessageStream().feed(b"".join(message_frames([message])))
    return got


def test_messages_are_cut_to_frames_as_they_fit():
    messages = [[0, i, 1, b"x" * (i * 30_000)] for i in range(100)]
    frames = list(message_frames(messages))
    stream = MessageStream()
    assert [message for frame in frames for message in stream.feed(frame)] == messages
    whole = [frame for frame in frames if frame[8] == 0]
    assert 36 < len(whole) < 71, "neither one for each nor more than fits"
    assert try_pack(messages) is None
    with pytest.raises(TypeError):
        try_pack([[object()]])

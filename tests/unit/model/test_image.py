"""Images: complete, canonical, frozen when taken, strict when read."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

import msgpack
import pytest

from raftckpt.limits import KIB
from raftckpt.model.image import digest, load_image
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.state import State
from raftckpt.protocol.contract import PAGE_BYTES
from raftckpt.version import IMAGE_VERSION
from tests.messages import ask

from .driver import COLLOCATED, READ, SECOND, WEAK, WRITE, DrivenMachine, DrivenSession, attributes


def rich() -> tuple[DrivenMachine, list[DrivenSession]]:
    """A cluster that has one of everything."""
    cluster = DrivenMachine()
    one, two = cluster.session("n1", "one"), cluster.session("n2", "zwei ä")
    one.open("plain", fields=attributes(sections=9, section=5 * PAGE_BYTES))
    one.create(1, b"ttl", b"x", ttl=SECOND)
    one.put(1, b"big", bytes(range(256)) * 600)
    one.put(1, b"page", bytes(PAGE_BYTES))
    one.create(1, None, b"generated")
    one.do(27, 1, b"page")
    two.open("plain", READ)
    two.open("active", fields=attributes(WEAK | COLLOCATED))
    two.do(14, 2, True)
    one.open("default", WRITE | 4, attributes(sections=1))
    one.do(23, 2, b"", b"d")
    one.do(12, "default")
    one.do(11, one.open("kept", fields=attributes(retention=SECOND)))
    one.do(11, one.open("for ever"))
    two.do(26, 1, 0, bytes(PAGE_BYTES) + b"tail")
    two.do(26, 2, 0, b"small")
    two.do(26, 3, 0, b"")
    gone = cluster.session()
    gone.do(2)
    for sequence in (7, 8):  # unanswered results stay in the reply table
        cluster.apply([24, 2, two.sequence + sequence - 6, 2, 9, b"a", b""])
    two.sequence += 2
    return cluster, [one, two]


def image_of(machine: CheckpointMachine) -> bytes:
    return b"".join(machine.freeze())


def test_round_trip_in_pieces_of_any_size() -> None:
    cluster, _ = rich()
    image = image_of(cluster.machine)
    for size in (1, 7, 1000, 300 * KIB):
        pieces = [image[at : at + size] for at in range(0, len(image), size)]
        machine = CheckpointMachine.restore(pieces)
        assert image_of(machine) == image
        assert machine.staged_bytes == cluster.machine.staged_bytes
        assert machine.next_due_ns() == cluster.machine.next_due_ns()
        assert ask(machine, None, 104) == ask(cluster.machine, None, 104)
    assert digest([image]) == digest(cluster.machine.freeze())


def test_what_never_expires_is_not_due_after_a_restore() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    client.open("x")
    client.put(1, b"a", b"data")
    assert cluster.machine.next_due_ns() is None
    assert cluster.restored().next_due_ns() is None


def test_empty_machine() -> None:
    assert image_of(CheckpointMachine.restore(CheckpointMachine().freeze())) == image_of(
        CheckpointMachine()
    )


def test_frozen_is_frozen() -> None:
    cluster, clients = rich()
    before = image_of(cluster.machine)
    frozen = cluster.machine.freeze()
    one, two = clients
    one.put(1, b"big", b"other")
    one.write(1, [b"page", 5, b"other"])
    one.do(21, 1, b"ttl")
    two.do(26, 1, PAGE_BYTES + 4, b"more")
    two.do(2)
    cluster.due(100 * SECOND)
    assert b"".join(frozen) == before
    assert image_of(cluster.machine) != before


def test_pieces_are_small() -> None:
    client = DrivenMachine().session()
    client.open("x", fields=attributes(sections=20_000, section=8 * 1024 * KIB))
    for number in range(6000):
        client.put(1, b"%d" % number, bytes(100))
    client.put(1, b"big", bytes(8 * 1024 * KIB))
    for number in range(300):
        client.put(1, b"p%d" % number, bytes(PAGE_BYTES - number))
    for _ in range(100):
        client.do(12, "n" * 2048)
    sizes = list(map(len, client.cluster.machine.freeze()))
    assert max(sizes) <= 256 * KIB
    assert len(sizes) > 100


def test_restored_machine_goes_on_like_the_original() -> None:
    cluster, clients = rich()
    other = DrivenMachine(cluster.restored())
    other.now = cluster.now
    last = clients[1].sequence
    commands = [
        [24, 2, last, 2, 9, b"a", b""],
        [24, 2, last + 1, 2, 2, b"a", 2],
        [20, 1, clients[0].sequence + 1, 0, 1, None, b"", 1 << 62, None],
        [1, 0, 0, 0, b"n" * 16, "", "", SECOND, 0],
        [10, 2, last + 2, 2, "active", 1, None],
    ]
    assert cluster.apply(*commands) == other.apply(*commands)
    assert cluster.due(5 * SECOND) == other.due(5 * SECOND) == 2
    assert image_of(cluster.machine) == image_of(other.machine)


HISTORY = """
import sys
from tests.unit.model.test_image import rich, digest
print(digest(rich()[0].machine.freeze()))
"""


def test_image_does_not_depend_on_hash_seeds() -> None:
    digests = set()
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", HISTORY],
            env={"PYTHONHASHSEED": seed},
            cwd=__file__.rsplit("/tests/", 1)[0],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        digests.add(done.stdout.strip())
    assert digests == {digest(rich()[0].machine.freeze())}


class Counting(dict[int, Any]):
    """Counts the keys that are looked through."""

    steps = 0

    def __iter__(self) -> Iterator[int]:
        for key in super().__iter__():
            self.steps += 1
            yield key


@pytest.fixture(scope="module")
def crowd() -> bytes:
    """Image of 20,000 sessions that have a checkpoint open each."""
    cluster, count = DrivenMachine(), 20_000
    opens = [
        [1, 0, 0, 0, number.to_bytes(16, "big"), "app", "n1", 10 * SECOND, SECOND]
        for number in range(1, count + 1)
    ]
    opens += [
        [10, number, 1, 0, f"c{number}", READ | WRITE | 4, attributes()]
        for number in range(1, count + 1)
    ]
    for at in range(0, len(opens), 1000):
        assert all(result.ok for result in cluster.apply(*opens[at : at + 1000]))
    return image_of(cluster.machine)


def test_restoring_does_not_look_at_all_before_for_each_row(crowd: bytes) -> None:
    state = State()
    state.sessions, state.checkpoints = sessions, checkpoints = Counting(), Counting()
    load_image(state, [crowd])
    assert len(sessions) == len(checkpoints) == 20_000
    assert sessions.steps + checkpoints.steps <= 4 * 20_000


def test_a_crowd_is_restored(crowd: bytes) -> None:
    machine = CheckpointMachine.restore([crowd])
    assert len(machine.sessions) == len(machine.checkpoints) == 20_000
    assert ask(machine, None, 102, "c20000").ok
    assert image_of(machine) == crowd


# --- strictness -----------------------------------------------------------------------------------


def refused(pieces: Iterable[bytes]) -> bool:
    with pytest.raises(ValueError, match="image"):
        CheckpointMachine.restore(pieces)
    return True


def small() -> bytes:
    cluster = DrivenMachine()
    client = cluster.session()
    client.open("x")
    client.put(1, b"a", b"data")
    client.do(12, "none")
    return image_of(cluster.machine)


def test_every_truncation_is_refused() -> None:
    image = small()
    assert all(refused([image[:size]]) for size in range(len(image)))
    assert refused([])


def test_anything_behind_the_end_is_refused() -> None:
    image = small()
    for extra in (b"\0", b"\xc1", image):
        assert refused([image + extra])
        assert refused([image, extra])


def test_every_flipped_bit_is_refused() -> None:
    image = small()
    for at in range(len(image)):
        for bit in (1, 128):
            damaged = bytearray(image)
            damaged[at] ^= bit
            with pytest.raises(ValueError):
                CheckpointMachine.restore([bytes(damaged)])


def test_noise_is_refused() -> None:
    rng = random.Random(5)
    image, _ = image_of(rich()[0].machine), None
    for _ in range(200):
        damaged = bytearray(image)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(damaged))
            damaged[at : at + rng.randrange(9)] = rng.randbytes(rng.randrange(9))
        if bytes(damaged) != image:
            with pytest.raises(ValueError):
                CheckpointMachine.restore([bytes(damaged)])


def objects(image: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    unpacker.feed(image)
    return list(unpacker)[:-1]


def sealed(parts: list[Any]) -> bytes:
    """Make an image with a right trailer of any objects."""
    body = b"".join(msgpack.packb(part, use_bin_type=True) for part in parts)
    return body + msgpack.packb(["end", sha256(body).digest()], use_bin_type=True)


def test_sealing_is_what_freezing_does() -> None:
    image = image_of(rich()[0].machine)
    assert sealed(objects(image)) == image


# objects of small(): header, checkpoint head, sections, session head, results
CONTRADICTIONS = [
    ("not an image", (0, 0), "other"),
    ("another version", (0, 1), IMAGE_VERSION + 1),
    ("counters", (0, 2), [0] * 5),
    ("negative counter", (0, 2, 0), -1),
    ("time", (0, 2, 0), 1 << 63),
    ("chain", (0, 2, 3), 1 << 32),
    ("fewer checkpoints", (0, 3), 0),
    ("more checkpoints", (0, 3), 2),
    ("more sessions", (0, 4), 2),
    ("uid from the future", (1, 0), 9),
    ("uid 0", (1, 0), 0),
    ("empty name", (1, 1), ""),
    ("attributes", (1, 2), [1, 2]),
    ("invalid attributes", (1, 2, 0), 3),
    ("revision from the future", (1, 4), 99),
    ("active", (1, 5), [1]),
    ("owner", (1, 6), -1),
    ("bool", (1, 8), 1),
    ("retention while open", (1, 10), 5),
    ("corrupted section that is none", (1, 12), [b"other"]),
    ("corrupted section twice", (1, 12), [b"a", b"a"]),
    ("corrupted section of another type", (1, 12), ["a"]),
    ("corrupted section that is no id", (1, 12), [[b"a"]]),
    ("more sections", (1, 13), 2),
    ("too many sections", (1, 13), 5),
    ("rows", (2,), []),
    ("row", (2, 0), [b"a", b"data"]),
    ("row kind", (2, 0, 1), "data"),
    ("row is no list", (2, 0), 7),
    ("long id", (2, 0, 0), b"123456789"),
    ("empty id", (2, 0, 0), b""),
    ("long data", (2, 0, 1), bytes(101)),
    ("page missing", (2, 0, 1), 2),
    ("one page", (2, 0, 1), 1),
    ("expiration", (2, 0, 2), -1),
    ("updated later", (2, 0, 3), 1 << 62),
    ("section revision", (2, 0, 4), 99),
    ("session from the future", (3, 0), 9),
    ("secret", (3, 1), b""),
    ("timeout", (3, 4), 0),
    ("last", (3, 7), 0),
    ("handle of no checkpoint", (3, 9, 0, 1), 7),
    ("handle without flags", (3, 9, 0, 2), 0),
    ("handle from the future", (3, 9, 0, 0), 7),
    ("handle row", (3, 9, 0), [1]),
    ("no handles", (3, 9), []),
    ("results", (3, 10), 9),
    ("stage", (3, 11), [[1]]),
    ("stage without pages", (3, 11), [[1, 1]]),
    ("results group", (4,), []),
    ("result", (4, 0), [1]),
    ("refusal", (4, 0, 1), ["word"]),
    ("refusal reason", (4, 0, 1, 0), 5),
    ("more results", (4,), [[1, None]] * 5),
]


@pytest.mark.parametrize(
    ("path", "value"), [row[1:] for row in CONTRADICTIONS], ids=[row[0] for row in CONTRADICTIONS]
)
def test_contradictions_are_refused(path: tuple[int, ...], value: Any) -> None:
    parts = objects(small())
    assert CheckpointMachine.restore([sealed(parts)]).names
    place = parts
    for step in path[:-1]:
        place = place[step]
    assert place[path[-1]] != value
    place[path[-1]] = value
    assert refused([sealed(parts)])


def test_doubles_are_refused() -> None:
    parts = objects(small())
    parts[0][2][5] = parts[0][2][4] = 9
    head, rows, session, results = parts[1:]
    other = [2, "y", *head[2:]]
    two = [*head[:13], 2]
    session2 = [2, b"t" * 16, *session[2:9], [[1, 2, 3]], *session[10:]]

    def image(checkpoints: int, sessions: int, *rest: Any) -> list[bytes]:
        return [sealed([[*parts[0][:3], checkpoints, sessions, 0], *rest])]

    good = image(2, 2, head, rows, other, rows, session, results, session2, results)
    assert len(CheckpointMachine.restore(good).names) == 2
    same_name = [2, "x", *head[2:]]
    assert refused(image(2, 2, head, rows, same_name, rows, session, results, session2, results))
    assert refused(image(2, 2, other, rows, head, rows, session, results, session2, results))
    same_secret = [2, session[1], *session2[2:]]
    assert refused(image(2, 2, head, rows, other, rows, session, results, same_secret, results))
    assert refused(image(2, 2, head, rows, other, rows, session2, results, session, results))
    assert refused(image(1, 1, two, rows + rows, session, results))
    default = [*head[:2], [1, 0, 0, 1, 100, 8], *head[3:]]
    assert refused(image(1, 1, default, rows, session, results))
    assert refused(image(1, 1, [*default[:12], 0], session, results))


def test_pages_must_be_full_but_the_last() -> None:
    cluster = DrivenMachine()
    client = cluster.session()
    client.open("x", fields=attributes(section=4 * PAGE_BYTES))
    client.put(1, b"a", bytes(2 * PAGE_BYTES + 1))
    parts = objects(image_of(cluster.machine))
    assert [len(page) for page in parts[3:6]] == [PAGE_BYTES, PAGE_BYTES, 1]
    inline = [[b"a", bytes(2 * PAGE_BYTES + 1), *parts[2][0][2:]]]
    assert refused([sealed([*parts[:2], inline, *parts[6:]])])
    assert refused([sealed([*parts[:2], [[b"a", 1, *parts[2][0][2:]]], b"page", *parts[6:]])])
    for place, page in [(3, bytes(5)), (5, b""), (5, bytes(PAGE_BYTES + 1)), (5, "page")]:
        assert refused([sealed([*parts[:place], page, *parts[place + 1 :]])])

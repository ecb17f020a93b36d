"""How often a directory was started, whom it met, and whom it does not trust any more."""

from __future__ import annotations

import random

import pytest
from google_crc32c import value

from raftckpt.storage import Contradiction, Damaged, DataDirectory, PeerNotes
from raftckpt.storage import notes as module
from tests.sim.disk import TEARS, SimCrash, SimDisk

PATH = "/data"
PEERS = f"{PATH}/peers"
SAID = Contradiction("n2", "f" * 32, 7, 3, 2, 1_700_000_000_000_000_000)


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk(random.Random(1))


def start(disk: SimDisk) -> PeerNotes:
    """A start of the directory."""
    disk.kill()
    return DataDirectory.open(disk.fs, PATH, "c", "n1").notes


def test_every_start_counts_and_has_an_id_of_its_own(disk):
    runs = set()
    for number in range(1, 5):
        notes = start(disk)
        assert notes.incarnation == number
        runs.add(notes.run)
    assert len(runs) == 4
    assert all(len(run) == 16 for run in runs)


def test_a_start_that_was_refused_for_its_identity_is_not_counted(disk):
    start(disk)
    disk.kill()
    with pytest.raises(Exception, match="belongs to node"):
        DataDirectory.open(disk.fs, PATH, "c", "n2")
    assert start(disk).incarnation == 2


def test_what_a_directory_is_recognised_by_holds_for_good(disk):
    """The seed is on the disk before anybody hears of it: with another it were a stranger."""
    notes = start(disk)
    key = notes.own_key("d2")
    assert len(key) == 32
    assert key not in (notes.own_key("d3"), start(SimDisk(random.Random(2))).own_key("d2"))
    again = start(disk)
    assert again.own_key("d2") == key
    assert (again.key_of("d2"), again.told("d2")) == (b"", False)
    again.remember("n2", "d2", 1, "a", key=bytes(range(32)))
    again.remember("n2", "d2", 1, "a", told=True)
    again.remember("n2", "d2", 2, "b")
    last = start(disk)
    assert (last.key_of("d2"), last.told("d2")) == (bytes(range(32)), True)
    assert last.objection("d2", 2, "b") is None


def test_under_another_name_a_directory_is_a_stranger(disk):
    """One without data that is to join is named anew: what was told holds between two names."""
    notes = start(disk)
    key = notes.own_key("d2")
    notes.remember("n2", "d2", 1, "a", key=bytes(range(32)), told=True)
    notes = PeerNotes(disk.fs, PATH, "another name", new_ok=False)
    assert (notes.key_of("d2"), notes.told("d2")) == (b"", False)
    assert notes.own_key("d2") != key
    assert notes.objection("d2", 0, "older") is not None, "whom it met it has met"


MET = 5, "run five"


@pytest.mark.parametrize("restarts", [0, 2])
@pytest.mark.parametrize(
    ("directory", "said", "fine"),
    [
        ("d2", MET, True),  # the same start: a reconnect
        ("d2", (6, "run six"), True),
        ("d2", (99, "run five"), True),
        ("d2", (4, "run four"), False),
        ("d2", (4, "run five"), False),
        ("d2", (0, ""), False),
        ("d2", (5, "another run"), False),
        ("d3", (1, "run one"), True),  # never met
    ],
)
def test_who_went_back_in_time(disk, directory, said, fine, restarts):
    notes = start(disk)
    notes.remember("n2", "d2", *MET)
    for _ in range(restarts):
        notes = start(disk)
    why = notes.objection(directory, *said)
    assert (why is None) == fine
    if why is not None:
        assert f"this is start {said[0]} of it, and start 5 was met" in why
        assert "--rejoin" in why


def test_a_higher_start_takes_the_place_of_the_former_one(disk):
    notes = start(disk)
    notes.remember("n2", "d2", 1, "a")
    notes.remember("n2", "d2", 2, "b")
    assert notes.objection("d2", 1, "a") is not None
    assert notes.objection("d2", 2, "b") is None


def test_a_known_start_costs_no_write(disk):
    notes = start(disk)
    notes.remember("n2", "d2", 1, "a")
    calls = disk.calls
    notes.remember("n2", "d2", 1, "a")
    assert disk.calls == calls


def test_only_so_many_directories_are_remembered(disk, monkeypatch):
    monkeypatch.setattr(module, "_DIRECTORIES_MAX", 3)
    notes = start(disk)
    for number in (1, 2, 3):
        notes.remember("n", f"d{number}", 9, "run")
    notes.remember("n", "d1", 10, "run")  # met again: it is not the oldest any more
    notes.remember("n", "d4", 9, "run")
    notes = start(disk)
    forgotten = [n for n in (1, 2, 3, 4) if notes.objection(f"d{n}", 1, "old") is None]
    assert forgotten == [2]


def test_strangers_make_no_member_forgotten(disk):
    """Who has the secret can say hello for any number of directories that nobody knows."""
    notes = start(disk)
    notes.settle(frozenset({"d1", "d2"}))
    notes.own_key("d2")
    notes.remember("n2", "d2", 9, "run", key=bytes(range(32)))
    for number in range(2 * module._DIRECTORIES_MAX):
        notes.remember("n", f"stranger {number}", 1, "run")
    again = start(disk)
    assert again.key_of("d2") == bytes(range(32))
    assert again.objection("d2", 8, "old") is not None


def test_the_note_of_full_size_can_be_read(disk):
    """Names as long as the protocol takes, as many as are remembered."""
    notes = start(disk)
    for number in range(module._DIRECTORIES_MAX + 1):
        notes.remember("n" * 64, f"{number:032x}", 2**63, "f" * 16, key=b"f" * 32, told=True)
    assert start(disk).incarnation == 2


def test_contradictions_last_until_the_directory_is_no_member(disk):
    notes = start(disk)
    assert notes.contradictions == {}
    notes.contradicts("d2", SAID)
    notes.contradicts("d2", SAID._replace(entry=9))  # the first one is what is told
    notes = start(disk)
    assert notes.contradictions == {"d2": SAID}
    notes.settle(frozenset({"d1", "d2"}))
    assert start(disk).contradictions == {"d2": SAID}
    notes = start(disk)
    notes.settle(frozenset({"d1", "d3"}))
    assert notes.contradictions == {}
    assert start(disk).contradictions == {}


def test_settling_nothing_costs_no_write(disk):
    notes = start(disk)
    notes.contradicts("d2", SAID)
    calls = disk.calls
    notes.settle(frozenset({"d2"}))
    notes.contradicts("d2", SAID)
    assert disk.calls == calls


# --- damage and crashes -----------------------------------------------------------------------


def test_every_damaged_byte_refuses(disk):
    notes = start(disk)
    notes.remember("n2", "d2", *MET)
    notes.contradicts("d2", SAID)
    for offset in range(len(disk.content(PEERS))):
        disk.flip_bit(PEERS, offset, offset % 7)
        with pytest.raises(Damaged, match="the note of the peers met is damaged"):
            start(disk)
        disk.flip_bit(PEERS, offset, offset % 7)
    assert start(disk).contradictions == {"d2": SAID}


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"starts": "x", "met": {}, "contradictions": {}}',
        b'{"starts": 1, "met": [], "contradictions": {}}',
        b'{"starts": 1, "met": {"d": ["n", 1]}, "contradictions": {}}',
        b'{"starts": 1, "met": {"d": ["n", "x", "r"]}, "contradictions": {}}',
        b'{"starts": 1, "met": {}, "contradictions": {"d": ["n", "f", 1, 2, 3]}}',
        b'{"starts": 1, "met": {}, "contradictions": {"d": 1}}',
        b"[" * 60_000,
    ],
)
def test_a_malformed_note_refuses(disk, body):
    start(disk)
    disk.put(PEERS, body + b"\ncrc32c %08x\n" % value(body))
    with pytest.raises(Damaged, match="the note of the peers met is damaged"):
        start(disk)


@pytest.mark.parametrize("end", ["kill", *TEARS])
def test_a_number_of_a_start_is_never_given_twice(end):
    """What left the constructor may have been told to peers."""
    call = crashes = 0
    while crashes == call:
        call += 1
        disk = SimDisk(random.Random(call))
        told = {start(disk).incarnation, start(disk).incarnation}
        disk.kill()
        disk.crash_at(call=call)
        try:
            told.add(DataDirectory.open(disk.fs, PATH, "c", "n1").notes.incarnation)
        except SimCrash:
            crashes += 1
        disk.kill() if end == "kill" else disk.power_loss(end)
        number = start(disk).incarnation
        assert number > max(told)
        assert number <= 4
    assert crashes > 4


@pytest.mark.parametrize("end", ["kill", *TEARS])
@pytest.mark.parametrize("what", ["remember", "contradicts", "settle"])
def test_what_was_noted_stays_noted_wherever_it_is_cut(what, end):
    call = crashes = 0
    while crashes == call:
        call += 1
        disk = SimDisk(random.Random(call))
        notes = start(disk)
        notes.remember("n2", "d2", *MET)
        notes.contradicts("d2", SAID)
        disk.crash_at(call=call)
        try:
            match what:
                case "remember":
                    notes.remember("n2", "d2", 6, "run six")
                case "contradicts":
                    notes.contradicts("d3", SAID)
                case _:
                    notes.settle(frozenset())
        except SimCrash:
            crashes += 1
        disk.kill() if end == "kill" else disk.power_loss(end)
        found = start(disk)
        assert found.objection("d2", 4, "run four") is not None
        done = {
            "remember": found.objection("d2", *MET) is not None,
            "contradicts": "d3" in found.contradictions,
            "settle": not found.contradictions,
        }
        assert {k for k, v in done.items() if v} <= {what}
        if crashes < call:
            assert done[what]
        disk.power_loss("none")  # what a start has read is durable
        again = start(disk)
        assert again.contradictions == found.contradictions
        assert (again.objection("d2", *MET) is not None) == done["remember"]
    assert crashes > 4


def test_a_difference_stays_until_it_is_cleared(disk):
    notes = start(disk)
    notes.differs("the state at entry 7 was not the leader's")
    notes.differs("another one, later")  # the first is the one to be looked at
    assert start(disk).difference == "the state at entry 7 was not the leader's"
    notes = start(disk)
    notes.clear()
    notes.clear()
    assert start(disk).difference == ""

"""The data directory: whose it is, and when it may be used."""

from __future__ import annotations

import random

import pytest

from raftckpt.errors import InvariantViolation
from raftckpt.storage import (
    Damaged,
    Foreign,
    InUse,
    Journal,
    Missing,
    Storage,
    StorageError,
    Unsupported,
)
from raftckpt.storage.identity import IdentityState, read_identity
from tests.sim.disk import SimCrash, SimDisk

PATH = "/data"
IDENTITY = f"{PATH}/identity"


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk(random.Random(1), wall_ns=lambda: 1_700_000_000_000_000_000)


def open_(disk: SimDisk, cluster: str = "c", node: str = "n1", **options) -> Storage:
    options.setdefault("segment_bytes", 64 * 1024)
    return Storage.open(disk.fs, PATH, cluster, node, **options)


def founded(disk: SimDisk) -> None:
    storage = open_(disk, new_ok=True)
    storage.journal.set_hard_state(1, None)
    storage.journal.append_entry(b"one", 1, 1)
    storage.close()


def move_away(disk: SimDisk, *parts: str) -> None:
    for path in disk.files(PATH):
        if any(path.startswith(f"{PATH}/{part}") for part in parts):
            disk.remove(path)
    disk.dirs -= {f"{PATH}/{part}" for part in parts}


def test_first_start_and_restart(disk):
    founded(disk)
    for new_ok in (False, True):
        storage = open_(disk, new_ok=new_ok)
        assert list(storage.journal) == [(b"one", 1, 1)]
        assert not storage.rejoining
        assert storage.durable
        assert storage.bytes_on_disk() > 0
        identity = storage.identity
        assert (identity.cluster, identity.node) == ("c", "n1")
        assert identity.state is IdentityState.MEMBER
        assert identity.created_ns == 1_700_000_000_000_000_000
        storage.close()
        storage.close()
    text = disk.content(IDENTITY).decode()
    assert '"node": "n1"' in text


def test_snapshot_and_journal_are_opened_together(disk):
    founded(disk)
    storage = open_(disk)
    writer = storage.snapshots.create(9, 4, b"nine", 3)
    writer.commit()
    storage.close()
    assert [index for _payload, index, _term in open_(disk).journal] == [8, 9]


def test_compaction_is_guarded_by_the_snapshots(disk):
    founded(disk)
    storage = open_(disk)
    for index in range(2, 9):
        storage.journal.append_entry(b"", index, 1)
    storage.journal.sync()
    with pytest.raises(InvariantViolation):
        storage.journal.compact_to(3)
    storage.snapshots.create(6, 1, b"", 1).commit()
    storage.journal.compact_to(5)
    assert storage.journal[0][1] == 5


def test_a_journal_class_of_ones_own(disk):
    class Seam(Journal):
        pass

    assert isinstance(open_(disk, new_ok=True, journal_class=Seam).journal, Seam)


def test_an_empty_directory_refuses_unless_told(disk):
    with pytest.raises(Missing, match="serve --rejoin") as caught:
        open_(disk)
    assert str(caught.value).count("\n") == 2
    assert disk.files(PATH) == [f"{PATH}/lock"]
    open_(disk, new_ok=True)  # the failed attempt gave the lock up


def test_both_at_once_is_our_bug(disk):
    with pytest.raises(InvariantViolation):
        open_(disk, new_ok=True, rejoin=True)
    with pytest.raises(InvariantViolation):
        open_(disk, node="")


def test_a_second_process_is_refused(disk):
    storage = open_(disk, new_ok=True)
    with pytest.raises(InUse, match="in use by pid"):
        open_(disk)
    storage.close()
    open_(disk)


@pytest.mark.parametrize(("cluster", "node"), [("other", "n1"), ("c", "n2")])
def test_foreign_directory_refuses(disk, cluster, node):
    founded(disk)
    with pytest.raises(Foreign, match="belongs to node 'n1' of cluster 'c'"):
        open_(disk, cluster, node, new_ok=True)


@pytest.mark.parametrize("new_ok", [False, True])
def test_data_without_identity_refuse(disk, new_ok):
    founded(disk)
    disk.remove(IDENTITY)
    with pytest.raises(Missing, match="no identity file"):
        open_(disk, new_ok=new_ok)
    with pytest.raises(Missing, match="no identity file"):
        open_(disk, rejoin=True)


@pytest.mark.parametrize("new_ok", [False, True])
def test_identity_without_journal_refuses(disk, new_ok):
    founded(disk)
    move_away(disk, "journal")
    with pytest.raises(Missing, match="has no journal"):
        open_(disk, new_ok=new_ok)


def test_a_lost_snapshot_refuses(disk):
    founded(disk)
    storage = open_(disk)
    storage.snapshots.create(9, 4, b"nine", 3).commit()
    storage.close()
    open_(disk).close()
    move_away(disk, "snapshots")
    with pytest.raises(Damaged, match="there is no snapshot"):
        open_(disk)


def test_the_journal_of_another_disk_of_the_same_node_refuses(disk):
    founded(disk)
    other = SimDisk(random.Random(2))
    founded(other)
    move_away(disk, "journal")
    for path in other.files(f"{PATH}/journal"):
        disk.put(path, other.content(path))
    with pytest.raises(Foreign):
        open_(disk)


def test_every_damaged_byte_of_the_identity_refuses(disk):
    founded(disk)
    for offset in range(len(disk.content(IDENTITY))):
        disk.flip_bit(IDENTITY, offset, offset % 7)
        with pytest.raises(Damaged):
            open_(disk)
        disk.flip_bit(IDENTITY, offset, offset % 7)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{}", b'{"version": 1}', b"[" * 60_000, b'{"version":1,"cluster":1}'],
)
def test_a_malformed_identity_refuses(disk, body):
    from google_crc32c import value

    founded(disk)
    disk.put(IDENTITY, body + b"\ncrc32c %08x\n" % value(body))
    with pytest.raises(StorageError):
        open_(disk)


def test_an_unknown_version_refuses(disk):
    from google_crc32c import value

    founded(disk)
    body = disk.content(IDENTITY).rpartition(b"\ncrc32c ")[0].replace(b'ion": 1', b'ion": 2')
    disk.put(IDENTITY, body + b"\ncrc32c %08x\n" % value(body))
    with pytest.raises(Unsupported, match="version 2"):
        open_(disk)


# --- rejoining --------------------------------------------------------------------------


def test_rejoining_lasts_until_it_is_done(disk):
    storage = open_(disk, rejoin=True)
    assert storage.rejoining
    storage.close()
    for rejoin in (False, True):  # a restart with or without the flag changes nothing
        storage = open_(disk, rejoin=rejoin)
        assert storage.rejoining
        storage.close()
    storage = open_(disk, new_ok=True)
    assert storage.rejoining
    storage.journal.append_entry(b"", 1, 0)
    with pytest.raises(InvariantViolation):
        storage.rejoin_done()
    storage.journal.sync()
    storage.rejoin_done()
    storage.rejoin_done()
    assert not storage.rejoining
    disk.power_loss("none")
    assert not open_(disk).rejoining


def test_rejoining_with_data_refuses(disk):
    founded(disk)
    with pytest.raises(Foreign, match="holds the data of a member"):
        open_(disk, rejoin=True)
    assert len(open_(disk).journal) == 1


@pytest.mark.parametrize("first", ["member", "rejoining"])
def test_rejoining_with_the_identity_only(disk, first):
    if first == "member":
        founded(disk)
    else:
        open_(disk, rejoin=True).close()
    old = read_identity(disk.fs, PATH)
    move_away(disk, "journal", "snapshots")
    storage = open_(disk, rejoin=True)
    assert storage.rejoining
    assert list(storage.journal) == []
    assert old is not None
    assert storage.identity.uuid != old.uuid


# --- crashes ----------------------------------------------------------------------------


@pytest.mark.parametrize("rejoin", [False, True])
def test_a_first_start_cut_short_anywhere_can_be_repeated(rejoin):
    call = 1
    while True:
        disk = SimDisk(random.Random(call))
        disk.crash_at(call=call)
        try:
            open_(disk, new_ok=not rejoin, rejoin=rejoin)
            break
        except SimCrash:
            disk.power_loss()
        storage = open_(disk, new_ok=not rejoin, rejoin=rejoin)
        assert storage.rejoining == rejoin
        assert list(storage.journal) == []
        call += 1
    assert call > 15


def test_a_founding_cut_short_may_become_a_rejoining(disk):
    disk.crash_at(label="journal.segment.create")
    with pytest.raises(SimCrash):
        open_(disk, new_ok=True)
    disk.kill()
    assert open_(disk, rejoin=True).rejoining


def test_the_end_of_rejoining_is_atomic():
    call = 1
    while True:
        disk = SimDisk(random.Random(call))
        storage = open_(disk, rejoin=True)
        disk.crash_at(call=call)
        try:
            storage.rejoin_done()
            break
        except SimCrash:
            disk.power_loss()
        open_(disk)  # opens either way
        call += 1
    assert call > 4


@pytest.mark.parametrize("rejoin", [False, True])
def test_a_state_read_after_a_kill_survives_a_power_failure(rejoin):
    """The process died after the rename and before its sync: what is read must be made durable.

    Otherwise the directory is FOUNDING again after a power failure, and its journal, which holds
    what was acknowledged meanwhile, is cleared as that of a first start that was cut short.
    """
    disk = SimDisk(random.Random(1))
    # the first write of the identity is that of an empty directory, the second makes it usable
    disk.crash_at(label="identity.rename.after", hit=2)
    with pytest.raises(SimCrash):
        open_(disk, new_ok=not rejoin, rejoin=rejoin)
    disk.kill()
    storage = open_(disk)
    storage.journal.set_hard_state(1, None)
    storage.journal.append_entry(b"acknowledged", 1, 1)
    storage.journal.sync()
    disk.power_loss("none")
    storage = open_(disk)
    assert storage.rejoining == rejoin
    assert list(storage.journal) == [(b"acknowledged", 1, 1)]


def test_the_end_of_rejoining_read_after_a_kill_survives_a_power_failure():
    disk = SimDisk(random.Random(1))
    storage = open_(disk, rejoin=True)
    disk.crash_at(label="identity.rename.after")
    with pytest.raises(SimCrash):
        storage.rejoin_done()
    disk.kill()
    assert not open_(disk).rejoining  # its votes count from here on
    disk.power_loss("none")
    assert not open_(disk).rejoining

"""The data directory: whose it is, how far it has come, and when it may be used."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from google_crc32c import value

from raftckpt.errors import InvariantViolation
from raftckpt.storage import (
    REJOINS,
    Damaged,
    DataDirectory,
    Foreign,
    Identity,
    IdentityState,
    InUse,
    Journal,
    Missing,
    Storage,
    StorageError,
    Unsupported,
)
from raftckpt.storage.identity import read_identity
from tests.sim.disk import TEARS, SimCrash, SimDisk

PATH = "/data"
IDENTITY = f"{PATH}/identity"
FOUNDING, OTHER = "f" * 32, "0" * 32


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk(random.Random(1), wall_ns=lambda: 1_700_000_000_000_000_000)


def directory_of(
    disk: SimDisk, cluster: str = "c", node: str = "n1", joins: str = ""
) -> DataDirectory:
    return DataDirectory.open(disk.fs, PATH, cluster, node, joins=joins)


def open_(disk: SimDisk, cluster: str = "c", node: str = "n1", *, joins: str = "", **options):
    """Open it, founded if it was not."""
    directory = directory_of(disk, cluster, node, joins)
    if not directory.founded:
        directory.note_complete(FOUNDING, b"record")
    return log_of(directory, **options)


def log_of(directory: DataDirectory, **options) -> Storage:
    return Storage.open(directory, **{"segment_bytes": 64 * 1024, **options})


def founded(disk: SimDisk, joins: str = "") -> None:
    storage = open_(disk, joins=joins)
    storage.journal.set_hard_state(1, None)
    storage.journal.append_entry(b"one", 1, 1)
    storage.close()


def move_away(disk: SimDisk, *parts: str) -> None:
    for path in disk.files(PATH):
        if any(path.startswith(f"{PATH}/{part}") for part in parts):
            disk.remove(path)
    disk.dirs -= {f"{PATH}/{part}" for part in parts}


def put_text(disk: SimDisk, path: str, body: bytes) -> None:
    disk.put(path, body + b"\ncrc32c %08x\n" % value(body))


def body_of(disk: SimDisk, path: str = IDENTITY) -> bytes:
    return disk.content(path).rpartition(b"\ncrc32c ")[0]


# --- naming, founding, opening ----------------------------------------------------------------


def test_a_new_directory_is_named_and_takes_part_in_nothing(disk):
    directory = directory_of(disk)
    identity = directory.identity
    assert identity.state is IdentityState.NEW
    assert not directory.founded
    assert (identity.cluster, identity.node, identity.joins) == ("c", "n1", "")
    assert (identity.number, identity.founding, identity.record) == (0, "", b"")
    assert len(identity.directory) == 32
    assert identity.created_ns == 1_700_000_000_000_000_000
    with pytest.raises(InvariantViolation, match="before the founding is complete"):
        log_of(directory)
    directory.close()
    again = directory_of(disk)
    assert again.identity == identity
    assert '"node": "n1"' in disk.content(IDENTITY).decode()


def test_an_offer_and_a_higher_one(disk):
    directory = directory_of(disk)
    directory.note_offer(3, FOUNDING, b"first")
    directory.note_offer(4, OTHER, b"second")
    directory.close()
    directory = directory_of(disk)
    identity = directory.identity
    assert identity.state is IdentityState.OFFERED
    assert (identity.number, identity.founding, identity.record) == (4, OTHER, b"second")
    assert not directory.founded
    directory.note_complete(OTHER, b"second")
    assert directory.founded
    assert directory.identity.number == 4
    with pytest.raises(InvariantViolation):
        directory.note_offer(5, FOUNDING, b"third")
    with pytest.raises(InvariantViolation):
        directory.note_complete(FOUNDING, b"third")


def test_first_start_and_restart(disk):
    founded(disk)
    for _ in range(2):
        storage = open_(disk)
        assert list(storage.journal) == [(b"one", 1, 1)]
        assert storage.durable
        assert storage.bytes_on_disk() > 0
        assert storage.identity.state is IdentityState.MEMBER
        assert storage.identity.record == b"record"
        storage.close()
        storage.close()


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

    assert isinstance(open_(disk, journal_class=Seam).journal, Seam)


def test_a_replica_without_a_name_is_our_bug(disk):
    with pytest.raises(InvariantViolation):
        directory_of(disk, node="")


def test_a_second_process_is_refused(disk):
    directory = directory_of(disk)
    with pytest.raises(InUse, match="in use by pid"):
        directory_of(disk)
    directory.close()
    storage = open_(disk)
    with pytest.raises(InUse, match="in use by pid"):
        directory_of(disk)
    storage.close()
    directory_of(disk)


def test_what_fails_gives_the_lock_up(disk):
    founded(disk)
    with pytest.raises(Foreign):
        directory_of(disk, node="n2")
    storage = open_(disk)
    storage.close()
    disk.remove(next(p for p in disk.files(PATH) if p.endswith(".journal")))
    with pytest.raises(StorageError):
        open_(disk)
    directory_of(disk).close()


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(("cluster", "node"), [("other", "n1"), ("c", "n2")])
@pytest.mark.parametrize("joins", ["", REJOINS])
def test_foreign_directory_refuses(disk, cluster, node, joins):
    founded(disk)
    with pytest.raises(Foreign, match="belongs to node 'n1' of cluster 'c'"):
        directory_of(disk, cluster, node, joins)


@pytest.mark.parametrize("joins", ["", REJOINS, "token"])
def test_data_without_identity_refuse(disk, joins):
    founded(disk)
    disk.remove(IDENTITY)
    with pytest.raises(Missing, match="no identity file"):
        directory_of(disk, joins=joins)


def test_identity_without_journal_refuses(disk):
    founded(disk)
    move_away(disk, "journal")
    with pytest.raises(Missing, match="has no journal"):
        open_(disk)


@pytest.mark.parametrize("reached", ["offered", "member"])
def test_a_lost_note_of_the_peers_refuses(disk, reached):
    """Its starts would be counted from one again, and whom it distrusted would count."""
    if reached == "member":
        founded(disk)
    else:
        directory = directory_of(disk)
        directory.note_offer(1, FOUNDING, b"record")
        directory.close()
    disk.remove(f"{PATH}/peers")
    with pytest.raises(Missing, match="note of the peers met is gone"):
        directory_of(disk)


def test_a_lost_snapshot_refuses(disk):
    founded(disk)
    storage = open_(disk)
    storage.snapshots.create(9, 4, b"nine", 3).commit()
    storage.close()
    open_(disk).close()
    move_away(disk, "snapshots")
    with pytest.raises(Damaged, match="there is no snapshot"):
        open_(disk)


@pytest.mark.parametrize("differs", ["directory", "founding"])
def test_the_journal_of_another_directory_or_founding_refuses(disk, differs):
    founded(disk)
    other = SimDisk(random.Random(2 if differs == "directory" else 1))
    directory = directory_of(other)
    directory.note_complete(FOUNDING if differs == "directory" else OTHER, b"record")
    assert (read_identity(disk.fs, PATH).directory == directory.identity.directory) == (
        differs == "founding"
    )
    log_of(directory).close()
    move_away(disk, "journal")
    for path in other.files(f"{PATH}/journal"):
        disk.put(path, other.content(path))
    with pytest.raises(Foreign):
        open_(disk)


def test_snapshots_belong_to_a_founding_and_travel_between_its_directories():
    def identity(directory: str, founding: str) -> Identity:
        return Identity("c", "n1", directory, 0, IdentityState.MEMBER, founding=founding)

    one, two = identity("a", FOUNDING), identity("b", FOUNDING)
    refounded = identity("a", OTHER)
    assert one.snapshot_owner == two.snapshot_owner != refounded.snapshot_owner
    assert len({one.journal_owner, two.journal_owner, refounded.journal_owner}) == 3


def test_every_damaged_byte_of_the_identity_refuses(disk):
    founded(disk)
    for offset in range(len(disk.content(IDENTITY))):
        disk.flip_bit(IDENTITY, offset, offset % 7)
        with pytest.raises(Damaged):
            directory_of(disk)
        disk.flip_bit(IDENTITY, offset, offset % 7)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{}", b'{"version": 2}', b"[" * 60_000, b'{"version":2,"cluster":1}'],
)
def test_a_malformed_identity_refuses(disk, body):
    founded(disk)
    put_text(disk, IDENTITY, body)
    with pytest.raises(StorageError):
        directory_of(disk)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'"state": "member"', b'"state": "voter"'),
        (b'"joins": "",', b""),
        (b'"number": 0', b'"number": "many"'),
        (b'"record": "7265636f7264"', b'"record": "7265x"'),
        (b'"record": "7265636f7264"', b'"record": 7'),
    ],
)
def test_an_identity_with_one_malformed_field_refuses(disk, was, becomes):
    founded(disk)
    assert was in body_of(disk)
    put_text(disk, IDENTITY, body_of(disk).replace(was, becomes))
    with pytest.raises(Damaged, match="identity file is damaged"):
        directory_of(disk)


def test_a_directory_from_before_foundings_refuses_with_one_sentence(disk):
    founded(disk)
    put_text(
        disk,
        IDENTITY,
        b'{"version": 1, "cluster": "c", "node": "n1", "uuid": "00", "state": "member"}',
    )
    with pytest.raises(Unsupported) as caught:
        directory_of(disk)
    _what, why, remedy = str(caught.value).splitlines()
    assert "before clusters had a founding id" in why
    assert "found a new cluster" in remedy


def test_a_later_version_refuses(disk):
    founded(disk)
    put_text(disk, IDENTITY, body_of(disk).replace(b'ion": 2', b'ion": 3'))
    with pytest.raises(Unsupported, match="format version 3"):
        directory_of(disk)


# --- to be let in -----------------------------------------------------------------------------


@pytest.mark.parametrize("joins", [REJOINS, "token"])
def test_a_directory_joins_until_it_was_let_in(disk, joins):
    founded(disk, joins)
    for again in ("", joins):  # a restart with or without the word changes nothing
        directory = directory_of(disk, joins=again)
        assert directory.identity.joins == joins
        assert directory.founded
        directory.close()
    directory = directory_of(disk)
    directory.note_admitted()
    directory.note_admitted()
    assert directory.identity.joins == ""
    disk.power_loss("none")
    assert directory_of(disk).identity.joins == ""


def test_joining_with_the_data_of_a_member_refuses(disk):
    founded(disk)
    with pytest.raises(Foreign, match="holds the data of a member"):
        directory_of(disk, joins=REJOINS)
    again = directory_of(disk, joins="token")  # it has done its work and stands in a unit file
    assert again.identity.joins == ""
    again.close()
    assert len(open_(disk).journal) == 1


def test_another_token_for_the_same_directory(disk):
    founded(disk, "first")
    was = read_identity(disk.fs, PATH)
    directory = directory_of(disk, joins="second")
    assert directory.identity == was._replace(joins="second")
    assert read_identity(disk.fs, PATH) == directory.identity


@pytest.mark.parametrize("reached", ["new", "offered", "member", "joining"])
def test_joining_without_data_is_another_directory(disk, reached):
    """What was said under the old id does not count any more."""
    if reached in ("new", "offered"):
        directory = directory_of(disk)
        if reached == "offered":
            directory.note_offer(1, FOUNDING, b"offer")
        directory.close()
    else:
        founded(disk, REJOINS if reached == "joining" else "")
        move_away(disk, "journal", "snapshots")
    old = read_identity(disk.fs, PATH)
    joins = "token" if reached == "joining" else REJOINS
    directory = directory_of(disk, joins=joins)
    identity = directory.identity
    assert identity.directory != old.directory
    assert (identity.state, identity.joins) == (IdentityState.NEW, joins)
    assert (identity.number, identity.founding, identity.record) == (0, "", b"")
    directory.note_complete(FOUNDING, b"record")
    assert list(log_of(directory).journal) == []


@pytest.mark.parametrize("joins", ["", REJOINS, "token"])
def test_a_removed_directory_never_takes_part_again(disk, joins):
    founded(disk)
    directory = directory_of(disk)
    directory.note_removed()
    directory.close()
    for _ in range(2):
        with pytest.raises(Foreign, match="the cluster removed this replica"):
            directory_of(disk, joins=joins)
    move_away(disk, "journal", "snapshots")
    with pytest.raises(Foreign, match="the cluster removed this replica"):
        directory_of(disk, joins=joins)


# --- crashes ----------------------------------------------------------------------------------


class Transition(NamedTuple):
    """A step of a directory's life: what leads to it, and itself."""

    prepare: Callable[[DataDirectory], object]
    act: Callable[[DataDirectory], object]
    joins: str = ""


def _nothing(_: DataDirectory) -> None:
    pass


def _offered(directory: DataDirectory) -> None:
    directory.note_offer(1, FOUNDING, b"first")


def _second(directory: DataDirectory) -> None:
    directory.note_offer(2, OTHER, b"second")


def _complete(directory: DataDirectory) -> None:
    if not directory.founded:
        directory.note_complete(FOUNDING, b"record")


def _made(directory: DataDirectory) -> None:
    _complete(directory)
    log_of(directory)


TRANSITIONS = {
    "offered": Transition(_nothing, _offered),
    "offered anew": Transition(_offered, _second),
    "complete after an offer": Transition(_offered, _complete),
    "complete at once": Transition(_nothing, _complete, REJOINS),
    "files made": Transition(_complete, _made),
    "files of a joiner made": Transition(_complete, _made, "token"),
    "admitted": Transition(_made, DataDirectory.note_admitted, REJOINS),
    "removed": Transition(_made, DataDirectory.note_removed),
    "removed before it was let in": Transition(_made, DataDirectory.note_removed, REJOINS),
}


def before(transition: Transition, seed: int) -> tuple[SimDisk, DataDirectory]:
    disk = SimDisk(random.Random(seed))
    directory = directory_of(disk, joins=transition.joins)
    transition.prepare(directory)
    return disk, directory


@pytest.mark.parametrize("name", TRANSITIONS)
@pytest.mark.parametrize("end", ["kill", *TEARS])
def test_each_transition_is_made_or_not_wherever_it_is_cut(name, end):
    transition = TRANSITIONS[name]
    call = crashes = 0
    while crashes == call:
        call += 1
        disk, directory = before(transition, call)
        transition.act(directory)
        new = read_identity(disk.fs, PATH)
        disk, directory = before(transition, call)
        old = read_identity(disk.fs, PATH)
        assert new != old
        disk.crash_at(call=call)
        try:
            transition.act(directory)
        except SimCrash:
            crashes += 1
        disk.kill() if end == "kill" else disk.power_loss(end)
        found = read_identity(disk.fs, PATH)
        assert found in ((old, new) if crashes == call else (new,))
        if found == old:  # it can be made again
            transition.act(directory_of(disk))
            disk.power_loss("none")
            assert read_identity(disk.fs, PATH) == new
    assert crashes > 4


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_state_read_after_a_kill_survives_a_power_failure(name):
    """The process died after the rename and before its sync: what is read must be made durable.

    Otherwise the directory is FOUNDED again after a power failure, and its journal, which holds
    what was acknowledged meanwhile, is cleared as that of a first start that was cut short.
    """
    transition = TRANSITIONS[name]
    disk, directory = before(transition, 1)
    old = directory.identity
    disk.crash_at(label="identity.rename.after")
    with pytest.raises(SimCrash):
        transition.act(directory)
    disk.kill()
    found = read_identity(disk.fs, PATH)
    assert found != old
    if found.state is IdentityState.REMOVED:
        with pytest.raises(Foreign):
            directory_of(disk)
    else:
        directory_of(disk)
    disk.power_loss("none")
    assert read_identity(disk.fs, PATH) == found


def test_what_was_acknowledged_after_a_kill_survives_a_power_failure():
    disk = SimDisk(random.Random(1))
    directory = directory_of(disk)
    _complete(directory)
    disk.crash_at(label="identity.rename.after")
    with pytest.raises(SimCrash):
        log_of(directory)
    disk.kill()
    storage = log_of(directory_of(disk))
    storage.journal.set_hard_state(1, None)
    storage.journal.append_entry(b"acknowledged", 1, 1)
    storage.journal.sync()
    disk.power_loss("none")
    assert list(log_of(directory_of(disk)).journal) == [(b"acknowledged", 1, 1)]


@pytest.mark.parametrize("joins", ["", REJOINS])
def test_a_first_start_cut_short_anywhere_can_be_repeated(joins):
    call = 1
    while True:
        disk = SimDisk(random.Random(call))
        disk.crash_at(call=call)
        try:
            open_(disk, joins=joins)
            break
        except SimCrash:
            disk.power_loss()
        storage = open_(disk, joins=joins)
        assert storage.identity.joins == joins
        assert list(storage.journal) == []
        call += 1
    assert call > 20


def test_nothing_is_left_of_a_first_start_that_was_cut_short(disk):
    directory = directory_of(disk)
    directory.note_complete(FOUNDING, b"record")
    for left in ("journal/00000000000000000009.journal", "snapshots/half.tmp"):
        disk.put(f"{PATH}/{left}", b"half")
    storage = log_of(directory)
    storage.close()
    assert [path for path in disk.files(PATH) if disk.content(path) == b"half"] == []


def test_a_founding_cut_short_may_become_a_rejoining(disk):
    directory = directory_of(disk)
    disk.crash_at(label="identity.rename.before")
    with pytest.raises(SimCrash):
        _offered(directory)
    disk.kill()
    assert directory_of(disk, joins=REJOINS).identity.joins == REJOINS

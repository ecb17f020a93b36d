"""The journal and the snapshots against a plain list, with a crash at every call of the disk.

What must hold after each crash: the state is one that the replica had at some moment between its
last completed sync and the crash, aligned with the latest snapshot. Never an older one, never a
mixture, never a refusal (nothing was damaged).
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from typing import Any, NamedTuple

import pytest

from raftckpt.storage import Journal, SnapshotMeta, Storage, StorageError
from raftckpt.storage import _records as rec
from raftckpt.storage.journal import PLACEHOLDER
from tests.directories import open_founded
from tests.sim import disk
from tests.sim.disk import TEARS, SimCrash, SimDisk

PATH = "/data"
SEGMENT_BYTES = 4096 + 700


class State(NamedTuple):
    """The log from its first known index, and the hard state."""

    entries: tuple[tuple[bytes, int, int], ...] = ()
    last_index: int = 0
    last_term: int = 0
    term: int = 0
    vote: str | None = None
    extra: int = 0

    def entry(self, index: int) -> tuple[bytes, int, int] | None:
        position = index - self.entries[0][1] if self.entries else -1
        return self.entries[position] if 0 <= position < len(self.entries) else None


class Replica:
    """Random changes to a Storage, and the history of the states it went through."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.disk = SimDisk(random.Random(seed + 1))
        self.history = [State()]
        self.synced = 0
        self.snapshots: list[SnapshotMeta | None] = [None]
        """The durable one, and those that may have become durable since."""
        self.storage: Storage | None = None

    def open(self) -> None:
        self.storage = open_founded(self.disk.fs, PATH, segment_bytes=SEGMENT_BYTES)
        self.check()

    def check(self) -> None:
        assert self.storage is not None
        journal, snapshot = self.storage.journal, self.storage.snapshots.latest()
        assert snapshot in self.snapshots, f"{snapshot} is none of {self.snapshots}"
        legal = [aligned(state, snapshot) for state in self.history[self.synced :]]
        for state in legal:
            if fits(journal, state, snapshot):
                # From now on this is the durable past: what is lost may not come back either.
                self.history, self.synced = [state], 0
                self.snapshots = [snapshot]
                return
        raise AssertionError(
            f"{list(journal)} {journal.term, journal.vote, journal.extra} is none of {legal} "
            f"(snapshot {snapshot})"
        )

    def did(self, state: State) -> None:
        self.history.append(state)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            action = self.rng.choice(
                [self.append] * 6
                + [self.sync] * 4
                + [self.truncate, self.hard_state, self.hard_state, self.snapshot]
                + [self.install, self.confirm, self.reopen]
            )
            action()

    def append(self) -> None:
        assert self.storage is not None
        for _ in range(self.rng.randint(1, 4)):
            state = self.history[-1]
            index, term = state.last_index + 1, state.term
            payload = payload_of(index, term)
            self.did(
                state._replace(
                    entries=(*state.entries, (payload, index, term)),
                    last_index=index,
                    last_term=term,
                )
            )
            self.storage.journal.append_entry(payload, index, term)

    def truncate(self) -> None:
        assert self.storage is not None
        journal, state = self.storage.journal, self.history[-1]
        low = max(self.storage.snapshots.latest_index() + 1, 2)
        if state.last_index < low or not journal:
            return
        # a conflict comes from a newer leader: (index, term) names one entry for ever
        state = state._replace(term=state.term + 1, vote=None)
        self.did(state)
        journal.set_hard_state(state.term, None, state.extra)
        index = self.rng.randint(low, state.last_index)
        kept = tuple(e for e in state.entries if e[1] < index)
        self.did(
            state._replace(entries=kept, last_index=index - 1, last_term=kept[-1][2] if kept else 0)
        )
        journal.truncate_from(index)

    def hard_state(self) -> None:
        assert self.storage is not None
        state = self.history[-1]
        if state.vote is None and self.rng.random() < 0.5:
            state = state._replace(vote=self.rng.choice(["a", "", "knöten"]))
        else:
            state = state._replace(
                term=state.term + self.rng.randint(1, 3),
                vote=self.rng.choice([None, "b"]),
                extra=self.rng.randint(0, 2**64 - 1),
            )
        self.did(state)
        self.storage.journal.set_hard_state(state.term, state.vote, state.extra)

    def sync(self) -> None:
        assert self.storage is not None
        self.storage.journal.sync()
        self.synced = len(self.history) - 1

    def confirm(self) -> None:
        assert self.storage is not None
        self.storage.journal.confirm()

    def snapshot(self) -> None:
        """As the engine does: everything up to the snapshot is committed, hence never truncated."""
        assert self.storage is not None
        journal, state = self.storage.journal, self.history[-1]
        low = max(self.storage.snapshots.latest_index() + 1, 2)
        if state.last_index < low or not journal:
            return
        index = self.rng.randint(low, state.last_index)
        entry, former = state.entry(index), state.entry(index - 1)
        if entry is None or former is None:
            return
        writer = self.storage.snapshots.create(index, entry[2], entry[0], former[2])
        for _ in range(self.rng.randint(0, 3)):
            writer.write(self.rng.randbytes(100))
        self.committing(writer, index)
        journal.compact_to(self.rng.randint(journal[0][1], index - 1))

    def install(self) -> None:
        """A snapshot from the leader, beyond or beside our log."""
        assert self.storage is not None
        state = self.history[-1]
        index = max(2, state.last_index + self.rng.randint(-1, 5))
        if index <= self.storage.snapshots.latest_index():
            return
        term, prev_term = state.term + 1, min(state.last_term, state.term)
        payload = payload_of(index, term)
        writer = self.storage.snapshots.create(index, term, payload, prev_term)
        writer.write(b"image")
        self.committing(writer, index)
        entries = ((PLACEHOLDER, index - 1, prev_term), (payload, index, term))
        if term > state.term:
            self.did(state._replace(term=term, vote=None))
            self.storage.journal.set_hard_state(term, None, state.extra)
            state = self.history[-1]
        self.did(state._replace(entries=entries, last_index=index, last_term=term))
        self.storage.journal.reset_to(list(entries))

    def committing(self, writer, index: int) -> None:
        """Commit, and remember the snapshot even if the crash comes before we are told."""
        assert self.storage is not None
        store = self.storage.snapshots
        publish = store._publish

        def spy(temporary, meta, file):
            self.snapshots.append(meta)
            publish(temporary, meta, file)

        store._publish = spy  # type: ignore[method-assign]
        meta = writer.commit()
        store._publish = publish  # type: ignore[method-assign]
        self.snapshots = [meta]

    def reopen(self) -> None:
        assert self.storage is not None
        self.storage.close()
        self.synced = len(self.history) - 1
        self.open()


def payload_of(index: int, term: int) -> bytes:
    size = (0, 1, 30, 200)[(index + term) % 4]
    return random.Random(index * 1000 + term).randbytes(size)


def fits(journal: Journal, state: State, snapshot: SnapshotMeta | None) -> bool:
    """Whether the journal is in this state, apart from entries below the snapshot."""
    if (journal.term, journal.vote, journal.extra) != (state.term, state.vote, state.extra):
        return False
    if not journal:
        return snapshot is None and state.last_index == 0
    first = journal[0][1]
    if first > max(1, (snapshot.index if snapshot else 0) - 1):
        return False
    return tuple(journal) == tuple(entry for entry in state.entries if entry[1] >= first)


def aligned(state: State, snapshot: SnapshotMeta | None) -> State:
    """Naive version of the rule: the log continues the snapshot, or is replaced by it."""
    if snapshot is None:
        return state
    entry = state.entry(snapshot.index)
    if entry is not None and entry[2] == snapshot.term:
        return state
    return state._replace(
        entries=(
            (PLACEHOLDER, snapshot.index - 1, snapshot.prev_term),
            (snapshot.payload, snapshot.index, snapshot.term),
        ),
        last_index=snapshot.index,
        last_term=snapshot.term,
        term=max(state.term, snapshot.term),
        vote=state.vote if state.term >= snapshot.term else None,
    )


def crash_everywhere(seed: int, steps: int, tear: str | None, *, power: bool, stride: int = 1):
    """Run the same script again and again, each time crashing one call later."""
    points: Counter[str] = Counter()
    call = 1
    while True:
        replica = Replica(seed)
        replica.disk.crash_at(call=call)
        crashes = 0
        try:
            replica.open()
            replica.run(steps)
        except SimCrash:
            crashes = 1
        if not crashes:
            return points
        for recovery in range(3):  # crash in recovery as well, more than once
            if power:
                replica.disk.power_loss(tear)
            else:
                replica.disk.kill()
            if recovery < 2:
                replica.disk.crash_at(call=replica.rng.randint(1, 22))
            try:
                replica.open()
                replica.run(5)
                break
            except SimCrash:
                continue
        points.update(replica.disk.points)
        call += stride


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tear", [*TEARS, None])
def test_power_loss_at_every_call(seed, tear):
    crash_everywhere(seed, 25, tear, power=True, stride=3)


@pytest.mark.parametrize("seed", range(100, 104))
def test_kill_at_every_call(seed):
    crash_everywhere(seed, 30, None, power=False, stride=2)


def test_every_crash_point_is_reached():
    points: Counter[str] = Counter()
    for seed in range(200, 206):
        points += crash_everywhere(seed, 40, None, power=True, stride=9)
    assert len(points) >= 20
    missing = {p for p in CRASH_POINTS if not points[p]}
    assert not missing, f"never passed: {missing}"


CRASH_POINTS = [
    "identity.create",
    "identity.durable",
    "identity.rename.after",
    "identity.rename.before",
    "identity.sync.before",
    "journal.delete.after",
    "journal.delete.before",
    "journal.delete.unlinked",
    "journal.rotate.after",
    "journal.rotate.before",
    "journal.segment.continued",
    "journal.segment.create",
    "journal.segment.cut",
    "journal.segment.durable",
    "journal.segment.header.written",
    "journal.segment.rename.after",
    "journal.segment.rename.before",
    "journal.sync.after",
    "journal.sync.before",
    "journal.write.before",
    "peers.create",
    "peers.durable",
    "peers.rename.after",
    "peers.rename.before",
    "peers.sync.before",
    "snapshot.durable",
    "snapshot.former.unlinked",
    "snapshot.piece.written",
    "snapshot.rename.after",
    "snapshot.rename.before",
    "snapshot.sync.after",
    "snapshot.sync.before",
    "snapshot.tidy",
]


@pytest.mark.parametrize("seed", range(3))
def test_every_byte_prefix_of_a_group(seed):
    """A group that was being written is torn after each of its bytes."""
    count = 0
    while True:
        replica = Replica(seed)
        replica.open()
        replica.run(12)
        replica.sync()
        replica.append()
        replica.hard_state()
        replica.append()
        replica.disk.crash_at(label="journal.sync.before")
        with pytest.raises(SimCrash):
            replica.sync()
        path = max(p for p in replica.disk.files("/data/journal") if p.endswith(".journal"))
        total = min(replica.disk.unsynced(path), 1500)  # behind it: only the zeros ahead
        replica.disk.tear_exactly(path, count)
        replica.open()
        count += 1
        if count > total:
            break


def no_fsync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(disk._SimFile, "sync", lambda self: None)


def no_fsync_dir(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(disk.SimFileSystem, "fsync_dir", lambda self, path: None)


def no_settling(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(disk._SimFile, "settle", lambda self: None)


def delete_before_sync(patch: pytest.MonkeyPatch) -> None:
    def compact(self: Journal, index: int) -> None:
        self._drop_below(index)
        while len(self._segments) > 1:
            self._delete_oldest()

    patch.setattr(Journal, "compact_to", compact)


def forget_the_vote_at_rotation(patch: pytest.MonkeyPatch) -> None:
    pack = rec.pack_segment_header
    patch.setattr(rec, "pack_segment_header", lambda header: pack(header._replace(vote=None)))


def truncate_in_memory_only(patch: pytest.MonkeyPatch) -> None:
    def truncate(self: Journal, index: int) -> None:
        list.__delitem__(self, slice(index - self[0][1], None))
        self._next_index = index

    patch.setattr(Journal, "truncate_from", truncate)


def reset_in_memory_only(patch: pytest.MonkeyPatch) -> None:
    record = Journal._record

    def forgetful(self: Journal, kind: int, *rest: Any) -> None:
        if kind != rec.RESET:
            record(self, kind, *rest)

    patch.setattr(Journal, "_record", forgetful)


def no_alignment(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Journal, "_reset_under", lambda self, snapshot: None)


def take_torn_writes_for_damage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rec, "looks_torn", lambda data, start, stop: False)


def claim_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    flush = Journal._flush

    def early(self: Journal) -> None:
        self._claim = self._sequence
        self._record(rec.CONFIRM, b"", 0, 0)
        flush(self)

    patch.setattr(Journal, "_flush", early)


@pytest.mark.parametrize(
    "bug",
    [
        no_fsync,
        no_fsync_dir,
        no_settling,
        delete_before_sync,
        forget_the_vote_at_rotation,
        truncate_in_memory_only,
        reset_in_memory_only,
        no_alignment,
        take_torn_writes_for_damage,
        claim_before_the_sync,
    ],
)
def test_the_check_bites(bug, monkeypatch):
    """The crash test must find each of these planted bugs."""
    bug(monkeypatch)
    with pytest.raises((AssertionError, StorageError)):
        hunt(40)


def hunt(seeds: int) -> None:
    for seed in range(seeds):
        crash_everywhere(seed, 40, None, power=True, stride=3)
        twice_killed(seed)


def twice_killed(seed: int) -> None:
    """What a killed process left in the page cache is relied on, so it must survive the power."""
    for call in range(1, 22):
        replica = Replica(seed)
        replica.open()
        replica.run(10)
        replica.append()
        replica.disk.crash_at(label="journal.sync.before")
        with pytest.raises(SimCrash):
            replica.sync()
        replica.disk.kill()
        replica.disk.crash_at(call=call)
        with contextlib.suppress(SimCrash):  # the last calls come after the recovery
            replica.open()  # check() makes what was found the durable past
        replica.disk.power_loss("none")
        replica.open()


@pytest.mark.parametrize("seed", range(20))
def test_recovered_bytes_are_made_durable(seed):
    twice_killed(seed)

"""Each hole of stock PySyncObj 0.3.17, shown on the stock library.

A test here passes while the hole *is there*: it is the proof that the test of the same number in
``test_holes_ours.py`` bites. The scripts feed crafted but legal messages (what an honest peer
sends, late or twice) unless the hole is about dishonest ones.

Shown elsewhere or not at all:

=====  =========================================================================================
H17    the fork itself is not shown: it needs an orphaned child that outlives its parent; shown
       is that nothing keeps an older dump from replacing a newer one.
H18    blocking name resolution is not shown: it needs a resolver that hangs.
H12    the TCP framing is not shown, only what it delivers; the password mode is not shown.
H14    the lost configuration after a restart is not shown, only the missing one-at-a-time rule.
=====  =========================================================================================
"""

from __future__ import annotations

import gc
import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pysyncobj.journal
import pysyncobj.monotonic
import pytest
from pysyncobj import SyncObj
from pysyncobj.config import FAIL_REASON, SERIALIZER_STATE
from pysyncobj.journal import FileJournal
from pysyncobj.serializer import Serializer

from tests.sim.enginepatch import StableNode, patched
from tests.sim.plain import REGULAR, BenchClock, HalfDice, PlainBench, plain_conf

pytestmark = [
    # the library leaves its meta file to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

Make = Callable[..., PlainBench]


@pytest.fixture
def clock() -> Iterator[BenchClock]:
    clock = BenchClock()
    with patched(clock, HalfDice()):
        yield clock


@pytest.fixture
def make(clock: BenchClock) -> Iterator[Make]:
    benches: list[PlainBench] = []

    def build(directory: Path | None = None, **conf: Any) -> PlainBench:
        benches.append(PlainBench(clock, directory, **conf))
        return benches[-1]

    yield build
    for bench in benches:
        bench.stop()
    benches.clear()
    gc.collect()  # here, where the ResourceWarnings of the library are expected


@pytest.fixture
def bench(make: Make) -> PlainBench:
    return make()


def follow(bench: PlainBench, count: int, *, term: int = 1, commit: int | None = None) -> None:
    """Let puppet "b" lead in ``term`` and replicate entries 2..count+1 (values = indexes)."""
    entries = [(i, term, i) for i in range(2, count + 2)]
    bench.append("b", term, (1, 0), entries, count + 1 if commit is None else commit)
    bench.tick()
    bench.sent()


def test_h01_plain_acks_and_votes_without_any_sync(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append("fsync"))
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append("fdatasync"))
    flush = pysyncobj.journal.ResizableFile.flush
    monkeypatch.setattr(
        pysyncobj.journal.ResizableFile, "flush", lambda f: (synced.append("msync"), flush(f))
    )
    bench = make(tmp_path)
    bench.append("b", 1, (1, 0), [(2, 1, "x")], 1)
    bench.request_vote("c", 2, (2, 1))
    bench.tick()
    kinds = [s.message["type"] for s in bench.sent()]
    assert kinds == ["next_node_idx", "response_vote"]  # acknowledged and voted ...
    assert synced == []  # ... on what a power loss takes away


def test_h02_plain_crash_during_compaction_loses_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FileJournal(str(tmp_path / "journal"))
    for index in range(1, 61):
        journal.add(b"x" * 100, index, 1)
    add = FileJournal.add
    rewritten = 0

    def dying_add(self: FileJournal, *entry: Any) -> None:
        nonlocal rewritten
        if rewritten == 6:
            raise KeyboardInterrupt("kill -9")
        rewritten += 1
        add(self, *entry)

    monkeypatch.setattr(FileJournal, "add", dying_add)
    with pytest.raises(KeyboardInterrupt):
        journal.deleteEntriesTo(10)  # entries 11..60 are not covered by the snapshot
    journal._destroy()
    monkeypatch.undo()
    journal = FileJournal(str(tmp_path / "journal"))
    assert [index for _, index, _ in journal[:]] == [11, 12, 13, 14, 15, 16]  # 44 are gone
    journal._destroy()


def test_h02_plain_damage_inside_the_journal_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(str(path))
    journal.add(b"pay 100", 1, 1)
    journal._destroy()
    path.write_bytes(path.read_bytes().replace(b"pay 100", b"pay 900"))
    journal = FileJournal(str(path))
    assert journal[0] == (b"pay 900", 1, 1)
    journal._destroy()


def test_h03_plain_crash_between_snapshot_and_trim_loses_the_tail(
    make: Make, tmp_path: Path
) -> None:
    bench = make(tmp_path)
    follow(bench, 10, commit=6)
    bench.append("b", 1, (11, 1), [(12, 1, 12)], 6)  # acknowledged, not yet known to be committed
    bench.node.forceLogCompaction()
    bench.tick()  # the dump is published; the journal is trimmed in the *next* tick
    bench.stop()
    bench.start()
    bench.tick()
    assert bench.values == [2, 3, 4, 5, 6]
    assert bench.log == [(5, 1), (6, 1)]  # 7..12 were acknowledged


def test_h04_plain_late_heartbeat_truncates_acknowledged_entries(bench: PlainBench) -> None:
    follow(bench, 3, commit=1)
    bench.append("b", 1, (4, 1), [(5, 1, 5), (6, 1, 6)], 1)
    acks = [s.message["next_node_idx"] for s in bench.sent("next_node_idx")]
    assert acks == [7]  # the leader may count 6 as held here and commit it
    bench.append("b", 1, (4, 1), [], 1)  # sent before the entries, or after a stale reset
    assert bench.log[-1] == (4, 1)


def test_h04_plain_truncates_applied_entries(bench: PlainBench) -> None:
    follow(bench, 6)
    assert bench.values == [2, 3, 4, 5, 6, 7]
    bench.append("b", 1, (3, 1), [(4, 1, 4)], 7)
    assert bench.log[-1] == (4, 1)
    assert bench.applied == 7


def test_h05_plain_stale_ack_of_an_earlier_leadership_is_believed(bench: PlainBench) -> None:
    bench.lead()
    bench.node.put("never replicated")
    bench.tick()
    assert bench.commit == bench.last - 1
    bench.ack("b", bench.last)  # sent in answer to another log of ours, terms ago
    bench.tick()
    assert bench.values == ["never replicated"]


def test_h06_plain_snapshot_stream_commits_an_unverified_tail(bench: PlainBench) -> None:
    follow(bench, 5, commit=1)  # a tail that only the dead leader "b" and we hold
    bench.inject("c", {"type": "append_entries", "term": 2, "commit_index": 6, "serialized": None})
    bench.tick()
    assert bench.values == [2, 3, 4, 5, 6]


def dump_bytes(clock: BenchClock, directory: Path, upto: int) -> bytes:
    """The dump a healthy peer would send: the state after entries 2..upto."""
    directory.mkdir()
    donor = PlainBench(clock, directory)
    follow(donor, upto - 1)
    donor.node.forceLogCompaction()
    donor.tick()
    donor.tick()
    donor.stop()
    return (directory / "dump").read_bytes()


def snapshot(term: int, commit: int, piece: tuple[bytes, bool, bool]) -> dict[str, Any]:
    return {"type": "append_entries", "term": term, "commit_index": commit, "serialized": piece}


def test_h07_plain_older_snapshot_regresses_the_state(
    make: Make, clock: BenchClock, tmp_path: Path
) -> None:
    old = dump_bytes(clock, tmp_path / "donor", 4)
    (tmp_path / "a").mkdir()
    bench = make(tmp_path / "a")
    follow(bench, 8)
    assert bench.applied == 9
    bench.inject("b", snapshot(1, 9, (old, True, False)))
    bench.inject("b", snapshot(1, 9, (b"", False, True)))
    bench.tick()
    assert bench.values == [2, 3, 4]
    assert bench.applied == 4
    assert bench.log == [(3, 1), (4, 1)]


def test_h07_plain_snapshot_that_does_not_load_is_answered_success(
    make: Make, tmp_path: Path
) -> None:
    bench = make(tmp_path)
    follow(bench, 3, commit=1)
    bench.inject("c", snapshot(2, 1, (b"damaged", True, False)))
    bench.inject("c", snapshot(2, 1, (b"", False, True)))
    (sent,) = bench.sent()
    assert sent.message["success"]
    assert sent.message["next_node_idx"] == 5  # our own unverified tail, as if "c" knew it


def test_h07_plain_hole_in_the_middle_of_a_transmission(make: Make, tmp_path: Path) -> None:
    bench = make(tmp_path)
    bench.inject("b", snapshot(1, 1, (b"first", True, False)))
    bench.disconnect("b")  # the second piece is lost with the connection
    bench.connect("b")
    bench.inject("b", snapshot(1, 1, (b"third", False, False)))
    bench.inject("b", snapshot(1, 1, (b"", False, True)))
    assert (tmp_path / "dump").read_bytes() == b"firstthird"


def test_h08_plain_damaged_dump_lets_the_node_run_empty_and_lead(
    make: Make, tmp_path: Path
) -> None:
    bench = make(tmp_path)
    follow(bench, 5)
    bench.node.forceLogCompaction()
    bench.tick()
    bench.tick()
    bench.stop()
    damaged = bytearray((tmp_path / "dump").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "dump").write_bytes(bytes(damaged))
    bench.start()
    bench.tick()
    assert bench.values == []
    bench.lead()
    assert bench.leads
    bench.node.put("upon nothing")
    bench.tick()
    for peer in bench.peers:
        bench.ack(peer, bench.last)
    bench.tick()
    assert bench.commit == bench.last  # it leads, commits, and has no state at all
    assert bench.values == []


def test_h09_plain_commit_index_beyond_the_journal_acknowledges_alone(
    make: Make, tmp_path: Path
) -> None:
    bench = make(tmp_path)
    follow(bench, 2)
    (tmp_path / "journal.meta").write_bytes(
        pickle.dumps({"raftCommitIndex": 50, "currentTerm": 1, "votedForNodeId": None}, 2)
    )  # power loss: the meta file reached the disk, the entries behind it did not
    bench.stop()
    bench.start()
    bench.campaign()
    bench.vote("b", bench.term)
    results: list[Any] = []
    bench.node.put("alone", callback=lambda value, error: results.append(error))
    bench.tick()
    bench.tick()
    assert results == [FAIL_REASON.SUCCESS]  # no peer has acknowledged anything


def test_h10_plain_exception_in_apply_is_applied_for_ever(bench: PlainBench) -> None:
    def explode(value: Any) -> None:
        raise ValueError(value)

    bench.node.on_put = explode
    bench.append("b", 1, (1, 0), [(2, 1, "x")], 2)
    for _ in range(3):
        with pytest.raises(ValueError, match="x"):
            bench.tick()
    assert bench.values == ["x", "x", "x"]
    assert bench.applied == 1


def test_h10_plain_exception_in_a_callback_applies_twice(bench: PlainBench) -> None:
    bench.lead()

    def explode(value: Any, error: Any) -> None:
        raise ValueError(value)

    bench.node.put("once", callback=explode)
    bench.tick()
    bench.ack("b", bench.last)
    with pytest.raises(ValueError, match="1"):
        bench.tick()
    bench.tick()
    assert bench.values == ["once", "once"]


def test_h11_plain_counts_one_vote_twice(make: Make) -> None:
    bench = make(peers=("b", "c", "d", "e"))
    bench.campaign()
    bench.vote("b", bench.term)
    assert not bench.leads
    bench.vote("b", bench.term)  # 2 of 5 voters
    assert bench.leads


def test_h11_plain_counts_the_vote_of_a_stranger(bench: PlainBench) -> None:
    bench.campaign()
    bench.vote("mallory", bench.term)
    assert bench.leads


def test_h11_plain_a_half_deaf_node_deposes_the_leader(bench: PlainBench) -> None:
    bench.lead()
    bench.request_vote("c", bench.term + 1, (1, 0))  # it cannot even win
    assert not bench.leads


class Payload:
    """Makes whoever unpickles it call a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def test_h12_plain_a_log_entry_runs_code(bench: PlainBench, tmp_path: Path) -> None:
    mark = tmp_path / "was here"
    entry = (REGULAR + pickle.dumps(Payload(os.mkdir, str(mark)), 2), 2, 1)
    bench.append("b", 1, (1, 0), [], 1)
    bench.inject(
        "b",
        {
            "type": "append_entries",
            "term": 1,
            "commit_index": 2,
            "entries": [entry],
            "prevLogIdx": 1,
            "prevLogTerm": 0,
        },
    )
    with pytest.raises(KeyError):
        bench.tick()
    assert mark.is_dir()


def test_h12_plain_a_transmission_runs_code(bench: PlainBench, tmp_path: Path) -> None:
    mark = tmp_path / "was here"
    head = {"type": "append_entries", "term": 1, "commit_index": 1}
    link = {"prevLogIdx": 1, "prevLogTerm": 0}
    data = pickle.dumps(Payload(os.mkdir, str(mark)), 2)
    bench.inject("b", head | link | {"transmission": "start", "data": b""})
    with pytest.raises(TypeError):
        bench.inject("b", head | link | {"transmission": "finish", "data": data})
    assert mark.is_dir()


def test_h12_plain_a_readonly_node_deposes_the_leader_and_writes(bench: PlainBench) -> None:
    bench.lead()
    bench.inject("reader", {"type": "apply_command", "command": bench.node.command("forged")})
    bench.tick()
    bench.ack("b", bench.last)
    bench.tick()
    assert bench.values == ["forged"]
    bench.request_vote("reader", bench.term + 5, (0, 0))
    assert not bench.leads


def test_h13_plain_large_entry_is_cut_with_the_wrong_bound(make: Make) -> None:
    batch = 64
    leader = make(appendEntriesBatchSizeBytes=batch)
    leader.lead()
    leader.node._applyCommand(leader.node.command("v" * 100)[1:], None, 0)
    leader.tick()
    leader.advance(1.0)
    leader.tick()
    chunks = [s.message for s in leader.sent("append_entries") if "transmission" in s.message]
    to_b = chunks[: len(chunks) // 2]
    assert [c["transmission"] for c in to_b].count("finish") == 2
    follower = make()
    early = [c["transmission"] for c in to_b].index("finish")
    for chunk in to_b[:early]:
        follower.inject("b", chunk | {"prevLogIdx": 1, "prevLogTerm": 0})
    with pytest.raises((pickle.UnpicklingError, EOFError)):  # it comes one piece early
        follower.inject("b", to_b[early] | {"prevLogIdx": 1, "prevLogTerm": 0})


def test_h14_plain_removes_two_nodes_at_once_and_commits_alone(make: Make) -> None:
    bench = make(dynamicMembershipChange=True)
    bench.lead()
    results: list[Any] = []
    bench.node.removeNodeFromCluster(StableNode("b"))
    bench.node.removeNodeFromCluster(StableNode("c"))
    bench.node.put("alone", callback=lambda value, error: results.append(error))
    bench.tick()  # nobody acknowledged the first change before the second was made
    bench.tick()
    bench.tick()
    assert results == [FAIL_REASON.SUCCESS]


def test_h15_plain_conflict_backs_up_one_index_per_round_trip(bench: PlainBench) -> None:
    follow(bench, 20, commit=1)
    replies = []
    prev = 21
    while not replies or replies[-1]["reset"]:
        bench.append("c", 2, (prev, 2 if prev > 1 else 0), [], 1)
        replies.append(bench.sent()[0].message)
        prev = replies[-1]["next_node_idx"] - 1
    assert len(replies) == 21


def test_h15_plain_each_reset_resends_the_whole_tail(make: Make) -> None:
    bench = make(appendEntriesBatchSizeBytes=1 << 20)
    bench.lead()
    for value in range(50):
        bench.node.put(value)
    bench.tick()
    entries = 0
    for _ in range(8):  # eight heartbeats were in flight; each is answered by a reset
        bench.ack("b", 1, success=False, reset=True)
        bench.advance(0.2)
        bench.tick()
        entries += sum(len(s.message["entries"]) for s in bench.sent() if s.to == "b")
    assert entries >= 8 * 50


def test_h15_plain_compacting_leader_floods_a_lagging_follower(make: Make, tmp_path: Path) -> None:
    bench = make(tmp_path)
    bench.lead()
    for value in range(20):
        bench.node.put(value)
    bench.tick()
    bench.ack("b", bench.last)
    bench.tick()
    bench.node.forceLogCompaction()
    bench.tick()
    bench.tick()  # trimmed: "c" needs a snapshot from here on
    bench.ack("c", 1, success=False, reset=True)
    bench.sent()
    bench.node.private("serializer")._Serializer__pid = -1  # the next dump is being written
    bench.clock.per_reading = 0.0005
    bench.advance(0.2)
    bench.node._SyncObj__sendAppendEntries()
    useless = [s for s in bench.sent() if s.message.get("serialized", "x") is None]
    assert len(useless) > 50


def test_h16_plain_leader_changed_although_the_command_commits(bench: PlainBench) -> None:
    bench.append("b", 1, (1, 0), [], 1)
    results: list[Any] = []
    bench.node.put("x", callback=lambda value, error: results.append(error))
    bench.tick()
    (forwarded,) = bench.sent("apply_command")
    bench.append("b", 1, (1, 0), [(2, 1, "x")], 1)
    bench.append("c", 2, (2, 1), [(3, 2, None)], 3)  # the new leader holds it and commits it
    bench.tick()
    assert results == [FAIL_REASON.LEADER_CHANGED]
    assert bench.values == [forwarded.message and "x"]


def test_h16_plain_entry_swallowed_by_a_snapshot_never_calls_back(
    make: Make, clock: BenchClock, tmp_path: Path
) -> None:
    image = dump_bytes(clock, tmp_path / "donor", 8)
    (tmp_path / "a").mkdir()
    bench = make(tmp_path / "a")
    bench.lead()
    results: list[Any] = []
    bench.node.put("x", callback=lambda value, error: results.append(error))
    bench.tick()
    bench.inject("c", snapshot(9, 8, (image, True, False)))
    bench.inject("c", snapshot(9, 8, (b"", False, True)))
    for index in range(9, 30):
        bench.append("c", 9, (index - 1, 9 if index > 9 else 1), [(index, 9, index)], index)
        bench.tick()
    assert results == []


def test_h16_plain_restarted_follower_takes_another_commands_success(
    make: Make, tmp_path: Path
) -> None:
    bench = make(tmp_path)
    bench.append("b", 1, (1, 0), [], 1)
    bench.node.put("before the crash", callback=lambda value, error: None)
    bench.tick()
    assert bench.sent("apply_command")[0].message["request_id"] == 1
    bench.stop()
    bench.start()
    bench.append("b", 1, (1, 0), [], 1)
    results: list[Any] = []
    bench.node.put("after it", callback=lambda value, error: results.append(error))
    bench.tick()  # this forward is lost
    bench.inject(
        "b", {"type": "apply_command_response", "request_id": 1, "log_idx": 2, "log_term": 1}
    )  # answers the former incarnation
    bench.append("b", 1, (1, 0), [(2, 1, "before the crash")], 2)
    bench.tick()
    assert results == [FAIL_REASON.SUCCESS]
    assert bench.values == ["before the crash"]


def test_h17_plain_older_dump_replaces_a_newer_one(tmp_path: Path) -> None:
    assert plain_conf(None, useFork=True).useFork
    assert SyncObj.__init__.__defaults__ is not None
    path = str(tmp_path / "dump")
    parent = Serializer(path, 1024, False, None, None, None)
    orphan = Serializer(path, 1024, False, None, None, None)  # child of a killed incarnation
    parent.serialize(("state at 90", (b"", 91, 1), (b"", 90, 1)), 90)
    orphan.serialize(("state at 10", (b"", 11, 1), (b"", 10, 1)), 10)
    assert orphan.checkSerializing() == (SERIALIZER_STATE.SUCCESS, 10)
    assert parent.deserialize()[0] == "state at 10"


def test_h18_plain_pushes_a_whole_snapshot_without_flow_control(make: Make, tmp_path: Path) -> None:
    bench = make(tmp_path, logCompactionBatchSize=64)
    bench.lead()
    bench.node.put(os.urandom(20_000))
    bench.tick()
    bench.ack("b", bench.last)
    bench.tick()
    bench.node.forceLogCompaction()
    bench.tick()
    bench.tick()
    bench.ack("c", 1, success=False, reset=True)
    bench.sent()
    bench.advance(0.2)
    bench.tick()
    assert len([s for s in bench.sent() if "serialized" in s.message]) > 300  # in one tick


def test_h19_plain_truncation_below_a_running_compaction_empties_the_log(
    make: Make, tmp_path: Path
) -> None:
    bench = make(tmp_path)
    follow(bench, 9)
    bench.node.forceLogCompaction()
    bench.tick()  # the dump covers 9; the trim comes with the next tick
    bench.append("b", 1, (3, 1), [], 10)  # a late heartbeat (H4)
    bench.tick()
    assert len(bench.node.private("raftLog")) == 0
    with pytest.raises(IndexError):
        bench.campaign()


def test_h20_plain_success_ack_moves_next_index_backwards(bench: PlainBench) -> None:
    bench.lead()
    first = bench.last
    for value in range(10):
        bench.node.put(value)
    bench.tick()
    bench.advance(0.2)
    bench.tick()  # all ten travel
    assert {len(s.message["entries"]) for s in bench.sent("append_entries")} == {10}
    bench.ack("b", first + 3)  # the ack of a part that was sent earlier
    bench.advance(0.2)
    bench.tick()
    resent = [s.message for s in bench.sent("append_entries") if s.to == "b"]
    assert resent[0]["entries"][0][1] == first + 4  # they are all in flight


def test_h21_plain_clock_is_monotonic_raw() -> None:
    if not hasattr(time, "CLOCK_MONOTONIC_RAW"):
        pytest.skip("no CLOCK_MONOTONIC_RAW here")
    before = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
    reading = pysyncobj.monotonic.monotonic()
    after = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
    assert before <= reading <= after or reading == pytest.approx(before, abs=1e-6)


def test_h22_plain_lower_terms_are_dropped_in_silence(bench: PlainBench) -> None:
    follow(bench, 3, term=9)
    bench.append("c", 5, (4, 9), [], 1)  # "c" leads at 5 and cannot learn of 9
    bench.tick()
    assert bench.sent() == []
    bench.request_vote("c", 6, (4, 9))
    assert bench.sent() == []


def test_h22_plain_higher_term_in_an_ack_is_not_noticed(bench: PlainBench) -> None:
    bench.lead()
    bench.inject(
        "b",
        {
            "type": "next_node_idx",
            "next_node_idx": 2,
            "reset": True,
            "success": False,
            "term": bench.term + 7,
        },
    )
    assert bench.leads


def test_bench_plain_node_works_at_all(bench: PlainBench) -> None:
    """The negative: without a crafted message the stock node replicates and commits."""
    bench.lead()
    bench.node.put("x")
    bench.tick()
    bench.advance(0.2)
    bench.tick()
    assert bench.values == []
    bench.ack("b", bench.last)
    bench.tick()
    assert bench.values == ["x"]

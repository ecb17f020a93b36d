"""The holes of stock PySyncObj (``test_holes_plain.py``), closed: the same scripts, our node."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pysyncobj.pickle
import pysyncobj.syncobj
import pytest

from raftckpt import limits
from raftckpt.errors import InvariantViolation
from raftckpt.raft.configuration import CONFIGURATION, REGULAR, encode_configuration
from raftckpt.raft.messages import (
    KINDS,
    Ack,
    Append,
    Chunk,
    ChunkAck,
    Echo,
    PeerProtocolError,
    PreVote,
    PreVoteAnswer,
    TermIs,
    TimeoutNow,
    VoteGrant,
    VoteRequest,
    decode_body,
)
from raftckpt.raft.port import Role
from raftckpt.storage import REJOINS, Damaged, StaleSnapshot
from tests.sim.bench import BenchMachine, Died, KillableDisk, OurBench
from tests.unit.raft.conftest import Make


def follow(bench: OurBench, count: int, *, term: int = 1, commit: int | None = None) -> None:
    """Let puppet "b" lead in ``term`` and replicate entries 2..count+1 (values = indexes)."""
    entries = [(i, term, i) for i in range(2, count + 2)]
    bench.append("b", term, (1, 0), entries, count + 1 if commit is None else commit)
    bench.tick()
    bench.sent()


def test_h01_ours_syncs_before_an_ack_or_a_vote_leaves(bench: OurBench) -> None:
    syncs = bench.fs.points.count("journal.sync.after")
    bench.append("b", 1, (1, 0), [(2, 1, "x")], 1)
    assert [s.durable for s in bench.sent(Ack)] == [True]
    assert bench.fs.points.count("journal.sync.after") > syncs
    syncs = bench.fs.points.count("journal.sync.after")
    bench.advance(5.0)
    bench.request_vote("c", 2, (2, 1))
    assert [s.durable for s in bench.sent(VoteGrant)] == [True]
    assert bench.fs.points.count("journal.sync.after") > syncs


def test_h01_ours_a_vote_survives_a_restart(bench: OurBench) -> None:
    bench.advance(5.0)
    bench.request_vote("b", 2, (1, 0))
    assert len(bench.sent(VoteGrant)) == 1
    bench.restart()
    bench.advance(5.0)
    bench.request_vote("c", 2, (9, 1))
    assert bench.sent(VoteGrant) == []


@pytest.mark.parametrize("countdown", range(1, 40, 3))
def test_h02_ours_crash_at_any_point_of_a_compaction_loses_nothing(
    bench: OurBench, disk: KillableDisk, countdown: int
) -> None:
    follow(bench, 60, commit=30)
    disk.kill_at("", countdown)
    try:
        assert bench.node.compact()
        bench.settle()
        bench.append("b", 1, (61, 1), [(62, 1, 62)], 30)
    except Died:
        pass
    disk.kill_at("", 0)
    bench.restart()
    held = dict(bench.log)
    assert bench.values == list(range(2, bench.applied + 1))
    assert all(index in held for index in range(31, 62))


def test_h03_ours_crash_between_snapshot_and_trim_keeps_the_tail(
    bench: OurBench, disk: KillableDisk
) -> None:
    follow(bench, 10, commit=6)
    bench.append("b", 1, (11, 1), [(12, 1, 12)], 6)
    disk.kill_at("snapshot.durable")
    bench.node.compact()
    with pytest.raises(Died):
        bench.settle()
    bench.restart()
    assert bench.values == [2, 3, 4, 5, 6]
    assert bench.log[-1] == (12, 1)
    assert {index for index, _ in bench.log} >= set(range(6, 13))


def test_h04_ours_late_heartbeat_truncates_nothing(bench: OurBench) -> None:
    follow(bench, 3, commit=1)
    bench.append("b", 1, (4, 1), [(5, 1, 5), (6, 1, 6)], 1)
    bench.append("b", 1, (4, 1), [], 6)
    assert [s.message.next_index for s in bench.sent(Ack)] == [7, 5]
    assert bench.log[-1] == (6, 1)
    assert bench.commit == 4  # bounded by what the heartbeat has shown to match


def test_h04_ours_keeps_applied_entries(bench: OurBench) -> None:
    follow(bench, 6)
    bench.append("b", 1, (3, 1), [(4, 1, 4)], 7)
    assert bench.log[-1] == (7, 1)
    assert bench.sent(Ack)[-1].message.next_index == 5


def test_h04_ours_truncates_a_conflicting_tail(bench: OurBench) -> None:
    follow(bench, 6, commit=3)
    bench.append("c", 2, (4, 1), [(5, 2, 50)], 5)
    assert bench.log[-1] == (5, 2)
    assert bench.sent(Ack)[-1].message.next_index == 6
    bench.tick()
    assert bench.values == [2, 3, 4, 50]


def test_h04_ours_who_contradicts_what_is_committed_counts_no_more(bench: OurBench) -> None:
    follow(bench, 6)
    before = bench.log
    bench.append("c", 2, (3, 1), [(4, 2, 40)], 4)
    assert bench.log == before
    assert bench.sent(Ack, Echo) == []
    (alarm,) = bench.status.alarms
    assert "entry 4 is of term 1 here and of term 2 there" in alarm
    for again in range(2):  # also after a restart
        bench.advance(5.0)
        bench.request_vote("c", 9 + again, (99, 8))
        bench.append("c", 9 + again, (7, 1), [(8, 9, 80)], 4)
        assert bench.sent(Ack, Echo, VoteGrant, PreVoteAnswer, TermIs) == []
        assert bench.term < 9
        bench.restart()
        assert len(bench.status.alarms) == 1
    bench.advance(5.0)
    bench.request_vote("b", 20, (99, 8))
    assert [s.to for s in bench.sent(VoteGrant)] == ["b"]


def test_h05_ours_stale_ack_of_an_earlier_leadership_is_ignored(bench: OurBench) -> None:
    bench.lead()
    assert bench.propose("never replicated")
    bench.tick()
    bench.ack("b", bench.last, term=bench.term - 1)
    bench.tick()
    assert bench.values == []
    bench.ack("b", bench.last)
    assert bench.values == ["never replicated"]


def test_h05_ours_an_ack_beyond_the_log_closes_the_link(bench: OurBench) -> None:
    bench.lead()
    assert bench.propose("not replicated")
    bench.tick()
    with pytest.raises(PeerProtocolError, match="it holds entries to"):
        bench.ack("b", bench.last + 1000)
    assert bench.node.status().peers[0].match_index == bench.last - 1


def test_h06_ours_snapshot_heartbeat_commits_nothing(bench: OurBench) -> None:
    follow(bench, 5, commit=1)
    bench.inject("c", Append(KINDS[Append], 2, 1, 6, 0, 0, []))
    bench.settle()
    assert bench.values == []
    assert bench.commit == 1


def chunks(make: Make, upto: int, *, term: int, size: int) -> list[Chunk]:
    """What a leader of ``term`` would send as its snapshot of entries up to ``upto``."""
    donor = make(f"donor{upto}")
    follow(donor, upto - 1)
    assert donor.node.compact()
    donor.settle()
    store = donor.storage.snapshots
    meta = store.latest()
    assert meta is not None
    assert meta.index == upto
    return [
        Chunk(
            KINDS[Chunk], term, offset // size + 1, str(meta.id), meta.index, meta.term,
            meta.size, offset, meta.crc, store.read(meta, offset, size),
        )
        for offset in range(0, meta.size, size)
    ]  # fmt: skip


def test_h07_ours_older_snapshot_is_acknowledged_and_ignored(make: Make) -> None:
    old = chunks(make, 4, term=1, size=1 << 20)
    bench = make()
    follow(bench, 8)
    bench.inject("b", *old)
    bench.settle()
    assert bench.values == list(range(2, 10))
    assert bench.applied == 9
    assert [s.message.next_index for s in bench.sent(Ack)] == [10]


def test_h07_ours_snapshot_installs_and_keeps_no_conflicting_tail(make: Make) -> None:
    image = chunks(make, 20, term=2, size=100)
    bench = make()
    follow(bench, 8, commit=3)
    bench.inject("c", *image)
    bench.settle()
    assert bench.values == list(range(2, 21))
    assert bench.log == [(19, 1), (20, 1)]
    assert bench.sent(Ack)[-1].message.next_index == 21
    bench.restart()
    assert bench.values == list(range(2, 21))


def test_h07_ours_damaged_snapshot_is_never_loaded(make: Make) -> None:
    image = chunks(make, 20, term=2, size=1 << 20)
    (whole,) = image
    damaged = bytearray(whole.data)
    damaged[len(damaged) // 2] ^= 1
    bench = make()
    follow(bench, 3, commit=2)
    bench.inject("c", whole._replace(data=bytes(damaged)))
    bench.settle()
    assert bench.values == [2]
    assert [s.message.success for s in bench.sent(Ack) if s.message.success] == []
    bench.inject("c", whole._replace(round=9))
    bench.settle()
    assert bench.values == list(range(2, 21))


def test_h07_ours_hole_in_a_transmission_starts_it_over(make: Make) -> None:
    image = chunks(make, 60, term=1, size=60)
    assert len(image) >= 3
    bench = make()
    bench.inject("b", image[0])
    bench.tick()
    bench.disconnect("b")
    bench.connect("b")
    bench.inject("b", *image[2:])
    bench.tick()
    assert bench.values == []
    assert bench.sent(ChunkAck)[-1].message.received == 0
    bench.inject("b", *image)
    bench.settle()
    assert bench.values == list(range(2, 61))


def test_h08_ours_damaged_snapshot_refuses_to_start(bench: OurBench) -> None:
    follow(bench, 5)
    bench.node.compact()
    bench.settle()
    bench.kill()
    (slot,) = Path(bench.path, "snapshots").glob("*.snapshot")
    data = bytearray(slot.read_bytes())
    data[len(data) // 2] ^= 0xFF
    slot.write_bytes(bytes(data))
    with pytest.raises(Damaged):
        bench.start()


def test_h09_ours_commit_index_is_kept_in_the_order_of_the_log(bench: OurBench) -> None:
    """What was known to be committed is known after a restart, and never more than the log has."""
    follow(bench, 5)
    assert bench.commit == 6
    bench.restart()
    known = bench.commit
    assert 1 < known <= 6
    assert known <= bench.last
    bench.node.compact()
    follow(bench, 5)
    assert bench.node.compact()
    bench.settle()
    bench.restart()
    assert bench.commit == bench.applied == 6  # the snapshot's


def test_h10_ours_exception_in_apply_leaves_the_step(bench: OurBench) -> None:
    def explode(value: Any) -> None:
        raise ValueError(value)

    bench.machine.on_apply = explode
    with pytest.raises(ValueError, match="x"):
        bench.append("b", 1, (1, 0), [(2, 1, "x")], 2)
    assert bench.values == ["x"]  # once: the owner stops the process
    bench.restart()
    follow(bench, 0)
    assert bench.values == ["x"]  # it is known to be committed: applied once to the new state


def test_h11_ours_counts_a_vote_once(make: Make) -> None:
    bench = make(peers=("b", "c", "d", "e"))
    bench.campaign()
    bench.vote("b", bench.term)
    bench.vote("b", bench.term)
    assert not bench.leads
    bench.vote("c", bench.term)
    assert bench.leads


def test_h11_ours_a_half_deaf_node_deposes_nobody(bench: OurBench) -> None:
    bench.lead()
    term = bench.term
    bench.request_vote("c", term + 1, (99, term))
    assert bench.leads
    assert bench.term == term


def test_h11_ours_a_follower_that_hears_a_leader_grants_nothing(bench: OurBench) -> None:
    follow(bench, 3)
    bench.request_vote("c", 5, (99, 4))
    assert bench.sent(VoteGrant) == []
    assert bench.term == 1


def test_h11_ours_a_leader_without_a_majority_steps_down_soon(bench: OurBench) -> None:
    bench.lead()
    for _ in range(20):
        bench.advance(0.05)
        bench.tick()
    assert not bench.leads


class Payload:
    """Makes whoever unpickles it call a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def test_h12_ours_nothing_is_ever_unpickled(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def bomb(*args: Any, **named: Any) -> Any:
        raise AssertionError("pickle was reached")

    for name in ("load", "loads", "dump", "dumps"):
        monkeypatch.setattr(pysyncobj.pickle, name, bomb)
    image = chunks(make, 20, term=1, size=1 << 20)
    bench = make()
    mark = tmp_path / "was here"
    poison = pickle.dumps(Payload(os.mkdir, str(mark)), 2)
    entry = (REGULAR + msgpack.packb(poison), 2, 1)
    membership = (b"\x02" + poison, 3, 1)
    version = (b"\x03" + poison, 3, 1)
    with pytest.raises(PeerProtocolError):
        bench.inject("b", Append(KINDS[Append], 1, 1, 3, 1, 0, [entry, membership]))
    bench.inject("b", Append(KINDS[Append], 1, 1, 3, 1, 0, [entry, version]))
    bench.settle()
    assert bench.values == [poison]
    assert bench.applied == 3
    bench.inject("b", *image)
    bench.settle()
    bench.lead()
    assert bench.propose("x")
    bench.tick()
    bench.ack("b", bench.last)
    assert bench.values[-1] == "x"
    with pytest.raises(PeerProtocolError):
        bench.node.receive("b", poison)
    with pytest.raises(PeerProtocolError):
        bench.node.receive("b", b"\0" + poison)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["apply_command", "apply_command_response", "transmission"])
def test_h12_ours_the_other_messages_of_the_library_do_not_exist(kind: str) -> None:
    with pytest.raises(PeerProtocolError):
        decode_body(b"\0" + msgpack.packb([{"type": kind, "command": b"\0"}]))


def test_h13_ours_a_large_entry_travels_in_one_piece(make: Make) -> None:
    leader = make()
    leader.lead()
    value = os.urandom(limits.ENTRY_PAYLOAD_BYTES_MAX)
    assert leader.propose(value)
    leader.tick()
    appends = [s.message for s in leader.sent(Append) if s.to == "b" and s.message.entries]
    assert len(appends) == 1
    follower = make("f")
    follower.inject("b", *[a._replace(prev_index=1, prev_term=0, entries=[
        (payload, 2, term) for payload, _, term in a.entries
    ], commit=2) for a in appends])  # fmt: skip
    follower.settle()
    assert follower.values == [value]


def test_h13_ours_an_entry_above_the_limit_is_our_bug(bench: OurBench) -> None:
    bench.lead()
    with pytest.raises(InvariantViolation):
        bench.node.propose(bytes(2 * limits.ENTRY_PAYLOAD_BYTES_MAX))


def test_h14_ours_the_membership_of_the_library_does_not_exist(bench: OurBench) -> None:
    request = CONFIGURATION + pickle.dumps(["rem", "c"], 2)
    with pytest.raises(PeerProtocolError):
        bench.inject("b", Append(KINDS[Append], 1, 1, 2, 1, 0, [(request, 2, 1)]))
    bench.settle()
    assert {p.node for p in bench.status.peers} == {"b", "c"}
    assert not bench.node._engine.conf.dynamicMembershipChange


def test_h14_ours_a_configuration_is_in_force_when_it_is_appended(bench: OurBench) -> None:
    former = bench.status.configuration
    latter = former.with_members(m for m in former.members if m.node != "c")._replace(base=1)
    payload = CONFIGURATION + encode_configuration(latter)
    bench.inject("b", Append(KINDS[Append], 1, 1, 1, 1, 0, [(payload, 2, 1)]))
    bench.tick()
    assert {p.node for p in bench.status.peers} == {"b"}
    assert (bench.status.configuration, bench.status.configuration_index) == (latter, 2)
    bench.append("b", 2, (1, 0), [(2, 2, None)], 1)  # and not any more when it is cut off
    assert {p.node for p in bench.status.peers} == {"b", "c"}
    assert (bench.status.configuration, bench.status.configuration_index) == (former, 1)


def test_h15_ours_conflict_backs_up_in_one_round_trip(bench: OurBench) -> None:
    follow(bench, 20, commit=5)
    bench.append("c", 2, (21, 2), [], 5)
    (reply,) = bench.sent(Ack)
    assert reply.message.reset
    assert reply.message.next_index == 6  # the one above what is committed


def test_h15_ours_one_rewind_per_round_trip(bench: OurBench) -> None:
    bench.lead()
    for value in range(50):
        assert bench.propose(value)
    bench.tick()
    bench.sent()
    answered = bench.node._sender.round
    entries = 0
    for _ in range(8):
        bench.ack("b", 1, success=False, reset=True, answers=answered)
        bench.advance(0.06)
        bench.tick()
        entries += sum(len(s.message.entries) for s in bench.sent(Append) if s.to == "b")
    assert 50 <= entries <= 60


def test_h15_ours_a_lagging_follower_is_not_flooded(make: Make) -> None:
    bench = make(keep_entries=0)
    bench.lead()
    for value in range(20):
        assert bench.propose(value)
    bench.tick()
    bench.ack("b", bench.last)
    bench.node.compact()
    bench.settle()
    bench.ack("b", bench.last)
    bench.sent()
    bench.ack("c", 1, success=False, reset=True)
    bench.settle(30)
    to_c = [s.message for s in bench.sent() if s.to == "c"]
    assert 1 <= len(to_c) <= 3
    assert any(isinstance(m, Chunk) for m in to_c)


def _fed_after_a_snapshot(bench: OurBench, then: Callable[[], None]) -> list[Any]:
    """What "c", that has just installed a snapshot, gets after the next compaction."""
    bench.lead()
    _grow(bench)
    bench.node.compact()
    bench.settle()
    bench.ack("c", 1, success=False, reset=True)
    bench.settle()
    chunk = [s.message for s in bench.sent(Chunk) if s.to == "c"][-1]
    place = bench.status.snapshot_index
    _grow(bench)  # while the snapshot was on its way
    bench.ack("c", place)
    then()
    bench.node.compact()
    bench.settle()
    assert bench.status.snapshot_index > chunk.log_index == place
    bench.sent()
    bench.disconnect("c")  # what was under way is lost
    bench.connect("c")
    bench.settle()
    return [s.message for s in bench.sent(Append, Chunk) if s.to == "c"]


def _grow(bench: OurBench) -> None:
    for value in range(20):
        assert bench.propose(value)
    bench.tick()
    bench.ack("b", bench.last)


def _starts_over(sent: list[Any]) -> bool:
    assert sent
    return any(isinstance(message, Chunk) for message in sent)


def test_a_follower_that_catches_up_is_not_overtaken_by_a_compaction(make: Make) -> None:
    bench = make(keep_entries=0)
    assert not _starts_over(_fed_after_a_snapshot(bench, lambda: None))


def test_nothing_is_kept_for_a_follower_that_gets_no_further(make: Make) -> None:
    bench = make(keep_entries=0)

    def stall() -> None:
        for _ in range(110):
            bench.advance(0.1)
            bench.ack("b", bench.last)

    assert _starts_over(_fed_after_a_snapshot(bench, stall))


def test_what_is_kept_for_a_follower_is_bounded(make: Make) -> None:
    bench = make(keep_entries=0, log_bytes_max=10)
    assert _starts_over(_fed_after_a_snapshot(bench, lambda: None))


def test_h16_ours_a_cut_off_proposal_is_abandoned_once_and_never_called_again(
    bench: OurBench,
) -> None:
    bench.lead()
    assert bench.propose("x", context="ticket")
    bench.tick()
    index, term = bench.last, bench.term
    bench.append("c", term + 1, (index, term), [(index + 1, term + 1, None)], index + 1)
    bench.settle()
    assert bench.values == ["x"]  # it committed all the same: its outcome was unknown
    assert bench.machine.contexts == [("abandoned", "ticket")]


def test_h16_ours_a_follower_refuses_at_once(bench: OurBench) -> None:
    follow(bench, 1)
    assert not bench.propose("x", context="ticket")
    assert bench.machine.contexts == []


def test_h16_ours_entry_swallowed_by_a_snapshot_is_abandoned(make: Make) -> None:
    image = chunks(make, 20, term=9, size=1 << 20)
    bench = make()
    bench.lead()
    assert bench.propose("x", context="ticket")
    bench.tick()
    bench.inject("c", *image)
    bench.settle()
    assert bench.machine.contexts == [("abandoned", "ticket")]


def test_h17_ours_an_older_snapshot_never_replaces_a_newer_one(bench: OurBench) -> None:
    follow(bench, 9)
    writer = bench.storage.snapshots.create(5, 1, b"\0", 1)
    assert bench.node.compact()
    bench.settle()
    assert bench.status.snapshot_index == 10
    with pytest.raises(StaleSnapshot):
        writer.commit()
    assert bench.status.snapshot_index == 10
    assert not bench.node._engine.conf.useFork


def test_h18_ours_a_snapshot_is_sent_through_a_window(make: Make) -> None:
    bench = make(keep_entries=0)
    bench.lead()
    for _ in range(12):
        assert bench.propose(os.urandom(limits.ENTRY_PAYLOAD_BYTES_MAX // 2))
    bench.tick()
    bench.ack("b", bench.last)
    bench.settle(12)
    bench.node.compact()
    bench.settle(3000)
    assert bench.status.snapshot_index > 5
    bench.sent()
    bench.ack("c", 1, success=False, reset=True)
    bench.settle(20)
    sent = [s.message for s in bench.sent(Chunk) if s.to == "c"]
    assert 1 <= len(sent) <= 4
    received = sent[-1].offset + len(sent[-1].data)
    bench.inject(
        "c",
        ChunkAck(KINDS[ChunkAck], bench.term, sent[0].round, sent[0].snapshot, received, 0),
    )
    bench.tick()
    assert bench.sent(Chunk)[0].message.offset == received


def test_h19_ours_late_heartbeat_during_a_compaction(bench: OurBench) -> None:
    follow(bench, 9)
    assert bench.node.compact()
    bench.append("b", 1, (3, 1), [], 10)
    bench.settle()
    assert bench.log[-1] == (10, 1)
    assert bench.status.snapshot_index == 10


def test_h20_ours_a_success_ack_resends_nothing(bench: OurBench) -> None:
    bench.lead()
    first = bench.last
    for value in range(10):
        assert bench.propose(value)
    bench.tick()
    assert sum(len(s.message.entries) for s in bench.sent(Append) if s.to == "b") == 10
    bench.ack("b", first + 3)
    bench.advance(0.2)
    bench.tick()
    assert sum(len(s.message.entries) for s in bench.sent(Append) if s.to == "b") == 0


def test_h21_ours_the_library_reads_our_clock(bench: OurBench) -> None:
    bench.tick()
    assert pysyncobj.syncobj.monotonicTime() == bench.clock.now
    assert pysyncobj.syncobj.monotonicTime() != pytest.approx(time.monotonic(), abs=1.0)


def test_h22_ours_a_lower_term_is_answered(bench: OurBench) -> None:
    follow(bench, 3, term=9)
    bench.append("c", 5, (4, 5), [], 1)
    (answer,) = bench.sent(TermIs)
    assert (answer.to, answer.message.term) == ("c", 9)


@pytest.mark.parametrize("kind", ["ack", "echo", "termis"])
def test_h22_ours_a_higher_term_in_an_answer_deposes(bench: OurBench, kind: str) -> None:
    bench.lead()
    higher = bench.term + 7
    message = {
        "ack": Ack(KINDS[Ack], higher, 1, False, True, 2, 0),
        "echo": Echo(KINDS[Echo], higher, 1, 0),
        "termis": TermIs(KINDS[TermIs], higher),
    }[kind]
    bench.inject("b", message)
    bench.tick()
    assert not bench.leads
    assert bench.term == higher
    assert bench.sent(VoteGrant) == []


def test_bench_our_node_works_at_all(bench: OurBench) -> None:
    bench.lead()
    assert bench.propose("x", context="ticket")
    bench.tick()
    assert bench.values == []
    bench.ack("b", bench.last)
    assert bench.values == ["x"]
    assert bench.machine.contexts == [("applied", "ticket")]
    assert isinstance(bench.machine, BenchMachine)


# --- leadership transfer: late, forged, to a node that does not count ------------------------


def asked_votes(bench: OurBench) -> list[VoteRequest]:
    bench.settle(2)
    return [s.message for s in bench.sent(VoteRequest)]


def test_timeout_now_starts_an_election_at_once_and_is_marked(bench: OurBench) -> None:
    follow(bench, 3)
    bench.inject("b", TimeoutNow(KINDS[TimeoutNow], 1))
    requests = asked_votes(bench)
    assert {(r.term, r.transfer) for r in requests} == {(2, True)}


def test_timeout_now_of_a_former_term_or_of_another_node_is_ignored(bench: OurBench) -> None:
    follow(bench, 3, term=5)
    bench.inject("b", TimeoutNow(KINDS[TimeoutNow], 4))
    bench.inject("c", TimeoutNow(KINDS[TimeoutNow], 5))
    assert asked_votes(bench) == []


def test_timeout_now_followed_by_a_new_leader_leaves_it_in_peace(bench: OurBench) -> None:
    follow(bench, 3)
    bench.disconnect("b")
    bench.disconnect("c")
    bench.inject("b", TimeoutNow(KINDS[TimeoutNow], 1))
    bench.tick()  # connected to nobody: the election waits
    bench.connect("c")
    bench.append("c", 2, (4, 1), [(5, 2, None)], 5)
    assert asked_votes(bench) == []
    assert bench.status.leader == "c"


def learner(make: Make) -> OurBench:
    """A directory of its own that "b" lets in as a learner for the lost one of "a"."""
    bench = make(joins=REJOINS)
    founding = bench.status.configuration
    assert founding.member(bench.id) is None
    former = founding.named("a")
    assert former is not None
    place = former._replace(directory=bench.id, voter=False, promote=True)
    latter = founding.replaced(former, place)._replace(base=1)
    bench.append("b", 1, (1, 0), [(2, 1, None), (3, 1, 3)], 1)
    bench.sent()
    payload = CONFIGURATION + encode_configuration(latter)
    bench.inject("b", Append(KINDS[Append], 1, 2, 4, 3, 1, [(payload, 4, 1)]))
    bench.tick()
    return bench


def test_a_learner_acks_and_is_let_in_by_what_is_committed(make: Make) -> None:
    bench = learner(make)
    assert [s.message.next_index for s in bench.sent(Ack)] == [5]
    assert bench.status.role is Role.LEARNER
    assert bench.storage.identity.joins == ""
    assert bench.values == [3]


def test_timeout_now_to_a_learner_is_ignored(make: Make) -> None:
    bench = learner(make)
    bench.inject("b", TimeoutNow(KINDS[TimeoutNow], 1))
    assert asked_votes(bench) == []


def test_a_learner_never_campaigns_and_votes_by_term_and_log_alone(make: Make) -> None:
    """The asker counts, by the configuration that it holds: it may be a later one."""
    bench = learner(make)
    bench.advance(5.0)
    bench.settle()
    assert bench.sent(PreVote, VoteRequest) == []
    bench.request_vote("c", 2, (3, 1))
    assert bench.sent(VoteGrant) == []
    bench.request_vote("c", 3, (4, 1))
    assert [s.to for s in bench.sent(VoteGrant)] == ["c"]


def test_a_vote_of_who_is_no_voter_does_not_count(bench: OurBench) -> None:
    bench.connect("stranger")
    bench.campaign()
    bench.vote("stranger", bench.term)
    assert not bench.leads
    bench.vote("b", bench.term)
    assert bench.leads


def test_an_answer_of_who_is_no_member_does_not_count(bench: OurBench) -> None:
    bench.lead()
    bench.connect("stranger")
    term = bench.term
    assert bench.propose("x")
    bench.tick()
    bench.ack("stranger", bench.last)
    assert bench.values == []
    bench.inject("stranger", TermIs(KINDS[TermIs], term + 9))
    bench.inject("stranger", Append(KINDS[Append], term + 9, 1, 9, 0, 0, []))
    bench.tick()
    assert (bench.leads, bench.term) == (True, term)


def test_a_vote_that_is_told_twice_counts_once(make: Make) -> None:
    bench = make(peers=("b", "c", "d", "e"))
    bench.campaign()
    for voter in ("b", "b", "c"):
        assert not bench.leads
        bench.vote(voter, bench.term)
    assert bench.leads

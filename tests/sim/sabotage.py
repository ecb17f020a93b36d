"""Planted bugs, each a line or two: what the checks of a world must catch.

A checker that has never failed checks nothing; ``python -m tests.sim --sabotage NAME`` shows how
many seeds a bug survives, ``--planted N`` prints the table. What honest peers never bring about by
themselves (stale acks, old snapshots) is caught by the scripts of ``tests/unit/raft`` and
``test_directed.py`` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgpack
from pysyncobj.syncobj import SyncObj

from raftckpt.client import outcomes, session
from raftckpt.model import checkpoints, content, parts, replies
from raftckpt.model.changes import ChangeKind
from raftckpt.model.types import Result
from raftckpt.node import flight, liveness, stamps
from raftckpt.node.reads import WaitingReads
from raftckpt.protocol.kinds import PartKind
from raftckpt.protocol.operations import Due
from raftckpt.raft import elections, following, node, reads, sending
from raftckpt.raft.engine import LEADER, Engine
from raftckpt.raft.fitting import Fitted
from raftckpt.storage import _recovery, journal, snapshots
from tests.sim import machine
from tests.sim.sabotage_members import MEMBER_PLANTS


def _ack_before_sync() -> Iterator[tuple[Any, str, Any]]:
    original = node.RaftNode._sync_and_release

    def release_first(self: Any) -> None:
        log, self._log = self._log, _NeverDirty()
        original(self)
        self._log = log
        original(self)

    yield node.RaftNode, "_sync_and_release", release_first


class _NeverDirty:
    dirty = False


def _truncate_always() -> Iterator[tuple[Any, str, Any]]:
    def as_it_came(log: Any, settled: int, append: Any) -> Fitted:
        first, last = log[0][1], log[-1][1]
        prev = append.prev_index
        fits = first <= prev <= last and log[prev - first][2] == append.prev_term
        matched = prev + len(append.entries) if fits else None
        return Fitted(prev, append.prev_term, append.entries, append.commit, matched)

    yield following, "fit", as_it_came
    yield Engine, "_SyncObj__deleteEntriesFrom", lambda self, index: self.log.truncate_from(index)


def _commit_unbounded() -> Iterator[tuple[Any, str, Any]]:
    original = following.fit

    def unbounded(log: Any, settled: int, append: Any) -> Fitted:
        return original(log, settled, append)._replace(commit=append.commit)

    yield following, "fit", unbounded


def _stale_acks_count() -> Iterator[tuple[Any, str, Any]]:
    original = node.RaftNode._on_answer

    def on_answer(self: Any, name: str, answer: Any) -> None:
        original(self, name, answer._replace(term=max(answer.term, self._engine.term)))

    yield node.RaftNode, "_on_answer", on_answer


def _acks_claim_everything() -> Iterator[tuple[Any, str, Any]]:
    original = following.Following.answers

    def answers(self: Any, name: str, reset: bool, success: bool) -> None:
        if success:
            self._matched = self._engine.log[-1][1]
        original(self, name, reset, success)

    yield following.Following, "answers", answers


def _old_snapshots_install() -> Iterator[tuple[Any, str, Any]]:
    original = following.Following.on_chunk

    def on_chunk(self: Any, name: str, chunk: Any) -> None:
        engine = self._engine
        settled = engine.applied
        engine.applied = engine._SyncObj__raftCommitIndex = 0
        original(self, name, chunk)
        engine.applied = max(settled, engine.applied)

    yield following.Following, "on_chunk", on_chunk
    yield following.Following, "_holds", lambda self, index, term: False


def _votes_are_not_kept() -> Iterator[tuple[Any, str, Any]]:
    original = journal.Journal.set_hard_state

    def forgetful(self: Any, term: int, vote: str | None, extra: int | None = None) -> None:
        if term > self.term:
            original(self, term, None, extra)

    yield journal.Journal, "set_hard_state", forgetful


def _terms_are_not_kept() -> Iterator[tuple[Any, str, Any]]:
    yield journal.Journal, "set_hard_state", lambda *_args, **_named: None


def _reads_unconfirmed() -> Iterator[tuple[Any, str, Any]]:
    original = reads.Reads.settle

    def settle(self: Any, confirmed_round: int, applied: int) -> None:
        original(self, 1 << 60, applied)

    yield reads.Reads, "settle", settle


def _reads_trust_rounds_under_way() -> Iterator[tuple[Any, str, Any]]:
    original = reads.Reads.number

    def number(self: Any, last_round: int, commit: int) -> bool:
        return original(self, last_round - 2, commit)

    yield reads.Reads, "number", number


def _ready_before_the_noop() -> Iterator[tuple[Any, str, Any]]:
    yield node.RaftNode, "_ready", lambda self: self._engine.role == LEADER


def _commit_by_one_less() -> Iterator[tuple[Any, str, Any]]:
    original = sending.Sender.on_ack

    def on_ack(self: Any, name: str, ack: Any) -> None:
        original(self, name, ack)
        for peer in self._engine._SyncObj__otherNodes:
            matches = self._engine._SyncObj__raftMatchIndex
            matches[peer] = max(matches.values())

    def counts_itself(self: Any) -> None:
        for peer in self._engine._SyncObj__otherNodes:
            self._engine._SyncObj__raftMatchIndex[peer] = self._engine.log[-1][1]
        lead(self)

    lead = sending.Sender.send_round
    yield sending.Sender, "on_ack", on_ack
    yield sending.Sender, "send_round", counts_itself


def _images_are_lazy() -> Iterator[tuple[Any, str, Any]]:
    def lazy(self: Any) -> Iterator[bytes]:
        head = msgpack.packb([self.index, self.chain, len(self.values), self.ballast])
        yield len(head).to_bytes(4, "big") + head
        start = 0
        while start < len(self.values):  # the living list, which grows meanwhile
            yield b"".join(self.values[start : start + 32])
            start += 32
        yield bytes(self.ballast)

    yield machine.ListMachine, "freeze", lazy


def _outcome_by_index_alone() -> Iterator[tuple[Any, str, Any]]:
    def follow_up(self: Any) -> None:
        self._lost_leadership = False
        self._announce()

    yield node.RaftNode, "_follow_up", follow_up


def _truncations_are_not_logged() -> Iterator[tuple[Any, str, Any]]:
    original = journal.Journal._record

    def record(self: Any, kind: int, *rest: Any) -> None:
        if kind != journal.rec.TRUNCATE:
            original(self, kind, *rest)

    yield journal.Journal, "_record", record


def _snapshots_are_not_synced() -> Iterator[tuple[Any, str, Any]]:
    original = snapshots._Slot._publish

    def publish(self: Any, meta: Any) -> None:
        self._file.sync = lambda: None
        original(self, meta)

    yield snapshots._Slot, "_publish", publish


def _misaligned_journal_is_kept() -> Iterator[tuple[Any, str, Any]]:
    yield journal, "_aligned", lambda directory, found, snapshot: True


def _grants_without_looking_at_the_log() -> Iterator[tuple[Any, str, Any]]:
    original = elections.Voting.on_request

    def on_request(self: Any, name: str, request: Any) -> None:
        original(self, name, request._replace(last_term=1 << 40))

    yield elections.Voting, "on_request", on_request
    yield elections.Voting, "on_question", _granting(elections.Voting.on_question)


def _granting(original: Any) -> Callable[..., None]:
    return lambda self, name, question: original(self, name, question._replace(last_term=1 << 40))


def _new_leader_commits_old_entries() -> Iterator[tuple[Any, str, Any]]:
    original = SyncObj._SyncObj__onBecomeLeader  # type: ignore[attr-defined]

    def no_noop_check(self: Any) -> None:
        original(self)
        self._SyncObj__raftCommitIndex = self.log[-1][1] - 1  # "everything before us is committed"

    yield Engine, "_SyncObj__onBecomeLeader", no_noop_check


def _a_vote_counts_twice() -> Iterator[tuple[Any, str, Any]]:
    original = elections.Voting.on_grant

    def on_grant(self: Any, name: str, grant: Any) -> None:
        original(self, name, grant)
        self._timer._voters.discard(name)
        original(self, name, grant)

    yield elections.Voting, "on_grant", on_grant


def _journal_checksums_are_not_looked_at() -> Iterator[tuple[Any, str, Any]]:
    original = _recovery.rec.read_record

    def read_record(data: bytes, offset: int, salt: int) -> Any:
        record = original(data, offset, salt)
        if record is not None and record.payload is None and record.stop <= len(data):
            start = offset + _recovery.rec.RECORD_HEADER_BYTES
            return record._replace(payload=data[start : record.stop])
        return record

    yield _recovery.rec, "read_record", read_record


def _damage_is_taken_for_a_torn_write() -> Iterator[tuple[Any, str, Any]]:
    yield _recovery.rec, "looks_torn", lambda data, start, stop: True
    yield _recovery.rec, "claims_synced", lambda data, offset, salt, sequence: False


def _snapshots_are_not_verified() -> Iterator[tuple[Any, str, Any]]:
    original = snapshots._Verifier._trailer

    def block(self: Any, buffer: bytearray, position: int) -> int:
        length, _ = snapshots._BLOCK.unpack_from(buffer, position)
        stop = position + snapshots._BLOCK.size + length
        if length == 0:
            return int(self._trailer(buffer, position))
        if len(buffer) < stop:
            return 0
        data = bytes(buffer[position + snapshots._BLOCK.size : stop])
        self._blocks, self._body = self._blocks + 1, self._body + length
        if self._keep:
            self.blocks.append(data)
        return int(stop - position)

    def trailer(self: Any, buffer: bytearray, position: int) -> int:
        if len(buffer) - position >= snapshots._TRAILER.size:
            self._crc = snapshots._TRAILER.unpack_from(buffer, position)[1]
        return original(self, buffer, position)

    yield snapshots._Verifier, "_block", block
    yield snapshots._Verifier, "_trailer", trailer


# --- of the service ---------------------------------------------------------------------------


def _repeats_are_executed() -> Iterator[tuple[Any, str, Any]]:
    admit, remember = replies.ReplyTable.admit, replies.ReplyTable.remember
    repeated: set[int] = set()

    def admit_all(self: Any, sequence: int, answered: int) -> Any:
        known = admit(self, sequence, answered)
        if known is not None and self.answered < sequence <= self.last:
            repeated.add(id(self))
            return None
        return known

    def remember_new(self: Any, result: Any) -> None:
        if id(self) in repeated:
            repeated.discard(id(self))
        else:
            remember(self, result)

    yield replies.ReplyTable, "admit", admit_all
    yield replies.ReplyTable, "remember", remember_new


def _abandoned_is_definite() -> Iterator[tuple[Any, str, Any]]:
    def abandon(self: Any, contexts: list[Any]) -> None:
        for proposal in contexts:
            self._landed(proposal)
            for _, request, owner in proposal.waiting():
                if owner is not None:
                    owner.refuse(request, 6, "leadership_lost", None, definite=True)

    yield flight.Flight, "abandon", abandon


def _time_outs_are_definite() -> Iterator[tuple[Any, str, Any]]:
    original = outcomes.at_deadline

    def at_deadline(call: Any, **rest: Any) -> Any:
        error = original(call, **rest)
        error.definite = True
        return error

    yield outcomes, "at_deadline", at_deadline


def _reads_skip_the_round() -> Iterator[tuple[Any, str, Any]]:
    yield node.RaftNode, "read_index", lambda self, done: done(True)


def _own_reads_do_not_wait() -> Iterator[tuple[Any, str, Any]]:
    yield WaitingReads, "_caught_up", lambda self, state, sequence: True


def _accepted_is_forgotten() -> Iterator[tuple[Any, str, Any]]:
    original = session.CommandLog.accepted

    def accepted(self: Any, call: Any) -> None:
        original(self, call)
        self.window.settle(call)

    yield session.CommandLog, "accepted", accepted


def _old_attempts_are_executed() -> Iterator[tuple[Any, str, Any]]:
    admit, remember = replies.ReplyTable.admit, replies.ReplyTable.remember
    old: set[int] = set()

    def admit_old(self: Any, sequence: int, answered: int) -> Any:
        known = admit(self, sequence, answered)
        if sequence <= self.answered:
            old.add(id(self))
            return None
        return known

    def remember_new(self: Any, result: Any) -> None:
        if id(self) in old:
            old.discard(id(self))
        else:
            remember(self, result)

    yield replies.ReplyTable, "admit", admit_old
    yield replies.ReplyTable, "remember", remember_new


def _time_of_the_leaders_clock() -> Iterator[tuple[Any, str, Any]]:
    yield stamps, "trusted_clock", lambda clocks, voters: clocks[0]


def _time_may_go_back() -> Iterator[tuple[Any, str, Any]]:
    original = stamps.ClusterTime.stamp

    def stamp(self: Any, now: float) -> int:
        clock = stamps.trusted_clock(self._wall_clocks(), self._voters())
        return original(self, now) if clock is None else clock

    yield stamps.ClusterTime, "stamp", stamp


def _dead_sessions_are_kept() -> Iterator[tuple[Any, str, Any]]:
    yield liveness.Liveness, "dead", lambda self, now, most: []
    yield liveness.Liveness, "deadline", lambda self: float("inf")


def _what_is_due_is_forgotten() -> Iterator[tuple[Any, str, Any]]:
    original = flight.Flight.enqueue

    def enqueue(self: Any, owner: Any, request: int, command: Any, *rest: Any) -> Any:
        if type(command) is not Due:
            return original(self, owner, request, command, *rest)
        return None

    yield flight.Flight, "enqueue", enqueue


def _unfenced(original: Any) -> Callable[..., Any]:
    def refuse(*args: Any) -> Any:
        refusal = original(*args)
        fenced = refusal is not None and refusal.value.reason == "fenced"
        return None if fenced else refusal

    return refuse


def _fences_are_ignored() -> Iterator[tuple[Any, str, Any]]:
    yield content, "_refuse_write", _unfenced(content._refuse_write)
    guarded = checkpoints.Checkpoint.refuse_change
    yield checkpoints.Checkpoint, "refuse_change", _unfenced(guarded)


def _conditions_are_not_looked_at() -> Iterator[tuple[Any, str, Any]]:
    original = parts._planned

    def planned(checkpoint: Any, now_ns: int, rows: Any, **named: Any) -> Any:
        return original(checkpoint, now_ns, [(*row[:4], None, *row[5:]) for row in rows], **named)

    yield parts, "_planned", planned


def _half_a_transaction_is_kept() -> Iterator[tuple[Any, str, Any]]:
    original = parts._begin

    def begin(state: Any, session: Any, handle: int, rows: Any, **named: Any) -> Any:
        plan = original(state, session, handle, rows, **named)
        half = rows[: len(rows) // 2]
        some = original(state, session, handle, half, **named) if half else plan
        if isinstance(plan, Result) and not isinstance(some, Result):
            told = (ChangeKind.TRANSACTION, session.id, None, some.told)
            parts._carry_out(state, some, state.revise(some.checkpoint, *told))
        return plan

    yield parts, "_begin", begin


def _appends_are_done_twice() -> Iterator[tuple[Any, str, Any]]:
    def append(plan: Any, part: Any) -> Any:
        offset = original(plan, part)
        original(plan, part)
        plan.told = plan.told[:-1]  # one of a section alone is told as one
        return offset

    original = parts._append
    yield parts, "_PARTS", {**parts._PARTS, PartKind.APPEND: append}


_PLANTS: Final[dict[str, Callable[[], Iterator[tuple[Any, str, Any]]]]] = {
    "ack before sync": _ack_before_sync,
    "truncate always (H4)": _truncate_always,
    "commit unbounded (H4)": _commit_unbounded,
    "stale acks count (H5)": _stale_acks_count,
    "acks claim everything": _acks_claim_everything,
    "old snapshots install (H7)": _old_snapshots_install,
    "votes are not kept (H1)": _votes_are_not_kept,
    "terms are not kept (H1)": _terms_are_not_kept,
    "reads unconfirmed": _reads_unconfirmed,
    "reads trust rounds under way": _reads_trust_rounds_under_way,
    "ready before the no-op": _ready_before_the_noop,
    "commit by one less": _commit_by_one_less,
    "images are lazy": _images_are_lazy,
    "outcome by index alone": _outcome_by_index_alone,
    "truncations are not logged": _truncations_are_not_logged,
    "snapshots are not synced": _snapshots_are_not_synced,
    "misaligned journal is kept (H3)": _misaligned_journal_is_kept,
    "grants without looking at the log": _grants_without_looking_at_the_log,
    "new leader commits old entries": _new_leader_commits_old_entries,
    "a vote counts twice": _a_vote_counts_twice,
    "journal checksums are not looked at": _journal_checksums_are_not_looked_at,
    "damage is taken for a torn write": _damage_is_taken_for_a_torn_write,
    "snapshots are not verified": _snapshots_are_not_verified,
}
_SERVICE_PLANTS: Final[dict[str, Callable[[], Iterator[tuple[Any, str, Any]]]]] = {
    "repeats are executed": _repeats_are_executed,
    "abandoned is definite": _abandoned_is_definite,
    "time-outs are definite": _time_outs_are_definite,
    "reads skip the round": _reads_skip_the_round,
    "own reads do not wait": _own_reads_do_not_wait,
    "accepted is forgotten": _accepted_is_forgotten,
    "old attempts are executed": _old_attempts_are_executed,
    "time of the leader's clock": _time_of_the_leaders_clock,
    "time may go back": _time_may_go_back,
    "dead sessions are kept": _dead_sessions_are_kept,
    "what is due is forgotten": _what_is_due_is_forgotten,
    "fences are ignored": _fences_are_ignored,
    "conditions are not looked at": _conditions_are_not_looked_at,
    "half a transaction is kept": _half_a_transaction_is_kept,
    "appends are done twice": _appends_are_done_twice,
}
SERVICE_SABOTAGES: Final = tuple(_SERVICE_PLANTS)
NO_FSYNC: Final = "no fsync (H1)"
SABOTAGES: Final = (NO_FSYNC, *_PLANTS)
MEMBER_SABOTAGES: Final = tuple(MEMBER_PLANTS)


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant the bug called ``name`` (empty: none) and take it out again."""
    undo: list[tuple[Any, str, Any]] = []
    try:
        plant = (_PLANTS | _SERVICE_PLANTS | MEMBER_PLANTS).get(name)
        for owner, attribute, spoiled in plant() if plant is not None else ():
            undo.append((owner, attribute, owner.__dict__.get(attribute)))
            setattr(owner, attribute, spoiled)
        yield
    finally:
        for owner, attribute, original in reversed(undo):
            if original is None:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, original)

"""Planted bugs of founding, members and levels: what the life of a cluster must catch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from raftckpt.raft import elections, node
from raftckpt.raft.changes import Changes, Wanted, without
from raftckpt.raft.configuration import Configurations, InForce, decode_configuration
from raftckpt.raft.engine import LEADER, LogSeam
from raftckpt.raft.founding import Founding
from raftckpt.raft.peering import Peering
from raftckpt.raft.sending import Sender
from raftckpt.storage import Journal, PeerNotes

__all__ = ["MEMBER_PLANTS"]

Plant = Iterator[tuple[Any, str, Any]]


def _in_force_at_commit() -> Plant:
    appended, configured = Configurations.appended, node.RaftNode._configured

    def late(self: Any, payload: bytes, index: int, term: int) -> None:
        former = getattr(self, "now", None)
        appended(self, payload, index, term)
        if former is not None:
            self.now = former

    def now(self: Any, placed: InForce) -> None:
        self._configurations.now = placed
        self._reconfigured()
        configured(self, placed)

    yield Configurations, "appended", late
    yield node.RaftNode, "_configured", now


def _deaf_to(*beginnings: str) -> Plant:
    against = Changes.against

    def less(self: Any, latter: Any) -> str:
        why = against(self, latter)
        return "" if why.startswith(beginnings) else why

    yield Changes, "against", less


def _two_changes_under_way() -> Plant:
    yield from _deaf_to("the former change")


def _no_entry_of_the_own_term() -> Plant:
    yield from _deaf_to("the leader has not committed")
    yield node.RaftNode, "_ready", lambda self: self._engine.role == LEADER


def _two_votes_at_once() -> Plant:
    yield from _deaf_to("only one vote", "too few")
    removed = Changes._removed

    def two(self: Any, former: Any, name: str) -> Wanted:
        wanted = removed(self, former, name)
        latter = wanted.configuration
        if latter is None or latter == former:
            return wanted
        others = [m for m in latter.members if m.voter and m.directory != self._engine.own]
        return Wanted(without(latter, others[0])) if others else wanted

    yield Changes, "_removed", two


def _new_majority_is_not_asked() -> Plant:
    yield from _deaf_to("too few")


def _learners_count() -> Plant:
    init = InForce.__init__

    def all_vote(self: Any, *args: Any) -> None:
        init(self, *args)
        self.voters = self.directories

    yield InForce, "__init__", all_vote


def _learners_count_in_commits() -> Plant:
    reconfigure = node.lib.Engine.reconfigure

    def all_others(self: Any) -> None:
        reconfigure(self)
        self._SyncObj__otherNodes.update(self._SyncObj__readonlyNodes)

    yield node.lib.Engine, "reconfigure", all_others


def _not_taken_back_on_truncation() -> Plant:
    yield LogSeam, "truncate_from", Journal.truncate_from


def _snapshots_carry_the_founding() -> Plant:
    def first(self: Any, index: int) -> bytes:
        del self._all[1:]
        return placed(self, index)

    placed = Configurations.placed
    yield Configurations, "placed", first


def _snapshots_carry_what_is_in_force() -> Plant:
    placed = Configurations.placed
    yield Configurations, "placed", lambda self, index: placed(self, 1 << 62)


def _one_that_lags_is_promoted() -> Plant:
    yield Changes, "_has_kept_up", lambda self, name: True
    yield Changes, "_holds_all", lambda self, name: True


def _the_leader_appends_its_own_removal() -> Plant:
    yield from _deaf_to("the leader itself")

    def removed(self: Any, former: Any, name: str) -> Wanted:
        there = former.named(name)
        return Wanted(former if there is None else without(former, there))

    yield Changes, "_removed", removed


def _votes_count_by_node_id() -> Plant:
    def on_grant(self: Any, directory: str, grant: Any) -> None:
        raft = self._emit.__self__
        names = {m.node for m in self._configurations.now.configuration.members if m.voter}
        known = raft._node_of(directory) in names and grant.term == self._engine.term
        if known and self._timer.first_vote(directory, grant.term):
            self._engine.deliver(directory, {"type": "response_vote", "term": grant.term})

    yield elections.Voting, "on_grant", on_grant


def _a_rejoined_one_votes_at_once() -> Plant:
    let_in = Changes._let_in

    def at_once(self: Any, former: Any, info: Any) -> Wanted:
        wanted = let_in(self, former, info)
        if wanted.configuration is None:
            return wanted
        member = wanted.configuration.member(info.directory)
        return Wanted(
            wanted.configuration.replaced(member, member._replace(voter=True, promote=False))
        )

    yield Changes, "_let_in", at_once
    yield from _deaf_to("only one vote", "too few")


def _learners_refuse_to_vote() -> Plant:
    on_request = elections.Voting.on_request

    def voters_only(self: Any, directory: str, request: Any) -> None:
        if self._engine.votes:
            on_request(self, directory, request)

    yield elections.Voting, "on_request", voters_only


def _strangers_get_no_link() -> Plant:
    objection = Peering.objection

    def members_only(self: Any, hello: Any) -> tuple[str | None, bool]:
        if self._members and hello.node not in self._members and not hello.joins:
            return "no member", False
        return objection(self, hello)

    yield Peering, "objection", members_only


def _removal_before_it_is_committed() -> Plant:
    reconfigured = node.RaftNode._reconfigured

    def at_once(self: Any) -> None:
        reconfigured(self)
        place = self._configurations.now.place
        for gone in self._sender.left():
            message = node.Removed(node.KINDS[node.Removed], *place)
            self._emit_early(gone, node.encode(message))

    yield node.RaftNode, "_reconfigured", at_once


def _the_file_wins() -> Plant:
    init, peering = node.RaftNode.__init__, Peering.__init__

    def remembers(self: Any, directory: Any, config: Any, nodes: Any, **named: Any) -> None:
        directory.file = frozenset(nodes)
        peering(self, directory, config, nodes, **named)

    def by_file(self: Any, config: Any, machine: Any, storage: Any, *args: Any) -> None:
        init(self, config, machine, storage, *args)
        now = self._configurations.now
        listed = [m for m in now.configuration.members if m.node in storage.directory.file]
        voters = frozenset(m.directory for m in listed if m.voter)
        if self._id in voters:
            now.voters, now.majority = voters, len(voters) // 2 + 1
            self._engine.reconfigure()

    yield Peering, "__init__", remembers
    yield node.RaftNode, "__init__", by_file


def _alone_before_the_sync() -> Plant:
    begin = node.RaftNode.begin

    def not_synced(self: Any) -> None:
        log, self._log = self._log, _Unsynced(self._log)
        try:
            begin(self)
        finally:
            self._log = log

    yield node.RaftNode, "begin", not_synced


class _Unsynced:
    """A log whose syncs are put off."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def __getitem__(self, item: Any) -> Any:
        return self._log[item]

    def sync(self) -> None:
        pass


def _built_on_an_old_version() -> Plant:
    asked, against = Changes.asked, Changes.against

    def stale(self: Any, call: Callable[..., Any], argument: Any) -> Any:
        configurations = self._configurations
        now, configurations.now = configurations.now, configurations._all[0]
        try:
            return call(self, argument)
        finally:
            configurations.now = now

    yield Changes, "asked", lambda self, change: stale(self, asked, change)
    yield Changes, "against", lambda self, latter: stale(self, against, latter)


def _starts_are_not_remembered() -> Plant:
    yield PeerNotes, "objection", lambda self, *start: None
    yield node.RaftNode, "objection", lambda self, peer: None


def _a_refusal_is_forgotten() -> Plant:
    yield PeerNotes, "went_back", lambda self, sentence: None


def _founded_by_a_majority() -> Plant:
    def majority(self: Any, record: bytes) -> bool:
        members = decode_configuration(record).members if record else ()
        wrote = sum(
            m.directory == self._own.directory
            or (m.directory in self._told and self._told[m.directory].record == record)
            for m in members
        )
        return wrote > len(members) // 2 > 0

    yield Founding, "_all_wrote", majority


def _the_level_rises_by_a_majority() -> Plant:
    level = Changes._level

    def sooner(self: Any, former: Any) -> Any:
        can = [i for i in self._linked.values() if i.highest > former.level]
        if not former.pinned and self._own.highest > former.level and can:
            yield "", Wanted(former._replace(level=former.level + 1))
        else:
            yield from level(self, former)

    yield Changes, "_level", sooner


def _learners_confirm_reads() -> Plant:
    def by_anybody(self: Any) -> int:
        rounds = sorted((f.answered_round for f in self._followers.values()), reverse=True)
        return [self.round, *rounds][self._configurations.now.majority - 1]

    yield Sender, "confirmed_round", by_anybody


def _clocks_of_learners_count() -> Plant:
    wall_clocks = node.RaftNode.wall_clocks

    def all_clocks(self: Any) -> Any:
        now = self._configurations.now
        voters, now.voters = now.voters, now.directories
        try:
            return wall_clocks(self)
        finally:
            now.voters = voters

    def on_answer(self: Any, directory: str, answer: Any) -> None:
        answered(self, directory, answer)
        self._walls[directory] = node._Heard(answer.wall_ns, self._now(), answer.term, "")

    answered = node.RaftNode._on_answer
    yield node.RaftNode, "wall_clocks", all_clocks
    yield node.RaftNode, "_on_answer", on_answer


def _a_place_opens_without_its_token() -> Plant:
    let_in = Changes._let_in

    def unlocked(self: Any, former: Any, info: Any) -> Wanted:
        there = former.named(info.node)
        if there is not None and not there.directory:
            return Wanted(former.replaced(there, there._replace(directory=info.directory)))
        return let_in(self, former, info)

    yield Changes, "_let_in", unlocked


def _rejoined_while_the_former_is_here() -> Plant:
    let_in = Changes._let_in

    def dead_at_once(self: Any, former: Any, info: Any) -> Wanted:
        recent_s, self._recent_s = self._recent_s, -1.0
        try:
            return let_in(self, former, info)
        finally:
            self._recent_s = recent_s

    yield Changes, "_let_in", dead_at_once


def _the_commit_index_is_not_kept() -> Plant:
    yield node.RaftNode, "_note_commit", lambda self: None


def _a_removal_silences_before_it_is_committed() -> Plant:
    may_hold = Configurations.may_hold
    yield Configurations, "may_hold", lambda self, directory, _: may_hold(self, directory, 1 << 62)


def _what_was_cut_off_is_told() -> Plant:
    def all_of_them(self: Any, members: Any) -> list[str]:
        leaving, self._leaving = sorted(self._leaving), set()
        return leaving

    yield Sender, "left", all_of_them


def _a_compaction_overtakes() -> Plant:
    yield Sender, "needed", lambda self: float("inf")


MEMBER_PLANTS: Final[dict[str, Callable[[], Plant]]] = {
    "in force at commit": _in_force_at_commit,
    "two changes under way": _two_changes_under_way,
    "no entry of the own term": _no_entry_of_the_own_term,
    "two votes at once": _two_votes_at_once,
    "the new majority is not asked": _new_majority_is_not_asked,
    "learners count": _learners_count,
    "learners count in commits": _learners_count_in_commits,
    "not taken back on truncation": _not_taken_back_on_truncation,
    "snapshots carry the founding": _snapshots_carry_the_founding,
    "snapshots carry what is in force": _snapshots_carry_what_is_in_force,
    "one that lags is promoted": _one_that_lags_is_promoted,
    "the leader appends its own removal": _the_leader_appends_its_own_removal,
    "votes count by node id": _votes_count_by_node_id,
    "a rejoined one votes at once": _a_rejoined_one_votes_at_once,
    "learners refuse to vote": _learners_refuse_to_vote,
    "strangers get no link": _strangers_get_no_link,
    "removal before it is committed": _removal_before_it_is_committed,
    "the file wins": _the_file_wins,
    "alone before the sync": _alone_before_the_sync,
    "built on an old version": _built_on_an_old_version,
    "starts are not remembered": _starts_are_not_remembered,
    "a refusal is forgotten": _a_refusal_is_forgotten,
    "founded by a majority": _founded_by_a_majority,
    "the level rises by a majority": _the_level_rises_by_a_majority,
    "learners confirm reads": _learners_confirm_reads,
    "clocks of learners count": _clocks_of_learners_count,
    "a place opens without its token": _a_place_opens_without_its_token,
    "rejoined while the former is here": _rejoined_while_the_former_is_here,
    "the commit index is not kept": _the_commit_index_is_not_kept,
    "a removal silences before it is committed": _a_removal_silences_before_it_is_committed,
    "a removal that was cut off is told": _what_was_cut_off_is_told,
    "a compaction overtakes who catches up": _a_compaction_overtakes,
}

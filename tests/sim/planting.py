"""Where each planted bug is looked for: world, fault families, and who catches it.

``python -m tests.sim --planted 50`` measures how many seeds each one survives and prints the table
of docs/inside/simulation.md; ``test_planted.py`` demands that each is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.sim.life import LifeWorld
from tests.sim.nodes import Tuning
from tests.sim.service import ServiceWorld
from tests.sim.world import World

SEEDS_MAX: Final = 25


class Hunt(NamedTuple):
    """How a planted bug is brought out, and a word of the invariant that catches it."""

    families: frozenset[str]
    invariant: str
    service: bool = False
    size: int = 3
    seconds: float = 6.0

    def world(self, bug: str, seed: int) -> World:
        """A busy world with the bug in it: it has little to hide in."""
        families = set(self.families)
        if self.service:
            return ServiceWorld(
                seed,
                seconds=5.0,
                families=families,
                size=self.size,
                sabotage=bug,
                clients=6,
                founded=True,
            )
        world = World(
            seed,
            seconds=self.seconds,
            families=families,
            size=self.size,
            sabotage=bug,
            founded=True,
        )
        world.write_gap_s, world.read_gap_s = 0.005, 0.02
        world.tuning = Tuning(1, 2, 2048, 2)
        if "compact" in families:
            world.snapshot_entries, world.ballast = 60, 6000
        return world


def _hunt(families: str, invariant: str, size: int = 3, seconds: float = 6.0) -> Hunt:
    return Hunt(frozenset(families.split()), invariant, False, size, seconds)


def _service(families: str, invariant: str) -> Hunt:
    return Hunt(frozenset(families.split()), invariant, True)


HUNTS: Final[dict[str, Hunt]] = {
    "no fsync (H1)": _hunt("kill", "durable"),
    "ack before sync": _hunt("kill", "durable"),
    "votes are not kept (H1)": _hunt("power", "vote"),
    "terms are not kept (H1)": _hunt("power", "vote"),
    "truncate always (H4)": _hunt("partition kill frozen_leader", "committed entry"),
    "commit unbounded (H4)": _hunt("partition kill frozen_leader", "committed entry"),
    "acks claim everything": _hunt("partition kill frozen_leader", "acknowledged"),
    "reads unconfirmed": _hunt("frozen_leader", "linearizable"),
    "reads trust rounds under way": _hunt("frozen_leader", "linearizable"),
    "ready before the no-op": _hunt("kill transfer", "linearizable"),
    "commit by one less": _hunt("kill", "majority"),
    "outcome by index alone": _hunt("partition frozen_leader", "queues"),
    "truncations are not logged": _hunt("partition frozen_leader power", "Damaged"),
    "snapshots are not synced": _hunt("compact power power_all", "Damaged"),
    "grants without looking at the log": _hunt("partition kill transfer", "leader completeness"),
    "new leader commits old entries": _hunt("partition frozen_leader kill", "majority"),
    "images are lazy": _hunt("compact kill power", "", 3, 10.0),
    "journal checksums are not looked at": _hunt("rot power", ""),
    "damage is taken for a torn write": _hunt("rot power", "durable"),
    "snapshots are not verified": _hunt("rot compact power", "", 3, 10.0),
    "repeats are executed": _service("transfer pause", "at most one effect"),
    "abandoned is definite": _service("transfer pause", "definite failure"),
    "time-outs are definite": _service("kill partition", "definite failure"),
    "reads skip the round": _service("frozen_leader", "linearizable"),
    "own reads do not wait": _service("slow_disk", "own writes"),
    "accepted is forgotten": _service("kill partition", "it happened"),
    "time of the leader's clock": _service("wall_jump", "one bad clock"),
    "time may go back": _service("wall_jump kill", "never goes back"),
    "dead sessions are kept": _service("reset", "dead clients end"),
    "what is due is forgotten": _service("reset", "due is done"),
    "fences are ignored": _service("reset", "a fence holds"),
    "conditions are not looked at": _service("reset", "a condition holds"),
    "half a transaction is kept": _service("reset", "all or nothing"),
    "appends are done twice": _service("reset", "all or nothing"),
}
MEMBER_HUNTS: Final[dict[str, int]] = {
    "in force at commit": 2,
    "two changes under way": 2,
    "no entry of the own term": 1,
    "two votes at once": 2,
    "learners count": 1,
    "learners count in commits": 1,
    "snapshots carry the founding": 1,
    "one that lags is promoted": 1,
    "a rejoined one votes at once": 1,
    "the file wins": 4,
    "built on an old version": 2,
    "the level rises by a majority": 2,
}
"""Planted bugs of members and levels that the life of a cluster brings out, and where to begin."""
_RAFT: Final = "tests/unit/raft/"
_HOLES: Final = "tests/unit/raft/test_holes_ours.py::"
MEMBERS_SCRIPTED: Final[dict[str, str]] = {
    "the new majority is not asked": _RAFT
    + "test_changes.py::test_a_majority_of_the_new_voters_must_hold_all_that_is_committed",
    "the leader appends its own removal": _RAFT
    + "test_changes.py::test_the_leader_does_not_append_its_own_removal",
    "not taken back on truncation": _RAFT
    + "test_holes_ours.py::test_h14_ours_a_configuration_is_in_force_when_it_is_appended",
    "snapshots carry what is in force": _RAFT
    + "test_configuration.py::test_a_snapshot_carries_the_one_of_its_index",
    "votes count by node id": _RAFT
    + "test_members.py::test_a_vote_counts_for_its_directory_and_not_for_its_node",
    "learners refuse to vote": _RAFT
    + "test_holes_ours.py::test_a_learner_never_campaigns_and_votes_by_term_and_log_alone",
    "strangers get no link": _RAFT
    + "test_peering.py::test_a_stranger_of_the_same_founding_gets_a_link",
    "removal before it is committed": _RAFT
    + "test_members.py::test_a_member_is_told_of_its_removal_when_that_is_committed",
    "alone before the sync": _RAFT
    + "test_node.py::test_a_replica_alone_applies_nothing_that_is_not_on_its_disk",
    "starts are not remembered": _RAFT + "test_peering.py::test_a_start_that_went_back_must_stop",
    "a refusal is forgotten": _RAFT
    + "test_peering.py::test_what_a_member_says_of_this_directory_is_never_forgotten",
    "founded by a majority": _RAFT
    + "test_founding.py::test_two_hosts_named_n1_found_nothing_twice",
    "learners confirm reads": _RAFT
    + "test_members.py::test_an_answer_of_a_learner_confirms_no_read",
    "clocks of learners count": _RAFT
    + "test_members.py::test_the_clock_of_a_learner_does_not_count",
    "a place opens without its token": _RAFT + "test_changes.py::test_a_token_opens_nothing_else",
    "rejoined while the former is here": _RAFT
    + "test_changes.py::test_rejoining_is_refused_while_the_former_directory_is_here",
    "the commit index is not kept": _RAFT
    + "test_holes_ours.py::test_h09_ours_commit_index_is_kept_in_the_order_of_the_log",
    "a removal silences before it is committed": _RAFT
    + "test_members.py::test_a_leader_that_appended_the_removal_of_the_next_leader_follows_it",
    "a removal that was cut off is told": _RAFT
    + "test_members.py::test_a_removal_that_was_cut_off_is_told_to_nobody",
    "a compaction overtakes who catches up": _RAFT
    + "test_holes_ours.py::test_a_follower_that_catches_up_is_not_overtaken_by_a_compaction",
}
"""Planted bugs of members that random lives do not bring out, and the script that does."""


def member_world(bug: str, seed: int) -> LifeWorld:
    """A cluster whose members change all the time."""
    families = {"kill", "partition", "transfer"}
    if seed % 2:
        families |= {"power", "compact", "wipe", "frozen_leader"}
    world = LifeWorld(seed, seconds=8.0, families=families, sabotage=bug)
    world.operator.gap_s = 0.3
    if seed % 3 == 0:
        world.snapshot_entries = 30
    return world


SCRIPTED: Final[dict[str, str]] = {
    "stale acks count (H5)": _HOLES + "test_h05_ours_stale_ack_of_an_earlier_leadership_is_ignored",
    "old snapshots install (H7)": _HOLES
    + "test_h07_ours_older_snapshot_is_acknowledged_and_ignored",
    "a vote counts twice": _HOLES + "test_a_vote_that_is_told_twice_counts_once",
    "old attempts are executed": "tests/sim/test_directed_service.py::"
    "test_old_attempt_after_the_watermark_passed_it_does_nothing",
    "misaligned journal is kept (H3)": "tests/unit/storage/test_journal.py::"
    "test_a_journal_that_ends_below_the_snapshot_is_replaced",
}
"""Bugs that need a peer or a crash that honest random runs do not bring about, or hardly ever."""


SOON: Final = {
    "damage is taken for a torn write": 29,
    "truncate always (H4)": 14,
    "journal checksums are not looked at": 9,
    "own reads do not wait": 22,
    "reads skip the round": 48,
    "abandoned is definite": 22,
    "outcome by index alone": 2,
    "dead sessions are kept": 9,
}
"""Where the tests begin to look, so that they are quick; they go on from there."""


def first_catch(bug: str, most: int, start: int = 1) -> tuple[int, str | None]:
    """Seeds tried, and the violation that the last one found."""
    hunt = HUNTS[bug]
    for seed in range(start, start + most):
        found = hunt.world(bug, seed).run().violation
        if found is not None:
            return seed - start + 1, found
    return most, None


def first_catch_of_members(bug: str, most: int) -> tuple[int, str | None]:
    """The seed that caught it, from where it is known to show, and the violation."""
    start = MEMBER_HUNTS[bug]
    for seed in range(start, start + most):
        found = member_world(bug, seed).run().violation
        if found is not None:
            return seed, found
    return start + most, None


def table(most: int) -> Iterator[str]:
    """Lines of the table for the docs."""
    yield "| bug | ring | faults | seeds needed | caught as |"
    yield "|---|---|---|---|---|"
    for bug, hunt in HUNTS.items():
        seeds, found = first_catch(bug, most)
        ring = "service world" if hunt.service else "consensus world"
        what = (found or "**missed**").partition(":")[0].replace("|", " ")
        yield f"| {bug} | {ring} | {', '.join(sorted(hunt.families))} | {seeds} | {what} |"
    for bug, test in (SCRIPTED | MEMBERS_SCRIPTED).items():
        yield f"| {bug} | scripts | `{test.partition('::')[2]}` | - | the script fails |"
    for bug in MEMBER_HUNTS:
        seed, found = first_catch_of_members(bug, most)
        what = (found or "**missed**").partition(":")[0].replace("|", " ")
        yield f"| {bug} | life | all that a life has | {seed} | {what} |"

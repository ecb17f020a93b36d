"""When to start an election and whom to grant one: PreVote, stickiness, broken links, transfer.

PySyncObj counts votes and changes roles; this object decides when it may. A healthy leader is
never deposed by a node that merely cannot hear it (stickiness), a node that cannot win does not
raise terms (PreVote), and a follower whose own connection to the leader breaks does not wait for
the time-out: it campaigns within 30 ms, and those whose link broke as well grant. Because of that
last rule there are no leases: reads always ask a majority.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from raftckpt.raft.engine import LEADER, Engine
from raftckpt.raft.messages import (
    KINDS,
    PeerMessage,
    PreVote,
    PreVoteAnswer,
    TermIs,
    TimeoutNow,
    VoteGrant,
    VoteRequest,
)

__all__ = ["BROKEN_LINK_DELAY_S", "ElectionTimer", "Voting"]

BROKEN_LINK_DELAY_S: Final = 0.030
"""Shorter than a heartbeat, and mostly one has asked all before the next one draws (a guess)."""
RETRY_MIN_S: Final = 0.05  # a round of votes with its syncs, several times (a guess)
RETRY_MAX_S: Final = 0.15  # threefold: two of three seldom ask within one round (a guess)
YIELDS: Final = 8
"""Time-outs that a drained replica lets pass for others, three or four seconds by default: those
who can win campaign at their first."""
RETRIES: Final = 3
"""After a broken link, this many re-arms are short: a split vote must not cost a full time-out."""
_LONG_AGO: Final = float("-inf")


class ElectionTimer:
    """Election timer, PreVote round and vote bookkeeping of one node. Times in seconds."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        rng: random.Random,
        timeout_min_s: float,
        timeout_max_s: float,
    ) -> None:
        self._now = monotonic
        self._rng = rng
        self._min = timeout_min_s
        self._max = timeout_max_s
        self.heard_at = _LONG_AGO
        self.fires_at = 0.0
        self.transfer_term: int | None = None
        """Term for which the leader asked us to campaign without PreVote."""
        self._retries = 0
        self._yielded = 0
        self._asked_term: int | None = None
        self._grants: set[str] = set()
        self._voters: set[str] = set()
        self._voters_term = -1
        self.rearm()

    def retime(self, timeout_min_s: float, timeout_max_s: float) -> None:
        """Wait so long from the next time-out on."""
        self._min, self._max = timeout_min_s, timeout_max_s
        self.rearm()

    def rearm(self) -> None:
        """Wait a random election timeout from now (a short one while the leader is known dead)."""
        bounds = (self._min, self._max)
        if self._retries:
            self._retries -= 1
            bounds = (min(RETRY_MIN_S, self._min), min(RETRY_MAX_S, self._max))
        self.fires_at = self._now() + self._rng.uniform(*bounds)

    def heard_leader(self) -> None:
        """An append of the current term or a newer one arrived: calm down."""
        self.heard_at = self._now()
        self._retries = self._yielded = 0
        self._asked_term = None

    def link_to_leader_broke(self) -> None:
        """The leader's process is probably gone: forget that it was heard, campaign soon."""
        self.heard_at = _LONG_AGO
        self._retries = RETRIES
        soon = self._now() + self._rng.uniform(0.0, BROKEN_LINK_DELAY_S)
        self.fires_at = min(self.fires_at, soon)

    def leader_is_alive(self) -> bool:
        """Whether a leader was heard within the minimum election timeout (stickiness)."""
        return self._now() - self.heard_at < self._min

    def due(self) -> bool:
        """Whether the timer fired."""
        return self._now() >= self.fires_at

    def yields(self) -> bool:
        """Whether a drained replica lets this time-out pass: somebody else may campaign.

        Not for ever: who lacks what is committed cannot win, however little it is drained, and a
        cluster without a leader cannot be told to undrain anybody.
        """
        self._yielded += 1
        if self._yielded > YIELDS:
            return False
        self.rearm()
        return True

    def ask(self, term: int, myself: str, majority: int) -> bool:
        """Open a PreVote round for ``term``; True if our own voice is a majority."""
        self.rearm()
        self._asked_term = term
        self._grants = {myself}
        return len(self._grants) >= majority

    def gives_way(self, asked_term: int, *, asker_first: bool) -> bool:
        """Whether we let another one ask for ``asked_term``; if so, our own round is over.

        Two who ask at the same time would split the votes: the one that comes first in an order
        that both know goes on, the other steps back.
        """
        if self._asked_term == asked_term and not asker_first:
            return False
        self._asked_term = None
        self.rearm()
        return True

    def granted(self, voter: str, asked_term: int, own_term: int, majority: int) -> bool:
        """Count a PreVote grant; True exactly once, when a majority is reached."""
        if asked_term != self._asked_term or asked_term != own_term + 1:
            return False
        self._grants.add(voter)
        if len(self._grants) < majority:
            return False
        self._asked_term = None
        return True

    def first_vote(self, voter: str, term: int) -> bool:
        """Whether this is the first vote of ``voter`` in ``term`` (votes are counted once)."""
        if term != self._voters_term:
            self._voters_term, self._voters = term, set()
        if voter in self._voters:
            return False
        self._voters.add(voter)
        return True


class Voting:
    """Takes the messages of elections in, and starts elections when the timer fires.

    Who is asked answers by term and log alone, voter or not; the *asker* counts, by the
    configuration that it holds. Nobody campaigns who is no voter in its own.
    """

    def __init__(
        self,
        engine: Engine,
        timer: ElectionTimer,
        emit: Callable[[str, PeerMessage], None],
    ) -> None:
        self._engine = engine
        self._timer = timer
        self._emit = emit
        self._configurations = engine.log.configurations

    def adopt(self, term: int) -> None:
        """Step down if ``term`` is newer than ours."""
        if term > self._engine.term:
            self._engine.adopt_term(term)

    def campaign_if_due(self) -> None:
        """Open a PreVote round if no leader was heard for too long."""
        engine = self._engine
        if engine.role == LEADER or not self._timer.due():
            return
        asked, now = engine.term + 1, self._configurations.now
        if not engine.votes:
            self._timer.rearm()
            return
        if engine.own in now.drained and self._timer.yields():
            return
        if self._timer.ask(asked, engine.own, now.majority):
            engine.campaign()
            engine.doTick(0.0)
            return
        last = engine.log[-1]
        question = PreVote(KINDS[PreVote], engine.term, asked, last[1], last[2])
        for name in engine.others:
            if name in now.voters and engine.is_connected(name):
                self._emit(name, question)

    def on_request(self, node: str, request: VoteRequest) -> None:
        """Let PySyncObj decide, unless a living leader forbids it."""
        if request.term < self._engine.term:
            self._emit(node, TermIs(KINDS[TermIs], self._engine.term))
            return
        if not request.transfer and (self._engine.role == LEADER or self._timer.leader_is_alive()):
            return  # stickiness: not even its term is taken over
        self._engine.deliver(
            node,
            {
                "type": "request_vote",
                "term": request.term,
                "last_log_index": request.last_index,
                "last_log_term": request.last_term,
            },
        )

    def on_grant(self, node: str, grant: VoteGrant) -> None:
        """Count a vote once per term and voter."""
        if node not in self._configurations.now.voters:
            return
        if grant.term == self._engine.term and self._timer.first_vote(node, grant.term):
            self._engine.deliver(node, {"type": "response_vote", "term": grant.term})

    def on_question(self, node: str, question: PreVote) -> None:
        """Answer a PreVote: changes nothing here."""
        engine, last = self._engine, self._engine.log[-1]
        granted = (
            question.asked_term > engine.term
            and (question.last_term, question.last_index) >= (last[2], last[1])
            and engine.role != LEADER
            and not self._timer.leader_is_alive()
            and self._timer.gives_way(
                question.asked_term,
                asker_first=(question.last_term, question.last_index, node)
                > (last[2], last[1], engine.own),
            )
        )
        answer = PreVoteAnswer(KINDS[PreVoteAnswer], engine.term, question.asked_term, granted)
        self._emit(node, answer)

    def on_answer(self, node: str, answer: PreVoteAnswer) -> None:
        """Campaign once a majority would vote for us."""
        self.adopt(answer.term)
        now = self._configurations.now
        if (
            answer.granted
            and node in now.voters
            and self._timer.granted(node, answer.asked_term, self._engine.term, now.majority)
            and self._engine.votes  # a configuration may have come since we asked
        ):
            self._engine.campaign()

    def on_timeout_now(self, node: str, message: TimeoutNow) -> None:
        """Campaign at once: the leader itself asks for it."""
        if not self._engine.votes:
            return
        if message.term == self._engine.term and node == self._engine.leader:
            self._timer.transfer_term = message.term + 1
            self._engine.deliver(node, {"type": "timeout_now", "term": message.term})

"""The leader's side of membership: what it appends as a configuration, and when it may.

One vote at a time, through the log (Ongaro's dissertation, chapter 4). A configuration is appended
only if the former one and an entry of the leader's own term are committed, and a majority of the
*new* voters has answered in this term of late and holds all that is committed: a change never makes
the cluster wait for somebody it has not heard from. What an operator asked for stands in the
configuration as an intent, so that any later leader goes on with it:

* a learner with ``promote`` becomes a voter once it has kept up for a second;
* who ``replaces`` another one: the other leaves, before the promotion if it is dead, after it if
  it lives;
* a directory that comes with ``joins`` takes the place that its token opens, or that of its own
  lost predecessor;
* addresses follow what members tell of themselves;
* the level rises by one when every member that ever came can, and answers;
* who is drained leads only while nobody else can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Final

from raftckpt.raft.configuration import ClusterMember, Configuration, step_of
from raftckpt.raft.engine import Engine
from raftckpt.raft.port import AddMember, Change, PeerInfo, RemoveMember, SetDrain, SetPin
from raftckpt.storage import REJOINS

__all__ = ["Changes", "Wanted"]

KEPT_UP_S: Final = 1.0
"""Twenty looks in a row: what catches up under load falls behind between two (a guess)."""
DEAD_S: Final = 3.0
"""A member that was silent for so long is replaced before its successor votes, not after."""
EVERY_S: Final = 0.05  # between looks at learners, who have to keep up for twenty of them


class Wanted:
    """A configuration somebody wants, or why it cannot be.

    Attributes:
        configuration: None if there is nothing to append.
        why: what stands against it ("": nothing).
        hand_over: the leader itself has to go first.
    """

    __slots__ = ("configuration", "hand_over", "why")

    def __init__(
        self, configuration: Configuration | None, why: str = "", *, hand_over: bool = False
    ) -> None:
        self.configuration = configuration
        self.why = why
        self.hand_over = hand_over


class Changes:
    """Decides for a leader what is appended next. Pure but for what it notes about learners."""

    def __init__(
        self,
        engine: Engine,
        linked: dict[str, PeerInfo],
        own: PeerInfo,
        monotonic: Callable[[], float],
        recent_s: float,
    ) -> None:
        """Arguments:
        linked: what every directory with a link told of itself.
        own: the same of this one.
        recent_s: who answered within it is there.
        """
        self._engine = engine
        self._configurations = engine.log.configurations
        self._linked = linked
        self._own = own
        self._now = monotonic
        self._recent_s = recent_s
        self._kept_up: dict[str, float] = {}
        self._commit_before = 0
        self.due_at = 0.0
        """When :meth:`next` is worth asking again."""
        self.obstacle = ""
        """What holds the last intent up."""
        self.told: dict[str, str] = {}
        """By directory: why it is not let in yet."""

    def retime(self, recent_s: float) -> None:
        """Who answered within another time is there."""
        self._recent_s = recent_s

    def lead(self) -> None:
        """A leadership begins: what was noted in a former one is void."""
        self._kept_up.clear()
        self._commit_before = self._engine.commit
        self.due_at = self._now()

    # --- what may be appended -----------------------------------------------------------------

    def against(self, latter: Configuration) -> str:
        """What stands against appending ``latter`` now ("": nothing)."""
        engine, now = self._engine, self._configurations.now
        if engine.noop_index is None or engine.commit < engine.noop_index:
            return "the leader has not committed an entry of its term yet"
        if engine.commit < now.index:
            return "the former change is not committed yet"
        if step_of(now.configuration, latter) > 1:
            return "only one vote may change at a time"
        voters = latter.voters
        missing = sorted(name for name in voters - {engine.own} if not self._holds_all(name))
        if engine.own not in voters:
            return "the leader itself is to go: it hands over first"
        if len(voters) - len(missing) < len(voters) // 2 + 1:
            return "too few of those that would vote hold all that is committed: waiting for " + (
                " and ".join(self._name(latter, name) for name in missing)
            )
        return ""

    def _holds_all(self, name: str) -> bool:
        return self._alive(name, self._recent_s) and (
            self._engine.match_index(name) >= self._engine.commit
        )

    def _answers(self, name: str) -> bool:
        """Not by courtesy: a new leader takes it that all have just answered."""
        return self._alive(name, self._recent_s) and (
            name == self._engine.own or self._engine.match_index(name) > 0
        )

    def _alive(self, name: str, within_s: float) -> bool:
        heard = self._engine.last_heard(name)
        return name == self._engine.own or (heard is not None and self._now() - heard <= within_s)

    @staticmethod
    def _name(configuration: Configuration, directory: str) -> str:
        member = configuration.member(directory)
        return member.node if member is not None else directory[:8]

    # --- what an operator asks for ------------------------------------------------------------

    def asked(self, change: Change) -> Wanted:
        """The configuration that fulfils ``change``."""
        former = self._configurations.now.configuration
        match change:
            case AddMember():
                return self._added(former, change)
            case RemoveMember():
                return self._removed(former, change.node)
            case SetPin():
                return Wanted(former._replace(pinned=change.pinned))
            case SetDrain():
                return self._drained(former, change)

    def _added(self, former: Configuration, change: AddMember) -> Wanted:
        there = former.named(change.node)
        replaced = former.named(change.replaces) if change.replaces else None
        if change.replaces and replaced is None and there is None:
            return Wanted(None, f"{change.replaces} is no member: nothing to replace")
        if there is not None:
            return self._added_again(former, there, change)
        for member in former.members:
            if change.peer == member.peer or change.client == member.client:
                return Wanted(None, f"{member.node} has one of these addresses")
        place = ClusterMember(
            change.node, "", change.peer, change.client, False, change.promote,
            replaced.directory if replaced is not None else "", change.token,
        )  # fmt: skip
        return Wanted(former.with_members([*former.members, place]))

    @staticmethod
    def _added_again(former: Configuration, there: ClusterMember, change: AddMember) -> Wanted:
        """The name is taken: by the same wish, by a learner that is to vote now, or by another."""
        if (there.peer, there.client) != (change.peer, change.client):
            return Wanted(None, f"{change.node} is a member, at {there.peer} and {there.client}")
        if not there.directory:
            return Wanted(former.replaced(there, there._replace(token=change.token)))
        if change.promote and not there.voter:
            return Wanted(former.replaced(there, there._replace(promote=True)))
        return Wanted(former)

    def _removed(self, former: Configuration, node: str) -> Wanted:
        there = former.named(node)
        if there is None:
            return Wanted(former)  # asked again
        latter = without(former, there)
        if not latter.members or not latter.voters:
            return Wanted(None, f"{node} is the last voter")
        if there.directory == self._engine.own:
            return Wanted(None, f"{node} leads: it hands over first", hand_over=True)
        return Wanted(latter)

    def _drained(self, former: Configuration, change: SetDrain) -> Wanted:
        there = former.named(change.node)
        if there is None:
            return Wanted(None, f"{change.node} is no member")
        if change.drained and not there.drained:
            others = [m for m in former.members if m.voter and m != there]
            unable = {
                m.node: "is drained" if m.drained else "does not answer"
                for m in others
                if m.drained or not self._alive(m.directory, DEAD_S)
            }
            if len(unable) == len(others):
                why = ", ".join(f"{node} {why}" for node, why in unable.items())
                return Wanted(None, f"no other voter could lead{': ' * bool(why)}{why}")
        return Wanted(former.replaced(there, there._replace(drained=change.drained)))

    # --- what the leader goes on with ---------------------------------------------------------

    def next(self) -> Wanted | None:
        """What is to be appended now; None: nothing, or something stands against it."""
        self.due_at = self._now() + EVERY_S
        self._look_at_learners()
        self.obstacle = ""
        self.told = {}
        for directory, wanted in self._intents():
            why = wanted.why or (
                self.against(wanted.configuration) if wanted.configuration is not None else ""
            )
            if not why or wanted.hand_over:
                return wanted
            if directory:
                self.told[directory] = why
            self.obstacle = self.obstacle or why
        return None

    def _look_at_learners(self) -> None:
        """A learner keeps up while it holds at each look what was committed at the one before."""
        engine, now = self._engine, self._configurations.now
        for name in now.directories - now.voters:
            if engine.is_connected(name) and engine.match_index(name) >= self._commit_before:
                self._kept_up.setdefault(name, self._now())
            else:
                self._kept_up.pop(name, None)
        self._commit_before = engine.commit

    def _has_kept_up(self, name: str) -> bool:
        since = self._kept_up.get(name)
        return since is not None and self._now() - since >= KEPT_UP_S

    def _intents(self) -> Iterator[tuple[str, Wanted]]:
        """(directory to be told, what is wanted), the most urgent first."""
        former = self._configurations.now.configuration
        for member in former.members:
            yield from self._of_member(former, member)
        for info in list(self._linked.values()):
            if info.directory not in self._configurations.now.directories and info.joins:
                yield info.directory, self._let_in(former, info)
        yield from self._addresses(former)
        yield from self._level(former)
        yield from self._relief()

    def _of_member(
        self, former: Configuration, member: ClusterMember
    ) -> Iterator[tuple[str, Wanted]]:
        leaves = former.member(member.replaces) if member.replaces else None
        if member.voter:
            if leaves is not None:
                hands_over = leaves.directory == self._engine.own
                yield "", Wanted(without(former, leaves), hand_over=hands_over)
            return
        if not self._has_kept_up(member.directory):
            return
        if leaves is not None and not self._alive(leaves.directory, DEAD_S):
            yield "", Wanted(without(former, leaves))
        elif member.promote:
            yield "", Wanted(former.replaced(member, member._replace(voter=True, promote=False)))

    def _let_in(self, former: Configuration, info: PeerInfo) -> Wanted:
        if not info.lowest <= former.level <= info.highest:
            return Wanted(
                None,
                f"it can levels {info.lowest} to {info.highest}, the cluster is at "
                f"{former.level}: start a version that can",
            )
        there = former.named(info.node)
        if info.joins != REJOINS:
            token = hashlib.sha256(info.joins.encode()).hexdigest()
            if there is None or there.token != token or there.directory:
                return Wanted(None, "its token opens no place: raftckpt cluster add")
            return Wanted(former.replaced(there, _taken(there, info)))
        if there is None or not there.directory:
            return Wanted(None, f"{info.node} is no member: raftckpt cluster add {info.node}")
        if self._engine.is_connected(there.directory) or self._alive(
            there.directory, self._recent_s
        ):
            return Wanted(
                None,
                f"{info.node} is here with another data directory: stop it first; if both hosts "
                "call themselves the same, correct the configuration of one",
            )
        place = there._replace(voter=False, promote=there.voter or there.promote)
        return Wanted(former.replaced(there, _taken(place, info)))

    def _addresses(self, former: Configuration) -> Iterator[tuple[str, Wanted]]:
        for info in (self._own, *self._linked.values()):
            member = former.member(info.directory)
            if member is None or not info.peer or not info.client:
                continue
            if (member.peer, member.client) != (info.peer, info.client):
                latter = member._replace(peer=info.peer, client=info.client)
                yield "", Wanted(former.replaced(member, latter))

    def _relief(self) -> Iterator[tuple[str, Wanted]]:
        """A leader that is drained goes as soon as another one can do without waiting for it."""
        now, own = self._configurations.now, self._engine.own
        if own in now.drained and any(map(self._holds_all, now.voters - now.drained)):
            yield "", Wanted(None, hand_over=True)

    def _level(self, former: Configuration) -> Iterator[tuple[str, Wanted]]:
        following, members = former.level + 1, self._configurations.now.directories
        told = [self._own if name == self._engine.own else self._linked.get(name)
                for name in members]  # fmt: skip
        if (
            not former.pinned
            and all(i is not None and i.highest >= following for i in told)
            # a link that is up on this side only tells what one could before it was restarted
            and all(self._answers(name) for name in members)
        ):
            yield "", Wanted(former._replace(level=following))


def _taken(place: ClusterMember, info: PeerInfo) -> ClusterMember:
    """``place`` with the directory that came for it."""
    return place._replace(
        directory=info.directory,
        peer=info.peer or place.peer,
        client=info.client or place.client,
        token="",
    )


def without(former: Configuration, leaves: ClusterMember) -> Configuration:
    """``former`` without a member; who came for it has nothing more to wait for."""
    return former.with_members(
        m._replace(replaces="") if m.replaces == leaves.directory else m
        for m in former.members
        if m != leaves
    )

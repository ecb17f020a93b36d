"""The leader's side of membership, rule by rule."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest

from raftckpt.raft.changes import DEAD_S, EVERY_S, KEPT_UP_S, Changes, without
from raftckpt.raft.configuration import (
    CONFIGURATION,
    ClusterMember,
    Configurations,
    encode_configuration,
)
from raftckpt.raft.port import AddMember, PeerInfo, RemoveMember, SetDrain, SetPin
from raftckpt.storage import REJOINS
from tests.directories import founding_of

RECENT_S = 0.6
COMMIT = 50


def info(node, directory="", **rest):
    """What a directory tells of itself; its addresses are those of the founding."""
    told = {"peer": f"{node}:1", "client": f"{node}:2", "lowest": 1, "highest": 1} | rest
    return PeerInfo(directory or node, node, **told)


class Engine:
    """What Changes asks of the engine: n1 leads, all of the founding hold all, and are here."""

    def __init__(self, configuration) -> None:
        payload = CONFIGURATION + encode_configuration(configuration)
        self.log = SimpleNamespace(configurations=Configurations(b"", [(payload, 1, 0)]))
        self.own = "n1"
        self.noop_index: int | None = 2
        self.commit = COMMIT
        self.matches: dict[str, int] = {}
        self.heard: dict[str, float] = {}
        self.links: set[str] = set()

    def match_index(self, name):
        return self.matches.get(name, 0)

    def last_heard(self, name):
        return self.heard.get(name)

    def is_connected(self, name):
        return name in self.links


class Leader:
    """Changes of n1 in a cluster of its founding, at level 1."""

    def __init__(self, *nodes: str, highest: int = 1) -> None:
        self.at = 1000.0
        self.engine = Engine(founding_of("c", nodes or ("n1", "n2", "n3"), level=1))
        self.linked: dict[str, PeerInfo] = {}
        self.own = info("n1", highest=highest)
        self.changes = Changes(self.engine, self.linked, self.own, lambda: self.at, RECENT_S)
        for node in self.configuration.directories - {"n1"}:
            self.meet(info(node, highest=highest))
        self.changes.lead()

    @property
    def configuration(self):
        return self.engine.log.configurations.now.configuration

    def meet(self, peer, match=COMMIT):
        """It has a link, answered just now and holds ``match``."""
        self.linked[peer.directory] = peer
        self.engine.links.add(peer.directory)
        self.engine.heard[peer.directory] = self.at
        self.engine.matches[peer.directory] = match

    def silence(self, name):
        self.linked.pop(name, None)
        self.engine.links.discard(name)
        self.engine.heard[name] = self.at - DEAD_S - 1

    def now_is(self, configuration, *, committed=True):
        index = self.engine.commit + (0 if committed else 1)
        payload = CONFIGURATION + encode_configuration(configuration)
        self.engine.log.configurations.appended(payload, index, 1)

    def wait(self, seconds):
        """Time passes in which everybody with a link answers; returns what is wanted last."""
        wanted = None
        for _ in range(round(seconds / EVERY_S)):
            self.at += EVERY_S
            for name in self.engine.links:
                self.engine.heard[name] = self.at
            wanted = self.changes.next()
        return wanted


@pytest.fixture
def leader() -> Leader:
    return Leader()


def add(node, **rest):
    told = {"peer": f"{node}:1", "client": f"{node}:2", "token": sha("word")} | rest
    return AddMember(node, **told)


def sha(word):
    return hashlib.sha256(word.encode()).hexdigest()


def learner(node, directory="", **rest):
    fields = {"voter": False, "promote": True} | rest
    return ClusterMember(node, directory or node, f"{node}:1", f"{node}:2", **fields)


# --- what may be appended ---------------------------------------------------------------------


def promoted(leader):
    """The configuration with n4 as a voter more (n4 is here)."""
    leader.meet(info("n4"))
    return leader.configuration.with_members(
        [*leader.configuration.members, learner("n4", voter=True, promote=False)]
    )


def test_nothing_speaks_against_a_step_of_one_that_all_hold(leader):
    assert leader.changes.against(promoted(leader)) == ""


@pytest.mark.parametrize("noop", [None, COMMIT + 1])
def test_not_before_an_entry_of_the_own_term_is_committed(leader, noop):
    latter = promoted(leader)
    leader.engine.noop_index = noop
    assert "an entry of its term" in leader.changes.against(latter)


def test_not_before_the_former_change_is_committed(leader):
    leader.now_is(leader.configuration._replace(pinned=True), committed=False)
    assert "not committed yet" in leader.changes.against(promoted(leader))
    leader.engine.commit += 1
    for name in leader.engine.matches:
        leader.engine.matches[name] += 1
    assert leader.changes.against(promoted(leader)) == ""


def test_only_one_vote_at_a_time(leader):
    five = [learner(n, voter=True, promote=False) for n in ("n4", "n5")]
    for node in ("n4", "n5"):
        leader.meet(info(node))
    latter = leader.configuration.with_members([*leader.configuration.members, *five])
    assert "only one vote" in leader.changes.against(latter)
    swapped = leader.configuration.replaced(leader.configuration.members[2], five[0])
    assert "only one vote" in leader.changes.against(swapped)


def test_the_leader_does_not_append_its_own_removal(leader):
    latter = leader.configuration.replaced(leader.configuration.members[0])
    assert "hands over first" in leader.changes.against(latter)


def test_a_majority_of_the_new_voters_must_hold_all_that_is_committed(leader):
    latter = promoted(leader)
    leader.engine.matches["n4"] = COMMIT - 1  # n1, n2, n3 of four are a majority
    assert leader.changes.against(latter) == ""
    leader.engine.matches["n3"] = COMMIT - 1
    assert "waiting for n3 and n4" in leader.changes.against(latter)


def test_who_has_not_answered_of_late_does_not_count(leader):
    latter = promoted(leader)
    leader.engine.heard["n3"] = leader.at - RECENT_S - 0.01
    assert leader.changes.against(latter) == ""
    del leader.engine.heard["n4"]
    assert "waiting for n3 and n4" in leader.changes.against(latter)
    leader.engine.heard["n3"] = leader.at - RECENT_S + 0.01
    assert leader.changes.against(latter) == ""


def test_the_majority_is_that_of_the_new_voters(leader):
    """Of two voters one is none, though it was one of three with the leader."""
    leader.silence("n2")
    leader.silence("n3")
    latter = leader.configuration.replaced(leader.configuration.members[2])
    assert "waiting for n2" in leader.changes.against(latter)
    leader.meet(info("n2"))
    assert leader.changes.against(latter) == ""


def test_a_learner_or_a_place_more_needs_a_majority_of_the_voters_only(leader):
    leader.silence("n3")
    latter = leader.configuration.with_members(
        [*leader.configuration.members, learner("n4"), learner("n5", "")]
    )
    assert leader.changes.against(latter) == ""


# --- what an operator asks for ----------------------------------------------------------------


def test_add_keeps_a_place(leader):
    latter = leader.changes.asked(add("n4")).configuration
    assert latter.named("n4") == ClusterMember(
        "n4", "", "n4:1", "n4:2", voter=False, promote=True, token=sha("word")
    )
    assert latter.voters == leader.configuration.voters


def test_add_again_is_harmless_and_another_token_takes_the_place_of_the_lost_one(leader):
    leader.now_is(leader.changes.asked(add("n4")).configuration)
    assert leader.changes.asked(add("n4")).configuration == leader.configuration
    latter = leader.changes.asked(add("n4", token=sha("other"))).configuration
    assert latter.named("n4").token == sha("other")
    assert latter.directories == leader.configuration.directories


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (add("n2"), ""),  # it is there as asked for
        (add("n2", peer="x:1"), "n2 is a member, at n2:1 and n2:2"),
        (add("n4", peer="n2:1"), "n2 has one of these addresses"),
        (add("n4", client="n3:2"), "n3 has one of these addresses"),
        (add("n4", replaces="n9"), "n9 is no member: nothing to replace"),
    ],
)
def test_add_of_what_cannot_be(leader, change, why):
    wanted = leader.changes.asked(change)
    assert wanted.why == why
    assert wanted.configuration == (None if why else leader.configuration)


def test_add_in_place_of_a_member(leader):
    latter = leader.changes.asked(add("n4", replaces="n2")).configuration
    assert latter.named("n4").replaces == "n2", "its directory"
    assert latter.named("n2") is not None


def test_add_of_one_that_stays_a_learner(leader):
    assert not leader.changes.asked(add("n4", promote=False)).configuration.named("n4").promote


def test_remove(leader):
    latter = leader.changes.asked(RemoveMember("n2")).configuration
    assert latter.directories == {"n1", "n3"}
    leader.now_is(latter)
    assert leader.changes.asked(RemoveMember("n2")).configuration == latter, "asked again"


def test_remove_of_the_leader_hands_over_first(leader):
    wanted = leader.changes.asked(RemoveMember("n1"))
    assert wanted.configuration is None
    assert wanted.hand_over
    assert "n1 leads" in wanted.why


def test_remove_of_the_last_voter_is_refused():
    leader = Leader("n1")
    wanted = leader.changes.asked(RemoveMember("n1"))
    assert (wanted.configuration, wanted.hand_over) == (None, False)
    assert "last voter" in wanted.why


def test_remove_of_a_place_that_nobody_took(leader):
    former = leader.configuration
    leader.now_is(leader.changes.asked(add("n4")).configuration)
    assert leader.changes.asked(RemoveMember("n4")).configuration.members == former.members


def test_drain_and_undrain(leader):
    latter = leader.changes.asked(SetDrain("n2", True)).configuration
    assert latter.drained == {"n2"}
    leader.now_is(latter)
    assert leader.changes.asked(SetDrain("n2", True)).configuration == latter, "asked again"
    leader.now_is(leader.changes.asked(SetDrain("n3", True)).configuration)
    assert (
        leader.changes.asked(SetDrain("n1", True)).why
    ) == "no other voter could lead: n2 is drained, n3 is drained"
    leader.now_is(leader.changes.asked(SetDrain("n2", False)).configuration)
    assert leader.configuration.drained == {"n3"}
    assert leader.changes.asked(SetDrain("n9", True)).why == "n9 is no member"
    alone = Leader("n1")
    assert alone.changes.asked(SetDrain("n1", True)).why == "no other voter could lead"


def test_a_leader_that_is_drained_goes_when_another_one_holds_everything(leader):
    leader.now_is(leader.changes.asked(SetDrain("n1", True)).configuration)
    assert leader.changes.next().hand_over
    leader.now_is(leader.configuration._replace(members=tuple(
        member._replace(drained=True) for member in leader.configuration.members
    )))  # fmt: skip
    assert leader.changes.next() is None, "nobody else is to lead"


def test_pin_and_unpin(leader):
    latter = leader.changes.asked(SetPin(True)).configuration
    assert latter == leader.configuration._replace(pinned=True)
    leader.now_is(latter)
    assert not leader.changes.asked(SetPin(False)).configuration.pinned


def test_without_a_member_nobody_waits_for_it_to_leave():
    former = founding_of("c", ["n1", "n2"])
    former = former.with_members([*former.members, learner("n3", replaces="n2")])
    latter = without(former, former.named("n2"))
    assert [(m.node, m.replaces) for m in latter.members] == [("n1", ""), ("n3", "")]


# --- what the leader goes on with -------------------------------------------------------------


def with_learner(leader, **rest):
    """n4 is a learner and here."""
    member = learner("n4", **rest)
    leader.now_is(leader.configuration.with_members([*leader.configuration.members, member]))
    leader.meet(info("n4"))
    return member


def test_nothing_to_do(leader):
    assert leader.wait(5) is None
    assert leader.changes.obstacle == ""
    assert leader.changes.due_at == pytest.approx(leader.at + EVERY_S)


def test_a_learner_is_promoted_when_it_has_kept_up_for_a_second(leader):
    with_learner(leader)
    assert leader.wait(KEPT_UP_S) is None
    latter = leader.wait(2 * EVERY_S).configuration
    assert latter.voters == {"n1", "n2", "n3", "n4"}
    assert not latter.named("n4").promote


def test_a_learner_that_lags_at_one_look_starts_over(leader):
    with_learner(leader)
    leader.wait(KEPT_UP_S - 2 * EVERY_S)
    leader.engine.matches["n4"] = COMMIT - 1
    assert leader.wait(EVERY_S) is None
    leader.engine.matches["n4"] = COMMIT
    assert leader.wait(KEPT_UP_S) is None
    assert leader.wait(2 * EVERY_S) is not None


def test_keeping_up_is_to_hold_what_was_committed_at_the_look_before(leader):
    """A stream of writes keeps nobody a learner."""
    with_learner(leader)
    wanted = None
    for _ in range(round(KEPT_UP_S / EVERY_S) + 2):
        leader.engine.matches["n4"] = leader.engine.commit
        leader.engine.commit += 1000
        leader.engine.matches["n2"] = leader.engine.matches["n3"] = leader.engine.commit
        wanted = leader.wait(EVERY_S)
    assert wanted.configuration.voters == {"n1", "n2", "n3", "n4"}


def test_a_learner_whose_link_breaks_starts_over(leader):
    with_learner(leader)
    leader.wait(KEPT_UP_S - EVERY_S)
    leader.engine.links.discard("n4")
    leader.wait(EVERY_S)
    leader.meet(info("n4"))
    assert leader.wait(KEPT_UP_S - EVERY_S) is None


def test_what_was_noted_in_a_former_leadership_is_void(leader):
    with_learner(leader)
    leader.wait(KEPT_UP_S)
    leader.changes.lead()
    assert leader.wait(KEPT_UP_S - EVERY_S) is None


def test_a_learner_without_the_intent_stays_one(leader):
    with_learner(leader, promote=False)
    assert leader.wait(10) is None


def test_a_promotion_that_has_to_wait_is_told(leader):
    with_learner(leader)
    leader.silence("n2")
    leader.engine.matches["n3"] = COMMIT - 1
    assert leader.wait(KEPT_UP_S + 3 * EVERY_S) is None
    assert "waiting for n2 and n3" in leader.changes.obstacle


def test_who_replaces_a_living_one_is_promoted_before_it_leaves(leader):
    with_learner(leader, replaces="n2")
    latter = leader.wait(KEPT_UP_S + 2 * EVERY_S).configuration
    assert latter.voters == {"n1", "n2", "n3", "n4"}
    leader.now_is(latter)
    latter = leader.wait(EVERY_S).configuration
    assert latter.voters == {"n1", "n3", "n4"}
    assert latter.named("n4").replaces == ""


def test_who_replaces_a_dead_one_is_promoted_after_it_left(leader):
    with_learner(leader, replaces="n2")
    leader.silence("n2")
    assert leader.wait(KEPT_UP_S) is None, "it has not kept up yet"
    latter = leader.wait(2 * EVERY_S).configuration
    assert latter.voters == {"n1", "n3"}
    leader.now_is(latter)
    assert leader.wait(EVERY_S).configuration.voters == {"n1", "n3", "n4"}


def test_who_replaces_the_leader_makes_it_hand_over(leader):
    with_learner(leader, replaces="n1")
    leader.now_is(leader.wait(KEPT_UP_S + 2 * EVERY_S).configuration)
    wanted = leader.wait(EVERY_S)
    assert wanted.hand_over
    assert wanted.configuration.voters == {"n2", "n3", "n4"}


# --- who comes --------------------------------------------------------------------------------


def test_a_stranger_that_does_not_want_to_join_is_none_of_our_business(leader):
    leader.meet(info("n2", "other"))
    leader.meet(info("n7"))
    assert leader.wait(5) is None
    assert leader.changes.told == {}


def test_a_token_opens_its_place(leader):
    leader.now_is(leader.changes.asked(add("n4", peer="", client="")).configuration)
    leader.meet(info("n4", "new", joins="word"), match=0)
    there = leader.wait(EVERY_S).configuration.named("n4")
    assert there == ClusterMember("n4", "new", "n4:1", "n4:2", voter=False, promote=True, token="")


@pytest.mark.parametrize(
    ("node", "token"), [("n4", "another word"), ("n5", "word"), ("n2", "word")]
)
def test_a_token_opens_nothing_else(leader, node, token):
    leader.now_is(leader.changes.asked(add("n4")).configuration)
    leader.meet(info(node, "new", joins=token), match=0)
    assert leader.wait(EVERY_S) is None
    assert "its token opens no place" in leader.changes.told["new"]


def test_a_token_opens_once(leader):
    leader.now_is(leader.changes.asked(add("n4")).configuration)
    leader.meet(info("n4", "new", joins="word"), match=0)
    leader.now_is(leader.wait(EVERY_S).configuration)
    leader.meet(info("n4", "second", joins="word"), match=0)
    assert leader.wait(EVERY_S) is None
    assert "its token opens no place" in leader.changes.told["second"]


def test_a_lost_directory_leaves_and_the_new_one_learns(leader):
    leader.silence("n2")
    leader.meet(info("n2", "new", joins=REJOINS), match=0)
    latter = leader.wait(EVERY_S).configuration
    assert latter.voters == {"n1", "n3"}
    assert latter.named("n2") == ClusterMember(
        "n2", "new", "n2:1", "n2:2", voter=False, promote=True
    )


def test_a_lost_learner_stays_what_it_was(leader):
    with_learner(leader, promote=False)
    leader.silence("n4")
    leader.meet(info("n4", "new", joins=REJOINS), match=0)
    there = leader.wait(EVERY_S).configuration.named("n4")
    assert (there.directory, there.voter, there.promote) == ("new", False, False)


@pytest.mark.parametrize("alive", ["link", "answered"])
def test_rejoining_is_refused_while_the_former_directory_is_here(leader, alive):
    leader.silence("n2")
    leader.meet(info("n2", "new", joins=REJOINS), match=0)
    if alive == "link":
        leader.engine.links.add("n2")
    else:
        leader.engine.heard["n2"] = leader.at - RECENT_S + 2 * EVERY_S
    assert leader.changes.next() is None
    assert "n2 is here with another data directory" in leader.changes.told["new"]
    leader.engine.links.discard("n2")
    assert leader.wait(RECENT_S + EVERY_S) is not None


def test_the_leader_itself_is_always_here(leader):
    leader.meet(info("n1", "new", joins=REJOINS), match=0)
    assert leader.wait(5) is None
    assert "n1 is here with another data directory" in leader.changes.told["new"]


@pytest.mark.parametrize("node", ["n4", "n5"])
def test_rejoining_is_for_members(leader, node):
    leader.now_is(leader.changes.asked(add("n4")).configuration)
    leader.meet(info(node, "new", joins=REJOINS), match=0)
    assert leader.wait(EVERY_S) is None
    assert f"{node} is no member: raftckpt cluster add {node}" in leader.changes.told["new"]


@pytest.mark.parametrize("joins", [REJOINS, "word"])
def test_who_cannot_the_level_is_not_let_in(leader, joins):
    leader.silence("n2")
    leader.now_is(leader.changes.asked(add("n4")).configuration)
    node = "n2" if joins == REJOINS else "n4"
    leader.meet(info(node, "new", joins=joins, lowest=2, highest=3), match=0)
    assert leader.wait(EVERY_S) is None
    assert "it can levels 2 to 3, the cluster is at 1" in leader.changes.told["new"]


def test_who_waits_for_a_majority_is_told(leader):
    leader.silence("n2")
    leader.engine.matches["n3"] = COMMIT - 1
    leader.meet(info("n2", "new", joins=REJOINS), match=0)
    assert leader.wait(EVERY_S) is None
    assert "waiting for n3" in leader.changes.told["new"]
    assert leader.changes.obstacle == leader.changes.told["new"]


# --- addresses and the level ------------------------------------------------------------------


def test_addresses_follow_what_members_tell(leader):
    leader.meet(info("n2", peer="moved:1", client="moved:2"))
    there = leader.wait(EVERY_S).configuration.named("n2")
    assert (there.peer, there.client, there.directory) == ("moved:1", "moved:2", "n2")


@pytest.mark.parametrize(
    "told",
    [info("n2"), info("n2", peer=""), info("n2", client=""), info("n2", "other", peer="x:1")],
)
def test_other_addresses_change_nothing(leader, told):
    """As they are, not told whole, or those of another directory."""
    leader.meet(told)
    assert leader.wait(5) is None


def test_the_level_rises_by_one_when_all_can():
    leader = Leader(highest=3)
    latter = leader.wait(EVERY_S).configuration
    assert latter == leader.configuration._replace(level=2)
    leader.now_is(latter)
    assert leader.wait(EVERY_S).configuration.level == 3


@pytest.mark.parametrize(
    "who", ["own", "n3", "learner", "away", "half away", "not met yet", "pinned"]
)
def test_the_level_waits_for_every_member_that_ever_came(who):
    leader = Leader(highest=2)
    match who:
        case "own":
            leader = Leader()
            for node in ("n2", "n3"):
                leader.meet(info(node, highest=2))
        case "n3":
            leader.meet(info("n3", highest=1))
        case "learner":
            with_learner(leader, promote=False)
        case "away":
            leader.silence("n3")
        case "half away":  # its end of the link is gone, and ours has yet to notice
            leader.engine.heard["n3"] = leader.at
            leader.at += 2 * RECENT_S
            leader.engine.heard["n2"] = leader.at
            assert leader.changes.next() is None
            return
        case "not met yet":  # who leads anew takes it that all have just answered
            leader.engine.matches["n3"] = 0
        case _:
            leader.now_is(leader.configuration._replace(pinned=True))
    assert leader.wait(5) is None


def test_the_level_does_not_wait_for_a_place_that_nobody_took():
    leader = Leader(highest=2)
    leader.now_is(leader.changes.asked(add("n4")).configuration)
    assert leader.wait(EVERY_S).configuration.level == 2

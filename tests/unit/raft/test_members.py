"""Members as one node sees them among puppets, and as a few nodes go through them together.

Most of these are bugs that random lives of clusters do not bring out
(``tests.sim.planting.MEMBERS_SCRIPTED``), and the schedules that are known to break others.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable

import pytest

from raftckpt.raft.configuration import (
    CONFIGURATION,
    NO_OP,
    Configuration,
    decode_configuration,
    encode_configuration,
)
from raftckpt.raft.messages import KINDS, Ack, Append, Removed, Standing, decode_body
from raftckpt.raft.port import AddMember, PeerInfo, RemoveMember, Role
from raftckpt.storage import REJOINS, IdentityState
from tests.sim.bench import OurBench
from tests.unit.raft.cluster import Cluster
from tests.unit.raft.conftest import Make

# --- one node among puppets ------------------------------------------------------------------


def reconfigure(
    bench: OurBench, change: Callable[[Configuration], Configuration], *, commit: int = 2
) -> None:
    """Let "b" lead in term 1 and append another configuration as entry 2."""
    latter = change(bench.status.configuration)._replace(base=1)
    payload = CONFIGURATION + encode_configuration(latter)
    bench.inject("b", Append(KINDS[Append], 1, 1, commit, 1, 0, [(payload, 2, 1)]))
    bench.settle()
    assert bench.status.configuration == latter
    bench.sent()


def changed(configuration: Configuration, node: str, **fields: object) -> Configuration:
    member = configuration.named(node)
    assert member is not None
    return configuration.replaced(member, member._replace(**fields))


def with_a_learner(make: Make) -> OurBench:
    """A leader of three voters ("a", "b", "c") and a learner ("d")."""
    bench = make(peers=("b", "c", "d"))
    reconfigure(bench, lambda now: changed(now, "d", voter=False))
    bench.lead()
    assert bench.leads
    return bench


def test_a_vote_counts_for_its_directory_and_not_for_its_node(bench: OurBench) -> None:
    """The former disk of "b" must not vote for the one that has taken its place.

    It is still listened to, as the change is not committed.
    """
    reconfigure(bench, lambda now: changed(now, "b", directory="b again"), commit=1)
    bench.campaign()
    bench.vote("b", bench.term)
    assert not bench.leads
    bench.node.connected(PeerInfo("b again", "b"))
    bench.vote("b again", bench.term)
    assert bench.leads


def test_a_member_is_told_of_its_removal_when_that_is_committed(bench: OurBench) -> None:
    bench.lead()
    outcomes: list[object] = []
    bench.node.change(RemoveMember("c"), outcomes.append)
    bench.settle()
    sent = bench.sent()
    assert not [s for s in sent if isinstance(s.message, Removed)]
    to_c = [s.message for s in sent if s.to == "c" and isinstance(s.message, Append)]
    assert not any(message.entries for message in to_c), "it never holds its own removal"
    assert outcomes == []
    bench.ack("b", bench.last)
    assert [s.to for s in bench.sent(Removed)] == ["c"]
    assert len(outcomes) == 1


def test_a_removal_that_was_cut_off_is_told_to_nobody(bench: OurBench) -> None:
    """The next leader knows nothing of it, and commits a configuration that has the member."""
    bench.lead()
    index, term, former = bench.last, bench.term, bench.status.configuration
    bench.node.change(RemoveMember("c"), lambda outcome: None)
    bench.tick()
    assert bench.status.configuration.named("c") is None
    latter = former._replace(base=1, pinned=True)
    payload = CONFIGURATION + encode_configuration(latter)
    entries = [(NO_OP, index + 1, term + 1), (payload, index + 2, term + 1)]
    bench.inject("b", Append(KINDS[Append], term + 1, 1, index + 2, index, term, entries))
    bench.settle()
    assert bench.status.configuration == latter
    assert bench.sent(Removed) == []


def test_who_is_in_the_very_configuration_is_not_removed_by_it(bench: OurBench) -> None:
    reconfigure(bench, lambda now: now._replace(pinned=True))
    bench.inject("b", Removed(KINDS[Removed], 1, 2))
    bench.settle()
    assert bench.storage.identity.state is not IdentityState.REMOVED


def test_an_answer_of_a_learner_confirms_no_read(make: Make) -> None:
    bench = with_a_learner(make)
    outcomes: list[bool] = []
    bench.node.read_index(outcomes.append)
    bench.settle(2)
    bench.ack("d", bench.last)
    assert outcomes == []
    bench.ack("b", bench.last)
    assert outcomes == [True]


def test_the_clock_of_a_learner_does_not_count(make: Make) -> None:
    bench = with_a_learner(make)
    ahead = 10**18
    for peer in ("b", "d"):
        answered = bench.node._sender.round
        bench.inject(
            peer, Ack(KINDS[Ack], bench.term, answered, True, False, bench.last + 1, ahead)
        )
    bench.tick()
    assert len(bench.node.wall_clocks()) == 1 + 2
    assert list(bench.node.wall_clocks()).count(ahead) == 1


def test_who_is_no_voter_does_not_commit(make: Make) -> None:
    bench = with_a_learner(make)
    assert bench.propose("x")
    bench.tick()
    bench.ack("d", bench.last)
    assert bench.values == []
    bench.ack("c", bench.last)
    assert bench.values == ["x"]


def test_two_entries_race_and_the_one_of_the_later_term_stays(bench: OurBench) -> None:
    """A leader appends a removal that nobody hears of; another one, meanwhile, another removal."""
    bench.lead()
    index, term = bench.last, bench.term
    founding = bench.status.configuration
    bench.node.change(RemoveMember("c"), lambda outcome: None)
    bench.tick()
    assert bench.status.configuration.named("c") is None
    latter = founding.with_members(m for m in founding.members if m.node != "b")._replace(base=1)
    payload = CONFIGURATION + encode_configuration(latter)
    entries = [(NO_OP, index + 1, term + 1), (payload, index + 2, term + 1)]
    bench.inject("c", Standing(KINDS[Standing], term + 1, index + 2))
    bench.inject("c", Append(KINDS[Append], term + 1, 1, index + 2, index, term, entries))
    bench.settle()
    assert bench.status.configuration == latter
    assert {peer.node for peer in bench.status.peers} == {"c"}


# --- a few nodes together --------------------------------------------------------------------


def place(node: str, token: str, **fields: object) -> AddMember:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return AddMember(node, f"{node}:1", f"{node}:2", digest)._replace(**fields)


def ask(cluster: Cluster, change: AddMember | RemoveMember) -> None:
    """Have the leader do it; asked again while something stands against it for a moment."""
    for _ in range(20):
        outcomes: list[object] = []
        cluster.nodes[cluster.elect()].change(change, outcomes.append)
        cluster.run(1, until=lambda outcomes=outcomes: outcomes)
        if outcomes and outcomes[0].done:
            return
    raise AssertionError(outcomes)


def joined(cluster: Cluster, node: str, **fields: object) -> None:
    ask(cluster, place(node, f"token of {node}", **fields))
    cluster.start(node, joins=f"token of {node}", directory=node)
    assert cluster.run(3, until=lambda: _directory(cluster, node))


def _directory(cluster: Cluster, node: str) -> str:
    leader = cluster.leader()
    member = cluster.configuration(leader).named(node) if leader else None
    return member.directory if member is not None else ""


def votes(cluster: Cluster, node: str) -> bool:
    leader = cluster.leader()
    member = cluster.configuration(leader).named(node) if leader else None
    return member is not None and member.voter


def _promotes(body: bytes, node: str) -> bool:
    """Whether an append makes a voter of ``node``."""
    for message in decode_body(body):
        for payload, _, _ in message.entries if isinstance(message, Append) else ():
            if payload[:1] == CONFIGURATION:
                member = decode_configuration(payload[1:]).named(node)
                if member is not None and member.voter:
                    return True
    return False


def test_who_was_away_follows_a_leader_that_it_never_heard_of(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    away = next(n for n in cluster.names if n != leader)
    cluster.partition(away)
    joined(cluster, "n4")
    assert cluster.run(5, until=lambda: votes(cluster, "n4"))
    outcomes = []
    cluster.nodes[cluster.leader()].transfer("n4", outcomes.append)
    assert cluster.run(3, until=lambda: cluster.leader() == "n4")
    cluster.heal()
    cluster.write(3, "w")
    assert cluster.run(3, until=cluster.settled)
    assert cluster.nodes[away].status().leader == "n4"
    assert cluster.configuration(away).named("n4").voter


def test_a_candidate_that_a_voter_never_heard_of_gets_its_vote(tmp_path):
    cluster = Cluster(tmp_path)
    leader = cluster.write(3)
    away, other = (n for n in cluster.names if n != leader)
    cluster.partition(away)
    joined(cluster, "n4")
    assert cluster.run(5, until=lambda: votes(cluster, "n4"))
    cluster.run(0.2)
    cluster.kill(other)
    cluster.heal()
    # what the leader says of itself calms the one that was away, but it gets no entries
    cluster.on_message = lambda sender, to, body: (sender, to) != (leader, away)
    cluster.nodes[leader].transfer("n4", lambda outcome: None)
    assert cluster.run(1, until=lambda: cluster.nodes["n4"].status().role is Role.LEADER)
    journal = cluster.nodes[away]._storage.journal
    assert (journal.vote, journal.term) == ("n4", cluster.nodes["n4"].status().term)
    cluster.on_message = None
    cluster.start(other)
    cluster.write(3, "w")
    assert cluster.run(3, until=cluster.settled)


def test_a_promotion_that_only_the_dead_leader_and_one_other_hold(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.write(3)
    joined(cluster, "n4", promote=False)
    leader = cluster.elect()
    heard, deaf = (n for n in cluster.founding_nodes if n != leader)
    cluster.run(1.5)
    promotions = []

    def send(sender, to, body):
        if sender == leader and _promotes(body, "n4"):
            promotions.append(to)
            return to == heard
        return True

    cluster.on_message = send
    cluster.nodes[leader].change(place("n4", "token of n4"), lambda outcome: None)
    assert cluster.run(0.4, until=lambda: heard in promotions)
    cluster.pump(4)
    cluster.kill(leader)
    cluster.on_message = None
    assert cluster.configuration(heard).named("n4").voter
    assert not cluster.configuration(deaf).named("n4").voter
    assert cluster.run(5, until=cluster.leader)
    assert cluster.leader() != deaf
    cluster.write(3, "w")
    assert cluster.run(3, until=cluster.settled)
    assert votes(cluster, "n4")


def test_of_five_two_that_lost_their_disks_wait_for_the_third_that_is_away(tmp_path):
    cluster = Cluster(tmp_path, 5)
    leader = cluster.write(10)
    wiped, lost, third, _ = (n for n in cluster.names if n != leader)
    cluster.partition(third)
    cluster.write(5, "w")
    for name in (wiped, lost):
        cluster.kill(name)
        shutil.rmtree(tmp_path / name)
    cluster.run(1.0)
    for name in (wiped, lost):
        cluster.start(name, joins=REJOINS, directory=f"new {name}")
    cluster.run(3)
    assert cluster.leader() is None, "two of five decide nothing"
    cluster.heal()
    roles = {Role.LEADER, Role.FOLLOWER}
    assert cluster.run(15, until=lambda: {n.status().role for n in cluster.nodes.values()} == roles)
    assert votes(cluster, wiped)
    assert votes(cluster, lost)
    cluster.write(3, "x")
    assert cluster.run(3, until=cluster.settled)
    assert len(cluster.machines[third].items) == 18


def test_a_leader_that_appended_the_removal_of_the_next_leader_follows_it(tmp_path):
    """What it appended was never committed: it must not stay deaf to who leads now."""
    cluster = Cluster(tmp_path)
    former = cluster.write(3)
    latter, other = (n for n in cluster.names if n != former)
    cluster.cut.add(frozenset((former, latter)))
    cluster.unlink(former, latter)
    cluster.on_message = lambda sender, to, body: sender != former
    cluster.nodes[former].change(RemoveMember(latter), lambda outcome: None)
    cluster.pump(4)
    assert cluster.configuration(former).named(latter) is None
    cluster.partition(former)
    cluster.on_message = None
    cluster.cut.add(frozenset((former, other)))
    assert cluster.run(5, until=lambda: cluster.nodes[other].status().leader in (other, latter))
    if cluster.nodes[other].status().leader != latter:
        cluster.nodes[other].transfer(latter, lambda outcome: None)
        assert cluster.run(3, until=lambda: cluster.nodes[other].status().leader == latter)
    cluster.heal()
    for name in (latter, other):
        cluster.machines[name].contexts.clear()
    cluster.run(0.5)
    assert cluster.leader() == latter
    cluster.write(3, "w")
    assert cluster.run(5, until=cluster.settled)
    assert cluster.configuration(former).named(latter) is not None


@pytest.mark.parametrize("stop_after", range(12))
def test_one_two_one_with_a_death_in_every_step(tmp_path, stop_after):
    """A cluster of one becomes two and one again; the first dies after so many steps, each time."""
    cluster = Cluster(tmp_path, 1)
    cluster.lets_go = True
    cluster.write(3)
    joined(cluster, "n2")
    _dies_and_comes_back(cluster, stop_after)
    assert cluster.run(5, until=lambda: votes(cluster, "n2"))
    _dies_and_comes_back(cluster, stop_after)
    cluster.write(3, "w")
    outcomes = []
    cluster.nodes[cluster.elect()].change(RemoveMember("n2"), outcomes.append)
    _dies_and_comes_back(cluster, stop_after)
    if cluster.configuration(cluster.elect()).named("n2") is not None:
        ask(cluster, RemoveMember("n2"))
    cluster.write(3, "x")
    assert cluster.run(5, until=lambda: "n2" not in cluster.nodes)
    assert cluster.leader() == "n1"
    assert len(cluster.machines["n1"].items) == 9


def _dies_and_comes_back(cluster: Cluster, steps: int) -> None:
    for _ in range(steps):
        cluster.pump(1)
        cluster.clock.now += 0.02
    cluster.kill("n1")
    cluster.run(0.1)
    cluster.start("n1")

"""Founding: all write the same record down, or nobody leads; no two foundings of one cluster."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from raftckpt.raft.configuration import decode_configuration, encode_configuration
from raftckpt.raft.founding import Founding, FoundingState
from raftckpt.raft.messages import KINDS, Noted
from raftckpt.raft.port import PeerInfo
from raftckpt.storage import REJOINS, DataDirectory, IdentityState
from raftckpt.storage.identity import read_identity
from tests.directories import FOUNDING, founding_of
from tests.sim.disk import SimCrash, SimDisk

PATH = "/data"


class FoundingHost:
    """A replica until its founding is complete, on a disk of its own."""

    def __init__(
        self,
        hall: Hall,
        node: str,
        nodes: list[str],
        *,
        joins: str = "",
        alone: bool = False,
        highest: int = 2,
        seed: int = 0,
    ) -> None:
        self.hall, self.node, self.nodes = hall, node, nodes
        self.joins, self.alone, self.highest = joins, alone, highest
        self.disk = SimDisk(random.Random(f"{node}/{seed}"))
        self.start()

    def start(self) -> None:
        self.directory = DataDirectory.open(self.disk.fs, PATH, "c", self.node, joins=self.joins)
        self.id = self.directory.identity.directory
        self.info = PeerInfo(
            self.id, self.node, self.joins, f"{self.node}:1", f"{self.node}:2", 1, self.highest
        )
        self.hall.hosts[self.id] = self
        self.founding = Founding(
            self.directory,
            self.info,
            self.nodes,
            alone=self.alone,
            founding_id=self.hall.draw,
            send=self._send,
        )

    def _send(self, to: str, noted: Noted) -> None:
        durable = read_identity(self.disk.fs, PATH)
        assert durable is not None
        assert (noted.number, noted.record) == (durable.number, durable.record)
        self.hall.send(self.id, to, noted)

    def restart(self) -> None:
        self.hall.cut(self)
        self.disk.power_loss()
        self.start()

    def wipe(self, *, joins: str = "") -> FoundingHost:
        """The same host with a new disk."""
        self.hall.cut(self)
        del self.hall.hosts[self.id]
        return FoundingHost(
            self.hall, self.node, self.nodes, joins=joins, highest=self.highest,
            seed=next(self.hall.seeds),
        )  # fmt: skip

    @property
    def state(self) -> IdentityState:
        return self.directory.identity.state

    @property
    def record(self):
        return decode_configuration(self.directory.identity.record)

    @property
    def why(self) -> str:
        return self.founding.verdict().why


class Hall:
    """Hosts, links and what is under way on them; ``lost`` eats messages."""

    def __init__(self) -> None:
        self.hosts: dict[str, FoundingHost] = {}
        self.links: set[frozenset[str]] = set()
        self.wires: dict[tuple[str, str], list[Noted]] = {}
        self.seeds: Iterator[int] = itertools.count(1)
        self.drawn = 0
        self.lost: Callable[[FoundingHost, FoundingHost, Noted], bool] = lambda sender, to, noted: (
            False
        )

    def draw(self) -> str:
        self.drawn += 1
        return f"{self.drawn:032x}"

    def send(self, sender: str, to: str, noted: Noted) -> None:
        if frozenset((sender, to)) in self.links and not self.lost(
            self.hosts[sender], self.hosts[to], noted
        ):
            self.wires[sender, to].append(noted)

    def link(self, one: FoundingHost, other: FoundingHost) -> None:
        pair = frozenset((one.id, other.id))
        if pair not in self.links and one.node != other.node:
            self.links.add(pair)
            self.wires[one.id, other.id] = []
            self.wires[other.id, one.id] = []
            one.founding.connected(other.info)
            other.founding.connected(one.info)

    def unlink(self, one: FoundingHost, other: FoundingHost) -> None:
        self.links.discard(frozenset((one.id, other.id)))
        self.wires.pop((one.id, other.id), None)
        self.wires.pop((other.id, one.id), None)
        one.founding.disconnected(other.id)
        other.founding.disconnected(one.id)

    def cut(self, host: FoundingHost) -> None:
        for other in list(self.hosts.values()):
            if frozenset((host.id, other.id)) in self.links:
                self.unlink(host, other)

    def deliver(self, sender: str, to: str) -> None:
        noted = self.wires[sender, to].pop(0)
        self.hosts[to].founding.receive(sender, noted)

    def meet(self, *hosts: FoundingHost) -> None:
        """Links between all of them (all there are), and everything is said."""
        hosts = hosts or tuple(self.hosts.values())
        for one, other in itertools.combinations(hosts, 2):
            self.link(one, other)
        self.pump()

    def star(self, center: FoundingHost, *others: FoundingHost) -> None:
        """Only ``center`` hears everybody, and everything is said."""
        for other in others:
            self.link(center, other)
        self.pump()

    def pump(self) -> None:
        for _ in range(1000):
            waiting = [wire for wire, queue in self.wires.items() if queue]
            if not waiting:
                return
            for wire in waiting:
                if self.wires.get(wire):
                    self.deliver(*wire)
        raise AssertionError("they never stop talking")


@pytest.fixture
def hall() -> Hall:
    return Hall()


THREE = ["n1", "n2", "n3"]


def three(hall: Hall, **options) -> list[FoundingHost]:
    return [FoundingHost(hall, node, THREE, **options) for node in THREE]


def complete(*hosts: FoundingHost) -> bool:
    """Whether all of them have noted the same founding as complete."""
    return (
        all(h.founding.verdict().outcome is FoundingState.COMPLETE for h in hosts)
        and len({h.directory.identity.record for h in hosts}) == 1
    )


# --- how it goes ------------------------------------------------------------------------------


def test_all_write_the_same_record_down(hall):
    hosts = three(hall)
    hall.meet()
    assert complete(*hosts)
    record = hosts[0].record
    assert (record.cluster, record.parent, record.base, record.pinned) == ("c", "", 0, False)
    assert record.founding == f"{1:032x}"
    assert [(m.node, m.directory, m.peer, m.client) for m in record.members] == [
        (h.node, h.id, f"{h.node}:1", f"{h.node}:2") for h in hosts
    ]
    assert record.voters == {h.id for h in hosts}
    assert hall.drawn == 1


def test_the_level_is_the_highest_that_all_can(hall):
    hosts = [
        FoundingHost(hall, node, THREE, highest=highest)
        for node, highest in zip(THREE, (5, 3, 4), strict=True)
    ]
    hall.meet()
    assert hosts[2].record.level == 3


@pytest.mark.parametrize("missing", THREE)
def test_nobody_is_founded_while_one_is_missing(hall, missing):
    hosts = [FoundingHost(hall, node, THREE) for node in THREE if node != missing]
    hall.meet()
    assert {h.state for h in hosts} == {IdentityState.NEW}
    assert all(h.why == f"new replica, waiting for {missing}" for h in hosts)
    assert hall.drawn == 0


def test_five_with_two_never_started_wait(hall):
    five = [f"n{i}" for i in range(1, 6)]
    hosts = [FoundingHost(hall, node, five) for node in ("n1", "n3", "n4")]
    hall.meet()
    assert all(h.why == "new replica, waiting for n2 and n5" for h in hosts)
    assert {h.state for h in hosts} == {IdentityState.NEW}
    for node in ("n2", "n5"):
        FoundingHost(hall, node, five)
    hall.meet()
    assert complete(*hall.hosts.values())


def test_everybody_answers_the_founder_and_not_only_one_who_knows_them(hall):
    """n1 has no link with n3: what n2 knows of it does not count."""
    one, two, other = three(hall)
    hall.meet(one, two)
    hall.meet(two, other)
    assert one.why == "new replica, waiting for n3"
    assert hall.drawn == 0


def test_a_link_on_which_nothing_was_said_is_no_answer(hall):
    hall.lost = lambda sender, to, noted: sender.node == "n3"
    hosts = three(hall)
    hall.meet()
    assert hosts[0].why == "new replica, waiting for n3"
    assert hall.drawn == 0


def test_what_a_peer_says_counts_while_its_link_lives(hall):
    hall.lost = lambda sender, to, noted: bool(noted.record) and sender.node == "n2"
    one, two, other = three(hall)
    hall.star(one, two, other)
    assert one.state is other.state is IdentityState.OFFERED
    hall.unlink(one, other)
    hall.lost = lambda sender, to, noted: False
    hall.unlink(one, two)
    hall.star(one, two)  # n2 says now that it wrote; n3 said so on a link that is gone
    assert not one.directory.founded
    hall.meet()
    assert complete(one, two, other)


@pytest.mark.parametrize("alone", [False, True])
def test_a_list_of_one_founds_only_when_told_so(hall, alone):
    host = FoundingHost(hall, "n1", ["n1"], alone=alone)
    if alone:
        assert complete(host)
        assert host.record.voters == {host.id}
    else:
        assert host.state is IdentityState.NEW
        assert host.why == "new replica, waiting for the operator's word (serve --found)"


def test_a_founding_that_is_complete_is_not_considered_again(hall):
    hosts = three(hall)
    hall.meet()
    record = hosts[0].record
    for host in hosts:
        host.restart()
    hall.meet()
    assert complete(*hosts)
    assert hosts[0].record == record
    assert hall.drawn == 1


# --- kills, lost disks, replaced replicas -----------------------------------------------------


@pytest.mark.parametrize("victim", range(3))
@pytest.mark.parametrize("write", range(1, 4))
def test_a_kill_at_any_write_only_means_another_offer(hall, victim, write):
    hosts = three(hall)
    hosts[victim].disk.crash_at(label="identity.rename.before", hit=write)
    try:
        hall.meet()
    except SimCrash:
        for wire in hall.wires.values():
            wire.clear()
    hosts[victim].restart()
    hall.meet()
    assert complete(*hosts)


def reached(*nodes: str) -> Callable[[FoundingHost, FoundingHost, Noted], bool]:
    """Offers reach only these, and what is complete nobody."""
    return lambda sender, to, noted: noted.complete or bool(noted.record and to.node not in nodes)


@pytest.mark.parametrize("reaching", [(), ("n2",), ("n2", "n3")])
def test_the_founder_is_wiped_after_its_offer_reached_some(hall, reaching):
    hall.lost = reached(*reaching)
    one, two, other = three(hall)
    hall.star(one, two, other)
    assert one.state is IdentityState.OFFERED
    assert [h.node for h in (two, other) if h.state is IdentityState.OFFERED] == [*reaching]
    first = one.record
    again = one.wipe()
    hall.lost = lambda sender, to, noted: False
    hall.meet()
    assert complete(again, two, other)
    assert again.record.founding != first.founding
    assert again.record.directories == {again.id, two.id, other.id}
    assert again.directory.identity.number == (2 if reaching else 1)


def test_the_founder_is_wiped_when_it_was_complete_at_itself_only(hall):
    hall.lost = lambda sender, to, noted: noted.complete
    one, two, other = three(hall)
    hall.star(one, two, other)
    assert one.directory.founded
    assert {two.state, other.state} == {IdentityState.OFFERED}
    again = one.wipe()
    hall.lost = lambda sender, to, noted: False
    hall.meet()
    assert complete(again, two, other)
    assert again.record.member(one.id) is None


def test_the_old_founder_comes_back_and_finds_no_follower(hall):
    """Complete at itself only: nobody else can take that one over any more."""
    hall.lost = lambda sender, to, noted: noted.complete
    one, two, other = three(hall)
    hall.star(one, two, other)
    again = one.wipe()
    hall.star(again, two, other)
    assert again.directory.founded
    hall.hosts[one.id] = one
    hall.unlink(again, two)
    hall.unlink(again, other)
    hall.lost = lambda sender, to, noted: False
    one.restart()
    hall.meet(one, two, other)
    assert not two.directory.founded
    assert "two foundings of this cluster were begun, and that of n1 is complete" in two.why
    hall.cut(one)
    hall.meet(again, two, other)
    assert complete(again, two, other)


@pytest.mark.parametrize("victim", [1, 2])
def test_another_is_wiped_before_it_is_complete(hall, victim):
    hall.lost = lambda sender, to, noted: bool(noted.record) and sender.node == "n3"
    hosts = three(hall)
    hall.star(*hosts)
    assert {h.state for h in hosts} == {IdentityState.OFFERED}
    hosts[victim] = hosts[victim].wipe()
    hall.lost = lambda sender, to, noted: False
    hall.meet()
    assert complete(*hosts)


def test_a_wiped_one_of_a_complete_founding_is_refused_and_told_what_to_do(hall):
    one, two, other = three(hall)
    hall.meet()
    wiped = two.wipe()
    hall.meet()
    verdict = wiped.founding.verdict()
    assert verdict.outcome is FoundingState.REFUSED
    assert "n1 belongs to a cluster founded without this data directory" in verdict.why
    assert "serve --rejoin" in verdict.remedy
    assert "cluster add" in verdict.remedy
    assert wiped.state is IdentityState.NEW
    assert complete(one, other)
    again = wiped.wipe(joins=REJOINS)
    hall.meet()
    assert complete(one, other, again), "who rejoins takes the founding over"


@pytest.mark.parametrize("joins", [REJOINS, "token"])
def test_who_is_to_be_let_in_founds_nothing(hall, joins):
    one, two = (FoundingHost(hall, node, THREE) for node in ("n1", "n2"))
    joiner = FoundingHost(hall, "n3", THREE, joins=joins)
    hall.meet()
    assert joiner.why == "waiting for a member to let it in"
    assert one.why == two.why == "new replica, waiting for n3"
    assert {h.state for h in (one, two, joiner)} == {IdentityState.NEW}
    offer = founding_of("c", THREE)
    offer = offer.replaced(offer.members[2], offer.members[2]._replace(directory=joiner.id))
    joiner.founding.receive(one.id, noted(1, offer))
    assert joiner.state is IdentityState.NEW


# --- offers and complete ones -----------------------------------------------------------------


def noted(number, record, *, complete=False):
    return Noted(KINDS[Noted], number, encode_configuration(record), complete)


def record_of(hosts, founding=FOUNDING):
    former = founding_of("c", [h.node for h in hosts])
    return former.with_members(
        m._replace(directory=h.id) for m, h in zip(former.members, hosts, strict=True)
    )._replace(founding=founding)


@pytest.fixture
def two_of_three(hall):
    """n2 and n3 linked, n1 not there: they only listen."""
    hosts = three(hall)
    hall.link(hosts[1], hosts[2])
    hall.link(hosts[0], hosts[1])
    hall.lost = lambda sender, to, noted: True
    for wire in hall.wires.values():
        wire.clear()
    return hosts


def test_an_incomplete_offer_gives_way_to_a_higher_number_only(two_of_three):
    one, two, _ = two_of_three
    first, second = (record_of(two_of_three, f"{n:032x}") for n in (7, 8))
    two.founding.receive(one.id, noted(5, first))
    assert (two.directory.identity.number, two.record) == (5, first)
    for number in (4, 5):
        two.founding.receive(one.id, noted(number, second))
        assert (two.directory.identity.number, two.record) == (5, first)
    two.founding.receive(one.id, noted(6, second))
    assert (two.directory.identity.number, two.record) == (6, second)


def test_a_complete_one_never_gives_way(two_of_three):
    one, two, _ = two_of_three
    first, second = (record_of(two_of_three, f"{n:032x}") for n in (7, 8))
    two.founding.receive(one.id, noted(5, first, complete=True))
    assert complete(two)
    for is_complete in (False, True):
        two.founding.receive(one.id, noted(99, second, complete=is_complete))
        assert two.record == first


def test_an_offer_without_this_directory_or_of_other_nodes_is_not_written(two_of_three):
    one, two, other = two_of_three
    foreign = record_of(two_of_three)
    foreign = foreign.replaced(foreign.members[1], foreign.members[1]._replace(directory="x"))
    two.founding.receive(one.id, noted(5, foreign))
    two.founding.receive(one.id, noted(5, record_of([one, two])))
    assert two.state is IdentityState.NEW
    assert other.state is IdentityState.NEW


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("nothing", True),
        ("the same", True),
        ("another that counts the teller", True),
        ("another that does not", False),
    ],
)
def test_a_complete_one_is_taken_over_unless_another_may_be_complete_elsewhere(
    two_of_three, written, taken
):
    one, two, _ = two_of_three
    told = record_of(two_of_three)
    offered = {
        "the same": told,
        "another that counts the teller": told._replace(founding="1" * 32),
        "another that does not": told.replaced(
            told.members[0], told.members[0]._replace(directory="the other n1")
        )._replace(founding="1" * 32),
    }
    if written in offered:
        record = encode_configuration(offered[written])
        two.directory.note_offer(5, offered[written].founding, record)
    two.founding.receive(one.id, noted(1, told, complete=True))
    assert two.directory.founded == taken
    if taken:
        assert two.record == told
    else:
        assert two.founding.verdict().outcome is FoundingState.WAIT
        assert "two foundings of this cluster were begun" in two.why


def test_what_is_said_without_a_link_does_not_count(two_of_three):
    _, two, other = two_of_three
    other.founding.receive(two_of_three[0].id, noted(5, record_of(two_of_three), complete=True))
    assert other.state is IdentityState.NEW
    assert two.state is IdentityState.NEW


@pytest.mark.parametrize("is_complete", [False, True])
def test_what_is_no_record_is_the_fault_of_the_link(two_of_three, is_complete):
    one, two, _ = two_of_three
    with pytest.raises(ValueError):
        two.founding.receive(one.id, Noted(KINDS[Noted], 1, b"x", is_complete))
    assert two.state is IdentityState.NEW


# --- operators who err ------------------------------------------------------------------------


def test_files_that_differ_found_nothing_and_say_so(hall):
    one = FoundingHost(hall, "n1", ["n1", "n2"])
    two = FoundingHost(hall, "n2", ["n1", "n2", "n3"])
    hall.meet()
    assert one.state is IdentityState.OFFERED
    assert two.state is IdentityState.NEW
    assert two.why == (
        "n1 founds a cluster of n1, n2, the file of n2 lists n1, n2, n3: give all replicas the "
        "same file"
    )
    two.hall.cut(two)
    two.nodes = ["n1", "n2"]
    two.restart()
    hall.meet()
    assert complete(one, two)


def test_a_file_that_lists_more_than_the_others_is_told_by_its_own_founder(hall):
    one = FoundingHost(hall, "n1", THREE)
    two, other = FoundingHost(hall, "n2", ["n2", "n3"]), FoundingHost(hall, "n3", ["n2", "n3"])
    hall.meet(two, other)
    assert complete(two, other)
    hall.meet()
    verdict = one.founding.verdict()
    assert verdict.outcome is FoundingState.REFUSED
    assert one.state is IdentityState.NEW


def test_it_goes_on_when_who_had_a_name_twice_has_gone(hall):
    hosts = three(hall)
    false = FoundingHost(hall, "n2", THREE, seed=9)
    hall.meet(*hosts[:2], false)
    hall.meet()
    assert hall.drawn == 0
    assert "two hosts call themselves n2: stop the one" in hosts[0].why
    hall.cut(false)
    hall.pump()
    assert complete(*hosts)


def test_who_sees_two_hosts_of_one_name_writes_the_offer_of_neither(hall):
    """Else the first offer is complete at its author while the others hold the second one."""
    one, two, other = three(hall)
    false = FoundingHost(hall, "n1", THREE, seed=9)
    for host in (two, other):
        hall.link(host, one)
        hall.link(host, false)
    hall.link(two, other)
    hall.pump()
    assert hall.drawn == 2, "each of them makes an offer"
    assert {two.state, other.state} == {IdentityState.NEW}
    assert "two hosts call themselves n1" in two.why
    hall.cut(one)  # the operator stops one of them: the offer of the other is heeded now
    hall.pump()
    assert complete(false, two, other)
    hall.link(one, two)
    hall.pump()
    assert one.founding.verdict().outcome is FoundingState.REFUSED


def test_two_hosts_named_n1_found_nothing_twice(hall):
    """Directed: the offer of one is complete at itself only when the other makes its own."""
    hall.lost = lambda sender, to, noted: noted.complete
    one, two, other = three(hall)
    false = FoundingHost(hall, "n1", THREE, seed=9)
    hall.star(one, two, other)
    assert one.directory.founded
    hall.cut(one)
    hall.star(false, two, other)
    assert false.directory.founded
    assert not two.directory.founded
    hall.lost = lambda sender, to, noted: False
    for host in list(hall.hosts.values()):
        hall.cut(host)
    hall.meet(one, two, other)  # what is written down there is the offer of the other one
    assert not two.directory.founded
    assert not other.directory.founded
    hall.cut(one)
    hall.meet(false, two, other)
    assert complete(false, two, other)


def schedule(seed: int) -> None:
    """Random links, kills and at most one lost disk; two hosts may both say that they are n1."""
    rng = random.Random(seed)
    hall = Hall()
    hosts = three(hall)
    if rng.random() < 0.5:
        hosts.append(FoundingHost(hall, "n1", THREE, seed=9))
    wiped = rng.random() < 0.3
    finished: dict[bytes, set[str]] = {}
    for _ in range(150):
        match rng.randrange(12):
            case 0 | 1 | 2:
                hall.link(*rng.sample(hosts, 2))
            case 3:
                hall.unlink(*rng.sample(hosts, 2))
            case 4:
                rng.choice(hosts).restart()
            case 5 if not wiped:
                wiped = True
                victim = rng.randrange(len(hosts))
                hosts[victim] = hosts[victim].wipe()
            case _:
                waiting = sorted(wire for wire, queue in hall.wires.items() if queue)
                if waiting:
                    hall.deliver(*rng.choice(waiting))
        for host in hosts:
            if host.directory.founded:
                finished.setdefault(host.directory.identity.record, set()).add(host.id)
    of_two = [ids for ids in finished.values() if len(ids) >= 2]
    assert len(of_two) <= 1, "two foundings, each with a majority"


def test_no_schedule_has_two_foundings():
    for seed in range(500):
        schedule(seed)


def _most_wrote(self: Founding, record: bytes) -> bool:
    members = decode_configuration(record).members
    wrote = [
        m.directory == self._own.directory
        or (m.directory in self._told and self._told[m.directory].record == record)
        for m in members
    ]
    return 2 * sum(wrote) > len(members)


def test_the_schedules_see_a_majority_that_is_taken_for_all(monkeypatch):
    """The check itself."""
    monkeypatch.setattr(Founding, "_all_wrote", _most_wrote)
    with pytest.raises(AssertionError, match="two foundings"):
        test_no_schedule_has_two_foundings()

"""What is wrong with a cluster, judged from what its replicas say: `cluster status`, `doctor`.

A check is one function of the table at the end; each finding says what to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from raftckpt.limits import BEHIND_ENTRIES_MAX, CERTIFICATE_DAYS_NOW, CERTIFICATE_DAYS_SOON
from raftckpt_cli.output import show_age, show_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raftckpt import ClusterStatus, ReplicaStatus

__all__ = ["CHECKS", "Finding", "Weight", "certificate_findings", "diagnose", "leader_of", "roomy"]

_MEMBERS: Final = "raftckpt cluster members shows who is a member, its links and how far it is"
_SAYS: Final = "the sentence says what to do"
_REACH: Final = {
    # cause, as the client says it: what to do
    "refused": "start it: raftckpt serve; its log says why it stopped",
    "silent": "look whether its host is up, its process hangs (kill -CONT?) or a firewall drops it",
    "unreachable": "look at the network between here and its host",
    "resolver": "correct its host name in the endpoints, or the resolver of this host",
    "tls": "give --ca, --cert and --key if and only if the client port speaks TLS",
    "certificate": "renew the certificate that the sentence names; SIGHUP has a replica read it",
    "authority": "give the --ca that signs the replicas, and a --cert that tls.client.ca signs",
    "name": "issue its certificate for the host that the endpoint names, or name that host",
    "closed": "its log says why: it is stopping, full of connections, or wants TLS",
    "protocol": "look what listens there: it is no replica",
}
_CLOCK_MS: Final = 2000
"""Replicas are asked within a second, so that less than this is no finding."""
_STEP_MS: Final = 1000  # longer than the longest election time-out by default
_DISK_PART: Final = 10
"""One part of so many free is enough, as monitors of disks commonly ask for. What a replica needs
it looks after itself (``process/disk.py``)."""
_DISK_ENOUGH: Final = 20 << 30
"""Of a large disk a tenth is more than anybody needs: 20 GiB are enough (a guess)."""
_DAY_S: Final = 86_400  # 24 hours


class Weight(Enum):
    """How much a finding weighs."""

    WRONG = "wrong"
    """The cluster is not as it should be."""
    PASSING = "passing"
    """The same, but a change under way looks like that, too, for a moment."""
    WARNING = "warning"
    """It serves; somebody should look."""


class Finding(NamedTuple):
    """One thing that is wrong, and what to do."""

    check: str
    weight: Weight
    what: str
    do: str


_Said = tuple[Weight, str, str]


def _leads(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    if leader_of(found) is None:
        up = ", ".join(each.node for each in told) or "none"
        yield (
            Weight.WRONG,
            f"no replica leads; answering: {up} of {len(found.replicas)}",
            "start the missing replicas: a majority is needed",
        )


def _terms(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    leaders = [each for each in told if each.leader == each.node]
    terms = [each.term for each in leaders]
    if len(set(terms)) < len(terms):
        yield (
            Weight.WRONG,
            "two replicas lead the same term: " + " and ".join(each.node for each in leaders),
            "stop writing; compare founding in -o json: two clusters are behind these endpoints",
        )
    elif len(leaders) > 1:
        yield (
            Weight.PASSING,
            "two replicas lead: "
            + " and ".join(f"{each.node} in term {each.term}" for each in leaders),
            "the one of the lower term is cut off: look at the network between them",
        )
    leader = leader_of(found)
    for each in told:
        if leader is not None and each.term != leader.term and each.leader != each.node:
            yield (
                Weight.PASSING,
                f"{each.node} is in term {each.term}, {leader.node} leads term {leader.term}",
                f"look at the links of {each.node}: {_MEMBERS}",
            )


def _same(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    for name, what, weight, do in (
        (
            "founding",
            "belong to different foundings of the cluster",
            Weight.WRONG,
            "decide which one has the data; destroy the directories of the other",
        ),
        ("level", "are at different levels", Weight.PASSING, "one is behind or cut off"),
        (
            "version",
            "run different versions",
            Weight.WARNING,
            "finish the upgrade, one replica after the other",
        ),
        (
            "durability",
            "have different durability",
            Weight.WARNING,
            "give all the same, restart them one after the other",
        ),
    ):
        values = {each.node: each.detail.get(name) for each in told if each.detail.get(name)}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{node} {str(value)[:8]}" for node, value in values.items())
            yield (
                weight,
                f"the replicas {what}: {shown}",
                do,
            )


def _alarms(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    for each in told:
        for alarm in each.detail.get("alarms") or ():
            yield (
                Weight.WRONG,
                f"{each.node} says: {alarm}",
                _SAYS,
            )
        if each.detail.get("waiting"):
            yield (
                Weight.PASSING,
                f"{each.node} waits: {each.detail['waiting']}",
                _MEMBERS,
            )


def _reach(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    for each in found.replicas:
        if not each.reachable:
            do = _REACH.get(each.cause, "its log says why it does not answer")
            yield (
                Weight.WRONG,
                f"{each.node} does not answer: {each.problem}",
                do,
            )
    leader = leader_of(found)
    if leader is None:
        return
    up = {each.node for each in told}
    for peer in leader.detail.get("peers") or ():
        if not peer["connected"] and peer["node"] in up:
            yield (
                Weight.PASSING,
                f"{leader.node}, which leads, has no link to {peer['node']}",
                f"look at the peer port of {peer['node']} and at its log",
            )


def _votes(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    leader = leader_of(found)
    if leader is None:
        return
    peers = {peer["directory"]: peer for peer in leader.detail.get("peers") or ()}
    voters = [each for each in leader.detail.get("members") or () if each["voter"]]
    here = sum(
        each["node"] == leader.node
        or peers.get(each["directory"], {"connected": False})["connected"]
        for each in voters
    )
    if here < len(voters) and here == len(voters) // 2 + 1:
        yield (
            Weight.WARNING,
            f"{here} of {len(voters)} voters are here: one fewer and none leads",
            "bring the others back before anything else",
        )
    if len(voters) % 2 == 0:
        yield (
            Weight.WARNING,
            f"{len(voters)} voters survive the loss of no more than {len(voters) - 1} do",
            "add or remove one",
        )


def _lag(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    leader = leader_of(found)
    for each in told:
        if leader is not None and (leader.commit or 0) - (each.applied or 0) > BEHIND_ENTRIES_MAX:
            yield (
                Weight.WARNING,
                f"{each.node} is {(leader.commit or 0) - (each.applied or 0)} entries behind",
                f"look at its disk, its processor and its link; {_MEMBERS}",
            )
        step = each.detail.get("longest_step_ms") or 0
        if step > _STEP_MS:
            yield (
                Weight.WARNING,
                f"{each.node} stood still for {step} ms of late",
                "look for what else uses its processor, and for swapping",
            )


def _clocks(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    clocks = {each.node: each.detail["clock_ms"] for each in told if each.detail.get("clock_ms")}
    if not clocks:
        return
    now = time.time_ns() // 1_000_000
    middle = sorted([*clocks.values(), now])[(len(clocks) + 1) // 2]
    for name, clock in (*clocks.items(), ("this host", now)):
        if abs(clock - middle) > _CLOCK_MS:
            word = "ahead of" if clock > middle else "behind"
            yield (
                Weight.WARNING,
                f"the clock of {name} is {abs(clock - middle) / 1000:.1f} s {word} the others",
                "set it right (chronyc tracking): retention and certificates are judged by clocks",
            )


def _disks(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    for each in told:
        free, size = each.detail.get("disk_free_bytes") or 0, each.detail.get("disk_bytes") or 0
        if size and not roomy(free, size):
            yield (
                Weight.WARNING,
                f"the disk of {each.node} has {free >> 20} MiB of {size >> 20} MiB left",
                "make room before the replica admits no new data",
            )


def _memory(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    leader = leader_of(found)
    if leader is not None and leader.detail.get("memory_full"):
        used, limit = leader.detail["data_bytes"], leader.detail["memory_limit"]
        yield (
            Weight.WRONG,
            f"the data take {used >> 20} MiB of {limit >> 20} MiB: no new data is taken",
            "delete, let expire, or raise it: raftckpt cluster limits set --memory",
        )
    for each in told:
        limit, has = each.detail.get("memory_limit") or 0, each.detail.get("data_bytes_max") or 0
        if has and limit > has:
            yield (
                Weight.WARNING,
                f"{each.node} has memory for {has >> 20} MiB of data, the limit is "
                f"{limit >> 20} MiB: it may end for want of memory",
                "give it more, or lower the limit: raftckpt cluster limits set --memory",
            )
        if not limit and leader is not None and each.node == leader.node and leader.commit:
            yield (
                Weight.WARNING,
                "the data have no memory limit: it is set when all voters say what they have",
                "bring all replicas up, or set it: raftckpt cluster limits set --memory",
            )


def _certificates(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    for each in told:
        yield from certificate_findings(each.node, each.detail.get("certificates") or {})


def certificate_findings(whose: str, ends: Mapping[str, int]) -> Iterator[_Said]:
    """Judge certificates by their ends (seconds since the epoch, by setting)."""
    now = time.time()
    for setting, end in ends.items():
        left = end - now
        if left >= CERTIFICATE_DAYS_SOON * _DAY_S:
            continue
        weight = Weight.WRONG if left < CERTIFICATE_DAYS_NOW * _DAY_S else Weight.WARNING
        told = f"ends in {show_age(int(left))}" if left >= 0 else "has ended"
        yield (
            weight,
            f"{setting} of {whose} {told}",
            "renew it, then send the replica SIGHUP: it reads it again",
        )


def _drained(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    leader = leader_of(found)
    for each in leader.detail.get("members") or () if leader is not None else ():
        if each.get("drained"):
            leads = leader is not None and leader.node == each["node"]
            yield (
                Weight.PASSING if leads else Weight.WARNING,
                f"{each['node']} is drained" + (", and leads: nobody else can" if leads else ""),
                f"raftckpt cluster drain {each['node']} --off, when the work on it is done",
            )


def _copies(told: list[ReplicaStatus], found: ClusterStatus) -> Iterator[_Said]:
    if told and all(each.detail.get("copied_s") is None for each in told):
        size = sum(each.detail.get("journal_bytes") or 0 for each in told[:1])
        yield (
            Weight.WARNING,
            "no replica knows of a snapshot saved since it was started",
            f"raftckpt snapshot save FILE, regularly (the log has {show_size(size)})",
        )


_Check = Callable[["list[ReplicaStatus]", "ClusterStatus"], Iterator[_Said]]
CHECKS: Final[dict[str, _Check]] = {
    "reachable": _reach,
    "leader": _leads,
    "terms": _terms,
    "agreement": _same,
    "alarms": _alarms,
    "votes": _votes,
    "lag": _lag,
    "clocks": _clocks,
    "disks": _disks,
    "memory": _memory,
    "certificates": _certificates,
    "drained": _drained,
    "copies": _copies,
}


def diagnose(found: ClusterStatus) -> list[Finding]:
    """Run all checks on what the replicas say."""
    told = [each for each in found.replicas if each.reachable]
    return [Finding(name, *said) for name, check in CHECKS.items() for said in check(told, found)]


def leader_of(found: ClusterStatus) -> ReplicaStatus | None:
    """The replica that leads the highest term, by its own word."""
    for each in found.replicas:
        if each.leader == each.node and each.term == found.term:
            return each
    return None


def roomy(free: int, size: int) -> bool:
    """Whether a disk has room for some time."""
    return free >= min(size // _DISK_PART, _DISK_ENOUGH)

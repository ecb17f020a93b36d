"""Founding a cluster: all of its replicas write the same record down, or nobody leads.

Pure: what peers say in, what to write and to say out. The replica whose id sorts first *offers* a
founding when every replica of its file answers on a live link, none holds a complete founding, and
all tell the same cluster name and the same set of node ids. An offer has a number above every
number told, and holds the founding id, the level, and of each replica node id, data directory and
addresses. Each replica writes the offer down and says so; who knows that *all* of them wrote it
notes it complete and tells the others. Nobody votes, acks or leads before its own note says
complete.

An incomplete offer gives way to one of a higher number, a complete one never; so a kill, a lost
disk or a replaced replica before completion only mean another offer. Who is linked with two hosts
of one name writes no offer down. A complete founding that is told is taken over unless this replica
has written down an offer that does not count its teller: that one may be complete elsewhere (two
hosts of one name, each with its own founding). What a peer says counts while its link lives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from raftckpt.raft.configuration import (
    ClusterMember,
    Configuration,
    decode_configuration,
    encode_configuration,
)
from raftckpt.raft.messages import KINDS, Noted
from raftckpt.raft.port import PeerInfo
from raftckpt.storage import DataDirectory

__all__ = ["Founding", "FoundingState", "Verdict"]


class FoundingState(Enum):
    """How far a founding has come."""

    WAIT = "wait"
    COMPLETE = "complete"
    REFUSED = "refused"


class Verdict(NamedTuple):
    """The outcome, and its reason for people."""

    outcome: FoundingState
    why: str
    remedy: str = ""


class Founding:
    """The founding of one replica, until it is complete.

    Arguments:
        directory: where it is noted; nothing is said before it is durable.
        own: what this replica tells of itself.
        nodes: node ids of the file's replicas, this one included.
        alone: the operator said that a list of one is a cluster (``serve --found``).
        founding_id: draws one.
        send: called with (directory, message).
    """

    def __init__(
        self,
        directory: DataDirectory,
        own: PeerInfo,
        nodes: Sequence[str],
        *,
        alone: bool,
        founding_id: Callable[[], str],
        send: Callable[[str, Noted], None],
    ) -> None:
        self._directory = directory
        self._own = own
        self._nodes = sorted(nodes)
        self._alone = alone
        self._founding_id = founding_id
        self._send = send
        self._linked: dict[str, PeerInfo] = {}
        self._told: dict[str, Noted] = {}
        self._consider()

    # --- what happens ---------------------------------------------------------------------------

    def connected(self, peer: PeerInfo) -> None:
        """A link is up: say what is written down here."""
        self._linked[peer.directory] = peer
        self._told.pop(peer.directory, None)
        self._send(peer.directory, self._note())
        self._consider()

    def disconnected(self, directory: str) -> None:
        """A link is gone: what came on it does not count any more, nor stands in the way."""
        self._linked.pop(directory, None)
        self._told.pop(directory, None)
        for teller in list(self._told):
            self._heed(teller)  # of a name that was there twice, one is left
        self._consider()

    def receive(self, directory: str, noted: Noted) -> None:
        """A peer says what it has written down.

        Raises:
            ValueError: it is no founding record.
        """
        if directory not in self._linked or self._directory.founded:
            return
        if noted.record:
            decode_configuration(noted.record)
        self._told[directory] = noted
        self._heed(directory)
        self._consider()

    def _heed(self, teller: str) -> None:
        """Write down what a peer has written down, if that is ours, too."""
        noted = self._told[teller]
        if not noted.record or self._directory.founded:
            return
        record = decode_configuration(noted.record)
        if noted.complete:
            if self._may_take_over(teller, record):
                self._complete(noted.record)
        elif (
            not self._joins
            and record.member(self._own.directory) is not None
            and self._same_nodes(record)
            and not self._another(record)
            and noted.number > self._directory.identity.number
        ):
            self._write(noted.number, noted.record)

    @property
    def _joins(self) -> bool:
        return bool(self._directory.identity.joins)

    def _same_nodes(self, record: Configuration) -> bool:
        return [m.node for m in record.members] == self._nodes

    def _another(self, record: Configuration) -> bool:
        """Whether another data directory than the record's is on a live link, under its name.

        Of two hosts of one name each offers itself: who writes both offers down, one after the
        other, lets the first be complete at its author alone.
        """
        return any(
            not info.joins
            and (member := record.named(info.node)) is not None
            and member.directory != info.directory
            for info in self._linked.values()
        )

    def _write(self, number: int, record: bytes) -> None:
        """Write an offer down, durably, and say so."""
        self._directory.note_offer(number, decode_configuration(record).founding, record)
        self._say()

    def _say(self) -> None:
        note = self._note()
        for directory in sorted(self._linked):
            self._send(directory, note)

    def _note(self) -> Noted:
        identity = self._directory.identity
        return Noted(KINDS[Noted], identity.number, identity.record, self._directory.founded)

    def _may_take_over(self, teller: str, record: Configuration) -> bool:
        """Whether the complete founding that ``teller`` holds is ours, too."""
        if not self._joins and record.member(self._own.directory) is None:
            return False
        written = self._directory.identity.record
        if not written or decode_configuration(written) == record:
            return True
        return decode_configuration(written).member(teller) is not None

    def _complete(self, record: bytes) -> None:
        self._directory.note_complete(decode_configuration(record).founding, record)
        self._say()

    def _consider(self) -> None:
        """Offer, or note as complete, if the time has come."""
        if self._directory.founded or self._joins or self._others():
            return
        identity = self._directory.identity
        if not (identity.record and self._all_wrote(identity.record)):
            if self._own.node != self._nodes[0] or self._missing():
                return
            members = self._members()
            if (
                not identity.record
                or decode_configuration(identity.record).members != members
                or any(
                    told.number >= identity.number and told.record != identity.record
                    for told in self._told.values()
                )
            ):
                self._offer(members)
        record = self._directory.identity.record
        if self._all_wrote(record):
            self._complete(record)

    def _all_wrote(self, record: bytes) -> bool:
        """Whether each member's own data directory says, on a live link, that it wrote this."""
        return all(
            m.directory == self._own.directory
            or (m.directory in self._told and self._told[m.directory].record == record)
            for m in decode_configuration(record).members
        )

    def _offer(self, members: tuple[ClusterMember, ...]) -> None:
        levels = [info.highest for info in (self._own, *self._linked.values())]
        number = 1 + max(
            self._directory.identity.number, *(t.number for t in self._told.values()), 0
        )
        offer = Configuration(
            self._founding_id(), self._directory.identity.cluster, "", 0, min(levels), False,
            members,
        )  # fmt: skip
        self._write(number, encode_configuration(offer))

    def _members(self) -> tuple[ClusterMember, ...]:
        infos = {info.node: info for info in (self._own, *self._linked.values())}
        return tuple(
            ClusterMember(i.node, i.directory, i.peer, i.client)
            for i in (infos[node] for node in self._nodes)
        )

    # --- what it is like ------------------------------------------------------------------------

    def _others(self) -> dict[str, Configuration]:
        """By teller: complete foundings that are told and that we do not take over."""
        return {
            directory: decode_configuration(told.record)
            for directory, told in self._told.items()
            if told.complete
        }

    def _twice(self) -> list[str]:
        """Nodes of the file of which two data directories are on live links."""
        names = [info.node for info in self._linked.values() if not info.joins]
        return [node for node in self._nodes if names.count(node) > 1]

    def _missing(self) -> list[str]:
        """What keeps this replica from being one of all that answer."""
        if self._nodes == [self._own.node] and not self._alone:
            return ["the operator's word (serve --found)"]
        by_node: dict[str, list[PeerInfo]] = {}
        for info in self._linked.values():
            if info.directory in self._told and not info.joins:
                by_node.setdefault(info.node, []).append(info)
        return [
            node
            for node in self._nodes
            if node != self._own.node and len(by_node.get(node, ())) != 1
        ]

    def verdict(self) -> Verdict:
        """How far it has come, for the process and for people."""
        node = self._own.node
        if self._directory.founded:
            return Verdict(FoundingState.COMPLETE, "the founding is complete")
        for teller, record in self._others().items():
            name = self._linked[teller].node
            if record.member(self._own.directory) is None and not self._joins:
                return Verdict(
                    FoundingState.REFUSED,
                    f"{name} belongs to a cluster founded without this data directory: a voter "
                    "that forgot what it acknowledged could lose the cluster's data",
                    f"check the path and the mount; if the disk of {node} was lost: raftckpt "
                    f"serve --rejoin; if {node} is to be a new member: raftckpt cluster add",
                )
            return Verdict(
                FoundingState.WAIT,
                f"two foundings of this cluster were begun, and that of {name} is complete: "
                "destroy the data directories of one of them",
            )
        for teller, told in self._told.items():
            if told.record and not self._same_nodes(decode_configuration(told.record)):
                return Verdict(
                    FoundingState.WAIT,
                    f"{self._linked[teller].node} founds a cluster of "
                    f"{_nodes(decode_configuration(told.record))}, the file of {node} lists "
                    f"{', '.join(self._nodes)}: give all replicas the same file",
                )
        if self._joins:
            return Verdict(FoundingState.WAIT, "waiting for a member to let it in")
        twice = self._twice()
        if twice:
            return Verdict(
                FoundingState.WAIT,
                f"two hosts call themselves {twice[0]}: stop the one that is not, or give it its "
                "own name",
            )
        missing = self._missing()
        if missing:
            return Verdict(FoundingState.WAIT, f"new replica, waiting for {' and '.join(missing)}")
        return Verdict(FoundingState.WAIT, "everybody answers: the founding is being written down")


def _nodes(record: Configuration) -> str:
    return ", ".join(m.node for m in record.members)

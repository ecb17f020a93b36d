"""What stands between the links and consensus: the founding first, the log afterwards. Pure.

Says who this replica is, judges and remembers whom it meets, hands what peers say to the founding
until that is complete and to the log from then on, and knows what is to be dialled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftckpt.raft.configuration import Configuration, decode_configuration
from raftckpt.raft.founding import Founding, FoundingState, Verdict
from raftckpt.raft.hello import Hello, Keys, objection_to
from raftckpt.raft.messages import Noted, PeerProtocolError, decode_body, encode, join_bodies
from raftckpt.raft.port import PeerInfo, ReplicatedLog
from raftckpt.raft.settings import RaftConfig
from raftckpt.storage import DataDirectory
from raftckpt.version import PEER_PROTOCOL

__all__ = ["Peering", "StartRefused"]


class StartRefused(Exception):
    """A peer says that this start must not go on."""


class Peering:
    """Implements ``raft.links.LocalIdentity`` and ``raft.links.LinkHandler``.

    Arguments:
        directory: its data directory, locked.
        config: own addresses and levels.
        nodes: node ids of the file, this one included.
        alone: a list of one is a cluster (``serve --found``).
        founding_id: draws a founding id.
        send: called with (directory, frame body).
        changed: called when the verdict or the targets may be other ones.
        failed: told of what must stop this replica.
    """

    def __init__(
        self,
        directory: DataDirectory,
        config: RaftConfig,
        nodes: Sequence[str],
        *,
        alone: bool,
        founding_id: Callable[[], str],
        send: Callable[[str, bytes], None],
        changed: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._directory = directory
        self._config = config
        self._send = send
        self._changed = changed
        self._failed = failed
        self._linked: dict[str, PeerInfo] = {}
        self._told: dict[str, str] = {}  # node id -> address it told of itself
        self._members: dict[str, str] = {}
        self._names: dict[str, str] = {}  # directory of a member -> its node id
        self._raft: ReplicatedLog | None = None
        self._foundings: dict[str, str] = {}
        self.level = 0
        """The level in force (0: there is none yet)."""
        self._founding = Founding(
            directory,
            self.hello().info,
            nodes,
            alone=alone,
            founding_id=founding_id,
            send=self._send_note,
        )

    # --- who we are, and whom we meet -----------------------------------------------------------

    def hello(self) -> Hello:
        """Who this replica is, as it stands now."""
        identity, notes = self._directory.identity, self._directory.notes
        term, last = self._raft.end if self._raft is not None else (0, 0)
        return Hello(
            list(self._config.levels),
            PEER_PROTOCOL,
            identity.cluster,
            identity.node,
            identity.directory,
            notes.incarnation,
            notes.run,
            identity.founding if self._directory.founded else "",
            identity.joins,
            self._config.peer,
            self._config.client,
            term,
            last,
            memory=self._config.memory,
        )

    def objection(self, hello: Hello) -> tuple[str | None, bool]:
        """Why there must be no link with who says ``hello``, and whether it should stop for it."""
        own = self.hello()
        why = objection_to(hello, own, self.level)
        if hello.founding and own.founding and hello.founding != own.founding:
            if hello.cluster == own.cluster and hello.founding == self._parent():
                why = (
                    "it is of the cluster that this one was made of, by recovery or of a snapshot: "
                    "its data directory has had its day. Destroy it, and let the host in with an "
                    f"empty one: raftckpt cluster add {hello.node}"
                )
            self._foundings[hello.node] = f"{hello.node}: {why}"
        named = self._names.get(hello.directory, hello.node)
        if why is None and named != hello.node:
            why = f"its data directory is that of the member {named}"
        if why is not None:
            return why, False
        why = self._directory.notes.objection(hello.directory, hello.incarnation, hello.run)
        if why is None and self._raft is not None:
            why = self._raft.objection(hello.info)
        return why, why is not None

    def _parent(self) -> str:
        """Founding id of the cluster that this one was made of; "": of none."""
        return decode_configuration(self._directory.identity.record).parent

    @property
    def keys(self) -> Keys:
        """What this directory and those it met recognise each other by."""
        return self._directory.notes

    def remember(self, hello: Hello, key: bytes = b"", *, told: bool = False) -> None:
        """Note durably that this start of a directory was met, and what keys were told."""
        self._directory.notes.remember(
            hello.node, hello.directory, hello.incarnation, hello.run, key=key, told=told
        )
        self._foundings.pop(hello.node, None)

    def alarms(self) -> list[str]:
        """Sentences about peers that belong to another founding."""
        return sorted(self._foundings.values())

    def targets(self) -> set[tuple[str, str]]:
        """(node id, address) of those to be dialled, beside what the file says."""
        return {*self._members.items(), *self._told.items()}

    # --- links ----------------------------------------------------------------------------------

    def connected(self, peer: PeerInfo) -> None:
        """A link is up."""
        self._linked[peer.directory] = peer
        if peer.peer:
            self._told[peer.node] = peer.peer
        raft = self._raft
        if raft is not None:
            self._guard(lambda: raft.connected(peer))
        else:
            self._guard(lambda: self._founding.connected(peer))
        self._changed()

    def disconnected(self, directory: str, broken: bool) -> None:
        """A link is gone; ``broken``: closed or reset by the other side."""
        self._linked.pop(directory, None)
        raft = self._raft
        if raft is not None:
            self._guard(lambda: raft.disconnected(directory, broken))
        else:
            self._guard(lambda: self._founding.disconnected(directory))
        self._changed()

    def receive(self, directory: str, body: bytes) -> None:
        """A frame body arrived.

        Raises:
            PeerProtocolError: it is not of the protocol; close the link.
        """
        if self._raft is not None:
            self._raft.receive(directory, body)
            return
        for message in decode_body(body):
            if type(message) is Noted:  # whatever else is said now will be said again
                self._noted(directory, message)
        self._changed()

    def _noted(self, directory: str, noted: Noted) -> None:
        try:
            self._founding.receive(directory, noted)
        except ValueError as error:
            raise PeerProtocolError(str(error)) from None
        except Exception as error:  # the disk, or a broken belief: do not go on
            self._failed(error)

    def refused(self, node: str, why: str) -> None:
        """A peer says that this start must not go on; of a member it is noted, for good."""
        # without members its log is not open yet: it is still the founding that says who is one
        if self._directory.founded and (node in self._members or not self._members):
            self._guard(lambda: self._directory.notes.went_back(f"{node} says: {why}"))
        self._failed(StartRefused(why))

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # a broken belief about the peers: do not go on
            self._failed(error)

    def _send_note(self, directory: str, note: Noted) -> None:
        for body in join_bodies([encode(note)]):
            self._send(directory, body)

    # --- from the founding to the log -----------------------------------------------------------

    def verdict(self) -> Verdict:
        """How far the founding has come."""
        return self._founding.verdict()

    @property
    def founded(self) -> bool:
        """Whether the log may be opened."""
        return self.verdict().outcome is FoundingState.COMPLETE

    def hand_over(self, raft: ReplicatedLog) -> None:
        """From here on consensus hears what peers say, beginning with who is here."""
        self._raft = raft
        for peer in list(self._linked.values()):
            raft.connected(peer)

    def configured(self, configuration: Configuration) -> None:
        """This configuration is committed: follow its level and its addresses."""
        self.level = configuration.level
        own = self._directory.identity.node
        self._names = {m.directory: m.node for m in configuration.members if m.directory}
        self._members = {m.node: m.peer for m in configuration.members if m.node != own and m.peer}
        self._changed()

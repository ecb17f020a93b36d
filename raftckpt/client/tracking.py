"""A tracker without IO: one checkpoint's changes from whichever replica is there to tell them.

Like the client core it is driven from outside: it says which connection it wants
(:meth:`TrackerCore.target`), what to send, whether it takes more (:attr:`TrackerCore.hungry`) and
when :meth:`TrackerCore.tick` is due. It needs no session: a replica near by serves it, leader or
not.

Invariants: changes come out in the order of their revisions, each once; after a lost connection it
goes on behind the last change that arrived; a replica that begins anywhere else must begin with an
image, else the connection is given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from math import inf
from typing import Any, Final, NamedTuple

from raftckpt import limits
from raftckpt.client import outcomes
from raftckpt.client.calls import Call, Needs
from raftckpt.client.changes import Change, change_from_wire
from raftckpt.client.core import ClientCore
from raftckpt.client.endpoints import is_endpoint
from raftckpt.client.greeting import GreetingRefused, Introduction, OurFounding, Welcome
from raftckpt.client.link import Contact
from raftckpt.client.operations import Opened, checkpoint_name_of
from raftckpt.client.routing import Router
from raftckpt.errors import CheckpointError, InvalidParam, SaAisError, SessionLost, Unavailable
from raftckpt.model.changes import ChangeKind
from raftckpt.protocol import operations as ops
from raftckpt.protocol.frames import FrameError
from raftckpt.protocol.replies import ReplyKind

__all__ = [
    "Stage",
    "Sync",
    "Target",
    "TrackerCore",
    "not_started",
    "target_of",
    "track_point",
    "tracker_core",
]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_UNKNOWN: Final = frozenset({"credentials", "token"})
"""Reasons of a replica that does not know our credential, or not that rights are on."""
_PASSING: Final = frozenset({_TRY_AGAIN, int(SaAisError.ERR_NO_RESOURCES)})
_IMAGES: Final = frozenset({int(ChangeKind.IMAGE), int(ChangeKind.RESYNC)})
_DESTROYED: Final = int(ChangeKind.DESTROYED)
# ids of requests on a tracker's own connection; 1 is of HELLO, and there are many syncs
_TRACK_ID: Final = 2
_PING_ID: Final = 3
_FIRST_SYNC_ID: Final = 16
_PING_AFTER_S: Final = 2.0
"""Silence after which the replica is asked for a sign of life, and again until it is given up."""
_LEADERLESS_S: Final = 1.5
"""A replica that knows no leader for so long may be cut off: another one may know more."""
_SYNC_PAUSE_S: Final = 0.05  # before a question that was refused is asked again
# Of a change or a part of it, beside its data: a guess on the safe side
_OVERHEAD_BYTES: Final = 256


class Stage(IntEnum):
    """How far a tracker is with its connection."""

    WAITING = 0
    """For the time of the next try."""
    CONNECTING = 1
    GREETING = 2
    STARTING = 3
    """TRACK is on its way."""
    RUNNING = 4
    ENDED = 5
    """The checkpoint was destroyed, the tracker closed, or it failed for good."""


class Target(NamedTuple):
    """What is tracked, and from where on."""

    uid: int
    name: str
    from_revision: int | None
    image: bool
    at_least: int
    """What the client had seen of the cluster when it asked to track."""


class Sync:
    """Somebody waits until everything up to a revision has arrived."""

    __slots__ = ("done", "number", "revision", "send_at")

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.number = 0
        self.send_at = 0.0
        self.done = False


class TrackerCore:
    """State machine of one tracker.

    Arguments:
        target: what to track.
        endpoints: "host:port" each, in order of preference.
        introduction: told to the replica.
        connect_timeout: seconds for a connection and for each step of the handshake.
        jitter: returns a number in [0, 1).
        founding: id of the founding of the cluster, if it is known.

    Attributes:
        stage: how far it is.
        error: why it failed for good.
        through: everything up to this revision has arrived; None: nothing yet.
        started: whether a replica began to serve it.
        node: replica that serves it.
    """

    def __init__(
        self,
        target: Target,
        endpoints: Iterable[str],
        *,
        introduction: Introduction,
        connect_timeout: float,
        jitter: Callable[[], float],
        founding: str = "",
    ) -> None:
        self.router = Router(endpoints, jitter)
        self.stage = Stage.WAITING
        self.error: CheckpointError | None = None
        self.through = target.from_revision
        self.started = False
        self.node = ""
        self._target = target
        self._introduction = introduction
        self._timeout = connect_timeout
        self._changes: deque[Change] = deque()
        self._sizes: deque[int] = deque()
        """Of the changes that nobody took yet, also of those that were handed over."""
        self._bytes = 0
        self._contact = Contact()
        self._connect_at = 0.0
        self._stage_until = inf
        self._heard_at = 0.0
        self._asked_at = inf
        self._leaderless_at = inf
        self._image_first = False
        self._starved = True
        self._syncs: list[Sync] = []
        self._next_sync = _FIRST_SYNC_ID
        self._refusals: dict[str, CheckpointError] = {}
        self._ours = OurFounding(founding)
        self._now = 0.0

    # --- outputs ------------------------------------------------------------------------------

    def target(self) -> tuple[int, str] | None:
        """Return (number, endpoint) of the connection that should exist, None for none now."""
        if self.stage in (Stage.WAITING, Stage.ENDED):
            return None
        return self._contact.number, self._contact.endpoint

    def wanted(self) -> Mapping[int, str]:
        """Return that connection in the shape of a :class:`~raftckpt.client.peer.AnyPeer`."""
        return {} if self.target() is None else self._contact.alone

    def hears(self, number: int) -> bool:
        """Whether it takes more."""
        return self.hungry

    def data_to_send(self, number: int | None = None) -> bytes:
        """Return what is to be sent on the present connection."""
        return self._contact.data_to_send()

    def next_deadline(self) -> float:
        """Return the time at which :meth:`tick` must be called at the latest."""
        if self.stage is Stage.ENDED:
            return inf
        if self.stage is Stage.WAITING:
            return self._connect_at
        if self.stage is not Stage.RUNNING:
            return self._stage_until
        deadline = self._leaderless_at + _LEADERLESS_S if len(self.router.endpoints) > 1 else inf
        if self.hungry:
            deadline = min(deadline, self._silence_deadline())
        for sync in self._syncs:
            if not sync.number:
                deadline = min(deadline, sync.send_at)
        return deadline

    def _silence_deadline(self) -> float:
        return (self._heard_at if self._asked_at == inf else self._asked_at) + _PING_AFTER_S

    @property
    def hungry(self) -> bool:
        """Whether it takes more; False: do not read until the application took something."""
        if self._syncs:
            return True  # who waits for a revision does not take: all up to there must come in
        return self._starved or self.stage is not Stage.RUNNING

    @property
    def waiting(self) -> int:
        """Changes that wait to be taken."""
        return len(self._changes)

    @property
    def problem(self) -> str | None:
        """Why no replica serves it now; None: one does."""
        if self.stage is Stage.RUNNING:
            return None
        if self.error is not None:
            return self.error.message
        if self.stage is Stage.ENDED:
            return "it has ended"
        return self.where()

    def where(self) -> str:
        """Describe the endpoints and what is known about them, for error messages."""
        return self.router.where()

    def last_refusal(self) -> CheckpointError | None:
        """Return what a replica said last that it could not serve."""
        return next(reversed(self._refusals.values()), None)

    def take(self, now: float) -> Change | None:
        """Return the next change, None if none waits."""
        if not self._changes:
            return None
        change = self._changes.popleft()
        self.release(len(self._changes), now)
        return change

    def hand_over(self) -> list[Change]:
        """Return all changes that wait; they count as waiting until they are released."""
        changes = list(self._changes)
        self._changes.clear()
        return changes

    def release(self, kept: int, now: float) -> None:
        """All but the last ``kept`` changes were taken by the application."""
        sizes = self._sizes
        while len(sizes) > kept:
            self._bytes -= sizes.popleft()
        if not self._starved and (
            self._bytes * 2 <= limits.TRACKER_BUFFER_BYTES_MAX
            and len(sizes) * 2 <= limits.TRACKER_BUFFER_CHANGES_MAX
        ):
            self._starved = True
            self._heard_at = now  # we did not listen: that is no silence
            self._asked_at = inf

    # --- inputs -------------------------------------------------------------------------------

    def sync(self, revision: int, now: float) -> Sync:
        """Begin to wait until everything up to ``revision`` has arrived."""
        sync = Sync(revision)
        self._now = now
        if (self.through is not None and self.through >= revision) or self.stage is Stage.ENDED:
            sync.done = True
        else:
            if not self.hungry:
                self._heard_at = now
                self._asked_at = inf
            self._syncs.append(sync)
            self._send_syncs()
        return sync

    def give_up(self, sync: Sync) -> None:
        """Nobody waits any more."""
        if sync in self._syncs:
            self._syncs.remove(sync)

    def close(self, error: CheckpointError | None = None) -> None:
        """End for good, by an error if there is one."""
        if self.stage is not Stage.ENDED:
            self._end(error)

    def connected(self, number: int, now: float) -> None:
        """The connection ``number`` is up."""
        if number != self._contact.number or self.stage is not Stage.CONNECTING:
            return
        self._now = self._heard_at = now
        self._asked_at = self._leaderless_at = inf
        self._enter(Stage.GREETING, self._timeout)
        self._contact.greet(self._introduction)

    def connection_lost(self, number: int, why: str, now: float) -> None:
        """The connection ``number`` failed or is gone."""
        if self._is_present(number):
            self._now = now
            self._lost(why)

    def data_received(self, number: int, data: bytes, now: float) -> None:
        """Take bytes that arrived on the connection ``number``."""
        if not self._is_present(number):
            return
        self._now = self._heard_at = now
        self._asked_at = inf
        contact, waits = self._contact, self.stage is Stage.GREETING
        try:
            messages = contact.receive(data)
            if waits and contact.welcome is not None:
                self._greeted(contact.welcome)
            for message in messages:
                if not self._is_present(number):
                    return
                self._receive(message)
        except GreetingRefused as refusal:
            self._refused("connect", refusal.code, refusal.error(self._as_call("connect")))
        except (FrameError, IndexError, KeyError, TypeError, ValueError) as error:
            self._lost(f"protocol error: {error}")

    def _is_present(self, number: int) -> bool:
        """Whether it is the connection in use."""
        present = self.stage not in (Stage.WAITING, Stage.ENDED)
        return present and number == self._contact.number

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._now = now
        if self.stage is Stage.WAITING:
            if now >= self._connect_at:
                self._enter(Stage.CONNECTING, self._timeout)
        elif self.stage is Stage.RUNNING:
            self._tend()
        elif self.stage is not Stage.ENDED and now >= self._stage_until:
            self._lost("no answer in time")

    def _tend(self) -> None:
        now = self._now
        if len(self.router.endpoints) > 1 and now >= self._leaderless_at + _LEADERLESS_S:
            self._lost("it knows no leader")
            return
        if self.hungry and now >= self._silence_deadline():
            if self._asked_at != inf:
                self._lost("it is silent")
                return
            self._asked_at = now
            self._contact.send(ops.Keepalive(_PING_ID))
        self._send_syncs()

    # --- the connection -----------------------------------------------------------------------

    def seek(self, now: float) -> None:
        """Begin to look for a replica."""
        self._now = now
        self._seek()

    def _seek(self) -> None:
        endpoint, pause = self.router.next()
        self._contact = Contact(self._contact.number + 1, endpoint)
        self._connect_at = self._now + pause
        self.stage = Stage.WAITING
        if not pause:
            self._enter(Stage.CONNECTING, self._timeout)

    def _enter(self, stage: Stage, seconds: float) -> None:
        self.stage = stage
        self._stage_until = self._now + seconds

    def _lost(self, why: str) -> None:
        self.router.problems[self._contact.endpoint] = why
        if self.stage < Stage.STARTING:  # else it was there a moment ago
            self._ours.failed(self._contact.endpoint)
        self.node = ""
        for sync in self._syncs:
            sync.number = 0
            sync.send_at = 0.0
        if self._ours.gone(self.router.endpoints):
            self._end(
                SessionLost(
                    f"track on checkpoint {self._target.name!r}: the cluster was founded anew; "
                    "connect and track again",
                    definite=True,
                    reason="founding",
                )
            )
        else:
            self._seek()

    def _end(self, error: CheckpointError | None = None) -> None:
        self.stage = Stage.ENDED
        self.error = self.error or error
        for sync in self._syncs:
            sync.done = True
        self._syncs.clear()

    # --- what arrives -------------------------------------------------------------------------

    def _receive(self, message: Any) -> None:
        kind = message[0]
        if kind == ReplyKind.CHANGES:
            if message[1] == _TRACK_ID and self.stage is Stage.RUNNING:
                self._push(message[2], message[3])
        elif kind == ReplyKind.REPLY:
            self._reply(message)
        elif kind == ReplyKind.NOTICE:
            self._notice(message[1], message[2])

    def _notice(self, kind: str, value: Any) -> None:
        if kind == "leader":
            self._know_leader(value["leader"])
        elif kind == "going_away":
            self._lost("it stops")
        elif kind == "cut_off" and len(self.router.endpoints) > 1:
            self._lost("it is cut off from the leader")

    def _know_leader(self, leader: str | None) -> None:
        if leader is not None:
            self._leaderless_at = inf
        elif self._leaderless_at == inf:
            self._leaderless_at = self._now

    def _reply(self, message: Any) -> None:
        number, code, value = message[1], message[2], message[3]
        if number == _TRACK_ID and self.stage is Stage.STARTING:
            if code == 1:
                self._began(value)
            else:
                self._refused("track", code, self._refusal("track", code, value))
        elif number == _TRACK_ID and self.stage is Stage.RUNNING and code != 1:
            # it was served, and may be no longer
            self._refused("track", code, self._refusal("track", code, value))
        elif number >= _FIRST_SYNC_ID:
            self._synced(number, code, value)

    def _greeted(self, welcome: Welcome) -> None:
        stranger = self._ours.stranger(self._contact.endpoint, welcome)
        if stranger is not None:  # our place means nothing there
            self._lost(stranger)
            return
        self.router.learn(filter(is_endpoint, sorted(set(welcome.endpoints.values()))))
        self.node = welcome.node
        self._know_leader(welcome.leader)
        target = self._target
        self._contact.send(
            ops.Track(
                _TRACK_ID,
                target.uid,
                self.through,
                target.image and self.through is None,
                target.at_least,
            )
        )
        self._enter(Stage.STARTING, self._timeout + limits.TRACK_WAIT_SECONDS_MAX + 1.0)

    def _as_call(self, what: str) -> Call:
        """Return what is refused, for the message."""
        return Call(what, Needs.ANY, None, subject=self._target.name)

    def _refusal(self, what: str, code: int, value: Any) -> CheckpointError:
        reason, detail, _ = value
        return outcomes.refused(self._as_call(what), code, reason, detail, None, True)

    def _refused(self, what: str, code: int, error: CheckpointError) -> None:
        endpoint = self._contact.endpoint
        unknown = error.reason in _UNKNOWN and what == "connect"  # a replica may be behind
        if code in _PASSING or (unknown and not self._unknown_to_all(endpoint)):
            self._refusals.pop(endpoint, None)
            self._refusals[endpoint] = error
            self._lost(error.message)
        else:
            error.message = f"{error.message} ({endpoint})"
            error.args = (error.message,)
            self._end(error)

    def _unknown_to_all(self, endpoint: str) -> bool:
        """Whether nobody else is left who may know us."""
        return all(
            each == endpoint or (each in self._refusals and self._refusals[each].reason in _UNKNOWN)
            for each in self.router.endpoints
        )

    def _began(self, value: Any) -> None:
        uid, goes_on, _ = value
        if uid != self._target.uid:
            raise FrameError("it tracks another checkpoint")
        if goes_on is not None:
            if self.through is not None and goes_on != self.through:
                raise FrameError(f"it goes on from {goes_on}, not from {self.through}")
            self.through = goes_on
        self._image_first = goes_on is None
        self.stage = Stage.RUNNING
        self.started = True
        self._refusals.clear()
        self.router.problems.pop(self._contact.endpoint, None)
        self.router.progress()
        self._send_syncs()

    def _push(self, changes: list[Any], through: int) -> None:
        for fields in changes:
            revision, kind = fields[1], fields[2]
            if fields[0] != self._target.uid or type(revision) is not int:
                raise FrameError("a change of another checkpoint")
            if self._image_first and kind not in _IMAGES and kind != _DESTROYED:
                raise FrameError("a change where an image must come first")
            self._image_first = False
            if self.through is not None and revision <= self.through:
                if kind not in _IMAGES:
                    raise FrameError("a change that is not behind the last one")
                if revision < self.through:
                    raise FrameError("an image of the past")
            change = change_from_wire(fields)
            size = _OVERHEAD_BYTES + sum(
                [len(part.data) + _OVERHEAD_BYTES for part in change.parts]
            )
            self._changes.append(change)
            self._sizes.append(size)
            self._bytes += size
            self.through = revision
            if kind == _DESTROYED:
                self._end()
                return
        if self.through is not None and through < self.through:
            raise FrameError("less has been sent than was sent")
        self.through = through
        if (
            self._bytes > limits.TRACKER_BUFFER_BYTES_MAX
            or len(self._sizes) > limits.TRACKER_BUFFER_CHANGES_MAX
        ):
            self._starved = False
        self._settle_syncs()

    # --- syncs --------------------------------------------------------------------------------

    def _send_syncs(self) -> None:
        if self.stage is not Stage.RUNNING:
            return
        for sync in self._syncs:
            if not sync.number and sync.send_at <= self._now:
                sync.number = self._next_sync
                self._next_sync += 1
                self._contact.send(ops.TrackSync(sync.number, _TRACK_ID, sync.revision))

    def _synced(self, number: int, code: int, value: Any) -> None:
        if code == 1:
            if self.through is None or value < self.through:
                raise FrameError("less has been sent than was sent")
            self.through = value
            self._settle_syncs()
            return
        for sync in self._syncs:
            if sync.number == number:  # not yet: ask again
                sync.number = 0
                sync.send_at = self._now + _SYNC_PAUSE_S

    def _settle_syncs(self) -> None:
        through = self.through or 0
        if self._syncs:
            for sync in self._syncs:
                sync.done = sync.revision <= through
            self._syncs = [sync for sync in self._syncs if not sync.done]


def track_point(of: Opened | str | bytes | None) -> Call:
    """Build the question where the state is -> [revision, uid].

    Arguments:
        of: an open checkpoint (for reading), a name, or None: no checkpoint, just the revision.
    """
    if isinstance(of, Opened):
        message = ops.TrackPoint(0, 0, 0, of.handle)
        return Call("track", Needs.ATTACHED, message, subject=of.name)
    name = None if of is None else checkpoint_name_of(of)
    return Call("track", Needs.LEADER, ops.TrackPoint(0, 0, 0, name), subject=name or "")


def target_of(name: str, point: Any, from_revision: int | None, image: bool) -> Target:
    """Check the arguments of ``track()``.

    Raises:
        InvalidParam: the revision is none, or none that was given out.
    """
    revision, uid = point
    if from_revision is not None and (
        type(from_revision) is not int or not 0 <= from_revision <= revision
    ):
        raise InvalidParam(
            f"track on checkpoint {name!r}: from_revision is None or 0..{revision} "
            f"(the present revision), not {from_revision!r}"
        )
    return Target(uid, name, from_revision, bool(image), revision)


def tracker_core(client: ClientCore, target: Target, jitter: Callable[[], float]) -> TrackerCore:
    """Make the core of a tracker for a client; the replica on its node comes first."""
    config = client.config
    near = client.members.get(client.node or "")
    return TrackerCore(
        target,
        [*([near] if near is not None else []), *client.router.endpoints],
        introduction=config.introduction,
        connect_timeout=config.connect_timeout,
        jitter=jitter,
        founding=client.search.ours.id,
    )


def not_started(core: TrackerCore, target: Target, timeout: float) -> CheckpointError | None:
    """Return why no replica serves a tracker within its deadline; None: one does."""
    if core.error is not None:
        return core.error
    if core.started:
        return None
    refusal = core.last_refusal()
    if refusal is not None:
        return refusal
    return Unavailable(
        f"track on checkpoint {target.name!r}: no replica could be reached within {timeout:g} s "
        f"({core.where()}); check that the cluster runs and the endpoints are right"
    )

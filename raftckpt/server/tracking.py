"""Trackers: clients that are told of every committed change of a checkpoint, in order, with data.

Owns who tracks what and how far each got. Decides, and does no IO: a connection *pulls* the next
messages when its client reads (:meth:`Subscription.pull`), and is told by ``pushable`` that there
may be some. So a client that does not read costs its connection's buffers and slows nobody.

Invariants: per tracker, changes leave in the order of their revisions, each once, none left out;
what the history no longer has is replaced by an image, never skipped; nothing leaves that is not
applied here, hence committed; a tracker begins only when this replica has applied what the client
asks to go on from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

from raftckpt import limits
from raftckpt.errors import SaAisError, present
from raftckpt.model.access import READING
from raftckpt.model.changes import Change, ChangeKind
from raftckpt.model.checkpoints import Checkpoint
from raftckpt.model.queries import EAGER_ROWS, allowed, image_rows
from raftckpt.model.state import State
from raftckpt.model.types import Result
from raftckpt.protocol import contract
from raftckpt.protocol import operations as ops
from raftckpt.protocol.replies import ReplyKind
from raftckpt.server.history import History, Trail, cost

__all__ = ["Subscriber", "Subscription", "Tracking"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_NOT_EXIST: Final = int(SaAisError.ERR_NOT_EXIST)
_ACCESS: Final = int(SaAisError.ERR_ACCESS)
_INVALID: Final = int(SaAisError.ERR_INVALID_PARAM)
_NO_RESOURCES: Final = int(SaAisError.ERR_NO_RESOURCES)
_REPLY: Final = int(ReplyKind.REPLY)
_CHANGES: Final = int(ReplyKind.CHANGES)
_IMAGE: Final = int(ChangeKind.IMAGE)
_RESYNC: Final = int(ChangeKind.RESYNC)
_DESTROYED: Final = int(ChangeKind.DESTROYED)
_PUSH_BYTES: Final = 48 * limits.KIB
"""Cost of the changes of one message: it fits into a frame that is packed in one go."""

Messages = list[list[Any]]


class Subscriber(Protocol):
    """A connection as the trackers see it."""

    address: str
    """IP address it comes from ("" if unknown)."""
    principal: int
    """Number of whom it proved to be; 0: nobody."""
    subscription: Subscription | None
    """Its trackers, if it has any."""
    stalled_at: float | None
    """Since when its client does not take what is sent; None: it does."""

    def refuse(
        self, request: int, code: int, reason: str, detail: Any = None, *, definite: bool = True
    ) -> None:
        """Reply that nothing was done."""

    def revoke(self, request: int) -> None:
        """Tell that what was begun under a number, and answered, is over for lack of a right."""

    def value(self, request: int, value: Any) -> None:
        """Reply with a value."""

    def pushable(self) -> None:
        """There may be something to pull."""

    def notice(self, kind: str, value: Any) -> None:
        """Tell something that nobody asked for."""

    def break_off(self, why: str) -> None:
        """Close the connection."""


class _Tracker:
    """One client's place in the changes of one checkpoint."""

    __slots__ = (
        "image",
        "of",
        "position",
        "reply",
        "request",
        "syncs",
        "through",
        "trail",
    )

    def __init__(self, of: Subscription, request: int, trail: Trail, position: int) -> None:
        self.of = of
        self.request = request
        self.trail = trail
        self.position = position
        self.through = 0
        self.image = 0  # kind of the image that is due
        self.reply: list[Any] | None = None
        self.syncs: list[tuple[int, int, float]] = []  # (revision, request, deadline)

    def answered(self) -> Messages:
        """Replies to the syncs that have become true."""
        if not self.syncs:
            return []
        done = [sync for sync in self.syncs if sync[0] <= self.through]
        if done:
            self.syncs = [sync for sync in self.syncs if sync[0] > self.through]
        return [[_REPLY, request, 1, self.through] for _, request, _ in done]


def _may_track(state: State, uid: int, principal: int) -> bool:
    """Whether a principal may read what has, or until lately had, a uid."""
    if not state.access.on:
        return True
    checkpoint = state.checkpoints.get(uid)
    name = state.gone.get(uid) if checkpoint is None else checkpoint.name
    return name is not None and bool(state.access.rights(principal, name) & READING)


class Subscription:
    """The trackers of one connection."""

    __slots__ = ("_holds_image", "_ready", "_tracking", "subscriber", "told", "trackers")

    def __init__(self, tracking: Tracking, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.trackers: dict[int, _Tracker] = {}
        self._tracking = tracking
        self._ready: dict[_Tracker, None] = {}
        self._holds_image = False
        self.told = False  # that this replica is cut off

    def poke(self, tracker: _Tracker) -> None:
        """There may be something for ``tracker``."""
        self._ready[tracker] = None
        self.subscriber.pushable()

    def forget(self, tracker: _Tracker) -> None:
        """A tracker is no more."""
        self.trackers.pop(tracker.request, None)
        self._ready.pop(tracker, None)

    def pull(self) -> tuple[Messages, int]:
        """Messages to send now and their approximate size; none: nothing is to be sent.

        Whoever calls has sent what the last call returned.
        """
        self.release_image()
        ready = self._ready
        while ready:
            tracker = next(iter(ready))
            del ready[tracker]
            messages, size = self._tracking.take(tracker)
            if messages:
                if tracker.request in self.trackers:
                    ready[tracker] = None  # behind the others
                return messages, size
        return [], 0

    def hold_image(self) -> None:
        """A large image is on its way."""
        self._holds_image = True

    def release_image(self) -> None:
        """It is sent, or nobody is there to take it."""
        if self._holds_image:
            self._holds_image = False
            self._tracking.image_released(self)


class Tracking:
    """All trackers of a replica.

    Arguments:
        state: returns the applied state.
        clock: monotonic time.
        history: to share; a new one by default.
        cut_off: whether this replica has not heard of a leader for a while.
    """

    def __init__(
        self,
        state: Callable[[], State],
        clock: Callable[[], float],
        history: History | None = None,
        cut_off: Callable[[], bool] = lambda: False,
    ) -> None:
        self.history = History() if history is None else history
        self._state = state
        self._clock = clock
        self._cut_off = cut_off
        self._subscriptions: dict[Subscription, None] = {}
        self._starting: list[tuple[int, float, Subscription, ops.Track]] = []
        """(revision waited for, deadline, whose, message) of TRACK."""
        self._syncing: dict[_Tracker, None] = {}
        self._imaging: dict[Subscription, None] = {}
        self._image_waiting: dict[_Tracker, None] = {}
        self._by_address: Counter[str] = Counter()
        self.count = 0

    # --- what the replica tells ---------------------------------------------------------------

    def applied(self, changes: list[Change], revision: int) -> None:
        """An entry was applied: these are its changes, and the revision of the state after it."""
        for trail in self.history.add(changes, revision):
            for tracker in trail.followers:
                tracker.of.poke(tracker)
        if self._starting or self._syncing:
            self._go_on(revision)

    def restored(self, revision: int) -> None:
        """The state was replaced by an image of this revision."""
        self.history.reset(revision)
        for trail in self.history.trails.values():
            for tracker in trail.followers:
                tracker.of.poke(tracker)
        self._go_on(revision)

    def _go_on(self, revision: int) -> None:
        """Those who waited for this revision need not wait any longer."""
        due: list[tuple[int, float, Subscription, ops.Track]] = []
        if self._starting:
            due = [item for item in self._starting if item[0] <= revision]
            self._starting = [item for item in self._starting if item[0] > revision]
        for _, _, subscription, message in due:
            self._start(subscription, message)
        for tracker in list(self._syncing):
            if min(tracker.syncs)[0] <= revision:
                tracker.of.poke(tracker)

    def furthest_behind(self) -> int:
        """Changes that the slowest tracker was not sent yet. Goes over all: at most 4096."""
        return max(
            (
                trail.end - min(tracker.position for tracker in trail.followers)
                for trail in self.history.trails.values()
                if trail.followers
            ),
            default=0,
        )

    # --- what clients ask ---------------------------------------------------------------------

    def track(self, subscriber: Subscriber, message: ops.Track) -> None:
        """Begin."""
        request = message.request
        subscription = subscriber.subscription
        if subscription is None:
            subscription = subscriber.subscription = Subscription(self, subscriber)
            self._subscriptions[subscription] = None
        starting = [item[3].request for item in self._starting if item[2] is subscription]
        if request in subscription.trackers or request in starting:
            subscriber.refuse(request, _INVALID, "param", "the id of a tracker that is there")
            return
        own = len(subscription.trackers) + len(starting)
        if own >= limits.TRACKERS_PER_CONNECTION_MAX:
            subscriber.refuse(request, _NO_RESOURCES, "limit", "trackers of a connection")
            return
        address = subscriber.address
        theirs = sum(item[2].subscriber.address == address for item in self._starting)
        if address and self._by_address[address] + theirs >= limits.TRACKERS_PER_ADDRESS_MAX:
            subscriber.refuse(request, _NO_RESOURCES, "limit", "trackers of an address")
            return
        if self.count + len(self._starting) >= limits.TRACKERS_MAX:
            subscriber.refuse(request, _NO_RESOURCES, "limit", "trackers of a replica")
            return
        needed = max(message.from_revision or 0, message.at_least)
        if needed <= self._state().revision:
            self._start(subscription, message)
        else:
            deadline = self._clock() + limits.TRACK_WAIT_SECONDS_MAX
            self._starting.append((needed, deadline, subscription, message))

    def _start(self, subscription: Subscription, message: ops.Track) -> None:
        request, target, from_revision = message.request, message.target, message.from_revision
        state, history = self._state(), self.history
        principal = subscription.subscriber.principal
        if isinstance(target, str):
            found = allowed(state, target, principal, READING)
            if isinstance(found, Result):
                refused = found.value
                subscription.subscriber.refuse(request, found.code, refused.reason, refused.detail)
                return
            checkpoint: Checkpoint | None = found
            uid = found.uid
        else:
            uid = target
            checkpoint = state.checkpoints.get(uid)
            if not _may_track(state, uid, principal):
                subscription.subscriber.refuse(request, _NOT_EXIST, "checkpoint_missing", uid)
                return
        if checkpoint is None and (from_revision is None or uid >= state.next_uid):
            subscription.subscriber.refuse(request, _NOT_EXIST, "checkpoint_missing", uid)
            return
        since = history.revision if from_revision is None else from_revision
        if checkpoint is not None and checkpoint.revision <= since:
            since = history.revision  # nothing happened since, however long ago it was
        trail = history.trail(uid, since)
        # of a checkpoint that is gone, the history has at least the end, or nothing is left to tell
        lost = trail is None or (checkpoint is None and trail.position(since) == trail.end)
        if trail is None:
            trail = history.trail(uid, history.revision)
        trail = present(trail, "a history reaches back to its own newest revision")
        position = trail.first - 1 if lost else trail.position(since)
        tracker = _Tracker(subscription, request, trail, position)
        tracker.through = from_revision if from_revision is not None else history.revision
        if from_revision is None and message.image:
            tracker.image = _IMAGE
        goes_on = None if tracker.image or lost else tracker.through
        tracker.reply = [_REPLY, request, 1, [uid, goes_on, history.revision]]
        trail.followers[tracker] = None
        subscription.trackers[request] = tracker
        self.count += 1
        self._by_address[subscription.subscriber.address] += 1
        subscription.poke(tracker)

    def sync(self, subscriber: Subscriber, message: ops.TrackSync) -> None:
        """Answer when all up to a revision was sent."""
        request, number, revision = message.request, message.tracker, message.revision
        tracker = self._find(subscriber, number)
        if tracker is None:
            subscriber.refuse(request, _NOT_EXIST, "tracker", number)
        elif len(tracker.syncs) >= limits.TRACKER_SYNCS_MAX:
            subscriber.refuse(request, _NO_RESOURCES, "limit", "syncs of a tracker")
        else:
            deadline = self._clock() + limits.TRACK_WAIT_SECONDS_MAX
            tracker.syncs.append((revision, request, deadline))
            self._syncing[tracker] = None
            tracker.of.poke(tracker)

    def stop(self, subscriber: Subscriber, message: ops.TrackStop) -> None:
        """Track no more."""
        request, number = message.request, message.tracker
        tracker = self._find(subscriber, number)
        if tracker is None:
            subscriber.refuse(request, _NOT_EXIST, "tracker", number)
            return
        for _, sync, _ in tracker.syncs:
            subscriber.refuse(sync, _NOT_EXIST, "tracker", number)
        if tracker.reply is not None:
            subscriber.refuse(tracker.request, _NOT_EXIST, "tracker", number)
        self._end(tracker)
        subscriber.value(request, None)

    def rights_changed(self) -> None:
        """End the trackers of those who may not read what they track any more."""
        state = self._state()
        if not state.access.on:
            return
        for subscription in self._subscriptions:
            subscriber = subscription.subscriber
            for tracker in list(subscription.trackers.values()):
                if _may_track(state, tracker.trail.uid, subscriber.principal):
                    continue
                for _, sync, _ in tracker.syncs:
                    subscriber.refuse(sync, _ACCESS, "revoked")
                if tracker.reply is not None:
                    subscriber.refuse(tracker.request, _ACCESS, "revoked")
                else:
                    subscriber.revoke(tracker.request)
                self._end(tracker)

    def _find(self, subscriber: Subscriber, number: int) -> _Tracker | None:
        subscription = subscriber.subscription
        return None if subscription is None else subscription.trackers.get(number)

    def dropped(self, subscriber: Subscriber) -> None:
        """A connection is gone."""
        subscription, subscriber.subscription = subscriber.subscription, None
        if subscription is None:
            return
        del self._subscriptions[subscription]
        self._starting = [item for item in self._starting if item[2] is not subscription]
        for tracker in list(subscription.trackers.values()):
            self._end(tracker)
        subscription.release_image()

    def _end(self, tracker: _Tracker) -> None:
        tracker.of.forget(tracker)
        self._syncing.pop(tracker, None)
        self._image_waiting.pop(tracker, None)
        del tracker.trail.followers[tracker]
        self.history.release(tracker.trail)
        self.count -= 1
        self._by_address[tracker.of.subscriber.address] -= 1
        if not self._by_address[tracker.of.subscriber.address]:
            del self._by_address[tracker.of.subscriber.address]

    # --- what leaves --------------------------------------------------------------------------

    def take(self, tracker: _Tracker) -> tuple[Messages, int]:
        """Next messages of a tracker, and their approximate size."""
        if tracker.reply is not None:
            reply, tracker.reply = tracker.reply, None
            return [reply], 64
        trail = tracker.trail
        if not tracker.image and tracker.position < trail.first:
            lost = self._fell_behind(tracker)
            if lost is not None:
                return lost
        if tracker.image:
            return self._image(tracker)
        changes, size = trail.take(tracker.position, _PUSH_BYTES)
        tracker.position += len(changes)
        if tracker.position == trail.end:
            tracker.through = self.history.revision
        else:
            tracker.through = changes[-1][1]
        messages: Messages = []
        if changes:
            messages.append([_CHANGES, tracker.request, changes, tracker.through])
            if changes[-1][2] == _DESTROYED:
                messages += self._last_words(tracker)
                return messages, size
        if size <= _PUSH_BYTES:
            messages += self._answered(tracker)
        return messages, size

    def _answered(self, tracker: _Tracker) -> Messages:
        replies = tracker.answered()
        if replies and not tracker.syncs:
            self._syncing.pop(tracker, None)
        return replies

    def _last_words(self, tracker: _Tracker) -> Messages:
        """The checkpoint is gone: nothing will ever follow, whatever was waited for."""
        replies = [[_REPLY, request, 1, tracker.through] for _, request, _ in tracker.syncs]
        self._end(tracker)
        return replies

    def _fell_behind(self, tracker: _Tracker) -> tuple[Messages, int] | None:
        """The history no longer has what is next: an image is due, unless nothing was missed."""
        uid, revision = tracker.trail.uid, self.history.revision
        checkpoint = self._state().checkpoints.get(uid)
        if checkpoint is None:
            change = (uid, revision, _DESTROYED, 0, None, None, None)
            tracker.through = revision
            push = [_CHANGES, tracker.request, [change], revision]
            return [push, *self._last_words(tracker)], cost(change)
        if checkpoint.revision <= tracker.through:
            tracker.position = tracker.trail.first
        else:
            tracker.image = _RESYNC
        return None

    def _image(self, tracker: _Tracker) -> tuple[Messages, int]:
        state, trail = self._state(), tracker.trail
        checkpoint = state.checkpoints.get(trail.uid)
        if checkpoint is None:  # destroyed while the image waited
            tracker.image = 0
            tracker.position = trail.first - 1
            return self._fell_behind(tracker) or ([], 0)
        if len(checkpoint.sections) > EAGER_ROWS:
            if len(self._imaging) >= limits.TRACK_IMAGES_MAX:
                self._image_waiting[tracker] = None
                return [], 0
            self._imaging[tracker.of] = None
            tracker.of.hold_image()
        kind, tracker.image = tracker.image, 0
        tracker.position = trail.end
        tracker.through = revision = state.revision
        detail = [
            [checkpoint.active, checkpoint.epoch, checkpoint.exclusive, checkpoint.owner],
            checkpoint.attributes.retention_ns,
            checkpoint.unlinked,
        ]
        rows = image_rows(state, checkpoint)
        change = (trail.uid, revision, kind, 0, None, rows, detail)
        size = max(contract.PAGE_BYTES, checkpoint.memory_used)  # it goes alone, in fragments
        return [[_CHANGES, tracker.request, [change], revision]], size

    def image_released(self, subscription: Subscription) -> None:
        """A large image is sent: the next one who waits may have his."""
        self._imaging.pop(subscription, None)
        if self._image_waiting:
            tracker = next(iter(self._image_waiting))
            del self._image_waiting[tracker]
            tracker.of.poke(tracker)

    # --- time ---------------------------------------------------------------------------------

    def tick(self) -> None:
        """Refuse what waited too long, warn who may miss something; call about once a second."""
        now = self._clock()
        if self._subscriptions:
            cut_off = self._cut_off()
            for subscription in self._subscriptions:
                if cut_off and not subscription.told:
                    subscription.subscriber.notice("cut_off", None)
                subscription.told = cut_off
        late = [item for item in self._starting if item[1] <= now]
        if late:
            self._starting = [item for item in self._starting if item[1] > now]
        revision = self.history.revision
        for _, _, subscription, message in late:
            subscription.subscriber.refuse(message.request, _TRY_AGAIN, "behind", revision)
        for tracker in list(self._syncing):
            for sync in [sync for sync in tracker.syncs if sync[2] <= now]:
                tracker.syncs.remove(sync)
                tracker.of.subscriber.refuse(sync[1], _TRY_AGAIN, "behind", revision)
            if not tracker.syncs:
                del self._syncing[tracker]
        if self._image_waiting:
            for subscription in list(self._imaging):
                stalled_at = subscription.subscriber.stalled_at
                if stalled_at is not None and now - stalled_at > limits.TRACK_STALL_SECONDS_MAX:
                    subscription.subscriber.break_off("an image is not read, and others wait")

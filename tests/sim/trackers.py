"""Users who follow checkpoints: the product's tracker core on simulated connections.

Each is compared, change by change, with what a machine of its own made of the committed entries:
nothing missing, doubled, out of order or different between two images, and an image equals the
reference at its revision. Some take slowly, some are stopped, some go on from a revision of long
ago; replicas keep a short history in some worlds, so that not everybody can be told everything.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from raftckpt.client.changes import Change, change_from_wire
from raftckpt.client.greeting import Introduction
from raftckpt.client.tracking import Stage, Target, TrackerCore
from raftckpt.model.changes import ChangeKind
from raftckpt.protocol.frames import FrameDecoder, message_frames, reply_frames
from raftckpt.server.tracking import Tracking
from tests.messages import unpack_messages
from tests.sim.clients import endpoint_of
from tests.sim.events import Timer
from tests.sim.truth import Truth

if TYPE_CHECKING:
    from tests.sim.service import Pipe
    from tests.sim.standbys import StandbyWorld

_BACKLOG_MAX: Final = 4
"""Segments that wait for a tracker which does not read, before its replica is stopped as well."""
_NEXT_AFTER_S: Final = 0.5


class TrackedTruth(Truth):
    """Remembers the changes of every checkpoint as a tracker must see them."""

    def __init__(self, world: StandbyWorld) -> None:
        super().__init__(world)
        self.changes: dict[int, list[Change]] = {}
        self.revisions: dict[int, list[int]] = {}

    def applied(self, index: int, payload: bytes) -> tuple[int, ...]:
        fresh = index > self.machine.applied_index
        tags = super().applied(index, payload)
        if fresh:
            for change in self.machine.changes:
                self.changes.setdefault(change[0], []).append(_travelled(change))
                self.revisions.setdefault(change[0], []).append(change[1])
        return tags

    def position(self, uid: int, revision: int) -> int:
        """How many changes a checkpoint had up to a revision."""
        return bisect_right(self.revisions.get(uid, []), revision)

    def content(self, uid: int, revision: int) -> dict[bytes, bytes]:
        """Sections of a checkpoint as of a revision."""
        sections: dict[bytes, bytes] = {}
        for change in self.changes.get(uid, [])[: self.position(uid, revision)]:
            change.apply_to(sections)
        return sections


def _travelled(change: Any) -> Change:
    """A change as it comes out of a connection."""
    message = [3, 1, [change], change[1]]
    decoder = FrameDecoder()
    for frame in message_frames([message]):
        for body in decoder.feed(frame):
            for received in unpack_messages(body):
                return change_from_wire(received[2][0])
    for frame in reply_frames(message):
        for body in decoder.feed(frame):
            for received in unpack_messages(body):
                return change_from_wire(received[2][0])
    raise AssertionError("a change that does not travel")


class WatchedTracking(Tracking):
    """The trackers of a replica; an image in the place of changes must be needed."""

    world: StandbyWorld
    name: str

    def take(self, tracker: Any) -> tuple[list[list[Any]], int]:
        before, begins = tracker.through, tracker.reply is not None
        messages, size = super().take(tracker)
        for message in messages if not begins else ():
            if message[0] == 3 and message[2][0][2] == ChangeKind.RESYNC:
                self.world.checks.sometimes["tracker resyncs"] += 1
                self.world.checks.expect(
                    self.history.floor > before,
                    "resync only when the history does not reach",
                    self.name, "has all since", self.history.floor, "of", before,
                )  # fmt: skip
        return messages, size


class WatchedTracker(TrackerCore):
    """Remembers from which revision the replica said it goes on."""

    goes_on: int | None = None

    def _began(self, value: Any) -> None:
        super()._began(value)
        self.goes_on = value[1]


class SimTracker:
    """Somebody who follows one checkpoint after another."""

    def __init__(self, world: StandbyWorld, name: str, follow: str = "") -> None:
        self.world, self.name, self._follow = world, name, follow
        self.rng = random.Random(f"{world.seed}/{name}")
        self.frozen = False
        self.life = 0
        self.slow_s = 0.0 if follow else self.rng.choice((0.0, 0.0, 0.02, 0.5))
        """Pause between two changes that it takes."""
        self.core: WatchedTracker | None = None
        self._uid = 0
        self._held: list[Any] = []
        self._timer: Timer | None = None
        self._pipe: Pipe | None = None
        self._backlog: deque[tuple[int, bytes]] = deque()
        self._stopped_server = False
        self._asked = self._running = 0
        self._position: int | None = None
        self._copy: dict[bytes, bytes] | None = None
        self._taking = False
        self._begin()

    # --- its life -----------------------------------------------------------------------------
    def _begin(self) -> None:
        """Track something, as ``track()`` does: where the state is was asked of the leader."""
        truth = self.world.truth
        names = sorted(n for n, c in truth.machine.names.items() if c.uid in truth.changes)
        if self._follow:
            names = [n for n in truth.machine.names if n == self._follow]
        if not names or self.core is not None:
            if self.core is None:
                self.world.queue.after(0.1, self._begin)
            return
        name = self.rng.choice(names)
        self._uid = uid = truth.machine.names[name].uid
        now, revision = self.world.queue.now, truth.machine.revision
        since, image = None, True
        dice = 1.0 if self._follow else self.rng.random()
        if dice < 0.15:
            image = False
        elif dice < 0.4:
            since = self.rng.choice([*truth.revisions[uid][-200:], revision])
        self.core = WatchedTracker(
            Target(uid, name, since, image, revision),
            self.rng.sample([endpoint_of(n) for n in sorted(self.world.processes)],
                            len(self.world.processes)),
            introduction=Introduction(self.name),
            connect_timeout=1.0,
            jitter=self.rng.random,
        )  # fmt: skip
        self._position = self._copy = None
        if since is not None:
            self._position = truth.position(uid, since)
            self._copy = truth.content(uid, since)
        self._asked = self._running = 0
        self.world.note("tracks", self.name, uid, since, image)
        self.core.seek(now)
        self.settle()

    def die(self) -> None:
        """It is closed; another one begins."""
        self.world.note("tracker dies", self.name)
        self.life += 1
        self._drop()
        self.frozen = self._taking = False
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.core is not None:
            self.core.close()
            self.core = None
            self.world.queue.after(self.rng.uniform(0.0, 0.5), self._begin)

    def freeze(self, seconds: float) -> None:
        """Its process is stopped for a while; what is sent to it waits."""
        if not self.frozen:
            self.world.checks.sometimes["trackers frozen"] += 1
            self.world.note("tracker freezes", self.name)
            self.frozen = True
            self.world.queue.after(seconds, self.thaw, self.life)

    def thaw(self, life: int) -> None:
        if life != self.life or not self.frozen:
            return
        self.frozen = False
        held, self._held = self._held, []
        for call in held:
            call()

    def _awake(self, call: Any, *args: Any) -> bool:
        if self.frozen:
            self._held.append(lambda: call(*args))
            return False
        return True

    def reset(self) -> None:
        """Its connection breaks."""
        if self._pipe is not None and self._pipe.process.up:
            self._pipe._server_closes()

    def hurry(self) -> None:
        """Faults are over: take everything at once."""
        self.slow_s = 0.0
        self.thaw(self.life)
        self.settle()

    # --- driving the core ---------------------------------------------------------------------
    def settle(self) -> None:
        """Carry out what the core wants, as a face does."""
        core = self.core
        if core is None or self.frozen:
            return
        if not self.slow_s:
            self._take_all()
        self._read_on()
        target = core.target()
        number = 0 if target is None else target[0]
        if self._pipe is not None and self._pipe.number != number:
            self._drop()
        if self._pipe is not None:
            data = core.data_to_send()
            if data:
                self._pipe.send_up(data)
        elif target is not None and self._asked != number:
            self._asked = number
            self.world.queue.after(
                self.rng.uniform(0.0002, 0.001), self._dial, self.life, number, target[1]
            )
        if self.slow_s and core.waiting and not self._taking:
            self._taking = True
            self.world.queue.after(self.rng.expovariate(1 / self.slow_s), self._take_slowly)
        if core.stage is Stage.ENDED and not core.waiting:
            self._ended(core)
        else:
            self._wake_at(core.next_deadline())

    def _wake_at(self, deadline: float) -> None:
        now, timer = self.world.queue.now, self._timer
        if timer is not None:
            timer.cancel()
            self._timer = None
        if deadline != float("inf"):
            self._timer = self.world.queue.at(max(deadline, now + 1e-5), self._tick, self.life)

    def _tick(self, life: int) -> None:
        if life != self.life or self.core is None or not self._awake(self._tick, life):
            return
        self._timer = None
        now = self.world.queue.now
        if now >= self.core.next_deadline():
            self.core.tick(now)
        self.settle()

    def _dial(self, life: int, number: int, endpoint: str) -> None:
        if life != self.life or not self._awake(self._dial, life, number, endpoint):
            return
        core = self.core
        target = core.target() if core is not None else None
        if core is None or target is None or target[0] != number:
            return
        process = self.world.processes[endpoint.partition(":")[0]]
        if self.world.client_delay(self.name, process.name) is None:
            return
        if not process.up:
            core.connection_lost(number, "Connection refused", self.world.queue.now)
        else:
            self._pipe = self.world.pipe(self, number, process)  # type: ignore[arg-type]
            core.connected(number, self.world.queue.now)
        self.settle()

    def _drop(self) -> None:
        if self._pipe is not None:
            self._pipe.client_closes()
        self._pipe = None
        self._backlog.clear()
        self._stopped_server = False

    def received(self, pipe: Pipe, life: int, data: bytes) -> None:
        if life != self.life or pipe is not self._pipe:
            return
        self._backlog.append((pipe.number, data))
        if len(self._backlog) > _BACKLOG_MAX and not self._stopped_server:
            self._stopped_server = True  # what a full socket does
            self._tell_server("pause_writing")
        self.settle()

    def _read_on(self) -> None:
        core = self.core
        while core is not None and self._backlog and core.hungry:
            number, data = self._backlog.popleft()
            core.data_received(number, data, self.world.queue.now)
            self._look_who_serves(core)
            if not self.slow_s:
                self._take_all()
        if self._stopped_server and not self._backlog:
            self._stopped_server = False
            self._tell_server("resume_writing")

    def _tell_server(self, what: str) -> None:
        pipe = self._pipe
        if pipe is None:
            return
        process = pipe.process
        process.later(lambda: getattr(pipe.server, what)() if pipe._serving() else None)

    def lost(self, pipe: Pipe, life: int) -> None:
        if life != self.life or not self._awake(self.lost, pipe, life):
            return
        if pipe is self._pipe and self.core is not None:
            self._read_on()
            self._pipe = None
            self._backlog.clear()
            self._stopped_server = False
            self.core.connection_lost(pipe.number, "it closed", self.world.queue.now)
        self.settle()

    # --- what it is told ----------------------------------------------------------------------
    def _look_who_serves(self, core: WatchedTracker) -> None:
        if core.stage is not Stage.RUNNING or self._running == core.target()[0]:
            return
        sometimes = self.world.checks.sometimes
        if self._running and not core._image_first:
            sometimes["tracker resumes"] += 1
        elif self._running:
            sometimes["tracker begins anew"] += 1
        self._running = core.target()[0]
        if self._position is None and core.goes_on is not None:  # from now on
            self._position = self.world.truth.position(self._uid, core.goes_on)

    def _take_slowly(self) -> None:
        if not self._awake(self._take_slowly):
            return
        self._taking = False
        if self.core is not None:
            change = self.core.take(self.world.queue.now)
            if change is not None:
                self._took(change)
            self.settle()

    def _take_all(self) -> None:
        core = self.core
        if core is None:
            return
        while (change := core.take(self.world.queue.now)) is not None:
            self._took(change)
        self._nothing_missing(core)

    def _took(self, change: Change) -> None:
        world, truth = self.world, self.world.truth
        expect = world.checks.expect
        world.note("change", self.name, change.kind, change.revision)
        world.checks.sometimes["tracked changes"] += 1
        if change.is_image:
            world.checks.sometimes["tracker images"] += 1
            content = truth.content(self._uid, change.revision)
            self._copy = dict(change.image)
            expect(
                self._copy == content, "an image equals the state at its revision",
                self.name, self._uid, change.revision,
                sorted(self._copy.items() ^ content.items())[:2],
            )  # fmt: skip
            self._position = truth.position(self._uid, change.revision)
            return
        expected = truth.changes.get(self._uid, [])
        if change.kind == "destroyed":
            world.checks.sometimes["trackers saw the end"] += 1
            expect(
                bool(expected) and expected[-1].kind == "destroyed",
                "a checkpoint that is there has not ended", self.name, self._uid,
            )  # fmt: skip
            return
        position = self._position
        assert position is not None, "a change before the reply"
        due = expected[position] if position < len(expected) else None
        expect(
            change == due, "no tracked change is missing, doubled or out of order",
            self.name, self._uid, "was told", change, "but next is", due,
        )  # fmt: skip
        self._position = position + 1
        if self._copy is not None:
            change.apply_to(self._copy)

    def _nothing_missing(self, core: WatchedTracker) -> None:
        """All was taken: then nothing up to where it says it is may be missing."""
        truth, position = self.world.truth, self._position
        if position is None or core.through is None or core._image_first:
            return
        if core.stage is Stage.ENDED:
            return
        revisions = truth.revisions.get(self._uid, [])
        if position < len(revisions):
            self.world.checks.expect(
                revisions[position] > core.through, "what has arrived is complete",
                self.name, self._uid, "says", core.through, "but lacks", revisions[position],
            )  # fmt: skip

    def _ended(self, core: WatchedTracker) -> None:
        """The checkpoint is gone (or the revision was too old to be told of its end)."""
        error = core.error
        gone = self._uid not in self.world.truth.machine.checkpoints
        self.world.note("tracker ended", self.name, error)
        self.world.checks.expect(
            gone, "a tracker ends with its checkpoint only", self.name, self._uid, error
        )
        self.life += 1
        self._drop()
        self.core = None
        self.world.queue.after(self.rng.uniform(0.0, _NEXT_AFTER_S), self._begin)

    @property
    def settled(self) -> bool:
        """Whether it holds the content of the checkpoint, and all that arrived was taken."""
        core = self.core
        return core is not None and self._copy is not None and not core.waiting

    def must_have(self, revision: int) -> None:
        """It was handed every change up to a revision."""
        if self._uid not in self.world.truth.machine.checkpoints:
            return
        due = self.world.truth.position(self._uid, revision)
        self.world.checks.expect(
            self._position is not None and self._position >= due,
            "told ACTIVE only after every change of the one before",
            self.name, revision, self._position, due,
        )  # fmt: skip

    # --- at the end ---------------------------------------------------------------------------
    def final(self) -> None:
        """Everything is healed and quiet: it is served, has everything and holds the state."""
        core = self.core
        if core is None:
            return
        self.settle()
        truth, checks = self.world.truth, self.world.checks
        checks.expect(
            core.stage is Stage.RUNNING, "trackers catch up", self.name, core.stage, core.problem
        )
        if self._position is not None:
            due = truth.revisions.get(self._uid, [])[self._position :]
            checks.expect(not due, "trackers catch up", self.name, self._uid, "lacks", due[:5])
        if self._copy is not None:
            sections = truth.machine.checkpoints[self._uid].sections
            real = {section: bytes(s[0]) for section, s in sections.items()}
            checks.expect(
                self._copy == real, "trackers hold the state", self.name, self._uid,
                sorted(self._copy.items() ^ real.items())[:2],
            )  # fmt: skip

"""Components of service groups, driven by the product's own core, and their operators.

Each is a process that follows the checkpoint of its group and writes to it while it believes that
it is active. They die, are stopped past their session's time-out, answer late or not at all, and
raise in their callbacks.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from raftckpt.client import group_operations, operations
from raftckpt.client.calls import Call
from raftckpt.client.types import Attributes
from raftckpt.errors import Access, CheckpointError, Library
from raftckpt.ha._core import RECONNECTED, Callbacks, Invoke, Membership, Pause, Run, Sync
from raftckpt.ha.types import Assignment
from raftckpt.model.groups import AdminState, HaState, Operation, Transition
from raftckpt.model.types import Result
from raftckpt.protocol import operations as ops
from tests.messages import Tag
from tests.sim.clients import GRACE_S, SESSION_TIMEOUT_S, SimClient
from tests.sim.trackers import SimTracker, TrackedTruth
from tests.sim.truth import Pending

if TYPE_CHECKING:
    from tests.sim.standbys import StandbyWorld

_LOOP_S: Final = 0.02
_DRIFT: Final = 0.01
"""What a margin must bear: clocks that run so much faster or slower."""
_STOPPED_WITHIN_S: Final = 0.1
"""From the judgement of its own clock to the call of on_quiesced: some turns of its loop."""
_CALL_S: Final = 2.0
_RESPONSE_S: Final = 1.5
_WRITE_GAP_S: Final = 0.06
_UNLOCKING_S: Final = 3.0
"""How long after the last call of other clients operators go on at least."""


class GroupTruth(TrackedTruth):
    """Keeps, beside the machine, who was deposed and what the one before committed."""

    def __init__(self, world: StandbyWorld) -> None:
        super().__init__(world)
        self._deposed: dict[int, set[int]] = defaultdict(set)
        self._gone: set[int] = set()
        self._numbers: dict[tuple[int, str, str], int] = {}
        self._wrote: dict[int, int] = {}
        self._silenced: set[int] = set()
        """Sessions that ended by silence."""
        self._holders: dict[str, tuple[int, int]] = {}
        """Group -> (epoch, session) of its last ACTIVE."""

    def applied(self, index: int, payload: bytes) -> tuple[int, ...]:
        fresh = index > self.machine.applied_index
        living = set(self.machine.sessions)
        tags = super().applied(index, payload)
        if fresh and ops.OPERATIONS[ops.SessionExpire].tag in tags:
            expired = living - set(self.machine.sessions)
            self._silenced.update(expired)
            for each in self.world.components:
                if each.core.session in expired:
                    self._was_it_silent(each)
        if fresh:
            self._gone.update(s for s in self._secrets if s not in self.machine.sessions)
            for group in self.machine.groups.by_name.values():
                self._look_at(group)
        return tags

    def _happened(self, command: Any, uid: int, result: Result) -> None:
        super()._happened(command, uid, result)
        if result.code != 1:
            return
        tag, session = command[0], command[1]
        if tag == Tag.GROUP_JOIN:
            self._numbers[session, command[4], command[5]] = result.value[0]
        elif tag == Tag.GROUP_FAIL:
            for number, _ in command[4]:
                member = self.machine.groups.members.get(number)
                if member is not None and member.state == HaState.REMOVED:
                    self._deposed[member.session].add(number)
        elif tag == Tag.GROUP_RESPOND:
            number = self._numbers[session, command[4], command[5]]
            if number in self._deposed[session]:
                self._deposed[session].discard(number)
            elif not command[7]:
                self._deposed[session].add(number)

    def _revised(self, command: Any, uid: int, result: Result) -> None:
        super()._revised(command, uid, result)
        session = command[1]
        self._wrote[session] = self._last[session][1]
        self.world.checks.expect(
            not self._deposed[session] and session not in self._gone,
            "who was deposed writes nothing", session, self._deposed[session], command[:4],
        )  # fmt: skip

    def _was_it_silent(self, component: SimComponent) -> None:
        """A session ends by its client's death or silence, never because everybody stood still."""
        world, core = self.world, component.core
        now = world.queue.now
        proven, broke = (at / component.pace for at in (core._proven_at, core._broke_at))
        silent = now - proven - world.stood_still_since(proven)
        # its replica saw those, whoever else did
        broke = min([broke, *(each.at for each in component.breaks if each.at > proven)])
        broken = now - broke - world.stood_still_since(broke)
        self.world.checks.expect(
            silent > 0.95 * SESSION_TIMEOUT_S or broken > 0.9 * GRACE_S,
            "no session ends because everybody stood still",
            component.name, "silent for", silent, "broken for", broken,
        )  # fmt: skip

    def _could_not_know(self, component: SimComponent) -> bool:
        """Whether its session ended by a break that only its replica saw: the fence is left.

        That is no excuse for whoever was told of a break, or had its time-out of silence.
        """
        now, proven = self.world.queue.now, component.core._proven_at / component.pace
        silent = now - proven - self.world.stood_still_since(proven)
        old = [x for x in component.breaks if x.at > proven and now - x.at > 0.9 * GRACE_S]
        return (
            silent < SESSION_TIMEOUT_S
            and bool(old)
            and all(now - x.heard_at < _STOPPED_WITHIN_S for x in old)
        )

    def _look_at(self, group: Any) -> None:
        checks = self.world.checks
        actives = [m for m in group.members.values() if m.state == HaState.ACTIVE]
        checks.expect(
            len(actives) <= 1 and all(m.epoch == group.epoch for m in actives),
            "at most one active", group.name, [(m.name, m.epoch) for m in actives], group.epoch,
        )  # fmt: skip
        checks.expect(
            group.admin != AdminState.UNLOCKED or not group.members or bool(group.active),
            "an unlocked group with a component has a holder", group.name,
        )  # fmt: skip
        epoch, session = self._holders.get(group.name, (0, 0))
        checks.expect(group.epoch >= epoch, "epochs grow", group.name, epoch, group.epoch)
        if group.epoch == epoch or not actives:
            return
        active = actives[0]
        if session in self._silenced:
            for each in self.world.components:
                works = (
                    each.group == group.name
                    and each.name != active.name
                    and each.core.session == session
                    and each.works_blindly()
                )
                if works and self._could_not_know(each):
                    checks.sometimes["breaks that only the replica saw"] += 1
                    continue
                checks.expect(
                    not works, "who is silent has stopped before another one is active",
                    each.name, "works", active.name, "is active",
                )  # fmt: skip
            checks.sometimes["took over from the silent"] += 1
        checks.sometimes["role changes"] += 1
        checks.sometimes[f"active because of {active.reason}"] += 1
        if active.transition == Transition.NOT_QUIESCED:
            wrote = self._wrote.get(session, 0)
            checks.expect(
                active.revision >= wrote, "a takeover knows what the one before committed",
                group.name, active.name, active.revision, "but", session, "wrote", wrote,
            )  # fmt: skip
        self._holders[group.name] = group.epoch, active.session

    def groups_final(self) -> None:
        """Long after the last fault: whoever can be served is."""
        for group in self.machine.groups.by_name.values():
            holder = group.holder
            self.world.checks.expect(
                group.admin == AdminState.UNLOCKED
                and holder is not None
                and holder.state == HaState.ACTIVE
                and holder.answered,
                "a group with a live component has an active",
                group.name, group.admin, group.active, holder and holder.row(),
            )  # fmt: skip


class GroupClient(SimClient):
    """A client whose calls are asked for one by one."""

    world: StandbyWorld

    def __init__(self, world: StandbyWorld, name: str) -> None:
        self._steps: dict[int, tuple[Pending, Callable[[Any, Exception | None], None]]] = {}
        super().__init__(world, name, calm=True)

    def _begin_session(self) -> None:
        self._steps = {}
        super()._begin_session()

    def _open(self, name: str) -> None:
        """The checkpoints of other clients are none of its business."""

    def ask(
        self, call: Call, seconds: float, then: Callable[[Any, Exception | None], None]
    ) -> None:
        """Run a call; ``then`` gets its value or its error."""
        pending = Pending(call, "group", self.core_secret, self.world.truth.floor)
        self._steps[id(call)] = pending, then
        now = self.clock()
        self.core.start(call, now + seconds, now)
        self.settle()

    def _completed(self, call: Call) -> None:
        pending, then = self._steps.pop(id(call), (None, None))
        if pending is None or then is None:
            super()._completed(call)
            return
        value, error = None, None
        try:
            value = operations.decoded(call)
        except CheckpointError as raised:
            error = raised
            self.world.checks.expect(
                not isinstance(error, Library), "client and replica understand each other",
                self.name, call.name, error,
            )  # fmt: skip
            if error.definite:
                self.world.truth.refused(self.name, pending)
        else:
            if call.sequence:
                self.world.truth.acknowledged(self.name, pending)
        # not from within the core
        self.world.queue.after(1e-6, self._then, self._life, then, value, error)

    def _then(self, life: int, then: Any, value: Any, error: Exception | None) -> None:
        if life == self._life and self._awake(self._then, life, then, value, error):
            then(value, error)


class Operator(GroupClient):
    """Swaps, locks and unlocks now and then; unlocks everything when faults are over."""

    _stop_at = 0.0

    def _next(self) -> None:
        faults = self.world.faults.active
        self.world.queue.after(self.rng.expovariate(0.8 if faults else 2.0), self._next)
        if self.frozen:
            return
        if self.core.lost is not None:
            self._begin_session()
            return
        if not self.world.calling and not self._stop_at:
            self._stop_at = self.world.queue.now + _UNLOCKING_S
        if len(self._steps) > 4 or self._at_home():
            return
        for group in self.world.group_names:
            what = Operation.UNLOCK
            if faults:
                what = self.rng.choices(
                    (Operation.UNLOCK, Operation.SWAP, Operation.LOCK, Operation.SHUTDOWN),
                    (5, 4, 1, 1),
                )[0]
            self.ask(group_operations.admin(group, what), _CALL_S, self._done)

    def _at_home(self) -> bool:
        """The end must be quiet, but what it locked nobody else unlocks.

        It may have been out of reach all the time: a connection that was asked for while it was
        cut off is waited for longer than that.
        """
        if not 0 < self._stop_at < self.world.queue.now:
            return False
        groups = self.world.truth.machine.groups.by_name.values()
        locked = any(group.admin != AdminState.UNLOCKED for group in groups)
        self.world.checks.sometimes["operators stayed for a locked group"] += locked
        return not locked

    def _done(self, value: Any, error: Exception | None) -> None:
        how = "done" if error is None else "refused or failed"
        self.world.checks.sometimes[f"operations on groups {how}"] += 1


class SimComponent(GroupClient):
    """One component: a program with a session, a tracker and the product's membership."""

    def __init__(self, world: StandbyWorld, name: str, group: str) -> None:
        self.group = group
        self.follower: SimTracker | None = None
        self._busy = False
        self.working = False
        """Whether its work goes on: from the call of on_active to the next callback."""
        self.thawed_at = 0.0
        if world.silences:
            self.pace = 1.0 + random.Random(f"{world.seed}/{name}/pace").choice((-_DRIFT, _DRIFT))
        super().__init__(world, name)
        self.follower = SimTracker(world, f"{name}/t", follow=group)
        self._loop()
        self._write()

    # --- its life -----------------------------------------------------------------------------
    def _begin_session(self) -> None:
        super()._begin_session()
        self._busy = self.working = False
        self.membership = Membership(
            self.core,
            self.group,
            self.name,
            Callbacks(*[self._called] * 5),
            rank=0,
            response_timeout=_RESPONSE_S,
            health_check=None if self.world.silences else self.rng.choice((None, 1.0)),
            rejoin=True,
        )
        self.membership.serve(lambda: None)
        self._in_callback = False
        call = operations.open_checkpoint(self.group, Attributes(), "rw")
        self.run(call, "open")

    def _again(self, life: int, name: str) -> None:
        if life == self._life and self.core.lost is None and self._awake(self._again, life, name):
            self.run(operations.open_checkpoint(name, Attributes(), "rw"), "open")

    def _believes(self) -> bool:
        current = self.membership.current
        return current is not None and current.state is HaState.ACTIVE

    def die(self) -> None:
        self.world.checks.sometimes["actives killed"] += self._believes()
        if self.follower is not None:
            self.follower.die()
        super().die()

    def freeze(self, seconds: float) -> None:
        if not self.frozen:
            self.world.checks.sometimes["actives frozen"] += self._believes()
            if self.follower is not None:
                self.follower.freeze(seconds)
        super().freeze(seconds)

    def _thaw(self, life: int) -> None:
        self.thawed_at = self.world.queue.now
        super()._thaw(life)

    def cut_off(self, seconds: float) -> None:
        """No replica hears from it, or it from them; nothing tells it."""
        world = self.world
        world.checks.sometimes["actives cut off"] += self.working
        world.note("component cut off", self.name, seconds)
        for node in world.processes:
            world.client_cuts.add((self.name, node))
            world.queue.after(seconds, world.client_cuts.discard, (self.name, node))

    def proven_for(self) -> float:
        """Seconds of its clock since it sent the last sign of life that was answered."""
        return self.clock() - self.core._proven_at

    def works_blindly(self) -> bool:
        """Whether it works, awake long enough to have looked at its clock."""
        now = self.world.queue.now
        return (
            self.working
            and not self.frozen
            and not self._in_callback
            and now - self.thawed_at > _STOPPED_WITHIN_S
        )

    def _next(self) -> None:
        self.world.queue.after(0.1, self._next)
        if not self.frozen and self.core.lost is not None and not self.running:
            self.world.checks.sometimes["component sessions lost"] += 1
            self._begin_session()

    def _loop(self) -> None:
        self.world.queue.after(_LOOP_S, self._loop)
        if self.frozen or self.core.lost is not None:
            return
        now = self.clock()
        if not self._in_callback:
            beat = self.membership.beat(now)
            if beat is not None:
                self.ask(beat, 0.5, lambda value, error: None)
        if self._busy:
            return
        clock = self.clock
        steps = (
            self.membership.work(clock, _CALL_S)
            if self.membership.member
            else self.membership.join(now + _CALL_S, clock)
        )
        self._busy = True
        self._step(self._life, steps, None, None)

    def _write(self) -> None:
        """Whoever believes that it is active works."""
        self.world.queue.after(self.rng.expovariate(1 / _WRITE_GAP_S), self._write)
        opened = self.opened.get(self.group)
        if (
            opened is not None
            and self.world.calling
            and not self.frozen
            and self.core.lost is None
            and len(self.running) < 10
            and self._believes()
        ):
            self._put(opened)

    def _failed(self, pending: Pending, error: CheckpointError) -> None:
        if pending.kind == "put" and isinstance(error, Access):
            self.world.checks.sometimes["fenced writes refused"] += 1
        super()._failed(pending, error)

    # --- the core's steps ---------------------------------------------------------------------
    def _step(self, life: int, steps: Any, value: Any, error: Exception | None) -> None:
        if life != self._life or not self._awake(self._step, life, steps, value, error):
            return
        self._in_callback = False
        try:
            step = steps.send(value) if error is None else steps.throw(error)
        except StopIteration:
            self._busy = False
            return
        except CheckpointError as raised:
            self.world.note("component", self.name, type(raised).__name__, raised.reason)
            self._busy = False
            if not self.membership.member and raised.reason in ("component_joined", "deposed"):
                self.world.checks.sometimes["joins that took effect unseen"] += 1
            return
        except (RuntimeError, TimeoutError):
            self.world.checks.sometimes["components failed"] += 1
            self.die()
            return
        self._carry_out(life, steps, step)

    def _carry_out(self, life: int, steps: Any, step: Any) -> None:
        queue = self.world.queue
        if isinstance(step, Run):
            seconds = _CALL_S if step.timeout is None else step.timeout
            self.ask(step.call, seconds, lambda v, e: self._step(life, steps, v, e))
        elif isinstance(step, Pause):
            queue.after(step.seconds, self._step, life, steps, None, None)
        elif isinstance(step, Sync):
            self._sync(life, steps, step.revision, queue.now + _RESPONSE_S)
        else:
            assert isinstance(step, Invoke)
            self._in_callback = True
            delay, raised = self._called(step.assignment)
            queue.after(delay, self._step, life, steps, None, raised)

    def _sync(self, life: int, steps: Any, revision: int, deadline: float) -> None:
        """Until the tracker has everything up to a revision; late is a failure, as in a face."""
        if life != self._life or not self._awake(self._sync, life, steps, revision, deadline):
            return
        now, follower = self.world.queue.now, self.follower
        core = follower.core if follower is not None else None
        if now > deadline:
            self._step(life, steps, None, TimeoutError())
            return
        if core is not None and follower is not None:
            sync = core.sync(revision, now)
            follower.settle()
            done = sync.done
            core.give_up(sync)
            if done and follower.settled:
                self._step(life, steps, None, None)
                return
        self.world.queue.after(0.01, self._sync, life, steps, revision, deadline)

    def _called(self, assignment: Assignment) -> tuple[float, Exception | None]:
        """A callback: how long it takes, and what it raises."""
        world = self.world
        self.working = assignment.state in (HaState.ACTIVE, HaState.QUIESCING)
        world.note("role", self.group, self.name, assignment.state.name, assignment.reason)
        if assignment.state is HaState.ACTIVE:
            world.checks.sometimes["told ACTIVE"] += 1
            assert self.follower is not None
            if assignment.reason != RECONNECTED:  # then the one before was itself
                self.follower.must_have(assignment.revision)
        dice = self.rng.random() if world.faults.active else 1.0
        if dice < 0.04:
            world.checks.sometimes["components hung"] += 1
            return self.rng.uniform(1.2, 4.0) * _RESPONSE_S, None
        if dice < 0.06:
            return 0.0, RuntimeError("a callback raised")
        return (self.rng.uniform(0.1, 0.8) if dice < 0.15 else 0.0), None

"""A chaos run from the first process to the verdict."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from raftckpt.chaos.audit import Audit, audit
from raftckpt.chaos.disk import MIB_MIN
from raftckpt.chaos.history import Kind, Operation, Outcome, load
from raftckpt.chaos.linearizability import Judgement, judge
from raftckpt.chaos.nemesis import Mark, Nemesis
from raftckpt.chaos.stage import ChaosStage, Sample
from raftckpt.errors import CheckpointError
from raftckpt.testing.local_cluster import ClusterNotReady

__all__ = ["Plan", "Report", "run"]

_WARM_UP_S: Final = 60.0
"""As long as a local cluster has to be ready: on a machine that does much else all take long."""
_CLIENTS_END_S: Final = 40.0
"""Five times what a call may take (``stage._TIMEOUT_S``): a client ends after the one it is in."""
_SPARES: Final = 2
"""One more to add while one replaces another."""
_TICK_S: Final = 0.5
"""Between two looks at a run that takes a minute and more."""
_DISK_FREE_S: Final = 300.0
"""Runs up to this do with the least disk (five minutes are a long one): see below."""
_DISK_MIB_PER_S: Final = 1.0
"""A longer run makes a larger state: its small disk has to have room for some snapshots of that."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do.

    Attributes:
        seconds: how long faults are played.
        seed: decides faults and what clients do; the outcome also depends on the machine.
        replicas: 3 or 5.
        directory: where everything is kept.
        clients: client processes.
        rate_min: acknowledged changes a second below which the verdict is "idle".
        pace: changes a second the clients aim at.
        judge_s: seconds the judge may take; after a longer run, as long as that lasted.
        recovery_s: seconds the cluster may take to serve again when everything is healed.
        module: what replicas run.
        only: names of faults to restrict it to; empty: all.
        members: whether members come and go, too.
        other_version: command put before that of a replica that runs as another version; empty:
            all are this one.
    """

    seconds: float
    seed: int
    directory: Path
    replicas: int = 3
    clients: int = 4
    rate_min: float = 100.0
    pace: float = 1200.0
    judge_s: float = 120.0
    recovery_s: float = 60.0
    module: str = "raftckpt.process"
    only: tuple[str, ...] = ()
    members: bool = False
    other_version: tuple[str, ...] = ()


@dataclass
class Report:
    """What came of it.

    Attributes:
        verdict: "ok", or the worst that was found: "violated", "diverged", "failed", "undecided",
            "idle".
        problems: why it is not ok, in words.
        seconds: from the first fault to the last.
        begin: when the faults began, monotonic ns.
    """

    plan: Plan
    verdict: str = "failed"
    problems: list[str] = field(default_factory=list)
    acknowledged: int = 0
    acknowledged_under_faults: int = 0
    reads: int = 0
    unknown: int = 0
    refused: int = 0
    seconds: float = 0.0
    begin: int = 0
    end: int = 0
    recovery_s: float | None = None
    audit: Audit = field(default_factory=Audit)
    judgement: Judgement | None = None
    faults: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    answers: list[tuple[int, bool]] = field(default_factory=list)
    """When an operation was answered, and whether it was a change."""
    load: float = 0.0

    @property
    def per_s(self) -> float:
        """Changes acknowledged a second while faults were played."""
        return self.acknowledged_under_faults / self.seconds if self.seconds else 0.0

    @property
    def linearizable(self) -> bool | None:
        """Whether the history is; None: it was not judged, or not to the end."""
        judgement = self.judgement
        if judgement is not None and judgement.violations:
            return False
        return True if judgement is not None and judgement.linearizable else None

    def as_json(self) -> dict[str, Any]:
        """Return the report as the command line prints it."""
        judgement = self.judgement
        return {
            "verdict": self.verdict,
            "seed": self.plan.seed,
            "replicas": self.plan.replicas,
            "seconds": round(self.seconds, 1),
            "acknowledged": self.acknowledged,
            "acknowledged_per_s": round(self.per_s, 1),
            "reads": self.reads,
            "unknown": self.unknown,
            "refused": self.refused,
            "audited": self.audit.audited,
            "audited_on": self.audit.audited_on,
            "not_audited": self.audit.not_audited,
            "lost": self.audit.lost_count,
            "linearizable": self.linearizable,
            "undecided": None if judgement is None else len(judgement.undecided),
            "replicas_equal": self.audit.equal,
            "recovery_s": None if self.recovery_s is None else round(self.recovery_s, 2),
            "judge_s": None if judgement is None else round(judgement.seconds, 2),
            "faults": self.faults,
            "skipped": self.skipped,
            "load": self.load,
            "problems": self.problems,
        }


def run(plan: Plan, tell: Callable[[str], None]) -> Report:
    """Play faults against a cluster of its own and judge what its clients saw.

    Arguments:
        plan: what to do.
        tell: is called with lines about what happens.

    Raises:
        ClusterNotReady: the cluster does not even start.
    """
    report = Report(plan)
    dice = random.Random(plan.seed)
    stage = ChaosStage(
        plan.directory,
        plan.replicas,
        plan.clients,
        dice,
        module=plan.module,
        pace=plan.pace,
        spares=_SPARES if plan.members else 0,
        other_version=plan.other_version,
        disk_mib=MIB_MIN + int(_DISK_MIB_PER_S * max(0.0, plan.seconds - _DISK_FREE_S)),
    )
    nemesis: Nemesis | None = None
    try:
        if stage.disk is None:
            report.skipped["full disk"] = stage.no_disk
            tell(f"skipped: full disk ({stage.no_disk})")
        stage.start()
        _wait_for(stage, plan.clients * 20, _WARM_UP_S, "the clients do not get going")
        nemesis = Nemesis(stage, plan.seed, tell, plan.only, members=plan.members)
        _play(plan, stage, nemesis, report, tell)
        tell("faults are over: healing")
        healed = time.monotonic()
        all_back = stage.keeper.recover(plan.recovery_s)
        try:
            _wait_for(stage, 20, plan.recovery_s, "no writes after everything was healed")
            report.recovery_s = time.monotonic() - healed if all_back else None
        except _Stuck as error:  # the audit may say more
            report.problems.append(str(error))
        report.problems += stage.stop_clients(_CLIENTS_END_S)
        stage.keeper.recover(plan.recovery_s if all_back else 0.0)
        operations = load(stage.histories())
        tell(f"looking for {sum(map(_confirmed, operations))} acknowledged writes on every replica")
        report.audit = audit(stage.cluster, operations)
    except (ClusterNotReady, CheckpointError, _Stuck) as error:
        report.problems.append(str(error))
        operations = load(stage.histories())
    finally:
        if nemesis is not None:
            nemesis.stop()
        stage.end()
    report.problems += stage.keeper.problems
    report.samples = list(stage.samples)
    _conclude(report, operations, tell)
    return report


class _Stuck(Exception):
    """What must go on does not."""


def _wait_for(stage: ChaosStage, more: int, timeout: float, what: str) -> None:
    wanted = stage.acknowledged + more
    deadline = time.monotonic() + timeout
    while stage.acknowledged < wanted:
        if time.monotonic() > deadline:
            raise _Stuck(what)
        stage.keeper.restart()
        time.sleep(0.05)


def _play(
    plan: Plan, stage: ChaosStage, nemesis: Nemesis, report: Report, tell: Callable[[str], None]
) -> None:
    report.begin = time.monotonic_ns()
    before = stage.acknowledged
    nemesis.start()
    try:
        until = time.monotonic() + plan.seconds
        while time.monotonic() < until and not nemesis.problems:
            time.sleep(min(_TICK_S, max(0.0, until - time.monotonic())))
            tell(f"\r{stage.acknowledged - before}")
    finally:
        report.end = time.monotonic_ns()
        report.load = round(os.getloadavg()[0], 2)
        report.seconds = (report.end - report.begin) / 1e9
        nemesis.stop()
        stage.heal()
        report.marks = sorted(nemesis.marks)
        report.faults = nemesis.counts
        report.problems += nemesis.problems


def _confirmed(op: Operation) -> bool:
    return op.changes and op.kind is not Kind.OPEN


def _conclude(report: Report, operations: list[Operation], tell: Callable[[str], None]) -> None:
    for op in operations:
        if _confirmed(op) and op.returned is not None:
            report.acknowledged += 1
            report.acknowledged_under_faults += report.begin <= op.returned < report.end
            report.answers.append((op.returned, True))
        elif op.kind.reads and op.outcome is Outcome.OK and op.returned is not None:
            report.reads += 1
            report.answers.append((op.returned, False))
        elif op.outcome is Outcome.UNKNOWN:
            report.unknown += 1
        elif op.outcome is Outcome.REFUSED:
            report.refused += 1
    tell(f"judging {len(operations)} operations")
    budget_s = max(report.plan.judge_s, report.plan.seconds)
    report.judgement = judge([*operations, *report.audit.reads], budget_s=budget_s)
    report.verdict = _verdict(report, report.judgement)


def _verdict(report: Report, judgement: Judgement) -> str:
    found = report.audit
    report.problems += [f"lost: {each}" for each in found.lost[:20]]
    report.problems += map(str, judgement.violations)
    report.problems += [f"{node} was not audited: {why}" for node, why in found.not_audited.items()]
    failed = bool(report.problems)
    report.problems += [f"undecided: {each}" for each in judgement.undecided]
    if found.lost or judgement.violations:
        return "violated"
    if found.equal is False:
        report.problems.append(f"the replicas differ: {found.digests}")
        return "diverged"
    if failed:
        return "failed"
    if judgement.undecided:
        return "undecided"
    if report.per_s < report.plan.rate_min:
        report.problems.append(
            f"only {report.per_s:.0f} acknowledged writes a second; "
            f"{report.plan.rate_min:.0f} are the least that proves something"
        )
        return "idle"
    if found.lost_count is None or not report.faults:
        report.problems.append("nothing happened: no fault was played or no write audited")
        return "idle"
    return "ok"

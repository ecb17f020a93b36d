"""``raftckpt chaos``: faults against a local cluster, and the verdict on what its clients saw."""

from __future__ import annotations

import json
import random
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raftckpt_cli.options import output_option
from raftckpt_cli.output import ExitCode, Failure, print_json, print_pairs

if TYPE_CHECKING:
    from raftckpt.chaos.audit import Audit
    from raftckpt.chaos.run import Report

__all__ = ["chaos"]

_SHOWN = 6
_KNOWN = {True: "yes", False: "no", None: "unknown"}
_JUDGE_SECONDS_MIN = 120.0
_JUDGE_SECONDS_PER_SECOND = 2.0
"""What the judge may take grows with the history; the judge needs less on an idle machine."""


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(1.0, 86_400.0),
    default=60.0,
    show_default=True,
    help="How long faults are played.",
)
@click.option("--seed", type=click.IntRange(0), help="Of faults and clients.  [default: random]")
@click.option(
    "--replicas",
    type=click.Choice(["3", "5"]),
    default="3",
    show_default=True,
    help="Size of the cluster.",
)
@click.option(
    "--clients",
    type=click.IntRange(1, 32),
    default=4,
    show_default=True,
    help="Client processes.",
)
@click.option("--members", is_flag=True, help="Members come and go, too (two more hosts).")
@click.option(
    "--other-version",
    metavar="COMMAND",
    default="",
    help="Restart replicas now and then as another version: a command to put before theirs.",
)
@click.option(
    "--min-rate",
    type=click.FloatRange(0.0),
    default=100.0,
    show_default=True,
    help='Acknowledged writes a second below which the verdict is "idle".',
)
@click.option(
    "--report", type=click.Path(dir_okay=False, writable=True), help="Write the JSON report here."
)
@click.option(
    "--picture", type=click.Path(dir_okay=False, writable=True), help="Draw the run here (SVG)."
)
@click.option(
    "--data-dir", help="Keep histories and logs here.  [default: removed unless it fails]"
)
@output_option
def chaos(
    seconds: float,
    seed: int | None,
    replicas: str,
    clients: int,
    members: bool,
    other_version: str,
    min_rate: float,
    report: str | None,
    picture: str | None,
    data_dir: str | None,
    output: str,
) -> int:
    """Break a real cluster in every way at hand, and prove that it kept its promises.

    Replicas and clients run as processes of their own, with proxies between all of them. They are
    killed, paused, cut off from each other, slowed down; a disk gets full; clients die too.
    Afterwards every acknowledged write is looked for on every replica, and one order of all
    operations is sought that explains what every client saw. The verdict is "ok" only if nothing is
    lost, the history is linearizable, nothing is left undecided and enough happened.

    \b
    Examples:
      raftckpt chaos --seconds 60 --picture chaos.svg
      raftckpt chaos --replicas 5 --seed 7 --report chaos.json
      raftckpt chaos --seconds 600 -o json | tail -1
      raftckpt chaos --members --other-version "env PYTHONPATH=/opt/raftckpt-next"
    """  # noqa: D301
    from raftckpt.chaos.picture import save
    from raftckpt.chaos.run import Plan, run
    from raftckpt.testing.local_cluster import ClusterNotReady

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    where = Path(data_dir) if data_dir else Path(tempfile.mkdtemp(prefix="raftckpt-chaos-"))
    if where.exists() and any(where.iterdir()):
        raise Failure(
            f"cannot use {where}", "it is not empty", "name a directory that is new", ExitCode.USAGE
        )
    where.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        seconds=seconds,
        seed=random.randrange(1_000_000) if seed is None else seed,
        directory=where.absolute(),
        replicas=int(replicas),
        clients=clients,
        rate_min=min_rate,
        members=members,
        other_version=tuple(shlex.split(other_version)),
        judge_s=max(_JUDGE_SECONDS_MIN, _JUDGE_SECONDS_PER_SECOND * seconds),
    )
    progress = _Progress(plan.seed, seconds)
    done = False
    try:
        result = run(plan, progress.tell)
        done = result.verdict == "ok"
    except ClusterNotReady as error:
        raise Failure(
            "the run could not begin", str(error), f"look at the logs in {where}"
        ) from None
    except KeyboardInterrupt:
        done = True  # nobody asks for what is left of it
        raise
    finally:
        progress.clear()
        if done and data_dir is None:
            _remove(where)
    if report:
        Path(report).write_text(json.dumps(result.as_json(), indent=2) + "\n", "utf-8")
    if picture:
        save(result, Path(picture))
    if output == "json":
        print_json(result.as_json())
    else:
        _print(result, None if done else where)
    return ExitCode.OK if result.verdict == "ok" else ExitCode.REFUSED


def _remove(where: Path) -> None:
    import shutil

    shutil.rmtree(where, ignore_errors=True)


class _Progress:
    """What happens, on stderr; on a terminal the last line counts."""

    def __init__(self, seed: int, seconds: float) -> None:
        self._begin = time.monotonic()
        self._seconds = seconds
        self._live = sys.stderr.isatty()
        self._drawn = False
        click.echo(f"raftckpt chaos: seed {seed}, faults for {seconds:g} s", err=True)

    def tell(self, text: str) -> None:
        at = f"{time.monotonic() - self._begin:7.1f} s  "
        if text.startswith("\r"):
            if self._live:
                click.echo(f"\r\x1b[2K{at}{text[1:]} writes acknowledged", err=True, nl=False)
                self._drawn = True
            return
        self.clear()
        click.echo(at + text, err=True)

    def clear(self) -> None:
        if self._drawn:
            click.echo("\r\x1b[2K", err=True, nl=False)
            self._drawn = False


def _audited(audit: Audit) -> str:
    if not audit.audited_on:
        return "nothing"
    text = f"{audit.audited} writes on each of {', '.join(audit.audited_on)}"
    return text + "".join(f"; not on {node}" for node in audit.not_audited)


def _print(result: Report, kept: Path | None) -> None:
    said = result.as_json()
    faults = ", ".join(f"{name} {count}" for name, count in result.faults.items())
    print_pairs(
        [
            ("acknowledged", f"{result.acknowledged} writes, {result.per_s:.0f}/s under faults"),
            ("reads", result.reads),
            ("unknown outcomes", result.unknown),
            ("audited", _audited(result.audit)),
            ("lost", "unknown: nothing was audited" if said["lost"] is None else said["lost"]),
            ("linearizable", _KNOWN[said["linearizable"]]),
            ("undecided", said["undecided"]),
            ("replicas equal", _KNOWN[said["replicas_equal"]]),
            ("faults", f"{sum(result.faults.values())}: {faults}"),
            *((f"skipped {name}", why) for name, why in result.skipped.items()),
        ]
    )
    for problem in result.problems[:_SHOWN]:
        click.secho(f"problem: {problem}", fg="red")
    if len(result.problems) > _SHOWN:
        click.echo(f"... and {len(result.problems) - _SHOWN} more (--report has them)")
    if kept is not None:
        click.echo(f"histories and logs: {kept}")
    ok = result.verdict == "ok"
    click.secho(
        f"verdict: {result.verdict}   seed {result.plan.seed}",
        fg="green" if ok else "red",
        bold=True,
    )

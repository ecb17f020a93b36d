"""``raftckpt demo``: stage csa103 and show what happens."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from typing import TYPE_CHECKING

import click

from raftckpt_cli.options import output_option
from raftckpt_cli.output import ExitCode, Failure, print_json

if TYPE_CHECKING:
    from raftckpt.testing.csa103.director import Moment, RunOutcome

__all__ = ["demo"]


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(1.0, 86_400.0),
    default=12.0,
    show_default=True,
    help="How long the counter runs, failovers included.",
)
@click.option(
    "--kill",
    "kills",
    default="active,leader,node",
    show_default=True,
    help="What to kill -9, in turn: active (component), leader (replica), node (both); may repeat.",
)
@click.option("--data-dir", help="Keep data and logs here.  [default: a temporary directory]")
@output_option
def demo(seconds: float, kills: str, data_dir: str | None, output: str) -> int:
    """Two components count together on a real cluster while parts of it are killed.

    A three-replica cluster with fsync is started, and the two components of the csa103 tutorial.
    The active one says "Hello World! (seq=n)" and checkpoints every number; when it dies the
    cluster makes the standby active, which tracked every number and goes on with the next one. The
    verdict is "ok" when each number follows the last acknowledged one, or the single one that was
    in flight.

    \b
    Examples:
      raftckpt demo
      raftckpt demo --seconds 60 --kill leader,leader,node,active
      raftckpt demo -o json | tail -1
    """  # noqa: D301
    from raftckpt.errors import CheckpointError
    from raftckpt.testing import LocalCluster
    from raftckpt.testing.csa103.director import KINDS, Director
    from raftckpt.testing.local_cluster import ClusterNotReady

    chosen = [kind.strip() for kind in kills.split(",") if kind.strip()]
    unknown = [kind for kind in chosen if kind not in KINDS]
    if unknown:
        raise click.BadParameter(
            f"{unknown[0]} is not one of {', '.join(KINDS)}", param_hint="--kill"
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    stage = _Stage(output)
    where = data_dir or tempfile.mkdtemp(prefix="raftckpt-demo-")
    stage.title(where, kept=data_dir is not None)
    keep = data_dir is not None
    try:
        with LocalCluster(3, os.path.join(where, "cluster"), faults=False) as cluster:
            director = Director(cluster, seconds=seconds, kills=chosen, tell=stage.tell)
            outcome = director.run()
        stage.clear()
        _report(outcome, output)
        ok = outcome.judgement.verdict == "ok"
        if not ok:
            keep = True
            click.echo(f"logs and data are kept in {where}", err=True)
        return ExitCode.OK if ok else ExitCode.REFUSED
    except (ClusterNotReady, RuntimeError, CheckpointError) as error:
        keep = True
        stage.clear()
        raise Failure(
            "the demo could not run to its end",
            str(error),
            f"logs and data are kept in {where}; on a busy machine try again when it is quiet",
            ExitCode.UNAVAILABLE,
        ) from None
    finally:
        if not keep:
            shutil.rmtree(where, ignore_errors=True)


class _Stage:
    """Prints the timeline; on a terminal the counter runs in the last line."""

    def __init__(self, output: str) -> None:
        self._err = output == "json"  # then stdout belongs to the result
        stream = sys.stderr if self._err else sys.stdout
        self._live = stream.isatty()
        self._drawn = False
        self._speak_next = True

    def title(self, where: str, *, kept: bool) -> None:
        self._line(
            "raftckpt demo: csa103 on three replicas with fsync, killed in turn with kill -9"
        )
        self._line(f"data and logs: {where}{'' if kept else ' (removed if all goes well)'}\n")

    def clear(self) -> None:
        if self._drawn:
            click.echo("\r\x1b[2K", err=self._err, nl=False)
            self._drawn = False

    def tell(self, moment: Moment) -> None:
        if moment.kind == "number":
            if self._live:
                text = f"\r\x1b[2K{moment.at_s:8.2f} s  {moment.who}  {moment.text}"
                click.echo(text, err=self._err, nl=False)
                self._drawn = True
            if not self._speak_next:
                return
            self._speak_next = False
        text = _describe(moment)
        self._speak_next = self._speak_next or moment.kind == "active"
        self.clear()
        self._line(f"{moment.at_s:8.2f} s  {text}")

    def _line(self, text: str) -> None:
        click.echo(text, err=self._err)


def _describe(moment: Moment) -> str:
    who, text, value = moment.who, moment.text, moment.value
    match moment.kind:
        case "kill":
            return click.style(f"kill -9 {text}", fg="red", bold=True) + (
                f"   last acknowledged: {value}"
            )
        case "active":
            found = "knows no number yet" if value is None else f"knows {value}"
            return click.style(f"{who} is ACTIVE", fg="green", bold=True) + f" {text}, {found}"
        case "resumed":
            name = who.partition("[")[0]
            return click.style(f"{name} goes on with {value}: {text} ms after the kill", fg="green")
        case "standby":
            return f"{who} is STANDBY {text}"
        case "started":
            return f"replica {who} {text}"
        case "number":
            return f"{who}: {text}"
        case _:
            return f"replica {who} {text}" if who else text


def _report(outcome: RunOutcome, output: str) -> None:
    judgement = outcome.judgement
    if output == "json":
        print_json(
            {
                "verdict": judgement.verdict,
                "written": judgement.written,
                "numbers_per_s": round(outcome.numbers_per_s, 1),
                "failovers": [
                    {
                        "kind": each.kind,
                        "what": each.what,
                        "gap_ms": None if each.gap_ns is None else round(each.gap_ns / 1e6, 1),
                        "last_before": each.last_before,
                        "first_after": each.first_after,
                    }
                    for each in judgement.failovers
                ],
                "problems": judgement.problems,
                "digest_index": outcome.digest_index,
            }
        )
        return
    click.echo("\nKILLED                                 GAP      NUMBERS")
    for each in judgement.failovers:
        gap = "never" if each.gap_ns is None else f"{each.gap_ns / 1e6:.0f} ms"
        click.echo(f"{each.what:<37}  {gap:<7}  {each.last_before} -> {each.first_after}")
    digests = set(outcome.digests.values())
    if len(digests) == 1:
        click.echo(
            f"\nall {len(outcome.digests)} replicas hold the same state "
            f"(sha256 {str(digests.pop())[:12]} at log index {outcome.digest_index})"
        )
    for problem in judgement.problems:
        click.secho(f"problem: {problem}", fg="red")
    ok = judgement.verdict == "ok"
    text = f"{judgement.written} numbers acknowledged at {outcome.numbers_per_s:.0f}/s, "
    text += "none lost, none doubled, none skipped" if ok else "the history is broken"
    click.secho(f"verdict: {judgement.verdict}   {text}", fg="green" if ok else "red", bold=True)

"""``raftckpt cluster``: every replica's own view, leadership transfer, comparison of states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raftckpt_cli.options import ClusterTarget, cluster_options
from raftckpt_cli.output import ExitCode, Failure, print_json, print_table

if TYPE_CHECKING:
    from raftckpt import ReplicaStatus

__all__ = ["cluster"]

_COLUMNS = ("node", "endpoint", "reachable", "role", "applied", "commit", "term", "pid", "version")
_MORE = (
    "first",
    "last",
    "snapshot",
    "sessions",
    "connections",
    "checkpoints",
    "uptime_s",
    "rss_bytes",
    "journal_bytes",
    "longest_step_ms",
    "trackers",
    "history_bytes",
    "history_from",
)


@click.group()
def cluster() -> None:
    """Status, leadership transfer, comparison of replicas."""


@cluster.command("status")
@cluster_options
def status(target: ClusterTarget) -> int:
    """Ask every replica what it knows; exit code 4 if none leads.

    \b
    Examples:
      raftckpt cluster status
      raftckpt cluster status -o json | jq -r .leader
    """  # noqa: D301
    with target.connect(session=False) as service:
        found = service.cluster()
    leader = next((each.node for each in found.replicas if _leads(each, found.term)), None)
    if target.json:
        replicas = [_json_of(each) for each in found.replicas]
        print_json({"leader": leader, "term": found.term, "replicas": replicas})
    else:
        rows = [
            [
                each.node,
                each.endpoint,
                "yes" if each.reachable else "no",
                each.role,
                each.applied,
                each.commit,
                each.term,
                each.pid,
                each.version,
                each.detail.get("sessions"),
                each.durability,
            ]
            for each in found.replicas
        ]
        print_table(
            [*_COLUMNS, "sessions", "durability"],
            [["-" if cell is None else cell for cell in row] for row in rows],
        )
    if leader is None:
        answered = [each.node for each in found.replicas if each.reachable]
        raise Failure(
            "no replica leads",
            f"answering: {', '.join(answered) or 'none'} of {len(found.replicas)}; "
            "a majority is needed",
            "start the missing replicas; their logs say why they stopped",
            ExitCode.UNAVAILABLE,
        )
    return ExitCode.OK


@cluster.command("transfer")
@click.argument("node", required=False)
@cluster_options
def transfer(target: ClusterTarget, node: str | None) -> None:
    """Hand leadership to NODE (default: the follower that holds most of the log).

    \b
    Examples:
      raftckpt cluster transfer n2
    """  # noqa: D301
    with target.connect(session=False) as service:
        before = service.cluster()
        service.transfer_leadership(node)
        after = service.cluster()
    if target.json:
        print_json({"from": before.leader, "leader": after.leader, "term": after.term})
    else:
        click.echo(f"leadership handed over from {before.leader} to {after.leader}")


@cluster.command("check")
@cluster_options
def check(target: ClusterTarget) -> int:
    """Compare the states of all replicas after one and the same log entry.

    Exit code 0: all equal; 1: they differ, which must never happen; 4: not all could be asked.

    \b
    Examples:
      raftckpt cluster check
    """  # noqa: D301
    with target.connect(session=False) as service:
        report = service.check()
    index = report.index
    digests = dict(sorted(report.digests.items()))
    known = {digest for digest in digests.values() if digest is not None}
    missing = [node for node, digest in digests.items() if digest is None]
    if target.json:
        equal = len(known) == 1 and not missing
        print_json({"index": index, "equal": equal, "digests": digests, "unreachable": missing})
    else:
        print_table(["node", "digest"], [[n, d or "no answer"] for n, d in digests.items()])
    if len(known) > 1:
        raise Failure(
            f"the replicas differ at log index {index}",
            ", ".join(f"{node}: {digest}" for node, digest in digests.items()),
            "stop writing, keep all data directories, and report it: this must never happen",
        )
    if missing:
        raise Failure(
            f"{', '.join(missing)} could not be compared",
            f"no digest for log index {index} within {target.timeout:g} s",
            "start the missing replicas, or allow more with --timeout",
            ExitCode.UNAVAILABLE,
        )
    if not target.json:
        click.echo(f"all {len(digests)} replicas hold the same state at log index {index}")
    return ExitCode.OK


def _leads(replica: ReplicaStatus, term: int) -> bool:
    return replica.leader == replica.node and replica.term == term


def _json_of(replica: ReplicaStatus) -> dict[str, Any]:
    return {
        "node": replica.node,
        "role": replica.role,
        "reachable": replica.reachable,
        "applied": replica.applied,
        "commit": replica.commit,
        "term": replica.term,
        "pid": replica.pid,
        "version": replica.version,
        "endpoint": replica.endpoint,
        "leader": replica.leader,
        "durability": replica.durability,
        "revision": replica.revision,
        "problem": replica.problem,
        **{name: replica.detail.get(name) for name in _MORE},
    }

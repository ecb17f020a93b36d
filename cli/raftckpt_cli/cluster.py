"""``raftckpt cluster``: every replica's own view, leadership transfer, comparison of states."""

from __future__ import annotations

from typing import Any

import click

from raftckpt_cli.options import Target, cluster_options
from raftckpt_cli.output import ExitCode, Failure, print_json, print_table

__all__ = ["cluster"]

_SHOWN = ("role", "applied", "commit", "term", "pid", "version")
_MORE = (
    "leader",
    "durability",
    "revision",
    "sessions",
    "connections",
    "checkpoints",
    "first",
    "last",
    "snapshot",
    "uptime_s",
    "rss_bytes",
    "journal_bytes",
)


@click.group()
def cluster() -> None:
    """Status, leadership transfer, comparison of replicas."""


@cluster.command("status")
@cluster_options
def status(target: Target) -> int:
    """Ask every replica what it knows; exit code 4 if none leads.

    \b
    Examples:
      raftckpt cluster status
      raftckpt cluster status -o json | jq -r .leader
    """  # noqa: D301
    replicas, leader, term = _survey(target)
    if target.json:
        print_json({"leader": leader, "term": term, "replicas": replicas})
    else:
        print_table(
            ["node", "endpoint", "reachable", *_SHOWN, "sessions", "durability"],
            [
                [
                    "-" if cell is None else cell
                    for cell in (
                        each["node"],
                        each["endpoint"],
                        "yes" if each["reachable"] else "no",
                        *(each[name] for name in _SHOWN),
                        each["sessions"],
                        each["durability"],
                    )
                ]
                for each in replicas
            ],
        )
    if leader is None:
        answered = [str(each["node"]) for each in replicas if each["reachable"]]
        raise Failure(
            "no replica leads",
            f"answering: {', '.join(answered) or 'none'}; a majority of {len(replicas)} is needed",
            "start the missing replicas; their logs say why they stopped",
            ExitCode.UNAVAILABLE,
        )
    return ExitCode.OK


@cluster.command("transfer")
@click.argument("node", required=False)
@cluster_options
def transfer(target: Target, node: str | None) -> None:
    """Hand leadership to NODE (default: the follower that holds most of the log).

    \b
    Examples:
      raftckpt cluster transfer n2
    """  # noqa: D301
    from raftckpt.testing.probe import Probe

    endpoints, leader = _need_leader(target)
    with Probe(endpoints[leader], timeout=target.timeout) as probe:
        probe.transfer(node)
    _, now, term = _survey(target)
    if target.json:
        print_json({"from": leader, "leader": now, "term": term})
    else:
        click.echo(f"leadership handed over from {leader} to {now}")


@cluster.command("check")
@cluster_options
def check(target: Target) -> int:
    """Compare the states of all replicas after one and the same log entry.

    Exit code 0: all equal; 1: they differ, which must never happen; 4: not all could be asked.

    \b
    Examples:
      raftckpt cluster check
    """  # noqa: D301
    from raftckpt.testing.probe import replica_digests

    endpoints, leader = _need_leader(target)
    index, digests = replica_digests(endpoints, leader, timeout=target.timeout)
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


def _endpoints_of(target: Target) -> dict[str, str | None]:
    """Endpoints that were given, with their node ids as far as known without asking."""
    if "/" not in target.endpoints:
        return {part.strip(): None for part in target.endpoints.split(",") if part.strip()}
    from raftckpt.node.config import ConfigError, load

    try:
        replicas = load(target.endpoints).replicas
    except ConfigError as error:
        raise Failure(
            f"cannot use the configuration {target.endpoints}",
            str(error),
            f"raftckpt config check {target.endpoints}",
            ExitCode.USAGE,
        ) from None
    return {str(addresses.client): node for node, addresses in replicas.items()}


def _survey(target: Target) -> tuple[list[dict[str, Any]], str | None, int | None]:
    """Ask everybody -> (a record per replica, leader, term)."""
    from raftckpt.errors import CheckpointError
    from raftckpt.testing.probe import Probe

    nodes = _endpoints_of(target)
    answers: dict[str, dict[str, Any]] = {}
    told: dict[str, str] = {}

    def ask(endpoint: str) -> None:
        try:
            with Probe(endpoint, timeout=min(target.timeout, 2.0)) as probe:
                answers[endpoint] = probe.status()
                nodes[endpoint] = answers[endpoint]["node"]
                told.update(probe.welcome["endpoints"])
        except CheckpointError:
            pass

    for endpoint in list(nodes):
        ask(endpoint)
    # Replicas tell where the others are, so one endpoint is enough to find all. An address that
    # does not answer and that no replica calls its own says nothing about the cluster.
    for node, endpoint in told.items():
        if node not in [nodes[each] for each in answers]:
            nodes[endpoint] = node
            if endpoint not in answers:
                ask(endpoint)
    if told:
        nodes = {e: node for e, node in nodes.items() if e in answers or told.get(node or "") == e}
    replicas = []
    for endpoint, node in sorted(nodes.items(), key=lambda item: (item[1] or "~", item[0])):
        answer = answers.get(endpoint, {})
        replicas.append(
            {
                "node": node,
                "role": answer.get("role"),
                "reachable": bool(answer),
                "endpoint": endpoint,
                **{name: answer.get(name) for name in (*_SHOWN[1:], *_MORE)},
            }
        )
    leaders = [(a["term"], a["node"]) for a in answers.values() if a["leader"] == a["node"]]
    term, leader = max(leaders, default=(None, None))
    return replicas, leader, term


def _need_leader(target: Target) -> tuple[dict[str, str], str]:
    replicas, leader, _ = _survey(target)
    if leader is None:
        raise Failure(
            "no replica leads",
            "a majority of the replicas must run and reach each other",
            "raftckpt cluster status shows who answers",
            ExitCode.UNAVAILABLE,
        )
    return {str(each["node"]): str(each["endpoint"]) for each in replicas}, leader

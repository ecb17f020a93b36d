"""``raftckpt doctor``: all checks at once, and what to do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from raftckpt.plain import plain
from raftckpt_cli.diagnosis import (
    CHECKS,
    Finding,
    Weight,
    certificate_findings,
    diagnose,
    leader_of,
    roomy,
)
from raftckpt_cli.options import ClusterTarget, cluster_options
from raftckpt_cli.output import ExitCode, print_json, show_size

if TYPE_CHECKING:
    from raftckpt.node.config import ClusterConfig

__all__ = ["doctor"]

_SECOND_LOOK_S: Final = 1.2  # later: longer than an election takes
_CONFIG: Final = "configuration"
_HERE: Final = "this host"
_SHOWN: Final = {Weight.WRONG: "WRONG", Weight.PASSING: "WRONG", Weight.WARNING: "look"}


@click.command()
@cluster_options
def doctor(target: ClusterTarget) -> int:
    """Run all checks on the cluster and print what to do.

    With a cluster.yaml (--config, or ./cluster.yaml) the file, its certificates and the disk of
    this host are looked at, too. Exit code 0: nothing is wrong, though there may be something to
    look at; 1: something is wrong; 4: no replica leads.

    \b
    Examples:
      raftckpt doctor --config /etc/raftckpt/cluster.yaml
      raftckpt doctor -o json | jq '.findings[].do'
    """  # noqa: D301
    said = list(_of_the_file(target.endpoints)) if os.sep in target.endpoints else []
    checks = [_CONFIG, _HERE] if os.sep in target.endpoints else []
    begun = time.monotonic()
    with target.connect(session=False) as service:
        found = service.cluster(timeout=target.patience)
        seen = diagnose(found)
        if any(each.weight is Weight.PASSING for each in seen):  # a change looks like that, too
            time.sleep(max(0.0, begun + _SECOND_LOOK_S - time.monotonic()))
            found = service.cluster(timeout=target.patience)
            seen = diagnose(found)
    said += seen
    checks += CHECKS
    if target.json:
        print_json(
            {
                "checks": checks,
                "findings": [
                    {
                        "check": each.check,
                        "wrong": each.weight is not Weight.WARNING,
                        "what": each.what,
                        "do": each.do,
                    }
                    for each in said
                ],
            }
        )
    else:
        _print(checks, said)
    if leader_of(found) is None:
        return ExitCode.UNAVAILABLE
    return ExitCode.REFUSED if any(e.weight is not Weight.WARNING for e in said) else ExitCode.OK


def _print(checks: list[str], said: list[Finding]) -> None:
    width = max(map(len, checks))
    for check in checks:
        mine = [each for each in said if each.check == check]
        if not mine:
            click.echo(f"{check:<{width}}  ok")
        for each in mine:
            click.echo(f"{check:<{width}}  {_SHOWN[each.weight]:<5}  {plain(each.what)}")
            click.echo(f"{'':<{width}}  do:    {plain(each.do)}")


def _of_the_file(path: str) -> Iterator[Finding]:
    """What the configuration says, and what this host has for it."""
    from raftckpt.client.endpoints import cluster_file
    from raftckpt.node.config import ConfigError, load

    if "credentials" in cluster_file(path):  # a client's: it says where replicas are, and no more
        return
    try:
        config = load(path)
    except ConfigError as error:
        for problem in error.problems:
            where = f"{path}:{problem.line}" if problem.line else path
            yield Finding(_CONFIG, Weight.WRONG, f"{where}: {problem.what}", problem.fix)
        return
    for warning in config.warnings:
        yield Finding(_CONFIG, Weight.WARNING, warning, "decide whether that is meant")
    yield from _of_this_host(config)


def _of_this_host(config: ClusterConfig) -> Iterator[Finding]:
    from raftckpt.node.config import ConfigError
    from raftckpt.node.health import certificate_ends
    from raftckpt.node.tls import certificate_faults

    for said in certificate_findings(_HERE, certificate_ends(config)):
        yield Finding(_HERE, *said)
    try:
        for fault in certificate_faults(config, None):
            weight = Weight.WRONG if fault.grave else Weight.WARNING
            yield Finding(_HERE, weight, f"{fault.setting}: {fault.why}", fault.fix)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(_HERE, Weight.WRONG, problem.what, problem.fix)
    try:
        disk = os.statvfs(config.data_dir)
    except OSError:  # the data are elsewhere
        return
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if not roomy(free, size):
        told = (
            f"{config.data_dir} has {show_size(free >> 20 << 20)} of {show_size(size >> 20 << 20)}"
        )
        yield Finding(_HERE, Weight.WARNING, f"{told} left", "make room")

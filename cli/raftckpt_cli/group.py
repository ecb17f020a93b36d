"""``raftckpt group``: service groups and what operators do with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from raftckpt_cli.options import ClusterTarget, cluster_options
from raftckpt_cli.output import ExitCode, Failure, print_json, print_pairs, print_table

if TYPE_CHECKING:
    from raftckpt.ha import Group, GroupStatus, GroupSummary

__all__ = ["group"]

_POLL_SECONDS = 0.02


@click.group()
def group() -> None:
    """List, show, lock, unlock, swap and shut down service groups."""


@group.command("list")
@cluster_options
def list_(target: ClusterTarget) -> None:
    """List the service groups.

    \b
    Examples:
      raftckpt group list
      raftckpt group list -o json | jq -r '.[] | select(.ready == 0) | .group'
    """  # noqa: D301
    from raftckpt import ha

    with target.connect(session=False) as service:
        found = ha.groups(service)
    if target.json:
        print_json([_summary(each) for each in found])
        return
    print_table(
        ["group", "admin", "active", "state", "components", "ready", "failed", "epoch"],
        [
            [
                each.group,
                _word(each.admin),
                each.active or "-",
                _word(each.active_state),
                each.components,
                each.ready,
                each.failed,
                each.epoch,
            ]
            for each in found
        ],
    )


@group.command("show")
@click.argument("name")
@cluster_options
def show(target: ClusterTarget, name: str) -> None:
    """Show a service group and its components: the active first, then in order of promotion.

    \b
    Examples:
      raftckpt group show counters
      raftckpt group show counters -o json | jq -r .active
    """  # noqa: D301
    from raftckpt import ha

    with target.connect(session=False) as service:
        status = ha.Group(service, name).status()
    _print(target, status)


def _change(target: ClusterTarget, name: str, wait: bool, change: Callable[[Group], object]) -> int:
    """Make a change and, if asked to, wait until the components carried it out."""
    from raftckpt import ha

    with target.connect() as service:
        subject = ha.Group(service, name)
        change(subject)
        status = subject.status()
        deadline = time.monotonic() + target.timeout
        while wait and not _settled(status) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            status = subject.status()
    if wait and not _settled(status):
        waiting = [each.component for each in status.members if not each.answered]
        raise Failure(
            f"group {name}: decided, but not carried out within {target.timeout:g} s",
            f"no answer yet from {', '.join(waiting) or 'the group'}",
            f"raftckpt group show {name}; who does not answer in its time is taken out of service",
            ExitCode.UNAVAILABLE,
        )
    _print(target, status)
    return ExitCode.OK


def _settled(status: GroupStatus) -> bool:
    from raftckpt.ha import AdminState, HaState

    if status.admin is not AdminState.UNLOCKED and status.active_state is not None:
        return False
    return all(each.answered for each in status.members if each.state is not HaState.REMOVED)


_wait_option = click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Wait until the components carried it out (at most --timeout).",
)


@group.command("lock")
@click.argument("name")
@_wait_option
@cluster_options
def lock(target: ClusterTarget, name: str, wait: bool) -> int:
    """Take all assignments away: the active stops at once, nobody serves; components stay.

    \b
    Examples:
      raftckpt group lock counters
    """  # noqa: D301
    return _change(target, name, wait, lambda subject: subject.lock())


@group.command("unlock")
@click.argument("name")
@_wait_option
@cluster_options
def unlock(target: ClusterTarget, name: str, wait: bool) -> int:
    """Let a component be active and the others stand by.

    \b
    Examples:
      raftckpt group unlock counters
    """  # noqa: D301
    return _change(target, name, wait, lambda subject: subject.unlock())


@group.command("lock-instantiation")
@click.argument("name")
@_wait_option
@cluster_options
def lock_instantiation(target: ClusterTarget, name: str, wait: bool) -> int:
    """Lock, and have the supervisors (raftckpt run) end their programs.

    \b
    Examples:
      raftckpt group lock-instantiation counters
    """  # noqa: D301
    return _change(target, name, wait, lambda subject: subject.lock_instantiation())


@group.command("swap")
@click.argument("name")
@click.option("--to", help="The standby that is to be active.  [default: the next in rank]")
@_wait_option
@cluster_options
def swap(target: ClusterTarget, name: str, to: str | None, wait: bool) -> int:
    """Hand ACTIVE to a standby in an orderly way: the active quiesces first.

    \b
    Examples:
      raftckpt group swap counters
      raftckpt group swap counters --to c2
    """  # noqa: D301
    return _change(target, name, wait, lambda subject: subject.swap(to))


@group.command("shutdown")
@click.argument("name")
@_wait_option
@cluster_options
def shutdown(target: ClusterTarget, name: str, wait: bool) -> int:
    """Lock gracefully: the active finishes what it is at first.

    \b
    Examples:
      raftckpt group shutdown counters
    """  # noqa: D301
    return _change(target, name, wait, lambda subject: subject.shutdown())


@group.command("delete")
@click.argument("name")
@cluster_options
def delete(target: ClusterTarget, name: str) -> None:
    """Forget a group without components.

    \b
    Examples:
      raftckpt group delete counters
    """  # noqa: D301
    from raftckpt import ha

    with target.connect() as service:
        ha.Group(service, name).delete()
    if target.json:
        print_json({"group": name, "deleted": True})
    else:
        click.echo(f"deleted the group {name}")


def _word(state: Any) -> str:
    return "-" if state is None else state.name.lower().replace("_", "-")


def _summary(each: GroupSummary) -> dict[str, Any]:
    return {
        "group": each.group,
        "admin": _word(each.admin),
        "active": each.active or None,
        "active_state": None if each.active_state is None else _word(each.active_state),
        "epoch": each.epoch,
        "components": each.components,
        "ready": each.ready,
        "failed": each.failed,
    }


def _print(target: ClusterTarget, status: GroupStatus) -> None:
    if target.json:
        members = [
            {
                "component": each.component,
                "state": _word(each.state),
                "answered": each.answered,
                "reason": each.reason,
                "rank": each.rank or None,
                "assignment": each.assignment,
                "node": each.node,
                "session": each.session,
                "session_name": each.session_name,
                "preference": each.preference,
                "response_timeout_s": each.response_timeout,
                "health_check_s": each.health_check,
            }
            for each in status.members
        ]
        previous = status.previous_active or None
        print_json({**_summary(status), "previous_active": previous, "members": members})
        return
    print_pairs(
        [
            ("group", status.group),
            ("admin", _word(status.admin)),
            ("active", status.active or "-"),
            ("epoch", status.epoch),
            ("previous active", status.previous_active or "-"),
        ]
    )
    print_table(
        ["component", "state", "answered", "rank", "reason", "node", "session"],
        [
            [
                each.component,
                _word(each.state),
                "yes" if each.answered else "no",
                each.rank or "-",
                each.reason,
                each.node or "-",
                f"{each.session} {each.session_name}",
            ]
            for each in status.members
        ],
    )

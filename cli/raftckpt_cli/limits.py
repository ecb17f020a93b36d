"""``raftckpt cluster limits``: limits of the state, equal on all replicas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from raftckpt_cli.options import ClusterTarget, cluster_options
from raftckpt_cli.output import ExitCode, print_json, print_table, show_size

if TYPE_CHECKING:
    from raftckpt import ClusterLimits

__all__ = ["Size", "limits", "show_amount"]

_SIZE: Final = re.compile(r"([0-9]{1,19})\s*([KMGT]i?B?|B)?\Z", re.IGNORECASE)
_FACTORS: Final = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_ABOUT: Final = {
    "memory": "data of all checkpoints, with their records",
    "high": "of the memory; above it new data is refused",
    "low": "of the memory; below it new data is taken again",
    "staged": "parts of large writes that are on their way",
    "sessions": "connected clients, and those that may come back",
    "checkpoints": "unlinked ones that are still open included",
    "groups": "service groups",
}


class Size(click.ParamType[int]):
    """Bytes, with a unit if one is given: 2GiB, 512M, 1000000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        if value == "none":
            return 0
        found = _SIZE.match(value)
        if found is None:
            self.fail(f"{value!r} is no size: 2GiB, 512MiB, 1000000, or none", param, ctx)
        return int(found[1]) * _FACTORS[(found[2] or "")[:1].upper()]


@click.group()
def limits() -> None:
    """Limits of the state: memory, sessions, checkpoints, groups."""


@limits.command("show")
@cluster_options
def show(target: ClusterTarget) -> None:
    """Show each limit, and what of it is used.

    \b
    Examples:
      raftckpt cluster limits show
      raftckpt cluster limits show -o json | jq .limits.memory.used
    """  # noqa: D301
    with target.connect(session=False) as service:
        found = service.limits()
    _tell(target, found)


@limits.command("set")
@click.option("--memory", type=Size(), help="Of all data: 2GiB, 512MiB, none.")
@click.option("--high", type=int, help="Per cent of it above which new data is refused.")
@click.option("--low", type=int, help="Per cent of it below which new data is taken again.")
@click.option("--staged", type=Size(), help="Of large writes on their way.")
@click.option("--sessions", type=int, help="Most sessions.")
@click.option("--checkpoints", type=int, help="Most checkpoints.")
@click.option("--groups", type=int, help="Most service groups.")
@cluster_options
def set_(target: ClusterTarget, **given: int | None) -> ExitCode:
    """Set limits on all replicas, all of those named or none.

    A limit below what is used takes nothing away; it refuses what is new. The memory is to fit
    into the smallest replica: raftckpt doctor names one that it does not fit into.

    \b
    Examples:
      raftckpt cluster limits set --memory 2GiB
      raftckpt cluster limits set --high 90 --low 80 --sessions 5000
    """  # noqa: D301
    values = {name: value for name, value in given.items() if value is not None}
    if not values:
        raise click.UsageError("name a limit: raftckpt cluster limits set --help lists them")
    with target.connect(session=False) as service:
        service.set_limits(values)
        found = service.limits()
    _tell(target, found)
    return ExitCode.OK


def _tell(target: ClusterTarget, found: ClusterLimits) -> None:
    if target.json:
        rows = {
            name: {
                "value": each.value,
                "used": each.used,
                "least": each.least,
                "most": each.most,
                "unit": each.unit,
            }
            for name, each in found.limits.items()
        }
        print_json({"full": found.full, "limits": rows})
        return
    print_table(
        ["limit", "value", "used", "of"],
        [
            [
                name,
                "none"
                if name == "memory" and not each.value
                else show_amount(each.value, each.unit),
                "-" if each.used is None else show_amount(each.used, each.unit),
                _ABOUT.get(name, ""),
            ]
            for name, each in found.limits.items()
        ],
    )
    if found.full:
        click.echo("full: no new data is taken until less than low is used; deletes go on")


def show_amount(value: int, unit: str) -> str:
    """A limit as people read it: what is above a MiB is rounded down to KiB."""
    if unit == "bytes":
        return show_size(value if value < 1 << 20 else value >> 10 << 10)
    return f"{value} %" if unit == "percent" else str(value)

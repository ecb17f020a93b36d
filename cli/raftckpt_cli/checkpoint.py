"""``raftckpt checkpoint``: list, create, show, unlink."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from raftckpt_cli.options import ClusterTarget, cluster_options, confirm, consistency_option
from raftckpt_cli.output import (
    ExitCode,
    Failure,
    json_bytes,
    print_json,
    print_pairs,
    print_table,
    show_bytes,
    show_seconds,
    show_size,
    show_time,
)

if TYPE_CHECKING:
    from raftckpt import CheckpointStatus, SectionStatus

__all__ = ["checkpoint", "json_of_section", "page_options", "print_sections"]

_F = TypeVar("_F", bound=Callable[..., Any])


def page_options(key: str) -> Callable[[_F], _F]:
    """Add ``--after`` and ``--limit`` to a listing in the order of ``key``."""

    def decorate(function: _F) -> _F:
        after = click.option(
            "--after", metavar=key, help=f"Begin behind this {key}: the last of the page before."
        )
        limit = click.option("--limit", type=click.IntRange(1), help="At most so many.")
        return after(limit(function))

    return decorate


@click.group()
def checkpoint() -> None:
    """List, create, show and unlink checkpoints."""


@checkpoint.command("list")
@click.argument("prefix", default="")
@page_options("NAME")
@consistency_option
@cluster_options
def list_(
    target: ClusterTarget, prefix: str, after: str | None, limit: int | None, consistency: Any
) -> None:
    """List all checkpoints, or those whose names begin with PREFIX, in the order of the names.

    Those that are unlinked and still open have no name any more: only the list of all has them.

    \b
    Examples:
      raftckpt checkpoint list
      raftckpt checkpoint list app/ --limit 100 --after app/sessions
      raftckpt checkpoint list -o json | jq -r '.[].name'
      raftckpt checkpoint list --consistency local --endpoints 10.0.0.2:7401
    """  # noqa: D301
    with target.connect(session=False) as service:
        found = service.checkpoints(
            prefix=prefix, after=after, limit=limit, consistency=consistency
        )
    found.sort(key=lambda status: (status.name, status.uid))
    if target.json:
        print_json([json_of(status) for status in found])
        return
    print_table(
        ["name", "update", "sections", "bytes", "openers", "active", "retention", "state"],
        [
            [
                status.name,
                _update(status),
                status.sections,
                status.memory_used,
                len(status.openers),
                _active(status),
                show_seconds(status.attributes.retention),
                "delete pending" if status.unlinked else "",
            ]
            for status in found
        ],
    )


@checkpoint.command("create")
@click.argument("name")
@click.option(
    "--update",
    type=click.Choice(["all", "active", "weak"]),
    default="all",
    show_default=True,
    help='When a write returns: "all" when it is committed, else when the leader accepted it.',
)
@click.option("--collocated", is_flag=True, help="Writers declare themselves active.")
@click.option(
    "--retention",
    type=click.FloatRange(0),
    help="Seconds a checkpoint that nobody has open is kept.  [default: for ever]",
)
@click.option("--size", type=click.IntRange(0), help="Bytes of all sections (recorded only).")
@click.option("--max-sections", type=click.IntRange(1), help="Most sections.")
@click.option("--max-section-size", type=click.IntRange(1), help="Most bytes per section.")
@click.option("--max-section-id-size", type=click.IntRange(0), help="Most bytes per section id.")
@cluster_options
def create(
    target: ClusterTarget,
    name: str,
    update: Any,
    collocated: bool,
    retention: float | None,
    **limits: int | None,
) -> None:
    """Create the checkpoint NAME; an existing one with the same attributes is left as it is.

    The command closes it again, so --retention counts from now until an application opens it.

    \b
    Examples:
      raftckpt checkpoint create sessions
      raftckpt checkpoint create csa103Ckpt --update weak --collocated --max-sections 2
    """  # noqa: D301
    import raftckpt

    given = {key: value for key, value in limits.items() if value is not None}
    attributes = raftckpt.Attributes(
        update=update,
        collocated=collocated,
        retention=retention,
        **given,
    )
    with target.connect() as service, service.open(name, create=attributes) as opened:
        status = opened.status()
    if target.json:
        print_json(json_of(status))
    else:
        click.echo(f"checkpoint {name} exists (uid {status.uid})")


@checkpoint.command("show")
@click.argument("name")
@consistency_option
@cluster_options
def show(target: ClusterTarget, name: str, consistency: Any) -> None:
    """Show everything about the checkpoint NAME: attributes, openers, active, sections.

    \b
    Examples:
      raftckpt checkpoint show csa103Ckpt
    """  # noqa: D301
    with target.connect(session=False) as service:
        status = find(service.checkpoints(consistency=consistency), name)
        sections = service.view(name).sections(consistency=consistency)
    if target.json:
        print_json({**json_of(status), "sections": [json_of_section(each) for each in sections]})
        return
    attributes = status.attributes
    print_pairs(
        [
            ("name", status.name),
            ("uid", status.uid),
            ("update option", _update(status)),
            ("active", _active(status) or "nobody"),
            ("fencing epoch", f"{status.epoch}{' (exclusive)' if status.exclusive else ''}"),
            ("delete pending", "yes" if status.unlinked else "no"),
            ("retention", show_seconds(attributes.retention)),
            ("dropped at", show_time(status.retention_until, "not while open, or never")),
            ("created", show_time(status.created)),
            ("revision", status.revision),
            ("size", show_size(attributes.size or 0)),
            ("sections", f"{status.sections} of {attributes.max_sections}"),
            ("corrupted sections", status.corrupted),
            ("bytes used", status.memory_used),
            ("max section size", show_size(attributes.max_section_size)),
            ("max section id size", show_size(attributes.max_section_id_size)),
            ("openers", len(status.openers)),
        ]
    )
    if status.openers:
        click.echo()
        print_table(
            ["session", "name", "node", "read handles", "write handles"],
            [[o.session, o.name, o.node, o.readers, o.writers] for o in status.openers],
        )
    if sections:
        click.echo()
        print_sections(sections)


@checkpoint.command("unlink")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_options
def unlink(target: ClusterTarget, name: str, dry_run: bool, yes: bool) -> None:
    """Unlink the checkpoint NAME: the name is gone now, the data once nobody has it open.

    \b
    Examples:
      raftckpt checkpoint unlink old --dry-run
      raftckpt checkpoint unlink old --yes
    """  # noqa: D301
    with target.connect(session=False) as service:
        status = find(service.checkpoints(), name)
        what = (
            f"unlink checkpoint {name} ({status.sections} sections, {status.memory_used} bytes, "
            f"open in {len(status.openers)} sessions)"
        )
        if dry_run:
            click.echo(f"would {what}")
            return
        confirm(what, yes=yes)
        revision = service.unlink(name)
    if target.json:
        print_json({"name": name, "unlinked": True, "revision": revision})
    else:
        click.echo(f"checkpoint {name} is unlinked")


def find(statuses: list[CheckpointStatus], name: str) -> CheckpointStatus:
    """The living checkpoint of this name.

    Raises:
        Failure: there is none.
    """
    for status in statuses:
        if status.name == name and not status.unlinked:
            return status
    raise Failure(
        f"checkpoint {name}",
        "no checkpoint of this name exists",
        "raftckpt checkpoint list shows which there are",
        ExitCode.NOT_FOUND,
    )


def json_of(status: CheckpointStatus) -> dict[str, Any]:
    """A checkpoint as JSON (the contract of ``checkpoint list|create|show -o json``)."""
    attributes = status.attributes
    return {
        "name": status.name,
        "uid": status.uid,
        "update": attributes.update,
        "collocated": attributes.collocated,
        "size": attributes.size,
        "retention_s": attributes.retention,
        "max_sections": attributes.max_sections,
        "max_section_size": attributes.max_section_size,
        "max_section_id_size": attributes.max_section_id_size,
        "section_count": status.sections,
        "corrupted_count": status.corrupted,
        "memory_used": status.memory_used,
        "created": status.created,
        "revision": status.revision,
        "openers": [
            {
                "session": o.session,
                "name": o.name,
                "node": o.node,
                "read": o.readers,
                "write": o.writers,
            }
            for o in status.openers
        ],
        "active": None
        if status.active is None
        else {"session": status.active[0], "node": status.active[1]},
        "epoch": status.epoch,
        "exclusive": status.exclusive,
        "delete_pending": status.unlinked,
        "retention_until": status.retention_until,
    }


def json_of_section(status: SectionStatus) -> dict[str, Any]:
    """A section as JSON (the contract of ``section list -o json``)."""
    return {
        **json_bytes("id", status.id),
        "size": status.size,
        "updated": status.updated,
        "expires": status.expires,
        "revision": status.revision,
        "state": status.state,
    }


def print_sections(sections: list[SectionStatus]) -> None:
    """Print the table of sections."""
    print_table(
        ["section", "size", "last updated", "expires", "revision", "state"],
        [
            [
                show_bytes(each.id),
                each.size,
                show_time(each.updated),
                show_time(each.expires),
                each.revision,
                each.state,
            ]
            for each in sections
        ],
    )


def _update(status: CheckpointStatus) -> str:
    return status.attributes.update + (", collocated" if status.attributes.collocated else "")


def _active(status: CheckpointStatus) -> str:
    return "" if status.active is None else f"session {status.active[0]} on {status.active[1]}"

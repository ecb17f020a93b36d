"""``raftckpt checkpoint``: list, create, show, unlink, export, import."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from raftckpt_cli.data import storage_errors
from raftckpt_cli.options import ClusterTarget, cluster_options, confirm, consistency_option
from raftckpt_cli.output import (
    ExitCode,
    Failure,
    json_bytes,
    print_json,
    print_pairs,
    print_table,
    progress,
    show_bytes,
    show_seconds,
    show_size,
    show_time,
)

if TYPE_CHECKING:
    from raftckpt import CheckpointStatus, SectionStatus
    from raftckpt.copies.export import Exported

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
    """List, create, show, unlink, export and import checkpoints."""


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
@click.option("--size", type=click.IntRange(0), help="Bytes of all sections; see --quota.")
@click.option("--quota", is_flag=True, help="Refuse what would need more bytes than --size.")
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
    quota: bool,
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
        quota=quota,
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
            ("size", show_size(attributes.size or 0) + (", a quota" if attributes.quota else "")),
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


@checkpoint.command("export")
@click.argument("name")
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--from",
    "snapshot",
    type=click.Path(exists=True, dir_okay=False),
    help="Out of this snapshot file, not of a cluster.",
)
@consistency_option
@cluster_options
def export(
    target: ClusterTarget, name: str, file: str, snapshot: str | None, consistency: Any
) -> None:
    """Write the checkpoint NAME to FILE (default: standard output) as lines of JSON.

    The first line has the attributes, each of the next a section with its data in base64, the last
    one a checksum. It is one state of the checkpoint.

    \b
    Examples:
      raftckpt checkpoint export sessions sessions.ndjson
      raftckpt checkpoint export sessions --from /backup/prod.snapshot | head -1 | jq .attributes
    """  # noqa: D301
    from raftckpt.copies.export import exported_live, lines_of

    if snapshot is None:
        with target.connect(session=False) as service:
            exported = exported_live(service, name, consistency)
    else:
        exported = _out_of(snapshot, name)
    if file == "-":
        out = sys.stdout.buffer
        for line in lines_of(exported):
            out.write(line)
        out.flush()
        return
    from raftckpt.client.saving import Appearing

    try:
        with Appearing(file) as appearing:
            for line in lines_of(exported):
                appearing.append(line)
            appearing.commit()
    except OSError as error:
        raise Failure(
            f"writing {file} failed",
            f"{error.strerror or error}; nothing of that name was changed",
            "name a file in a directory with room that you may write to",
        ) from error
    told = {"checkpoint": name, "file": file, "revision": exported.revision}
    if target.json:
        print_json({**told, "sections": exported.count})
    else:
        click.echo(f"{file}: {exported.count} sections of {name} at revision {exported.revision}")


@checkpoint.command("import")
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--name", help="Name of the checkpoint that is made.  [default: that in FILE]")
@click.option(
    "--resume", is_flag=True, help="It may exist: sections in FILE replace those of the same ids."
)
@cluster_options
def import_(target: ClusterTarget, file: str, name: str | None, resume: bool) -> None:
    """Make a checkpoint of FILE (default: standard input), which `checkpoint export` wrote.

    FILE is verified as a whole before anything is made. Sections whose time has come are left out.
    Interrupted, it goes on with --resume.

    \b
    Examples:
      raftckpt checkpoint import sessions.ndjson
      raftckpt checkpoint import sessions.ndjson --name sessions-of-may
    """  # noqa: D301
    import shutil
    import tempfile

    from raftckpt.copies.export import import_checkpoint, read_export

    with tempfile.TemporaryFile() if file == "-" else _opened(file) as source:
        if file == "-":
            shutil.copyfileobj(sys.stdin.buffer, source)
            source.seek(0)
        exported = read_export(source)
        made = name or exported.name
        if exported.attributes.retention == 0:
            click.echo(f"warning: {made} has no retention: it ends with this command", err=True)
        with target.connect() as service, progress("importing", unit="sections") as shown:
            imported = import_checkpoint(service, exported, made, resume=resume, progress=shown)
    if target.json:
        print_json(
            {
                "checkpoint": made,
                "sections": imported.sections,
                "expired": imported.expired,
                "revision": imported.revision,
            }
        )
        return
    left_out = f"; {imported.expired} had expired" if imported.expired else ""
    click.echo(f"checkpoint {made} has {imported.sections} sections{left_out}")


def _opened(file: str) -> IO[bytes]:
    try:
        return open(file, "rb")
    except OSError as error:
        raise click.UsageError(f"cannot read {file!r}: {error.strerror or error}") from None


@storage_errors
def _out_of(snapshot: str, name: str) -> Exported:
    from raftckpt.copies.export import exported_of
    from raftckpt.copies.snapshots import load_snapshot

    _, machine = load_snapshot(snapshot)
    exported = exported_of(machine, name)
    if exported is None:
        raise Failure(
            f"checkpoint {name}",
            f"{snapshot} has none of this name",
            f"it has {', '.join(sorted(machine.names)[:20]) or 'none'}",
            ExitCode.NOT_FOUND,
        )
    return exported


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
        "quota": attributes.quota,
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

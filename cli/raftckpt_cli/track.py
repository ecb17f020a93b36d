"""``raftckpt track``: every change of a checkpoint as it is committed, a line each."""

from __future__ import annotations

import select
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from raftckpt_cli.options import ClusterTarget, cluster_options
from raftckpt_cli.output import json_bytes, print_json, show_bytes, show_seconds, show_time

if TYPE_CHECKING:
    import raftckpt

__all__ = ["track"]

_POLL_MS: Final = 1000
"""So late it is told that no replica serves; a change, and a reader that went, wake at once."""
_SHOWN_BYTES: Final = 64
"""Of a change's data, so that it is a line or two of a terminal; ``-o json`` has all."""


@click.command()
@click.argument("ckpt")
@click.option(
    "--from",
    "from_revision",
    type=click.IntRange(0),
    metavar="REVISION",
    help="Begin behind this revision, as far as the replicas remember.  [default: with an image]",
)
@click.option("--no-image", is_flag=True, help="Begin now, without telling what is there.")
@click.option("--limit", type=click.IntRange(1), help="End after so many changes.")
@cluster_options
def track(
    target: ClusterTarget, ckpt: str, from_revision: int | None, no_image: bool, limit: int | None
) -> None:
    """Follow a checkpoint: each committed change once, in order, with its data; until Ctrl-C.

    It begins with an image of all sections, goes on across failures of replicas without gap or
    repetition, and ends when the checkpoint is destroyed. If it is too far behind it gets a
    "resync", an image that replaces what was told before. With -o json each change is one line.

    \b
    Examples:
      raftckpt track csa103Ckpt
      raftckpt track csa103Ckpt --from 1200 -o json | jq -r .data
    """  # noqa: D301
    _follow(target, ckpt, from_revision, not no_image, limit)


def _follow(
    target: ClusterTarget, ckpt: str, from_revision: int | None, image: bool, limit: int | None
) -> None:
    show = _show_json if target.json else _show_text
    with (
        target.connect(session=False) as service,
        service.track(ckpt, from_revision, image) as tracker,
    ):
        left = limit if limit is not None else -1
        for change in _changes(tracker):
            show(change)
            sys.stdout.flush()
            left -= 1
            if not left:
                return


def _changes(tracker: raftckpt.Tracker) -> Any:
    """Yield the changes; end also when nobody reads what is printed."""
    import raftckpt

    poller = select.poll()
    poller.register(tracker.fileno(), select.POLLIN)
    output = sys.stdout.fileno()
    poller.register(output, 0)
    told = None
    while True:
        events = poller.poll(_POLL_MS)
        if any(descriptor == output for descriptor, _ in events):
            raise BrokenPipeError
        problem = tracker.problem if not events else None
        if problem is not None and problem != told:
            click.echo(f"no replica serves it now, trying on: {problem}", err=True)
        told = problem
        try:
            while True:
                yield tracker.next(0)
        except raftckpt.Timeout:
            continue
        except StopIteration:
            return


# --- JSON: a contract ------------------------------------------------------------------------


def _show_json(change: raftckpt.Change) -> None:
    line: dict[str, Any] = {
        "revision": change.revision,
        "kind": change.kind,
        "session": change.session,
    }
    if change.section is not None:
        line |= json_bytes("section", change.section)
    if change.data is not None:
        line |= {
            "offset": change.offset,
            "size": len(change.data),
            **json_bytes("data", change.data),
        }
    elif change.parts or change.is_image:
        line["parts"] = [_part(change, part) for part in change.parts]
    if change.kind in ("created", "expiration_set"):
        line["expires"] = change.expires
    if change.kind in ("active_changed", "image", "resync"):
        active = change.active
        line["active"] = None if active is None else {"session": active[0], "node": active[1]}
        line |= {"epoch": change.epoch, "exclusive": change.exclusive, "owner": change.owner}
    if change.kind in ("retention_set", "image", "resync"):
        line["retention_s"] = change.retention
    if change.is_image:
        line["unlinked"] = change.unlinked
    print_json(line)


def _part(change: raftckpt.Change, part: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {**json_bytes("section", part.section)}
    if change.is_image:
        shown["expires"] = change.expirations.get(part.section)
    elif change.kind == "transaction":
        shown |= {"kind": part.kind, "offset": part.offset}
        if part.kind == "created":
            shown["expires"] = part.expires
    else:
        shown["offset"] = part.offset
    return {**shown, "size": len(part.data), **json_bytes("data", part.data)}


# --- text ------------------------------------------------------------------------------------


def _show_text(change: raftckpt.Change) -> None:
    by = "the cluster" if change.session == 0 else f"session {change.session}"
    head = f"{change.revision}  {change.kind}"
    if change.is_image:
        click.echo(f"{head}  {len(change.parts)} sections, {_active(change)}")
        for part in change.parts:
            expires = change.expirations.get(part.section)
            until = "" if expires is None else f"  expires {show_time(expires)}"
            click.echo(f"    {show_bytes(part.section)}  {_data(part.data)}{until}")
        return
    if change.kind == "transaction":
        click.echo(f"{head}  {len(change.parts)} parts  by {by}")
        for part in change.parts:
            click.echo(f"    {_told(part)}")
        return
    words = [head]
    if change.section is not None:
        words.append(show_bytes(change.section))
    if change.kind == "written":
        for part in change.parts:
            where = "" if change.section is not None else f"{show_bytes(part.section)} "
            words.append(f"{where}at {part.offset}: {_data(part.data)}")
    elif change.data is not None:
        words.append(_data(change.data))
    if change.kind in ("created", "expiration_set") and (
        change.expires is not None or change.kind == "expiration_set"
    ):
        words.append(f"expires {show_time(change.expires)}")
    if change.kind == "active_changed":
        words.append(_active(change))
    if change.kind == "retention_set":
        words.append(show_seconds(change.retention))
    click.echo("  ".join([*words, f"by {by}"]))


def _told(part: Any) -> str:
    """A part of a transaction, in the words of a change of its own."""
    words = [part.kind, show_bytes(part.section)]
    if part.kind == "written":
        words.append(f"at {part.offset}: {_data(part.data)}")
    elif part.kind != "deleted":
        words.append(_data(part.data))
    if part.expires is not None:
        words.append(f"expires {show_time(part.expires)}")
    return "  ".join(words)


def _active(change: raftckpt.Change) -> str:
    if change.active is None:
        active = "nobody active"
    else:
        active = f"session {change.active[0]} on {change.active[1]} active"
    fence = f", only session {change.owner} may write" if change.exclusive else ""
    return f"{active}, epoch {change.epoch}{fence}"


def _data(data: bytes) -> str:
    if len(data) <= _SHOWN_BYTES:
        return show_bytes(data)
    return f"{show_bytes(data[:_SHOWN_BYTES])}... ({len(data)} B)"

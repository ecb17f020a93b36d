"""``raftckpt section``: list, read, write, create, delete, expire."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from raftckpt_cli.checkpoint import json_of_section, print_sections
from raftckpt_cli.options import Target, cluster_options, confirm
from raftckpt_cli.output import json_bytes, print_json, show_bytes, show_time

if TYPE_CHECKING:
    import raftckpt

__all__ = ["section"]

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def section() -> None:
    """List, read, write, create, delete and expire sections."""


def _hex_option(function: _F) -> _F:
    """Add ``--hex``; the command gets the section id as bytes."""

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        in_hex = options.pop("in_hex")
        text = options.pop("section_id")
        if text is not None and in_hex:
            try:
                options["section_id"] = bytes.fromhex(text.removeprefix("0x"))
            except ValueError:
                raise click.BadParameter(f"{text!r} is not hexadecimal", param_hint="ID") from None
        else:
            options["section_id"] = None if text is None else os.fsencode(text)
        return function(*args, **options)

    option = click.option("--hex", "in_hex", is_flag=True, help="ID is given in hexadecimal.")
    return option(wrapper)  # type: ignore[return-value]


def _time_options(function: _F) -> _F:
    """Add ``--at`` and ``--ttl``."""
    at = click.option(
        "--at",
        metavar="TIME",
        callback=_parse_time,
        help="When it expires: epoch seconds, or like 2031-05-01T12:00:00+00:00.",
    )
    ttl = click.option("--ttl", type=click.FloatRange(0), help="Seconds from now it expires in.")
    return at(ttl(function))


def _parse_time(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time", param_hint="--at") from None
    if when.tzinfo is None:
        raise click.BadParameter(f"{text} has no time zone; add +00:00", param_hint="--at")
    return when.timestamp()


def _data(argument: str) -> bytes:
    # Arguments that are not valid UTF-8 arrive with surrogates; fsencode restores their bytes.
    return sys.stdin.buffer.read() if argument == "-" else os.fsencode(argument)


def _commit(checkpoint: raftckpt.Checkpoint, revision: int | None) -> int:
    """Revision of a change; in the asynchronous modes it is waited for."""
    return checkpoint.synchronize() if revision is None else revision


@section.command("list")
@click.argument("ckpt")
@cluster_options
def list_(target: Target, ckpt: str) -> None:
    """List the sections of checkpoint CKPT.

    \b
    Examples:
      raftckpt section list csa103Ckpt
    """  # noqa: D301
    with target.connect() as service, service.open(ckpt, mode="r") as checkpoint:
        found = checkpoint.sections()
    if target.json:
        print_json([json_of_section(each) for each in found])
    else:
        print_sections(found)


@section.command("read")
@click.argument("ckpt")
@click.argument("section_id", metavar="ID")
@_hex_option
@click.option("--offset", type=click.IntRange(0), default=0, help="First byte to read.")
@click.option("--size", type=click.IntRange(0), help="Bytes to read.  [default: to the end]")
@click.option(
    "--consistency",
    type=click.Choice(["linearizable", "local"]),
    default="linearizable",
    show_default=True,
    help="local: what the replica asked has applied so far, which may be old.",
)
@cluster_options
def read(
    target: Target, ckpt: str, section_id: bytes, offset: int, size: int | None, consistency: Any
) -> None:
    """Write the bytes of section ID of checkpoint CKPT to standard output.

    \b
    Examples:
      raftckpt section read csa103Ckpt 1 | xxd
      raftckpt section read sessions alice -o json
    """  # noqa: D301
    with target.connect() as service, service.open(ckpt, mode="r") as checkpoint:
        data = checkpoint.read(section_id, offset, size, consistency=consistency)
    if target.json:
        shown = {"checkpoint": ckpt, **json_bytes("id", section_id), "offset": offset}
        print_json({**shown, "size": len(data), **json_bytes("data", data)})
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@section.command("write")
@click.argument("ckpt")
@click.argument("section_id", metavar="ID")
@click.argument("data", default="-", metavar="[DATA|-]")
@_hex_option
@click.option(
    "--offset",
    type=click.IntRange(0),
    help="Write into the existing section from this byte on.  [default: replace or create it]",
)
@cluster_options
def write(target: Target, ckpt: str, section_id: bytes, data: str, offset: int | None) -> None:
    """Write DATA (or standard input) to section ID of checkpoint CKPT.

    \b
    Examples:
      raftckpt section write sessions alice '{"page": 3}'
      raftckpt section write firmware image --offset 4096 - < patch.bin
    """  # noqa: D301
    content = _data(data)
    with target.connect() as service, service.open(ckpt, mode="w") as checkpoint:
        if offset is None:
            revision = checkpoint.put(section_id, content)
        else:
            revision = checkpoint.write(section_id, content, offset)
        revision = _commit(checkpoint, revision)
    text = f"wrote {len(content)} bytes to section {show_bytes(section_id)}"
    _done(target, text, ckpt, section_id, revision, size=len(content))


@section.command("create")
@click.argument("ckpt")
@click.argument("section_id", metavar="[ID]", required=False)
@click.argument("data", default="", metavar="[DATA|-]")
@_hex_option
@_time_options
@cluster_options
def create(
    target: Target,
    ckpt: str,
    section_id: bytes | None,
    data: str,
    at: float | None,
    ttl: float | None,
) -> None:
    """Create section ID (default: a generated id) in checkpoint CKPT; it must not exist.

    \b
    Examples:
      raftckpt section create sessions bob hello --ttl 3600
      raftckpt section create sessions
    """  # noqa: D301
    with target.connect() as service, service.open(ckpt, mode="w") as checkpoint:
        made = checkpoint.create(section_id, _data(data), expires=at, ttl=ttl)
        revision = checkpoint.synchronize()
    _done(target, f"created section {show_bytes(made)}", ckpt, made, revision)


@section.command("delete")
@click.argument("ckpt")
@click.argument("section_id", metavar="ID")
@_hex_option
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_options
def delete(target: Target, ckpt: str, section_id: bytes, dry_run: bool, yes: bool) -> None:
    """Delete section ID of checkpoint CKPT.

    \b
    Examples:
      raftckpt section delete sessions bob --dry-run
      raftckpt section delete sessions bob --yes
    """  # noqa: D301
    with target.connect() as service:
        with service.open(ckpt, mode="r") as looking:
            size = len(looking.read(section_id))
        what = f"delete section {show_bytes(section_id)} of checkpoint {ckpt} ({size} bytes)"
        if dry_run:
            click.echo(f"would {what}")
            return
        confirm(what, yes=yes)
        with service.open(ckpt, mode="w") as checkpoint:
            revision = _commit(checkpoint, checkpoint.delete(section_id))
    _done(target, f"deleted section {show_bytes(section_id)}", ckpt, section_id, revision)


@section.command("expire")
@click.argument("ckpt")
@click.argument("section_id", metavar="ID")
@_hex_option
@_time_options
@click.option("--never", is_flag=True, help="Keep it for ever.")
@cluster_options
def expire(
    target: Target,
    ckpt: str,
    section_id: bytes,
    at: float | None,
    ttl: float | None,
    never: bool,
) -> None:
    """Set when section ID of checkpoint CKPT expires.

    \b
    Examples:
      raftckpt section expire sessions bob --ttl 60
      raftckpt section expire sessions bob --never
    """  # noqa: D301
    if [at is not None, ttl is not None, never].count(True) != 1:
        raise click.UsageError("give exactly one of --at, --ttl, --never")
    with target.connect() as service, service.open(ckpt, mode="w") as checkpoint:
        revision = _commit(checkpoint, checkpoint.set_expiration(section_id, at, ttl))
    when = "never" if never else f"in {ttl:g} s" if ttl is not None else f"at {show_time(at)}"
    text = f"section {show_bytes(section_id)} expires {when}"
    _done(target, text, ckpt, section_id, revision)


def _done(
    target: Target, text: str, ckpt: str, section_id: bytes, revision: int, **more: object
) -> None:
    if target.json:
        shown = {"checkpoint": ckpt, **json_bytes("id", section_id), **more}
        print_json({**shown, "revision": revision})
    else:
        click.echo(f"{text} (revision {revision})")

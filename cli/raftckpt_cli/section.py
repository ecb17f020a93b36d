"""``raftckpt section``: list, read, write, append, create, delete, expire."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from raftckpt.errors import SaAisError, error_for
from raftckpt.protocol.contract import WRITE_BYTES_MAX
from raftckpt_cli.checkpoint import json_of_section, page_options, print_sections
from raftckpt_cli.options import ClusterTarget, cluster_options, confirm, consistency_option
from raftckpt_cli.output import json_bytes, print_json, show_bytes, show_time

if TYPE_CHECKING:
    import raftckpt

__all__ = ["section"]

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def section() -> None:
    """List, read, write, append to, create, delete and expire sections.

    DATA is the bytes themselves, - for standard input, or @FILE for the content of a file; a text
    that begins with an @ of its own is written with two.
    """


def _hex_option(*names: str, what: str = "ID is") -> Callable[[_F], _F]:
    """Add ``--hex``; the command gets the parameters named as bytes."""

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def wrapper(*args: Any, in_hex: bool, **options: Any) -> Any:
            for name in names:
                options[name] = _bytes(options[name], in_hex=in_hex)
            return function(*args, **options)

        option = click.option("--hex", "in_hex", is_flag=True, help=f"{what} given in hexadecimal.")
        return option(wrapper)  # type: ignore[return-value]

    return decorate


def _bytes(text: str | None, *, in_hex: bool) -> bytes | None:
    if text is None or not in_hex:
        return None if text is None else os.fsencode(text)
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise click.UsageError(f"{text!r} is not hexadecimal") from None


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


_if_revision = click.option(
    "--if-revision",
    type=click.IntRange(0),
    metavar="N",
    help="Only if the section has this revision (section read -o json tells it); "
    "0: only if it does not exist.",
)


def _data(argument: str) -> bytes:
    """The bytes that DATA stands for; of more than a write may have, just enough to be refused."""
    # Arguments that are not valid UTF-8 arrive with surrogates; fsencode restores their bytes.
    if argument == "-":
        return sys.stdin.buffer.read(WRITE_BYTES_MAX + 1)
    if not argument.startswith("@") or argument.startswith("@@"):
        return os.fsencode(argument.removeprefix("@"))
    try:
        with Path(argument[1:]).open("rb") as file:
            return file.read(WRITE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"cannot read the file {argument[1:]!r}: {getattr(error, 'strerror', None) or error}; "
            "a text that begins with @ is given as @@"
        ) from None


@contextmanager
def _reading(target: ClusterTarget, ckpt: str, consistency: str) -> Iterator[raftckpt.View]:
    """A checkpoint to read from: opened in a session, or, if no leader is needed, only named."""
    if consistency == "local":
        with target.connect(session=False) as service:
            yield service.view(ckpt)
        return
    with target.connect() as service, service.open(ckpt, mode="r") as checkpoint:
        yield checkpoint


def _commit(checkpoint: raftckpt.Checkpoint, revision: int | None) -> int:
    """Revision of a change; in the asynchronous modes it is waited for."""
    return checkpoint.synchronize() if revision is None else revision


@section.command("list")
@click.argument("ckpt")
@click.option("--prefix", default="", help="Only ids that begin with this.")
@page_options("ID")
@_hex_option("prefix", "after", what="--prefix and --after are")
@consistency_option
@cluster_options
def list_(
    target: ClusterTarget,
    ckpt: str,
    prefix: bytes,
    after: bytes | None,
    limit: int | None,
    consistency: Any,
) -> None:
    """List the sections of checkpoint CKPT: all, or some of them in the order of their ids.

    \b
    Examples:
      raftckpt section list csa103Ckpt
      raftckpt section list sessions --prefix user:1 --limit 100
      raftckpt section list sessions --prefix user:1 --limit 100 --after user:1:7
    """  # noqa: D301
    with _reading(target, ckpt, consistency) as checkpoint:
        found = checkpoint.sections(
            prefix=prefix, after=after, limit=limit, consistency=consistency
        )
    if target.json:
        print_json([json_of_section(each) for each in found])
    else:
        print_sections(found)


@section.command("read")
@click.argument("ckpt")
@click.argument("section_id", metavar="ID")
@_hex_option("section_id")
@click.option("--offset", type=click.IntRange(0), default=0, help="First byte to read.")
@click.option("--size", type=click.IntRange(0), help="Bytes to read.  [default: to the end]")
@consistency_option
@cluster_options
def read(
    target: ClusterTarget,
    ckpt: str,
    section_id: bytes,
    offset: int,
    size: int | None,
    consistency: Any,
) -> None:
    """Write the bytes of section ID of checkpoint CKPT to standard output.

    With -o json a section that is read as a whole comes with its revision, for --if-revision.

    \b
    Examples:
      raftckpt section read csa103Ckpt 1 | xxd
      raftckpt section read sessions alice -o json
    """  # noqa: D301
    with _reading(target, ckpt, consistency) as checkpoint:
        revision = None
        if offset == 0 and size is None:
            data, revision = checkpoint.read_versioned(section_id, consistency=consistency)
        else:
            data = checkpoint.read(section_id, offset, size, consistency=consistency)
    if target.json:
        shown = {"checkpoint": ckpt, **json_bytes("id", section_id), "offset": offset}
        shown |= {"size": len(data), "revision": revision}
        print_json({**shown, **json_bytes("data", data)})
    else:
        sys.stdout.buffer.write(data)
        if not data.endswith(b"\n") and sys.stdout.isatty():
            sys.stdout.buffer.write(b"\n")  # the prompt gets a line of its own
        sys.stdout.buffer.flush()


@section.command("write")
@click.argument("ckpt")
@click.argument("section_id", metavar="ID")
@click.argument("data", default="-", metavar="[DATA|-|@FILE]")
@_hex_option("section_id")
@click.option(
    "--offset",
    type=click.IntRange(0),
    help="Write into the existing section from this byte on.  [default: replace or create it]",
)
@_if_revision
@click.option(
    "--ttl",
    type=click.FloatRange(0),
    help="Seconds from now the section expires in, new or replaced.  "
    "[default: one that is replaced keeps its expiration, a new one has none]",
)
@cluster_options
def write(
    target: ClusterTarget,
    ckpt: str,
    section_id: bytes,
    data: str,
    offset: int | None,
    if_revision: int | None,
    ttl: float | None,
) -> None:
    """Write DATA (or standard input, or a file) to section ID of checkpoint CKPT.

    \b
    Examples:
      raftckpt section write sessions alice '{"page": 3}'
      raftckpt section write sessions alice @alice.json --if-revision 12
      raftckpt section write sessions bob hello --ttl 3600
      raftckpt section write firmware image --offset 4096 - < patch.bin
    """  # noqa: D301
    if ttl is not None and offset is not None:
        raise click.UsageError("--ttl is for a section that is replaced or created: no --offset")
    content = _data(data)
    with target.connect() as service, service.open(ckpt, mode="w") as checkpoint:
        revision: int | None
        if ttl is not None:
            revision = _write_with_ttl(checkpoint, section_id, content, ttl, if_revision)
        elif offset is None:
            revision = checkpoint.put(section_id, content, if_revision=if_revision)
        else:
            revision = checkpoint.write(section_id, content, offset, if_revision=if_revision)
        revision = _commit(checkpoint, revision)
    text = f"wrote {len(content)} bytes to section {show_bytes(section_id)}"
    _done(target, text, ckpt, section_id, revision, size=len(content))


def _write_with_ttl(
    checkpoint: raftckpt.Checkpoint,
    section_id: bytes,
    content: bytes,
    ttl: float,
    if_revision: int | None,
) -> int | None:
    """Replace or create a section that expires, in one step.

    Whether it exists is not asked: put makes it so, then it can be deleted and created anew.
    """
    with checkpoint.transaction() as transaction:
        transaction.put(section_id, b"", if_revision=if_revision)
        transaction.delete(section_id)
        transaction.create(section_id, content, ttl=ttl)
    return transaction.revision


@section.command("append")
@click.argument("ckpt")
@click.argument("section_id", metavar="ID")
@click.argument("data", default="-", metavar="[DATA|-|@FILE]")
@_hex_option("section_id")
@_if_revision
@cluster_options
def append(
    target: ClusterTarget, ckpt: str, section_id: bytes, data: str, if_revision: int | None
) -> None:
    """Append DATA (or standard input, or a file) to section ID; a missing one is created.

    \b
    Examples:
      raftckpt section append audit 2031-05-01 'alice logged in'
      raftckpt section append audit 2031-05-01 @entries.log -o json | jq .offset
    """  # noqa: D301
    content = _data(data)
    with target.connect() as service, service.open(ckpt, mode="w") as checkpoint:
        offset, revision = checkpoint.append(section_id, content, if_revision=if_revision)
    text = f"appended {len(content)} bytes to section {show_bytes(section_id)} at {offset}"
    _done(target, text, ckpt, section_id, revision, offset=offset, size=len(content))


@section.command("create")
@click.argument("ckpt")
@click.argument("section_id", metavar="[ID]", required=False)
@click.argument("data", default="", metavar="[DATA|-|@FILE]")
@_hex_option("section_id")
@_time_options
@cluster_options
def create(
    target: ClusterTarget,
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
      raftckpt section create sessions carol @carol.json
      raftckpt section create sessions
    """  # noqa: D301
    content = _data(data)
    with target.connect() as service, service.open(ckpt, mode="w") as checkpoint:
        made = checkpoint.create(section_id, content, expires=at, ttl=ttl)
        revision = checkpoint.synchronize()
    _done(target, f"created section {show_bytes(made)}", ckpt, made, revision)


@section.command("delete")
@click.argument("ckpt")
@click.argument("section_id", metavar="ID")
@_hex_option("section_id")
@click.option(
    "--if-revision",
    type=click.IntRange(1),
    metavar="N",
    help="Only if the section has this revision.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_options
def delete(
    target: ClusterTarget,
    ckpt: str,
    section_id: bytes,
    if_revision: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete section ID of checkpoint CKPT.

    \b
    Examples:
      raftckpt section delete sessions bob --dry-run
      raftckpt section delete sessions bob --yes
      raftckpt section delete sessions bob --yes --if-revision 12
    """  # noqa: D301
    with target.connect() as service:
        with service.open(ckpt, mode="r") as looking:
            data, found = looking.read_versioned(section_id)
        if if_revision not in (None, found):
            raise error_for(SaAisError.ERR_BAD_OPERATION, "conflict", found)
        facts = f"{len(data)} bytes, revision {found}"
        what = f"delete section {show_bytes(section_id)} of checkpoint {ckpt} ({facts})"
        if dry_run:
            click.echo(f"would {what}")
            return
        confirm(what, yes=yes)
        with service.open(ckpt, mode="w") as checkpoint:
            deleted = checkpoint.delete(section_id, if_revision=if_revision)
            revision = _commit(checkpoint, deleted)
    _done(target, f"deleted section {show_bytes(section_id)}", ckpt, section_id, revision)


@section.command("expire")
@click.argument("ckpt")
@click.argument("section_id", metavar="ID")
@_hex_option("section_id")
@_time_options
@click.option("--never", is_flag=True, help="Keep it for ever.")
@cluster_options
def expire(
    target: ClusterTarget,
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
    target: ClusterTarget, text: str, ckpt: str, section_id: bytes, revision: int, **more: object
) -> None:
    if target.json:
        shown = {"checkpoint": ckpt, **json_bytes("id", section_id), **more}
        print_json({**shown, "revision": revision})
    else:
        click.echo(f"{text} (revision {revision})")

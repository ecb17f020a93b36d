"""``raftckpt snapshot``: save the state of the cluster to a file, look at it, restore it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from raftckpt_cli.data import storage_errors
from raftckpt_cli.options import (
    ClusterTarget,
    cluster_options,
    consistency_option,
    output_option,
)
from raftckpt_cli.output import Failure, print_json, print_pairs, show_size, show_time

if TYPE_CHECKING:
    from raftckpt import SavedSnapshot

__all__ = ["snapshot"]

_SHOW_EVERY_S: Final = 0.2


@click.group()
def snapshot() -> None:
    """Save the whole state of the cluster to a file, look at such a file, restore it."""


@snapshot.command("save")
@click.argument("file", type=click.Path(dir_okay=False))
@consistency_option
@cluster_options
def save(target: ClusterTarget, file: str, consistency: Any) -> None:
    """Save the state of the cluster at one revision to FILE.

    It is read from a follower, if there is one, and yields to other work. FILE appears when it is
    complete and on disk; it is never a half one. With --consistency local it is the state of one
    replica, and no leader is needed.

    \b
    Examples:
      raftckpt snapshot save /backup/prod.snapshot
      raftckpt snapshot save left.snapshot --consistency local --endpoints 10.0.0.2:7401
    """  # noqa: D301
    with target.connect(session=False) as service, progress("saving") as shown:
        try:
            saved = service.snapshot(file, consistency=consistency, progress=shown)
        except OSError as error:
            if not isinstance(error, ConnectionError):
                raise _cannot_write(file, error) from error
            raise
    if target.json:
        print_json(json_of(saved))
    else:
        click.echo(
            f"{file}: revision {saved.revision} of cluster {saved.cluster}, "
            f"{show_time(saved.time)}, read from {saved.node}, {_size(saved.size)}"
        )


@snapshot.command("inspect")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@output_option
@storage_errors
def inspect(file: str, output: str) -> None:
    """Verify every byte of FILE, and tell what it is; exit code 1 if it is not as it was written.

    \b
    Examples:
      raftckpt snapshot inspect /backup/prod.snapshot
      raftckpt snapshot inspect /backup/prod.snapshot -o json | jq .revision
    """  # noqa: D301
    from raftckpt.copies.snapshots import inspect_snapshot

    with progress("verifying") as shown:
        found = inspect_snapshot(file, shown)
    head = found.head
    if output == "json":
        print_json(
            {
                "file": file,
                "cluster": head.cluster,
                "founding": head.founding,
                "revision": head.revision,
                "level": head.level,
                "time": head.time_ns / 1e9,
                "node": head.node,
                "entry": head.entry,
                "size": found.size,
                "image_bytes": found.image_bytes,
                "digest": found.digest,
            }
        )
        return
    print_pairs(
        [
            ("cluster", head.cluster),
            ("founding", head.founding),
            ("revision", head.revision),
            ("time", show_time(head.time_ns / 1e9)),
            ("level", head.level),
            ("read from", f"{head.node}, after entry {head.entry}"),
            ("size", _size(found.size)),
            ("digest", found.digest),
        ]
    )
    click.echo("every byte is as it was written")


def json_of(saved: SavedSnapshot) -> dict[str, Any]:
    """A saved file as JSON (the contract of ``snapshot save -o json``)."""
    return {
        "file": saved.path,
        "cluster": saved.cluster,
        "founding": saved.founding,
        "revision": saved.revision,
        "level": saved.level,
        "time": saved.time,
        "node": saved.node,
        "size": saved.size,
    }


def _size(size: int) -> str:
    return show_size(size) if size < 10 << 20 else f"{size / (1 << 20):.1f} MiB"


def _cannot_write(file: str, error: OSError) -> Failure:
    if isinstance(error, BlockingIOError):
        return Failure(
            f"saving {file} failed", "another process is saving to it", "wait for its end"
        )
    return Failure(
        f"saving {file} failed",
        f"{error.strerror or error}; nothing of that name was changed",
        "name a file in a directory with room that you may write to",
    )


@contextmanager
def progress(what: str, total: int = 0) -> Iterator[Callable[[int], None]]:
    """Tell how far it is, on a terminal only.

    Arguments:
        what: is being done.
        total: bytes in all; 0: nobody knows.
    """
    begun = time.monotonic()
    told = begun
    shown = False
    wanted = sys.stderr.isatty()

    def tell(size: int) -> None:
        nonlocal told, shown
        now = time.monotonic()
        if not wanted or now - told < _SHOW_EVERY_S:
            return
        told, shown = now, True
        rate = size / (now - begun) / (1 << 20)
        of = f" of {total / (1 << 20):.0f}" if total else ""
        text = f"\r{what}: {size / (1 << 20):.0f}{of} MiB, {rate:.0f} MiB/s "
        click.echo(text, nl=False, err=True)

    try:
        yield tell
    finally:
        if shown:
            click.echo("\r" + " " * 60 + "\r", nl=False, err=True)

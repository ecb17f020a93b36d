"""``raftckpt snapshot``: save the state of the cluster to a file, look at it, restore it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from raftckpt_cli.data import storage_errors
from raftckpt_cli.options import (
    ClusterTarget,
    cluster_options,
    consistency_option,
    output_option,
    token_option,
)
from raftckpt_cli.output import (
    ExitCode,
    Failure,
    print_json,
    print_pairs,
    progress,
    show_size,
    show_time,
)

if TYPE_CHECKING:
    from raftckpt import SavedSnapshot
    from raftckpt.node.config import ClusterConfig

__all__ = ["snapshot"]

_AGAIN_S: Final = 30
"""How soon a scheduled save that failed is tried again, at the latest after its period."""


@click.group()
def snapshot() -> None:
    """Save the whole state of the cluster to a file, look at such a file, restore it."""


@snapshot.command("save")
@click.argument("file", type=click.Path())
@click.option(
    "--every",
    metavar="PERIOD",
    help="Save again and again (90s, 30m, 1h, 1d); FILE is a directory then.",
)
@click.option("--keep", type=click.IntRange(1), help="With --every: keep so many.  [default: 24]")
@consistency_option
@cluster_options
def save(
    target: ClusterTarget, file: str, every: str | None, keep: int | None, consistency: Any
) -> None:
    """Save the state of the cluster at one revision to FILE.

    It is read from a follower, if there is one, and yields to other work. FILE appears when it is
    complete and on disk; it is never a half one. With --consistency local it is the state of one
    replica, and no leader is needed.

    \b
    Examples:
      raftckpt snapshot save /backup/prod.snapshot
      raftckpt snapshot save left.snapshot --consistency local --endpoints 10.0.0.2:7401
      raftckpt snapshot save /backup --every 1h --keep 24
    """  # noqa: D301
    if every is not None:
        _save_for_ever(target, file, every, keep or 24, consistency)
    if keep is not None:
        raise click.UsageError("--keep goes with --every")
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


def _save_for_ever(
    target: ClusterTarget, directory: str, every: str, keep: int, consistency: Any
) -> NoReturn:
    """Save when it is due, until interrupted; what fails is told and tried again."""
    from raftckpt.copies.schedule import SnapshotDirectory, seconds_of
    from raftckpt.errors import CheckpointError
    from raftckpt.storage import StorageError

    try:
        period = seconds_of(every)
        os.listdir(directory)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.UsageError(f"{directory}: {error.strerror}; name a directory") from None
    with target.connect(session=False) as service:
        kept: SnapshotDirectory | None = None
        while True:
            pause = float(min(period, _AGAIN_S))
            try:
                if kept is None:
                    status = service.cluster()
                    there = [each for each in status.replicas if each.reachable]
                    if there:
                        name = str(there[0].detail["cluster"])
                        kept = SnapshotDirectory(directory, name, period, keep)
                if kept is None:
                    click.echo("no replica answers: tried again", err=True)
                elif (wait := kept.due_in(time.time())) > 0:
                    pause = wait
                else:
                    path = kept.next_path(time.time())
                    saved = service.snapshot(path, consistency=consistency)
                    _, gone = kept.settle(path)
                    pause = kept.due_in(time.time())
                    _tell_kept(target, saved, gone)
            except (CheckpointError, StorageError, OSError) as error:
                click.echo(f"saving failed, and is tried again: {error}", err=True)
            time.sleep(pause)


def _tell_kept(target: ClusterTarget, saved: SavedSnapshot, gone: list[str]) -> None:
    if target.json:
        print_json({**json_of(saved), "removed": gone})
    else:
        removed = "".join(f", removed {os.path.basename(each)}" for each in gone)
        click.echo(
            f"{saved.path}: revision {saved.revision}, {_size(saved.size)}, verified{removed}"
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


@snapshot.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--config",
    required=True,
    envvar="RAFTCKPT_CONFIG",
    show_envvar=True,
    type=click.Path(dir_okay=False),
    help="The cluster.yaml of the new cluster.",
)
@click.option("--node", required=True, help="The replica whose data directory is made, here.")
@click.option("--data-dir", help="Root of the data directories (over that of the file).")
@click.option("--of", default="", metavar="NAME", help="The file is of a cluster of this name.")
@token_option("the others")
@click.option(
    "--rights-off", is_flag=True, help="Switch rights off in it: no operator can get in any more."
)
@output_option
@storage_errors
def restore(
    file: str,
    config: str,
    node: str,
    data_dir: str | None,
    of: str,
    token: str,
    rights_off: bool,
    output: str,
) -> None:
    """Found a cluster of one on the state in FILE, and keep places for the others of the file.

    Run it on one host only. It makes the data directory of NODE; the others start with empty
    ones, are sent the state and become voters by themselves. Sessions of the old cluster are gone,
    numbers go on far above those of FILE. It is a new cluster: the old one must not serve any more.

    \b
    Examples:
      raftckpt snapshot restore /backup/prod.snapshot --config cluster.yaml --node n1
    """  # noqa: D301
    from raftckpt.copies.rebirth import Place
    from raftckpt.copies.restore import refuse_answering
    from raftckpt.copies.restore import restore as restore_
    from raftckpt.node.config import announced

    loaded = _configuration(config, node, data_dir)
    refuse_answering((name, at.client.host, at.client.port) for name, at in loaded.replicas.items())
    places = {
        name: Place(name, announced(at.peer), announced(at.client))
        for name, at in loaded.replicas.items()
    }
    own = places.pop(node)
    with progress("reading", os.path.getsize(file)) as shown:
        made = restore_(
            file,
            os.fspath(loaded.directory(node)),
            loaded.cluster,
            own,
            tuple(places.values()),
            token,
            of=of,
            rights_off=rights_off,
            progress=shown,
        )
    if output == "json":
        print_json(
            {
                "directory": made.path,
                "founding": made.founding,
                "former_founding": made.head.founding,
                "former_revision": made.head.revision,
                "former_time": made.head.time_ns / 1e9,
                "revision": made.state.revision,
                "level": made.head.level,
                "sessions_ended": made.state.sessions,
                "checkpoints_dropped": made.state.dropped,
                "token": token if places else None,
            }
        )
        return
    click.echo(
        f"{made.path}: revision {made.head.revision} of {made.head.cluster}, "
        f"{show_time(made.head.time_ns / 1e9)}\n"
        f"it is a new cluster, founding {made.founding[:8]} (was {made.head.founding[:8]}); "
        f"revisions go on at {made.state.revision}; {made.state.sessions} sessions are ended"
    )
    if made.state.dropped:
        click.echo(f"{made.state.dropped} checkpoints without retention went with them")
    click.echo(f"\nnow, here:\n\n  raftckpt serve --config {config} --node {node}\n")
    if places:
        click.echo("and on the others, once, with empty data directories:\n")
        for name in places:
            click.echo(f"  raftckpt serve --config {config} --node {name} --join {token}")
        click.echo(
            "\nuntil they vote (raftckpt cluster members) it survives no loss of a disk. Destroy "
            "the old\ncluster's data directories: they must never serve again"
        )


def _configuration(path: str, node: str, data_dir: str | None) -> ClusterConfig:
    """The configuration, with this node in it.

    Raises:
        Failure: it cannot be used, or has no such node.
    """
    from raftckpt.node.config import ConfigError, load

    try:
        loaded = load(path, overrides={"data_dir": data_dir})
    except ConfigError as error:
        raise Failure(
            f"reading {path} failed",
            str(error),
            f"raftckpt config check {path}",
            ExitCode.USAGE,
        ) from error
    if node not in loaded.replicas:
        raise Failure(
            f"{path} has no replica {node}",
            f"its replicas are {', '.join(loaded.replicas)}",
            "name one of them with --node",
            ExitCode.USAGE,
        )
    return loaded


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

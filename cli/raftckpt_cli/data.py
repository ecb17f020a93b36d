"""``raftckpt data``: look inside a data directory, and recover the last one, offline."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from raftckpt_cli.options import confirm, output_option
from raftckpt_cli.output import (
    Failure,
    print_json,
    print_pairs,
    print_table,
    progress,
    show_size,
    show_time,
)

if TYPE_CHECKING:
    from raftckpt.copies.entries import ToldEntry
    from raftckpt.copies.replay import Point
    from raftckpt.storage import HeldDirectory

__all__ = ["data", "directory_argument", "storage_errors"]

_F = TypeVar("_F", bound=Callable[..., Any])

directory_argument = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False)
)


def storage_errors(function: _F) -> _F:
    """Tell an error of the storage as one of the command line."""

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        from raftckpt.storage import StorageError

        try:
            return function(*args, **options)
        except StorageError as error:
            raise Failure(error.what, error.why, error.remedy) from error

    return wrapper  # type: ignore[return-value]


@click.group()
def data() -> None:
    """Look inside a data directory (data_dir/NODE) that no replica uses; recover the last one."""


@data.command("inspect")
@directory_argument
@output_option
@storage_errors
def inspect(directory: str, output: str) -> None:
    """Tell whose directory DIR is and what it holds: founding, members, log, snapshot.

    Journal and snapshot are checked as at a start of the replica; what entries say is not looked
    at (raftckpt data verify does).

    \b
    Examples:
      raftckpt data inspect /var/lib/raftckpt/n1
      raftckpt data inspect /var/lib/raftckpt/n1 -o json | jq .commit
    """  # noqa: D301
    from raftckpt.storage import reading

    with reading(directory) as held:
        found = _inspected(held)
    if output == "json":
        print_json(found)
    else:
        _print(found)


@data.command("verify")
@directory_argument
@output_option
@storage_errors
def verify(directory: str, output: str) -> None:
    """Read all of DIR as a replica would, build its state, and tell how far it goes.

    Exit code 1: something is damaged, missing or foreign.

    \b
    Examples:
      raftckpt data verify /var/lib/raftckpt/n1
    """  # noqa: D301
    from raftckpt.copies.replay import replayed
    from raftckpt.storage import reading

    with reading(directory) as held, progress("verifying") as shown:
        found = _inspected(held)
        state = replayed(held, shown)
    machine = state.machine
    found["content"] = {
        "committed": _point(state.committed),
        "last": _point(state.last),
        "checkpoints": len(machine.checkpoints),
        "sections": sum(len(each.sections) for each in machine.checkpoints.values()),
        "bytes": sum(each.memory_used for each in machine.checkpoints.values()),
        "sessions": len(machine.sessions),
        "undecodable": [index for index, _ in state.undecodable],
    }
    if output == "json":
        print_json(found)
    else:
        _print(found)
        click.echo("everything in it is as it was written")


@data.command("dump")
@directory_argument
@click.option("--from", "first", type=click.IntRange(1), help="First entry.")
@click.option("--to", "last", type=click.IntRange(1), help="Last entry.")
@click.option("--data", "with_data", is_flag=True, help="With all data, not only their sizes.")
@output_option
@storage_errors
def dump(directory: str, first: int | None, last: int | None, with_data: bool, output: str) -> None:
    """Tell the entries of the log in DIR, those behind its snapshot, by the names of operations.

    With -o json an object per line.

    \b
    Examples:
      raftckpt data dump /var/lib/raftckpt/n1 --from 4711
      raftckpt data dump /var/lib/raftckpt/n1 -o json | jq 'select(.kind == "configuration")'
    """  # noqa: D301
    from raftckpt.copies.entries import told
    from raftckpt.storage import reading

    with reading(directory) as held:
        for payload, index, term in held.entries:
            if (first is None or index >= first) and (last is None or index <= last):
                entry = told(payload, index, term)
                committed = index <= held.commit_index
                if output == "json":
                    print_json(_entry_json(entry, committed, with_data=with_data))
                else:
                    _print_entry(entry, committed, with_data=with_data)


@data.command("recover")
@click.argument(
    "directories",
    metavar="DIR...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False),
)
@click.option("--compare", "only_compare", is_flag=True, help="Only tell which one to recover.")
@click.option(
    "--rights-off", is_flag=True, help="Switch rights off in it: no operator can get in any more."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
@storage_errors
def recover(
    directories: tuple[str, ...], only_compare: bool, rights_off: bool, yes: bool, output: str
) -> None:
    """Make the directory DIR that is left a cluster of its own: a majority is gone for good.

    First compare all directories that are left: the one that is named goes furthest. Recover that
    one alone. It becomes the only voter of a new cluster; the former directory is kept aside.
    Members that were lost come back empty, by `cluster add`.

    Tells up to which revision everything that was acknowledged is in it.

    \b
    Examples:
      raftckpt data recover --compare /mnt/n1 /mnt/n3
      raftckpt data recover /mnt/n3
      raftckpt data recover /var/lib/raftckpt/n2 --rights-off
    """  # noqa: D301
    if only_compare:
        _compare(directories, output)
        return
    if len(directories) != 1:
        raise click.UsageError("recover one directory; several are compared, with --compare")
    from raftckpt.copies.recover import recover as recover_

    (path,) = directories
    confirm(
        f"found a new cluster on {path}: old directories that are a majority of the former one "
        "must never start again",
        yes=yes,
        look="--compare",
    )
    with progress("reading") as shown:
        made = recover_(path, shown, rights_off=rights_off)
    if output == "json":
        print_json(
            {
                "directory": made.path,
                "aside": made.aside,
                "node": made.node,
                "cluster": made.cluster,
                "founding": made.founding,
                "parent": made.parent,
                "committed": _point(made.committed),
                "last": _point(made.last),
                "revision": made.state.revision,
                "sessions_ended": made.state.sessions,
                "checkpoints_dropped": made.state.dropped,
                "others": [member.node for member in made.others],
            }
        )
        return
    click.echo(
        f"{made.path} is a new cluster of {made.node} alone, founding {made.founding[:8]} (was "
        f"{made.parent[:8]})\n"
        f"everything acknowledged up to revision {made.committed.revision} "
        f"({show_time(made.committed.time_ns / 1e9)}) is in it;\n"
        f"of what was acknowledged later, that is in it which this directory had, up to revision "
        f"{made.last.revision} ({show_time(made.last.time_ns / 1e9)})\n"
        f"revisions go on at {made.state.revision}; {made.state.sessions} sessions are ended\n"
        f"the former directory is {made.aside}\n"
        f"\nnow: raftckpt serve --config cluster.yaml --node {made.node}"
    )
    for member in made.others:
        click.echo(
            f"and for {member.node}, with an empty data directory: raftckpt cluster add "
            f"{member.node} --peer {member.peer} --client {member.client}"
        )
    click.echo(
        "destroy the directories that were left out: those that are a majority of the former "
        "cluster\nwould act as it, if they were started together"
    )


def _compare(directories: tuple[str, ...], output: str) -> None:
    from raftckpt.copies.recover import compare

    with progress("comparing") as shown:
        found = compare(directories, shown)
    if output == "json":
        rows = [
            {
                "directory": row.path,
                "node": row.node,
                "state": row.state,
                "founding": row.founding,
                "last_term": row.last_term,
                "last": row.last_index,
                "committed": None if row.committed is None else _point(row.committed),
                "lacks": row.lacks,
                "problem": row.problem,
            }
            for row in found.directories
        ]
        print_json(
            {
                "recover": found.best.path,
                "committed": _point(found.committed),
                "voters": found.voters,
                "here": found.here,
                "directories": rows,
            }
        )
        return
    print_table(
        ["directory", "node", "last term", "last entry", "committed", "revision", "remark"],
        [
            [
                row.path,
                row.node or "-",
                row.last_term or "-",
                row.last_index or "-",
                "-" if row.committed is None else row.committed.index,
                "-" if row.committed is None else row.committed.revision,
                row.problem or row.lacks or ("" if row.committed is not None else row.state),
            ]
            for row in found.directories
        ],
    )
    if found.here > found.voters // 2:
        click.echo(
            f"{found.here} of {found.voters} voters are here: that is a majority. Start them "
            "instead: nothing is lost"
        )
    click.echo(
        f"to recover: {found.best.path}\n"
        f"everything acknowledged up to revision {found.committed.revision} "
        f"({show_time(found.committed.time_ns / 1e9)}) is in it"
    )


def _inspected(held: HeldDirectory) -> dict[str, Any]:
    """What ``inspect`` tells (a contract in JSON)."""
    from raftckpt.copies.entries import member_told
    from raftckpt.copies.replay import configuration_of

    identity, journal, snapshot, peers = held.identity, held.journal, held.snapshot, held.peers
    configuration = configuration_of(held)
    return {
        "path": held.path,
        "cluster": identity.cluster,
        "node": identity.node,
        "directory": identity.directory,
        "created": identity.created_ns / 1e9,
        "state": identity.state.value,
        "joins": bool(identity.joins),
        "founding": identity.founding,
        "parent": configuration.parent if configuration is not None else "",
        "level": configuration.level if configuration is not None else None,
        "members": [member_told(m) for m in configuration.members] if configuration else [],
        "starts": peers.starts if peers is not None else None,
        "contradictions": list(peers.contradictions) if peers is not None else [],
        "difference": peers.difference if peers is not None else "",
        "term": journal.term if journal is not None else 0,
        "vote": journal.vote if journal is not None else None,
        "first": held.entries[0][1] if held.entries else None,
        "last": held.last_index,
        "last_term": held.last_term,
        "commit": held.commit_index,
        "snapshot": None
        if snapshot is None
        else {"index": snapshot.index, "term": snapshot.term, "bytes": snapshot.size},
        "files": dict([*held.segments, *held.slots]),
    }


def _point(point: Point) -> dict[str, Any]:
    return {"index": point.index, "revision": point.revision, "time": point.time_ns / 1e9}


def _print(found: dict[str, Any]) -> None:
    snapshot, content = found["snapshot"], found.get("content")
    names = {m["directory"]: m["node"] for m in found["members"] if m["directory"]}
    pairs: list[tuple[str, object]] = [
        ("directory", f"{found['directory']}, {found['state']}, of {found['node']}"),
        ("cluster", found["cluster"]),
        ("founding", found["founding"] or "none yet"),
        *([("made of", found["parent"])] if found["parent"] else []),
        ("starts", "unknown: the note of the peers is gone" if found["starts"] is None
         else found["starts"]),
        ("level", "-" if found["level"] is None else found["level"]),
        *((f"member {m['node']}", _member(m)) for m in found["members"]),
        *(("contradicted by", each) for each in found["contradictions"]),
        *([("alarm", found["difference"])] if found["difference"] else []),
        ("term", found["term"]),
        ("vote", names.get(found["vote"], found["vote"]) or "nobody"),
        ("snapshot", "none" if snapshot is None
         else f"of entry {snapshot['index']}, term {snapshot['term']}, "
         f"{show_size(snapshot['bytes'])}"),
        ("entries", f"{found['first']} to {found['last']}" if found["first"] else "none behind it"),
        ("end of the log", f"term {found['last_term']}, entry {found['last']}"),
        ("known committed", f"up to entry {found['commit']}"),
        ("files", f"{len(found['files'])}, {show_size(sum(found['files'].values()))}"),
    ]  # fmt: skip
    if content is not None:
        for name, key in (("committed state", "committed"), ("last state", "last")):
            at = content[key]
            pairs.append((name, f"revision {at['revision']}, {show_time(at['time'])}"))
        pairs.append(
            (
                "in it",
                f"{content['checkpoints']} checkpoints, {content['sections']} sections, "
                f"{show_size(content['bytes'])}, {content['sessions']} sessions",
            )
        )
        if content["undecodable"]:
            pairs.append(
                ("entries without meaning", ", ".join(map(str, content["undecodable"][:20])))
            )
    print_pairs(pairs)


def _member(member: dict[str, Any]) -> str:
    kind = "voter" if member["voter"] else "learner"
    kind += ", to vote" if member["promote"] else ""
    return f"{kind}, {member['peer']}, directory {member['directory'] or 'none yet'}"


def _entry_json(entry: ToldEntry, committed: bool, *, with_data: bool) -> dict[str, Any]:
    from raftckpt.copies.entries import configuration_told, plain

    shown: dict[str, Any] = {
        "index": entry.index,
        "term": entry.term,
        "kind": entry.kind,
        "bytes": entry.size,
        "committed": committed,
    }
    if entry.time_ns is not None:
        shown["time"] = entry.time_ns / 1e9
        shown["commands"] = [
            {"operation": name, **plain(fields, data=with_data)} for name, fields in entry.commands
        ]
    if entry.configuration is not None:
        shown["configuration"] = configuration_told(entry.configuration)
    return shown


def _print_entry(entry: ToldEntry, committed: bool, *, with_data: bool) -> None:
    from raftckpt.copies.entries import plain

    time = "" if entry.time_ns is None else f" {show_time(entry.time_ns / 1e9)}"
    known = "" if committed else " (not known to be committed)"
    click.echo(f"{entry.index} term {entry.term} {entry.kind}{time} {entry.size} B{known}")
    if entry.configuration is not None:
        c = entry.configuration
        kinds = {True: "voter", False: "learner"}
        members = ", ".join(f"{m.node} {kinds[m.voter]}" for m in c.members)
        click.echo(f"    level {c.level}{', pinned' if c.pinned else ''}: {members}")
    for name, fields in entry.commands:
        words = " ".join(
            f"{key}={_word(plain(value, data=with_data))}" for key, value in fields.items()
        )
        click.echo(f"    {name} {words}")


def _word(value: Any) -> str:
    import json

    if isinstance(value, dict) and value.keys() == {"bytes"}:
        return f"<{value['bytes']} B>"
    return json.dumps(value, ensure_ascii=True)

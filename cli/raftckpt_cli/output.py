"""Rendering: tables and JSON on stdout, three-line errors on stderr, exit codes."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final

import click

from raftckpt import errors
from raftckpt.plain import plain

__all__ = [
    "ExitCode",
    "Failure",
    "exit_code_of",
    "explain",
    "json_bytes",
    "print_json",
    "print_pairs",
    "print_table",
    "progress",
    "show_age",
    "show_bytes",
    "show_seconds",
    "show_size",
    "show_time",
    "usage",
]

_SHOW_EVERY_S: Final = 0.2
"""Often enough to be seen going on, and a few lines a second to write. Half or double would do."""


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNKNOWN = 3
    UNAVAILABLE = 4
    NOT_FOUND = 5
    DENIED = 6
    INTERRUPTED = 130


class Failure(Exception):
    """An error of the command line itself, or one that knows its context.

    Arguments:
        what: what failed.
        why: the reason.
        remedy: what to try.
        code: exit code.
    """

    def __init__(self, what: str, why: str, remedy: str, code: ExitCode = ExitCode.REFUSED) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy
        self.code = code


_REMEDIES: dict[type[BaseException], str] = {
    # the first class that fits counts
    errors.SectionNotExist: "raftckpt section list CHECKPOINT shows which sections there are",
    errors.NoActiveReplica: "let the application call active_replica_set() first",
    errors.NotExist: "raftckpt checkpoint list shows which checkpoints there are",
    errors.Fenced: "the owner is shown by raftckpt checkpoint show; only it may write now",
    errors.Access: "use credentials that have the right",
    errors.Unavailable: "raftckpt cluster status; are the replicas running, is the address right?",
    errors.TryAgain: "raftckpt cluster status; is a majority of the replicas running?",
    errors.Timeout: "read the state before you repeat it: it may have happened",
    errors.Exist: "choose another name, or use what is there: raftckpt checkpoint show NAME",
    errors.NoSpace: "delete sections, or create the checkpoint with a larger --max-sections",
    errors.TooBig: "raftckpt checkpoint show NAME tells the limits",
    errors.Conflict: "raftckpt section read CHECKPOINT ID -o json tells data and revision; decide "
    "anew, then repeat it with that --if-revision",
    errors.InvalidParam: "--help of the command; raftckpt checkpoint show NAME tells the limits",
}


_SHOW_GROUP = "raftckpt group show NAME tells who is active, who is ready, and why not"
_REMEDIES_OF_REASONS = {
    "credentials": "--token-file FILE, or --cert and --key, of a principal of this cluster",
    "token": "leave --token-file out and RAFTCKPT_TOKEN_FILE unset, or raftckpt auth enable",
    "not_granted": "ask an operator; raftckpt auth whoami tells what is granted",
    "no_operator": "raftckpt principal create NAME --operator --token-out FILE",
    "last_operator": "raftckpt principal create NAME --operator, with other credentials, first",
    "access_changed": "look again (raftckpt space list, principal list), then decide anew",
    "principal_missing": "raftckpt principal list",
    "principal_exists": "raftckpt principal rotate NAME gives it another token",
    "space_missing": "raftckpt space create PREFIX; raftckpt space list shows which there are",
    "space_exists": "raftckpt space show PREFIX",
    "group_missing": "raftckpt group list shows which groups there are",
    "group_locked": "raftckpt group unlock NAME",
    "group_in_use": "stop its components first",
    "handing_over": _SHOW_GROUP,
    "no_standby": _SHOW_GROUP,
    "memory": "raftckpt cluster limits show; delete, or raise the limit",
    "full": "raftckpt cluster limits show; delete, or make room on the disks",
    "space_quota": "delete what is not needed, or ask an operator: raftckpt space quota",
    "checkpoint_full": "delete sections, or use a checkpoint with a larger --size",
    "component_exists": "choose another --name, or end the one that has it",
}


def exit_code_of(error: errors.CheckpointError) -> ExitCode:
    """Exit code for an error of the service."""
    if not error.definite:
        return ExitCode.UNKNOWN
    if isinstance(error, errors.Unavailable | errors.TryAgain | errors.Timeout):
        return ExitCode.UNAVAILABLE
    if isinstance(error, errors.Access):
        return ExitCode.DENIED
    if isinstance(error, errors.NotExist) and not isinstance(error, errors.NoActiveReplica):
        return ExitCode.NOT_FOUND
    return ExitCode.REFUSED


def explain(error: Exception) -> tuple[int | None, list[str]]:
    """Exit code and the three lines for an error; None if it is a bug that deserves a traceback."""
    if isinstance(error, Failure):
        return error.code, _three(error.what, error.why, error.remedy)
    if isinstance(error, errors.CheckpointError):
        context = click.get_current_context(silent=True)
        command = context.command_path if context else " ".join(["raftckpt", *sys.argv[1:3]])
        remedy = _REMEDIES_OF_REASONS.get(error.reason) or next(
            (text for kind, text in _REMEDIES.items() if isinstance(error, kind)),
            "see raftckpt cluster status and the log of the leader",
        )
        outcome = "failed" if error.definite else "outcome unknown (it may have happened)"
        return exit_code_of(error), _three(
            f"{command}: {outcome}", f"{error} [{error.code.name}]", remedy
        )
    return None, []


def usage(command: str, why: str) -> list[str]:
    """The three lines for a command that cannot be understood."""
    return _three(f"{command}: wrong usage", why, f"{command} --help")


def _three(what: str, why: str, remedy: str) -> list[str]:
    return [f"error: {plain(what)}", f"  why: {plain(why)}", f"  try: {plain(remedy)}"]


def print_json(value: Any) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(value, allow_nan=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table with aligned columns."""
    lines = [[plain(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    for row in [[heading.upper() for heading in headings], *lines]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print name and value, one pair a line, aligned."""
    known = list(pairs)
    width = max(len(name) for name, _ in known) + 2
    for name, value in known:
        click.echo(f"{name + ':':<{width}}{plain(str(value))}")


def show_bytes(data: bytes) -> str:
    """Bytes as text if they are printable text, else in hexadecimal with a 0x before it."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "0x" + data.hex()
    return text if text.isprintable() and text else ("0x" + data.hex() if data else '""')


def json_bytes(name: str, data: bytes) -> dict[str, str | None]:
    """The two JSON members of a byte string: text if it is valid UTF-8, and base64."""
    try:
        text: str | None = data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    return {name: text, f"{name}_base64": base64.b64encode(data).decode("ascii")}


def show_time(seconds: float | None, never: str = "never") -> str:
    """Epoch seconds as UTC text."""
    if seconds is None:
        return never
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="milliseconds")


def show_seconds(seconds: float | None) -> str:
    """A duration as text."""
    return "for ever" if seconds is None else f"{seconds:g} s"


def show_age(seconds: int) -> str:
    """An age as text, in its largest unit."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"


def show_size(size: int) -> str:
    """A number of bytes as text."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


@contextmanager
def progress(what: str, total: int = 0, unit: str = "MiB") -> Iterator[Callable[[int], None]]:
    """Tell how far it is, on a terminal only.

    Arguments:
        what: is being done.
        total: bytes in all; 0: nobody knows.
        unit: what is told: "MiB" of bytes, or the name of what is counted.
    """
    size_of = 1 << 20 if unit == "MiB" else 1
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
        rate = size / (now - begun) / size_of
        of = f" of {total / size_of:.0f}" if total else ""
        text = f"\r{what}: {size / size_of:.0f}{of} {unit}, {rate:.0f} {unit}/s "
        click.echo(text, nl=False, err=True)

    try:
        yield tell
    finally:
        if shown:
            click.echo("\r" + " " * 60 + "\r", nl=False, err=True)

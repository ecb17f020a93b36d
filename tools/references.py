"""Reference pages made from the code: ``python -m tools.references --write``.

``docs/reference/``: ``api.md`` from the public names and their docstrings, ``cli.md`` from the
commands, ``limits.md`` from ``limits.py`` and ``protocol/contract.py``, ``configuration.md`` from the
settings that ``node/config.py`` knows. Plain files, that read without a site; on the site the page
of the API is continued by mkdocstrings.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from raftckpt_cli.main import cli

import raftckpt
import raftckpt.aio
import raftckpt.testing
from raftckpt import errors, ha, limits, saf
from raftckpt.node import config
from raftckpt.protocol import contract

__all__ = ["MEANINGS", "PAGES", "main", "settings"]

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs/reference"
_MADE = "<!-- made by python -m tools.references --write -->"


# --- the API ------------------------------------------------------------------------------------
_MODULES: dict[str, tuple[str, ModuleType]] = {
    "raftckpt": ("Blocking client", raftckpt),
    "raftckpt.aio": ("asyncio client", raftckpt.aio),
    "raftckpt.ha": ("Hot standby", ha),
    "raftckpt.saf": ("The calls of the standard", saf),
    "raftckpt.testing": ("For your tests", raftckpt.testing),
}


def _first(thing: Any) -> str:
    """First sentence of a docstring, in one line of a table."""
    text = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return text.replace("|", "\\|")


def _signature(function: Any) -> str:
    """Names of the parameters; those with a default have it."""
    shown = []
    star = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            star = True
            shown.append("*")
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind)
        star = star or parameter.kind is parameter.VAR_POSITIONAL
        default = "" if parameter.default is parameter.empty else f"={_shown(parameter.default)}"
        shown.append((prefix or "") + parameter.name + default)
    return ", ".join(shown)


def _shown(value: Any) -> str:
    text = repr(value)
    return "..." if text.startswith("<") or len(text) > 24 else text


def _public(kind: type) -> Iterator[tuple[str, Any]]:
    """Methods and properties that a user calls, in the order of the source."""
    seen: set[str] = set()
    for owner in kind.__mro__:
        if not owner.__module__.startswith("raftckpt"):
            continue
        for name, member in vars(owner).items():
            if name.startswith("_") or name in seen or name.endswith("_wire"):
                continue
            seen.add(name)
            if isinstance(member, property):
                yield name, member
            elif isinstance(member, (classmethod, staticmethod)) or inspect.isfunction(member):
                yield f"{name}({_signature(getattr(kind, name))})", getattr(kind, name)


def _api() -> str:
    lines = [
        "# API",
        "",
        _MADE,
        "",
        "Every public name, a line each; the docstrings have types, units and errors in full (`help(raftckpt.Service.open)`, or",
        "below on the site). Times are seconds, unless a name ends in `_ns` or `_ms`. All errors: [errors](errors.md).",
        "Every method takes `timeout=` seconds where it says so; without it, that of `connect`.",
    ]
    for name, (title, module) in _MODULES.items():
        lines += ["", f"## {title}", "", f"`import {name}`: {_first(module)}", ""]
        public = [each for each in module.__all__ if not each.startswith("__")]
        things = [(each, getattr(module, each)) for each in public]
        raised = [e for e, t in things if isinstance(t, type) and issubclass(t, Exception)]
        things = [(e, t) for e, t in things if e not in raised and not inspect.ismodule(t)]
        plain = [(e, t) for e, t in things if not inspect.isclass(t) and inspect.isroutine(t)]
        if plain:
            lines += ["| function | |", "|---|---|"]
            lines += [f"| `{e}({_signature(t)})` | {_first(t)} |" for e, t in plain]
        for each, thing in things:
            if not inspect.isclass(thing) or (each == "Client" and thing is raftckpt.Service):
                continue
            rows = list(_public(thing))
            lines += ["", f"### {name}.{each}", "", _first(thing)]
            if dataclasses.is_dataclass(thing):
                names = ", ".join(f"`{f.name}`" for f in dataclasses.fields(thing))
                lines += ["", f"Fields: {names}."]
            elif hasattr(thing, "_fields"):
                lines += ["", "Fields: " + ", ".join(f"`{f}`" for f in thing._fields) + "."]
            if rows and name != "raftckpt.saf":
                lines += ["", "| | |", "|---|---|"]
                lines += [f"| `{call}` | {_first(member)} |" for call, member in rows]
        if raised:
            lines += ["", "Errors: " + ", ".join(f"`{each}`" for each in raised) + "."]
    lines += ["", "<!-- docstrings -->", ""]
    return "\n".join(lines)


# --- the command line ---------------------------------------------------------------------------
def _commands(group: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):  # commands are imported when they are asked for
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                yield from _commands(command, f"{path} {name}")
    else:
        yield path, group


def _kind(parameter: click.Parameter) -> str:
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return " or ".join(str(choice) for choice in kind.choices)
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return ""
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return "NUMBER"
    return (parameter.metavar or kind.name.upper()).replace("|", " or ")


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    kind = _kind(option)
    told = " ".join((option.help or "").split()).replace("|", "\\|").replace("<", "&lt;")
    default = option.default
    if option.show_default and isinstance(default, (int, float, str)) and default != "":
        told += f" Default: `{default}`."
    return f"| {names}{f' `{kind}`' if kind else ''} | {told} |"


def _cli() -> str:
    lines = [
        "# Command line",
        "",
        _MADE,
        "",
        "What `raftckpt COMMAND --help` says, in one page. Where the cluster is: `--endpoints`, `--config`, `RAFTCKPT_ENDPOINTS`,",
        "`RAFTCKPT_CONFIG`, else `./cluster.yaml`. Data goes to standard output, everything else to standard error; `-o json` is a",
        "contract that tests hold.",
        "",
        "| exit code | |",
        "|---|---|",
        "| 0 | ok |",
        "| 1 | refused: it certainly did not happen |",
        "| 2 | usage |",
        "| 3 | outcome unknown: it may have happened |",
        "| 4 | unavailable |",
        "| 5 | not found |",
        "| 6 | denied |",
        "| 130 | interrupted |",
    ]
    for path, command in _commands(cli, "raftckpt"):
        arguments = []
        for parameter in command.params:
            if isinstance(parameter, click.Argument):
                name = parameter.metavar or (parameter.name or "").upper()
                name += "..." if parameter.nargs == -1 and not name.endswith("...") else ""
                needed = parameter.required or name.startswith("[")
                arguments.append(name if needed else f"[{name}]")
        lines += ["", f"## {path}", "", "```text", " ".join([path, "[OPTIONS]", *arguments]), ""]
        text = inspect.cleandoc(command.help or "").replace("\b\n", "").replace("\f", "")
        lines += [text, "```"]
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        if options:
            lines += ["", "| option | |", "|---|---|", *map(_option, options)]
    return "\n".join([*lines, ""])


# --- limits ---------------------------------------------------------------------------------------
def _limits() -> str:
    lines = [
        "# Limits",
        "",
        _MADE,
        "",
        "Everything that grows has a limit with a name; reaching one is a typed error ([errors](errors.md)). What an operator may",
        "choose is in [configuration](configuration.md).",
    ]
    for module, title, said in (
        (
            contract,
            "The same on every replica",
            "`apply` decides by them, so all replicas of a cluster must share them; they change with a level only.",
        ),
        (
            limits,
            "Of one process",
            "A client or a replica may live by other numbers than its neighbour.",
        ),
    ):
        lines += ["", f"## {title}", "", said, "", "| limit | value | of what |", "|---|---|---|"]
        lines += [f"| `{n}` | {v} | {told} |" for n, v, told in _constants(module)]
    return "\n".join([*lines, ""])


def _constants(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """Public numbers of a module with the text that stands below each."""
    body = ast.parse(inspect.getsource(module)).body
    for node, after in pairwise([*body, ast.Pass()]):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name = node.target.id
        value = getattr(module, name)
        unit = name.endswith("IB") or name in ("MILLISECOND_NS", "SECOND_NS")
        if name.startswith("_") or not isinstance(value, (int, float)) or unit:
            continue
        told = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            told = " ".join(str(after.value.value).split()).replace("``", "`").replace("|", "\\|")
        yield name, _readable(name, value), told


def _readable(name: str, value: float) -> str:
    if "BYTES" in name and isinstance(value, int):
        for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value >= size and value % size == 0:
                return f"{value // size} {unit}"
    if "_NS" in name and value < contract.SA_TIME_MAX:
        return f"{value / 1e9:g} s"
    if "SECONDS" in name:
        return f"{value:g} s"
    return f"{value:,}"


# --- configuration ------------------------------------------------------------------------------
MEANINGS = {
    "cluster": "name of the cluster; replicas and clients of another one are refused. Needed",
    "data_dir": "replica `n1` keeps its data in `data_dir/n1`; relative to this file",
    "durability": "`os` trusts the page cache: a loss of power of a majority loses writes",
    "insecure": "serve other machines without TLS or secret: whoever reaches a port is let in",
    "peer_secret_file": "what replicas prove to each other that they have",
    "admin_open": "`metrics`: `/metrics` of the admin port is for everybody who reaches it, also while rights are on",
    "timing.heartbeat_ms": "the leader says that it lives, at least so often",
    "timing.election_min_ms": "silence after which a follower may ask for votes, at least; above three heartbeats",
    "timing.election_max_ms": "the same, at most; each follower draws from the range",
    "snapshot.entries": "a snapshot is taken after so many entries of log",
    "snapshot.bytes": "or so many bytes of it",
    "limits.connections": "of clients, in all",
    "limits.connections_per_address": "of clients, from one IP address",
    "limits.receive_bytes": "frames of all clients that have begun and not ended",
    "limits.send_bytes": "replies that wait for clients to read",
    "limits.data_bytes": "memory for data above which a leader takes no more (`TRY_AGAIN`, `full`); 0: none",
    "tls.peer.cert": "certificate of this replica, for its peers: PEM",
    "tls.peer.key": "its key, readable for its owner alone",
    "tls.peer.ca": "who signs replicas",
    "tls.client.cert": "certificate of this replica, for clients",
    "tls.client.key": "its key",
    "tls.client.ca": "who signs clients; without it anybody may connect who trusts the certificate",
    "log.level": "of what is written to standard error",
    "log.format": "`json`: an object a line",
    "log.rooms": "levels of single rooms, over `log.level`: `raft=debug, links=debug`",
    "log.audit": "file to which the records of the audit are appended, too",
    "log.audit_level": "of the audit; `warning`: refusals only",
}
"""What each setting is for, in one line."""


def settings() -> dict[str, tuple[Callable[[Any], Any], Any, str]]:
    """The settings that ``cluster.yaml`` may have: check, default, example."""
    return config._SETTINGS


def _values(check: Callable[[Any], Any]) -> str:
    """What a setting may be, from what its check holds."""
    kind = check.__qualname__.partition(".")[0]
    held = inspect.getclosurevars(check).nonlocals
    match kind:
        case "_choice":
            return ", ".join(f"`{word}`" for word in held["words"])
        case "_integer":
            return f"{held['low']:,} to {held['high']:,}"
        case "_size":
            return f"{_size(held['low'])} to {_size(held['high'])}"
        case "_boolean":
            return "`true`, `false`"
        case "_name":
            return "a name"
        case _:
            return "a text"


def _size(value: int) -> str:
    return _readable("BYTES", value) if value else "0"


def _default(path: str, value: Any) -> str:
    if value is None or value == {}:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    sized = settings()[path][0].__qualname__.startswith("_size")
    return f"`{(_size(value).replace(' ', '') if sized else value)}`"


def _configuration() -> str:
    lines = [
        "# Configuration",
        "",
        _MADE,
        "",
        "Keys of `cluster.yaml`, the same file on all hosts ([cluster.yaml](../../cluster.yaml) is one to start from). Each may be",
        "overridden by a variable of the environment, such as `RAFTCKPT_TIMING_HEARTBEAT_MS`, and those that `raftckpt serve --help`",
        "lists by a flag. Unknown keys, duplicates and impossible values are errors with file and line: `raftckpt config check FILE`.",
        "Sizes are bytes, or like `256MiB`. What SIGHUP takes without a restart: [operations](../operate/operations.md).",
        "",
        "| key | values | default | |",
        "|---|---|---|---|",
    ]
    for path, (check, default, _) in settings().items():
        said = MEANINGS.get(path, "")
        lines.append(f"| `{path}` | {_values(check)} | {_default(path, default)} | {said} |")
    lines += [
        "",
        "## Replicas and routes",
        "",
        "| key | |",
        "|---|---|",
        "| `replicas.NODE.client` | `host:port` where clients reach this replica, as others dial it. Needed |",
        "| `replicas.NODE.peer` | `host:port` where replicas reach it. Needed |",
        "| `replicas.NODE.admin` | `host:port` of probes and metrics; without it there is no such port |",
        "| `replicas.NODE.bind` | address on which it listens for both, if not on those above |",
        "| `routes.NODE` | `host:port` by which this host reaches the peer port of another, if not by the one above |",
        "",
    ]
    return "\n".join(lines)


# --- errors: the table of reasons, in a page that is written by hand ------------------------------
def _errors() -> str:
    text = (REFERENCE / "errors.md").read_text("utf-8")
    rows = [f"| `{reason}` | {said} |\n" for reason, (_, said) in errors.REASONS.items()]
    before, mark, after = text.partition("## Reasons\n")
    table = re.sub(r"(?:\| `\w+` \| .*\n)+", lambda _: "".join(rows), after, count=1)
    return before + mark + table


PAGES: dict[str, Callable[[], str]] = {
    "errors.md": _errors,
    "api.md": _api,
    "cli.md": _cli,
    "limits.md": _limits,
    "configuration.md": _configuration,
}


def main() -> int:
    """Write the pages (``--write``), or say which are old; returns the exit code."""
    old = []
    for name, make in PAGES.items():
        text = make()
        page = REFERENCE / name
        if "--write" in sys.argv[1:]:
            page.write_text(text, "utf-8")
        elif not page.exists() or page.read_text("utf-8") != text:
            old.append(name)
    if old:
        print(f"{', '.join(old)}: old: python -m tools.references --write", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())

"""Entry point ``raftckpt``: finds the command, loads only its module, maps errors to exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from raftckpt.version import VERSION
from raftckpt_cli.output import ExitCode, explain, usage

__all__ = ["cli", "main"]

_COMMANDS = {
    # name: (module:attribute, line of help; here so that --help imports nothing)
    "serve": ("serve:serve", "Run one replica in the foreground."),
    "dev": ("dev:dev", "Run a local cluster in one command, until Ctrl-C."),
    "demo": ("demo:demo", "Watch csa103 survive kill -9: counter, kills, verdict."),
    "checkpoint": (
        "checkpoint:checkpoint",
        "List, create, show, unlink, export, import checkpoints.",
    ),
    "section": (
        "section:section",
        "List, read, write, append to, create, delete, expire sections.",
    ),
    "track": ("track:track", "Follow a checkpoint: every change as it is committed."),
    "group": ("group:group", "List, show, lock, unlock, swap, shut down service groups."),
    "run": ("run:run", "Run a program as a component of a service group."),
    "lock": ("lock:lock", "Run a command while a lock is had."),
    "cluster": ("cluster:cluster", "Status, leadership transfer, comparison of replicas."),
    "certs": ("certs:certs", "Certificates of replicas and clients: make, renew, check."),
    "auth": ("rights:auth", "Switch rights on and off; who am I?"),
    "principal": ("rights:principal", "Make and revoke principals, give them tokens."),
    "space": ("rights:space", "Make spaces of names, and grant rights on them."),
    "snapshot": ("snapshot:snapshot", "Save the state to a file, look at one, restore one."),
    "data": ("data:data", "Look inside a data directory, offline."),
    "top": ("top:top", "A cluster live in a terminal: leader, lag, busy checkpoints."),
    "doctor": ("doctor:doctor", "Run all checks on a cluster and say what to do."),
    "bench": ("bench:bench", "Measure acknowledged operations per second."),
    "saf-library": ("saf_library:saf_library", "Build the SA Forum library for C programs."),
    "chaos": ("chaos:chaos", "Break a local cluster in every way and judge what its clients saw."),
    "config": ("config:config", "Check a cluster.yaml."),
    "completion": ("config:completion", "Print the completion script of a shell."),
    "version": ("config:version", "Print the version."),
}


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command and return it."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(
            importlib.import_module(f"raftckpt_cli.{module}"), attribute
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 refused, 2 usage, 3 outcome unknown, 4 unavailable, 5 not found, "
    "6 denied, 130 interrupted.",
)
@click.version_option(
    VERSION, "--version", prog_name="raftckpt", message="%(prog)s %(version)s", help="Its version."
)
def cli() -> None:
    """Checkpoints of your application's state, replicated by Raft.

    \b
    Start here:
      raftckpt demo                       a failover to look at
      raftckpt dev                        a cluster to play with, until Ctrl-C
      raftckpt serve --config cluster.yaml --node n1

    Where the cluster is: --endpoints, --config, RAFTCKPT_ENDPOINTS, RAFTCKPT_CONFIG, else
    ./cluster.yaml.
    """  # noqa: D301


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(arguments))


def _reader_left() -> int:
    """Whoever reads our output has seen enough: that is a good end, and nobody is to be told."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return ExitCode.OK


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every error ends up here."""
    try:
        result: Any = cli.main(args=arguments, prog_name="raftckpt", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else ExitCode.OK
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "raftckpt"
        lines = usage(command, error.format_message())
        click.echo("\n".join(lines), err=True)
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except SystemExit:  # with standalone_mode=False click exits by itself at a broken pipe only
        return _reader_left()
    except Exception as error:
        code, lines = explain(error)
        if code is None:
            raise
        click.echo("\n".join(lines), err=True)
        return code


if __name__ == "__main__":
    main()

"""``raftckpt lock``: run a command while a lock is had."""

from __future__ import annotations

import click

from raftckpt_cli.options import ClusterTarget, cluster_options
from raftckpt_cli.output import Failure

__all__ = ["lock"]

_MARGIN_SECONDS = 2.0
_GRACE_SECONDS = 1.0


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("name")
@click.option(
    "--wait", type=click.FloatRange(0), help="Seconds to wait for it.  [default: no limit]"
)
@click.option(
    "--stop-timeout",
    type=click.FloatRange(0, 500),
    default=5.0,
    show_default=True,
    help="Seconds between SIGTERM and SIGKILL when the lock is lost.",
)
@click.option(
    "--session-timeout",
    type=click.FloatRange(0.1, 86_400),
    default=10.0,
    show_default=True,
    help="Seconds of silence after which another one can have the lock; COMMAND is gone by then.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@cluster_options
def lock(
    target: ClusterTarget,
    name: str,
    wait: float | None,
    stop_timeout: float,
    session_timeout: float,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND while the lock NAME is had; nobody else has it meanwhile.

    COMMAND finds in RAFTCKPT_LOCK_TOKEN a number that grows each time the lock is had: what it
    changes can refuse a smaller one than it has seen. When the lock is lost (no replica is heard
    from) COMMAND gets SIGTERM, and SIGKILL before another one can have the lock. The exit code is
    COMMAND's, 128 and a signal's number if one ended it; 1 if the lock was not had in time.

    \b
    Examples:
      raftckpt lock nightly -- ./backup.sh
      raftckpt lock --wait 0 nightly -- ./backup.sh    # or not at all
    """  # noqa: D301
    if session_timeout < stop_timeout + _MARGIN_SECONDS:
        raise click.UsageError(
            "COMMAND could not be stopped in time: --session-timeout is at least "
            f"{stop_timeout + _MARGIN_SECONDS:g}, --stop-timeout and {_MARGIN_SECONDS:g} s"
        )
    if command[0] == "--":  # behind NAME it is not the parser's
        command = command[1:]
    if not command:
        raise click.UsageError("which command?")
    import raftckpt
    from raftckpt import ha
    from raftckpt.ha.locked import run_locked

    options = target.connection(name=f"lock {name}") | {
        "session_timeout": session_timeout,
        "disconnect_grace": stop_timeout + _GRACE_SECONDS,
    }
    try:
        with target.waiting_for(lambda: ha.connect(target.endpoints, **options)) as service:
            return run_locked(
                service,
                name,
                command,
                wait=wait,
                stop_timeout=stop_timeout,
                environment={"RAFTCKPT_ENDPOINTS": target.endpoints},
            )
    except raftckpt.Timeout as error:
        if not error.definite:
            raise
        raise Failure(f"lock {name}: not had", error.message, "wait longer with --wait") from None
    except OSError as error:
        if isinstance(error, raftckpt.CheckpointError):
            raise
        raise Failure(
            f"cannot run {command[0]}",
            error.strerror or str(error),
            "name a program that exists and may be executed",
        ) from None

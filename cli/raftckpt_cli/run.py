"""``raftckpt run``: supervise a program as a component of a service group."""

from __future__ import annotations

import os
import signal
import socket

import click

from raftckpt_cli.options import ClusterTarget, cluster_options
from raftckpt_cli.output import Failure

__all__ = ["run"]

_MARGIN_SECONDS = 2.0
_GRACE_SECONDS = 1.0


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--group", required=True, help="The service group; made by the first who joins.")
@click.option("--name", help="Name of the component.  [default: HOST-PID]")
@click.option("--rank", type=click.IntRange(0), default=0, help="Smaller is promoted earlier.")
@click.option(
    "--start",
    type=click.Choice(["always", "active"]),
    default="active",
    show_default=True,
    help="active: run it only while it is active; always: it speaks the line protocol.",
)
@click.option(
    "--response-timeout",
    type=click.FloatRange(0.1, 3000),
    default=10.0,
    show_default=True,
    help="Seconds the program has to answer an assignment.",
)
@click.option(
    "--stop-timeout",
    type=click.FloatRange(0, 500),
    default=5.0,
    show_default=True,
    help="Seconds between SIGTERM and SIGKILL.",
)
@click.option(
    "--health-check",
    type=click.FloatRange(0.1, 3600),
    help="Kill and replace a program that says nothing for so many seconds.",
)
@click.option(
    "--session-timeout",
    type=click.FloatRange(0.1, 86_400),
    default=10.0,
    show_default=True,
    help="Seconds of silence after which a supervisor that is cut off is replaced; it has stopped "
    "the program by then.",
)
@click.option("--node", help="Node this counts as.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@cluster_options
def run(
    target: ClusterTarget,
    group: str,
    name: str | None,
    rank: int,
    start: str,
    response_timeout: float,
    stop_timeout: float,
    health_check: float | None,
    session_timeout: float,
    node: str | None,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND as a component: one of the group is active, the others stand by.

    The session is held here; the program gets its roles as lines on the descriptor
    RAFTCKPT_ROLE_FD and answers "ok NUMBER" or "failed NUMBER" on RAFTCKPT_ANSWER_FD
    (docs/guides/ha.md). It is restarted when it ends, stands by then, and dies with this
    supervisor. As the first process of a container this one also reaps what the program's children
    leave behind.

    \b
    Examples:
      raftckpt run --group web --start active -- /usr/sbin/nginx -g 'daemon off;'
      raftckpt run --group counters --name c1 -- ./counter.sh
    """  # noqa: D301
    if health_check is not None and start == "active":
        raise click.UsageError(
            "--health-check is for programs that speak the line protocol: give --start always"
        )
    if session_timeout < stop_timeout + _MARGIN_SECONDS:
        raise click.UsageError(
            "a supervisor that is cut off could not stop the program in time: --session-timeout "
            f"is at least {stop_timeout + _MARGIN_SECONDS:g}, --stop-timeout and "
            f"{_MARGIN_SECONDS:g} s"
        )
    from raftckpt import ha
    from raftckpt.ha.supervisor import Settings, Start, Supervisor

    settings = Settings(
        group=group,
        name=name or f"{socket.gethostname()}-{os.getpid()}",
        command=command,
        start=Start(start),
        rank=rank,
        response_timeout=response_timeout,
        stop_timeout=stop_timeout,
        health_check=health_check,
        environment={"RAFTCKPT_ENDPOINTS": target.endpoints},
    )
    options = target.connection(name=f"run {settings.name}") | {
        "session_timeout": session_timeout,
        # a connection that broke may look like our death: first the program has to be gone
        "disconnect_grace": stop_timeout + _GRACE_SECONDS,
        "node": node,
    }
    supervisor = Supervisor(
        lambda: ha.connect(target.endpoints, **options),
        settings,
        lambda text: click.echo(f"raftckpt run: {group}/{settings.name}: {text}", err=True),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    signal.signal(signal.SIGCHLD, lambda *_: supervisor.look())
    try:
        supervisor.run()
    except OSError as error:
        raise Failure(
            f"cannot run {command[0]}",
            error.strerror or str(error),
            "name a program that exists and may be executed",
        ) from None

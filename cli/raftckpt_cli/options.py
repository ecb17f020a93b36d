"""Options shared by the commands, and how they turn into a connection."""

from __future__ import annotations

import functools
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from raftckpt_cli.output import ExitCode, Failure

if TYPE_CHECKING:
    import raftckpt

__all__ = [
    "ClusterTarget",
    "cluster_options",
    "confirm",
    "consistency_option",
    "output_option",
    "token_option",
]

_F = TypeVar("_F", bound=Callable[..., Any])
_SAY_AFTER_SECONDS = 1.0
_TOKEN_BYTES = 16
"""128 bits: nobody guesses them."""
_LOOK_SECONDS = 0.7
"""A replica that has not answered by then hangs, or its host does."""


@dataclass(frozen=True)
class ClusterTarget:
    """Which cluster, how to reach it, how to print."""

    endpoints: str
    timeout: float
    output: str
    token_file: str | None
    ca: str | None
    cert: str | None
    key: str | None
    patience: float = 10.0
    """Seconds for looking at all replicas: `--timeout` if it was typed, else less than one."""

    @property
    def json(self) -> bool:
        """Whether JSON was asked for."""
        return self.output == "json"

    def connect(self, endpoints: str | None = None, *, session: bool = True) -> raftckpt.Service:
        """Connect; every call gets the timeout given.

        Raises:
            CheckpointError: if the cluster cannot be reached.
        """
        import raftckpt

        return self.waiting_for(
            lambda: raftckpt.connect(
                endpoints or self.endpoints, **self.connection(), session=session
            )
        )

    def waiting_for(self, connect: Callable[[], raftckpt.Service]) -> raftckpt.Service:
        """Connect; say on stderr whom we wait for, should nobody answer for a second."""
        service: raftckpt.Service | None = None

        def say() -> None:
            if service is None or service.state == "searching":
                text = f"raftckpt: waiting for {self.endpoints}, at most {self.timeout:g} s"
                click.echo(text, err=True)

        timer = threading.Timer(_SAY_AFTER_SECONDS, say)
        timer.daemon = True
        timer.start()
        try:
            service = connect()
        except BaseException:
            timer.cancel()
            raise
        return service

    def connection(self, name: str = "raftckpt-cli") -> dict[str, Any]:
        """Keyword arguments of ``connect()`` that both faces take."""
        import raftckpt

        tls = None
        if self.ca is not None:
            tls = raftckpt.TlsOptions(self.ca, self.cert, self.key)
        elif self.cert is not None or self.key is not None:
            raise click.UsageError("--cert and --key need --ca")
        token = _token(self.token_file) if self.token_file else None
        return {
            "timeout": self.timeout,
            "disconnect_grace": 0.0,
            "tls": tls,
            "token": token,
            "name": name,
        }


def _token(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise Failure(
            f"cannot read the token file {path}",
            str(error),
            "name the file that principal create --token-out made",
            ExitCode.USAGE,
        ) from None


def output_option(function: _F) -> _F:
    """Add ``-o table|json``."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        envvar="RAFTCKPT_OUTPUT",
        show_envvar=True,
        help="How to print.  [default: table]",
    )(function)


def consistency_option(function: _F) -> _F:
    """Add ``--consistency``."""
    return click.option(
        "--consistency",
        type=click.Choice(["linearizable", "local"]),
        default="linearizable",
        show_default=True,
        help="local: what the replica asked has applied so far, which may be old; needs neither "
        "a leader nor a majority.",
    )(function)


def token_option(who: str) -> Callable[[_F], _F]:
    """Add ``--token``: what ``who`` will show after ``serve --join``; drawn if it is not given.

    Hexadecimal: whatever is drawn can be typed, and is never taken for an option.
    """

    def checked(context: click.Context, option: click.Parameter, value: str | None) -> str:
        from raftckpt.client.operations import join_token
        from raftckpt.errors import InvalidParam

        try:
            return join_token(value) if value is not None else secrets.token_hex(_TOKEN_BYTES)
        except InvalidParam as error:
            raise click.BadParameter(str(error)) from None

    text = f"What {who} will show (default: drawn and printed)."
    return click.option("--token", callback=checked, help=text)


def cluster_options(function: _F) -> _F:
    """Add the options of a command that talks to a cluster; it gets a ClusterTarget first."""

    @functools.wraps(function)
    @click.pass_context
    def wrapper(context: click.Context, /, *args: Any, **options: Any) -> Any:
        names = ("timeout", "output", "token_file", "ca", "cert", "key")
        own = {name: options.pop(name) for name in names}
        endpoints = _endpoints(context, options.pop("endpoints"), options.pop("config"))
        typed = context.get_parameter_source("timeout") is ParameterSource.COMMANDLINE
        patience = own["timeout"] if typed else min(own["timeout"], _LOOK_SECONDS)
        target = ClusterTarget(endpoints, **own, patience=patience)
        return context.invoke(function, target, *args, **options)

    decorators = [
        click.option(
            "--endpoints",
            envvar="RAFTCKPT_ENDPOINTS",
            show_envvar=True,
            help="host:port,host:port,...",
        ),
        click.option(
            "--config",
            envvar="RAFTCKPT_CONFIG",
            show_envvar=True,
            type=click.Path(dir_okay=False),
            help="A cluster.yaml.  [default: ./cluster.yaml]",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(0.001, 86_400),
            default=10.0,
            envvar="RAFTCKPT_TIMEOUT",
            show_envvar=True,
            help="Seconds for each call.  [default: 10]",
        ),
        output_option,
        *(
            click.option(
                f"--{name}",
                envvar=f"RAFTCKPT_{name.upper().replace('-', '_')}",
                show_envvar=True,
                type=_FILE,
                help=text,
            )
            for name, text in (
                ("token-file", "File with the access token."),
                ("ca", "Certificate authority (PEM): turns TLS on."),
                ("cert", "Client certificate (PEM)."),
                ("key", "Private key of the certificate (PEM)."),
            )
        ),
    ]
    for decorator in reversed(decorators):
        wrapper = decorator(wrapper)
    return wrapper  # type: ignore[return-value]


_FILE = click.Path(exists=True, dir_okay=False)


def _endpoints(context: click.Context, endpoints: str | None, config: str | None) -> str:
    """Flag before environment before ./cluster.yaml; endpoints before config."""
    given = [(endpoints, "endpoints"), (config, "config")]
    flags = [v for v, n in given if context.get_parameter_source(n) is ParameterSource.COMMANDLINE]
    if len(flags) > 1:
        raise click.UsageError("give --endpoints or --config, not both")
    chosen = flags[0] if flags else endpoints or config
    if chosen is None and Path("cluster.yaml").exists():
        chosen = "./cluster.yaml"
    if not chosen:
        raise Failure(
            "which cluster?",
            "neither --endpoints nor --config is given, RAFTCKPT_ENDPOINTS and RAFTCKPT_CONFIG are "
            "not set, and there is no ./cluster.yaml",
            "start one with: raftckpt dev, and pass the --endpoints it prints",
            ExitCode.USAGE,
        )
    if chosen == endpoints:
        return chosen
    if not os.path.isfile(chosen):  # Path.is_file raises on names too long
        raise Failure(
            f"cannot read the configuration {chosen}",
            "no such file",
            "name a cluster.yaml with --config, or give --endpoints host:port,...",
            ExitCode.USAGE,
        )
    return os.path.join(".", chosen) if os.sep not in chosen else chosen


def confirm(what: str, *, yes: bool, look: str = "--dry-run") -> None:
    """Ask before destroying something, on a terminal only; elsewhere ``--yes`` is required.

    ``look``: the option that only looks.

    Raises:
        Failure: not confirmed.
    """
    import sys

    if yes:
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        if click.confirm(f"{what}?", err=True):
            return
        raise Failure(f"{what}: not done", "not confirmed", "answer y, or pass --yes")
    raise Failure(
        f"{what}: not done",
        "this destroys data and there is no terminal to ask on",
        f"pass --yes (or look first with {look})",
        ExitCode.USAGE,
    )

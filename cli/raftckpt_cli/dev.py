"""``raftckpt dev``: a local cluster in one command."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from raftckpt.plain import plain
from raftckpt_cli.options import output_option
from raftckpt_cli.output import ExitCode, Failure, print_json, print_table

if TYPE_CHECKING:
    from raftckpt.testing import LocalCluster

__all__ = ["dev"]

_POLL_S = 0.2
"""How late a death is told; each look is one waitpid for each replica."""


@click.command()
@click.option(
    "--replicas", type=click.IntRange(1, 7), default=3, show_default=True, help="How many."
)
@click.option(
    "--data-dir",
    default="raftckpt-dev",
    show_default=True,
    help="Where data, ports and logs are kept; the same directory is the same cluster again.",
)
@click.option(
    "--auth", "rights", is_flag=True, help="Switch rights on; the operator's token is in a file."
)
@click.option(
    "--tls", is_flag=True, help="Speak TLS; certificates are below certs/ in the directory."
)
@click.option("--restart", is_flag=True, help="Restart a replica that dies.")
@output_option
@click.pass_context
def dev(
    context: click.Context,
    replicas: int,
    data_dir: str,
    rights: bool,
    tls: bool,
    restart: bool,
    output: str,
) -> int:
    """Run a cluster of real replicas on this machine, until Ctrl-C.

    \b
    Examples:
      raftckpt dev
      raftckpt dev --replicas 5 --data-dir /tmp/five --restart
      raftckpt dev --auth --tls
      raftckpt section list CKPT --config raftckpt-dev/cluster.yaml
    """  # noqa: D301
    from raftckpt.testing import LocalCluster
    from raftckpt.testing.local_cluster import ClusterNotReady

    # SIGTERM must clean up like Ctrl-C; and shells start background jobs with SIGINT ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    cluster: LocalCluster | None = None
    try:
        cluster = LocalCluster(replicas, data_dir, faults=False, auth=rights, tls=tls or None)
        asked = context.get_parameter_source("replicas") is ParameterSource.COMMANDLINE
        if asked and replicas != len(cluster.nodes):
            raise Failure(
                f"{data_dir} holds a cluster of {len(cluster.nodes)} replicas, not {replicas}",
                "--replicas is for a new one",
                "raftckpt cluster add NODE, while it runs; or choose another --data-dir",
                ExitCode.USAGE,
            )
        cluster.start()
        cluster.wait_ready()
        _announce(cluster, output)
        _watch(cluster, restart=restart)
    except ModuleNotFoundError as error:
        if error.name != "cryptography":
            raise
        raise Failure(
            "raftckpt dev --tls needs a package that is not installed",
            "no module cryptography",
            "pip install 'raftckpt[certs]'",
            ExitCode.USAGE,
        ) from None
    except ClusterNotReady as error:
        why, *logs = str(error).splitlines()
        for line in logs:
            click.echo(plain(line), err=True)
        raise Failure(
            "the local cluster did not start",
            why,
            f"look into the logs below {data_dir}, or choose another --data-dir",
            ExitCode.UNAVAILABLE,
        ) from None
    except KeyboardInterrupt:
        click.echo("stopping", err=True)
        return ExitCode.OK
    finally:
        if cluster is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            cluster.stop()


def _announce(cluster: LocalCluster, output: str) -> None:
    replicas: list[dict[str, Any]] = [
        {
            "node": node,
            "pid": cluster.pid(node),
            "client": cluster.endpoint(node),
            "peer": cluster.peer_endpoint(node),
        }
        for node in cluster.nodes
    ]
    if output == "json":
        print_json(
            {
                "endpoints": cluster.endpoints,
                "data_dir": str(cluster.data_dir),
                "config": str(cluster.config_path),
                "token_file": str(cluster.token_path) if cluster.token else None,
                "replicas": replicas,
            }
        )
        return
    print_table(["node", "pid", "client", "peer"], [list(each.values()) for each in replicas])
    click.echo(f"\nendpoints: {cluster.endpoints}\ndata:      {cluster.data_dir}\n")
    if (cluster.data_dir / "certs").exists():  # it says what to show, too
        click.echo(f"export RAFTCKPT_CONFIG={cluster.config_path}")
    else:
        click.echo(f"export RAFTCKPT_ENDPOINTS={cluster.endpoints}")
    if cluster.token:
        click.echo(f"export RAFTCKPT_TOKEN_FILE={cluster.token_path}")
    click.echo("Ctrl-C stops all.", err=True)


def _watch(cluster: LocalCluster, *, restart: bool) -> NoReturn:
    dead: set[str] = set()
    while True:
        for node in cluster.nodes:
            code = cluster.exit_code(node)
            if code is None or node in dead:
                continue
            how = f"died (signal {-code})" if code < 0 else f"ended (exit code {code})"
            click.echo(f"replica {node} {how}", err=True)
            if restart and code != 0:  # 0: the cluster removed it
                cluster.restart(node, wait=False)
                click.echo(f"replica {node} restarted, pid {cluster.pid(node)}", err=True)
            else:
                dead.add(node)
        time.sleep(_POLL_S)

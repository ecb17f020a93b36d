"""``raftckpt serve``: one replica in the foreground."""

from __future__ import annotations

import os

import click

__all__ = ["serve"]


@click.command()
@click.option(
    "--config",
    required=True,
    envvar="RAFTCKPT_CONFIG",
    show_envvar=True,
    type=click.Path(dir_okay=False),
    help="The cluster.yaml.",
)
@click.option(
    "--node",
    required=True,
    envvar="RAFTCKPT_NODE",
    show_envvar=True,
    help="Which replica this is.",
)
@click.option("--data-dir", help="Root of the data directories (over that of the file).")
@click.option(
    "--rejoin",
    is_flag=True,
    help="The data of this replica is lost for good: come back empty. It votes and counts only "
    "once it holds everything that was committed.",
)
@click.option("--join", metavar="TOKEN", help="Take the place that `cluster add` has kept.")
@click.option("--found", is_flag=True, help="Found a cluster of this one replica.")
def serve(
    config: str, node: str, data_dir: str | None, rejoin: bool, join: str | None, found: bool
) -> int:
    """Run one replica in the foreground until SIGTERM or Ctrl-C.

    \b
    Examples:
      raftckpt serve --config cluster.yaml --node n1
      raftckpt serve --config cluster.yaml --node n2 --rejoin     # after its disk was replaced
      raftckpt serve --config cluster.yaml --node n4 --join TOKEN # after `raftckpt cluster add n4`
    """  # noqa: D301
    from raftckpt.process.main import main

    arguments = ["--config", os.fspath(config), "--node", node]
    if data_dir is not None:
        arguments += ["--data-dir", data_dir]
    if rejoin:
        arguments.append("--rejoin")
    if join is not None:
        arguments += ["--join", join]
    if found:
        arguments.append("--found")
    return int(main(arguments) or 0)

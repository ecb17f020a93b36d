"""``raftckpt config check``, ``completion`` and ``version``."""

from __future__ import annotations

import click

from raftckpt_cli.options import output_option
from raftckpt_cli.output import ExitCode, print_json, print_pairs

__all__ = ["completion", "config", "version"]


@click.group()
def config() -> None:
    """Check a cluster.yaml."""


@config.command("check")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--node", help="Certificates must be this replica's.  [default: any replica's]")
@output_option
def check(file: str, node: str | None, output: str) -> int:
    """Validate FILE; every problem is told with its line and the fix.

    Certificates that it names are looked at as the other side of a connection will: whether key,
    authority, cluster, node and names fit, and how long they hold.

    \b
    Examples:
      raftckpt config check cluster.yaml
      raftckpt config check /etc/raftckpt/cluster.yaml --node n1
    """  # noqa: D301
    from raftckpt.node.config import ConfigError, Problem, load
    from raftckpt.node.health import certificate_ends
    from raftckpt.node.tls import certificate_faults
    from raftckpt_cli.diagnosis import certificate_findings

    try:
        loaded = load(file)
        if node is not None and node not in loaded.replicas:
            known = ", ".join(loaded.replicas)
            raise ConfigError(file, [Problem(0, f"it has no replica {node}", f"one of: {known}")])
        faults = list(certificate_faults(loaded, node))
        if any(each.grave for each in faults):
            raise ConfigError(
                file,
                [Problem(0, f"{e.setting}: {e.why}", e.fix) for e in faults if e.grave],
            )
    except ConfigError as error:
        if output == "json":
            problems = [{"line": p.line, "what": p.what, "fix": p.fix} for p in error.problems]
            print_json({"file": file, "ok": False, "problems": problems, "warnings": []})
        else:
            click.echo(str(error), err=True)
        return ExitCode.USAGE
    warnings = [*loaded.warnings, *(f"{each.setting}: {each.why}" for each in faults)]
    warnings += [told for _, told, _ in certificate_findings("this host", certificate_ends(loaded))]
    if output == "json":
        print_json({"file": file, "ok": True, "problems": [], "warnings": warnings})
        return ExitCode.OK
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    replicas = ", ".join(f"{node} {at.client}" for node, at in loaded.replicas.items())
    click.echo(f"{file} is valid: cluster {loaded.cluster}, durability {loaded.durability}")
    click.echo(f"replicas: {replicas}")
    return ExitCode.OK


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Example:
      raftckpt completion bash >> ~/.bashrc
    """  # noqa: D301
    from click.shell_completion import get_completion_class

    from raftckpt_cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(cli, {}, "raftckpt", "_RAFTCKPT_COMPLETE").source())


@click.command()
@output_option
def version(output: str) -> None:
    """Print the version of the product and of its protocols."""
    from raftckpt import version as versions

    pairs = {
        "version": versions.VERSION,
        "client_protocol": versions.CLIENT_PROTOCOL,
        "peer_protocol": versions.PEER_PROTOCOL,
        "journal": versions.JOURNAL_VERSION,
        "image": versions.IMAGE_VERSION,
    }
    if output == "json":
        print_json(pairs)
    else:
        print_pairs(pairs.items())

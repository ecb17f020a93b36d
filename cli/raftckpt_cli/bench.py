"""``raftckpt bench``: acknowledged operations per second."""

from __future__ import annotations

import click

from raftckpt_cli.options import Target, cluster_options
from raftckpt_cli.output import ExitCode, print_json, print_pairs

__all__ = ["bench"]


@click.command()
@click.option("--clients", type=click.IntRange(1, 1000), default=4, show_default=True)
@click.option(
    "--outstanding",
    type=click.IntRange(1, 4096),
    default=16,
    show_default=True,
    help="Requests each client has on their way at once.",
)
@click.option(
    "--size",
    type=click.IntRange(0, 64 << 20),
    default=100,
    show_default=True,
    help="Bytes per section.",
)
@click.option(
    "--reads",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of linearizable reads; the rest are writes.",
)
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True, help="How long."
)
@cluster_options
def bench(
    target: Target, clients: int, outstanding: int, size: int, reads: float, seconds: float
) -> int:
    """Measure acknowledged operations; the cluster keeps nothing of it.

    \b
    Examples:
      raftckpt bench --clients 1 --outstanding 1       one write after the other
      raftckpt bench --clients 8 --outstanding 32 --reads 0.9 -o json
    """  # noqa: D301
    import asyncio

    from raftckpt.testing.bench import Load, run

    load = Load(clients, outstanding, size, reads, seconds)
    connection = target.connection("raftckpt-bench")
    measured = asyncio.run(run(target.endpoints, load, **connection))
    if target.json:
        print_json(
            {
                "ops_per_s": round(measured.ops_per_s, 1),
                "mb_per_s": round(measured.mb_per_s, 3),
                "p50_us": round(measured.p50_us),
                "p99_us": round(measured.p99_us),
                "errors": measured.errors,
                "operations": measured.operations,
                "seconds": round(measured.seconds, 3),
            }
        )
    else:
        print_pairs(
            [
                ("operations", f"{measured.operations} in {measured.seconds:.1f} s"),
                ("per second", f"{measured.ops_per_s:.0f} ({measured.mb_per_s:.1f} MB/s)"),
                ("latency p50", f"{measured.p50_us / 1000:.2f} ms"),
                ("latency p99", f"{measured.p99_us / 1000:.2f} ms"),
                ("errors", measured.errors),
            ]
        )
    if measured.errors:
        click.echo(f"first error: {measured.first_error}", err=True)
        return ExitCode.REFUSED
    return ExitCode.OK

"""``raftckpt bench``: acknowledged operations per second, their latencies, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftckpt_cli.options import ClusterTarget, cluster_options
from raftckpt_cli.output import ExitCode, print_json, print_pairs, print_table

if TYPE_CHECKING:
    from raftckpt.bench.loads import Load
    from raftckpt.bench.run import Measured, ReplicaCost

__all__ = ["bench"]

_SWEPT = ("outstanding", "clients", "size", "rate")


class _Sweep(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """``NAME=VALUE,VALUE,...``."""

    name = "NAME=V,V,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, list[int]]:
        name, _, values = str(value).partition("=")
        parts = values.split(",")
        if name not in _SWEPT or not all(part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"expected one of {', '.join(_SWEPT)}, as in outstanding=1,16,64", param, ctx)
        return name, [int(part) for part in parts]


@click.command()
@click.option(
    "--workload",
    type=click.Choice(["put", "partial", "vector"]),
    default="put",
    show_default=True,
    help="Overwrite sections, write somewhere into them, or into --elements at once.",
)
@click.option("--clients", type=click.IntRange(1, 1000), default=4, show_default=True)
@click.option(
    "--outstanding",
    type=click.IntRange(1, 3000),
    default=16,
    show_default=True,
    help="Requests each client has on their way at once.",
)
@click.option(
    "--size",
    type=click.IntRange(0, 64 << 20),
    default=100,
    show_default=True,
    help="Bytes per write.",
)
@click.option(
    "--reads",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of linearizable reads; the rest are writes.",
)
@click.option("--local", is_flag=True, help="The reads may be stale.")
@click.option(
    "--async",
    "asynchronous",
    is_flag=True,
    help="Writes are acknowledged when accepted, all is synchronized at the end.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1e7),
    default=0.0,
    help="Operations per second, evenly spaced.  [default: as fast as answers come]",
)
@click.option("--sections", type=click.IntRange(0, 100_000_000), default=0, help="In all.")
@click.option(
    "--section-size",
    type=click.IntRange(0, 64 << 20),
    default=0,
    help="Length of the sections that partial writes go into.  [default: --size]",
)
@click.option("--elements", type=click.IntRange(1, 4096), default=16, show_default=True)
@click.option("--checkpoints", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option(
    "--face",
    type=click.Choice(["raw", "aio", "sync"]),
    default="raw",
    show_default=True,
    help="Who sends: the generator itself, or one of the two Python clients.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Of the generator.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 36_000),
    default=5.0,
    show_default=True,
    help="How long.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(0, 600),
    default=0.5,
    show_default=True,
    help="Seconds before.",
)
@click.option(
    "--sweep",
    type=_Sweep(),
    help="Measure once for each value of outstanding, clients, size or rate.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True),
    help="Write an SVG: throughput and latency over the swept value, else over time.",
)
@cluster_options
def bench(
    target: ClusterTarget, sweep: tuple[str, list[int]] | None, plot: str | None, **load: Any
) -> int:
    """Measure acknowledged operations; the cluster keeps nothing of it.

    Latency runs from sending to the answer; with --rate from the moment the request was due, so
    that what a stall keeps waiting counts with its waiting.

    \b
    Examples:
      raftckpt bench --clients 1 --outstanding 1       one write after the other
      raftckpt bench --clients 8 --outstanding 32 --reads 0.9 -o json
      raftckpt bench --sweep outstanding=1,4,16,64 --plot throughput.svg
      raftckpt bench --sweep rate=1000,5000,10000 --plot latency.svg
      raftckpt bench --workload partial --section-size 16777216
    """  # noqa: D301
    import asyncio

    from raftckpt.bench.loads import Load
    from raftckpt.bench.run import run

    first = Load(**load)
    name, values = sweep if sweep is not None else ("seconds", [first.seconds])
    loads = [Load(**{**load, name: value}) for value in values]
    connection = target.connection("raftckpt-bench")
    del connection["disconnect_grace"]
    measured = [asyncio.run(run(target.endpoints, each, **connection)) for each in loads]
    if sweep is None:
        _print(target, measured[0])
    elif target.json:
        print_json([{name: getattr(each.load, name), **_as_json(each)} for each in measured])
    else:
        print_table(
            [name, "per second", "MB/s", "p50 ms", "p99 ms", "max ms", "errors"],
            [
                [
                    f"{getattr(each.load, name):g}",
                    f"{each.ops_per_s:.0f}",
                    f"{each.mb_per_s:.1f}",
                    *(f"{each.all.percentile(p) / 1000:.2f}" for p in (50, 99, 100)),
                    each.errors,
                ]
                for each in measured
            ],
        )
    if plot is not None:
        Path(plot).write_text(_plot(name if sweep is not None else None, measured), "utf-8")
    failed = next((each for each in measured if each.errors), None)
    if failed is not None:
        click.echo(f"first error: {failed.first_error}", err=True)
        return ExitCode.REFUSED
    return ExitCode.OK


def _as_json(measured: Measured) -> dict[str, Any]:
    latencies, count = measured.all, max(1, measured.operations)
    values = {
        "ops_per_s": round(measured.ops_per_s, 1),
        "mb_per_s": round(measured.mb_per_s, 3),
        "p50_us": latencies.percentile(50),
        "p90_us": latencies.percentile(90),
        "p99_us": latencies.percentile(99),
        "p999_us": latencies.percentile(99.9),
        "max_us": latencies.max_us,
        "errors": measured.errors,
        "operations": measured.operations,
        "seconds": measured.seconds,
        "elections": measured.elections,
        "generator_cpu_us_per_op": round(measured.generator_cpu_s * 1e6 / count, 2),
        "replicas": [
            {
                "node": cost.node,
                "role": cost.role,
                "cpu_us_per_op": round(cost.cpu_s * 1e6 / count, 2),
                "rss_bytes": cost.rss_bytes,
                "fsyncs": cost.fsyncs,
                "longest_step_ms": cost.longest_step_ms,
                "entries": cost.entries,
                "writes_per_entry": round(_per_entry(measured, cost), 1),
            }
            for cost in measured.replicas
        ],
    }
    for name, histogram in (("read", measured.reads), ("committed", measured.committed)):
        if histogram.count:
            values[f"{name}_p50_us"] = histogram.percentile(50)
            values[f"{name}_p99_us"] = histogram.percentile(99)
    return values


def _per_entry(measured: Measured, cost: ReplicaCost) -> float:
    return measured.writes.count / max(1, cost.entries)


def _print(target: ClusterTarget, measured: Measured) -> None:
    if target.json:
        print_json(_as_json(measured))
        return
    latencies, count = measured.all, max(1, measured.operations)
    percentiles = [f"{p:g} %: {latencies.percentile(p) / 1000:.2f}" for p in (50, 90, 99, 99.9)]
    pairs: list[tuple[str, Any]] = [
        ("operations", f"{measured.operations} in {measured.seconds:.1f} s"),
        ("per second", f"{measured.ops_per_s:.0f} ({measured.mb_per_s:.1f} MB/s)"),
        ("latency ms", "  ".join([*percentiles, f"max: {latencies.max_us / 1000:.2f}"])),
    ]
    if measured.committed.count:
        p50, p99 = (measured.committed.percentile(p) / 1000 for p in (50, 99))
        pairs.append(("until committed", f"50 %: {p50:.2f}  99 %: {p99:.2f} ms"))
    pairs.append(("generator", f"{measured.generator_cpu_s * 1e6 / count:.1f} us CPU/operation"))
    pairs += [
        (
            f"{cost.node} ({cost.role})",
            f"{cost.cpu_s * 1e6 / count:.1f} us CPU/operation, {cost.rss_bytes >> 20} MiB, "
            f"{cost.fsyncs} fsyncs, {_per_entry(measured, cost):.1f} writes/entry"
            + ("" if cost.longest_step_ms is None else f", longest step {cost.longest_step_ms} ms"),
        )
        for cost in measured.replicas
    ]
    pairs += [("elections", measured.elections), ("errors", measured.errors)]
    print_pairs(pairs)


def _plot(swept: str | None, measured: list[Measured]) -> str:
    from raftckpt.bench.plots import Series, line_plot

    if swept is None:
        timeline = measured[0].timeline
        return line_plot(
            f"{_describe(measured[0].load)}: over time",
            "seconds",
            "operations/s",
            [Series("operations/s", [(at, rate) for at, rate, _ in timeline])],
        )
    if swept == "rate":
        lines = [
            Series(f"p{p:g}", [(m.ops_per_s, m.all.percentile(p) / 1000) for m in measured])
            for p in (50, 90, 99, 99.9)
        ]
        title = f"{_describe(measured[0].load)}: latency over load"
        return line_plot(title, "operations/s", "milliseconds", lines, y_log=True)
    lines = [Series("operations/s", [(getattr(m.load, swept), m.ops_per_s) for m in measured])]
    title = f"{_describe(measured[0].load)}: throughput over {swept}"
    return line_plot(title, swept, "operations/s", lines, x_log=True)


def _describe(load: Load) -> str:
    what = f"{load.reads:.0%} reads, " if load.reads else ""
    return f"{what}{load.workload} of {load.size} B, {load.clients} clients"

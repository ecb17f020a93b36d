"""``raftckpt saf-library``: the C library with the SA Forum calls."""

from __future__ import annotations

from pathlib import Path

import click

from raftckpt_cli.options import output_option
from raftckpt_cli.output import Failure, print_json, print_pairs

__all__ = ["saf_library"]


@click.group(name="saf-library")
def saf_library() -> None:
    """Build libSaCkpt.so, with which SA Forum C programs run on the store."""


@saf_library.command()
@click.option(
    "--prefix",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Gets lib/, include/ and lib/pkgconfig/.",
)
@click.option("--cc", help="Command of the C compiler.  [default: $CC, else cc]")
@output_option
def install(prefix: Path, cc: str | None, output: str) -> None:
    """Build the library for this Python and install it with its headers.

    \b
    Example:
      raftckpt saf-library install --prefix /opt/saf
      export PKG_CONFIG_PATH=/opt/saf/lib/pkgconfig
      cc counter.c $(pkg-config --cflags --libs SaCkpt) -o counter
      RAFTCKPT_ENDPOINTS=host1:7401,host2:7401,host3:7401 ./counter
    """  # noqa: D301
    from raftckpt.capi.build import BuildFailed
    from raftckpt.capi.build import install as build

    try:
        installed = build(prefix, cc)
    except BuildFailed as error:
        raise Failure(error.what, error.why, error.remedy) from None
    except OSError as error:
        raise Failure(
            f"cannot install into {prefix}",
            f"{error.filename}: {error.strerror}",
            "choose a --prefix you may write",
        ) from None
    if output == "json":
        print_json(
            {
                "library": str(installed.shared_object),
                "headers": [str(path) for path in installed.headers],
                "pkg_config": str(installed.pkg_config),
                "python": installed.python,
            }
        )
    else:
        print_pairs(
            [
                ("library", installed.shared_object),
                ("headers", ", ".join(str(path) for path in installed.headers)),
                ("pkg-config", installed.pkg_config),
                ("runs in", installed.python),
            ]
        )

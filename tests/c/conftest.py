"""The C library built once, programs compiled against it, and a cluster for them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftckpt.testing import LocalCluster
from tests.secured import KEPT

HERE = Path(__file__).parent
Program = Callable[..., Path]
CONFORMANCE = (
    "conformance.c",
    "lifecycle.c",
    "names.c",
    "checkpoints.c",
    "sections.c",
    "data.c",
    "tracking.c",
    "threads.c",
)
WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g")


@pytest.fixture(scope="session")
def compiler() -> str:
    """The only thing whose absence is an excuse."""
    found = shutil.which("cc")
    if found is None:
        pytest.skip("no C compiler (cc) on this machine")
    return found


@pytest.fixture(scope="session")
def prefix(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the command line installed the library."""
    prefix = tmp_path_factory.mktemp("saf")
    done = subprocess.run(
        [sys.executable, "-m", "raftckpt_cli.main", "saf-library", "install", "--prefix", prefix],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return prefix


@pytest.fixture(scope="session")
def program(
    prefix: Path, compiler: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Compiles a program of this directory, once for each set of flags."""
    directory = tmp_path_factory.mktemp("programs")

    @functools.cache
    def build(*sources: str, flags: tuple[str, ...] = ()) -> Path:
        target = directory / "-".join([Path(sources[0]).stem, *flags]).replace("/", "-")
        lib = prefix / "lib"
        done = subprocess.run(
            [compiler, *WARNINGS, *flags, f"-I{prefix / 'include'}"]
            + [str(HERE / source) for source in sources]
            + ["-o", target, f"-L{lib}", f"-Wl,-rpath,{lib}", "-lSaCkpt", "-pthread", "-ldl"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return target

    return build


@pytest.fixture(scope="session")
def cluster(compiler: str) -> Iterator[LocalCluster]:
    with LocalCluster(3) as cluster:
        cluster.wait_ready()
        yield cluster


@pytest.fixture
def environment(cluster: LocalCluster) -> dict[str, str]:
    return environment_with(RAFTCKPT_ENDPOINTS=cluster.endpoints)


def environment_with(**more: str) -> dict[str, str]:
    """Return this process's environment without what would lead a program elsewhere."""
    kept = {
        name: value for name, value in os.environ.items() if "RAFTCKPT" not in name or name in KEPT
    }
    return {**kept, **more}


def run_program(
    *command: str | Path, env: dict[str, str], timeout: float = 100
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )

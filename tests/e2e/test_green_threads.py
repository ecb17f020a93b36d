"""gevent and eventlet: patched in time everything works, patched too late one error says so."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftckpt.testing import LocalCluster

pytestmark = pytest.mark.long

LIBRARIES = ("gevent", "eventlet")


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A library's name, and what Python needs to find it."""
    name = str(request.param)
    if importlib.util.find_spec(name) is not None:
        return [name, ""]
    where = str(tmp_path_factory.mktemp(name))
    line = [sys.executable, "-m", "pip", "install", "-q", "--target", where, name]
    installed = subprocess.run(line, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        why = installed.stderr.strip().splitlines() or ["pip says nothing"]
        pytest.skip(f"{name} is not installed and could not be: {why[-1]}")
    return [name, where]


def ran(library: list[str], when: str, what: str, cluster: LocalCluster) -> str:
    name, where = library
    path = os.pathsep.join(filter(None, [where, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        # patching what is imported already warns (of ssl, threads): that is the library's business
        [sys.executable, "-W", "ignore", "-m", "tests.e2e.green", name, when, what,
         cluster.endpoints],
        capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("what", ["blocking", "aio", "saf"])
@pytest.mark.parametrize("when", ["first", "imported"])
def test_green_threads_work(
    library: list[str], when: str, what: str, cluster: LocalCluster
) -> None:
    with_it = ran(library, "first", "blocking", cluster) if what == "saf" else ""
    assert with_it in ("", "done\n")  # the checkpoint is there
    assert ran(library, when, what, cluster) == "done\n"


def test_patched_after_connect_one_error_says_what_to_do(
    library: list[str], cluster: LocalCluster
) -> None:
    said = "patched True True\n"  # of a call, and of what close() would wait for
    assert ran(library, "connected", "late", cluster) == f"{said}{said}closed\ndone\n"

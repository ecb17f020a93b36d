"""What is released: the same bytes each time, and it works where nothing else is."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tools import release

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def revision() -> str:
    found = subprocess.run(["git", "-C", release.ROOT, "rev-parse"], capture_output=True)
    if found.returncode != 0:
        pytest.skip("not a work tree of git: nothing says what belongs to it")
    return release.commit()


@pytest.fixture(scope="module")
def files(revision: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return release.build(tmp_path_factory.mktemp("dist"), revision)


def test_two_builds_are_the_same_bytes(files, revision, tmp_path) -> None:
    again = release.build(tmp_path, revision)
    assert len(files) == 2
    assert release.digests(again) == release.digests(files)


def test_what_is_in_them(files) -> None:
    wheel, sdist = sorted(files, key=lambda file: file.suffix, reverse=True)
    inside = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in inside if "dist-info" not in name} == {
        "raftckpt",
        "raftckpt_cli",
        "raftckpt_pytest.py",
    }
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert {"raftckpt/py.typed", "raftckpt/capi/include/saCkpt.h"} <= set(inside)
    with tarfile.open(sdist) as tar:
        top = {name.split("/")[1] for name in tar.getnames() if "/" in name}
    assert {"tests", "docs", "examples", "tools", ".ci", "LICENSE", "README.md"} <= top


def test_they_work_on_this_python(files) -> None:
    """Commands, demo with a kill, plugin, C library; ``.ci/release`` does it on every Python."""
    for file in files:
        release.try_out(file, getattr(sys, "_base_executable", sys.executable))

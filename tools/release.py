"""Make and try the files of a release: ``.ci/release``, or ``python -m tools.release``.

The sdist and the wheel of the commit that is checked out are built twice, in two places, with the
time of the commit; they must be the same bytes. Each is installed in a fresh environment for every
Python that is found, and used: the commands, the demo with a kill, the pytest plugin in a project
that does not want it, the C library. Then what is left for a person is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from raftckpt.version import VERSION
from tools import changelog

__all__ = ["build", "commit", "digests", "main", "pythons", "try_out"]

ROOT = Path(__file__).parents[1]
EXTRAS = "c,certs,top"
"""All that a user may want: every module must be importable with them."""
MINORS = (11, 12, 13, 14)
"""Python 3 versions that are looked for; pyproject.toml lists those on which tests ran."""
CHECKLIST = """\
What is left, for you:
  [ ] .ci/run passed on this commit, on a machine that did nothing else
  [ ] .ci/long passed on it, a night at least; what it found has a test
  [ ] raftckpt bench, as docs/reference/performance.md says: its new figures have their date
  [ ] docs/operate/upgrade.md says what is special about coming from the last release
  [ ] python -m tools.changelog --write; "(unreleased)" in CHANGELOG.md is the date of today
  [ ] raftckpt/version.py has the version; a format that changed has a new number and golden bytes
  [ ] git tag -s v{version} && git push --tags
  [ ] upload the two files of {where}, and SHA256SUMS beside them; install them from there once
  [ ] raftckpt/version.py: the next version; CHANGELOG.md: a section "(unreleased)" for it
"""


def run(command: list[str], **more: object) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run(  # type: ignore[call-overload]  # noqa: S603
        command, capture_output=True, text=True, timeout=3600, **more
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return str(done.stdout)


def commit() -> str:
    """The commit that is checked out."""
    return run(["git", "-C", str(ROOT), "rev-parse", "HEAD"]).strip()


def build(where: Path, revision: str) -> list[Path]:
    """Build sdist and wheel of a commit, without what lies around it.

    Arguments:
        where: the two files are put here.
        revision: the commit.
    """
    time = run(["git", "-C", str(ROOT), "log", "-1", "--format=%ct", revision]).strip()
    git = ["git", "-C", str(ROOT), "archive", revision]
    archive = subprocess.run(git, check=True, capture_output=True, timeout=60)  # noqa: S603
    with tempfile.TemporaryDirectory(prefix="raftckpt-build-") as tree:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(tree, filter="data")
        run(
            [sys.executable, "-m", "build", "--outdir", str(where), tree],
            env={**os.environ, "SOURCE_DATE_EPOCH": time},
        )
    return sorted(path for path in where.iterdir() if path.name.startswith("raftckpt-"))


def digests(files: list[Path]) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pythons() -> list[str]:
    """Interpreters of the versions that are supported: on the path, or where pyenv has them."""
    found = []
    for minor in MINORS:
        name = f"python3.{minor}"
        kept = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))
        python = str(kept[-1]) if kept else shutil.which(name)
        if python:
            found.append(python)
    return found


STRANGER = """\
import sys


def test_of_somebody_else():
    assert not [name for name in sys.modules if name.partition(".")[0] == "raftckpt"]
"""
USER = """\
import raftckpt


def test_mine(raftckpt_cluster):
    with raftckpt.connect(raftckpt_cluster.endpoints) as service:
        ckpt = service.open("mine", create=raftckpt.Attributes())
        ckpt.put("k", b"before")
        raftckpt_cluster.kill(raftckpt_cluster.leader())
        assert ckpt.read("k") == b"before"
"""
EVERY_MODULE = """\
import importlib, pkgutil, raftckpt, raftckpt_cli
for package in (raftckpt, raftckpt_cli):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__") and not found.name.startswith("raftckpt.capi.src"):
            importlib.import_module(found.name)
"""


def try_out(file: Path, python: str) -> None:
    """Install a file in a fresh environment of an interpreter, and use what is there."""
    with tempfile.TemporaryDirectory(prefix="raftckpt-try-") as scratch:
        environment = Path(scratch) / "venv"
        run([python, "-m", "venv", str(environment)])
        commands = environment / "bin"
        own = str(commands / "python")
        run([own, "-m", "pip", "install", "-q", f"{file}[{EXTRAS}]", "pytest"], cwd=scratch)
        run([own, "-m", "pip", "check"])
        assert VERSION in run([str(commands / "raftckpt"), "version"], cwd=scratch)
        run([own, "-c", EVERY_MODULE], cwd=scratch)
        for name, text in (("test_stranger.py", STRANGER), ("test_user.py", USER)):
            (Path(scratch) / name).write_text(text, "utf-8")
            # one after the other: the second imports what the first must not see
            run([own, "-W", "error", "-m", "pytest", "-q", name], cwd=scratch)
        run([str(commands / "raftckpt"), "demo", "--seconds", "4", "--kill", "active"], cwd=scratch)
        library = [str(commands / "raftckpt"), "saf-library", "install", "--prefix", "c"]
        run(library, cwd=scratch)


def try_tests(sdist: Path, python: str) -> str:
    """Run the pure tests out of an unpacked sdist; returns the last line."""
    with tempfile.TemporaryDirectory(prefix="raftckpt-sdist-") as scratch:
        with tarfile.open(sdist) as files:
            files.extractall(scratch, filter="data")
        tree = next(Path(scratch).iterdir())
        environment = Path(scratch) / "venv"
        run([python, "-m", "venv", str(environment)])
        own = str(environment / "bin/python")
        run([own, "-m", "pip", "install", "-q", ".[test]"], cwd=tree)
        tests = [own, "-m", "pytest", "-q", "-n", "2", "-m", "pure and not slow", "tests/unit"]
        return run([*tests, "tests/golden", "tests/scripts"], cwd=tree).splitlines()[-1]


def main() -> None:
    """Build, compare, install, use; then the list of what a person does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="dist", help="where the files are put")
    parser.add_argument("--tests", action="store_true", help="pure tests, too, on each Python")
    given = parser.parse_args()
    where = Path(given.out).resolve()
    if run(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"]):
        raise SystemExit("there are changes that are not committed: what is built is the commit")
    if changelog.main() != 0:
        raise SystemExit("the changelog has fragments that cannot be collected")
    if not re.search(rf"^## {re.escape(VERSION)} ", (ROOT / "CHANGELOG.md").read_text(), re.M):
        raise SystemExit(f"CHANGELOG.md has no section for {VERSION}")
    shutil.rmtree(where, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="raftckpt-again-") as again:
        revision = commit()
        files = build(where, revision)
        if digests(files) != digests(build(Path(again), revision)):
            raise SystemExit("two builds of one commit differ")
    for name, digest in digests(files).items():
        print(f"{digest}  {name}")
    (where / "SHA256SUMS").write_text(
        "".join(f"{digest}  {name}\n" for name, digest in digests(files).items()), "utf-8"
    )
    for python in pythons():
        for file in files:
            try_out(file, python)
            print(f"{file.name} works on {Path(python).name}", flush=True)
        if given.tests:
            sdist = next(file for file in files if file.name.endswith(".tar.gz"))
            print(f"{Path(python).name}: {try_tests(sdist, python)}", flush=True)
    print(CHECKLIST.format(version=VERSION, where=where))


if __name__ == "__main__":
    main()

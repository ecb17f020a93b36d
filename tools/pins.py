"""Pins of what development and CI install, and an audit of them that needs no network.

    python -m tools.pins --write     requirements/ from the environment that runs this
    python -m tools.pins             do the pins fit pyproject.toml, the hashes the pins, and is
                                     one of them in requirements/advisories.txt?

* ``requirements/constraints.txt``: name and version, for ``PIP_CONSTRAINT``; for any machine.
* ``requirements/hashes.txt``: the same with SHA-256 of their files, for CPython 3.11 to 3.13 on
  Linux with x86-64 or ARM64: ``pip install --require-hashes -r requirements/hashes.txt``, then
  ``pip install --no-deps --no-build-isolation -e .``: what builds it has hashes, too.
* ``requirements/advisories.txt``: known weaknesses, kept by hand. What is not written there is not
  found: it says until when somebody looked.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

__all__ = ["advised", "closure", "unfit"]

ROOT: Final = Path(__file__).parents[1]
WHERE: Final = ROOT / "requirements"
_PYTHONS: Final = ("3.11.9", "3.12.9", "3.13.3")
_MACHINES: Final = ("x86_64", "aarch64")
_LIBCS: Final = ("2_17", "2_28", "2_34")
"""Versions of glibc that wheels of today are built for."""
_EDITABLE: Final = ("editables>=0.5",)
"""What hatchling wants besides for ``pip install -e``."""
_PIN: Final = re.compile(r"([A-Za-z0-9._-]+)==([^\s\\]+)")


def wanted(extra: str = "dev") -> list[Requirement]:
    """What pyproject.toml asks for, to build it and with an extra and those that it names."""
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project = whole["project"]
    extras = project["optional-dependencies"]
    found = [Requirement(text) for text in (*whole["build-system"]["requires"], *_EDITABLE)]
    todo = [*map(Requirement, project["dependencies"] + extras[extra])]
    while todo:
        each = todo.pop()
        if each.name == project["name"]:
            todo += [Requirement(text) for name in each.extras for text in extras[name]]
        else:
            found.append(each)
    return found


def closure(requirements: list[Requirement]) -> dict[str, str]:
    """Versions here of what is asked for, and of what that asks for."""
    found: dict[str, str] = {}
    todo = [*requirements]
    while todo:
        each = todo.pop()
        name = canonicalize_name(each.name)
        if name in found or (each.marker and not each.marker.evaluate({"extra": ""})):
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # asked for on other machines only
        found[name] = distribution.version
        todo += [Requirement(text) for text in distribution.requires or ()]
    return dict(sorted(found.items()))


def hashes(pins: dict[str, str]) -> dict[str, set[str]]:
    """SHA-256 of the files that each machine would take."""
    found: dict[str, set[str]] = {name: set() for name in pins}
    with tempfile.TemporaryDirectory() as scratch:
        asked = Path(scratch) / "pins.txt"
        for machine in _MACHINES:
            for python in _PYTHONS:
                asked.write_text("".join(f"{n}=={v}\n" for n, v in pins.items()), "utf-8")
                platforms = [f"--platform=manylinux_{libc}_{machine}" for libc in _LIBCS]
                report = Path(scratch) / "report.json"
                command = [
                    sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--no-deps",
                    "--prefer-binary", f"--python-version={python}", *platforms,
                    "--implementation=cp", f"--target={scratch}/t", f"--report={report}",
                    "--ignore-installed", "-r", str(asked),
                ]  # fmt: skip
                subprocess.run(command, check=True)  # noqa: S603  (all of it is ours)
                for item in json.loads(report.read_text("utf-8"))["install"]:
                    told = item["download_info"].get("archive_info", {})
                    name = canonicalize_name(item["metadata"]["name"])
                    found[name].add(told["hashes"]["sha256"])
    return found


def pins_of(path: Path) -> dict[str, str]:
    """Name -> version of a file of pins."""
    return {canonicalize_name(name): version for name, version in _PIN.findall(path.read_text())}


def unfit(pins: dict[str, str], requirements: list[Requirement]) -> Iterator[str]:
    """What pyproject.toml asks for and the pins do not give."""
    for each in requirements:
        version = pins.get(canonicalize_name(each.name))
        if version is None:
            yield f"{each.name} is not pinned"
        elif version not in each.specifier:
            yield f"{each.name}=={version} is pinned, pyproject.toml asks for {each.specifier}"


def advised(pins: dict[str, str], advisories: str) -> Iterator[str]:
    """Pins that an advisory is about: lines of ``name specifier id what it is``."""
    for line in advisories.splitlines():
        if not line or line.startswith("#"):
            continue
        name, specifier, number, what = line.split(maxsplit=3)
        version = pins.get(canonicalize_name(name))
        if version is not None and Version(version) in SpecifierSet(specifier):
            yield f"{name}=={version}: {number}: {what}"


def _write() -> None:
    pins = closure(wanted())
    head = "# Made by `python -m tools.pins --write`, which says what it is for.\n"
    WHERE.mkdir(exist_ok=True)
    text = "".join(f"{name}=={version}\n" for name, version in pins.items())
    (WHERE / "constraints.txt").write_text(head + text, "utf-8")
    text = ""
    for name, told in hashes(pins).items():
        ends = [f" \\\n    --hash=sha256:{each}" for each in sorted(told)]
        text += f"{name}=={pins[name]}{''.join(ends)}\n"
    (WHERE / "hashes.txt").write_text(head + text, "utf-8")


def main() -> int:
    """Write, or check; returns the exit code."""
    if "--write" in sys.argv[1:]:
        _write()
    pins = pins_of(WHERE / "constraints.txt")
    wrong = list(unfit(pins, wanted()))
    for name, version in pins_of(WHERE / "hashes.txt").items():
        if pins.get(name) != version:
            wrong.append(f"{name}=={version} has hashes, pinned is {pins.get(name)}")
    wrong += advised(pins, (WHERE / "advisories.txt").read_text("utf-8"))
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

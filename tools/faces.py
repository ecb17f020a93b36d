"""Make the blocking faces from the asyncio faces: ``python -m tools.faces``.

``--check`` changes nothing and fails if a file is not what would be made. Both fail on a rule that
matched nothing: it is a rule nobody needs, or a line that has moved away from it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

ROOT = Path(__file__).parent.parent

_EVERYWHERE: Final = (
    (r"\basync def\b", "def"),
    (r"\bawait ", ""),
    (r"\basync with\b", "with"),
    (r"\b__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\b(Stop|)Async(Iterat(?:ion|or))\b", r"\1\2"),
    (r"\baio_(driver|extras|inflow|parts|tracking)\b", r"sync_\1"),
)
"""Each must match in some face."""


class Face(NamedTuple):
    """A file that is made from another one, and what is particular about it."""

    source: str
    target: str
    title: str
    rules: tuple[tuple[str, str], ...] = ()
    """Each must match in this face."""


FACES: Final = (
    Face("raftckpt/client/aio.py", "raftckpt/client/sync.py", "The blocking face, thread-safe."),
    Face(
        "raftckpt/client/aio_extras.py",
        "raftckpt/client/sync_extras.py",
        "What the blocking face does beside its calls: closing, finalizing, timing.",
        (
            (
                r"from raftckpt\.errors import CheckpointError\n",
                "from raftckpt.client.habits import MappingHabits\n"
                "from raftckpt.errors import CheckpointError\n",
            ),
            (
                r"class CheckpointExtras\(_Closing\)",
                "class CheckpointExtras(MappingHabits, _Closing)",
            ),
        ),
    ),
    Face(
        "raftckpt/client/aio_tracking.py",
        "raftckpt/client/sync_tracking.py",
        "The blocking face of trackers, thread-safe.",
        ((r"An asynchronous iterator of", "An iterator of"),),
    ),
    Face(
        "raftckpt/client/aio_rights.py",
        "raftckpt/client/sync_rights.py",
        "Principals, spaces and rights: see :mod:`raftckpt.rights`.",
        ((r"\braftckpt\.client\.aio import", "raftckpt.client.sync import"),),
    ),
    Face(
        "raftckpt/ha/aio.py",
        "raftckpt/ha/sync.py",
        "The blocking face of components, leases and service groups.",
        (
            (
                r"\bimport raftckpt\.aio\nfrom raftckpt\.aio import Connecting\n",
                "import raftckpt\n",
            ),
            (r"\braftckpt\.aio\.connect", "raftckpt.connect"),
            (r"-> Connecting\b", "-> Service"),
            (r"\braftckpt\.client\.aio import", "raftckpt.client.sync import"),
            (r"# \(the blocking one joins here\)", "self.join()"),
            (r"; it joins by :meth:`join`, or with :meth:`run`\.", "; made, it has joined."),
            (r"    They may be coroutine functions\.\n", ""),
            (r"\ban ``async with``", "a ``with``"),
            (
                r"; the blocking one may be called by a signal handler, too",
                "; a signal handler may",
            ),
        ),
    ),
)


class RuleUnused(Exception):
    """A rule matched nothing."""


def made(face: Face, used: set[str]) -> str:
    """Return what a face's file should hold, before it is formatted.

    Arguments:
        face: which.
        used: patterns that matched are added to it.

    Raises:
        RuleUnused: a rule of this face matched nothing.
    """
    text = (ROOT / face.source).read_text("utf-8")
    origin = Path(face.source).name
    title = f'"""{face.title}\n\nMade from ``{origin}`` by ``tools/faces.py``: do not edit.\n"""\n'
    for pattern, replacement in (*face.rules, *_EVERYWHERE):
        text, count = re.subn(pattern, replacement, text)
        if count:
            used.add(pattern)
        elif (pattern, replacement) in face.rules:
            raise RuleUnused(f"{face.source}: nothing matches {pattern!r}")
    return re.sub(r'\A"""(?:.|\n)*?"""\n', lambda _: title, text)


def _formatted(text: str, target: str) -> str:
    for command in (["check", "--quiet", "--select", "I", "--fix"], ["format", "--quiet"]):
        line = [sys.executable, "-m", "ruff", *command, "--stdin-filename", target, "-"]
        run = subprocess.run(  # noqa: S603 - our own interpreter
            line, input=text, capture_output=True, text=True, check=True, cwd=ROOT
        )
        text = run.stdout
    return text


def all_made() -> dict[str, str]:
    """Return what should be in each file, by path.

    Raises:
        RuleUnused: a rule matched nothing.
    """
    used: set[str] = set()
    files = {face.target: _formatted(made(face, used), face.target) for face in FACES}
    unused = [pattern for pattern, _ in _EVERYWHERE if pattern not in used]
    if unused:
        raise RuleUnused(f"nothing anywhere matches {unused}")
    return files


def main(arguments: list[str]) -> int:
    """Write the files, or compare them; exit status 1 if one differs or a rule is unused."""
    try:
        files = all_made()
    except RuleUnused as error:
        sys.stderr.write(f"{error}\n")
        return 1
    different = [
        path
        for path, text in files.items()
        if not (ROOT / path).exists() or (ROOT / path).read_text("utf-8") != text
    ]
    for path in different:
        if "--check" in arguments:
            sys.stderr.write(f"{path} is not what python -m tools.faces makes\n")
        else:
            (ROOT / path).write_text(files[path], "utf-8")
    return 1 if different and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

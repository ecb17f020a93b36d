"""Which tests are near: each room's modules and its tests, from the nearest to the furthest."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple


class Room(NamedTuple):
    """Paths are relative to the project; one that is not there (yet) counts for nothing."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()
    apart: tuple[tuple[str, str], ...] = ()
    """(module, tests that run it in processes of their own, where no map of lines reaches)."""

    def modules(self, root: Path) -> list[str]:
        """The modules that are changed."""
        found = [path for source in self.sources for path in sorted((root / source).rglob("*.py"))]
        names = [path.relative_to(root).as_posix() for path in found]
        return [name for name in names if not any(fnmatch(name, out) for out in self.without)]

    def test_paths(self, root: Path) -> list[str]:
        """The tests that exist."""
        return [path for path in self.tests if (root / path).exists()]


class Project(NamedTuple):
    """What is examined."""

    root: Path
    rooms: dict[str, Room]
    code: tuple[str, ...]
    """Where modules are imported from, relative to the root."""


_STORIES: Final = (
    "tests/scripts",
    "tests/sim/test_directed_service.py",
    "tests/sim/test_service.py",
)
ROOMS: Final = {
    "raft": Room(
        ("raftckpt/raft",),
        ("tests/unit/raft", "tests/sim/test_directed.py", "tests/scripts", "tests/sim/test_sim.py"),
    ),
    "storage": Room(
        ("raftckpt/storage",),
        (
            "tests/unit/storage",
            "tests/model/test_journal.py",
            "tests/golden",
            "tests/fuzz/test_directories.py",
        ),
    ),
    "model": Room(("raftckpt/model",), ("tests/unit/model", "tests/model", "tests/golden")),
    "protocol": Room(
        ("raftckpt/protocol", "raftckpt/wire"),
        ("tests/unit/protocol", "tests/unit/wire", "tests/golden", "tests/unit/model"),
    ),
    "copies": Room(("raftckpt/copies",), ("tests/unit/copies", "tests/cli/test_data.py")),
    "node": Room(
        ("raftckpt/node", "raftckpt/process"),
        ("tests/unit/node", "tests/fuzz/test_config.py", *_STORIES),
        apart=tuple(
            (f"raftckpt/{name}.py", "tests/unit/process/test_life.py")
            for name in (
                *(f"node/{name}" for name in ("early", "logs", "tls")),
                *(f"process/{name}" for name in ("__main__", "assemble", "desk", "disk", "life")),
                *(f"process/{name}" for name in ("main", "reload")),
            )
        ),
    ),
    "client": Room(
        ("raftckpt/client",),
        ("tests/unit/client", *_STORIES),
        without=tuple(f"raftckpt/client/{face}" for face in ("io/*", "aio*", "sync*")),
    ),
    "server": Room(("raftckpt/server",), ("tests/unit/server", "tests/unit/node", *_STORIES)),
}


def raftckpt() -> Project:
    """The checkout that this file is part of."""
    return Project(Path(__file__).resolve().parents[2], ROOMS, (".", "cli"))
